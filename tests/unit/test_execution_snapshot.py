"""SnapStart in the pool: when snapshots are taken, what environments are made from, what the log says."""

import re
from dataclasses import replace

import pytest

from preheat.execution import reports
from preheat.execution.contract import Prepared
from preheat.execution.pool import PoolLimits
from preheat.execution.workers.contract import Exit
from preheat.execution.workers.runtime.hooks import AFTER_RESTORE_STATUS
from preheat.execution.workers.scripted import InitScript, Script
from tests.unit.test_execution_pool import SPEC, World

ONE = replace(SPEC, version="1", snap_start=True)
RESTORED = re.compile(
    r"REPORT RequestId: r-1\tDuration: 1000\.00 ms\tBilled Duration: 1001 ms\tMemory Size: 128 MB\t"
    r"Max Memory Used: \d+ MB\tRestore Duration: 0\.00 ms\tBilled Restore Duration: 1 ms\t"
)


@pytest.fixture
def world():
    return World()


def prepare(world: World, spec=ONE) -> list[Prepared]:
    got: list[Prepared] = []
    world.pool.prepare(spec, got.append)
    return got


def of_stream(world: World, stream: str) -> list[str]:
    return [line.message for line in world.lines if line.log_stream == stream]


def test_environments_are_made_from_the_snapshot_that_publishing_took(world):
    world.init = InitScript(2.0)
    got = prepare(world)
    assert got == []
    world.advance(1.9)
    assert got == []
    world.advance(0.2)
    assert got == [Prepared()]
    outcomes = [world.start(ONE) for _ in range(3)]
    world.advance(1.0)
    assert [(found[0].init_ms, found[0].restore_ms) for found in outcomes] == [(None, 0.0)] * 3
    assert world.factory.started == 4
    streams = list(dict.fromkeys(line.log_stream for line in world.lines))
    assert len(streams) == 4 and all("/[1]" in stream for stream in streams)
    assert of_stream(world, streams[0])[1] == "INIT_REPORT Init Duration: 2000.00 ms\tPhase: init\tStatus: success"
    lines = of_stream(world, streams[1])
    assert lines[0].startswith("RESTORE_START Runtime Version: python:3.11.preheat\tRuntime Version ARN: arn:aws:")
    assert lines[1] == "RESTORE_REPORT Restore Duration: 0.00 ms"
    assert lines[2].startswith("START RequestId: r-1 Version: 1")
    assert RESTORED.fullmatch(lines[-1])


def test_a_warm_environment_reports_no_restore(world):
    prepare(world)
    world.advance(0.0)
    for _ in range(2):
        outcome = world.start(ONE)
        world.advance(1.0)
    assert outcome[0].restore_ms is None
    assert "Restore" not in world.messages()[-1]


def test_an_invocation_without_a_snapshot_waits_until_it_is_taken(world):
    world.init = InitScript(20.0)
    first, second = world.start(ONE), world.start(ONE)
    world.advance(19.9)
    assert world.factory.started == 1 and not first
    world.advance(1.2)
    assert first[0].restore_ms == second[0].restore_ms == 0.0
    assert world.factory.started == 3


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(3.0, 130), (200.0, 200), (900.0, 900)])
def test_initialisation_for_a_snapshot_has_its_own_limit(world, timeout_s, limit_s):
    world.init = InitScript(2_000.0)
    got = prepare(world, replace(ONE, timeout_s=timeout_s))
    world.advance(limit_s - 0.5)
    assert got == []
    world.advance(1.0)
    assert got[0].timed_out and got[0].error_type == "Runtime.ExitError"
    assert world.messages()[-1] == f"INIT_REPORT Init Duration: {limit_s}000.00 ms\tPhase: init\tStatus: timeout"


def test_a_failed_initialisation_says_why(world):
    world.init = InitScript(0.1, "KeyError", b'{"errorMessage": "gone"}')
    got = prepare(world)
    world.advance(0.2)
    assert got == [Prepared("KeyError", "gone")]
    assert world.messages()[-1].endswith("\tPhase: init\tStatus: error\tError Type: KeyError")


def test_a_snapshot_that_died_is_taken_again(world):
    prepare(world)
    world.advance(0.0)
    next(iter(world.factory.workers)).kill("test")
    world.advance(0.0)
    outcome = world.start(ONE)
    world.advance(1.0)
    assert outcome[0].restore_ms == 0.0
    assert sum("INIT_START" in message for message in world.messages()) == 2
    assert any("had to be taken again" in notice for notice in world.notices)


def test_a_deleted_version_keeps_its_running_environments_and_nothing_else(world):
    prepare(world)
    world.advance(0.0)
    outcome = world.start(ONE)
    world.advance(0.5)
    world.pool.retire(ONE.arn)
    world.pool.forget(ONE.arn, "1")
    world.advance(0.4)
    assert len(world.factory.workers) == 2
    world.advance(0.2)
    assert outcome[0].payload == b"1"
    assert not world.factory.workers


def test_an_idle_snapshot_gives_way_and_is_said(world):
    world = World(PoolLimits(max_snapshots=2))
    for number in "123":
        prepare(world, replace(ONE, version=number))
        world.advance(0.0)
    assert len(world.factory.workers) == 2
    assert any("version 1 gives way" in notice for notice in world.notices)
    outcome = world.start(ONE)
    world.advance(1.0)
    assert outcome[0].restore_ms == 0.0
    assert any("version 1 had to be taken again" in notice for notice in world.notices)


def test_a_snapshot_in_use_does_not_give_way(world):
    world = World(PoolLimits(max_snapshots=1))
    world.start(ONE)
    world.advance(0.5)
    prepare(world, replace(ONE, version="2"))
    world.advance(0.0)
    assert len(world.factory.workers) == 3


@pytest.mark.parametrize(
    ("end", "error", "report"),
    [
        (
            InitScript(60.0), "SnapStartTimeoutException",
            "RESTORE_REPORT Restore Duration: 10000.00 ms\tStatus: timeout",
        ),
        (
            InitScript(0.5, exit=Exit(status=AFTER_RESTORE_STATUS)), "SnapStartException",
            "RESTORE_REPORT Restore Duration: 500.00 ms\tStatus: error\tError Type: Runtime.AfterRestoreError",
        ),
        (
            InitScript(0.5, exit=Exit(signal=9)), "SnapStartException",
            "RESTORE_REPORT Restore Duration: 500.00 ms\tStatus: error\tError Type: Runtime.ExitError",
        ),
    ],
)  # fmt: skip
def test_an_environment_that_cannot_be_restored_answers_with_an_error_and_goes(world, end, error, report):
    prepare(world)
    world.advance(0.0)
    world.factory.restore = lambda plan: end
    outcome = world.start(ONE)
    world.advance(11.0)
    assert outcome[0].restore_error == error and outcome[0].error == error
    assert reports.RESTORE_MESSAGES[error].encode() in outcome[0].payload
    assert world.messages()[-1] == report
    assert not any("START RequestId" in message for message in world.messages())
    assert world.pool.environments() == [] and world.pool.usage().by_function == {}
    assert len(world.factory.workers) == 1


def test_a_crash_is_followed_by_another_restore(world):
    prepare(world)
    world.advance(0.0)
    world.script = lambda payload: Script(0.1, exit=Exit(status=3))
    first = world.start(ONE)
    world.advance(0.2)
    assert first[0].error == "Runtime.ExitError"
    world.script = lambda payload: Script(0.1, payload.encode())
    second = world.start(ONE)
    world.advance(0.2)
    assert second[0].payload == b"1" and second[0].restore_ms == 0.0
    assert sum(message.startswith("RESTORE_START") for message in world.messages()) == 2


def test_new_code_has_a_new_snapshot(world):
    prepare(world)
    world.advance(0.0)
    world.start(replace(ONE, revision="2"))
    world.advance(0.5)
    assert sum(message.startswith("INIT_START") for message in world.messages()) == 2
    assert len(world.factory.workers) == 2

"""The pool under a clock that the test moves, with scripted workers: choices, times, words."""

import heapq
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.execution.contract import FunctionSpec, Invocation, LogLine, Outcome, Throttled
from preheat.execution.environment import ALLOWED, Environment, IllegalTransition, State
from preheat.execution.pool import DEFAULT_LIMITS, Pool, PoolLimits
from preheat.execution.workers.contract import Answer, Exit
from preheat.execution.workers.scripted import InitScript, Script, ScriptedWorkerFactory
from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import SeededEntropy

SPEC = FunctionSpec("arn:f", "f", "$LATEST", "1", "python3.11", "app.handler", Path("/nowhere"), timeout_s=3.0)
OTHER = replace(SPEC, arn="arn:g", name="g")
MIB = 1024 * 1024


class World:
    def __init__(self, limits: PoolLimits = DEFAULT_LIMITS, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.script: Callable[[str], Script] = lambda payload: Script(1.0, payload.encode())
        self.init = InitScript()
        self.lines: list[LogLine] = []
        self.notices: list[str] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self.factory = ScriptedWorkerFactory(
            self.clock,
            self._call_at,
            lambda plan, request: self.script(request.payload.decode()),
            lambda plan: self.init,
        )
        self.pool = Pool(
            self.clock, SeededEntropy(seed), self.factory, on_log=self.lines.extend, on_notice=self.notices.append,
            credentials=lambda spec: {}, limits=limits,
        )  # fmt: skip

    def _call_at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._sequence), action))

    def start(self, spec: FunctionSpec = SPEC, payload: str = "1", **options) -> list[Outcome]:
        outcomes: list[Outcome] = []
        refused = self.pool.invoke(Invocation("r-1", spec, payload.encode(), **options), outcomes.append)
        assert refused is None, refused
        return outcomes

    def advance(self, seconds: float) -> None:
        """Let time pass, running what is due in order."""
        end = self.clock.now() + seconds
        origin = self.clock.now() - self.clock.monotonic()
        while True:
            due = self.pool.next_deadline
            action = self._agenda[0][0] + origin if self._agenda else float("inf")
            if due is not None and due <= min(action, end):
                self.clock.move_to(due)
                self.pool.step(self.clock.now())
            elif action <= end:
                self.clock.move_to(action)
                heapq.heappop(self._agenda)[2]()
            else:
                break
        self.clock.move_to(end)

    def messages(self) -> list[str]:
        return [line.message for line in self.lines]


@pytest.fixture
def world():
    return World()


def test_the_table_refuses_everything_it_does_not_allow(world):
    assert set(ALLOWED) == set(State)
    for old in State:
        for new in State:
            environment = Environment(world.pool, SPEC, "e", "s", None)
            environment.state = old
            if new in ALLOWED[old]:
                environment.move(new)
                assert environment.state is new
            else:
                with pytest.raises(IllegalTransition):
                    environment.move(new)
                assert environment.state is old
    assert ALLOWED[State.DEAD] == frozenset()


def test_one_invocation_in_exact_times(world):
    world.init = InitScript(0.25)
    outcomes = world.start(tail=True)
    world.advance(2.0)
    (outcome,) = outcomes
    assert (outcome.payload, outcome.error) == (b"1", None)
    assert outcome.duration_ms == pytest.approx(1000.0) and outcome.init_ms == pytest.approx(250.0)
    assert outcome.billed_ms == 1250
    assert world.messages()[1:] == [
        "START RequestId: r-1 Version: $LATEST",
        "END RequestId: r-1",
        "REPORT RequestId: r-1\tDuration: 1000.00 ms\tBilled Duration: 1250 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 0 MB\tInit Duration: 250.00 ms\t",
    ]
    assert world.lines[1].at == 1_700_000_000_250 and world.lines[3].at == 1_700_000_001_250
    assert world.lines[0].log_stream.startswith("2023/11/14/[$LATEST]")
    assert outcome.log_tail.decode().splitlines() == world.messages()[1:]


def test_the_most_recently_used_environment_is_taken(world):
    world.script = lambda payload: Script(float(payload))
    world.start(payload="1"), world.start(payload="2")
    world.advance(3.0)
    late = max(world.pool.environments(), key=lambda environment: environment.idle_since)
    world.start(payload="1")
    assert late.state is State.BUSY and world.factory.started == 2


def test_idle_environments_are_reaped_each_in_its_time(world):
    world.script = lambda payload: Script(float(payload))
    world.start(payload="1"), world.start(payload="2")
    world.advance(300.5)
    assert len(world.pool.environments()) == 2
    world.advance(1.0)
    assert len(world.pool.environments()) == 1
    world.advance(1.0)
    assert world.pool.environments() == [] and world.pool.next_deadline is None


def test_a_timeout_strikes_on_the_millisecond_and_resets(world):
    world.script = lambda payload: Script(60.0 if payload == "slow" else 0.1)
    outcomes = world.start(payload="slow")
    world.advance(2.999)
    assert outcomes == []
    world.advance(0.002)
    assert json.loads(outcomes[0].payload) == {
        "errorType": "Sandbox.Timedout", "errorMessage": "RequestId: r-1 Error: Task timed out after 3.00 seconds",
    }  # fmt: skip
    assert world.messages()[-1].endswith("Max Memory Used: 0 MB\tInit Duration: 0.00 ms\tStatus: timeout\t")
    again = world.start()
    world.advance(1.0)
    assert again[0].error is None and again[0].init_ms is None
    assert len(world.pool.environments()) == 1 and world.factory.started == 2


def test_advancing_the_wall_clock_does_not_time_out_what_runs(world):
    outcomes = world.start()
    world.pool.step(world.clock.now() + 86_400.0)
    assert outcomes == []
    world.advance(1.0)
    assert outcomes[0].error is None


def test_initialisation_gets_ten_seconds_and_then_a_second_try_in_the_timeout(world):
    world.init = InitScript(60.0)
    outcomes = world.start()
    world.advance(9.9)
    assert world.factory.started == 1
    world.init = InitScript(1.0)
    world.advance(2.2)
    assert outcomes[0].error is None and outcomes[0].init_ms is None
    assert outcomes[0].duration_ms == pytest.approx(2000.0)
    assert "INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout" in world.messages()


def test_initialisation_that_never_ends_is_a_timeout(world):
    world.init = InitScript(60.0)
    outcomes = world.start()
    world.advance(13.1)
    assert outcomes[0].error == "Sandbox.Timedout"
    assert world.messages().count("START RequestId: r-1 Version: $LATEST") == 1


def test_a_crash_in_initialisation_is_tried_twice(world):
    world.init = InitScript(0.5, exit=Exit(status=127))
    outcomes = world.start()
    world.advance(2.0)
    assert json.loads(outcomes[0].payload)["errorMessage"] == (
        "RequestId: r-1 Error: Runtime exited with error: exit status 127"
    )
    assert world.factory.started == 2 and world.pool.environments() == []
    assert world.pool.usage().by_function == {}


def test_memory_over_the_limit_kills(world):
    world.script = lambda payload: Script(2.0, memory_bytes=129 * MIB)
    outcomes = world.start()
    world.advance(0.2)
    assert outcomes[0].error == "Runtime.ExitError" and outcomes[0].max_memory_mb == 128
    assert "Error Type: Runtime.OutOfMemory" in world.messages()[-1]


def test_a_new_revision_drains_the_old(world):
    world.start()
    world.advance(0.5)
    new = replace(SPEC, revision="2")
    world.start(new)
    old = [environment for environment in world.pool.environments() if environment.spec == SPEC]
    assert len(old) == 1 and old[0].state is State.BUSY
    world.advance(2.0)
    assert [environment.spec.revision for environment in world.pool.environments()] == ["2"]


def test_reserved_and_account_limits_refuse(world):
    world.pool.set_reserved("arn:f", 1)
    world.start()
    refused = world.pool.invoke(Invocation("r-2", SPEC, b"1"), lambda outcome: None)
    assert refused == Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
    world.advance(1.0)
    world.start()


def test_done_may_invoke_again_at_once():
    world = World(PoolLimits(account_concurrency=1))
    world.script = lambda payload: Script(0.01)
    finished = []

    def again(outcome: Outcome) -> None:
        finished.append(outcome)
        if len(finished) < 10:
            assert world.pool.invoke(Invocation("r", SPEC, b"1", asynchronous=True), again) is None

    world.pool.invoke(Invocation("r", SPEC, b"1"), again)
    world.advance(1.0)
    assert len(finished) == 10 and world.factory.started == 1


def test_at_the_ceiling_an_idle_environment_of_another_function_gives_way():
    world = World(PoolLimits(max_environments=1))
    world.start()
    world.advance(1.5)
    outcomes = world.start(OTHER)
    world.advance(1.5)
    assert outcomes[0].error is None
    assert len(world.notices) == 1 and world.notices[0].startswith("1 environments run on this machine, its ceiling")
    assert [environment.spec.name for environment in world.pool.environments()] == ["g"]


def test_at_the_ceiling_invocations_wait_in_turn_and_the_queue_is_bounded():
    world = World(PoolLimits(max_environments=1, max_waiting=2))
    first, second, third = world.start(), world.start(OTHER), world.start()
    assert world.pool.invoke(Invocation("r", SPEC, b"1"), lambda outcome: None) == Throttled(
        "ConcurrentInvocationLimitExceeded"
    )
    assert world.pool.usage().by_function == {"arn:f": 2, "arn:g": 1}
    world.advance(1.1)
    assert [len(first), len(second), len(third)] == [1, 0, 0]
    world.advance(1.1)
    assert [len(first), len(second), len(third)] == [1, 1, 0]
    world.advance(1.1)
    assert [len(first), len(second), len(third)] == [1, 1, 1]
    assert len(world.notices) == 1 and world.pool.usage().by_function == {}


def test_what_waits_for_a_retired_function_still_runs_and_leaves_nothing():
    world = World(PoolLimits(max_environments=1))
    first, second = world.start(OTHER), world.start()
    world.pool.retire("arn:f")
    world.advance(2.5)
    assert [len(first), len(second)] == [1, 1] and second[0].error is None
    assert world.pool.environments() == []


def test_an_answer_whose_runtime_lingers_is_delivered_early(world):
    outcomes = world.start()
    world.advance(0.5)
    (environment,) = world.pool.environments()
    environment.answered(environment.worker, Answer(b"early"))
    world.advance(0.3)
    assert [outcome.payload for outcome in outcomes] == [b"early"]
    assert world.pool.usage().running == 1 and "END RequestId: r-1" not in world.messages()
    world.advance(0.3)
    assert len(outcomes) == 1 and world.pool.usage().idle == 1 and "END RequestId: r-1" in world.messages()


def test_late_news_of_a_killed_worker_changes_nothing(world):
    world.script = lambda payload: Script(60.0)
    outcomes = world.start()
    world.advance(2.0)
    (environment,) = world.pool.environments()
    old = environment.worker
    world.advance(2.0)
    world.start()
    world.advance(0.1)
    environment.answered(old, Answer(b"late"))
    environment.died(old, Exit(status=0))
    assert environment.state is State.BUSY and len(outcomes) == 1


def test_a_closed_pool_takes_nothing(world):
    outcomes = world.start()
    world.pool.close()
    world.advance(5.0)
    assert outcomes == [] and world.factory.workers == set()
    with pytest.raises(RuntimeError):
        world.start()


BEHAVIOURS = {
    "quick": Script(0.05, b"1"),
    "slow": Script(2.5, b"2"),
    "timeout": Script(60.0),
    "exit": Script(0.2, exit=Exit(status=1)),
    "signal": Script(0.2, exit=Exit(signal=11)),
    "hog": Script(1.0, memory_bytes=500 * MIB),
    "stream": Script(1.0, chunks=(b"a", b"b")),
    "broken": Script(1.0, b"{}", "E", chunks=(b"a", b"b")),
}
INITS = (
    InitScript(), InitScript(0.7), InitScript(60.0), InitScript(0.1, "E", b"{}"), InitScript(0.1, exit=Exit(status=3)),
)  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.just("invoke"), st.sampled_from(sorted(BEHAVIOURS)), st.integers(0, 3)),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.01, 0.3, 3.0, 12.0, 301.0]), st.just(0)),
        st.tuples(st.just("init"), st.sampled_from(INITS), st.just(0)),
        st.tuples(st.just("retire"), st.just("arn:f"), st.just(0)),
        st.tuples(st.just("reserve"), st.sampled_from([None, 0, 1, 2]), st.just(0)),
    ),
    max_size=30,
)
VARIANTS = (SPEC, replace(SPEC, revision="2"), OTHER, replace(OTHER, version="1"))


@settings(max_examples=150, deadline=None)
@given(steps)
def test_every_admitted_invocation_ends_once_and_nothing_is_left(history):
    world = World(PoolLimits(max_environments=3, account_concurrency=6))
    world.script = BEHAVIOURS.__getitem__
    running: list[list[Outcome]] = []
    for kind, value, which in history:
        if kind == "invoke":
            outcomes: list[Outcome] = []
            invocation = Invocation("r", VARIANTS[which], value.encode(), asynchronous=True)
            if world.pool.invoke(invocation, outcomes.append) is None:
                running.append(outcomes)
        elif kind == "advance":
            world.advance(value)
        elif kind == "init":
            world.init = value
        elif kind == "retire":
            world.pool.retire(value)
        else:
            world.pool.set_reserved("arn:f", value)
        assert len(world.pool.environments()) <= 3
        assert sum(world.pool.usage().by_function.values()) == sum(not outcomes for outcomes in running)
    world.advance(400.0)
    assert [len(outcomes) for outcomes in running] == [1] * len(running)
    world.advance(400.0)
    usage = world.pool.usage()
    assert usage.by_function == {} and usage.waiting == 0
    assert world.pool.environments() == [] and world.factory.workers == set()
    assert world.pool.next_deadline is None


def test_the_same_seed_gives_the_same_history():
    def history(seed: int) -> list[LogLine]:
        world = World(seed=seed)
        world.start(), world.start(OTHER)
        world.advance(5.0)
        return world.lines

    assert history(7) == history(7) != history(8)

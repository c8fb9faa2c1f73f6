"""What every kind of worker does, real processes and scripted ones alike."""

import asyncio
import heapq
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from preheat.execution.contract import FunctionSpec
from preheat.execution.variables import environment_variables
from preheat.execution.workers.contract import Answer, Exit, Worker, WorkerPlan, WorkRequest
from preheat.execution.workers.process import ProcessWorkerFactory
from preheat.execution.workers.scripted import InitScript, Script, ScriptedWorkerFactory
from preheat.kernel.clock import ManualClock
from tests.support.execution_driver import run_until

SOURCE = """
import os, sys, time
{init}
def handler(event, context):
    if event == "fail":
        raise ValueError("no")
    if event == "exit":
        os._exit(4)
    if event == "stream":
        return iter((b"a", b"b"))
    if event == "broken stream":
        return broken()
    if event == "print":
        print("said")
    if event == "hang":
        time.sleep(600)
    return event

def broken():
    yield b"a"
    raise ValueError("late")
"""


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple] = []
        self.workers: set[Worker] = set()

    def names(self) -> list[str]:
        return [event[0] for event in self.events]

    def _add(self, worker: Worker, *event) -> None:
        self.workers.add(worker)
        self.events.append(event)

    def started(self, worker):
        self._add(worker, "started")

    def ready(self, worker):
        self._add(worker, "ready")

    def init_failed(self, worker, error_type, body):
        self._add(worker, "init_failed", error_type)

    def stream_begun(self, worker, content_type):
        self._add(worker, "stream_begun", content_type)

    def chunk(self, worker, data):
        self._add(worker, "chunk", data)

    def answered(self, worker, answer):
        self._add(worker, "answered", answer)

    def output(self, worker, data):
        self._add(worker, "output", data)

    def died(self, worker, exit):
        self._add(worker, "died", exit)


class ProcessWorld:
    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.code = directory / "code"
        self.code.mkdir()
        self.factory = ProcessWorkerFactory(self.loop, lambda text: None)

    def start(self, recorder: Recorder, init: str = "") -> Worker:
        statement = {"": "", "fails": "raise KeyError('init')", "exits": "os._exit(5)"}[init]
        (self.code / "app.py").write_text(SOURCE.format(init=statement))
        return self.factory.start(plan(self.code), recorder)

    def until(self, condition: Callable[[], object]) -> None:
        run_until(self.loop, condition)

    def close(self) -> None:
        self.factory.close()
        self.loop.close()


class ScriptedWorld:
    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.code = directory
        self.init = ""
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self.factory = ScriptedWorkerFactory(self.clock, self._call_at, self._behave, self._initialise)

    def _call_at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._sequence), action))

    def _initialise(self, plan: WorkerPlan) -> InitScript:
        return {
            "": InitScript(0.1),
            "fails": InitScript(0.1, "KeyError", b"{}"),
            "exits": InitScript(0.1, exit=Exit(status=5)),
        }[self.init]

    def _behave(self, plan: WorkerPlan, request: WorkRequest) -> Script:
        error = json.dumps({"errorType": "ValueError"}).encode()
        return {
            "fail": Script(0.1, error, "ValueError"),
            "exit": Script(0.1, exit=Exit(status=4)),
            "stream": Script(0.1, chunks=(b"a", b"b")),
            "broken stream": Script(0.1, error, "ValueError", chunks=(b"a",)),
            "print": Script(0.1, b'"print"', output=b"said\n"),
            "hang": Script(600.0),
        }.get(json.loads(request.payload), Script(0.1, request.payload))

    def start(self, recorder: Recorder, init: str = "") -> Worker:
        self.init = init
        return self.factory.start(plan(self.code), recorder)

    def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            when, _, action = heapq.heappop(self._agenda)
            self.clock.move_to(when + self.clock.now() - self.clock.monotonic())
            action()

    def close(self) -> None:
        self.factory.close()


def plan(code: Path) -> WorkerPlan:
    spec = FunctionSpec("arn:f", "f", "$LATEST", "1", "python3.11", "app.handler", code, memory_mb=256)
    return WorkerPlan(spec, environment_variables(spec, {}, "", "stream", ""))


def request(event: str) -> WorkRequest:
    return WorkRequest("r-1", json.dumps(event).encode(), 4_000_000_000_000, "arn:f")


@pytest.fixture(params=[ProcessWorld, ScriptedWorld], ids=["process", "scripted"])
def world(request, tmp_path):
    world = request.param(tmp_path)
    yield world
    world.close()


@pytest.fixture
def recorder():
    return Recorder()


def ready_worker(world, recorder: Recorder) -> Worker:
    worker = world.start(recorder)
    assert recorder.events == []
    world.until(lambda: "ready" in recorder.names())
    assert recorder.names() == ["started", "ready"] and recorder.workers == {worker}
    recorder.events.clear()
    return worker


def run(world, recorder: Recorder, worker: Worker, event: str) -> None:
    recorder.events.clear()
    worker.invoke(request(event))
    assert recorder.events == []
    world.until(lambda: "ready" in recorder.names())


def test_started_ready_answered_ready(world, recorder):
    worker = ready_worker(world, recorder)
    for event in ("one", "two"):
        run(world, recorder, worker, event)
        assert recorder.events == [("answered", Answer(json.dumps(event).encode())), ("ready",)]


def test_an_error_is_an_answer(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "fail")
    answer = next(event[1] for event in recorder.events if event[0] == "answered")
    assert answer.error == "ValueError" and json.loads(answer.payload)["errorType"] == "ValueError"
    assert not answer.streamed
    run(world, recorder, worker, "after")
    assert recorder.names() == ["answered", "ready"]


def test_a_stream_begins_flows_and_is_answered(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "stream")
    assert recorder.names()[0] == "stream_begun" and recorder.names()[-2:] == ["answered", "ready"]
    assert b"".join(event[1] for event in recorder.events if event[0] == "chunk") == b"ab"
    answer = recorder.events[-2][1]
    assert answer.streamed and answer.error is None and answer.payload == b""


def test_a_stream_that_breaks_names_its_error(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "broken stream")
    assert [event[1] for event in recorder.events if event[0] == "chunk"] == [b"a"]
    answer = next(event[1] for event in recorder.events if event[0] == "answered")
    assert answer.streamed and answer.error == "ValueError"
    assert json.loads(answer.payload)["errorType"] == "ValueError"


def test_output_is_there_when_it_is_collected(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "print")
    worker.collect_output()
    assert b"".join(event[1] for event in recorder.events if event[0] == "output") == b"said\n"


def test_an_exit_is_the_last_event(world, recorder):
    worker = ready_worker(world, recorder)
    worker.invoke(request("exit"))
    world.until(lambda: recorder.events)
    assert recorder.events == [("died", Exit(status=4))]


def test_killing_ends_a_busy_worker_once(world, recorder):
    worker = ready_worker(world, recorder)
    worker.invoke(request("hang"))
    worker.kill("test")
    worker.kill("test")
    assert recorder.events == []
    world.until(lambda: recorder.events)
    assert recorder.events == [("died", Exit(signal=9))]
    worker.kill("late")


def test_killing_ends_a_worker_that_is_starting(world, recorder):
    worker = world.start(recorder)
    worker.kill("test")
    world.until(lambda: "died" in recorder.names())
    assert recorder.names()[-1] == "died"


def test_initialisation_that_fails(world, recorder):
    world.start(recorder, "fails")
    world.until(lambda: "died" in recorder.names())
    assert [event for event in recorder.events if event[0] != "output"] == [
        ("started",), ("init_failed", "KeyError"), ("died", Exit(status=1)),
    ]  # fmt: skip


def test_initialisation_that_exits(world, recorder):
    world.start(recorder, "exits")
    world.until(lambda: "died" in recorder.names())
    assert recorder.events == [("started",), ("died", Exit(status=5))]


def test_workers_are_independent(world, recorder):
    others = [Recorder() for _ in range(3)]
    workers = [world.start(other) for other in others]
    world.until(lambda: all("ready" in other.names() for other in others))
    workers[0].kill("test")
    world.until(lambda: "died" in others[0].names())
    run(world, others[1], workers[1], "x")
    assert others[1].names() == ["answered", "ready"] and "died" not in others[2].names()

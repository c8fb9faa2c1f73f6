"""What every kind of worker does: real processes over the channel, the same runtime over the Runtime API, AWS's own
runtime client, and scripted ones."""

import asyncio
import heapq
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from preheat.execution.contract import FunctionSpec
from preheat.execution.runtime_api import MAX_RESPONSE_BYTES
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
    if isinstance(event, str) and event.startswith("size "):
        return "x" * int(event[5:])
    if event == "context":
        client = context.client_context
        return [
            context.aws_request_id, context.invoked_function_arn, context.get_remaining_time_in_millis() > 10**11,
            client and client.custom, context.identity and context.identity.cognito_identity_id,
            os.environ.get("_X_AMZN_TRACE_ID"), context.tenant_id,
        ]
    if event == "odd error":
        raise type("Odd\\r\\nÜ", (Exception,), {{}})("line\\nline \\udc80")
    if event == "unserialisable":
        return object()
    if event == "long stream":
        return (bytes(100_000) for _ in range(100))
    if event == "empty stream":
        return iter(())
    if event == "prelude":
        return iter(({{"statusCode": 201, "headers": {{"a": "b"}}}}, "body"))
    if event == "exit in a stream":
        return leaving()
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

def leaving():
    yield b"a"
    os._exit(4)
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

    def runtime_done(self, worker):
        self._add(worker, "runtime_done")

    def crashed(self, worker, exit):
        self._add(worker, "crashed", exit)

    def output(self, worker, data):
        self._add(worker, "output", data)

    def died(self, worker, exit):
        self._add(worker, "died", exit)


class ProcessWorld:
    """Preheat's own runtime, over the channel."""

    streams = True
    runtime = "python3.11"
    environment: tuple[tuple[str, str], ...] = ()

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.code = directory / "code"
        self.code.mkdir()
        self.factory = ProcessWorkerFactory(self.loop, lambda text: None)

    def start(self, recorder: Recorder, init: str = "") -> Worker:
        statement = {"": "", "fails": "raise KeyError('init')", "exits": "os._exit(5)"}[init]
        (self.code / "app.py").write_text(SOURCE.format(init=statement))
        self.prepare()
        return self.factory.start(plan(self.code, self.runtime, self.environment), recorder)

    def prepare(self) -> None:
        """Nothing more to write."""

    def until(self, condition: Callable[[], object]) -> None:
        run_until(self.loop, condition)

    def close(self) -> None:
        self.factory.close()
        self.loop.close()


class HttpWorld(ProcessWorld):
    """The same runtime below a wrapper script: AWS's Runtime API over TCP."""

    environment = (("AWS_LAMBDA_EXEC_WRAPPER", "/var/task/wrap"),)

    def prepare(self) -> None:
        script(self.code / "wrap", 'exec "$@"')


class ClientWorld(ProcessWorld):
    """AWS's own runtime client, unmodified."""

    streams = False
    runtime = "provided.al2023"

    def prepare(self) -> None:
        script(self.code / "bootstrap", f"exec {sys.executable} -m awslambdaric app.handler")


def script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


class ScriptedWorld:
    streams = True

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


def plan(code: Path, runtime: str = "python3.11", environment: tuple[tuple[str, str], ...] = ()) -> WorkerPlan:
    spec = FunctionSpec(
        "arn:f", "f", "$LATEST", "1", runtime, "app.handler", code, memory_mb=256, environment=environment
    )
    return WorkerPlan(spec, environment_variables(spec, {}, "", "stream", ""))


def request(event: str) -> WorkRequest:
    return WorkRequest("r-1", json.dumps(event).encode(), 4_000_000_000_000, "arn:f")


PROCESSES = {"channel": ProcessWorld, "http": HttpWorld, "awslambdaric": ClientWorld}
WORLDS = {**PROCESSES, "scripted": ScriptedWorld}
STREAMING = [name for name, kind in WORLDS.items() if kind.streams]


@pytest.fixture(params=WORLDS)
def world(request, tmp_path):
    world = WORLDS[request.param](tmp_path)
    yield world
    world.close()


real = pytest.mark.parametrize("world", PROCESSES, indirect=True)
streaming = pytest.mark.parametrize("world", STREAMING, indirect=True)
own = pytest.mark.parametrize("world", ["channel", "http"], indirect=True)


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


@streaming
def test_a_stream_begins_flows_and_is_answered(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "stream")
    assert recorder.names()[0] == "stream_begun" and recorder.names()[-2:] == ["answered", "ready"]
    assert b"".join(event[1] for event in recorder.events if event[0] == "chunk") == b"ab"
    answer = recorder.events[-2][1]
    assert answer.streamed and answer.error is None and answer.payload == b""


@streaming
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


def answer_of(recorder: Recorder) -> Answer:
    return next(event[1] for event in recorder.events if event[0] == "answered")


@real
def test_six_megabytes_in_and_out(world, recorder):
    worker = ready_worker(world, recorder)
    text = "x" * (6 * 1024 * 1024 - 2)
    run(world, recorder, worker, text)
    assert answer_of(recorder).payload == json.dumps(text).encode() and answer_of(recorder).error is None
    run(world, recorder, worker, "after")
    assert answer_of(recorder) == Answer(b'"after"')


@own
def test_an_answer_over_the_limit_is_an_error_and_the_next_one_is_not(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, f"size {MAX_RESPONSE_BYTES - 1}")
    answer = answer_of(recorder)
    assert answer.error == "Function.ResponseSizeTooLarge"
    message = json.loads(answer.payload)["errorMessage"]
    assert message == f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
    run(world, recorder, worker, f"size {MAX_RESPONSE_BYTES - 2}")
    assert answer_of(recorder).error is None and len(answer_of(recorder).payload) == MAX_RESPONSE_BYTES


@pytest.mark.parametrize("world", ["awslambdaric"], indirect=True)
def test_a_client_that_does_not_bear_a_refused_answer_ends_after_it(world, recorder):
    worker = ready_worker(world, recorder)
    recorder.events.clear()
    worker.invoke(request(f"size {MAX_RESPONSE_BYTES}"))
    world.until(lambda: "died" in recorder.names())
    assert answer_of(recorder).error == "Function.ResponseSizeTooLarge" and "ready" not in recorder.names()


@real
def test_what_a_handler_learns_of_its_invocation(world, recorder):
    worker = ready_worker(world, recorder)
    worker.invoke(
        WorkRequest(
            "r-2", b'"context"', 4_000_000_000_000, "arn:f:alias", "Root=1-2;Sampled=0", '{"custom": {"ä": 1}}',
            '{"cognitoIdentityId": "i"}',
        )
    )  # fmt: skip
    recorder.events.clear()
    world.until(lambda: "ready" in recorder.names())
    learnt = ["r-2", "arn:f:alias", True, {"ä": 1}, "i", "Root=1-2;Sampled=0", None]
    assert json.loads(answer_of(recorder).payload) == learnt
    run(world, recorder, worker, "context")
    assert json.loads(answer_of(recorder).payload) == ["r-1", "arn:f", True, None, None, None, None]


@real
@pytest.mark.parametrize("body", [b"{", b"\xff", b""])
def test_an_event_that_is_no_json(world, recorder, body):
    worker = ready_worker(world, recorder)
    worker.invoke(WorkRequest("r-1", body, 4_000_000_000_000, "arn:f"))
    world.until(lambda: "ready" in recorder.names())
    assert answer_of(recorder).error == "Runtime.UnmarshalError"


@real
def test_an_answer_that_cannot_be_encoded(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "unserialisable")
    assert answer_of(recorder).error == "Runtime.MarshalError"
    assert json.loads(answer_of(recorder).payload)["errorMessage"].startswith("Unable to marshal response: ")


@own
def test_an_error_with_an_odd_name_and_text(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "odd error")
    assert answer_of(recorder).error == "Odd  Ü"
    assert b"line\\nline " in answer_of(recorder).payload
    run(world, recorder, worker, "after")
    assert answer_of(recorder) == Answer(b'"after"')


@own
def test_an_empty_stream_and_one_with_a_prelude(world, recorder):
    worker = ready_worker(world, recorder)
    run(world, recorder, worker, "empty stream")
    assert recorder.names() == ["stream_begun", "answered", "ready"]
    run(world, recorder, worker, "prelude")
    kind = "application/vnd.awslambda.http-integration-response"
    assert recorder.events[0] == ("stream_begun", kind) and answer_of(recorder).content_type == kind
    data = b"".join(event[1] for event in recorder.events if event[0] == "chunk")
    assert data == json.dumps({"statusCode": 201, "headers": {"a": "b"}}).encode() + bytes(8) + b"body"


@own
def test_a_paused_stream_waits_in_the_function(world, recorder):
    worker = ready_worker(world, recorder)
    recorder.events.clear()
    worker.invoke(request("long stream"))

    def received() -> int:
        return sum(len(event[1]) for event in recorder.events if event[0] == "chunk")

    world.until(lambda: received())
    worker.pause()
    before = received()
    others = Recorder()
    world.start(others)
    world.until(lambda: "ready" in others.names())
    assert received() == before and "answered" not in recorder.names()
    worker.resume()
    world.until(lambda: "ready" in recorder.names())
    assert received() == 10_000_000 and answer_of(recorder).error is None


@own
def test_a_process_that_ends_in_a_stream_gives_no_answer(world, recorder):
    worker = ready_worker(world, recorder)
    recorder.events.clear()
    worker.invoke(request("exit in a stream"))
    world.until(lambda: "died" in recorder.names())
    assert recorder.names()[0] == "stream_begun" and ("chunk", b"a") in recorder.events
    assert "answered" not in recorder.names() and recorder.events[-1] == ("died", Exit(status=4))


@own
def test_killing_a_worker_in_a_stream_that_nobody_reads(world, recorder):
    worker = ready_worker(world, recorder)
    worker.invoke(request("long stream"))
    world.until(lambda: "chunk" in recorder.names())
    worker.pause()
    worker.kill("test")
    world.until(lambda: "died" in recorder.names())
    assert recorder.events[-1] == ("died", Exit(signal=9)) and "answered" not in recorder.names()


def test_killing_an_idle_worker(world, recorder):
    worker = ready_worker(world, recorder)
    worker.kill("test")
    world.until(lambda: recorder.events)
    assert recorder.events == [("died", Exit(signal=9))]

"""An `Executor` that runs no code: scripts say how functions answer and how long they take, on the test's clock."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from preheat.execution.contract import (
    FunctionSpec,
    Invocation,
    Outcome,
    Prepared,
    Provisioned,
    Provisioning,
    StreamFailed,
    StreamStart,
    Throttled,
    Usage,
)
from preheat.kernel.stream import Channel


@dataclass
class Script:
    """One invocation: `result` is the JSON value returned (or bytes as they are), `error` an error type instead
    (`result` is then the error document, if given), `seconds` how long it takes; `chunks` are streamed one at a time
    before the end, which is `stream_error` if set."""

    result: Any = None
    error: str | None = None
    seconds: float = 0.0
    chunks: list[bytes] | None = None
    stream_error: StreamFailed | None = None
    log: bytes = b""
    content_type: str = "application/json"


@dataclass(order=True)
class _Running:
    at: float
    number: int
    invocation: Invocation = field(compare=False)
    done: Callable[[Outcome], None] = field(compare=False)
    script: Script = field(compare=False)


class ScriptedExecutor:
    """`scripts[function name]` is a Script or a function of the decoded event that gives one. Also a loop."""

    name = "executor"
    topics = ()

    def __init__(self, limit: int = 1_000) -> None:
        self.limit = limit
        self.scripts: dict[str, Any] = {}
        self.reserved: dict[str, int] = {}
        self.retired: list[str] = []
        self.kept: dict[tuple[str, str], Provisioned] = {}
        self.unprovisionable: dict[str, str] = {}
        self.asked: list[list[tuple[str, str, int]]] = []
        self.prepared: dict[str, Prepared] = {}
        self.snapshots: list[str] = []
        self.forgotten: list[tuple[str, str | None]] = []
        self.started: list[Invocation] = []
        self.refused = 0
        self.peak: dict[str, int] = {}
        self._running: list[_Running] = []
        self._numbers = itertools.count()
        self._machine: Any = None

    def attach(self, machine: Any) -> "ScriptedExecutor":
        self._machine = machine
        machine.add_loop(_ExecutorLoop(self))
        return self

    def events(self, name: str | None = None) -> list[Any]:
        return [json.loads(call.payload) for call in self.started if name in (None, call.spec.name)]

    def in_flight(self, arn: str) -> int:
        return sum(1 for run in self._running if run.invocation.spec.arn == arn)

    def invoke(self, invocation: Invocation, done: Callable[[Outcome], None]) -> Throttled | None:
        arn = invocation.spec.arn
        reserved = self.reserved.get(arn)
        if reserved is not None and self.in_flight(arn) >= reserved:
            self.refused += 1
            return Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
        if len(self._running) >= self.limit:
            self.refused += 1
            return Throttled("ConcurrentInvocationLimitExceeded")
        script = self.scripts.get(invocation.spec.name, Script())
        if callable(script):
            script = script(json.loads(invocation.payload))
        at = self._machine.clock.now() + script.seconds
        self.started.append(invocation)
        self._running.append(_Running(at, next(self._numbers), invocation, done, script))
        self._running.sort()
        self.peak[invocation.spec.name] = max(self.peak.get(invocation.spec.name, 0), self.in_flight(arn))
        for state in self._machine._loops:
            if isinstance(state.loop, _ExecutorLoop):
                self._machine.wake(state.loop)
        return None

    def remark(self, runtime: str) -> str | None:
        return None

    def provision(self, function_arn: str, wanted: Sequence[Provisioning], changed: Callable[[], None]) -> None:
        """Every version is ready at once, unless `unprovisionable` gives its function a reason."""
        self.kept = {key: value for key, value in self.kept.items() if key[0] != function_arn}
        for one in wanted:
            if one.count:
                reason = self.unprovisionable.get(one.spec.name)
                if reason is None:
                    state = Provisioned(one.count, one.count, one.count, "READY")
                else:
                    state = Provisioned(one.count, 0, 0, "FAILED", reason)
                self.kept[function_arn, one.spec.version] = state
        self.asked.append([(one.resource, one.spec.version, one.count) for one in wanted])
        changed()

    def provisioned(self, function_arn: str) -> dict[str, Provisioned]:
        return {version: state for (arn, version), state in self.kept.items() if arn == function_arn}

    def set_reserved(self, function_arn: str, limit: int | None) -> None:
        if limit is None:
            self.reserved.pop(function_arn, None)
        else:
            self.reserved[function_arn] = limit

    def retire(self, function_arn: str) -> None:
        self.retired.append(function_arn)

    def prepare(self, spec: FunctionSpec, then: Callable[[Prepared], None]) -> None:
        """`prepared[function name]` says how the snapshot ended; else it stands at once."""
        self.snapshots.append(spec.key)
        then(self.prepared.get(spec.name, Prepared()))

    def forget(self, function_arn: str, version: str | None = None) -> None:
        self.forgotten.append((function_arn, version))

    def usage(self) -> Usage:
        return Usage(running=len(self._running))

    def step(self, now: float) -> float | None:
        while self._running and self._running[0].at <= now:
            run = self._running.pop(0)
            run.done(_outcome(run))
        return self._running[0].at if self._running else None


class _ExecutorLoop:
    name = "executor"
    topics = ()

    def __init__(self, executor: ScriptedExecutor) -> None:
        self._executor = executor

    def step(self, ctx: Any) -> float | None:
        return self._executor.step(ctx.now)


def _outcome(run: _Running) -> Outcome:
    script, invocation = run.script, run.invocation
    if script.chunks is not None and invocation.on_stream is not None:
        chunks = Channel()
        invocation.on_stream(StreamStart(script.content_type, chunks))
        for chunk in script.chunks:
            chunks.send(chunk)
        chunks.close(script.stream_error)
        return Outcome(b"", streamed=True, log_tail=script.log)
    if script.error is not None:
        document = script.result or {"errorMessage": "it failed", "errorType": script.error}
        return Outcome(json.dumps(document).encode(), error=script.error, log_tail=script.log)
    payload = b"".join(script.chunks) if script.chunks is not None else script.result
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    return Outcome(payload, log_tail=script.log, content_type=script.content_type)

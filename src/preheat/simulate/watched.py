"""The pool and its scripted workers, with everything that they do written into the trace.

What is recorded is what can be seen from outside: which process started, became ready, worked and died, and what the
pool was asked and answered. Nothing is read out of the product's own books.

    admitted      request, function, version, asynchronous, ahead (on a provisioned environment)
    refused       request, function, version, asynchronous, reason
    finished      request, function, error
    reserved      function, limit
    provision     function, counts ({version: (count, token)})
    provisioned   function, states ({version: (status, available)})
    environment   function, version, name, ahead, fresh (not a new process in an old environment)
    ready, gone   name
    working       name, request; idle    name
"""

from collections.abc import Callable, Sequence
from typing import Any

from preheat.execution.contract import Invocation, Outcome, Provisioning, Throttled
from preheat.execution.pool import Pool
from preheat.execution.workers.contract import Exit, Listener, WorkerPlan, WorkRequest
from preheat.execution.workers.scripted import InitScript, Script, ScriptedWorker, ScriptedWorkerFactory

Record = Callable[..., None]


def name_of(plan: WorkerPlan) -> str:
    """The environment's name: the same for every process that it has."""
    return plan.variables["AWS_LAMBDA_LOG_STREAM_NAME"].rpartition("]")[2]


def is_ahead(plan: WorkerPlan) -> bool:
    return plan.variables["AWS_LAMBDA_INITIALIZATION_TYPE"] == "provisioned-concurrency"


class WatchedWorker(ScriptedWorker):
    """`record` is set by the factory."""

    __slots__ = ("name", "record")

    name: str
    record: Record

    def begin(self, init: InitScript) -> None:
        if init.error_type is None and init.exit is None:
            self._after(init.duration_s, lambda: self.record("ready", name=self.name))
        super().begin(init)

    def invoke(self, request: WorkRequest) -> None:
        self.record("working", name=self.name, request=request.request_id)
        super().invoke(request)

    def _finish(self, script: Script) -> None:
        if script.exit is None:
            self.record("idle", name=self.name)
        super()._finish(script)

    def _die(self, exit: Exit) -> None:
        self.record("gone", name=self.name)
        super()._die(exit)

    def perish(self) -> None:
        """Killed from outside, now."""
        if not self.dead:
            self._die(Exit(signal=9))


class WatchedFactory(ScriptedWorkerFactory):
    """`alive`: the workers in the order in which they were started."""

    record: Record

    def _make(self, plan: WorkerPlan, listener: Listener) -> ScriptedWorker:
        self.started += 1
        worker = WatchedWorker(plan, listener, self._clock, self._call_at, self._behave, self.workers.discard)
        worker.name, worker.record = name_of(plan), self.record
        self.workers.add(worker)
        fresh = worker.name not in self._names
        self._names[worker.name] = None
        self._order[worker] = None
        self.record(
            "environment", function=plan.spec.name, version=plan.spec.version, name=worker.name, ahead=is_ahead(plan),
            fresh=fresh,
        )  # fmt: skip
        return worker

    def __init__(self, *given: Any, record: Record) -> None:
        super().__init__(*given)
        self.record = record
        self._names: dict[str, None] = {}
        self._order: dict[WatchedWorker, None] = {}

    @property
    def alive(self) -> list[WatchedWorker]:
        for worker in [worker for worker in self._order if worker.dead]:
            del self._order[worker]
        return list(self._order)


class WatchedPool(Pool):
    """`record` is called for what it is asked; see the module's text."""

    def __init__(self, *given: Any, record: Record, **named: Any) -> None:
        super().__init__(*given, **named)
        self.record = record
        self.ahead = False
        """Whether the last event reached a provisioned environment."""

    def invoke(self, invocation: Invocation, done: Callable[[Outcome], None]) -> Throttled | None:
        spec, request = invocation.spec, invocation.request_id

        def finished(outcome: Outcome) -> None:
            self.record("finished", request=request, function=spec.name, error=outcome.error)
            done(outcome)

        self.ahead = False
        refused = super().invoke(invocation, finished)
        asked = {
            "request": request, "function": spec.name, "version": spec.version,
            "asynchronous": invocation.asynchronous,
        }  # fmt: skip
        if refused is None:
            self.record("admitted", **asked, ahead=self.ahead)
        else:
            self.record("refused", **asked, reason=refused.reason)
        return refused

    def set_reserved(self, function_arn: str, limit: int | None) -> None:
        self.record("reserved", function=function_arn.rpartition(":")[2], limit=limit)
        super().set_reserved(function_arn, limit)

    def provision(self, function_arn: str, wanted: Sequence[Provisioning], changed: Callable[[], None]) -> None:
        name = function_arn.rpartition(":")[2]
        counts = {one.spec.version: (one.count, one.token) for one in wanted if one.count}

        applying, changes = True, False

        def say() -> None:
            known = self.provisioned(function_arn)
            states = {version: (state.status, state.available) for version, state in known.items()}
            self.record("provisioned", function=name, states=states)

        def told() -> None:
            nonlocal changes
            changes = True
            if not applying:
                say()
            changed()

        self.record("provision", function=name, counts=counts)
        super().provision(function_arn, wanted, told)
        applying = False
        if changes:
            say()

"""Workers without processes, for the simulator and unit tests: what a function does is given as a Python function.

`behave(plan, request)` returns a `Script`: how long the function works, and how it ends. Time passes through
`call_at(when, action)` on the caller's own schedule of clock.monotonic() seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from preheat.execution.workers.contract import Answer, Exit, Listener, Mould, Worker, WorkerPlan, WorkRequest
from preheat.kernel.clock import Clock


@dataclass(frozen=True, slots=True)
class Script:
    """One invocation's course: after `duration_s` the answer `payload` (or the error `error`); `chunks`, spread evenly
    over the time, make it a streamed answer; with `exit` the process dies then instead of answering. `output` is
    written at the start."""

    duration_s: float
    payload: bytes = b"null"
    error: str | None = None
    chunks: Sequence[bytes] = ()
    exit: Exit | None = None
    output: bytes = b""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class InitScript:
    """One initialisation: takes `duration_s`; then fails with `error_type` and `body`, or dies, or is ready."""

    duration_s: float = 0.0
    error_type: str | None = None
    body: bytes = b""
    exit: Exit | None = None


CallAt = Callable[[float, Callable[[], None]], None]
Behaviour = Callable[[WorkerPlan, WorkRequest], Script]
Initialisation = Callable[[WorkerPlan], InitScript]


def prompt(plan: WorkerPlan) -> InitScript:
    """An initialisation that takes no time."""
    return InitScript()


@dataclass(slots=True, eq=False)
class ScriptedWorker:
    plan: WorkerPlan
    listener: Listener
    clock: Clock
    call_at: CallAt
    behave: Behaviour
    on_end: Callable[["ScriptedWorker"], None]
    dead: bool = False
    busy: bool = False
    forkable: bool = True
    threads: tuple[str, ...] = ()
    copies: int = 0
    leaving: bool = False
    mould: "ScriptedWorker | None" = None
    memory: int = 0

    def begin(self, init: InitScript) -> None:
        self._after(0.0, lambda: self.listener.started(self))
        if init.error_type is not None:
            error_type = init.error_type
            self._after(init.duration_s, lambda: self.listener.init_failed(self, error_type, init.body))
            self._after(init.duration_s, lambda: self._die(Exit(status=1)))
        elif init.exit is not None:
            exit = init.exit
            self._after(init.duration_s, lambda: self._die(exit))
        else:
            self._after(init.duration_s, lambda: self.listener.ready(self))

    def invoke(self, request: WorkRequest) -> None:
        if self.busy or self.dead:
            raise RuntimeError("an event for a worker that is not ready")
        self.busy = True
        script = self.behave(self.plan, request)
        self.memory = script.memory_bytes
        if script.output:
            self._after(0.0, lambda: self.listener.output(self, script.output))
        for index, chunk in enumerate(script.chunks):
            self._after(script.duration_s * index / len(script.chunks), self._chunk_sender(index, chunk))
        self._after(script.duration_s, lambda: self._finish(script))

    def kill(self, reason: str) -> None:
        self._after(0.0, lambda: self._die(Exit(signal=9)))

    def collect_output(self) -> None:
        return

    def memory_bytes(self) -> int:
        return self.memory

    def leave(self) -> None:
        """As a mould: die with the last copy."""
        self.leaving = True
        if self.copies == 0:
            self.kill("leave")

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def _chunk_sender(self, index: int, chunk: bytes) -> Callable[[], None]:
        def send() -> None:
            if index == 0:
                self.listener.stream_begun(self, "application/octet-stream")
            self.listener.chunk(self, chunk)

        return send

    def _finish(self, script: Script) -> None:
        if script.exit is not None:
            self._die(script.exit)
            return
        streamed = bool(script.chunks)
        payload = b"" if streamed and script.error is None else script.payload
        self.busy = False
        self.listener.answered(self, Answer(payload, script.error, streamed=streamed))
        self.listener.ready(self)

    def _die(self, exit: Exit) -> None:
        self.dead = True
        self.on_end(self)
        if self.mould is not None:
            self.mould.copies -= 1
            if self.mould.leaving:
                self.mould.leave()
        self.listener.died(self, exit)

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        def run() -> None:
            if not self.dead:
                action()

        self.call_at(self.clock.monotonic() + delay_s, run)


class ScriptedWorkerFactory:
    """`started` counts the workers ever started, `workers` holds the living; `restore` is the course of restores."""

    def __init__(
        self, clock: Clock, call_at: CallAt, behave: Behaviour, initialise: Initialisation = prompt
    ) -> None:
        self._clock = clock
        self._call_at = call_at
        self._behave = behave
        self._initialise = initialise
        self.restore: Initialisation = prompt
        self.started = 0
        self.workers: set[ScriptedWorker] = set()

    def start(self, plan: WorkerPlan, listener: Listener, mould: Mould | None = None) -> Worker:
        worker = self._make(plan, listener)
        if isinstance(mould, ScriptedWorker):
            mould.copies += 1
            worker.mould = mould
        worker.begin(self.restore(plan) if worker.mould else self._initialise(plan))
        return worker

    def snapshot(self, plan: WorkerPlan, listener: Listener) -> Mould:
        worker = self._make(plan, listener)
        worker.begin(self._initialise(plan))
        return worker

    def _make(self, plan: WorkerPlan, listener: Listener) -> ScriptedWorker:
        self.started += 1
        worker = ScriptedWorker(plan, listener, self._clock, self._call_at, self._behave, self.workers.discard)
        self.workers.add(worker)
        return worker

    def warm(self) -> None:
        return

    def remark(self, runtime: str) -> str | None:
        return None

    def forget(self, scratch: Path) -> None:
        return

    def close(self) -> None:
        for worker in self.workers:
            worker.dead = True
        self.workers.clear()

"""What runs a function's code: the seam between the pool and processes, real or scripted.

A `Worker` is one process of one environment. It is told to take one request at a time and tells its `Listener` what
happens. Every event carries the worker it comes from, so that late news of a killed one can be told apart. No event is
delivered from inside `start`, `invoke` or `kill`; all come on the core's thread.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from preheat.execution.contract import FunctionSpec

if TYPE_CHECKING:
    from preheat.execution.extensions.house import Extensions


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What to start: `variables` is the whole environment, `scratch` its own /tmp (the factory makes it), `trust` the
    directory of certificates that it finds at /var/runtime."""

    spec: FunctionSpec
    variables: dict[str, str]
    scratch: Path | None = None
    extensions: "Extensions | None" = None
    """What the environment knows of its extensions; their processes start and end with the worker's."""
    trust: Path | None = None


class WorkRequest(NamedTuple):
    """One event for a worker, as the Runtime API hands it out. `deadline_ms` is epoch milliseconds."""

    request_id: str
    payload: bytes
    deadline_ms: int
    invoked_arn: str
    trace_id: str | None = None
    client_context: str | None = None
    cognito_identity: str | None = None


class Answer(NamedTuple):
    """What the runtime posted for a request. `error` is None for success, else the error type it named and `payload`
    the error document. After a streamed answer `payload` is empty, and an error came in the trailers."""

    payload: bytes
    error: str | None = None
    content_type: str = "application/json"
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: `status` after an exit, else `signal`; `reason` when it could not even be started."""

    status: int | None = None
    signal: int | None = None
    reason: str = ""
    out_of_memory: bool = field(default=False, compare=False)
    """The kernel killed for want of memory."""
    peak_bytes: int = field(default=0, compare=False)
    """The most memory it held, when known."""


class Listener(Protocol):
    """What a worker reports; `pool` environments implement it."""

    def started(self, worker: "Worker") -> None:
        """The process exists; its initialisation begins."""

    def ready(self, worker: "Worker") -> None:
        """The runtime asks for the next event, and so do all extensions: initialised, or done with the one before."""

    def runtime_done(self, worker: "Worker") -> None:
        """The runtime asks for the next event, extensions do not yet; `ready` follows."""

    def init_failed(self, worker: "Worker", error_type: str, body: bytes) -> None:
        """The runtime reported that it cannot initialise (or there is no such runtime here)."""

    def stream_begun(self, worker: "Worker", content_type: str) -> None: ...

    def chunk(self, worker: "Worker", data: bytes) -> None: ...

    def answered(self, worker: "Worker", answer: Answer) -> None: ...

    def output(self, worker: "Worker", data: bytes) -> None:
        """Bytes of stdout and stderr, in the order they were written."""

    def crashed(self, worker: "Worker", exit: Exit) -> None:
        """The runtime has died, or an extension is at fault; `died` follows when all processes have ended."""

    def died(self, worker: "Worker", exit: Exit) -> None:
        """The last event of every worker."""


class Worker(Protocol):
    def invoke(self, request: WorkRequest) -> None:
        """Hand over one event. Only between `ready` and the `ready` after it."""

    def kill(self, reason: str) -> None:
        """End it at once, with extensions after AWS's graces; `died` follows. Killing twice is harmless. `reason` is
        what extensions are told: "spindown", "timeout", or anything else for "failure"."""

    def collect_output(self) -> None:
        """Deliver, before returning, what the process has written so far (the one event allowed inside a call)."""

    def memory_bytes(self) -> int:
        """Memory the function holds now; 0 when unknown."""

    def pause(self) -> None:
        """Stop reading a streamed answer until `resume`: the client cannot take it as fast."""

    def resume(self) -> None: ...


class Mould(Worker, Protocol):
    """An initialised process from which others are made (SnapStart). Its listener hears `ready` when it stands, and is
    never asked to `invoke`. `forkable`: it can be copied, else every environment starts in full. `threads`: names of
    the threads that its initialisation started, which no copy has."""

    forkable: bool
    threads: tuple[str, ...]

    def leave(self) -> None:
        """Make no more copies; it dies when the last of them has."""


class WorkerFactory(Protocol):
    def start(self, plan: WorkerPlan, listener: Listener, mould: Mould | None = None) -> Worker:
        """Never raises for a function that cannot run: that is `init_failed` or `died`, later."""

    def snapshot(self, plan: WorkerPlan, listener: Listener) -> Mould:
        """Initialise, run the before-snapshot hooks, and stand."""

    def warm(self) -> None:
        """Make ready, in the background, what the first workers will need."""

    def remark(self, runtime: str) -> str | None:
        """As `execution.contract.Executor.remark`; a notice is made of it, once."""

    def forget(self, scratch: Path) -> None:
        """The environment of this /tmp is over: what was kept of it between its processes goes."""

    def close(self) -> None:
        """Kill every worker and whatever was kept to make them; returns when they are gone."""

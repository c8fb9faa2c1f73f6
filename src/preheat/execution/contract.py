"""The seam of running code: what the Lambda service asks of `execution`, and what it gets back.

`execution` knows no AWS JSON and no database. Everything here happens on the core's thread; nothing blocks. The
implementation's parts: `gate` (admission), `pool` (environments per function version), `environment` (the lifecycle
table), `runtime_api` (AWS's Lambda Runtime API for the worker processes), `workers/` (process, scripted).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from preheat.kernel.meter import Meter
from preheat.kernel.stream import Channel


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One deployed function version, all that is needed to run it. Equal specs share environments; when code or
    configuration changes the caller makes a spec with a new `revision` and old environments drain."""

    arn: str
    name: str
    version: str
    revision: str
    runtime: str
    handler: str
    code: Path
    layers: tuple[Path, ...] = ()
    memory_mb: int = 128
    timeout_s: float = 3.0
    ephemeral_mb: int = 512
    environment: tuple[tuple[str, str], ...] = ()
    region: str = "us-east-1"
    account: str = "000000000000"
    role: str = ""
    log_group: str = ""
    snap_start: bool = False
    watch: bool = False
    """`code` is the user's own directory: an edit takes effect on the next invocation."""
    tracing: bool = False
    """What continues no trace is sampled."""
    system_log: str = ""
    """The least level (DEBUG, INFO, WARN) of Lambda's own lines in the JSON log format; "" for the text format."""

    @property
    def key(self) -> str:
        return f"{self.arn}:{self.version}"


@dataclass(slots=True)
class Invocation:
    """One event to run. `request_id` is the invocation's id; `deadline` is set when it reaches a worker."""

    request_id: str
    spec: FunctionSpec
    payload: bytes
    invoked_arn: str = ""
    client_context: str | None = None
    cognito_identity: str | None = None
    trace_id: str | None = None
    asynchronous: bool = False
    """From Lambda's own queue: not held to ten requests a second per unit of concurrency."""
    tail: bool = False
    """Collect the last 4 KB of log into `Outcome.log_tail` (X-Amz-Log-Type: Tail)."""
    on_stream: "Callable[[StreamStart], None] | None" = None
    """Set when the caller takes a streamed response: called once when the first byte of a streamed answer arrives.
    Without it a streamed answer is buffered into `Outcome.payload`."""


@dataclass(slots=True)
class StreamStart:
    """A streamed answer has begun; `chunks` carries bytes as the handler makes them. When the handler fails half-way
    `chunks` is closed with `StreamFailed`. The `Outcome` still follows when all is done."""

    content_type: str
    chunks: Channel


class StreamFailed(Exception):
    """The handler failed after its first byte. `error_type` and `error_body` (JSON bytes) as the runtime sent them."""

    def __init__(self, error_type: str, error_body: bytes) -> None:
        super().__init__(error_type)
        self.error_type = error_type
        self.error_body = error_body


@dataclass(slots=True)
class Outcome:
    """How an invocation ended. `error` is None for success, else AWS's error type (e.g. "Sandbox.Timedout",
    "Runtime.ExitError", or the handler's exception class); `payload` is then the error document that Invoke answers
    with `X-Amz-Function-Error: Unhandled`. Durations in milliseconds; `init_ms` only on a cold start."""

    payload: bytes
    error: str | None = None
    content_type: str = "application/json"
    log_tail: bytes = b""
    duration_ms: float = 0.0
    billed_ms: int = 0
    init_ms: float | None = None
    max_memory_mb: int = 0
    streamed: bool = False
    restore_ms: float | None = None
    """Set when this invocation's environment was restored from a snapshot for it."""
    restore_error: "RestoreError | None" = None
    """The environment could not be restored: Invoke answers with this error instead of the payload."""


RestoreError = Literal["SnapStartException", "SnapStartTimeoutException"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """How a version's snapshot came about; `error_type` is None when it stands."""

    error_type: str | None = None
    message: str = ""
    timed_out: bool = False


ThrottleReason = Literal[
    "ConcurrentInvocationLimitExceeded",
    "ReservedFunctionConcurrentInvocationLimitExceeded",
    "FunctionInvocationRateLimitExceeded",
    "ReservedFunctionInvocationRateLimitExceeded",
]


@dataclass(frozen=True, slots=True)
class Throttled:
    """Not admitted; nothing was started. `until` is when (epoch seconds) it is worth asking again, if known."""

    reason: ThrottleReason
    until: float | None = None


class LogLine(NamedTuple):
    """One line of output or of Lambda's own (START, END, REPORT). `at` in epoch milliseconds; `ended`: the stored event
    ends with a line break, as lines of output do and an uncaught error does not."""

    log_group: str
    log_stream: str
    at: int
    message: str
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Provisioning:
    """Keep `count` environments of a version initialised ahead of invocations. `resource` is what it was asked for on
    ("name:alias" or "name:version"); a new `token` tries again what has failed."""

    spec: FunctionSpec
    count: int
    resource: str
    token: str


@dataclass(frozen=True, slots=True)
class Provisioned:
    """How far that has come: `allocated` are initialised, `available` of them may be used; `reason` when it failed."""

    requested: int
    allocated: int
    available: int
    status: Literal["IN_PROGRESS", "READY", "FAILED"]
    reason: str = ""


@dataclass(slots=True)
class Usage:
    """A snapshot for status displays and tests. `running`, `idle`, `starting` count environments, `provisioned` those
    of them kept ahead, `waiting` invocations that the machine's ceiling holds up, `bindings` how often it began to."""

    running: int = 0
    idle: int = 0
    starting: int = 0
    waiting: int = 0
    by_function: dict[str, int] = field(default_factory=dict)
    provisioned: int = 0
    max_environments: int = 0
    min_free_mb: int = 0
    free_mb: int = 0
    bindings: int = 0


class Executor(Protocol):
    """What the Lambda service and the event source pollers use; `pool.Pool` implements it."""

    meter: Meter
    """Where it counts what it measures; whoever puts the parts together sets it."""

    def invoke(self, invocation: Invocation, done: Callable[[Outcome], None]) -> Throttled | None:
        """Admit and run. None: admitted, and `done` will be called exactly once, later. Throttled: refused."""

    def set_reserved(self, function_arn: str, limit: int | None) -> None:
        """Reserved concurrency of the (unqualified) function; None takes it away, 0 stops the function."""

    def provision(self, function_arn: str, wanted: Sequence[Provisioning], changed: Callable[[], None]) -> None:
        """The provisioned concurrency of all versions of a function: what is not in `wanted` ends. `changed` is called
        whenever one becomes READY or FAILED."""

    def provisioned(self, function_arn: str) -> dict[str, Provisioned]:
        """By version."""

    def retire(self, function_arn: str) -> None:
        """Stop the environments of a deleted or changed function once they are idle."""

    def prepare(self, spec: FunctionSpec, then: Callable[[Prepared], None]) -> None:
        """Take the snapshot of a version with SnapStart; `then` is called once, now or later."""

    def forget(self, function_arn: str, version: str | None = None) -> None:
        """Drop the snapshot of a deleted version, or all of a deleted function."""

    def usage(self) -> Usage: ...

    def remark(self, runtime: str) -> str | None:
        """What is different about running this runtime here than on AWS; None when nothing is."""

    def step(self, now: float) -> float | None:
        """Enforce timeouts and reap idle environments; returns when (clock.now() seconds) to be called again."""

"""What an environment knows of its extensions between two resets: it reports its course here, line by line, and the
processes' side (`crew`, `workers.process`) asks and tells through the same object.

Without extensions every call is a look at an empty list.
"""

from pathlib import Path
from typing import Any, Protocol

from preheat.execution import reports
from preheat.execution.contract import FunctionSpec, Invocation, Outcome
from preheat.execution.extensions import records
from preheat.execution.extensions.api import ExtensionApi
from preheat.execution.extensions.registry import Registry, Watcher
from preheat.execution.extensions.telemetry import Rim, Telemetry
from preheat.execution.workers.contract import WorkRequest

FOLDER = "extensions"
MAX_LINE_BYTES = 262_144


class Home(Protocol):
    """What extensions need of the pool."""

    def identifier(self) -> str:
        """A new UUID."""

    def now(self) -> float:
        """Epoch seconds."""

    def peer_now(self) -> float:
        """The same, on the clock of the function's process."""

    def monotonic(self) -> float: ...
    def log(self, message: str) -> None:
        """A line for the environment's log stream."""

    def flush(self) -> None: ...
    def measured(self, invocation: Invocation, post_runtime_ms: float) -> None:
        """How long extensions went on after the runtime."""


class Extensions:
    """`kind` is the environment's AWS_LAMBDA_INITIALIZATION_TYPE, `instance` its name."""

    def __init__(self, spec: FunctionSpec, home: Home, kind: str, instance: str) -> None:
        self.spec = spec
        self.programs = find_programs(spec.layers)
        self.registry = Registry(tuple(self.programs), home.identifier)
        self.telemetry = Telemetry(home.now, home.log)
        self.fault: tuple[str, str] | None = None
        self._home = home
        self._kind = kind
        self._instance = instance
        self._phase = "init"
        self._begun_at = 0.0
        self._asked_at = 0.0
        self._invocation: Invocation | None = None
        self._done = False
        self._structured = dict(spec.environment).get("AWS_LAMBDA_LOG_FORMAT") == "JSON"
        self._written = bool(spec.system_log)
        self._partial: dict[str, bytes] = {}

    # -- the course of the environment ----------------------------------------------------------------------------

    def begin(self, phase: str) -> None:
        """`phase`: "init", "invoke" (inside the first invocation) or "restore"."""
        self._phase = phase
        self._begun_at = self._home.now()
        version, arn = reports.runtime_version(self.spec)
        if phase == "restore":
            self._tell("platform.restoreStart", records.restore_start(self.spec, version, arn, self._instance))
        else:
            record = records.init_start(self.spec, self._kind, phase, version, arn, self._instance)
            self._tell("platform.initStart", record)

    def initialised(self, duration_ms: float) -> None:
        """Everybody is ready for the first event."""
        self._end_init("success", duration_ms, None)

    def not_initialised(self, status: str, duration_ms: float, error_type: str | None) -> None:
        """`status` is "error" or "timeout"."""
        self._runtime_initialised(status, error_type)
        self._end_init(status, duration_ms, error_type)

    def _end_init(self, status: str, duration_ms: float, error_type: str | None) -> None:
        if not self.telemetry.open:
            return
        if self._phase == "restore":
            self._tell("platform.restoreReport", records.restore_report(status, duration_ms, error_type))
        else:
            record = records.init_report(self._kind, self._phase, status, duration_ms, error_type)
            self._tell("platform.initReport", record)
        for member in self.registry.members:
            if not self._written:
                self._home.log(member.describe())
            self._tell("platform.extension", member.record())
        self.telemetry.settle()

    def _runtime_initialised(self, status: str, error_type: str | None) -> None:
        if not self._done:
            self._done = True
            if self._phase == "restore":
                self._tell("platform.restoreRuntimeDone", records.restore_done(status, error_type))
            else:
                record = records.init_done(self._kind, self._phase, status, error_type)
                self._tell("platform.initRuntimeDone", record)

    def started(self, invocation: Invocation) -> None:
        if self.heard:
            self._tell("platform.start", records.start(invocation))

    def runtime_done(
        self, invocation: Invocation, status: str, error_type: str | None, began_at: float, answered_at: float,
        streamed_at: float, produced_bytes: int,
    ) -> None:  # fmt: skip
        """The runtime's part of the invocation is over. Times are monotonic seconds; `answered_at` 0 for no answer,
        `streamed_at` the first byte of a streamed one, 0 for none."""
        if self._done or self._invocation is not invocation:
            return
        self._done = True
        if not self.heard:
            return
        now = self._home.monotonic()
        spans: list[records.Record] = []
        if answered_at:
            first = streamed_at or answered_at
            epoch = self._home.now() - (now - began_at)
            spans = records.spans(epoch, (first - began_at) * 1000.0, (answered_at - first) * 1000.0)
        duration_ms = (now - began_at) * 1000.0
        self._tell(
            "platform.runtimeDone",
            records.runtime_done(invocation, status, error_type, duration_ms, produced_bytes, spans),
        )

    def reported(
        self, invocation: Invocation, outcome: Outcome, status: str | None, error_type: str | None,
        restore: tuple[float, int] | None,
    ) -> None:  # fmt: skip
        """The invocation is over. `status` as in the REPORT line."""
        if not self.heard:
            return
        said = "error" if outcome.error is not None and status is None else records.STATUS[status]
        record = records.report(
            invocation, said, error_type or outcome.error, outcome.duration_ms, outcome.billed_ms,
            outcome.max_memory_mb, outcome.init_ms, restore,
        )  # fmt: skip
        self._tell("platform.report", record)
        self._tell("platform.end", {"requestId": invocation.request_id})

    def line(self, text: str) -> None:
        """A line that the function wrote."""
        if self.telemetry.wanted:
            self.telemetry.emit("function", records.line(text, self._structured), "function")

    def fault_document(self, request_id: str) -> bytes | None:
        """The error document when an extension is to blame."""
        return None if self.fault is None else reports.fault_document(request_id, *self.fault)

    # -- the side of the processes --------------------------------------------------------------------------------

    def connect(self, watcher: Watcher, rim: Rim) -> ExtensionApi:
        """What serves the extensions' requests."""
        self.registry.watcher = watcher
        return ExtensionApi(self.spec, self.registry, self.telemetry, rim)

    def runtime_asks(self) -> bool:
        """The runtime asks for its next event. True: nobody else has anything to do."""
        if self._invocation is None:
            self._runtime_initialised("success", None)
        everybody = self.registry.runtime_asks()
        if self.registry.members:
            self._asked_at = self._home.monotonic()
            if everybody:
                self.settled()
        return everybody

    def settled(self) -> None:
        """The last one has asked for its next event."""
        if self._invocation is not None and any("INVOKE" in member.events for member in self.registry.members):
            self._home.measured(self._invocation, (self._home.monotonic() - self._asked_at) * 1000.0)

    def invoke(self, invocation: Invocation, request: WorkRequest) -> None:
        """An event for everybody who wants it."""
        self._invocation, self._done = invocation, False
        if not self.registry.members:
            return
        event: dict[str, Any] = {
            "deadlineMs": request.deadline_ms,
            "requestId": request.request_id,
            "invokedFunctionArn": request.invoked_arn,
            "tracing": {"type": "X-Amzn-Trace-Id", "value": request.trace_id or ""},
        }
        self.registry.invoke(event)

    def output(self, name: str, data: bytes) -> None:
        """What an external extension wrote."""
        lines = (self._partial.pop(name, b"") + data).split(b"\n")
        rest = lines.pop()
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        if rest:
            self._partial[name] = rest
        for line in lines:
            self._extension_line(line)
        self._home.flush()

    def silent(self, name: str) -> None:
        """It will write no more."""
        rest = self._partial.pop(name, b"")
        if rest:
            self._extension_line(rest)
            self._home.flush()

    def _extension_line(self, line: bytes) -> None:
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        self._home.log(text)
        if self.telemetry.wanted:
            self.telemetry.emit("extension", text, "extension")

    def shut_down(self, reason: str, left_s: float) -> None:
        """SHUTDOWN for everybody who wants it."""
        self.registry.shut_down(reason, int((self._home.peer_now() + left_s) * 1000.0))

    def blame(self, error_type: str, text: str) -> None:
        """The first that is said stays."""
        if self.fault is None:
            self.fault = (error_type, text)

    @property
    def heard(self) -> bool:
        """Whether an event is of use to anybody: to a subscriber, or to the log in the JSON format."""
        return self._written or self.telemetry.wanted

    def _tell(self, kind: str, record: records.Record) -> None:
        if self._written and records.weight(records.level(kind, record)) >= records.weight(self.spec.system_log):
            self._home.log(records.text(self._home.now(), kind, record))
        if self.telemetry.wanted:
            self.telemetry.emit(kind, record)


def find_programs(layers: tuple[Path, ...]) -> dict[str, str]:
    """The files that AWS finds in /opt/extensions, by name, a later layer's over an earlier one's."""
    found: dict[str, str] = {}
    for layer in layers:
        folder = layer / FOLDER
        if folder.is_dir():
            found.update((entry.name, str(entry)) for entry in folder.iterdir() if not entry.is_dir())
    return dict(sorted(found.items()))

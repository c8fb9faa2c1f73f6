"""SnapStart: the standing snapshots of published versions, from which their environments are made.

A snapshot is a process that has run a version's initialisation and its before-snapshot hooks. It is taken when the
version is published, kept while the version exists, and taken again when it is needed and not there: after a restart
of the server, after its death, or when it gave way to others (`limit` are kept; those without environments go first).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from preheat.execution import reports
from preheat.execution.contract import FunctionSpec, Prepared
from preheat.execution.extensions.house import Extensions
from preheat.execution.workers.contract import Answer, Exit, Mould, Worker
from preheat.kernel.clock import Clock

LEAST_INIT_LIMIT_S = 130.0
MAX_INIT_LIMIT_S = 900.0
MIB = 1024 * 1024

Then = Callable[[Prepared], None]


class SnapshotHost(Protocol):
    """What snapshots need of the pool."""

    clock: Clock

    def place(self, spec: FunctionSpec) -> tuple[str, Path | None]:
        """A new log stream, and a directory for /tmp."""

    def extensions(self, owner: "Snapshot") -> Extensions: ...
    def start_snapshot(self, snapshot: "Snapshot") -> Mould: ...
    def snapshot_log(self, snapshot: "Snapshot", message: str, ended: bool = True) -> None: ...
    def snapshot_in_use(self, spec: FunctionSpec) -> bool:
        """Whether the version has environments."""

    def snapshot_gone(self, snapshot: "Snapshot") -> None: ...
    def due(self, at: float) -> None: ...
    def flush(self) -> None: ...


class Snapshot:
    """One version's snapshot: "making", "standing" or "gone". Implements `workers.contract.Listener`. A standing one
    without `mould` is a version whose process cannot be copied."""

    def __init__(self, owner: "Snapshots", spec: FunctionSpec, log_stream: str, scratch: Path | None) -> None:
        self.owner = owner
        self.spec = spec
        self.log_stream = log_stream
        self.scratch = scratch
        self.state = "making"
        self.extensions: Extensions = owner.host.extensions(self)
        self.worker: Mould | None = None
        self.mould: Mould | None = None
        self.waiting: list[Then] = []
        self.begun_at = owner.host.clock.monotonic()
        limit_s = min(MAX_INIT_LIMIT_S, max(LEAST_INIT_LIMIT_S, spec.timeout_s))
        self.deadline: float | None = self.begun_at + limit_s
        self._failure: tuple[str, bytes] | None = None
        self._timed_out = False
        self._partial = b""

    def watch(self, now: float) -> None:
        """Enforce the time limit and the memory limit of initialisation. `now` is monotonic."""
        worker = self.worker
        if worker is None or self.state != "making":
            return
        if self.deadline is not None and now >= self.deadline:
            self.deadline, self._timed_out = None, True
            worker.kill("initialisation took too long")
        elif worker.memory_bytes() > self.spec.memory_mb * MIB:
            worker.kill("out of memory")

    # -- what the worker reports ----------------------------------------------------------------------------------

    def started(self, worker: Worker) -> None:
        return

    def ready(self, worker: Worker) -> None:
        if worker is not self.worker or self.state != "making":
            return
        worker.collect_output()
        self._flush_partial()
        self.state, self.deadline = "standing", None
        self._system(reports.init_report(self._elapsed_ms(), "init", "success"))
        self.extensions.initialised(self._elapsed_ms())
        if self.worker.forkable:
            self.mould = self.worker
            if self.worker.threads:
                self._log(_thread_warning(self.worker.threads))
        else:
            self._log(_WHOLE)
            worker.kill("it cannot be copied")
        self._finish(Prepared())

    def init_failed(self, worker: Worker, error_type: str, body: bytes) -> None:
        if worker is self.worker and self.state == "making":
            self._failure = (error_type, body)
            worker.kill("initialisation failed")

    def output(self, worker: Worker, data: bytes) -> None:
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            self._line(line)
        self.owner.host.flush()

    def runtime_done(self, worker: Worker) -> None:
        return

    def crashed(self, worker: Worker, exit: Exit) -> None:
        worker.kill("failure")

    def died(self, worker: Worker, exit: Exit) -> None:
        if worker is not self.worker:
            return
        self._flush_partial()
        self.worker = self.mould = None
        if self.state == "making":
            self._failed(exit)
        elif self.state == "standing" and worker.forkable:
            self.owner.lost(self)

    def stream_begun(self, worker: Worker, content_type: str) -> None:
        return

    def chunk(self, worker: Worker, data: bytes) -> None:
        return

    def answered(self, worker: Worker, answer: Answer) -> None:
        return

    # -- its end --------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Let it end with the last of its environments."""
        self.state = "gone"
        if self.worker is not None:
            self.worker.leave()
        self._finish(Prepared("Runtime.Unknown", "The version was deleted."))

    def _failed(self, exit: Exit) -> None:
        error_type, document = self._failure or ("Runtime.ExitError", b"")
        status = "timeout" if self._timed_out else "error"
        self._system(reports.init_report(
            self._elapsed_ms(), "init", status, None if self._timed_out else error_type
        ))  # fmt: skip
        self.extensions.not_initialised(status, self._elapsed_ms(), None if self._timed_out else error_type)
        self.state = "gone"
        fault = self.extensions.fault
        message = fault[1] if fault is not None else reports.message_of(document) or reports.exit_text(exit)
        self.owner.lost(self)
        self._finish(Prepared(error_type, message, self._timed_out))

    def _finish(self, prepared: Prepared) -> None:
        waiting, self.waiting = self.waiting, []
        self.owner.host.flush()
        for then in waiting:
            then(prepared)

    def _elapsed_ms(self) -> float:
        return (self.owner.host.clock.monotonic() - self.begun_at) * 1000.0

    def begun(self) -> None:
        """Its first process is about to start."""
        self._system(reports.init_start(self.spec))
        self.extensions.begin("init")

    def _system(self, message: str) -> None:
        """A line of Lambda's own. In the JSON format its record is written instead, by `extensions`."""
        if not self.spec.system_log:
            self._log(message)

    def _log(self, message: str, ended: bool = True) -> None:
        self.owner.host.snapshot_log(self, message, ended)

    def _line(self, line: bytes, whole: bool = True) -> None:
        text, ended = reports.event_text(line)
        self._log(text, whole and ended)

    def _flush_partial(self) -> None:
        if self._partial:
            self._line(self._partial, whole=False)
            self._partial = b""


class Snapshots:
    """All of them, by version. Those used last are at the end."""

    def __init__(self, host: SnapshotHost, limit: int, on_notice: Callable[[str], None]) -> None:
        self.host = host
        self._limit = limit
        self._on_notice = on_notice
        self._known: dict[str, Snapshot] = {}
        self._lost: set[str] = set()

    def obtain(self, spec: FunctionSpec, then: Then) -> None:
        """Call `then` when the version's snapshot stands, at once if it does, or when it could not be taken."""
        found = self._known.get(spec.key)
        if found is not None and found.spec.revision != spec.revision:
            self._drop(found)
            found = None
        if found is None:
            found = self._take(spec)
        if found.state == "standing":
            self._known[spec.key] = self._known.pop(spec.key)
            then(Prepared())
        else:
            found.waiting.append(then)

    def mould(self, spec: FunctionSpec) -> Mould | None:
        """What to copy an environment from now."""
        found = self._known.get(spec.key)
        return None if found is None or found.spec.revision != spec.revision else found.mould

    def drop(self, function_arn: str, version: str | None = None) -> None:
        """Forget the snapshot of a version, or those of a whole function."""
        for snapshot in list(self._known.values()):
            if snapshot.spec.arn == function_arn and version in (None, snapshot.spec.version):
                self._drop(snapshot)

    def watch(self, monotonic: float) -> float | None:
        """Enforce limits; the nearest deadline of those that are being taken."""
        making = [snapshot for snapshot in self._known.values() if snapshot.state == "making"]
        for snapshot in making:
            snapshot.watch(monotonic)
        return min((snapshot.deadline for snapshot in making if snapshot.deadline is not None), default=None)

    def lost(self, snapshot: Snapshot) -> None:
        """A snapshot's process has ended by itself."""
        if self._known.get(snapshot.spec.key) is snapshot:
            del self._known[snapshot.spec.key]
        if snapshot.state == "standing":
            snapshot.state = "gone"
            self._lost.add(snapshot.spec.key)
        self.host.snapshot_gone(snapshot)

    def all(self) -> list[Snapshot]:
        return list(self._known.values())

    def _take(self, spec: FunctionSpec) -> Snapshot:
        self._make_room()
        if spec.key in self._lost:
            self._lost.discard(spec.key)
            self._on_notice(f"{spec.name}: the snapshot of version {spec.version} had to be taken again")
        log_stream, scratch = self.host.place(spec)
        snapshot = self._known[spec.key] = Snapshot(self, spec, log_stream, scratch)
        snapshot.begun()
        snapshot.worker = self.host.start_snapshot(snapshot)
        self.host.due(snapshot.deadline or 0.0)
        return snapshot

    def _make_room(self) -> None:
        standing = [snapshot for snapshot in self._known.values() if snapshot.state == "standing"]
        if len(standing) < self._limit:
            return
        idle = [snapshot for snapshot in standing if not self.host.snapshot_in_use(snapshot.spec)]
        if idle:
            self._lost.add(idle[0].spec.key)
            self._on_notice(
                f"{self._limit} SnapStart snapshots are kept (max_snapshots); that of {idle[0].spec.name} version "
                f"{idle[0].spec.version} gives way and is taken again when it is invoked"
            )
            self._drop(idle[0])

    def _drop(self, snapshot: Snapshot) -> None:
        del self._known[snapshot.spec.key]
        snapshot.leave()
        self.host.snapshot_gone(snapshot)


_WHOLE = (
    "[WARN] SnapStart: this process cannot be copied here (AWS_LAMBDA_EXEC_WRAPPER), so every environment of this "
    "version initialises in full"
)


def _thread_warning(names: tuple[str, ...]) -> str:
    return (
        f"[WARN] SnapStart: initialisation started {len(names)} thread{'s' * (len(names) > 1)} ({', '.join(names)}) "
        "that environments restored here do not have, while on AWS they do; start them in an after-restore hook"
    )

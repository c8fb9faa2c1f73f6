"""One execution environment: its lifecycle, one invocation at a time.

The lifecycle is the table `lifecycle.ALLOWED`; whatever is not in it is refused. A process that times out or crashes is
killed and the environment is reset: the next invocation initialises a new process in it, with the same /tmp, inside its
own timeout (AWS's "suppressed init").
"""

from pathlib import Path
from typing import Protocol

from preheat.execution import reports
from preheat.execution.contract import FunctionSpec, Outcome, RestoreError, StreamFailed, StreamStart
from preheat.execution.extensions.house import Extensions
from preheat.execution.flow import Bandwidth, Flow
from preheat.execution.lifecycle import ALLOWED, IllegalTransition, Job, State
from preheat.execution.runtime_api import MAX_RESPONSE_BYTES
from preheat.execution.variables import log_group
from preheat.execution.workers.contract import Answer, Exit, Worker, WorkRequest
from preheat.execution.workers.runtime.hooks import AFTER_RESTORE_ERROR, AFTER_RESTORE_STATUS
from preheat.kernel.clock import Clock
from preheat.kernel.stream import Channel

INIT_LIMIT_S = 10.0
AHEAD_INIT_LIMIT_S = 130.0
MAX_INIT_LIMIT_S = 900.0
RESTORE_LIMIT_S = 10.0
LINGER_S = 0.05
TAIL_BYTES = 4096
MAX_LINE_BYTES = 262_144
MAX_STREAM_BYTES = 200 * 1024 * 1024
MEASURED_S = 0.05
"""Memory is looked at after an invocation unless that was done so short a time ago."""
MIB = 1024 * 1024


class Host(Protocol):
    """What an environment needs of its pool."""

    clock: Clock
    bandwidth: Bandwidth | None
    """Of streamed answers."""

    def start_worker(self, environment: "Environment") -> Worker: ...
    def extensions(self, environment: "Environment") -> Extensions:
        """For its next process."""

    def restores(self, environment: "Environment") -> bool:
        """Whether its next process is made from a snapshot."""

    def log(self, environment: "Environment", message: str, ended: bool = True) -> None: ...
    def flush(self) -> None: ...
    def due(self, at: float, now: float | None = None) -> None:
        """Have `expire` looked at by then; both in monotonic seconds, `now` when it is known."""

    def available(self, environment: "Environment") -> None:
        """It can take an invocation."""

    def settled(self, environment: "Environment", job: Job) -> None:
        """The job is over, its concurrency is free."""

    def gone(self, environment: "Environment") -> None:
        """It is dead."""


class Environment:
    """Implements `workers.contract.Listener`. Times ending in `_at` are monotonic seconds, `idle_since` epoch. One that
    starts `ahead` (provisioned concurrency) initialises without an invocation, for at least 130 s; when it cannot, it
    is dead."""

    def __init__(
        self, host: Host, spec: FunctionSpec, name: str, log_stream: str, scratch: Path | None, ahead: bool = False
    ) -> None:
        self.host = host
        self.ahead = ahead
        self.init_limit_s = min(MAX_INIT_LIMIT_S, max(AHEAD_INIT_LIMIT_S, spec.timeout_s)) if ahead else INIT_LIMIT_S
        self.spec = spec
        self.name = name
        self.log_group = log_group(spec)
        self.log_stream = log_stream
        self.scratch = scratch
        self.state = State.STARTING
        self.draining = False
        self.idle_since = 0.0
        self.deadline: float | None = None
        self.worker: Worker | None = None
        self.job: Job | None = None
        self.used_mb = 0
        self._measured_at = -MEASURED_S
        self._phase = "init"
        self._init_at = 0.0
        self._init_ms: float | None = None
        self._failure: tuple[str, bytes] | None = None
        self._started_at = 0.0
        self._restore: tuple[float, int] | None = None
        self._reset()

    def _reset(self) -> None:
        self._answer: Answer | None = None
        self._answered_at = 0.0
        self._channel: Channel | None = None
        self._flow: Flow | None = None
        self._chunks: list[bytes] | None = None
        self._stream_type = ""
        self._streamed_bytes = 0
        self._streamed_at = 0.0
        self._tail = bytearray()
        self._partial = b""

    def move(self, to: State) -> None:
        if to not in ALLOWED[self.state]:
            raise IllegalTransition(f"{self.spec.name}: an environment that is {self.state} cannot become {to}")
        self.state = to

    @property
    def takes_work(self) -> bool:
        """Idle, or reset and waiting for an invocation to start it again (after its old process has died)."""
        return self.job is None and (self.state is State.IDLE or self.state is State.RESETTING)

    # -- what the pool asks ---------------------------------------------------------------------------------------

    def launch(self, job: Job | None) -> None:
        """Start a fresh environment, for `job` if there is one."""
        self.job = job
        self._spawn("init")

    def assign(self, job: Job) -> None:
        """Give work to an environment that `takes_work`."""
        self.job = job
        if self.state is State.IDLE:
            self._init_ms = self._restore = None
            self._announce()
            self._deliver()
        elif self.worker is None:
            self._restart()

    def stop(self) -> None:
        """End it; `host.gone` follows, at once when there is no process."""
        if self.state in (State.STOPPING, State.DEAD):
            return
        self.move(State.STOPPING)
        self.deadline = None
        if self.worker is None:
            self._bury()
        else:
            self.worker.kill("spindown")

    def watch(self, now: float) -> None:
        """Enforce the deadline and the memory limit; deliver an answer whose runtime lingers. `now` is monotonic."""
        if self.worker is None:
            return
        if self.state is State.BUSY or self.state is State.INITIALISING:
            self._measure()
            if self.used_mb > self.spec.memory_mb and (self.job or self.ahead) and self._answer is None:
                self._out_of_memory()
                return
        if self._flow is not None:
            self._flow.look(now)
        if self._answer is not None and now - self._answered_at >= LINGER_S:
            self._hand_over(now)
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self._expire(now)

    # -- what the worker reports ----------------------------------------------------------------------------------

    def started(self, worker: Worker) -> None:
        if worker is self.worker and self.state is State.STARTING:
            self._started_at = self.host.clock.monotonic()
            self.move(State.INITIALISING)

    def ready(self, worker: Worker) -> None:
        if worker is not self.worker:
            return
        if self.state is State.BUSY:
            self._complete()
            return
        if self.state is not State.INITIALISING:
            return
        worker.collect_output()
        if self._phase == "init":
            self._init_ms = (self.host.clock.monotonic() - self._init_at) * 1000.0
            if self.ahead:
                self._initialised(self._init_ms)
        elif self._phase == "restore":
            self._restored()
        self.deadline = None
        self.extensions.initialised((self.host.clock.monotonic() - self._init_at) * 1000.0)
        if self.job is None:
            self.move(State.IDLE)
            self.host.available(self)
            return
        if self._phase != "invoke":
            self._announce()
        else:
            self.deadline = (self.job.begun or 0.0) + self.spec.timeout_s
        self._deliver()

    def runtime_done(self, worker: Worker) -> None:
        """The answer leaves; the environment is busy until extensions are done too."""
        if worker is self.worker and self.state is State.BUSY and self._answer is not None:
            worker.collect_output()
            self._runtime_ends(None, None)
            self._hand_over(self.host.clock.monotonic())
            self.host.flush()

    def crashed(self, worker: Worker, exit: Exit) -> None:
        if worker is not self.worker:
            return
        if self.state is State.BUSY:
            self._broken(exit)
        elif self.state is State.IDLE:
            self.draining = True
            self.move(State.STOPPING)
        worker.kill("failure")

    def init_failed(self, worker: Worker, error_type: str, body: bytes) -> None:
        if worker is not self.worker or self.state is not State.INITIALISING:
            return
        self._failure = (error_type, body)
        worker.kill("initialisation failed")

    def stream_begun(self, worker: Worker, content_type: str) -> None:
        job = self.job
        if worker is not self.worker or job is None or self.state is not State.BUSY:
            return
        self._stream_type, self._streamed_at = content_type, self.host.clock.monotonic()
        if job.invocation.on_stream is None:
            self._chunks = []
            return
        channel = self._channel = Channel()
        self._flow = Flow(channel, worker, self.host.bandwidth)
        job.invocation.on_stream(StreamStart(content_type, channel))

    def chunk(self, worker: Worker, data: bytes) -> None:
        if worker is not self.worker or self.state is not State.BUSY or self._answer is not None:
            return
        self._streamed_bytes += len(data)
        if self._chunks is not None:
            if self._streamed_bytes <= MAX_RESPONSE_BYTES:
                self._chunks.append(data)
        elif self._flow is not None:
            if self._streamed_bytes > MAX_STREAM_BYTES:
                body = reports.size_document(MAX_STREAM_BYTES)
                self._abandon(Answer(body, "Function.ResponseSizeTooLarge", streamed=True))
                return
            self._flow.send(data, self.host.clock.monotonic())

    def answered(self, worker: Worker, answer: Answer) -> None:
        if worker is not self.worker or self.state is not State.BUSY or self._answer is not None:
            return
        self._answer = answer
        self._answered_at = self.host.clock.monotonic()
        channel = self._channel
        if channel is not None:
            channel.close(None if answer.error is None else StreamFailed(answer.error, answer.payload))
        elif self._chunks is not None and answer.error is None:
            if self._streamed_bytes > MAX_RESPONSE_BYTES:
                body = reports.size_document(MAX_RESPONSE_BYTES)
                self._answer = Answer(body, "Function.ResponseSizeTooLarge")
            else:
                self._answer = Answer(b"".join(self._chunks), None, self._stream_type)

    def output(self, worker: Worker, data: bytes) -> None:
        """Lines go to the log as they come; an unfinished one waits for its end, the invocation's or 256 KB."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        for line in lines:
            self._line(line)
        while len(self._partial) > MAX_LINE_BYTES:
            self._line(self._partial[:MAX_LINE_BYTES], whole=False)
            self._partial = self._partial[MAX_LINE_BYTES:]
        if self._answer is None:
            self.host.flush()

    def died(self, worker: Worker, exit: Exit) -> None:
        if worker is not self.worker:
            return
        self.worker = None
        state = self.state
        peak_mb = self.spec.memory_mb if exit.out_of_memory else -(-exit.peak_bytes // MIB)
        self.used_mb = max(self.used_mb, peak_mb)
        if state in (State.STARTING, State.INITIALISING):
            self._init_died(exit)
        elif state is State.BUSY:
            self._broken(exit)
        elif state is State.RESETTING:
            if self.job is not None:
                self._restart()
        else:
            self._bury()

    def _broken(self, exit: Exit) -> None:
        """The runtime has died in the middle of an invocation, or an extension is to blame."""
        assert self.job is not None
        self.move(State.RESETTING)
        named = "Runtime.OutOfMemory" if exit.out_of_memory else "Runtime.ExitError"
        kind = "Runtime.ExitError" if self.extensions.fault is None else self.extensions.fault[0]
        if self._answer is None:
            request_id = self.job.invocation.request_id
            document = self.extensions.fault_document(request_id) or reports.exit_document(request_id, exit)
            self._fail(kind, document, "error", named if self.extensions.fault is None else kind)
        elif self.extensions.fault is not None:
            self._finish("error", kind)
        else:
            self._finish(None, None)

    # -- steps of the life ----------------------------------------------------------------------------------------

    def _spawn(self, phase: str) -> None:
        now = self.host.clock.monotonic()
        if self.host.restores(self):
            phase = "restore"
        self._phase, self._init_at, self._init_ms, self._restore, self._failure = phase, now, None, None, None
        self.extensions = self.host.extensions(self)
        self.used_mb, self._measured_at = 0, -MEASURED_S
        if phase == "restore":
            self._system(reports.restore_start(self.spec))
            self.deadline = now + RESTORE_LIMIT_S
            self.host.due(self.deadline)
        elif phase == "init":
            self._system(reports.init_start(self.spec))
            self.deadline = now + self.init_limit_s
            self.host.due(self.deadline)
        elif self.job is not None and self.job.begun is None:
            self._announce()
        self.extensions.begin(phase)
        self.worker = self.host.start_worker(self)

    def _restart(self) -> None:
        self.move(State.STARTING)
        self._spawn("invoke")

    def _restored(self) -> None:
        """The time since the process exists (after-restore hooks, the runtime's own start) is what AWS bills."""
        now = self.host.clock.monotonic()
        whole_ms = (now - self._init_at) * 1000.0
        self._restore = whole_ms, reports.billed((now - self._started_at) * 1000.0, None)
        self._system(reports.restore_report(whole_ms))

    def _not_restored(self, error: RestoreError, status: str, error_type: str | None) -> None:
        """The invocation ends before its START."""
        elapsed_ms = (self.host.clock.monotonic() - self._init_at) * 1000.0
        if self._partial:
            self._line(self._partial, whole=False)
            self._partial = b""
        self._system(reports.restore_report(elapsed_ms, status, error_type))
        self.extensions.not_initialised(status, elapsed_ms, error_type)
        self.draining = True
        job, self.job = self.job, None
        if job is not None:
            self.host.settled(self, job)
            job.delivered = True
            job.done(Outcome(reports.restore_document(error), error, restore_error=error, restore_ms=elapsed_ms))
        self.host.flush()

    def _initialised(self, init_ms: float) -> None:
        """What it wrote belongs to its initialisation, which is reported for itself."""
        if self._partial:
            self._line(self._partial, whole=False)
            self._partial = b""
        self._system(reports.init_report(init_ms, "init", "success"))

    def _announce(self) -> None:
        """START: the invocation's time runs."""
        job = self.job
        assert job is not None
        now = job.begun = self.host.clock.monotonic()
        self.deadline = now + self.spec.timeout_s
        self.host.due(self.deadline, now)
        if self._partial:
            self._line(self._partial, whole=False)
            self._partial = b""
        self._system(reports.start(job.invocation.request_id, self.spec.version))
        self.extensions.started(job.invocation)

    def _deliver(self) -> None:
        job, worker = self.job, self.worker
        assert job is not None and worker is not None and job.begun is not None
        self.move(State.BUSY)
        invocation = job.invocation
        left = job.begun + self.spec.timeout_s - self.host.clock.monotonic()
        request = WorkRequest(
            invocation.request_id,
            invocation.payload,
            int((self.host.clock.peer_now() + left) * 1000.0),
            invocation.invoked_arn or self.spec.arn,
            invocation.trace_id,
            invocation.client_context,
            invocation.cognito_identity,
        )
        self.extensions.invoke(invocation, request)
        worker.invoke(request)

    def _complete(self) -> None:
        assert self.worker is not None
        now = self.host.clock.monotonic()
        if now - self._measured_at >= MEASURED_S:
            self._measured_at = now
            self._measure()
        self.worker.collect_output()
        self.move(State.IDLE)
        self._finish(None, None, now)

    def _expire(self, now: float) -> None:
        """Out of time: the ten seconds of initialisation, or the function's timeout."""
        worker, job = self.worker, self.job
        assert worker is not None
        worker.collect_output()
        if self.state is not State.BUSY and self._phase == "restore":
            self.move(State.STOPPING)
            worker.kill("the restore took too long")
            self._not_restored("SnapStartTimeoutException", "timeout", None)
            return
        if self.state is not State.BUSY and self._phase == "init":
            self._system(reports.init_report((now - self._init_at) * 1000.0, "init", "timeout"))
            if job is None:
                self.stop()
                self.host.flush()
                return
            self.move(State.RESETTING)
            self.extensions.not_initialised("timeout", (now - self._init_at) * 1000.0, None)
            worker.kill("timeout")
            return
        assert job is not None
        if self.state is not State.BUSY:
            self._system(reports.init_report((now - self._init_at) * 1000.0, "invoke", "timeout"))
            self.extensions.not_initialised("timeout", (now - self._init_at) * 1000.0, None)
        self.move(State.RESETTING)
        worker.kill("timeout")
        if self._answer is None:
            document = reports.timeout_document(job.invocation.request_id, self.spec.timeout_s)
            self._fail("Sandbox.Timedout", document, "timeout", None)
        else:
            self._finish("timeout", None)

    def _out_of_memory(self) -> None:
        worker, job = self.worker, self.job
        assert worker is not None
        self.used_mb = self.spec.memory_mb
        if self.state is not State.BUSY or job is None:
            worker.kill("out of memory")
            return
        worker.collect_output()
        self.move(State.RESETTING)
        worker.kill("out of memory")
        document = reports.exit_document(job.invocation.request_id, Exit(signal=9))
        self._fail("Runtime.ExitError", document, "error", "Runtime.OutOfMemory")

    def _abandon(self, answer: Answer) -> None:
        """Break off a stream that exceeds its limit."""
        worker = self.worker
        assert worker is not None
        worker.collect_output()
        self.move(State.RESETTING)
        worker.kill("the answer is too large")
        self._fail(answer.error or "", answer.payload, "error", answer.error)

    def _init_died(self, exit: Exit) -> None:
        duration_ms = (self.host.clock.monotonic() - self._init_at) * 1000.0
        error_type = (self._failure or self.extensions.fault or ("Runtime.ExitError",))[0]
        if self._phase == "restore":
            error_type = AFTER_RESTORE_ERROR if exit.status == AFTER_RESTORE_STATUS else "Runtime.ExitError"
            self.move(State.STOPPING)
            self._not_restored("SnapStartException", "error", error_type)
            self._bury()
            return
        self._system(reports.init_report(duration_ms, self._phase, "error", error_type))
        self.extensions.not_initialised("error", duration_ms, error_type)
        self.move(State.RESETTING)
        job = self.job
        if job is None:
            self._bury()
        elif self._phase == "init":
            self._restart()
        else:
            document = b"" if self._failure is None else self._failure[1]
            if not document:
                request_id = job.invocation.request_id
                document = self.extensions.fault_document(request_id) or reports.exit_document(request_id, exit)
            self.draining = True
            self._fail(error_type, document, "error", error_type)

    def _bury(self) -> None:
        self.deadline = None
        self.move(State.DEAD)
        self.host.gone(self)

    # -- the end of an invocation ---------------------------------------------------------------------------------

    def _fail(self, error_type: str, document: bytes, status: str, reported: str | None) -> None:
        if self._channel is not None:
            self._channel.close(StreamFailed(error_type, document))
        self._answer = Answer(document, error_type, streamed=self._channel is not None)
        self._finish(status, reported)

    def _hand_over(self, now: float) -> None:
        """The answer leaves before everything is done. `now` is monotonic."""
        job = self.job
        if job is not None and not job.delivered:
            job.delivered = True
            outcome = self._outcome((now - (job.begun or now)) * 1000.0)
            outcome.log_tail = reports.last_bytes(self._tail, TAIL_BYTES)
            job.done(outcome)

    def _runtime_ends(self, status: str | None, error_type: str | None) -> None:
        job, answer = self.job, self._answer
        if job is None or answer is None or not self.extensions.heard:
            return
        said = {"timeout": "timeout", "error": "failure"}.get(status or "", "success" if not answer.error else "error")
        size, times = self._streamed_bytes or len(answer.payload), (self._answered_at, self._streamed_at)
        self.extensions.runtime_done(
            job.invocation, said, error_type or answer.error, job.begun or 0.0, *times, produced_bytes=size
        )

    def _finish(self, status: str | None, error_type: str | None, now: float | None = None) -> None:
        """`now` is monotonic."""
        job = self.job
        assert job is not None and self._answer is not None
        self.deadline = None
        if now is None:
            now = self.host.clock.monotonic()
        duration_ms = (now - (now if job.begun is None else job.begun)) * 1000.0
        if status == "timeout":
            duration_ms = self.spec.timeout_s * 1000.0
        if self._partial:
            self._line(self._partial, whole=False)
        if self._answer.error == "Function.ResponseSizeTooLarge":
            status, error_type = "error", self._answer.error
        invocation = job.invocation
        self._runtime_ends(status, error_type)
        outcome = self._outcome(duration_ms)
        self._system(reports.end(invocation.request_id))
        self._system(
            reports.report(
                invocation.request_id,
                duration_ms,
                outcome.billed_ms,
                self.spec.memory_mb,
                outcome.max_memory_mb,
                self._init_ms,
                status,
                error_type,
                invocation.trace_id,
                self._restore,
            )
        )
        self.extensions.reported(invocation, outcome, status, error_type, self._restore)
        if self._tail:
            outcome.log_tail = reports.last_bytes(self._tail, TAIL_BYTES)
        self.job = None
        self._init_ms = self._restore = None
        self._reset()
        self.host.settled(self, job)
        if not job.delivered:
            job.delivered = True
            job.done(outcome)
        self.host.flush()

    def _outcome(self, duration_ms: float) -> Outcome:
        """Without its log's tail."""
        answer = self._answer
        assert answer is not None
        streamed = self._channel is not None
        return Outcome(
            payload=answer.payload,
            error=answer.error,
            content_type=self._stream_type if streamed else answer.content_type,
            duration_ms=duration_ms,
            billed_ms=reports.billed(duration_ms, self._init_ms if self._restore is None else self._restore[1]),
            init_ms=self._init_ms,
            restore_ms=None if self._restore is None else self._restore[0],
            max_memory_mb=min(self.used_mb, self.spec.memory_mb),
            streamed=streamed,
        )

    def _measure(self) -> None:
        assert self.worker is not None
        self.used_mb = max(self.used_mb, -(-self.worker.memory_bytes() // MIB))

    def _line(self, line: bytes, whole: bool = True) -> None:
        """`whole`: a line break came after it."""
        text, ended = reports.event_text(line)
        self.say(text, whole and ended)
        self.extensions.line(text)

    def _system(self, message: str) -> None:
        """A line of Lambda's own. In the JSON format its record is written instead, by `extensions`."""
        if not self.spec.system_log:
            self.say(message)

    def say(self, message: str, ended: bool = True) -> None:
        self.host.log(self, message, ended)
        job = self.job
        if job is not None and job.invocation.tail and job.begun is not None:
            self._tail += message.encode() + (b"\n" if ended else b"")
            if len(self._tail) > 16 * TAIL_BYTES:
                del self._tail[:-TAIL_BYTES]

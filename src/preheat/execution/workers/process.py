"""Workers that are real processes, forked by a zygote, on an event loop that offers add_reader and add_writer.

Preheat's Python runtime talks over an inherited socket pair, in frames (`channel`): the connection is the identity.
At AWS_LAMBDA_RUNTIME_API every environment has a TCP listener of its own, for other runtimes and for extensions (`crew`
starts and ends those). Standard output and error share one pipe, so their order is kept.
"""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from preheat.execution.extensions.crew import Crew
from preheat.execution.runtime_api import RuntimeConnection, RuntimeSession
from preheat.execution.workers.channel import ChannelConnection
from preheat.execution.workers.contract import Answer, Exit, Listener, Mould, Worker, WorkerPlan, WorkRequest
from preheat.execution.workers.housing import Housing, Stay
from preheat.execution.workers.output import OutputPipe
from preheat.execution.workers.runtimes import Launch, Unstartable, carries
from preheat.execution.workers.sockets import SocketPipe, listen
from preheat.execution.workers.zygote import NurseryLink, Zygote

PRELOADED = ("boto3", "botocore", "s3transfer", "urllib3", "jmespath", "dateutil", "six", "numpy")
EMPTY_RUNTIME_BYTES = 36 * 1024 * 1024
PAGE = os.sysconf("SC_PAGESIZE")
SIGNALLED = 128
"""Bubblewrap's exit status for a program that a signal ended is this plus the signal's number."""


class ProcessWorker:
    """One process. Implements `contract.Worker` and the session's `RuntimeEvents`."""

    stands = False

    def __init__(self, loop: Any, name: str, listener: Listener) -> None:
        self.name = name
        self.pid = 0
        self._loop = loop
        self._listener = listener
        self._session = RuntimeSession(self)
        self._pipes: list[SocketPipe] = []
        self._server: socket.socket | None = None
        self.crowded: Callable[[], bool] = _never
        self._output: OutputPipe | None = None
        self._statm = -1
        self._baseline: int | None = None
        self._started = False
        self._initialised = False
        self._dead = False
        self._paused = False
        self._zygote: NurseryLink | None = None
        self._held: list[int] = []
        self._stay: Stay | None = None
        self._crew: Crew | None = None

    def surround(self, crew: Crew) -> None:
        """With extensions. Before `spawn`."""
        self._crew = crew
        self._session.others = crew.connect()

    def spawn(self, zygote: NurseryLink, plan: WorkerPlan, launch: Launch, stay: Stay) -> None:
        """Start the process `launch` describes. Raises OSError when descriptors run out."""
        spec = plan.spec
        self._stay = stay
        self._session.restorable = spec.snap_start
        variables = {**plan.variables, **launch.variables}
        descriptors = self._open(launch, variables)
        self._output = OutputPipe(self._loop, self._wrote, _nothing, self.crowded)
        descriptors.append(self._output.writing)
        command = {
            "argv": launch.argv,
            "path": [*launch.path, *(str(layer) for layer in spec.layers)] if launch.argv else launch.path,
            "directory": str(spec.code),
            "scratch": str(plan.scratch or ""),
            "environment": variables,
            "handler": spec.handler,
            "runtime": spec.runtime,
            "fresh": spec.watch,
            "snapshot": self.stands and launch.argv is None,
            "memory_bytes": spec.memory_mb * 1024 * 1024,
            "file_bytes": spec.ephemeral_mb * 1024 * 1024,
        }
        self._own = launch.argv is None
        self._enclosed = launch.enclosed
        self._zygote = zygote
        if self._crew is None:
            zygote.fork(self.name, {**command, "view": stay.view}, descriptors, self._reported)
        else:
            self._held = descriptors
            self._crew.start(variables, lambda: self._fork({**command, "view": stay.view}))

    def _fork(self, command: dict[str, Any]) -> None:
        descriptors, self._held = self._held, []
        self._zygote.fork(self.name, command, descriptors, self._reported)

    def _open(self, launch: Launch, variables: dict[str, str]) -> list[int]:
        """The way to the runtime: the descriptors that the process inherits, besides the listener."""
        self._serve(variables)
        if launch.argv is not None:
            return []
        ours, theirs = socket.socketpair()
        self._connect(ours, ChannelConnection)
        return [theirs.detach()]

    def _serve(self, variables: dict[str, str]) -> None:
        """Listen at AWS_LAMBDA_RUNTIME_API: for runtimes that are no channel's, and for extensions, internal ones too,
        of which nothing is known beforehand. It takes 19 us."""
        self._server = listen()
        variables["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._loop.add_reader(self._server.fileno(), self._accept)

    # -- contract.Worker ------------------------------------------------------------------------------------------

    def invoke(self, request: WorkRequest) -> None:
        self._session.offer(request)

    def kill(self, reason: str) -> None:
        if not self._dead and self._zygote is not None:
            if self._stay is not None:
                self._stay.initialised()
            if self._crew is None or not self._crew.end(reason):
                self._zygote.kill(self.name)

    def collect_output(self) -> None:
        if self._output is not None:
            self._output.collect()

    def memory_bytes(self) -> int:
        """Preheat's runtime: an empty runtime's memory plus the anonymous pages added since the fork, so that what the
        zygote preloaded is not charged. Other runtimes: the resident set. What it has started is added."""
        if self._statm < 0:
            return 0
        try:
            fields = os.pread(self._statm, 128, 0).split()
        except OSError:
            return 0
        anonymous = (int(fields[1]) - int(fields[2])) * PAGE
        own = int(fields[1]) * PAGE
        if self._baseline is not None:
            anonymous = max(0, anonymous - self._baseline)
            own = EMPTY_RUNTIME_BYTES + anonymous
        return own if self._stay is None else own + self._stay.others_bytes(anonymous, self._loop.time())

    def pause(self) -> None:
        self._paused = True
        for pipe in self._pipes:
            pipe.pause()

    def resume(self) -> None:
        self._paused = False
        for pipe in self._pipes:
            pipe.resume()

    # -- runtime_api.RuntimeEvents --------------------------------------------------------------------------------

    def next_asked(self) -> None:
        self._begin()
        if not self._initialised and self._stay is not None:
            self._initialised = True
            self._stay.initialised(ready=True)
            if self.stands:
                self._stay.stand()
            else:
                self._stay.settle()
        if self._crew is None or self._crew.asks():
            self._listener.ready(self)
        else:
            self._listener.runtime_done(self)

    def restore_asked(self) -> bool:
        self._begin()
        return True

    def init_error(self, error_type: str, body: bytes) -> None:
        self._begin()
        self._listener.init_failed(self, error_type, body)

    def stream_begun(self, content_type: str) -> None:
        self._listener.stream_begun(self, content_type)

    def chunk(self, data: bytes) -> None:
        self._listener.chunk(self, data)

    def answered(self, answer: Answer) -> None:
        self._listener.answered(self, answer)

    # -- extensions.crew.Hands ------------------------------------------------------------------------------------

    def begun(self) -> None:
        self._begin()

    def settled(self) -> None:
        self._listener.ready(self)

    def at_fault(self, error_type: str) -> None:
        if self._initialised:
            self.orphaned(Exit(status=1))
        else:
            self._listener.init_failed(self, error_type, b"")

    def orphaned(self, exit: Exit) -> None:
        self.collect_output()
        starved = self._stay is not None and self._stay.starved
        self._listener.crashed(self, replace(exit, out_of_memory=True) if starved else exit)

    def stop_runtime(self, gently: bool) -> None:
        if self._zygote is not None:
            self._zygote.kill(self.name, gently)

    def finished(self, exit: Exit) -> None:
        self._end(exit)

    # -- the process ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._started and not self._dead:
            self._started = True
            self._listener.started(self)

    def _reported(self, message: dict[str, Any]) -> None:
        if "up" in message:
            self.pid = message["pid"]
            if self._own and self._baseline is None:
                self._baseline = message["anonymous"]
            with contextlib.suppress(OSError):
                self._statm = os.open(f"/proc/{self.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
            if self._stay is not None:
                self._stay.begin(self.pid)
            self._begin()
        elif "down" in message:
            status, peak = message["status"], message.get("peak", 0)
            if self._own:
                peak = max(EMPTY_RUNTIME_BYTES, peak - (self._baseline or 0))
            code = os.waitstatus_to_exitcode(status)
            if self._enclosed and code > SIGNALLED:
                code = SIGNALLED - code
            self._end(Exit(signal=-code, peak_bytes=peak) if code < 0 else Exit(status=code, peak_bytes=peak))
        else:
            self._end(Exit(reason=message["error"]))

    def _end(self, exit: Exit) -> None:
        if self._dead:
            return
        for pipe in list(self._pipes):
            pipe.collect()
        if self._crew is not None and self._crew.outlives(exit):
            return
        self._dead = True
        if self._stay is not None and self._stay.end():
            exit = replace(exit, out_of_memory=True)
        self.collect_output()
        self.release()
        self._listener.died(self, exit)

    def release(self) -> None:
        """Close every descriptor."""
        self._dead = True
        if self._crew is not None:
            self._crew.close()
        for descriptor in self._held:
            os.close(descriptor)
        self._held = []
        for pipe in self._pipes:
            pipe.abort()
        self._pipes.clear()
        if self._server is not None:
            self._loop.remove_reader(self._server.fileno())
            self._server.close()
            self._server = None
        if self._output is not None:
            self._output.close()
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def _wrote(self, data: bytes) -> None:
        self._listener.output(self, data)

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connect(connection, RuntimeConnection)

    def _connect(self, connection: socket.socket, protocol: type[ChannelConnection | RuntimeConnection]) -> None:
        pipe = SocketPipe(self._loop, connection)
        pipe.on_data = protocol(self._session, pipe.write, pipe.close).feed
        self._pipes = [*(known for known in self._pipes if not known.closed), pipe]
        if self._paused:
            pipe.pause()


class SnapshotWorker(ProcessWorker):
    """A process that initialises a SnapStart function and then stands, to be forked (`contract.Mould`). A program that
    cannot be forked goes as far as /runtime/restore/next, or its first /next, and is of no further use."""

    stands = True

    def __init__(self, loop: Any, name: str, listener: Listener) -> None:
        super().__init__(loop, name, listener)
        self.forkable = False
        self.threads: tuple[str, ...] = ()
        self._link: NurseryLink | None = None

    def _open(self, launch: Launch, variables: dict[str, str]) -> list[int]:
        if launch.argv is not None:
            return super()._open(launch, variables)
        self._serve(variables)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link = NurseryLink(self._loop, ours)
        self._link.on_own = self._told
        self._link.on_end = self._lost
        return [theirs.detach()]

    def restore_asked(self) -> bool:
        self.next_asked()
        return False

    def fork(self, worker: ProcessWorker, plan: WorkerPlan, launch: Launch, stay: Stay) -> None:
        """Start `worker` as a copy. Raises OSError."""
        if self._link is None:
            raise OSError("there is nothing to fork from")
        worker._baseline = self._baseline
        worker.spawn(self._link, plan, launch, stay)

    def leave(self) -> None:
        if self._link is not None:
            self._link.leave()
        else:
            self.kill("leave")

    def release(self) -> None:
        super().release()
        if self._link is not None:
            self._link.release()

    def _end(self, exit: Exit) -> None:
        link = self._link
        if link is not None and not self._dead:
            link.on_end = lambda: ProcessWorker._end(self, exit)
            link.died()
        super()._end(exit)

    def _lost(self) -> None:
        """A standing one has died, and its copies with it; one that only began will be reported by the zygote."""
        if self.forkable:
            self._end(Exit(signal=signal.SIGKILL))

    def _told(self, message: dict[str, Any]) -> None:
        if "standing" in message:
            self.threads = tuple(message["standing"]["threads"])
            self.forkable = True
            self.next_asked()
        else:
            self.init_error(message["failed"], json.dumps(message["document"]).encode())


class FailedWorker:
    """A worker for a function that cannot run here: reports why, and dies."""

    forkable = False
    threads: tuple[str, ...] = ()

    def __init__(self, loop: Any, listener: Listener, error: Unstartable | OSError) -> None:
        self._listener = listener
        self._error = error
        loop.call_soon(self._report)

    def _report(self) -> None:
        error = self._error
        self._listener.started(self)
        if isinstance(error, Unstartable):
            self._listener.init_failed(self, error.error_type, error.body)
            self._listener.died(self, Exit(status=1))
        else:
            self._listener.died(self, Exit(reason=str(error)))

    def invoke(self, request: WorkRequest) -> None:
        raise RuntimeError("a worker that never was ready")

    def kill(self, reason: str) -> None:
        return

    def leave(self) -> None:
        return

    def collect_output(self) -> None:
        return

    def memory_bytes(self) -> int:
        return 0

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return


class ProcessWorkerFactory:
    """Starts processes through zygotes, for each Python interpreter a warm one (boto3 and numpy preloaded), and a plain
    one for functions that bring packages of those names and for programs. `tools`: a directory that may hold Node's
    runtime client; while `crowded()` no output of functions is read, and they wait in their writing."""

    def __init__(
        self,
        loop: Any,
        on_notice: Callable[[str], None],
        tools: Path | None = None,
        housing: Housing | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.housing = housing or Housing()
        self.housing.tell = on_notice
        self._loop = loop
        self._tell = on_notice
        self._told: set[str] = set()
        self._tools = tools
        self._crowded = crowded
        self._zygotes: dict[tuple[str | None, bool], Zygote] = {}
        self._workers: set[ProcessWorker] = set()
        self._count = 0
        self._closed = False

    def start(self, plan: WorkerPlan, listener: Listener, mould: Mould | None = None) -> Worker:
        return self._start(plan, listener, ProcessWorker, mould)

    def snapshot(self, plan: WorkerPlan, listener: Listener) -> Mould:
        return self._start(plan, listener, SnapshotWorker)

    def warm(self) -> None:
        """Start the warm zygote now, so that the first function finds it loaded."""
        self._zygote(None, True)

    def close(self) -> None:
        self._closed = True
        for zygote in self._zygotes.values():
            zygote.close()
        workers, self._workers = self._workers, set()
        for worker in workers:
            worker.release()
        self.housing.close()

    def forget(self, scratch: Path) -> None:
        self.housing.forget(scratch)

    def pids(self) -> list[int]:
        """The processes of this factory that are alive: zygotes and workers."""
        return [z.pid for z in self._zygotes.values() if z.alive] + [w.pid for w in self._workers if w.pid]

    def _start(
        self, plan: WorkerPlan, listener: Listener, kind: type[ProcessWorker], mould: Mould | None = None
    ) -> Any:
        try:
            if plan.scratch is not None:
                plan.scratch.mkdir(parents=True, exist_ok=True)
            launch = self.housing.launch(plan, self._tools)
        except (Unstartable, OSError) as error:
            return FailedWorker(self._loop, listener, error)
        self._count += 1
        worker = kind(self._loop, str(self._count), _Forgetting(listener, self._workers))
        worker.crowded = self._crowded
        self.remark(plan.spec.runtime)
        preload = launch.argv is None and not carries(plan.spec, PRELOADED)
        restored = isinstance(mould, SnapshotWorker) and mould.forkable
        try:
            stay = Stay(self.housing, plan, launch, worker.name)
            zygote = self._zygote(launch.interpreter, preload)
            if plan.extensions is not None:
                worker.surround(Crew(self._loop, worker, plan, launch, stay, zygote, restored, kind.stands))
            if restored:
                mould.fork(worker, plan, launch, stay)
            else:
                worker.spawn(zygote, plan, launch, stay)
        except OSError as error:
            worker.release()
            return FailedWorker(self._loop, listener, error)
        self._workers.add(worker)
        return worker

    def _zygote(self, interpreter: str | None, preload: bool) -> Zygote:
        zygote = self._zygotes.get((interpreter, preload))
        if zygote is None or not zygote.alive:
            zygote = self._zygotes[interpreter, preload] = Zygote(self._loop, preload, interpreter)
        return zygote

    def remark(self, runtime: str) -> str | None:
        text = self.housing.interpreters.remark(runtime)
        if text is not None and text not in self._told:
            self._told.add(text)
            self._tell(text)
        return text


def _never() -> bool:
    return False


def _nothing() -> None:
    return


class _Forgetting:
    """Passes every event on, and takes the dead worker out of the factory's books."""

    def __init__(self, listener: Listener, workers: set[ProcessWorker]) -> None:
        self.started = listener.started
        self.ready = listener.ready
        self.init_failed = listener.init_failed
        self.stream_begun = listener.stream_begun
        self.chunk = listener.chunk
        self.answered = listener.answered
        self.runtime_done = listener.runtime_done
        self.crashed = listener.crashed
        self.output = listener.output
        self._died = listener.died
        self._workers = workers

    def died(self, worker: Worker, exit: Exit) -> None:
        self._workers.discard(worker)
        self._died(worker, exit)

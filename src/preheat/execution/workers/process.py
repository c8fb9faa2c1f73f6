"""Workers that are real processes, forked by a zygote, on an event loop that offers add_reader and add_writer.

Preheat's Python runtime talks over an inherited socket pair: the connection is the identity. Other runtimes find a
TCP listener of their own at AWS_LAMBDA_RUNTIME_API. Standard output and error share one pipe, so their order is kept.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.execution.runtime_api import RuntimeConnection, RuntimeSession
from preheat.execution.workers.contract import Answer, Exit, Listener, Worker, WorkerPlan, WorkRequest
from preheat.execution.workers.runtimes import Launch, Unstartable, carries, plan_launch
from preheat.execution.workers.zygote import Zygote

PRELOADED = ("boto3", "botocore", "s3transfer", "urllib3", "jmespath", "dateutil", "six", "numpy")
READ_BYTES = 262_144
OUTPUT_READS = 64
EMPTY_RUNTIME_BYTES = 36 * 1024 * 1024
PAGE = os.sysconf("SC_PAGESIZE")


class SocketPipe:
    """A stream socket on the loop: what arrives goes to `on_data`, what is written leaves at once if it can."""

    def __init__(self, loop: Any, connection: socket.socket, on_data: Callable[[bytes], None]) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._socket = connection
        self._fd = connection.fileno()
        self._on_data = on_data
        self._unsent = b""
        self._closing = False
        self.closed = False
        self._reading = False
        self.resume()

    def resume(self) -> None:
        if not self._reading and not self.closed:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def write(self, data: bytes) -> None:
        if self.closed:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._fd, self._writable)

    def close(self) -> None:
        """Once everything written has left."""
        self._closing = True
        if not self._unsent:
            self.abort()

    def abort(self) -> None:
        if self.closed:
            return
        self.pause()
        if self._unsent:
            self._unsent = b""
            self._loop.remove_writer(self._fd)
        self.closed = True
        self._socket.close()

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self.abort()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_data(data)
        else:
            self.abort()


class ProcessWorker:
    """One process. Implements `contract.Worker` and the session's `RuntimeEvents`."""

    def __init__(self, loop: Any, name: str, listener: Listener) -> None:
        self.name = name
        self.pid = 0
        self._loop = loop
        self._listener = listener
        self._session = RuntimeSession(self)
        self._pipes: list[SocketPipe] = []
        self._server: socket.socket | None = None
        self._output = -1
        self._statm = -1
        self._baseline: int | None = None
        self._started = False
        self._dead = False
        self._paused = False
        self._zygote: Zygote | None = None

    def spawn(self, zygote: Zygote, plan: WorkerPlan, launch: Launch) -> None:
        """Start the process `launch` describes. Raises OSError when descriptors run out."""
        spec = plan.spec
        variables = {**plan.variables, **launch.variables}
        descriptors = []
        if launch.argv is None:
            ours, theirs = socket.socketpair()
            descriptors.append(theirs.detach())
            self._connect(ours)
        else:
            self._server = _listen()
            variables["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self._server.getsockname()[1]}"
            self._loop.add_reader(self._server.fileno(), self._accept)
        self._output, writing = os.pipe()
        os.set_blocking(self._output, False)
        descriptors.append(writing)
        self._loop.add_reader(self._output, self._output_ready)
        command = {
            "argv": launch.argv,
            "path": [*launch.path, *(str(layer) for layer in spec.layers)] if launch.argv else launch.path,
            "directory": str(spec.code),
            "scratch": str(plan.scratch or ""),
            "environment": variables,
            "handler": spec.handler,
            "runtime": spec.runtime,
            "fresh": spec.watch,
            "memory_bytes": spec.memory_mb * 1024 * 1024,
            "file_bytes": spec.ephemeral_mb * 1024 * 1024,
        }
        self._own = launch.argv is None
        self._zygote = zygote
        zygote.fork(self.name, command, descriptors, self._reported)

    # -- contract.Worker ------------------------------------------------------------------------------------------

    def invoke(self, request: WorkRequest) -> None:
        self._session.offer(request)

    def kill(self, reason: str) -> None:
        if not self._dead and self._zygote is not None:
            self._zygote.kill(self.name)

    def collect_output(self) -> None:
        for _ in range(OUTPUT_READS):
            if self._output < 0:
                return
            try:
                data = os.read(self._output, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close_output()
                return
            self._listener.output(self, data)

    def memory_bytes(self) -> int:
        """Preheat's runtime: an empty runtime's memory plus the anonymous pages added since the fork, so that what the
        zygote preloaded is not charged. Other runtimes: the resident set."""
        if self._statm < 0:
            return 0
        try:
            fields = os.pread(self._statm, 128, 0).split()
        except OSError:
            return 0
        if self._baseline is None:
            return int(fields[1]) * PAGE
        added = (int(fields[1]) - int(fields[2])) * PAGE - self._baseline
        return EMPTY_RUNTIME_BYTES + max(0, added)

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
        self._listener.ready(self)

    def init_error(self, error_type: str, body: bytes) -> None:
        self._begin()
        self._listener.init_failed(self, error_type, body)

    def stream_begun(self, content_type: str) -> None:
        self._listener.stream_begun(self, content_type)

    def chunk(self, data: bytes) -> None:
        self._listener.chunk(self, data)

    def answered(self, answer: Answer) -> None:
        self._listener.answered(self, answer)

    # -- the process ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._started and not self._dead:
            self._started = True
            self._listener.started(self)

    def _reported(self, message: dict[str, Any]) -> None:
        if "up" in message:
            self.pid = message["pid"]
            if self._own:
                self._baseline = message["anonymous"]
            with contextlib.suppress(OSError):
                self._statm = os.open(f"/proc/{self.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
            self._begin()
        elif "down" in message:
            status = message["status"]
            if os.WIFSIGNALED(status):
                self._end(Exit(signal=os.WTERMSIG(status)))
            else:
                self._end(Exit(status=os.WEXITSTATUS(status)))
        else:
            self._end(Exit(reason=message["error"]))

    def _end(self, exit: Exit) -> None:
        if self._dead:
            return
        self._dead = True
        self.collect_output()
        self.release()
        self._listener.died(self, exit)

    def release(self) -> None:
        """Close every descriptor."""
        self._dead = True
        for pipe in self._pipes:
            pipe.abort()
        self._pipes.clear()
        if self._server is not None:
            self._loop.remove_reader(self._server.fileno())
            self._server.close()
            self._server = None
        self._close_output()
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def _output_ready(self) -> None:
        self.collect_output()

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.remove_reader(self._output)
            os.close(self._output)
            self._output = -1

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connect(connection)

    def _connect(self, connection: socket.socket) -> None:
        pipe = SocketPipe(self._loop, connection, lambda data: http.feed(data))
        http = RuntimeConnection(self._session, pipe.write, pipe.close)
        self._pipes = [*(known for known in self._pipes if not known.closed), pipe]
        if self._paused:
            pipe.pause()


class FailedWorker:
    """A worker for a function that cannot run here: reports why, and dies."""

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

    def collect_output(self) -> None:
        return

    def memory_bytes(self) -> int:
        return 0

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return


class ProcessWorkerFactory:
    """Starts processes through two zygotes: a warm one (boto3 and numpy preloaded), and a plain one for functions that
    bring packages of those names and for programs. `tools`: a directory that may hold Node's runtime client."""

    def __init__(self, loop: Any, on_notice: Callable[[str], None], tools: Path | None = None) -> None:
        self._loop = loop
        self._tell = on_notice
        self._told: set[str] = set()
        self._tools = tools
        self._zygotes: dict[bool, Zygote] = {}
        self._workers: set[ProcessWorker] = set()
        self._count = 0
        self._closed = False

    def start(self, plan: WorkerPlan, listener: Listener) -> Worker:
        try:
            launch = plan_launch(plan.spec, self._tools, self._notice)
        except Unstartable as error:
            return FailedWorker(self._loop, listener, error)
        self._count += 1
        worker = ProcessWorker(self._loop, str(self._count), _Forgetting(listener, self._workers))
        preload = launch.argv is None and not carries(plan.spec, PRELOADED)
        try:
            worker.spawn(self._zygote(preload), plan, launch)
        except OSError as error:
            worker.release()
            return FailedWorker(self._loop, listener, error)
        self._workers.add(worker)
        return worker

    def warm(self) -> None:
        """Start the warm zygote now, so that the first function finds it loaded."""
        self._zygote(True)

    def close(self) -> None:
        self._closed = True
        for zygote in self._zygotes.values():
            zygote.close()
        for worker in self._workers:
            worker.release()
        self._workers.clear()

    def pids(self) -> list[int]:
        """The processes of this factory that are alive: zygotes and workers."""
        return [z.pid for z in self._zygotes.values() if z.alive] + [w.pid for w in self._workers if w.pid]

    def _zygote(self, preload: bool) -> Zygote:
        zygote = self._zygotes.get(preload)
        if zygote is None or not zygote.alive:
            zygote = self._zygotes[preload] = Zygote(self._loop, preload)
        return zygote

    def _notice(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)


class _Forgetting:
    """Passes every event on, and takes the dead worker out of the factory's books."""

    def __init__(self, listener: Listener, workers: set[ProcessWorker]) -> None:
        self.started = listener.started
        self.ready = listener.ready
        self.init_failed = listener.init_failed
        self.stream_begun = listener.stream_begun
        self.chunk = listener.chunk
        self.answered = listener.answered
        self.output = listener.output
        self._died = listener.died
        self._workers = workers

    def died(self, worker: Worker, exit: Exit) -> None:
        self._workers.discard(worker)
        self._died(worker, exit)


def _listen() -> socket.socket:
    server = socket.socket()
    server.setblocking(False)
    server.bind(("127.0.0.1", 0))
    server.listen(16)
    return server

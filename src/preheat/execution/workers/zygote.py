"""The server's end of the nurseries: sends commands, hands out what they report. The zygotes are started here."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from preheat.execution.workers.runtimes import SOURCE_ROOT, START

CLOSING_S = 5.0
SEND_BUFFER = 4 * 1024 * 1024
BUNDLE = ("boto3", "botocore", "s3transfer", "urllib3", "jmespath", "dateutil", "six")

Report = Callable[[dict[str, Any]], None]


class NurseryLink:
    """The control socket of one nursery. `fork` and `kill` never block; `report` of a fork gets {"up"...},
    {"down"...} or {"refused"...}. When the nursery dies every child is reported down by SIGKILL: they die with it.
    What is no child's goes to `on_own`."""

    def __init__(self, loop: Any, control: socket.socket) -> None:
        self._loop = loop
        self._reports: dict[str, Report] = {}
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        control.setblocking(False)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._control = control
        self.alive = True
        self.on_own: Report = lambda message: None
        self.on_end: Callable[[], None] = lambda: None
        loop.add_reader(control.fileno(), self._receive)

    @property
    def children(self) -> int:
        return len(self._reports)

    def fork(self, name: str, command: dict[str, Any], descriptors: list[int], report: Report) -> None:
        """`descriptors` are this call's to close. Raises OSError when the nursery has died."""
        if not self.alive:
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError("the process to fork from is gone")
        self._reports[name] = report
        self._send({"fork": name, **command}, descriptors)

    def kill(self, name: str, gently: bool = False) -> None:
        """`gently`: ask the process to end (SIGTERM)."""
        if self.alive:
            self._send({"kill": name, "gently": gently}, [])

    def leave(self) -> None:
        """Have the nursery end with the last of its children."""
        if self.alive:
            self._send({"leave": True}, [])

    def release(self) -> None:
        """Let go of it; it kills its children and ends."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        for _, descriptors in self._queue:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._queue.clear()

    def died(self) -> None:
        """It has ended, whether its socket says so or not: a child that has only begun may still hold the other end,
        and libuv stops watching a socket whose peer has gone with something unread."""
        self._receive()
        self._lost()

    def forget(self) -> None:
        """Report nothing any more."""
        self._reports.clear()

    def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        self._queue.append((json.dumps(message).encode(), descriptors))
        if len(self._queue) == 1:
            self._drain()

    def _drain(self) -> None:
        queue = self._queue
        while queue and self.alive:
            data, descriptors = queue[0]
            try:
                socket.send_fds(self._control, [data], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._drain)
                return
            except OSError:
                self._loop.call_soon(self._lost)
                return
            queue.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        if self.alive:
            self._loop.remove_writer(self._control.fileno())

    def _receive(self) -> None:
        while self.alive:
            try:
                data = self._control.recv(65_536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            message = json.loads(data)
            kind, name = next(iter(message.items()))
            if kind == "up":
                report = self._reports.get(name)
            elif kind in ("down", "refused"):
                report = self._reports.pop(name, None)
            else:
                report = self.on_own
            if report is not None:
                report(message)

    def _lost(self) -> None:
        if not self.alive:
            return
        self.release()
        self.ended()
        reports, self._reports = self._reports, {}
        for name, report in reports.items():
            report({"down": name, "status": int(signal.SIGKILL)})

    def ended(self) -> None:
        """The nursery is gone, its children are about to be reported."""
        self.on_end()


class Zygote(NurseryLink):
    """One zygote process. `interpreter` is the path of another Python than Preheat's; it is lent the AWS SDK."""

    def __init__(self, loop: Any, preload: bool, interpreter: str | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        site = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        settings = {
            "root": str(SOURCE_ROOT), "site": [] if interpreter else site, "lent": site if interpreter else [],
            "bundle": BUNDLE, "preload": preload, "roots": [sys.prefix],
        }  # fmt: skip
        environment = {"OPENBLAS_NUM_THREADS": "1", "HOME": "/nonexistent", "LANG": "C.UTF-8", "PATH": os.defpath}
        python = interpreter or sys.executable
        with theirs:
            self._process = subprocess.Popen(
                [python, "-I", "-S", str(START), "zygote", str(theirs.fileno()), json.dumps(settings)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd="/",
            )
        super().__init__(loop, ours)
        self._end = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else -1
        if self._end >= 0:
            loop.add_reader(self._end, self.died)

    @property
    def pid(self) -> int:
        return self._process.pid

    def release(self) -> None:
        super().release()
        if self._end >= 0:
            self._loop.remove_reader(self._end)
            os.close(self._end)
            self._end = -1

    def ended(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and every child; returns when they are gone."""
        self.release()
        self.forget()
        try:
            self._process.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

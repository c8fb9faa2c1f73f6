"""The server's end of the zygotes: starts them when first needed, sends commands, hands out what they report."""

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

Report = Callable[[dict[str, Any]], None]


class Zygote:
    """One zygote process. `fork` and `kill` never block; `report` of a fork gets {"up"...}, {"down"...} or
    {"refused"...}. When the zygote dies every child is reported down by SIGKILL: they die with it."""

    def __init__(self, loop: Any, preload: bool) -> None:
        self._loop = loop
        self._reports: dict[str, Report] = {}
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._control = ours
        site = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        settings = {"root": str(SOURCE_ROOT), "site": site, "preload": preload}
        environment = {"OPENBLAS_NUM_THREADS": "1", "HOME": "/nonexistent", "LANG": "C.UTF-8", "PATH": os.defpath}
        with theirs:
            command = [sys.executable, "-I", "-S", str(START), "zygote", str(theirs.fileno()), json.dumps(settings)]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd="/",
            )
        self.alive = True
        loop.add_reader(ours.fileno(), self._receive)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, name: str, command: dict[str, Any], descriptors: list[int], report: Report) -> None:
        """`descriptors` are this call's to close."""
        self._reports[name] = report
        self._send({"fork": name, **command}, descriptors)

    def kill(self, name: str) -> None:
        self._send({"kill": name}, [])

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
            report = self._reports.get(name) if kind == "up" else self._reports.pop(name, None)
            if report is not None:
                report(message)

    def _lost(self) -> None:
        if not self.alive:
            return
        self._release()
        self._process.kill()
        self._process.wait()
        reports, self._reports = self._reports, {}
        for name, report in reports.items():
            report({"down": name, "status": int(signal.SIGKILL)})

    def _release(self) -> None:
        self.alive = False
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        for _, descriptors in self._queue:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._queue.clear()

    def close(self) -> None:
        """End it and every child; returns when they are gone."""
        if self.alive:
            self._release()
        self._reports.clear()
        try:
            self._process.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

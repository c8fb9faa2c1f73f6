"""Brings telemetry to a subscriber's port on this machine, without ever waiting: `telemetry.Carrier` over sockets.

HTTP batches are answered with a status below 300; anything else, or nobody at the port, is tried again, a little later
each time. TCP subscribers get a line of JSON for each event; nothing is acknowledged, so what a broken connection held
is lost.
"""

import re
import socket
from collections.abc import Callable
from typing import Any

from preheat.execution.extensions.telemetry import Destination

PAUSES_S = (0.05, 0.1, 0.2, 0.4)
ANSWER_S = 5.0
READ_BYTES = 65_536
MAX_HEAD_BYTES = 65_536
HOST = "sandbox.localdomain"


class SocketCarrier:
    """On an event loop with add_reader, add_writer and call_later."""

    def __init__(self, loop: Any, destination: Destination) -> None:
        self._loop = loop
        self._destination = destination
        self._socket: socket.socket | None = None
        self._unsent = memoryview(b"")
        self._received = b""
        self._message = b""
        self._attempt = 0
        self._done: Callable[[bool], None] = lambda taken: None
        self._timer: Any = None
        self._writing = False

    def send(self, events: list[bytes], done: Callable[[bool], None]) -> None:
        self._message = self._format(events)
        self._done = done
        self._attempt = 0
        self._later(0.0, self._begin)

    def close(self) -> None:
        self._done = lambda taken: None
        self._disarm()
        self._drop()

    def _format(self, events: list[bytes]) -> bytes:
        to = self._destination
        if to.tcp:
            return b"".join(event + b"\n" for event in events)
        body = b"[" + b",".join(events) + b"]"
        head = (
            f"{to.method} {to.path} HTTP/1.1\r\nHost: {HOST}:{to.port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _begin(self) -> None:
        self._disarm()
        self._received = b""
        self._unsent = memoryview(self._message)
        try:
            if self._socket is None:
                self._socket = socket.socket()
                self._socket.setblocking(False)
                self._socket.connect_ex(("127.0.0.1", self._destination.port))
                self._loop.add_reader(self._socket.fileno(), self._readable)
        except OSError:
            self._fail()
            return
        self._writing = True
        self._loop.add_writer(self._socket.fileno(), self._writable)
        self._later(ANSWER_S, self._fail)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent[:READ_BYTES])
        except BlockingIOError:
            return
        except OSError:
            self._fail()
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._stop_writing()
            if self._destination.tcp:
                self._finish(True)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if self._timer is None:
                self._drop()
            else:
                self._fail()
            return
        if self._destination.tcp:
            return
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            if len(self._received) > MAX_HEAD_BYTES:
                self._fail()
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length is not None and len(body) < int(length[1]):
            return
        status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if length is None or b"connection: close" in head.lower() or head.startswith(b"HTTP/1.0"):
            self._drop()
        if status is not None and int(status[1]) < 300:
            self._finish(True)
        else:
            self._fail()

    def _fail(self) -> None:
        self._disarm()
        self._drop()
        if self._attempt < len(PAUSES_S):
            self._later(PAUSES_S[self._attempt], self._begin)
            self._attempt += 1
        else:
            self._finish(False)

    def _finish(self, taken: bool) -> None:
        self._disarm()
        done, self._done = self._done, lambda taken: None
        done(taken)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(delay_s, action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_writing(self) -> None:
        if self._writing and self._socket is not None:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _drop(self) -> None:
        if self._socket is not None:
            self._stop_writing()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

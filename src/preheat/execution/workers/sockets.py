"""Sockets on the event loop: one connection's bytes in and out, and listeners on this machine."""

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

READ_BYTES = 65_536


class SocketPipe:
    """A stream socket on the loop: what arrives goes to `on_data`, what is written leaves at once if it can."""

    def __init__(self, loop: Any, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.on_data: Callable[[bytes], None] = lambda data: None
        self._loop = loop
        self._socket = connection
        self._fd = connection.fileno()
        self._unsent: deque[memoryview] = deque()
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
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
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
            self._unsent.clear()
            self._loop.remove_writer(self._fd)
        self.closed = True
        self._socket.close()

    def _writable(self) -> None:
        unsent = self._unsent
        try:
            sent = self._socket.send(unsent[0])
        except BlockingIOError:
            return
        except OSError:
            sent = len(unsent[0])
        if sent < len(unsent[0]):
            unsent[0] = unsent[0][sent:]
            return
        unsent.popleft()
        if not unsent:
            self._loop.remove_writer(self._fd)
            if self._closing:
                self.abort()

    def collect(self) -> None:
        """Hand on what has arrived: the last words of a process that has died."""
        while not self.closed and self._readable():
            pass

    def _readable(self) -> bool:
        """False when there was nothing to read."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self.on_data(data)
        else:
            self.abort()
        return True


def listen() -> socket.socket:
    """On a free port of 127.0.0.1."""
    server = socket.socket()
    server.setblocking(False)
    server.bind(("127.0.0.1", 0))
    server.listen(16)
    return server

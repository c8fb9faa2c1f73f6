"""A WebSocket client on a blocking socket and wsproto: what a browser does, and what no browser would do."""

import json
import socket
import ssl
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

DEADLINE_S = 90.0


class Refused(Exception):
    """The handshake was answered with an HTTP status: (status, headers, body)."""


class Client:
    """`path` as in ws://localhost:port/path; with `tls` as in wss://. Raises Refused."""

    def __init__(
        self, port: int, path: str, host: str = "localhost", protocols: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None, **headers: str,
    ):  # fmt: skip
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.frames = WSConnection(ConnectionType.CLIENT)
        more = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.socket.sendall(
            self.frames.send(Request(f"{host}:{port}", path, subprotocols=list(protocols), extra_headers=more))
        )
        self._events: list[Any] = []
        self.closed: tuple[int, str] | None = None
        first = self._next()
        if isinstance(first, RejectConnection):
            body = b""
            while first.has_body and not (isinstance(event := self._next(), RejectData) and event.body_finished):
                body += event.data
            self.socket.close()
            raise Refused(first.status_code, dict(first.headers), body + (event.data if first.has_body else b""))
        assert isinstance(first, AcceptConnection), first
        self.subprotocol = first.subprotocol

    def _next(self) -> Any:
        while not self._events:
            data = self.socket.recv(65_536)
            self.frames.receive_data(data or None)
            self._events.extend(self.frames.events())
        return self._events.pop(0)

    def send(self, message: Any) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        self.socket.sendall(self.frames.send(TextMessage(text)))

    def send_frames(self, *parts: str) -> None:
        """One message in several frames."""
        for number, part in enumerate(parts):
            self.socket.sendall(self.frames.send(TextMessage(part, message_finished=number == len(parts) - 1)))

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(self.frames.send(BytesMessage(data)))

    def ping(self) -> bytes:
        self.socket.sendall(self.frames.send(Ping(b"are you there")))
        pong = self._next()
        assert isinstance(pong, Pong), pong
        return bytes(pong.payload)

    def text(self) -> str:
        """The next message."""
        parts = []
        while True:
            event = self._next()
            if isinstance(event, CloseConnection):
                self.closed = (event.code, event.reason or "")
                raise EOFError(self.closed)
            assert isinstance(event, TextMessage), event
            parts.append(event.data)
            if event.message_finished:
                return "".join(parts)

    def json(self) -> Any:
        return json.loads(self.text())

    def end(self) -> tuple[int, str]:
        """(code, reason) of the server's close frame, which must be what comes next."""
        try:
            text = self.text()
        except EOFError:
            self.socket.close()
            return self.closed
        raise AssertionError(f"a message instead of the end: {text}")

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.socket.sendall(self.frames.send(CloseConnection(code, reason)))
        self.end()

    def drop(self) -> None:
        """Go without a word."""
        self.socket.close()

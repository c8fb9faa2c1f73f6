"""Preheat's own channel between the server and its Python runtime, over the socket that the process inherits.

The Lambda Runtime API's exchanges as length-prefixed binary frames (little-endian), so that neither side parses HTTP.
Every answer asks for the next event as well.

    event    EVENT (bytes after this head, deadline in epoch ms, five lengths), then request id, invoked ARN, trace id,
             client context, Cognito identity (empty: none), then the payload
    answer   ANSWER (bytes after this head, kind, length of the name), then the name (a content type or an error type),
             then the body
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from .client import A_COPY, Closed, Event, one_line, to_json

EVENT = struct.Struct("<IQHHIII")
ANSWER = struct.Struct("<IBH")
READY, RESPONSE, TOO_LARGE, ERROR, INIT_ERROR, STREAM, CHUNK, END = range(8)
MAX_BODY_BYTES = 6 * 1024 * 1024 + 100
MAX_CHUNK_BYTES = 65_536
MAX_NAME_BYTES = 4_096
READ_BYTES = 65_536


class ChannelClient:
    """The same methods as `RuntimeClient`, with the same meaning."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._asked = False
        self._pid = os.getpid()

    def next(self) -> Event:
        """Wait for an event. Raises Closed."""
        if not self._asked:
            self._asked = True
            self._send(READY, "")
        data = self._socket.recv(READ_BYTES)
        while len(data) < EVENT.size:
            data += self._more(EVENT.size - len(data))
        length, deadline_ms, *sizes = EVENT.unpack_from(data)
        missing = EVENT.size + length - len(data)
        if missing > 0:
            data = self._rest(data, missing)
        texts = []
        end = EVENT.size
        for size in sizes:
            start, end = end, end + size
            texts.append(data[start:end].decode("utf-8", "replace") if size else "")
        request_id, invoked_arn, trace_id, client_context, cognito_identity = texts
        return Event(request_id, deadline_ms, invoked_arn, data[end:], trace_id, client_context, cognito_identity)

    def respond(self, request_id: str, body: bytes, content_type: str) -> None:
        if len(body) > MAX_BODY_BYTES:
            self._send(TOO_LARGE, content_type)
        else:
            self._send(RESPONSE, content_type, body)

    def fail(self, request_id: str, error_type: str, document: dict[str, Any]) -> None:
        self._send(ERROR, error_type, _bounded(document))

    def fail_init(self, error_type: str, document: dict[str, Any]) -> None:
        self._send(INIT_ERROR, error_type, _bounded(document))

    def restore_next(self) -> None:
        """A process on the channel that is no snapshot's fork goes on at once."""

    def fail_restore(self, error_type: str, document: dict[str, Any]) -> None:
        self.fail_init(error_type, document)

    def begin_stream(self, request_id: str, content_type: str, first: bytes) -> None:
        self._send(STREAM, content_type, first[:MAX_CHUNK_BYTES])
        self.send_chunk(first[MAX_CHUNK_BYTES:])

    def send_chunk(self, data: bytes) -> None:
        if len(data) <= MAX_CHUNK_BYTES:
            if data:
                self._send(CHUNK, "", data)
            return
        for start in range(0, len(data), MAX_CHUNK_BYTES):
            self._send(CHUNK, "", data[start : start + MAX_CHUNK_BYTES])

    def end_stream(self, error_type: str = "", document: dict[str, Any] | None = None) -> None:
        if document is None:
            self._send(END, "")
        else:
            self._send(END, error_type or "Unhandled", _bounded(document))

    def _send(self, kind: int, name: str, body: bytes = b"") -> None:
        if os.getpid() != self._pid:
            raise Closed(A_COPY)
        head = one_line(name).encode("utf-8", "replace")[:MAX_NAME_BYTES]
        head = ANSWER.pack(len(head) + len(body), kind, len(head)) + head
        if len(body) <= MAX_CHUNK_BYTES:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)

    def _more(self, at_most: int) -> bytes:
        data = self._socket.recv(at_most)
        if not data:
            raise Closed("the server closed the channel")
        return data

    def _rest(self, data: bytes, missing: int) -> bytes:
        parts = [data]
        while missing > 0:
            part = self._more(min(missing, 1_048_576))
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def _bounded(document: dict[str, Any]) -> bytes:
    """An error document that is larger than any answer may be counts as none, as over HTTP."""
    body = to_json(document)
    return body if len(body) <= MAX_BODY_BYTES else b""

"""AWS's Lambda Runtime API over one blocking HTTP/1.1 connection: on AWS itself, and below a wrapper script here."""

from __future__ import annotations

import base64
import json
import os
import socket
from typing import Any, NamedTuple

ROOT = "/2018-06-01/runtime/"
NEXT = f"GET {ROOT}invocation/next HTTP/1.1\r\nHost: runtime\r\n\r\n".encode()
RESTORE = f"GET {ROOT}restore/next HTTP/1.1\r\nHost: runtime\r\n\r\n".encode()
A_COPY = "a copy that the handler has forked has nothing to say to Lambda"
STREAM_HEAD = (
    "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n"
    "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n"
)


class Event(NamedTuple):
    """What /next answered. `deadline_ms` is epoch milliseconds; texts that were not sent are empty."""

    request_id: str
    deadline_ms: int
    invoked_arn: str
    body: bytes
    trace_id: str = ""
    client_context: str = ""
    cognito_identity: str = ""
    tenant_id: str = ""


class Closed(Exception):
    """The other side has gone."""


class RuntimeClient:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""
        self._pid = os.getpid()

    def next(self) -> Event:
        """Wait for an event. Raises Closed."""
        self._be_the_original()
        self._socket.sendall(NEXT)
        status, headers, body = self._read()
        if status != 200:
            raise Closed(f"the Runtime API answered {status} to next")
        given = headers.get
        return Event(
            headers["lambda-runtime-aws-request-id"],
            int(headers["lambda-runtime-deadline-ms"]),
            given("lambda-runtime-invoked-function-arn", ""),
            body,
            given("lambda-runtime-trace-id", ""),
            given("lambda-runtime-client-context", ""),
            given("lambda-runtime-cognito-identity", ""),
            given("lambda-runtime-aws-tenant-id", ""),
        )

    def respond(self, request_id: str, body: bytes, content_type: str) -> None:
        self._post(f"invocation/{request_id}/response", body, f"Content-Type: {content_type}\r\n")

    def fail(self, request_id: str, error_type: str, document: dict[str, Any]) -> None:
        self._post(f"invocation/{request_id}/error", to_json(document), _error_headers(error_type))

    def fail_init(self, error_type: str, document: dict[str, Any]) -> None:
        self._post("init/error", to_json(document), _error_headers(error_type))

    def restore_next(self) -> None:
        """Between the snapshot and the restore. Raises Closed."""
        self._socket.sendall(RESTORE)
        if self._read()[0] != 200:
            raise Closed("the Runtime API gave no restore")

    def fail_restore(self, error_type: str, document: dict[str, Any]) -> None:
        self._post("restore/error", to_json(document), _error_headers(error_type))

    def begin_stream(self, request_id: str, content_type: str, first: bytes) -> None:
        """The head and the first chunk leave together."""
        head = (
            f"POST {ROOT}invocation/{request_id}/response HTTP/1.1\r\nHost: runtime\r\n"
            f"Content-Type: {content_type}\r\n{STREAM_HEAD}"
        )
        self._be_the_original()
        self._socket.sendall(head.encode() + _chunk(first))

    def send_chunk(self, data: bytes) -> None:
        self._be_the_original()
        if data:
            self._socket.sendall(_chunk(data))

    def end_stream(self, error_type: str = "", document: dict[str, Any] | None = None) -> None:
        """Close the chunked body; with an error, its type and document go into the trailers."""
        end = b"0\r\n\r\n"
        if document is not None:
            encoded = base64.b64encode(to_json(document)).decode()
            end = (
                f"0\r\nLambda-Runtime-Function-Error-Type: {one_line(error_type)}\r\n"
                f"Lambda-Runtime-Function-Error-Body: {encoded}\r\n\r\n"
            ).encode("utf-8", "replace")
        self._finish(end)

    def _post(self, path: str, body: bytes, headers: str) -> None:
        head = f"POST {ROOT}{path} HTTP/1.1\r\nHost: runtime\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self._finish(head.encode("utf-8", "replace") + body)

    def _finish(self, data: bytes) -> None:
        self._be_the_original()
        self._socket.sendall(data)
        self._read()

    def _be_the_original(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(A_COPY)

    def _read(self) -> tuple[int, dict[str, str], bytes]:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            data = self._socket.recv(262_144)
            if not data:
                raise Closed("the Runtime API closed the connection")
            buffer = buffer + data if buffer else data
        lines = buffer[:end].decode("utf-8", "replace").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        start = end + 4
        length = int(headers.get("content-length", 0))
        if len(buffer) < start + length:
            parts = [buffer[start:]]
            missing = length - len(parts[0])
            while missing > 0:
                data = self._socket.recv(min(missing, 1_048_576))
                if not data:
                    raise Closed("the Runtime API closed the connection inside an answer")
                parts.append(data)
                missing -= len(data)
            self._buffer = b""
            body = b"".join(parts)
        else:
            body = buffer[start : start + length]
            self._buffer = buffer[start + length :]
        return int(lines[0].split(" ", 2)[1]), headers, body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _error_headers(error_type: str) -> str:
    return f"Content-Type: application/json\r\nLambda-Runtime-Function-Error-Type: {one_line(error_type)}\r\n"


def one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def to_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")

"""Bytes to `HttpRequest`, `HttpResponse` to bytes: one object per TCP connection, on httptools.

Requests on one connection are answered in order (HTTP/1.1 pipelining). Answers that are ready together leave in one
write. A body larger than the limit is refused with 413 before it is kept.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.stream import Channel, FileSlice

REASONS = {
    100: "Continue", 101: "Switching Protocols", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content",
    206: "Partial Content", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
    307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 411: "Length Required",
    412: "Precondition Failed", 413: "Payload Too Large", 415: "Unsupported Media Type",
    416: "Range Not Satisfiable", 424: "Failed Dependency", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
STATUS_LINES = {code: f"HTTP/1.1 {code} {reason}\r\n".encode() for code, reason in REASONS.items()}
MAX_HEADER_BYTES = 1024 * 1024
FILE_CHUNK = 1024 * 1024
HIGH_WATER = 1024 * 1024
BODILESS = frozenset((204, 304))


class Exchange:
    """One request and the place its answer goes to. `respond` may be called once, at any later time."""

    __slots__ = ("_connection", "_keep_alive", "gone", "on_gone", "request", "response")

    def __init__(self, connection: "Connection", request: HttpRequest, keep_alive: bool) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self.request = request
        self.response: HttpResponse | None = None
        self.gone = False
        self.on_gone: Callable[[], None] | None = None

    @property
    def keep_alive(self) -> bool:
        return self._keep_alive

    def respond(self, response: HttpResponse) -> None:
        if self.gone:
            _abandon(response)
            return
        self.response = response
        self.on_gone = None
        self._connection.flush()


Handler = Callable[[Exchange], None]


class Connection(asyncio.Protocol):
    def __init__(self, handler: Handler, limits: "ConnectionLimits", open_connections: "set[Connection]") -> None:
        self._handler = handler
        self._limits = limits
        self._open = open_connections
        self._transport: Any = None
        self._exchanges: deque[Exchange] = deque()
        self._streaming: Channel | None = None
        self._file: tuple[Any, int] | None = None
        self._paused = False
        self._refused = False
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # -- asyncio's side -------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "127.0.0.1"
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._open.discard(self)
        self._transport = None
        if self._streaming is not None:
            self._streaming.cancel()
        if self._file is not None:
            self._file[0].close()
        for exchange in self._exchanges:
            exchange.gone = True
            if exchange.response is not None:
                _abandon(exchange.response)
            if exchange.on_gone is not None:
                exchange.on_gone()
        self._exchanges.clear()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, b"upgrade is not supported here")
        except httptools.HttpParserError as error:
            self._refuse(400, f"the request is not valid HTTP: {error}".encode())

    def pause_writing(self) -> None:
        self._paused = True
        if self._streaming is not None:
            self._streaming.pause()

    def resume_writing(self) -> None:
        self._paused = False
        if self._streaming is not None:
            self._streaming.resume()
        elif self._file is not None:
            self._send_file()

    # -- httptools' side ------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(431, b"the request headers are larger than 1 MB")
            return
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known},{text}"

    def on_headers_complete(self) -> None:
        headers = self._headers
        if headers.get("expect", "").lower() == "100-continue" and not self._exchanges:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = headers.get("content-length")
        if length is not None and int(length) > self._limits.max_body:
            self._refuse(413, b"the request body is larger than this server's limit")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body and not self._refused:
            self._refuse(413, b"the request body is larger than this server's limit")

    def on_message_complete(self) -> None:
        if self._refused:
            return
        parts = self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        request = HttpRequest(
            self._parser.get_method().decode("latin-1"), self._target.decode("latin-1"), self._headers, body, self._peer
        )
        exchange = Exchange(self, request, self._parser.should_keep_alive())
        self._exchanges.append(exchange)
        self._reset()
        self._handler(exchange)

    # -- answers --------------------------------------------------------------------------------------------------

    def _refuse(self, status: int, message: bytes) -> None:
        self._refused = True
        if self._transport is not None and not self._exchanges:
            head = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
            self._transport.write(_head(status, head, len(message)) + message)
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        """Write every answer that is at the front of the line."""
        exchanges = self._exchanges
        out: list[bytes] = []
        while exchanges and self._streaming is None and self._file is None:
            exchange = exchanges[0]
            response = exchange.response
            if response is None:
                break
            exchanges.popleft()
            body = response.body
            if type(body) is bytes:
                out.append(_head(response.status, response.headers, len(body)))
                if body and exchange.request.method != "HEAD" and response.status not in BODILESS:
                    out.append(body)
                if not exchange.keep_alive:
                    self._write(out)
                    self._transport.close()
                    return
            elif exchange.request.method == "HEAD":
                length = body.length if isinstance(body, FileSlice) else 0
                out.append(_head(response.status, response.headers, length))
                _abandon(response)
            else:
                self._write(out)
                out = []
                self._begin_stream(exchange, response)
        self._write(out)

    def _write(self, parts: list[bytes]) -> None:
        if parts and self._transport is not None:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def _begin_stream(self, exchange: Exchange, response: HttpResponse) -> None:
        body = response.body
        if isinstance(body, FileSlice):
            self._write([_head(response.status, response.headers, body.length)])
            handle = body.path.open("rb")
            handle.seek(body.offset)
            self._file = (handle, body.length)
            self._send_file()
            return
        assert isinstance(body, Channel)
        headers = [*response.headers, ("Transfer-Encoding", "chunked")]
        self._write([_head(response.status, headers, None)])
        self._streaming = body

        def end(error: BaseException | None) -> None:
            self._streaming = None
            if self._transport is None:
                return
            if error is not None:
                self._transport.abort()
                return
            self._write([b"0\r\n\r\n"])
            if not exchange.keep_alive:
                self._transport.close()
            self.flush()

        body.attach(self._send_chunk, end)

    def _send_chunk(self, chunk: bytes) -> None:
        if chunk:
            self._write([b"%x\r\n" % len(chunk), chunk, b"\r\n"])

    def _send_file(self) -> None:
        assert self._file is not None
        handle, left = self._file
        while left and not self._paused and self._transport is not None:
            data = handle.read(min(FILE_CHUNK, left))
            if not data:
                self._transport.abort()
                return
            left -= len(data)
            self._file = (handle, left)
            self._transport.write(data)
        if not left:
            handle.close()
            self._file = None
            self.flush()

    # -- closing --------------------------------------------------------------------------------------------------

    def close_when_idle(self) -> None:
        """Server shutdown: drop parked requests, let nothing new in."""
        if self._transport is not None:
            self._transport.close()


class ConnectionLimits:
    """`max_body`: bytes of one request body."""

    __slots__ = ("max_body",)

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body


def _abandon(response: HttpResponse) -> None:
    if isinstance(response.body, Channel):
        response.body.cancel()


def _head(status: int, headers: list[tuple[str, str]], length: int | None) -> bytes:
    lines = [STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n".encode()]
    has_length = False
    for name, value in headers:
        lines.append(f"{name}: {value}\r\n".encode("latin-1", "replace"))
        if name.lower() == "content-length":
            has_length = True
    if length is not None and not has_length and status not in BODILESS:
        lines.append(b"Content-Length: %d\r\n" % length)
    lines.append(b"\r\n")
    return b"".join(lines)

"""Bytes to `HttpRequest`, `HttpResponse` to bytes: one object per TCP connection, on httptools.

Requests on one connection are answered in order (HTTP/1.1 pipelining). Answers that are ready together leave in one
write. What cannot be served is refused in its turn (400, 405, 413 before the body is kept, 431), then the connection
ends; a client that is still sending can read the refusal. A client that does not read is not read from. What begins as
a TLS handshake goes on below TLS.
"""

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import httptools

from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.secure import SecureRequest
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
STATUS_LINES = {code: f"HTTP/1.1 {code} {reason}\r\n" for code, reason in REASONS.items()}
MAX_HEADER_BYTES = 1024 * 1024
MAX_PIPELINED = 128
"""Unanswered requests of one connection after which nothing more is read from it."""
LINGER_S = 10.0
"""How long a refused client may go on sending before the connection is cut."""
FILE_CHUNK = 1024 * 1024
BODILESS = frozenset((204, 304))
UPGRADING = frozenset(("upgrade", "http2-settings", "connection"))
ABSOLUTE = re.compile(r"https?://([^/?#]+)([^#]*)", re.IGNORECASE)
SLASH = ord("/")
HANDSHAKE = 0x16
"""The first byte of a TLS handshake record (RFC 8446, 5.1); no HTTP method begins so."""
PLAIN = ("Content-Type", "text/plain; charset=utf-8")


class Taker(Protocol):
    """Who speaks another protocol on a connection from a moment on."""

    def received(self, data: bytes) -> None: ...

    def lost(self) -> None:
        """The connection has ended, whoever ended it."""


class Exchange:
    """One request and the place its answer goes to. `respond` may be called once, at any later time. `on_gone` is
    called when the client goes away before; `decorate` may change the answer on its way out. `offered` is None but
    for a client that offers a WebSocket: then `switch` may be called instead of `respond`."""

    __slots__ = ("_connection", "decorate", "gone", "keep_alive", "offered", "on_gone", "request", "response")

    def __init__(self, connection: "Connection", request: HttpRequest, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        self.request = request
        self.response: HttpResponse | None = None
        self.gone = False
        self.on_gone: Callable[[], None] | None = None
        self.decorate: Callable[[HttpResponse], None] | None = None
        self.offered: bytearray | None = None

    def respond(self, response: HttpResponse) -> None:
        if self.gone:
            _abandon(response)
            return
        if self.decorate is not None:
            self.decorate(response)
        self.response = response
        self.on_gone = None
        self._connection.flush()

    def drop(self) -> None:
        """Cut the connection; nothing is answered."""
        self._connection.cut()

    def switch(self, taker: Taker, head: bytes) -> Any:
        """Send `head` (the 101) and leave the connection to `taker`. Returns the transport, on which it writes."""
        return self._connection.switch(self, taker, head)


Handler = Callable[[Exchange], None]
Secure = Callable[[Any, "Connection", bytes], Any]
"""Puts TLS between a transport and a connection, from the bytes on that have come; the transport to write on then."""


class Connection(asyncio.Protocol):
    """`secure` None: TLS is not spoken here."""

    def __init__(
        self, handler: Handler, limits: "ConnectionLimits", open_connections: "set[Connection]",
        secure: Secure | None = None,
    ) -> None:  # fmt: skip
        self._handler = handler
        self._secure = secure
        self._kind: type[HttpRequest] = HttpRequest
        self._limits = limits
        self._open = open_connections
        self._transport: Any = None
        self._exchanges: deque[Exchange] = deque()
        self._streaming: Channel | None = None
        self._file: tuple[Any, int] | None = None
        self._paused = False
        self._held = False
        self._deaf = False
        self._last = False
        self._old = False
        self._owes_continue = False
        self._linger: asyncio.TimerHandle | None = None
        self._offer: Exchange | None = None
        self._taker: Taker | None = None
        self._head: Any = None
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._quiet_bytes = 0

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
        self._deaf = True
        if self._linger is not None:
            self._linger.cancel()
        if self._streaming is not None:
            self._streaming.cancel()
        if self._file is not None:
            self._file[0].close()
            self._file = None
        if self._taker is not None:
            self._taker.lost()
        for exchange in self._exchanges:
            exchange.gone = True
            if exchange.response is not None:
                _abandon(exchange.response)
            if exchange.on_gone is not None:
                exchange.on_gone()
        self._exchanges.clear()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._pass_on(data)
            return
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self._secure is not None and data[0] == HANDSHAKE and self._untouched(data):
                self._go_below_tls(data)
                return
            self._refuse(400, f"the request is not valid HTTP: {error}")
        if self._quiet_bytes > MAX_HEADER_BYTES:
            self._refuse(431, "the request headers are larger than 1 MB")

    def _untouched(self, data: bytes) -> bool:
        """Whether these bytes are the first."""
        return self._head is None and self._quiet_bytes == len(data) and self._kind is HttpRequest

    def _go_below_tls(self, data: bytes) -> None:
        assert self._secure is not None
        self._kind = SecureRequest
        self._parser = httptools.HttpRequestParser(self)
        self._reset()
        self._transport = self._secure(self._transport, self, data)

    def pause_writing(self) -> None:
        self._paused = True
        self._hold()
        if self._streaming is not None:
            self._streaming.pause()

    def resume_writing(self) -> None:
        self._paused = False
        if self._streaming is not None:
            self._streaming.resume()
        elif self._file is not None:
            self._send_file()
            self.flush()
        self._hold()

    def _hold(self) -> None:
        """Read only from a client that reads, and that waits for its answers now and then."""
        held = self._paused or len(self._exchanges) > MAX_PIPELINED
        if held != self._held and self._transport is not None and not self._transport.is_closing():
            self._held = held
            if held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # -- httptools' side ------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after a chunked body a trailer, which goes to a dictionary that nobody reads."""
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self._headers.get(key)
        if known is not None:
            text = f"{known}; {text}" if key == "cookie" else f"{known},{text}"
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        headers = self._head = self._headers
        if "transfer-encoding" in headers:
            self._headers = {}
        length = headers.get("content-length")
        if length is not None and int(length) > self._limits.max_body:
            self._refuse(413, "the request body is larger than this server's limit")
        elif "expect" in headers and headers["expect"].lower() == "100-continue" and not self._deaf:
            self._owes_continue = not self._parser.should_upgrade()
            self.flush()

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            return
        self._quiet_bytes = 0
        self._owes_continue = False
        self._body.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body:
            self._body.clear()
            self._refuse(413, "the request body is larger than this server's limit")

    def on_message_complete(self) -> None:
        parser = self._parser
        if self._deaf or parser.should_upgrade():
            return
        parts = self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        headers = self._head
        target = self._target.decode("latin-1")
        if self._target[0] != SLASH:
            target = _origin_form(target, headers)
        request = self._kind(parser.get_method().decode("latin-1"), target, headers, body, self._peer)
        keep_alive = parser.should_keep_alive()
        if (not keep_alive or "connection" in headers) and parser.get_http_version() == "1.0":
            keep_alive, self._old = False, True
        exchange = Exchange(self, request, keep_alive)
        exchanges = self._exchanges
        exchanges.append(exchange)
        self._owes_continue = False
        self._deaf = not keep_alive
        self._reset()
        try:
            self._handler(exchange)
        except Exception as error:
            self._failed(exchange, error)
        if len(exchanges) > MAX_PIPELINED:
            self._hold()

    def _upgrade(self, rest: bytes) -> None:
        """A client that offers a WebSocket asks a door for it. One that offers another protocol (h2c) is served in this
        one: its request, less the offer, is read again, now with the body that the parser took for the other."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, "this server is not a proxy")
            return
        if method == b"GET" and self._head.get("upgrade", "").lower() == "websocket":
            self._offered(rest)
            return
        lines = [method + b" " + self._target + b" HTTP/1.1"]
        for name, value in self._head.items():
            if name not in UPGRADING:
                lines.append(f"{name}: {value}".encode("latin-1"))
        self._parser = httptools.HttpRequestParser(self)
        self._reset()
        again = b"\r\n".join(lines) + b"\r\n\r\n" + rest
        asyncio.get_running_loop().call_soon(self.data_received, again)

    def _offered(self, rest: bytes) -> None:
        """Hand the offer to a door. What the client sends meanwhile is kept for who takes the connection."""
        if self._exchanges:
            self._refuse(400, "a WebSocket cannot be asked for before the earlier answers are there")
            return
        request = self._kind("GET", self._target.decode("latin-1"), self._head, b"", self._peer)
        self._deaf = True
        offer = self._offer = Exchange(self, request, False)
        offer.offered = bytearray(rest)
        self._exchanges.append(offer)
        try:
            self._handler(offer)
        except Exception as error:
            self._failed(offer, error)

    def _failed(self, exchange: Exchange, error: Exception) -> None:
        self._defect(error)
        if exchange.response is None:
            exchange.respond(HttpResponse(500, [PLAIN], b"Internal Server Error"))

    def _pass_on(self, data: bytes) -> None:
        if self._taker is not None:
            self._taker.received(data)
        elif self._offer is not None and self._offer.offered is not None:
            self._offer.offered += data
            if len(self._offer.offered) > MAX_HEADER_BYTES:
                self.cut()

    def switch(self, exchange: Exchange, taker: Taker, head: bytes) -> Any:
        self._exchanges.remove(exchange)
        self._taker, self._offer = taker, None
        exchange.on_gone = None
        self._write([head])
        return self._transport

    # -- answers --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write every answer that is at the front of the line."""
        if self._transport is None:
            return
        exchanges = self._exchanges
        out: list[bytes] = []
        while exchanges and self._streaming is None and self._file is None:
            exchange = exchanges[0]
            response = exchange.response
            if response is None:
                break
            exchanges.popleft()
            if not exchange.keep_alive:
                response.headers = [*response.headers, ("Connection", "close")]
                self._last = True
            body = response.body
            if type(body) is bytes:
                out.append(_head(response.status, response.headers, len(body)))
                if body and exchange.request.method != "HEAD" and response.status not in BODILESS:
                    out.append(body)
            elif exchange.request.method == "HEAD" or response.status in BODILESS:
                out.append(_head(response.status, response.headers, getattr(body, "length", None)))
                _abandon(response)
            elif isinstance(body, FileSlice):
                out = self._begin_file(response, body, out)
            else:
                self._begin_stream(response, body, out)
                out = []
        if self._owes_continue and not exchanges:
            self._owes_continue = False
            out.append(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._write(out)
        if self._last and self._streaming is None and self._file is None:
            self._finish()
        elif self._held:
            self._hold()

    def _write(self, parts: list[bytes]) -> None:
        if parts and self._transport is not None:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def _refuse(self, status: int, message: str) -> None:
        """Answer, in its turn, what is no request; then the connection ends."""
        if self._deaf:
            return
        self._deaf = True
        exchange = Exchange(self, HttpRequest("GET", "/", {}), False)
        self._exchanges.append(exchange)
        self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
        exchange.respond(HttpResponse(status, [PLAIN], message.encode()))

    def _finish(self) -> None:
        """The last answer is out. A refused client may still be sending: to close now would reset the connection and
        take the answer away from it, so only our half is closed."""
        transport, self._transport = self._transport, None
        if self._linger is None:
            transport.close()
            return
        if self._held:
            transport.resume_reading()
        transport.write_eof()

    def cut(self) -> None:
        """End without an answer, as when the other side dies."""
        if self._transport is not None:
            self._break()

    def _break(self) -> None:
        """End in the middle of an answer: the client must not take what it got for the whole."""
        transport, self._transport = self._transport, None
        self._deaf = True
        transport.abort()

    def _defect(self, error: BaseException) -> None:
        """Our own mistake: the trace goes to the server's log."""
        asyncio.get_running_loop().call_exception_handler({"message": "defect in a front door", "exception": error})

    # -- bodies that are sent bit by bit --------------------------------------------------------------------------

    def _begin_stream(self, response: HttpResponse, body: Channel, out: list[bytes]) -> None:
        """Chunked, each chunk as it comes; a client of HTTP/1.0 reads until the connection ends."""
        chunked = not self._old
        headers = [*response.headers, ("Transfer-Encoding", "chunked")] if chunked else response.headers
        self._write([*out, _head(response.status, headers, None)])
        self._streaming = body
        begun = False

        def send(chunk: bytes) -> None:
            if chunk:
                self._write([b"%x\r\n" % len(chunk), chunk, b"\r\n"] if chunked else [chunk])

        def end(error: BaseException | None) -> None:
            self._streaming = None
            if self._transport is None:
                return
            if error is not None:
                self._break()
                return
            if chunked:
                self._write([b"0\r\n\r\n"])
            if begun:
                self.flush()

        if self._paused:
            body.pause()
        body.attach(send, end)
        begun = True

    def _begin_file(self, response: HttpResponse, body: FileSlice, out: list[bytes]) -> list[bytes]:
        """What is still to be written when the file is not there; otherwise nothing."""
        try:
            handle = body.path.open("rb")
            handle.seek(body.offset)
            missing = body.offset + body.length - os.fstat(handle.fileno()).st_size
            if missing > 0:
                handle.close()
                raise OSError(f"{body.path} lacks {missing} bytes")
        except OSError as error:
            self._defect(error)
            headers = [PLAIN] if not self._last else [PLAIN, ("Connection", "close")]
            text = b"the body's file cannot be read"
            return [*out, _head(500, headers, len(text)), text]
        self._write([*out, _head(response.status, response.headers, body.length)])
        self._file = (handle, body.length)
        self._send_file()
        return []

    def _send_file(self) -> None:
        assert self._file is not None
        handle, left = self._file
        while left and not self._paused and self._transport is not None:
            data = handle.read(min(FILE_CHUNK, left))
            if not data:
                self._break()
                break
            left -= len(data)
            self._transport.write(data)
        if left and self._transport is not None:
            self._file = (handle, left)
            return
        handle.close()
        self._file = None

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


def _origin_form(target: str, headers: dict[str, str]) -> str:
    """Path and query of a target that names the host too (http://host/path), as sent to a proxy."""
    found = ABSOLUTE.match(target)
    if found is None:
        return target
    headers["host"] = found[1]
    return found[2] if found[2].startswith("/") else f"/{found[2]}"


def _head(status: int, headers: list[tuple[str, str]], length: int | None) -> bytes:
    text = STATUS_LINES.get(status) or f"HTTP/1.1 {status} Status\r\n"
    for name, value in headers:
        if not value.isprintable():
            value = value.replace("\r", " ").replace("\n", " ")
        text = f"{text}{name}: {value}\r\n"
        if len(name) == 14 and name.lower() == "content-length":
            length = None
    if length is None or status in BODILESS:
        return f"{text}\r\n".encode("latin-1", "replace")
    return f"{text}Content-Length: {length}\r\n\r\n".encode("latin-1", "replace")

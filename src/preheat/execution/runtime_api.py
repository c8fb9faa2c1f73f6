"""AWS's Lambda Runtime API (2018-06-01), server side, without sockets: bytes in, bytes out.

`RuntimeSession` is one environment's side of it; `RuntimeConnection` parses one HTTP/1.1 connection of the runtime
process, of which a foreign runtime may open several. Every answer is one write: written in two, a warm invocation
costs some 90 ms more. An acknowledgement whose connection already asks for the next event travels with that event.
Error shapes are those of AWS's Runtime Interface Emulator.
"""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any, Protocol

import httptools

from preheat.execution import reports
from preheat.execution.workers.contract import Answer, WorkRequest

MAX_RESPONSE_BYTES = 6 * 1024 * 1024 + 100
PREFIX = "/2018-06-01/runtime/"
NEXT = PREFIX + "invocation/next"
JSON = b"application/json"
REASONS = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
           405: b"Method Not Allowed", 413: b"Payload Too Large"}  # fmt: skip


class RuntimeEvents(Protocol):
    """What a session tells its worker."""

    def next_asked(self) -> None: ...
    def restore_asked(self) -> bool:
        """The runtime has initialised a SnapStart function. False: this process stays in that state."""

    def init_error(self, error_type: str, body: bytes) -> None: ...
    def stream_begun(self, content_type: str) -> None: ...
    def chunk(self, data: bytes) -> None: ...
    def answered(self, answer: Answer) -> None: ...


class SessionConnection(Protocol):
    """What a session asks of the connection that speaks for the runtime."""

    def send_event(self, request: WorkRequest) -> None: ...
    def accept(self) -> None: ...
    def refuse(self, status: int, error_type: str, message: str) -> None: ...
    def refuse_size(self) -> None: ...
    def refuse_transition(self, old: str, new: str) -> None: ...


class OtherApis(Protocol):
    """What else is served on the same address."""

    def take(self, reply: Any, method: bytes, target: str, headers: dict[str, str], body: bytes) -> bool:
        """False when there is no such endpoint; else `reply` (a RuntimeConnection) is answered, now or later."""


class RuntimeSession:
    """States: "Started" (initialising), "Ready" (parked in /next), "Running", "Streaming", "Responded", "InitError".
    `restorable`: a SnapStart function's, which may ask for /runtime/restore/next."""

    def __init__(self, events: RuntimeEvents) -> None:
        self.events = events
        self.state = "Started"
        self.request_id = ""
        self.restorable = False
        self.others: OtherApis | None = None
        self._parked: SessionConnection | None = None

    def offer(self, request: WorkRequest) -> None:
        """Answer the parked /next."""
        connection = self._parked
        if connection is None or self.state != "Ready":
            raise RuntimeError(f"an event for a runtime that is {self.state}")
        self._parked = None
        self.state = "Running"
        self.request_id = request.request_id
        connection.send_event(request)

    def ask_next(self, connection: "SessionConnection") -> None:
        if self.state not in ("Started", "Responded"):
            connection.refuse_transition(self.state, "Ready")
            return
        self.state = "Ready"
        self._parked = connection
        self.events.next_asked()

    def ask_restore(self, connection: "RuntimeConnection") -> None:
        """GET /runtime/restore/next, between the before-snapshot and the after-restore hooks."""
        if self.state != "Started":
            connection.refuse_transition(self.state, "Restoring")
        elif self.events.restore_asked():
            connection.confirm_restore()

    def init_error(self, connection: "SessionConnection", error_type: str, body: bytes) -> None:
        if self.state != "Started":
            connection.refuse_transition(self.state, "InitError")
            return
        self.state = "InitError"
        connection.accept()
        self.events.init_error(error_type or "Runtime.Unknown", body)

    def may_answer(self, connection: "SessionConnection", request_id: str, to: str) -> bool:
        if self.state != "Running":
            connection.refuse_transition(self.state, to)
            return False
        if request_id != self.request_id:
            connection.refuse(400, "InvalidRequestID", "Invalid request ID")
            return False
        return True

    def respond(self, connection: "SessionConnection", body: bytes, content_type: str) -> None:
        self.state = "Responded"
        connection.accept()
        self.events.answered(Answer(body, None, content_type))

    def too_large(self, connection: "SessionConnection") -> None:
        self.state = "Responded"
        connection.refuse_size()
        document = reports.size_document(MAX_RESPONSE_BYTES)
        self.events.answered(Answer(document, "Function.ResponseSizeTooLarge"))

    def fail(self, connection: "SessionConnection", error_type: str, body: bytes) -> None:
        self.state = "Responded"
        connection.accept()
        if not error_type or error_type == "Unhandled":
            error_type = _named_type(body) or "Unhandled"
        if not body:
            body = _json({"errorMessage": "Unknown application error occurred", "errorType": error_type})
        self.events.answered(Answer(body, error_type))

    def begin_stream(self, content_type: str) -> None:
        self.state = "Streaming"
        self.events.stream_begun(content_type)

    def end_stream(
        self, connection: "SessionConnection", content_type: str, error_type: str | None, body: bytes
    ) -> None:
        self.state = "Responded"
        connection.accept()
        self.events.answered(Answer(body, error_type, content_type, streamed=True))


class RuntimeConnection:
    """One connection: `feed` takes what arrived, `write` and `close` are the socket's."""

    def __init__(self, session: RuntimeSession, write: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self._session = session
        self._write = write
        self._close = close
        self._out: list[bytes] = []
        self._feeding = False
        self._parked = False
        self._last = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._trailers: dict[str, str] = {}
        self._in_body = False
        self._body: list[bytes] = []
        self._size = 0
        self._mode = ""
        self._rejected = False

    def feed(self, data: bytes) -> None:
        self._feeding = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.refuse(400, "InvalidRequestFormat", f"the request is not valid HTTP: {error}")
            self._parked = False
            self._flush()
            self._close()
            return
        finally:
            self._feeding = False
        if not self._parked:
            self._flush()

    # -- httptools' side ------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._trailers if self._in_body else self._headers
        fields[name.decode("latin-1").lower()] = value.decode("utf-8", "replace")

    def on_headers_complete(self) -> None:
        self._in_body = True
        mode = self._headers.get("lambda-runtime-function-response-mode", "").lower()
        request_id = self._answered_id() if mode else None
        if request_id is None:
            return
        if mode not in ("streaming", "buffered"):
            self._rejected = True
            self.refuse(400, "InvalidFunctionResponseMode", f"Invalid function response mode: {mode}")
        elif mode == "streaming":
            if self._session.may_answer(self, request_id, "InvocationStreaming"):
                self._mode = "streaming"
                self._session.begin_stream(self._headers.get("content-type", "application/octet-stream"))
            else:
                self._rejected = True

    def on_body(self, body: bytes) -> None:
        if self._rejected:
            return
        if self._mode == "streaming":
            self._session.events.chunk(body)
            return
        self._size += len(body)
        if self._size <= MAX_RESPONSE_BYTES:
            self._body.append(body)
        else:
            self._body.clear()

    def on_message_complete(self) -> None:
        try:
            if not self._rejected:
                self._handle()
        finally:
            self._last = not self._parser.should_keep_alive()
            self._reset()
            if self._last and not self._parked:
                self._flush()
                self._close()

    # -- what is asked --------------------------------------------------------------------------------------------

    def _answered_id(self) -> str | None:
        """The id in `/runtime/invocation/<id>/response`."""
        target = self._target.decode("latin-1")
        if target.startswith(PREFIX + "invocation/") and target.endswith("/response"):
            return target[len(PREFIX) + 11 : -9]
        return None

    def _handle(self) -> None:
        session = self._session
        target = self._target.decode("latin-1")
        method = self._parser.get_method()
        error_type = self._headers.get("lambda-runtime-function-error-type", "")
        if target == NEXT and method == b"GET":
            self._parked = True
            session.ask_next(self)
        elif method == b"POST" and (request_id := self._answered_id()) is not None:
            self._response(request_id)
        elif method == b"GET" and target in ("/ping", "/2018-06-01/ping"):
            self._send(200, b"pong", b"text/plain")
        elif method == b"GET" and target == PREFIX + "restore/next" and session.restorable:
            session.ask_restore(self)
        elif method == b"POST" and target in (PREFIX + "init/error", PREFIX + "restore/error" * session.restorable):
            session.init_error(self, error_type, b"".join(self._body))
        elif method == b"POST" and target.startswith(PREFIX + "invocation/") and target.endswith("/error"):
            if session.may_answer(self, target[len(PREFIX) + 11 : -6], "InvocationErrorResponse"):
                session.fail(self, error_type, b"".join(self._body))
        elif session.others is None or not session.others.take(
            self, method, target, self._headers, b"".join(self._body)
        ):
            self._send(404, b"404 page not found\n", b"text/plain; charset=utf-8")

    def _response(self, request_id: str) -> None:
        content_type = self._headers.get("content-type", "application/json")
        if self._mode == "streaming":
            self._session.end_stream(self, content_type, *_trailed_error(self._trailers))
        elif self._session.may_answer(self, request_id, "InvocationResponse"):
            if self._size > MAX_RESPONSE_BYTES:
                self._session.too_large(self)
            else:
                self._session.respond(self, b"".join(self._body), content_type)

    # -- answers --------------------------------------------------------------------------------------------------

    def send_event(self, request: WorkRequest) -> None:
        head = [
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(request.payload)}\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {request.request_id}\r\nLambda-Runtime-Deadline-Ms: {request.deadline_ms}"
        ]
        for name, value in (
            ("Invoked-Function-Arn", request.invoked_arn),
            ("Trace-Id", request.trace_id),
            ("Client-Context", request.client_context),
            ("Cognito-Identity", request.cognito_identity),
        ):
            if value:
                head.append(f"Lambda-Runtime-{name}: {value}")
        self._out.append("\r\n".join(head).encode() + b"\r\n\r\n" + request.payload)
        self._parked = False
        if not self._feeding:
            self._flush()

    def park(self) -> None:
        self._parked = True

    def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        """An answer of the other APIs, perhaps to a request that was parked."""
        parked, self._parked = self._parked, False
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._send(status, json.dumps(document, separators=(",", ":")).encode(), JSON, extra.encode())
        if parked and self._last and not self._feeding:
            self._close()

    def confirm_restore(self) -> None:
        self._send(200, b"{}", JSON)

    def accept(self) -> None:
        self._send(202, b'{"status":"OK"}\n', JSON)

    def refuse(self, status: int, error_type: str, message: str) -> None:
        self._parked = False
        self._send(status, _json({"errorMessage": message, "errorType": error_type}), JSON)

    def refuse_size(self) -> None:
        message = f"Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
        self.refuse(413, "RequestEntityTooLarge", message)

    def refuse_transition(self, old: str, new: str) -> None:
        message = f"State transition from {old} to {new} failed for runtime. Error: State transition is not allowed"
        self.refuse(403, "InvalidStateTransition", message)

    def _send(self, status: int, body: bytes, content_type: bytes, headers: bytes = b"") -> None:
        self._out.append(
            b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, REASONS[status], content_type, len(body), headers, body)
        )
        if not self._feeding:
            self._flush()

    def _flush(self) -> None:
        out = self._out
        if out:
            self._write(out[0] if len(out) == 1 else b"".join(out))
            self._out = []


def _trailed_error(trailers: dict[str, str]) -> tuple[str | None, bytes]:
    """Error type and document in the trailers of a stream."""
    error_type = trailers.get("lambda-runtime-function-error-type")
    if error_type is None:
        return None, b""
    try:
        return error_type, base64.b64decode(trailers.get("lambda-runtime-function-error-body", ""), validate=True)
    except binascii.Error:
        return error_type, b""


def _named_type(body: bytes) -> str:
    """The `errorType` of an error document; "" when it names none."""
    try:
        named = json.loads(body)["errorType"]
    except (ValueError, KeyError, TypeError):
        return ""
    return named if isinstance(named, str) else ""


def _json(document: dict[str, str]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()

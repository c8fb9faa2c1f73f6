"""The server's end of the channel to Preheat's own Python runtime (frames: `runtime/channel.py`), without sockets.

It drives the same `RuntimeSession` as the HTTP connections of other runtimes, so the order of events and their meaning
are the same. What breaks the protocol (a function that writes into the channel) closes it; the runtime then ends.
"""

from collections.abc import Callable

from preheat.execution.runtime_api import RuntimeSession
from preheat.execution.workers.contract import WorkRequest
from preheat.execution.workers.runtime.channel import (
    ANSWER,
    CHUNK,
    END,
    ERROR,
    EVENT,
    INIT_ERROR,
    MAX_BODY_BYTES,
    MAX_NAME_BYTES,
    READY,
    RESPONSE,
    STREAM,
    TOO_LARGE,
)

HEAD = ANSWER.size
MAX_FRAME_BYTES = MAX_BODY_BYTES + MAX_NAME_BYTES
JOIN_BYTES = 65_536


class ChannelConnection:
    """`feed` takes what arrived; `write` and `close` are the socket's. Implements what the session asks of a
    connection."""

    def __init__(self, session: RuntimeSession, write: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self._session = session
        self._write = write
        self._close = close
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._stream_type = ""
        self._broken = False

    def feed(self, data: bytes) -> None:
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts = []
        at, end = 0, len(data)
        while at < end and not self._broken:
            need = HEAD
            if end - at >= HEAD:
                length, kind, name_length = ANSWER.unpack_from(data, at)
                if length > MAX_FRAME_BYTES or name_length > length:
                    self._break()
                    return
                need += length
            if end - at < need:
                self._parts = [data[at:] if at else data]
                self._have, self._need = end - at, need
                return
            name_end = at + HEAD + name_length
            at += need
            self._frame(kind, data[at - length : name_end], data[name_end:at])

    # -- what the session asks of a connection ----------------------------------------------------------------------

    def send_event(self, request: WorkRequest) -> None:
        request_id, payload, deadline_ms, arn, trace, client, cognito = request
        texts = [request_id.encode(), arn.encode(), trace.encode() if trace else b"",
                 client.encode() if client else b"", cognito.encode() if cognito else b""]  # fmt: skip
        sizes = list(map(len, texts))
        head = EVENT.pack(sum(sizes) + len(payload), deadline_ms, *sizes)
        if len(payload) <= JOIN_BYTES:
            self._write(b"".join((head, *texts, payload)))
        else:
            self._write(b"".join((head, *texts)))
            self._write(payload)

    def accept(self) -> None:
        """Nothing: the next event is the acknowledgement."""

    def refuse(self, status: int, error_type: str, message: str) -> None:
        self._break()

    def refuse_size(self) -> None:
        """Nothing: the runtime knows the limit."""

    def refuse_transition(self, old: str, new: str) -> None:
        self._break()

    # -- frames -----------------------------------------------------------------------------------------------------

    def _frame(self, kind: int, name: bytes, body: bytes) -> None:
        session = self._session
        text = name.decode("utf-8", "replace")
        if kind == RESPONSE:
            if session.may_answer(self, session.request_id, "InvocationResponse"):
                session.respond(self, body, text)
                session.ask_next(self)
        elif kind == CHUNK and session.state == "Streaming":
            session.events.chunk(body)
        elif kind == STREAM:
            if session.may_answer(self, session.request_id, "InvocationStreaming"):
                self._stream_type = text
                session.begin_stream(text)
                if body:
                    session.events.chunk(body)
        elif kind == END and session.state == "Streaming":
            session.end_stream(self, self._stream_type, text or None, body)
            session.ask_next(self)
        elif kind == ERROR:
            if session.may_answer(self, session.request_id, "InvocationErrorResponse"):
                session.fail(self, text, body)
                session.ask_next(self)
        elif kind == TOO_LARGE:
            if session.may_answer(self, session.request_id, "InvocationResponse"):
                session.too_large(self)
                session.ask_next(self)
        elif kind == READY:
            session.ask_next(self)
        elif kind == INIT_ERROR:
            session.init_error(self, text, body)
        else:
            self._break()

    def _break(self) -> None:
        self._broken = True
        self._close()

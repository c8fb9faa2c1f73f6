"""One WebSocket: frames of a connection that a client has offered, on wsproto. No extensions are taken.

The limits and close codes are API Gateway's: text only (1003), frames of 32 KB, messages of 128 KB (1009).
"""

import asyncio
from typing import Any, Protocol

from preheat.gateway.connection import LINGER_S, Exchange
from preheat.kernel.http import HttpRequest

FRAME_BYTES = 32 * 1024
MESSAGE_BYTES = 128 * 1024
UNREAD_BYTES = 1024 * 1024
"""What may wait for a client that does not read."""
NORMAL, GOING_AWAY, UNSUPPORTED, ABNORMAL, TOO_MANY, TOO_BIG, RESTART = 1000, 1001, 1003, 1006, 1008, 1009, 1012


class BadOffer(Exception):
    """The client's handshake is not one of RFC 6455, version 13."""


class Listener(Protocol):
    def message(self, text: str) -> None: ...

    def seen(self) -> None:
        """The client is alive: it has sent something, a ping, say."""

    def ended(self, code: int, reason: str) -> None:
        """Once, when the WebSocket has come to its end, with the code of who closed it (1006: nobody did)."""


def offer_of(request: HttpRequest) -> Any:
    """wsproto's state for the client's handshake. Raises BadOffer."""
    from wsproto import ConnectionType, WSConnection
    from wsproto.utilities import ProtocolError

    known = WSConnection(ConnectionType.SERVER)
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        known.initiate_upgrade_connection(headers, request.target)
    except ProtocolError as error:
        raise BadOffer(str(error)) from error
    return known


class WebSocket:
    """`accept` first; then `listener` hears of messages and of the end."""

    def __init__(self, offer: Any, exchange: Exchange, listener: Listener) -> None:
        self._frames = offer
        self._exchange = exchange
        self._listener = listener
        self._transport: Any = None
        self._parts: list[str] = []
        self._bytes = 0
        self._frame = 0
        self.closed = False

    def accept(self, subprotocol: str | None) -> None:
        """Answer 101. A subprotocol that the client has not named is left out; the client then decides."""
        from wsproto.events import AcceptConnection, Request

        (asked,) = [event for event in self._frames.events() if isinstance(event, Request)]
        chosen = subprotocol if subprotocol in asked.subprotocols else None
        early = bytes(self._exchange.offered or b"")
        self._transport = self._exchange.switch(self, self._frames.send(AcceptConnection(subprotocol=chosen)))
        if early:
            self.received(early)

    @property
    def alive(self) -> bool:
        return not self.closed and not self._transport.is_closing()

    def send(self, text: str) -> bool:
        """False when the client does not read what it was sent before, or is gone."""
        from wsproto.events import TextMessage

        if not self.alive or self._transport.get_write_buffer_size() > UNREAD_BYTES:
            return False
        self._transport.write(self._frames.send(TextMessage(text)))
        return True

    def close(self, code: int, reason: str) -> None:
        """Tell the client and end; `reason` is told to the listener."""
        from wsproto.events import CloseConnection

        if self.alive:
            self._transport.write(self._frames.send(CloseConnection(code, reason)))
            self._finish(code, reason)

    def received(self, data: bytes) -> None:
        """Bytes of the client."""
        from wsproto.utilities import ProtocolError

        if not self.alive:
            return
        self._listener.seen()
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():
                self._take(event)
                if self.closed:
                    return
        except ProtocolError as error:
            hint = getattr(error, "event_hint", None)
            if hint is not None:
                self._transport.write(self._frames.send(hint))
            self._finish(1002, str(error))

    def _take(self, event: Any) -> None:
        from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

        if isinstance(event, TextMessage):
            self._text(event)
        elif isinstance(event, BytesMessage):
            self.close(UNSUPPORTED, "binary frames are not supported")
        elif isinstance(event, Ping):
            self._transport.write(self._frames.send(event.response()))
        elif isinstance(event, CloseConnection):
            self._transport.write(self._frames.send(event.response()))
            self._finish(event.code, event.reason or "")

    def _text(self, event: Any) -> None:
        size = len(event.data.encode())
        self._frame += size
        self._bytes += size
        if self._frame > FRAME_BYTES or self._bytes > MESSAGE_BYTES:
            self.close(TOO_BIG, "the message is too big")
            return
        self._parts.append(event.data)
        if event.frame_finished:
            self._frame = 0
        if event.message_finished:
            text, self._parts, self._bytes = "".join(self._parts), [], 0
            self._listener.message(text)

    def _finish(self, code: int, reason: str) -> None:
        """Only our half is closed: the client may still be sending, and a reset would take the close frame from it."""
        self.closed = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
        self._listener.ended(code, reason)

    def lost(self) -> None:
        if not self.closed:
            self.closed = True
            self._listener.ended(ABNORMAL, "")

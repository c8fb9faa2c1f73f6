"""application/vnd.amazon.eventstream: messages of headers and a payload, framed by lengths and CRC32.

    total length (4) | headers length (4) | CRC of those (4) | headers | payload | CRC of all before (4)
"""

import struct
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.kernel.stream import Channel
from preheat.wire.values import BadValue, from_epoch

CONTENT_TYPE = "application/vnd.amazon.eventstream"
PRELUDE = 12
MAX_MESSAGE = 24 * 1024 * 1024
TRUE, FALSE, BYTE, SHORT, INTEGER, LONG, BYTES, STRING, TIMESTAMP, UUID = range(10)
INTEGER_FORMS = {BYTE: ">b", SHORT: ">h", INTEGER: ">i", LONG: ">q"}


class EventStreamError(ValueError):
    """A message that does not have the form or the checksums it should."""


class Message(NamedTuple):
    headers: dict[str, Any]
    payload: bytes


def encode(headers: dict[str, Any], payload: bytes = b"") -> bytes:
    """One message. Header values: str, bool, int, bytes, datetime."""
    head = b"".join(_encode_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", PRELUDE + len(head) + len(payload) + 4, len(head))
    start = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + payload
    return start + struct.pack(">I", zlib.crc32(start))


def _encode_header(name: str, value: Any) -> bytes:
    key = name.encode()
    start = bytes((len(key),)) + key
    if isinstance(value, bool):
        return start + bytes((TRUE if value else FALSE,))
    if isinstance(value, int):
        return start + struct.pack(">Bi", INTEGER, value) if -(2**31) <= value < 2**31 else start + struct.pack(
            ">Bq", LONG, value
        )
    if isinstance(value, datetime):
        return start + struct.pack(">Bq", TIMESTAMP, round(value.timestamp() * 1000))
    kind, data = (STRING, value.encode()) if isinstance(value, str) else (BYTES, bytes(value))
    return start + struct.pack(">BH", kind, len(data)) + data


class Decoder:
    """Feed bytes as they come, take whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises EventStreamError; the decoder is then of no further use."""
        self._buffer += data
        found = []
        while len(self._buffer) >= PRELUDE:
            total, head, crc = struct.unpack_from(">III", self._buffer)
            if zlib.crc32(self._buffer[:8]) != crc:
                raise EventStreamError("the checksum of a prelude does not match")
            if total > MAX_MESSAGE or head + PRELUDE + 4 > total:
                raise EventStreamError("a message of impossible length")
            if len(self._buffer) < total:
                break
            message = bytes(self._buffer[:total])
            del self._buffer[:total]
            if zlib.crc32(message[:-4]) != struct.unpack(">I", message[-4:])[0]:
                raise EventStreamError("the checksum of a message does not match")
            found.append(Message(_decode_headers(message[PRELUDE : PRELUDE + head]), message[PRELUDE + head : -4]))
        return found

    @property
    def pending(self) -> int:
        """Bytes that are not a whole message yet."""
        return len(self._buffer)


def _decode_headers(data: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    position = 0
    try:
        while position < len(data):
            length = data[position]
            name = data[position + 1 : position + 1 + length].decode()
            kind = data[position + 1 + length]
            position, headers[name] = _decode_value(data, position + 2 + length, kind)
    except (IndexError, struct.error, UnicodeDecodeError, BadValue) as error:
        raise EventStreamError(f"malformed headers: {error}") from None
    return headers


def _decode_value(data: bytes, position: int, kind: int) -> tuple[int, Any]:
    if kind in (TRUE, FALSE):
        return position, kind == TRUE
    if kind in INTEGER_FORMS:
        form = INTEGER_FORMS[kind]
        return position + struct.calcsize(form), struct.unpack_from(form, data, position)[0]
    if kind in (BYTES, STRING):
        end = position + 2 + struct.unpack_from(">H", data, position)[0]
        if end > len(data):
            raise EventStreamError("a header value runs past the headers")
        raw = data[position + 2 : end]
        return end, raw.decode() if kind == STRING else raw
    if kind == TIMESTAMP:
        return position + 8, from_epoch(struct.unpack_from(">q", data, position)[0] / 1000)
    if kind == UUID and position + 16 <= len(data):
        return position + 16, data[position : position + 16]
    raise EventStreamError(f"a header of unknown type {kind}")


def stream(
    source: Channel,
    event: Callable[[Any], bytes],
    failure: Callable[[AwsError], bytes],
    initial: bytes | None = None,
) -> Channel:
    """The bytes of an event stream: `event` encodes each item, `failure` the error that ends it; `initial` is first."""

    def on_error(error: BaseException) -> bytes:
        if isinstance(error, AwsError):
            return failure(error)
        headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "The stream was cut."}
        return encode(headers)

    if initial is None:
        return source.map(event, on_error)
    opened = Channel()
    opened.on_cancel = source.cancel
    opened.on_resume = source.resume
    opened.send(initial)

    def end(error: BaseException | None) -> None:
        if error is not None:
            opened.send(on_error(error))
        opened.close()

    source.attach(lambda item: opened.send(event(item)), end)
    return opened

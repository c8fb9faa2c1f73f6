"""CBOR (RFC 8949), as much as smithy-rpc-v2-cbor uses: numbers, text, bytes, arrays, maps, tag 1 timestamps."""

import struct
from datetime import datetime
from typing import Any

from preheat.wire.values import BadValue, from_epoch

MAX_DEPTH = 200
UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
INDEFINITE = 31
SIMPLE_VALUES = {20: False, 21: True, 22: None, 23: None}
FLOATS = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}
WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}


class CborError(ValueError):
    """Not one well-formed data item."""


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for info, width in WIDTHS.items():
        if number < 1 << 8 * width:
            return bytes((major << 5 | info,)) + number.to_bytes(width, "big")
    raise CborError("an integer does not fit 64 bits")


def encode(value: Any) -> bytes:
    """Raises CborError for a value that has no form in CBOR."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _encode(value: Any, out: bytearray) -> None:
    if value is None:
        out.append(0xF6)
    elif isinstance(value, bool):
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, int):
        out += _head(UNSIGNED, value) if value >= 0 else _head(NEGATIVE, -1 - value)
    elif isinstance(value, float):
        out.append(0xFB)
        out += struct.pack(">d", value)
    elif isinstance(value, str):
        data = value.encode()
        out += _head(TEXT, len(data))
        out += data
    elif isinstance(value, (bytes, bytearray, memoryview)):
        out += _head(BYTES, len(value))
        out += value
    elif isinstance(value, dict):
        out += _head(MAP, len(value))
        for key, item in value.items():
            _encode(key, out)
            _encode(item, out)
    elif isinstance(value, (list, tuple)):
        out += _head(ARRAY, len(value))
        for item in value:
            _encode(item, out)
    elif isinstance(value, datetime):
        out += _head(TAG, 1)
        _encode(value.timestamp(), out)
    else:
        raise CborError(f"no CBOR for {type(value).__name__}")


def decode(data: bytes) -> Any:
    """The one item in `data`. Raises CborError."""
    reader = _Reader(data)
    try:
        value = reader.item(0)
    except (UnicodeDecodeError, TypeError, BadValue) as error:
        raise CborError(str(error)) from None
    if reader.position != len(data):
        raise CborError("bytes after the data item")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def _take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self._data):
            raise CborError("the data ends inside an item")
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _number(self, info: int) -> int:
        if info < 24:
            return info
        if info not in WIDTHS:
            raise CborError("a length of no known form")
        return int.from_bytes(self._take(WIDTHS[info]), "big")

    def item(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise CborError("nested too deeply")
        first = self._take(1)[0]
        major, info = first >> 5, first & 31
        if major == UNSIGNED:
            return self._number(info)
        if major == NEGATIVE:
            return -1 - self._number(info)
        if major == BYTES:
            return self._string(BYTES, info)
        if major == TEXT:
            return self._string(TEXT, info).decode()
        if major == ARRAY:
            return list(self._items(info, depth))
        if major == MAP:
            return self._map(info, depth)
        if major == TAG:
            return self._tagged(info, depth)
        return self._simple(info)

    def _string(self, major: int, info: int) -> bytes:
        if info != INDEFINITE:
            return self._take(self._number(info))
        chunks = []
        while (first := self._take(1)[0]) != 0xFF:
            if first >> 5 != major:
                raise CborError("a chunk of another type")
            chunks.append(self._take(self._number(first & 31)))
        return b"".join(chunks)

    def _items(self, info: int, depth: int) -> Any:
        if info != INDEFINITE:
            for _ in range(self._number(info)):
                yield self.item(depth + 1)
            return
        while self._data[self.position : self.position + 1] != b"\xff":
            yield self.item(depth + 1)
        self.position += 1

    def _map(self, info: int, depth: int) -> dict[Any, Any]:
        out = {}
        count = None if info == INDEFINITE else self._number(info)
        while count is None or count > 0:
            if count is None and self._data[self.position : self.position + 1] == b"\xff":
                self.position += 1
                break
            key = self.item(depth + 1)
            out[key] = self.item(depth + 1)
            if count is not None:
                count -= 1
        return out

    def _tagged(self, info: int, depth: int) -> Any:
        tag = self._number(info)
        value = self.item(depth + 1)
        if tag != 1:
            raise CborError(f"tag {tag} is not used by this protocol")
        if type(value) not in (int, float):
            raise CborError("a timestamp is a number")
        return from_epoch(value)

    def _simple(self, info: int) -> Any:
        if info in SIMPLE_VALUES:
            return SIMPLE_VALUES[info]
        if info in FLOATS:
            form, width = FLOATS[info]
            return struct.unpack(form, self._take(width))[0]
        if info == INDEFINITE:
            raise CborError("a stop code where none may be")
        raise CborError("a simple value of no known form")

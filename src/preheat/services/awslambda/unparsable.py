"""Why an invocation's payload is no JSON, in the words of the parser that Lambda uses (Jackson)."""

import re
import unicodedata

LARGEST = 64 * 1024
"""Bytes of the largest payload that is read again for this."""
_SOURCE = "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: {}, column: {}]"
_VALUES = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
_COMMENT = (
    "maybe a (non-standard) comment? (not recognized as one since Feature 'ALLOW_COMMENTS' not enabled for parser)"
)
_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(rb'[ !#-\[\]-\x7f]*')
_MAX_TOKEN = 256


class _Refused(Exception):
    """`text` without its place; `at` is the offset that the place is told of."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.text = text
        self.at = at


def explain(payload: bytes, otherwise: str) -> str:
    """What is wrong with `payload`, and where; `otherwise` for what is too large to be read again, or said to be wrong
    by another parser alone."""
    if len(payload) > LARGEST:
        return otherwise
    try:
        _Reader(payload).read()
    except _Refused as refused:
        return f"{refused.text}\n at {_place(payload, refused.at)}"
    return otherwise


def _place(payload: bytes, at: int) -> str:
    before = payload[:at].replace(b"\r\n", b"\n ").replace(b"\r", b"\n")
    return _SOURCE.format(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))


def _named(code: int) -> str:
    """A character as the parser shows it."""
    if unicodedata.category(chr(code)) == "Cc":
        return f"(CTRL-CHAR, code {code})"
    shown = f"'{chr(code)}' (code {code}"
    return f"{shown} / 0x{code:x})" if code > 255 else f"{shown})"


def _starts_token(code: int) -> bool:
    return unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nl", "Sc", "Pc")


def _continues_token(code: int) -> bool:
    ignorable = code <= 8 or 0x0E <= code <= 0x1B or 0x7F <= code <= 0x9F
    return _starts_token(code) or ignorable or unicodedata.category(chr(code)) in ("Nd", "Mc", "Mn", "Cf")


class _Reader:
    """Reads one value; `at` is the offset of the next byte, `open` the brackets around it and where they are."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0
        self.open: list[tuple[str, int]] = []

    def read(self) -> None:
        """Raises _Refused for the first thing that is wrong."""
        byte = self._next(" in a value")
        while True:
            opened = self._value(byte)
            if opened and self._peek() not in (0x5D, 0x7D):
                byte = self._entry()
                continue
            while self.open:
                byte = self._separator()
                if byte == 0x2C:
                    break
            if not self.open:
                return
            byte = self._entry(within=True)

    def _refuse(self, text: str, at: int | None = None) -> _Refused:
        return _Refused(text, self.at if at is None else at)

    def _unexpected(self, code: int, why: str, at: int | None = None) -> _Refused:
        return self._refuse(f"Unexpected character ({_named(code)}): {why}", self.at - 1 if at is None else at)

    def _skip(self) -> int:
        """The next byte that is no white space, consumed; -1 at the end."""
        while self.at < len(self.payload):
            byte = self.payload[self.at]
            self.at += 1
            if byte > 0x20:
                if byte == 0x2F:
                    raise self._unexpected(byte, _COMMENT)
                return byte
            if byte not in b" \t\r\n":
                only = "only regular white space (\\r, \\n, \\t) is allowed between tokens"
                raise self._refuse(f"Illegal character ({_named(byte)}): {only}")
        return -1

    def _next(self, where: str) -> int:
        byte = self._skip()
        if byte < 0:
            raise self._refuse(f"Unexpected end-of-input{where}")
        return byte

    def _peek(self) -> int:
        """The next byte that is no white space, left where it is. Raises _Refused at the end."""
        byte = self._skip()
        if byte < 0:
            raise self._unclosed()
        self.at -= 1
        return byte

    def _unclosed(self) -> _Refused:
        kind, where = self.open[-1]
        place = _place(self.payload, where)
        return self._refuse(f"Unexpected end-of-input: expected close marker for {kind} (start marker at {place})")

    def _entry(self, within: bool = False) -> int:
        """The first byte of the next value of the bracket, after its name in an object."""
        kind = self.open[-1][0]
        between = f" within/between {kind} entries"
        byte = self._next(between)
        if kind == "Array":
            return byte
        if byte != 0x22:
            code = self._character(byte)
            raise self._unexpected(code, "was expecting double-quote to start field name")
        self._string(" in field name")
        byte = self._next(between)
        if byte != 0x3A:
            raise self._unexpected(byte, "was expecting a colon to separate field name and value")
        return self._next(between)

    def _separator(self) -> int:
        """Consumes a comma, or the bracket's end."""
        byte = self._skip()
        if byte < 0:
            raise self._unclosed()
        if byte == 0x2C:
            return byte
        kind, where = self.open[-1]
        if byte in (0x5D, 0x7D):
            wanted = "]" if kind == "Array" else "}"
            if chr(byte) != wanted:
                raise self._refuse(
                    f"Unexpected close marker '{chr(byte)}': expected '{wanted}' (for {kind} starting at "
                    f"{_place(self.payload, where)})", self.at - 1,
                )  # fmt: skip
            self.open.pop()
            return byte
        raise self._unexpected(byte, f"was expecting comma to separate {kind} entries")

    def _value(self, byte: int) -> bool:
        """Reads a value that begins with `byte`; of an array or an object only the opening, and then says True."""
        if byte in b"[{":
            self.open.append(("Array" if byte == 0x5B else "Object", self.at - 1))
            return True
        if byte == 0x22:
            self._string(" in VALUE_STRING")
        elif byte in b"-0123456789":
            self._number()
        elif byte in b"tfn":
            self._token({0x74: b"true", 0x66: b"false", 0x6E: b"null"}[byte])
        elif byte in b"},]":
            inside = byte != 0x5D or (self.open and self.open[-1][0] == "Array")
            raise self._unexpected(byte, "expected a value" if inside else f"expected a valid value {_VALUES}")
        elif _starts_token(byte):
            raise self._unknown(chr(byte))
        else:
            raise self._unexpected(byte, f"expected a valid value {_VALUES}")
        return False

    def _number(self) -> None:
        found = _NUMBER.match(self.payload, self.at - 1)
        if found is None:
            raise self._refuse("Unexpected end-of-input in a Number value")
        self.at = found.end()
        if found[0] in (b"0", b"-0") and self.payload[self.at : self.at + 1].isdigit():
            raise self._refuse("Invalid numeric value: Leading zeroes not allowed")

    def _token(self, word: bytes) -> None:
        start = self.at - 1
        for index in range(1, len(word)):
            if self.payload[self.at : self.at + 1] != word[index : index + 1]:
                raise self._unknown(word[:index].decode())
            self.at += 1
        if self.at < len(self.payload) and self.payload[self.at] >= 0x30 and self.payload[self.at] not in b"]}":
            after = self.at
            self.at += 1
            code = self._character(self.payload[after])
            self.at = after
            if _continues_token(code):
                raise self._unknown(self.payload[start : self.at].decode())

    def _unknown(self, text: str) -> _Refused:
        """A word that is none of the three; `text` is what has been read of it."""
        while self.at < len(self.payload):
            self.at += 1
            code = self._character(self.payload[self.at - 1])
            if not _continues_token(code):
                break
            text += chr(code)
            if len(text) >= _MAX_TOKEN:
                text += "..."
                break
        return self._refuse(f"Unrecognized token '{text}': was expecting {_VALUES}")

    def _character(self, first: int) -> int:
        """The character whose first byte has been consumed. Raises _Refused for what is no UTF-8."""
        if first < 0x80:
            return first
        leads = ((0xC0, 0xE0, 1), (0xE0, 0xF0, 2), (0xF0, 0xF8, 3))
        found = next(((more, first & ~mask) for lead, mask, more in leads if first & mask == lead), None)
        if found is None:
            raise self._refuse(f"Invalid UTF-8 start byte 0x{first:x}")
        more, code = found
        for _ in range(more):
            if self.at >= len(self.payload):
                raise self._refuse("Unexpected end-of-input in a value")
            byte = self.payload[self.at]
            self.at += 1
            if byte & 0xC0 != 0x80:
                raise self._refuse(f"Invalid UTF-8 middle byte 0x{byte:x}")
            code = code << 6 | byte & 0x3F
        return code if code <= 0x10FFFF else 0xFFFD

    def _string(self, where: str) -> None:
        """The rest of a string after its opening quote."""
        while True:
            found = _PLAIN.match(self.payload, self.at)
            self.at = self.at if found is None else found.end()
            if self.at >= len(self.payload):
                raise self._refuse(f"Unexpected end-of-input{where}")
            byte = self.payload[self.at]
            self.at += 1
            if byte == 0x22:
                return
            if byte == 0x5C:
                self._escape()
            elif byte < 0x20:
                kind = "name" if where == " in field name" else "string value"
                raise self._refuse(
                    f"Illegal unquoted character ({_named(byte)}): has to be escaped using backslash to be included in "
                    f"{kind}"
                )
            else:
                self._character(byte)

    def _escape(self) -> None:
        escape = self.payload[self.at : self.at + 1]
        if not escape:
            raise self._refuse("Unexpected end-of-input in character escape sequence")
        self.at += 1
        if escape in b'btnfr"/\\':
            return
        if escape != b"u":
            raise self._refuse(f"Unrecognized character escape {_named(self._character(escape[0]))}", self.at - 1)
        for _ in range(4):
            if self.at >= len(self.payload):
                raise self._refuse("Unexpected end-of-input in character escape sequence")
            digit = self.payload[self.at]
            self.at += 1
            if digit not in b"0123456789abcdefABCDEF":
                raise self._unexpected(digit, "expected a hex-digit for character escape sequence")

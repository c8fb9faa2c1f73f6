"""A pattern's JSON text read into nodes that know where they stand, so that an error can say so as AWS does.

AWS's rule compiler pulls tokens one by one and reports how far its reader has come. `head` is that place when the token
has just been seen (a string: after its opening quote), `end` when its text has been taken.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"[\w$]+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_LITERALS = {"true": True, "false": False, "null": None}
_SHOWN = 500
_MAX_DEPTH = 100


class PatternError(ValueError):
    """The pattern is not one. `reason` says why, in AWS's words; `line` and `column` (from 1) where, 0 when the reason
    has no place. The text of the error has both, as in an InvalidEventPatternException."""

    def __init__(self, reason: str, source: str = "", offset: int | None = None, *, repeated: bool = False) -> None:
        self.reason = reason
        self.line = self.column = 0
        place = ""
        if offset is not None:
            before = source[:offset]
            self.line = before.count("\n") + 1
            self.column = offset - (before.rfind("\n") + 1) + 1
            shown = source if len(source) <= _SHOWN else f"{source[:_SHOWN]}\"[truncated {len(source) - _SHOWN} chars]"
            quote = '"' if len(source) <= _SHOWN else ""
            place = f'\n at [Source: (String)"{shown}{quote}; line: {self.line}, column: {self.column}]'
        super().__init__(reason + place * (2 if repeated else 1))


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` is "object" (value: list of (name, Node)), "array" (list of Node), "string", "number", "literal" or
    "close", the bracket that ends a container and stands last in its list (in an object under the name "")."""

    kind: str
    value: Any
    head: int
    end: int


class Reader:
    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> Node:
        """The whole text as one node. Raises PatternError."""
        node = self._value(self._skip(0), 0)
        after = self._skip(node.end)
        if after < len(self.text):
            raise self._unexpected(after)
        return node

    def error(self, reason: str, offset: int, *, repeated: bool = False) -> PatternError:
        return PatternError(reason, self.text, offset, repeated=repeated)

    def _skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return at if found is None else found.end()

    def _value(self, at: int, depth: int) -> Node:
        text = self.text
        if at >= len(text):
            raise self.error("Unexpected end-of-input", at)
        if depth > _MAX_DEPTH:
            raise self.error(f"Document nesting depth ({depth}) exceeds the maximum allowed ({_MAX_DEPTH})", at)
        first = text[at]
        if first == "{":
            return self._object(at, depth)
        if first == "[":
            return self._array(at, depth)
        if first == '"':
            value, end = self._string(at)
            return Node("string", value, at + 1, end)
        number = _NUMBER.match(text, at)
        if number is not None:
            whole = number.group().lstrip("-").isdigit()
            value = int(number.group()) if whole and len(number.group()) < 1_000 else float(number.group())
            return Node("number", value, number.end(), number.end())
        word = _WORD.match(text, at)
        if word is not None and word.group() in _LITERALS:
            return Node("literal", _LITERALS[word.group()], word.end(), word.end())
        raise self._unexpected(at)

    def _unexpected(self, at: int) -> PatternError:
        expected = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
        word = _WORD.match(self.text, at)
        if word is not None:
            return self.error(f"Unrecognized token '{word.group()}': was expecting {expected}", word.end())
        return self._stray(at, f"expected a valid value {expected}")

    def _stray(self, at: int, expected: str) -> PatternError:
        if at >= len(self.text):
            return self.error("Unexpected end-of-input", at)
        character = self.text[at]
        return self.error(f"Unexpected character ('{character}' (code {ord(character)})): {expected}", at)

    def _string(self, at: int) -> tuple[str, int]:
        found = _STRING.match(self.text, at)
        if found is None:
            raise self.error("Unexpected end-of-input or illegal character in a string", at + 1)
        return json.loads(found.group()), found.end()

    def _array(self, at: int, depth: int) -> Node:
        items: list[Node] = []
        here = self._skip(at + 1)
        while self.text[here : here + 1] != "]":
            if items:
                if self.text[here : here + 1] != ",":
                    raise self._stray(here, "was expecting comma to separate Array entries")
                here = self._skip(here + 1)
            items.append(self._value(here, depth + 1))
            here = self._skip(items[-1].end)
        items.append(Node("close", None, here + 1, here + 1))
        return Node("array", items, at + 1, here + 1)

    def _object(self, at: int, depth: int) -> Node:
        members: list[tuple[str, Node]] = []
        here = self._skip(at + 1)
        while self.text[here : here + 1] != "}":
            if members:
                if self.text[here : here + 1] != ",":
                    raise self._stray(here, "was expecting comma to separate Object entries")
                here = self._skip(here + 1)
            if self.text[here : here + 1] != '"':
                raise self._stray(here, "was expecting double-quote to start field name")
            name, end = self._string(here)
            here = self._skip(end)
            if self.text[here : here + 1] != ":":
                raise self._stray(here, "was expecting a colon to separate field name and value")
            value = self._value(self._skip(here + 1), depth + 1)
            members.append((name, value))
            here = self._skip(value.end)
        members.append(("", Node("close", None, here + 1, here + 1)))
        return Node("object", members, at + 1, here + 1)

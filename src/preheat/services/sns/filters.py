"""Filter policies: SNS's bounds around the platform's pattern language, and what a message looks like to it."""

import json
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from functools import reduce
from operator import mul
from typing import Any

import msgspec

from preheat.services.patterns import Pattern, PatternError, compile_pattern
from preheat.services.patterns.text import Node, Reader
from preheat.services.sns.domain import invalid

MAX_KEYS = 5
MAX_COMBINATIONS = 150
MAX_BYTES = 262_144
ACCURACY = Decimal("0.00001")
LARGEST_CUT = 1e15
"""Above this a float has no decimal places."""
NOT_EXCLUDED = ("suffix", "equals-ignore-case")
"""Forms of anything-but that SNS does not take."""
SOURCE = "REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled)"
BODY = "MessageBody"
ATTRIBUTES = "MessageAttributes"


@dataclass(frozen=True, slots=True)
class Filter:
    pattern: Pattern
    scope: str


def compile_filter(text: str | None, scope: str, prefix: str = "") -> Filter | None:
    """None for no policy or an empty one. `prefix` begins the reason of an error. Raises InvalidParameter."""
    if not text or not text.strip():
        return None
    if len(text.encode()) > MAX_BYTES:
        raise invalid(f"{prefix}FilterPolicy: Filter policy is too large")
    document = read_json(text, f"{prefix}FilterPolicy")
    if document == {}:
        return None
    try:
        pattern = _compile(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
        cut = _cut(document)
        if cut != document:
            pattern = compile_pattern(cut)
        _compile(text)
    except PatternError as error:
        raise invalid(f"{prefix}FilterPolicy: {error}") from None
    _check_bounds(document, scope, prefix)
    return Filter(pattern, scope)


def _compile(text: str) -> Pattern:
    """Raises PatternError. AWS reads a policy without the spaces in it, and counts columns in that (recorded 2024)."""
    reader = Reader(text)
    _check_operators(reader, reader.read())
    return compile_pattern(text)


def _cut(value: Any) -> Any:
    """The value with all its numbers cut off after five decimal places, which is as far as SNS compares them."""
    if isinstance(value, float):
        return float(Decimal(repr(value)).quantize(ACCURACY, ROUND_DOWN)) if abs(value) < LARGEST_CUT else value
    if isinstance(value, dict):
        return {name: _cut(item) for name, item in value.items()}
    return [_cut(item) for item in value] if isinstance(value, list) else value


def read_json(text: str, name: str) -> dict[str, Any]:
    """An attribute's JSON object. Raises InvalidParameter with the place of the mistake."""
    try:
        node = Reader(text).read()
    except PatternError as error:
        place = f"line: {error.line}, column: {error.column}"
        raise invalid(f"{name}: failed to parse JSON. {error.reason}\n at [Source: {SOURCE}; {place}]") from None
    if node.kind != "object":
        raise invalid(f"{name}: failed to parse JSON. Not an object")
    return json.loads(text)


def _check_operators(reader: Reader, node: Node) -> None:
    """Refuse what other services' patterns have and SNS has not. Raises PatternError."""
    if node.kind == "array":
        for item in node.value:
            _check_operators(reader, item)
    elif node.kind == "object":
        for name, value in node.value:
            if name == "anything-but" and value.kind == "object":
                inner, operand = value.value[0]
                if inner in NOT_EXCLUDED:
                    raise reader.error(f"Unsupported anything-but pattern: {inner}", operand.head)
                if inner == "prefix" and operand.kind not in ("string", "array"):
                    raise reader.error("prefix match pattern must be a string", operand.head)
            _check_operators(reader, value)


def _check_bounds(policy: dict[str, Any], scope: str, prefix: str) -> None:
    if len(_keys(policy)) > MAX_KEYS:
        raise invalid(f"{prefix}FilterPolicy: Filter policy can not have more than {MAX_KEYS} keys")
    if scope == ATTRIBUTES and _nested(policy):
        raise invalid(f"{prefix}Filter policy scope MessageAttributes does not support nested filter policy")
    if _combinations(policy, 1) > MAX_COMBINATIONS:
        raise invalid(f"{prefix}FilterPolicy: Filter policy is too complex")


def _choices(policy: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects inside `$or`."""
    found = policy.get("$or")
    return [choice for choice in found if isinstance(choice, dict)] if isinstance(found, list) else []


def _keys(policy: dict[str, Any]) -> set[str]:
    own = {name for name in policy if name != "$or"}
    return own.union(*(_keys(choice) for choice in _choices(policy)))


def _nested(policy: dict[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in policy.values()) or any(map(_nested, _choices(policy)))


def _combinations(policy: dict[str, Any], depth: int) -> int:
    """The product over all keys of (number of values) x (depth of the key); the choices of `$or` are added up."""
    factors = []
    for name, value in policy.items():
        if isinstance(value, dict):
            factors.append(_combinations(value, depth + 1))
        elif isinstance(value, list) and name != "$or":
            factors.append(max(len(value), 1) * depth)
    choices = _choices(policy)
    if choices:
        factors.append(sum(_combinations(choice, depth) for choice in choices))
    return reduce(mul, factors, 1)


class Subject:
    """A message as filters see it, each side of it made once. `body` is the text that is delivered by default."""

    def __init__(self, attributes: dict[str, Any], body: str) -> None:
        self._given = attributes
        self._body = body
        self._attributes: dict[str, Any] | None = None
        self._document: Any = msgspec.UNSET
        self.malformed = False

    def refuses(self, policy: Filter) -> str | None:
        """None when the message passes, else the suffix of the metric that counts what was filtered out."""
        if policy.scope == BODY:
            document = self._decoded_body()
            if not isinstance(document, dict):
                return "-InvalidMessageBody"
            return None if policy.pattern.matches(document) else "-MessageBody"
        if self._attributes is None:
            self._attributes = self._values()
        if self.malformed:
            return "-InvalidAttributes"
        if policy.pattern.matches(self._attributes):
            return None
        return "-MessageAttributes" if self._given else "-NoMessageAttributes"

    def _decoded_body(self) -> Any:
        if self._document is msgspec.UNSET:
            try:
                self._document = _cut(msgspec.json.decode(self._body))
            except (msgspec.DecodeError, RecursionError):
                self._document = None
        return self._document

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, attribute in self._given.items():
            kind, text = attribute["DataType"], attribute.get("StringValue")
            if text is None:
                continue
            if kind.endswith(".Array"):
                values[name] = self._array(text)
            elif kind.startswith("Number"):
                values[name] = _number(text)
            else:
                values[name] = text
        return values

    def _array(self, text: str) -> list[Any]:
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError:
            found = None
        if not isinstance(found, list) or any(isinstance(item, dict | list) for item in found):
            self.malformed = True
            return []
        return _cut(found)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return _cut(float(text))

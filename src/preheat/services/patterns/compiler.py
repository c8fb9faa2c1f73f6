"""From a pattern's text to a `Pattern`: the grammar of EventBridge's rules, with its error messages."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from preheat.services.patterns.fields import Fields, Membership, flatten, joins
from preheat.services.patterns.leaves import (
    COMPARE,
    AnythingBut,
    Exact,
    Exists,
    IgnoreCase,
    Leaf,
    Numeric,
    Prefix,
    Suffix,
    TooComplex,
    cidr,
    wildcard,
)
from preheat.services.patterns.text import Node, PatternError, Reader

MAX_ALTERNATIVES = 1_000
RESERVED = frozenset(
    {"exactly", "prefix", "suffix", "anything-but", "exists", "numeric", "cidr", "equals-ignore-case", "wildcard"}
)
Alternative = dict[str, tuple[Leaf, ...]]
"""Fields that must all be satisfied, each by one of its leaves, by dotted path."""


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """`alternatives`: what `$or` leaves to choose from; one of them has to hold. `source` is the pattern's text."""

    source: str
    alternatives: tuple[Alternative, ...] = field(repr=False)

    def matches(self, event: dict[str, Any]) -> bool:
        """Whether an event (decoded JSON) matches."""
        return self.matches_fields(flatten(event))

    def matches_fields(self, fields: Fields) -> bool:
        """`matches` for an event that is taken apart already."""
        return any(holds(alternative, fields) for alternative in self.alternatives)


def holds(alternative: Alternative, fields: Fields) -> bool:
    choices: list[list[Membership]] = []
    for path, leaves in alternative.items():
        found = fields.get(path)
        if found is None:
            if not any(leaf.absent for leaf in leaves):
                return False
            continue
        matching = [membership for value, membership in found if any(leaf.test(value) for leaf in leaves)]
        if not matching:
            return False
        if () not in matching:
            choices.append(matching)
    return len(choices) < 2 or joins(choices)


def compile_pattern(pattern: str | dict[str, Any]) -> Pattern:
    """A pattern of its JSON text or of the decoded object. Raises PatternError."""
    text = pattern if isinstance(pattern, str) else json.dumps(pattern, ensure_ascii=False)
    return _Compiler(Reader(text)).compile()


def compile_leaf(entry: Any) -> Leaf:
    """One entry of a pattern's list, decoded: "x", 5, None, {"prefix": "x"}... Raises PatternError."""
    reader = Reader(json.dumps(entry, ensure_ascii=False))
    return _Compiler(reader).entry(reader.read())


class _Compiler:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._error = reader.error
        self._operators: dict[str, Callable[[Node], Leaf]] = {
            "exactly": lambda node: Exact(self._text(node, "exact match pattern must be a string")),
            "prefix": lambda node: self._edge(node, "prefix", Prefix),
            "suffix": lambda node: self._edge(node, "suffix", Suffix),
            "equals-ignore-case": lambda node: IgnoreCase(
                self._text(node, "equals-ignore-case match pattern must be a string").lower()
            ),
            "wildcard": self._wildcard,
            "exists": self._exists,
            "numeric": self._numeric,
            "cidr": self._cidr,
            "anything-but": self._anything_but,
        }

    def compile(self) -> Pattern:
        text = self._reader.text
        if not text.strip():
            raise self._error("Filter is not an object", len(text))
        if text.lstrip()[0] != "{" and text.lstrip()[0] in '["':
            raise self._error("Filter is not an object", len(text) - len(text.lstrip()) + 1)
        root = self._reader.read()
        if root.kind != "object":
            raise self._error("Filter is not an object", root.head)
        return Pattern(text, tuple(self._object(root, "", [{}], inside_or=False)))

    # -- structure ----------------------------------------------------------------------------------------------------

    def _object(self, node: Node, path: str, base: list[Alternative], *, inside_or: bool) -> list[Alternative]:
        """The alternatives of `base`, each with what this object asks for besides."""
        *members, (_, close) = node.value
        if not members:
            raise self._error("Empty objects are not allowed", close.head)
        for name, value in members:
            if name == "$or":
                base = self._or(value, path, base)
                continue
            if inside_or and name in RESERVED:
                raise self._error(
                    f"{name} is Ruler reserved fieldName which cannot be used inside $or.", value.head
                )
            inner = f"{path}.{name}" if path else name
            if value.kind == "object":
                base = self._object(value, inner, base, inside_or=inside_or)
            elif value.kind == "array":
                leaves = self._list(value)
                base = [{**alternative, inner: leaves} for alternative in base]
            else:
                raise self._error(f'"{name}" must be an object or an array', value.head)
        return base

    def _or(self, node: Node, path: str, base: list[Alternative]) -> list[Alternative]:
        if node.kind != "array":
            raise self._error("It must be an Array followed with $or.", node.head)
        *choices, close = node.value
        found: list[Alternative] = []
        for choice in choices:
            if choice.kind != "object":
                raise self._error("Only JSON object is allowed in array of $or relationship.", choice.head)
            found.extend(self._object(choice, path, base, inside_or=True))
            if len(found) > MAX_ALTERNATIVES:
                raise PatternError(f"Rule is too complex: $or gives more than {MAX_ALTERNATIVES} combinations")
        if len(choices) < 2:
            raise self._error("There must have at least 2 Objects in $or relationship.", close.head)
        return found

    def _list(self, node: Node) -> tuple[Leaf, ...]:
        *items, close = node.value
        if not items:
            raise self._error("Empty arrays are not allowed", close.head)
        return tuple(self.entry(item) for item in items)

    def entry(self, node: Node) -> Leaf:
        if node.kind == "object":
            return self._expression(node)
        if node.kind in ("string", "number", "literal"):
            return Exact(node.value)
        raise self._error("Match value must be String, number, true, false, or null", node.head)

    def _expression(self, node: Node) -> Leaf:
        (name, operand), *more = node.value
        if operand.kind == "close":
            raise self._error("Match expression name not found", operand.head)
        make = self._operators.get(name)
        if make is None:
            raise self._error(f"Unrecognized match type {name}", operand.head)
        leaf = make(operand)
        self._only_one(more)
        return leaf

    def _only_one(self, more: list[tuple[str, Node]], reason: str = "Only one key allowed in match expression") -> None:
        if more and more[0][1].kind != "close":
            raise self._error(reason, more[0][1].head)

    # -- operators ----------------------------------------------------------------------------------------------------

    def _text(self, node: Node, reason: str, *, repeated: bool = False) -> str:
        if node.kind != "string":
            raise self._error(reason, node.head, repeated=repeated)
        return node.value

    def _edge(self, node: Node, name: str, kind: type[Prefix] | type[Suffix]) -> Leaf:
        if node.kind == "object":
            (inner, operand), *more = node.value
            if inner != "equals-ignore-case":
                raise self._error(f"Unsupported {name} pattern: {inner}", operand.head)
            leaf = kind(self._text(operand, f"equals-ignore-case {name} match pattern must be a string").lower(), True)
            self._only_one(more)
            return leaf
        return kind(self._text(node, f"{name} match pattern must be a string"))

    def _wildcard(self, node: Node, *, repeated: bool = False) -> Leaf:
        text = self._text(node, "wildcard match pattern must be a string", repeated=repeated)
        try:
            return wildcard(text)
        except TooComplex as error:
            raise PatternError(str(error)) from None
        except ValueError as error:
            raise self._error(str(error), node.end, repeated=repeated) from None

    def _exists(self, node: Node) -> Leaf:
        if node.kind != "literal" or node.value is None:
            raise self._error("exists match pattern must be either true or false.", node.head)
        return Exists(node.value)

    def _cidr(self, node: Node) -> Leaf:
        text = self._text(node, "prefix match pattern must be a string")
        try:
            return cidr(text)
        except ValueError as error:
            raise PatternError(str(error)) from None

    def _numeric(self, node: Node) -> Leaf:
        if node.kind != "array":
            raise self._error("Value of numeric must be an array.", node.head)
        parts: Iterator[Node] = iter(node.value)
        operator, bound = next(parts), next(parts, node.value[-1])
        if operator.kind != "string":
            raise self._error(f"Invalid member in numeric match: {_shown(operator)}", operator.end)
        if operator.value not in COMPARE:
            raise self._error(f"Unrecognized numeric range operator: {operator.value}", bound.head)
        if bound.kind != "number":
            name = "equals" if operator.value == "=" else operator.value
            raise self._error(f"Value of {name} must be numeric", bound.head)
        following = next(parts, bound)
        if following.kind == "close":
            return Numeric(((operator.value, bound.value),))
        if operator.value in ("=", "<", "<="):
            raise self._error("Too many elements in numeric expression", following.head)
        if following.kind != "string":
            raise self._error(f"Bad value in numeric range: {_shown(following)}", following.end)
        if following.value not in ("<", "<="):
            raise self._error(f"Bad numeric range operator: {following.value}", following.end)
        top = next(parts)
        if top.kind != "number":
            raise self._error(f"Value of {following.value} must be numeric", top.head)
        last = next(parts)
        if last.kind != "close":
            raise self._error("Too many terms in numeric range expression", last.head)
        if bound.value >= top.value:
            raise self._error("Bottom must be less than top", last.head)
        return Numeric(((operator.value, bound.value), (following.value, top.value)))

    # -- anything-but -------------------------------------------------------------------------------------------------

    def _anything_but(self, node: Node) -> Leaf:
        if node.kind == "object":
            return self._anything_but_form(node)
        if node.kind == "array":
            return AnythingBut(tuple(self._plain_values(node)))
        if node.kind in ("string", "number"):
            return AnythingBut((Exact(node.value),))
        raise self._error("Value of anything-but must be an array or single string/number value.", node.head)

    def _plain_values(self, node: Node) -> list[Leaf]:
        *items, close = node.value
        kinds = set()
        for item in items:
            if item.kind not in ("string", "number"):
                reason = "Inside anything but list, start|null|boolean is not supported."
                raise self._error(reason, item.head, repeated=True)
            kinds.add(item.kind)
        if len(kinds) != 1:
            raise self._error(
                "Inside anything but list, either all values are number or string, mixed type is not supported",
                close.head,
            )
        return [Exact(item.value) for item in items]

    def _anything_but_form(self, node: Node) -> Leaf:
        (name, operand), *more = node.value
        if operand.kind == "close":
            raise self._error("Anything-But expression name not found", operand.head)
        if name not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise self._error(f"Unsupported anything-but pattern: {name}", operand.head)
        if operand.kind in ("object", "literal"):
            raise self._error("Value of anything-but must be an array or single string/number value.", operand.head)
        listed = operand.kind == "array"
        items = operand.value[:-1] if listed else [operand]
        if not items:
            raise self._error("Empty arrays are not allowed", operand.end)
        excluded = tuple(self._excluded(name, item, repeated=listed) for item in items)
        self._only_one(more)
        return AnythingBut(excluded)

    def _excluded(self, name: str, node: Node, *, repeated: bool) -> Leaf:
        if name == "wildcard":
            return self._wildcard(node, repeated=repeated)
        if name == "equals-ignore-case":
            reason = (
                "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported."
            )
            return IgnoreCase(self._text(node, reason, repeated=repeated).lower())
        text = self._text(node, "prefix/suffix match pattern must be a string", repeated=repeated)
        if not text:
            raise self._error("Null prefix/suffix not allowed", node.end, repeated=repeated)
        return Prefix(text) if name == "prefix" else Suffix(text)


def _shown(node: Node) -> str:
    """A token as an error message quotes it."""
    if node.kind in ("object", "array", "close"):
        return {"object": "{", "array": "[", "close": "]"}[node.kind]
    return node.value if node.kind == "string" else json.dumps(node.value)

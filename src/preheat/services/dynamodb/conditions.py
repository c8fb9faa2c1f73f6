"""Conditions as compiled closures over (item, values)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from preheat.services.dynamodb import paths
from preheat.services.dynamodb.syntax import (
    Among,
    Between,
    Call,
    Compare,
    Document,
    Logic,
    Placeholder,
)
from preheat.services.dynamodb.values import SET_MEMBERS, TYPES, Item, Value, invalid, text_size

Values = Mapping[str, Value]
Test = Callable[[Item, Values], bool]
Read = Callable[[Item, Values], Value | None]

ORDERED_TYPES = frozenset(("S", "N", "B"))
SIZED_TYPES = frozenset(("S", "B", "SS", "NS", "BS", "L", "M"))


@dataclass(frozen=True, slots=True)
class TypeRule:
    """The value of a placeholder must have one of these types in this place."""

    operator: str
    placeholder: str
    allowed: frozenset[str]


@dataclass(frozen=True, slots=True)
class BoundsRule:
    """BETWEEN's two placeholders: one type, in order."""

    low: str
    high: str


@dataclass(frozen=True, slots=True)
class TypeNameRule:
    """attribute_type's second argument names a type."""

    placeholder: str


Rule = TypeRule | BoundsRule | TypeNameRule


def type_of(value: Value) -> str:
    """"S", "N", "M", ..."""
    return next(iter(value))


def compare(left: Value | None, right: Value | None) -> int | None:
    """-1, 0 or 1 for two values of one ordered type, else None."""
    if left is None or right is None:
        return None
    kind = type_of(left)
    if kind not in ORDERED_TYPES or kind not in right:
        return None
    first, second = left[kind], right[kind]
    if kind == "N":
        first, second = Decimal(first), Decimal(second)
    return (first > second) - (first < second)


def measure(value: Value) -> int | None:
    """`size()` of a value, or None where it has none."""
    kind = type_of(value)
    if kind == "S":
        return text_size(value["S"])
    return len(value[kind]) if kind in SIZED_TYPES else None


def check_rules(kind: str, rules: tuple[Rule, ...], values: Values) -> None:
    """Raises ValidationException for values whose types do not fit the places they are used in."""
    for rule in rules:
        if isinstance(rule, TypeRule):
            found = type_of(values[rule.placeholder])
            if found not in rule.allowed:
                raise invalid(
                    f"Invalid {kind}: Incorrect operand type for operator or function; "
                    f"operator or function: {rule.operator}, operand type: {found}"
                )
        elif isinstance(rule, BoundsRule):
            _check_bounds(kind, values[rule.low], values[rule.high])
        else:
            _check_type_name(kind, values[rule.placeholder])


def _check_bounds(kind: str, low: Value, high: Value) -> None:
    shown = f"lower bound operand: AttributeValue: {_show(low)}, upper bound operand: AttributeValue: {_show(high)}"
    if type_of(low) != type_of(high):
        raise invalid(
            f"Invalid {kind}: The BETWEEN operator requires same data type for lower and upper bounds; {shown}"
        )
    if compare(low, high) == 1:
        raise invalid(
            f"Invalid {kind}: The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
            f"{shown}"
        )


def _check_type_name(kind: str, value: Value) -> None:
    found = type_of(value)
    if found != "S":
        raise invalid(
            f"Invalid {kind}: Incorrect operand type for operator or function; "
            f"operator or function: attribute_type, operand type: {found}"
        )
    if value["S"] not in TYPES:
        raise invalid(
            f"Invalid {kind}: Invalid attribute type name found; type: {value['S']}, "
            f"valid types: {{{','.join(TYPES)}}}"
        )


def _show(value: Value) -> str:
    ((kind, content),) = value.items()
    return f"{{{kind}:{content}}}"


class Compiler:
    """Makes closures of nodes; `rules` and `attributes` (top-level names tested) gather on the way."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.attributes: set[str] = set()

    def operand(self, node: Any) -> Read:
        if isinstance(node, Placeholder):
            name = node.name
            return lambda item, values: values[name]
        if isinstance(node, Document):
            path = node.path
            self.attributes.add(path[0])  # type: ignore[arg-type]
            if len(path) == 1:
                first = path[0]
                return lambda item, values: item.get(first)  # type: ignore[arg-type]
            return lambda item, values: paths.read(item, path)
        self._require_types("size", node.arguments[0], SIZED_TYPES)
        inner = self.operand(node.arguments[0])

        def size(item: Item, values: Values) -> Value | None:
            value = inner(item, values)
            length = None if value is None else measure(value)
            return None if length is None else {"N": str(length)}

        return size

    def _require_types(self, operator: str, node: Any, allowed: frozenset[str]) -> None:
        if isinstance(node, Placeholder):
            self.rules.append(TypeRule(operator, node.name, allowed))

    def test(self, node: Any) -> Test:
        if isinstance(node, Compare):
            return self._compare(node)
        if isinstance(node, Logic):
            return self._logic(node)
        if isinstance(node, Between):
            return self._between(node)
        if isinstance(node, Among):
            return self._among(node)
        return self._call(node)

    def _logic(self, node: Logic) -> Test:
        first = self.test(node.parts[0])
        if node.operator == "NOT":
            return lambda item, values: not first(item, values)
        second = self.test(node.parts[1])
        if node.operator == "AND":
            return lambda item, values: first(item, values) and second(item, values)
        return lambda item, values: first(item, values) or second(item, values)

    def _compare(self, node: Compare) -> Test:
        left, right, sign = self.operand(node.left), self.operand(node.right), node.sign
        if sign == "=":

            def equal(item: Item, values: Values) -> bool:
                value = left(item, values)
                return value is not None and value == right(item, values)

            return equal
        if sign == "<>":

            def different(item: Item, values: Values) -> bool:
                value = left(item, values)
                return value is None or value != right(item, values)

            return different
        for side in (node.left, node.right):
            self._require_types(sign, side, ORDERED_TYPES)
        wanted = {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (1, 0)}[sign]
        return lambda item, values: compare(left(item, values), right(item, values)) in wanted

    def _between(self, node: Between) -> Test:
        for part in (node.operand, node.low, node.high):
            self._require_types("BETWEEN", part, ORDERED_TYPES)
        if isinstance(node.low, Placeholder) and isinstance(node.high, Placeholder):
            self.rules.append(BoundsRule(node.low.name, node.high.name))
        operand, low, high = self.operand(node.operand), self.operand(node.low), self.operand(node.high)

        def between(item: Item, values: Values) -> bool:
            value = operand(item, values)
            return compare(value, low(item, values)) in (0, 1) and compare(value, high(item, values)) in (0, -1)

        return between

    def _among(self, node: Among) -> Test:
        operand = self.operand(node.operand)
        options = tuple(self.operand(option) for option in node.options)

        def among(item: Item, values: Values) -> bool:
            value = operand(item, values)
            return value is not None and any(value == option(item, values) for option in options)

        return among

    def _call(self, node: Call) -> Test:
        first = self.operand(node.arguments[0])
        if node.function == "attribute_exists":
            return lambda item, values: first(item, values) is not None
        if node.function == "attribute_not_exists":
            return lambda item, values: first(item, values) is None
        second = self.operand(node.arguments[1])
        if node.function == "attribute_type":
            if not isinstance(node.arguments[1], Placeholder):
                raise invalid(
                    "Invalid ConditionExpression: Operator or function requires a value as its second operand; "
                    "operator or function: attribute_type"
                )
            self.rules.append(TypeNameRule(node.arguments[1].name))

            def has_type(item: Item, values: Values) -> bool:
                value, name = first(item, values), second(item, values)
                return value is not None and name is not None and type_of(value) == name["S"]

            return has_type
        if node.function == "begins_with":
            for argument in node.arguments:
                self._require_types("begins_with", argument, frozenset(("S", "B")))
            return lambda item, values: begins_with(first(item, values), second(item, values))
        return lambda item, values: contains(first(item, values), second(item, values))


def begins_with(value: Value | None, prefix: Value | None) -> bool:
    if value is None or prefix is None:
        return False
    kind = type_of(prefix)
    return kind in ("S", "B") and kind in value and value[kind].startswith(prefix[kind])


def contains(value: Value | None, sought: Value | None) -> bool:
    """Whether a text or blob holds a part, or a list or set a member."""
    if value is None or sought is None:
        return False
    kind = type_of(value)
    if kind == "L":
        return sought in value["L"]
    member = SET_MEMBERS.get(kind, kind if kind in ("S", "B") else "")
    return member in sought and sought[member] in value[kind]

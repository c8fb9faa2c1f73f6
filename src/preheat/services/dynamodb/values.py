"""Attribute values: checked, normalised, measured.

A value is the wire's own shape, a dict with one member (`{"S": "x"}`, `{"N": "1"}`, `{"M": {...}}`). Normalised means:
numbers in their canonical text, sets sorted. Then two values are equal exactly when their dicts are equal.
"""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.dynamodb import numbers

Value = dict[str, Any]
Item = dict[str, Value]

MAX_ITEM_BYTES = 400 * 1024
MAX_NESTING = 32
SET_MEMBERS = {"SS": "S", "NS": "N", "BS": "B"}
TYPES = ("B", "NULL", "SS", "BOOL", "L", "BS", "N", "NS", "S", "M")


def invalid(message: str) -> AwsError:
    """A ValidationException."""
    return AwsError("ValidationException", message)


def invalid_parameter(message: str) -> AwsError:
    """A ValidationException of the family that most item errors belong to."""
    return AwsError("ValidationException", f"One or more parameter values were invalid: {message}")


def text_size(text: str) -> int:
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def normalise(value: Value, depth: int = 0) -> tuple[Value, int]:
    """(the normalised value, its size in bytes). Raises ValidationException for a value that DynamoDB refuses."""
    if len(value) != 1:
        raise invalid(_member_count(value))
    ((kind, content),) = value.items()
    if kind == "S":
        return value, len(content) if content.isascii() else text_size(content)
    if kind == "N":
        number = numbers.canonical(content)
        return (value if number is content else {"N": number}), numbers.size(number)
    if kind == "B":
        return value, len(content)
    if kind == "BOOL":
        return value, 1
    if kind == "NULL":
        if content is not True:
            raise invalid_parameter("Null attribute value types must have the value of true")
        return value, 1
    if kind in SET_MEMBERS:
        return _normalise_set(kind, content)
    if depth >= MAX_NESTING:
        raise invalid("Nesting Levels have exceeded supported limits")
    if kind == "M":
        members = {}
        size = 3
        for name, member in content.items():
            members[name], used = normalise(member, depth + 1)
            size += text_size(name) + used + 1
        return {"M": members}, size
    if kind == "L":
        elements = []
        size = 3
        for element in content:
            normal, used = normalise(element, depth + 1)
            elements.append(normal)
            size += used + 1
        return {"L": elements}, size
    raise invalid(_member_count({}))


def _member_count(value: Value) -> str:
    problem = "has more than one datatypes set" if value else "is empty"
    return f"Supplied AttributeValue {problem}, must contain exactly one of the supported datatypes"


def _normalise_set(kind: str, members: list) -> tuple[Value, int]:
    if not members:
        raise invalid_parameter(
            {
                "SS": "An string set  may not be empty",
                "NS": "An number set  may not be empty",
                "BS": "Binary sets should not be empty",
            }[kind]
        )
    if kind == "NS":
        members = [numbers.canonical(member) for member in members]
    distinct = set(members)
    if len(distinct) != len(members):
        shown = ", ".join(str(member) for member in members)
        raise invalid_parameter(f"Input collection [{shown}] contains duplicates.")
    return make_set(kind, distinct), sum(map(_MEMBER_SIZE[kind], members))


def make_set(kind: str, members: set) -> Value:
    """A normalised set value of distinct members."""
    return {kind: sorted(members, key=_MEMBER_ORDER[kind])}


_MEMBER_SIZE = {"SS": text_size, "NS": numbers.size, "BS": len}
_MEMBER_ORDER = {"SS": lambda text: text.encode("utf-8", "surrogatepass"), "NS": numbers.order_key, "BS": bytes}


def normalise_item(item: Item) -> tuple[Item, int]:
    """(the normalised item, its size in bytes: names and values)."""
    normal: Item = {}
    size = 0
    for name, value in item.items():
        if not name:
            raise invalid_parameter("The attribute name cannot be empty")
        normal[name], used = normalise(value)
        size += used + (len(name) if name.isascii() else text_size(name))
    return normal, size


def value_size(value: Value) -> int:
    """Bytes that a normalised value counts for."""
    ((kind, content),) = value.items()
    if kind == "S":
        return text_size(content)
    if kind == "N":
        return numbers.size(content)
    if kind == "B":
        return len(content)
    if kind == "M":
        return 3 + sum(text_size(name) + value_size(member) + 1 for name, member in content.items())
    if kind == "L":
        return 3 + sum(value_size(element) + 1 for element in content)
    if kind in SET_MEMBERS:
        return sum(map(_MEMBER_SIZE[kind], content))
    return 1


def item_size(item: Item) -> int:
    """Bytes that a normalised item counts for."""
    return sum(text_size(name) + value_size(value) for name, value in item.items())


def order_key(value: Value) -> bytes:
    """Bytes whose unsigned order is DynamoDB's order of values of one scalar type (S, N or B)."""
    ((kind, content),) = value.items()
    if kind == "S":
        return content.encode("utf-8", "surrogatepass")
    if kind == "N":
        return numbers.order_key(content)
    return content

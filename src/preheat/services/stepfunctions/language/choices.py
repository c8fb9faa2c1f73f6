"""The rules of a Choice state."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from preheat.services.stepfunctions.language import paths
from preheat.services.stepfunctions.language.errors import RUNTIME, StateError
from preheat.services.stepfunctions.language.paths import PathError, Scope

_STAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
_ABSENT = object()


def timestamp(value: Any) -> float | None:
    """Epoch seconds of an RFC 3339 text, None for anything else."""
    if not isinstance(value, str) or _STAMP.fullmatch(value) is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC).timestamp()
    except ValueError:
        return None


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


_KINDS: dict[str, Callable[[Any], Any]] = {
    "String": _string, "Numeric": _number, "Boolean": _flag, "Timestamp": timestamp,
}  # fmt: skip
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda left, right: left == right,
    "LessThan": lambda left, right: left < right,
    "GreaterThan": lambda left, right: left > right,
    "LessThanEquals": lambda left, right: left <= right,
    "GreaterThanEquals": lambda left, right: left >= right,
}
COMPARISONS = {
    f"{kind}{order}": (_KINDS[kind], _ORDERS[order])
    for kind in _KINDS
    for order in _ORDERS
    if kind != "Boolean" or order == "Equals"
}
TESTS: dict[str, Callable[[Any], bool]] = {
    "IsNull": lambda value: value is None,
    "IsPresent": lambda value: value is not _ABSENT,
    "IsNumeric": lambda value: _number(value) is not None,
    "IsString": lambda value: isinstance(value, str),
    "IsBoolean": lambda value: isinstance(value, bool),
    "IsTimestamp": lambda value: timestamp(value) is not None,
}
OPERATORS = frozenset({*COMPARISONS, *(f"{name}Path" for name in COMPARISONS), *TESTS, "StringMatches"})


@lru_cache(maxsize=512)
def _wildcard(pattern: str) -> re.Pattern[str]:
    parts = re.findall(r"\\.|\*|[^\\*]+|\\", pattern, re.DOTALL)
    text = "".join(".*" if part == "*" else re.escape(part[1:] if part[:1] == "\\" else part) for part in parts)
    return re.compile(text, re.DOTALL)


def holds(rule: dict[str, Any], scope: Scope) -> bool:
    """Raises States.Runtime where a variable that is compared is not there."""
    if "And" in rule:
        return all(holds(one, scope) for one in rule["And"])
    if "Or" in rule:
        return any(holds(one, scope) for one in rule["Or"])
    if "Not" in rule:
        return not holds(rule["Not"], scope)
    operator = next(name for name in rule if name in OPERATORS)
    expected = rule[operator]
    try:
        value = paths.read(rule["Variable"], scope)
    except PathError:
        if operator != "IsPresent":
            raise StateError(
                RUNTIME, f"Invalid path '{rule['Variable']}': The choice state's condition path references an "
                "invalid value."
            ) from None  # fmt: skip
        value = _ABSENT
    if operator in TESTS:
        return TESTS[operator](value) == expected
    if operator == "StringMatches":
        return isinstance(value, str) and _wildcard(expected).fullmatch(value) is not None
    if operator.endswith("Path"):
        operator = operator.removesuffix("Path")
        try:
            expected = paths.read(expected, scope)
        except PathError as error:
            raise StateError(RUNTIME, str(error)) from None
    kind, order = COMPARISONS[operator]
    left, right = kind(value), kind(expected)
    return left is not None and right is not None and order(left, right)

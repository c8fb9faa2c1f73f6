"""The event pattern language that filters use: compile a pattern once, then ask whether an event matches.

A pattern is a JSON object whose leaves are non-empty lists; every named field must match (and), any entry of a list
suffices (or). Entries are plain values or one of: prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric,
exists; `$or` takes a list of patterns. A list in the event matches when one of its elements does.
"""

import json
import re
from collections.abc import Callable
from typing import Any

Match = Callable[[Any, bool], bool]
"""(value, present) -> does it match."""

Matcher = Callable[[Any], bool]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    "=": lambda value, bound: value == bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


class PatternError(ValueError):
    """The pattern is not one; the text says why."""


def compile_text(text: str) -> Matcher:
    """A matcher of a pattern's JSON text. Raises PatternError."""
    try:
        pattern = json.loads(text)
    except ValueError as error:
        raise PatternError(f"not JSON: {error}") from error
    return compile_pattern(pattern)


def compile_pattern(pattern: Any) -> Matcher:
    """A matcher of a pattern object (a decoded JSON value). Raises PatternError."""
    if not isinstance(pattern, dict):
        raise PatternError("a pattern is a JSON object")
    if not pattern:
        raise PatternError("a pattern names at least one field")
    tests = [_or(value) if key == "$or" else _field(key, value) for key, value in pattern.items()]
    return lambda event: all(test(event) for test in tests)


def _or(choices: Any) -> Matcher:
    if not isinstance(choices, list) or len(choices) < 2:
        raise PatternError("$or takes a list of at least two patterns")
    matchers = [compile_pattern(choice) for choice in choices]
    return lambda event: any(matcher(event) for matcher in matchers)


def _field(key: str, wanted: Any) -> Matcher:
    if isinstance(wanted, dict):
        inner = compile_pattern(wanted)
        return lambda event: _nested(event, key, inner)
    if not isinstance(wanted, list):
        raise PatternError(f'"{key}" must be an object or an array')
    if not wanted:
        raise PatternError("Empty arrays are not allowed")
    entries = [_entry(entry) for entry in wanted]

    def leaf(event: Any) -> bool:
        present = isinstance(event, dict) and key in event
        value = event[key] if present else None
        if isinstance(value, dict):
            present, value = False, None
        if isinstance(value, list) and value:
            return any(entry(item, True) for item in value for entry in entries)
        return any(entry(value, present and value != []) for entry in entries)

    return leaf


def _nested(event: Any, key: str, inner: Matcher) -> bool:
    value = event.get(key) if isinstance(event, dict) else None
    if isinstance(value, list):
        return any(inner(item) for item in value) if value else inner({})
    return inner(value if isinstance(value, dict) else {})


def _entry(entry: Any) -> Match:
    if isinstance(entry, dict):
        if len(entry) != 1:
            raise PatternError("Only one key allowed in match expression")
        ((operator, operand),) = entry.items()
        make = _OPERATORS.get(operator)
        if make is None:
            raise PatternError(f"Unrecognized match type {operator}")
        return make(operand)
    if isinstance(entry, list):
        raise PatternError("a list inside a list is no match expression")
    return lambda value, present: present and _same(value, entry)


def _same(value: Any, wanted: Any) -> bool:
    """Equal and of the same JSON type (true is not 1)."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        return value == wanted
    return type(value) is type(wanted) and value == wanted


def _text(operand: Any, operator: str) -> str:
    if not isinstance(operand, str):
        raise PatternError(f"{operator} match pattern must be a string")
    return operand


def _ignoring_case(operand: Any, operator: str) -> tuple[str, bool]:
    """(text, ignore case) of prefix and suffix, which also take {"equals-ignore-case": text}."""
    if isinstance(operand, dict) and list(operand) == ["equals-ignore-case"]:
        return _text(operand["equals-ignore-case"], operator).lower(), True
    return _text(operand, operator), False


def _prefix(operand: Any) -> Match:
    text, fold = _ignoring_case(operand, "prefix")
    return lambda value, present: isinstance(value, str) and (value.lower() if fold else value).startswith(text)


def _suffix(operand: Any) -> Match:
    text, fold = _ignoring_case(operand, "suffix")
    return lambda value, present: isinstance(value, str) and (value.lower() if fold else value).endswith(text)


def _equals_ignore_case(operand: Any) -> Match:
    text = _text(operand, "equals-ignore-case").lower()
    return lambda value, present: isinstance(value, str) and value.lower() == text


def _wildcard(operand: Any) -> Match:
    text = _text(operand, "wildcard")
    if "**" in text.replace("\\*", ""):
        raise PatternError("Consecutive wildcard characters are not allowed")
    parts, index = [], 0
    while index < len(text):
        if text[index] == "\\" and text[index + 1 : index + 2] in ("*", "\\"):
            parts.append(re.escape(text[index + 1]))
            index += 1
        else:
            parts.append(".*" if text[index] == "*" else re.escape(text[index]))
        index += 1
    compiled = re.compile("".join(parts), re.DOTALL)
    return lambda value, present: isinstance(value, str) and compiled.fullmatch(value) is not None


def _exists(operand: Any) -> Match:
    if not isinstance(operand, bool):
        raise PatternError("exists match pattern must be either true or false.")
    return lambda value, present: present is operand


def _numeric(operand: Any) -> Match:
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise PatternError("numeric takes an operator and a number, once or twice")
    tests = []
    for operator, bound in zip(operand[::2], operand[1::2], strict=True):
        if operator not in _COMPARE:
            raise PatternError(f"Unrecognized numeric range operator: {operator}")
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise PatternError("Value of numeric range must be numeric")
        tests.append((_COMPARE[operator], bound))
    if len(operand) == 4 and not (operand[0].startswith(">") and operand[2].startswith("<")):
        raise PatternError("a numeric range has its lower bound first")

    def match(value: Any, present: bool) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and all(compare(value, bound) for compare, bound in tests)

    return match


def _anything_but(operand: Any) -> Match:
    if isinstance(operand, dict):
        if len(operand) != 1 or next(iter(operand)) not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise PatternError("Unsupported anything-but pattern")
        ((operator, inner),) = operand.items()
        texts = inner if isinstance(inner, list) else [inner]
        if not texts or (operator in ("prefix", "suffix") and "" in texts):
            raise PatternError("Null prefix/suffix not allowed")
        excluded = [_OPERATORS[operator](_text(text, operator)) for text in texts]
    else:
        values = operand if isinstance(operand, list) else [operand]
        if not values or not (
            all(isinstance(value, str) for value in values)
            or all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        ):
            raise PatternError("anything-but takes strings or numbers, not both")
        excluded = [_entry(value) for value in values]
    return lambda value, present: present and not any(test(value, True) for test in excluded)


_OPERATORS: dict[str, Callable[[Any], Match]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
    "exists": _exists,
    "numeric": _numeric,
    "anything-but": _anything_but,
}

"""Checks of single members against a model's constraints, answered in the words of AWS's own validation.

A member that is absent passes. Members are shown with a small first letter, as AWS shows them.
"""

import re
from typing import Any

from preheat.kernel.errors import ValidationError


def violated(member: str, value: Any, constraint: str) -> ValidationError:
    start = f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: "
    return ValidationError(f"{start}Member must {constraint}")


def check_text(given: dict[str, Any], member: str, most: int, pattern: str = "", least: int = 0) -> None:
    """Raises ValidationException for a length outside of `least` to `most`, or a text that is not all `pattern`."""
    value = given.get(member)
    if value is None:
        return
    shown = _shown(member)
    if len(value) > most:
        raise violated(shown, value, f"have length less than or equal to {most}")
    if len(value) < least:
        raise violated(shown, value, f"have length greater than or equal to {least}")
    if pattern and re.fullmatch(pattern, value) is None:
        raise violated(shown, value, f"satisfy regular expression pattern: {pattern}")


def check_choice(given: dict[str, Any], member: str, choices: tuple[str, ...]) -> None:
    value = given.get(member)
    if value is not None and value not in choices:
        raise violated(_shown(member), value, f"satisfy enum value set: [{', '.join(choices)}]")


def check_number(given: dict[str, Any], member: str, least: int, most: int | None = None, path: str = "") -> None:
    """`path` is how the member is shown when it is not the top of the request."""
    value = given.get(member)
    if value is None:
        return
    shown = path or _shown(member)
    if value < least:
        raise violated(shown, value, f"have value greater than or equal to {least}")
    if most is not None and value > most:
        raise violated(shown, value, f"have value less than or equal to {most}")


def _shown(member: str) -> str:
    return member[0].lower() + member[1:]

"""Checks of single members against a model's constraints, answered in the words of AWS's own validation.

A member that is absent passes. Members are shown with a small first letter, as AWS shows them.
"""

import re
from typing import Any

from preheat.kernel.errors import ValidationError


def violated(member: str, value: Any, constraint: str) -> ValidationError:
    return refusal([violation(member, value, f"Member must {constraint}")])


class Violations:
    """What is wrong with a request, gathered from member to member and refused in one answer, as AWS does it."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def text(
        self, given: dict[str, Any], member: str, most: int, pattern: str = "", least: int = 0, path: str = ""
    ) -> None:
        """A length outside of `least` to `most`, and a text that is not all `pattern`, each for itself."""
        value = given.get(member)
        if value is None:
            return
        shown = path or _shown(member)
        if len(value) > most:
            self._add(shown, value, f"have length less than or equal to {most}")
        if len(value) < least:
            self._add(shown, value, f"have length greater than or equal to {least}")
        if pattern and re.fullmatch(pattern, value) is None:
            self._add(shown, value, f"satisfy regular expression pattern: {pattern}")

    def choice(self, given: dict[str, Any], member: str, choices: tuple[str, ...], path: str = "") -> None:
        value = given.get(member)
        if value is not None and value not in choices:
            self._add(path or _shown(member), value, f"satisfy enum value set: [{', '.join(choices)}]")

    def number(
        self, given: dict[str, Any], member: str, least: int, most: int | None = None, path: str = ""
    ) -> None:
        value = given.get(member)
        if value is None:
            return
        shown = path or _shown(member)
        if value < least:
            self._add(shown, value, f"have value greater than or equal to {least}")
        if most is not None and value > most:
            self._add(shown, value, f"have value less than or equal to {most}")

    def _add(self, shown: str, value: Any, constraint: str) -> None:
        self._found.append(violation(shown, value, f"Member must {constraint}"))

    def refuse(self) -> None:
        """Raises ValidationException when anything was found."""
        if self._found:
            raise refusal(self._found)


def check_text(given: dict[str, Any], member: str, most: int, pattern: str = "", least: int = 0) -> None:
    """Raises ValidationException for a length outside of `least` to `most`, or a text that is not all `pattern`."""
    if given.get(member) is None:
        return
    found = Violations()
    found.text(given, member, most, pattern, least)
    found.refuse()


def check_choice(given: dict[str, Any], member: str, choices: tuple[str, ...]) -> None:
    found = Violations()
    found.choice(given, member, choices)
    found.refuse()


def check_number(given: dict[str, Any], member: str, least: int, most: int | None = None, path: str = "") -> None:
    """`path` is how the member is shown when it is not the top of the request."""
    found = Violations()
    found.number(given, member, least, most, path)
    found.refuse()


def violation(member: str, value: Any, constraint: str) -> str:
    return f"Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"


def refusal(found: list[str]) -> ValidationError:
    """Every violation of a request in one ValidationException."""
    counted = "1 validation error" if len(found) == 1 else f"{len(found)} validation errors"
    return ValidationError(f"{counted} detected: {'; '.join(found)}")


def _shown(member: str) -> str:
    return member[0].lower() + member[1:]

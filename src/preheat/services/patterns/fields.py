"""An event taken apart: every scalar in it under its dotted path, with the array elements it lies in.

Two fields may satisfy one pattern together only when they do not contradict each other about arrays: both in the same
element of every array that holds both. `joins` decides that.
"""

from collections.abc import Iterable
from typing import Any

Membership = tuple[tuple[str, int], ...]
"""(array, index) of each array of objects around a value, outermost first."""

Fields = dict[str, list[tuple[Any, Membership]]]
"""By dotted path; a field without a value (an empty list or object) is not there."""


def flatten(event: dict[str, Any]) -> Fields:
    fields: Fields = {}
    for name, value in event.items():
        _add(fields, name, value, ())
    return fields


def _add(fields: Fields, path: str, value: Any, membership: Membership) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _add(fields, f"{path}.{name}", inner, membership)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                array = path if isinstance(item, dict) else f"{path}[]"
                _add_inside(fields, path, item, (*membership, (array, index)))
            else:
                _add(fields, path, item, membership)
    else:
        found = fields.get(path)
        if found is None:
            fields[path] = [(value, membership)]
        else:
            found.append((value, membership))


def _add_inside(fields: Fields, path: str, item: Any, membership: Membership) -> None:
    """An element that is an object or a list: its fields carry on the array's path."""
    if isinstance(item, dict):
        for name, inner in item.items():
            _add(fields, f"{path}.{name}", inner, membership)
    else:
        _add(fields, path, item, membership)


def joins(choices: list[list[Membership]]) -> bool:
    """Whether one membership can be chosen from each list so that no array is in two of its elements at once."""
    choices = [list(dict.fromkeys(memberships)) for memberships in choices]
    states: set[frozenset] = {frozenset()}
    for index, memberships in enumerate(choices):
        later = {array for rest in choices[index + 1 :] for one in rest for array, _ in one}
        states = {
            frozenset(pair for pair in merged if pair[0] in later)
            for state in states
            for one in memberships
            if (merged := _merge(state, one)) is not None
        }
        if not states:
            return False
    return True


def _merge(state: Iterable[tuple[str, int]], membership: Membership) -> set[tuple[str, int]] | None:
    places = dict(state)
    for array, index in membership:
        if places.setdefault(array, index) != index:
            return None
    return set(places.items())

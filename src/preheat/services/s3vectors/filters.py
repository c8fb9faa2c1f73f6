"""Metadata filters of QueryVectors: a document is parsed into a tree, and the tree is evaluated over columns.

`{"k": "v"}` means `$eq`; several keys, or several operators of one key, must all hold. A list of metadata matches when
one of its elements does; `$ne` and `$nin` are the negations, so they hold where the key is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from preheat.services.s3vectors.domain import invalid

MAX_DEPTH = 32
MAX_ENHANCED_CONSTRAINTS = 100
ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": lambda have, want: have > want,
    "$gte": lambda have, want: have >= want,
    "$lt": lambda have, want: have < want,
    "$lte": lambda have, want: have <= want,
}
MISSING = object()


@dataclass(frozen=True, slots=True)
class Test:
    """One key against one operator. `holds(value)` takes the metadata value or MISSING."""

    key: str
    operator: str
    operand: Any

    def holds(self, value: Any) -> bool:
        operator, want = self.operator, self.operand
        if operator == "$exists":
            return (value is not MISSING) == want
        if operator in ("$ne", "$nin"):
            wanted = want if operator == "$nin" else (want,)
            return not any(_same(have, one) for have in _members(value) for one in wanted)
        if operator in ("$eq", "$in"):
            wanted = want if operator == "$in" else (want,)
            return any(_same(have, one) for have in _members(value) for one in wanted)
        if operator == "$startsWith":
            return any(isinstance(have, str) and have.startswith(want) for have in _members(value))
        compare = ORDERED[operator]
        return any(_number(have) and compare(have, want) for have in _members(value))


@dataclass(frozen=True, slots=True)
class Group:
    """`all` or `any` of its members."""

    kind: Literal["all", "any"]
    members: "tuple[Test | Group, ...]"


Filter = Test | Group


def parse(document: Any, non_filterable: tuple[str, ...], mode: str) -> Filter:
    """The filter of a request. Raises ValidationException for what AWS refuses."""
    tree = _parse(document, non_filterable, mode, 1)
    if mode == "ENHANCED" and _count(tree) > MAX_ENHANCED_CONSTRAINTS:
        raise _bad(f"a filter has at most {MAX_ENHANCED_CONSTRAINTS} constraints")
    return tree


def matches(tree: Filter, metadata: dict[str, Any]) -> bool:
    """Does one vector's metadata pass?"""
    if isinstance(tree, Test):
        return tree.holds(metadata.get(tree.key, MISSING))
    passed = (matches(member, metadata) for member in tree.members)
    return all(passed) if tree.kind == "all" else any(passed)


def keys(tree: Filter) -> set[str]:
    """The metadata keys that a filter reads."""
    if isinstance(tree, Test):
        return {tree.key}
    return set().union(*(keys(member) for member in tree.members))


def _parse(document: Any, non_filterable: tuple[str, ...], mode: str, depth: int) -> Filter:
    if not isinstance(document, dict) or not document:
        raise _bad("a filter is a non-empty object")
    if depth > MAX_DEPTH:
        raise _bad(f"a filter is nested at most {MAX_DEPTH} deep")
    members: list[Filter] = []
    for key, value in document.items():
        if key in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise _bad(f"{key} takes a non-empty array of filters")
            inner = tuple(_parse(one, non_filterable, mode, depth + 1) for one in value)
            members.append(Group("all" if key == "$and" else "any", inner))
        elif key.startswith("$"):
            raise _bad(f"unknown operator {key}")
        elif key in non_filterable:
            raise _bad(f"metadata key '{key}' is not filterable")
        else:
            members.extend(_tests(key, value, mode))
    return members[0] if len(members) == 1 else Group("all", tuple(members))


def _tests(key: str, value: Any, mode: str) -> list[Filter]:
    if not isinstance(value, dict):
        return [Test(key, "$eq", _operand(key, "$eq", value, mode))]
    if not value:
        raise _bad(f"metadata key '{key}' has no condition")
    return [Test(key, operator, _operand(key, operator, operand, mode)) for operator, operand in value.items()]


def _operand(key: str, operator: str, value: Any, mode: str) -> Any:
    if operator in ("$eq", "$ne"):
        if _primitive(value):
            return value
        raise _bad(f"{operator} on '{key}' takes a string, number or boolean")
    if operator in ORDERED:
        if _number(value):
            return value
        raise _bad(f"{operator} on '{key}' takes a number")
    if operator in ("$in", "$nin"):
        if isinstance(value, list) and value and all(map(_primitive, value)):
            return tuple(value)
        raise _bad(f"{operator} on '{key}' takes a non-empty array of strings, numbers or booleans")
    if operator == "$exists":
        if isinstance(value, bool):
            return value
        raise _bad(f"$exists on '{key}' takes a boolean")
    if operator == "$startsWith":
        if mode != "ENHANCED":
            raise _bad("$startsWith needs the ENHANCED mode")
        if isinstance(value, str) and value:
            return value
        raise _bad(f"$startsWith on '{key}' takes a non-empty string")
    raise _bad(f"unknown operator {operator}")


def _count(tree: Filter) -> int:
    return 1 if isinstance(tree, Test) else sum(_count(member) for member in tree.members)


def _members(value: Any) -> tuple | list:
    if value is MISSING:
        return ()
    return value if isinstance(value, (tuple, list)) else (value,)


def _same(have: Any, want: Any) -> bool:
    return have == want and isinstance(have, bool) == isinstance(want, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _primitive(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool))


def _bad(problem: str) -> Exception:
    return invalid(f"Invalid query filter: {problem}", ("/filter", problem))

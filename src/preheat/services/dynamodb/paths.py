"""Document paths: `a.b[0]` is `("a", "b", 0)`. Reading, projecting, and the rules for paths used together."""

from collections.abc import Iterable
from typing import Any

from preheat.services.dynamodb.values import Item, Value, invalid

Path = tuple[str | int, ...]
Tree = dict[str | int, "Tree | None"]


def read(item: Item, path: Path) -> Value | None:
    """The value at `path`, or None."""
    value: Any = item.get(path[0])
    for step in path[1:]:
        if value is None:
            return None
        if isinstance(step, str):
            members = value.get("M")
            value = None if members is None else members.get(step)
        else:
            elements = value.get("L")
            value = elements[step] if elements is not None and step < len(elements) else None
    return value


def show(path: Path) -> str:
    """As AWS prints a path in its errors: `[a, b, [0]]`."""
    return "[" + ", ".join(step if isinstance(step, str) else f"[{step}]" for step in path) + "]"


def reject_overlaps(kind: str, paths: Iterable[Path]) -> None:
    """Raises ValidationException when one path contains another, or two use one parent as a map and as a list."""
    seen: list[Path] = []
    for path in paths:
        for other in seen:
            shared = min(len(path), len(other))
            at = next((place for place in range(shared) if path[place] != other[place]), shared)
            if at == shared:
                problem = "overlap with each other"
            elif isinstance(path[at], str) != isinstance(other[at], str):
                problem = "conflict with each other"
            else:
                continue
            raise invalid(
                f"Invalid {kind}: Two document paths {problem}; must remove or rewrite one of these paths; "
                f"path one: {show(other)}, path two: {show(path)}"
            )
        seen.append(path)


def tree(paths: Iterable[Path]) -> Tree:
    """The paths as nested dicts; None marks a whole value."""
    root: Tree = {}
    for path in paths:
        node = root
        for step in path[:-1]:
            below = node.setdefault(step, {})
            if below is None:
                break
            node = below
        else:
            node[path[-1]] = None
    return root


def project(item: Item, wanted: Tree) -> Item:
    """The parts of `item` that the tree names, in their places (list elements close ranks)."""
    out: Item = {}
    for name, below in wanted.items():
        value = item.get(name)  # type: ignore[arg-type]
        if value is not None:
            part = value if below is None else _project_value(value, below)
            if part is not None:
                out[name] = part  # type: ignore[index]
    return out


def _project_value(value: Value, wanted: Tree) -> Value | None:
    if "M" in value:
        members = {}
        for step, below in wanted.items():
            member = value["M"].get(step)
            part = member if member is None or below is None else _project_value(member, below)
            if part is not None:
                members[step] = part
        return {"M": members} if members else None
    if "L" in value:
        elements = []
        for step in sorted(step for step in wanted if isinstance(step, int)):
            if step < len(value["L"]):
                below = wanted[step]
                element = value["L"][step]
                part = element if below is None else _project_value(element, below)
                if part is not None:
                    elements.append(part)
        return {"L": elements} if elements else None
    return None

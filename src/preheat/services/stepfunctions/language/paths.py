"""JSONPath as the states language uses it: `$.a.b[0]`, `$['a']`, `[*]`, slices, unions, `..`, `[?(@.a > 1)]`, the
context object `$$` and variables `$name`.

A path that can name at most one value gives that value; any other gives the list of what it finds.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

Values = Iterator[Any]
_NAME = re.compile(r"[^\s.\[\]()'\"?*,@$!=<>&|]+")
_VARIABLE = re.compile(r"\$([A-Za-z_][\w]{0,79})")
_INDEX = re.compile(r"-?\d+")
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(-?\d+))?")
_COMPARISON = re.compile(r"(==|!=|<=|>=|<|>)")


class PathError(ValueError):
    """The text is no path, or there is nothing at it."""


class Step(NamedTuple):
    """`kind` is "name", "index", "all", "slice", "union", "deep" or "filter"; `what` its argument."""

    kind: str
    what: Any = None


class Path(NamedTuple):
    """`root` is "$", "$$" or a variable's name."""

    text: str
    root: str
    steps: tuple[Step, ...]

    @property
    def definite(self) -> bool:
        return all(step.kind in ("name", "index") for step in self.steps)


class Scope(NamedTuple):
    """What paths read from: the data of `$`, the context object, the variables."""

    data: Any
    context: dict[str, Any]
    variables: dict[str, Any]

    def over(self, data: Any) -> "Scope":
        return self._replace(data=data)


@lru_cache(maxsize=4_096)
def parse(text: str) -> Path:
    """Raises PathError."""
    if not text.startswith("$"):
        raise PathError(f"Invalid path '{text}': it must begin with '$'")
    if text.startswith("$$"):
        root, rest = "$$", text[2:]
    elif (named := _VARIABLE.match(text)) is not None:
        root, rest = named[1], text[named.end() :]
    else:
        root, rest = "$", text[1:]
    return Path(text, root, tuple(_steps(rest, text)))


def reference(text: str) -> Path:
    """A path at which something can be written. Raises PathError."""
    path = parse(text)
    if path.root != "$" or not path.definite:
        raise PathError(f"Invalid path '{text}': it must be a reference path")
    return path


def _steps(rest: str, text: str) -> Iterator[Step]:
    position = 0
    while position < len(rest):
        if rest.startswith("..", position):
            yield Step("deep")
            position += 2
            if position < len(rest) and rest[position] == "[":
                continue
            position, step = _named(rest, position, text)
            yield step
        elif rest[position] == ".":
            position, step = _named(rest, position + 1, text)
            yield step
        elif rest[position] == "[":
            end = _closing(rest, position, text)
            yield _bracket(rest[position + 1 : end].strip(), text)
            position = end + 1
        else:
            raise PathError(f"Invalid path '{text}'")


def _named(rest: str, position: int, text: str) -> tuple[int, Step]:
    if rest.startswith("*", position):
        return position + 1, Step("all")
    found = _NAME.match(rest, position)
    if found is None:
        raise PathError(f"Invalid path '{text}'")
    return found.end(), Step("name", found[0])


def _closing(rest: str, start: int, text: str) -> int:
    depth, quote, position = 0, "", start
    while position < len(rest):
        character = rest[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise PathError(f"Invalid path '{text}'")


def _bracket(inner: str, text: str) -> Step:
    if inner == "*":
        return Step("all")
    if _INDEX.fullmatch(inner):
        return Step("index", int(inner))
    if (part := _SLICE.fullmatch(inner)) is not None:
        return Step("slice", tuple(None if one is None else int(one) for one in part.groups()))
    if inner.startswith("?(") and inner.endswith(")"):
        return Step("filter", _condition(inner[2:-1].strip(), text))
    items = [one.strip() for one in _split(inner, ",")]
    if len(items) > 1:
        return Step("union", tuple(_bracket(one, text) for one in items))
    if len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "'\"":
        return Step("name", re.sub(r"\\(.)", r"\1", inner[1:-1]))
    raise PathError(f"Invalid path '{text}'")


def _split(text: str, separator: str) -> list[str]:
    """At separators that stand in no quotes or brackets."""
    parts, depth, quote, start, position = [], 0, "", 0, 0
    while position < len(text):
        character = text[position]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif depth == 0 and text.startswith(separator, position):
            parts.append(text[start:position])
            position += len(separator)
            start = position
            continue
        position += 1
    return [*parts, text[start:]]


Test = Callable[[Any], bool]


def _condition(text: str, whole: str) -> Test:
    for separator, join in (("||", any), ("&&", all)):
        parts = _split(text, separator)
        if len(parts) > 1:
            tests = [_condition(part.strip(), whole) for part in parts]
            return lambda item, tests=tests, join=join: join(test(item) for test in tests)
    if text.startswith("!"):
        inner = _condition(text[1:].strip(), whole)
        return lambda item: not inner(item)
    if text.startswith("(") and text.endswith(")"):
        return _condition(text[1:-1].strip(), whole)
    sides = _COMPARISON.split(text, maxsplit=1)
    if len(sides) == 1:
        return _presence(text, whole)
    left, operator, right = _operand(sides[0].strip(), whole), sides[1], _operand(sides[2].strip(), whole)
    return lambda item: _compare(left(item), operator, right(item))


def _presence(text: str, whole: str) -> Test:
    path = _item_path(text, whole)
    return lambda item: bool(find(path.steps, item))


def _item_path(text: str, whole: str) -> Path:
    if not text.startswith("@"):
        raise PathError(f"Invalid path '{whole}'")
    return Path(text, "$", tuple(_steps(text[1:], whole)))


def _operand(text: str, whole: str) -> Callable[[Any], Any]:
    if text.startswith("@"):
        path = _item_path(text, whole)
        return lambda item: next(iter(find(path.steps, item)), None)
    if text[:1] == "'" and text[-1:] == "'":
        text = json.dumps(text[1:-1])
    try:
        value = json.loads(text)
    except ValueError:
        raise PathError(f"Invalid path '{whole}'") from None
    return lambda item: value


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator in ("==", "!="):
        return (left == right and isinstance(left, bool) == isinstance(right, bool)) == (operator == "==")
    numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    return {"<": left < right, ">": left > right, "<=": left <= right, ">=": left >= right}[operator]


# -- reading -----------------------------------------------------------------------------------------------------------


def find(steps: tuple[Step, ...], data: Any) -> list[Any]:
    """Everything at a path."""
    found = [data]
    for position, step in enumerate(steps):
        if step.kind == "deep":
            found = [below for item in found for below in _descend(item)]
        else:
            found = [below for item in found for below in _take(step, item)]
        if not found and position < len(steps):
            return []
    return found


def _descend(item: Any) -> Values:
    yield item
    for below in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from _descend(below)


def _take(step: Step, item: Any) -> Values:
    kind, what = step
    if kind == "name":
        if isinstance(item, dict) and what in item:
            yield item[what]
    elif kind == "index":
        if isinstance(item, list) and -len(item) <= what < len(item):
            yield item[what]
    elif kind == "all":
        yield from item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    elif kind == "slice":
        if isinstance(item, list) and what[2] != 0:
            yield from item[slice(*what)]
    elif kind == "union":
        for part in what:
            yield from _take(part, item)
    else:
        below = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        yield from (one for one in below if what(one))


def read(text: str, scope: Scope) -> Any:
    """Raises PathError where a definite path leads nowhere."""
    path = parse(text)
    if path.root == "$":
        data = scope.data
    elif path.root == "$$":
        data = scope.context
    elif path.root in scope.variables:
        data = scope.variables[path.root]
    else:
        raise PathError(f"The variable '${path.root}' is not assigned")
    found = find(path.steps, data)
    if not path.definite:
        return found
    if not found:
        raise PathError(f"Invalid path '{text}' : No results for path: {text}")
    return found[0]


def write(text: str, data: Any, value: Any) -> Any:
    """`data` with `value` at a reference path; objects that are missing on the way are made. Raises PathError."""
    path = reference(text)
    if not path.steps:
        return value
    if not isinstance(data, dict | list):
        raise PathError(f"Unable to apply ReferencePath {text} to input {json.dumps(data)}")
    copy = json.loads(json.dumps(data))
    at: Any = copy
    for position, step in enumerate(path.steps):
        last = position == len(path.steps) - 1
        if step.kind == "name" and isinstance(at, dict):
            if not last and not isinstance(at.get(step.what), dict | list):
                at[step.what] = {}
        elif not (step.kind == "index" and isinstance(at, list) and 0 <= step.what < len(at)):
            raise PathError(f"Unable to apply ReferencePath {text} to input {json.dumps(data)}")
        if last:
            at[step.what] = value
        else:
            at = at[step.what]
    return copy

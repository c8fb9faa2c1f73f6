"""Update expressions: compiled once, applied to an item's state before the update."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preheat.services.dynamodb import numbers, paths
from preheat.services.dynamodb.conditions import Rule, TypeRule, Values, check_rules, type_of
from preheat.services.dynamodb.paths import Path
from preheat.services.dynamodb.syntax import Action, Arithmetic, Call, Document, Placeholder
from preheat.services.dynamodb.values import SET_MEMBERS, Item, Value, invalid, make_set

Read = Callable[[Item, Values], Value]

WRONG_TYPE = "An operand in the update expression has an incorrect data type"
ABSENT = "The provided expression refers to an attribute that does not exist in the item"
NO_PLACE = "The document path provided in the update expression is invalid for update"
_LONG_NAMES = {
    "S": "STRING",
    "N": "NUMBER",
    "B": "BINARY",
    "SS": "STRING_SET",
    "NS": "NUMBER_SET",
    "BS": "BINARY_SET",
    "L": "LIST",
    "M": "MAP",
    "BOOL": "BOOLEAN",
    "NULL": "NULL",
}


@dataclass(frozen=True, slots=True)
class Change:
    section: str
    path: Path
    read: Read | None
    placeholder: str = ""


class UpdatePlan:
    """A compiled update. `attributes` are the top-level names it touches, `kept_paths` those that hold a value
    afterwards, `old_paths` all of them."""

    def __init__(self, actions: tuple[Action, ...]) -> None:
        paths.reject_overlaps("UpdateExpression", (action.path for action in actions))
        self.rules: list[Rule] = []
        changes = [self._change(action) for action in actions]
        removals = [change for change in changes if change.section == "REMOVE"]
        self._changes = tuple(change for change in changes if change.section != "REMOVE")
        self._removals = tuple(sorted(removals, key=lambda change: _removal_order(change.path), reverse=True))
        self.attributes = tuple(dict.fromkeys(action.path[0] for action in actions))
        self._deep = tuple({action.path[0] for action in actions if len(action.path) > 1})
        self.old_paths = paths.tree(action.path for action in actions)
        self.kept_paths = paths.tree(action.path for action in actions if action.section != "REMOVE")

    def check(self, values: Values) -> None:
        """Raises ValidationException for values of types that the expression cannot use."""
        check_rules("UpdateExpression", tuple(self.rules), values)
        for change in self._changes:
            if change.placeholder:
                _check_set_operand(change.section, type_of(values[change.placeholder]))

    def apply(self, item: Item, values: Values) -> Item:
        """The new item; `item` is not changed."""
        new = dict(item)
        for name in self._deep:
            if name in new:
                new[name] = _copy(new[name])  # type: ignore[index]
        results = [
            (change, change.read(item, values) if change.section == "SET" else self._merged(change, item, values))
            for change in self._changes
            if change.read is not None
        ]
        for change, value in sorted(results, key=lambda pair: _removal_order(pair[0].path)):
            if value is None:
                remove(new, change.path)
            else:
                store(new, change.path, value)
        for change in self._removals:
            remove(new, change.path)
        return new

    def _merged(self, change: Change, item: Item, values: Values) -> Value | None:
        assert change.read is not None
        operand = change.read(item, values)
        current = paths.read(item, change.path)
        kind = type_of(operand)
        if current is None:
            return operand if change.section == "ADD" else None
        if kind not in current:
            raise invalid(WRONG_TYPE)
        if kind == "N":
            return {"N": numbers.add(current["N"], operand["N"])}
        members = set(current[kind])
        members = members | set(operand[kind]) if change.section == "ADD" else members - set(operand[kind])
        return make_set(kind, members) if members else None

    def _change(self, action: Action) -> Change:
        if action.section == "REMOVE":
            return Change("REMOVE", action.path, None)
        placeholder = action.operand.name if action.section != "SET" else ""
        return Change(action.section, action.path, self._operand(action.operand), placeholder)

    def _operand(self, node: Any) -> Read:
        if isinstance(node, Placeholder):
            name = node.name
            return lambda item, values: values[name]
        if isinstance(node, Document):
            path = node.path

            def read(item: Item, values: Values) -> Value:
                value = paths.read(item, path)
                if value is None:
                    raise invalid(ABSENT)
                return value

            return read
        if isinstance(node, Arithmetic):
            return self._arithmetic(node)
        return self._call(node)

    def _arithmetic(self, node: Arithmetic) -> Read:
        for part in (node.left, node.right):
            self._require(node.sign, part, "N")
        left, right = self._operand(node.left), self._operand(node.right)
        sign = 1 if node.sign == "+" else -1

        def total(item: Item, values: Values) -> Value:
            first, second = left(item, values), right(item, values)
            if "N" not in first or "N" not in second:
                raise invalid(WRONG_TYPE)
            return {"N": numbers.add(first["N"], second["N"], sign)}

        return total

    def _require(self, operator: str, node: Any, kind: str) -> None:
        if isinstance(node, Placeholder):
            self.rules.append(TypeRule(operator, node.name, frozenset((kind,))))

    def _call(self, node: Call) -> Read:
        if node.function == "if_not_exists":
            path = node.arguments[0].path
            otherwise = self._operand(node.arguments[1])

            def fallback(item: Item, values: Values) -> Value:
                value = paths.read(item, path)
                return otherwise(item, values) if value is None else value

            return fallback
        for part in node.arguments:
            self._require("list_append", part, "L")
        first, second = (self._operand(part) for part in node.arguments)

        def joined(item: Item, values: Values) -> Value:
            head, tail = first(item, values), second(item, values)
            if "L" not in head or "L" not in tail:
                raise invalid(WRONG_TYPE)
            return {"L": [*head["L"], *tail["L"]]}

        return joined


def _check_set_operand(section: str, found: str) -> None:
    if found in SET_MEMBERS or (found == "N" and section == "ADD"):
        return
    raise invalid(
        "Invalid UpdateExpression: Incorrect operand type for operator or function; "
        f"operator: {section}, operand type: {_LONG_NAMES[found]}, typeSet: ALLOWED_FOR_{section}_OPERAND"
    )


def _removal_order(path: Path) -> tuple[tuple[int, Any], ...]:
    return tuple((0, step) if isinstance(step, str) else (1, step) for step in path)


def _copy(value: Value) -> Value:
    if "M" in value:
        return {"M": {name: _copy(member) for name, member in value["M"].items()}}
    if "L" in value:
        return {"L": [_copy(element) for element in value["L"]]}
    return value


def _container(item: Item, path: Path) -> Any:
    """The dict or list that holds the last step of `path`. Raises ValidationException when there is none."""
    if len(path) == 1:
        return item
    parent = paths.read(item, path[:-1])
    inner = None if parent is None else parent.get("M" if isinstance(path[-1], str) else "L")
    if inner is None:
        raise invalid(NO_PLACE)
    return inner


def store(item: Item, path: Path, value: Value) -> None:
    """Put `value` at `path`; a list index past the end appends."""
    container, last = _container(item, path), path[-1]
    if isinstance(last, int) and last >= len(container):
        container.append(value)
    else:
        container[last] = value


def remove(item: Item, path: Path) -> None:
    """Take away what is at `path`, if anything."""
    container, last = _container(item, path), path[-1]
    if isinstance(last, str):
        container.pop(last, None)
    elif last < len(container):
        del container[last]

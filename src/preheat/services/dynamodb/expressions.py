"""A request's expressions: compiled through a cache, with its names and values checked against what they use."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.dynamodb import paths
from preheat.services.dynamodb.conditions import Compiler, Rule, Test, check_rules
from preheat.services.dynamodb.paths import Tree
from preheat.services.dynamodb.syntax import Parser
from preheat.services.dynamodb.updates import UpdatePlan
from preheat.services.dynamodb.values import Item, Value, invalid, normalise

CACHED_EXPRESSIONS = 4_096
Params = dict[str, Any]
Names = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """`meaning` is a Test, an UpdatePlan or a projection's Tree; `node` the parsed condition."""

    kind: str
    meaning: Any
    used_names: frozenset[str]
    used_values: frozenset[str]
    rules: tuple[Rule, ...] = ()
    attributes: frozenset[str] = frozenset()
    node: Any = None


def compile_expression(kind: str, text: str, names: Names) -> Compiled:
    """`kind` is the request member's name. Raises ValidationException."""
    parser = Parser(kind, text, dict(names))
    if kind == "ProjectionExpression":
        wanted = parser.projection()
        paths.reject_overlaps(kind, wanted)
        return _compiled(parser, paths.tree(wanted), attributes=frozenset(str(path[0]) for path in wanted))
    if kind == "UpdateExpression":
        return _compiled(parser, UpdatePlan(parser.update()))
    node = parser.condition()
    compiler = Compiler()
    test = compiler.test(node)
    return _compiled(
        parser, test, rules=tuple(compiler.rules), attributes=frozenset(compiler.attributes), node=node
    )


def _compiled(parser: Parser, meaning: Any, **more: Any) -> Compiled:
    return Compiled(
        parser.kind, meaning, frozenset(parser.used_names), frozenset(parser.used_values), **more
    )


class ExpressionCache:
    """Compiled expressions, least recently used dropped first. One per service instance."""

    def __init__(self) -> None:
        self.compiled = lru_cache(CACHED_EXPRESSIONS)(compile_expression)


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition bound to a request's values."""

    compiled: Compiled
    values: Mapping[str, Value]

    def holds(self, item: Item) -> bool:
        test: Test = self.compiled.meaning
        return test(item, self.values)


@dataclass(frozen=True, slots=True)
class Update:
    """An update bound to a request's values."""

    plan: UpdatePlan
    values: Mapping[str, Value]


class Bindings:
    """The names and values of one request. Ask for each expression, then call `close`."""

    __slots__ = ("_cache", "_names", "_params", "_used_names", "_used_values", "_values")

    def __init__(self, cache: ExpressionCache, params: Params) -> None:
        self._cache = cache
        self._params = params
        names = params.get("ExpressionAttributeNames")
        values = params.get("ExpressionAttributeValues")
        self._names: Names = () if names is None else _check_names(names)
        self._values: dict[str, Value] = {} if values is None else _check_values(values)
        self._used_names: set[str] = set()
        self._used_values: set[str] = set()

    def _compile(self, kind: str) -> Compiled | None:
        text = self._params.get(kind)
        if text is None:
            return None
        compiled = self._cache.compiled(kind, text, self._names)
        for name in compiled.used_values:
            if name not in self._values:
                raise invalid(
                    f"Invalid {kind}: An expression attribute value used in expression is not defined; "
                    f"attribute value: {name}"
                )
        self._used_names |= compiled.used_names
        self._used_values |= compiled.used_values
        return compiled

    def condition(self, kind: str = "ConditionExpression") -> Predicate | None:
        compiled = self._compile(kind)
        if compiled is None:
            return None
        check_rules(kind, compiled.rules, self._values)
        return Predicate(compiled, self._values)

    def update(self) -> Update | None:
        compiled = self._compile("UpdateExpression")
        if compiled is None:
            return None
        compiled.meaning.check(self._values)
        return Update(compiled.meaning, self._values)

    def projection(self) -> Tree | None:
        compiled = self._compile("ProjectionExpression")
        return None if compiled is None else compiled.meaning

    def close(self) -> None:
        """Raises ValidationException when a name or value was given and not used."""
        for member, given, used in (
            ("ExpressionAttributeNames", [name for name, _ in self._names], self._used_names),
            ("ExpressionAttributeValues", self._values, self._used_values),
        ):
            unused = [name for name in given if name not in used]
            if unused:
                raise invalid(f"Value provided in {member} unused in expressions: keys: {{{', '.join(unused)}}}")


EXPRESSION_MEMBERS = (
    "ConditionExpression",
    "UpdateExpression",
    "KeyConditionExpression",
    "FilterExpression",
    "ProjectionExpression",
)


def bind(cache: ExpressionCache, params: Params) -> Bindings | None:
    """The request's bindings, or None when it has no expression at all."""
    for member in EXPRESSION_MEMBERS:
        if member in params:
            return Bindings(cache, params)
    for member in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        if member in params:
            raise invalid(f"{member} can only be specified when using expressions")
    return None


def _check_names(names: Mapping[str, str]) -> Names:
    if not names:
        raise invalid("ExpressionAttributeNames must not be empty")
    for alias, name in names.items():
        if not _is_placeholder(alias, "#"):
            raise invalid(f'ExpressionAttributeNames contains invalid key: Syntax error; key: "{alias}"')
        if not name:
            raise invalid(
                f"ExpressionAttributeNames contains invalid value: Value must not be empty for key {alias}"
            )
    return tuple(names.items())


def _check_values(values: Mapping[str, Value]) -> dict[str, Value]:
    if not values:
        raise invalid("ExpressionAttributeValues must not be empty")
    normal = {}
    for name, value in values.items():
        if not _is_placeholder(name, ":"):
            raise invalid(f'ExpressionAttributeValues contains invalid key: Syntax error; key: "{name}"')
        try:
            normal[name] = normalise(value)[0]
        except AwsError as error:
            raise invalid(
                f"ExpressionAttributeValues contains invalid value: {error.message} for key {name}"
            ) from error
    return normal


def _is_placeholder(text: str, mark: str) -> bool:
    body = text[1:]
    return text[:1] == mark and body != "" and body.isascii() and body.replace("_", "a").isalnum()

"""Query and Scan: key conditions as stretches of an index, pages, filters."""

from typing import Any

from preheat.services.contract import Context
from preheat.services.dynamodb import repository
from preheat.services.dynamodb.capacity import Throttle, Usage, mode_of, read_units, report
from preheat.services.dynamodb.catalog import Catalog
from preheat.services.dynamodb.domain import Index, KeyPart, KeySchema, Table, encode_hash
from preheat.services.dynamodb.expressions import ExpressionCache, Predicate, bind
from preheat.services.dynamodb.legacy import modernise
from preheat.services.dynamodb.paths import Tree, project
from preheat.services.dynamodb.repository import Range
from preheat.services.dynamodb.syntax import Between, Call, Compare, Document, Logic, Placeholder
from preheat.services.dynamodb.values import Item, Value, invalid, invalid_parameter, normalise_item, order_key

Params = dict[str, Any]
MAX_PAGE_BYTES = 1024 * 1024
MAX_SEGMENTS = 1_000_000
SELECTS = ("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES")
_HASH_SPACE = 1 << 32
_MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}
_UNSUPPORTED_KEY = "Query key condition not supported"


class Queries:
    """Query and Scan."""

    def __init__(self, catalog: Catalog, expressions: ExpressionCache, throttle: Throttle) -> None:
        self.catalog = catalog
        self.expressions = expressions
        self.throttle = throttle

    def query(self, ctx: Context, params: Params) -> Params:
        params = modernise(params)
        if "KeyConditionExpression" not in params:
            raise invalid(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."
            )
        keys, kept, wanted = self._expressions(params)
        assert keys is not None
        table, index = self._source(ctx, params)
        schema = table.schema if index is None else index.schema
        if kept is not None:
            for part in schema.parts:
                if part.name in kept.compiled.attributes:
                    raise invalid(
                        "Filter Expression can only contain non-primary key attributes: "
                        f"Primary key attribute: {part.name}"
                    )
        bounds = key_range(schema, keys)
        forward = params.get("ScanIndexForward", True)
        start = self._start(params, table, index)
        if start is not None:
            bounds = _continued(bounds, start, forward)
        return self._page(ctx, params, table, index, bounds, forward, kept, wanted)

    def scan(self, ctx: Context, params: Params) -> Params:
        params = modernise(params)
        _, kept, wanted = self._expressions(params)
        table, index = self._source(ctx, params)
        bounds = _segment(params)
        start = self._start(params, table, index)
        if start is not None:
            outside = (bounds.low is not None and start[:1] < bounds.low) or (
                bounds.high is not None and start[:1] >= bounds.high
            )
            if outside:
                raise invalid("The provided starting key is invalid: the key does not belong to the given segment")
            bounds = bounds._replace(low=start, low_open=True)
        return self._page(ctx, params, table, index, bounds, True, kept, wanted)

    def _expressions(self, params: Params) -> tuple[Predicate | None, Predicate | None, Tree | None]:
        bindings = bind(self.expressions, params)
        if bindings is None:
            return None, None, None
        keys = bindings.condition("KeyConditionExpression")
        kept = bindings.condition("FilterExpression")
        wanted = bindings.projection()
        bindings.close()
        return keys, kept, wanted

    def _source(self, ctx: Context, params: Params) -> tuple[Table, Index | None]:
        table = self.catalog.require(ctx, params)
        limit = params.get("Limit")
        if limit is not None and limit < 1:
            raise invalid(
                f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
                "Member must have value greater than or equal to 1"
            )
        name = params.get("IndexName")
        if name is None:
            self.throttle.admit(table, "read", ctx.now)
            return table, None
        index = table.index(name)
        if not index.active:
            raise invalid(f"Cannot read from backfilling global secondary index: {name}")
        if index.is_global and params.get("ConsistentRead", False):
            raise invalid("Consistent reads are not supported on global secondary indexes")
        self.throttle.admit(table, "read", ctx.now, name)
        return table, index

    def _start(self, params: Params, table: Table, index: Index | None) -> tuple[bytes, ...] | None:
        """The place after which the page begins."""
        key = params.get("ExclusiveStartKey")
        if key is None:
            return None
        parts = {part.name: part for part in table.schema.parts}
        if index is not None:
            parts |= {part.name: part for part in index.schema.parts}
        if set(key) != set(parts):
            raise invalid("The provided starting key is invalid")
        normal = normalise_item(key)[0]
        for name, part in parts.items():
            if part.kind not in normal[name] or not normal[name][part.kind]:
                raise invalid("The provided starting key is invalid")
        place = table.schema.encode(normal)
        return place if index is None else (*index.schema.encode(normal), *place)

    def _page(
        self,
        ctx: Context,
        params: Params,
        table: Table,
        index: Index | None,
        bounds: Range,
        forward: bool,
        kept: Predicate | None,
        wanted: Tree | None,
    ) -> Params:
        view = _view(params, table, index, wanted)
        limit = params.get("Limit")
        items: list[Item] = []
        scanned = used = matched = 0
        last: Item | None = None
        more = False
        for row in repository.read_range(ctx.db, table, index, bounds, forward, limit):
            if scanned and used + row.size > MAX_PAGE_BYTES:
                more = True
                break
            scanned += 1
            used += row.size
            last = row.item
            if kept is None or kept.holds(row.item if index is None else index.view(table, row.item)):
                matched += 1
                if view is not None:
                    items.append(view(row.item))
            if scanned == limit:
                more = True
                break
        out: Params = {"Count": matched, "ScannedCount": scanned}
        if view is not None:
            out["Items"] = items
        if more and last is not None:
            names = table.schema.names if index is None else (*index.schema.names, *table.schema.names)
            out["LastEvaluatedKey"] = {name: last[name] for name in names}
        units = read_units(used, params.get("ConsistentRead", False))
        usage = Usage(table, units) if index is None else Usage(table, 0.0, {index.name: units})
        self.throttle.charge(usage, "read", ctx.now)
        mode = mode_of(params)
        if mode != "NONE":
            out["ConsumedCapacity"] = report(usage, mode)
        return out


def _view(params: Params, table: Table, index: Index | None, wanted: Tree | None) -> Any:
    """What a page shows of an item: a function, or None for a count alone. Raises ValidationException for a Select
    that does not fit."""
    select = params.get("Select")
    if select is not None and select not in SELECTS:
        raise invalid(
            f"1 validation error detected: Value '{select}' at 'select' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(SELECTS)}]"
        )
    if wanted is not None:
        if select not in (None, "SPECIFIC_ATTRIBUTES"):
            what = "only the Count" if select == "COUNT" else select
            raise invalid(f"Cannot specify the ProjectionExpression when choosing to get {what}")
        if index is not None and index.is_global and not index.projects_all():
            missing = [str(name) for name in wanted if name not in index.projected(table)]
            if missing:
                raise invalid_parameter(
                    f"Global secondary index {index.name} does not project [{', '.join(missing)}]"
                )
        return lambda item: project(item, wanted)
    if select == "SPECIFIC_ATTRIBUTES":
        raise invalid("Must specify the AttributesToGet or ProjectionExpression when choosing SPECIFIC_ATTRIBUTES")
    if select == "COUNT":
        return None
    if select == "ALL_PROJECTED_ATTRIBUTES" and index is None:
        raise invalid("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
    if index is None:
        return lambda item: item
    if select == "ALL_ATTRIBUTES":
        if index.is_global and not index.projects_all():
            raise invalid_parameter(
                f"Select type ALL_ATTRIBUTES is not supported for global secondary index {index.name} "
                "because its projection type is not ALL"
            )
        return lambda item: item
    return lambda item: index.view(table, item)


def _continued(bounds: Range, start: tuple[bytes, ...], forward: bool) -> Range:
    """What is left of a query's stretch after `start`. Raises ValidationException when `start` is not in it."""
    low, high = bounds.low or (), bounds.high or ()
    if start[: len(low)] < low or start[: len(high)] > high:
        raise invalid("The provided starting key is outside query boundaries based on provided conditions")
    if forward:
        return bounds._replace(low=start, low_open=True)
    return bounds._replace(high=start, high_open=True)


def _segment(params: Params) -> Range:
    """The stretch of hash space that a parallel scan's segment reads."""
    total, segment = params.get("TotalSegments"), params.get("Segment")
    if total is None and segment is None:
        return Range()
    if total is None:
        raise invalid(
            "The TotalSegments parameter is required but was not present in the request when Segment parameter is "
            "present"
        )
    if segment is None:
        raise invalid(
            "The Segment parameter is required but was not present in the request when parameter TotalSegments is "
            "present"
        )
    if not 1 <= total <= MAX_SEGMENTS:
        bound = "greater than or equal to 1" if total < 1 else f"less than or equal to {MAX_SEGMENTS}"
        raise invalid(
            f"1 validation error detected: Value '{total}' at 'totalSegments' failed to satisfy constraint: "
            f"Member must have value {bound}"
        )
    if not 0 <= segment < total:
        raise invalid(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )
    first, end = (segment * _HASH_SPACE // total, (segment + 1) * _HASH_SPACE // total)
    return Range(
        low=(first.to_bytes(4, "big"),),
        high=None if end == _HASH_SPACE else (end.to_bytes(4, "big"),),
        high_open=True,
    )


# -- key conditions ---------------------------------------------------------------------------------------------------


def key_range(schema: KeySchema, keys: Predicate) -> Range:
    """The stretch that a key condition means. Raises ValidationException for what is not one."""
    conditions: dict[str, tuple[str, list[Value]]] = {}
    for node in _conjuncts(keys.compiled.node):
        name, sign, operands = _key_condition(node)
        if name in conditions:
            raise invalid("KeyConditionExpressions must only contain one condition per key")
        conditions[name] = (sign, [keys.values[operand.name] for operand in operands])
    if schema.hash.name not in conditions:
        raise invalid(f"Query condition missed key schema element: {schema.hash.name}")
    sign, operands = conditions.pop(schema.hash.name)
    if sign != "=":
        raise invalid(_UNSUPPORTED_KEY)
    _require_kind(schema.hash, operands)
    pk = encode_hash(operands[0])
    if not conditions:
        return Range(low=(pk,), high=(pk,))
    if schema.range is None or schema.range.name not in conditions:
        if schema.range is not None:
            raise invalid(f"Query condition missed key schema element: {schema.range.name}")
        raise invalid(_UNSUPPORTED_KEY)
    sign, operands = conditions.pop(schema.range.name)
    if conditions:
        raise invalid(_UNSUPPORTED_KEY)
    _require_kind(schema.range, operands)
    return _sort_range(pk, sign, [order_key(operand) for operand in operands])


def _conjuncts(node: Any) -> list[Any]:
    if isinstance(node, Logic):
        if node.operator != "AND":
            raise invalid(f"Invalid operator used in KeyConditionExpression: {node.operator}")
        return [leaf for part in node.parts for leaf in _conjuncts(part)]
    return [node]


def _key_condition(node: Any) -> tuple[str, str, list[Placeholder]]:
    """(attribute, sign, operands) of one comparison."""
    if isinstance(node, Compare):
        sign, left, right = node.sign, node.left, node.right
        if sign == "<>":
            raise invalid("Invalid operator used in KeyConditionExpression: <>")
        if isinstance(left, Placeholder):
            left, right, sign = right, left, _MIRROR[sign]
        operands = [right]
    elif isinstance(node, Between):
        sign, left, operands = "BETWEEN", node.operand, [node.low, node.high]
    elif isinstance(node, Call) and node.function == "begins_with":
        sign, left, operands = "begins_with", node.arguments[0], [node.arguments[1]]
    else:
        shown = node.function if isinstance(node, Call) else "IN"
        raise invalid(f"Invalid operator used in KeyConditionExpression: {shown}")
    if not isinstance(left, Document):
        raise invalid("Invalid KeyConditionExpression: The expression must have a key attribute on one side;")
    if len(left.path) != 1:
        raise invalid("Key condition expressions cannot contain nested attribute paths")
    if not all(isinstance(operand, Placeholder) for operand in operands):
        raise invalid(_UNSUPPORTED_KEY)
    return str(left.path[0]), sign, operands


def _require_kind(part: KeyPart, operands: list[Value]) -> None:
    for operand in operands:
        if part.kind not in operand:
            raise invalid_parameter("Condition parameter type does not match schema type")
        if not operand[part.kind]:
            kind = "string" if part.kind == "S" else "binary"
            raise invalid(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain "
                f"an empty {kind} value. Key: {part.name}"
            )


def _sort_range(pk: bytes, sign: str, operands: list[bytes]) -> Range:
    low = high = (pk,)
    value = operands[0]
    if sign == "=":
        return Range(low=(pk, value), high=(pk, value))
    if sign in (">", ">="):
        return Range(low=(pk, value), low_open=sign == ">", high=high)
    if sign in ("<", "<="):
        return Range(low=low, high=(pk, value), high_open=sign == "<")
    if sign == "BETWEEN":
        return Range(low=(pk, value), high=(pk, operands[1]))
    end = _after_prefix(value)
    return Range(low=(pk, value), high=high if end is None else (pk, end), high_open=end is not None)


def _after_prefix(prefix: bytes) -> bytes | None:
    """The first key after all that begin with `prefix`, or None when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else None

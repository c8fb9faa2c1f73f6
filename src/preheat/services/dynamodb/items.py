"""Operations on single items and on batches of them."""

from collections.abc import Callable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.services.dynamodb import repository
from preheat.services.dynamodb.capacity import Throttle, Usage, mode_of, read_units, report
from preheat.services.dynamodb.catalog import Catalog
from preheat.services.dynamodb.domain import Key, Table
from preheat.services.dynamodb.expressions import ExpressionCache, Predicate, Update, bind
from preheat.services.dynamodb.legacy import modernise
from preheat.services.dynamodb.paths import Tree, project
from preheat.services.dynamodb.repository import Stored
from preheat.services.dynamodb.values import (
    MAX_ITEM_BYTES,
    Item,
    invalid,
    invalid_parameter,
    item_size,
    normalise_item,
)

Params = dict[str, Any]
MAX_BATCH_WRITES = 25
MAX_BATCH_GETS = 100
MAX_BATCH_BYTES = 16 * 1024 * 1024
GIB = 1024**3
CONDITION_FAILED = "The conditional request failed"


def condition_failed(params: Params, old: Stored | None) -> AwsError:
    fields = {}
    if params.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and old is not None:
        fields["Item"] = old.item
    return AwsError("ConditionalCheckFailedException", CONDITION_FAILED, fields=fields)


def require(params: Params, member: str) -> Any:
    """A member that must be there. Raises ValidationException."""
    value = params.get(member)
    if value is None:
        name = member[0].lower() + member[1:]
        raise invalid(
            f"1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
        )
    return value


def checked_item(table: Table, item: Item) -> tuple[Key, Item, int]:
    """(key, normalised item, size) of an item to be put."""
    normal, size = normalise_item(item)
    key = table.schema.of_item(normal)
    if size > MAX_ITEM_BYTES:
        raise invalid("Item size has exceeded the maximum allowed size")
    return key, normal, size


def updated_item(table: Table, key: Item, old: Stored | None, update: Update | None) -> tuple[Item, int]:
    """(the item after the update, its size)."""
    base = old.item if old is not None else normalise_item(table.schema.only(key))[0]
    if update is None:
        return base, old.size if old is not None else item_size(base)
    new = update.plan.apply(base, update.values)
    size = item_size(new)
    if size > MAX_ITEM_BYTES:
        raise invalid("Item size to update has exceeded the maximum allowed size")
    return new, size


def reject_key_updates(table: Table, update: Update | None) -> None:
    """Raises ValidationException for an update of a key attribute."""
    if update is None:
        return
    for name in update.plan.attributes:
        if name in table.schema.names:
            raise invalid_parameter(f"Cannot update attribute {name}. This attribute is part of the key")


def _return_values(params: Params, allowed: tuple[str, ...]) -> str:
    wanted = params.get("ReturnValues", "NONE")
    for member, known in (
        ("ReturnValuesOnConditionCheckFailure", ("ALL_OLD", "NONE")),
        ("ReturnItemCollectionMetrics", ("SIZE", "NONE")),
    ):
        if params.get(member, "NONE") not in known:
            name = member[0].lower() + member[1:]
            raise invalid(
                f"1 validation error detected: Value '{params[member]}' at '{name}' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(known)}]"
            )
    if wanted in allowed:
        return wanted
    every = ("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW")
    if wanted in every:
        raise invalid("Return values set to invalid value")
    raise invalid(
        f"1 validation error detected: Value '{wanted}' at 'returnValues' failed to satisfy constraint: "
        f"Member must satisfy enum value set: [{', '.join(every)}]"
    )


class Items:
    """PutItem, GetItem, UpdateItem, DeleteItem, BatchGetItem, BatchWriteItem."""

    def __init__(self, catalog: Catalog, expressions: ExpressionCache, throttle: Throttle) -> None:
        self.catalog = catalog
        self.expressions = expressions
        self.throttle = throttle

    # -- writing --------------------------------------------------------------------------------------------------

    def put_item(self, ctx: Context, params: Params) -> Params:
        params = modernise(params)
        wanted = _return_values(params, ("NONE", "ALL_OLD"))
        condition = self._condition(params)
        table = self.catalog.require(ctx, params)
        key, item, size = checked_item(table, require(params, "Item"))
        self.throttle.admit(table, "write", ctx.now)
        old = repository.get(ctx.db, table, key)
        self._demand(ctx, params, table, condition, old)
        changes = repository.write(ctx.db, table, key, old, item, size, ctx.now)
        returned = old.item if wanted == "ALL_OLD" and old is not None else None
        return self._written(ctx, params, table, key, item, (old.size if old else 0, size, changes), returned)

    def delete_item(self, ctx: Context, params: Params) -> Params:
        params = modernise(params)
        wanted = _return_values(params, ("NONE", "ALL_OLD"))
        condition = self._condition(params)
        table = self.catalog.require(ctx, params)
        given = require(params, "Key")
        key = table.schema.of_key(given)
        self.throttle.admit(table, "write", ctx.now)
        old = repository.get(ctx.db, table, key)
        self._demand(ctx, params, table, condition, old)
        changes = {} if old is None else repository.erase(ctx.db, table, key, old)
        returned = old.item if wanted == "ALL_OLD" and old is not None else None
        return self._written(ctx, params, table, key, given, (old.size if old else 0, 0, changes), returned)

    def update_item(self, ctx: Context, params: Params) -> Params:
        params = modernise(params)
        wanted = _return_values(params, ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"))
        bindings = bind(self.expressions, params)
        condition = update = None
        if bindings is not None:
            update, condition = bindings.update(), bindings.condition()
            bindings.close()
        table = self.catalog.require(ctx, params)
        given = require(params, "Key")
        key = table.schema.of_key(given)
        reject_key_updates(table, update)
        self.throttle.admit(table, "write", ctx.now)
        old = repository.get(ctx.db, table, key)
        self._demand(ctx, params, table, condition, old)
        item, size = updated_item(table, given, old, update)
        changes = repository.write(ctx.db, table, key, old, item, size, ctx.now)
        returned = _updated_values(wanted, old, item, update)
        return self._written(ctx, params, table, key, item, (old.size if old else 0, size, changes), returned)

    def _condition(self, params: Params) -> Predicate | None:
        bindings = bind(self.expressions, params)
        if bindings is None:
            return None
        condition = bindings.condition()
        bindings.close()
        return condition

    def _demand(
        self, ctx: Context, params: Params, table: Table, condition: Predicate | None, old: Stored | None
    ) -> None:
        if condition is None or condition.holds({} if old is None else old.item):
            return
        usage = Usage(table)
        usage.add_write(old.size if old else 0, 0, {})
        self.throttle.charge(usage, "write", ctx.now)
        raise condition_failed(params, old)

    def _written(
        self,
        ctx: Context,
        params: Params,
        table: Table,
        key: Key,
        item: Item,
        work: tuple[int, int, dict],
        returned: Item | None,
    ) -> Params:
        usage = Usage(table)
        usage.add_write(*work)
        self.throttle.charge(usage, "write", ctx.now)
        out: Params = {}
        if returned:
            out["Attributes"] = returned
        mode = mode_of(params)
        if mode != "NONE":
            out["ConsumedCapacity"] = report(usage, mode)
        if params.get("ReturnItemCollectionMetrics", "NONE") == "SIZE":
            metrics = collection_metrics(ctx, table, key, item)
            if metrics is not None:
                out["ItemCollectionMetrics"] = metrics
        return out

    # -- reading --------------------------------------------------------------------------------------------------

    def get_item(self, ctx: Context, params: Params) -> Params:
        params = modernise(params)
        wanted = self._projection(params)
        table = self.catalog.require(ctx, params)
        key = table.schema.of_key(require(params, "Key"))
        self.throttle.admit(table, "read", ctx.now)
        stored = repository.get(ctx.db, table, key)
        out: Params = {}
        if stored is not None:
            out["Item"] = stored.item if wanted is None else project(stored.item, wanted)
        usage = Usage(table, read_units(stored.size if stored else 0, params.get("ConsistentRead", False)))
        self.throttle.charge(usage, "read", ctx.now)
        mode = mode_of(params)
        if mode != "NONE":
            out["ConsumedCapacity"] = report(usage, mode)
        return out

    def _projection(self, params: Params) -> Tree | None:
        bindings = bind(self.expressions, params)
        if bindings is None:
            return None
        wanted = bindings.projection()
        bindings.close()
        return wanted

    # -- batches --------------------------------------------------------------------------------------------------

    def batch_get_item(self, ctx: Context, params: Params) -> Params:
        requests = require(params, "RequestItems")
        mode = mode_of(params)
        asked = sum(len(entry.get("Keys", ())) for entry in requests.values())
        _check_batch(requests, asked)
        if asked > MAX_BATCH_GETS:
            raise invalid("Too many items requested for the BatchGetItem call")
        responses: dict[str, list[Item]] = {}
        unprocessed: dict[str, Params] = {}
        usages = []
        room = MAX_BATCH_BYTES
        for name, entry in requests.items():
            given = {
                member: value for member, value in entry.items() if member not in ("Keys", "ConsistentRead")
            }
            wanted = self._projection(modernise(given))
            table = self.catalog.require(ctx, {"TableName": name})
            keys = [table.schema.of_key(key) for key in entry.get("Keys", ())]
            if len(set(keys)) != len(keys):
                raise invalid("Provided list of item keys contains duplicates")
            consistent = entry.get("ConsistentRead", False)
            usage = Usage(table)
            found = responses.setdefault(name, [])
            for key, raw in zip(keys, entry["Keys"], strict=True):
                stored = None
                late = room <= 0 or not self._has_room(ctx, table, "read")
                if not late:
                    stored = repository.get(ctx.db, table, key)
                    room -= stored.size if stored else 0
                if late or room < 0:
                    unprocessed.setdefault(name, {**entry, "Keys": []})["Keys"].append(raw)
                    continue
                step = Usage(table, read_units(stored.size if stored else 0, consistent))
                self.throttle.charge(step, "read", ctx.now)
                usage.base += step.base
                if stored is not None:
                    found.append(stored.item if wanted is None else project(stored.item, wanted))
            usages.append(usage)
        self._require_progress(ctx, requests, unprocessed, asked, "read")
        out: Params = {"Responses": responses, "UnprocessedKeys": unprocessed}
        if mode != "NONE":
            out["ConsumedCapacity"] = [report(usage, mode) for usage in usages]
        return out

    def batch_write_item(self, ctx: Context, params: Params) -> Params:
        requests = require(params, "RequestItems")
        mode = mode_of(params)
        asked = sum(map(len, requests.values()))
        _check_batch(requests, asked)
        if asked > MAX_BATCH_WRITES:
            raise invalid("Too many items requested for the BatchWriteItem call")
        work = []
        total = 0
        for name, entries in requests.items():
            table = self.catalog.require(ctx, {"TableName": name})
            prepared = [self._batch_step(table, entry) for entry in entries]
            keys = {step[0] for step in prepared}
            if len(keys) != len(prepared):
                raise invalid("Provided list of item keys contains duplicates")
            total += sum(step[2] for step in prepared)
            work.append((name, table, entries, prepared))
        if total > MAX_BATCH_BYTES:
            raise invalid("The total size of the items in the BatchWriteItem call exceeds 16 MB")
        unprocessed: dict[str, list] = {}
        usages, metrics = [], {}
        for name, table, entries, prepared in work:
            usage = Usage(table)
            for entry, (key, item, size, is_put) in zip(entries, prepared, strict=True):
                if not self._has_room(ctx, table, "write"):
                    unprocessed.setdefault(name, []).append(entry)
                    continue
                step = Usage(table)
                self._batch_write(ctx, table, step, key, item if is_put else None, size)
                self.throttle.charge(step, "write", ctx.now)
                usage.base += step.base
                for index, units in step.indexes.items():
                    usage.indexes[index] = usage.indexes.get(index, 0.0) + units
                if params.get("ReturnItemCollectionMetrics", "NONE") == "SIZE":
                    found = collection_metrics(ctx, table, key, item)
                    if found is not None:
                        metrics.setdefault(name, []).append(found)
            usages.append(usage)
        self._require_progress(ctx, requests, unprocessed, asked, "write")
        out: Params = {"UnprocessedItems": unprocessed}
        if metrics:
            out["ItemCollectionMetrics"] = metrics
        if mode != "NONE":
            out["ConsumedCapacity"] = [report(usage, mode) for usage in usages]
        return out

    def _batch_step(self, table: Table, entry: Params) -> tuple[Key, Item, int, bool]:
        if len(entry) != 1:
            raise invalid("A WriteRequest must contain exactly one of PutRequest and DeleteRequest")
        if "PutRequest" in entry:
            key, item, size = checked_item(table, require(entry["PutRequest"], "Item"))
            for index in table.indexes:
                index.key_of(item)
            return key, item, size, True
        given = require(entry["DeleteRequest"], "Key")
        return table.schema.of_key(given), given, 0, False

    def _batch_write(self, ctx: Context, table: Table, usage: Usage, key: Key, item: Item | None, size: int) -> None:
        old = repository.get(ctx.db, table, key)
        changes: dict = {}
        if item is not None:
            changes = repository.write(ctx.db, table, key, old, item, size, ctx.now)
        elif old is not None:
            changes = repository.erase(ctx.db, table, key, old)
        usage.add_write(old.size if old else 0, size, changes)

    def _has_room(self, ctx: Context, table: Table, kind: str) -> bool:
        try:
            self.throttle.admit(table, kind, ctx.now)
        except AwsError:
            return False
        return True

    def _require_progress(self, ctx: Context, requests: Params, unprocessed: Params, asked: int, kind: str) -> None:
        """A batch of which nothing could be done is an error."""
        count: Callable[[Any], int] = (
            (lambda left: len(left["Keys"])) if kind == "read" else len
        )
        if unprocessed and sum(map(count, unprocessed.values())) == asked:
            for name in requests:
                self.throttle.admit(self.catalog.require(ctx, {"TableName": name}), kind, ctx.now)


def _check_batch(requests: Params, asked: int) -> None:
    if not requests or asked == 0:
        raise invalid(
            "1 validation error detected: Value '{}' at 'requestItems' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        )


def _updated_values(wanted: str, old: Stored | None, item: Item, update: Update | None) -> Item | None:
    if wanted == "ALL_NEW":
        return item
    if wanted == "ALL_OLD":
        return None if old is None else old.item
    if update is None or wanted == "NONE":
        return None
    if wanted == "UPDATED_NEW":
        return project(item, update.plan.kept_paths)
    return None if old is None else project(old.item, update.plan.old_paths)


def collection_metrics(ctx: Context, table: Table, key: Key, item: Item) -> Params | None:
    """ItemCollectionMetrics of the collection that `item` is in; None for a table without local indexes."""
    if all(index.is_global for index in table.indexes):
        return None
    size = repository.collection_bytes(ctx.db, table, key[0]) / GIB
    name = table.schema.hash.name
    return {"ItemCollectionKey": {name: item[name]}, "SizeEstimateRangeGB": [float(int(size)), float(int(size) + 1)]}

"""TransactWriteItems and TransactGetItems."""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.services.dynamodb import repository
from preheat.services.dynamodb.capacity import Throttle, Usage, mode_of, read_units, report
from preheat.services.dynamodb.catalog import Catalog
from preheat.services.dynamodb.domain import Key, Table
from preheat.services.dynamodb.expressions import ExpressionCache, Predicate, Update, bind
from preheat.services.dynamodb.items import (
    CONDITION_FAILED,
    checked_item,
    collection_metrics,
    reject_key_updates,
    require,
    updated_item,
)
from preheat.services.dynamodb.paths import project
from preheat.services.dynamodb.repository import Stored
from preheat.services.dynamodb.values import Item, invalid

Params = dict[str, Any]
MAX_ACTIONS = 100
MAX_BYTES = 4 * 1024 * 1024
TOKEN_LIFE_S = 600.0
KINDS = ("ConditionCheck", "Put", "Delete", "Update")


@dataclass(slots=True)
class Step:
    """One action of a transaction, understood. `item` and `size` of a Put, `update` of an Update."""

    kind: str
    params: Params
    table: Table
    key: Key
    condition: Predicate | None
    given: Item
    item: Item | None = None
    size: int = 0
    update: Update | None = None
    old: Stored | None = None


def cancelled(reasons: list[Params]) -> AwsError:
    codes = ", ".join(reason["Code"] for reason in reasons)
    return AwsError(
        "TransactionCanceledException",
        f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
        fields={"CancellationReasons": reasons},
    )


class Transactions:
    """TransactWriteItems and TransactGetItems."""

    def __init__(self, catalog: Catalog, expressions: ExpressionCache, throttle: Throttle) -> None:
        self.catalog = catalog
        self.expressions = expressions
        self.throttle = throttle

    def transact_write_items(self, ctx: Context, params: Params) -> Params:
        entries = _entries(params)
        mode = mode_of(params)
        steps = [self._step(ctx, entry) for entry in entries]
        if len({(step.table.id, step.key) for step in steps}) != len(steps):
            raise invalid("Transaction request cannot include multiple operations on one item")
        if sum(step.size for step in steps) > MAX_BYTES:
            raise invalid("The transaction's items exceed the maximum of 4 MB")
        if self._seen_before(ctx, params):
            return self._repeated(steps, mode)
        for step in steps:
            step.old = repository.get(ctx.db, step.table, step.key)
        reasons = [self._judge(step) for step in steps]
        if any(reason["Code"] != "None" for reason in reasons):
            raise cancelled(reasons)
        for step in steps:
            self.throttle.admit(step.table, "write", ctx.now)
        usages: dict[int, Usage] = {}
        metrics: dict[str, list[Params]] = {}
        for step in steps:
            usage = usages.setdefault(step.table.id, Usage(step.table))
            self._apply(ctx, step, usage)
            if params.get("ReturnItemCollectionMetrics", "NONE") == "SIZE" and step.kind != "ConditionCheck":
                found = collection_metrics(ctx, step.table, step.key, step.given)
                if found is not None:
                    metrics.setdefault(step.table.name, []).append(found)
        out: Params = {}
        if metrics:
            out["ItemCollectionMetrics"] = metrics
        for usage in usages.values():
            self.throttle.charge(usage, "write", ctx.now)
        if mode != "NONE":
            out["ConsumedCapacity"] = [report(usage, mode, "Write") for usage in usages.values()]
        return out

    def _step(self, ctx: Context, entry: Params) -> Step:
        kinds = [kind for kind in KINDS if kind in entry]
        if len(kinds) != 1:
            raise invalid("TransactItems can only contain one of Check, Put, Update or Delete")
        kind = kinds[0]
        given = entry[kind]
        bindings = bind(self.expressions, given)
        condition = update = None
        if kind in ("ConditionCheck", "Update"):
            require(given, "ConditionExpression" if kind == "ConditionCheck" else "UpdateExpression")
        if bindings is not None:
            update, condition = bindings.update(), bindings.condition()
            bindings.close()
        table = self.catalog.require(ctx, given)
        if kind == "Put":
            key, item, size = checked_item(table, require(given, "Item"))
            return Step(kind, given, table, key, condition, item, item, size)
        key = table.schema.of_key(require(given, "Key"))
        reject_key_updates(table, update)
        return Step(kind, given, table, key, condition, given["Key"], update=update)

    def _judge(self, step: Step) -> Params:
        """The step's cancellation reason; it computes what an Update will write."""
        old = step.old
        if step.condition is not None and not step.condition.holds({} if old is None else old.item):
            reason: Params = {"Code": "ConditionalCheckFailed", "Message": CONDITION_FAILED}
            if step.params.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and old is not None:
                reason["Item"] = old.item
            return reason
        try:
            if step.kind == "Update":
                step.item, step.size = updated_item(step.table, step.given, old, step.update)
            if step.item is not None:
                for index in step.table.indexes:
                    index.key_of(step.item)
        except AwsError as error:
            return {"Code": "ValidationError", "Message": error.message}
        return {"Code": "None"}

    def _apply(self, ctx: Context, step: Step, usage: Usage) -> None:
        old_size = step.old.size if step.old else 0
        changes: dict = {}
        if step.item is not None:
            changes = repository.write(ctx.db, step.table, step.key, step.old, step.item, step.size, ctx.now)
        elif step.kind == "Delete" and step.old is not None:
            changes = repository.erase(ctx.db, step.table, step.key, step.old)
        usage.add_write(old_size, step.size, changes, factor=2)

    def _seen_before(self, ctx: Context, params: Params) -> bool:
        """Whether this token's transaction was done already. Raises IdempotentParameterMismatchException."""
        token = params.get("ClientRequestToken")
        if token is None:
            return False
        if not 1 <= len(token) <= 36:
            raise invalid(
                f"1 validation error detected: Value '{token}' at 'clientRequestToken' failed to satisfy constraint: "
                "Member must have length less than or equal to 36"
            )
        digest = hashlib.sha256(msgspec.msgpack.encode(params["TransactItems"])).digest()
        row = ctx.db.one(
            "SELECT digest, expires FROM dynamodb_tokens WHERE account = ? AND region = ? AND token = ?",
            *ctx.scope,
            token,
        )
        if row is not None and row[1] > ctx.now:
            if row[0] != digest:
                raise AwsError(
                    "IdempotentParameterMismatchException",
                    "Request parameters do not match the earlier request with the same client request token",
                )
            return True
        ctx.db.run(
            "INSERT OR REPLACE INTO dynamodb_tokens VALUES (?, ?, ?, ?, ?)",
            *ctx.scope,
            token,
            digest,
            ctx.now + TOKEN_LIFE_S,
        )
        ctx.db.notify(repository.UPKEEP_TOPIC)
        return False

    def _repeated(self, steps: list[Step], mode: str) -> Params:
        """A repeated request does nothing and costs the reading of its items."""
        if mode == "NONE":
            return {}
        usages: dict[int, Usage] = {}
        for step in steps:
            usages.setdefault(step.table.id, Usage(step.table)).base += 2 * read_units(step.size, True)
        return {"ConsumedCapacity": [report(usage, mode, "Read") for usage in usages.values()]}

    def transact_get_items(self, ctx: Context, params: Params) -> Params:
        entries = _entries(params)
        mode = mode_of(params)
        responses: list[Params] = []
        usages: dict[int, Usage] = {}
        total = 0
        seen = set()
        for entry in entries:
            given = require(entry, "Get")
            bindings = bind(self.expressions, given)
            wanted = None
            if bindings is not None:
                wanted = bindings.projection()
                bindings.close()
            table = self.catalog.require(ctx, given)
            key = table.schema.of_key(require(given, "Key"))
            if (table.id, key) in seen:
                raise invalid("Transaction request cannot include multiple operations on one item")
            seen.add((table.id, key))
            self.throttle.admit(table, "read", ctx.now)
            stored = repository.get(ctx.db, table, key)
            size = stored.size if stored else 0
            total += size
            usages.setdefault(table.id, Usage(table)).base += 2 * read_units(size, True)
            if stored is None:
                responses.append({})
            else:
                responses.append({"Item": stored.item if wanted is None else project(stored.item, wanted)})
        if total > MAX_BYTES:
            raise invalid("The transaction's items exceed the maximum of 4 MB")
        for usage in usages.values():
            self.throttle.charge(usage, "read", ctx.now)
        out: Params = {"Responses": responses}
        if mode != "NONE":
            out["ConsumedCapacity"] = [report(usage, mode, "Read") for usage in usages.values()]
        return out


def _entries(params: Params) -> list[Params]:
    entries = require(params, "TransactItems")
    if not entries or len(entries) > MAX_ACTIONS:
        bound = "greater than or equal to 1" if not entries else f"less than or equal to {MAX_ACTIONS}"
        raise invalid(
            "1 validation error detected: Value at 'transactItems' failed to satisfy constraint: "
            f"Member must have length {bound}"
        )
    return entries

"""Work that goes on by itself: items past their time to live, rows of deleted tables, new indexes, old tokens."""

from dataclasses import replace

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context
from preheat.services.dynamodb import repository
from preheat.services.dynamodb.catalog import Catalog
from preheat.services.dynamodb.domain import Key, Table

ROWS_PER_STEP = 500


class ExpiryLoop:
    """Deletes items whose time to live has ended, as soon as it has."""

    name = "dynamodb-ttl"
    topics = (repository.TTL_TOPIC,)

    def step(self, ctx: Context) -> float | None:
        rows = ctx.db.all(
            "SELECT id, holding, pk, sk, size, item FROM dynamodb_items WHERE expires <= ? ORDER BY expires LIMIT ?",
            ctx.now,
            ROWS_PER_STEP,
        )
        tables: dict[int, Table | None] = {}
        for row in rows:
            holding = row[1]
            if holding not in tables:
                tables[holding] = repository.load_table_by_id(ctx.db, holding)
            table = tables[holding]
            if table is None:
                ctx.db.run("DELETE FROM dynamodb_items WHERE id = ?", row[0])
                continue
            stored = repository.Stored(row[0], row[4], repository.decode(row[5]))
            repository.erase(ctx.db, table, (row[2], row[3]), stored)
        return ctx.db.value("SELECT MIN(expires) FROM dynamodb_items WHERE expires IS NOT NULL")


class UpkeepLoop:
    """Does the long jobs a few hundred rows at a time and forgets tokens that have had their ten minutes."""

    name = "dynamodb-upkeep"
    topics = (repository.UPKEEP_TOPIC,)

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def step(self, ctx: Context) -> float | None:
        db = ctx.db
        db.run(
            "DELETE FROM dynamodb_tokens WHERE (account, region, token) IN "
            "(SELECT account, region, token FROM dynamodb_tokens WHERE expires <= ? LIMIT ?)",
            ctx.now,
            ROWS_PER_STEP,
        )
        job = db.one("SELECT id, kind, table_id, holding, pk, sk FROM dynamodb_jobs ORDER BY id LIMIT 1")
        if job is None:
            return db.value("SELECT MIN(expires) FROM dynamodb_tokens")
        work = {
            "drop-items": self._drop_items,
            "drop-entries": self._drop_entries,
            "index": self._index,
            "expiry": self._expiry,
        }[job["kind"]]
        position = work(ctx, job["table_id"], job["holding"], (job["pk"], job["sk"]))
        if position is None:
            db.run("DELETE FROM dynamodb_jobs WHERE id = ?", job["id"])
        else:
            db.run("UPDATE dynamodb_jobs SET pk = ?, sk = ? WHERE id = ?", *position, job["id"])
        return ctx.now

    def _drop_items(self, ctx: Context, table_id: int, holding: int, position: Key) -> Key | None:
        gone = ctx.db.run(
            "DELETE FROM dynamodb_items WHERE id IN (SELECT id FROM dynamodb_items WHERE holding = ? LIMIT ?)",
            holding,
            ROWS_PER_STEP,
        )
        return self._dropped(ctx, holding, gone)

    def _drop_entries(self, ctx: Context, table_id: int, holding: int, position: Key) -> Key | None:
        gone = ctx.db.run(
            "DELETE FROM dynamodb_entries WHERE (holding, pk, sk, base_pk, base_sk) IN "
            "(SELECT holding, pk, sk, base_pk, base_sk FROM dynamodb_entries WHERE holding = ? LIMIT ?)",
            holding,
            ROWS_PER_STEP,
        )
        return self._dropped(ctx, holding, gone)

    def _dropped(self, ctx: Context, holding: int, gone: int) -> Key | None:
        if gone == ROWS_PER_STEP:
            return b"", b""
        ctx.db.run("DELETE FROM dynamodb_holdings WHERE id = ?", holding)
        return None

    def _rows(self, ctx: Context, holding: int, position: Key) -> list:
        return ctx.db.all(
            "SELECT id, pk, sk, size, item FROM dynamodb_items WHERE holding = ? AND (pk, sk) > (?, ?) "
            "ORDER BY pk, sk LIMIT ?",
            holding,
            *position,
            ROWS_PER_STEP,
        )

    def _index(self, ctx: Context, table_id: int, holding: int, position: Key) -> Key | None:
        table = repository.load_table_by_id(ctx.db, table_id)
        index = next((entry for entry in table.indexes if entry.holding == holding), None) if table else None
        if table is None or index is None:
            return None
        rows = self._rows(ctx, table.holding, position)
        for row in rows:
            item = repository.decode(row[4])
            try:
                place = index.key_of(item)
            except AwsError:
                continue
            if place is not None:
                size = index.entry_size(table, item, row[3])
                repository.put_entry(ctx.db, index, place, (row[1], row[2]), row[0], size)
        if len(rows) == ROWS_PER_STEP:
            return rows[-1][1], rows[-1][2]
        ready = replace(index, active=True)
        table = replace(table, indexes=tuple(ready if entry is index else entry for entry in table.indexes))
        repository.save_table(ctx.db, table)
        self.catalog.changed(ctx, Arn.parse(table.arn).scope, table.name)
        return None

    def _expiry(self, ctx: Context, table_id: int, holding: int, position: Key) -> Key | None:
        table = repository.load_table_by_id(ctx.db, table_id)
        if table is None:
            return None
        rows = self._rows(ctx, table.holding, position)
        for row in rows:
            expires = table.expiry(repository.decode(row[4]), ctx.now)
            ctx.db.run("UPDATE dynamodb_items SET expires = ? WHERE id = ?", expires, row[0])
        ctx.db.notify(repository.TTL_TOPIC)
        return (rows[-1][1], rows[-1][2]) if len(rows) == ROWS_PER_STEP else None

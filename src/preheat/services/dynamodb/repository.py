"""The SQL of DynamoDB: definitions, items, index entries, long jobs."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from preheat.kernel.scope import Scope
from preheat.services.dynamodb.domain import Index, Key, Table
from preheat.services.dynamodb.values import Item
from preheat.store.database import Database

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder().decode
TTL_TOPIC = "dynamodb:ttl"
UPKEEP_TOPIC = "dynamodb:upkeep"


class Stored(NamedTuple):
    """An item as stored; `id` is its row."""

    id: int
    size: int
    item: Item


class Row(NamedTuple):
    """One step of a read: its place in the table or index, and the item (of the table, whole)."""

    place: tuple[bytes, ...]
    size: int
    item: Item


class Range(NamedTuple):
    """A stretch of a table or index. Bounds are (partition key, sort key) prefixes as stored: `low` inclusive or
    exclusive as `low_open` says, likewise `high`. None leaves a side open."""

    low: tuple[bytes, ...] | None = None
    low_open: bool = False
    high: tuple[bytes, ...] | None = None
    high_open: bool = False


# -- definitions ------------------------------------------------------------------------------------------------------


def load_table(db: Database, scope: Scope, name: str) -> Table | None:
    blob = db.value(
        "SELECT definition FROM dynamodb_tables WHERE account = ? AND region = ? AND name = ?", *scope, name
    )
    return None if blob is None else msgspec.json.decode(blob, type=Table)


def load_table_by_id(db: Database, table_id: int) -> Table | None:
    blob = db.value("SELECT definition FROM dynamodb_tables WHERE id = ?", table_id)
    return None if blob is None else msgspec.json.decode(blob, type=Table)


def add_table(db: Database, scope: Scope, table: Table) -> None:
    db.run(
        "INSERT INTO dynamodb_tables (id, account, region, name, definition) VALUES (?, ?, ?, ?, ?)",
        table.id,
        *scope,
        table.name,
        msgspec.json.encode(table),
    )


def save_table(db: Database, table: Table) -> None:
    db.run("UPDATE dynamodb_tables SET definition = ? WHERE id = ?", msgspec.json.encode(table), table.id)


def delete_table(db: Database, table: Table) -> None:
    """The definition goes at once, the rows in steps."""
    db.run("DELETE FROM dynamodb_tables WHERE id = ?", table.id)
    db.run("DELETE FROM dynamodb_tags WHERE table_id = ?", table.id)
    db.run("DELETE FROM dynamodb_jobs WHERE table_id = ?", table.id)
    for index in table.indexes:
        add_job(db, "drop-entries", table.id, index.holding)
    add_job(db, "drop-items", table.id, table.holding)


def list_names(db: Database, scope: Scope, after: str, limit: int) -> list[str]:
    rows = db.all(
        "SELECT name FROM dynamodb_tables WHERE account = ? AND region = ? AND name > ? ORDER BY name LIMIT ?",
        *scope,
        after,
        limit,
    )
    return [row[0] for row in rows]


def new_holding(db: Database) -> int:
    return db.insert("INSERT INTO dynamodb_holdings (items) VALUES (0)")


def counts(db: Database, holding: int) -> tuple[int, int]:
    """(items, bytes) in a table or index."""
    row = db.one("SELECT items, bytes FROM dynamodb_holdings WHERE id = ?", holding)
    return (0, 0) if row is None else (row[0], row[1])


def _count(db: Database, holding: int, items: int, size: int) -> None:
    if items or size:
        db.run("UPDATE dynamodb_holdings SET items = items + ?, bytes = bytes + ? WHERE id = ?", items, size, holding)


# -- items ------------------------------------------------------------------------------------------------------------


def get(db: Database, table: Table, key: Key) -> Stored | None:
    row = db.one(
        "SELECT id, size, item FROM dynamodb_items WHERE holding = ? AND pk = ? AND sk = ?", table.holding, *key
    )
    return None if row is None else Stored(row[0], row[1], _DECODE(row[2]))


def write(db: Database, table: Table, key: Key, old: Stored | None, item: Item, size: int, now: float) -> dict:
    """Put `item` in the place of `old`. Returns {index name: (size before, size after, moved)} of the entries that
    changed. Raises ValidationException for index keys that do not fit."""
    places = [(index, index.key_of(item)) for index in table.indexes]
    expires = table.expiry(item, now)
    blob = _ENCODE(item)
    if old is None:
        item_id = db.insert(
            "INSERT INTO dynamodb_items (holding, pk, sk, size, expires, item) VALUES (?, ?, ?, ?, ?, ?)",
            table.holding,
            *key,
            size,
            expires,
            blob,
        )
        _count(db, table.holding, 1, size)
    else:
        item_id = old.id
        db.run("UPDATE dynamodb_items SET size = ?, expires = ?, item = ? WHERE id = ?", size, expires, blob, item_id)
        _count(db, table.holding, 0, size - old.size)
    if expires is not None:
        db.notify(TTL_TOPIC)
    changes = {}
    for index, place in places:
        change = _write_entry(db, table, index, place, key, item_id, old, item, size)
        if change is not None:
            changes[index.name] = change
    return changes


def _write_entry(
    db: Database,
    table: Table,
    index: Index,
    place: Key | None,
    key: Key,
    item_id: int,
    old: Stored | None,
    item: Item,
    size: int,
) -> tuple[int, int, bool] | None:
    before = old_place(index, old)
    old_size = 0 if before is None or old is None else index.entry_size(table, old.item, old.size)
    new_size = 0 if place is None else index.entry_size(table, item, size)
    if before == place:
        if place is None or old is None or index.view(table, old.item) == index.view(table, item):
            return None
    elif before is not None:
        remove_entry(db, index, before, key)
    if place is not None:
        put_entry(db, index, place, key, item_id, new_size)
    return old_size, new_size, before != place


def old_place(index: Index, old: Stored | None) -> Key | None:
    """Where a stored item stands in the index: its key attributes may not fit an index that came later."""
    if old is None:
        return None
    for part in index.schema.parts:
        value = old.item.get(part.name)
        if value is None or part.kind not in value or not value[part.kind]:
            return None
    return index.schema.encode(old.item)


def put_entry(db: Database, index: Index, place: Key, key: Key, item_id: int, size: int) -> None:
    remove_entry(db, index, place, key)
    db.run(
        "INSERT INTO dynamodb_entries (holding, pk, sk, base_pk, base_sk, item_id, size) VALUES (?, ?, ?, ?, ?, ?, ?)",
        index.holding,
        *place,
        *key,
        item_id,
        size,
    )
    _count(db, index.holding, 1, size)


def remove_entry(db: Database, index: Index, place: Key, key: Key) -> None:
    for row in db.returning(
        "DELETE FROM dynamodb_entries WHERE holding = ? AND pk = ? AND sk = ? AND base_pk = ? AND base_sk = ? "
        "RETURNING size",
        index.holding,
        *place,
        *key,
    ):
        _count(db, index.holding, -1, -row[0])


def erase(db: Database, table: Table, key: Key, old: Stored) -> dict:
    """Delete a stored item and its entries; returns what `write` returns."""
    db.run("DELETE FROM dynamodb_items WHERE id = ?", old.id)
    _count(db, table.holding, -1, -old.size)
    changes = {}
    for index in table.indexes:
        place = old_place(index, old)
        if place is not None:
            remove_entry(db, index, place, key)
            changes[index.name] = (index.entry_size(table, old.item, old.size), 0, True)
    return changes


def collection_bytes(db: Database, table: Table, pk: bytes) -> int:
    """Bytes of all items that share a partition key, and of their entries in local indexes."""
    total = db.value("SELECT SUM(size) FROM dynamodb_items WHERE holding = ? AND pk = ?", table.holding, pk) or 0
    for index in table.indexes:
        if not index.is_global:
            total += (
                db.value("SELECT SUM(size) FROM dynamodb_entries WHERE holding = ? AND pk = ?", index.holding, pk) or 0
            )
    return total


# -- reading a range --------------------------------------------------------------------------------------------------

FIRST_CHUNK = 24
MAX_CHUNK = 1_000
_TABLE_COLUMNS = ("pk", "sk")
_ENTRY_COLUMNS = ("e.pk", "e.sk", "e.base_pk", "e.base_sk")


def read_range(
    db: Database, table: Table, index: Index | None, bounds: Range, forward: bool, most: int | None = None
) -> Iterator[Row]:
    """The rows of a stretch in order, fetched in chunks as they are asked for; `most` is how many may be wanted."""
    start = bounds.low if forward else bounds.high
    start_open = bounds.low_open if forward else bounds.high_open
    limit = FIRST_CHUNK if most is None else min(FIRST_CHUNK, most)
    while True:
        chunk = (
            bounds._replace(low=start, low_open=start_open)
            if forward
            else bounds._replace(high=start, high_open=start_open)
        )
        rows = _chunk(db, table, index, chunk, forward, limit)
        yield from rows
        if len(rows) < limit:
            return
        start, start_open = rows[-1].place, True
        average = max(1, sum(row.size for row in rows) // len(rows))
        limit = max(FIRST_CHUNK, min(MAX_CHUNK, 1_048_576 // average))


def _chunk(db: Database, table: Table, index: Index | None, bounds: Range, forward: bool, limit: int) -> list[Row]:
    columns = _TABLE_COLUMNS if index is None else _ENTRY_COLUMNS
    where = ["holding = ?" if index is None else "e.holding = ?"]
    values: list = [table.holding if index is None else index.holding]
    low, high = bounds.low, bounds.high
    if low is not None and high is not None and low[0] == high[0]:
        where.append(f"{columns[0]} = ?")
        values.append(low[0])
        columns_left = columns[1:]
        low, high = low[1:] or None, high[1:] or None
    else:
        columns_left = columns
    for bound, sign in ((low, ">" if bounds.low_open else ">="), (high, "<" if bounds.high_open else "<=")):
        if bound is not None:
            width = len(bound)
            where.append(f"({', '.join(columns_left[:width])}) {sign} ({', '.join('?' * width)})")
            values += bound
    direction = "ASC" if forward else "DESC"
    order = ", ".join(f"{column} {direction}" for column in columns_left)
    shown = ", ".join(columns)
    if index is None:
        source = f"SELECT {shown}, size, item FROM dynamodb_items"
    else:
        source = f"SELECT {shown}, e.size, i.item FROM dynamodb_entries e JOIN dynamodb_items i ON i.id = e.item_id"
    rows = db.all(f"{source} WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?", *values, limit)
    width = len(columns)
    return [Row(tuple(row[:width]), row[width], _DECODE(row[width + 1])) for row in rows]


# -- long jobs --------------------------------------------------------------------------------------------------------


def add_job(db: Database, kind: str, table_id: int, holding: int) -> None:
    db.run("INSERT INTO dynamodb_jobs (kind, table_id, holding) VALUES (?, ?, ?)", kind, table_id, holding)
    db.notify(UPKEEP_TOPIC)


def decode(blob: bytes) -> Item:
    """A stored item's bytes as an item."""
    return _DECODE(blob)


def drop_index(db: Database, table: Table, index: Index) -> None:
    """The index's entries go in steps."""
    db.run("DELETE FROM dynamodb_jobs WHERE holding = ?", index.holding)
    add_job(db, "drop-entries", table.id, index.holding)

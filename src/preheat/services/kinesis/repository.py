"""Streams, shards and records as rows."""

import json
from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.kinesis.domain import HIGHEST_HASH, Held, Shard, Stream
from preheat.store.database import Database

_STREAM = ", ".join(Stream._fields)
_SHARD = ", ".join(Shard._fields)


def topic(arn: str) -> str:
    """Notified when records arrive in a stream, or its shards change."""
    return f"kinesis:{arn}"


def find(db: Database, scope: Scope, name: str) -> Stream | None:
    row = db.one(f"SELECT {_STREAM} FROM kinesis_streams WHERE account = ? AND region = ? AND name = ?", *scope, name)
    return None if row is None else Stream(*row)


def by_row(db: Database, row: int) -> Stream | None:
    found = db.one(f"SELECT {_STREAM} FROM kinesis_streams WHERE row = ?", row)
    return None if found is None else Stream(*found)


def streams(db: Database, scope: Scope, after: str, most: int) -> list[Stream]:
    found = db.all(
        f"SELECT {_STREAM} FROM kinesis_streams WHERE account = ? AND region = ? AND name > ? ORDER BY name LIMIT ?",
        *scope, after, most,
    )  # fmt: skip
    return [Stream(*row) for row in found]


def add(db: Database, scope: Scope, name: str, now: float, active_at: float, mode: str, most_kib: int,
        tags: dict[str, str]) -> int:  # fmt: skip
    return db.insert(
        "INSERT INTO kinesis_streams (account, region, name, created, active_at, mode, retention_h, most_kib, metrics,"
        " tags) VALUES (?, ?, ?, ?, ?, ?, 24, ?, '[]', ?)",
        *scope, name, now, active_at, mode, most_kib, json.dumps(tags),
    )  # fmt: skip


def change(db: Database, stream: Stream, **values: Any) -> None:
    sets = ", ".join(f"{name} = ?" for name in values)
    db.run(f"UPDATE kinesis_streams SET {sets} WHERE row = ?", *values.values(), stream.row)


def remove(db: Database, stream: Stream) -> None:
    """The stream and its shards go now, its records bit by bit."""
    db.run("DELETE FROM kinesis_streams WHERE row = ?", stream.row)
    db.run("DELETE FROM kinesis_shards WHERE stream = ?", stream.row)
    db.run("INSERT OR IGNORE INTO kinesis_debris VALUES (?)", stream.row)


def next_counters(db: Database, count: int) -> int:
    """The first of `count` fresh values."""
    rows = db.returning(
        "INSERT INTO kinesis_counters VALUES ('sequence', ?) ON CONFLICT (name) DO UPDATE SET value = value +"
        " excluded.value RETURNING value",
        count,
    )
    return rows[0][0] - count + 1


def shards(db: Database, stream: int) -> list[Shard]:
    """All of a stream's shards, parents first."""
    found = db.all(f"SELECT {_SHARD} FROM kinesis_shards WHERE stream = ? ORDER BY number", stream)
    return [Shard(*row) for row in found]


def shard(db: Database, stream: int, number: int) -> Shard | None:
    row = db.one(f"SELECT {_SHARD} FROM kinesis_shards WHERE stream = ? AND number = ?", stream, number)
    return None if row is None else Shard(*row)


def open_shard(
    db: Database, stream: int, span: tuple[int, int], now: float, parent: int | None = None, adjacent: int | None = None
) -> None:
    number = db.value("SELECT COALESCE(MAX(number) + 1, 0) FROM kinesis_shards WHERE stream = ?", stream)
    assert 0 <= span[0] <= span[1] <= HIGHEST_HASH
    db.run(
        f"INSERT INTO kinesis_shards ({_SHARD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        stream, number, str(span[0]), str(span[1]), parent, adjacent, now, next_counters(db, 1),
    )  # fmt: skip


def close_shard(db: Database, held: Shard, now: float) -> None:
    ends = next_counters(db, 1)
    db.run(
        "UPDATE kinesis_shards SET closed_at = ?, ends = ? WHERE stream = ? AND number = ?",
        now, ends, held.stream, held.number,
    )  # fmt: skip


def put(db: Database, stream: int, rows: list[tuple[int, int, int, str, bytes]]) -> None:
    """(shard, counter, arrived ms, partition key, data) each."""
    db.many("INSERT INTO kinesis_records VALUES (?, ?, ?, ?, ?, ?)", [(stream, *row) for row in rows])


def read(db: Database, stream: int, shard: int, after: int, since_ms: int, most: int, most_bytes: int) -> list[Held]:
    """Records behind a counter value that retention has not passed over."""
    found: list[Held] = []
    size = 0
    step = min(most, 500)
    while len(found) < most:
        rows = db.all(
            "SELECT sequence, arrived_ms, partition_key, data FROM kinesis_records WHERE stream = ? AND shard = ? AND"
            " sequence > ? AND arrived_ms >= ? ORDER BY sequence LIMIT ?",
            stream, shard, after, since_ms, min(step, most - len(found)),
        )  # fmt: skip
        for row in rows:
            size += len(row[3])
            if found and size > most_bytes:
                return found
            found.append(Held(*row))
            after = row[0]
        if len(rows) < step:
            break
    return found


def newest(db: Database, stream: int, shard: int) -> tuple[int, int] | None:
    """(counter, arrived ms) of the last record."""
    row = db.one(
        "SELECT sequence, arrived_ms FROM kinesis_records WHERE stream = ? AND shard = ?"
        " ORDER BY sequence DESC LIMIT 1",
        stream, shard,
    )  # fmt: skip
    return None if row is None else (row[0], row[1])


def last_before(db: Database, stream: int, shard: int, at_ms: int) -> int:
    """The counter of the last record that arrived before a moment, 0 when there is none."""
    sql = "SELECT MAX(sequence) FROM kinesis_records WHERE stream = ? AND shard = ? AND arrived_ms < ?"
    return db.value(sql, stream, shard, at_ms) or 0


def clean(db: Database, stream: int, before_ms: int | None, most: int) -> int:
    """Delete up to `most` records, those that arrived before a moment or all; how many there were."""
    aged = "" if before_ms is None else " AND arrived_ms < ?"
    values = (stream, most) if before_ms is None else (stream, before_ms, most)
    return db.run(
        "DELETE FROM kinesis_records WHERE (stream, shard, sequence) IN"
        f" (SELECT stream, shard, sequence FROM kinesis_records WHERE stream = ?{aged} LIMIT ?)",
        *values,
    )

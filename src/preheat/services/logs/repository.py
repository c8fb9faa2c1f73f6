"""The SQL of CloudWatch Logs."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.logs.domain import EVENT_OVERHEAD, NO_GROUP, NO_STREAM, Position
from preheat.store.database import Database

CLEAN_TOPIC = "logs:clean"
LAST_CHARACTER = "\U0010ffff"
AT_ONCE = 8
"""Events that one statement inserts: each statement also counts up the table's last id, once."""
INSERT_ONE = "INSERT INTO logs_events (group_id, stream_id, at_ms, ingested_ms, message) VALUES (?, ?, ?, ?, ?)"
INSERT_MANY = INSERT_ONE + ", (?, ?, ?, ?, ?)" * (AT_ONCE - 1)


class Group(NamedTuple):
    id: int
    name: str
    group_class: str
    created_ms: int
    retention_days: int | None
    protected: bool
    bytes: int


class Stream(NamedTuple):
    id: int
    name: str
    created_ms: int
    first_ms: int | None
    last_ms: int | None
    ingested_ms: int | None


class Filter(NamedTuple):
    """`kind` is "metric" or "subscription"; `settings` are the members that are special to it."""

    group: str
    kind: str
    name: str
    pattern: str
    created_ms: int
    settings: dict[str, Any]


class Event(NamedTuple):
    position: Position
    ingested_ms: int
    message: str
    stream_id: int


_GROUP = "SELECT id, name, class, created_ms, retention_days, protected, bytes FROM logs_groups"
_STREAM = "SELECT id, name, created_ms, first_ms, last_ms, ingested_ms FROM logs_streams"


def topic(group: str) -> str:
    """Notified when events arrive in a group."""
    return f"logs:{group}"


def find_group(db: Database, scope: Scope, name: str) -> Group | None:
    row = db.one(f"{_GROUP} WHERE account = ? AND region = ? AND name = ?", *scope, name)
    return None if row is None else Group(*row)


def require_group(db: Database, scope: Scope, name: str) -> Group:
    group = find_group(db, scope, name)
    if group is None:
        raise AwsError("ResourceNotFoundException", NO_GROUP)
    return group


def add_group(db: Database, scope: Scope, name: str, group_class: str, now_ms: int, protected: bool) -> int:
    return db.insert(
        "INSERT INTO logs_groups (account, region, name, class, created_ms, protected) VALUES (?, ?, ?, ?, ?, ?)",
        *scope,
        name,
        group_class,
        now_ms,
        protected,
    )


def delete_group(db: Database, group: Group) -> None:
    """The group goes at once, its events in steps."""
    db.run("DELETE FROM logs_groups WHERE id = ?", group.id)
    db.run("DELETE FROM logs_streams WHERE group_id = ?", group.id)
    db.run("DELETE FROM logs_tags WHERE group_id = ?", group.id)
    db.run("DELETE FROM logs_filters WHERE group_id = ?", group.id)
    db.run("INSERT INTO logs_debris (group_id) VALUES (?)", group.id)
    db.notify(CLEAN_TOPIC)


def list_groups(db: Database, scope: Scope, prefix: str, pattern: str, after: str, limit: int) -> list[Group]:
    """`pattern` is a part of the name in any case. `after` is the last name seen."""
    rows = db.all(
        f"{_GROUP} WHERE account = ? AND region = ? AND name > ? AND name >= ? AND name < ? "
        "AND instr(lower(name), ?) > 0 ORDER BY name LIMIT ?",
        *scope,
        after,
        prefix,
        prefix + LAST_CHARACTER,
        pattern.lower(),
        limit,
    )
    return [Group(*row) for row in rows]


_FILTER = (
    "SELECT g.name, f.kind, f.name, f.pattern, f.created_ms, f.settings "
    "FROM logs_filters f JOIN logs_groups g ON g.id = f.group_id"
)


def _filter(row: Sequence[Any]) -> Filter:
    return Filter(*row[:5], json.loads(row[5]))


def put_filter(db: Database, group: Group, kind: str, name: str, pattern: str, now_ms: int, settings: Any) -> None:
    db.run(
        "INSERT OR REPLACE INTO logs_filters (group_id, kind, name, pattern, created_ms, settings) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        group.id,
        kind,
        name,
        pattern,
        now_ms,
        json.dumps(settings),
    )


def find_filter(db: Database, group: Group, kind: str, name: str) -> Filter | None:
    row = db.one(f"{_FILTER} WHERE f.group_id = ? AND f.kind = ? AND f.name = ?", group.id, kind, name)
    return None if row is None else _filter(row)


def delete_filter(db: Database, group: Group, kind: str, name: str) -> None:
    db.run("DELETE FROM logs_filters WHERE group_id = ? AND kind = ? AND name = ?", group.id, kind, name)


def filters_of(db: Database, group_id: int) -> list[Filter]:
    return [_filter(row) for row in db.all(f"{_FILTER} WHERE f.group_id = ? ORDER BY f.kind, f.name", group_id)]


def list_filters(db: Database, scope: Scope, kind: str, prefix: str, after: tuple[str, str]) -> list[Filter]:
    """Those of every group, by name and group; `after` is (name, group) of the last one seen."""
    rows = db.all(
        f"{_FILTER} WHERE g.account = ? AND g.region = ? AND f.kind = ? AND f.name >= ? AND f.name < ? "
        "AND (f.name, g.name) > (?, ?) ORDER BY f.name, g.name",
        *scope,
        kind,
        prefix,
        prefix + LAST_CHARACTER,
        *after,
    )
    return [_filter(row) for row in rows]


def count_filters(db: Database, group_id: int, kind: str) -> int:
    return db.value("SELECT COUNT(*) FROM logs_filters WHERE group_id = ? AND kind = ?", group_id, kind)


def last_event(db: Database) -> int:
    """The id of the event that was written last."""
    return db.value("SELECT MAX(id) FROM logs_events") or 0


def find_stream(db: Database, group: Group, name: str) -> Stream | None:
    row = db.one(f"{_STREAM} WHERE group_id = ? AND name = ?", group.id, name)
    return None if row is None else Stream(*row)


def require_stream(db: Database, group: Group, name: str) -> Stream:
    stream = find_stream(db, group, name)
    if stream is None:
        raise AwsError("ResourceNotFoundException", NO_STREAM)
    return stream


def stream_name(db: Database, number: int) -> str | None:
    return db.value("SELECT name FROM logs_streams WHERE id = ?", number)


def add_stream(db: Database, group_id: int, name: str, now_ms: int) -> int:
    return db.insert(
        "INSERT INTO logs_streams (group_id, name, created_ms) VALUES (?, ?, ?)", group_id, name, now_ms
    )


def delete_stream(db: Database, stream: Stream) -> None:
    db.run("DELETE FROM logs_streams WHERE id = ?", stream.id)
    db.run("INSERT INTO logs_debris (stream_id) VALUES (?)", stream.id)
    db.notify(CLEAN_TOPIC)


def streams_by_name(
    db: Database, group: Group, prefix: str, after: str | None, limit: int, descending: bool
) -> list[Stream]:
    sign, order = ("<", "DESC") if descending else (">", "ASC")
    start = "" if after is None else f" AND name {sign} ?"
    rows = db.all(
        f"{_STREAM} WHERE group_id = ?{start} AND name >= ? AND name < ? ORDER BY name {order} LIMIT ?",
        group.id,
        *(() if after is None else (after,)),
        prefix,
        prefix + LAST_CHARACTER,
        limit,
    )
    return [Stream(*row) for row in rows]


def streams_by_time(
    db: Database, group: Group, after: Position | None, limit: int, descending: bool
) -> list[Stream]:
    """Streams without events come first when ascending. `after` is (last event, id) of the last stream seen."""
    sign, order = ("<", "DESC") if descending else (">", "ASC")
    start = "" if after is None else f" AND (COALESCE(last_ms, -1), id) {sign} (?, ?)"
    rows = db.all(
        f"{_STREAM} WHERE group_id = ?{start} ORDER BY COALESCE(last_ms, -1) {order}, id {order} LIMIT ?",
        group.id,
        *(() if after is None else after),
        limit,
    )
    return [Stream(*row) for row in rows]


def add_events(
    db: Database, group_id: int, stream_id: int, events: Sequence[tuple[int, str]], now_ms: int
) -> None:
    """`events` are (epoch milliseconds, message)."""
    if not events:
        return
    rows = [(group_id, stream_id, at, now_ms, message) for at, message in events]
    whole = len(rows) - len(rows) % AT_ONCE
    if whole:
        db.many(INSERT_MANY, [tuple(chain(*rows[start : start + AT_ONCE])) for start in range(0, whole, AT_ONCE)])
    if whole < len(rows):
        db.many(INSERT_ONE, rows[whole:])
    times = [at for at, _ in events]
    size = sum(len(message) + EVENT_OVERHEAD for _, message in events)
    first, last = min(times), max(times)
    db.run(
        "UPDATE logs_streams SET first_ms = MIN(COALESCE(first_ms, ?), ?), last_ms = MAX(COALESCE(last_ms, ?), ?), "
        "ingested_ms = ? WHERE id = ?",
        first,
        first,
        last,
        last,
        now_ms,
        stream_id,
    )
    db.run("UPDATE logs_groups SET bytes = bytes + ? WHERE id = ?", size, group_id)


def read_events(
    db: Database,
    place: tuple[str, int],
    window: tuple[int, int],
    after: Position | None,
    limit: int,
    forward: bool,
) -> list[Event]:
    """Events of a stream or group, ("stream_id" or "group_id", its number), with window[0] <= time < window[1], from
    `after` on (exclusive) in the direction asked for."""
    column, number = place
    sign, order = (">", "ASC") if forward else ("<", "DESC")
    start = "" if after is None else f" AND (at_ms, id) {sign} (?, ?)"
    rows = db.all(
        "SELECT at_ms, id, ingested_ms, message, stream_id FROM logs_events "
        f"WHERE {column} = ? AND at_ms >= ? AND at_ms < ?{start} ORDER BY at_ms {order}, id {order} LIMIT ?",
        number,
        *window,
        *(() if after is None else after),
        limit,
    )
    return [Event(Position(row[0], row[1]), row[2], row[3], row[4]) for row in rows]


def delete_events(db: Database, column: str, number: int, before_ms: int | None, limit: int) -> int:
    """Delete the oldest events of a stream or group, up to `limit`; returns how many."""
    rows = db.returning(
        "DELETE FROM logs_events WHERE id IN (SELECT id FROM logs_events "
        f"WHERE {column} = ? AND at_ms < ? ORDER BY at_ms LIMIT ?) RETURNING group_id, length(message)",
        number,
        2**62 if before_ms is None else before_ms,
        limit,
    )
    if rows:
        freed = sum(row[1] + EVENT_OVERHEAD for row in rows)
        db.run("UPDATE logs_groups SET bytes = MAX(0, bytes - ?) WHERE id = ?", freed, rows[0][0])
    return len(rows)

"""EventBridge's SQL, named: buses, rules and targets. Archives and connections keep theirs beside their operations."""

import json
from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.events.domain import DEFAULT_BUS, Bus, Rule
from preheat.store.database import Database

_BUS = "account, region, name, description, dead_letter, policy, tags, created, modified"
_RULE = (
    "row, account, region, bus, name, pattern, schedule, state, description, role, tags, anchor, next_at"
)


def _bus(row: Any) -> Bus:
    return Bus(*row[:6], json.loads(row[6]), *row[7:])


def _rule(row: Any) -> Rule:
    return Rule(*row[:10], json.loads(row[10]), *row[11:])


# -- buses ------------------------------------------------------------------------------------------------------------


def bus(db: Database, scope: Scope, name: str) -> Bus | None:
    """The default bus is always there."""
    row = db.one(f"SELECT {_BUS} FROM events_buses WHERE account = ? AND region = ? AND name = ?", *scope, name)
    if row is not None:
        return _bus(row)
    return Bus(*scope, DEFAULT_BUS, None, None, None, {}, 0.0, 0.0) if name == DEFAULT_BUS else None


def buses(db: Database, scope: Scope) -> list[Bus]:
    rows = db.all(f"SELECT {_BUS} FROM events_buses WHERE account = ? AND region = ? ORDER BY name", *scope)
    found = [_bus(row) for row in rows]
    default = bus(db, scope, DEFAULT_BUS)
    if default is not None and all(one.name != DEFAULT_BUS for one in found):
        found.append(default)
    return sorted(found, key=lambda one: one.name)


def put_bus(db: Database, one: Bus) -> None:
    db.run(
        "INSERT OR REPLACE INTO events_buses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *one[:6], json.dumps(one.tags), one.created, one.modified,
    )  # fmt: skip


def delete_bus(db: Database, scope: Scope, name: str) -> None:
    db.run("DELETE FROM events_buses WHERE account = ? AND region = ? AND name = ?", *scope, name)


# -- rules ------------------------------------------------------------------------------------------------------------


def rule(db: Database, scope: Scope, bus_name: str, name: str) -> Rule | None:
    row = db.one(
        f"SELECT {_RULE} FROM events_rules WHERE account = ? AND region = ? AND bus = ? AND name = ?",
        *scope, bus_name, name,
    )  # fmt: skip
    return None if row is None else _rule(row)


def rules(db: Database, scope: Scope, bus_name: str) -> list[Rule]:
    """By name."""
    rows = db.all(
        f"SELECT {_RULE} FROM events_rules WHERE account = ? AND region = ? AND bus = ? ORDER BY name", *scope, bus_name
    )
    return [_rule(row) for row in rows]


def count_rules(db: Database, scope: Scope, bus_name: str) -> int:
    query = "SELECT count(*) FROM events_rules WHERE account = ? AND region = ? AND bus = ?"
    return db.value(query, *scope, bus_name)


def add_rule(db: Database, one: Rule) -> int:
    return db.insert(
        "INSERT INTO events_rules (account, region, bus, name, pattern, schedule, state, description, role, tags,"
        " anchor, next_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *one[1:10], json.dumps(one.tags), one.anchor, one.next_at,
    )  # fmt: skip


def change_rule(db: Database, one: Rule) -> None:
    db.run(
        "UPDATE events_rules SET pattern = ?, schedule = ?, state = ?, description = ?, role = ?, tags = ?, anchor = ?,"
        " next_at = ? WHERE row = ?",
        *one[5:10], json.dumps(one.tags), one.anchor, one.next_at, one.row,
    )  # fmt: skip


def delete_rule(db: Database, row: int) -> None:
    db.run("DELETE FROM events_rules WHERE row = ?", row)


def due_rules(db: Database, now: float, limit: int) -> list[Rule]:
    """Schedules whose time has come, the earliest first."""
    rows = db.all(f"SELECT {_RULE} FROM events_rules WHERE next_at <= ? ORDER BY next_at, row LIMIT ?", now, limit)
    return [_rule(row) for row in rows]


def next_due(db: Database) -> float | None:
    return db.value("SELECT min(next_at) FROM events_rules WHERE next_at IS NOT NULL")


def set_next(db: Database, row: int, next_at: float | None) -> None:
    db.run("UPDATE events_rules SET next_at = ? WHERE row = ?", next_at, row)


# -- targets ----------------------------------------------------------------------------------------------------------


def targets(db: Database, row: int) -> list[dict[str, Any]]:
    """By id."""
    rows = db.all("SELECT target FROM events_targets WHERE rule = ? ORDER BY id", row)
    return [json.loads(found[0]) for found in rows]


def put_target(db: Database, row: int, target: dict[str, Any]) -> None:
    values = (row, target["Id"], target["Arn"], json.dumps(target))
    db.run("INSERT OR REPLACE INTO events_targets VALUES (?, ?, ?, ?)", *values)


def delete_target(db: Database, row: int, identifier: str) -> int:
    return db.run("DELETE FROM events_targets WHERE rule = ? AND id = ?", row, identifier)


def rules_with_target(db: Database, scope: Scope, bus_name: str, arn: str) -> list[str]:
    """Names, ascending."""
    rows = db.all(
        "SELECT DISTINCT r.name FROM events_rules r JOIN events_targets t ON t.rule = r.row"
        " WHERE t.arn = ? AND r.account = ? AND r.region = ? AND r.bus = ? ORDER BY r.name",
        arn, *scope, bus_name,
    )  # fmt: skip
    return [found[0] for found in rows]

"""Parameter Store's SQL, named."""

import json
from typing import NamedTuple

from preheat.kernel.scope import Scope
from preheat.store.database import Database

_JOINED = (
    "SELECT p.row, p.name, p.version, p.tags, v.version, v.type, v.value, v.description, v.pattern, v.tier, v.key_id,"
    " v.modified, v.user, v.labels FROM ssm_parameters p JOIN ssm_versions v ON v.parameter = p.row"
)


class Version(NamedTuple):
    """One version of a parameter; `latest` is the parameter's newest version number."""

    row: int
    name: str
    latest: int
    tags: dict[str, str]
    version: int
    type: str
    value: bytes
    description: str | None
    pattern: str | None
    tier: str
    key_id: str | None
    modified: float
    user: str
    labels: list[str]


def _version(row) -> Version:
    return Version(*row[:3], json.loads(row[3]), *row[4:13], json.loads(row[13]))


def latest(db: Database, scope: Scope, name: str) -> Version | None:
    row = db.one(
        _JOINED + " AND v.version = p.version WHERE p.account = ? AND p.region = ? AND p.name = ?", *scope, name
    )
    return None if row is None else _version(row)


def history(db: Database, scope: Scope, name: str) -> list[Version]:
    """Oldest first."""
    rows = db.all(_JOINED + " WHERE p.account = ? AND p.region = ? AND p.name = ? ORDER BY v.version", *scope, name)
    return [_version(row) for row in rows]


def everything(db: Database, scope: Scope, after: str = "") -> list[Version]:
    """The newest version of each parameter, by name."""
    rows = db.all(
        _JOINED + " AND v.version = p.version WHERE p.account = ? AND p.region = ? AND p.name > ? ORDER BY p.name",
        *scope, after,
    )  # fmt: skip
    return [_version(row) for row in rows]


def add(db: Database, scope: Scope, name: str, tags: dict[str, str]) -> int:
    return db.insert(
        "INSERT INTO ssm_parameters (account, region, name, version, tags) VALUES (?, ?, ?, 0, ?)",
        *scope, name, json.dumps(tags),
    )  # fmt: skip


def add_version(db: Database, version: Version) -> None:
    db.run(
        "INSERT INTO ssm_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        version.row, *version[4:13], json.dumps(version.labels),
    )  # fmt: skip
    db.run("UPDATE ssm_parameters SET version = ? WHERE row = ?", version.version, version.row)


def delete_version(db: Database, row: int, version: int) -> None:
    db.run("DELETE FROM ssm_versions WHERE parameter = ? AND version = ?", row, version)


def set_labels(db: Database, row: int, version: int, labels: list[str]) -> None:
    db.run("UPDATE ssm_versions SET labels = ? WHERE parameter = ? AND version = ?", json.dumps(labels), row, version)


def set_tags(db: Database, row: int, tags: dict[str, str]) -> None:
    db.run("UPDATE ssm_parameters SET tags = ? WHERE row = ?", json.dumps(tags), row)


def delete(db: Database, scope: Scope, name: str) -> bool:
    return db.run("DELETE FROM ssm_parameters WHERE account = ? AND region = ? AND name = ?", *scope, name) > 0

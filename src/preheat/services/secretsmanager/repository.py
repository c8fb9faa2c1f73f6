"""Secrets Manager's SQL, named."""

import json
from typing import Any, NamedTuple

from preheat.kernel.scope import Scope
from preheat.services.secretsmanager import domain
from preheat.store.database import Database

_SECRET = (
    "row, account, region, name, arn, description, kms_key, tags, policy, created, changed, accessed, deleted, purge_at"
)


class Secret(NamedTuple):
    """`accessed` is a day in epoch seconds; `deleted` and `purge_at` are set while it waits for its end."""

    row: int
    account: str
    region: str
    name: str
    arn: str
    description: str | None
    kms_key: str | None
    tags: dict[str, str]
    policy: str | None
    created: float
    changed: float
    accessed: int | None
    deleted: float | None
    purge_at: float | None


class Version(NamedTuple):
    secret: int
    id: str
    value: bytes
    binary: bool
    created: float
    stages: list[str]


def _secret(row: Any) -> Secret:
    return Secret(*row[:7], json.loads(row[7]), *row[8:])


def _version(row: Any) -> Version:
    return Version(row[0], row[1], row[2], bool(row[3]), row[4], json.loads(row[5]))


def purge(db: Database, scope: Scope, now: float) -> None:
    """Remove the secrets whose recovery window has passed."""
    if db.one("SELECT 1 FROM secrets WHERE purge_at <= ? LIMIT 1", now) is not None:
        db.run("DELETE FROM secrets WHERE account = ? AND region = ? AND purge_at <= ?", *scope, now)


def by_name(db: Database, scope: Scope, name: str) -> Secret | None:
    row = db.one(f"SELECT {_SECRET} FROM secrets WHERE account = ? AND region = ? AND name = ?", *scope, name)
    return None if row is None else _secret(row)


def by_arn(db: Database, scope: Scope, arn: str) -> Secret | None:
    """An ARN whole, or without its six random characters."""
    row = db.one(
        f"SELECT {_SECRET} FROM secrets WHERE account = ? AND region = ? AND"
        " (arn = ? OR substr(arn, 1, length(arn) - 7) = ?)",
        *scope, arn, arn,
    )  # fmt: skip
    return None if row is None else _secret(row)


def everything(db: Database, scope: Scope) -> list[Secret]:
    rows = db.all(f"SELECT {_SECRET} FROM secrets WHERE account = ? AND region = ? ORDER BY created, row", *scope)
    return [_secret(row) for row in rows]


def add(db: Database, scope: Scope, name: str, arn: str, params: dict[str, Any], now: float) -> int:
    tags = domain.tags_of(params.get("Tags", ()))
    return db.insert(
        "INSERT INTO secrets (account, region, name, arn, description, kms_key, tags, created, changed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *scope, name, arn, params.get("Description"), params.get("KmsKeyId"), json.dumps(tags), now, now,
    )  # fmt: skip


def change(db: Database, row: int, column: str, value: Any) -> None:
    """`column` is one of the module's own names, never a client's."""
    db.run(f"UPDATE secrets SET {column} = ? WHERE row = ?", value, row)


def delete(db: Database, row: int) -> None:
    db.run("DELETE FROM secrets WHERE row = ?", row)


def versions(db: Database, row: int) -> list[Version]:
    """Oldest first."""
    rows = db.all(
        "SELECT secret, id, value, binary, created, stages FROM secret_versions WHERE secret = ?"
        " ORDER BY created, rowid",
        row,
    )
    return [_version(found) for found in rows]


def add_version(db: Database, version: Version) -> None:
    db.run("INSERT INTO secret_versions VALUES (?, ?, ?, ?, ?, ?)", *version[:5], json.dumps(version.stages))


def set_stages(db: Database, row: int, version_id: str, stages: list[str]) -> None:
    db.run("UPDATE secret_versions SET stages = ? WHERE secret = ? AND id = ?", json.dumps(stages), row, version_id)


def delete_version(db: Database, row: int, version_id: str) -> None:
    db.run("DELETE FROM secret_versions WHERE secret = ? AND id = ?", row, version_id)

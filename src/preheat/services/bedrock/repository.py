"""SQL of guardrails, their versions, and client request tokens."""

from dataclasses import dataclass
from typing import Any

import msgspec

from preheat.kernel.scope import Scope
from preheat.store.database import Database

DRAFT = 0
TOKEN_LIFE_S = 24 * 3_600.0


@dataclass(frozen=True, slots=True)
class Guardrail:
    id: str
    name: str
    tags: dict[str, str]
    last_version: int


@dataclass(frozen=True, slots=True)
class Version:
    """`number` 0 is the DRAFT; `document` the configuration as given. Times are epoch seconds."""

    number: int
    document: dict[str, Any]
    created: float
    updated: float

    @property
    def label(self) -> str:
        return str(self.number) if self.number else "DRAFT"


def find(db: Database, scope: Scope, id: str) -> Guardrail | None:
    row = db.one(
        "SELECT id, name, tags, last_version FROM bedrock_guardrails WHERE account = ? AND region = ? AND id = ?",
        scope.account, scope.region, id,
    )  # fmt: skip
    return None if row is None else _guardrail(row)


def named(db: Database, scope: Scope, name: str) -> Guardrail | None:
    row = db.one(
        "SELECT id, name, tags, last_version FROM bedrock_guardrails WHERE account = ? AND region = ? AND name = ?",
        scope.account, scope.region, name,
    )  # fmt: skip
    return None if row is None else _guardrail(row)


def everything(db: Database, scope: Scope) -> list[Guardrail]:
    rows = db.all(
        "SELECT id, name, tags, last_version FROM bedrock_guardrails WHERE account = ? AND region = ? ORDER BY id",
        scope.account, scope.region,
    )  # fmt: skip
    return [_guardrail(row) for row in rows]


def put(db: Database, scope: Scope, guardrail: Guardrail) -> None:
    db.run(
        """INSERT INTO bedrock_guardrails VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT (account, region, id) DO UPDATE SET name = excluded.name, tags = excluded.tags,
               last_version = excluded.last_version""",
        scope.account, scope.region, guardrail.id, guardrail.name,
        msgspec.json.encode(guardrail.tags).decode(), guardrail.last_version,
    )  # fmt: skip


def remove(db: Database, scope: Scope, id: str) -> None:
    for table in ("bedrock_guardrails", "bedrock_guardrail_versions"):
        db.run(f"DELETE FROM {table} WHERE account = ? AND region = ? AND id = ?", scope.account, scope.region, id)


def put_version(db: Database, scope: Scope, id: str, version: Version) -> None:
    db.run(
        "INSERT OR REPLACE INTO bedrock_guardrail_versions VALUES (?, ?, ?, ?, ?, ?, ?)",
        scope.account, scope.region, id, version.number,
        msgspec.json.encode(version.document).decode(), version.created, version.updated,
    )  # fmt: skip


def version(db: Database, scope: Scope, id: str, number: int) -> Version | None:
    row = db.one(
        """SELECT version, document, created, updated FROM bedrock_guardrail_versions
           WHERE account = ? AND region = ? AND id = ? AND version = ?""",
        scope.account, scope.region, id, number,
    )  # fmt: skip
    return None if row is None else _version(row)


def versions(db: Database, scope: Scope, id: str) -> list[Version]:
    """The DRAFT first."""
    rows = db.all(
        """SELECT version, document, created, updated FROM bedrock_guardrail_versions
           WHERE account = ? AND region = ? AND id = ? ORDER BY version""",
        scope.account, scope.region, id,
    )  # fmt: skip
    return [_version(row) for row in rows]


def remove_version(db: Database, scope: Scope, id: str, number: int) -> None:
    db.run(
        "DELETE FROM bedrock_guardrail_versions WHERE account = ? AND region = ? AND id = ? AND version = ?",
        scope.account, scope.region, id, number,
    )  # fmt: skip


def answered(db: Database, scope: Scope, token: str, now: float) -> tuple[str, dict[str, Any]] | None:
    """(digest of the request, answer) of a token that was used within its life."""
    row = db.one(
        "SELECT digest, answer FROM bedrock_tokens WHERE account = ? AND region = ? AND token = ? AND at > ?",
        scope.account, scope.region, token, now - TOKEN_LIFE_S,
    )  # fmt: skip
    return None if row is None else (row[0], msgspec.json.decode(row[1]))


def remember(db: Database, scope: Scope, token: str, digest: str, answer: dict[str, Any], now: float) -> None:
    db.run("DELETE FROM bedrock_tokens WHERE at <= ?", now - TOKEN_LIFE_S)
    db.run(
        "INSERT OR REPLACE INTO bedrock_tokens VALUES (?, ?, ?, ?, ?, ?)",
        scope.account, scope.region, token, digest, msgspec.json.encode(answer).decode(), now,
    )  # fmt: skip


def _guardrail(row: Any) -> Guardrail:
    return Guardrail(row[0], row[1], msgspec.json.decode(row[2]), row[3])


def _version(row: Any) -> Version:
    return Version(row[0], msgspec.json.decode(row[1]), row[2], row[3])

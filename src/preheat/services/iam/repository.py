"""IAM's SQL, named."""

import json
from typing import Any, NamedTuple

from preheat.store.database import Database

_ENTITY = "row, kind, account, name, id, path, created, trust, description, max_session_s, boundary, tags"


class Entity(NamedTuple):
    """A user, role or group; `trust`, `description`, `max_session_s` are a role's."""

    row: int
    kind: str
    account: str
    name: str
    id: str
    path: str
    created: int
    trust: str | None
    description: str | None
    max_session_s: int | None
    boundary: str | None
    tags: dict[str, str]

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:{self.kind}{self.path}{self.name}"


class Policy(NamedTuple):
    arn: str
    account: str
    name: str
    id: str
    path: str
    description: str | None
    created: int
    updated: int
    current: int
    latest: int
    tags: dict[str, str]


class AccessKey(NamedTuple):
    id: str
    user: int
    secret: str
    status: str
    created: int


class Version(NamedTuple):
    version: int
    document: str
    created: int


def _entity(row: Any) -> Entity:
    return Entity(*row[:11], json.loads(row[11]))


# -- users, roles, groups ---------------------------------------------------------------------------------------------


def entity(db: Database, kind: str, account: str, name: str) -> Entity | None:
    row = db.one(f"SELECT {_ENTITY} FROM iam_entities WHERE kind = ? AND account = ? AND name = ?", kind, account, name)
    return None if row is None else _entity(row)


def entity_by_row(db: Database, row_id: int) -> Entity | None:
    row = db.one(f"SELECT {_ENTITY} FROM iam_entities WHERE row = ?", row_id)
    return None if row is None else _entity(row)


def entities(db: Database, kind: str, account: str, path: str, after: str, limit: int) -> list[Entity]:
    rows = db.all(
        f"SELECT {_ENTITY} FROM iam_entities WHERE kind = ? AND account = ? AND substr(path, 1, ?) = ? AND name > ?"
        " ORDER BY name LIMIT ?",
        kind, account, len(path), path, after, limit,
    )  # fmt: skip
    return [_entity(row) for row in rows]


def add_entity(db: Database, entity: Entity) -> int:
    return db.insert(
        f"INSERT INTO iam_entities ({_ENTITY}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *entity[1:11], json.dumps(entity.tags),
    )  # fmt: skip


def change_entity(db: Database, row: int, column: str, value: Any) -> None:
    """`column` is one of the module's own names, never a client's."""
    db.run(f"UPDATE iam_entities SET {column} = ? WHERE row = ?", value, row)


def delete_entity(db: Database, row: int) -> None:
    db.run("DELETE FROM iam_entities WHERE row = ?", row)


def any_access_keys(db: Database) -> bool:
    return db.one("SELECT 1 FROM iam_access_keys LIMIT 1") is not None


def inline(db: Database, row: int) -> dict[str, str]:
    return dict(
        tuple(found) for found in db.all("SELECT name, document FROM iam_inline WHERE entity = ? ORDER BY name", row)
    )


def put_inline(db: Database, row: int, name: str, document: str) -> None:
    db.run("INSERT OR REPLACE INTO iam_inline VALUES (?, ?, ?)", row, name, document)


def delete_inline(db: Database, row: int, name: str) -> bool:
    return db.run("DELETE FROM iam_inline WHERE entity = ? AND name = ?", row, name) > 0


def attached(db: Database, row: int) -> list[str]:
    return [found[0] for found in db.all("SELECT arn FROM iam_attached WHERE entity = ? ORDER BY arn", row)]


def attach(db: Database, row: int, arn: str) -> None:
    db.run("INSERT OR IGNORE INTO iam_attached VALUES (?, ?)", row, arn)


def detach(db: Database, row: int, arn: str) -> bool:
    return db.run("DELETE FROM iam_attached WHERE entity = ? AND arn = ?", row, arn) > 0


def holders(db: Database, arn: str) -> list[Entity]:
    """Whom a policy is attached to."""
    rows = db.all(
        f"SELECT {_ENTITY} FROM iam_entities WHERE row IN (SELECT entity FROM iam_attached WHERE arn = ?)"
        " ORDER BY name",
        arn,
    )
    return [_entity(row) for row in rows]


def bounded_by(db: Database, arn: str) -> list[Entity]:
    return [_entity(row) for row in db.all(f"SELECT {_ENTITY} FROM iam_entities WHERE boundary = ?", arn)]


def join(db: Database, group: int, user: int) -> None:
    db.run("INSERT OR IGNORE INTO iam_members VALUES (?, ?)", group, user)


def leave(db: Database, group: int, user: int) -> None:
    db.run("DELETE FROM iam_members WHERE team = ? AND user = ?", group, user)


def members(db: Database, group: int) -> list[Entity]:
    rows = db.all(
        f"SELECT {_ENTITY} FROM iam_entities WHERE row IN (SELECT user FROM iam_members WHERE team = ?) ORDER BY name",
        group,
    )
    return [_entity(row) for row in rows]


def groups_of(db: Database, user: int) -> list[Entity]:
    rows = db.all(
        f"SELECT {_ENTITY} FROM iam_entities WHERE row IN (SELECT team FROM iam_members WHERE user = ?) ORDER BY name",
        user,
    )
    return [_entity(row) for row in rows]


# -- access keys ------------------------------------------------------------------------------------------------------


def access_key(db: Database, key_id: str) -> AccessKey | None:
    row = db.one("SELECT id, user, secret, status, created FROM iam_access_keys WHERE id = ?", key_id)
    return None if row is None else AccessKey(*row)


def access_keys(db: Database, user: int) -> list[AccessKey]:
    rows = db.all("SELECT id, user, secret, status, created FROM iam_access_keys WHERE user = ? ORDER BY rowid", user)
    return [AccessKey(*row) for row in rows]


def add_access_key(db: Database, key: AccessKey) -> None:
    db.run("INSERT INTO iam_access_keys VALUES (?, ?, ?, ?, ?)", *key)


def set_access_key_status(db: Database, key_id: str, status: str) -> None:
    db.run("UPDATE iam_access_keys SET status = ? WHERE id = ?", status, key_id)


def delete_access_key(db: Database, key_id: str) -> None:
    db.run("DELETE FROM iam_access_keys WHERE id = ?", key_id)


# -- managed policies -------------------------------------------------------------------------------------------------


def policy(db: Database, arn: str) -> Policy | None:
    row = db.one("SELECT * FROM iam_policies WHERE arn = ?", arn)
    return None if row is None else Policy(*tuple(row)[:10], json.loads(row["tags"]))


def policies(db: Database, account: str) -> list[Policy]:
    rows = db.all("SELECT * FROM iam_policies WHERE account = ? ORDER BY name", account)
    return [Policy(*tuple(row)[:10], json.loads(row["tags"])) for row in rows]


def add_policy(db: Database, policy: Policy, document: str) -> None:
    db.run("INSERT INTO iam_policies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *policy[:10], json.dumps(policy.tags))
    add_version(db, policy.arn, policy.current, document, policy.created)


def change_policy(db: Database, policy: Policy) -> None:
    db.run(
        "UPDATE iam_policies SET updated = ?, current = ?, latest = ?, tags = ? WHERE arn = ?",
        policy.updated, policy.current, policy.latest, json.dumps(policy.tags), policy.arn,
    )  # fmt: skip


def delete_policy(db: Database, arn: str) -> None:
    db.run("DELETE FROM iam_policies WHERE arn = ?", arn)


def versions(db: Database, arn: str) -> list[Version]:
    """Newest first."""
    rows = db.all("SELECT version, document, created FROM iam_policy_versions WHERE arn = ? ORDER BY version DESC", arn)
    return [Version(*row) for row in rows]


def add_version(db: Database, arn: str, version: int, document: str, created: int) -> None:
    db.run("INSERT INTO iam_policy_versions VALUES (?, ?, ?, ?)", arn, version, document, created)


def delete_version(db: Database, arn: str, version: int) -> None:
    db.run("DELETE FROM iam_policy_versions WHERE arn = ? AND version = ?", arn, version)


def current_document(db: Database, arn: str) -> str | None:
    return db.value(
        "SELECT v.document FROM iam_policies p JOIN iam_policy_versions v ON v.arn = p.arn AND v.version = p.current"
        " WHERE p.arn = ?",
        arn,
    )

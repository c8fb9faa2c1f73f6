"""Named SQL of code signing configurations."""

import json
import sqlite3
from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.awslambda.domain import FunctionName
from preheat.store.database import Database

_OF = "account = ? AND region = ? AND name = ?"


def _key(function: FunctionName) -> tuple[str, str, str]:
    return function.scope.account, function.scope.region, function.name


def config_of(db: Database, arn: str) -> sqlite3.Row | None:
    return db.one("SELECT * FROM lambda_signing_configs WHERE arn = ?", arn)


def save_config(db: Database, arn: str, scope: Scope, details: dict[str, Any], now: float) -> None:
    """Insert it, or replace what it says."""
    db.run(
        "INSERT INTO lambda_signing_configs (arn, account, region, details, modified) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET details = excluded.details, modified = excluded.modified",
        arn, *scope, json.dumps(details), now,
    )  # fmt: skip


def delete_config(db: Database, arn: str) -> None:
    db.run("DELETE FROM lambda_signing_configs WHERE arn = ?", arn)


def configs(db: Database, scope: Scope, after: str, limit: int) -> list[sqlite3.Row]:
    sql = "SELECT * FROM lambda_signing_configs WHERE account = ? AND region = ? AND arn > ? ORDER BY arn LIMIT ?"
    return db.all(sql, *scope, after, limit)


def config_tags(row: sqlite3.Row) -> dict[str, str]:
    return json.loads(row["tags"])


def set_config_tags(db: Database, arn: str, tags: dict[str, str]) -> None:
    db.run("UPDATE lambda_signing_configs SET tags = ? WHERE arn = ?", json.dumps(tags), arn)


def config_for(db: Database, function: FunctionName) -> str | None:
    """The ARN of the configuration that a function's deployments are held to."""
    return db.value(f"SELECT config FROM lambda_signed_functions WHERE {_OF}", *_key(function))


def attach(db: Database, function: FunctionName, arn: str) -> None:
    sql = "INSERT OR REPLACE INTO lambda_signed_functions (account, region, name, config) VALUES (?, ?, ?, ?)"
    db.run(sql, *_key(function), arn)


def detach(db: Database, function: FunctionName) -> None:
    db.run(f"DELETE FROM lambda_signed_functions WHERE {_OF}", *_key(function))


def functions_with(db: Database, arn: str, after: str, limit: int) -> list[str]:
    """Names, in order."""
    sql = "SELECT name FROM lambda_signed_functions WHERE config = ? AND name > ? ORDER BY name LIMIT ?"
    return [row[0] for row in db.all(sql, arn, after, limit)]

"""Named SQL of the Lambda service. Reads give values of `domain`; writes take them."""

import json
import sqlite3

import msgspec

from preheat.kernel.scope import Scope
from preheat.services.awslambda.domain import (
    LATEST,
    Alias,
    FunctionName,
    Mapping,
    MappingConfig,
    Package,
    ProvisionedConfig,
    Settings,
    Version,
)
from preheat.store.database import Database

_STATE = (
    "(SELECT json_array(state, reason, code) FROM lambda_version_states AS s WHERE s.account = lambda_versions.account "
    "AND s.region = lambda_versions.region AND s.name = lambda_versions.name "
    "AND s.version = lambda_versions.version) AS state"
)
_POLICY_REVISION = (
    "(SELECT p.revision FROM lambda_policy_revisions AS p WHERE p.account = lambda_versions.account "
    "AND p.region = lambda_versions.region AND p.name = lambda_versions.name "
    "AND p.version = lambda_versions.version) AS policy_revision"
)
_VERSION = f"account, region, name, version, settings, package, revision, modified, {_STATE}, {_POLICY_REVISION}"
_OF = "account = ? AND region = ? AND name = ?"


def _key(function: FunctionName) -> tuple[str, str, str]:
    return function.scope.account, function.scope.region, function.name


def _json(value: Settings | Package | MappingConfig) -> str:
    return msgspec.json.encode(value).decode()


def _version(row: sqlite3.Row) -> Version:
    state, reason, code = ("Active", "", "") if row["state"] is None else json.loads(row["state"])
    return Version(
        scope=Scope(row["account"], row["region"]),
        name=row["name"],
        version=row["version"],
        settings=msgspec.json.decode(row["settings"], type=Settings),
        package=msgspec.json.decode(row["package"], type=Package),
        revision=row["revision"],
        modified=row["modified"],
        state=state,
        state_reason=reason,
        state_code=code,
        policy_revision=row["policy_revision"] or "",
    )


# -- functions and versions -------------------------------------------------------------------------------------------


def exists(db: Database, function: FunctionName) -> bool:
    return db.one(f"SELECT 1 FROM lambda_functions WHERE {_OF}", *_key(function)) is not None


def create(db: Database, function: FunctionName, tags: dict[str, str]) -> None:
    """Its versions are numbered on from those of a deleted function of that name."""
    spent = db.value(f"SELECT last_version FROM lambda_spent_versions WHERE {_OF}", *_key(function)) or 0
    db.run(
        "INSERT INTO lambda_functions (account, region, name, tags, last_version) VALUES (?, ?, ?, ?, ?)",
        *_key(function), json.dumps(tags), spent,
    )  # fmt: skip


def save_version(db: Database, version: Version) -> None:
    """Insert it, or replace it when it is $LATEST."""
    db.run(
        "INSERT INTO lambda_versions (account, region, name, version, number, settings, package, revision, modified) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET settings = excluded.settings, "
        "package = excluded.package, revision = excluded.revision, modified = excluded.modified",
        version.scope.account, version.scope.region, version.name, version.version,
        0 if version.version == LATEST else int(version.version),
        _json(version.settings), _json(version.package), version.revision, version.modified,
    )  # fmt: skip
    db.run(
        f"DELETE FROM lambda_policy_revisions WHERE {_OF} AND version = ?",
        version.scope.account, version.scope.region, version.name, version.version,
    )  # fmt: skip


def next_number(db: Database, function: FunctionName) -> int:
    """The next version's number; numbers are never used twice."""
    sql = f"UPDATE lambda_functions SET last_version = last_version + 1 WHERE {_OF} RETURNING last_version"
    return db.returning(sql, *_key(function))[0][0]


def version_of(db: Database, function: FunctionName, version: str) -> Version | None:
    row = db.one(f"SELECT {_VERSION} FROM lambda_versions WHERE {_OF} AND version = ?", *_key(function), version)
    return None if row is None else _version(row)


def revision_of(db: Database, function: FunctionName, version: str) -> str | None:
    return db.value(f"SELECT revision FROM lambda_versions WHERE {_OF} AND version = ?", *_key(function), version)


def newest(db: Database, function: FunctionName) -> Version | None:
    """The last published version that still exists."""
    sql = f"SELECT {_VERSION} FROM lambda_versions WHERE {_OF} AND number > 0 ORDER BY number DESC LIMIT 1"
    row = db.one(sql, *_key(function))
    return None if row is None else _version(row)


def versions(db: Database, function: FunctionName, after: int, limit: int) -> list[Version]:
    """In order, $LATEST (number 0) first; `after` -1 for all."""
    sql = f"SELECT {_VERSION} FROM lambda_versions WHERE {_OF} AND number > ? ORDER BY number LIMIT ?"
    return [_version(row) for row in db.all(sql, *_key(function), after, limit)]


def functions(db: Database, scope: Scope, after: tuple[str, int], limit: int, every_version: bool) -> list[Version]:
    sql = (
        f"SELECT {_VERSION} FROM lambda_versions WHERE account = ? AND region = ? AND (name, number) > (?, ?) "
        f"{'' if every_version else 'AND number = 0 '}ORDER BY name, number LIMIT ?"
    )
    return [_version(row) for row in db.all(sql, *scope, *after, limit)]


def delete(db: Database, function: FunctionName) -> None:
    db.run(
        "INSERT OR REPLACE INTO lambda_spent_versions SELECT account, region, name, last_version "
        f"FROM lambda_functions WHERE {_OF} AND last_version > 0",
        *_key(function),
    )
    db.run(f"DELETE FROM lambda_functions WHERE {_OF}", *_key(function))


def delete_version(db: Database, function: FunctionName, version: str) -> int:
    return db.run(f"DELETE FROM lambda_versions WHERE {_OF} AND version = ?", *_key(function), version)


def save_version_state(
    db: Database, function: FunctionName, version: str, state: str, reason: str, code: str
) -> None:
    """A published version that is not Active."""
    sql = (
        "INSERT OR REPLACE INTO lambda_version_states (account, region, name, version, state, reason, code) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    db.run(sql, *_key(function), version, state, reason, code)


def delete_version_state(db: Database, function: FunctionName, version: str) -> None:
    """The version is Active."""
    db.run(f"DELETE FROM lambda_version_states WHERE {_OF} AND version = ?", *_key(function), version)


def unready_versions(db: Database) -> list[Version]:
    """Every version that is not Active."""
    sql = f"SELECT {_VERSION} FROM lambda_versions WHERE {_STATE.removesuffix(' AS state')} IS NOT NULL"
    return [_version(row) for row in db.all(sql)]


def referenced_packages(db: Database) -> set[str]:
    rows = db.all("SELECT package FROM lambda_versions UNION SELECT package FROM lambda_layers")
    return {msgspec.json.decode(row[0], type=Package).sha256 for row in rows}


def usage(db: Database, scope: Scope) -> tuple[int, int]:
    """Number of functions, and bytes of all packages: those of their versions and of the layers."""
    count = db.value("SELECT count(*) FROM lambda_functions WHERE account = ? AND region = ?", *scope)
    size = db.value(
        "SELECT coalesce(sum(json_extract(package, '$.size')), 0) FROM (SELECT package FROM lambda_versions "
        "WHERE account = ? AND region = ? UNION ALL SELECT package FROM lambda_layers "
        "WHERE account = ? AND region = ? AND deleted = 0)",
        *scope, *scope,
    )  # fmt: skip
    return count, size


# -- concurrency and tags ---------------------------------------------------------------------------------------------


def reserved(db: Database, function: FunctionName) -> int | None:
    return db.value(f"SELECT reserved FROM lambda_functions WHERE {_OF}", *_key(function))


def set_reserved(db: Database, function: FunctionName, limit: int | None) -> None:
    db.run(f"UPDATE lambda_functions SET reserved = ? WHERE {_OF}", limit, *_key(function))


def reserved_total(db: Database, scope: Scope, but: str = "") -> int:
    """Reserved concurrency of all functions of a region except the one named `but`."""
    sql = "SELECT coalesce(sum(reserved), 0) FROM lambda_functions WHERE account = ? AND region = ? AND name != ?"
    return db.value(sql, *scope, but)


def all_reserved(db: Database) -> list[tuple[str, int]]:
    """(function ARN, limit) of every function that has one."""
    rows = db.all("SELECT account, region, name, reserved FROM lambda_functions WHERE reserved IS NOT NULL")
    return [(Scope(row[0], row[1]).arn("lambda", f"function:{row[2]}"), row[3]) for row in rows]


def tags(db: Database, function: FunctionName) -> dict[str, str]:
    return json.loads(db.value(f"SELECT tags FROM lambda_functions WHERE {_OF}", *_key(function)) or "{}")


def set_tags(db: Database, function: FunctionName, values: dict[str, str]) -> None:
    db.run(f"UPDATE lambda_functions SET tags = ? WHERE {_OF}", json.dumps(values), *_key(function))


# -- provisioned concurrency ------------------------------------------------------------------------------------------

_PROVISIONED = "qualifier, count, token, modified, previous"


def provisioned_of(db: Database, function: FunctionName) -> ProvisionedConfig | None:
    """The configuration of exactly this qualifier."""
    sql = f"SELECT {_PROVISIONED} FROM lambda_provisioned WHERE {_OF} AND qualifier = ?"
    row = db.one(sql, *_key(function), function.qualifier or "")
    return None if row is None else ProvisionedConfig(*row)


def provisioned_configs(db: Database, function: FunctionName) -> list[ProvisionedConfig]:
    """All of a function, by qualifier."""
    sql = f"SELECT {_PROVISIONED} FROM lambda_provisioned WHERE {_OF} ORDER BY qualifier"
    return [ProvisionedConfig(*row) for row in db.all(sql, *_key(function))]


def save_provisioned(db: Database, function: FunctionName, config: ProvisionedConfig) -> None:
    db.run(
        f"INSERT OR REPLACE INTO lambda_provisioned (account, region, name, {_PROVISIONED}) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *_key(function), config.qualifier, config.count, config.token, config.modified, config.previous,
    )  # fmt: skip


def delete_provisioned(db: Database, function: FunctionName) -> None:
    db.run(f"DELETE FROM lambda_provisioned WHERE {_OF} AND qualifier = ?", *_key(function), function.qualifier or "")


def provisioned_total(db: Database, scope: Scope, but: str = "") -> int:
    """Provisioned concurrency of a region's functions that have none reserved, except the one named `but`."""
    return db.value(
        "SELECT coalesce(sum(count), 0) FROM lambda_provisioned JOIN lambda_functions USING (account, region, name) "
        "WHERE account = ? AND region = ? AND reserved IS NULL AND name != ?",
        *scope, but,
    )  # fmt: skip


def provisioned_functions(db: Database) -> list[FunctionName]:
    """Every function of every region that has any."""
    rows = db.all("SELECT DISTINCT account, region, name FROM lambda_provisioned ORDER BY account, region, name")
    return [FunctionName(Scope(row[0], row[1]), row[2]) for row in rows]


def provisioned_moving(db: Database) -> list[tuple[FunctionName, ProvisionedConfig]]:
    """Aliases that wait for their new version."""
    sql = f"SELECT account, region, name, {_PROVISIONED} FROM lambda_provisioned WHERE previous != ''"
    return [(FunctionName(Scope(*row[:2]), row[2], row[3]), ProvisionedConfig(*row[3:])) for row in db.all(sql)]


# -- aliases ----------------------------------------------------------------------------------------------------------

_ALIAS = "alias, version, description, weights, revision"


def _alias(row: sqlite3.Row) -> Alias:
    return Alias(row["alias"], row["version"], row["description"], json.loads(row["weights"]), row["revision"])


def alias_of(db: Database, function: FunctionName, alias: str) -> Alias | None:
    row = db.one(f"SELECT {_ALIAS} FROM lambda_aliases WHERE {_OF} AND alias = ?", *_key(function), alias)
    return None if row is None else _alias(row)


def save_alias(db: Database, function: FunctionName, alias: Alias) -> None:
    db.run(
        f"INSERT OR REPLACE INTO lambda_aliases (account, region, name, {_ALIAS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *_key(function), alias.name, alias.version, alias.description, json.dumps(alias.weights), alias.revision,
    )  # fmt: skip


def delete_alias(db: Database, function: FunctionName, alias: str) -> None:
    db.run(f"DELETE FROM lambda_aliases WHERE {_OF} AND alias = ?", *_key(function), alias)


def aliases(db: Database, function: FunctionName, after: str, limit: int, version: str | None = None) -> list[Alias]:
    sql = (
        f"SELECT {_ALIAS} FROM lambda_aliases WHERE {_OF} AND alias > ? AND (? IS NULL OR version = ?) "
        "ORDER BY alias LIMIT ?"
    )
    return [_alias(row) for row in db.all(sql, *_key(function), after, version, version, limit)]


# -- resource policy --------------------------------------------------------------------------------------------------


def statements(db: Database, function: FunctionName) -> list[str]:
    """The statements' JSON texts of this qualifier ("" for the unqualified function), oldest first."""
    sql = f"SELECT statement FROM lambda_statements WHERE {_OF} AND qualifier = ? ORDER BY id"
    return [row[0] for row in db.all(sql, *_key(function), function.qualifier or "")]


def add_statement(db: Database, function: FunctionName, sid: str, statement: str) -> bool:
    """False when the id is taken."""
    return db.run(
        "INSERT OR IGNORE INTO lambda_statements (account, region, name, qualifier, sid, statement) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        *_key(function), function.qualifier or "", sid, statement,
    ) == 1  # fmt: skip


def remove_statement(db: Database, function: FunctionName, sid: str) -> bool:
    sql = f"DELETE FROM lambda_statements WHERE {_OF} AND qualifier = ? AND sid = ?"
    return db.run(sql, *_key(function), function.qualifier or "", sid) == 1


def save_policy_revision(db: Database, function: FunctionName, version: str, revision: str) -> None:
    """The RevisionId of a version whose policy has changed, until the version itself does."""
    db.run(
        "INSERT OR REPLACE INTO lambda_policy_revisions (account, region, name, version, revision) "
        "VALUES (?, ?, ?, ?, ?)",
        *_key(function), version, revision,
    )  # fmt: skip


def clear_statements(db: Database, function: FunctionName) -> None:
    db.run(f"DELETE FROM lambda_statements WHERE {_OF} AND qualifier = ?", *_key(function), function.qualifier or "")


def forget_qualifier(db: Database, function: FunctionName) -> None:
    """What hangs on a version or an alias goes with it, but for the URL of an alias, which stays and is forbidden."""
    for table in ("lambda_statements", "lambda_event_invoke", "lambda_provisioned"):
        db.run(f"DELETE FROM {table} WHERE {_OF} AND qualifier = ?", *_key(function), function.qualifier)


# -- function URLs ----------------------------------------------------------------------------------------------------


def url_of(db: Database, function: FunctionName) -> sqlite3.Row | None:
    return db.one(f"SELECT * FROM lambda_urls WHERE {_OF} AND qualifier = ?", *_key(function), function.qualifier or "")


def url_by_id(db: Database, url_id: str) -> sqlite3.Row | None:
    return db.one("SELECT * FROM lambda_urls WHERE url_id = ?", url_id)


def urls(db: Database, function: FunctionName, after: str, limit: int, *, inclusive: bool) -> list[sqlite3.Row]:
    """By qualifier, "" (the unqualified function) first; `inclusive` includes `after` itself."""
    compare = ">=" if inclusive else ">"
    sql = f"SELECT * FROM lambda_urls WHERE {_OF} AND qualifier {compare} ? ORDER BY qualifier LIMIT ?"
    return db.all(sql, *_key(function), after, limit)


def save_url(
    db: Database,
    function: FunctionName,
    url_id: str,
    auth: str,
    mode: str,
    cors: str | None,
    created: float,
    now: float,
) -> None:
    db.run(
        "INSERT OR REPLACE INTO lambda_urls (account, region, name, qualifier, url_id, auth_type, invoke_mode, cors, "
        "created, modified) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *_key(function), function.qualifier or "", url_id, auth, mode, cors, created, now,
    )  # fmt: skip


def delete_url(db: Database, function: FunctionName) -> bool:
    sql = f"DELETE FROM lambda_urls WHERE {_OF} AND qualifier = ?"
    return db.run(sql, *_key(function), function.qualifier or "") == 1


# -- asynchronous invocation ------------------------------------------------------------------------------------------


def event_invoke(db: Database, function: FunctionName) -> tuple[dict, float] | None:
    """The configuration of exactly this qualifier and when it was written."""
    sql = f"SELECT config, modified FROM lambda_event_invoke WHERE {_OF} AND qualifier = ?"
    row = db.one(sql, *_key(function), function.qualifier or LATEST)
    return None if row is None else (json.loads(row[0]), row[1])


def event_invokes(db: Database, function: FunctionName, after: str, limit: int) -> list[sqlite3.Row]:
    sql = (
        f"SELECT qualifier, config, modified FROM lambda_event_invoke WHERE {_OF} AND qualifier > ? "
        "ORDER BY qualifier LIMIT ?"
    )
    return db.all(sql, *_key(function), after, limit)


def save_event_invoke(db: Database, function: FunctionName, config: dict, now: float) -> None:
    db.run(
        "INSERT OR REPLACE INTO lambda_event_invoke (account, region, name, qualifier, config, modified) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        *_key(function), function.qualifier or LATEST, json.dumps(config), now,
    )  # fmt: skip


def delete_event_invoke(db: Database, function: FunctionName) -> bool:
    sql = f"DELETE FROM lambda_event_invoke WHERE {_OF} AND qualifier = ?"
    return db.run(sql, *_key(function), function.qualifier or LATEST) == 1


def recursion(db: Database, function: FunctionName) -> str:
    """Allow or Terminate."""
    return db.value(f"SELECT mode FROM lambda_recursion WHERE {_OF}", *_key(function)) or "Terminate"


def runtime_management(db: Database, function: FunctionName, version: str) -> tuple[str, str]:
    """(mode, ARN of the runtime's version or "")."""
    sql = f"SELECT mode, arn FROM lambda_runtime_management WHERE {_OF} AND version = ?"
    row = db.one(sql, *_key(function), version)
    return ("Auto", "") if row is None else (row[0], row[1])


def set_runtime_management(db: Database, function: FunctionName, version: str, mode: str, arn: str) -> None:
    sql = (
        "INSERT OR REPLACE INTO lambda_runtime_management (account, region, name, version, mode, arn) "
        "VALUES (?, ?, ?, ?, ?, ?)"
    )
    db.run(sql, *_key(function), version, mode, arn)


def set_recursion(db: Database, function: FunctionName, mode: str) -> None:
    sql = "INSERT OR REPLACE INTO lambda_recursion (account, region, name, mode) VALUES (?, ?, ?, ?)"
    db.run(sql, *_key(function), mode)


# -- event source mappings --------------------------------------------------------------------------------------------


def _mapping(row: sqlite3.Row) -> Mapping:
    return Mapping(
        uuid=row["uuid"],
        scope=Scope(row["account"], row["region"]),
        source_arn=row["source_arn"],
        function_arn=row["function_arn"],
        enabled=bool(row["enabled"]),
        config=msgspec.json.decode(row["config"], type=MappingConfig),
        modified=row["modified"],
        tags=json.loads(row["tags"]),
    )


def mapping_of(db: Database, uuid: str) -> Mapping | None:
    row = db.one("SELECT * FROM lambda_mappings WHERE uuid = ?", uuid)
    return None if row is None else _mapping(row)


def save_mapping(db: Database, mapping: Mapping) -> None:
    db.run(
        "INSERT OR REPLACE INTO lambda_mappings (uuid, account, region, source_arn, function_arn, enabled, config, "
        "modified, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        mapping.uuid, *mapping.scope, mapping.source_arn, mapping.function_arn, int(mapping.enabled),
        _json(mapping.config), mapping.modified, json.dumps(mapping.tags),
    )  # fmt: skip


def delete_mapping(db: Database, uuid: str) -> None:
    db.run("DELETE FROM lambda_mappings WHERE uuid = ?", uuid)
    db.run("DELETE FROM lambda_checkpoints WHERE uuid = ?", uuid)


def checkpoint(db: Database, uuid: str, lane: str) -> str | None:
    """The last sequence number of a lane of a stream that a mapping is done with."""
    return db.value("SELECT sequence FROM lambda_checkpoints WHERE uuid = ? AND lane = ?", uuid, lane)


def save_checkpoint(db: Database, uuid: str, lane: str, sequence: str) -> None:
    db.run("INSERT OR REPLACE INTO lambda_checkpoints (uuid, lane, sequence) VALUES (?, ?, ?)", uuid, lane, sequence)


def take_checkpoints(db: Database, uuid: str, prefix: str) -> list[str]:
    """Forget the checkpoints of the lanes whose names begin so, and give what they were."""
    rows = db.returning(
        "DELETE FROM lambda_checkpoints WHERE uuid = ? AND substr(lane, 1, ?) = ? RETURNING sequence",
        uuid, len(prefix), prefix,
    )  # fmt: skip
    return [row[0] for row in rows]


def set_mapping_tags(db: Database, uuid: str, tags: dict[str, str]) -> None:
    db.run("UPDATE lambda_mappings SET tags = ? WHERE uuid = ?", json.dumps(tags), uuid)


def mappings(db: Database) -> list[Mapping]:
    """Every mapping of every account and region, by id."""
    return [_mapping(row) for row in db.all("SELECT * FROM lambda_mappings ORDER BY uuid")]


def mappings_of(
    db: Database, scope: Scope, source_arn: str | None, function_arn: str | None, after: str, limit: int
) -> list[Mapping]:
    """`function_arn` unqualified also finds mappings to its versions and aliases."""
    sql = (
        "SELECT * FROM lambda_mappings WHERE account = ? AND region = ? AND uuid > ? AND (? IS NULL OR source_arn = ?) "
        "AND (? IS NULL OR function_arn = ? OR function_arn LIKE ? || ':%') ORDER BY uuid LIMIT ?"
    )
    rows = db.all(sql, *scope, after, source_arn, source_arn, function_arn, function_arn, function_arn, limit)
    return [_mapping(row) for row in rows]


# -- layers -----------------------------------------------------------------------------------------------------------


def layer_package(row: sqlite3.Row) -> Package:
    return msgspec.json.decode(row["package"], type=Package)


def layer_of(db: Database, scope: Scope, name: str, version: int, *, deleted: bool = False) -> sqlite3.Row | None:
    """One layer version; a deleted one only with `deleted` (functions that use it keep it)."""
    sql = "SELECT * FROM lambda_layers WHERE account = ? AND region = ? AND name = ? AND version = ? AND deleted <= ?"
    return db.one(sql, *scope, name, version, int(deleted))


def save_layer(db: Database, scope: Scope, name: str, package: Package, details: dict, now: float) -> int:
    """The new version's number."""
    sql = "SELECT coalesce(max(version), 0) + 1 FROM lambda_layers WHERE account = ? AND region = ? AND name = ?"
    version = db.value(sql, *scope, name)
    db.run(
        "INSERT INTO lambda_layers (account, region, name, version, package, details, created) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        *scope, name, version, _json(package), json.dumps(details), now,
    )  # fmt: skip
    return version


def delete_layer(db: Database, scope: Scope, name: str, version: int) -> None:
    sql = "UPDATE lambda_layers SET deleted = 1 WHERE account = ? AND region = ? AND name = ? AND version = ?"
    db.run(sql, *scope, name, version)


def layer_versions(db: Database, scope: Scope, name: str) -> list[sqlite3.Row]:
    """Newest first."""
    sql = (
        "SELECT * FROM lambda_layers WHERE account = ? AND region = ? AND name = ? AND deleted = 0 "
        "ORDER BY version DESC"
    )
    return db.all(sql, *scope, name)


def layer_names(db: Database, scope: Scope) -> list[str]:
    sql = "SELECT DISTINCT name FROM lambda_layers WHERE account = ? AND region = ? AND deleted = 0 ORDER BY name"
    return [row[0] for row in db.all(sql, *scope)]


def layer_statements(db: Database, arn: str) -> list[str]:
    """The statements' JSON texts of a layer version's policy, oldest first."""
    return [row[0] for row in db.all("SELECT statement FROM lambda_layer_statements WHERE arn = ? ORDER BY id", arn)]


def add_layer_statement(db: Database, arn: str, sid: str, statement: str) -> bool:
    """False when the id is taken."""
    sql = "INSERT OR IGNORE INTO lambda_layer_statements (arn, sid, statement) VALUES (?, ?, ?)"
    return db.run(sql, arn, sid, statement) == 1


def remove_layer_statement(db: Database, arn: str, sid: str) -> bool:
    return db.run("DELETE FROM lambda_layer_statements WHERE arn = ? AND sid = ?", arn, sid) == 1

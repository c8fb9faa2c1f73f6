"""The engine's books: stacks, resources, steps, events, change sets, exports. All SQL of this package is here."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.contract import Context, Row
from preheat.store.database import Database
from preheat.template.plan import Spec


@dataclass(slots=True)
class Stack:
    id: str
    name: str
    scope: Scope
    status: str
    reason: str
    phase: str | None
    created_at: float
    updated_at: float | None
    deleted_at: float | None
    spec: Spec | None
    previous: Spec | None
    options: dict[str, Any]
    outputs: list[dict[str, str]]
    principal: dict[str, str]
    termination_protection: bool
    change_set_id: str | None
    deadline: float | None


@dataclass(slots=True)
class StackResource:
    stack_id: str
    logical_id: str
    type: str
    physical_id: str | None
    status: str
    reason: str
    updated_at: float
    properties: dict[str, Any]
    attributes: dict[str, Any]
    depends: list[str]
    before: dict[str, Any] | None

    def state(self) -> dict[str, Any]:
        """What is needed to delete it or to go back to it."""
        return {
            "type": self.type,
            "physical_id": self.physical_id,
            "properties": self.properties,
            "attributes": self.attributes,
        }


@dataclass(slots=True)
class Step:
    seq: int
    stack_id: str
    phase: str
    logical_id: str
    action: str
    waits_for: list[str]
    status: str
    journal: list[dict[str, Any]]
    issued: int | None
    attempts: int
    wake_at: float | None
    doc: dict[str, Any]


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _spec(text: str | None) -> Spec | None:
    return None if text is None else Spec(**json.loads(text))


def spec_text(spec: Spec | None) -> str | None:
    return None if spec is None else dump(asdict(spec))


def _stack(row: Row | None) -> Stack | None:
    if row is None:
        return None
    return Stack(
        row["id"], row["name"], Scope(row["account"], row["region"]), row["status"], row["reason"], row["phase"],
        row["created_at"], row["updated_at"], row["deleted_at"], _spec(row["spec"]), _spec(row["previous"]),
        json.loads(row["options"]), json.loads(row["outputs"]), json.loads(row["principal"]),
        bool(row["termination_protection"]), row["change_set_id"], row["deadline"],
    )  # fmt: skip


def _resource(row: Row) -> StackResource:
    return StackResource(
        row["stack_id"], row["logical_id"], row["type"], row["physical_id"], row["status"], row["reason"],
        row["updated_at"], json.loads(row["properties"]), json.loads(row["attributes"]), json.loads(row["depends"]),
        None if row["before"] is None else json.loads(row["before"]),
    )  # fmt: skip


def _step(row: Row) -> Step:
    return Step(
        row["seq"], row["stack_id"], row["phase"], row["logical_id"], row["action"], json.loads(row["waits_for"]),
        row["status"], json.loads(row["journal"]), row["issued"], row["attempts"], row["wake_at"],
        json.loads(row["doc"]),
    )  # fmt: skip


# -- stacks ---------------------------------------------------------------------------------------------------------


def stack(db: Database, stack_id: str) -> Stack | None:
    return _stack(db.one("SELECT * FROM cfn_stacks WHERE id = ?", stack_id))


def find_stack(db: Database, scope: Scope, name: str) -> Stack | None:
    """A living stack by name, or any by id."""
    if name.startswith("arn:"):
        return stack(db, name)
    return _stack(
        db.one(
            "SELECT * FROM cfn_stacks WHERE account = ? AND region = ? AND name = ? AND deleted_at IS NULL",
            scope.account, scope.region, name,
        )
    )  # fmt: skip


def stacks(db: Database, scope: Scope, deleted: bool) -> list[Stack]:
    """Newest first."""
    rows = db.all(
        "SELECT * FROM cfn_stacks WHERE account = ? AND region = ? AND (? OR deleted_at IS NULL) "
        "ORDER BY created_at DESC, id",
        scope.account, scope.region, deleted,
    )  # fmt: skip
    return [found for found in map(_stack, rows) if found is not None]


def running_stacks(db: Database) -> list[str]:
    return [row["id"] for row in db.all("SELECT id FROM cfn_stacks WHERE phase IS NOT NULL ORDER BY created_at, id")]


def save_stack(db: Database, item: Stack) -> None:
    db.run(
        "INSERT INTO cfn_stacks (id, name, account, region, status, reason, phase, created_at, updated_at, deleted_at, "
        "spec, previous, options, outputs, principal, termination_protection, change_set_id, deadline) "
        "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET status = excluded.status, "
        "reason = excluded.reason, phase = excluded.phase, updated_at = excluded.updated_at, "
        "deleted_at = excluded.deleted_at, spec = excluded.spec, previous = excluded.previous, "
        "options = excluded.options, outputs = excluded.outputs, principal = excluded.principal, "
        "termination_protection = excluded.termination_protection, change_set_id = excluded.change_set_id, "
        "deadline = excluded.deadline",
        item.id, item.name, item.scope.account, item.scope.region, item.status, item.reason, item.phase,
        item.created_at, item.updated_at, item.deleted_at, spec_text(item.spec), spec_text(item.previous),
        dump(item.options), dump(item.outputs), dump(item.principal), int(item.termination_protection),
        item.change_set_id, item.deadline,
    )  # fmt: skip


# -- resources ------------------------------------------------------------------------------------------------------


def resources(db: Database, stack_id: str) -> dict[str, StackResource]:
    rows = db.all("SELECT * FROM cfn_resources WHERE stack_id = ? ORDER BY logical_id", stack_id)
    return {row["logical_id"]: _resource(row) for row in rows}


def resource(db: Database, stack_id: str, logical_id: str) -> StackResource | None:
    row = db.one("SELECT * FROM cfn_resources WHERE stack_id = ? AND logical_id = ?", stack_id, logical_id)
    return None if row is None else _resource(row)


def stack_of_physical(db: Database, physical_id: str) -> str | None:
    return db.value(
        "SELECT stack_id FROM cfn_resources WHERE physical_id = ? ORDER BY updated_at DESC LIMIT 1", physical_id
    )


def save_resource(db: Database, item: StackResource) -> None:
    db.run(
        "INSERT OR REPLACE INTO cfn_resources (stack_id, logical_id, type, physical_id, status, reason, updated_at, "
        "properties, attributes, depends, before) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        item.stack_id, item.logical_id, item.type, item.physical_id, item.status, item.reason, item.updated_at,
        dump(item.properties), dump(item.attributes), dump(item.depends),
        None if item.before is None else dump(item.before),
    )  # fmt: skip


def drop_resource(db: Database, stack_id: str, logical_id: str) -> None:
    db.run("DELETE FROM cfn_resources WHERE stack_id = ? AND logical_id = ?", stack_id, logical_id)


def settle_resources(db: Database, stack_id: str) -> None:
    """Nothing to go back to any more."""
    db.run("UPDATE cfn_resources SET before = NULL WHERE stack_id = ?", stack_id)


# -- steps ----------------------------------------------------------------------------------------------------------


def add_step(
    db: Database, stack_id: str, phase: str, logical_id: str, action: str, waits_for: list[str], doc: dict[str, Any]
) -> None:
    db.insert(
        "INSERT INTO cfn_steps (stack_id, phase, logical_id, action, waits_for, doc) VALUES (?,?,?,?,?,?)",
        stack_id, phase, logical_id, action, dump(waits_for), dump(doc),
    )  # fmt: skip


def steps(db: Database, stack_id: str, phase: str) -> list[Step]:
    return [
        _step(row)
        for row in db.all("SELECT * FROM cfn_steps WHERE stack_id = ? AND phase = ? ORDER BY seq", stack_id, phase)
    ]


def step(db: Database, seq: int) -> Step | None:
    row = db.one("SELECT * FROM cfn_steps WHERE seq = ?", seq)
    return None if row is None else _step(row)


def save_step(db: Database, item: Step) -> None:
    db.run(
        "UPDATE cfn_steps SET status = ?, journal = ?, issued = ?, attempts = ?, wake_at = ?, doc = ? WHERE seq = ?",
        item.status, dump(item.journal), item.issued, item.attempts, item.wake_at, dump(item.doc), item.seq,
    )  # fmt: skip


def drop_steps(db: Database, stack_id: str, phase: str | None = None) -> None:
    db.run(
        "DELETE FROM cfn_responses WHERE step_seq IN "
        "(SELECT seq FROM cfn_steps WHERE stack_id = ? AND (? IS NULL OR phase = ?))",
        stack_id, phase, phase,
    )  # fmt: skip
    db.run("DELETE FROM cfn_steps WHERE stack_id = ? AND (? IS NULL OR phase = ?)", stack_id, phase, phase)


def expect_response(db: Database, token: str, seq: int) -> None:
    db.run("INSERT OR IGNORE INTO cfn_responses (token, step_seq) VALUES (?, ?)", token, seq)


def response(db: Database, token: str) -> str | None:
    return db.value("SELECT body FROM cfn_responses WHERE token = ?", token)


def record_response(db: Database, token: str, body: str) -> bool:
    """The first response counts; False for a token that nobody waits for."""
    return db.run("UPDATE cfn_responses SET body = COALESCE(body, ?) WHERE token = ?", body, token) > 0


# -- events ---------------------------------------------------------------------------------------------------------


def add_event(
    ctx: Context,
    item: Stack,
    logical_id: str,
    physical_id: str,
    kind: str,
    status: str,
    reason: str = "",
    properties: str = "",
) -> None:
    ctx.db.insert(
        "INSERT INTO cfn_events (id, stack_id, stack_name, at, logical_id, physical_id, type, status, reason, "
        "properties, token) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        ctx.machine.entropy.uuid(), item.id, item.name, ctx.now, logical_id, physical_id, kind, status, reason,
        properties, item.options.get("token", ""),
    )  # fmt: skip


def events(db: Database, stack_id: str, before: int | None, limit: int) -> list[Row]:
    """Newest first."""
    return db.all(
        "SELECT * FROM cfn_events WHERE stack_id = ? AND (? IS NULL OR seq < ?) ORDER BY seq DESC LIMIT ?",
        stack_id, before, before, limit,
    )  # fmt: skip


# -- exports --------------------------------------------------------------------------------------------------------


def exports(db: Database, scope: Scope) -> dict[str, Row]:
    rows = db.all(
        "SELECT * FROM cfn_exports WHERE account = ? AND region = ? ORDER BY name", scope.account, scope.region
    )
    return {row["name"]: row for row in rows}


def exports_of(db: Database, stack_id: str) -> dict[str, str]:
    return {row["name"]: row["value"] for row in db.all("SELECT * FROM cfn_exports WHERE stack_id = ?", stack_id)}


def set_exports(db: Database, item: Stack, values: dict[str, str]) -> None:
    db.run("DELETE FROM cfn_exports WHERE stack_id = ?", item.id)
    db.many(
        "INSERT INTO cfn_exports (account, region, name, value, stack_id) VALUES (?,?,?,?,?)",
        [(*item.scope, name, value, item.id) for name, value in values.items()],
    )


def importers(db: Database, scope: Scope, name: str) -> list[str]:
    """Names of the stacks that import an export."""
    rows = db.all(
        "SELECT s.name FROM cfn_imports i JOIN cfn_stacks s ON s.id = i.stack_id "
        "WHERE i.account = ? AND i.region = ? AND i.name = ? AND s.deleted_at IS NULL ORDER BY s.name",
        scope.account, scope.region, name,
    )  # fmt: skip
    return [row["name"] for row in rows]


def add_import(db: Database, item: Stack, name: str) -> None:
    sql = "INSERT OR IGNORE INTO cfn_imports (account, region, name, stack_id) VALUES (?,?,?,?)"
    db.run(sql, *item.scope, name, item.id)


def set_imports(db: Database, item: Stack, names: set[str]) -> None:
    db.run("DELETE FROM cfn_imports WHERE stack_id = ?", item.id)
    for name in sorted(names):
        add_import(db, item, name)


# -- change sets ----------------------------------------------------------------------------------------------------


def add_change_set(db: Database, values: dict[str, Any]) -> None:
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    db.run(f"INSERT INTO cfn_change_sets ({names}) VALUES ({marks})", *values.values())


def change_sets(db: Database, stack_id: str) -> list[Row]:
    return db.all("SELECT * FROM cfn_change_sets WHERE stack_id = ? ORDER BY created_at, id", stack_id)


def change_set(db: Database, stack_id: str | None, name: str) -> Row | None:
    """By id, or by name within a stack."""
    if name.startswith("arn:"):
        return db.one("SELECT * FROM cfn_change_sets WHERE id = ?", name)
    return db.one("SELECT * FROM cfn_change_sets WHERE stack_id = ? AND name = ?", stack_id, name)


def set_execution_status(db: Database, change_set_id: str, status: str) -> None:
    db.run("UPDATE cfn_change_sets SET execution_status = ? WHERE id = ?", status, change_set_id)


def obsolete_others(db: Database, stack_id: str, keep: str) -> None:
    """Once a change set is executed, the stack's others are gone."""
    db.run("DELETE FROM cfn_change_sets WHERE stack_id = ? AND id <> ?", stack_id, keep)


def obsolete_all(db: Database, stack_id: str) -> None:
    """Change sets that wait to be executed no longer fit once the stack is made or updated without them."""
    db.run(
        "UPDATE cfn_change_sets SET execution_status = 'OBSOLETE' "
        "WHERE stack_id = ? AND execution_status = 'AVAILABLE'",
        stack_id,
    )


def drop_change_set(db: Database, change_set_id: str) -> None:
    db.run("DELETE FROM cfn_change_sets WHERE id = ?", change_set_id)


def change_set_spec(row: Row) -> Spec:
    return Spec(**json.loads(row["spec"]))

"""Machines, activities, executions and where they stand, as rows."""

from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.stepfunctions.domain import EXPRESS, STANDARD, Execution, Frame, Machine
from preheat.store.database import Database

_MACHINE = ", ".join(Machine._fields)
_EXECUTION = ", ".join(Execution._fields)
_FRAME = ", ".join(Frame._fields)


def _sets(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} = ?" for name in values)


def _add(db: Database, table: str, values: dict[str, Any]) -> int:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    return db.insert(f"INSERT INTO {table} ({names}) VALUES ({marks})", *values.values())


# -- machines ----------------------------------------------------------------------------------------------------------


def machine(db: Database, scope: Scope, name: str) -> Machine | None:
    row = db.one(f"SELECT {_MACHINE} FROM states_machines WHERE account = ? AND region = ? AND name = ?", *scope, name)
    return None if row is None else Machine(*row)


def machines(db: Database, scope: Scope, after: str, most: int) -> list[Machine]:
    rows = db.all(
        f"SELECT {_MACHINE} FROM states_machines WHERE account = ? AND region = ? AND name > ? ORDER BY name LIMIT ?",
        *scope, after, most,
    )  # fmt: skip
    return [Machine(*row) for row in rows]


def add_machine(db: Database, **values: Any) -> int:
    return _add(db, "states_machines", values)


def change_machine(db: Database, row: int, **values: Any) -> None:
    db.run(f"UPDATE states_machines SET {_sets(values)} WHERE row = ?", *values.values(), row)


def remove_machine(db: Database, row: int) -> None:
    db.run("DELETE FROM states_machines WHERE row = ?", row)


def add_revision(db: Database, revision_id: str, definition: str, now: float) -> int:
    return _add(db, "states_revisions", {"revision_id": revision_id, "definition": definition, "created": now})


def revision(db: Database, row: int) -> tuple[str, str, float]:
    """(revision id, definition, when it was made)."""
    found = db.one("SELECT revision_id, definition, created FROM states_revisions WHERE row = ?", row)
    assert found is not None
    return found[0], found[1], found[2]


def forget_revisions(db: Database, rows: set[int]) -> None:
    """Those of them that neither a machine nor an execution has."""
    db.many(
        "DELETE FROM states_revisions WHERE row = ?1"
        " AND NOT EXISTS (SELECT 1 FROM states_machines WHERE revision = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM states_executions WHERE revision = ?1)",
        [(row,) for row in rows],
    )


# -- activities --------------------------------------------------------------------------------------------------------


def activity(db: Database, scope: Scope, name: str) -> tuple[str, float] | None:
    """(tags as JSON, when it was made)."""
    row = db.one(
        "SELECT tags, created FROM states_activities WHERE account = ? AND region = ? AND name = ?", *scope, name
    )
    return None if row is None else (row[0], row[1])


def put_activity(db: Database, scope: Scope, name: str, tags: str, created: float) -> None:
    db.run("INSERT OR REPLACE INTO states_activities VALUES (?, ?, ?, ?, ?)", *scope, name, tags, created)


def remove_activity(db: Database, scope: Scope, name: str) -> None:
    db.run("DELETE FROM states_activities WHERE account = ? AND region = ? AND name = ?", *scope, name)


def activities(db: Database, scope: Scope, after: str, most: int) -> list[tuple[str, float]]:
    rows = db.all(
        "SELECT name, created FROM states_activities WHERE account = ? AND region = ? AND name > ? ORDER BY name"
        " LIMIT ?",
        *scope, after, most,
    )  # fmt: skip
    return [(row[0], row[1]) for row in rows]


# -- executions --------------------------------------------------------------------------------------------------------


def add_execution(db: Database, **values: Any) -> int:
    return _add(db, "states_executions", values)


def execution(db: Database, row: int) -> Execution | None:
    found = db.one(f"SELECT {_EXECUTION} FROM states_executions WHERE row = ?", row)
    return None if found is None else Execution(*found)


def find_execution(db: Database, scope: Scope, machine_name: str, name: str) -> Execution | None:
    found = db.one(
        f"SELECT {_EXECUTION} FROM states_executions WHERE account = ? AND region = ? AND machine = ? AND name = ?"
        " AND type = 'STANDARD'",
        *scope, machine_name, name,
    )  # fmt: skip
    return None if found is None else Execution(*found)


def executions(
    db: Database, scope: Scope, machine_name: str, status: str | None, before: tuple[float, int], most: int
) -> list[Execution]:
    """The latest first. `before` is (started, row) of the last one of the page before."""
    rows = db.all(
        f"SELECT {_EXECUTION} FROM states_executions WHERE account = ? AND region = ? AND machine = ?"
        " AND type = 'STANDARD' AND (started, row) < (?, ?) AND status = coalesce(?, status)"
        " ORDER BY started DESC, row DESC LIMIT ?",
        *scope, machine_name, *before, status, most,
    )  # fmt: skip
    return [Execution(*row) for row in rows]


def running(db: Database, machine: Machine) -> list[Execution]:
    rows = db.all(
        f"SELECT {_EXECUTION} FROM states_executions WHERE account = ? AND region = ? AND machine = ?"
        " AND status = 'RUNNING'",
        *machine.scope, machine.name,
    )  # fmt: skip
    return [Execution(*row) for row in rows]


def waited_for(db: Database, frame: int) -> list[Execution]:
    """Those whose end a task waits for."""
    rows = db.all(f"SELECT {_EXECUTION} FROM states_executions WHERE waiter = ? AND status = 'RUNNING'", frame)
    return [Execution(*row) for row in rows]


def expired(db: Database, now: float, most: int) -> list[Execution]:
    rows = db.all(
        f"SELECT {_EXECUTION} FROM states_executions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?", now, most
    )
    return [Execution(*row) for row in rows]


def change_execution(db: Database, row: int, **values: Any) -> None:
    db.run(f"UPDATE states_executions SET {_sets(values)} WHERE row = ?", *values.values(), row)


def remove_ended(db: Database, standard_before: float, express_before: float, most: int) -> None:
    """Executions that ended before these moments, and their histories."""
    rows = [
        row
        for kind, before in ((STANDARD, standard_before), (EXPRESS, express_before))
        for row in db.all(
            "SELECT row, revision FROM states_executions WHERE type = ? AND stopped < ? ORDER BY stopped LIMIT ?",
            kind, before, most,
        )
    ]  # fmt: skip
    if rows:
        gone = [(row[0],) for row in rows]
        db.many("DELETE FROM states_events WHERE execution = ?", gone)
        db.many("DELETE FROM states_executions WHERE row = ?", gone)
        forget_revisions(db, {row[1] for row in rows})


def next_event(db: Database, row: int) -> int:
    return db.returning("UPDATE states_executions SET events = events + 1 WHERE row = ? RETURNING events", row)[0][0]


def add_event(db: Database, execution_row: int, number: int, previous: int, at: float, kind: str, details: str) -> None:
    db.run("INSERT INTO states_events VALUES (?, ?, ?, ?, ?, ?)", execution_row, number, previous, at, kind, details)


def events(db: Database, execution_row: int, after: int, reverse: bool, most: int) -> list[tuple[Any, ...]]:
    """(id, previous, at, type, details); `after` is the id to go on from, in the direction that is read."""
    side, order = ("<", "DESC") if reverse else (">", "ASC")
    rows = db.all(
        f"SELECT id, previous, at, type, details FROM states_events WHERE execution = ? AND id {side} ?"
        f" ORDER BY id {order} LIMIT ?",
        execution_row, after, most,
    )  # fmt: skip
    return [tuple(row) for row in rows]


# -- frames ------------------------------------------------------------------------------------------------------------


def add_frame(db: Database, **values: Any) -> int:
    return _add(db, "states_frames", values)


def frame(db: Database, row: int) -> Frame | None:
    found = db.one(f"SELECT {_FRAME} FROM states_frames WHERE row = ?", row)
    return None if found is None else Frame(*found)


def frame_of_token(db: Database, token: str) -> Frame | None:
    found = db.one(f"SELECT {_FRAME} FROM states_frames WHERE token = ?", token)
    return None if found is None else Frame(*found)


def waiting_for_worker(db: Database, activity_arn: str) -> Frame | None:
    """The oldest task of an activity that no worker has."""
    found = db.one(
        f"SELECT {_FRAME} FROM states_frames WHERE activity = ? AND started = 0 ORDER BY row LIMIT 1", activity_arn
    )
    return None if found is None else Frame(*found)


def due_frames(db: Database, now: float, most: int) -> list[int]:
    rows = db.all("SELECT row FROM states_frames WHERE due_at <= ? ORDER BY due_at, row LIMIT ?", now, most)
    return [row[0] for row in rows]


def next_due(db: Database) -> float | None:
    """When the next frame or the end of an execution's time is due."""
    times = (
        db.value("SELECT min(due_at) FROM states_frames WHERE due_at IS NOT NULL"),
        db.value("SELECT min(expires_at) FROM states_executions WHERE expires_at IS NOT NULL"),
    )
    return min((at for at in times if at is not None), default=None)


def children(db: Database, parent: int) -> list[Frame]:
    rows = db.all(f"SELECT {_FRAME} FROM states_frames WHERE parent = ? ORDER BY position", parent)
    return [Frame(*row) for row in rows]


def top_frame(db: Database, execution_row: int) -> Frame | None:
    found = db.one(f"SELECT {_FRAME} FROM states_frames WHERE execution = ? AND parent IS NULL", execution_row)
    return None if found is None else Frame(*found)


def change_frame(db: Database, frame: Frame, **values: Any) -> Frame:
    db.run(f"UPDATE states_frames SET {_sets(values)} WHERE row = ?", *values.values(), frame.row)
    return frame._replace(**values)


def remove_frame(db: Database, row: int) -> None:
    db.run("DELETE FROM states_results WHERE frame = ?", row)
    db.run("DELETE FROM states_frames WHERE row = ?", row)


def put_result(db: Database, frame: int, position: int, output: str | None) -> None:
    db.run("INSERT OR REPLACE INTO states_results VALUES (?, ?, ?)", frame, position, output)


def results(db: Database, frame: int) -> list[str | None]:
    return [row[0] for row in db.all("SELECT output FROM states_results WHERE frame = ? ORDER BY position", frame)]


def count_results(db: Database, frame: int, failed: bool = False) -> int:
    """How many branches or iterations have ended; `failed`: only those that were tolerated."""
    text = "SELECT count(*) FROM states_results WHERE frame = ?"
    return db.value(f"{text} AND output IS NULL" if failed else text, frame)

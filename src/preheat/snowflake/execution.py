"""One request of a session: its statements, each planned, run and answered as Snowflake does."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from preheat.snowflake.binding import bound
from preheat.snowflake.definitions import Catalog, column_from, declared_kind, define
from preheat.snowflake.engine import Query, Session
from preheat.snowflake.errors import SnowflakeError, missing, syntax, translated, unsupported
from preheat.snowflake.functions import place
from preheat.snowflake.names import Name, Scope, resolved
from preheat.snowflake.results import Outcome, fetch
from preheat.snowflake.showing import DESCRIBE, USE, described_sql, parts_of, settings_of, show_sql, user_sql
from preheat.snowflake.statements import MULTI, Statement, parsed, projections, split
from preheat.snowflake.types import Column, from_duckdb, number, text
from preheat.snowflake.typing_of import output_kinds

PLANS = 500
DONE = "Statement executed successfully."
DML = frozenset(("INSERT", "UPDATE", "DELETE", "MERGE"))
COUNTS = {
    "INSERT": ("number of rows inserted",),
    "UPDATE": ("number of rows updated", "number of multi-joined rows updated"),
    "DELETE": ("number of rows deleted",),
    "MERGE": ("number of rows inserted", "number of rows updated", "number of rows deleted"),
}
STATS = ("numRowsInserted", "numRowsUpdated", "numRowsDeleted")


@dataclass(frozen=True)
class Plan:
    """A statement ready for DuckDB; `tree` is kept to find places for errors, `kinds` are what the output's columns are
    declared as."""

    sql: str
    tree: Any
    tables: tuple[Name, ...]
    kinds: dict[str, str]
    placeholders: int
    deletes: bool


def execute(session: Session, query: Query, new_id: Callable[[], str]) -> Outcome:
    """Never raises for what a statement may do wrong: the outcome says it."""
    outcome = Outcome(query.id, query.text)
    try:
        statements = split(query.text)
        wanted = int(query.parameters.get("MULTI_STATEMENT_COUNT", session.parameters["MULTI_STATEMENT_COUNT"]))
        if len(statements) != wanted and (wanted or not statements):
            text_ = f"Actual statement count {len(statements)} did not match the desired statement count {wanted}."
            raise SnowflakeError(8, "0A000", text_)
        if len(statements) == 1:
            _one(session, query, statements[0], outcome)
        else:
            _several(session, query, statements, outcome, new_id)
    except SnowflakeError as error:
        outcome.error = error
    if outcome.error is None and not query.describe_only:
        session.queries.append(query.id)
    outcome.final = {
        "finalDatabaseName": session.database, "finalSchemaName": session.schema,
        "finalWarehouseName": session.warehouse, "finalRoleName": session.role,
    }  # fmt: skip
    return outcome


def _several(
    session: Session, query: Query, statements: list[Statement], outcome: Outcome, new_id: Callable[[], str]
) -> None:
    """All of them in order, up to the first that fails; its error is the whole request's."""
    if query.bindings:
        raise unsupported("bind variables in several statements")
    for statement in statements:
        child = Outcome(new_id(), statement.text)
        outcome.children.append(child)
        _one(session, replace(query, id=child.query), statement, child)
        session.queries.append(child.query)
    outcome.type_id = MULTI
    _status(outcome, "Multiple statements executed successfully.", "multiple statement execution")


def _one(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    outcome.type_id = statement.type_id
    if statement.keyword == "START":
        statement = replace(statement, keyword="BEGIN")
    words = statement.text.upper().split()
    run = KEYWORDS.get(statement.keyword)
    if statement.keyword == "ALTER" and words[1:2] == ["SESSION"]:
        run = _alter_session
    elif statement.keyword in ("CREATE", "ALTER", "DROP") and "USER" in words[1:4]:
        run = _users
    elif statement.keyword in DML or statement.keyword in ("SELECT", "WITH", "VALUES"):
        run = _query
    if run is None:
        parsed(statement, query.text)
        raise unsupported(statement.keyword)
    if query.describe_only and run is not _query:
        outcome.columns = (text("status"),)
        return
    run(session, query, statement, outcome)


def _status(outcome: Outcome, said: str, name: str = "status") -> None:
    outcome.columns, outcome.rows, outcome.total = (text(name),), [[said]], 1


# -- queries and DML --------------------------------------------------------------------------------------------------


def _query(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    values, many = bound(query.bindings)
    plan = _plan(session, query, statement, many is not None)
    outcome.binds = plan.placeholders
    if query.describe_only:
        _describe(session, plan, statement, outcome)
        return
    if len(values) < plan.placeholders:
        raise SnowflakeError(2049, "42601", "SQL compilation error:\nBind variable ? not set.")
    dml = statement.keyword in DML
    connection = session.connection
    connection.execute(f"SET VARIABLE sf_now = {session.engine.moment()}")
    if dml and not session.in_transaction and not session.parameters["AUTOCOMMIT"]:
        connection.begin()
        session.in_transaction = True
    used = values[: plan.placeholders] if plan.placeholders else []
    with _words(session, plan):
        if dml:
            _change(session, plan, statement, used, many, outcome)
            return
        result = connection.execute(plan.sql, used)
        outcome.columns = _columns(result.description, plan)
        fetch(result, outcome.columns, outcome, session.engine.results)


def _plan(session: Session, query: Query, statement: Statement, many: bool) -> Plan:
    from sqlglot import exp

    from preheat.snowflake.dialect import named, translate

    engine, namespace = session.engine, session.namespace()
    own = namespace.session if namespace.temporary else ""
    key, version = (statement.text, replace(namespace, last_queries=(), session=own), many), engine.version
    found = engine.plans.get(key)
    if found is not None:
        return found
    tree = parsed(statement, query.text)
    original = tree.copy()
    scope = Scope(namespace, lambda name: engine.columns(session, name), lambda id_: engine.scanned(session, id_))
    scope.many, scope.names = many, projections(statement, query.text)
    deletes = isinstance(tree, exp.Merge) and any(
        isinstance(one.args.get("then"), exp.Var) for one in tree.find_all(exp.When)
    )
    sql = translate(tree, scope)
    if isinstance(tree, exp.Merge):
        sql += " RETURNING merge_action"
    kinds = output_kinds(named(original.copy(), scope.names), scope.known)
    plan = Plan(sql, original, tuple(scope.tables), kinds, scope.placeholders, deletes)
    if not scope.fleeting and version == engine.version:
        if len(engine.plans) >= PLANS:
            engine.plans = {}
        engine.plans[key] = plan
    return plan


def _columns(description: Any, plan: Plan) -> tuple[Column, ...]:
    return tuple(from_duckdb(one[0], str(one[1]), plan.kinds.get(one[0], "")) for one in description)


@contextlib.contextmanager
def _words(session: Session, plan: Plan) -> Any:
    """DuckDB's failures as Snowflake's."""
    try:
        yield
    except session.engine.failure() as error:
        written = {one.table: one.written for one in plan.tables} | {one.dotted: one.written for one in plan.tables}
        raise translated(
            error, lambda name: place(plan.tree, name), lambda name: written.get(name, name.rsplit(".", 1)[-1])
        ) from error


def _describe(session: Session, plan: Plan, statement: Statement, outcome: Outcome) -> None:
    if statement.keyword in DML:
        names = COUNTS[statement.keyword]
        outcome.columns = tuple(number(name) for name in names[: 3 if plan.deletes else 2])
        return
    with _words(session, plan):
        rows = session.connection.execute(f"DESCRIBE {plan.sql}", [None] * plan.placeholders).fetchall()
    outcome.columns = tuple(from_duckdb(row[0], row[1], plan.kinds.get(row[0], "")) for row in rows)


def _change(
    session: Session, plan: Plan, statement: Statement, values: list[Any], many: int | None, outcome: Outcome
) -> None:
    kind, connection = statement.keyword, session.connection
    looped = many is not None and "sf_binds" not in plan.sql
    counts = [0, 0, 0]
    if looped:
        with _own_transaction(session):
            for row in zip(*values):
                _count(kind, connection.execute(plan.sql, list(row)), counts)
    else:
        _count(kind, connection.execute(plan.sql, values), counts)
    names = COUNTS[kind]
    if kind == "MERGE":
        shown = counts if plan.deletes else counts[:2]
    elif kind == "UPDATE":
        shown = [counts[1], 0]
    else:
        shown = [counts[0] if kind == "INSERT" else counts[2]]
    outcome.columns = tuple(number(name) for name in names[: len(shown)])
    outcome.rows, outcome.total = [[str(one) for one in shown]], 1
    outcome.stats = dict(zip(STATS, counts))


def _count(kind: str, result: Any, counts: list[int]) -> None:
    """Add what a change did: inserted, updated, deleted."""
    if kind == "MERGE":
        at = {"INSERT": 0, "UPDATE": 1, "DELETE": 2}
        for (action,) in result.fetchall():
            counts[at[action]] += 1
        return
    counts[{"INSERT": 0, "UPDATE": 1, "DELETE": 2}[kind]] += result.fetchone()[0]


@contextlib.contextmanager
def _own_transaction(session: Session) -> Any:
    """All or nothing, unless a transaction is open already."""
    if session.in_transaction:
        yield
        return
    session.connection.begin()
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            session.connection.rollback()
        raise
    session.connection.commit()


# -- definitions ------------------------------------------------------------------------------------------------------


def _define(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    """DDL ends an open transaction first, as Snowflake does, and is a transaction of its own."""
    tree = parsed(statement, query.text)
    engine, connection = session.engine, session.connection
    scope = Scope(
        session.namespace(), lambda name: engine.columns(session, name), lambda id_: engine.scanned(session, id_)
    )
    catalog = Catalog(
        lambda name: engine.has_database(connection, name),
        lambda database, schema: engine.has_schema(connection, database, schema),
        lambda name: engine.kind(connection, name),
        lambda database: engine.schemas(connection, database),
        engine.moment(),
    )
    _end(session, "commit")
    original = tree.copy()
    made = define(tree, scope, catalog)
    with _words(session, Plan("", original, tuple(scope.tables), {}, 0, False)), _own_transaction(session):
        connection.execute(f"SET VARIABLE sf_now = {engine.moment()}")
        for sql in made.sql:
            connection.execute(sql)
    engine.changed()
    if made.use is not None:
        session.use(*made.use)
    if made.temporary:
        session.temporary |= {made.temporary}
    if made.gone:
        session.temporary -= {made.gone}
    _status(outcome, made.status)


def _users(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    engine = session.engine
    sql, status = user_sql(statement.text, engine.users(session.connection), engine.sealed)
    _end(session, "commit")
    with _own_transaction(session):
        for one in sql:
            session.connection.execute(one)
    _status(outcome, status)


# -- the session ------------------------------------------------------------------------------------------------------


def _end(session: Session, how: str) -> None:
    """Commit or roll back the open transaction, if there is one."""
    if not session.in_transaction:
        return
    session.in_transaction = False
    try:
        getattr(session.connection, how)()
    except session.engine.failure() as error:
        with contextlib.suppress(Exception):
            session.connection.rollback()
        raise translated(error, lambda name: (1, 0), lambda name: name) from error


def _begin(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    if not session.in_transaction:
        session.connection.begin()
        session.in_transaction = True
    _status(outcome, DONE)


def _commit(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    _end(session, "commit")
    _status(outcome, DONE)


def _rollback(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    _end(session, "rollback")
    _status(outcome, DONE)


def _alter_session(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    for one in settings_of(statement.text):
        session.apply(one)
    _status(outcome, DONE)


def _use(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    found = USE.match(statement.text)
    if found is None:
        raise syntax(1, 4, statement.text.split()[-1])
    kind, parts = " ".join((found["kind"] or "DATABASE").upper().split()), parts_of(found["name"])
    engine, connection = session.engine, session.connection
    if kind == "WAREHOUSE":
        session.warehouse = parts[-1]
    elif kind == "ROLE":
        session.role = parts[-1]
    elif kind == "SECONDARY ROLES":
        raise unsupported("USE SECONDARY ROLES")
    elif kind == "DATABASE" and len(parts) == 1:
        if not engine.has_database(connection, parts[0]):
            raise missing("Database", parts[0])
        public = engine.has_schema(connection, parts[0], "PUBLIC")
        session.use(parts[0], "PUBLIC" if public else None)
    else:
        database = parts[-2] if len(parts) > 1 else session.database
        if database is None or not engine.has_schema(connection, database, parts[-1]):
            raise missing("Schema", ".".join(parts))
        session.use(database, parts[-1])
    _status(outcome, DONE)


def _show(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    result = session.connection.execute(show_sql(statement.text, session.namespace()))
    outcome.columns = tuple(from_duckdb(one[0], str(one[1])) for one in result.description)
    fetch(result, outcome.columns, outcome, session.engine.results)


def _describe_table(session: Session, query: Query, statement: Statement, outcome: Outcome) -> None:
    import json

    from sqlglot import exp

    found = DESCRIBE.match(statement.text)
    if found is None:
        raise unsupported("DESCRIBE of something else than a table or a view")
    table = exp.to_table(".".join(f'"{one}"' for one in parts_of(found["name"])), dialect="snowflake")
    name = resolved(table, session.namespace(), "DESCRIBE")
    session.engine.columns(session, name)
    rows = session.connection.execute(described_sql(name)).fetchall()
    names = ("name", "type", "kind", "null?", "default", "primary key", "unique key", "check", "expression", "comment")
    outcome.columns = tuple(text(one) for one in names)
    for column, kind, nullable, default, note in rows:
        known = json.loads(note) if note else {}
        declared = declared_kind(note) or column_from(column, kind, nullable, note).declared()
        outcome.rows.append(
            [column, declared, "COLUMN", "Y" if nullable else "N", default, "Y" if known.get("key") else "N", "N", None,
             None, known.get("comment") or None]
        )  # fmt: skip
    outcome.total = len(outcome.rows)


KEYWORDS: dict[str, Callable[[Session, Query, Statement, Outcome], None]] = {
    "CREATE": _define, "ALTER": _define, "DROP": _define, "TRUNCATE": _define, "BEGIN": _begin, "COMMIT": _commit,
    "ROLLBACK": _rollback, "USE": _use, "SHOW": _show, "DESC": _describe_table, "DESCRIBE": _describe_table,
}  # fmt: skip

"""CREATE, ALTER, DROP, TRUNCATE: what DuckDB is told, and what Snowflake answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from preheat.snowflake.dialect import translate
from preheat.snowflake.errors import missing, present, unsupported, without_current
from preheat.snowflake.names import Name, Namespace, Scope, folded, literal, quoted, resolved
from preheat.snowflake.types import SEMI, Column, storage
from preheat.snowflake.typing_of import column_of

DONE = "Statement executed successfully."
C = exp


@dataclass(frozen=True)
class Definition:
    """DuckDB's statements, all in one transaction, and the status that is answered. `use` is a database or schema that
    the session has from now on; `temporary` a temporary table's full name."""

    sql: tuple[str, ...]
    status: str
    use: tuple[str, str | None] | None = None
    temporary: str = ""
    gone: str = ""


@dataclass(frozen=True)
class Catalog:
    """What exists: `database(name)`, `schema(database, name)`, `kind(name)` TABLE, VIEW or nothing."""

    database: Callable[[str], bool]
    schema: Callable[[str, str], bool]
    kind: Callable[[Name], str]
    schemas: Callable[[str], list[str]]
    now: str


def define(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    """Raises SnowflakeError for what does not exist, exists already, or is not supported."""
    if isinstance(tree, C.Create):
        return CREATES.get(tree.args["kind"], _no_create)(tree, scope, catalog)
    if isinstance(tree, C.Drop):
        return _drop(tree, scope.namespace, catalog)
    if isinstance(tree, C.Alter):
        return _alter(tree, scope, catalog)
    if isinstance(tree, C.TruncateTable):
        name = _existing(tree.expressions[0], scope.namespace, catalog, "TABLE")
        return Definition((f"DELETE FROM {where(name, scope.namespace)}",), DONE)
    raise unsupported(tree.key.upper())


def where(name: Name, namespace: Namespace) -> str:
    return f"temp.main.{quoted(name.dotted)}" if name.dotted in namespace.temporary else name.sql


def _no_create(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    raise unsupported(f"CREATE {tree.args['kind']}")


def _database(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    (name,) = [folded(part) for part in tree.this.parts]
    if "." in name:
        raise unsupported("a database with a dot in its name")
    if catalog.database(name):
        if tree.args.get("exists"):
            return Definition((), f"{name} already exists, statement succeeded.")
        if not tree.args.get("replace"):
            raise present(name)
        drop = _database_sql(name, catalog)
    else:
        drop = []
    sql = (
        *drop,
        f"INSERT INTO preheat.databases VALUES ({literal(name)}, {catalog.now})",
        f"CREATE SCHEMA {quoted(name + '.PUBLIC')}",
    )
    return Definition(sql, f"Database {name} successfully created.", (name, "PUBLIC"))


def _database_sql(name: str, catalog: Catalog) -> list[str]:
    drops = [f"DROP SCHEMA {quoted(f'{name}.{one}')} CASCADE" for one in catalog.schemas(name)]
    return [*drops, f"DELETE FROM preheat.databases WHERE name = {literal(name)}"]


def _space(table: exp.Expression, namespace: Namespace) -> tuple[str, str]:
    parts = [folded(part) for part in table.parts]
    if len(parts) == 1:
        if namespace.database is None:
            raise without_current("CREATE SCHEMA", "database")
        parts = [namespace.database, *parts]
    return parts[-2], parts[-1]


def _schema(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    database, name = _space(tree.this, scope.namespace)
    if not catalog.database(database):
        raise missing("Database", database)
    drop: tuple[str, ...] = ()
    if catalog.schema(database, name):
        if tree.args.get("exists"):
            return Definition((), f"{name} already exists, statement succeeded.")
        if not tree.args.get("replace"):
            raise present(name)
        drop = (f"DROP SCHEMA {quoted(f'{database}.{name}')} CASCADE",)
    sql = (*drop, f"CREATE SCHEMA {quoted(f'{database}.{name}')}")
    return Definition(sql, f"Schema {name} successfully created.", (database, name))


def _room(name: Name, catalog: Catalog) -> None:
    if not catalog.database(name.database):
        raise missing("Database", name.database)
    if not catalog.schema(name.database, name.schema):
        raise missing("Schema", f"{name.database}.{name.schema}")


def _table(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    named = tree.this.this if isinstance(tree.this, C.Schema) else tree.this
    name = resolved(named, scope.namespace, "CREATE TABLE")
    _room(name, catalog)
    temporary, comment = _properties(tree)
    if tree.args.get("clone") is not None:
        raise unsupported("CREATE TABLE CLONE")
    known = scope.namespace.temporary
    there = name.dotted in known if temporary else catalog.kind(name)
    drop: tuple[str, ...] = ()
    if there:
        if tree.args.get("exists"):
            return Definition((), f"{name.table} already exists, statement succeeded.")
        if not tree.args.get("replace"):
            raise present(name.table)
        drop = (f"DROP {'TABLE' if temporary else there} {where(name, scope.namespace)}",)
    target = f"temp.main.{quoted(name.dotted)}" if temporary else name.sql
    made, query = "TEMP TABLE" if temporary else "TABLE", tree.expression
    if query is not None:
        if isinstance(tree.this, C.Schema):
            raise unsupported("CREATE TABLE with columns and AS SELECT")
        create, notes = (f"CREATE {made} {target} AS {translate(query, scope)}",), []
    else:
        create, notes = _columns(tree.this, target, scope)
    note = json.dumps({"created": catalog.now.split("'")[1], "comment": comment})
    if not temporary:
        notes = [*notes, f"COMMENT ON TABLE {target} IS {literal(note)}"]
    status = f"Table {name.table} successfully created."
    return Definition((*drop, *create, *notes), status, temporary=name.dotted if temporary else "")


def _properties(tree: exp.Expression) -> tuple[bool, str]:
    """(temporary, comment). Raises for what a table cannot have here."""
    temporary, comment = False, ""
    found = tree.args.get("properties")
    for one in found.expressions if found is not None else ():
        if isinstance(one, C.TemporaryProperty):
            temporary = True
        elif isinstance(one, C.SchemaCommentProperty):
            comment = one.this.name
        elif not isinstance(one, C.TransientProperty | C.Cluster):
            raise unsupported(one.sql(dialect="snowflake")[:60])
    return temporary, comment


def _columns(schema: exp.Expression, target: str, scope: Scope) -> tuple[tuple[str, ...], list[str]]:
    """CREATE TABLE and the comments that keep what DuckDB's types do not say."""
    before: list[str] = []
    parts: list[str] = []
    notes: list[str] = []
    keys = {folded(one) for item in schema.expressions if isinstance(item, C.PrimaryKey) for one in item.expressions
            if isinstance(one, C.Identifier)}  # fmt: skip
    for item in schema.expressions:
        if not isinstance(item, C.ColumnDef):
            if isinstance(item, C.PrimaryKey | C.UniqueColumnConstraint | C.ForeignKey | C.Constraint):
                continue
            raise unsupported(item.sql(dialect="snowflake")[:60])
        name = folded(item.this)
        part, note, first = _column(item, name, target, scope, name in keys)
        parts.append(part)
        before += first
        notes.append(f"COMMENT ON COLUMN {target}.{quoted(name)} IS {literal(json.dumps(note))}")
    made = "TEMP TABLE" if target.startswith("temp.") else "TABLE"
    return (*before, f"CREATE {made} {target} ({', '.join(parts)})"), notes


def _column(
    item: exp.Expression, name: str, target: str, scope: Scope, key: bool
) -> tuple[str, dict[str, Any], list[str]]:
    """The column in CREATE TABLE, its note, and what must be made before."""
    column, first, extra, comment = column_of(name, item.args["kind"]), [], "", ""
    for one in item.args.get("constraints") or ():
        kind = one.kind
        if isinstance(kind, C.NotNullColumnConstraint):
            extra += "" if kind.args.get("allow_null") else " NOT NULL"
        elif isinstance(kind, C.PrimaryKeyColumnConstraint):
            key = True
        elif isinstance(kind, C.DefaultColumnConstraint):
            extra += f" DEFAULT {translate(kind.this.copy(), scope)}"
        elif isinstance(kind, C.GeneratedAsIdentityColumnConstraint | C.AutoIncrementColumnConstraint):
            space, _, table = target.rpartition('."')
            sequence = f"{space}.{quoted(f'{table[:-1]} {name}')}"
            start, step = (int((kind.args.get(one) or C.Literal.number(1)).name) for one in ("start", "increment"))
            first.append(f"CREATE OR REPLACE SEQUENCE {sequence} START {start} INCREMENT {step}")
            extra += f" DEFAULT nextval({literal(sequence)})"
        elif isinstance(kind, C.CommentColumnConstraint):
            comment = kind.this.name
        elif not isinstance(kind, C.UniqueColumnConstraint | C.Reference):
            raise unsupported(one.sql(dialect="snowflake")[:60])
    if key and " NOT NULL" not in extra:
        extra += " NOT NULL"
    if column.kind == "text" and column.length is not None:
        extra += f" CHECK (length({quoted(name)}) <= {column.length})"
    note = {"type": column.declared(), "comment": comment, "key": key}
    return f"{quoted(name)} {storage(column)}{extra}", note, first


def _view(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    named = tree.this.this if isinstance(tree.this, C.Schema) else tree.this
    name = resolved(named, scope.namespace, "CREATE VIEW")
    _room(name, catalog)
    there = catalog.kind(name)
    if there and tree.args.get("exists"):
        return Definition((), f"{name.table} already exists, statement succeeded.")
    if there and not (tree.args.get("replace") and there == "VIEW"):
        raise present(name.table)
    columns = ""
    if isinstance(tree.this, C.Schema):
        columns = " (" + ", ".join(quoted(folded(one.this if isinstance(one, C.ColumnDef) else one))
                                   for one in tree.this.expressions) + ")"  # fmt: skip
    select = translate(tree.expression, scope)
    replace = "OR REPLACE " if there else ""
    sql = f"CREATE {replace}VIEW {name.sql}{columns} AS {select}"
    return Definition((sql,), f"View {name.table} successfully created.")


def _sequence(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    raise unsupported("CREATE SEQUENCE: use AUTOINCREMENT or IDENTITY columns")


CREATES = {"DATABASE": _database, "SCHEMA": _schema, "TABLE": _table, "VIEW": _view, "SEQUENCE": _sequence}


def _existing(table: exp.Expression, namespace: Namespace, catalog: Catalog, kind: str) -> Name:
    name = resolved(table, namespace, f"ALTER {kind}")
    if name.dotted not in namespace.temporary and catalog.kind(name) != kind:
        raise missing(kind.title(), name.written)
    return name


def _drop(tree: exp.Expression, namespace: Namespace, catalog: Catalog) -> Definition:
    kind, quiet = tree.args["kind"], tree.args.get("exists")
    (table,) = tree.args["tables"]
    if kind == "DATABASE":
        (name,) = [folded(part) for part in table.parts]
        there, sql = catalog.database(name), _database_sql(name, catalog)
        use = (None, None) if namespace.database == name else None
        return _dropped("Database", name, there, quiet, tuple(sql), use)
    if kind == "SCHEMA":
        database, name = _space(table, namespace)
        use = (database, None) if (namespace.database, namespace.schema) == (database, name) else None
        sql = (f"DROP SCHEMA {quoted(f'{database}.{name}')} CASCADE",)
        return _dropped("Schema", name, catalog.schema(database, name), quiet, sql, use)
    if kind not in ("TABLE", "VIEW"):
        raise unsupported(f"DROP {kind}")
    found = resolved(table, namespace, f"DROP {kind}")
    own = found.dotted in namespace.temporary
    there = own or catalog.kind(found) == kind
    done = _dropped(kind.title(), found.written, there, quiet, (f"DROP {kind} {where(found, namespace)}",), None)
    return Definition(done.sql, done.status, gone=found.dotted if own else "")


def _dropped(kind: str, name: str, there: Any, quiet: Any, sql: tuple[str, ...], use: Any) -> Definition:
    if there:
        return Definition(sql, f"{name.rsplit('.', 1)[-1]} successfully dropped.", use)
    if quiet:
        return Definition((), f"Drop statement executed successfully ({name} already dropped).")
    raise missing(kind, name)


def _alter(tree: exp.Expression, scope: Scope, catalog: Catalog) -> Definition:
    kind = tree.args["kind"]
    if kind not in ("TABLE", "VIEW"):
        raise unsupported(f"ALTER {kind}")
    if tree.args.get("exists") and not catalog.kind(resolved(tree.this, scope.namespace, f"ALTER {kind}")):
        return Definition((), DONE)
    name = _existing(tree.this, scope.namespace, catalog, kind)
    target = where(name, scope.namespace)
    sql: list[str] = []
    for action in tree.args["actions"]:
        sql += _action(action, kind, target, name, scope, catalog)
    return Definition(tuple(sql), DONE)


def _action(
    action: exp.Expression, kind: str, target: str, name: Name, scope: Scope, catalog: Catalog
) -> list[str]:
    alter = f"ALTER {kind} {target}"
    if isinstance(action, C.ColumnDef):
        column = folded(action.this)
        part, note, first = _column(action, column, target, scope, False)
        if "NOT NULL" in part or "CHECK" in part or first:
            raise unsupported("ADD COLUMN with NOT NULL, a length or AUTOINCREMENT: add it plain")
        exists = "IF NOT EXISTS " if action.args.get("exists") else ""
        note_sql = f"COMMENT ON COLUMN {target}.{quoted(column)} IS {literal(json.dumps(note))}"
        return [f"{alter} ADD COLUMN {exists}{part}", note_sql]
    if isinstance(action, C.Drop):
        exists = "IF EXISTS " if action.args.get("exists") else ""
        return [f"{alter} DROP COLUMN {exists}{quoted(folded(one.this))}" for one in action.args["tables"]]
    if isinstance(action, C.RenameColumn):
        return [f"{alter} RENAME COLUMN {quoted(folded(action.this.this))} TO {quoted(folded(action.args['to'].this))}"]
    if isinstance(action, C.AlterRename):
        new = resolved(action.this, scope.namespace, "ALTER TABLE")
        if new.space != name.space:
            raise unsupported("RENAME into another schema")
        if catalog.kind(new):
            raise present(new.table)
        return [f"{alter} RENAME TO {quoted(new.table)}"]
    raise unsupported(f"ALTER {kind} {action.sql(dialect='snowflake')[:60]}")


def declared_kind(note: str | None) -> str:
    """The declared type in a column's comment; empty when there is none."""
    if not note:
        return ""
    try:
        return str(json.loads(note).get("type", ""))
    except ValueError:
        return ""


def column_from(name: str, kind: str, nullable: bool, note: str | None) -> Column:
    """A column of DuckDB's catalog."""
    from preheat.snowflake.types import from_duckdb

    declared = declared_kind(note)
    made = from_duckdb(name, kind, declared.split("(")[0])
    length = int(declared[8:-1]) if declared.startswith("VARCHAR(") else made.length
    semi = made.kind in SEMI or made.kind.startswith("timestamp")
    return Column(name, made.kind, made.precision, made.scale, made.length if semi else length, nullable,
                  made.dimension, made.element)  # fmt: skip


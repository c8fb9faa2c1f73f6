"""Snowflake's SQL -> DuckDB's: sqlglot translates, the rules here say what it does not.

`translate(tree, scope)` changes the tree in place and returns DuckDB's text. Rules run in the order of PASSES.
"""

import re
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.errors import ErrorLevel, UnsupportedError

from preheat.snowflake import functions
from preheat.snowflake.errors import SnowflakeError, missing, unsupported
from preheat.snowflake.information import VIEWS
from preheat.snowflake.names import INFORMATION, Name, Namespace, Scope, folded, literal, quoted, resolved
from preheat.snowflake.types import SEMI, Column, storage
from preheat.snowflake.typing_of import VARIANTS, column_of

OFFSET = re.compile(r"(?<=\d)\s+([+-]\d\d(?::?\d\d)?)$")
FLATTEN = """SELECT 1 AS "SEQ", CASE WHEN NOT e.fullkey LIKE '%]' THEN e.key END AS "KEY",
 REGEXP_REPLACE(e.fullkey, '^[$][.]?', '') AS "PATH",
 CASE WHEN e.fullkey LIKE '%]' THEN CAST(e.key AS BIGINT) END AS "INDEX", e.value AS "VALUE", :x AS "THIS"
 FROM JSON_EACH(:x) AS e WHERE JSON_TYPE(:x) IN ('ARRAY', 'OBJECT') AND NOT e.key IS NULL"""


def translate(tree: exp.Expression, scope: Scope) -> str:
    """Raises SnowflakeError for what has no meaning here."""
    for step in PASSES:
        tree = step(tree, scope) or tree
    try:
        return tree.sql(dialect="duckdb", comments=False, unsupported_level=ErrorLevel.RAISE)
    except UnsupportedError as error:
        raise unsupported(str(error).split("\n")[0]) from error


def template(sql: str, **nodes: exp.Expression) -> exp.Expression:
    """DuckDB's text parsed, `:name` replaced by a copy of the node."""
    tree = parse_one(sql, read="duckdb")
    for found in list(tree.find_all(exp.Placeholder)):
        if found.name in nodes:
            found.replace(nodes[found.name].copy())
    return tree


def _fold(tree: exp.Expression, scope: Scope) -> None:
    for found in tree.find_all(exp.Identifier):
        found.set("this", folded(found))
        found.set("quoted", True)


def _alias(tree: exp.Expression, scope: Scope) -> None:
    """A projection without a name has its text as one."""
    outer = tree.find(exp.Select)
    for select in tree.find_all(exp.Select):
        given = scope.names if select is outer and len(scope.names) == len(select.expressions) else ()
        for at, one in enumerate(select.expressions):
            if isinstance(one, exp.Alias | exp.Star | exp.Column | exp.Aliases) or one.is_star:
                continue
            if isinstance(select.parent, exp.In | exp.Exists):
                continue
            name = given[at] if given else one.sql(dialect="snowflake", comments=False).replace('"', "")
            label = exp.to_identifier(name.upper(), quoted=True)
            select.expressions[at] = exp.Alias(this=one.copy(), alias=label)
        select.set("expressions", select.expressions)


def _values(tree: exp.Expression, scope: Scope) -> None:
    """The columns of VALUES are COLUMN1, COLUMN2; `$1` is the first of them."""
    for values in list(tree.find_all(exp.Values)):
        if isinstance(values.parent, exp.Insert) or not values.expressions:
            continue
        alias = values.args.get("alias")
        if alias is None:
            alias = exp.TableAlias(this=exp.to_identifier("VALUES", quoted=True))
            values.set("alias", alias)
        if not alias.args.get("columns"):
            count = len(values.expressions[0].expressions)
            alias.set("columns", [exp.to_identifier(f"COLUMN{at + 1}", quoted=True) for at in range(count)])
    for found in list(tree.find_all(exp.Parameter)):
        if isinstance(found.this, exp.Literal):
            found.replace(exp.column(f"COLUMN{found.name}", quoted=True))
        else:
            raise unsupported(f"session variable ${found.name}")


def _tables(tree: exp.Expression, scope: Scope) -> None:
    for table in list(tree.find_all(exp.Table)):
        if isinstance(table.this, exp.Func | exp.Anonymous) or _is_common(table):
            continue
        name = resolved(table, scope.namespace, type(tree).__name__.upper())
        if name.schema == INFORMATION:
            _information(table, name)
            continue
        scope.tables.append(name)
        columns = scope.columns(name)
        for column in columns:
            scope.known.setdefault(column.name, column)
        place = name.dotted in scope.namespace.temporary
        alias = table.args.get("alias")
        if alias is None and not _target(table):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name.table, quoted=True)))
        table.set("this", exp.to_identifier(name.dotted if place else name.table, quoted=True))
        table.set("db", exp.to_identifier("main" if place else name.space, quoted=True))
        table.set("catalog", exp.to_identifier("temp", quoted=True) if place else None)
    for column in tree.find_all(exp.Column):
        if column.args.get("db"):
            column.set("db", None)
            column.set("catalog", None)


def _target(table: exp.Table) -> bool:
    """Whether it is what an INSERT or DDL names; that takes no alias."""
    parent = table.parent
    if isinstance(parent, exp.Schema):
        parent = parent.parent
    return isinstance(parent, exp.Insert | exp.Create | exp.Drop | exp.Alter | exp.TruncateTable | exp.Describe)


def _is_common(table: exp.Table) -> bool:
    """Whether it is the name of a common table expression in sight."""
    if table.args.get("db"):
        return False
    name, node = table.name, table.parent
    while node is not None:
        known = node.args.get("with_") or node.args.get("with")
        if known is not None and any(one.alias == name for one in known.expressions):
            return True
        node = node.parent
    return False


def _information(table: exp.Table, name: Name) -> None:
    view = VIEWS.get(name.table)
    if view is None:
        raise missing("Object", name.dotted)
    select = parse_one(view.format(database=literal(name.database)), read="duckdb")
    alias = table.alias or name.table
    table.replace(exp.Subquery(this=select, alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True))))


def _flatten(tree: exp.Expression, scope: Scope) -> None:
    for found in list(tree.find_all(exp.Lateral, exp.TableFromRows)):
        call = found.this
        alias = found.args.get("alias")
        if isinstance(call, exp.Anonymous) and call.name.upper() == "RESULT_SCAN":
            _result_scan(found, call, scope)
            continue
        if not isinstance(call, exp.Explode):
            if isinstance(found, exp.Lateral) and isinstance(call, exp.Subquery):
                continue
            raise unsupported(f"table function {call.sql(dialect='snowflake')[:60]}")
        given = {}
        for at, one in enumerate([call.this, *call.expressions]):
            key, value = (one.this.name.lower(), one.expression) if isinstance(one, exp.Kwarg) else (
                ("input", "path", "outer", "recursive", "mode")[at], one)
            given[key] = value
        source = given["input"]
        if "path" in given:
            source = exp.func("JSON_EXTRACT", source, exp.Literal.string("$." + given["path"].name))
        each = "JSON_TREE" if _true(given, "recursive") else "JSON_EACH"
        select = template(FLATTEN.replace("JSON_EACH", each), x=source)
        mode = given["mode"].name.upper() if "mode" in given else "BOTH"
        if mode != "BOTH":
            select = select.where(f"JSON_TYPE(THIS) = '{mode}'", dialect="duckdb")
        label = alias.this if alias is not None and alias.this else exp.to_identifier("FLATTEN", quoted=True)
        for name, kind in (("VALUE", "variant"), ("THIS", "variant")):
            scope.known.setdefault(name, Column(name, kind))
        lateral = exp.Lateral(this=exp.Subquery(this=select), alias=exp.TableAlias(this=label))
        parent = found.parent
        if isinstance(parent, exp.Join):
            if _true(given, "outer"):
                parent.set("side", "LEFT")
                parent.set("on", exp.true())
            found.replace(lateral)
        else:
            found.replace(exp.Subquery(this=select, alias=exp.TableAlias(this=label)))


def _true(given: dict[str, Any], name: str) -> bool:
    value = given.get(name)
    return value is not None and (value.this is True or value.name.lower() == "true")


def _result_scan(found: exp.Expression, call: exp.Anonymous, scope: Scope) -> None:
    """An earlier query's rows, as the table that the engine makes of them."""
    scope.fleeting = True
    (which,) = call.expressions
    query = which.name if isinstance(which, exp.Literal) else functions.earlier(which, scope)
    alias = found.alias or "RESULT_SCAN"
    found.replace(exp.to_table(scope.results(query), alias=quoted(alias), dialect="duckdb"))


def _inserted(tree: exp.Expression, scope: Scope) -> None:
    """What Snowflake refuses in INSERT: functions in VALUES, text for a semi-structured or vector column."""
    if not isinstance(tree, exp.Insert):
        return
    if tree.args.get("overwrite"):
        raise unsupported("INSERT OVERWRITE")
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    columns = list(scope.columns(resolved_again(target, scope)))
    if isinstance(tree.this, exp.Schema):
        by_name = {column.name: column for column in columns}
        columns = [by_name.get(one.name, Column(one.name, "text")) for one in tree.this.expressions]
    source = tree.expression
    rows = [one.expressions if isinstance(one, exp.Tuple) else [one] for one in source.expressions] if isinstance(
        source, exp.Values) else [source.expressions] if isinstance(source, exp.Select) else []
    for row in rows:
        for at, value in enumerate(row):
            bare = value.this if isinstance(value, exp.Alias) else value
            if (isinstance(source, exp.Values) and isinstance(bare, FORBIDDEN)) or _vector_cast(bare, source):
                text = f"SQL compilation error:\nInvalid expression [{bare.sql(dialect='snowflake')}] in VALUES clause"
                raise SnowflakeError(2014, "22000", text)
            if at < len(columns):
                _fits(bare, columns[at])
                if columns[at].kind.startswith("timestamp") and isinstance(bare, exp.Literal):
                    bare.set("this", OFFSET.sub(r"\1", bare.name))


def _vector_cast(value: exp.Expression, source: exp.Expression) -> bool:
    return isinstance(source, exp.Values) and isinstance(value, exp.Cast) and value.to.this in (
        exp.DataType.Type.VECTOR, exp.DataType.Type.VARIANT, exp.DataType.Type.ARRAY, exp.DataType.Type.OBJECT)


FORBIDDEN = (exp.ParseJSON, exp.Array, exp.Struct, exp.Select, exp.Subquery)


def _fits(value: exp.Expression, column: Column) -> None:
    if column.kind not in SEMI and column.kind != "vector":
        return
    got = ""
    if isinstance(value, exp.Literal):
        got = f"VARCHAR({len(value.name)})" if value.is_string else "NUMBER(38,0)"
    elif isinstance(value, exp.Placeholder):
        got = "VARCHAR(16777216)"
    elif isinstance(value, exp.Array) and column.kind == "vector":
        got = "ARRAY"
    if got and not (column.kind == "variant" and not got.startswith("VARCHAR")):
        text = f"Expression type does not match column data type, expecting {column.declared()} but got {got}"
        raise SnowflakeError(2023, "22000", f"SQL compilation error:\n{text} for column {column.name}")


def resolved_again(table: exp.Expression, scope: Scope) -> Name:
    """The name of a table that `_tables` has dealt with."""
    return next((one for one in scope.tables if table.name in (one.table, one.dotted)), scope.tables[0])


def _assigned(tree: exp.Expression, scope: Scope) -> None:
    """The left of SET takes no table in DuckDB."""
    for update in tree.find_all(exp.Update):
        for one in update.expressions:
            if isinstance(one, exp.EQ) and isinstance(one.this, exp.Column):
                one.this.set("table", None)
    for insert in tree.find_all(exp.Insert):
        if insert.find_ancestor(exp.When) and isinstance(insert.this, exp.Tuple):
            for column in insert.this.find_all(exp.Column):
                column.set("table", None)


def _placeholders(tree: exp.Expression, scope: Scope) -> None:
    for found in list(tree.find_all(exp.Placeholder)):
        if not found.name.isdigit():
            raise unsupported(f"bind variable :{found.name}")
        number = int(found.name)
        scope.placeholders = max(scope.placeholders, number)
        found.replace(exp.Parameter(this=exp.Literal.number(number)))


def _casts(tree: exp.Expression, scope: Scope) -> exp.Expression:
    return functions.upward(tree, _cast)


def _cast(node: exp.Expression) -> exp.Expression:
    if not isinstance(node, exp.Cast | exp.TryCast) or node.args.get("done"):
        return node
    column = column_of("", node.to)
    inner, safe = node.this, isinstance(node, exp.TryCast)
    kind = exp.TryCast if safe else exp.Cast
    if column.kind.startswith("timestamp") and isinstance(inner, exp.Literal) and inner.is_string:
        inner = exp.Literal.string(OFFSET.sub(r"\1", inner.name))
    made = exp.DataType.build(storage(column), dialect="duckdb")
    if column.kind in SEMI:
        value = inner if isinstance(inner, VARIANTS) else exp.Anonymous(this="TO_JSON", expressions=[inner])
        return exp.Anonymous(this="SF_ARRAY", expressions=[value]) if column.kind == "array" else value
    if column.kind == "text":
        plain = isinstance(inner, exp.Literal) and inner.is_string
        value = inner if plain else exp.Anonymous(this="SF_TEXT", expressions=[inner])
        return value if column.length is None else exp.func("LEFT", value, exp.Literal.number(column.length))
    if column.kind == "binary":
        return exp.func("UNHEX", inner)
    if column.kind == "vector":
        if column.element == "INT":
            whole = exp.DataType.build(f"INTEGER[{column.dimension}]", dialect="duckdb")
            inner = exp.Cast(this=_numbers(inner), to=whole, done=True)
        else:
            inner = _numbers(inner, literal_text=True)
    return kind(this=inner, to=made, done=True)


def _numbers(node: exp.Expression, literal_text: bool = False) -> exp.Expression:
    """An array written out, as a list of DuckDB's: as one text when all of it is numbers."""
    if not isinstance(node, exp.Array):
        return node
    parts = [one.sql(dialect="duckdb") for one in node.expressions]
    if literal_text and all(isinstance(one, exp.Literal | exp.Neg) for one in node.expressions):
        return exp.Literal.string("[" + ",".join(parts) + "]")
    return exp.Anonymous(this="LIST_VALUE", expressions=node.expressions)


def named(tree: exp.Expression, names: tuple[str, ...]) -> exp.Expression:
    """The statement with its names folded and its projections named: what its output is called."""
    empty = Scope(Namespace("", "", "", "", "", None, None), lambda name: (), lambda query: "", names=names)
    _fold(tree, empty)
    _alias(tree, empty)
    return tree


def _many(tree: exp.Expression, scope: Scope) -> None:
    """Arrays bound for many rows: an INSERT takes all of them at once, from unnested lists."""
    source = tree.expression if scope.many and isinstance(tree, exp.Insert) else None
    if isinstance(source, exp.Values) and len(source.expressions) == 1:
        row = source.expressions[0]
        select = exp.select(*(row.expressions if isinstance(row, exp.Tuple) else [row]))
    elif isinstance(source, exp.Select) and source.args.get("from_") is None:
        select = source
    else:
        return
    for found in list(select.find_all(exp.Parameter)):
        found.replace(exp.column(f"b{found.name}", table="sf_binds"))
    lists = [f"UNNEST(${at + 1}) AS b{at + 1}" for at in range(scope.placeholders)]
    binds = parse_one(f"SELECT {', '.join(lists)}", read="duckdb")
    alias = exp.TableAlias(this=exp.to_identifier("sf_binds"))
    tree.set("expression", select.from_(exp.Subquery(this=binds, alias=alias)))


PASSES = (
    functions.refused, _fold, _alias, _values, _tables, _inserted, _placeholders, _flatten, functions.contexts,
    functions.compared, functions.vectors, _casts, functions.rewritten, _assigned, _many,
)  # fmt: skip

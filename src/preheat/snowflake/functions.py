"""Functions and operators whose meaning differs between Snowflake and DuckDB. `MACROS` are DuckDB's own helpers; they
exist in every connection."""

import re
from collections.abc import Callable
from typing import Any

from sqlglot import exp

from preheat.snowflake.errors import SnowflakeError, argument_types, unsupported
from preheat.snowflake.names import Scope
from preheat.snowflake.typing_of import column_of, semi_kind

NOW = "CAST(GETVARIABLE('sf_now') AS TIMESTAMPTZ)"
MACROS = (
    "CREATE OR REPLACE TEMP MACRO sf_text(x) AS CASE WHEN typeof(x) = 'JSON' THEN"
    " json_extract_string(TRY_CAST(CAST(x AS VARCHAR) AS JSON), '$') ELSE CAST(x AS VARCHAR) END",
    "CREATE OR REPLACE TEMP MACRO sf_div(a, b) AS CASE WHEN b = 0 THEN error('Division by zero') ELSE a / b END",
    "CREATE OR REPLACE TEMP MACRO sf_parse_json(x) AS CASE WHEN trim(x) = '' THEN NULL ELSE CAST(x AS JSON) END",
    "CREATE OR REPLACE TEMP MACRO sf_l1(a, b) AS CASE WHEN a IS NULL OR b IS NULL THEN NULL ELSE"
    " list_sum([abs(CAST(a[i] AS DOUBLE) - CAST(b[i] AS DOUBLE)) for i in generate_series(1, len(a))]) END",
    "CREATE OR REPLACE TEMP MACRO sf_typeof(x) AS CASE json_type(x) WHEN 'UBIGINT' THEN 'INTEGER' WHEN 'BIGINT' THEN"
    " 'INTEGER' WHEN 'NULL' THEN 'NULL_VALUE' ELSE json_type(x) END",
    "CREATE OR REPLACE TEMP MACRO sf_number(x) AS CASE WHEN json_type(x) IN ('UBIGINT', 'BIGINT', 'DOUBLE') THEN"
    " TRY_CAST(x AS DOUBLE) END",
    "CREATE OR REPLACE TEMP MACRO sf_numbers(v) AS list_transform(json_extract(v, '$[*]'), lambda e: sf_number(e))",
    "CREATE OR REPLACE TEMP MACRO sf_array(x) AS CASE WHEN x IS NULL OR json_type(x) = 'NULL' THEN NULL"
    " WHEN json_type(x) = 'ARRAY' THEN x ELSE json_array(x) END",
    "CREATE OR REPLACE TEMP MACRO sf_contains(v, x) AS CASE WHEN v IS NULL OR x IS NULL THEN NULL"
    " WHEN sf_number(to_json(x)) IS NOT NULL THEN list_contains(sf_numbers(sf_array(v)), sf_number(to_json(x)))"
    " ELSE json_contains(CAST(v AS JSON), to_json(x)) END",
    "CREATE OR REPLACE TEMP MACRO sf_append(v, x) AS to_json(list_append(json_extract(v, '$[*]'), to_json(x)))",
    "CREATE OR REPLACE TEMP MACRO sf_concat(v, w) AS"
    " to_json(list_concat(json_extract(v, '$[*]'), json_extract(w, '$[*]')))",
    "CREATE OR REPLACE TEMP MACRO sf_join(v, x) AS array_to_string(json_extract_string(v, '$[*]'), x)",
    "CREATE OR REPLACE TEMP MACRO sf_array_max(v) AS to_json(list_max(sf_numbers(v)))",
    "CREATE OR REPLACE TEMP MACRO sf_array_min(v) AS to_json(list_min(sf_numbers(v)))",
    "CREATE OR REPLACE TEMP MACRO sf_object(x) AS json_merge_patch('{}', x)",
)
CONTEXT = {
    exp.CurrentDatabase: "database", exp.CurrentSchema: "schema", exp.CurrentUser: "user", exp.CurrentRole: "role",
    exp.CurrentWarehouse: "warehouse", exp.CurrentSession: "session", exp.CurrentAccount: "account",
}  # fmt: skip
VERSION = "9.0.0"
FORMATS = {
    "YYYY": "%Y", "YY": "%y", "MM": "%m", "MON": "%b", "DD": "%d", "DY": "%a", "HH24": "%H", "HH12": "%I", "AM": "%p",
    "PM": "%p", "MI": "%M", "SS": "%S", "FF6": "%f", "FF3": "%g",
}  # fmt: skip
FORMAT = re.compile("|".join(FORMATS), re.IGNORECASE)
VECTOR_FUNCTIONS = {
    exp.CosineDistance: ("VECTOR_COSINE_SIMILARITY", "ARRAY_COSINE_SIMILARITY"),
    exp.DotProduct: ("VECTOR_INNER_PRODUCT", "ARRAY_INNER_PRODUCT"),
    exp.EuclideanDistance: ("VECTOR_L2_DISTANCE", "ARRAY_DISTANCE"),
    exp.ManhattanDistance: ("VECTOR_L1_DISTANCE", "SF_L1"),
}
CORTEX = frozenset(
    ("AI_COMPLETE", "AI_EMBED", "AI_CLASSIFY", "AI_FILTER", "AI_AGG", "AI_SIMILARITY", "AI_SUMMARIZE_AGG", "AI_EXTRACT")
)
COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
TEXTUAL = (
    exp.Upper, exp.Lower, exp.Trim, exp.Concat, exp.ConcatWs, exp.DPipe, exp.Length, exp.Like, exp.ILike, exp.Contains,
    exp.StartsWith, exp.EndsWith, exp.Split, exp.Replace, exp.RegexpLike, exp.RegexpReplace, exp.Substring, exp.Left,
    exp.Right, exp.In, exp.Initcap,
)  # fmt: skip
NUMERIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.Sum, exp.Avg, exp.Abs, exp.Round, exp.Between)


def upward(tree: exp.Expression, change: Callable[[exp.Expression], exp.Expression]) -> exp.Expression:
    """Every node changed, the inner ones first."""
    for node in reversed(list(tree.walk(bfs=False))):
        made = change(node)
        if made is not node:
            if node is tree:
                tree = made
            else:
                node.replace(made)
    return tree


def refused(tree: exp.Expression, scope: Scope) -> None:
    """DuckDB's functions that reach out of the database, or into the endpoint's own things."""
    for node in tree.find_all(exp.Anonymous):
        name = node.name.upper()
        if name in REFUSED or name.startswith(("SF_", "DUCKDB_", "PRAGMA_")):
            raise SnowflakeError(2140, "42601", f"SQL compilation error:\nUnknown function {name}")


def contexts(tree: exp.Expression, scope: Scope) -> exp.Expression:
    """CURRENT_DATABASE() and its kin, and the time."""

    def change(node: exp.Expression) -> exp.Expression:
        field = CONTEXT.get(type(node))
        if field is not None:
            scope.fleeting = scope.fleeting or field == "session"
            return _text_or_null(getattr(scope.namespace, field))
        if isinstance(node, exp.CurrentTimestamp):
            return _now("TIMESTAMP") if node.args.get("sysdate") else _now("")
        if isinstance(node, exp.CurrentDate):
            return _now("DATE")
        if isinstance(node, exp.CurrentTime | exp.Localtime):
            return _now("TIME")
        if isinstance(node, exp.Localtimestamp):
            return _now("")
        if isinstance(node, exp.CurrentVersion):
            return exp.Literal.string(VERSION)
        if isinstance(node, exp.Anonymous) and node.name.upper() == "LAST_QUERY_ID":
            scope.fleeting = True
            return exp.Literal.string(earlier(node, scope))
        return node

    return upward(tree, change)


def _text_or_null(value: str | None) -> exp.Expression:
    return exp.null() if value is None else exp.Literal.string(value)


def _now(kind: str) -> exp.Expression:
    from sqlglot import parse_one

    plain = {"TIMESTAMP": f"({NOW} AT TIME ZONE 'UTC')", "TIME": f"CAST({NOW} AS TIMESTAMP)"}
    zone = plain.get(kind, NOW)
    made = parse_one(f"CAST({zone} AS {kind})" if kind else zone, read="duckdb")
    for cast in made.find_all(exp.Cast):
        cast.set("done", True)
    return made


def earlier(node: exp.Expression, scope: Scope) -> str:
    """The query id that LAST_QUERY_ID(n) means; -1 is the latest."""
    at = int(node.expressions[0].sql()) if node.expressions else -1
    known = scope.namespace.last_queries
    try:
        return known[at] if at < 0 else known[at - 1]
    except IndexError:
        return ""


def compared(tree: exp.Expression, scope: Scope) -> exp.Expression:
    """Semi-structured values beside others: text with text, number with number. A path read out is JSON in DuckDB."""

    def semi(node: Any) -> bool:
        return isinstance(node, exp.Expression) and bool(semi_kind(node, scope.known))

    def change(node: exp.Expression) -> exp.Expression:
        if isinstance(node, COMPARISONS):
            left, right = node.this, node.expression
            if semi(left) != semi(right):
                node.set("this", _like(left, right) if semi(left) else left)
                node.set("expression", _like(right, left) if semi(right) else right)
            if isinstance(node.this, exp.Anonymous) and node.this.name == "SF_TEXT" and not semi(right):
                node.set("expression", _as_text(node.expression))
        elif isinstance(node, TEXTUAL):
            _each(node, semi, _text)
        elif isinstance(node, NUMERIC):
            _each(node, semi, _double)
        return node

    for node in list(tree.walk(bfs=False)):
        change(node)
    return tree


def _each(node: exp.Expression, semi: Callable[[Any], bool], wrap: Callable[[exp.Expression], exp.Expression]) -> None:
    for key, value in list(node.args.items()):
        if isinstance(value, list):
            node.set(key, [wrap(one) if semi(one) else one for one in value])
        elif semi(value):
            node.set(key, wrap(value))


def _text(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="SF_TEXT", expressions=[node.copy()])


def _as_text(node: exp.Expression) -> exp.Expression:
    plain = (isinstance(node, exp.Literal) and node.is_string) or isinstance(node, exp.Null)
    return node if plain else _text(node)


def _double(node: exp.Expression) -> exp.Expression:
    return exp.Cast(this=node.copy(), to=exp.DataType.build("DOUBLE"), done=True)


def _like(node: exp.Expression, other: exp.Expression) -> exp.Expression:
    """The semi-structured `node` in the type of what it is compared with."""
    if isinstance(other, exp.Neg) or (isinstance(other, exp.Literal) and not other.is_string):
        return _double(node)
    if isinstance(other, exp.Boolean):
        return exp.Cast(this=node.copy(), to=exp.DataType.build("BOOLEAN"), done=True)
    if isinstance(other, exp.Cast):
        return exp.Cast(this=node.copy(), to=other.to.copy())
    return _text(node)


def vectors(tree: exp.Expression, scope: Scope) -> exp.Expression:
    """VECTOR_ functions, their arguments checked as far as their types can be seen; Cortex refused."""

    def change(node: exp.Expression) -> exp.Expression:
        found = VECTOR_FUNCTIONS.get(type(node))
        if found is not None:
            pair = [node.this, node.expression]
            kinds = [_vector_type(one, scope) for one in pair]
            if "" not in kinds and (kinds[0] != kinds[1] or not all(one.startswith("VECTOR") for one in kinds)):
                raise argument_types(found[0], ", ".join(kinds), (1, max(0, place(tree, found[0])[1])))
            return exp.Anonymous(this=found[1], expressions=pair)
        name = node.name.upper() if isinstance(node, exp.Anonymous) else ""
        if isinstance(node, exp.Dot) and not isinstance(node.parent, exp.Dot):
            dotted = node.sql().upper().replace('"', "").split("(")[0]
            if dotted.startswith("SNOWFLAKE."):
                raise unsupported(f"{dotted}: use Bedrock for models")
        if name in CORTEX or name == "SEARCH_PREVIEW":
            raise unsupported(f"{name}: use Bedrock for models")
        return node

    return upward(tree, change)


def _vector_type(node: exp.Expression, scope: Scope) -> str:
    if isinstance(node, exp.Paren):
        return _vector_type(node.this, scope)
    if isinstance(node, exp.Cast):
        return column_of("", node.to).declared()
    if isinstance(node, exp.Array):
        return "ARRAY"
    if isinstance(node, exp.Literal):
        return f"VARCHAR({len(node.name)})" if node.is_string else "NUMBER(38,0)"
    if isinstance(node, exp.Column) and node.name in scope.known:
        return scope.known[node.name].declared()
    return ""


def place(tree: exp.Expression, name: str) -> tuple[int, int]:
    """Line and position of the first identifier with this name in the statement; (1, 0) when it cannot be told."""
    for found in tree.find_all(exp.Identifier):
        if found.name.upper() == name.upper() and "line" in found.meta:
            return found.meta["line"], max(0, found.meta["col"] - len(found.name))
    return 1, 7 if isinstance(tree, exp.Select) else 0


def rewritten(tree: exp.Expression, scope: Scope) -> exp.Expression:
    def change(node: exp.Expression) -> exp.Expression:
        make = RULES.get(type(node))
        if make is not None:
            return make(node)
        if isinstance(node, exp.Anonymous):
            named = NAMED.get(node.name.upper())
            if named is not None:
                return named(node.expressions)
        return node

    return upward(tree, change)


def _to_json(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="TO_JSON", expressions=[node])


def _call(name: str) -> Callable[[exp.Expression], exp.Expression]:
    """The node's arguments handed to a function of DuckDB's."""

    def make(node: exp.Expression) -> exp.Expression:
        values = [node.this, node.args.get("expression"), *(node.args.get("expressions") or [])]
        return exp.Anonymous(this=name, expressions=[one for one in values if isinstance(one, exp.Expression)])

    return make


def _object(node: exp.Expression) -> exp.Expression:
    pairs: list[exp.Expression] = []
    for one in node.expressions:
        if isinstance(one, exp.PropertyEQ):
            key = exp.Literal.string(one.this.name) if isinstance(one.this, exp.Identifier | exp.Literal) else one.this
            pairs += [key, one.expression]
        else:
            raise unsupported("OBJECT_CONSTRUCT of something else than pairs")
    made = exp.Anonymous(this="JSON_OBJECT", expressions=pairs)
    return exp.Anonymous(this="SF_OBJECT", expressions=[made])


def _parse_json(node: exp.Expression) -> exp.Expression:
    if node.args.get("safe"):
        return exp.TryCast(this=node.this, to=exp.DataType.build("JSON"), done=True)
    return exp.Anonymous(this="SF_PARSE_JSON", expressions=[node.this])


def _array_agg(node: exp.Expression) -> exp.Expression:
    """ARRAY_AGG leaves nulls out and is never null; WITHIN GROUP says the order."""
    if isinstance(node, exp.WithinGroup) and not isinstance(node.this, exp.ArrayAgg):
        return node
    if isinstance(node.parent, exp.WithinGroup):
        return node
    values, order = (node.this.this, node.expression) if isinstance(node, exp.WithinGroup) else (node.this, None)
    empty = exp.Cast(this=exp.Literal.string("[]"), to=exp.DataType.build("JSON"), done=True)
    bare = values.expressions[0] if isinstance(values, exp.Distinct) else values
    given = exp.Order(this=values, expressions=order.expressions) if order is not None else values
    kept = exp.Not(this=exp.Is(this=bare.copy(), expression=exp.null()))
    inner = exp.Filter(this=exp.Anonymous(this="LIST", expressions=[given]), expression=exp.Where(this=kept))
    return exp.Coalesce(this=exp.Anonymous(this="TO_JSON", expressions=[inner]), expressions=[empty])


def _bracket(node: exp.Expression) -> exp.Expression:
    """`v['key']` and `v[0]`; Snowflake counts from 0."""
    (index,) = node.expressions
    return exp.Anonymous(this="JSON_EXTRACT", expressions=[node.this, _path(index)])


def _path(index: exp.Expression) -> exp.Expression:
    if isinstance(index, exp.Literal):
        return exp.Literal.string(f'$."{index.name}"' if index.is_string else f"$[{index.name}]")
    text = exp.Cast(this=index, to=exp.DataType.build("VARCHAR"), done=True)
    opened = exp.DPipe(this=exp.Literal.string("$["), expression=text)
    return exp.DPipe(this=opened, expression=exp.Literal.string("]"))


def _get(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="JSON_EXTRACT", expressions=[node.this, _path(node.expression)])


def _division(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="SF_DIV", expressions=[node.this, node.expression])


def _to_char(node: exp.Expression) -> exp.Expression:
    """TO_CHAR and TO_VARCHAR, of dates and times with a format of the parts in FORMATS. Raises 000002 for others."""
    shape = node.args.get("format")
    if shape is not None:
        text = shape.name if isinstance(shape, exp.Literal) else "?"
        made = FORMAT.sub(lambda found: FORMATS[found[0].upper()], text)
        if re.search(r"(?<!%)(?<!%-)[A-Za-z?]", made):
            raise unsupported(f"format '{text}' in TO_CHAR")
        return exp.Anonymous(this="STRFTIME", expressions=[node.this, exp.Literal.string(made)])
    return exp.Anonymous(this="SF_TEXT", expressions=[node.this])


def _keys(node: exp.Expression) -> exp.Expression:
    return _to_json(exp.Anonymous(this="JSON_KEYS", expressions=[node.this]))


def _json_text(node: exp.Expression) -> exp.Expression:
    return exp.Cast(this=_to_json(node.this), to=exp.DataType.build("VARCHAR"), done=True)


def _contains(node: exp.Expression) -> exp.Expression:
    """A cast to ARRAY is left out, since SF_CONTAINS takes a lone value for an array of one."""
    array = node.this
    if isinstance(array, exp.Anonymous) and array.name == "SF_ARRAY":
        (array,) = array.expressions
    return exp.Anonymous(this="SF_CONTAINS", expressions=[array, node.expression])


def _array(node: exp.Expression) -> exp.Expression:
    return exp.Anonymous(this="JSON_ARRAY", expressions=node.expressions)


def _object_insert(node: exp.Expression) -> exp.Expression:
    pair = exp.Anonymous(this="JSON_OBJECT", expressions=[node.args["key"], node.args["value"]])
    return exp.Anonymous(this="JSON_MERGE_PATCH", expressions=[node.this, pair])


def _wide(node: exp.Expression) -> exp.Expression:
    """Arithmetic of two whole numbers written out, in more than 32 bits."""
    pair = (node.this, node.expression)
    if all(isinstance(one, exp.Literal) and not one.is_string and one.name.isdigit() for one in pair):
        node.set("this", exp.Cast(this=node.this, to=exp.DataType.build("INT128"), done=True))
    return node


def _kind_test(kind: str) -> Callable[[exp.Expression], exp.Expression]:
    def make(node: exp.Expression) -> exp.Expression:
        made = exp.Anonymous(this="JSON_TYPE", expressions=[node.this])
        return exp.EQ(this=made, expression=exp.Literal.string(kind))

    return make


def _split(node: exp.Expression) -> exp.Expression:
    return _to_json(exp.Anonymous(this="STR_SPLIT", expressions=[node.this, node.expression]))


RULES: dict[type, Callable[[Any], exp.Expression]] = {
    exp.Div: _division, exp.ParseJSON: _parse_json, exp.Struct: _object, exp.ArrayAgg: _array_agg,
    exp.WithinGroup: _array_agg, exp.Bracket: _bracket, exp.GetExtract: _get, exp.ToChar: _to_char,
    exp.JSONKeys: _keys, exp.JSONFormat: _json_text,
    exp.ArrayContains: _contains, exp.ArraySize: _call("JSON_ARRAY_LENGTH"), exp.Typeof: _call("SF_TYPEOF"),
    exp.ObjectInsert: _object_insert, exp.ArrayAppend: _call("SF_APPEND"), exp.ArrayConcat: _call("SF_CONCAT"),
    exp.ArrayToString: _call("SF_JOIN"), exp.Add: _wide, exp.Sub: _wide, exp.Mul: _wide,
    exp.ArrayMax: _call("SF_ARRAY_MAX"), exp.ArrayMin: _call("SF_ARRAY_MIN"),
    exp.ToVariant: lambda node: _to_json(node.this), exp.Array: _array, exp.IsArray: _kind_test("ARRAY"),
    exp.Split: _split,
}  # fmt: skip
NAMED: dict[str, Callable[[list[Any]], exp.Expression]] = {
    "TO_VARIANT": lambda given: _to_json(*given),
    "TO_ARRAY": lambda given: _to_json(*given),
    "TO_OBJECT": lambda given: _to_json(*given),
    "OBJECT_AGG": lambda given: exp.Anonymous(this="JSON_GROUP_OBJECT", expressions=given),
    "AS_VARCHAR": lambda given: exp.Anonymous(this="SF_TEXT", expressions=given),
    "AS_INTEGER": lambda given: exp.TryCast(this=given[0], to=exp.DataType.build("BIGINT"), done=True),
    "AS_DOUBLE": lambda given: exp.TryCast(this=given[0], to=exp.DataType.build("DOUBLE"), done=True),
    "OBJECT_CONSTRUCT_KEEP_NULL": lambda given: exp.Anonymous(this="JSON_OBJECT", expressions=given),
}
REFUSED = frozenset(
    ("READ_CSV", "READ_CSV_AUTO", "READ_PARQUET", "READ_JSON", "READ_TEXT", "READ_BLOB", "GLOB", "GETENV", "QUERY",
     "QUERY_TABLE", "DUCKDB_SETTINGS", "CURRENT_SETTING", "GETVARIABLE")
)  # fmt: skip

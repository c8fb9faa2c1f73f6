"""sqlglot's types and expressions -> columns: what a declaration, a cast or a projection makes."""

from sqlglot import exp

from preheat.snowflake.errors import SnowflakeError
from preheat.snowflake.types import LONGEST_TEXT, SEMI, Column

T = exp.DataType.Type
LONGEST_VECTOR = 4_096
PLAIN = {
    T.BOOLEAN: "boolean", T.DATE: "date", T.TIME: "time", T.VARIANT: "variant", T.ARRAY: "array", T.OBJECT: "object",
    T.STRUCT: "object", T.BINARY: "binary", T.VARBINARY: "binary", T.FLOAT: "real", T.DOUBLE: "real",
    T.TIMESTAMP: "timestamp_ntz", T.TIMESTAMPNTZ: "timestamp_ntz", T.DATETIME: "timestamp_ntz",
    T.TIMESTAMPLTZ: "timestamp_ltz", T.TIMESTAMPTZ: "timestamp_tz", T.LIST: "array",
}  # fmt: skip
TEXTS = {T.TEXT, T.VARCHAR, T.CHAR, T.NCHAR, T.NVARCHAR}
WHOLE = {T.INT, T.BIGINT, T.SMALLINT, T.TINYINT, T.INT128}
VARIANTS = (
    exp.JSONExtract, exp.GetExtract, exp.ParseJSON, exp.Bracket, exp.ToVariant, exp.ArrayMax, exp.ArrayMin,
)  # fmt: skip
ARRAYS = (exp.Array, exp.ArrayAgg, exp.Split, exp.ArrayConcat, exp.ArrayAppend, exp.JSONKeys)
OBJECTS = (exp.Struct, exp.ObjectInsert)


def column_of(name: str, kind: exp.DataType, nullable: bool = True) -> Column:
    """A declared column. Raises 002040 for a type that is not known, 001015-like for a bad vector."""
    base = kind.this
    sizes = [int(one.name) for one in kind.expressions if isinstance(one, exp.DataTypeParam) and one.name.isdigit()]
    if base in TEXTS:
        length = sizes[0] if sizes else 1 if base in (T.CHAR, T.NCHAR) else None
        return Column(name, "text", length=None if length == LONGEST_TEXT else length, nullable=nullable)
    if base in WHOLE:
        return Column(name, "fixed", 38, 0, nullable=nullable)
    if base == T.DECIMAL:
        precision, scale = (sizes + [38, 0][len(sizes) :])[:2]
        if not 1 <= precision <= 38 or not 0 <= scale <= 37:
            raise SnowflakeError(1003, "42601", f"SQL compilation error:\nInvalid NUMBER({precision},{scale})")
        return Column(name, "fixed", precision, scale, nullable=nullable)
    if base == T.VECTOR:
        element = kind.expressions[0].this if kind.expressions else None
        whole = element in WHOLE
        dimension = sizes[0] if sizes else 0
        if not 1 <= dimension <= LONGEST_VECTOR or not (whole or element in (T.FLOAT, T.DOUBLE)):
            text = f"Invalid vector type: the element is FLOAT or INT, the dimension 1 to {LONGEST_VECTOR}"
            raise SnowflakeError(2040, "42601", f"SQL compilation error:\n{text}")
        return Column(name, "vector", nullable=nullable, dimension=dimension, element="INT" if whole else "FLOAT")
    if base in PLAIN:
        return Column(name, PLAIN[base], nullable=nullable)
    raise SnowflakeError(2040, "42601", f"SQL compilation error:\nUnsupported data type '{kind.sql('snowflake')}'.")


def semi_kind(node: exp.Expression, known: dict[str, Column]) -> str:
    """VARIANT, ARRAY or OBJECT when the expression is semi-structured, else nothing."""
    if isinstance(node, exp.Alias | exp.Paren):
        return semi_kind(node.this, known)
    if isinstance(node, VARIANTS):
        return "VARIANT"
    if isinstance(node, ARRAYS):
        return "ARRAY"
    if isinstance(node, exp.WithinGroup):
        return semi_kind(node.this, known)
    if isinstance(node, OBJECTS):
        return "OBJECT"
    if isinstance(node, exp.Cast):
        kind = PLAIN.get(node.to.this, "")
        return kind.upper() if kind in SEMI else ""
    if isinstance(node, exp.Column):
        found = known.get(node.name)
        return found.kind.upper() if found is not None and found.kind in SEMI else ""
    return ""


def output_kinds(tree: exp.Expression, known: dict[str, Column]) -> dict[str, str]:
    """Output column -> what tells apart what DuckDB keeps alike: ARRAY, OBJECT, TIMESTAMP_TZ."""
    kinds = {}
    for name, column in known.items():
        if column.kind in SEMI or column.kind == "timestamp_tz":
            kinds[name] = column.kind.upper()
    select = tree.find(exp.Select)
    for one in select.expressions if select is not None else ():
        kind = semi_kind(one, known)
        inner = one.this if isinstance(one, exp.Alias) else one
        if isinstance(inner, exp.Cast) and inner.to.this == T.TIMESTAMPTZ:
            kind = "TIMESTAMP_TZ"
        if one.alias_or_name and (kind or isinstance(one, exp.Alias)):
            kinds[one.alias_or_name] = kind
    return kinds

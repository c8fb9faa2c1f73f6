"""Snowflake's types: as declared, as DuckDB keeps them, as a driver reads them.

A driver is told every value as a string or null, and the column's type beside (`rowtype`). Lengths are characters.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

LONGEST_TEXT = 16_777_216
LONGEST_BINARY = 8_388_608
WHOLE = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
)
SEMI = frozenset(("variant", "array", "object"))
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Column:
    """`kind` is the driver's name of the type: fixed, text, real, boolean, date, time, timestamp_ntz, variant, vector
    and so on. `element` is a vector's: FLOAT or INT."""

    name: str
    kind: str
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    nullable: bool = True
    dimension: int | None = None
    element: str = ""

    def described(self) -> dict[str, Any]:
        """The entry of `rowtype`."""
        entry: dict[str, Any] = {
            "name": self.name, "type": self.kind, "precision": self.precision, "scale": self.scale,
            "length": self.length, "byteLength": self.length, "nullable": self.nullable, "collation": None,
            "database": "", "schema": "", "table": "",
        }  # fmt: skip
        if self.kind == "vector":
            kind = ("real", None, None) if self.element == "FLOAT" else ("fixed", 38, 0)
            field = {"name": "", "type": kind[0], "precision": kind[1], "scale": kind[2], "nullable": False,
                     "length": None, "byteLength": None}  # fmt: skip
            entry |= {"vectorDimension": self.dimension, "fields": [field]}
        return entry

    def declared(self) -> str:
        """The type as DESCRIBE TABLE shows it."""
        if self.kind == "fixed":
            return f"NUMBER({self.precision},{self.scale})"
        if self.kind == "text":
            return f"VARCHAR({self.length or LONGEST_TEXT})"
        if self.kind == "vector":
            return f"VECTOR({self.element}, {self.dimension})"
        if self.kind == "real":
            return "FLOAT"
        if self.kind == "binary":
            return f"BINARY({self.length or LONGEST_BINARY})"
        return f"{self.kind.upper()}(9)" if self.kind.startswith("time") else self.kind.upper()


def text(name: str) -> Column:
    return Column(name, "text", length=LONGEST_TEXT)


def number(name: str) -> Column:
    return Column(name, "fixed", 38, 0)


def from_duckdb(name: str, kind: str, declared: str = "") -> Column:
    """A column of DuckDB's type. `declared` tells apart what DuckDB keeps alike: ARRAY, OBJECT, TIMESTAMP_TZ."""
    found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
    if found:
        return Column(name, "fixed", int(found[1]), int(found[2]))
    found = re.fullmatch(r"(FLOAT|DOUBLE)\[(\d+)\]", kind)
    if found:
        return Column(name, "vector", dimension=int(found[2]), element="FLOAT" if found[1] == "FLOAT" else "INT")
    if kind in WHOLE:
        return number(name)
    if kind in ("DOUBLE", "FLOAT"):
        return Column(name, "real")
    if kind == "JSON":
        return Column(name, declared.lower() if declared.lower() in SEMI else "variant")
    if kind.endswith("[]"):
        return Column(name, "array")
    if kind.startswith(("STRUCT", "MAP")):
        return Column(name, "object")
    if kind in ("BOOLEAN", "DATE"):
        return Column(name, kind.lower())
    if kind == "TIME":
        return Column(name, "time", 0, 9)
    if kind.startswith("TIMESTAMP WITH"):
        return Column(name, "timestamp_tz" if declared.startswith("TIMESTAMP_TZ") else "timestamp_ltz", 0, 9)
    if kind.startswith("TIMESTAMP"):
        return Column(name, "timestamp_ntz", 0, 9)
    if kind == "BLOB":
        return Column(name, "binary", length=LONGEST_BINARY)
    return text(name)


def storage(column: Column) -> str:
    """DuckDB's type for it."""
    if column.kind == "fixed":
        return f"DECIMAL({column.precision},{column.scale})"
    if column.kind == "vector":
        return f"{'FLOAT' if column.element == 'FLOAT' else 'DOUBLE'}[{column.dimension}]"
    if column.kind in SEMI:
        return "JSON"
    plain = {"text": "VARCHAR", "real": "DOUBLE", "binary": "BLOB", "timestamp_ntz": "TIMESTAMP"}
    return plain.get(column.kind) or ("TIMESTAMPTZ" if column.kind.startswith("timestamp") else column.kind.upper())


Encoder = Callable[[Any], str]


def encoder(column: Column) -> Encoder:
    """What writes a value, not null, as the driver reads it."""
    if column.kind == "vector" and column.element == "INT":
        return _whole_vector
    return ENCODERS.get(column.kind, str)


def _boolean(value: Any) -> str:
    return "1" if value else "0"


def _date(value: date) -> str:
    return str((value - EPOCH).days)


def _time(value: time) -> str:
    return f"{value.hour * 3600 + value.minute * 60 + value.second}.{value.microsecond:06d}000"


def _epoch(value: datetime) -> str:
    start = datetime(1970, 1, 1, tzinfo=value.tzinfo and _UTC)
    whole, rest = divmod((value - start) // timedelta(microseconds=1), 1_000_000)
    return f"{whole}.{rest:06d}000" if whole >= 0 or not rest else f"-{-whole - 1}.{1_000_000 - rest:06d}000"


def _zoned(value: datetime) -> str:
    offset = value.utcoffset() or timedelta()
    return f"{_epoch(value)} {1440 + int(offset.total_seconds()) // 60}"


def _semi(value: Any) -> str:
    document = json.loads(value) if isinstance(value, str) else value
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, default=str)


def _vector(value: Any) -> str:
    return "[" + ",".join([format(one, ".9g") for one in value]) + "]"


def _whole_vector(value: Any) -> str:
    return "[" + ",".join([str(int(one)) for one in value]) + "]"


def _real(value: float) -> str:
    return {"nan": "NaN", "inf": "inf", "-inf": "-inf"}.get(repr(value), repr(value))


def _binary(value: bytes) -> str:
    return value.hex().upper()


_UTC = datetime.strptime("+0000", "%z").tzinfo
ENCODERS: dict[str, Encoder] = {
    "boolean": _boolean, "date": _date, "time": _time, "timestamp_ntz": _epoch, "timestamp_ltz": _epoch,
    "timestamp_tz": _zoned, "variant": _semi, "array": _semi, "object": _semi, "vector": _vector, "real": _real,
    "binary": _binary,
}  # fmt: skip

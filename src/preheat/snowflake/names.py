"""Names: what an identifier folds to, and where a table of Snowflake's lies in DuckDB.

All databases share one DuckDB file, so that a transaction may span them: the table `T` of schema `S` of database `D` is
`"D.S"."T"`. A session's temporary table is `temp.main."D.S.T"`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preheat.snowflake.errors import without_current
from preheat.snowflake.types import Column

INFORMATION = "INFORMATION_SCHEMA"


@dataclass(frozen=True)
class Name:
    """A table, view or sequence, all three parts known; `written` is how the statement has it."""

    database: str
    schema: str
    table: str
    written: str = ""

    @property
    def space(self) -> str:
        """DuckDB's schema."""
        return f"{self.database}.{self.schema}"

    @property
    def sql(self) -> str:
        return f"{quoted(self.space)}.{quoted(self.table)}"

    @property
    def dotted(self) -> str:
        return f"{self.database}.{self.schema}.{self.table}"


@dataclass(frozen=True)
class Namespace:
    """What names in a statement are resolved against, and what the CURRENT_ functions answer."""

    session: str
    user: str
    role: str
    warehouse: str
    account: str
    database: str | None
    schema: str | None
    temporary: frozenset[str] = frozenset()
    last_queries: tuple[str, ...] = ()


@dataclass
class Scope:
    """A statement in the making: its namespace, the columns of a table by name, and what was found on the way."""

    namespace: Namespace
    columns: Callable[[Name], tuple[Column, ...]]
    results: Callable[[str], str]
    tables: list[Name] = field(default_factory=list)
    known: dict[str, Column] = field(default_factory=dict)
    placeholders: int = 0
    fleeting: bool = False
    """True when it must be read anew each time: it names an earlier query, or the session."""
    names: tuple[str, ...] = ()
    """The outermost projections as they are written."""
    many: bool = False
    """True when arrays are bound."""


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def folded(identifier: Any) -> str:
    """sqlglot's identifier -> the name: upper case unless it is quoted."""
    name = identifier if isinstance(identifier, str) else identifier.this
    return name if not isinstance(identifier, str) and identifier.args.get("quoted") else name.upper()


def resolved(table: Any, namespace: Namespace, what: str = "SELECT") -> Name:
    """A table of sqlglot's. Raises 090105 and 090106 when nothing says which database or schema is meant."""
    parts = [folded(part) for part in table.parts]
    written = ".".join(parts)
    if len(parts) > 3:
        parts = parts[-3:]
    database = parts[0] if len(parts) == 3 else namespace.database
    schema = parts[-2] if len(parts) > 1 else namespace.schema
    if database is None:
        raise without_current(what, "database")
    if schema is None:
        raise without_current(what, "schema")
    return Name(database, schema, parts[-1], written)

"""DuckDB behind the endpoint: one file for all databases, one connection a session. Everything here runs on the desk's
threads, one statement of a session at a time; nothing is imported before the first login."""

import contextlib
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.snowflake.errors import SnowflakeError, missing
from preheat.snowflake.names import Name, Namespace, literal, quoted
from preheat.snowflake.results import Outcome
from preheat.snowflake.showing import PARAMETERS, Setting, folded_name, setting
from preheat.snowflake.types import Column, storage

OPTIONS = {
    "enable_external_access": "false", "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
    "python_enable_replacements": "false", "threads": "4", "memory_limit": "2GB",
}  # fmt: skip
NEEDED = "the Snowflake endpoint needs DuckDB and sqlglot: pip install preheat[snowflake]"
ROUNDS = 20_000
SCANNED = {
    "boolean": "{} = '1'", "date": "DATE '1970-01-01' + CAST({} AS INTEGER)", "binary": "UNHEX({})",
    "time": "CAST(MAKE_TIMESTAMP(CAST(CAST({} AS DECIMAL(28, 9)) * 1000000 AS BIGINT)) AS TIME)",
    "timestamp_ntz": "MAKE_TIMESTAMP(CAST(CAST({} AS DECIMAL(28, 9)) * 1000000 AS BIGINT))",
    "timestamp_ltz": "MAKE_TIMESTAMP(CAST(CAST({} AS DECIMAL(28, 9)) * 1000000 AS BIGINT)) AT TIME ZONE 'UTC'",
}  # fmt: skip


class MissingDependency(Exception):
    """DuckDB or sqlglot are not installed; the message says what to do."""


@dataclass(frozen=True)
class Query:
    """One request: `id` as Snowflake numbers queries, `bindings` as a driver sends them."""

    id: str
    text: str
    bindings: dict[str, Any] | None = None
    describe_only: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)


class Session:
    """What a login has: its connection, its names, its parameters, its transaction."""

    def __init__(self, engine: "Engine", connection: Any, number: int, user: str, account: str) -> None:
        self.engine = engine
        self.connection = connection
        self.number = number
        self.user = user
        self.account = account
        self.role = "ACCOUNTADMIN"
        self.warehouse = "COMPUTE_WH"
        self.database: str | None = None
        self.schema: str | None = None
        self.parameters = {name: default for name, (_, default) in PARAMETERS.items()}
        self.in_transaction = False
        self.temporary: frozenset[str] = frozenset()
        self.queries: list[str] = []

    def namespace(self) -> Namespace:
        return Namespace(
            str(self.number), self.user, self.role, self.warehouse, self.account, self.database, self.schema,
            self.temporary, tuple(self.queries[-20:]),
        )  # fmt: skip

    def apply(self, one: Setting) -> None:
        value = PARAMETERS[one.name][1] if one.value is None else one.value
        if one.name == "TIMEZONE":
            try:
                self.connection.execute(f"SET TimeZone = {literal(value)}")
            except Exception as error:
                text = f"SQL compilation error:\ninvalid value ['{value}'] for parameter 'TIMEZONE'"
                raise SnowflakeError(1008, "22023", text) from error
        self.parameters[one.name] = value

    def use(self, database: str | None, schema: str | None) -> None:
        self.database, self.schema = database, schema

    def close(self) -> None:
        """An open transaction is rolled back."""
        with contextlib.suppress(Exception):
            self.connection.close()
        self.connection = None


class Engine:
    """`folder` None keeps everything in memory. `lookup` finds an earlier query's outcome."""

    def __init__(self, folder: Path | None, results: Path, clock: Clock, entropy: Entropy) -> None:
        self._folder = folder
        self.results = results
        self.clock = clock
        self.entropy = entropy
        self._duckdb: Any = None
        self._root: Any = None
        self._columns: dict[tuple[str, str], tuple[Column, ...]] = {}
        self.plans: dict[Any, Any] = {}
        self.version = 0
        self.lookup: Callable[[str], Outcome | None] = lambda query: None

    def open(self) -> None:
        """Raises MissingDependency."""
        if self._root is not None:
            return
        try:
            import duckdb
            import sqlglot  # noqa: F401
        except ImportError as error:
            raise MissingDependency(NEEDED) from error
        from preheat.snowflake.information import SETUP

        self._duckdb = duckdb
        path = ":memory:"
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = str(self._folder / "data.duckdb")
        root = duckdb.connect(path, config=OPTIONS)
        for sql in SETUP:
            root.execute(sql)
        self._root = root

    @property
    def opened(self) -> bool:
        return self._root is not None

    def close(self) -> None:
        if self._root is not None:
            with contextlib.suppress(Exception):
                self._root.close()
            self._root = self._duckdb = None
            self.plans = {}

    def failure(self) -> type[Exception]:
        """DuckDB's own kind of error."""
        return self._duckdb.Error

    def session(self, number: int, user: str, account: str, wanted: dict[str, Any]) -> Session:
        """A session with the database, schema, warehouse, role and parameters that a login names. A database or schema
        that does not exist is left out, as Snowflake does."""
        from preheat.snowflake.functions import MACROS
        session = Session(self, self._root.cursor(), number, user, account)
        for sql in MACROS:
            session.connection.execute(sql)
        given = {key: folded_name(value) for key, value in wanted.items() if key != "parameters" and value}
        session.role = given.get("role", session.role)
        session.warehouse = given.get("warehouse", session.warehouse)
        database = given.get("database")
        if database and self.has_database(session.connection, database):
            schema = given.get("schema", "PUBLIC")
            there = self.has_schema(session.connection, database, schema)
            session.use(database, schema if there else None)
        session.apply(Setting("TIMEZONE", None))
        for name, value in (wanted.get("parameters") or {}).items():
            if name.upper() in PARAMETERS:
                session.apply(setting(name.upper(), value))
        return session

    # -- users ----------------------------------------------------------------------------------------------------

    def user(self, name: str) -> tuple[bool, str | None, str | None]:
        """(whether any user is registered, this one's sealed password, this one's public key)."""
        cursor = self._root.cursor()
        try:
            some = cursor.execute("SELECT count(*) FROM preheat.users").fetchone()[0] > 0
            row = cursor.execute("SELECT password, public_key FROM preheat.users WHERE name = ?", [name]).fetchone()
        finally:
            cursor.close()
        return some, *(row or (None, None))

    def users(self, connection: Any) -> set[str]:
        return {name for (name,) in connection.execute("SELECT name FROM preheat.users").fetchall()}

    def sealed(self, password: str) -> str:
        salt = self.entropy.bytes(16)
        return f"{salt.hex()}${_hash(password, salt)}"

    # -- the catalog ----------------------------------------------------------------------------------------------

    def has_database(self, connection: Any, name: str) -> bool:
        sql = "SELECT 1 FROM preheat.databases WHERE name = ?"
        return connection.execute(sql, [name]).fetchone() is not None

    def has_schema(self, connection: Any, database: str, schema: str) -> bool:
        sql = "SELECT 1 FROM duckdb_schemas() WHERE schema_name = ?"
        return connection.execute(sql, [f"{database}.{schema}"]).fetchone() is not None

    def schemas(self, connection: Any, database: str) -> list[str]:
        sql = "SELECT schema_name FROM duckdb_schemas() WHERE starts_with(schema_name, ?)"
        found = connection.execute(sql, [f"{database}."]).fetchall()
        return [name[len(database) + 1 :] for (name,) in found]

    def kind(self, connection: Any, name: Name) -> str:
        """TABLE, VIEW, or nothing."""
        sql = (
            "SELECT 'TABLE' FROM duckdb_tables() WHERE schema_name = $1 AND table_name = $2 AND NOT temporary UNION ALL"
            " SELECT 'VIEW' FROM duckdb_views() WHERE schema_name = $1 AND view_name = $2"
        )
        row = connection.execute(sql, [name.space, name.table]).fetchone()
        return row[0] if row else ""

    def columns(self, session: Session, name: Name) -> tuple[Column, ...]:
        """A table's or view's. Raises 002003 when it does not exist, or its schema or database does not."""
        from preheat.snowflake.definitions import column_from
        from preheat.snowflake.showing import described_sql

        own = name.dotted in session.temporary
        key = (name.space, name.table)
        if not own and key in self._columns:
            return self._columns[key]
        connection, version = session.connection, self.version
        place = Name("main", "", name.dotted) if own else name
        sql = described_sql(place).replace("'main.'", "'main'") if own else described_sql(name)
        rows = connection.execute(sql).fetchall()
        if not rows:
            if not self.has_database(connection, name.database):
                raise missing("Database", name.database)
            if not self.has_schema(connection, name.database, name.schema):
                raise missing("Schema", f"{name.database}.{name.schema}")
            raise missing("Object", name.written)
        made = tuple(column_from(column, kind, nullable, note) for column, kind, nullable, _, note in rows)
        if not own and version == self.version:
            self._columns[key] = made
        return made

    def changed(self) -> None:
        """The catalog is another one: what was known of it is forgotten."""
        self.version += 1
        self._columns = {}
        self.plans = {}

    # -- an earlier query's rows ----------------------------------------------------------------------------------

    def scanned(self, session: Session, query: str) -> str:
        """A temporary table with the rows of an earlier query. Raises 000709 when they are gone."""
        outcome = self.lookup(query)
        if outcome is None or outcome.error is not None:
            raise SnowflakeError(709, "02000", f"Statement {query} not found")
        table = f"temp.main.{quoted('RESULT ' + query)}"
        kinds = [f"{quoted(column.name)} {storage(column)}" for column in outcome.columns]
        connection = session.connection
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({', '.join(kinds)})")
        values = [list(column) for column in zip(*outcome.all_rows())]
        if values:
            names = ", ".join(f"UNNEST(CAST(${at + 1} AS VARCHAR[])) AS c{at}" for at in range(len(values)))
            reads = ", ".join(
                SCANNED.get(column.kind, "CAST({} AS " + storage(column) + ")").format(f"c{at}")
                for at, column in enumerate(outcome.columns)
            )
            connection.execute(f"INSERT INTO {table} SELECT {reads} FROM (SELECT {names})", values)
        return table

    def moment(self) -> str:
        """DuckDB's literal of the clock's time."""
        return f"TIMESTAMPTZ '{datetime.fromtimestamp(self.clock.now(), UTC).isoformat()}'"


def _hash(password: str, salt: bytes) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS).hex()


def matches(sealed: str, password: str) -> bool:
    salt, _, kept = sealed.partition("$")
    return hmac.compare_digest(kept, _hash(password, bytes.fromhex(salt)))

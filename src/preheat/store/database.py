"""One SQLite connection, one writer, group commit.

The machine opens a transaction with `begin`, runs every operation that is waiting, each inside its own `savepoint`,
and commits them together. Replies leave after that commit. `durability` is "process" (survives SIGKILL: the page cache
holds what was written) or "power" (an fsync with every commit).
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from preheat.store.errors import StateLocked, StateUnreadable, StoreFull

Durability = Literal["process", "power"]
SYNCHRONOUS = {"process": "OFF", "power": "FULL"}
CACHE_KIB = 65_536
CHECKPOINT_PAGES = 4_000

_SCHEMA = (Path(__file__).parent / "schema.sql").read_text()


class Database:
    """The state directory's database, or one in memory when `directory` is None (simulator, unit tests).

    Whoever keeps derived values in memory appends a function to `on_undo`; it is called when writes were taken back.
    """

    def __init__(self, directory: Path | None, durability: Durability = "process") -> None:
        self.directory = directory
        self.durability = durability
        self._lock: int | None = None
        self._touched: dict[str, None] = {}
        self._after: list[Callable[[], None]] = []
        self._marked = False
        self._waiting: list[Sequence[Any]] = []
        self._waiting_sql = ""
        self._waiting_kept = 0
        self.on_undo: list[Callable[[], None]] = []
        if directory is None:
            target = ":memory:"
        else:
            target = str(_prepare(directory) / "preheat.db")
            self._lock = _lock(directory)
        try:
            self._connection = sqlite3.connect(
                target, isolation_level=None, check_same_thread=False, cached_statements=2_000
            )
            self._connection.row_factory = sqlite3.Row
            self._execute = self._connection.execute
            for pragma in (
                "journal_mode = WAL",
                f"synchronous = {SYNCHRONOUS[durability]}",
                f"cache_size = -{CACHE_KIB}",
                f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                "temp_store = MEMORY",
                "foreign_keys = ON",
            ):
                self._execute("PRAGMA " + pragma)
            self._connection.executescript(_SCHEMA)
            self._execute("UPDATE due SET claimed = 0 WHERE claimed = 1")
        except sqlite3.DatabaseError as error:
            self.close()
            raise _unreadable(error, directory) from error

    # -- set-up ---------------------------------------------------------------------------------------------------

    def apply_schema(self, name: str, sql: str) -> None:
        """Run a service's `schema.sql`; every statement in it is `IF NOT EXISTS`. Raises StateUnreadable."""
        try:
            self._connection.executescript(sql)
            self._execute("INSERT OR IGNORE INTO schema_versions VALUES (?, 1)", (name,))
        except sqlite3.DatabaseError as error:
            raise _unreadable(error, self.directory) from error

    def close(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -- transactions ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Raises StoreFull when the file cannot be written now (another program holds it, the disk refuses)."""
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            raise StoreFull(str(error)) from error

    def commit(self) -> None:
        """Raises StoreFull, with everything rolled back, when the disk refuses."""
        if self._waiting:
            self._waiting_kept = len(self._waiting)
            self._write_waiting()
        try:
            self._execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self.rollback()
            raise StoreFull(str(error)) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of its own, outside the machine's ticks: kept at the end, taken back when something is raised.
        Raises StoreFull."""
        self.begin()
        try:
            yield
            self.keep()
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        self._waiting = []
        self._waiting_kept = 0
        self._touched.clear()
        self._after.clear()
        self._marked = False
        if self._connection.in_transaction:
            self._execute("ROLLBACK")
        self._taken_back()

    def _taken_back(self) -> None:
        for forget in self.on_undo:
            forget()

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def mark(self) -> tuple[int, int]:
        """Start of an operation: what follows can be undone by `undo`. Costs nothing until the first write."""
        self._marked = False
        self._waiting_kept = len(self._waiting)
        return len(self._touched), len(self._after)

    def keep(self) -> None:
        if self._marked:
            self._execute("RELEASE operation")
            self._marked = False

    def undo(self, mark: tuple[int, int]) -> None:
        """Take back every write, notification and after-commit action since `mark`. Raises StoreFull when SQLite has
        given up the whole transaction, as it does after some failures of the disk."""
        if not self._connection.in_transaction:
            raise StoreFull("the transaction was given up")
        dropped = self._marked or len(self._waiting) > self._waiting_kept
        del self._waiting[self._waiting_kept :]
        if self._marked:
            self._execute("ROLLBACK TO operation")
            self._execute("RELEASE operation")
            self._marked = False
        if dropped:
            self._taken_back()
        del self._after[mark[1] :]
        for topic in list(self._touched)[mark[0] :]:
            del self._touched[topic]

    # -- statements -----------------------------------------------------------------------------------------------

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """The first row, or None."""
        if self._waiting:
            self._write_waiting()
        try:
            return self._execute(sql, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise _known(error, self.directory) from error

    def all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        if self._waiting:
            self._write_waiting()
        try:
            return self._execute(sql, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _known(error, self.directory) from error

    def value(self, sql: str, *values: Any) -> Any:
        """The first column of the first row, or None."""
        if self._waiting:
            self._write_waiting()
        try:
            row = self._execute(sql, values).fetchone()
        except sqlite3.DatabaseError as error:
            raise _known(error, self.directory) from error
        return None if row is None else row[0]

    def run(self, sql: str, *values: Any) -> int:
        """A write; returns the number of rows changed. Raises StoreFull when the disk refuses."""
        return self._write(sql, values).rowcount

    def insert(self, sql: str, *values: Any) -> int:
        """An INSERT; returns the new row id."""
        return self._write(sql, values).lastrowid or 0

    def returning(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """A write with a RETURNING clause; its rows."""
        cursor = self._write(sql, values)
        try:
            return cursor.fetchall()
        except sqlite3.DatabaseError as error:
            raise _known(error, self.directory) from error

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """One write for many rows of values; returns the number of rows changed."""
        if self._waiting:
            self._write_waiting()
        self._mark_write()
        try:
            return self._connection.executemany(sql, rows).rowcount
        except sqlite3.DatabaseError as error:
            raise _known(error, self.directory) from error

    def later(self, sql: str, row: Sequence[Any]) -> None:
        """An INSERT that nothing but the disk can refuse. It is written with others of its kind, before the next
        statement or the commit: a hundred sends of one transaction cost one statement, and no savepoints."""
        if sql != self._waiting_sql:
            if self._waiting:
                self._write_waiting()
            self._waiting_sql = sql
        if not self._waiting and not self._connection.in_transaction:
            raise RuntimeError("a write outside the machine's transaction")
        self._waiting.append(row)

    def _write_waiting(self) -> None:
        """The rows of finished operations outside this one's savepoint, its own inside it. When the disk refuses those
        of others, they cannot be told any more: the whole transaction is given up."""
        rows, kept = self._waiting, self._waiting_kept
        self._waiting, self._waiting_kept = [], 0
        if kept:
            try:
                self._connection.executemany(self._waiting_sql, rows[:kept])
            except sqlite3.DatabaseError as error:
                self.rollback()
                raise StoreFull(f"the disk refused a write: {error}") from error
        if kept < len(rows):
            self.many(self._waiting_sql, rows[kept:])

    def _write(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        if self._waiting:
            self._write_waiting()
        if not self._marked:
            self._mark_write()
        try:
            return self._execute(sql, values)
        except sqlite3.DatabaseError as error:
            raise _known(error, self.directory) from error

    def _mark_write(self) -> None:
        if not self._marked:
            if not self._connection.in_transaction:
                raise RuntimeError("a write outside the machine's transaction")
            try:
                self._execute("SAVEPOINT operation")
            except sqlite3.DatabaseError as error:
                raise _known(error, self.directory) from error
            self._marked = True

    # -- what happens next ----------------------------------------------------------------------------------------

    def emit(self, kind: str, payload: bytes, due_at: float, key: str | None = None) -> int:
        """Write an event that becomes due at `due_at` (epoch seconds); `triggers` claims it. Returns its id."""
        self.notify("due")
        values = (due_at, kind, key, payload)
        return self.insert("INSERT INTO due (due_at, kind, key, payload) VALUES (?, ?, ?, ?)", *values)

    def notify(self, topic: str) -> None:
        """Wake whoever waits for `topic`, after the commit."""
        self._touched[topic] = None

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run `action` once the transaction has committed; dropped when it is rolled back."""
        self._after.append(action)

    def take_topics(self) -> list[str]:
        topics = list(self._touched)
        self._touched.clear()
        return topics

    def take_actions(self) -> list[Callable[[], None]]:
        actions = self._after
        self._after = []
        return actions


def _prepare(directory: Path) -> Path:
    try:
        if directory.exists() and not directory.is_dir():
            raise NotADirectoryError("it is not a directory")
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError("no permission to read and write it")
    except OSError as error:
        raise StateUnreadable(f"the state directory {directory} cannot be used: {error}") from error
    return directory


def _lock(directory: Path) -> int:
    try:
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateUnreadable(f"the state directory {directory} cannot be used: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(handle, 64).decode(errors="replace").strip()
        os.close(handle)
        raise StateLocked(
            f"another Preheat server (process {owner or 'unknown'}) works on {directory}; "
            "stop it or choose another --state directory"
        ) from error
    try:
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
    except OSError as error:
        os.close(handle)
        raise StoreFull(f"the disk refused a write in {directory}: {error.strerror}") from error
    return handle


def _unreadable(error: sqlite3.DatabaseError, directory: Path | None) -> Exception:
    """What an error of SQLite at start means to the user."""
    known = _known(error, directory)
    if isinstance(known, StateUnreadable) or getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return known
    return StateUnreadable(
        f"the state in {directory} cannot be read ({error}); move it away or choose another --state directory"
    )


def _known(error: sqlite3.DatabaseError, directory: Path | None) -> Exception:
    """StoreFull for a refusal of the disk, StateUnreadable for a damaged file; any other error is passed on."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return StoreFull(f"the disk refused a write: {error}")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StateUnreadable(
            f"the database in {directory} is damaged ({error}); restore it from a copy, move it away or choose "
            "another --state directory"
        )
    return error

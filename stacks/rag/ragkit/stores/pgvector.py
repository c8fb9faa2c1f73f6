"""PostgreSQL with pgvector as the vector store: HNSW for vectors, JSONB for metadata, BM25 over a table of postings.

An index is three tables of the connection's search path: passages, postings, and one row of totals that BM25 needs.
Every value, a filter's keys among them, is a parameter. Written for pgvector 0.8 and later, whose HNSW scan goes on
until a filter has let enough through. The driver is pg8000: pure Python, 0.6 MB with what it needs; psycopg without its
binaries would need libpq, which Lambda does not have.
"""

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count as counter
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from ragkit.chunking import Chunk
from ragkit.embed import NO_MODEL
from ragkit.store import Embed, Filter, Passage, Stored, filterable
from ragkit.stores import StoreUnavailable
from ragkit.stores.postings import lengths, postings, question, score_sql

BATCH = 100
TIMEOUT_S = 6
LONGEST_NAME = 40
MOST_DIMENSIONS = 2_000
"""That pgvector's HNSW takes; longer vectors are compared one by one."""
SESSION = "SET hnsw.ef_search = 200; SET hnsw.iterative_scan = strict_order; SET jit = off"
LOST = re.compile(r"08...|57P0.|53300")
"""SQLSTATEs of a connection that is gone, a server that stops or starts, too many connections."""
AGAIN = frozenset(("40001", "40P01"))
"""SQLSTATEs of a transaction that another one stood in the way of."""
REFUSED_LOGIN = frozenset(("28P01", "28000"))
ORDERED = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
ATTEMPTS = 3

Connect = Callable[[], Any]
Result = TypeVar("Result")


def connector(endpoint: str, secret: Callable[[bool], Mapping[str, Any]]) -> Connect:
    """What makes connections to `postgresql://HOST:PORT/DATABASE?sslmode=...`.

    `secret(again)` has `username` and `password`, as Secrets Manager keeps them for RDS; it is read again when the
    server refuses the login, since a password may have been rotated. `sslmode` is `disable`, `require` (the default:
    encrypted, any certificate) or `verify-full`, with `sslrootcert` for a file of certificates.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise ValueError("a pgvector store's endpoint is postgresql://HOST:PORT/DATABASE")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    context = _tls(options)

    def login(known: Mapping[str, Any]) -> Any:
        from pg8000.native import Connection

        connection = Connection(
            str(known["username"]), host=parts.hostname, port=parts.port or 5432, password=str(known["password"]),
            database=unquote(parts.path.lstrip("/")) or "postgres", ssl_context=context, timeout=TIMEOUT_S,
            application_name="ragkit",
        )  # fmt: skip
        connection.run(SESSION)
        return connection

    def connect() -> Any:
        try:
            return login(secret(False))
        except Exception as error:
            if _state(error) not in REFUSED_LOGIN:
                raise
        return login(secret(True))

    return connect


def _tls(options: Mapping[str, str]) -> ssl.SSLContext | bool:
    mode = options.get("sslmode", "require")
    if mode == "disable":
        return False
    if mode not in ("require", "verify-full"):
        raise ValueError(f"sslmode {mode} is not one of disable, require, verify-full")
    context = ssl.create_default_context(cafile=options.get("sslrootcert"))
    if mode == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class PgVectorStore:
    """`index` names the tables (letters, digits, `_` and `-`), `dimension` is the vectors' length. Connections are kept
    for the environment's life, one for each thread that is at it; a lost one is replaced and its work done again."""

    def __init__(self, connect: Connect, index: str, dimension: int) -> None:
        name = table_name(index)
        self._passages, self._postings, self._totals = f"passages_{name}", f"postings_{name}", f"totals_{name}"
        self._connect = connect
        self._dimension = dimension
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    # -- the index ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self._together(self._passages, self._create)

    def _create(self, connection: Any) -> None:
        passages, found = self._passages, self._postings
        connection.run("CREATE EXTENSION IF NOT EXISTS vector")
        connection.run(
            f"CREATE TABLE IF NOT EXISTS {passages} (id text PRIMARY KEY, document text NOT NULL,"
            " number integer NOT NULL, digest text NOT NULL, model text NOT NULL, metadata jsonb NOT NULL,"
            " text text NOT NULL, context text NOT NULL, text_length integer NOT NULL,"
            f" context_length integer NOT NULL, embedding vector({self._dimension}))"
        )
        connection.run(f"CREATE INDEX IF NOT EXISTS {passages}_document ON {passages} (document)")
        connection.run(
            f"CREATE INDEX IF NOT EXISTS {passages}_metadata ON {passages} USING gin (metadata jsonb_path_ops)"
        )
        if self._dimension <= MOST_DIMENSIONS:
            near = f"{passages} USING hnsw (embedding vector_cosine_ops)"
            connection.run(f"CREATE INDEX IF NOT EXISTS {passages}_near ON {near}")
        connection.run(
            f"CREATE TABLE IF NOT EXISTS {found} (field text NOT NULL, term text NOT NULL, id text NOT NULL,"
            " tf integer NOT NULL, length integer NOT NULL, PRIMARY KEY (term, field, id) INCLUDE (tf, length))"
        )
        connection.run(f"CREATE INDEX IF NOT EXISTS {found}_id ON {found} (id)")
        connection.run(
            f"CREATE TABLE IF NOT EXISTS {self._totals} (one boolean PRIMARY KEY CHECK (one), passages bigint NOT NULL,"
            " text_terms bigint NOT NULL, context_terms bigint NOT NULL)"
        )
        connection.run(f"INSERT INTO {self._totals} VALUES (TRUE, 0, 0, 0) ON CONFLICT DO NOTHING")

    def drop(self) -> None:
        tables = (self._passages, self._postings, self._totals)
        self._together(self._passages, lambda one: one.run(f"DROP TABLE IF EXISTS {', '.join(tables)}"))

    # -- writing ------------------------------------------------------------------------------------------------------

    def replace(self, document: str, chunks: Sequence[Chunk], embed: Embed | None, model: str) -> Stored:
        model = model if embed is not None else NO_MODEL
        document, chunks = _clean(document), [_cleaned(one) for one in chunks]
        sql = f"SELECT id, digest, model FROM {self._passages} WHERE document = ?"
        known = {key: (digest, made) for key, digest, made in self._rows(sql, document)}
        fresh = [one for one in chunks if known.get(one.id) != (one.digest, model)]
        for at in range(0, len(fresh), BATCH):
            some = fresh[at : at + BATCH]
            vectors = embed([one.embedded for one in some]) if embed is not None else [None] * len(some)
            rows = [self._row(one, vector, model) for one, vector in zip(some, vectors)]
            found = [list(row) for one in some for row in postings(one)]
            self._together(document, lambda one, rows=rows, found=found: self._put(one, rows, found))
        kept = {one.id for one in chunks}
        gone = [key for key in known if key not in kept]
        if gone:
            self._together(document, lambda one: self._forget(one, gone))
        return Stored(len(fresh), len(chunks) - len(fresh), len(gone))

    def delete(self, document: str) -> int:
        def work(connection: Any) -> int:
            sql = f"SELECT id FROM {self._passages} WHERE document = ?"
            keys = [row[0] for row in _run(connection, sql, _clean(document))]
            if keys:
                self._forget(connection, keys)
            return len(keys)

        return self._together(_clean(document), work)

    def _put(self, connection: Any, rows: list[dict[str, Any]], found: list[list[Any]]) -> None:
        gone = self._remove(connection, [row["id"] for row in rows])
        columns = "id, document, number, digest, model, metadata, text, context, text_length, context_length"
        _run(
            connection,
            f"INSERT INTO {self._passages} ({columns}, embedding)"
            f" SELECT {columns}, CAST(embedding AS vector) FROM jsonb_to_recordset(CAST(? AS jsonb)) AS given"
            " (id text, document text, number integer, digest text, model text, metadata jsonb, text text,"
            " context text, text_length integer, context_length integer, embedding text)",
            _json(rows),
        )
        _run(
            connection,
            f"INSERT INTO {self._postings} SELECT row ->> 0, row ->> 1, row ->> 2, CAST(row ->> 3 AS integer),"
            " CAST(row ->> 4 AS integer) FROM jsonb_array_elements(CAST(? AS jsonb)) AS row",
            _json(found),
        )
        put = (len(rows), *(sum(row[f"{name}_length"] for row in rows) for name in ("text", "context")))
        self._count(connection, [more - less for more, less in zip(put, gone)])

    def _row(self, chunk: Chunk, vector: Sequence[float] | None, model: str) -> dict[str, Any]:
        if vector is not None and len(vector) != self._dimension:
            raise ValueError(f"the model makes vectors of {len(vector)} numbers, the index holds {self._dimension}")
        size = lengths(chunk)
        return {
            "id": chunk.id, "document": chunk.document, "number": chunk.number, "digest": chunk.digest,
            "model": model, "metadata": filterable(chunk, model), "text": chunk.text, "context": chunk.context,
            "text_length": size["text"], "context_length": size["context"],
            "embedding": list(map(float, vector)) if vector is not None and any(vector) else None,
        }  # fmt: skip

    def _remove(self, connection: Any, keys: list[str]) -> list[int]:
        """Returns the passages that went, and the terms in their texts and contexts."""
        _run(connection, f"DELETE FROM {self._postings} WHERE id = ANY(CAST(? AS text[]))", keys)
        sql = f"""WITH gone AS (DELETE FROM {self._passages} WHERE id = ANY(CAST(? AS text[]))
 RETURNING text_length, context_length)
 SELECT COUNT(*), COALESCE(SUM(text_length), 0), COALESCE(SUM(context_length), 0) FROM gone"""
        return _run(connection, sql, keys)[0]

    def _forget(self, connection: Any, keys: list[str]) -> None:
        self._count(connection, [-one for one in self._remove(connection, keys)])

    def _count(self, connection: Any, more: Sequence[int]) -> None:
        """Last in a transaction: from here on it keeps others from committing theirs."""
        _run(
            connection,
            f"UPDATE {self._totals} SET passages = passages + CAST(? AS bigint),"
            " text_terms = text_terms + CAST(? AS bigint), context_terms = context_terms + CAST(? AS bigint)",
            *more,
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def dense(self, vector: Sequence[float], count: int, model: str, where: Filter | None) -> list[tuple[str, float]]:
        """By HNSW; exact where the filter leaves the index's scan too few."""
        if not any(vector):
            return []
        condition, values = condition_of(where)
        near = "M.embedding <=> CAST(? AS vector)"
        for distance in (near, f"({near}) + 0"):
            sql = (
                f"SELECT M.id, {distance} AS distance FROM {self._passages} M"
                f" WHERE M.model = ? AND M.embedding IS NOT NULL AND {condition} ORDER BY distance LIMIT ?"
            )
            rows = self._rows(sql, _json(list(map(float, vector))), model, *values, count)
            if len(rows) >= count:
                break
        return [(key, distance) for key, distance in rows]

    def lexical(self, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        words = question(_clean(text))
        if not words:
            return []
        condition, values = condition_of(where)
        stats = (
            "SELECT CAST(passages AS float) AS N, CAST(text_terms AS float) / NULLIF(passages, 0) AS TEXT_MEAN,"
            f" CAST(context_terms AS float) / NULLIF(passages, 0) AS CONTEXT_MEAN FROM {self._totals}"
        )
        sql = score_sql(self._passages, self._postings, ", ".join("?" * len(words)), condition, stats, "OFFSET 0")
        return [(key, score) for key, score in self._rows(sql, *words, *values, count)]

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        sql = (
            "SELECT id, document, number, metadata ->> 'title', context, text, metadata -> 'page', metadata -> 'labels'"
            f" FROM {self._passages} WHERE id = ANY(CAST(? AS text[]))"
        )
        found = {row[0]: row for row in self._rows(sql, list(map(_clean, ids)))} if ids else {}
        picked = [found[key] for key in map(_clean, ids) if key in found]
        return [
            Passage(key, document, number, title or "", context, text, int(page or 0), labels=tuple(labels or ()))
            for key, document, number, title, context, text, page, labels in picked
        ]

    # -- connections --------------------------------------------------------------------------------------------------

    def _rows(self, sql: str, *values: Any) -> list[list[Any]]:
        return self._work(lambda connection: _run(connection, sql, *values))

    def _together(self, name: str, work: Callable[[Any], Result]) -> Result:
        """All of it or nothing, one after the other for one `name`."""

        def whole(connection: Any) -> Result:
            connection.run("BEGIN")
            try:
                lock = "SELECT pg_advisory_xact_lock(CAST(? AS bigint))"
                _run(connection, lock, _number(f"{self._passages}\x00{name}"))
                result = work(connection)
                connection.run("COMMIT")
                return result
            except BaseException:
                with suppress(Exception):
                    connection.run("ROLLBACK")
                raise

        return self._work(whole)

    def _work(self, work: Callable[[Any], Result]) -> Result:
        """`work` with a connection; again when that was lost or another transaction stood in the way."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._connection(attempt > 1) as connection:
                    return work(connection)
            except Exception as error:
                if not (_lost(error) or _state(error) in AGAIN):
                    raise
                if attempt == ATTEMPTS:
                    raise StoreUnavailable(f"PostgreSQL cannot be used: {_words(error)}") from error
        raise AssertionError("unreachable")

    @contextmanager
    def _connection(self, new: bool) -> Iterator[Any]:
        """A connection of this call alone. After one was lost the others that lie idle are given up as well."""
        with self._lock:
            if new:
                idle, self._idle = self._idle, []
            else:
                idle = []
            connection = self._idle.pop() if self._idle else None
        for one in idle:
            _close(one)
        connection = connection or self._connect()
        try:
            yield connection
        except BaseException as error:
            if not isinstance(error, Exception) or _lost(error):
                _close(connection)
            else:
                self._keep(connection)
            raise
        self._keep(connection)

    def _keep(self, connection: Any) -> None:
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        """Give the idle connections up."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            _close(one)


def table_name(index: str) -> str:
    """What follows `passages_` in the tables' names, of letters, digits and `_`; a long one ends in a hash, since
    PostgreSQL cuts names at 63 characters."""
    name = re.sub(r"[^a-z0-9_]", "_", index.lower())
    return name if len(name) <= LONGEST_NAME else f"{name[:27]}_{hashlib.sha256(index.encode()).hexdigest()[:12]}"


def _run(connection: Any, sql: str, *values: Any) -> list[list[Any]]:
    numbers = counter(1)
    statement = re.sub(r"\?", lambda _: f"${next(numbers)}", sql)
    return connection.run(statement, **{f"p{at}": value for at, value in enumerate(values)}) or []


def _close(connection: Any) -> None:
    with suppress(Exception):
        connection.close()


def _state(error: BaseException) -> str:
    """The error's SQLSTATE; "" when it is not the server's."""
    told = error.args[0] if error.args else None
    return str(told.get("C", "")) if isinstance(told, dict) else ""


def _words(error: BaseException) -> str:
    told = error.args[0] if error.args else None
    return str(told.get("M", told)) if isinstance(told, dict) else str(error)


def _lost(error: BaseException) -> bool:
    """Whether the connection is of no use any more, or there is none."""
    return isinstance(error, OSError) or type(error).__name__ == "InterfaceError" or bool(LOST.match(_state(error)))


def _clean(text: str) -> str:
    """PostgreSQL's text cannot hold the character 0."""
    return text.replace("\x00", "")


def _cleaned(chunk: Chunk) -> Chunk:
    given = {name: getattr(chunk, name) for name in ("id", "document", "context", "text")}
    if not any("\x00" in one for one in given.values()):
        return chunk
    return replace(chunk, **{name: _clean(one) for name, one in given.items()})


def _json(value: Any) -> str:
    """JSON without the character 0."""
    return re.sub(r"(?<!\\)((?:\\\\)*)\\u0000", r"\1", json.dumps(value, ensure_ascii=False))


def _number(text: str) -> int:
    """A bigint of a text, for advisory locks."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


# -- filters ----------------------------------------------------------------------------------------------------------


def condition_of(where: Filter | None) -> tuple[str, list[Any]]:
    """S3 Vectors' metadata filter -> (a condition on the passages M, its values in order). Raises ValueError."""
    if not where:
        return "TRUE", []
    parts: list[str] = []
    values: list[Any] = []
    for key, want in where.items():
        if key in ("$and", "$or"):
            tests = [condition_of(one) for one in want]
            parts.append("(" + (" AND " if key == "$and" else " OR ").join(sql for sql, _ in tests) + ")")
        else:
            given = want if isinstance(want, dict) else {"$eq": want}
            tests = [_test(key, operator, operand) for operator, operand in given.items()]
            parts += [sql for sql, _ in tests]
        values += [value for _, found in tests for value in found]
    return f"({' AND '.join(parts)})", values


def _test(key: str, operator: str, operand: Any) -> tuple[str, list[Any]]:
    key = _clean(key)
    if operator == "$exists":
        return f"(M.metadata -> CAST(? AS text)) IS {'NOT ' if operand else ''}NULL", [key]
    if operator in ("$eq", "$ne", "$in", "$nin"):
        wanted = list(operand) if operator in ("$in", "$nin") else [operand]
        forms = [_json({key: form}) for one in wanted for form in (one, [one])]
        held = " OR ".join("M.metadata @> CAST(? AS jsonb)" for _ in forms)
        return (f"({held})" if operator in ("$eq", "$in") else f"NOT ({held})"), forms
    if operator in ORDERED:
        path = f"$[*] ? (@ {ORDERED[operator]} $want)"
        sql = "COALESCE(jsonb_path_exists(M.metadata -> CAST(? AS text), CAST(? AS jsonpath), CAST(? AS jsonb)), FALSE)"
        return sql, [key, path, _json({"want": float(operand)})]
    raise ValueError(f"unknown operator {operator} in a metadata filter")

"""Snowflake as the vector store: VECTOR columns, metadata in a VARIANT, BM25 over a table of postings.

An index is two tables of the connection's current schema. The connection is made at the first use and kept for the
environment's life; it is made again when Snowflake says that its session has ended.
"""

import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ragkit.chunking import Chunk
from ragkit.embed import NO_MODEL
from ragkit.store import Embed, Filter, Passage, Stored, filterable
from ragkit.stores.postings import lengths, postings, question, score_sql

BATCH = 100
ENDED = frozenset((390111, 390112, 390113, 390114, 390115, 390195))
"""Snowflake's codes for a session that is gone or has expired."""
UNREACHED = frozenset((250001, 250002, 250003, 250005))
ORDERED = {
    "$gt": ("ARRAY_MAX", ">"), "$gte": ("ARRAY_MAX", ">="), "$lt": ("ARRAY_MIN", "<"), "$lte": ("ARRAY_MIN", "<="),
}  # fmt: skip
NAMES = (
    "account", "user", "password", "private_key_file", "database", "schema", "warehouse", "role", "host", "port",
    "protocol",
)  # fmt: skip
COLUMNS = {
    "DOCUMENT": "::VARCHAR", "NUMBER": "::INTEGER", "DIGEST": "::VARCHAR", "MODEL": "::VARCHAR", "METADATA": "",
    "TEXT": "::VARCHAR", "CONTEXT": "::VARCHAR", "TEXT_LENGTH": "::INTEGER", "CONTEXT_LENGTH": "::INTEGER",
}  # fmt: skip
"""Of the passages besides ID and EMBEDDING, with the cast from JSON."""
NUMBERS = "('INTEGER', 'DECIMAL', 'DOUBLE')"

Connect = Callable[[], Any]


def connector(environment: Mapping[str, str] = os.environ) -> Connect:
    """What makes connections from SNOWFLAKE_ACCOUNT, _USER, _PASSWORD or _PRIVATE_KEY_FILE, _DATABASE, _SCHEMA,
    _WAREHOUSE, _ROLE, and for another endpoint _HOST, _PORT, _PROTOCOL."""
    given = {name: environment[key] for name in NAMES if environment.get(key := f"SNOWFLAKE_{name.upper()}")}

    def connect() -> Any:
        import snowflake.connector

        port = {"port": int(given["port"])} if "port" in given else {}
        jwt = {"authenticator": "SNOWFLAKE_JWT"} if "private_key_file" in given else {}
        return snowflake.connector.connect(**{**given, **port, **jwt}, paramstyle="qmark")

    return connect


class SnowflakeStore:
    """`index` names the tables (letters, digits, `_` and `-`), `dimension` is the vectors' length."""

    def __init__(self, connect: Connect, index: str, dimension: int) -> None:
        name = re.sub(r"\W", "_", index).upper()
        self._passages, self._postings = f"PASSAGES_{name}", f"POSTINGS_{name}"
        self._connect = connect
        self._dimension = dimension
        self._vector = f"PARSE_JSON(?)::ARRAY::VECTOR(FLOAT, {dimension})"
        self._connection: Any = None
        self._lock = threading.RLock()

    # -- the index ------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self._run(
            f"CREATE TABLE IF NOT EXISTS {self._passages} (ID VARCHAR NOT NULL, DOCUMENT VARCHAR NOT NULL,"
            " NUMBER INTEGER NOT NULL, DIGEST VARCHAR NOT NULL, MODEL VARCHAR NOT NULL, METADATA VARIANT,"
            " TEXT VARCHAR NOT NULL, CONTEXT VARCHAR NOT NULL, TEXT_LENGTH INTEGER NOT NULL,"
            f" CONTEXT_LENGTH INTEGER NOT NULL, EMBEDDING VECTOR(FLOAT, {self._dimension}), PRIMARY KEY (ID))"
        )
        self._run(
            f"CREATE TABLE IF NOT EXISTS {self._postings} (FIELD VARCHAR NOT NULL, TERM VARCHAR NOT NULL,"
            " ID VARCHAR NOT NULL, TF INTEGER NOT NULL, LENGTH INTEGER NOT NULL)"
        )

    def drop(self) -> None:
        self._run(f"DROP TABLE IF EXISTS {self._passages}")
        self._run(f"DROP TABLE IF EXISTS {self._postings}")

    # -- writing --------------------------------------------------------------------------------------------------

    def replace(self, document: str, chunks: Sequence[Chunk], embed: Embed | None, model: str) -> Stored:
        model = model if embed is not None else NO_MODEL
        sql = f"SELECT ID, DIGEST, MODEL FROM {self._passages} WHERE DOCUMENT = ?"
        known = {row[0]: (row[1], row[2]) for row in self._run(sql, document)}
        fresh = [one for one in chunks if known.get(one.id) != (one.digest, model)]
        for at in range(0, len(fresh), BATCH):
            some = fresh[at : at + BATCH]
            vectors = embed([one.embedded for one in some]) if embed is not None else [None] * len(some)
            self._together(lambda some=some, vectors=vectors: self._put(some, vectors, model))
        kept = {one.id for one in chunks}
        gone = [key for key in known if key not in kept]
        if gone:
            self._together(lambda: self._remove(gone))
        return Stored(len(fresh), len(chunks) - len(fresh), len(gone))

    def delete(self, document: str) -> int:
        keys = [row[0] for row in self._run(f"SELECT ID FROM {self._passages} WHERE DOCUMENT = ?", document)]
        if keys:
            self._together(lambda: self._remove(keys))
        return len(keys)

    def _put(self, chunks: list[Chunk], vectors: Sequence[Sequence[float] | None], model: str) -> None:
        rows = [self._row(one, vector, model) for one, vector in zip(chunks, vectors)]
        casts = {**COLUMNS, "EMBEDDING": f"::ARRAY::VECTOR(FLOAT, {self._dimension})"}
        names = list(casts)
        picked = ", ".join(f"F.VALUE:{one}{cast} AS {one}" for one, cast in {"ID": "::VARCHAR", **casts}.items())
        sets, given = ", ".join(f"T.{one} = S.{one}" for one in names), ", ".join(f"S.{one}" for one in names)
        done = self._run(
            f"MERGE INTO {self._passages} T USING (SELECT {picked} FROM TABLE(FLATTEN(INPUT => PARSE_JSON(?))) F) S"
            f" ON T.ID = S.ID WHEN MATCHED THEN UPDATE SET {sets}"
            f" WHEN NOT MATCHED THEN INSERT (ID, {', '.join(names)}) VALUES (S.ID, {given})",
            json.dumps(rows, ensure_ascii=False),
        )
        if done[0][1]:
            self._forget_terms([one.id for one in chunks])
        found = [list(row) for one in chunks for row in postings(one)]
        self._run(
            f"INSERT INTO {self._postings} SELECT F.VALUE[0]::VARCHAR, F.VALUE[1]::VARCHAR, F.VALUE[2]::VARCHAR,"
            " F.VALUE[3]::INTEGER, F.VALUE[4]::INTEGER FROM TABLE(FLATTEN(INPUT => PARSE_JSON(?))) F",
            json.dumps(found, ensure_ascii=False),
        )

    def _row(self, chunk: Chunk, vector: Sequence[float] | None, model: str) -> dict[str, Any]:
        if vector is not None and len(vector) != self._dimension:
            raise ValueError(f"the model makes vectors of {len(vector)} numbers, the index holds {self._dimension}")
        size = lengths(chunk)
        return {
            "ID": chunk.id, "DOCUMENT": chunk.document, "NUMBER": chunk.number, "DIGEST": chunk.digest, "MODEL": model,
            "METADATA": filterable(chunk, model), "TEXT": chunk.text, "CONTEXT": chunk.context,
            "TEXT_LENGTH": size["text"], "CONTEXT_LENGTH": size["context"],
            **({"EMBEDDING": list(vector)} if vector is not None and any(vector) else {}),
        }  # fmt: skip

    def _remove(self, keys: list[str]) -> None:
        for at in range(0, len(keys), BATCH):
            some = keys[at : at + BATCH]
            self._run(f"DELETE FROM {self._passages} WHERE ID IN ({_marks(some)})", *some)
            self._forget_terms(some)

    def _forget_terms(self, keys: list[str]) -> None:
        self._run(f"DELETE FROM {self._postings} WHERE ID IN ({_marks(keys)})", *keys)

    # -- reading --------------------------------------------------------------------------------------------------

    def dense(self, vector: Sequence[float], count: int, model: str, where: Filter | None) -> list[tuple[str, float]]:
        condition, values = condition_of(where)
        rows = self._run(
            f"SELECT M.ID, 1 - VECTOR_COSINE_SIMILARITY(M.EMBEDDING, {self._vector}) AS DISTANCE"
            f" FROM {self._passages} M WHERE M.MODEL = ? AND M.EMBEDDING IS NOT NULL AND {condition}"
            " ORDER BY DISTANCE, M.ID LIMIT ?",
            json.dumps(list(map(float, vector))), model, *values, count,
        )  # fmt: skip
        return [(key, distance) for key, distance in rows]

    def lexical(self, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        words = question(text)
        if not words:
            return []
        condition, values = condition_of(where)
        sql = score_sql(self._passages, self._postings, _marks(words), condition)
        return [(key, score) for key, score in self._run(sql, *words, *values, count)]

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        found: dict[str, Passage] = {}
        for at in range(0, len(ids), BATCH):
            some = list(ids[at : at + BATCH])
            columns = "ID, DOCUMENT, NUMBER, METADATA:title::VARCHAR, CONTEXT, TEXT, METADATA:page::INTEGER"
            sql = f"SELECT {columns}, METADATA:labels FROM {self._passages} WHERE ID IN ({_marks(some)})"
            for key, document, number, title, context, text, page, labels in self._run(sql, *some):
                given = (key, document, int(number), title or "", context, text, int(page or 0))
                found[key] = Passage(*given, labels=tuple(json.loads(labels or "[]")))
        return [found[key] for key in ids if key in found]

    # -- the connection -------------------------------------------------------------------------------------------

    def _run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows; once more on a new connection when the session has ended."""
        try:
            return self._rows(sql, values)
        except Exception as error:
            if not self._ended(error):
                raise
        with self._lock:
            self._connection = None
        return self._rows(sql, values)

    def _rows(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            cursor = self._connection.cursor()
        try:
            cursor.execute(sql, values or None)
            return cursor.fetchall()
        finally:
            cursor.close()

    def _ended(self, error: Exception) -> bool:
        """Whether another connection may help. In a transaction it may not: the transaction is begun again."""
        code = getattr(error, "errno", None)
        lost = code in ENDED or code in UNREACHED or (self._connection is not None and self._connection.is_closed())
        return lost and not self._within

    _within = False

    def _together(self, work: Callable[[], None]) -> None:
        """All of it or nothing; once more from the start when the session has ended."""
        with self._lock:
            for last in (False, True):
                try:
                    self._run("BEGIN")
                    self._within = True
                    work()
                    self._run("COMMIT")
                    return
                except Exception as error:
                    self._within = False
                    if last or not self._ended(error):
                        self._undo()
                        raise
                    self._connection = None
                finally:
                    self._within = False

    def _undo(self) -> None:
        try:
            self._rows("ROLLBACK", ())
        except Exception:
            self._connection = None


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def condition_of(where: Filter | None) -> tuple[str, list[Any]]:
    """S3 Vectors' metadata filter -> (a condition on the passages M, its values in order). Raises ValueError."""
    if not where:
        return "TRUE", []
    parts: list[str] = []
    values: list[Any] = []
    for key, want in where.items():
        if key in ("$and", "$or"):
            inner = [condition_of(one) for one in want]
            parts.append("(" + (" AND " if key == "$and" else " OR ").join(sql for sql, _ in inner) + ")")
            values += [value for _, found in inner for value in found]
            continue
        tests = want if isinstance(want, dict) else {"$eq": want}
        for operator, operand in tests.items():
            sql, found = _test(key, operator, operand)
            parts.append(sql)
            values += found
    return " AND ".join(parts), values


def _test(key: str, operator: str, operand: Any) -> tuple[str, list[Any]]:
    name = key.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\\\"')
    path = f"M.METADATA['{name}']"
    if operator == "$exists":
        return f"({path} IS {'NOT ' if operand else ''}NULL)", []
    if operator in ("$eq", "$ne", "$in", "$nin"):
        wanted = list(operand) if operator in ("$in", "$nin") else [operand]
        any_of = " OR ".join(f"ARRAY_CONTAINS(?::VARIANT, {path}::ARRAY)" for _ in wanted)
        held = f"COALESCE({any_of}, FALSE)" if len(wanted) == 1 else f"(COALESCE({any_of}, FALSE))"
        return (held if operator in ("$eq", "$in") else f"NOT {held}"), wanted
    if operator in ORDERED:
        function, sign = ORDERED[operator]
        most = f"{function}({path}::ARRAY)"
        return f"IFF(TYPEOF({most}) IN {NUMBERS}, {most}::FLOAT {sign} ?, FALSE)", [float(operand)]
    raise ValueError(f"unknown operator {operator} in a metadata filter")

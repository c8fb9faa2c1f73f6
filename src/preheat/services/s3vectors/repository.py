"""Named SQL of S3 Vectors."""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from preheat.kernel.scope import Scope
from preheat.services.s3vectors.domain import IndexSpec, TextField, VectorRow
from preheat.store.database import Database

IN_CHUNK = 500
LEAST_LOG = 100_000
"""How many changes since its last copy an index may have at least before the copy is given up."""

_SPEC = """
SELECT i.*, b.name AS bucket, b.created_at AS bucket_created_at, b.account, b.region,
       coalesce(i.sse_type, b.sse_type) AS sse,
       CASE WHEN i.sse_type IS NULL THEN b.kms_key_arn ELSE i.kms_key_arn END AS kms
FROM s3vectors_indexes i JOIN s3vectors_buckets b ON b.id = i.bucket_id
"""


class Copy(NamedTuple):
    """Search structures in files; see schema.sql."""

    token: str
    seq: int
    vectors: int
    logged: int


class Bucket(NamedTuple):
    id: int
    name: str
    arn: str
    created_at: float
    sse_type: str
    kms_key_arn: str | None
    default_mode: str
    policy: str | None


def bucket_arn(scope: Scope, name: str) -> str:
    return scope.arn("s3vectors", f"bucket/{name}")


def index_arn(scope: Scope, bucket: str, name: str) -> str:
    return scope.arn("s3vectors", f"bucket/{bucket}/index/{name}")


def add_bucket(
    db: Database, scope: Scope, name: str, now: float, sse_type: str, kms_key_arn: str | None, default_mode: str
) -> bool:
    """False when the name is taken."""
    added = db.run(
        "INSERT OR IGNORE INTO s3vectors_buckets (account, region, name, created_at, sse_type, kms_key_arn,"
        " default_mode) VALUES (?, ?, ?, ?, ?, ?, ?)",
        scope.account, scope.region, name, now, sse_type, kms_key_arn, default_mode,
    )  # fmt: skip
    return added == 1


def bucket(db: Database, scope: Scope, name: str) -> Bucket | None:
    row = db.one(
        "SELECT * FROM s3vectors_buckets WHERE account = ? AND region = ? AND name = ?",
        scope.account, scope.region, name,
    )  # fmt: skip
    return None if row is None else _bucket(scope, row)


def buckets(db: Database, scope: Scope, prefix: str, after: str, limit: int) -> list[Bucket]:
    rows = db.all(
        "SELECT * FROM s3vectors_buckets WHERE account = ? AND region = ? AND name > ?"
        " AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
        scope.account, scope.region, after, len(prefix), prefix, limit,
    )  # fmt: skip
    return [_bucket(scope, row) for row in rows]


def count_buckets(db: Database, scope: Scope) -> int:
    return db.value(
        "SELECT count(*) FROM s3vectors_buckets WHERE account = ? AND region = ?", scope.account, scope.region
    )


def remove_bucket(db: Database, bucket_id: int) -> None:
    db.run("DELETE FROM s3vectors_buckets WHERE id = ?", bucket_id)


def set_policy(db: Database, bucket_id: int, policy: str | None) -> None:
    db.run("UPDATE s3vectors_buckets SET policy = ? WHERE id = ?", policy, bucket_id)


def set_default_mode(db: Database, bucket_id: int, mode: str) -> None:
    db.run("UPDATE s3vectors_buckets SET default_mode = ? WHERE id = ?", mode, bucket_id)


def add_index(
    db: Database,
    bucket_id: int,
    name: str,
    now: float,
    dimension: int,
    metric: str,
    mode: str,
    non_filterable: Sequence[str],
    text_fields: Sequence[TextField],
    encryption: tuple[str | None, str | None],
) -> bool:
    """False when the name is taken."""
    added = db.run(
        "INSERT OR IGNORE INTO s3vectors_indexes (bucket_id, name, created_at, dimension, metric, mode,"
        " non_filterable, text_search, sse_type, kms_key_arn) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        bucket_id, name, now, dimension, metric, mode, json.dumps(list(non_filterable)), _texts(text_fields),
        *encryption,
    )  # fmt: skip
    return added == 1


def index(db: Database, scope: Scope, bucket_name: str, name: str) -> IndexSpec | None:
    row = db.one(
        _SPEC + "WHERE b.account = ? AND b.region = ? AND b.name = ? AND i.name = ?",
        scope.account, scope.region, bucket_name, name,
    )  # fmt: skip
    return None if row is None else _spec(row)


def indexes(db: Database, bucket_id: int, prefix: str, after: str, limit: int) -> list[IndexSpec]:
    rows = db.all(
        _SPEC + "WHERE i.bucket_id = ? AND i.name > ? AND substr(i.name, 1, ?) = ? ORDER BY i.name LIMIT ?",
        bucket_id, after, len(prefix), prefix, limit,
    )  # fmt: skip
    return [_spec(row) for row in rows]


def count_indexes(db: Database, bucket_id: int) -> int:
    return db.value("SELECT count(*) FROM s3vectors_indexes WHERE bucket_id = ?", bucket_id)


def index_by_id(db: Database, index_id: int) -> IndexSpec | None:
    row = db.one(_SPEC + "WHERE i.id = ?", index_id)
    return None if row is None else _spec(row)


def remove_index(db: Database, index_id: int) -> None:
    """The index is gone at once; its vectors are left to `purge`."""
    db.run("DELETE FROM s3vectors_indexes WHERE id = ?", index_id)
    drop_copy(db, index_id)
    db.run("INSERT INTO s3vectors_garbage VALUES (?)", index_id)


def purge(db: Database, limit: int) -> bool:
    """Delete up to `limit` vectors of a removed index; True while there are removed indexes left."""
    index_id = db.value("SELECT index_id FROM s3vectors_garbage LIMIT 1")
    if index_id is None:
        return False
    removed = db.run(
        "DELETE FROM s3vectors_vectors WHERE id IN (SELECT id FROM s3vectors_vectors WHERE index_id = ? LIMIT ?)",
        index_id, limit,
    )  # fmt: skip
    if removed < limit:
        db.run("DELETE FROM s3vectors_garbage WHERE index_id = ?", index_id)
    return True


def copy(db: Database, index_id: int) -> Copy | None:
    row = db.one("SELECT token, seq, vectors, logged FROM s3vectors_copies WHERE index_id = ?", index_id)
    return None if row is None else Copy(*row)


def copied(db: Database) -> set[int]:
    """The ids of the indexes that have a copy."""
    return {row[0] for row in db.all("SELECT index_id FROM s3vectors_copies")}


def begin_copy(db: Database, index_id: int) -> int:
    """From now on changes of the index are noted; returns the number of the latest change so far."""
    db.run("INSERT OR IGNORE INTO s3vectors_copies (index_id) VALUES (?)", index_id)
    return db.value("SELECT seq FROM sqlite_sequence WHERE name = 's3vectors_changes'") or 0


def end_copy(db: Database, index_id: int, token: str, seq: int, vectors: int) -> bool:
    """The copy `token` counts from now on; False when the index is gone or its copies were given up meanwhile."""
    return db.run(
        "UPDATE s3vectors_copies SET token = ?, seq = ?, vectors = ?, logged ="
        " (SELECT count(*) FROM s3vectors_changes WHERE +index_id = ? AND seq > ?) WHERE index_id = ?",
        token, seq, vectors, index_id, seq, index_id,
    ) == 1  # fmt: skip


def drop_copy(db: Database, index_id: int) -> None:
    db.run("DELETE FROM s3vectors_copies WHERE index_id = ?", index_id)


def changes_after(db: Database, index_id: int, seq: int, limit: int) -> list[tuple[int, str, VectorRow | None]]:
    """(number, key, what is stored now) of the keys changed after `seq`, in the order of their latest changes."""
    rows = db.all(
        "SELECT seq, key FROM s3vectors_changes WHERE +index_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        index_id, seq, limit,
    )  # fmt: skip
    stored = vectors(db, index_id, [row[1] for row in rows])
    return [(row[0], row[1], stored.get(row[1])) for row in rows]


def trim_changes(db: Database, limit: int) -> bool:
    """Delete up to `limit` noted changes that no copy needs; True when there may be more."""
    removed = db.run(
        "DELETE FROM s3vectors_changes WHERE seq IN (SELECT c.seq FROM s3vectors_changes c"
        " LEFT JOIN s3vectors_copies k ON k.index_id = c.index_id WHERE c.seq <= coalesce(k.seq, c.seq) LIMIT ?)",
        limit,
    )  # fmt: skip
    return removed == limit


def _note(db: Database, index_id: int, keys: Sequence[str]) -> None:
    """Note changes for the index's copy, if it has one; a copy that is too far behind is given up."""
    told = db.returning(
        "UPDATE s3vectors_copies SET logged = logged + ? WHERE index_id = ? RETURNING logged, vectors",
        len(keys), index_id,
    )  # fmt: skip
    if not told:
        return
    if told[0][0] > max(LEAST_LOG, told[0][1]):
        drop_copy(db, index_id)
    else:
        db.many(
            "INSERT OR REPLACE INTO s3vectors_changes (index_id, key) VALUES (?, ?)",
            [(index_id, key) for key in keys],
        )


def set_mode(db: Database, index_id: int, mode: str) -> None:
    db.run("UPDATE s3vectors_indexes SET mode = ? WHERE id = ?", mode, index_id)


def set_text_fields(db: Database, index_id: int, fields: Sequence[TextField]) -> None:
    db.run("UPDATE s3vectors_indexes SET text_search = ? WHERE id = ?", _texts(fields), index_id)


def put_vectors(db: Database, index_id: int, rows: Sequence[VectorRow]) -> None:
    _note(db, index_id, [row.key for row in rows])
    db.many(
        "INSERT INTO s3vectors_vectors (index_id, key, vector, metadata) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (index_id, key) DO UPDATE SET vector = excluded.vector, metadata = excluded.metadata",
        [(index_id, row.key, row.data, row.metadata) for row in rows],
    )


def delete_vectors(db: Database, index_id: int, keys: Sequence[str]) -> None:
    _note(db, index_id, keys)
    db.many("DELETE FROM s3vectors_vectors WHERE index_id = ? AND key = ?", [(index_id, key) for key in keys])


def vectors(db: Database, index_id: int, keys: Sequence[str], data: bool = True) -> dict[str, VectorRow]:
    """The stored vectors among `keys`; without `data` their bytes are left out."""
    found = {}
    column = "vector" if data else "x''"
    for at in range(0, len(keys), IN_CHUNK):
        some = keys[at : at + IN_CHUNK]
        rows = db.all(
            f"SELECT key, {column}, metadata FROM s3vectors_vectors WHERE index_id = ?"
            f" AND key IN ({','.join('?' * len(some))})",
            index_id, *some,
        )  # fmt: skip
        found.update((row[0], VectorRow(*row)) for row in rows)
    return found


def metadata(db: Database, index_id: int, keys: Sequence[str], whole: bool) -> dict[str, str]:
    """The metadata of the stored vectors among `keys`; "" for each unless `whole`, which reads the index alone."""
    found: dict[str, str] = {}
    column = "metadata" if whole else "''"
    for at in range(0, len(keys), IN_CHUNK):
        some = keys[at : at + IN_CHUNK]
        rows = db.all(
            f"SELECT key, {column} FROM s3vectors_vectors WHERE index_id = ? AND key IN ({','.join('?' * len(some))})",
            index_id, *some,
        )  # fmt: skip
        found.update((row[0], row[1]) for row in rows)
    return found


def rows_after(
    db: Database, index_id: int, after: int, limit: int, segments: int = 1, segment: int = 0
) -> list[tuple[int, VectorRow]]:
    """Vectors in the order in which their keys were first written, with their row ids."""
    rows = db.all(
        "SELECT id, key, vector, metadata FROM s3vectors_vectors WHERE index_id = ? AND id > ? AND id % ? = ?"
        " ORDER BY id LIMIT ?",
        index_id, after, segments, segment, limit,
    )  # fmt: skip
    return [(row[0], VectorRow(row[1], row[2], row[3])) for row in rows]


def tags(db: Database, arn: str) -> dict[str, str]:
    return {row[0]: row[1] for row in db.all("SELECT key, value FROM s3vectors_tags WHERE arn = ? ORDER BY key", arn)}


def put_tags(db: Database, arn: str, given: dict[str, str]) -> None:
    db.many("INSERT OR REPLACE INTO s3vectors_tags VALUES (?, ?, ?)", [(arn, *pair) for pair in given.items()])


def remove_tags(db: Database, arn: str, keys: Iterable[str] | None = None) -> None:
    """Those of `keys`, or all."""
    if keys is None:
        db.run("DELETE FROM s3vectors_tags WHERE arn = ?", arn)
    else:
        db.many("DELETE FROM s3vectors_tags WHERE arn = ? AND key = ?", [(arn, key) for key in keys])


def _bucket(scope: Scope, row) -> Bucket:
    return Bucket(
        row["id"], row["name"], bucket_arn(scope, row["name"]), row["created_at"], row["sse_type"], row["kms_key_arn"],
        row["default_mode"], row["policy"],
    )  # fmt: skip


def _spec(row) -> IndexSpec:
    return IndexSpec(
        id=row["id"],
        bucket_id=row["bucket_id"],
        bucket=row["bucket"],
        bucket_created_at=row["bucket_created_at"],
        name=row["name"],
        arn=index_arn(Scope(row["account"], row["region"]), row["bucket"], row["name"]),
        created_at=row["created_at"],
        dimension=row["dimension"],
        metric=row["metric"],
        mode=row["mode"],
        non_filterable=tuple(json.loads(row["non_filterable"])),
        text_fields=tuple(TextField(*pair) for pair in json.loads(row["text_search"])),
        sse_type=row["sse"],
        kms_key_arn=row["kms"],
    )


def _texts(fields: Sequence[TextField]) -> str:
    return json.dumps([[field.key, field.language] for field in fields])

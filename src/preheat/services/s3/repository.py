"""S3's SQL, named."""

import sqlite3
from typing import NamedTuple

import msgspec

from preheat.services.s3.domain import Attributes
from preheat.store.database import Database

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Attributes)
_HEAD = "id, bucket, key, size, etag, modified, attributes, blob"


class Bucket(NamedTuple):
    id: int
    name: str
    account: str
    region: str
    created: int
    notifications: str | None

    @property
    def arn(self) -> str:
        return f"arn:aws:s3:::{self.name}"


class Stored(NamedTuple):
    """An object's row without its body."""

    id: int
    bucket: int
    key: str
    size: int
    etag: str
    modified: int
    attributes: Attributes
    blob: str | None


class Part(NamedTuple):
    number: int
    size: int
    etag: str
    modified: int
    checksum: str | None
    blob: str | None


class Upload(NamedTuple):
    """`attributes` are the future object's; their checksum is (algorithm, "", type) as announced."""

    id: str
    bucket: int
    key: str
    initiated: int
    attributes: Attributes


def encode(attributes: Attributes) -> str:
    return _ENCODER.encode(attributes).decode()


def _stored(row: sqlite3.Row) -> Stored:
    return Stored(row[0], row[1], row[2], row[3], row[4], row[5], _DECODER.decode(row[6]), row[7])


# -- buckets --------------------------------------------------------------------------------------------------------


def bucket(db: Database, name: str) -> Bucket | None:
    row = db.one("SELECT id, name, account, region, created, notifications FROM s3_buckets WHERE name = ?", name)
    return None if row is None else Bucket(*row)


def buckets(db: Database, account: str, prefix: str, after: str, region: str | None, limit: int) -> list[Bucket]:
    rows = db.all(
        "SELECT id, name, account, region, created, notifications FROM s3_buckets"
        " WHERE account = ? AND name > ? AND substr(name, 1, ?) = ? AND (? IS NULL OR region = ?)"
        " ORDER BY name LIMIT ?",
        account, after, len(prefix), prefix, region, region, limit,
    )  # fmt: skip
    return [Bucket(*row) for row in rows]


def add_bucket(db: Database, name: str, account: str, region: str, created: int) -> int:
    return db.insert(
        "INSERT INTO s3_buckets (name, account, region, created) VALUES (?, ?, ?, ?)", name, account, region, created
    )


def bucket_in_use(db: Database, bucket_id: int) -> bool:
    return db.one("SELECT 1 FROM s3_objects WHERE bucket = ? LIMIT 1", bucket_id) is not None


def delete_bucket(db: Database, bucket_id: int) -> None:
    db.run("DELETE FROM s3_buckets WHERE id = ?", bucket_id)


def set_notifications(db: Database, bucket_id: int, value: str | None) -> None:
    db.run("UPDATE s3_buckets SET notifications = ? WHERE id = ?", value, bucket_id)


def configuration(db: Database, bucket_id: int, kind: str) -> str | None:
    return db.value("SELECT value FROM s3_configurations WHERE bucket = ? AND kind = ?", bucket_id, kind)


def set_configuration(db: Database, bucket_id: int, kind: str, value: str) -> None:
    db.run("INSERT OR REPLACE INTO s3_configurations VALUES (?, ?, ?)", bucket_id, kind, value)


def delete_configuration(db: Database, bucket_id: int, kind: str) -> None:
    db.run("DELETE FROM s3_configurations WHERE bucket = ? AND kind = ?", bucket_id, kind)


# -- objects --------------------------------------------------------------------------------------------------------


def find(db: Database, bucket_id: int, key: str) -> Stored | None:
    row = db.one(f"SELECT {_HEAD} FROM s3_objects WHERE bucket = ? AND key = ?", bucket_id, key)
    return None if row is None else _stored(row)


def present(db: Database, bucket_id: int, key: str) -> sqlite3.Row | None:
    """(id, etag, size, blob, modified) of what a write would replace."""
    return db.one("SELECT id, etag, size, blob, modified FROM s3_objects WHERE bucket = ? AND key = ?", bucket_id, key)


def body(db: Database, object_id: int) -> bytes:
    return db.value("SELECT body FROM s3_objects WHERE id = ?", object_id)


def put(
    db: Database, row_id: int | None, bucket_id: int, key: str, size: int, etag: str, modified: int,
    attributes: Attributes, blob: str | None, content: bytes | None,
) -> None:  # fmt: skip
    """Insert, or replace the row `row_id`."""
    db.run(
        "INSERT OR REPLACE INTO s3_objects (id, bucket, key, size, etag, modified, attributes, blob, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row_id, bucket_id, key, size, etag, modified, encode(attributes), blob, content,
    )  # fmt: skip


def set_attributes(db: Database, object_id: int, attributes: Attributes) -> None:
    db.run("UPDATE s3_objects SET attributes = ? WHERE id = ?", encode(attributes), object_id)


def delete(db: Database, object_id: int) -> None:
    db.run("DELETE FROM s3_objects WHERE id = ?", object_id)


def page(db: Database, bucket_id: int, start: str, inclusive: bool, end: str | None, limit: int) -> list[sqlite3.Row]:
    """Object heads in key order from `start`, below `end`."""
    compare = ">=" if inclusive else ">"
    bound = "" if end is None else " AND key < ?"
    values = (bucket_id, start) if end is None else (bucket_id, start, end)
    return db.all(
        f"SELECT {_HEAD} FROM s3_objects WHERE bucket = ? AND key {compare} ?{bound} ORDER BY key LIMIT ?",
        *values, limit,
    )  # fmt: skip


def stored(row: sqlite3.Row) -> Stored:
    return _stored(row)


def blob_is_named(db: Database, name: str) -> bool:
    return (
        db.one("SELECT 1 FROM s3_objects WHERE blob = ?", name) is not None
        or db.one("SELECT 1 FROM s3_parts WHERE blob = ?", name) is not None
    )


# -- multipart uploads ----------------------------------------------------------------------------------------------


def add_upload(db: Database, upload: Upload) -> None:
    db.run("INSERT INTO s3_uploads VALUES (?, ?, ?, ?, ?)", *upload[:4], encode(upload.attributes))


def upload(db: Database, upload_id: str) -> Upload | None:
    row = db.one("SELECT id, bucket, key, initiated, attributes FROM s3_uploads WHERE id = ?", upload_id)
    return None if row is None else Upload(row[0], row[1], row[2], row[3], _DECODER.decode(row[4]))


def uploads(db: Database, bucket_id: int, prefix: str, key: str, after_id: str, limit: int) -> list[Upload]:
    """In (key, initiated) order after the marker; an empty `after_id` skips the marker's key altogether."""
    rows = db.all(
        "SELECT id, bucket, key, initiated, attributes FROM s3_uploads"
        " WHERE bucket = ? AND substr(key, 1, ?) = ? AND (key > ? OR (key = ? AND ? != '' AND id > ?))"
        " ORDER BY key, id LIMIT ?",
        bucket_id, len(prefix), prefix, key, key, after_id, after_id, limit,
    )  # fmt: skip
    return [Upload(row[0], row[1], row[2], row[3], _DECODER.decode(row[4])) for row in rows]


def delete_upload(db: Database, upload_id: str) -> list[str]:
    """Forget an upload and its parts; returns the blobs they held."""
    names = [row[0] for row in db.all("SELECT blob FROM s3_parts WHERE upload = ? AND blob IS NOT NULL", upload_id)]
    db.run("DELETE FROM s3_uploads WHERE id = ?", upload_id)
    return names


def part(db: Database, upload_id: str, number: int) -> Part | None:
    row = db.one(
        "SELECT number, size, etag, modified, checksum, blob FROM s3_parts WHERE upload = ? AND number = ?",
        upload_id, number,
    )  # fmt: skip
    return None if row is None else Part(*row)


def parts(db: Database, upload_id: str, after: int = 0, limit: int = 10_000) -> list[Part]:
    rows = db.all(
        "SELECT number, size, etag, modified, checksum, blob FROM s3_parts"
        " WHERE upload = ? AND number > ? ORDER BY number LIMIT ?",
        upload_id, after, limit,
    )  # fmt: skip
    return [Part(*row) for row in rows]


def part_body(db: Database, upload_id: str, number: int) -> bytes:
    return db.value("SELECT body FROM s3_parts WHERE upload = ? AND number = ?", upload_id, number)


def put_part(db: Database, upload_id: str, part: Part, content: bytes | None) -> None:
    db.run("INSERT OR REPLACE INTO s3_parts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", upload_id, *part, content)

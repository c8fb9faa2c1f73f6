"""A folder of documents -> the stack's bucket: changed files are uploaded, removed ones deleted, then the command waits
until the index has caught up."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preheat.cli.clients import Platform, fail

SUFFIXES = frozenset((".md", ".markdown", ".txt", ".html", ".htm", ".pdf"))
POLL_S = 0.05
PATIENCE_S = 1_800


@dataclass(frozen=True, slots=True)
class Changes:
    """`upload` maps keys to files; `remove` are keys whose files are gone; `same` counts those left alone."""

    upload: dict[str, Path]
    remove: list[str]
    same: int


@dataclass(slots=True)
class Ingested:
    """How the documents fared: `failed` maps a key to its reason, `lexical` those without vectors to theirs."""

    indexed: int
    failed: dict[str, str]
    lexical: dict[str, str]


def documents_in(folder: Path) -> dict[str, Path]:
    """Every document below a folder (or the one file), by its key."""
    if folder.is_file():
        return {folder.name: folder}
    if not folder.is_dir():
        fail(f"there is no folder {folder}; give --docs a folder of {', '.join(sorted(SUFFIXES))} files")
    found = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inner.parts)
        if path.is_file() and path.suffix.lower() in SUFFIXES and not hidden:
            found[inner.as_posix()] = path
    if not found:
        fail(f"no documents in {folder}; it takes {', '.join(sorted(SUFFIXES))} files")
    return found


def compare(platform: Platform, bucket: str, files: dict[str, Path]) -> Changes:
    """What must change in the bucket so that it holds just these files."""
    held: dict[str, str] = {}
    for page in platform.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket):
        held |= {one["Key"]: one["ETag"].strip('"') for one in page.get("Contents", [])}
    upload = {key: path for key, path in files.items() if held.get(key) != _md5(path)}
    return Changes(upload, [key for key in held if key not in files], len(files) - len(upload))


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def upload(platform: Platform, bucket: str, changes: Changes, on_done: Callable[[str], None]) -> dict[str, str]:
    """Apply the changes; the ETag of each uploaded key ("" for a removed one)."""
    s3 = platform.client("s3")
    expected: dict[str, str] = {}
    for key, path in changes.upload.items():
        expected[key] = s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())["ETag"]
        on_done(key)
    for key in changes.remove:
        s3.delete_object(Bucket=bucket, Key=key)
        expected[key] = ""
        on_done(key)
    return expected


def wait_indexed(
    platform: Platform, table: str, expected: dict[str, str], on_done: Callable[[str], None]
) -> Ingested:
    """Wait until each document's state in the table agrees with its upload."""
    result = Ingested(0, {}, {})
    left = dict(expected)
    end = time.monotonic() + PATIENCE_S
    while left:
        for key, row in _rows(platform, table, list(left)).items():
            status = row.get("status", {}).get("S")
            if row.get("etag", {}).get("S") != left[key]:
                continue
            if status == "failed":
                result.failed[key] = row.get("reason", {}).get("S", "unknown")
            elif status in ("indexed", "deleted"):
                result.indexed += 1
                if row.get("note", {}).get("S"):
                    result.lexical[key] = row["note"]["S"]
            else:
                continue
            del left[key]
            on_done(key)
        if left and time.monotonic() > end:
            result.failed |= dict.fromkeys(left, "not indexed in time; see `preheat dlq` and `preheat logs`")
            return result
        if left:
            time.sleep(POLL_S)
    return result


def _rows(platform: Platform, table: str, keys: list[str]) -> dict[str, dict[str, Any]]:
    client = platform.client("dynamodb")
    found: dict[str, dict[str, Any]] = {}
    for at in range(0, min(len(keys), 1_000), 100):
        wanted = [{"document": {"S": key}} for key in keys[at : at + 100]]
        reply = client.batch_get_item(RequestItems={table: {"Keys": wanted, "ConsistentRead": True}})
        found |= {row["document"]["S"]: row for row in reply["Responses"].get(table, [])}
    return found

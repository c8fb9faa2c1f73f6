"""A folder of documents -> the stack's bucket: changed files are uploaded, removed ones deleted, then the command waits
until the index has caught up."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preheat.cli.clients import Platform, fail

SUFFIXES = frozenset((".md", ".markdown", ".txt", ".html", ".htm", ".pdf"))
POLL_S = 0.05
PATIENCE_S = 1_800
STUCK_S = 30
"""Without a document more in the new index for so long, a rebuild is not waited for."""
ASKED = 1_000

OnRow = Callable[[str, bool, str], None]
"""Takes a document's key, whether it is finished, and why not."""


@dataclass(frozen=True, slots=True)
class Changes:
    """`upload` maps keys to files; `remove` are keys whose files are gone; `same` are those left alone, `failed` those
    of them that could not be indexed, with the reason; `stamps` tell a document's state in the table from a later."""

    upload: dict[str, Path]
    remove: list[str]
    same: list[str]
    failed: dict[str, str]
    stamps: dict[str, str]


@dataclass(slots=True)
class Ingested:
    """How the documents fared: `indexed` documents with `passages` together; `failed` maps a key to its reason, `notes`
    to what is to be known of an indexed one."""

    indexed: int
    passages: int
    failed: dict[str, str]
    notes: dict[str, str]


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


def title_of(files: dict[str, Path]) -> str:
    """What the first document is about: its first Markdown heading, else its name."""
    path = next(iter(files.values()))
    if path.suffix.lower() in (".md", ".markdown"):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("# ") and line[2:].strip():
                return line[2:].strip()
    return path.stem.replace("_", " ").replace("-", " ")


def compare(platform: Platform, bucket: str, table: str, files: dict[str, Path]) -> Changes:
    """What must be sent so that the bucket holds just these files: those that changed, and those that are gone."""
    held: dict[str, str] = {}
    for page in platform.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket):
        held |= {one["Key"]: one["ETag"] for one in page.get("Contents", [])}
    rows = _rows(platform, table, list(files | held))
    stamps = {key: row.get("updated_ms", "") for key, row in rows.items()}
    changes = Changes({}, [key for key in held if key not in files], [], {}, stamps)
    for key, path in files.items():
        row = rows.get(key, {})
        current = held.get(key) == f'"{_md5(path)}"' == row.get("etag")
        if current and row["status"] == "failed":
            changes.failed[key] = row["reason"]
        if current:
            changes.same.append(key)
        else:
            changes.upload[key] = path
    return changes


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
    platform: Platform, table: str, expected: dict[str, str], stamps: dict[str, str], on_row: OnRow
) -> Ingested:
    """Wait until each document's state in the table is that of its upload."""
    result = Ingested(0, 0, {}, {})
    left = dict(expected)
    end = time.monotonic() + PATIENCE_S
    while left:
        for key, row in _rows(platform, table, list(left)[:ASKED]).items():
            if row["etag"] != left[key] or row.get("updated_ms", "") == stamps.get(key):
                continue
            if row["status"] == "retrying":
                on_row(key, False, row["reason"])
                continue
            if row["status"] == "failed":
                result.failed[key] = row["reason"]
            else:
                result.indexed += 1
                result.passages += int(row["chunks"])
                if row.get("note"):
                    result.notes[key] = row["note"]
            del left[key]
            on_row(key, True, "")
        if left and time.monotonic() > end:
            result.failed |= dict.fromkeys(left, "not indexed in time; see `preheat dlq` and `preheat logs`")
            return result
        if left:
            time.sleep(POLL_S)
    return result


def await_live(platform: Platform, outputs: dict[str, str], keys: list[str], on_count: Callable[[int], None]) -> str:
    """Wait until the index of the stack's recipe answers; what is to be said when it does not yet."""
    recipe, table = outputs["IndexRecipe"], outputs["DocumentsTableName"]
    count, end = -1, time.monotonic() + STUCK_S
    while not _is_live(platform, outputs["SettingsTableName"], recipe):
        rows = [row for row in _rows(platform, table, keys).values() if row["status"] != "failed"]
        outside = [row for row in rows if recipe not in row.get("recipes", {})]
        if len(rows) - len(outside) != count:
            count, end = len(rows) - len(outside), time.monotonic() + STUCK_S
            on_count(count)
        if time.monotonic() > end:
            reasons = [row.get("note") or row.get("reason") for row in outside]
            reason = next((f": {reason}" for reason in reasons if reason), "")
            return f"the index of the new settings is not complete and the old one answers still{reason}"
        time.sleep(POLL_S)
    return ""


def _is_live(platform: Platform, table: str, recipe: str) -> bool:
    key = {"id": {"S": "index"}}
    item = platform.client("dynamodb").get_item(TableName=table, Key=key, ConsistentRead=True).get("Item", {})
    return item.get("live", {}).get("M", {}).get("id", {}).get("S") == recipe


def _rows(platform: Platform, table: str, keys: list[str]) -> dict[str, dict[str, str]]:
    """The table's rows by document, every value as text."""
    client = platform.client("dynamodb")
    found: dict[str, dict[str, str]] = {}
    for at in range(0, len(keys), 100):
        wanted = [{"document": {"S": key}} for key in keys[at : at + 100]]
        reply = client.batch_get_item(RequestItems={table: {"Keys": wanted, "ConsistentRead": True}})
        for row in reply["Responses"].get(table, []):
            plain = {name: next(iter(value.values())) for name, value in row.items()}
            found[plain["document"]] = plain
    return found

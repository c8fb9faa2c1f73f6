"""A folder of documents -> the stack's bucket: changed files are uploaded, removed ones deleted, while the command
waits until the index has caught up. It goes on where it stopped: what is uploaded already is only waited for."""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

from preheat.cli.clients import Platform, fail

SUFFIXES = frozenset(
    (
        ".md", ".markdown", ".mdx", ".html", ".htm", ".xhtml", ".txt", ".text", ".log", ".pdf", ".docx", ".xml",
        ".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".rst", ".adoc", ".asciidoc",
        ".py", ".pyi", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".java", ".kt", ".scala", ".go", ".rs", ".c", ".h",
        ".cc", ".cpp", ".hpp", ".cs", ".rb", ".php", ".swift", ".lua", ".r", ".sh", ".bash", ".zsh", ".ps1", ".sql",
        ".yaml", ".yml", ".toml", ".ini", ".cfg", ".tf", ".proto", ".graphql", ".css", ".scss",
    )
)  # fmt: skip
"""What stacks/rag reads."""
KINDS = ".md, .txt, .html, .pdf, .docx, .csv, .json, source code and the like"
LEFT_OUT = frozenset(("node_modules", "__pycache__"))
UPLOADS_AT_ONCE = 8
FIRST_POLL_S, LONGEST_POLL_S = 0.05, 0.5
POLL_SHARE = 3
"""A pause is at least so many times what the poll before it took, so that polling slows nothing down."""
IDLE_S = 5.0
"""With nothing done for so long and nothing waiting in the queue, outstanding documents are asked for again: their
messages may be those of a server that was killed, which nobody sees until their visibility timeout. The next time it is
twice as long."""
PATIENCE_S = 1_800
STUCK_S = 30
"""Without a document more in the new index for so long, a rebuild is not waited for."""
ASKED = 100

OnRow = Callable[[str, bool, str], None]
"""Takes a document's key, whether it is finished, and why not."""


@dataclass(frozen=True, slots=True)
class Changes:
    """`upload` maps keys to files; `remove` are keys whose files are gone; `same` are those left alone, `failed` those
    of them that could not be indexed, with the reason; `stamps` tell a document's state in the table from a later.
    `sent` maps keys that were uploaded before and are not indexed yet to their ETags."""

    upload: dict[str, Path]
    remove: list[str]
    same: list[str]
    failed: dict[str, str]
    stamps: dict[str, str]
    sent: dict[str, str] = field(default_factory=dict)


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
        fail(f"there is no folder {folder}; give --docs a folder of {KINDS}")
    found = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(part.startswith(".") or part in LEFT_OUT for part in inner.parts)
        if path.is_file() and path.suffix.lower() in SUFFIXES and not hidden:
            found[inner.as_posix()] = path
    if not found:
        fail(f"no documents in {folder}; it takes {KINDS}")
    return found


def title_of(files: dict[str, Path]) -> str:
    """What the first document is about: its first Markdown heading, else its name."""
    path = next(iter(files.values()))
    if path.suffix.lower() in (".md", ".markdown"):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("# ") and line[2:].strip():
                return line[2:].strip()
    return path.stem.replace("_", " ").replace("-", " ")


def compare(
    platform: Platform, bucket: str, table: str, files: dict[str, Path], queue: str | None = None
) -> Changes:
    """What must be sent so that the bucket holds just these files: those that changed, and those that are gone. What
    was sent before and waits in the `queue` is not sent again."""
    held: dict[str, str] = {}
    for page in platform.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket):
        held |= {one["Key"]: one["ETag"] for one in page.get("Contents", [])}
    rows = _rows(platform, table, list(files | held))
    stamps = {key: row.get("updated_ms", "") for key, row in rows.items()}
    changes = Changes({}, [key for key in held if key not in files], [], {}, stamps)
    busy = queue is not None and waiting(platform, queue) > 0
    for key, path in files.items():
        row = rows.get(key, {})
        uploaded = held.get(key) == f'"{_md5(path)}"'
        current = uploaded and held[key] == row.get("etag") and row["status"] != "retrying"
        if current and row["status"] == "failed":
            changes.failed[key] = row["reason"]
        if current:
            changes.same.append(key)
        elif uploaded and busy:
            changes.sent[key] = held[key]
        else:
            changes.upload[key] = path
    return changes


def waiting(platform: Platform, queue: str, *, flying: bool = True) -> int:
    """Messages that wait in a queue, and those in flight."""
    names = ["ApproximateNumberOfMessages", *(["ApproximateNumberOfMessagesNotVisible"] if flying else [])]
    found = platform.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(map(int, found.values()))


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class Upload:
    """Applies the changes, several at once, while others look on: `expected` maps each key that is done to its ETag (""
    for a removed one). `on_done` is called from other threads."""

    def __init__(self, platform: Platform, bucket: str, changes: Changes, on_done: Callable[[str], None]) -> None:
        self.expected: dict[str, str] = dict(changes.sent)
        self.error: BaseException | None = None
        self._s3 = platform.client("s3")
        self._bucket, self._changes, self._on_done = bucket, changes, on_done
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def finished(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            tasks = [pool.submit(self._put, key, path) for key, path in self._changes.upload.items()]
            tasks += [pool.submit(self._delete, key) for key in self._changes.remove]
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            self.error = next((task.exception() for task in done if task.exception()), None)
            self._stopped = self._stopped or self.error is not None

    def _put(self, key: str, path: Path) -> None:
        if not self._stopped:
            self.expected[key] = self._s3.put_object(Bucket=self._bucket, Key=key, Body=path.read_bytes())["ETag"]
            self._on_done(key)

    def _delete(self, key: str) -> None:
        if not self._stopped:
            self._s3.delete_object(Bucket=self._bucket, Key=key)
            self.expected[key] = ""
            self._on_done(key)


class Watch:
    """Follows the documents' rows until each is that of its upload."""

    def __init__(self, platform: Platform, table: str, stamps: dict[str, str], on_row: OnRow) -> None:
        self.result = Ingested(0, 0, {}, {})
        self._platform, self._table, self._stamps, self._on_row = platform, table, stamps, on_row
        self._known: set[str] = set()
        self._left: dict[str, str] = {}
        self._retried: set[str] = set()

    def wait(self, upload: Upload, again: Callable[[list[str]], None]) -> Ingested:
        """`again` is told the keys that are outstanding when nothing was done for a while, those aside that failed and
        come again by themselves. Raises what the upload failed with."""
        idle_s = IDLE_S
        end, moved, pause = time.monotonic() + PATIENCE_S, time.monotonic(), FIRST_POLL_S
        while True:
            finished = upload.finished
            if upload.error is not None:
                raise upload.error
            for key in [key for key in list(upload.expected) if key not in self._known]:
                self._known.add(key)
                self._left[key] = upload.expected[key]
            if finished and not self._left:
                return self.result
            began = time.monotonic()
            if self._poll():
                end, moved, pause = began + PATIENCE_S, began, FIRST_POLL_S
            else:
                pause = min(LONGEST_POLL_S, 1.5 * pause)
            if began > end:
                told = "not indexed in time; see `preheat dlq` and `preheat logs`"
                self.result.failed |= dict.fromkeys(self._left, told)
                return self.result
            if finished and began - moved > idle_s:
                again([key for key in self._left if key not in self._retried])
                moved, idle_s = began, 2 * idle_s
            if self._left or not finished:
                time.sleep(max(pause, POLL_SHARE * (time.monotonic() - began)))

    def _poll(self) -> bool:
        """Look at those that should be done next; True when some are. As long as all of a page are done, there may be
        more."""
        some = False
        while page := list(self._left)[:ASKED]:
            rows = _rows(self._platform, self._table, page)
            done = [key for key in page if self._done(key, rows.get(key))]
            for key in done:
                del self._left[key]
                self._on_row(key, True, "")
            some = some or bool(done)
            if len(done) < len(page):
                break
        return some

    def _done(self, key: str, row: dict[str, str] | None) -> bool:
        if row is None or row["etag"] != self._left[key] or row.get("updated_ms", "") == self._stamps.get(key):
            return False
        if row["status"] == "retrying":
            self._left[key] = self._left.pop(key)
            self._retried.add(key)
            self._on_row(key, False, row["reason"])
            return False
        if row["status"] == "failed":
            self.result.failed[key] = row["reason"]
            return True
        self.result.indexed += 1
        self.result.passages += int(row["chunks"])
        if row.get("note"):
            self.result.notes[key] = row["note"]
        return True


def bring(
    platform: Platform,
    bucket: str,
    table: str,
    changes: Changes,
    on_sent: Callable[[str], None],
    on_row: OnRow,
    again: Callable[[list[str]], None],
) -> Ingested:
    """Send the changes and wait until they are indexed. Ends the command with one line when the platform is gone."""
    from botocore.exceptions import EndpointConnectionError, HTTPClientError

    upload = Upload(platform, bucket, changes, on_sent)
    try:
        return Watch(platform, table, changes.stamps, on_row).wait(upload, again)
    except (EndpointConnectionError, HTTPClientError) as error:
        fail(f"the platform does not answer any more ({error}); run this again and it goes on where it stopped")
    finally:
        upload.stop()


def ask_again(platform: Platform, queue: str, bucket: str, keys: list[str]) -> None:
    """Have documents looked at that no message is about, as if S3 told of them."""
    for at in range(0, len(keys), 10):
        entries = []
        for number, key in enumerate(keys[at : at + 10]):
            place = {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}}
            record = {"eventName": "Ingest", "s3": place}
            entries.append({"Id": str(number), "MessageBody": json.dumps({"Records": [record]})})
        platform.client("sqs").send_message_batch(QueueUrl=queue, Entries=entries)


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
        time.sleep(FIRST_POLL_S)
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

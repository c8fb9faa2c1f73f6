"""S3 events from the queue -> the index. What lies in the bucket now is what is indexed: events may come late, twice or
out of order.

The documents table says how each fared: indexed, deleted, retrying (an attempt failed for now), failed (it cannot be
read, or the last attempt failed), with the reason. What failed ends in the dead-letter queue; a document that cannot be
read has no chunks."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError
from ragkit.asked import PUBLIC
from ragkit.chunking import chunk
from ragkit.embed import NO_MODEL, EmbeddingUnavailable
from ragkit.extract import Document, UnreadableFile, UnsupportedFormat, extract, supported
from ragkit.versions import Recipe

from handlers import wiring

TRANSIENT = frozenset(
    ("ThrottlingException", "ServiceUnavailableException", "ModelTimeoutException", "InternalServerException",
     "ModelNotReadyException")
)  # fmt: skip
LONGEST_FILE = 50 * 1024 * 1024
CHANGES = 3
LONGEST_REASON = 1_000
MOST_ATTRIBUTES = 10
RESERVED = frozenset(
    ("labels", "document", "number", "title", "page", "digest", "model", "context", "text")
)  # fmt: skip
"""Metadata of an object that is not for filtering: what the index keeps itself."""

wiring.prepare("s3", "s3vectors", "bedrock-runtime", "dynamodb")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failures = []
    for record in event["Records"]:
        attempt = int(record["attributes"]["ApproximateReceiveCount"])
        try:
            for bucket, key in _changed(json.loads(record["body"])):
                refresh(bucket, key, attempt >= int(os.environ["MAX_RECEIVES"]))
        except Exception as error:
            print(json.dumps({"level": "ERROR", "message": "ingest failed", "messageId": record["messageId"],
                              "attempt": attempt, "error": f"{type(error).__name__}: {error}"}))  # fmt: skip
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def _changed(notification: dict[str, Any]) -> list[tuple[str, str]]:
    """(bucket, key) of every object that a notification names; S3's test event names none."""
    return [
        (record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
        for record in notification.get("Records", [])
    ]


def refresh(bucket: str, key: str, last: bool = False) -> None:
    """Make every index agree with the object. Repeated when the object changed meanwhile. `last`: there is no further
    attempt after this one."""
    recipes = wiring.registry().fresh().filled
    for _ in range(CHANGES):
        found = _read(bucket, key)
        try:
            details, trouble = _index_all(key, found, recipes)
        except (UnsupportedFormat, UnreadableFile) as error:
            gone = wiring.store(recipes[0]).delete(key)
            for recipe in recipes[1:]:
                wiring.store(recipe).delete(key)
            _note(key, found, status="failed", reason=str(error)[:LONGEST_REASON], chunks=0, deleted=gone,
                  recipes={recipe.id: found.tag for recipe in recipes})  # fmt: skip
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            _note(key, found, status="failed" if last else "retrying", reason=reason)
            raise
        if _version(bucket, key) == found.version:
            _note(key, found, **details)
            if trouble is not None:
                raise trouble
            return
    raise RuntimeError(f"{key} keeps changing while it is indexed")


def _index_all(
    key: str, found: "Found", recipes: Sequence[Recipe]
) -> tuple[dict[str, Any], EmbeddingUnavailable | None]:
    """What was done in the newest index, for the documents table; and why the message must come again although
    words can be searched already: the model failed in a way that passes."""
    if found.data is None:
        gone = [wiring.store(recipe).delete(key) for recipe in recipes]
        return {"status": "deleted", "chunks": 0, "deleted": gone[0]}, None
    if not supported(key):
        raise UnsupportedFormat(f"{key}: only .md, .txt, .html, .pdf and their kin are read")
    if len(found.data) > LONGEST_FILE:
        raise UnreadableFile(f"{key}: {len(found.data)} bytes; the most is {LONGEST_FILE}")
    document = extract(key, found.data)
    done = {recipe.id: _index(document, found, recipe) for recipe in recipes}
    details = done[recipes[-1].id][0]
    trouble = next((late for _, _, late in done.values() if late is not None), None)
    made = {name: found.tag for name, (_, whole, _) in done.items() if whole}
    return {**details, "recipes": made}, trouble


def _index(
    document: Document, found: "Found", recipe: Recipe
) -> tuple[dict[str, Any], bool, EmbeddingUnavailable | None]:
    """What was done in this recipe's index, whether it is all that can be done, and what may pass."""
    store, embedder = wiring.store(recipe), wiring.embedder(recipe)
    chunks = chunk(document, recipe.sizes, found.labels, found.attributes)
    note, trouble, whole, used = "" if chunks else "there is no text in it", None, True, embedder.model
    try:
        stored = store.replace(document.key, chunks, None if used == NO_MODEL else embedder.documents, used)
    except EmbeddingUnavailable as error:
        note, used = f"indexed for lexical search only: {error}"[:LONGEST_REASON], NO_MODEL
        print(json.dumps({"level": "WARN", "message": note, "document": document.key}))
        stored = store.replace(document.key, chunks, None, NO_MODEL)
        trouble = error if _code(error) in TRANSIENT else None
        whole = _code(error) == "ValidationException"
    return {
        "status": "indexed", "chunks": len(chunks), "written": stored.written, "unchanged": stored.unchanged,
        "deleted": stored.deleted, "model": used, "note": note,
    }, whole, trouble  # fmt: skip


@dataclass(frozen=True)
class Found:
    """An object as it is: `data` None and `tag` "" when it is gone. The metadata `labels`, parted by commas, says who
    may see it; other metadata are attributes."""

    tag: str = ""
    data: bytes | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        return self.tag, self.metadata

    @property
    def labels(self) -> tuple[str, ...]:
        given = dict(self.metadata).get("labels", "").split(",")
        return tuple(sorted({one.strip() for one in given if one.strip()})) or (PUBLIC,)

    @property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        return tuple((name, value) for name, value in self.metadata if name not in RESERVED)[:MOST_ATTRIBUTES]


def _code(error: EmbeddingUnavailable) -> str:
    cause = error.__cause__
    return cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""


def _read(bucket: str, key: str) -> Found:
    try:
        found = wiring.client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return Found()
        raise
    return Found(found["ETag"], found["Body"].read(), tuple(sorted(found["Metadata"].items())))


def _version(bucket: str, key: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    try:
        found = wiring.client("s3").head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return Found().version
        raise
    return Found(found["ETag"], metadata=tuple(sorted(found["Metadata"].items()))).version


def _note(key: str, found: Found, **details: Any) -> None:
    now_ms = time.time_ns() // 1_000_000
    item = {"document": key, "updated_ms": now_ms, "etag": found.tag, "labels": list(found.labels), **details}
    wiring.table("DOCUMENTS_TABLE").put_item(Item=item)

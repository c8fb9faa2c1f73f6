"""S3 events from the queue -> the index. What lies in the bucket now is what is indexed: events may come late, twice or
out of order.

The documents table says how each fared: indexed, deleted, retrying (an attempt failed for now), failed (it cannot be
read, or the last attempt failed), with the reason. What failed ends in the dead-letter queue; a document that cannot be
read has no chunks."""

import json
import os
import time
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError
from ragkit.chunking import chunk
from ragkit.embed import NO_MODEL, EmbeddingUnavailable
from ragkit.extract import UnreadableFile, UnsupportedFormat, extract, supported

from handlers import wiring

TRANSIENT = frozenset(
    ("ThrottlingException", "ServiceUnavailableException", "ModelTimeoutException", "InternalServerException",
     "ModelNotReadyException")
)  # fmt: skip
LONGEST_FILE = 50 * 1024 * 1024
CHANGES = 3
LONGEST_REASON = 1_000

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
    """Make the index agree with the object. Repeated when the object changed meanwhile. `last`: there is no further
    attempt after this one."""
    for _ in range(CHANGES):
        tag, data = _read(bucket, key)
        try:
            details, trouble = _index(key, data)
        except (UnsupportedFormat, UnreadableFile) as error:
            gone = wiring.store().delete(key)
            _note(key, status="failed", etag=tag, reason=str(error)[:LONGEST_REASON], chunks=0, deleted=gone)
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            _note(key, status="failed" if last else "retrying", etag=tag, reason=reason)
            raise
        if _tag(bucket, key) == tag:
            _note(key, etag=tag, **details)
            if trouble is not None:
                raise trouble
            return
    raise RuntimeError(f"{key} keeps changing while it is indexed")


def _index(key: str, data: bytes | None) -> tuple[dict[str, Any], EmbeddingUnavailable | None]:
    """What was done, for the documents table; and why the message must come again although words can be searched
    already: the model failed in a way that passes."""
    store = wiring.store()
    if data is None:
        return {"status": "deleted", "chunks": 0, "deleted": store.delete(key)}, None
    if not supported(key):
        raise UnsupportedFormat(f"{key}: only .md, .txt, .html, .pdf and their kin are read")
    if len(data) > LONGEST_FILE:
        raise UnreadableFile(f"{key}: {len(data)} bytes; the most is {LONGEST_FILE}")
    chunks = chunk(extract(key, data))
    embedder = wiring.embedder()
    note, trouble, used = "" if chunks else "there is no text in it", None, embedder.model
    try:
        stored = store.replace(key, chunks, None if used == NO_MODEL else embedder.documents, used)
    except EmbeddingUnavailable as error:
        note, used = f"indexed for lexical search only: {error}"[:LONGEST_REASON], NO_MODEL
        print(json.dumps({"level": "WARN", "message": note, "document": key}))
        stored = store.replace(key, chunks, None, NO_MODEL)
        trouble = error if _code(error) in TRANSIENT else None
    return {
        "status": "indexed", "chunks": len(chunks), "written": stored.written, "unchanged": stored.unchanged,
        "deleted": stored.deleted, "model": used, "note": note,
    }, trouble  # fmt: skip


def _code(error: EmbeddingUnavailable) -> str:
    cause = error.__cause__
    return cause.response["Error"]["Code"] if isinstance(cause, ClientError) else ""


def _read(bucket: str, key: str) -> tuple[str, bytes | None]:
    """(ETag, content); ("", None) when the object is gone."""
    try:
        found = wiring.client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return "", None
        raise
    return found["ETag"], found["Body"].read()


def _tag(bucket: str, key: str) -> str:
    try:
        return wiring.client("s3").head_object(Bucket=bucket, Key=key)["ETag"]
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return ""
        raise


def _note(key: str, **details: Any) -> None:
    item = {"document": key, "updated_ms": time.time_ns() // 1_000_000, **details}
    wiring.table("DOCUMENTS_TABLE").put_item(Item=item)

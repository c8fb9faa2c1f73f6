"""S3 events from the queue -> the index. What lies in the bucket now is what is indexed: events may come late, twice or
out of order.

The documents of one batch go together: read side by side, embedded in calls as large as the model takes, written
together. One that fails, fails alone. The model is called once at a time in each environment, so that all of them
together stay within the mapping's MaximumConcurrency.

The documents table says how each fared: indexed, deleted, retrying (an attempt failed for now), failed (it cannot be
read, or the last attempt failed), with the reason. What failed ends in the dead-letter queue; a document that cannot be
read has no chunks."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from botocore.exceptions import ClientError
from ragkit.asked import PUBLIC
from ragkit.chunking import Chunk, chunk
from ragkit.embed import NO_MODEL, EmbeddingUnavailable, code
from ragkit.extract import Document, UnreadableFile, UnsupportedFormat, extract, supported
from ragkit.resilience import Deadline, Refused, transient
from ragkit.store import Stored
from ragkit.versions import Recipe

from handlers import wiring
from handlers.documents import found_of

LONGEST_FILE = 50 * 1024 * 1024
CHANGES = 3
LONGEST_REASON = 1_000
MOST_ATTRIBUTES = 10
READERS = 4
MARGIN_S = 130.0
"""What one call of the model, made twice, the writing and the notes may take: no call is begun later than that."""
RESERVED = frozenset(
    ("labels", "document", "number", "title", "page", "digest", "content", "model", "context", "text")
)  # fmt: skip
"""Metadata of an object that is not for filtering: what the index keeps itself."""

wiring.prepare("s3", "s3vectors", "bedrock-runtime", "dynamodb", "sqs")

Outcomes = dict[str, Exception | None]


class OutOfTime(Exception):
    """The documents go on with another message."""


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


@dataclass
class Done:
    """What became of a document: `details` for its row, `error` that its message must come again for."""

    details: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    final: bool = False
    """Nothing changes this, however often it is tried."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    asked: dict[str, list[tuple[str, str]]] = {}
    attempts: dict[str, int] = {}
    errors: dict[str, Exception] = {}
    for record in event["Records"]:
        id = record["messageId"]
        attempts[id] = int(record["attributes"]["ApproximateReceiveCount"])
        try:
            asked[id] = _changed(json.loads(record["body"]))
        except Exception as error:
            errors[id] = error
    if any(count > 1 for count in attempts.values()):
        # What an attempt changed before it was killed, it may have told nobody.
        wiring.epoch().begin()
    most = int(os.environ["MAX_RECEIVES"])
    last = {key for id, places in asked.items() for _, key in places if attempts[id] >= most}
    deadline = Deadline(context.get_remaining_time_in_millis, MARGIN_S)
    for bucket in {bucket for places in asked.values() for bucket, _ in places}:
        keys = list(dict.fromkeys(key for places in asked.values() for where, key in places if where == bucket))
        outcomes = refresh(bucket, keys, last, deadline)
        for id, places in asked.items():
            for where, key in places:
                error = outcomes[key] if where == bucket else None
                if error is not None:
                    errors.setdefault(id, error)
    for id, error in errors.items():
        print(json.dumps({"level": "ERROR", "message": "ingest failed", "messageId": id, "attempt": attempts[id],
                          "error": f"{type(error).__name__}: {error}"}))  # fmt: skip
    return {"batchItemFailures": [{"itemIdentifier": id} for id in errors]}


def _changed(notification: dict[str, Any]) -> list[tuple[str, str]]:
    """(bucket, key) of every object that a notification names; S3's test event names none."""
    return [
        (record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
        for record in notification.get("Records", [])
    ]


def refresh(bucket: str, keys: Sequence[str], last: Iterable[str], deadline: Deadline) -> Outcomes:
    """Make every index agree with these objects, and say for each why its message must come again, None when it need
    not. Repeated for those that changed meanwhile. `last`: keys for which there is no further attempt."""
    outcomes: Outcomes = {}
    rows: list[dict[str, Any]] = []
    waiting = list(keys)
    try:
        recipes = wiring.registry().fresh().filled
        for _ in range(CHANGES):
            found = dict(zip(waiting, readers().map(lambda key: _tried(_read, bucket, key), waiting)))
            done = _index_all(found, recipes, deadline)
            settled = [key for key in waiting if done[key].error is None or not done[key].final]
            held = dict(zip(settled, readers().map(lambda key: _tried(_version, bucket, key), settled)))
            for key in waiting:
                one, now = done[key], held.get(key)
                if one.error is None and isinstance(now, Exception):
                    one.error = now
                if one.error is None and isinstance(found[key], Found) and now != found[key].version:
                    continue
                outcomes[key] = one.error
                rows.append(_row(key, found[key], one, key in last))
            waiting = [key for key in waiting if key not in outcomes]
            if not waiting:
                break
    except Exception as error:
        outcomes |= {key: error for key in keys if key not in outcomes}
    for key in waiting:
        outcomes.setdefault(key, RuntimeError(f"{key} keeps changing while it is indexed"))
    _again(bucket, [key for key in keys if isinstance(outcomes[key], OutOfTime)], outcomes)
    _note(rows)
    return outcomes


def _tried(call: Callable[..., Any], *given: Any) -> Any:
    """What the call gives, or its error."""
    try:
        return call(*given)
    except Exception as error:
        return error


# -- indexing ---------------------------------------------------------------------------------------------------------


def _index_all(found: Mapping[str, Any], recipes: Sequence[Recipe], deadline: Deadline) -> dict[str, Done]:
    done = {key: Done(error=one) for key, one in found.items() if isinstance(one, Exception)}
    documents: dict[str, Document] = {}
    for key, one in found.items():
        if key in done:
            continue
        if one.data is None:
            done[key] = _removed(key, recipes, {"status": "deleted"})
            continue
        try:
            documents[key] = _document(key, one)
        except (UnsupportedFormat, UnreadableFile) as error:
            done[key] = _unreadable(key, one, recipes, error)
    for recipe in recipes:
        wanted: dict[str, list[Chunk]] = {}
        for key, document in documents.items():
            if key in done and done[key].final:
                continue
            try:
                wanted[key] = chunk(document, recipe.sizes, found[key].labels, found[key].attributes)
            except UnreadableFile as error:
                done[key] = _unreadable(key, found[key], recipes, error)
        for key, one in _index(recipe, wanted, found, deadline).items():
            before = done.get(key, Done({"recipes": {}}))
            made = {**before.details.get("recipes", {}), **one.details.pop("recipes", {})}
            done[key] = Done({**before.details, **one.details, "recipes": made}, before.error or one.error)
    return done


def _document(key: str, found: Found) -> Document:
    if not supported(key):
        raise UnsupportedFormat(f"{key}: files of this kind are not read")
    if found.data is None or len(found.data) > LONGEST_FILE:
        raise UnreadableFile(f"{key}: {len(found.data or b'')} bytes; the most is {LONGEST_FILE}")
    try:
        return extract(key, found.data)
    except RecursionError:
        raise UnreadableFile(f"{key}: nested too deep") from None


def _removed(key: str, recipes: Sequence[Recipe], details: dict[str, Any]) -> Done:
    """The document leaves every index."""
    try:
        gone = [wiring.store(recipe).delete(key) for recipe in recipes]
    except Exception as error:
        return Done(error=error)
    return Done({**details, "chunks": 0, "deleted": gone[0]})


def _unreadable(key: str, found: Found, recipes: Sequence[Recipe], error: Exception) -> Done:
    made = {recipe.id: found.tag for recipe in recipes}
    done = _removed(key, recipes, {"status": "failed", "reason": str(error)[:LONGEST_REASON], "recipes": made})
    return done if done.error else Done(done.details, error, final=True)


def _index(
    recipe: Recipe, wanted: Mapping[str, list[Chunk]], found: Mapping[str, Found], deadline: Deadline
) -> dict[str, Done]:
    """All of them together; where that fails, each for itself, so that one does not hold up the others."""
    if not wanted:
        return {}
    embed = None if recipe.model in ("", NO_MODEL) else _timely(recipe, deadline)
    together = _tried(wiring.store(recipe).replace_all, wanted, embed, recipe.model)
    if not isinstance(together, Exception):
        return {key: _indexed(recipe, wanted[key], found[key], together[key]) for key in wanted}
    if isinstance(together, OutOfTime):
        return dict.fromkeys(wanted, Done(error=together))
    known = together if isinstance(together, EmbeddingUnavailable) and _passing(together) else None
    return {key: _alone(recipe, key, wanted[key], found[key], embed, known) for key in wanted}


def _timely(recipe: Recipe, deadline: Deadline) -> Callable[[list[str]], list[list[float]]]:
    """The embedder's `documents`, which begins no call when there is not the time for it, but the first."""
    embedder, calls = wiring.embedder(recipe), 0

    def embed(texts: list[str]) -> list[list[float]]:
        nonlocal calls
        if calls and deadline.passed():
            raise OutOfTime("there was no time for all of it at once")
        calls += 1
        return embedder.documents(texts)

    return embed


def _alone(
    recipe: Recipe, key: str, chunks: list[Chunk], found: Found, embed: Any, known: EmbeddingUnavailable | None
) -> Done:
    """One document; by words alone where its embedding fails, or is `known` to fail for now."""
    store = wiring.store(recipe)
    error: Exception | None = known
    if known is None:
        stored = _tried(store.replace_all, {key: chunks}, embed, recipe.model)
        if not isinstance(stored, Exception):
            return _indexed(recipe, chunks, found, stored[key])
        error = stored
    if not isinstance(error, EmbeddingUnavailable):
        return Done(error=error)
    note = f"indexed for lexical search only: {error}"[:LONGEST_REASON]
    print(json.dumps({"level": "WARN", "message": note, "document": key}))
    stored = _tried(store.replace_all, {key: chunks}, None, recipe.model)
    if isinstance(stored, Exception):
        return Done(error=stored)
    done = _indexed(recipe, chunks, found, stored[key], note, code(error) == "ValidationException")
    return Done(done.details, error if _passing(error) else None)


def _passing(error: EmbeddingUnavailable) -> bool:
    return transient(error) or isinstance(error.__cause__, Refused)


def _indexed(
    recipe: Recipe, chunks: Sequence[Chunk], found: Found, stored: Stored, note: str = "", whole: bool = True
) -> Done:
    """`whole`: this is all that can be done in this recipe's index."""
    return Done(
        {
            "status": "indexed", "chunks": len(chunks), "written": stored.written, "unchanged": stored.unchanged,
            "deleted": stored.deleted, "model": NO_MODEL if note else recipe.model or NO_MODEL,
            "note": note or ("" if chunks else "there is no text in it"),
            "recipes": {recipe.id: found.tag} if whole else {},
        }
    )  # fmt: skip


# -- the bucket, the table, the queue ---------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS)


def _read(bucket: str, key: str) -> Found:
    try:
        found = wiring.client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return Found()
        raise
    metadata = tuple(sorted(found["Metadata"].items()))
    if found["ContentLength"] > LONGEST_FILE:
        found["Body"].close()
        return Found(found["ETag"], bytes(LONGEST_FILE + 1), metadata)
    return Found(found["ETag"], found["Body"].read(), metadata)


def _version(bucket: str, key: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    try:
        found = wiring.client("s3").head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return Found().version
        raise
    return Found(found["ETag"], metadata=tuple(sorted(found["Metadata"].items()))).version


def _again(bucket: str, keys: Sequence[str], outcomes: Outcomes) -> None:
    """Ask for documents that there was no time for, by messages that have all their attempts."""
    for key in keys:
        error = _tried(_send, json.dumps(found_of(bucket, key)))
        outcomes[key] = error if isinstance(error, Exception) else None


def _send(body: str) -> None:
    wiring.client("sqs").send_message(QueueUrl=os.environ["INGEST_QUEUE"], MessageBody=body)


def _row(key: str, found: Any, done: Done, last: bool) -> dict[str, Any]:
    """The document's row. An error that passes leaves what was done, where something was."""
    known = found if isinstance(found, Found) else Found()
    details = done.details
    if done.error is not None and not details.get("status"):
        status = "failed" if last and not isinstance(done.error, OutOfTime) else "retrying"
        reason = f"{type(done.error).__name__}: {done.error}"[:LONGEST_REASON]
        details = {"status": status, "reason": reason}
    now_ms = time.time_ns() // 1_000_000
    return {"document": key, "updated_ms": now_ms, "etag": known.tag, "labels": list(known.labels), **details}


def _note(rows: Sequence[dict[str, Any]]) -> None:
    with wiring.table("DOCUMENTS_TABLE").batch_writer(overwrite_by_pkeys=["document"]) as writer:
        for row in rows:
            writer.put_item(Item=row)

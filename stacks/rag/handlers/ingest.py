"""S3 events from the queue -> the index. What lies in the bucket now is what is indexed: events may come late, twice or
out of order.

The documents of one batch go together: read side by side, embedded in calls as large as the model takes, written
together. One that fails, fails alone. The model is called once at a time in each environment, so that all of them
together stay within the mapping's MaximumConcurrency.

The documents table says how each fared: indexed, deleted, retrying (an attempt failed for now), failed (it cannot be
read, or the last attempt failed), with the reason. What failed ends in the dead-letter queue; a document that cannot be
read has no chunks.

A document's correlation id is that of the request that brought it in, else that of the sweep or S3 request that told of
it."""

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
from ragkit.extract.apart import extract_apart
from ragkit.resilience import Deadline
from ragkit.store import Stored
from ragkit.trace import Trace, begun, plain, within
from ragkit.versions import Recipe

from handlers import wiring
from handlers.documents import found_of, momentary, refusal

LONGEST_FILE, LARGE_FILE = 50 * 1024 * 1024, 1024 * 1024
KEPT_MB = 400
"""Of the function's memory: what it needs itself, the files of a batch included."""
CHANGES = 3
LONGEST_REASON = 1_000
MOST_ATTRIBUTES = 10
READERS = 4
MARGIN_S = 130.0
"""What one call of the model, made twice, the writing and the notes may take: no call is begun later than that."""
RESERVED = frozenset(
    ("labels", "correlation", "document", "number", "title", "page", "digest", "content", "model", "context", "text")
)  # fmt: skip
"""Metadata of an object that is not for filtering: what the index keeps itself."""

wiring.prepare("s3", "s3vectors", "bedrock-runtime", "dynamodb", "sqs")

Outcomes = dict[str, Exception | None]


class OutOfTime(Exception):
    """The documents go on with another message."""


@dataclass(frozen=True)
class Changed:
    """An object that a message tells of, and the correlation id that came with it."""

    bucket: str
    key: str
    correlation: str


@dataclass(frozen=True)
class Found:
    """An object as it is: `data` None and `tag` "" when it is gone. The metadata `labels`, parted by commas, says who
    may see it, `correlation` which request brought it in; other metadata are attributes."""

    tag: str = ""
    data: bytes | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        return self.tag, self.metadata

    @property
    def correlation(self) -> str:
        given = dict(self.metadata).get("correlation", "")
        return given if plain(given) else ""

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
    asked: dict[str, list[Changed]] = {}
    attempts: dict[str, int] = {}
    errors: dict[str, Exception] = {}
    for record in event["Records"]:
        id = record["messageId"]
        attempts[id] = int(record["attributes"]["ApproximateReceiveCount"])
        begun(id)
        try:
            asked[id] = _changed(json.loads(record["body"]), id)
        except Exception as error:
            errors[id] = error
    if any(count > 1 for count in attempts.values()):
        # What an attempt changed before it was killed, it may have told nobody.
        wiring.epoch().begin()
    most = int(os.environ["MAX_RECEIVES"])
    last = {one.key for id, places in asked.items() for one in places if attempts[id] >= most}
    again = {one.key for id, places in asked.items() for one in places if attempts[id] > 1}
    deadline = Deadline(context.get_remaining_time_in_millis, MARGIN_S)
    accounts: dict[str, str] = {}
    for bucket in {one.bucket for places in asked.values() for one in places}:
        ids = {one.key: one.correlation for places in asked.values() for one in places if one.bucket == bucket}
        outcomes = refresh(bucket, ids, last, again, deadline)
        for id, places in asked.items():
            for one in places:
                error = outcomes[one.key] if one.bucket == bucket else None
                if error is not None:
                    errors.setdefault(id, error)
                    accounts.setdefault(id, ids[one.key])
    for id, error in errors.items():
        reason = f"{type(error).__name__}: {error}"
        Trace(accounts.get(id, id)).error("ingest failed", messageId=id, attempt=attempts[id], error=reason)
    return {"batchItemFailures": [{"itemIdentifier": id} for id in errors]}


def _changed(notification: dict[str, Any], message: str) -> list[Changed]:
    """Every object that a notification names; S3's test event names none."""
    found = []
    for record in notification.get("Records", []):
        given = record.get("correlation") or record.get("responseElements", {}).get("x-amz-request-id")
        key = unquote_plus(record["s3"]["object"]["key"])
        found.append(Changed(record["s3"]["bucket"]["name"], key, given if plain(given) else message))
    return found


def refresh(
    bucket: str, ids: dict[str, str], last: Iterable[str], again: Iterable[str], deadline: Deadline
) -> Outcomes:
    """Make every index agree with these objects, and say for each why its message must come again, None when it need
    not. Repeated for those that changed meanwhile. `ids`: key -> correlation id, which becomes the object's own where
    that has one. `last`: keys for which there is no further attempt, `again`: those that were tried before."""
    outcomes: Outcomes = {}
    rows: list[dict[str, Any]] = []
    keys, waiting, began = list(ids), list(ids), time.perf_counter()
    try:
        recipes = wiring.registry().fresh().filled
        for _ in range(CHANGES):
            found = dict(zip(waiting, readers().map(lambda key: _tried(_read, bucket, key), waiting)))
            ids |= {key: one.correlation for key, one in found.items() if isinstance(one, Found) and one.correlation}
            done = _index_all(found, ids, recipes, again, deadline)
            settled = [key for key in waiting if done[key].error is None or not done[key].final]
            held = dict(zip(settled, readers().map(lambda key: _tried(_version, bucket, key), settled)))
            for key in waiting:
                one, now = done[key], held.get(key)
                if one.error is None and isinstance(now, Exception):
                    one.error = now
                if one.error is None and isinstance(found[key], Found) and now != found[key].version:
                    continue
                outcomes[key] = one.error
                rows.append({**_row(key, found[key], one, key in last), "correlation": ids[key]})
            waiting = [key for key in waiting if key not in outcomes]
            if not waiting:
                break
    except Exception as error:
        outcomes |= {key: error for key in keys if key not in outcomes}
    for key in waiting:
        outcomes.setdefault(key, RuntimeError(f"{key} keeps changing while it is indexed"))
    _again(bucket, {key: ids[key] for key in keys if isinstance(outcomes[key], OutOfTime)}, outcomes)
    _note(rows)
    _tell(rows, round((time.perf_counter() - began) * 1_000, 2))
    return outcomes


def _tried(call: Callable[..., Any], *given: Any) -> Any:
    """What the call gives, or its error."""
    try:
        return call(*given)
    except Exception as error:
        return error


# -- indexing ---------------------------------------------------------------------------------------------------------


def _index_all(
    found: Mapping[str, Any], ids: Mapping[str, str], recipes: Sequence[Recipe], again: Iterable[str],
    deadline: Deadline,
) -> dict[str, Done]:  # fmt: skip
    done = {key: Done(error=one) for key, one in found.items() if isinstance(one, Exception)}
    documents: dict[str, Document] = {}
    for key, one in found.items():
        if key in done:
            continue
        if one.data is None:
            done[key] = _removed(key, recipes, {"status": "deleted"})
            continue
        if documents and deadline.passed():
            done[key] = Done(error=OutOfTime("there was no time to read all of them"))
            continue
        try:
            with within(ids[key]):
                documents[key] = _document(key, one, key in again)
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
        for key, one in _index(recipe, wanted, found, ids, deadline).items():
            before = done.get(key, Done({"recipes": {}}))
            made = {**before.details.get("recipes", {}), **one.details.pop("recipes", {})}
            done[key] = Done({**before.details, **one.details, "recipes": made}, before.error or one.error)
    return done


def _document(key: str, found: Found, again: bool) -> Document:
    """A large file, and one whose message comes `again`, is read in a process of its own: the last attempt may have
    ended because reading it took all memory or time."""
    if not supported(key):
        raise UnsupportedFormat(f"{key}: files of this kind are not read")
    if found.data is None or len(found.data) > LONGEST_FILE:
        raise UnreadableFile(f"{key}: {len(found.data or b'')} bytes; the most is {LONGEST_FILE}")
    if again or len(found.data) > LARGE_FILE:
        return extract_apart(key, found.data, int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]) - KEPT_MB)
    try:
        return extract(key, found.data)
    except (UnsupportedFormat, UnreadableFile):
        raise
    except RecursionError:
        raise UnreadableFile(f"{key}: nested too deep") from None
    except Exception as error:
        raise UnreadableFile(f"{key}: reading it failed: {type(error).__name__}: {error}") from error


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
    recipe: Recipe, wanted: Mapping[str, list[Chunk]], found: Mapping[str, Found], ids: Mapping[str, str],
    deadline: Deadline,
) -> dict[str, Done]:  # fmt: skip
    """All of them together; where that fails, each for itself, so that one does not hold up the others."""
    if not wanted:
        return {}
    embed = None if recipe.model in ("", NO_MODEL) else _timely(recipe, deadline)
    together = _tried(wiring.store(recipe).replace_all, wanted, embed, recipe.model)
    if not isinstance(together, Exception):
        return {key: _indexed(recipe, wanted[key], found[key], together[key]) for key in wanted}
    if isinstance(together, OutOfTime):
        return dict.fromkeys(wanted, Done(error=together))
    known = together if isinstance(together, EmbeddingUnavailable) and momentary(together) else None
    done = {}
    for key in wanted:
        with within(ids[key]):
            done[key] = _alone(recipe, key, wanted[key], found[key], embed, known)
    return done


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
    Trace().warn(note, document=key)
    stored = _tried(store.replace_all, {key: chunks}, None, recipe.model)
    if isinstance(stored, Exception):
        return Done(error=stored)
    whole = code(error) == "ValidationException" and refusal(recipe) is None
    done = _indexed(recipe, chunks, found, stored[key], note, whole)
    return Done(done.details, error if momentary(error) else None)


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


def _again(bucket: str, ids: Mapping[str, str], outcomes: Outcomes) -> None:
    """Ask for documents that there was no time for, by messages that have all their attempts."""
    for key, correlation in ids.items():
        with within(correlation):
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


def _tell(rows: Sequence[dict[str, Any]], ms: float) -> None:
    """A line a document; `ms` is what all of them together took."""
    names = ("document", "status", "chunks", "written", "unchanged", "deleted", "model", "reason", "note")
    for row in rows:
        told = {name: row[name] for name in names if row.get(name) not in ("", None)}
        Trace(row["correlation"]).info("ingest", step="ingest", ms=ms, together=len(rows), **told)

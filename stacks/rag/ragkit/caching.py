"""Answers that were given before, for questions that mean the same: one table for all environments.

A question's key is its meaning-bearing words (stemmed, in order, with numbers, negations and directions), who may see
what (labels and filter), and the recipe and model that would answer; so "2023" never stands for "2024". What has the
key is the same question when its vector also lies near enough, which tells what the other words changed.

An answer is good for one epoch of the index: every change of a document's chunks begins a new one. It is given to first
turns alone, kept when nothing was degraded and something was cited, and expires.

The table is DynamoDB's, and not an index of vectors: key and epoch are one read of two tables, it is consistent, and
expiry is the table's own.
"""

import hashlib
import json
import math
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ragkit.asked import Asked
from ragkit.embed import Embedder, EmbeddingUnavailable
from ragkit.resilience import passing
from ragkit.trace import Trace

EPOCH = "epoch"
LEAST_TERMS = 2
WHOLE_MODES = ("hybrid", "lexical")
STOP = frozenset(
    re.findall(
        r"\w+",
        "a an the this that these those is are was were be been being am do does did doing done have has had having of "
        "it its there here my our your please can could would will shall may explain describe about what which some "
        "any also just really exactly and so as kind sort thanks hello hi hey",
    )
)
"""Words that ask rather than say what is asked for. Who, when, where, why and how stay, since they decide the answer;
so do prepositions and pronouns, which turn a sentence round."""
LEAD = re.compile(
    r"^\W*(?:(?:please|hello|hi|hey)\W+)*(?:(?:can|could|would|will|do) you\W+)?(?:please\W+)?"
    r"(?:(?:tell|show|explain to|remind) (?:me|us)\b|know\b|i (?:want|need|would like) to know\b)",
    re.IGNORECASE,
)
SUFFIXES = ("ies", "ing", "ed", "es", "s", "e")
WORD = re.compile(
    r"(?:(?<![^\s(])[-−+](?=\d))?[^\W_]+(?:[.,:/'’-][^\W_]+)*[%‰°+#]*|[<>=≤≥≠±$€£¥&^*]+"
)
"""With the signs that decide what a number or a name is: -5, C++, 5%, <."""

Event = tuple[str, dict[str, Any]]
Count = Callable[[str], Any]


class Answering(Protocol):
    def answer(self, asked: Asked, trace: Trace) -> Iterator[Event]: ...


@dataclass(frozen=True)
class CacheSettings:
    """`near` is the least cosine of two questions with the same words in the same order: MiniLM gives 0.91 to 0.96 to
    such questions when they mean the same, and about 0.8 when their other words part them. (Order is not left to it:
    "which bird eats the eel" and "which eel eats the bird" have 0.99.)"""

    near: float = 0.9


def terms(question: str) -> list[str]:
    """The words that decide what is asked, in order, in one form for singular and plural and the like."""
    found = []
    for word in WORD.findall(LEAD.sub("", question).replace("n't", " not").lower()):
        word = word.removesuffix("'s").removesuffix("’s")
        if word not in STOP:
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    if word.isalpha():
        for suffix in SUFFIXES:
            if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
                return word[: -len(suffix)] + ("y" if suffix == "ies" else "")
    return word


def packed(vector: Sequence[float]) -> bytes:
    """Of length 1, in 32 bits a number."""
    length = math.sqrt(sum(one * one for one in vector)) or 1.0
    return struct.pack(f"<{len(vector)}f", *(one / length for one in vector))


def cosine(one: bytes, other: bytes) -> float:
    """Of two packed vectors; 0 when they are of different models."""
    if len(one) != len(other):
        return 0.0
    form = f"<{len(one) // 4}f"
    return sum(left * right for left, right in zip(struct.unpack(form, one), struct.unpack(form, other)))


class Epoch:
    """Counts the changes of the index. `table` is boto3's Table with the key `id`."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def begin(self) -> None:
        """What was answered before is not to be answered again."""
        self._table.update_item(
            Key={"id": EPOCH}, UpdateExpression="ADD n :one", ExpressionAttributeValues={":one": 1}
        )


class AnswerCache:
    """`resource` is boto3's dynamodb; `answers` and `settings` are names of tables with the key `id`. `now` gives epoch
    seconds."""

    def __init__(
        self, resource: Any, answers: str, settings: str, kept_s: int, now: Callable[[], float] = time.time
    ) -> None:
        self._resource, self._answers, self._settings = resource, answers, settings
        self._kept_s, self._now = kept_s, now

    def read(self, key: str) -> tuple[int, dict[str, Any] | None]:
        """The epoch, and the answer under this key if it is of this epoch."""
        wanted = {
            self._settings: {"Keys": [{"id": EPOCH}], "ConsistentRead": True},
            self._answers: {"Keys": [{"id": key}]},
        }
        found = self._resource.batch_get_item(RequestItems=wanted)
        if found.get("UnprocessedKeys"):
            raise TimeoutError("the table of answers is busy")
        rows = found["Responses"]
        epoch = next((int(row["n"]) for row in rows.get(self._settings, ())), 0)
        item = next(iter(rows.get(self._answers, ())), None)
        good = item is not None and int(item["epoch"]) == epoch and int(item["expires"]) > self._now()
        return epoch, item if good else None

    def write(self, key: str, epoch: int, vector: bytes, events: dict[str, Any]) -> None:
        item = {
            "id": key, "epoch": epoch, "vector": vector, "events": json.dumps(events),
            "expires": int(self._now()) + self._kept_s,
        }  # fmt: skip
        self._resource.Table(self._answers).put_item(Item=item)


class CachingAnswerer:
    """`recipe` names all that decides an answer besides the question: index, model, settings. `count` is told
    "AnswerCacheHits" and "AnswerCacheMisses". A cache that fails costs nothing but its use."""

    def __init__(
        self, inner: Answering, cache: AnswerCache, embedder: Embedder, recipe: str, count: Count,
        settings: CacheSettings = CacheSettings(),
    ) -> None:  # fmt: skip
        self._inner, self._cache, self._embedder, self._recipe = inner, cache, embedder, recipe
        self._settings, self._count = settings, count

    def answer(self, asked: Asked, trace: Trace) -> Iterator[Event]:
        key = self._key(asked)
        if key is None:
            yield from self._inner.answer(asked, trace)
            return
        with trace.step("cache") as step:
            epoch, known = self._known(key, asked, trace)
            step["hit"] = known is not None
        self._count("AnswerCacheMisses" if known is None else "AnswerCacheHits")
        if known is not None:
            yield from _again(known, trace)
            return
        kept: dict[str, Any] = {}
        for name, data in self._inner.answer(asked, trace):
            kept[name] = data
            yield name, data
            if name == "done" and epoch is not None and _whole(kept):
                self._keep(key, epoch, asked, kept, trace)

    def _key(self, asked: Asked) -> str | None:
        """None for what is not to be answered from the cache: later turns, and questions of next to no words."""
        words = terms(asked.question)
        if asked.earlier or asked.summary or len(words) < LEAST_TERMS:
            return None
        said = [self._recipe, sorted(asked.user.labels), asked.where, words]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _known(self, key: str, asked: Asked, trace: Trace) -> tuple[int | None, dict[str, Any] | None]:
        """The epoch (None: the cache cannot be used now), and the events that were kept."""
        try:
            epoch, item = self._cache.read(key)
            if item is None:
                return epoch, None
            near = cosine(packed(self._embedder.query(asked.question)), bytes(item["vector"]))
            return epoch, json.loads(item["events"]) if near >= self._settings.near else None
        except EmbeddingUnavailable:
            return None, None
        except Exception as error:
            if not passing(error):
                raise
            trace.warn("the cache of answers cannot be read", error=f"{type(error).__name__}: {error}")
            return None, None

    def _keep(self, key: str, epoch: int, asked: Asked, kept: dict[str, Any], trace: Trace) -> None:
        events = {name: kept[name] for name in ("retrieval", "done")}
        try:
            self._cache.write(key, epoch, packed(self._embedder.query(asked.question)), events)
        except EmbeddingUnavailable:
            return
        except Exception as error:
            trace.warn("the answer is not kept", error=f"{type(error).__name__}: {error}")


def _whole(kept: dict[str, Any]) -> bool:
    """Whether an answer is one that may be given again: nothing was missing or masked, and it cites what it says."""
    found, done = kept.get("retrieval", {}), kept["done"]
    degraded = found.get("note") or done.get("cancelled") or done["mode"] not in WHOLE_MODES
    return not degraded and "guardrail" not in kept and bool(done["citations"])


def _again(known: dict[str, Any], trace: Trace) -> Iterator[Event]:
    trace.mark("first_token")
    took = round(trace.since())
    yield "retrieval", {**known["retrieval"], "mode": "cached"}
    yield "token", {"text": known["done"]["answer"]}
    timing = {"retrieval_ms": took, "first_token_ms": took, "total_ms": round(trace.since())}
    yield "done", {
        **known["done"], "mode": "cached", "usage": {"input": 0, "output": 0}, "cost_usd": 0.0, "timing": timing,
        "correlation": trace.correlation, "cancelled": False,
    }  # fmt: skip

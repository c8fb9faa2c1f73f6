"""The embedder, the store and the generator behind their breakers and bulkheads; what was embedded lately is kept.

A refused call is to the caller what a failed one is: EmbeddingUnavailable, GenerationUnavailable; the store's is
Refused.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from ragkit.chunking import Chunk
from ragkit.embed import Embedder, EmbeddingUnavailable
from ragkit.generate import Generation, GenerationUnavailable, Generator, Message, Usage
from ragkit.rerank import Reranker, RerankUnavailable
from ragkit.resilience import Breaker, Bulkhead, OutOfTime, Refused, guarded, hedged
from ragkit.store import Embed, Filter, Passage, Stored, VectorStore, replace_all

Result = TypeVar("Result")
Count = Callable[[str], Any]


def _uncounted(name: str) -> None:
    pass


class Kept:
    """The last `most` values by key, the least recently used go first. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> Any:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Any, value: Any) -> None:
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)


class GuardedEmbedder:
    """Questions go through `bulkhead`, documents through `ingest`, so that neither takes the other's turns. `count` is
    told "EmbeddingCacheHits" and "EmbeddingCacheMisses"."""

    def __init__(
        self, inner: Embedder, breaker: Breaker, bulkhead: Bulkhead | None, kept: Kept, count: Count = _uncounted,
        ingest: Bulkhead | None = None,
    ) -> None:  # fmt: skip
        self.model = inner.model
        self._inner, self._breaker, self._bulkhead, self._kept, self._count = inner, breaker, bulkhead, kept, count
        self._ingest = ingest

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        return self._call(self._ingest, self._inner.documents, texts)

    def query(self, text: str) -> list[float]:
        key = (self.model, text)
        known = self._kept.get(key)
        self._count("EmbeddingCacheMisses" if known is None else "EmbeddingCacheHits")
        if known is None:
            known = self._call(self._bulkhead, self._inner.query, text)
            self._kept.put(key, known)
        return known

    def _call(self, bulkhead: Bulkhead | None, call: Callable[..., Result], given: Any) -> Result:
        try:
            return guarded(self._breaker, bulkhead, call, given)
        except Refused as refused:
            raise EmbeddingUnavailable(str(refused)) from refused


class _Elsewhere(Exception):
    """What failed while the store waited for it is not the store's failure."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _apart(embed: Embed) -> Embed:
    def embedded(texts: list[str]) -> list[list[float]]:
        try:
            return embed(texts)
        except Exception as error:
            raise _Elsewhere(error) from None

    return embedded


class GuardedStore:
    """`hedge_after_s` with an `executor`: a search that takes longer is made twice. `changed` is called after a
    document's chunks were, or may have been, changed."""

    def __init__(
        self,
        inner: VectorStore,
        breaker: Breaker,
        executor: Executor | None = None,
        hedge_after_s: float = 0.0,
        changed: Callable[[], Any] = lambda: None,
    ) -> None:
        self._inner, self._breaker, self._executor, self._after_s = inner, breaker, executor, hedge_after_s
        self._changed = changed

    def prepare(self) -> None:
        self._inner.prepare()

    def drop(self) -> None:
        self._inner.drop()

    def replace(self, document: str, chunks: Sequence[Chunk], embed: Embed | None, model: str) -> Stored:
        return self.replace_all({document: chunks}, embed, model)[document]

    def replace_all(
        self, wanted: Mapping[str, Sequence[Chunk]], embed: Embed | None, model: str
    ) -> dict[str, Stored]:
        apart = None if embed is None else _apart(embed)
        try:
            stored = guarded(self._breaker, None, replace_all, self._inner, wanted, apart, model)
        except _Elsewhere as elsewhere:
            self._changed()
            raise elsewhere.error from elsewhere.error.__cause__
        except Exception as error:
            if not isinstance(error, Refused):
                self._changed()
            raise
        if any(one.written or one.deleted for one in stored.values()):
            self._changed()
        return stored

    def delete(self, document: str) -> int:
        gone = guarded(self._breaker, None, self._inner.delete, document)
        if gone:
            self._changed()
        return gone

    def dense(self, vector: Sequence[float], count: int, model: str, where: Filter | None) -> list[tuple[str, float]]:
        return self._read(lambda: self._inner.dense(vector, count, model, where))

    def lexical(self, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        return self._read(lambda: self._inner.lexical(text, count, where))

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        return self._read(lambda: self._inner.passages(ids))

    def _read(self, call: Callable[[], Result]) -> Result:
        with self._breaker.guard():
            if self._executor is None or self._after_s <= 0:
                return call()
            return hedged(self._executor, call, self._after_s)


class GuardedReranker:
    def __init__(self, inner: Reranker, breaker: Breaker) -> None:
        self.model = inner.model
        self._inner, self._breaker = inner, breaker

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        try:
            return guarded(self._breaker, None, self._inner.score, query, passages)
        except Refused as refused:
            raise RerankUnavailable(str(refused)) from refused


def _endless() -> float:
    return float("inf")


class GuardedGenerator:
    """`left` tells how many seconds an answer may still take; one that is not complete by then is given up."""

    def __init__(self, inner: Generator, breaker: Breaker, left: Callable[[], float] = _endless) -> None:
        self.model = inner.model
        self._inner, self._breaker, self._left = inner, breaker, left

    def stream(self, system: str, messages: Sequence[Message], max_tokens: int) -> "GuardedGeneration":
        return GuardedGeneration(self._breaker, lambda: self._inner.stream(system, messages, max_tokens), self._left)


class GuardedGeneration:
    """One call of the breaker from the request to the last piece."""

    def __init__(
        self, breaker: Breaker, start: Callable[[], Generation], left: Callable[[], float] = _endless
    ) -> None:
        self._breaker, self._start, self._left = breaker, start, left
        self._inner: Generation | None = None

    @property
    def usage(self) -> Usage:
        return self._inner.usage if self._inner else Usage()

    @property
    def stop_reason(self) -> str:
        return self._inner.stop_reason if self._inner else ""

    def __iter__(self) -> Iterator[str]:
        try:
            with self._breaker.guard():
                self._inner = self._start()
                for piece in self._inner:
                    yield piece
                    if self._left() <= 0:
                        raise OutOfTime("there is no time left for the rest of the answer")
        except Refused as refused:
            raise GenerationUnavailable(str(refused)) from refused

    def close(self) -> None:
        if self._inner:
            self._inner.close()

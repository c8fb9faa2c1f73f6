"""A question -> the best passages.

1. The question is searched by words (BM25) and by meaning (vectors) at once; in a conversation together with what was
   said before (`ragkit.rewrite`). Both lists' scores are scaled to 0..1 between their lowest and highest and averaged.
2. A reranker scores the best candidates anew; its scores, scaled alike, are mixed with the first.
3. Candidates that say what other good candidates say gain (`ragkit.kinship`).
4. As options: diversity among the passages, and neighbouring chunks joined to them.

What cannot be had is left out, and the result says so: without vectors retrieval is lexical alone, without a reranker
step 2 is skipped. `where` filters every search, so nothing that it hides is seen by a later step.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Literal

from ragkit import kinship
from ragkit.asked import Turn
from ragkit.cost import embedding_usd, rerank_usd, total_usd
from ragkit.embed import NO_MODEL, Embedder, EmbeddingUnavailable
from ragkit.parents import expanded
from ragkit.rerank import NO_MODEL as NO_RERANKER
from ragkit.rerank import NoRerank, Reranker, RerankUnavailable
from ragkit.rewrite import Formulation, Weights, contextual_query, formulations, standalone
from ragkit.store import Filter, Passage, VectorStore
from ragkit.threads import Threads
from ragkit.tokens import estimate
from ragkit.trace import Trace

__all__ = ["Retrieved", "Retriever", "Settings", "contextual_query", "fuse", "spread"]

Scored = list[tuple[str, float]]
Mode = Literal["hybrid", "lexical"]
Step = Callable[[str], AbstractContextManager[Any]]
SEARCHES_AT_ONCE = 32
"""Of one retriever, besides those that its callers' own threads make."""


@dataclass(frozen=True)
class Settings:
    """`candidates` of each list take part in the fusion; `dense_weight` is 0 (lexical alone) to 1; the best `depth` of
    them are reranked, and the reranker's scores count `rerank_weight`; `kinship` is how much neighbours count, 0 (off)
    to 1; `diversity` is 0 (off) to 1; `neighbours` are joined to a passage on either side (0: none)."""

    candidates: int = 200
    dense_weight: float = 0.5
    depth: int = 50
    rerank_weight: float = 0.45
    kinship: float = 0.46
    diversity: float = 0.0
    neighbours: int = 0
    conversation: Weights = field(default_factory=Weights)


@dataclass(frozen=True)
class Retrieved:
    """`mode` is "hybrid" or "lexical"; `note` says what was left out and why, empty when nothing was. `relevance` is
    the highest score of the reranker, which compares between questions where the passages' scores do not; None where
    nothing was reranked. `cost_usd` is what the models took that embedded the question (by its estimated tokens) and
    reranked; None where a price is not known."""

    passages: list[Passage]
    mode: Mode
    note: str = ""
    relevance: float | None = None
    cost_usd: float | None = 0.0


@dataclass(frozen=True)
class Found:
    """Candidates, best first; `vector` is what they were searched with, None in lexical mode; `embedded` is how many
    tokens that took."""

    ranked: Scored
    mode: Mode
    note: str = ""
    vector: list[float] | None = None
    embedded: int = 0


class Retriever:
    def __init__(
        self, store: VectorStore, embedder: Embedder, settings: Settings = Settings(), reranker: Reranker | None = None
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._settings = settings
        self._reranker = reranker or NoRerank()
        self._threads = Threads(SEARCHES_AT_ONCE)

    def search(
        self,
        question: str,
        count: int = 8,
        where: Filter | None = None,
        earlier: Sequence[Turn | str] = (),
        also: Sequence[str] = (),
        trace: Trace | None = None,
    ) -> Retrieved:
        """The best `count` passages. `earlier` are the turns before the question, oldest first (a string is a question
        without its answer); `also` are other wordings of the question; `where` is a metadata filter of S3 Vectors.
        `trace` gets the steps embed, search and rerank."""
        settings, step = self._settings, trace.step if trace else _untimed
        asked = formulations(question, earlier, also, settings.conversation)
        found, passages = self._candidates(asked, where, step, max(count, settings.depth))
        passages, relevance, note = self._reranked(standalone(question, earlier), passages, step)
        reranked = 0 if relevance is None else min(len(passages), settings.depth)
        embedding = embedding_usd(self._embedder.model, found.embedded)
        cost = total_usd(embedding, rerank_usd(self._reranker.model, reranked))
        passages = self._chosen(passages, count)
        notes = [found.note, note]
        if settings.neighbours and passages:
            if found.vector is None:
                notes.append("passages are without their neighbours")
            else:
                model = self._embedder.model
                passages = expanded(self._store, passages, settings.neighbours, found.vector, model, where)
        told = "; ".join(one for one in notes if one)
        return Retrieved(passages, found.mode, told, relevance, cost)

    def ranking(self, query: str, where: Filter | None = None) -> tuple[Scored, Mode, str]:
        """Step 1 alone: all candidates as (chunk id, score 0 to 1), the mode, and the note."""
        found, _ = self._candidates([Formulation(query)], where, _untimed, 0)
        return found.ranked, found.mode, found.note

    def _candidates(
        self, asked: Sequence[Formulation], where: Filter | None, step: Step, read: int
    ) -> tuple[Found, list[Passage]]:
        """Step 1, and the best `read` of the candidates as passages."""
        settings, store = self._settings, self._store
        waiting = [self._threads.start(store.lexical, one.text, settings.candidates, where) for one in asked]
        vector, note, dense = None, "", []
        try:
            if self._embedder.model == NO_MODEL:
                raise EmbeddingUnavailable("no embedding model is configured")
            with step("embed"):
                vectors = self._threads.map(self._embedder.query, [one.text for one in asked])
            vector = weighted_mean(vectors, [one.weight for one in asked]) if asked else None
        except EmbeddingUnavailable as error:
            note = str(error)
        with step("search"):
            if vector is not None:
                dense = store.dense(vector, settings.candidates, self._embedder.model, where)
            lists = [one.result() for one in waiting]
            lexical = total(lists, [one.weight for one in asked])[: settings.candidates]
            ranked = fuse(dense, lexical, 0.0 if note else settings.dense_weight)
            first = dict(ranked[:read])
            found = store.passages(list(first)) if first else []
            passages = [replace(one, score=first[one.id]) for one in found]
        if note:
            return Found(ranked, "lexical", note), passages
        tokens = round(sum(estimate(one.text) for one in asked))
        return Found(ranked, "hybrid", vector=vector, embedded=tokens), passages

    def _reranked(
        self, query: str, passages: list[Passage], step: Step
    ) -> tuple[list[Passage], float | None, str]:
        """Steps 2 and 3. A reranker that is not configured is no fault and makes no note."""
        if not passages:
            return passages, None, ""
        settings, relevance, note = self._settings, None, ""
        scores = spread([one.score for one in passages])
        if self._reranker.model != NO_RERANKER and settings.rerank_weight > 0:
            try:
                with step("rerank"):
                    told = self._reranker.score(query, [_whole(one) for one in passages[: settings.depth]])
            except RerankUnavailable as error:
                note = f"not reranked: {error}"
            else:
                relevance, weight = max(told), settings.rerank_weight
                told = [*spread(told), *[0.0] * (len(passages) - len(told))]
                scores = [weight * one + (1 - weight) * other for one, other in zip(told, scores)]
        if settings.kinship > 0:
            near = kinship.similarities([one.text for one in passages])
            scores = kinship.supported(scores, near, settings.kinship)
        rows = sorted(range(len(passages)), key=lambda row: (-scores[row], row))
        return [replace(passages[row], score=scores[row]) for row in rows], relevance, note

    def _chosen(self, passages: list[Passage], count: int) -> list[Passage]:
        if self._settings.diversity <= 0:
            return passages[:count]
        near = kinship.overlaps([one.text for one in passages])
        rows = kinship.diverse([one.score for one in passages], near, count, self._settings.diversity)
        return [passages[row] for row in rows]


def _untimed(name: str) -> AbstractContextManager[Any]:
    return nullcontext()


def _whole(passage: Passage) -> str:
    return f"{passage.context}\n\n{passage.text}" if passage.context else passage.text


def total(lists: Sequence[Scored], weights: Sequence[float]) -> Scored:
    """Lists of (id, score) added up by weight, best first; equal scores go by id."""
    sums: dict[str, float] = {}
    for scored, weight in zip(lists, weights):
        for key, score in scored:
            sums[key] = sums.get(key, 0.0) + weight * score
    return _best_first(sums)


def _best_first(sums: dict[str, float]) -> Scored:
    return sorted(sorted(sums.items(), key=itemgetter(0)), key=itemgetter(1), reverse=True)


def weighted_mean(vectors: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """The sum of the vectors' directions by weight; one vector alone stays as it is."""
    if len(vectors) == 1:
        return list(vectors[0])
    result = [0.0] * len(vectors[0])
    for vector, weight in zip(vectors, weights):
        length = sum(one * one for one in vector) ** 0.5 or 1.0
        result = [known + weight * one / length for known, one in zip(result, vector)]
    return result


def fuse(dense: Scored, lexical: Scored, dense_weight: float) -> Scored:
    """Convex fusion of (id, distance) and (id, score) lists, best first; equal scores go by id. An id that a list
    lacks counts as that list's lowest."""
    near, told = spread([-distance for _, distance in dense]), spread([score for _, score in lexical])
    sums = {key: dense_weight * score for (key, _), score in zip(dense, near)}
    for (key, _), score in zip(lexical, told):
        sums[key] = sums.get(key, 0.0) + (1 - dense_weight) * score
    return _best_first(sums)


def spread(scores: Sequence[float]) -> list[float]:
    """Moved to 0..1 between the lowest and the highest; all 1 when they are equal."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    width = high - low
    return [(one - low) / width for one in scores] if high > low else [1.0] * len(scores)

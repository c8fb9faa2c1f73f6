"""A question -> the best passages.

1. The question is searched by words (BM25) and by meaning (vectors) at once; in a conversation together with what was
   said before (`ragkit.rewrite`). Both lists' scores are scaled to 0..1 between their lowest and highest and averaged.
2. A reranker scores the best candidates anew; its scores, scaled alike, are averaged with the first.
3. Candidates that say what other good candidates say gain (`ragkit.kinship`).
4. As options: diversity among the passages, and neighbouring chunks joined to them.

What cannot be had is left out, and the result says so: without vectors retrieval is lexical alone, without a reranker
step 2 is skipped. `where` filters every search, so nothing that it hides is seen by a later step.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from ragkit import kinship
from ragkit.asked import Turn
from ragkit.embed import NO_MODEL, Embedder, EmbeddingUnavailable
from ragkit.parents import expanded
from ragkit.rerank import NO_MODEL as NO_RERANKER
from ragkit.rerank import NoRerank, Reranker, RerankUnavailable
from ragkit.rewrite import Formulation, Weights, contextual_query, formulations, standalone
from ragkit.store import Filter, Passage, VectorStore

__all__ = ["Retrieved", "Retriever", "Settings", "contextual_query", "fuse", "scaled"]

Scored = list[tuple[str, float]]
Mode = Literal["hybrid", "lexical"]


@dataclass(frozen=True)
class Settings:
    """`candidates` of each list take part in the fusion; `dense_weight` is 0 (lexical alone) to 1; the best `depth` of
    them are reranked, and the reranker's scores count `rerank_weight`; `kinship` is how much neighbours count, 0 (off)
    to 1; `diversity` is 0 (off) to 1; `neighbours` are joined to a passage on either side (0: none)."""

    candidates: int = 200
    dense_weight: float = 0.5
    depth: int = 50
    rerank_weight: float = 0.5
    kinship: float = 0.35
    diversity: float = 0.0
    neighbours: int = 0
    conversation: Weights = field(default_factory=Weights)


@dataclass(frozen=True)
class Retrieved:
    """`mode` is "hybrid" or "lexical"; `note` says what was left out and why, empty when nothing was. `relevance` is
    the highest score of the reranker, which compares between questions where the passages' scores do not; None where
    nothing was reranked."""

    passages: list[Passage]
    mode: Mode
    note: str = ""
    relevance: float | None = None


@dataclass(frozen=True)
class Found:
    """Candidates, best first; `vector` is what they were searched with, None in lexical mode."""

    ranked: Scored
    mode: Mode
    note: str = ""
    vector: list[float] | None = None


class Retriever:
    def __init__(
        self, store: VectorStore, embedder: Embedder, settings: Settings = Settings(), reranker: Reranker | None = None
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._settings = settings
        self._reranker = reranker or NoRerank()

    def search(
        self,
        question: str,
        count: int = 8,
        where: Filter | None = None,
        earlier: Sequence[Turn | str] = (),
        also: Sequence[str] = (),
    ) -> Retrieved:
        """The best `count` passages. `earlier` are the turns before the question, oldest first (a string is a question
        without its answer); `also` are other wordings of the question; `where` is a metadata filter of S3 Vectors."""
        settings = self._settings
        found = self._candidates(formulations(question, earlier, also, settings.conversation), where)
        first = dict(found.ranked[: max(count, settings.depth)])
        passages = self._store.passages(list(first))
        passages = [replace(one, score=first[one.id]) for one in passages]
        passages, relevance, note = self._reranked(standalone(question, earlier), passages)
        passages = self._chosen(passages, count)
        notes = [found.note, note]
        if settings.neighbours and passages:
            if found.vector is None:
                notes.append("passages are without their neighbours")
            else:
                model = self._embedder.model
                passages = expanded(self._store, passages, settings.neighbours, found.vector, model, where)
        return Retrieved(passages, found.mode, "; ".join(one for one in notes if one), relevance)

    def ranking(self, query: str, where: Filter | None = None) -> tuple[Scored, Mode, str]:
        """Step 1 alone: all candidates as (chunk id, score 0 to 1), the mode, and the note."""
        found = self._candidates([Formulation(query)], where)
        return found.ranked, found.mode, found.note

    def _candidates(self, asked: Sequence[Formulation], where: Filter | None) -> Found:
        settings = self._settings
        with ThreadPoolExecutor(max(1, 2 * len(asked))) as pool:
            waiting = [pool.submit(self._store.lexical, one.text, settings.candidates, where) for one in asked]
            vector, note, dense = None, "", []
            try:
                if self._embedder.model == NO_MODEL:
                    raise EmbeddingUnavailable("no embedding model is configured")
                vectors = list(pool.map(self._embedder.query, [one.text for one in asked]))
                if asked:
                    vector = weighted_mean(vectors, [one.weight for one in asked])
                    dense = self._store.dense(vector, settings.candidates, self._embedder.model, where)
            except EmbeddingUnavailable as error:
                vector, note, dense = None, str(error), []
            lexical = total([one.result() for one in waiting], [one.weight for one in asked])[: settings.candidates]
        if note:
            return Found(fuse([], lexical, 0.0), "lexical", note)
        return Found(fuse(dense, lexical, settings.dense_weight), "hybrid", vector=vector)

    def _reranked(self, query: str, passages: list[Passage]) -> tuple[list[Passage], float | None, str]:
        """Steps 2 and 3. A reranker that is not configured is no fault and makes no note."""
        if not passages:
            return passages, None, ""
        settings, relevance, note = self._settings, None, ""
        scores = spread([one.score for one in passages])
        if self._reranker.model != NO_RERANKER and settings.rerank_weight > 0:
            try:
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
        near = kinship.similarities([one.text for one in passages])
        rows = kinship.diverse([one.score for one in passages], near, count, self._settings.diversity)
        return [passages[row] for row in rows]


def _whole(passage: Passage) -> str:
    return f"{passage.context}\n\n{passage.text}" if passage.context else passage.text


def total(lists: Sequence[Scored], weights: Sequence[float]) -> Scored:
    """Lists of (id, score) added up by weight, best first; equal scores go by id."""
    sums: dict[str, float] = {}
    for scored, weight in zip(lists, weights):
        for key, score in scored:
            sums[key] = sums.get(key, 0.0) + weight * score
    return sorted(sums.items(), key=lambda item: (-item[1], item[0]))


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
    near = scaled([(key, -distance) for key, distance in dense])
    told = scaled(lexical)
    sums = {key: dense_weight * near.get(key, 0.0) + (1 - dense_weight) * told.get(key, 0.0) for key in (*near, *told)}
    return sorted(sums.items(), key=lambda item: (-item[1], item[0]))


def scaled(scores: Scored) -> dict[str, float]:
    """Scores moved to 0..1 between the lowest and the highest; all 1 when they are equal."""
    return dict(zip((key for key, _ in scores), spread([score for _, score in scores])))


def spread(scores: Sequence[float]) -> list[float]:
    """Moved to 0..1 between the lowest and the highest; all 1 when they are equal."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    return [(one - low) / (high - low) for one in scores] if high > low else [1.0] * len(scores)

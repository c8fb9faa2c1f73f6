"""A question -> the best passages. Lexical and dense search run side by side, and their scores are fused by the convex
rule: each list's scores are scaled to 0..1 between its own lowest and highest, then averaged by weight. Where vectors
cannot be had, retrieval is lexical alone, and the result says so.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from ragkit.embed import NO_MODEL, Embedder, EmbeddingUnavailable
from ragkit.store import Filter, Passage, VectorStore

Scored = list[tuple[str, float]]


@dataclass(frozen=True)
class Settings:
    """`candidates` of each list take part in the fusion; `dense_weight` is 0 (lexical alone) to 1; `turns` is how many
    of the user's last turns make the query."""

    candidates: int = 200
    dense_weight: float = 0.5
    turns: int = 2


@dataclass(frozen=True)
class Retrieved:
    """`mode` is "hybrid" or "lexical"; `note` says why it is lexical, empty otherwise."""

    passages: list[Passage]
    mode: Literal["hybrid", "lexical"]
    note: str = ""


class Retriever:
    def __init__(self, store: VectorStore, embedder: Embedder, settings: Settings = Settings()) -> None:
        self._store = store
        self._embedder = embedder
        self._settings = settings

    def search(
        self, question: str, count: int = 8, where: Filter | None = None, earlier: Sequence[str] = ()
    ) -> Retrieved:
        """The best `count` passages. `earlier` are the user's turns before the question, oldest first; `where` is a
        metadata filter of S3 Vectors."""
        ranked, mode, note = self.ranking(contextual_query(question, earlier, self._settings.turns), where)
        scores = dict(ranked[:count])
        passages = self._store.passages(list(scores))
        return Retrieved([replace(one, score=scores[one.id]) for one in passages], mode, note)

    def ranking(self, query: str, where: Filter | None = None) -> tuple[Scored, Literal["hybrid", "lexical"], str]:
        """All candidates as (chunk id, score 0 to 1), the mode, and the note."""
        settings = self._settings
        if self._embedder.model == NO_MODEL:
            lexical = self._store.lexical(query, settings.candidates, where)
            return fuse([], lexical, 0.0), "lexical", "no embedding model is configured"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self._store.lexical, query, settings.candidates, where)
            try:
                vector = self._embedder.query(query)
                dense = self._store.dense(vector, settings.candidates, self._embedder.model, where)
            except EmbeddingUnavailable as error:
                return fuse([], waiting.result(), 0.0), "lexical", str(error)
            lexical = waiting.result()
        return fuse(dense, lexical, settings.dense_weight), "hybrid", ""


def contextual_query(question: str, earlier: Sequence[str], turns: int) -> str:
    """The user's last `turns` turns as one query, the question last."""
    kept = [*earlier, question][-max(1, turns) :]
    return "\n".join(turn.strip() for turn in kept if turn.strip())


def fuse(dense: Scored, lexical: Scored, dense_weight: float) -> Scored:
    """Convex fusion of (id, distance) and (id, score) lists, best first; equal scores go by id. An id that a list
    lacks counts as that list's lowest."""
    near = scaled([(key, -distance) for key, distance in dense])
    told = scaled(lexical)
    total = {
        key: dense_weight * near.get(key, 0.0) + (1 - dense_weight) * told.get(key, 0.0) for key in (*near, *told)
    }
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))


def scaled(scores: Scored) -> dict[str, float]:
    """Scores moved to 0..1 between the lowest and the highest; all 1 when they are equal."""
    if not scores:
        return {}
    low, high = min(score for _, score in scores), max(score for _, score in scores)
    if high == low:
        return dict.fromkeys((key for key, _ in scores), 1.0)
    return {key: (score - low) / (high - low) for key, score in scores}

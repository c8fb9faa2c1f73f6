"""Do the passages that were found answer the question at all?

Judged by scores that compare between questions, before they are scaled for ranking: the reranker's highest relevance,
the nearest passage's similarity, and the share of the question's words that a passage holds. Each model's scores lie
elsewhere, so a model counts here when it was calibrated; with none of those the words alone decide, more carefully.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragkit.asked import Asked
from ragkit.grounding import Statement, terms
from ragkit.retrieve import Retrieved
from ragkit.store import Filter, Passage, VectorStore

LOOKED_AT = 6


@dataclass(frozen=True)
class Weights:
    """A logistic model: what each score counts, and the sums (of a first question, of one in a conversation) below
    which the evidence is clearly too little."""

    relevance: float
    similarity: float
    coverage: float
    constant: float
    least: float
    least_later: float


CALIBRATED = ("preheat.late-interaction-v1", "preheat.minilm-l6-v2")
"""The reranker and the embedder whose scores the weights were made with."""
BOTH = Weights(7.51, 5.74, 2.03, -7.91, -0.5, -1.58)
RERANKED = Weights(12.51, 0.0, 1.55, -7.64, -0.37, -1.4)
NEAREST = Weights(0.0, 9.9, 3.98, -6.85, -1.02, -1.39)
WORDS = Weights(0.0, 0.0, 6.67, -3.56, -1.05, -1.05)
"""Fitted on half of the questions (even sha256 of the id) of clapnq-dev, xquad-en and mtrag-un, each with questions of
the other two that its documents cannot answer, clapnq-dev also with its 300 whose passages come near and do not answer.
`least` lets 97% of the answerable first questions pass, `least_later` 95% of the answerable follow-ups. On the other
half, with BOTH: AUC 0.986, 0.993, 0.949 against foreign questions, 0.864 against those that come near; answered are
99%, 95%, 93% of the answerable; refused are 84%, 95%, 95% of the foreign and 27% of the near ones, which are left to
the model. NEAREST: AUC 0.983, 0.988, 0.941 and 0.853; answered 99%, 97%, 93%; refused 78%, 91%, 84% and 17%. WORDS:
AUC 0.884, 0.939, 0.864 and 0.699; answered 96%, 96%, 93%; refused 47%, 65%, 39% and 16%. Since then the reranker looks
at windows too; what relevance counts was carried over by linear regression on 668 questions, its own and foreign ones
(correlation 0.993). `bench/answers.py` prints such figures."""


@dataclass(frozen=True)
class Evidence:
    """`coverage` 0 to 1; `relevance` and `similarity` None where there are none that compare; `later`: of a question in
    a conversation. `score` is above 0 when it is `enough`, by how much in logits."""

    coverage: float
    relevance: float | None = None
    similarity: float | None = None
    later: bool = False

    @property
    def score(self) -> float:
        if self.relevance is not None:
            weights = BOTH if self.similarity is not None else RERANKED
        else:
            weights = NEAREST if self.similarity is not None else WORDS
        found = weights.relevance * (self.relevance or 0.0) + weights.similarity * (self.similarity or 0.0)
        least = weights.least_later if self.later else weights.least
        return found + weights.coverage * self.coverage + weights.constant - least

    @property
    def enough(self) -> bool:
        return self.score >= 0

    def shown(self) -> dict[str, Any]:
        values = {"coverage": self.coverage, "relevance": self.relevance, "similarity": self.similarity}
        told = {name: round(value, 4) for name, value in values.items() if value is not None}
        return {**told, "score": round(self.score, 3), "enough": self.enough}


def coverage(asked: Asked, passages: Sequence[Passage]) -> float:
    """The share of the question's words, the longer the more they count, that one passage holds at most. In a
    conversation words of the question before it count where they raise the share."""
    held = [set(terms(f"{one.title} {one.context} {one.text}")) for one in passages]
    return max((_share(text, one) for text in _texts(asked) for one in held), default=0.0)


def _texts(asked: Asked) -> list[str]:
    texts = [asked.question]
    if asked.earlier:
        texts.append(f"{asked.earlier[-1].question} {asked.question}")
    return texts


def _share(text: str, held: set[str]) -> float:
    weights = Statement.read(text).weights
    total = sum(weights.values())
    return sum(weight for term, weight in weights.items() if term in held) / total if total else 1.0


class Watched:
    """A store that remembers, for each thread, how near the first search by meaning came since it was asked."""

    def __init__(self, inner: VectorStore) -> None:
        self._inner = inner
        self._seen = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def nearest(self) -> float | None:
        """The best passage's cosine; None where there was no such search."""
        found: float | None = getattr(self._seen, "similarity", None)
        self._seen.similarity = None
        return found

    def dense(self, vector: Sequence[float], count: int, model: str, where: Filter | None) -> list[tuple[str, float]]:
        found = self._inner.dense(vector, count, model, where)
        if found and getattr(self._seen, "similarity", None) is None:
            self._seen.similarity = 1.0 - found[0][1]
        return found


class Judge:
    """`models` are the reranker's and the embedder's whose scores are seen; `store` is the one that is searched."""

    def __init__(self, models: Sequence[str] = (), store: Watched | None = None) -> None:
        self._reranked, self._embedded = (one in models for one in CALIBRATED)
        self._store = store

    def begin(self) -> None:
        """A search begins in this thread."""
        if self._store is not None:
            self._store.nearest()

    def evidence(self, asked: Asked, found: Retrieved) -> Evidence:
        """Of the search that has ended in this thread."""
        nearest = self._store.nearest() if self._store is not None else None
        return Evidence(
            coverage(asked, found.passages[:LOOKED_AT]),
            found.relevance if self._reranked else None,
            nearest if self._embedded and found.mode == "hybrid" else None,
            bool(asked.earlier),
        )

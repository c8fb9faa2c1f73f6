"""How alike a statement and sentences are, by an embedder's vectors. What cannot be compared is not alike."""

from collections.abc import Sequence

from ragkit.embed import Embedder, EmbeddingUnavailable

MOST_CALLS = 4


class Likeness:
    """For one answer: it asks the embedder at most `MOST_CALLS` times."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._left = MOST_CALLS

    def __call__(self, statement: str, sentences: list[str]) -> list[float]:
        if self._left <= 0:
            return [0.0] * len(sentences)
        self._left -= 1
        try:
            said, *others = self._embedder.documents([statement, *sentences])
        except EmbeddingUnavailable:
            return [0.0] * len(sentences)
        return [cosine(said, one) for one in others]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = (sum(x * x for x in one) * sum(x * x for x in other)) ** 0.5
    return sum(x * y for x, y in zip(one, other)) / lengths if lengths else 0.0

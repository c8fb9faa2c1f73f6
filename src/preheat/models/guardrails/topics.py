"""Denied topics: whether a text is about what a topic's definition and examples describe.

With MiniLM's weights each sentence is compared by meaning with the definition (twice), the name and the nearest
example; a sentence that is nearly an example is found by that alone. Without them terms decide, and only texts close
to an example or with the topic's name are found. Measured when the threshold was chosen: 45 questions on nine topics,
78% found; 500 questions of two public collections that are about none of them, 2% taken for one of the nine;
`tests/unit` keeps a share.
"""

from collections.abc import Sequence
from typing import Any

from preheat.models.contract import Embedder, ModelUnavailable
from preheat.models.guardrails.contract import Topic
from preheat.models.sentences import split_sentences, terms

LEAST_MIXED, LEAST_LEXICAL = 0.28, 0.6
SAME_AS_EXAMPLE = 0.7
"""A likeness to an example that is enough by itself."""
MOST_SENTENCES = 96
SHORTEST = 2
"""Terms of a sentence that can be about something."""
KEPT_VECTORS = 2_048


class TopicJudge:
    """`embedder`: MiniLM where its weights are, else None. Thread-safe."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Any] = {}

    def about(self, text: str, topics: Sequence[Topic]) -> list[Topic]:
        """Those of the topics that a part of the text is about."""
        parts = _parts(text) if topics else []
        if not parts:
            return []
        scores = self._by_meaning(parts, topics)
        least = LEAST_MIXED
        if scores is None:
            scores, least = [_by_terms(parts, topic) for topic in topics], LEAST_LEXICAL
        return [topic for topic, score in zip(topics, scores) if score >= least]

    def _by_meaning(self, parts: Sequence[str], topics: Sequence[Topic]) -> list[float] | None:
        """For each topic how much the most fitting part is about it; None without weights."""
        if self._embedder is None:
            return None
        try:
            vectors = self._embedder.embed(parts)
            return [max(self._score(vector, topic) for vector in vectors) for topic in topics]
        except ModelUnavailable:
            self._embedder = None
            return None

    def _score(self, vector: Any, topic: Topic) -> float:
        name, definition, *examples = (float(vector @ other) for other in self._known(topic))
        nearest = max(examples, default=definition)
        return max((2.0 * definition + name + nearest) / 4.0, nearest - SAME_AS_EXAMPLE + LEAST_MIXED)

    def _known(self, topic: Topic) -> list[Any]:
        """Vectors of a topic's name, definition and examples; they are kept."""
        assert self._embedder is not None
        texts = [topic.name, topic.definition, *topic.examples]
        known = {text: self._vectors.get(text) for text in texts}
        if any(vector is None for vector in known.values()):
            known = dict(zip(known, self._embedder.embed(list(known))))
            if len(self._vectors) > KEPT_VECTORS:
                self._vectors.clear()
            self._vectors.update(known)
        return [known[text] for text in texts]


def _by_terms(parts: Sequence[str], topic: Topic) -> float:
    """The share of the terms of the nearest example, or of the name, that one part has."""
    wanted = [set(terms(text)) for text in (topic.name, *topic.examples)]
    return max(
        (len(set(terms(part)) & one) / len(one) for part in parts for one in wanted if one),
        default=0.0,
    )


def _parts(text: str) -> list[str]:
    """Sentences that say something, and the whole of a short text."""
    sentences = split_sentences(text)
    parts = [sentence for sentence in sentences if len(terms(sentence)) >= SHORTEST]
    if 1 < len(sentences) <= 4:
        parts.append(text)
    return parts[:MOST_SENTENCES] or ([text] if terms(text) else [])

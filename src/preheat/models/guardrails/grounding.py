"""Contextual grounding: whether an answer is supported by its source, and whether it is about the query.

GROUNDING is the support of the answer's sentences, the least supported one counting as much as their mean: a sentence
is supported by the source's windows of one and two sentences through likeness of meaning (MiniLM) and the share of
its terms that they have; a number that the source does not have takes a lot away, a name a little. RELEVANCE is the
likeness of query and answer, and the share of the query's terms that the answer has. Without weights terms decide
alone. Scores are 0 to 1 and stretched so that 0.7 is where gold answers and others part.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from preheat.models.contract import Embedder, ModelUnavailable
from preheat.models.sentences import split_sentences, terms

MOST_WINDOWS = 400
CANDIDATES = 24
"""Windows of the source that are compared by meaning for each sentence, those with most common terms first."""
MEANING, TERMS = 0.6, 0.4
SPREAD = 0.25
"""How much terms count that stand anywhere in the source."""
NUMBERS, NAMES = 0.4, 0.1
"""What a missing number, and missing names, take away."""
WORST, MEAN = 0.5, 0.5
LEAST_GROUNDED, LEAST_RELEVANT = 0.38, 0.38
"""Unstretched scores that most gold answers reach and answers to other questions do not."""
PIVOT = 0.7
_NUMBER = re.compile(r"\d[\d.,]*\d|\d")
_NAME = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][a-zA-Z]{2,}\b")


class GroundingJudge:
    """`embedder`: MiniLM where its weights are, else None. Thread-safe."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder

    def grounded(self, answer: str, source: str) -> float:
        """How far the source supports the answer."""
        sentences = [one for one in split_sentences(answer) if terms(one)] or [answer]
        windows = _windows(source)
        if not windows:
            return 0.0
        known = [set(terms(window)) for window in windows]
        everything = set().union(*known)
        scores = []
        for sentence in sentences:
            wanted = set(terms(sentence))
            if not wanted:
                continue
            shares = [len(wanted & have) / len(wanted) for have in known]
            best = sorted(range(len(windows)), key=lambda at: -shares[at])[:CANDIDATES]
            likeness = self._likeness(sentence, [windows[at] for at in best])
            local = max(
                shares[at] if one is None else TERMS * shares[at] + MEANING * one
                for at, one in zip(best, likeness or [None] * len(best))
            )
            spread = len(wanted & everything) / len(wanted)
            scores.append(max(0.0, (1.0 - SPREAD) * local + SPREAD * spread - _missing(sentence, source)))
        if not scores:
            return 1.0
        return _stretched(WORST * min(scores) + MEAN * sum(scores) / len(scores), LEAST_GROUNDED)

    def relevant(self, answer: str, query: str) -> float:
        """How far the answer is about the query."""
        asked, said = set(terms(query)), set(terms(answer))
        share = len(asked & said) / len(asked) if asked else 1.0
        parts = [answer, *split_sentences(answer)[:CANDIDATES]]
        likeness = self._likeness(query, parts)
        if likeness is None:
            return _stretched(share, LEAST_RELEVANT)
        return _stretched(0.85 * max(likeness) + 0.3 * share, LEAST_RELEVANT)

    def _likeness(self, text: str, others: Sequence[str]) -> list[float] | None:
        if self._embedder is None:
            return None
        try:
            one, *rest = self._embedder.embed([text, *others])
        except ModelUnavailable:
            self._embedder = None
            return None
        return [max(0.0, float(vector @ one)) for vector in rest]


def _windows(source: str) -> list[str]:
    sentences = split_sentences(source)[:MOST_WINDOWS]
    return [*sentences, *(f"{one} {other}" for one, other in pairwise(sentences))]


def _missing(sentence: str, source: str) -> float:
    """What the sentence's numbers and names that the source does not have take away."""
    numbers = {number.replace(",", "") for number in _NUMBER.findall(sentence)}
    have = {number.replace(",", "") for number in _NUMBER.findall(source)}
    names = {name.lower() for name in _NAME.findall(sentence)}
    lowered = source.lower()
    strange = sum(name not in lowered for name in names)
    return NUMBERS * bool(numbers - have) + (NAMES * strange / len(names) if names else 0.0)


def _stretched(score: float, least: float) -> float:
    """`least` becomes PIVOT, 0 and 1 stay."""
    score = min(1.0, max(0.0, score))
    share = score / least * PIVOT if score < least else PIVOT + (score - least) / (1.0 - least) * (1.0 - PIVOT)
    return round(share, 2)

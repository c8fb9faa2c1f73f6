"""Prompt attacks: texts that try to change what a model is told to do, or to see it.

Patterns in English and, for the common ones, in fourteen other languages; each has a weight of 1 to 3, and distinct
hints add up. What is encoded (base64, hexadecimal, percent, ROT13, backwards, spaced letters, invisible or look-alike
characters) is decoded first, and an attack that had to be decoded is never of low confidence.
"""

import re

from preheat.models.guardrails.contract import LEVELS, Level
from preheat.models.guardrails.folding import hidden, spellings
from preheat.models.guardrails.patterns import read_patterns


class PromptAttacks:
    """Finds prompt attacks; the expressions are compiled when it is made."""

    def __init__(self) -> None:
        self._patterns = [(weight, pattern) for _, weight, pattern in read_patterns("attacks.txt")]

    def confidence(self, text: str) -> Level:
        best = self._weigh(spellings(text))
        if best < 3:
            decoded = max((self._weigh(spellings(plain)) for plain in hidden(text)), default=0)
            if decoded >= 2:
                best = 3
        return LEVELS[best]

    def _weigh(self, texts: list[str]) -> int:
        texts = [re.sub(r"[^\S\n]+", " ", text) for text in texts]
        hits = [weight for weight, pattern in self._patterns if any(pattern.search(text) for text in texts)]
        best = max(hits, default=0)
        if best < 3 and sum(hits) >= 4:
            return 3
        return 2 if best < 2 and len(hits) > 1 else best

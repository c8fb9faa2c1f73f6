"""Prompt attacks: texts that try to change what a model is told to do, or to see it.

Patterns in English and, by family (override, reveal, role, smuggle), in fourteen other languages; each has a weight of
1 to 3, and distinct hints add up. What is encoded (base64, hexadecimal, percent, ROT13, backwards,
spaced letters, words joined or cut, invisible or look-alike characters) is decoded first, and an attack that had to be
decoded is never of low confidence.
"""

import re

from preheat.models.guardrails.contract import LEVELS, Level
from preheat.models.guardrails.folding import fold, hidden, spellings
from preheat.models.guardrails.patterns import read_patterns

FILES = ("attacks.txt", "attacks_world.txt")
SPARED = ".spare"
OTHER_SCRIPTS = ("zh.", "ja.", "ko.", "ar.", "hi.", "ru.")
"""Nothing of theirs is in a text of ASCII alone."""
_JOINTS = re.compile(r"(?<=[^\W\d_])[-_.](?=[^\W\d_])")
_TOGETHER = re.compile(
    r"(?<!not)(?<!dont)(?<!never)(?:ignore|disregard|forget)(?:all|any)?(?:of)?(?:the|your|my|these)?"
    r"(?:previous|prior|preceding|above|earlier)(?:system)?(?:instructions?|prompts?|rules|directions|commands)"
)
"""The commonest attack, in a text whose words are cut anywhere."""


class PromptAttacks:
    """Finds prompt attacks; the expressions are compiled when it is made."""

    def __init__(self) -> None:
        found = [one for name in FILES for one in read_patterns(name)]
        self._spared = [pattern for category, _, pattern in found if category.endswith(SPARED)]
        kept = [one for one in found if not one[0].endswith(SPARED)]
        self._patterns = [(weight, pattern) for _, weight, pattern in kept]
        self._ascii = [(weight, pattern) for name, weight, pattern in kept if not name.startswith(OTHER_SCRIPTS)]

    def confidence(self, text: str) -> Level:
        best = self._weigh(spellings(text))
        if best < 3 and _TOGETHER.search(re.sub(r"[\W_]+", "", fold(text))):
            return LEVELS[3]
        if best < 3:
            decoded = max((self._weigh(spellings(plain)) for plain in hidden(text)), default=0)
            if decoded >= 2:
                best = 3
        return LEVELS[best]

    def _weigh(self, texts: list[str]) -> int:
        texts = [re.sub(r"[^\S\n]+", " ", text) for text in texts]
        for spared in self._spared:
            texts = [spared.sub(" ", text) for text in texts]
        texts += [_JOINTS.sub(" ", text) for text in texts[:1] if _JOINTS.search(text)]
        patterns = self._ascii if all(text.isascii() for text in texts) else self._patterns
        hits = [weight for weight, pattern in patterns if any(pattern.search(text) for text in texts)]
        best = max(hits, default=0)
        if best < 3 and sum(hits) >= 4:
            return 3
        return 2 if best < 2 and len(hits) > 1 else best

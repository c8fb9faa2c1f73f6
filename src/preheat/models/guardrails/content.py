"""Harmful content by patterns, with a confidence: HIGH for what hardly means anything else, LOW for single words.

No model of language is behind this: what is said in unusual words, in other languages than English, or between the
lines is not seen, and a text about harm (a crime report) may be taken for harm at low confidence.
"""

import hashlib
import re

from preheat.models.guardrails.contract import LEVELS, Level
from preheat.models.guardrails.folding import spellings
from preheat.models.guardrails.patterns import read_patterns

_SLURS = (
    "044eb98b18 08a841e996 0ce875d620 120f6e5b4e 12e6274e43 158869a973 16ea09fc78 17a110e533 1e02eec4f1 "
    "22fc75e65a 268651b3ec 333f761809 341d56384a 3b1e0d7c5d 402f7ebd98 45cd3e1bb4 5b3ae48be1 7122c9a14b "
    "82159dd028 886d51e97a 8f5083e3e5 92a9bf818e 98b52c4b6b bb209d506b c1cabb6f6e c3de533e9b cc02032349 "
    "da0a6b1b92 daec0c235d e7b98c6aa5 eef3bd0916 f9d0d9b18a "
)
SLURS = frozenset(_SLURS.split())
"""Slurs against groups of people, as the first ten hexadecimal digits of sha256: nobody has to read them here."""


class ContentFilters:
    """Finds content; the expressions are compiled when it is made."""

    def __init__(self) -> None:
        self._patterns: dict[str, list[tuple[int, re.Pattern[str]]]] = {}
        for category, weight, pattern in read_patterns("content.txt"):
            self._patterns.setdefault(category, []).append((weight, pattern))

    def confidence(self, text: str) -> dict[str, Level]:
        """By category how sure it is that the text has such content. Two hints of one level count as the next."""
        found: dict[str, Level] = {}
        texts = [re.sub(r"\s+", " ", spelling) for spelling in spellings(text)]
        for name, patterns in self._patterns.items():
            hits = [level for level, pattern in patterns if any(pattern.search(one) for one in texts)]
            if name == "HATE" and any(_is_slur(word) for one in texts for word in re.findall(r"[^\W\d_]+", one)):
                hits.append(3)
            best = max(hits, default=0)
            if best in (1, 2) and hits.count(best) > 1:
                best += 1
            found[name] = LEVELS[best]
        return found


def _is_slur(word: str) -> bool:
    return len(word) > 3 and hashlib.sha256(word.encode()).hexdigest()[:10] in SLURS

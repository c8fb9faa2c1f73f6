"""Words and phrases that are not wanted: whole words, whatever their case, accents or disguise."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from preheat.models.guardrails.folding import fold, spellings

_TOKEN = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_ENDINGS = ("", "s", "es", "ed", "er", "ers", "ing", "in", "y", "ty", "head", "heads", "face", "faces", "hole", "holes")


class Phrases:
    """Phrases as given; looking for them takes time linear in the text, however many there are."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._inside: list[tuple[str, str]] = []
        for phrase in phrases:
            folded = fold(phrase).strip()
            tokens = tuple(_TOKEN.findall(folded))
            if _UNSPACED.search(phrase):
                self._inside.append((folded, phrase))
            elif tokens:
                self._by_first.setdefault(tokens[0], []).append((tokens, phrase))

    def find(self, text: str) -> list[str]:
        """The phrases that the text has, each once, in the order of their first place."""
        folded = fold(text)
        tokens = _TOKEN.findall(folded)
        found: dict[str, None] = {}
        for at, token in enumerate(tokens):
            for wanted, phrase in self._by_first.get(token, ()):
                if tuple(tokens[at : at + len(wanted)]) == wanted:
                    found[phrase] = None
        for wanted, phrase in self._inside:
            if wanted in folded:
                found[phrase] = None
        return list(found)


class Profanity:
    """Common English profanity and its inflections, also with digits for letters or letters set apart."""

    def __init__(self) -> None:
        stems = (Path(__file__).parent / "profanity.txt").read_text().split()
        self._exact = frozenset(stem[:-1] for stem in stems if stem.endswith("!"))
        self._words = self._exact | {f"{stem}{end}" for stem in stems if not stem.endswith("!") for end in _ENDINGS}

    def find(self, text: str) -> list[str]:
        """The words as the text spells them once folded, each once."""
        return list(dict.fromkeys(self._hits(text)))

    def _hits(self, text: str) -> Iterator[str]:
        for spelling in spellings(text):
            for word in re.findall(r"[^\W\d_]+", spelling):
                squeezed = re.sub(r"(.)\1{2,}", r"\1", word)
                if word in self._words or squeezed in self._words:
                    yield word

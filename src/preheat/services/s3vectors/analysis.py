"""Text analysis for full-text search: text -> terms, per language, after the manner of Lucene's analyzers.

`analyzer(None)` splits words and lower-cases them (Lucene's standard analyzer). A language adds stop words and a
Snowball stemmer; zh, ja and ko index overlapping pairs of characters. Terms are plain strings.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

Analyzer = Callable[[str], list[str]]

STEM_CACHE = 200_000
MAX_TERM = 255
SNOWBALL = {
    "en": "english",
    "fr": "french",
    "es": "spanish",
    "pt": "portuguese",
    "it": "italian",
    "de": "german",
    "nl": "dutch",
}
ELISION = {
    "fr": re.compile(r"^(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu)['’]"),
    "it": re.compile(r"^(?:[cdlmnstv]|[dn]?ell|all|dall|sull|un)['’]"),
}

_CJK = "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_LETTERS = rf"(?:(?![{_CJK}])\w)+(?:['’.](?:(?![{_CJK}])\w)+)*"
_WORD, _RUN, _IS_CJK = rf"[{_CJK}]|{_LETTERS}", rf"[{_CJK}]+|{_LETTERS}", f"[{_CJK}]"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """These take milliseconds to compile: not before they are used."""
    return re.compile(pattern)


def words(text: str) -> list[str]:
    """Lower-case words. An apostrophe between letters, and a full stop between two letters or two digits, joins, as
    in Unicode's word boundaries; a character of Chinese, Japanese or Korean script is a word of its own."""
    found = []
    for word in _compiled(_WORD).findall(text.lower()):
        found.extend(_parts(word) if "." in word else (word,))
    return [word[:MAX_TERM] for word in found]


def analyzer(language: str | None) -> Analyzer:
    """The analyzer of a text search configuration. It remembers stems, so one instance serves a whole index."""
    if language is None:
        return words
    if language in ("zh", "ja", "ko"):
        return bigrams
    return _Stemming(language)


def bigrams(text: str) -> list[str]:
    """Pairs of neighbouring characters for runs of Chinese, Japanese and Korean script, words for the rest."""
    terms: list[str] = []
    for run in _compiled(_RUN).findall(text.lower()):
        if not _compiled(_IS_CJK).match(run):
            terms.extend(_parts(run))
        elif len(run) == 1:
            terms.append(run)
        else:
            terms.extend(run[at : at + 2] for at in range(len(run) - 1))
    return terms


class _Stemming:
    """Words without stop words, stemmed by Snowball."""

    def __init__(self, language: str) -> None:
        import snowballstemmer

        self._stem = snowballstemmer.stemmer(SNOWBALL[language]).stemWord
        self._elision = ELISION.get(language)
        self._possessive = language == "en"
        stop_words = json.loads((Path(__file__).parent / "stop_words.json").read_text(encoding="utf-8"))
        self._stems: dict[str, str] = dict.fromkeys(stop_words[language].split(), "")

    def __call__(self, text: str) -> list[str]:
        stems = self._stems
        terms = []
        for word in words(text):
            term = stems.get(word)
            if term is None:
                term = self._make(word)
            if term:
                terms.append(term)
        return terms

    def _make(self, word: str) -> str:
        plain = word
        if self._possessive and plain[-2:] in ("'s", "’s"):
            plain = plain[:-2]
        elif self._elision is not None:
            plain = self._elision.sub("", plain)
        known = self._stems.get(plain)
        term = self._stem(plain) if known is None else known
        if len(self._stems) < STEM_CACHE:
            self._stems[word] = term
        return term


def _parts(word: str) -> Sequence[str]:
    """Split at full stops that do not stand between two letters or two digits."""
    pieces = word.split(".")
    joined = [pieces[0]]
    for piece in pieces[1:]:
        before, after = joined[-1][-1:], piece[:1]
        if before.isdigit() == after.isdigit():
            joined[-1] += "." + piece
        else:
            joined.append(piece)
    return joined

"""BERT's uncased WordPiece in plain Python, id for id what the reference tokenizers give.

One deliberate difference: a literal "[SEP]" or "[CLS]" in a text is text, not a control token.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

CACHED_WORDS = 50_000
LONGEST_WORD = 100

_ASCII_TOKENS = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
_ASCII_CONTROLS = {code: None for code in [*range(32), 127] if chr(code) not in "\t\n\r"}
_CONTROLS = ("Cc", "Cf", "Co", "Cs")
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """`vocabulary` is the file with one token a line; the line number is the id."""

    def __init__(self, vocabulary: Path) -> None:
        lines = vocabulary.read_text(encoding="utf-8").split("\n")
        self._ids = {token: index for index, token in enumerate(lines) if token}
        self.cls, self.sep = self._ids["[CLS]"], self._ids["[SEP]"]
        self._unknown = (self._ids["[UNK]"],)
        self._words: dict[str, tuple[int, ...]] = {}

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Token -> id; do not change it."""
        return self._ids

    def encode(self, text: str, max_tokens: int = 0) -> list[int]:
        """Ids with [CLS] and [SEP]; cut to `max_tokens` in all when that is not 0."""
        ids = [self.cls]
        limit = max_tokens - 1 if max_tokens else None
        for word in self._split(text):
            ids.extend(self._pieces(word))
            if limit is not None and len(ids) >= limit:
                del ids[limit:]
                break
        ids.append(self.sep)
        return ids

    def count(self, text: str) -> int:
        """Tokens of the whole text, [CLS] and [SEP] included."""
        return 2 + sum(len(self._pieces(word)) for word in self._split(text))

    def _split(self, text: str) -> Sequence[str]:
        if text.isascii():
            return _ASCII_TOKENS.findall(text.translate(_ASCII_CONTROLS).lower())
        return _split_unicode(text)

    def _pieces(self, word: str) -> tuple[int, ...]:
        known = self._words.get(word)
        if known is None:
            known = self._cut(word)
            if len(self._words) >= CACHED_WORDS:
                self._words.clear()
            self._words[word] = known
        return known

    def _cut(self, word: str) -> tuple[int, ...]:
        """Longest match first; [UNK] when a rest has none."""
        if len(word) > LONGEST_WORD:
            return self._unknown
        ids, start, length = [], 0, len(word)
        while start < length:
            prefix = "##" if start else ""
            for end in range(length, start, -1):
                found = self._ids.get(prefix + word[start:end])
                if found is not None:
                    break
            else:
                return self._unknown
            ids.append(found)
            start = end
        return tuple(ids)


def _split_unicode(text: str) -> list[str]:
    """Clean, put CJK characters apart, strip accents, lower, split at white space and around punctuation."""
    cleaned = []
    for char in text:
        if char in "\t\n\r" or (char.isspace() and unicodedata.category(char)[0] == "Z"):
            cleaned.append(" ")
        elif char == "\ufffd" or unicodedata.category(char) in _CONTROLS:
            continue
        elif _is_cjk(ord(char)):
            cleaned.append(f" {char} ")
        else:
            cleaned.append(char)
    bare = (char for char in unicodedata.normalize("NFD", "".join(cleaned)) if unicodedata.category(char) != "Mn")
    spaced = []
    for char in bare:
        lowered = char.lower()
        spaced.append(f" {lowered} " if _is_punctuation(char) else lowered)
    return "".join(spaced).split()


def _is_cjk(code: int) -> bool:
    return code >= 0x3400 and any(first <= code <= last for first, last in _CJK)


def _is_punctuation(char: str) -> bool:
    code = ord(char)
    if code < 128:
        return 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return unicodedata.category(char)[0] == "P"

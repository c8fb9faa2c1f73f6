"""How many tokens a text has, about, without a model's vocabulary.

`estimate` goes by the shapes of words: a tokenizer of the WordPiece or byte-pair kind keeps common short words whole
and cuts long, rare or foreign ones. The tables are mean numbers of pieces by a word's length, measured with the
WordPiece vocabulary of BERT (uncased) on half of the documents of four English collections; on the other half it is 4 %
off on average and 27 % at worst for texts of 50 tokens or more. Names from other languages, identifiers and rare
scripts are where it is worst. The models' own counts decide in the end: see `ragkit.embed`.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

KEPT_TEXTS, KEPT_CHARACTERS = 512, 8_000
SPECIAL = 2
"""Tokens that a model puts around a text."""
LEAST_SPACE = 0.5
"""Of a piece: it ends at white space that comes later than this, else in the middle of things."""
_PIECE = re.compile(
    r"(?P<low>[a-z]{1,100})|(?P<cap>[A-Za-z]{1,100})|(?P<digits>[0-9]{1,100})"
    r"|(?P<wide>[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])"
    r"|(?P<foreign>[^\W\d_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]{1,100})|(?P<sign>\S)"
)
_LOW = (0.0, 1.0, 1.0, 1.01, 1.02, 1.02, 1.06, 1.12, 1.15, 1.2, 1.37, 1.35, 1.44, 1.62, 2.1, 2.3, 3.3)
_CAP = (0.0, 1.0, 1.02, 1.12, 1.13, 1.13, 1.18, 1.24, 1.28, 1.41, 1.49, 1.6, 1.65, 1.89, 2.2, 3.6, 3.9)
_DIGITS = (0.0, 1.0, 1.0, 1.28, 1.28, 2.5, 3.2, 3.5)
_LETTERS_A_PIECE = 3.6
_DIGITS_A_PIECE = 2.0
_FOREIGN_A_PIECE = 1.7


def estimate(text: str) -> float:
    """Tokens of a text, without what a model puts around it."""
    return _remembered(text) if len(text) <= KEPT_CHARACTERS else sum(weights(text))


@lru_cache(KEPT_TEXTS)
def _remembered(text: str) -> float:
    """Cutting and embedding ask for the same texts several times."""
    return sum(weights(text))


def weights(text: str) -> Iterator[float]:
    """The tokens of each run of letters or digits and of each sign, in order."""
    for found in _PIECE.finditer(text):
        yield weight(found)


def weight(found: "re.Match[str]") -> float:
    kind, length = found.lastgroup, found.end() - found.start()
    if kind == "low":
        return _LOW[length] if length < len(_LOW) else length / _LETTERS_A_PIECE
    if kind == "cap":
        return _CAP[length] if length < len(_CAP) else length / _LETTERS_A_PIECE
    if kind == "digits":
        return _DIGITS[length] if length < len(_DIGITS) else length / _DIGITS_A_PIECE
    return max(1.0, length / _FOREIGN_A_PIECE) if kind == "foreign" else 1.0


def pieces(text: str, limit: float) -> list[str]:
    """The text cut at white space where it can be, into pieces of up to `limit` tokens each."""
    found: list[str] = []
    start, size = 0, 0.0
    space, at_space = 0, 0.0
    for match in _PIECE.finditer(text):
        cost = weight(match)
        if match.start() > start and text[match.start() - 1].isspace():
            space, at_space = match.start(), size
        if size + cost > limit and match.start() > start:
            at_white = space > start and at_space >= LEAST_SPACE * size
            cut = space if at_white else match.start()
            found.append(text[start:cut])
            size = size - at_space if at_white else 0.0
            start = cut
        size += cost
    found.append(text[start:])
    return [one.strip() for one in found if one.strip()]

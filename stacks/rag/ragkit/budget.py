"""What goes into a prompt of limited size: the question always, then as many passages and earlier turns as fit.

Tokens are estimated, on the high side: 1.35 a word, one a character in scripts without spaces, and at least one for
four characters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragkit.asked import Turn
from ragkit.store import Passage

TOKENS_A_WORD = 1.35
CHARACTERS_A_TOKEN = 4
AROUND = 12
"""Tokens of a passage's number and a message's frame."""
LEAST_OF_A_PASSAGE = 60

_WIDE = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_PIECE = re.compile(r"\S+\s*")


@dataclass(frozen=True)
class Fitted:
    """`note` says what was left out, empty when nothing was."""

    passages: list[Passage]
    turns: tuple[Turn, ...]
    summary: str
    note: str = ""


def tokens(text: str) -> int:
    wide = len(_WIDE.findall(text))
    return wide + max(round(len(text.split()) * TOKENS_A_WORD), (len(text) - wide) // CHARACTERS_A_TOKEN)


def fit(
    question: str, passages: Sequence[Passage], turns: Sequence[Turn], summary: str, most: int, system: str = ""
) -> Fitted:
    """The lowest passages go first, then the oldest turns, then the summary; the best passage stays, shortened if it
    must be, and the question stays as it is. `most` is in tokens."""
    kept, said, told = list(passages), list(turns), summary
    room = most - tokens(question) - tokens(system) - 2 * AROUND
    size = sum(map(_passage, kept)) + sum(map(_turn, said)) + tokens(told)
    while size > room and len(kept) > 1:
        size -= _passage(kept.pop())
    while size > room and said:
        size -= _turn(said.pop(0))
    if size > room and told:
        size, told = size - tokens(told), ""
    shortened = bool(kept) and size > room
    if shortened:
        others = size - _passage(kept[0])
        kept[0] = replace(kept[0], text=_cut(kept[0].text, max(LEAST_OF_A_PASSAGE, room - others - AROUND)))
    return Fitted(kept, tuple(said), told, _note(passages, kept, turns, said, summary and not told, shortened))


def _note(
    passages: Sequence[Passage], kept: Sequence[Passage], turns: Sequence[Turn], said: Sequence[Turn],
    forgotten: object, shortened: bool,
) -> str:  # fmt: skip
    found = []
    if len(kept) < len(passages):
        found.append(f"{len(passages) - len(kept)} of {len(passages)} passages")
    if len(said) < len(turns):
        found.append(f"{len(turns) - len(said)} earlier turns")
    if forgotten:
        found.append("the summary")
    if shortened:
        found.append("part of the best passage")
    return f"left out to fit the model: {', '.join(found)}" if found else ""


def _passage(passage: Passage) -> int:
    return tokens(passage.text) + tokens(passage.context or passage.title) + AROUND


def _turn(turn: Turn) -> int:
    return tokens(turn.question) + tokens(turn.answer) + 2 * AROUND


def _cut(text: str, most: int) -> str:
    """The text up to the last whole word (or character, in a text without spaces) that fits."""
    size, end = 0.0, 0
    for piece in _PIECE.finditer(text):
        word = piece[0]
        cost = max(TOKENS_A_WORD, len(word) / CHARACTERS_A_TOKEN, float(len(_WIDE.findall(word))))
        if size + cost > most:
            return (text[:end] or text[: max(1, int(most - size))]).rstrip()
        size, end = size + cost, piece.end()
    return text

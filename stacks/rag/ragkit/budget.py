"""What goes into a prompt of limited size: the question always, then as many passages and earlier turns as fit.

Tokens are estimated (`ragkit.tokens`); the budget should leave a tenth for what the model counts otherwise.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ragkit.asked import Turn
from ragkit.generate import Usage
from ragkit.store import Passage
from ragkit.tokens import estimate, pieces

AROUND = 12
"""Tokens of a passage's number and a message's frame."""
LEAST_OF_A_PASSAGE = 60


@dataclass(frozen=True)
class Fitted:
    """`note` says what was left out, empty when nothing was."""

    passages: list[Passage]
    turns: tuple[Turn, ...]
    summary: str
    note: str = ""


def tokens(text: str) -> int:
    return math.ceil(estimate(text))


def reckoned(read: Iterable[str], written: str) -> Usage:
    """What a model took that was not heard to the end, and so did not say."""
    return Usage(sum(map(tokens, read)), tokens(written))


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
        kept[0] = replace(kept[0], text=pieces(kept[0].text, max(LEAST_OF_A_PASSAGE, room - others - AROUND))[0])
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
    return f"Left out to fit the model: {', '.join(found)}" if found else ""


def _passage(passage: Passage) -> int:
    return tokens(passage.text) + tokens(passage.context or passage.title) + AROUND


def _turn(turn: Turn) -> int:
    return tokens(turn.question) + tokens(turn.answer) + 2 * AROUND

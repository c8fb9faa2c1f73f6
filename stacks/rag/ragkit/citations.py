"""Marks like [2] or [1, 3] in an answer -> the passages they stand for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ragkit.store import Passage

_MARK = re.compile(r"\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")


@dataclass(frozen=True)
class Citation:
    """`number` is the mark; `places` are (start, end) of every mark in the answer's characters."""

    number: int
    passage: Passage
    places: tuple[tuple[int, int], ...]


def cited(answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """The passages that the answer cites, by number. Marks without a passage are left out."""
    places: dict[int, list[tuple[int, int]]] = {}
    for mark in _MARK.finditer(answer):
        for number in _numbers(mark[1]):
            if 1 <= number <= len(passages):
                places.setdefault(number, []).append(mark.span())
    return [Citation(number, passages[number - 1], tuple(places[number])) for number in sorted(places)]


def without_unknown(answer: str, count: int) -> str:
    """The answer with marks that stand for none of `count` passages taken out."""

    def keep(mark: re.Match[str]) -> str:
        numbers = _numbers(mark[1])
        known = [number for number in numbers if 1 <= number <= count]
        if known == numbers:
            return mark[0]
        return f"[{', '.join(map(str, known))}]" if known else ""

    return _MARK.sub(keep, answer)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.split(r"\s*[,;]\s*", text)]

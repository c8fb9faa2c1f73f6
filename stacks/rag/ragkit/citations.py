"""Marks like [2] or [1, 3] in an answer -> the passages they stand for, as far as these support what is said.

A mark belongs to the sentence that it ends or stands in; sentences before it that have no mark of their own rest on it
too. A mark whose passage does not support its sentence is taken out of the answer. Passages that are cited together may
support a sentence together.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ragkit.grounding import NONE, Similar, Span, Statement, Support, merged, sentence_spans, support
from ragkit.store import Passage

_MARK = re.compile(r"\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")
_GROUP = re.compile(r"(?:\s{0,8}\[\d{1,4}(?:\s*[,;]\s*\d{1,4})*\])+")
_JOINT = 0.2
"""Of passages that support a sentence together, each adds at least this share of it."""
MOST_MARKS = 60


@dataclass(frozen=True)
class Citation:
    """`number` is the mark; `places` are (start, end) of every mark in the answer's characters; `quotes` those of the
    sentences of the passage's text that support what is said."""

    number: int
    passage: Passage
    places: tuple[Span, ...]
    quotes: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Verified:
    """`answer` has the marks that hold; `dropped` is how many did not."""

    answer: str
    citations: list[Citation]
    dropped: int


@dataclass
class _Tally:
    dropped: int = 0
    quotes: dict[int, list[Span]] = field(default_factory=dict)


def verified(
    answer: str, passages: Sequence[Passage], question: str = "", similar: Similar | None = None
) -> Verified:
    """The answer without marks that stand for no passage or for one that does not support its sentence."""
    tally = _Tally()
    pieces: list[str] = []
    end = 0
    for count, group in enumerate(_GROUP.finditer(answer)):
        before = answer[end : group.start()]
        numbers = list(dict.fromkeys(n for mark in _MARK.finditer(group[0]) for n in _numbers(mark[1])))
        known = [number for number in numbers if 1 <= number <= len(passages)]
        said = _sentences(before) or _sentences(answer[group.end() :])[:1]
        held = _held(said, known, passages, question, similar) if count < MOST_MARKS else {}
        tally.dropped += len(numbers) - len(held)
        for number, quotes in held.items():
            tally.quotes.setdefault(number, []).extend(quotes)
        pieces += [before, _kept(group[0], lambda number, held=held: number in held)]  # type: ignore[misc]
        end = group.end()
    text = "".join([*pieces, answer[end:]])
    citations = [
        Citation(one.number, one.passage, one.places, merged(tally.quotes.get(one.number, ()), one.passage.text))
        for one in cited(text, passages)
    ]
    return Verified(text, citations, tally.dropped)


def _held(
    said: list[str], numbers: list[int], passages: Sequence[Passage], question: str, similar: Similar | None
) -> dict[int, tuple[Span, ...]]:
    """The numbers whose passages support the last of the sentences `said`, with the sentences that do."""
    if not said or not numbers:
        return {}
    statements = [_statement(one, question) for one in said]
    found = {number: _support(statements[-1], passages[number - 1], similar) for number in numbers}
    held = {number for number, one in found.items() if one.holds}
    if len(numbers) > 1:
        held |= _together(statements[-1], found, held, passages)
    quotes = {number: list(found[number].quotes) for number in numbers if number in held}
    for statement in statements[:-1]:
        for number, spans in quotes.items():
            also = _support(statement, passages[number - 1], None)
            spans.extend(also.quotes if also.holds else ())
    return {number: tuple(spans) for number, spans in quotes.items()}


def _together(
    statement: Statement, found: dict[int, Support], held: set[int], passages: Sequence[Passage]
) -> set[int]:
    """The numbers whose passages add to what the `held` ones, or, where there are none, all of them say together."""
    others = {number for number, one in found.items() if number not in held and one.score >= _JOINT}
    if not others:
        return set()
    if not held:
        return others if _joint(statement, others, passages).holds else set()
    before = max(found[number].score for number in held)
    added = {number: _joint(statement, held | {number}, passages) for number in others}
    return {number for number, one in added.items() if one.holds and one.score >= before + _JOINT}


def _joint(statement: Statement, numbers: set[int], passages: Sequence[Passage]) -> Support:
    chosen = [passages[number - 1] for number in sorted(numbers)]
    return support(statement, "\n\n".join(one.text for one in chosen), " ".join(map(_titles, chosen)))


def _statement(text: str, question: str) -> Statement:
    """A sentence that says nothing by itself ("Yes.") stands for what was asked."""
    read = Statement.read(text, question)
    return read if read.weights else Statement.read(question, question)


def _support(statement: Statement, passage: Passage, similar: Similar | None) -> Support:
    return support(statement, passage.text, _titles(passage), similar) if statement.weights else NONE


def _titles(passage: Passage) -> str:
    return f"{passage.title} {passage.context}"


def _sentences(text: str) -> list[str]:
    parts = [text[start:end].strip(" \t\n.,;:") for start, end in sentence_spans(text)]
    return [part for part in parts if any(letter.isalnum() for letter in part)]


def cited(answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """The passages that the answer cites, by number, unchecked. Marks without a passage are left out."""
    places: dict[int, list[Span]] = {}
    for mark in _MARK.finditer(answer):
        for number in _numbers(mark[1]):
            if 1 <= number <= len(passages):
                places.setdefault(number, []).append(mark.span())
    return [Citation(number, passages[number - 1], tuple(places[number])) for number in sorted(places)]


def without_unknown(answer: str, count: int) -> str:
    """The answer with marks that stand for none of `count` passages taken out."""
    return _kept(answer, lambda number: 1 <= number <= count)


def _kept(text: str, keep: Callable[[int], bool]) -> str:
    """The text with the marks' numbers that are to be kept; a mark without one goes, with the space before it."""

    def replaced(mark: re.Match[str]) -> str:
        numbers = _numbers(mark[2])
        known = [number for number in numbers if keep(number)]
        if known == numbers:
            return mark[0]
        return f"{mark[1]}[{', '.join(map(str, known))}]" if known else ""

    return re.sub(r"(\s{0,8})" + _MARK.pattern, replaced, text)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.split(r"\s*[,;]\s*", text)]

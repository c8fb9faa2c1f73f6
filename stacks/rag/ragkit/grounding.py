"""Does a passage support a statement, and which of its sentences do?

A statement is supported by up to three sentences of a passage that together hold most of its terms, all of its numbers
and most of its names, and do not say the opposite (`ragkit.contradiction`). Terms are words without inflection (pairs
of characters in scripts without spaces), so this works on quotes and on paraphrases that keep the words. What is said
in other words altogether is only recognised with `similar`, which compares meanings.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ragkit.contradiction import contradicts

Span = tuple[int, int]
Similar = Callable[[str, list[str]], list[float]]
"""(a statement, sentences) -> the cosine of each with the statement."""

LEAST = 0.5
"""The share of a statement's terms that supporting sentences hold. Of the sentences of gold answers 99% (clapnq-dev)
and 79% (mtrag-un, where people wrote freely) are supported by the passage that they are from, and 2% and 4% by other
passages that retrieval found for the question; with a number changed, 13% and 8% still are by theirs."""
DOUBTFUL = 0.25
"""From here to `LEAST` similarity decides, where there is one."""
LEAST_SIMILARITY = 0.6
MOST_SENTENCES = 3
WORTH_QUOTING = 0.15
MISSING_NAMES = 0.34
LONGEST_PASSAGE = 20_000

_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)?")
_WIDE = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_NAME = re.compile(r"(?<![.!?:]\s)(?<!^)(?<![\"“(\n])\b[A-Z][\w’'-]*\w")
_BREAK = re.compile(r"""[.!?…][\])"'”’]*(?=\s)|[。！？]|\n\s*\n|\n(?=\s*(?:[-*•|#]|\d+[.)])\s?)""")
_SHORT = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|No|vs|etc|e\.g|i\.e|Fig|al|approx|ca|bzw)|\b[A-Z])\.$")
_EMPTY_WORDS = (
    "a about after all also an and any are as at be because been before being but by can could did do does for from "
    "had has have he her his how i if in into is it its may more most no not of on one only or other our out she so "
    "some such than that the their them then there these they this to too up was we were what when where which while "
    "who whom whose why will with would you your yes"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())
_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())}
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "edly", "ers", "er", "ed", "es", "ly", "s", "e", "y")


@dataclass(frozen=True)
class Support:
    """`score` is the share of the statement that the sentences at `quotes` hold, 0 to 1; `holds` whether they are
    enough."""

    holds: bool
    score: float
    quotes: tuple[Span, ...] = ()


NONE = Support(False, 0.0)


@dataclass(frozen=True)
class Statement:
    """A text taken apart, once for all passages that it is compared with."""

    text: str
    weights: dict[str, float]
    numbers: frozenset[str]
    names: frozenset[str]

    @classmethod
    def read(cls, text: str, known: str = "") -> "Statement":
        """Names in `known` (the question) are not asked of the passage; where nouns have capitals, no names are."""
        found = terms(text)
        told = frozenset(terms(known))
        names = {term for name in _NAME.findall(text) for term in terms(name)}
        words = [word for word in _WORD.findall(text) if word.lower() not in _EMPTY]
        nouns = bool(words) and sum(word[0].isupper() for word in words) > 0.5 * len(words)
        weights = {term: 2.0 if term[0].isdigit() else min(1.0, 0.25 + len(term) / 8) for term in found}
        digits = frozenset(term for term in weights if term[0].isdigit())
        return cls(text, weights, digits, frozenset() if nouns else frozenset(names - told - digits))

    @property
    def total(self) -> float:
        return sum(self.weights.values())


def support(statement: Statement, text: str, title: str = "", similar: Similar | None = None) -> Support:
    """How a passage's `text` supports the statement; what `title` (and headings) say counts as said in the text."""
    text = text[:LONGEST_PASSAGE]
    spans = sentence_spans(text)
    total = statement.total
    if not spans or not total:
        return NONE
    held = [statement.weights.keys() & set(terms(text[start:end])) for start, end in spans]
    chosen: list[int] = []
    covered: set[str] = set()
    for _ in range(MOST_SENTENCES):
        gains = [sum(statement.weights[term] for term in found - covered) for found in held]
        best = max(range(len(spans)), key=lambda at: (gains[at], -at))
        if gains[best] < WORTH_QUOTING * total:
            break
        chosen.append(best)
        covered |= held[best]
    if not chosen:
        return NONE
    said = frozenset(terms(title))
    score = sum(statement.weights[term] for term in covered | (statement.weights.keys() & said)) / total
    quotes = merged([spans[at] for at in chosen], text)
    if not statement.numbers <= covered | said:
        return Support(False, score, quotes)
    if len(statement.names - covered - said) > MISSING_NAMES * len(statement.names):
        return Support(False, score, quotes)
    if score >= DOUBTFUL and contradicts(statement.text, "\n".join(text[start:end] for start, end in quotes), terms):
        return Support(False, score, quotes)
    if score < LEAST and similar is not None and score >= DOUBTFUL:
        near = max(similar(statement.text, [text[start:end] for start, end in quotes]))
        return Support(near >= LEAST_SIMILARITY, score, quotes)
    return Support(score >= LEAST, score, quotes)


def best_sentence(statement: Statement, text: str) -> tuple[float, Span] | None:
    """The sentence of `text` that holds most of the statement's terms, and their share; rows of tables and markup are
    none. None where no sentence holds any."""
    text = text[:LONGEST_PASSAGE]
    best: tuple[float, Span] | None = None
    for start, end in sentence_spans(text):
        said = text[start:end]
        if said[0] in "|<#`{" or said.count("|") > 1:
            continue
        held = sum(statement.weights[term] for term in statement.weights.keys() & set(terms(said)))
        if held and (best is None or held / statement.total > best[0]):
            best = held / statement.total, (start, end)
    return best


def terms(text: str) -> list[str]:
    """Words without inflection and without the emptiest, numbers as digits, in order."""
    found = []
    for word in _WORD.findall(text):
        if word[0].isdigit():
            found.append(re.sub(r"(?<=\d),(?=\d{3})", "", word))
        elif _WIDE.search(word):
            found += [word[at : at + 2] for at in range(max(1, len(word) - 1))]
        else:
            word = word.casefold().removesuffix("'s").removesuffix("’s")
            if word not in _EMPTY:
                found.append(_NUMBERS.get(word) or stem(word))
    return found


def stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls" else word


def sentence_spans(text: str) -> list[Span]:
    """(start, end) of each sentence, list item and table row, without the white space around it."""
    spans: list[Span] = []
    start = 0
    for found in _BREAK.finditer(text):
        if found[0][0] == "." and _SHORT.search(text, max(start, found.start() - 12), found.start() + 1):
            continue
        _add(spans, text, start, found.end())
        start = found.end()
    _add(spans, text, start, len(text))
    return spans


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        spans.append((start, end))


def merged(spans: Sequence[Span], text: str) -> tuple[Span, ...]:
    """In order; spans with nothing but white space between them are one."""
    result: list[Span] = []
    for start, end in sorted(set(spans)):
        if result and not text[result[-1][1] : start].strip():
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(result)

"""The extractive answerer: quotes the sentences of the given passages that answer the question, and cites them.

It has no knowledge of its own and writes no sentence of its own except the ones in this module's constants. The
prompt's form is in `preheat.models.passages`. A sentence's score is the share of the question's meaning that it covers
(terms weighted by rarity among the given sentences, BM25's saturation), with its neighbours and title as context, a cue
for the kind of question, its passage's rank, and, where the weights are there, MiniLM's similarity of sentence and
question. In a conversation the question before counts too. The best sentence is quoted, with others of its passage that
come near it, neighbours first: fewer where a fact is asked for, more for an explanation. Another passage's sentence is
added when it covers a part of the question that the first passage leaves open. Rows of tables, markup, code, headings
and sentences that give orders to a reader like this one are not quoted.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from preheat.models.contract import Embedder, Message, ModelUnavailable
from preheat.models.generation import TextGeneration
from preheat.models.passages import Passage, read_prompt
from preheat.models.sentences import split_sentences, terms

NOT_ANSWERED = "The documents do not answer this question."
NO_PASSAGES = (
    "I am preheat.extractive-v1, an extractive answerer: I quote sentences from passages given in the prompt and cite "
    "them. This prompt has no passages, so there is nothing to quote."
)
NO_QUESTION = "The prompt has passages but no question, so there is nothing to look for."

MOST_SENTENCES, MOST_FACTS = 3, 2
CANDIDATES = 8
"""Sentences that are compared by MiniLM, best lexical scores first."""
COVERAGE_WEIGHT, SIMILARITY_WEIGHT = 0.35, 0.65
KEPT_VECTORS = 8_192
"""Sentence vectors kept in memory, 0.8 kB each."""
CONTEXT_SHARE = 0.4
RANK_BONUS = 0.1
"""Of the first passage's sentences; the second's have half of it, and so on."""
BEFORE_SHARE = 0.25
"""How much the question before counts, in a conversation."""
CUE_BONUS = 0.12
CLEAR, CLEAR_LEAD = 0.7, 0.25
"""A sentence that covers so much of the question, and so much more than the next, needs no comparison by MiniLM: that
takes 5 to 50 ms for sentences that were not seen before."""
LEAST_LEXICAL, LEAST_MIXED = 0.36, 0.37
"""Below this best score nothing is quoted."""
KEEP_SHARE, KEEP_FACTS, KEEP_OTHERS = 0.8, 0.92, 0.9
"""Further sentences are quoted when they score at least this share of the best one; the last is of other passages'."""
NEIGHBOUR_BONUS = 0.1
"""Of the sentences before and after the best one, as a share of their score."""
OPEN_SHARE = 0.2
"""What a sentence of another passage must cover of the question beyond the passage quoted first."""
LONGEST_HEADING = 10
SAME_SHARE = 0.75
"""A sentence that shares this much of its terms with a quoted one is redundant."""

_COUNT = re.compile(r"[^\W_]+|[^\w\s]")
_WORDS = re.compile(r"\S+\s*")
_CUES: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = tuple(
    (re.compile(asked, re.IGNORECASE), re.compile(shown))
    for asked, shown in (
        (
            r"\b(when|what (year|date|day|month|century|decade)|which (year|century|decade)|how long ago)\b",
            r"\b(1\d{3}|20\d{2}|\d+(st|nd|rd|th) century|January|February|March|April|May|June|July|August|September"
            r"|October|November|December|(?i:mon|tues|wednes|thurs|fri|satur|sun)day)\b",
        ),
        (
            r"\bhow (many|much|long|old|far|tall|big|large|often|fast|high|deep)\b|\bwhat (percent|number|amount)",
            r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|dozen|hundred|thousand|million|billion|half)\b",
        ),
        (r"\b(who|whom|whose)\b", r"(?<!^)\b[A-Z][\w'’-]+(\s+((of|de|da|von|van|the)\s+)?[A-Z][\w'’-]+)+"),
        (r"\bwhere\b", r"\b(in|at|near|from|to|of)\s+(the\s+)?[A-Z][a-z]+"),
        (r"\bwhy\b", r"\b(because|since|due to|so that|in order to|as a result|caused|reason|therefore)\b"),
    )
)
_FACT = re.compile(
    r"\b(when|who|whom|whose|where|which|how (many|much|long|old|far|tall|big|large|often|fast|high|deep|late)"
    r"|what (year|date|day|month|century|decade|percent\w*|number|amount|name|kind|type|city|country|colou?r)"
    r"|what (is|was|were|are) the (names?|number|date|year))\b",
    re.IGNORECASE,
)
_EXPLANATION = re.compile(
    r"\b(why|how (do|does|did|can|is|are|was|were|to|could|would)|describe|explain|compare|difference|benefits)\b",
    re.IGNORECASE,
)
_MARK = re.compile(r"\s?\[\d{1,4}(?:\s*[,;]\s*\d{1,4})*\]")
_MARKUP = re.compile(r"\s*(?:[|#<{}]|```|~~~|\.\. |:[\w-]+:|@\w|//|/\*|\$ |>>> )|.*\|.*\||.*\t.*\t", re.DOTALL)
_ENDED = re.compile(r"""[.!?。！？:;…][\])"'”’]*$""")
_ITEM = re.compile(r"(?:[-*•]|\d+[.)])\s")
_ORDER = re.compile(
    r"\b(ignore|disregard|forget|override|bypass)\b.{0,60}\b(previous|prior|above|earlier|preceding|all|any|other|your"
    r"|these|the)\b.{0,40}\b(instructions?|prompts?|rules?|messages?|context|passages?|documents?|directions?|questions?)\b"
    r"|\b(you are|act as|pretend to be|roleplay as)\b.{0,30}\b(now|an? (ai|assistant|chatbot|language model|dan))\b"
    r"|\b(system|developer) (prompt|message|instructions?|override)\b|\bnew instructions?\b"
    r"|\b(as|when) (an ai|a language model|an assistant)\b"
    r"|\b(reply|respond|answer)\b.{0,30}\b(only|exactly|with)\b.{0,60}$"
    r"|\b(always|must|never)\b.{0,20}\b(answer|reply|respond|say|cite|mention)\b.{0,60}$",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """`mark` is its passage's number, `order` its place in the prompt, `rank` its passage's place (0 first)."""

    text: str
    mark: int
    order: int
    rank: int
    terms: tuple[str, ...]
    context: frozenset[str]


class ExtractiveAnswerer:
    """`embedder`: MiniLM where its weights are, else None and the terms alone decide. Thread-safe."""

    def __init__(self, id: str = "preheat.extractive-v1", embedder: Embedder | None = None) -> None:
        self.id = id
        self._embedder = embedder
        self._vectors: dict[str, Any] = {}

    def generate(
        self,
        messages: Sequence[Message],
        system: str = "",
        max_tokens: int = 1_024,
        stop: Sequence[str] = (),
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> TextGeneration:
        """Nothing is drawn by chance, so there is nothing for `temperature` and `top_p` to act on."""
        read = self.count_tokens(system) + sum(self.count_tokens(message.text) for message in messages)
        return TextGeneration(self._speak(messages, system), self.count_tokens, read, max_tokens, stop)

    def count_tokens(self, text: str) -> int:
        """Words and punctuation marks."""
        return len(_COUNT.findall(text))

    def _speak(self, messages: Sequence[Message], system: str) -> Iterator[str]:
        prompt = read_prompt(messages, system)
        if not prompt.passages:
            yield from _WORDS.findall(NO_PASSAGES)
            return
        if not terms(prompt.question):
            yield from _WORDS.findall(NO_QUESTION)
            return
        quotes = self.select(prompt.question, prompt.passages, prompt.before)
        if not quotes:
            yield from _WORDS.findall(NOT_ANSWERED)
        for at, quote in enumerate(quotes):
            last = at + 1 == len(quotes) or quotes[at + 1].mark != quote.mark
            yield from _WORDS.findall(" ".join(_MARK.sub("", quote.text).split()))
            yield (f" [{quote.mark}]" if last else "") + ("" if at + 1 == len(quotes) else " ")

    def select(self, question: str, passages: Sequence[Passage], before: str = "") -> list[Sentence]:
        """The sentences to quote, in passage order; empty when nothing matches well enough. `before` is the question
        asked before this one."""
        sentences = _sentences(passages)
        scores = lexical_scores(question, sentences)
        if terms(before):
            earlier = lexical_scores(before, sentences)
            shares = [one + BEFORE_SHARE * other for one, other in zip(scores, earlier)]
            scores = [share / (1 + BEFORE_SHARE) for share in shares]
        least = LEAST_LEXICAL
        if self._embedder is not None and sentences and not _clear(scores):
            try:
                scores = self._mix(question, sentences, scores, before)
                least = LEAST_MIXED
            except ModelUnavailable:
                pass
        scores = [score and score + RANK_BONUS / (1 + one.rank) for one, score in zip(sentences, scores)]
        return _choose(question, sentences, scores, least)

    def _mix(self, question: str, sentences: Sequence[Sentence], lexical: list[float], before: str) -> list[float]:
        best = sorted(range(len(sentences)), key=lambda at: -lexical[at])[:CANDIDATES]
        asked = [question, f"{before} {question}"] if before else [question]
        vectors = self._embed([*asked, *(sentences[at].text for at in best)])
        wanted = vectors[0] if not before else (1 - BEFORE_SHARE) * vectors[0] + BEFORE_SHARE * vectors[1]
        mixed = [0.0] * len(sentences)
        for at, vector in zip(best, vectors[len(asked) :]):
            mixed[at] = COVERAGE_WEIGHT * lexical[at] + SIMILARITY_WEIGHT * max(0.0, float(vector @ wanted))
        return mixed

    def _embed(self, texts: Sequence[str]) -> list[Any]:
        """Vectors of the texts; those of passages that come again and again are kept."""
        assert self._embedder is not None
        known = {text: self._vectors[text] for text in texts if text in self._vectors}
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            known.update((text, vector.astype("float16")) for text, vector in zip(new, self._embedder.embed(new)))
            if len(self._vectors) + len(new) > KEPT_VECTORS:
                self._vectors.clear()
            self._vectors.update((text, known[text]) for text in new)
        return [known[text].astype("float32") for text in texts]


def lexical_scores(question: str, sentences: Sequence[Sentence]) -> list[float]:
    """For each sentence how much of the question it covers, about 0 to 1."""
    asked = Counter(terms(question))
    found = Counter(term for sentence in sentences for term in {*sentence.terms, *sentence.context} if term in asked)
    weight = {term: math.log(1.0 + (len(sentences) + 10.0) / (max(1, found[term]) + 2.0)) for term in asked}
    total = sum(weight.values()) or 1.0
    average = sum(len(sentence.terms) for sentence in sentences) / max(1, len(sentences)) or 1.0
    cues = [shown for wanted, shown in _CUES if wanted.search(question)]
    scores = []
    for sentence in sentences:
        counts = Counter(sentence.terms)
        norm = 0.25 + 0.75 * min(2.0, len(sentence.terms) / average)
        own = context = 0.0
        for term, value in weight.items():
            if counts[term]:
                own += value * (0.7 + 0.3 * counts[term] * 2.2 / (counts[term] + 1.2 * norm) / 2.2)
            elif term in sentence.context:
                context += value
        score = (own + CONTEXT_SHARE * context) / total
        if score and cues:
            score += CUE_BONUS * sum(1 for cue in cues if cue.search(sentence.text)) / len(cues)
        scores.append(score if own else 0.0)
    return scores


def _sentences(passages: Sequence[Passage]) -> list[Sentence]:
    """Every sentence that is one; its context is the passage's title and the sentences before and after it."""
    sentences: list[Sentence] = []
    for rank, passage in enumerate(passages):
        texts = split_sentences(passage.text)
        stems = [tuple(terms(text)) for text in texts]
        title = set(terms(passage.title))
        for at, text in enumerate(texts):
            around = title.union(*stems[max(0, at - 2) : at], *stems[at + 1 : at + 2])
            if len(stems[at]) >= 2 and _quotable(text, alone=len(texts) == 1):
                sentences.append(Sentence(text, passage.mark, len(sentences), rank, stems[at], frozenset(around)))
    return sentences


def _clear(scores: Sequence[float]) -> bool:
    first, second = [*sorted(scores, reverse=True)[:2], 0.0, 0.0][:2]
    return first >= CLEAR and first - second >= CLEAR_LEAD


def _quotable(text: str, *, alone: bool) -> bool:
    """Whether it is a sentence or an item of a list, and speaks to no one in particular. A passage of one line without
    a full stop has nothing better."""
    if _MARKUP.match(text) or _ORDER.search(text):
        return False
    heading = not _ENDED.search(text) and not _ITEM.match(text) and len(text.split()) <= LONGEST_HEADING
    return alone or not heading


def _choose(question: str, sentences: Sequence[Sentence], scores: Sequence[float], least: float) -> list[Sentence]:
    best = max(range(len(sentences)), key=lambda at: (scores[at], -at), default=None)
    if best is None or scores[best] < least:
        return []
    fact = _FACT.search(question) is not None and not _EXPLANATION.search(question)
    most, share, bonus = (MOST_FACTS, KEEP_FACTS, 0.0) if fact else (MOST_SENTENCES, KEEP_SHARE, NEIGHBOUR_BONUS)
    first = sentences[best]
    near = {
        at: scores[at] * (1.0 + bonus * (one.mark == first.mark and abs(one.order - first.order) == 1))
        for at, one in enumerate(sentences)
    }
    floor, other_floor = (max(least, one * scores[best]) for one in (share, KEEP_OTHERS))
    asked = set(terms(question)).intersection(term for one in sentences for term in one.terms)
    chosen = [first]
    for at in sorted(near, key=lambda at: (-near[at], at)):
        if near[at] < min(floor, other_floor) or len(chosen) == MOST_SENTENCES:
            break
        one = sentences[at]
        if any(_same(one, other) for other in chosen):
            continue
        if one.mark == first.mark:
            wanted = near[at] >= floor and len(chosen) < most
        else:
            covered = {term for other in chosen for term in (*other.terms, *other.context)}
            added = asked.intersection(one.terms) - covered
            wanted = near[at] >= other_floor and len(added) >= max(1.0, OPEN_SHARE * len(asked))
        if wanted:
            chosen.append(one)
    return sorted(chosen, key=lambda sentence: sentence.order)


def _same(one: Sentence, other: Sentence) -> bool:
    mine, theirs = set(one.terms), set(other.terms)
    return len(mine & theirs) >= SAME_SHARE * min(len(mine), len(theirs))

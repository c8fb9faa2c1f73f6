"""The extractive answerer: quotes the sentences of the given passages that answer the question, and cites them.

It has no knowledge of its own and writes no sentence of its own except the ones in this module's constants. The
prompt's form is in `preheat.models.passages`. A sentence's score is the share of the question's meaning that it covers
(terms weighted by rarity among the given sentences, BM25's saturation), with its neighbours and title as context, a cue
for the kind of question, and, where the weights are there, MiniLM's similarity of sentence and question.
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

MOST_SENTENCES = 4
CANDIDATES = 12
"""Sentences that are compared by MiniLM, best lexical scores first."""
COVERAGE_WEIGHT, SIMILARITY_WEIGHT = 0.35, 0.65
KEPT_VECTORS = 4_096
"""Sentence vectors kept in memory, 1.5 kB each."""
CONTEXT_SHARE = 0.4
RANK_SHARE = 0.05
CUE_BONUS = 0.12
LEAST_LEXICAL, LEAST_MIXED = 0.34, 0.44
"""Below this best score nothing is quoted."""
KEEP_SHARE = 0.8
"""Further sentences are quoted when they score at least this share of the best one."""
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
        quotes = self.select(prompt.question, prompt.passages)
        if not quotes:
            yield from _WORDS.findall(NOT_ANSWERED)
        for at, quote in enumerate(quotes):
            last = at + 1 == len(quotes) or quotes[at + 1].mark != quote.mark
            yield from _WORDS.findall(quote.text)
            yield (f" [{quote.mark}]" if last else "") + ("" if at + 1 == len(quotes) else " ")

    def select(self, question: str, passages: Sequence[Passage]) -> list[Sentence]:
        """The sentences to quote, in passage order; empty when nothing matches well enough."""
        sentences = _sentences(passages)
        scores = lexical_scores(question, sentences)
        least = LEAST_LEXICAL
        if self._embedder is not None and sentences:
            try:
                scores = self._mix(question, sentences, scores)
                least = LEAST_MIXED
            except ModelUnavailable:
                pass
        return _choose(sentences, scores, least)

    def _mix(self, question: str, sentences: Sequence[Sentence], lexical: list[float]) -> list[float]:
        best = sorted(range(len(sentences)), key=lambda at: -lexical[at])[:CANDIDATES]
        asked, *vectors = self._embed([question, *(sentences[at].text for at in best)])
        mixed = [0.0] * len(sentences)
        for at, vector in zip(best, vectors):
            mixed[at] = COVERAGE_WEIGHT * lexical[at] + SIMILARITY_WEIGHT * max(0.0, float(vector @ asked))
        return mixed

    def _embed(self, texts: Sequence[str]) -> list[Any]:
        """Vectors of the texts; those of passages that come again and again are kept."""
        assert self._embedder is not None
        known = {text: self._vectors[text] for text in texts if text in self._vectors}
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            known.update(zip(new, self._embedder.embed(new)))
            if len(self._vectors) + len(new) > KEPT_VECTORS:
                self._vectors.clear()
            self._vectors.update((text, known[text]) for text in new)
        return [known[text] for text in texts]


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
        scores.append(score * (1.0 + RANK_SHARE / (1 + sentence.rank)) if own else 0.0)
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
            if len(stems[at]) >= 2:
                sentences.append(Sentence(text, passage.mark, len(sentences), rank, stems[at], frozenset(around)))
    return sentences


def _choose(sentences: Sequence[Sentence], scores: Sequence[float], least: float) -> list[Sentence]:
    ranked = sorted(range(len(sentences)), key=lambda at: (-scores[at], at))
    if not ranked or scores[ranked[0]] < least:
        return []
    chosen: list[Sentence] = []
    floor = max(least, KEEP_SHARE * scores[ranked[0]])
    for at in ranked:
        if scores[at] < floor or len(chosen) == MOST_SENTENCES:
            break
        if not any(_same(sentences[at], other) for other in chosen):
            chosen.append(sentences[at])
    return sorted(chosen, key=lambda sentence: sentence.order)


def _same(one: Sentence, other: Sentence) -> bool:
    mine, theirs = set(one.terms), set(other.terms)
    return len(mine & theirs) >= SAME_SHARE * min(len(mine), len(theirs))

"""Applies a policy to contents: every detector asked, findings gathered, what is personal masked."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from preheat.models.contract import Embedder
from preheat.models.guardrails.contract import (
    LEVELS,
    TAKEN,
    TEXT_UNIT,
    Content,
    Finding,
    Level,
    Policy,
    Sides,
    Source,
    Taken,
    Verdict,
)
from preheat.models.guardrails.regexes import SafeRegex

if TYPE_CHECKING:
    from preheat.models.guardrails.attacks import PromptAttacks
    from preheat.models.guardrails.content import ContentFilters
    from preheat.models.guardrails.grounding import GroundingJudge
    from preheat.models.guardrails.pii import Entities
    from preheat.models.guardrails.topics import TopicJudge
    from preheat.models.guardrails.words import Phrases, Profanity

ATTACK = "PROMPT_ATTACK"


class Detectors:
    """What all guardrails share: made when first used, once. Thread-safe."""

    def __init__(self, embedder: Callable[[], Embedder | None]) -> None:
        self._embedder = embedder
        self.lock = threading.RLock()

    @cached_property
    def content(self) -> "ContentFilters":
        from preheat.models.guardrails.content import ContentFilters

        return ContentFilters()

    @cached_property
    def attacks(self) -> "PromptAttacks":
        from preheat.models.guardrails.attacks import PromptAttacks

        return PromptAttacks()

    @cached_property
    def entities(self) -> "Entities":
        from preheat.models.guardrails.pii import Entities

        return Entities()

    @cached_property
    def profanity(self) -> "Profanity":
        from preheat.models.guardrails.words import Profanity

        return Profanity()

    @cached_property
    def topics(self) -> "TopicJudge":
        from preheat.models.guardrails.topics import TopicJudge

        return TopicJudge(self._embedder())

    @cached_property
    def grounding(self) -> "GroundingJudge":
        from preheat.models.guardrails.grounding import GroundingJudge

        return GroundingJudge(self._embedder())


@dataclass(frozen=True, slots=True)
class _Mark:
    """A place in a text that is to be masked."""

    begin: int
    end: int
    label: str


class Guardrail:
    """A policy ready to be applied. Raises TooComplex for a pattern that cannot be evaluated safely."""

    def __init__(self, policy: Policy, detectors: Detectors) -> None:
        self.policy = policy
        self._detectors = detectors
        self._lock = threading.Lock()
        self._regexes = [(pattern, SafeRegex(pattern.pattern)) for pattern in policy.patterns]
        self._phrases: dict[Source, Phrases] = {}
        self._words = {word.text: word for word in policy.words}

    @property
    def holds_back(self) -> int | None:
        """Characters of a stream that may still become part of a finding; None: all of it."""
        from preheat.models.guardrails.pii import LONGEST

        lengths = [regex.longest for pattern, regex in self._regexes if pattern.sides.output is not None]
        if any(one is None for one in lengths) or any(one.action for one in self.policy.grounding):
            return None
        return max([LONGEST, *(one for one in lengths if one is not None)])

    def masked(self, text: str) -> str:
        """An answer's text with masks. Raises TooComplex."""
        return self._personal(text, "OUTPUT")[1]

    def assess(self, contents: Sequence[Content], source: Source) -> Verdict:
        """Raises TooComplex."""
        guarded = [content for content in contents if content.guard]
        findings: list[Finding] = []
        texts: list[str] = []
        joined = "\n".join(content.text for content in guarded)
        if guarded:
            findings += self._topics(joined, source)
            findings += self._content(guarded, source)
            findings += self._forbidden(joined, source)
        for content in guarded:
            found, text = self._personal(content.text, source)
            findings += found
            texts.append(text)
        if source == "OUTPUT":
            findings += self._grounding(contents, joined)
        size = sum(len(content.text) for content in guarded)
        total = sum(len(content.text) for content in contents)
        return Verdict(source, _unique(findings), tuple(texts), self._units(contents, joined, source), size, total)

    # -- one policy after the other -----------------------------------------------------------------------------------

    def _topics(self, text: str, source: Source) -> Iterator[Finding]:
        wanted = [topic for topic in self.policy.topics if topic.sides.of(source) is not None]
        with self._detectors.lock:
            judge = self._detectors.topics
        found = judge.about(text, wanted) if wanted else []
        for topic in wanted:
            hit = topic in found
            yield Finding("topic", topic.name, _taken(topic.sides, source, hit), hit)

    def _content(self, guarded: Sequence[Content], source: Source) -> Iterator[Finding]:
        wanted = [
            one for one in self.policy.filters if one.sides.of(source) is not None and one.strength(source) != "NONE"
        ]
        if not wanted:
            return
        with self._detectors.lock:
            filters, attacks = self._detectors.content, self._detectors.attacks
        text = "\n".join(content.text for content in guarded)
        levels = filters.confidence(text) if any(one.type != ATTACK for one in wanted) else {}
        for one in wanted:
            if one.type == ATTACK:
                asked = [content.text for content in guarded if content.attacks]
                if source == "OUTPUT" or not asked:
                    continue
                level: Level = attacks.confidence("\n".join(asked))
            else:
                level = levels[one.type]
            strength = one.strength(source)
            hit = LEVELS.index(level) > 3 - LEVELS.index(strength)
            taken = _taken(one.sides, source, hit)
            yield Finding("content", one.type, taken, hit, confidence=level, strength=strength)

    def _forbidden(self, text: str, source: Source) -> Iterator[Finding]:
        for match in self._phrases_of(source).find(text):
            yield Finding("word", match, _taken(self._words[match].sides, source, True), match=match)
        sides = self.policy.profanity
        if sides is not None and sides.of(source) is not None:
            with self._detectors.lock:
                profanity = self._detectors.profanity
            for match in profanity.find(text):
                yield Finding("profanity", "PROFANITY", _taken(sides, source, True), match=match)

    def _phrases_of(self, source: Source) -> "Phrases":
        from preheat.models.guardrails.words import Phrases

        with self._lock:
            if source not in self._phrases:
                wanted = [word.text for word in self.policy.words if word.sides.of(source) is not None]
                self._phrases[source] = Phrases(wanted)
            return self._phrases[source]

    def _personal(self, text: str, source: Source) -> tuple[list[Finding], str]:
        """Findings of entities and patterns in one text, and the text with masks."""
        findings: list[Finding] = []
        marks: list[_Mark] = []
        wanted = {one.type: one.sides for one in self.policy.pii if one.sides.of(source) is not None}
        if wanted:
            with self._detectors.lock:
                entities = self._detectors.entities
            found = entities.find(text, wanted)
            for begin, end, kind in found:
                finding = Finding("pii", kind, _taken(wanted[kind], source, True), match=text[begin:end])
                findings.append(finding)
                if finding.action == "ANONYMIZED":
                    marks.append(_Mark(begin, end, kind))
            missing = [kind for kind in wanted if all(kind != other for _, _, other in found)]
            findings += [Finding("pii", kind, "NONE", False) for kind in missing]
        with self._lock:
            for pattern, regex in self._regexes:
                if pattern.sides.of(source) is None:
                    continue
                for begin, end in regex.spans(text):
                    action = _taken(pattern.sides, source, True)
                    found_text = text[begin:end]
                    findings.append(
                        Finding("regex", pattern.name, action, match=found_text, pattern=pattern.pattern)
                    )
                    if action == "ANONYMIZED":
                        marks.append(_Mark(begin, end, pattern.name))
        return findings, _masked(text, marks)

    def _grounding(self, contents: Sequence[Content], answer: str) -> Iterator[Finding]:
        """Needs an answer and a source (GROUNDING), or a query (RELEVANCE); without them nothing is judged."""
        wanted = [one for one in self.policy.grounding if one.action is not None]
        source = "\n\n".join(content.text for content in contents if content.source)
        query = "\n".join(content.text for content in contents if content.query)
        if not wanted or not answer.strip():
            return
        with self._detectors.lock:
            judge = self._detectors.grounding
        for one in wanted:
            if not (source if one.type == "GROUNDING" else query):
                continue
            grounds = one.type == "GROUNDING"
            score = judge.grounded(answer, source) if grounds else judge.relevant(answer, query)
            hit = score < one.threshold
            action = TAKEN[one.action or "NONE"] if hit else "NONE"
            yield Finding("grounding", one.type, action, hit, score=score, threshold=one.threshold)

    def _units(self, contents: Sequence[Content], guarded: str, source: Source) -> dict[str, int]:
        """Text units by policy: those that are set, for what they read."""
        policy, size = self.policy, -(-len(guarded) // TEXT_UNIT)
        used = {
            "topic": policy.topics,
            "content": policy.filters,
            "word": policy.words or policy.profanity,
            "pii": policy.pii,
            "regex": policy.patterns,
        }
        units = {name: size if there else 0 for name, there in used.items()}
        read = [content for content in contents if content.source or content.query]
        judged = source == "OUTPUT" and policy.grounding and read
        everything = len(guarded) + sum(len(content.text) for content in read if not content.guard)
        return {**units, "grounding": -(-everything // TEXT_UNIT) if judged else 0}


def _taken(sides: Sides, source: Source, hit: bool) -> Taken:
    return TAKEN[sides.of(source) or "NONE"] if hit else "NONE"


def _masked(text: str, marks: Sequence[_Mark]) -> str:
    """`{LABEL}` in the place of each mark; of overlapping ones the one that begins first, then the longest."""
    parts, at = [], 0
    for mark in sorted(marks, key=lambda one: (one.begin, -one.end)):
        if mark.begin >= at:
            parts += [text[at : mark.begin], f"{{{mark.label}}}"]
        at = max(at, mark.end)
    return "".join([*parts, text[at:]])


def _unique(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Each finding once; an entity that one content has is not reported as missing in another."""
    there = {(one.kind, one.name) for one in findings if one.detected}
    kept = [one for one in findings if one.detected or (one.kind, one.name) not in there]
    return tuple(dict.fromkeys(kept))


def last_break(text: str, most: int) -> int:
    """Where to cut a stream: after the last white space within the first `most` characters; 0 without one."""
    places = [match.end() for match in re.finditer(r"\s+", text[:most])]
    return places[-1] if places else 0

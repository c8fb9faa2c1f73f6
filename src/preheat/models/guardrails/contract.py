"""What a guardrail looks for, and what it found. Values only.

`Policy` is a guardrail's version; `Content` a piece of a request or an answer; `Verdict` what became of all of it.
"""

from dataclasses import dataclass
from typing import Literal

Source = Literal["INPUT", "OUTPUT"]
Action = Literal["BLOCK", "ANONYMIZE", "NONE"]
Taken = Literal["BLOCKED", "ANONYMIZED", "NONE"]
Level = Literal["NONE", "LOW", "MEDIUM", "HIGH"]
Kind = Literal["topic", "content", "word", "profanity", "pii", "regex", "grounding"]

LEVELS: tuple[Level, ...] = ("NONE", "LOW", "MEDIUM", "HIGH")
TAKEN: dict[str, Taken] = {"BLOCK": "BLOCKED", "ANONYMIZE": "ANONYMIZED", "NONE": "NONE"}
TEXT_UNIT = 1_000
"""Characters of one unit, as AWS counts what it charges."""


class TooComplex(Exception):
    """A pattern that cannot be evaluated within its bounds; the message says which."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What is done to a finding in the input and in the output; None: it is not looked for there."""

    input: Action | None = "BLOCK"
    output: Action | None = "BLOCK"

    def of(self, source: Source) -> Action | None:
        return self.input if source == "INPUT" else self.output


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    definition: str
    examples: tuple[str, ...] = ()
    sides: Sides = Sides()


@dataclass(frozen=True, slots=True)
class Filter:
    """`type` is HATE, INSULTS, SEXUAL, VIOLENCE, MISCONDUCT or PROMPT_ATTACK. A strength of HIGH acts on any
    confidence, MEDIUM on medium and high confidence, LOW on high confidence alone."""

    type: str
    input_strength: Level
    output_strength: Level
    sides: Sides = Sides()

    def strength(self, source: Source) -> Level:
        return self.input_strength if source == "INPUT" else self.output_strength


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    sides: Sides = Sides()


@dataclass(frozen=True, slots=True)
class Pii:
    type: str
    sides: Sides


@dataclass(frozen=True, slots=True)
class Pattern:
    name: str
    pattern: str
    sides: Sides


@dataclass(frozen=True, slots=True)
class Grounding:
    """`type` is GROUNDING or RELEVANCE; a score below `threshold` (0 to 1) is a finding. `action` None: off."""

    type: str
    threshold: float
    action: Action | None = "BLOCK"


@dataclass(frozen=True, slots=True)
class Policy:
    topics: tuple[Topic, ...] = ()
    filters: tuple[Filter, ...] = ()
    words: tuple[Word, ...] = ()
    profanity: Sides | None = None
    pii: tuple[Pii, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    grounding: tuple[Grounding, ...] = ()
    blocked_input: str = ""
    blocked_output: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A text and what it is for. `guard`: the policies apply to it; `source`: the answer is to be grounded in it;
    `query`: the answer is to be about it; `attacks`: prompt attacks are looked for in it."""

    text: str
    guard: bool = True
    source: bool = False
    query: bool = False
    attacks: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """`name` is the topic's, filter's, entity's or pattern's. `detected` False: looked for and not found (or, of a
    filter, found with less confidence than its strength asks for)."""

    kind: Kind
    name: str
    action: Taken
    detected: bool = True
    match: str = ""
    confidence: Level = "NONE"
    strength: Level = "NONE"
    score: float = 0.0
    threshold: float = 0.0
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`texts` are the guarded contents in order, masked where something was to be masked. `units` are text units by
    kind of policy; `guarded` and `total` are characters."""

    source: Source
    findings: tuple[Finding, ...]
    texts: tuple[str, ...]
    units: dict[str, int]
    guarded: int
    total: int

    @property
    def blocked(self) -> bool:
        return any(finding.action == "BLOCKED" for finding in self.findings)

    @property
    def masked(self) -> bool:
        return any(finding.action == "ANONYMIZED" for finding in self.findings)

    @property
    def intervened(self) -> bool:
        return self.blocked or self.masked

"""A question in its conversation -> what is searched for, and what a reranker is asked.

A follow-up is not rewritten by a model: it is searched together with what was said before, which counts for less the
longer ago it was said. Searching is linear in this: scores of words add up, and so do vectors.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ragkit.asked import Turn

EARLIER_QUESTIONS = 2
ANSWER_WORDS = 50
WORDS_OF_ITS_OWN = 2

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_EMPTY_WORDS = (
    "a about again all also am an and any are as at be because been but by can could did do does doing else ever "
    "for from get give had has have he her here hers him his how i if in into is it it's its just like me mean "
    "more most my no not now of off ok okay on one ones only or other our out please said say she should so some "
    "such tell than thank thanks that that's the their them then there these they thing things this those to too "
    "up us very was we well were what what's when where which who whom whose why will with would yes you your"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())


@dataclass(frozen=True)
class Formulation:
    """A text to search for, and how much its scores count; the question's own weight is 1."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Weights:
    """What counts beside the question: the question before it (one further back counts half of that), the answer
    before it (its first 50 words), another wording of the question. 0 leaves it out. From a plateau: on the
    conversations that `bench/retrieval.py` measures, 0.15 to 0.3 and 0.1 to 0.15 do as well."""

    question: float = 0.25
    answer: float = 0.1
    wording: float = 0.5


def formulations(
    question: str, earlier: Sequence[Turn | str] = (), also: Sequence[str] = (), weights: Weights = Weights()
) -> list[Formulation]:
    """The question first. `earlier` are the turns before it, oldest first (a string is a question whose answer is not
    known); `also` are other wordings of the question."""
    turns = [turn if isinstance(turn, Turn) else Turn(turn) for turn in earlier]
    found = [Formulation(question)]
    found += [Formulation(text, weights.wording) for text in also]
    recent = turns[::-1][:EARLIER_QUESTIONS]
    found += [Formulation(turn.question, weights.question / 2**back) for back, turn in enumerate(recent)]
    found += [Formulation(" ".join(turn.answer.split()[:ANSWER_WORDS]), weights.answer) for turn in recent[:1]]
    return [Formulation(one.text.strip(), one.weight) for one in found if one.text.strip() and one.weight > 0]


def standalone(question: str, earlier: Sequence[Turn | str] = ()) -> str:
    """The question as one text: with the question before it where it has hardly a word of its own."""
    asked = [turn.question if isinstance(turn, Turn) else turn for turn in earlier]
    own = [word for word in _WORD.findall(question.lower()) if word not in _EMPTY]
    return contextual_query(question, asked, 1 if len(own) >= WORDS_OF_ITS_OWN else 2)


def contextual_query(question: str, earlier: Sequence[str], turns: int) -> str:
    """The user's last `turns` turns as one text, the question last."""
    kept = [*earlier, question][-max(1, turns) :]
    return "\n".join(turn.strip() for turn in kept if turn.strip())

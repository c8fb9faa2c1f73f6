"""What a message wants, told before anything is searched or asked of a model: who says hello is answered at once.

A message is "greeting", "thanks", "farewell" or "help" when it is nothing but that, in English; all else is a
"question". So a question that begins with "hello" is a question.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ragkit.answering import Event
from ragkit.asked import Asked
from ragkit.caching import Answering
from ragkit.trace import Trace

Intent = Literal["question", "greeting", "thanks", "farewell", "help"]

LONGEST = 60
"""Characters of a message that can be nothing but one of these."""
_NAMED = r"(?: there| all| everyone| again| bot)?"
_PATTERNS: tuple[tuple[Intent, re.Pattern[str]], ...] = tuple(
    (intent, re.compile(pattern, re.IGNORECASE))
    for intent, pattern in (
        ("greeting", rf"(?:hi|hello|hey|hiya|good (?:morning|afternoon|evening|day)){_NAMED}(?:,? how are you)?"),
        ("thanks", r"(?:(?:ok|okay|great),? )?(?:many )?(?:thanks|thank you|thx)(?: a lot| so much| very much)?"),
        ("farewell", rf"(?:(?:okay|ok),? )?(?:bye|good ?bye|bye bye|see you|good night){_NAMED}"),
        ("help", r"(?:help|help me|what can (?:you|i) (?:do|ask)(?: here)?|how does this work|who are you)"),
    )
)
SAID: dict[Intent, str] = {
    "greeting": "Hello! Ask me something, and I look for the answer in the documents.",
    "thanks": "You are welcome.",
    "farewell": "Goodbye.",
    "help": "Ask a question, and I answer it from the documents, with the passages that the answer rests on.",
}


def intent_of(text: str) -> Intent:
    plain = " ".join(text.split()).strip(" .!?,")
    if len(plain) <= LONGEST:
        for intent, pattern in _PATTERNS:
            if pattern.fullmatch(plain):
                return intent
    return "question"


class IntentAnswerer:
    """Passes questions on. `count` is told "SmallTalk" for what is answered here."""

    def __init__(self, inner: Answering, count: Callable[[str], Any]) -> None:
        self._inner, self._count = inner, count

    def answer(self, asked: Asked, trace: Trace) -> Iterator[Event]:
        intent = intent_of(asked.question)
        if intent == "question":
            yield from self._inner.answer(asked, trace)
            return
        trace.info("intent", intent=intent)
        self._count("SmallTalk")
        trace.mark("first_token")
        took = round(trace.since())
        yield "retrieval", {"mode": "none", "note": "", "passages": [], "ranked": [], "evidence": {}}
        yield "token", {"text": SAID[intent]}
        yield "done", {
            "answer": SAID[intent], "citations": [], "answered": True, "supported": False, "notice": "",
            "usage": {"input": 0, "output": 0}, "cost_usd": 0.0, "mode": intent, "model": "", "cancelled": False,
            "timing": {"retrieval_ms": 0, "first_token_ms": took, "model_first_ms": 0, "total_ms": took},
            "correlation": trace.correlation,
        }  # fmt: skip

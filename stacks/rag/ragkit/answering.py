"""A question -> passages -> an answer with citations, as a stream of events.

Events in order: ("retrieval", {mode, note, passages}), ("token", {text})..., ("done", {answer, citations, usage,
timing, mode, correlation}). Times in milliseconds since the question was taken up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ragkit.asked import Asked
from ragkit.citations import cited, without_unknown
from ragkit.generate import Generator, Message, Usage
from ragkit.prompt import SYSTEM, user_message
from ragkit.retrieve import Retriever
from ragkit.store import Passage
from ragkit.trace import Trace

NOTHING_FOUND = "The documents do not answer this."

Event = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """How many passages the model is given, and how many tokens it may answer with."""

    passages: int = 6
    max_tokens: int = 600


class Answerer:
    def __init__(self, retriever: Retriever, generator: Generator, settings: Settings = Settings()) -> None:
        self._retriever = retriever
        self._generator = generator
        self._settings = settings

    def answer(self, asked: Asked, trace: Trace) -> Iterator[Event]:
        """The events of one answer. Raises GenerationUnavailable and the store's errors."""
        with trace.step("retrieval") as step:
            earlier = [turn.question for turn in asked.earlier]
            found = self._retriever.search(asked.question, self._settings.passages, asked.filter(), earlier)
            step["passages"] = {one.id: round(one.score, 4) for one in found.passages}
        passages = [shown(number, one) for number, one in enumerate(found.passages, 1)]
        yield "retrieval", {"mode": found.mode, "note": found.note, "passages": passages}
        text, usage, cancelled = "", Usage(), False
        with trace.step("generation") as step:
            for piece in self._pieces(asked, found.passages, usage):
                trace.mark("first_token")
                text += piece
                yield "token", {"text": piece}
                cancelled = asked.cancelled()
                if cancelled:
                    break
            step["tokens"] = {"input": usage.input, "output": usage.output}
        final = without_unknown(text, len(found.passages))
        marks = cited(final, found.passages)
        citations = [{"n": one.number, "document": one.passage.document, "id": one.passage.id} for one in marks]
        yield "done", {
            "answer": final, "citations": citations, "usage": {"input": usage.input, "output": usage.output},
            "timing": _timing(trace), "mode": found.mode, "correlation": trace.correlation, "cancelled": cancelled,
        }  # fmt: skip

    def _pieces(self, asked: Asked, passages: list[Passage], usage: Usage) -> Iterator[str]:
        """Pieces of the answer; `usage` is filled in at the end."""
        if not passages:
            yield NOTHING_FOUND
            return
        generation = self._generator.stream(SYSTEM, messages(asked, passages), self._settings.max_tokens)
        try:
            yield from generation
        finally:
            generation.close()
            usage.input, usage.output = generation.usage.input, generation.usage.output


def messages(asked: Asked, passages: list[Passage]) -> list[Message]:
    """What was said before, then the passages and the question."""
    said: list[Message] = []
    for number, turn in enumerate(asked.earlier):
        before = f"Earlier in this conversation:\n{asked.summary}\n\n" if asked.summary and number == 0 else ""
        said.append({"role": "user", "text": before + turn.question})
        said.append({"role": "assistant", "text": turn.answer})
    return [*said, {"role": "user", "text": user_message(asked.question, passages)}]


def shown(number: int, passage: Passage) -> dict[str, Any]:
    """A passage as clients see it."""
    return {
        "n": number, "id": passage.id, "document": passage.document, "title": passage.title,
        "headings": passage.context, "text": passage.text,
        "source": f"{passage.document}{f', page {passage.page}' if passage.page else ''}",
        "score": round(passage.score, 4),
    }  # fmt: skip


def _timing(trace: Trace) -> dict[str, int]:
    steps = trace.steps
    return {
        "retrieval_ms": round(steps["retrieval"]), "first_token_ms": round(steps.get("first_token", trace.since())),
        "total_ms": round(trace.since()),
    }  # fmt: skip

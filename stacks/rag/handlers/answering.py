"""A question -> passages -> an answer with citations, as a stream of events.

Events in order: ("retrieval", {mode, note, passages}), ("token", {text})..., ("done", {answer, citations, usage,
timing}). Times in milliseconds since the question was taken up.
"""

import base64
import os
import time
from collections.abc import Iterator
from typing import Any

from ragkit.citations import cited, without_unknown
from ragkit.prompt import SYSTEM, user_message
from ragkit.store import Passage

from handlers import wiring

PASSAGES = 6
LONGEST_QUESTION = 2_000
MAX_TOKENS = 600
NOTHING_FOUND = "The documents do not answer this."

Event = tuple[str, dict[str, Any]]


class BadQuestion(ValueError):
    """The question cannot be taken; the message is for the asker."""


def question_of(body: Any) -> str:
    """The question in a request's JSON. Raises BadQuestion."""
    question = body.get("question") if isinstance(body, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise BadQuestion('send {"question": "..."}')
    if len(question) > LONGEST_QUESTION:
        raise BadQuestion(f"a question has at most {LONGEST_QUESTION} characters")
    return question.strip()


def body_of(event: dict[str, Any]) -> str:
    """The text of a request's body."""
    body = event.get("body") or ""
    return base64.b64decode(body).decode("utf-8", "replace") if event.get("isBase64Encoded") else body


def answer(question: str) -> Iterator[Event]:
    started = time.perf_counter()

    def since() -> int:
        return round((time.perf_counter() - started) * 1_000)

    found = wiring.retriever().search(question, PASSAGES)
    retrieved_ms = since()
    passages = [_shown(number, one) for number, one in enumerate(found.passages, 1)]
    yield "retrieval", {"mode": found.mode, "note": found.note, "passages": passages}
    text, usage, first_ms = "", {}, None
    for kind, value in _generated(question, found.passages):
        if kind == "text":
            first_ms = since() if first_ms is None else first_ms
            text += value
            yield "token", {"text": value}
        else:
            usage = value
    final = without_unknown(text, len(found.passages))
    marks = cited(final, found.passages)
    citations = [{"n": one.number, "document": one.passage.document, "id": one.passage.id} for one in marks]
    timing = {"retrieval_ms": retrieved_ms, "first_token_ms": first_ms or since(), "total_ms": since()}
    yield "done", {"answer": final, "citations": citations, "usage": usage, "timing": timing, "mode": found.mode}


def _generated(question: str, passages: list[Passage]) -> Iterator[tuple[str, Any]]:
    """("text", piece)... then ("usage", {...})."""
    if not passages:
        yield "text", NOTHING_FOUND
        return
    reply = wiring.client("bedrock-runtime").converse_stream(
        modelId=os.environ["GENERATION_MODEL_ID"],
        system=[{"text": SYSTEM}],
        messages=[{"role": "user", "content": [{"text": user_message(question, passages)}]}],
        inferenceConfig={"maxTokens": MAX_TOKENS, "temperature": 0.0},
    )
    for event in reply["stream"]:
        if "contentBlockDelta" in event:
            yield "text", event["contentBlockDelta"]["delta"].get("text", "")
        elif "metadata" in event:
            usage = event["metadata"].get("usage", {})
            yield "usage", {"input": usage.get("inputTokens", 0), "output": usage.get("outputTokens", 0)}


def _shown(number: int, passage: Passage) -> dict[str, Any]:
    return {
        "n": number, "id": passage.id, "document": passage.document, "title": passage.title,
        "headings": passage.context, "text": passage.text,
        "source": f"{passage.document}{f', page {passage.page}' if passage.page else ''}",
        "score": round(passage.score, 4),
    }  # fmt: skip

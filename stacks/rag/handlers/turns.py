"""A question's turn in its conversation: what came before it, the answer, and how it is kept without anybody waiting.

A turn is written while the last event is on its way. When that fails it goes to the turns queue, from where `persist`
writes it; a turn is written once, however often it comes.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import asdict, replace
from typing import Any

from ragkit.answering import Event
from ragkit.asked import Asked, User
from ragkit.budget import reckoned
from ragkit.guardrails import GuardrailUnavailable
from ragkit.intent import intent_of
from ragkit.limits import Admitted
from ragkit.prompt import SYSTEM
from ragkit.resilience import passing
from ragkit.sessions import REMEMBERED, UNFINISHED, NoSession, Record, remembered
from ragkit.trace import Trace

from handlers import wiring
from handlers.requests import Question

UNCHECKED = "(a question that was not checked)"
LOOK_S = 0.3
"""How often a turn that is being answered asks whether it was cancelled."""
JOIN_S = 30.0
"""Longer than the table and then the queue may take. The answer is out by then: nobody waits but the environment."""


ALONE = "The conversation so far cannot be read now, so the question was answered by itself."


def asked(question: Question, user: User, alone: bool = False, waited: bool = False) -> Asked:
    """The question with what was said before it; with `alone` by itself, saying so, when that cannot be read now;
    one that has `waited` may have been stopped meanwhile. Raises NoSession for somebody else's session."""
    try:
        records = wiring.sessions().turns(question.session, user.id, REMEMBERED)
    except Exception as error:
        if not (alone and passing(error)):
            raise
        Trace().warn("a question is answered by itself", error=f"{type(error).__name__}: {error}")
        return replace(first(question, user, waited), notice=ALONE)
    before = [one for one in records if one.turn != question.turn and intent_of(one.question) == "question"]
    earlier, summary = remembered(before)
    return replace(first(question, user, waited), earlier=earlier, summary=summary)


def first(question: Question, user: User, waited: bool = False) -> Asked:
    """The question that begins a session: nothing was said before it, and there is nothing to look up."""
    return Asked(
        question.text, user, question.session, question.turn, where=question.where,
        cancelled=_cancelled(question.session, user.id, question.turn, waited),
    )  # fmt: skip


def _cancelled(session: str, owner: str, turn: str, waited: bool) -> Callable[[], bool]:
    looked = float("-inf") if waited else time.monotonic()

    def cancelled() -> bool:
        nonlocal looked
        if not session or time.monotonic() - looked < LOOK_S:
            return False
        looked = time.monotonic()
        try:
            return wiring.sessions().cancelled(session, owner, turn)
        except Exception as error:
            Trace().warn("a turn goes on, cancelled or not", error=f"{type(error).__name__}: {error}", turn=turn)
            return False

    return cancelled


def answer(asked: Asked, trace: Trace, admitted: Admitted) -> Iterator[Event]:
    """The answerer's events, and the turn kept at the end, whether the answer was finished, cancelled, failed, or broke
    off because nobody reads it any more. What a model that was not heard to the end has cost is estimated."""
    created = time.time_ns() // 1_000_000
    record = Record(
        asked.session, asked.user.id, asked.turn, asked.question, "", created, "failed", correlation=trace.correlation
    )
    text, writing = "", None
    try:
        for name, data in wiring.answerer().answer(asked, trace):
            if name == "guardrail" and "question" in data:
                record = replace(record, question=data["question"])
            elif name == "retrieval":
                record = replace(record, passages=tuple(data["passages"]))
            elif name == "token":
                text += data["text"]
            elif name == "done":
                record = replace(
                    record, answer=data["answer"], citations=tuple(data["citations"]), status=_status(data),
                    usage=tuple(data["usage"].items()),
                )  # fmt: skip
                writing = _start(record, admitted)
                _tell(trace, data)
                data = {**data, "session": asked.session, "turn": asked.turn}
            yield name, data
    except GuardrailUnavailable:
        record = replace(record, question=UNCHECKED)
        raise
    except GeneratorExit:
        record = replace(record, answer=text, status="broken")
        raise
    finally:
        writing = writing or _start(replace(record, answer=text), admitted)
        writing.join(JOIN_S)


def _with_usage(record: Record) -> Record:
    """The record with its usage; a model that was not heard to the end does not say what it took."""
    if record.status not in ("broken", "cancelled", "failed") or not record.answer or any(n for _, n in record.usage):
        return record
    used = reckoned([SYSTEM, record.question, *(one["text"] for one in record.passages)], record.answer)
    return replace(record, usage=tuple(asdict(used).items()))


def _status(done: dict[str, Any]) -> str:
    """What was blocked is no part of the conversation: it is not told to the model with the next question."""
    if done.get("cancelled"):
        return "cancelled"
    return "blocked" if done["mode"] == "guardrail" else "done"


def _tell(trace: Trace, done: dict[str, Any]) -> None:
    """The line that sums up an answer, and its times as metrics."""
    names = ("mode", "model", "answered", "cost_usd", "timing", "cancelled")
    cited = [one["id"] for one in done["citations"]]
    wiring.METRICS.times(done["timing"])
    trace.info("answered", cited=cited, **{name: done[name] for name in names if name in done})


def _start(record: Record, admitted: Admitted) -> threading.Thread:
    thread = threading.Thread(target=copy_context().run, args=(_keep, _with_usage(record), admitted))
    thread.start()
    return thread


def _keep(record: Record, admitted: Admitted) -> None:
    trace = Trace(record.correlation)
    try:
        if record.session:
            wiring.sessions().keep(record)
    except NoSession as gone:
        trace.info("the turn is not kept", why=str(gone), turn=record.turn)
    except Exception as error:
        trace.warn("the turn goes to the queue", error=f"{type(error).__name__}: {error}", turn=record.turn)
        try:
            body = json.dumps({**asdict(record), "correlation": record.correlation})
            wiring.client("sqs").send_message(QueueUrl=os.environ["TURNS_QUEUE"], MessageBody=body)
        except Exception as lost:
            trace.error("the turn is lost", error=f"{type(lost).__name__}: {lost}", turn=record.turn)
    try:
        wiring.limits().spend(admitted, sum(count for _, count in record.usage))
    except Exception as error:
        trace.warn("tokens were not counted", error=f"{type(error).__name__}: {error}", turn=record.turn)


def replayed(question: Question, user: User) -> "Kept | None":
    """The events of a turn that was answered before, or None, also when that is not to be known now."""
    if not (question.session and question.turn):
        return None
    try:
        record = wiring.sessions().find(question.session, question.turn)
    except Exception as error:
        if not passing(error):
            raise
        return None
    if record is None or record.status in UNFINISHED:
        return None
    if record.owner != user.id:
        raise NoSession(f"there is no session {question.session}")
    return Kept(_events(record))


class Kept:
    """The events of a turn as it was kept."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def __next__(self) -> Event:
        return next(self._events)


def _events(record: Record) -> Iterator[Event]:
    yield "retrieval", {"mode": "kept", "note": "", "passages": list(record.passages)}
    yield "token", {"text": record.answer}
    yield "done", {
        "answer": record.answer, "citations": list(record.citations), "usage": dict(record.usage), "mode": "kept",
        "timing": {}, "correlation": record.correlation, "session": record.session, "turn": record.turn,
        "cancelled": record.status == "cancelled",
    }  # fmt: skip


def record_of(body: dict[str, Any]) -> Record:
    """The record in a message of the turns queue."""
    lists = {name: tuple(body[name]) for name in ("citations", "passages")}
    return Record(**{**body, **lists, "usage": tuple((name, count) for name, count in body["usage"])})

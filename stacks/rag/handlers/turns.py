"""A question's turn in its conversation: what came before it, the answer, and how it is kept without anybody waiting.

A turn is written while the last event is on its way. When that fails it goes to the turns queue, from where `persist`
writes it; a turn is written once, however often it comes.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from ragkit.answering import Event
from ragkit.asked import Asked, User
from ragkit.limits import Allowance
from ragkit.sessions import NoSession, Record, remembered
from ragkit.trace import Trace

from handlers import wiring
from handlers.requests import Question

LOOK_S = 0.3
"""How often a turn that is being answered asks whether it was cancelled."""
JOIN_S = 30.0
"""Longer than the table and then the queue may take. The answer is out by then: nobody waits but the environment."""


def asked(question: Question, user: User) -> Asked:
    """The question with what was said before it. Raises NoSession for somebody else's session."""
    sessions = wiring.sessions()
    records = sessions.turns(question.session, user.id)
    earlier, summary = remembered([one for one in records if one.turn != question.turn])
    return Asked(
        question.text, user, question.session, question.turn, earlier, summary, question.where,
        _cancelled(question.session, question.turn),
    )  # fmt: skip


def first(question: Question, user: User) -> Asked:
    """The question that begins a session: nothing was said before it, and there is nothing to look up."""
    return Asked(
        question.text, user, question.session, question.turn, where=question.where,
        cancelled=_cancelled(question.session, question.turn),
    )  # fmt: skip


def _cancelled(session: str, turn: str) -> Callable[[], bool]:
    looked = time.monotonic()

    def cancelled() -> bool:
        nonlocal looked
        if not session or time.monotonic() - looked < LOOK_S:
            return False
        looked = time.monotonic()
        try:
            return wiring.sessions().cancelled(session, turn)
        except Exception as error:
            Trace().warn("a turn goes on, cancelled or not", error=f"{type(error).__name__}: {error}", turn=turn)
            return False

    return cancelled


def answer(asked: Asked, trace: Trace, allowance: Allowance) -> Iterator[Event]:
    """The answerer's events, and the turn kept at the end, whether the answer was finished, cancelled or failed."""
    created = time.time_ns() // 1_000_000
    record = Record(
        asked.session, asked.user.id, asked.turn, asked.question, "", created, "failed", correlation=trace.correlation
    )
    text, writing = "", None
    try:
        for name, data in wiring.answerer().answer(asked, trace):
            if name == "retrieval":
                record = replace(record, passages=tuple(data["passages"]))
            elif name == "token":
                text += data["text"]
            elif name == "done":
                usage = tuple(data["usage"].items())
                status = "cancelled" if data.get("cancelled") else "done"
                record = replace(
                    record, answer=data["answer"], citations=tuple(data["citations"]), usage=usage, status=status
                )
                writing = _start(record, allowance)
                data = {**data, "session": asked.session, "turn": asked.turn}
            yield name, data
    except GeneratorExit:
        record = replace(record, answer=text, status="cancelled")
        raise
    finally:
        writing = writing or _start(replace(record, answer=record.answer or text), allowance)
        writing.join(JOIN_S)


def _start(record: Record, allowance: Allowance) -> threading.Thread:
    thread = threading.Thread(target=_keep, args=(record, allowance))
    thread.start()
    return thread


def _keep(record: Record, allowance: Allowance) -> None:
    trace = Trace(record.correlation)
    try:
        if record.session:
            wiring.sessions().keep(record)
    except Exception as error:
        trace.warn("the turn goes to the queue", error=f"{type(error).__name__}: {error}", turn=record.turn)
        try:
            body = json.dumps({**asdict(record), "correlation": record.correlation})
            wiring.client("sqs").send_message(QueueUrl=os.environ["TURNS_QUEUE"], MessageBody=body)
        except Exception as lost:
            trace.error("the turn is lost", error=f"{type(lost).__name__}: {lost}", turn=record.turn)
    try:
        wiring.limits().spend(record.owner, sum(count for _, count in record.usage), allowance)
    except Exception as error:
        trace.warn("tokens were not counted", error=f"{type(error).__name__}: {error}", turn=record.turn)


def replayed(question: Question, user: User) -> Iterator[Event] | None:
    """The events of a turn that was answered before, or None."""
    if not (question.session and question.turn):
        return None
    record = wiring.sessions().find(question.session, question.turn)
    if record is None or record.status == "failed":
        return None
    if record.owner != user.id:
        raise NoSession(f"there is no session {question.session}")
    return _events(record)


def _events(record: Record) -> Iterator[Event]:
    yield "retrieval", {"mode": "kept", "note": "", "passages": list(record.passages)}
    yield "token", {"text": record.answer}
    yield "done", {
        "answer": record.answer, "citations": list(record.citations), "usage": dict(record.usage), "mode": "kept",
        "timing": {}, "correlation": record.correlation, "session": record.session, "turn": record.turn,
    }  # fmt: skip


def record_of(body: dict[str, Any]) -> Record:
    """The record in a message of the turns queue."""
    lists = {name: tuple(body[name]) for name in ("citations", "passages")}
    return Record(**{**body, **lists, "usage": tuple((name, count) for name, count in body["usage"])})

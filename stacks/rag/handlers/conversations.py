"""What a client may do with its conversations: list, read, forget, stop a turn, say how good an answer was."""

from typing import Any

from ragkit.identity import Caller

from handlers import wiring
from handlers.requests import Refusal, body_of, id_of

RATINGS = ("up", "down")
LONGEST_COMMENT = 2_000


def sessions(event: dict[str, Any], caller: Caller, _: str) -> dict[str, Any]:
    return {"sessions": wiring.sessions().of(caller.user.id)}


def session(event: dict[str, Any], caller: Caller, session: str) -> dict[str, Any]:
    head = wiring.sessions().head(session, caller.user.id)
    turns = [
        {
            "turn": one.turn, "question": one.question, "answer": one.answer, "status": one.status,
            "citations": list(one.citations), "passages": list(one.passages), "feedback": one.feedback,
            "created": one.created, "correlation": one.correlation,
        }
        for one in wiring.sessions().turns(session, caller.user.id)
    ]  # fmt: skip
    return {**head, "turns": turns}


def forget(event: dict[str, Any], caller: Caller, session: str) -> None:
    wiring.sessions().delete(session, caller.user.id)


def cancel(event: dict[str, Any], caller: Caller, turn: str) -> dict[str, Any]:
    """The turn may not have begun to be kept: who knows its session and its id may stop it."""
    session = id_of(body_of(event), "session")
    if not session:
        raise Refusal(400, 'send {"session": "..."}')
    wiring.sessions().cancel(session, turn)
    return {"turn": turn, "status": "cancelling"}


def feedback(event: dict[str, Any], caller: Caller, turn: str) -> dict[str, Any]:
    body = body_of(event)
    rating, comment = body.get("rating"), body.get("comment", "")
    if rating not in RATINGS or not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        raise Refusal(400, f'send {{"session", "rating": "up" or "down"}}; a comment has {LONGEST_COMMENT} letters')
    wiring.sessions().rate(id_of(body, "session"), caller.user.id, turn, rating, comment)
    wiring.METRICS.record("FeedbackUp" if rating == "up" else "FeedbackDown")
    wiring.METRICS.flush()
    return {"turn": turn, "rating": rating}

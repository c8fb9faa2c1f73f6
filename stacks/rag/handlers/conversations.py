"""What a client may do with its conversations: list, read, forget, stop a turn, say how good an answer was."""

import re
from typing import Any

from ragkit.identity import Caller

from handlers import wiring
from handlers.requests import ID, Refusal, body_of, id_of

RATINGS = ("up", "down")
AFTER = re.compile(r"[0-9]{1,15}\.[A-Za-z0-9_.:-]{1,64}")
LONGEST_COMMENT = 2_000


def sessions(event: dict[str, Any], caller: Caller, _: str) -> dict[str, Any]:
    """A page of the caller's, where it can be told from others at the same address; `next` leads to the following."""
    if not caller.named:
        return {"sessions": [], "next": ""}
    after = (event.get("queryStringParameters") or {}).get("next", "")
    if after and not AFTER.fullmatch(after):
        raise Refusal(400, "`next` is not one that this list gave")
    found, following = wiring.sessions().of(caller.user.id, after=after)
    return {"sessions": found, "next": following}


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
    """Stops a turn of the caller's own, whether or not it has begun to be kept."""
    session = id_of(body_of(event), "session")
    if not session or not ID.fullmatch(turn):
        raise Refusal(400, 'send {"session": "..."}')
    wiring.sessions().cancel(session, caller.user.id, turn)
    return {"turn": turn, "status": "cancelling"}


def feedback(event: dict[str, Any], caller: Caller, turn: str) -> dict[str, Any]:
    body = body_of(event)
    rating, comment = body.get("rating"), body.get("comment", "")
    if rating not in RATINGS or not isinstance(comment, str) or len(comment) > LONGEST_COMMENT:
        raise Refusal(400, f'send {{"session", "rating": "up" or "down"}}; a comment has {LONGEST_COMMENT} letters')
    session = id_of(body, "session")
    if not session:
        raise Refusal(400, 'send {"session", "rating": "up" or "down"}')
    wiring.sessions().rate(session, caller.user.id, turn, rating, comment)
    wiring.METRICS.record("FeedbackUp" if rating == "up" else "FeedbackDown")
    wiring.METRICS.flush()
    return {"turn": turn, "rating": rating}

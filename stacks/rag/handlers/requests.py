"""What a request from outside holds, checked; who asks."""

import base64
import json
from typing import Any

from ragkit.asked import Asked, User
from ragkit.trace import HEADER, Trace

LONGEST_QUESTION = 2_000


class BadRequest(ValueError):
    """The request cannot be taken; the message is for the asker."""


def body_of(event: dict[str, Any]) -> str:
    """The text of a request's body."""
    body = event.get("body") or ""
    return base64.b64decode(body).decode("utf-8", "replace") if event.get("isBase64Encoded") else body


def asked_of(event: dict[str, Any]) -> Asked:
    """The question in a request's JSON. Raises BadRequest."""
    try:
        body = json.loads(body_of(event))
    except ValueError as error:
        raise BadRequest('the body is not JSON; send {"question": "..."}') from error
    question = body.get("question") if isinstance(body, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise BadRequest('send {"question": "..."}')
    if len(question) > LONGEST_QUESTION:
        raise BadRequest(f"a question has at most {LONGEST_QUESTION} characters")
    return Asked(question.strip(), user_of(event))


def user_of(event: dict[str, Any]) -> User:
    """Who sends the request; nobody in particular when it does not say."""
    return User()


def trace_of(event: dict[str, Any]) -> Trace:
    """The trace that the caller's correlation id names, or a new one."""
    return Trace((event.get("headers") or {}).get(HEADER))

"""What a request from outside holds, checked; who sends it; how it is refused."""

import base64
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ragkit.asked import User
from ragkit.identity import Caller, Unknown
from ragkit.limits import TooMuch
from ragkit.resilience import passing
from ragkit.trace import HEADER, Trace

from handlers import wiring

LONGEST_QUESTION = 2_000
LONGEST_BODY = 64_000
ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
OPERATORS = frozenset(
    ("$eq", "$ne", "$in", "$nin", "$exists", "$gt", "$gte", "$lt", "$lte", "$and", "$or")
)  # fmt: skip


class Refusal(Exception):
    """The request cannot be taken; the message is for whoever sent it."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True)
class Question:
    """What a request asks. `session` and `turn` are empty where the request names none."""

    text: str
    session: str = ""
    turn: str = ""
    where: dict[str, Any] | None = None


def body_of(event: dict[str, Any]) -> dict[str, Any]:
    """The JSON object in a request's body. Raises Refusal."""
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body).decode("utf-8", "replace")
    if len(body) > LONGEST_BODY:
        raise Refusal(413, f"a request has at most {LONGEST_BODY} characters")
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Refusal(400, 'the body is not JSON; send {"question": "..."}') from error
    if not isinstance(found, dict):
        raise Refusal(400, 'send {"question": "..."}')
    return found


def question_of(event: dict[str, Any]) -> Question:
    """Raises Refusal."""
    body = body_of(event)
    text = body.get("question")
    if not isinstance(text, str) or not text.strip():
        raise Refusal(400, 'send {"question": "..."}')
    if len(text) > LONGEST_QUESTION:
        raise Refusal(400, f"a question has at most {LONGEST_QUESTION} characters")
    return Question(text.strip(), id_of(body, "session"), id_of(body, "turn"), _where(body.get("where")))


def id_of(body: dict[str, Any], name: str) -> str:
    """An id that the client chose, or empty. Raises Refusal."""
    given = body.get(name) or ""
    if not isinstance(given, str) or (given and not ID.fullmatch(given)):
        raise Refusal(400, f"`{name}` is up to 64 letters, digits, and . _ : -")
    return given


def _where(given: Any, depth: int = 0) -> dict[str, Any] | None:
    """A metadata filter, checked as far as it must be to be passed on. Raises Refusal."""
    if given is None:
        return None
    if not isinstance(given, dict) or not given or depth > 4:
        raise Refusal(400, '`where` is a filter by metadata, like {"team": "billing"}')
    for name, value in given.items():
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise Refusal(400, f"`where`: {name} takes a list of filters")
            for one in value:
                _where(one, depth + 1)
        elif name.startswith("$") or (isinstance(value, dict) and not set(value) <= OPERATORS):
            raise Refusal(400, f"`where`: the operators are {', '.join(sorted(OPERATORS))}")
    return given


def caller_of(event: dict[str, Any]) -> Caller:
    """Who sends the request. Raises Refusal."""
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    address = event.get("requestContext", {}).get("http", {}).get("sourceIp", "")
    try:
        return wiring.directory().of(headers, address)
    except Unknown as error:
        raise Refusal(401, str(error), {"www-authenticate": "Bearer"}) from error


@contextmanager
def reachable() -> Iterator[None]:
    """What is done within needs other services: raises Refusal when one of them is not to be had now."""
    try:
        yield
    except Exception as error:
        if not passing(error):
            raise
        Trace().error("a service cannot be reached", error=f"{type(error).__name__}: {error}")
        raise Refusal(503, "a service behind this one is not to be had now; try again", {"retry-after": "5"}) from error


def admit(caller: Caller) -> None:
    """Count one question of the caller's; when it cannot be counted now, it is let through. Raises Refusal."""
    try:
        wiring.limits().take(caller.user.id, caller.allowance)
    except TooMuch as error:
        wiring.METRICS.record("QuestionsRefused")
        wiring.METRICS.flush()
        raise Refusal(429, str(error), {"retry-after": str(error.retry_after_s)}) from error
    except Exception as error:
        if not passing(error):
            raise
        Trace().warn("a question was not counted", error=f"{type(error).__name__}: {error}")


def trace_of(event: dict[str, Any]) -> Trace:
    """The trace that the caller's correlation id names, or a new one."""
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    return Trace(headers.get(HEADER))


def connection_of(event: dict[str, Any]) -> dict[str, str] | None:
    """The WebSocket that a request came by: where its connections API is, and its id."""
    context = event.get("requestContext", {})
    if "connectionId" not in context:
        return None
    return {"endpoint": f"https://{context['domainName']}/{context['stage']}", "id": context["connectionId"]}


def new_id() -> str:
    return str(uuid.uuid4())


def user_in(message: dict[str, Any]) -> User:
    """The user that a queue's message was sent for."""
    found = message.get("user")
    return User(found["id"], tuple(found["labels"])) if found else User()

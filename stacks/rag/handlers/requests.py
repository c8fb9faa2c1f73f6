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
from ragkit.defence import visible
from ragkit.identity import Caller, Unknown
from ragkit.limits import Admitted, TooMuch
from ragkit.resilience import passing
from ragkit.trace import HEADER, Trace, begun

from handlers import wiring

LONGEST_QUESTION = 2_000
LONGEST_BODY = 64_000
ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
LONGEST_VALUE = 512
"""Characters of a name or a text in a filter."""
NAME = re.compile(rf"[^\x00-\x1f\x7f\"\\]{{1,{LONGEST_VALUE}}}")
MOST_VALUES = 100
MOST_CONDITIONS = 64
DEEPEST = 4
SAME, ORDERED, LISTS = ("$eq", "$ne"), ("$gt", "$gte", "$lt", "$lte"), ("$in", "$nin")
OPERATORS = frozenset((*SAME, *ORDERED, *LISTS, "$exists"))
WHERE = "`where` is a filter by metadata, like {\"team\": \"billing\"}"


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
        found = json.loads(body, object_pairs_hook=_members)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise Refusal(400, "the body has half of a surrogate pair, which is no character") from error
    except RecursionError as error:
        raise Refusal(400, "the body is nested too deep") from error
    except ValueError as error:
        raise Refusal(400, f'the body is not JSON; send {{"question": "..."}} ({error})'[:300]) from error
    if not isinstance(found, dict):
        raise Refusal(400, 'send {"question": "..."}')
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, each of whose members stands once: what reads the first of two is not to differ from what reads the
    last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member stands twice")
    return found


def question_of(event: dict[str, Any]) -> Question:
    """Raises Refusal."""
    body = body_of(event)
    text = body.get("question")
    if not isinstance(text, str) or not visible(text).strip("\u200c\u200d \t\n"):
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


def _where(given: Any) -> dict[str, Any] | None:
    """A metadata filter, checked here because a store refuses it when the answer has begun. Raises Refusal."""
    if given is None:
        return None
    if _conditions(given, 0) > MOST_CONDITIONS:
        raise Refusal(400, f"`where` has at most {MOST_CONDITIONS} conditions")
    return given


def _conditions(given: Any, depth: int) -> int:
    if not isinstance(given, dict) or not given:
        raise Refusal(400, WHERE)
    if depth > DEEPEST:
        raise Refusal(400, f"`where` is nested at most {DEEPEST} deep")
    count = 0
    for name, value in given.items():
        if name in ("$and", "$or"):
            if not isinstance(value, list) or not value:
                raise Refusal(400, f"`where`: {name} takes a list of filters")
            count += sum(_conditions(one, depth + 1) for one in value)
        elif name.startswith("$") or (isinstance(value, dict) and not (value and set(value) <= OPERATORS)):
            raise Refusal(400, f"`where`: the operators are $and, $or, {', '.join(sorted(OPERATORS))}")
        elif not NAME.fullmatch(name):
            raise Refusal(400, f"`where`: a name has 1 to {LONGEST_VALUE} characters, no quotes, backslash or controls")
        else:
            tests = value if isinstance(value, dict) else {"$eq": value}
            if not all(_fits(operator, one) for operator, one in tests.items()):
                told = f"texts of up to {LONGEST_VALUE} characters, numbers, true and false, $in and $nin with lists"
                raise Refusal(400, f"`where`: {name[:64]} is compared with {told} of up to {MOST_VALUES} of them")
            count += len(tests)
    return count


def _fits(operator: str, value: Any) -> bool:
    if operator == "$exists":
        return isinstance(value, bool)
    if operator in LISTS:
        return isinstance(value, list) and 0 < len(value) <= MOST_VALUES and all(_fits("$eq", one) for one in value)
    if operator in ORDERED:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= LONGEST_VALUE)


def headers_of(event: dict[str, Any]) -> dict[str, str]:
    """By their names in lower case."""
    return {name.lower(): value for name, value in (event.get("headers") or {}).items()}


def caller_of(event: dict[str, Any]) -> Caller:
    """Who sends the request. Raises Refusal."""
    headers = headers_of(event)
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


def admit(caller: Caller) -> Admitted:
    """Count one question of the caller's; when it cannot be counted now, it is let through. Raises Refusal."""
    with _within_limits():
        return wiring.limits().take(caller.counted or caller.user.id, caller.allowance)
    return Admitted()


def count(caller: Caller) -> None:
    """Count one request of the caller's that asks nothing. Raises Refusal."""
    with _within_limits():
        wiring.limits().count(caller.counted or caller.user.id, caller.allowance)


@contextmanager
def _within_limits() -> Iterator[None]:
    try:
        yield
    except TooMuch as error:
        wiring.METRICS.record("QuestionsRefused")
        wiring.METRICS.flush()
        raise Refusal(429, str(error), {"retry-after": str(error.retry_after_s)}) from error
    except Exception as error:
        if not passing(error):
            raise
        Trace().warn("a question was not counted", error=f"{type(error).__name__}: {error}")


def give_back(admitted: Admitted) -> None:
    """The tokens that were held for a question which is not answered anew."""
    try:
        wiring.limits().spend(admitted, 0)
    except Exception as error:
        Trace().warn("tokens are still held", error=f"{type(error).__name__}: {error}")


def trace_of(event: dict[str, Any]) -> Trace:
    """The trace that the caller's correlation id names, or a new one; this request's from now on."""
    return begun(headers_of(event).get(HEADER))


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

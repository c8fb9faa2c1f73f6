"""The function URL: the chat page and its files, answers as server-sent events, conversations, documents.

A generator handler streams: its first item is the head of the response, what follows are pieces of the body.
"""

import json
import os
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import ClientError
from ragkit.answering import Event
from ragkit.asked import Asked
from ragkit.identity import Caller
from ragkit.sessions import NoSession
from ragkit.trace import HEADER, Trace

from handlers import conversations, library, sse, turns, wiring
from handlers.requests import (
    ID,
    Question,
    Refusal,
    admit,
    caller_of,
    give_back,
    headers_of,
    new_id,
    question_of,
    reachable,
    trace_of,
)

wiring.prepare_answers()

WEB = Path(__file__).parents[1] / "web"
KINDS = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip
POLICY = "; ".join(
    ("default-src 'none'", "style-src 'self'", "script-src 'self'", "connect-src 'self' {storage}", "img-src data:",
     "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
)  # fmt: skip
"""Of the page: its own files alone; files that are brought in go to {storage}."""

Piece = dict[str, Any] | str
Answer = dict[str, Any] | list[Any] | None
Route = Callable[[dict[str, Any], Caller, str], Answer]

CONVERSED = ("/sessions/", "/turns/")

ROUTES: tuple[tuple[str, re.Pattern[str], Route], ...] = tuple(
    (method, re.compile(pattern), function)
    for method, pattern, function in (
        ("GET", r"/sessions", conversations.sessions),
        ("GET", r"/sessions/([^/]+)", conversations.session),
        ("DELETE", r"/sessions/([^/]+)", conversations.forget),
        ("POST", r"/turns/([^/]+)/cancel", conversations.cancel),
        ("POST", r"/turns/([^/]+)/feedback", conversations.feedback),
        ("GET", r"/documents", library.documents),
        ("GET", r"/documents/(.+)", library.document),
        ("POST", r"/uploads", library.upload),
    )
)


def handler(event: dict[str, Any], context: Any) -> Iterator[Piece]:
    method = event["requestContext"]["http"]["method"]
    path = event["rawPath"].rstrip("/")
    trace = trace_of(event)
    wiring.invocation().begin(context)
    try:
        if method == "POST" and path == "/ask":
            yield from _ask(event, trace)
        elif method in ("GET", "HEAD") and (not path or path.startswith("/web/")):
            yield from _file(path.removeprefix("/web/") or "index.html")
        elif method == "GET" and path == "/examples":
            asked = os.environ.get("EXAMPLE_QUESTIONS", "").split("|")
            yield from _document({"questions": [one.strip() for one in asked if one.strip()]})
        else:
            yield from _document(_routed(event, method, path))
    except Refusal as refusal:
        yield _head(refusal.status, "application/json", {HEADER: trace.correlation, **refusal.headers})
        yield json.dumps({"message": str(refusal), "correlation": trace.correlation})


def _routed(event: dict[str, Any], method: str, path: str) -> Answer:
    for wanted, pattern, function in ROUTES:
        found = pattern.fullmatch(path)
        if found and wanted == method:
            named = unquote(found[1]) if found.groups() else ""
            if named and path.startswith(CONVERSED) and not ID.fullmatch(named):
                raise Refusal(404, "sessions and turns have ids of up to 64 letters, digits, and . _ : -")
            try:
                with reachable():
                    return function(event, caller_of(event), named)
            except NoSession as error:
                raise Refusal(404, str(error)) from error
    raise Refusal(404, f"there is nothing at {method} {event['rawPath']}; POST /ask takes a question")


def _ask(event: dict[str, Any], trace: Trace) -> Iterator[Piece]:
    with reachable():
        asked, events = _taken_up(event, trace)
    had = sse.seen(headers_of(event))
    if isinstance(events, turns.Kept) and had is not None:
        events = sse.rest(events, had)
    else:
        events, had = _from_the_start(asked, events), 0
    kind = "text/event-stream; charset=utf-8"
    yield _head(200, kind, {"cache-control": "no-store", "x-accel-buffering": "no", HEADER: trace.correlation})
    try:
        yield from sse.blocks(_told(events, trace), had)
    finally:
        wiring.METRICS.flush()


def _taken_up(event: dict[str, Any], trace: Trace) -> tuple[Asked, Iterator[Event]]:
    """The question, counted, and the events of its answer: those of the turn where it was answered before. Raises
    Refusal."""
    given = question_of(event)
    caller = caller_of(event)
    admitted = admit(caller)
    try:
        known = turns.replayed(given, caller.user)
        question = Question(given.text, given.session or new_id(), given.turn or new_id(), given.where)
        asked = turns.asked(question, caller.user, True) if given.session else turns.first(question, caller.user)
    except Exception as error:
        give_back(admitted)
        if not isinstance(error, NoSession):
            raise
        raise Refusal(404, str(error)) from error
    if known is not None:
        give_back(admitted)
        return asked, known
    return asked, turns.answer(asked, trace, admitted)


def _from_the_start(asked: Asked, events: Iterator[Event]) -> Iterator[Event]:
    yield "session", {"session": asked.session, "turn": asked.turn}
    yield from events


def _told(events: Iterator[Event], trace: Trace) -> Generator[Event, None, None]:
    """The events; one that says so where they break off."""
    try:
        yield from events
    except Exception as error:
        trace.error("the answer failed", error=f"{type(error).__name__}: {error}")
        cause = error.__cause__ or error
        code = cause.response["Error"]["Code"] if isinstance(cause, ClientError) else type(error).__name__
        told = {"message": f"the answer could not be completed ({code}); try again", "code": code}
        yield "error", {**told, "correlation": trace.correlation}


def _file(name: str) -> Iterator[Piece]:
    """A file of the page."""
    path = WEB / name
    if path.suffix not in KINDS or path.resolve().parent != WEB.resolve() or not path.is_file():
        raise Refusal(404, f"there is no file {name}")
    policy = POLICY.format(storage=library.storage())
    yield _head(200, KINDS[path.suffix], {"content-security-policy": policy, "cache-control": "no-cache"})
    yield path.read_text()


def _document(document: Answer) -> Iterator[Piece]:
    if document is None:
        yield _head(204, "application/json", {})
        return
    yield _head(200, "application/json", {"cache-control": "no-store"})
    yield json.dumps(document)


def _head(status: int, kind: str, headers: dict[str, str]) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"content-type": kind, "x-content-type-options": "nosniff", **headers}}

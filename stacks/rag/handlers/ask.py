"""The function URL: the chat page on GET, a stream of server-sent events on POST /ask.

A generator handler streams: its first item is the head of the response, what follows are pieces of the body.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handlers.answering import BadQuestion, answer, question_of

PAGE = Path(__file__).parents[1] / "web" / "index.html"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'"
)


def handler(event: dict[str, Any], context: Any) -> Iterator[dict[str, Any] | str]:
    method = event["requestContext"]["http"]["method"]
    path = event["rawPath"].rstrip("/")
    if method == "POST" and path.endswith("/ask"):
        yield from _ask(event)
    elif method in ("GET", "HEAD") and not path.rpartition("/")[2]:
        yield _head(200, "text/html; charset=utf-8", {"content-security-policy": POLICY})
        yield PAGE.read_text()
    else:
        yield from _refusal(404, f"there is nothing at {method} {event['rawPath']}; POST /ask takes a question")


def _ask(event: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
    try:
        question = question_of(json.loads(body_of(event)))
    except (ValueError, BadQuestion) as error:
        message = str(error) if isinstance(error, BadQuestion) else 'the body is not JSON; send {"question": "..."}'
        yield from _refusal(400, message)
        return
    yield _head(200, "text/event-stream; charset=utf-8", {"cache-control": "no-store", "x-accel-buffering": "no"})
    try:
        for name, data in answer(question):
            yield _event(name, data)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        print(json.dumps({"level": "ERROR", "message": "the answer failed", "error": reason}))
        yield _event("error", {"message": "the answer could not be completed; try again"})


def _refusal(status: int, message: str) -> Iterator[dict[str, Any] | str]:
    yield _head(status, "application/json", {})
    yield json.dumps({"message": message})


def _head(status: int, kind: str, headers: dict[str, str]) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"content-type": kind, "x-content-type-options": "nosniff", **headers}}


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def body_of(event: dict[str, Any]) -> str:
    body = event.get("body") or ""
    return base64.b64decode(body).decode("utf-8", "replace") if event.get("isBase64Encoded") else body

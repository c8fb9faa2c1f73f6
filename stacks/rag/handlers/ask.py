"""The function URL: the chat page on GET, its example questions on GET /examples, a stream of server-sent events on
POST /ask.

A generator handler streams: its first item is the head of the response, what follows are pieces of the body.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from ragkit.trace import HEADER

from handlers import wiring
from handlers.requests import BadRequest, asked_of, trace_of

wiring.prepare("bedrock-runtime", "s3vectors")

PAGE = Path(__file__).parents[1] / "web" / "index.html"
POLICY = "; ".join(
    ("default-src 'none'", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'", "connect-src 'self'",
     "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
)  # fmt: skip


def handler(event: dict[str, Any], context: Any) -> Iterator[dict[str, Any] | str]:
    method = event["requestContext"]["http"]["method"]
    path = event["rawPath"].rstrip("/")
    if method == "POST" and path == "/ask":
        yield from _ask(event)
    elif method in ("GET", "HEAD") and not path:
        yield _head(200, "text/html; charset=utf-8", {"content-security-policy": POLICY})
        yield PAGE.read_text()
    elif method == "GET" and path == "/examples":
        yield _head(200, "application/json", {})
        asked = os.environ.get("EXAMPLE_QUESTIONS", "").split("|")
        yield json.dumps({"questions": [one.strip() for one in asked if one.strip()]})
    else:
        yield from _refusal(404, f"there is nothing at {method} {event['rawPath']}; POST /ask takes a question")


def _ask(event: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
    try:
        asked = asked_of(event)
    except BadRequest as error:
        yield from _refusal(400, str(error))
        return
    trace = trace_of(event)
    kind = "text/event-stream; charset=utf-8"
    yield _head(200, kind, {"cache-control": "no-store", "x-accel-buffering": "no", HEADER: trace.correlation})
    try:
        for name, data in wiring.answerer().answer(asked, trace):
            yield _event(name, data)
    except Exception as error:
        trace.error("the answer failed", error=f"{type(error).__name__}: {error}")
        cause = error.__cause__ or error
        code = f" ({cause.response['Error']['Code']})" if isinstance(cause, ClientError) else ""
        yield _event("error", {"message": f"the answer could not be completed{code}; try again"})
    finally:
        wiring.METRICS.flush()


def _refusal(status: int, message: str) -> Iterator[dict[str, Any] | str]:
    yield _head(status, "application/json", {})
    yield json.dumps({"message": message})


def _head(status: int, kind: str, headers: dict[str, str]) -> dict[str, Any]:
    return {"statusCode": status, "headers": {"content-type": kind, "x-content-type-options": "nosniff", **headers}}


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"

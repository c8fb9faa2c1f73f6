"""The doors of the queue and of the conversations once more, for clients with a WebSocket.

A message is a JSON object with `action`: `ask` takes what POST /questions takes, `cancel` a session and a turn; `key`
is the access key, `visitor` the browser's own name, as in the headers of the other doors. What is said at once is the
route's response; the events of the answer are pushed by `worker`, each with the id of its job.
"""

import json
from typing import Any

from ragkit.trace import HEADER

from handlers import conversations, jobs, wiring
from handlers.requests import Refusal, body_of, caller_of, id_of, reachable, trace_of

wiring.prepare("dynamodb", "sqs")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        told = _told(event, context)
    except Refusal as refusal:
        told = {"event": "refused", "status": refusal.status, "message": str(refusal)}
    return {"statusCode": 200, "body": json.dumps(told)}


def _told(event: dict[str, Any], context: Any) -> dict[str, Any]:
    body = body_of(event)
    asked = _as_http(event, body)
    action = body.get("action")
    if action == "ask":
        answered = jobs.submit(asked, context)
        status, said = answered["statusCode"], json.loads(answered["body"])
        return {"event": "queued", **said} if status == 202 else {"event": "refused", "status": status, **said}
    if action == "cancel":
        trace_of(asked)
        wiring.invocation().begin(context)
        with reachable():
            return {"event": "cancelling", **conversations.cancel(asked, caller_of(asked), id_of(body, "turn"))}
    raise Refusal(400, 'send {"action": "ask", "question": "..."} or {"action": "cancel", "session", "turn"}')


def _as_http(event: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The message as the other doors would get it."""
    given = {"authorization": f"Bearer {body['key']}" if body.get("key") else "", "x-visitor": body.get("visitor", ""),
             HEADER: body.get("correlation", "")}  # fmt: skip
    headers = {name: value for name, value in given.items() if isinstance(value, str) and value}
    context = event["requestContext"]
    http = {"sourceIp": context["identity"]["sourceIp"]}
    return {"headers": headers, "body": event["body"], "requestContext": {**context, "http": http}}

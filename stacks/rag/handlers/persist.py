"""Turns that could not be written when they were answered, from their queue; feedback goes the same way."""

import json
from typing import Any

from ragkit.trace import Trace

from handlers import wiring
from handlers.turns import record_of

wiring.prepare("dynamodb")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failures = []
    for message in event["Records"]:
        body = json.loads(message["body"])
        trace = Trace(body.get("correlation"))
        try:
            record = record_of(body)
            wiring.sessions().keep(record)
            trace.info("a turn was recovered", turn=record.turn)
        except Exception as error:
            trace.error("a turn was not written", error=f"{type(error).__name__}: {error}", turn=body.get("turn"))
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}

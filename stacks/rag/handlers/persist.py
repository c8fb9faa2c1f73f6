"""Turns, and jobs that failed, which could not be written at the time, from their queue."""

import json
from typing import Any

from ragkit.trace import begun

from handlers import outcomes, wiring
from handlers.turns import record_of

wiring.prepare("dynamodb")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failures = []
    for message in event["Records"]:
        body: dict[str, Any] = {}
        trace = begun(message["messageId"])
        try:
            body = json.loads(message["body"])
            trace = begun(body.get("correlation"))
            if "job" in body:
                outcomes.change(body["job"], body["values"])
                trace.info("a job's end was recovered", job=body["job"])
                continue
            record = record_of(body)
            wiring.sessions().keep(record)
            trace.info("a turn was recovered", turn=record.turn)
        except Exception as error:
            names = {name: body[name] for name in ("turn", "job") if name in body}
            names["messageId"] = message["messageId"]
            trace.error("it was not written", error=f"{type(error).__name__}: {error}", **names)
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}

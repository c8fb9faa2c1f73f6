"""The doors of the queue: submit answers 202 with a job id, status shows the job. `worker` does the work."""

import json
import os
import time
import uuid
from decimal import Decimal
from typing import Any

from ragkit.trace import HEADER

from handlers import wiring
from handlers.requests import BadRequest, asked_of, trace_of

KEPT_S = 86_400

wiring.prepare("dynamodb", "sqs")


def submit(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        asked = asked_of(event)
    except BadRequest as error:
        return _response(400, {"message": str(error)})
    trace = trace_of(event)
    job = str(uuid.uuid4())
    now = int(time.time())
    item = {"id": job, "status": "queued", "question": asked.question, "created": now, "expires": now + KEPT_S,
            "correlation": trace.correlation}  # fmt: skip
    wiring.table("JOBS_TABLE").put_item(Item=item)
    message = {"id": job, "question": asked.question, "correlation": trace.correlation}
    wiring.client("sqs").send_message(QueueUrl=os.environ["QUESTIONS_QUEUE"], MessageBody=json.dumps(message))
    trace.info("queued", job=job)
    headers = {"location": f"/questions/{job}", HEADER: trace.correlation}
    return _response(202, {"id": job, "status": "queued"}, headers)


def status(event: dict[str, Any], context: Any) -> dict[str, Any]:
    job = event["pathParameters"]["id"]
    item = wiring.table("JOBS_TABLE").get_item(Key={"id": job}, ConsistentRead=True).get("Item")
    if item is None:
        return _response(404, {"message": f"there is no job {job}"})
    item.pop("expires", None)
    return _response(200, item)


def _response(status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", **(headers or {})},
        "body": json.dumps(document, default=_plain),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"{type(value).__name__} cannot be shown")

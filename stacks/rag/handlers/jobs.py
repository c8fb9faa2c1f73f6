"""The doors of the queue: submit answers 202 with a job id, status shows the job. `worker` does the work."""

import json
import time
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError
from ragkit.trace import HEADER

from handlers import dispatch, wiring
from handlers.requests import Refusal, admit, caller_of, connection_of, new_id, question_of, reachable, trace_of

KEPT_S = 86_400

wiring.prepare("dynamodb", "sqs")


def submit(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        with reachable():
            return _submit(event)
    except Refusal as refusal:
        return _response(refusal.status, {"message": str(refusal)}, refusal.headers)


def _submit(event: dict[str, Any]) -> dict[str, Any]:
    """A job that was written, and whose message was not sent, is sent when the same turn comes again."""
    question, caller = question_of(event), caller_of(event)
    admit(caller)
    trace = trace_of(event)
    job = question.turn or new_id()
    item = {"id": job, "status": "queued", "question": question.text, "created": int(time.time()),
            "expires": int(time.time()) + KEPT_S, "correlation": trace.correlation}  # fmt: skip
    if not _put(item):
        return _response(202, {"id": job, "status": "known"}, {"location": f"/questions/{job}"})
    user = {"id": caller.user.id, "labels": list(caller.user.labels)}
    message = {"id": job, "question": question.text, "session": question.session, "where": question.where,
               "user": user, "allowance": asdict(caller.allowance), "correlation": trace.correlation,
               "connection": connection_of(event)}  # fmt: skip
    wiring.client("sqs").send_message(QueueUrl=dispatch.queue(), MessageBody=json.dumps(message))
    trace.info("queued", job=job)
    headers = {"location": f"/questions/{job}", HEADER: trace.correlation}
    return _response(202, {"id": job, "status": "queued"}, headers)


def _put(item: dict[str, Any]) -> bool:
    """Write a job; False when it was handed in before and somebody has begun with it."""
    try:
        wiring.table("JOBS_TABLE").put_item(
            Item=item, ConditionExpression="attribute_not_exists(id) OR #s = :queued",
            ExpressionAttributeNames={"#s": "status"}, ExpressionAttributeValues={":queued": "queued"},
        )  # fmt: skip
    except ClientError as error:
        if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
            return False
        raise
    return True


def status(event: dict[str, Any], context: Any) -> dict[str, Any]:
    job = event["pathParameters"]["id"]
    try:
        with reachable():
            item = wiring.table("JOBS_TABLE").get_item(Key={"id": job}, ConsistentRead=True).get("Item")
    except Refusal as refusal:
        return _response(refusal.status, {"message": str(refusal)}, refusal.headers)
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

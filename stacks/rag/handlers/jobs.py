"""The doors of the queue: submit answers 202 with a job id, status shows the job. `worker` does the work."""

import hashlib
import json
import os
import time
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError
from ragkit.identity import VISITOR
from ragkit.trace import HEADER, Trace

from handlers import dispatch, wiring
from handlers.requests import (
    ID,
    Refusal,
    admit,
    caller_of,
    connection_of,
    give_back,
    headers_of,
    new_id,
    question_of,
    reachable,
    trace_of,
)

KEPT_S = 86_400
AGAIN_S = 1
ENDED = ("done", "failed")

wiring.prepare("dynamodb", "sqs")


def submit(event: dict[str, Any], context: Any) -> dict[str, Any]:
    trace = trace_of(event)
    wiring.invocation().begin(context)
    try:
        with reachable():
            return _submit(event, trace)
    except Refusal as refusal:
        return _response(refusal.status, {"message": str(refusal)}, refusal.headers)


def _submit(event: dict[str, Any], trace: Trace) -> dict[str, Any]:
    """A job that was written, and whose message was not sent, is sent when the same turn comes again."""
    question, caller = question_of(event), caller_of(event)
    admitted = admit(caller)
    job = question.turn or new_id()
    item = {"id": job, "status": "queued", "question": question.text, "created": int(time.time()),
            "expires": int(time.time()) + KEPT_S, "correlation": trace.correlation,
            "owner": caller.user.id}  # fmt: skip
    before = _put(item)
    if before is not None:
        give_back(admitted)
        if before.get("owner", {}).get("S") != caller.user.id:
            raise Refusal(409, f"the turn {job} is somebody else's; send another id, or none")
        there = {"location": f"/questions/{job}", "retry-after": str(AGAIN_S)}
        return _response(202, {"id": job, "status": "known"}, there)
    user = {"id": caller.user.id, "labels": list(caller.user.labels)}
    message = {"id": job, "question": question.text, "session": question.session, "where": question.where,
               "user": user, "admitted": asdict(admitted), "correlation": trace.correlation,
               "connection": connection_of(event)}  # fmt: skip
    try:
        wiring.client("sqs").send_message(QueueUrl=dispatch.queue(), MessageBody=json.dumps(message))
    except Exception:
        give_back(admitted)
        raise
    trace.info("queued", job=job)
    headers = {"location": f"/questions/{job}", "retry-after": str(AGAIN_S), HEADER: trace.correlation}
    return _response(202, {"id": job, "status": "queued"}, headers)


def _put(item: dict[str, Any]) -> dict[str, Any] | None:
    """Write a job; the item that is there, in DynamoDB's own types, when it was handed in before, and somebody has
    begun with it or it is another user's."""
    try:
        wiring.table("JOBS_TABLE").put_item(
            Item=item, ConditionExpression="attribute_not_exists(id) OR (#s = :queued AND #o = :owner)",
            ExpressionAttributeNames={"#s": "status", "#o": "owner"},
            ExpressionAttributeValues={":queued": "queued", ":owner": item["owner"]},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )  # fmt: skip
    except ClientError as error:
        if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
            found: dict[str, Any] = error.response.get("Item", {})
            return found
        raise
    return None


def status(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The job: to whoever has its id, and where it was sent with an access key to a holder of its owner's alone."""
    job = event["pathParameters"]["id"]
    trace_of(event)
    wiring.invocation().begin(context)
    try:
        if not ID.fullmatch(job):
            raise Refusal(404, "jobs have ids of up to 64 letters, digits, and . _ : -")
        with reachable():
            item = wiring.table("JOBS_TABLE").get_item(Key={"id": job}, ConsistentRead=True).get("Item")
            owner = item.pop("owner", VISITOR) if item is not None else VISITOR
            if not owner.startswith(VISITOR) and caller_of(event).user.id != owner:
                item = None
    except Refusal as refusal:
        return _response(refusal.status, {"message": str(refusal)}, refusal.headers)
    if item is None:
        return _response(404, {"message": f"there is no job {job}"})
    return _polled(_as_it_stands(item), headers_of(event).get("if-none-match", ""))


def _as_it_stands(item: dict[str, Any]) -> dict[str, Any]:
    """The job without what is the service's own. An attempt that said when it would be over at the latest, and is heard
    of no more, was killed: it comes again, or it was the last."""
    item.pop("expires", None)
    until = int(item.pop("until", 0))
    if item["status"] == "working" and until and time.time() > until:
        last = int(item.get("attempts", 1)) >= int(os.environ["MAX_RECEIVES"])
        item |= {"status": "failed" if last else "retrying", "reason": "the attempt was killed before it ended"}
    return item


def _polled(item: dict[str, Any], known: str) -> dict[str, Any]:
    """200 with the job, or 304 where the client has it as it stands; when to come again while it is not done."""
    answer = _response(200, item, {"cache-control": "no-cache"})
    tag = f'"{hashlib.sha256(answer["body"].encode()).hexdigest()[:32]}"'
    answer["headers"]["etag"] = tag
    if item["status"] not in ENDED:
        answer["headers"]["retry-after"] = str(AGAIN_S)
    if tag in known.replace("W/", "").split(", "):
        return {"statusCode": 304, "headers": answer["headers"]}
    return answer


def _response(status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", **(headers or {})},
        "body": json.dumps(document, default=_plain, sort_keys=True),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"{type(value).__name__} cannot be shown")

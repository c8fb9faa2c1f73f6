"""Questions through the queue: submit answers 202 with a job id, the worker answers the question, status shows it."""

import json
import os
import time
import uuid
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from handlers import wiring
from handlers.answering import BadQuestion, answer, question_of
from handlers.ask import body_of

KEPT_S = 86_400


def submit(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        question = question_of(json.loads(body_of(event)))
    except (ValueError, BadQuestion) as error:
        message = str(error) if isinstance(error, BadQuestion) else 'the body is not JSON; send {"question": "..."}'
        return _response(400, {"message": message})
    job = str(uuid.uuid4())
    now = int(time.time())
    item = {"id": job, "status": "queued", "question": question, "created": now, "expires": now + KEPT_S}
    wiring.table("JOBS_TABLE").put_item(Item=item)
    wiring.client("sqs").send_message(
        QueueUrl=os.environ["QUESTIONS_QUEUE"], MessageBody=json.dumps({"id": job, "question": question})
    )
    return _response(202, {"id": job, "status": "queued"}, {"location": f"/questions/{job}"})


def status(event: dict[str, Any], context: Any) -> dict[str, Any]:
    job = event["pathParameters"]["id"]
    item = wiring.table("JOBS_TABLE").get_item(Key={"id": job}, ConsistentRead=True).get("Item")
    if item is None:
        return _response(404, {"message": f"there is no job {job}"})
    item.pop("expires", None)
    return _response(200, item)


def work(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failures = []
    for record in event["Records"]:
        try:
            _work(json.loads(record["body"]))
        except Exception as error:
            print(json.dumps({"level": "ERROR", "message": "a job failed", "messageId": record["messageId"],
                              "error": f"{type(error).__name__}: {error}"}))  # fmt: skip
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def _work(job: dict[str, Any]) -> None:
    """Answer one job, once: a job that is done stays as it is."""
    table = wiring.table("JOBS_TABLE")
    known = table.get_item(Key={"id": job["id"]}, ConsistentRead=True).get("Item")
    if known is None or known["status"] == "done":
        return
    _set(job["id"], {"status": "working"})
    done: dict[str, Any] = {}
    passages: list[dict[str, Any]] = []
    for name, data in answer(job["question"]):
        if name == "retrieval":
            passages = data["passages"]
        elif name == "done":
            done = data
    cited = {citation["n"] for citation in done["citations"]}
    shown = [
        {"n": one["n"], "title": one["title"], "source": one["source"], "text": one["text"]}
        for one in passages
        if one["n"] in cited
    ]
    values = {"status": "done", "answer": done["answer"], "citations": shown, "mode": done["mode"],
              "timing": done["timing"]}  # fmt: skip
    _set(job["id"], values)


def _set(job: str, values: dict[str, Any]) -> None:
    names = {f"#{index}": name for index, name in enumerate(values)}
    given = {f":{index}": value for index, value in enumerate(values.values())}
    changes = ", ".join(f"#{index} = :{index}" for index in range(len(values)))
    try:
        wiring.table("JOBS_TABLE").update_item(
            Key={"id": job},
            UpdateExpression=f"SET {changes}",
            ConditionExpression="attribute_exists(id) AND #s <> :finished",
            ExpressionAttributeNames={**names, "#s": "status"},
            ExpressionAttributeValues={**given, ":finished": "done"},
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise


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

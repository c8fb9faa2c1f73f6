"""Delivery status logs: what became of a message at an endpoint, written to CloudWatch Logs as a topic's feedback
attributes ask for.

Successes go to the log group `sns/<region>/<account>/<topic>`, failures to `.../Failure` of it. What a delivery is to
report travels with it in its options, under `STATUS`.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from preheat.services.contract import Context
from preheat.services.deliveries import Delivery, Ladder, Phase, emit
from preheat.services.sns.domain import SERVICE, Topic
from preheat.services.sns.messages import Message

STATUS = "status"
PREFIXES = {"sqs": "SQS", "lambda": "Lambda", "http": "HTTP", "https": "HTTP"}
DEFAULT_RATE = 100
LADDER = Ladder((Phase(8, 1.0, 128.0, "exponential"),), 3_600.0)
MAX_RESPONSE = 1_024


@dataclass(frozen=True, slots=True)
class Feedback:
    """Of one protocol of a topic: the roles that write of success and of failure ("": none does), and how many percent
    of the successes are written of."""

    success: str
    failure: str
    rate: int


def feedback(topic: Topic, protocol: str) -> Feedback | None:
    """None when nothing is to be written."""
    prefix = PREFIXES.get(protocol)
    success = topic.attributes.get(f"{prefix}SuccessFeedbackRoleArn", "")
    failure = topic.attributes.get(f"{prefix}FailureFeedbackRoleArn", "")
    rate = int(topic.attributes.get(f"{prefix}SuccessFeedbackSampleRate") or DEFAULT_RATE)
    return Feedback(success, failure, rate) if success or failure else None


def wanted(ctx: Context, asked: Feedback | None, message: Message, endpoint: str) -> dict[str, Any] | None:
    """What the delivery of a message to an endpoint is to report; chance decides whether a success is."""
    if asked is None:
        return None
    sampled = asked.success if asked.success and ctx.entropy.uniform() * 100.0 < asked.rate else ""
    if not sampled and not asked.failure:
        return None
    return {
        "md5": hashlib.md5(message.texts["default"].encode(), usedforsecurity=False).hexdigest(),
        "id": message.id,
        "topic": message.topic.arn,
        "timestamp": message.timestamp,
        "at": ctx.now,
        "to": endpoint,
        "success": sampled,
        "failure": asked.failure,
    }


def report(ctx: Context, status: dict[str, Any], attempts: int, code: int, response: str, *, good: bool) -> None:
    """Write what became of a delivery; `code` is what the endpoint answered, `response` its words. Of a function there
    is the invocation's id instead, and no number of attempts (recorded 2023)."""
    role = status["success"] if good else status["failure"]
    if not role:
        return
    delivery = {
        "deliveryId": ctx.entropy.uuid(),
        "destination": status["to"],
        "providerResponse": response[:MAX_RESPONSE],
        "dwellTimeMs": max(int((ctx.now - status["at"]) * 1_000), 0),
        "attempts": attempts,
        "statusCode": code,
    }
    if status["to"].startswith("arn:aws:lambda:"):
        del delivery["attempts"]
        if good:
            delivery["providerResponse"] = msgspec.json.encode({"lambdaRequestId": ctx.request_id}).decode()
    document = {
        "notification": {
            "messageMD5Sum": status["md5"],
            "messageId": status["id"],
            "topicArn": status["topic"],
            "timestamp": status["timestamp"].replace("T", " ").removesuffix("Z"),
        },
        "delivery": delivery,
        "status": "SUCCESS" if good else "FAILURE",
    }
    region, account, name = status["topic"].split(":")[3:6]
    day = status["timestamp"][:10].replace("-", "/")
    group = f"sns/{region}/{account}/{name}" + ("" if good else "/Failure")
    emit(
        ctx,
        Delivery(
            f"arn:aws:logs:{region}:{account}:log-group:{group}",
            msgspec.json.encode(document).decode(),
            source_arn=status["topic"],
            source_service=SERVICE,
            role=role,
            options={"make_group": True, "log_stream": day, "timestamp": ctx.now_ms},
            ladder=LADDER,
        ),
    )


def answer(kind: str, output: dict[str, Any]) -> tuple[int, str]:
    """(status code, provider's response) of a target that took a message; `kind` as in its ARN or URL."""
    if kind == "sqs":
        return 200, msgspec.json.encode({"sqsMessageId": output["MessageId"]}).decode()
    return output.get("StatusCode", 200), output.get("Response", "")

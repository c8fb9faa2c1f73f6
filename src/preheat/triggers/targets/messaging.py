"""Functions, queues, topics and event buses as targets."""

import base64
from dataclasses import replace
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Outcome, Params
from preheat.services.deliveries import Attributes, Delivery
from preheat.triggers.targets import permission
from preheat.triggers.targets.contract import answered, operate


def to_lambda(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """An asynchronous invocation of a function, version or alias with the body as event."""
    permission.check(ctx, delivery, "lambda:InvokeFunction")
    request = {"FunctionName": delivery.target, "InvocationType": "Event", "Payload": delivery.body.encode()}
    return operate(ctx, "lambda", "Invoke", request)


def to_sqs(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    permission.check(ctx, delivery, "sqs:SendMessage")
    arn = Arn.parse(delivery.target)
    request: Params = {"QueueUrl": _queue_url(ctx, arn), "MessageBody": delivery.body}
    if delivery.attributes:
        request["MessageAttributes"] = message_attributes(delivery.attributes)
    _add_group(request, delivery)
    return operate(ctx, "sqs", "SendMessage", request)


def _queue_url(ctx: Context, arn: Arn) -> str:
    """A lookup of the platform's own: no policy has to allow it."""
    return ctx.call("sqs", "GetQueueUrl", {"QueueName": arn.resource})["QueueUrl"]


def to_sns(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """Options: `subject`; `structure` "json" for a body with one text per protocol."""
    permission.check(ctx, delivery, "sns:Publish")
    request: Params = {"TopicArn": delivery.target, "Message": delivery.body}
    if delivery.attributes:
        request["MessageAttributes"] = message_attributes(delivery.attributes)
    for member, option in (("Subject", "subject"), ("MessageStructure", "structure")):
        if delivery.options.get(option):
            request[member] = delivery.options[option]
    _add_group(request, delivery)
    return operate(ctx, "sns", "Publish", request)


def to_events(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """The body is the event's detail. Options: `source` and `detail-type` (both needed), `resources`. PutEvents says
    nothing of a bus that is gone; a delivery to one fails."""
    permission.check(ctx, delivery, "events:PutEvents")
    _check_bus(ctx, delivery.target)
    entry: dict[str, Any] = {
        "EventBusName": delivery.target,
        "Source": delivery.options["source"],
        "DetailType": delivery.options["detail-type"],
        "Detail": delivery.body,
    }
    if delivery.options.get("resources"):
        entry["Resources"] = delivery.options["resources"]
    if delivery.trace is not None:
        entry["TraceHeader"] = delivery.trace
    output = answered(operate(ctx, "events", "PutEvents", {"Entries": [entry]}))
    if output.get("FailedEntryCount"):
        failure = output["Entries"][0]
        status = 500 if failure["ErrorCode"] in ("InternalFailure", "InternalException") else 400
        raise AwsError(failure["ErrorCode"], failure.get("ErrorMessage") or failure["ErrorCode"], status)
    return output


def _check_bus(ctx: Context, target: str) -> None:
    """Raises AwsError when there is no such bus. A lookup of the platform's own, as `_queue_url`."""
    try:
        replace(ctx, scope=Arn.parse(target).scope).call("events", "DescribeEventBus", {"Name": target})
    except AwsError as error:
        if error.code == "ResourceNotFoundException":
            raise


def message_attributes(attributes: Attributes) -> dict[str, Params]:
    """As SQS and SNS take them."""
    return {
        name: {"DataType": kind, "BinaryValue": base64.b64decode(value)}
        if kind.startswith("Binary")
        else {"DataType": kind, "StringValue": value}
        for name, (kind, value) in attributes.items()
    }


def _add_group(request: Params, delivery: Delivery) -> None:
    if delivery.message_group_id:
        request["MessageGroupId"] = delivery.message_group_id
    if delivery.message_deduplication_id:
        request["MessageDeduplicationId"] = delivery.message_deduplication_id

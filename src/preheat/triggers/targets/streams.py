"""Streams and state machines as targets; the delivery fails for good where Preheat does not have their service."""

from preheat.kernel.scope import Arn
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Outcome, Params
from preheat.services.deliveries import Delivery
from preheat.triggers.targets.contract import operate


def to_kinesis(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """Options: `partition_key` (by chance when there is none)."""
    request = {
        "StreamARN": delivery.target,
        "StreamName": Arn.parse(delivery.target).resource.removeprefix("stream/"),
        "Data": delivery.body.encode(),
        "PartitionKey": delivery.options.get("partition_key") or ctx.entropy.uuid(),
    }
    return operate(ctx, "kinesis", "PutRecord", request)


def to_firehose(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    name = Arn.parse(delivery.target).resource.removeprefix("deliverystream/")
    request = {"DeliveryStreamName": name, "Record": {"Data": delivery.body.encode()}}
    return operate(ctx, "firehose", "PutRecord", request)


def to_states(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """A new execution with the body as input. Options: `name`."""
    request: Params = {"stateMachineArn": delivery.target, "input": delivery.body}
    if delivery.options.get("name"):
        request["name"] = delivery.options["name"]
    if delivery.trace is not None:
        request["traceHeader"] = delivery.trace
    return operate(ctx, "stepfunctions", "StartExecution", request)

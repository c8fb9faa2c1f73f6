"""Buckets and log groups as targets."""

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Outcome, Params
from preheat.services.deliveries import Delivery
from preheat.triggers.targets import permission
from preheat.triggers.targets.contract import operate


def to_s3(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """An object in the bucket. Options: `key` (needed), `content_type` (application/json)."""
    permission.check(ctx, delivery, "s3:PutObject")
    request = {
        "Bucket": Arn.parse(delivery.target).resource.partition("/")[0],
        "Key": delivery.options["key"],
        "Body": delivery.body.encode(),
        "ContentType": delivery.options.get("content_type", "application/json"),
    }
    return operate(ctx, "s3", "PutObject", request)


def to_logs(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """One event in the log group, in a stream of its own. Options: `log_stream` names the stream, which is made when
    there is none; `make_group`: so is the group; `timestamp` in epoch milliseconds."""
    group = Arn.parse(delivery.target).resource.removeprefix("log-group:").removesuffix(":*")
    stream = delivery.options.get("log_stream") or ctx.entropy.uuid()
    names = {"logGroupName": group, "logStreamName": stream}
    if delivery.options.get("make_group"):
        _made(ctx, "CreateLogGroup", {"logGroupName": group})
    _made(ctx, "CreateLogStream", names)
    event = {"timestamp": delivery.options.get("timestamp", ctx.now_ms), "message": delivery.body}
    return operate(ctx, "logs", "PutLogEvents", {**names, "logEvents": [event]})


def _made(ctx: Context, operation: str, params: Params) -> None:
    try:
        operate(ctx, "logs", operation, params)
    except AwsError as error:
        if error.code != "ResourceAlreadyExistsException":
            raise

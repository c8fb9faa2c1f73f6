"""How asynchronous invocations are retried and where their results go."""

import json
import re
from dataclasses import replace

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, existing, load, marker, page
from preheat.services.awslambda.domain import (
    LATEST,
    FunctionName,
    as_datetime,
    check_range,
    invalid,
    not_found,
    parse_name,
    violation,
)
from preheat.services.contract import Context, Outcome, Params, Reply
from preheat.services.deliveries import role_principal

SIDES = {"OnSuccess": ("lambda", "sqs", "sns", "events"), "OnFailure": ("lambda", "sqs", "sns", "events", "s3")}
NO_FUNCTION = "The function doesn't exist."
UNIMPLEMENTED = 501
"""The status of a service that this platform was built without."""
_ARN_PATTERN = (
    r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:"
    r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
)
_ARN = re.compile(_ARN_PATTERN[2:])
_CALLS: dict[str, tuple[str, str]] = {
    "lambda": ("lambda", "Invoke"), "sqs": ("sqs", "SendMessage"), "sns": ("sns", "Publish"),
    "events": ("events", "PutEvents"), "s3": ("s3", "PutObject"),
}  # fmt: skip


def _destinations(ctx: Context, function: FunctionName, given: Params) -> Params:
    """A DestinationConfig, checked. Raises AwsError in AWS's words."""
    asked = {side: (given.get(side) or {}).get("Destination") or "" for side in SIDES}
    for side, target in asked.items():
        if target and _ARN.fullmatch(target) is None:
            member = f"destinationConfig.{side[0].lower()}{side[1:]}.destination"
            raise violation(target, member, f"Member must satisfy regular expression pattern: {_ARN_PATTERN}")
    if any(target and not _takes(side, target) for side, target in asked.items()):
        shown = {side: f"{side}(destination={target})" if target else "null" for side, target in asked.items()}
        text = f"DestinationConfig(onSuccess={shown['OnSuccess']}, onFailure={shown['OnFailure']})"
        raise invalid(f"The provided destination config {text} is invalid.")
    for target in filter(None, asked.values()):
        _check_function(ctx, function, target)
        if not target_exists(ctx, target):
            raise invalid(f"The destination ARN {target} is invalid.")
        check_role(ctx, load(ctx, function).settings.role, target, "The function's execution role")
    return {side: {"Destination": target} if target else {} for side, target in asked.items()}


def _takes(side: str, target: str) -> bool:
    """Kafka, FIFO queues and topics, and S3 for successes are no destinations."""
    if target.startswith("kafka:"):
        return False
    arn = Arn.parse(target)
    return arn.service in SIDES[side] and not (arn.service in ("sqs", "sns") and arn.resource.endswith(".fifo"))


def _check_function(ctx: Context, function: FunctionName, target: str) -> None:
    if Arn.parse(target).service != "lambda":
        return
    try:
        other = parse_name(target, ctx.scope)
        load(ctx, other)
    except AwsError as error:
        raise invalid(f"The destination ARN {target} is invalid.") from error
    if other.arn == function.arn:
        raise invalid("You can't specify the function as a destination for itself.")


def check_role(ctx: Context, role: str, target: str, who: str, where: str = "") -> None:
    """When policies are enforced: the execution role must be allowed to send to `target`."""
    if ctx.machine.authorizer is None:
        return
    arn = Arn.parse(target)
    service, operation = _CALLS[arn.service]
    question: Params = {
        "lambda": {"FunctionName": target},
        "sqs": {"QueueUrl": f"http://sqs/{arn.account}/{arn.resource}"},
        "sns": {"TopicArn": target},
        "events": {"Entries": [{"EventBusName": target}]},
        "s3": {"Bucket": arn.resource, "Key": "aws/lambda/async/x"},
    }[arn.service]
    try:
        ctx.machine.authorizer(replace(ctx, principal=role_principal(role, "lambda")), service, operation, question)
    except AwsError as error:
        if not error.code.startswith("AccessDenied"):
            raise
        raise denied_target(who, target, where) from error


def denied_target(who: str, target: str, where: str = "") -> AwsError:
    """`who` may not send to a target; `where` is how AWS calls it, if not by its ARN."""
    operation = _CALLS[Arn.parse(target).service][1]
    name = "InvokeFunction" if operation == "Invoke" else operation
    return invalid(f"{who} does not have permissions to call {name} on {where or target}")


def target_exists(ctx: Context, target: str) -> bool:
    """Whether a queue, topic, event bus or bucket is there. Functions are looked up by name, elsewhere."""
    arn = Arn.parse(target)
    lookups: dict[str, tuple[str, Params]] = {
        "sqs": ("GetQueueUrl", {"QueueName": arn.resource}),
        "sns": ("GetTopicAttributes", {"TopicArn": target}),
        "events": ("DescribeEventBus", {"Name": target}),
        "s3": ("HeadBucket", {"Bucket": arn.resource}),
    }
    if arn.service not in lookups:
        return True
    try:
        replace(ctx, scope=arn.scope if arn.account else ctx.scope).call(arn.service, *lookups[arn.service])
    except AwsError as error:
        return error.status == UNIMPLEMENTED
    return True


def _asked(ctx: Context, function: FunctionName, params: Params) -> Params:
    config: Params = {}
    if params.get("MaximumRetryAttempts") is not None:
        config["MaximumRetryAttempts"] = check_range(params["MaximumRetryAttempts"], "maximumRetryAttempts", 0, 2)
    if params.get("MaximumEventAgeInSeconds") is not None:
        age = params["MaximumEventAgeInSeconds"]
        config["MaximumEventAgeInSeconds"] = check_range(age, "maximumEventAgeInSeconds", 60, 21_600)
    if "DestinationConfig" in params:
        config["DestinationConfig"] = _destinations(ctx, function, params["DestinationConfig"] or {})
    if not config:
        raise invalid("You must specify at least one of error handling or destination setting.")
    return config


def _answer(function: FunctionName, config: Params, modified: float) -> Params:
    arn = f"{function.arn}:{function.qualifier or LATEST}"
    return {
        "LastModified": as_datetime(modified),
        "FunctionArn": arn,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
        **config,
    }


def put_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, otherwise=NO_FUNCTION)
    config = _asked(ctx, function, params)
    repository.save_event_invoke(ctx.db, function, config, ctx.now)
    return _answer(function, config, ctx.now)


def _existing_config(ctx: Context, params: Params) -> tuple[FunctionName, Params, float]:
    function = parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier"))
    found = repository.event_invoke(ctx.db, function)
    if found is None:
        raise not_found(f"The function {function.arn}:{function.qualifier or LATEST} doesn't have an EventInvokeConfig")
    return function, found[0], found[1]


def update_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    existing(ctx, params, otherwise=NO_FUNCTION)
    function, config, _ = _existing_config(ctx, params)
    merged = {**config, **_asked(ctx, function, params)}
    repository.save_event_invoke(ctx.db, function, merged, ctx.now)
    return _answer(function, merged, ctx.now)


def get_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    return _answer(*_existing_config(ctx, params))


def delete_function_event_invoke_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function, _, _ = _existing_config(ctx, params)
    repository.delete_event_invoke(ctx.db, function)
    return Reply({}, 204)


def list_function_event_invoke_configs(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True, otherwise=NO_FUNCTION)
    key, limit = page(params)
    rows = repository.event_invokes(ctx.db, function, key, limit + 1)
    output: Params = {
        "FunctionEventInvokeConfigs": [
            _answer(
                FunctionName(function.scope, function.name, row["qualifier"]),
                json.loads(row["config"]),
                row["modified"],
            )
            for row in rows[:limit]
        ]
    }
    if len(rows) > limit:
        output["NextMarker"] = marker(rows[limit - 1]["qualifier"])
    return output


OPERATIONS: dict[str, Operation] = {
    "PutFunctionEventInvokeConfig": put_function_event_invoke_config,
    "GetFunctionEventInvokeConfig": get_function_event_invoke_config,
    "UpdateFunctionEventInvokeConfig": update_function_event_invoke_config,
    "DeleteFunctionEventInvokeConfig": delete_function_event_invoke_config,
    "ListFunctionEventInvokeConfigs": list_function_event_invoke_configs,
}

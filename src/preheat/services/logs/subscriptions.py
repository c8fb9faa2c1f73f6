"""Subscription filters: events of a group that fit a pattern go to a Lambda function as they arrive."""

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

from preheat.identity import grants
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.services.deliveries import Delivery, emit
from preheat.services.logs import repository
from preheat.services.logs.domain import Position, check_length, event_id, group_name, invalid, violation
from preheat.services.logs.metric_filters import (
    LIMIT,
    check_filter_name,
    checked_pattern,
    dropped,
    listed,
    refuse_extras,
)
from preheat.services.logs.patterns import Test
from preheat.services.logs.repository import Filter

Params = dict[str, Any]
KIND = "subscription"
MOST = 2
MAX_CALL_BYTES = 700_000
"""Of messages in one invocation: an asynchronous event holds 1 MB."""
DISTRIBUTIONS = ("Random", "ByLogStream")
SHOWN = ("destinationArn", "distribution")
NOT_LET_IN = (
    "Could not execute the lambda function. Make sure you have given CloudWatch Logs permission to execute your "
    "function."
)


def put_subscription_filter(ctx: Context, params: Params) -> Params:
    name = group_name(params.get("logGroupName"))
    check_filter_name(params)
    pattern = checked_pattern(params)
    refuse_extras(params, "applyOnTransformedLogs", "fieldSelectionCriteria", "emitSystemFields")
    distribution = params.get("distribution", "ByLogStream")
    if distribution not in DISTRIBUTIONS:
        raise violation(distribution, "distribution", "Member must satisfy enum value set: [Random, ByLogStream]")
    destination = params["destinationArn"]
    _check_destination(ctx, destination, params.get("roleArn"))
    group = repository.require_group(ctx.db, ctx.scope, name)
    others = repository.count_filters(ctx.db, group.id, KIND)
    if repository.find_filter(ctx.db, group, KIND, params["filterName"]) is None and others >= MOST:
        raise AwsError("LimitExceededException", LIMIT)
    settings = {
        "destinationArn": destination,
        "distribution": distribution,
        "sender": _sender(ctx, destination, _source(ctx, group.name)),
    }
    repository.put_filter(ctx.db, group, KIND, params["filterName"], pattern, ctx.now_ms, settings)
    return {}


def _check_destination(ctx: Context, arn: str, role: str | None) -> None:
    parts = arn.split(":")
    if len(parts) < 6 or parts[0] != "arn":
        raise invalid(f"Invalid destination ARN: {arn}")
    vendor = parts[2]
    if vendor in ("kinesis", "firehose") and not role:
        raise invalid(f"destinationArn for vendor {vendor} cannot be used without roleArn")
    if vendor != "lambda":
        raise invalid(f"Preheat has no subscription filters to {vendor}; let a function send the events on")
    if parts[4] != ctx.scope.account:
        raise AwsError(
            "AccessDeniedException",
            "Cross-account lambda invocation passing is not allowed. You must use DestinationPolicies to create cross "
            "account lambda triggers.",
        )
    if role:
        raise invalid("destinationArn for vendor lambda cannot be used with roleArn")


def _source(ctx: Context, group: str) -> str:
    return ctx.scope.arn("logs", f"log-group:{group}:*")


def _sender(ctx: Context, function: str, source: str) -> str:
    """The name under which the function's policy lets CloudWatch Logs in. Raises InvalidParameterException for a
    function that is not there, or that does not let it in where policies are enforced."""
    service = ctx.machine.services.get("lambda")
    regional = f"logs.{ctx.scope.region}.amazonaws.com"
    try:
        if service is None:
            raise invalid(NOT_LET_IN)
        ctx.call("lambda", "GetFunctionConfiguration", {"FunctionName": function})
        if ctx.machine.authorizer is None:
            return "logs.amazonaws.com"
        document = ctx.call("lambda", "GetPolicy", {"FunctionName": function})["Policy"]
    except AwsError as error:
        raise invalid(NOT_LET_IN) from error
    account, action = ctx.scope.account, "lambda:InvokeFunction"
    for sender in ("logs.amazonaws.com", regional):
        if grants.service_may([document], sender, action, function, source, account):
            return sender
    raise invalid(NOT_LET_IN)


def delete_subscription_filter(ctx: Context, params: Params) -> Params:
    return dropped(ctx, params, KIND)


def describe_subscription_filters(ctx: Context, params: Params) -> Params:
    name = group_name(params.get("logGroupName"))
    check_length(params, "filterNamePrefix", 512)
    repository.require_group(ctx.db, ctx.scope, name)
    return listed(ctx, params, KIND, lambda found: found.group == name, "subscriptionFilters", _described)


def _described(found: Filter) -> Params:
    return {
        "filterName": found.name,
        "logGroupName": found.group,
        "filterPattern": found.pattern,
        **{member: found.settings[member] for member in SHOWN},
        "applyOnTransformedLogs": False,
        "creationTime": found.created_ms,
    }


def send(ctx: Context, found: Filter, matches: Test, stream: str, events: Sequence[tuple[Position, str]]) -> None:
    """Send what fits of a batch on its way, in as many invocations as its size asks for."""
    batch: list[Params] = []
    size = 0
    for position, message in events:
        if not matches(message):
            continue
        if batch and size + len(message) > MAX_CALL_BYTES:
            _emit(ctx, found, stream, batch)
            batch, size = [], 0
        batch.append({"id": event_id(position), "timestamp": position.at_ms, "message": message})
        size += len(message)
    if batch:
        _emit(ctx, found, stream, batch)


def _emit(ctx: Context, found: Filter, stream: str, batch: list[Params]) -> None:
    document = {
        "messageType": "DATA_MESSAGE",
        "owner": ctx.scope.account,
        "logGroup": found.group,
        "logStream": stream,
        "subscriptionFilters": [found.name],
        "logEvents": batch,
    }
    packed = gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)
    body = json.dumps({"awslogs": {"data": base64.b64encode(packed).decode()}})
    target, sender = found.settings["destinationArn"], found.settings["sender"]
    emit(ctx, Delivery(target, body, _source(ctx, found.group), sender))

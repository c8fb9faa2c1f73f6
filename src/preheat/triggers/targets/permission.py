"""May an AWS service send to this target: the target's resource policy, when policies are enforced.

What acts as a role is checked by the role's policies instead (`contract.operate`).
"""

from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from preheat.identity import grants
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.contract import Context, Params
from preheat.services.deliveries import Delivery
from preheat.triggers.targets.contract import answered

_ASSUMING = ("events.amazonaws.com", "scheduler.amazonaws.com", "sns.amazonaws.com", "states.amazonaws.com")


def check(ctx: Context, delivery: Delivery, action: str) -> None:
    """Raises AccessDeniedException when the target does not let the sending service in for its source."""
    if ctx.machine.authorizer is None or delivery.role:
        return
    arn = Arn.parse(delivery.target)
    documents = _POLICIES[arn.service](ctx, arn, delivery.target)
    source = delivery.source_arn.split(":")
    account = source[4] if len(source) > 4 and source[4] else ctx.scope.account
    resource = delivery.target
    if not grants.service_may(documents, delivery.source_service, action, resource, delivery.source_arn, account):
        message = f"{delivery.source_service} is not authorized to perform: {action} on resource: {resource}"
        raise AwsError("AccessDeniedException", message, 403)


def check_role(ctx: Context, delivery: Delivery) -> None:
    """Raises FAILED_TO_ASSUME_ROLE when policies are enforced and the role of a rule's target, of a schedule or of a
    topic's feedback is not there, or does not trust the service that sends."""
    if ctx.machine.authorizer is None or not delivery.role or delivery.source_service not in _ASSUMING:
        return
    role = Arn.parse(delivery.role)
    scope = Scope(role.account, ctx.scope.region)
    name = role.resource.rpartition("/")[2]
    found = _ask(replace(ctx, scope=scope), "iam", "GetRole", {"RoleName": name})
    trust = unquote(str(found.get("Role", {}).get("AssumeRolePolicyDocument", "")))
    account = delivery.source_arn.split(":")[4]
    service, source = delivery.source_service, delivery.source_arn
    if not trust or not grants.service_may([trust], service, "sts:AssumeRole", delivery.role, source, account):
        raise AwsError("FAILED_TO_ASSUME_ROLE", f"{service} cannot assume the role {delivery.role}.", 403)


def _ask(ctx: Context, service: str, operation: str, params: Params) -> Params:
    """An operation that only reads; nothing when it fails."""
    found = ctx.machine.services.get(service)
    try:
        return {} if found is None else answered(found.operations[operation](ctx, params))
    except AwsError:
        return {}


def _queue(ctx: Context, arn: Arn, text: str) -> list[str]:
    url = _ask(ctx, "sqs", "GetQueueUrl", {"QueueName": arn.resource}).get("QueueUrl")
    if url is None:
        return []
    found = _ask(ctx, "sqs", "GetQueueAttributes", {"QueueUrl": url, "AttributeNames": ["Policy"]})
    return list((found.get("Attributes") or {}).values())


def _function(ctx: Context, arn: Arn, text: str) -> list[str]:
    return _policy(_ask(ctx, "lambda", "GetPolicy", {"FunctionName": text}))


def _topic(ctx: Context, arn: Arn, text: str) -> list[str]:
    return _policy(_ask(ctx, "sns", "GetTopicAttributes", {"TopicArn": text}).get("Attributes") or {})


def _bus(ctx: Context, arn: Arn, text: str) -> list[str]:
    return _policy(_ask(ctx, "events", "DescribeEventBus", {"Name": text}))


def _bucket(ctx: Context, arn: Arn, text: str) -> list[str]:
    return _policy(_ask(ctx, "s3", "GetBucketPolicy", {"Bucket": arn.resource}))


def _nothing(ctx: Context, arn: Arn, text: str) -> list[str]:
    """Targets that only a role may write to."""
    return []


def _policy(output: Params) -> list[str]:
    return [output["Policy"]] if output.get("Policy") else []


_POLICIES: dict[str, Callable[[Context, Arn, str], list[str]]] = {
    "sqs": _queue,
    "lambda": _function,
    "sns": _topic,
    "events": _bus,
    "s3": _bucket,
    "logs": _nothing,
    "states": _nothing,
    "kinesis": _nothing,
    "firehose": _nothing,
}

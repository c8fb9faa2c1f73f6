"""Bucket notifications: what may be configured, what an event looks like, who gets it.

A matching event is emitted as one `deliver` per destination, in the transaction of the write that caused it.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from preheat.identity import grants
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context, Params
from preheat.services.deliveries import Delivery, emit
from preheat.services.s3 import bridge
from preheat.services.s3.domain import invalid_argument, not_implemented
from preheat.services.s3.repository import Bucket

SERVICE = "s3.amazonaws.com"
SUBJECT = "Amazon S3 Notification"
KINDS = {
    "QueueConfigurations": ("QueueArn", "sqs"),
    "LambdaFunctionConfigurations": ("LambdaFunctionArn", "lambda"),
    "TopicConfigurations": ("TopicArn", "sns"),
}
EMITTED = frozenset(
    {
        "s3:ObjectCreated:*",
        "s3:ObjectCreated:Put",
        "s3:ObjectCreated:Post",
        "s3:ObjectCreated:Copy",
        "s3:ObjectCreated:CompleteMultipartUpload",
        "s3:ObjectRemoved:*",
        "s3:ObjectRemoved:Delete",
        "s3:ObjectTagging:*",
        "s3:ObjectTagging:Put",
        "s3:ObjectTagging:Delete",
    }
)
_NEVER = re.compile(
    r"s3:(ObjectRemoved:DeleteMarkerCreated|ObjectRestore:.*|Replication:.*|LifecycleExpiration:.*|"
    r"LifecycleTransition|IntelligentTiering|ObjectAcl:Put|ReducedRedundancyLostObject|ObjectAnnotation:.*|"
    r"ObjectRetention:Put)"
)


class Sequencer:
    """Hexadecimal numbers that only grow, from the clock's microseconds; S3 orders one key's events by them."""

    def __init__(self) -> None:
        self._last = 0

    def next(self, now: float) -> str:
        self._last = max(self._last + 1, int(now * 1_000_000))
        return f"{self._last:016X}"


# -- configuration --------------------------------------------------------------------------------------------------


def compile_configuration(given: Params, new_id: Callable[[], str]) -> list[dict[str, Any]]:
    """The destinations of a NotificationConfiguration, each {kind, id, arn, events, prefix, suffix}, validated apart
    from whether the destination exists. Raises InvalidArgument, NotImplemented."""
    destinations = []
    for kind, (arn_member, service) in KINDS.items():
        for entry in given.get(kind, ()):
            arn = entry[arn_member]
            _check_arn(arn, service)
            for event in entry["Events"]:
                if event not in EMITTED and not _NEVER.fullmatch(event):
                    raise invalid_argument("A specified event is not supported for notifications.", "Event", event)
                if event not in EMITTED:
                    raise not_implemented(f"Preheat never raises {event}: the feature behind it is not implemented.")
            prefix, suffix = _filter(entry.get("Filter"))
            destinations.append(
                {
                    "kind": kind,
                    "id": entry.get("Id") or new_id(),
                    "arn": arn,
                    "events": entry["Events"],
                    "prefix": prefix,
                    "suffix": suffix,
                }
            )
    _check_overlap(destinations)
    if bridge.KIND in given:
        everything = {"id": new_id(), "arn": "", "events": sorted(EMITTED), "prefix": "", "suffix": ""}
        destinations.append({"kind": bridge.KIND, **everything})
    identifiers = [destination["id"] for destination in destinations]
    if len(set(identifiers)) != len(identifiers):
        raise invalid_argument("Same ID used for multiple configurations. IDs must be unique", "Id", identifiers[0])
    return destinations


def _check_arn(text: str, service: str) -> None:
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise invalid_argument("The ARN could not be parsed", service.capitalize() + "Arn", text) from None
    if arn.service != service:
        raise invalid_argument("The ARN could not be parsed", service.capitalize() + "Arn", text)
    if service in ("sqs", "sns") and arn.resource.endswith(".fifo"):
        what = "SQS queues" if service == "sqs" else "SNS topics"
        raise _unreachable(text, f"FIFO {what} are not supported.")


def _filter(given: Params | None) -> tuple[str, str]:
    values = {"prefix": "", "suffix": ""}
    seen = set()
    for rule in ((given or {}).get("Key") or {}).get("FilterRules", ()):
        name = rule.get("Name", "").lower()
        if name not in values:
            raise invalid_argument(
                "filter rule name must be either prefix or suffix", "FilterRule.Name", rule.get("Name", "")
            )
        if name in seen:
            raise invalid_argument(
                f"Cannot specify more than one {name} rule in a filter.", "FilterRule.Name", rule.get("Name", "")
            )
        seen.add(name)
        value = unquote_plus(rule.get("Value", ""))
        if len(value) > 1_024:
            raise invalid_argument("Size of filter rule value cannot exceed 1024 bytes", "FilterRule.Value", value)
        values[name] = value
    return values["prefix"], values["suffix"]


def _check_overlap(destinations: list[dict[str, Any]]) -> None:
    for index, one in enumerate(destinations):
        for other in destinations[index + 1 :]:
            if not any(_same_event(a, b) for a in one["events"] for b in other["events"]):
                continue
            prefixes = one["prefix"].startswith(other["prefix"]) or other["prefix"].startswith(one["prefix"])
            suffixes = one["suffix"].endswith(other["suffix"]) or other["suffix"].endswith(one["suffix"])
            if prefixes and suffixes:
                raise AwsError(
                    "InvalidArgument",
                    "Configurations overlap. Configurations on the same bucket cannot share a common event type.",
                )


def _same_event(one: str, other: str) -> bool:
    return event_matches(one, other) or event_matches(other, one)


def event_matches(pattern: str, event: str) -> bool:
    return pattern == event or (pattern.endswith("*") and event.startswith(pattern[:-1]))


def _unreachable(arn: str, why: str) -> AwsError:
    return invalid_argument("Unable to validate the following destination configurations", arn, why)


def check_destination(ctx: Context, bucket: Bucket, destination: dict[str, Any]) -> None:
    """Ask the destination's service whether it exists, and lets S3 in. Raises InvalidArgument."""
    if destination["kind"] == bridge.KIND:
        return
    arn = Arn.parse(destination["arn"])
    question = {
        "sqs": ("GetQueueUrl", {"QueueName": arn.resource}, "The destination queue does not exist"),
        "lambda": (
            "GetFunctionConfiguration",
            {"FunctionName": destination["arn"]},
            "The destination Lambda does not exist",
        ),
        "sns": ("GetTopicAttributes", {"TopicArn": destination["arn"]}, "The destination topic does not exist"),
    }
    operation, params, missing = question[arn.service]
    try:
        ctx.call(arn.service, operation, params)
    except AwsError as error:
        raise _unreachable(destination["arn"], missing) from error
    if ctx.machine.authorizer is not None:
        _check_permission(ctx, bucket, arn, destination["arn"])


def _check_permission(ctx: Context, bucket: Bucket, arn: Arn, target: str) -> None:
    """When policies are enforced: the destination's own must let S3 in for this bucket. Raises InvalidArgument."""
    if arn.service == "sqs":
        url = ctx.call("sqs", "GetQueueUrl", {"QueueName": arn.resource})["QueueUrl"]
        found = ctx.call("sqs", "GetQueueAttributes", {"QueueUrl": url, "AttributeNames": ["Policy"]})
        document = (found.get("Attributes") or {}).get("Policy")
        action = "sqs:SendMessage"
        why = "Permissions on the destination queue do not allow S3 to publish notifications from this bucket"
    elif arn.service == "sns":
        document = (ctx.call("sns", "GetTopicAttributes", {"TopicArn": target}).get("Attributes") or {}).get("Policy")
        action = "sns:Publish"
        why = "Permissions on the destination topic do not allow S3 to publish notifications from this bucket"
    else:
        try:
            document = ctx.call("lambda", "GetPolicy", {"FunctionName": target})["Policy"]
        except AwsError:
            document = None
        action, why = "lambda:InvokeFunction", f"Not authorized to invoke function [{target}]"
    documents = [document] if document else []
    if not grants.service_may(documents, SERVICE, action, target, bucket.arn, bucket.account):
        raise _unreachable(target, why)


def send_test_event(ctx: Context, bucket: Bucket, destination: dict[str, Any]) -> None:
    """What S3 sends to a queue or topic when it is configured."""
    if destination["kind"] in ("LambdaFunctionConfigurations", bridge.KIND):
        return
    _deliver(
        ctx,
        bucket,
        destination["arn"],
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": _instant(ctx.now),
            "Bucket": bucket.name,
            "RequestId": _short_id(ctx),
            "HostId": ctx.request_id,
        },
    )


def described(destinations: list[dict[str, Any]]) -> Params:
    """The stored destinations as GetBucketNotificationConfiguration answers them."""
    output: Params = {}
    for destination in destinations:
        if destination["kind"] == bridge.KIND:
            output[bridge.KIND] = {}
            continue
        entry: Params = {
            "Id": destination["id"],
            KINDS[destination["kind"]][0]: destination["arn"],
            "Events": destination["events"],
        }
        rules = [
            {"Name": name.capitalize(), "Value": destination[name]}
            for name in ("prefix", "suffix")
            if destination[name]
        ]
        if rules:
            entry["Filter"] = {"Key": {"FilterRules": rules}}
        output.setdefault(destination["kind"], []).append(entry)
    return output


# -- events ---------------------------------------------------------------------------------------------------------


def notify(
    ctx: Context, bucket: Bucket, sequencer: Sequencer, event: str, key: str, size: int | None, etag: str | None
) -> None:
    """Emit `event` (as "s3:ObjectCreated:Put") to every destination whose events and filter match."""
    if bucket.notifications is None:
        return
    record = None
    for destination in configured(bucket):
        if (
            key.startswith(destination["prefix"])
            and key.endswith(destination["suffix"])
            and any(event_matches(pattern, event) for pattern in destination["events"])
        ):
            if destination["kind"] == bridge.KIND:
                bridge.publish(ctx, bucket, sequencer.next(ctx.now), event, key, size, etag)
                continue
            record = record or _record(ctx, bucket, sequencer.next(ctx.now), event, key, size, etag)
            record["s3"]["configurationId"] = destination["id"]
            _deliver(ctx, bucket, destination["arn"], {"Records": [record]})


def configured(bucket: Bucket) -> list[dict[str, Any]]:
    """The stored destinations of a bucket."""
    return [] if bucket.notifications is None else json.loads(bucket.notifications)


def _record(
    ctx: Context, bucket: Bucket, sequencer: str, event: str, key: str, size: int | None, etag: str | None
) -> dict[str, Any]:
    entity: dict[str, Any] = {"key": quote_plus(key, safe="/*-._")}
    if size is not None:
        entity["size"] = size
    if etag is not None:
        entity["eTag"] = etag
    entity["sequencer"] = sequencer
    peer = ctx.request.peer if ctx.request is not None else "127.0.0.1"
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": bucket.region,
        "eventTime": _instant(ctx.now),
        "eventName": event.removeprefix("s3:"),
        "userIdentity": {"principalId": f"AWS:{ctx.principal.user_id or ctx.principal.account}"},
        "requestParameters": {"sourceIPAddress": peer},
        "responseElements": {"x-amz-request-id": _short_id(ctx), "x-amz-id-2": ctx.request_id},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "",
            "bucket": {
                "name": bucket.name,
                "ownerIdentity": {"principalId": bucket.account},
                "arn": bucket.arn,
            },
            "object": entity,
        },
    }


def _deliver(ctx: Context, bucket: Bucket, target: str, document: dict[str, Any]) -> None:
    body = json.dumps(document, separators=(",", ":"))
    options = {"subject": SUBJECT} if target.split(":", 3)[2] == "sns" else {}
    emit(ctx, Delivery(target, body, bucket.arn, SERVICE, options=options))


def _instant(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(now * 1000) % 1000:03d}Z"


def _short_id(ctx: Context) -> str:
    return ctx.request_id.replace("-", "")[:16].upper()

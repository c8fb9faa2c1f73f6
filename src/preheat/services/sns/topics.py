"""SNS's operations on topics."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from preheat.identity import policy as policy_language
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.contract import Context, Outcome, Params
from preheat.services.sns import policies
from preheat.services.sns.domain import (
    DEFAULT_MAX_BYTES,
    LARGEST_MAX_BYTES,
    MAX_FIFO_SUBSCRIPTIONS,
    PAGE,
    Topic,
    check_name,
    check_tags,
    invalid,
    no_such_resource,
    not_found,
    page_token,
    read_page,
    topic_arn,
)
from preheat.services.sns.repository import SnsRepository
from preheat.services.sns.signing import Signer

FEEDBACK = re.compile(
    r"(HTTP|Firehose|Lambda|Application|SQS|SMS)(SuccessFeedbackRoleArn|SuccessFeedbackSampleRate|FailureFeedbackRoleArn)\Z"
)
ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/.+\Z")
CHOICES = {
    "ContentBasedDeduplication": ("true", "false"),
    "FifoThroughputScope": ("Topic", "MessageGroup"),
    "SignatureVersion": ("1", "2"),
    "TracingConfig": ("PassThrough", "Active"),
}
FIFO_ONLY = {"ContentBasedDeduplication": "false", "FifoThroughputScope": "Topic"}
TOPIC_ACTIONS = frozenset(
    {
        "AddPermission", "DeleteTopic", "GetDataProtectionPolicy", "GetTopicAttributes", "ListSubscriptionsByTopic",
        "ListTagsForResource", "Publish", "PutDataProtectionPolicy", "RemovePermission", "SetTopicAttributes",
        "Subscribe",
    }
)  # fmt: skip
LARGE_PROTOCOLS = frozenset({"sqs", "firehose", "lambda"})
MAX_LARGE_SUBSCRIPTIONS = 100


class TopicOperations:
    """`forget` is told of a topic that is gone."""

    def __init__(self, rows: SnsRepository, signer: Signer, forget: Callable[[Topic], None]) -> None:
        self._rows = rows
        self._signer = signer
        self._forget = forget

    def find(self, ctx: Context, arn: str, member: str = "TopicArn") -> Topic:
        """The topic of an ARN. Raises InvalidParameter, NotFound."""
        parts = topic_arn(arn, member)
        if ctx.principal.kind != "anonymous" and parts.region != ctx.scope.region:
            raise invalid(member)
        topic = self._rows.topic(Scope(parts.account, parts.region), parts.resource)
        if topic is None:
            raise not_found("Topic")
        return topic

    # -- life -----------------------------------------------------------------------------------------------------

    def create_topic(self, ctx: Context, params: Params) -> Outcome:
        name = params["Name"]
        attributes = dict(params.get("Attributes") or {})
        fifo = attributes.pop("FifoTopic", "false").lower()
        if fifo not in ("true", "false"):
            raise invalid("Attributes Reason: FifoTopic: Invalid value. Must be true or false.")
        check_name(name, fifo == "true")
        if params.get("DataProtectionPolicy"):
            raise invalid("DataProtectionPolicy Reason: Preheat does not implement message data protection")
        given = params.get("Tags") or []
        tags = {tag["Key"]: tag["Value"] for tag in given}
        check_tags(tags, len(given))
        for attribute, value in attributes.items():
            attributes[attribute] = value = canonical(attribute, value)
            check_attribute(attribute, value, fifo == "true", "Attributes Reason: ")
        known = self._rows.topic(ctx.scope, name)
        if known is not None:
            _compare(known, attributes, tags)
            return {"TopicArn": known.arn}
        stored = {attribute: value for attribute, value in attributes.items() if value != ""}
        topic = self._rows.create_topic(ctx.scope, name, stored, tags)
        self._signer.prepare(ctx)
        return {"TopicArn": topic.arn}

    def delete_topic(self, ctx: Context, params: Params) -> Outcome:
        parts = topic_arn(params["TopicArn"])
        if parts.region != ctx.scope.region:
            raise invalid("TopicArn")
        topic = self._rows.topic(Scope(parts.account, parts.region), parts.resource)
        if topic is not None:
            self._rows.delete_topic(topic)
            self._forget(topic)
        return {}

    def list_topics(self, ctx: Context, params: Params) -> Outcome:
        topics = self._rows.topics(ctx.scope, read_page(params), PAGE + 1)
        output: Params = {"Topics": [{"TopicArn": topic.arn} for topic in topics[:PAGE]]}
        if len(topics) > PAGE:
            output["NextToken"] = page_token(topics[PAGE - 1].name)
        return output

    # -- attributes -----------------------------------------------------------------------------------------------

    def get_topic_attributes(self, ctx: Context, params: Params) -> Outcome:
        topic = self.find(ctx, params["TopicArn"])
        counts = self._rows.counts(topic)
        values = {
            "TopicArn": topic.arn,
            "Owner": topic.scope.account,
            "DisplayName": "",
            "SubscriptionsConfirmed": str(counts.get("confirmed", 0)),
            "SubscriptionsPending": str(counts.get("pending", 0)),
            "SubscriptionsDeleted": str(counts.get("deleted", 0)),
            "EffectiveDeliveryPolicy": _json(policies.effective_topic_policy(topic.attributes.get("DeliveryPolicy"))),
        }
        if topic.fifo:
            values |= {"FifoTopic": "true", "ContentBasedDeduplication": "false"}
        values |= {**topic.attributes, "Policy": topic.policy}
        if "DeliveryPolicy" in topic.attributes:
            values["DeliveryPolicy"] = _json(policies.shown_topic_policy(topic.attributes["DeliveryPolicy"]))
        return {"Attributes": values}

    def set_topic_attributes(self, ctx: Context, params: Params) -> Outcome:
        topic = self.find(ctx, params["TopicArn"])
        name = params["AttributeName"]
        value = canonical(name, params.get("AttributeValue") or "")
        check_attribute(name, value, topic.fifo, "")
        if name == "MaximumMessageSize" and value and int(value) > DEFAULT_MAX_BYTES:
            self._check_large(topic)
        changed = {**topic.attributes, name: value}
        if value == "":
            del changed[name]
        self._rows.set_topic_attributes(topic, changed)
        return {}

    def _check_large(self, topic: Topic) -> None:
        """Messages of more than 256 KiB go only to few subscriptions, of some protocols."""
        found = self._rows.listed_by_topic(topic, 0, MAX_LARGE_SUBSCRIPTIONS + 1)
        if len(found) > MAX_LARGE_SUBSCRIPTIONS or any(one.protocol not in LARGE_PROTOCOLS for one in found):
            raise invalid(
                "MaximumMessageSize: a topic with messages above 262144 bytes must have 100 or fewer subscriptions, "
                "each of the protocol sqs, firehose or lambda"
            )

    # -- permissions ----------------------------------------------------------------------------------------------

    def add_permission(self, ctx: Context, params: Params) -> Outcome:
        topic = self.find(ctx, params["TopicArn"])
        label, accounts, actions = params["Label"], params["AWSAccountId"], params["ActionName"]
        if not label:
            raise invalid("Label")
        if not actions or any(action not in TOPIC_ACTIONS and action != "*" for action in actions):
            raise invalid("Policy statement action out of service scope!")
        if not accounts or any(not re.fullmatch(r"\d{12}", account) for account in accounts):
            raise invalid("PrincipalId")
        document = msgspec.json.decode(topic.policy)
        if any(statement.get("Sid") == label for statement in _statements(document)):
            raise invalid("Statement already exists")
        principals = [f"arn:aws:iam::{account}:root" for account in accounts]
        names = [f"SNS:{action}" for action in actions]
        statement = {
            "Sid": label,
            "Effect": "Allow",
            "Principal": {"AWS": principals if len(principals) > 1 else principals[0]},
            "Action": names if len(names) > 1 else names[0],
            "Resource": topic.arn,
        }
        document["Statement"] = [*_statements(document), statement]
        self._rows.set_topic_attributes(topic, {**topic.attributes, "Policy": _json(document)})
        return {}

    def remove_permission(self, ctx: Context, params: Params) -> Outcome:
        topic = self.find(ctx, params["TopicArn"])
        document = msgspec.json.decode(topic.policy)
        kept = [statement for statement in _statements(document) if statement.get("Sid") != params["Label"]]
        if len(kept) < len(_statements(document)):
            document["Statement"] = kept
            self._rows.set_topic_attributes(topic, {**topic.attributes, "Policy": _json(document)})
        return {}

    # -- tags -----------------------------------------------------------------------------------------------------

    def _tagged(self, ctx: Context, params: Params) -> Topic:
        try:
            return self.find(ctx, params["ResourceArn"], "ResourceArn")
        except AwsError as error:
            raise no_such_resource() if error.code == "NotFound" else error from None

    def tag_resource(self, ctx: Context, params: Params) -> Outcome:
        topic = self._tagged(ctx, params)
        given = {tag["Key"]: tag["Value"] for tag in params["Tags"]}
        check_tags(given, len(params["Tags"]))
        merged = {**topic.tags, **given}
        check_tags(merged, len(merged))
        self._rows.set_tags(topic, merged)
        return {}

    def untag_resource(self, ctx: Context, params: Params) -> Outcome:
        topic = self._tagged(ctx, params)
        gone = set(params["TagKeys"])
        self._rows.set_tags(topic, {key: value for key, value in topic.tags.items() if key not in gone})
        return {}

    def list_tags_for_resource(self, ctx: Context, params: Params) -> Outcome:
        topic = self._tagged(ctx, params)
        return {"Tags": [{"Key": key, "Value": value} for key, value in topic.tags.items()]}


def canonical(name: str, value: str) -> str:
    """An attribute's value as it is kept: what is true or false may be written in any case."""
    return value.lower() if name == "ContentBasedDeduplication" else value


def check_attribute(name: str, value: str, fifo: bool, prefix: str) -> None:
    """One attribute of a topic; `prefix` begins the reason of an error. Raises InvalidParameter."""
    if name == "ArchivePolicy":
        raise invalid(f"{prefix}ArchivePolicy: Preheat does not archive messages")
    if name in FIFO_ONLY and not fifo:
        raise invalid(f"{prefix}{name} can only be set for FIFO topics")
    check = _CHECKS.get(name)
    if check is None and not FEEDBACK.match(name):
        raise invalid("AttributeName" if not prefix else f"{prefix}AttributeName")
    if value == "":
        return
    if check is not None:
        check(name, value, prefix)
    elif name.endswith("SampleRate"):
        if not re.fullmatch(r"\d{1,3}", value) or int(value) > 100:
            raise invalid(f"{prefix}{name}: Invalid value [{value}]. Must be an integer between 0 and 100.")
    elif not ROLE.match(value):
        raise invalid(f"{prefix}{name}: Invalid value [{value}]. Must be the ARN of an IAM role.")


def _check_choice(name: str, value: str, prefix: str) -> None:
    if value not in CHOICES[name]:
        raise invalid(f"{prefix}{name}: Invalid value [{value}]. Must be {' or '.join(CHOICES[name])}.")


def _check_display_name(name: str, value: str, prefix: str) -> None:
    if len(value) > 100 or not value.isprintable():
        raise invalid(f"{prefix}DisplayName")


def _check_policy(name: str, value: str, prefix: str) -> None:
    try:
        policy_language.parse(value)
    except policy_language.MalformedPolicy:
        raise invalid("Policy Error: null") from None


def _check_size(name: str, value: str, prefix: str) -> None:
    if not re.fullmatch(r"\d{1,7}", value) or not 1_024 <= int(value) <= LARGEST_MAX_BYTES:
        raise invalid(
            f"{prefix}MaximumMessageSize: Invalid value [{value}]. Must be an integer between 1024 and "
            f"{LARGEST_MAX_BYTES}."
        )


def _anything(name: str, value: str, prefix: str) -> None:
    """Kept as it is."""


_CHECKS: dict[str, Callable[[str, str, str], None]] = {
    **dict.fromkeys(CHOICES, _check_choice),
    "DeliveryPolicy": lambda name, value, prefix: policies.check_topic_policy(value, prefix),
    "DisplayName": _check_display_name,
    "KmsMasterKeyId": _anything,
    "MaximumMessageSize": _check_size,
    "Policy": _check_policy,
}


def check_room(topic: Topic, count: int, protocol: str) -> None:
    """May a topic that has `count` subscriptions take one more of this protocol. Raises SubscriptionLimitExceeded."""
    large = topic.max_bytes > DEFAULT_MAX_BYTES
    if large and protocol not in LARGE_PROTOCOLS:
        raise invalid(f"Protocol Reason: {protocol} subscriptions do not take messages above 262144 bytes")
    if (topic.fifo and count >= MAX_FIFO_SUBSCRIPTIONS) or (large and count >= MAX_LARGE_SUBSCRIPTIONS):
        raise AwsError("SubscriptionLimitExceeded", "Subscription limit exceeded for the topic", 403)


def _compare(known: Topic, attributes: dict[str, str], tags: dict[str, str]) -> None:
    """What is given of a topic that is created again must be as it is; some of its tags will do."""
    if any(known.tags.get(key) != value for key, value in tags.items()):
        raise invalid("Tags Reason: Topic already exists with different tags")
    for name, value in attributes.items():
        if known.attributes.get(name, FIFO_ONLY.get(name, "")) != value:
            raise invalid("Attributes Reason: Topic already exists with different attributes")


def _statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    found = document.get("Statement") or []
    return found if isinstance(found, list) else [found]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

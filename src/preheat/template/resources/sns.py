"""AWS::SNS: topics, subscriptions and topic policies."""

from collections.abc import Generator
from typing import Any

from preheat.template.definition import (
    Call,
    Command,
    Failed,
    Made,
    Resource,
    ResourceType,
    Script,
    properties,
    tag_map,
    unused,
)

TOPIC_ATTRIBUTES = {
    "ContentBasedDeduplication": "false",
    "DisplayName": "",
    "FifoThroughputScope": "Topic",
    "KmsMasterKeyId": "",
    "SignatureVersion": "1",
    "TracingConfig": "PassThrough",
}
SUBSCRIPTION_ATTRIBUTES = ("DeliveryPolicy", "FilterPolicyScope", "FilterPolicy", "RawMessageDelivery", "RedrivePolicy")
UNSET = {"FilterPolicyScope": "MessageAttributes", "RawMessageDelivery": "false"}
LOGGED = {"http/s": "HTTP", "sqs": "SQS", "lambda": "Lambda", "firehose": "Firehose", "application": "Application"}
FEEDBACK = ("SuccessFeedbackRoleArn", "SuccessFeedbackSampleRate", "FailureFeedbackRoleArn")


def _is_fifo(resource: Resource) -> bool:
    return str(resource.get("FifoTopic", "")).lower() == "true"


def _feedback(given: Any) -> dict[str, str]:
    """The topic attributes of a DeliveryStatusLogging list."""
    found = {}
    for item in given or ():
        protocol = LOGGED.get(item["Protocol"])
        if protocol is None:
            raise Failed(f"Invalid value for DeliveryStatusLogging Protocol: {item['Protocol']}")
        found.update({f"{protocol}{name}": str(item[name]) for name in FEEDBACK if name in item})
    return found


def create_topic(resource: Resource) -> Script:
    fifo = _is_fifo(resource)
    name = resource.name
    if fifo and not resource.get("TopicName"):
        name = f"{name[:251]}.fifo"
    arn = resource.scope.arn("sns", name)
    yield from unused(Call("sns", "GetTopicAttributes", {"TopicArn": arn}), resource.type, name)
    attributes = resource.pick(*TOPIC_ATTRIBUTES) | _feedback(resource.get("DeliveryStatusLogging"))
    if fifo:
        attributes["FifoTopic"] = "true"
    params = {"Name": name, "Attributes": attributes}
    tags = tag_map(resource.get("Tags"))
    if tags:
        params["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    yield Call("sns", "CreateTopic", params)
    yield Made(arn)
    for item in resource.get("Subscription") or ():
        yield Call("sns", "Subscribe", {"TopicArn": arn, **item})
    return {"TopicArn": arn, "TopicName": name}


def update_topic(resource: Resource) -> Script:
    arn = resource.physical_id
    for name, default in TOPIC_ATTRIBUTES.items():
        if resource.changed(name):
            params = {"TopicArn": arn, "AttributeName": name, "AttributeValue": resource.get(name, default)}
            yield Call("sns", "SetTopicAttributes", params)
    before, after = _feedback(resource.old.get("DeliveryStatusLogging")), _feedback(
        resource.get("DeliveryStatusLogging")
    )
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            params = {"TopicArn": arn, "AttributeName": name, "AttributeValue": after.get(name, "")}
            yield Call("sns", "SetTopicAttributes", params)
    yield from _subscriptions(resource, arn)
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("sns", "UntagResource", {"ResourceArn": arn, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        tags = [{"Key": key, "Value": value} for key, value in new.items()]
        yield Call("sns", "TagResource", {"ResourceArn": arn, "Tags": tags})
    return resource.attributes


def _subscriptions(resource: Resource, arn: str) -> Generator[Command, Any, None]:
    """Bring the subscriptions that stand in the topic's own property from the old list to the new one."""
    old, new = resource.old.get("Subscription") or [], resource.get("Subscription") or []
    gone = [(item["Protocol"], item["Endpoint"]) for item in old if item not in new]
    token = None
    while gone:
        params = {"TopicArn": arn} if token is None else {"TopicArn": arn, "NextToken": token}
        page = yield Call("sns", "ListSubscriptionsByTopic", params, ("Subscriptions", "NextToken"))
        for item in page["Subscriptions"]:
            if (item["Protocol"], item["Endpoint"]) in gone and item["SubscriptionArn"].startswith("arn:"):
                yield Call("sns", "Unsubscribe", {"SubscriptionArn": item["SubscriptionArn"]})
        token = page.get("NextToken")
        if token is None:
            break
    for item in new:
        if item not in old:
            yield Call("sns", "Subscribe", {"TopicArn": arn, **item})


def delete_topic(resource: Resource) -> Script:
    yield Call("sns", "DeleteTopic", {"TopicArn": resource.physical_id})
    return {}


def create_subscription(resource: Resource) -> Script:
    if resource.get("Region", resource.scope.region) != resource.scope.region:
        raise Failed("Preheat does not subscribe to topics of another region from a template")
    params = {
        **resource.pick("TopicArn", "Protocol", "Endpoint"),
        "Attributes": resource.pick(*SUBSCRIPTION_ATTRIBUTES),
        "ReturnSubscriptionArn": True,
    }
    output = yield Call("sns", "Subscribe", params, ("SubscriptionArn",))
    yield Made(output["SubscriptionArn"])
    return {"Arn": output["SubscriptionArn"]}


def update_subscription(resource: Resource) -> Script:
    changed = [name for name in SUBSCRIPTION_ATTRIBUTES if resource.changed(name)]
    if "FilterPolicyScope" in changed and "FilterPolicy" in changed:
        yield from _set(resource, "FilterPolicy", "")
    for name in changed:
        yield from _set(resource, name, resource.get(name, UNSET.get(name, "")))
    return resource.attributes


def _set(resource: Resource, name: str, value: Any) -> Generator[Command, Any, None]:
    params = {"SubscriptionArn": resource.physical_id, "AttributeName": name, "AttributeValue": value}
    yield Call("sns", "SetSubscriptionAttributes", params)


def delete_subscription(resource: Resource) -> Script:
    yield Call("sns", "Unsubscribe", {"SubscriptionArn": resource.physical_id})
    return {}


def _topics(values: dict[str, Any]) -> list[str]:
    return [values["TopicArn"]] if "TopicArn" in values else list(values.get("Topics") or ())


def create_policy(resource: Resource) -> Script:
    yield Made(resource.get("TopicArn", resource.name))
    yield from _put_policy(resource)
    return {"Id": resource.name}


def update_policy(resource: Resource) -> Script:
    for arn in _topics(resource.old):
        if arn not in _topics(resource.properties):
            yield _policy(arn, "")
    yield from _put_policy(resource)
    return resource.attributes


def _put_policy(resource: Resource) -> Generator[Command, Any, None]:
    for arn in _topics(resource.properties):
        yield _policy(arn, resource.properties["PolicyDocument"])


def _policy(arn: str, document: Any) -> Call:
    return Call(
        "sns", "SetTopicAttributes", {"TopicArn": arn, "AttributeName": "Policy", "AttributeValue": document}
    )


def delete_policy(resource: Resource) -> Script:
    for arn in _topics(resource.properties):
        yield _policy(arn, "")
    return {}


TYPES = (
    ResourceType(
        "AWS::SNS::Topic",
        properties(
            "ContentBasedDeduplication DeliveryStatusLogging DisplayName FifoThroughputScope FifoTopic "
            "SignatureVersion Subscription Tags TopicName",
            replaces="TopicName FifoTopic",
            approximates={
                "KmsMasterKeyId": "kept and shown; there is no KMS, messages lie in the state directory unencrypted",
                "TracingConfig": "the trace header is passed on; Active adds no segments of the topic's own",
            },
            ignored={
                "ArchivePolicy": "messages are not archived",
                "DataProtectionPolicy": "message data is not inspected",
            },
        ),
        create_topic,
        delete_topic,
        update_topic,
        attributes=("TopicArn", "TopicName"),
        name_property="TopicName",
        name_limit=256,
        tags="list",
    ),
    ResourceType(
        "AWS::SNS::Subscription",
        properties(
            "DeliveryPolicy Endpoint FilterPolicy FilterPolicyScope Protocol RawMessageDelivery RedrivePolicy TopicArn",
            replaces="Endpoint Protocol TopicArn",
            required="Protocol TopicArn",
            approximates={"Region": "only the stack's own region"},
            ignored={
                "ReplayPolicy": "messages are not archived",
                "SubscriptionRoleArn": "for firehose subscriptions, which are refused",
            },
        ),
        create_subscription,
        delete_subscription,
        update_subscription,
        attributes=("Arn",),
    ),
    ResourceType(
        "AWS::SNS::TopicPolicy",
        properties("PolicyDocument Topics", required="PolicyDocument Topics"),
        create_policy,
        delete_policy,
        update_policy,
        attributes=("Id",),
    ),
    ResourceType(
        "AWS::SNS::TopicInlinePolicy",
        properties("PolicyDocument TopicArn", replaces="TopicArn", required="PolicyDocument TopicArn"),
        create_policy,
        delete_policy,
        update_policy,
    ),
)

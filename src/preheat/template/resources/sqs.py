"""AWS::SQS: queues and their policies."""

from typing import Any

from preheat.template.definition import (
    Call,
    Made,
    Resource,
    ResourceType,
    Script,
    properties,
    tag_map,
    unused,
)

ATTRIBUTES = {
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "DelaySeconds": "0",
    "FifoThroughputLimit": "perQueue",
    "KmsDataKeyReusePeriodSeconds": "300",
    "KmsMasterKeyId": "",
    "MaximumMessageSize": "262144",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "RedriveAllowPolicy": "",
    "RedrivePolicy": "",
    "SqsManagedSseEnabled": "true",
    "VisibilityTimeout": "30",
}
"""What an attribute becomes when a template no longer says it. MaximumMessageSize as CloudFormation was recorded to set
it in December 2025; a new queue takes 1 MiB."""


def _name(resource: Resource) -> str:
    fifo = str(resource.get("FifoQueue", "")).lower() == "true"
    return f"{resource.name[:75]}.fifo" if fifo and not resource.name.endswith(".fifo") else resource.name


def create_queue(resource: Resource) -> Script:
    name = _name(resource)
    yield from unused(Call("sqs", "GetQueueUrl", {"QueueName": name}), resource.type, name)
    attributes: dict[str, Any] = resource.pick(*ATTRIBUTES)
    if str(resource.get("FifoQueue", "")).lower() == "true":
        attributes["FifoQueue"] = "true"
    params = {"QueueName": name, "Attributes": attributes, "tags": tag_map(resource.get("Tags"))}
    made = yield Call("sqs", "CreateQueue", params, ("QueueUrl",))
    yield Made(made["QueueUrl"])
    return _attributes(resource, name, made["QueueUrl"])


def _attributes(resource: Resource, name: str, url: str) -> dict[str, Any]:
    return {"Arn": resource.scope.arn("sqs", name), "QueueName": name, "QueueUrl": url}


def update_queue(resource: Resource) -> Script:
    url = resource.physical_id
    changed = {name: resource.get(name, default) for name, default in ATTRIBUTES.items() if resource.changed(name)}
    if changed:
        yield Call("sqs", "SetQueueAttributes", {"QueueUrl": url, "Attributes": changed})
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("sqs", "UntagQueue", {"QueueUrl": url, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("sqs", "TagQueue", {"QueueUrl": url, "Tags": new})
    return resource.attributes


def delete_queue(resource: Resource) -> Script:
    yield Call("sqs", "DeleteQueue", {"QueueUrl": resource.physical_id})
    return {}


def create_policy(resource: Resource) -> Script:
    yield Made(resource.name)
    yield from _put_policy(resource)
    return {"Id": resource.name}


def update_policy(resource: Resource) -> Script:
    for url in resource.old.get("Queues", ()):
        if url not in resource.properties["Queues"]:
            yield Call("sqs", "SetQueueAttributes", {"QueueUrl": url, "Attributes": {"Policy": ""}})
    yield from _put_policy(resource)
    return resource.attributes


def _put_policy(resource: Resource) -> Script:
    for url in resource.properties["Queues"]:
        params = {"QueueUrl": url, "Attributes": {"Policy": resource.properties["PolicyDocument"]}}
        yield Call("sqs", "SetQueueAttributes", params)
    return {}


def delete_policy(resource: Resource) -> Script:
    for url in resource.get("Queues", ()):
        yield Call("sqs", "SetQueueAttributes", {"QueueUrl": url, "Attributes": {"Policy": ""}})
    return {}


def create_inline_policy(resource: Resource) -> Script:
    yield Made(resource.properties["Queue"])
    yield from _put_inline(resource)
    return {}


def update_inline_policy(resource: Resource) -> Script:
    yield from _put_inline(resource)
    return resource.attributes


def _put_inline(resource: Resource) -> Script:
    attributes = {"Policy": resource.properties["PolicyDocument"]}
    yield Call("sqs", "SetQueueAttributes", {"QueueUrl": resource.properties["Queue"], "Attributes": attributes})
    return {}


def delete_inline_policy(resource: Resource) -> Script:
    yield Call("sqs", "SetQueueAttributes", {"QueueUrl": resource.physical_id, "Attributes": {"Policy": ""}})
    return {}


TYPES = (
    ResourceType(
        "AWS::SQS::Queue",
        properties(
            "ContentBasedDeduplication DeduplicationScope DelaySeconds FifoQueue FifoThroughputLimit "
            "MaximumMessageSize MessageRetentionPeriod QueueName ReceiveMessageWaitTimeSeconds RedriveAllowPolicy "
            "RedrivePolicy VisibilityTimeout Tags",
            replaces="QueueName FifoQueue",
            approximates={
                "SqsManagedSseEnabled": "kept and shown; messages lie in the state directory unencrypted",
                "KmsMasterKeyId": "kept and shown; there is no KMS, messages lie in the state directory unencrypted",
                "KmsDataKeyReusePeriodSeconds": "kept and shown; there is no KMS",
            },
        ),
        create_queue,
        delete_queue,
        update_queue,
        attributes=("Arn", "QueueName", "QueueUrl"),
        name_property="QueueName",
        name_limit=80,
        tags="list",
    ),
    ResourceType(
        "AWS::SQS::QueuePolicy",
        properties("PolicyDocument Queues", required="PolicyDocument Queues"),
        create_policy,
        delete_policy,
        update_policy,
        attributes=("Id",),
    ),
    ResourceType(
        "AWS::SQS::QueueInlinePolicy",
        properties("PolicyDocument Queue", required="PolicyDocument Queue", replaces="Queue"),
        create_inline_policy,
        delete_inline_policy,
        update_inline_policy,
    ),
)

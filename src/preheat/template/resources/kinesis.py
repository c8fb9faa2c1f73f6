"""AWS::Kinesis::Stream."""

from typing import Any

from preheat.template.definition import Call, Made, Pause, Resource, ResourceType, Script, properties, tag_map

DEFAULT_RETENTION_H = 24
LOOK_S = 0.05


def _mode(given: dict[str, Any]) -> str:
    """On demand where neither a mode nor a number of shards is given, as AWS has it."""
    mode = (given.get("StreamModeDetails") or {}).get("StreamMode")
    return mode or ("PROVISIONED" if given.get("ShardCount") else "ON_DEMAND")


def create_stream(resource: Resource) -> Script:
    name, given = resource.name, resource.properties
    mode = _mode(given)
    params: dict[str, Any] = {"StreamName": name, "StreamModeDetails": {"StreamMode": mode}}
    if mode == "PROVISIONED":
        params["ShardCount"] = int(given.get("ShardCount", 1))
    if given.get("MaxRecordSizeInKiB"):
        params["MaxRecordSizeInKiB"] = int(given["MaxRecordSizeInKiB"])
    tags = tag_map(resource.get("Tags"))
    if tags:
        params["Tags"] = tags
    yield Call("kinesis", "CreateStream", params)
    yield Made(name)
    yield from _active(name)
    yield from _retain(name, DEFAULT_RETENTION_H, int(given.get("RetentionPeriodHours", DEFAULT_RETENTION_H)))
    encryption = given.get("StreamEncryption")
    if encryption:
        yield _encrypt("StartStreamEncryption", name, encryption)
    return {"Arn": resource.scope.arn("kinesis", f"stream/{name}")}


def update_stream(resource: Resource) -> Script:
    name, given, old = resource.physical_id, resource.properties, resource.old
    arn = resource.attributes["Arn"]
    hours = [int(one.get("RetentionPeriodHours", DEFAULT_RETENTION_H)) for one in (old, given)]
    yield from _retain(name, *hours)
    if _mode(given) != _mode(old):
        yield from _active(name)
        details = {"StreamMode": _mode(given)}
        yield Call("kinesis", "UpdateStreamMode", {"StreamARN": arn, "StreamModeDetails": details})
    if _mode(given) == "PROVISIONED" and resource.changed("ShardCount"):
        yield from _active(name)
        params = {"StreamName": name, "TargetShardCount": int(given["ShardCount"]), "ScalingType": "UNIFORM_SCALING"}
        yield Call("kinesis", "UpdateShardCount", params)
    if resource.changed("MaxRecordSizeInKiB") and given.get("MaxRecordSizeInKiB"):
        yield from _active(name)
        params = {"StreamARN": arn, "MaxRecordSizeInKiB": int(given["MaxRecordSizeInKiB"])}
        yield Call("kinesis", "UpdateMaxRecordSize", params)
    if resource.changed("StreamEncryption"):
        for operation, encryption in (("StopStreamEncryption", old.get("StreamEncryption")),
                                      ("StartStreamEncryption", given.get("StreamEncryption"))):  # fmt: skip
            if encryption:
                yield from _active(name)
                yield _encrypt(operation, name, encryption)
    before, after = tag_map(old.get("Tags")), tag_map(given.get("Tags"))
    if set(before) - set(after):
        gone = sorted(set(before) - set(after))
        yield Call("kinesis", "RemoveTagsFromStream", {"StreamName": name, "TagKeys": gone})
    if after and after != before:
        yield Call("kinesis", "AddTagsToStream", {"StreamName": name, "Tags": after})
    return resource.attributes


def delete_stream(resource: Resource) -> Script:
    yield Call("kinesis", "DeleteStream", {"StreamName": resource.physical_id, "EnforceConsumerDeletion": True})
    return {}


def _active(name: str) -> Script:
    """Wait until the stream may be changed."""
    while True:
        found = yield Call("kinesis", "DescribeStreamSummary", {"StreamName": name}, ("StreamDescriptionSummary",))
        if found["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
            return {}
        yield Pause(LOOK_S)


def _retain(name: str, before: int, after: int) -> Script:
    if before != after:
        kind = "Increase" if after > before else "Decrease"
        params = {"StreamName": name, "RetentionPeriodHours": after}
        yield Call("kinesis", f"{kind}StreamRetentionPeriod", params)
    return {}


def _encrypt(operation: str, name: str, encryption: dict[str, Any]) -> Call:
    params = {"StreamName": name, "EncryptionType": encryption["EncryptionType"], "KeyId": encryption["KeyId"]}
    return Call("kinesis", operation, params)


TYPES = (
    ResourceType(
        "AWS::Kinesis::Stream",
        properties(
            "MaxRecordSizeInKiB Name RetentionPeriodHours ShardCount StreamModeDetails Tags",
            replaces="Name",
            approximates={
                "StreamEncryption": "kept and shown; there is no KMS, records lie in the state directory unencrypted",
            },
            ignored={
                "DesiredShardLevelMetrics": "metrics are of the stream as a whole",
                "WarmThroughputMiBps": "a stream takes what its shards take at once",
            },
        ),
        create_stream,
        delete_stream,
        update_stream,
        attributes=("Arn",),
        name_property="Name",
        name_limit=128,
    ),
)

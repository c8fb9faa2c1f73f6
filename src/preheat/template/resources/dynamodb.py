"""AWS::DynamoDB: tables."""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.template.definition import (
    Call,
    Made,
    Pause,
    Resource,
    ResourceType,
    Script,
    is_not_found,
    poll,
    properties,
    tag_map,
)

CREATED_WITH = (
    "AttributeDefinitions", "BillingMode", "DeletionProtectionEnabled", "GlobalSecondaryIndexes", "KeySchema",
    "LocalSecondaryIndexes", "OnDemandThroughput", "ProvisionedThroughput", "SSESpecification", "TableClass",
)  # fmt: skip
CAPACITY = ("BillingMode", "ProvisionedThroughput", "OnDemandThroughput", "TableClass", "DeletionProtectionEnabled")


def _without_extras(index: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in index.items() if key != "ContributorInsightsSpecification"}


def _creation(resource: Resource) -> dict[str, Any]:
    params = {"TableName": resource.name, **resource.pick(*CREATED_WITH)}
    if "GlobalSecondaryIndexes" in params:
        params["GlobalSecondaryIndexes"] = [_without_extras(index) for index in params["GlobalSecondaryIndexes"]]
    if "SSESpecification" in params:
        sse = dict(params["SSESpecification"])
        sse["Enabled"] = sse.pop("SSEEnabled", False)
        params["SSESpecification"] = sse
    stream = resource.get("StreamSpecification")
    if stream:
        params["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": stream["StreamViewType"]}
    if resource.get("Tags"):
        params["Tags"] = resource.get("Tags")
    return params


def _active(name: str):
    call = Call("dynamodb", "DescribeTable", {"TableName": name}, ("Table",))

    def done(output: Any) -> bool:
        table = output["Table"]
        indexes = table.get("GlobalSecondaryIndexes") or ()
        return table["TableStatus"] == "ACTIVE" and all(item["IndexStatus"] == "ACTIVE" for item in indexes)

    return poll(call, done, lambda output: None)


def create_table(resource: Resource) -> Script:
    name = resource.name
    yield Call("dynamodb", "CreateTable", _creation(resource))
    yield Made(name)
    output = yield from _active(name)
    if resource.get("TimeToLiveSpecification"):
        yield _ttl(name, resource.get("TimeToLiveSpecification"))
    return _attributes(output["Table"])


def _ttl(name: str, given: dict[str, Any]) -> Call:
    return Call("dynamodb", "UpdateTimeToLive", {"TableName": name, "TimeToLiveSpecification": given})


def _attributes(table: dict[str, Any]) -> dict[str, Any]:
    found = {"Arn": table["TableArn"]}
    if table.get("LatestStreamArn"):
        found["StreamArn"] = table["LatestStreamArn"]
    return found


def update_table(resource: Resource) -> Script:
    name = resource.physical_id
    params: dict[str, Any] = {}
    for key in CAPACITY:
        if resource.changed(key) and key in resource.properties:
            params[key] = resource.get(key)
    if params.get("BillingMode") == "PROVISIONED":
        params["ProvisionedThroughput"] = resource.get("ProvisionedThroughput")
    if params:
        yield Call("dynamodb", "UpdateTable", {"TableName": name, **params})
        yield from _active(name)
    if resource.changed("StreamSpecification"):
        yield from _change_stream(resource, name)
    if resource.changed("GlobalSecondaryIndexes"):
        yield from _change_indexes(resource, name)
    if resource.changed("TimeToLiveSpecification"):
        yield from _change_ttl(resource, name)
    output = yield from _active(name)
    arn = output["Table"]["TableArn"]
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("dynamodb", "UntagResource", {"ResourceArn": arn, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("dynamodb", "TagResource", {"ResourceArn": arn, "Tags": resource.get("Tags")})
    return _attributes(output["Table"])


def _change_ttl(resource: Resource, name: str) -> Script:
    old, new = resource.old.get("TimeToLiveSpecification"), resource.get("TimeToLiveSpecification")
    if new:
        yield _ttl(name, new)
    elif old:
        yield _ttl(name, {"AttributeName": old["AttributeName"], "Enabled": False})
    return {}


def _change_stream(resource: Resource, name: str) -> Script:
    """A stream's view cannot be changed, only taken away and made anew."""
    if resource.old.get("StreamSpecification"):
        yield Call("dynamodb", "UpdateTable", {"TableName": name, "StreamSpecification": {"StreamEnabled": False}})
        yield from _active(name)
    new = resource.get("StreamSpecification")
    if new:
        stream = {"StreamEnabled": True, "StreamViewType": new["StreamViewType"]}
        yield Call("dynamodb", "UpdateTable", {"TableName": name, "StreamSpecification": stream})
        yield from _active(name)
    return {}


def _change_indexes(resource: Resource, name: str) -> Script:
    """One index per UpdateTable, as DynamoDB wants it."""
    old = {item["IndexName"]: _without_extras(item) for item in resource.old.get("GlobalSecondaryIndexes") or ()}
    new = {item["IndexName"]: _without_extras(item) for item in resource.get("GlobalSecondaryIndexes") or ()}
    actions: list[dict[str, Any]] = []
    for index, item in old.items():
        if index not in new or any(item.get(key) != new[index].get(key) for key in ("KeySchema", "Projection")):
            actions.append({"Delete": {"IndexName": index}})
    for index, item in new.items():
        if index not in old or {"Delete": {"IndexName": index}} in actions:
            actions.append({"Create": item})
        elif item != old[index]:
            throughput = {key: item[key] for key in ("ProvisionedThroughput", "OnDemandThroughput") if key in item}
            actions.append({"Update": {"IndexName": index, **throughput}})
    for action in actions:
        params: dict[str, Any] = {"TableName": name, "GlobalSecondaryIndexUpdates": [action]}
        if "Create" in action:
            params["AttributeDefinitions"] = resource.get("AttributeDefinitions")
        yield Call("dynamodb", "UpdateTable", params)
        yield from _active(name)
    return {}


def delete_table(resource: Resource) -> Script:
    yield Call("dynamodb", "DeleteTable", {"TableName": resource.physical_id})
    while True:
        try:
            yield Call("dynamodb", "DescribeTable", {"TableName": resource.physical_id})
        except AwsError as error:
            if is_not_found(error):
                return {}
            raise
        yield Pause(1.0)


TYPES = (
    ResourceType(
        "AWS::DynamoDB::Table",
        properties(
            "AttributeDefinitions BillingMode DeletionProtectionEnabled GlobalSecondaryIndexes KeySchema "
            "LocalSecondaryIndexes ProvisionedThroughput StreamSpecification TableName Tags TimeToLiveSpecification",
            replaces="KeySchema LocalSecondaryIndexes TableName",
            required="KeySchema",
            approximates={
                "SSESpecification": "passed to DynamoDB and shown; items lie in the state directory unencrypted",
                "TableClass": "passed to DynamoDB and shown; one class of storage",
                "OnDemandThroughput": "passed to DynamoDB; see its README for what it throttles",
            },
            ignored={
                "ContributorInsightsSpecification": "no CloudWatch Contributor Insights here",
                "PointInTimeRecoverySpecification": "no continuous backups; copy the state directory",
                "WarmThroughput": "a table has no partitions to warm up",
            },
        ),
        create_table,
        delete_table,
        update_table,
        attributes=("Arn", "StreamArn"),
        name_property="TableName",
        name_limit=255,
        tags="list",
    ),
)

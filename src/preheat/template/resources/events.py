"""AWS::Events: rules, buses and their policies, archives, connections, API destinations."""

import json
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

RULE = ("Description", "EventPattern", "RoleArn", "ScheduleExpression", "State")
NO_KMS = "there is no KMS: a value is refused"


def _tags(resource: Resource) -> dict[str, Any]:
    tags = [{"Key": key, "Value": value} for key, value in tag_map(resource.get("Tags")).items()]
    return {"Tags": tags} if tags else {}


def _retag(resource: Resource, arn: str) -> Script:
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("events", "UntagResource", {"ResourceARN": arn, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("events", "TagResource", {"ResourceARN": arn, **_tags(resource)})
    return {}


# -- rules ------------------------------------------------------------------------------------------------------------


def _bus(resource: Resource) -> dict[str, str]:
    return resource.pick("EventBusName")


def create_rule(resource: Resource) -> Script:
    name, bus = resource.name, _bus(resource)
    yield from unused(Call("events", "DescribeRule", {"Name": name, **bus}), resource.type, name)
    params = {"Name": name, **bus, **resource.pick(*RULE), **_tags(resource)}
    made = yield Call("events", "PutRule", params, ("RuleArn",))
    short = bus.get("EventBusName", "default").rpartition("/")[2]
    yield Made(name if short == "default" else f"{short}|{name}")
    yield from _put_targets(resource, name)
    return {"Arn": made["RuleArn"]}


def _put_targets(resource: Resource, name: str) -> Script:
    if resource.get("Targets"):
        yield Call("events", "PutTargets", {"Rule": name, **_bus(resource), "Targets": resource.get("Targets")})
    return {}


def update_rule(resource: Resource) -> Script:
    name = resource.physical_id.rpartition("|")[2]
    yield Call("events", "PutRule", {"Name": name, **_bus(resource), **resource.pick(*RULE)})
    kept = {target["Id"] for target in resource.get("Targets") or ()}
    gone = [target["Id"] for target in resource.old.get("Targets") or () if target["Id"] not in kept]
    if gone:
        yield Call("events", "RemoveTargets", {"Rule": name, **_bus(resource), "Ids": gone})
    yield from _put_targets(resource, name)
    yield from _retag(resource, resource.attributes["Arn"])
    return resource.attributes


def delete_rule(resource: Resource) -> Script:
    name = resource.physical_id.rpartition("|")[2]
    ids = [target["Id"] for target in resource.get("Targets") or ()]
    if ids:
        yield Call("events", "RemoveTargets", {"Rule": name, **_bus(resource), "Ids": ids})
    yield Call("events", "DeleteRule", {"Name": name, **_bus(resource)})
    return {}


# -- buses ------------------------------------------------------------------------------------------------------------

BUS = ("Description", "DeadLetterConfig", "EventSourceName", "KmsKeyIdentifier", "LogConfig")


def create_bus(resource: Resource) -> Script:
    params = {"Name": resource.name, **resource.pick(*BUS), **_tags(resource)}
    made = yield Call("events", "CreateEventBus", params, ("EventBusArn",))
    yield Made(resource.name)
    yield from _bus_policy(resource)
    return {"Arn": made["EventBusArn"], "Name": resource.name, "Policy": _text(resource.get("Policy"))}


def _text(policy: Any) -> str:
    return policy if isinstance(policy, str) else json.dumps(policy or {})


def _bus_policy(resource: Resource) -> Script:
    name = resource.physical_id or resource.name
    if resource.get("Policy"):
        yield Call("events", "PutPermission", {"EventBusName": name, "Policy": _text(resource.get("Policy"))})
    elif resource.old.get("Policy"):
        yield Call("events", "RemovePermission", {"EventBusName": name, "RemoveAllPermissions": True})
    return {}


def update_bus(resource: Resource) -> Script:
    settings = {"Description": "", **resource.pick("Description", "DeadLetterConfig", "KmsKeyIdentifier", "LogConfig")}
    yield Call("events", "UpdateEventBus", {"Name": resource.physical_id, **settings})
    yield from _bus_policy(resource)
    yield from _retag(resource, resource.attributes["Arn"])
    return {**resource.attributes, "Policy": _text(resource.get("Policy"))}


def delete_bus(resource: Resource) -> Script:
    yield Call("events", "DeleteEventBus", {"Name": resource.physical_id})
    return {}


def create_bus_policy(resource: Resource) -> Script:
    yield Made(resource.name)
    yield from _put_statement(resource)
    return {}


def _put_statement(resource: Resource) -> Script:
    """A statement written out is put into the bus's whole policy; its parts go as they are."""
    bus = resource.pick("EventBusName")
    identifier = resource.properties["StatementId"]
    if not resource.get("Statement"):
        params = {**bus, "StatementId": identifier, **resource.pick("Action", "Principal", "Condition")}
        yield Call("events", "PutPermission", params)
        return {}
    named = {"Name": bus["EventBusName"]} if bus else {}
    found = yield Call("events", "DescribeEventBus", named, ("Policy",))
    policy = json.loads(found.get("Policy") or '{"Version": "2012-10-17", "Statement": []}')
    others = [one for one in policy["Statement"] if one.get("Sid") != identifier]
    policy["Statement"] = [*others, {**resource.get("Statement"), "Sid": identifier}]
    yield Call("events", "PutPermission", {**bus, "Policy": json.dumps(policy)})
    return {}


def update_bus_policy(resource: Resource) -> Script:
    yield from _put_statement(resource)
    return resource.attributes


def delete_bus_policy(resource: Resource) -> Script:
    params = {**resource.pick("EventBusName"), "StatementId": resource.properties["StatementId"]}
    yield Call("events", "RemovePermission", params)
    return {}


# -- archives, connections, destinations ------------------------------------------------------------------------------


def create_archive(resource: Resource) -> Script:
    params = {
        "ArchiveName": resource.name,
        "EventSourceArn": resource.properties["SourceArn"],
        **resource.pick("Description", "EventPattern", "RetentionDays", "KmsKeyIdentifier"),
    }
    made = yield Call("events", "CreateArchive", params, ("ArchiveArn",))
    yield Made(resource.name)
    return {"Arn": made["ArchiveArn"], "ArchiveName": resource.name}


def update_archive(resource: Resource) -> Script:
    settings = {"Description": "", "EventPattern": "", "RetentionDays": 0}
    given = resource.pick("Description", "EventPattern", "RetentionDays", "KmsKeyIdentifier")
    yield Call("events", "UpdateArchive", {"ArchiveName": resource.physical_id, **settings, **given})
    return resource.attributes


def delete_archive(resource: Resource) -> Script:
    yield Call("events", "DeleteArchive", {"ArchiveName": resource.physical_id})
    return {}


CONNECTION = (
    "AuthParameters", "AuthorizationType", "Description", "InvocationConnectivityParameters", "KmsKeyIdentifier"
)  # fmt: skip


def create_connection(resource: Resource) -> Script:
    params = {"Name": resource.name, **resource.pick(*CONNECTION)}
    made = yield Call("events", "CreateConnection", params, ("ConnectionArn",))
    yield Made(resource.name)
    found = yield Call("events", "DescribeConnection", {"Name": resource.name}, ("SecretArn",))
    arn = made["ConnectionArn"]
    return {"Arn": arn, "ArnForPolicy": arn.rpartition("/")[0], "SecretArn": found["SecretArn"]}


def update_connection(resource: Resource) -> Script:
    yield Call("events", "UpdateConnection", {"Name": resource.physical_id, **resource.pick(*CONNECTION)})
    return resource.attributes


def delete_connection(resource: Resource) -> Script:
    yield Call("events", "DeleteConnection", {"Name": resource.physical_id})
    return {}


DESTINATION = ("ConnectionArn", "Description", "HttpMethod", "InvocationEndpoint", "InvocationRateLimitPerSecond")


def create_destination(resource: Resource) -> Script:
    params = {"Name": resource.name, **resource.pick(*DESTINATION)}
    made = yield Call("events", "CreateApiDestination", params, ("ApiDestinationArn",))
    yield Made(resource.name)
    arn = made["ApiDestinationArn"]
    return {"Arn": arn, "ArnForPolicy": arn.rpartition("/")[0]}


def update_destination(resource: Resource) -> Script:
    settings = {"Description": "", "InvocationRateLimitPerSecond": 300, **resource.pick(*DESTINATION)}
    yield Call("events", "UpdateApiDestination", {"Name": resource.physical_id, **settings})
    return resource.attributes


def delete_destination(resource: Resource) -> Script:
    yield Call("events", "DeleteApiDestination", {"Name": resource.physical_id})
    return {}


TYPES = (
    ResourceType(
        "AWS::Events::Rule",
        properties(
            "Description EventBusName EventPattern Name RoleArn ScheduleExpression State Tags Targets",
            replaces="Name EventBusName",
        ),
        create_rule, delete_rule, update_rule,
        attributes=("Arn",), name_property="Name", tags="list",
    ),
    ResourceType(
        "AWS::Events::EventBus",
        properties(
            "DeadLetterConfig Description EventSourceName LogConfig Name Policy Tags",
            replaces="Name EventSourceName",
            required="Name",
            approximates={"KmsKeyIdentifier": NO_KMS},
        ),
        create_bus, delete_bus, update_bus,
        attributes=("Arn", "Name", "Policy"), name_property="Name", name_limit=256, tags="list",
    ),
    ResourceType(
        "AWS::Events::EventBusPolicy",
        properties(
            "Action Condition EventBusName Principal Statement StatementId",
            replaces="EventBusName StatementId",
            required="StatementId",
        ),
        create_bus_policy, delete_bus_policy, update_bus_policy,
    ),
    ResourceType(
        "AWS::Events::Archive",
        properties(
            "ArchiveName Description EventPattern RetentionDays SourceArn",
            replaces="ArchiveName SourceArn",
            required="SourceArn",
            approximates={"KmsKeyIdentifier": NO_KMS},
        ),
        create_archive, delete_archive, update_archive,
        attributes=("Arn", "ArchiveName"), name_property="ArchiveName", name_limit=48,
    ),
    ResourceType(
        "AWS::Events::Connection",
        properties(
            "AuthParameters AuthorizationType Description InvocationConnectivityParameters Name",
            replaces="Name",
            approximates={"KmsKeyIdentifier": NO_KMS},
        ),
        create_connection, delete_connection, update_connection,
        attributes=("Arn", "ArnForPolicy", "SecretArn"), name_property="Name",
    ),
    ResourceType(
        "AWS::Events::ApiDestination",
        properties(
            "ConnectionArn Description HttpMethod InvocationEndpoint InvocationRateLimitPerSecond Name",
            replaces="Name",
            required="ConnectionArn HttpMethod InvocationEndpoint",
        ),
        create_destination, delete_destination, update_destination,
        attributes=("Arn", "ArnForPolicy"), name_property="Name",
    ),
)  # fmt: skip

"""AWS::Logs, AWS::SSM, AWS::SecretsManager, and types that only mark something."""

import json
from typing import Any

from preheat.template.definition import (
    Call,
    Failed,
    Made,
    Resource,
    ResourceType,
    Script,
    nothing,
    properties,
    tag_map,
)

PASSWORD = (
    "ExcludeCharacters", "ExcludeLowercase", "ExcludeNumbers", "ExcludePunctuation", "ExcludeUppercase", "IncludeSpace",
    "PasswordLength", "RequireEachIncludedType",
)  # fmt: skip


def create_log_group(resource: Resource) -> Script:
    name = resource.name
    params: dict[str, Any] = {"logGroupName": name}
    if resource.get("LogGroupClass"):
        params["logGroupClass"] = resource.get("LogGroupClass")
    if resource.get("Tags"):
        params["tags"] = tag_map(resource.get("Tags"))
    yield Call("logs", "CreateLogGroup", params)
    yield Made(name)
    yield from _retention(resource, name)
    return {"Arn": resource.scope.arn("logs", f"log-group:{name}:*")}


def _retention(resource: Resource, name: str) -> Script:
    days = resource.get("RetentionInDays")
    if days is not None:
        yield Call("logs", "PutRetentionPolicy", {"logGroupName": name, "retentionInDays": days})
    elif resource.old.get("RetentionInDays") is not None:
        yield Call("logs", "DeleteRetentionPolicy", {"logGroupName": name})
    return {}


def update_log_group(resource: Resource) -> Script:
    if resource.changed("RetentionInDays"):
        yield from _retention(resource, resource.physical_id)
    arn = resource.attributes["Arn"].removesuffix(":*")
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("logs", "UntagResource", {"resourceArn": arn, "tagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("logs", "TagResource", {"resourceArn": arn, "tags": new})
    return resource.attributes


def delete_log_group(resource: Resource) -> Script:
    yield Call("logs", "DeleteLogGroup", {"logGroupName": resource.physical_id})
    return {}


def create_log_stream(resource: Resource) -> Script:
    params = {"logGroupName": resource.properties["LogGroupName"], "logStreamName": resource.name}
    yield Call("logs", "CreateLogStream", params)
    yield Made(resource.name)
    return {}


def put_metric_filter(resource: Resource) -> Script:
    name = resource.physical_id or resource.name
    made = [
        {
            **{member[0].lower() + member[1:]: value for member, value in given.items() if member != "Dimensions"},
            **({"dimensions": tag_map(given["Dimensions"])} if given.get("Dimensions") else {}),
        }
        for given in resource.properties["MetricTransformations"]
    ]
    yield Call("logs", "PutMetricFilter", {**_filter(resource, name), "metricTransformations": made})
    yield Made(name)
    return {}


def put_subscription_filter(resource: Resource) -> Script:
    name = resource.physical_id or resource.name
    chosen = {member[0].lower() + member[1:]: value for member, value in resource.pick(
        "DestinationArn", "Distribution", "RoleArn"
    ).items()}  # fmt: skip
    yield Call("logs", "PutSubscriptionFilter", {**_filter(resource, name), **chosen})
    yield Made(name)
    return {}


def _filter(resource: Resource, name: str) -> dict[str, Any]:
    return {
        "logGroupName": resource.properties["LogGroupName"],
        "filterName": name,
        "filterPattern": resource.properties["FilterPattern"],
    }


def delete_metric_filter(resource: Resource) -> Script:
    group = resource.properties["LogGroupName"]
    yield Call("logs", "DeleteMetricFilter", {"logGroupName": group, "filterName": resource.physical_id})
    return {}


def delete_subscription_filter(resource: Resource) -> Script:
    group = resource.properties["LogGroupName"]
    yield Call("logs", "DeleteSubscriptionFilter", {"logGroupName": group, "filterName": resource.physical_id})
    return {}


def delete_log_stream(resource: Resource) -> Script:
    params = {"logGroupName": resource.properties["LogGroupName"], "logStreamName": resource.physical_id}
    yield Call("logs", "DeleteLogStream", params)
    return {}


PARAMETER = ("AllowedPattern", "DataType", "Description", "Policies", "Tier", "Type", "Value")


def _parameter_attributes(resource: Resource) -> dict[str, Any]:
    return {"Type": resource.properties["Type"], "Value": resource.properties["Value"]}


def create_parameter(resource: Resource) -> Script:
    params = {"Name": resource.name, **resource.pick(*PARAMETER)}
    if resource.get("Tags"):
        params["Tags"] = [{"Key": key, "Value": value} for key, value in tag_map(resource.get("Tags")).items()]
    yield Call("ssm", "PutParameter", params)
    yield Made(resource.name)
    return _parameter_attributes(resource)


def update_parameter(resource: Resource) -> Script:
    name = resource.physical_id
    yield Call("ssm", "PutParameter", {"Name": name, "Overwrite": True, **resource.pick(*PARAMETER)})
    target = {"ResourceType": "Parameter", "ResourceId": name}
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("ssm", "RemoveTagsFromResource", {**target, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        tags = [{"Key": key, "Value": value} for key, value in new.items()]
        yield Call("ssm", "AddTagsToResource", {**target, "Tags": tags})
    return _parameter_attributes(resource)


def delete_parameter(resource: Resource) -> Script:
    yield Call("ssm", "DeleteParameter", {"Name": resource.physical_id})
    return {}


def _secret_text(resource: Resource) -> Script:
    """The value to store: given, generated, or none."""
    given = resource.get("GenerateSecretString")
    if given is None:
        return resource.pick("SecretString")
    if "SecretString" in resource.properties:
        raise Failed("You can't specify both SecretString and GenerateSecretString")
    wanted = {name: given[name] for name in PASSWORD if name in given}
    output = yield Call("secretsmanager", "GetRandomPassword", wanted, ("RandomPassword",))
    text = output["RandomPassword"]
    key, template = given.get("GenerateStringKey"), given.get("SecretStringTemplate")
    if (key is None) != (template is None):
        raise Failed("SecretStringTemplate and GenerateStringKey must be given together")
    if key is not None:
        try:
            text = json.dumps({**json.loads(template), key: text})
        except (TypeError, ValueError):
            raise Failed("SecretStringTemplate is not the text of a JSON object") from None
    return {"SecretString": text}


def create_secret(resource: Resource) -> Script:
    value = yield from _secret_text(resource)
    params = {
        "Name": resource.name,
        "ClientRequestToken": resource.token,
        **resource.pick("Description", "KmsKeyId", "Tags"),
    }
    output = yield Call("secretsmanager", "CreateSecret", {**params, **value}, ("ARN",))
    yield Made(output["ARN"])
    return {"Id": output["ARN"]}


def update_secret(resource: Resource) -> Script:
    arn = resource.physical_id
    value: dict[str, Any] = {}
    if resource.changed("SecretString", "GenerateSecretString"):
        value = yield from _secret_text(resource)
    settings = {"Description": resource.get("Description", ""), **resource.pick("KmsKeyId")}
    params = {"SecretId": arn, "ClientRequestToken": resource.token, **settings, **value}
    yield Call("secretsmanager", "UpdateSecret", params)
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("secretsmanager", "UntagResource", {"SecretId": arn, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("secretsmanager", "TagResource", {"SecretId": arn, "Tags": resource.get("Tags")})
    return resource.attributes


def delete_secret(resource: Resource) -> Script:
    params = {"SecretId": resource.physical_id, "ForceDeleteWithoutRecovery": True}
    yield Call("secretsmanager", "DeleteSecret", params)
    return {}


def create_mark(resource: Resource) -> Script:
    yield Made(resource.name)
    return {}


TYPES = (
    ResourceType(
        "AWS::Logs::LogGroup",
        properties(
            "LogGroupName RetentionInDays Tags",
            replaces="LogGroupName",
            approximates={"LogGroupClass": "kept and shown; one class of storage"},
            ignored={
                "DataProtectionPolicy": "log events are not masked",
                "FieldIndexPolicies": "log events are not indexed",
                "KmsKeyId": "there is no KMS; log events lie in the state directory unencrypted",
            },
        ),
        create_log_group,
        delete_log_group,
        update_log_group,
        attributes=("Arn",),
        name_property="LogGroupName",
        name_limit=512,
        tags="list",
    ),
    ResourceType(
        "AWS::Logs::LogStream",
        properties("LogGroupName LogStreamName", required="LogGroupName"),
        create_log_stream,
        delete_log_stream,
        name_property="LogStreamName",
        name_limit=512,
    ),
    ResourceType(
        "AWS::Logs::MetricFilter",
        properties(
            "FilterName FilterPattern LogGroupName MetricTransformations",
            replaces="FilterName LogGroupName",
            required="FilterPattern LogGroupName MetricTransformations",
        ),
        put_metric_filter,
        delete_metric_filter,
        put_metric_filter,
        name_property="FilterName",
        name_limit=512,
    ),
    ResourceType(
        "AWS::Logs::SubscriptionFilter",
        properties(
            "DestinationArn Distribution FilterName FilterPattern LogGroupName RoleArn",
            replaces="FilterName LogGroupName",
            required="DestinationArn FilterPattern LogGroupName",
        ),
        put_subscription_filter,
        delete_subscription_filter,
        put_subscription_filter,
        name_property="FilterName",
        name_limit=512,
    ),
    ResourceType(
        "AWS::SSM::Parameter",
        properties(
            "AllowedPattern Description Name Tags Type Value",
            replaces="Name",
            required="Type Value",
            approximates=dict.fromkeys(("DataType", "Policies", "Tier"), "passed to Systems Manager; see its README"),
        ),
        create_parameter,
        delete_parameter,
        update_parameter,
        attributes=("Type", "Value"),
        name_property="Name",
        name_limit=1011,
        name_head="CFN",
        tags="map",
    ),
    ResourceType(
        "AWS::SecretsManager::Secret",
        properties(
            "Description GenerateSecretString Name SecretString Tags",
            replaces="Name",
            approximates={"KmsKeyId": "kept and shown; there is no KMS"},
            ignored={
                "ReplicaRegions": "one machine, nothing to replicate to",
                "Type": "secrets of partners are not managed",
            },
        ),
        create_secret,
        delete_secret,
        update_secret,
        attributes=("Id",),
        name_property="Name",
        name_limit=512,
        tags="list",
    ),
    ResourceType(
        "AWS::CDK::Metadata",
        properties("", ignored={"Analytics": "nobody collects it"}),
        create_mark,
        nothing,
        nothing,
    ),
)

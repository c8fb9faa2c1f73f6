"""AWS::Lambda: who may invoke a function, and what does: permissions, event sources, URLs, asynchronous settings."""

from typing import Any

from preheat.template.definition import Call, Failed, Made, Resource, ResourceType, Script, poll, properties, tag_map
from preheat.template.resources.functions import change_tags, gone, split_name

SOURCE_SETTINGS = (
    "AmazonManagedKafkaEventSourceConfig", "BatchSize", "BisectBatchOnFunctionError", "DestinationConfig",
    "DocumentDBEventSourceConfig", "Enabled", "FilterCriteria", "FunctionName", "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "MetricsConfig",
    "LoggingConfig", "ParallelizationFactor", "ProvisionedPollerConfig", "ScalingConfig",
    "SelfManagedKafkaEventSourceConfig", "SourceAccessConfigurations", "TumblingWindowInSeconds",
)  # fmt: skip
SOURCE_ORIGIN = (
    "EventSourceArn", "Queues", "SelfManagedEventSource", "StartingPosition", "StartingPositionTimestamp", "Topics",
)  # fmt: skip
OTHER_SOURCES = (
    "AmazonManagedKafkaEventSourceConfig", "DocumentDBEventSourceConfig", "KmsKeyArn", "LoggingConfig", "MetricsConfig",
    "Queues", "SelfManagedEventSource", "SelfManagedKafkaEventSourceConfig", "SourceAccessConfigurations", "Topics",
)  # fmt: skip
EMPTY: dict[str, Any] = {
    "BatchSize": None,
    "Enabled": True,
    "FilterCriteria": {"Filters": []},
    "FunctionResponseTypes": [],
    "MaximumBatchingWindowInSeconds": 0,
    "ScalingConfig": {},
    "DestinationConfig": {},
}


def create_permission(resource: Resource) -> Script:
    params: dict[str, Any] = split_name(resource.properties["FunctionName"])
    params.update(
        resource.pick(
            "Action", "Principal", "EventSourceToken", "FunctionUrlAuthType", "InvokedViaFunctionUrl", "PrincipalOrgID",
            "SourceAccount", "SourceArn",
        )
    )  # fmt: skip
    params["StatementId"] = resource.name
    yield Call("lambda", "AddPermission", params)
    yield Made(resource.name)
    return {"Id": resource.name}


def delete_permission(resource: Resource) -> Script:
    params = split_name(resource.properties["FunctionName"])
    yield Call("lambda", "RemovePermission", {**params, "StatementId": resource.physical_id})
    return {}


def create_source(resource: Resource) -> Script:
    params = resource.pick(*SOURCE_SETTINGS, *SOURCE_ORIGIN)
    if "KmsKeyArn" in resource.properties:
        params["KMSKeyArn"] = resource.properties["KmsKeyArn"]
    if resource.get("Tags"):
        params["Tags"] = tag_map(resource.get("Tags"))
    output = yield Call("lambda", "CreateEventSourceMapping", params, ("UUID", "EventSourceMappingArn"))
    if "UUID" not in output:
        raise Failed("An event source mapping of this function and source exists already")
    yield Made(output["UUID"])
    yield from _standing(output["UUID"])
    arn = output.get("EventSourceMappingArn") or resource.scope.arn("lambda", f"event-source-mapping:{output['UUID']}")
    return {"Id": output["UUID"], "EventSourceMappingArn": arn}


def _standing(uuid: str) -> Script:
    read = Call("lambda", "GetEventSourceMapping", {"UUID": uuid}, ("State",))
    return poll(read, lambda output: output.get("State") in ("Enabled", "Disabled"), lambda output: None)


def update_source(resource: Resource) -> Script:
    uuid = resource.physical_id
    params: dict[str, Any] = {"UUID": uuid}
    for name in SOURCE_SETTINGS:
        if resource.changed(name):
            value = resource.get(name, EMPTY.get(name))
            if value is None:
                value = 10 if name == "BatchSize" else -1 if name.startswith("Maximum") else None
            if value is not None:
                params[name] = value
    if len(params) > 1:
        yield Call("lambda", "UpdateEventSourceMapping", params)
        yield from _standing(uuid)
    yield from change_tags(resource, resource.attributes["EventSourceMappingArn"])
    return resource.attributes


def delete_source(resource: Resource) -> Script:
    yield Call("lambda", "DeleteEventSourceMapping", {"UUID": resource.physical_id})
    yield from gone(Call("lambda", "GetEventSourceMapping", {"UUID": resource.physical_id}))()
    return {}


def _url_target(resource: Resource) -> dict[str, str]:
    return split_name(resource.properties["TargetFunctionArn"], resource.get("Qualifier"))


def create_url(resource: Resource) -> Script:
    params = {**_url_target(resource), **resource.pick("AuthType", "Cors", "InvokeMode")}
    output = yield Call("lambda", "CreateFunctionUrlConfig", params, ("FunctionUrl", "FunctionArn"))
    if "FunctionUrl" not in output:
        output = yield Call("lambda", "GetFunctionUrlConfig", _url_target(resource), ("FunctionUrl", "FunctionArn"))
    yield Made(output["FunctionArn"])
    return dict(output)


def update_url(resource: Resource) -> Script:
    params = {**_url_target(resource), **resource.pick("AuthType", "InvokeMode")}
    if resource.changed("Cors"):
        params["Cors"] = resource.get("Cors", {})
    if resource.changed("InvokeMode") and "InvokeMode" not in params:
        params["InvokeMode"] = "BUFFERED"
    yield Call("lambda", "UpdateFunctionUrlConfig", params)
    return resource.attributes


def delete_url(resource: Resource) -> Script:
    yield Call("lambda", "DeleteFunctionUrlConfig", _url_target(resource))
    return {}


def _event_target(resource: Resource) -> dict[str, str]:
    return split_name(resource.properties["FunctionName"], resource.get("Qualifier"))


def _put_event_config(resource: Resource) -> Call:
    settings = resource.pick("DestinationConfig", "MaximumEventAgeInSeconds", "MaximumRetryAttempts")
    return Call("lambda", "PutFunctionEventInvokeConfig", {**_event_target(resource), **settings})


def create_event_config(resource: Resource) -> Script:
    yield _put_event_config(resource)
    yield Made(resource.name)
    return {}


def update_event_config(resource: Resource) -> Script:
    yield _put_event_config(resource)
    return {}


def delete_event_config(resource: Resource) -> Script:
    yield Call("lambda", "DeleteFunctionEventInvokeConfig", _event_target(resource))
    return {}


TYPES = (
    ResourceType(
        "AWS::Lambda::Permission",
        properties(
            "Action EventSourceToken FunctionName FunctionUrlAuthType InvokedViaFunctionUrl Principal PrincipalOrgID "
            "SourceAccount SourceArn",
            required="Action FunctionName Principal",
        ),
        create_permission,
        delete_permission,
        attributes=("Id",),
        name_limit=100,
    ),
    ResourceType(
        "AWS::Lambda::EventSourceMapping",
        properties(
            "BatchSize BisectBatchOnFunctionError DestinationConfig Enabled EventSourceArn FilterCriteria FunctionName "
            "FunctionResponseTypes MaximumBatchingWindowInSeconds MaximumRecordAgeInSeconds MaximumRetryAttempts "
            "ParallelizationFactor ProvisionedPollerConfig ScalingConfig StartingPosition StartingPositionTimestamp "
            "Tags TumblingWindowInSeconds",
            replaces="EventSourceArn StartingPosition StartingPositionTimestamp SelfManagedEventSource Topics Queues",
            required="FunctionName",
            approximates=dict.fromkeys(OTHER_SOURCES, "passed to Lambda, which says which event sources it has"),
        ),
        create_source,
        delete_source,
        update_source,
        attributes=("Id", "EventSourceMappingArn"),
        tags="list",
    ),
    ResourceType(
        "AWS::Lambda::Url",
        properties(
            "AuthType Cors InvokeMode Qualifier TargetFunctionArn",
            replaces="Qualifier TargetFunctionArn",
            required="AuthType TargetFunctionArn",
        ),
        create_url,
        delete_url,
        update_url,
        attributes=("FunctionArn", "FunctionUrl"),
    ),
    ResourceType(
        "AWS::Lambda::EventInvokeConfig",
        properties(
            "DestinationConfig FunctionName MaximumEventAgeInSeconds MaximumRetryAttempts Qualifier",
            replaces="FunctionName Qualifier",
            required="FunctionName Qualifier",
        ),
        create_event_config,
        delete_event_config,
        update_event_config,
    ),
)

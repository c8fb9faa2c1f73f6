"""AWS::Bedrock: guardrails and their numbered versions. A version never changes; whatever changes makes a new one."""

from typing import Any

from preheat.template.definition import Call, Made, Resource, ResourceType, Script, properties, tag_map

CONFIGURATION = (
    "Name", "Description", "BlockedInputMessaging", "BlockedOutputsMessaging", "TopicPolicyConfig",
    "ContentPolicyConfig", "WordPolicyConfig", "SensitiveInformationPolicyConfig", "ContextualGroundingPolicyConfig",
    "AutomatedReasoningPolicyConfig",
)  # fmt: skip
ATTRIBUTES = (
    "GuardrailArn", "GuardrailId", "Version", "Status", "CreatedAt", "UpdatedAt", "StatusReasons",
    "FailureRecommendations",
)  # fmt: skip
NOT_ENCRYPTED = "passed to Bedrock and shown; guardrails lie in the state directory unencrypted"
NOT_ELSEWHERE = "passed to Bedrock and shown; every guardrail is evaluated on this machine"


def _camel(value: Any) -> Any:
    """Members of the API begin with a small letter."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _camel(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_camel(item) for item in value]
    return value


def _configuration(resource: Resource) -> dict[str, Any]:
    params = _camel(resource.pick(*CONFIGURATION))
    params["name"] = resource.name
    if resource.get("KmsKeyArn"):
        params["kmsKeyId"] = resource.get("KmsKeyArn")
    cross = resource.get("CrossRegionConfig")
    if cross:
        params["crossRegionConfig"] = {"guardrailProfileIdentifier": cross.get("GuardrailProfileArn", "")}
    return params


def _attributes(resource: Resource, arn: str) -> Script:
    output = yield Call(
        "bedrock", "GetGuardrail", {"guardrailIdentifier": arn},
        ("guardrailId", "version", "status", "createdAt", "updatedAt"),
    )  # fmt: skip
    return {
        "GuardrailArn": arn,
        "GuardrailId": output["guardrailId"],
        "Version": output["version"],
        "Status": output["status"],
        "CreatedAt": output["createdAt"],
        "UpdatedAt": output["updatedAt"],
        "StatusReasons": [],
        "FailureRecommendations": [],
    }


def create_guardrail(resource: Resource) -> Script:
    params = {**_configuration(resource), "clientRequestToken": resource.token}
    tags = tag_map(resource.get("Tags"))
    if tags:
        params["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
    made = yield Call("bedrock", "CreateGuardrail", params, ("guardrailArn",))
    yield Made(made["guardrailArn"])
    return (yield from _attributes(resource, made["guardrailArn"]))


def update_guardrail(resource: Resource) -> Script:
    arn = resource.physical_id
    yield Call("bedrock", "UpdateGuardrail", {"guardrailIdentifier": arn, **_configuration(resource)})
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    gone = sorted(set(old) - set(new))
    if gone:
        yield Call("bedrock", "UntagResource", {"resourceARN": arn, "tagKeys": gone})
    if new and new != old:
        tags = [{"key": key, "value": value} for key, value in new.items()]
        yield Call("bedrock", "TagResource", {"resourceARN": arn, "tags": tags})
    return (yield from _attributes(resource, arn))


def delete_guardrail(resource: Resource) -> Script:
    yield Call("bedrock", "DeleteGuardrail", {"guardrailIdentifier": resource.physical_id})
    return {}


def create_version(resource: Resource) -> Script:
    params = {
        "guardrailIdentifier": resource.properties["GuardrailIdentifier"],
        "clientRequestToken": resource.token,
    }
    if resource.get("Description"):
        params["description"] = resource.get("Description")
    made = yield Call("bedrock", "CreateGuardrailVersion", params, ("guardrailId", "version"))
    yield Made(f"{made['guardrailId']}|{made['version']}")
    arn = resource.scope.arn("bedrock", f"guardrail/{made['guardrailId']}")
    return {"GuardrailArn": arn, "GuardrailId": made["guardrailId"], "Version": made["version"]}


def delete_version(resource: Resource) -> Script:
    id, _, version = resource.physical_id.partition("|")
    yield Call("bedrock", "DeleteGuardrail", {"guardrailIdentifier": id, "guardrailVersion": version})
    return {}


TYPES = (
    ResourceType(
        "AWS::Bedrock::Guardrail",
        properties(
            " ".join((*CONFIGURATION, "Tags")),
            required="Name BlockedInputMessaging BlockedOutputsMessaging",
            approximates={"KmsKeyArn": NOT_ENCRYPTED, "CrossRegionConfig": NOT_ELSEWHERE},
        ),
        create_guardrail,
        delete_guardrail,
        update_guardrail,
        attributes=ATTRIBUTES,
        name_property="Name",
        name_limit=50,
        tags="list",
    ),
    ResourceType(
        "AWS::Bedrock::GuardrailVersion",
        properties(
            "GuardrailIdentifier Description",
            replaces="GuardrailIdentifier Description",
            required="GuardrailIdentifier",
        ),
        create_version,
        delete_version,
        attributes=("GuardrailArn", "GuardrailId", "Version"),
    ),
)

"""AWS::StepFunctions: state machines and activities."""

import json
import re
from typing import Any

from preheat.template.definition import Call, Failed, Made, Resource, ResourceType, Script, properties, tag_map, unused

_PLACE = re.compile(r"\$\{([\w.-]+)\}")


def _small(value: Any) -> Any:
    """With small first letters, as the API has its members."""
    if isinstance(value, dict):
        return {name[:1].lower() + name[1:]: _small(item) for name, item in value.items()}
    return [_small(item) for item in value] if isinstance(value, list) else value


def _definition(resource: Resource) -> str:
    """The text with its substitutions. Raises Failed unless exactly one of the two properties is given."""
    if resource.get("DefinitionS3Location"):
        raise Failed("Preheat does not read DefinitionS3Location: put the definition into Definition")
    given = [resource.get(name) for name in ("Definition", "DefinitionString") if resource.get(name) is not None]
    if len(given) != 1:
        raise Failed("Exactly one of Definition and DefinitionString must be given")
    text = given[0] if isinstance(given[0], str) else json.dumps(given[0], indent=2)
    values = resource.get("DefinitionSubstitutions") or {}

    def put(found: re.Match[str]) -> str:
        if found[1] not in values:
            return found[0]
        value = values[found[1]]
        return json.dumps(value) if isinstance(value, bool) else str(value)

    return _PLACE.sub(put, text)


def _params(resource: Resource) -> dict[str, Any]:
    params: dict[str, Any] = {"definition": _definition(resource), "roleArn": resource.properties["RoleArn"]}
    for name in ("LoggingConfiguration", "TracingConfiguration", "EncryptionConfiguration"):
        if resource.get(name):
            params[name[:1].lower() + name[1:]] = _small(resource.get(name))
    return params


def _tags(given: Any) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tag_map(given).items()]


def _retag(resource: Resource, arn: str) -> Script:
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    gone = sorted(set(old) - set(new))
    if gone:
        yield Call("stepfunctions", "UntagResource", {"resourceArn": arn, "tagKeys": gone})
    if new and new != old:
        yield Call("stepfunctions", "TagResource", {"resourceArn": arn, "tags": _tags(resource.get("Tags"))})
    return {}


def create_machine(resource: Resource) -> Script:
    arn = resource.scope.arn("states", f"stateMachine:{resource.name}")
    look = Call("stepfunctions", "DescribeStateMachine", {"stateMachineArn": arn})
    yield from unused(look, resource.type, arn)
    params = {"name": resource.name, "type": resource.get("StateMachineType") or "STANDARD", **_params(resource)}
    if resource.get("Tags"):
        params["tags"] = _tags(resource.get("Tags"))
    yield Call("stepfunctions", "CreateStateMachine", params)
    yield Made(arn)
    return (yield from _attributes(arn, resource.name))


def _attributes(arn: str, name: str) -> Script:
    found = yield Call("stepfunctions", "DescribeStateMachine", {"stateMachineArn": arn}, ("revisionId",))
    return {"Arn": arn, "Name": name, "StateMachineRevisionId": found["revisionId"]}


def update_machine(resource: Resource) -> Script:
    """What is taken out of the template is switched off."""
    arn = resource.physical_id
    off = {"loggingConfiguration": {"level": "OFF"}, "tracingConfiguration": {"enabled": False}}
    yield Call("stepfunctions", "UpdateStateMachine", {"stateMachineArn": arn, **off, **_params(resource)})
    yield from _retag(resource, arn)
    return (yield from _attributes(arn, resource.attributes["Name"]))


def delete_machine(resource: Resource) -> Script:
    yield Call("stepfunctions", "DeleteStateMachine", {"stateMachineArn": resource.physical_id})
    return {}


def create_activity(resource: Resource) -> Script:
    arn = resource.scope.arn("states", f"activity:{resource.name}")
    yield from unused(Call("stepfunctions", "DescribeActivity", {"activityArn": arn}), resource.type, arn)
    params: dict[str, Any] = {"name": resource.name}
    if resource.get("Tags"):
        params["tags"] = _tags(resource.get("Tags"))
    if resource.get("EncryptionConfiguration"):
        params["encryptionConfiguration"] = _small(resource.get("EncryptionConfiguration"))
    yield Call("stepfunctions", "CreateActivity", params)
    yield Made(arn)
    return {"Arn": arn, "Name": resource.name}


def update_activity(resource: Resource) -> Script:
    yield from _retag(resource, resource.physical_id)
    return resource.attributes


def delete_activity(resource: Resource) -> Script:
    yield Call("stepfunctions", "DeleteActivity", {"activityArn": resource.physical_id})
    return {}


TYPES = (
    ResourceType(
        "AWS::StepFunctions::StateMachine",
        properties(
            "Definition DefinitionString DefinitionSubstitutions LoggingConfiguration RoleArn StateMachineName "
            "StateMachineType Tags",
            replaces="StateMachineName StateMachineType",
            required="RoleArn",
            approximates={
                "DefinitionS3Location": "refused: put the definition into Definition",
                "TracingConfiguration": "kept and shown; trace headers are passed on, there is no X-Ray",
                "EncryptionConfiguration": "there is no KMS: a key of the customer is refused",
            },
        ),
        create_machine, delete_machine, update_machine,
        attributes=("Arn", "Name", "StateMachineRevisionId"), name_property="StateMachineName", name_limit=80,
        tags="list",
    ),
    ResourceType(
        "AWS::StepFunctions::Activity",
        properties(
            "Name Tags", replaces="Name EncryptionConfiguration",
            approximates={"EncryptionConfiguration": "there is no KMS: a key of the customer is refused"},
        ),
        create_activity, delete_activity, update_activity,
        attributes=("Arn", "Name"), name_property="Name", name_limit=80, tags="list",
    ),
)  # fmt: skip

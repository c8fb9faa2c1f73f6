"""Custom resources: a function of the user's makes, changes and deletes them and answers by HTTP PUT."""

import json
from typing import Any

from preheat.template.definition import Answer, Call, Failed, Made, Resource, ResourceType, Script
from preheat.template.parameters import text_of

DEFAULT_TIMEOUT_S = 3600.0
MAX_RESPONSE_BYTES = 4096
RESPONSE_PATH = "/_preheat/cfn-response/"


def _texts(value: Any) -> Any:
    """Scalars reach the provider as text."""
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return text_of(value)


def _ask(resource: Resource, kind: str) -> Script:
    """Invoke the provider and wait for its response. Returns the document; raises Failed."""
    provider = resource.properties.get("ServiceToken")
    if not isinstance(provider, str) or ":lambda:" not in provider:
        raise Failed("Invalid service token: Preheat sends custom resources to Lambda functions only")
    event: dict[str, Any] = {
        "RequestType": kind,
        "ServiceToken": provider,
        "ResponseURL": f"{resource.endpoint}{RESPONSE_PATH}{resource.token}",
        "StackId": resource.stack_id,
        "RequestId": resource.token,
        "LogicalResourceId": resource.logical_id,
        "ResourceType": resource.type,
        "ResourceProperties": _texts(resource.properties),
    }
    if kind != "Create":
        event["PhysicalResourceId"] = resource.physical_id
    if kind == "Update":
        event["OldResourceProperties"] = _texts(resource.old)
    payload = json.dumps(event).encode()
    yield Call("lambda", "Invoke", {"FunctionName": provider, "InvocationType": "Event", "Payload": payload})
    body = yield Answer(float(resource.get("ServiceTimeout", DEFAULT_TIMEOUT_S)))
    if body is None:
        raise Failed(
            "CloudFormation did not receive a response from your Custom Resource. Please check your logs for requestId "
            f"[{resource.token}]. If you are using the Python cfn-response module, you may need to update your Lambda "
            "function code so that CloudFormation can attach the updated version."
        )
    response = json.loads(body)
    if response.get("Status") != "SUCCESS":
        reason = response.get("Reason") or "no reason given"
        raise Failed(
            f"Received response status [FAILED] from custom resource. Message returned: {reason} "
            f"(RequestId: {resource.token})"
        )
    return response


def check_response(body: bytes) -> str:
    """The text of a provider's response. Raises ValueError saying what is wrong with it."""
    if len(body) > MAX_RESPONSE_BYTES:
        raise ValueError(f"the response is larger than {MAX_RESPONSE_BYTES} bytes")
    response = json.loads(body)
    if not isinstance(response, dict) or response.get("Status") not in ("SUCCESS", "FAILED"):
        raise ValueError('Status must be "SUCCESS" or "FAILED"')
    if not isinstance(response.get("Data") or {}, dict):
        raise ValueError("Data must be an object")
    return json.dumps(response)


def create(resource: Resource) -> Script:
    yield Made(resource.name)
    response = yield from _ask(resource, "Create")
    if not response.get("PhysicalResourceId"):
        raise Failed("Invalid PhysicalResourceId")
    yield Made(response["PhysicalResourceId"])
    return response.get("Data") or {}


def update(resource: Resource) -> Script:
    response = yield from _ask(resource, "Update")
    yield Made(response.get("PhysicalResourceId") or resource.physical_id)
    return response.get("Data") or {}


def delete(resource: Resource) -> Script:
    yield from _ask(resource, "Delete")
    return {}


def custom_type(name: str) -> ResourceType:
    """The definition of `Custom::<name>` and of AWS::CloudFormation::CustomResource."""
    return ResourceType(name, {}, create, delete, update, attributes=None, open=True)

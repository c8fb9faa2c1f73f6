"""AWS::Lambda: functions, their versions and aliases."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.template.definition import (
    Call,
    Command,
    Failed,
    Made,
    Resource,
    ResourceType,
    Script,
    is_not_found,
    poll,
    properties,
    tag_map,
)

CONFIGURATION: dict[str, Any] = {
    "DeadLetterConfig": {"TargetArn": ""},
    "Description": "",
    "Environment": {"Variables": {}},
    "EphemeralStorage": {"Size": 512},
    "Handler": None,
    "ImageConfig": {},
    "KmsKeyArn": "",
    "Layers": [],
    "LoggingConfig": {"LogFormat": "Text"},
    "MemorySize": 128,
    "Role": None,
    "Runtime": None,
    "SnapStart": {"ApplyOn": "None"},
    "Timeout": 3,
    "TracingConfig": {"Mode": "PassThrough"},
    "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
}
RENAMED = {"KmsKeyArn": "KMSKeyArn"}
CFN_RESPONSE = '''\
import json
import urllib.request

SUCCESS, FAILED = "SUCCESS", "FAILED"


def send(event, context, responseStatus, responseData, physicalResourceId=None, noEcho=False, reason=None):
    body = json.dumps({
        "Status": responseStatus,
        "Reason": reason or "See the details in CloudWatch Log Stream: " + context.log_stream_name,
        "PhysicalResourceId": physicalResourceId or context.log_stream_name,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "NoEcho": noEcho,
        "Data": responseData,
    }).encode()
    request = urllib.request.Request(event["ResponseURL"], data=body, method="PUT", headers={"Content-Type": ""})
    urllib.request.urlopen(request).close()
'''


def _code(resource: Resource) -> dict[str, Any]:
    code = dict(resource.properties["Code"])
    if "ZipFile" in code:
        code["ZipFile"] = inline_package(str(resource.get("Runtime", "")), code["ZipFile"])
    code.pop("SourceKMSKeyArn", None)
    return code


def inline_package(runtime: str, source: str) -> bytes:
    """The zip that Lambda makes of a template's inline code: `index.py` (with `cfnresponse`) or `index.js`."""
    files = {"index.js": source}
    if runtime.startswith("python"):
        files = {"index.py": source, "cfnresponse.py": CFN_RESPONSE}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            archive.writestr(info, text)
    return packed.getvalue()


def _configuration(resource: Resource, changed_only: bool) -> dict[str, Any]:
    params = {}
    for name, default in CONFIGURATION.items():
        if changed_only and not resource.changed(name):
            continue
        value = resource.get(name, default if changed_only else None)
        if name == "VpcConfig" and value:
            value = {key: item for key, item in value.items() if key in ("SubnetIds", "SecurityGroupIds")}
        if name == "LoggingConfig" and changed_only:
            value = _logging(resource.physical_id, value)
        if value is not None:
            params[RENAMED.get(name, name)] = value
    return params


def _logging(function: str, given: dict[str, Any]) -> dict[str, Any]:
    """The whole of a LoggingConfig: an update leaves what it does not name as it was."""
    whole = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{function}", **given}
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"} if whole["LogFormat"] == "JSON" else {}
    return {**levels, **whole}


def settled(name: str, qualifier: str | None = None) -> Script:
    """Until the function is neither being made nor being changed."""
    params = {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}
    keep = ("State", "StateReason", "LastUpdateStatus", "LastUpdateStatusReason", "FunctionArn")

    def done(output: dict[str, Any]) -> bool:
        return output.get("State") != "Pending" and output.get("LastUpdateStatus") != "InProgress"

    def failed(output: dict[str, Any]) -> str | None:
        if output.get("State") == "Failed":
            return output.get("StateReason") or "The function could not be made"
        if output.get("LastUpdateStatus") == "Failed":
            return output.get("LastUpdateStatusReason") or "The function could not be changed"
        return None

    return poll(Call("lambda", "GetFunctionConfiguration", params, keep), done, failed)


def create_function(resource: Resource) -> Script:
    name = resource.name
    params = {"FunctionName": name, "Code": _code(resource), **_configuration(resource, False)}
    params.update(resource.pick("Architectures", "CodeSigningConfigArn", "PackageType"))
    if resource.get("Tags"):
        params["Tags"] = tag_map(resource.get("Tags"))
    yield Call("lambda", "CreateFunction", params)
    yield Made(name)
    output = yield from settled(name)
    if "ReservedConcurrentExecutions" in resource.properties:
        yield _reserve(name, resource.get("ReservedConcurrentExecutions"))
    if "RecursiveLoop" in resource.properties:
        yield _recursion(name, resource.get("RecursiveLoop"))
    if "RuntimeManagementConfig" in resource.properties:
        yield _runtime_management(name, resource.get("RuntimeManagementConfig"))
    return {"Arn": output["FunctionArn"]}


def _reserve(name: str, limit: Any) -> Command:
    return Call(
        "lambda", "PutFunctionConcurrency", {"FunctionName": name, "ReservedConcurrentExecutions": limit}
    )


def _recursion(name: str, mode: Any) -> Command:
    return Call("lambda", "PutFunctionRecursionConfig", {"FunctionName": name, "RecursiveLoop": mode})


def _runtime_management(name: str, config: dict[str, Any], qualifier: str | None = None) -> Command:
    where = {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}
    return Call("lambda", "PutRuntimeManagementConfig", {**where, **config})


def update_function(resource: Resource) -> Script:
    name = resource.physical_id
    if resource.changed("CodeSigningConfigArn"):
        config = resource.get("CodeSigningConfigArn")
        operation = "PutFunctionCodeSigningConfig" if config else "DeleteFunctionCodeSigningConfig"
        chosen = {"CodeSigningConfigArn": config} if config else {}
        yield Call("lambda", operation, {"FunctionName": name, **chosen})
    if resource.changed("Code", "Architectures"):
        params = {"FunctionName": name, **_code(resource), **resource.pick("Architectures")}
        yield Call("lambda", "UpdateFunctionCode", params)
        yield from settled(name)
    configuration = _configuration(resource, True)
    if configuration:
        yield Call("lambda", "UpdateFunctionConfiguration", {"FunctionName": name, **configuration})
        yield from settled(name)
    if resource.changed("ReservedConcurrentExecutions"):
        limit = resource.get("ReservedConcurrentExecutions")
        if limit is None:
            yield Call("lambda", "DeleteFunctionConcurrency", {"FunctionName": name})
        else:
            yield _reserve(name, limit)
    if resource.changed("RecursiveLoop"):
        yield _recursion(name, resource.get("RecursiveLoop") or "Terminate")
    if resource.changed("RuntimeManagementConfig"):
        yield _runtime_management(name, resource.get("RuntimeManagementConfig") or {"UpdateRuntimeOn": "Auto"})
    yield from change_tags(resource, resource.attributes["Arn"])
    return resource.attributes


def change_tags(resource: Resource, arn: str) -> Script:
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("lambda", "UntagResource", {"Resource": arn, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("lambda", "TagResource", {"Resource": arn, "Tags": new})
    return {}


def delete_function(resource: Resource) -> Script:
    yield Call("lambda", "DeleteFunction", {"FunctionName": resource.physical_id})
    return {}


def split_name(given: str, qualifier: str | None = None) -> dict[str, str]:
    """FunctionName and Qualifier of a name, a partial or a full ARN that may carry a qualifier."""
    parts = given.split(":")
    if given.startswith("arn:"):
        name, extra = ":".join(parts[:7]), parts[7:]
    else:
        at = 3 if len(parts) > 2 else 1
        name, extra = ":".join(parts[:at]), parts[at:]
    chosen = qualifier or (extra[0] if extra else "")
    return {"FunctionName": name, **({"Qualifier": chosen} if chosen else {})}


def create_version(resource: Resource) -> Script:
    params = resource.pick("FunctionName", "Description", "CodeSha256")
    output = yield Call("lambda", "PublishVersion", params, ("Version", "FunctionArn"))
    version, arn = str(output["Version"]), output["FunctionArn"]
    if arn.count(":") == 6:
        arn = f"{arn}:{version}"
    yield Made(arn)
    yield from settled(resource.properties["FunctionName"], version)
    if "RuntimePolicy" in resource.properties:
        yield _runtime_management(resource.properties["FunctionName"], resource.get("RuntimePolicy"), version)
    yield from provision(resource, version, {})
    return {"Version": version, "FunctionArn": arn}


def update_version(resource: Resource) -> Script:
    yield from provision(resource, resource.attributes["Version"], resource.old)
    return resource.attributes


def provision(resource: Resource, qualifier: str, old: dict[str, Any]) -> Script:
    """Bring provisioned concurrency to what the template says, and wait until it stands: also after the alias has gone
    to another version."""
    given, before = resource.get("ProvisionedConcurrencyConfig"), old.get("ProvisionedConcurrencyConfig")
    target = split_name(resource.properties["FunctionName"], qualifier)
    if not given:
        if before:
            yield Call("lambda", "DeleteProvisionedConcurrencyConfig", target)
        return {}
    if given != before:
        yield Call("lambda", "PutProvisionedConcurrencyConfig", {**target, **given})
    read = Call("lambda", "GetProvisionedConcurrencyConfig", target, ("Status", "StatusReason"))
    yield from poll(
        read,
        lambda output: output.get("Status") == "READY",
        lambda output: _provision_failure(output) if output.get("Status") == "FAILED" else None,
        every_s=0.25,
    )
    return {}


def _provision_failure(output: dict[str, Any]) -> str:
    reason = output.get("StatusReason") or "unknown"
    return f"Provisioned Concurrency configuration failed to be applied. Reason: {reason}"


def delete_version(resource: Resource) -> Script:
    yield Call("lambda", "DeleteFunction", split_name(resource.physical_id))
    return {}


def _alias(resource: Resource) -> dict[str, Any]:
    params = resource.pick("FunctionName", "Name", "FunctionVersion", "Description")
    weights = (resource.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or ()
    params["RoutingConfig"] = {
        "AdditionalVersionWeights": {item["FunctionVersion"]: item["FunctionWeight"] for item in weights}
    }
    return params


def create_alias(resource: Resource) -> Script:
    output = yield Call("lambda", "CreateAlias", _alias(resource), ("AliasArn",))
    arn = output.get("AliasArn")
    if arn is None:
        read = Call("lambda", "GetAlias", resource.pick("FunctionName", "Name"), ("AliasArn",))
        arn = (yield read)["AliasArn"]
    yield Made(arn)
    yield from provision(resource, resource.properties["Name"], {})
    return {"AliasArn": arn}


def update_alias(resource: Resource) -> Script:
    yield Call("lambda", "UpdateAlias", {"Description": "", **_alias(resource)})
    yield from provision(resource, resource.properties["Name"], resource.old)
    return resource.attributes


def delete_alias(resource: Resource) -> Script:
    yield Call("lambda", "DeleteAlias", resource.pick("FunctionName", "Name"))
    return {}


def create_layer(resource: Resource) -> Script:
    params = resource.pick("CompatibleArchitectures", "CompatibleRuntimes", "Content", "Description", "LicenseInfo")
    params["LayerName"] = resource.get("LayerName", resource.name)
    output = yield Call("lambda", "PublishLayerVersion", params, ("LayerVersionArn",))
    if "LayerVersionArn" not in output:
        raise Failed("The layer version was published, but its number was lost in a crash; publish again")
    yield Made(output["LayerVersionArn"])
    return {"LayerVersionArn": output["LayerVersionArn"]}


def delete_layer(resource: Resource) -> Script:
    name, _, version = resource.physical_id.rpartition(":")
    yield Call("lambda", "DeleteLayerVersion", {"LayerName": name, "VersionNumber": int(version)})
    return {}


def create_layer_permission(resource: Resource) -> Script:
    layer, _, version = resource.properties["LayerVersionArn"].rpartition(":")
    where = {"LayerName": layer, "VersionNumber": int(version), "StatementId": resource.name}
    where.update(resource.pick("Action", "OrganizationId", "Principal"))
    yield Call("lambda", "AddLayerVersionPermission", where)
    yield Made(f"{resource.properties['LayerVersionArn']}#{resource.name}")
    return {"Id": f"{resource.properties['LayerVersionArn']}#{resource.name}"}


def delete_layer_permission(resource: Resource) -> Script:
    arn, _, statement = resource.physical_id.partition("#")
    layer, _, version = arn.rpartition(":")
    where = {"LayerName": layer, "VersionNumber": int(version), "StatementId": statement}
    yield Call("lambda", "RemoveLayerVersionPermission", where)
    return {}


def create_signing(resource: Resource) -> Script:
    params = resource.pick("AllowedPublishers", "CodeSigningPolicies", "Description")
    if resource.get("Tags"):
        params["Tags"] = tag_map(resource.get("Tags"))
    output = yield Call("lambda", "CreateCodeSigningConfig", params, ("CodeSigningConfig",))
    if "CodeSigningConfig" not in output:
        raise Failed("The code signing configuration was made, but its ARN was lost in a crash; deploy again")
    arn = output["CodeSigningConfig"]["CodeSigningConfigArn"]
    yield Made(arn)
    return {"CodeSigningConfigArn": arn, "CodeSigningConfigId": arn.rpartition(":")[2]}


def update_signing(resource: Resource) -> Script:
    params = {"Description": "", **resource.pick("AllowedPublishers", "CodeSigningPolicies", "Description")}
    yield Call("lambda", "UpdateCodeSigningConfig", {"CodeSigningConfigArn": resource.physical_id, **params})
    yield from change_tags(resource, resource.physical_id)
    return resource.attributes


def delete_signing(resource: Resource) -> Script:
    yield Call("lambda", "DeleteCodeSigningConfig", {"CodeSigningConfigArn": resource.physical_id})
    return {}


def gone(read: Call) -> Callable[[], Script]:
    """A script that waits until `read` no longer finds anything."""

    def script() -> Script:
        try:
            yield from poll(read, lambda output: False, lambda output: None)
        except AwsError as error:
            if not is_not_found(error):
                raise
        return {}

    return script


TYPES = (
    ResourceType(
        "AWS::Lambda::Function",
        properties(
            "Code CodeSigningConfigArn DeadLetterConfig Description Environment EphemeralStorage FunctionName Handler "
            "Layers LoggingConfig MemorySize PackageType RecursiveLoop ReservedConcurrentExecutions Role Runtime "
            "RuntimeManagementConfig SnapStart Tags Timeout",
            replaces="FunctionName PackageType",
            required="Code Role",
            approximates={
                "Architectures": "passed to Lambda and shown; code runs on this machine's architecture",
                "ImageConfig": "passed to Lambda, which refuses container images",
                "TracingConfig": "Active samples what brings no trace along; segments are not stored",
                "KmsKeyArn": "passed to Lambda and shown; there is no KMS",
                "VpcConfig": "passed to Lambda and shown; functions run in this machine's network",
            },
            ignored={
                "FileSystemConfigs": "there is no EFS",
            },
        ),
        create_function,
        delete_function,
        update_function,
        attributes=("Arn", "SnapStartResponse", "SnapStartResponse.ApplyOn", "SnapStartResponse.OptimizationStatus"),
        name_property="FunctionName",
        tags="list",
    ),
    ResourceType(
        "AWS::Lambda::Version",
        properties(
            "CodeSha256 Description FunctionName ProvisionedConcurrencyConfig RuntimePolicy",
            replaces="FunctionName CodeSha256 Description RuntimePolicy",
            required="FunctionName",
        ),
        create_version,
        delete_version,
        update_version,
        attributes=("Version", "FunctionArn"),
    ),
    ResourceType(
        "AWS::Lambda::Alias",
        properties(
            "Description FunctionName FunctionVersion Name ProvisionedConcurrencyConfig RoutingConfig",
            replaces="FunctionName Name",
            required="FunctionName FunctionVersion Name",
        ),
        create_alias,
        delete_alias,
        update_alias,
        attributes=("AliasArn",),
    ),
    ResourceType(
        "AWS::Lambda::LayerVersion",
        properties(
            "CompatibleRuntimes Content Description LayerName LicenseInfo",
            required="Content",
            approximates={"CompatibleArchitectures": "kept and shown; code runs on this machine's architecture"},
        ),
        create_layer,
        delete_layer,
        attributes=("LayerVersionArn",),
    ),
    ResourceType(
        "AWS::Lambda::LayerVersionPermission",
        properties(
            "Action LayerVersionArn OrganizationId Principal",
            replaces="Action LayerVersionArn OrganizationId Principal",
            required="Action LayerVersionArn Principal",
        ),
        create_layer_permission,
        delete_layer_permission,
        attributes=("Id",),
        name_limit=100,
    ),
    ResourceType(
        "AWS::Lambda::CodeSigningConfig",
        properties("CodeSigningPolicies Description Tags", required="AllowedPublishers", approximates={
            "AllowedPublishers": "kept and shown; there is no AWS Signer, so no archive has a signature",
        }),
        create_signing,
        delete_signing,
        update_signing,
        attributes=("CodeSigningConfigArn", "CodeSigningConfigId"),
        tags="list",
    ),
)

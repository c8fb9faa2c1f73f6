"""CreateFunction and UpdateFunctionConfiguration: what may be configured, and how a configuration is answered."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from preheat.execution.reports import runtime_arn
from preheat.services.awslambda.domain import (
    LATEST,
    MAX_ENVIRONMENT_BYTES,
    MAX_LAYERS,
    Settings,
    Version,
    check_range,
    invalid,
    timestamp,
    violation,
)
from preheat.services.contract import Params

RUNTIMES = (
    "nodejs18.x", "nodejs20.x", "nodejs22.x", "nodejs24.x", "python3.9", "python3.10", "python3.11", "python3.12",
    "python3.13", "python3.14", "provided.al2", "provided.al2023",
)  # fmt: skip
OFFERED = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10, "
    "python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, "
    "java11, dotnet6, nodejs18.x, provided.al2, java8.al2"
)
"""How AWS lists the runtimes that there are."""
_RETIRED = re.compile(
    r"nodejs(4|6|8|10|12|14|16)\..*|nodejs|python2\.7|python3\.[678]|go1\.x|provided|ruby2\..*|dotnet.*"
)
_FOREIGN = re.compile(r"(java|dotnet|ruby).*")
_SNAP_START = re.compile(r"python3\.1[2-9]")
_ROLE_PATTERN = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
_LAYER = re.compile(r"arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:layer:([a-zA-Z0-9-_]+):\d+")
_LAYER_RULES = (
    "[Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, Member "
    "must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?"
    r"-[a-z]+-\d{1}:\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+), Member "
    "must not be null]"
)
_VARIABLE = re.compile(r"[a-zA-Z]([a-zA-Z0-9_])+")
_TARGET_PATTERN = r"arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*"
_LOG_GROUP_PATTERN = r"[\.\-_/#A-Za-z0-9]+"
_RESERVED_VARIABLES = (
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
)  # fmt: skip
_NOT_LISTED = (
    "State", "StateReason", "StateReasonCode", "LastUpdateStatus", "LastUpdateStatusReason",
    "LastUpdateStatusReasonCode", "RuntimeVersionConfig",
)  # fmt: skip
_REFUSED = (
    "FileSystemConfigs", "ImageConfig", "TenancyConfig", "CapacityProviderConfig",
    "DurableConfig", "RuntimeConfig", "AcceleratorConfig", "PublishTo",
)  # fmt: skip


def settings_of(params: Params, before: Settings | None = None) -> Settings:
    """The configuration that `params` asks for, on top of `before` when it is an update. Raises AwsError."""
    base = before or Settings(role="", runtime="", handler="")
    changes: dict[str, Any] = {}
    if params.get("LoggingConfig") is not None:
        changes.update(_logging(params["LoggingConfig"], base))
    for member, check in _CHECKS.items():
        value = params.get(member)
        if value is not None:
            changes.update(check(value))
    _check_supported(params)
    if before is None and not (params.get("Runtime") and params.get("Handler")):
        raise invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
    settings = replace(base, **changes)
    if settings.snap_start == "PublishedVersions":
        _check_snap_start(settings)
    return settings


def _check_supported(params: Params) -> None:
    for member in _REFUSED:
        if params.get(member):
            raise invalid(f"Preheat does not support {member}.")
    if params.get("PackageType", "Zip") != "Zip":
        raise invalid("Preheat runs functions with PackageType Zip; container images are not supported.")


def _check_snap_start(settings: Settings) -> None:
    if not _SNAP_START.fullmatch(settings.runtime):
        raise invalid(f"{settings.runtime} is not supported for SnapStart enabled functions.")
    if settings.ephemeral_mb > 512:
        raise invalid("SnapStart does not support ephemeral storage greater than 512 MB.")


def _role(value: str) -> dict[str, Any]:
    if not re.fullmatch(_ROLE_PATTERN, value):
        raise violation(value, "role", f"Member must satisfy regular expression pattern: {_ROLE_PATTERN}")
    return {"role": value}


def _runtime(value: str) -> dict[str, Any]:
    if value in RUNTIMES:
        return {"runtime": value}
    if _RETIRED.fullmatch(value) and not value.startswith(("dotnet8", "dotnet10")):
        raise invalid(
            f"The runtime parameter of {value} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    if _FOREIGN.fullmatch(value):
        raise invalid(f"Preheat runs python, nodejs and provided runtimes; {value} is not supported.")
    raise invalid(
        f"Value {value} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [{OFFERED}] or "
        "be a valid ARN"
    )


def known_runtime(value: str) -> bool:
    """Whether AWS has, or had, a runtime of this name."""
    return value in RUNTIMES or any(names.fullmatch(value) for names in (_RETIRED, _FOREIGN))


def _handler(value: str) -> dict[str, Any]:
    if not re.fullmatch(r"[^\s]+", value):
        raise violation(value, "handler", r"Member must satisfy regular expression pattern: [^\s]+")
    if len(value) > 128:
        raise violation(value, "handler", "Member must have length less than or equal to 128")
    return {"handler": value}


def _description(value: str) -> dict[str, Any]:
    if len(value) > 256:
        raise violation(value, "description", "Member must have length less than or equal to 256")
    return {"description": value}


def _environment(value: Params) -> dict[str, Any]:
    variables = value.get("Variables")
    if variables is None:
        return {"environment": None}
    for key in variables:
        if not _VARIABLE.fullmatch(key):
            raise violation(
                f"{{{key}={variables[key]}}}", "environment.variables",
                "Map keys must satisfy constraint: [Member must satisfy regular expression pattern: "
                "[a-zA-Z]([a-zA-Z0-9_])+]",
            )  # fmt: skip
    reserved = sorted(key for key in variables if key in _RESERVED_VARIABLES)
    if reserved:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. Reserved keys used in "
            f"this request: {', '.join(reserved)}"
        )
    measured = json.dumps(variables, separators=(",", ":"), ensure_ascii=False)
    if len(measured.encode()) > MAX_ENVIRONMENT_BYTES:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            f"provided exceeded the 4KB limit. String measured: {measured}"
        )
    return {"environment": dict(variables)}


def _layers(value: list[str]) -> dict[str, Any]:
    if len(value) > MAX_LAYERS:
        raise invalid("Cannot reference more than 5 layers.")
    names: dict[str, str] = {}
    for arn in value:
        if not _LAYER.fullmatch(arn):
            raise violation(f"[{arn}]", "layers", f"Member must satisfy constraint: {_LAYER_RULES}")
        base = arn.rpartition(":")[0]
        if base in names:
            raise invalid(
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{names[base]} and {arn} are versions of the same layer."
            )
        names[base] = arn
    return {"layers": tuple(value)}


def _dead_letter(value: Params) -> dict[str, Any]:
    target = value.get("TargetArn", "")
    if target and re.fullmatch(_TARGET_PATTERN, target) is None:
        raise violation(
            target, "deadLetterConfig.targetArn",
            f"Member must satisfy regular expression pattern: ({_TARGET_PATTERN})|()",
        )  # fmt: skip
    if target and not re.fullmatch(r"arn:aws[a-zA-Z-]*:(sqs|sns):[^:]+:\d{12}:[^:]+", target):
        raise invalid(f"The provided dead letter target {target} must be an SQS queue or SNS topic.")
    if target.endswith(".fifo"):
        raise invalid(f"The provided dead letter target {target} is a FIFO resource; only standard ones are supported.")
    return {"dead_letter": target}


def _tracing(value: Params) -> dict[str, Any]:
    mode = value.get("Mode", "PassThrough")
    if mode not in ("Active", "PassThrough"):
        raise violation(mode, "tracingConfig.mode", "Member must satisfy enum value set: [Active, PassThrough]")
    return {"tracing": mode}


def _architectures(value: list[str]) -> dict[str, Any]:
    shown = f"[{', '.join(value)}]"
    if len(value) > 1:
        raise violation(shown, "architectures", "Member must have length less than or equal to 1")
    if not value:
        raise violation(shown, "architectures", "Member must have length greater than or equal to 1")
    if value[0] not in ("x86_64", "arm64"):
        raise violation(
            shown, "architectures",
            "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be "
            "null]",
        )  # fmt: skip
    return {"architecture": value[0]}


def _snap_start(value: Params) -> dict[str, Any]:
    chosen = value.get("ApplyOn", "None")
    if chosen not in ("PublishedVersions", "None"):
        raise violation(chosen, "snapStart.applyOn", "Member must satisfy enum value set: [PublishedVersions, None]")
    return {"snap_start": chosen}


def _logging(value: Params, before: Settings) -> dict[str, Any]:
    """What is left out stays as it was; levels go with the format that has none."""
    log_format = value.get("LogFormat", before.log_format)
    group = value.get("LogGroup", before.log_group)
    if log_format not in ("JSON", "Text"):
        raise violation(log_format, "loggingConfig.logFormat", "Member must satisfy enum value set: [JSON, Text]")
    if group and not re.fullmatch(_LOG_GROUP_PATTERN, group):
        raise violation(
            group, "loggingConfig.logGroup", f"Member must satisfy regular expression pattern: {_LOG_GROUP_PATTERN}"
        )
    application, system = value.get("ApplicationLogLevel", ""), value.get("SystemLogLevel", "")
    if log_format == "Text" and (application or system):
        raise invalid(
            'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change '
            'the LogFormat to "JSON" and try again.'
        )
    if log_format == "JSON":
        application = application or before.application_log_level or "INFO"
        system = system or before.system_log_level or "INFO"
    return {
        "log_format": log_format, "log_group": group,
        "application_log_level": application, "system_log_level": system,
    }  # fmt: skip


def _vpc(value: Params) -> dict[str, Any]:
    subnets, groups = value.get("SubnetIds", []), value.get("SecurityGroupIds", [])
    if bool(subnets) != bool(groups):
        raise invalid("SubnetIds and SecurityGroupIds must coexist or be both empty list.")
    dual_stack = bool(value.get("Ipv6AllowedForDualStack"))
    return {
        "subnets": tuple(subnets), "security_groups": tuple(groups), "dual_stack": dual_stack, "networked": True
    }  # fmt: skip


_CHECKS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Role": _role,
    "Runtime": _runtime,
    "Handler": _handler,
    "Description": _description,
    "Timeout": lambda value: {"timeout_s": check_range(value, "timeout", 1, 900)},
    "MemorySize": lambda value: {"memory_mb": check_range(value, "memorySize", 128, 10_240)},
    "EphemeralStorage": lambda value: {
        "ephemeral_mb": check_range(value.get("Size", 512), "ephemeralStorage.size", 512, 10_240)
    },
    "Environment": _environment,
    "Layers": _layers,
    "DeadLetterConfig": _dead_letter,
    "TracingConfig": _tracing,
    "KMSKeyArn": lambda value: {"kms_key": value},
    "Architectures": _architectures,
    "SnapStart": _snap_start,
    "VpcConfig": _vpc,
}


def check_tags(tags: dict[str, str]) -> dict[str, str]:
    """At most 50 tags, keys of 1 to 128 characters not beginning with aws:, values up to 256."""
    if len(tags) > 50:
        raise invalid("Number of tags exceeds resource tag limit.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise invalid("Tag keys have 1 to 128 characters and tag values at most 256.")
        if key.lower().startswith("aws:"):
            raise invalid("System tags cannot be modified by the end user.")
    return tags


def answer(version: Version, layer_sizes: dict[str, int], *, qualified: bool = False) -> Params:
    """FunctionConfiguration. `layer_sizes` in bytes by layer version ARN; `qualified`: the ARN ends in the version."""
    settings = version.settings
    logging = {"LogFormat": settings.log_format, "LogGroup": settings.log_group or f"/aws/lambda/{version.name}"}
    if settings.log_format == "JSON":
        logging["ApplicationLogLevel"] = settings.application_log_level
        logging["SystemLogLevel"] = settings.system_log_level
    snapped = settings.snap_start == "PublishedVersions" and version.version != LATEST and version.state == "Active"
    output: Params = {
        "FunctionName": version.name,
        "FunctionArn": f"{version.arn}:{version.version}" if qualified else version.arn,
        "Runtime": settings.runtime,
        "Role": settings.role,
        "Handler": settings.handler,
        "CodeSize": version.package.size,
        "Description": settings.description,
        "Timeout": settings.timeout_s,
        "MemorySize": settings.memory_mb,
        "LastModified": timestamp(version.modified),
        "CodeSha256": version.package.code_sha256,
        "Version": version.version,
        "TracingConfig": {"Mode": settings.tracing},
        "RevisionId": version.revision_id,
        "State": version.state,
        "LastUpdateStatus": "Failed" if version.state == "Failed" else "Successful",
        "PackageType": "Zip",
        "Architectures": [settings.architecture],
        "EphemeralStorage": {"Size": settings.ephemeral_mb},
        "SnapStart": {"ApplyOn": settings.snap_start, "OptimizationStatus": "On" if snapped else "Off"},
        "LoggingConfig": logging,
        "RuntimeVersionConfig": {"RuntimeVersionArn": runtime_arn(settings.runtime, version.scope.region)},
    }
    if version.state != "Active":
        output |= {"StateReason": version.state_reason, "StateReasonCode": version.state_code}
    if version.state == "Failed":
        output |= {"LastUpdateStatusReason": version.state_reason, "LastUpdateStatusReasonCode": version.state_code}
    elif version.state == "Pending":
        del output["LastUpdateStatus"]
    if settings.environment is not None:
        output["Environment"] = {"Variables": settings.environment}
    if settings.layers:
        output["Layers"] = [{"Arn": arn, "CodeSize": layer_sizes.get(arn, 0)} for arn in settings.layers]
    if settings.dead_letter:
        output["DeadLetterConfig"] = {"TargetArn": settings.dead_letter}
    if settings.kms_key:
        output["KMSKeyArn"] = settings.kms_key
    if settings.networked or settings.subnets:
        output["VpcConfig"] = {
            "SubnetIds": list(settings.subnets),
            "SecurityGroupIds": list(settings.security_groups),
            "VpcId": "vpc-local" if settings.subnets else "",
            "Ipv6AllowedForDualStack": settings.dual_stack,
        }
    return output


def pending(configuration: Params) -> Params:
    """The same as it is answered to who made it: not active yet."""
    output = {**configuration, "State": "Pending", "StateReason": "The function is being created."}
    output["StateReasonCode"] = "Creating"
    output.pop("LastUpdateStatus", None)
    return output


def updating(configuration: Params, revision: str) -> Params:
    """The same as the two updates answer it. `revision` is its RevisionId until the update is through."""
    return {
        **configuration,
        "RevisionId": revision,
        "LastUpdateStatus": "InProgress",
        "LastUpdateStatusReason": "The function is being created.",
        "LastUpdateStatusReasonCode": "Creating",
    }


def listed(configuration: Params) -> Params:
    """The same in a list, where states and the runtime's version are left out."""
    return {member: value for member, value in configuration.items() if member not in _NOT_LISTED}


def runtime_variables(settings: Settings) -> dict[str, str]:
    """The environment of the handler: the user's variables, and what the logging settings tell the runtime."""
    variables = dict(settings.environment or {})
    if settings.log_format == "JSON":
        variables["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
        variables["AWS_LAMBDA_LOG_LEVEL"] = settings.application_log_level
    return variables

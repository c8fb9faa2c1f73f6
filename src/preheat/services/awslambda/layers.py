"""Layers: archives that functions mount below /opt."""

import json
import re
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services import constraints
from preheat.services.awslambda import repository
from preheat.services.awslambda.configuration import OFFERED, known_runtime
from preheat.services.awslambda.core import Core, Operation, marker, page, resource_missing
from preheat.services.awslambda.domain import Package, invalid, timestamp, violation
from preheat.services.awslambda.functions import with_package
from preheat.services.awslambda.layer_policies import allows, denied
from preheat.services.contract import Context, Outcome, Params, Reply

ARCHITECTURES = ("x86_64", "arm64")
_LAYER_RUNTIMES = (
    "ruby3.5, ruby2.6, dotnetcore1.0, python3.7, nodejs8.10, nasa, ruby2.7, python2.7-greengrass, dotnetcore2.0, "
    "python3.8, java21, dotnet6, dotnetcore2.1, python3.9, java11, nodejs6.10, provided, dotnetcore3.1, dotnet8, "
    "java25, java17, nodejs, nodejs4.3, java8.al2, go1.x, dotnet10, nodejs20.x, go1.9, byol, nodejs10.x, "
    "provided.al2023, nodejs22.x, python3.10, java8, nodejs12.x, python3.11, nodejs24.x, nodejs8.x, python3.12, "
    "nodejs14.x, nodejs8.9, nodejs26.x, python3.13, python3.14, nodejs16.x, python3.15, provided.al2, "
    "nodejs4.3-edge, nodejs18.x, ruby3.2, python3.4, ruby3.3, ruby3.4, ruby2.5, python3.6, python2.7"
)
"""How AWS lists the runtimes that a layer may be searched by."""
_NAME = re.compile(r"[a-zA-Z0-9-_]{1,140}")
_VERSION_ARN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:"
    r"[a-zA-Z0-9-_]+:[0-9]+)"
)
_ANY_VERSION_ARN = _VERSION_ARN + "|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+)"


def _name(ctx: Context, text: str) -> str:
    """A layer's name from a name or an ARN of this account and region."""
    name = text
    if text.startswith("arn:"):
        try:
            parsed = Arn.parse(text)
        except ValueError:
            raise _bad_name(text) from None
        if parsed.scope != ctx.scope or not parsed.resource.startswith("layer:"):
            raise resource_missing()
        name = parsed.resource.removeprefix("layer:")
    if not _NAME.fullmatch(name):
        raise _bad_name(text)
    return name


def _bad_name(text: str) -> AwsError:
    return violation(text, "layerName", "Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+")


def _answer(row: Any, *, content: bool) -> Params:
    arn = Scope(row["account"], row["region"]).arn("lambda", f"layer:{row['name']}")
    details = json.loads(row["details"])
    output: Params = {
        "LayerVersionArn": f"{arn}:{row['version']}",
        "Version": row["version"],
        "CreatedDate": timestamp(row["created"]),
        **details,
    }
    if content:
        package = repository.layer_package(row)
        output["LayerArn"] = arn
        output["Content"] = {
            "Location": "file://" + (package.archive or package.path),
            "CodeSha256": package.code_sha256,
            "CodeSize": package.size,
        }
    return output


def publish_layer_version(core: Core, ctx: Context, params: Params) -> Outcome:
    name = _name(ctx, params["LayerName"])
    details = {
        member: params[member]
        for member in ("CompatibleArchitectures", "CompatibleRuntimes", "LicenseInfo")
        if params.get(member) is not None
    }
    details["Description"] = params.get("Description") or ""
    if len(details.get("Description", "")) > 256:
        raise violation(details["Description"], "description", "Member must have length less than or equal to 256")
    if len(details.get("CompatibleRuntimes", [])) > 15:
        raise violation(
            details["CompatibleRuntimes"], "compatibleRuntimes", "Member must have length less than or equal to 15"
        )
    if len(details.get("LicenseInfo", "")) > 512:
        raise violation(details["LicenseInfo"], "licenseInfo", "Member must have length less than or equal to 512")
    _check_compatible(details.get("CompatibleRuntimes", []), details.get("CompatibleArchitectures", []))

    def finish(ctx: Context, package: Package) -> Outcome:
        version = repository.save_layer(ctx.db, ctx.scope, name, package, details, ctx.now)
        row = repository.layer_of(ctx.db, ctx.scope, name, version)
        return Reply(_answer(row, content=True), 201)

    return with_package(core, ctx, params.get("Content") or {}, finish, "PublishLayerVersion")


def _check_compatible(runtimes: list[str], architectures: list[str]) -> None:
    """Raises AwsError for values that AWS does not know."""
    found = []
    if not all(known_runtime(runtime) for runtime in runtimes):
        shown = f"[{', '.join(runtimes)}]"
        found.append(constraints.violation(
            "compatibleRuntimes", shown, f"Member must satisfy enum value set: [{OFFERED}]"
        ))  # fmt: skip
    if not all(architecture in ARCHITECTURES for architecture in architectures):
        shown, known = f"[{', '.join(architectures)}]", ", ".join(ARCHITECTURES)
        found.append(constraints.violation(
            "compatibleArchitectures", shown,
            f"Member must satisfy constraint: [Member must satisfy enum value set: [{known}], Member must not be null]",
        ))  # fmt: skip
    if found:
        raise constraints.refusal(found)


def _check_asked(params: Params) -> None:
    """The filters of the two lists."""
    runtime, architecture = params.get("CompatibleRuntime"), params.get("CompatibleArchitecture")
    if runtime and not known_runtime(runtime):
        raise violation(runtime, "compatibleRuntime", f"Member must satisfy enum value set: [{_LAYER_RUNTIMES}]")
    if architecture and architecture not in ARCHITECTURES:
        raise violation(
            architecture, "compatibleArchitecture", f"Member must satisfy enum value set: [{', '.join(ARCHITECTURES)}]"
        )


def get_layer_version(core: Core, ctx: Context, params: Params) -> Outcome:
    number, given = _number(params), params["LayerName"]
    scope, name = ctx.scope, given
    if given.startswith("arn:"):
        if re.fullmatch(_VERSION_ARN, f"{given}:1") is None:
            raise _bad_name(given)
        scope, name = Arn.parse(given).scope, given.rpartition(":")[2]
        if scope.account != ctx.scope.account and not allows(ctx, f"{given}:{number}", ctx.scope.account):
            raise denied(ctx, f"{given}:{number}")
    if scope.region != ctx.scope.region:
        raise resource_missing()
    if not _NAME.fullmatch(name):
        raise _bad_name(given)
    row = repository.layer_of(ctx.db, scope, name, number)
    if row is None:
        raise resource_missing()
    return _answer(row, content=True)


def _number(params: Params) -> int:
    if params["VersionNumber"] < 1:
        raise invalid("Layer Version Cannot be less than 1")
    return min(params["VersionNumber"], 2**62)


def get_layer_version_by_arn(core: Core, ctx: Context, params: Params) -> Outcome:
    text = params["Arn"]
    base, _, number = text.rpartition(":")
    if re.fullmatch(_VERSION_ARN, text) is None:
        raise violation(text, "arn", f"Member must satisfy regular expression pattern: {_ANY_VERSION_ARN}")
    return get_layer_version(core, ctx, {"LayerName": base, "VersionNumber": int(number)})


def _fits(row: Any, params: Params) -> bool:
    details = json.loads(row["details"])
    runtime, architecture = params.get("CompatibleRuntime"), params.get("CompatibleArchitecture")
    return (not runtime or runtime in details.get("CompatibleRuntimes", [])) and (
        not architecture or architecture in details.get("CompatibleArchitectures", [])
    )


def list_layers(core: Core, ctx: Context, params: Params) -> Outcome:
    _check_asked(params)
    after, limit = page(params)
    found = []
    for name in repository.layer_names(ctx.db, ctx.scope):
        if name <= after:
            continue
        matching = [row for row in repository.layer_versions(ctx.db, ctx.scope, name) if _fits(row, params)]
        if matching:
            found.append(matching[0])
        if len(found) > limit:
            break
    output: Params = {
        "Layers": [
            {
                "LayerName": row["name"],
                "LayerArn": ctx.scope.arn("lambda", f"layer:{row['name']}"),
                "LatestMatchingVersion": _answer(row, content=False),
            }
            for row in found[:limit]
        ]
    }
    if len(found) > limit:
        output["NextMarker"] = marker(found[limit - 1]["name"])
    return output


def list_layer_versions(core: Core, ctx: Context, params: Params) -> Outcome:
    name = _name(ctx, params["LayerName"])
    _check_asked(params)
    key, limit = page(params)
    below = int(key) if key.isdecimal() else 2**62
    found = [
        row
        for row in repository.layer_versions(ctx.db, ctx.scope, name)
        if row["version"] < below and _fits(row, params)
    ]
    output: Params = {"LayerVersions": [_answer(row, content=False) for row in found[:limit]]}
    if len(found) > limit:
        output["NextMarker"] = marker(str(found[limit - 1]["version"]))
    return output


def delete_layer_version(core: Core, ctx: Context, params: Params) -> Outcome:
    number = _number(params)
    repository.delete_layer(ctx.db, ctx.scope, _name(ctx, params["LayerName"]), number)
    return Reply({}, 204)


OPERATIONS: dict[str, Operation] = {
    "PublishLayerVersion": publish_layer_version,
    "GetLayerVersion": get_layer_version,
    "GetLayerVersionByArn": get_layer_version_by_arn,
    "ListLayers": list_layers,
    "ListLayerVersions": list_layer_versions,
    "DeleteLayerVersion": delete_layer_version,
}

"""Layers: archives that functions mount below /opt."""

import json
import re
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, marker, page, resource_missing
from preheat.services.awslambda.domain import Package, check_range, invalid, timestamp, violation
from preheat.services.awslambda.functions import with_package
from preheat.services.contract import Context, Outcome, Params, Reply

_NAME = re.compile(r"[a-zA-Z0-9-_]{1,140}")


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


def _answer(ctx: Context, row: Any, *, content: bool) -> Params:
    arn = ctx.scope.arn("lambda", f"layer:{row['name']}")
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
        for member in ("Description", "CompatibleArchitectures", "CompatibleRuntimes", "LicenseInfo")
        if params.get(member)
    }
    if len(details.get("Description", "")) > 256:
        raise violation(details["Description"], "description", "Member must have length less than or equal to 256")
    if len(details.get("CompatibleRuntimes", [])) > 15:
        raise violation(
            details["CompatibleRuntimes"], "compatibleRuntimes", "Member must have length less than or equal to 15"
        )

    def finish(ctx: Context, package: Package) -> Outcome:
        version = repository.save_layer(ctx.db, ctx.scope, name, package, details, ctx.now)
        row = repository.layer_of(ctx.db, ctx.scope, name, version)
        return Reply(_answer(ctx, row, content=True), 201)

    return with_package(core, ctx, params.get("Content") or {}, finish)


def get_layer_version(core: Core, ctx: Context, params: Params) -> Outcome:
    name = _name(ctx, params["LayerName"])
    row = repository.layer_of(ctx.db, ctx.scope, name, check_range(params["VersionNumber"], "versionNumber", 1, 2**62))
    if row is None:
        raise resource_missing()
    return _answer(ctx, row, content=True)


def get_layer_version_by_arn(core: Core, ctx: Context, params: Params) -> Outcome:
    text = params["Arn"]
    base, _, number = text.rpartition(":")
    if not number.isdecimal() or not base.startswith("arn:"):
        raise violation(text, "arn", "Member must be the ARN of a layer version")
    return get_layer_version(core, ctx, {"LayerName": base, "VersionNumber": int(number)})


def _fits(row: Any, params: Params) -> bool:
    details = json.loads(row["details"])
    runtime, architecture = params.get("CompatibleRuntime"), params.get("CompatibleArchitecture")
    return (not runtime or runtime in details.get("CompatibleRuntimes", [])) and (
        not architecture or architecture in details.get("CompatibleArchitectures", [])
    )


def list_layers(core: Core, ctx: Context, params: Params) -> Outcome:
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
                "LatestMatchingVersion": _answer(ctx, row, content=False),
            }
            for row in found[:limit]
        ]
    }
    if len(found) > limit:
        output["NextMarker"] = marker(found[limit - 1]["name"])
    return output


def list_layer_versions(core: Core, ctx: Context, params: Params) -> Outcome:
    name = _name(ctx, params["LayerName"])
    key, limit = page(params)
    below = int(key) if key.isdecimal() else 2**62
    found = [
        row
        for row in repository.layer_versions(ctx.db, ctx.scope, name)
        if row["version"] < below and _fits(row, params)
    ]
    output: Params = {"LayerVersions": [_answer(ctx, row, content=False) for row in found[:limit]]}
    if len(found) > limit:
        output["NextMarker"] = marker(str(found[limit - 1]["version"]))
    return output


def delete_layer_version(core: Core, ctx: Context, params: Params) -> Outcome:
    version = params["VersionNumber"]
    if version < 1:
        raise invalid("The layer version number must be positive.")
    repository.delete_layer(ctx.db, ctx.scope, _name(ctx, params["LayerName"]), version)
    return Reply({}, 204)


OPERATIONS: dict[str, Operation] = {
    "PublishLayerVersion": publish_layer_version,
    "GetLayerVersion": get_layer_version,
    "GetLayerVersionByArn": get_layer_version_by_arn,
    "ListLayers": list_layers,
    "ListLayerVersions": list_layer_versions,
    "DeleteLayerVersion": delete_layer_version,
}

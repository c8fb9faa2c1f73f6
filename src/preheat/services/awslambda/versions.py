"""Published versions and the aliases that point to them."""

import re
from collections.abc import Callable
from dataclasses import replace

from preheat.services.awslambda import provisioned, repository, snapshots
from preheat.services.awslambda.configuration import answer, listed
from preheat.services.awslambda.core import Core, Operation, existing, layer_sizes, load, marker, page
from preheat.services.awslambda.domain import (
    LATEST,
    Alias,
    FunctionName,
    Package,
    Version,
    check_revision,
    conflict,
    invalid,
    not_found,
    parse_name,
    refused_limit,
    violation,
)
from preheat.services.contract import Context, Outcome, Params, Reply

_ALIAS_PATTERN = r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)"
_WEIGHT = (
    "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value "
    "greater than or equal to 0.0, Member must not be null]"
)
_WEIGHED = (
    "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length "
    "greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+, Member must not be null]"
)


def publish(
    core: Core, ctx: Context, function: FunctionName, latest: Version, description: str | None, package: Package
) -> Version:
    """A new version of `latest`, or the last one when neither code nor configuration has changed since; another
    description is no change. `package` is the version's code: `latest`'s, frozen. With SnapStart the version is Pending
    until its snapshot stands."""
    settings = latest.settings if description is None else replace(latest.settings, description=description)
    newest = repository.newest(ctx.db, function)
    if newest is not None and newest.package.sha256 == package.sha256:
        described = replace(newest.settings, description=settings.description)
        if newest.settings == settings or (described == settings and latest.modified <= newest.modified):
            return newest
    number = repository.next_number(ctx.db, function)
    version = replace(
        latest, version=str(number), settings=settings, package=package, revision=ctx.entropy.uuid(), modified=ctx.now,
        policy_revision="",
    )  # fmt: skip
    repository.save_version(ctx.db, version)
    repository.save_policy_revision(ctx.db, function, LATEST, ctx.entropy.uuid())
    if snapshots.wanted(version):
        repository.save_version_state(
            ctx.db, function, version.version, "Pending", "The function is being created.", "Creating"
        )
        snapshots.take(core, ctx, version)
        return load(ctx, replace(function, qualifier=version.version))
    return version


def frozen(core: Core, ctx: Context, package: Package, then: Callable[[Context, Package], Outcome]) -> Outcome:
    """`then(ctx, package)` with the code that a version keeps: of code run in place a copy, made on another thread."""
    if not package.in_place:
        return then(ctx, package)
    return ctx.offload(lambda: core.code.freeze(package), then)


def publish_version(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True)
    package = _publishable(ctx, function, params).package

    def finish(ctx: Context, package: Package) -> Outcome:
        latest = _publishable(ctx, function, params)
        version = publish(core, ctx, function, latest, params.get("Description") or None, package)
        return Reply(answer(version, layer_sizes(ctx, version), qualified=True), 201)

    return frozen(core, ctx, package, finish)


def _publishable(ctx: Context, function: FunctionName, params: Params) -> Version:
    """$LATEST, when the request may publish it."""
    latest = load(ctx, function)
    check_revision(params.get("RevisionId"), latest.revision_id)
    wanted = params.get("CodeSha256")
    if wanted and wanted != latest.package.code_sha256:
        raise invalid(
            f"CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST ({latest.package.code_sha256}). "
            "Please try again with the CodeSHA256 in $LATEST."
        )
    if params.get("PublishTo"):
        raise invalid("Preheat does not support PublishTo.")
    return latest


def list_versions_by_function(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True)
    key, limit = page(params)
    found = repository.versions(ctx.db, function, int(key) if key.isdecimal() else -1, limit + 1)
    output: Params = {
        "Versions": [listed(answer(version, layer_sizes(ctx, version), qualified=True)) for version in found[:limit]]
    }
    if len(found) > limit:
        last = found[limit - 1].version
        output["NextMarker"] = marker("0" if last == LATEST else last)
    return output


def _alias_answer(function: FunctionName, alias: Alias) -> Params:
    output: Params = {
        "AliasArn": f"{function.arn}:{alias.name}",
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision,
    }
    if alias.weights:
        output["RoutingConfig"] = {"AdditionalVersionWeights": alias.weights}
    return output


def _check_alias(ctx: Context, function: FunctionName, alias: Alias) -> None:
    """The versions exist and the routing is one AWS takes."""
    if len(alias.description) > 256:
        raise violation(alias.description, "description", "Member must have length less than or equal to 256")
    if alias.version != LATEST and not alias.version.isdecimal():
        raise violation(
            alias.version, "functionVersion",
            r"Member must satisfy regular expression pattern: (\$LATEST|[0-9]+)",
        )  # fmt: skip
    _check_weights(alias)
    for version in (alias.version, *alias.weights):
        if repository.revision_of(ctx.db, function, version) is None:
            raise not_found(f"Function not found: {function.arn}:{version}")
    both = [repository.version_of(ctx.db, function, version) for version in (alias.version, *alias.weights)]
    for version in both:
        if version is not None:
            snapshots.check_usable(version)
    if not alias.weights:
        return
    if len({version.settings.role for version in both if version}) > 1:
        raise invalid("An alias pointing to more than 1 version needs versions with the same execution role.")
    if len({version.settings.dead_letter for version in both if version}) > 1:
        raise invalid("An alias pointing to more than 1 version needs versions with the same dead letter target.")


def _check_weights(alias: Alias) -> None:
    """The rules for AdditionalVersionWeights that need no other version. Raises AwsError in AWS's words."""
    if len(alias.weights) > 1:
        raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
    for version, weight in alias.weights.items():
        shown, member = f"{{{version}={weight}}}", "routingConfig.additionalVersionWeights"
        if not 0.0 <= weight <= 1.0:
            raise violation(shown, member, _WEIGHT)
        if version == alias.version:
            raise invalid(
                f"Invalid function version {version}. Function version {version} is already included in routing "
                "configuration."
            )
        if alias.version == LATEST:
            raise refused_limit("$LATEST is not supported for an alias pointing to more than 1 version")
        if not version.isdecimal():
            raise violation(shown, member, _WEIGHED)


def _weights(params: Params) -> dict[str, float]:
    return dict((params.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {})


def create_alias(core: Core, ctx: Context, params: Params) -> Outcome:
    name, function = params["Name"], parse_name(params["FunctionName"], ctx.scope)
    if not re.fullmatch(_ALIAS_PATTERN, name) or len(name) > 128:
        raise violation(name, "name", f"Member must satisfy regular expression pattern: {_ALIAS_PATTERN}")
    if not repository.exists(ctx.db, function):
        raise replace(function, qualifier=params["FunctionVersion"]).missing()
    function = existing(ctx, params, unqualified=True)
    if repository.alias_of(ctx.db, function, name):
        raise conflict(f"Alias already exists: {function.arn}:{name}")
    alias = Alias(name, params["FunctionVersion"], params.get("Description", ""), _weights(params), ctx.entropy.uuid())
    _check_alias(ctx, function, alias)
    repository.save_alias(ctx.db, function, alias)
    return Reply(_alias_answer(function, alias), 201)


def _existing_alias(ctx: Context, params: Params) -> tuple[FunctionName, Alias]:
    function = existing(ctx, params, unqualified=True)
    alias = repository.alias_of(ctx.db, function, params["Name"])
    if alias is None:
        raise not_found(f"Cannot find alias arn: {function.arn}:{params['Name']}")
    return function, alias


def get_alias(core: Core, ctx: Context, params: Params) -> Outcome:
    return _alias_answer(*_existing_alias(ctx, params))


def update_alias(core: Core, ctx: Context, params: Params) -> Outcome:
    """The answer has the weights that were asked for; those of an alias on its way are read by GetAlias."""
    function, alias = _existing_alias(ctx, params)
    check_revision(params.get("RevisionId"), alias.revision)
    asked = Alias(
        alias.name,
        params.get("FunctionVersion") or alias.version,
        params.get("Description", alias.description),
        _weights(params) if "RoutingConfig" in params else provisioned.own_weights(ctx, function, alias),
        ctx.entropy.uuid(),
    )
    _check_alias(ctx, function, asked)
    repository.save_alias(ctx.db, function, provisioned.moved(core, ctx, function, alias, asked))
    provisioned.apply(core, ctx, function)
    return _alias_answer(function, asked)


def delete_alias(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True)
    name = params["Name"]
    repository.delete_alias(ctx.db, function, name)
    repository.forget_qualifier(ctx.db, FunctionName(function.scope, function.name, name))
    provisioned.apply(core, ctx, function)
    return Reply({}, 204)


def list_aliases(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True)
    key, limit = page(params)
    found = repository.aliases(ctx.db, function, key, limit + 1, params.get("FunctionVersion"))
    output: Params = {"Aliases": [_alias_answer(function, alias) for alias in found[:limit]]}
    if len(found) > limit:
        output["NextMarker"] = marker(found[limit - 1].name)
    return output


OPERATIONS: dict[str, Operation] = {
    "PublishVersion": publish_version,
    "ListVersionsByFunction": list_versions_by_function,
    "CreateAlias": create_alias,
    "GetAlias": get_alias,
    "UpdateAlias": update_alias,
    "DeleteAlias": delete_alias,
    "ListAliases": list_aliases,
}

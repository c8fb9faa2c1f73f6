"""Provisioned concurrency: the operations, the rules, and what the executor is told to keep ready.

The rows say what was asked for; how far it has come is the executor's knowledge, which begins anew with every server.
An alias that is moved to another version keeps sending its traffic to the old one (a weight of 1.0, as on AWS) until
the new one is ready.
"""

import math
from dataclasses import replace

from preheat.execution.contract import Provisioned, Provisioning
from preheat.kernel.errors import AwsError
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, existing, marker, page
from preheat.services.awslambda.domain import (
    LATEST,
    MIN_UNRESERVED,
    Alias,
    FunctionName,
    ProvisionedConfig,
    check_range,
    conflict,
    invalid,
    not_found,
    parse_name,
    refused_limit,
    timestamp,
)
from preheat.services.contract import Context, Outcome, Params, Reply

_UNPUBLISHED = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
_NOT_PUBLISHED = "The function resource provided must be an alias or a published version."
NOTHING_YET = Provisioned(0, 0, 0, "IN_PROGRESS")


# -- rules ------------------------------------------------------------------------------------------------------------


def shares(alias: Alias | None, config: ProvisionedConfig) -> dict[str, int]:
    """How many environments each version gets: those of a weighted alias by weight (the additional version rounded to
    the nearest), while an alias moves all for both versions."""
    if alias is None:
        return {config.qualifier: config.count}
    if config.previous:
        return {alias.version: config.count, config.previous: config.count}
    for version, weight in alias.weights.items():
        part = math.floor(config.count * weight + 0.5)
        return {alias.version: config.count - part, version: part}
    return {alias.version: config.count}


def _named(ctx: Context, params: Params, missing: str) -> FunctionName:
    """The version or alias that a request names. Raises AwsError in AWS's words; `missing` for unpublished ones."""
    function = parse_name(params["FunctionName"], ctx.scope, params["Qualifier"])
    if function.qualifier == LATEST:
        raise invalid(missing)
    if function.qualifier and not function.qualifier.isdigit():
        if repository.alias_of(ctx.db, function, function.qualifier) is None:
            raise not_found(f"Cannot find alias arn: {function.qualified_arn}")
    elif repository.revision_of(ctx.db, function, function.qualifier or "") is None:
        raise function.missing()
    return function


def _alias(ctx: Context, function: FunctionName) -> Alias | None:
    qualifier = function.qualifier or ""
    return None if qualifier.isdigit() else repository.alias_of(ctx.db, function, qualifier)


def _check_versions(ctx: Context, function: FunctionName, alias: Alias | None) -> None:
    """Each version may be provisioned, and by one configuration only."""
    versions = [function.qualifier or ""] if alias is None else [alias.version, *alias.weights]
    for version in versions:
        found = None if version == LATEST else repository.version_of(ctx.db, function, version)
        if found is None:
            raise invalid(_UNPUBLISHED)
        if found.settings.snap_start == "PublishedVersions":
            raise invalid("Provisioned Concurrency is not supported for function versions with SnapStart enabled.")
    for other in repository.provisioned_configs(ctx.db, function):
        if other.qualifier == function.qualifier:
            continue
        theirs = _alias(ctx, replace(function, qualifier=other.qualifier))
        if set(versions) & set(shares(theirs, other)):
            if alias is None:
                raise conflict("Version is pointed by a Provisioned Concurrency alias")
            raise conflict(
                "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
            )


def _check_room(core: Core, ctx: Context, function: FunctionName, count: int) -> None:
    """What the function's reservation, or the account, has left for it."""
    others = sum(
        config.count
        for config in repository.provisioned_configs(ctx.db, function)
        if config.qualifier != function.qualifier
    )
    reserved = repository.reserved(ctx.db, function)
    if reserved is not None:
        if others + count > reserved:
            raise invalid(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                "function"
            )
        return
    taken = repository.reserved_total(ctx.db, function.scope)
    taken += repository.provisioned_total(ctx.db, function.scope, function.name) + others
    unreserved = core.account_concurrency - taken
    if count > unreserved:
        raise refused_limit(
            "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency "
            f"[{max(0, unreserved)}]."
        )
    if unreserved - count < MIN_UNRESERVED:
        raise refused_limit(
            "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
            f"minimum value of [{MIN_UNRESERVED}]."
        )


# -- what the executor is told ----------------------------------------------------------------------------------------


def apply(core: Core, ctx: Context, function: FunctionName) -> None:
    """Tell the executor, after the commit, what the versions of a function shall have."""
    wanted: list[Provisioning] = []
    for config in repository.provisioned_configs(ctx.db, function):
        alias = _alias(ctx, replace(function, qualifier=config.qualifier))
        resource = f"{function.name}:{config.qualifier}"
        for version, count in shares(alias, config).items():
            spec = core.spec_of(ctx, function, version)
            wanted.append(Provisioning(spec, count, resource, config.token))
    changed = core.provisioned_changed
    ctx.db.after_commit(lambda: core.executor.provision(function.arn, wanted, changed))


def set_provisioned(core: Core, ctx: Context, function: FunctionName, count: int) -> Params:
    """Set the provisioned concurrency of a version or an alias that exists, and answer what
    PutProvisionedConcurrencyConfig answers. Raises AwsError in AWS's words."""
    check_range(count, "provisionedConcurrentExecutions", 1, 2**31 - 1)
    alias = _alias(ctx, function)
    _check_versions(ctx, function, alias)
    _check_room(core, ctx, function, count)
    before = repository.provisioned_of(ctx.db, function)
    previous = before.previous if before else ""
    config = ProvisionedConfig(function.qualifier or "", count, ctx.entropy.uuid(), ctx.now, previous)
    repository.save_provisioned(ctx.db, function, config)
    apply(core, ctx, function)
    state = _state(core, function, alias, config)
    answer = _answer(config, replace(state, status="IN_PROGRESS", reason=""))
    if before is None:
        answer.update(AvailableProvisionedConcurrentExecutions=0, AllocatedProvisionedConcurrentExecutions=0)
    return answer


def own_weights(ctx: Context, function: FunctionName, alias: Alias) -> dict[str, float]:
    """The weights that somebody gave an alias, without the one that it has while it moves."""
    config = repository.provisioned_of(ctx.db, replace(function, qualifier=alias.name))
    return {} if config is not None and config.previous else alias.weights


def moved(core: Core, ctx: Context, function: FunctionName, before: Alias, after: Alias) -> Alias:
    """The alias as it is to be stored when it is changed: one with provisioned concurrency that goes to another version
    keeps its traffic where environments are ready. Raises AwsError when its versions cannot be provisioned."""
    named = replace(function, qualifier=before.name)
    config = repository.provisioned_of(ctx.db, named)
    if config is None:
        return after
    _check_versions(ctx, named, after)
    serving, previous = config.previous or before.version, ""
    if not after.weights and after.version != serving:
        ready = core.executor.provisioned(function.arn).get(serving, NOTHING_YET)
        previous = serving if ready.available else ""
    if previous:
        after = replace(after, weights={previous: 1.0})
    if after.version != before.version or previous != config.previous:
        config = replace(config, token=ctx.entropy.uuid(), previous=previous)
        repository.save_provisioned(ctx.db, named, config)
    return after


class ProvisionedLoop:
    """Tells the executor what is on record when the server starts, and moves aliases on when their new version is
    ready."""

    name = "lambda.provisioned"
    topics = ()

    def __init__(self, core: Core) -> None:
        self._core = core
        self._told = False

    def step(self, ctx: Context) -> float | None:
        core = self._core
        if not self._told:
            self._told = True
            for function in repository.provisioned_functions(ctx.db):
                apply(core, replace(ctx, scope=function.scope), function)
            return None
        for function, config in repository.provisioned_moving(ctx.db):
            alias = repository.alias_of(ctx.db, function, config.qualifier)
            states = core.executor.provisioned(function.arn)
            if alias is None or states.get(alias.version, NOTHING_YET).status != "READY":
                continue
            repository.save_alias(ctx.db, function, replace(alias, weights={}))
            repository.save_provisioned(ctx.db, function, replace(config, previous=""))
            core.targets.clear()
            apply(core, replace(ctx, scope=function.scope), function)
        return None


# -- operations -------------------------------------------------------------------------------------------------------


def _state(core: Core, function: FunctionName, alias: Alias | None, config: ProvisionedConfig) -> Provisioned:
    """The states of its versions as one. Of a moving alias the status is that of the new version, and what is allocated
    is what still serves it."""
    known = core.executor.provisioned(function.arn)
    wanted = {version: count for version, count in shares(alias, config).items() if count}
    if config.previous and alias is not None:
        new, serving = known.get(alias.version, NOTHING_YET), known.get(config.previous, NOTHING_YET)
        status = "IN_PROGRESS" if new.status == "READY" else new.status
        return replace(new, status=status, allocated=serving.allocated, available=serving.available)
    states = [known.get(version, NOTHING_YET) for version in wanted]
    failed = [state for state in states if state.status == "FAILED"]
    ready = all(state.status == "READY" for state in states)
    return Provisioned(
        config.count,
        sum(state.allocated for state in states),
        sum(state.available for state in states),
        "FAILED" if failed else "READY" if ready else "IN_PROGRESS",
        failed[0].reason if failed else "",
    )


def _answer(config: ProvisionedConfig, state: Provisioned) -> Params:
    answer: Params = {
        "RequestedProvisionedConcurrentExecutions": config.count,
        "AvailableProvisionedConcurrentExecutions": state.available,
        "AllocatedProvisionedConcurrentExecutions": state.allocated,
        "Status": state.status,
        "LastModified": timestamp(config.modified),
    }
    if state.reason:
        answer["StatusReason"] = state.reason
    return answer


def put_provisioned_concurrency_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _named(ctx, params, _UNPUBLISHED)
    return Reply(set_provisioned(core, ctx, function, params["ProvisionedConcurrentExecutions"]), 202)


def get_provisioned_concurrency_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _named(ctx, params, _NOT_PUBLISHED)
    config = repository.provisioned_of(ctx.db, function)
    if config is None:
        raise AwsError(
            "ProvisionedConcurrencyConfigNotFoundException",
            "No Provisioned Concurrency Config found for this function",
            404,
            fields={"Type": "User"},
        )
    return _answer(config, _state(core, function, _alias(ctx, function), config))


def delete_provisioned_concurrency_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _named(ctx, params, _NOT_PUBLISHED)
    config = repository.provisioned_of(ctx.db, function)
    if config is not None:
        alias = _alias(ctx, function)
        if config.previous and alias is not None:
            repository.save_alias(ctx.db, function, replace(alias, weights={}))
        repository.delete_provisioned(ctx.db, function)
        apply(core, ctx, function)
    return Reply({}, 204)


def list_provisioned_concurrency_configs(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True)
    key, limit = page(params)
    found = [config for config in repository.provisioned_configs(ctx.db, function) if config.qualifier > key]
    rows = []
    for config in found[:limit]:
        named = replace(function, qualifier=config.qualifier)
        answer = _answer(config, _state(core, function, _alias(ctx, named), config))
        rows.append({"FunctionArn": named.qualified_arn, **answer})
    output: Params = {"ProvisionedConcurrencyConfigs": rows}
    if len(found) > limit:
        output["NextMarker"] = marker(found[limit - 1].qualifier)
    return output


OPERATIONS: dict[str, Operation] = {
    "PutProvisionedConcurrencyConfig": put_provisioned_concurrency_config,
    "GetProvisionedConcurrencyConfig": get_provisioned_concurrency_config,
    "DeleteProvisionedConcurrencyConfig": delete_provisioned_concurrency_config,
    "ListProvisionedConcurrencyConfigs": list_provisioned_concurrency_configs,
}

"""Reserved concurrency, the account's limits, and tags."""

import re
from dataclasses import replace

from preheat.kernel.errors import AwsError
from preheat.services.awslambda import repository, signing_repository
from preheat.services.awslambda.advice import advise_function
from preheat.services.awslambda.configuration import check_tags
from preheat.services.awslambda.core import Core, Operation, existing, resource_missing
from preheat.services.awslambda.domain import (
    LATEST,
    MIN_UNRESERVED,
    FunctionName,
    check_range,
    invalid,
    parse_name,
    refused_limit,
    violation,
)
from preheat.services.contract import Context, Outcome, Params, Reply

_TAGGABLE = (
    r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:"
    r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|code-signing-config:csc-[a-z0-9]{17}|"
    r"event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|"
    r"(capacity-provider|network-connector):[a-zA-Z0-9-_]{1,64})"
)


def _function(ctx: Context, params: Params) -> FunctionName:
    function = parse_name(params["FunctionName"], ctx.scope)
    if function.qualifier:
        raise invalid(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )
    return existing(ctx, params)


def _existing_latest(ctx: Context, params: Params) -> FunctionName:
    """The same, missed under its qualified name."""
    function = parse_name(params["FunctionName"], ctx.scope)
    if not function.qualifier and not repository.exists(ctx.db, function):
        raise replace(function, qualifier=LATEST).missing()
    return _function(ctx, params)


def put_function_concurrency(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _existing_latest(ctx, params)
    limit = check_range(params["ReservedConcurrentExecutions"], "reservedConcurrentExecutions", 0, 2**31 - 1)
    provisioned = sum(config.count for config in repository.provisioned_configs(ctx.db, function))
    if limit < provisioned:
        raise refused_limit(
            f" ReservedConcurrentExecutions  {limit} should not be lower than function's total provisioned concurrency "
            f"[{provisioned}]."
        )
    others = repository.reserved_total(ctx.db, ctx.scope, function.name)
    others += repository.provisioned_total(ctx.db, ctx.scope, function.name)
    if limit and core.account_concurrency - others - limit < MIN_UNRESERVED:
        raise refused_limit(
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
            f"below its minimum value of [{MIN_UNRESERVED}]."
        )
    repository.set_reserved(ctx.db, function, limit)
    ctx.db.after_commit(lambda: core.executor.set_reserved(function.arn, limit))
    advise_function(ctx, function.arn)
    return {"ReservedConcurrentExecutions": limit}


def get_function_concurrency(core: Core, ctx: Context, params: Params) -> Outcome:
    limit = repository.reserved(ctx.db, existing(ctx, params, unqualified=True))
    return {} if limit is None else {"ReservedConcurrentExecutions": limit}


def delete_function_concurrency(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _function(ctx, params)
    repository.set_reserved(ctx.db, function, None)
    ctx.db.after_commit(lambda: core.executor.set_reserved(function.arn, None))
    advise_function(ctx, function.arn)
    return Reply({}, 204)


def get_account_settings(core: Core, ctx: Context, params: Params) -> Outcome:
    count, size = repository.usage(ctx.db, ctx.scope)
    claimed = repository.reserved_total(ctx.db, ctx.scope) + repository.provisioned_total(ctx.db, ctx.scope)
    return {
        "AccountLimit": {
            "TotalCodeSize": 80_530_636_800,
            "CodeSizeUnzipped": 262_144_000,
            "CodeSizeZipped": 52_428_800,
            "ConcurrentExecutions": core.account_concurrency,
            "UnreservedConcurrentExecutions": core.account_concurrency - claimed,
        },
        "AccountUsage": {"TotalCodeSize": size, "FunctionCount": count},
    }


def _read_tags(ctx: Context, arn: str) -> tuple[FunctionName | str, dict[str, str]]:
    """The tagged thing (a mapping by its id, a code signing configuration by its ARN) and its tags."""
    if re.fullmatch(_TAGGABLE, arn) is None:
        raise violation(arn, "resource", f"Member must satisfy regular expression pattern: {_TAGGABLE}")
    prefix = ctx.scope.arn("lambda", "event-source-mapping:")
    if arn.startswith(prefix):
        mapping = repository.mapping_of(ctx.db, arn.removeprefix(prefix))
        if mapping is None:
            raise resource_missing()
        return mapping.uuid, mapping.tags
    if arn.startswith(ctx.scope.arn("lambda", "code-signing-config:")):
        row = signing_repository.config_of(ctx.db, arn)
        if row is None:
            raise resource_missing()
        return arn, signing_repository.config_tags(row)
    function = parse_name(arn, ctx.scope)
    if function.qualifier:
        raise invalid("Tags on function aliases and versions are not supported. Please specify a function ARN.")
    if not repository.exists(ctx.db, function):
        raise function.missing()
    return function, repository.tags(ctx.db, function)


def _write_tags(ctx: Context, thing: FunctionName | str, tags: dict[str, str]) -> None:
    if isinstance(thing, FunctionName):
        repository.set_tags(ctx.db, thing, tags)
        repository.save_policy_revision(ctx.db, thing, LATEST, ctx.entropy.uuid())
    elif thing.startswith("arn:"):
        signing_repository.set_config_tags(ctx.db, thing, tags)
    else:
        repository.set_mapping_tags(ctx.db, thing, tags)


def tag_resource(core: Core, ctx: Context, params: Params) -> Outcome:
    if not params["Tags"]:
        raise invalid("An error occurred and the request cannot be processed.")
    thing, tags = _read_tags(ctx, params["Resource"])
    _write_tags(ctx, thing, check_tags({**tags, **params["Tags"]}))
    return Reply({}, 204)


def untag_resource(core: Core, ctx: Context, params: Params) -> Outcome:
    if not params.get("TagKeys"):
        raise AwsError(
            "ValidationException",
            "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be "
            "null",
        )
    thing, tags = _read_tags(ctx, params["Resource"])
    gone = set(params["TagKeys"])
    _write_tags(ctx, thing, {key: value for key, value in tags.items() if key not in gone})
    return Reply({}, 204)


def list_tags(core: Core, ctx: Context, params: Params) -> Outcome:
    return {"Tags": _read_tags(ctx, params["Resource"])[1]}


OPERATIONS: dict[str, Operation] = {
    "PutFunctionConcurrency": put_function_concurrency,
    "GetFunctionConcurrency": get_function_concurrency,
    "DeleteFunctionConcurrency": delete_function_concurrency,
    "GetAccountSettings": get_account_settings,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListTags": list_tags,
}

"""Functions: create, read, update, delete, list."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from preheat.kernel.errors import AwsError
from preheat.kernel.stream import Channel, FileSlice
from preheat.services import findings
from preheat.services.awslambda import code_signing, layer_policies, provisioned, repository, signing_repository
from preheat.services.awslambda.advice import advise_function
from preheat.services.awslambda.code import LOCAL_BUCKET, MAX_UNZIPPED, MAX_ZIPPED
from preheat.services.awslambda.configuration import answer, check_tags, listed, pending, settings_of, updating
from preheat.services.awslambda.core import (
    Core,
    Operation,
    existing,
    layer_row,
    layer_sizes,
    load,
    marker,
    page,
)
from preheat.services.awslambda.domain import (
    LATEST,
    NO_TYPE,
    FunctionName,
    Package,
    Settings,
    Version,
    check_revision,
    conflict,
    invalid,
    is_alias,
    parse_name,
    violation,
)
from preheat.services.awslambda.event_invoke import check_role, denied_target, target_exists
from preheat.services.awslambda.versions import frozen, publish
from preheat.services.contract import Context, Deferred, Outcome, Params, Reply
from preheat.services.findings import Finding

MAX_REQUEST = 70_167_211
RUNTIME_FINDING = "function-runtime"

_CONFIGURATION_MEMBERS = (
    "Role", "Handler", "Description", "Timeout", "MemorySize", "VpcConfig", "Environment", "Runtime",
    "DeadLetterConfig", "KMSKeyArn", "TracingConfig", "Layers", "FileSystemConfigs", "ImageConfig",
    "EphemeralStorage", "SnapStart", "LoggingConfig", "CapacityProviderConfig", "DurableConfig", "RuntimeConfig",
    "AcceleratorConfig",
)  # fmt: skip

Then = Callable[[Context, Package], Outcome]


def with_package(core: Core, ctx: Context, source: Params, then: Then, operation: str = "CreateFunction") -> Outcome:
    """Get the archive that `source` (FunctionCode, LayerVersionContentInput) names, unpack it on another thread, then
    continue with the package. `operation` is the one to name in errors."""
    if source.get("ImageUri"):
        raise invalid("Preheat runs functions with PackageType Zip; container images are not supported.")
    if source.get("SourceKMSKeyArn"):
        raise invalid("Preheat does not support SourceKMSKeyArn.")
    if ctx.request is not None and len(ctx.request.body) > MAX_REQUEST:
        raise AwsError(
            "RequestEntityTooLargeException",
            f"Request must be smaller than {MAX_REQUEST} bytes for the {operation} operation",
            413,
            fields=NO_TYPE,
        )
    archive: Any = source.get("ZipFile")
    bucket, key = source.get("S3Bucket"), source.get("S3Key")
    if archive is not None and bucket:
        raise invalid("Please do not provide other FunctionCode parameters when providing a ZipFile.")
    if archive is not None:
        if len(archive) > MAX_ZIPPED:
            text = f"Zipped size must be smaller than {MAX_ZIPPED} bytes"
            raise AwsError("RequestEntityTooLargeException", text, 413, fields=NO_TYPE)
    elif bucket == LOCAL_BUCKET:
        return then(ctx, core.code.in_place(key or ""))
    elif bucket and key:
        archive = _object(ctx, bucket, key, source.get("S3ObjectVersion"))
    else:
        raise invalid("Please provide a source for function code.")

    def start(resolve: Callable[[Any], None]) -> None:
        _gather(archive, lambda data: ctx.machine.background.run(lambda: core.code.store(data), resolve), resolve)

    return Deferred(start, then)


def _object(ctx: Context, bucket: str, key: str, version: str | None) -> bytes | FileSlice | Channel:
    wanted = {"Bucket": bucket, "Key": key}
    if version:
        wanted["VersionId"] = version
    try:
        return ctx.call("s3", "GetObject", wanted)["Body"]
    except AwsError as error:
        raise invalid(
            f"Error occurred while GetObject. S3 Error Code: {error.code}. S3 Error Message: {error.message}"
        ) from error


def _gather(
    archive: bytes | FileSlice | Channel, proceed: Callable[[bytes | FileSlice], None], resolve: Callable[[Any], None]
) -> None:
    """`proceed` with the archive once it is all there."""
    if not isinstance(archive, Channel):
        if isinstance(archive, FileSlice) and archive.length > MAX_UNZIPPED:
            resolve(_too_large())
        else:
            proceed(archive)
        return
    chunks: list[bytes] = []
    held = 0

    def keep(chunk: bytes) -> None:
        nonlocal held
        held += len(chunk)
        if held <= MAX_UNZIPPED:
            chunks.append(chunk)

    def end(error: BaseException | None) -> None:
        if error is not None or held > MAX_UNZIPPED:
            resolve(error or _too_large())
        else:
            proceed(b"".join(chunks))

    archive.attach(keep, end)


def _too_large() -> AwsError:
    return invalid(f"Unzipped size must be smaller than {MAX_UNZIPPED} bytes")


def create_function(core: Core, ctx: Context, params: Params) -> Outcome:
    function = parse_name(params["FunctionName"], ctx.scope)
    if function.scope.account != ctx.scope.account:
        raise AwsError(
            "AccessDeniedException",
            f"User: {ctx.principal.arn} is not authorized to perform: lambda:CreateFunction on resource: "
            f"{function.arn}",
            403,
        )
    if function.qualifier:
        raise invalid("The function name must not carry a qualifier.")
    settings = settings_of(params)
    _check_layers(ctx, function, settings)
    _check_dead_letter(ctx, function, settings)
    _check_assumable(ctx, settings.role)
    signing = params.get("CodeSigningConfigArn")
    if signing:
        code_signing.check_exists(ctx, signing)
    tags = check_tags(params.get("Tags") or {})
    if repository.exists(ctx.db, function):
        raise conflict(f"Function already exist: {function.name}")
    wants_version = bool(params.get("Publish"))

    def got(ctx: Context, package: Package) -> Outcome:
        if not wants_version:
            return finish(ctx, package, package)
        return frozen(core, ctx, package, lambda ctx, kept: finish(ctx, package, kept))

    def finish(ctx: Context, package: Package, kept: Package) -> Outcome:
        if repository.exists(ctx.db, function):
            raise conflict(f"Function already exist: {function.name}")
        _check_size(ctx, package, settings)
        code_signing.check_deployment(ctx, function, signing)
        repository.create(ctx.db, function, tags)
        if signing:
            signing_repository.attach(ctx.db, function, signing)
        version = Version(function.scope, function.name, LATEST, settings, package, ctx.entropy.uuid(), ctx.now)
        repository.save_version(ctx.db, version)
        _tell_of_runtime(core, ctx, version)
        if wants_version:
            version = publish(core, ctx, function, version, None, kept)
        return Reply({**pending(answer(version, layer_sizes(ctx, version))), "RevisionId": ctx.entropy.uuid()}, 201)

    return with_package(core, ctx, params.get("Code") or {}, got)


def _check_layers(ctx: Context, function: FunctionName, settings: Settings) -> None:
    for arn in settings.layers:
        layer_policies.check_use(ctx, arn, function.scope)
        layer_row(ctx, arn, deleted=False)


def _check_dead_letter(ctx: Context, function: FunctionName, settings: Settings) -> None:
    """The queue or topic is there and the execution role may send to it. AWS has one answer to both."""
    target = settings.dead_letter
    if not target:
        return
    who, where = "The provided execution role", target.split(":", 3)[2].upper()
    check_role(ctx, settings.role, target, who, where)
    if not target_exists(ctx, target):
        raise denied_target(who, target, where)


def _check_size(ctx: Context, package: Package, settings: Settings) -> None:
    """Code and layers together, unpacked. A directory run in place counts nothing."""
    layers = [repository.layer_package(layer_row(ctx, arn)).unzipped for arn in settings.layers]
    size = package.unzipped + sum(layers)
    if layers and size > MAX_UNZIPPED:
        raise invalid(
            f"Function code combined with layers exceeds the maximum allowed size of {MAX_UNZIPPED} bytes. The actual "
            f"size is {size} bytes."
        )


def _check_assumable(ctx: Context, role: str) -> None:
    """When policies are enforced: the role exists and Lambda may assume it."""
    if ctx.machine.authorizer is None or not role:
        return
    try:
        found = ctx.call("iam", "GetRole", {"RoleName": role.rpartition("/")[2]})["Role"]
    except AwsError:
        found = {}
    if "lambda.amazonaws.com" not in unquote(str(found.get("AssumeRolePolicyDocument", ""))):
        raise invalid("The role defined for the function cannot be assumed by Lambda.")


def get_function_configuration(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    version = load(ctx, function)
    output = answer(version, layer_sizes(ctx, version))
    output["FunctionArn"] = function.qualified_arn
    return output


def get_function(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    version = load(ctx, function)
    configuration = answer(version, layer_sizes(ctx, version))
    configuration["FunctionArn"] = function.qualified_arn
    package = version.package
    location = Path(package.archive or package.path).as_uri()
    output: Params = {"Configuration": configuration, "Code": {"RepositoryType": "S3", "Location": location}}
    tags = repository.tags(ctx.db, function)
    if tags:
        output["Tags"] = tags
    reserved = repository.reserved(ctx.db, function)
    if reserved is not None:
        output["Concurrency"] = {"ReservedConcurrentExecutions": reserved}
    return output


def list_functions(core: Core, ctx: Context, params: Params) -> Outcome:
    wanted = params.get("FunctionVersion")
    if wanted not in (None, "ALL"):
        raise violation(wanted, "functionVersion", "Member must satisfy enum value set: [ALL]")
    if params.get("MasterRegion"):
        raise invalid("Preheat does not support MasterRegion.")
    key, limit = page(params)
    name, _, number = key.partition(":")
    after = (name, int(number) if number.isdecimal() else 0) if key else ("", 0)
    found = repository.functions(ctx.db, ctx.scope, after, limit + 1, wanted == "ALL")
    shown = found[:limit]
    output: Params = {
        "Functions": [
            listed(answer(version, layer_sizes(ctx, version), qualified=wanted == "ALL")) for version in shown
        ]
    }
    if len(found) > limit:
        last = shown[-1]
        output["NextMarker"] = marker(f"{last.name}:{0 if last.version == LATEST else last.version}")
    return output


def update_function_code(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _unpublished(ctx, params)
    latest = load(ctx, function)
    check_revision(params.get("RevisionId"), latest.revision_id)
    if params.get("ImageUri"):
        raise invalid("Please don't provide ImageUri when updating a function with packageType Zip.")
    members = {"Architectures": params.get("Architectures"), "PublishTo": params.get("PublishTo")}
    settings_of(members, latest.settings)
    dry_run = bool(params.get("DryRun"))
    wants_version = bool(params.get("Publish")) and not dry_run

    def got(ctx: Context, package: Package) -> Outcome:
        if not wants_version:
            return finish(ctx, package, package)
        return frozen(core, ctx, package, lambda ctx, kept: finish(ctx, package, kept))

    def finish(ctx: Context, package: Package, kept: Package) -> Outcome:
        if not repository.exists(ctx.db, function):
            raise function.missing()
        before = load(ctx, function)
        settings = settings_of(members, before.settings)
        _check_size(ctx, package, settings)
        code_signing.check_deployment(ctx, function)
        revision = before.revision if dry_run else ctx.entropy.uuid()
        version = replace(
            before, settings=settings, package=package, revision=revision, modified=ctx.now,
            policy_revision=before.policy_revision if dry_run else "",
        )  # fmt: skip
        if not dry_run:
            _replace_latest(core, ctx, version)
        if wants_version:
            version = publish(core, ctx, function, version, None, kept)
            return pending(answer(version, layer_sizes(ctx, version), qualified=True))
        revision = version.revision_id if dry_run else ctx.entropy.uuid()
        return updating(answer(version, layer_sizes(ctx, version)), revision)

    return with_package(core, ctx, params, got, "UpdateFunctionCode")


def _unpublished(ctx: Context, params: Params) -> FunctionName:
    """The function to change. Raises AwsError for a version or an alias of it."""
    named = parse_name(params["FunctionName"], ctx.scope)
    if named.qualifier not in (None, LATEST):
        raise invalid(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )
    return existing(ctx, params, unqualified=True)


def update_function_configuration(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _unpublished(ctx, params)
    latest = load(ctx, function)
    check_revision(params.get("RevisionId"), latest.revision_id)
    asked = {member: params[member] for member in _CONFIGURATION_MEMBERS if member in params}
    settings = settings_of(asked, latest.settings)
    if "Layers" in asked:
        _check_layers(ctx, function, settings)
        _check_size(ctx, latest.package, settings)
    if "DeadLetterConfig" in asked:
        _check_dead_letter(ctx, function, settings)
    if "Role" in asked:
        _check_assumable(ctx, settings.role)
    revision = ctx.entropy.uuid()
    version = replace(latest, settings=settings, revision=revision, modified=ctx.now, policy_revision="")
    _replace_latest(core, ctx, version)
    advise_function(ctx, function.arn)
    return updating(answer(version, layer_sizes(ctx, version)), ctx.entropy.uuid())


def _tell_of_runtime(core: Core, ctx: Context, version: Version) -> None:
    """A finding (and a notice, by the executor) when the runtime is not what it is on AWS."""
    text = core.executor.remark(version.settings.runtime)
    found = [] if text is None else [Finding(RUNTIME_FINDING, version.arn, "medium", "Runtime differs", text)]
    findings.settle(ctx.db, ctx.now, version.arn, (RUNTIME_FINDING,), found)


def _replace_latest(core: Core, ctx: Context, version: Version) -> None:
    repository.save_version(ctx.db, version)
    _tell_of_runtime(core, ctx, version)
    ctx.db.after_commit(lambda: core.executor.retire(version.arn))


def delete_function(core: Core, ctx: Context, params: Params) -> Outcome:
    function = parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier"))
    if function.qualifier == LATEST:
        raise invalid("$LATEST version cannot be deleted without deleting the function.")
    if function.qualifier and is_alias(function.qualifier):
        raise invalid("Deletion of aliases is not currently supported.")
    if not repository.exists(ctx.db, function):
        raise FunctionName(function.scope, function.name).missing()
    if function.qualifier:
        _delete_version(ctx, function)
    else:
        repository.delete(ctx.db, function)
        findings.settle(ctx.db, ctx.now, function.arn, (RUNTIME_FINDING,), [])
        ctx.db.after_commit(lambda: core.executor.set_reserved(function.arn, None))
        advise_function(ctx, function.arn)
    ctx.db.after_commit(lambda: core.executor.retire(function.arn))
    ctx.db.after_commit(lambda: core.executor.forget(function.arn, function.qualifier))
    provisioned.apply(core, ctx, function)
    return Reply({"StatusCode": 204}, 204)


def _delete_version(ctx: Context, function: FunctionName) -> None:
    qualifier = function.qualifier or ""
    users = [
        alias.name
        for alias in repository.aliases(ctx.db, function, "", 10_000)
        if alias.version == qualifier or qualifier in alias.weights
    ]
    if users:
        raise conflict(f"Unable to delete version because the following aliases reference it: [{', '.join(users)}]")
    repository.delete_version(ctx.db, function, qualifier)
    repository.forget_qualifier(ctx.db, function)


OPERATIONS: dict[str, Operation] = {
    "CreateFunction": create_function,
    "GetFunction": get_function,
    "GetFunctionConfiguration": get_function_configuration,
    "ListFunctions": list_functions,
    "UpdateFunctionCode": update_function_code,
    "UpdateFunctionConfiguration": update_function_configuration,
    "DeleteFunction": delete_function,
}

"""SnapStart: the state of a published version while its snapshot is taken, and after."""

from preheat.execution.contract import FunctionSpec, Prepared, RestoreError
from preheat.kernel.errors import AwsError
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core
from preheat.services.awslambda.domain import FunctionName, Version
from preheat.services.contract import Context, Outcome
from preheat.services.machine import Machine

NOT_READY = "Lambda is initializing your function. It will be ready to invoke once your function state becomes ACTIVE."
RESTORE_ERRORS: dict[RestoreError, tuple[int, str]] = {
    "SnapStartException": (
        400,
        "The afterRestore() runtime hook encountered an error. For more information, check the Amazon CloudWatch logs.",
    ),
    "SnapStartTimeoutException": (408, "Lambda couldn't restore the snapshot within the timeout limit."),
}


def wanted(version: Version) -> bool:
    return version.settings.snap_start == "PublishedVersions"


def take(core: Core, ctx: Context, version: Version) -> None:
    """After the commit: initialise a version that is on record as Pending."""
    spec = core.spec_of(ctx, FunctionName(version.scope, version.name), version.version)
    machine = ctx.machine

    def settled(prepared: Prepared) -> None:
        machine.perform(lambda ctx: _settle(core, ctx, version, prepared), lambda reply: None, version.scope)

    def start() -> None:
        core.unready[spec.revision] = "Pending"
        core.executor.prepare(spec, settled)

    ctx.db.after_commit(start)


def _settle(core: Core, ctx: Context, version: Version, prepared: Prepared) -> Outcome:
    """Active, or Failed with the reason; a version that was deleted meanwhile is nobody's business."""
    function = FunctionName(version.scope, version.name)
    if repository.revision_of(ctx.db, function, version.version) != version.revision:
        ctx.db.after_commit(lambda: core.unready.pop(version.revision, None))
        return {}
    if prepared.error_type is None:
        repository.delete_version_state(ctx.db, function, version.version)
        ctx.db.after_commit(lambda: core.unready.pop(version.revision, None))
        return {}
    code = "FunctionError.InitTimeout" if prepared.timed_out else "FunctionError"
    text = "Initialization timed out." if prepared.timed_out else f"{prepared.error_type}: {prepared.message}"
    repository.save_version_state(ctx.db, function, version.version, "Failed", f"SnapStart: {text}"[:1024], code)
    ctx.db.after_commit(lambda: core.unready.update({version.revision: "Failed"}))
    return {}


def resume(core: Core, machine: Machine) -> None:
    """At the start of a server: versions whose snapshot was being taken begin again."""

    def again(ctx: Context) -> Outcome:
        for version in repository.unready_versions(ctx.db):
            if version.state == "Pending":
                take(core, ctx, version)
        return {}

    found = repository.unready_versions(machine.db)
    core.unready.update({version.revision: version.state for version in found})
    if found:
        machine.perform(again, lambda reply: None)


def check_ready(core: Core, spec: FunctionSpec) -> None:
    """Raises AwsError for a version that cannot be invoked now."""
    state = core.unready.get(spec.revision)
    if state == "Pending":
        raise AwsError("SnapStartNotReadyException", NOT_READY, 409, fields={"Type": "User"})
    if state is not None:
        raise failed(f"{spec.arn}:{spec.version}")


def check_usable(version: Version) -> None:
    """Raises AwsError when an alias is to point to a version that failed."""
    if version.state == "Failed":
        raise failed(f"{version.arn}:{version.version}", version.state_code)


def failed(arn: str, code: str = "FunctionError") -> AwsError:
    return AwsError(
        "ResourceConflictException",
        f"The operation cannot be performed at this time. The resource {arn} is currently in the following state: "
        f"'Failed'. StateReasonCode: '{code}'",
        409,
        fields={"Type": "User"},
    )


def restore_failure(error: RestoreError) -> AwsError:
    """What Invoke answers when the environment could not be restored."""
    status, message = RESTORE_ERRORS[error]
    return AwsError(error, message, status, fields={"Type": "User"})

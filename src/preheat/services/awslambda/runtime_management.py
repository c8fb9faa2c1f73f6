"""Which version of its runtime a function version runs on. There is one here: this machine's; Manual may name it."""

from preheat.execution.reports import runtime_arn
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, existing, load
from preheat.services.awslambda.domain import LATEST, invalid, violation
from preheat.services.contract import Context, Outcome, Params

MODES = ("Auto", "Manual", "FunctionUpdate")


def put_runtime_management_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    version = load(ctx, function)
    mode, arn = params["UpdateRuntimeOn"], params.get("RuntimeVersionArn") or ""
    if mode not in MODES:
        raise violation(
            mode, "updateRuntimeOn", "Member must satisfy enum value set: [Auto, Manual, FunctionUpdate]"
        )
    if (mode == "Manual") != bool(arn):
        raise invalid("RuntimeVersionArn must be given when UpdateRuntimeOn is Manual, and only then.")
    present = runtime_arn(version.settings.runtime, version.scope.region)
    if arn and arn != present:
        raise invalid(f"The runtime version {arn} is not available. This machine has {present}.")
    repository.set_runtime_management(ctx.db, function, version.version, mode, arn)
    return get_runtime_management_config(core, ctx, params)


def get_runtime_management_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    version = load(ctx, function)
    mode, arn = repository.runtime_management(ctx.db, function, version.version)
    output: Params = {"UpdateRuntimeOn": mode, "FunctionArn": f"{function.arn}:{function.qualifier or LATEST}"}
    if arn:
        output["RuntimeVersionArn"] = arn
    return output


OPERATIONS: dict[str, Operation] = {
    "PutRuntimeManagementConfig": put_runtime_management_config,
    "GetRuntimeManagementConfig": get_runtime_management_config,
}

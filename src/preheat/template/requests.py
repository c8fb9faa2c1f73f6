"""What the operations on stacks and on change sets share: checks of their parameters, and the parts they work with."""

import re
from dataclasses import asdict
from typing import Any

from preheat.services.contract import Context, Outcome, Params, Principal
from preheat.template.engine import Engine
from preheat.template.plan import Types
from preheat.template.prepare import Preparation, Target
from preheat.template.read import invalid
from preheat.template.repository import Stack

STACK_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}\Z")
UPDATABLE = frozenset(
    (
        "CREATE_COMPLETE", "CREATE_FAILED", "UPDATE_COMPLETE", "UPDATE_FAILED", "UPDATE_ROLLBACK_COMPLETE",
    )
)  # fmt: skip
REFUSED = {
    "StackPolicyBody": "stack policies",
    "StackPolicyURL": "stack policies",
    "StackPolicyDuringUpdateBody": "stack policies",
    "StackPolicyDuringUpdateURL": "stack policies",
    "NotificationARNs": "notifications of stack events",
    "ResourcesToImport": "import of resources",
    "ImportExistingResources": "import of resources",
    "DeploymentMode": "drift",
    "DisableValidation": "pre-deployment validation",
}


class Workshop:
    """The resource types and the engine, and stacks on their way in."""

    def __init__(self, types: Types, engine: Engine) -> None:
        self.types = types
        self.engine = engine

    def new_stack(self, ctx: Context, name: str) -> Stack:
        stack_id = ctx.scope.arn("cloudformation", f"stack/{name}/{ctx.entropy.uuid()}")
        return Stack(
            stack_id, name, ctx.scope, "", "", None, ctx.now, None, None, None, None, {}, [], {}, False, None, None
        )

    def prepare(self, ctx: Context, params: Params, stack: Stack, then: Any) -> Outcome:
        target = Target(stack.scope, stack.id, stack.name, stack.spec)
        return Preparation(self.types, params, target, then).start(ctx)

    def check_updatable(self, stack: Stack) -> None:
        if stack.deleted_at is not None:
            raise invalid(f"Stack [{stack.name}] does not exist")
        if stack.phase is not None or stack.status not in UPDATABLE:
            raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")


def check_name(name: str) -> None:
    if len(name) > 128:
        raise invalid(
            f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: "
            "Member must have length less than or equal to 128"
        )
    if not STACK_NAME.match(name):
        raise invalid(
            f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*|arn:[-a-zA-Z0-9:/._+]*"
        )


def check_params(params: Params) -> None:
    """Refuse what would have no effect."""
    for name, what in REFUSED.items():
        if params.get(name):
            raise invalid(f"{name}: Preheat does not carry out {what}")
    rollback = params.get("RollbackConfiguration") or {}
    for trigger in rollback.get("RollbackTriggers") or ():
        if trigger["Type"] not in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
            raise invalid("Rollback Trigger Type not supported")
        if not trigger["Arn"].split(":", 5)[-1].startswith("alarm:"):
            raise invalid("RelativeId of a Rollback Trigger's ARN is incorrect")
    if rollback.get("RollbackTriggers") or rollback.get("MonitoringTimeInMinutes"):
        raise invalid("RollbackConfiguration: Preheat does not watch alarms during a deployment")
    if (params.get("DeploymentConfig") or {}).get("Mode", "STANDARD") != "STANDARD":
        raise invalid("DeploymentConfig: Preheat has the mode STANDARD only")


def disable_rollback(params: Params) -> bool:
    return bool(params.get("DisableRollback") or (params.get("DeploymentConfig") or {}).get("DisableRollback"))


def principal_of(ctx: Context, params: Params) -> dict[str, str]:
    """Who the stack's calls are made as: the given role, else the caller."""
    role = params.get("RoleARN")
    if role:
        return asdict(Principal(arn=role, account=ctx.scope.account, kind="role"))
    return asdict(ctx.principal)

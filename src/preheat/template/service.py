"""The CloudFormation API: stacks and change sets over the stack engine."""

from pathlib import Path

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Loop, Operation, Outcome, Params, Platform
from preheat.template import describe, preview, repository
from preheat.template.change_sets import ChangeSets
from preheat.template.engine import Engine
from preheat.template.fidelity import Row, rows_of
from preheat.template.plan import Spec
from preheat.template.prepare import check_capabilities
from preheat.template.read import invalid
from preheat.template.repository import Stack
from preheat.template.requests import Workshop, check_name, check_params, disable_rollback, principal_of
from preheat.template.resources.custom import check_response
from preheat.template.resources.table import ResourceTypes
from preheat.template.runner import TOPIC


class CloudFormationService:
    """`loops` are for the composition root to add; `complete_custom_resource` is for the gateway to call."""

    name = "cloudformation"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self, platform: Platform) -> None:
        self.types = ResourceTypes()
        self.engine = Engine(self.types, platform.settings.endpoint)
        self.loops: list[Loop] = [self.engine]
        self._workshop = Workshop(self.types, self.engine)
        change_sets = ChangeSets(self._workshop)
        self.operations: dict[str, Operation] = {
            **describe.OPERATIONS,
            **change_sets.operations(),
            "CancelUpdateStack": self.cancel_update_stack,
            "ContinueUpdateRollback": self.continue_update_rollback,
            "CreateStack": self.create_stack,
            "DeleteStack": self.delete_stack,
            "GetStackPolicy": self.get_stack_policy,
            "RollbackStack": self.rollback_stack,
            "SetStackPolicy": self.set_stack_policy,
            "UpdateStack": self.update_stack,
            "UpdateTerminationProtection": self.update_termination_protection,
        }

    # -- create, update, delete -----------------------------------------------------------------------------------

    def create_stack(self, ctx: Context, params: Params) -> Outcome:
        name = params["StackName"]
        check_params(params)
        check_name(name)
        again = self._repeated(ctx, params)
        if again is not None:
            return again
        self._absent(ctx, name)
        if "OnFailure" in params and "DisableRollback" in params:
            raise invalid("OnFailure and DisableRollback cannot both be specified")
        stack = self._reviewed(ctx, name) or self._workshop.new_stack(ctx, name)

        def then(context: Context, spec: Spec) -> Outcome:
            self._absent(context, name)
            check_capabilities(spec, True)
            if stack.status == "":
                stack.created_at = context.now
            elif self._reviewed(context, name) is None:
                raise invalid(f"Stack [{name}] does not exist")
            else:
                repository.obsolete_all(context.db, stack.id)
            stack.spec = spec
            stack.principal = principal_of(context, params)
            stack.termination_protection = bool(params.get("EnableTerminationProtection"))
            disabled = disable_rollback(params)
            stack.options = {
                "token": params.get("ClientRequestToken", ""),
                "disable_rollback": disabled,
                "on_failure": params.get("OnFailure") or ("DO_NOTHING" if disabled else "ROLLBACK"),
                "timeout_minutes": params.get("TimeoutInMinutes"),
                "retain_except_on_create": bool(params.get("RetainExceptOnCreate")),
            }
            self.engine.start_create(context, stack)
            return {"StackId": stack.id}

        return self._workshop.prepare(ctx, params, stack, then)

    def update_stack(self, ctx: Context, params: Params) -> Outcome:
        check_params(params)
        stack = describe.existing(ctx, params["StackName"], "Stack [{}] does not exist")
        self._workshop.check_updatable(stack)
        stack_id = stack.id

        def then(context: Context, spec: Spec) -> Outcome:
            current = repository.stack(context.db, stack_id)
            if current is None:
                raise invalid(f"Stack [{params['StackName']}] does not exist")
            self._workshop.check_updatable(current)
            check_capabilities(spec, True)
            found = preview.changes(context, current, spec, self.types)
            if not preview.has_work(context, current, spec, self.types, found):
                raise invalid("No updates are to be performed.")
            current.principal = principal_of(context, params)
            current.change_set_id = None
            current.options = {
                "token": params.get("ClientRequestToken", ""),
                "disable_rollback": disable_rollback(params),
                "retain_except_on_create": bool(params.get("RetainExceptOnCreate")),
            }
            repository.obsolete_all(context.db, stack_id)
            self.engine.start_update(context, current, spec)
            return {"StackId": stack_id}

        return self._workshop.prepare(ctx, params, stack, then)

    def delete_stack(self, ctx: Context, params: Params) -> Outcome:
        check_params(params)
        stack = repository.find_stack(ctx.db, ctx.scope, params["StackName"])
        if stack is None or stack.deleted_at is not None or stack.phase == "delete":
            return {}
        if stack.termination_protection:
            raise invalid(f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
        for export in repository.exports_of(ctx.db, stack.id):
            users = repository.importers(ctx.db, ctx.scope, export)
            if users:
                raise invalid(
                    f"Delete canceled. Cannot delete export {export} as it is in use by {' and '.join(users)}."
                )
        retain = params.get("RetainResources") or []
        rows = repository.resources(ctx.db, stack.id)
        if retain and stack.status != "DELETE_FAILED":
            raise invalid(
                f"Invalid operation on stack [{stack.id}]. Specify the resources to retain only when the stack is in "
                "the DELETE_FAILED state."
            )
        unknown = [name for name in retain if name not in rows]
        if unknown:
            raise invalid(f"The following resources do not exist in the stack: [{', '.join(unknown)}]")
        if params.get("DeletionMode") == "FORCE_DELETE_STACK" and stack.status != "DELETE_FAILED":
            raise invalid(f"Invalid operation on stack [{stack.id}]. FORCE_DELETE_STACK needs the DELETE_FAILED state.")
        stack.options["token"] = params.get("ClientRequestToken", "")
        if "RoleARN" in params:
            stack.principal = principal_of(ctx, params)
        if stack.phase == "create":
            stack.options["delete_wanted"] = True
            repository.save_stack(ctx.db, stack)
            ctx.db.notify(TOPIC)
            return {}
        if stack.phase is not None:
            raise invalid(f"Stack [{stack.id}] cannot be deleted while in status {stack.status}")
        self.engine.start_delete(ctx, stack, retain, params.get("DeletionMode") == "FORCE_DELETE_STACK")
        return {}

    # -- rollback -------------------------------------------------------------------------------------------------

    def cancel_update_stack(self, ctx: Context, params: Params) -> Outcome:
        stack = describe.existing(ctx, params["StackName"], "Stack [{}] does not exist")
        if stack.status != "UPDATE_IN_PROGRESS":
            raise invalid("CancelUpdateStack cannot be called from current stack status")
        self.engine.cancel_update(ctx, stack)
        return {}

    def continue_update_rollback(self, ctx: Context, params: Params) -> Outcome:
        stack = describe.existing(ctx, params["StackName"], "Stack [{}] does not exist")
        if params.get("ForceRollback"):
            raise invalid("Preheat does not carry out ForceRollback; name the resources in ResourcesToSkip")
        if stack.status != "UPDATE_ROLLBACK_FAILED":
            raise invalid(
                f"Stack:{stack.id} is in {stack.status} state and can not continue rollback. "
                "It must be in UPDATE_ROLLBACK_FAILED state."
            )
        skip = params.get("ResourcesToSkip") or []
        rows = repository.resources(ctx.db, stack.id)
        unknown = [name for name in skip if name not in rows]
        if unknown:
            raise invalid(f"The following resources do not exist in the stack: [{', '.join(unknown)}]")
        self.engine.continue_rollback(ctx, stack, skip)
        return {}

    def rollback_stack(self, ctx: Context, params: Params) -> Outcome:
        check_params(params)
        stack = describe.existing(ctx, params["StackName"], "Stack [{}] does not exist")
        if stack.status == "UPDATE_FAILED":
            self.engine.continue_rollback(ctx, stack, [])
        elif stack.status == "CREATE_FAILED":
            self.engine.rollback_create(ctx, stack)
        else:
            raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not be rolled back.")
        return {"StackId": stack.id}

    # -- settings -------------------------------------------------------------------------------------------------

    def update_termination_protection(self, ctx: Context, params: Params) -> Outcome:
        stack = describe.existing(ctx, params["StackName"], "Stack [{}] does not exist")
        if stack.deleted_at is not None:
            raise invalid(f"Stack [{stack.name}] does not exist")
        stack.termination_protection = params["EnableTerminationProtection"]
        repository.save_stack(ctx.db, stack)
        return {"StackId": stack.id}

    def set_stack_policy(self, ctx: Context, params: Params) -> Outcome:
        raise invalid("Preheat does not carry out stack policies")

    def get_stack_policy(self, ctx: Context, params: Params) -> Outcome:
        describe.existing(ctx, params["StackName"], "Stack [{}] does not exist")
        return {}

    # -- for the platform -----------------------------------------------------------------------------------------

    def complete_custom_resource(self, ctx: Context, token: str, body: bytes) -> Outcome:
        """A provider's response (`PUT /_preheat/cfn-response/<token>`). Raises AwsError 400 for a malformed one and
        403 for a token that nobody waits for."""
        try:
            text = check_response(body)
        except ValueError as error:
            raise AwsError("InvalidRequest", f"Invalid response: {error}", 400) from None
        if not repository.record_response(ctx.db, token, text):
            raise AwsError("AccessDenied", "Request has expired", 403)
        ctx.db.notify(TOPIC)
        return {}

    def fidelity(self, ctx: Context, stack_name: str, change_set: str | None = None) -> list[Row]:
        """What the properties of a stack's template, or of a change set's, do here."""
        stack = describe.existing(ctx, stack_name)
        remark = ctx.machine.services["lambda"].remark
        if change_set:
            row = repository.change_set(ctx.db, stack.id, change_set)
            return [] if row is None else rows_of(repository.change_set_spec(row), self.types, remark)
        return [] if stack.spec is None else rows_of(stack.spec, self.types, remark)

    def _repeated(self, ctx: Context, params: Params) -> Params | None:
        """The answer to a CreateStack that was sent before with the same ClientRequestToken."""
        stack, token = repository.find_stack(ctx.db, ctx.scope, params["StackName"]), params.get("ClientRequestToken")
        if stack is None or not token or stack.options.get("token") != token or not stack.status.startswith("CREATE_"):
            return None
        return {"StackId": stack.id}

    def _absent(self, ctx: Context, name: str) -> None:
        stack = repository.find_stack(ctx.db, ctx.scope, name)
        if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
            raise AwsError("AlreadyExistsException", f"Stack [{name}] already exists", 400)

    def _reviewed(self, ctx: Context, name: str) -> Stack | None:
        """The stack that a change set has begun and nobody has created yet."""
        stack = repository.find_stack(ctx.db, ctx.scope, name)
        return stack if stack is not None and stack.status == "REVIEW_IN_PROGRESS" else None


def build(platform: Platform) -> CloudFormationService:
    return CloudFormationService(platform)

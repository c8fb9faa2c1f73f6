"""The stack engine: a loop that drives every stack whose operation is under way, from the books alone.

Phases of a stack and what follows them:

    create           -> CREATE_COMPLETE; on failure by OnFailure: rollback, delete, or CREATE_FAILED
    rollback         -> ROLLBACK_COMPLETE or ROLLBACK_FAILED
    update           -> cleanup; on failure: update_rollback, or UPDATE_FAILED where rollback is disabled
    cleanup          -> UPDATE_COMPLETE
    update_rollback  -> rollback_cleanup, or UPDATE_ROLLBACK_FAILED
    rollback_cleanup -> UPDATE_ROLLBACK_COMPLETE
    delete           -> DELETE_COMPLETE or DELETE_FAILED
"""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.template import repository
from preheat.template.intrinsics import pseudo_parameters
from preheat.template.naming import StackNames
from preheat.template.plan import Spec, Types, dependencies
from preheat.template.read import invalid, malformed
from preheat.template.repository import Stack, StackResource, Step
from preheat.template.runner import TOPIC, Runner
from preheat.template.shapes import Shapes
from preheat.template.steps import Steps

STACK_TYPE = "AWS::CloudFormation::Stack"
DELETING = ("rollback", "delete", "cleanup", "rollback_cleanup")
FORGIVING = ("cleanup", "rollback_cleanup")


class Engine:
    """A Loop. `start_*` begin an operation inside the caller's transaction."""

    name = "cloudformation"
    topics = (TOPIC,)

    def __init__(self, types: Types, endpoint: str) -> None:
        self._types = types
        self._steps = Steps(types)
        self._runner = Runner(types, Shapes(), endpoint, self._steps.ended)

    def step(self, ctx: Context) -> float | None:
        wakes: list[float] = []
        self._runner.forget_unsent()
        for stack_id in repository.running_stacks(ctx.db):
            stack = repository.stack(ctx.db, stack_id)
            if stack is not None and stack.phase is not None:
                inner = Context(
                    stack.scope, ctx.now, ctx.db, ctx.principal, ctx.machine.entropy.uuid(), ctx.machine, None
                )
                self._drive(inner, stack, wakes)
        return min(wakes, default=None)

    # -- beginning ----------------------------------------------------------------------------------------------

    def start_create(self, ctx: Context, stack: Stack) -> None:
        """`stack.spec` is the target."""
        assert stack.spec is not None
        self._enter(ctx, stack, "create", "CREATE_IN_PROGRESS", "User Initiated")
        minutes = stack.options.get("timeout_minutes")
        stack.deadline = ctx.now + 60.0 * minutes if minutes else None
        self._plan_apply(ctx, stack, "create", stack.spec)
        repository.save_stack(ctx.db, stack)

    def start_update(self, ctx: Context, stack: Stack, spec: Spec) -> None:
        graph = dependencies(spec)
        if stack.status != "UPDATE_FAILED" or stack.previous is None:
            stack.previous = stack.spec
        stack.spec = spec
        stack.updated_at = ctx.now
        stack.deadline = None
        self._enter(ctx, stack, "update", "UPDATE_IN_PROGRESS", "User Initiated")
        self._plan_apply(ctx, stack, "update", spec)
        rows = repository.resources(ctx.db, stack.id)
        gone = {name: row for name, row in rows.items() if name not in graph}
        self._plan_deletes(ctx, stack, "cleanup", gone, keep=_retained(stack.previous, gone))
        repository.save_stack(ctx.db, stack)

    def start_delete(self, ctx: Context, stack: Stack, retain: list[str], force: bool = False) -> None:
        stack.options["deletion_at"] = ctx.now
        self._enter(ctx, stack, "delete", "DELETE_IN_PROGRESS", "User Initiated")
        rows = repository.resources(ctx.db, stack.id)
        left = {name: row for name, row in rows.items() if row.status not in ("DELETE_COMPLETE", "DELETE_SKIPPED")}
        keep = _retained(stack.spec, left) | set(retain)
        stack.options["force_delete"] = force
        stack.deadline = None
        self._plan_deletes(ctx, stack, "delete", left, keep)
        repository.save_stack(ctx.db, stack)

    def continue_rollback(self, ctx: Context, stack: Stack, skip: list[str]) -> None:
        """Try again after UPDATE_ROLLBACK_FAILED, or roll a stack back that stayed at UPDATE_FAILED."""
        rows = repository.resources(ctx.db, stack.id)
        for name in skip:
            row = rows[name]
            row.status, row.before = "UPDATE_COMPLETE", None
            repository.save_resource(ctx.db, row)
        self._begin_update_rollback(ctx, stack, "User Initiated")
        repository.save_stack(ctx.db, stack)

    def rollback_create(self, ctx: Context, stack: Stack) -> None:
        """Take back what a create left that stayed at CREATE_FAILED."""
        self._delete_created(ctx, stack, "rollback", "ROLLBACK_IN_PROGRESS", "User Initiated")
        repository.save_stack(ctx.db, stack)

    def cancel_update(self, ctx: Context, stack: Stack) -> None:
        stack.options["cancelled"] = True
        repository.save_stack(ctx.db, stack)
        ctx.db.notify(TOPIC)

    def _enter(self, ctx: Context, stack: Stack, phase: str, status: str, reason: str = "") -> None:
        repository.drop_steps(ctx.db, stack.id)
        stack.options.pop("cancelled", None)
        stack.phase = phase
        self._status(ctx, stack, status, reason)
        ctx.db.notify(TOPIC)

    def _status(self, ctx: Context, stack: Stack, status: str, reason: str = "") -> None:
        stack.status, stack.reason = status, reason
        repository.add_event(ctx, stack, stack.name, stack.id, STACK_TYPE, status, reason)

    def _plan_apply(self, ctx: Context, stack: Stack, phase: str, spec: Spec) -> None:
        for name, needs in dependencies(spec).items():
            repository.add_step(ctx.db, stack.id, phase, name, "apply", needs, {"depends": needs})

    def _plan_deletes(
        self, ctx: Context, stack: Stack, phase: str, rows: dict[str, StackResource], keep: set[str]
    ) -> None:
        """Everything after those that depend on it."""
        users: dict[str, list[str]] = {name: [] for name in rows}
        for name, row in rows.items():
            for used in row.depends:
                if used in users:
                    users[used].append(name)
        for name, row in rows.items():
            repository.add_step(
                ctx.db, stack.id, phase, name, "delete", users[name], {**row.state(), "retain": name in keep}
            )

    # -- driving ------------------------------------------------------------------------------------------------

    def _drive(self, ctx: Context, stack: Stack, wakes: list[float]) -> None:
        """One stack as far as it gets without waiting."""
        while stack.phase is not None:
            steps = repository.steps(ctx.db, stack.id, stack.phase)
            stop = self._stop_reason(ctx, stack, steps)
            moved = False
            for step in steps:
                if step.status == "running":
                    self._runner.proceed(ctx, stack, step, stop)
                    moved = moved or step.status != "running"
            if stop is None or stack.phase in DELETING:
                moved = self._begin_ready(ctx, stack, steps) or moved
            if moved:
                continue
            if any(step.status == "running" for step in steps):
                wakes.extend(step.wake_at for step in steps if step.status == "running" and step.wake_at is not None)
                if stack.deadline is not None and stack.phase == "create":
                    wakes.append(stack.deadline)
                return
            self._finish(ctx, stack, steps, stop)
            repository.save_stack(ctx.db, stack)

    def _begin_ready(self, ctx: Context, stack: Stack, steps: list[Step]) -> bool:
        by_name: dict[str, list[Step]] = {}
        for step in steps:
            by_name.setdefault(step.logical_id, []).append(step)
        moved = False
        for step in steps:
            if step.status != "pending":
                continue
            needed = [item for name in step.waits_for for item in by_name.get(name, ()) if item is not step]
            if stack.phase not in FORGIVING and any(item.status in ("failed", "skipped") for item in needed):
                step.status = "skipped"
                repository.save_step(ctx.db, step)
                moved = True
            elif all(item.status in ("done", "failed", "skipped") for item in needed):
                self._steps.begin(ctx, stack, step)
                moved = True
        return moved

    def _stop_reason(self, ctx: Context, stack: Stack, steps: list[Step]) -> str | None:
        """Why nothing new may begin in this phase, as the resources that are cut short show it."""
        if stack.phase in DELETING:
            return None
        verb = "creation" if stack.phase == "create" else "update"
        left = any(step.status in ("pending", "running") for step in steps)
        timed_out = left and stack.phase == "create" and stack.deadline is not None and ctx.now >= stack.deadline
        cancelled = stack.phase == "update" and stack.options.get("cancelled")
        cancelled = cancelled or (stack.phase == "create" and stack.options.get("delete_wanted"))
        if timed_out or cancelled or any(step.status == "failed" for step in steps):
            return f"Resource {verb} cancelled"
        return None

    # -- what follows a phase -----------------------------------------------------------------------------------

    def _finish(self, ctx: Context, stack: Stack, steps: list[Step], stop: str | None) -> None:
        failed = [step for step in steps if step.status == "failed"]
        match stack.phase:
            case "create":
                self._after_create(ctx, stack, failed, stop)
            case "update":
                self._after_update(ctx, stack, failed, stop)
            case "update_rollback":
                self._after_update_rollback(ctx, stack, failed)
            case "cleanup":
                self._settle(ctx, stack, "UPDATE_COMPLETE")
            case "rollback_cleanup":
                self._settle(ctx, stack, "UPDATE_ROLLBACK_COMPLETE")
            case "rollback":
                names = ", ".join(step.logical_id for step in failed)
                if failed:
                    reason = f"The following resource(s) failed to delete: [{names}]. "
                    self._settle(ctx, stack, "ROLLBACK_FAILED", reason)
                else:
                    self._settle(ctx, stack, "ROLLBACK_COMPLETE")
            case _:
                self._after_delete(ctx, stack, failed)

    def _after_create(self, ctx: Context, stack: Stack, failed: list[Step], stop: str | None) -> None:
        reason = _failures(failed)
        if stop is None:
            reason = self._publish_outputs(ctx, stack) or ""
            if not reason:
                self._settle(ctx, stack, "CREATE_COMPLETE")
                return
        elif not failed and not stack.options.get("delete_wanted"):
            reason = "Stack creation time exceeded the specified timeout. "
        on_failure = stack.options.get("on_failure", "ROLLBACK")
        if stack.options.pop("delete_wanted", None):
            self._delete_created(ctx, stack, "delete", "DELETE_IN_PROGRESS", "User Initiated")
            return
        if on_failure == "DO_NOTHING":
            self._settle(ctx, stack, "CREATE_FAILED", reason)
        elif on_failure == "DELETE":
            self._delete_created(ctx, stack, "delete", "DELETE_IN_PROGRESS", f"{reason}Delete requested by user.")
        else:
            self._delete_created(ctx, stack, "rollback", "ROLLBACK_IN_PROGRESS", f"{reason}Rollback requested by user.")

    def _delete_created(self, ctx: Context, stack: Stack, phase: str, status: str, reason: str) -> None:
        rows = repository.resources(ctx.db, stack.id)
        keep = set() if stack.options.get("retain_except_on_create") else _retained(stack.spec, rows, ("Retain",))
        stack.options["deletion_at"] = ctx.now
        self._enter(ctx, stack, phase, status, reason)
        self._plan_deletes(ctx, stack, phase, rows, keep)

    def _after_update(self, ctx: Context, stack: Stack, failed: list[Step], stop: str | None) -> None:
        reason = _failures(failed)
        if stop is None:
            reason = self._publish_outputs(ctx, stack) or ""
            if not reason:
                repository.drop_steps(ctx.db, stack.id, "update")
                stack.phase = "cleanup"
                self._status(ctx, stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
                return
        elif stack.options.get("cancelled"):
            reason = "User Initiated"
        if stack.options.get("disable_rollback") and not stack.options.get("cancelled"):
            repository.drop_steps(ctx.db, stack.id)
            stack.phase = None
            self._status(ctx, stack, "UPDATE_FAILED", reason)
        else:
            self._begin_update_rollback(ctx, stack, reason)

    def _begin_update_rollback(self, ctx: Context, stack: Stack, reason: str) -> None:
        assert stack.previous is not None
        self._enter(ctx, stack, "update_rollback", "UPDATE_ROLLBACK_IN_PROGRESS", reason)
        graph = dependencies(stack.previous)
        for name, needs in graph.items():
            repository.add_step(ctx.db, stack.id, "update_rollback", name, "apply", needs, {})
        rows = repository.resources(ctx.db, stack.id)
        new = {name: row for name, row in rows.items() if name not in graph}
        self._plan_deletes(ctx, stack, "rollback_cleanup", new, set())

    def _after_update_rollback(self, ctx: Context, stack: Stack, failed: list[Step]) -> None:
        if failed:
            repository.drop_steps(ctx.db, stack.id)
            stack.phase = None
            self._status(ctx, stack, "UPDATE_ROLLBACK_FAILED", _failures(failed))
            return
        stack.spec, stack.previous = stack.previous, None
        self._publish_outputs(ctx, stack)
        repository.drop_steps(ctx.db, stack.id, "update_rollback")
        stack.phase = "rollback_cleanup"
        self._status(ctx, stack, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")

    def _after_delete(self, ctx: Context, stack: Stack, failed: list[Step]) -> None:
        if failed and not stack.options.get("force_delete"):
            names = ", ".join(step.logical_id for step in failed)
            self._settle(ctx, stack, "DELETE_FAILED", f"The following resource(s) failed to delete: [{names}]. ")
            return
        stack.deleted_at = ctx.now
        repository.set_exports(ctx.db, stack, {})
        repository.set_imports(ctx.db, stack, set())
        self._settle(ctx, stack, "DELETE_COMPLETE")

    def _settle(self, ctx: Context, stack: Stack, status: str, reason: str = "") -> None:
        repository.drop_steps(ctx.db, stack.id)
        repository.settle_resources(ctx.db, stack.id)
        stack.phase = None
        stack.deadline = None
        if status == "ROLLBACK_COMPLETE":
            repository.set_imports(ctx.db, stack, set())
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"):
            stack.previous = None
        self._status(ctx, stack, status, reason)

    # -- outputs ------------------------------------------------------------------------------------------------

    def _publish_outputs(self, ctx: Context, stack: Stack) -> str | None:
        """Resolve the outputs and exchange the exports. Returns the reason when that fails; then nothing changed."""
        try:
            outputs, exports, imported = self._outputs(ctx, stack)
        except AwsError as error:
            return f"{error.message} "
        stack.outputs = outputs
        repository.set_exports(ctx.db, stack, exports)
        repository.set_imports(ctx.db, stack, imported)
        return None

    def _outputs(self, ctx: Context, stack: Stack) -> tuple[list[dict[str, str]], dict[str, str], set[str]]:
        assert stack.spec is not None
        rows = repository.resources(ctx.db, stack.id)
        names = StackNames(ctx, stack, self._types, rows)
        pseudo = pseudo_parameters(stack.scope, stack.id, stack.name, stack.spec.notification_arns)
        resolver = stack.spec.resolver(pseudo, names)
        outputs: list[dict[str, str]] = []
        exports: dict[str, str] = {}
        for key, declared in stack.spec.outputs().items():
            value = resolver.resolve(declared["Value"])
            if isinstance(value, list):
                raise malformed(f"The Value field of every Outputs member must evaluate to a String ({key})")
            shown = {"OutputKey": key, "OutputValue": resolver.text(value, "Outputs")}
            if declared.get("Description"):
                shown["Description"] = declared["Description"]
            if "Export" in declared:
                name = resolver.text(resolver.resolve(declared["Export"]["Name"]), "Export")
                shown["ExportName"] = name
                exports[name] = shown["OutputValue"]
            outputs.append(shown)
        self._check_exports(ctx, stack, exports)
        for declared in stack.spec.resources().values():
            resolver.resolve(declared.get("Properties") or {})
        return outputs, exports, names.imported

    def _check_exports(self, ctx: Context, stack: Stack, exports: dict[str, str]) -> None:
        present = repository.exports(ctx.db, stack.scope)
        for name in exports:
            other = present.get(name)
            if other is not None and other["stack_id"] != stack.id:
                owner = repository.stack(ctx.db, other["stack_id"])
                raise invalid(f"Export with name {name} is already exported by stack {owner.name if owner else ''}.")
        for name, value in repository.exports_of(ctx.db, stack.id).items():
            users = repository.importers(ctx.db, stack.scope, name)
            if users and exports.get(name) != value:
                verb = "updated" if name in exports else "deleted"
                raise invalid(f"Export {name} cannot be {verb} as it is in use by {' and '.join(users)}")


def _failures(failed: list[Step]) -> str:
    created = [step.logical_id for step in failed if step.doc.get("mode", "create") == "create"]
    updated = [step.logical_id for step in failed if step.logical_id not in created]
    parts = []
    if created:
        parts.append(f"The following resource(s) failed to create: [{', '.join(created)}]. ")
    if updated:
        parts.append(f"The following resource(s) failed to update: [{', '.join(updated)}]. ")
    return "".join(parts)


def _retained(
    spec: Spec | None, rows: dict[str, Any], policies: tuple[str, ...] = ("Retain", "RetainExceptOnCreate")
) -> set[str]:
    """Those whose DeletionPolicy says that the resource stays."""
    declared = {} if spec is None else spec.body.get("Resources") or {}
    return {name for name in rows if declared.get(name, {}).get("DeletionPolicy") in policies}

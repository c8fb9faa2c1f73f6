"""How a step begins and how it ends: what a resource needs in the phase its stack is in, and what is written down."""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.template import repository
from preheat.template.definition import ResourceType
from preheat.template.intrinsics import pseudo_parameters
from preheat.template.naming import StackNames, physical_name
from preheat.template.parameters import HIDDEN
from preheat.template.plan import Types, compare, effective, problems
from preheat.template.repository import Stack, StackResource, Step, dump

ROLLBACK = "update_rollback"
CLEANUP = {"update": "cleanup", "update_rollback": "rollback_cleanup"}
NEW_RESOURCE = "Requested update requires the creation of a new physical resource; hence creating one."


class Steps:
    def __init__(self, types: Types) -> None:
        self._types = types

    # -- beginning ----------------------------------------------------------------------------------------------

    def begin(self, ctx: Context, stack: Stack, step: Step) -> None:
        """Leaves the step running with its `doc` filled in, or ended where there is nothing to do."""
        step.status = "running"
        step.doc.setdefault("token", ctx.machine.entropy.uuid())
        if step.action == "delete":
            self._begin_delete(ctx, stack, step)
        elif stack.phase == ROLLBACK:
            self._begin_return(ctx, stack, step)
        else:
            self._begin_apply(ctx, stack, step)
        repository.save_step(ctx.db, step)

    def _begin_apply(self, ctx: Context, stack: Stack, step: Step) -> None:
        assert stack.spec is not None
        declared = stack.spec.resources()[step.logical_id]
        definition = self._types[declared["Type"]]
        rows = repository.resources(ctx.db, stack.id)
        row = rows.get(step.logical_id)
        if row is not None and row.status == "DELETE_COMPLETE":
            row = None
        names = StackNames(ctx, stack, self._types, rows)
        pseudo = pseudo_parameters(stack.scope, stack.id, stack.name, stack.spec.notification_arns)
        try:
            values = stack.spec.resolver(pseudo, names).resolve(declared.get("Properties") or {})
            values = effective(values, definition, stack.spec.tags)
            problem = problems({"LogicalId": step.logical_id}, values, definition)
        except AwsError as error:
            values, problem = {}, error.message
        for name in names.imported:
            repository.add_import(ctx.db, stack, name)
        step.doc.update(type=declared["Type"], properties=values, shown=shown(stack, values))
        if row is None:
            self._begin_create(ctx, stack, step, definition)
        elif problem is None:
            self._begin_change(ctx, stack, step, definition, row)
        else:
            step.doc["mode"] = "update"
            row.before = row.before or row.state()
            row.status, row.reason = "UPDATE_IN_PROGRESS", ""
            self._event(ctx, stack, row, step.doc["shown"])
            repository.save_resource(ctx.db, row)
        if problem is not None:
            self.ended(ctx, stack, step, {}, problem)

    def _begin_create(self, ctx: Context, stack: Stack, step: Step, definition: ResourceType) -> None:
        doc = step.doc
        doc.update(mode="create", name=self._name(ctx, stack, step, definition))
        row = StackResource(
            stack.id, step.logical_id, doc["type"], None, "CREATE_IN_PROGRESS", "", ctx.now, doc["properties"], {},
            step.doc.get("depends", []), None,
        )  # fmt: skip
        repository.save_resource(ctx.db, row)
        self._event(ctx, stack, row, doc["shown"])

    def _begin_change(
        self, ctx: Context, stack: Stack, step: Step, definition: ResourceType, row: StackResource
    ) -> None:
        doc = step.doc
        row.depends = doc.get("depends", row.depends)
        if row.physical_id is None:
            repository.drop_resource(ctx.db, stack.id, row.logical_id)
            self._begin_create(ctx, stack, step, definition)
            return
        difference = compare(row.properties, doc["properties"], definition)
        if difference.nothing and row.status not in ("UPDATE_FAILED", "CREATE_FAILED"):
            step.status = "done"
            repository.save_resource(ctx.db, row)
            return
        row.before = row.before or row.state()
        row.status, row.reason, row.updated_at = "UPDATE_IN_PROGRESS", "", ctx.now
        if difference.replaces:
            doc.update(mode="replace", name=self._name(ctx, stack, step, definition), replaced=row.state())
            row.reason = NEW_RESOURCE
            self._event(ctx, stack, row, doc["shown"])
            row.physical_id = None
            taken = definition.name_property
            own = taken and doc["properties"].get(taken)
            if own and own == row.properties.get(taken):
                row.physical_id = doc["replaced"]["physical_id"]
                repository.save_resource(ctx.db, row)
                self.ended(ctx, stack, step, {}, (
                    "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
                    f"Rename {own} and update the stack again."
                ))  # fmt: skip
                return
            row.properties, row.attributes = doc["properties"], {}
        else:
            doc.update(
                mode="update", name=row.attributes.get("_name", ""), physical_id=row.physical_id, old=row.properties,
                attributes=row.attributes,
            )  # fmt: skip
            self._event(ctx, stack, row, doc["shown"])
            row.properties = doc["properties"]
        repository.save_resource(ctx.db, row)

    def _begin_return(self, ctx: Context, stack: Stack, step: Step) -> None:
        """Back to what stood before the update."""
        row = repository.resource(ctx.db, stack.id, step.logical_id)
        if row is None or row.before is None:
            step.status = "done"
            return
        before = row.before
        definition = self._types[before["type"]]
        row.status, row.reason, row.updated_at = "UPDATE_IN_PROGRESS", "", ctx.now
        swapped = row.physical_id != before["physical_id"]
        if swapped or compare(row.properties, before["properties"], definition).nothing or definition.update is None:
            if swapped and row.physical_id is not None:
                self._discard(ctx, stack, "rollback_cleanup", row.logical_id, row.state())
            row.physical_id, row.properties = before["physical_id"], before["properties"]
            row.attributes, row.type = before["attributes"], before["type"]
            self._event(ctx, stack, row)
            row.status = "UPDATE_COMPLETE"
            self._event(ctx, stack, row)
            step.status = "done"
        else:
            step.doc.update(
                type=before["type"], mode="update", name=row.attributes.get("_name", ""), physical_id=row.physical_id,
                old=row.properties, properties=before["properties"], attributes=before["attributes"],
                shown=shown(stack, before["properties"]),
            )  # fmt: skip
            self._event(ctx, stack, row, step.doc["shown"])
            row.properties = before["properties"]
        repository.save_resource(ctx.db, row)

    def _begin_delete(self, ctx: Context, stack: Stack, step: Step) -> None:
        doc = step.doc
        doc["mode"] = "delete"
        row = self._row_of(ctx, stack, step)
        row.reason = ""
        seen = deleted_shown(stack, row)
        if doc.get("retain"):
            row.status = "DELETE_SKIPPED"
            self._event(ctx, stack, row, seen)
            self._put(ctx, step, row)
            step.status = "done"
        elif not doc["physical_id"] or doc["type"] not in self._types:
            row.status = "DELETE_COMPLETE"
            self._event(ctx, stack, row, seen)
            self._put(ctx, step, row)
            step.status = "done"
        else:
            row.status = "DELETE_IN_PROGRESS"
            self._event(ctx, stack, row, seen)
            self._put(ctx, step, row)

    def _name(self, ctx: Context, stack: Stack, step: Step, definition: ResourceType) -> str:
        given = step.doc["properties"].get(definition.name_property) if definition.name_property else None
        if isinstance(given, str | int) and given:
            return str(given)
        return physical_name(ctx.machine.entropy, stack, step.logical_id, definition)

    # -- ending -------------------------------------------------------------------------------------------------

    def ended(
        self, ctx: Context, stack: Stack, step: Step, attributes: dict[str, Any], reason: str | None
    ) -> None:
        """Write down how a step ended; `reason` is None for success."""
        step.status = "done" if reason is None else "failed"
        step.issued = step.wake_at = None
        if step.action == "delete":
            row = self._row_of(ctx, stack, step)
            row.status, row.reason = ("DELETE_COMPLETE", "") if reason is None else ("DELETE_FAILED", reason)
            row.updated_at = ctx.now
            self._event(ctx, stack, row, deleted_shown(stack, row))
            self._put(ctx, step, row)
        else:
            row = self._row_of(ctx, stack, step)
            verb = "CREATE" if step.doc.get("mode") == "create" else "UPDATE"
            row.updated_at = ctx.now
            if reason is None:
                self._succeeded(ctx, stack, step, row, attributes)
                row.status, row.reason = f"{verb}_COMPLETE", ""
            else:
                row.status, row.reason = f"{verb}_FAILED", reason
            self._event(ctx, stack, row, step.doc.get("shown", ""))
            repository.save_resource(ctx.db, row)
        repository.save_step(ctx.db, step)

    def _succeeded(
        self, ctx: Context, stack: Stack, step: Step, row: StackResource, attributes: dict[str, Any]
    ) -> None:
        doc = step.doc
        row.attributes = {**attributes, "_name": doc.get("name", "")}
        row.properties = doc["properties"]
        phase = CLEANUP.get(stack.phase or "")
        if phase is None:
            return
        if doc["mode"] == "replace":
            self._discard(ctx, stack, phase, row.logical_id, doc["replaced"])
        elif doc["mode"] == "update" and row.physical_id != doc["physical_id"]:
            old = {
                "type": doc["type"],
                "physical_id": doc["physical_id"],
                "properties": doc["old"],
                "attributes": doc["attributes"],
            }
            self._discard(ctx, stack, phase, row.logical_id, old)

    def _discard(self, ctx: Context, stack: Stack, phase: str, logical_id: str, state: dict[str, Any]) -> None:
        """A resource that was replaced is deleted once the operation is through."""
        body = stack.spec.body if stack.spec is not None else {}
        declared = (body.get("Resources") or {}).get(logical_id, {})
        retain = phase == "cleanup" and declared.get("UpdateReplacePolicy") in ("Retain", "RetainExceptOnCreate")
        doc = {**state, "garbage": True, "retain": retain}
        repository.add_step(ctx.db, stack.id, phase, logical_id, "delete", [], doc)

    def _row_of(self, ctx: Context, stack: Stack, step: Step) -> StackResource:
        row = None if step.doc.get("garbage") else repository.resource(ctx.db, stack.id, step.logical_id)
        if row is not None:
            row.updated_at = ctx.now
            return row
        doc = step.doc
        return StackResource(
            stack.id, step.logical_id, doc["type"], doc.get("physical_id"), "", "", ctx.now, doc["properties"],
            doc.get("attributes", {}), [], None,
        )  # fmt: skip

    def _put(self, ctx: Context, step: Step, row: StackResource) -> None:
        if step.doc.get("garbage"):
            return
        if step.phase in ("cleanup", "rollback_cleanup") and row.status in ("DELETE_COMPLETE", "DELETE_SKIPPED"):
            repository.drop_resource(ctx.db, row.stack_id, row.logical_id)
        else:
            repository.save_resource(ctx.db, row)

    def _event(self, ctx: Context, stack: Stack, row: StackResource, properties: str = "") -> None:
        repository.add_event(
            ctx, stack, row.logical_id, row.physical_id or "", row.type, row.status, row.reason, properties
        )


def deleted_shown(stack: Stack, row: StackResource) -> str:
    """Properties in an event of a deletion: they are shown where the stack goes, not where an update cleans up."""
    return shown(stack, row.properties) if stack.phase in ("delete", "rollback") else ""


def shown(stack: Stack, values: dict[str, Any]) -> str:
    """Properties as an event shows them, without what a NoEcho parameter hides."""
    text = dump(values)
    for secret in stack.spec.hidden if stack.spec is not None else ():
        if secret:
            text = text.replace(dump(secret)[1:-1], HIDDEN)
    return text

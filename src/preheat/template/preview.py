"""What an update would change: the content of a change set, and whether there is anything to do at all."""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.template import repository
from preheat.template.changes import Look, added, modified, removed, uncertain
from preheat.template.intrinsics import pseudo_parameters
from preheat.template.naming import StackNames
from preheat.template.plan import Spec, Types, compare, dependencies, effective, order
from preheat.template.read import invalid
from preheat.template.repository import Stack


def changes(ctx: Context, stack: Stack, spec: Spec, types: Types) -> list[dict[str, Any]]:
    """ResourceChange documents with the values of properties, by logical id."""
    rows = {
        name: row
        for name, row in repository.resources(ctx.db, stack.id).items()
        if row.status not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
    }
    declared = spec.resources()
    pending = {name for name in declared if name not in rows}
    names = StackNames(ctx, stack, types, rows, pending)
    resolver = spec.resolver(pseudo_parameters(stack.scope, stack.id, stack.name, spec.notification_arns), names)
    look = Look(stack.spec, spec, types)
    found: list[dict[str, Any]] = []
    for name in order(dependencies(spec)):
        resource = declared[name]
        definition = types[resource["Type"]]
        if name in pending:
            values = effective(resolver.resolve(resource.get("Properties") or {}), definition, spec.tags)
            found.append(added(look, name, resource, values))
            continue
        row = rows[name]
        if row.type != resource["Type"]:
            raise invalid(
                "Update of resource type is not permitted. The new template modifies resource type of the following "
                f"resources: [{name}]"
            )
        values = effective(resolver.resolve(resource.get("Properties") or {}), definition, spec.tags)
        difference = compare(row.properties, values, definition)
        if difference.replaces:
            pending.add(name)
            look.replaced.add(name)
        failed = row.status in ("CREATE_FAILED", "UPDATE_FAILED")
        if not difference.nothing or look.metadata(name) or failed:
            found.append(modified(look, row, resource, difference, values))
        elif (perhaps := uncertain(look, row, resource)) is not None:
            found.append(perhaps)
        else:
            continue
        if not difference.replaces:
            look.modified.add(name)
    found.extend(removed(look, row) for name, row in rows.items() if name not in declared)
    return sorted(found, key=lambda change: change["LogicalResourceId"])


def has_work(ctx: Context, stack: Stack, spec: Spec, types: Types, found: list[dict[str, Any]]) -> bool:
    """Whether there is anything to update: resources, outputs or the stack's tags."""
    if found or stack.spec is None or stack.spec.tags != spec.tags:
        return True
    rows = repository.resources(ctx.db, stack.id)
    pseudo = pseudo_parameters(stack.scope, stack.id, stack.name, spec.notification_arns)
    resolver = spec.resolver(pseudo, StackNames(ctx, stack, types, rows, set()))
    shown = {item["OutputKey"]: item for item in stack.outputs}
    declared = spec.outputs()
    if declared.keys() != shown.keys():
        return True
    try:
        for key, output in declared.items():
            export = output.get("Export")
            name = None if export is None else resolver.text(resolver.resolve(export["Name"]), "Export")
            value = resolver.text(resolver.resolve(output["Value"]), "Outputs")
            if value != shown[key]["OutputValue"] or name != shown[key].get("ExportName"):
                return True
            if (output.get("Description") or None) != shown[key].get("Description"):
                return True
    except AwsError:
        return True
    return False

"""What an update would change: the content of a change set, and whether there is anything to do at all."""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context
from preheat.template import repository
from preheat.template.intrinsics import pseudo_parameters
from preheat.template.naming import StackNames
from preheat.template.plan import Difference, Spec, Types, compare, dependencies, effective, order
from preheat.template.read import invalid
from preheat.template.repository import Stack, StackResource

RETAINING = ("Retain", "RetainExceptOnCreate")


def changes(ctx: Context, stack: Stack, spec: Spec, types: Types) -> list[dict[str, Any]]:
    """ResourceChange documents in the order in which they would happen."""
    rows = {
        name: row
        for name, row in repository.resources(ctx.db, stack.id).items()
        if row.status not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
    }
    declared = spec.resources()
    pending = {name for name in declared if name not in rows}
    names = StackNames(ctx, stack, types, rows, pending)
    resolver = spec.resolver(pseudo_parameters(stack.scope, stack.id, stack.name, spec.notification_arns), names)
    found: list[dict[str, Any]] = []
    for name in order(dependencies(spec)):
        resource = declared[name]
        if name in pending:
            found.append(_add(name, resource))
            continue
        row, definition = rows[name], types[resource["Type"]]
        if row.type != resource["Type"]:
            raise invalid(
                "Update of resource type is not permitted. The new template modifies resource type of the following "
                f"resources: [{name}]"
            )
        values = effective(resolver.resolve(resource.get("Properties") or {}), definition, spec.tags)
        difference = compare(row.properties, values, definition)
        metadata = _metadata(stack.spec, name) != resource.get("Metadata")
        if difference.replaces:
            pending.add(name)
        if not difference.nothing or metadata or row.status in ("CREATE_FAILED", "UPDATE_FAILED"):
            found.append(_modify(row, resource, difference, metadata, types))
    found.extend(_remove(row, stack.spec) for name, row in sorted(rows.items()) if name not in declared)
    return found


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


def _metadata(spec: Spec | None, name: str) -> Any:
    return None if spec is None else (spec.body.get("Resources") or {}).get(name, {}).get("Metadata")


def _add(name: str, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "Action": "Add",
        "LogicalResourceId": name,
        "ResourceType": resource["Type"],
        "Scope": [],
        "Details": [],
    }


def _modify(
    row: StackResource, resource: dict[str, Any], difference: Difference, metadata: bool, types: Types
) -> dict[str, Any]:
    table = types[row.type].properties
    details = []
    for name in difference.changed:
        replaces = difference.replaces and (name not in table or table[name].replaces or types[row.type].update is None)
        details.append({
            "Target": {
                "Attribute": "Tags" if name == "Tags" else "Properties",
                **({} if name == "Tags" else {"Name": name}),
                "RequiresRecreation": "Always" if replaces else "Never",
            },
            "Evaluation": "Static",
            "ChangeSource": "DirectModification",
        })  # fmt: skip
    scope = sorted({detail["Target"]["Attribute"] for detail in details})
    if metadata:
        scope.append("Metadata")
    change = {
        "Action": "Modify",
        "LogicalResourceId": row.logical_id,
        "PhysicalResourceId": row.physical_id or "",
        "ResourceType": row.type,
        "Replacement": "True" if difference.replaces else "False",
        "Scope": scope,
        "Details": details,
    }
    if difference.replaces:
        retain = resource.get("UpdateReplacePolicy") in RETAINING
        change["PolicyAction"] = "ReplaceAndRetain" if retain else "ReplaceAndDelete"
    return change


def _remove(row: StackResource, spec: Spec | None) -> dict[str, Any]:
    declared = {} if spec is None else (spec.body.get("Resources") or {}).get(row.logical_id, {})
    return {
        "Action": "Remove",
        "PolicyAction": "Retain" if declared.get("DeletionPolicy") in RETAINING else "Delete",
        "LogicalResourceId": row.logical_id,
        "PhysicalResourceId": row.physical_id or "",
        "ResourceType": row.type,
        "Scope": [],
        "Details": [],
    }

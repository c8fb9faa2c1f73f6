"""What a change set says of one resource: the change, what causes it, and the values before and after.

A change is caused by an edit of the template (DirectModification, Static), by a parameter whose value changed
(ParameterReference, and a DirectModification that is Dynamic), or by a resource that is replaced (ResourceReference,
ResourceAttribute; the Dynamic one beside them is shown with the values only). What uses an attribute of a resource that
is modified in place may change too (ResourceAttribute, Dynamic): such changes are shown without the values only.
"""

from dataclasses import dataclass, field
from typing import Any

from preheat.template.intrinsics import references
from preheat.template.parameters import HIDDEN
from preheat.template.plan import Difference, Spec, Types
from preheat.template.repository import StackResource, dump

RETAINING = ("Retain", "RetainExceptOnCreate")
VALUES = ("AfterContext", "BeforeContext")
TARGET_VALUES = ("AfterValue", "BeforeValue", "AttributeChangeType", "Path")
Cause = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """The deployment that stands and the one that is looked at; `replaced` and `modified` (in place, for sure or
    perhaps) grow as changes are found."""

    before: Spec | None
    after: Spec
    types: Types
    replaced: set[str] = field(default_factory=set)
    modified: set[str] = field(default_factory=set)

    def declared(self, name: str, spec: Spec | None) -> dict[str, Any]:
        return {} if spec is None else (spec.body.get("Resources") or {}).get(name, {})

    def causes(self, value: Any) -> list[Cause]:
        """(change source, causing entity) of whatever in `value` has another meaning than before."""
        found: dict[Cause, None] = {}
        parameters = self.after.body.get("Parameters") or {}
        old = {} if self.before is None else self.before.values
        for used in references(value, self.after.conditions):
            if used.name in parameters:
                if used.name in old and old[used.name] != self.after.values.get(used.name):
                    found[("ParameterReference", used.name)] = None
            elif used.name in self.replaced:
                named = used.attribute is not None
                source = "ResourceAttribute" if named else "ResourceReference"
                found[(source, f"{used.name}.{used.attribute}" if named else used.name)] = None
        return list(found)

    def metadata(self, name: str) -> bool:
        """Whether a resource's Metadata changes."""
        old, new = self.declared(name, self.before).get("Metadata"), self.declared(name, self.after).get("Metadata")
        return old != new or bool(self.causes(new))

    def context(self, values: dict[str, Any], spec: Spec | None) -> str:
        """The properties as a change set shows them, without what a NoEcho parameter hides."""
        return _hidden(dump({"Properties": values}), spec)


def _hidden(text: str, spec: Spec | None) -> str:
    for secret in spec.hidden if spec is not None else ():
        if secret:
            text = text.replace(dump(secret)[1:-1], HIDDEN)
    return text


def _text(value: Any, spec: Spec | None) -> str:
    return _hidden(value if isinstance(value, str) else dump(value), spec)


def added(look: Look, name: str, resource: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return {
        "Action": "Add",
        "LogicalResourceId": name,
        "ResourceType": resource["Type"],
        "Scope": [],
        "Details": [],
        "AfterContext": look.context(values, look.after),
    }


def modified(
    look: Look, row: StackResource, resource: dict[str, Any], difference: Difference, values: dict[str, Any]
) -> dict[str, Any]:
    table, definition = look.types[row.type].properties, look.types[row.type]
    old = look.declared(row.logical_id, look.before)
    was, new = old.get("Properties") or {}, resource.get("Properties") or {}
    details: list[dict[str, Any]] = []
    for name in difference.changed:
        edited = was.get(name) != new.get(name)
        causes = look.causes(new.get(name))
        own = name != "Tags" or edited or bool(causes)
        replaces = difference.replaces and (name not in table or table[name].replaces or definition.update is None)
        target: dict[str, Any] = {"Attribute": "Properties" if own else "Tags", **({"Name": name} if own else {})}
        target["RequiresRecreation"] = "Always" if replaces else "Never"
        target |= _values(look, name, row.properties, values)
        details += _details(target, causes, edited)
    if look.metadata(row.logical_id):
        target = {"Attribute": "Metadata", "RequiresRecreation": "Never"}
        metadata = resource.get("Metadata")
        details += _details(target, look.causes(metadata), old.get("Metadata") != metadata)
    change = {
        "Action": "Modify",
        "LogicalResourceId": row.logical_id,
        "PhysicalResourceId": row.physical_id or "",
        "ResourceType": row.type,
        "Replacement": "True" if difference.replaces else "False",
        "Scope": sorted({detail["Target"]["Attribute"] for detail in details}),
        "Details": details,
        "BeforeContext": look.context(row.properties, look.before),
        "AfterContext": look.context(values, look.after),
    }
    if difference.replaces:
        retain = resource.get("UpdateReplacePolicy") in RETAINING
        change["PolicyAction"] = "ReplaceAndRetain" if retain else "ReplaceAndDelete"
    return change


def uncertain(look: Look, row: StackResource, resource: dict[str, Any]) -> dict[str, Any] | None:
    """The change of a resource that uses attributes of modified ones; None when it uses none."""
    definition = look.types[row.type]
    details: list[dict[str, Any]] = []
    conditional = False
    for name, value in sorted((resource.get("Properties") or {}).items()):
        rule = definition.properties.get(name)
        replaces = definition.update is None or (rule is not None and rule.replaces)
        entities = {
            f"{used.name}.{used.attribute}": None
            for used in references(value, look.after.conditions)
            if used.attribute is not None and used.name in look.modified
        }
        conditional = conditional or (replaces and bool(entities))
        target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": "Always" if replaces else "Never"}
        details += [
            {"Target": target, "Evaluation": "Dynamic", "ChangeSource": "ResourceAttribute", "CausingEntity": entity}
            for entity in entities
        ]
    if not details:
        return None
    return {
        "Action": "Modify",
        "LogicalResourceId": row.logical_id,
        "PhysicalResourceId": row.physical_id or "",
        "ResourceType": row.type,
        "Replacement": "Conditional" if conditional else "False",
        "Scope": ["Properties"],
        "Details": details,
    }


def _details(target: dict[str, Any], causes: list[Cause], edited: bool) -> list[dict[str, Any]]:
    details = [
        {"Target": target, "Evaluation": "Static", "ChangeSource": source, "CausingEntity": entity}
        for source, entity in causes
    ]
    evaluation = "Dynamic" if causes and not edited else "Static"
    details.append({"Target": target, "Evaluation": evaluation, "ChangeSource": "DirectModification"})
    return details


def _values(look: Look, name: str, old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    kind = "Modify" if name in old and name in new else "Add" if name in new else "Remove"
    found = {"Path": f"/Properties/{name}", "AttributeChangeType": kind}
    if name in old:
        found["BeforeValue"] = _text(old[name], look.before)
    if name in new:
        found["AfterValue"] = _text(new[name], look.after)
    return found


def removed(look: Look, row: StackResource) -> dict[str, Any]:
    retain = look.declared(row.logical_id, look.before).get("DeletionPolicy") in RETAINING
    return {
        "Action": "Remove",
        "PolicyAction": "Retain" if retain else "Delete",
        "LogicalResourceId": row.logical_id,
        "PhysicalResourceId": row.physical_id or "",
        "ResourceType": row.type,
        "Scope": [],
        "Details": [],
        "BeforeContext": look.context(row.properties, look.before),
    }


def has_values(change: dict[str, Any]) -> bool:
    """Whether a change is sure, so that it is shown with IncludePropertyValues."""
    return any(member in change for member in VALUES)


def without_values(change: dict[str, Any]) -> dict[str, Any]:
    """A change as DescribeChangeSet shows it without IncludePropertyValues."""
    details = [
        {**detail, "Target": {key: item for key, item in detail["Target"].items() if key not in TARGET_VALUES}}
        for detail in change["Details"]
    ]
    by_resource = [detail["Target"] for detail in details if detail["ChangeSource"].startswith("Resource")]
    shown = [
        detail for detail in details
        if detail["ChangeSource"] != "DirectModification" or detail["Evaluation"] == "Static"
        or detail["Target"] not in by_resource
    ]  # fmt: skip
    return {**{key: item for key, item in change.items() if key not in VALUES}, "Details": shown}

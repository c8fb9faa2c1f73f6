"""From a template to what has to be done: what may be referred to, in which order, and what an update changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from preheat.template.definition import ResourceType
from preheat.template.intrinsics import Names, Resolver, references
from preheat.template.read import LANGUAGE_TRANSFORM, invalid, malformed

Types = Mapping[str, ResourceType]


@dataclass(frozen=True, slots=True)
class Spec:
    """One deployment of a stack, all that is needed to carry it out: JSON throughout.

    `body` the processed template, `values` what parameters stand for, `parameters` as DescribeStacks shows them,
    `given` their texts, `conditions` the truth of each, `hidden` the values that are never shown.
    """

    original: str
    body: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    parameters: list[dict[str, str]] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, bool] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    tags: list[dict[str, str]] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=list)
    notification_arns: list[str] = field(default_factory=list)
    transforms: list[str] = field(default_factory=list)
    role_arn: str = ""

    @property
    def description(self) -> str:
        return self.body.get("Description") or ""

    def resources(self) -> dict[str, dict[str, Any]]:
        """Those whose condition holds."""
        return {
            name: resource
            for name, resource in (self.body.get("Resources") or {}).items()
            if "Condition" not in resource or self.conditions.get(resource["Condition"], False)
        }

    def outputs(self) -> dict[str, dict[str, Any]]:
        return {
            name: output
            for name, output in (self.body.get("Outputs") or {}).items()
            if "Condition" not in output or self.conditions.get(output["Condition"], False)
        }

    def resolver(self, pseudo: dict[str, Any], names: Names) -> Resolver:
        return Resolver(
            self.body, {**pseudo, **self.values}, names, dict(self.conditions), LANGUAGE_TRANSFORM in self.transforms
        )


def check_references(body: dict[str, Any], pseudo: Mapping[str, Any], types: Types) -> None:
    """Every name that a template uses is declared. Raises ValidationError in CloudFormation's words."""
    resources = body.get("Resources") or {}
    known = set(resources) | set(body.get("Parameters") or {}) | set(pseudo)
    declared = body.get("Conditions") or {}
    for section in ("Resources", "Outputs"):
        unresolved: dict[str, None] = {}
        for item in (body.get(section) or {}).values():
            condition = item.get("Condition")
            if condition is not None and condition not in declared:
                where = f"{section} block of the template"
                raise malformed(f"Unresolved condition dependency {condition} in the {where}")
            for reference in references({key: value for key, value in item.items() if key != "Condition"}):
                if reference.attribute is not None and reference.how == "Fn::GetAtt":
                    if reference.name not in resources:
                        raise invalid(
                            f"Template error: instance of Fn::GetAtt references undefined resource {reference.name}"
                        )
                elif reference.name not in known:
                    unresolved[reference.name] = None
                if reference.attribute and reference.name in resources:
                    check_attribute(reference.name, reference.attribute, resources[reference.name], types)
        if unresolved:
            names = ", ".join(unresolved)
            raise malformed(f"Unresolved resource dependencies [{names}] in the {section} block of the template")
    for item in declared.values():
        used = [reference.name for reference in references(item) if reference.name in resources]
        if used:
            raise malformed(
                f"Unresolved dependencies [{', '.join(used)}]. "
                "Cannot reference resources in the Conditions block of the template"
            )


def check_attribute(name: str, attribute: str, resource: dict[str, Any], types: Types) -> None:
    definition = types.get(resource.get("Type", ""))
    if definition is None or definition.attributes is None or attribute in definition.attributes:
        return
    if attribute in definition.properties:
        return
    raise invalid(
        f"Template error: resource {name} does not support attribute type {attribute} in Fn::GetAtt"
    )


def dependencies(spec: Spec) -> dict[str, list[str]]:
    """For every resource those it waits for. Raises ValidationError when they go round in a circle."""
    resources = spec.resources()
    found: dict[str, list[str]] = {}
    for name, resource in resources.items():
        needed: dict[str, None] = {}
        explicit = resource.get("DependsOn") or []
        for used in explicit if isinstance(explicit, list) else [explicit]:
            if used in resources:
                needed[used] = None
        for reference in references(resource.get("Properties") or {}, spec.conditions):
            if reference.name in resources:
                needed[reference.name] = None
            elif reference.name in (spec.body.get("Resources") or {}):
                raise malformed(
                    f"Unresolved resource dependencies [{reference.name}] in the Resources block of the template"
                )
        found[name] = list(needed)
    order(found)
    return found


def order(graph: Mapping[str, list[str]]) -> list[str]:
    """Names so that everything comes after what it waits for. Raises ValidationError for a circle."""
    left = {name: {need for need in needs if need in graph} for name, needs in graph.items()}
    done: list[str] = []
    while left:
        ready = [name for name, needs in left.items() if not needs]
        if not ready:
            circle = ", ".join(_in_circles(left))
            raise invalid(f"Circular dependency between resources: [{circle}]")
        for name in ready:
            del left[name]
        done += ready
        for needs in left.values():
            needs.difference_update(ready)
    return done


def _in_circles(left: Mapping[str, set[str]]) -> list[str]:
    """What remains after taking away also those that nothing waits for."""
    names = set(left)
    while True:
        needed = {need for name in names for need in left[name]}
        if names <= needed:
            return [name for name in left if name in names]
        names &= needed


@dataclass(frozen=True, slots=True)
class Difference:
    changed: tuple[str, ...]
    replaces: bool

    @property
    def nothing(self) -> bool:
        return not self.changed


def compare(old: dict[str, Any], new: dict[str, Any], definition: ResourceType) -> Difference:
    """Properties that differ, and whether one of them needs a new resource."""
    changed = tuple(sorted(name for name in {*old, *new} if not same(old.get(name), new.get(name))))
    replaces = any(name in definition.properties and definition.properties[name].replaces for name in changed)
    if changed and definition.update is None:
        replaces = True
    return Difference(changed, replaces)


def same(left: Any, right: Any) -> bool:
    """Equality as CloudFormation sees it: "5" is 5, "true" is true."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if left == right:
        return True
    if left is None or right is None or isinstance(left, (dict, list)) or isinstance(right, (dict, list)):
        return False
    return _plain(left) == _plain(right)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def problems(resource: dict[str, Any], values: dict[str, Any], definition: ResourceType) -> str | None:
    """What is wrong with a resource's properties, as its event says it; None when they fit the type's table."""
    if definition.open:
        return None
    for name in values:
        if name not in definition.properties:
            return f"Encountered unsupported property {name}"
    missing = [name for name, rule in definition.properties.items() if rule.required and name not in values]
    if missing:
        keys = "\n".join(f"#: required key [{name}] not found" for name in missing)
        return f"Properties validation failed for resource {resource['LogicalId']} with message:\n{keys}"
    return None


def effective(values: dict[str, Any], definition: ResourceType, stack_tags: list[dict[str, str]]) -> dict[str, Any]:
    """A resource's properties with the stack's tags among its own."""
    if definition.tags is None or not stack_tags:
        return values
    own = values.get("Tags")
    if definition.tags == "map":
        return {**values, "Tags": {**{tag["Key"]: tag["Value"] for tag in stack_tags}, **(own or {})}}
    named = {tag["Key"] for tag in own or ()}
    return {**values, "Tags": [*(own or ()), *(tag for tag in stack_tags if tag["Key"] not in named)]}

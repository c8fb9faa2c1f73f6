"""What can be told of a template's values before anything is made: functions that cannot work, outputs that are no
text."""

from dataclasses import dataclass
from typing import Any

from preheat.template.intrinsics import KNOWN_AFTER_APPLY, references
from preheat.template.plan import Spec
from preheat.template.read import invalid, malformed


@dataclass(frozen=True, slots=True)
class _Unmade:
    """The names of a template whose resources are still to be made; imported values are looked up when they are."""

    resources: frozenset[str]

    def ref(self, logical_id: str) -> Any:
        return KNOWN_AFTER_APPLY

    def get_att(self, logical_id: str, attribute: str) -> Any:
        return KNOWN_AFTER_APPLY

    def import_value(self, name: str) -> str:
        return KNOWN_AFTER_APPLY

    def unknown(self, value: Any) -> bool:
        return _imports(value) or any(reference.name in self.resources for reference in references(value))


def _imports(value: Any) -> bool:
    if isinstance(value, dict):
        return "Fn::ImportValue" in value or any(map(_imports, value.values()))
    return isinstance(value, list) and any(map(_imports, value))


def check_values(spec: Spec, pseudo: dict[str, Any]) -> None:
    """Carry out every function that needs no resource. Raises ValidationError for one that cannot be."""
    names = _Unmade(frozenset(spec.body.get("Resources") or {}))
    resolver = spec.resolver(pseudo, names)
    for resource in spec.resources().values():
        resolver.resolve(resource.get("Properties") or {})
    for output in spec.outputs().values():
        absent = {
            reference.name: None for reference in references(output, spec.conditions)
            if reference.name in names.resources and reference.name not in spec.resources()
        }  # fmt: skip
        if absent:
            raise invalid(
                f"Unresolved resource dependencies [{', '.join(absent)}] in the Outputs block of the template"
            )
        value = resolver.resolve(output["Value"])
        if isinstance(value, (dict, list)) and not names.unknown(output["Value"]):
            raise malformed("The Value field of every Outputs member must evaluate to a String.")
        resolver.resolve(output.get("Export"))

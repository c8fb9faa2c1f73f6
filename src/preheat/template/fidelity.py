"""The fidelity report: what each property of one template does here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from preheat.template.definition import Fidelity
from preheat.template.plan import Spec, Types

FUNCTION = "AWS::Lambda::Function"


@dataclass(frozen=True, slots=True)
class Row:
    """One property that the template gives. `why` is empty for those that act."""

    logical_id: str
    type: str
    property: str
    fidelity: Fidelity
    why: str


def rows_of(spec: Spec, types: Types, remark: Callable[[str], str | None] = lambda runtime: None) -> list[Row]:
    """Every property of every resource whose condition holds, in the template's order. `remark` tells what is
    different about a Lambda runtime on this machine."""
    rows = []
    for name, resource in spec.resources().items():
        definition = types.get(resource["Type"])
        if definition is None:
            rows.append(Row(name, resource["Type"], "", "ignored", "Preheat does not know this resource type"))
            continue
        for key in resource.get("Properties") or {}:
            rule = definition.properties.get(key)
            if definition.open:
                rows.append(Row(name, definition.type, key, "acts", ""))
            elif rule is None:
                rows.append(Row(name, definition.type, key, "ignored", "unsupported: the resource will fail"))
            elif definition.type == FUNCTION and key == "Runtime" and (why := _runtime(spec, resource, remark)):
                rows.append(Row(name, definition.type, key, "approximates", why))
            else:
                rows.append(Row(name, definition.type, key, rule.fidelity, rule.why))
    return rows


def _runtime(spec: Spec, resource: dict, remark: Callable[[str], str | None]) -> str | None:
    runtime = resource["Properties"]["Runtime"]
    if isinstance(runtime, dict):
        runtime = spec.values.get(runtime.get("Ref", ""))
    return remark(runtime) if isinstance(runtime, str) else None


def refusals(rows: Iterable[Row]) -> list[str]:
    """What `--strict` refuses, as lines for a person; empty when the template may be deployed."""
    return [f"{row.logical_id} ({row.type}) {row.property}: {row.why}" for row in rows if row.fidelity == "ignored"]

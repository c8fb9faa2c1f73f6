"""Which required members a request lacks: the slow path, walked only when a compiled reader found one missing."""

from typing import Any

from preheat.kernel.errors import AwsError
from preheat.wire.model import Model, Ref


def missing_members(model: Model, ref: Ref, params: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of absent required members, outermost first: ("Entries", "1", "member", "Id")."""
    shape = model.shapes[ref.shape]
    found: list[tuple[str, ...]] = []
    if shape.document or params is None:
        return found
    if shape.type == "structure" and isinstance(params, dict):
        found += [(*path, name) for name in shape.required if params.get(name) is None]
        for name, item in params.items():
            if name in shape.members:
                found += missing_members(model, shape.members[name], item, (*path, name))
    elif shape.type == "list" and isinstance(params, list) and shape.member is not None:
        for number, item in enumerate(params, 1):
            found += missing_members(model, shape.member, item, (*path, str(number), "member"))
    elif shape.type == "map" and isinstance(params, dict) and shape.value is not None:
        for key, item in params.items():
            found += missing_members(model, shape.value, item, (*path, key, "member"))
    return found


def missing_error(paths: list[tuple[str, ...]], quirk: dict[str, Any]) -> AwsError:
    """The service's own answer. `quirk`: code, query_code, message (with {name} or, joined, {details} and {count});
    `nested`, when it has one, for members that are not the request's own and for those in `as_nested`."""
    if len(paths[0]) > 1 or paths[0][0] in quirk.get("as_nested", ()):
        quirk = quirk.get("nested", quirk)
    details = "; ".join(
        f"Value null at '{'.'.join(_camel(part) for part in path)}' failed to satisfy constraint: "
        "Member must not be null"
        for path in paths
    )
    count = len(paths)
    message = quirk["message"].format(
        name=paths[0][-1], count=count, plural="" if count == 1 else "s", details=details
    )
    return AwsError(quirk["code"], message, quirk.get("status", 400), query_code=quirk.get("query_code"))


def _camel(part: str) -> str:
    return part[:1].lower() + part[1:]

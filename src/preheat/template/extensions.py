"""The transform AWS::LanguageExtensions: Fn::ForEach written out, functions where a plain name or policy is wanted."""

import re
from typing import Any

from preheat.template.intrinsics import Resolver
from preheat.template.parameters import text_of
from preheat.template.read import invalid

FOR_EACH = "Fn::ForEach::"


def expand(body: dict[str, Any], resolver: Resolver) -> dict[str, Any]:
    """The template without its loops. Raises ValidationError for one that is malformed."""
    made = {
        key: _name(_expand(value, resolver, {}), resolver) if key in ("Resources", "Outputs", "Conditions") else value
        for key, value in body.items()
    }
    for resource in (made.get("Resources") or {}).values():
        for key in ("DeletionPolicy", "UpdateReplacePolicy"):
            if isinstance(resource, dict) and isinstance(resource.get(key), dict):
                resource[key] = resolver.resolve(resource[key])
    return made


def _name(value: Any, resolver: Resolver) -> Any:
    """`value` with the logical ids of Ref and Fn::GetAtt in plain text; the transform takes functions there."""
    if isinstance(value, list):
        return [_name(item, resolver) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and isinstance(value.get("Ref"), dict):
        return {"Ref": resolver.resolve(value["Ref"])}
    parts = value.get("Fn::GetAtt")
    if len(value) == 1 and isinstance(parts, list) and parts and isinstance(parts[0], dict):
        return {"Fn::GetAtt": [resolver.resolve(parts[0]), *parts[1:]]}
    return {key: _name(item, resolver) for key, item in value.items()}


def _expand(value: Any, resolver: Resolver, bound: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_expand(item, resolver, bound) for item in value]
    if isinstance(value, str):
        return _fill(value, bound)
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and isinstance(value.get("Ref"), str) and value["Ref"] in bound:
        return bound[value["Ref"]]
    out: dict[str, Any] = {}
    for key, item in value.items():
        if key.startswith(FOR_EACH):
            for name, made in _loop(key, item, resolver, bound).items():
                if name in out:
                    raise invalid(f"Template format error: {key} makes {name} twice")
                out[name] = made
        else:
            out[_fill(key, bound)] = _expand(item, resolver, bound)
    return out


def _loop(key: str, argument: Any, resolver: Resolver, bound: dict[str, str]) -> dict[str, Any]:
    if not isinstance(argument, list) or len(argument) != 3 or not isinstance(argument[2], dict):
        raise invalid(f"Template format error: {key} needs a list of an identifier, a collection and a map")
    identifier, collection, fragment = argument
    if not isinstance(identifier, str) or identifier in bound or identifier in resolver.values:
        raise invalid(f"Template format error: the identifier of {key} must be a new name")
    elements = resolver.resolve(_expand(collection, resolver, bound))
    if not isinstance(elements, list) or any(isinstance(item, (dict, list)) for item in elements):
        raise invalid(f"Template format error: the collection of {key} must be a list of strings")
    out: dict[str, Any] = {}
    for element in elements:
        made = _expand(fragment, resolver, {**bound, identifier: text_of(element)})
        for name, item in made.items():
            if name in out:
                raise invalid(f"Template format error: {key} makes {name} twice")
            out[name] = item
    return out


def _fill(text: str, bound: dict[str, str]) -> str:
    """`${Name}` as it is, `&{Name}` without what is not alphanumeric."""
    for name, value in bound.items():
        text = text.replace("${" + name + "}", value)
        text = text.replace("&{" + name + "}", re.sub(r"[^A-Za-z0-9]", "", value))
    return text

"""CloudFormation's functions: what a template's values come to once names mean something.

`Resolver.resolve` turns a value into plain strings, numbers, lists and maps; `references` tells which names a value
needs; `dynamic` fills in `{{resolve:..}}`. A reference that has no value yet is the caller's business (`Names`).
"""

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.template.parameters import text_of
from preheat.template.read import LANGUAGE_TRANSFORM, invalid, malformed

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:]+\Z")
_DYNAMIC = re.compile(r"\{\{resolve:([a-z-]+):([^{}]+)\}\}")
KNOWN_AFTER_APPLY = "{{changeSet:KNOWN_AFTER_APPLY}}"
CONDITION_FUNCTIONS = frozenset(("Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals", "Condition"))
ZONES = "abc"


class _NoValue:
    def __repr__(self) -> str:
        return "AWS::NoValue"


NO_VALUE = _NoValue()


class Names(Protocol):
    """What the names of resources and exports stand for at this moment."""

    def ref(self, logical_id: str) -> Any: ...

    def get_att(self, logical_id: str, attribute: str) -> Any: ...

    def import_value(self, name: str) -> str: ...

    def unknown(self, value: Any) -> bool:
        """Whether `value` rests on something that is not known yet (then a function of it has no value either)."""


def pseudo_parameters(
    scope: Scope, stack_id: str, stack_name: str, notification_arns: list[str] | None = None
) -> dict[str, Any]:
    return {
        "AWS::AccountId": scope.account,
        "AWS::NotificationARNs": list(notification_arns or ()),
        "AWS::NoValue": NO_VALUE,
        "AWS::Partition": "aws",
        "AWS::Region": scope.region,
        "AWS::StackId": stack_id,
        "AWS::StackName": stack_name,
        "AWS::URLSuffix": "amazonaws.com",
    }


@dataclass(slots=True)
class Resolver:
    """`values`: parameters and pseudo parameters by name. `conditions` grows as conditions are evaluated."""

    body: dict[str, Any]
    values: dict[str, Any]
    names: Names
    conditions: dict[str, bool] = field(default_factory=dict)
    extended: bool = True

    def evaluate_conditions(self) -> dict[str, bool]:
        """Every condition of the template. Raises ValidationError for undefined and circular ones."""
        for name in self.body.get("Conditions") or {}:
            self.condition(name)
        return self.conditions

    def condition(self, name: str, path: tuple[str, ...] = ()) -> bool:
        if name in self.conditions:
            return self.conditions[name]
        declared = self.body.get("Conditions") or {}
        if name in path:
            raise invalid(f"Template format error: Circular dependency in Conditions: [{', '.join(path)}]")
        if name not in declared:
            raise invalid(
                f"Template format error: Unresolved condition dependency {name} in the Conditions block of the template"
            )
        self.conditions[name] = result = self._truth(declared[name], (*path, name))
        return result

    def _truth(self, value: Any, path: tuple[str, ...]) -> bool:
        if isinstance(value, dict) and len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Condition":
                return self.condition(argument, path)
            if name in ("Fn::And", "Fn::Or"):
                if not isinstance(argument, list) or not 2 <= len(argument) <= 10:
                    raise _wrong(name, "must be an array that contains between 2 and 10 conditions")
                results = [self._truth(item, path) for item in argument]
                return all(results) if name == "Fn::And" else any(results)
            if name == "Fn::Not":
                if not isinstance(argument, list) or len(argument) != 1:
                    raise _wrong(name, "must be an array that contains one condition")
                return not self._truth(argument[0], path)
            if name == "Fn::Equals":
                if not isinstance(argument, list) or len(argument) != 2:
                    raise invalid("Template error: every Fn::Equals object requires a list of 2 string parameters.")
                left, right = (self.resolve(item) for item in argument)
                return left == right or _same_text(left, right)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise malformed("Conditions can only be boolean operations on parameters and other conditions")

    # -- values -------------------------------------------------------------------------------------------------

    def resolve(self, value: Any) -> Any:
        """`value` with every function carried out. Members that are AWS::NoValue are left out."""
        if isinstance(value, dict):
            if len(value) == 1:
                ((name, argument),) = value.items()
                if name == "Ref":
                    return self._ref(argument)
                if name.startswith("Fn::"):
                    return self._function(name, argument)
                declared = self.body.get("Conditions") or {}
                if name == "Condition" and isinstance(argument, str) and argument in declared:
                    return self.condition(argument)
            resolved = ((key, self.resolve(item)) for key, item in value.items())
            return {key: item for key, item in resolved if item is not NO_VALUE}
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NO_VALUE]
        return value

    def _function(self, name: str, argument: Any) -> Any:
        if name in CONDITION_FUNCTIONS:
            return self._truth({name: argument}, ())
        function = _FUNCTIONS.get(name)
        if function is None:
            supported = ", ".join(sorted((*_FUNCTIONS, *CONDITION_FUNCTIONS - {"Condition"})))
            raise invalid(
                f"Template error: Encountered unsupported function: {name} Supported functions are: [{supported}]"
            )
        try:
            return function(self, argument)
        except AwsError:
            if self.names.unknown(argument):
                return KNOWN_AFTER_APPLY
            raise

    def _ref(self, name: Any) -> Any:
        if not isinstance(name, str):
            raise invalid("Template format error: Ref must be the name of a parameter or a resource")
        if name in self.values:
            return self.values[name]
        return self.names.ref(name)

    def _name(self, name: str) -> str:
        """A name inside Fn::Sub."""
        if name in self.values:
            return self.text(self.values[name], "Fn::Sub")
        logical_id, dot, attribute = name.partition(".")
        return self.text(self.names.get_att(logical_id, attribute) if dot else self.names.ref(name), "Fn::Sub")

    def text(self, value: Any, function: str) -> str:
        if isinstance(value, (dict, list)) or value is NO_VALUE or value is None:
            raise invalid(f"Template error: the result of a value in {function} is not a string")
        return text_of(value)

    def strings(self, value: Any, function: str) -> list[Any]:
        resolved = self.resolve(value)
        if not isinstance(resolved, list):
            raise _wrong(function, "requires a list argument")
        return resolved


def _wrong(name: str, what: str) -> Exception:
    return invalid(f"Template error: {name} {what}")


def _same_text(left: Any, right: Any) -> bool:
    plain = (str, int, float, bool)
    return isinstance(left, plain) and isinstance(right, plain) and text_of(left) == text_of(right)


def _pair(name: str, argument: Any, least: int = 2, most: int = 2) -> list[Any]:
    if not isinstance(argument, list) or not least <= len(argument) <= most:
        raise _wrong(name, f"requires a list of {least} to {most} arguments" if least != most else
                     f"requires a list of {least} arguments")  # fmt: skip
    return argument


def _get_att(resolver: Resolver, argument: Any) -> Any:
    logical_id, attribute = split_get_att(argument)
    return resolver.names.get_att(logical_id, resolver.text(resolver.resolve(attribute), "Fn::GetAtt"))


def split_get_att(argument: Any) -> tuple[str, Any]:
    """Logical id and attribute of any form of Fn::GetAtt."""
    parts = argument.split(".", 1) if isinstance(argument, str) else argument
    if not isinstance(parts, list) or len(parts) < 2 or not isinstance(parts[0], str):
        raise invalid("Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name "
                      "and the resource attribute")  # fmt: skip
    if len(parts) > 2:
        return parts[0], ".".join(parts[1:])
    return parts[0], parts[1]


def _sub(resolver: Resolver, argument: Any) -> str:
    text, local = sub_parts(argument)
    local = {key: resolver.text(resolver.resolve(item), "Fn::Sub") for key, item in local.items()}

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name.startswith("!"):
            return "${" + name[1:] + "}"
        name = name.strip()
        return local[name] if name in local else resolver._name(name)

    return _VARIABLE.sub(replace, text)


def sub_parts(argument: Any) -> tuple[str, dict[str, Any]]:
    """Text and own variables of Fn::Sub."""
    text, local = argument, {}
    if isinstance(argument, list) and len(argument) == 2:
        text, local = argument
    if not isinstance(text, str) or not isinstance(local, dict):
        raise invalid(
            "Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify "
            "a string as first argument, and an optional second argument to specify a mapping of values to replace in "
            "the string"
        )
    for name in _VARIABLE.findall(text):
        if not name.startswith("!") and not _PLAIN_NAME.match(name.strip()):
            raise invalid("Template error: variable names in Fn::Sub syntax must contain only alphanumeric characters, "
                          "underscores, periods, and colons")  # fmt: skip
    return text, local


def sub_names(argument: Any) -> list[str]:
    """Names that Fn::Sub takes from outside itself."""
    text, local = sub_parts(argument)
    found = (name.strip() for name in _VARIABLE.findall(text) if not name.startswith("!"))
    return [name for name in found if name not in local]


def _join(resolver: Resolver, argument: Any) -> str:
    separator, items = _pair("Fn::Join", argument)
    if not isinstance(separator, str):
        raise invalid("Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a "
                      "list of strings to be joined or a function that returns a list of strings")  # fmt: skip
    return separator.join(resolver.text(item, "Fn::Join") for item in resolver.strings(items, "Fn::Join"))


def _split(resolver: Resolver, argument: Any) -> list[str]:
    separator, text = _pair("Fn::Split", argument)
    whole, mark = (resolver.text(resolver.resolve(item), "Fn::Split") for item in (text, separator))
    return whole.split(mark)


def _select(resolver: Resolver, argument: Any) -> Any:
    index, items = _pair("Fn::Select", argument)
    values = resolver.strings(items, "Fn::Select")
    try:
        number = int(resolver.resolve(index))
    except (TypeError, ValueError):
        raise _wrong("Fn::Select", "requires an integer as its first argument") from None
    if not 0 <= number < len(values):
        raise _wrong("Fn::Select", " cannot select nonexistent value at index " + str(number))
    return values[number]


def _find_in_map(resolver: Resolver, argument: Any) -> Any:
    arguments = _pair("Fn::FindInMap", argument, 3, 4)
    default: Any = NO_VALUE
    if len(arguments) == 4:
        extra = arguments[3]
        if not isinstance(extra, dict) or set(extra) != {"DefaultValue"} or not resolver.extended:
            raise _wrong("Fn::FindInMap", "requires a list of 3 arguments")
        default = extra["DefaultValue"]
    name, first, second = (resolver.text(resolver.resolve(item), "Fn::FindInMap") for item in arguments[:3])
    found = (resolver.body.get("Mappings") or {}).get(name, {}).get(first, {}).get(second)
    if found is None:
        if default is not NO_VALUE:
            return resolver.resolve(default)
        raise invalid(f"Template error: Unable to get mapping for {name}::{first}::{second}")
    return found


def _import_value(resolver: Resolver, argument: Any) -> str:
    return resolver.names.import_value(resolver.text(resolver.resolve(argument), "Fn::ImportValue"))


def _base64(resolver: Resolver, argument: Any) -> str:
    return base64.b64encode(resolver.text(resolver.resolve(argument), "Fn::Base64").encode()).decode()


def _cidr(resolver: Resolver, argument: Any) -> list[str]:
    block, count, *rest = (resolver.resolve(item) for item in _pair("Fn::Cidr", argument, 2, 3))
    try:
        network = ipaddress.ip_network(block, strict=False)
        prefix = network.max_prefixlen - (int(rest[0]) if rest else 8)
        subnets = network.subnets(new_prefix=prefix)
        found = [str(subnet) for subnet, _ in zip(subnets, range(int(count)), strict=False)]
    except (TypeError, ValueError) as error:
        raise _wrong("Fn::Cidr", f"object is malformed: {error}") from None
    if not 1 <= int(count) <= 256 or len(found) < int(count):
        raise _wrong("Fn::Cidr", f"cannot make {count} blocks of {block}")
    return found


def _get_azs(resolver: Resolver, argument: Any) -> list[str]:
    region = resolver.resolve(argument) or resolver.values["AWS::Region"]
    return [f"{region}{zone}" for zone in ZONES]


def _if(resolver: Resolver, argument: Any) -> Any:
    if not isinstance(argument, list) or len(argument) != 3:
        raise _wrong("Fn::If", "requires a list argument with three elements")
    name, yes, no = argument
    declared = resolver.body.get("Conditions") or {}
    truth = resolver.condition(name) if isinstance(name, str) and name in declared else None
    if truth is None:
        if isinstance(name, str):
            raise invalid(
                f"Template format error: Unresolved condition dependency {name} in the Resources block of the template"
            )
        truth = resolver._truth(name, ())
    return resolver.resolve(yes if truth else no)


def _length(resolver: Resolver, argument: Any) -> int:
    _extended(resolver, "Fn::Length")
    value = resolver.resolve(argument)
    if not isinstance(value, (list, dict)):
        raise _wrong("Fn::Length", "requires a list or a map")
    return len(value)


def _to_json(resolver: Resolver, argument: Any) -> str:
    _extended(resolver, "Fn::ToJsonString")
    value = resolver.resolve(argument)
    if not isinstance(value, (list, dict)):
        raise _wrong("Fn::ToJsonString", "requires a list or a map")
    return json.dumps(value, separators=(",", ":"))


def _extended(resolver: Resolver, name: str) -> None:
    if not resolver.extended:
        raise invalid(f"Template format error: {name} needs the transform {LANGUAGE_TRANSFORM}")


def _transform(resolver: Resolver, argument: Any) -> Any:
    name = argument.get("Name") if isinstance(argument, dict) else argument
    raise invalid(f"Template error: Preheat does not carry out Fn::Transform ({name}); write its result down")


_FUNCTIONS: dict[str, Callable[[Resolver, Any], Any]] = {
    "Fn::GetAtt": _get_att,
    "Fn::Sub": _sub,
    "Fn::Join": _join,
    "Fn::Split": _split,
    "Fn::Select": _select,
    "Fn::FindInMap": _find_in_map,
    "Fn::ImportValue": _import_value,
    "Fn::Base64": _base64,
    "Fn::Cidr": _cidr,
    "Fn::GetAZs": _get_azs,
    "Fn::If": _if,
    "Fn::Length": _length,
    "Fn::ToJsonString": _to_json,
    "Fn::Transform": _transform,
}


# -- names that a value needs ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """`attribute` is None for a Ref; `how` the function it stands in."""

    name: str
    attribute: str | None
    how: str


def references(value: Any, conditions: dict[str, bool] | None = None) -> Iterator[Reference]:
    """Names used in `value`; with `conditions`, only in the branches of Fn::If that are taken."""
    if isinstance(value, list):
        for item in value:
            yield from references(item, conditions)
    if not isinstance(value, dict):
        return
    if len(value) == 1:
        ((name, argument),) = value.items()
        if name == "Ref" and isinstance(argument, str):
            yield Reference(argument, None, "Ref")
            return
        if name == "Fn::GetAtt":
            logical_id, attribute = split_get_att(argument)
            yield Reference(logical_id, attribute if isinstance(attribute, str) else "", "Fn::GetAtt")
            yield from references(attribute, conditions)
            return
        if name == "Fn::Sub":
            for used in sub_names(argument):
                logical_id, dot, attribute = used.partition(".")
                yield Reference(logical_id, attribute if dot else None, "Fn::Sub") if dot else Reference(
                    used, None, "Fn::Sub"
                )
            if isinstance(argument, list):
                yield from references(argument[1], conditions)
            return
        if name == "Fn::If" and conditions is not None and isinstance(argument, list) and len(argument) == 3:
            taken = conditions.get(argument[0]) if isinstance(argument[0], str) else None
            if taken is not None:
                yield from references(argument[1] if taken else argument[2], conditions)
                return
    for item in value.values():
        yield from references(item, conditions)


# -- dynamic references ---------------------------------------------------------------------------------------------

ReadDynamic = Callable[[str, str], str]


def dynamic(value: Any, read: ReadDynamic) -> Any:
    """`value` with every `{{resolve:service:reference}}` replaced by what `read(service, reference)` gives."""
    if isinstance(value, dict):
        return {key: dynamic(item, read) for key, item in value.items()}
    if isinstance(value, list):
        return [dynamic(item, read) for item in value]
    if isinstance(value, str) and "{{resolve:" in value:
        return _DYNAMIC.sub(lambda match: read(match.group(1), match.group(2)), value)
    return value

"""A template's text to its sections: JSON or YAML with CloudFormation's tags, checked for form.

Every refusal is an `AwsError` "ValidationError" in CloudFormation's words. Nothing is resolved here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from preheat.kernel.errors import AwsError

MAX_BODY_BYTES = 51_200
MAX_URL_BODY_BYTES = 1_048_576
MAX_DESCRIPTION_BYTES = 1_024
MAX_RESOURCES = 500
MAX_PARAMETERS = 200
MAX_MAPPINGS = 200
MAX_OUTPUTS = 200
FORMAT_VERSION = "2010-09-09"
SAM_TRANSFORM = "AWS::Serverless-2016-10-31"
LANGUAGE_TRANSFORM = "AWS::LanguageExtensions"

SECTIONS = frozenset(
    (
        "AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Mappings", "Conditions", "Transform",
        "Resources", "Outputs", "Globals", "Rules", "Hooks",
    )
)  # fmt: skip
RESOURCE_KEYS = frozenset(
    (
        "Type", "Properties", "DependsOn", "Condition", "Metadata", "DeletionPolicy", "UpdateReplacePolicy",
        "CreationPolicy", "UpdatePolicy", "Connectors", "IgnoreGlobals",
    )
)  # fmt: skip
SHORT_FORMS = frozenset(
    (
        "Ref", "Condition", "GetAtt", "Sub", "Join", "Split", "Select", "FindInMap", "ImportValue", "Base64", "Cidr",
        "GetAZs", "If", "And", "Or", "Not", "Equals", "Transform", "Length", "ToJsonString", "Contains",
        "EachMemberIn", "EachMemberEquals", "RefAll", "ValueOf", "ValueOfAll",
    )
)  # fmt: skip
POLICIES = ("Delete", "Retain", "Snapshot", "RetainExceptOnCreate")
PARAMETER_KEYS = frozenset(
    (
        "Type", "Default", "Description", "AllowedValues", "AllowedPattern", "ConstraintDescription", "MaxLength",
        "MinLength", "MaxValue", "MinValue", "NoEcho",
    )
)  # fmt: skip
_NAME = re.compile(r"[a-zA-Z0-9]+\Z")


def invalid(message: str) -> AwsError:
    return AwsError("ValidationError", message, 400)


def malformed(message: str) -> AwsError:
    return invalid(f"Template format error: {message}")


def null_value(path: str) -> AwsError:
    return invalid(f"[{path}] 'null' values are not allowed in templates")


@dataclass(frozen=True, slots=True)
class Template:
    """A template in its long form (`{"Ref": ..}`, `{"Fn::Sub": ..}`), well formed, not yet resolved."""

    body: dict[str, Any]

    def section(self, name: str) -> dict[str, Any]:
        return self.body.get(name) or {}

    @property
    def description(self) -> str:
        return self.body.get("Description") or ""

    @property
    def resources(self) -> dict[str, Any]:
        return self.section("Resources")

    @property
    def transforms(self) -> list[str]:
        """Names of the declared transforms, in order."""
        declared = self.body.get("Transform") or []
        if not isinstance(declared, list):
            declared = [declared]
        return [item["Name"] if isinstance(item, dict) else item for item in declared]


def read_template(text: str) -> Template:
    """Parse and check a template's form. Raises AwsError ValidationError."""
    body = parse(text)
    if not isinstance(body, dict):
        raise malformed("unsupported structure.")
    template = Template(body)
    _check_sections(template)
    _check_parameters(template)
    _check_mappings(template)
    if LANGUAGE_TRANSFORM not in template.transforms:
        check_resources(template)
        check_outputs(template)
    return template


def parse(text: str) -> Any:
    """The document of a JSON or YAML text, short forms made long."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            json_error = malformed(f"JSON not well-formed. (line {error.lineno}, column {error.colno + 1})")
        try:
            return _parse_yaml(text)
        except AwsError:
            raise json_error from None
    return _parse_yaml(text)


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return None if node is None else _construct(node, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise malformed(f"YAML not well-formed.{where}") from None
    except yaml.YAMLError:
        raise malformed("YAML not well-formed.") from None


def _construct(node: Any, seen: set[int]) -> Any:
    """A YAML node to plain values. Mapping keys and dates stay the text they are, as CloudFormation reads them."""
    kind = node.id
    if kind != "scalar":
        if id(node) in seen:
            raise invalid("Template error: YAML aliases are not allowed in CloudFormation templates")
        seen.add(id(node))
    if kind == "mapping":
        value: Any = {}
        for key, item in node.value:
            if key.id != "scalar":
                raise _at(key, "a key must be a scalar")
            value[key.value] = _construct(item, seen)
    elif kind == "sequence":
        value = [_construct(item, seen) for item in node.value]
    else:
        value = _scalar(node)
    tag = node.tag
    if not tag.startswith("!"):
        return value
    name = tag[1:]
    if name not in SHORT_FORMS:
        raise _at(node, f"unknown tag {tag}")
    if kind == "scalar":
        value = node.value
    if name in ("Ref", "Condition"):
        return {name: value}
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{name}": value}


def _at(node: Any, problem: str) -> AwsError:
    mark = node.start_mark
    return malformed(f"YAML not well-formed. (line {mark.line + 1}, column {mark.column + 1}): {problem}")


def _scalar(node: Any) -> Any:
    tag, text = node.tag, node.value
    if tag == "tag:yaml.org,2002:null":
        return None
    if tag == "tag:yaml.org,2002:bool":
        return text.lower() in ("true", "yes", "on")
    if tag == "tag:yaml.org,2002:int":
        return int(text) if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text) else text
    if tag == "tag:yaml.org,2002:float":
        try:
            return float(text)
        except ValueError:
            return text
    return text


# -- form -----------------------------------------------------------------------------------------------------------


def _check_sections(template: Template) -> None:
    body = template.body
    unknown = [name for name in body if name not in SECTIONS]
    if unknown:
        raise invalid(f"Invalid template property or properties [{', '.join(unknown)}]")
    version = body.get("AWSTemplateFormatVersion")
    if version is not None and version != FORMAT_VERSION:
        raise malformed("unsupported value for AWSTemplateFormatVersion.")
    description = body.get("Description")
    if description is not None and not isinstance(description, str):
        raise malformed("Template Description must be a string.")
    if description is not None and len(description.encode()) > MAX_DESCRIPTION_BYTES:
        raise malformed(f"'Description' length is greater than {MAX_DESCRIPTION_BYTES}.")
    for name in ("Parameters", "Mappings", "Conditions", "Resources", "Outputs", "Rules", "Metadata", "Globals"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            if name == "Resources":
                raise malformed("Any Resources member must be an object.")
            raise malformed(f"{name} section must be a map.")
    if body.get("Hooks"):
        raise invalid("Template error: Preheat does not implement the Hooks section; take it out of the template")
    if not body.get("Resources"):
        raise malformed("At least one Resources member must be defined.")
    for name in template.transforms:
        if not isinstance(name, str):
            raise invalid("Key Name of transform definition must be a string.")
        if name not in (SAM_TRANSFORM, LANGUAGE_TRANSFORM):
            raise invalid(f"No transform named {name} found.")
    if body.get("Globals") and SAM_TRANSFORM not in template.transforms:
        raise invalid("Invalid template property or properties [Globals]")


def _check_parameters(template: Template) -> None:
    parameters = template.section("Parameters")
    _check_count("parameters", parameters, MAX_PARAMETERS)
    for name, declared in parameters.items():
        _check_name("Parameter", name)
        if not isinstance(declared, dict) or "Type" not in declared:
            raise malformed("Every Parameters object must contain a Type member.")
        unknown = [key for key in declared if key not in PARAMETER_KEYS]
        if unknown:
            raise invalid(f"Invalid template parameter property '{unknown[0]}'")
        if not known_parameter_type(declared["Type"]):
            raise malformed(f"Unrecognized parameter type: {declared['Type']}")
        default = declared.get("Default")
        if default is not None and isinstance(default, (dict, list)):
            raise malformed("Every Default member must be a string.")


def known_parameter_type(name: Any) -> bool:
    """String, Number, lists, and SSM parameters of them; AWS-specific types (a VPC's id ...) are read as strings."""
    if not isinstance(name, str):
        return False
    inner = re.fullmatch(r"AWS::SSM::Parameter::Value<(.+)>", name)
    if inner:
        return known_parameter_type(inner.group(1))
    inner = re.fullmatch(r"List<(.+)>", name)
    if inner:
        name = inner.group(1)
    return name in ("String", "Number", "CommaDelimitedList", "AWS::SSM::Parameter::Name") or bool(
        re.fullmatch(r"AWS::(EC2|Route53)::[A-Za-z:]+", name)
    )


def _check_mappings(template: Template) -> None:
    mappings = template.section("Mappings")
    _check_count("mappings", mappings, MAX_MAPPINGS)
    for name, mapping in mappings.items():
        _check_name("Mapping", name)
        if not isinstance(mapping, dict):
            raise malformed(f"Every Mappings member {name} must be a map")
        for key, item in mapping.items():
            if not isinstance(item, dict):
                raise malformed(f"Every Mappings member {key} must be a map")
            if any(isinstance(value, dict) or value is None for value in item.values()):
                raise malformed("Every Mappings attribute must be a String or a List.")


def check_resources(template: Template) -> None:
    resources = template.resources
    _check_count("resources", resources, MAX_RESOURCES)
    for name, resource in resources.items():
        _check_name("Resource", name)
        if not isinstance(resource, dict):
            raise malformed("Resources must contain only objects.")
        if not isinstance(resource.get("Type"), str):
            raise malformed(f"[/Resources/{name}] Every Resources object must contain a Type member.")
        unknown = [key for key in resource if key not in RESOURCE_KEYS]
        if unknown:
            raise invalid(f"Invalid template resource property '{unknown[0]}'")
        properties = resource.get("Properties")
        if properties is not None and not isinstance(properties, dict):
            raise null_value(f"/Resources/{name}/Properties")
        for key in ("DeletionPolicy", "UpdateReplacePolicy"):
            if key in resource and not isinstance(resource[key], str):
                raise malformed(f"Every {key} member must be a string.")
            if key in resource and resource[key] not in POLICIES:
                raise malformed(f"Unrecognized {key} {resource[key]} for resource {name}")
        null = next(find_null(properties, f"/Resources/{name}/Properties"), None)
        if null is not None:
            raise null_value(null)
        for used in _listed(resource.get("DependsOn")):
            if used not in resources:
                raise malformed(f"Unresolved resource dependencies [{used}] in the Resources block of the template")


def check_outputs(template: Template) -> None:
    outputs = template.section("Outputs")
    _check_count("outputs", outputs, MAX_OUTPUTS)
    for name, output in outputs.items():
        _check_name("Output", name)
        null = next(find_null(output, f"/Outputs/{name}"), None)
        if null is not None:
            raise null_value(null)
        if not isinstance(output, dict) or "Value" not in output:
            raise malformed("Every Outputs member must contain a Value object")
        unknown = [key for key in output if key not in ("Value", "Description", "Export", "Condition")]
        if unknown:
            raise malformed(f"Output {name} is malformed. Unknown member {unknown[0]}")
        export = output.get("Export")
        if export is not None and (not isinstance(export, dict) or "Name" not in export):
            raise malformed(f"Output {name} is malformed. The Name field of every Export member must be specified")


def find_null(value: Any, path: str) -> Iterator[str]:
    """Paths of null values inside `value`."""
    if isinstance(value, dict):
        for key, item in value.items():
            if item is None:
                yield f"{path}/{key}"
            else:
                yield from find_null(item, f"{path}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if item is None:
                yield f"{path}/{index}"
            else:
                yield from find_null(item, f"{path}/{index}")


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _check_count(what: str, section: dict, most: int) -> None:
    if len(section) > most:
        raise malformed(f"Number of {what}, {len(section)}, is greater than maximum allowed, {most}")


def _check_name(kind: str, name: str) -> None:
    if not _NAME.match(name):
        raise malformed(f"{kind} name {name} is non alphanumeric.")

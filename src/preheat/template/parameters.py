"""The values of a template's parameters: given, previous, default or from Systems Manager, each held to its rules."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from preheat.template.read import Template, invalid, malformed

HIDDEN = "****"
_SSM_VALUE = re.compile(r"AWS::SSM::Parameter::Value<(.+)>\Z")


@dataclass(frozen=True, slots=True)
class Parameter:
    """`given` is the text that was passed (for an SSM parameter its name); `value` what a Ref gives: text or a list."""

    name: str
    given: str
    value: str | list[str]
    no_echo: bool
    from_ssm: bool

    def described(self) -> dict[str, str]:
        """As DescribeStacks shows it."""
        shown = {"ParameterKey": self.name, "ParameterValue": HIDDEN if self.no_echo else self.given}
        if self.from_ssm:
            value = self.value if isinstance(self.value, str) else ",".join(self.value)
            shown["ResolvedValue"] = HIDDEN if self.no_echo else value
        return shown


def resolve_parameters(
    template: Template,
    given: list[dict[str, Any]],
    previous: dict[str, str],
    read_ssm: Callable[[str], str | None],
) -> dict[str, Parameter]:
    """`given` as the API's Parameters; `previous` the texts of the stack's last deployment. Raises ValidationError.

    `read_ssm(name)` gives a Systems Manager parameter's value, None when there is none.
    """
    declared = template.section("Parameters")
    texts: dict[str, str] = {}
    for item in given:
        name = item.get("ParameterKey", "")
        if name in texts:
            raise invalid(f"Duplicate input parameter key: {name}")
        if item.get("UsePreviousValue"):
            if item.get("ParameterValue"):
                raise invalid(
                    f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as true and non empty "
                    "value for a parameter"
                )
            if name not in previous:
                raise invalid(
                    f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a parameter "
                    "key not in the previous template"
                )
            texts[name] = previous[name]
        else:
            texts[name] = item.get("ParameterValue", "")
    unknown = [name for name in texts if name not in declared]
    if unknown:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    missing = [name for name, rule in declared.items() if name not in texts and "Default" not in rule]
    if missing:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    found = {}
    for name, rule in declared.items():
        text = texts[name] if name in texts else text_of(rule["Default"])
        found[name] = _resolve(name, rule, text, read_ssm)
    return found


def text_of(value: Any) -> str:
    """A scalar as CloudFormation prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _resolve(name: str, rule: dict[str, Any], text: str, read_ssm: Callable[[str], str | None]) -> Parameter:
    kind = rule["Type"]
    no_echo = text_of(rule.get("NoEcho", False)).lower() == "true"
    check(name, rule, text)
    inner = _SSM_VALUE.match(kind)
    if inner is None:
        return Parameter(name, text, _split(kind, text), no_echo, False)
    value = read_ssm(text)
    if value is None:
        raise invalid(f"Unable to fetch parameters [{text}] from parameter store for this account.")
    return Parameter(name, text, _split(inner.group(1), value), no_echo, True)


def _split(kind: str, text: str) -> str | list[str]:
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        return [part.strip() for part in text.split(",")] if text else []
    return text


def check(name: str, rule: dict[str, Any], text: str) -> None:
    """Hold one parameter's text to its declaration."""
    kind = rule["Type"]
    if kind in ("Number", "List<Number>"):
        for part in text.split(",") if kind != "Number" else [text]:
            _check_number(name, rule, part.strip())
    parts = [part.strip() for part in text.split(",")] if kind.startswith(("List<", "CommaDelimitedList")) else [text]
    allowed = rule.get("AllowedValues")
    if allowed is not None:
        texts = {text_of(value) for value in allowed}
        if any(part not in texts for part in parts):
            raise _refused(name, rule, f"Parameter '{name}' must be one of AllowedValues")
    pattern = rule.get("AllowedPattern")
    if pattern is not None:
        try:
            matches = all(re.fullmatch(pattern, part) for part in parts)
        except re.error:
            raise malformed(f"AllowedPattern {pattern} of {name} is no regular expression") from None
        if not matches:
            raise _refused(name, rule, f"Parameter '{name}' must match pattern {pattern}")
    if kind == "String":
        least, most = rule.get("MinLength"), rule.get("MaxLength")
        if least is not None and len(text) < int(least):
            raise _refused(name, rule, f"Parameter '{name}' must contain at least {least} characters")
        if most is not None and len(text) > int(most):
            raise _refused(name, rule, f"Parameter '{name}' must contain at most {most} characters")


def _check_number(name: str, rule: dict[str, Any], text: str) -> None:
    try:
        number = float(text)
    except ValueError:
        raise invalid(f"Parameter '{name}' must be a number.") from None
    least, most = rule.get("MinValue"), rule.get("MaxValue")
    if least is not None and number < float(least):
        raise _refused(name, rule, f"Parameter '{name}' must be a number not less than {text_of(least)}")
    if most is not None and number > float(most):
        raise _refused(name, rule, f"Parameter '{name}' must be a number not greater than {text_of(most)}")


def _refused(name: str, rule: dict[str, Any], message: str) -> Exception:
    explained = rule.get("ConstraintDescription")
    if explained:
        return invalid(f"Parameter '{name}' failed to satisfy constraint: {explained}")
    return invalid(message)

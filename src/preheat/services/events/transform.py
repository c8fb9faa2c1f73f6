"""What a target is sent: the event, a part of it, a constant, or a template filled in from it."""

import json
import re
from typing import Any

from preheat.services.events.domain import compact, invalid

MAX_PATHS = 100
_STEP = re.compile(r"\.([\w-]+)|\[(\d+|\*)\]|\[(?:'([^']*)'|\"([^\"]*)\")\]")
_PLACEHOLDER = re.compile(r"<([\w.-]+)>")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
RESERVED = frozenset(
    {
        "aws.events.rule-arn", "aws.events.rule-name", "aws.events.event.ingestion-time", "aws.events.event",
        "aws.events.event.json",
    }
)  # fmt: skip
_MISSING = object()


def parse_path(path: str) -> list[str | int]:
    """The steps of a JSON path like `$.detail.items[0]`: names, numbers, and "*" as itself after a bracket, here -1.
    Raises ValueError."""
    if not path.startswith("$"):
        raise ValueError(f"{path!r} does not begin with $")
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise ValueError(f"{path!r} is not a path")
        name, index, single, double = found.groups()
        if index is not None:
            steps.append(-1 if index == "*" else int(index))
        else:
            steps.append(next(text for text in (name, single, double) if text is not None))
        at = found.end()
    return steps


def find(path: str, event: Any) -> Any:
    """The value at a path; `_MISSING` when there is none. Raises ValueError for what is no path."""
    return _walk(event, parse_path(path))


def _walk(value: Any, steps: list[str | int]) -> Any:
    for index, step in enumerate(steps):
        if isinstance(step, str):
            if not isinstance(value, dict) or step not in value:
                return _MISSING
            value = value[step]
        elif not isinstance(value, list):
            return _MISSING
        elif step == -1:
            found = [_walk(item, steps[index + 1 :]) for item in value]
            return [item for item in found if item is not _MISSING]
        elif step >= len(value):
            return _MISSING
        else:
            value = value[step]
    return value


def text_at(path: str, event: Any) -> str | None:
    """The value at a path as text, None when there is none."""
    value = find(path, event)
    if value is _MISSING or value is None:
        return None
    return value if isinstance(value, str) else compact(value)


# -- checking ---------------------------------------------------------------------------------------------------------


def check(target: dict[str, Any]) -> None:
    """Raises ValidationException for a target whose input cannot be made."""
    name = target["Id"]
    if sum(member in target for member in ("Input", "InputPath", "InputTransformer")) > 1:
        raise invalid(f"Only one of Input, InputPath, or InputTransformer must be provided for target {name}.")
    if "Input" in target:
        try:
            json.loads(target["Input"])
        except ValueError:
            raise invalid(f"JSON syntax error in input for target {name}") from None
    if "InputPath" in target:
        _check_path(target["InputPath"], f"Invalid InputPath for target {name}.")
    if "InputTransformer" in target:
        _check_transformer(name, target["InputTransformer"])


def _check_path(path: str, message: str) -> None:
    try:
        parse_path(path)
    except ValueError:
        raise invalid(message) from None


def _check_transformer(name: str, transformer: dict[str, Any]) -> None:
    paths, template = transformer.get("InputPathsMap", {}), transformer["InputTemplate"]
    if len(paths) > MAX_PATHS:
        raise invalid(f"InputPathsMap for target {name} has more than {MAX_PATHS} entries.")
    for key, path in paths.items():
        if key.startswith("AWS") or not re.fullmatch(r"[\w.-]+", key):
            raise invalid(f"InputPathsMap for target {name} contains invalid key {key}.")
        _check_path(path, f"InputPathsMap for target {name} contains invalid path {path}.")
    for key in _PLACEHOLDER.findall(template):
        if key not in paths and key not in RESERVED:
            raise invalid(f"InputTemplate for target {name} contains invalid placeholder {key}.")
    filled = _fill(template, dict.fromkeys([*paths, *RESERVED], "x"))
    if template.lstrip().startswith('"'):
        lines = [line.strip() for line in filled.splitlines() if line.strip()]
        if any(_QUOTED.fullmatch(line) is None for line in lines):
            raise invalid(f"Invalid InputTemplate for target {name} : a template of text is in double quotes.")
        return
    try:
        json.loads(filled)
    except ValueError as error:
        raise invalid(f"Invalid InputTemplate for target {name} : {error}") from None


# -- making -----------------------------------------------------------------------------------------------------------


def body(
    target: dict[str, Any], event: dict[str, Any], whole: str, rule_arn: str, rule_name: str, ingested: str
) -> str:
    """What the target is sent. `whole` is the event as text, `ingested` the moment it came in, as text."""
    if "Input" in target:
        return target["Input"]
    if "InputPath" in target:
        value = find(target["InputPath"], event)
        return "null" if value is _MISSING else compact(value)
    transformer = target.get("InputTransformer")
    if transformer is None:
        return whole
    values: dict[str, Any] = {
        "aws.events.rule-arn": rule_arn,
        "aws.events.rule-name": rule_name,
        "aws.events.event.ingestion-time": ingested,
        "aws.events.event": _without_detail(event),
        "aws.events.event.json": event,
    }
    for key, path in transformer.get("InputPathsMap", {}).items():
        value = find(path, event)
        values[key] = "" if value is _MISSING else value
    return _fill(transformer["InputTemplate"], values)


def _without_detail(event: dict[str, Any]) -> dict[str, Any]:
    """The event as `<aws.events.event>` tells it: no detail, a name of its own for the detail-type, another order."""
    names = {
        "id": "id", "account": "account", "detailType": "detail-type", "time": "time", "source": "source",
        "region": "region", "resources": "resources", "version": "version", "replay-name": "replay-name",
    }  # fmt: skip
    return {shown: event[name] for shown, name in names.items() if name in event}


def _fill(template: str, values: dict[str, Any]) -> str:
    """Placeholders inside quotes become text, others JSON."""
    parts, at = [], 0
    for quoted in _QUOTED.finditer(template):
        parts.append(_PLACEHOLDER.sub(lambda found: compact(values.get(found[1], "")), template[at : quoted.start()]))
        parts.append(_PLACEHOLDER.sub(lambda found: _inside(values.get(found[1], "")), quoted.group()))
        at = quoted.end()
    parts.append(_PLACEHOLDER.sub(lambda found: compact(values.get(found[1], "")), template[at:]))
    return "".join(parts)


def _inside(value: Any) -> str:
    """A value inside a quoted text: an object or list loses its quotes, as on AWS."""
    if isinstance(value, str):
        return compact(value)[1:-1]
    text = compact(value)
    return text.replace('"', "") if isinstance(value, dict | list) else text

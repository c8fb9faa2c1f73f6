"""Reading and checking a definition in the Amazon States Language (query language JSONPath)."""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from preheat.services.stepfunctions.language import choices, intrinsics, paths
from preheat.services.stepfunctions.language.choices import timestamp
from preheat.services.stepfunctions.language.paths import PathError
from preheat.services.stepfunctions.language.resources import Resource
from preheat.services.stepfunctions.language.resources import parse as parse_resource
from preheat.services.stepfunctions.language.templates import decode

MAX_NAME = 80
MAX_INTERVAL = 99_999_999
MAX_DELAY = 31_622_400
MAX_SECONDS = 99_999_999
SCHEMA = "SCHEMA_VALIDATION_FAILED"
_ALL = "Type Comment QueryLanguage"
_FLOW = f"{_ALL} InputPath OutputPath Next End Assign"
_WORK = f"{_FLOW} Parameters ResultSelector ResultPath Retry Catch"
FIELDS = {
    "Pass": f"{_FLOW} Parameters Result ResultPath",
    "Task": f"{_WORK} Resource TimeoutSeconds TimeoutSecondsPath HeartbeatSeconds HeartbeatSecondsPath Credentials",
    "Choice": f"{_ALL} InputPath OutputPath Choices Default Assign",
    "Wait": f"{_FLOW} Seconds SecondsPath Timestamp TimestampPath",
    "Succeed": f"{_ALL} InputPath OutputPath",
    "Fail": f"{_ALL} Error ErrorPath Cause CausePath",
    "Parallel": f"{_WORK} Branches",
    "Map": f"{_WORK} ItemProcessor Iterator ItemSelector ItemsPath MaxConcurrency MaxConcurrencyPath "
    "ToleratedFailureCount ToleratedFailureCountPath ToleratedFailurePercentage ToleratedFailurePercentagePath",
}
NEEDED = {"Task": "Resource", "Choice": "Choices", "Parallel": "Branches"}
DISTRIBUTED = ("ItemReader", "ItemBatcher", "ResultWriter", "Label")
NUMBERS = {
    "TimeoutSeconds": (1, MAX_SECONDS), "HeartbeatSeconds": (1, MAX_SECONDS), "Seconds": (0, MAX_SECONDS),
    "MaxConcurrency": (0, None), "ToleratedFailureCount": (0, None), "ToleratedFailurePercentage": (0, 100),
}  # fmt: skip
PATHS = (
    "InputPath", "OutputPath", "ItemsPath", "SecondsPath", "TimestampPath", "TimeoutSecondsPath",
    "HeartbeatSecondsPath", "MaxConcurrencyPath", "ToleratedFailureCountPath", "ToleratedFailurePercentagePath",
)  # fmt: skip
TEMPLATES = ("Parameters", "ResultSelector", "ItemSelector", "Assign", "Credentials")
Known = Callable[[Resource], bool]


class Diagnostic(NamedTuple):
    """`location` is a JSON pointer into the definition."""

    code: str
    message: str
    location: str
    severity: str = "ERROR"

    def __str__(self) -> str:
        return f"{self.code}: {self.message} at {self.location or '/'}"


Found = Iterator[Diagnostic]


def check(text: str, known: Known, kind: str = "STANDARD") -> list[Diagnostic]:
    """Everything that is wrong with a definition. `known`: whether a Task's resource is implemented; `kind` is the
    machine's type."""
    try:
        definition = decode(text)
    except ValueError:
        return [Diagnostic("INVALID_JSON_DESCRIPTION", "Could not parse the definition as JSON", "/")]
    if not isinstance(definition, dict):
        return [Diagnostic("INVALID_JSON_DESCRIPTION", "The definition is not a JSON object", "/")]
    return list(_Check(known, kind).machine(definition, "", "Version TimeoutSeconds QueryLanguage"))


class _Check:
    def __init__(self, known: Known, kind: str) -> None:
        self._known = known
        self._express = kind == "EXPRESS"
        self._names: set[str] = set()

    def machine(self, scope: dict[str, Any], at: str, more: str = "") -> Found:
        """One set of states: the top, a branch or an item processor."""
        for name in scope:
            if name not in f"Comment StartAt States {more}".split():
                yield Diagnostic(SCHEMA, f"Field '{name}' is not supported", f"{at}/{name}")
        yield from _language(scope, at)
        yield from _numbers(scope, at)
        states = scope.get("States")
        if not isinstance(states, dict) or not states:
            yield Diagnostic(SCHEMA, "These fields are required: [States]", at)
            return
        start = scope.get("StartAt")
        if not isinstance(start, str):
            yield Diagnostic(SCHEMA, "These fields are required: [StartAt]", at)
        elif start not in states:
            yield Diagnostic("MISSING_TRANSITION_TARGET", f"Missing 'StartAt' target: {start}", f"{at}/StartAt")
        for name, state in states.items():
            place = f"{at}/States/{name}"
            if len(name) > MAX_NAME or not name:
                yield Diagnostic(SCHEMA, f"A state's name has 1 to {MAX_NAME} characters", place)
            if name in self._names:
                yield Diagnostic("DUPLICATE_STATE_NAME", f"Duplicate state name: {name}", place)
            self._names.add(name)
            if not isinstance(state, dict):
                yield Diagnostic(SCHEMA, "A state must be an object", place)
                continue
            yield from self._state(state, states, place)

    def _state(self, state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
        kind = state.get("Type")
        if kind not in FIELDS:
            values = ", ".join(FIELDS)
            yield Diagnostic(SCHEMA, f"The field 'Type' should have one of these values: [{values}]", f"{at}/Type")
            return
        fields = FIELDS[kind].split()
        for name in state:
            if name in DISTRIBUTED and kind == "Map":
                yield Diagnostic(SCHEMA, f"Preheat does not implement distributed maps ({name})", f"{at}/{name}")
            elif name not in fields:
                yield Diagnostic(SCHEMA, f"Field '{name}' is not supported", f"{at}/{name}")
        if kind in NEEDED and NEEDED[kind] not in state:
            yield Diagnostic(SCHEMA, f"These fields are required: [{NEEDED[kind]}]", at)
            return
        yield from _language(state, at)
        yield from _numbers(state, at)
        yield from _data_flow(state, at)
        yield from _transition(state, kind, states, at)
        yield from _handlers(state, states, at)
        special = getattr(self, f"_{kind.lower()}", None)
        if special is not None:
            yield from special(state, states, at)

    # -- by type ----------------------------------------------------------------------------------------------------

    def _task(self, state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
        text, place = state["Resource"], f"{at}/Resource"
        resource = parse_resource(text) if isinstance(text, str) else None
        if resource is None or (resource.kind == "call" and not self._known(resource)):
            yield Diagnostic(
                SCHEMA, f"The resource provided {text} is not recognized. The value is not a valid resource ARN, or "
                "the resource is not available in this region.", place,
            )  # fmt: skip
            return
        if self._express and (resource.pattern or resource.kind == "activity"):
            what = resource.shown_action if resource.pattern else "an activity"
            yield Diagnostic(SCHEMA, f"Express state machines do not support {what}", place)
        if "HeartbeatSeconds" in state and "TimeoutSeconds" in state:
            both = (state["HeartbeatSeconds"], state["TimeoutSeconds"])
            if all(isinstance(one, int) for one in both) and both[0] >= both[1]:
                yield Diagnostic(SCHEMA, "HeartbeatSeconds must be less than TimeoutSeconds", f"{at}/HeartbeatSeconds")
        if resource.pattern == "token" and "$$.Task.Token" not in json.dumps(state.get("Parameters", {})):
            yield Diagnostic(SCHEMA, "The Parameters must pass on $$.Task.Token", f"{at}/Parameters")

    def _choice(self, state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
        rules = state["Choices"]
        if not isinstance(rules, list) or not rules:
            yield Diagnostic(SCHEMA, "Choices must be a list that is not empty", f"{at}/Choices")
            return
        for index, rule in enumerate(rules):
            place = f"{at}/Choices[{index}]"
            yield from _rule(rule, place, top=True)
            if isinstance(rule, dict):
                yield from _target(rule, "Next", states, place)
                if "Assign" in rule:
                    yield from _template(rule["Assign"], f"{place}/Assign")
        if "Default" in state:
            yield from _target(state, "Default", states, at)

    def _wait(self, state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
        given = [name for name in ("Seconds", "SecondsPath", "Timestamp", "TimestampPath") if name in state]
        if len(given) != 1:
            yield Diagnostic(SCHEMA, "A Wait state has one of Seconds, SecondsPath, Timestamp, TimestampPath", at)
        elif given[0] == "Timestamp" and timestamp(state["Timestamp"]) is None:
            yield Diagnostic(SCHEMA, "Timestamp must be a timestamp of RFC 3339", f"{at}/Timestamp")

    def _fail(self, state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
        for name in ("Error", "Cause"):
            if name in state and f"{name}Path" in state:
                yield Diagnostic(SCHEMA, f"{name} and {name}Path exclude each other", at)
            if not isinstance(state.get(name, ""), str):
                yield Diagnostic(SCHEMA, f"{name} must be a string", f"{at}/{name}")
            text = state.get(f"{name}Path", "$")
            intrinsic = isinstance(text, str) and text.startswith("States.")
            yield from (_dynamic if intrinsic else _path)(text, f"{at}/{name}Path")

    def _parallel(self, state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
        branches = state["Branches"]
        if not isinstance(branches, list) or not branches:
            yield Diagnostic(SCHEMA, "Branches must be a list that is not empty", f"{at}/Branches")
            return
        for index, branch in enumerate(branches):
            place = f"{at}/Branches[{index}]"
            if isinstance(branch, dict):
                yield from self.machine(branch, place, "QueryLanguage")
            else:
                yield Diagnostic(SCHEMA, "A branch must be an object", place)

    def _map(self, state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
        given = [name for name in ("ItemProcessor", "Iterator") if isinstance(state.get(name), dict)]
        if len(given) != 1:
            yield Diagnostic(SCHEMA, "These fields are required: [ItemProcessor]", at)
            return
        processor, place = state[given[0]], f"{at}/{given[0]}"
        mode = (processor.get("ProcessorConfig") or {}).get("Mode", "INLINE")
        if mode == "DISTRIBUTED":
            yield Diagnostic(SCHEMA, "Preheat does not implement maps in DISTRIBUTED mode", f"{place}/ProcessorConfig")
        elif mode != "INLINE" or set(processor.get("ProcessorConfig") or {}) - {"Mode"}:
            yield Diagnostic(SCHEMA, "ProcessorConfig has the Mode INLINE and nothing else", f"{place}/ProcessorConfig")
        if "ItemSelector" in state and "Parameters" in state:
            yield Diagnostic(SCHEMA, "ItemSelector and Parameters exclude each other", at)
        yield from self.machine(processor, place, "ProcessorConfig QueryLanguage")


def _language(part: dict[str, Any], at: str) -> Found:
    if part.get("QueryLanguage", "JSONPath") != "JSONPath":
        yield Diagnostic(SCHEMA, "Preheat implements the QueryLanguage JSONPath only", f"{at}/QueryLanguage")


def _numbers(part: dict[str, Any], at: str) -> Found:
    for name, (least, most) in NUMBERS.items():
        value = part.get(name, least)
        whole = isinstance(value, int) or (name.endswith("Percentage") and isinstance(value, float))
        if not whole or isinstance(value, bool) or value < least or (most is not None and value > most):
            span = f"at least {least}" if most is None else f"between {least} and {most}"
            yield Diagnostic(SCHEMA, f"{name} must be a number {span}", f"{at}/{name}")
        if name in part and f"{name}Path" in part:
            yield Diagnostic(SCHEMA, f"{name} and {name}Path exclude each other", at)


def _data_flow(state: dict[str, Any], at: str) -> Found:
    for name in PATHS:
        if name in state and not (state[name] is None and name in ("InputPath", "OutputPath")):
            yield from _path(state[name], f"{at}/{name}")
    for name in TEMPLATES:
        if name in state:
            yield from _template(state[name], f"{at}/{name}")
    if state.get("ResultPath") is not None:
        yield from _reference(state["ResultPath"], f"{at}/ResultPath")


def _path(text: Any, at: str) -> Found:
    try:
        paths.parse(text)
    except (PathError, AttributeError, TypeError):
        yield Diagnostic(SCHEMA, "Value is not a valid JSONPath", at)


def _reference(text: Any, at: str) -> Found:
    try:
        paths.reference(text)
    except (PathError, AttributeError, TypeError):
        yield Diagnostic(SCHEMA, "Value is not a Reference Path", at)


def _dynamic(text: Any, at: str) -> Found:
    try:
        (paths if text.startswith("$") else intrinsics).parse(text)
    except (PathError, AttributeError, TypeError):
        yield Diagnostic(
            SCHEMA, "The value for the field must be a valid JSONPath or a valid intrinsic function call", at
        )


def _template(value: Any, at: str) -> Found:
    if isinstance(value, dict):
        for name, item in value.items():
            place = f"{at}/{name}"
            yield from _dynamic(item, place) if name.endswith(".$") else _template(item, place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _template(item, f"{at}[{index}]")


def _target(part: dict[str, Any], member: str, states: dict[str, Any], at: str) -> Found:
    target = part.get(member)
    if not isinstance(target, str):
        yield Diagnostic(SCHEMA, f"These fields are required: [{member}]", at)
    elif target not in states:
        yield Diagnostic("MISSING_TRANSITION_TARGET", f"Missing '{member}' target: {target}", f"{at}/{member}")


def _transition(state: dict[str, Any], kind: str, states: dict[str, Any], at: str) -> Found:
    if kind in ("Choice", "Succeed", "Fail"):
        return
    if state.get("End") is True:
        if "Next" in state:
            yield Diagnostic(SCHEMA, "Next and End exclude each other", at)
        return
    if "Next" not in state:
        yield Diagnostic("MISSING_END_STATE" if "End" in state else SCHEMA, "A state needs Next or End", at)
        return
    yield from _target(state, "Next", states, at)


def _handlers(state: dict[str, Any], states: dict[str, Any], at: str) -> Found:
    for member in ("Retry", "Catch"):
        handlers = state.get(member, [])
        if not isinstance(handlers, list) or not all(isinstance(one, dict) for one in handlers):
            yield Diagnostic(SCHEMA, f"{member} must be a list of objects", f"{at}/{member}")
            continue
        for index, handler in enumerate(handlers):
            place = f"{at}/{member}[{index}]"
            names = handler.get("ErrorEquals")
            if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
                yield Diagnostic(SCHEMA, "These fields are required: [ErrorEquals]", place)
            elif "States.ALL" in names and (len(names) > 1 or index < len(handlers) - 1):
                yield Diagnostic(SCHEMA, "States.ALL must appear alone and in the last handler", place)
            yield from _catcher(handler, states, place) if member == "Catch" else _retrier(handler, place)


def _catcher(handler: dict[str, Any], states: dict[str, Any], at: str) -> Found:
    yield from _target(handler, "Next", states, at)
    if handler.get("ResultPath") is not None:
        yield from _reference(handler["ResultPath"], f"{at}/ResultPath")
    if "Assign" in handler:
        yield from _template(handler["Assign"], f"{at}/Assign")
    for name in set(handler) - {"ErrorEquals", "Next", "ResultPath", "Assign", "Comment"}:
        yield Diagnostic(SCHEMA, f"Field '{name}' is not supported", f"{at}/{name}")


def _retrier(handler: dict[str, Any], at: str) -> Found:
    for name, least, most in (
        ("IntervalSeconds", 1, MAX_INTERVAL), ("MaxAttempts", 0, MAX_INTERVAL), ("MaxDelaySeconds", 1, MAX_DELAY),
        ("BackoffRate", 1.0, float("inf")),
    ):  # fmt: skip
        value = handler.get(name, least)
        fits = isinstance(value, int) or (name == "BackoffRate" and isinstance(value, float))
        if not fits or isinstance(value, bool) or not least <= value <= most:
            yield Diagnostic(SCHEMA, f"{name} must be a number of at least {least}", f"{at}/{name}")
    if handler.get("JitterStrategy", "NONE") not in ("NONE", "FULL"):
        values = "The field 'JitterStrategy' should have one of these values: [FULL, NONE]"
        yield Diagnostic(SCHEMA, values, f"{at}/JitterStrategy")
    allowed = {
        "ErrorEquals", "IntervalSeconds", "MaxAttempts", "MaxDelaySeconds", "BackoffRate", "JitterStrategy", "Comment",
    }  # fmt: skip
    for name in set(handler) - allowed:
        yield Diagnostic(SCHEMA, f"Field '{name}' is not supported", f"{at}/{name}")


def _rule(rule: Any, at: str, top: bool = False) -> Found:
    if not isinstance(rule, dict):
        yield Diagnostic(SCHEMA, "A choice rule must be an object", at)
        return
    joins = [name for name in ("And", "Or", "Not") if name in rule]
    operators = [name for name in rule if name in choices.OPERATORS]
    if len(joins) + len(operators) != 1:
        yield Diagnostic(SCHEMA, "A choice rule has exactly one comparison", at)
        return
    allowed = {*joins, *operators, "Variable", "Comment", *(("Next", "Assign") if top else ())}
    for name in set(rule) - allowed:
        yield Diagnostic(SCHEMA, f"Field '{name}' is not supported", f"{at}/{name}")
    if joins:
        inner = rule[joins[0]]
        parts = [inner] if joins[0] == "Not" else inner
        if not isinstance(parts, list) or not parts:
            yield Diagnostic(SCHEMA, f"{joins[0]} must be a list that is not empty", at)
            return
        for index, part in enumerate(parts):
            yield from _rule(part, f"{at}/{joins[0]}" + ("" if joins[0] == "Not" else f"[{index}]"))
        return
    yield from _path(rule.get("Variable"), f"{at}/Variable")
    yield from _operand(operators[0], rule[operators[0]], f"{at}/{operators[0]}")


def _operand(operator: str, value: Any, at: str) -> Found:
    if operator.endswith("Path"):
        yield from _path(value, at)
    elif operator in choices.TESTS:
        if not isinstance(value, bool):
            yield Diagnostic(SCHEMA, "The value must be a boolean", at)
    elif operator == "StringMatches":
        if not isinstance(value, str):
            yield Diagnostic(SCHEMA, "The value must be a string", at)
    elif choices.COMPARISONS[operator][0](value) is None:
        yield Diagnostic(SCHEMA, f"The value does not fit {operator}", at)

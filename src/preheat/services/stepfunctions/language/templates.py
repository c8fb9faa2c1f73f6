"""The data flow of a state: InputPath, Parameters, ResultSelector, ResultPath, OutputPath, Assign."""

import json
from typing import Any

from preheat.kernel.entropy import Entropy
from preheat.services.stepfunctions.language import intrinsics, paths
from preheat.services.stepfunctions.language.errors import (
    DATA_LIMIT,
    PARAMETER_PATH,
    RESULT_PATH,
    RUNTIME,
    StateError,
)
from preheat.services.stepfunctions.language.paths import PathError, Scope

MAX_DATA = 262_144


def compact(value: Any) -> str:
    """JSON text, as it is stored and measured."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def decode(text: str | bytes) -> Any:
    """The value of a JSON text that can be written again. Raises ValueError for anything else: no JSON, numbers beyond
    a double, half of a surrogate pair, nesting that is too deep."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("the text is nested too deeply") from None
    return value


def check_size(text: str, what: str) -> str:
    """Raises States.DataLimitExceeded above 256 KiB."""
    if len(text) > MAX_DATA or len(text.encode()) > MAX_DATA:
        raise StateError(
            DATA_LIMIT, f"The {what} has exceeded the maximum number of bytes service limit of {MAX_DATA}."
        )
    return text


def fill(template: Any, scope: Scope, entropy: Entropy) -> Any:
    """A payload template with the values of its `.$` members. Raises StateError."""
    if isinstance(template, list):
        return [fill(one, scope, entropy) for one in template]
    if not isinstance(template, dict):
        return template
    filled: dict[str, Any] = {}
    for name, value in template.items():
        if name.endswith(".$"):
            filled[name[:-2]] = dynamic(name, value, scope, entropy)
        else:
            filled[name] = fill(value, scope, entropy)
    return filled


def dynamic(name: str, text: str, scope: Scope, entropy: Entropy) -> Any:
    """The value of a path or of an intrinsic function."""
    try:
        if text.startswith("$"):
            return paths.read(text, scope)
        return intrinsics.evaluate(text, scope, entropy)
    except PathError:
        data = compact(scope.data)
        raise StateError(
            PARAMETER_PATH,
            f"The JSONPath '{text}' specified for the field '{name}' could not be found in the input '{data}'",
        ) from None


def taken(state: dict[str, Any], member: str, scope: Scope) -> Any:
    """What InputPath or OutputPath leaves of the data; null leaves an empty object. Raises States.Runtime."""
    if member not in state:
        return scope.data
    if state[member] is None:
        return {}
    return at(state[member], scope)


def at(text: str, scope: Scope) -> Any:
    """Raises States.Runtime where there is nothing."""
    try:
        return paths.read(text, scope)
    except PathError as error:
        raise StateError(RUNTIME, str(error)) from None


def placed(state: dict[str, Any], data: Any, result: Any) -> Any:
    """The result at ResultPath of the state's input; null drops it. Raises States.ResultPathMatchFailure."""
    if "ResultPath" not in state:
        return result
    if state["ResultPath"] is None:
        return data
    try:
        return paths.write(state["ResultPath"], data, result)
    except PathError as error:
        raise StateError(RESULT_PATH, str(error)) from None

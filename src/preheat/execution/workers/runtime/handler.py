"""Finding the handler, and errors as AWS's Python runtime reports them (types, texts, document)."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .logs import SOFT_BREAK

HERE = __file__.rpartition("/")[0]
LIBRARY = os.__file__.rpartition("/")[0] + "/"
"""The interpreter's standard library."""


class Fault(Exception):
    """An error of the runtime's own: `error_type` such as "Runtime.ImportModuleError"; `trace` its stack lines."""

    def __init__(self, error_type: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.trace = trace or []


def load(name: str) -> Callable[[Any, Any], Any]:
    """The function that "module.function" or "folder/module.function" names. Raises Fault or what the module raised."""
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        raise Fault(
            "Runtime.MalformedHandlerName", f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)"
        )
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault(
            "Runtime.BuiltInModuleConflict", f"Cannot use built-in module {module_name} as a handler module"
        )
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        text = f"Unable to import module '{module_name}': {error}"
        raise Fault("Runtime.ImportModuleError", text) from error
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        text = f"Syntax error in module '{module_name}': {error}"
        raise Fault("Runtime.UserCodeSyntaxError", text, trace) from error
    function = getattr(module, function_name, None)
    if function is None:
        raise Fault("Runtime.HandlerNotFound", f"Handler '{function_name}' missing on module '{module_name}'")
    return function


def describe(error: BaseException, request_id: str) -> tuple[str, dict[str, Any]]:
    """An exception's error type and AWS's document of it. Frames of the runtime are left out."""
    if isinstance(error, Fault):
        error_type, trace = error.error_type, error.trace
    else:
        error_type, trace = type(error).__name__, _stack(error.__traceback__)
    document = {"errorMessage": str(error), "errorType": error_type, "requestId": request_id, "stackTrace": trace}
    return error_type, document


def log_text(document: dict[str, Any]) -> str:
    """An uncaught error as one log event of several lines, indented by no-break spaces as AWS's runtime does it; no
    line break ends it. In the JSON format an object."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").lower() == "json":
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json.dumps({"timestamp": stamp, "log_level": "ERROR", **document}) + "\n"
    text = f"[ERROR] {document['errorType']}"
    if document["errorMessage"]:
        text += f": {document['errorMessage']}"
    lines = [text]
    if document["stackTrace"]:
        lines.append("Traceback (most recent call last):")
        lines += document["stackTrace"]
    return SOFT_BREAK.join(_indented(line) for piece in lines for line in piece.splitlines()) + SOFT_BREAK + "\n"


def _indented(line: str) -> str:
    text = line.lstrip(" ")
    return "\xa0" * (len(line) - len(text)) + text


def _stack(trace: TracebackType | None) -> list[str]:
    """The frames as AWS's runtime shows them: no marks under the code, the standard library where AWS has it."""
    frames = traceback.extract_tb(trace)
    start = 0
    while start < len(frames) and frames[start].filename.startswith(HERE):
        start += 1
    shown = [(_place(frame.filename), frame.lineno, frame.name, frame.line) for frame in frames[start:]]
    return traceback.format_list(shown)


def _place(filename: str) -> str:
    if filename.startswith(LIBRARY) and "/site-packages/" not in filename:
        return f"/var/lang/lib/python{sys.version_info[0]}.{sys.version_info[1]}/{filename[len(LIBRARY) :]}"
    return filename

"""One question's or document's path through the service: a correlation id, timed steps, log lines that carry both.

A line is one JSON object: `level`, `message`, `correlation`, `function`, and what the caller adds. Steps are logged
when they end, with `step` and `ms`. What this thread works on has an id (`begun`, `within`), which lines get that name
no other: metrics, what libraries log.
"""

import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

HEADER = "x-correlation-id"
LONGEST_ID = 128

Write = Callable[[str], Any]

_CURRENT: ContextVar[str] = ContextVar("correlation", default="")


def plain(given: Any) -> bool:
    """Whether it may be taken for a correlation id."""
    return (
        isinstance(given, str) and 0 < len(given) <= LONGEST_ID
        and all((letter.isascii() and letter.isalnum()) or letter in "-_.:=" for letter in given)
    )  # fmt: skip


def current() -> str:
    """The id of what this thread works on, "" when that has none."""
    return _CURRENT.get()


def correlation_of(given: str | None) -> str:
    """The caller's id where it is a plain one, else that of what this thread works on, else a new one."""
    return given if given and plain(given) else current() or str(uuid.uuid4())


def begun(given: Any = None, **fields: Any) -> "Trace":
    """The trace of what this thread works on from now on, under the id that came with it or a new one."""
    _CURRENT.set(given if plain(given) else str(uuid.uuid4()))
    return Trace(**fields)


@contextmanager
def within(correlation: str) -> Iterator[None]:
    """What is done within belongs to this id."""
    token = _CURRENT.set(correlation)
    try:
        yield
    finally:
        _CURRENT.reset(token)


class Lines(logging.Formatter):
    """What libraries log, as lines of the same kind."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "level": "WARN" if record.levelname == "WARNING" else record.levelname, "message": record.getMessage(),
            "correlation": current(), "function": function(), "logger": record.name,
        }  # fmt: skip
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def libraries_too() -> None:
    """Let what libraries log carry the correlation id."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler(sys.stdout))
    for handler in root.handlers:
        handler.setFormatter(Lines())


def function() -> str:
    return os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")


class Trace:
    """`write` takes one line of log; print by default, which is CloudWatch Logs on Lambda."""

    def __init__(self, correlation: str | None = None, write: Write = print, **fields: Any) -> None:
        self.correlation = correlation_of(correlation)
        self.steps: dict[str, float] = {}
        self._write = write
        self._fields = fields
        self._started = time.perf_counter()

    def since(self) -> float:
        """Milliseconds since the trace began."""
        return (time.perf_counter() - self._started) * 1_000

    @contextmanager
    def step(self, name: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Time what is done within; what it adds to the yielded dict is logged with it. A step that runs twice counts
        both times."""
        began = time.perf_counter()
        found: dict[str, Any] = {}
        try:
            yield found
        except Exception as error:
            self.warn(f"{name} failed", step=name, error=f"{type(error).__name__}: {error}")
            raise
        finally:
            took = (time.perf_counter() - began) * 1_000
            self.steps[name] = self.steps.get(name, 0.0) + took
            self.info(name, step=name, ms=round(took, 2), **fields, **found)

    def mark(self, name: str) -> None:
        """Note that `name` happened now, in milliseconds since the trace began; the first time counts."""
        self.steps.setdefault(name, self.since())

    def info(self, message: str, **fields: Any) -> None:
        self._line("INFO", message, fields)

    def warn(self, message: str, **fields: Any) -> None:
        self._line("WARN", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._line("ERROR", message, fields)

    def _line(self, level: str, message: str, fields: dict[str, Any]) -> None:
        line = {
            "level": level, "message": message, "correlation": self.correlation,
            "function": function(), **self._fields, **fields,
        }  # fmt: skip
        self._write(json.dumps(line, default=str))

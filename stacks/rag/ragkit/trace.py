"""One question's path through the service: a correlation id, timed steps, log lines that carry both.

A line is one JSON object: `level`, `message`, `correlation`, `function`, and what the caller adds. Steps are logged
when they end, with `step` and `ms`.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

HEADER = "x-correlation-id"
LONGEST_ID = 128

Write = Callable[[str], Any]


def correlation_of(given: str | None) -> str:
    """The caller's id where it is a plain one, else a new one."""
    plain = given and len(given) <= LONGEST_ID and all(letter.isalnum() or letter in "-_.:=" for letter in given)
    return given if plain and given else str(uuid.uuid4())


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
            "function": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", ""), **self._fields, **fields,
        }  # fmt: skip
        self._write(json.dumps(line, default=str))

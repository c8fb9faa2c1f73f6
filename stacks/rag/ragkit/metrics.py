"""Measured values of an invocation, as one log line in CloudWatch's embedded metric format: no call, no wait. The line
carries the correlation id of what was measured, like all others."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ragkit.trace import current, function

NAMESPACE = "Rag"
MOST_VALUES = 100

TIMES = {
    "embed_ms": "EmbedTime", "search_ms": "SearchTime", "rerank_ms": "RerankTime", "retrieval_ms": "RetrievalTime",
    "model_first_ms": "ModelFirstTokenTime", "first_token_ms": "FirstTokenTime", "total_ms": "AnswerTime",
}  # fmt: skip
"""An answer's timing -> the metric of each of its members."""

Write = Callable[[str], Any]


class Metrics:
    """Values gather until `flush`, which a handler calls when it is done. `stack` is their dimension. Thread-safe."""

    def __init__(self, stack: str, write: Write = print) -> None:
        self._stack = stack
        self._write = write
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], list[float]] = {}

    def record(self, name: str, value: float = 1, unit: str = "Count") -> None:
        """`unit` as CloudWatch spells it."""
        with self._lock:
            values = self._values.setdefault((name, unit), [])
            if unit == "Count" and values:
                values[0] += value
            elif len(values) < MOST_VALUES:
                values.append(value)

    def times(self, timing: Mapping[str, float]) -> None:
        """Record what an answer took, step by step, as far as it had these steps."""
        for member, name in TIMES.items():
            if member in timing:
                self.record(name, timing[member], "Milliseconds")

    def flush(self, now: float | None = None) -> None:
        """Write what was recorded since the last flush."""
        with self._lock:
            values, self._values = self._values, {}
        if not values:
            return
        metrics = [{"Name": name, "Unit": unit} for name, unit in values]
        directive = {"Namespace": NAMESPACE, "Dimensions": [["Stack"]], "Metrics": metrics}
        head = {"Timestamp": int((now or time.time()) * 1_000), "CloudWatchMetrics": [directive]}
        told = {name: found[0] if len(found) == 1 else found for (name, _), found in values.items()}
        about = {"level": "INFO", "message": "metrics", "correlation": current(), "function": function()}
        self._write(json.dumps({"_aws": head, "Stack": self._stack, **about, **told}))

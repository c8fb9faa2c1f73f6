"""What functions logged under a correlation id: lines of JSON with a member `correlation`, put on one line of time.

A line that says `step` and `ms` was written when that step ended. Other members of a line are its details; `passages`
({id: score}), `tokens` ({name: count}) and `cost_usd` are added up over the trace.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from preheat.services.contract import Context
from preheat.services.logs import repository

FUNCTIONS = "/aws/lambda/"
GROUPS_MOST = 200
RECENT_LINES = 200
RECENT_SHOWN = 50
TRACE_LINES = 3_000
AROUND_MS = 5 * 60_000
END_MS = 2**62
SHOWN = frozenset(("correlation", "function", "step", "ms", "level", "message", "_aws"))


@dataclass(frozen=True)
class Line:
    """`at_ms` is when it was written, `took_ms` what its step took (None for a line that is no step)."""

    correlation: str
    function: str
    at_ms: int
    took_ms: float | None
    document: dict[str, Any]

    @property
    def began_ms(self) -> float:
        return self.at_ms - (self.took_ms or 0.0)

    @property
    def level(self) -> str:
        return str(self.document.get("level", "INFO"))

    def shown(self, start_ms: float) -> dict[str, Any]:
        return {
            "function": self.function, "step": str(self.document.get("step", "")), "level": self.level,
            "message": str(self.document.get("message", "")), "offset_ms": round(self.began_ms - start_ms, 2),
            "ms": self.took_ms, "at_ms": self.at_ms,
            "details": {name: value for name, value in self.document.items() if name not in SHOWN},
        }  # fmt: skip


def recent(ctx: Context, asked: dict[str, str]) -> dict[str, Any]:
    """The correlation ids of the last lines of every function, the latest first."""
    found: dict[str, list[Line]] = {}
    for line in _lines(ctx, "", (0, END_MS), RECENT_LINES):
        found.setdefault(line.correlation, []).append(line)
    rows = []
    for correlation, lines in found.items():
        start, end = _span(lines)
        rows.append({
            "correlation": correlation, "started_ms": int(start), "total_ms": round(end - start, 2),
            "lines": len(lines), "functions": sorted({one.function for one in lines}),
            "steps": sorted({str(one.document["step"]) for one in lines if "step" in one.document}),
            "troubles": sum(one.level in ("WARN", "ERROR") for one in lines),
        })  # fmt: skip
    rows.sort(key=lambda row: row["started_ms"], reverse=True)
    return {"traces": rows[:RECENT_SHOWN]}


def trace(ctx: Context, asked: dict[str, str]) -> dict[str, Any]:
    """The lines of one correlation id over all functions, in the order in which what they tell of began. They are
    looked for within five minutes of `at` (epoch milliseconds), then in the last lines of every function: `at` may be
    another clock's."""
    correlation, at = asked.get("correlation", ""), asked.get("at", "")
    around = (int(at) - AROUND_MS, int(at) + AROUND_MS) if at.isdecimal() else (0, END_MS)
    lines = list(_lines(ctx, correlation, around, TRACE_LINES)) if correlation else []
    if correlation and not lines and at:
        lines = list(_lines(ctx, correlation, (0, END_MS), TRACE_LINES))
    start, end = _span(lines)
    passages: dict[str, float] = {}
    tokens: dict[str, int] = {}
    costs: list[float] = []
    for line in lines:
        passages.update(_numbers(line.document.get("passages")))
        for name, count in _numbers(line.document.get("tokens")).items():
            tokens[name] = tokens.get(name, 0) + int(count)
        costs += _numbers({"cost": line.document.get("cost_usd")}).values()
    lines.sort(key=lambda line: (line.began_ms, line.at_ms))
    return {
        "correlation": correlation, "started_ms": int(start), "total_ms": round(end - start, 2), "tokens": tokens,
        "cost_usd": sum(costs) if costs else None,
        "lines": [line.shown(start) for line in lines],
        "passages": [
            {"id": name, "score": score} for name, score in sorted(passages.items(), key=lambda one: -one[1])
        ],
    }  # fmt: skip


def _span(lines: list[Line]) -> tuple[float, float]:
    """When the first thing began and the last one ended, in epoch milliseconds."""
    if not lines:
        return 0.0, 0.0
    return min(line.began_ms for line in lines), float(max(line.at_ms for line in lines))


def _numbers(value: Any) -> dict[str, float]:
    given = value.items() if isinstance(value, dict) else ()
    return {str(name): one for name, one in given if isinstance(one, int | float)}


def _lines(ctx: Context, correlation: str, window: tuple[int, int], most: int) -> Iterator[Line]:
    """The lines with this correlation id, or with any, among the last `most` of every function within the window."""
    for group in repository.list_groups(ctx.db, ctx.scope, FUNCTIONS, "", "", GROUPS_MOST):
        events = repository.read_events(ctx.db, ("group_id", group.id), window, None, most, forward=False)
        for event in events:
            if '"correlation"' in event.message and correlation in event.message:
                line = _read(event.message, event.position[0], group.name.removeprefix(FUNCTIONS))
                if line is not None and correlation in ("", line.correlation):
                    yield line


def _read(message: str, at_ms: int, function: str) -> Line | None:
    try:
        document = json.loads(message)
    except ValueError:
        return None
    correlation = document.get("correlation") if isinstance(document, dict) else None
    if not isinstance(correlation, str) or not correlation:
        return None
    took = document.get("ms")
    step = isinstance(took, int | float) and not isinstance(took, bool) and took >= 0
    return Line(correlation, function, at_ms, float(took) if step else None, document)

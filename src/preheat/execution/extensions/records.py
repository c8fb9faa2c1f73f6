"""Telemetry events as values: `{"time", "type", "record"}`, records after AWS's schema of 2022-12-13.

The Logs API of 2020-08-15, which the Telemetry API supersedes, has fewer types and plainer records: `for_logs`.
"""

import json
from datetime import UTC, datetime
from typing import Any

from preheat.execution.contract import FunctionSpec, Invocation

Record = dict[str, Any]
STATUS = {None: "success", "timeout": "timeout", "error": "failure"}
LOGS_TYPES = ("platform.start", "platform.end", "platform.report", "platform.runtimeDone", "platform.extension",
              "platform.logsDropped", "function", "extension")  # fmt: skip


LEVELS = ("DEBUG", "INFO", "WARN")
_DETAILS = ("platform.initRuntimeDone", "platform.restoreRuntimeDone", "platform.runtimeDone")


def level(kind: str, record: Record) -> str:
    """The level of an event in the JSON log format, "" for one that is not written there."""
    if kind == "platform.end":
        return ""
    if record.get("status", "success") != "success" or kind == "platform.logsDropped" or record.get("errorType"):
        return "WARN"
    if kind in _DETAILS or (kind == "platform.initReport" and record["initializationType"] == "on-demand"):
        return "DEBUG"
    return "INFO"


def weight(name: str) -> int:
    """For comparing levels; -1 for none."""
    return LEVELS.index(name) if name in LEVELS else -1


def text(epoch_s: float, kind: str, record: Record) -> str:
    """The event as a line of the JSON log format."""
    return json.dumps({"time": moment(epoch_s), "type": kind, "record": record}, separators=(",", ":"))


def moment(epoch_s: float) -> str:
    """`2022-10-12T00:00:15.064Z`."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def init_start(spec: FunctionSpec, kind: str, phase: str, version: str, version_arn: str, instance: str) -> Record:
    """`kind` as AWS_LAMBDA_INITIALIZATION_TYPE has it, `phase` "init" or "invoke"."""
    return {
        "initializationType": kind, "phase": phase, "runtimeVersion": version, "runtimeVersionArn": version_arn,
        "functionName": spec.name, "functionArn": spec.arn, "functionVersion": spec.version, "instanceId": instance,
        "instanceMaxMemory": spec.memory_mb * 1024 * 1024,
    }  # fmt: skip


def restore_start(spec: FunctionSpec, version: str, version_arn: str, instance: str) -> Record:
    record = init_start(spec, "snap-start", "", version, version_arn, instance)
    return {key: value for key, value in record.items() if key not in ("initializationType", "phase", "functionArn")}


def init_done(kind: str, phase: str, status: str, error_type: str | None) -> Record:
    return _with({"initializationType": kind, "phase": phase, "status": status}, errorType=error_type)


def init_report(kind: str, phase: str, status: str, duration_ms: float, error_type: str | None) -> Record:
    return {**init_done(kind, phase, status, error_type), "metrics": {"durationMs": round(duration_ms, 3)}}


def restore_done(status: str, error_type: str | None) -> Record:
    return _with({"status": status}, errorType=error_type)


def restore_report(status: str, duration_ms: float, error_type: str | None) -> Record:
    return {**restore_done(status, error_type), "metrics": {"durationMs": round(duration_ms, 3)}}


def start(invocation: Invocation) -> Record:
    record = {"requestId": invocation.request_id, "version": invocation.spec.version}
    return _with(record, tracing=_tracing(invocation))


def runtime_done(
    invocation: Invocation, status: str, error_type: str | None, duration_ms: float, produced_bytes: int,
    spans: list[Record],
) -> Record:  # fmt: skip
    """`status` is "success", "failure", "error" or "timeout"."""
    record = {
        "requestId": invocation.request_id, "status": status,
        "metrics": {"durationMs": round(duration_ms, 3), "producedBytes": produced_bytes},
    }  # fmt: skip
    return _with(record, errorType=error_type, spans=spans or None, tracing=_tracing(invocation))


def spans(begun_s: float, latency_ms: float, response_ms: float) -> list[Record]:
    """From the event to the answer's first byte, and to its last. `begun_s` is epoch seconds."""
    first = begun_s + latency_ms / 1000.0
    return [
        {"name": "responseLatency", "start": moment(begun_s), "durationMs": round(latency_ms, 3)},
        {"name": "responseDuration", "start": moment(first), "durationMs": round(response_ms, 3)},
    ]


def report(
    invocation: Invocation, status: str, error_type: str | None, duration_ms: float, billed_ms: int, used_mb: int,
    init_ms: float | None, restore: tuple[float, int] | None,
) -> Record:  # fmt: skip
    metrics = {
        "durationMs": round(duration_ms, 3), "billedDurationMs": billed_ms, "memorySizeMB": invocation.spec.memory_mb,
        "maxMemoryUsedMB": used_mb,
    }  # fmt: skip
    if init_ms is not None:
        metrics["initDurationMs"] = round(init_ms, 3)
    if restore is not None:
        metrics["restoreDurationMs"], metrics["billedRestoreDurationMs"] = round(restore[0], 3), restore[1]
    record = {"requestId": invocation.request_id, "status": status, "metrics": metrics}
    return _with(record, errorType=error_type, tracing=_tracing(invocation))


def line(text: str, structured: bool) -> str | Record:
    """A line of the function's output; in the JSON log format what is a JSON object is passed on as one."""
    if structured and text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            return text
        if isinstance(found, dict):
            return found
    return text


def for_logs(kind: str, record: Any) -> tuple[str, Any] | None:
    """The same event as the Logs API has it; None for what it does not know."""
    if kind == "platform.telemetrySubscription":
        return "platform.logsSubscription", record
    if kind not in LOGS_TYPES:
        return None
    if kind in ("platform.start", "platform.runtimeDone"):
        record = {key: record[key] for key in ("requestId", "version", "status") if key in record}
    elif kind == "platform.report":
        record = {"requestId": record["requestId"], "metrics": record["metrics"]}
    elif isinstance(record, dict) and kind == "function":
        record = json.dumps(record)
    return kind, record


def _tracing(invocation: Invocation) -> Record | None:
    header = invocation.trace_id
    if not header:
        return None
    parts = dict(part.partition("=")[::2] for part in header.split(";"))
    return _with({"type": "X-Amzn-Trace-Id", "value": header}, spanId=parts.get("Parent"))


def _with(record: Record, **fields: Any) -> Record:
    """`record` and those fields that are not None."""
    record.update((name, value) for name, value in fields.items() if value is not None)
    return record

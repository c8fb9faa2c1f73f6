"""The history of executions: its events, what CloudWatch counts of them, and the log that a machine asks for."""

import json
from functools import partial
from typing import Any

from preheat.services.contract import Context
from preheat.services.deliveries import Delivery, emit
from preheat.services.stepfunctions import repository
from preheat.services.stepfunctions.domain import EXPRESS, Execution, moment
from preheat.services.stepfunctions.language.templates import compact

NAMESPACE = "AWS/States"
SERVICE = "states.amazonaws.com"
STATUS_CHANGE = "Step Functions Execution Status Change"
MAX_EVENT_DATA = 250_000
_FINAL = ("ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted")
_BAD = ("Failed", "TimedOut", "Aborted")
_DATA = ("input", "output", "parameters", "cause", "assignedVariables")
_COUNTED = {
    "ExecutionStarted": "ExecutionsStarted",
    "ExecutionSucceeded": "ExecutionsSucceeded",
    "ExecutionFailed": "ExecutionsFailed",
    "ExecutionTimedOut": "ExecutionsTimedOut",
    "ExecutionAborted": "ExecutionsAborted",
}
_TASKS = {
    "LambdaFunction": ("LambdaFunctions", "LambdaFunctionArn"),
    "Activity": ("Activities", "ActivityArn"),
    "Task": ("ServiceIntegrations", "ServiceIntegrationResourceArn"),
}
_ENDS = ("Scheduled", "Started", "Succeeded", "Failed", "TimedOut")


def record(
    ctx: Context, execution: Execution, kind: str, previous: int, details: dict[str, Any], resource: str = ""
) -> int:
    """One more event; its id. `resource` is the ARN of a task's resource, for the metrics."""
    number = repository.next_event(ctx.db, execution.row)
    if execution.type != EXPRESS:
        repository.add_event(ctx.db, execution.row, number, previous, ctx.now, kind, compact(details))
    if execution.logging != "{}":
        _log(ctx, execution, number, previous, kind, details)
    _count(ctx, execution, kind, resource)
    return number


def _count(ctx: Context, execution: Execution, kind: str, resource: str) -> None:
    meter = partial(ctx.machine.meter.record, execution.scope, NAMESPACE)
    after = ctx.db.after_commit
    if kind in _COUNTED:
        after(partial(meter, _COUNTED[kind], StateMachineArn=execution.machine_arn))
        if kind != "ExecutionStarted":
            took = max(0.0, (ctx.now - execution.started) * 1_000)
            after(partial(meter, "ExecutionTime", took, "Milliseconds", StateMachineArn=execution.machine_arn))
        return
    for start, (name, dimension) in _TASKS.items():
        end = kind.removeprefix(start)
        if kind.startswith(start) and end in _ENDS and resource:
            after(partial(meter, name + end, **{dimension: resource}))
            return


def announce(ctx: Context, execution: Execution) -> None:
    """EventBridge is told of a standard execution's new status; data that make the event too large stay out of it."""
    events = ctx.machine.services.get("events")
    if execution.type == EXPRESS or events is None:
        return
    data = {"input": execution.input, "output": execution.output}
    included = sum(len(text.encode()) for text in data.values() if text is not None) <= MAX_EVENT_DATA
    detail = {
        "executionArn": execution.arn, "stateMachineArn": execution.machine_arn, "name": execution.name,
        "status": execution.status, "startDate": int(execution.started * 1_000),
        "stopDate": None if execution.stopped is None else int(execution.stopped * 1_000),
        **{name: text if included else None for name, text in data.items()},
        **{f"{name}Details": None if text is None else {"included": included} for name, text in data.items()},
        "stateMachineVersionArn": None, "stateMachineAliasArn": None, "redriveCount": 0, "redriveDate": None,
        "redriveStatus": "NOT_REDRIVABLE", "redriveStatusReason": None, "error": execution.error,
        "cause": execution.cause,
    }  # fmt: skip
    events.publish(ctx, execution.scope, "aws.states", STATUS_CHANGE, detail, [execution.arn])


def _wanted(level: str, kind: str) -> bool:
    if level == "ALL":
        return True
    if level == "FATAL":
        return kind in _FINAL
    return level == "ERROR" and (kind in _FINAL or kind.endswith(_BAD))


def _log(ctx: Context, execution: Execution, number: int, previous: int, kind: str, details: dict[str, Any]) -> None:
    logging = json.loads(execution.logging)
    if not _wanted(logging.get("level", "OFF"), kind):
        return
    shown = details
    if not logging.get("includeExecutionData"):
        shown = {name: value for name, value in details.items() if name not in _DATA}
    line = {
        "id": str(number), "type": kind, "details": shown, "previous_event_id": str(previous),
        "event_timestamp": str(ctx.now_ms), "execution_arn": execution.arn,
    }  # fmt: skip
    stream = f"states/{execution.machine}/{moment(ctx.now):%Y-%m-%d-%H-%M}/{execution.revision:08x}"
    for destination in logging.get("destinations", ()):
        group = destination["cloudWatchLogsLogGroup"]["logGroupArn"]
        options = {"log_stream": stream, "timestamp": ctx.now_ms}
        emit(ctx, Delivery(group, compact(line), execution.machine_arn, SERVICE, execution.role, options=options))

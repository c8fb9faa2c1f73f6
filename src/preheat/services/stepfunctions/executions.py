"""Operations on executions."""

import json
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.constraints import check_choice, check_text
from preheat.services.contract import Context, Operation, Outcome, Params, Wait
from preheat.services.deliveries import trace_header
from preheat.services.stepfunctions import domain, pages, repository
from preheat.services.stepfunctions.domain import EXPRESS, Execution, Machine, moment
from preheat.services.stepfunctions.history import NAMESPACE
from preheat.services.stepfunctions.language.templates import MAX_DATA, decode
from preheat.services.stepfunctions.machines import find, shown_logging
from preheat.services.stepfunctions.running import ENDED, Running

EXPRESS_MEMORY_MB = 64
_PLAIN = ("ParallelState", "TaskState", "WaitState")
_MEMBERS = ("input", "output", "parameters")


def _input(params: Params) -> str:
    """Raises InvalidExecutionInput."""
    text = params.get("input")
    if text is None:
        return "{}"
    if len(text.encode()) > MAX_DATA:
        raise AwsError("InvalidExecutionInput", f"Invalid Execution Input: the input is larger than {MAX_DATA} bytes.")
    try:
        decode(text)
    except ValueError:
        raise AwsError("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{text[:200]}'") from None
    return text


def _find(ctx: Context, arn: str) -> Execution:
    """A standard execution. Raises InvalidArn, ExecutionDoesNotExist."""
    scope, rest = domain.named(arn, "execution")
    machine, _, name = rest.partition(":")
    found = repository.find_execution(ctx.db, scope, machine, name)
    if found is None:
        raise domain.execution_missing(arn)
    return found


def _ended(execution: Execution) -> Params:
    """How it ended, members without a value left out."""
    stopped = None if execution.stopped is None else moment(execution.stopped)
    told = {"error": execution.error, "cause": execution.cause, "stopDate": stopped}
    return {name: value for name, value in told.items() if value is not None}


def _data(execution: Execution, included: bool) -> Params:
    shown: Params = {}
    for member, text in (("input", execution.input), ("output", execution.output)):
        if text is not None:
            shown[f"{member}Details"] = {"included": included}
            if included:
                shown[member] = text
    return shown


def _included(params: Params) -> bool:
    check_choice(params, "includedData", ("ALL_DATA", "METADATA_ONLY"))
    return params.get("includedData") != "METADATA_ONLY"


def _details_member(kind: str) -> str | None:
    """The member of a history event that has its details."""
    for end in ("StateEntered", "StateExited"):
        if kind.endswith(end):
            return f"s{end[1:]}EventDetails"
    if kind.startswith(_PLAIN) or kind in ("LambdaFunctionStarted", "MapStateSucceeded", "MapStateFailed"):
        return None
    return None if kind == "MapStateAborted" else f"{kind[0].lower()}{kind[1:]}EventDetails"


def _event(row: tuple[Any, ...], data: bool) -> Params:
    number, previous, at, kind, text = row
    event: Params = {"timestamp": moment(at), "type": kind, "id": number, "previousEventId": previous}
    member = _details_member(kind)
    if member is not None:
        details = json.loads(text)
        for name in _MEMBERS:
            if name in details and name != "parameters":
                details[f"{name}Details"] = {"truncated": False}
            if not data:
                details.pop(name, None)
        event[member] = details
    return event


class Executions:
    def __init__(self, running: Running) -> None:
        self._running = running
        self.operations: dict[str, Operation] = {
            "StartExecution": self.start,
            "StartSyncExecution": self.start_sync,
            "StopExecution": self.stop,
            "DescribeExecution": self.describe,
            "ListExecutions": self.list,
            "GetExecutionHistory": self.history,
            "DescribeStateMachineForExecution": self.describe_machine,
        }

    def _begin(self, ctx: Context, machine: Machine, params: Params) -> Execution:
        """A new execution. Raises InvalidName, InvalidExecutionInput, ExecutionAlreadyExists."""
        check_text(params, "traceHeader", domain.MAX_TRACE)
        name = domain.check_name(params.get("name") or ctx.entropy.uuid())
        text = _input(params)
        if machine.type == EXPRESS:
            name = f"{name}:{ctx.entropy.uuid()}"
        else:
            there = repository.find_execution(ctx.db, machine.scope, machine.name, name)
            if there is not None:
                if there.status == "RUNNING" and there.input == text:
                    return there
                raise AwsError("ExecutionAlreadyExists", f"Execution Already Exists: '{there.arn}'")
        row = repository.add_execution(
            ctx.db, account=machine.account, region=machine.region, machine=machine.name, name=name, type=machine.type,
            revision=machine.revision, role=machine.role, logging=machine.logging, status="RUNNING", input=text,
            trace=params.get("traceHeader") or trace_header(ctx), started=ctx.now,
        )  # fmt: skip
        self._running.start(ctx, row)
        found = repository.execution(ctx.db, row)
        assert found is not None
        return found

    def start(self, ctx: Context, params: Params) -> Outcome:
        begun = self._begin(ctx, find(ctx, params["stateMachineArn"]), params)
        return {"executionArn": begun.arn, "startDate": moment(begun.started)}

    def start_sync(self, ctx: Context, params: Params) -> Outcome:
        machine = find(ctx, params["stateMachineArn"])
        if machine.type != EXPRESS:
            raise domain.type_not_supported()
        included = _included(params)
        row = self._begin(ctx, machine, params).row
        topics, until = (f"{ENDED}{row}",), ctx.now + domain.EXPRESS_S + 1.0

        def again(inner: Context) -> Outcome:
            found = repository.execution(inner.db, row)
            if found is None:
                raise AwsError("InternalFailure", "The execution is gone.", 500)
            if found.stopped is None:
                return Wait(topics, max(until, inner.now + 1.0), again)
            return self._answer(inner, found, included)

        return Wait(topics, until, again)

    def _answer(self, ctx: Context, found: Execution, included: bool) -> Params:
        took = round(((found.stopped or ctx.now) - found.started) * 1_000)
        billed = max(100, -(-took // 100) * 100)
        status = "FAILED" if found.status == "ABORTED" else found.status
        ctx.machine.meter.record(
            found.scope, NAMESPACE, "ExpressExecutionBilledDuration", billed, "Milliseconds",
            StateMachineArn=found.machine_arn,
        )  # fmt: skip
        return {
            "executionArn": found.arn, "stateMachineArn": found.machine_arn, "name": found.shown_name,
            "startDate": moment(found.started), "status": status, **_ended(found), **_data(found, included),
            **({"traceHeader": found.trace} if found.trace else {}),
            "billingDetails": {
                "billedMemoryUsedInMB": EXPRESS_MEMORY_MB, "billedDurationInMilliseconds": billed,
            },
        }  # fmt: skip

    def stop(self, ctx: Context, params: Params) -> Outcome:
        check_text(params, "error", domain.MAX_ERROR)
        check_text(params, "cause", domain.MAX_CAUSE)
        found = _find(ctx, params["executionArn"])
        if found.stopped is None:
            self._running.finish(ctx, found, "ABORTED", error=params.get("error"), cause=params.get("cause"))
        return {"stopDate": moment(ctx.now if found.stopped is None else found.stopped)}

    def describe(self, ctx: Context, params: Params) -> Outcome:
        included, found = _included(params), _find(ctx, params["executionArn"])
        return {
            "executionArn": found.arn, "stateMachineArn": found.machine_arn, "name": found.shown_name,
            "status": found.status, "startDate": moment(found.started), **_ended(found), **_data(found, included),
            **({"traceHeader": found.trace} if found.trace else {}), "redriveCount": 0,
            "redriveStatus": "NOT_REDRIVABLE",
            "redriveStatusReason": "Preheat does not implement redrive.",
        }  # fmt: skip

    def list(self, ctx: Context, params: Params) -> Outcome:
        """The latest first."""
        check_choice(params, "statusFilter", domain.STATUSES)
        check_choice(params, "redriveFilter", ("REDRIVEN", "NOT_REDRIVEN"))
        if params.get("mapRunArn"):
            raise domain.invalid("Preheat does not implement map runs: mapRunArn cannot be given.")
        if not params.get("stateMachineArn"):
            raise domain.invalid("Either stateMachineArn or mapRunArn must be specified.")
        machine = find(ctx, params["stateMachineArn"])
        if machine.type == EXPRESS:
            raise domain.type_not_supported()
        if params.get("redriveFilter") == "REDRIVEN":
            return {"executions": []}
        most, before = pages.size(params), pages.read(params, [float("inf"), 0])
        found = repository.executions(
            ctx.db, machine.scope, machine.name, params.get("statusFilter"), tuple(before), most + 1
        )
        output: Params = {
            "executions": [
                {
                    "executionArn": one.arn, "stateMachineArn": one.machine_arn, "name": one.shown_name,
                    "status": one.status, "startDate": moment(one.started), "redriveCount": 0,
                    **({} if one.stopped is None else {"stopDate": moment(one.stopped)}),
                }
                for one in found[:most]
            ]
        }  # fmt: skip
        if len(found) > most:
            output["nextToken"] = pages.write([found[most - 1].started, found[most - 1].row])
        return output

    def history(self, ctx: Context, params: Params) -> Outcome:
        found = _find(ctx, params["executionArn"])
        reverse = bool(params.get("reverseOrder"))
        data = params.get("includeExecutionData", True) is not False
        most = pages.size(params)
        after = pages.read(params, domain.MAX_EVENTS + 1_000 if reverse else 0)
        rows = repository.events(ctx.db, found.row, after, reverse, most + 1)
        output: Params = {"events": [_event(row, data) for row in rows[:most]]}
        if len(rows) > most:
            output["nextToken"] = pages.write(rows[most - 1][0])
        return output

    def describe_machine(self, ctx: Context, params: Params) -> Outcome:
        """The definition and role that an execution began with."""
        included, found = _included(params), _find(ctx, params["executionArn"])
        revision_id, definition, created = repository.revision(ctx.db, found.revision)
        machine = repository.machine(ctx.db, found.scope, found.machine)
        return {
            "stateMachineArn": found.machine_arn, "name": found.machine, "roleArn": found.role,
            "definition": definition if included else "{}", "updateDate": moment(created), "revisionId": revision_id,
            "loggingConfiguration": shown_logging(found.logging), "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
            "tracingConfiguration": {"enabled": bool(machine is not None and machine.tracing)},
        }  # fmt: skip

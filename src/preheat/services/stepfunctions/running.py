"""Runs executions: every transition is written before the next one begins, so that they go on after a crash.

A frame (`schema.sql`) is a thread of control. It is advanced when it is due; a task's frame by its answer, that of a
Parallel or Map by the end of its branches or iterations.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from preheat.services.contract import Context
from preheat.services.stepfunctions import repository, tasks
from preheat.services.stepfunctions.domain import (
    EXPRESS,
    EXPRESS_S,
    KEPT_S,
    MAX_CAUSE,
    MAX_ERROR,
    MAX_EVENTS,
    Execution,
    Frame,
)
from preheat.services.stepfunctions.history import announce, record
from preheat.services.stepfunctions.language import errors
from preheat.services.stepfunctions.language.choices import holds, timestamp
from preheat.services.stepfunctions.language.errors import StateError, matches
from preheat.services.stepfunctions.language.resources import Resource
from preheat.services.stepfunctions.language.retrying import pause_before
from preheat.services.stepfunctions.language.templates import at, check_size, compact, fill, placed, taken
from preheat.services.stepfunctions.turn import Turn, processor

TOPIC = "stepfunctions:frames"
ACTIVITIES = "stepfunctions:activity:"
ENDED = "stepfunctions:ended:"
TURNS_PER_STEP = 100
REMOVED_PER_STEP = 50
INLINE_CONCURRENCY = 40
EVENTS_LEFT = 10
DEFINITIONS_KEPT = 256
ABORTED = ("Task", "Wait", "Parallel", "Map")
"""Types of states whose end before their time is an event."""


class Running:
    """The loop, and what else moves executions on."""

    name = "stepfunctions"
    topics = (TOPIC,)

    def __init__(self) -> None:
        self._definitions: dict[int, dict[str, Any]] = {}

    def step(self, ctx: Context) -> float | None:
        for execution in repository.expired(ctx.db, ctx.now, TURNS_PER_STEP):
            self.finish(_at_home(ctx, execution), execution, "TIMED_OUT", error=errors.TIMEOUT)
        turns = 0
        while turns < TURNS_PER_STEP:
            rows = repository.due_frames(ctx.db, ctx.now, TURNS_PER_STEP - turns)
            if not rows:
                break
            for row in rows:
                turns += 1
                frame = repository.frame(ctx.db, row)
                if frame is not None and frame.due_at is not None and frame.due_at <= ctx.now:
                    self._advanced(ctx, frame)
        repository.remove_ended(ctx.db, ctx.now - KEPT_S, ctx.now - EXPRESS_S, REMOVED_PER_STEP)
        return repository.next_due(ctx.db)

    def _turn(self, ctx: Context, frame: Frame) -> Turn:
        execution = repository.execution(ctx.db, frame.execution)
        assert execution is not None
        definition = self._definitions.get(execution.revision)
        if definition is None:
            definition = json.loads(repository.revision(ctx.db, execution.revision)[1])
            if len(self._definitions) >= DEFINITIONS_KEPT:
                self._definitions.clear()
            self._definitions[execution.revision] = definition
        return Turn(_at_home(ctx, execution), execution, frame, definition)

    def forget(self) -> None:
        """Definitions may have been taken back."""
        self._definitions.clear()

    def _guarded(self, turn: Turn, work: Callable[[Turn], None]) -> None:
        """What goes wrong in the state's own data flow is its failure."""
        try:
            work(turn)
        except StateError as error:
            turn = turn.fresh()
            place = f"(entered at the event id #{turn.frame.entered})"
            cause = f"An error occurred while executing the state '{turn.frame.state}' {place}. {error.cause}"
            self._handle(turn, StateError(error.name, cause))

    def _advanced(self, ctx: Context, frame: Frame) -> None:
        """Data that cannot be handled ends its own execution, and holds up no other."""
        turn = self._turn(ctx, frame)
        try:
            self._advance(turn)
        except (RecursionError, UnicodeEncodeError) as error:
            execution = repository.execution(ctx.db, frame.execution)
            if execution is not None and execution.status == "RUNNING":
                self.finish(turn.ctx, execution, "FAILED", error=errors.RUNTIME, cause=f"Unfit data: {error}")

    def _advance(self, turn: Turn) -> None:
        execution = turn.execution
        if execution.type != EXPRESS and execution.events > MAX_EVENTS - EVENTS_LEFT:
            cause = f"The execution reached the maximum number of history events ({MAX_EVENTS})."
            self.finish(turn.ctx, execution, "FAILED", error=errors.RUNTIME, cause=cause)
            return
        phase = turn.frame.phase
        if phase == "enter":
            turn.record(f"{turn.kind}StateEntered", {"name": turn.frame.state, "input": turn.frame.data})
            turn.change(entered=turn.frame.previous, entered_at=turn.ctx.now, due_at=None)
        if phase in ("enter", "retry"):
            self._guarded(turn, getattr(self, f"_{turn.kind.lower()}"))
        elif phase == "wait":
            self._guarded(turn, self._pass_on)
        elif phase in ("task", "activity"):
            self._time_out(turn)

    # -- the life of an execution -----------------------------------------------------------------------------------

    def start(self, ctx: Context, row: int) -> None:
        """The first frame of an execution whose row was just written."""
        execution = repository.execution(ctx.db, row)
        assert execution is not None
        definition = json.loads(repository.revision(ctx.db, execution.revision)[1])
        limit = definition.get("TimeoutSeconds")
        if execution.type == EXPRESS:
            limit = min(limit or EXPRESS_S, EXPRESS_S)
        if limit:
            repository.change_execution(ctx.db, row, expires_at=execution.started + limit)
        details = {"input": execution.input, "roleArn": execution.role}
        first = record(ctx, execution, "ExecutionStarted", 0, details)
        repository.add_frame(
            ctx.db, execution=row, scope="[]", state=definition["StartAt"], phase="enter", data=execution.input,
            previous=first, due_at=ctx.now,
        )  # fmt: skip
        announce(ctx, execution)
        ctx.db.notify(TOPIC)

    def finish(
        self, ctx: Context, execution: Execution, status: str, output: str | None = None, error: str | None = None,
        cause: str | None = None,
    ) -> None:  # fmt: skip
        """The end: frames go, whoever waits is told."""
        top = repository.top_frame(ctx.db, execution.row)
        if top is not None:
            turn = self._turn(ctx, top)
            self._drop(turn, aborted=status in ("ABORTED", "TIMED_OUT"))
        error = None if error is None else error[:MAX_ERROR]
        cause = None if cause is None else cause[:MAX_CAUSE]
        repository.change_execution(
            ctx.db, execution.row, status=status, output=output, error=error, cause=cause, stopped=ctx.now,
            expires_at=None,
        )  # fmt: skip
        kind = {"TIMED_OUT": "TimedOut"}.get(status, status.capitalize())
        told = {"output": output, "error": error, "cause": cause}
        last = execution.events if top is None else self._last(ctx, execution)
        details = {name: text for name, text in told.items() if text is not None}
        record(ctx, execution, f"Execution{kind}", last, details)
        ctx.db.notify(f"{ENDED}{execution.row}")
        ended = repository.execution(ctx.db, execution.row)
        if ended is None:
            return
        announce(ctx, ended)
        if ended.waiter is not None:
            self._tell_waiter(ctx, ended)

    def _last(self, ctx: Context, execution: Execution) -> int:
        found = repository.execution(ctx.db, execution.row)
        return 0 if found is None else found.events

    def _tell_waiter(self, ctx: Context, ended: Execution) -> None:
        """A task of another execution waited for this one's end."""
        turn = self.pending(ctx, ended.waiter or 0, ended.waiter_attempt or 0)
        if turn is None:
            return
        shown: dict[str, Any] = {
            "ExecutionArn": ended.arn, "Input": ended.input, "InputDetails": {"Included": True}, "Name": ended.name,
            "StartDate": int(ended.started * 1_000), "StateMachineArn": ended.machine_arn, "Status": ended.status,
            "StopDate": int((ended.stopped or 0.0) * 1_000),
        }  # fmt: skip
        if ended.status != "SUCCEEDED":
            shown |= {name: text for name, text in (("Error", ended.error), ("Cause", ended.cause)) if text is not None}
            self.fail(turn, errors.TASK_FAILED, compact(shown))
            return
        output = ended.output or "{}"
        parsed = turn.resource.pattern == "sync:2"
        if parsed:
            shown["Input"] = json.loads(ended.input)
        shown |= {"Output": json.loads(output) if parsed else output, "OutputDetails": {"Included": True}}
        self.succeed(turn, compact(shown))

    def _drop(self, turn: Turn, aborted: bool) -> None:
        """A frame goes, with what runs below it and the executions that its task waits for."""
        self._drop_children(turn, aborted)
        for waited in repository.waited_for(turn.ctx.db, turn.frame.row):
            self.finish(_at_home(turn.ctx, waited), waited, "ABORTED")
        if aborted and turn.kind in ABORTED and turn.frame.phase not in ("enter", "retry"):
            turn.record(f"{turn.kind}StateAborted", {})
        repository.remove_frame(turn.ctx.db, turn.frame.row)

    def _drop_children(self, turn: Turn, aborted: bool) -> None:
        for child in repository.children(turn.ctx.db, turn.frame.row):
            below = self._turn(turn.ctx, child)
            self._drop(below, aborted)
            if aborted and turn.kind == "Map":
                details = {"name": turn.frame.state, "index": child.position}
                record(turn.ctx, turn.execution, "MapIterationAborted", below.frame.previous, details)

    # -- states -----------------------------------------------------------------------------------------------------

    def _pass(self, turn: Turn) -> None:
        state, scope = turn.state, turn.effective()
        value = fill(state["Parameters"], scope, turn.ctx.entropy) if "Parameters" in state else scope.data
        self._complete(turn, state.get("Result", value))

    def _succeed(self, turn: Turn) -> None:
        self._pass_on(turn)

    def _fail(self, turn: Turn) -> None:
        state, scope = turn.state, turn.scope()
        told: dict[str, str] = {}
        for name in ("Error", "Cause"):
            if name in state:
                told[name] = state[name]
            elif f"{name}Path" in state:
                told[name] = str(fill({"_.$": state[f"{name}Path"]}, scope, turn.ctx.entropy)["_"])
        self._branch_failed(turn, told.get("Error"), told.get("Cause"))

    def _choice(self, turn: Turn) -> None:
        state, scope = turn.state, turn.effective()
        rule = next((one for one in state["Choices"] if holds(one, scope)), None)
        if rule is None and "Default" not in state:
            raise StateError(errors.NO_CHOICE, "No choice rule is true and the state has no Default.")
        assign = state.get("Assign") if rule is None else rule.get("Assign")
        assigned = fill(assign or {}, scope, turn.ctx.entropy)
        self._leave(turn, taken(state, "OutputPath", scope), assigned, rule["Next"] if rule else state["Default"])

    def _wait(self, turn: Turn) -> None:
        state, scope = turn.state, turn.effective()
        if "Timestamp" in state or "TimestampPath" in state:
            given = state["Timestamp"] if "Timestamp" in state else at(state["TimestampPath"], scope)
            until = timestamp(given)
            if until is None:
                raise StateError(errors.RUNTIME, f"The value {compact(given)} is no timestamp.")
        else:
            until = turn.ctx.now + _seconds(turn, "Seconds", 0) if "Seconds" in state else None
            if until is None:
                until = turn.ctx.now + _number(at(state["SecondsPath"], scope), "SecondsPath", 0)
        turn.change(phase="wait", due_at=until)
        turn.ctx.db.notify(TOPIC)

    def _pass_on(self, turn: Turn) -> None:
        """The input becomes the output."""
        state, scope = turn.state, turn.effective()
        assigned = fill(state.get("Assign", {}), scope, turn.ctx.entropy)
        self._leave(turn, taken(state, "OutputPath", scope), assigned, state.get("Next"))

    def _complete(self, turn: Turn, result: Any) -> None:
        """ResultSelector, Assign, ResultPath and OutputPath over a result."""
        state, scope, entropy = turn.state, turn.scope(), turn.ctx.entropy
        if "ResultSelector" in state:
            result = fill(state["ResultSelector"], scope.over(result), entropy)
        assigned = fill(state.get("Assign", {}), scope.over(result), entropy)
        output = placed(state, scope.data, result)
        self._leave(turn, taken(state, "OutputPath", scope.over(output)), assigned, state.get("Next"))

    def _leave(self, turn: Turn, output: Any, assigned: dict[str, Any], following: str | None) -> None:
        text = check_size(compact(output), "state/task output")
        details: dict[str, Any] = {"name": turn.frame.state, "output": text}
        if assigned:
            variables = check_size(compact({**json.loads(turn.frame.variables), **assigned}), "variables")
            details["assignedVariables"] = {name: compact(value) for name, value in assigned.items()}
            turn.change(variables=variables)
        turn.record(f"{turn.kind}StateExited", details)
        if following is None:
            self._branch_ended(turn, text)
            return
        turn.change(
            state=following, phase="enter", data=text, retries="[]", due_at=turn.ctx.now, timeout_at=None,
            heartbeat_at=None, token=None, activity=None, request=None, plan=None,
        )  # fmt: skip
        turn.ctx.db.notify(TOPIC)

    # -- tasks ------------------------------------------------------------------------------------------------------

    def _task(self, turn: Turn) -> None:
        state, ctx, resource = turn.state, turn.ctx, turn.resource
        waits = resource.pattern == "token" or resource.kind == "activity"
        token = ctx.entropy.bytes(96).hex() if waits else None
        scope = turn.effective(token if resource.pattern == "token" else None)
        value = fill(state["Parameters"], scope, ctx.entropy) if "Parameters" in state else scope.data
        text = check_size(compact(value), "state/task input")
        role = fill(state.get("Credentials", {}), scope, ctx.entropy).get("RoleArn", turn.execution.role)
        timeout, heartbeat = _limit(turn, scope, "TimeoutSeconds"), _limit(turn, scope, "HeartbeatSeconds")
        limits = {"timeoutInSeconds": timeout, "heartbeatInSeconds": heartbeat}
        times = {name: number for name, number in limits.items() if number is not None}
        credentials = {"taskCredentials": {"roleArn": role}} if "Credentials" in state else {}
        if resource.kind == "function":
            times.pop("heartbeatInSeconds", None)
            details = {"resource": resource.arn, "input": text, **times, **credentials}
            turn.record("LambdaFunctionScheduled", details, resource.arn)
        elif resource.kind == "activity":
            turn.record("ActivityScheduled", {"resource": resource.arn, "input": text, **times}, resource.arn)
        else:
            details = {**_of(resource), "region": ctx.scope.region, "parameters": text, **times, **credentials}
            turn.record("TaskScheduled", details, resource.arn)
        attempt = turn.frame.attempt + 1
        timeout_at = None if timeout is None else ctx.now + timeout
        heartbeat_at = None if heartbeat is None else ctx.now + heartbeat
        activity = resource.arn if resource.kind == "activity" else None
        turn.change(
            phase="activity" if activity else "task", attempt=attempt, started=0, token=token, activity=activity,
            request=text if activity else None, timeout_at=timeout_at, heartbeat_at=heartbeat_at, heartbeat_s=heartbeat,
            due_at=_earliest(timeout_at, heartbeat_at),
        )  # fmt: skip
        ctx.db.notify(TOPIC)
        if activity:
            ctx.db.notify(ACTIVITIES + activity)
            return
        tasks.emit(
            ctx, tasks.TaskRequest(turn.frame.row, attempt, resource.arn, text, role, turn.execution.arn,
                                   turn.execution.trace),
        )  # fmt: skip

    def pending(self, ctx: Context, frame_row: int, attempt: int) -> Turn | None:
        """The task that was begun as this attempt, None when it is over."""
        frame = repository.frame(ctx.db, frame_row)
        if frame is None or frame.attempt != attempt or frame.phase not in ("task", "activity"):
            return None
        return self._turn(ctx, frame)

    def begin(self, turn: Turn, worker: str | None = None) -> None:
        """A task's work begins, once more after a crash perhaps."""
        if turn.frame.started:
            return
        resource = turn.resource
        if resource.kind == "activity":
            turn.record("ActivityStarted", {} if worker is None else {"workerName": worker}, resource.arn)
        elif resource.kind == "function":
            turn.record("LambdaFunctionStarted", {}, resource.arn)
        else:
            turn.record("TaskStarted", _of(resource), resource.arn)
        turn.change(started=1)
        if turn.frame.heartbeat_s is not None:
            self.beat(turn)

    def submit(self, turn: Turn, output: str) -> None:
        """The work was handed over; the task goes on until its token or its execution comes back."""
        turn.record("TaskSubmitted", {**_of(turn.resource), "output": output})

    def beat(self, turn: Turn) -> None:
        """A heartbeat."""
        if turn.frame.heartbeat_s is not None:
            heartbeat_at = turn.ctx.now + turn.frame.heartbeat_s
            turn.change(heartbeat_at=heartbeat_at, due_at=_earliest(turn.frame.timeout_at, heartbeat_at))
            turn.ctx.db.notify(TOPIC)

    def succeed(self, turn: Turn, output: str) -> None:
        """The answer of a task, as JSON text."""

        def work(turn: Turn) -> None:
            check_size(output, "state/task result")
            resource = turn.resource
            shown = {} if resource.kind != "call" else _of(resource)
            turn.record(_event(resource, "Succeeded"), {**shown, "output": output}, resource.arn)
            self._over(turn)
            self._complete(turn, json.loads(output))

        self._guarded(turn, work)

    def fail(self, turn: Turn, name: str, cause: str, end: str = "Failed") -> None:
        """A task failed, or its time is up (`end` "TimedOut")."""
        resource = turn.resource
        name, cause = name[:MAX_ERROR], cause[:MAX_CAUSE]
        shown = {} if resource.kind != "call" else _of(resource)
        turn.record(_event(resource, end), {**shown, "error": name, "cause": cause}, resource.arn)
        self._over(turn)
        for waited in repository.waited_for(turn.ctx.db, turn.frame.row):
            self.finish(_at_home(turn.ctx, waited), waited, "ABORTED")
        self._handle(turn, StateError(name, cause))

    def _over(self, turn: Turn) -> None:
        turn.change(phase="over", due_at=None, timeout_at=None, heartbeat_at=None, token=None, activity=None)

    def _time_out(self, turn: Turn) -> None:
        frame = turn.frame
        if frame.timeout_at is not None and frame.timeout_at <= turn.ctx.now:
            self.fail(turn, errors.TIMEOUT, "The task did not end within TimeoutSeconds.", "TimedOut")
        else:
            self.fail(turn, errors.HEARTBEAT, "No heartbeat came within HeartbeatSeconds.", "TimedOut")

    # -- branches and iterations ------------------------------------------------------------------------------------

    def _parallel(self, turn: Turn) -> None:
        state, scope = turn.state, turn.effective()
        value = fill(state["Parameters"], scope, turn.ctx.entropy) if "Parameters" in state else scope.data
        text = check_size(compact(value), "state/task input")
        turn.record("ParallelStateStarted", {})
        turn.change(phase="join", due_at=None)
        for index, branch in enumerate(state["Branches"]):
            self._branch(turn, index, branch["StartAt"], text, turn.frame.previous, index)

    def _branch(
        self, turn: Turn, position: int, start: str, data: str, previous: int, branch: int | None,
        item: str | None = None,
    ) -> None:  # fmt: skip
        frame = turn.frame
        repository.add_frame(
            turn.ctx.db, execution=frame.execution, parent=frame.row, position=position,
            scope=compact([*json.loads(frame.scope), [frame.state, branch]]), state=start, phase="enter", data=data,
            variables=frame.variables, item=item or frame.item, previous=previous, due_at=turn.ctx.now,
        )  # fmt: skip
        turn.ctx.db.notify(TOPIC)

    def _map(self, turn: Turn) -> None:
        state, scope = turn.state, turn.effective()
        items = at(state["ItemsPath"], scope) if "ItemsPath" in state else scope.data
        if not isinstance(items, list):
            raise StateError(errors.RUNTIME, f"Reference path {state.get('ItemsPath', '$')} must point to array.")
        most = int(_given(turn, scope, "MaxConcurrency") or 0)
        tolerated = _given(turn, scope, "ToleratedFailureCount"), _given(turn, scope, "ToleratedFailurePercentage")
        plan = {"items": items, "next": 0, "most": most or INLINE_CONCURRENCY, "tolerated": tolerated}
        turn.record("MapStateStarted", {"length": len(items)})
        turn.change(phase="join", due_at=None, plan=compact(plan))
        self._join_map(turn)

    def _join_map(self, turn: Turn) -> None:
        """Begin as many iterations as may run; the end when all are over."""
        state, db = turn.state, turn.ctx.db
        plan = json.loads(turn.frame.plan or "{}")
        items, following = plan["items"], plan["next"]
        over = repository.count_results(db, turn.frame.row)
        if over == len(items):
            kept = [json.loads(text) for text in repository.results(db, turn.frame.row) if text is not None]
            self._joined(turn, "MapStateSucceeded", kept)
            return
        selector = state.get("ItemSelector", state.get("Parameters"))
        while following < len(items) and following - over < plan["most"]:
            item = {"Index": following, "Value": items[following]}
            value = items[following]
            if selector is not None:
                value = fill(selector, turn.effective(item=item), turn.ctx.entropy)
            text = check_size(compact(value), "state/task input")
            details = {"name": turn.frame.state, "index": following}
            first = record(turn.ctx, turn.execution, "MapIterationStarted", turn.frame.previous, details)
            self._branch(turn, following, processor(state)["StartAt"], text, first, None, compact(item))
            following += 1
        turn.change(plan=compact({**plan, "next": following}))

    def _join(self, turn: Turn) -> None:
        if turn.kind == "Map":
            self._join_map(turn)
            return
        outputs = repository.results(turn.ctx.db, turn.frame.row)
        if len(outputs) == len(turn.state["Branches"]):
            self._joined(turn, "ParallelStateSucceeded", [json.loads(text or "null") for text in outputs])

    def _joined(self, turn: Turn, event: str, outputs: list[Any]) -> None:
        turn.record(event, {})
        turn.ctx.db.run("DELETE FROM states_results WHERE frame = ?", turn.frame.row)
        self._complete(turn, outputs)

    def _above(self, turn: Turn) -> Turn | None:
        """The frame that a branch or iteration is of, after the branch's last event."""
        parent = None if turn.frame.parent is None else repository.frame(turn.ctx.db, turn.frame.parent)
        if parent is None:
            return None
        above = self._turn(turn.ctx, parent)
        above.change(previous=turn.frame.previous)
        return above

    def _branch_ended(self, turn: Turn, output: str) -> None:
        above = self._above(turn)
        if above is None:
            self._end_top(turn, "SUCCEEDED", output=output)
            return
        if above.kind == "Map":
            above.record("MapIterationSucceeded", {"name": above.frame.state, "index": turn.frame.position})
        repository.put_result(turn.ctx.db, above.frame.row, turn.frame.position, output)
        repository.remove_frame(turn.ctx.db, turn.frame.row)
        self._guarded(above, self._join)

    def _end_top(self, turn: Turn, status: str, **told: Any) -> None:
        repository.remove_frame(turn.ctx.db, turn.frame.row)
        found = repository.execution(turn.ctx.db, turn.execution.row)
        assert found is not None
        self.finish(turn.ctx, found, status, **told)

    def _branch_failed(self, turn: Turn, name: str | None, cause: str | None) -> None:
        above = self._above(turn)
        if above is None:
            self._end_top(turn, "FAILED", error=name, cause=cause)
            return
        failed = StateError(name or "", cause or "")
        self._drop(turn, aborted=False)
        if above.kind == "Map":
            above.record("MapIterationFailed", {"name": above.frame.state, "index": turn.frame.position})
            repository.put_result(turn.ctx.db, above.frame.row, turn.frame.position, None)
            tolerated = _tolerated(above)
            if tolerated is True:
                self._guarded(above, self._join)
                return
            if tolerated is False:
                failed = StateError(errors.TOLERANCE, "The specified tolerated failure threshold was exceeded.")
        self._drop_children(above, aborted=True)
        above = above.fresh()
        above.record(f"{above.kind}StateFailed", {})
        self._handle(above, failed)

    # -- failure ----------------------------------------------------------------------------------------------------

    def _handle(self, turn: Turn, error: StateError) -> None:
        """Again, caught, or the end of the branch."""
        state, ctx = turn.state, turn.ctx
        self._drop_children(turn, aborted=False)
        ctx.db.run("DELETE FROM states_results WHERE frame = ?", turn.frame.row)
        retriers = state.get("Retry", [])
        counts = json.loads(turn.frame.retries) or [0] * len(retriers)
        index = next((number for number, one in enumerate(retriers) if matches(one["ErrorEquals"], error.name)), None)
        if index is not None and counts[index] < retriers[index].get("MaxAttempts", 3):
            pause = pause_before(retriers[index], counts[index], ctx.entropy.uniform)
            counts[index] += 1
            turn.change(phase="retry", retries=compact(counts), due_at=ctx.now + pause)
            ctx.db.notify(TOPIC)
            return
        catcher = next((one for one in state.get("Catch", ()) if matches(one["ErrorEquals"], error.name)), None)
        if catcher is None:
            self._branch_failed(turn, error.name, error.cause)
            return
        output = {"Error": error.name, "Cause": error.cause}
        try:
            assigned = fill(catcher.get("Assign", {}), turn.scope().over(output), ctx.entropy)
            self._leave(turn, placed(catcher, turn.data, output), assigned, catcher["Next"])
        except StateError as second:
            self._branch_failed(turn.fresh(), second.name, second.cause)


def _at_home(ctx: Context, execution: Execution) -> Context:
    return ctx if ctx.scope == execution.scope else replace(ctx, scope=execution.scope)


def _of(resource: Resource) -> dict[str, str]:
    return {"resourceType": resource.resource_type, "resource": resource.shown_action}


def _event(resource: Resource, end: str) -> str:
    start = {"function": "LambdaFunction", "activity": "Activity"}.get(resource.kind, "Task")
    return start + end


def _earliest(*times: float | None) -> float | None:
    return min((at for at in times if at is not None), default=None)


def _number(value: Any, member: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        raise StateError(errors.RUNTIME, f"The {member} parameter does not reference a valid number: {compact(value)}")
    return value


def _seconds(turn: Turn, member: str, least: float) -> float:
    return _number(turn.state[member], member, least)


def _given(turn: Turn, scope: Any, member: str) -> float | None:
    """A number that a state gives by itself or by a path."""
    if member in turn.state:
        return turn.state[member]
    path = f"{member}Path"
    return _number(at(turn.state[path], scope), path, 0) if path in turn.state else None


def _limit(turn: Turn, scope: Any, member: str) -> int | None:
    found = _given(turn, scope, member)
    if found is not None and found < 1:
        raise StateError(errors.RUNTIME, f"The {member} parameter must be positive.")
    return None if found is None else int(found)


def _tolerated(turn: Turn) -> bool | None:
    """Whether a Map goes on after the failures so far; None: it tolerates none."""
    plan = json.loads(turn.frame.plan or "{}")
    count, share = plan["tolerated"]
    if count is None and share is None:
        return None
    failed = repository.count_results(turn.ctx.db, turn.frame.row, failed=True)
    total = len(plan["items"])
    return (count is None or failed <= count) and (share is None or failed * 100 <= share * total)

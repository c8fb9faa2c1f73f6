"""One frame of an execution in one transaction: what its state may read, and how it is changed."""

import json
from typing import Any

from preheat.services.contract import Context
from preheat.services.stepfunctions import repository
from preheat.services.stepfunctions.domain import Execution, Frame, stamp
from preheat.services.stepfunctions.history import record
from preheat.services.stepfunctions.language.paths import Scope
from preheat.services.stepfunctions.language.resources import Resource
from preheat.services.stepfunctions.language.resources import parse as parse_resource
from preheat.services.stepfunctions.language.templates import taken

Definition = dict[str, Any]


def states_at(definition: Definition, scope: str) -> Definition:
    """The set of states that a frame's `scope` leads to: a JSON list of [name of a state, branch or null]."""
    found = definition
    for name, branch in json.loads(scope):
        state = found["States"][name]
        found = processor(state) if branch is None else state["Branches"][branch]
    return found


def processor(state: Definition) -> Definition:
    """The states that a Map runs for each item."""
    return state.get("ItemProcessor") or state["Iterator"]


class Turn:
    """`frame` is as it stands after what was written so far."""

    def __init__(self, ctx: Context, execution: Execution, frame: Frame, definition: Definition) -> None:
        self.ctx = ctx
        self.execution = execution
        self.frame = frame
        self.definition = definition
        self.states = states_at(definition, frame.scope)

    @property
    def state(self) -> Definition:
        return self.states["States"][self.frame.state]

    @property
    def kind(self) -> str:
        return self.state["Type"]

    @property
    def data(self) -> Any:
        """The state's input."""
        return json.loads(self.frame.data)

    @property
    def resource(self) -> Resource:
        found = parse_resource(self.state["Resource"])
        assert found is not None
        return found

    def change(self, **values: Any) -> None:
        self.frame = repository.change_frame(self.ctx.db, self.frame, **values)

    def record(self, kind: str, details: dict[str, Any], resource: str = "") -> None:
        """An event that follows the frame's last one."""
        number = record(self.ctx, self.execution, kind, self.frame.previous, details, resource)
        self.change(previous=number)

    def fresh(self) -> "Turn":
        """The same with the rows as they stand now; the frame must still be there."""
        frame = repository.frame(self.ctx.db, self.frame.row)
        assert frame is not None
        return Turn(self.ctx, self.execution, frame, self.definition)

    # -- what a state reads -----------------------------------------------------------------------------------------

    def context(self, token: str | None = None, item: dict[str, Any] | None = None) -> dict[str, Any]:
        """The context object. `token` inside a task that waits for one, `item` of a Map's iteration."""
        execution, frame = self.execution, self.frame
        found: dict[str, Any] = {
            "Execution": {
                "Id": execution.arn, "Input": json.loads(execution.input), "Name": execution.shown_name,
                "RoleArn": execution.role, "StartTime": stamp(execution.started), "RedriveCount": 0,
            },
            "StateMachine": {"Id": execution.machine_arn, "Name": execution.machine},
            "State": {
                "Name": frame.state, "EnteredTime": stamp(frame.entered_at or self.ctx.now),
                "RetryCount": sum(json.loads(frame.retries)),
            },
        }  # fmt: skip
        if item is not None:
            found["Map"] = {"Item": item}
        elif frame.item is not None:
            found["Map"] = {"Item": json.loads(frame.item)}
        if token is not None:
            found["Task"] = {"Token": token}
        return found

    def scope(self, token: str | None = None, item: dict[str, Any] | None = None) -> Scope:
        """Paths over the state's input."""
        return Scope(self.data, self.context(token, item), json.loads(self.frame.variables))

    def effective(self, token: str | None = None, item: dict[str, Any] | None = None) -> Scope:
        """Paths over what InputPath leaves of it."""
        scope = self.scope(token, item)
        return scope.over(taken(self.state, "InputPath", scope))

"""What a Task state asks for: an event of kind "states.task", which `triggers/states_tasks.py` carries out."""

import msgspec

from preheat.services.contract import Context

KIND = "states.task"


class TaskRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON of an event. `frame` and `attempt` say whose answer it is, `resource` is the task's Resource, `input`
    JSON text, `execution` the ARN that asks."""

    frame: int
    attempt: int
    resource: str
    input: str
    role: str
    execution: str
    trace: str | None = None


def emit(ctx: Context, request: TaskRequest) -> None:
    ctx.db.emit(KIND, msgspec.json.encode(request), ctx.now)

"""The states of an execution environment and the steps between them; an invocation on its way through one."""

from collections.abc import Callable
from enum import StrEnum

from preheat.execution.contract import Invocation, Outcome
from preheat.execution.gate import Lane


class State(StrEnum):
    STARTING = "starting"
    INITIALISING = "initialising"
    IDLE = "idle"
    BUSY = "busy"
    RESETTING = "resetting"
    STOPPING = "stopping"
    DEAD = "dead"


ALLOWED: dict[State, frozenset[State]] = {
    State.STARTING: frozenset((State.INITIALISING, State.RESETTING, State.STOPPING, State.DEAD)),
    State.INITIALISING: frozenset((State.IDLE, State.BUSY, State.RESETTING, State.STOPPING, State.DEAD)),
    State.IDLE: frozenset((State.BUSY, State.STOPPING, State.DEAD)),
    State.BUSY: frozenset((State.IDLE, State.RESETTING, State.STOPPING, State.DEAD)),
    State.RESETTING: frozenset((State.STARTING, State.STOPPING, State.DEAD)),
    State.STOPPING: frozenset((State.DEAD,)),
    State.DEAD: frozenset(),
}


class IllegalTransition(RuntimeError):
    """A step that the lifecycle does not know."""


class Job:
    """An admitted invocation on its way. `begun` is monotonic seconds at START; `lane` let it in."""

    __slots__ = ("begun", "delivered", "done", "invocation", "lane")

    def __init__(self, invocation: Invocation, done: Callable[[Outcome], None], lane: Lane) -> None:
        self.invocation = invocation
        self.done = done
        self.lane = lane
        self.begun: float | None = None
        self.delivered = False

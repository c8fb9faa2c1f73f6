"""What goes wrong while a state machine runs."""

TIMEOUT = "States.Timeout"
HEARTBEAT = "States.HeartbeatTimeout"
TASK_FAILED = "States.TaskFailed"
ALL = "States.ALL"
RUNTIME = "States.Runtime"
DATA_LIMIT = "States.DataLimitExceeded"
NO_CHOICE = "States.NoChoiceMatched"
PARAMETER_PATH = "States.ParameterPathFailure"
RESULT_PATH = "States.ResultPathMatchFailure"
INTRINSIC = "States.IntrinsicFailure"
PERMISSIONS = "States.Permissions"
TOLERANCE = "States.ExceedToleratedFailureThreshold"
UNCAUGHT = frozenset({RUNTIME, DATA_LIMIT})
"""Errors that States.ALL does not stand for."""


class StateError(Exception):
    """A state failed: `name` as ErrorEquals sees it, `cause` in words."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name}: {cause}")
        self.name = name
        self.cause = cause


def matches(wanted: list[str], name: str) -> bool:
    """Whether a retrier or catcher with this ErrorEquals takes the error."""
    if name in wanted:
        return True
    if ALL in wanted and name not in UNCAUGHT:
        return True
    return TASK_FAILED in wanted and name not in UNCAUGHT and name not in (TIMEOUT, HEARTBEAT)

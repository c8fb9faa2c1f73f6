"""Step Functions' names, ARNs, limits and errors, and the values that its rows are read into."""

import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope

STANDARD, EXPRESS = "STANDARD", "EXPRESS"
TYPES = (STANDARD, EXPRESS)
STATUSES = ("RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", "PENDING_REDRIVE")
MAX_DEFINITION = 1_048_576
MAX_EVENTS = 25_000
MAX_TAGS = 50
MAX_TRACE = 256
MAX_CAUSE = 32_768
MAX_ERROR = 256
EXPRESS_S = 300
KEPT_S = 90 * 86_400
POLL_S = 60.0
_NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f\ufffe\uffff]{1,80}")


class Machine(NamedTuple):
    """A state machine. `revision` is the row of its definition, `logging` and `tags` are JSON."""

    row: int
    account: str
    region: str
    name: str
    type: str
    role: str
    revision: int
    logging: str
    tracing: int
    tags: str
    created: float
    modified: float

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return self.scope.arn("states", f"stateMachine:{self.name}")


class Execution(NamedTuple):
    """One run of a machine; see `schema.sql`."""

    row: int
    account: str
    region: str
    machine: str
    name: str
    type: str
    revision: int
    role: str
    logging: str
    status: str
    input: str
    output: str | None
    error: str | None
    cause: str | None
    trace: str | None
    started: float
    stopped: float | None
    expires_at: float | None
    events: int
    waiter: int | None
    waiter_attempt: int | None

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        kind = "express" if self.type == EXPRESS else "execution"
        return self.scope.arn("states", f"{kind}:{self.machine}:{self.name}")

    @property
    def machine_arn(self) -> str:
        return self.scope.arn("states", f"stateMachine:{self.machine}")

    @property
    def shown_name(self) -> str:
        return self.name.partition(":")[0]


class Frame(NamedTuple):
    """One thread of control of an execution; see `schema.sql`."""

    row: int
    execution: int
    parent: int | None
    position: int
    scope: str
    state: str
    phase: str
    data: str
    variables: str
    item: str | None
    plan: str | None
    retries: str
    previous: int
    entered: int
    entered_at: float
    attempt: int
    due_at: float | None
    timeout_at: float | None
    heartbeat_at: float | None
    heartbeat_s: float | None
    started: int
    token: str | None
    activity: str | None
    request: str | None


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def stamp(epoch: float) -> str:
    """As the context object shows a moment."""
    return moment(int(epoch * 1_000) / 1_000).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)


def check_name(name: str) -> str:
    """Raises InvalidName."""
    if _NAME.fullmatch(name) is None:
        raise AwsError("InvalidName", f"Invalid Name: '{name}'")
    return name


def named(text: str, *kinds: str) -> tuple[Scope, str]:
    """(account and region, what follows the kind) of an ARN such as `arn:aws:states:...:stateMachine:name`. Raises
    InvalidArn."""
    try:
        arn = Arn.parse(text)
    except ValueError:
        raise invalid_arn(text, "Invalid ARN prefix") from None
    kind, _, rest = arn.resource.partition(":")
    if arn.service != "states" or kind not in kinds or not rest:
        raise invalid_arn(text, f"Resource type not valid in this context: {kind}")
    return arn.scope, rest


def invalid_arn(text: str, why: str) -> AwsError:
    return AwsError("InvalidArn", f"Invalid Arn: '{why}: {text}'")


def machine_missing(arn: str) -> AwsError:
    return AwsError("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")


def execution_missing(arn: str) -> AwsError:
    return AwsError("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")


def activity_missing(arn: str) -> AwsError:
    return AwsError("ActivityDoesNotExist", f"Activity Does Not Exist: '{arn}'")


def type_not_supported() -> AwsError:
    return AwsError(
        "StateMachineTypeNotSupported", "This operation is not supported by this type of state machine"
    )


def shown_tags(tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in tags.items()]

"""The rules of CloudWatch Logs: names, batches, positions."""

import re
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError

RETENTION_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
DAY_MS = 86_400_000
MAX_BATCH_BYTES = 1_048_576
MAX_BATCH_EVENTS = 10_000
MAX_EVENT_BYTES = 1_048_576
EVENT_OVERHEAD = 26
MAX_FUTURE_MS = 2 * 3_600_000
MAX_PAST_MS = 14 * DAY_MS
MAX_PAGE_BYTES = 1_048_576
MAX_PAGE_EVENTS = 10_000
_GROUP = re.compile(r"[.\-_/#A-Za-z0-9]{1,512}\Z")
_STREAM = re.compile(r"[^:*]{1,512}\Z")

_IDENTIFIER = re.compile(r"[\w#+=/:,.@-]*", re.ASCII)

NO_GROUP = "The specified log group does not exist."
NO_STREAM = "The specified log stream does not exist."


def invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def violation(value: Any, member: str, constraint: str) -> AwsError:
    """The error for a member that does not fit the model."""
    return invalid(
        f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
    )


def _check_name(name: str | None, member: str, pattern: re.Pattern[str], shown: str) -> str:
    if name is None:
        raise invalid(
            f"1 validation error detected: Value null at '{member}' failed to satisfy constraint: "
            "Member must not be null"
        )
    if len(name) > 512:
        raise invalid("Invalid LogGroup or LogStream, both must have length less than or equal to 512.")
    if not name:
        raise violation(name, member, "Member must have length greater than or equal to 1")
    if not pattern.match(name):
        raise violation(name, member, f"Member must satisfy regular expression pattern: {shown}")
    return name


def group_name(name: str | None, member: str = "logGroupName") -> str:
    return _check_name(name, member, _GROUP, r"[\.\-_/#A-Za-z0-9]+")


def stream_name(name: str | None, member: str = "logStreamName") -> str:
    return _check_name(name, member, _STREAM, "[^:*]*")


def group_of(params: dict[str, Any]) -> str:
    """The group's name, given as a name or as an identifier (a name or an ARN)."""
    identifier = params.get("logGroupIdentifier")
    if identifier is None:
        return group_name(params.get("logGroupName"))
    if "logGroupName" in params:
        raise AwsError("ValidationException", "LogGroup name and LogGroup ARN are mutually exclusive parameters.")
    if not _IDENTIFIER.fullmatch(identifier):
        raise invalid(
            "1 validation error detected: Value at 'logGroupIdentifier' failed to satisfy constraint: "
            rf"Member must satisfy regular expression pattern: {_IDENTIFIER.pattern}"
        )
    return group_name(group_of_arn(identifier) if identifier.startswith("arn:") else identifier)


def group_of_arn(arn: str) -> str:
    """`arn:aws:logs:<region>:<account>:log-group:<name>` with or without `:*`. Raises InvalidParameterException."""
    parts = arn.split(":")
    if len(parts) < 7 or parts[2] != "logs" or parts[5] != "log-group":
        raise invalid(f"Invalid resource ARN: {arn}")
    return parts[6]


def page_limit(params: dict[str, Any], default: int, most: int) -> int:
    limit = params.get("limit", default)
    if not 1 <= limit <= most:
        bound = "greater than or equal to 1" if limit < 1 else f"less than or equal to {most}"
        raise violation(limit, "limit", f"Member must have value {bound}")
    return limit


def check_length(params: dict[str, Any], member: str, most: int, least: int = 1) -> None:
    """An absent member passes."""
    value = params.get(member)
    if value is not None and not least <= len(value) <= most:
        bound = f"less than or equal to {most}" if len(value) > most else f"greater than or equal to {least}"
        raise violation(value, member, f"Member must have length {bound}")


def read_place(token: str) -> tuple[str, str]:
    """`<name>*<group>` of a list of filters. Raises InvalidParameterException."""
    name, star, group = token.rpartition("*")
    if not star:
        raise invalid("The specified nextToken is invalid.")
    return name, group


class Position(NamedTuple):
    """A place among events ordered by time and id."""

    at_ms: int = 0
    id: int = 0


def position_token(direction: str, position: Position) -> str:
    """`direction` is "f" or "b"."""
    return f"{direction}/{position.at_ms:020d}{position.id:036d}/s"


def event_id(position: Position) -> str:
    return f"{position.at_ms:020d}{position.id:036d}"


def read_token(token: str) -> tuple[str, Position]:
    """Raises InvalidParameterException."""
    match = re.fullmatch(r"([fb])/(\d{20})(\d{36})/s", token)
    if match is None:
        raise invalid("The specified nextToken is invalid.")
    return match[1], Position(int(match[2]), int(match[3]))


class Batch(NamedTuple):
    """A PutLogEvents batch after its rules: what is kept, and AWS's rejectedLogEventsInfo."""

    kept: list[tuple[int, str]]
    rejected: dict[str, int]
    size: int


def check_batch(events: list[dict[str, Any]], now_ms: int, retention_days: int | None) -> Batch:
    """Raises InvalidParameterException for a batch that is refused as a whole."""
    if not 1 <= len(events) <= MAX_BATCH_EVENTS:
        bound = "greater than or equal to 1" if not events else f"less than or equal to {MAX_BATCH_EVENTS}"
        raise violation("[]" if not events else "[...]", "logEvents", f"Member must have length {bound}")
    total = 0
    previous = None
    for number, event in enumerate(events, 1):
        size = len(event["message"].encode("utf-8", "surrogatepass")) + EVENT_OVERHEAD
        if not event["message"]:
            raise violation(
                "", f"logEvents.{number}.member.message", "Member must have length greater than or equal to 1"
            )
        if size > MAX_EVENT_BYTES:
            raise invalid(f"Log event too large: {size} bytes exceeds limit of {MAX_EVENT_BYTES}")
        total += size
        if previous is not None and event["timestamp"] < previous:
            raise invalid("Log events in a single PutLogEvents request must be in chronological order.")
        previous = event["timestamp"]
    if total > MAX_BATCH_BYTES:
        raise invalid(f"Upload too large: {total} bytes exceeds limit of {MAX_BATCH_BYTES}")
    if events[-1]["timestamp"] - events[0]["timestamp"] > DAY_MS:
        raise invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
    expired = now_ms - retention_days * DAY_MS if retention_days is not None else None
    kept = []
    rejected: dict[str, int] = {}
    for number, event in enumerate(events):
        at = event["timestamp"]
        if at > now_ms + MAX_FUTURE_MS:
            rejected.setdefault("tooNewLogEventStartIndex", number)
        elif expired is not None and at < expired:
            rejected["expiredLogEventEndIndex"] = number + 1
        elif at < now_ms - MAX_PAST_MS:
            rejected["tooOldLogEventEndIndex"] = number + 1
        else:
            kept.append((at, event["message"]))
    return Batch(kept, rejected, total)

"""EventBridge's rules: names, ARNs, limits, the events themselves, and its errors in its own words."""

import base64
import binascii
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.constraints import check_number, check_text, violated

DEFAULT_BUS = "default"
SERVICE = "events.amazonaws.com"
NAMESPACE = "AWS/Events"
MAX_ENTRIES = 10
MAX_REQUEST_BYTES = 1_048_576
"""Of all entries of one PutEvents together, since January 2026."""
MAX_DETAIL_TYPE = 128
MAX_RULES = 300
MAX_TARGETS = 5
MAX_BUSES = 100
MAX_PATTERN = 4_096
MAX_POLICY = 10_240
MAX_TAGS = 50
MAX_REPLAYS = 10
DAY_S = 86_400
ENABLED_STATES = ("ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
STATES = ("ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
NAME = r"[\.\-_A-Za-z0-9]+"
BUS_NAME = r"[/\.\-_A-Za-z0-9]+"
BUS_REFERENCE = r"(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus\/)?[/\.\-_A-Za-z0-9]+"
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DECODER = json.JSONDecoder()
TOO_MANY = "The requested resource exceeds the maximum number allowed."


class Rule(NamedTuple):
    """`next_at` is when a schedule is due (epoch seconds), `anchor` where a rate counts from, `managed_by` the service
    whose rule it is when it is not the user's."""

    row: int
    account: str
    region: str
    bus: str
    name: str
    pattern: str | None
    schedule: str | None
    state: str
    description: str | None
    role: str | None
    tags: dict[str, str]
    anchor: float
    next_at: float | None
    managed_by: str | None = None

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return rule_arn(self.scope, self.bus, self.name)

    @property
    def enabled(self) -> bool:
        return self.state in ENABLED_STATES

    @property
    def dimensions(self) -> dict[str, str]:
        """Of its CloudWatch metrics."""
        return {"RuleName": self.name} if self.bus == DEFAULT_BUS else {"EventBusName": self.bus, "RuleName": self.name}


class Bus(NamedTuple):
    account: str
    region: str
    name: str
    description: str | None
    dead_letter: str | None
    policy: str | None
    tags: dict[str, str]
    created: float
    modified: float

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return bus_arn(self.scope, self.name)


class BusName(NamedTuple):
    """A bus as a request names it."""

    scope: Scope
    name: str


def bus_arn(scope: Scope, name: str) -> str:
    return scope.arn("events", f"event-bus/{name}")


def rule_arn(scope: Scope, bus: str, name: str) -> str:
    return scope.arn("events", f"rule/{name}" if bus == DEFAULT_BUS else f"rule/{bus}/{name}")


def bus_named(scope: Scope, text: str | None) -> BusName:
    """By its name or ARN; the default bus when none is given."""
    if not text:
        return BusName(scope, DEFAULT_BUS)
    if text.startswith("arn:"):
        arn = Arn.parse(text)
        return BusName(arn.scope, arn.resource.removeprefix("event-bus/"))
    return BusName(scope, text)


# -- errors -----------------------------------------------------------------------------------------------------------


def invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)


def bad_parameter(name: str, reason: str) -> AwsError:
    return invalid(f"Parameter {name} is not valid. Reason: {reason}")


def not_found(message: str) -> AwsError:
    return AwsError("ResourceNotFoundException", message)


def no_bus(name: str) -> AwsError:
    return not_found(f"Event bus {name} does not exist.")


def no_rule(name: str, bus: str) -> AwsError:
    return not_found(f"Rule {name} does not exist on EventBus {bus}.")


def exists(message: str) -> AwsError:
    return AwsError("ResourceAlreadyExistsException", message)


def too_many() -> AwsError:
    return AwsError("LimitExceededException", TOO_MANY)


def check_name(params: dict[str, Any], member: str = "Name", most: int = 64) -> None:
    check_text(params, member, most, NAME, 1)


def check_count(member: str, value: list[Any], most: int) -> None:
    if len(value) > most:
        raise violated(member, f"[{len(value)} items]", f"have length less than or equal to {most}")
    if not value:
        raise violated(member, "[]", "have length greater than or equal to 1")


def too_many_entries(entries: list[dict[str, Any]]) -> AwsError:
    """AWS shows what it was sent as its own Java objects."""
    shown = ", ".join(map(_as_java, entries))
    return violated("entries", f"[{shown}]", f"have length less than or equal to {MAX_ENTRIES}")


def _as_java(entry: dict[str, Any]) -> str:
    at, resources = entry.get("Time"), entry.get("Resources")
    members = {
        "time": None if at is None else at.astimezone(UTC).strftime("%a %b %d %H:%M:%S UTC %Y"),
        "source": entry.get("Source"),
        "resources": None if resources is None else f"[{', '.join(resources)}]",
        "detailType": entry.get("DetailType"),
        "detail": entry.get("Detail"),
        "eventBusName": entry.get("EventBusName"),
        "traceHeader": entry.get("TraceHeader"),
        "kmsKeyIdentifier": None,
        "internalMetadata": None,
    }
    shown = ", ".join(f"{name}={'null' if value is None else value}" for name, value in members.items())
    return f"PutEventsRequestEntry({shown})"


def check_tags(present: dict[str, str], given: list[dict[str, str]]) -> dict[str, str]:
    """The tags after `given` were added. Raises ValidationException, LimitExceededException."""
    for tag in given:
        key, value = tag["Key"], tag["Value"]
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise invalid("Tag keys have 1 to 128 characters, tag values at most 256.")
        if key.lower().startswith("aws:"):
            raise invalid("The tag key may not start with aws:.")
    tags = present | {tag["Key"]: tag["Value"] for tag in given}
    if len(tags) > MAX_TAGS:
        raise AwsError("LimitExceededException", f"A resource can have at most {MAX_TAGS} tags.")
    return tags


# -- pages ------------------------------------------------------------------------------------------------------------


def paged(
    items: list[Any], params: dict[str, Any], member: str, name_of: Callable[[Any], str], shown: Callable[[Any], Any]
) -> dict[str, Any]:
    """One page of `items`, which are in the order of their names, with a token for the next."""
    check_number(params, "Limit", 1, 100)
    limit, after = params.get("Limit", 100), ""
    if params.get("NextToken"):
        try:
            after = base64.urlsafe_b64decode(params["NextToken"].encode()).decode()
        except (binascii.Error, ValueError):
            raise bad_parameter("NextToken", "The token is not one that was given out.") from None
    rest = [item for item in items if name_of(item) > after]
    output = {member: [shown(item) for item in rest[:limit]]}
    if len(rest) > limit:
        output["NextToken"] = base64.urlsafe_b64encode(name_of(rest[limit - 1]).encode()).decode()
    return output


# -- events -----------------------------------------------------------------------------------------------------------


def entry_size(entry: dict[str, Any]) -> int:
    """Bytes as PutEvents counts them."""
    size = 14 if entry.get("Time") is not None else 0
    for text in (entry.get("Source"), entry.get("DetailType"), entry.get("Detail"), *entry.get("Resources", ())):
        if text:
            size += len(text) if text.isascii() else len(text.encode())
    return size


class Rejected(Exception):
    """An entry that PutEvents does not take: (code, message)."""


def event_of(entry: dict[str, Any], scope: Scope, event_id: str, now: float) -> dict[str, Any]:
    """The event of a PutEvents entry. Raises Rejected."""
    for member in ("Source", "DetailType", "Detail"):
        if not entry.get(member):
            reason = f"Parameter {member} is not valid. Reason: {member} is a required argument."
            raise Rejected("InvalidArgument", reason)
    if entry["Source"].startswith("aws."):
        raise Rejected("NotAuthorizedForSourceException", "Not authorized for the source.")
    if len(entry["DetailType"]) > MAX_DETAIL_TYPE:
        reason = f"Parameter DetailType is not valid. Reason: DetailType has more than {MAX_DETAIL_TYPE} characters."
        raise Rejected("InvalidArgument", reason)
    try:
        detail = _DECODER.decode(entry["Detail"])
    except ValueError:
        detail = None
    if not isinstance(detail, dict):
        raise Rejected("MalformedDetail", "Detail is malformed.")
    at = entry["Time"].timestamp() if entry.get("Time") is not None else now
    resources = list(entry.get("Resources", ()))
    return new_event(scope, event_id, entry["Source"], entry["DetailType"], detail, resources, at)


def new_event(
    scope: Scope, event_id: str, source: str, detail_type: str, detail: dict[str, Any], resources: list[str], at: float
) -> dict[str, Any]:
    """`at` is epoch seconds; the event tells whole ones."""
    return {
        "version": "0",
        "id": event_id,
        "detail-type": detail_type,
        "source": source,
        "account": scope.account,
        "time": datetime.fromtimestamp(int(at // 1), UTC).isoformat()[:-6] + "Z",
        "region": scope.region,
        "resources": resources,
        "detail": detail,
    }


def replayed(event: dict[str, Any], replay: str) -> dict[str, Any]:
    """The event with the name of the replay, where AWS puts it."""
    marked: dict[str, Any] = {}
    for name, value in event.items():
        if name == "resources":
            marked["replay-name"] = replay
        marked[name] = value
    return marked


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def compact(value: Any) -> str:
    return _COMPACT.encode(value)

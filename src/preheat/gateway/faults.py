"""Faults on purpose: chosen calls of the AWS APIs are throttled, refused, delayed or cut off, to see how it is taken.
There are none until somebody adds one at `/_preheat/faults` (`preheat faults`), and a restart forgets all.

A fault names a service, and may name an operation, a caller (a part of the principal's ARN, such as a function's name),
a rate, a number of calls, a number of seconds. Calls that the platform makes itself (a queue's poller, a delivery) are
not touched.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from preheat.gateway.control import ControlError
from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest
from preheat.services.contract import Principal

ERRORS = ("throttle", "unavailable", "deny", "delay", "drop")
LONGEST_DELAY_MS = 900_000
LONGEST_S = 86_400
MOST = 100
KEYS = frozenset(("service", "operation", "caller", "error", "rate", "ms", "count", "seconds"))

THROTTLED: dict[str, tuple[str, str, int]] = {
    "bedrock-runtime": ("ThrottlingException", "Too many requests, please wait before trying again.", 429),
    "dynamodb": (
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded. Consider increasing your "
        "provisioning level with the UpdateTable API.", 400,
    ),
    "lambda": ("TooManyRequestsException", "Rate Exceeded.", 429),
    "s3": ("SlowDown", "Please reduce your request rate.", 503),
    "s3vectors": ("TooManyRequestsException", "Too many requests, please wait before trying again.", 429),
    "sqs": ("RequestThrottled", "Request is throttled.", 403),
}  # fmt: skip
UNAVAILABLE: dict[str, tuple[str, str, int]] = {
    "bedrock-runtime": ("ServiceUnavailableException", "The service is temporarily unavailable.", 503),
    "dynamodb": ("InternalServerError", "Internal server error", 500),
    "lambda": ("ServiceException", "The Lambda service encountered an internal error.", 500),
    "s3": ("ServiceUnavailable", "Service is unable to handle request.", 503),
    "s3vectors": ("ServiceUnavailableException", "The service is temporarily unavailable.", 503),
}
NAMED_EXCEPTIONS = frozenset(("bedrock-runtime", "dynamodb", "lambda", "s3vectors"))


@dataclass(frozen=True, slots=True)
class Fault:
    """Empty `operation` and `caller` stand for all. `rate` is the share of the calls that it strikes, `ms` how long a
    delay takes, `count` how many calls it may still strike (None: any number), `until` when it ends (epoch seconds of
    the platform's clock; None: when it is removed), `hits` how many it struck."""

    id: str
    service: str
    error: str
    operation: str = ""
    caller: str = ""
    rate: float = 1.0
    ms: int = 0
    count: int | None = None
    until: float | None = None
    hits: int = 0

    def concerns(self, call: Call, principal: Principal, now: float) -> bool:
        return (
            self.service == call.service
            and self.operation in ("", call.operation)
            and self.caller in principal.arn
            and self.count != 0
            and (self.until is None or now < self.until)
        )

    def refusal(self) -> AwsError:
        """In the service's own words."""
        if self.error == "throttle":
            return AwsError(*THROTTLED.get(self.service, ("ThrottlingException", "Rate exceeded", 400)))
        if self.error == "deny":
            code = "AccessDeniedException" if self.service in NAMED_EXCEPTIONS else "AccessDenied"
            return AwsError(code, "Access is denied by a fault that was injected.", 403)
        usual = ("ServiceUnavailable", "The service is temporarily unavailable.", 503)
        return AwsError(*UNAVAILABLE.get(self.service, usual))


class Faults:
    """`services` are those that a fault may name, `operations(service)` their operations."""

    def __init__(
        self, clock: Clock, entropy: Entropy, services: Callable[[], list[str]],
        operations: Callable[[str], list[str]],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._entropy = entropy
        self._services = services
        self._operations = operations
        self._faults: dict[str, Fault] = {}

    def strike(self, call: Call, principal: Principal) -> Fault | None:
        """The fault that this call meets, the oldest first."""
        if not self._faults:
            return None
        now = self._clock.now()
        for fault in self._faults.values():
            if fault.concerns(call, principal, now) and (fault.rate >= 1 or self._entropy.uniform() < fault.rate):
                left = None if fault.count is None else fault.count - 1
                self._faults[fault.id] = replace(fault, hits=fault.hits + 1, count=left)
                return fault
        return None

    # -- the control paths ----------------------------------------------------------------------------------------

    def show(self, request: HttpRequest) -> dict[str, Any]:
        return {"faults": [asdict(fault) for fault in self._faults.values()]}

    def add(self, request: HttpRequest) -> dict[str, Any]:
        """Raises ControlError 400 for what is no fault, 409 for one too many."""
        if len(self._faults) >= MOST:
            raise ControlError(409, f"there are {MOST} faults already; remove some")
        fault = self._read(_body(request))
        self._faults[fault.id] = fault
        return {"fault": asdict(fault)}

    def remove(self, request: HttpRequest) -> dict[str, Any]:
        """The fault that the query's `id` names; all without one."""
        wanted = dict(request.arguments()).get("id")
        gone = [id for id in self._faults if wanted in (None, id)]
        if wanted is not None and not gone:
            raise ControlError(404, f"there is no fault {wanted}")
        for id in gone:
            del self._faults[id]
        return {"removed": len(gone)}

    def _read(self, body: dict[str, Any]) -> Fault:
        unknown = set(body) - KEYS
        if unknown:
            raise ControlError(400, f"a fault has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(KEYS))}")
        service, operation, error = (_text(body, name) for name in ("service", "operation", "error"))
        if service not in self._services():
            raise ControlError(400, f"service must be one of {', '.join(sorted(self._services()))}, not {service!r}")
        if operation and operation not in self._operations(service):
            raise ControlError(400, f"{service} has no operation {operation!r}")
        if error not in ERRORS:
            raise ControlError(400, f"error must be one of {', '.join(ERRORS)}, not {error!r}")
        ms = _number(body, "ms", 0, 0, LONGEST_DELAY_MS)
        if (error == "delay") != bool(ms):
            raise ControlError(400, "`ms` is for a delay, and a delay needs it")
        seconds = _number(body, "seconds", None, 0.001, LONGEST_S)
        count = _number(body, "count", None, 1, 1_000_000)
        return Fault(
            id=self._entropy.uuid()[:8],
            service=service,
            error=error,
            operation=operation,
            caller=_text(body, "caller"),
            rate=float(_number(body, "rate", 1.0, 0.0, 1.0) or 0.0),
            ms=int(ms or 0),
            count=None if count is None else int(count),
            until=None if seconds is None else self._clock.now() + seconds,
        )


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(request.body)
    except msgspec.DecodeError as error:
        raise ControlError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ControlError(400, 'a fault is an object, like {"service": "dynamodb", "error": "throttle"}')
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise ControlError(400, f"{name} must be a string")
    return value


def _number(body: dict[str, Any], name: str, default: float | None, least: float, most: float) -> float | None:
    value = body.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        if value == default:
            return value
        raise ControlError(400, f"{name} must be a number from {least:g} to {most:g}")
    return value

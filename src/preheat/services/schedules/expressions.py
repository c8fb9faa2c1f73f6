"""`rate(...)`, `cron(...)` and `at(...)`, and when they are due next."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from preheat.services.schedules.cron import Cron, ScheduleError, parse_cron

UNIT_S = {"minute": 60, "hour": 3_600, "day": 86_400}
_RATE = re.compile(r"rate\((\d{1,10})\s+(minute|hour|day)(s?)\)")
_AT = re.compile(r"at\((\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})\)")
_CRON = re.compile(r"cron\((.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rate:
    period_s: int


@dataclass(frozen=True, slots=True)
class At:
    """A local time without a zone."""

    local: datetime


Expression = Rate | Cron | At


def parse(text: str, *, scheduler: bool = False) -> Expression:
    """As a rule of EventBridge has it, or EventBridge Scheduler: that takes at(...) too, and a unit in the singular or
    plural with any number. Raises ScheduleError."""
    rate = _RATE.fullmatch(text)
    if rate is not None:
        count = int(rate[1])
        if count == 0 or (not scheduler and (count == 1) == bool(rate[3])):
            raise ScheduleError("a rate is 1 of a unit, or more of units: rate(1 minute), rate(5 minutes)")
        return Rate(count * UNIT_S[rate[2]])
    cron = _CRON.fullmatch(text)
    if cron is not None:
        return parse_cron(cron[1])
    at = _AT.fullmatch(text) if scheduler else None
    if at is not None:
        try:
            return At(datetime.fromisoformat(at[1]))
        except ValueError as error:
            raise ScheduleError(str(error)) from error
    raise ScheduleError("not rate(...)" + (", cron(...) or at(...)" if scheduler else " or cron(...)"))


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name. Raises ScheduleError."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(f"{name!r} is not a time zone") from None


def next_time(
    expression: Expression, after: float, timezone: tzinfo | None = None, start: float | None = None
) -> float | None:
    """The first moment later than `after` at which it is due, None when it never is again.

    Nothing is due before `start`. A rate counts from there (`start` itself is due; without a `start` it counts from
    `after`) in seconds that have passed, whatever the clocks on the wall do.
    """
    timezone = timezone or UTC
    if isinstance(expression, Rate):
        anchor = after if start is None else start
        if after < anchor:
            return anchor
        return anchor + (int((after - anchor) // expression.period_s) + 1) * expression.period_s
    if isinstance(expression, At):
        moment = expression.local.replace(tzinfo=timezone).timestamp()
        return moment if moment > after else None
    found = expression.next_time(after, timezone)
    while found is not None and start is not None and found < start:
        found = expression.next_time(start - 1e-3, timezone)
    return found

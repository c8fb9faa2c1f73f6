"""AWS's cron: minutes hours day-of-month month day-of-week year, with `?`, `L`, `W` and `#`.

Days of the week are 1 to 7, Sunday first. Ranges may wrap (`20-2`, `FRI-MON`), except in the year.
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

FIRST_YEAR, LAST_YEAR = 1970, 2199
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LONGEST_JUMP = timedelta(hours=3)
"""More than any clock is put back or forward."""


class ScheduleError(ValueError):
    """Not a schedule expression; the text says why."""


@dataclass(frozen=True, slots=True)
class Days:
    """Days of a month: of `month_days`, or `last_of_month`, or the working day nearest to `near` (0: the last day), or
    of `week_days` (1 Sunday), or the `nth` (0: the last) of one week day. Exactly one of them is given."""

    month_days: frozenset[int] | None = None
    last_of_month: bool = False
    near: int | None = None
    week_days: frozenset[int] | None = None
    nth: tuple[int, int] | None = None

    def of(self, year: int, month: int) -> list[int]:
        """Ascending."""
        length = calendar.monthrange(year, month)[1]
        if self.month_days is not None:
            return sorted(day for day in self.month_days if day <= length)
        if self.last_of_month:
            return [length]
        if self.near is not None:
            return [] if self.near > length else [_nearest_weekday(year, month, self.near or length, length)]
        first = date(year, month, 1).isoweekday() % 7 + 1
        if self.week_days is not None:
            return [day for day in range(1, length + 1) if (first + day - 2) % 7 + 1 in self.week_days]
        weekday, number = self.nth or (1, 1)
        days = [day for day in range(1, length + 1) if (first + day - 2) % 7 + 1 == weekday]
        return days[-1:] if number == 0 else days[number - 1 : number]


def _nearest_weekday(year: int, month: int, day: int, length: int) -> int:
    """The working day nearest to a day, within its month."""
    weekday = date(year, month, day).isoweekday()
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 7:
        return day + 1 if day < length else day - 2
    return day


@dataclass(frozen=True, slots=True)
class Cron:
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: Days
    months: tuple[int, ...]
    years: tuple[int, ...]

    def next_time(self, after: float, timezone: tzinfo = UTC) -> float | None:
        """The first moment later than `after`; None when there is none until 2199. Local times that a clock put forward
        leaves out are left out; those that come twice count once, the first time."""
        local = datetime.fromtimestamp(after, timezone).replace(tzinfo=None) - _LONGEST_JUMP
        for moment in self._times(local):
            there = moment.replace(tzinfo=timezone)
            epoch = there.timestamp()
            if epoch > after and datetime.fromtimestamp(epoch, timezone).replace(tzinfo=None) == moment:
                return epoch
        return None

    def _times(self, since: datetime) -> Iterator[datetime]:
        """Local times from `since` on, ascending."""
        for year in self.years:
            if year < since.year:
                continue
            for month in self.months:
                if (year, month) < (since.year, since.month):
                    continue
                for day in self.days.of(year, month):
                    if (year, month, day) < (since.year, since.month, since.day):
                        continue
                    for hour in self.hours:
                        for minute in self.minutes:
                            moment = datetime(year, month, day, hour, minute)
                            if moment >= since:
                                yield moment


def parse_cron(text: str) -> Cron:
    """The six fields between the brackets. Raises ScheduleError."""
    fields = text.split()
    if len(fields) != 6:
        raise ScheduleError("cron takes six fields: minutes hours day-of-month month day-of-week year")
    minutes, hours, month_day, month, week_day, year = fields
    return Cron(
        _numbers(minutes, 0, 59),
        _numbers(hours, 0, 23),
        _days(month_day, week_day),
        _numbers(month, 1, 12, MONTHS),
        _numbers(year, FIRST_YEAR, LAST_YEAR, wraps=False),
    )


def _days(month_day: str, week_day: str) -> Days:
    if (month_day == "?") == (week_day == "?"):
        raise ScheduleError("exactly one of day-of-month and day-of-week is ?")
    if week_day == "?":
        upper = month_day.upper()
        if upper == "L":
            return Days(last_of_month=True)
        if upper == "LW":
            return Days(near=0)
        nearest = re.fullmatch(r"(\d{1,2})W", upper)
        if nearest is not None:
            return Days(near=_one(nearest[1], 1, 31, ()))
        return Days(month_days=frozenset(_numbers(month_day, 1, 31)))
    upper = week_day.upper()
    if upper == "L":
        return Days(week_days=frozenset({7}))
    special = re.fullmatch(r"(\w{1,3}?)(?:L|#(\d))", upper)
    if special is not None:
        weekday = _one(special[1], 1, 7, WEEKDAYS)
        return Days(nth=(weekday, 0 if special[2] is None else _one(special[2], 1, 5, ())))
    return Days(week_days=frozenset(_numbers(week_day, 1, 7, WEEKDAYS)))


def _numbers(
    text: str, least: int, most: int, names: tuple[str, ...] = (), *, wraps: bool = True
) -> tuple[int, ...]:
    """The values of a field, ascending."""
    found: set[int] = set()
    for item in text.split(","):
        body, slash, step_text = item.partition("/")
        step = _one(step_text, 1, most, ()) if slash else 1
        first, dash, last = body.partition("-")
        if body == "*":
            low, high = least, most
        elif dash:
            low, high = _one(first, least, most, names), _one(last, least, most, names)
        else:
            low = _one(body, least, most, names)
            high = most if slash else low
        if low > high and not wraps:
            raise ScheduleError(f"the range {body} goes backwards")
        span = high - low if low <= high else high - low + (most - least + 1)
        found.update(least + (low - least + offset) % (most - least + 1) for offset in range(0, span + 1, step))
    return tuple(sorted(found))


def _one(text: str, least: int, most: int, names: tuple[str, ...]) -> int:
    upper = text.upper()
    if upper in names:
        return names.index(upper) + 1
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not least <= int(text) <= most:
        raise ScheduleError(f"{text!r} is not a value from {least} to {most}")
    return int(text)

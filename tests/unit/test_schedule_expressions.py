"""Schedule expressions against lists computed independently, by stepping through the calendar."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from preheat.services.schedules import ScheduleError, next_time, parse, zone


def epoch(*parts, tz=UTC):
    return datetime(*parts, tzinfo=tz).timestamp()


def run(text, begin, end, timezone=None, start=None):
    """Every due time in (begin, end]."""
    expression, found, now = parse(text, scheduler=True), [], begin
    while (now := next_time(expression, now, timezone, start)) is not None and now <= end:
        found.append(now)
    return found


def days(year):
    day = datetime(year, 1, 1, tzinfo=UTC)
    while day.year == year:
        yield day
        day += timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "hour", "weekdays"),
    [
        ("cron(0 22 ? * MON-FRI *)", 22, {0, 1, 2, 3, 4}),
        ("cron(0 4 ? * TUE-SAT *)", 4, {1, 2, 3, 4, 5}),
        ("cron(0 4 ? * 3-7 *)", 4, {1, 2, 3, 4, 5}),
        ("cron(0 5 ? * FRI-MON *)", 5, {4, 5, 6, 0}),
        ("cron(0 5 ? * L *)", 5, {5}),
    ],
)
@pytest.mark.parametrize("year", [2024, 2026])
def test_a_year_of_week_days(text, hour, weekdays, year):
    expected = [day.replace(hour=hour).timestamp() for day in days(year) if day.weekday() in weekdays]
    assert run(text, epoch(year, 1, 1) - 1, epoch(year + 1, 1, 1) - 1) == expected


def workday_nearest(day):
    """By looking left and right, staying in the month."""
    for distance in range(3):
        for sign in (-1, 1):
            other = day + timedelta(days=sign * distance)
            if other.month == day.month and other.weekday() < 5:
                return other
    raise AssertionError


MONTHLY = [
    ("cron(30 8 L * ? *)", lambda month: month[-1]),
    ("cron(30 8 LW * ? *)", lambda month: [day for day in month if day.weekday() < 5][-1]),
    ("cron(30 8 15W * ? *)", lambda month: workday_nearest(month[14])),
    ("cron(30 8 1W * ? *)", lambda month: workday_nearest(month[0])),
    ("cron(30 8 ? * 3#2 *)", lambda month: [day for day in month if day.weekday() == 1][1]),
    ("cron(30 8 ? * TUE#2 *)", lambda month: [day for day in month if day.weekday() == 1][1]),
    ("cron(30 8 ? * 6L *)", lambda month: [day for day in month if day.weekday() == 4][-1]),
    ("cron(30 8 ? * FRIL *)", lambda month: [day for day in month if day.weekday() == 4][-1]),
    ("cron(30 8 31 * ? *)", lambda month: month[30] if len(month) > 30 else None),
    ("cron(30 8 ? * 2#5 *)", lambda month: ([day for day in month if day.weekday() == 0][4:] or [None])[0]),
]


@pytest.mark.parametrize(("text", "chosen"), MONTHLY)
def test_a_year_of_months(text, chosen):
    everything = list(days(2026))
    picked = [chosen([day for day in everything if day.month == month]) for month in range(1, 13)]
    expected = [day.replace(hour=8, minute=30).timestamp() for day in picked if day is not None]
    assert run(text, epoch(2026, 1, 1) - 1, epoch(2027, 1, 1) - 1) == expected


@pytest.mark.parametrize(
    ("text", "accepts"),
    [
        ("cron(0/20 20-2 * * ? *)", lambda t: t.minute in (0, 20, 40) and t.hour in (20, 21, 22, 23, 0, 1, 2)),
        ("cron(*/7 * * * ? *)", lambda t: t.minute % 7 == 0),
        ("cron(5-15/5,50 9 * * ? *)", lambda t: t.minute in (5, 10, 15, 50) and t.hour == 9),
        ("cron(0 12 1,15 nov-JAN ? *)", lambda t: (t.minute, t.hour) == (0, 12) and t.day in (1, 15) and t.month != 2),
        ("cron(55-5/5 0 * * ? 2026)", lambda t: t.minute in (55, 0, 5) and t.hour == 0),
        ("cron(0 0 ? 1/1 * 2026-2030/2)", lambda t: (t.minute, t.hour) == (0, 0)),
    ],
)
def test_every_minute_of_two_months(text, accepts):
    begin, end = epoch(2026, 1, 1), epoch(2026, 3, 1)
    expected = [
        moment
        for moment in range(int(begin), int(end), 60)
        if accepts(datetime.fromtimestamp(moment, UTC))
    ]
    assert run(text, begin - 1, end - 1) == expected


def test_years_end():
    found = run("cron(0 0 1 1 ? 2027,2029)", epoch(2026, 1, 1), epoch(2199, 1, 1))
    assert found == [epoch(2027, 1, 1), epoch(2029, 1, 1)]
    assert next_time(parse("cron(0 0 1 1 ? 2020)"), epoch(2026, 1, 1)) is None
    assert next_time(parse("cron(0 0 30 2 ? *)"), epoch(2026, 1, 1)) is None
    assert next_time(parse("cron(0 0 29 2 ? *)"), epoch(2026, 1, 1)) == epoch(2028, 2, 29)


def test_clocks_put_forward_and_back():
    """Berlin: 29 March 2026 has no 02:30, 25 October 2026 has two."""
    berlin = ZoneInfo("Europe/Berlin")
    spring = run("cron(30 2 * * ? *)", epoch(2026, 3, 28), epoch(2026, 3, 31), berlin)
    assert spring == [epoch(2026, 3, 28, 1, 30), epoch(2026, 3, 30, 0, 30)]
    autumn = run("cron(30 2 * * ? *)", epoch(2026, 10, 24), epoch(2026, 10, 27), berlin)
    assert autumn == [epoch(2026, 10, 24, 0, 30), epoch(2026, 10, 25, 0, 30), epoch(2026, 10, 26, 1, 30)]
    hourly = run("cron(0 * * * ? *)", epoch(2026, 10, 24, 22), epoch(2026, 10, 25, 4), berlin)
    assert hourly == [epoch(2026, 10, 24, 23), *(epoch(2026, 10, 25, hour) for hour in (0, 2, 3, 4))]


def test_rates_count_from_their_start():
    assert run("rate(5 minutes)", 1_000.25, 2_000.0, start=1_000.25) == [1_300.25, 1_600.25, 1_900.25]
    assert run("rate(1 hour)", 0.0, 10_000.0, start=5_000.0) == [5_000.0, 8_600.0]
    assert next_time(parse("rate(1 day)"), 123.0) == 123.0 + 86_400
    berlin = ZoneInfo("Europe/Berlin")
    begin = epoch(2026, 3, 28, 12, tz=berlin)
    assert next_time(parse("rate(1 day)"), begin, berlin, begin) == begin + 86_400


def test_at_is_a_local_time():
    expression = parse("at(2026-07-01T09:00:00)", scheduler=True)
    assert next_time(expression, 0.0) == epoch(2026, 7, 1, 9)
    assert next_time(expression, 0.0, zone("America/New_York")) == epoch(2026, 7, 1, 13)
    assert next_time(expression, epoch(2026, 7, 1, 9)) is None


def test_a_start_holds_cron_back():
    expression = parse("cron(0 4 * * ? *)")
    start = epoch(2026, 5, 1, 4)
    assert next_time(expression, epoch(2026, 1, 1), start=start) == start
    assert next_time(expression, epoch(2026, 1, 1), start=start + 1) == epoch(2026, 5, 2, 4)
    assert next_time(expression, start, start=start) == epoch(2026, 5, 2, 4)


@pytest.mark.parametrize(
    "text",
    [
        "rate(1 minutes)", "rate(5 minute)", "rate(0 minutes)", "rate(-5 minutes)", "rate(5 weeks)", "rate(5)",
        "rate()",
        "rate(1.5 hours)", "", "every minute", "cron()", "cron(* * * * * *)", "cron(0 4 ? * ? *)", "cron(0 4 * * ?)",
        "cron(0 4 * * ? * *)", "cron(60 4 * * ? *)", "cron(0 24 * * ? *)", "cron(0 4 0 * ? *)", "cron(0 4 32 * ? *)",
        "cron(0 4 ? 13 * *)", "cron(0 4 ? * 8 *)", "cron(0 4 ? * 0 *)", "cron(0 4 ? * MON#6 *)",
        "cron(0 4 ? * 3#1,6#3 *)",
        "cron(0 4 ? * FOO *)", "cron(0 4 ? * * 1969)", "cron(0 4 ? * * 2200)", "cron(0/0 4 ? * * *)",
        "cron(? 4 ? * * *)", "cron(0 4 32W * ? *)", "cron(0 4 1W,2W * ? *)", "cron(0 4 * * ? 2030-2026)",
        "at(2026-07-01T09:00:00)", "RATE(5 minutes)", "cron(0 4 -1 * ? *)",
    ],
)  # fmt: skip
def test_refused(text):
    with pytest.raises(ScheduleError):
        parse(text)


def test_at_and_zones_that_do_not_exist():
    for text in ("at(2026-02-30T00:00:00)", "at(2026-07-01)", "at(2026-07-01T09:00:00Z)"):
        with pytest.raises(ScheduleError):
            parse(text, scheduler=True)
    for name in ("Nowhere/City", "../etc", ""):
        with pytest.raises(ScheduleError):
            zone(name)

"""Schedules under the virtual clock: a year of them in several time zones against a calendar that is walked by itself,
both days on which clocks change, windows, starts and ends, and the retries of topics against AWS's table of them."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from preheat.services.deliveries import Delivery, Ladder
from preheat.services.scheduler.service import build
from preheat.services.sns import policies
from preheat.services.sns.service import build as build_sns
from preheat.triggers.outbox import Outbox
from tests.support.inprocess import InProcess

DAY = 86_400
QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
ROLE = "arn:aws:iam::000000000000:role/r"
OFF = {"Mode": "OFF"}
QUARTER = timedelta(minutes=15)
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu")


def moment(epoch):
    return datetime.fromtimestamp(epoch, UTC)


def epoch(*parts):
    return datetime(*parts, tzinfo=UTC).timestamp()


NEW_YEAR = epoch(2024, 1, 1)


class Year(InProcess):
    """A world that begins on 1 January 2024 and notes when each schedule's delivery leaves."""

    def __init__(self, start=NEW_YEAR):
        super().__init__(build)
        self.clock.move_to(start)
        self.fired = {}
        self.machine.add_loop(Outbox(self.platform, {"deliver": self._take}, self.defects.append))
        self.settle()

    def _take(self, ctx, event):
        name, due = json.loads(msgspec.json.decode(event.payload, type=Delivery).body)
        self.fired[name].append((datetime.fromisoformat(due).timestamp(), ctx.now))
        event.settle(ctx)
        return {}

    def add(self, name, expression, timezone="UTC", **more):
        self.fired.setdefault(name, [])
        given = {"Arn": QUEUE, "RoleArn": ROLE, "Input": json.dumps([name, "<aws.scheduler.scheduled-time>"])}
        params = {"FlexibleTimeWindow": OFF, "ScheduleExpressionTimezone": timezone, "Target": given, **more}
        self("scheduler", "CreateSchedule", Name=name, ScheduleExpression=expression, **params)

    def sent(self, name):
        return sorted(sent for _, sent in self.fired[name])


def walked(start, end, timezone, accepts):
    """The moments at which a clock on the wall first shows a time that is accepted, quarter by quarter of an hour."""
    at, zone, found = start, ZoneInfo(timezone), []
    while at <= end:
        local = at.astimezone(zone)
        if local.fold == 0 and accepts(local):
            found.append(at.timestamp())
        at += QUARTER
    return found


def late(local):
    return (local.hour, local.minute) == (22, 0) and local.weekday() < 5


def early(local):
    return (local.hour, local.minute) == (4, 0) and 1 <= local.weekday() <= 5


@pytest.mark.parametrize("timezone", ZONES)
def test_a_year_of_two_nightly_schedules(timezone):
    world = Year()
    world.add("late", "cron(0 22 ? * MON-FRI *)", timezone)
    world.add("early", "cron(0 4 ? * TUE-SAT *)", timezone)
    world.advance(366 * DAY)
    span = (datetime(2024, 1, 1, 0, 15, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    for name, accepts in (("late", late), ("early", early)):
        expected = walked(*span, timezone, accepts)
        assert 260 <= len(expected) <= 263
        assert world.sent(name) == expected
        assert all(due == sent for due, sent in world.fired[name])


CHANGES = (
    # zone, an hour that is left out, a time in it, an hour that comes twice, a time in it
    ("America/New_York", (2024, 3, 10), (2, 30), (2024, 11, 3), (1, 30)),
    ("Europe/Berlin", (2024, 3, 31), (2, 30), (2024, 10, 27), (2, 30)),
    ("Australia/Lord_Howe", (2024, 10, 6), (2, 15), (2024, 4, 7), (1, 45)),
)


@pytest.mark.parametrize(("timezone", "forward", "gone", "back", "twice"), CHANGES)
def test_left_out_times_do_not_fire_and_repeated_ones_fire_once(timezone, forward, gone, back, twice):
    zone = ZoneInfo(timezone)
    for day, (hour, minute), fires in ((forward, gone, 2), (back, twice, 3)):
        began = datetime(*day, 12, tzinfo=zone) - timedelta(days=2)
        world = Year(start=began.timestamp())
        world.add("daily", f"cron({minute} {hour} * * ? *)", timezone)
        world.add("quarters", "cron(0/15 * * * ? *)", timezone)
        world.add("even", "rate(1 day)")
        world.advance(3 * DAY)
        local = [moment(at).astimezone(zone) for at in world.sent("daily")]
        assert [(at.hour, at.minute, at.fold) for at in local] == [(hour, minute, 0)] * fires
        assert len({at.date() for at in local}) == fires
        expected = walked(began.astimezone(UTC) + QUARTER, moment(world.clock.now()), timezone, lambda at: True)
        assert world.sent("quarters") == expected
        assert [at - began.timestamp() for at in world.sent("even")] == [DAY, 2 * DAY, 3 * DAY]


def test_one_time_schedules_are_local_to_their_zone():
    world = Year(start=epoch(2024, 3, 9))
    for timezone in ZONES:
        world.add(timezone.replace("/", "-"), "at(2024-03-12T09:30:00)", timezone)
    world.advance(5 * DAY)
    for timezone in ZONES:
        (at,) = world.sent(timezone.replace("/", "-"))
        assert moment(at).astimezone(ZoneInfo(timezone)).replace(tzinfo=None) == datetime(2024, 3, 12, 9, 30)


def test_a_flexible_window_is_used_evenly_and_not_left():
    world = Year()
    world.add("loose", "rate(1 hour)", FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 40})
    world.advance(60 * DAY)
    delays = [sent - due for due, sent in world.fired["loose"]]
    assert len(delays) > 1_400 and min(delays) >= 0 and max(delays) <= 2_400
    expected = [NEW_YEAR + 3_600 * number for number in range(1, len(delays) + 1)]
    assert [due for due, _ in sorted(world.fired["loose"])] == expected
    slices = Counter(int(delay // 600) for delay in delays)
    assert set(slices) == {0, 1, 2, 3} and all(abs(slices[one] - len(delays) / 4) < 90 for one in range(4))


def test_nothing_fires_outside_start_and_end():
    world = Year()
    span = {"StartDate": moment(epoch(2024, 1, 3, 12)), "EndDate": moment(epoch(2024, 1, 6, 4))}
    world.add("nightly", "cron(0 4 * * ? *)", **span, ActionAfterCompletion="DELETE")
    world.add("steady", "rate(12 hours)", **span)
    world.advance(10 * DAY)
    assert world.sent("nightly") == [epoch(2024, 1, day, 4) for day in (4, 5, 6)]
    assert world.sent("steady") == [epoch(2024, 1, 3, 12) + 12 * 3_600 * number for number in range(6)]
    left = {one["Name"] for one in world("scheduler", "ListSchedules")["Schedules"]}
    assert left == {"steady"}


def test_a_group_goes_with_its_schedules_a_part_at_a_time():
    world = Year()
    world("scheduler", "CreateScheduleGroup", Name="big", ClientToken="made")
    assert world("scheduler", "CreateScheduleGroup", Name="big", ClientToken="made")["ScheduleGroupArn"]
    for number in range(1_200):
        world.add(f"s{number}", "rate(1 hour)", GroupName="big")
    world.add("kept", "rate(1 hour)")
    replies = []
    world.machine.submit("scheduler", "DeleteScheduleGroup", {"Name": "big"}, replies.append, scope=world.scope)
    count = "SELECT count(*) FROM scheduler_schedules"
    while not replies:
        world.machine.tick()
    shown = []
    world.machine.submit("scheduler", "GetScheduleGroup", {"Name": "big"}, shown.append, scope=world.scope)
    while not shown:
        world.machine.tick()
    assert shown[0].output["State"] == "DELETING" and world.db.value(count) > 1
    world.settle()
    assert world.db.value(count) == 1
    names = [one["Name"] for one in world("scheduler", "ListScheduleGroups")["ScheduleGroups"]]
    assert names == ["default"]


# -- the retries of topics --------------------------------------------------------------------------------------------


def pauses(ladder: Ladder, draw=0.0):
    found = []
    while (pause := ladder.pause(len(found) + 1, draw)) is not None:
        found.append(pause)
    return found


def test_queues_and_functions_are_tried_as_often_as_aws_says():
    """3 at once, 2 after a second, 10 from 1 to 20 seconds, 100,000 every 20 seconds: 100,015 over 23 days."""
    for draw in (0.0, 0.99):
        found = pauses(policies.MANAGED, draw)
        assert len(found) == 100_015 and found[:3] == [0.0] * 3
        assert sum(found) <= policies.MANAGED.max_age_s
    plain = pauses(policies.MANAGED)
    assert plain[3:5] == [1.0, 1.0] and plain[5] == 1.0 and plain[14] == 20.0 and set(plain[15:]) == {20.0}
    assert plain[5:15] == sorted(plain[5:15]) and 23 <= sum(plain) / DAY < 24




GROWTH = {
    "linear": lambda index, last: index / last,
    "arithmetic": lambda index, last: sum(range(1, index + 1)) / sum(range(1, last + 1)),
    "exponential": lambda index, last: sum(2**step for step in range(index)) / sum(2**step for step in range(last)),
    "geometric": lambda index, last: ((200 / 2) ** (index / last) * 2 - 2) / 198,
}


@pytest.mark.parametrize("backoff", sorted(GROWTH))
def test_the_phases_of_a_delivery_policy(backoff):
    retries = {
        "minDelayTarget": 2, "maxDelayTarget": 200, "numRetries": 14, "numNoDelayRetries": 2, "numMinDelayRetries": 3,
        "numMaxDelayRetries": 4, "backoffFunction": backoff,
    }  # fmt: skip
    world = InProcess(build_sns)
    topic = world("sns", "CreateTopic", Name="t")["TopicArn"]
    arn = world(
        "sns", "Subscribe", TopicArn=topic, Protocol="http", Endpoint="http://127.0.0.1:9/nobody",
        ReturnSubscriptionArn=True, Attributes={"DeliveryPolicy": json.dumps({"healthyRetryPolicy": retries})},
    )["SubscriptionArn"]  # fmt: skip
    shown = world("sns", "GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]
    ladder = policies.http_ladder(json.loads(shown["EffectiveDeliveryPolicy"]))
    grown = [2 + 198 * GROWTH[backoff](index, 4) for index in range(5)]
    assert pauses(ladder) == pytest.approx([0, 0, 2, 2, 2, *grown, 200, 200, 200, 200])
    assert ladder.max_attempts == 15

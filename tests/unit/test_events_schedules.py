"""Rules with a schedule, archives and replays, in virtual time."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from preheat.kernel.errors import AwsError
from tests.unit.test_events import BUS, QUEUE, World

DAY = 86_400


def moment(epoch):
    return datetime.fromtimestamp(epoch, UTC)


@pytest.fixture
def world():
    world = World()
    world.queue(MessageRetentionPeriod="1209600")
    return world


def schedule(world, expression, **target):
    world.events("PutRule", Name="r", ScheduleExpression=expression)
    world.events("PutTargets", Rule="r", Targets=[{"Id": "t", "Arn": QUEUE, **target}])


def test_a_year_of_two_nightly_rules():
    """The times at which messages arrive, against the calendar. Without what the queue does every few minutes."""
    world = World(without=("sqs metrics", "sqs expiry"))
    world.queue(MessageRetentionPeriod="1209600")
    fired = {}
    for name, expression in (("late", "cron(0 22 ? * MON-FRI *)"), ("early", "cron(0 4 ? * TUE-SAT *)")):
        world.events("PutRule", Name=name, ScheduleExpression=expression)
        world.events("PutTargets", Rule=name, Targets=[{"Id": "t", "Arn": QUEUE}])
        fired[name] = []
    start = moment(world.clock.now())
    end = start + timedelta(days=366)
    while moment(world.clock.now()) < end:
        world.advance(7 * DAY)
        for message in world.received():
            event = json.loads(message["Body"])
            sent_at = moment(int(message["Attributes"]["SentTimestamp"]) / 1_000)
            assert sent_at.strftime("%Y-%m-%dT%H:%M:%SZ") == event["time"]
            fired[event["resources"][0].rpartition("/")[2]].append(sent_at)
    stop = moment(world.clock.now())
    expected = {"late": [], "early": []}
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= stop:
        for name, hour, weekdays in (("late", 22, range(5)), ("early", 4, range(1, 6))):
            at = day.replace(hour=hour)
            if at.weekday() in weekdays and start < at <= stop:
                expected[name].append(at)
        day += timedelta(days=1)
    assert {name: sorted(times) for name, times in fired.items()} == expected
    assert len(expected["late"]) > 250


def test_the_event_of_a_schedule(world):
    schedule(world, "rate(5 minutes)")
    world.advance(299)
    assert world.bodies() == []
    world.advance(1)
    (event,) = world.bodies()
    assert event["id"]
    assert {**event, "id": ""} == {
        "version": "0", "id": "", "detail-type": "Scheduled Event", "source": "aws.events", "account": "000000000000",
        "time": "2023-11-14T22:18:20Z", "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/r"], "detail": {},
    }  # fmt: skip


def test_a_rate_counts_from_its_creation_and_starts_anew(world):
    schedule(world, "rate(1 hour)")
    world.advance(1_800)
    world.events("PutRule", Name="r", ScheduleExpression="rate(1 hour)", Description="the same schedule")
    world.advance(1_800)
    assert len(world.bodies()) == 1
    world.events("DisableRule", Name="r")
    world.advance(7_200)
    assert world.bodies() == []
    world.events("EnableRule", Name="r")
    world.advance(3_599)
    assert world.bodies() == []
    world.advance(1)
    assert len(world.bodies()) == 1
    world.events("PutRule", Name="r", ScheduleExpression="rate(2 hours)")
    world.advance(7_199)
    assert world.bodies() == []


def test_a_jump_of_the_clock_loses_nothing(world):
    schedule(world, "rate(1 hour)")
    world.clock.advance(10 * 3_600)
    world.machine.wake_all()
    world.settle()
    times = sorted(event["time"] for event in world.bodies())
    assert len(times) == 10
    assert times[0] == "2023-11-14T23:13:20Z"


@pytest.mark.parametrize("expression", ["rate(1 minute)", "cron(* * * * ? *)", "cron(13 22 * * ? *)"])
def test_what_was_missed_while_the_server_was_down_fires_once(tmp_path, expression):
    first = World(directory=tmp_path)
    first.queue(MessageRetentionPeriod="1209600")
    schedule(first, expression)
    first.db.close()
    started = first.clock.now() + 10 * DAY
    second = World(directory=tmp_path, start=started)
    (event,) = second.bodies()
    late_by = started - datetime.fromisoformat(event["time"]).timestamp()
    assert 0 <= late_by <= (60 if "13 22" not in expression else DAY)
    second.advance(60 if "13 22" not in expression else DAY)
    assert len(second.bodies()) == 1


# -- archives and replays ---------------------------------------------------------------------------------------------


def archive(world, **more):
    return world.events("CreateArchive", ArchiveName="a", EventSourceArn=BUS + "default", **more)


def replay(world, since, until, name="again", **more):
    params = {"EventStartTime": moment(since), "EventEndTime": moment(until), "Destination": {"Arn": BUS + "default"}}
    arn = "arn:aws:events:us-east-1:000000000000:archive/a"
    return world.events("StartReplay", **{"ReplayName": name, "EventSourceArn": arn, **params, **more})


def test_archived_events_are_replayed(world):
    world.rule({"source": ["shop"]}, {"Arn": QUEUE})
    made = archive(world, EventPattern='{"detail": {"keep": [true]}}', RetentionDays=3)
    assert made["State"] == "ENABLED"
    began = world.clock.now()
    for number in range(5):
        world.put({"keep": True, "n": number})
        world.put({"keep": False})
        world.advance(60)
    world.received()
    shown = world.events("DescribeArchive", ArchiveName="a")
    assert (shown["EventCount"], shown["RetentionDays"]) == (5, 3)
    assert shown["SizeBytes"] > 500
    started = replay(world, began + 60, began + 240)
    assert started["State"] == "STARTING"
    events = world.bodies()
    assert [event["detail"]["n"] for event in sorted(events, key=lambda event: event["time"])] == [1, 2, 3]
    assert {event["replay-name"] for event in events} == {"again"}
    assert list(events[0])[-3:] == ["replay-name", "resources", "detail"]
    done = world.events("DescribeReplay", ReplayName="again")
    assert done["State"] == "COMPLETED"
    assert done["EventLastReplayedTime"] == moment(began + 180)
    assert world.events("DescribeArchive", ArchiveName="a")["EventCount"] == 5


def test_a_replay_to_some_rules_only(world):
    world.queue("other")
    world.rule({"source": ["shop"]}, {"Arn": QUEUE})
    world.rule({"source": ["shop"]}, {"Arn": QUEUE.replace(":q", ":other")}, name="o")
    archive(world)
    began = world.clock.now()
    world.put()
    world.advance(10)
    world.received()
    world.received("other")
    filters = ["arn:aws:events:us-east-1:000000000000:rule/o"]
    replay(world, began, began + 10, Destination={"Arn": BUS + "default", "FilterArns": filters})
    assert world.bodies() == []
    assert len(world.bodies("other")) == 1


def test_a_replay_can_be_cancelled(world):
    archive(world)
    began = world.clock.now()
    world.put()
    world.advance(10)

    def both(ctx):
        ctx.machine.call_inside(ctx, "events", "StartReplay", {
            "ReplayName": "x", "EventSourceArn": "arn:aws:events:us-east-1:000000000000:archive/a",
            "EventStartTime": moment(began), "EventEndTime": moment(began + 10),
            "Destination": {"Arn": BUS + "default"},
        })  # fmt: skip
        return ctx.machine.call_inside(ctx, "events", "CancelReplay", {"ReplayName": "x"})

    replies = []
    world.machine.perform(both, replies.append)
    world.settle()
    assert replies[0].output["State"] == "CANCELLING"
    assert world.events("DescribeReplay", ReplayName="x")["State"] == "CANCELLED"
    with pytest.raises(AwsError) as caught:
        world.events("CancelReplay", ReplayName="x")
    assert caught.value.code == "IllegalStatusException"
    assert [one["ReplayName"] for one in world.events("ListReplays", State="CANCELLED")["Replays"]] == ["x"]


def test_archives_forget(world):
    archive(world, RetentionDays=1)
    began = world.clock.now()
    world.put()
    world.advance(DAY + 7_200)
    assert world.events("DescribeArchive", ArchiveName="a")["EventCount"] == 0
    assert world.db.value("SELECT count(*) FROM events_archived") == 0
    world.rule({"source": ["shop"]}, {"Arn": QUEUE})
    replay(world, began - 1, began + DAY)
    assert world.bodies() == []


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (
            {"EventSourceArn": "arn:aws:events:us-east-1:000000000000:archive/none"}, "ValidationException",
            "Parameter EventSourceArn is not valid. Reason: Archive none does not exist.",
        ),
        (
            {"EventEndTime": moment(5), "EventStartTime": moment(5)}, "ValidationException",
            "Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.",
        ),
        (
            {"Destination": {"Arn": BUS + "none"}}, "ResourceNotFoundException", "Event bus none does not exist.",
        ),
        (
            {"Destination": {"Arn": BUS + "mine"}}, "ValidationException",
            "Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.",
        ),
        ({"ReplayName": "old"}, "ResourceAlreadyExistsException", "Replay old already exists."),
    ],
)  # fmt: skip
def test_replays_that_are_refused(world, change, code, message):
    archive(world)
    world.events("CreateEventBus", Name="mine")
    replay(world, 1, 2, "old")
    with pytest.raises(AwsError) as caught:
        replay(world, 1, 2, **change) if "ReplayName" not in change else replay(world, 1, 2, "old")
    assert (caught.value.code, caught.value.message) == (code, message)


def test_archives_that_are_refused(world):
    archive(world)
    for call, code, message in (
        (lambda: archive(world), "ResourceAlreadyExistsException", "Archive a already exists."),
        (
            lambda: world.events("CreateArchive", ArchiveName="b", EventSourceArn=BUS + "none"),
            "ResourceNotFoundException", "Event bus none does not exist.",
        ),
        (
            lambda: world.events("DescribeArchive", ArchiveName="none"),
            "ResourceNotFoundException", "Archive none does not exist.",
        ),
    ):  # fmt: skip
        with pytest.raises(AwsError) as caught:
            call()
        assert (caught.value.code, caught.value.message) == (code, message)

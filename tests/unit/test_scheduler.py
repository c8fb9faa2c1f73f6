"""EventBridge Scheduler in virtual time."""

import json
from datetime import UTC, datetime

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.scheduler.service import build
from tests.unit.test_events import BUS, QUEUE, World

DAY = 86_400
ROLE = "arn:aws:iam::000000000000:role/r"
OFF = {"Mode": "OFF"}


class Clockwork(World):
    def __init__(self, **more):
        super().__init__(**more)
        service = build(self.platform)
        self.machine.add_service(service)
        for loop in service.loops:
            self.machine.add_loop(loop)
        self.settle()

    def create(self, expression, name="s", target=None, **more):
        params = {"Name": name, "ScheduleExpression": expression, "FlexibleTimeWindow": OFF, **more}
        params["Target"] = {"Arn": QUEUE, "RoleArn": ROLE, **(target or {})}
        return self("scheduler", "CreateSchedule", **params)

    def times(self):
        """When messages arrived, epoch seconds."""
        return sorted(int(message["Attributes"]["SentTimestamp"]) / 1_000 for message in self.received())


@pytest.fixture
def world():
    world = Clockwork()
    world.queue(MessageRetentionPeriod="1209600")
    return world


def refused(call):
    with pytest.raises(AwsError) as caught:
        call()
    return caught.value.code, caught.value.status, caught.value.message


def at(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_once_then_gone(world):
    """The clock starts on 14 November 2023, 22:13:20 UTC."""
    there = {"ScheduleExpressionTimezone": "America/New_York", "ActionAfterCompletion": "DELETE"}
    world.create("at(2023-11-14T18:00:00)", **there)
    world.create("at(2023-11-15T00:00:00)", name="kept")
    world.create("at(2020-01-01T00:00:00)", name="past")
    world.advance(DAY)
    assert world.times() == [at(2023, 11, 14, 23).timestamp(), at(2023, 11, 15).timestamp()]
    names = [one["Name"] for one in world("scheduler", "ListSchedules")["Schedules"]]
    assert names == ["kept", "past"]


def test_daylight_saving(world):
    world.clock.move_to(at(2026, 3, 28).timestamp())
    world.create("cron(30 2 * * ? *)", ScheduleExpressionTimezone="Europe/Berlin")
    world.advance(3 * DAY)
    assert world.times() == [at(2026, 3, 28, 1, 30).timestamp(), at(2026, 3, 30, 0, 30).timestamp()]


def test_start_and_end(world):
    now = world.clock.now()
    start, end = datetime.fromtimestamp(now + 600, UTC), datetime.fromtimestamp(now + 1_200, UTC)
    world.create("rate(5 minutes)", StartDate=start, EndDate=end, ActionAfterCompletion="DELETE")
    world.advance(DAY)
    assert world.times() == [now + 600, now + 900, now + 1_200]
    assert world("scheduler", "ListSchedules")["Schedules"] == []


def test_a_flexible_window(world):
    now = world.clock.now()
    world.create("rate(1 hour)", FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15})
    world.advance(20 * 3_600 + 900)
    late = [time - (now + 3_600 * number) for number, time in enumerate(world.times(), 1)]
    assert len(late) == 20
    assert all(0 <= one <= 900 for one in late)
    assert len({round(one) for one in late}) > 10


def test_what_is_sent(world):
    world.create("rate(1 minute)", name="plain")
    text = '{"arn":"<aws.scheduler.schedule-arn>","at":"<aws.scheduler.scheduled-time>"}'
    world.create("rate(1 minute)", name="filled", target={"Input": text})
    world.advance(60)
    bodies = world.bodies()
    arn = "arn:aws:scheduler:us-east-1:000000000000:schedule/default/filled"
    assert {"arn": arn, "at": "2023-11-14T22:14:20Z"} in bodies
    (event,) = (body for body in bodies if "id" in body)
    assert (event["source"], event["detail-type"], event["detail"]) == ("aws.scheduler", "Scheduled Event", "{}")


def test_universal_targets(world):
    url = world("sqs", "GetQueueUrl", QueueName="q")["QueueUrl"]
    attributes = {"a": {"DataType": "Number", "StringValue": "1"}}
    request = {"QueueUrl": url, "MessageBody": "hello", "messageAttributes": attributes}
    arn = "arn:aws:scheduler:::aws-sdk:sqs:sendMessage"
    world.create("rate(1 minute)", target={"Arn": arn, "Input": json.dumps(request)})
    world.advance(60)
    (message,) = world.received()
    assert message["Body"] == "hello"
    assert message["MessageAttributes"]["a"]["StringValue"] == "1"


def test_a_bus_and_a_dead_letter(world):
    world.queue("dead")
    dead = {"DeadLetterConfig": {"Arn": QUEUE.replace(":q", ":dead")}}
    world.rule({"source": ["clock"]}, {"Arn": QUEUE})
    bridge = {"EventBridgeParameters": {"Source": "clock", "DetailType": "tick"}, "Input": '{"n":1}'}
    world.create("rate(1 minute)", name="bus", target={"Arn": BUS + "default", **bridge})
    wrong = "arn:aws:scheduler:::aws-sdk:sqs:sendMessage"
    world.create("rate(1 minute)", name="bad", target={"Arn": wrong, "Input": '{"Nonsense":1}', **dead})
    world.advance(60)
    (event,) = world.bodies()
    assert (event["detail-type"], event["detail"]) == ("tick", {"n": 1})
    (letter,) = world.received("dead")
    assert letter["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "ValidationException"
    assert letter["MessageAttributes"]["SCHEDULE_ARN"]["StringValue"].endswith("schedule/default/bad")


def test_changed_disabled_and_deleted(world):
    world.create("rate(1 minute)", Description="d")
    params = {"Name": "s", "FlexibleTimeWindow": OFF, "Target": {"Arn": QUEUE, "RoleArn": ROLE}}
    world("scheduler", "UpdateSchedule", ScheduleExpression="rate(2 minutes)", **params)
    shown = world("scheduler", "GetSchedule", Name="s")
    assert "Description" not in shown
    assert (shown["State"], shown["ScheduleExpressionTimezone"], shown["GroupName"]) == ("ENABLED", "UTC", "default")
    world.advance(119)
    assert world.times() == []
    world("scheduler", "UpdateSchedule", ScheduleExpression="rate(2 minutes)", State="DISABLED", **params)
    world.advance(DAY)
    assert world.times() == []
    world("scheduler", "DeleteSchedule", Name="s")
    assert refused(lambda: world("scheduler", "GetSchedule", Name="s")) == (
        "ResourceNotFoundException", 404, "Schedule s does not exist."
    )  # fmt: skip


def test_groups(world):
    made = world("scheduler", "CreateScheduleGroup", Name="g", Tags=[{"Key": "a", "Value": "b"}])["ScheduleGroupArn"]
    world.create("rate(1 minute)", GroupName="g")
    world.create("rate(1 minute)")
    assert len(world("scheduler", "ListSchedules", GroupName="g")["Schedules"]) == 1
    assert world("scheduler", "ListTagsForResource", ResourceArn=made)["Tags"] == [{"Key": "a", "Value": "b"}]
    first = world("scheduler", "ListScheduleGroups", MaxResults=1)
    second = world("scheduler", "ListScheduleGroups", NextToken=first["NextToken"])
    assert [one["Name"] for one in first["ScheduleGroups"] + second["ScheduleGroups"]] == ["default", "g"]
    world("scheduler", "DeleteScheduleGroup", Name="g")
    assert len(world("scheduler", "ListSchedules")["Schedules"]) == 1
    assert refused(lambda: world.create("rate(1 minute)", name="t", GroupName="g"))[0] == "ResourceNotFoundException"


def test_a_repeated_request_and_another_of_the_same_name(world):
    first = world.create("rate(1 minute)", ClientToken="t")
    assert world.create("rate(1 minute)", ClientToken="t") == first
    assert refused(lambda: world.create("rate(1 minute)", ClientToken="u")) == (
        "ConflictException", 409, "Schedule s already exists."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expression": "rate( 1 minute )"}, "Invalid Schedule Expression rate( 1 minute )."),
        ({"expression": "cron(0 4 * * * *)"}, "Invalid Schedule Expression cron(0 4 * * * *)."),
        ({"ScheduleExpressionTimezone": "Mars/Base"}, "The ScheduleExpressionTimezone you provided is invalid."),
        (
            {"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}},
            "The MaximumWindowInMinutes is required for the mode FLEXIBLE.",
        ),
        (
            {"target": {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:receiveMessage"}},
            "Invalid RequestJson provided. Reason The api receiveMessage is not supported.",
        ),
        ({"target": {"Arn": BUS + "default"}}, "EventBridgeParameters must be given for a target of events."),
        (
            {"name": "a b"},
            "1 validation error detected: Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy "
            "regular expression pattern: ^[0-9a-zA-Z-_.]+$",
        ),
    ],
)
def test_schedules_that_are_refused(world, change, message):
    found = refused(lambda: world.create(**{"expression": "rate(1 day)", **change}))
    assert found == ("ValidationException", 400, message)
    assert world("scheduler", "ListSchedules")["Schedules"] == []


def test_missed_while_the_server_was_down(tmp_path):
    first = Clockwork(directory=tmp_path)
    first.queue(MessageRetentionPeriod="1209600")
    first.create("rate(1 hour)", target={"Input": '"<aws.scheduler.scheduled-time>"'})
    began = first.clock.now()
    first.db.close()
    second = Clockwork(directory=tmp_path, start=began + 10 * 3_600 + 60)
    assert second.bodies() == [datetime.fromtimestamp(began + 10 * 3_600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")]
    second.advance(3_600)
    assert len(second.bodies()) == 1

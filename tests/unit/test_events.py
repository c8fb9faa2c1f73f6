"""EventBridge without a socket: buses, rules, targets, events and what is sent."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.events.service import build
from preheat.services.secretsmanager.service import build as build_secrets
from preheat.services.sqs.service import build as build_sqs
from preheat.triggers.delivery import Deliver
from preheat.triggers.outbox import Outbox
from tests.support.inprocess import InProcess

QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
BUS = "arn:aws:events:us-east-1:000000000000:event-bus/"


class World(InProcess):
    def __init__(self, start=None, **more):
        super().__init__(build_sqs, build_secrets, build, **more)
        self.clock.move_to(start or self.clock.now())
        self.notices = []
        self.samples = Counter()
        deliver = Deliver(self.background, self.notices.append)
        handlers = {"deliver": deliver, "deliver.web": deliver}
        self.machine.add_loop(Outbox(self.platform, handlers, self.notices.append))
        self.settle()

    def events(self, operation, **params):
        return self("events", operation, **params)

    def queue(self, name="q", **attributes):
        return self("sqs", "CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]

    def rule(self, pattern, *targets, name="r", **more):
        self.events("PutRule", Name=name, EventPattern=json.dumps(pattern), **more)
        given = [{"Id": str(number), **target} for number, target in enumerate(targets)]
        where = {key: value for key, value in more.items() if key == "EventBusName"}
        self.events("PutTargets", Rule=name, Targets=given, **where)

    def put(self, detail=None, **more):
        entry = {"Source": "shop", "DetailType": "order", "Detail": json.dumps(detail or {}), **more}
        answer = self.events("PutEvents", Entries=[entry])
        self.settle()
        return answer

    def received(self, name="q"):
        """Bodies, in no order."""
        url = self("sqs", "GetQueueUrl", QueueName=name)["QueueUrl"]
        found = []
        while True:
            given = self(
                "sqs", "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            ).get("Messages", [])  # fmt: skip
            if not given:
                return found
            for message in given:
                self("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found += given

    def bodies(self, name="q"):
        return [json.loads(message["Body"]) for message in self.received(name)]

    def counted(self, name):
        for (series, _), sample in self.machine.meter.take().items():
            self.samples[series.name] += sample.total
        return self.samples[name]


@pytest.fixture
def world():
    return World()


def refused(world, operation, **params) -> tuple[str, str]:
    with pytest.raises(AwsError) as caught:
        world.events(operation, **params)
    return caught.value.code, caught.value.message


def test_an_event_reaches_the_targets_of_matching_rules(world):
    world.queue()
    world.queue("other")
    world.rule({"source": ["shop"]}, {"Arn": QUEUE}, {"Arn": QUEUE.replace(":q", ":other")})
    world.rule({"source": ["bank"]}, {"Arn": QUEUE}, name="bank")
    answer = world.put({"n": 1.5}, Resources=["arn:x"])
    assert answer["FailedEntryCount"] == 0
    (event,) = world.bodies()
    assert event == {
        "version": "0", "id": answer["Entries"][0]["EventId"], "detail-type": "order", "source": "shop",
        "account": "000000000000", "time": "2023-11-14T22:13:20Z", "region": "us-east-1", "resources": ["arn:x"],
        "detail": {"n": 1.5},
    }  # fmt: skip
    assert list(event) == [
        "version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"
    ]  # fmt: skip
    assert len(world.bodies("other")) == 1
    for name, times in (("MatchedEvents", 1), ("TriggeredRules", 1), ("Invocations", 2), ("PutEventsEntriesCount", 1)):
        assert world.counted(name) == times, name


def test_partial_failures_come_in_order(world):
    world.queue()
    world.rule({"source": [{"prefix": ""}]}, {"Arn": QUEUE})
    good = {"Source": "a", "DetailType": "t", "Detail": "{}"}
    answer = world.events(
        "PutEvents",
        Entries=[
            good,
            {"DetailType": "t", "Detail": "{}"},
            {"Source": "a", "Detail": "{}"},
            {"Source": "a", "DetailType": "t"},
            {**good, "Detail": "[1]"},
            {**good, "Detail": "no"},
            {**good, "Source": "aws.s3"},
            good,
        ],
    )
    assert answer["FailedEntryCount"] == 6
    assert [entry.get("ErrorCode") for entry in answer["Entries"]] == [
        None, "InvalidArgument", "InvalidArgument", "InvalidArgument", "MalformedDetail", "MalformedDetail",
        "NotAuthorizedForSourceException", None,
    ]  # fmt: skip
    required = "Parameter Source is not valid. Reason: Source is a required argument."
    assert answer["Entries"][1] == {"ErrorCode": "InvalidArgument", "ErrorMessage": required}
    assert answer["Entries"][4]["ErrorMessage"] == "Detail is malformed."
    world.settle()
    assert len(world.bodies()) == 2


def test_a_request_that_is_too_large_or_too_long(world):
    entry = {"Source": "a", "DetailType": "t", "Detail": json.dumps({"x": "p" * 1_048_576})}
    assert refused(world, "PutEvents", Entries=[entry]) == (
        "ValidationException", "Total size of the entries in the request is over the limit."
    )  # fmt: skip
    code, text = refused(world, "PutEvents", Entries=[{**entry, "Detail": "{}"}] * 11)
    assert code == "ValidationException"
    assert text.endswith("failed to satisfy constraint: Member must have length less than or equal to 10")


def test_buses_are_apart(world):
    world.queue()
    world.events("CreateEventBus", Name="mine", Tags=[{"Key": "a", "Value": "b"}])
    world.rule({"source": ["shop"]}, {"Arn": QUEUE}, EventBusName="mine")
    world.put()
    assert world.bodies() == []
    world.put(EventBusName="mine")
    world.put(EventBusName=BUS + "mine")
    assert len(world.bodies()) == 2
    assert world.put(EventBusName="nobody")["FailedEntryCount"] == 0
    assert world.events("DescribeRule", Name="r", EventBusName="mine")["Arn"].endswith(":rule/mine/r")
    assert world.events("ListTagsForResource", ResourceARN=BUS + "mine") == {"Tags": [{"Key": "a", "Value": "b"}]}
    assert [bus["Name"] for bus in world.events("ListEventBuses")["EventBuses"]] == ["default", "mine"]
    assert refused(world, "DeleteEventBus", Name="mine")[1] == "Event bus can't be deleted since it has rules."
    assert refused(world, "DeleteEventBus", Name="default")[1] == "Cannot delete event bus default."
    assert refused(world, "CreateEventBus", Name="mine") == (
        "ResourceAlreadyExistsException", "Event bus mine already exists."
    )  # fmt: skip
    assert refused(world, "DescribeEventBus", Name="none") == (
        "ResourceNotFoundException", "Event bus none does not exist."
    )  # fmt: skip


def test_a_rule_switched_off_changed_and_deleted(world):
    world.queue()
    world.rule({"source": ["shop"]}, {"Arn": QUEUE})
    world.events("DisableRule", Name="r")
    world.put()
    assert world.bodies() == []
    world.events("EnableRule", Name="r")
    world.put()
    assert len(world.bodies()) == 1
    world.events("PutRule", Name="r", EventPattern=json.dumps({"detail": {"n": [1]}}))
    world.put()
    world.put({"n": 1})
    assert len(world.bodies()) == 1
    assert refused(world, "DeleteRule", Name="r") == (
        "ValidationException", "Rule can't be deleted since it has targets."
    )  # fmt: skip
    gone = world.events("RemoveTargets", Rule="r", Ids=["0", "nobody"])
    assert gone["FailedEntryCount"] == 1
    assert gone["FailedEntries"][0]["TargetId"] == "nobody"
    world.events("DeleteRule", Name="r")
    world.events("DeleteRule", Name="r")
    assert refused(world, "DescribeRule", Name="r") == (
        "ResourceNotFoundException", "Rule r does not exist on EventBus default."
    )  # fmt: skip


def test_a_rule_taken_back_with_its_transaction_is_not_remembered(world):
    world.queue()
    world.rule({"source": ["shop"]}, {"Arn": QUEUE})
    world.put()

    def half(ctx):
        ctx.machine.call_inside(ctx, "events", "DisableRule", {"Name": "r"})
        entry = {"Source": "shop", "DetailType": "order", "Detail": "{}"}
        ctx.machine.call_inside(ctx, "events", "PutEvents", {"Entries": [entry]})
        raise AwsError("Oops", "taken back")

    replies = []
    world.machine.perform(half, replies.append)
    world.settle()
    assert replies[0].code == "Oops"
    world.put()
    assert len(world.bodies()) == 2


def test_rules_are_listed_in_pages(world):
    for number in range(5):
        world.events("PutRule", Name=f"n{number}", EventPattern='{"a":["b"]}', Description="d")
    world.events("PutRule", Name="other", ScheduleExpression="rate(1 day)", State="DISABLED")
    first = world.events("ListRules", NamePrefix="n", Limit=3)
    second = world.events("ListRules", NamePrefix="n", Limit=3, NextToken=first["NextToken"])
    assert [rule["Name"] for rule in first["Rules"] + second["Rules"]] == [f"n{number}" for number in range(5)]
    assert "NextToken" not in second
    assert first["Rules"][0] == {
        "Name": "n0", "Arn": "arn:aws:events:us-east-1:000000000000:rule/n0", "State": "ENABLED",
        "EventBusName": "default", "EventPattern": '{"a":["b"]}', "Description": "d",
    }  # fmt: skip


def test_targets_are_listed_both_ways(world):
    world.queue()
    world.rule({"a": ["b"]}, {"Arn": QUEUE}, {"Arn": QUEUE, "Input": "1"})
    world.rule({"a": ["b"]}, {"Arn": QUEUE}, name="s")
    assert world.events("ListTargetsByRule", Rule="r")["Targets"] == [
        {"Id": "0", "Arn": QUEUE}, {"Id": "1", "Arn": QUEUE, "Input": "1"}
    ]  # fmt: skip
    assert world.events("ListRuleNamesByTarget", TargetArn=QUEUE)["RuleNames"] == ["r", "s"]


BAD_RULES = [
    ({}, "Parameter(s) EventPattern or ScheduleExpression must be specified."),
    ({"ScheduleExpression": "rate(1 minutes)"}, "Parameter ScheduleExpression is not valid."),
    (
        {"ScheduleExpression": "rate(1 minute)", "EventBusName": "mine"},
        "ScheduleExpression is supported only on the default event bus.",
    ),
    (
        {"EventPattern": '{"a":["b"]}', "State": "ON"},
        "1 validation error detected: Value 'ON' at 'state' failed to satisfy constraint: Member must satisfy enum "
        "value set: [ENABLED, DISABLED, ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS]",
    ),
    (
        {"EventPattern": '{"a":["b"]}', "Name": "a b"},
        "1 validation error detected: Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy regular "
        r"expression pattern: [\.\-_A-Za-z0-9]+",
    ),
]


@pytest.mark.parametrize(("params", "message"), BAD_RULES)
def test_rules_that_are_refused(world, params, message):
    world.events("CreateEventBus", Name="mine")
    assert refused(world, "PutRule", **{"Name": "r", **params}) == ("ValidationException", message)
    assert world.events("ListRules")["Rules"] == []


def test_a_pattern_that_is_none(world):
    assert refused(world, "PutRule", Name="r", EventPattern='{"a": 5}') == (
        "InvalidEventPatternException",
        'Event pattern is not valid. Reason: "a" must be an object or an array\n'
        ' at [Source: (String)"{"a": 5}"; line: 1, column: 8]',
    )
    event = {"id": "1", "source": "s", "detail-type": "t", "account": "1", "region": "r", "time": "now"}
    event = json.dumps(event)
    assert world.events("TestEventPattern", EventPattern='{"source": ["s"]}', Event=event) == {"Result": True}
    assert world.events("TestEventPattern", EventPattern='{"source": ["x"]}', Event=event) == {"Result": False}
    for text in ("plain", "[]", json.dumps({"id": "1"})):
        assert refused(world, "TestEventPattern", EventPattern='{"source": ["s"]}', Event=text) == (
            "ValidationException", "Parameter Event is not valid."
        )  # fmt: skip


BAD_TARGETS = [
    ({"Arn": "nonsense"}, "Parameter nonsense is not valid. Reason: Provided Arn is not in correct format."),
    ({"Arn": QUEUE, "Input": "{"}, "JSON syntax error in input for target x"),
    (
        {"Arn": QUEUE, "Input": "1", "InputPath": "$"},
        "Only one of Input, InputPath, or InputTransformer must be provided for target x.",
    ),
    (
        {"Arn": QUEUE, "InputTransformer": {"InputPathsMap": {"a": "$.a"}, "InputTemplate": '"<b>"'}},
        "InputTemplate for target x contains invalid placeholder b.",
    ),
    ({"Arn": QUEUE + ".fifo"}, "Parameter(s) SqsParameters must be specified for target: x."),
    (
        {"Arn": "arn:aws:states:us-east-1:000000000000:stateMachine:m"},
        "RoleArn is required for target arn:aws:states:us-east-1:000000000000:stateMachine:m.",
    ),
    (
        {"Arn": "arn:aws:ecs:us-east-1:000000000000:cluster/c"},
        "Parameter arn:aws:ecs:us-east-1:000000000000:cluster/c is not valid. Reason: Preheat does not deliver "
        "EventBridge events to ecs targets.",
    ),
    (
        {"Arn": QUEUE, "EcsParameters": {"TaskDefinitionArn": "a"}},
        "Preheat does not implement EcsParameters of target x.",
    ),
    (
        {"Arn": QUEUE, "RetryPolicy": {"MaximumRetryAttempts": 186}},
        "1 validation error detected: Value '186' at 'targets.2.member.retryPolicy.maximumRetryAttempts' failed to "
        "satisfy constraint: Member must have value less than or equal to 185",
    ),
    (
        {"Arn": QUEUE, "DeadLetterConfig": {"Arn": QUEUE + ".fifo"}},
        "Parameter DeadLetterConfig.Arn is not valid. Reason: FIFO queues are not supported.",
    ),
]


@pytest.mark.parametrize(("target", "message"), BAD_TARGETS)
def test_targets_that_are_refused(world, target, message):
    world.events("PutRule", Name="r", EventPattern='{"a":["b"]}')
    good = {"Id": "good", "Arn": QUEUE}
    assert refused(world, "PutTargets", Rule="r", Targets=[good, {"Id": "x", **target}]) == (
        "ValidationException", message
    )  # fmt: skip
    assert world.events("ListTargetsByRule", Rule="r")["Targets"] == []


def test_limits(world):
    world.events("PutRule", Name="r", EventPattern='{"a":["b"]}')
    targets = [{"Id": str(number), "Arn": QUEUE} for number in range(6)]
    too_many = ("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
    assert refused(world, "PutTargets", Rule="r", Targets=targets) == too_many
    for number in range(299):
        world.events("PutRule", Name=f"n{number}", EventPattern='{"a":["b"]}')
    assert refused(world, "PutRule", Name="one-more", EventPattern='{"a":["b"]}') == too_many
    world.events("PutRule", Name="n7", EventPattern='{"a":["c"]}')


def test_the_quota_of_rules_is_a_setting():
    settings = SimpleNamespace(state=None, endpoint="http://127.0.0.1:4566", iam="off", event_rules=2)
    world = World(settings=settings)
    for name in ("a", "b", "a"):
        world.events("PutRule", Name=name, EventPattern='{"a":["b"]}')
    assert refused(world, "PutRule", Name="c", EventPattern='{"a":["b"]}')[0] == "LimitExceededException"


def test_a_queue_has_the_event_once_put_events_has_answered(world):
    url = world.queue()
    world.rule({"source": ["shop"]}, {"Arn": QUEUE, "InputPath": "$.detail"})
    entry = {"Source": "shop", "DetailType": "order", "Detail": '{"n":1}', "TraceHeader": "Root=1-5-a"}
    world.events("PutEvents", Entries=[entry])
    assert world.db.value("SELECT count(*) FROM due") == 0
    (message,) = world.received()
    assert (message["Body"], message["Attributes"]["AWSTraceHeader"]) == ('{"n":1}', "Root=1-5-a")
    assert message["Attributes"]["SenderId"] == "events.amazonaws.com"
    assert (world.counted("Invocations"), world.counted("SuccessfulInvocationAttempts")) == (1, 1)
    assert url


def test_what_a_queue_refuses_is_a_delivery_that_fails(world):
    world.queue(MaximumMessageSize="1024")
    world.queue("letters")
    world.rule({"source": ["shop"]}, {"Arn": QUEUE, "DeadLetterConfig": {"Arn": QUEUE.replace(":q", ":letters")}})
    world.put({"text": "x" * 2_000})
    assert world.received() == []
    (letter,) = world.received("letters")
    assert letter["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "INVALID_PARAMETER"
    assert (world.counted("SuccessfulInvocationAttempts"), world.counted("FailedInvocations")) == (0, 1)


def test_fifo_queues_get_the_group(world):
    url = world.queue("q.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    world.rule({"source": ["shop"]}, {"Arn": QUEUE + ".fifo", "SqsParameters": {"MessageGroupId": "g"}})
    world.put()
    (message,) = world.received("q.fifo")
    assert message["Attributes"]["MessageGroupId"] == "g"
    assert url


def test_from_bus_to_bus_once(world):
    """The event stays what it was; a second hop is not taken."""
    world.queue()
    world.queue("third")
    for name in ("two", "three"):
        world.events("CreateEventBus", Name=name)
    world.rule({"source": ["shop"]}, {"Arn": BUS + "two"})
    world.rule({"source": ["shop"]}, {"Arn": QUEUE}, {"Arn": BUS + "three"}, EventBusName="two")
    world.rule({"source": ["shop"]}, {"Arn": QUEUE.replace(":q", ":third")}, EventBusName="three")
    answer = world.put({"n": 1})
    (event,) = world.bodies()
    assert event["id"] == answer["Entries"][0]["EventId"]
    assert event["detail"] == {"n": 1}
    assert world.bodies("third") == []


def test_what_cannot_be_delivered_goes_to_the_dead_letter_queue(world):
    world.queue("dead")
    dead = QUEUE.replace(":q", ":dead")
    world.rule({"source": ["shop"]}, {"Arn": QUEUE, "Input": '{"x":1}', "DeadLetterConfig": {"Arn": dead}})
    world.put()
    (message,) = world.received("dead")
    assert json.loads(message["Body"]) == {"x": 1}
    told = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert told["RULE_ARN"] == "arn:aws:events:us-east-1:000000000000:rule/r"
    assert told["TARGET_ARN"] == QUEUE
    assert told["RETRY_ATTEMPTS"] == "0"
    assert told["ERROR_CODE"]
    assert told["ERROR_MESSAGE"]
    assert world.counted("FailedInvocations") == 1
    assert world.counted("InvocationsSentToDlq") == 1


def test_permissions(world):
    world.events("PutPermission", Action="events:PutEvents", Principal="111111111111", StatementId="a")
    world.events("PutPermission", Action="events:PutEvents", Principal="*", StatementId="b", Condition={
        "Type": "StringEquals", "Key": "aws:PrincipalOrgID", "Value": "o-1"
    })  # fmt: skip
    policy = json.loads(world.events("DescribeEventBus")["Policy"])
    assert policy["Version"] == "2012-10-17"
    assert policy["Statement"] == [
        {
            "Sid": "a", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
            "Action": "events:PutEvents", "Resource": BUS + "default",
        },
        {
            "Sid": "b", "Effect": "Allow", "Principal": "*", "Action": "events:PutEvents", "Resource": BUS + "default",
            "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}},
        },
    ]  # fmt: skip
    world.events("RemovePermission", StatementId="a")
    assert refused(world, "RemovePermission", StatementId="a")[0] == "ResourceNotFoundException"
    world.events("RemovePermission", StatementId="b")
    assert "Policy" not in world.events("DescribeEventBus")
    assert refused(world, "PutPermission", Policy="{")[0] == "ValidationException"


def test_tags_of_rules(world):
    arn = "arn:aws:events:us-east-1:000000000000:rule/r"
    world.events("PutRule", Name="r", EventPattern='{"a":["b"]}', Tags=[{"Key": "a", "Value": "1"}])
    world.events("TagResource", ResourceARN=arn, Tags=[{"Key": "b", "Value": "2"}])
    world.events("UntagResource", ResourceARN=arn, TagKeys=["a"])
    assert world.events("ListTagsForResource", ResourceARN=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert refused(world, "ListTagsForResource", ResourceARN=arn + "x") == (
        "ResourceNotFoundException", "Rule rx does not exist on EventBus default."
    )  # fmt: skip

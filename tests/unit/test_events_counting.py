"""What rules did is counted once it has been committed; a bus that is known to be there is not looked up again."""

import json
from collections import Counter

import pytest

from preheat.services.events.service import build as build_events
from preheat.services.sqs.service import build as build_sqs
from tests.support.inprocess import InProcess

QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
ENTRY = {"EventBusName": "b", "Source": "shop", "DetailType": "t", "Detail": "{}"}


@pytest.fixture
def world():
    world = InProcess(build_sqs, build_events)
    world("sqs", "CreateQueue", QueueName="q")
    make_bus(world)
    yield world
    assert world.defects == []


def make_bus(world):
    world("events", "CreateEventBus", Name="b")
    for name in ("one", "two"):
        pattern = json.dumps({"source": ["shop"], "detail-type": ["t"] if name == "one" else ["t", "u"]})
        world("events", "PutRule", Name=name, EventBusName="b", EventPattern=pattern)
        world("events", "PutTargets", Rule=name, EventBusName="b", Targets=[{"Id": "q", "Arn": QUEUE}])


def counted(world):
    """(rule, metric) -> how often, since it was last asked."""
    found = Counter()
    for (series, _), sample in world.machine.meter.take().items():
        rule = dict(series.dimensions).get("RuleName")
        if rule is not None:
            assert dict(series.dimensions)["EventBusName"] == "b"
            found[rule, series.name] += sample.total
    return found


def expected(**times):
    names = ("MatchedEvents", "TriggeredRules", "Invocations", "SuccessfulInvocationAttempts")
    return {(rule, name): count for rule, count in times.items() for name in names}


def test_every_entry_counts_for_every_rule_it_matches(world):
    entries = [ENTRY, {**ENTRY, "DetailType": "u"}, {**ENTRY, "DetailType": "v"}, ENTRY]
    world("events", "PutEvents", Entries=entries)
    assert counted(world) == expected(one=2, two=3)
    world("events", "PutEvents", Entries=entries[:1])
    assert counted(world) == expected(one=1, two=1)


def test_what_is_taken_back_does_not_count_and_the_next_does(world):
    def run(ctx):
        ctx.call("events", "PutEvents", {"Entries": [ENTRY] * 3})
        raise RuntimeError("after the events")

    world.machine.perform(run, lambda reply: None)
    world.settle()
    assert "after the events" in world.defects.pop()
    assert counted(world) == {}
    world("events", "PutEvents", Entries=[ENTRY])
    assert counted(world) == expected(one=1, two=1)


def test_calls_of_one_transaction_count_each(world):
    replies = []
    for _ in range(5):
        world.machine.submit("events", "PutEvents", {"Entries": [ENTRY] * 2}, replies.append)
    world.settle()
    assert len(replies) == 5
    assert counted(world) == expected(one=10, two=10)


def test_a_bus_that_was_deleted_gets_nothing_until_it_is_made_again(world):
    def depth():
        found = world("sqs", "GetQueueAttributes", QueueUrl="/000000000000/q", AttributeNames=["All"])
        return int(found["Attributes"]["ApproximateNumberOfMessages"])

    world("events", "PutEvents", Entries=[ENTRY])
    assert depth() == 2
    for name in ("one", "two"):
        world("events", "RemoveTargets", Rule=name, EventBusName="b", Ids=["q"])
        world("events", "DeleteRule", Name=name, EventBusName="b")
    world("events", "DeleteEventBus", Name="b")
    assert world("events", "PutEvents", Entries=[ENTRY])["FailedEntryCount"] == 0
    assert depth() == 2
    make_bus(world)
    world("events", "PutEvents", Entries=[ENTRY])
    assert depth() == 4

"""A topic's message to many queues in one statement: each gets what SendMessage would have given it, or is left out."""

import json

import pytest

from tests.unit.test_sns import Sns

SENDER = "sns.amazonaws.com"


@pytest.fixture
def world():
    world = Sns()
    yield world
    assert world.defects == []


def copies(world, *wanted):
    """What `SqsService.copies` answered for (queue, body) pairs, in a transaction that was committed."""
    answers = []

    def run(ctx):
        pairs = [(ctx.scope, name, body) for name, body in wanted]
        answers.extend(world.machine.services["sqs"].copies(ctx, pairs, SENDER))
        return {}

    world.machine.perform(run, lambda reply: None)
    world.settle()
    return answers


def test_each_queue_gets_a_message_of_its_own(world):
    first, second = world.queue("a"), world.queue("b")
    assert copies(world, ("a", "one"), ("b", "one"), ("a", "zwei €")) == [True, True, True]
    found = world.bodies(first)
    (other,) = world.bodies(second)
    assert sorted(message["Body"] for message in found) == ["one", "zwei €"]
    assert other["Body"] == "one"
    assert len({message["MessageId"] for message in (*found, other)}) == 3
    world("sqs", "SendMessage", QueueUrl=second, MessageBody="one")
    (sent,) = world.bodies(second)
    assert sent["MD5OfBody"] == other["MD5OfBody"]
    assert sent["Attributes"].keys() == other["Attributes"].keys()
    assert other["Attributes"]["SenderId"] == SENDER


def test_delays_and_depths_count(world):
    url = world.queue("late", DelaySeconds="5")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]

    def depths():
        return list(world("sqs", "GetQueueAttributes", QueueUrl=url, AttributeNames=names)["Attributes"].values())

    assert depths() == ["0", "0"]
    assert copies(world, ("late", "x")) == [True]
    assert depths() == ["0", "1"]
    assert world.bodies(url) == []
    world.advance(5)
    assert [message["Body"] for message in world.bodies(url)] == ["x"]


def test_what_it_cannot_store_is_left_to_send_message(world):
    world.queue("f.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    small, fair = world.queue("small", MaximumMessageSize="1024"), world.queue("fair")
    world("sqs", "SendMessage", QueueUrl=fair, MessageBody="x", MessageGroupId="tenant")
    assert copies(
        world, ("f.fifo", "x"), ("none", "x"), ("small", "€" * 400), ("small", "x"), ("fair", "x"), ("small", "\x01")
    ) == [False, False, False, True, False, False]
    assert [message["Body"] for message in world.bodies(small)] == ["x"]


def test_one_parked_receive_of_each_queue_wakes(world):
    urls = [world.queue(name) for name in ("a", "b")]
    replies = [world.start("sqs", "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20) for url in urls * 2]
    copies(world, ("a", "x"), ("b", "y"))
    answered = [reply[0].output["Messages"][0]["Body"] for reply in replies if reply]
    assert sorted(answered) == ["x", "y"]


def test_a_topic_serves_all_its_queues_whatever_their_kind(world):
    topic = world.topic()
    urls = {
        "plain": world.queue("plain"),
        "raw": world.queue("raw"),
        "fair": world.queue("fair"),
    }
    world("sqs", "SendMessage", QueueUrl=urls["fair"], MessageBody="before", MessageGroupId="tenant")
    for name in urls:
        world.follow(topic, name, **({"RawMessageDelivery": "true"} if name == "raw" else {}))
    world.sns("Publish", TopicArn=topic, Message="hello")
    attribute = {"k": {"DataType": "String", "StringValue": "v"}}
    world.sns("Publish", TopicArn=topic, Message="hello", MessageAttributes=attribute)
    plain = [json.loads(message["Body"]) for message in world.bodies(urls["plain"])]
    assert [one["Message"] for one in plain] == ["hello", "hello"]
    assert len({one["MessageId"] for one in plain}) == 2
    raw = world.bodies(urls["raw"])
    assert [message["Body"] for message in raw] == ["hello", "hello"]
    assert sorted("MessageAttributes" in message for message in raw) == [False, True]
    assert len(world.bodies(urls["fair"])) == 3
    counts = {series.name: sample.total for (series, _), sample in world.machine.meter.take().items()}
    assert (counts["NumberOfMessagesPublished"], counts["NumberOfNotificationsDelivered"]) == (2, 6)


def test_nothing_stays_of_what_is_taken_back(world):
    url = world.queue("a")

    def run(ctx):
        assert world.machine.services["sqs"].copies(ctx, [(ctx.scope, "a", "x")], SENDER) == [True]
        raise RuntimeError("after the copies")

    world.machine.perform(run, lambda reply: None)
    world.settle()
    assert "after the copies" in world.defects.pop()
    assert world.bodies(url) == []

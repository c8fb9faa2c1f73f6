"""What a topic sends to many queues lies there once, and each queue has a message of its own all the same."""

import hashlib
import json

import pytest

from preheat.services.sqs import copies
from tests.unit.test_sns import QUEUE, Sns

NAMES = tuple(f"q{number}" for number in range(6))
TEXT = "zwei € und \U0001f600 " * 50


@pytest.fixture
def world():
    world = Sns()
    yield world
    assert world.defects == []


def followed(world, *, raw=False, names=NAMES, **attributes):
    """A topic that all queues follow; (its ARN, the queues' URLs)."""
    topic, urls = world.topic(), [world.queue(name, **attributes) for name in names]
    for name in names:
        world.follow(topic, name, **({"RawMessageDelivery": "true"} if raw else {}))
    return topic, urls


def texts(world):
    return world.db.value("SELECT count(*) FROM sqs_texts")


def take(world, url):
    """The queue's one message, deleted."""
    (message,) = world.bodies(url)
    world("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return message


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(("raw", "text"), [(False, TEXT), (True, TEXT), (True, "short")])
def test_every_queue_has_the_whole_message(world, raw, text):
    topic, urls = followed(world, raw=raw)
    world.sns("Publish", TopicArn=topic, Message=text)
    assert texts(world) == (0 if text == "short" else 1)
    found = [take(world, url) for url in urls]
    for message in found:
        assert message["MD5OfBody"] == md5(message["Body"])
        assert message["Attributes"]["SenderId"] == "sns.amazonaws.com"
        assert len(message["MessageId"]) == 36
    assert len({message["MessageId"] for message in found}) == len(urls)
    if raw:
        assert {message["Body"] for message in found} == {text}
        return
    envelopes = [json.loads(message["Body"]) for message in found]
    assert {envelope["Message"] for envelope in envelopes} == {text}
    assert len({envelope["UnsubscribeURL"] for envelope in envelopes}) == len(urls)


def test_a_text_goes_once_its_last_message_has_gone(world):
    topic, urls = followed(world)
    world.sns("Publish", TopicArn=topic, Message="one")
    world.sns("Publish", TopicArn=topic, Message="two")
    world.advance(40)
    for url in urls:
        for message in world.bodies(url):
            if url != urls[3] or json.loads(message["Body"])["Message"] == "one":
                world("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    world.advance(200)
    assert texts(world) == 1
    assert json.loads(take(world, urls[3])["Body"])["Message"] == "two"
    world.advance(200)
    assert texts(world) == 0
    world.sns("Publish", TopicArn=topic, Message="three")
    for url in urls:
        assert json.loads(take(world, url)["Body"])["Message"] == "three"
    world.advance(200)
    assert texts(world) == 0


def test_many_texts_are_looked_through_in_turns(world):
    topic, urls = followed(world, names=NAMES[:4])
    for number in range(60):
        entries = [{"Id": str(each), "Message": f"{number} {each}"} for each in range(10)]
        world.sns("PublishBatch", TopicArn=topic, PublishBatchRequestEntries=entries)
    assert texts(world) == 600
    for url in urls:
        world("sqs", "PurgeQueue", QueueUrl=url)
    world.advance(130)
    assert texts(world) == 0


@pytest.mark.parametrize("way", ["purge", "retention", "delete"])
def test_texts_of_messages_that_nobody_receives_go_too(world, way):
    topic, urls = followed(world, MessageRetentionPeriod="60")
    world.sns("Publish", TopicArn=topic, Message="x")
    for url in urls:
        if way != "retention":
            world("sqs", "PurgeQueue" if way == "purge" else "DeleteQueue", QueueUrl=url)
    world.advance(500)
    assert texts(world) == 0
    assert world.db.value("SELECT count(*) FROM sqs_messages") == 0


def test_a_dead_letter_is_whole_when_its_text_has_gone(world):
    topic, urls = followed(world)
    dead = world.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": QUEUE + "dead", "maxReceiveCount": 1})
    attributes = {"RedrivePolicy": policy, "VisibilityTimeout": "1"}
    world("sqs", "SetQueueAttributes", QueueUrl=urls[0], Attributes=attributes)
    world.sns("Publish", TopicArn=topic, Message=TEXT)
    for url in urls[1:]:
        take(world, url)
    (first,) = world.bodies(urls[0])
    world.advance(2)
    assert world.bodies(urls[0]) == []
    world.advance(200)
    assert texts(world) == 0
    (letter,) = world.bodies(dead)
    assert (letter["Body"], letter["MD5OfBody"]) == (first["Body"], first["MD5OfBody"])
    assert json.loads(letter["Body"])["Message"] == TEXT
    world.advance(40)
    world("sqs", "StartMessageMoveTask", SourceArn=QUEUE + "dead")
    world.advance(5)
    assert take(world, urls[0])["Body"] == first["Body"]


def test_queues_that_change_get_what_is_theirs(world):
    topic, urls = followed(world)
    world.sns("Publish", TopicArn=topic, Message="before")
    for url in urls:
        take(world, url)
    world("sqs", "SetQueueAttributes", QueueUrl=urls[0], Attributes={"DelaySeconds": "30"})
    world.sns("Publish", TopicArn=topic, Message="delayed")
    assert world.bodies(urls[0]) == []
    assert json.loads(take(world, urls[1])["Body"])["Message"] == "delayed"
    world.advance(31)
    assert json.loads(take(world, urls[0])["Body"])["Message"] == "delayed"
    world("sqs", "SendMessage", QueueUrl=urls[2], MessageBody="of a tenant", MessageGroupId="tenant")
    world("sqs", "DeleteQueue", QueueUrl=urls[3])
    world("sqs", "SetQueueAttributes", QueueUrl=urls[4], Attributes={"MaximumMessageSize": "1024"})
    world.sns("Publish", TopicArn=topic, Message="x" * 2_000)
    assert len(world.bodies(urls[2])) == 3
    assert [json.loads(message["Body"])["Message"] for message in world.bodies(urls[4])] == ["delayed"]
    assert any(json.loads(message["Body"])["Message"] == "x" * 2_000 for message in world.bodies(urls[5]))


def test_a_publication_that_is_taken_back_leaves_nothing_and_the_next_arrives(world):
    topic, urls = followed(world)

    def run(ctx):
        ctx.call("sns", "Publish", {"TopicArn": topic, "Message": "lost"})
        raise RuntimeError("after the publication")

    world.machine.perform(run, lambda reply: None)
    world.settle()
    assert "after the publication" in world.defects.pop()
    assert texts(world) == world.db.value("SELECT count(*) FROM sqs_messages") == 0
    world.sns("Publish", TopicArn=topic, Message="kept")
    assert [json.loads(take(world, url)["Body"])["Message"] for url in urls] == ["kept"] * len(urls)


def test_texts_outlive_the_server(tmp_path):
    first = Sns(directory=tmp_path)
    topic, urls = followed(first)
    first.sns("Publish", TopicArn=topic, Message=TEXT)
    first.db.close()
    again = Sns(directory=tmp_path)
    again.sns("Publish", TopicArn=topic, Message="after")
    for url in urls:
        found = again.bodies(url)
        assert [json.loads(message["Body"])["Message"] for message in found] == [TEXT, "after"]
        for message in found:
            again("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    again.advance(200)
    assert texts(again) == 0
    assert again.defects == []
    again.db.close()


def test_one_parked_receive_of_each_queue_wakes(world):
    topic, urls = followed(world)
    replies = [world.start("sqs", "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20) for url in urls * 2]
    world.sns("Publish", TopicArn=topic, Message="x")
    assert sum(bool(reply) for reply in replies) == len(urls)


def test_depths_and_metrics_count_every_queue(world):
    topic, urls = followed(world)
    names = ["ApproximateNumberOfMessages"]
    for count in (0, 1, 2):
        for url in urls:
            found = world("sqs", "GetQueueAttributes", QueueUrl=url, AttributeNames=names)["Attributes"]
            assert found == {names[0]: str(count)}
        world.sns("Publish", TopicArn=topic, Message=TEXT)
    size = len(world.bodies(urls[0])[0]["Body"].encode())
    world.advance(60)
    taken = world.machine.meter.take().items()
    sizes = [sample for (series, _), sample in taken if series.name == "SentMessageSize"]
    assert len(sizes) == len(urls)
    assert {(sample.count, sample.maximum) for sample in sizes} == {(3, size)}


def test_audiences_make_room_for_others(world, monkeypatch):
    monkeypatch.setattr(copies, "MAX_PLACES", 10)
    urls = [world.queue(name) for name in NAMES]
    topics = [world.topic(f"t{number}") for number in range(3)]
    for topic in topics:
        for name in NAMES:
            world.follow(topic, name)
    ids = []
    for text in ("first", "second"):
        for topic in topics:
            world.sns("Publish", TopicArn=topic, Message=text)
            assert world.db.value("SELECT count(*) FROM sqs_audiences") == len(NAMES)
        for url in urls:
            envelopes = [json.loads(message["Body"]) for message in world.bodies(url)]
            assert sorted((one["TopicArn"], one["Message"]) for one in envelopes) == [(arn, text) for arn in topics]
            world.advance(1)
        world.advance(30)
        for url in urls:
            for message in world.bodies(url):
                ids.append(message["MessageId"])
                world("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert len(ids) == len(set(ids)) == 2 * len(topics) * len(urls)

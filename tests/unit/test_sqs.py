"""SQS in process, under a clock that the test moves."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.sqs.service import build
from tests.support.inprocess import InProcess


@pytest.fixture
def sqs():
    world = InProcess(build)

    def call(operation, **params):
        return world("sqs", operation, **params)

    call.world = world
    return call


def make(sqs, name="q", **settings):
    attributes = {key: str(value) for key, value in settings.items()}
    return sqs("CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]


def arn(sqs, url):
    return sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def receive(sqs, url, **params):
    return sqs("ReceiveMessage", QueueUrl=url, **{"MaxNumberOfMessages": 10, **params}).get("Messages", [])


def depths(sqs, url):
    values = sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return tuple(int(values["ApproximateNumberOfMessages" + part]) for part in ("", "NotVisible", "Delayed"))


def refused(sqs, operation, **params):
    with pytest.raises(AwsError) as caught:
        sqs(operation, **params)
    return caught.value


def test_a_message_is_received_once_until_its_visibility_ends(sqs):
    url = make(sqs, VisibilityTimeout=5)
    sqs("SendMessage", QueueUrl=url, MessageBody="hello")
    (first,) = receive(sqs, url, AttributeNames=["All"])
    assert first["Body"] == "hello" and first["Attributes"]["ApproximateReceiveCount"] == "1"
    assert receive(sqs, url) == []
    sqs.world.advance(5)
    (second,) = receive(sqs, url, AttributeNames=["All"])
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert depths(sqs, url) == (0, 1, 0)
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])
    assert depths(sqs, url) == (0, 0, 0)


def test_long_poll_wakes_on_send_in_the_same_tick(sqs):
    url = make(sqs)
    got = sqs.world.machine
    replies = []
    got.submit("sqs", "ReceiveMessage", {"QueueUrl": url, "WaitTimeSeconds": 20}, replies.append)
    got.submit("sqs", "SendMessage", {"QueueUrl": url, "MessageBody": "now"}, lambda reply: None)
    sqs.world.settle()
    assert replies[0].output["Messages"][0]["Body"] == "now"


def test_long_poll_ends_empty_at_its_time(sqs):
    url = make(sqs)
    started = sqs.world.clock.now()
    assert receive(sqs, url, WaitTimeSeconds=7) == []
    assert sqs.world.clock.now() - started == pytest.approx(7)


def test_long_poll_sees_a_delayed_message_when_it_becomes_visible(sqs):
    url = make(sqs)
    sqs("SendMessage", QueueUrl=url, MessageBody="later", DelaySeconds=3)
    assert depths(sqs, url) == (0, 0, 1)
    started = sqs.world.clock.now()
    (message,) = receive(sqs, url, WaitTimeSeconds=20)
    assert message["Body"] == "later"
    assert sqs.world.clock.now() - started == pytest.approx(3)


def test_dead_letter_after_exactly_max_receive_count(sqs):
    dead = make(sqs, "dead")
    policy = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": 3})
    url = make(sqs, VisibilityTimeout=1, RedrivePolicy=policy)
    sent = sqs("SendMessage", QueueUrl=url, MessageBody="poison")
    for _ in range(3):
        assert len(receive(sqs, url)) == 1
        sqs.world.advance(1)
    assert receive(sqs, url) == []
    (message,) = receive(sqs, dead, AttributeNames=["All"])
    assert message["MessageId"] == sent["MessageId"]
    assert message["Attributes"]["DeadLetterQueueSourceArn"] == arn(sqs, url)
    assert message["Attributes"]["ApproximateReceiveCount"] == "4"


def test_retention_drops_old_messages(sqs):
    url = make(sqs, MessageRetentionPeriod=60)
    sqs("SendMessage", QueueUrl=url, MessageBody="old")
    sqs.world.advance(61)
    assert depths(sqs, url) == (0, 0, 0)
    assert receive(sqs, url) == []


def test_batch_reports_each_entry(sqs):
    url = make(sqs)
    entries = [{"Id": "a", "MessageBody": "x"}, {"Id": "b", "MessageBody": "\x00"}]
    output = sqs("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in output["Successful"]] == ["a"]
    assert output["Failed"][0]["Code"] == "InvalidMessageContents" and output["Failed"][0]["SenderFault"]


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("SendMessage", {"MessageBody": ""}, "MissingParameter"),
        ("SendMessage", {"MessageBody": "x", "DelaySeconds": 901}, "InvalidParameterValue"),
        ("ReceiveMessage", {"MaxNumberOfMessages": 11}, "InvalidParameterValue"),
        ("ReceiveMessage", {"WaitTimeSeconds": 21}, "InvalidParameterValue"),
        ("DeleteMessage", {"ReceiptHandle": "nonsense"}, "ReceiptHandleIsInvalid"),
        ("SendMessageBatch", {"Entries": []}, "AWS.SimpleQueueService.EmptyBatchRequest"),
        ("GetQueueAttributes", {"AttributeNames": ["Nope"]}, "InvalidAttributeName"),
        ("SetQueueAttributes", {"Attributes": {"VisibilityTimeout": "43201"}}, "InvalidAttributeValue"),
        ("SetQueueAttributes", {"Attributes": {"FifoQueue": "true"}}, "InvalidAttributeName"),
    ],
)
def test_refusals(sqs, operation, params, code):
    url = make(sqs)
    error = refused(sqs, operation, QueueUrl=url, **params)
    assert (error.query_code or error.code) == code


def test_queue_rules(sqs):
    url = make(sqs, DelaySeconds=1)
    assert make(sqs, DelaySeconds=1) == url
    different = refused(sqs, "CreateQueue", QueueName="q", Attributes={"DelaySeconds": "2"})
    assert different.query_code == "QueueAlreadyExists"
    assert refused(sqs, "GetQueueUrl", QueueName="none").code == "QueueDoesNotExist"
    sqs("PurgeQueue", QueueUrl=url)
    assert refused(sqs, "PurgeQueue", QueueUrl=url).status == 403
    sqs("DeleteQueue", QueueUrl=url)
    assert refused(sqs, "SendMessage", QueueUrl=url, MessageBody="x").code == "QueueDoesNotExist"


def fifo_send(sqs, url, body, group="g", **params):
    return sqs("SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId=group, **params)


def test_fifo_order_group_lock_and_deduplication(sqs):
    url = make(sqs, "f.fifo", FifoQueue="true", ContentBasedDeduplication="true", VisibilityTimeout=10)
    for body in ("a1", "a2", "a3"):
        fifo_send(sqs, url, body, "a")
    fifo_send(sqs, url, "b1", "b")
    again = fifo_send(sqs, url, "a1", "a")
    (one,) = receive(sqs, url, MaxNumberOfMessages=1, AttributeNames=["All"])
    assert one["Body"] == "a1" and one["MessageId"] == again["MessageId"]
    assert [message["Body"] for message in receive(sqs, url)] == ["b1"]
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    rest = receive(sqs, url)
    assert [message["Body"] for message in rest] == ["a2", "a3"]
    sqs.world.advance(10)
    assert refused(sqs, "DeleteMessage", QueueUrl=url, ReceiptHandle=rest[0]["ReceiptHandle"]).code == (
        "InvalidParameterValueException"
    )
    assert [message["Body"] for message in receive(sqs, url)] == ["a2", "a3", "b1"]
    sqs.world.advance(300)
    assert fifo_send(sqs, url, "a1", "a")["MessageId"] != again["MessageId"]


def test_message_attributes_and_their_digest(sqs):
    url = make(sqs)
    attributes = {
        "n": {"DataType": "Number.int", "StringValue": "7"},
        "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        "app.name": {"DataType": "String", "StringValue": "preheat"},
    }
    sent = sqs("SendMessage", QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    (message,) = receive(sqs, url, MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    sqs("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    (message,) = receive(sqs, url, MessageAttributeNames=["app.*"])
    assert list(message["MessageAttributes"]) == ["app.name"]

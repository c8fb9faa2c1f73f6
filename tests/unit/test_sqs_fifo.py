"""FIFO queues in process: order, locks, repeated receives, dead letters, delays, expired handles."""

import json

import pytest

from tests.unit.test_sqs import arn, depths, fifo_send, make, receive, refused, sqs

__all__ = ["sqs"]


def fifo(sqs, name="f.fifo", **settings):
    return make(sqs, name, **{"FifoQueue": "true", "ContentBasedDeduplication": "true", **settings})


def bodies(messages):
    return [message["Body"] for message in messages]


def test_a_repeated_attempt_gives_the_same_messages_and_handles_and_hides_them_anew(sqs):
    url = fifo(sqs, VisibilityTimeout=10)
    for body in "abc":
        fifo_send(sqs, url, body)
    first = receive(sqs, url, ReceiveRequestAttemptId="try-1", MaxNumberOfMessages=2, AttributeNames=["All"])
    assert bodies(first) == ["a", "b"]
    sqs.world.advance(8)
    assert receive(sqs, url, ReceiveRequestAttemptId="try-2") == []
    again = receive(sqs, url, ReceiveRequestAttemptId="try-1", MaxNumberOfMessages=2, AttributeNames=["All"])
    assert again == first
    sqs.world.advance(8)
    assert receive(sqs, url) == [], "the repeated receive started the visibility timeout anew"
    sqs.world.advance(2)
    assert bodies(receive(sqs, url, ReceiveRequestAttemptId="try-1")) == ["a", "b", "c"]


@pytest.mark.parametrize("change", ["delete", "visibility"])
def test_an_attempt_whose_messages_were_changed_is_a_new_receive(sqs, change):
    url = fifo(sqs, VisibilityTimeout=100)
    fifo_send(sqs, url, "a", "one")
    fifo_send(sqs, url, "b", "two")
    (first,) = receive(sqs, url, ReceiveRequestAttemptId="t", MaxNumberOfMessages=1)
    handle = {"QueueUrl": url, "ReceiptHandle": first["ReceiptHandle"]}
    if change == "delete":
        sqs("DeleteMessage", **handle)
    else:
        sqs("ChangeMessageVisibility", **handle, VisibilityTimeout=50)
    assert bodies(receive(sqs, url, ReceiveRequestAttemptId="t", MaxNumberOfMessages=1)) == ["b"]


def test_an_attempt_counts_for_five_minutes(sqs):
    url = fifo(sqs, VisibilityTimeout=1_000)
    fifo_send(sqs, url, "a")
    assert receive(sqs, url, ReceiveRequestAttemptId="t")
    sqs.world.advance(299)
    assert receive(sqs, url, ReceiveRequestAttemptId="t")
    sqs.world.advance(2)
    assert receive(sqs, url, ReceiveRequestAttemptId="t") == []


def test_attempt_ids_are_checked(sqs):
    url = fifo(sqs)
    assert "128 in length" in refused(sqs, "ReceiveMessage", QueueUrl=url, ReceiveRequestAttemptId="a b").message
    assert "128 in length" in refused(sqs, "ReceiveMessage", QueueUrl=url, ReceiveRequestAttemptId="x" * 129).message
    plain = make(sqs, "plain")
    error = refused(sqs, "ReceiveMessage", QueueUrl=plain, ReceiveRequestAttemptId="t")
    assert error.message.endswith("The request include parameter that is not valid for this queue type.")


def test_handles_of_ended_receives_are_refused_each_on_its_own(sqs):
    url = fifo(sqs, VisibilityTimeout=5)
    fifo_send(sqs, url, "a", "one")
    fifo_send(sqs, url, "b", "two")
    old = {message["Body"]: message["ReceiptHandle"] for message in receive(sqs, url)}
    sqs.world.advance(5)
    (new,) = receive(sqs, url, MaxNumberOfMessages=1)
    entries = [
        {"Id": "superseded", "ReceiptHandle": old["a"]},
        {"Id": "ended", "ReceiptHandle": old["b"]},
        {"Id": "good", "ReceiptHandle": new["ReceiptHandle"]},
    ]
    output = sqs("DeleteMessageBatch", QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in output["Successful"]] == ["good"]
    assert {entry["Id"]: entry["Code"] for entry in output["Failed"]} == {
        "superseded": "InvalidParameterValue",
        "ended": "InvalidParameterValue",
    }
    assert f"Value {old['b']} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired." in {
        entry["Message"] for entry in output["Failed"]
    }
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=new["ReceiptHandle"])
    assert depths(sqs, url) == (1, 0, 0)


def test_a_group_stays_locked_until_its_last_message_in_flight_is_settled(sqs):
    url = fifo(sqs, VisibilityTimeout=30)
    for body in "abc":
        fifo_send(sqs, url, body)
    first, second = receive(sqs, url, MaxNumberOfMessages=2)
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert receive(sqs, url) == []
    sqs("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0)
    assert bodies(receive(sqs, url)) == ["b", "c"]


def test_dead_letters_keep_order_and_get_the_message_id_for_deduplication(sqs):
    dead = fifo(sqs, "dead.fifo", ContentBasedDeduplication="false", MessageRetentionPeriod=60)
    policy = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": "1"})
    url = fifo(sqs, VisibilityTimeout=1, RedrivePolicy=policy)
    sent = [fifo_send(sqs, url, body)["MessageId"] for body in ("a", "b")]
    assert bodies(receive(sqs, url)) == ["a", "b"]
    sqs.world.advance(50)
    fifo_send(sqs, url, "c")
    assert bodies(receive(sqs, url)) == ["c"], "the spent heads make room in the receive that moves them"
    sqs.world.advance(30)
    letters = receive(sqs, dead, AttributeNames=["All"])
    assert [(letter["Body"], letter["MessageId"]) for letter in letters] == list(zip("ab", sent, strict=True)), (
        "retention starts anew in a FIFO dead-letter queue"
    )
    attributes = letters[0]["Attributes"]
    assert attributes["MessageDeduplicationId"] == sent[0]
    assert attributes["DeadLetterQueueSourceArn"] == arn(sqs, url)


def test_many_spent_groups_do_not_hide_a_good_one(sqs):
    dead = fifo(sqs, "dead.fifo")
    policy = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": 1})
    url = fifo(sqs, VisibilityTimeout=1, RedrivePolicy=policy)
    for number in range(30):
        fifo_send(sqs, url, f"spent {number}", f"g{number}")
    while receive(sqs, url):
        continue
    sqs.world.advance(1)
    fifo_send(sqs, url, "good", "last")
    assert bodies(receive(sqs, url, MaxNumberOfMessages=1)) == ["good"]
    assert depths(sqs, dead) == (30, 0, 0)


def test_delays_are_the_queues_and_hold_for_what_lies_in_it(sqs):
    url = fifo(sqs, DelaySeconds=100)
    assert "not valid for this queue type" in refused(
        sqs, "SendMessage", QueueUrl=url, MessageBody="x", MessageGroupId="g", DelaySeconds=1
    ).message  # fmt: skip
    fifo_send(sqs, url, "a")
    assert depths(sqs, url) == (0, 0, 1) and receive(sqs, url) == []
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"DelaySeconds": "5"})
    started = sqs.world.clock.now()
    assert bodies(receive(sqs, url, WaitTimeSeconds=20)) == ["a"]
    assert sqs.world.clock.now() - started == pytest.approx(5)


def test_deduplication_by_group_and_its_attributes(sqs):
    url = fifo(sqs, DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId")
    one = fifo_send(sqs, url, "same", "one")
    assert fifo_send(sqs, url, "same", "two")["MessageId"] != one["MessageId"]
    again = fifo_send(sqs, url, "same", "one")
    assert (again["MessageId"], again["SequenceNumber"]) == (one["MessageId"], one["SequenceNumber"])
    assert len(one["SequenceNumber"]) == 20
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=receive(sqs, url, MaxNumberOfMessages=1)[0]["ReceiptHandle"])
    assert fifo_send(sqs, url, "same", "one")["MessageId"] == one["MessageId"], "the window survives the deletion"
    error = refused(sqs, "SetQueueAttributes", QueueUrl=url, Attributes={"DeduplicationScope": "queue"})
    assert error.code == "InvalidAttributeValue"
    plain = make(sqs, "plain")
    error = refused(sqs, "SetQueueAttributes", QueueUrl=plain, Attributes={"DeduplicationScope": "queue"})
    assert error.message == "You can specify the DeduplicationScope only when FifoQueue is set to true."


def test_what_a_send_must_have(sqs):
    url = fifo(sqs, ContentBasedDeduplication="false")
    send = {"QueueUrl": url, "MessageBody": "x"}
    assert refused(sqs, "SendMessage", **send).message == "The request must contain the parameter MessageGroupId."
    assert refused(sqs, "SendMessage", **send, MessageGroupId="g").message == (
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
    )
    error = refused(sqs, "SendMessage", **send, MessageGroupId="ä", MessageDeduplicationId="d")
    assert error.message == (
        "Value ä for parameter MessageGroupId is invalid. Reason: MessageGroupId can only include alphanumeric and "
        "punctuation characters. 1 to 128 in length."
    )


def test_purge_forgets_groups_in_flight(sqs):
    url = fifo(sqs, VisibilityTimeout=100)
    for body in "ab":
        fifo_send(sqs, url, body)
    assert receive(sqs, url)
    sqs("PurgeQueue", QueueUrl=url)
    fifo_send(sqs, url, "c")
    assert bodies(receive(sqs, url)) == ["c"]

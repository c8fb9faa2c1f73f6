"""Receives that wait, in process: who is woken, by what, and what is left of those that went away."""

import gc

import pytest

from preheat.services.sqs.service import SqsService, build
from tests.support.inprocess import InProcess
from tests.unit.test_sqs import arn, depths, fifo_send, make, receive, refused, sqs

__all__ = ["sqs"]


def poll(sqs, url, **params):
    return sqs.world.start("sqs", "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20, **params)


def answered(replies):
    return [reply for reply in replies if reply]


def polls_of(sqs):
    (found,) = (loop for loop in sqs.world.machine.services["sqs"].loops if loop.name == "sqs polls")
    return found


def test_one_message_wakes_one_receive_the_longest_waiting_first(sqs):
    url = make(sqs)
    waiting = [poll(sqs, url) for _ in range(50)]
    for number in range(3):
        sqs("SendMessage", QueueUrl=url, MessageBody=str(number))
        assert polls_of(sqs).waiting() == 49 - number
    assert [reply[0].output["Messages"][0]["Body"] for reply in waiting[:3]] == ["0", "1", "2"]
    assert len(answered(waiting)) == 3


def test_the_others_are_not_asked_again(sqs):
    url = make(sqs)
    waiting = [poll(sqs, url) for _ in range(50)]
    ran = []
    sqs.world.db._connection.set_trace_callback(lambda sql: ran.append(sql) if "UPDATE sqs_messages" in sql else None)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    assert len(answered(waiting)) == 1 and len(ran) == 1


def test_a_batch_wakes_as_many(sqs):
    url = make(sqs)
    waiting = [poll(sqs, url, MaxNumberOfMessages=1) for _ in range(5)]
    entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(4)]
    sqs("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert len(answered(waiting)) == 4


def test_a_client_that_went_away_takes_no_wake_up_with_it(sqs):
    url = make(sqs)
    machine = sqs.world.machine
    gone = machine.submit(
        "sqs", "ReceiveMessage", {"QueueUrl": url, "WaitTimeSeconds": 20}, lambda reply: None, scope=sqs.world.scope
    )
    sqs.world.settle()
    waiting = poll(sqs, url)
    assert polls_of(sqs).waiting() == 2
    machine.cancel(gone)
    gc.collect()
    assert polls_of(sqs).waiting() == 1
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    assert waiting[0].output["Messages"][0]["Body"] == "x"
    assert polls_of(sqs).waiting() == 0


def test_hidden_messages_wake_when_they_appear(sqs):
    url = make(sqs, VisibilityTimeout=7)
    waiting = [poll(sqs, url) for _ in range(3)]
    sqs("SendMessage", QueueUrl=url, MessageBody="a")
    assert len(answered(waiting)) == 1
    sqs.world.advance(6.9)
    assert len(answered(waiting)) == 1
    sqs.world.advance(0.2)
    assert len(answered(waiting)) == 2, "what the first did not delete came back to the second"
    sqs("SendMessage", QueueUrl=url, MessageBody="b", DelaySeconds=3)
    sqs.world.advance(3)
    assert len(answered(waiting)) == 3


def test_a_visibility_of_nothing_wakes_at_once(sqs):
    url = make(sqs, VisibilityTimeout=1_000)
    sqs("SendMessage", QueueUrl=url, MessageBody="a")
    (message,) = receive(sqs, url)
    waiting = poll(sqs, url)
    sqs("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert waiting[0].output["Messages"]


def test_the_settled_group_of_a_fifo_queue_wakes_the_next(sqs):
    url = make(sqs, "f.fifo", FifoQueue="true", ContentBasedDeduplication="true", VisibilityTimeout=1_000)
    for body in "ab":
        fifo_send(sqs, url, body)
    (first,) = receive(sqs, url, MaxNumberOfMessages=1)
    waiting = poll(sqs, url)
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert waiting[0].output["Messages"][0]["Body"] == "b"


def test_a_dead_letter_wakes_who_waits_for_it(sqs):
    dead = make(sqs, "dead")
    policy = f'{{"deadLetterTargetArn": "{arn(sqs, dead)}", "maxReceiveCount": 1}}'
    url = make(sqs, "q", VisibilityTimeout=0, RedrivePolicy=policy)
    sqs("SendMessage", QueueUrl=url, MessageBody="a")
    waiting = poll(sqs, dead)
    receive(sqs, url)
    receive(sqs, url)
    assert waiting[0].output["Messages"][0]["Body"] == "a"


def test_a_deleted_queue_answers_all_who_wait(sqs):
    url = make(sqs)
    waiting = [poll(sqs, url) for _ in range(3)]
    sqs("DeleteQueue", QueueUrl=url)
    assert [reply[0].code for reply in waiting] == ["QueueDoesNotExist"] * 3
    assert polls_of(sqs).waiting() == 0


def test_thousands_wait_and_end_at_their_time(sqs):
    url = make(sqs)
    waiting = [poll(sqs, url) for _ in range(2_000)]
    assert polls_of(sqs).waiting() == 2_000
    sqs.world.advance(21)
    assert all(reply[0].output == {} for reply in waiting) and polls_of(sqs).waiting() == 0


# -- limits in flight --------------------------------------------------------------------------------------------------


@pytest.fixture
def narrow():
    """SQS with at most 20 messages in flight."""
    world = InProcess(lambda platform: SqsService(platform, in_flight_limit=20))

    def call(operation, **params):
        return world("sqs", operation, **params)

    call.world = world
    return call


def fill(sqs, url, count):
    for number in range(count):
        sqs("SendMessage", QueueUrl=url, MessageBody=str(number))


def test_a_standard_queue_refuses_a_short_poll_beyond_the_limit(narrow):
    url = make(narrow, VisibilityTimeout=30)
    fill(narrow, url, 25)
    held = receive(narrow, url) + receive(narrow, url)
    error = refused(narrow, "ReceiveMessage", QueueUrl=url)
    assert (error.code, error.query_code, error.status) == ("OverLimit", "OverLimit", 403)
    waiting = poll(narrow, url)
    narrow.world.advance(2)
    assert not waiting
    narrow("DeleteMessage", QueueUrl=url, ReceiptHandle=held[0]["ReceiptHandle"])
    assert len(waiting[0].output["Messages"]) == 1
    assert depths(narrow, url) == (4, 20, 0)
    narrow.world.advance(30)
    assert len(receive(narrow, url)) == 10, "what came back does not count"


def test_a_fifo_queue_gives_nothing_beyond_the_limit(narrow):
    url = make(narrow, "f.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for number in range(25):
        fifo_send(narrow, url, str(number), f"g{number}")
    assert len(receive(narrow, url) + receive(narrow, url)) == 20
    assert receive(narrow, url) == []


def test_the_limit_is_120_000():
    world = InProcess(build)
    assert world.machine.services["sqs"].receiver._limit == 120_000

"""Dead letters and what brings them back: who may, when, how many a second, and across a restart."""

import json

import pytest

from preheat.services.sqs.service import build
from tests.support.inprocess import InProcess
from tests.unit.test_sqs import arn, depths, fifo_send, make, receive, refused, sqs

__all__ = ["sqs"]


def redrive(sqs, dead, receives=1):
    return json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": receives})


def dead_letters(sqs, count, name="q", dead=None):
    """(queue, dead-letter queue that holds `count` messages of it)."""
    dead = dead or make(sqs, "dead")
    url = make(sqs, name, VisibilityTimeout=0, RedrivePolicy=redrive(sqs, dead))
    for number in range(count):
        sqs("SendMessage", QueueUrl=url, MessageBody=f"{name} {number}")
    while receive(sqs, url):
        continue
    return url, dead


def start(sqs, dead, **params):
    return sqs("StartMessageMoveTask", SourceArn=arn(sqs, dead), **params)["TaskHandle"]


def tasks(sqs, dead, limit=10):
    return sqs("ListMessageMoveTasks", SourceArn=arn(sqs, dead), MaxResults=limit)["Results"]


def test_messages_go_back_to_where_they_came_from_as_new_ones(sqs):
    one, dead = dead_letters(sqs, 3, "one")
    two, _ = dead_letters(sqs, 2, "two", dead)
    assert depths(sqs, dead) == (5, 0, 0)
    (letter,) = receive(sqs, dead, MaxNumberOfMessages=1, VisibilityTimeout=0)
    sqs.world.advance(10)
    start(sqs, dead)
    sqs.world.settle()
    assert [depths(sqs, url)[0] for url in (dead, one, two)] == [0, 3, 2]
    (task,) = tasks(sqs, dead)
    assert task["Status"] == "COMPLETED" and "TaskHandle" not in task and "DestinationArn" not in task
    assert task["ApproximateNumberOfMessagesMoved"] == task["ApproximateNumberOfMessagesToMove"] == 5
    back = receive(sqs, one, AttributeNames=["All"]) + receive(sqs, two, AttributeNames=["All"])
    attributes = back[0]["Attributes"]
    assert attributes["ApproximateReceiveCount"] == "1" and "DeadLetterQueueSourceArn" not in attributes
    assert int(attributes["SentTimestamp"]) == int(sqs.world.clock.now() * 1_000)
    assert letter["MessageId"] not in {message["MessageId"] for message in back}


def test_a_rate_is_kept_and_progress_shows(sqs):
    _, dead = dead_letters(sqs, 30)
    target = make(sqs, "elsewhere")
    handle = start(sqs, dead, DestinationArn=arn(sqs, target), MaxNumberOfMessagesPerSecond=10)
    sqs.world.advance(0.95)
    (task,) = tasks(sqs, dead)
    assert task["Status"] == "RUNNING" and task["TaskHandle"] == handle
    assert task["MaxNumberOfMessagesPerSecond"] == 10 and task["DestinationArn"] == arn(sqs, target)
    assert task["ApproximateNumberOfMessagesMoved"] == 10 and task["ApproximateNumberOfMessagesToMove"] == 30
    assert refused(sqs, "StartMessageMoveTask", SourceArn=arn(sqs, dead)).message == (
        "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
    )
    sqs.world.advance(1)
    assert depths(sqs, target)[0] == 20
    assert sqs("CancelMessageMoveTask", TaskHandle=handle)["ApproximateNumberOfMessagesMoved"] == 20
    sqs.world.advance(5)
    assert depths(sqs, dead)[0] == 10 and tasks(sqs, dead)[0]["Status"] == "CANCELLED"
    error = refused(sqs, "CancelMessageMoveTask", TaskHandle=handle)
    assert error.message == "Only active tasks can be cancelled."
    start(sqs, dead)
    sqs.world.settle()
    assert [task["Status"] for task in tasks(sqs, dead)] == ["COMPLETED", "CANCELLED"]
    assert len(tasks(sqs, dead, 1)) == 1


def test_what_cannot_be_moved_fails_the_task(sqs):
    url, dead = dead_letters(sqs, 2)
    sqs("SendMessage", QueueUrl=dead, MessageBody="of its own")
    start(sqs, dead)
    sqs.world.settle()
    (task,) = tasks(sqs, dead)
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert depths(sqs, dead)[0] == 1 and depths(sqs, url)[0] == 2
    sqs("PurgeQueue", QueueUrl=dead)
    while receive(sqs, url):
        continue
    other = make(sqs, "other", RedrivePolicy=redrive(sqs, dead))
    sqs("DeleteQueue", QueueUrl=url)
    start(sqs, dead)
    sqs.world.settle()
    assert tasks(sqs, dead)[0]["FailureReason"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert depths(sqs, dead)[0] == 2 and depths(sqs, other)[0] == 0


def test_a_fifo_queue_keeps_its_order_on_the_way_back(sqs):
    dead = make(sqs, "dead.fifo", FifoQueue="true")
    url = make(sqs, "q.fifo", FifoQueue="true", ContentBasedDeduplication="true", VisibilityTimeout=0,
               RedrivePolicy=redrive(sqs, dead))  # fmt: skip
    for body in ("a1", "b1", "a2", "b2", "a3"):
        fifo_send(sqs, url, body, body[0])
    while receive(sqs, url):
        continue
    assert depths(sqs, dead)[0] == 5
    start(sqs, dead, MaxNumberOfMessagesPerSecond=20)
    sqs.world.advance(1)
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"VisibilityTimeout": "30"})
    back = [message["Body"] for message in receive(sqs, url)]
    assert sorted(back) == ["a1", "a2", "a3", "b1", "b2"]
    assert [body for body in back if body[0] == "a"] == ["a1", "a2", "a3"]


def test_what_lies_behind_a_message_in_flight_of_its_group_stays(sqs):
    dead = make(sqs, "dead.fifo", FifoQueue="true")
    url = make(sqs, "q.fifo", FifoQueue="true", ContentBasedDeduplication="true", VisibilityTimeout=0,
               RedrivePolicy=redrive(sqs, dead))  # fmt: skip
    for body in ("a1", "a2", "a3"):
        fifo_send(sqs, url, body, "a")
    while receive(sqs, url):
        continue
    first, _ = receive(sqs, dead, MaxNumberOfMessages=2)
    sqs("ChangeMessageVisibility", QueueUrl=dead, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    start(sqs, dead)
    sqs.world.settle()
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"VisibilityTimeout": "30"})
    assert [message["Body"] for message in receive(sqs, url)] == ["a1"]
    assert depths(sqs, dead) == (1, 1, 0)


@pytest.mark.parametrize(
    ("params", "status", "message"),
    [
        (
            {"SourceArn": "{arn}:none"},
            404,
            "The resource that you specified for the SourceArn parameter doesn't exist.",
        ),
        (
            {"SourceArn": "{arn}:dead", "DestinationArn": "{arn}:none"},
            404,
            "The resource that you specified for the DestinationArn parameter doesn't exist.",
        ),
        ({"SourceArn": "{arn}:q"}, 400, "Source queue must be configured as a Dead Letter Queue."),
        ({"SourceArn": "nonsense"}, 400, None),
        ({"SourceArn": "{arn}:dead", "MaxNumberOfMessagesPerSecond": 501}, 400, None),
        ({"SourceArn": "{arn}:dead", "DestinationArn": "{arn}:dead"}, 400, None),
        ({"SourceArn": "{arn}:dead", "DestinationArn": "{arn}:f.fifo"}, 400, None),
    ],
)
def test_tasks_that_are_refused(sqs, params, status, message):
    _, dead = dead_letters(sqs, 1)
    make(sqs, "f.fifo", FifoQueue="true")
    prefix = arn(sqs, dead).rpartition(":")[0]
    given = {name: value.format(arn=prefix) if isinstance(value, str) else value for name, value in params.items()}
    error = refused(sqs, "StartMessageMoveTask", **given)
    assert error.status == status and (message is None or error.message == message)
    assert tasks(sqs, dead) == []


def test_unknown_tasks(sqs):
    _, dead = dead_letters(sqs, 1)
    handle = start(sqs, dead)
    sqs.world.settle()
    assert refused(sqs, "CancelMessageMoveTask", TaskHandle="nonsense").query_code == "InvalidParameterValue"
    other = InProcess(build, seed=2)
    with pytest.raises(Exception, match="specified for the SourceArn parameter doesn't exist") as caught:
        other("sqs", "CancelMessageMoveTask", TaskHandle=handle)
    assert caught.value.status == 404
    other("sqs", "CreateQueue", QueueName="dead")
    with pytest.raises(Exception, match="Task does not exist") as caught:
        other("sqs", "CancelMessageMoveTask", TaskHandle=handle)
    assert caught.value.status == 404


def test_a_restart_goes_on_with_the_task(tmp_path):
    first = InProcess(build, directory=tmp_path)

    def call(operation, **params):
        return first("sqs", operation, **params)

    call.world = first
    _, dead = dead_letters(call, 20)
    start(call, dead, MaxNumberOfMessagesPerSecond=10)
    first.advance(0.95)
    moment = first.clock.now()
    first.db.close()
    second = InProcess(build, directory=tmp_path)
    second.clock.move_to(moment)

    def again(operation, **params):
        return second("sqs", operation, **params)

    assert tasks(again, dead)[0]["ApproximateNumberOfMessagesMoved"] == 10
    second.advance(3)
    assert tasks(again, dead)[0]["Status"] == "COMPLETED"
    assert depths(again, dead)[0] == 0
    second.db.close()


def test_allow_policies(sqs):
    dead = make(sqs, "dead", RedriveAllowPolicy=json.dumps({"redrivePermission": "denyAll"}))
    policy = redrive(sqs, dead)
    assert "RedriveAllowPolicy" in refused(
        sqs, "CreateQueue", QueueName="q", Attributes={"RedrivePolicy": policy}
    ).message  # fmt: skip
    friend = arn(sqs, dead).replace("dead", "friend")
    allowed = {"redrivePermission": "byQueue", "sourceQueueArns": [friend]}
    sqs("SetQueueAttributes", QueueUrl=dead, Attributes={"RedriveAllowPolicy": json.dumps(allowed)})
    assert refused(sqs, "CreateQueue", QueueName="q", Attributes={"RedrivePolicy": policy})
    url = make(sqs, "friend", RedrivePolicy=policy, VisibilityTimeout=0)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    assert receive(sqs, url)
    deny = json.dumps({"redrivePermission": "denyAll"})
    sqs("SetQueueAttributes", QueueUrl=dead, Attributes={"RedriveAllowPolicy": deny})
    assert receive(sqs, url), "a queue that is shut out keeps its messages"
    allow = json.dumps({"redrivePermission": "allowAll"})
    sqs("SetQueueAttributes", QueueUrl=dead, Attributes={"RedriveAllowPolicy": allow})
    assert receive(sqs, url) == [] and depths(sqs, dead)[0] == 1


@pytest.mark.parametrize(
    "document",
    [
        {"redrivePermission": "some"},
        {"redrivePermission": "byQueue"},
        {"redrivePermission": "byQueue", "sourceQueueArns": []},
        {"redrivePermission": "byQueue", "sourceQueueArns": ["nonsense"]},
        {"redrivePermission": "byQueue", "sourceQueueArns": ["arn:aws:sqs:us-east-1:000000000000:q"] * 11},
        {"redrivePermission": "denyAll", "sourceQueueArns": ["arn:aws:sqs:us-east-1:000000000000:q"]},
        {"redrivePermission": "allowAll", "unknown": 1},
        [],
    ],
)
def test_allow_policies_that_are_refused(sqs, document):
    policy = json.dumps(document)
    error = refused(sqs, "CreateQueue", QueueName="q", Attributes={"RedriveAllowPolicy": policy})
    assert error.code == "InvalidAttributeValue"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"maxReceiveCount": 1}, "Redrive policy does not contain mandatory attribute: deadLetterTargetArn."),
        ({"deadLetterTargetArn": "{dead}"}, "Redrive policy does not contain mandatory attribute: maxReceiveCount."),
        ({"deadLetterTargetArn": "{dead}", "maxReceiveCount": 1001},
         "Invalid value for maxReceiveCount: 1001, valid values are from 1 to 1000 both inclusive."),
        ({"deadLetterTargetArn": "{dead}", "maxReceiveCount": 1.5},
         "Invalid value for maxReceiveCount: 1.5, valid values are from 1 to 1000 both inclusive."),
        ({"deadLetterTargetArn": "{dead}x", "maxReceiveCount": 1}, "Dead letter target does not exist."),
        ({"deadLetterTargetArn": "{dead}.fifo", "maxReceiveCount": 1},
         "Dead-letter queue must be same type of queue as the source."),
    ],
)  # fmt: skip
def test_redrive_policies_that_are_refused(sqs, document, reason):
    dead = arn(sqs, make(sqs, "dead"))
    make(sqs, "dead.fifo", FifoQueue="true")
    policy = json.dumps(document).replace("{dead}", dead)
    error = refused(sqs, "CreateQueue", QueueName="q", Attributes={"RedrivePolicy": policy})
    assert error.message == f"Value {policy} for parameter RedrivePolicy is invalid. Reason: {reason}"
    assert refused(sqs, "GetQueueUrl", QueueName="q").code == "QueueDoesNotExist"


def test_retention_goes_on_in_a_standard_dead_letter_queue(sqs):
    dead = make(sqs, "dead", MessageRetentionPeriod=100)
    url = make(sqs, "q", VisibilityTimeout=0, RedrivePolicy=redrive(sqs, dead))
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    sqs.world.advance(60)
    receive(sqs, url)
    assert receive(sqs, url) == [] and depths(sqs, dead) == (1, 0, 0)
    sqs.world.advance(41)
    assert depths(sqs, dead) == (0, 0, 0) and receive(sqs, dead) == []


def test_source_queues_come_in_pages(sqs):
    dead = make(sqs, "dead")
    urls = [make(sqs, f"q{number}", RedrivePolicy=redrive(sqs, dead)) for number in range(5)]
    whole = sqs("ListDeadLetterSourceQueues", QueueUrl=dead)
    assert whole == {"queueUrls": urls}
    found, token = [], {}
    while True:
        page = sqs("ListDeadLetterSourceQueues", QueueUrl=dead, MaxResults=2, **token)
        found.append(page["queueUrls"])
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert found == [urls[:2], urls[2:4], urls[4:]]
    assert refused(sqs, "ListDeadLetterSourceQueues", QueueUrl=dead, MaxResults=0)

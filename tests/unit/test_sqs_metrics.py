"""AWS/SQS metrics as the meter holds them at the end of a minute."""

from tests.unit.test_sqs import fifo_send, make, receive, sqs

__all__ = ["sqs"]


def measured(sqs, name="q"):
    """{metric: (sum, count, unit)} of the minute that ends now."""
    now = sqs.world.clock.now()
    sqs.world.advance((now // 60 + 1) * 60 - now)
    found = {}
    for (series, _), sample in sqs.world.machine.meter.take().items():
        if series.namespace == "AWS/SQS" and series.dimensions == (("QueueName", name),):
            total, count = found.get(series.name, (0, 0, ""))[:2]
            found[series.name] = (total + sample.total, count + sample.count, series.unit)
    return found


def test_traffic_and_depths(sqs):
    url = make(sqs, VisibilityTimeout=600)
    measured(sqs)
    for body in ("x", "yyy", "z" * 100):
        sqs("SendMessage", QueueUrl=url, MessageBody=body)
    sqs("SendMessage", QueueUrl=url, MessageBody="later", DelaySeconds=900)
    first, _ = receive(sqs, url, MaxNumberOfMessages=2)
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    receive(sqs, make(sqs, "other"))
    found = measured(sqs)
    assert found["NumberOfMessagesSent"] == (4, 4, "Count")
    assert found["SentMessageSize"] == (109, 4, "Bytes")
    assert found["NumberOfMessagesReceived"] == (2, 1, "Count")
    assert found["NumberOfMessagesDeleted"] == (1, 1, "Count")
    assert found["NumberOfEmptyReceives"] == (0, 1, "Count")
    assert found["ApproximateNumberOfMessagesVisible"][0] == 1
    assert found["ApproximateNumberOfMessagesNotVisible"][0] == 1
    assert found["ApproximateNumberOfMessagesDelayed"][0] == 1
    assert 55 <= found["ApproximateAgeOfOldestMessage"][0] <= 60
    again = measured(sqs)
    assert again["NumberOfMessagesSent"] == (0, 1, "Count") and "SentMessageSize" not in again


def test_empty_receives_count_once_however_long_they_wait(sqs):
    url = make(sqs)
    receive(sqs, url)
    receive(sqs, url, WaitTimeSeconds=3)
    assert measured(sqs)["NumberOfEmptyReceives"][0] == 2


def test_values_belong_to_the_minute_in_which_they_came(sqs):
    url = make(sqs)
    measured(sqs)
    began = sqs.world.clock.now()
    sqs.world.advance(30)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    sqs.world.advance(31)
    (minute,) = {
        minute for (series, minute), sample in sqs.world.machine.meter.take().items()
        if series.name == "NumberOfMessagesSent" and sample.total
    }  # fmt: skip
    assert minute == began


def test_fifo_and_fair_metrics(sqs):
    url = make(sqs, "f.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for group in "aab":
        fifo_send(sqs, url, group, group)
    receive(sqs, url, VisibilityTimeout=600)
    fair = make(sqs, "fair", VisibilityTimeout=600)
    for number in range(50):
        sqs("SendMessage", QueueUrl=fair, MessageBody=str(number), MessageGroupId="loud")
    for _ in range(4):
        receive(sqs, fair)
    for tenant in ("quiet", "still"):
        sqs("SendMessage", QueueUrl=fair, MessageBody="x", MessageGroupId=tenant)
    receive(sqs, fair, MaxNumberOfMessages=1)
    sqs.world.machine.meter.take()
    now = sqs.world.clock.now()
    sqs.world.advance((now // 60 + 1) * 60 - now)
    values = {
        (series.dimensions[0][1], series.name): sample.total
        for (series, _), sample in sqs.world.machine.meter.take().items()
    }
    assert values["f.fifo", "NumberOfDeduplicatedSentMessages"] == 1
    assert values["f.fifo", "ApproximateNumberOfGroupsWithInflightMessages"] == 2
    assert values["fair", "ApproximateNumberOfNoisyGroups"] == 1
    assert values["fair", "ApproximateNumberOfMessagesVisible"] == 11
    assert values["fair", "ApproximateNumberOfMessagesVisibleInQuietGroups"] == 1
    assert values["fair", "ApproximateNumberOfMessagesNotVisible"] == 41
    assert values["fair", "ApproximateNumberOfMessagesNotVisibleInQuietGroups"] == 1
    assert values["fair", "ApproximateNumberOfMessagesDelayedInQuietGroups"] == 0


def test_an_unused_queue_falls_silent(sqs):
    make(sqs, "silent")
    url = make(sqs)
    receive(sqs, url)
    assert measured(sqs) and not measured(sqs, "silent")
    sqs.world.advance(6 * 3_600 + 120)
    sqs.world.machine.meter.take()
    assert measured(sqs) == {}

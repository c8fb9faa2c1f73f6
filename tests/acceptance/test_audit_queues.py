"""SQS, claim by claim, on a live server: each line is an effect seen from outside."""

import hashlib
import json
import socket
import struct
import threading
import time
from urllib.parse import urlencode
from xml.etree import ElementTree

import boto3
import pytest

from tests.support.queues import (
    ARN,
    MIB,
    PREFIX,
    VALUE,
    bodies,
    delete,
    depths,
    hide,
    make,
    of,
    receive,
    redrive,
    refused,
    send,
    shown,
)  # fmt: skip
from tests.support.server import LiveServer, wait_for

ACCOUNT = "111111111111"
TOO_LONG = "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes."
DAY = 86_400


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """A server whose clock the tests move."""
    server = LiveServer(tmp_path_factory.mktemp("later") / "state").start()
    yield server
    assert server.stop() == 0
    assert "defect in" not in server.log.read_text()


@pytest.fixture
def sqs(aws):
    return aws.client("sqs")


# -- the model ---------------------------------------------------------------------------------------------------------


def test_every_operation_and_every_member_of_the_model_is_used(aws):
    sqs = aws.client("sqs")
    used = set()

    def note(params, model, **_):
        used.add(model.name)
        used.update((model.name, member) for member in params)

    sqs.meta.events.register("provide-client-params.sqs.*", note)
    sqs.create_queue(QueueName="audit-dead.fifo", Attributes={"FifoQueue": "true"}, tags={"a": "1"})
    dead = sqs.get_queue_url(QueueName="audit-dead.fifo", QueueOwnerAWSAccountId="000000000000")["QueueUrl"]
    url = make(sqs, "audit-all.fifo", RedrivePolicy=redrive("audit-dead.fifo", 1), VisibilityTimeout=0)
    other = make(sqs, "audit-plain")
    text = {"x": {"DataType": "String", "StringValue": "y"}}
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
    sqs.send_message(QueueUrl=url, MessageBody="1", MessageAttributes=text, MessageSystemAttributes=trace,
                     MessageDeduplicationId="1", MessageGroupId="g")  # fmt: skip
    sqs.send_message(QueueUrl=other, MessageBody="2", DelaySeconds=0)
    sqs.send_message_batch(QueueUrl=other, Entries=[{"Id": "a", "MessageBody": "3"}])
    (first,) = sqs.receive_message(
        QueueUrl=url, AttributeNames=["SenderId"], MessageSystemAttributeNames=["All"], MessageAttributeNames=["x"],
        MaxNumberOfMessages=1, VisibilityTimeout=60, WaitTimeSeconds=1, ReceiveRequestAttemptId="once",
    )["Messages"]  # fmt: skip
    assert first["MessageAttributes"] == text and first["Attributes"]["AWSTraceHeader"].startswith("Root=")
    hide(sqs, url, first, 0)
    assert receive(sqs, url) == [], "it went to the dead-letter queue"
    assert bodies(receive(sqs, dead, VisibilityTimeout=0)) == ["1"]
    task = sqs.start_message_move_task(
        SourceArn=ARN + "audit-dead.fifo", DestinationArn=ARN + "audit-all.fifo", MaxNumberOfMessagesPerSecond=500
    )["TaskHandle"]
    assert sqs.list_message_move_tasks(SourceArn=ARN + "audit-dead.fifo", MaxResults=10)["Results"]
    wait_for(lambda: depths(sqs, url)[0] == 1, what="the message to be moved back")
    assert refused(sqs.cancel_message_move_task, TaskHandle=task)[0] == "AWS.SimpleQueueService.UnsupportedOperation"
    got = receive(sqs, other, VisibilityTimeout=60)
    handles = [{"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]} for at, one in enumerate(got)]
    sqs.change_message_visibility_batch(QueueUrl=other, Entries=[{**one, "VisibilityTimeout": 30} for one in handles])
    delete(sqs, other, got[0])
    assert sqs.delete_message_batch(QueueUrl=other, Entries=handles)["Successful"] == [{"Id": "0"}, {"Id": "1"}]
    sqs.set_queue_attributes(QueueUrl=other, Attributes={"DelaySeconds": "1"})
    assert shown(sqs, other, "DelaySeconds") == {"DelaySeconds": "1"}
    sqs.add_permission(QueueUrl=other, Label="l", AWSAccountIds=[ACCOUNT], Actions=["SendMessage"])
    sqs.remove_permission(QueueUrl=other, Label="l")
    sqs.tag_queue(QueueUrl=dead, Tags={"b": "2"})
    sqs.untag_queue(QueueUrl=dead, TagKeys=["a"])
    assert sqs.list_queue_tags(QueueUrl=dead)["Tags"] == {"b": "2"}
    page = sqs.list_queues(QueueNamePrefix="audit-", MaxResults=1)
    following = sqs.list_queues(QueueNamePrefix="audit-", MaxResults=1, NextToken=page["NextToken"])
    assert page["QueueUrls"] != following["QueueUrls"]
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead, MaxResults=1, NextToken="")["queueUrls"] == [url]
    sqs.purge_queue(QueueUrl=dead)
    sqs.delete_queue(QueueUrl=other)
    model = sqs.meta.service_model
    wanted = set(model.operation_names)
    for name in model.operation_names:
        wanted.update((name, member) for member in model.operation_model(name).input_shape.members)
    assert wanted - used == set()


def test_digests_are_those_of_an_independent_computation(sqs):
    url = make(sqs, "audit-digests")
    given = {
        "b.Binary": {"DataType": "Binary.gif", "BinaryValue": bytes(range(256))},
        "A": {"DataType": "Number", "StringValue": "12345678901234567890123456789012345678"},
        "é".encode("idna").decode(): {"DataType": "String.ß", "StringValue": "zürich 🗻"},
    }
    sent = send(sqs, url, "körper 🗻", MessageAttributes=given)

    def digest(attributes):
        out = hashlib.md5()
        for name, value in sorted(attributes.items()):
            content = value["BinaryValue"] if "BinaryValue" in value else value["StringValue"].encode()
            for part in (name.encode(), value["DataType"].encode()):
                out.update(struct.pack(">I", len(part)) + part)
            out.update((b"\x02" if "BinaryValue" in value else b"\x01") + struct.pack(">I", len(content)) + content)
        return out.hexdigest()

    assert sent["MD5OfMessageBody"] == hashlib.md5("körper 🗻".encode()).hexdigest()
    assert sent["MD5OfMessageAttributes"] == digest(given)
    (message,) = receive(sqs, url, VisibilityTimeout=0)
    assert (message["MD5OfBody"], message["MD5OfMessageAttributes"]) == (sent["MD5OfMessageBody"], digest(given))
    (message,) = receive(sqs, url, MessageAttributeNames=["b.*"])
    chosen = {"b.Binary": given["b.Binary"]}
    assert (message["MessageAttributes"], message["MD5OfMessageAttributes"]) == (chosen, digest(chosen))


# -- standard queues ---------------------------------------------------------------------------------------------------


def test_visibility_and_handles_of_a_standard_queue(later):
    sqs = later.client("sqs")
    url = make(sqs, "audit-visible", VisibilityTimeout=30)
    send(sqs, url, "x")
    (first,) = receive(sqs, url)
    assert receive(sqs, url) == [] and depths(sqs, url) == (0, 1, 0)
    later.advance(15)
    assert receive(sqs, url) == []
    hide(sqs, url, first, 60)
    later.advance(31)
    assert receive(sqs, url) == [], "it was hidden for longer"
    hide(sqs, url, first, 0)
    (second,) = receive(sqs, url)
    assert second["ReceiptHandle"] != first["ReceiptHandle"]
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    times = [one["Attributes"]["ApproximateFirstReceiveTimestamp"] for one in (first, second)]
    assert times[0] == times[1]
    delete(sqs, url, first)
    assert depths(sqs, url) == (0, 1, 0), "a handle of an earlier receive deletes nothing"
    later.advance(43_100)
    hide(sqs, url, second, 60)
    (third,) = receive(sqs, url, VisibilityTimeout=43_200)
    later.advance(43_100)
    hide(sqs, url, third, 50)
    code, message, _ = refused(hide, sqs=sqs, url=url, message=third, seconds=101)
    assert (code, message) == (VALUE, of("VisibilityTimeout", 101, "Total VisibilityTimeout for the message is beyond "
                                         "the limit [43200 seconds]."))  # fmt: skip
    later.advance(51)
    delete(sqs, url, third)
    assert depths(sqs, url) == (0, 0, 0), "a handle whose time has ended still deletes"
    delete(sqs, url, third)


def test_delays_and_retention(later):
    sqs = later.client("sqs")
    url = make(sqs, "audit-delays", DelaySeconds=10, MessageRetentionPeriod=60)
    send(sqs, url, "queue's")
    send(sqs, url, "own", DelaySeconds=20)
    send(sqs, url, "none", DelaySeconds=0)
    assert bodies(receive(sqs, url, VisibilityTimeout=0)) == ["none"] and depths(sqs, url) == (1, 0, 2)
    later.advance(11)
    assert sorted(bodies(receive(sqs, url, VisibilityTimeout=0))) == ["none", "queue's"]
    later.advance(10)
    assert len(receive(sqs, url)) == 3 and depths(sqs, url) == (0, 3, 0)
    later.advance(40)
    wait_for(lambda: depths(sqs, url) == (0, 0, 0), what="the end of all, in flight or not")


def test_dead_letters_move_on_the_receive_that_would_exceed(later):
    sqs = later.client("sqs")
    dead = make(sqs, "audit-grave", MessageRetentionPeriod=DAY)
    url = make(sqs, "audit-living", RedrivePolicy=redrive("audit-grave", 3), MessageRetentionPeriod=DAY)
    sent = send(sqs, url, "poison")
    for count in range(1, 4):
        (message,) = receive(sqs, url, VisibilityTimeout=5)
        assert message["Attributes"]["ApproximateReceiveCount"] == str(count)
        assert depths(sqs, dead) == (0, 0, 0)
        later.advance(6)
    assert depths(sqs, dead) == (0, 0, 0), "only the receive moves it"
    assert receive(sqs, url) == [] and depths(sqs, dead) == (1, 0, 0) and depths(sqs, url) == (0, 0, 0)
    (letter,) = receive(sqs, dead, VisibilityTimeout=0)
    assert (letter["MessageId"], letter["Body"]) == (sent["MessageId"], "poison")
    assert letter["Attributes"]["DeadLetterQueueSourceArn"] == ARN + "audit-living"
    assert letter["Attributes"]["SentTimestamp"] == message["Attributes"]["SentTimestamp"]
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    later.advance(DAY - 15)
    wait_for(lambda: depths(sqs, dead) == (0, 0, 0), what="its retention, which began with the send")


def test_allow_policies_of_three_kinds(sqs):
    dead = make(sqs, "audit-choosy")
    make(sqs, "audit-friend")
    stranger = make(sqs, "audit-stranger")
    wish = {"RedrivePolicy": json.dumps(redrive("audit-choosy", 2))}
    for policy, welcome in (
        ({"redrivePermission": "denyAll"}, False),
        ({"redrivePermission": "byQueue", "sourceQueueArns": [ARN + "audit-friend"]}, False),
        ({"redrivePermission": "byQueue", "sourceQueueArns": [ARN + "audit-stranger"]}, True),
        ({"redrivePermission": "allowAll"}, True),
    ):
        sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": json.dumps(policy)})
        if welcome:
            sqs.set_queue_attributes(QueueUrl=stranger, Attributes=wish)
        else:
            assert refused(sqs.set_queue_attributes, QueueUrl=stranger, Attributes=wish)[0] == VALUE


def test_a_move_task_has_a_rate_progress_and_an_end(sqs):
    dead = make(sqs, "audit-back-dead")
    url = make(sqs, "audit-back", RedrivePolicy=redrive("audit-back-dead", 1), VisibilityTimeout=0)
    source = ARN + "audit-back-dead"
    for start in range(0, 30, 10):
        batch = [{"Id": str(at), "MessageBody": str(start + at)} for at in range(10)]
        sqs.send_message_batch(QueueUrl=url, Entries=batch)
    while receive(sqs, url):
        continue
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "60"})
    assert refused(sqs.start_message_move_task, SourceArn=ARN + "audit-back")[1] == (
        "Source queue must be configured as a Dead Letter Queue."
    )
    for rate in (0, 501):
        wrong = {"SourceArn": source, "MaxNumberOfMessagesPerSecond": rate}
        assert refused(sqs.start_message_move_task, **wrong)[0] == VALUE
    began = time.monotonic()
    task = sqs.start_message_move_task(SourceArn=source, MaxNumberOfMessagesPerSecond=10)["TaskHandle"]
    code, message, _ = refused(sqs.start_message_move_task, SourceArn=source)
    assert (code, message) == (VALUE, "There is already a task running. Only one active task "
                               "is allowed for a source queue arn at a given time.")  # fmt: skip

    def progress():
        return sqs.list_message_move_tasks(SourceArn=source)["Results"][0]

    wait_for(lambda: progress()["ApproximateNumberOfMessagesMoved"] >= 5, what="some progress")
    running, elapsed = progress(), time.monotonic() - began
    assert running["Status"] == "RUNNING" and running["ApproximateNumberOfMessagesToMove"] == 30
    assert running["ApproximateNumberOfMessagesMoved"] <= 10 * elapsed + 2 and running["TaskHandle"] == task
    moved = sqs.cancel_message_move_task(TaskHandle=task)["ApproximateNumberOfMessagesMoved"]
    ended = progress()
    assert (ended["Status"], ended["ApproximateNumberOfMessagesMoved"]) == ("CANCELLED", moved)
    assert "TaskHandle" not in ended
    assert depths(sqs, dead)[0] == 30 - moved and depths(sqs, url)[0] == moved
    sqs.start_message_move_task(SourceArn=source)
    wait_for(lambda: progress()["Status"] == "COMPLETED", what="the rest")
    back = [message for _ in range(3) for message in receive(sqs, url)]
    assert sorted(map(int, bodies(back))) == list(range(30))
    assert "DeadLetterQueueSourceArn" not in back[0]["Attributes"]


def test_a_purge_once_a_minute_and_a_name_that_rests(later):
    sqs = later.client("sqs")
    url = make(sqs, "audit-purged")
    send(sqs, url, "x")
    sqs.purge_queue(QueueUrl=url)
    assert depths(sqs, url) == (0, 0, 0)
    assert refused(sqs.purge_queue, QueueUrl=url) == (
        PREFIX + "PurgeQueueInProgress",
        "Only one PurgeQueue operation on audit-purged is allowed every 60 seconds.", 403,
    )  # fmt: skip
    later.advance(60)
    sqs.purge_queue(QueueUrl=url)
    sqs.delete_queue(QueueUrl=url)
    assert refused(send, sqs=sqs, url=url, body="x")[0] == PREFIX + "NonExistentQueue"
    assert refused(make, sqs=sqs, name="audit-purged")[0] == PREFIX + "QueueDeletedRecently"
    later.advance(60)
    assert make(sqs, "audit-purged") == url


def test_the_largest_message_and_batch(sqs):
    url = make(sqs, "audit-largest")
    attributes = {"a": {"DataType": "String", "StringValue": "x" * 100}}
    body = "x" * (MIB - 107)
    send(sqs, url, body, MessageAttributes=attributes)
    assert refused(send, sqs=sqs, url=url, body=body + "x", MessageAttributes=attributes)[1] == TOO_LONG
    (message,) = receive(sqs, url)
    assert message["Body"] == body
    half = [{"Id": name, "MessageBody": name * (MIB // 2)} for name in "ab"]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=half)["Successful"]) == 2
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": "1024"})
    wait_for(lambda: "1024" in refused(send, sqs=sqs, url=url, body="x" * 1_025)[1])
    mixed = [{"Id": "small", "MessageBody": "x" * 1_024}, {"Id": "large", "MessageBody": "x" * 1_025}]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=mixed)
    assert [one["Id"] for one in answer["Successful"]] == ["small"]
    assert [one["Id"] for one in answer["Failed"]] == ["large"]


def test_quiet_tenants_are_served_before_the_backlog_of_a_noisy_one(sqs):
    url = make(sqs, "audit-fair")
    for start in range(0, 60, 10):
        batch = [{"Id": str(at), "MessageBody": f"noisy {start + at}", "MessageGroupId": "noisy"} for at in range(10)]
        sqs.send_message_batch(QueueUrl=url, Entries=batch)
    for _ in range(4):
        assert len(receive(sqs, url)) == 10
    for at in range(3):
        send(sqs, url, f"quiet {at}", f"tenant-{at}")
    assert sorted(bodies(receive(sqs, url, 3))) == ["quiet 0", "quiet 1", "quiet 2"]


# -- FIFO queues -------------------------------------------------------------------------------------------------------


def test_order_locks_and_sequence_numbers_of_groups(later):
    sqs = later.client("sqs")
    url = make(sqs, "audit-order.fifo", ContentBasedDeduplication="true")
    numbers = [int(send(sqs, url, f"{group}{at}", group)["SequenceNumber"]) for at in range(3) for group in "ab"]
    assert numbers == sorted(numbers) and len(set(numbers)) == 6 and len(str(numbers[0])) == 20
    (first,) = receive(sqs, url, 1, VisibilityTimeout=30)
    assert first["Body"] == "a0" and int(first["Attributes"]["SequenceNumber"]) == numbers[0]
    rest = receive(sqs, url, VisibilityTimeout=30)
    assert bodies(rest) == ["b0", "b1", "b2"], "group a is locked, b comes in order"
    delete(sqs, url, first)
    assert bodies(receive(sqs, url, VisibilityTimeout=5)) == ["a1", "a2"]
    later.advance(6)
    (again, _) = receive(sqs, url, VisibilityTimeout=30)
    assert again["Body"] == "a1" and again["Attributes"]["ApproximateReceiveCount"] == "2"
    later.advance(31)
    code, message, _ = refused(delete, sqs=sqs, url=url, message=again)
    handle = again["ReceiptHandle"]
    assert (code, message) == (VALUE, of("ReceiptHandle", handle, "The receipt handle has expired."))


def test_deduplication_for_five_minutes_by_content_id_and_group(later):
    sqs = later.client("sqs")
    url = make(sqs, "audit-dedup.fifo", ContentBasedDeduplication="true")
    attributes = {"a": {"DataType": "String", "StringValue": "x"}}
    first = send(sqs, url, "same", "g")
    second = send(sqs, url, "same", "other", MessageAttributes=attributes)
    assert (second["MessageId"], second["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    (message,) = receive(sqs, url)
    assert message["Attributes"]["MessageDeduplicationId"] == hashlib.sha256(b"same").hexdigest()
    delete(sqs, url, message)
    later.advance(270)
    assert send(sqs, url, "same", "g")["MessageId"] == first["MessageId"], "deleted, and still a duplicate"
    assert receive(sqs, url) == []
    later.advance(31)
    assert send(sqs, url, "same", "g")["MessageId"] != first["MessageId"]
    send(sqs, url, "different", "g", MessageDeduplicationId=hashlib.sha256(b"same").hexdigest())
    assert depths(sqs, url)[0] == 1, "an explicit id stands for the content"
    scoped = make(sqs, "audit-scoped.fifo", ContentBasedDeduplication="true", DeduplicationScope="messageGroup",
                  FifoThroughputLimit="perMessageGroupId")  # fmt: skip
    for group in ("a", "b", "a"):
        send(sqs, scoped, "same", group)
    assert depths(sqs, scoped)[0] == 2


def test_a_second_delete_succeeds_whatever_came_after(sqs):
    url = make(sqs, "audit-twice.fifo", ContentBasedDeduplication="true")
    send(sqs, url, "1", "g")
    (message,) = receive(sqs, url)
    delete(sqs, url, message)
    delete(sqs, url, message)
    send(sqs, url, "2", "g")
    delete(sqs, url, message)
    (following,) = receive(sqs, url)
    delete(sqs, url, message)
    answer = sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "a", "ReceiptHandle": message["ReceiptHandle"]}])
    assert [one["Id"] for one in answer["Successful"]] == ["a"]
    assert depths(sqs, url) == (0, 1, 0), "and the other message is still there"
    delete(sqs, url, following)


def test_a_repeated_receive_attempt(later):
    sqs = later.client("sqs")
    url = make(sqs, "audit-attempt.fifo", ContentBasedDeduplication="true", VisibilityTimeout=600)
    send(sqs, url, "1", "g")
    send(sqs, url, "2", "g")
    (first,) = receive(sqs, url, 1, ReceiveRequestAttemptId="a")
    (again,) = receive(sqs, url, 1, ReceiveRequestAttemptId="a")
    assert (again["Body"], again["ReceiptHandle"]) == ("1", first["ReceiptHandle"])
    assert receive(sqs, url, 1, ReceiveRequestAttemptId="b") == []
    later.advance(301)
    assert receive(sqs, url, 1, ReceiveRequestAttemptId="a") == [], "the five minutes are over"


# -- rates, waits, limits ----------------------------------------------------------------------------------------------


def flood(server, url, count, group):
    """How many of `count` sends down one connection at once were taken and how many throttled; `group(n)` of each."""
    head = ("POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Target: AmazonSQS.SendMessage\r\nContent-Type: "
            "application/x-amz-json-1.0\r\n")  # fmt: skip
    requests = []
    for at in range(count):
        body = json.dumps({"QueueUrl": url, "MessageBody": str(at), "MessageGroupId": group(at)})
        requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n{body}")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(30)
        writer = threading.Thread(target=connection.sendall, args=("".join(requests).encode(),))
        writer.start()
        answers = b""
        while answers.count(b"HTTP/1.1 ") < count or not answers.endswith(b"}"):
            answers += connection.recv(65_536)
        writer.join()
    return answers.count(b"HTTP/1.1 200"), answers.count(b"x-amzn-query-error: ThrottlingException;Sender")


def test_request_rates_of_fifo_queues_act_when_they_are_asked_for(fresh_server, aws):
    server = fresh_server("--service-quotas", "enforce")
    sqs = server.client("sqs")
    plain = make(sqs, "rates.fifo", ContentBasedDeduplication="true")
    began = time.monotonic()
    taken, throttled = flood(server, plain, 900, lambda at: str(at % 4))
    assert taken >= 300 and throttled == 900 - taken > 0
    assert taken <= 301 + 300 * (time.monotonic() - began)
    high = make(sqs, "high.fifo", ContentBasedDeduplication="true", DeduplicationScope="messageGroup",
                FifoThroughputLimit="perMessageGroupId")  # fmt: skip
    assert flood(server, high, 900, lambda at: str(at % 4)) == (900, 0), "300 a second for each group"
    taken, throttled = flood(server, high, 900, lambda at: "one")
    assert taken >= 300 and throttled == 900 - taken > 0
    calm = boto3.Session().client("sqs", endpoint_url=server.endpoint, region_name="us-east-1",
                                  aws_access_key_id="t", aws_secret_access_key="t")  # fmt: skip
    assert send(calm, plain, "a retry of the SDK helps", "0")["MessageId"]
    free = make(aws.client("sqs"), "audit-rates.fifo", ContentBasedDeduplication="true")
    assert flood(aws, free, 900, lambda at: "g") == (900, 0), "off unless it is asked for"


def test_a_long_poll_answers_in_milliseconds_and_an_empty_one_at_its_time(sqs, aws):
    url = make(sqs, "audit-poll", ReceiveMessageWaitTimeSeconds=20)
    got = []
    threads = [threading.Thread(target=lambda: got.append((receive(aws.client("sqs"), url), time.monotonic())))]
    threads[0].start()
    time_sent = []

    def sent():
        time_sent.append(time.monotonic())
        return send(sqs, url, "x")

    wait_for(sent)
    threads[0].join(60)
    assert bodies(got[0][0]) == ["x"] and got[0][1] - time_sent[0] < 10
    began = time.monotonic()
    assert receive(sqs, url, WaitTimeSeconds=1) == [] and 0.9 < time.monotonic() - began < 15
    assert sqs.receive_message(QueueUrl=url, WaitTimeSeconds=0).get("Messages") is None


# -- the query protocol ------------------------------------------------------------------------------------------------


def ask(aws, action, path="/", **params):
    """The text of each element of the answer by its name, in order."""
    form = urlencode({"Version": "2012-11-05", "Action": action, **params})
    head = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = aws.get(path, "POST", form.encode(), head)
    found = {}
    for element in ElementTree.fromstring(body).iter():
        found.setdefault(element.tag.rpartition("}")[2], []).append(element.text)
    assert status == 200, found
    return found


def test_the_query_protocol_says_and_does_the_same(aws, sqs):
    setting = {"Attribute.1.Name": "VisibilityTimeout", "Attribute.1.Value": "45"}
    tag = {"Tag.1.Key": "team", "Tag.1.Value": "a"}
    (url,) = ask(aws, "CreateQueue", QueueName="audit-form", **setting, **tag)["QueueUrl"]
    path = "/" + url.split("/", 3)[3]
    assert shown(sqs, url, "VisibilityTimeout") == {"VisibilityTimeout": "45"}
    assert ask(aws, "GetQueueUrl", QueueName="audit-form")["QueueUrl"] == [url]
    assert url in ask(aws, "ListQueues", QueueNamePrefix="audit-form")["QueueUrl"]
    ask(aws, "SetQueueAttributes", path, **{"Attribute.Name": "DelaySeconds", "Attribute.Value": "0"}, **setting)
    known = ask(aws, "GetQueueAttributes", path, **{"AttributeName.1": "All"})
    assert dict(zip(known["Name"], known["Value"], strict=True)) == shown(sqs, url)
    attribute = {"MessageAttribute.1.Name": "k", "MessageAttribute.1.Value.DataType": "Number",
                 "MessageAttribute.1.Value.StringValue": "7"}  # fmt: skip
    sent = ask(aws, "SendMessage", path, MessageBody="<ü & 1>", **attribute)
    assert sent["MD5OfMessageBody"] == [hashlib.md5("<ü & 1>".encode()).hexdigest()]
    entries = {f"SendMessageBatchRequestEntry.{at}.{name}": f"{value}{at}" for at in (1, 2)
               for name, value in (("Id", "e"), ("MessageBody", "b"))}  # fmt: skip
    assert ask(aws, "SendMessageBatch", path, **entries)["Id"] == ["e1", "e2"]
    wish = {"MaxNumberOfMessages": "10", "MessageAttributeName.1": "All", "AttributeName.1": "All"}
    got = ask(aws, "ReceiveMessage", path, **wish)
    assert sorted(got["Body"]) == ["<ü & 1>", "b1", "b2"] and got["StringValue"] == ["7"]
    assert got["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    first, second, third = got["ReceiptHandle"]
    ask(aws, "ChangeMessageVisibility", path, ReceiptHandle=first, VisibilityTimeout="0")
    assert depths(sqs, url) == (1, 2, 0)
    entry = {"ChangeMessageVisibilityBatchRequestEntry.1.Id": "a",
             "ChangeMessageVisibilityBatchRequestEntry.1.ReceiptHandle": second,
             "ChangeMessageVisibilityBatchRequestEntry.1.VisibilityTimeout": "0"}  # fmt: skip
    assert ask(aws, "ChangeMessageVisibilityBatch", path, **entry)["Id"] == ["a"]
    assert depths(sqs, url) == (2, 1, 0)
    ask(aws, "DeleteMessage", path, ReceiptHandle=third)
    entry = {"DeleteMessageBatchRequestEntry.1.Id": "a", "DeleteMessageBatchRequestEntry.1.ReceiptHandle": second}
    assert ask(aws, "DeleteMessageBatch", path, **entry)["Id"] == ["a"]
    assert depths(sqs, url) == (1, 0, 0)
    ask(aws, "TagQueue", path, **{"Tag.1.Key": "more", "Tag.1.Value": "b"})
    ask(aws, "UntagQueue", path, **{"TagKey.1": "team"})
    assert ask(aws, "ListQueueTags", path)["Key"] == ["more"]
    ask(aws, "PurgeQueue", path)
    assert depths(sqs, url) == (0, 0, 0)
    ask(aws, "DeleteQueue", path)
    assert refused(shown, sqs=sqs, url=url)[0] == PREFIX + "NonExistentQueue"

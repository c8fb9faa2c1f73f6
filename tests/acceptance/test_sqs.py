"""SQS over a socket: boto3, the query protocol, policies in force, a server that dies, many receives that wait."""

import hashlib
import json
import socket
import threading
import time
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_iam_enforced import EnforcedServer
from tests.support.server import wait_for

NS = "{http://queue.amazonaws.com/doc/2012-11-05/}"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PARKED = 500


@pytest.fixture
def sqs(aws):
    return aws.client("sqs")


def make(sqs, name, **attributes):
    return sqs.create_queue(QueueName=name, Attributes={key: str(value) for key, value in attributes.items()})[
        "QueueUrl"
    ]


def attributes(sqs, url, *names):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names) or ["All"]).get("Attributes", {})


def arn(sqs, url):
    return attributes(sqs, url, "QueueArn")["QueueArn"]


def depths(sqs, url):
    found = attributes(sqs, url)
    return tuple(int(found["ApproximateNumberOfMessages" + part]) for part in ("", "NotVisible", "Delayed"))


def receive(sqs, url, **params):
    return sqs.receive_message(QueueUrl=url, **{"MaxNumberOfMessages": 10, **params}).get("Messages", [])


def test_message_and_system_attributes_with_their_digests(sqs):
    url = make(sqs, "sqs-attributes")
    given = {
        "amount": {"DataType": "Number.float", "StringValue": "-1.5e3"},
        "raw": {"DataType": "Binary.png", "BinaryValue": b"\x00\xff\x89"},
        "name": {"DataType": "String", "StringValue": "übung"},
    }
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
    sent = sqs.send_message(
        QueueUrl=url, MessageBody="hello", MessageAttributes=given, MessageSystemAttributes=trace
    )
    assert sent["MD5OfMessageBody"] == hashlib.md5(b"hello").hexdigest()
    packed = b""
    for name, kind, mark, value in (
        (b"amount", b"Number.float", b"\x01", b"-1.5e3"),
        (b"name", b"String", b"\x01", "übung".encode()),
        (b"raw", b"Binary.png", b"\x02", b"\x00\xff\x89"),
    ):
        packed += b"".join(len(part).to_bytes(4, "big") + part for part in (name, kind))
        packed += mark + len(value).to_bytes(4, "big") + value
    assert sent["MD5OfMessageAttributes"] == hashlib.md5(packed).hexdigest()
    assert len(sent["MD5OfMessageSystemAttributes"]) == 32
    (message,) = receive(sqs, url, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == given
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["Attributes"]["AWSTraceHeader"] == trace["AWSTraceHeader"]["StringValue"]


def test_errors_have_both_codes(aws, sqs):
    with pytest.raises(ClientError) as caught:
        sqs.get_queue_url(QueueName="sqs-nobody")
    error = caught.value.response
    assert error["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert error["Error"]["QueryErrorCode"] == "QueueDoesNotExist"
    headers = error["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-query-error"] == "AWS.SimpleQueueService.NonExistentQueue;Sender"
    with pytest.raises(sqs.exceptions.ResourceNotFoundException) as caught:
        sqs.start_message_move_task(SourceArn="arn:aws:sqs:us-east-1:000000000000:sqs-nobody")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert caught.value.response["Error"]["Message"] == (
        "The resource that you specified for the SourceArn parameter doesn't exist."
    )


def ask(aws, **params):
    status, _, body = aws.get("/", "POST", urlencode({"Version": "2012-11-05", **params}).encode(), FORM)
    return status, ElementTree.fromstring(body)


def test_move_tasks_and_permissions_over_the_query_protocol(aws, sqs):
    dead = make(sqs, "sqs-form-dead")
    redrive = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": 1})
    url = make(sqs, "sqs-form", RedrivePolicy=redrive, VisibilityTimeout=0)
    status, _ = ask(
        aws, Action="AddPermission", QueueUrl=url, Label="l", **{
            "AWSAccountId.1": "111111111111", "ActionName.1": "SendMessage", "ActionName.2": "ReceiveMessage",
        }
    )  # fmt: skip
    assert status == 200
    (statement,) = json.loads(attributes(sqs, url)["Policy"])["Statement"]
    assert statement["Action"] == ["SQS:SendMessage", "SQS:ReceiveMessage"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert receive(sqs, url) and not receive(sqs, url)
    status, root = ask(aws, Action="StartMessageMoveTask", SourceArn=arn(sqs, dead), MaxNumberOfMessagesPerSecond="5")
    assert status == 200 and root.find(f"{NS}StartMessageMoveTaskResult/{NS}TaskHandle").text

    def done():
        _, root = ask(aws, Action="ListMessageMoveTasks", SourceArn=arn(sqs, dead))
        (found,) = root.findall(f"{NS}ListMessageMoveTasksResult/{NS}ListMessageMoveTasksResultEntry")
        return found if found.find(NS + "Status").text == "COMPLETED" else None

    entry = wait_for(done, what="the move task")
    assert entry.find(NS + "ApproximateNumberOfMessagesMoved").text == "1"
    assert depths(sqs, url) == (1, 0, 0)
    status, root = ask(aws, Action="GetQueueUrl", QueueName="sqs-form-none")
    assert root.find(f"{NS}Error/{NS}Message").text == "The specified queue does not exist for this wsdl version."
    status, root = ask(aws, Action="PurgeQueue", QueueUrl=url)
    status, root = ask(aws, Action="PurgeQueue", QueueUrl=url)
    assert status == 403 and root.find(f"{NS}Error/{NS}Code").text == "AWS.SimpleQueueService.PurgeQueueInProgress"


def test_a_fifo_queue_through_a_retry(sqs):
    url = make(sqs, "sqs-retry.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for body in "abc":
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId="g")
    first = receive(sqs, url, ReceiveRequestAttemptId="one", MaxNumberOfMessages=2)
    again = receive(sqs, url, ReceiveRequestAttemptId="one", MaxNumberOfMessages=2)
    assert [message["Body"] for message in first] == ["a", "b"] and again == first
    for message in again:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert [message["Body"] for message in receive(sqs, url)] == ["c"]


def test_tags_and_names(sqs):
    url = sqs.create_queue(QueueName="sqs-tags", tags={"a": "1"})["QueueUrl"]
    sqs.tag_queue(QueueUrl=url, Tags={"b": "2"})
    sqs.untag_queue(QueueUrl=url, TagKeys=["a"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "2"}
    sqs.delete_queue(QueueUrl=url)
    with pytest.raises(sqs.exceptions.QueueDeletedRecently):
        make(sqs, "sqs-tags")


def test_a_killed_server_goes_on_with_a_move_task(fresh_server):
    server = fresh_server()
    sqs = server.client("sqs")
    dead = make(sqs, "dead")
    redrive = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": 1})
    url = make(sqs, "q", RedrivePolicy=redrive, VisibilityTimeout=0)
    for start in range(0, 60, 10):
        entries = [{"Id": str(number), "MessageBody": str(start + number)} for number in range(10)]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)
    while receive(sqs, url):
        continue
    assert depths(sqs, dead) == (60, 0, 0)
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "60"})
    sqs.start_message_move_task(SourceArn=arn(sqs, dead), MaxNumberOfMessagesPerSecond=60)
    source = arn(sqs, dead)

    def moved():
        return sqs.list_message_move_tasks(SourceArn=source)["Results"][0]["ApproximateNumberOfMessagesMoved"]

    wait_for(lambda: moved() >= 5, what="some progress")
    server.kill()
    server.start()
    wait_for(lambda: moved() == 60, what="the rest")
    assert depths(sqs, dead) == (0, 0, 0)
    bodies = [message["Body"] for _ in range(6) for message in receive(sqs, url)]
    assert sorted(map(int, bodies)) == list(range(60)), "each once"


def test_a_queue_policy_is_enforced(tmp_path):
    server = EnforcedServer(tmp_path / "state").start()
    try:
        sqs = server.client("sqs")
        url = make(sqs, "guarded")
        server.user("ann")
        key = server.client("iam").create_access_key(UserName="ann")["AccessKey"]
        ann = server.client("sqs", (key["AccessKeyId"], key["SecretAccessKey"]))
        with pytest.raises(ClientError, match="not authorized"):
            ann.send_message(QueueUrl=url, MessageBody="x")
        sqs.add_permission(QueueUrl=url, Label="all", AWSAccountIds=["000000000000"], Actions=["SendMessage"])
        statement = {
            "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:user/ann"}, "Action": "sqs:SendMessage",
            "Resource": arn(sqs, url),
        }  # fmt: skip
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        ann.send_message(QueueUrl=url, MessageBody="x")
        with pytest.raises(ClientError, match="not authorized"):
            ann.receive_message(QueueUrl=url)
        with pytest.raises(ClientError, match="not authorized"):
            ann.start_message_move_task(SourceArn=arn(sqs, url))
        with pytest.raises(ClientError, match="not authorized"):
            ann.add_permission(QueueUrl=url, Label="b", AWSAccountIds=["000000000000"], Actions=["*"])
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
        with pytest.raises(ClientError, match="not authorized"):
            ann.send_message(QueueUrl=url, MessageBody="x")
    finally:
        server.stop()


# -- long polls --------------------------------------------------------------------------------------------------------


def cpu_s(server):
    """Processor seconds of the server so far."""
    with open(f"/proc/{server.process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def park(server, url):
    """A connection on which a receive waits for 20 seconds."""
    body = json.dumps({"QueueUrl": url, "WaitTimeSeconds": 20}).encode()
    head = (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX-Amz-Target: AmazonSQS.ReceiveMessage\r\n"
        f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(30)
    connection.sendall(head.encode() + body)
    return connection


def test_waiting_receives_cost_nothing_and_wake_in_milliseconds(fresh_server):
    server = fresh_server()
    sqs = server.client("sqs")
    url = make(sqs, "polled")
    parked = [park(server, url) for _ in range(PARKED)]
    try:
        wait_for(lambda: sqs.get_queue_url(QueueName="polled"), what="an answer behind the receives")
        idle_from, began = cpu_s(server), time.monotonic()
        wait_for(lambda: time.monotonic() - began > 1, what="a second")
        assert cpu_s(server) - idle_from < 0.1
        plain, took = [], []
        for number in range(20):
            asked = time.perf_counter()
            sqs.get_queue_url(QueueName="polled")
            sent = time.perf_counter()
            plain.append(sent - asked)
            sqs.send_message(QueueUrl=url, MessageBody=str(number))
            answer = parked[number].recv(4_096).decode()
            took.append(time.perf_counter() - sent)
            assert f'"Body":"{number}"' in answer, "the longest waiting comes first"
        assert sorted(took)[10] < 10 * sorted(plain)[10], "a receive that waits is answered as soon as a send"
    finally:
        for connection in parked:
            connection.close()


def test_a_receive_whose_client_went_away_takes_no_message(sqs, aws):
    url = make(sqs, "sqs-gone")
    gone = park(aws, url)
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(receive(aws.client("sqs"), url, WaitTimeSeconds=20)))
    thread.start()
    gone.close()
    wait_for(lambda: sqs.get_queue_url(QueueName="sqs-gone"), what="the server has seen the end")
    sqs.send_message(QueueUrl=url, MessageBody="for the living")
    thread.join(60)
    assert [message["Body"] for message in answers] == ["for the living"]

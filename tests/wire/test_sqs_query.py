"""SQS over its older query protocol, whose names the current model no longer carries."""

from datetime import UTC, datetime
from urllib.parse import urlencode
from xml.etree import ElementTree

from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest
from preheat.wire import Wire

WIRE = Wire()
NS = "{http://queue.amazonaws.com/doc/2012-11-05/}"
QUEUE = "http://127.0.0.1:4566/000000000000/jobs"
HEADERS = {"host": "127.0.0.1:4566", "content-type": "application/x-www-form-urlencoded"}


def request(**params: str) -> HttpRequest:
    return HttpRequest("POST", "/", HEADERS, urlencode({"Version": "2012-11-05", **params}).encode())


def ask(**params: str) -> Call:
    return WIRE.understand(request(**params))


def test_maps_and_lists_have_their_older_names() -> None:
    attributes = {"Attribute.1.Name": "DelaySeconds", "Attribute.1.Value": "5", "Tag.1.Key": "a", "Tag.1.Value": "b"}
    call = ask(Action="CreateQueue", QueueName="jobs", **attributes)
    assert call.params == {"QueueName": "jobs", "Attributes": {"DelaySeconds": "5"}, "tags": {"a": "b"}}
    names = {"AttributeName.1": "All", "AttributeName.2": "Policy", "MessageAttributeName.1": ".*"}
    call = ask(Action="ReceiveMessage", QueueUrl=QUEUE, MaxNumberOfMessages="3", **names)
    assert call.params == {
        "QueueUrl": QUEUE, "MaxNumberOfMessages": 3, "AttributeNames": ["All", "Policy"],
        "MessageAttributeNames": [".*"],
    }  # fmt: skip


def test_message_attributes_and_batches() -> None:
    entry = "SendMessageBatchRequestEntry.{}"
    params = {}
    for number in range(1, 12):
        start = entry.format(number)
        params |= {f"{start}.Id": str(number), f"{start}.MessageBody": f"body {number}"}
    params[entry.format(2) + ".MessageAttribute.1.Name"] = "raw"
    params[entry.format(2) + ".MessageAttribute.1.Value.DataType"] = "Binary"
    params[entry.format(2) + ".MessageAttribute.1.Value.BinaryValue"] = "AP8="
    call = ask(Action="SendMessageBatch", QueueUrl=QUEUE, **params)
    entries = call.params["Entries"]
    assert [item["Id"] for item in entries] == [str(number) for number in range(1, 12)]
    assert entries[1]["MessageAttributes"] == {"raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}


def test_answers_are_flat_xml() -> None:
    call = ask(Action="ReceiveMessage", QueueUrl=QUEUE)
    message = {
        "MessageId": "m", "Body": "<hello & bye>", "Attributes": {"SentTimestamp": "1", "SenderId": "x"},
        "MessageAttributes": {"raw": {"DataType": "Binary", "BinaryValue": b"\x00"}},
    }  # fmt: skip
    response = WIRE.reply(call, {"Messages": [message, message]}, "rid")
    root = ElementTree.fromstring(response.body)
    assert root.tag == NS + "ReceiveMessageResponse"
    assert root.find(f"{NS}ResponseMetadata/{NS}RequestId").text == "rid"
    found = root.findall(f"{NS}ReceiveMessageResult/{NS}Message")
    assert len(found) == 2
    assert found[0].find(NS + "Body").text == "<hello & bye>"
    pairs = [(item.find(NS + "Name").text, item.find(NS + "Value").text) for item in found[0].findall(NS + "Attribute")]
    assert pairs == [("SentTimestamp", "1"), ("SenderId", "x")]
    assert found[0].find(f"{NS}MessageAttribute/{NS}Value/{NS}BinaryValue").text == "AA=="


def test_an_operation_without_output_has_metadata_alone() -> None:
    root = ElementTree.fromstring(WIRE.reply(ask(Action="PurgeQueue", QueueUrl=QUEUE), {}, "rid").body)
    assert [child.tag for child in root] == [NS + "ResponseMetadata"]


def test_errors_have_the_older_code() -> None:
    asked = request(Action="GetQueueUrl", QueueName="q")
    error = AwsError("QueueDoesNotExist", "No.", query_code="AWS.SimpleQueueService.NonExistentQueue")
    root = ElementTree.fromstring(WIRE.error(WIRE.understand(asked), asked, error, "rid").body)
    texts = {child.tag.removeprefix(NS): child.text for child in root.find(NS + "Error")}
    code = "AWS.SimpleQueueService.NonExistentQueue"
    assert texts == {"Type": "Sender", "Code": code, "Message": "No.", "Detail": None}
    assert root.find(NS + "RequestId").text == "rid"


def test_timestamps_of_other_query_services() -> None:
    params = {"StartTime": "2026-03-01T00:00:00Z", "AlarmName": "a"}
    body = urlencode({"Action": "DescribeAlarmHistory", "Version": "2010-08-01", **params, "StartDate": "1767225600"})
    call = WIRE.understand(HttpRequest("POST", "/", HEADERS, body.encode()))
    assert call.params == {"AlarmName": "a", "StartDate": datetime(2026, 1, 1, tzinfo=UTC)}

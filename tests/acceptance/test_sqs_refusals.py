"""What SQS refuses: both codes, the exact words where they are known, and nothing is written."""

import json
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest

from tests.support.queues import MIB, PREFIX, VALUE, make, of, receive, redrive, refused, send, shown

NS = "{http://queue.amazonaws.com/doc/2012-11-05/}"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ACCOUNT = "111111111111"
TOO_LONG = "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes."
PUNCTUATION = "{} can only include alphanumeric and punctuation characters. 1 to 128 in length."
WRONG_TYPE = "The request include parameter that is not valid for this queue type."
ENTRY_ID = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 "
NO_DEDUPLICATION = (
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
)


@pytest.fixture
def sqs(aws):
    return aws.client("sqs")


def entries(*ids):
    return [{"Id": name, "MessageBody": "x"} for name in ids]


BAD_HANDLE = 'The input receipt handle "x" is not a valid receipt handle.'
ABSENT = "The specified queue does not exist."
REFUSALS = (
    ("receive_message", {"MaxNumberOfMessages": 11}, VALUE,
     of("MaxNumberOfMessages", 11, "Must be between 1 and 10, if provided.")),
    ("receive_message", {"MaxNumberOfMessages": 0}, VALUE,
     of("MaxNumberOfMessages", 0, "Must be between 1 and 10, if provided.")),
    ("receive_message", {"WaitTimeSeconds": 21}, VALUE,
     of("WaitTimeSeconds", 21, "Must be >= 0 and <= 20, if provided.")),
    ("receive_message", {"WaitTimeSeconds": -1}, VALUE,
     of("WaitTimeSeconds", -1, "Must be >= 0 and <= 20, if provided.")),
    ("receive_message", {"VisibilityTimeout": 43_201}, VALUE,
     of("VisibilityTimeout", 43_201, "Must be >= 0 and <= 43200, if provided.")),
    ("receive_message", {"AttributeNames": ["Colour"]}, "InvalidAttributeName", "Unknown Attribute Colour."),
    ("receive_message", {"ReceiveRequestAttemptId": "a"}, VALUE, of("ReceiveRequestAttemptId", "a", WRONG_TYPE)),
    ("send_message", {"MessageBody": ""}, "MissingParameter", "The request must contain the parameter MessageBody."),
    ("send_message", {"MessageBody": "x" * (MIB + 1)}, VALUE, TOO_LONG),
    ("send_message", {"MessageBody": "\x08"}, "InvalidMessageContents", None),
    ("send_message", {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "String", "StringValue": "\x1f"}}},
     VALUE, None),
    ("send_message", {"MessageBody": "x", "DelaySeconds": 901}, VALUE,
     of("DelaySeconds", 901, "DelaySeconds must be >= 0 and <= 900.")),
    ("send_message", {"MessageBody": "x", "MessageDeduplicationId": "d"}, VALUE,
     of("MessageDeduplicationId", "d", WRONG_TYPE)),
    ("send_message", {"MessageBody": "x", "MessageGroupId": "a b"}, VALUE,
     of("MessageGroupId", "a b", PUNCTUATION.format("MessageGroupId"))),
    ("send_message", {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "String", "StringValue": ""}}},
     VALUE, "Message (user) attribute 'a' must contain a non-empty value of type 'String'."),
    ("send_message", {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "Number", "StringValue": "1" * 39}}},
     VALUE, "Can't cast the value of message (user) attribute 'a' to a number."),
    ("send_message", {"MessageBody": "x", "MessageAttributes": {"a": {"DataType": "Number", "StringValue": "1e127"}}},
     VALUE, "Can't cast the value of message (user) attribute 'a' to a number."),
    ("send_message", {"MessageBody": "x", "MessageAttributes": {"AWS.a": {"DataType": "String", "StringValue": "x"}}},
     VALUE, None),
    ("send_message", {"MessageBody": "x", "MessageAttributes": {
        f"a{n}": {"DataType": "String", "StringValue": "x"} for n in range(11)}},
     VALUE, "Number of message attributes [11] exceeds the allowed maximum [10]."),
    ("send_message_batch", {"Entries": []}, PREFIX + "EmptyBatchRequest",
     "There should be at least one SendMessageBatchRequestEntry in the request."),
    ("send_message_batch", {"Entries": entries(*map(str, range(11)))}, PREFIX + "TooManyEntriesInBatchRequest",
     "Maximum number of entries per request are 10. You have sent 11."),
    ("send_message_batch", {"Entries": entries("a", "a")}, PREFIX + "BatchEntryIdsNotDistinct", "Id a repeated."),
    ("send_message_batch", {"Entries": entries("a b")}, PREFIX + "InvalidBatchEntryId", ENTRY_ID + "letters long."),
    ("send_message_batch", {"Entries": entries("a" * 81)}, PREFIX + "InvalidBatchEntryId", ENTRY_ID + "letters long."),
    ("send_message_batch", {"Entries": [
        {"Id": "a", "MessageBody": "x" * (MIB // 2)}, {"Id": "b", "MessageBody": "x" * (MIB // 2 + 1)}]},
     PREFIX + "BatchRequestTooLong", f"Batch requests cannot be longer than {MIB} bytes. You have sent {MIB + 1} "
     "bytes."),
    ("delete_message_batch", {"Entries": []}, PREFIX + "EmptyBatchRequest", None),
    ("change_message_visibility_batch", {"Entries": []}, PREFIX + "EmptyBatchRequest", None),
    ("delete_message", {"ReceiptHandle": "x"}, "ReceiptHandleIsInvalid", BAD_HANDLE),
    ("change_message_visibility", {"ReceiptHandle": "x", "VisibilityTimeout": 1}, "ReceiptHandleIsInvalid", BAD_HANDLE),
    ("get_queue_attributes", {"AttributeNames": ["Colour"]}, "InvalidAttributeName", "Unknown Attribute Colour."),
    ("set_queue_attributes", {"Attributes": {"VisibilityTimeout": "43201"}}, "InvalidAttributeValue",
     "Invalid value for the parameter VisibilityTimeout."),
    ("set_queue_attributes", {"Attributes": {"MessageRetentionPeriod": "59"}}, "InvalidAttributeValue",
     "Invalid value for the parameter MessageRetentionPeriod."),
    ("set_queue_attributes", {"Attributes": {"MaximumMessageSize": "1023"}}, "InvalidAttributeValue",
     "Invalid value for the parameter MaximumMessageSize."),
    ("set_queue_attributes", {"Attributes": {"FifoQueue": "true"}}, "InvalidAttributeName",
     "Unknown Attribute FifoQueue."),
    ("set_queue_attributes", {"Attributes": {"DeduplicationScope": "queue"}}, "InvalidAttributeName",
     "You can specify the DeduplicationScope only when FifoQueue is set to true."),
    ("set_queue_attributes", {"Attributes": {"RedrivePolicy": json.dumps(redrive("audit-nobody", 1))}}, VALUE,
     of("RedrivePolicy", json.dumps(redrive("audit-nobody", 1)), "Dead letter target does not exist.")),
    ("set_queue_attributes", {"Attributes": {"RedrivePolicy": json.dumps(redrive("audit-nobody", 1001))}}, VALUE,
     of("RedrivePolicy", json.dumps(redrive("audit-nobody", 1001)),
        "Invalid value for maxReceiveCount: 1001, valid values are from 1 to 1000 both inclusive.")),
    ("set_queue_attributes", {"Attributes": {"RedrivePolicy": '{"maxReceiveCount":1}'}}, VALUE,
     of("RedrivePolicy", '{"maxReceiveCount":1}',
        "Redrive policy does not contain mandatory attribute: deadLetterTargetArn.")),
    ("set_queue_attributes", {"Attributes": {"RedrivePolicy": json.dumps({
        "deadLetterTargetArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:audit-errors", "maxReceiveCount": 1})}}, VALUE, None),
    ("set_queue_attributes", {"Attributes": {"RedriveAllowPolicy": '{"redrivePermission":"byQueue"}'}},
     "InvalidAttributeValue", None),
    ("set_queue_attributes", {"Attributes": {"SqsManagedSseEnabled": "true", "KmsMasterKeyId": "alias/aws/sqs"}},
     "InvalidAttributeName", "You can use one type of server-side encryption (SSE) at one time. You can either enable "
     "KMS SSE or SQS SSE."),
    ("set_queue_attributes", {"Attributes": {"Policy": "{"}}, "InvalidAttributeValue",
     "Invalid value for the parameter Policy."),
    ("tag_queue", {"Tags": {f"k{n}": "v" for n in range(51)}}, VALUE, None),
    ("tag_queue", {"Tags": {"k" * 129: "v"}}, VALUE, None),
    ("tag_queue", {"Tags": {"aws:k": "v"}}, VALUE, None),
    ("tag_queue", {"Tags": {"k": "v" * 257}}, VALUE, None),
    ("add_permission", {"Label": "l", "AWSAccountIds": [ACCOUNT], "Actions": ["CreateQueue"]}, VALUE,
     of("ActionName", "SQS:CreateQueue", "Only the queue owner is allowed to invoke this action.")),
    ("remove_permission", {"Label": "nobody"}, VALUE, of("Label", "nobody", "can't find label.")),
)  # fmt: skip


@pytest.mark.parametrize("at", range(len(REFUSALS)))
def test_refusals(sqs, at):
    call, params, code, message = REFUSALS[at]
    url = make(sqs, "audit-errors")
    before = shown(sqs, url, "All"), sqs.list_queue_tags(QueueUrl=url).get("Tags")
    found = refused(getattr(sqs, call), QueueUrl=url, **params)
    assert found[0] == code and found[2] in (400, 404)
    assert message is None or found[1] == message
    assert (shown(sqs, url, "All"), sqs.list_queue_tags(QueueUrl=url).get("Tags")) == before, "nothing was written"


def test_refusals_of_fifo_queues(sqs):
    url = make(sqs, "audit-errors.fifo")
    assert refused(send, sqs=sqs, url=url, body="x")[:2] == (
        "MissingParameter", "The request must contain the parameter MessageGroupId."
    )  # fmt: skip
    assert refused(send, sqs=sqs, url=url, body="x", group="g")[:2] == (VALUE, NO_DEDUPLICATION)
    assert refused(send, sqs=sqs, url=url, body="x", group="g", MessageDeduplicationId="d", DelaySeconds=2)[:2] == (
        VALUE, of("DelaySeconds", 2, WRONG_TYPE)
    )  # fmt: skip
    unfit = {"DeduplicationScope": "queue", "FifoThroughputLimit": "perMessageGroupId"}
    assert refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=unfit)[0] == "InvalidAttributeValue"
    standard = {"RedrivePolicy": json.dumps(redrive("audit-errors", 3))}
    make(sqs, "audit-errors")
    assert refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=standard)[1].endswith(
        "Dead-letter queue must be same type of queue as the source."
    )
    batch = [{"Id": "good", "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "1"},
             {"Id": "bad", "MessageBody": "x", "MessageDeduplicationId": "2"}]  # fmt: skip
    assert refused(sqs.send_message_batch, QueueUrl=url, Entries=batch)[:2] == (
        VALUE, "The request must contain the parameter MessageGroupId."
    )  # fmt: skip
    assert receive(sqs, url) == [], "a batch that is refused sends nothing"


NAMES = ("", "a b", "a.fifo", "ä", "a" * 81, "a/b")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_refused(sqs, name):
    code, message, _ = refused(sqs.create_queue, QueueName=name)
    assert (code, message) == (
        VALUE, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
    )  # fmt: skip


def test_creating_again_with_the_same_or_defaulted_attributes_gives_the_same_queue(sqs):
    url = make(sqs, "audit-again", VisibilityTimeout="045")
    assert shown(sqs, url, "VisibilityTimeout") == {"VisibilityTimeout": "45"}
    for same in ({}, {"VisibilityTimeout": 45}, {"DelaySeconds": 0}, {"SqsManagedSseEnabled": "true"}):
        assert make(sqs, "audit-again", **same) == url
    code, message, _ = refused(make, sqs=sqs, name="audit-again", VisibilityTimeout=46)
    assert (code, message) == ("QueueAlreadyExists", "A queue already exists with the same name and a different value "
                               "for attribute VisibilityTimeout")  # fmt: skip
    fifo = make(sqs, "audit-again.fifo")
    assert make(sqs, "audit-again.fifo", ContentBasedDeduplication="false", FifoThroughputLimit="perQueue") == fifo
    assert refused(make, sqs=sqs, name="audit-again.fifo", ContentBasedDeduplication="true")[0] == "QueueAlreadyExists"


@pytest.mark.parametrize("over_form", (False, True))
def test_errors_of_both_protocols(aws, over_form):
    if over_form:
        form = {"Version": "2012-11-05", "Action": "GetQueueUrl", "QueueName": "audit-nobody"}
        status, headers, body = aws.get("/", "POST", urlencode(form).encode(), FORM)
        error = ElementTree.fromstring(body).find(f"{NS}Error")
        assert error.findtext(f"{NS}Code") == PREFIX + "NonExistentQueue"
        assert error.findtext(f"{NS}Type") == "Sender"
        assert error.findtext(f"{NS}Message") == "The specified queue does not exist for this wsdl version."
    else:
        head = {"X-Amz-Target": "AmazonSQS.GetQueueUrl", "Content-Type": "application/x-amz-json-1.0"}
        status, headers, body = aws.get("/", "POST", b'{"QueueName":"audit-nobody"}', head)
        assert json.loads(body) == {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": ABSENT}
        assert headers["x-amzn-query-error"] == PREFIX + "NonExistentQueue;Sender"
    assert status == 400

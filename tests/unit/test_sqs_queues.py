"""Queues and messages in process: attributes that exclude each other, permissions, names, sizes, visibility, purges."""

import json

import pytest

from tests.unit.test_sqs import arn, depths, make, receive, refused, sqs

__all__ = ["sqs"]


def attributes(sqs, url, *names):
    return sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=list(names) or ["All"]).get("Attributes", {})


def policy(sqs, url):
    text = attributes(sqs, url).get("Policy")
    return None if text is None else json.loads(text)


# -- permissions -------------------------------------------------------------------------------------------------------


def test_permissions_are_statements_of_the_policy(sqs):
    url = make(sqs)
    sqs("AddPermission", QueueUrl=url, Label="one", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    accounts = ["111111111111", "222222222222"]
    sqs("AddPermission", QueueUrl=url, Label="two", AWSAccountIds=accounts, Actions=["ReceiveMessage", "DeleteMessage"])
    assert policy(sqs, url) == {
        "Version": "2008-10-17",
        "Id": f"{arn(sqs, url)}/SQSDefaultPolicy",
        "Statement": [
            {
                "Sid": "one", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
                "Action": "SQS:SendMessage", "Resource": arn(sqs, url),
            },
            {
                "Sid": "two", "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam::{account}:root" for account in accounts]},
                "Action": ["SQS:ReceiveMessage", "SQS:DeleteMessage"], "Resource": arn(sqs, url),
            },
        ],
    }  # fmt: skip
    again = {"QueueUrl": url, "Label": "one", "AWSAccountIds": ["111111111111"], "Actions": ["*"]}
    assert refused(sqs, "AddPermission", **again).message == (
        "Value one for parameter Label is invalid. Reason: Already exists."
    )
    sqs("RemovePermission", QueueUrl=url, Label="one")
    assert [statement["Sid"] for statement in policy(sqs, url)["Statement"]] == ["two"]
    assert refused(sqs, "RemovePermission", QueueUrl=url, Label="one").message == (
        "Value one for parameter Label is invalid. Reason: can't find label."
    )
    sqs("RemovePermission", QueueUrl=url, Label="two")
    assert policy(sqs, url) is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Label": "not good"}, "InvalidParameterValue"),
        ({"Actions": ["DeleteQueue"]}, "InvalidParameterValue"),
        ({"Actions": ["Nonsense"]}, "InvalidParameterValue"),
        ({"Actions": ["SendMessage"] * 8}, "OverLimit"),
        ({"Actions": []}, "MissingParameter"),
        ({"AWSAccountIds": ["1"]}, "InvalidParameterValue"),
        ({"AWSAccountIds": []}, "InvalidParameterValue"),
    ],
)
def test_permissions_that_are_refused(sqs, change, code):
    url = make(sqs)
    good = {"Label": "l", "AWSAccountIds": ["111111111111"], "Actions": ["SendMessage"]}
    assert refused(sqs, "AddPermission", QueueUrl=url, **good | change).query_code == code
    assert policy(sqs, url) is None


@pytest.mark.parametrize(
    "document",
    [
        "nonsense",
        "[]",
        "{}",
        '{"Statement": [{"Effect": "Maybe", "Principal": "*", "Action": "sqs:*", "Resource": "*"}]}',
        '{"Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}]}',
        '{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}]}',
        '{"Version": "2020-01-01", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sqs:*"}]}',
    ],
)
def test_policies_that_are_refused(sqs, document):
    url = make(sqs)
    error = refused(sqs, "SetQueueAttributes", QueueUrl=url, Attributes={"Policy": document})
    assert (error.code, error.message) == ("InvalidAttributeValue", "Invalid value for the parameter Policy.")


# -- encryption --------------------------------------------------------------------------------------------------------


def test_one_kind_of_encryption_at_a_time(sqs):
    url = make(sqs)
    assert attributes(sqs, url)["SqsManagedSseEnabled"] == "true"
    assert "KmsDataKeyReusePeriodSeconds" not in attributes(sqs, url)
    both = {"SqsManagedSseEnabled": "true", "KmsMasterKeyId": "alias/aws/sqs"}
    error = refused(sqs, "SetQueueAttributes", QueueUrl=url, Attributes=both)
    assert error.code == "InvalidAttributeName" and error.message.startswith("You can use one type of server-side")
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"KmsMasterKeyId": "alias/aws/sqs"})
    found = attributes(sqs, url)
    assert (found["SqsManagedSseEnabled"], found["KmsDataKeyReusePeriodSeconds"]) == ("false", "300")
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"SqsManagedSseEnabled": "true"})
    assert "KmsMasterKeyId" not in attributes(sqs, url)
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"SqsManagedSseEnabled": "false"})
    assert attributes(sqs, url, "SqsManagedSseEnabled") == {"SqsManagedSseEnabled": "false"}


# -- names and lives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("a" * 81, {}, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"),
        ("a.b", {}, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"),
        ("", {}, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"),
        ("a.fifo", {}, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"),
        ("a", {"FifoQueue": "true"}, "The name of a FIFO queue can only include alphanumeric characters, hyphens, or "
         "underscores, must end with .fifo suffix and be 1 to 80 in length."),
    ],
)  # fmt: skip
def test_names_that_are_refused(sqs, name, settings, message):
    assert refused(sqs, "CreateQueue", QueueName=name, Attributes=settings).message == message


def test_a_name_rests_for_a_minute_after_its_queue(sqs):
    url = make(sqs)
    sqs("SendMessage", QueueUrl=url, MessageBody="old")
    sqs("DeleteQueue", QueueUrl=url)
    sqs.world.advance(59)
    error = refused(sqs, "CreateQueue", QueueName="q")
    assert error.query_code == "AWS.SimpleQueueService.QueueDeletedRecently"
    assert error.message == (
        "You must wait 60 seconds after deleting a queue before you can create another with the same name."
    )
    sqs.world.advance(1)
    assert depths(sqs, make(sqs)) == (0, 0, 0)
    assert sqs.world.db.value("SELECT count(*) FROM sqs_messages") == 0


def test_a_deep_queue_is_purged_by_and_by(sqs):
    url = make(sqs)
    entries = [{"Id": str(number), "MessageBody": "x"} for number in range(10)]
    for _ in range(2_500):
        sqs.world.machine.submit("sqs", "SendMessageBatch", {"QueueUrl": url, "Entries": entries}, lambda reply: None)
    sqs.world.settle()
    assert depths(sqs, url) == (25_000, 0, 0)
    sqs("PurgeQueue", QueueUrl=url)
    sqs.world.settle()
    assert depths(sqs, url) == (0, 0, 0)
    assert refused(sqs, "PurgeQueue", QueueUrl=url).message == (
        "Only one PurgeQueue operation on q is allowed every 60 seconds."
    )
    sqs("SendMessage", QueueUrl=url, MessageBody="after")
    assert depths(sqs, url) == (1, 0, 0)


# -- messages ----------------------------------------------------------------------------------------------------------


def test_the_largest_message_and_one_byte_more(sqs):
    url = make(sqs)
    sqs("SendMessage", QueueUrl=url, MessageBody="x" * 1_048_576)
    error = refused(sqs, "SendMessage", QueueUrl=url, MessageBody="x" * 1_048_577)
    assert error.message == "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes."
    named = {"name": {"DataType": "String", "StringValue": "ü"}}
    sqs("SendMessage", QueueUrl=url, MessageBody="x" * (1_048_576 - 12), MessageAttributes=named)
    assert refused(sqs, "SendMessage", QueueUrl=url, MessageBody="x" * (1_048_576 - 11), MessageAttributes=named)
    small = make(sqs, "small", MaximumMessageSize=1_024)
    assert refused(sqs, "SendMessage", QueueUrl=small, MessageBody="ü" * 513).message.endswith("than 1024 bytes.")


def test_the_largest_batch_and_one_byte_more(sqs):
    url = make(sqs)
    entries = [{"Id": "a", "MessageBody": "x" * 600_000}, {"Id": "b", "MessageBody": "x" * 448_576}]
    assert len(sqs("SendMessageBatch", QueueUrl=url, Entries=entries)["Successful"]) == 2
    entries[1]["MessageBody"] += "x"
    error = refused(sqs, "SendMessageBatch", QueueUrl=url, Entries=entries)
    assert error.query_code == "AWS.SimpleQueueService.BatchRequestTooLong"
    assert error.message == "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes."
    assert depths(sqs, url) == (2, 0, 0)
    many = [{"Id": str(number), "MessageBody": "x"} for number in range(11)]
    assert refused(sqs, "SendMessageBatch", QueueUrl=url, Entries=many).message == (
        "Maximum number of entries per request are 10. You have sent 11."
    )


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({"DataType": "String", "StringValue": ""},
         "Message (user) attribute 'a' must contain a non-empty value of type 'String'."),
        ({"DataType": "Binary", "StringValue": "x"},
         "Message (user) attribute 'a' must contain a non-empty value of type 'Binary'."),
        ({"DataType": "Number", "StringValue": "one"},
         "Can't cast the value of message (user) attribute 'a' to a number."),
        ({"DataType": "Text", "StringValue": "x"},
         "The type of message (user) attribute 'a' is invalid. You must use only the following supported type "
         "prefixes: Binary, Number, String."),
    ],
)  # fmt: skip
def test_message_attributes_that_are_refused(sqs, attribute, message):
    url = make(sqs)
    error = refused(sqs, "SendMessage", QueueUrl=url, MessageBody="x", MessageAttributes={"a": attribute})
    assert error.message == message
    eleven = {f"a{number}": {"DataType": "String", "StringValue": "x"} for number in range(11)}
    assert refused(sqs, "SendMessage", QueueUrl=url, MessageBody="x", MessageAttributes=eleven)
    assert depths(sqs, url) == (0, 0, 0)


def test_a_received_message_is_hidden_for_twelve_hours_at_most(sqs):
    url = make(sqs, VisibilityTimeout=30)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    (message,) = receive(sqs, url)
    change = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    sqs("ChangeMessageVisibility", **change, VisibilityTimeout=43_200)
    sqs.world.advance(10)
    assert refused(sqs, "ChangeMessageVisibility", **change, VisibilityTimeout=43_191).message == (
        "Value 43191 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is "
        "beyond the limit [43200 seconds]."
    )
    sqs("ChangeMessageVisibility", **change, VisibilityTimeout=43_190)
    sqs.world.advance(43_190)
    sqs("ChangeMessageVisibility", **change, VisibilityTimeout=1)
    (later,) = receive(sqs, url)
    change["ReceiptHandle"] = later["ReceiptHandle"]
    sqs("ChangeMessageVisibility", **change, VisibilityTimeout=43_200)
    assert refused(sqs, "ChangeMessageVisibility", **change, VisibilityTimeout=43_201)


def test_a_handle_of_a_standard_queue_still_deletes_after_its_timeout(sqs):
    url = make(sqs, VisibilityTimeout=1)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    (message,) = receive(sqs, url)
    sqs.world.advance(5)
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert depths(sqs, url) == (0, 0, 0)
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    other = make(sqs, "other")
    error = refused(sqs, "DeleteMessage", QueueUrl=other, ReceiptHandle=message["ReceiptHandle"])
    assert error.code == "ReceiptHandleIsInvalid"


def test_a_message_that_was_received_expires_at_its_time(sqs):
    url = make(sqs, VisibilityTimeout=50, MessageRetentionPeriod=60)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    sqs.world.advance(40)
    assert receive(sqs, url)
    sqs.world.advance(19)
    assert depths(sqs, url) == (0, 1, 0)
    sqs.world.advance(1)
    assert depths(sqs, url) == (0, 0, 0)


def test_many_poisoned_messages_do_not_hide_a_good_one(sqs):
    dead = make(sqs, "dead")
    redrive = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": 1})
    url = make(sqs, VisibilityTimeout=1, RedrivePolicy=redrive)
    for _ in range(35):
        sqs("SendMessage", QueueUrl=url, MessageBody="poison")
    while receive(sqs, url):
        continue
    sqs.world.advance(1)
    sqs("SendMessage", QueueUrl=url, MessageBody="good")
    assert [message["Body"] for message in receive(sqs, url)] == ["good"]
    assert depths(sqs, dead) == (35, 0, 0)

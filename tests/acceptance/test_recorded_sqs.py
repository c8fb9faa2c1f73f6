"""SQS as AWS was recorded to answer: what is refused in which words, what is taken, and what becomes of it."""

import json
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest

from tests.support.queues import PREFIX, VALUE
from tests.unit.test_cloudformation_engine import Cloud
from tests.unit.test_sqs import arn, depths, fifo_send, make, receive, refused, sqs

__all__ = ["sqs"]

NS = "{http://queue.amazonaws.com/doc/2012-11-05/}"
NO_GROUP = "The request must contain the parameter MessageGroupId."
NO_DEDUPLICATION = (
    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
)
WHOLE = {"Id": "1", "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "1"}
UNKNOWN_FIFO = "Unknown Attribute FifoQueue."
FIXED_KIND = "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."
ALLOWED = "the set of allowed characters is #x9 | #xA | #xD | [#x20-#xD7FF] | [#xE000-#xFFFD] | [#x10000-#x10FFFF]."
STANDARD, FIFO = "q", "q.fifo"
REFUSALS = (
    (STANDARD, "SetQueueAttributes", {"Attributes": {"FifoQueue": "true"}}, "InvalidAttributeName", UNKNOWN_FIFO),
    (STANDARD, "SetQueueAttributes", {"Attributes": {"FifoQueue": "false"}}, "InvalidAttributeName", UNKNOWN_FIFO),
    (FIFO, "SetQueueAttributes", {"Attributes": {"FifoQueue": "false"}}, "InvalidAttributeValue", FIXED_KIND),
    (FIFO, "SendMessageBatch", {"Entries": [WHOLE, {"Id": "2", "MessageBody": "y", "MessageDeduplicationId": "2"}]},
     VALUE, NO_GROUP),
    (FIFO, "SendMessageBatch", {"Entries": [WHOLE, {"Id": "2", "MessageBody": "y", "MessageGroupId": "g"}]},
     VALUE, NO_DEDUPLICATION),
    (FIFO, "SendMessage", {"MessageBody": "y", "MessageDeduplicationId": "2"}, "MissingParameter", NO_GROUP),
    (STANDARD, "SendMessage", {"MessageBody": "y\x07\x08"}, "InvalidMessageContents",
     f"Invalid binary character '#x7' was found in the message body, {ALLOWED}"),
    (STANDARD, "SendMessage", {"MessageBody": "y", "MessageAttributes": {
        "a": {"DataType": "String", "StringValue": "I\x08,\x0b"}}}, VALUE, None),
    (STANDARD, "SendMessage", {"MessageBody": "y", "MessageAttributes": {
        "a\u00a7b": {"DataType": "String", "StringValue": "v"}}}, VALUE, None),
    *((STANDARD, operation, {"Entries": []}, PREFIX + "EmptyBatchRequest",
       f"There should be at least one {operation}RequestEntry in the request.")
      for operation in ("SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")),
    (STANDARD, "AddPermission", {"Label": "l", "AWSAccountIds": ["1", "2"], "Actions": ["SendMessage"]}, VALUE,
     "Value [1, 2] for parameter PrincipalId is invalid. Reason: Unable to verify."),
    (STANDARD, "TagQueue", {"Tags": {}}, "MissingParameter", "The request must contain the parameter Tags."),
    (STANDARD, "UntagQueue", {"TagKeys": []}, VALUE, "Tag keys must be between 1 and 128 characters in length."),
    (STANDARD, "TagQueue", {"Tags": dict.fromkeys(map(str, range(51)), "")}, VALUE,
     "Too many tags added for queue q."),
)  # fmt: skip


def queues(sqs):
    return {STANDARD: make(sqs, STANDARD), FIFO: make(sqs, FIFO, FifoQueue="true")}


@pytest.mark.parametrize("at", range(len(REFUSALS)))
def test_refusals(sqs, at):
    name, operation, params, code, message = REFUSALS[at]
    url = queues(sqs)[name]
    error = refused(sqs, operation, QueueUrl=url, **params)
    assert (error.query_code or error.code, error.status) == (code, 400)
    assert message is None or error.message == message
    assert depths(sqs, url) == (0, 0, 0), "nothing was sent"


def test_a_long_entry_of_a_batch_fails_alone(sqs):
    url = make(sqs, MaximumMessageSize=1_024)
    entries = [{"Id": "fits", "MessageBody": "a" * 1_024}, {"Id": "long", "MessageBody": "a" * 1_025}]
    plain = sqs("SendMessageBatch", QueueUrl=url, Entries=entries)
    for entry in entries:
        entry["DelaySeconds"] = 0
    for answer in (plain, sqs("SendMessageBatch", QueueUrl=url, Entries=entries)):
        assert [one["Id"] for one in answer["Successful"]] == ["fits"]
        assert answer["Failed"] == [{
            "Id": "long", "Code": VALUE, "SenderFault": True,
            "Message": "One or more parameters cannot be validated. Reason: Message must be shorter than 1024 bytes.",
        }]  # fmt: skip


# -- attributes of queues ----------------------------------------------------------------------------------------------


def values(sqs, url, *names):
    return sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=list(names)).get("Attributes", {})


def test_booleans_are_taken_with_a_capital_and_shown_without(sqs):
    given = {"FifoQueue": "True", "ContentBasedDeduplication": "False", "SqsManagedSseEnabled": "False"}
    url = make(sqs, FIFO, **given)
    assert make(sqs, FIFO, **given) == url
    small = {name: value.lower() for name, value in given.items()}
    assert values(sqs, url, *given) == small
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"FifoQueue": "True", "ContentBasedDeduplication": "True"})
    assert values(sqs, url, *given) == {**small, "ContentBasedDeduplication": "true"}
    fifo_send(sqs, url, "same")
    fifo_send(sqs, url, "same")
    assert depths(sqs, url) == (1, 0, 0)


def test_a_count_in_quotes_is_shown_without(sqs):
    dead = make(sqs, "dead")
    policy = {"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": "1"}
    url = make(sqs, RedrivePolicy=json.dumps(policy), VisibilityTimeout=0)
    sqs("SetQueueAttributes", QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    assert json.loads(values(sqs, url, "RedrivePolicy")["RedrivePolicy"]) == {**policy, "maxReceiveCount": 1}
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    assert receive(sqs, url) and not receive(sqs, url)
    assert depths(sqs, dead) == (1, 0, 0)


def test_a_key_that_is_taken_away_leaves_nothing_behind(sqs):
    url = make(sqs)
    names = ("KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled")
    key = {"KmsMasterKeyId": "testKeyId", "KmsDataKeyReusePeriodSeconds": "6000"}
    sqs("SetQueueAttributes", QueueUrl=url, Attributes=key)
    assert values(sqs, url, *names) == {**key, "SqsManagedSseEnabled": "false"}
    default = {"KmsMasterKeyId": "", "KmsDataKeyReusePeriodSeconds": "300"}
    sqs("SetQueueAttributes", QueueUrl=url, Attributes=default)
    assert values(sqs, url, *names) == {"SqsManagedSseEnabled": "false"}


def test_a_template_that_no_longer_says_the_size_gives_256_kib():
    cloud = Cloud()

    def size():
        url = cloud.physical("s", "Q")
        return cloud.world("sqs", "GetQueueAttributes", QueueUrl=url, AttributeNames=["MaximumMessageSize"])

    cloud.create("s", {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"DelaySeconds": 1}}})
    cloud.run()
    assert size() == {"Attributes": {"MaximumMessageSize": "1048576"}}
    for properties, shown in ({"MaximumMessageSize": 1_234}, "1234"), ({"DelaySeconds": 2}, "262144"):
        cloud.update("s", {"Q": {"Type": "AWS::SQS::Queue", "Properties": properties}})
        cloud.run()
        assert size() == {"Attributes": {"MaximumMessageSize": shown}}


# -- message attributes ------------------------------------------------------------------------------------------------


def test_names_of_message_attributes_may_have_letters_beyond_ascii(sqs):
    url = make(sqs)
    attributes = {"attr.1\u00f8\u00df\u00e4": {"DataType": "String", "StringValue": "Valida"}}
    sent = sqs("SendMessage", QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    (message,) = receive(sqs, url, MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]


@pytest.mark.parametrize(
    ("names", "chosen", "md5"),
    [
        (["*"], {"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        ([".*"], {"General", "Hello", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        (["Hel.*"], {"Hello", "Help.Me"}, "83fee93c1bcd8b9a5a923ffacdc636c7"),
        (["Foo", "Hello"], {"Hello"}, "a311262e065454b75da111d535b8dacd"),
        (["Foo", "Help"], None, None),
        (["AWS."], None, None),
    ],
)
def test_which_message_attributes_are_received(sqs, names, chosen, md5):
    url = make(sqs)
    texts = {"Help.Me": "Me", "Hello": "There", "General": "Kenobi"}
    attributes = {name: {"DataType": "String", "StringValue": text} for name, text in texts.items()}
    sqs("SendMessage", QueueUrl=url, MessageBody="msg", MessageAttributes=attributes)
    (message,) = receive(sqs, url, MessageAttributeNames=names)
    assert message.get("MessageAttributes") == (chosen and {name: attributes[name] for name in chosen})
    assert message.get("MD5OfMessageAttributes") == md5


# -- visibility --------------------------------------------------------------------------------------------------------


def hide(sqs, url, message, seconds):
    return sqs(
        "ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=seconds
    )


def test_a_handle_of_an_earlier_receive_still_changes_visibility(sqs):
    url = make(sqs)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    (first,) = receive(sqs, url, VisibilityTimeout=0)
    assert receive(sqs, url, VisibilityTimeout=3) and receive(sqs, url) == []
    assert hide(sqs, url, first, 0) == {}
    assert len(receive(sqs, url)) == 1


def test_changing_the_visibility_of_a_message_that_is_back_does_nothing(sqs):
    url = make(sqs, VisibilityTimeout=1)
    sqs("SendMessage", QueueUrl=url, MessageBody="x")
    (message,) = receive(sqs, url)
    sqs.world.advance(2)
    assert hide(sqs, url, message, 60) == {}
    (again,) = receive(sqs, url)
    sqs("DeleteMessage", QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    change = {"QueueUrl": url, "ReceiptHandle": again["ReceiptHandle"], "VisibilityTimeout": 42}
    error = refused(sqs, "ChangeMessageVisibility", **change)
    assert (error.code, error.query_code) == ("InvalidParameterValueException", VALUE)
    assert error.message == (f"Value {again['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: Message "
                             "does not exist or is not available for visibility timeout change.")  # fmt: skip


# -- FIFO --------------------------------------------------------------------------------------------------------------


def bodies(messages):
    return [message["Body"] for message in messages]


@pytest.mark.parametrize(("extended", "visible"), [(0, []), (1, ["foo"]), (2, ["foo", "bar"])])
def test_a_group_gives_what_comes_before_the_first_hidden_message(sqs, extended, visible):
    url = make(sqs, FIFO, FifoQueue="true", ContentBasedDeduplication="true", VisibilityTimeout=1)
    for body in ("foo", "bar", "baz"):
        fifo_send(sqs, url, body)
    messages = receive(sqs, url)
    assert bodies(messages) == ["foo", "bar", "baz"]
    hide(sqs, url, messages[extended], 4)
    sqs.world.advance(2.5)
    assert bodies(receive(sqs, url, WaitTimeSeconds=1)) == visible


@pytest.mark.parametrize("seconds", [0, 1])
def test_a_message_of_a_group_that_is_given_back_comes_again_behind_other_groups(sqs, seconds):
    url = make(sqs, FIFO, FifoQueue="true", ContentBasedDeduplication="true")
    for body in ("g1-m1", "g1-m2", "g2-m1"):
        fifo_send(sqs, url, body, body[:2])
        sqs.world.advance(0.1)
    messages = receive(sqs, url, MaxNumberOfMessages=2)
    assert bodies(messages) == ["g1-m1", "g1-m2"]
    hide(sqs, url, messages[0], seconds)
    sqs.world.advance(2 * seconds)
    assert bodies(receive(sqs, url, MaxNumberOfMessages=3)) == ["g2-m1", "g1-m1"]


def test_a_purge_forgets_deduplication_ids(sqs):
    url = make(sqs, FIFO, FifoQueue="true")
    fifo_send(sqs, url, "message-1", MessageDeduplicationId="d")
    sqs("PurgeQueue", QueueUrl=url)
    fifo_send(sqs, url, "message-2", MessageDeduplicationId="d")
    assert bodies(receive(sqs, url)) == ["message-2"]


# -- message move tasks ------------------------------------------------------------------------------------------------


def test_refusals_of_move_tasks(sqs):
    dead = make(sqs, "dead")
    policy = f'{{"deadLetterTargetArn":"{arn(sqs, dead)}","maxReceiveCount":1}}'
    url = make(sqs, VisibilityTimeout=0, RedrivePolicy=policy)
    for number in range(3):
        sqs("SendMessage", QueueUrl=url, MessageBody=str(number))
    while receive(sqs, url):
        continue
    source = {"SourceArn": arn(sqs, dead), "MaxNumberOfMessagesPerSecond": 1}
    handle = sqs("StartMessageMoveTask", **source)["TaskHandle"]
    error = refused(sqs, "StartMessageMoveTask", **source)
    assert (error.query_code, error.status, error.message) == (
        VALUE, 400,
        "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
    )  # fmt: skip
    sqs("DeleteQueue", QueueUrl=dead)
    error = refused(sqs, "CancelMessageMoveTask", TaskHandle=handle)
    assert (error.code, error.status, error.message) == (
        "ResourceNotFoundException", 404, "The resource that you specified for the SourceArn parameter doesn't exist."
    )  # fmt: skip


# -- the older protocol ------------------------------------------------------------------------------------------------


def ask(aws, path, **params):
    status, _, body = aws.get(f"{path}?{urlencode(params)}")
    return status, ElementTree.fromstring(body)


def failure(answer):
    status, root = answer
    error = root.find(f"{NS}Error")
    return status, error.findtext(f"{NS}Code"), error.findtext(f"{NS}Message")


def test_calls_in_the_url(aws):
    client = aws.client("sqs")
    url = client.create_queue(QueueName="recorded-url")["QueueUrl"]
    path = "/" + url.split("/", 3)[3]
    other = {"QueueName": "recorded-other"}
    for action, more in (("FooBar", {}), ("ListQueues", {}), ("CreateQueue", other)):
        assert failure(ask(aws, path, Action=action, **more)) == (
            400, "InvalidAction", f"The action {action} is not valid for this endpoint."
        )  # fmt: skip
    for action, more in (("ListQueues", {}), ("CreateQueue", other)):
        status, root = ask(aws, "/", Action=action, Version="2012-11-05", **more)
        assert status == 200 and root.tag == f"{NS}{action}Response"
    status, root = ask(aws, path, Action="GetQueueUrl", QueueName="recorded-other")
    assert status == 200 and root.findtext(f".//{NS}QueueUrl").endswith("/recorded-other")
    client.send_message(QueueUrl=url, MessageBody="x")
    lists = {"AttributeName.1": "SenderId", "MessageSystemAttributeName.1": "All"}
    _, root = ask(aws, path, Action="ReceiveMessage", VisibilityTimeout="0", **lists)
    assert [item.findtext(f"{NS}Name") for item in root.iter(f"{NS}Attribute")] == ["SenderId"], "the older list counts"
    both = {"AttributeNames": ["SenderId"], "MessageSystemAttributeNames": ["All"]}
    (message,) = client.receive_message(QueueUrl=url, **both)["Messages"]
    assert len(message["Attributes"]) == 4
    assert ask(aws, path, Action="DeleteQueue")[0] == 200
    assert failure(ask(aws, path, Action="ReceiveMessage")) == (
        400, PREFIX + "NonExistentQueue", "The specified queue does not exist for this wsdl version."
    )  # fmt: skip

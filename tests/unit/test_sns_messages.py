"""SNS: what may be published, what arrives, batches, FIFO topics."""

import json

import pytest

from tests.unit.test_sns import Sns, number, string


@pytest.fixture
def world():
    world = Sns()
    yield world
    assert world.defects == []


# -- what is published ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ({"Message": ""}, "InvalidParameter", "Invalid parameter: Empty message"),
        ({"Message": "m", "Subject": ""}, "InvalidParameter", "Invalid parameter: Subject"),
        ({"Message": "m", "Subject": "a\nb"}, "InvalidParameter", "Invalid parameter: Subject"),
        ({"Message": "m", "Subject": "x" * 101}, "InvalidParameter", "Invalid parameter: Subject"),
        ({"Message": "x" * 262_145}, "InvalidParameter", "Invalid parameter: Message too long"),
        ({"Message": "é" * 131_073}, "InvalidParameter", "Invalid parameter: Message too long"),
        ({"Message": "m", "MessageStructure": "json"}, "InvalidParameter",
         "Invalid parameter: Message Structure - JSON message body failed to parse"),
        ({"Message": '{"sqs": "x"}', "MessageStructure": "json"}, "InvalidParameter",
         "Invalid parameter: Message Structure - No default entry in JSON message body"),
        ({"Message": "m", "MessageDeduplicationId": "d"}, "InvalidParameter",
         "Invalid parameter: MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter that "
         "is not valid for this topic type"),
        ({"Message": "m", "MessageAttributes": {"a": {"DataType": "String", "BinaryValue": b"x"}}},
         "ParameterValueInvalid", "The message attribute 'a' with type 'String' must use field 'String'."),
        ({"Message": "m", "MessageAttributes": {"a": {"DataType": "Nope", "StringValue": "x"}}},
         "ParameterValueInvalid", "The message attribute 'a' has an invalid message attribute type, the set of "
         "supported type prefixes is Binary, Number, and String."),
        ({"Message": "m", "MessageAttributes": {"a": {"DataType": "String", "StringValue": ""}}},
         "ParameterValueInvalid",
         "The message attribute 'a' must contain non-empty message attribute value for message attribute type 'String'."
         ),
        ({"Message": "m", "MessageAttributes": {"a": {"DataType": "Number", "StringValue": "x"}}},
         "ParameterValueInvalid", "Could not cast message attribute 'a' value to number."),
        ({"Message": "m", "MessageAttributes": {".a": {"DataType": "String", "StringValue": "x"}}},
         "ParameterValueInvalid", "Invalid message attribute name starting with character '.' was found."),
        ({"Message": "m", "MessageAttributes": {"a b": {"DataType": "String", "StringValue": "x"}}},
         "ParameterValueInvalid", "Invalid non-alphanumeric character '#x20' was found in the message attribute name. "
         "Can only include alphanumeric characters, hyphens, underscores, or dots."),
    ],
)  # fmt: skip
def test_what_may_not_be_published(world, params, code, message):
    topic, url = world.topic(), world.queue()
    world.follow(topic)
    assert world.refused("Publish", TopicArn=topic, **params) == (code, message)
    assert world.bodies(url) == []


def test_a_message_needs_somewhere_to_go(world):
    assert world.refused("Publish", TopicArn="", Message="m")[1] == (
        "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not 1"
    )
    assert world.refused("Publish", Message="m")[1] == (
        "Invalid parameter: TopicArn or TargetArn Reason: no value for required parameter"
    )
    target = "arn:aws:sns:us-east-1:000000000000:endpoint/GCM/app/x"
    assert world.refused("Publish", TargetArn=target, Message="m")[1] == (
        "Invalid parameter: TargetArn Reason: No endpoint found for the target arn specified"
    )
    topic, url = world.topic(), world.queue()
    world.follow(topic, RawMessageDelivery="true")
    world.sns("Publish", TargetArn=topic, Message="by target")
    assert world.bodies(url)[0]["Body"] == "by target"


def test_a_queue_gets_the_envelope_of_aws(world):
    topic, url = world.topic(), world.queue()
    arn = world.follow(topic)
    sent = world.sns(
        "Publish", TopicArn=topic, Message="grüße", Subject="s",
        MessageAttributes={"n": number("99.12"), "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}},
    )  # fmt: skip
    message, = world.bodies(url)
    body = json.loads(message["Body"])
    assert list(body) == [
        "Type", "MessageId", "TopicArn", "Subject", "Message", "Timestamp", "SignatureVersion", "Signature",
        "SigningCertURL", "UnsubscribeURL", "MessageAttributes",
    ]  # fmt: skip
    assert (body["MessageId"], body["Message"], body["TopicArn"]) == (sent["MessageId"], "grüße", topic)
    assert body["Timestamp"] == "2023-11-14T22:13:20.000Z"
    assert body["MessageAttributes"] == {
        "n": {"Type": "Number", "Value": "99.12"}, "b": {"Type": "Binary", "Value": "AP8="},
    }  # fmt: skip
    assert body["UnsubscribeURL"] == f"http://127.0.0.1:4566/?Action=Unsubscribe&SubscriptionArn={arn}"
    assert "MessageAttributes" not in message


def test_raw_delivery_is_the_message_with_its_attributes(world):
    topic, url = world.topic(), world.queue()
    world.follow(topic, RawMessageDelivery="true")
    world.sns("Publish", TopicArn=topic, Message="m", Subject="s", MessageAttributes={"n": number("1")})
    message, = world.bodies(url)
    assert message["Body"] == "m"
    assert message["MessageAttributes"] == {"n": {"DataType": "Number", "StringValue": "1"}}
    assert message["Attributes"]["SenderId"]


def test_each_protocol_can_have_its_own_text(world):
    topic, url = world.topic(), world.queue()
    world.follow(topic, RawMessageDelivery="true")
    world.sns("Subscribe", TopicArn=topic, Protocol="sms", Endpoint="+15550001111")
    text = json.dumps({"default": "d", "sqs": "for queues", "email": 5})
    world.sns("Publish", TopicArn=topic, Message=text, MessageStructure="json")
    assert world.bodies(url)[0]["Body"] == "for queues"
    assert world.machine.services["sns"].outbox()[0]["body"] == "d"


def test_a_larger_limit_has_its_price(world):
    topic = world.topic(MaximumMessageSize="1048576")
    url = world.queue()
    world.follow(topic, RawMessageDelivery="true")
    world.sns("Publish", TopicArn=topic, Message="x" * 1_000_000)
    assert len(world.bodies(url)[0]["Body"]) == 1_000_000
    refused = world.refused("Subscribe", TopicArn=topic, Protocol="sms", Endpoint="+15550001111")
    assert refused[0] == "InvalidParameter"
    small = world.topic("small")
    world.sns("Subscribe", TopicArn=small, Protocol="sms", Endpoint="+15550001111")
    params = {"TopicArn": small, "AttributeName": "MaximumMessageSize", "AttributeValue": "300000"}
    assert world.refused("SetTopicAttributes", **params)[0] == "InvalidParameter"


def test_text_messages_go_to_the_outbox(world):
    world.sns("SetSMSAttributes", attributes={"DefaultSenderID": "Shop", "DefaultSMSType": "Transactional"})
    assert world.sns("GetSMSAttributes")["attributes"] == {"DefaultSenderID": "Shop", "DefaultSMSType": "Transactional"}
    world.sns("Publish", PhoneNumber="+15550001111", Message="hello")
    topic = world.topic(DisplayName="Shop of all things")
    world.sns("Subscribe", TopicArn=topic, Protocol="sms", Endpoint="+15550002222")
    own = {"AWS.SNS.SMS.SenderID": string("Other")}
    world.sns("Publish", TopicArn=topic, Message="news", MessageAttributes=own)
    newest, first = world.machine.services["sns"].outbox()
    assert (first["recipient"], first["sender"], first["body"]) == ("+15550001111", "Shop", "hello")
    assert (newest["recipient"], newest["sender"], newest["body"]) == ("+15550002222", "Other", "Shop of al> news")
    assert world.refused("Publish", PhoneNumber="12-34", Message="m")[1] == (
        "Invalid parameter: PhoneNumber Reason: 12-34 is not valid to publish to"
    )
    for bad in ({"DefaultSenderID": "much too long id"}, {"DefaultSMSType": "x"}, {"MonthlySpendLimit": "1"}):
        assert world.refused("SetSMSAttributes", attributes=bad)[0] == "InvalidParameter"
    assert world.sns("CheckIfPhoneNumberIsOptedOut", phoneNumber="+15550001111") == {"isOptedOut": False}
    assert world.sns("ListPhoneNumbersOptedOut") == {"phoneNumbers": []}


# -- batches ----------------------------------------------------------------------------------------------------------


def entries(*messages, **more):
    return [{"Id": str(index), "Message": message, **more} for index, message in enumerate(messages)]


def test_a_batch_is_published_entry_by_entry(world):
    topic, url = world.topic(), world.queue()
    world.follow(topic, RawMessageDelivery="true")
    answer = world.sns("PublishBatch", TopicArn=topic, PublishBatchRequestEntries=entries("a", "", "c"))
    assert [one["Id"] for one in answer["Successful"]] == ["0", "2"]
    assert answer["Failed"] == [
        {"Id": "1", "Code": "InvalidParameter", "Message": "Invalid parameter: Empty message", "SenderFault": True}
    ]
    assert [message["Body"] for message in world.bodies(url)] == ["a", "c"]


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        ([], "EmptyBatchRequest"),
        (entries(*"abcdefghijk"), "TooManyEntriesInBatchRequest"),
        (entries("x" * 131_073, "x" * 131_073), "BatchRequestTooLong"),
        ([{"Id": "a", "Message": "m"}, {"Id": "a", "Message": "m"}], "BatchEntryIdsNotDistinct"),
        ([{"Id": "a b", "Message": "m"}], "InvalidBatchEntryId"),
        (entries('{"sqs": "no default"}', MessageStructure="json"), "InvalidParameter"),
        (entries("m", MessageAttributes={"a": {"DataType": "Nope", "StringValue": "x"}}), "ParameterValueInvalid"),
    ],
)
def test_a_batch_that_is_refused_whole(world, batch, code):
    topic, url = world.topic(), world.queue()
    world.follow(topic)
    assert world.refused("PublishBatch", TopicArn=topic, PublishBatchRequestEntries=batch)[0] == code
    assert world.bodies(url) == []


# -- FIFO -------------------------------------------------------------------------------------------------------------


def fifo_pair(world, **attributes):
    topic = world.topic("t.fifo", FifoTopic="true", **attributes)
    url = world.queue("q.fifo", FifoQueue="true")
    world.follow(topic, "q.fifo")
    return topic, url


def test_a_fifo_topic_keeps_order_within_a_group_and_says_each_thing_once(world):
    topic, url = fifo_pair(world)
    params = {"TopicArn": topic, "MessageGroupId": "g"}
    first = world.sns("Publish", **params, Message="1", MessageDeduplicationId="one")
    again = world.sns("Publish", **params, Message="other", MessageDeduplicationId="one")
    second = world.sns("Publish", **params, Message="2", MessageDeduplicationId="two")
    assert again == first and int(second["SequenceNumber"]) > int(first["SequenceNumber"])
    messages = world.bodies(url)
    bodies = [json.loads(message["Body"]) for message in messages]
    assert [body["Message"] for body in bodies] == ["1", "2"]
    assert [body["SequenceNumber"] for body in bodies] == [first["SequenceNumber"], second["SequenceNumber"]]
    assert "Signature" not in bodies[0] and "UnsubscribeURL" in bodies[0]
    assert messages[0]["Attributes"]["MessageGroupId"] == "g"
    assert messages[0]["Attributes"]["MessageDeduplicationId"] == "one"
    world.advance(301)
    assert world.sns("Publish", **params, Message="1", MessageDeduplicationId="one") != first


def test_content_is_deduplicated_when_asked_for_and_by_group_when_asked_for(world):
    topic, url = fifo_pair(world)
    assert world.refused("Publish", TopicArn=topic, Message="m")[1] == (
        "Invalid parameter: The MessageGroupId parameter is required for FIFO topics"
    )
    assert world.refused("Publish", TopicArn=topic, Message="m", MessageGroupId="g")[1] == (
        "Invalid parameter: The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId "
        "provided explicitly"
    )
    world.sns("SetTopicAttributes", TopicArn=topic, AttributeName="ContentBasedDeduplication", AttributeValue="true")
    one = [world.sns("Publish", TopicArn=topic, Message="m", MessageGroupId=group)["MessageId"] for group in "gh"]
    assert one[0] == one[1] and len(world.bodies(url)) == 1
    world.sns("SetTopicAttributes", TopicArn=topic, AttributeName="FifoThroughputScope", AttributeValue="MessageGroup")
    two = [world.sns("Publish", TopicArn=topic, Message="n", MessageGroupId=group)["MessageId"] for group in "gh"]
    assert two[0] != two[1]


def test_a_standard_queue_may_follow_a_fifo_topic_and_gets_the_groups_of_standard_topics(world):
    topic = world.topic("t.fifo", FifoTopic="true", ContentBasedDeduplication="true")
    url = world.queue("plain")
    world.follow(topic, "plain", RawMessageDelivery="true")
    world.sns("Publish", TopicArn=topic, Message="m", MessageGroupId="g")
    assert "MessageGroupId" not in world.bodies(url)[0]["Attributes"]
    standard, other = world.topic(), world.queue("other")
    world.follow(standard, "other")
    world.sns("Publish", TopicArn=standard, Message="m", MessageGroupId="tenant")
    assert world.bodies(other)[0]["Attributes"]["MessageGroupId"] == "tenant"

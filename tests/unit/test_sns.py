"""SNS: topics, subscriptions, messages, batches, in AWS's words."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.sns.service import build as build_sns
from preheat.services.sqs.service import build as build_sqs
from tests.support.inprocess import InProcess

TOPIC = "arn:aws:sns:us-east-1:000000000000:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"
NO_JSON = (
    "failed to parse JSON. Unexpected character ('i' (code 105)): was expecting double-quote to start field name\n at "
    "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: 2]"
)
"""As recorded on AWS, October 2025."""


class Sns(InProcess):
    def __init__(self, **arguments):
        super().__init__(build_sqs, build_sns, **arguments)

    def sns(self, operation, **params):
        return self("sns", operation, **params)

    def refused(self, operation, **params):
        """(code, message) of the error."""
        with pytest.raises(AwsError) as caught:
            self.sns(operation, **params)
        return caught.value.code, caught.value.message

    def topic(self, name="t", **attributes):
        return self.sns("CreateTopic", Name=name, Attributes=attributes)["TopicArn"]

    def queue(self, name="q", **attributes):
        return self("sqs", "CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]

    def follow(self, topic, name="q", **attributes):
        params = {"TopicArn": topic, "Protocol": "sqs", "Endpoint": QUEUE + name, "Attributes": attributes}
        return self.sns("Subscribe", **params)["SubscriptionArn"]

    def bodies(self, url):
        found = self("sqs", "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"],
                     AttributeNames=["All"], WaitTimeSeconds=0)  # fmt: skip
        return found.get("Messages", [])

    def attributes(self, arn):
        return self.sns("GetTopicAttributes", TopicArn=arn)["Attributes"]


@pytest.fixture
def world():
    world = Sns()
    yield world
    assert world.defects == []


def number(text):
    return {"DataType": "Number", "StringValue": text}


def string(text):
    return {"DataType": "String", "StringValue": text}


# -- topics -----------------------------------------------------------------------------------------------------------


def test_a_topic_is_made_once(world):
    arn = world.topic(DisplayName="hello")
    assert arn == TOPIC + "t" and world.topic(DisplayName="hello") == arn == world.topic()
    assert world.refused("CreateTopic", Name="t", Attributes={"DisplayName": "other"}) == (
        "InvalidParameter", "Invalid parameter: Attributes Reason: Topic already exists with different attributes",
    )  # fmt: skip
    assert world.refused("CreateTopic", Name="t", Tags=[{"Key": "a", "Value": "b"}]) == (
        "InvalidParameter", "Invalid parameter: Tags Reason: Topic already exists with different tags",
    )  # fmt: skip
    assert world.sns("ListTopics") == {"Topics": [{"TopicArn": arn}]}


def test_a_new_topic_has_the_attributes_of_aws(world):
    values = world.attributes(world.topic())
    effective, policy = json.loads(values.pop("EffectiveDeliveryPolicy")), json.loads(values.pop("Policy"))
    assert values == {
        "TopicArn": TOPIC + "t", "Owner": "000000000000", "DisplayName": "", "SubscriptionsConfirmed": "0",
        "SubscriptionsPending": "0", "SubscriptionsDeleted": "0",
    }  # fmt: skip
    assert effective["http"]["defaultHealthyRetryPolicy"]["numRetries"] == 3
    assert policy["Id"] == "__default_policy_ID"
    assert policy["Statement"][0]["Condition"] == {"StringEquals": {"AWS:SourceOwner": "000000000000"}}
    fifo = world.attributes(world.topic("t.fifo", FifoTopic="true"))
    assert (fifo["FifoTopic"], fifo["ContentBasedDeduplication"], fifo.get("FifoThroughputScope")) == (
        "true", "false", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("a b", {}, "Invalid parameter: Topic Name"),
        ("", {}, "Invalid parameter: Topic Name"),
        ("x" * 257, {}, "Invalid parameter: Topic Name"),
        ("t.fifo", {}, "Invalid parameter: Topic Name"),
        (
            "t", {"FifoTopic": "true"},
            "Invalid parameter: Fifo Topic names must end with .fifo and must be made up of only uppercase and "
            "lowercase ASCII letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters "
            "long.",
        ),
        ("t", {"Nonsense": "1"}, "Invalid parameter: Attributes Reason: AttributeName"),
        ("t", {"SignatureVersion": "3"},
         "Invalid parameter: Attributes Reason: SignatureVersion: Invalid value [3]. Must be 1 or 2."),
        ("t", {"ContentBasedDeduplication": "true"},
         "Invalid parameter: Attributes Reason: ContentBasedDeduplication can only be set for FIFO topics"),
        ("t", {"Policy": "{"}, "Invalid parameter: Policy Error: null"),
        ("t", {"DeliveryPolicy": "{"}, "Invalid parameter: Attributes Reason: DeliveryPolicy: failed to parse JSON"),
        ("t", {"MaximumMessageSize": "1000"}, "Invalid parameter: Attributes Reason: MaximumMessageSize: Invalid value "
         "[1000]. Must be an integer between 1024 and 1048576."),
        ("t", {"ArchivePolicy": "{}"},
         "Invalid parameter: Attributes Reason: ArchivePolicy: Preheat does not archive messages"),
    ],
)  # fmt: skip
def test_what_a_topic_may_not_be(world, name, attributes, message):
    assert world.refused("CreateTopic", Name=name, Attributes=attributes) == ("InvalidParameter", message)
    assert world.sns("ListTopics")["Topics"] == []


def test_attributes_are_set_and_taken_away(world):
    arn = world.topic()
    for name, value in (("DisplayName", "d"), ("SignatureVersion", "2"), ("SQSSuccessFeedbackSampleRate", "10")):
        world.sns("SetTopicAttributes", TopicArn=arn, AttributeName=name, AttributeValue=value)
        assert world.attributes(arn)[name] == value
    world.sns("SetTopicAttributes", TopicArn=arn, AttributeName="DisplayName")
    assert world.attributes(arn)["DisplayName"] == ""
    assert world.refused("SetTopicAttributes", TopicArn=arn, AttributeName="FifoTopic", AttributeValue="true") == (
        "InvalidParameter", "Invalid parameter: AttributeName",
    )  # fmt: skip


@pytest.mark.parametrize("operation", ["GetTopicAttributes", "ListSubscriptionsByTopic"])
def test_a_topic_that_is_not_there(world, operation):
    assert world.refused(operation, TopicArn=TOPIC + "none") == ("NotFound", "Topic does not exist")
    assert world.refused(operation, TopicArn="x") == (
        "InvalidParameter", "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not 1",
    )  # fmt: skip
    assert world.refused(operation, TopicArn="arn:aws:sqs:us-east-1:000000000000:q")[0] == "InvalidParameter"
    assert world.refused(operation, TopicArn="arn:aws:sns:eu-west-1:000000000000:t")[0] == "InvalidParameter"


def test_deleting_takes_the_subscriptions_along(world):
    arn = world.topic()
    world.queue()
    world.follow(arn)
    assert world.sns("DeleteTopic", TopicArn=arn) == {} == world.sns("DeleteTopic", TopicArn=arn)
    assert world.sns("ListSubscriptions")["Subscriptions"] == []
    assert world.refused("Publish", TopicArn=arn, Message="m") == ("NotFound", "Topic does not exist")
    again = world.topic()
    assert world.attributes(again)["SubscriptionsConfirmed"] == "0"


def test_lists_come_in_pages_of_a_hundred(world):
    arns = [world.topic(f"t{index:03}") for index in range(205)]
    seen, token = [], None
    while True:
        page = world.sns("ListTopics", **({"NextToken": token} if token else {}))
        assert len(page["Topics"]) <= 100
        seen += [one["TopicArn"] for one in page["Topics"]]
        token = page.get("NextToken")
        if token is None:
            break
    assert seen == arns
    for index in range(101):
        world.sns("Subscribe", TopicArn=arns[0], Protocol="sms", Endpoint=f"+1555{index:07}")
    for operation, extra in (("ListSubscriptions", {}), ("ListSubscriptionsByTopic", {"TopicArn": arns[0]})):
        first = world.sns(operation, **extra)
        rest = world.sns(operation, NextToken=first["NextToken"], **extra)
        assert (len(first["Subscriptions"]), len(rest["Subscriptions"])) == (100, 1) and "NextToken" not in rest
    assert world.refused("ListSubscriptions", NextToken="x")[0] == "InvalidParameter"


def test_tags(world):
    arn = world.sns("CreateTopic", Name="t", Tags=[{"Key": "a", "Value": "1"}])["TopicArn"]
    world.sns("TagResource", ResourceArn=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    world.sns("UntagResource", ResourceArn=arn, TagKeys=["a", "none"])
    assert world.sns("ListTagsForResource", ResourceArn=arn) == {"Tags": [{"Key": "b", "Value": "3"}]}
    twice = [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]
    assert world.refused("TagResource", ResourceArn=arn, Tags=twice) == (
        "InvalidParameter", "Invalid parameter: Duplicated keys are not allowed.",
    )  # fmt: skip
    many = [{"Key": str(index), "Value": ""} for index in range(50)]
    assert world.refused("TagResource", ResourceArn=arn, Tags=many)[0] == "TagLimitExceeded"
    missing = world.refused("TagResource", ResourceArn=TOPIC + "none", Tags=many[:1])
    assert missing == ("ResourceNotFound", "Resource does not exist")


def test_permissions_are_statements_of_the_policy(world):
    arn = world.topic()
    world.sns("AddPermission", TopicArn=arn, Label="one", AWSAccountId=["111111111111"], ActionName=["Publish"])
    statement = json.loads(world.attributes(arn)["Policy"])["Statement"][1]
    assert statement == {
        "Sid": "one", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
        "Action": "SNS:Publish", "Resource": arn,
    }  # fmt: skip
    again = {"TopicArn": arn, "Label": "one", "AWSAccountId": ["111111111111"], "ActionName": ["Publish"]}
    assert world.refused("AddPermission", **again)[1] == "Invalid parameter: Statement already exists"
    assert world.refused("AddPermission", **{**again, "Label": "two", "ActionName": ["Nonsense"]})[1] == (
        "Invalid parameter: Policy statement action out of service scope!"
    )
    world.sns("RemovePermission", TopicArn=arn, Label="one")
    assert len(json.loads(world.attributes(arn)["Policy"])["Statement"]) == 1


# -- subscriptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "endpoint", "message"),
    [
        ("carrier", "pigeon", "Invalid parameter: Amazon SNS does not support this protocol string: carrier"),
        ("sqs", "q", "Invalid parameter: SQS endpoint ARN"),
        ("lambda", QUEUE + "q", "Invalid parameter: Lambda endpoint ARN"),
        ("http", "https://x", "Invalid parameter: Endpoint must match the specified protocol"),
        ("http", "http://", "Invalid parameter: Endpoint"),
        ("http", "http://host:port/", "Invalid parameter: Endpoint"),
        ("sms", "12--34", "Invalid SMS endpoint: 12--34"),
        ("email", "nobody", "Invalid parameter: Email address"),
        ("firehose", "arn:aws:firehose:us-east-1:000000000000:deliverystream/d",
         "Invalid parameter: Protocol Reason: Preheat does not implement the protocol firehose"),
        ("sqs", QUEUE + "q.fifo", "Invalid parameter: Invalid parameter: Endpoint Reason: FIFO SQS Queues can not be "
         "subscribed to standard SNS topics"),
    ],
)  # fmt: skip
def test_what_an_endpoint_may_not_be(world, protocol, endpoint, message):
    refused = world.refused("Subscribe", TopicArn=world.topic(), Protocol=protocol, Endpoint=endpoint)
    assert refused == ("InvalidParameter", message)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Nonsense": "x"}, "AttributeName"),
        ({"RawMessageDelivery": "x"}, "RawMessageDelivery: Invalid value [x]. Must be true or false."),
        ({"FilterPolicyScope": "x"},
         "FilterPolicyScope: Invalid value [x]. Please use either MessageBody or MessageAttributes"),
        ({"FilterPolicy": "{invalidjson}"}, f"FilterPolicy: {NO_JSON}"),
        ({"RedrivePolicy": "{invalidjson}"}, f"RedrivePolicy: {NO_JSON}"),
        ({"RawMessageDelivery": ""}, "RawMessageDelivery: Invalid value []. Must be true or false."),
        ({"RedrivePolicy": '{"deadLetterTargetArn": "x"}'}, "RedrivePolicy: deadLetterTargetArn is an invalid arn"),
        ({"DeliveryPolicy": '{"healthyRetryPolicy": {"numRetries": 101}}'},
         "DeliveryPolicy: healthyRetryPolicy.numRetries must be less than or equal to 100"),
        ({"ReplayPolicy": "{}"}, "ReplayPolicy: Preheat does not archive messages"),
        ({"SubscriptionRoleArn": "x"}, "SubscriptionRoleArn: only firehose subscriptions have a role"),
    ],
)  # fmt: skip
def test_what_a_subscription_may_not_be(world, attributes, reason):
    topic = world.topic()
    params = {"TopicArn": topic, "Protocol": "sqs", "Endpoint": QUEUE + "q"}
    refused = world.refused("Subscribe", **params, Attributes=attributes)
    assert refused == ("InvalidParameter", f"Invalid parameter: Attributes Reason: {reason}")
    assert world.sns("ListSubscriptions")["Subscriptions"] == []
    arn = world.sns("Subscribe", **params)["SubscriptionArn"]
    (name, value), = attributes.items()
    refused = world.refused("SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
    assert refused == ("InvalidParameter", f"Invalid parameter: {reason}")


def test_subscribing_again_gives_the_same_subscription(world):
    topic = world.topic()
    arn = world.follow(topic, RawMessageDelivery="True")
    assert arn.startswith(topic + ":") and world.follow(topic) == arn == world.follow(topic, RawMessageDelivery="true")
    params = {"TopicArn": topic, "Protocol": "sqs", "Endpoint": QUEUE + "q"}
    assert world.refused("Subscribe", **params, Attributes={"RawMessageDelivery": "false"})[1] == (
        "Invalid parameter: Attributes Reason: Subscription already exists with different attributes"
    )
    values = world.sns("GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]
    assert values == {
        "SubscriptionArn": arn, "TopicArn": topic, "Protocol": "sqs", "Endpoint": QUEUE + "q", "Owner": "000000000000",
        "PendingConfirmation": "false", "ConfirmationWasAuthenticated": "true", "RawMessageDelivery": "true",
        "SubscriptionPrincipal": "arn:aws:iam::000000000000:root",
    }  # fmt: skip


def test_subscription_attributes_are_set_and_taken_away(world):
    arn = world.follow(world.topic())

    def put(name, value):
        world.sns("SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName=name, AttributeValue=value)
        return world.sns("GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]

    values = put("FilterPolicy", '{"a": ["x"]}')
    assert (values["FilterPolicy"], values["FilterPolicyScope"]) == ('{"a": ["x"]}', "MessageAttributes")
    assert put("FilterPolicyScope", "MessageBody")["FilterPolicyScope"] == "MessageBody"
    assert "FilterPolicy" not in put("FilterPolicy", "{}")
    assert put("RawMessageDelivery", "true")["RawMessageDelivery"] == "true"


def test_a_subscription_that_is_not_there(world):
    topic = world.topic()
    missing = topic + ":00000000-0000-4000-8000-000000000000"
    assert world.refused("GetSubscriptionAttributes", SubscriptionArn=missing) == (
        "NotFound", "Subscription does not exist",
    )  # fmt: skip
    assert world.sns("Unsubscribe", SubscriptionArn=missing) == {}
    assert world.refused("Unsubscribe", SubscriptionArn="x")[1] == (
        "Invalid parameter: SubscriptionArn Reason: An ARN must have at least 6 elements, not 1"
    )
    assert world.refused("Unsubscribe", SubscriptionArn=topic)[1] == "Invalid parameter: SubscriptionId"


def test_a_queue_of_another_account_has_to_confirm(world):
    """The message that asks goes to the queue itself; here it waits for whoever carries deliveries out."""
    topic = world.topic()
    answer = world.sns("Subscribe", TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:111111111111:q")
    assert answer == {"SubscriptionArn": "pending confirmation"}
    assert world.sns("ListSubscriptions")["Subscriptions"][0]["SubscriptionArn"] == "PendingConfirmation"
    delivery = json.loads(world.db.value("SELECT payload FROM due"))
    asked = json.loads(delivery["body"])
    assert delivery["target"].endswith("111111111111:q") and asked["Type"] == "SubscriptionConfirmation"
    assert world.refused("ConfirmSubscription", TopicArn=topic, Token="0" * 288) == (
        "InvalidParameter", "Invalid parameter: Token",
    )  # fmt: skip
    assert world.refused("ConfirmSubscription", TopicArn=topic, Token="random") == ("InvalidParameter", "Invalid token")
    arn = world.sns("ConfirmSubscription", TopicArn=topic, Token=asked["Token"])["SubscriptionArn"]
    assert arn == world.sns("ListSubscriptions")["Subscriptions"][0]["SubscriptionArn"]


def test_who_does_not_confirm_within_two_days_is_forgotten(world):
    topic = world.topic()
    world.sns("Subscribe", TopicArn=topic, Protocol="email", Endpoint="a@b.c")
    world.advance(2 * 86_400 - 1)
    assert world.attributes(topic)["SubscriptionsPending"] == "1"
    world.advance(2)
    assert world.attributes(topic)["SubscriptionsPending"] == "0"


def test_a_fifo_topic_takes_queues_alone_and_a_hundred_of_them(world):
    topic = world.topic("t.fifo", FifoTopic="true")
    refused = world.refused("Subscribe", TopicArn=topic, Protocol="sms", Endpoint="+15550001111")
    assert refused[1] == "Invalid parameter: Invalid parameter: Endpoint Reason: Please use FIFO SQS queue"
    for index in range(100):
        world.follow(topic, f"q{index}")
    params = {"TopicArn": topic, "Protocol": "sqs", "Endpoint": QUEUE + "last"}
    assert world.refused("Subscribe", **params)[0] == "SubscriptionLimitExceeded"
    letters = json.dumps({"deadLetterTargetArn": QUEUE + "dead"})
    fifo = world.topic("u.fifo", FifoTopic="true")
    refused = world.refused(
        "Subscribe", TopicArn=fifo, Protocol="sqs", Endpoint=QUEUE + "q.fifo", Attributes={"RedrivePolicy": letters}
    )
    assert refused[1].endswith("must use a FIFO queue as DLQ for a FIFO Subscription to a FIFO Topic.")


# -- the state --------------------------------------------------------------------------------------------------------


def test_topics_survive_a_restart_with_their_key(tmp_path):
    world = Sns(directory=tmp_path)
    topic, url = world.topic(), world.queue()
    world.follow(topic)
    certificate = world.db.value("SELECT pem FROM sns_signing_key")
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")
    world.db.close()
    again = Sns(directory=tmp_path, seed=2)
    again.sns("Publish", TopicArn=topic, Message="m")
    assert json.loads(again.bodies(url)[0]["Body"])["Signature"]
    assert again.db.value("SELECT pem FROM sns_signing_key") == certificate


def test_what_is_taken_back_is_not_remembered(world):
    """A publish that fails half-way (its batch is refused) leaves caches as they were."""
    topic = world.topic()
    world.queue()
    world.follow(topic)

    def fail(ctx):
        ctx.call("sns", "DeleteTopic", {"TopicArn": topic})
        raise AwsError("Stop", "taken back")

    replies = []
    world.machine.perform(fail, replies.append)
    world.settle()
    assert replies[0].code == "Stop"
    assert world.attributes(topic)["SubscriptionsConfirmed"] == "1"

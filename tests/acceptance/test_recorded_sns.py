"""SNS as AWS was recorded to answer, 2023 to 2026: what differed once."""

import base64
import json
import urllib.request

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from preheat.services.sns.policies import HEALTHY
from tests.support.endpoint import Endpoint
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for
from tests.unit.test_sns import TOPIC, Sns

NO_STRUCTURE = "Invalid parameter: Message Structure - No default entry in JSON message body"
JSON_TYPE = {"headerContentType": "application/json"}
PLAIN_TYPE = {"headerContentType": "text/plain; charset=UTF-8"}
QUICK = {**HEALTHY, "minDelayTarget": 1, "maxDelayTarget": 1, "numRetries": 0}


@pytest.fixture
def world():
    world = Sns()
    yield world
    assert world.defects == []


def subscribed(world, arn):
    return world.sns("GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]


# -- topics -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown", "effective"),
    [
        ({"defaultRequestPolicy": JSON_TYPE},
         {"disableSubscriptionOverrides": False, "defaultRequestPolicy": JSON_TYPE}, (HEALTHY, JSON_TYPE)),
        ({"defaultHealthyRetryPolicy": {"minDelayTarget": 5, "maxDelayTarget": 6, "numRetries": 1}},
         {"defaultHealthyRetryPolicy": {"minDelayTarget": 5, "maxDelayTarget": 6, "numRetries": 1},
          "disableSubscriptionOverrides": False},
         ({**HEALTHY, "minDelayTarget": 5, "maxDelayTarget": 6, "numRetries": 1}, PLAIN_TYPE)),
        ({"defaultHealthyRetryPolicy": None}, {"disableSubscriptionOverrides": False}, (HEALTHY, PLAIN_TYPE)),
    ],
)  # fmt: skip
def test_a_topics_delivery_policy_is_shown_without_what_is_null(world, given, shown, effective):
    arn = world.topic()
    value = json.dumps({"http": given})
    world.sns("SetTopicAttributes", TopicArn=arn, AttributeName="DeliveryPolicy", AttributeValue=value)
    values = world.attributes(arn)
    assert json.loads(values["DeliveryPolicy"]) == {"http": shown}
    retries, request = effective
    assert json.loads(values["EffectiveDeliveryPolicy"]) == {
        "http": {"defaultHealthyRetryPolicy": retries, "disableSubscriptionOverrides": False,
                 "defaultRequestPolicy": request}
    }  # fmt: skip
    world.sns("SetTopicAttributes", TopicArn=arn, AttributeName="DeliveryPolicy", AttributeValue="")
    assert "DeliveryPolicy" not in world.attributes(arn)


def test_a_fifo_topic_names_its_throughput_scope_only_once_it_is_set(world):
    arn = world.topic("t.fifo", FifoTopic="true")
    values = world.attributes(arn)
    assert (values["FifoTopic"], values["ContentBasedDeduplication"]) == ("true", "false")
    assert "FifoThroughputScope" not in values
    scope = {"AttributeName": "FifoThroughputScope", "AttributeValue": "MessageGroup"}
    world.sns("SetTopicAttributes", TopicArn=arn, **scope)
    assert world.attributes(arn)["FifoThroughputScope"] == "MessageGroup"


def test_a_topic_may_be_created_again_with_some_of_its_tags(world):
    one, two, other = ({"Key": key, "Value": value} for key, value in (("a", "1"), ("b", "2"), ("a", "2")))
    arn = world.sns("CreateTopic", Name="t", Tags=[one, two])["TopicArn"]
    for tags in ([one, two], [one], []):
        assert world.sns("CreateTopic", Name="t", Tags=tags)["TopicArn"] == arn
    for tags in ([other], [one, {"Key": "c", "Value": "3"}]):
        assert world.refused("CreateTopic", Name="t", Tags=tags) == (
            "InvalidParameter", "Invalid parameter: Tags Reason: Topic already exists with different tags",
        )  # fmt: skip


def test_a_topic_of_another_region_is_not_deleted_from_here(world):
    assert world.refused("DeleteTopic", TopicArn=TOPIC.replace("us-east-1", "eu-west-1") + "t") == (
        "InvalidParameter", "Invalid parameter: TopicArn",
    )  # fmt: skip


# -- subscriptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown", "effective"),
    [
        (
            {"requestPolicy": JSON_TYPE},
            {"healthyRetryPolicy": None, "sicklyRetryPolicy": None, "throttlePolicy": None,
             "requestPolicy": JSON_TYPE, "guaranteed": False},
            {"healthyRetryPolicy": HEALTHY, "throttlePolicy": None, "requestPolicy": JSON_TYPE},
        ),
        (
            {"healthyRetryPolicy": QUICK, "sicklyRetryPolicy": None, "throttlePolicy": {"maxReceivesPerSecond": 1000},
             "guaranteed": False},
            {"healthyRetryPolicy": QUICK, "sicklyRetryPolicy": None, "throttlePolicy": {"maxReceivesPerSecond": 1000},
             "requestPolicy": None, "guaranteed": False},
            {"healthyRetryPolicy": QUICK, "throttlePolicy": {"maxReceivesPerSecond": 1000},
             "requestPolicy": PLAIN_TYPE},
        ),
    ],
)  # fmt: skip
def test_a_subscriptions_delivery_policy_is_shown_in_all_its_parts(world, given, shown, effective):
    params = {"TopicArn": world.topic(), "Protocol": "http", "Endpoint": "http://127.0.0.1:9/"}
    arn = world.sns("Subscribe", **params, ReturnSubscriptionArn=True)["SubscriptionArn"]
    value = json.dumps(given)
    world.sns("SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName="DeliveryPolicy", AttributeValue=value)
    values = subscribed(world, arn)
    assert json.loads(values["DeliveryPolicy"]) == shown
    assert json.loads(values["EffectiveDeliveryPolicy"]) == {
        **effective, "sicklyRetryPolicy": None, "guaranteed": False
    }  # fmt: skip


def test_an_empty_filter_policy_is_none(world):
    arn = world.follow(world.topic(), RawMessageDelivery="TrUe", FilterPolicyScope="MessageBody", FilterPolicy="")
    values = subscribed(world, arn)
    assert values["RawMessageDelivery"] == "true" and not {"FilterPolicy", "FilterPolicyScope"} & set(values)


@pytest.mark.parametrize("number", ["+12/34-567.890", "+123123123"])
def test_a_phone_number_may_have_separators(world, number):
    arn = world.sns("Subscribe", TopicArn=world.topic(), Protocol="sms", Endpoint=number)["SubscriptionArn"]
    assert (subscribed(world, arn)["Endpoint"], subscribed(world, arn)["PendingConfirmation"]) == (number, "false")


@pytest.mark.parametrize("number", ["+15--551234567", "NAA+15551234567", "+15551234567.", "/+15551234567"])
def test_separators_stand_one_at_a_time_between_digits(world, number):
    assert world.refused("Subscribe", TopicArn=world.topic(), Protocol="sms", Endpoint=number) == (
        "InvalidParameter", f"Invalid SMS endpoint: {number}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ('{"key": {"suffix": "value"}}',
         '"suffix" must be an object or an array\n at [Source: (String)"{"key":{"suffix":"value"}}"; line: 1, column: '
         "19]"),
        ('{"key": [{"suffix": "value", "prefix": "value2"}]}',
         'Only one key allowed in match expression\n at [Source: (String)"{"key":[{"suffix":"value","prefix":"value2"}]'
         '}"; line: 1, column: 37]'),
    ],
)  # fmt: skip
def test_a_filter_policy_is_read_without_its_spaces_and_before_it_is_weighed(world, policy, reason):
    params = {"TopicArn": world.topic(), "Protocol": "sms", "Endpoint": "+123123123"}
    refused = world.refused("Subscribe", **params, Attributes={"FilterPolicy": policy})
    assert refused == ("InvalidParameter", f"Invalid parameter: Attributes Reason: FilterPolicy: {reason}")


def test_the_token_says_which_subscription_is_confirmed_and_the_topic_only_where(world):
    topic = world.topic()
    params = {"TopicArn": topic, "Protocol": "http", "Endpoint": "http://127.0.0.1:9/", "ReturnSubscriptionArn": True}
    arn = world.sns("Subscribe", **params)["SubscriptionArn"]
    token = json.loads(json.loads(world.db.value("SELECT payload FROM due"))["body"])["Token"]
    for given, text, message in (
        ("not-an-arn", token, "Invalid parameter: Topic"),
        (topic.replace("us-east-1", "eu-central-1"), token, "Invalid parameter: Topic"),
        (topic, "abc123", "Invalid parameter: Token"),
        (topic, "randomtoken", "Invalid token"),
    ):
        refused = world.refused("ConfirmSubscription", TopicArn=given, Token=text)
        assert refused == ("InvalidParameter", message)
    assert subscribed(world, arn)["PendingConfirmation"] == "true"
    for given in (topic + "-gone", topic):
        assert world.sns("ConfirmSubscription", TopicArn=given, Token=token) == {"SubscriptionArn": arn}
    assert subscribed(world, arn)["PendingConfirmation"] == "false"


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_batch_on_a_fifo_topic_is_read_before_its_groups_are(world):
    entry = {"Id": "1", "Message": '{"sqs": "x"}', "MessageStructure": "json"}
    topic = world.topic("t.fifo", FifoTopic="true")
    refused = world.refused("PublishBatch", TopicArn=topic, PublishBatchRequestEntries=[entry])
    assert refused == ("InvalidParameter", NO_STRUCTURE)
    plain = world.refused("PublishBatch", TopicArn=topic, PublishBatchRequestEntries=[{"Id": "1", "Message": "m"}])
    assert plain[1] == "Invalid parameter: The MessageGroupId parameter is required for FIFO topics"


def test_functions_are_told_of_signatures_of_version_1_whatever_they_are(world):
    topic = world.topic(SignatureVersion="2")
    function = "arn:aws:lambda:us-east-1:000000000000:function:f"
    world.sns("Subscribe", TopicArn=topic, Protocol="lambda", Endpoint=function)
    world.sns("Publish", TopicArn=topic, Message="m", Subject="s")
    (record,) = json.loads(json.loads(world.db.value("SELECT payload FROM due"))["body"])["Records"]
    said = record["Sns"]
    assert said["SignatureVersion"] == "1"
    key = x509.load_pem_x509_certificate(world.db.value("SELECT pem FROM sns_signing_key").encode()).public_key()
    names = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
    text = "".join(f"{name}\n{said[name]}\n" for name in names).encode()
    key.verify(base64.b64decode(said["Signature"]), text, padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(said["Signature"]), text, padding.PKCS1v15(), hashes.SHA1())


def test_a_page_is_continued_by_a_token_in_base64(world):
    topic = world.topic()
    for index in range(101):
        world.sns("Subscribe", TopicArn=topic, Protocol="sms", Endpoint=f"+12312312{index}")
        world.topic(f"t{index}")
    for operation, params in (("ListSubscriptions", {}), ("ListSubscriptionsByTopic", {"TopicArn": topic}),
                              ("ListTopics", {})):  # fmt: skip
        first = world.sns(operation, **params)
        assert base64.b64decode(first["NextToken"], validate=True)
        assert "NextToken" not in world.sns(operation, **params, NextToken=first["NextToken"])
        assert world.refused(operation, **params, NextToken="!") == ("InvalidParameter", "Invalid parameter: NextToken")


@pytest.mark.parametrize(
    ("policy", "value", "passes"),
    [
        ([100.123456789], "100.1234567", True),
        ([100.12345], "100.12344", False),
        ([0.29], "0.28999", False),
        ([{"numeric": ["<=", 1.000001]}], "1.000009", True),
        ([{"numeric": ["<", 1.00001]}], "1.00002", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scope", ["MessageAttributes", "MessageBody"])
def test_numbers_are_compared_to_five_decimal_places(world, policy, value, passes, scope):
    topic, url = world.topic(), world.queue()
    world.follow(topic, FilterPolicy=json.dumps({"price": policy}), FilterPolicyScope=scope)
    attributes = {"price": {"DataType": "Number", "StringValue": value}}
    world.sns("Publish", TopicArn=topic, Message=f'{{"price": {value}}}', MessageAttributes=attributes)
    assert bool(world.bodies(url)) is passes


@pytest.mark.parametrize(("name", "shown"), [("t.fifo", None), ("t", "g")])
def test_a_standard_queue_gets_the_groups_of_standard_topics_alone(world, name, shown):
    fifo = {"FifoTopic": "true", "ContentBasedDeduplication": "true"} if name.endswith(".fifo") else {}
    topic, url = world.topic(name, **fifo), world.queue()
    world.follow(topic)
    for _ in range(2):
        world.sns("Publish", TopicArn=topic, Message="m", MessageGroupId="g")
    found = world.bodies(url)
    assert [one["Attributes"].get("MessageGroupId") for one in found] == ([shown] if fifo else [shown, shown])


def test_content_based_deduplication_may_be_written_in_any_case(world):
    arn = world.topic("t.fifo", FifoTopic="True", ContentBasedDeduplication="True")
    assert world.attributes(arn)["ContentBasedDeduplication"] == "true"


# -- through the wire -------------------------------------------------------------------------------------------------


MISSING = "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null"
UNTYPED = {"attr1": {"StringValue": "value"}}


@pytest.mark.parametrize(
    ("operation", "params", "code", "message"),
    [
        ("unsubscribe", {}, "InvalidParameter",
         "Invalid parameter: SubscriptionArn Reason: no value for required parameter"),
        ("create_platform_application", {"Name": "recorded", "Platform": "GCM", "Attributes": {}}, "ValidationError",
         MISSING.format("attributes")),
        ("publish", {"TopicArn": TOPIC + "recorded", "Message": "m", "MessageAttributes": UNTYPED}, "ValidationError",
         MISSING.format("messageAttributes.attr1.member.dataType")),
        ("publish_batch", {"TopicArn": TOPIC + "recorded", "PublishBatchRequestEntries": [
            {"Id": "1", "Message": "m", "MessageAttributes": UNTYPED}, {"Id": "3", "Message": "valid"}]},
         "ValidationError",
         MISSING.format("publishBatchRequestEntries.1.member.messageAttributes.attr1.member.dataType")),
    ],
)  # fmt: skip
def test_what_a_request_lacks(aws, operation, params, code, message):
    sns = aws.client("sns", parameter_validation=False)
    sns.create_topic(Name="recorded")
    with pytest.raises(ClientError) as caught:
        getattr(sns, operation)(**params)
    error = caught.value.response
    assert error["Error"] == {"Type": "Sender", "Code": code, "Message": message}
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_the_status_log_of_a_function_names_its_invocation(aws):
    sns, logs, name = aws.client("sns"), aws.client("logs"), "recorded-status"
    function = aws.client("lambda").create_function(
        FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Code={"ZipFile": make_zip()}
    )["FunctionArn"]
    role = "arn:aws:iam::000000000000:role/sns-logs"
    settings = {"LambdaSuccessFeedbackRoleArn": role, "LambdaSuccessFeedbackSampleRate": "100"}
    topic = sns.create_topic(Name=name, Attributes=settings)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=function)
    sent = sns.publish(TopicArn=topic, Message="m")["MessageId"]
    group = f"sns/us-east-1/000000000000/{name}"
    (event,) = wait_for(lambda: logs.filter_log_events(logGroupName=group)["events"], what="the status log")
    told = json.loads(event["message"])
    assert set(told) == {"notification", "delivery", "status"} and told["status"] == "SUCCESS"
    assert set(told["notification"]) == {"messageMD5Sum", "messageId", "topicArn", "timestamp"}
    assert told["notification"]["messageId"] == sent
    delivery = told["delivery"]
    assert set(delivery) == {"deliveryId", "destination", "providerResponse", "dwellTimeMs", "statusCode"}
    assert (delivery["destination"], delivery["statusCode"]) == (function, 202)
    invocation = json.loads(delivery["providerResponse"])["lambdaRequestId"]
    lines = wait_for(lambda: logs.filter_log_events(
        logGroupName=f"/aws/lambda/{name}", filterPattern=f'"{invocation}"')["events"], what="its report")  # fmt: skip
    assert any(line["message"].startswith("START RequestId: " + invocation) for line in lines)


def test_what_is_posted_to_a_web_endpoint(aws):
    sns, endpoint = aws.client("sns"), Endpoint()
    try:
        topic = sns.create_topic(Name="recorded-web")["TopicArn"]
        sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint.url, Attributes={"RawMessageDelivery": "true"})
        asked = json.loads(wait_for(lambda: endpoint.posts)[0][1])
        arn = sns.confirm_subscription(TopicArn=topic, Token=asked["Token"])["SubscriptionArn"]
        sent = sns.publish(TopicArn=topic, Message="m")["MessageId"]
        wait_for(lambda: len(endpoint.posts) == 2)
    finally:
        endpoint.close()
    common = {
        "accept-encoding": "gzip,deflate", "connection": "Keep-Alive", "content-type": "text/plain; charset=UTF-8",
        "host": endpoint.address, "user-agent": "Amazon Simple Notification Service Agent",
        "x-amz-sns-topic-arn": topic,
    }  # fmt: skip
    (first, _), (second, body) = endpoint.posts
    first, second = ({name.lower(): value for name, value in found.items()} for found in (first, second))
    assert first.pop("content-length") and first == {
        **common, "x-amz-sns-message-id": asked["MessageId"], "x-amz-sns-message-type": "SubscriptionConfirmation",
    }  # fmt: skip
    assert body == "m" and second.pop("content-length") == "1" and second == {
        **common, "x-amz-sns-message-id": sent, "x-amz-sns-message-type": "Notification",
        "x-amz-sns-rawdelivery": "true", "x-amz-sns-subscription-arn": arn,
    }  # fmt: skip


def test_what_a_device_does_not_take_ends_in_its_dead_letter_queue(aws):
    sns, sqs, name = aws.client("sns"), aws.client("sqs"), "recorded-push"
    made = sns.create_platform_application(Name=name, Platform="GCM", Attributes={"PlatformCredential": "key"})
    application = made["PlatformApplicationArn"]
    device = sns.create_platform_endpoint(PlatformApplicationArn=application, Token="t")["EndpointArn"]
    topic, dead = sns.create_topic(Name=name)["TopicArn"], sqs.create_queue(QueueName=name)["QueueUrl"]
    letters = json.dumps({"deadLetterTargetArn": f"arn:aws:sqs:us-east-1:000000000000:{name}"})
    sns.subscribe(TopicArn=topic, Protocol="application", Endpoint=device, Attributes={"RedrivePolicy": letters})
    sns.publish(TopicArn=topic, Message="pushed")
    with urllib.request.urlopen(f"{aws.endpoint}/_preheat/outbox", timeout=10) as answer:
        sent = json.load(answer)["messages"]
    assert [one["body"] for one in sent if one["recipient"] == device] == ["pushed"]
    sns.delete_endpoint(EndpointArn=device)
    sns.publish(TopicArn=topic, Message="lost")
    (letter,) = sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=20)["Messages"]
    assert json.loads(letter["Body"])["Message"] == "lost"

"""Topics, subscriptions and topic policies in stacks."""

import json

import pytest

from preheat.services.sns.service import build as build_sns
from tests.unit.test_cloudformation_engine import Cloud

QUEUE = {"Type": "AWS::SQS::Queue", "Properties": {"FifoQueue": True, "ContentBasedDeduplication": True}}


@pytest.fixture
def cloud():
    made = Cloud()
    service = build_sns(made.world.platform)
    made.world.machine.add_service(service)
    for loop in service.loops:
        made.world.machine.add_loop(loop)
    return made


def topic(**properties):
    return {"Type": "AWS::SNS::Topic", "Properties": properties}


def follows(protocol="sqs", **properties):
    where = {"TopicArn": {"Ref": "T"}, "Endpoint": {"Fn::GetAtt": ["Q", "Arn"]}}
    return {"Type": "AWS::SNS::Subscription", "Properties": {**where, "Protocol": protocol, **properties}}


def attributes(cloud, arn):
    return cloud.world("sns", "GetTopicAttributes", TopicArn=arn)["Attributes"]


def subscription(cloud, arn):
    return cloud.world("sns", "GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]


def test_a_fifo_topic_with_a_fifo_queue(cloud):
    resources = {
        "T": topic(FifoTopic=True, ContentBasedDeduplication=True, TopicName="orders.fifo", SignatureVersion="2",
                   Tags=[{"Key": "a", "Value": "1"}]),
        "Q": QUEUE,
        "S": follows(RawMessageDelivery=True),
    }  # fmt: skip
    cloud.create("s", resources)
    cloud.run()
    assert cloud.status("s") == "CREATE_COMPLETE", cloud.events("s")
    arn = cloud.physical("s", "T")
    assert arn == "arn:aws:sns:us-east-1:000000000000:orders.fifo"
    values = attributes(cloud, arn)
    assert (values["ContentBasedDeduplication"], values["SignatureVersion"]) == ("true", "2")
    cloud.world("sns", "Publish", TopicArn=arn, Message="m", MessageGroupId="g")
    got = cloud.world("sqs", "ReceiveMessage", QueueUrl=cloud.physical("s", "Q"))["Messages"]
    assert [message["Body"] for message in got] == ["m"]
    tags = cloud.world("sns", "ListTagsForResource", ResourceArn=arn)["Tags"]
    assert {"Key": "a", "Value": "1"} in tags
    cloud("DeleteStack", StackName="s")
    cloud.run()
    assert cloud.world("sns", "ListTopics")["Topics"] == cloud.world("sns", "ListSubscriptions")["Subscriptions"] == []


def test_a_change_changes_what_stands(cloud):
    queue = {"Type": "AWS::SQS::Queue"}
    first = {
        "T": topic(DisplayName="one", SignatureVersion="2",
                   Subscription=[{"Protocol": "sms", "Endpoint": "+15550001111"}],
                   DeliveryStatusLogging=[{"Protocol": "sqs", "SuccessFeedbackSampleRate": "5"}]),
        "Q": queue, "D": queue,
        "S": follows(FilterPolicyScope="MessageBody", FilterPolicy={"a": {"b": ["x"]}}, RawMessageDelivery=True,
                     RedrivePolicy={"deadLetterTargetArn": {"Fn::GetAtt": ["D", "Arn"]}}),
    }  # fmt: skip
    cloud.create("s", first)
    cloud.run()
    assert cloud.status("s") == "CREATE_COMPLETE", cloud.events("s")
    topic_arn, own = cloud.physical("s", "T"), cloud.physical("s", "S")
    assert attributes(cloud, topic_arn)["SQSSuccessFeedbackSampleRate"] == "5"
    before = subscription(cloud, own)
    assert json.loads(before["FilterPolicy"]) == {"a": {"b": ["x"]}}
    assert (before["FilterPolicyScope"], before["RawMessageDelivery"]) == ("MessageBody", "true")
    second = {
        **first,
        "T": topic(DisplayName="two", Subscription=[{"Protocol": "sms", "Endpoint": "+15550002222"}]),
        "S": follows(FilterPolicy={"kind": ["x"]}),
    }
    cloud.update("s", second)
    cloud.run()
    assert cloud.status("s") == "UPDATE_COMPLETE", cloud.events("s")
    assert cloud.physical("s", "T") == topic_arn and cloud.physical("s", "S") == own
    values, after = attributes(cloud, topic_arn), subscription(cloud, own)
    assert values["DisplayName"] == "two" and values.get("SignatureVersion", "1") == "1"
    assert "SQSSuccessFeedbackSampleRate" not in values
    assert json.loads(after["FilterPolicy"]) == {"kind": ["x"]}
    assert (after["FilterPolicyScope"], after["RawMessageDelivery"]) == ("MessageAttributes", "false")
    assert "RedrivePolicy" not in after
    listed = cloud.world("sns", "ListSubscriptionsByTopic", TopicArn=topic_arn)["Subscriptions"]
    assert {one["Endpoint"] for one in listed if one["Protocol"] == "sms"} == {"+15550002222"}


@pytest.mark.parametrize("kind", ["AWS::SNS::TopicPolicy", "AWS::SNS::TopicInlinePolicy"])
def test_a_policy_comes_and_goes(cloud, kind):
    target = {"Topics": [{"Ref": "T"}]} if kind.endswith("TopicPolicy") else {"TopicArn": {"Ref": "T"}}
    statement = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sns:Publish",
                 "Resource": {"Ref": "T"}}  # fmt: skip
    document = {"Version": "2012-10-17", "Statement": [statement]}
    resources = {"T": topic(), "P": {"Type": kind, "Properties": {**target, "PolicyDocument": document}}}
    cloud.create("s", resources)
    cloud.run()
    assert cloud.status("s") == "CREATE_COMPLETE", cloud.events("s")
    arn = cloud.physical("s", "T")
    assert json.loads(attributes(cloud, arn)["Policy"])["Statement"][0]["Resource"] == arn
    cloud.update("s", {"T": resources["T"]})
    cloud.run()
    assert cloud.status("s") == "UPDATE_COMPLETE", cloud.events("s")
    assert json.loads(attributes(cloud, arn)["Policy"])["Id"] == "__default_policy_ID"


def test_what_is_refused_rolls_back(cloud):
    cloud.create("s", {"T": topic(), "Q": {"Type": "AWS::SQS::Queue"}, "S": follows(FilterPolicy={"a": "x"})})
    cloud.run()
    assert cloud.status("s") == "ROLLBACK_COMPLETE"
    assert any('"a" must be an object or an array' in reason for _, _, reason in cloud.events("s"))
    assert cloud.world("sns", "ListTopics")["Topics"] == []


def test_a_fifo_topics_name_is_not_made_up_when_there_is_one(cloud):
    """Recorded on AWS, August 2025: the stack is rolled back."""
    cloud.create("s", {"T": topic(FifoTopic=True, TopicName="orders"), "U": topic(FifoTopic=True)})
    cloud.run()
    assert cloud.status("s") == "ROLLBACK_COMPLETE"
    assert cloud.world("sns", "ListTopics") == {"Topics": []}
    cloud.create("t", {"U": topic(FifoTopic=True)})
    cloud.run()
    assert cloud.status("t") == "CREATE_COMPLETE" and cloud.physical("t", "U").endswith(".fifo")

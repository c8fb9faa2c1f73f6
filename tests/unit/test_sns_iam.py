"""Who may do what to a topic when policies are enforced."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.contract import Principal
from tests.unit.test_authorization import ACCOUNT, World, allow, policy

TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:t"


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    made.root("sns", "CreateTopic", Name="t")
    yield made
    made.platform.db.close()


def denied(world, principal, operation, **params):
    with pytest.raises(AwsError) as caught:
        world.call(principal, "sns", operation, **params)
    assert (caught.value.code, caught.value.status) == ("AuthorizationError", 403), caught.value
    return caught.value.message


def test_a_user_needs_an_allow_for_the_topic(world):
    user = world.user("u", allow("sns:Publish", TOPIC), allow("sns:CreateTopic", TOPIC + "2"))
    world.call(user, "sns", "Publish", TopicArn=TOPIC, Message="m")
    batch = [{"Id": "1", "Message": "m"}]
    world.call(user, "sns", "PublishBatch", TopicArn=TOPIC, PublishBatchRequestEntries=batch)
    world.call(user, "sns", "CreateTopic", Name="t2")
    text = denied(world, user, "Publish", TopicArn=TOPIC + "2", Message="m")
    assert f"is not authorized to perform: sns:Publish on resource: {TOPIC}2" in text
    denied(world, user, "Publish", PhoneNumber="+15550001111", Message="m")
    denied(world, user, "CreateTopic", Name="t3")
    denied(world, user, "CreateTopic", Name="t2", Tags=[{"Key": "a", "Value": "b"}])
    denied(world, user, "ListTopics")


def test_conditions_see_protocol_and_endpoint(world):
    only_mail = {"StringEquals": {"sns:Protocol": "email"}, "StringLike": {"sns:Endpoint": "*@example.com"}}
    user = world.user("u", allow("sns:Subscribe", TOPIC, Condition=only_mail))
    world.call(user, "sns", "Subscribe", TopicArn=TOPIC, Protocol="email", Endpoint="a@example.com")
    denied(world, user, "Subscribe", TopicArn=TOPIC, Protocol="email", Endpoint="a@example.org")
    denied(world, user, "Subscribe", TopicArn=TOPIC, Protocol="sms", Endpoint="+15550001111")


def test_another_account_needs_the_topics_leave(world):
    """The caller's own policies allow it; the topic's default policy speaks of its own account alone."""
    there = Principal("arn:aws:iam::111111111111:root", "111111111111")
    made = world.call(there, "iam", "CreateUser", UserName="s")["User"]
    document = policy(allow("sns:*"))
    world.call(there, "iam", "PutUserPolicy", UserName="s", PolicyName="p", PolicyDocument=document)
    stranger = Principal(made["Arn"], "111111111111", "user", made["UserId"])
    denied(world, stranger, "Publish", TopicArn=TOPIC, Message="m")
    world.root("sns", "AddPermission", TopicArn=TOPIC, Label="l", AWSAccountId=["111111111111"], ActionName=["Publish"])
    assert world.call(stranger, "sns", "Publish", TopicArn=TOPIC, Message="m")["MessageId"]
    denied(world, stranger, "Subscribe", TopicArn=TOPIC, Protocol="email", Endpoint="a@b.c")
    world.root("sns", "RemovePermission", TopicArn=TOPIC, Label="l")
    denied(world, stranger, "Publish", TopicArn=TOPIC, Message="m")


def test_a_denial_of_the_topics_policy_counts(world):
    user = world.user("u", allow("sns:*"))
    statement = {"Effect": "Deny", "Principal": "*", "Action": "sns:Publish", "Resource": TOPIC}
    world.root(
        "sns", "SetTopicAttributes", TopicArn=TOPIC, AttributeName="Policy", AttributeValue=policy(statement)
    )
    assert "explicit deny in a resource-based policy" in denied(world, user, "Publish", TopicArn=TOPIC, Message="m")


def test_the_token_of_a_link_is_leave_enough(world):
    anonymous = Principal("anonymous", "", "anonymous")
    world.root("sns", "Subscribe", TopicArn=TOPIC, Protocol="email", Endpoint="a@b.c")
    mail = world.machine.services["sns"].outbox()[0]["body"]
    token = mail.partition("&Token=")[2][:288]
    arn = world.call(anonymous, "sns", "ConfirmSubscription", TopicArn=TOPIC, Token=token)["SubscriptionArn"]
    user = world.user("u")
    denied(world, user, "Unsubscribe", SubscriptionArn=arn)
    assert world.call(anonymous, "sns", "Unsubscribe", SubscriptionArn=arn) == {}
    denied(world, anonymous, "Publish", TopicArn=TOPIC, Message="m")

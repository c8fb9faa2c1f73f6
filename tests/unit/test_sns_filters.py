"""Filter policies: what passes, what is refused, what is counted."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.sns.filters import Subject, compile_filter
from tests.unit.test_sns import QUEUE, Sns, number, string

ATTRIBUTES, BODY = "MessageAttributes", "MessageBody"


def array(*values):
    return {"DataType": "String.Array", "StringValue": json.dumps(values)}


def passes(policy, attributes, body="m", scope=ATTRIBUTES):
    return Subject(attributes, body).refuses(compile_filter(json.dumps(policy), scope)) is None


@pytest.mark.parametrize(
    ("policy", "attributes", "expected"),
    [
        ({"a": ["x"]}, {"a": string("x")}, True),
        ({"a": ["x"]}, {"a": string("X")}, False),
        ({"a": ["x"]}, {}, False),
        ({"a": ["x"], "b": ["y"]}, {"a": string("x")}, False),
        ({"a": ["x", "y"]}, {"a": string("y"), "other": string("z")}, True),
        ({"a": [1.5]}, {"a": number("1.50")}, True),
        ({"a": [100]}, {"a": number("1e2")}, True),
        ({"a": ["1"]}, {"a": number("1")}, False),
        ({"a": [1]}, {"a": string("1")}, False),
        ({"a": [{"numeric": [">", 0, "<=", 150]}]}, {"a": number("150")}, True),
        ({"a": [{"numeric": [">", 0, "<=", 150]}]}, {"a": number("150.1")}, False),
        ({"a": [{"numeric": ["=", 3]}]}, {"a": string("3")}, False),
        ({"a": [{"prefix": "us-"}]}, {"a": string("us-east-1")}, True),
        ({"a": [{"suffix": "ball"}]}, {"a": string("football")}, True),
        ({"a": [{"equals-ignore-case": "TENNIS"}]}, {"a": string("Tennis")}, True),
        ({"a": [{"wildcard": "*ball"}]}, {"a": string("baseball")}, True),
        ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": string("10.0.0.255")}, True),
        ({"a": [{"cidr": "10.0.0.0/24"}]}, {"a": string("10.0.1.0")}, False),
        ({"a": [{"exists": True}]}, {"a": string("x")}, True),
        ({"a": [{"exists": False}]}, {"a": string("x")}, False),
        ({"a": [{"exists": False}]}, {}, True),
        ({"a": [{"anything-but": ["x", "y"]}]}, {"a": string("z")}, True),
        ({"a": [{"anything-but": ["x", "y"]}]}, {"a": string("y")}, False),
        ({"a": [{"anything-but": ["x"]}]}, {}, False),
        ({"a": [{"anything-but": {"prefix": "no"}}]}, {"a": string("note")}, False),
        ({"a": [{"anything-but": {"wildcard": "n*e"}}]}, {"a": string("note")}, False),
        ({"a": ["x"]}, {"a": array("w", "x")}, True),
        ({"a": [2]}, {"a": array(1, 2)}, True),
        ({"a": [True]}, {"a": array(True)}, True),
        ({"a": [None]}, {"a": array(None)}, True),
        ({"a": ["x"]}, {"a": array("w")}, False),
        ({"a": [{"anything-but": [100, 500]}]}, {"a": {"DataType": "Number.Array", "StringValue": "[100, 50]"}}, True),
        ({"a": ["x"]}, {"a": {"DataType": "Binary", "BinaryValue": b"x"}}, False),
        ({"$or": [{"a": ["x"]}, {"b": [1]}]}, {"b": number("1")}, True),
        ({"$or": [{"a": ["x"]}, {"b": [1]}]}, {"b": number("2")}, False),
    ],
)
def test_attributes_are_matched(policy, attributes, expected):
    assert passes(policy, attributes) is expected


@pytest.mark.parametrize(
    ("policy", "body", "expected"),
    [
        ({"a": {"b": ["x"]}}, '{"a": {"b": "x"}}', True),
        ({"a": {"b": ["x"]}}, '{"a": "x"}', False),
        ({"a": ["x"]}, '{"a": ["w", "x"]}', True),
        ({"a": [{"numeric": ["<", 5]}]}, '{"a": 4}', True),
        ({"a": [{"exists": False}]}, '{"b": 1}', True),
        ({"a": [{"exists": False}]}, "no JSON", False),
        ({"a": [{"exists": False}]}, "[1]", False),
        ({"$or": [{"a": {"b": ["x"]}}, {"c": [1]}]}, '{"c": 1}', True),
    ],
)
def test_bodies_are_matched(policy, body, expected):
    assert passes(policy, {}, body, BODY) is expected


@pytest.mark.parametrize(
    ("policy", "scope", "reason"),
    [
        ({name: ["x"] for name in "abcdef"}, ATTRIBUTES, "FilterPolicy: Filter policy can not have more than 5 keys"),
        ({"a": list(range(151))}, ATTRIBUTES, "FilterPolicy: Filter policy is too complex"),
        ({"a": list("12345"), "b": list("12345"), "c": list("1234567")}, ATTRIBUTES,
         "FilterPolicy: Filter policy is too complex"),
        ({"a": {"b": {"c": list("12345")}}, "d": {"e": list("123456")}}, BODY,
         "FilterPolicy: Filter policy is too complex"),
        ({"a": {"b": ["x"]}}, ATTRIBUTES,
         "Filter policy scope MessageAttributes does not support nested filter policy"),
    ],
)  # fmt: skip
def test_bounds_of_a_policy(policy, scope, reason):
    with pytest.raises(AwsError) as caught:
        compile_filter(json.dumps(policy), scope)
    assert (caught.value.code, caught.value.message) == ("InvalidParameter", f"Invalid parameter: {reason}")


def test_what_is_just_within_the_bounds():
    """AWS's own example: 4 values three levels deep and 3 values two levels deep are 72 combinations."""
    deep = {"a": {"b": {"c": list("1234")}}, "d": {"e": list("123")}}
    assert passes(deep, {}, '{"a": {"b": {"c": "4"}}, "d": {"e": "1"}}', BODY)
    assert passes({"a": list(range(150))}, {"a": number("149")})


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"a": [{"wrong-operator": 1}]}, "Unrecognized match type wrong-operator"),
        ({"a": []}, "Empty arrays are not allowed"),
        ({"a": "x"}, '"a" must be an object or an array'),
        ({"a": [["x"]]}, "Match value must be String, number, true, false, or null"),
        ({"a": [{"prefix": 1}]}, "prefix match pattern must be a string"),
        ({"a": [{"exists": "x"}]}, "exists match pattern must be either true or false."),
        ({"a": [{"numeric": ["?", 1]}]}, "Unrecognized numeric range operator: ?"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "Only one key allowed in match expression"),
    ],
)
def test_errors_name_the_place(policy, reason):
    with pytest.raises(AwsError) as caught:
        compile_filter(json.dumps(policy), ATTRIBUTES, "Attributes Reason: ")
    assert caught.value.message.startswith(
        f"Invalid parameter: Attributes Reason: FilterPolicy: {reason}\n at [Source: (String)"
    )


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ('{"key":[{"anything-but":{"wrong-operator":null}}]}', "Unsupported anything-but pattern: wrong-operator", 47),
        ('{"key":[{"anything-but":{"suffix":"test"}}]}', "Unsupported anything-but pattern: suffix", 36),
        ('{"key":[{"anything-but":{"exists":false}}]}', "Unsupported anything-but pattern: exists", 40),
        ('{"key":[{"anything-but":{"prefix":false}}]}', "prefix match pattern must be a string", 40),
    ],
)
def test_errors_that_were_recorded_on_aws(text, reason, column):
    with pytest.raises(AwsError) as caught:
        compile_filter(text, ATTRIBUTES, "Attributes Reason: ")
    place = f'at [Source: (String)"{text}"; line: 1, column: {column}]'
    assert caught.value.message == f"Invalid parameter: Attributes Reason: FilterPolicy: {reason}\n {place}"


def counts(world):
    return {series.name: sample.total for (series, _), sample in world.machine.meter.take().items()}


def test_each_subscription_gets_its_own_and_the_rest_is_counted():
    world = Sns()
    topic = world.topic()
    policies = {
        "all": {},
        "big": {"FilterPolicy": '{"size": [{"numeric": [">=", 10]}]}'},
        "body": {"FilterPolicy": '{"kind": ["order"]}', "FilterPolicyScope": "MessageBody"},
    }
    urls = {name: world.queue(name) for name in policies}
    for name, attributes in policies.items():
        world.follow(topic, name, RawMessageDelivery="true", **attributes)
    world.machine.meter.take()
    world.sns("Publish", TopicArn=topic, Message='{"kind": "order"}')
    assert counts(world) == {
        "NumberOfMessagesPublished": 1, "PublishSize": 17, "NumberOfNotificationsDelivered": 2,
        "NumberOfNotificationsFilteredOut": 1, "NumberOfNotificationsFilteredOut-NoMessageAttributes": 1,
    }  # fmt: skip
    world.sns("Publish", TopicArn=topic, Message="no JSON", MessageAttributes={"size": number("3")})
    found = counts(world)
    assert found["NumberOfNotificationsFilteredOut"] == 2
    assert found["NumberOfNotificationsFilteredOut-MessageAttributes"] == 1
    assert found["NumberOfNotificationsFilteredOut-InvalidMessageBody"] == 1
    world.sns("Publish", TopicArn=topic, Message='{"kind": "x"}', MessageAttributes={"size": number("30")})
    found = counts(world)
    assert found["NumberOfNotificationsFilteredOut-MessageBody"] == 1 == found["NumberOfNotificationsFilteredOut"]
    broken = {"size": {"DataType": "String.Array", "StringValue": "[1"}}
    world.sns("Publish", TopicArn=topic, Message='{"kind": "x"}', MessageAttributes=broken)
    assert counts(world)["NumberOfNotificationsFilteredOut-InvalidAttributes"] == 1
    assert {name: len(world.bodies(url)) for name, url in urls.items()} == {"all": 4, "big": 1, "body": 1}


def test_a_changed_policy_acts_on_the_next_message():
    world = Sns()
    topic, url = world.topic(), world.queue()
    arn = world.follow(topic, RawMessageDelivery="true")

    def put(name, value):
        world.sns("SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName=name, AttributeValue=value)

    put("FilterPolicy", '{"kind": ["a"]}')
    world.sns("Publish", TopicArn=topic, Message='{"kind": "a"}')
    put("FilterPolicyScope", "MessageBody")
    world.sns("Publish", TopicArn=topic, Message='{"kind": "a"}')
    put("FilterPolicy", "")
    world.sns("Publish", TopicArn=topic, Message="anything")
    assert [message["Body"] for message in world.bodies(url)] == ['{"kind": "a"}', "anything"]
    put("FilterPolicyScope", "MessageBody")
    put("FilterPolicy", '{"a": {"b": ["x"]}}')
    params = {"SubscriptionArn": arn, "AttributeName": "FilterPolicyScope", "AttributeValue": "MessageAttributes"}
    assert world.refused("SetSubscriptionAttributes", **params)[1] == (
        "Invalid parameter: Filter policy scope MessageAttributes does not support nested filter policy"
    )


def test_a_topic_takes_two_hundred_filter_policies():
    world = Sns()
    topic = world.topic()
    for index in range(200):
        world.follow(topic, f"q{index}", FilterPolicy='{"a": ["x"]}')
    params = {"TopicArn": topic, "Protocol": "sqs", "Endpoint": QUEUE + "last"}
    refused = world.refused("Subscribe", **params, Attributes={"FilterPolicy": '{"a": ["x"]}'})
    assert refused[0] == "FilterPolicyLimitExceeded"
    world.sns("Subscribe", **params)

"""What the short ways through the busiest operations must not change."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.services.sqs import domain
from preheat.services.sqs import service as sqs
from preheat.wire import Wire
from tests.support.inprocess import InProcess
from tests.unit.test_events import QUEUE
from tests.unit.test_events import World as Events

SIGNED = "AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/sqs/aws4_request, SignedHeaders=host, Signature={end}"


@pytest.fixture
def world():
    world = InProcess(sqs.build)
    yield world
    assert world.defects == []


def taken(world, url):
    return world("sqs", "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])


def test_every_character_is_let_in_or_kept_out_as_xml_has_it():
    good = {"\t", "\n", "\r", *map(chr, range(0x20, 0x80)), "€", "\ud7ff", "\ue000", "\ufffd", "\U00010000"}
    for character in {*map(chr, range(0x80)), *good, "\ufffe", "\uffff"}:
        for body in (character, "a" + character, character + "€"):
            if character in good:
                assert domain.measured(body)[0] == len(body.encode())
            else:
                with pytest.raises(AwsError, match="InvalidMessageContents"):
                    domain.measured(body)
    with pytest.raises(AwsError, match="MissingRequiredParameter"):
        domain.measured("")


def test_a_batch_keeps_its_order_whatever_is_in_it(world):
    url = world("sqs", "CreateQueue", QueueName="q", Attributes={"MaximumMessageSize": "1024"})["QueueUrl"]
    attribute = {"k": {"DataType": "String", "StringValue": "v"}}
    for more in ({}, {"MessageAttributes": attribute}):
        entries = [{"Id": f"e{number}", "MessageBody": f"m{number}"} for number in range(4)]
        entries[1]["MessageBody"] = "\x01"
        entries[2]["MessageBody"] = "x" * 2_000
        entries[3] |= more
        answer = world("sqs", "SendMessageBatch", QueueUrl=url, Entries=entries)
        assert [one["Id"] for one in answer["Successful"]] == ["e0", "e3"]
        assert [(one["Id"], one["Code"]) for one in answer["Failed"]] == [
            ("e1", "InvalidMessageContents"), ("e2", "InvalidParameterValue"),
        ]  # fmt: skip
        messages = taken(world, url)
        assert [message["Body"] for message in messages] == ["m0", "m3"]
        assert [message["MessageId"] for message in messages] == [one["MessageId"] for one in answer["Successful"]]
        assert [message["MD5OfBody"] for message in messages] == [
            one["MD5OfMessageBody"] for one in answer["Successful"]
        ]


def test_a_batch_wakes_as_many_receives_as_it_has_messages(world):
    url = world("sqs", "CreateQueue", QueueName="q")["QueueUrl"]
    parked = [world.start("sqs", "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=20) for _ in range(4)]
    entries = [{"Id": str(number), "MessageBody": "x"} for number in range(3)]
    world("sqs", "SendMessageBatch", QueueUrl=url, Entries=entries)
    assert sum(bool(replies) for replies in parked) == 3


def test_a_url_means_the_queue_as_it_is_now(world):
    url = world("sqs", "CreateQueue", QueueName="q")["QueueUrl"]
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="x" * 2_000)
    world("sqs", "SetQueueAttributes", QueueUrl=url, Attributes={"MaximumMessageSize": "1024", "DelaySeconds": "5"})
    with pytest.raises(AwsError, match="1024 bytes"):
        world("sqs", "SendMessage", QueueUrl=url, MessageBody="x" * 2_000)
    world("sqs", "DeleteQueue", QueueUrl=url)
    with pytest.raises(AwsError, match="QueueDoesNotExist"):
        world("sqs", "SendMessage", QueueUrl=url, MessageBody="x")
    world.advance(61)
    world("sqs", "CreateQueue", QueueName="q")
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="new")
    assert [message["Body"] for message in taken(world, url)] == ["new"]


def test_a_copy_is_the_common_head_and_the_part_of_its_own(world):
    urls = [world("sqs", "CreateQueue", QueueName=name)["QueueUrl"] for name in ("a", "b", "c")]
    answers = []

    def run(ctx):
        wanted = [(ctx.scope, "a", ""), (ctx.scope, "b", " zwei €"), (ctx.scope, "c", "\x01")]
        answers.extend(world.machine.services["sqs"].copies(ctx, wanted, "s", "one"))
        answers.extend(world.machine.services["sqs"].copies(ctx, [(ctx.scope, "a", "fine")], "s", "\x01"))
        answers.extend(world.machine.services["sqs"].copies(ctx, [(ctx.scope, "a", "")], "s"))
        return {}

    world.machine.perform(run, lambda reply: None)
    world.settle()
    assert answers == [True, True, False, False, False]
    for url, body in zip(urls, ("one", "one zwei €"), strict=False):
        (found,) = taken(world, url)
        assert (found["Body"], found["MD5OfBody"]) == (body, domain.body_md5(body))
    assert taken(world, urls[2]) == []


def test_regions_of_one_client_are_told_apart():
    wire = Wire()
    for key, region, end in (("k", "eu-west-1", "0"), ("k", "us-west-2", "0"), ("k", "eu-west-1", "1")):
        headers = {
            "x-amz-target": "AmazonSQS.ListQueues", "content-type": "application/x-amz-json-1.0",
            "authorization": SIGNED.format(key=key, region=region, end=end),
        }  # fmt: skip
        assert wire.understand(HttpRequest("POST", "/", headers, b"{}")).region == region


def test_outputs_lose_what_the_model_does_not_know_and_what_is_none():
    wire = Wire()
    headers = {"x-amz-target": "AmazonSQS.SendMessage", "content-type": "application/x-amz-json-1.0"}
    request = HttpRequest("POST", "/", headers, b'{"QueueUrl":"q","MessageBody":"x"}')
    call = wire.understand(request)
    for more in ({}, {"SequenceNumber": None}, {"Unknown": 1}):
        output = {"MessageId": "m", **more}
        assert json.loads(wire.reply(call, output, "r").body) == {"MessageId": "m"}
        assert output == {"MessageId": "m", **more}


def test_rules_that_look_at_different_members_each_see_theirs():
    world = Events()
    url = world.queue()
    patterns = {
        "source": {"source": ["shop"]},
        "either": {"$or": [{"resources": ["r"]}, {"detail": {"a": {"b": [1]}}}]},
        "absent": {"detail": {"x": [{"exists": False}]}, "account": ["000000000000"]},
        "time": {"time": [{"prefix": "20"}]},
    }
    for name, pattern in patterns.items():
        world.rule(pattern, {"Arn": QUEUE, "Input": json.dumps(name)}, name=name)

    def told(**entry):
        world.events("PutEvents", Entries=[{"Source": "none", "DetailType": "t", "Detail": "{}", **entry}])
        messages = taken(world, url)
        for message in messages:
            world("sqs", "DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return {json.loads(message["Body"]) for message in messages}

    assert told() == {"absent", "time"}
    assert told(Source="shop", Detail='{"x": 1}') == {"source", "time"}
    assert told(Resources=["r"]) == {"either", "absent", "time"}
    assert told(Detail='{"a": {"b": 1}, "x": null}') == {"either", "time"}
    assert world.defects == []

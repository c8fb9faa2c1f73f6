"""Queues that trigger functions, with real handlers and a real process that dies."""

import json
import time

import pytest

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

COPY = """
import boto3, json, os
sqs = boto3.client("sqs")

def handler(event, context):
    failed = []
    for record in event["Records"]:
        if record["body"] == "bad":
            failed.append({"itemIdentifier": record["messageId"]})
            continue
        sqs.send_message(QueueUrl=os.environ["TARGET"], MessageBody=record["body"])
    return {"batchItemFailures": failed}
"""


class Road:
    """A queue, a function that copies its messages to another queue, and the mapping between them."""

    def __init__(self, server, name, source=COPY, queue=None, **mapping):
        self.sqs, self.functions = server.client("sqs"), server.client("lambda")
        self.target = self.sqs.create_queue(QueueName=f"{name}-out")["QueueUrl"]
        attributes = {"VisibilityTimeout": "30", **(queue or {})}
        self.url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.functions.create_function(
            FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=20,
            Code={"ZipFile": make_zip({"app.py": source})}, Environment={"Variables": {"TARGET": self.target}},
        )  # fmt: skip
        self.uuid = self.functions.create_event_source_mapping(
            EventSourceArn=f"arn:aws:sqs:us-east-1:000000000000:{name}", FunctionName=name, **mapping
        )["UUID"]

    def send(self, *bodies):
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def counts(self, url=None):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        values = self.sqs.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)["Attributes"]
        return tuple(int(values[name]) for name in names)

    def drained(self, count):
        return wait_for(
            lambda: self.counts() == (0, 0) and self.counts(self.target)[0] == count, what=f"{count} copies"
        )


def test_messages_go_through_and_are_gone(aws):
    road = Road(aws, "road")
    road.send("warm")
    road.drained(1)
    began = time.monotonic()
    road.send("quick")
    road.drained(2)
    assert time.monotonic() - began < 5
    assert road.functions.get_event_source_mapping(UUID=road.uuid)["State"] == "Enabled"


def test_a_bad_message_ends_in_the_dead_letter_queue_and_the_good_do_not(aws):
    dead = aws.client("sqs").create_queue(QueueName="road-dead")["QueueUrl"]
    redrive = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:road-dead", "maxReceiveCount": "2"}
    road = Road(
        aws, "road-partial", queue={"RedrivePolicy": json.dumps(redrive)},
        FunctionResponseTypes=["ReportBatchItemFailures"], Enabled=False,
    )  # fmt: skip
    road.send("good", "bad", "fine")
    road.functions.update_event_source_mapping(UUID=road.uuid, Enabled=True)
    wait_for(lambda: road.counts(road.target)[0] == 2, what="two copies")
    wait_for(lambda: road.counts() == (0, 1), what="the settled batch")

    def dead_lettered():
        aws.advance(31)
        return road.counts(dead) == (1, 0)

    wait_for(dead_lettered, what="the dead letter")
    assert road.counts(road.target)[0] == 2 and road.counts() == (0, 0)


@pytest.mark.slow
def test_no_message_is_lost_when_the_server_is_killed(fresh_server):
    server = fresh_server()
    road = Road(server, "killed", BatchSize=2)
    road.send(*[f"m{number}" for number in range(40)])
    wait_for(lambda: road.counts(road.target)[0] >= 4, what="the first copies")
    server.kill()
    server.start()

    def through():
        server.advance(31)
        return road.counts() == (0, 0)

    wait_for(through, what="the rest")
    seen = set()

    def everything():
        for message in road.sqs.receive_message(QueueUrl=road.target, MaxNumberOfMessages=10).get("Messages", []):
            seen.add(message["Body"])
        return seen == {f"m{number}" for number in range(40)}

    wait_for(everything, what="all forty")

"""Queues that trigger functions, with real handlers and a real process that dies."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.test_iam_enforced import EnforcedServer, allow
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
    assert time.monotonic() - began < 15
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

    stuck = [road.counts(), time.monotonic()]

    def through():
        """The clock moves past the claims of the dead only when nothing else does: it would end the living's too."""
        counts = road.counts()
        if counts != stuck[0]:
            stuck[:] = counts, time.monotonic()
        elif counts != (0, 0) and time.monotonic() - stuck[1] > 2:
            server.advance(31)
            stuck[1] = time.monotonic()
        return counts == (0, 0)

    wait_for(through, what="the rest")
    seen = set()

    def everything():
        for message in road.sqs.receive_message(QueueUrl=road.target, MaxNumberOfMessages=10).get("Messages", []):
            seen.add(message["Body"])
        return seen == {f"m{number}" for number in range(40)}

    wait_for(everything, what="all forty")


TIMES = """
import boto3, json, os, time
sqs = boto3.client("sqs")

def handler(event, context):
    began = time.time()
    time.sleep(float(os.environ.get("HOLD", "0")))
    body = json.dumps({"sent": event["Records"][0]["body"], "began": began, "ended": time.time()})
    sqs.send_message(QueueUrl=os.environ["TARGET"], MessageBody=body)
"""


def spans(road, count):
    """What TIMES recorded of the next so many messages."""
    found = {}

    def everything():
        for message in road.sqs.receive_message(QueueUrl=road.target, MaxNumberOfMessages=10).get("Messages", []):
            found[message["MessageId"]] = json.loads(message["Body"])
            road.sqs.delete_message(QueueUrl=road.target, ReceiptHandle=message["ReceiptHandle"])
        return len(found) == count

    wait_for(everything, what=f"{count} records")
    return list(found.values())


def test_maximum_concurrency_bounds_what_really_runs_at_once(aws):
    road = Road(aws, "bounded", TIMES, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2}, Enabled=False)
    road.functions.update_function_configuration(
        FunctionName="bounded", Environment={"Variables": {"TARGET": road.target, "HOLD": "0.2"}}
    )
    road.send(*[f"m{number}" for number in range(10)])
    road.functions.update_event_source_mapping(UUID=road.uuid, Enabled=True)
    runs = spans(road, 10)
    overlap = max(sum(other["began"] <= run["began"] < other["ended"] for other in runs) for run in runs)
    assert overlap == 2


def test_a_send_starts_the_function_within_milliseconds(aws):
    road = Road(aws, "prompt", TIMES)
    road.send("warm")
    spans(road, 1)
    delays = []
    for _ in range(8):
        sent = time.time()
        road.send(repr(sent))
        delays += [run["began"] - sent for run in spans(road, 1)]
    assert min(delays) < 0.05, delays


def test_the_trap_is_found_and_printed(aws):
    dead = aws.client("sqs").create_queue(QueueName="trapped-dead")["QueueUrl"]
    redrive = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:trapped-dead", "maxReceiveCount": "1"}
    road = Road(aws, "trapped", queue={"RedrivePolicy": json.dumps(redrive)}, BatchSize=1)
    road.functions.put_function_concurrency(FunctionName="trapped", ReservedConcurrentExecutions=0)

    def about_it():
        status, _, body = aws.get("/_preheat/findings")
        found = json.loads(body)["findings"]
        assert status == 200
        return {one["kind"]: one for one in found if one["subject"].endswith(road.uuid)}

    assert about_it()["esm-reserved-concurrency"]["severity"] == "high"
    road.send("valid", "too")

    def dead_lettered():
        aws.advance(31)
        return road.counts(dead) == (2, 0)

    wait_for(dead_lettered, what="the dead letters")
    finding = about_it()["esm-throttled"]
    assert finding["settings"] == {"ReservedConcurrentExecutions": 0, "ScalingConfig.MaximumConcurrency": None}
    assert finding["tally"]["MessagesLostToDeadLetterQueue"] == 2
    assert "trapped throttled a batch" in aws.log.read_text()

    command = [str(Path(sys.executable).parent / "preheat"), "findings", "--port", str(aws.port)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1
    assert "MessagesLostToDeadLetterQueue = 2" in said.stdout and road.uuid in said.stdout
    road.functions.delete_event_source_mapping(UUID=road.uuid)
    assert about_it() == {}


def test_the_role_needs_its_permissions_at_every_poll(tmp_path):
    server = EnforcedServer(tmp_path / "state").start()
    iam, sqs, functions = server.client("iam"), server.client("sqs"), server.client("lambda")
    own = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
    role = server.role("reader", allow(list(own)))
    url = sqs.create_queue(QueueName="guarded")["QueueUrl"]
    server.function("guarded", role)
    uuid = functions.create_event_source_mapping(
        EventSourceArn="arn:aws:sqs:us-east-1:000000000000:guarded", FunctionName="guarded"
    )["UUID"]

    def counts():
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return tuple(int(found[name]) for name in names)

    sqs.send_message(QueueUrl=url, MessageBody="a")
    wait_for(lambda: counts() == (0, 1), what="the failed message")
    iam.delete_role_policy(RoleName="reader", PolicyName="p")
    sqs.send_message(QueueUrl=url, MessageBody="b")

    def result():
        return functions.get_event_source_mapping(UUID=uuid).get("LastProcessingResult", "")

    wait_for(lambda: "sqs:receivemessage" in result().lower(), what="the problem")
    assert counts() == (1, 1)
    policy = {"Version": "2012-10-17", "Statement": [allow(list(own))]}
    iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=json.dumps(policy))

    def again():
        server.advance(6)
        return counts()[0] == 0 and result() == ""

    wait_for(again, what="the next poll")
    assert server.stop() == 0

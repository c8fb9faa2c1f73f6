"""SIGKILL under load, and what must be there afterwards."""

import json
import threading

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.crashing import Crashes, descendants
from tests.support.execution_driver import alive
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

KILLS = 5
SLOW = """
import boto3, os, time

def handler(event, context):
    sqs = boto3.client("sqs")
    sqs.send_message(QueueUrl=os.environ["MARKS"], MessageBody="began")
    time.sleep(event["seconds"])
    sqs.send_message(QueueUrl=os.environ["MARKS"], MessageBody="ended")
    return event
"""


@pytest.fixture
def slow(fresh_server):
    """A server, its queue of marks, and a function that leaves a mark, sleeps, and leaves another."""
    server = fresh_server()
    marks = server.client("sqs").create_queue(QueueName="marks")["QueueUrl"]
    functions = server.client("lambda")
    functions.create_function(
        FunctionName="slow", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=60,
        Code={"ZipFile": make_zip({"app.py": SLOW})}, Environment={"Variables": {"MARKS": marks}},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="slow")
    return server, marks


def bodies(server, url):
    messages = server.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    return [message["Body"] for message in messages]


def test_nothing_acknowledged_is_lost_by_killing_the_server_under_load(tmp_path):
    crashes = Crashes(tmp_path / "state", seed=20)
    try:
        for _ in range(KILLS):
            crashes.kill_once()
        crashes.stop()
    finally:
        crashes.server.stop()
    assert all(crashes.found[load.name] for load in crashes.loads), crashes.found
    assert crashes.workers_ended > 0


def test_a_message_in_flight_at_the_kill_comes_back_when_its_visibility_ends(fresh_server):
    server = fresh_server()
    sqs = server.client("sqs")
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "40"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="held")
    sqs.send_message(QueueUrl=url, MessageBody="deleted")
    handles = {m["Body"]: m["ReceiptHandle"] for m in _receive(sqs, url, 2)}
    sqs.delete_message(QueueUrl=url, ReceiptHandle=handles["deleted"])
    server.kill()
    server.start()
    server.advance(20)
    assert _receive(sqs, url, 2) == []
    server.advance(21)
    again = _receive(sqs, url, 2)
    assert [(m["Body"], m["Attributes"]["ApproximateReceiveCount"]) for m in again] == [("held", "2")]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=again[0]["ReceiptHandle"])
    server.kill()
    server.start()
    server.advance(41)
    assert _receive(sqs, url, 2) == []


def _receive(sqs, url, count):
    request = {"QueueUrl": url, "MaxNumberOfMessages": 10, "MessageSystemAttributeNames": ["All"]}
    found = []
    while len(found) < count and (batch := sqs.receive_message(**request).get("Messages")):
        found += batch
    return found


def test_a_synchronous_invocation_in_flight_is_answered_with_a_broken_connection(slow):
    server, marks = slow
    ends = []

    def call():
        try:
            ends.append(server.client("lambda").invoke(FunctionName="slow", Payload=json.dumps({"seconds": 50})))
        except (BotoCoreError, ClientError) as error:
            ends.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_for(lambda: bodies(server, marks) == ["began"], what="the handler's first mark")
    workers = descendants(server.process.pid)
    server.kill()
    thread.join(60)
    assert isinstance(ends[0], BotoCoreError), ends
    wait_for(lambda: not any(map(alive, workers)), what="the end of the workers")
    server.start()
    server.advance(61)
    assert bodies(server, marks) == ["began"], "the handler went on after its server's death, or was run again"


def test_an_asynchronous_invocation_cut_off_by_the_kill_is_run_again(slow):
    server, marks = slow
    answer = server.client("lambda").invoke(
        FunctionName="slow", InvocationType="Event", Payload=json.dumps({"seconds": 1})
    )
    assert answer["StatusCode"] == 202
    wait_for(lambda: bodies(server, marks) == ["began"], what="the first run's mark")
    server.kill()
    server.start()
    seen = []
    wait_for(lambda: seen.extend(bodies(server, marks)) or "ended" in seen, what="the second run's end")
    assert seen == ["began", "ended"]


def test_an_asynchronous_invocation_accepted_just_before_the_kill_is_run(slow):
    server, marks = slow
    functions = server.client("lambda")
    functions.invoke(FunctionName="slow", InvocationType="Event", Payload=json.dumps({"seconds": 0}))
    server.kill()
    server.start()
    seen = []
    wait_for(lambda: seen.extend(bodies(server, marks)) or "ended" in seen, what="the run's end")


def test_what_was_written_with_an_fsync_per_commit_survives_too(fresh_server):
    server = fresh_server("--durability", "power")
    s3, sqs = server.client("s3"), server.client("sqs")
    s3.create_bucket(Bucket="fsync")
    s3.put_object(Bucket="fsync", Key="large", Body=b"x" * 200_000)
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="kept")
    server.kill()
    server.start()
    assert s3.get_object(Bucket="fsync", Key="large")["Body"].read() == b"x" * 200_000
    assert bodies(server, url) == ["kept"]

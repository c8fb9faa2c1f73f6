"""What an audit of concurrency, asynchronous invocation and event source mappings found, seen from outside."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

COPY = """
import boto3, os
sqs = boto3.client("sqs")

def handler(event, context):
    for record in event["Records"]:
        text = f"{record['body']} {os.environ['MARK']} {record['attributes']['ApproximateReceiveCount']}"
        sqs.send_message(QueueUrl=os.environ["TARGET"], MessageBody=text)
"""


class Copier:
    """A queue whose messages a function copies to another queue, with its MARK and the receive count."""

    def __init__(self, server, name, visibility_s):
        self.name, self.sqs, self.functions = name, server.client("sqs"), server.client("lambda")
        self.target = self.sqs.create_queue(QueueName=f"{name}-out")["QueueUrl"]
        self.url = self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(visibility_s)})[
            "QueueUrl"
        ]
        self.create("first")
        arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
        self.uuid = self.functions.create_event_source_mapping(EventSourceArn=arn, FunctionName=name)["UUID"]

    def create(self, mark):
        self.functions.create_function(
            FunctionName=self.name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=3,
            Code={"ZipFile": make_zip({"app.py": COPY})}, Environment=self.environment(mark),
        )  # fmt: skip

    def environment(self, mark):
        return {"Variables": {"TARGET": self.target, "MARK": mark}}

    def counts(self):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return tuple(int(found[name]) for name in names)

    def send_while_throttled(self, body):
        self.functions.put_function_concurrency(FunctionName=self.name, ReservedConcurrentExecutions=0)
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)
        wait_for(lambda: self.counts() == (0, 1), what="the throttled batch")

    def copied(self):
        """The next copy's text."""
        request = {"QueueUrl": self.target, "WaitTimeSeconds": 1}
        return wait_for(lambda: self.sqs.receive_message(**request).get("Messages"), what="a copy")[0]["Body"]


def test_a_throttled_batch_runs_what_the_function_is_by_then(aws):
    road = Copier(aws, "aimed", 30)
    road.send_while_throttled("a")
    road.functions.update_function_configuration(FunctionName="aimed", Environment=road.environment("second"))
    road.functions.delete_function_concurrency(FunctionName="aimed")
    assert road.copied() == "a second 1"


def test_a_throttled_batch_of_a_deleted_function_comes_back_to_its_successor(fresh_server):
    server = fresh_server()
    road = Copier(server, "succeeded", 30)
    road.send_while_throttled("a")
    road.functions.delete_function(FunctionName="succeeded")

    def problem():
        server.advance(4)
        found = road.functions.get_event_source_mapping(UUID=road.uuid)
        return "Function not found" in found.get("LastProcessingResult", "")

    wait_for(problem, what="the problem")
    road.create("successor")
    server.advance(31)
    assert road.copied() == "a successor 2"


def test_findings_follow_a_functions_timeout_and_its_end(aws):
    road = Copier(aws, "advised", 18)

    def severity():
        found = json.loads(aws.get("/_preheat/findings")[2])["findings"]
        about = (one for one in found if one["subject"].endswith(road.uuid))
        return {one["kind"]: one["severity"] for one in about}.get("esm-visibility-timeout")

    assert severity() is None
    road.functions.update_function_configuration(FunctionName="advised", Timeout=10)
    assert severity() == "low"
    road.functions.update_function_configuration(FunctionName="advised", Timeout=20)
    assert severity() == "high"
    road.functions.delete_function(FunctionName="advised")
    assert severity() is None


@pytest.mark.parametrize("kind", ["RequestResponse", "Event", "DryRun"])
def test_an_unknown_log_type_is_refused(aws, kind):
    functions = aws.client("lambda", parameter_validation=False)
    with pytest.raises(ClientError) as refused:
        functions.invoke(FunctionName="nobody", InvocationType=kind, LogType="Tale")
    error = refused.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert "'Tale' at 'logType' failed to satisfy constraint: Member must satisfy enum value set" in error["Message"]


TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Fn:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: moving
      Runtime: python3.11
      Handler: app.handler
      CodeUri: s3://moving-code/%s.zip
      AutoPublishAlias: live
      ProvisionedConcurrencyConfig:
        ProvisionedConcurrentExecutions: %d
"""
SAY = """
import os, time
time.sleep(0.3)
KIND = os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]

def handler(event, context):
    return [%r, context.function_version, KIND]
"""


@pytest.mark.slow
def test_a_provisioned_sam_function_that_is_updated_twice_never_starts_cold(aws, tmp_path):
    storage, functions = aws.client("s3"), aws.client("lambda")
    storage.create_bucket(Bucket="moving-code")

    def deploy(name, count):
        storage.put_object(Bucket="moving-code", Key=f"{name}.zip", Body=make_zip({"app.py": SAY % name}))
        (tmp_path / "template.yaml").write_text(TEMPLATE % (name, count))
        preheat = str(Path(sys.executable).parent / "preheat")
        command = [preheat, "deploy", str(tmp_path), "--stack", "moving", "--port", str(aws.port)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stdout + said.stderr

    def call():
        return json.loads(functions.invoke(FunctionName="moving:live")["Payload"].read())

    deploy("one", 1)
    answers, done = [call()], threading.Event()

    def keep_calling():
        while not done.wait(0.12):
            answers.append(call())

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        deploy("two", 1)
        deploy("three", 2)
    finally:
        done.set()
        caller.join()
    answers.append(call())
    assert {kind for _, _, kind in answers} == {"provisioned-concurrency"}
    versions = [(name, version) for name, version, _ in answers]
    assert versions == sorted(versions, key=lambda one: int(one[1]))
    assert set(versions) == {("one", "1"), ("two", "2"), ("three", "3")}
    config = functions.get_provisioned_concurrency_config(FunctionName="moving", Qualifier="live")
    assert (config["Status"], config["AvailableProvisionedConcurrentExecutions"]) == ("READY", 2)


def test_at_the_ceiling_a_flood_of_one_function_does_not_keep_another_away(fresh_server):
    server = fresh_server("--environments", "2")
    functions = server.client("lambda", max_pool_connections=30)
    slow = "import time\n\ndef handler(event, context):\n    time.sleep(0.3)\n"
    for name, source in (("flood", slow), ("other", "def handler(event, context):\n    return 1\n")):
        functions.create_function(
            FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE,
            Code={"ZipFile": make_zip({"app.py": source})},
        )  # fmt: skip

    def waiting():
        return json.loads(server.get("/_preheat/console/overview")[2])["machine"]["waiting"]

    with ThreadPoolExecutor(24) as threads:
        flood = [threads.submit(functions.invoke, FunctionName="flood") for _ in range(24)]
        wait_for(lambda: waiting() > 15, what="the flood")
        assert functions.invoke(FunctionName="other")["StatusCode"] == 200
        assert waiting() > 5
        assert all("FunctionError" not in one.result() for one in flood)


def test_an_environment_that_cannot_be_made_gives_its_concurrency_back(fresh_server):
    server = fresh_server()
    functions = server.client("lambda")
    functions.create_function(
        FunctionName="only", Runtime="python3.11", Handler="app.handler", Role=ROLE, Code={"ZipFile": make_zip()}
    )
    functions.put_function_concurrency(FunctionName="only", ReservedConcurrentExecutions=1)
    assert "FunctionError" not in functions.invoke(FunctionName="only")
    functions.update_function_configuration(FunctionName="only", Description="another environment")
    scratch, aside = server.state / "tmp", server.state / "aside"
    scratch.rename(aside)
    scratch.touch()
    failed = functions.invoke(FunctionName="only")
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads(failed["Payload"].read())["errorType"] == "Runtime.ExitError"
    scratch.unlink()
    aside.rename(scratch)
    assert "FunctionError" not in functions.invoke(FunctionName="only")

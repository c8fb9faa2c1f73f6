"""Asynchronous invocations against a live server: destinations, dead letters, retries that outlive the process, and
loops that are stopped. Functions are real processes, their own calls go through boto3."""

import json
import re

import pytest
from botocore.exceptions import ClientError

from preheat.services.table import SERVICES
from tests.acceptance.test_iam_enforced import EnforcedServer, allow
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

FAIL = "def handler(event, context):\n    raise ValueError('no ' + str(event['n']))\n"
ECHO = "def handler(event, context):\n    return {'got': event}\n"
TRACE = "import os\ndef handler(event, context):\n    return os.environ['_X_AMZN_TRACE_ID']\n"
LOOP = """
import json, os, boto3
sqs = boto3.client("sqs")

def handler(event, context):
    for record in event["Records"]:
        sqs.send_message(QueueUrl=os.environ["QUEUE"], MessageBody=str(int(record["body"]) + 1))
"""


class Desk:
    """A server with functions and queues for one test."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.functions, self.sqs = server.client("lambda"), server.client("sqs")

    def function(self, source, suffix="", **settings):
        name = f"{self.name}{suffix}"
        self.functions.create_function(
            FunctionName=name, Runtime="python3.11", Handler="app.handler", MemorySize=256, Timeout=20,
            Code={"ZipFile": make_zip({"app.py": source})}, **{"Role": ROLE, **settings},
        )  # fmt: skip
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)
        return name

    def queue(self, suffix, **attributes):
        url = self.sqs.create_queue(QueueName=f"{self.name}-{suffix}", Attributes=attributes)["QueueUrl"]
        return url, f"arn:aws:sqs:us-east-1:000000000000:{self.name}-{suffix}"

    def fire(self, name, **event):
        answer = self.functions.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event))
        assert answer["StatusCode"] == 202 and answer["Payload"].read() == b""
        return answer["ResponseMetadata"]["RequestId"]

    def one(self, url):
        """The next message of a queue, deleted."""

        def receive():
            return self.sqs.receive_message(
                QueueUrl=url, MessageAttributeNames=["All"], AttributeNames=["All"], WaitTimeSeconds=1
            ).get("Messages")

        (message,) = wait_for(receive, what="a message")
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return message

    def runs(self, name):
        """How often a function has run, by its log."""
        pattern = {"filterPattern": '"REPORT RequestId"'}
        try:
            pages = self.server.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}", **pattern)
        except ClientError:
            return 0
        return len(pages["events"])

    def destinations(self, name, **more):
        return self.functions.put_function_event_invoke_config(FunctionName=name, **more)


def test_success_and_failure_records_reach_queues(aws):
    desk = Desk(aws, "records")
    name = desk.function(ECHO)
    bad = desk.function(FAIL, "-bad")
    url, arn = desk.queue("results")
    desk.destinations(name, DestinationConfig={"OnSuccess": {"Destination": arn}})
    desk.destinations(bad, DestinationConfig={"OnFailure": {"Destination": arn}}, MaximumRetryAttempts=0)
    request = desk.fire(name, n=1)
    good = json.loads(desk.one(url)["Body"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", good.pop("timestamp"))
    assert good == {
        "version": "1.0",
        "requestContext": {
            "requestId": request, "functionArn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}:$LATEST",
            "condition": "Success", "approximateInvokeCount": 1,
        },
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": {"got": {"n": 1}},
    }  # fmt: skip
    desk.fire(bad, n=2)
    failed = json.loads(desk.one(url)["Body"])
    assert failed["requestContext"]["condition"] == "RetriesExhausted"
    assert failed["responseContext"]["functionError"] == "Unhandled"
    assert failed["responsePayload"]["errorMessage"] == "no 2"


def test_a_function_and_a_bucket_as_destinations_of_failures(aws):
    desk = Desk(aws, "handed-on")
    bad, other = desk.function(FAIL), desk.function(FAIL, "-other")
    url, arn = desk.queue("seen")
    catcher = desk.function(ECHO, "-catcher")
    desk.destinations(catcher, DestinationConfig={"OnSuccess": {"Destination": arn}})
    catcher_arn = f"arn:aws:lambda:us-east-1:000000000000:function:{catcher}"
    desk.destinations(bad, DestinationConfig={"OnFailure": {"Destination": catcher_arn}}, MaximumRetryAttempts=0)
    desk.fire(bad, n=3)
    handed = json.loads(desk.one(url)["Body"])["requestPayload"]
    assert handed["requestPayload"] == {"n": 3} and handed["responsePayload"]["errorType"] == "ValueError"

    s3 = aws.client("s3")
    s3.create_bucket(Bucket="handed-on-failures")
    desk.destinations(other, DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::handed-on-failures"}},
                      MaximumRetryAttempts=0)  # fmt: skip
    desk.fire(other, n=4)
    (entry,) = wait_for(lambda: s3.list_objects_v2(Bucket="handed-on-failures").get("Contents"), what="an object")
    assert re.match(rf"aws/lambda/async/{other}/\d{{4}}/\d\d/\d\d/\d{{4}}-\d\d-\d\dT\d\d\.\d\d\.\d\d-", entry["Key"])
    body = json.loads(s3.get_object(Bucket="handed-on-failures", Key=entry["Key"])["Body"].read())
    assert body["requestPayload"] == {"n": 4}


@pytest.mark.skipif("sns" not in SERVICES, reason="SNS is not implemented")
def test_a_topic_as_destination_and_as_dead_letter_target(aws):
    desk = Desk(aws, "by-topic")
    sns = aws.client("sns")
    topic = sns.create_topic(Name="by-topic")["TopicArn"]
    url, arn = desk.queue("inbox")
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    name = desk.function(FAIL, DeadLetterConfig={"TargetArn": topic})
    desk.destinations(name, DestinationConfig={"OnFailure": {"Destination": topic}}, MaximumRetryAttempts=0)
    request = desk.fire(name, n=5)
    envelopes = [json.loads(desk.one(url)["Body"]) for _ in range(2)]
    letters = [envelope for envelope in envelopes if envelope.get("MessageAttributes")]
    (record,) = (json.loads(envelope["Message"]) for envelope in envelopes if envelope not in letters)
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert json.loads(letters[0]["Message"]) == {"n": 5}
    assert letters[0]["MessageAttributes"]["RequestID"] == {"Type": "String", "Value": request}


@pytest.mark.skipif("events" not in SERVICES, reason="EventBridge is not implemented")
def test_a_bus_as_destination(aws):
    desk = Desk(aws, "by-bus")
    events = aws.client("events")
    bus = events.create_event_bus(Name="by-bus")["EventBusArn"]
    url, arn = desk.queue("inbox")
    events.put_rule(Name="results", EventBusName="by-bus", EventPattern=json.dumps({"source": ["lambda"]}))
    events.put_targets(Rule="results", EventBusName="by-bus", Targets=[{"Id": "1", "Arn": arn}])
    name = desk.function(ECHO)
    desk.destinations(name, DestinationConfig={"OnSuccess": {"Destination": bus}})
    desk.fire(name, n=6)
    event = json.loads(desk.one(url)["Body"])
    function = f"arn:aws:lambda:us-east-1:000000000000:function:{name}:$LATEST"
    assert event["detail-type"] == "Lambda Function Invocation Result - Success"
    assert event["resources"] == [bus, function] and event["detail"]["responsePayload"] == {"got": {"n": 6}}


def test_retries_and_their_dead_letter_survive_a_killed_server(fresh_server):
    server = fresh_server()
    desk = Desk(server, "killed")
    url, arn = desk.queue("dead")
    name = desk.function(FAIL, DeadLetterConfig={"TargetArn": arn})
    request = desk.fire(name, n=7)
    for expected, pause in ((1, 61), (2, 121)):
        wait_for(lambda expected=expected: desk.runs(name) == expected, what=f"run {expected}")
        desk.sqs.list_queues()
        server.kill()
        server.start()
        assert desk.runs(name) == expected and "Messages" not in desk.sqs.receive_message(QueueUrl=url)
        server.advance(pause)
    message = desk.one(url)
    assert message["Body"] == '{"n": 7}'
    attributes = {key: value["StringValue"] for key, value in message["MessageAttributes"].items()}
    assert attributes == {"RequestID": request, "ErrorCode": "200", "ErrorMessage": "no 7"}
    wait_for(lambda: desk.runs(name) == 3, what="the last run's log")


def test_a_queue_and_a_function_that_feed_each_other_are_stopped(aws):
    desk = Desk(aws, "loop")
    dead, dead_arn = desk.queue("dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 1})
    url, arn = desk.queue("work", VisibilityTimeout="30", RedrivePolicy=redrive)
    name = desk.function(LOOP, Environment={"Variables": {"QUEUE": url}})
    desk.functions.create_event_source_mapping(EventSourceArn=arn, FunctionName=name, BatchSize=1)
    desk.sqs.send_message(QueueUrl=url, MessageBody="0")

    wait_for(lambda: desk.runs(name) == 16, what="sixteen runs")
    aws.advance(31)
    message = desk.one(dead)
    assert message["Body"] == "16" and desk.runs(name) == 16
    assert re.search(r"Lineage=[0-9a-f]{8}:15", message["Attributes"]["AWSTraceHeader"])


def test_the_trace_header_of_a_caller_reaches_the_handler(aws):
    desk = Desk(aws, "traced")
    name = desk.function(TRACE)
    root = "Root=1-5759e988-bd862e3fe1be46a994272793"

    def add_header(request, **kwargs):
        request.headers["X-Amzn-Trace-Id"] = f"{root};Parent=53995c3f42cd8ad8;Sampled=1"

    plain = json.loads(desk.functions.invoke(FunctionName=name)["Payload"].read())
    assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", plain) and root not in plain
    desk.functions.meta.events.register("before-send.lambda.Invoke", add_header)
    seen = json.loads(desk.functions.invoke(FunctionName=name)["Payload"].read())
    assert seen.startswith(root) and "Sampled=1" in seen


def test_an_event_that_is_too_large_is_refused_with_its_size(aws):
    desk = Desk(aws, "large")
    name = desk.function(ECHO)
    with pytest.raises(ClientError) as caught:
        desk.functions.invoke(FunctionName=name, InvocationType="Event", Payload=b'"' + b"x" * 1_048_575 + b'"')
    error = caught.value.response
    assert error["Error"]["Code"] == "RequestTooLargeException" and error["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert error["Error"]["Message"].startswith("1048577 byte payload is too large for the Event invocation type")
    largest = b'"' + b"x" * 1_048_574 + b'"'
    assert desk.functions.invoke(FunctionName=name, InvocationType="Event", Payload=largest)["StatusCode"] == 202


def test_recursion_settings_over_the_wire(aws):
    desk = Desk(aws, "recursion-settings")
    name = desk.function(ECHO)
    assert desk.functions.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Terminate"
    desk.functions.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    assert desk.functions.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Allow"


def test_the_role_of_a_function_decides_what_its_destinations_get(tmp_path):
    server = EnforcedServer(tmp_path / "state").start()
    try:
        iam, desk = server.client("iam"), Desk(server, "roles")
        url, arn = desk.queue("inbox")
        mute = server.role("mute")
        speaker = server.role("speaker", allow("sqs:SendMessage", arn))
        name = desk.function(ECHO, Role=mute)
        with pytest.raises(ClientError) as caught:
            desk.destinations(name, DestinationConfig={"OnSuccess": {"Destination": arn}})
        assert caught.value.response["Error"] == {
            "Code": "InvalidParameterValueException",
            "Message": f"The function's execution role does not have permissions to call SendMessage on {arn}",
        }
        desk.functions.update_function_configuration(FunctionName=name, Role=speaker)
        desk.functions.get_waiter("function_updated_v2").wait(FunctionName=name)
        desk.destinations(name, DestinationConfig={"OnSuccess": {"Destination": arn}})
        desk.fire(name, n=8)
        assert json.loads(desk.one(url)["Body"])["responsePayload"] == {"got": {"n": 8}}
        iam.delete_role_policy(RoleName="speaker", PolicyName="p")
        desk.fire(name, n=9)
        denied = "assumed-role/speaker/lambda is not authorized to perform: sqs:sendmessage"
        wait_for(lambda: denied in server.log.read_text(), what="the notice of the failed delivery")
        assert "Messages" not in desk.sqs.receive_message(QueueUrl=url)
    finally:
        server.stop()

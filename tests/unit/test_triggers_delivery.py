"""Deliveries: ladders, targets, dead letters, metrics, permission, endpoints over HTTP."""

import http.server
import json
import threading

import msgspec
import pytest

from preheat.kernel.entropy import SeededEntropy
from preheat.kernel.errors import AwsError
from preheat.services.deliveries import KIND, WEB_KIND, Counts, Delivery, Ladder, Phase, emit
from preheat.services.s3.service import build as build_s3
from preheat.triggers.delivery import permanent
from preheat.triggers.targets.table import TARGETS
from tests.support.functions import TriggerWorld

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"


class Recorder:
    """A service that writes down its calls; `failures` are raised first, in order."""

    schema = ""

    def __init__(self, name, *operations):
        self.name = name
        self.calls = []
        self.failures = []
        self.answers = {}
        self.operations = {operation: self._operation(operation) for operation in operations}

    def _operation(self, operation):
        def run(ctx, params):
            if self.failures:
                raise self.failures.pop(0)
            self.calls.append((ctx.now, operation, params))
            return self.answers.get(operation, {})

        return run


@pytest.fixture
def world():
    world = TriggerWorld()
    yield world
    assert world.defects == []


def deliver(world, target, body="{}", due_at=None, **members):
    def run(ctx):
        emit(ctx, Delivery(target, body, **members), due_at)
        return {}

    world.machine.perform(run, lambda reply: None)
    world.settle()


def pending(world):
    return world.db.value("SELECT count(*) FROM due")


def metrics(world):
    taken = world.machine.meter.take()
    return {(series.name, series.dimensions): sample.count for (series, _), sample in taken.items()}


# -- ladders ----------------------------------------------------------------------------------------------------------


def test_each_backoff_grows_from_the_least_to_the_most_pause():
    for backoff in ("linear", "arithmetic", "geometric", "exponential"):
        pauses = [Phase(10, 1.0, 20.0, backoff).pause(index) for index in range(10)]
        assert pauses[0] == 1.0 and pauses[-1] == pytest.approx(20.0) and pauses == sorted(pauses)
    assert [Phase(5, 1.0, 9.0).pause(index) for index in range(5)] == [1, 3, 5, 7, 9]
    assert [Phase(5, 1.0, 21.0, "arithmetic").pause(index) for index in range(5)] == [1, 3, 7, 13, 21]
    assert [Phase(5, 1.0, 16.0, "geometric").pause(index) for index in range(5)] == [1, 2, 4, 8, 16]
    assert [Phase(5, 1.0, 16.0, "exponential").pause(index) for index in range(5)] == [1, 2, 4, 8, 16]


def test_phases_follow_each_other_and_chance_takes_a_share():
    ladder = Ladder((Phase(3), Phase(2, 1.0, 1.0), Phase(2, 5.0, 20.0), Phase(1, 20.0, 20.0)), 3_600, spread=0.5)
    assert [ladder.pause(failures, 0.0) for failures in range(1, 10)] == [0, 0, 0, 1, 1, 5, 20, 20, None]
    assert ladder.pause(7, 0.5) == 15.0 and ladder.max_attempts == 9


def test_a_phase_of_one_and_a_long_exponential_phase_have_a_pause():
    assert Phase(1, 20.0, 30.0).pause(0) == 20.0
    assert Phase(100_000, 20.0, 20.0, "exponential").pause(99_999) == 20.0
    assert Phase(100_000, 1.0, 20.0, "exponential").pause(5) == 1.0


def test_what_is_final_and_what_is_tried_again():
    final = [("QueueDoesNotExist", 400), ("AccessDeniedException", 403), ("UnsupportedOperation", 501), ("X", 404)]
    again = [("TooManyRequestsException", 429), ("ThrottlingException", 400), ("InternalFailure", 500),
             ("ProvisionedThroughputExceededException", 400), ("ServiceUnavailable", 503),
             ("ResourceConflictException", 409)]  # fmt: skip
    assert all(permanent(AwsError(code, "", status)) for code, status in final)
    assert not any(permanent(AwsError(code, "", status)) for code, status in again)


def test_what_has_its_default_is_not_stored(world):
    deliver(world, f"{QUEUE}q", "b", due_at=world.clock.now() + 10)
    row = world.db.one("SELECT kind, payload FROM due")
    assert row["kind"] == KIND and json.loads(row["payload"]) == {"target": f"{QUEUE}q", "body": "b"}
    given = Delivery("arn", "b", ladder=Ladder((Phase(1, 2.0, 3.0, "geometric"),), 5.0), counts=Counts("N", {}, "x"))
    assert msgspec.json.decode(msgspec.json.encode(given), type=Delivery) == given


# -- retries, dead letters --------------------------------------------------------------------------------------------


def failing(world, *failures):
    service = Recorder("kinesis", "PutRecord")
    service.failures = [AwsError(*failure) for failure in failures]
    world.machine.add_service(service)
    return service


STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
BUSY = ("ProvisionedThroughputExceededException", "slow down", 400)


def test_a_throttled_delivery_climbs_its_ladder(world):
    service = failing(world, BUSY, BUSY, BUSY)
    began = world.clock.now()
    counts = Counts("AWS/SNS", {"TopicName": "t"}, delivered="Ok", retried="Again", failed="Lost")
    ladder = Ladder((Phase(1), Phase(2, 5.0, 20.0)), 60.0)
    deliver(world, STREAM, "x", ladder=ladder, counts=counts)
    world.advance(60)
    assert [at - began for at, _, _ in service.calls] == [25] and pending(world) == 0
    dimensions = (("TopicName", "t"),)
    assert metrics(world) == {("Ok", dimensions): 1, ("Again", dimensions): 3}


def test_the_last_rung_leads_to_the_dead_letter_queue_with_its_reason(world):
    url, arn = world.queue("dead")
    service = failing(world, *[BUSY] * 5)
    counts = Counts("AWS/Events", {"RuleName": "r"}, failed="FailedInvocations", dead_lettered="InvocationsSentToDlq")
    deliver(
        world, STREAM, "x", ladder=Ladder((Phase(2, 1.0, 1.0),), 60.0), dead_letter=arn, dead_letter_body="whole",
        dead_letter_attributes={"RULE_ARN": ("String", "r")}, dead_letter_style="events", counts=counts,
    )  # fmt: skip
    world.advance(30)
    (message,) = world.receive(url)
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert message["Body"] == "whole" and service.calls == [] and len(service.failures) == 2
    assert attributes == {
        "RULE_ARN": "r", "ERROR_CODE": BUSY[0], "ERROR_MESSAGE": BUSY[1], "RETRY_ATTEMPTS": "2",
        "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
    }  # fmt: skip
    dimensions = (("RuleName", "r"),)
    assert metrics(world) == {("FailedInvocations", dimensions): 1, ("InvocationsSentToDlq", dimensions): 1}


def test_age_ends_a_delivery_before_its_ladder(world):
    url, arn = world.queue("dead")
    failing(world, *[BUSY] * 9)
    deliver(world, STREAM, ladder=Ladder((Phase(100, 20.0, 20.0),), 60.0), dead_letter=arn, dead_letter_style="events")
    world.advance(59)
    assert world.counts(url) == (0, 0, 0)
    world.advance(1)
    (message,) = world.receive(url)
    assert message["MessageAttributes"]["EXHAUSTED_RETRY_CONDITION"]["StringValue"] == "MaximumEventAgeInSeconds"


def test_a_final_error_is_not_tried_again_and_keeps_group_and_attributes(world):
    url, arn = world.queue("dead.fifo", FifoQueue="true")
    deliver(world, f"{QUEUE}gone.fifo", "b", attributes={"k": ("Binary", "AAE=")}, message_group_id="g",
            message_deduplication_id="d", dead_letter=arn)  # fmt: skip
    (message,) = world("sqs", "ReceiveMessage", QueueUrl=url, AttributeNames=["All"], MessageAttributeNames=["All"])[
        "Messages"
    ]
    assert message["Attributes"]["MessageGroupId"] == "g"
    assert message["MessageAttributes"] == {"k": {"DataType": "Binary", "BinaryValue": b"\x00\x01"}}
    assert pending(world) == 0 and [notice.kind for notice in world.notices] == ["delivery-failed"]


def test_a_dead_letter_queue_that_is_gone_is_counted(world):
    counts = Counts("AWS/SNS", {}, dead_letter_failed="NumberOfNotificationsFailedToRedriveToDlq")
    deliver(world, f"{QUEUE}gone", dead_letter=f"{QUEUE}gone-too", counts=counts)
    assert metrics(world) == {("NumberOfNotificationsFailedToRedriveToDlq", ()): 1} and pending(world) == 0


def test_a_failed_attempt_leaves_nothing_behind(world):
    url, _ = world.queue("q")
    service = failing(world)

    def half(ctx, params):
        ctx.call("sqs", "SendMessage", {"QueueUrl": url, "MessageBody": "half"})
        raise AwsError("InternalFailure", "broken", 500)

    service.operations["PutRecord"] = half
    deliver(world, STREAM, ladder=Ladder((Phase(2, 1.0, 1.0),), 60.0))
    world.advance(10)
    assert world.counts(url) == (0, 0, 0) and pending(world) == 0


def test_a_delivery_survives_the_end_of_the_process_with_its_attempts(tmp_path):
    world = TriggerWorld(directory=tmp_path)
    failing(world, BUSY, BUSY)
    deliver(world, STREAM, ladder=Ladder((Phase(2, 10.0, 10.0),), 60.0))
    world.db.close()
    again = TriggerWorld(directory=tmp_path, seed=2)
    service = failing(again, BUSY)
    again.advance(30)
    assert [at - again.clock.now() for at, _, _ in service.calls] == [-10] and pending(again) == 0
    again.db.close()


# -- targets ----------------------------------------------------------------------------------------------------------


def test_a_topic_a_bus_a_stream_and_a_state_machine(world):
    services = {
        name: Recorder(name, operation)
        for name, operation in (("sns", "Publish"), ("events", "PutEvents"), ("kinesis", "PutRecord"),
                                ("firehose", "PutRecord"), ("stepfunctions", "StartExecution"))
    }  # fmt: skip
    for service in services.values():
        world.machine.add_service(service)
    base = "us-east-1:000000000000"
    deliver(world, f"arn:aws:sns:{base}:t", "m", attributes={"a": ("Number", "1")}, options={"subject": "S"})
    deliver(world, f"arn:aws:events:{base}:event-bus/b", '{"d":1}',
            options={"source": "lambda", "detail-type": "T", "resources": ["r"]})  # fmt: skip
    deliver(world, STREAM, "k", options={"partition_key": "p"})
    deliver(world, f"arn:aws:firehose:{base}:deliverystream/f", "h")
    deliver(world, f"arn:aws:states:{base}:stateMachine:m", "{}", options={"name": "n"})
    sent = {name: service.calls[0][2] for name, service in services.items()}
    assert sent == {
        "sns": {"TopicArn": f"arn:aws:sns:{base}:t", "Message": "m", "Subject": "S",
                "MessageAttributes": {"a": {"DataType": "Number", "StringValue": "1"}}},
        "events": {"Entries": [{"EventBusName": f"arn:aws:events:{base}:event-bus/b", "Source": "lambda",
                                "DetailType": "T", "Detail": '{"d":1}', "Resources": ["r"]}]},
        "kinesis": {"StreamARN": STREAM, "StreamName": "s", "Data": b"k", "PartitionKey": "p"},
        "firehose": {"DeliveryStreamName": "f", "Record": {"Data": b"h"}},
        "stepfunctions": {"stateMachineArn": f"arn:aws:states:{base}:stateMachine:m", "input": "{}", "name": "n"},
    }  # fmt: skip


def test_an_entry_that_a_bus_refuses_is_a_failure(world):
    bus = Recorder("events", "PutEvents")
    bus.answers["PutEvents"] = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "MalformedDetail"}]}
    world.machine.add_service(bus)
    url, arn = world.queue("dead")
    deliver(world, "arn:aws:events:us-east-1:000000000000:event-bus/b", dead_letter=arn, dead_letter_style="events",
            options={"source": "s", "detail-type": "t"})  # fmt: skip
    assert world.receive(url)[0]["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "MalformedDetail"


def test_an_object_small_and_large_in_a_bucket_and_a_missing_bucket():
    world = TriggerWorld(build_s3)
    world("s3", "CreateBucket", Bucket="bucket")
    large = json.dumps("x" * 2_000_000)
    deliver(world, "arn:aws:s3:::bucket", '{"a":1}', options={"key": "k/1"})
    deliver(world, "arn:aws:s3:::bucket", large, options={"key": "k/2"}, trace="Root=1-0;Sampled=0")
    deliver(world, "arn:aws:s3:::none", "{}", options={"key": "k"})
    heads = [world("s3", "HeadObject", Bucket="bucket", Key=key) for key in ("k/1", "k/2")]
    assert [head["ContentLength"] for head in heads] == [7, 2_000_002]
    assert heads[0]["ContentType"] == "application/json"
    assert pending(world) == 0 and world.defects == []
    assert [notice.kind for notice in world.notices] == ["delivery-failed"]


def test_a_bucket_notifies_a_topic_and_not_a_fifo_one():
    world = TriggerWorld(build_s3)
    topic = Recorder("sns", "GetTopicAttributes", "Publish")
    world.machine.add_service(topic)
    world("s3", "CreateBucket", Bucket="bucket")
    arn = "arn:aws:sns:us-east-1:000000000000:t"

    def configure(target):
        wanted = {"TopicConfigurations": [{"TopicArn": target, "Events": ["s3:ObjectCreated:*"]}]}
        world("s3", "PutBucketNotificationConfiguration", Bucket="bucket", NotificationConfiguration=wanted)

    configure(arn)
    world("s3", "PutObject", Bucket="bucket", Key="k", Body=b"x")
    world.settle()
    test, event = (params for _, operation, params in topic.calls if operation == "Publish")
    assert json.loads(test["Message"])["Event"] == "s3:TestEvent"
    assert event["TopicArn"] == arn and event["Subject"] == "Amazon S3 Notification"
    assert json.loads(event["Message"])["Records"][0]["s3"]["object"]["key"] == "k"
    with pytest.raises(AwsError) as caught:
        configure(arn + ".fifo")
    assert caught.value.code == "InvalidArgument" and world.defects == []


def test_a_log_group():
    from preheat.services.logs.service import build as build_logs

    world = TriggerWorld(build_logs)
    world("logs", "CreateLogGroup", logGroupName="/aws/events/x")
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/events/x:*"
    for body in ("one", "two"):
        deliver(world, arn, body, options={"log_stream": "s"})
    page = world("logs", "GetLogEvents", logGroupName="/aws/events/x", logStreamName="s", startFromHead=True)
    assert [event["message"] for event in page["events"]] == ["one", "two"] and world.defects == []


def test_a_function_in_another_region_and_behind_an_alias(world):
    world.create("f")
    world("lambda", "PublishVersion", FunctionName="f")
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    deliver(world, f"{ARN}f:live", "[1]")
    deliver(world, "arn:aws:lambda:eu-west-1:000000000000:function:f", "[2]")
    assert [(call.invoked_arn, call.spec.version) for call in world.executor.started] == [(f"{ARN}f:live", "1")]
    assert "eu-west-1" in world.notices[0].text


def test_every_kind_of_target_that_preheat_lacks_says_so(world):
    for kind in ("kinesis", "firehose", "states", "glue"):
        deliver(world, f"arn:aws:{kind}:us-east-1:000000000000:x")
    assert len(world.notices) == 4 and pending(world) == 0
    assert all("Preheat does not" in notice.text for notice in world.notices)


# -- permission -------------------------------------------------------------------------------------------------------


def test_resource_policies_decide_when_they_are_enforced(world):
    world.machine.authorizer = lambda ctx, service, operation, params: None
    url, arn = world.queue("q")
    bucket = "arn:aws:s3:::b"
    deliver(world, arn, source_arn=bucket, source_service="s3.amazonaws.com")
    assert world.counts(url) == (0, 0, 0) and "not authorized to perform: sqs:SendMessage" in world.notices[0].text
    statement = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage",
                 "Resource": arn, "Condition": {"ArnLike": {"aws:SourceArn": bucket}}}  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    world("sqs", "SetQueueAttributes", QueueUrl=url, Attributes={"Policy": policy})
    deliver(world, arn, source_arn=bucket, source_service="s3.amazonaws.com")
    deliver(world, arn, source_arn="arn:aws:s3:::other", source_service="s3.amazonaws.com")
    assert world.counts(url) == (1, 0, 0)


def test_a_role_acts_as_itself(world):
    asked = []

    def authorizer(ctx, service, operation, params):
        if ctx.principal.kind == "role":
            asked.append((ctx.principal.arn, service, operation))
            raise AwsError("AccessDeniedException", "no", 403)

    world.machine.authorizer = authorizer
    url, arn = world.queue("q")
    deliver(world, arn, role="arn:aws:iam::000000000000:role/path/sender", source_service="s3.amazonaws.com")
    assert asked == [("arn:aws:sts::000000000000:assumed-role/sender/s3", "sqs", "SendMessage")]
    assert world.counts(url) == (0, 0, 0)


# -- http -------------------------------------------------------------------------------------------------------------


class Endpoint:
    """An HTTP server on a thread; answers with `statuses` in order, then 200."""

    def __init__(self):
        self.statuses = []
        self.requests = []
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.requests.append((self.path, dict(self.headers), body))
                self.send_response(endpoint.statuses.pop(0) if endpoint.statuses else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_PUT = do_POST

            def log_message(self, *arguments):
                return None

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?x=1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


RETRY = Ladder((Phase(3, 20.0, 20.0),), 3_600)


def test_a_post_to_an_endpoint_with_headers(world, endpoint):
    options = {"headers": {"x-amz-sns-message-type": "Notification"}}
    deliver(world, endpoint.url, "héllo", options=options, trace="Root=x")
    ((path, headers, body),) = endpoint.requests
    assert path == "/hook?x=1" and body == "héllo".encode() and pending(world) == 0
    assert headers["x-amz-sns-message-type"] == "Notification" and headers["X-Amzn-Trace-Id"] == "Root=x"


def test_server_faults_and_throttles_of_an_endpoint_are_tried_again(world, endpoint):
    endpoint.statuses = [500, 429]
    deliver(world, endpoint.url, ladder=RETRY)
    assert world.db.value("SELECT kind FROM due") == WEB_KIND
    world.advance(19)
    assert len(endpoint.requests) == 1
    world.advance(30)
    assert len(endpoint.requests) == 3 and pending(world) == 0 and world.notices == []


@pytest.mark.parametrize("status", [400, 403, 404, 410, 302])
def test_other_answers_of_an_endpoint_are_final(world, endpoint, status):
    endpoint.statuses = [status]
    url, arn = world.queue("dead")
    deliver(world, endpoint.url, "b", ladder=RETRY, dead_letter=arn)
    assert world.counts(url) == (1, 0, 0) and len(endpoint.requests) == 1
    assert f"answered {status}" in world.notices[0].text


def test_an_endpoint_that_is_not_there_is_tried_as_often_as_the_ladder_says(world):
    endpoint = Endpoint()
    endpoint.close()
    url, arn = world.queue("dead")
    deliver(world, endpoint.url, "b", ladder=RETRY, dead_letter=arn, dead_letter_style="events")
    world.advance(59)
    assert world.counts(url) == (0, 0, 0)
    world.advance(1)
    attributes = world.receive(url)[0]["MessageAttributes"]
    assert attributes["RETRY_ATTEMPTS"]["StringValue"] == "3"


def test_the_table_names_every_target_once():
    assert sorted(TARGETS) == sorted(
        ["lambda", "sqs", "sns", "events", "s3", "logs", "kinesis", "firehose", "states", "scheduler", "http", "https"]
    )


def test_chance_spreads_pauses():
    ladder = Ladder((Phase(1, 100.0, 100.0),), 3_600, spread=0.2)
    chance = SeededEntropy(7)
    pauses = [ladder.pause(1, chance.uniform()) for _ in range(200)]
    assert 80 <= min(pauses) < 82 and 98 < max(pauses) <= 100

"""Asynchronous invocations and deliveries: retries, ages, dead letters, destinations."""

import json
import re

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.deliveries import Delivery, emit
from preheat.services.s3.service import build as build_s3
from tests.support.functions import TriggerWorld
from tests.support.scripted_executor import Script

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture
def world():
    world = TriggerWorld()
    world.create()
    yield world
    assert world.defects == []


def fire(world, payload=b'{"n":1}', name="f", **params):
    answer = world("lambda", "Invoke", FunctionName=name, InvocationType="Event", Payload=payload, **params)
    world.settle()
    return answer


def pending(world):
    return world.db.value("SELECT count(*) FROM due")


def test_an_event_runs_once_and_leaves_nothing(world):
    assert fire(world) == {"StatusCode": 202, "Payload": b""}
    assert world.executor.events() == [{"n": 1}] and pending(world) == 0


def test_a_failing_event_is_run_again_after_one_and_two_minutes(world):
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world)
    world.advance(59.9)
    assert len(world.executor.started) == 1
    world.advance(0.1)
    assert len(world.executor.started) == 2
    world.advance(119.9)
    assert len(world.executor.started) == 2
    world.advance(0.1)
    assert len(world.executor.started) == 3
    world.advance(10_000)
    assert len(world.executor.started) == 3 and pending(world) == 0
    assert len({call.request_id for call in world.executor.started}) == 1


def test_retry_attempts_are_obeyed(world):
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f", MaximumRetryAttempts=0)
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world)
    world.advance(1_000)
    assert len(world.executor.started) == 1


def test_a_dead_letter_carries_the_event_and_why(world):
    url, arn = world.queue("dead")
    world.create("g", DeadLetterConfig={"TargetArn": arn})
    world.executor.scripts["g"] = Script(error="ValueError")
    fire(world, name="g")
    world.advance(300)
    (message,) = world.receive(url)
    assert message["Body"] == '{"n":1}'
    attributes = {
        name: (value["DataType"], value["StringValue"]) for name, value in message["MessageAttributes"].items()
    }
    assert attributes == {
        "RequestID": ("String", world.executor.started[0].request_id),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "it failed"),
    }


def test_the_success_record(world):
    url, arn = world.queue("done")
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f",
          DestinationConfig={"OnSuccess": {"Destination": arn}})  # fmt: skip
    world.executor.scripts["f"] = Script(result={"ok": True})
    fire(world)
    (message,) = world.receive(url)
    assert json.loads(message["Body"]) == {
        "version": "1.0",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "requestContext": {
            "requestId": world.executor.started[0].request_id,
            "functionArn": f"{ARN}f:$LATEST",
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"n": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": {"ok": True},
    }


def test_the_failure_record_and_a_function_as_destination(world):
    world.create("catcher")
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f",
          DestinationConfig={"OnFailure": {"Destination": f"{ARN}catcher"}})  # fmt: skip
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world)
    world.advance(181)
    (record,) = world.executor.events("catcher")
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"] == {"errorMessage": "it failed", "errorType": "ValueError"}


def test_an_event_that_is_too_old_is_not_run_again(world):
    url, arn = world.queue("failed")
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f", MaximumEventAgeInSeconds=60,
          DestinationConfig={"OnFailure": {"Destination": arn}})  # fmt: skip
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world)
    world.advance(300)
    assert len(world.executor.started) == 1
    (message,) = world.receive(url)
    context = json.loads(message["Body"])["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 1)


def test_throttles_wait_with_growing_pauses_and_count_as_no_attempt(world):
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=1)
    world.executor.scripts["f"] = Script(seconds=100)
    fire(world)
    fire(world, b'{"n":2}')
    world.advance(99)
    assert 5 <= world.executor.refused <= 8
    world.advance(200)
    assert world.executor.events() == [{"n": 1}, {"n": 2}] and world.executor.peak["f"] == 1
    assert pending(world) == 0


def test_a_throttled_event_is_given_up_at_its_age(world):
    url, arn = world.queue("failed")
    world.create("busy")
    world.executor.scripts["busy"] = Script(seconds=10_000)
    world("lambda", "PutFunctionConcurrency", FunctionName="busy", ReservedConcurrentExecutions=1)
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="busy", MaximumEventAgeInSeconds=120,
          DestinationConfig={"OnFailure": {"Destination": arn}})  # fmt: skip
    fire(world, name="busy")
    fire(world, b'{"n":2}', name="busy")
    world.advance(119)
    assert world.counts(url) == (0, 0, 0)
    world.advance(1)
    record = json.loads(world.receive(url)[0]["Body"])
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 0 and "responseContext" not in record


def test_no_concurrency_at_all_fails_at_once(world):
    url, arn = world.queue("failed")
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f",
          DestinationConfig={"OnFailure": {"Destination": arn}})  # fmt: skip
    fire(world)
    assert json.loads(world.receive(url)[0]["Body"])["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert world.executor.started == [] and pending(world) == 0


def test_an_alias_has_settings_of_its_own(world):
    world("lambda", "PublishVersion", FunctionName="f")
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f", Qualifier="live", MaximumRetryAttempts=0)
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world, Qualifier="live")
    fire(world)
    world.advance(1_000)
    arns = [call.invoked_arn for call in world.executor.started]
    assert arns.count(f"{ARN}f:live") == 1 and arns.count(f"{ARN}f") == 3


def test_an_event_survives_its_process_before_and_during_its_run(tmp_path):
    world = TriggerWorld(directory=tmp_path)
    world.create()
    world.executor.scripts["f"] = Script(seconds=50)
    fire(world)
    world.db.close()
    again = TriggerWorld(directory=tmp_path, seed=2)
    again.settle()
    assert again.executor.events() == [{"n": 1}] and pending(again) == 0
    again.db.close()


def test_an_event_of_a_deleted_function_is_dropped_and_told(world):
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world)
    world("lambda", "DeleteFunction", FunctionName="f")
    world.advance(100)
    assert pending(world) == 0 and [notice.kind for notice in world.notices] == ["event-dropped"]


def test_many_events_are_claimed_in_bounds(world):
    def run(ctx):
        for number in range(1_300):
            event = {"function": f"{ARN}f", "payload": str(number), "request_id": str(number), "accepted_at": ctx.now}
            ctx.db.emit("lambda.async", json.dumps(event).encode(), ctx.now)
        return {}

    world.executor.scripts["f"] = Script(seconds=1)
    world.machine.perform(run, lambda reply: None)
    world.settle()
    assert len(world.executor.started) == 1_000
    url, arn = world.queue("q")
    deliver(world, target=arn, body="not held up")
    assert world.counts(url) == (1, 0, 0)
    world.advance(2)
    assert sorted(world.executor.events()) == list(range(1_300)) and pending(world) == 0


def test_throttles_begin_with_short_pauses_again_after_a_run(world):
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=1)
    world.executor.scripts["f"] = Script(seconds=40)
    fire(world)
    world.executor.scripts["f"] = lambda event: Script(error="ValueError", seconds=1)
    fire(world, b'{"n":2}')
    world.advance(70)
    assert world.executor.events() == [{"n": 1}, {"n": 2}]
    stored = json.loads(world.db.value("SELECT payload FROM due"))
    assert (stored["invoked"], stored.get("throttles", 0)) == (1, 0)


class Recorder:
    """A service that writes down its calls."""

    schema = ""

    def __init__(self, name, operation):
        self.name = name
        self.calls = []
        self.operations = {operation: lambda ctx, params: self.calls.append((ctx.principal, params)) or {}}


def configure(world, name="f", **params):
    return world("lambda", "PutFunctionEventInvokeConfig", FunctionName=name, **params)


def failing_to(world, target, **more):
    configure(world, DestinationConfig={"OnFailure": {"Destination": target}}, **{"MaximumRetryAttempts": 0, **more})
    world.executor.scripts["f"] = Script(error="ValueError")


def metrics(world):
    taken = world.machine.meter.take()
    return {series.name: sample for (series, _), sample in taken.items() if series.namespace == "AWS/Lambda"}


def test_the_age_ends_an_event_when_its_next_run_would_be_too_late(world):
    url, arn = world.queue("failed")
    failing_to(world, arn, MaximumRetryAttempts=2, MaximumEventAgeInSeconds=100)
    fire(world)
    world.advance(59)
    assert world.counts(url) == (0, 0, 0)
    world.advance(1)
    context = json.loads(world.receive(url)[0]["Body"])["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 2)
    world.advance(1_000)
    assert len(world.executor.started) == 2 and pending(world) == 0


def test_a_bus_gets_source_type_and_resources(world):
    bus = Recorder("events", "PutEvents")
    world.machine.add_service(bus)
    arn = "arn:aws:events:us-east-1:000000000000:event-bus/results"
    configure(world, DestinationConfig={"OnSuccess": {"Destination": arn}, "OnFailure": {"Destination": arn}},
              MaximumRetryAttempts=0)  # fmt: skip
    fire(world)
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world)
    entries = [params["Entries"][0] for _, params in bus.calls]
    assert [entry["DetailType"] for entry in entries] == [
        "Lambda Function Invocation Result - Success", "Lambda Function Invocation Result - Failure",
    ]  # fmt: skip
    assert entries[0]["Source"] == "lambda" and entries[0]["Resources"] == [arn, f"{ARN}f:$LATEST"]
    assert json.loads(entries[1]["Detail"])["requestContext"]["condition"] == "RetriesExhausted"
    assert bus.calls[0][0].arn == "arn:aws:sts::000000000000:assumed-role/worker/lambda"


def test_a_bucket_gets_failures_under_a_dated_key():
    world = TriggerWorld(build_s3)
    world.create()
    world("s3", "CreateBucket", Bucket="failures")
    failing_to(world, "arn:aws:s3:::failures")
    fire(world)
    (entry,) = world("s3", "ListObjectsV2", Bucket="failures")["Contents"]
    pattern = r"aws/lambda/async/f/2023/11/14/2023-11-14T22\.13\.20-[0-9a-f-]{36}"
    assert re.fullmatch(pattern, entry["Key"]) and pending(world) == 0 and world.defects == []


def test_topics_as_destination_and_as_dead_letter_target(world):
    topic = Recorder("sns", "Publish")
    world.machine.add_service(topic)
    arn = "arn:aws:sns:us-east-1:000000000000:t"
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", DeadLetterConfig={"TargetArn": arn})
    failing_to(world, arn)
    fire(world)
    record, letter = (params for _, params in topic.calls)
    assert json.loads(record["Message"])["requestContext"]["condition"] == "RetriesExhausted"
    assert letter["Message"] == '{"n":1}' and letter["TopicArn"] == arn
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes == {
        "RequestID": world.executor.started[0].request_id, "ErrorCode": "200", "ErrorMessage": "it failed",
    }  # fmt: skip


def test_an_error_message_of_a_dead_letter_is_cut_to_a_kilobyte(world):
    url, arn = world.queue("dead")
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", DeadLetterConfig={"TargetArn": arn})
    configure(world, MaximumRetryAttempts=0)
    world.executor.scripts["f"] = Script(error="ValueError", result={"errorMessage": "é" * 2_000})
    fire(world)
    text = world.receive(url)[0]["MessageAttributes"]["ErrorMessage"]["StringValue"]
    assert len(text.encode()) <= 1_024 and text


def test_what_becomes_of_events_is_measured(world):
    fire(world)
    url, arn = world.queue("gone")
    failing_to(world, arn)
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", DeadLetterConfig={"TargetArn": arn})
    world("sqs", "DeleteQueue", QueueUrl=url)
    fire(world)
    seen = metrics(world)
    counted = {name: sample.count for name, sample in seen.items() if name.startswith(("Async", "Dest", "DeadL"))}
    assert counted == {
        "AsyncEventsReceived": 2, "AsyncEventAge": 2, "AsyncEventsDropped": 1, "DestinationDeliveryFailures": 1,
        "DeadLetterErrors": 1,
    }  # fmt: skip


def test_the_age_of_a_throttled_event_is_measured_when_it_runs(world):
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=1)
    world.executor.scripts["f"] = Script(seconds=100)
    fire(world)
    fire(world)
    world.advance(300)
    taken = world.machine.meter.take()
    ages = [sample for (series, _), sample in taken.items() if series.name == "AsyncEventAge"]
    assert [sample.count for sample in ages] == [1, 1] and ages[0].total == 0
    assert 100_000 <= ages[1].total <= 200_000 and world.executor.refused > 0


@pytest.mark.parametrize(
    ("side", "target", "words"),
    [
        ("OnFailure", "nonsense", "Member must satisfy regular expression pattern"),
        ("OnFailure", "arn:aws:dynamodb:us-east-1:000000000000:table/t", "is invalid."),
        ("OnFailure", "arn:aws:sqs:us-east-1:000000000000:q.fifo", "is invalid."),
        ("OnSuccess", "arn:aws:sns:us-east-1:000000000000:t.fifo", "is invalid."),
        ("OnSuccess", "arn:aws:s3:::bucket", "OnSuccess(destination=arn:aws:s3:::bucket)"),
        ("OnFailure", f"{ARN}none", f"The destination ARN {ARN}none is invalid."),
        ("OnFailure", f"{ARN}f:none", "is invalid."),
        ("OnSuccess", f"{ARN}f", "You can't specify the function as a destination for itself."),
    ],
)  # fmt: skip
def test_destinations_that_are_refused(world, side, target, words):
    with pytest.raises(AwsError) as caught:
        configure(world, DestinationConfig={side: {"Destination": target}})
    assert words in caught.value.message and caught.value.status == 400
    with pytest.raises(AwsError) as caught:
        world("lambda", "GetFunctionEventInvokeConfig", FunctionName="f")
    assert caught.value.status == 404


def test_a_role_that_may_not_send_is_refused_when_policies_are_enforced(world):
    def authorizer(ctx, service, operation, params):
        if ctx.principal.kind == "role":
            raise AwsError("AccessDeniedException", f"{ctx.principal.arn} may not", 403)

    world.machine.authorizer = authorizer
    _, arn = world.queue("q")
    with pytest.raises(AwsError) as caught:
        configure(world, DestinationConfig={"OnFailure": {"Destination": arn}})
    assert caught.value.message == (
        f"The function's execution role does not have permissions to call SendMessage on {arn}"
    )
    with pytest.raises(AwsError) as caught:
        world.create("g", DeadLetterConfig={"TargetArn": arn})
    assert caught.value.message == "The provided execution role does not have permissions to call SendMessage on SQS"


def test_versions_have_settings_of_their_own_and_the_record_names_them(world):
    url, arn = world.queue("failed")
    world("lambda", "PublishVersion", FunctionName="f")
    configure(world, Qualifier="1", MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": arn}})
    world.executor.scripts["f"] = Script(error="ValueError")
    fire(world, Qualifier="1")
    record = json.loads(world.receive(url)[0]["Body"])
    assert record["requestContext"]["functionArn"] == f"{ARN}f:1"
    assert record["responseContext"]["executedVersion"] == "1"


# -- deliveries -------------------------------------------------------------------------------------------------------


def deliver(world, **members):
    def run(ctx):
        emit(ctx, Delivery(**members))
        return {}

    world.machine.perform(run, lambda reply: None)
    world.settle()


def test_deliveries_to_a_queue_and_a_function(world):
    url, arn = world.queue("q")
    deliver(world, target=arn, body="text", source_service="s3.amazonaws.com", attributes={"k": ("String", "v")})
    deliver(world, target=f"{ARN}f", body='{"a":1}', source_service="s3.amazonaws.com")
    (message,) = world.receive(url)
    assert message["Body"] == "text" and message["MessageAttributes"]["k"]["StringValue"] == "v"
    assert world.executor.events() == [{"a": 1}] and pending(world) == 0


def test_a_delivery_as_other_services_write_it(world):
    url, arn = world.queue("q")

    def run(ctx):
        event = {"target": arn, "body": "{}", "source_arn": "arn:aws:s3:::b", "source_service": "s3.amazonaws.com"}
        ctx.db.emit("deliver", json.dumps(event).encode(), ctx.now)
        return {}

    world.machine.perform(run, lambda reply: None)
    world.settle()
    assert [message["Body"] for message in world.receive(url)] == ["{}"]


def test_a_delivery_to_nothing_goes_to_its_dead_letter_queue(world):
    url, arn = world.queue("dead")
    deliver(world, target="arn:aws:sqs:us-east-1:000000000000:gone", body="lost", dead_letter=arn)
    assert [message["Body"] for message in world.receive(url)] == ["lost"]
    assert [notice.kind for notice in world.notices] == ["delivery-failed"] and pending(world) == 0


def test_a_delivery_of_an_unknown_kind_is_told(world):
    deliver(world, target="arn:aws:firehose:us-east-1:000000000000:x", body="lost")
    deliver(world, target="nonsense", body="lost")
    assert [notice.kind for notice in world.notices] == ["delivery-failed"] * 2 and pending(world) == 0


# -- the outbox -------------------------------------------------------------------------------------------------------


def test_other_kinds_have_handlers_of_their_own_and_failures_are_tried_again():
    seen = []

    def handler(ctx, event):
        seen.append((ctx.now, event.payload, event.attempts))
        if len(seen) < 4:
            raise AwsError("Broken", "not yet")
        event.settle(ctx)
        return {}

    world = TriggerWorld(handlers={"other": handler})

    def run(ctx):
        ctx.db.emit("other", b"x", ctx.now + 5)
        ctx.db.emit("nobody", b"y", ctx.now)
        return {}

    world.machine.perform(run, lambda reply: None)
    began = world.clock.now()
    world.advance(60)
    assert [(at - began, payload, attempts) for at, payload, attempts in seen] == [
        (5, b"x", 0), (6, b"x", 1), (8, b"x", 2), (12, b"x", 3),
    ]  # fmt: skip
    assert [row["kind"] for row in world.db.all("SELECT kind FROM due")] == ["nobody"]
    assert len(world.notices) == 3


def test_an_event_waits_for_its_time():
    seen = []

    def handler(ctx, event):
        seen.append(ctx.now)
        event.settle(ctx)
        return {}

    world = TriggerWorld(handlers={"other": handler})
    due = world.clock.now() + 3_600

    def run(ctx):
        ctx.db.emit("other", b"x", due)
        return {}

    world.machine.perform(run, lambda reply: None)
    world.advance(3_599)
    assert seen == []
    world.advance(1)
    assert seen == [due]

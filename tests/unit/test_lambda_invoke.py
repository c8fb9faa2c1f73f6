"""Invoke in its three kinds, and the streamed one."""

import base64
import json

import pytest

from preheat.execution.contract import StreamFailed
from preheat.kernel.errors import AwsError
from tests.support.functions import LambdaWorld, make_zip
from tests.support.scripted_executor import Script

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture
def world():
    world = LambdaWorld()
    world.create()
    yield world
    assert world.defects == []


def invoke(world, **params):
    return world("lambda", "Invoke", **{"FunctionName": "f", **params})


def refused(world, operation="Invoke", **params):
    with pytest.raises(AwsError) as caught:
        world("lambda", operation, **{"FunctionName": "f", **params})
    return caught.value


def test_an_answer_comes_back_with_its_version(world):
    world.executor.scripts["f"] = lambda event: Script(result={"got": event}, seconds=2)
    began = world.clock.now()
    answer = invoke(world, Payload=b'{"a": 1}')
    assert json.loads(answer.pop("Payload")) == {"got": {"a": 1}}
    assert answer == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert world.clock.now() == began + 2


def test_no_payload_is_an_empty_object(world):
    invoke(world)
    assert world.executor.events() == [{}]


def test_a_failed_function_is_a_successful_call(world):
    world.executor.scripts["f"] = Script(error="ValueError", log=b"x" * 10)
    answer = invoke(world, LogType="Tail")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.loads(answer["Payload"]) == {"errorMessage": "it failed", "errorType": "ValueError"}
    assert base64.b64decode(answer["LogResult"]) == b"x" * 10


def test_the_invoked_arn_is_qualified_only_when_the_caller_qualified_it(world):
    invoke(world)
    invoke(world, Qualifier="$LATEST")
    assert [call.invoked_arn for call in world.executor.started] == [f"{ARN}f", f"{ARN}f:$LATEST"]


def test_the_client_context_is_handed_on_decoded(world):
    context = base64.b64encode(b'{"custom": {"a": "b"}}').decode()
    invoke(world, ClientContext=context)
    assert world.executor.started[0].client_context == '{"custom": {"a": "b"}}'
    assert refused(world, ClientContext="???").code == "InvalidRequestContentException"
    assert refused(world, ClientContext="x" * 3_584).code == "InvalidParameterValueException"


def test_payloads_that_are_refused(world):
    error = refused(world, Payload=b"{oops")
    assert (error.code, error.status) == ("InvalidRequestContentException", 400)
    assert error.message.startswith("Could not parse request body into json: Could not parse payload into json: ")
    error = refused(world, Payload=b'"' + b"x" * (6 * 1024 * 1024) + b'"')
    assert (error.code, error.status) == ("RequestTooLargeException", 413)
    error = refused(world, Payload=b'"' + b"x" * (1024 * 1024) + b'"', InvocationType="Event")
    assert (error.code, error.status) == ("RequestTooLargeException", 413) and "Event invocation type" in error.message
    assert refused(world, InvocationType="Later").code == "ValidationException"
    assert refused(world, TenantId="t").code == "InvalidParameterValueException"
    assert world.executor.started == []


def test_a_throttle_says_why(world):
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    error = refused(world)
    assert (error.code, error.status, error.message) == ("TooManyRequestsException", 429, "Rate Exceeded.")
    assert error.fields["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert error.headers == {}
    world("lambda", "DeleteFunctionConcurrency", FunctionName="f")
    assert invoke(world)["StatusCode"] == 200


def test_the_limit_of_the_account(world):
    world.executor.limit = 1
    world.executor.scripts["f"] = Script(seconds=10)
    running = world.start("lambda", "Invoke", FunctionName="f")
    assert refused(world).fields["Reason"] == "ConcurrentInvocationLimitExceeded"
    world.advance(10)
    assert running[0].output["StatusCode"] == 200


def test_a_dry_run_checks_and_does_nothing(world):
    assert invoke(world, InvocationType="DryRun")["StatusCode"] == 204
    assert refused(world, FunctionName="g", InvocationType="DryRun").code == "ResourceNotFoundException"
    assert world.executor.started == []


def test_an_event_is_stored_before_it_is_accepted(world):
    assert invoke(world, InvocationType="Event", Payload=b"[1]")["StatusCode"] == 202
    row = world.db.one("SELECT kind, payload FROM due")
    stored = json.loads(row["payload"])
    assert row["kind"] == "lambda.async" and stored["payload"] == "[1]" and stored["function"] == f"{ARN}f"
    assert refused(world, FunctionName="g", InvocationType="Event").code == "ResourceNotFoundException"


# -- streams ----------------------------------------------------------------------------------------------------------


def stream(world, **params):
    output = world("lambda", "InvokeWithResponseStream", **{"FunctionName": "f", **params})
    events, ends = [], []
    output["EventStream"].attach(events.append, ends.append)
    assert ends == [None]
    return output, events


def test_chunks_come_as_events_and_the_end_is_told(world):
    world.executor.scripts["f"] = Script(chunks=[b"to", b"ken"], content_type="text/plain", log=b"log")
    output, events = stream(world, LogType="Tail")
    assert (output["StatusCode"], output["ExecutedVersion"]) == (200, "$LATEST")
    assert output["ResponseStreamContentType"] == "text/plain"
    assert events == [
        {"PayloadChunk": {"Payload": b"to"}},
        {"PayloadChunk": {"Payload": b"ken"}},
        {"InvokeComplete": {"LogResult": base64.b64encode(b"log").decode()}},
    ]


def test_a_buffered_function_is_one_chunk(world):
    world.executor.scripts["f"] = Script(result={"a": 1})
    _, events = stream(world)
    assert events == [{"PayloadChunk": {"Payload": b'{"a": 1}'}}, {"InvokeComplete": {}}]


def test_a_stream_that_breaks_says_so_at_its_end(world):
    world.executor.scripts["f"] = Script(chunks=[b"half"], stream_error=StreamFailed("ValueError", b'{"x":1}'))
    _, events = stream(world)
    assert events[-1] == {"InvokeComplete": {"ErrorCode": "ValueError", "ErrorDetails": '{"x":1}'}}


def test_a_function_that_fails_before_its_first_byte(world):
    world.executor.scripts["f"] = Script(error="ValueError")
    _, events = stream(world)
    (complete,) = events
    assert complete["InvokeComplete"]["ErrorCode"] == "ValueError"


def test_a_stream_can_be_throttled_or_dry(world):
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    assert refused(world, "InvokeWithResponseStream").code == "TooManyRequestsException"
    assert stream(world, InvocationType="DryRun")[1] == []
    assert refused(world, "InvokeWithResponseStream", InvocationType="Event").code == "ValidationException"


def test_the_reader_slows_the_handler_down_and_can_leave(world):
    world.executor.scripts["f"] = Script(seconds=1)
    replies = world.start("lambda", "InvokeWithResponseStream", FunctionName="f")
    from preheat.execution.contract import StreamStart
    from preheat.kernel.stream import Channel

    chunks = Channel()
    world.executor.started[0].on_stream(StreamStart("text/plain", chunks))
    world.settle()
    events = replies[0].output["EventStream"]
    got = []
    events.attach(lambda item: (got.append(item), events.pause()), lambda error: None)
    chunks.send(b"a")
    assert chunks.paused and len(got) == 1
    resumed = []
    chunks.on_resume = lambda: resumed.append(True)
    events.resume()
    assert resumed == [True] and not chunks.paused
    events.cancel()
    assert chunks.cancelled


# -- what a name stands for -------------------------------------------------------------------------------------------


def test_a_change_is_seen_by_the_next_invocation(world):
    def ran():
        invoke(world)
        return world.executor.started[-1].spec

    before = ran()
    assert ran() is before
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", MemorySize=300)
    assert ran().memory_mb == 300
    world("lambda", "UpdateFunctionCode", FunctionName="f", ZipFile=make_zip({"app.py": "x = 1\n"}))
    assert ran().code != before.code
    world("lambda", "DeleteFunction", FunctionName="f")
    assert refused(world).code == "ResourceNotFoundException"
    world.create(MemorySize=400)
    assert ran().memory_mb == 400


def test_an_alias_leads_where_it_was_last_sent(world):
    def version():
        return invoke(world, Qualifier="live")["ExecutedVersion"]

    for memory in (200, 300):
        world("lambda", "UpdateFunctionConfiguration", FunctionName="f", MemorySize=memory)
        world("lambda", "PublishVersion", FunctionName="f")
    assert refused(world, Qualifier="live").code == "ResourceNotFoundException"
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    assert [version() for _ in range(2)] == ["1", "1"]
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    world("lambda", "UpdateAlias", FunctionName="f", Name="live", RoutingConfig=weights)
    assert {version() for _ in range(40)} == {"1", "2"}
    world("lambda", "UpdateAlias", FunctionName="f", Name="live", FunctionVersion="2", RoutingConfig={})
    assert {version() for _ in range(40)} == {"2"}
    world("lambda", "DeleteAlias", FunctionName="f", Name="live")
    assert refused(world, Qualifier="live").code == "ResourceNotFoundException"


def test_a_change_that_is_taken_back_is_not_remembered(world):
    invoke(world)

    def change_look_and_fail(ctx):
        ctx.call("lambda", "UpdateFunctionConfiguration", {"FunctionName": "f", "MemorySize": 300})
        assert world.functions.resolve(ctx, "f").memory_mb == 300
        raise AwsError("Stop", "taken back")

    replies = []
    world.machine.perform(change_look_and_fail, replies.append)
    world.settle()
    assert replies[0].code == "Stop"
    invoke(world)
    assert world.executor.started[-1].spec.memory_mb == 128

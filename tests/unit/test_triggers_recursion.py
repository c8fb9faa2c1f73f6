"""Loops of a function with itself, through queues, notifications and destinations, and how they are stopped."""

import json
import re

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.services.awslambda.recursion import MAX_TURNS, extended, fresh, lineage, mark, parse
from tests.support.functions import TriggerWorld
from tests.support.scripted_executor import Script

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
STOPPED = "RecursiveInvocationException"


class LoopWorld(TriggerWorld):
    """Functions here call others as an SDK inside a function does: with the trace header of their own invocation."""

    def __init__(self, *builders, **arguments):
        super().__init__(*builders, **arguments)
        self.refusals = []

    def from_inside(self, invocation, service, operation, **params):
        headers = {"x-amzn-trace-id": (invocation.trace_id or "").replace("|", "%7C"), "content-length": "1"}
        request = HttpRequest("POST", "/", headers)
        self.machine.submit(service, operation, params, self._note, scope=self.scope, request=request)

    def _note(self, reply):
        if isinstance(reply, AwsError):
            self.refusals.append(reply)

    def calls_from(self, name, service, operation, **params):
        """Every run of the function `name` makes this call, once."""

        def script(event):
            self.machine.perform(lambda ctx: {}, lambda reply: self._call(name, service, operation, params))
            return Script()

        self.executor.scripts[name] = script

    def _call(self, name, service, operation, params):
        last = [call for call in self.executor.started if call.spec.name == name][-1]
        self.from_inside(last, service, operation, **params)

    def runs(self, name="f"):
        return sum(1 for call in self.executor.started if call.spec.name == name)

    def dropped(self, name="f"):
        taken = self.machine.meter.take()
        return sum(
            sample.count for (series, _), sample in taken.items()
            if series.name == "RecursiveInvocationsDropped" and ("FunctionName", name) in series.dimensions
        )  # fmt: skip


@pytest.fixture
def world():
    world = LoopWorld()
    world.create()
    yield world
    assert world.defects == []


# -- the header -------------------------------------------------------------------------------------------------------


def test_a_new_header_has_a_root_a_parent_and_the_function_without_a_turn():
    header = fresh(f"{ARN}f", "11111111-2222-4333-8444-555555555555", 1_700_000_000.5)
    assert re.fullmatch(r"Root=1-6553f100-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0;Lineage=[0-9a-f]{8}:0", header)
    assert fresh(f"{ARN}f", "no uuid", 0.0).startswith("Root=1-00000000-")


def test_a_header_is_continued_and_its_lineage_extended():
    first = fresh(f"{ARN}a", "11111111-2222-4333-8444-555555555555", 1_700_000_000.0)
    second, turns = extended([first.replace("Sampled=0", "Sampled=1")], f"{ARN}b", "x", 1_700_000_001.0)
    third, again = extended([second.replace("|", "%7C")], f"{ARN}a", "y", 1_700_000_002.0)
    assert (turns, again) == (0, 1)
    assert parse(third)["Root"] == parse(first)["Root"] and parse(third)["Sampled"] == "1"
    assert lineage(parse(third)) == {mark(f"{ARN}a"): 1, mark(f"{ARN}b"): 0}


def test_of_several_requests_the_longest_way_counts():
    one, two = mark(f"{ARN}a"), mark(f"{ARN}b")
    _, turns = extended([f"Root=x;Lineage={one}:3|{two}:9", f"Lineage={one}:7"], f"{ARN}a", "x", 0.0)
    assert turns == 8


@pytest.mark.parametrize(
    "header", ["nonsense", "Lineage=", "Lineage=a:b|c", "Root=;;=;Lineage=zzzzzzzz:1", "Lineage=abcdef01:-5", "é"]
)
def test_what_cannot_be_read_counts_for_nothing(header):
    text, turns = extended([header], f"{ARN}f", "x", 0.0)
    assert turns == 0 and text.startswith("Root=1-")


def test_a_lineage_does_not_grow_without_end():
    header = ""
    for number in range(200):
        header, _ = extended([header] if header else [], f"{ARN}f{number}", "x", 0.0)
    assert len(lineage(parse(header))) <= 32


# -- loops ------------------------------------------------------------------------------------------------------------


def test_every_invocation_has_a_trace_header(world):
    world("lambda", "Invoke", FunctionName="f")
    assert re.match(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=", world.executor.started[0].trace_id)


def test_a_function_that_invokes_itself_asynchronously_is_stopped_at_its_sixteenth_turn(world):
    url, arn = world.queue("stopped")
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f",
          DestinationConfig={"OnFailure": {"Destination": arn}})  # fmt: skip
    world.calls_from("f", "lambda", "Invoke", FunctionName="f", InvocationType="Event", Payload=b"{}")
    world("lambda", "Invoke", FunctionName="f", InvocationType="Event", Payload=b"{}")
    world.advance(10_000)
    assert world.runs() == MAX_TURNS and world.dropped() == 1 and world.refusals == []
    (message,) = world.receive(url)
    context = json.loads(message["Body"])["requestContext"]
    assert context["approximateInvokeCount"] == 0 and context["condition"] == "RecursiveInvocation"


def test_a_synchronous_loop_gets_an_exception(world):
    world.calls_from("f", "lambda", "Invoke", FunctionName="f", Payload=b"{}")
    world("lambda", "Invoke", FunctionName="f")
    world.advance(10)
    assert world.runs() == MAX_TURNS and world.dropped() == 1
    (error,) = world.refusals
    assert (error.code, error.status) == (STOPPED, 400) and "recursive loop" in error.message


def test_two_functions_that_call_each_other(world):
    world.create("g")
    world.calls_from("f", "lambda", "Invoke", FunctionName="g", InvocationType="Event", Payload=b"{}")
    world.calls_from("g", "lambda", "Invoke", FunctionName="f", InvocationType="Event", Payload=b"{}")
    world("lambda", "Invoke", FunctionName="f", InvocationType="Event", Payload=b"{}")
    world.advance(10)
    assert (world.runs("f"), world.runs("g")) == (MAX_TURNS, MAX_TURNS)


def test_a_loop_through_a_queue_ends_in_its_dead_letter_queue(world):
    dead, dead_arn = world.queue("dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    url, arn = world.queue("loop", VisibilityTimeout="10", RedrivePolicy=redrive)
    world.calls_from("f", "sqs", "SendMessage", QueueUrl=url, MessageBody="again")
    world.map(arn)
    world.send(url, "start")
    world.advance(5)
    assert world.runs() == MAX_TURNS and world.counts(url) == (0, 1, 0)
    world.advance(100)
    assert world.runs() == MAX_TURNS and world.counts(url) == (0, 0, 0) and world.counts(dead) == (1, 0, 0)
    assert world.dropped() == 2 and "recursive-loop" in [notice.kind for notice in world.notices]


def test_a_message_that_is_sent_from_outside_is_no_turn(world):
    url, arn = world.queue("work")
    world.map(arn)
    for number in range(30):
        world.send(url, str(number))
    world.advance(5)
    assert world.runs() == 30


def test_a_loop_through_a_success_destination(world):
    world.create("g")
    for name, other in (("f", "g"), ("g", "f")):
        world("lambda", "PutFunctionEventInvokeConfig", FunctionName=name,
              DestinationConfig={"OnSuccess": {"Destination": f"{ARN}{other}"}})  # fmt: skip
    world("lambda", "Invoke", FunctionName="f", InvocationType="Event", Payload=b"{}")
    world.advance(10)
    assert (world.runs("f"), world.runs("g")) == (MAX_TURNS, MAX_TURNS)


def test_a_loop_through_bucket_notifications():
    from preheat.services.s3.service import build as build_s3

    world = LoopWorld(build_s3)
    world.create()
    world("s3", "CreateBucket", Bucket="bucket")
    world("s3", "PutBucketNotificationConfiguration", Bucket="bucket", NotificationConfiguration={
        "LambdaFunctionConfigurations": [{"LambdaFunctionArn": f"{ARN}f", "Events": ["s3:ObjectCreated:*"]}]
    })  # fmt: skip
    world.calls_from("f", "s3", "PutObject", Bucket="bucket", Key="k", Body=b"x")
    world("s3", "PutObject", Bucket="bucket", Key="k", Body=b"x")
    world.advance(10)
    assert world.runs() == MAX_TURNS and world.dropped() == 1 and world.defects == []


@pytest.mark.parametrize("through", ["function", "queue"])
def test_a_loop_through_a_topic(through):
    from preheat.services.sns.service import build as build_sns

    world = LoopWorld(build_sns)
    world.create()
    topic = world("sns", "CreateTopic", Name="t")["TopicArn"]
    if through == "function":
        world("sns", "Subscribe", TopicArn=topic, Protocol="lambda", Endpoint=f"{ARN}f")
    else:
        _, arn = world.queue("between", VisibilityTimeout="3600")
        world("sns", "Subscribe", TopicArn=topic, Protocol="sqs", Endpoint=arn)
        world.map(arn)
    world.calls_from("f", "sns", "Publish", TopicArn=topic, Message="again")
    world("sns", "Publish", TopicArn=topic, Message="start")
    world.advance(60)
    assert world.runs() == MAX_TURNS and world.dropped() == 1 and world.defects == []


# -- RecursiveLoop ----------------------------------------------------------------------------------------------------


def test_a_loop_that_is_allowed_goes_on(world):
    assert world("lambda", "GetFunctionRecursionConfig", FunctionName="f") == {"RecursiveLoop": "Terminate"}
    answer = world("lambda", "PutFunctionRecursionConfig", FunctionName="f", RecursiveLoop="Allow")
    assert answer == {"RecursiveLoop": "Allow"}
    assert world("lambda", "GetFunctionRecursionConfig", FunctionName="f") == {"RecursiveLoop": "Allow"}
    left = iter(range(60))

    def script(event):
        if next(left, None) is not None:
            params = {"FunctionName": "f", "InvocationType": "Event", "Payload": b"{}"}
            world.machine.perform(lambda ctx: {}, lambda reply: world._call("f", "lambda", "Invoke", params))
        return Script()

    world.executor.scripts["f"] = script
    world("lambda", "Invoke", FunctionName="f", InvocationType="Event", Payload=b"{}")
    world.advance(10)
    assert world.runs() == 61 and world.dropped() == 0


def test_recursion_settings_end_with_the_function_and_need_one(world):
    world("lambda", "PutFunctionRecursionConfig", FunctionName="f", RecursiveLoop="Allow")
    world("lambda", "DeleteFunction", FunctionName="f")
    world.create()
    assert world("lambda", "GetFunctionRecursionConfig", FunctionName="f") == {"RecursiveLoop": "Terminate"}
    for operation, more in (("Get", {}), ("Put", {"RecursiveLoop": "Allow"})):
        with pytest.raises(AwsError) as caught:
            world("lambda", f"{operation}FunctionRecursionConfig", FunctionName="none", **more)
        assert caught.value.code == "ResourceNotFoundException"
    with pytest.raises(AwsError) as caught:
        world("lambda", "PutFunctionRecursionConfig", FunctionName="f", RecursiveLoop="Never")
    assert caught.value.code == "ValidationException"

"""Calls that need no database: begun at once and answered without a transaction, unless something is before them."""

import json

import pytest

from preheat.execution.contract import LogLine
from preheat.gateway.pipeline import Pipeline
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.services.contract import Reply
from preheat.services.logs.service import build as build_logs
from preheat.services.machine import Prompt
from tests.support.functions import LambdaWorld
from tests.support.inprocess import InProcess
from tests.support.scripted_executor import Script

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=00"


class Asking:
    """A service that asks somebody else. Params: `way` is what the shortcut makes of the call."""

    name = "asking"
    schema = ""

    def __init__(self, platform):
        self.operations = {"Ask": self.ask, "Write": lambda ctx, params: {"took": "write"}}
        self.shortcuts = {"Ask": self.shortcut}
        self.resolves = []
        self.cancelled = []
        self.now = []

    def ask(self, ctx, params):
        if params["way"] == "refused":
            raise AwsError("Refused", "by the operation")
        return {"took": "operation"}

    def shortcut(self, ctx, params):
        if params["way"] == "refused":
            raise AwsError("Refused", "by the shortcut")
        self.now.append(ctx.now)
        prompt = Prompt(self.resolves.append, lambda inner, value: Reply({"got": 1 / value}), lambda: self.cancel())
        return prompt if params["way"] == "short" else None

    def cancel(self):
        self.cancelled.append(True)


class World(InProcess):
    def __init__(self):
        super().__init__(Asking)
        self.asking = self.machine.services["asking"]
        self.replies = []
        self.begun = 0
        begin = self.db.begin

        def counted():
            self.begun += 1
            begin()

        self.db.begin = counted
        self.settle()

    def ask(self, way="short"):
        return self.machine.submit("asking", "Ask", {"way": way}, self.replies.append)

    def outputs(self):
        return [reply.output if isinstance(reply, Reply) else (reply.code, reply.message) for reply in self.replies]


@pytest.fixture
def world():
    return World()


def test_a_prompt_call_opens_no_transaction(world):
    before = world.begun
    world.ask()
    assert world.asking.now == [world.clock.now()] and world.machine.has_work()
    world.settle()
    world.asking.resolves[0](4)
    assert world.machine.has_work() and world.machine.wake_at() == world.clock.now()
    assert world.replies == []
    world.settle()
    assert world.outputs() == [{"got": 0.25}]
    assert world.begun == before


@pytest.mark.parametrize("value", [AwsError("Elsewhere", "it failed"), RuntimeError("it broke"), 0])
def test_a_prompt_answer_that_fails_is_one_answer(world, value):
    world.ask()
    world.settle()
    world.asking.resolves[0](value)
    world.settle()
    found = world.outputs()
    if isinstance(value, AwsError):
        assert found == [("Elsewhere", "it failed")] and world.defects == []
    else:
        assert [code for code, _ in found] == ["InternalFailure"] and len(world.defects) == 1


def test_a_prompt_call_whose_client_has_gone_is_told_and_never_answered(world):
    early, late = world.ask(), world.ask()
    world.settle()
    world.machine.cancel(early)
    world.asking.resolves[1](1)
    world.machine.cancel(late)
    world.asking.resolves[0](1)
    world.settle()
    assert world.asking.cancelled == [True, True]
    world.machine.cancel(world.ask())
    world.settle()
    assert len(world.asking.resolves) == 2
    assert world.replies == []


def test_the_usual_way_is_taken_when_something_stands_before(world):
    world.machine.submit("asking", "Write", {}, world.replies.append)
    world.ask()
    world.settle()
    assert world.outputs() == [{"took": "write"}, {"took": "operation"}]


def test_the_usual_way_is_taken_where_callers_are_authorized_and_inside_a_transaction(world):
    seen = []
    world.machine.authorizer = lambda ctx, service, operation, params: seen.append(operation)
    world.ask()
    world.settle()
    world.machine.authorizer = None
    world.db.begin()
    world.ask()
    world.db.commit()
    world.settle()
    assert seen == ["Ask"]
    assert world.outputs() == [{"took": "operation"}] * 2


def test_the_operation_speaks_where_the_shortcut_does_not(world):
    world.ask("long")
    world.ask("refused")
    world.settle()
    assert world.outputs() == [{"took": "operation"}, ("Refused", "by the operation")]


def test_an_invocation_sees_what_was_changed_before_it():
    world = LambdaWorld()
    world.create()
    world.executor.scripts["f"] = lambda event: Script(result=event)
    for number in range(2):
        assert world("lambda", "Invoke", FunctionName="f", Payload=b"%d" % number)["Payload"] == b"%d" % number
    replies = []
    for operation, params in (
        ("UpdateFunctionConfiguration", {"Timeout": 77}), ("Invoke", {}), ("DeleteFunction", {}), ("Invoke", {}),
    ):  # fmt: skip
        world.machine.submit("lambda", operation, {"FunctionName": "f", **params}, replies.append, scope=world.scope)
    world.advance(10)
    assert world.executor.started[-1].spec.timeout_s == 77.0
    assert [one.code for one in replies if isinstance(one, AwsError)] == ["ResourceNotFoundException"]
    with pytest.raises(AwsError, match="ResourceNotFoundException"):
        world("lambda", "Invoke", FunctionName="f")
    assert world.defects == []


def test_a_bad_payload_is_refused_warm_as_cold():
    world = LambdaWorld()
    world.create()
    errors = []
    for payload in (b"{", b"1", b"{", b'"\xff"'):
        try:
            world("lambda", "Invoke", FunctionName="f", Payload=payload)
        except AwsError as error:
            errors.append(error.code)
    assert errors == ["InvalidRequestContentException"] * 3
    assert len(world.executor.started) == 1


class Door:
    def __init__(self, name, claims, told):
        self.matches = claims
        self.handle = lambda exchange: told.append(name)


class Asked:
    def __init__(self, method, target, host="a", authorization=SIGNED):
        headers = {"host": host, **({"authorization": authorization} if authorization else {})}
        self.request = HttpRequest(method, target, headers)


def test_what_the_last_door_took_is_remembered_for_signed_posts_alone():
    told, looked = [], []

    def claims(request):
        looked.append(request.target)
        return request.headers["host"] == "mine" or "authorization" not in request.headers or request.method == "GET"

    pipeline = Pipeline([Door("first", claims, told), Door("last", lambda request: True, told)])
    for _ in range(2):
        pipeline(Asked("POST", "/p"))
    assert (told, looked) == (["last", "last"], ["/p"])
    for asked in (Asked("POST", "/p", "mine"), Asked("POST", "/p", authorization=""), Asked("GET", "/p")):
        pipeline(asked)
        pipeline(asked)
    assert told[2:] == ["first"] * 6
    pipeline.close()
    pipeline(Asked("POST", "/p"))
    assert len(told) == 8


@pytest.mark.parametrize("count", [1, 7, 8, 9, 27])
def test_every_line_is_kept_in_its_order_however_many_come_together(count):
    world = InProcess(build_logs)
    lines = [LogLine("/g", "s", int(world.clock.now() * 1_000), json.dumps({"n": number})) for number in range(count)]
    world.machine.perform(lambda ctx: world.machine.services["logs"].append(ctx, lines) or {}, lambda reply: None)
    world.settle()
    found = world("logs", "GetLogEvents", logGroupName="/g", logStreamName="s", startFromHead=True)["events"]
    assert [json.loads(event["message"])["n"] for event in found] == list(range(count))

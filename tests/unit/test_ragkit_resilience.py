"""Breaker, bulkhead, deadline and hedged reads of the RAG stack, with a clock of the test's own."""

import ast
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.embed import EmbeddingUnavailable
from ragkit.resilience import (
    Breaker,
    BreakerSettings,
    Bulkhead,
    Deadline,
    Refused,
    guard_client,
    guarded,
    hedged,
    passing,
    transient,
)


def fault(code, status=400):
    return ClientError({"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Any")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def raising(error):
    def call():
        raise error

    return call


def fail(breaker, times, error=None):
    for _ in range(times):
        with pytest.raises(ClientError):
            guarded(breaker, None, raising(error or fault("ThrottlingException")))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker("the model", BreakerSettings(window=4, least=2, share=0.5, open_s=10), clock, lambda: 0.5)


def test_what_may_pass_is_told_from_what_may_not():
    assert transient(fault("ThrottlingException")) and transient(fault("Odd", 503))
    assert transient(EndpointConnectionError(endpoint_url="http://x"))
    assert not transient(fault("ValidationException")) and not transient(fault("AccessDeniedException", 403))
    assert not transient(ValueError()) and not transient(None)
    wrapped = EmbeddingUnavailable("the model failed")
    wrapped.__cause__ = fault("ThrottlingException")
    assert transient(wrapped)


def test_the_circuit_opens_probes_once_and_closes(breaker, clock):
    fail(breaker, 2)
    assert breaker.state == "open"
    with pytest.raises(Refused, match="the model"):
        guarded(breaker, None, lambda: 1)
    clock.now = 12.4
    with pytest.raises(Refused):
        guarded(breaker, None, lambda: 1)
    clock.now = 12.6
    entered = []

    def probe():
        entered.append(1)
        with pytest.raises(Refused):
            guarded(breaker, None, lambda: 1)
        return 7

    assert guarded(breaker, None, probe) == 7 and entered and breaker.state == "closed"


def test_a_probe_that_fails_opens_it_again(breaker, clock):
    fail(breaker, 2)
    clock.now = 15
    fail(breaker, 1)
    assert breaker.state == "open"
    clock.now = 27.4
    with pytest.raises(Refused):
        guarded(breaker, None, lambda: 1)


def test_errors_of_the_caller_and_rare_ones_leave_it_closed(breaker):
    fail(breaker, 6, fault("ValidationException"))
    assert breaker.state == "closed"
    for _ in range(3):
        guarded(breaker, None, lambda: 1)
    fail(breaker, 1)
    assert breaker.state == "closed"


def test_a_stream_that_is_given_up_is_no_failure(breaker):
    def stream():
        with breaker.guard():
            yield 1
            yield 2

    for _ in range(4):
        given_up = stream()
        next(given_up)
        given_up.close()
    assert breaker.state == "closed"


def test_the_bulkhead_refuses_what_finds_no_turn_and_gives_turns_back():
    bulkhead = Bulkhead("the store", 1, wait_s=0.01)
    with bulkhead.guard(), pytest.raises(Refused, match="the store"), bulkhead.guard():
        pass
    with bulkhead.guard():
        pass


def test_a_deadline_leaves_time_to_say_why():
    assert Deadline(lambda: 5_000).left() == 4.0
    assert Deadline(lambda: 800).passed()


def test_a_slow_read_is_made_twice_and_the_first_that_comes_counts():
    calls, slow = [], threading.Event()

    def read():
        calls.append(1)
        if len(calls) == 1:
            slow.wait(10)
            return "late"
        return "second"

    with ThreadPoolExecutor(2) as pool:
        assert hedged(pool, read, 0.01) == "second"
        slow.set()
        assert len(calls) == 2
        assert hedged(pool, lambda: "quick", 5) == "quick"


def test_a_hedged_read_fails_when_both_fail_and_not_when_one_does():
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(ValueError):
            hedged(pool, raising(ValueError()), 5)
        order = iter((ValueError(), None))
        both = threading.Barrier(2, timeout=10)

        def one_fails():
            error = next(order)
            both.wait()
            if error:
                raise error
            return 3

        assert hedged(pool, one_fails, 0.01) == 3


def test_every_call_of_a_client_is_behind_its_breaker(breaker, clock):
    """Nothing listens at the address: the calls fail until the circuit opens, then they are not made."""
    client = boto3.client(
        "sqs", endpoint_url="http://127.0.0.1:9", region_name="us-east-1", aws_access_key_id="a",
        aws_secret_access_key="b", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    guard_client(client, breaker)
    for _ in range(2):
        with pytest.raises(EndpointConnectionError) as failed:
            client.list_queues()
        assert passing(failed.value)
    with pytest.raises(Refused) as refused:
        client.list_queues()
    assert passing(refused.value) and breaker.state == "open"
    clock.now = 60.0
    with pytest.raises(EndpointConnectionError):
        client.list_queues()


# -- timeouts: whoever calls waits longer than whoever is called ------------------------------------------------------

STACK = Path(__file__).resolve().parents[2] / "stacks" / "rag"
CONNECT_S = 1
HTTP_API_S = 29


class Tagged(yaml.SafeLoader):
    """Reads a template; what functions like !Ref give is {tag: argument}."""


Tagged.add_multi_constructor("!", lambda loader, tag, node: {tag: _plain(loader, node)})


def _plain(loader, node):
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    sequence = isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node, True) if sequence else loader.construct_mapping(node, True)


def budget_s(seconds, attempts):
    """The longest that one call may take: every attempt, and the longest pauses between them."""
    return attempts * (CONNECT_S + seconds) + sum(2**attempt for attempt in range(attempts - 1))


def prepared(handler):
    """The services that the module of a handler, and the handlers that it imports, prepare."""
    found, left, seen = set(), [handler.rsplit(".", 1)[0].split(".")[1]], set()
    while left:
        name = left.pop()
        path = STACK / "handlers" / f"{name}.py"
        if name in seen or name == "wiring" or not path.is_file():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("wiring.prepare", "wiring.client"):
                found |= {one.value for one in node.args if isinstance(one, ast.Constant)}
            if isinstance(node, ast.ImportFrom) and node.module == "handlers":
                left += [alias.name for alias in node.names]
    return found


def test_whoever_calls_waits_longer_than_whoever_is_called():
    from handlers.wiring import TIMEOUTS

    template = yaml.load((STACK / "template.yaml").read_text(), Tagged)
    resources, longest = template["Resources"], template["Parameters"]["ModelTimeout"]["MaxValue"]
    seen = 0
    for name, one in resources.items():
        if one["Type"] != "AWS::Serverless::Function":
            continue
        properties = one["Properties"]
        timeout, variables = properties["Timeout"], properties.get("Environment", {}).get("Variables", {})
        for service in prepared(properties["Handler"]):
            seconds, attempts = TIMEOUTS[service]
            if service == "bedrock-runtime":
                given = variables.get("MODEL_TIMEOUT_S", seconds)
                seconds = longest if isinstance(given, dict) else float(given)
            assert budget_s(seconds, attempts) < timeout, (name, service, budget_s(seconds, attempts), timeout)
            seen += 1
        for event in properties.get("Events", {}).values():
            if event["Type"] == "HttpApi":
                assert timeout <= HTTP_API_S, name
            if event["Type"] == "SQS":
                for queue in _queues(event["Properties"]["Queue"]):
                    assert 6 * timeout <= resources[queue]["Properties"]["VisibilityTimeout"], (name, queue)
    assert seen >= 15


def _queues(told):
    """The logical ids in `!GetAtt Queue.Arn`, or in an `!If` of them."""
    if "GetAtt" in told:
        return [told["GetAtt"].split(".")[0]]
    return [name for one in told["If"][1:] for name in _queues(one)]


def test_the_downstream_limit_holds_by_the_templates_own_numbers():
    given = {name: one.get("Default") for name, one in yaml.load(
        (STACK / "template.yaml").read_text(), Tagged)["Parameters"].items()}  # fmt: skip
    assert given["BurstConcurrency"] < given["DownstreamLimit"] > given["QueueConcurrency"]

"""Faults on purpose: what callers see, who is struck and how often, and that nothing is left when they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from tests.support.server import LiveServer

CODES = {
    "sqs": ("list_queues", "RequestThrottled", "ServiceUnavailable"),
    "dynamodb": ("list_tables", "ProvisionedThroughputExceededException", "InternalServerError"),
    "s3": ("list_buckets", "SlowDown", "ServiceUnavailable"),
    "s3vectors": ("list_vector_buckets", "TooManyRequestsException", "ServiceUnavailableException"),
    "lambda": ("list_functions", "TooManyRequestsException", "ServiceException"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = LiveServer(tmp_path_factory.mktemp("faults") / "state").start()
    yield server
    assert server.stop() == 0 and "defect" not in server.log.read_text()


@pytest.fixture(autouse=True)
def clean(server):
    yield
    server.get("/_preheat/faults", "DELETE")


def control(server, method, body=None, query=""):
    status, _, answer = server.get(
        f"/_preheat/faults{query}", method, None if body is None else json.dumps(body).encode()
    )
    return status, json.loads(answer)


def add(server, **fault):
    status, answer = control(server, "POST", fault)
    assert status == 200, answer
    return answer["fault"]["id"]


def hits(server):
    return {one["id"]: one["hits"] for one in control(server, "GET")[1]["faults"]}


@pytest.mark.parametrize("service", CODES)
def test_a_service_fails_in_its_own_words_and_recovers(server, service):
    name, throttled, unavailable = CODES[service]
    client = server.client(service)
    for error, code in (("throttle", throttled), ("unavailable", unavailable)):
        fault = add(server, service=service, error=error)
        with pytest.raises(ClientError) as refused:
            getattr(client, name)()
        assert refused.value.response["Error"]["Code"] == code
        assert hits(server) == {fault: 1}
        assert control(server, "DELETE", query=f"?id={fault}") == (200, {"removed": 1})
        getattr(client, name)()


def test_a_call_is_cut_off_or_takes_its_time(server):
    client = server.client("sqs", read_timeout=1)
    add(server, service="sqs", error="drop", count=1)
    with pytest.raises(ConnectionClosedError):
        client.list_queues()
    client.list_queues()
    add(server, service="sqs", error="delay", ms=60_000, operation="ListQueues")
    with pytest.raises(ReadTimeoutError):
        client.list_queues()
    client.create_queue(QueueName="quick")
    control(server, "DELETE")
    add(server, service="sqs", error="delay", ms=50)
    assert client.list_queues()["QueueUrls"]


def test_standard_retries_take_what_passes_and_leave_what_does_not(server):
    client = server.client("dynamodb", retries={"mode": "standard", "total_max_attempts": 3})
    passing = add(server, service="dynamodb", error="throttle", count=2)
    client.list_tables()
    assert hits(server) == {passing: 2}
    lasting = add(server, service="dynamodb", error="deny")
    with pytest.raises(ClientError, match="AccessDeniedException"):
        client.list_tables()
    assert hits(server)[lasting] == 1


def test_a_fault_ends_by_the_clock_and_strikes_its_share(server):
    client = server.client("sqs")
    add(server, service="sqs", error="throttle", seconds=60)
    with pytest.raises(ClientError):
        client.list_queues()
    server.advance(61)
    client.list_queues()
    half = add(server, service="sqs", error="throttle", rate=0.5)
    told = []
    for _ in range(60):
        try:
            client.list_queues()
        except ClientError:
            told.append(1)
    assert 10 < len(told) < 50 and hits(server)[half] == len(told)
    control(server, "DELETE")
    never = add(server, service="sqs", error="throttle", rate=0)
    client.list_queues()
    assert hits(server) == {never: 0}


def test_only_the_callers_that_are_named_are_struck(server):
    sts = server.client("sts")
    iam = server.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}  # fmt: skip
    role = iam.create_role(RoleName="worker", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    given = sts.assume_role(RoleArn=role, RoleSessionName="one")["Credentials"]
    import boto3
    from botocore.config import Config

    other = boto3.client(
        "sqs", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"], aws_session_token=given["SessionToken"],
        config=Config(retries={"max_attempts": 0}),
    )  # fmt: skip
    add(server, service="sqs", error="throttle", caller="assumed-role/worker")
    with pytest.raises(ClientError, match="RequestThrottled"):
        other.list_queues()
    server.client("sqs").list_queues()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"service": "nothing", "error": "throttle"}, "service must be one of"),
        ({"service": "sqs", "error": "explode"}, "error must be one of"),
        ({"service": "sqs", "error": "throttle", "operation": "Fly"}, "has no operation 'Fly'"),
        ({"service": "sqs", "error": "throttle", "rate": 2}, "rate must be a number from 0 to 1"),
        ({"service": "sqs", "error": "delay"}, "a delay needs it"),
        ({"service": "sqs", "error": "throttle", "ms": 5}, "`ms` is for a delay"),
        ({"service": "sqs", "error": "throttle", "often": 1}, "has no 'often'"),
        ({"service": 3, "error": "throttle"}, "service must be a string"),
        ([], "a fault is an object"),
    ],
)
def test_what_is_no_fault_is_refused(server, fault, told):
    status, answer = control(server, "POST", fault)
    assert status == 400 and told in answer["message"]
    assert control(server, "GET")[1] == {"faults": []}
    assert control(server, "DELETE", query="?id=none")[0] == 404


def test_the_command_adds_lists_and_clears(server):
    def run(*arguments, code=0):
        command = [str(Path(sys.executable).parent / "preheat"), "faults", *arguments, "--port", str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done
        return done.stdout + done.stderr

    assert "no faults" in run()
    told = run("add", "bedrock-runtime", "delay", "--ms", "2000", "--operation", "InvokeModel", "--rate", "0.25")
    assert "bedrock-runtime:InvokeModel delay, 2000 ms, 25% of calls  struck 0" in told
    assert told in run("list")
    assert "bedrock-runtime has no operation" in run("add", "bedrock-runtime", "throttle", "--operation", "X", code=2)
    assert "1 faults removed" in run("clear")

"""`preheat serve` through the real command: what stops it, what it says then, and how it ends."""

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.crashing import descendants
from tests.support.execution_driver import alive
from tests.support.functions import ROLE, make_zip
from tests.support.server import LiveServer, free_port, wait_for

PREHEAT = Path(sys.executable).parent / "preheat"
ENDING_S = 5.0


def serve(*arguments, **options):
    """(exit code, what it said) of a server that cannot start."""
    command = [PREHEAT, "serve", "--port", free_port(), *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=30, **options)
    return done.returncode, done.stdout + done.stderr


def refused(code, *arguments, **options):
    """The one line of a refusal."""
    got, said = serve(*arguments, **options)
    assert got == code, said
    assert "Traceback" not in said
    assert said.startswith("preheat: ") and said.count("\n") == 1, said
    return said


# -- start ------------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(1, "--port", port, "--state", tmp_path / "state")
    assert str(port) in said and "--port" in said


def test_a_failed_start_leaves_the_state_free_for_the_next(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused(1, "--port", other.getsockname()[1], "--state", tmp_path / "state")
    server = LiveServer(tmp_path / "state").start()
    assert server.stop() == 0


def test_a_state_that_is_a_file(tmp_path):
    (tmp_path / "state").write_text("mine")
    assert "is not a directory" in refused(1, "--state", tmp_path / "state")
    assert (tmp_path / "state").read_text() == "mine"


def test_a_state_that_cannot_be_made():
    assert "/proc/preheat" in refused(1, "--state", "/proc/preheat")


@pytest.mark.parametrize("name", ["lock", "preheat.db"])
def test_a_state_with_a_directory_where_a_file_should_be(tmp_path, name):
    (tmp_path / "state" / name).mkdir(parents=True)
    assert str(tmp_path / "state") in refused(1, "--state", tmp_path / "state")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read and write everything")
def test_a_state_without_permission(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0)
    try:
        assert "ermission" in refused(1, "--state", state)
    finally:
        state.chmod(0o700)


def test_a_second_server_on_the_same_state_is_told_which_process_holds_it(fresh_server):
    server = fresh_server()
    assert f"process {server.process.pid}" in refused(1, "--state", server.state)
    assert server.get("/_preheat/health")[0] == 200


def test_a_database_of_random_bytes_is_refused_and_left_alone(tmp_path):
    noise = random.Random(1).randbytes(65_536)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "preheat.db").write_bytes(noise)
    assert "move it away" in refused(1, "--state", tmp_path / "state")
    assert (tmp_path / "state" / "preheat.db").read_bytes() == noise


def test_a_database_damaged_behind_its_header_is_refused(tmp_path):
    server = LiveServer(tmp_path / "state").start()
    assert server.stop() == 0
    database = tmp_path / "state" / "preheat.db"
    whole = database.read_bytes()
    database.write_bytes(whole[:4096] + random.Random(2).randbytes(len(whole) - 4096))
    assert "move it away" in refused(1, "--state", tmp_path / "state")


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--durability", "maybe", "process or power"), ("--iam", "strict", "off or enforce"),
        ("--port", "70000", "65535"), ("--port", "http", "integer"), ("--concurrency", "5", "101"),
        ("--environments", "0", "1"), ("--streaming-bandwidth", "fast", "off or aws"),
        ("--no-such-option", "1", "--no-such-option"),
    ],
)  # fmt: skip
def test_values_that_options_do_not_take(tmp_path, option, value, word):
    code, said = serve("--state", tmp_path / "state", option, value)
    assert code == 2 and word in said and "Traceback" not in said
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not valid JSON"), ("[1]", "JSON object"), ("\x00", "not valid JSON"),
        ('{"mine": {"backend": "magic"}}', "magic"), ('{"mine": 3}', "models.mine"),
        ('{"mine": {"backend": "openai"}}', "models.mine"),
        ('{"mine": {"backend": "hashing", "options": {"dimension": "wide"}}}', "models.mine"),
        ('{"mine": {"backend": "hashing", "colour": 1}}', "colour"),
    ],
)  # fmt: skip
def test_models_that_are_wrong(tmp_path, text, word):
    (tmp_path / "models.json").write_text(text)
    assert word in refused(2, "--state", tmp_path / "state", "--models", tmp_path / "models.json")


def test_models_that_are_not_there(tmp_path):
    assert "nowhere.json" in refused(2, "--state", tmp_path / "state", "--models", tmp_path / "nowhere.json")


# -- a full disk ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(server, room):
    """No file of the server's may grow past the largest it has now plus `room` bytes."""
    largest = max(path.stat().st_size for path in server.state.rglob("*") if path.is_file())
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (largest + room, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_writes_keeps_what_was_stored_and_recovers(fresh_server):
    server = fresh_server()
    sqs, s3, items = server.client("sqs"), server.client("s3"), server.client("dynamodb")
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    s3.create_bucket(Bucket="full")
    items.create_table(
        TableName="full", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    s3.put_object(Bucket="full", Key="kept", Body=b"k" * 100_000)
    stored = []

    def until_refused(write):
        for number in range(400):
            try:
                write(number)
            except ClientError as error:
                return error.response
            stored.append(number)
        raise AssertionError("the disk never was full")

    with full_disk(server, 300_000):
        answer = until_refused(lambda n: sqs.send_message(QueueUrl=url, MessageBody=f"{n} " + "x" * 50_000))
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (503, "ServiceUnavailable")
        with pytest.raises(ClientError) as large:
            s3.put_object(Bucket="full", Key="kept", Body=b"n" * 12_000_000)
        assert large.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        with pytest.raises(ClientError) as item:
            items.put_item(TableName="full", Item={"id": {"S": "1"}, "text": {"S": "x" * 300_000}})
        assert item.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert s3.get_object(Bucket="full", Key="kept")["Body"].read() == b"k" * 100_000
        assert server.get("/_preheat/health")[0] == 200
        assert not list((server.state / "blobs").rglob("*.part"))
    s3.put_object(Bucket="full", Key="after", Body=b"n" * 3_000_000)
    items.put_item(TableName="full", Item={"id": {"S": "1"}, "text": {"S": "now"}})
    sqs.send_message(QueueUrl=url, MessageBody="after")
    for _ in range(2):
        count = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        assert int(count["ApproximateNumberOfMessages"]) == len(stored) + 1
        assert items.scan(TableName="full")["Items"] == [{"id": {"S": "1"}, "text": {"S": "now"}}]
        assert s3.get_object(Bucket="full", Key="kept")["Body"].read() == b"k" * 100_000
        server.kill()
        server.start()
    blobs = [path for path in (server.state / "blobs" / "s3").rglob("*") if path.is_file()]
    assert len(blobs) == 2, "a file that no object names was left behind"
    assert "Traceback" not in server.log.read_text()


def test_the_clock_is_not_moved_when_its_new_place_cannot_be_stored(fresh_server):
    server = fresh_server()
    before = json.loads(server.get("/_preheat/clock")[2])
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    status, _, body = server.get("/_preheat/clock/advance?seconds=1000", "POST")
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert status == 503 and "not moved" in json.loads(body)["message"], body
    assert json.loads(server.get("/_preheat/clock")[2])["offset"] == before["offset"]
    server.advance(1_000)


# -- the end ----------------------------------------------------------------------------------------------------------

SLOW = """
import time
print("running", flush=True)

def handler(event, context):
    time.sleep(60)
"""


@pytest.fixture
def silence():
    """The address of a model server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_that_is_open_within_five_seconds(tmp_path, fresh_server, silence, number):
    models = {"silent": {"backend": "openai", "options": {"base_url": silence, "model": "m", "kind": "chat"}}}
    (tmp_path / "models.json").write_text(json.dumps(models))
    server = fresh_server("--models", str(tmp_path / "models.json"))
    sqs, functions = server.client("sqs"), server.client("lambda")
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    functions.create_function(
        FunctionName="slow", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=90,
        Code={"ZipFile": make_zip({"app.py": SLOW})},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="slow")
    chat = {"modelId": "silent", "messages": [{"role": "user", "content": [{"text": "?"}]}]}
    open_calls = [
        lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20),
        lambda: functions.invoke(FunctionName="slow"),
        lambda: server.client("bedrock-runtime").converse(**chat),
    ]
    ends = []

    def call(work):
        try:
            ends.append(work())
        except (BotoCoreError, ClientError) as error:
            ends.append(error)

    threads = [threading.Thread(target=call, args=(work,)) for work in open_calls]
    for thread in threads:
        thread.start()
    groups = {"logGroupName": "/aws/lambda/slow"}
    logs = server.client("logs")

    def running():
        with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
            return any("START" in event["message"] for event in logs.filter_log_events(**groups)["events"])

    wait_for(running, what="the invocation's START")
    below = descendants(server.process.pid)
    assert below
    server.process.send_signal(number)
    assert server.process.wait(ENDING_S) == 0
    for thread in threads:
        thread.join(60)
    assert len(ends) == len(open_calls) and all(isinstance(end, BotoCoreError) for end in ends), ends
    wait_for(lambda: not any(map(alive, below)), what="the end of the workers")
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


TEMPLATE = {
    "Resources": {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "stacked"}},
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "stacked"}},
    },
    "Outputs": {"Url": {"Value": {"Ref": "Queue"}}},
}


def test_a_restart_finds_everything_as_it_was(fresh_server):
    server = fresh_server()
    stacks, functions, sqs = server.client("cloudformation"), server.client("lambda"), server.client("sqs")
    stacks.create_stack(StackName="s", TemplateBody=json.dumps(TEMPLATE))
    stacks.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    functions.create_function(
        FunctionName="f", Runtime="python3.11", Handler="app.handler", Role=ROLE, Code={"ZipFile": make_zip()}
    )
    functions.get_waiter("function_active_v2").wait(FunctionName="f")
    url = sqs.get_queue_url(QueueName="stacked")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="kept")
    server.client("s3").put_object(Bucket="stacked", Key="k", Body=b"v" * 70_000)

    def picture():
        function = functions.get_function_configuration(FunctionName="f")
        resources = stacks.describe_stack_resources(StackName="s")["StackResources"]
        stack = stacks.describe_stacks(StackName="s")["Stacks"][0]
        queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        objects = server.client("s3").list_objects_v2(Bucket="stacked")["Contents"]
        documents = [function, stack, objects, queue]
        for document in (function, stack):
            document.pop("ResponseMetadata", None)
        return documents, resources

    before = picture()
    for _ in range(2):
        assert server.stop() == 0
        server.start()
        assert picture() == before
    assert json.loads(functions.invoke(FunctionName="f", Payload=b'{"a": 1}')["Payload"].read()) == {"a": 1}
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "kept"
    stacks.delete_stack(StackName="s")

"""Other people's clients of SQS: boto3's resource and client, the AWS CLI, the Node SDK, Celery, and Powertools for
Lambda's batch processing in a function behind an event source mapping."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.test_aws_cli import CommandLine
from tests.support.clients import aws_cli, have, node_sdk
from tests.support.functions import ROLE, make_zip
from tests.support.queues import ARN, bodies, depths, make, receive, redrive, send
from tests.support.server import LiveServer, wait_for

RUN_S = 60
VISIBILITY_S = 30


def need(module, package):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{package} is not installed")


@pytest.fixture
def sqs(aws):
    return aws.client("sqs")


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """A server whose clock the tests move."""
    server = LiveServer(tmp_path_factory.mktemp("later") / "state").start()
    yield server
    assert server.stop() == 0
    assert "defect in" not in server.log.read_text()


# -- boto3 -------------------------------------------------------------------------------------------------------------


def test_the_resource_of_boto3(aws):
    sqs = aws.resource("sqs")
    dead = sqs.create_queue(QueueName="res-dead", tags={"team": "a"})
    policy = json.dumps(redrive("res-dead", 1))
    queue = sqs.create_queue(QueueName="res", Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "60"})
    assert sqs.get_queue_by_name(QueueName="res").url == queue.url
    assert queue.url in [one.url for one in sqs.queues.filter(QueueNamePrefix="res")]
    assert [one.url for one in dead.dead_letter_source_queues.all()] == [queue.url]
    assert queue.attributes["QueueArn"] == ARN + "res"
    kind = {"DataType": "Binary", "BinaryValue": b"\x00\xff"}
    assert queue.send_message(MessageBody="one", MessageAttributes={"k": kind})["MessageId"]
    answer = queue.send_messages(Entries=[{"Id": str(at), "MessageBody": f"b{at}"} for at in range(3)])
    assert len(answer["Successful"]) == 3
    messages = queue.receive_messages(
        MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"], AttributeNames=["All"]
    )
    assert sorted(message.body for message in messages) == ["b0", "b1", "b2", "one"]
    (first,) = [message for message in messages if message.body == "one"]
    assert first.message_attributes == {"k": kind} and first.attributes["ApproximateReceiveCount"] == "1"
    first.delete()
    messages.remove(first)
    messages[0].change_visibility(VisibilityTimeout=0)
    assert queue.receive_messages() == [], "it went to the dead-letter queue"
    assert [one.body for one in dead.receive_messages()] == [messages[0].body]
    entries = [{"Id": str(at), "ReceiptHandle": one.receipt_handle} for at, one in enumerate(messages[1:])]
    queue.change_message_visibility_batch(Entries=[{**entry, "VisibilityTimeout": 90} for entry in entries])
    assert len(queue.delete_messages(Entries=entries)["Successful"]) == 2
    queue.set_attributes(Attributes={"DelaySeconds": "3"})
    queue.load()
    assert queue.attributes["DelaySeconds"] == "3"
    queue.add_permission(Label="l", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
    queue.remove_permission(Label="l")
    queue.purge()
    queue.delete()
    with pytest.raises(sqs.meta.client.exceptions.QueueDoesNotExist):
        queue.load()


def test_the_client_of_boto3_with_its_own_retries_and_pages(aws):
    import boto3

    sqs = boto3.client("sqs", endpoint_url=aws.endpoint, region_name="us-east-1", aws_access_key_id="t",
                       aws_secret_access_key="t")  # fmt: skip
    for at in range(5):
        make(sqs, f"paged-{at}")
    pages = sqs.get_paginator("list_queues").paginate(QueueNamePrefix="paged-", PaginationConfig={"PageSize": 2})
    found = [url.rpartition("/")[2] for page in pages for url in page["QueueUrls"]]
    assert found == [f"paged-{at}" for at in range(5)]
    dead = make(sqs, "paged-dead")
    for at in range(3):
        make(sqs, f"paging-{at}", RedrivePolicy=redrive("paged-dead", 5))
    pager = sqs.get_paginator("list_dead_letter_source_queues")
    pages = list(pager.paginate(QueueUrl=dead, PaginationConfig={"PageSize": 2}))
    assert [len(page["queueUrls"]) for page in pages] == [2, 1]
    with pytest.raises(sqs.exceptions.EmptyBatchRequest):
        sqs.delete_message_batch(QueueUrl=dead, Entries=[])
    with pytest.raises(sqs.exceptions.QueueNameExists):
        make(sqs, "paged-dead", DelaySeconds=5)


# -- the AWS CLI -------------------------------------------------------------------------------------------------------


def test_the_command_line(aws, sqs, tmp_path):
    cli = CommandLine(have(aws_cli), aws, tmp_path)
    make(sqs, "line-dead")
    wish = {"RedrivePolicy": json.dumps(redrive("line-dead", 1)), "VisibilityTimeout": "0"}
    (tmp_path / "wish.json").write_text(json.dumps(wish))
    url = cli("sqs", "create-queue", "--queue-name", "line", "--attributes", "file://wish.json")["QueueUrl"]
    at = ("--queue-url", url)
    entries = json.dumps([{"Id": str(number), "MessageBody": f"{number}"} for number in range(3)])
    assert len(cli("sqs", "send-message-batch", *at, "--entries", entries)["Successful"]) == 3
    got = cli("sqs", "receive-message", *at, "--max-number-of-messages", "10", "--wait-time-seconds", "5")["Messages"]
    assert sorted(bodies(got)) == ["0", "1", "2"]
    assert cli("sqs", "receive-message", *at) is None
    assert depths(sqs, url) == (0, 0, 0), "all are dead letters"
    source = ("--source-arn", ARN + "line-dead")
    assert cli("sqs", "start-message-move-task", *source, "--max-number-of-messages-per-second", "500")["TaskHandle"]

    def ended():
        return cli("sqs", "list-message-move-tasks", *source)["Results"][0]["Status"] == "COMPLETED"

    wait_for(ended, what="the end of the task")
    assert depths(sqs, url) == (3, 0, 0)
    refusal = cli.refusal("sqs", "send-message", *at, "--message-body", "x", "--delay-seconds", "901")
    assert "(InvalidParameterValue)" in refusal and "DelaySeconds must be >= 0 and <= 900." in refusal


# -- the SDK for JavaScript --------------------------------------------------------------------------------------------

NODE = """
import * as sdk from "@aws-sdk/client-sqs";
const client = new sdk.SQSClient({});
const ask = (name, params) => client.send(new sdk[name + "Command"](params));
const { QueueUrl } = await ask("CreateQueue", {
  QueueName: "node-line.fifo", Attributes: { FifoQueue: "true", ContentBasedDeduplication: "true" } });
const attributes = {
  n: { DataType: "Number", StringValue: "1.5" }, b: { DataType: "Binary", BinaryValue: new Uint8Array([0, 255]) } };
for (const MessageBody of ["ü", "1", "1", "2"])
  await ask("SendMessage", { QueueUrl, MessageBody, MessageGroupId: "g", MessageAttributes: attributes });
const one = async () => (await ask("ReceiveMessage", {
  QueueUrl, WaitTimeSeconds: 1, MessageAttributeNames: ["All"], MessageSystemAttributeNames: ["All"] })).Messages;
const seen = [];
for (let message = await one(); message; message = await one()) {
  const { Body, ReceiptHandle, MessageAttributes, Attributes } = message[0];
  seen.push([Body, [...MessageAttributes.b.BinaryValue], Attributes.MessageGroupId]);
  await ask("ChangeMessageVisibility", { QueueUrl, ReceiptHandle, VisibilityTimeout: 60 });
  await ask("DeleteMessage", { QueueUrl, ReceiptHandle });
}
const names = [];
for (const [name, params] of [
  ["SendMessage", { QueueUrl, MessageBody: "x" }], ["DeleteMessage", { QueueUrl, ReceiptHandle: "x" }],
  ["SendMessageBatch", { QueueUrl, Entries: [] }], ["GetQueueUrl", { QueueName: "node-nobody" }],
]) try { await ask(name, params); } catch (error) {
  names.push([error.name, error.$metadata.httpStatusCode, error instanceof sdk.SQSServiceException]);
}
console.log(JSON.stringify({ seen, names }));
"""


def test_the_sdk_for_javascript(aws, tmp_path):
    modules = have(node_sdk)
    (tmp_path / "queues.mjs").write_text(NODE)
    (tmp_path / "node_modules").symlink_to(modules / "node_modules")
    done = subprocess.run(
        [shutil.which("node"), "queues.mjs"], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={**aws.environment(), "AWS_REGION": "us-east-1", "HOME": str(tmp_path)}, timeout=RUN_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["seen"] == [[body, [0, 255], "g"] for body in ("ü", "1", "2")], "in order, the double dropped"
    assert answer["names"] == [
        ["MissingParameter", 400, True], ["ReceiptHandleIsInvalid", 404, True],
        ["EmptyBatchRequest", 400, True], ["QueueDoesNotExist", 400, True],
    ]  # fmt: skip


# -- Celery ------------------------------------------------------------------------------------------------------------

CELERY = """
import os
from celery import Celery

app = Celery("jobs", broker="sqs://")
app.conf.update(
    task_default_queue="celery-jobs", task_acks_late=True, broker_connection_retry_on_startup=True,
    broker_transport_options={"region": "us-east-1", "visibility_timeout": 30, "wait_time_seconds": 2,
                              "polling_interval": 0.05},
)

def note(text):
    with open(os.path.join(os.environ["NOTES"], text.split()[0]), "a") as file:
        file.write(text + chr(10))

@app.task
def add(left, right):
    note(f"add {left + right}")

@app.task(bind=True, max_retries=3)
def flaky(self):
    note(f"flaky {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(countdown=0)

@app.task
def deadly():
    note("deadly")
    if not os.path.exists(os.path.join(os.environ["NOTES"], "died")):
        note("died once")
        os.kill(os.getpid(), 9)
"""


class Worker:
    """A Celery worker in a process of its own."""

    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment
        self.log = (folder / "worker.log").open("ab")
        self.start()

    def start(self):
        command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "--pool", "solo", "--without-gossip",
                   "--without-mingle", "--without-heartbeat"]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def test_celery_runs_retries_and_survives_its_worker(later, tmp_path):
    need("celery", "celery[sqs]")
    need("pycurl", "pycurl, which Celery's SQS transport needs,")
    (tmp_path / "jobs.py").write_text(CELERY)
    environment = {**later.environment(), "NOTES": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    sqs = later.client("sqs")

    def ask(*calls):
        program = "import jobs; " + "; ".join(f"jobs.{call}" for call in calls)
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=RUN_S, capture_output=True)

    def notes(name):
        path = tmp_path / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def settled():
        return depths(sqs, sqs.get_queue_url(QueueName="celery-jobs")["QueueUrl"]) == (0, 0, 0)

    worker = Worker(tmp_path, environment)
    try:
        ask("add.delay(2, 3)", "flaky.delay()")
        wait_for(lambda: notes("add") and len(notes("flaky")) == 3 and settled(), RUN_S, "both to be done")
        assert (notes("add"), notes("flaky")) == (["add 5"], ["flaky 0", "flaky 1", "flaky 2"])
        ask("deadly.delay()")
        assert worker.process.wait(RUN_S) == -9
        assert notes("deadly") == ["deadly"] and not settled()
        worker.start()
        later.advance(VISIBILITY_S + 1)
        wait_for(lambda: len(notes("deadly")) == 2 and settled(), RUN_S, "another worker to do it")
    finally:
        worker.stop()


# -- Powertools for AWS Lambda -----------------------------------------------------------------------------------------

POWERTOOLS = """
import os
import boto3
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor, EventType, SqsFifoPartialProcessor, process_partial_response,
)

sqs = boto3.client("sqs")
standard, fifo = BatchProcessor(event_type=EventType.SQS), SqsFifoPartialProcessor()

def work(record):
    if record.body.startswith("bad") or (
        record.body.startswith("once") and int(record.attributes.approximate_receive_count) == 1
    ):
        raise ValueError(record.body)
    sqs.send_message(QueueUrl=os.environ["OUT"], MessageBody=record.body)

def handler(event, context):
    return process_partial_response(event, work, standard, context)

def in_order(event, context):
    return process_partial_response(event, work, fifo, context)
"""


@pytest.fixture(scope="module")
def packages():
    """Powertools and what it needs, as the files of a deployment package."""
    need("aws_lambda_powertools", "aws-lambda-powertools")
    files = {}
    for name in ("aws_lambda_powertools", "jmespath"):
        root = Path(importlib.util.find_spec(name).origin).parent
        for path in root.rglob("*.py"):
            files[f"{name}/{path.relative_to(root)}"] = path.read_bytes()
    files["typing_extensions.py"] = Path(importlib.util.find_spec("typing_extensions").origin).read_bytes()
    return files


def behind(server, name, files, handler, suffix=""):
    """A queue of two receives whose messages a function handles: (its URL, the URL of what was done, the dead)."""
    sqs, functions = server.client("sqs"), server.client("lambda")
    out, dead = make(sqs, f"{name}-out"), make(sqs, f"{name}-dead{suffix}")
    url = make(sqs, name + suffix, RedrivePolicy=redrive(f"{name}-dead{suffix}", 2), VisibilityTimeout=VISIBILITY_S,
               **({"ContentBasedDeduplication": "true"} if suffix else {}))  # fmt: skip
    functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler=f"app.{handler}", Role=ROLE, Timeout=20, MemorySize=256,
        Code={"ZipFile": make_zip({"app.py": POWERTOOLS, **files})},
        Environment={"Variables": {"OUT": out, "POWERTOOLS_SERVICE_NAME": name}},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    functions.create_event_source_mapping(
        EventSourceArn=ARN + name + suffix, FunctionName=name, FunctionResponseTypes=["ReportBatchItemFailures"],
        BatchSize=10,
    )  # fmt: skip
    return url, out, dead


def reached(server, urls, done, left, buried=0):
    """Waits until so many are done, left in the queue with one of them in flight at least, and buried."""
    sqs = server.client("sqs")

    def seen():
        visible, hidden, _ = depths(sqs, urls[0])
        there = visible + hidden == left and (hidden > 0 or not left)
        return there and (depths(sqs, urls[1])[0], depths(sqs, urls[2])[0]) == (done, buried)

    wait_for(seen, RUN_S, f"{done} done, {left} left and {buried} buried")


def done(server, urls):
    sqs = server.client("sqs")
    return [body for _ in range(3) for body in bodies(receive(sqs, urls[1]))]


def test_powertools_report_the_failures_of_a_batch(later, packages):
    urls = behind(later, "tools", packages, "handler")
    entries = [{"Id": str(at), "MessageBody": body} for at, body in enumerate(("a", "bad 1", "b", "once c", "d"))]
    later.client("sqs").send_message_batch(QueueUrl=urls[0], Entries=entries)
    reached(later, urls, 3, 2)
    later.advance(VISIBILITY_S + 1)
    reached(later, urls, 4, 1)
    later.advance(VISIBILITY_S + 1)
    reached(later, urls, 4, 0, buried=1)
    assert sorted(done(later, urls)) == ["a", "b", "d", "once c"], "each good one once"
    (letter,) = receive(later.client("sqs"), urls[2])
    assert letter["Body"] == "bad 1" and letter["Attributes"]["ApproximateReceiveCount"] == "3"


def test_powertools_keep_the_order_of_a_group(later, packages):
    urls = behind(later, "line", packages, "in_order", ".fifo")
    sqs = later.client("sqs")
    for body in ("0", "1", "once 2", "3", "4"):
        send(sqs, urls[0], body, "g")
    reached(later, urls, 2, 3)
    later.advance(VISIBILITY_S + 1)
    reached(later, urls, 5, 0)
    assert done(later, urls) == ["0", "1", "once 2", "3", "4"], "in order, each once"

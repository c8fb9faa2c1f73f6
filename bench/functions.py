"""What is measured of functions: cold and warm invocations, the first chunk of a stream, queues in front of them."""

import base64
import contextlib
import http.client
import io
import json
import socket
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

from cases import load, rate
from servers import COLD_RUNS, SCOPE, Server

TRIGGER_MESSAGES = 40
TRIGGER_WARM = 10
PATIENCE_S = 5.0
WARM_UP_S = 1.0
STREAMS = 20
SLEEPERS = 300
SLEEP_S = 0.1
AT_ONCE = 50
IDEAL_S = SLEEPERS * SLEEP_S / AT_ONCE
RAMP_S = 1.0
"""What each message of the warm-up sleeps: a queue begins with 5 batches at once and may have 5 more every second."""
DRAIN_LIMIT_S = 45.0
LIGHT = "def handler(event, context):\n    return event\n"
HEAVY = (
    "import boto3, numpy\nclient = boto3.client('s3', region_name='us-east-1')\n"
    "def handler(event, context):\n    return float(numpy.ones(3).sum())\n"
)
STAMP = (
    "import os, socket, time\n"
    "line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "def handler(event, context):\n"
    "    now = time.time()\n"
    "    for record in event['Records']:\n"
    "        line.sendto(str(now - float(record['body'])).encode(), ('127.0.0.1', int(os.environ['TOLD'])))\n"
)
SLEEP = (
    "import time\n"
    "def handler(event, context):\n"
    "    for record in event['Records']:\n"
    "        time.sleep(float(record['body']))\n"
)
STREAM = (
    "import socket\n"
    "def handler(event, context):\n"
    "    yield 'one'\n"
    "    socket.create_connection(('127.0.0.1', event['gate'])).recv(1)\n"
    "    yield 'two'\n"
)
BOOTSTRAP = f"#!/bin/sh\nexec {sys.executable} -m awslambdaric index.handler\n"
JSON = {"Content-Type": "application/json"}


def function(server: Server, name: str, code: str, *, runtime: str = "python3.11", **variables: str) -> None:
    """A new function of 512 MB, active. `runtime` "provided.al2023" runs AWS's own client below a bootstrap."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("index.py", code)
        if runtime.startswith("provided"):
            info = zipfile.ZipInfo("bootstrap")
            info.external_attr = 0o755 << 16
            out.writestr(info, BOOTSTRAP)
    document = {
        "FunctionName": name, "Runtime": runtime, "Role": "arn:aws:iam::000000000000:role/bench",
        "Handler": "index.handler", "Code": {"ZipFile": base64.b64encode(archive.getvalue()).decode()}, "Timeout": 30,
        "MemorySize": 512, "Environment": {"Variables": variables},
    }  # fmt: skip
    server.rest("lambda", "POST", "/2015-03-31/functions", json.dumps(document).encode(), **JSON)
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        _, answer = server.rest("lambda", "GET", f"/2015-03-31/functions/{name}/configuration")
        if json.loads(answer).get("State", "Active") == "Active":
            return
        time.sleep(0.02)
    raise RuntimeError(f"{name} did not become active")


def invocations(server: Server, name: str) -> str:
    """The path that invokes a function."""
    return f"/2015-03-31/functions/{server.function_prefix}{name}/invocations"


def cold(server: Server, name: str) -> float:
    """Milliseconds of the first invocation."""
    started = time.perf_counter()
    _, answer = server.rest("lambda", "POST", invocations(server, name), b"{}")
    took = (time.perf_counter() - started) * 1_000
    if b"errorMessage" in answer:
        raise RuntimeError(f"{name}: {answer[:300]!r}")
    return took


def warm(server: Server, name: str, seconds: float, figure: str) -> dict[str, float]:
    """Invocations at 1 and at 16 connections, after as many environments as connections were started."""
    out: dict[str, float] = {}
    kind = {"service": "lambda", "type": "application/json", "method": "POST", "target": "", "body": "{}"}
    kind["path"] = invocations(server, name)
    for connections in (1, 16):
        with contextlib.suppress(RuntimeError):
            if connections > 1:
                with ThreadPoolExecutor(connections) as pool:
                    list(pool.map(lambda _: cold(server, name), range(connections)))
                load(server, "raw", connections, WARM_UP_S, "", **kind)
            result = load(server, "raw", connections, seconds, "", **kind)
            out[f"{figure} c={connections} /s"] = rate(result)
            out[f"{figure} c={connections} p50 ms"] = result["p50_ms"]
            out[f"{figure} c={connections} p99 ms"] = result["p99_ms"]
    return out


def invoke(server: Server, seconds: float, tag: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for kind, code in (("light", LIGHT), ("boto3 and numpy", HEAVY)):
        if server.name == "serverless-offline" and kind != "light":
            continue
        times = []
        for number in range(COLD_RUNS):
            name = f"{kind.split()[0]}-{number}" if server.function_prefix else f"{kind.split()[0]}-{tag}-{number}"
            if not server.function_prefix:
                function(server, name, code)
            times.append(cold(server, name))
        out[f"lambda cold {kind}, first ms"] = times[0]
        out[f"lambda cold {kind} ms"] = sorted(times[1:])[(COLD_RUNS - 1) // 2]
    out |= warm(server, "light-0" if server.function_prefix else f"light-{tag}-0", seconds, "lambda warm")
    if server.name == "preheat":
        function(server, f"ric-{tag}", LIGHT, runtime="provided.al2023")
        cold(server, f"ric-{tag}")
        out |= warm(server, f"ric-{tag}", seconds, "lambda warm, awslambdaric")
        out |= stream(server, tag)
    return out


def stream(server: Server, tag: str) -> dict[str, float]:
    """The handler makes its second chunk when it is told on a connection of its own, and it is told when the client has
    read the first chunk: it could not come to an end otherwise. Raises OSError when a first chunk does not come."""
    name = f"stream-{tag}"
    function(server, name, STREAM)
    path = f"/2021-11-15/functions/{name}/response-streaming-invocations"
    headers = {"Authorization": SCOPE % "lambda" + "0" * 64, "X-Amz-Date": "20260101T000000Z"}
    first = []
    with socket.create_server(("127.0.0.1", 0)) as gate:
        gate.settimeout(PATIENCE_S)
        event = json.dumps({"gate": gate.getsockname()[1]}).encode()
        for _ in range(STREAMS + 1):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
            started = time.perf_counter()
            connection.request("POST", path, event, headers)
            response = connection.getresponse()
            seen = b""
            while b"one" not in seen:
                seen += response.read1(65_536)
            first.append((time.perf_counter() - started) * 1_000)
            waiting, _ = gate.accept()
            with waiting:
                waiting.send(b"!")
            if b"two" not in response.read():
                raise RuntimeError("the stream did not end as it should")
            connection.close()
    times = sorted(first[1:])
    return {"lambda first chunk ms": times[STREAMS // 2], "lambda first chunks read before the next": len(times)}


def queue_to_handler(server: Server, seconds: float, tag: str) -> dict[str, float]:
    """Milliseconds from before the send to the handler's first line, one message at a time, warm."""
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as told:
        told.bind(("127.0.0.1", 0))
        told.settimeout(PATIENCE_S)
        function(server, f"stamp-{tag}", STAMP, TOLD=str(told.getsockname()[1]))
        queue = mapped(server, f"stamp-{tag}")
        for _ in range(TRIGGER_MESSAGES):
            server.api("sqs", "AmazonSQS.SendMessage", QueueUrl=queue, MessageBody=str(time.time()))
            times.append(float(told.recv(100)) * 1_000)
    times = sorted(times[TRIGGER_WARM:])
    return {"sqs to handler p50 ms": times[len(times) // 2], "sqs to handler max ms": times[-1]}


def mapped(server: Server, name: str, **settings: object) -> str:
    """The URL of a queue of that name that feeds the function of that name, one message a batch."""
    queue = server.create_queue(name)
    attributes = server.api("sqs", "AmazonSQS.GetQueueAttributes", QueueUrl=queue, AttributeNames=["QueueArn"])
    mapping = {"EventSourceArn": attributes["Attributes"]["QueueArn"], "FunctionName": name, "BatchSize": 1, **settings}
    server.rest("lambda", "POST", "/2015-03-31/event-source-mappings", json.dumps(mapping).encode(), **JSON)
    return queue


def sleepers(server: Server, repeats: int) -> dict[str, list[float]]:
    """300 messages of 100 ms each through a mapping with MaximumConcurrency 50, from before the first send until the
    queue holds none, deleted ones neither; before that messages of a second each let the mapping grow to 50."""
    function(server, "sleep", SLEEP)
    queue = mapped(server, "sleep", ScalingConfig={"MaximumConcurrency": AT_ONCE})
    drained(server, queue, RAMP_S if server.name.startswith("preheat") else SLEEP_S)
    took = [drained(server, queue, SLEEP_S) for _ in range(repeats)]
    over = [each / IDEAL_S for each in took]
    return {"sqs 300 x 100 ms at 50 s": took, "sqs 300 x 100 ms at 50 over the ideal": over}


def drained(server: Server, queue: str, sleep: float) -> float:
    """Seconds from the first of SLEEPERS sends until nothing is left. Raises RuntimeError when it takes too long."""
    left = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    entries = [{"Id": str(number), "MessageBody": str(sleep)} for number in range(10)]

    def send() -> None:
        for _ in range(SLEEPERS // 10):
            server.api("sqs", "AmazonSQS.SendMessageBatch", QueueUrl=queue, Entries=entries)

    started = time.perf_counter()
    sender = threading.Thread(target=send)
    sender.start()
    sender.join()
    while time.perf_counter() - started < DRAIN_LIMIT_S:
        found = server.api("sqs", "AmazonSQS.GetQueueAttributes", QueueUrl=queue, AttributeNames=left)
        if all(int(found["Attributes"][name]) == 0 for name in left):
            return time.perf_counter() - started
        time.sleep(0.002)
    raise RuntimeError(f"{SLEEPERS} messages of {sleep} s were not done in {DRAIN_LIMIT_S:g} s")

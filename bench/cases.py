"""What is measured. Each case takes a server and gives {figure: value}; rates a second, times in milliseconds."""

import io
import json
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

from servers import Server

LOAD = Path(__file__).parent / "load.lua"
LIGHT = "def handler(event, context):\n    return event\n"
HEAVY = (
    "import boto3, numpy\nclient = boto3.client('s3')\n"
    "def handler(event, context):\n    return float(numpy.ones(3).sum())\n"
)
STAMP = (
    "import time, urllib.request, os\n"
    "def handler(event, context):\n"
    "    now = time.time()\n"
    "    with open(os.environ['OUT'], 'a') as out:\n"
    "        for record in event['Records']:\n"
    "            out.write(f\"{now - float(record['body'])}\\n\")\n"
)


class NoGenerator(RuntimeError):
    """wrk is not installed."""


def wrk(server: Server, kind: str, connections: int, seconds: float, queue: str = "", **more: str) -> dict:
    """One run of the load generator; its RESULT line."""
    if shutil.which("wrk") is None:
        raise NoGenerator("wrk is not installed (Debian package wrk); the load cases need it")
    variables = {"LOAD_KIND": kind, "LOAD_QUEUE": queue}
    variables |= {f"LOAD_{key.upper()}": value for key, value in more.items()}
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "--latency",
         "-s", str(LOAD), server.endpoint + "/"],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=seconds + 120,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[7:])
    raise RuntimeError(f"wrk gave no result: {done.stdout[-300:]} {done.stderr[-300:]}")


def _rate(result: dict) -> float:
    return result["requests"] / result["seconds"]


def _queue(server: Server, name: str) -> str:
    return server.client("sqs").create_queue(QueueName=name, Attributes={"VisibilityTimeout": "600"})["QueueUrl"]


def fill(server: Server, queue: str, count: int) -> None:
    """At least `count` messages more in the queue."""
    left = count
    while left > 0:
        result = wrk(server, "batch", 16, min(10, max(1, left / 60_000)), queue)
        left -= 10 * (result["requests"] - result["bad"])


def sqs(server: Server, seconds: float, tag: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for connections in (1, 16, 64):
        queue = _queue(server, f"send-{tag}-{connections}")
        result = wrk(server, "send", connections, seconds, queue)
        out[f"sqs send c={connections} /s"] = _rate(result)
        out[f"sqs send c={connections} p99 ms"] = result["p99_ms"]
        result = wrk(server, "batch", connections, seconds, _queue(server, f"batch-{tag}-{connections}"))
        out[f"sqs batch c={connections} msg/s"] = 10 * _rate(result)
        drained = wrk(server, "drain", connections, seconds, queue)
        out[f"sqs receive+delete c={connections} msg/s"] = drained["messages"] / drained["seconds"]
    return out


def backlog(server: Server, seconds: float, tag: str, depth: int) -> dict[str, float]:
    """Rates with `depth` messages waiting."""
    queue = _queue(server, f"deep-{tag}-{depth}")
    fill(server, queue, depth)
    name = f"at {depth:,}"
    out = {f"sqs send c=16 {name} /s": _rate(wrk(server, "send", 16, seconds, queue))}
    drained = wrk(server, "drain", 16, seconds, queue)
    out[f"sqs receive+delete c=16 {name} msg/s"] = drained["messages"] / drained["seconds"]
    out[f"sqs receive+delete c=16 {name} p99 ms"] = drained["p99_ms"]
    out[f"memory {name} MB"] = server.memory_mb()
    return out


def storage(server: Server, seconds: float, tag: str) -> dict[str, float]:
    s3, dynamodb = server.client("s3"), server.client("dynamodb")
    s3.create_bucket(Bucket=f"bench-{tag}")
    s3.put_object(Bucket=f"bench-{tag}", Key="k", Body=b"x" * 1024)
    dynamodb.create_table(
        TableName=f"bench-{tag}", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
    )  # fmt: skip
    item = {"k": {"S": "a"}, "v": {"S": "x" * 1000}}
    dynamodb.put_item(TableName=f"bench-{tag}", Item=item)
    json_type = {"type": "application/x-amz-json-1.0", "service": "dynamodb", "method": "POST", "path": "/"}
    put = json.dumps({"TableName": f"bench-{tag}", "Item": item})
    get = json.dumps({"TableName": f"bench-{tag}", "Key": {"k": {"S": "a"}}})
    object_ = {"type": "binary/octet-stream", "service": "s3", "path": f"/bench-{tag}/k", "target": ""}
    kinds = {
        "s3 put 1 KB": {**object_, "method": "PUT", "body": "x" * 1024},
        "s3 get 1 KB": {**object_, "method": "GET", "body": ""},
        "dynamodb put 1 KB": {**json_type, "target": "DynamoDB_20120810.PutItem", "body": put},
        "dynamodb get 1 KB": {**json_type, "target": "DynamoDB_20120810.GetItem", "body": get},
    }
    out: dict[str, float] = {}
    for name, more in kinds.items():
        for connections in (1, 16):
            result = wrk(server, "raw", connections, seconds, "", **more)
            if result["bad"]:
                raise RuntimeError(f"{name}: {result['bad']} of {result['requests']} requests failed")
            out[f"{name} c={connections} /s"] = _rate(result)
    return out


def _zip(code: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.py", code)
    return buffer.getvalue()


def _function(server: Server, name: str, code: str, **more) -> None:
    client = server.client("lambda")
    client.create_function(
        FunctionName=name, Runtime="python3.11", Role="arn:aws:iam::000000000000:role/bench", Handler="index.handler",
        Code={"ZipFile": _zip(code)}, Timeout=30, MemorySize=512, **more,
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})


def functions(server: Server, seconds: float, tag: str) -> dict[str, float]:
    client = server.client("lambda")
    out: dict[str, float] = {}
    for kind, code in (("light", LIGHT), ("boto3 and numpy", HEAVY)):
        times = []
        for number in range(4):
            name = f"{kind.split()[0]}-{tag}-{number}"
            _function(server, name, code)
            started = time.perf_counter()
            reply = client.invoke(FunctionName=name, Payload=b"{}")
            times.append((time.perf_counter() - started) * 1_000)
            if reply.get("FunctionError"):
                raise RuntimeError(f"{kind}: {reply['Payload'].read()!r}")
        if kind == "light":
            out["lambda first cold invoke ms"] = times[0]
        out[f"lambda cold {kind} ms"] = sorted(times[1:])[1]
    path = f"/2015-03-31/functions/light-{tag}-0/invocations"
    for connections in (1, 16):
        result = wrk(server, "raw", connections, seconds, "", service="lambda", type="application/json", method="POST",
                     path=path, target="", body="{}")  # fmt: skip
        out[f"lambda warm c={connections} /s"] = _rate(result)
        out[f"lambda warm c={connections} p50 ms"] = result["p50_ms"]
    return out


def queue_to_handler(server: Server, tag: str) -> dict[str, float]:
    """Milliseconds from the send to the first line of the handler, warm."""
    target = server.work / f"latency-{tag}"
    target.touch()
    _function(server, f"stamp-{tag}", STAMP, Environment={"Variables": {"OUT": str(target)}})
    queue = _queue(server, f"stamp-{tag}")
    client = server.client("sqs")
    arn = client.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    server.client("lambda").create_event_source_mapping(EventSourceArn=arn, FunctionName=f"stamp-{tag}", BatchSize=1)
    for number in range(40):
        client.send_message(QueueUrl=queue, MessageBody=str(time.time()))
        deadline = time.perf_counter() + 30
        while len(target.read_text().splitlines()) <= number and time.perf_counter() < deadline:
            time.sleep(0.001)
    times = sorted(float(line) * 1_000 for line in target.read_text().splitlines()[10:])
    if not times:
        raise RuntimeError("no message reached the handler")
    return {"sqs to handler p50 ms": times[len(times) // 2]}


"""What is measured. A case takes a started server and gives {figure: value}; rates a second, times in milliseconds."""

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import generator
from servers import Server

HERE = Path(__file__).parent
WRK = shutil.which("wrk")
CONNECTIONS = (1, 16, 64, 256)
BATCH = 10
DRAIN = {"ministack": 4_000, "localstack": 4_000, "moto": 100}
"""Messages in an almost empty queue before it is drained: few for servers that slow down with the depth."""
DRAIN_OTHERS = 40_000
SHALLOW_AT_ONE = 5_000
FILL_LIMIT_S = 10
FILL_LARGE_S = 240
SYNCS = 100


def load(server: Server, kind: str, connections: int, seconds: float, queue: str = "", **more: str) -> dict:
    """One run of the load generator, wrk or else generator.py, in a process of its own; its RESULT line."""
    variables = variables_of(server, kind, queue) | {f"LOAD_{key.upper()}": value for key, value in more.items()}
    if WRK:
        command = [
            WRK, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "--latency",
            "-s", str(HERE / "load.lua"), server.endpoint + "/",
        ]  # fmt: skip
    else:
        command = [sys.executable, str(HERE / "generator.py"), server.endpoint, str(connections), str(seconds)]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=seconds + 60
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[7:])
    raise RuntimeError(f"the load generator gave no result: {done.stdout[-300:]} {done.stderr[-300:]}")


def variables_of(server: Server, kind: str, queue: str) -> dict[str, str]:
    return {"LOAD_KIND": kind, "LOAD_QUEUE": queue, "LOAD_PROTOCOL": server.protocol}


def rate(result: dict) -> float:
    """Good answers a second. Raises RuntimeError when one in a hundred failed."""
    failed = result["bad"] + result["errors"]
    if failed * 100 > result["requests"] or not result["requests"]:
        raise RuntimeError(f"{failed} of {result['requests']} requests failed")
    return (result["requests"] - result["bad"]) / result["seconds"]


def drain(server: Server, connections: int, seconds: float, queue: str, **more: str) -> dict:
    """Receive and delete until the queue is empty or the time is over; `rate` in messages a second."""
    result = load(server, "drain", connections, seconds, queue, **more)
    if result["bad"] * 100 > result["requests"]:
        raise RuntimeError(f"drain: {result['bad']} of {result['requests']} requests failed")
    return result | {"rate": result["messages"] / result["busy_seconds"] if result["busy_seconds"] else 0.0}


def fill(server: Server, queue: str, count: int) -> float:
    """`count` messages more in the queue, some more than that when they are many; messages a second. Raises
    RuntimeError when a large fill takes too long."""
    if count <= SHALLOW_AT_ONE or not WRK:
        variables = variables_of(server, "batch", queue)
        result = generator.load(server.endpoint, 1, FILL_LIMIT_S, variables, count // BATCH)
        return BATCH * (result["requests"] - result["bad"]) / result["seconds"]
    left, pace, spent = count, 60_000.0, 0.0
    while left > 0:
        result = load(server, "batch", 16, min(10, max(1, int(left / pace))), queue)
        stored = BATCH * (result["requests"] - result["bad"])
        pace = max(1_000.0, stored / result["seconds"])
        spent += result["seconds"]
        left -= stored
        if left > 0 and spent > FILL_LARGE_S:
            raise RuntimeError(f"{count - left:,} of {count:,} messages after {spent:.0f} s")
    return (count - left) / spent


def sync_ms(directory: Path) -> float:
    """What the disk takes to make an append of two pages last, median."""
    times = []
    with (directory / "sync").open("wb", buffering=0) as out:
        for _ in range(SYNCS):
            out.write(bytes(8_192))
            began = time.perf_counter()
            os.fdatasync(out.fileno())
            times.append(time.perf_counter() - began)
    return 1_000 * statistics.median(times)


def connections_of(server: Server) -> tuple[int, ...]:
    """What moto still owes after 64 connections delays all that follows."""
    if server.quick and not server.name.startswith("preheat"):
        return (16,)
    return CONNECTIONS[:2] if server.name == "moto" else CONNECTIONS


def sqs(server: Server, seconds: float, tag: str) -> dict[str, float]:
    out: dict[str, float] = {}
    if server.name == "preheat-power":
        out["fdatasync ms"] = sync_ms(server.work)
    for connections in connections_of(server):
        result = load(server, "send", connections, seconds, server.create_queue(f"send-{tag}-{connections}"))
        out[f"sqs send c={connections} /s"] = rate(result)
        out[f"sqs send c={connections} p99 ms"] = result["p99_ms"]
        queue = server.create_queue(f"batch-{tag}-{connections}")
        out[f"sqs batch c={connections} msg/s"] = BATCH * rate(load(server, "batch", connections, seconds, queue))
        queue = server.create_queue(f"drain-{tag}-{connections}")
        amount = DRAIN.get(server.name, DRAIN_OTHERS)
        fill(server, queue, min(amount, SHALLOW_AT_ONE) if connections == 1 else amount)
        out[f"sqs receive+delete c={connections} msg/s"] = drain(server, connections, seconds, queue)["rate"]
    return out


def killed(server: Server, seconds: float) -> dict[str, float]:
    """SIGKILL under load, a new start on the same state, and how many acknowledged messages are gone."""
    queue = server.create_queue("killed")
    results: list[dict] = []
    runner = threading.Thread(target=lambda: results.append(load(server, "send", 16, seconds + 1, queue)))
    runner.start()
    time.sleep(seconds)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    runner.join()
    server.start()
    attribute = "ApproximateNumberOfMessages"
    found = server.api("sqs", "AmazonSQS.GetQueueAttributes", QueueUrl=queue, AttributeNames=[attribute])
    acknowledged = results[0]["requests"] - results[0]["bad"]
    return {
        "sqs acknowledged before SIGKILL": acknowledged,
        "sqs acknowledged and lost": max(0, acknowledged - int(found["Attributes"][attribute])),
    }


def storage(server: Server, seconds: float, tag: str) -> dict[str, float]:
    bucket = f"bench-{tag}"
    server.rest("s3", "PUT", f"/{bucket}")
    server.rest("s3", "PUT", f"/{bucket}/k", b"x" * 1024)
    item = {"k": {"S": "a"}, "v": {"S": "x" * 1000}}
    object_ = {"type": "binary/octet-stream", "service": "s3", "path": f"/{bucket}/k", "target": ""}
    kinds = {
        "s3 put 1 KB": {**object_, "method": "PUT", "body": "x" * 1024},
        "s3 get 1 KB": {**object_, "method": "GET", "body": ""},
    }
    if server.name != "localstack":
        server.api(
            "dynamodb", "DynamoDB_20120810.CreateTable", TableName=bucket, BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        )  # fmt: skip
        server.api("dynamodb", "DynamoDB_20120810.PutItem", TableName=bucket, Item=item)
        table = {"type": "application/x-amz-json-1.0", "service": "dynamodb", "method": "POST", "path": "/"}
        put, get = {"TableName": bucket, "Item": item}, {"TableName": bucket, "Key": {"k": {"S": "a"}}}
        target = "DynamoDB_20120810."
        kinds["dynamodb put 1 KB"] = {**table, "target": target + "PutItem", "body": json.dumps(put)}
        kinds["dynamodb get 1 KB"] = {**table, "target": target + "GetItem", "body": json.dumps(get)}
    out: dict[str, float] = {}
    for name, more in kinds.items():
        for connections in (1, 16):
            with contextlib.suppress(RuntimeError):
                out[f"{name} c={connections} /s"] = rate(load(server, "raw", connections, seconds, "", **more))
    return out

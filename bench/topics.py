"""One message to many: a topic with 100 queues, and an event bus with up to 1,000 rules."""

import json
import time

from cases import BATCH, load, rate
from servers import Server

QUEUES = 100
RULES = (0, 10, 100, 1_000)
ARRIVE_S = 30
FORM = "application/x-www-form-urlencoded"
SNS_VERSION = "2010-03-31"
BUS = "bench"


def arn(server: Server, queue: str) -> str:
    answer = server.api("sqs", "AmazonSQS.GetQueueAttributes", QueueUrl=queue, AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]


def arrived(server: Server, queue: str, count: int) -> float:
    """Wait until a queue holds `count` messages; the moment. Raises RuntimeError when it never does."""
    name, found = "ApproximateNumberOfMessages", 0
    deadline = time.perf_counter() + ARRIVE_S
    while time.perf_counter() < deadline:
        answer = server.api("sqs", "AmazonSQS.GetQueueAttributes", QueueUrl=queue, AttributeNames=[name])
        found = int(answer["Attributes"][name])
        if found >= count:
            return time.perf_counter()
        time.sleep(0.01)
    raise RuntimeError(f"{found} of {count} messages came within {ARRIVE_S} s")


def fan_out(server: Server, seconds: float, tag: str) -> dict[str, float]:
    """Publish at 16 connections to a topic with 100 queues, in envelopes and raw: deliveries a second, counted once
    the last queue has them all."""
    queues = [server.create_queue(f"fan-{tag}-{number}") for number in range(QUEUES)]
    out: dict[str, float] = {}
    for kind in ("envelope", "raw"):
        answer = server.form("sns", "CreateTopic", SNS_VERSION, {"Name": f"fan-{tag}-{kind}"})
        topic = answer.partition("<TopicArn>")[2].partition("</TopicArn>")[0]
        for queue in queues:
            members = {"TopicArn": topic, "Protocol": "sqs", "Endpoint": arn(server, queue)}
            if kind == "raw":
                members |= {"Attributes.entry.1.key": "RawMessageDelivery", "Attributes.entry.1.value": "true"}
            server.form("sns", "Subscribe", SNS_VERSION, members)
        server.form("sns", "Publish", SNS_VERSION, {"TopicArn": topic, "Message": "the first may take longer"})
        held = _settled(server, queues[-1])
        body = f"Action=Publish&Version={SNS_VERSION}&TopicArn={topic}&Message={'x' * 100}"
        result = load(
            server, "raw", 16, seconds, "", service="sns", method="POST", path="/", type=FORM, target="", body=body
        )
        rate(result)
        good = result["requests"] - result["bad"]
        loaded = time.perf_counter()
        took = max(result["seconds"], arrived(server, queues[-1], held + good) - loaded + result["seconds"])
        out[f"sns fan-out to 100, {kind}, deliveries /s"] = QUEUES * good / took
        out[f"sns fan-out to 100, {kind}, publish p99 ms"] = result["p99_ms"]
    return out


def _settled(server: Server, queue: str) -> int:
    """What the queue holds once nothing more comes."""
    name, before = "ApproximateNumberOfMessages", -1
    for _ in range(100):
        answer = server.api("sqs", "AmazonSQS.GetQueueAttributes", QueueUrl=queue, AttributeNames=[name])
        found = int(answer["Attributes"][name])
        if found == before:
            return found
        before = found
        time.sleep(0.1)
    raise RuntimeError("messages go on coming")


def put_events(server: Server, seconds: float, tag: str) -> dict[str, float]:
    """PutEvents with ten entries at 16 connections: entries a second on a bus with no rules, ten, 100 and 1,000 of
    which none matches; then with one of them matching each entry and sending it to a queue, entries taken and
    delivered a second. It ends where a server answers none in time."""
    out: dict[str, float] = {}
    bus = f"{BUS}-{tag}"
    server.api("events", "AWSEvents.CreateEventBus", Name=bus)
    made = 0
    for count in RULES:
        for number in range(made, count):
            pattern = json.dumps({"source": ["shop"], "detail-type": [f"type-{number}"]})
            server.api("events", "AWSEvents.PutRule", Name=f"rule-{number}", EventBusName=bus, EventPattern=pattern)
        made = count
        result = _put(server, seconds, bus, "other")
        if not result["requests"]:
            return out
        out[f"events put, {count:,} rules, entries /s"] = BATCH * rate(result)
    queue = server.create_queue(f"events-{tag}")
    targets = [{"Id": "queue", "Arn": arn(server, queue)}]
    answer = server.api(
        "events", "AWSEvents.PutTargets", Rule=f"rule-{made // 2}", EventBusName=bus, Targets=targets
    )
    if answer.get("FailedEntryCount"):
        raise RuntimeError(f"PutTargets: {answer}")
    result = _put(server, seconds, bus, f"type-{made // 2}")
    if not result["requests"]:
        return out
    loaded = time.perf_counter()
    entries = BATCH * (result["requests"] - result["bad"])
    out[f"events put, one of {made:,} rules matches, entries /s"] = BATCH * rate(result)
    took = arrived(server, queue, entries) - loaded + result["seconds"]
    out[f"events put, one of {made:,} rules matches, deliveries /s"] = entries / took
    return out


def _put(server: Server, seconds: float, bus: str, kind: str) -> dict:
    entry = {"EventBusName": bus, "Source": "shop", "DetailType": kind, "Detail": json.dumps({"order": {"id": 7}})}
    body = json.dumps({"Entries": [entry] * BATCH})
    return load(
        server, "raw", 16, seconds, "", service="events", method="POST", path="/", type="application/x-amz-json-1.1",
        target="AWSEvents.PutEvents", body=body,
    )  # fmt: skip

"""What is done to a world: functions, a queue with a function behind it, senders, and misfortune."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Reply
from preheat.simulate.checkers import Checker
from preheat.simulate.world import World

ROLE = "arn:aws:iam::000000000000:role/simulated"


@dataclass(frozen=True, slots=True)
class QueueStack:
    """The URLs of a queue and its dead-letter queue, and the function they feed."""

    queue: str
    dead_letters: str
    function: str
    mapping: str


def create_function(world: World, name: str, reserved: int | None = None, **settings: Any) -> None:
    """`settings` as CreateFunction has them."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(zipfile.ZipInfo("index.py"), "def handler(event, context):\n    return None\n")
    world.call(
        "lambda", "CreateFunction", FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="index.handler",
        Code={"ZipFile": archive.getvalue()}, **settings,
    )  # fmt: skip
    world.run(1)
    if reserved is not None:
        world.call("lambda", "PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=reserved)


def queue_with_worker(
    world: World,
    *,
    visibility_s: int = 30,
    timeout_s: int = 10,
    max_receives: int = 3,
    batch: int = 1,
    reserved: int | None = None,
    maximum_concurrency: int | None = None,
    window_s: int = 0,
) -> QueueStack:
    """The architecture's core: queue, dead-letter queue, function, event source mapping. `window_s` is the mapping's
    MaximumBatchingWindowInSeconds."""
    dead = world.call("sqs", "CreateQueue", QueueName="dead")["QueueUrl"]
    attributes = world.call("sqs", "GetQueueAttributes", QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": attributes["QueueArn"], "maxReceiveCount": max_receives})
    queue = world.call(
        "sqs", "CreateQueue", QueueName="work",
        Attributes={"VisibilityTimeout": str(visibility_s), "RedrivePolicy": policy},
    )["QueueUrl"]  # fmt: skip
    create_function(world, "worker", reserved, Timeout=timeout_s)
    arn = world.call("sqs", "GetQueueAttributes", QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    scaling = {} if maximum_concurrency is None else {"ScalingConfig": {"MaximumConcurrency": maximum_concurrency}}
    mapping = world.call(
        "lambda", "CreateEventSourceMapping", EventSourceArn=arn, FunctionName="worker", BatchSize=batch,
        MaximumBatchingWindowInSeconds=window_s, **scaling,
    )  # fmt: skip
    world.run(1)
    return QueueStack(queue, dead, "worker", mapping["UUID"])


def send_steadily(world: World, queue: str, per_second: float, seconds: float) -> None:
    """Evenly spaced messages with bodies "m0", "m1", ...; each acknowledged one is recorded as "sent"."""
    total = round(per_second * seconds)
    start = world.clock.now()

    def send(number: int) -> None:
        body = f"m{number}"

        def done(reply: Reply | AwsError) -> None:
            if isinstance(reply, Reply):
                world.record("sent", body=body)

        world.machine.submit("sqs", "SendMessage", {"QueueUrl": queue, "MessageBody": body}, done)
        if number + 1 < total:
            world.at(start + (number + 1) / per_second, lambda: send(number + 1))

    world.at(start, lambda: send(0))


def take_stock(world: World, stack: QueueStack) -> dict[str, int]:
    """Record every message that still rests in a queue; how many in each."""
    counts = {}
    for name in ("work", "dead"):
        rows = world.db.all(
            "SELECT body FROM sqs_messages WHERE queue_id = (SELECT id FROM sqs_queues WHERE name = ?)", name
        )
        counts[name] = len(rows)
        for row in rows:
            world.record("resting", body=row["body"], queue=name)
    return counts


def check(world: World, checkers: Sequence[Checker]) -> None:
    """Let the checkers watch from now on."""
    world.watchers.extend(checker.watch for checker in checkers)


def ask(world: World, number: int | str, function: str, qualifier: str | None = None) -> None:
    """A synchronous invocation: recorded as "asked", and when its answer comes as "answered"."""

    def done(reply: Reply | AwsError) -> None:
        answer = reply.fields.get("Reason", reply.code) if isinstance(reply, AwsError) else "ok"
        world.record("answered", number=number, answer=answer)

    params = {"FunctionName": function, "Payload": json.dumps({"n": number}).encode()}
    if qualifier is not None:
        params["Qualifier"] = qualifier
    world.record("asked", number=number)
    world.machine.submit("lambda", "Invoke", params, done)


def tell(world: World, number: int, function: str) -> None:
    """An asynchronous invocation: recorded as "accepted" when Lambda has said so."""

    def done(reply: Reply | AwsError) -> None:
        if isinstance(reply, Reply):
            world.record("accepted", number=number)

    params = {"FunctionName": function, "InvocationType": "Event", "Payload": json.dumps({"n": number}).encode()}
    world.machine.submit("lambda", "Invoke", params, done)


def change(world: World, operation: str, **params: Any) -> None:
    """A change of settings while everything runs: recorded as "changed" with what became of it."""

    def done(reply: Reply | AwsError) -> None:
        said = reply.code if isinstance(reply, AwsError) else "ok"
        world.record("changed", operation=operation, function=params["FunctionName"], said=said)

    world.machine.submit("lambda", operation, params, done)


def find_events(world: World, queues: dict[str, str]) -> None:
    """Record where every asynchronous event is now: in Lambda's queue, on its way to a place, in one of `queues` (its
    name: the place that it stands for), or expired."""
    world.record("stock")
    for row in world.db.all("SELECT kind, payload FROM due"):
        document = json.loads(bytes(row["payload"]))
        body = json.loads(document["payload"] if row["kind"] == "lambda.async" else document["body"])
        world.record("found", number=body.get("requestPayload", body)["n"], place="queue")
    for name, place in queues.items():
        sql = "SELECT body FROM sqs_messages WHERE queue_id = (SELECT id FROM sqs_queues WHERE name = ?)"
        for row in world.db.all(sql, name):
            body = json.loads(row["body"])
            expired = body.get("requestContext", {}).get("condition") == "EventAgeExceeded"
            world.record(
                "found", number=body.get("requestPayload", body)["n"], place="expired" if expired else place
            )
    world.record("stock taken")


def crashes_at_random(world: World, seconds: float, times: int, statements: int = 40) -> None:
    """At seeded moments the server is about to die, at one of its next `statements` writes."""
    start = world.clock.now()
    for _ in range(times):
        statement = 1 + int(world.chance.uniform() * statements)
        world.at(start + world.chance.uniform() * seconds, lambda statement=statement: world.db.arm(statement))


def workers_die_at_random(world: World, seconds: float, times: int) -> None:
    """At seeded moments a worker process is killed from outside, whatever it does."""
    start = world.clock.now()

    def kill() -> None:
        alive = world.factory.alive
        if alive:
            alive[int(world.chance.uniform() * len(alive))].perish()

    for _ in range(times):
        world.at(start + world.chance.uniform() * seconds, kill)

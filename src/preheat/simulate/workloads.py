"""What is done to a world: a queue with a function behind it, and senders."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

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
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(zipfile.ZipInfo("index.py"), "def handler(event, context):\n    return None\n")
    world.call(
        "lambda", "CreateFunction", FunctionName="worker", Runtime="python3.11", Role=ROLE, Handler="index.handler",
        Code={"ZipFile": archive.getvalue()}, Timeout=timeout_s,
    )  # fmt: skip
    world.run(1)
    if reserved is not None:
        world.call(
            "lambda", "PutFunctionConcurrency", FunctionName="worker", ReservedConcurrentExecutions=reserved
        )
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

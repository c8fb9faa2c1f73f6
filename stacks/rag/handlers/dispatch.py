"""Which tier a question goes to: the baseline's long-lived workers, or the burst workers on Lambda.

Questions go to the baseline's queue until `BURST_DEPTH` of them wait there; the next ones overflow into the burst queue
at once. What an environment has sent itself counts at once, because the queue's own count is a little old. Workers of
the baseline say that they live in `SettingsTable`; when none does, everything overflows. Every minute `handler` moves
what waits beyond the depth, or all of it when the workers are gone. A message that is moved may come twice; a job is
answered once.

Without a burst queue (`BaselineWorkers` is 0) every question goes to the one queue there is.
"""

import json
import os
import time
from functools import cache
from typing import Any

from ragkit.resilience import passing
from ragkit.trace import Trace, begun

from handlers import wiring

COUNTED_S = 0.5
MOVES = 100
"""Batches of 10 that one run moves at most."""
BATCH = 10
WAITING = "ApproximateNumberOfMessages"
LIFE = "baseline"
ALIVE_S = 45
NOBODY = 1_000_000_000

wiring.prepare("sqs", "dynamodb")


class Depth:
    """How many questions wait for the baseline: counted now and then, and what was sent since; `NOBODY` when nobody
    takes any."""

    def __init__(self) -> None:
        self._counted = float("-inf")
        self._waiting = 0

    def now(self) -> int:
        if time.monotonic() - self._counted > COUNTED_S:
            self._waiting = waiting(os.environ["QUESTIONS_QUEUE"]) if alive() else NOBODY
            self._counted = time.monotonic()
        return self._waiting

    def sent(self) -> None:
        self._waiting += 1


@cache
def _depth() -> Depth:
    return Depth()


def waiting(queue: str) -> int:
    found = wiring.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=[WAITING])
    return int(found["Attributes"][WAITING])


def alive() -> bool:
    """Whether a worker of the baseline was heard of lately."""
    item = wiring.table("SETTINGS_TABLE").get_item(Key={"id": LIFE}).get("Item")
    return item is not None and time.time() - int(item["seen"]) <= ALIVE_S


def live() -> None:
    """A worker of the baseline is here."""
    wiring.table("SETTINGS_TABLE").put_item(Item={"id": LIFE, "seen": int(time.time())})


def queue() -> str:
    """The queue that the next question goes to."""
    baseline, burst = os.environ["QUESTIONS_QUEUE"], os.environ.get("BURST_QUEUE", "")
    if not burst:
        return baseline
    try:
        over = _depth().now() >= int(os.environ["BURST_DEPTH"])
    except Exception as error:
        if not passing(error):
            raise
        Trace().warn("the queue's depth is not known", error=f"{type(error).__name__}: {error}")
        return baseline
    if over:
        wiring.METRICS.record("QuestionsOverflowed")
        wiring.METRICS.flush()
        return burst
    _depth().sent()
    return baseline


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Move what the baseline does not come to."""
    trace = begun(event.get("id"))
    baseline, burst = os.environ["QUESTIONS_QUEUE"], os.environ["BURST_QUEUE"]
    left = waiting(baseline) - (int(os.environ["BURST_DEPTH"]) if alive() else 0)
    moved = 0
    for _ in range(MOVES):
        if moved >= left:
            break
        count = _move(baseline, burst, min(BATCH, left - moved))
        if not count:
            break
        moved += count
    if moved:
        trace.info("questions moved to the burst queue", moved=moved)
        wiring.METRICS.record("QuestionsOverflowed", moved)
        wiring.METRICS.flush()
    return {"moved": moved}


def _move(baseline: str, burst: str, most: int) -> int:
    """Sent before they are deleted: a question may be doubled, never lost."""
    sqs = wiring.client("sqs")
    found = sqs.receive_message(QueueUrl=baseline, MaxNumberOfMessages=most, VisibilityTimeout=30).get("Messages", [])
    if not found:
        return 0
    bodies = [{"Id": str(number), "MessageBody": one["Body"]} for number, one in enumerate(found)]
    sent = sqs.send_message_batch(QueueUrl=burst, Entries=bodies)["Successful"]
    for one in sent:
        _tell(found[int(one["Id"])])
    gone = [{"Id": one["Id"], "ReceiptHandle": found[int(one["Id"])]["ReceiptHandle"]} for one in sent]
    if gone:
        failed = sqs.delete_message_batch(QueueUrl=baseline, Entries=gone).get("Failed", [])
        if failed:
            Trace().warn("moved questions come twice", failed=json.dumps(failed))
    return len(sent)


def _tell(message: dict[str, Any]) -> None:
    """A line for the question's own trace."""
    try:
        body = json.loads(message["Body"])
    except ValueError:
        return
    if isinstance(body, dict):
        Trace(body.get("correlation")).info("moved to the burst queue", job=body.get("id", ""))

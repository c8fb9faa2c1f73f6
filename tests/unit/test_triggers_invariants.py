"""Random traffic over a mapping: whatever fails, throttles or is slow, what must hold holds."""

import json
import random

import pytest

from tests.support.functions import TriggerWorld
from tests.support.scripted_executor import Script

MESSAGES = 60
HOUR = 3_600


class Traffic:
    """Sends numbered messages at random moments to a function that is often slow, wrong or throttled."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = world = TriggerWorld(seed=seed)
        world.create(Timeout=20)
        self.dead, dead_arn = world.queue("dead")
        redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 4})
        self.url, arn = world.queue("q", VisibilityTimeout="30", RedrivePolicy=redrive)
        self.reserved = self.dice.choice([None, 1, 3])
        if self.reserved:
            world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=self.reserved)
        self.ceiling = self.dice.choice([None, 2, 7])
        window = self.dice.choice([0, 2])
        world.executor.scripts["f"] = self.script
        self.succeeded: list[tuple[float, str]] = []
        self.seen: list[tuple[float, str]] = []
        self.uuid = world.map(
            arn,
            BatchSize=self.dice.choice([1, 4, 10]),
            MaximumBatchingWindowInSeconds=window,
            **({"ScalingConfig": {"MaximumConcurrency": self.ceiling}} if self.ceiling else {}),
        )

    def script(self, event) -> Script:
        bodies = [record["body"] for record in event["Records"]]
        now = self.world.clock.now()
        self.seen += [(now, body) for body in bodies]
        seconds = self.dice.choice([0.0, 0.05, 1.0, 15.0])
        if self.dice.random() < 0.25:
            return Script(error="ValueError", seconds=seconds)
        self.succeeded += [(now + seconds, body) for body in bodies]
        return Script(seconds=seconds)

    def run(self) -> None:
        for number in range(MESSAGES):
            self.world.send(self.url, str(number))
            self.world.advance(self.dice.choice([0.0, 0.0, 0.3, 5.0]))
            assert self.world.poller.concurrency(self.uuid)[0] <= (self.ceiling or 1_250)
        self.world.advance(HOUR)


@pytest.mark.parametrize("seed", range(12))
def test_every_message_is_done_or_dead_and_limits_hold(seed):
    traffic = Traffic(seed)
    traffic.run()
    world = traffic.world
    assert world.defects == []
    assert world.counts(traffic.url) == (0, 0, 0)
    dead = []
    while messages := world.receive(traffic.dead):
        dead += [message["Body"] for message in messages]
        for message in messages:
            world("sqs", "DeleteMessage", QueueUrl=traffic.dead, ReceiptHandle=message["ReceiptHandle"])
    done = {body for _, body in traffic.succeeded}
    assert done | set(dead) == {str(number) for number in range(MESSAGES)}
    assert not done & set(dead)
    assert world.poller.concurrency(traffic.uuid)[0] == 0
    peak = world.executor.peak.get("f", 0)
    assert peak <= (traffic.reserved or 1_000) and peak <= (traffic.ceiling or 1_250)
    if traffic.reserved:
        return  # a throttled batch may start just before its visibility timeout ends: delivery is at least once
    for at, body in traffic.succeeded:
        assert not [again for again, other in traffic.seen if other == body and again > at], "run again after its end"


def test_the_same_seed_gives_the_same_run():
    first, second = Traffic(5), Traffic(5)
    first.run()
    second.run()
    assert first.seen == second.seen and first.seen
    assert [call.request_id for call in first.world.executor.started] == [
        call.request_id for call in second.world.executor.started
    ]

"""SQS in this process, on a database that can die and under a clock that goes both ways."""

import json
from types import SimpleNamespace

import pytest

from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import SeededEntropy
from preheat.kernel.errors import AwsError
from preheat.kernel.stream import InlineBackground
from preheat.services.contract import Platform
from preheat.services.machine import Machine
from preheat.services.sqs.service import build
from preheat.simulate.faults import CrashingDatabase, SimulatedCrash

ARN = "arn:aws:sqs:us-east-1:000000000000:"
TABLES = ("queues", "messages", "groups", "deduplication", "attempts", "deleted", "moves", "leftovers")
RECEIVES = 3


class Unanswered(Exception):
    """The server died before it committed."""


class EveryWrite(CrashingDatabase):
    """Each row of a statement for many counts as a write."""

    def many(self, sql, rows):
        return sum(self._write(sql, row).rowcount for row in rows)


class Clock(ManualClock):
    def jump(self, seconds):
        self._now += seconds


class Mortal:
    """SQS on a database that can die; `restart` is a new process on it."""

    def __init__(self, seed=1):
        self.db, self.clock, self.entropy = EveryWrite(), Clock(), SeededEntropy(seed)
        self.restart()

    def restart(self):
        background = InlineBackground()
        self.machine = Machine(self.db, self.clock, self.entropy, background)
        self.machine.on_defect = lambda text: pytest.fail(text)
        settings = SimpleNamespace(state=None, endpoint="http://127.0.0.1:4566", iam="off")
        self.service = build(Platform(self.db, self.clock, self.entropy, background, self.machine, settings))
        self.machine.add_service(self.service)
        for loop in self.service.loops:
            self.machine.add_loop(loop)

    def settle(self):
        """Everything that is due now. Raises Unanswered when the server dies in it; it is up again then."""
        try:
            for _ in range(1_000):
                at = self.machine.wake_at()
                if at is None or at > self.clock.now():
                    return
                self.machine.tick()
        except SimulatedCrash:
            self.db.recover()
            self.restart()
            raise Unanswered from None
        raise AssertionError("the machine does not come to rest")

    def __call__(self, operation, **params):
        replies = []
        self.machine.submit("sqs", operation, params, replies.append)
        self.settle()
        if isinstance(replies[0], AwsError):
            raise replies[0]
        return replies[0].output

    def pass_time(self, seconds):
        self.clock.jump(seconds)
        self.settle()

    def state(self):
        return {table: [tuple(row) for row in self.db.all(f"SELECT * FROM sqs_{table}")] for table in TABLES}

    def make(self, name, **attributes):
        if name.endswith(".fifo"):
            attributes |= {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        return self("CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]

    def with_dead_letters(self, name, dead, **attributes):
        self.make(dead)
        policy = json.dumps({"deadLetterTargetArn": ARN + dead, "maxReceiveCount": RECEIVES})
        return self.make(name, RedrivePolicy=policy, **attributes)

    def send(self, url, body, **params):
        if url.endswith(".fifo"):
            params.setdefault("MessageGroupId", "g")
        return self("SendMessage", QueueUrl=url, MessageBody=body, **params)

    def receive(self, url, limit=10, **params):
        request = {"MessageSystemAttributeNames": ["All"], **params}
        return self("ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=limit, **request).get("Messages", [])

    def handles(self, url, count=2):
        messages = self.receive(url, count)
        return [{"Id": str(at), "ReceiptHandle": message["ReceiptHandle"]} for at, message in enumerate(messages)]

    def spend(self, url):
        """Receive what is there as often as it may be."""
        for _ in range(RECEIVES):
            self.receive(url, VisibilityTimeout=0)

    def visible(self, url):
        values = self("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return int(values["ApproximateNumberOfMessages"])


def url_of(name):
    return f"http://127.0.0.1:4566/000000000000/{name}"

"""A server that dies at the nth write of an SNS operation has done nothing; done again, it is done whole."""

import json
from types import SimpleNamespace

import pytest

from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import SeededEntropy
from preheat.kernel.errors import AwsError
from preheat.kernel.stream import InlineBackground
from preheat.services.contract import Platform
from preheat.services.machine import Machine
from preheat.services.sns.service import build as build_sns
from preheat.services.sqs.service import build as build_sqs
from preheat.simulate.faults import CrashingDatabase, SimulatedCrash

TOPIC = "arn:aws:sns:us-east-1:000000000000:t"
FIFO = TOPIC + ".fifo"
UNEVEN = TOPIC + "-uneven"
"""One of its queues is gone."""
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"
TABLES = ("sns_topics", "sns_subscriptions", "sns_deduplication", "sns_outbox", "sns_sms_settings", "sqs_messages",
          "sqs_texts", "sqs_groups", "due")  # fmt: skip


class Mortal:
    """Queues and topics on a database that can die; `restart` is a new process on it."""

    def __init__(self, directory):
        """`directory` holds the key that seals the signing key."""
        self.db, self.clock, self.entropy = CrashingDatabase(), ManualClock(), SeededEntropy(1)
        self.db.directory = directory
        self.restart()

    def restart(self):
        background = InlineBackground()
        self.machine = Machine(self.db, self.clock, self.entropy, background)
        self.machine.on_defect = lambda text: pytest.fail(text)
        settings = SimpleNamespace(state=None, endpoint="http://127.0.0.1:4566", iam="off")
        platform = Platform(self.db, self.clock, self.entropy, background, self.machine, settings)
        for build in (build_sqs, build_sns):
            self.machine.add_service(build(platform))

    def __call__(self, service, operation, **params):
        replies = []
        self.machine.submit(service, operation, params, replies.append)
        while not replies or self.machine.has_work():
            self.machine.tick()
        if isinstance(replies[0], AwsError):
            raise replies[0]
        return replies[0].output

    def state(self):
        return {table: [tuple(row) for row in self.db.all(f"SELECT * FROM {table}")] for table in TABLES}


@pytest.fixture
def world(tmp_path):
    world = Mortal(tmp_path)
    world("sns", "CreateTopic", Name="t")
    world("sns", "CreateTopic", Name="t.fifo", Attributes={"FifoTopic": "true", "ContentBasedDeduplication": "true"})
    for name in ("a", "b", "c", "d", "f.fifo"):
        attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        world("sqs", "CreateQueue", QueueName=name, Attributes=attributes)
    follow = [*(("sqs", QUEUE + name) for name in "abcd"), ("sms", "+15550001111"),
              ("lambda", "arn:aws:lambda:us-east-1:000000000000:function:f"), ("email", "a@b.c")]  # fmt: skip
    for protocol, endpoint in follow:
        world("sns", "Subscribe", TopicArn=TOPIC, Protocol=protocol, Endpoint=endpoint)
    world("sns", "CreateTopic", Name="t-uneven")
    for name in ("a", "b", "c", "gone"):
        world("sns", "Subscribe", TopicArn=UNEVEN, Protocol="sqs", Endpoint=QUEUE + name)
    world("sns", "Subscribe", TopicArn=FIFO, Protocol="sqs", Endpoint=QUEUE + "f.fifo")
    return world


def token(world):
    return world.db.value("SELECT token FROM sns_subscriptions WHERE state = 'pending'")


def own(world):
    return TOPIC + ":" + world.db.value("SELECT uid FROM sns_subscriptions WHERE endpoint = ?", QUEUE + "a")


OPERATIONS = {
    "Publish": lambda world: {"TopicArn": TOPIC, "Message": "m"},
    "Publish to a queue that is gone": lambda world: {"TopicArn": UNEVEN, "Message": "m"},
    "Publish to a FIFO topic": lambda world: {"TopicArn": FIFO, "Message": "m", "MessageGroupId": "g"},
    "Publish a text": lambda world: {"PhoneNumber": "+15550002222", "Message": "m"},
    "PublishBatch": lambda world: {
        "TopicArn": TOPIC, "PublishBatchRequestEntries": [{"Id": str(n), "Message": "m"} for n in range(3)]
    },
    "CreateTopic": lambda world: {"Name": "new"},
    "DeleteTopic": lambda world: {"TopicArn": TOPIC},
    "SetTopicAttributes": lambda world: {"TopicArn": TOPIC, "AttributeName": "DisplayName", "AttributeValue": "x"},
    "AddPermission": lambda world: {
        "TopicArn": TOPIC, "Label": "l", "AWSAccountId": ["111111111111"], "ActionName": ["Publish"]
    },
    "TagResource": lambda world: {"ResourceArn": TOPIC, "Tags": [{"Key": "a", "Value": "b"}]},
    "Subscribe": lambda world: {"TopicArn": TOPIC, "Protocol": "email", "Endpoint": "new@b.c"},
    "ConfirmSubscription": lambda world: {"TopicArn": TOPIC, "Token": token(world)},
    "SetSubscriptionAttributes": lambda world: {
        "SubscriptionArn": own(world), "AttributeName": "FilterPolicy", "AttributeValue": json.dumps({"a": ["x"]})
    },
    "Unsubscribe": lambda world: {"SubscriptionArn": own(world)},
    "SetSMSAttributes": lambda world: {"attributes": {"DefaultSMSType": "Transactional"}},
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_all_or_nothing(world, name):
    operation, params = name.split()[0], OPERATIONS[name](world)
    before = world.state()
    for statement in range(1, 100):
        world.db.arm(statement)
        try:
            world("sns", operation, **params)
        except SimulatedCrash:
            world.db.recover()
            world.restart()
            assert world.state() == before, f"write {statement}"
            continue
        world.db.disarm()
        break
    assert statement > 1
    assert world.state() != before

"""Queues that feed functions, for simulated days, with seeded failures and a server that dies: what must hold holds."""

import io
import json
import zipfile
from collections import defaultdict
from itertools import pairwise

import pytest

from preheat.services import findings
from preheat.services.contract import Reply
from preheat.simulate.checkers import ConcurrencyBound, DeliveredAtMost, bodies
from preheat.simulate.faults import Behaviour
from preheat.simulate.workloads import check, queue_with_worker
from preheat.simulate.world import World

DAY_S = 86_400
HOUR_S = 3_600


class Ledger:
    """What the function did: a Behaviour whose outcomes it keeps, and a checker that every acknowledged message ends in
    exactly one of: deleted after a success, the dead-letter queue, the queue. What runs when the server dies counts
    for nothing."""

    def __init__(self, behaviour=None):
        self._behaviour = behaviour or Behaviour()
        self._ok = False
        self._open = []
        self.acknowledged = set()
        self.started = []
        self.succeeded = defaultdict(list)
        self.places = defaultdict(list)

    def script(self, plan, request, chance):
        script = self._behaviour.script(plan, request, chance)
        self._ok = script.error is None and script.exit is None and script.duration_s <= plan.spec.timeout_s
        return script

    def watch(self, kind, at, details):
        if kind == "sent":
            self.acknowledged.add(details["body"])
        elif kind == "resting":
            self.places[details["body"]].append(details["queue"])
        elif kind == "crash":
            self._open = [run for run in self._open if run[0] <= at]
            self.close(at)
            self._open = []
        elif kind == "invoke":
            self.close(at)
            names = bodies(details["payload"])
            self.started += [(at, name) for name in names]
            self._open.append((at + details["seconds"], self._ok, names))

    def close(self, now):
        """Take in what has ended by now."""
        for end, ok, names in self._open:
            if ok and end <= now:
                for name in names:
                    self.succeeded[name].append(end)
        self._open = [run for run in self._open if run[0] > now]

    def violations(self):
        self.close(float("inf"))
        found = [f"{body} rests in {places}" for body, places in self.places.items() if len(places) > 1]
        found += [
            f"{body} is gone and never succeeded"
            for body in sorted(self.acknowledged)
            if not self.places.get(body) and not self.succeeded[body]
        ]
        return found

    def dead(self):
        return {body for body, places in self.places.items() if places == ["dead"]}


def dies_at_random(world, days, times):
    """Arm the database at seeded moments: the server dies in the middle of whatever it writes then."""
    start = world.clock.now()
    for _ in range(times):
        statements = 1 + int(world.chance.uniform() * 40)
        moment = start + world.chance.uniform() * days * DAY_S
        world.at(moment, lambda statements=statements: world.db.arm(statements))


def bursts(world, queue, days, size, every_s=HOUR_S, **params):
    """`size` messages at once every so often; those that are acknowledged are recorded."""
    start = world.clock.now()
    count = int(days * DAY_S / every_s)

    def burst(number):
        for index in range(size):
            body = f"m{number}-{index}"

            def done(reply, body=body):
                if isinstance(reply, Reply):
                    world.record("sent", body=body)

            extra = {name: make(number, index) for name, make in params.items()}
            world.machine.submit("sqs", "SendMessage", {"QueueUrl": queue, "MessageBody": body, **extra}, done)

    for number in range(count):
        world.at(start + number * every_s, lambda number=number: burst(number))


def take_stock(world, names=("work", "dead")):
    for name in names:
        rows = world.db.all(
            "SELECT body FROM sqs_messages WHERE queue_id = (SELECT id FROM sqs_queues WHERE name = ?)", name
        )
        for row in rows:
            world.record("resting", body=row["body"], queue=name)


def run(tmp_path, seed, *, days=2, crashes=0, size=40, behaviour=None, **stack):
    ledger = Ledger(behaviour)
    world = World(seed, tmp_path / "w", ledger)
    built = queue_with_worker(world, **stack)
    bound = ConcurrencyBound(stack.get("reserved") or 1_000)
    receives = DeliveredAtMost(stack.get("max_receives", 3))
    check(world, [ledger, bound, receives])
    dies_at_random(world, days, crashes)
    bursts(world, built.queue, days, size)
    world.run(days * DAY_S)
    world.db.disarm()
    world.run(4 * HOUR_S)
    take_stock(world)
    assert [*ledger.violations(), *bound.violations(), *receives.violations()] == []
    assert len(ledger.acknowledged) >= 0.9 * days * 24 * size
    return world, ledger, bound, built


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_failures_throttles_and_crashes_for_days(tmp_path, seed):
    behaviour = Behaviour(mean_s=2.0, error_rate=0.15, crash_rate=0.05, hang_rate=0.02)
    world, ledger, bound, _ = run(tmp_path, seed, crashes=12, behaviour=behaviour, reserved=3, batch=4, max_receives=5)
    assert world.crashes >= 8 and bound.peak == 3
    assert ledger.succeeded and not [body for body, places in ledger.places.items() if "work" in places]


def test_the_trap_with_reserved_concurrency_alone(tmp_path):
    """Nothing fails here, yet valid messages end in the dead-letter queue."""
    world, ledger, bound, built = run(tmp_path, 11, behaviour=Behaviour(mean_s=4.0), reserved=2, days=0.5, size=150,
                                      timeout_s=60, visibility_s=60)  # fmt: skip
    ran = {body for _, body in ledger.started}
    victims = ledger.dead() - ran
    assert len(victims) > 50 and bound.peak == 2
    (finding,) = [one for one in findings.everything(world.db) if one["kind"] == "esm-throttled"]
    assert finding["settings"] == {"ReservedConcurrentExecutions": 2, "ScalingConfig.MaximumConcurrency": None}
    lost = finding["tally"]["MessagesLostToDeadLetterQueue"]
    assert len(victims) <= lost <= len(ledger.dead()) and finding["subject"].endswith(built.mapping)
    assert [notice.kind for notice in world.notices] == ["throttled-trigger"]


@pytest.mark.parametrize("crashes", [0, 6])
def test_no_trap_with_maximum_concurrency(tmp_path, crashes):
    world, ledger, bound, _ = run(
        tmp_path, 12, behaviour=Behaviour(mean_s=4.0), reserved=2, maximum_concurrency=2, days=0.5, size=150,
        timeout_s=60, visibility_s=60, crashes=crashes, max_receives=5,
    )  # fmt: skip
    assert ledger.dead() == set() and bound.peak == 2
    assert [one for one in findings.everything(world.db) if one["kind"] == "esm-throttled"] == []
    assert all(ledger.succeeded[body] for body in ledger.acknowledged)
    assert crashes or len(ledger.started) == len(ledger.acknowledged)


def fifo_stack(world):
    dead = world.call("sqs", "CreateQueue", QueueName="dead.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    found = world.call("sqs", "GetQueueAttributes", QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": found["QueueArn"], "maxReceiveCount": 6})
    attributes = {"FifoQueue": "true", "VisibilityTimeout": "60", "RedrivePolicy": policy,
                  "ContentBasedDeduplication": "true"}  # fmt: skip
    queue = world.call("sqs", "CreateQueue", QueueName="work.fifo", Attributes=attributes)["QueueUrl"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(zipfile.ZipInfo("index.py"), "def handler(event, context):\n    return None\n")
    world.call(
        "lambda", "CreateFunction", FunctionName="worker", Runtime="python3.11", Handler="index.handler", Timeout=10,
        Role="arn:aws:iam::000000000000:role/simulated", Code={"ZipFile": archive.getvalue()},
    )  # fmt: skip
    world.run(1)
    world.call("lambda", "PutFunctionConcurrency", FunctionName="worker", ReservedConcurrentExecutions=3)
    arn = found["QueueArn"].replace("dead", "work")
    world.call("lambda", "CreateEventSourceMapping", EventSourceArn=arn, FunctionName="worker", BatchSize=2)
    world.run(1)
    return queue


@pytest.mark.parametrize("seed", [21, 22])
def test_the_order_of_each_group_holds_over_failures_throttles_and_crashes(tmp_path, seed):
    ledger = Ledger(Behaviour(mean_s=1.0, error_rate=0.2, crash_rate=0.05))
    world = World(seed, tmp_path / "w", ledger)
    queue = fifo_stack(world)
    bound = ConcurrencyBound(3)
    check(world, [ledger, bound])
    dies_at_random(world, 1, 10)
    bursts(world, queue, 1, 20, MessageGroupId=lambda number, index: f"g{index % 5}")
    world.run(DAY_S)
    world.db.disarm()
    world.run(4 * HOUR_S)
    take_stock(world, ("work.fifo", "dead.fifo"))
    assert [*ledger.violations(), *bound.violations()] == [] and world.crashes >= 6
    dead = {body for body, places in ledger.places.items() if places == ["dead.fifo"]}
    assert not [body for body, places in ledger.places.items() if places == ["work.fifo"]]
    groups = defaultdict(list)
    for body in sorted(ledger.acknowledged, key=lambda body: tuple(map(int, body[1:].split("-")))):
        groups[int(body.partition("-")[2]) % 5].append(body)
    begun = {}
    for at, body in ledger.started:
        begun.setdefault(body, at)
    for members in groups.values():
        for earlier, later in pairwise(members):
            if earlier in dead or later not in begun:
                continue
            together = begun[later] == begun[earlier]
            assert together or min(ledger.succeeded[earlier]) <= begun[later] + 1e-6, (earlier, later)

"""Asynchronous events under the virtual clock, with failures, throttles and a server that dies: every accepted event is
in exactly one place, at every moment, and in the right one at the end."""

import io
import json
import zipfile
from collections import Counter

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.awslambda.recursion import MAX_TURNS
from preheat.simulate.faults import Behaviour
from preheat.simulate.workloads import ROLE
from preheat.simulate.world import World

QUEUE = "arn:aws:sqs:us-east-1:000000000000:"
FUNCTIONS = ("both", "letters", "narrow", "stopped", "plain")
"""Destinations for both ends; a dead letter queue; throttled, with a short age; no concurrency at all; nothing set."""


class Async:
    """A world with five functions; `accepted` are the numbers of the events that Invoke acknowledged."""

    def __init__(self, tmp_path, seed, **behaviour):
        self.world = World(seed, tmp_path / f"w{seed}", Behaviour(**behaviour))
        self.accepted = {}
        self.sent = 0
        for name in ("ok", "failed", "dead"):
            self.world.call("sqs", "CreateQueue", QueueName=name)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr(zipfile.ZipInfo("index.py"), "def handler(event, context):\n    return None\n")
        for name in FUNCTIONS:
            dead = {"DeadLetterConfig": {"TargetArn": f"{QUEUE}dead"}} if name in ("letters", "stopped") else {}
            self.world.call(
                "lambda", "CreateFunction", FunctionName=name, Runtime="python3.11", Role=ROLE, Timeout=10,
                Handler="index.handler", Code={"ZipFile": archive.getvalue()}, **dead,
            )  # fmt: skip
        for name, reserved in (("narrow", 1), ("stopped", 0)):
            self.world.call("lambda", "PutFunctionConcurrency", FunctionName=name,
                            ReservedConcurrentExecutions=reserved)  # fmt: skip
        ok, failed = {"Destination": f"{QUEUE}ok"}, {"Destination": f"{QUEUE}failed"}
        self.configure("both", DestinationConfig={"OnSuccess": ok, "OnFailure": failed})
        self.configure("narrow", DestinationConfig={"OnSuccess": ok, "OnFailure": failed}, MaximumEventAgeInSeconds=90)
        for name in ("letters", "stopped"):
            self.configure(name, DestinationConfig={"OnSuccess": ok}, MaximumRetryAttempts=1)

    def configure(self, name, **settings):
        self.world.call("lambda", "PutFunctionEventInvokeConfig", FunctionName=name, **settings)

    def fire(self, name):
        number = self.sent
        self.sent += 1

        def done(reply):
            if not isinstance(reply, AwsError):
                self.accepted[number] = name

        params = {"FunctionName": name, "InvocationType": "Event", "Payload": json.dumps({"n": number}).encode()}
        self.world.machine.submit("lambda", "Invoke", params, done)

    def send_steadily(self, per_second, seconds):
        start = self.world.clock.now()
        for number in range(round(per_second * seconds)):
            name = FUNCTIONS[number % len(FUNCTIONS)]
            self.world.at(start + number / per_second, lambda name=name: self.fire(name))

    def messages(self, queue):
        sql = "SELECT body FROM sqs_messages WHERE queue_id = (SELECT id FROM sqs_queues WHERE name = ?)"
        return [json.loads(row["body"]) for row in self.world.db.all(sql, queue)]

    def places(self):
        """Every place in which each event is now."""
        found = {}
        for row in self.world.db.all("SELECT kind, payload FROM due"):
            document = json.loads(bytes(row["payload"]))
            body = json.loads(document["payload"] if row["kind"] == "lambda.async" else document["body"])
            found.setdefault(body.get("requestPayload", body)["n"], []).append(row["kind"])
        for queue in ("ok", "failed", "dead"):
            for body in self.messages(queue):
                found.setdefault(body.get("requestPayload", body)["n"], []).append(queue)
        return found

    def check(self):
        """Nothing is in two places; what is in none was accepted for a function without a place for its end."""
        found = self.places()
        twice = {number: where for number, where in found.items() if len(where) > 1}
        lost = {number: name for number, name in self.accepted.items() if number not in found and name != "plain"}
        assert not twice and not lost, (twice, lost)

    def run(self, seconds, step):
        for _ in range(round(seconds / step)):
            self.world.run(step)
            self.check()


def test_every_event_ends_where_its_function_says(tmp_path):
    world = Async(tmp_path, 1, mean_s=0.5, error_rate=0.4, crash_rate=0.1)
    world.send_steadily(5, 60)
    world.run(1_200, 10)
    assert len(world.accepted) == world.sent == 300
    assert world.world.db.value("SELECT count(*) FROM due") == 0
    ends = {number: where for number, (where,) in world.places().items()}
    allowed = {"both": {"ok", "failed"}, "letters": {"ok", "dead"}, "narrow": {"ok", "failed"}, "stopped": {"dead"}}
    for number, name in world.accepted.items():
        assert name == "plain" or ends[number] in allowed[name], (name, ends[number])
    records = world.messages("failed")
    assert Counter(record["requestContext"]["condition"] for record in records).keys() <= {
        "RetriesExhausted", "EventAgeExceeded",
    }  # fmt: skip
    assert {record["requestContext"]["approximateInvokeCount"] for record in records
            if record["requestContext"]["condition"] == "RetriesExhausted"} == {3}  # fmt: skip
    assert {"ok", "failed", "dead"} == set(ends.values())


@pytest.mark.parametrize("seed", [21, 22, 23, 24])
def test_a_server_that_dies_at_random_statements_loses_and_doubles_nothing(tmp_path, seed):
    world = Async(tmp_path, seed, mean_s=1.0, error_rate=0.3, crash_rate=0.1, hang_rate=0.02)
    world.send_steadily(4, 120)
    start = world.world.clock.now()
    for number in range(12):
        statement = 1 + int(world.world.chance.uniform() * 60)
        moment = start + 2 + number * 20 + world.world.chance.uniform() * 10
        world.world.at(moment, lambda statement=statement: world.world.db.arm(statement))
    world.run(1_500, 7)
    world.world.db.disarm()
    world.run(300, 60)
    assert world.world.crashes >= 8 and len(world.accepted) > 400, world.world.crashes
    assert world.world.db.value("SELECT count(*) FROM due") == 0
    world.check()


def test_throttled_events_are_run_within_their_age_or_expire(tmp_path):
    world = Async(tmp_path, 31, mean_s=2.0)
    for _ in range(200):
        world.fire("narrow")
    world.run(89, 1)
    assert world.messages("failed") == []
    world.run(31, 1)
    conditions = Counter(record["requestContext"]["condition"] for record in world.messages("failed"))
    ran = len(world.messages("ok"))
    assert conditions == {"EventAgeExceeded": 200 - ran} and 20 <= ran <= 60
    assert all(record["requestContext"]["approximateInvokeCount"] == 0 for record in world.messages("failed"))


def test_a_loop_of_destinations_ends_by_itself(tmp_path):
    world = Async(tmp_path, 41, mean_s=0.1)
    arn = "arn:aws:lambda:us-east-1:000000000000:function:"
    for name, other in (("both", "plain"), ("plain", "both")):
        world.configure(name, DestinationConfig={"OnSuccess": {"Destination": f"{arn}{other}"}})
    world.fire("both")
    runs = []
    world.world.watchers.append(lambda kind, at, details: runs.append(at) if kind == "invoke" else None)
    world.world.run(86_400)
    assert len(runs) == 2 * MAX_TURNS and world.world.db.value("SELECT count(*) FROM due") == 0


def test_same_seed_same_days(tmp_path):
    traces = []
    for number, seed in enumerate((51, 51, 52)):
        world = Async(tmp_path / str(number), seed, mean_s=0.5, error_rate=0.3)
        world.send_steadily(2, 60)
        world.run(600, 60)
        traces.append(world.world.trace())
    assert traces[0] == traces[1] != traces[2]

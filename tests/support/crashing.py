"""A server that is killed under load, and a ledger of what it had acknowledged.

Every writer owns its names and has one request in flight. `Register.known` is what was acknowledged, `Register.maybe`
what was asked for and not answered: after the restart a name holds one or the other, and nothing else is there.
Chance is seeded: the same seed gives the same writes and the same moments of death, as far as the machine allows.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError

from tests.support.execution_driver import alive
from tests.support.functions import ROLE, make_zip
from tests.support.server import LiveServer, wait_for

VISIBILITY_S = 30
NAMES = 24
DIMENSION = 8
PAUSE_S = (0.15, 0.9)
RUN_DEADLINE_S = 120.0
RECORD = """
import boto3, os
table = boto3.resource("dynamodb").Table("ran")

def handler(event, context):
    for name in [event["id"]] if "id" in event else [record["body"] for record in event["Records"]]:
        table.put_item(Item={"id": name})
    return {"done": True}
"""
ECHO = """
import time

def handler(event, context):
    time.sleep(0.05)
    return {"echo": event["id"]}
"""


class Register:
    """Names and their values; None is absent."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.maybe: dict[str, Any] = {}

    def put(self, name: str, value: Any, act: Callable[[], Any]) -> None:
        """Note the wish, do it, note the answer; what `act` raises leaves the wish open."""
        self.maybe[name] = value
        act()
        self.known[name] = value
        del self.maybe[name]

    def reconcile(self, actual: dict[str, Any]) -> int:
        """Compare with what is there; returns how many acknowledged values were found equal. From now on what is there
        is what is known."""
        found = 0
        for name in {*self.known, *self.maybe, *actual}:
            value = actual.get(name)
            open_wish = name in self.maybe and value == self.maybe[name]
            assert value == self.known.get(name) or open_wish, (
                f"{name}: acknowledged {_brief(self.known.get(name))}, asked for {_brief(self.maybe.get(name))}, "
                f"found {_brief(value)}"
            )
            found += value is not None and not open_wish
        self.known, self.maybe = dict(actual), {}
        return found


class Load:
    """Something that writes until the server dies; `run` in a thread, `verify` after the restart."""

    name = ""

    def __init__(self, server: LiveServer, seed: str) -> None:
        self.chance = random.Random(f"{seed} {self.name}")
        self.server = server
        self.acknowledged = 0

    def prepare(self) -> None:
        """Make buckets, tables and the like, once."""

    def step(self) -> None:
        """One request."""
        raise NotImplementedError

    def verify(self) -> int:
        """AssertionError when something acknowledged is lost or undone; returns how much was found."""
        raise NotImplementedError

    def run(self) -> None:
        """Until the connection breaks. An error answer from the live server is passed on."""
        while True:
            try:
                self.step()
            except BotoCoreError:
                return
            self.acknowledged += 1

    def bytes(self, *sizes: tuple[int, int]) -> bytes:
        return self.chance.randbytes(self.chance.randint(*self.chance.choice(sizes)))

    def pick(self) -> str:
        return f"{self.name}-{self.chance.randrange(NAMES)}"


class Objects(Load):
    """S3: bodies in rows and in files, put over each other, copied and deleted."""

    name = "objects"

    def prepare(self) -> None:
        self.s3 = self.server.client("s3")
        self.s3.create_bucket(Bucket="crash")
        self.held = Register()

    def step(self) -> None:
        name, choice = self.pick(), self.chance.random()
        if choice < 0.15:
            self.held.put(name, None, lambda: self.s3.delete_object(Bucket="crash", Key=name))
        elif choice < 0.3 and self.held.known.get(source := self.pick()) is not None:
            where = {"Bucket": "crash", "Key": source}
            act = lambda: self.s3.copy_object(Bucket="crash", Key=name, CopySource=where, MetadataDirective="REPLACE")  # noqa: E731
            self.held.put(name, self.held.known[source], act)
        else:
            body = self.bytes((0, 2_000), (65_500, 65_600), (100_000, 300_000))
            self.held.put(name, body, lambda: self.s3.put_object(Bucket="crash", Key=name, Body=body))

    def verify(self) -> int:
        listed = self.s3.list_objects_v2(Bucket="crash").get("Contents", [])
        actual = {}
        for entry in listed:
            actual[entry["Key"]] = self.s3.get_object(Bucket="crash", Key=entry["Key"])["Body"].read()
            assert len(actual[entry["Key"]]) == entry["Size"]
        return self.held.reconcile(actual)


class Items(Load):
    """DynamoDB: items put and deleted, and pairs written in one transaction."""

    name = "items"

    def prepare(self) -> None:
        self.dynamodb = self.server.client("dynamodb")
        _table(self.dynamodb, "crash")
        self.held = Register()
        self.pairs = Register()

    def step(self) -> None:
        name, choice = self.pick(), self.chance.random()
        key, text = {"id": {"S": name}}, self.bytes((10, 4_000)).hex()
        if choice < 0.15:
            self.held.put(name, None, lambda: self.dynamodb.delete_item(TableName="crash", Key=key))
        elif choice < 0.3:
            number = str(self.chance.randrange(10**6))
            puts = [
                {"Put": {"TableName": "crash", "Item": {"id": {"S": f"pair-{side}"}, "text": {"S": number}}}}
                for side in ("left", "right")
            ]
            self.pairs.put("pair", number, lambda: self.dynamodb.transact_write_items(TransactItems=puts))
        else:
            item = {**key, "text": {"S": text}}
            self.held.put(name, text, lambda: self.dynamodb.put_item(TableName="crash", Item=item))

    def verify(self) -> int:
        actual = {}
        for page in self.dynamodb.get_paginator("scan").paginate(TableName="crash"):
            actual |= {item["id"]["S"]: item["text"]["S"] for item in page["Items"]}
        left, right = actual.pop("pair-left", None), actual.pop("pair-right", None)
        assert left == right, "half a transaction is there"
        return self.held.reconcile(actual) + self.pairs.reconcile({} if left is None else {"pair": left})


class Vectors(Load):
    """S3 Vectors: put over each other, deleted, found again by value and by search."""

    name = "vectors"

    def prepare(self) -> None:
        self.vectors = self.server.client("s3vectors")
        self.vectors.create_vector_bucket(vectorBucketName="crash")
        self.where = {"vectorBucketName": "crash", "indexName": "crash"}
        self.vectors.create_index(**self.where, dataType="float32", dimension=DIMENSION, distanceMetric="cosine")
        self.held = Register()

    def step(self) -> None:
        name = self.pick()
        if self.chance.random() < 0.2:
            self.held.put(name, None, lambda: self.vectors.delete_vectors(**self.where, keys=[name]))
            return
        values = [self.chance.randint(1, 64) / 64 for _ in range(DIMENSION)]
        vector = {"key": name, "data": {"float32": values}, "metadata": {"n": name}}
        self.held.put(name, values, lambda: self.vectors.put_vectors(**self.where, vectors=[vector]))

    def verify(self) -> int:
        listed = self.vectors.list_vectors(**self.where, returnData=True)["vectors"]
        found = self.held.reconcile({entry["key"]: entry["data"]["float32"] for entry in listed})
        for name, values in sorted(self.held.known.items())[:3]:
            near = self.vectors.query_vectors(**self.where, topK=NAMES, queryVector={"float32": values})["vectors"]
            assert name in [entry["key"] for entry in near], f"{name} is stored and not found by a search"
        return found


class Messages(Load):
    """SQS: sent, received, some deleted; what was not deleted comes back once its visibility has ended. Messages stay
    for two rounds, so that each outlives two deaths."""

    name = "messages"

    def prepare(self) -> None:
        self.sqs = self.server.client("sqs")
        attributes = {"VisibilityTimeout": str(VISIBILITY_S)}
        self.url = self.sqs.create_queue(QueueName="crash", Attributes=attributes)["QueueUrl"]
        self.held = Register()
        self.count = 0
        self.round_began = 0

    def step(self) -> None:
        if self.chance.random() < 0.7:
            body = f"m{self.count}"
            self.count += 1
            self.held.put(body, True, lambda: self.sqs.send_message(QueueUrl=self.url, MessageBody=body))
            return
        for message in self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=4).get("Messages", []):
            assert self.held.known.get(message["Body"]) or message["Body"] in self.held.maybe, "a deleted message came"
            if self.chance.random() < 0.5:
                self.delete(message)

    def delete(self, message: dict[str, Any]) -> None:
        request = {"QueueUrl": self.url, "ReceiptHandle": message["ReceiptHandle"]}
        self.held.put(message["Body"], None, lambda: self.sqs.delete_message(**request))

    def verify(self) -> int:
        self.server.advance(VISIBILITY_S + 1)
        there: list[dict[str, Any]] = []
        request = {"QueueUrl": self.url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 10}
        while batch := self.sqs.receive_message(**request).get("Messages", []):
            there += batch
        bodies = Counter(message["Body"] for message in there)
        assert not bodies or max(bodies.values()) == 1, "a message was there twice"
        found = self.held.reconcile(dict.fromkeys(bodies, True))
        for message in there:
            if int(message["Body"][1:]) < self.round_began:
                self.delete(message)
        self.round_began = self.count
        return found


class Events(Load):
    """Lambda, asynchronous: what Invoke accepted is run, before the death or after it. The function may run four at a
    time, so that most are refused at first and wait; `verify` moves the clock past those pauses."""

    name = "events"

    def prepare(self) -> None:
        self.functions, self.dynamodb = self.server.client("lambda"), self.server.client("dynamodb")
        _table(self.dynamodb, "ran")
        _function(self.functions, "record", RECORD)
        self.count = 0
        self.owed: set[str] = set()

    def step(self) -> None:
        name = f"{self.name}-{self.count}"
        self.count += 1
        self.accept(name)
        self.owed.add(name)

    def accept(self, name: str) -> None:
        payload = json.dumps({"id": name})
        answer = self.functions.invoke(FunctionName="record", InvocationType="Event", Payload=payload)
        assert answer["StatusCode"] == 202

    def verify(self) -> int:
        def ran() -> bool:
            self.server.advance(5)
            pages = self.dynamodb.get_paginator("scan").paginate(TableName="ran")
            return self.owed <= {item["id"]["S"] for page in pages for item in page["Items"]}

        wait_for(ran, RUN_DEADLINE_S, f"every accepted one of {self.name} to be run")
        found = len(self.owed)
        self.owed.clear()
        return found


class Mapped(Events):
    """SQS to Lambda: the event source mapping goes on after the restart."""

    name = "mapped"

    def prepare(self) -> None:
        self.dynamodb, self.sqs = self.server.client("dynamodb"), self.server.client("sqs")
        attributes = {"VisibilityTimeout": str(VISIBILITY_S)}
        self.url = self.sqs.create_queue(QueueName="mapped", Attributes=attributes)["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        self.server.client("lambda").create_event_source_mapping(EventSourceArn=arn, FunctionName="record")
        self.count = 0
        self.owed = set()

    def accept(self, name: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=name)

    def verify(self) -> int:
        self.server.advance(VISIBILITY_S + 1)
        return super().verify()


class Calls(Load):
    """Lambda, synchronous: the right answer or a broken connection, never anything else."""

    name = "calls"

    def prepare(self) -> None:
        self.functions = self.server.client("lambda")
        _function(self.functions, "echo", ECHO)
        self.count = 0

    def step(self) -> None:
        self.count += 1
        answer = self.functions.invoke(FunctionName="echo", Payload=json.dumps({"id": self.count}))
        body = answer["Payload"].read()
        assert "FunctionError" not in answer and json.loads(body) == {"echo": self.count}, body

    def verify(self) -> int:
        self.step()
        return 1


LOADS = (Objects, Items, Vectors, Messages, Events, Mapped, Calls)


class Crashes:
    """One server on one state, killed again and again. `found` and `acknowledged` count by load."""

    def __init__(self, state: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.server = LiveServer(state).start()
        self.loads = [load(self.server, str(seed)) for load in LOADS]
        self.found: Counter[str] = Counter()
        self.kills = 0
        self.workers_ended = 0
        for load in self.loads:
            load.prepare()

    @property
    def acknowledged(self) -> Counter[str]:
        return Counter({load.name: load.acknowledged for load in self.loads})

    def kill_once(self) -> None:
        """Load, SIGKILL at a random moment, restart, verify everything."""
        failures: list[BaseException] = []
        threads = [threading.Thread(target=_guarded, args=(load, failures), daemon=True) for load in self.loads]
        for thread in threads:
            thread.start()
        time.sleep(self.chance.uniform(*PAUSE_S))
        assert self.server.process is not None
        workers = descendants(self.server.process.pid)
        self.server.kill()
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive(), "a client waits for a dead server"
        if failures:
            raise failures[0]
        wait_for(lambda: not any(map(alive, workers)), what="the end of the dead server's workers")
        self.workers_ended += len(workers)
        self.kills += 1
        self.server.start()
        for load in self.loads:
            self.found[load.name] += load.verify()

    def stop(self) -> None:
        assert self.server.stop() == 0, self.server.log.read_text()[-4000:]
        log = self.server.log.read_text()
        assert "defect" not in log and "Traceback" not in log, log[-4000:]


def descendants(pid: int) -> set[int]:
    """Every process below `pid`, now."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found.update(children)
        waiting += children
    return found


def _guarded(load: Load, failures: list[BaseException]) -> None:
    try:
        load.run()
    except BaseException as error:
        failures.append(error)


def _table(dynamodb: Any, name: str) -> None:
    dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip


def _function(functions: Any, name: str, source: str) -> None:
    functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=20, MemorySize=256,
        Code={"ZipFile": make_zip({"app.py": source})},
    )  # fmt: skip
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=4)
    functions.get_waiter("function_active_v2").wait(FunctionName=name)


def _brief(value: Any) -> str:
    if isinstance(value, (bytes, str)):
        return f"{len(value)} {type(value).__name__}, {value[:12]!r}"
    return repr(value)

"""Days of queues under misfortune: a server that dies at any write, clients that die between any two of their steps, a
clock that jumps both ways. Checkers read the log of what was answered; mutants show that each of them can fail.
"""

from collections import defaultdict
from typing import NamedTuple

import pytest

from preheat.kernel.entropy import SeededEntropy
from preheat.services.sqs.repository import SqsRepository
from tests.support.mortal import RECEIVES, Mortal, Unanswered

VISIBILITY_S, RETENTION_S, FORTNIGHT_S, WINDOW_S = 20, 1_200, 1_209_600, 300


class Event(NamedTuple):
    """What the server answered. `at` by its clock; `latest` the latest that its clock has shown."""

    kind: str
    queue: str
    at: float
    latest: float
    body: str
    message_id: str
    group: str = ""
    sequence: int = 0
    receipts: int = 0
    batch: int = 0


class Day:
    """Producers and consumers whose steps fail at random, all seeded; `log` holds what was committed."""

    QUEUES = ("work", "line.fifo")

    def __init__(self, seed, retention_s=RETENTION_S, forward=True):
        self.world = world = Mortal(seed)
        self.chance = SeededEntropy(seed + 1_000)
        self.forward = forward
        self.retention_s = retention_s
        self.log: list[Event] = []
        self.places: list[str] = []
        self.latest = world.clock.now()
        self.batches = self.sent = self.deaths = 0
        settings = {"VisibilityTimeout": str(VISIBILITY_S), "MessageRetentionPeriod": str(retention_s)}
        self.urls = {
            "work": world.with_dead_letters("work", "grave", **settings),
            "line.fifo": world.with_dead_letters("line.fifo", "grave.fifo", **settings),
        }

    def draw(self, *choices):
        return choices[int(self.chance.uniform() * len(choices))]

    def note(self, kind, queue, **known):
        now = self.world.clock.now()
        self.latest = max(self.latest, now)
        self.log.append(Event(kind, queue, now, self.latest, **known))

    def attempt(self, act):
        """What `act` gives, or None when the server died in it."""
        if self.chance.uniform() < 0.2:
            self.world.db.arm(1 + int(self.chance.uniform() * 5))
        try:
            return act()
        except Unanswered:
            self.deaths += 1
            return None
        finally:
            self.world.db.disarm()

    def produce(self, queue):
        number = self.sent
        self.sent += 1
        fifo = queue.endswith(".fifo")
        more = {"MessageGroupId": f"g{number % 4}", "MessageDeduplicationId": f"d{number}"} if fifo else {}
        for _ in range(8):
            answer = self.attempt(lambda: self.world.send(self.urls[queue], f"{queue} {number}", **more))
            if answer is None:
                continue
            group, sequence = more.get("MessageGroupId", ""), int(answer.get("SequenceNumber", 0))
            self.note("sent", queue, body=f"{queue} {number}", message_id=answer["MessageId"], group=group,
                      sequence=sequence)  # fmt: skip
            if self.draw(True, True, False):
                return

    def consume(self, queue):
        """Receive, perhaps extend, delete; the consumer dies before any of these, or its answers are lost."""
        url, limit = self.urls[queue], self.draw(1, 3, 10)
        messages = self.attempt(lambda: self.world.receive(url, limit))
        self.batches += 1
        self.look()
        for message in messages or ():
            known = message["Attributes"]
            self.note(
                "received", queue, body=message["Body"], message_id=message["MessageId"], batch=self.batches,
                group=known.get("MessageGroupId", ""), sequence=int(known.get("SequenceNumber", 0)),
                receipts=int(known["ApproximateReceiveCount"]),
            )  # fmt: skip
        fate = self.draw("answer lost", "dies", "dies half-way", "works", "works", "works", "deletes twice", "extends")
        if not messages or fate in ("answer lost", "dies"):
            return
        for message in messages[: 1 if fate == "dies half-way" else None]:
            request = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
            if fate == "extends":
                self.attempt(lambda: self.world("ChangeMessageVisibility", **request, VisibilityTimeout=60))  # noqa: B023
            for _ in range(2 if fate == "deletes twice" else 1):
                if self.attempt(lambda: self.world("DeleteMessage", **request)) is not None:  # noqa: B023
                    self.note("deleted", queue, body=message["Body"], message_id=message["MessageId"])

    def pass_time(self):
        seconds = self.draw(0, 0, 1, 5, VISIBILITY_S + 1, -3)
        if self.chance.uniform() < 0.02:
            seconds = self.draw(-200, 400, RETENTION_S + 1) if self.forward else -200
        self.attempt(lambda: self.world.pass_time(seconds))
        self.latest = max(self.latest, self.world.clock.now())

    def look(self):
        """Note messages that are in two places."""
        rows = self.world.db.all("SELECT message_id FROM sqs_messages GROUP BY message_id HAVING count(*) > 1")
        self.places += [row[0] for row in rows]

    def run(self, steps):
        for _ in range(steps):
            queue = self.draw(*self.QUEUES)
            self.draw(self.produce, self.consume, self.consume)(queue)
            self.pass_time()
            self.look()
        return self

    def drain(self):
        """Let everything come back, and receive until nothing does."""
        for _ in range(12 * RECEIVES):
            self.world.pass_time(VISIBILITY_S * 4)
            for queue in self.QUEUES:
                self.take_all(queue)
                self.look()
        return self

    def take_all(self, queue):
        self.batches += 1
        for message in self.world.receive(self.urls[queue]):
            known = message["Attributes"]
            self.note(
                "received", queue, body=message["Body"], message_id=message["MessageId"], batch=self.batches,
                group=known.get("MessageGroupId", ""), sequence=int(known.get("SequenceNumber", 0)),
                receipts=int(known["ApproximateReceiveCount"]),
            )  # fmt: skip
            self.world("DeleteMessage", QueueUrl=self.urls[queue], ReceiptHandle=message["ReceiptHandle"])
            self.note("deleted", queue, body=message["Body"], message_id=message["MessageId"])

    def letters(self):
        """Message ids in the dead-letter queues."""
        rows = self.world.db.all(
            """SELECT message_id FROM sqs_messages JOIN sqs_queues ON sqs_queues.id = queue_id
               WHERE name LIKE 'grave%'"""
        )
        return {row[0] for row in rows}

    def of(self, kind):
        return [event for event in self.log if event.kind == kind]


def lost(day):
    """At least once: what was acknowledged is received (a day without expiry)."""
    received = {event.message_id for event in day.of("received")}
    return [event for event in day.of("sent") if event.message_id not in received]


def returned(day):
    """Nothing comes after its deletion was acknowledged."""
    gone, found = set(), []
    for event in day.log:
        if event.kind == "deleted":
            gone.add(event.message_id)
        elif event.kind == "received" and event.message_id in gone:
            found.append(event)
    return found


def doubled(day):
    """FIFO: sends with one deduplication id (here: one body) within the window are one message."""
    first, found = {}, []
    for event in day.of("sent"):
        if not event.group:
            continue
        known = first.setdefault(event.body, event)
        if event.message_id != known.message_id:
            if event.latest < known.at + WINDOW_S:
                found.append(event)
            first[event.body] = event
    return found


def disordered(day):
    """FIFO: groups come in the order of their sequence, and who was overtaken is not seen again."""
    groups, found = defaultdict(dict), []
    for event in day.of("received"):
        if event.group:
            groups[event.group].setdefault(event.batch, []).append(event)
    for batches in groups.values():
        overtaken = 0
        for events in batches.values():
            numbers = [event.sequence for event in events]
            if numbers != sorted(numbers) or numbers[0] <= overtaken:
                found += events
            overtaken = max(overtaken, numbers[0] - 1)
    return found


def misburied(day):
    """Dead letters were received exactly as often as allowed, nothing more often."""
    counts = defaultdict(int)
    for event in day.of("received"):
        counts[event.message_id] = max(counts[event.message_id], event.receipts)
    wrong = [name for name in day.letters() if counts[name] != RECEIVES]
    return wrong + [name for name, count in counts.items() if count > RECEIVES]


def stale(day):
    """Retention: nothing is received that is older, and nothing older is kept."""
    sent, found = {}, []
    for event in day.log:
        if event.kind == "sent":
            sent.setdefault(event.message_id, event.at)
        elif event.kind == "received" and event.at - sent.get(event.message_id, event.at) > day.retention_s:
            found.append(event)
    return found


def in_two_places(day):
    return day.places


CHECKERS = (lost, returned, doubled, disordered, misburied, stale, in_two_places)


@pytest.mark.parametrize("seed", (1, 2, 3))
def test_a_day_of_deaths_loses_doubles_and_disorders_nothing(seed):
    day = Day(seed, FORTNIGHT_S, forward=False).run(500).drain()
    assert day.deaths > 30 and len(day.of("sent")) > 100 and day.letters()
    assert {check.__name__: check(day) for check in CHECKERS} == {check.__name__: [] for check in CHECKERS}


@pytest.mark.parametrize("seed", (4, 5, 6))
def test_a_day_of_clock_jumps_keeps_order_windows_and_retention(seed):
    day = Day(seed).run(250)
    for queue in day.QUEUES * 5:
        day.produce(queue)
    day.attempt(lambda: day.world.pass_time(RETENTION_S + 1))
    day.run(250)
    assert lost(day), "some were never received before the jump"
    held = (returned, doubled, disordered, misburied, stale, in_two_places)
    day.drain()
    assert {check.__name__: check(day) for check in held} == {check.__name__: [] for check in held}
    day.world.pass_time(RETENTION_S * 400)
    assert day.world.db.value("SELECT count(*) FROM sqs_messages") == 0, "nothing outlives its retention"


def keep_all(self, queue, handles):
    return 0


def forgotten(self, queue, scope, dedup_id, now_ms):
    return None


def unlocked(original):
    def settle(self, queue_id, group_id):
        original(self, queue_id, group_id)
        self.db.run("UPDATE sqs_groups SET available_at = 0 WHERE queue_id = ? AND group_id = ?", queue_id, group_id)

    return settle


def skipping(original):
    """Messages in flight do not hold up those behind them."""

    def group_head(self, queue, group_id, limit):
        now_ms = self.db.value("SELECT max(expires_at) - ? FROM sqs_attempts", 0)
        return [row for row in original(self, queue, group_id, 100) if row["visible_at"] <= now_ms][:limit]

    return group_head


def timed(original):
    """Leaves the time of a receive where `skipping` finds it."""

    def ready_groups(self, queue, now_ms, limit):
        self.db.run("INSERT OR REPLACE INTO sqs_attempts VALUES (0, '', 0, 0, ?, '')", now_ms)
        return original(self, queue, now_ms, limit)

    return ready_groups


def backwards(original):
    return lambda self, *arguments: original(self, *arguments)[::-1]


def one_more(original):
    return lambda self, queue, limit, now_ms, count: original(self, queue, limit, now_ms, count - 1)


def never_expired(self, queue, now_ms, limit):
    return 0, None


def copying(original):
    def move(self, message, target, source, now_ms):
        original(self, message, target, source, now_ms)
        self.db.run(
            """INSERT INTO sqs_messages (queue_id, visible_at, receive_count, receipt, sent_at, message_id, sender, md5,
                                         body)
               SELECT ?, visible_at, 0, 0, sent_at, message_id, sender, md5, body FROM sqs_messages
               WHERE id = (SELECT max(id) FROM sqs_messages)""",
            source.id,
        )

    return move


def losing(original):
    def take(self, *arguments):
        rows = original(self, *arguments)
        for row in rows:
            self.db.run("DELETE FROM sqs_messages WHERE id = ?", row["id"])
        return []

    return take


MUTANTS = {
    "a receive that takes for good": (lost, {"take": losing}),
    "a delete that deletes nothing": (returned, {"delete": lambda original: keep_all}),
    "no deduplication": (doubled, {"duplicate": lambda original: forgotten}),
    "groups without a lock": (disordered, {"_settle": unlocked, "ready_groups": timed, "group_head": skipping}),
    "groups from their end": (disordered, {"group_head": backwards}),
    "one receive too few": (misburied, {"exhausted": one_more}),
    "a move that copies": (in_two_places, {"move": copying}),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_checkers_find_mutants(monkeypatch, name):
    check, changes = MUTANTS[name]
    for method, mutate in changes.items():
        monkeypatch.setattr(SqsRepository, method, mutate(getattr(SqsRepository, method)))
    assert check(Day(1, FORTNIGHT_S, forward=False).run(400).drain()), "the checker sees nothing"


def test_the_checker_of_retention_finds_a_mutant(monkeypatch):
    monkeypatch.setattr(SqsRepository, "expire", never_expired)
    monkeypatch.setattr("preheat.services.sqs.repository.TAKE", LASTING)
    assert stale(Day(4).run(500))


LASTING = """
UPDATE sqs_messages
SET visible_at = ?, receive_count = receive_count + 1, first_received = ifnull(first_received, ?), receipt = ?
WHERE id IN (SELECT id FROM sqs_messages WHERE queue_id = ? AND visible_at <= ? AND sent_at > 0 * ? AND
             receive_count < ? ORDER BY visible_at LIMIT ?) RETURNING *"""

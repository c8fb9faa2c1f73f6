"""Queues whose server dies at any write, whose disk refuses, and what is left of purged and deleted ones."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.sqs.repository import PURGED_AT_ONCE
from preheat.simulate.faults import SimulatedCrash
from tests.support.mortal import ARN, Mortal, Unanswered, url_of

READING = {
    "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues", "ListMessageMoveTasks", "ListQueueTags",
    "ListQueues",
}  # fmt: skip


def crash_world():
    world = Mortal()
    for suffix in ("", ".fifo"):
        url = world.with_dead_letters(f"q{suffix}", f"dead{suffix}")
        for at in range(4):
            world.send(url, f"m{at}")
    return world


def batch(group=None):
    more = {} if group is None else {"MessageGroupId": group}
    return [{"Id": str(at), "MessageBody": f"new {at}", **more} for at in range(3)]


def spent(world, name):
    world.spend(url_of(name))
    return {"QueueUrl": url_of(name), "MaxNumberOfMessages": 10}


def dead_letters(world, name):
    world.receive(spent(world, name)["QueueUrl"])
    return ARN + name.replace("q", "dead")


def running_task(world):
    return world("StartMessageMoveTask", SourceArn=dead_letters(world, "q"), MaxNumberOfMessagesPerSecond=1)


def labelled(world):
    world("AddPermission", QueueUrl=url_of("q"), Label="l", AWSAccountIds=["1" * 12], Actions=["*"])
    return {"QueueUrl": url_of("q"), "Label": "l"}


def changes(world, name):
    entries = [{**entry, "VisibilityTimeout": 0} for entry in world.handles(url_of(name))]
    return {"QueueUrl": url_of(name), "Entries": entries}


def one(params):
    """The first entry of a batch as a request."""
    entry = params["Entries"][0]
    return {"QueueUrl": params["QueueUrl"]} | {name: entry[name] for name in entry if name != "Id"}


def removals(world, name):
    return {"QueueUrl": url_of(name), "Entries": world.handles(url_of(name))}


MUTATIONS = {
    "CreateQueue": lambda world: {"QueueName": "new", "tags": {"a": "b"}},
    "SetQueueAttributes": lambda world: {"QueueUrl": url_of("q.fifo"), "Attributes": {"DelaySeconds": "5"}},
    "DeleteQueue": lambda world: {"QueueUrl": url_of("q.fifo")},
    "TagQueue": lambda world: {"QueueUrl": url_of("q"), "Tags": {"a": "b"}},
    "UntagQueue": lambda world: world("TagQueue", QueueUrl=url_of("q"), Tags={"a": "b"})
    or {"QueueUrl": url_of("q"), "TagKeys": ["a"]},
    "AddPermission": lambda world: {
        "QueueUrl": url_of("q"), "Label": "l", "AWSAccountIds": ["1" * 12], "Actions": ["*"]
    },
    "RemovePermission": labelled,
    "PurgeQueue": lambda world: {"QueueUrl": url_of("q")},
    "PurgeQueue of a FIFO queue": lambda world: {"QueueUrl": url_of("q.fifo")},
    "SendMessage": lambda world: {"QueueUrl": url_of("q"), "MessageBody": "new"},
    "SendMessage of a tenant": lambda world: {"QueueUrl": url_of("q"), "MessageBody": "new", "MessageGroupId": "t"},
    "SendMessage to a FIFO queue": lambda world: {
        "QueueUrl": url_of("q.fifo"), "MessageBody": "new", "MessageGroupId": "new"
    },
    "SendMessageBatch": lambda world: {"QueueUrl": url_of("q"), "Entries": batch()},
    "SendMessageBatch to a FIFO queue": lambda world: {"QueueUrl": url_of("q.fifo"), "Entries": batch("g")},
    "ReceiveMessage": lambda world: {"QueueUrl": url_of("q"), "MaxNumberOfMessages": 10},
    "ReceiveMessage that moves dead letters": lambda world: spent(world, "q"),
    "ReceiveMessage that moves dead letters of a FIFO queue": lambda world: spent(world, "q.fifo"),
    "ReceiveMessage with an attempt": lambda world: {
        "QueueUrl": url_of("q.fifo"), "MaxNumberOfMessages": 10, "ReceiveRequestAttemptId": "a"
    },
    "DeleteMessage": lambda world: one(removals(world, "q")),
    "DeleteMessage of a FIFO queue": lambda world: one(removals(world, "q.fifo")),
    "DeleteMessageBatch": lambda world: removals(world, "q"),
    "DeleteMessageBatch of a FIFO queue": lambda world: removals(world, "q.fifo"),
    "ChangeMessageVisibility": lambda world: one(changes(world, "q")),
    "ChangeMessageVisibility of a FIFO queue": lambda world: one(changes(world, "q.fifo")),
    "ChangeMessageVisibilityBatch": lambda world: changes(world, "q"),
    "ChangeMessageVisibilityBatch of a FIFO queue": lambda world: changes(world, "q.fifo"),
    "StartMessageMoveTask": lambda world: {"SourceArn": dead_letters(world, "q")},
    "CancelMessageMoveTask": running_task,
}  # fmt: skip


def test_every_mutating_operation_is_tried(request):
    assert {name.split()[0] for name in MUTATIONS} == set(Mortal().service.operations) - READING


def all_or_nothing(world, act):
    """How many writes `act` makes: at each of them a death leaves the state as it was."""
    before = world.state()
    for statement in range(1, 400):
        world.db.arm(statement)
        try:
            act()
        except Unanswered:
            assert world.state() == before, f"write {statement}"
            continue
        world.db.disarm()
        assert world.state() != before
        return statement - 1
    raise AssertionError("too many writes")


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_operation_that_dies_has_done_nothing(name):
    world = crash_world()
    params = MUTATIONS[name](world)
    replies = []

    def act():
        replies.clear()
        world.machine.submit("sqs", name.split()[0], params, replies.append)
        while not replies:
            try:
                world.machine.tick()
            except SimulatedCrash:
                world.db.recover()
                world.restart()
                raise Unanswered from None
        assert not isinstance(replies[0], AwsError), replies[0]

    assert all_or_nothing(world, act) > 0


@pytest.mark.parametrize("suffix", ("", ".fifo"))
def test_a_move_task_and_expiry_go_on_after_any_death(suffix):
    for statement in range(1, 60):
        world = crash_world()
        world("StartMessageMoveTask", SourceArn=dead_letters(world, f"q{suffix}"), MaxNumberOfMessagesPerSecond=2)
        world.db.arm(statement)
        died = 0
        for _ in range(10):
            try:
                world.pass_time(1)
            except Unanswered:
                died += 1
        world.db.disarm()
        bodies = [row[0] for row in world.db.all("SELECT body FROM sqs_messages ORDER BY body")]
        assert bodies == sorted(f"m{at}" for at in range(4) for _ in range(2))
        (task,) = world.db.all("SELECT status, moved FROM sqs_moves")
        assert tuple(task) == ("COMPLETED", 4) and world.visible(url_of(f"q{suffix}")) == 4
        if not died:
            break
    assert statement > 5


def test_what_is_left_of_a_purge_touches_nothing_that_came_later():
    world = Mortal()
    url = world.make("deep")
    fill(world, url, PURGED_AT_ONCE + 20, delay=600)
    world.send(url, "newest, and visible first")
    replies = []
    world.machine.submit("sqs", "PurgeQueue", {"QueueUrl": url}, replies.append)
    world.machine.submit("sqs", "SendMessage", {"QueueUrl": url, "MessageBody": "sent afterwards"}, replies.append)
    world.settle()
    assert [message["Body"] for message in world.receive(url)] == ["sent afterwards"]
    assert world.db.value("SELECT count(*) FROM sqs_messages") == 1


def test_what_is_left_of_a_deleted_queue_shows_up_in_no_other():
    world = Mortal()
    url = world.make("deep")
    fill(world, url, PURGED_AT_ONCE + 20)
    replies = []
    world.machine.submit("sqs", "DeleteQueue", {"QueueUrl": url}, replies.append)
    world.machine.submit("sqs", "CreateQueue", {"QueueName": "fresh"}, replies.append)
    fresh = {"QueueUrl": url.replace("deep", "fresh")}
    world.machine.submit("sqs", "ReceiveMessage", fresh, replies.append)
    world.settle()
    assert replies[2].output == {}


def fill(world, url, count, delay=0):
    entries = [{"Id": str(at), "MessageBody": "x", "DelaySeconds": delay} for at in range(10)]
    for _ in range(count // 10):
        world.machine.submit("sqs", "SendMessageBatch", {"QueueUrl": url, "Entries": entries}, lambda reply: None)
    world.settle()


def test_a_spent_message_of_a_quiet_tenant_is_not_given_again():
    world = Mortal()
    url = world.with_dead_letters("shared", "dead")
    world.send(url, "spent", MessageGroupId="quiet")
    world.spend(url)
    for start in range(60):
        world.send(url, f"noise {start}", MessageGroupId="noisy", DelaySeconds=0)
    world.db.begin()
    world.db.run("UPDATE sqs_messages SET visible_at = visible_at + 5 WHERE body = 'spent'")
    world.db.keep()
    world.db.commit()
    for _ in range(4):
        world.receive(url)
    world.pass_time(5)
    assert "spent" not in [message["Body"] for message in world.receive(url)]
    assert [message["Body"] for message in world.receive(url_of("dead"))] == ["spent"]


def test_a_disk_that_refuses_writes_and_takes_them_again():
    world = Mortal()
    urls = {name: world.make(name) for name in ("q", "q.fifo")}
    for url in urls.values():
        world.send(url, "before")
    before = world.state()
    pages = world.db.value("PRAGMA page_count")
    world.db.value(f"PRAGMA max_page_count = {pages}")
    large = "x" * 500_000
    for name, url in urls.items():
        with pytest.raises(AwsError) as refused:
            world.send(url, large)
        assert (refused.value.code, refused.value.status) == ("ServiceUnavailable", 503), name
    assert world.state() == before, "nothing half-written"
    world.db.value("PRAGMA max_page_count = 1000000")
    world.pass_time(2)
    for url in urls.values():
        assert world.send(url, large, **({"MessageGroupId": "h"} if url.endswith("fifo") else {}))
        assert [message["Body"] for message in world.receive(url)] == ["before", large]

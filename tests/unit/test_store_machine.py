"""The machine over its database: what shares a commit, who is woken, and what a refusal of the disk leaves."""

import gc
import time

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.contract import Deferred, Reply, Wait
from preheat.services.machine import MAX_PER_COMMIT
from preheat.services.sqs.service import build as build_sqs
from preheat.store.errors import StoreFull
from tests.support.inprocess import InProcess


class Notes:
    """A service of one table. Params: `then` is what the operation ends with."""

    name = "notes"
    schema = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)"

    def __init__(self, platform):
        self.operations = {"Write": self.write, "Await": self.wait, "Elsewhere": self.elsewhere, "Break": self.broken}
        self.resolves = []
        self.cancelled = []
        self.ran = []

    def write(self, ctx, params):
        ctx.db.run("INSERT INTO notes (text) VALUES (?)", params["text"])
        ctx.db.notify(params.get("topic", "written"))
        ctx.db.after_commit(lambda: self.ran.append(params["text"]))
        if "error" in params:
            raise params["error"]
        return {"text": params["text"]}

    def wait(self, ctx, params):
        until = ctx.now + params["seconds"] if "until" not in params else params["until"]
        count = ctx.db.value("SELECT count(*) FROM notes")
        self.ran.append(params["name"])
        if count >= params.get("count", 1) or ctx.now >= until:
            return {"name": params["name"], "count": count}
        again = {**params, "until": until}
        return Wait(params.get("topics", ("written",)), until, lambda inner: self.wait(inner, again))

    def elsewhere(self, ctx, params):
        ctx.db.run("INSERT INTO notes (text) VALUES ('begun')")

        def then(inner, value):
            inner.db.run("INSERT INTO notes (text) VALUES (?)", value)
            return {"value": value}

        return Deferred(self.resolves.append, then, lambda: self.cancelled.append(True))

    def broken(self, ctx, params):
        ctx.db.run("INSERT INTO notes (text) VALUES ('broken')")
        return 1 / 0


class Counting:
    """A loop that does what it is told and counts."""

    topics = ("tick",)

    def __init__(self, name="counting", step=None):
        self.name = name
        self.steps = []
        self._step = step

    def step(self, ctx):
        self.steps.append(ctx.now)
        return self._step(ctx) if self._step else None


class World(InProcess):
    def __init__(self, **arguments):
        super().__init__(Notes, **arguments)
        self.notes = self.machine.services["notes"]
        self.replies = []
        self.commits = 0
        commit = self.db.commit

        def counted():
            self.commits += 1
            commit()

        self.db.commit = counted

    def submit(self, operation, **params):
        return self.machine.submit("notes", operation, params, self.replies.append)

    def texts(self):
        return [row["text"] for row in self.db.all("SELECT text FROM notes ORDER BY id")]


@pytest.fixture
def world():
    return World()


def outputs(replies):
    return [reply.output if isinstance(reply, Reply) else (reply.code, reply.status) for reply in replies]


def test_what_is_submitted_together_shares_one_commit_and_is_answered_after_it(world):
    seen = []
    for text in "abc":
        world.machine.submit("notes", "Write", {"text": text}, lambda reply: seen.append(world.commits))
    world.machine.tick()
    assert world.commits == 1 and seen == [1, 1, 1] and world.texts() == ["a", "b", "c"]


def test_a_failed_operation_takes_back_its_own_writes_alone(world):
    world.submit("Write", text="a")
    world.submit("Write", text="b", error=AwsError("Refused", "no", 409))
    world.submit("Break")
    world.submit("Write", text="c")
    world.machine.tick()
    assert outputs(world.replies) == [{"text": "a"}, ("Refused", 409), ("InternalFailure", 500), {"text": "c"}]
    assert world.texts() == ["a", "c"] and world.notes.ran == ["a", "c"] and world.commits == 1
    assert len(world.defects) == 1 and "ZeroDivisionError" in world.defects[0]


def test_no_more_than_a_limit_goes_into_one_commit(world):
    for number in range(MAX_PER_COMMIT + 1):
        world.submit("Write", text=str(number))
    world.machine.tick()
    assert len(world.replies) == MAX_PER_COMMIT and world.machine.has_work()
    world.machine.tick()
    assert len(world.replies) == MAX_PER_COMMIT + 1 and world.commits == 2
    assert world.texts() == [str(number) for number in range(MAX_PER_COMMIT + 1)]


def test_a_tick_without_work_opens_no_transaction(world):
    world.machine.tick()
    assert world.commits == 0


def test_actions_run_after_the_commit_in_the_order_they_were_asked_for_and_before_the_replies(world):
    order = []

    def twice(ctx):
        ctx.db.after_commit(lambda: order.append(("first", world.commits)))
        ctx.db.after_commit(lambda: order.append(("second", world.commits)))
        return {}

    world.machine.perform(twice, lambda reply: order.append("reply"))
    world.machine.perform(lambda ctx: ctx.db.after_commit(lambda: order.append("third")) or {}, lambda reply: None)
    world.machine.tick()
    assert order == [("first", 1), ("second", 1), "third", "reply"]


def test_an_action_or_an_answer_that_raises_keeps_nothing_else_back(world):
    def bad(ctx):
        ctx.db.after_commit(lambda: 1 / 0)
        return {}

    answers = []

    def burst(reply):
        answers.append(reply)
        if isinstance(reply, Reply):
            raise ValueError("cannot be written")

    world.machine.perform(bad, world.replies.append)
    world.machine.perform(lambda ctx: {}, burst)
    world.submit("Write", text="a")
    world.machine.tick()
    assert outputs(world.replies) == [{}, {"text": "a"}] and world.notes.ran == ["a"]
    assert isinstance(answers[0], Reply) and answers[1].code == "InternalFailure" and len(answers) == 2
    assert len(world.defects) == 2


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("Await", "Write"), ("Write", "Await")])
def test_a_note_of_the_same_tick_is_not_missed(world, order):
    for operation in order:
        world.submit(operation, text="a", name="w", seconds=10)
    world.settle()
    assert sorted(map(str, outputs(world.replies))) == ["{'name': 'w', 'count': 1}", "{'text': 'a'}"]


def test_a_wait_ends_by_its_time_in_the_order_of_times(world):
    for name, seconds in (("late", 20), ("early", 5), ("middle", 10)):
        world.submit("Await", name=name, seconds=seconds)
    world.settle()
    began = world.clock.now()
    assert world.machine.wake_at() == began + 5
    world.advance(4.9)
    assert world.replies == []
    world.advance(0.2)
    assert outputs(world.replies) == [{"name": "early", "count": 0}]
    assert world.machine.wake_at() == began + 10
    world.advance(20)
    assert [output["name"] for output in outputs(world.replies)] == ["early", "middle", "late"]
    assert world.machine.wake_at() is None


def test_a_wait_is_woken_by_any_of_its_topics_and_by_no_other(world):
    world.submit("Await", name="w", seconds=10, topics=("red", "green"), count=2)
    for topic, answered in (("blue", False), ("red", True)):
        world.submit("Write", text="x", topic=topic)
        world.settle()
        assert any("name" in output for output in outputs(world.replies)) is answered
    assert world.machine.wake_at() is None


def test_a_wait_whose_client_has_gone_is_forgotten(world):
    task = world.submit("Await", name="w", seconds=10)
    world.settle()
    world.machine.cancel(task)
    assert world.machine.wake_at() is None
    world.submit("Write", text="a")
    world.settle()
    assert outputs(world.replies) == [{"text": "a"}] and world.notes.ran == ["w", "a"]


def test_a_wait_woken_in_vain_keeps_one_timer(world):
    world.submit("Await", name="w", seconds=10, count=10_000)
    world.settle()
    for number in range(200):
        world.submit("Write", text=str(number))
        world.settle()
    assert len(world.machine._timers) == 1
    world.advance(10)
    assert outputs(world.replies)[-1] == {"name": "w", "count": 200}


def test_a_deferred_answer_is_continued_in_a_transaction_of_its_own(world):
    world.submit("Elsewhere")
    world.settle()
    assert world.texts() == ["begun"] and world.replies == []
    world.notes.resolves[0]("done")
    world.settle()
    assert outputs(world.replies) == [{"value": "done"}] and world.texts() == ["begun", "done"]


def test_a_deferred_error_is_the_answer(world):
    for error in (AwsError("Slow", "down", 429), ValueError("ours")):
        world.submit("Elsewhere")
        world.settle()
        world.notes.resolves[-1](error)
        world.settle()
    assert outputs(world.replies) == [("Slow", 429), ("InternalFailure", 500)]
    assert "ours" in world.defects[0] and world.texts() == ["begun", "begun"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deferred_call_whose_client_has_gone(world, when):
    task = world.submit("Elsewhere")
    world.settle()
    if when == "before":
        world.machine.cancel(task)
        world.notes.resolves[0]("done")
        assert world.notes.cancelled == [True]
    else:
        world.notes.resolves[0]("done")
        world.machine.cancel(task)
        assert world.notes.cancelled == []
    world.settle()
    assert world.replies == [] and world.texts() == ["begun"]


def test_a_call_cancelled_before_its_tick_is_never_run(world):
    world.machine.cancel(world.submit("Write", text="a"))
    world.settle()
    assert world.texts() == [] and world.commits == 0


# -- loops ------------------------------------------------------------------------------------------------------------


def test_a_loop_runs_when_it_is_due_when_a_topic_wakes_it_and_when_it_is_told(world):
    loop = Counting(step=lambda ctx: ctx.now + 100)
    world.machine.add_loop(loop)
    world.settle()
    began = world.clock.now()
    world.advance(100)
    assert loop.steps == [began, began + 100]
    world.submit("Write", text="a", topic="tick")
    world.settle()
    world.machine.wake(loop)
    world.settle()
    assert len(loop.steps) == 4 and world.machine.wake_at() == world.clock.now() + 100


def test_a_loop_that_raises_is_undone_reported_and_tried_again_a_second_later(world):
    def step(ctx):
        ctx.db.run("INSERT INTO notes (text) VALUES ('loop')")
        if len(loop.steps) < 3:
            raise RuntimeError("not yet")

    loop = Counting("moody", step)
    world.machine.add_loop(loop)
    world.submit("Write", text="a")
    world.settle()
    began = world.clock.now()
    assert world.texts() == ["a"] and "loop moody" in world.defects[0] and "not yet" in world.defects[0]
    world.advance(0.9)
    assert len(loop.steps) == 1
    world.advance(5)
    assert loop.steps == [began, began + 1, began + 2]
    assert world.texts() == ["a", "loop"] and len(world.defects) == 2 and world.machine.wake_at() is None


# -- a full disk ------------------------------------------------------------------------------------------------------


def refuse(world, method, after=0):
    """Let a method of the database refuse once, after `after` calls that succeed."""
    genuine, calls = getattr(world.db, method), []

    def refusing(*values):
        calls.append(values)
        if len(calls) == after + 1:
            raise StoreFull("no room")
        return genuine(*values)

    setattr(world.db, method, refusing)


@pytest.mark.parametrize(("method", "after"), [("begin", 0), ("run", 1), ("commit", 0)])
def test_a_refusal_of_the_disk_turns_every_reply_of_the_tick_and_leaves_nothing(world, method, after):
    loop = Counting()
    world.machine.add_loop(loop)
    refuse(world, method, after)
    world.submit("Write", text="a")
    world.submit("Write", text="b", error=AwsError("Refused", "no", 409))
    world.submit("Await", name="w", seconds=10, count=99)
    world.submit("Elsewhere")
    world.submit("Write", text="c")
    world.machine.tick()
    codes = {str(output) for output in outputs(world.replies)}
    assert len(world.replies) == 5 and codes <= {"('ServiceUnavailable', 503)", "('Refused', 409)"}
    assert ("ServiceUnavailable", 503) in outputs(world.replies)
    assert world.texts() == [] and world.notes.resolves == [] and "a" not in world.notes.ran
    assert not world.db.in_transaction and not world.machine._waiting
    world.submit("Write", text="d")
    world.settle()
    assert world.texts() == ["d"] and outputs(world.replies)[-1] == {"text": "d"}
    steps = len(loop.steps)
    world.advance(1.1)
    assert len(loop.steps) > steps or method != "commit", "a loop that was taken back is run again"


def test_a_file_that_may_not_grow_is_felt_by_callers_as_503_and_passes(tmp_path):
    world = World(directory=tmp_path / "state")
    pages = world.db.value("PRAGMA page_count")
    world.db._execute(f"PRAGMA max_page_count = {pages + 20}")
    for number in range(100):
        world.submit("Write", text=f"{number}" + "x" * 2_000)
    world.machine.tick()
    assert set(outputs(world.replies)) == {("ServiceUnavailable", 503)} and world.texts() == []
    world.db._execute("PRAGMA max_page_count = 1000000")
    world.submit("Write", text="small")
    world.settle()
    assert world.texts() == ["small"]
    world.db.close()


# -- a herd -----------------------------------------------------------------------------------------------------------


def test_a_thousand_long_polls_and_one_message():
    herd = 1_000
    world = InProcess(build_sqs)
    url = world("sqs", "CreateQueue", QueueName="q")["QueueUrl"]
    replies = {}
    for number in range(herd):
        request = {"QueueUrl": url, "WaitTimeSeconds": 20}
        world.machine.submit("sqs", "ReceiveMessage", request, lambda reply, n=number: replies.update({n: reply}))
    world.settle()
    assert replies == {}
    gc.collect()
    began = time.perf_counter()
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="one")
    took = time.perf_counter() - began
    assert list(replies) == [0], "who has waited longest is served"
    assert took < 2.0
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="two")
    assert list(replies) == [0, 1]
    assert len(world.machine._timers) <= herd + 1
    world.advance(20)
    assert len(replies) == herd
    assert sum(len(reply.output.get("Messages", [])) for reply in replies.values()) == 2

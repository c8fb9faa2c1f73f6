"""What every event source does, whatever it is made of: one suite over queues and over streams of shards. Behind it,
what only streams do."""

import json
from dataclasses import replace

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.awslambda import repository
from preheat.services.awslambda.domain import Mapping, MappingConfig, StreamConfig
from preheat.triggers.shards import ShardSource
from preheat.triggers.sqs_source import SqsSource
from tests.support.functions import TriggerWorld
from tests.support.scripted_executor import Script
from tests.support.scripted_stream import ScriptedStream

STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"


class _Subject:
    """A world with one source; `put` adds records, `map` begins to read, `bodies` is what the function saw."""

    def _mapping(self, arn, config):
        world = self.world
        scope = world.scope
        self.mapping = Mapping(f"uuid-{len(arn)}", scope, arn, scope.arn("lambda", "function:f"), True, config,
                               world.clock.now())  # fmt: skip
        self.save()

    def save(self, **changes):
        """Store the mapping as it is, or with these changes."""
        self.mapping = replace(self.mapping, **changes)

        def write(ctx):
            repository.save_mapping(ctx.db, self.mapping)
            ctx.db.notify("lambda:mappings")
            self.world.functions.core.mapping_changes += 1
            return {}

        self.world.machine.perform(write, lambda reply: None)
        self.world.settle()

    def reconfigure(self, **changes):
        self.save(config=replace(self.mapping.config, **changes))

    def script(self, answer):
        self.world.executor.scripts["f"] = answer

    def restart(self):
        """A new process on the same state; what ran is forgotten."""
        self.world.db.close()
        self.world = TriggerWorld(directory=self.directory, seed=2, sources=self.sources())
        self.world.clock.move_to(self.now)

    @property
    def now(self):
        return self.world.clock.now()


class QueueSubject(_Subject):
    kind = "queue"

    def __init__(self, directory):
        self.directory = directory
        self.world = TriggerWorld(directory=directory)
        self.world.create()
        self.url, self.arn = self.world.queue("q", VisibilityTimeout="30")
        self.source = SqsSource()

    def sources(self):
        return None

    def put(self, *bodies):
        self.world.send(self.url, *bodies)

    def map(self, **config):
        self._mapping(self.arn, MappingConfig(**config))

    def bodies(self):
        return [[record["body"] for record in event["Records"]] for event in self.world.executor.events("f")]

    def failures(self, event, wanted):
        return [record["messageId"] for record in event["Records"] if record["body"] in wanted]

    def body(self, event):
        return event["Records"][0]["body"]

    def take_away(self):
        self.world("sqs", "DeleteQueue", QueueUrl=self.url)

    def bring_back(self):
        self.world.advance(60)
        self.world.queue("q", VisibilityTimeout="30")


class StreamSubject(_Subject):
    kind = "stream"

    def __init__(self, directory):
        self.directory = directory
        self.stream = ScriptedStream()
        self.world = TriggerWorld(directory=directory, sources=self.sources())
        self.world.create()
        self.source = ShardSource(self.stream)

    def sources(self):
        return {"kinesis": ShardSource(self.stream)}

    def put(self, *bodies, **where):
        for body in bodies:
            self.stream.put(self.world, body, **where)

    def map(self, stream=None, **config):
        self._mapping(STREAM, MappingConfig(stream=stream or StreamConfig(), **config))

    def bodies(self):
        return [[record["data"] for record in event["Records"]] for event in self.world.executor.events("f")]

    def failures(self, event, wanted):
        sequences = {record.data["data"]: record.sequence for shard in self.stream.shard_map.values()
                     for record in shard.records}  # fmt: skip
        return [sequences[record["data"]] for record in event["Records"] if record["data"] in wanted]

    def body(self, event):
        return event["Records"][0]["data"]

    def take_away(self):
        self.stream.gone = True

    def bring_back(self):
        self.stream.gone = False


@pytest.fixture(params=[QueueSubject, StreamSubject], ids=["sqs", "shards"])
def subject(request, tmp_path):
    subject = request.param(tmp_path)
    yield subject
    assert subject.world.defects == []
    subject.world.db.close()


@pytest.fixture
def stream(tmp_path):
    subject = StreamSubject(tmp_path)
    yield subject
    assert subject.world.defects == []
    subject.world.db.close()


def failing(subject, times, wanted=None):
    """A function that fails the first `times` batches (that hold a wanted body)."""
    left = [times]

    def answer(event):
        if left[0] and (wanted is None or subject.failures(event, wanted)):
            left[0] -= 1
            return Script(error="ValueError")
        return Script()

    return answer


# -- every source -----------------------------------------------------------------------------------------------------


def test_a_record_reaches_the_function_at_once_and_never_again(subject):
    subject.map()
    subject.put("a")
    assert subject.bodies() == [["a"]]
    subject.world.advance(7_200)
    assert subject.bodies() == [["a"]]


def test_records_that_waited_come_in_batches_and_in_full(subject):
    subject.put(*"abcdefg")
    subject.map(batch_size=3)
    subject.world.advance(1)
    seen = [body for batch in subject.bodies() for body in batch]
    assert sorted(seen) == list("abcdefg") and [len(batch) for batch in subject.bodies()] == [3, 3, 1]


def test_a_window_gathers_records(subject):
    subject.map(batch_size=100, window_s=10)
    subject.put("a")
    subject.world.advance(5)
    subject.put("b")
    assert subject.bodies() == []
    subject.world.advance(5.1)
    assert subject.bodies() == [["a", "b"]]


def test_what_failed_comes_back_until_it_is_done(subject):
    subject.script(failing(subject, 2))
    subject.map()
    subject.put("a")
    subject.world.advance(300)
    assert subject.bodies() == [["a"]] * 3


def test_reported_items_come_back_and_what_was_done_before_them_does_not(subject):
    left = [1]

    def answer(event):
        named = subject.failures(event, {"b"}) if left[0] else []
        left[0] = 0
        return Script(result={"batchItemFailures": [{"itemIdentifier": name} for name in named]})

    subject.script(answer)
    subject.put("a", "b")
    subject.map(report_item_failures=True)
    subject.world.advance(120)
    assert subject.bodies() == [["a", "b"], ["b"]]


@pytest.mark.parametrize("answer", [b"{not json", {"batchItemFailures": [{"itemIdentifier": "nobody"}]}, ["x"]])
def test_an_answer_that_cannot_be_read_fails_the_whole_batch(subject, answer):
    answers = [answer]
    subject.script(lambda event: Script(result=answers.pop() if answers else {"batchItemFailures": []}))
    subject.put("a", "b")
    subject.map(report_item_failures=True)
    subject.world.advance(120)
    assert subject.bodies() == [["a", "b"], ["a", "b"]]


def test_filters_decide(subject):
    field = "body" if subject.kind == "queue" else "data"
    subject.map(patterns=(json.dumps({field: {"kind": ["order"]}}),))
    subject.put('{"kind":"note"}', '{"kind":"order"}', "order")
    subject.world.advance(7_200)
    assert subject.bodies() == [['{"kind":"order"}']]


def test_a_throttled_batch_runs_when_there_is_room(subject):
    subject.world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    subject.map()
    subject.put("a")
    subject.world.advance(3)
    assert subject.bodies() == [] and subject.world.executor.refused > 0
    subject.world("lambda", "DeleteFunctionConcurrency", FunctionName="f")
    subject.world.advance(60)
    assert subject.bodies() == [["a"]]


def test_a_claim_that_is_taken_back_leaves_nothing_behind(subject):
    subject.put("a")
    subject.map(batch_size=2)
    subject.world.executor.started.clear()
    subject.put("b")
    subject.world.executor.started.clear()
    subject.save(enabled=False)
    subject.put("c")
    world, source = subject.world, subject.source
    spec = []

    def claim(ctx):
        prepared = source.prepare(subject.mapping)
        spec.append(world.functions.resolve(ctx, "f"))
        for lane in source.lanes(ctx, prepared):
            assert len(source.claim(ctx, prepared, lane, None, 2, spec[0]).items) == 1
            assert source.has_backlog(ctx, prepared) is (subject.kind == "stream")
        raise AwsError("Undone", "taken back")

    for _ in range(2):
        replies = []
        world.machine.perform(claim, replies.append)
        world.settle()
        assert replies[0].code == "Undone"
    subject.save(enabled=True)
    assert subject.bodies() == [["c"]]


def test_what_was_in_flight_in_a_dead_process_comes_back_and_what_was_done_does_not(subject):
    subject.map(batch_size=1)
    subject.put("done")
    subject.script(Script(seconds=20))
    subject.put("flying")
    assert subject.bodies() == [["done"], ["flying"]]
    subject.restart()
    subject.world.advance(60)
    assert subject.bodies() == [["flying"]]


def test_a_source_that_is_gone_is_told_once_and_read_again_when_it_is_back(subject):
    subject.map()
    subject.take_away()
    subject.save()
    subject.world.advance(30)
    assert [notice.kind for notice in subject.world.notices] == ["mapping-broken"]
    assert subject.world.functions.core.mapping_results[subject.mapping.uuid].startswith("PROBLEM: ")
    subject.bring_back()
    subject.put("a")
    subject.world.advance(10)
    assert subject.bodies() == [["a"]]


def test_a_disabled_mapping_reads_nothing_and_goes_on_where_it_was(subject):
    subject.map(batch_size=1)
    subject.put("a")
    subject.save(enabled=False)
    subject.put("b")
    subject.world.advance(600)
    assert subject.bodies() == [["a"]]
    subject.save(enabled=True)
    subject.world.advance(1)
    assert subject.bodies() == [["a"], ["b"]]


def test_the_function_may_be_changed_while_it_reads(subject):
    subject.map(batch_size=1)
    subject.world.create("g")
    subject.save(function_arn=subject.world.scope.arn("lambda", "function:g"))
    subject.put("a")
    assert subject.bodies() == [] and len(subject.world.executor.events("g")) == 1


# -- streams ----------------------------------------------------------------------------------------------------------


def keep(subject):
    """The sequence of bodies the function saw, flat."""
    return [body for batch in subject.bodies() for body in batch]


def test_one_batch_of_a_shard_runs_at_a_time_and_shards_run_beside_each_other(stream):
    stream.stream.split("shard-0", "left", "right")
    stream.script(Script(seconds=5))
    stream.map(batch_size=1)
    stream.put("l1", "l2", shard="left")
    stream.put("r1", shard="right")
    assert sorted(keep(stream)) == ["l1", "r1"] and stream.world.executor.peak["f"] == 2
    stream.world.advance(6)
    assert keep(stream)[2:] == ["l2"]


def test_a_failure_blocks_its_shard_and_order_holds(stream):
    stream.script(failing(stream, 3, {"2"}))
    stream.map(batch_size=1)
    stream.put(*"123")
    stream.world.advance(300)
    assert keep(stream) == ["1", "2", "2", "2", "2", "3"]
    times = [call.request_id for call in stream.world.executor.started]
    assert len(set(times)) == 6


def test_children_are_read_after_their_parents_end(stream):
    stream.script(failing(stream, 2, {"p2"}))
    stream.map(batch_size=1)
    stream.put("p1", "p2")
    stream.stream.split("shard-0", "child")
    stream.put("c1", shard="child")
    assert keep(stream) == ["p1", "p2"]
    stream.world.advance(60)
    assert keep(stream) == ["p1", "p2", "p2", "p2", "c1"]


def test_a_parent_whose_last_records_are_filtered_out_does_not_hold_up_its_child(stream):
    stream.map(patterns=('{"data": ["yes"]}',))
    stream.put("yes", "no")
    stream.stream.split("shard-0", "child")
    stream.put("yes", shard="child")
    stream.world.advance(1)
    assert keep(stream) == ["yes", "yes"]


def test_retries_end_and_the_destination_is_told(stream):
    _, dead = stream.world.queue("failures")
    stream.script(failing(stream, 99, {"bad"}))
    stream.map(StreamConfig(max_retries=2, on_failure=dead), batch_size=1)
    stream.put("bad", "good")
    stream.world.advance(120)
    assert keep(stream) == ["bad"] * 3 + ["good"]
    url = stream.world("sqs", "GetQueueUrl", QueueName="failures")["QueueUrl"]
    (message,) = stream.world.receive(url)
    document = json.loads(message["Body"])
    assert document["requestContext"] == {
        "requestId": stream.world.executor.started[2].request_id, "condition": "RetryAttemptsExhausted",
        "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:f", "approximateInvokeCount": 3,
    }  # fmt: skip
    assert document["responseContext"] == {
        "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"
    }  # fmt: skip
    info = document["KinesisBatchInfo"]
    assert info["shardId"] == "shard-0" and info["batchSize"] == 1 and info["streamArn"] == STREAM
    assert info["startSequenceNumber"] == info["endSequenceNumber"] == f"{1:020d}"
    assert set(document) == {"requestContext", "responseContext", "version", "timestamp", "KinesisBatchInfo"}


def test_throttles_do_not_use_up_retries(stream):
    stream.world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    stream.map(StreamConfig(max_retries=0), batch_size=1)
    stream.put("a")
    stream.world.advance(3_600)
    assert keep(stream) == [] and stream.world.executor.refused > 5
    stream.world("lambda", "DeleteFunctionConcurrency", FunctionName="f")
    stream.world.advance(60)
    assert keep(stream) == ["a"]


def test_records_that_are_too_old_are_given_up(stream):
    _, dead = stream.world.queue("failures")
    stream.script(failing(stream, 99, {"old"}))
    stream.map(StreamConfig(max_age_s=60, on_failure=dead), batch_size=2)
    stream.put("old")
    stream.world.advance(50)
    stream.put("young")
    stream.world.advance(30)
    assert keep(stream)[-1] == "young" and keep(stream).count("young") == 1
    url = stream.world("sqs", "GetQueueUrl", QueueName="failures")["QueueUrl"]
    (message,) = stream.world.receive(url)
    document = json.loads(message["Body"])
    assert document["requestContext"]["condition"] == "RecordAgeExceeded" and "responseContext" not in document
    attempts = document["requestContext"]["approximateInvokeCount"]
    assert attempts == keep(stream).count("old") >= 5
    stream.world.advance(3_600)
    assert keep(stream).count("old") == attempts


def test_bisecting_finds_the_bad_record_without_using_up_retries(stream):
    _, dead = stream.world.queue("failures")
    stream.script(failing(stream, 99, {"d"}))
    stream.put(*"abcdefgh")
    stream.map(StreamConfig(max_retries=1, bisect=True, on_failure=dead), batch_size=8)
    stream.world.advance(300)
    done = [body for batch in stream.bodies() for body in batch if "d" not in batch]
    assert done == list("abcefgh")
    assert [batch for batch in stream.bodies() if "d" in batch] == [
        list("abcdefgh"), list("abcd"), list("cd"), ["d"], ["d"]
    ]  # fmt: skip
    url = stream.world("sqs", "GetQueueUrl", QueueName="failures")["QueueUrl"]
    (message,) = stream.world.receive(url)
    assert json.loads(message["Body"])["KinesisBatchInfo"]["batchSize"] == 1


def test_the_lowest_reported_item_is_where_the_retry_begins(stream):
    answers = [["c", "b"]]

    def answer(event):
        named = stream.failures(event, answers.pop()) if answers else []
        return Script(result={"batchItemFailures": [{"itemIdentifier": name} for name in reversed(named)]})

    stream.script(answer)
    stream.put(*"abcd")
    stream.map(report_item_failures=True)
    stream.world.advance(60)
    assert stream.bodies() == [list("abcd"), list("bcd")]


def test_bisecting_at_the_reported_item_uses_up_no_retry(stream):
    def answer(event):
        named = stream.failures(event, {"c"})
        return Script(result={"batchItemFailures": [{"itemIdentifier": name} for name in named]})

    stream.script(answer)
    stream.put(*"abcd")
    stream.map(StreamConfig(bisect=True, max_retries=1), report_item_failures=True)
    stream.put("e")
    stream.world.advance(60)
    assert stream.bodies() == [list("abcd"), list("cd"), list("cd"), ["e"]]


def test_parallel_parts_keep_the_order_of_each_key(stream):
    stream.script(Script(seconds=1))
    stream.map(StreamConfig(parallelization=4), batch_size=1)
    for number in range(5):
        for key in "abcdefgh":
            stream.put(f"{key}{number}", key=key)
    stream.world.advance(120)
    seen = keep(stream)
    assert sorted(seen) == sorted(f"{key}{number}" for key in "abcdefgh" for number in range(5))
    for key in "abcdefgh":
        assert [body for body in seen if body[0] == key] == [f"{key}{number}" for number in range(5)]
    assert 1 < stream.world.executor.peak["f"] <= 4


def test_changing_the_parallelization_loses_nothing(stream):
    stream.map(StreamConfig(parallelization=1), batch_size=1)
    stream.put(*"abc", key="k")
    stream.reconfigure(stream=StreamConfig(parallelization=5))
    stream.put("d", key="k")
    stream.put("e", key="other")
    stream.reconfigure(stream=StreamConfig(parallelization=2))
    stream.put("f", key="k")
    stream.world.advance(10)
    assert keep(stream)[:3] == list("abc") and set(keep(stream)) == set("abcdef")


@pytest.mark.parametrize(("position", "expected"), [("TRIM_HORIZON", "abc"), ("LATEST", "c"), ("AT_TIMESTAMP", "bc")])
def test_where_reading_starts(stream, position, expected):
    stream.put("a")
    stream.world.advance(10)
    moment = stream.now
    stream.put("b")
    stream.map(StreamConfig(starting_position=position, starting_at=moment))
    stream.put("c")
    assert keep(stream) == list(expected)


def test_a_poisoned_batch_runs_under_the_function_that_was_put_right(stream):
    stream.script(failing(stream, 99))
    stream.map(batch_size=1)
    stream.put("a")
    stream.world.advance(5)
    assert stream.world.functions.core.mapping_results[stream.mapping.uuid] == "PROBLEM: Function call failed"
    first = stream.world.executor.started[0].spec.revision
    stream.world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=9)
    stream.script(Script())
    stream.world.advance(60)
    assert stream.world.executor.started[-1].spec.revision != first
    assert stream.world.functions.core.mapping_results[stream.mapping.uuid] == "OK"

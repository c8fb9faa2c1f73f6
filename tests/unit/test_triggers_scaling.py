"""Event source mappings over SQS: how they scale, keep the order of groups, warn of throttles, count and report."""

import json

import pytest

from preheat.services import findings
from tests.support.functions import TriggerWorld
from tests.support.scripted_executor import Script


def bodies(world, name="f"):
    return [[record["body"] for record in event["Records"]] for event in world.executor.events(name)]


@pytest.fixture
def world():
    world = TriggerWorld()
    world.create()
    yield world
    assert world.defects == []


# -- scaling ----------------------------------------------------------------------------------------------------------


def flood(world, url, count):
    for start in range(0, count, 10):
        entries = [{"Id": str(number), "MessageBody": str(start + number)} for number in range(10)]
        world("sqs", "SendMessageBatch", QueueUrl=url, Entries=entries)


def test_concurrency_ends_at_twelve_hundred_and_fifty():
    world = TriggerWorld(limit=2_000)
    world.create()
    url, arn = world.queue("q", VisibilityTimeout="43200")
    world.executor.scripts["f"] = Script(seconds=40_000)
    flood(world, url, 1_400)
    uuid = world.map(arn, BatchSize=1)
    world.advance(240)
    assert world.poller.concurrency(uuid) == (1_205, 1_205)
    world.advance(600)
    assert world.poller.concurrency(uuid) == (1_250, 1_250) and world.executor.refused == 0


def test_an_idle_mapping_falls_back_to_five_and_later_to_two_unless_its_concurrency_is_set(world):
    plain, plain_arn = world.queue("plain")
    held, held_arn = world.queue("held")
    uuids = [world.map(plain_arn), world.map(held_arn, ScalingConfig={"MaximumConcurrency": 50})]
    allowed = []
    for seconds in (30, 60, 900):
        world.advance(seconds)
        world.send(plain, "a")
        world.send(held, "a")
        allowed.append([world.poller.concurrency(uuid)[1] for uuid in uuids])
    assert allowed == [[5, 5], [5, 5], [2, 5]]


def test_changing_the_concurrency_while_running_acts_at_once(world):
    url, arn = world.queue("q", VisibilityTimeout="3600")
    world.executor.scripts["f"] = Script(seconds=30)
    flood(world, url, 100)
    uuid = world.map(arn, BatchSize=1)
    world.advance(2)
    assert world.poller.concurrency(uuid) == (15, 15)
    world("lambda", "UpdateEventSourceMapping", UUID=uuid, ScalingConfig={"MaximumConcurrency": 3})
    world.advance(40)
    assert world.poller.concurrency(uuid) == (3, 3)
    answer = world("lambda", "UpdateEventSourceMapping", UUID=uuid, ScalingConfig={})
    assert "ScalingConfig" not in answer
    world.advance(2)
    assert world.poller.concurrency(uuid)[0] > 8


def test_provisioned_pollers_start_with_ten_batches_each_and_grow_by_a_thousand_a_minute(world):
    url, arn = world.queue("q", VisibilityTimeout="43200")
    world.executor.scripts["f"] = Script(seconds=40_000)
    flood(world, url, 500)
    uuid = world.map(arn, BatchSize=1, ProvisionedPollerConfig={"MinimumPollers": 3, "MaximumPollers": 20})
    world.advance(2)
    assert 60 <= world.poller.concurrency(uuid)[0] <= 65
    world.advance(60)
    assert world.poller.concurrency(uuid) == (200, 200)
    answer = world("lambda", "GetEventSourceMapping", UUID=uuid)
    assert answer["ProvisionedPollerConfig"] == {"MinimumPollers": 3, "MaximumPollers": 20}


def test_a_provisioned_poller_polls_ten_times_a_second(world):
    url, arn = world.queue("q", VisibilityTimeout="3600")
    flood(world, url, 200)
    world.map(arn, BatchSize=1, ProvisionedPollerConfig={"MinimumPollers": 2, "MaximumPollers": 2})
    assert len(world.executor.started) == 20
    world.advance(1)
    assert len(world.executor.started) == 40
    world.advance(2)
    assert len(world.executor.started) == 80


def test_a_provisioned_poller_takes_a_megabyte_a_second(world):
    url, arn = world.queue("q", VisibilityTimeout="3600")
    world.send(url, *["x" * 1_000_000 for _ in range(12)])
    world.map(arn, BatchSize=1, ProvisionedPollerConfig={"MinimumPollers": 2, "MaximumPollers": 2})
    assert len(world.executor.started) == 2
    world.advance(2)
    assert 5 <= len(world.executor.started) <= 7


def test_provisioned_mode_can_be_left_for_maximum_concurrency(world):
    url, arn = world.queue("q", VisibilityTimeout="3600")
    world.executor.scripts["f"] = Script(seconds=30)
    uuid = world.map(arn, BatchSize=1, ProvisionedPollerConfig={"MinimumPollers": 4})
    assert world.poller.concurrency(uuid)[1] == 40
    answer = world(
        "lambda", "UpdateEventSourceMapping", UUID=uuid, ProvisionedPollerConfig={},
        ScalingConfig={"MaximumConcurrency": 4},
    )  # fmt: skip
    assert "ProvisionedPollerConfig" not in answer
    flood(world, url, 20)
    assert world.poller.concurrency(uuid) == (4, 4)


# -- order in FIFO queues ---------------------------------------------------------------------------------------------


def fifo(world, **params):
    return world.queue("q.fifo", FifoQueue="true", ContentBasedDeduplication="true", **params)


def put(world, url, *pairs):
    for group, body in pairs:
        world("sqs", "SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId=group)


def test_fifo_groups_run_beside_each_other_and_a_batch_may_mix_them(world):
    url, arn = fifo(world, VisibilityTimeout="60")
    world.executor.scripts["f"] = Script(seconds=5)
    put(world, url, ("a", "a1"), ("b", "b1"), ("c", "c1"))
    world.map(arn, BatchSize=1)
    assert world.executor.peak["f"] == 3
    world.advance(6)
    world("lambda", "DeleteEventSourceMapping", UUID=world("lambda", "ListEventSourceMappings")[
        "EventSourceMappings"][0]["UUID"])  # fmt: skip
    put(world, url, ("a", "a2"), ("b", "b2"))
    world.map(arn, BatchSize=10)
    assert sorted(bodies(world)[-1]) == ["a2", "b2"]


def test_a_group_that_is_cut_in_two_by_size_still_runs_in_order(world):
    url, arn = fifo(world, VisibilityTimeout="60")
    world.executor.scripts["f"] = Script(seconds=5)
    put(world, url, *[("g", f"{number}" + "x" * 1_000_000) for number in range(9)])
    world.map(arn, BatchSize=10)
    assert [len(batch) for batch in bodies(world)] == [6]
    world.advance(2)
    put(world, url, ("h", "other"))
    assert [len(batch) for batch in bodies(world)] == [6, 1]
    world.advance(6)
    order = [body[0] for batch in bodies(world) for body in batch if body != "other"]
    assert order == list("012345678") and world.executor.peak["f"] == 2


def test_what_is_behind_a_failure_in_its_group_waits_although_it_was_received(world):
    url, arn = fifo(world, VisibilityTimeout="30")
    world.executor.scripts["f"] = lambda event: Script(error=None if len(world.executor.started) else "ValueError")
    put(world, url, *[("g", f"{number}" + "x" * 1_000_000) for number in range(9)])
    world.map(arn, BatchSize=10)
    world.advance(29)
    assert len(world.executor.started) == 1
    world.advance(30)
    assert [[body[0] for body in batch] for batch in bodies(world)] == [
        list("012345"), list("012345"), list("678")
    ]  # fmt: skip


def test_a_partial_failure_in_a_group_keeps_the_rest_of_it_in_order(world):
    url, arn = fifo(world, VisibilityTimeout="20")

    def answer(event):
        if len(world.executor.started) > 0:
            return Script(result={"batchItemFailures": []})
        names = [record["messageId"] for record in event["Records"]]
        return Script(result={"batchItemFailures": [{"itemIdentifier": name} for name in names[1:]]})

    world.executor.scripts["f"] = answer
    put(world, url, ("g", "1"), ("g", "2"), ("g", "3"))
    world.map(arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    put(world, url, ("g", "4"), ("h", "other"))
    assert bodies(world) == [["1", "2", "3"], ["other"]] or bodies(world)[:2] == [["1"], ["2"]]
    world.advance(60)
    order = [body for batch in bodies(world) for body in batch if body != "other"]
    assert [body for index, body in enumerate(order) if body not in order[index + 1 :]] == ["1", "2", "3", "4"]
    assert world.counts(url) == (0, 0, 0)


# -- the trap, and what is said about it ------------------------------------------------------------------------------


def found(world, kind=None):
    every = findings.everything(world.db)
    return [finding for finding in every if kind in (None, finding["kind"])]


def trap(world, receives=2, **params):
    dead, dead_arn = world.queue("dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": receives})
    url, arn = world.queue("q", VisibilityTimeout="30", RedrivePolicy=redrive)
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=2)
    world.executor.scripts["f"] = Script(seconds=8)
    uuid = world.map(arn, BatchSize=1, **params)
    flood(world, url, 40)
    return url, dead, uuid


def metrics(world):
    return {
        (series.namespace, series.name, dict(series.dimensions).get("FunctionName")): sample.total
        for (series, _), sample in _merged(world.machine.meter.take()).items()
    }


def _merged(samples):
    merged = {}
    for (series, _), sample in samples.items():
        known = merged.setdefault((series, 0), sample)
        if known is not sample:
            known.total += sample.total
    return merged


def test_the_trap_valid_messages_reach_the_dead_letter_queue_and_it_is_said(world):
    url, dead, uuid = trap(world)
    world.advance(1_200)
    lost = world.counts(dead)[0]
    assert lost > 0 and world.counts(url) == (0, 0, 0) and world.executor.peak["f"] == 2
    ran = {body for batch in bodies(world) for body in batch}
    never_ran = [body for body in map(str, range(40)) if body not in ran]
    assert len(never_ran) == lost

    (finding,) = found(world, "esm-throttled")
    assert finding["severity"] == "high" and finding["subject"].endswith(uuid)
    assert finding["settings"] == {"ReservedConcurrentExecutions": 2, "ScalingConfig.MaximumConcurrency": None}
    assert finding["tally"]["MessagesLostToDeadLetterQueue"] == lost
    assert finding["tally"]["ReceivesUsedUpByThrottles"] >= 2 * lost
    assert finding["count"] > 1 and finding["first_seen"] < finding["last_seen"]
    (notice,) = [notice for notice in world.notices if notice.kind == "throttled-trigger"]
    assert "ReservedConcurrentExecutions (2)" in notice.text and "MaximumConcurrency is not set" in notice.text
    measured = metrics(world)
    assert measured["Preheat", "EventSourceThrottles", "f"] == world.executor.refused
    assert measured["Preheat", "ThrottledMessagesDeadLettered", "f"] == lost


def test_each_throttled_batch_keeps_its_own_pauses_also_when_another_gets_in(world):
    url, arn = world.queue("q", VisibilityTimeout="60")
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=1)
    began, start = [], world.clock.now()

    def script(event):
        began.append((event["Records"][0]["body"], round(world.clock.now() - start, 1)))
        return Script(seconds=2)

    world.executor.scripts["f"] = script
    world.map(arn, BatchSize=1)
    for number in range(3):
        world.send(url, str(number))
        world.advance(0.1)
    world.advance(20)
    assert began == [("0", 0.0), ("1", 3.1), ("2", 7.2)] and world.executor.refused == 5


def test_with_maximum_concurrency_the_trap_does_not_close(world):
    url, dead, _ = trap(world, ScalingConfig={"MaximumConcurrency": 2})
    world.advance(1_200)
    assert world.counts(dead) == (0, 0, 0) and world.counts(url) == (0, 0, 0)
    assert world.executor.refused == 0 and len(world.executor.started) == 40
    assert found(world, "esm-throttled") == [] and found(world, "esm-reserved-concurrency") == []


def test_a_mapping_that_can_run_more_than_is_reserved_is_found_before_it_hurts(world):
    _, arn = world.queue("q", VisibilityTimeout="30")
    uuid = world.map(arn)
    assert found(world) == []
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=5)
    (finding,) = found(world)
    assert finding["kind"] == "esm-reserved-concurrency" and finding["severity"] == "medium"
    assert "1250" in finding["text"] and finding["settings"]["ReservedConcurrentExecutions"] == 5
    world("lambda", "UpdateEventSourceMapping", UUID=uuid, ScalingConfig={"MaximumConcurrency": 5})
    assert found(world) == []
    _, other = world.queue("other", VisibilityTimeout="30")
    world.map(other, ScalingConfig={"MaximumConcurrency": 2})
    assert [finding["kind"] for finding in found(world)] == ["esm-reserved-concurrency"] * 2
    world("lambda", "DeleteFunctionConcurrency", FunctionName="f")
    assert found(world) == []


def test_visibility_and_receive_counts_that_are_tight_are_found(world):
    _, dead_arn = world.queue("dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 3})
    url, arn = world.queue("q", VisibilityTimeout="17", RedrivePolicy=redrive)
    uuid = world.map(arn)
    assert [(one["kind"], one["severity"]) for one in found(world)] == [
        ("esm-receive-count", "low"), ("esm-visibility-timeout", "low")
    ]  # fmt: skip
    better = {"VisibilityTimeout": "18", "RedrivePolicy": redrive.replace("3}", "5}")}
    world("sqs", "SetQueueAttributes", QueueUrl=url, Attributes=better)
    world.advance(61)
    world.send(url, "work")
    assert found(world) == []
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=60)
    world.advance(61)
    world.send(url, "work")
    (finding,) = found(world)
    assert finding["kind"] == "esm-visibility-timeout" and finding["severity"] == "high"
    world("lambda", "DeleteEventSourceMapping", UUID=uuid)
    assert found(world) == []


def test_a_finding_outlives_the_process(tmp_path):
    world = TriggerWorld(directory=tmp_path)
    world.create()
    trap(world)
    world.advance(100)
    before = found(world)
    world.db.close()
    again = TriggerWorld(directory=tmp_path, seed=2)
    assert found(again) == before != []
    again.db.close()


# -- metrics and state ------------------------------------------------------------------------------------------------


def test_event_counts_are_measured_when_they_are_asked_for(world):
    url, arn = world.queue("q", VisibilityTimeout="30")

    def answer(event):
        bad = [record["messageId"] for record in event["Records"] if record["body"] == "bad"]
        return Script(result={"batchItemFailures": [{"itemIdentifier": name} for name in bad]})

    world.executor.scripts["f"] = answer
    world.send(url, "good", "bad", "noise", "fine")
    uuid = world.map(
        arn, FunctionResponseTypes=["ReportBatchItemFailures"], MetricsConfig={"Metrics": ["EventCount"]},
        FilterCriteria={"Filters": [{"Pattern": '{"body": [{"anything-but": "noise"}]}'}]},
    )  # fmt: skip
    taken = world.machine.meter.take()
    assert {(series.namespace, dict(series.dimensions)["EventSourceMappingUUID"]) for series, _ in taken} == {
        ("AWS/Lambda", uuid)
    }
    assert {series.name: sample.total for (series, _), sample in taken.items()} == {
        "PolledEventCount": 4, "FilteredOutEventCount": 1, "InvokedEventCount": 3, "FailedInvokeEventCount": 1,
        "DeletedEventCount": 3,
    }  # fmt: skip
    world("lambda", "UpdateEventSourceMapping", UUID=uuid, MetricsConfig={"Metrics": []})
    world.send(url, "more")
    assert world.machine.meter.take() == {}


def test_states_and_results(world):
    url, arn = world.queue("q")
    created = world("lambda", "CreateEventSourceMapping", EventSourceArn=arn, FunctionName="f", Enabled=False)
    uuid = created["UUID"]
    get = lambda: world("lambda", "GetEventSourceMapping", UUID=uuid)  # noqa: E731
    assert created["State"] == "Disabled" and created["StateTransitionReason"] == "USER_INITIATED"
    assert get()["State"] == "Disabled" and "LastProcessingResult" not in get()
    assert world("lambda", "UpdateEventSourceMapping", UUID=uuid, Enabled=True)["State"] == "Enabling"
    assert get()["State"] == "Enabled"
    assert world("lambda", "UpdateEventSourceMapping", UUID=uuid, BatchSize=3)["State"] == "Updating"
    world("sqs", "DeleteQueue", QueueUrl=url)
    world.advance(1)
    assert get()["LastProcessingResult"].startswith("PROBLEM: ")
    world.advance(60)
    world.queue("q")
    world.advance(6)
    assert "LastProcessingResult" not in get()
    assert world("lambda", "UpdateEventSourceMapping", UUID=uuid, Enabled=False)["State"] == "Disabling"
    assert world("lambda", "DeleteEventSourceMapping", UUID=uuid)["State"] == "Deleting"

"""Event source mappings over SQS, on the test's clock."""

import json

import pytest

from preheat.kernel.errors import AwsError
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


def test_a_message_reaches_the_function_at_once_and_is_deleted(world):
    url, arn = world.queue("q")
    world.map(arn)
    began = world.clock.now()
    world.send(url, "hello")
    assert world.clock.now() == began
    assert bodies(world) == [["hello"]]
    assert world.counts(url) == (0, 0, 0)


def test_the_record_has_the_shape_of_aws(world):
    url, arn = world.queue("q")
    world.map(arn)
    attributes = {
        "text": {"DataType": "String", "StringValue": "v"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
    }
    world.send(url, "hello", MessageAttributes=attributes)
    (record,) = world.executor.events()[0]["Records"]
    assert set(record) == {
        "messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfBody", "md5OfMessageAttributes",
        "eventSource", "eventSourceARN", "awsRegion",
    }  # fmt: skip
    assert record["md5OfBody"] == "5d41402abc4b2a76b9719d911017c592"
    assert record["eventSource"] == "aws:sqs" and record["eventSourceARN"] == arn and record["awsRegion"] == "us-east-1"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["attributes"]["SentTimestamp"] == str(int(world.clock.now() * 1000))
    assert {"SenderId", "ApproximateFirstReceiveTimestamp"} <= set(record["attributes"])
    assert record["messageAttributes"]["text"] == {
        "stringValue": "v", "stringListValues": [], "binaryListValues": [], "dataType": "String",
    }  # fmt: skip
    assert record["messageAttributes"]["raw"]["binaryValue"] == "AAE="
    call = world.executor.started[0]
    assert call.invoked_arn == "arn:aws:lambda:us-east-1:000000000000:function:f" and len(call.request_id) == 36


def test_waiting_messages_are_taken_in_batches(world):
    url, arn = world.queue("q")
    world.send(url, *"abcdefg")
    world.map(arn, BatchSize=3)
    assert [len(batch) for batch in bodies(world)] == [3, 3, 1]


def test_a_window_collects_messages_until_it_has_passed(world):
    url, arn = world.queue("q", VisibilityTimeout="60")
    world.map(arn, BatchSize=100, MaximumBatchingWindowInSeconds=10)
    began = world.clock.now()
    world.send(url, "a")
    world.advance(4)
    world.send(url, "b")
    world.advance(5.9)
    assert bodies(world) == []
    world.advance(0.2)
    assert bodies(world) == [["a", "b"]]
    assert world.clock.now() == pytest.approx(began + 10.1)
    assert world.counts(url) == (0, 0, 0)


def test_a_full_batch_does_not_wait_for_its_window(world):
    url, arn = world.queue("q", VisibilityTimeout="600")
    world.map(arn, BatchSize=25, MaximumBatchingWindowInSeconds=300)
    world.send(url, *[str(number) for number in range(30)])
    assert [len(batch) for batch in bodies(world)] == [25]
    world.advance(301)
    assert [len(batch) for batch in bodies(world)] == [25, 5]


def test_a_window_longer_than_the_visibility_timeout_stretches_it(world):
    url, arn = world.queue("q", VisibilityTimeout="30")
    world.map(arn, BatchSize=100, MaximumBatchingWindowInSeconds=60)
    world.send(url, "a")
    world.advance(59)
    assert world.counts(url) == (0, 1, 0) and bodies(world) == []
    world.advance(2)
    assert bodies(world) == [["a"]] and world.counts(url) == (0, 0, 0)


def test_a_batch_is_cut_at_six_megabytes(world):
    url, arn = world.queue("q")
    world.send(url, *["x" * 1_000_000 for _ in range(10)])
    world.map(arn, BatchSize=10)
    sizes = [len(call.payload) for call in world.executor.started]
    assert [len(event["Records"]) for event in world.executor.events()] == [6, 4]
    assert max(sizes) <= 6 * 1024 * 1024
    assert world.counts(url) == (0, 0, 0)


def test_what_waited_too_long_in_the_buffer_is_not_run_from_there(world):
    url, arn = world.queue("q", VisibilityTimeout="30")
    world.executor.scripts["f"] = Script(seconds=100)
    uuid = world.map(arn, ScalingConfig={"MaximumConcurrency": 2})
    world.send(url, "first")
    world("lambda", "UpdateEventSourceMapping", UUID=uuid, Enabled=False)
    world.send(url, *[f"{number}" + "x" * 1_000_000 for number in range(10)])
    world("lambda", "UpdateEventSourceMapping", UUID=uuid, Enabled=True)
    assert [len(batch) for batch in bodies(world)] == [1, 6]
    world.executor.scripts["f"] = Script(seconds=1)
    world.advance(120)
    delivered = [body[0] for batch in bodies(world) for body in batch]
    assert [delivered.count(str(number)) for number in range(6, 10)] == [1, 1, 1, 1]
    assert world.counts(url) == (0, 0, 0)


def test_a_failed_batch_comes_back_after_the_visibility_timeout(world):
    url, arn = world.queue("q", VisibilityTimeout="40")
    world.executor.scripts["f"] = Script(error="ValueError")
    world.map(arn)
    world.send(url, "a")
    world.advance(39)
    assert len(world.executor.started) == 1 and world.counts(url) == (0, 1, 0)
    world.executor.scripts["f"] = Script()
    world.advance(1)
    assert len(world.executor.started) == 2
    assert world.executor.events()[1]["Records"][0]["attributes"]["ApproximateReceiveCount"] == "2"
    assert world.counts(url) == (0, 0, 0)


def test_a_message_that_always_fails_ends_in_the_dead_letter_queue(world):
    dead, dead_arn = world.queue("dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 3})
    url, arn = world.queue("q", VisibilityTimeout="10", RedrivePolicy=redrive)
    world.executor.scripts["f"] = Script(error="ValueError")
    world.map(arn)
    world.send(url, "poison")
    world.advance(60)
    assert len(world.executor.started) == 3
    assert world.counts(url) == (0, 0, 0) and world.counts(dead) == (1, 0, 0)


def test_reported_items_stay_and_the_others_are_deleted(world):
    def answer(event):
        failed = [record["messageId"] for record in event["Records"] if record["body"] == "bad"]
        return Script(result={"batchItemFailures": [{"itemIdentifier": name} for name in failed]})

    url, arn = world.queue("q", VisibilityTimeout="30")
    world.executor.scripts["f"] = answer
    world.send(url, "good", "bad", "fine")
    world.map(arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    assert world.counts(url) == (0, 1, 0)
    world.advance(30)
    assert bodies(world) == [["good", "bad", "fine"], ["bad"]]


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (None, 0), ({}, 0), ({"batchItemFailures": []}, 0), ({"batchItemFailures": None}, 0), (b"", 0), ("", 0),
        ({"statusCode": 200}, 0),
        (b"{not json", 2), ({"batchItemFailures": [{"itemIdentifier": ""}]}, 2), (["x"], 2),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, 2), ({"batchItemFailures": [{"foo": "bar"}]}, 2),
        ({"batchItemFailures": [{"itemIdentifier": "unknown"}]}, 2), ({"batchItemFailures": "all"}, 2),
        ({"batchItemFailures": [{"itemIdentifier": ["x"]}]}, 2), ({"batchItemFailures": ["x"]}, 2),
    ],
)  # fmt: skip
def test_what_an_answer_with_item_failures_means(world, result, kept):
    url, arn = world.queue("q")
    world.executor.scripts["f"] = Script(result=result)
    world.send(url, "a", "b")
    world.map(arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    assert world.counts(url) == (0, kept, 0)


def test_without_the_flag_an_answer_is_not_read(world):
    url, arn = world.queue("q")
    world.executor.scripts["f"] = Script(result={"batchItemFailures": [{"itemIdentifier": "unknown"}]})
    world.map(arn)
    world.send(url, "a")
    assert world.counts(url) == (0, 0, 0)


def test_five_batches_run_at_first_and_three_hundred_more_a_minute(world):
    url, arn = world.queue("q", VisibilityTimeout="3600")
    world.executor.scripts["f"] = Script(seconds=900)
    for _ in range(70):
        entries = [{"Id": str(number), "MessageBody": "x"} for number in range(10)]
        world("sqs", "SendMessageBatch", QueueUrl=url, Entries=entries)
    uuid = world.map(arn, BatchSize=1)
    assert world.poller.concurrency(uuid) == (5, 5)
    world.advance(30)
    assert world.poller.concurrency(uuid) == (155, 155)
    world.advance(30)
    assert world.poller.concurrency(uuid) == (305, 305)
    world.advance(600)
    assert len(world.executor.started) == 700


def test_concurrency_does_not_grow_without_a_backlog_and_falls_back_when_idle(world):
    url, arn = world.queue("q", VisibilityTimeout="3600")
    world.executor.scripts["f"] = Script(seconds=10)
    world.send(url, *[str(number) for number in range(40)])
    uuid = world.map(arn, BatchSize=1)
    world.advance(5)
    assert world.poller.concurrency(uuid)[1] == 30
    world.advance(20)
    grown = world.poller.concurrency(uuid)[1]
    assert len(world.executor.started) == 40 and grown < 41
    world.advance(120)
    world.send(url, *[str(number) for number in range(20)])
    assert world.poller.concurrency(uuid) == (5, 5)


def test_maximum_concurrency_is_a_ceiling(world):
    url, arn = world.queue("q", VisibilityTimeout="3600")
    world.executor.scripts["f"] = Script(seconds=5)
    world.send(url, *[str(number) for number in range(40)])
    world.map(arn, BatchSize=1, ScalingConfig={"MaximumConcurrency": 8})
    world.advance(120)
    assert world.executor.peak["f"] == 8
    assert len(world.executor.started) == 40 and world.counts(url) == (0, 0, 0)
    assert world.executor.refused == 0


def test_a_throttled_batch_is_tried_again_and_comes_back_with_a_receive_used_up(world):
    dead, dead_arn = world.queue("dead")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    url, arn = world.queue("q", VisibilityTimeout="30", RedrivePolicy=redrive)
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    uuid = world.map(arn)
    world.send(url, "valid")
    world.advance(29)
    assert world.executor.refused > 1 and world.counts(url) == (0, 1, 0)
    world.advance(2)
    assert world.counts(url) == (0, 1, 0)
    world.advance(60)
    assert world.executor.started == [] and world.counts(dead) == (1, 0, 0)
    assert world.poller.concurrency(uuid)[0] == 0
    (notice,) = world.notices
    assert notice.kind == "throttled-trigger" and notice.subject.endswith(uuid)
    assert "ReservedConcurrentExecutions" in notice.text and "MaximumConcurrency" in notice.text


def test_a_throttled_batch_runs_as_soon_as_there_is_room(world):
    url, arn = world.queue("q", VisibilityTimeout="300")
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=1)
    world.executor.scripts["f"] = Script(seconds=4)
    world.send(url, "a", "b")
    world.map(arn, BatchSize=1)
    world.advance(60)
    assert len(world.executor.started) == 2 and world.executor.peak["f"] == 1
    assert world.counts(url) == (0, 0, 0)


def test_filters_decide_and_what_does_not_match_is_deleted(world):
    url, arn = world.queue("q")
    patterns = [{"body": {"kind": ["order"], "total": [{"numeric": [">", 10]}]}}]
    world.map(arn, FilterCriteria={"Filters": [{"Pattern": json.dumps(pattern)} for pattern in patterns]})
    world.send(url, '{"kind":"order","total":5}', '{"kind":"order","total":50}', "order", '{"kind":"note"}')
    assert bodies(world) == [['{"kind":"order","total":50}']]
    assert world.counts(url) == (0, 0, 0)


def test_filters_on_text_bodies_and_message_attributes(world):
    url, arn = world.queue("q")
    either = {
        "$or": [
            {"body": [{"prefix": "urgent"}]},
            {"messageAttributes": {"lane": {"stringValue": [{"equals-ignore-case": "FAST"}]}}},
        ]
    }
    world.map(arn, FilterCriteria={"Filters": [{"Pattern": json.dumps(either)}]})
    lane = {"lane": {"DataType": "String", "StringValue": "fast"}}
    world.send(url, "urgent: a", "later: b")
    world.send(url, "c", MessageAttributes=lane)
    assert bodies(world) == [["urgent: a"], ["c"]]


def test_a_disabled_mapping_rests_and_an_enabled_one_goes_on(world):
    url, arn = world.queue("q")
    uuid = world.map(arn, Enabled=False)
    world.send(url, "a")
    world.advance(60)
    assert world.executor.started == [] and world.counts(url) == (1, 0, 0)
    assert world("lambda", "UpdateEventSourceMapping", UUID=uuid, Enabled=True)["State"] == "Enabling"
    assert bodies(world) == [["a"]]
    world("lambda", "UpdateEventSourceMapping", UUID=uuid, Enabled=False)
    world.send(url, "b")
    world.advance(60)
    assert bodies(world) == [["a"]]


def test_changes_hold_for_the_next_batch_and_deletion_ends_it(world):
    url, arn = world.queue("q")
    world.create("g")
    uuid = world.map(arn, BatchSize=1)
    world("lambda", "UpdateEventSourceMapping", UUID=uuid, BatchSize=10, FunctionName="g")
    world.send(url, "a")
    assert bodies(world, "f") == [] and bodies(world, "g") == [["a"]]
    world("lambda", "DeleteEventSourceMapping", UUID=uuid)
    world.send(url, "b")
    world.advance(60)
    assert bodies(world, "g") == [["a"]] and world.counts(url) == (1, 0, 0)
    with pytest.raises(AwsError) as caught:
        world("lambda", "GetEventSourceMapping", UUID=uuid)
    assert caught.value.code == "ResourceNotFoundException"


def test_a_batch_in_flight_when_its_mapping_is_deleted_is_still_settled(world):
    url, arn = world.queue("q")
    world.executor.scripts["f"] = Script(seconds=5)
    uuid = world.map(arn)
    world.send(url, "a")
    world("lambda", "DeleteEventSourceMapping", UUID=uuid)
    world.advance(6)
    assert world.counts(url) == (0, 0, 0)


def test_a_delayed_message_wakes_the_poller_when_it_becomes_visible(world):
    url, arn = world.queue("q")
    world.map(arn)
    world("sqs", "SendMessage", QueueUrl=url, MessageBody="later", DelaySeconds=45)
    world.advance(44)
    assert bodies(world) == []
    world.advance(1)
    assert bodies(world) == [["later"]]


def test_a_fifo_group_is_blocked_while_its_batch_fails(world):
    url, arn = world.queue("q.fifo", FifoQueue="true", VisibilityTimeout="20", ContentBasedDeduplication="true")
    world.executor.scripts["f"] = lambda event: Script(
        error="ValueError" if event["Records"][0]["body"] == "a1" and len(world.executor.started) < 2 else None
    )
    world.map(arn, BatchSize=1)
    for group, body in (("a", "a1"), ("a", "a2"), ("b", "b1")):
        world("sqs", "SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId=group)
    assert bodies(world) == [["a1"], ["b1"]]
    world.advance(21)
    assert bodies(world) == [["a1"], ["b1"], ["a1"], ["a2"]]


def test_fifo_batches_of_one_group_never_overlap(world):
    url, arn = world.queue("q.fifo", FifoQueue="true", VisibilityTimeout="60", ContentBasedDeduplication="true")
    world.executor.scripts["f"] = Script(seconds=2)
    for body in "abcdef":
        world("sqs", "SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId="g")
    world.map(arn, BatchSize=2)
    world.advance(30)
    assert bodies(world) == [["a", "b"], ["c", "d"], ["e", "f"]] and world.executor.peak["f"] == 1


def test_a_queue_that_goes_away_is_told_once_and_polled_again_when_it_is_back(world):
    url, arn = world.queue("q")
    world.map(arn)
    world("sqs", "DeleteQueue", QueueUrl=url)
    world.advance(30)
    assert [notice.kind for notice in world.notices] == ["mapping-broken"]
    world.advance(60)
    url, arn = world.queue("q")
    world.send(url, "a")
    world.advance(10)
    assert bodies(world) == [["a"]]


def test_a_mapping_to_a_deleted_function_leaves_the_messages_alone(world):
    url, arn = world.queue("q")
    world.map(arn)
    world("lambda", "DeleteFunction", FunctionName="f")
    world.send(url, "a")
    world.advance(20)
    assert world.counts(url) == (1, 0, 0) and len(world.notices) == 1


def test_what_was_in_flight_in_a_dead_process_comes_back(tmp_path):
    world = TriggerWorld(directory=tmp_path)
    world.create()
    url, arn = world.queue("q", VisibilityTimeout="30")
    world.executor.scripts["f"] = Script(seconds=10)
    world.map(arn)
    world.send(url, "a")
    assert len(world.executor.started) == 1
    world.db.close()

    again = TriggerWorld(directory=tmp_path, seed=2)
    again.advance(29)
    assert again.executor.started == []
    again.advance(2)
    assert bodies(again) == [["a"]] and again.counts(url) == (0, 0, 0)
    again.db.close()


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:none"}, "InvalidParameterValueException",
         "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error "
         "Message: The specified queue does not exist."),
        ({"FunctionName": "nobody"}, "InvalidParameterValueException", "Function does not exist"),
        ({"EventSourceArn": "arn:aws:kafka:us-east-1:000000000000:cluster/s"}, "InvalidParameterValueException",
         "Unrecognized event source."),
        ({"BatchSize": 11}, "InvalidParameterValueException", "Maximum batch window in seconds must be greater than 0"),
        ({"BatchSize": 10_001, "MaximumBatchingWindowInSeconds": 1}, "ValidationException",
         "less than or equal to 10000"),
        ({"ScalingConfig": {"MaximumConcurrency": 1}}, "ValidationException", "greater than or equal to 2"),
        ({"FilterCriteria": {"Filters": [{"Pattern": '{"body": []}'}]}}, "InvalidParameterValueException",
         "Invalid filter pattern definition."),
        ({"StartingPosition": "LATEST"}, "InvalidParameterValueException",
         "StartingPosition is not valid for SQS event sources."),
        ({"ScalingConfig": {"MaximumConcurrency": 1_001}}, "ValidationException", "less than or equal to 1000"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 1}}, "ValidationException", "greater than or equal to 2"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 201}}, "ValidationException", "less than or equal to 200"),
        ({"ProvisionedPollerConfig": {"MaximumPollers": 10_001}}, "ValidationException", "less than or equal to 10000"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 9, "MaximumPollers": 3}}, "InvalidParameterValueException",
         "MinimumPollers"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 2}, "ScalingConfig": {"MaximumConcurrency": 5}},
         "InvalidParameterValueException", "mutually exclusive"),
        ({"LoggingConfig": {"SystemLogLevel": "INFO"}}, "InvalidParameterValueException",
         "Unsupported LoggingConfig parameter for given event source mapping type."),
        ({"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k"}, "InvalidParameterValueException", "KMSKeyArn"),
        ({"MetricsConfig": {"Metrics": ["ErrorCount"]}}, "InvalidParameterValueException", "EventCount"),
        ({"FunctionResponseTypes": ["Everything"]}, "ValidationException", "ReportBatchItemFailures"),
        ({"FilterCriteria": {"Filters": [{"Pattern": '{"body": ["x"]}'}] * 6}}, "InvalidParameterValueException",
         "the limit is 5"),
        ({"MaximumBatchingWindowInSeconds": 301}, "ValidationException", "less than or equal to 300"),
    ],
)  # fmt: skip
def test_mappings_that_are_refused(world, params, code, text):
    _, arn = world.queue("q")
    with pytest.raises(AwsError) as caught:
        world("lambda", "CreateEventSourceMapping", **{"EventSourceArn": arn, "FunctionName": "f", **params})
    assert caught.value.code == code and text in caught.value.message
    assert world("lambda", "ListEventSourceMappings")["EventSourceMappings"] == []


def test_one_mapping_per_queue_and_function_and_a_visibility_that_suffices(world):
    _, arn = world.queue("q", VisibilityTimeout="10")
    uuid = world.map(arn)
    with pytest.raises(AwsError) as caught:
        world.map(arn)
    assert caught.value.code == "ResourceConflictException" and uuid in caught.value.message
    world.create("slow", Timeout=30)
    with pytest.raises(AwsError) as caught:
        world.map(arn, "slow")
    assert caught.value.message == "Queue visibility timeout: 10 seconds is less than Function timeout: 30 seconds"


def test_fifo_queues_take_small_batches_and_no_window(world):
    _, arn = world.queue("q.fifo", FifoQueue="true")
    for params, text in (
        ({"BatchSize": 11}, "Maximum batch size for FIFO queues is 10."),
        ({"MaximumBatchingWindowInSeconds": 1}, "Batching window is not supported for FIFO queues"),
    ):
        with pytest.raises(AwsError) as caught:
            world.map(arn, **params)
        assert caught.value.message == text
    uuid = world.map(arn)
    with pytest.raises(AwsError):
        world("lambda", "UpdateEventSourceMapping", UUID=uuid, MaximumBatchingWindowInSeconds=1)
    assert world("lambda", "GetEventSourceMapping", UUID=uuid)["MaximumBatchingWindowInSeconds"] == 0

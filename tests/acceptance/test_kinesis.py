"""Kinesis streams through boto3: shards, records, iterators, limits; functions that read, rules that write."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

HIGHEST = 2**128 - 1
HANDLER = """
import base64, json, os, boto3

def handler(event, context):
    for one in event["Records"]:
        body = json.loads(base64.b64decode(one["kinesis"]["data"]))
        if body.get("poison"):
            raise ValueError("poison")
        boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=json.dumps(
            {**body, "key": one["kinesis"]["partitionKey"], "shard": one["eventID"].split(":")[0]}))
"""


@pytest.fixture
def kinesis(aws):
    return aws.client("kinesis")


def make(kinesis, name, shards=1):
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    kinesis.get_waiter("stream_exists").config.delay = 0.05
    wait_for(lambda: status(kinesis, name) == "ACTIVE", what="the stream")
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]


def status(kinesis, name):
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"]


def iterator(kinesis, name, shard="shardId-000000000000", kind="TRIM_HORIZON", **more):
    return kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType=kind, **more)["ShardIterator"]


def read(kinesis, name, shard="shardId-000000000000", **start):
    found = kinesis.get_records(ShardIterator=iterator(kinesis, name, shard, **start))["Records"]
    return [one["Data"] for one in found]


def refused(call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]


def test_records_come_back_in_order_from_every_kind_of_start(kinesis):
    make(kinesis, "plain")
    put = [kinesis.put_record(StreamName="plain", Data=b"%d" % n, PartitionKey="k")["SequenceNumber"] for n in range(5)]
    assert put == sorted(put) and all(len(one) == 56 for one in put)
    assert read(kinesis, "plain") == [b"0", b"1", b"2", b"3", b"4"]
    at = {"kind": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": put[3]}
    assert read(kinesis, "plain", **at) == [b"3", b"4"]
    assert read(kinesis, "plain", **{**at, "kind": "AFTER_SEQUENCE_NUMBER"}) == [b"4"]
    before = datetime.now(UTC) - timedelta(days=2)
    latest = iterator(kinesis, "plain", kind="LATEST")
    kinesis.put_record(StreamName="plain", Data=b"new", PartitionKey="k")
    assert [one["Data"] for one in kinesis.get_records(ShardIterator=latest)["Records"]] == [b"new"]
    assert len(read(kinesis, "plain", kind="AT_TIMESTAMP", Timestamp=before)) == 6


def test_a_page_says_where_to_go_on_and_how_far_behind_it_is(kinesis):
    make(kinesis, "paged")
    kinesis.put_records(StreamName="paged", Records=[{"Data": b"%d" % n, "PartitionKey": "k"} for n in range(7)])
    page = kinesis.get_records(ShardIterator=iterator(kinesis, "paged"), Limit=4)
    assert [one["Data"] for one in page["Records"]] == [b"0", b"1", b"2", b"3"] and page["MillisBehindLatest"] >= 0
    rest = kinesis.get_records(ShardIterator=page["NextShardIterator"])
    assert [one["Data"] for one in rest["Records"]] == [b"4", b"5", b"6"] and rest["MillisBehindLatest"] == 0
    assert kinesis.get_records(ShardIterator=rest["NextShardIterator"])["Records"] == []


def test_keys_go_to_the_shard_of_their_hash(kinesis):
    arn = make(kinesis, "spread", 2)
    shards = kinesis.list_shards(StreamARN=arn)["Shards"]
    assert shards[0]["HashKeyRange"]["StartingHashKey"] == "0"
    assert shards[1]["HashKeyRange"]["EndingHashKey"] == str(HIGHEST)
    low = kinesis.put_record(StreamARN=arn, Data=b"low", PartitionKey="x", ExplicitHashKey="0")
    high = kinesis.put_record(StreamARN=arn, Data=b"high", PartitionKey="x", ExplicitHashKey=str(HIGHEST))
    assert (low["ShardId"], high["ShardId"]) == tuple(one["ShardId"] for one in shards)
    answers = kinesis.put_records(
        StreamARN=arn, Records=[{"Data": b"%d" % n, "PartitionKey": f"key-{n}"} for n in range(40)]
    )
    assert answers["FailedRecordCount"] == 0 and len({one["ShardId"] for one in answers["Records"]}) == 2


def test_a_split_and_a_merge_keep_every_record_and_name_the_children(kinesis):
    make(kinesis, "resharded")
    kinesis.put_record(StreamName="resharded", Data=b"before", PartitionKey="k")
    kinesis.split_shard(
        StreamName="resharded", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127)
    )
    wait_for(lambda: status(kinesis, "resharded") == "ACTIVE", what="the split")
    page = kinesis.get_records(ShardIterator=iterator(kinesis, "resharded"))
    assert [one["Data"] for one in page["Records"]] == [b"before"] and "NextShardIterator" not in page
    assert [one["ShardId"] for one in page["ChildShards"]] == ["shardId-000000000001", "shardId-000000000002"]
    kinesis.merge_shards(
        StreamName="resharded", ShardToMerge="shardId-000000000001", AdjacentShardToMerge="shardId-000000000002"
    )
    wait_for(lambda: status(kinesis, "resharded") == "ACTIVE", what="the merge")
    found = kinesis.list_shards(StreamName="resharded", ShardFilter={"Type": "AT_LATEST"})["Shards"]
    assert [(one["ShardId"], one["ParentShardId"], one["AdjacentParentShardId"]) for one in found] == [
        ("shardId-000000000003", "shardId-000000000001", "shardId-000000000002")
    ]
    put = kinesis.put_record(StreamName="resharded", Data=b"after", PartitionKey="k")
    assert put["ShardId"] == "shardId-000000000003"
    wait_for(lambda: status(kinesis, "resharded") == "ACTIVE", what="the stream")
    scaled = kinesis.update_shard_count(StreamName="resharded", TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    assert (scaled["CurrentShardCount"], scaled["TargetShardCount"]) == (1, 2)


def test_a_shard_takes_a_thousand_records_a_second_and_says_which_it_did_not(kinesis):
    make(kinesis, "narrow")
    records = [{"Data": b"x", "PartitionKey": "k"} for _ in range(500)]
    answers = [kinesis.put_records(StreamName="narrow", Records=records) for _ in range(4)]
    failed = [one for answer in answers for one in answer["Records"] if "ErrorCode" in one]
    assert 0 < len(failed) < 2_000
    assert failed[0]["ErrorCode"] == "ProvisionedThroughputExceededException"
    assert "Rate exceeded for shard shardId-000000000000 in stream narrow" in failed[0]["ErrorMessage"]
    start = iterator(kinesis, "narrow")
    errors = 0
    for _ in range(8):
        try:
            kinesis.get_records(ShardIterator=start, Limit=1)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ProvisionedThroughputExceededException"
            errors += 1
    assert errors


def test_what_is_wrong_is_said_as_aws_says_it(kinesis):
    make(kinesis, "strict")
    first = {"StreamName": "strict", "ShardId": "shardId-000000000000"}
    assert refused(kinesis.put_record, StreamName="absent", Data=b"", PartitionKey="k") == {
        "Code": "ResourceNotFoundException", "Message": "Stream absent under account 000000000000 not found."
    }  # fmt: skip
    assert refused(kinesis.create_stream, StreamName="strict", ShardCount=1)["Code"] == "ResourceInUseException"
    assert refused(kinesis.create_stream, StreamName="none")["Code"] == "InvalidArgumentException"
    assert refused(kinesis.create_stream, StreamName="bad name", ShardCount=1)["Code"] == "ValidationException"
    assert refused(kinesis.get_records, ShardIterator="bm9uc2Vuc2U=")["Code"] == "InvalidArgumentException"
    assert refused(kinesis.get_shard_iterator, **first, ShardIteratorType="AT_TIMESTAMP")["Code"] == (
        "InvalidArgumentException"
    )
    assert refused(
        kinesis.get_shard_iterator, StreamName="strict", ShardId="shardId-000000000009", ShardIteratorType="LATEST"
    )["Code"] == "ResourceNotFoundException"  # fmt: skip
    big = b"x" * (1024 * 1024 + 1)
    assert refused(kinesis.put_record, StreamName="strict", Data=big, PartitionKey="k")["Code"] == (
        "InvalidArgumentException"
    )
    assert refused(
        kinesis.increase_stream_retention_period, StreamName="strict", RetentionPeriodHours=9_000
    )["Code"] == "InvalidArgumentException"  # fmt: skip


def test_iterators_expire_and_retention_passes_over_records(fresh_server):
    server = fresh_server()
    kinesis = server.client("kinesis")
    make(kinesis, "old")
    kinesis.put_record(StreamName="old", Data=b"old", PartitionKey="k")
    start = iterator(kinesis, "old")
    server.advance(301)
    assert refused(kinesis.get_records, ShardIterator=start)["Code"] == "ExpiredIteratorException"
    kinesis.increase_stream_retention_period(StreamName="old", RetentionPeriodHours=48)
    server.advance(47 * 3600)
    kinesis.put_record(StreamName="old", Data=b"new", PartitionKey="k")
    assert read(kinesis, "old") == [b"old", b"new"]
    server.advance(3600)
    assert read(kinesis, "old") == [b"new"]


def test_records_survive_a_kill(fresh_server):
    server = fresh_server()
    kinesis = server.client("kinesis")
    make(kinesis, "kept")
    put = [kinesis.put_record(StreamName="kept", Data=b"%d" % n, PartitionKey="k")["SequenceNumber"] for n in range(20)]
    server.kill()
    server.start()
    kinesis = server.client("kinesis")
    page = kinesis.get_records(ShardIterator=iterator(kinesis, "kept"))["Records"]
    assert [one["SequenceNumber"] for one in page] == put


# -- what reads and writes streams ------------------------------------------------------------------------------------


@pytest.fixture
def reader(aws):
    """(function's name, URL of the queue of what it saw)."""
    url = aws.client("sqs").create_queue(QueueName=f"seen-{uuid.uuid4().hex}")["QueueUrl"]
    functions = aws.client("lambda")
    functions.create_function(
        FunctionName="reader", Runtime="python3.11", Role=ROLE, Handler="app.handler", Timeout=10,
        Code={"ZipFile": make_zip({"app.py": HANDLER})}, Environment={"Variables": {"SEEN": url}},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="reader")
    yield "reader", url
    for mapping in functions.list_event_source_mappings(FunctionName="reader")["EventSourceMappings"]:
        functions.delete_event_source_mapping(UUID=mapping["UUID"])
    functions.delete_function(FunctionName="reader")
    aws.client("sqs").delete_queue(QueueUrl=url)


def seen(aws, url, count):
    sqs, found = aws.client("sqs"), []

    def there():
        for one in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            found.append(json.loads(one["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
        return len(found) >= count

    wait_for(there, what=f"{count} records at the function, now {found}")
    return found


def put_json(kinesis, stream, *bodies, key="k"):
    for body in bodies:
        kinesis.put_record(StreamName=stream, Data=json.dumps(body).encode(), PartitionKey=key)


def test_a_function_reads_every_record_in_order_and_filters_the_rest(aws, kinesis, reader):
    name, url = reader
    arn = make(kinesis, "events", 2)
    put_json(kinesis, "events", {"n": 0, "kind": "keep"})
    functions = aws.client("lambda")
    mapping = functions.create_event_source_mapping(
        FunctionName=name, EventSourceArn=arn, StartingPosition="TRIM_HORIZON", BatchSize=10,
        FilterCriteria={"Filters": [{"Pattern": json.dumps({"data": {"kind": ["keep"]}})}]},
    )  # fmt: skip
    assert (mapping["StartingPosition"], mapping["ParallelizationFactor"]) == ("TRIM_HORIZON", 1)
    for n in range(1, 6):
        put_json(kinesis, "events", {"n": n, "kind": "keep"}, {"n": n, "kind": "drop"})
    found = seen(aws, url, 6)
    assert [one["n"] for one in found] == list(range(6)) and {one["kind"] for one in found} == {"keep"}


def test_a_poison_record_is_given_up_and_told_and_the_shard_goes_on(aws, kinesis, reader):
    name, url = reader
    arn = make(kinesis, "poisoned")
    dead = aws.client("sqs").create_queue(QueueName="poisoned-dead")["QueueUrl"]
    functions = aws.client("lambda")
    functions.create_event_source_mapping(
        FunctionName=name, EventSourceArn=arn, StartingPosition="TRIM_HORIZON", BatchSize=1, MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:poisoned-dead"}},
    )  # fmt: skip
    put_json(kinesis, "poisoned", {"n": 1}, {"poison": True}, {"n": 2})
    assert [one["n"] for one in seen(aws, url, 2)] == [1, 2]

    def told():
        return aws.client("sqs").receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages")

    (letter,) = wait_for(told, what="the failure's record")
    info = json.loads(letter["Body"])
    assert info["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert info["KinesisBatchInfo"]["streamArn"] == arn and info["KinesisBatchInfo"]["batchSize"] == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Member must not be null"),
        ({"StartingPosition": "AT_TIMESTAMP"}, "StartingPositionTimestamp"),
        ({"StartingPosition": "LATEST", "ParallelizationFactor": 11}, "parallelizationFactor"),
        ({"StartingPosition": "LATEST", "MaximumRecordAgeInSeconds": 30}, "at least 60"),
        ({"StartingPosition": "LATEST", "ScalingConfig": {"MaximumConcurrency": 2}}, "Unsupported ScalingConfig"),
    ],
)
def test_what_a_mapping_of_a_stream_cannot_be(aws, kinesis, reader, given, told):
    name = f"mapped-{uuid.uuid4().hex}"
    arn = make(kinesis, name)
    error = refused(
        aws.client("lambda").create_event_source_mapping, FunctionName=reader[0], EventSourceArn=arn, **given
    )
    assert told in error["Message"]


def test_a_rule_puts_events_into_a_stream_by_their_own_key(aws, kinesis):
    arn = make(kinesis, "ruled")
    events = aws.client("events")
    events.put_rule(Name="to-stream", EventPattern=json.dumps({"source": ["shop"]}))
    answer = events.put_targets(
        Rule="to-stream",
        Targets=[
            {"Id": "s", "Arn": arn, "RoleArn": ROLE, "KinesisParameters": {"PartitionKeyPath": "$.detail.customer"}}
        ],
    )
    assert answer["FailedEntryCount"] == 0
    events.put_events(Entries=[{"Source": "shop", "DetailType": "order", "Detail": json.dumps({"customer": "ann"})}])
    start = iterator(kinesis, "ruled")

    def there():
        return kinesis.get_records(ShardIterator=start)["Records"]

    (record,) = wait_for(there, what="the event in the stream")
    assert record["PartitionKey"] == "ann" and json.loads(record["Data"])["detail-type"] == "order"


def test_a_template_makes_changes_and_deletes_a_stream(aws, kinesis):
    cloudformation = aws.client("cloudformation")

    def template(**properties):
        stream = {"Type": "AWS::Kinesis::Stream", "Properties": {"Name": "templated", **properties}}
        outputs = {"Arn": {"Value": {"Fn::GetAtt": "Stream.Arn"}}}
        return json.dumps({"Resources": {"Stream": stream}, "Outputs": outputs})

    cloudformation.create_stack(StackName="streams", TemplateBody=template(ShardCount=1))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="streams", WaiterConfig={"Delay": 1})
    assert status(kinesis, "templated") == "ACTIVE"
    cloudformation.update_stack(
        StackName="streams", TemplateBody=template(ShardCount=2, RetentionPeriodHours=48)
    )
    cloudformation.get_waiter("stack_update_complete").wait(StackName="streams", WaiterConfig={"Delay": 1})
    found = kinesis.describe_stream_summary(StreamName="templated")["StreamDescriptionSummary"]
    assert (found["OpenShardCount"], found["RetentionPeriodHours"]) == (2, 48)
    cloudformation.delete_stack(StackName="streams")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="streams", WaiterConfig={"Delay": 1})
    assert refused(kinesis.describe_stream_summary, StreamName="templated")["Code"] == "ResourceNotFoundException"

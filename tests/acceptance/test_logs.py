"""A user of boto3 writes and reads logs."""

import json
import time

import pytest
from botocore.exceptions import ClientError


@pytest.fixture(scope="module")
def logs(aws):
    return aws.client("logs")


@pytest.fixture(scope="module")
def stream(logs):
    place = {"logGroupName": "/acceptance/app", "logStreamName": "2026/[$LATEST]one"}
    logs.create_log_group(logGroupName=place["logGroupName"], tags={"team": "search"})
    logs.create_log_stream(**place)
    yield place
    logs.delete_log_group(logGroupName=place["logGroupName"])


def test_events_are_written_read_and_filtered(logs, stream):
    now = int(time.time() * 1_000)
    lines = ["START", json.dumps({"level": "ERROR", "took": 12.5}), "ERROR: plain", "END"]
    reply = logs.put_log_events(
        **stream, logEvents=[{"timestamp": now + step, "message": line} for step, line in enumerate(lines)]
    )
    assert "rejectedLogEventsInfo" not in reply
    head = logs.get_log_events(**stream, startFromHead=True)
    assert [event["message"] for event in head["events"]] == lines
    assert head["events"][0]["timestamp"] == now
    end = logs.get_log_events(**stream, startFromHead=True, nextToken=head["nextForwardToken"])
    assert end["events"] == []
    assert end["nextForwardToken"] == head["nextForwardToken"]
    group = {"logGroupName": stream["logGroupName"]}
    found = logs.filter_log_events(**group, filterPattern="ERROR")
    assert [event["message"] for event in found["events"]] == lines[1:3]
    found = logs.filter_log_events(**group, filterPattern='{ $.level = "ERROR" && $.took > 12 }')
    assert [event["logStreamName"] for event in found["events"]] == [stream["logStreamName"]]
    pages = logs.get_paginator("filter_log_events").paginate(**group, PaginationConfig={"PageSize": 3})
    assert [event["message"] for page in pages for event in page["events"]] == lines


def test_groups_are_described(logs, stream):
    logs.put_retention_policy(logGroupName=stream["logGroupName"], retentionInDays=7)
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/acceptance/")["logGroups"]
    assert group["retentionInDays"] == 7
    assert group["arn"].endswith(":log-group:/acceptance/app:*")
    assert logs.list_tags_for_resource(resourceArn=group["logGroupArn"])["tags"] == {"team": "search"}
    (described,) = logs.describe_log_streams(logGroupName=stream["logGroupName"])["logStreams"]
    assert described["logStreamName"] == stream["logStreamName"]


def test_errors_are_modelled(logs, stream):
    with pytest.raises(logs.exceptions.ResourceNotFoundException) as caught:
        logs.get_log_events(logGroupName="/acceptance/none", logStreamName="s")
    assert caught.value.response["Error"]["Message"] == "The specified log group does not exist."
    with pytest.raises(logs.exceptions.ResourceAlreadyExistsException) as caught:
        logs.create_log_group(logGroupName=stream["logGroupName"])
    assert caught.value.response["Error"]["Message"] == "The specified log group already exists"
    with pytest.raises(ClientError) as caught:
        logs.put_retention_policy(logGroupName=stream["logGroupName"], retentionInDays=2)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterException"

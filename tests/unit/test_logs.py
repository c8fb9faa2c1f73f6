"""CloudWatch Logs, operation by operation, under a clock that the test moves."""

import pytest

from preheat.execution.contract import LogLine
from preheat.kernel.errors import AwsError
from preheat.services.logs.service import build
from tests.support.inprocess import InProcess

DAY_S = 86_400


@pytest.fixture
def logs():
    world = InProcess(build)
    for loop in world.machine.services["logs"].loops:
        world.machine.add_loop(loop)

    def call(operation, **params):
        return world("logs", operation, **params)

    call.world = world
    call.now_ms = lambda: int(world.clock.now() * 1_000)
    return call


@pytest.fixture
def stream(logs):
    logs("CreateLogGroup", logGroupName="g")
    logs("CreateLogStream", logGroupName="g", logStreamName="s")
    return {"logGroupName": "g", "logStreamName": "s"}


def put(logs, stream, *messages, at=None):
    at = logs.now_ms() if at is None else at
    events = [{"timestamp": at + step, "message": message} for step, message in enumerate(messages)]
    return logs("PutLogEvents", **stream, logEvents=events)


def refused(logs, operation, **params):
    with pytest.raises(AwsError) as caught:
        logs(operation, **params)
    return caught.value.code, caught.value.message


def messages(reply):
    return [event["message"] for event in reply["events"]]


def test_groups_exist_once_and_can_go(logs):
    logs("CreateLogGroup", logGroupName="/aws/lambda/a", tags={"team": "x"})
    assert refused(logs, "CreateLogGroup", logGroupName="/aws/lambda/a") == (
        "ResourceAlreadyExistsException",
        "The specified log group already exists",
    )
    (group,) = logs("DescribeLogGroups")["logGroups"]
    assert group["arn"] == "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/a:*"
    assert group["creationTime"] == logs.now_ms()
    logs("DeleteLogGroup", logGroupName="/aws/lambda/a")
    assert logs("DescribeLogGroups")["logGroups"] == []
    assert refused(logs, "DeleteLogGroup", logGroupName="/aws/lambda/a") == (
        "ResourceNotFoundException",
        "The specified log group does not exist.",
    )


def test_group_names_are_checked(logs):
    code, message = refused(logs, "CreateLogGroup", logGroupName="a b")
    assert code == "InvalidParameterException"
    assert message == (
        "1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: "
        r"Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+"
    )


def test_groups_are_listed_by_prefix_pattern_and_page(logs):
    for name in ("/aws/a", "/aws/b", "/aws/c", "other"):
        logs("CreateLogGroup", logGroupName=name)
    page = logs("DescribeLogGroups", logGroupNamePrefix="/aws/", limit=2)
    assert [group["logGroupName"] for group in page["logGroups"]] == ["/aws/a", "/aws/b"]
    page = logs("DescribeLogGroups", logGroupNamePrefix="/aws/", limit=2, nextToken=page["nextToken"])
    assert [group["logGroupName"] for group in page["logGroups"]] == ["/aws/c"]
    assert "nextToken" not in page
    assert len(logs("DescribeLogGroups", logGroupNamePattern="THE")["logGroups"]) == 1
    code, _ = refused(logs, "DescribeLogGroups", logGroupNamePattern="a", logGroupNamePrefix="a")
    assert code == "InvalidParameterException"


def test_deletion_protection_acts(logs):
    logs("CreateLogGroup", logGroupName="g", deletionProtectionEnabled=True)
    assert refused(logs, "DeleteLogGroup", logGroupName="g")[0] == "ValidationException"
    logs("PutLogGroupDeletionProtection", logGroupIdentifier="g", deletionProtectionEnabled=False)
    logs("DeleteLogGroup", logGroupName="g")


def test_streams(logs, stream):
    assert refused(logs, "CreateLogStream", **stream)[0] == "ResourceAlreadyExistsException"
    assert refused(logs, "PutLogEvents", logGroupName="g", logStreamName="none", logEvents=[]) == (
        "ResourceNotFoundException",
        "The specified log stream does not exist.",
    )
    logs("CreateLogStream", logGroupName="g", logStreamName="t")
    put(logs, stream, "later")
    put(logs, {**stream, "logStreamName": "t"}, "earlier", at=logs.now_ms() - 5_000)

    def order(**params):
        reply = logs("DescribeLogStreams", logGroupName="g", **params)
        return [entry["logStreamName"] for entry in reply["logStreams"]]

    assert order() == ["s", "t"]
    assert order(descending=True) == ["t", "s"]
    assert order(orderBy="LastEventTime") == ["t", "s"]
    assert order(orderBy="LastEventTime", descending=True) == ["s", "t"]
    first = logs("DescribeLogStreams", logGroupName="g", orderBy="LastEventTime", limit=1)
    assert order(orderBy="LastEventTime", limit=1, nextToken=first["nextToken"]) == ["s"]
    described = logs("DescribeLogStreams", logGroupName="g", logStreamNamePrefix="s")["logStreams"][0]
    assert described["lastEventTimestamp"] == described["firstEventTimestamp"] == logs.now_ms()
    logs("DeleteLogStream", **stream)
    assert order() == ["t"]
    assert messages(logs("FilterLogEvents", logGroupName="g")) == ["earlier"]


def test_reading_forward_and_backward(logs, stream):
    put(logs, stream, *(f"m{number}" for number in range(10)))
    newest = logs("GetLogEvents", **stream, limit=3)
    assert messages(newest) == ["m7", "m8", "m9"]
    older = logs("GetLogEvents", **stream, limit=3, nextToken=newest["nextBackwardToken"])
    assert messages(older) == ["m4", "m5", "m6"]
    again = logs("GetLogEvents", **stream, limit=3, nextToken=older["nextForwardToken"])
    assert messages(again) == ["m7", "m8", "m9"]
    end = logs("GetLogEvents", **stream, nextToken=again["nextForwardToken"])
    assert messages(end) == []
    assert end["nextForwardToken"] == again["nextForwardToken"]
    put(logs, stream, "new", at=logs.now_ms() + 100)
    assert messages(logs("GetLogEvents", **stream, nextToken=end["nextForwardToken"])) == ["new"]
    assert messages(logs("GetLogEvents", **stream, limit=2, startFromHead=True)) == ["m0", "m1"]
    start = logs.now_ms() + 2
    assert messages(logs("GetLogEvents", **stream, startTime=start, endTime=start + 2)) == ["m2", "m3"]
    assert refused(logs, "GetLogEvents", **stream, nextToken="x")[0] == "InvalidParameterException"


def test_following_an_empty_stream(logs, stream):
    empty = logs("GetLogEvents", **stream, startFromHead=True)
    assert messages(empty) == []
    put(logs, stream, "first")
    assert messages(logs("GetLogEvents", **stream, nextToken=empty["nextForwardToken"])) == ["first"]


def test_batches_have_rules(logs, stream):
    now = logs.now_ms()
    two = [{"timestamp": now, "message": "b"}, {"timestamp": now - 1, "message": "a"}]
    assert refused(logs, "PutLogEvents", **stream, logEvents=two) == (
        "InvalidParameterException",
        "Log events in a single PutLogEvents request must be in chronological order.",
    )
    far = [{"timestamp": now - DAY_S * 1_000 - 1, "message": "a"}, {"timestamp": now, "message": "b"}]
    assert "24 hours" in refused(logs, "PutLogEvents", **stream, logEvents=far)[1]
    big = [{"timestamp": now, "message": "x" * 600_000}] * 2
    assert refused(logs, "PutLogEvents", **stream, logEvents=big)[1] == (
        "Upload too large: 1200052 bytes exceeds limit of 1048576"
    )
    assert refused(logs, "PutLogEvents", **stream, logEvents=[])[0] == "InvalidParameterException"
    assert messages(logs("GetLogEvents", **stream)) == []


def test_events_too_old_or_too_new_are_named(logs, stream):
    now = logs.now_ms()
    old = put(logs, stream, "old", at=now - 15 * DAY_S * 1_000)
    assert old["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    events = [{"timestamp": now, "message": "ok"}, {"timestamp": now + 3 * 3_600_000, "message": "new"}]
    assert logs("PutLogEvents", **stream, logEvents=events)["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}
    assert messages(logs("GetLogEvents", **stream)) == ["ok"]
    logs("PutRetentionPolicy", logGroupName="g", retentionInDays=3)
    expired = put(logs, stream, "expired", at=now - 4 * DAY_S * 1_000)
    assert expired["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}


def test_retention_removes_events(logs, stream):
    put(logs, stream, "a", "b")
    logs("PutRetentionPolicy", logGroupName="g", retentionInDays=1)
    assert logs("DescribeLogGroups")["logGroups"][0]["retentionInDays"] == 1
    logs.world.advance(DAY_S - 60)
    put(logs, stream, "c")
    assert messages(logs("GetLogEvents", **stream)) == ["a", "b", "c"]
    logs.world.advance(61)
    assert messages(logs("GetLogEvents", **stream)) == ["c"]
    logs.world.advance(3_600)
    assert logs.world.db.value("SELECT COUNT(*) FROM logs_events") == 1
    assert logs("DescribeLogGroups")["logGroups"][0]["storedBytes"] == 27
    code, message = refused(logs, "PutRetentionPolicy", logGroupName="g", retentionInDays=2)
    assert code == "InvalidParameterException"
    assert "Value '2' at 'retentionInDays'" in message


def test_deleted_groups_leave_no_rows(logs, stream):
    for _ in range(3):
        put(logs, stream, *("m" * 3 for _ in range(900)))
    logs("DeleteLogGroup", logGroupName="g")
    logs.world.settle()
    for table in ("logs_events", "logs_streams", "logs_debris"):
        assert logs.world.db.value(f"SELECT COUNT(*) FROM {table}") == 0


def test_filtering_a_group(logs, stream):
    logs("CreateLogStream", logGroupName="g", logStreamName="t")
    put(logs, stream, "ERROR one", "fine", "ERROR two")
    put(logs, {**stream, "logStreamName": "t"}, '{"level": "ERROR", "n": 3}')
    found = logs("FilterLogEvents", logGroupName="g", filterPattern="ERROR")
    assert messages(found) == ["ERROR one", '{"level": "ERROR", "n": 3}', "ERROR two"]
    assert found["events"][0]["logStreamName"] == "s"
    assert "nextToken" not in found
    json_only = logs("FilterLogEvents", logGroupName="g", filterPattern='{ $.level = "ERROR" && $.n > 2 }')
    assert [event["logStreamName"] for event in json_only["events"]] == ["t"]
    assert len(logs("FilterLogEvents", logGroupName="g", logStreamNames=["t"])["events"]) == 1
    assert len(logs("FilterLogEvents", logGroupName="g", logStreamNamePrefix="s")["events"]) == 3
    assert messages(logs("FilterLogEvents", logGroupName="g", startFromHead=False, limit=1)) == ["ERROR two"]
    assert refused(logs, "FilterLogEvents", logGroupName="g", filterPattern="{ $.x }")[0] == "InvalidParameterException"
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:g"
    assert len(logs("FilterLogEvents", logGroupIdentifier=arn)["events"]) == 4


def test_filter_pages_cover_everything_once(logs, stream):
    put(logs, stream, *(f"n{number}" for number in range(25)))
    seen, token = [], None
    for _ in range(10):
        page = logs("FilterLogEvents", logGroupName="g", limit=7, **({"nextToken": token} if token else {}))
        seen += messages(page)
        token = page.get("nextToken")
        if token is None:
            break
    assert seen == [f"n{number}" for number in range(25)]


def test_a_long_search_stops_and_goes_on(logs, stream):
    for _ in range(11):
        put(logs, stream, *("noise" for _ in range(1_000)))
    put(logs, stream, "needle", at=logs.now_ms() + 10_000)
    page = logs("FilterLogEvents", logGroupName="g", filterPattern="needle")
    assert messages(page) == []
    page = logs("FilterLogEvents", logGroupName="g", filterPattern="needle", nextToken=page["nextToken"])
    assert messages(page) == ["needle"]


def test_tags_by_arn_and_by_name(logs, stream):
    arn = "arn:aws:logs:us-east-1:000000000000:log-group:g"
    logs("TagResource", resourceArn=arn, tags={"a": "1"})
    logs("TagLogGroup", logGroupName="g", tags={"b": "2"})
    assert logs("ListTagsForResource", resourceArn=arn)["tags"] == {"a": "1", "b": "2"}
    logs("UntagResource", resourceArn=arn, tagKeys=["a"])
    assert logs("ListTagsLogGroup", logGroupName="g")["tags"] == {"b": "2"}
    logs("UntagLogGroup", logGroupName="g", tags=["b"])
    assert logs("ListTagsLogGroup", logGroupName="g")["tags"] == {}
    assert refused(logs, "TagResource", resourceArn=arn + "x", tags={"a": "1"})[0] == "ResourceNotFoundException"


def test_the_platform_writes_in_bulk(logs):
    service = logs.world.machine.services["logs"]
    now = logs.now_ms()
    lines = [LogLine("/aws/lambda/f", f"s{number % 2}", now + number, f"line {number}") for number in range(6)]
    done = []

    def write(ctx):
        service.append(ctx, lines)
        return {}

    logs.world.machine.perform(write, done.append)
    logs.world.settle()
    assert done
    assert messages(logs("FilterLogEvents", logGroupName="/aws/lambda/f")) == [f"line {number}" for number in range(6)]
    assert len(logs("DescribeLogStreams", logGroupName="/aws/lambda/f")["logStreams"]) == 2


def test_what_would_not_act_is_refused(logs, stream):
    assert refused(logs, "CreateLogGroup", logGroupName="k", kmsKeyId="key")[0] == "InvalidParameterException"
    assert refused(logs, "CreateLogGroup", logGroupName="k", logGroupClass="DELIVERY")[0] == "InvalidParameterException"
    assert logs("DescribeLogGroups", logGroupNamePrefix="k")["logGroups"] == []

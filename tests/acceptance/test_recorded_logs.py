"""What CloudWatch Logs was recorded to answer, and what its filters do: refusals, metrics, events sent."""

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.cloudwatch.service import build as build_cloudwatch
from preheat.services.logs.service import build as build_logs
from preheat.template.service import build as build_cloudformation
from tests.support.functions import TriggerWorld

LONG = "Invalid LogGroup or LogStream, both must have length less than or equal to 512."
WRONG = "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must have "
ARN = "arn:aws:logs:us-east-1:000000000000:log-group:g"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
NO_GROUP = "The specified log group does not exist."
TRANSFORMED = "MetricTransformation(metricName=m{0}, metricNamespace=n, metricValue=1, defaultValue=null, unit=null, "


@pytest.fixture
def world():
    return TriggerWorld(build_logs, build_cloudwatch, build_cloudformation)


@pytest.fixture(scope="module")
def still():
    """A world with one group, for what is refused."""
    world = TriggerWorld(build_logs)
    world("logs", "CreateLogGroup", logGroupName="g")
    return world


def metric(name="m", value="1", **more):
    return {"metricName": name, "metricNamespace": "n", "metricValue": value, **more}


def write(world, *messages, group="g", stream="s"):
    """One batch; group and stream are made when they are not there."""
    for operation, params in (("CreateLogGroup", {}), ("CreateLogStream", {"logStreamName": stream})):
        try:
            world("logs", operation, logGroupName=group, **params)
        except AwsError as error:
            assert error.code == "ResourceAlreadyExistsException"
    now = int(world.clock.now() * 1_000)
    events = [{"timestamp": now, "message": message} for message in messages]
    world("logs", "PutLogEvents", logGroupName=group, logStreamName=stream, logEvents=events)


METRIC = {"logGroupName": "g", "filterName": "f", "filterPattern": "x", "metricTransformations": [metric()]}
SENT = {"logGroupName": "g", "filterName": "f", "filterPattern": "", "destinationArn": FUNCTION}
TOO_LONG = "length less than or equal to {}"


@pytest.mark.parametrize(
    ("operation", "params", "code", "message"),
    [
        ("CreateLogGroup", {"logGroupName": "a" * 513}, "InvalidParameterException", LONG),
        ("DescribeLogStreams", {"logGroupName": "g", "logGroupIdentifier": "g"}, "ValidationException",
         "LogGroup name and LogGroup ARN are mutually exclusive parameters."),
        ("GetLogEvents", {"logGroupIdentifier": f"{ARN}:*", "logStreamName": "s"}, "InvalidParameterException",
         "1 validation error detected: Value at 'logGroupIdentifier' failed to satisfy constraint: "
         r"Member must satisfy regular expression pattern: [\w#+=/:,.@-]*"),
        ("PutMetricFilter", {**METRIC, "filterName": "X" * 513}, "InvalidParameterException",
         WRONG.format("X" * 513, "filterName") + TOO_LONG.format(512)),
        ("PutMetricFilter", {**METRIC, "filterPattern": "X" * 1025}, "InvalidParameterException",
         WRONG.format("X" * 1025, "filterPattern") + TOO_LONG.format(1024)),
        ("PutMetricFilter", {**METRIC, "metricTransformations": [metric("m1"), metric("m2")]},
         "InvalidParameterException",
         WRONG.format(f"[{TRANSFORMED.format(1)}dimensions=null), {TRANSFORMED.format(2)}dimensions=null)]",
                      "metricTransformations") + TOO_LONG.format(1)),
        ("PutMetricFilter", {**METRIC, "logGroupName": "none"}, "ResourceNotFoundException", NO_GROUP),
        ("DeleteMetricFilter", {"logGroupName": "X" * 513, "filterName": "f"}, "InvalidParameterException", LONG),
        ("DeleteMetricFilter", {"logGroupName": "g", "filterName": "X" * 513}, "InvalidParameterException",
         WRONG.format("X" * 513, "filterName") + TOO_LONG.format(512)),
        ("DeleteMetricFilter", {"logGroupName": "g", "filterName": "none"}, "ResourceNotFoundException",
         "The specified metric filter does not exist."),
        ("DescribeMetricFilters", {"filterNamePrefix": "X" * 513}, "InvalidParameterException",
         WRONG.format("X" * 513, "filterNamePrefix") + TOO_LONG.format(512)),
        ("DescribeMetricFilters", {"metricName": "X" * 256, "metricNamespace": "n"}, "InvalidParameterException",
         WRONG.format("X" * 256, "metricName") + TOO_LONG.format(255)),
        ("DescribeSubscriptionFilters", {"logGroupName": "none"}, "ResourceNotFoundException", NO_GROUP),
        ("DeleteSubscriptionFilter", {"logGroupName": "none", "filterName": "f"}, "ResourceNotFoundException",
         NO_GROUP),
        ("DeleteSubscriptionFilter", {"logGroupName": "g", "filterName": "none"}, "ResourceNotFoundException",
         "The specified subscription filter does not exist."),
        ("PutSubscriptionFilter", {**SENT, "destinationArn": FUNCTION.replace("000000000000", "123456789012")},
         "AccessDeniedException", "Cross-account lambda invocation passing is not allowed. You must use "
         "DestinationPolicies to create cross account lambda triggers."),
        ("PutSubscriptionFilter", {**SENT, "destinationArn": "arn:aws:kinesis:us-east-1:123456789012:stream/none"},
         "InvalidParameterException", "destinationArn for vendor kinesis cannot be used without roleArn"),
        ("PutSubscriptionFilter", SENT, "InvalidParameterException", "Could not execute the lambda function. Make sure "
         "you have given CloudWatch Logs permission to execute your function."),
    ],
)  # fmt: skip
def test_refusals(still, operation, params, code, message):
    with pytest.raises(AwsError) as caught:
        still("logs", operation, **params)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_groups_found_by_pattern(world):
    for name in ("/app/alpha", "/app/beta"):
        world("logs", "CreateLogGroup", logGroupName=name)
    world("logs", "PutMetricFilter", **{**METRIC, "logGroupName": "/app/alpha"})
    (found,) = world("logs", "DescribeLogGroups", logGroupNamePattern="alph")["logGroups"]
    assert not {"storedBytes", "deletionProtectionEnabled"} & found.keys() and found["metricFilterCount"] == 1
    assert world("logs", "ListLogGroups", logGroupNamePattern="no-such-group") == {"logGroups": []}
    listed = world("logs", "ListLogGroups", logGroupNamePattern="^/app/b|lpha", limit=1)
    assert listed["logGroups"] == [{
        "logGroupName": "/app/alpha", "logGroupClass": "STANDARD",
        "logGroupArn": "arn:aws:logs:us-east-1:000000000000:log-group:/app/alpha",
    }]  # fmt: skip
    listed = world("logs", "ListLogGroups", logGroupNamePattern="^/app/b|lpha", nextToken=listed["nextToken"])
    assert [group["logGroupName"] for group in listed["logGroups"]] == ["/app/beta"]


def measured(world, name, **dimensions):
    """(sum, count) of a metric of the last hour."""
    world.advance(60.0)
    end = datetime.fromtimestamp(world.clock.now(), UTC)
    found = world(
        "cloudwatch", "GetMetricStatistics", Namespace="n", MetricName=name, StartTime=end - timedelta(hours=1),
        EndTime=end, Period=3_600, Statistics=["Sum", "SampleCount"],
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
    )["Datapoints"]  # fmt: skip
    return (sum(point["Sum"] for point in found), sum(point["SampleCount"] for point in found))


def test_a_metric_filter_counts_what_fits(world):
    world("logs", "CreateLogGroup", logGroupName="g")
    filters = {
        "plain": ("ERROR", metric("errors", defaultValue=0.0)),
        "json": ("{ $.took > 1 }", metric("took", "$.took", dimensions={"Path": "$.path"})),
        "words": ("[ip, status = 5*, size]", metric("sent", "$size", unit="Bytes")),
        "all": (" ", metric("lines")),
    }
    for name, (pattern, made) in filters.items():
        params = {"filterPattern": pattern, "metricTransformations": [made]}
        world("logs", "PutMetricFilter", logGroupName="g", filterName=name, **params)
    write(world, "ERROR one", "fine", '{"took": 2.5, "path": "/ask"}', '{"took": 7}', "10.0.0.1 503 120")
    write(world, "nothing here")
    assert measured(world, "errors") == (1.0, 2.0), "one that fits, one batch with none"
    assert measured(world, "took", Path="/ask") == (2.5, 1.0), "an event without the dimension is not counted"
    assert measured(world, "sent") == (120.0, 1.0) and measured(world, "lines") == (6.0, 6.0)
    shown = world("logs", "DescribeMetricFilters", filterNamePrefix="plain")["metricFilters"]
    assert shown == [{
        "filterName": "plain", "filterPattern": "ERROR", "logGroupName": "g", "applyOnTransformedLogs": False,
        "metricTransformations": [filters["plain"][1]], "creationTime": shown[0]["creationTime"],
    }]  # fmt: skip
    by_metric = world("logs", "DescribeMetricFilters", metricName="took", metricNamespace="n")["metricFilters"]
    assert [one["filterName"] for one in by_metric] == ["json"]
    first = world("logs", "DescribeMetricFilters", limit=3)
    rest = world("logs", "DescribeMetricFilters", limit=3, nextToken=first["nextToken"])
    names = [one["filterName"] for page in (first, rest) for one in page["metricFilters"]]
    assert names == sorted(filters) and "nextToken" not in rest
    world("logs", "DeleteMetricFilter", logGroupName="g", filterName="all")
    write(world, "more")
    assert measured(world, "lines") == (6.0, 6.0)


def test_a_pattern_is_tried(world):
    found = world(
        "logs", "TestMetricFilter", filterPattern="[ip, status = 5*]", logEventMessages=["a 200", "b 503", "c"]
    )["matches"]
    assert found == [
        {"eventNumber": 2, "eventMessage": "b 503", "extractedValues": {"$ip": "b", "$status": "503"}}
    ]


def received(world):
    """The documents that the function got."""
    documents = []
    for event in world.executor.events("f"):
        documents.append(json.loads(gzip.decompress(base64.b64decode(event["awslogs"]["data"]))))
    return documents


def test_a_subscription_filter_sends_what_fits(world):
    world.create("f")
    world("logs", "CreateLogGroup", logGroupName="g")
    world("logs", "PutSubscriptionFilter", **{**SENT, "filterPattern": "test"})
    write(world, "test", "other", "test 2")
    world.advance(5.0)
    (document,) = received(world)
    events = document.pop("logEvents")
    assert document == {
        "messageType": "DATA_MESSAGE", "owner": "000000000000", "logGroup": "g", "logStream": "s",
        "subscriptionFilters": ["f"],
    }  # fmt: skip
    stored = world("logs", "FilterLogEvents", logGroupName="g", filterPattern="test")["events"]
    assert events == [
        {"id": event["eventId"], "timestamp": event["timestamp"], "message": event["message"]} for event in stored
    ]
    world("logs", "PutSubscriptionFilter", **{**SENT, "filterPattern": "[]"})
    shown = world("logs", "DescribeSubscriptionFilters", logGroupName="g")["subscriptionFilters"]
    assert shown == [{
        "filterName": "f", "logGroupName": "g", "filterPattern": "[]", "destinationArn": FUNCTION,
        "distribution": "ByLogStream", "applyOnTransformedLogs": False, "creationTime": shown[0]["creationTime"],
    }]  # fmt: skip
    world("logs", "PutSubscriptionFilter", **{**SENT, "filterName": "second"})
    with pytest.raises(AwsError) as caught:
        world("logs", "PutSubscriptionFilter", **{**SENT, "filterName": "third"})
    assert (caught.value.code, caught.value.message) == ("LimitExceededException", "Resource limit exceeded.")
    world("logs", "DeleteSubscriptionFilter", logGroupName="g", filterName="f")
    world("logs", "DeleteSubscriptionFilter", logGroupName="g", filterName="second")
    write(world, "test 3")
    world.advance(5.0)
    assert len(received(world)) == 1


def test_filters_in_a_template(world):
    world.create("f")
    dimensions = [{"Key": "Path", "Value": "$.path"}]
    made = [{"MetricName": "took", "MetricNamespace": "n", "MetricValue": "$.took", "Dimensions": dimensions}]
    resources = {
        "Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "g"}},
        "Took": {"Type": "AWS::Logs::MetricFilter", "Properties": {
            "LogGroupName": {"Ref": "Group"}, "FilterPattern": "{ $.took > 1 }", "MetricTransformations": made}},
        "Send": {"Type": "AWS::Logs::SubscriptionFilter", "Properties": {
            "LogGroupName": {"Ref": "Group"}, "FilterPattern": "", "DestinationArn": FUNCTION}},
    }  # fmt: skip
    body = json.dumps({"Resources": resources})
    world("cloudformation", "CreateStack", StackName="s", TemplateBody=body)
    world.advance(60.0)
    assert world("cloudformation", "DescribeStacks", StackName="s")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    write(world, '{"took": 3, "path": "/ask"}')
    assert measured(world, "took", Path="/ask") == (3.0, 1.0) and len(received(world)) == 1
    world("cloudformation", "DeleteStack", StackName="s")
    world.advance(60.0)
    assert world("logs", "DescribeMetricFilters")["metricFilters"] == []


def test_a_function_must_let_the_logs_in_where_policies_are_enforced(world):
    world.create("f")
    world("logs", "CreateLogGroup", logGroupName="g")
    world.machine.authorizer = lambda *asked: None
    with pytest.raises(AwsError, match="Make sure you have given CloudWatch Logs permission"):
        world("logs", "PutSubscriptionFilter", **SENT)
    world(
        "lambda", "AddPermission", FunctionName="f", StatementId="logs", Action="lambda:InvokeFunction",
        Principal="logs.us-east-1.amazonaws.com", SourceArn=f"{ARN}:*", SourceAccount="000000000000",
    )  # fmt: skip
    world("logs", "PutSubscriptionFilter", **SENT)
    write(world, "test")
    world.advance(5.0)
    assert [document["logEvents"][0]["message"] for document in received(world)] == ["test"]

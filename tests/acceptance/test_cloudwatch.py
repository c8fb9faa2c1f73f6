"""CloudWatch metrics through boto3: what users put, and what the platform measures by itself."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for


@pytest.fixture
def cloudwatch(aws):
    return aws.client("cloudwatch")


def around(server_now):
    now = datetime.fromtimestamp(server_now, UTC)
    return {"StartTime": now - timedelta(minutes=10), "EndTime": now + timedelta(minutes=10)}


def now_of(aws):
    return json.loads(aws.get("/_preheat/clock")[2])["now"]


def put(cloudwatch, name, now, *data, namespace="Own"):
    stamp = datetime.fromtimestamp(now, UTC)
    cloudwatch.put_metric_data(
        Namespace=namespace, MetricData=[{"MetricName": name, "Timestamp": stamp, **datum} for datum in data]
    )


def test_values_come_back_as_statistics(aws, cloudwatch):
    now = now_of(aws)
    dimensions = [{"Name": "Stage", "Value": "test"}]
    put(
        cloudwatch, "Latency", now, {"Value": 5.0, "Dimensions": dimensions, "Unit": "Milliseconds"},
        {"Values": [10.0, 20.0], "Counts": [2.0, 1.0], "Dimensions": dimensions, "Unit": "Milliseconds"},
    )  # fmt: skip
    answer = cloudwatch.get_metric_statistics(
        Namespace="Own", MetricName="Latency", Dimensions=dimensions, Period=3600, **around(now),
        Statistics=["SampleCount", "Sum", "Average", "Minimum", "Maximum"], ExtendedStatistics=["p50", "p100"],
    )  # fmt: skip
    totals = answer["Datapoints"]
    assert answer["Label"] == "Latency" and sum(point["SampleCount"] for point in totals) == 4
    assert sum(point["Sum"] for point in totals) == 45.0 and max(point["Maximum"] for point in totals) == 20.0
    assert min(point["Minimum"] for point in totals) == 5.0 and {point["Unit"] for point in totals} == {"Milliseconds"}
    assert [point["ExtendedStatistics"]["p50"] for point in totals] == [10.0]


def test_metrics_are_listed_by_name_and_dimension(aws, cloudwatch):
    now = now_of(aws)
    for stage in ("a", "b"):
        put(cloudwatch, "Listed", now, {"Value": 1.0, "Dimensions": [{"Name": "Stage", "Value": stage}]}, namespace="L")
    everything = cloudwatch.list_metrics(Namespace="L")["Metrics"]
    assert [metric["Dimensions"][0]["Value"] for metric in everything] == ["a", "b"]
    [one] = cloudwatch.list_metrics(Namespace="L", Dimensions=[{"Name": "Stage", "Value": "b"}])["Metrics"]
    assert one == {"Namespace": "L", "MetricName": "Listed", "Dimensions": [{"Name": "Stage", "Value": "b"}]}
    assert cloudwatch.list_metrics(Namespace="L", MetricName="other")["Metrics"] == []


def test_a_large_put_comes_compressed(aws, cloudwatch):
    now = now_of(aws)
    put(cloudwatch, "Many", now, *({"Value": float(number)} for number in range(900)))
    [result] = cloudwatch.get_metric_data(
        MetricDataQueries=[
            {"Id": "m", "MetricStat": {"Metric": {"Namespace": "Own", "MetricName": "Many"}, "Period": 3600,
                                       "Stat": "Sum"}}
        ],
        **around(now),
    )["MetricDataResults"]  # fmt: skip
    assert result["Values"] == [900 * 899 / 2] and result["StatusCode"] == "Complete"


def test_what_a_function_does_is_measured(aws, cloudwatch):
    functions = aws.client("lambda")
    code = make_zip({"app.py": "def handler(event, context):\n    return 1 / event['by']\n"})
    functions.create_function(
        FunctionName="measured", Runtime="python3.11", Handler="app.handler", Role=ROLE, Code={"ZipFile": code}
    )
    functions.get_waiter("function_active_v2").wait(FunctionName="measured")
    for divisor in (b'{"by": 1}', b'{"by": 2}', b'{"by": 0}'):
        functions.invoke(FunctionName="measured", Payload=divisor)
    now = now_of(aws)

    def total(metric):
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/Lambda", MetricName=metric, Dimensions=[{"Name": "FunctionName", "Value": "measured"}],
            Period=60, Statistics=["Sum"], **around(now),
        )["Datapoints"]  # fmt: skip
        return sum(point["Sum"] for point in points)

    wait_for(lambda: total("Invocations") == 3, what="three counted invocations")
    assert total("Errors") == 1 and total("Throttles") == 0 and total("Duration") > 0


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"Namespace": "AWS/Lambda", "MetricData": [{"MetricName": "x", "Value": 1.0}]}, "InvalidParameterValue"),
        ({"Namespace": "Own", "MetricData": []}, "MissingParameter"),
        ({"Namespace": "Own", "MetricData": [{"MetricName": "x"}]}, "InvalidParameterCombination"),
        ({"Namespace": "Own", "MetricData": [{"MetricName": "x", "Value": float("nan")}]}, "InvalidParameterValue"),
        (
            {"Namespace": "Own", "MetricData": [{"MetricName": "x", "Value": 1.0, "Timestamp": 0}]},
            "InvalidParameterValue",
        ),
        (
            {"Namespace": "Own", "MetricData": [{"MetricName": "x", "Value": 1.0, "StorageResolution": 7}]},
            "InvalidParameterValue",
        ),
        (
            {"Namespace": "Own", "MetricData": [
                {"MetricName": "x", "Value": 1.0, "Dimensions": [{"Name": "a", "Value": "1"}] * 2}
            ]},
            "InvalidParameterValue",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_put_is_refused(cloudwatch, request_, code):
    with pytest.raises(ClientError) as error:
        cloudwatch.put_metric_data(**request_)
    assert code in error.value.response["Error"]["Code"]


def test_metric_math_is_refused_by_name(aws, cloudwatch):
    with pytest.raises(ClientError, match="metric math is not evaluated here"):
        cloudwatch.get_metric_data(MetricDataQueries=[{"Id": "e", "Expression": "1+1"}], **around(now_of(aws)))


EMBEDDED = """
import json, time

def handler(event, context):
    metrics = [{"Name": "Hits"}, {"Name": "Took", "Unit": "Milliseconds"}]
    directive = {"Namespace": "Rag", "Dimensions": [["Stage"], []], "Metrics": metrics}
    head = {"Timestamp": event["now_ms"], "CloudWatchMetrics": [directive]}
    told = {"_aws": head, "Stage": "test", "Hits": 2, "Took": [10, 30]}
    print(json.dumps(told))
    print('{"_aws": "not a metric"}')
"""


def test_what_a_function_writes_in_the_embedded_format_is_measured(aws, cloudwatch):
    functions = aws.client("lambda")
    functions.create_function(
        FunctionName="embedded", Runtime="python3.11", Role=ROLE, Handler="app.handler",
        Code={"ZipFile": make_zip({"app.py": EMBEDDED})},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="embedded")
    now = now_of(aws)
    payload = json.dumps({"now_ms": int(now * 1_000)})
    for _ in range(3):
        assert "FunctionError" not in functions.invoke(FunctionName="embedded", Payload=payload)

    def statistics(name, dimensions):
        wanted = {"Namespace": "Rag", "MetricName": name, "Dimensions": dimensions, "Period": 3600, **around(now)}
        found = cloudwatch.get_metric_statistics(**wanted, Statistics=["Sum", "SampleCount", "Maximum"])["Datapoints"]
        return [(one["Sum"], one["SampleCount"], one["Maximum"], one["Unit"]) for one in found]

    stage = [{"Name": "Stage", "Value": "test"}]
    wait_for(lambda: statistics("Hits", stage) == [(6.0, 3.0, 2.0, "None")], what="the hits")
    assert statistics("Took", []) == [(120.0, 6.0, 30.0, "Milliseconds")]

"""What an outside tester found wrong once in SQS, S3 and Lambda: odd input through the real wire."""

import base64
import json

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

FAILING = """
def deep():
    raise ValueError("no")

def handler(event, context):
    deep()
"""


@pytest.fixture
def unchecked(aws):
    """A client that lets anything through, as clients in other languages do."""
    config = Config(retries={"max_attempts": 0}, parameter_validation=False)

    def client(service):
        return boto3.client(
            service, endpoint_url=aws.endpoint, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test", config=config,
        )  # fmt: skip

    return client


def refused(operation, **params):
    """(status, code, message) of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        operation(**params)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


@pytest.fixture
def queue(aws):
    return aws.client("sqs").create_queue(QueueName="audit-core")["QueueUrl"]


# -- SQS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [
        {"Foo": {"DataType": "String", "StringValue": "x"}},
        {"AWSTraceHeader": {"DataType": "Number", "StringValue": "1"}},
        {"AWSTraceHeader": {"DataType": "String"}},
    ],
)
def test_message_system_attributes_other_than_a_trace_header_are_refused(unchecked, queue, attributes):
    sqs = unchecked("sqs")
    status, code, message = refused(
        sqs.send_message, QueueUrl=queue, MessageBody="m", MessageSystemAttributes=attributes
    )
    assert (status, code) == (400, "InvalidParameterValue") and next(iter(attributes)) in message


def test_a_batch_entry_with_a_bad_system_attribute_fails_alone(unchecked, queue):
    bad = {"MessageSystemAttributes": {"Foo": {"DataType": "String", "StringValue": "x"}}}
    entries = [{"Id": "1", "MessageBody": "m", **bad}, {"Id": "2", "MessageBody": "m"}]
    answer = unchecked("sqs").send_message_batch(QueueUrl=queue, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["2"]
    assert [(entry["Id"], entry["Code"]) for entry in answer["Failed"]] == [("1", "InvalidParameterValue")]


@pytest.mark.parametrize("raw", [b"\xff" * 20, bytes(4) + b"\xff" * 16, b"short"])
def test_receipt_handles_that_no_queue_gave_are_invalid(unchecked, queue, raw):
    handle = base64.b64encode(raw).decode()
    status, code, _ = refused(unchecked("sqs").delete_message, QueueUrl=queue, ReceiptHandle=handle)
    assert (status, code) == (404, "ReceiptHandleIsInvalid")


@pytest.mark.parametrize("value", ["\u00b2", "1_0", "+5", " 5", "9" * 30])
def test_queue_attributes_take_plain_digits_only(unchecked, queue, value):
    attributes = {"VisibilityTimeout": value}
    status, code, _ = refused(unchecked("sqs").set_queue_attributes, QueueUrl=queue, Attributes=attributes)
    assert (status, code) == (400, "InvalidAttributeValue")


@pytest.mark.parametrize("value", ["1_0", "nan", "0x1", "\u0663"])
def test_number_attributes_take_numbers_only(unchecked, queue, value):
    attributes = {"n": {"DataType": "Number", "StringValue": value}}
    _, code, message = refused(
        unchecked("sqs").send_message, QueueUrl=queue, MessageBody="m", MessageAttributes=attributes
    )
    assert code == "InvalidParameterValue" and message.startswith("Can't cast the value")


def test_throughput_by_group_needs_deduplication_by_group(aws):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="audit.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    per_group = {"FifoThroughputLimit": "perMessageGroupId"}
    assert refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=per_group)[1] == "InvalidAttributeValue"
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"DeduplicationScope": "messageGroup"})
    sqs.set_queue_attributes(QueueUrl=url, Attributes=per_group)
    values = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["FifoThroughputLimit"])["Attributes"]
    assert values == per_group


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ({"redrivePermission": "allowAll"}, True),
        ({"redrivePermission": "denyAll"}, False),
        ({"redrivePermission": "byQueue", "sourceQueueArns": ["{source}"]}, True),
        ({"redrivePermission": "byQueue", "sourceQueueArns": ["{source}x"]}, False),
    ],
)
def test_a_dead_letter_queue_says_whose_it_is(aws, queue, policy, allowed):
    sqs = aws.client("sqs")
    source = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    dead = sqs.create_queue(QueueName="audit-dead")["QueueUrl"]
    text = json.dumps(policy).replace("{source}", source)
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": text})
    target = source.replace("audit-core", "audit-dead")
    redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": 2})}
    if allowed:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes=redrive)
    else:
        status, code, _ = refused(sqs.set_queue_attributes, QueueUrl=queue, Attributes=redrive)
        assert (status, code) == (400, "InvalidParameterValue")
        assert refused(sqs.create_queue, QueueName="audit-new", Attributes=redrive)[1] == "InvalidParameterValue"
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": ""})


def test_query_members_are_numbered_by_digits(aws, queue):
    form = f"Action=SendMessage&Version=2012-11-05&QueueUrl={queue}&MessageBody=m&MessageAttribute.%C2%B2.Name=a"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = aws.get("/", "POST", form.encode(), headers)
    assert status == 200 and b"<MD5OfMessageBody>" in body


# -- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["us-east-1", "nowhere"])
def test_location_constraints_that_are_none(aws, region):
    s3 = aws.client("s3")
    where = {"LocationConstraint": region}
    status, code, message = refused(s3.create_bucket, Bucket="audit-located", CreateBucketConfiguration=where)
    assert (status, code) == (400, "InvalidLocationConstraint")
    assert message == "The specified location-constraint is not valid"
    assert refused(s3.head_bucket, Bucket="audit-located")[0] == 404


# -- Lambda -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [-1, 0, -(2**63), 10_001])
@pytest.mark.parametrize("operation", ["list_functions", "list_layers", "list_event_source_mappings"])
def test_lists_refuse_a_page_size_out_of_range(unchecked, operation, count):
    status, code, message = refused(getattr(unchecked("lambda"), operation), MaxItems=count)
    assert (status, code) == (400, "ValidationException") and "at 'maxItems'" in message


def test_layer_names_that_only_look_like_arns(unchecked):
    functions = unchecked("lambda")
    for name in ("arn:", "arn:aws:x"):
        assert refused(functions.list_layer_versions, LayerName=name)[:2] == (400, "ValidationException")
        assert refused(functions.get_layer_version, LayerName=name, VersionNumber=1)[0] == 400
        content = {"ZipFile": make_zip()}
        assert refused(functions.publish_layer_version, LayerName=name, Content=content)[0] == 400


def test_markers_that_this_server_did_not_give(unchecked):
    functions = unchecked("lambda")
    squared = base64.urlsafe_b64encode("\u00b2".encode()).decode()
    assert functions.list_layer_versions(LayerName="audit-none", Marker=squared)["LayerVersions"] == []


def test_a_traceback_is_logged_without_empty_lines(aws):
    functions, logs = aws.client("lambda"), aws.client("logs")
    functions.create_function(
        FunctionName="audit-failing", Runtime="python3.11", Role=ROLE, Handler="app.handler",
        Code={"ZipFile": make_zip({"app.py": FAILING})},
    )  # fmt: skip
    answer = functions.invoke(FunctionName="audit-failing", Payload=b"{}")
    assert len(json.loads(answer["Payload"].read())["stackTrace"]) == 2

    def logged():
        if not logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/audit-failing")["logGroups"]:
            return None
        found = logs.filter_log_events(logGroupName="/aws/lambda/audit-failing", filterPattern="ValueError")["events"]
        return found and found[0]["message"]

    lines = wait_for(logged, what="the logged error").split("\n")
    assert lines[:2] == ["[ERROR] ValueError: no", "Traceback (most recent call last):"]
    assert all(line.strip() for line in lines) and lines[-1].strip(" \xa0^~") in ("", 'raise ValueError("no")')


def test_timeouts_and_memory_limits_hold_on_a_quiet_server(aws):
    """A timer that fired a fraction of a millisecond early was once lost, and with it the limit it stood for."""
    functions = aws.client("lambda")
    sleeper = "import time\n\ndef handler(event, context):\n    time.sleep(20)\n"
    hog = "kept = []\n\ndef handler(event, context):\n    while True:\n        kept.append(bytearray(b'x') * 10**6)\n"
    for name, code, timeout in (("audit-sleeper", sleeper, 1), ("audit-hog", hog, 20)):
        functions.create_function(
            FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="app.handler", Timeout=timeout,
            Code={"ZipFile": make_zip({"app.py": code})},
        )  # fmt: skip
    for name, error_type in (("audit-sleeper", "Sandbox.Timedout"), ("audit-hog", "Runtime.ExitError")):
        for _ in range(3):
            answer = functions.invoke(FunctionName=name, Payload=b"{}")
            assert json.loads(answer["Payload"].read())["errorType"] == error_type

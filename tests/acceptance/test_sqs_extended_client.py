"""Large messages: the two programs of docs/LARGE_MESSAGES.md with AWS's extended client, and its protocol by hand."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "LARGE_MESSAGES.md"
POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
LENGTH = 5_000_000


def program(number, suffix):
    """The document's program, with names of its own."""
    text = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)[number]
    return text.replace("payloads", f"payloads-{suffix}").replace("documents", f"documents-{suffix}")


def run(aws, text):
    done = subprocess.run(
        [sys.executable, "-c", text], env=aws.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.skipif(
    importlib.util.find_spec("sqs_extended_client") is None, reason="amazon-sqs-extended-client is not installed"
)
def test_the_programs_of_the_document(aws):
    sqs, s3 = aws.client("sqs"), aws.client("s3")
    run(aws, program(0, "a"))
    (held,) = s3.list_objects_v2(Bucket="payloads-a")["Contents"]
    assert held["Size"] == LENGTH
    url = sqs.get_queue_url(QueueName="documents-a")["QueueUrl"]
    found = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, MessageAttributeNames=["All"]
    )["Messages"]
    large, small = sorted(found, key=lambda message: len(message["Body"]), reverse=True)
    assert small["Body"] == "small"
    assert json.loads(large["Body"]) == [POINTER, {"s3BucketName": "payloads-a", "s3Key": held["Key"]}]
    size = {"DataType": "Number", "StringValue": str(LENGTH)}
    assert large["MessageAttributes"] == {"ExtendedPayloadSize": size}
    assert sorted(run(aws, program(1, "a")), key=int) == ["5", str(LENGTH)]
    assert "Contents" not in s3.list_objects_v2(Bucket="payloads-a")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    assert set(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()) == {"0"}


def test_the_protocol_by_hand(aws):
    sqs, s3 = aws.client("sqs"), aws.client("s3")
    s3.create_bucket(Bucket="payloads-b")
    url = sqs.create_queue(QueueName="documents-b")["QueueUrl"]
    payload = "page " * (LENGTH // 5)
    with pytest.raises(sqs.exceptions.ClientError, match="Message must be shorter than 1048576 bytes"):
        sqs.send_message(QueueUrl=url, MessageBody=payload)
    s3.put_object(Bucket="payloads-b", Key="one", Body=payload.encode())
    sqs.send_message(
        QueueUrl=url, MessageBody=json.dumps([POINTER, {"s3BucketName": "payloads-b", "s3Key": "one"}]),
        MessageAttributes={"ExtendedPayloadSize": {"DataType": "Number", "StringValue": str(len(payload))}},
    )  # fmt: skip
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["ExtendedPayloadSize"])["Messages"]
    kind, where = json.loads(message["Body"])
    body = s3.get_object(Bucket=where["s3BucketName"], Key=where["s3Key"])["Body"].read().decode()
    assert kind == POINTER and body == payload
    assert int(message["MessageAttributes"]["ExtendedPayloadSize"]["StringValue"]) == len(body)
    assert "-" not in message["ReceiptHandle"], "the client appends the handle after a hyphen and splits there"

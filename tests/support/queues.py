"""Short words for what tests do with queues through boto3."""

import json

import pytest
from botocore.exceptions import ClientError

ARN = "arn:aws:sqs:us-east-1:000000000000:"
VALUE, PREFIX = "InvalidParameterValue", "AWS.SimpleQueueService."
MIB = 1_048_576


def make(sqs, name, **attributes):
    if name.endswith(".fifo"):
        attributes["FifoQueue"] = "true"
    given = {key: json.dumps(value) if isinstance(value, dict) else str(value) for key, value in attributes.items()}
    return sqs.create_queue(QueueName=name, Attributes=given)["QueueUrl"]


def redrive(name, count):
    return {"deadLetterTargetArn": ARN + name, "maxReceiveCount": count}


def shown(sqs, url, *names):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names) or ["All"]).get("Attributes", {})


def depths(sqs, url):
    found = shown(sqs, url)
    return tuple(int(found["ApproximateNumberOfMessages" + part]) for part in ("", "NotVisible", "Delayed"))


def send(sqs, url, body, group=None, **params):
    if group is not None:
        params["MessageGroupId"] = group
    return sqs.send_message(QueueUrl=url, MessageBody=body, **params)


def receive(sqs, url, limit=10, **params):
    request = {"MessageSystemAttributeNames": ["All"], "MessageAttributeNames": ["All"], **params}
    return sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=limit, **request).get("Messages", [])


def bodies(messages):
    return [message["Body"] for message in messages]


def delete(sqs, url, message):
    return sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def hide(sqs, url, message, seconds):
    handle = message["ReceiptHandle"]
    return sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=seconds)


def refused(call, **params):
    """(code that SDKs see, message, HTTP status)."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def of(name, value, reason):
    """The text of InvalidParameterValue."""
    return f"Value {value} for parameter {name} is invalid. Reason: {reason}"

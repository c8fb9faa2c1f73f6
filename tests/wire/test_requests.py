"""What botocore sends is what operations get: every operation of the services that matter."""

import pytest

from preheat.wire import Wire
from tests.wire.samples import operations, request_of, sample, service_model

SERVICES = (
    "sqs", "lambda", "s3", "dynamodb", "s3vectors", "bedrock-runtime", "apigatewayv2", "logs", "iam", "sts",
    "cloudformation", "ssm", "secretsmanager", "sns", "events", "cloudwatch", "scheduler", "kinesis", "stepfunctions",
    "apigateway", "bedrock", "bedrock-agent-runtime", "application-autoscaling",
)  # fmt: skip
SHADOWED = {
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
    "ListDirectoryBuckets": "ListBuckets",
}
"""S3 operations that are the older form of another with the same method and URI."""
OUT_OF_BAND = {
    ("bedrock-runtime", "InvokeModelWithBidirectionalStream"): "needs HTTP/2",
    ("s3", "WriteGetObjectResponse"): "has a host of its own, and the address of a bucket",
}
WIRE = Wire()


def params_for(service: str, operation: str) -> dict:
    shape = service_model(service).operation_model(operation).input_shape
    return {} if shape is None else sample(shape)


@pytest.mark.parametrize(("service", "operation"), operations(*SERVICES))
def test_every_operation_arrives_as_it_was_sent(service: str, operation: str) -> None:
    if (service, operation) in OUT_OF_BAND:
        pytest.skip(OUT_OF_BAND[service, operation])
    params = params_for(service, operation)
    call = WIRE.understand(request_of(service, operation, params))
    assert (call.service, call.region) == (service, "eu-west-1")
    assert call.operation in (operation, SHADOWED.get(operation))
    if call.operation == operation:
        assert call.params == params


@pytest.mark.parametrize(("service", "operation"), operations(*SERVICES))
def test_required_members_alone_are_enough(service: str, operation: str) -> None:
    if (service, operation) in OUT_OF_BAND:
        pytest.skip(OUT_OF_BAND[service, operation])
    shape = service_model(service).operation_model(operation).input_shape
    required = () if shape is None else shape.required_members
    params = {name: value for name, value in params_for(service, operation).items() if name in required}
    call = WIRE.understand(request_of(service, operation, params))
    assert (call.service, call.operation) == (service, SHADOWED.get(operation, operation))
    if call.operation == operation:
        assert {name: value for name, value in call.params.items() if not is_empty_body(name, value)} == params


def is_empty_body(name: str, value: object) -> bool:
    """What an empty body says of itself, though nobody gave it."""
    return value in (b"", {}) or (name, value) == ("ContentLength", 0)


@pytest.mark.parametrize(("service", "operation"), operations("sqs", "cloudwatch"))
def test_every_operation_over_awsjson_and_cbor(service: str, operation: str) -> None:
    params = params_for(service, operation)
    for protocol in ("json", "smithy-rpc-v2-cbor"):
        call = WIRE.understand(request_of(service, operation, params, protocol))
        assert (call.service, call.operation, call.params) == (service, operation, params)

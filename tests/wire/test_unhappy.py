"""Requests that do not fit: missing members, wrong types, broken bodies; and errors as clients read them."""

import json
from typing import Any

import pytest
from botocore.parsers import create_parser

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.wire import Wire
from tests.wire.test_routing import FORM, LOCAL, ask, form, refusal, signed

WIRE = Wire()


def target(name: str) -> dict[str, str]:
    return {**LOCAL, "x-amz-target": name}


def tell(name: str, body: Any) -> AwsError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return refusal("POST", "/", target(name), raw)[0]


def test_missing_members_in_each_service_s_words() -> None:
    error = tell("AmazonSQS.SendMessage", {"QueueUrl": "u"})
    assert (error.code, error.query_code) == ("MissingRequiredParameterException", "MissingParameter")
    assert error.message == "The request must contain the parameter MessageBody."
    error = tell("DynamoDB_20120810.GetItem", {})
    assert error.code == "ValidationException"
    assert error.message == (
        "2 validation errors detected: Value null at 'tableName' failed to satisfy constraint: Member must not be "
        "null; Value null at 'key' failed to satisfy constraint: Member must not be null"
    )
    nested = {"TableName": "t", "KeySchema": [{"KeyType": "HASH"}], "AttributeDefinitions": []}
    assert "1 validation error detected: Value null at 'keySchema.1.member.attributeName'" in tell(
        "DynamoDB_20120810.CreateTable", nested
    ).message


def test_a_null_member_is_a_missing_member() -> None:
    assert tell("AmazonSQS.SendMessage", {"QueueUrl": "u", "MessageBody": None}).query_code == "MissingParameter"
    call = ask("POST", "/", target("AmazonSQS.SendMessage"), b'{"QueueUrl":"u","MessageBody":"","DelaySeconds":null}')
    assert call.params == {"QueueUrl": "u", "MessageBody": ""}


@pytest.mark.parametrize(
    ("member", "value", "text"),
    [
        ("MessageBody", 5, "NUMBER_VALUE cannot be converted to String"),
        ("MessageBody", True, "TRUE_VALUE cannot be converted to String"),
        ("MessageBody", ["a"], "Start of list found where not expected"),
        ("MessageBody", {"a": 1}, "Start of structure or map found where not expected."),
        ("DelaySeconds", "5", "STRING_VALUE cannot be converted to Integer"),
        ("DelaySeconds", 1.5, "DECIMAL_VALUE cannot be converted to Integer"),
        ("DelaySeconds", False, "FALSE_VALUE cannot be converted to Integer"),
        ("MessageAttributes", "x", "Expected map or null"),
        ("MessageAttributes", {"a": 1}, "Unexpected field type"),
        ("MessageAttributes", {"a": {"DataType": "Binary", "BinaryValue": 7}}, "cannot be converted to ByteBuffer"),
    ],
)
def test_wrong_json_types_are_serialization_errors(member: str, value: Any, text: str) -> None:
    error = tell("AmazonSQS.SendMessage", {"QueueUrl": "u", "MessageBody": "b", member: value})
    assert (error.code, error.status) == ("SerializationException", 400)
    assert text in error.message


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"text"', b"\xff\xfe", b'{"a":1}}', b"[" * 100_000, b'{"QueueUrl":"\xff"}', b"nul"]
)
def test_broken_json_is_a_serialization_error(body: bytes) -> None:
    assert tell("AmazonSQS.SendMessage", body).code == "SerializationException"


def test_whole_floats_are_integers_and_integers_are_floats() -> None:
    call = ask("POST", "/", target("AmazonSQS.ReceiveMessage"), b'{"QueueUrl":"u","MaxNumberOfMessages":3.0}')
    assert call.params["MaxNumberOfMessages"] == 3


def test_errors_of_query_requests() -> None:
    error, body, _ = refusal("POST", "/", signed("sqs", **FORM), form(Action="SendMessage", QueueUrl="u"))
    assert b"<Code>MissingParameter</Code>" in body and error.query_code == "MissingParameter"
    wrong = form(Action="SendMessage", QueueUrl="u", MessageBody="b", DelaySeconds="soon")
    error, body, _ = refusal("POST", "/", signed("sqs", **FORM), wrong)
    assert b"<Code>InvalidParameterValue</Code>" in body and "soon" in error.message
    error, _, _ = refusal("POST", "/", signed("iam", **FORM), form(Action="GetRole"))
    assert error.code == "ValidationError" and "Value null at 'roleName'" in error.message
    error, _, _ = refusal("POST", "/", signed("sns", **FORM), form(Action="Subscribe", Protocol="sqs"))
    missing = "Invalid parameter: TopicArn Reason: no value for required parameter"
    assert (error.code, error.message) == ("InvalidParameter", missing)
    assert refusal("POST", "/", signed("sts", **FORM))[0].code == "InvalidAction"


def test_errors_of_rest_json_requests() -> None:
    error, body, headers = refusal(
        "POST", "/2015-03-31/functions/f/invocations/x", signed("lambda"), b"{}"
    )
    assert error.status == 404
    error, body, headers = refusal("POST", "/2015-03-31/functions", signed("lambda"), b"{]")
    assert headers["x-amzn-errortype"] == "InvalidRequestContentException"
    assert json.loads(body)["Type"] == "User"
    error, _, _ = refusal("POST", "/2015-03-31/functions", signed("lambda"), b"{}")
    assert error.code == "ValidationException" and "'functionName'" in error.message and "'role'" in error.message
    error, _, _ = refusal("GET", "/2015-03-31/functions?MaxItems=many", signed("lambda"))
    assert error.code == "SerializationException" and "MaxItems" in error.message
    wrong = b'{"vectorBucketName":"v","indexName":5}'
    assert refusal("POST", "/GetIndex", signed("s3vectors"), wrong)[0].code == "SerializationException"


DELETE = "/bucket?delete"


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete>",
        b"not xml",
        b"<Other><Object><Key>k</Key></Object></Other>",
        b"<Delete><Object></Object></Delete>",
        b"<Delete><Object><Key>k</Key><Size>big</Size></Object></Delete>",
        b'<!DOCTYPE a [<!ENTITY x "y">]><Delete><Object><Key>&x;</Key></Object></Delete>',
        b"<Delete><Object><Key>\xff</Key></Object></Delete>",
    ],
)
def test_broken_xml_is_malformed(body: bytes) -> None:
    error, text, _ = refusal("POST", DELETE, LOCAL, body)
    assert (error.code, error.status) == ("MalformedXML", 400)
    assert b"<Code>MalformedXML</Code>" in text


def test_other_errors_of_s3_requests() -> None:
    assert refusal("POST", DELETE, LOCAL)[0].code == "MissingRequestBodyError"
    error, body, _ = refusal("GET", "/bucket?max-keys=lots", LOCAL)
    assert (error.code, error.fields) == ("InvalidArgument", {"ArgumentName": "max-keys", "ArgumentValue": "lots"})
    assert b"<ArgumentName>max-keys</ArgumentName><ArgumentValue>lots</ArgumentValue><RequestId>id</RequestId>" in body
    assert "MaxKeys" not in ask("GET", "/bucket?max-keys=").params


def test_xml_with_and_without_a_namespace_is_understood() -> None:
    for xmlns in (b"", b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'):
        call = ask("POST", DELETE, LOCAL, b"<Delete" + xmlns + b"><Object><Key>a&amp;b</Key></Object></Delete>")
        assert call.params == {"Bucket": "bucket", "Delete": {"Objects": [{"Key": "a&b"}]}}


@pytest.mark.parametrize("body", [b"\xff", b"\xa1", b"\x81\x01", b"\xa1\x61a\x01\x01", b"\x01"])
def test_broken_cbor_is_a_serialization_error(body: bytes) -> None:
    headers = {**LOCAL, "smithy-protocol": "rpc-v2-cbor"}
    path = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
    assert refusal("POST", path, headers, body)[0].code == "SerializationException"


def test_query_compatible_errors_have_both_codes() -> None:
    request = HttpRequest("POST", "/", target("AmazonSQS.GetQueueUrl"), b'{"QueueName":"q"}')
    call = WIRE.understand(request)
    older = "AWS.SimpleQueueService.NonExistentQueue"
    error = AwsError("QueueDoesNotExist", "The specified queue does not exist.", query_code=older)
    response = WIRE.error(call, request, error, "id")
    headers = {name.lower(): value for name, value in response.headers}
    assert headers["x-amzn-query-error"] == "AWS.SimpleQueueService.NonExistentQueue;Sender"
    assert json.loads(response.body) == {
        "__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "The specified queue does not exist."
    }
    pieces = {"status_code": response.status, "headers": headers, "body": response.body, "context": {}}
    parsed = create_parser("json").parse(pieces, None)["Error"]
    assert parsed["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert parsed["QueryErrorCode"] == "QueueDoesNotExist"
    server = WIRE.error(call, request, AwsError("InternalFailure", "x", 500), "id")
    assert dict(server.headers)["x-amzn-query-error"] == "InternalFailure;Receiver"


def test_headers_of_an_error_are_sent() -> None:
    request = HttpRequest("GET", "/bucket/key", LOCAL)
    error = AwsError("PreconditionFailed", "no", 412, fields={"Condition": "If-Match"}, headers={"ETag": '"x"'})
    response = WIRE.error(WIRE.understand(request), request, error, "id")
    assert ("ETag", '"x"') in response.headers
    assert b"<Condition>If-Match</Condition>" in response.body
    assert WIRE.error(None, request, AwsError("NotModified", "", 304), "id").body == b""


def test_an_error_text_cannot_break_out_of_its_document() -> None:
    request = HttpRequest("GET", "/bucket/<key>", LOCAL)
    error = AwsError("NoSuchKey", "</Message>&\x01", 404, fields={"Key": "<key>"})
    body = WIRE.error(None, request, error, "id").body
    assert b"<Message>&lt;/Message&gt;&amp;&#x1;</Message><Key>&lt;key&gt;</Key>" in body

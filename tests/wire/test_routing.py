"""Which service, operation, region and bucket a request is for."""

import json
from urllib.parse import urlencode

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest
from preheat.wire import Wire
from preheat.wire.model import load_quirks
from tests.wire.samples import service_model

WIRE = Wire()
LOCAL = {"host": "127.0.0.1:4566"}


def signed(service: str, region: str = "us-east-1", **headers: str) -> dict[str, str]:
    scope = f"AKID/20260301/{region}/{service}/aws4_request"
    return {**LOCAL, "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host", **headers}


def ask(method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Call:
    return WIRE.understand(HttpRequest(method, target, headers or LOCAL, body))


def test_the_routing_table_agrees_with_the_models() -> None:
    for name, entry in load_quirks("routing")["services"].items():
        metadata = service_model(name).metadata
        assert entry["signing"] == metadata.get("signingName", metadata["endpointPrefix"])
        assert entry["host"] == metadata["endpointPrefix"]
        assert entry.get("target") == metadata.get("targetPrefix")
        if "version" in entry:
            assert entry["version"] == metadata["apiVersion"]
        assert entry["protocol"] in (metadata["protocol"], *metadata.get("protocols", ()))


def test_services_and_operations_are_listed() -> None:
    assert {"sqs", "s3", "lambda", "bedrock-runtime"} <= set(WIRE.services())
    assert "SendMessage" in WIRE.operations("sqs")
    with pytest.raises(KeyError):
        WIRE.operations("polly")


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", "/", "ListBuckets"),
        ("GET", "/?x-id=ListBuckets", "ListBuckets"),
        ("GET", "/bucket", "ListObjects"),
        ("GET", "/bucket/", "ListObjects"),
        ("GET", "/bucket?list-type=2&prefix=a", "ListObjectsV2"),
        ("GET", "/bucket?list-type=1", "ListObjects"),
        ("GET", "/bucket?location", "GetBucketLocation"),
        ("GET", "/bucket?location=", "GetBucketLocation"),
        ("GET", "/bucket?notification", "GetBucketNotificationConfiguration"),
        ("GET", "/bucket?analytics", "ListBucketAnalyticsConfigurations"),
        ("GET", "/bucket?analytics&id=1", "GetBucketAnalyticsConfiguration"),
        ("GET", "/bucket/key", "GetObject"),
        ("GET", "/bucket/key?uploadId=1", "ListParts"),
        ("GET", "/bucket/key?attributes", "GetObjectAttributes"),
        ("PUT", "/bucket", "CreateBucket"),
        ("PUT", "/bucket/key", "PutObject"),
        ("PUT", "/bucket/key?partNumber=1&uploadId=u", "UploadPart"),
        ("PUT", "/bucket/key?tagging", "PutObjectTagging"),
        ("POST", "/bucket/key?uploads", "CreateMultipartUpload"),
        ("POST", "/bucket?delete", "DeleteObjects"),
        ("DELETE", "/bucket/key", "DeleteObject"),
        ("DELETE", "/bucket/key?uploadId=u", "AbortMultipartUpload"),
        ("HEAD", "/bucket", "HeadBucket"),
        ("HEAD", "/bucket/key", "HeadObject"),
    ],
)
def test_s3_operations_by_method_and_query(method: str, target: str, operation: str) -> None:
    try:
        assert ask(method, target).operation == operation
    except AwsError as error:
        assert (operation, error.code) in {
            ("DeleteObjects", "MissingRequestBodyError"),
            ("PutObjectTagging", "MissingRequestBodyError"),
            ("GetObjectAttributes", "InvalidRequest"),
        }


def test_copies_are_told_by_their_header() -> None:
    copying = {**LOCAL, "x-amz-copy-source": "/other/key"}
    assert ask("PUT", "/bucket/key", copying).operation == "CopyObject"
    assert ask("PUT", "/bucket/key?partNumber=1&uploadId=u", copying).operation == "UploadPartCopy"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/b/a/b/c", "a/b/c"),
        ("/b/a%2Fb", "a/b"),
        ("/b/a/../../x", "a/../../x"),
        ("/b//leading", "/leading"),
        ("/b/trailing/", "trailing/"),
        ("/b/a//b", "a//b"),
        ("/b/%C3%A9%20%2B+%3F", "é ++?"),
        ("/b/%25", "%"),
    ],
)
def test_keys_may_be_anything(path: str, key: str) -> None:
    assert ask("GET", path).params == {"Bucket": "b", "Key": key}


@pytest.mark.parametrize(
    ("host", "path", "bucket"),
    [
        ("photos.s3.localhost:4566", "/key", "photos"),
        ("photos.s3.us-east-1.localhost:4566", "/key", "photos"),
        ("photos.s3.us-east-1.amazonaws.com", "/key", "photos"),
        ("photos.localhost:4566", "/key", "photos"),
        ("my.dotted.bucket.s3.localhost", "/key", "my.dotted.bucket"),
        ("s3.localhost:4566", "/photos/key", "photos"),
        ("s3.us-east-1.localhost:4566", "/photos/key", "photos"),
        ("localhost:4566", "/photos/key", "photos"),
    ],
)
def test_buckets_in_the_host(host: str, path: str, bucket: str) -> None:
    for headers in ({"host": host}, {**signed("s3"), "host": host}):
        assert ask("GET", path, headers).params == {"Bucket": bucket, "Key": "key"}


def test_regions_come_from_the_credential() -> None:
    assert ask("GET", "/", signed("s3", "eu-north-1")).region == "eu-north-1"
    assert ask("GET", "/").region == "us-east-1"
    query = urlencode({"X-Amz-Date": "20260301T000000Z", "X-Amz-Credential": "AK/20260301/ap-south-1/s3/aws4_request"})
    assert ask("GET", f"/b/k?{query}&X-Amz-Expires=60").region == "ap-south-1"


def test_a_presigned_request_goes_to_the_service_that_it_names() -> None:
    query = urlencode({"X-Amz-Credential": "AK/20260301/us-east-1/lambda/aws4_request"})
    call = ask("GET", f"/2015-03-31/functions?{query}")
    assert (call.service, call.operation, call.params) == ("lambda", "ListFunctions", {})


@pytest.mark.parametrize(
    ("method", "path", "service", "operation"),
    [
        ("POST", "/model/amazon.titan/invoke", "bedrock-runtime", "InvokeModel"),
        ("GET", "/foundation-models", "bedrock", "ListFoundationModels"),
    ],
)
def test_bedrock_is_told_by_its_paths(method: str, path: str, service: str, operation: str) -> None:
    for headers in (signed("bedrock"), LOCAL):
        call = ask(method, path, headers)
        assert (call.service, call.operation) == (service, operation)


def test_api_gateway_is_told_by_its_paths() -> None:
    assert ask("GET", "/v2/apis", signed("apigateway")).service == "apigatewayv2"
    assert ask("GET", "/restapis", signed("apigateway")).service == "apigateway"


def test_connections_behind_a_stage() -> None:
    for path in ("/@connections/abc=", "/prod/@connections/abc%3D"):
        call = ask("POST", path, signed("execute-api"), b"hello")
        assert call.operation == "PostToConnection"
        assert call.params == {"ConnectionId": "abc=", "Data": b"hello"}


def test_unsigned_requests_find_lambda_by_path_and_leave_the_rest_to_s3() -> None:
    call = ask("POST", "/2015-03-31/functions/f/invocations", LOCAL, b"{}")
    assert (call.service, call.operation) == ("lambda", "Invoke")
    assert ask("GET", "/model/key").params == {"Bucket": "model", "Key": "key"}
    assert ask("GET", "/model/key").service == "s3"


def test_a_trailing_slash_of_the_model_is_optional() -> None:
    assert ask("GET", "/2015-03-31/functions/", signed("lambda")).operation == "ListFunctions"
    assert ask("GET", "/2015-03-31/functions", signed("lambda")).operation == "ListFunctions"


def form(**params: str) -> bytes:
    return urlencode(params).encode()


FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


def test_query_services_by_version_and_by_signing_name() -> None:
    body = form(Action="GetCallerIdentity", Version="2011-06-15")
    assert ask("POST", "/", {**LOCAL, **FORM}, body).service == "sts"
    assert ask("POST", "/", signed("sts", **FORM), form(Action="GetCallerIdentity")).service == "sts"
    assert ask("GET", "/?Action=ListTopics&Version=2010-03-31").service == "sns"
    assert ask("POST", "/", signed("monitoring", **FORM), form(Action="ListMetrics")).service == "cloudwatch"


def test_queue_urls_take_query_requests() -> None:
    body = form(Action="SendMessage", Version="2012-11-05", MessageBody="hello")
    expected = {"QueueUrl": "http://127.0.0.1:4566/000000000000/jobs", "MessageBody": "hello"}
    for headers in ({**LOCAL, **FORM}, signed("sqs", **FORM)):
        assert ask("POST", "/000000000000/jobs", headers, body).params == expected
    call = ask("GET", "/000000000000/jobs?Action=SendMessage&MessageBody=hello")
    assert (call.service, call.params) == ("sqs", expected)
    other = "http://127.0.0.1:4566/000000000000/other"
    named = form(Action="SendMessage", MessageBody="hello", QueueUrl=other)
    assert ask("POST", "/000000000000/jobs", {**LOCAL, **FORM}, named).params["QueueUrl"] == other


def refusal(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> tuple[AwsError, bytes, dict]:
    request = HttpRequest(method, target, headers, body)
    with pytest.raises(AwsError) as caught:
        WIRE.understand(request)
    response = WIRE.error(None, request, caught.value, "id")
    assert response.status == caught.value.status
    return caught.value, response.body, {name.lower(): value for name, value in response.headers}


def test_unknown_operations_are_refused_in_the_words_of_their_protocol() -> None:
    for target in ("AmazonSQS.Dance", "Nobody_2020.Dance", "nonsense", ""):
        error, body, headers = refusal("POST", "/", {**LOCAL, "x-amz-target": target}, b"{}")
        assert (error.code, error.status) == ("UnknownOperationException", 400)
        assert json.loads(body)["__type"] == "com.amazon.coral.service#UnknownOperationException"
        assert headers["content-type"] == "application/x-amz-json-1.0"
    error, body, _ = refusal("POST", "/", signed("iam", **FORM), form(Action="Dance", Version="2010-05-08"))
    assert (error.code, error.status) == ("InvalidAction", 400)
    assert error.message == "The action Dance is not valid for this web service."
    assert b"<Code>InvalidAction</Code>" in body and b"<Type>Sender</Type>" in body
    error, _, headers = refusal("GET", "/2015-03-31/nothing", signed("lambda"))
    assert (error.code, error.status) == ("UnknownOperationException", 404)
    assert headers["x-amzn-errortype"] == "UnknownOperationException"
    error, body, headers = refusal("POST", "/bucket", LOCAL)
    assert (error.code, error.status) == ("MethodNotAllowed", 405)
    assert b"<Error><Code>MethodNotAllowed</Code>" in body and "x-amz-request-id" in headers
    cbor = {**LOCAL, "smithy-protocol": "rpc-v2-cbor"}
    for path in ("/service/GraniteServiceVersion20100801/operation/Dance", "/service/Nobody/operation/Dance", "/x"):
        error, _, headers = refusal("POST", path, cbor)
        assert (error.code, error.status) == ("UnknownOperationException", 404)
        assert headers["content-type"] == "application/cbor"


def test_a_table_without_routes_has_no_answer_for_odd_methods() -> None:
    error, _, _ = refusal("PATCH", "/bucket/key", LOCAL)
    assert error.code == "MethodNotAllowed"

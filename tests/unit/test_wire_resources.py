"""What a method and a path mean is remembered; what else a request says counts all the same."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.wire import Wire

SIGNED = "AWS4-HMAC-SHA256 Credential=k/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"


def call(wire, method, target, service="lambda", region="eu-west-1", body=b"", **headers):
    known = {"host": "127.0.0.1:4566", "authorization": SIGNED.format(region=region, service=service)}
    return wire.understand(HttpRequest(method, target, known | headers, body))


def test_a_path_that_came_before_means_the_same():
    wire = Wire()
    path = "/2015-03-31/functions/a%3Ab/invocations"
    for body, region in ((b"1", "eu-west-1"), (b"2", "us-west-2"), (b"3", "eu-west-1")):
        found = call(wire, "POST", path, region=region, body=body)
        assert (found.service, found.operation, found.region) == ("lambda", "Invoke", region)
        assert found.params == {"FunctionName": "a:b", "Payload": body}
    found = call(wire, "POST", path + "?Qualifier=7", **{"x-amz-invocation-type": "Event"})
    assert found.params == {"FunctionName": "a:b", "Qualifier": "7", "InvocationType": "Event"}
    assert call(wire, "POST", path).params == {"FunctionName": "a:b"}


def test_method_and_service_tell_paths_apart():
    wire = Wire()
    path = "/2015-03-31/functions/f"
    for _ in range(2):
        assert call(wire, "GET", path).operation == "GetFunction"
        assert call(wire, "DELETE", path).operation == "DeleteFunction"
        assert call(wire, "GET", path, service="s3").operation == "GetObject"
        with pytest.raises(AwsError):
            call(wire, "PUT", path)


def test_headers_that_choose_the_operation_do_so_every_time():
    wire = Wire()
    for _ in range(2):
        assert call(wire, "PUT", "/b/k", service="s3", body=b"x").operation == "PutObject"
        copied = call(wire, "PUT", "/b/k", service="s3", **{"x-amz-copy-source": "/b/other"})
        assert copied.operation == "CopyObject"
    assert call(wire, "GET", "/2017-03-31/tags/arn").operation == "ListTags"
    with pytest.raises(AwsError):
        call(wire, "GET", "/2017-03-31/tags/arn", **{"smithy-protocol": "rpc-v2-cbor"})


def test_it_does_not_remember_without_end():
    wire = Wire()
    for number in range(5_000):
        assert call(wire, "GET", f"/2015-03-31/functions/f{number}").params == {"FunctionName": f"f{number}"}
    assert len(wire._resources) < 5_000

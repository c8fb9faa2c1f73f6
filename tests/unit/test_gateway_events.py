"""Events, answers, CORS, preludes, addresses and buckets: the pure parts of the front doors."""

import base64
import json

import pytest

from preheat.execution.contract import StreamStart
from preheat.gateway.addressing import Address
from preheat.gateway.bucket_cors import addressed_bucket
from preheat.gateway.execute_api import _Lookup
from preheat.gateway.http_events import (
    SEPARATOR,
    BadHandlerAnswer,
    Cors,
    Origin,
    PreludeReader,
    event_v1,
    event_v2,
    proxy_response,
    response_head,
)
from preheat.gateway.invoking import stream_response
from preheat.gateway.stage_rules import Bucket
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.stream import Channel
from preheat.services.apigatewayv2.domain import map_parameter

HOST = "abc.execute-api.us-east-1.localhost:1"
ORIGIN = Origin("000000000000", "abc", HOST, "$default", "$default", "/p", "r-1", 0.0)
BODY = b'{"a": {"b": 5}, "t": "x", "l": [0, {"x": "y"}]}'


def request(method="GET", target="/p", body=b"", **headers):
    return HttpRequest(method, target, {name.replace("_", "-"): value for name, value in headers.items()}, body)


# -- events -----------------------------------------------------------------------------------------------------------


def test_absent_members_are_left_out_for_an_api_and_null_for_a_url():
    absent = {"cookies", "queryStringParameters", "body", "pathParameters", "stageVariables"}
    assert absent & set(event_v2(request(), ORIGIN)) == set()
    event = event_v2(request(), ORIGIN._replace(for_url=True))
    assert absent & set(event) == {"pathParameters", "stageVariables"}
    assert event["pathParameters"] is event["stageVariables"] is event["requestContext"]["authentication"] is None


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("application/json", b"{}", True),
        ("text/csv; charset=utf-8", b"a,b", True),
        ("application/problem+json", b"{}", True),
        (None, b"plain", True),
        ("application/x-www-form-urlencoded", b"a=b", False),
        ("application/octet-stream", b"abc", False),
        ("text/plain", b"\xff\xfe", False),
    ],
)
def test_which_bodies_are_text(kind, body, text):
    event = event_v2(request("POST", body=body, **({"content_type": kind} if kind else {})), ORIGIN)
    assert event["isBase64Encoded"] is not text
    assert (event["body"].encode() if text else base64.b64decode(event["body"])) == body


def test_times_and_forwarding_headers():
    origin = ORIGIN._replace(now=1_700_000_000.5)
    event = event_v2(request(host="h:8080", x_forwarded_for="1.2.3.4"), origin)
    assert (event["requestContext"]["time"], event["requestContext"]["timeEpoch"]) == (
        "14/Nov/2023:22:13:20 +0000", 1_700_000_000_500,
    )  # fmt: skip
    headers = event["headers"]
    assert (headers["x-forwarded-for"], headers["x-forwarded-port"]) == ("1.2.3.4, 127.0.0.1", "8080")
    old = event_v1(request(host="h", date="Mon, 1 Jan"), origin)
    assert old["requestContext"]["requestTime"] == "14/Nov/2023:22:13:20 +0000"
    assert old["multiValueHeaders"]["date"] == ["Mon, 1 Jan"] and old["headers"]["x-forwarded-for"] == "127.0.0.1"


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body"),
    [("hello", b"hello"), ([1, 2], b"[1,2]"), (5, b"5"), (True, b"true"), (None, b"null"), ({"a": 1}, b'{"a":1}')],
)
def test_a_value_without_a_status_is_a_200(value, body):
    payload = json.dumps(value).encode()
    answer = proxy_response(payload, infer=True)
    assert (answer.status, answer.headers, answer.body) == (200, [("content-type", "application/json")], body)
    with pytest.raises(BadHandlerAnswer):
        proxy_response(payload, infer=False)


def test_a_structured_answer():
    document = {"statusCode": "404", "headers": {"X-A": True, "X-M": "lost", "Connection": "close"},
                "multiValueHeaders": {"x-m": [1, "b"]}, "cookies": ["c=d"], "body": "text"}  # fmt: skip
    answer = proxy_response(json.dumps(document).encode(), infer=False, default_type="text/x")
    assert (answer.status, answer.body) == (404, b"text")
    assert answer.headers == [
        ("x-a", "true"), ("x-m", "1"), ("x-m", "b"), ("set-cookie", "c=d"), ("content-type", "text/x"),
    ]  # fmt: skip
    encoded = {"statusCode": 200, "headers": {"Content-Type": "image/x"}, "body": "AAE=", "isBase64Encoded": True}
    answer = proxy_response(json.dumps(encoded).encode(), infer=True)
    assert (answer.headers, answer.body) == ([("content-type", "image/x")], b"\0\1")
    assert proxy_response(b'{"statusCode": 204}', infer=True).body == b""


@pytest.mark.parametrize(
    "document",
    [
        {"statusCode": "abc"},
        {"statusCode": None},
        {"statusCode": 99},
        {"statusCode": 1000},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"a\r\nb": "c"}},
        {"statusCode": 200, "multiValueHeaders": {"a": "b"}},
        {"statusCode": 200, "cookies": "a=b"},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
    ],
)
def test_what_is_no_response(document):
    with pytest.raises(BadHandlerAnswer):
        proxy_response(json.dumps(document).encode(), infer=True)


# -- preludes ---------------------------------------------------------------------------------------------------------

PRELUDE = b'{"statusCode":201,"cookies":["a=b"]}'


def test_a_prelude_is_found_wherever_the_chunks_break():
    data = PRELUDE + SEPARATOR + b"payload\0\0\0\0\0\0\0\0more"
    for cut in range(1, len(data)):
        reader = PreludeReader()
        found = reader.feed(data[:cut])
        rest = data[cut:]
        if found is None:
            found, rest = reader.feed(rest), b""
        assert found is not None, cut
        assert found[0]["statusCode"] == 201 and found[1] + rest == data[len(PRELUDE) + 8 :], cut
    assert response_head(found[0]) == (201, [("set-cookie", "a=b")])


def test_an_empty_prelude_and_bad_ones():
    assert PreludeReader().feed(SEPARATOR + b"x") == ({}, b"x")
    for data in (b"{" + SEPARATOR, b"[]" + SEPARATOR, b"x" * 20_000, b" " * 16_384 + b"{}" + SEPARATOR):
        with pytest.raises(BadHandlerAnswer):
            PreludeReader().feed(data)


class Taker:
    """Stands where a connection's exchange does."""

    on_gone = None

    def __init__(self):
        self.responses = []

    def respond(self, response):
        self.responses.append(response)


@pytest.mark.parametrize("data", [b"{", b"{broken" + SEPARATOR])
def test_a_stream_without_a_prelude_is_a_502_with_the_doors_headers(data):
    chunks, taker = Channel(), Taker()
    start = StreamStart("application/vnd.awslambda.http-integration-response", chunks)
    stream_response(start, taker, lambda response: response.headers.append(("x-door", "1")))
    chunks.send(data)
    chunks.close()
    (response,) = taker.responses
    assert response.status == 502 and ("x-door", "1") in response.headers


def test_a_paused_reader_pauses_the_function():
    chunks, taker, said = Channel(), Taker(), []
    chunks.on_resume = lambda: said.append("resume")
    chunks.on_cancel = lambda: said.append("cancel")
    stream_response(StreamStart("text/plain", chunks), taker, lambda response: None)
    body = taker.responses[0].body
    body.pause()
    assert chunks.paused
    body.resume()
    body.cancel()
    assert not chunks.paused and said == ["resume", "cancel"]


# -- CORS -------------------------------------------------------------------------------------------------------------


def test_cors_of_apis_and_urls():
    assert Cors.of(None) is None and Cors.of({}) is None
    wide = Cors.of({"AllowOrigins": ["*"], "AllowMethods": ["*"]})
    assert wide.headers_for("https://a", preflight=True) == [
        ("access-control-allow-origin", "*"), ("access-control-allow-methods", "*"),
    ]  # fmt: skip
    assert wide.headers_for(None, preflight=False) == []
    named = Cors.of({"AllowOrigins": ["https://*.a.test"], "AllowCredentials": True})
    assert ("access-control-allow-origin", "https://x.a.test") in named.headers_for("https://x.a.test", preflight=False)
    assert not named.allows("https://a.test") and not named.allows("http://x.a.test")
    assert not Cors(("ab*ba",)).allows("aba")
    response = HttpResponse(200, [("Access-Control-Allow-Origin", "other"), ("x", "y")])
    named.apply(response, "https://evil.test")
    assert response.headers == [("x", "y")]


# -- addresses --------------------------------------------------------------------------------------------------------


def test_addresses():
    address = Address("lambda-url", ("localhost", "on.aws"), "/_aws/lambda-url/")
    for host in ("abc.lambda-url.eu-west-1.localhost", "abc.lambda-url.eu-west-1.on.aws:443"):
        assert address.matches(request(target="/x/y?z", host=host))
        assert address.split(request(target="/x/y?z", host=host)) == ("abc", "/x/y")
    by_path = request(target="/_aws/lambda-url/abc", host="localhost:4566")
    assert address.matches(by_path) and address.split(by_path) == ("abc", "/")
    for host in ("abc.lambda-url.eu-west-1.evil", "a.b.lambda-url.x.localhost", "lambda-url.x.localhost", ""):
        assert not address.matches(request(host=host))


def test_which_requests_address_a_bucket():
    signed = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
    assert addressed_bucket(request(target="/b/key")) == "b"
    assert addressed_bucket(request(target="/key", host="b.s3.localhost:4566")) == "b"
    assert addressed_bucket(request(target="/b/k", authorization=signed.format("s3"))) == "b"
    assert addressed_bucket(request(target="/", host="localhost")) is None
    assert addressed_bucket(request(target="/b/k", authorization=signed.format("lambda"))) is None
    assert addressed_bucket(request("POST", "/b", x_amz_target="AmazonSQS.SendMessage")) is None
    assert addressed_bucket(request(target="/123456789012/q?Action=SendMessage")) is None


# -- HTTP APIs --------------------------------------------------------------------------------------------------------


def test_a_token_bucket():
    bucket = Bucket(2.0, 3.0, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("$request.body", BODY.decode()),
        ("$request.body.a.b", "5"),
        ("$request.body.a", '{"b":5}'),
        ("$request.body.t", "x"),
        ("$request.body.t.u", ""),
        ("$request.body.none", ""),
        ("[$request.body.l[1].x, $request.body.l[2], $request.body.l]", '[y, , [0,{"x":"y"}]]'),
        ("${request.path.id}-${stageVariables.colour}", "7-red"),
        ("$request.header.X-A", "1"),
        ("$request.querystring.q", "1,2"),
        ("$request.path", "/p"),
        ("$context.requestId/$context.stage", "r-1/$default"),
        ("static text", "static text"),
        ("costs $5", "costs $5"),
    ],
)
def test_mapping_expressions(template, value):
    asked = request("POST", "/p?q=1&q=2", BODY, x_a="1")
    origin = ORIGIN._replace(path_parameters={"id": "7"}, stage_variables={"colour": "red"})
    assert map_parameter(template, _Lookup(asked, origin)) == value


def test_a_body_that_is_no_json_has_no_members():
    assert map_parameter("[$request.body.a]", _Lookup(request("POST", body=b"text"), ORIGIN)) == "[]"

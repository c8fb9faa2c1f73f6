"""Function URLs with real handlers, by host name and by path."""

import base64
import http.client
import json
import time

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

ECHO = """
import base64

def handler(event, context):
    path = event["rawPath"]
    if path == "/text":
        return "hello"
    if path == "/list":
        return [1, {"a": "ü"}]
    if path == "/full":
        headers = {"X-A": "b", "Content-Type": "image/x", "Access-Control-Allow-Origin": "no"}
        return {"statusCode": 201, "headers": headers,
                "cookies": ["a=1; Path=/", "b=2"], "body": base64.b64encode(bytes(range(256))).decode(),
                "isBase64Encoded": True}
    if path == "/bad":
        return {"statusCode": "no number"}
    if path == "/raise":
        raise ValueError("oh")
    return {"statusCode": 200, "body": __import__("json").dumps(event)}
"""

STREAM = """
import boto3, select

def wait_for(key):
    objects = boto3.client("s3")
    for _ in range(1000):
        if objects.list_objects_v2(Bucket="url-signals", Prefix=key)["KeyCount"]:
            return
        select.select([], [], [], 0.02)
    raise TimeoutError(key)

def handler(event, context):
    query = event.get("queryStringParameters") or {}
    path = event["rawPath"]
    if path == "/prelude":
        headers = {"content-type": "text/event-stream", "x-a": "b"}
        yield {"statusCode": 418, "headers": headers, "cookies": ["c=1", "d=2"]}
    yield b"first "
    if path == "/fail":
        raise ValueError("half-way")
    if "wait" in query:
        wait_for(query["wait"])
    yield b"second"
"""


@pytest.fixture
def function(aws):
    client = aws.client("lambda")
    names = []

    def create(name, source=ECHO, **url):
        client.create_function(
            FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=30,
            Code={"ZipFile": make_zip({"app.py": source})},
        )  # fmt: skip
        names.append(name)
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        settings = {"AuthType": "NONE", **url}
        return client.create_function_url_config(FunctionName=name, **settings)["FunctionUrl"]

    yield create
    for name in names:
        client.delete_function(FunctionName=name)


def host_of(url):
    return url.partition("://")[2].rstrip("/")


def ask(aws, url, path="/", method="GET", body=None, headers=None):
    """(status, lower-case headers, body) under the URL's own host name."""
    status, got, data = aws.get(path, method, body, {"Host": host_of(url), **(headers or {})})
    return status, {name.lower(): value for name, value in got.items()}, data


def test_the_event_and_the_answer(aws, function):
    url = function("url-echo")
    headers = {"Cookie": "a=1; b=2", "X-Many": "1", "User-Agent": "tests", "Content-Type": "application/json"}
    status, answered, body = ask(aws, url, "/a%20b/c?x=1&x=2&y=%C3%BC&z=", "POST", b'{"q": 1}', headers)
    event = json.loads(body)
    assert (status, answered["content-type"]) == (200, "application/json")
    assert (event["version"], event["routeKey"], event["rawPath"]) == ("2.0", "$default", "/a b/c")
    assert event["rawQueryString"] == "x=1&x=2&y=%C3%BC&z="
    assert event["queryStringParameters"] == {"x": "1,2", "y": "ü", "z": ""}
    assert event["cookies"] == ["a=1", "b=2"] and "cookie" not in event["headers"]
    assert event["headers"]["x-many"] == "1" and event["headers"]["host"] == host_of(url)
    assert (event["body"], event["isBase64Encoded"]) == ('{"q": 1}', False)
    assert event["pathParameters"] is None and event["stageVariables"] is None
    context = event["requestContext"]
    assert context["apiId"] == context["domainPrefix"] == host_of(url).partition(".")[0]
    assert (context["accountId"], context["stage"], context["authentication"]) == ("anonymous", "$default", None)
    assert context["http"]["method"] == "POST" and context["http"]["userAgent"] == "tests"
    by_path = json.loads(aws.get(f"/_aws/lambda-url/{context['apiId']}/sub/path?k=v")[2])
    assert (by_path["rawPath"], by_path["queryStringParameters"]) == ("/sub/path", {"k": "v"})


def test_bytes_go_both_ways(aws, function):
    url = function("url-bytes")
    data = bytes(range(256))
    event = json.loads(ask(aws, url, "/", "PUT", data, {"Content-Type": "application/octet-stream"})[2])
    assert event["isBase64Encoded"] and base64.b64decode(event["body"]) == data
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=30)
    connection.request("GET", "/full", headers={"Host": host_of(url)})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("x-a"), answer.getheader("content-type")) == (201, "b", "image/x")
    assert answer.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"] and answer.read() == data
    connection.close()


def test_what_a_handler_returns_without_a_status(aws, function):
    url = function("url-inferred")
    assert ask(aws, url, "/text")[::2] == (200, b"hello")
    status, headers, body = ask(aws, url, "/list")
    assert (status, headers["content-type"], body) == (200, "application/json", '[1,{"a":"ü"}]'.encode())


@pytest.mark.parametrize("path", ["/bad", "/raise"])
def test_a_handler_that_fails_is_a_502(aws, function, path):
    status, headers, body = ask(aws, function(f"url-fails{path.strip('/')}"), path)
    assert (status, body, headers["content-type"]) == (502, b"Internal Server Error", "text/plain")


def test_unknown_deleted_throttled_and_too_large(aws, function):
    status, headers, body = aws.get("/_aws/lambda-url/nosuchurl/")
    assert (status, json.loads(body)) == (403, {"Message": None})
    assert {name.lower(): value for name, value in headers.items()}["x-amzn-errortype"] == "AccessDeniedException"
    url = function("url-ends")
    client = aws.client("lambda")
    assert ask(aws, url, "/", "POST", b"x" * (6 * 1024 * 1024 + 1))[0] == 413
    client.put_function_concurrency(FunctionName="url-ends", ReservedConcurrentExecutions=0)
    status, headers, _ = ask(aws, url)
    assert (status, headers["x-amzn-errortype"]) == (429, "TooManyRequestsException")
    client.delete_function_concurrency(FunctionName="url-ends")
    assert ask(aws, url)[0] == 200
    client.delete_function_url_config(FunctionName="url-ends")
    assert ask(aws, url)[0] == 403


def test_cors(aws, function):
    url = function(
        "url-cors",
        Cors={"AllowOrigins": ["https://a.test"], "AllowMethods": ["GET", "PUT"], "AllowHeaders": ["x-a"],
              "ExposeHeaders": ["x-b"], "MaxAge": 30, "AllowCredentials": True},
    )  # fmt: skip
    asked = {"Origin": "https://a.test", "Access-Control-Request-Method": "PUT"}
    status, headers, body = ask(aws, url, "/", "OPTIONS", None, asked)
    assert (status, body) == (200, b"") and headers["access-control-allow-methods"] == "GET,PUT"
    assert headers["access-control-allow-headers"] == "x-a" and headers["access-control-max-age"] == "30"
    _, headers, _ = ask(aws, url, "/full", headers={"Origin": "https://a.test"})
    assert headers["access-control-allow-origin"] == "https://a.test"
    assert headers["access-control-expose-headers"] == "x-b" and headers["access-control-allow-credentials"] == "true"
    refused = {"Origin": "https://b.test"}
    assert "access-control-allow-origin" not in ask(aws, url, "/full", headers=refused)[1]
    assert "access-control-allow-methods" not in ask(aws, url, "/", "OPTIONS", None, asked | refused)[1]


# -- streams ----------------------------------------------------------------------------------------------------------


def begin(aws, url, path):
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=30)
    connection.request("GET", path, headers={"Host": host_of(url)})
    return connection, connection.getresponse()


@pytest.fixture
def signal(aws):
    """Lets a handler go on that waits for this object. A function sees no file of the test's."""
    objects = aws.client("s3")
    objects.create_bucket(Bucket="url-signals")
    return lambda key: objects.put_object(Bucket="url-signals", Key=key, Body=b"go")


def test_the_first_chunk_is_here_before_the_second_is_made(aws, function, signal):
    url = function("url-stream", STREAM, InvokeMode="RESPONSE_STREAM")
    connection, answer = begin(aws, url, "/?wait=second")
    assert answer.status == 200 and answer.getheader("content-type") == "application/octet-stream"
    assert answer.read1() == b"first "
    signal("second")
    assert answer.read() == b"second"
    connection.close()


def test_the_prelude_makes_status_headers_and_cookies(aws, function):
    url = function("url-prelude", STREAM, InvokeMode="RESPONSE_STREAM")
    connection, answer = begin(aws, url, "/prelude")
    assert (answer.status, answer.getheader("content-type"), answer.getheader("x-a")) == (418, "text/event-stream", "b")
    assert answer.headers.get_all("set-cookie") == ["c=1", "d=2"] and answer.read() == b"first second"
    connection.close()


def test_a_stream_that_fails_half_way_has_no_clean_end(aws, function):
    url = function("url-half", STREAM, InvokeMode="RESPONSE_STREAM")
    connection, answer = begin(aws, url, "/fail")
    with pytest.raises(http.client.IncompleteRead) as failure:
        answer.read()
    assert failure.value.partial == b"first "
    connection.close()


def test_a_url_that_buffers_gives_a_stream_whole(aws, function):
    url = function("url-buffers", STREAM)
    status, headers, body = ask(aws, url, "/prelude")
    assert (status, headers["content-type"], body) == (418, "text/event-stream", b"first second")


def test_a_url_that_streams_takes_a_handler_that_does_not(aws, function):
    url = function("url-plain", ECHO, InvokeMode="RESPONSE_STREAM")
    assert ask(aws, url, "/text")[::2] == (200, b"hello")
    assert ask(aws, url, "/raise")[0] == 502


def test_a_reader_that_leaves_does_not_hold_the_function(aws, function, signal):
    url = function("url-left", STREAM, InvokeMode="RESPONSE_STREAM")
    aws.client("lambda").put_function_concurrency(FunctionName="url-left", ReservedConcurrentExecutions=1)
    connection, answer = begin(aws, url, "/?wait=left")
    assert answer.read1() == b"first "
    connection.close()
    answer.close()
    signal("left")
    wait_for(lambda: ask(aws, url)[2] == b"first second", what="the function's being free again")


# -- AWS_IAM ----------------------------------------------------------------------------------------------------------


def signed(url, path, access_key, secret):
    request = AWSRequest("GET", f"http://{host_of(url)}{path}", headers={"Host": host_of(url)})
    SigV4Auth(Credentials(access_key, secret), "lambda", "us-east-1").add_auth(request)
    return dict(request.headers.items())


def test_aws_iam_takes_a_known_callers_signature_and_nothing_else(fresh_server):
    server = fresh_server()
    functions, iam = server.client("lambda"), server.client("iam")
    functions.create_function(
        FunctionName="f", Runtime="python3.11", Handler="app.handler", Role=ROLE,
        Code={"ZipFile": make_zip({"app.py": ECHO})},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={"Delay": 1})
    url = functions.create_function_url_config(FunctionName="f", AuthType="AWS_IAM")["FunctionUrl"]
    assert ask(server, url)[0] == 403
    iam.create_user(UserName="reader")
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    good = signed(url, "/x", key["AccessKeyId"], key["SecretAccessKey"])
    status, _, body = ask(server, url, "/x", headers=good)
    assert status == 200
    event = json.loads(body)
    assert event["requestContext"]["authorizer"]["iam"]["userArn"] == "arn:aws:iam::000000000000:user/reader"
    assert event["requestContext"]["accountId"] == "000000000000"
    wrong = [
        {},
        signed(url, "/x", key["AccessKeyId"], "not the secret"),
        signed(url, "/x", "AKIAUNKNOWNUNKNOWN00", key["SecretAccessKey"]),
        signed(url, "/other", key["AccessKeyId"], key["SecretAccessKey"]),
        {"Authorization": "AWS4-HMAC-SHA256 nonsense"},
    ]
    for headers in wrong:
        status, answered, body = ask(server, url, "/x", headers=headers)
        assert status == 403 and json.loads(body)["Message"].startswith("Forbidden. For troubleshooting"), headers
        assert answered["x-amzn-errortype"] == "AccessDeniedException"


# -- aliases, traces, metrics -----------------------------------------------------------------------------------------


def test_the_clients_trace_goes_on(aws, function):
    source = "import os\ndef handler(event, context):\n    return os.environ['_X_AMZN_TRACE_ID']\n"
    url = function("url-trace", source)
    root = "1-5759e988-bd862e3fe1be46a994272793"
    header = f"Root={root};Parent=53995c3f42cd8ad8;Sampled=1;Lineage=aaaaaaaa:15"
    text = ask(aws, url, headers={"X-Amzn-Trace-Id": header})[2].decode()
    assert f"Root={root}" in text and "Sampled=1" in text and "aaaaaaaa" not in text
    assert root not in ask(aws, url)[2].decode()


def test_preflights_without_rules_go_to_the_function_and_wide_rules_answer_anybody(aws, function):
    preflight = {"Origin": "https://x.test", "Access-Control-Request-Method": "PUT"}
    status, headers, body = ask(aws, function("url-nocors"), "/", "OPTIONS", None, preflight)
    assert (status, json.loads(body)["requestContext"]["http"]["method"]) == (200, "OPTIONS")
    assert "access-control-allow-origin" not in headers
    wide = function("url-wide", Cors={"AllowOrigins": ["*"], "AllowMethods": ["*"], "AllowHeaders": ["*"]})
    status, headers, body = ask(aws, wide, "/", "OPTIONS", None, preflight)
    assert (status, body, headers["access-control-allow-origin"]) == (200, b"", "*")
    assert headers["access-control-allow-methods"] == "*" and headers["access-control-allow-headers"] == "*"


def counts(server, name, **dimensions):
    """Sums of the URL metrics of a function in the last hour."""
    now = time.time()
    watch = server.client("cloudwatch")
    given = [{"Name": key, "Value": value} for key, value in {"FunctionName": name, **dimensions}.items()]
    found = {}
    for metric in ("UrlRequestCount", "Url4xxCount", "Url5xxCount", "UrlRequestLatency"):
        points = watch.get_metric_statistics(
            Namespace="AWS/Lambda", MetricName=metric, Dimensions=given, StartTime=now - 3_600,
            EndTime=now + 3_600, Period=3_600, Statistics=["Sum", "SampleCount"],
        )["Datapoints"]  # fmt: skip
        statistic = "SampleCount" if metric == "UrlRequestLatency" else "Sum"
        found[metric] = sum(point[statistic] for point in points)
    return found


def test_what_a_url_serves_is_counted(aws, function):
    url = function("url-counted")
    client = aws.client("lambda")
    client.publish_version(FunctionName="url-counted")
    client.create_alias(FunctionName="url-counted", Name="live", FunctionVersion="1")
    of_alias = client.create_function_url_config(FunctionName="url-counted", Qualifier="live", AuthType="AWS_IAM")
    listed = client.list_function_url_configs(FunctionName="url-counted")["FunctionUrlConfigs"]
    assert [one["FunctionArn"].rpartition(":")[2] for one in listed] == ["url-counted", "live"]
    assert [ask(aws, url, path)[0] for path in ("/", "/text", "/raise")] == [200, 200, 502]
    assert ask(aws, of_alias["FunctionUrl"])[0] == 403
    expected = {"UrlRequestCount": 4, "Url4xxCount": 1, "Url5xxCount": 1, "UrlRequestLatency": 4}
    wait_for(lambda: counts(aws, "url-counted") == expected, what="the metrics of the function")
    of_name = {"UrlRequestCount": 1, "Url4xxCount": 1, "Url5xxCount": 0, "UrlRequestLatency": 1}
    assert counts(aws, "url-counted", Resource="url-counted:live") == of_name

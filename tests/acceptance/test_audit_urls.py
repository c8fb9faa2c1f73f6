"""Function URLs and response streams, claim by claim, over plain sockets."""

import base64
import binascii
import http.client
import json
import socket
import struct
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip

ANSWERS = """
import os

def handler(event, context):
    query = event.get("queryStringParameters") or {}
    if event["rawPath"] == "/event":
        return event
    if event["rawPath"] == "/exit":
        os._exit(3)
    if event["rawPath"] == "/large":
        return "x" * int(query["n"])
    return eval(query["e"])
"""
STREAMS = """
import os

def handler(event, context):
    mode = event.get("mode") or (event.get("queryStringParameters") or {}).get("mode")
    if mode == "early":
        raise KeyError("early")
    if mode == "prelude":
        yield {"statusCode": 201, "headers": {"x-a": "1"}, "cookies": ["c=1"]}
    yield "a"
    yield b"\\x00b"
    if mode == "mid":
        raise ValueError("mid")
    if mode == "exit":
        os._exit(3)
    if mode and mode.startswith("mb"):
        for _ in range(int(mode[2:])):
            yield b"z" * (1 << 20)
"""
ASYNCHRONOUS = """
import asyncio

async def handler(event, context):
    for number in range(3):
        await asyncio.sleep(0)
        yield f"n{number} "
"""


def make(server, name, source, **url):
    functions = server.client("lambda")
    functions.create_function(
        FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=30, MemorySize=512,
        Code={"ZipFile": make_zip({"app.py": source})},
    )  # fmt: skip
    return functions.create_function_url_config(FunctionName=name, **{"AuthType": "NONE", **url})["FunctionUrl"]


@pytest.fixture(scope="module")
def answers(aws):
    return make(aws, "audit-answers", ANSWERS)


@pytest.fixture(scope="module")
def streams(aws):
    return make(aws, "audit-streams", STREAMS, InvokeMode="RESPONSE_STREAM")


def raw(server, target, method="GET", body=b"", headers=()):
    """(status, [(lower-case name, value)], body as it was on the wire) of one request on a socket of its own."""
    host, _, path = target.partition("://")[2].partition("/")
    lines = [f"{method} /{path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        with connection.makefile("rb") as reader:
            data = reader.read()
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    pairs = [field.partition(": ")[::2] for field in fields]
    return int(first.split()[1]), [(name.lower(), value) for name, value in pairs], rest


def ask(server, url, path="", **request):
    """(status, headers by name, body)."""
    status, headers, body = raw(server, url + path, **request)
    return status, dict(headers), body


# -- what handlers return ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "status", "kind", "body"),
    [
        ("{'a': 1}", 200, "application/json", b'{"a":1}'),
        ("'text'", 200, "application/json", b"text"),
        ("''", 200, "application/json", b""),
        ("5", 200, "application/json", b"5"),
        ("1.5", 200, "application/json", b"1.5"),
        ("True", 200, "application/json", b"true"),
        ("None", 200, "application/json", b"null"),
        ("[1, 'ü']", 200, "application/json", '[1,"ü"]'.encode()),
        ("{'body': 'no status'}", 200, "application/json", b'{"body":"no status"}'),
        ("{'statusCode': 200}", 200, "application/json", b""),
        ("{'statusCode': '201', 'body': 'x'}", 201, "application/json", b"x"),
        ("{'statusCode': 500, 'body': 'own'}", 500, "application/json", b"own"),
        ("{'statusCode': 204}", 204, "application/json", b""),
        ("{'statusCode': 200, 'body': None}", 200, "application/json", b""),
        ("{'statusCode': 200, 'body': 'ü'}", 200, "application/json", "ü".encode()),
        ("{'statusCode': 200, 'body': 'aGk=', 'isBase64Encoded': True}", 200, "application/json", b"hi"),
        ("{'statusCode': 200, 'headers': {'Content-Type': 'text/html'}, 'body': '<p>'}", 200, "text/html", b"<p>"),
        ("b'\\x00\\x01'", 200, "application/unknown", b"\x00\x01"),
    ],
)
def test_what_becomes_of_a_value(aws, answers, value, status, kind, body):
    found, headers, got = ask(aws, answers, f"?e={quote(value)}")
    assert (found, headers["content-type"], got) == (status, kind, body)


@pytest.mark.parametrize(
    "value",
    [
        "{'statusCode': 99}", "{'statusCode': 100}", "{'statusCode': 199}", "{'statusCode': 600}",
        "{'statusCode': None}", "{'statusCode': True}", "{'statusCode': 200.5}", "{'statusCode': 'x'}",
        "{'statusCode': 200, 'body': [1]}", "{'statusCode': 200, 'body': 5}",
        "{'statusCode': 200, 'body': '!!', 'isBase64Encoded': True}", "{'statusCode': 200, 'headers': 'x'}",
        "{'statusCode': 200, 'headers': {'bad name': 'x'}}", "{'statusCode': 200, 'headers': {'x-a': [1]}}",
        "{'statusCode': 200, 'cookies': 'a=1'}", "{'statusCode': 200, 'multiValueHeaders': {'x-a': 'x'}}",
        "1 / 0", "object()",
    ],
)  # fmt: skip
def test_a_value_that_is_no_response_is_a_502(aws, answers, value):
    status, headers, body = ask(aws, answers, f"?e={quote(value)}")
    assert (status, headers["content-type"], body) == (502, "text/plain", b"Internal Server Error")


def test_headers_and_cookies_of_a_response(aws, answers):
    value = {
        "statusCode": 200, "body": "hey", "cookies": ["a=1; Path=/", "b=2"], "multiValueHeaders": {"X-M": ["1", "2"]},
        "headers": {
            "X-N": 5, "X-B": True, "X-Null": None, "Content-Length": "99", "Transfer-Encoding": "chunked",
            "Connection": "keep-alive", "X-Split": "a\r\nX-Evil: 1",
        },
    }  # fmt: skip
    status, headers, body = raw(aws, f"{answers}?e={quote(repr(value))}")
    assert (status, body) == (200, b"hey")
    assert [text for name, text in headers if name == "set-cookie"] == ["a=1; Path=/", "b=2"]
    assert [text for name, text in headers if name == "x-m"] == ["1", "2"]
    named = dict(headers)
    assert (named["x-n"], named["x-b"], named["content-length"]) == ("5", "true", "3")
    assert not {"x-null", "x-evil", "transfer-encoding"} & set(named) and named["connection"] == "close"


def test_the_event_of_an_odd_request(aws, answers):
    headers = [("A", "1"), ("A", "2"), ("Cookie", "x=1"), ("Cookie", "y=2; z=3")]
    event = json.loads(ask(aws, answers, "event?k=a%26b&k=2&flag&e=", method="DELETE", headers=headers)[2])
    assert event["headers"]["a"] == "1,2" and event["cookies"] == ["x=1", "y=2", "z=3"]
    assert event["queryStringParameters"] == {"k": "a&b,2", "flag": "", "e": ""}
    assert event["rawQueryString"] == "k=a%26b&k=2&flag&e=" and "body" not in event
    assert event["requestContext"]["http"]["method"] == "DELETE" and not event["isBase64Encoded"]
    binary = json.loads(ask(aws, answers, "event", method="POST", body=b"\xff\x00")[2])
    assert binary["isBase64Encoded"] and base64.b64decode(binary["body"]) == b"\xff\x00"
    status, named, body = ask(aws, answers, "event", method="HEAD")
    assert status == 200 and int(named["content-length"]) > 100 and body == b""


def test_error_answers(aws, answers):
    assert ask(aws, answers, "exit")[::2] == (502, b"Internal Server Error")
    limit = 6 * 1024 * 1024
    assert ask(aws, answers, f"large?n={limit - 2}")[0] == 200
    assert ask(aws, answers, f"large?n={limit + 200}")[::2] == (502, b"Internal Server Error")
    assert ask(aws, answers, method="POST", body=b"x" * (limit + 1))[0] == 413
    status, headers, body = ask(aws, answers.replace("://", "://x"))
    assert (status, json.loads(body), headers["x-amzn-errortype"]) == (403, {"Message": None}, "AccessDeniedException")


# -- CORS and the configuration ---------------------------------------------------------------------------------------


def test_every_member_of_cors_acts_and_an_update_replaces_them(aws, answers):
    functions = aws.client("lambda")
    cors = {
        "AllowOrigins": ["https://a.test", "http://*.b.test"], "AllowMethods": ["GET"], "AllowHeaders": ["X-One"],
        "ExposeHeaders": ["X-Exp"], "MaxAge": 0, "AllowCredentials": True,
    }  # fmt: skip
    functions.update_function_url_config(FunctionName="audit-answers", Cors=cors)
    preflight = [("Origin", "https://a.test"), ("Access-Control-Request-Method", "GET")]
    status, headers, body = ask(aws, answers, method="OPTIONS", headers=preflight)
    assert (status, body) == (200, b"") and headers["access-control-allow-origin"] == "https://a.test"
    assert headers["access-control-allow-methods"] == "GET" and headers["access-control-allow-headers"] == "X-One"
    assert headers["access-control-max-age"] == "0" and headers["access-control-allow-credentials"] == "true"
    assert "access-control-expose-headers" not in headers
    for origin, path, status in (("http://x.b.test", "?e=1", 200), ("https://a.test", "?e=1/0", 502)):
        found, headers, _ = ask(aws, answers, path, headers=[("Origin", origin)])
        assert (found, headers["access-control-allow-origin"]) == (status, origin)
        assert headers["access-control-expose-headers"] == "X-Exp" and headers["vary"] == "Origin"
    kept = functions.update_function_url_config(FunctionName="audit-answers", AuthType="NONE")
    assert kept["Cors"] == cors
    functions.update_function_url_config(FunctionName="audit-answers", Cors={"AllowOrigins": ["*"]})
    assert ask(aws, answers, "?e=1", headers=[("Origin", "https://any")])[1]["access-control-allow-origin"] == "*"
    cleared = functions.update_function_url_config(FunctionName="audit-answers", Cors={})
    assert "Cors" not in cleared
    assert "access-control-allow-origin" not in ask(aws, answers, "?e=1", headers=[("Origin", "https://any")])[1]


@pytest.mark.parametrize(
    "settings",
    [
        {"AuthType": "SOME"}, {"InvokeMode": "SOME"}, {"Cors": {"AllowMethods": ["GET"] * 7}},
        {"Cors": {"AllowMethods": ["OPTIONS"]}}, {"Cors": {"MaxAge": 86_401}}, {"Cors": {"MaxAge": -1}},
        {"Cors": {"AllowOrigins": [""]}}, {"Cors": {"AllowOrigins": ["x" * 254]}},
        {"Cors": {"AllowHeaders": ["x"] * 101}}, {"Cors": {"ExposeHeaders": ["x" * 1_025]}},
    ],
)  # fmt: skip
def test_configurations_that_are_refused(aws, answers, settings):
    functions = aws.client("lambda", parameter_validation=False)
    before = functions.get_function_url_config(FunctionName="audit-answers")
    with pytest.raises(ClientError) as refused:
        functions.update_function_url_config(FunctionName="audit-answers", **settings)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    after = functions.get_function_url_config(FunctionName="audit-answers")
    assert after["LastModifiedTime"] == before["LastModifiedTime"]


def test_urls_of_a_function_and_its_aliases_are_listed_page_by_page(aws, answers):
    functions = aws.client("lambda")
    functions.publish_version(FunctionName="audit-answers")
    for name in ("beta", "prod"):
        functions.create_alias(FunctionName="audit-answers", Name=name, FunctionVersion="1")
        functions.create_function_url_config(FunctionName="audit-answers", Qualifier=name, AuthType="NONE")
    pages = functions.get_paginator("list_function_url_configs").paginate(
        FunctionName="audit-answers", PaginationConfig={"PageSize": 1}
    )
    found = [one["FunctionArn"].partition("audit-answers")[2] for page in pages for one in page["FunctionUrlConfigs"]]
    assert found == ["", ":beta", ":prod"]
    with pytest.raises(ClientError) as again:
        functions.create_function_url_config(FunctionName="audit-answers", Qualifier="prod", AuthType="NONE")
    assert again.value.response["Error"]["Code"] == "ResourceConflictException"
    functions.delete_function_url_config(FunctionName="audit-answers", Qualifier="beta")
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.get_function_url_config(FunctionName="audit-answers", Qualifier="beta")


# -- signatures -------------------------------------------------------------------------------------------------------


def test_signatures_cover_the_request(fresh_server):
    server = fresh_server()
    url = make(server, "audit-signed", ANSWERS, AuthType="AWS_IAM")
    iam = server.client("iam")
    iam.create_user(UserName="url-signer")
    key = iam.create_access_key(UserName="url-signer")["AccessKey"]
    credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def signed(service="lambda", region="us-east-1", method="POST", body=b'{"a": 1}', auth=SigV4Auth, path="event"):
        request = AWSRequest(method, url + path, headers={"Host": url.partition("://")[2].rstrip("/")}, data=body)
        auth(credentials, service, region).add_auth(request)
        return request

    def send(request, body=b'{"a": 1}', **changed):
        headers = [(name, value) for name, value in {**request.headers, **changed}.items() if name != "Host"]
        return raw(server, request.url, request.method, body, headers)

    good = signed()
    status, _, body = send(good)
    event = json.loads(body)
    assert status == 200 and event["body"] == '{"a": 1}'
    who = event["requestContext"]["authorizer"]["iam"]
    assert who["userArn"].endswith(":user/url-signer") and who["accessKey"] == key["AccessKeyId"]
    assert set(who) == {
        "accessKey", "accountId", "callerId", "cognitoIdentity", "principalOrgId", "userArn", "userId",
    }  # fmt: skip
    assert raw(server, signed(method="GET", body=b"", auth=SigV4QueryAuth).url)[0] == 200
    old = (datetime.now(UTC) - timedelta(minutes=20)).strftime("%Y%m%dT%H%M%SZ")
    refused = [
        send(good, b'{"a": 2}'), send(good, **{"X-Amz-Date": old}), send(signed(service="execute-api")),
        send(signed(region="eu-west-1")), raw(server, url + "event", "POST", b"{}"),
        raw(server, url + "event?x=1", "POST", b'{"a": 1}', list(good.headers.items())[1:]),
    ]  # fmt: skip
    for number, (status, headers, body) in enumerate(refused):
        assert status == 403 and dict(headers)["x-amzn-errortype"] == "AccessDeniedException", number
        assert json.loads(body)["Message"].startswith("Forbidden. For troubleshooting Function URL"), number


# -- streams ----------------------------------------------------------------------------------------------------------


def frames(data):
    """[(headers, payload)] of an event stream, every length and checksum looked at."""
    found = []
    while data:
        total, size, check = struct.unpack(">III", data[:12])
        assert check == binascii.crc32(data[:8])
        assert struct.unpack(">I", data[total - 4 : total])[0] == binascii.crc32(data[: total - 4])
        headers, rest = {}, data[12 : 12 + size]
        while rest:
            name, kind = rest[1 : 1 + rest[0]].decode(), rest[1 + rest[0]]
            (length,) = struct.unpack(">H", rest[2 + rest[0] : 4 + rest[0]])
            at = 4 + rest[0]
            assert kind == 7
            headers[name] = rest[at : at + length].decode()
            rest = rest[at + length :]
        found.append((headers, data[12 + size : total - 4]))
        data = data[total:]
    return found


def streamed(aws, name, event, query=""):
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=60)
    connection.request(
        "POST", f"/2021-11-15/functions/{name}/response-streaming-invocations{query}", json.dumps(event).encode()
    )
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


def test_the_frames_of_a_streamed_invocation(aws, streams):
    answer, data = streamed(aws, "audit-streams", {}, "?Qualifier=$LATEST")
    assert answer.status == 200 and answer.getheader("x-amz-executed-version") == "$LATEST"
    assert answer.headers.get_all("content-type") == ["application/octet-stream"]
    first, second, last = frames(data)
    chunk = {":event-type": "PayloadChunk", ":content-type": "application/octet-stream", ":message-type": "event"}
    assert (first, second) == ((chunk, b"a"), (chunk, b"\x00b"))
    assert last[0][":event-type"] == "InvokeComplete" and json.loads(last[1]) == {}
    _, data = streamed(aws, "audit-streams", {"mode": "prelude"})
    text, _, rest = b"".join(payload for _, payload in frames(data)[:-1]).partition(b"\0" * 8)
    assert json.loads(text) == {"statusCode": 201, "headers": {"x-a": "1"}, "cookies": ["c=1"]} and rest == b"a\x00b"


@pytest.mark.parametrize(
    ("mode", "chunks", "error"),
    [("mid", 2, "ValueError"), ("early", 0, "KeyError"), ("exit", 2, "Runtime.ExitError")],
)
def test_an_error_ends_the_events(aws, streams, mode, chunks, error):
    functions = aws.client("lambda")
    answer = functions.invoke_with_response_stream(
        FunctionName="audit-streams", Payload=json.dumps({"mode": mode}).encode(), LogType="Tail"
    )
    *payloads, last = list(answer["EventStream"])
    assert len(payloads) == chunks and last["InvokeComplete"]["ErrorCode"] == error
    assert json.loads(last["InvokeComplete"]["ErrorDetails"])["errorType"] == error
    assert b"REPORT RequestId" in base64.b64decode(last["InvokeComplete"]["LogResult"])


def test_an_asynchronous_generator_streams_through_every_door(aws):
    url = make(aws, "audit-async", ASYNCHRONOUS, InvokeMode="RESPONSE_STREAM")
    functions = aws.client("lambda")
    answer = functions.invoke_with_response_stream(FunctionName="audit-async")
    assert answer["ResponseStreamContentType"] == "application/octet-stream" and answer["ExecutedVersion"] == "$LATEST"
    assert [one["PayloadChunk"]["Payload"] for one in answer["EventStream"] if "PayloadChunk" in one] == [
        b"n0 ", b"n1 ", b"n2 ",
    ]  # fmt: skip
    status, headers, body = ask(aws, url)
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert body == b"3\r\nn0 \r\n3\r\nn1 \r\n3\r\nn2 \r\n0\r\n\r\n"
    functions.update_function_url_config(FunctionName="audit-async", InvokeMode="BUFFERED")
    status, headers, body = ask(aws, url)
    assert (status, body) == (200, b"n0 n1 n2 ") and "transfer-encoding" not in headers
    assert functions.invoke(FunctionName="audit-async")["Payload"].read() == b"n0 n1 n2 "


def test_a_streaming_url(aws, streams):
    status, headers, body = raw(aws, streams + "?mode=prelude")
    named = dict(headers)
    assert (status, named["x-a"], named["set-cookie"]) == (201, "1", "c=1")
    assert body == b"1\r\na\r\n2\r\n\x00b\r\n0\r\n\r\n"
    for mode in ("mid", "exit"):
        assert ask(aws, streams, f"?mode={mode}")[2] == b"1\r\na\r\n2\r\n\x00b\r\n", "a clean end"
    assert ask(aws, streams, "?mode=early")[::2] == (502, b"Internal Server Error")
    assert ask(aws, streams, method="HEAD")[2] == b""


def test_requests_to_stream_that_are_refused(aws, streams):
    functions = aws.client("lambda", parameter_validation=False)
    for params, status, code in (
        ({"InvocationType": "Event"}, 400, "ValidationException"),
        ({"Payload": b"{nope"}, 400, "InvalidRequestContentException"),
        ({"FunctionName": "nobody"}, 404, "ResourceNotFoundException"),
        ({"Qualifier": "none"}, 404, "ResourceNotFoundException"),
        ({"LogType": "Some"}, 400, "ValidationException"),
        ({"Payload": b'"' + b"x" * (6 << 20) + b'"'}, 413, "RequestTooLargeException"),
    ):
        with pytest.raises(ClientError) as refused:
            functions.invoke_with_response_stream(**{"FunctionName": "audit-streams", **params})
        answer = refused.value.response
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (status, code)
    dry = functions.invoke_with_response_stream(FunctionName="audit-streams", InvocationType="DryRun")
    assert dry["StatusCode"] == 204 and list(dry["EventStream"]) == []


def test_a_stream_has_200_mb(aws, streams):
    size, last = 0, None
    answer = aws.client("lambda").invoke_with_response_stream(FunctionName="audit-streams", Payload=b'{"mode":"mb201"}')
    for one in answer["EventStream"]:
        size += len(one.get("PayloadChunk", {}).get("Payload", b""))
        last = one
    assert last["InvokeComplete"]["ErrorCode"] == "Function.ResponseSizeTooLarge"
    assert 199 << 20 < size <= 200 << 20


def test_the_bandwidth_of_a_stream_is_an_option(fresh_server):
    server = fresh_server("--streaming-bandwidth", "aws")
    make(server, "narrow", STREAMS, InvokeMode="RESPONSE_STREAM")

    def seconds(mode):
        begun = time.monotonic()
        _, data = streamed(server, "narrow", {"mode": mode})
        assert sum(len(payload) for _, payload in frames(data)) > int(mode[2:]) << 20
        return time.monotonic() - begun

    seconds("mb1")
    assert seconds("mb9") >= 1.0, "3 MB at 2 MB a second come faster than they may"

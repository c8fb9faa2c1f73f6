"""Lambda's invocations, errors, logs, URLs and queue mappings as recorded against AWS (2023 to 2026)."""

import http.client
import json
import uuid
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from preheat.kernel.errors import AwsError
from preheat.services.awslambda.unparsable import LARGEST, explain
from preheat.services.kinesis.service import build as build_kinesis
from tests.support.functions import ROLE, TriggerWorld, make_zip
from tests.support.server import wait_for

PLACE = " at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: {}, column: {}]"
VALUES = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
BEGINNING = PLACE.format(1, 1).removeprefix(" at ")
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/s"
EARLY = datetime(1969, 1, 1, tzinfo=UTC)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    world = TriggerWorld(build_kinesis)
    world.create("f")
    world.queue("q")
    world("kinesis", "CreateStream", StreamName="s", ShardCount=1)
    return world


def refused(world, operation, **params):
    with pytest.raises(AwsError) as caught:
        world("lambda", operation, **params)
    return caught.value


NOT_JSON = [
    (b"n\x87r\x9e\xe9\xb5\xd7I\xee\x9bmt", "Invalid UTF-8 start byte 0x87", 1, 3),
    (b"\x99\xeb,j\x07\xa1zYh", f"Unexpected character ((CTRL-CHAR, code 153)): expected a valid value {VALUES}", 1, 1),
    (b"abc", f"Unrecognized token 'abc': was expecting {VALUES}", 1, 4),
    (b'{"a":\n  nil}', f"Unrecognized token 'nil': was expecting {VALUES}", 2, 7),
    (b"{'a': 1}", "Unexpected character (''' (code 39)): was expecting double-quote to start field name", 1, 2),
    (b'{"a" 1}', "Unexpected character ('1' (code 49)): was expecting a colon to separate field name and value", 1, 6),
    (b"[1 2]", "Unexpected character ('2' (code 50)): was expecting comma to separate Array entries", 1, 4),
    (b"[1,]", "Unexpected character (']' (code 93)): expected a value", 1, 4),
    (b'{"a":1]', f"Unexpected close marker ']': expected '}}' (for Object starting at {BEGINNING})", 1, 7),
    (b'{"a":1', f"Unexpected end-of-input: expected close marker for Object (start marker at {BEGINNING})", 1, 7),
    (b'{"a":', "Unexpected end-of-input within/between Object entries", 1, 6),
    (b'"abc', "Unexpected end-of-input in VALUE_STRING", 1, 5),
    (b'"\\x"', "Unrecognized character escape 'x' (code 120)", 1, 3),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "told", "line", "column"), NOT_JSON)
def test_a_payload_that_is_no_json(world, payload, told, line, column):
    error = refused(world, "Invoke", FunctionName="f", Payload=payload)
    assert (error.code, error.status) == ("InvalidRequestContentException", 400)
    start = "Could not parse request body into json: Could not parse payload into json: "
    assert error.message == f"{start}{told}\n{PLACE.format(line, column)}"


def test_what_is_too_large_to_be_read_again_is_told_otherwise():
    assert explain(b"[" + b" " * LARGEST, "otherwise") == "otherwise"


REFUSALS = [
    ("Invoke", {"FunctionName": "none"}, "ResourceNotFoundException", f"Function not found: {ARN}none:$LATEST"),
    ("Invoke", {"FunctionName": "f", "Qualifier": "none"}, "ResourceNotFoundException",
     f"Function not found: {ARN}f:none"),
    ("CreateFunctionUrlConfig", {"FunctionName": "f", "AuthType": "NONE", "InvokeMode": "UNKNOWN"},
     "ValidationException",
     "1 validation error detected: Value 'UNKNOWN' at 'invokeMode' failed to satisfy constraint: Member must satisfy "
     "enum value set: [RESPONSE_STREAM, BUFFERED]"),
    ("CreateEventSourceMapping", {"FunctionName": "f", "EventSourceArn": f"{QUEUE}q", "StartingPosition": "0"},
     "ValidationException",
     "1 validation error detected: Value '0' at 'startingPosition' failed to satisfy constraint: Member must satisfy "
     "enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"),
    ("CreateEventSourceMapping", {"FunctionName": "f", "EventSourceArn": f"{QUEUE}q", "StartingPosition": "LATEST"},
     "InvalidParameterValueException", "StartingPosition is not valid for SQS event sources."),
    ("CreateEventSourceMapping", {"FunctionName": "none", "EventSourceArn": f"{QUEUE}none"},
     "InvalidParameterValueException", "Function does not exist"),
    ("CreateEventSourceMapping", {"FunctionName": "f"}, "InvalidParameterValueException",
     "Unrecognized event source."),
    ("CreateEventSourceMapping",
     {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "LATEST", "StartingPositionTimestamp": EARLY},
     "InvalidParameterValueException", "Timestamp only valid with StartingPosition AT_TIMESTAMP"),
    ("CreateEventSourceMapping",
     {"FunctionName": "f", "EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP",
      "StartingPositionTimestamp": EARLY},
     "InvalidParameterValueException",
     "Received Exception while reading from provided stream. class java.lang.Long can not be converted to a "
     "Timestamp"),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "params", "code", "message"), REFUSALS)
def test_a_refusal_in_awss_words(world, operation, params, code, message):
    error = refused(world, operation, **params)
    assert (error.code, error.message) == (code, message)


def test_a_reserved_limit_says_not_when_to_come_again(world):
    world.create("capped")
    world("lambda", "PutFunctionConcurrency", FunctionName="capped", ReservedConcurrentExecutions=0)
    error = refused(world, "Invoke", FunctionName="capped")
    assert (error.status, error.message, error.headers) == (429, "Rate Exceeded.", {})


# -- mappings ----------------------------------------------------------------------------------------------------------


def test_a_mapping_made_disabled_says_so(world):
    world.queue("later")
    make = {"EventSourceArn": f"{QUEUE}later", "FunctionName": "f", "Enabled": False}
    assert world("lambda", "CreateEventSourceMapping", **make)["State"] == "Disabled"


def test_a_mapping_of_a_stream_has_read_nothing_yet(world):
    made = world(
        "lambda", "CreateEventSourceMapping", EventSourceArn=STREAM, FunctionName="f", StartingPosition="LATEST"
    )
    assert (made["StateTransitionReason"], made["LastProcessingResult"]) == ("User action", "No records processed")
    world("lambda", "DeleteEventSourceMapping", UUID=made["UUID"])


@pytest.mark.parametrize("window", [0, 1])
def test_a_digest_that_is_not_is_null_where_batches_are_gathered(world, window):
    name = f"gathered{window}"
    url, arn = world.queue(name)
    world.create(name)
    world.map(arn, name, MaximumBatchingWindowInSeconds=window)
    world.send(url, "hello")
    world.advance(2)
    events = [json.loads(run.payload) for run in world.executor.started if run.spec.name == name]
    record = events[0]["Records"][0]
    assert record.get("md5OfMessageAttributes", "absent") == (None if window else "absent")


# -- what functions say ------------------------------------------------------------------------------------------------

SOURCE = """
import os
if os.environ.get("BROKEN"):
    raise Exception("Runtime startup fails")
def handler(event, context):
    print("multi\\nanother\\rline")
    if event:
        raise Exception("no", event)
"""


@pytest.fixture(scope="module")
def client(aws):
    return aws.client("lambda")


def deploy(client, source=SOURCE, **settings):
    name = f"recorded-{uuid.uuid4().hex[:12]}"
    code = {"ZipFile": make_zip({"app.py": source})}
    client.create_function(
        FunctionName=name, Runtime="python3.12", Role=ROLE, Handler="app.handler", Code=code, **settings
    )
    return name


def failed(answer):
    assert answer["FunctionError"] == "Unhandled"
    return json.loads(answer["Payload"].read())


def test_lines_of_output_end_with_a_line_break_and_errors_do_not(aws, client):
    name = deploy(client)
    client.invoke(FunctionName=name, Payload=b"1")
    logs = aws.client("logs")

    def whole():
        found = [event["message"] for event in logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]]
        return found if found and found[-1].startswith("REPORT") else None

    first, start, *middle, end, report = wait_for(whole, what="the log")
    assert first.startswith("INIT_START ") and start.startswith("START ") and end.startswith("END ")
    assert all(line.endswith("\n") for line in (first, start, end, report))
    assert middle[:2] == ["multi\n", "another\rline\n"]
    assert middle[2] == (
        "[ERROR] Exception: ('no', 1)\nTraceback (most recent call last):\n"
        '\xa0\xa0File "/var/task/app.py", line 8, in handler\n\xa0\xa0\xa0\xa0raise Exception("no", event)'
    )


def test_an_error_at_startup_shows_the_import_and_no_marks(client):
    name = deploy(client, Environment={"Variables": {"BROKEN": "1"}})
    document = failed(client.invoke(FunctionName=name))
    assert document["requestId"] == "" and document["errorMessage"] == "Runtime startup fails"
    first, *_, last = document["stackTrace"]
    assert first.startswith('  File "/var/lang/lib/python3.') and first.endswith(
        "in import_module\n    return _bootstrap._gcd_import(name[level:], package, level)\n"
    )
    assert last.endswith('in <module>\n    raise Exception("Runtime startup fails")\n')


def test_a_wrapper_that_is_not_there(client):
    name = deploy(client, Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/idontexist.sh"}})
    document = failed(client.invoke(FunctionName=name))
    assert document["errorType"] == "Runtime.ExitError"
    assert document["errorMessage"].endswith(" Error: Runtime exited with error: exit status 127")


# -- provisioned concurrency -------------------------------------------------------------------------------------------


def test_an_alias_on_its_way_keeps_what_serves_it(client):
    name = deploy(client)
    for variables in ({}, {"SECOND": "1"}):
        client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
        client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    at = {"FunctionName": name, "Qualifier": "live"}
    client.put_provisioned_concurrency_config(**at, ProvisionedConcurrentExecutions=1)
    wait_for(lambda: client.get_provisioned_concurrency_config(**at)["Status"] == "READY", what="the environment")
    with pytest.raises(ClientError) as caught:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert "Type" not in caught.value.response
    moved = client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    assert "RoutingConfig" not in moved
    found = client.get_provisioned_concurrency_config(**at)
    counts = [found[f"{kind}ProvisionedConcurrentExecutions"] for kind in ("Requested", "Allocated", "Available")]
    assert counts == [1, 1, 1]
    client.delete_provisioned_concurrency_config(**at)


# -- URLs --------------------------------------------------------------------------------------------------------------

ECHO = """
def handler(event, context):
    return {"statusCode": 200, "body": {"event": event, "id": context.aws_request_id}}
"""


def ask(aws, url, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=30)
    connection.request("POST", path, "{}", {"Host": urlsplit(url).netloc, **headers})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), json.loads(body)


def test_a_url_gives_an_objects_json_the_request_id_and_the_trace(aws, client):
    name = deploy(client, ECHO)
    url = client.create_function_url_config(FunctionName=name, AuthType="NONE")["FunctionUrl"]
    status, headers, body = ask(aws, url, "/pa2%25Fth/1")
    event = body["event"]
    assert status == 200 and headers["x-amzn-RequestId"] == body["id"] == event["requestContext"]["requestId"]
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/pa2%Fth/1"
    assert event["headers"]["x-amzn-trace-id"].startswith("Root=1-")
    _, _, body = ask(aws, url, **{"X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793"})
    assert body["event"]["headers"]["x-amzn-trace-id"] == "Root=1-5759e988-bd862e3fe1be46a994272793"


def test_the_url_of_an_alias_outlives_it_and_is_forbidden(aws, client):
    name = deploy(client, ECHO)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    url = client.create_function_url_config(FunctionName=name, Qualifier="live", AuthType="NONE")["FunctionUrl"]
    assert ask(aws, url)[0] == 200
    client.delete_alias(FunctionName=name, Name="live")
    status, headers, body = ask(aws, url)
    assert (status, headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
    assert body["Message"].startswith("Forbidden. For troubleshooting Function URL authorization issues, see: ")

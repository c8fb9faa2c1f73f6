"""The layer that streams from Python on AWS: what its runtime client says to a Runtime API, byte for byte, and that a
function which uses it also streams here."""

import base64
import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

LAYER = Path(__file__).parents[2] / "stacks" / "layers" / "python-streaming"
EVENT_HEADERS = {
    "Lambda-Runtime-Aws-Request-Id": "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
    "Lambda-Runtime-Deadline-Ms": "1542409706888",
    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-2:123456789012:function:custom-runtime",
    "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
}
APP = """
import threading
from preheat_stream import event, head, streaming

class Wrong(Exception):
    pass

def generator(payload, context):
    yield head(201, {"content-type": "text/event-stream"}, ["a=b"])
    yield event({"n": 1}, name="token", id=7)
    open(payload["ready"], "w").close()
    while not __import__("os").path.exists(payload["go"]):
        threading.Event().wait(0.01)
    yield event("two\\nlines")

async def asynchronous(payload, context):
    yield "one"
    yield b"two"

@streaming
def pushed(payload, context, stream):
    stream.head(200, {"x": "y"})
    for word in payload["words"]:
        stream.write(word)

@streaming
async def pushed_async(payload, context, stream):
    stream.write(context.aws_request_id)

def half(payload, context):
    yield "half"
    raise Wrong("no more")

@streaming
def pushed_half(payload, context, stream):
    stream.write("half")
    raise Wrong("no more")

def plain(payload, context):
    return {"sum": sum(payload["numbers"])}

def broken(payload, context):
    raise Wrong("at once")
"""


class RuntimeApi:
    """Lambda's end of the Runtime API for one function: gives out `events`, keeps the requests as they came.

    A request is (method, path, headers, chunks); chunks are the pieces of a chunked body with their trailers last."""

    def __init__(self, *events):
        self.events = list(events)
        self.requests = []
        self.chunks = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with self._listener:
            connection, _ = self._listener.accept()
        with connection, connection.makefile("rwb") as stream:
            while line := stream.readline():
                method, path, version = line.decode().split()
                assert version == "HTTP/1.1"
                headers = _headers(stream)
                body, trailers = self._body(stream, headers)
                self.requests.append((method, path, headers, body, trailers))
                if not path.endswith("/invocation/next"):
                    _answer(stream, "202 Accepted", {"Content-Type": "application/json"}, b'{"status":"OK"}')
                elif self.events:
                    _answer(stream, "200 OK", EVENT_HEADERS, json.dumps(self.events.pop(0)).encode())
                else:
                    return

    def _body(self, stream, headers):
        if headers.get("transfer-encoding") != "chunked":
            return stream.read(int(headers.get("content-length", 0))), {}
        self.chunks = []
        while size := int(stream.readline(), 16):
            self.chunks.append(stream.read(size))
            assert stream.read(2) == b"\r\n"
        return b"".join(self.chunks), _headers(stream)

    def posts(self):
        return [request for request in self.requests if request[0] == "POST"]


def _headers(stream):
    found = {}
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        found[name.lower()] = value.strip()
    return found


def _answer(stream, status, headers, body):
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    stream.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
    stream.flush()


@pytest.fixture
def run(tmp_path):
    """run(handler, *events) -> (the Runtime API, the process) of a function started as Lambda starts it below the
    wrapper."""
    (tmp_path / "app.py").write_text(APP)
    started = []

    def start(handler, *events):
        api = RuntimeApi(*events)
        variables = {
            "PATH": os.environ["PATH"], "AWS_LAMBDA_RUNTIME_API": api.address, "_HANDLER": f"app.{handler}",
            "LAMBDA_TASK_ROOT": str(tmp_path), "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12",
        }  # fmt: skip
        command = [LAYER / "preheat-stream", sys.executable, "/var/runtime/bootstrap.py"]
        process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        started.append(process)
        return api, process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finished(api, process):
    """The one answer of a runtime that has served its only event and then found the Runtime API gone."""
    output, _ = process.communicate(timeout=30)
    [(_, path, headers, body, trailers)] = api.posts()
    assert path == f"/2018-06-01/runtime/invocation/{EVENT_HEADERS['Lambda-Runtime-Aws-Request-Id']}/response", output
    return headers, body, trailers


def test_a_generator_is_sent_in_streaming_mode_each_item_before_the_next_is_made(run, tmp_path):
    ready, go = tmp_path / "ready", tmp_path / "go"
    api, process = run("generator", {"ready": str(ready), "go": str(go)})
    wait_for(lambda: ready.exists() and len(api.chunks) == 2, what="the first two chunks before the third item exists")
    prelude, first = api.chunks
    go.touch()
    headers, body, trailers = finished(api, process)
    assert headers["lambda-runtime-function-response-mode"] == "streaming"
    assert headers["content-type"] == "application/vnd.awslambda.http-integration-response"
    document, _, rest = prelude.partition(b"\0" * 8)
    assert json.loads(document) == {
        "statusCode": 201, "headers": {"content-type": "text/event-stream"}, "cookies": ["a=b"]
    }  # fmt: skip
    assert rest == b"" and first == b'event: token\nid: 7\ndata: {"n": 1}\n\n'
    assert body.endswith(b"data: two\ndata: lines\n\n") and trailers == {}
    assert api.requests[0][:2] == ("GET", "/2018-06-01/runtime/invocation/next")


@pytest.mark.parametrize(
    ("handler", "payload", "body"),
    [
        ("asynchronous", {}, b"onetwo"),
        ("pushed", {"words": ["a", "b"]}, b'{"statusCode": 200, "headers": {"x": "y"}}' + bytes(8) + b"ab"),
        ("pushed_async", {}, EVENT_HEADERS["Lambda-Runtime-Aws-Request-Id"].encode()),
    ],
)
def test_other_ways_to_stream(run, handler, payload, body):
    headers, sent, trailers = finished(*run(handler, payload))
    assert (sent, trailers) == (body, {})
    assert headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("handler", ["half", "pushed_half"])
def test_an_error_half_way_goes_into_the_trailers(run, handler):
    headers, sent, trailers = finished(*run(handler, {}))
    assert sent == b"half"
    assert headers["trailer"] == "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"
    assert trailers["lambda-runtime-function-error-type"] == "Wrong"
    document = json.loads(base64.b64decode(trailers["lambda-runtime-function-error-body"]))
    assert (document["errorType"], document["errorMessage"]) == ("Wrong", "no more")


def test_a_value_is_answered_in_one_piece(run):
    headers, body, _ = finished(*run("plain", {"numbers": [1, 2, 3]}))
    assert json.loads(body) == {"sum": 6}
    assert headers["content-length"] == str(len(body)) and "lambda-runtime-function-response-mode" not in headers


def test_an_error_before_the_first_item_is_an_ordinary_error(run):
    api, process = run("broken", {})
    process.communicate(timeout=30)
    [(_, path, headers, body, _)] = api.posts()
    assert path.endswith("/error") and "/invocation/" in path
    assert headers["lambda-runtime-function-error-type"] == "Wrong"
    assert json.loads(body)["errorMessage"] == "at once"


def test_a_handler_that_cannot_be_loaded_is_an_initialisation_error(run):
    api, process = run("missing", {})
    assert process.wait(timeout=30) != 0
    [(_, path, headers, body, _)] = api.posts()
    assert path == "/2018-06-01/runtime/init/error"
    assert headers["lambda-runtime-function-error-type"] == "Runtime.HandlerNotFound"
    assert "missing" in json.loads(body)["errorMessage"]


def layer_zip():
    """The layer as `sam package` makes it: links followed, the wrapper executable."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for folder, _, names in os.walk(LAYER, followlinks=True):
            for path in (Path(folder) / name for name in names if not name.endswith(".pyc")):
                archive.write(path, path.relative_to(LAYER))
    return buffer.getvalue()


def test_a_function_with_the_layer_streams_here_and_starts_fast(aws):
    functions = aws.client("lambda")
    layer = functions.publish_layer_version(LayerName="streaming", Content={"ZipFile": layer_zip()})
    functions.create_function(
        FunctionName="pushes", Runtime="python3.11", Handler="app.pushed", Role=ROLE, Layers=[layer["LayerVersionArn"]],
        Code={"ZipFile": make_zip({"app.py": APP})},
        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/preheat-stream"}},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="pushes")
    answer = functions.invoke_with_response_stream(FunctionName="pushes", Payload=b'{"words": ["first", "second"]}')
    events = list(answer["EventStream"])
    pieces = [event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event]
    assert b"".join(pieces).endswith(b"firstsecond") and len(pieces) >= 2, events


def test_the_address_of_a_function_with_the_layer_streams(aws):
    functions = aws.client("lambda")
    layer = functions.publish_layer_version(LayerName="streaming", Content={"ZipFile": layer_zip()})
    functions.create_function(
        FunctionName="streams-url", Runtime="python3.11", Handler="app.asynchronous", Role=ROLE,
        Layers=[layer["LayerVersionArn"]], Code={"ZipFile": make_zip({"app.py": APP})},
    )  # fmt: skip
    functions.get_waiter("function_active_v2").wait(FunctionName="streams-url")
    url = functions.create_function_url_config(
        FunctionName="streams-url", AuthType="NONE", InvokeMode="RESPONSE_STREAM"
    )["FunctionUrl"]
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", aws.port, timeout=30)) as connection:
        connection.request("GET", "/", headers={"Host": url.removeprefix("http://").rstrip("/")})
        assert connection.getresponse().read() == b"onetwo"

"""A model id mapped to real Bedrock: everything goes through, errors included. The far end is a server of our own."""

import binascii
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from preheat.kernel.errors import AwsError
from preheat.models.registry import Registry
from preheat.services.bedrock_runtime.service import build
from tests.support.inprocess import InProcess

TARGET = "anthropic.some-model-v1:0"


def frame(kind, name, payload):
    """One message of AWS's event stream encoding."""
    headers = b""
    for key, value in ((":message-type", kind), (f":{kind}-type", name), (":content-type", "application/json")):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", len(headers) + len(body) + 16, len(headers))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + body
    return message + struct.pack(">I", binascii.crc32(message))


CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
    "metrics": {"latencyMs": 5},
}
STREAM = frame("event", "messageStart", {"role": "assistant"}) + frame(
    "event", "metadata", {"usage": CONVERSED["usage"], "metrics": {"latencyMs": 5}}
)
BROKEN = frame("event", "messageStart", {"role": "assistant"}) + frame(
    "exception", "throttlingException", {"message": "slow down"}
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, body))
        status, headers, data = self.server.answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def far(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def world(far):
    options = {"model_id": TARGET, "endpoint_url": f"http://127.0.0.1:{far.server_port}", "timeout_s": 5}
    entry = {"backend": "bedrock", "options": options, "tokens_per_minute": 100}
    return InProcess(lambda platform: build(platform, Registry({"my-model": entry})))


def converse(world, operation="Converse", **more):
    messages = [{"role": "user", "content": [{"text": "hello"}]}]
    return world("bedrock-runtime", operation, modelId="my-model", messages=messages, **more)


def drain(channel):
    items, ends = [], []
    channel.attach(items.append, ends.append)
    assert ends == [None]
    return items


def test_converse_goes_through_with_tools(world, far):
    far.answer = (200, {"Content-Type": "application/json"}, json.dumps(CONVERSED).encode())
    tools = {"tools": [{"toolSpec": {"name": "t", "inputSchema": {"json": {"type": "object"}}}}]}
    assert converse(world, toolConfig=tools) == CONVERSED
    path, body = far.seen[0]
    assert path == "/model/anthropic.some-model-v1%3A0/converse"
    assert json.loads(body)["toolConfig"] == tools


def test_invoke_goes_through(world, far):
    headers = {"Content-Type": "application/json", "X-Amzn-Bedrock-Input-Token-Count": "60"}
    far.answer = (200, headers, b'{"made": "there"}')
    replies = world.start("bedrock-runtime", "InvokeModel", modelId="my-model", body=b'{"any": "thing"}')
    assert replies[0].output["body"] == b'{"made": "there"}'
    assert replies[0].headers == {"X-Amzn-Bedrock-Input-Token-Count": "60"}
    assert far.seen[0][1] == b'{"any": "thing"}'


def test_streams_go_through(world, far):
    far.answer = (200, {"Content-Type": "application/vnd.amazon.eventstream"}, STREAM)
    events = drain(converse(world, "ConverseStream")["stream"])
    assert [next(iter(event)) for event in events] == ["messageStart", "metadata"]
    assert events[1]["metadata"]["usage"]["totalTokens"] == 4


def test_a_stream_that_fails_half_way(world, far):
    far.answer = (200, {"Content-Type": "application/vnd.amazon.eventstream"}, BROKEN)
    events = drain(converse(world, "ConverseStream")["stream"])
    assert events[-1] == {"throttlingException": {"message": "slow down"}}


@pytest.mark.parametrize(
    ("code", "status"),
    [("ThrottlingException", 429), ("AccessDeniedException", 403), ("ValidationException", 400)],
)
def test_errors_go_through(world, far, code, status):
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    far.answer = (status, headers, b'{"message": "said there"}')
    for operation in ("Converse", "ConverseStream"):
        with pytest.raises(AwsError) as caught:
            converse(world, operation)
        assert (caught.value.code, caught.value.status, caught.value.message) == (code, status, "said there")


def test_the_far_end_is_down(world, far):
    far.shutdown()
    far.server_close()
    with pytest.raises(AwsError) as caught:
        converse(world)
    assert (caught.value.code, caught.value.status) == ("ServiceUnavailableException", 503)


def test_local_limits_hold_for_it_too(world, far):
    answer = {**CONVERSED, "usage": {"inputTokens": 80, "outputTokens": 40, "totalTokens": 120}}
    far.answer = (200, {"Content-Type": "application/json"}, json.dumps(answer).encode())
    converse(world)
    with pytest.raises(AwsError) as caught:
        world("bedrock-runtime", "InvokeModel", modelId="my-model", body=b"x" * 40)
    assert caught.value.code == "ThrottlingException"

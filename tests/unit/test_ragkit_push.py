"""Answers pushed to a WebSocket: real boto3 against a loopback double of the connections API."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.push import ConnectionPush


class Connections(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.posted.append((self.path, json.loads(body)))
        status = self.server.status
        self.send_response(status)
        if status == 410:
            self.send_header("x-amzn-errortype", "GoneException")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def api():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Connections)
    server.posted, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def push_to(api, clock):
    client = boto3.client(
        "apigatewaymanagementapi", endpoint_url=f"http://127.0.0.1:{api.server_port}/prod", region_name="us-east-1",
        aws_access_key_id="t", aws_secret_access_key="t",
    )  # fmt: skip
    return ConnectionPush(client, "abc=", "job-1", clock)


def test_tokens_that_come_together_leave_together_and_order_is_kept(api):
    now = [0.0]
    push = push_to(api, lambda: now[0])
    push.send("retrieval", {"passages": []})
    for step, text in ((0.0, "One"), (0.01, " two"), (0.02, " three"), (0.1, " four"), (0.01, " five")):
        now[0] += step
        push.send("token", {"text": text})
    push.send("done", {"answer": "One two three four five"})
    assert [one[1] for one in api.posted] == [
        {"event": "retrieval", "id": "job-1", "passages": []},
        {"event": "token", "id": "job-1", "text": "One"},
        {"event": "token", "id": "job-1", "text": " two three four"},
        {"event": "token", "id": "job-1", "text": " five"},
        {"event": "done", "id": "job-1", "answer": "One two three four five"},
    ]
    assert {one[0] for one in api.posted} == {"/prod/@connections/abc%3D"}


def test_what_is_too_long_is_left_out(api):
    push = push_to(api, lambda: 0.0)
    push.send("retrieval", {"passages": ["x" * 131_072]})
    ((_, sent),) = api.posted
    assert sent == {"event": "retrieval", "id": "job-1", "left_out": "too long to be pushed"}


@pytest.mark.parametrize("status", [410, 403])
def test_nothing_is_sent_to_a_connection_that_cannot_be_written_to(api, status):
    api.status = status
    push = push_to(api, lambda: 0.0)
    push.send("retrieval", {})
    push.send("done", {})
    assert push.gone and len(api.posted) == 1

"""The Runtime API's bytes: every answer one write, errors in AWS's shapes, streams and trailers."""

import base64
import json

import pytest

from preheat.execution.runtime_api import MAX_RESPONSE_BYTES, RuntimeConnection, RuntimeSession
from preheat.execution.workers.contract import Answer, WorkRequest
from tests.support.told import Told

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


class Side(Told):
    """One runtime's end: what was written to it, and what its session told."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = 0
        self.session = RuntimeSession(self)
        self.connection = self.connect()

    def connect(self) -> RuntimeConnection:
        def close() -> None:
            self.closed += 1

        return RuntimeConnection(self.session, self.writes.append, close)

    def run(self, request_id: str = "r-1") -> None:
        """Bring the session to Running."""
        self.connection.feed(NEXT)
        self.session.offer(WorkRequest(request_id, b'{"a":1}', 123, "arn:f"))
        self.events.clear()
        self.writes.clear()

    def take(self) -> tuple[int, dict]:
        """The one answer written: its status and JSON body."""
        (data,) = self.writes
        self.writes.clear()
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


def post(path: str, body: bytes = b"", headers: str = "") -> bytes:
    return f"POST /2018-06-01/runtime/{path} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def side():
    return Side()


def test_next_parks_until_an_event_and_carries_its_headers(side):
    side.connection.feed(NEXT)
    assert side.events == [("next",)] and side.writes == []
    side.session.offer(
        WorkRequest("r-1", b'{"a":1}', 1700000000000, "arn:f", "Root=1", '{"custom":{}}', '{"cognitoIdentityId":"i"}')
    )
    (data,) = side.writes
    head, _, body = data.decode().partition("\r\n\r\n")
    assert body == '{"a":1}'
    assert head.split("\r\n") == [
        "HTTP/1.1 200 OK",
        "Content-Type: application/json",
        "Content-Length: 7",
        "Lambda-Runtime-Aws-Request-Id: r-1",
        "Lambda-Runtime-Deadline-Ms: 1700000000000",
        "Lambda-Runtime-Invoked-Function-Arn: arn:f",
        "Lambda-Runtime-Trace-Id: Root=1",
        'Lambda-Runtime-Client-Context: {"custom":{}}',
        'Lambda-Runtime-Cognito-Identity: {"cognitoIdentityId":"i"}',
    ]


def test_a_response_is_acknowledged_in_one_write(side):
    side.run()
    side.connection.feed(post("invocation/r-1/response", b"42"))
    assert side.events == [("answered", Answer(b"42"))]
    assert side.take() == (202, {"status": "OK"})


def test_a_pipelined_next_takes_the_acknowledgement_along(side):
    side.run()
    side.connection.feed(post("invocation/r-1/response", b"42") + NEXT)
    assert [event[0] for event in side.events] == ["answered", "next"] and side.writes == []
    side.session.offer(WorkRequest("r-2", b"7", 1, "arn:f"))
    (data,) = side.writes
    assert data.startswith(b"HTTP/1.1 202 ") and b"HTTP/1.1 200 OK" in data and data.endswith(b"\r\n\r\n7")


def test_bytes_may_come_one_by_one(side):
    side.run()
    for byte in post("invocation/r-1/response", b"hello"):
        side.connection.feed(bytes([byte]))
    assert side.events == [("answered", Answer(b"hello"))]


def test_a_response_on_another_connection(side):
    side.run()
    side.connect().feed(post("invocation/r-1/response", b"1"))
    assert side.events == [("answered", Answer(b"1"))]


def test_a_wrong_id_is_refused_and_changes_nothing(side):
    side.run()
    side.connection.feed(post("invocation/other/response", b"1"))
    assert side.take() == (400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"})
    side.connection.feed(post("invocation/r-1/response", b"2"))
    assert side.events == [("answered", Answer(b"2"))]


@pytest.mark.parametrize("path", ["invocation/r-1/response", "invocation/r-1/error"])
def test_an_answer_out_of_turn_is_refused(side, path):
    side.connection.feed(post(path, b"1"))
    status, document = side.take()
    assert status == 403 and document["errorType"] == "InvalidStateTransition"
    assert document["errorMessage"].startswith("State transition from Started to Invocation")
    side.run()
    side.connection.feed(post("invocation/r-1/response", b"1"))
    side.writes.clear()
    side.connection.feed(post(path, b"1"))
    assert side.take()[0] == 403


def test_next_without_an_answer_is_refused(side):
    side.run()
    side.connection.feed(NEXT)
    assert side.take()[0] == 403 and side.events == []


def test_a_body_over_the_limit(side):
    side.run()
    side.connection.feed(post("invocation/r-1/response", bytes(MAX_RESPONSE_BYTES + 1)))
    assert side.take() == (413, {
        "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).", "errorType": "RequestEntityTooLarge",
    })  # fmt: skip
    assert side.events[0][1].error == "Function.ResponseSizeTooLarge"


def test_an_invocation_error(side):
    side.run()
    body = b'{"errorMessage":"m","errorType":"T"}'
    side.connection.feed(post("invocation/r-1/error", body, "Lambda-Runtime-Function-Error-Type: Custom.T\r\n"))
    assert side.events == [("answered", Answer(body, "Custom.T"))] and side.take()[0] == 202


@pytest.mark.parametrize(
    ("body", "headers", "error_type"),
    [
        (b'{"errorType":"Named"}', "", "Named"),
        (b'{"errorType":"Named"}', "Lambda-Runtime-Function-Error-Type: Unhandled\r\n", "Named"),
        (b"not json", "", "Unhandled"),
    ],
)
def test_an_error_named_only_in_its_document(side, body, headers, error_type):
    side.run()
    side.connection.feed(post("invocation/r-1/error", body, headers))
    assert side.events == [("answered", Answer(body, error_type))]


def test_an_error_without_a_document(side):
    side.run()
    side.connection.feed(post("invocation/r-1/error", b"", "Lambda-Runtime-Function-Error-Type: T\r\n"))
    document = {"errorMessage": "Unknown application error occurred", "errorType": "T"}
    assert json.loads(side.events[0][1].payload) == document


def test_init_error_once_and_only_before_next(side):
    side.connection.feed(post("init/error", b"{}", "Lambda-Runtime-Function-Error-Type: Runtime.X\r\n"))
    assert side.events == [("init_error", "Runtime.X", b"{}")] and side.take()[0] == 202
    side.connection.feed(post("init/error", b"{}"))
    assert side.take()[0] == 403
    other = Side()
    other.run()
    other.connection.feed(post("init/error", b"{}"))
    assert other.take()[0] == 403


STREAM = (
    b"POST /2018-06-01/runtime/invocation/r-1/response HTTP/1.1\r\nContent-Type: text/plain\r\n"
    b"Lambda-Runtime-Function-Response-Mode: Streaming\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n"
)


def test_a_stream_passes_on_each_chunk_as_it_comes(side):
    side.run()
    side.connection.feed(STREAM + b"3\r\nabc\r\n")
    assert side.events == [("stream", "text/plain"), ("chunk", b"abc")] and side.writes == []
    side.connection.feed(b"1\r\nd\r\n")
    side.connection.feed(b"0\r\n\r\n")
    assert side.events[2:] == [("chunk", b"d"), ("answered", Answer(b"", None, "text/plain", streamed=True))]
    assert side.take()[0] == 202


def test_trailers_carry_the_error_of_a_stream(side):
    side.run()
    body = base64.b64encode(b'{"errorMessage":"late"}').decode()
    side.connection.feed(
        STREAM + b"1\r\na\r\n0\r\nLambda-Runtime-Function-Error-Type: Late\r\n"
        + f"Lambda-Runtime-Function-Error-Body: {body}\r\n\r\n".encode()
    )  # fmt: skip
    assert side.events[-1] == ("answered", Answer(b'{"errorMessage":"late"}', "Late", "text/plain", streamed=True))


def test_an_unknown_response_mode_is_refused(side):
    side.run()
    side.connection.feed(post("invocation/r-1/response", b"1", "Lambda-Runtime-Function-Response-Mode: odd\r\n"))
    status, document = side.take()
    assert status == 400 and document["errorType"] == "InvalidFunctionResponseMode" and side.events == []


def test_ping_unknown_paths_and_garbage(side):
    side.connection.feed(b"GET /ping HTTP/1.1\r\n\r\n")
    assert side.writes.pop().endswith(b"\r\n\r\npong")
    side.connection.feed(b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\n\r\n")
    assert side.writes.pop().startswith(b"HTTP/1.1 404 ")
    side.connection.feed(b"this is not http\r\n\r\n")
    assert side.writes.pop().startswith(b"HTTP/1.1 400 ") and side.closed == 1

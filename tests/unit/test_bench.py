"""The benchmark's own parts: the Python generator and the report."""

import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import generator
import ingest
import queues
import report
import servers

QUEUE = "http://127.0.0.1/000000000000/q"


class FakeQueue(BaseHTTPRequestHandler):
    """SQS over JSON with a count of messages; a depth below zero fails every request."""

    protocol_version = "HTTP/1.1"
    depth = 0
    deleted = 0
    sent: tuple[dict, ...] = ()

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).sent += (given,)
        action = self.headers["X-Amz-Target"].partition(".")[2]
        answer: dict = {}
        if action == "ReceiveMessage" and type(self).depth > 0:
            count = min(given["MaxNumberOfMessages"], type(self).depth)
            type(self).depth -= count
            answer = {"Messages": [{"ReceiptHandle": f"h{number}"} for number in range(count)]}
        elif action == "DeleteMessageBatch":
            type(self).deleted += len(given["Entries"])
            answer = {"Successful": []}
        body = json.dumps(answer).encode()
        self.send_response(400 if type(self).depth < 0 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        return None


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A generator that is done closes connections that are still being answered."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@pytest.fixture
def fake():
    handler = type("Handler", (FakeQueue,), {})
    server = QuietServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_generator_stops_at_the_count_and_counts_answers(fake):
    endpoint, _ = fake
    result = generator.load(endpoint, 3, 30, {"LOAD_KIND": "send", "LOAD_QUEUE": QUEUE}, count=50)
    assert result["requests"] == 50
    assert (result["bad"], result["errors"]) == (0, 0)


def test_generator_drains_and_deletes_everything_once(fake):
    endpoint, handler = fake
    handler.depth = 95
    result = generator.load(endpoint, 4, 30, {"LOAD_KIND": "drain", "LOAD_QUEUE": QUEUE})
    assert result["messages"] == 95
    assert (handler.depth, handler.deleted) == (0, 95)
    assert result["seconds"] < 30


def test_fifo_sends_take_the_groups_in_turn_and_never_repeat_a_deduplication_id(fake):
    endpoint, handler = fake
    variables = {"LOAD_QUEUE": QUEUE, "LOAD_GROUPS": "3"}
    assert generator.load(endpoint, 1, 30, {**variables, "LOAD_KIND": "fifo"}, count=30)["requests"] == 30
    singles = handler.sent[:30]
    assert {message["MessageGroupId"] for message in singles} == {"g0", "g1", "g2"}
    generator.load(endpoint, 1, 30, {**variables, "LOAD_KIND": "fifobatch"}, count=3)
    rows = [row for request in handler.sent if "Entries" in request for row in request["Entries"]]
    ids = [message["MessageDeduplicationId"] for message in (*singles, *rows)]
    assert len(ids) >= 60
    assert len(set(ids)) == len(ids)


def test_a_drain_can_wait_for_messages_and_outlast_empty_answers(fake):
    endpoint, handler = fake
    variables = {"LOAD_KIND": "drain", "LOAD_QUEUE": QUEUE, "LOAD_WAIT": "1", "LOAD_EMPTY": "200"}
    result = generator.load(endpoint, 2, 30, variables)
    assert result["requests"] >= 200
    assert {request["WaitTimeSeconds"] for request in handler.sent} == {1}


class Parked:
    """What `queues.Polls` wants of a server."""

    protocol = "json"

    def __init__(self, port: int) -> None:
        self.port = port


def test_a_parked_receive_is_quiet_until_its_whole_answer_is_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        polls = queues.Polls(Parked(listener.getsockname()[1]), QUEUE)
        try:
            assert polls.park(2) == 2
            first, second = listener.accept()[0], listener.accept()[0]
            assert b'"WaitTimeSeconds": 20' in second.recv(65_536)
            assert polls.quiet()
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwake"
            first.sendall(answer[:20])
            threading.Timer(0.05, first.sendall, [answer[20:]]).start()
            assert polls.woken(10)[1] == b"wake"
            assert polls.quiet()
            with pytest.raises(RuntimeError, match="no parked receive answered"):
                polls.woken(0.01)
        finally:
            polls.close()
        first.close()
        second.close()


def test_generator_counts_refusals(fake):
    endpoint, handler = fake
    handler.depth = -1
    result = generator.load(endpoint, 2, 30, {"LOAD_KIND": "send", "LOAD_QUEUE": QUEUE}, count=10)
    assert result["bad"] == 10


def test_query_requests_are_forms_to_the_path_of_the_queue():
    variables = {"LOAD_KIND": "batch", "LOAD_QUEUE": "http://h:1/queue/q", "LOAD_PROTOCOL": "query", "LOAD_SIZE": "3"}
    head, _, body = generator.Requests("h:1", variables).next().partition(b"\r\n\r\n")
    assert head.startswith(b"POST /queue/q HTTP/1.1\r\n")
    assert b"Action=SendMessageBatch&Version=2012-11-05" in body
    assert b"SendMessageBatchRequestEntry.10.MessageBody=xxx" in body
    assert f"Content-Length: {len(body)}".encode() in head


def test_reader_waits_for_the_whole_answer():
    reader = generator.Reader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Le") is None
    assert reader.feed(b"ngth: 4\r\n\r\nab") is None
    assert reader.feed(b"cd") == (200, b"abcd")
    assert reader.feed(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n") is None
    assert reader.feed(b"0\r\n\r\n") == (503, b"1\r\na\r\n0\r\n\r\n")


def test_ratios_are_taken_round_by_round():
    figures = {"preheat": {"a": [10.0, 40.0, 90.0]}, "ministack": {"a": [1.0, 20.0, 30.0]}}
    assert report.ratio(figures, "a", "ministack") == 3
    assert report.ratio(figures, "a", "moto") is None
    assert report.cell(figures, "a", "ministack") == "20 (1 to 30) x3 (2 to 10)"


def test_what_a_sync_allows_and_what_rules_cost():
    figures = {
        "preheat": {
            report.SEND: [16_000.0], "events put, 0 rules, entries /s": [50_000.0],
            "events put, 1,000 rules, entries /s": [40_000.0],
        },
        "preheat-power": {report.SEND: [8_000.0], "fdatasync ms": [1.0]},
    }  # fmt: skip
    measured = {each.text: each.value(figures) for each in report.EXPECTED}
    assert measured["sends in power durability over what the disk's sync allows, at least"] == pytest.approx(1.0)
    assert measured["an event's cost at 1,000 rules over that at none, at most"] == pytest.approx(1.25)
    del figures["preheat-power"]["fdatasync ms"]
    assert all(each.value(figures) is None for each in report.EXPECTED if "power durability" in each.text)


def test_the_least_of_several_figures_is_unknown_when_one_is():
    shares = {report.DEEP: [0.9], report.DEEP_SEND: [0.9]}
    least = next(each for each in report.EXPECTED if "the least" in each.text)
    assert least.met({"preheat": shares}) is None
    assert least.met({"preheat": {**shares, report.DEEP_BATCH: [0.7]}}) is False
    assert least.met({"preheat": {**shares, report.DEEP_BATCH: [0.85]}}) is True


def test_report_says_what_was_met_missed_and_not_measured():
    figures = {
        "preheat": {report.SEND: [20_000.0], "idle memory MB": [95.0], "start to first answer s": [0.2]},
        "ministack": {report.SEND: [2_000.0]},
    }
    about = {"repeats": 1, "seconds": 1, "cores": 2, "generator": "wrk", "took_s": 9, "load_average": 0.5}
    text = report.markdown(figures, ["moto: pip failed"], about)
    assert "| SQS sends at 16 connections over MiniStack's, at least | 5 | 10 | met |" in text
    assert "| idle memory, MB, at most | 90 | 95 | **not met** |" in text
    assert "| cold invocation, light, ms, at most | 20 | - | not measured |" in text
    assert "| sqs send c=16 /s | 20,000 | 2,000 x10 |" in text
    assert "- moto: pip failed" in text
    met = {each["text"]: each["met"] for each in report.document(figures, [], about)["expected"]}
    assert met["idle memory, MB, at most"] is False


def test_power_is_shown_beside_the_disk_and_each_expectation_has_a_line():
    figures = {
        "preheat": {"sqs send c=64 /s": [64_000.0], report.SEND: [26_000.0]},
        "preheat-power": {"sqs send c=64 /s": [24_000.0], "fdatasync ms": [1.0]},
    }
    about = {"repeats": 1, "seconds": 1, "cores": 2, "generator": "wrk", "took_s": 9, "load_average": 0.5}
    assert "| 64 | 24,000 | 32,000 | 75% |" in report.markdown(figures, [], about)
    lines = report.verdicts(figures)
    assert len(lines) == len(report.EXPECTED)
    assert "met              26,000  SQS sends a second at 16 connections, at least 25,000" in lines
    assert report.power(figures, 16) is None


def test_a_quick_run_asks_for_all_of_preheat_and_nothing_that_a_peer_cannot():
    assert servers.QUICK["preheat"] == servers.FEATURES["preheat"]
    assert all(servers.QUICK[name] <= servers.FEATURES[name] for name in servers.QUICK_SERVERS)


def test_the_steady_rate_of_ingest_leaves_out_the_start_and_the_end():
    def batch(second, passages):
        return [{"updated_ms": str(1_000 * second), "chunks": str(passages // 2)} for _ in range(2)]

    steady = [row for number in range(10) for row in batch(20 + number, 10)]
    assert ingest.steady_rate(steady) == pytest.approx(10.0)
    slow = [*batch(0, 10), *steady[2:-2], *batch(90, 10)]
    assert ingest.steady_rate(slow) == pytest.approx(10.0)
    assert ingest.steady_rate(batch(1, 10)) != ingest.steady_rate(batch(1, 10))


def test_passages_are_sent_to_the_model_in_pieces_that_it_reads():
    class Words:
        max_tokens = 256

        def count_tokens(self, text):
            return 2 + len(text.split())

    groups = [["short one"], ["word " * 200, "word " * 500]]
    sent = ingest.sent_as(ingest.MINILM, Words(), groups)
    assert sum(len(text.split()) for text in sent) == 702
    assert max(map(Words().count_tokens, sent)) <= 256 and len(sent) > 3

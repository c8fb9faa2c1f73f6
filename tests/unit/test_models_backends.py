"""Limits, batching, configuration, the hashing double, and backends behind a server of our own."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.kernel.stream import InlineBackground
from preheat.models.batching import Batcher
from preheat.models.contract import (
    Message,
    ModelDenied,
    ModelFailed,
    ModelInputError,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from preheat.models.hashing import HashingEmbedder
from preheat.models.limits import Limits, RateLimit
from preheat.models.openai_compatible import ChatGenerator, Server, ServerEmbedder
from preheat.models.registry import ModelConfigurationError, Registry


class HeldBackground:
    """Work waits until the test lets it run."""

    def __init__(self):
        self.jobs = []

    def run(self, work, done):
        self.jobs.append((work, done))

    def release(self):
        work, done = self.jobs.pop(0)
        InlineBackground().run(work, done)


class Recording(HashingEmbedder):
    def __init__(self):
        super().__init__(dimension=8)
        self.runs = []

    def embed(self, texts, kind="document"):
        self.runs.append(list(texts))
        if "bad" in texts:
            raise ModelInputError("bad text")
        return super().embed(texts, kind)


def test_requests_that_arrive_while_a_batch_runs_share_the_next():
    background, embedder, answers = HeldBackground(), Recording(), {}
    batcher = Batcher(background, embedder)
    for name in "abc":
        batcher.submit([name], "document", lambda value, name=name: answers.__setitem__(name, value))
    assert len(background.jobs) == 1
    background.release()
    background.release()
    assert embedder.runs == [["a"], ["b", "c"]]
    assert not background.jobs
    for name in "abc":
        assert numpy.array_equal(answers[name][0].vector, HashingEmbedder(dimension=8).embed([name])[0])
        assert answers[name][0].tokens == 1


def test_a_question_does_not_wait_behind_a_long_request():
    background, embedder, order = HeldBackground(), Recording(), []
    batcher = Batcher(background, embedder, batch_texts=4)
    batcher.submit([f"d{n}" for n in range(10)], "document", lambda value: order.append(("long", len(value))))
    batcher.submit(["q"], "query", lambda value: order.append(("short", len(value))))
    background.release()
    background.release()
    assert order == [("short", 1)]
    while background.jobs:
        background.release()
    assert order == [("short", 1), ("long", 10)]
    assert [text for run in embedder.runs for text in run if text != "q"] == [f"d{n}" for n in range(10)]


def test_the_oldest_request_for_documents_is_done_first_and_what_waits_fills_the_batch():
    background, embedder, done = HeldBackground(), Recording(), []
    batcher = Batcher(background, embedder, batch_texts=4)
    for name in "abc":
        batcher.submit([name] * 6, "document", lambda value, name=name: done.append((name, len(embedder.runs))))
    while background.jobs:
        background.release()
    assert ["".join(run) for run in embedder.runs] == ["aaaa", "aabb", "bbbb", "cccc", "cc"]
    assert done == [("a", 2), ("b", 3), ("c", 5)]


def test_a_batch_ends_at_its_characters_and_takes_one_text_however_long():
    background, embedder = HeldBackground(), Recording()
    batcher = Batcher(background, embedder, batch_characters=10)
    batcher.submit(["aaaa", "bbbb", "cccc", "d" * 30, "e"], "document", lambda value: None)
    while background.jobs:
        background.release()
    assert embedder.runs == [["aaaa", "bbbb"], ["cccc"], ["d" * 30], ["e"]]


def test_questions_and_documents_take_turns():
    background, embedder = HeldBackground(), Recording()
    batcher = Batcher(background, embedder, batch_texts=2)
    batcher.submit(["d"] * 6, "document", lambda value: None)
    batcher.submit(["p", "q", "r"], "query", lambda value: None)
    batcher.submit(["x"], "query", lambda value: None)
    while background.jobs:
        background.release()
    assert ["".join(run) for run in embedder.runs] == ["dd", "px", "dd", "qr", "dd"]


def test_one_bad_request_does_not_spoil_its_neighbours():
    background, answers = HeldBackground(), {}
    batcher = Batcher(background, Recording())
    batcher.submit(["first"], "document", lambda value: None)
    batcher.submit(["good"], "document", lambda value: answers.__setitem__("good", value))
    batcher.submit(["bad"], "document", lambda value: answers.__setitem__("bad", value))
    background.release()
    background.release()
    assert isinstance(answers["bad"], ModelInputError)
    assert len(answers["good"]) == 1


def test_cancelled_requests_are_not_embedded():
    background, embedder = HeldBackground(), Recording()
    batcher = Batcher(background, embedder)
    batcher.submit(["a"], "document", lambda value: None)
    gone = batcher.submit(["b"], "document", lambda value: pytest.fail("answered a request that was cancelled"))
    gone.cancel()
    background.release()
    assert embedder.runs == [["a"]] and not background.jobs


def test_request_limit_refills_steadily():
    rate = RateLimit(Limits(requests_per_minute=60), 100.0)
    assert [rate.admit(0, 100.0) for _ in range(61)] == [None] * 60 + ["requests"]
    assert rate.admit(0, 100.5) == "requests"
    assert rate.admit(0, 101.0) is None
    assert rate.admit(0, 101.0) == "requests"


def test_token_limit_counts_what_was_used():
    rate = RateLimit(Limits(tokens_per_minute=100), 0.0)
    assert rate.admit(80, 0.0) is None
    assert rate.admit(80, 0.0) == "tokens"
    rate.settle(80, 10, 0.0)
    assert rate.admit(80, 0.0) is None
    rate.settle(80, 200, 0.0)
    assert rate.admit(1, 60.0) == "tokens"
    assert rate.admit(1, 80.0) is None


def test_more_than_a_minute_holds_passes_a_full_bucket():
    rate = RateLimit(Limits(tokens_per_minute=10), 0.0)
    assert rate.admit(50, 0.0) is None
    assert rate.admit(1, 200.0) == "tokens"
    assert rate.admit(1, 246.0) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 40)), max_size=60))
def test_never_more_than_the_rate(steps):
    """Over any history at most one full bucket plus the refill is admitted."""
    rate, now, admitted = RateLimit(Limits(tokens_per_minute=60), 0.0), 0.0, 0
    for pause, tokens in steps:
        now += pause
        if rate.admit(tokens, now) is None:
            admitted += tokens
    assert admitted <= 60 + now + 1e-6


def test_hashing_is_deterministic_and_folds():
    embedder = HashingEmbedder()
    one = embedder.embed(["warm start", "cold start", ""])
    assert one.dtype == numpy.float32 and one.shape == (3, 1024)
    assert numpy.array_equal(one, HashingEmbedder().embed(["warm start", "cold start", ""]))
    assert not one[2].any()
    small = HashingEmbedder(dimension=256).embed(["warm start"])[0]
    assert numpy.allclose(embedder.shorten(one[0], 256), small, atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("hashing", "expected a table"),
        ({"backend": "magic"}, "backend must be one of"),
        ({}, "backend must be one of"),
        ({"backend": "hashing", "rpm": 5}, "unknown key 'rpm'"),
        ({"backend": "hashing", "options": {"size": 5}}, "has no option 'size'"),
        ({"backend": "hashing", "options": {"dimension": 0}}, "dimension must be"),
        ({"backend": "hashing", "requests_per_minute": 0}, "requests_per_minute must be"),
        ({"backend": "hashing", "tokens_per_minute": True}, "tokens_per_minute must be"),
        ({"backend": "minilm", "options": {"engine": "torch"}}, "engine must be one of"),
        ({"backend": "minilm", "options": {"dimension": 256}}, "dimension must be"),
        ({"backend": "openai"}, "base_url is required"),
        ({"backend": "openai", "options": {"base_url": "ftp://x", "model": "m"}}, "not an http"),
        ({"backend": "openai", "options": {"base_url": "http://x"}}, "model is required"),
        ({"backend": "openai", "options": {"base_url": "http://x", "model": "m", "kind": "embedding"}}, "dimension"),
        (
            {"backend": "openai", "options": {"base_url": "http://x", "model": "m", "api_key_env": "NOT_SET_HERE"}},
            "NOT_SET_HERE is not set",
        ),
    ],
)
def test_wrong_configuration_is_refused(entry, text):
    with pytest.raises(ModelConfigurationError, match=text):
        Registry({"some.model": entry})


def test_defaults_are_there_and_may_be_limited():
    registry = Registry({"preheat.minilm-l6-v2": {"requests_per_minute": 5}})
    assert [model.id for model in registry.models()] == [
        "preheat.minilm-l6-v2",
        "preheat.hashing-1024",
        "preheat.extractive-v1",
        "preheat.late-interaction-v1",
    ]
    assert registry.find("preheat.minilm-l6-v2").limits == Limits(requests_per_minute=5)
    assert registry.find("amazon.titan-embed-text-v2:0") is None


def test_ids_with_the_same_settings_share_one_minilm():
    registry = Registry({"t": {"backend": "minilm", "options": {"dimension": 1024}}})
    default, mapped = registry.find("preheat.minilm-l6-v2").embedder, registry.find("t").embedder
    assert mapped.model is default.model
    assert mapped.dimensions == (512, 1024)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, dict(self.headers)))
        status, lines = self.server.answer
        data = b"".join(lines)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) + self.server.missing))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True
        if self.server.hold is not None:
            self.server.hold.wait(30)

    def log_message(self, *args):
        pass


@contextmanager
def serving(status, *lines, missing=0, hold=None, timeout_s=10.0):
    """A server that answers every POST alike, then yields (Server, requests seen)."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answer, server.seen, server.missing, server.hold = (status, lines), [], missing, hold
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}/v1", "key", timeout_s), server.seen
        finally:
            if hold is not None:
                hold.set()
            server.shutdown()
            thread.join()


def event(text=None, finish=None, **more):
    choices = [{"delta": {"content": text} if text else {}, "finish_reason": finish}]
    return b"data: " + json.dumps({"choices": choices, **more}).encode() + b"\n\n"


def say(server, **options):
    return ChatGenerator("x", server, "m").generate([Message("user", "hello")], **options)


def test_chat_streams_and_counts():
    usage = {"usage": {"prompt_tokens": 7, "completion_tokens": 2}, "choices": []}
    lines = [event("Hi "), event("you"), event(finish="length"), b"data: " + json.dumps(usage).encode() + b"\n\n"]
    with serving(200, *lines, b"data: [DONE]\n\n") as (server, seen):
        generation = say(server, system="be kind", max_tokens=9, stop=["END"], temperature=0.5, top_p=0.9)
        assert list(generation) == ["Hi ", "you"]
    assert (generation.stop_reason, generation.usage.input_tokens, generation.usage.output_tokens) == (
        "max_tokens",
        7,
        2,
    )
    path, body, headers = seen[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer key"
    assert body["messages"] == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    assert (body["max_tokens"], body["stop"], body["temperature"], body["top_p"]) == (9, ["END"], 0.5, 0.9)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ModelInputError),
        (401, ModelDenied),
        (429, ModelThrottled),
        (503, ModelUnavailable),
        (504, ModelTimeout),
        (500, ModelFailed),
    ],
)
def test_chat_errors(status, kind):
    with (
        serving(status, b'{"error": {"message": "told so"}}') as (server, _),
        pytest.raises(kind, match="told so") as caught,
    ):
        list(say(server))
    assert type(caught.value) is kind


@pytest.mark.parametrize("lines", [[event("Hi ")], [event("Hi "), b"data: {oops\n\n"], [b'data: {"error": {}}\n\n']])
def test_chat_that_breaks_off(lines):
    with serving(200, *lines) as (server, _), pytest.raises(ModelFailed):
        list(say(server))


def test_chat_that_hangs():
    with serving(200, event("Hi "), missing=100, hold=threading.Event(), timeout_s=1.5) as (server, _):
        generation = say(server)
        assert next(generation) == "Hi "
        with pytest.raises(ModelTimeout):
            next(generation)


def test_chat_without_a_server():
    with serving(200) as (server, _):
        pass
    with pytest.raises(ModelUnavailable):
        list(say(server))


def test_server_embeddings():
    rows = {"data": [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3, 4]}]}
    with serving(200, json.dumps(rows).encode()) as (server, _):
        vectors = ServerEmbedder("x", server, "m", 2).embed(["a", "b"])
        assert numpy.allclose(vectors, [[0.6, 0.8], [0, 1]])
        with pytest.raises(ModelFailed, match="shape"):
            ServerEmbedder("x", server, "m", 3).embed(["a", "b"])
    with serving(200, b'{"data": [{}]}') as (server, _), pytest.raises(ModelFailed, match="no embeddings"):
        ServerEmbedder("x", server, "m", 2).embed(["a"])

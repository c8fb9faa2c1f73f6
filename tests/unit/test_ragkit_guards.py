"""The RAG stack's embedder, store and generator behind breakers; kept embeddings."""

import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.embed import EmbeddingUnavailable
from ragkit.generate import GenerationUnavailable, Usage
from ragkit.guards import GuardedEmbedder, GuardedGenerator, GuardedStore, Kept
from ragkit.resilience import Breaker, BreakerSettings, Refused
from ragkit.store import Stored

THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "InvokeModel")


def breaker():
    return Breaker("the model m", BreakerSettings(window=4, least=2, share=0.6, open_s=60))


class Model:
    model = "m"

    def __init__(self):
        self.asked = []
        self.broken = False

    def query(self, text):
        self.asked.append(text)
        if self.broken:
            raise EmbeddingUnavailable("the model m failed") from THROTTLED
        return [float(len(text))]


def test_a_text_is_embedded_once_and_hits_are_counted():
    inner, counted = Model(), []
    guarded = GuardedEmbedder(inner, breaker(), None, Kept(2), counted.append)
    assert [guarded.query(text) for text in ("a", "a", "bb", "ccc", "a")] == [[1.0], [1.0], [2.0], [3.0], [1.0]]
    assert inner.asked == ["a", "bb", "ccc", "a"]
    assert counted.count("EmbeddingCacheHits") == 1 and counted.count("EmbeddingCacheMisses") == 4


def test_a_model_that_keeps_failing_is_left_alone_but_what_is_kept_is_answered():
    inner = Model()
    guarded = GuardedEmbedder(inner, breaker(), None, Kept(8))
    guarded.query("known")
    inner.broken = True
    for _ in range(2):
        with pytest.raises(EmbeddingUnavailable, match="the model m failed"):
            guarded.query("new")
    with pytest.raises(EmbeddingUnavailable, match="is left alone"):
        guarded.query("new")
    assert inner.asked == ["known", "new", "new"]
    assert guarded.query("known") == [5.0]


class Search:
    def dense(self, vector, count, model, where):
        raise THROTTLED


def test_a_store_that_keeps_failing_is_refused():
    store = GuardedStore(Search(), breaker())
    for _ in range(2):
        with pytest.raises(ClientError):
            store.dense([1.0], 1, "m", None)
    with pytest.raises(Refused):
        store.dense([1.0], 1, "m", None)


class Shelf:
    """A store that has what is written embedded first, as all of them do."""

    def replace(self, document, chunks, embed, model):
        if embed is not None:
            embed(["text"])
        return Stored(1, 0, 0)


def test_a_model_that_fails_while_the_store_waits_for_it_is_not_the_stores_failure():
    def broken(texts):
        raise EmbeddingUnavailable("the model m failed") from THROTTLED

    changed = []
    store = GuardedStore(Shelf(), breaker(), changed=lambda: changed.append(1))
    for _ in range(5):
        with pytest.raises(EmbeddingUnavailable, match="the model m failed") as caught:
            store.replace("a", [], broken, "m")
        assert caught.value.__cause__ is THROTTLED
    assert store.replace("a", [], None, "m") == Stored(1, 0, 0)
    assert len(changed) == 6


class Pieces:
    stop_reason = "end_turn"

    def __init__(self, error=None):
        self.usage, self.error, self.closed = Usage(3, 2), error, False

    def __iter__(self):
        yield "one"
        if self.error:
            raise GenerationUnavailable("the model m failed") from self.error
        yield "two"

    def close(self):
        self.closed = True


class Writer:
    model = "m"

    def __init__(self, *generations):
        self.generations = list(generations)

    def stream(self, system, messages, max_tokens):
        return self.generations.pop(0)


def test_a_stream_counts_once_and_its_usage_shows_through():
    whole = Pieces()
    generation = GuardedGenerator(Writer(whole), breaker()).stream("", [], 10)
    assert list(generation) == ["one", "two"]
    generation.close()
    assert whole.closed and generation.usage.input == 3 and generation.stop_reason == "end_turn"


def test_streams_that_break_off_open_the_circuit():
    generator = GuardedGenerator(Writer(Pieces(THROTTLED), Pieces(THROTTLED), Pieces()), breaker())
    for _ in range(2):
        with pytest.raises(GenerationUnavailable, match="failed"):
            list(generator.stream("", [], 10))
    with pytest.raises(GenerationUnavailable, match="left alone"):
        list(generator.stream("", [], 10))

"""One suite for every embedder and one for every generator."""

import json
import threading

import numpy
import pytest

from preheat.models.contract import Message
from preheat.models.extractive import ExtractiveAnswerer
from preheat.models.hashing import HashingEmbedder
from preheat.models.minilm import MiniLM, weights_folder
from preheat.models.openai_compatible import ChatGenerator, ServerEmbedder
from preheat.models.registry import Registry

TEXTS = ["How do I reset my password?", "The weather is sunny in Lisbon.", "queue", "a longer text " * 30]


class ScriptedServer:
    """What an OpenAI-compatible server answers, without a socket."""

    def document(self, path, body):
        double = HashingEmbedder(dimension=32)
        vectors = double.embed(body["input"])
        return {"data": [{"index": at, "embedding": vector.tolist()} for at, vector in enumerate(vectors)]}

    def post(self, path, body):
        class Nothing:
            def close(self):
                pass

        return Nothing(), None

    def lines(self, response):
        for word in ("Lisbon ", "is ", "sunny."):
            yield "data: " + json.dumps({"choices": [{"delta": {"content": word}, "finish_reason": None}]})
            yield ""
        yield "data: [DONE]"


def mapped():
    return Registry({"t": {"backend": "minilm", "options": {"dimension": 1024, "threads": 1}}}).find("t").embedder


needs_weights = pytest.mark.skipif(weights_folder() is None, reason="the weights package is not installed")
EMBEDDERS = [
    pytest.param(lambda: MiniLM(engine="onnxruntime", threads=1), id="minilm-onnxruntime", marks=needs_weights),
    pytest.param(lambda: MiniLM(engine="numpy"), id="minilm-numpy", marks=needs_weights),
    pytest.param(mapped, id="minilm-1024", marks=needs_weights),
    pytest.param(lambda: HashingEmbedder(), id="hashing"),
    pytest.param(lambda: ServerEmbedder("s", ScriptedServer(), "m", 32), id="openai"),
]
GENERATORS = [
    pytest.param(lambda: ExtractiveAnswerer(), id="extractive"),
    pytest.param(
        lambda: ExtractiveAnswerer(embedder=MiniLM(threads=1)), id="extractive-minilm", marks=needs_weights
    ),
    pytest.param(lambda: ChatGenerator("c", ScriptedServer(), "m"), id="openai"),
]
PROMPT = "<passages>[1] Weather\nLisbon is sunny.</passages><question>Is Lisbon sunny?</question>"


@pytest.fixture(scope="module", params=EMBEDDERS)
def embedder(request):
    return request.param()


@pytest.fixture(params=GENERATORS)
def generator(request):
    return request.param()


def test_shape_type_and_length(embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == numpy.float32
    assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_order_is_kept_and_neighbours_do_not_matter(embedder):
    together = embedder.embed(TEXTS)
    backwards = embedder.embed(TEXTS[::-1])[::-1]
    assert numpy.allclose(together, backwards, atol=1e-5)
    assert numpy.allclose(together[2], embedder.embed(TEXTS[2:3], "query")[0], atol=1e-5)


def test_shortened_vectors(embedder):
    vector = embedder.embed(TEXTS[:1])[0]
    assert embedder.dimension in embedder.dimensions
    for dimension in embedder.dimensions:
        short = embedder.shorten(vector, dimension)
        assert short.shape == (dimension,)
        assert numpy.linalg.norm(short) == pytest.approx(1, abs=1e-5)


def test_tokens_grow_with_the_text(embedder):
    assert 0 < embedder.count_tokens("queue") < embedder.count_tokens("a longer text " * 30)


def test_threads_may_share_an_embedder(embedder):
    expected, results = embedder.embed(TEXTS), []
    threads = [threading.Thread(target=lambda: results.append(embedder.embed(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(numpy.allclose(result, expected, atol=1e-5) for result in results)


def test_generates_pieces_and_counts(generator):
    generation = generator.generate([Message("user", PROMPT)], "Be brief.")
    pieces = list(generation)
    assert len(pieces) > 2 and "".join(pieces).startswith("Lisbon is sunny.")
    assert generation.stop_reason == "end_turn" and generation.stop_sequence is None
    assert generation.usage.input_tokens > 0 and generation.usage.output_tokens >= 3


def test_a_generation_may_be_given_up(generator):
    generation = generator.generate([Message("user", PROMPT)])
    next(generation)
    generation.close()
    assert list(generation) == []

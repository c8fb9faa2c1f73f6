"""Reranking by late interaction over MiniLM's token vectors (the MaxSim of ColBERT, with no weights of its own).

Each token of the query looks for the passage's token nearest to it (cosine); the mean of these cosines, weighted by how
rare the query's token is, says how much of the query the passage holds. A passage's score is that of the whole passage,
that of its best window of two blocks, and the cosine of query and window as two vectors in the best window: an answer
stands in a few sentences. How rare a token is is read off the vocabulary, which BERT orders by frequency, so no corpus
is needed and scores of different queries compare. Control tokens and punctuation do not count.

Tokens of passages are kept, in 8 bits, up to `cache_bytes` in memory and in a `TokenStore`: a passage that was embedded
here, or comes again, costs no run of the model.
"""

import hashlib
import math
import string
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from preheat.models.minilm import MiniLM
from preheat.models.token_store import TokenStore

if TYPE_CHECKING:
    import numpy

CACHE_BYTES = 64 * 2**20
FIRST_WORD = 996
"""Before this id the vocabulary has control tokens, unused places and single signs; from here on, words by
frequency."""
LEAST_WEIGHT = 0.2
LEVELS = 127
LEAST_LENGTH = 1e-6
BLOCK = 16
"""Tokens; windows are two blocks long and overlap by one."""
WHOLE, WORDS, SENSE = 0.4, 0.4, 0.2
"""What counts how much: the whole passage, the best window token by token, the best window as one vector."""


class Tokens(NamedTuple):
    """A passage's tokens that count: int8 (tokens, 384); what a row is multiplied with, float32 (tokens,); the length
    of each window's sum, float32 (windows,)."""

    rows: "numpy.ndarray"
    scales: "numpy.ndarray"
    lengths: "numpy.ndarray"

    @property
    def bytes(self) -> int:
        return self.rows.nbytes + self.scales.nbytes + self.lengths.nbytes


def measured(rows: "numpy.ndarray", scales: "numpy.ndarray") -> Tokens:
    """Tokens with the lengths that `rows` and `scales` give."""
    import numpy

    tokens = numpy.arange(len(rows))
    shares = numpy.zeros((-(-len(rows) // BLOCK), len(rows)), dtype=numpy.float32)
    shares[tokens // BLOCK, tokens] = scales
    sums = shares @ rows.astype(numpy.float32)
    windows = sums[:-1] + sums[1:] if len(sums) > 1 else sums
    lengths = numpy.sqrt(numpy.einsum("ij,ij->i", windows, windows))
    return Tokens(rows, scales, numpy.maximum(lengths, LEAST_LENGTH))


class Blocks:
    """Where the blocks and windows of passages of `counts` tokens (each at least 1) are, one passage after the other.
    `starts` are the blocks' first tokens, `first` each passage's first block, `opened` its first window."""

    def __init__(self, counts: Sequence[int]) -> None:
        import numpy

        tokens = numpy.array(counts)
        blocks = -(-tokens // BLOCK)
        self.first = numpy.cumsum(blocks) - blocks
        at = numpy.arange(blocks.sum()) - numpy.repeat(self.first, blocks)
        self.starts = numpy.repeat(numpy.cumsum(tokens) - tokens, blocks) + BLOCK * at
        beside = numpy.repeat(blocks, blocks)
        self._left = numpy.flatnonzero((at + 1 < beside) | (beside == 1))
        self._paired = beside[self._left] > 1
        windows = numpy.maximum(blocks - 1, 1)
        self.opened = numpy.cumsum(windows) - windows

    def highest(self, of_blocks: "numpy.ndarray") -> "numpy.ndarray":
        """The windows' maxima."""
        import numpy

        return numpy.maximum(of_blocks[self._left], of_blocks[self._left + self._paired])

    def summed(self, of_blocks: "numpy.ndarray") -> "numpy.ndarray":
        """The windows' sums."""
        right = of_blocks[self._left + self._paired]
        right[~self._paired] = 0
        return of_blocks[self._left] + right


class TokenCache:
    """Tokens by the text's digest, up to `most` bytes; the least recently used go first. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, Tokens] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, key: bytes) -> Tokens | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: bytes, tokens: Tokens) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = tokens
            self.bytes += tokens.bytes
            while self.bytes > self._most:
                self.bytes -= self._kept.popitem(last=False)[1].bytes


class LateInteraction:
    """Implements Reranker. `model` may serve others as well. Thread-safe."""

    def __init__(self, id: str, model: MiniLM, cache_bytes: int = CACHE_BYTES, store: TokenStore | None = None) -> None:
        self.id = id
        self.max_tokens = model.max_tokens
        self.cache = TokenCache(cache_bytes)
        self._model = model
        self._store = store
        self._weights: numpy.ndarray | None = None

    def available(self) -> bool:
        return self._model.available()

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """One relevance a text, 0 to 1. Texts and query are cut at `max_tokens`. Raises ModelUnavailable."""
        import numpy

        if not texts:
            return []
        weights = self._load_weights()[self._model.token_ids([query])[0]]
        vectors = self._model.token_vectors([query])[0]
        if not weights.any():
            weights = numpy.ones_like(weights)
        counted = weights > 0
        told = self._told(vectors[counted], weights[counted] / weights[counted].sum(), self._tokens(texts))
        return numpy.clip(told, 0.0, 1.0).astype(float).tolist()

    @staticmethod
    def _told(vectors: "numpy.ndarray", weights: "numpy.ndarray", passages: Sequence[Tokens]) -> "numpy.ndarray":
        """The passages' scores. Rows are unpacked text by text, so that they stay in the processor's cache."""
        import numpy

        turned = numpy.ascontiguousarray(vectors.T)
        cosines = numpy.concatenate([one.rows.astype(numpy.float32) @ turned * one.scales[:, None] for one in passages])
        blocks = Blocks([len(one.rows) for one in passages])
        nearest = numpy.maximum.reduceat(cosines, blocks.starts, axis=0)
        whole = numpy.maximum.reduceat(nearest, blocks.first, axis=0) @ weights
        words = numpy.maximum.reduceat(blocks.highest(nearest) @ weights, blocks.opened)
        lengths = numpy.concatenate([one.lengths for one in passages]) * numpy.linalg.norm(weights @ vectors)
        alike = blocks.summed(numpy.add.reduceat(cosines @ weights, blocks.starts)) / lengths
        return WHOLE * whole + WORDS * words + SENSE * numpy.maximum.reduceat(alike, blocks.opened)

    def _tokens(self, texts: Sequence[str]) -> list[Tokens]:
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        known = {key: found for key in keys if (found := self._kept(key)) is not None}
        fresh = {key: text for key, text in zip(keys, texts) if key not in known}
        if fresh:
            some = list(fresh.values())
            ids = self._model.token_ids(some)
            for key, of_text, vectors in zip(fresh, ids, self._model.token_vectors(some)):
                known[key] = self._keep(key, self._packed(of_text, vectors))
        return [known[key] for key in keys]

    def remember(self, text: str, vectors: "numpy.ndarray") -> None:
        """Keep the tokens of a text that was embedded, float32 (tokens, 384), rows of length 1."""
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        self._keep(key, self._packed(self._model.token_ids([text])[0], vectors))

    def _kept(self, key: bytes) -> Tokens | None:
        found = self.cache.get(key)
        if found is None and self._store is not None:
            stored = self._store.get(key)
            if stored is not None:
                found = measured(*stored)
                self.cache.put(key, found)
        return found

    def _keep(self, key: bytes, tokens: Tokens) -> Tokens:
        self.cache.put(key, tokens)
        if self._store is not None:
            self._store.put(key, tokens.rows, tokens.scales)
        return tokens

    def _packed(self, ids: Sequence[int], vectors: "numpy.ndarray") -> Tokens:
        """Without what does not count, unless nothing else is there."""
        import numpy

        counted = self._load_weights()[list(ids)] > 0
        if counted.any():
            vectors = vectors[counted]
        scales = numpy.abs(vectors).max(axis=1) / LEVELS
        return measured(numpy.rint(vectors / scales[:, None]).astype(numpy.int8), scales.astype(numpy.float32))

    def _load_weights(self) -> "numpy.ndarray":
        """float32, by token id; 0 for what does not count."""
        if self._weights is None:
            import numpy

            vocabulary = self._model.vocabulary()
            weights = numpy.zeros(max(vocabulary.values()) + 1, dtype=numpy.float32)
            for token, id in vocabulary.items():
                if id >= FIRST_WORD and not all(sign in string.punctuation for sign in token):
                    weights[id] = LEAST_WEIGHT + math.log(id / FIRST_WORD)
            self._weights = weights
        return self._weights

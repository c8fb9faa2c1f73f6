"""A test double: deterministic vectors by hashing words and character n-grams. Not a quality embedder."""

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from preheat.models.contract import Kind

if TYPE_CHECKING:
    import numpy

_WORDS = re.compile(r"\w+")
NGRAMS = (3, 4, 5)
SIZES = (256, 512)


class HashingEmbedder:
    """Words weigh 1, their character 3- to 5-grams 0.25; bucket and sign come from crc32; rows have length 1."""

    max_tokens = 0

    def __init__(self, id: str = "preheat.hashing-1024", dimension: int = 1_024) -> None:
        self.id = id
        self.dimension = dimension
        self.dimensions = (*(size for size in SIZES if size < dimension and dimension % size == 0), dimension)

    def embed(self, texts: Sequence[str], kind: Kind = "document") -> "numpy.ndarray":
        import numpy

        vectors = numpy.zeros((len(texts), self.dimension), dtype=numpy.float32)
        for row, text in zip(vectors, texts):
            for feature, weight in _features(text):
                code = zlib.crc32(feature.encode())
                row[(code >> 1) % self.dimension] += weight if code & 1 else -weight
            length = float(numpy.linalg.norm(row))
            if length:
                row /= length
        return vectors

    def count_tokens(self, text: str) -> int:
        return len(_WORDS.findall(text))

    def shorten(self, vector: "numpy.ndarray", dimension: int) -> "numpy.ndarray":
        """Buckets folded together, which is what hashing into fewer buckets gives."""
        import numpy

        folded = vector.reshape(-1, dimension).sum(axis=0)
        return folded / (float(numpy.linalg.norm(folded)) or 1.0)


def _features(text: str) -> list[tuple[str, float]]:
    features = []
    for word in _WORDS.findall(text.lower()):
        features.append((word, 1.0))
        padded = f"<{word}>"
        for size in NGRAMS:
            features.extend((padded[at : at + size], 0.25) for at in range(len(padded) - size + 1))
    return features

"""Chance as an argument. Nothing outside this module draws randomness."""

import os
import random
import uuid
from typing import Protocol


class Entropy(Protocol):
    def uuid(self) -> str:
        """A random UUID in its 36-character form."""

    def token(self, length: int, alphabet: str) -> str:
        """`length` characters drawn from `alphabet`."""

    def bytes(self, length: int) -> bytes:
        """`length` random bytes."""

    def uniform(self) -> float:
        """A float in [0, 1)."""


VERSION_4 = (4 << 76) | (8 << 60)
CHOSEN = ~((15 << 76) | (12 << 60))
"""The bits of a UUID that say what kind it is, and all the others."""


class SeededEntropy:
    """Reproducible chance: the same seed gives the same draws."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def uuid(self) -> str:
        value = f"{self._random.getrandbits(128) & CHOSEN | VERSION_4:032x}"
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"

    def token(self, length: int, alphabet: str) -> str:
        return "".join(self._random.choices(alphabet, k=length))

    def bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def uniform(self) -> float:
        return self._random.random()


class SystemEntropy(SeededEntropy):
    """Ids from a generator seeded by the operating system (fast); secrets from the operating system itself."""

    def __init__(self) -> None:
        super().__init__(uuid.uuid4().int)

    def bytes(self, length: int) -> bytes:
        return os.urandom(length)

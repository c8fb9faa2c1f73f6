"""What a shard takes and gives a second; kept in memory, full after a restart."""

from dataclasses import dataclass, field

from preheat.services.kinesis.domain import (
    READ_BYTES_A_SECOND,
    READS_A_SECOND,
    WRITE_BYTES_A_SECOND,
    WRITES_A_SECOND,
)

MOST_KEPT = 10_000
Key = tuple[int, int]


@dataclass(slots=True)
class _Pair:
    """A bucket of calls (or records) and one of bytes, each holding a second's worth."""

    counts: float
    size: float
    at_ms: int

    def fill(self, counts: int, size: int, now_ms: int) -> None:
        passed = max(0, now_ms - self.at_ms) / 1_000
        self.counts = min(counts, self.counts + counts * passed)
        self.size = min(size, self.size + size * passed)
        self.at_ms = now_ms


@dataclass
class Rates:
    _writes: dict[Key, _Pair] = field(default_factory=dict)
    _reads: dict[Key, _Pair] = field(default_factory=dict)

    def write(self, shard: Key, size: int, now_ms: int) -> bool:
        """Whether the shard takes one more record of this many bytes; counts it when it does."""
        pair = _of(self._writes, shard, WRITES_A_SECOND, WRITE_BYTES_A_SECOND, now_ms)
        if pair.counts < 1 or pair.size < min(size, WRITE_BYTES_A_SECOND):
            return False
        pair.counts -= 1
        pair.size -= size
        return True

    def may_read(self, shard: Key, now_ms: int) -> bool:
        """Whether the shard may be read once more; counts it when it may."""
        pair = _of(self._reads, shard, READS_A_SECOND, READ_BYTES_A_SECOND, now_ms)
        if pair.counts < 1 or pair.size <= 0:
            return False
        pair.counts -= 1
        return True

    def given(self, shard: Key, size: int, now_ms: int) -> None:
        """Count bytes that were read: more than a second's worth holds up the reads that follow."""
        _of(self._reads, shard, READS_A_SECOND, READ_BYTES_A_SECOND, now_ms).size -= size


def _of(pairs: dict[Key, _Pair], shard: Key, counts: int, size: int, now_ms: int) -> _Pair:
    pair = pairs.get(shard)
    if pair is None:
        if len(pairs) >= MOST_KEPT:
            pairs.clear()
        pair = pairs[shard] = _Pair(counts, size, now_ms)
    pair.fill(counts, size, now_ms)
    return pair

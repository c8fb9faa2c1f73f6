"""Nearest vectors of one index: an exact scan, and beyond a threshold an HNSW graph with an exact scan of its tail.

Slots only grow; removed slots are masked by the caller. The matrix lies in blocks, so that growth copies nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

EXACT_LIMIT = 200_000
BLOCK_ROWS = 16_384
FIRST_BLOCK = 256
GRAPH_STEP = 2_000
CONNECTIVITY = 16
EXPANSION_ADD = 128
EXPANSION_SEARCH = 96


class DenseIndex:
    """`metric` is "cosine" (distance 1 - cos) or "euclidean" (the straight line)."""

    def __init__(self, dimension: int, metric: str, exact_limit: int = EXACT_LIMIT) -> None:
        self.dimension = dimension
        self.metric = metric
        self.exact_limit = exact_limit
        self.size = 0
        self.graph_size = 0
        self._blocks: list[np.ndarray] = []
        self._norms: list[np.ndarray] = []
        self._starts: list[int] = []
        self._capacity = 0
        self._graph = None

    @property
    def bytes(self) -> int:
        """A rough size in memory."""
        return self._capacity * self.dimension * 4 + self.graph_size * (self.dimension * 2 + CONNECTIVITY * 12)

    def add(self, blob: bytes) -> int:
        """Append a vector (little-endian float32); returns its slot."""
        import numpy as np

        if self.size == self._capacity:
            rows = min(BLOCK_ROWS, max(FIRST_BLOCK, self._capacity))
            self._blocks.append(np.empty((rows, self.dimension), dtype=np.float32))
            self._norms.append(np.empty(rows, dtype=np.float64))
            self._starts.append(self._capacity)
            self._capacity += rows
        vector = np.frombuffer(blob, dtype="<f4").astype(np.float64)
        square = float(vector @ vector)
        if self.metric == "cosine":
            vector = unit(vector)
        at = self.size - self._starts[-1]
        self._blocks[-1][at] = vector
        self._norms[-1][at] = square
        self.size += 1
        return self.size - 1

    def pending_graph(self) -> int:
        """How many slots the graph still lacks; 0 while the exact scan is enough."""
        return self.size - self.graph_size if self.size > self.exact_limit else 0

    def extend_graph(self, alive: "np.ndarray", limit: int = GRAPH_STEP) -> None:
        """Add up to `limit` slots to the graph."""
        import numpy as np

        if self._graph is None:
            from usearch.index import Index

            self._graph = Index(
                ndim=self.dimension,
                metric="ip" if self.metric == "cosine" else "l2sq",
                dtype="f16",
                connectivity=CONNECTIVITY,
                expansion_add=EXPANSION_ADD,
                expansion_search=EXPANSION_SEARCH,
            )
        end = min(self.size, self.graph_size + limit)
        slots = np.arange(self.graph_size, end)
        slots = slots[alive[slots]]
        if len(slots):
            self._graph.add(slots.astype(np.uint64), self._rows(slots), threads=1)
        self.graph_size = end

    def search(self, blob: bytes, alive: "np.ndarray", count: int) -> "tuple[np.ndarray, np.ndarray]":
        """The `count` nearest of the slots where `alive` (bool[size]) is set: (slots, distances), nearest first."""
        import numpy as np

        query = np.frombuffer(blob, dtype="<f4").astype(np.float64)
        if self.metric == "cosine":
            query = unit(query)
        single = query.astype(np.float32)
        candidates = np.flatnonzero(alive)
        if len(candidates) * 4 < self.size:
            near = self._scan_some(single, candidates, count)
        else:
            near = np.concatenate(list(self._scan(single, alive, 0, count)) or [candidates[:0]])
        return self._ranked(query, near, count)

    def search_graph(self, blob: bytes, alive: "np.ndarray", count: int) -> "tuple[np.ndarray, np.ndarray]":
        """`search` through the graph, exact for the slots that it does not have yet."""
        import numpy as np

        query = np.frombuffer(blob, dtype="<f4").astype(np.float64)
        if self.metric == "cosine":
            query = unit(query)
        single = query.astype(np.float32)
        dead = self.graph_size - int(np.count_nonzero(alive[: self.graph_size]))
        share = 1 + dead / max(1, self.graph_size - dead)
        found = self._graph.search(single, min(self.graph_size, int(count * share) + 16)).keys.astype(np.int64)
        parts = [found[alive[found]], *self._scan(single, alive, self.graph_size, count)]
        return self._ranked(query, np.concatenate(parts), count)

    def distances(self, blob: bytes, slots: "np.ndarray") -> "np.ndarray":
        """float64 distances of the query to the given slots."""
        import numpy as np

        query = np.frombuffer(blob, dtype="<f4").astype(np.float64)
        return self._exact(unit(query) if self.metric == "cosine" else query, slots)

    def _scan(self, query: "np.ndarray", alive: "np.ndarray", first: int, count: int):
        """The nearest `count` candidate slots of every block from slot `first` on, as arrays of slots."""
        import numpy as np

        for start, block, norms in zip(self._starts, self._blocks, self._norms):
            low, high = max(first, start), min(self.size, start + len(block))
            if low >= high:
                continue
            scores = block[low - start : high - start] @ query
            if self.metric == "euclidean":
                scores = 2 * scores - norms[low - start : high - start]
            mask = alive[low:high]
            if not mask.all():
                scores = np.where(mask, scores, -np.inf)
            near = best(scores, count)
            yield near[np.isfinite(scores[near])] + low

    def _scan_some(self, query: "np.ndarray", slots: "np.ndarray", count: int) -> "np.ndarray":
        import numpy as np

        found = []
        for at in range(0, len(slots), BLOCK_ROWS):
            some = slots[at : at + BLOCK_ROWS]
            scores = self._rows(some) @ query
            if self.metric == "euclidean":
                scores = 2 * scores - self._squares(some)
            found.append(some[best(scores, count)])
        return np.concatenate(found) if found else slots

    def _ranked(self, query: "np.ndarray", slots: "np.ndarray", count: int) -> "tuple[np.ndarray, np.ndarray]":
        import numpy as np

        distances = self._exact(query, slots)
        order = np.lexsort((slots, distances))[:count]
        return slots[order], distances[order]

    def _exact(self, query: "np.ndarray", slots: "np.ndarray") -> "np.ndarray":
        import numpy as np

        rows = self._rows(slots).astype(np.float64)
        if self.metric == "cosine":
            return np.maximum(0.0, 1.0 - rows @ query)
        return np.sqrt(((rows - query) ** 2).sum(axis=1))

    def _rows(self, slots: "np.ndarray") -> "np.ndarray":
        return self._gather(self._blocks, slots, (len(slots), self.dimension), "f4")

    def _squares(self, slots: "np.ndarray") -> "np.ndarray":
        return self._gather(self._norms, slots, (len(slots),), "f8")

    def _gather(self, blocks: list, slots: "np.ndarray", shape: tuple[int, ...], kind: str) -> "np.ndarray":
        import numpy as np

        result = np.empty(shape, dtype=kind)
        which = np.searchsorted(self._starts, slots, side="right") - 1
        for number in np.unique(which):
            mask = which == number
            result[mask] = blocks[number][slots[mask] - self._starts[number]]
        return result


def unit(vector: "np.ndarray") -> "np.ndarray":
    """The vector scaled to length 1; a zero vector stays as it is."""
    import numpy as np

    length = np.linalg.norm(vector)
    return vector / length if length else vector


def best(scores: "np.ndarray", count: int) -> "np.ndarray":
    """Positions of the `count` highest scores, in no order; ties at the edge go to the lower position."""
    import numpy as np

    if count >= len(scores):
        return np.arange(len(scores))
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > edge)
    return np.concatenate((above, np.flatnonzero(scores == edge)[: count - len(above)]))

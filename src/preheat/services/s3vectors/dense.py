"""Nearest vectors of one index: an exact scan, and beyond a threshold an HNSW graph with an exact scan of its tail.

Slots only grow; removed slots are masked by the caller. The matrix lies in blocks, so that growth copies nothing. For
the cosine metric the graph holds eight bits a number; what it finds is always ranked by exact distance.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from preheat.services.s3vectors.saved import Section, Stored

if TYPE_CHECKING:
    import numpy as np

EXACT_LIMIT = 20_000
BLOCK_ROWS = 16_384
FIRST_BLOCK = 256
GRAPH_STEP = 500
CONNECTIVITY = 16
EXPANSION_ADD = 64
GRAPH_NODE_BYTES = 450
"""What a vector takes in the graph besides its numbers: links, and what is allocated ahead."""
LEAST_CANDIDATES, LEAST_PASSING = 256, 96
"""How many the graph is asked for at least, and how many of them a filter is to let through: recall comes of ranking
more than are wanted."""
SCAN_SHARE = 6
"""A candidate of the graph costs as much as this many rows of a scan."""
CLIPPED = 0.0005
"""The share of the largest numbers that eight bits may cut."""


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
        self._scale = 1.0

    @property
    def bytes(self) -> int:
        """A rough size in memory. The graph is not asked for its own, which takes it a millisecond and more."""
        in_graph = self.dimension * (1 if self.metric == "cosine" else 2) + GRAPH_NODE_BYTES
        return self._capacity * self.dimension * 4 + (0 if self._graph is None else self.graph_size * in_graph)

    def add(self, blob: bytes) -> int:
        """Append a vector (little-endian float32); returns its slot."""
        return self.add_many([blob])

    def add_many(self, blobs: "list[bytes]") -> int:
        """Append vectors; returns the first one's slot."""
        import numpy as np

        rows = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), self.dimension).astype(np.float64)
        squares = np.einsum("ij,ij->i", rows, rows)
        if self.metric == "cosine":
            rows /= np.where(squares > 0, np.sqrt(squares), 1.0)[:, None]
        first, done = self.size, 0
        while done < len(blobs):
            if self.size == self._capacity:
                self._grow()
            at = self.size - self._starts[-1]
            some = min(len(blobs) - done, len(self._blocks[-1]) - at)
            self._blocks[-1][at : at + some] = rows[done : done + some]
            self._norms[-1][at : at + some] = squares[done : done + some]
            self.size += some
            done += some
        return first

    def _grow(self) -> None:
        import numpy as np

        rows = min(BLOCK_ROWS, max(FIRST_BLOCK, self._capacity))
        self._blocks.append(np.empty((rows, self.dimension), dtype=np.float32))
        self._norms.append(np.empty(rows, dtype=np.float64))
        self._starts.append(self._capacity)
        self._capacity += rows

    def pending_graph(self) -> int:
        """How many slots the graph still lacks; 0 while the exact scan is enough."""
        return self.size - self.graph_size if self.size > self.exact_limit else 0

    def extend_graph(self, alive: "np.ndarray", limit: int = GRAPH_STEP, threads: int = 1) -> None:
        """Add up to `limit` slots to the graph."""
        import numpy as np

        end = min(self.size, self.graph_size + limit)
        slots = np.arange(self.graph_size, end)
        slots = slots[alive[slots]]
        if len(slots):
            rows = self._rows(slots)
            if self._graph is None:
                if self.metric == "cosine":
                    self._scale = 127.0 / max(float(np.quantile(np.abs(rows), 1.0 - CLIPPED)), 1e-9)
                self._graph = self._new_graph()
            self._graph.add(slots.astype(np.uint64), self._coded(rows), threads=threads)
        self.graph_size = end

    def _new_graph(self):
        """An empty graph. The process ends with a segmentation fault when onnxruntime (the embedder's) is imported
        after usearch (onnxruntime 1.31, usearch 2.26), so it is imported before."""
        with suppress(ImportError):
            import_module("onnxruntime")
        from usearch.index import Index

        cosine = self.metric == "cosine"
        return Index(
            ndim=self.dimension,
            metric="ip" if cosine else "l2sq",
            dtype="i8" if cosine else "f16",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=LEAST_CANDIDATES,
        )

    def _coded(self, rows: "np.ndarray") -> "np.ndarray":
        """Rows as the graph takes them."""
        import numpy as np

        if self.metric != "cosine":
            return rows
        return np.clip(np.rint(rows * self._scale), -127, 127).astype(np.int8)

    def search(self, blob: bytes, alive: "np.ndarray", count: int) -> "tuple[np.ndarray, np.ndarray]":
        """The `count` nearest of the slots where `alive` (bool[size]) is set: (slots, distances), nearest first."""
        import numpy as np

        query = self._query(blob)
        single = query.astype(np.float32)
        if np.count_nonzero(alive) * 4 < self.size:
            near = self._scan_some(single, np.flatnonzero(alive), count)
        else:
            near = np.concatenate(list(self._scan(single, alive, 0, count)) or [np.arange(0)])
        return self._ranked(query, near, count)

    def search_graph(self, blob: bytes, alive: "np.ndarray", count: int) -> "tuple[np.ndarray, np.ndarray]":
        """`search` through the graph, exact for the slots that it does not have yet. The fewer of the graph's slots are
        alive, the more candidates it is asked for; a scan is made where that is less work, and where too few come."""
        import numpy as np

        passing = int(np.count_nonzero(alive[: self.graph_size]))
        wanted = max(LEAST_PASSING, count + count // 4) * self.graph_size // max(1, passing)
        wanted = max(LEAST_CANDIDATES, wanted)
        if self._graph is None or passing <= SCAN_SHARE * wanted:
            return self.search(blob, alive, count)
        query = self._query(blob)
        single = query.astype(np.float32)
        found = self._graph.search(self._coded(single), wanted).keys.astype(np.int64)
        found = found[alive[found]]
        if len(found) < min(count, passing):
            return self.search(blob, alive, count)
        return self._ranked(query, np.concatenate([found, *self._scan(single, alive, self.graph_size, count)]), count)

    # -- in files -------------------------------------------------------------------------------------------------

    def capture(self) -> tuple[dict[str, Any], dict[str, Section]]:
        """What a copy is made of, besides the rows and the graph. What is there does not change later."""
        norms = [norms[: self.size - start] for start, norms in zip(self._starts, self._norms)]
        meta = {"size": self.size, "graph_size": self.graph_size, "scale": self._scale}
        return meta, {"norms": lambda: norms}

    def rows_after(self, first: int) -> "list[np.ndarray]":
        """The vectors from slot `first` on, as they lie in memory."""
        return [
            block[max(0, first - start) : self.size - start]
            for start, block in zip(self._starts, self._blocks)
            if start + len(block) > first and start < self.size
        ]

    def graph_writer(self) -> "Callable[[str], None] | None":
        """Writes the graph to a path; it may not be extended meanwhile. None when there is none."""
        graph = self._graph
        return None if graph is None else lambda path: graph.save(path, progress=_let_others)

    @classmethod
    def restored(
        cls, dimension: int, metric: str, exact_limit: int, meta: dict[str, Any], stored: Stored, prefix: str
    ) -> "DenseIndex":
        """The index of a copy: its rows stay in the file."""
        import numpy as np

        self = cls(dimension, metric, exact_limit)
        rows = np.frombuffer(stored.rows, dtype=np.float32).reshape(meta["size"], dimension)
        norms = stored.numbers(prefix + "norms", "f8")
        self.size = self._capacity = meta["size"]
        self.graph_size, self._scale = meta["graph_size"], meta["scale"]
        self._starts = list(range(0, self.size, BLOCK_ROWS))
        self._blocks = [rows[start : start + BLOCK_ROWS] for start in self._starts]
        self._norms = [norms[start : start + BLOCK_ROWS] for start in self._starts]
        if stored.graph is not None:
            self._graph = self._new_graph()
            self._graph.load(str(stored.graph), progress=_let_others)
        return self

    def _query(self, blob: bytes) -> "np.ndarray":
        import numpy as np

        query = np.frombuffer(blob, dtype="<f4").astype(np.float64)
        return unit(query) if self.metric == "cosine" else query

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
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        edges = np.searchsorted(ordered, [*self._starts, self._capacity])
        for number in np.flatnonzero(np.diff(edges)).tolist():
            first, last = edges[number], edges[number + 1]
            result[order[first:last]] = blocks[number][ordered[first:last] - self._starts[number]]
        return result


def _let_others(done: int, of: int) -> bool:
    """usearch reads and writes its files without a pause; when it asks this, other threads get their turn."""
    return True


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

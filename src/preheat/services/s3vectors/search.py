"""The search structures of one index, and the answer to one query. No database, no clock, one thread at a time.

A vector's slot never changes and is never reused: an upsert takes a new slot and clears the old one. When more than
half of the slots are cleared the owner builds the structures anew.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from preheat.services.s3vectors.analysis import analyzer
from preheat.services.s3vectors.columns import Columns
from preheat.services.s3vectors.dense import DenseIndex, best
from preheat.services.s3vectors.domain import IndexSpec, VectorRow
from preheat.services.s3vectors.filters import Filter
from preheat.services.s3vectors.lexical import TextIndex

if TYPE_CHECKING:
    import numpy as np

RRF_K = 60
FUSION_DEPTH = 200
SMALLEST_REBUILD = 1_000


@dataclass(frozen=True, slots=True)
class Query:
    """`vector` is float32 bytes; `texts` are (metadata key, text) pairs; one of the two may be missing."""

    count: int
    vector: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    filter: Filter | None = None


class Hit(NamedTuple):
    """One result. `bm25` has a (key, score) pair for every searched key that matched."""

    key: str
    distance: float | None = None
    fused: float | None = None
    bm25: tuple[tuple[str, float], ...] = ()


class Change(NamedTuple):
    """One committed write: `row` is None for a removal."""

    key: str
    row: VectorRow | None


class SearchIndex:
    def __init__(self, spec: IndexSpec, exact_limit: int | None = None) -> None:
        self.dense = DenseIndex(spec.dimension, spec.metric, *(() if exact_limit is None else (exact_limit,)))
        self._columns = Columns(spec.non_filterable)
        self._texts = {one.key: TextIndex(analyzer(one.language)) for one in spec.text_fields}
        self._slots: dict[str, int] = {}
        self._keys: list[str] = []
        self._alive = bytearray()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def bytes(self) -> int:
        """A rough size in memory."""
        texts = sum(text.bytes for text in self._texts.values())
        return self.dense.bytes + self._columns.bytes + texts + len(self._keys) * 200

    @property
    def worn(self) -> bool:
        """More cleared slots than live ones: time to build anew."""
        return len(self._keys) > SMALLEST_REBUILD and len(self._keys) > 2 * len(self._slots)

    def apply(self, changes: Iterable[Change]) -> None:
        """Follow committed writes, in their order."""
        changes = list(changes)
        added = [row.data for _, row in changes if row is not None]
        slot = self.dense.add_many(added) if added else 0
        for key, row in changes:
            old = self._slots.pop(key, None)
            if old is not None:
                self._alive[old] = 0
                for text in self._texts.values():
                    text.remove(old)
            if row is not None:
                self._add(slot, row)
                slot += 1

    def _add(self, slot: int, row: VectorRow) -> None:
        self._slots[row.key] = slot
        self._keys.append(row.key)
        self._alive.append(1)
        metadata = json.loads(row.metadata)
        self._columns.add(slot, metadata)
        for key, text in self._texts.items():
            value = metadata.get(key)
            if isinstance(value, list):
                value = "\n".join(member for member in value if isinstance(member, str))
            if isinstance(value, str):
                text.add(slot, value)

    def improve(self) -> bool:
        """Extend the graph by one step; True while there is more to do."""
        import numpy as np

        if self.dense.pending_graph():
            self.dense.extend_graph(np.frombuffer(bytes(self._alive), dtype=bool))
        return self.dense.pending_graph() > 0

    def run(self, query: Query) -> list[Hit]:
        """The best `query.count` vectors: by distance, by BM25, or fused by reciprocal rank (equal ranks: the nearer
        one first). Other ties go to the vector that was written first."""
        import numpy as np

        alive = np.frombuffer(bytes(self._alive), dtype=bool)
        if query.filter is not None and len(alive):
            alive = alive & self._columns.mask(query.filter, len(alive))
        if not len(alive) or not alive.any():
            return []
        if not query.texts:
            slots, distances = self._nearest(query, alive, query.count)
            return [Hit(self._keys[slot], float(distance)) for slot, distance in zip(slots.tolist(), distances)]
        if query.vector is None:
            return self._by_text(query, alive)
        return self._fused(query, alive)

    def _nearest(self, query: Query, alive: "np.ndarray", count: int) -> "tuple[np.ndarray, np.ndarray]":
        dense = self.dense
        search = dense.search_graph if dense.size > dense.exact_limit else dense.search
        return search(query.vector or b"", alive, count)

    def _by_text(self, query: Query, alive: "np.ndarray") -> list[Hit]:
        import numpy as np

        scores = self._text_scores(query, len(alive))
        total = sum((one for _, one in scores), np.zeros(len(alive), dtype=np.float32))
        return [Hit(self._keys[slot], bm25=_matched(scores, slot)) for slot in _ranking(total, alive, query.count)]

    def _fused(self, query: Query, alive: "np.ndarray") -> list[Hit]:
        depth = max(query.count, FUSION_DEPTH)
        scores = self._text_scores(query, len(alive))
        slots, distances = self._nearest(query, alive, depth)
        near = dict(zip(slots.tolist(), distances.tolist()))
        fused: dict[int, float] = {}
        for ranking in (list(near), *(_ranking(one, alive, depth) for _, one in scores)):
            for rank, slot in enumerate(ranking, 1):
                fused[slot] = fused.get(slot, 0.0) + 1.0 / (RRF_K + rank)
        order = sorted(fused, key=lambda slot: (-fused[slot], near.get(slot, math.inf), slot))[: query.count]
        return [Hit(self._keys[slot], near.get(slot), fused[slot], _matched(scores, slot)) for slot in order]

    def _text_scores(self, query: Query, slots: int) -> "list[tuple[str, np.ndarray]]":
        return [(key, self._texts[key].scores(text, slots)) for key, text in query.texts if key in self._texts]


def _ranking(scores: "np.ndarray", alive: "np.ndarray", count: int) -> list[int]:
    """Live slots with a score above 0, highest first."""
    import numpy as np

    slots = np.flatnonzero(scores)
    slots = slots[alive[slots]]
    told = scores[slots]
    top = best(told, count)
    return slots[top][np.lexsort((top, -told[top]))].tolist()


def _matched(scores: "Sequence[tuple[str, np.ndarray]]", slot: int) -> tuple[tuple[str, float], ...]:
    return tuple((key, float(one[slot])) for key, one in scores if one[slot] > 0)

"""The search structures of one index, and the answer to one query. No database, no clock, one thread at a time.

A vector's slot never changes and is never reused: an upsert takes a new slot and clears the old one. When more than
half of the slots are cleared the owner builds the structures anew.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from preheat.services.s3vectors.analysis import analyzer
from preheat.services.s3vectors.columns import Columns
from preheat.services.s3vectors.dense import EXACT_LIMIT, DenseIndex, best
from preheat.services.s3vectors.domain import IndexSpec, VectorRow
from preheat.services.s3vectors.filters import Filter
from preheat.services.s3vectors.lexical import TextIndex
from preheat.services.s3vectors.saved import Section, Snapshot, Stored, listed, unlisted

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
        self.dense = DenseIndex(spec.dimension, spec.metric, EXACT_LIMIT if exact_limit is None else exact_limit)
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

    def capture(self, rows_from: int) -> Snapshot:
        """What a copy is made of; its vectors from slot `rows_from` on. The structures may be used and written to while
        it is written, but the graph not extended."""
        keys, alive = [*self._keys], bytes(self._alive)
        sections: dict[str, Section] = {"keys": lambda: listed(keys), "alive": lambda: (alive,)}
        meta: dict = {"dimension": self.dense.dimension, "texts": {}}
        meta["dense"], parts = self.dense.capture()
        sections |= {f"dense/{name}": make for name, make in parts.items()}
        meta["columns"], parts = self._columns.capture()
        sections |= {f"columns/{name}": make for name, make in parts.items()}
        for at, (key, text) in enumerate(self._texts.items()):
            meta["texts"][key], parts = text.capture()
            sections |= {f"texts/{at}/{name}": make for name, make in parts.items()}
        rows, graph = self.dense.rows_after(rows_from), self.dense.graph_writer()
        return Snapshot(meta, sections, rows, rows_from, graph, self.bytes)

    @classmethod
    def restored(cls, spec: IndexSpec, exact_limit: int | None, stored: Stored) -> "SearchIndex":
        """The structures of a copy."""
        self, meta = cls(spec, exact_limit), stored.meta
        self.dense = DenseIndex.restored(
            spec.dimension, spec.metric, self.dense.exact_limit, meta["dense"], stored, "dense/"
        )
        self._columns = Columns.restored(spec.non_filterable, meta["columns"], stored, "columns/")
        for at, one in enumerate(spec.text_fields):
            made = TextIndex.restored(analyzer(one.language), meta["texts"][one.key], stored, f"texts/{at}/")
            self._texts[one.key] = made
        self._keys = unlisted(stored.section("keys"))
        self._alive = bytearray(stored.section("alive"))
        self._slots = {key: slot for slot, key in enumerate(self._keys) if self._alive[slot]}
        return self

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
            return [Hit(self._keys[slot], distance) for slot, distance in zip(slots.tolist(), distances.tolist())]
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
        if len(scores) == 1:
            total = scores[0][1]
        else:
            total = sum((one for _, one in scores), np.zeros(len(alive), dtype=np.float32))
        slots = _ranking(total, alive, query.count)
        return [Hit(self._keys[slot], bm25=matched) for slot, matched in zip(slots, _matched(scores, slots))]

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
        return [
            Hit(self._keys[slot], near.get(slot), fused[slot], matched)
            for slot, matched in zip(order, _matched(scores, order))
        ]

    def _text_scores(self, query: Query, slots: int) -> "list[tuple[str, np.ndarray]]":
        return [(key, self._texts[key].scores(text, slots)) for key, text in query.texts if key in self._texts]


def code_digest() -> str:
    """Of the code that makes search structures; taken at the start, for an upgrade replaces the files."""
    digest, here = hashlib.sha256(), Path(__file__).parent
    for name in ("analysis.py", "stop_words.json", "columns.py", "dense.py", "lexical.py", "search.py"):
        digest.update((here / name).read_bytes())
    return digest.hexdigest()


def fingerprint(spec: IndexSpec, code: str) -> str:
    """What a copy depends on besides the rows: the index's settings and what turns rows into structures."""
    from importlib.metadata import version

    told = [
        code, spec.id, spec.arn, spec.created_at, spec.dimension, spec.metric, spec.non_filterable,
        [[one.key, one.language] for one in spec.text_fields], unicodedata.unidata_version,
        [version(name) for name in ("usearch", "snowballstemmer", "numpy")],
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _ranking(scores: "np.ndarray", alive: "np.ndarray", count: int) -> list[int]:
    """Live slots with a score above 0, highest first."""
    import numpy as np

    slots = np.flatnonzero((scores > 0) & alive)
    told = scores[slots]
    top = best(told, count)
    return slots[top][np.lexsort((top, -told[top]))].tolist()


def _matched(
    scores: "Sequence[tuple[str, np.ndarray]]", slots: list[int]
) -> list[tuple[tuple[str, float], ...]]:
    """For each slot a (key, score) pair for every key that matched."""
    columns = [[(key, score) if score > 0 else None for score in one[slots].tolist()] for key, one in scores]
    return [tuple(column[at] for column in columns if column[at] is not None) for at in range(len(slots))]

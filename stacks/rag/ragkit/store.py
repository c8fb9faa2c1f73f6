"""Where chunks are kept: an interface, and S3 Vectors behind it.

The index needs the metadata keys `text` and `context` searchable and not filterable; `index_configuration()` has them.
Every vector carries the model that made it, and dense search asks for that model's vectors only, so two models never
mix. Without a model a fixed placeholder stands in for the vector, and only lexical search finds the chunk.
"""

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol

from ragkit.chunking import Chunk, chunk_id
from ragkit.embed import COHERE_BATCH, NO_MODEL

PUT_BATCH = 200
EMBED_BATCH = COHERE_BATCH
GET_BATCH = 100
DELETE_BATCH = 500
LONGEST_QUERY_TEXT = 1_024
FILTERABLE_TEXT = 300
FILTERABLE_BYTES = 2_000
"""S3 Vectors takes 2,048 a vector, what `content` has of them included."""
FIELDS = ("text", "context")
_SCORE = itemgetter("score")

Filter = dict[str, Any]
Embed = Callable[[list[str]], list[list[float]]]


@dataclass(frozen=True)
class Passage:
    """A stored chunk as retrieval hands it out; `score` is 0 to 1 after fusion."""

    id: str
    document: str
    number: int
    title: str
    context: str
    text: str
    page: int = 0
    score: float = 0.0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """What `replace` did, in chunks."""

    written: int
    unchanged: int
    deleted: int


class VectorStore(Protocol):
    def prepare(self) -> None:
        """Make the index where there is none."""

    def drop(self) -> None:
        """Remove the index with all that is in it; nothing happens where there is none."""

    def replace(self, document: str, chunks: Sequence[Chunk], embed: Embed | None, model: str) -> Stored:
        """Make `chunks` the document's only ones. What did not change is neither embedded nor written again."""

    def delete(self, document: str) -> int:
        """Remove the document; returns how many chunks it had."""

    def dense(self, vector: Sequence[float], count: int, model: str, where: Filter | None) -> list[tuple[str, float]]:
        """(chunk id, distance), nearest first."""

    def lexical(self, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        """(chunk id, BM25 score), best first."""

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """The chunks with these ids, in this order; those that are gone are left out."""


def index_configuration(language: str | None = "en") -> dict[str, Any]:
    """`metadataConfiguration` for CreateIndex."""
    extra = {"language": language} if language else {}
    return {
        "nonFilterableMetadataKeys": list(FIELDS),
        "textSearchConfigurations": [{"metadataKey": field, **extra} for field in FIELDS],
    }


class S3VectorStore:
    """`client` is boto3's s3vectors. `dimension` is the index's."""

    def __init__(self, client: Any, bucket: str, index: str, dimension: int) -> None:
        self._client = client
        self._names = {"vectorBucketName": bucket, "indexName": index}
        self._dimension = dimension

    def prepare(self) -> None:
        with suppress(self._client.exceptions.ConflictException):
            self._client.create_index(
                **self._names, dataType="float32", dimension=self._dimension, distanceMetric="cosine",
                metadataConfiguration=index_configuration(),
            )  # fmt: skip

    def drop(self) -> None:
        with suppress(self._client.exceptions.NotFoundException):
            self._client.delete_index(**self._names)

    def replace(self, document: str, chunks: Sequence[Chunk], embed: Embed | None, model: str) -> Stored:
        return self.replace_all({document: chunks}, embed, model)[document]

    def replace_all(
        self, wanted: Mapping[str, Sequence[Chunk]], embed: Embed | None, model: str
    ) -> dict[str, Stored]:
        """`replace` for several documents in few calls. A chunk whose text is as before keeps its vector, whatever else
        of it changed; without a model, so does one that has a vector already."""
        known = self._known(wanted)
        fresh = {
            document: [one for one in chunks if not _as_before(known[document].get(one.id), one, model, embed)]
            for document, chunks in wanted.items()
        }
        kept = self._kept(known, fresh, model)
        for some in _batches([one for group in fresh.values() for one in group], kept):
            new = [one for one in some if one.id not in kept]
            vectors = embed([one.embedded for one in new]) if embed is not None and new else []
            made = {one.id: (self._checked(vector), model) for one, vector in zip(new, vectors)}
            rows = []
            for one in some:
                vector, by = made.get(one.id) or kept.get(one.id) or (self._placeholder(), NO_MODEL)
                rows.append({"key": one.id, "data": {"float32": list(vector)}, "metadata": _metadata(one, by)})
            self._client.put_vectors(**self._names, vectors=rows)
        stored = {}
        for document, chunks in wanted.items():
            beyond = sorted(set(known[document]) - {one.id for one in chunks}, key=lambda key: -_number(key))
            self._delete(beyond)
            stored[document] = Stored(len(fresh[document]), len(chunks) - len(fresh[document]), len(beyond))
        return stored

    def _known(self, wanted: Mapping[str, Sequence[Chunk]]) -> dict[str, dict[str, dict[str, Any]]]:
        """The metadata of all the chunks that each of the documents has, by key."""
        asked = {chunk_id(document, at): document for document, some in wanted.items() for at in range(len(some) + 1)}
        known: dict[str, dict[str, dict[str, Any]]] = {document: {} for document in wanted}
        for key, metadata in self._metadata(list(asked)):
            known[asked[key]][key] = metadata
        for document, some in wanted.items():
            number = len(some)
            while chunk_id(document, number) in known[document]:
                more = [chunk_id(document, number + 1 + at) for at in range(GET_BATCH)]
                known[document] |= dict(self._metadata(more))
                number += GET_BATCH
        return known

    def _kept(
        self, known: dict[str, dict[str, dict[str, Any]]], fresh: dict[str, list[Chunk]], model: str
    ) -> "dict[str, tuple[array[float], str]]":
        """For the chunks whose text the index has already, under whatever number: the vector and its model."""
        sources: dict[str, str] = {}
        for document, some in fresh.items():
            having = {meta.get("content"): key for key, meta in known[document].items() if meta.get("model") == model}
            sources |= {one.id: having[one.content] for one in some if one.content in having}
        vectors: dict[str, array[float]] = {}
        keys = list(dict.fromkeys(sources.values()))
        for at in range(0, len(keys), GET_BATCH):
            reply = self._client.get_vectors(**self._names, keys=keys[at : at + GET_BATCH], returnData=True)
            vectors |= {one["key"]: array("f", one["data"]["float32"]) for one in reply["vectors"]}
        return {id: (vectors[key], model) for id, key in sources.items() if key in vectors}

    def delete(self, document: str) -> int:
        return self._delete_from(document, 0)

    def dense(self, vector: Sequence[float], count: int, model: str, where: Filter | None) -> list[tuple[str, float]]:
        made = {"model": model}
        query = {"queryVector": {"float32": list(vector)}, "returnDistance": True}
        hits = self._query(count, {**query, "filter": {"$and": [made, where]} if where else made})
        return [(hit["key"], hit["distance"]) for hit in hits]

    def lexical(self, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        text = text.strip()[:LONGEST_QUERY_TEXT]
        if not text:
            return []
        query: dict[str, Any] = {"queryTexts": [{"text": text, "metadataKey": field} for field in FIELDS]}
        hits = self._query(count, {**query, "returnScores": True, **({"filter": where} if where else {})})
        return [(hit["key"], sum(map(_SCORE, hit["scores"]["bm25Scores"]))) for hit in hits]

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        found = dict(self._metadata(list(ids)))
        return [_passage(key, found[key]) for key in ids if key in found]

    def _query(self, count: int, query: dict[str, Any]) -> list[dict[str, Any]]:
        hits: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while len(hits) < count:
            page = self._client.query_vectors(**self._names, topK=count, **query, **token)
            hits += page["vectors"]
            if not page.get("nextToken"):
                break
            token = {"nextToken": page["nextToken"]}
        return hits[:count]

    def _metadata(self, keys: list[str]) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for at in range(0, len(keys), GET_BATCH):
            reply = self._client.get_vectors(**self._names, keys=keys[at : at + GET_BATCH], returnMetadata=True)
            found += [(one["key"], one.get("metadata") or {}) for one in reply["vectors"]]
        return found

    def _delete_from(self, document: str, number: int) -> int:
        """Delete the document's chunks from `number` on; their numbers have no gap. The last go first, so that none is
        left behind a gap when this breaks off."""
        keys: list[str] = []
        while True:
            asked = [chunk_id(document, number + len(keys) + at) for at in range(GET_BATCH)]
            found = {one["key"] for one in self._client.get_vectors(**self._names, keys=asked)["vectors"]}
            keys += [key for key in asked if key in found]
            if len(found) < GET_BATCH:
                break
        self._delete(keys[::-1])
        return len(keys)

    def _delete(self, keys: list[str]) -> None:
        for at in range(0, len(keys), DELETE_BATCH):
            self._client.delete_vectors(**self._names, keys=keys[at : at + DELETE_BATCH])

    def _checked(self, vector: Sequence[float]) -> list[float]:
        if len(vector) != self._dimension:
            raise ValueError(f"the model makes vectors of {len(vector)} numbers, the index holds {self._dimension}")
        return list(vector) if any(vector) else self._placeholder()

    def _placeholder(self) -> list[float]:
        return [1.0] + [0.0] * (self._dimension - 1)


def replace_all(
    store: VectorStore, wanted: Mapping[str, Sequence[Chunk]], embed: Embed | None, model: str
) -> dict[str, Stored]:
    """`replace` for several documents: together where the store can, else one after the other."""
    together = getattr(store, "replace_all", None)
    if together is not None:
        return together(wanted, embed, model)
    return {document: store.replace(document, chunks, embed, model) for document, chunks in wanted.items()}


def _as_before(known: dict[str, Any] | None, chunk: Chunk, model: str, embed: Embed | None) -> bool:
    if known is None or known.get("digest") != chunk.digest:
        return False
    return known.get("model") in (model, NO_MODEL) if embed is None else known.get("model") == model


def _batches(chunks: Sequence[Chunk], kept: Mapping[str, Any]) -> Iterator[list[Chunk]]:
    """Runs in order, of up to EMBED_BATCH chunks that must be embedded and PUT_BATCH in all."""
    some: list[Chunk] = []
    new = 0
    for one in chunks:
        if new == EMBED_BATCH or len(some) == PUT_BATCH:
            yield some
            some, new = [], 0
        some.append(one)
        new += one.id not in kept
    if some:
        yield some


def _number(key: str) -> int:
    return int(key.rpartition("#")[2])


def filterable(chunk: Chunk, model: str) -> dict[str, Any]:
    """What every store keeps beside a vector to filter by, FILTERABLE_BYTES at most where the labels leave room: of the
    title as much as there is room for, then the attributes that fit."""
    kept: dict[str, Any] = {
        "document": chunk.document, "number": chunk.number, "page": chunk.page, "digest": chunk.digest, "model": model,
        "labels": list(chunk.labels),
    }  # fmt: skip
    room = FILTERABLE_BYTES - _bytes(kept)
    title = chunk.title[:FILTERABLE_TEXT]
    while title and _bytes({"title": title}) > room:
        title = title[: len(title) * 3 // 4]
    kept["title"] = title
    room -= _bytes({"title": title})
    for name, value in chunk.attributes:
        size = _bytes({name: value})
        if size <= room:
            kept[name] = value
            room -= size
    return kept


def _bytes(metadata: dict[str, Any]) -> int:
    return len(json.dumps(metadata, ensure_ascii=False).encode("utf-8", "replace"))


def _metadata(chunk: Chunk, model: str) -> dict[str, Any]:
    return {"content": chunk.content, **filterable(chunk, model), "context": chunk.context, "text": chunk.text}


def _passage(key: str, metadata: dict[str, Any]) -> Passage:
    return Passage(
        key,
        str(metadata.get("document", "")),
        int(metadata.get("number", 0)),
        str(metadata.get("title", "")),
        str(metadata.get("context", "")),
        str(metadata.get("text", "")),
        int(metadata.get("page", 0)),
        labels=tuple(metadata.get("labels", ())),
    )

"""Retrieval quality through the product: documents go into S3 Vectors by ragkit's store, questions are answered by
ragkit's retriever; printed beside the reference figures of the collections' README. One setting for all collections.

    .venv/bin/python bench/retrieval.py --data DIR [--collection NAME ...] [--json FILE]

nDCG@10, binary relevance, as pytrec_eval's ndcg_cut_10. Embeddings are kept in the system's temporary directory.
"""

import argparse
import hashlib
import json
import math
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from inprocess_client import S3Vectors
from ragkit.chunking import Chunk, chunk
from ragkit.extract import plain
from ragkit.retrieve import Retriever, Settings, contextual_query
from ragkit.store import S3VectorStore, index_configuration

MODEL = "preheat.minilm-l6-v2"
DIMENSION = 384
COLUMNS = ("BM25", "dense", "RRF", "convex")
REFERENCE = {
    "cranfield": (0.375, 0.395, 0.425, 0.429),
    "xquad-en": (0.965, 0.943, 0.970, 0.977),
    "clapnq-dev": (0.946, 0.985, 0.980, 0.988),
    "mtrag-un": (0.759, 0.775, 0.812, 0.845),
    "mtrag-un, last two turns": (None, None, None, 0.869),
}

Run = dict[str, float]


@dataclass(frozen=True)
class Collection:
    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, set[str]]


def load(folder: Path, turns: int = 1) -> Collection:
    """Queries without a relevant document are left out; of a conversation the user's last `turns` turns are asked."""
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(document)
    documents = {one["id"]: one["text"] for one in _lines(folder / "docs.jsonl")}
    queries = {one["id"]: _question(one, turns) for one in _lines(folder / "queries.jsonl") if one["id"] in relevant}
    name = folder.name if turns == 1 else f"{folder.name}, last two turns"
    return Collection(name, documents, queries, relevant)


def _question(query: dict, turns: int) -> str:
    said = [turn["text"] for turn in query.get("turns", ()) if turn["speaker"] == "user"]
    return contextual_query(said[-1], said[:-1], turns) if said else query["text"]


def ndcg(run: Run, relevant: set[str], depth: int = 10) -> float:
    """Equal scores go by id, descending, as trec_eval orders them."""
    ranked = sorted(run, key=lambda document: (np.float32(run[document]), document), reverse=True)[:depth]
    gain = sum(1 / math.log2(rank + 1) for rank, document in enumerate(ranked, 1) if document in relevant)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(depth, len(relevant)) + 1))
    return gain / ideal if ideal else 0.0


def p_value(one: Sequence[float], other: Sequence[float], rounds: int = 10_000, seed: int = 1) -> float:
    """Paired randomisation test on the difference of means, two-sided."""
    differences = np.asarray(one) - np.asarray(other)
    observed = abs(differences.mean())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(rounds, len(differences)))
    return float((np.abs((signs * differences).mean(axis=1)) >= observed - 1e-12).mean())


class Cached:
    """MiniLM with its vectors kept by the sha256 of the text."""

    model = MODEL

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir()) / "preheat-bench"
        folder.mkdir(parents=True, exist_ok=True)
        self._kept = sqlite3.connect(folder / "minilm.db", isolation_level=None)
        self._kept.execute("CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL)")
        self._known: dict[str, list[float]] = {}
        self._model = None

    def prepare(self, texts: Iterable[str]) -> None:
        """Have the vectors of `texts` at hand."""
        missing = []
        for text in dict.fromkeys(texts):
            row = self._kept.execute("SELECT vector FROM vectors WHERE key = ?", (_sha(text),)).fetchone()
            if row is None:
                missing.append(text)
            else:
                self._known[text] = np.frombuffer(row[0], dtype="<f4").tolist()
        for at in range(0, len(missing), 64):
            some = missing[at : at + 64]
            vectors = self._embed(some)
            rows = [(_sha(text), vector.astype("<f4").tobytes()) for text, vector in zip(some, vectors)]
            self._kept.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            self._known.update(zip(some, vectors.tolist()))

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._known[text] for text in texts]

    def query(self, text: str) -> list[float]:
        return self._known[text]

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        if self._model is None:
            from preheat.models.minilm import MiniLM

            self._model = MiniLM()
        return self._model.embed(list(texts))


def _sha(text: str) -> str:
    """White space does not count: the model's tokenizer does not see it."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def chunks_of(collection: Collection) -> dict[str, list[Chunk]]:
    """Each document as ragkit cuts it."""
    return {key: chunk(replace(plain(key, text), title="")) for key, text in collection.documents.items()}


def store_for(
    chunks: dict[str, list[Chunk]], embedder: Cached
) -> tuple[S3Vectors, S3VectorStore, dict[str, str]]:
    """The collection in an index of its own; the last is chunk id -> document."""
    client = S3Vectors()
    names = {"vectorBucketName": "bench", "indexName": "passages"}
    client.create_vector_bucket(vectorBucketName="bench")
    client.create_index(
        **names, dataType="float32", dimension=DIMENSION, distanceMetric="cosine",
        metadataConfiguration=index_configuration(),
    )  # fmt: skip
    store = S3VectorStore(client, "bench", "passages", DIMENSION)
    for document, parts in chunks.items():
        store.replace(document, parts, embedder.documents, embedder.model)
    return client, store, {one.id: document for document, parts in chunks.items() for one in parts}


def by_document(ranking: Sequence[tuple[str, float]], owners: dict[str, str]) -> Run:
    """A document stands where its best chunk stands; the run's scores are ranks, so the product's order is kept."""
    documents = dict.fromkeys(owners[key] for key, _ in ranking)
    return {document: -float(rank) for rank, document in enumerate(documents)}


def measure(collection: Collection, embedder: Cached, settings: Settings) -> dict[str, list[float]]:
    """nDCG@10 of every query by column, in the order in which the product ranks."""
    chunks = chunks_of(collection)
    embedder.prepare(one.embedded for parts in chunks.values() for one in parts)
    embedder.prepare(collection.queries.values())
    client, store, owners = store_for(chunks, embedder)
    retriever = Retriever(store, embedder, settings)

    def service_hybrid(text: str) -> list[tuple[str, float]]:
        answer = client.query_vectors(
            vectorBucketName="bench", indexName="passages", topK=100, returnScores=True,
            queryVector={"float32": embedder.query(text)}, queryTexts=[{"text": text, "metadataKey": "text"}],
        )  # fmt: skip
        return [(hit["key"], hit["scores"]["fused"]) for hit in answer["vectors"]]

    ways: dict[str, Callable[[str], list[tuple[str, float]]]] = {
        "BM25": lambda text: store.lexical(text, settings.candidates, None),
        "dense": lambda text: [
            (key, -distance) for key, distance in store.dense(embedder.query(text), settings.candidates, MODEL, None)
        ],
        "RRF": service_hybrid,
        "convex": lambda text: retriever.ranking(text)[0],
    }
    results: dict[str, list[float]] = {}
    for column, way in ways.items():
        results[column] = [
            ndcg(by_document(way(text), owners), collection.relevant[query])
            for query, text in collection.queries.items()
        ]
    return results


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder a collection")
    parser.add_argument("--collection", action="append", help="only these")
    parser.add_argument("--candidates", type=int, default=Settings().candidates)
    parser.add_argument("--weight", type=float, default=Settings().dense_weight)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    settings = Settings(arguments.candidates, arguments.weight)
    embedder = Cached()
    folders = [one for one in sorted(arguments.data.iterdir()) if (one / "qrels.tsv").exists()]
    if arguments.collection:
        folders = [one for one in folders if one.name in arguments.collection]
    figures: dict[str, dict] = {}
    below = 0
    print(f"{'nDCG@10 (reference)':28}" + "".join(f"{column:>15}" for column in COLUMNS) + "   p(convex, RRF)   s")
    collections = [load(folder) for folder in folders]
    collections += [load(folder, turns=2) for folder in folders if f"{folder.name}, last two turns" in REFERENCE]
    for collection in collections:
        began = time.perf_counter()
        results = measure(collection, embedder, settings)
        means = [sum(results[column]) / len(results[column]) for column in COLUMNS]
        references = REFERENCE.get(collection.name, (None,) * len(COLUMNS))
        cells = [f"{mean:.4f}" + (f" ({told:.3f})" if told else " " * 8) for mean, told in zip(means, references)]
        p = p_value(results["convex"], results["RRF"])
        seconds = time.perf_counter() - began
        print(f"{collection.name:28}" + "".join(f"{cell:>15}" for cell in cells) + f"   {p:14.4f}   {seconds:.1f}")
        reached = references[3] is None or round(means[3], 3) >= references[3]
        below += not reached
        figures[collection.name] = {
            "queries": len(collection.queries), **dict(zip(COLUMNS, means)), "p_convex_rrf": p, "reached": reached
        }  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if below:
        print(f"{below} below the reference hybrid", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Retrieval quality through the product: documents go into S3 Vectors by ragkit's store, questions are answered by
ragkit's retriever; printed beside the reference figures of the collections' README. One setting for all collections.

    .venv/bin/python bench/retrieval.py --data DIR [--collection NAME ...] [--json FILE]

nDCG@10, binary relevance, as pytrec_eval's ndcg_cut_10. Embeddings are kept in the system's temporary directory.
BM25, dense, RRF and convex are asked the last user turn, or the last two, as the row says. "shipped" is the whole of
`Retriever.search` with the settings that ragkit has by default and the reranker `preheat.late-interaction-v1`; it is
given the conversation. The settings' numbers are those that did best on one half of the queries (even sha256 of the
id; column "chosen"), the other half checks them; which steps there are was decided with both halves in sight.
CPU is of this process, per query: cold is a collection's first pass (passages' token vectors are made), warm a second
pass over some queries, whose embedding is computed; the S3 Vectors service runs in process in both.
"""

import argparse
import hashlib
import json
import math
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from inprocess_client import S3Vectors
from ragkit.asked import Turn
from ragkit.chunking import Chunk, chunk
from ragkit.extract import plain
from ragkit.rerank import RerankUnavailable
from ragkit.retrieve import Retriever, Settings, contextual_query
from ragkit.rewrite import formulations
from ragkit.store import S3VectorStore, index_configuration

from preheat.models.contract import ModelError
from preheat.models.registry import Registry

MODEL = "preheat.minilm-l6-v2"
DIMENSION = 384
DEPTH = 50
"""Passages that are asked of the pipeline."""
COLUMNS = ("BM25", "dense", "RRF", "convex")
REFERENCE = {
    "cranfield": (0.375, 0.395, 0.425, 0.429),
    "xquad-en": (0.965, 0.943, 0.970, 0.977),
    "clapnq-dev": (0.946, 0.985, 0.980, 0.988),
    "mtrag-un": (0.759, 0.775, 0.812, 0.845),
    "mtrag-un, last two turns": (None, None, None, 0.869),
}
GOAL = {
    "cranfield": 0.460, "xquad-en": 0.985, "clapnq-dev": 0.992, "mtrag-un": 0.900, "mtrag-un, last two turns": 0.900
}  # fmt: skip
RERANKER = "preheat.late-interaction-v1"
TOKENS_KEPT_MB = 512
"""Room for all passages of a collection, so that the warm pass is warm."""
WARM_QUERIES = 60

Run = dict[str, float]


@dataclass(frozen=True)
class Collection:
    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    conversations: dict[str, tuple[str, tuple[Turn, ...]]]
    relevant: dict[str, set[str]]


def load(folder: Path, turns: int = 1) -> Collection:
    """Queries without a relevant document are left out; of a conversation the user's last `turns` turns are asked."""
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(document)
    documents = {one["id"]: one["text"] for one in lines(folder / "docs.jsonl")}
    asked = {one["id"]: one for one in lines(folder / "queries.jsonl") if one["id"] in relevant}
    queries = {key: _question(one, turns) for key, one in asked.items()}
    conversations = {key: conversation(one) for key, one in asked.items()}
    name = folder.name if turns == 1 else f"{folder.name}, last two turns"
    return Collection(name, documents, queries, conversations, relevant)


def _question(query: dict, turns: int) -> str:
    said = [turn["text"] for turn in query.get("turns", ()) if turn["speaker"] == "user"]
    return contextual_query(said[-1], said[:-1], turns) if said else query["text"]


def conversation(query: dict) -> tuple[str, tuple[Turn, ...]]:
    """The question, and the turns before it."""
    turns: list[Turn] = []
    for one in query.get("turns", ()):
        if one["speaker"] == "user":
            turns.append(Turn(one["text"]))
        elif turns:
            turns[-1] = replace(turns[-1], answer=one["text"])
    return (turns[-1].question, tuple(turns[:-1])) if turns else (query["text"], ())


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

    def computed(self, text: str) -> list[float]:
        """The vector, computed anew."""
        return self._embed([text])[0].tolist()

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        if self._model is None:
            from preheat.models.minilm import MiniLM

            self._model = MiniLM()
        return self._model.embed(list(texts))


class Fresh:
    """An embedder that computes every query's vector."""

    model = MODEL

    def __init__(self, embedder: Cached) -> None:
        self.documents = embedder.documents
        self.query = embedder.computed


class LocalReranker:
    """The platform's reranker, called in this process."""

    model = RERANKER

    def __init__(self) -> None:
        registry = Registry({RERANKER: {"options": {"cache_mb": TOKENS_KEPT_MB}}})
        self._model = registry.find(RERANKER).reranker

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        try:
            return self._model.score(query, passages)
        except ModelError as error:
            raise RerankUnavailable(str(error)) from error


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


@dataclass(frozen=True)
class Figures:
    """nDCG@10 of every query by column; CPU in ms a query."""

    scores: dict[str, list[float]]
    cold_ms: float
    warm_ms: float


def measure(collection: Collection, embedder: Cached, settings: Settings) -> Figures:
    """Every column in the order in which the product ranks."""
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
    embedder.prepare(
        one.text for question, earlier in collection.conversations.values() for one in formulations(question, earlier)
    )
    reranker = LocalReranker()
    cold = cpu_ms()
    shipped = run_shipped(Retriever(store, embedder, settings, reranker), collection, owners)
    cold = cpu_ms() - cold
    results["shipped"] = [ndcg(run, collection.relevant[query]) for query, run in shipped.items()]
    some = dict(list(collection.conversations.items())[:WARM_QUERIES])
    warm = cpu_ms()
    run_shipped(Retriever(store, Fresh(embedder), settings, reranker), replace(collection, conversations=some), owners)
    return Figures(results, cold / len(shipped), (cpu_ms() - warm) / len(some))


def run_shipped(retriever: Retriever, collection: Collection, owners: dict[str, str]) -> dict[str, Run]:
    """The whole pipeline; enough passages that ten documents are among them."""
    runs = {}
    for query, (question, earlier) in collection.conversations.items():
        found = retriever.search(question, DEPTH, earlier=earlier)
        if found.mode != "hybrid" or found.note:
            raise RuntimeError(f"{collection.name}: {found.mode}, {found.note}")
        runs[query] = by_document([(one.id, one.score) for one in found.passages], owners)
    return runs


def cpu_ms() -> float:
    spent = os.times()
    return (spent.user + spent.system) * 1_000


def halves(queries: Iterable[str], scores: Sequence[float]) -> tuple[float, float]:
    """Means of the half that settings were chosen on, and of the half that checks them."""
    parts: tuple[list[float], list[float]] = ([], [])
    for query, score in zip(queries, scores):
        parts[int(hashlib.sha256(query.encode()).hexdigest(), 16) % 2].append(score)
    return tuple(sum(part) / len(part) if part else 0.0 for part in parts)


def lines(path: Path) -> list[dict]:
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
    collections = [load(folder) for folder in folders]
    collections += [load(folder, turns=2) for folder in folders if f"{folder.name}, last two turns" in REFERENCE]
    print(HEAD)
    figures = {one.name: report(one, measure(one, embedder, settings)) for one in collections}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    below = [name for name, one in figures.items() if not one["reached"]]
    if below:
        print(f"below the reference hybrid or the goal: {', '.join(below)}", file=sys.stderr)
    return 1 if below else 0


HEAD = (
    f"{'nDCG@10 (reference)':26}" + "".join(f"{column:>15}" for column in COLUMNS)
    + f"{'shipped (goal)':>18}{'chosen':>8}{'checked':>8}{'p(shipped, convex)':>20}{'CPU cold':>10}{'warm':>7}"
)  # fmt: skip


def report(collection: Collection, measured: Figures) -> dict:
    """Print a line; the figures are its values."""
    results = measured.scores
    means = {column: sum(scores) / len(scores) for column, scores in results.items()}
    references = REFERENCE.get(collection.name, (None,) * len(COLUMNS))
    cells = [
        f"{means[column]:.4f}" + (f" ({told:.3f})" if told else " " * 8) for column, told in zip(COLUMNS, references)
    ]
    goal = GOAL.get(collection.name)
    p = p_value(results["shipped"], results["convex"])
    chosen, checked = halves(collection.queries, results["shipped"])
    shipped = f"{means['shipped']:.4f}" + (f" ({goal:.3f})" if goal else "")
    print(
        f"{collection.name:26}" + "".join(f"{cell:>15}" for cell in cells)
        + f"{shipped:>18}{chosen:>8.4f}{checked:>8.4f}{p:>20.4f}{measured.cold_ms:>7.0f} ms{measured.warm_ms:>4.0f} ms",
        flush=True,
    )  # fmt: skip
    reached = round(means["convex"], 3) >= (references[3] or 0) and round(means["shipped"], 3) >= (goal or 0)
    return {
        "queries": len(collection.queries), **means, "chosen": chosen, "checked": checked, "p_shipped_convex": p,
        "cpu_cold_ms": measured.cold_ms, "cpu_warm_ms": measured.warm_ms, "reached": reached,
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())

"""Quality, speed and memory of the MiniLM embedder.

    python bench/embedding.py DATA [--collections xquad-en cranfield] [--engine onnxruntime] [--threads 1]

DATA holds one folder a collection: docs.jsonl and queries.jsonl ({id, text}), qrels.tsv (query, document, grade).
Prints nDCG@10 of exact search, texts a second for passages of 200 tokens, milliseconds for a query of 20 tokens, and
resident memory.
"""

import argparse
import json
import resource
import time
from collections import defaultdict
from pathlib import Path

import numpy

from preheat.models.minilm import MiniLM

DEPTH = 10
PASSAGES, REPEATS = 32, 30


def read(path: Path) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    texts = [row["text"] if "text" in row else row["turns"][-1]["text"] for row in rows]
    return [row["id"] for row in rows], texts


def judgements(path: Path) -> dict[str, set[str]]:
    relevant: dict[str, set[str]] = defaultdict(set)
    for line in path.open(encoding="utf-8"):
        query, document, grade = line.rstrip("\n").split("\t")
        if grade.lstrip("-").isdigit() and int(grade) > 0:
            relevant[query].add(document)
    return relevant


def ndcg(ranked: list[str], relevant: set[str]) -> float:
    """Binary gains, the first ten."""
    gain = sum(1 / numpy.log2(rank + 2) for rank, document in enumerate(ranked[:DEPTH]) if document in relevant)
    best = sum(1 / numpy.log2(rank + 2) for rank in range(min(DEPTH, len(relevant))))
    return float(gain / best)


def quality(model: MiniLM, folder: Path) -> float:
    """Mean nDCG@10 over the queries that have a relevant document."""
    ids, texts = read(folder / "docs.jsonl")
    query_ids, queries = read(folder / "queries.jsonl")
    relevant = judgements(folder / "qrels.tsv")
    scores = model.embed(queries, "query") @ model.embed(texts).T
    order = numpy.argsort(-scores, axis=1)[:, :DEPTH]
    values = [
        ndcg([ids[column] for column in row], relevant[query])
        for query, row in zip(query_ids, order)
        if relevant.get(query)
    ]
    return sum(values) / len(values)


def speed(model: MiniLM) -> tuple[float, float]:
    """(best texts a second for passages of 200 tokens, median milliseconds for a query of 20)."""
    passages = ["word " * 198] * PASSAGES
    query = "word " * 18
    model.embed([query])
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        model.embed(passages)
        rates.append(PASSAGES / (time.perf_counter() - started))
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        model.embed([query])
        times.append(time.perf_counter() - started)
    return max(rates), 1_000 * sorted(times)[REPEATS // 2]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--collections", nargs="*", default=["xquad-en", "cranfield"])
    parser.add_argument("--engine", choices=["auto", "onnxruntime", "numpy"], default="auto")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    model = MiniLM(engine=arguments.engine, threads=arguments.threads)
    started = time.perf_counter()
    model.embed(["first"])
    print(f"{model.engine}: first vector after {time.perf_counter() - started:.2f} s, {resident_mb():.0f} MB resident")
    rate, query_ms = speed(model)
    print(f"{model.engine}: {rate:.1f} passages of 200 tokens/s, {query_ms:.1f} ms a query, {resident_mb():.0f} MB")
    for name in arguments.collections:
        print(f"{name}: nDCG@10 {quality(model, arguments.data / name):.4f}")


if __name__ == "__main__":
    main()

"""Speed and recall of S3 Vectors' search structures on clustered data (2,000 clusters in a subspace of 64 dimensions),
and the cost of the service's own path in process.

    .venv/bin/python bench/vectors.py [--vectors 50000] [--graph-after 20000] [--queries 200] [--json FILE]

Vectors beyond `--graph-after` are searched through the HNSW graph; recall is against the exact scan. Fails when the
graph's recall@10 is below 0.95. One BLAS thread: two are hardly faster, and stall when the cores are shared.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from inprocess_client import S3Vectors

from preheat.services.s3vectors.dense import EXACT_LIMIT, GRAPH_STEP, DenseIndex

CLUSTERS, SUBSPACE, DIMENSION, TOP = 2_000, 64, 384, 10
LEAST_RECALL = 0.95


def clustered(count: int, seed: int) -> np.ndarray:
    """float32[count, DIMENSION], embedding-like; the clusters are the same for every seed."""
    fixed = np.random.default_rng(7)
    centres = fixed.normal(size=(CLUSTERS, SUBSPACE))
    basis = fixed.normal(size=(SUBSPACE, DIMENSION)) / np.sqrt(SUBSPACE)
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(0, CLUSTERS, count)] + 0.5 * rng.normal(size=(count, SUBSPACE))
    return (points @ basis).astype(np.float32)


def timed(work, items) -> tuple[list, dict[str, float]]:
    results, times = [], []
    for item in items:
        began = time.perf_counter()
        results.append(work(item))
        times.append((time.perf_counter() - began) * 1000)
    return results, {"p50_ms": float(np.percentile(times, 50)), "p99_ms": float(np.percentile(times, 99))}


def structures(count: int, limit: int, queries: np.ndarray) -> dict:
    rows = clustered(count, 1)
    dense = DenseIndex(DIMENSION, "cosine", exact_limit=limit)
    began = time.perf_counter()
    for row in rows:
        dense.add(row.tobytes())
    added = time.perf_counter() - began
    alive = np.ones(count, dtype=bool)
    exact, exact_times = timed(lambda query: dense.search(query.tobytes(), alive, TOP)[0], queries)
    few = np.zeros(count, dtype=bool)
    few[::100] = True
    _, filtered_times = timed(lambda query: dense.search(query.tobytes(), few, TOP)[0], queries)
    report = {
        "vectors": count, "add_us": added / count * 1e6, "exact": exact_times, "exact_of_1_percent": filtered_times
    }  # fmt: skip
    if count <= limit:
        return report
    began = time.perf_counter()
    while dense.pending_graph() > 0:
        dense.extend_graph(alive, GRAPH_STEP)
    report["graph_build_s"] = time.perf_counter() - began
    found, graph_times = timed(lambda query: dense.search_graph(query.tobytes(), alive, TOP)[0], queries)
    hits = sum(len(set(one.tolist()) & set(other.tolist())) for one, other in zip(exact, found))
    report["graph"] = {**graph_times, "recall": hits / (TOP * len(queries))}
    return report


def service(count: int, queries: np.ndarray) -> dict:
    """Put and query through the operations, on one thread."""
    client = S3Vectors()
    names = {"vectorBucketName": "bench", "indexName": "vectors"}
    client.create_vector_bucket(vectorBucketName="bench")
    text = {"textSearchConfigurations": [{"metadataKey": "t", "language": "en"}]}
    client.create_index(
        **names, dataType="float32", dimension=DIMENSION, distanceMetric="cosine", metadataConfiguration=text
    )  # fmt: skip
    vectors = [
        {"key": f"k{at}", "data": {"float32": row}, "metadata": {"t": f"subject{at % 997} of group{at % 13}", "n": at}}
        for at, row in enumerate(clustered(count, 1).tolist())
    ]
    batches = [vectors[at : at + 500] for at in range(0, count, 500)]
    _, puts = timed(lambda batch: client.put_vectors(**names, vectors=batch), batches)
    asked = [{"queryVector": {"float32": query}} for query in queries.tolist()]
    first = time.perf_counter()
    client.query_vectors(**names, topK=TOP, **asked[0])
    built = time.perf_counter() - first
    words = [{"text": f"subject{at % 997}", "metadataKey": "t"} for at in range(len(asked))]
    _, near = timed(lambda one: client.query_vectors(**names, topK=TOP, **one), asked)
    _, told = timed(lambda word: client.query_vectors(**names, topK=TOP, queryTexts=[word]), words)
    _, both = timed(
        lambda pair: client.query_vectors(**names, topK=TOP, queryTexts=[pair[0]], **pair[1]), list(zip(words, asked))
    )
    narrow = {"n": {"$lt": count // 100}}
    _, filtered = timed(lambda one: client.query_vectors(**names, topK=TOP, filter=narrow, **one), asked)
    return {
        "vectors": count, "put_500": puts, "first_query_s": built, "vector": near, "text": told, "hybrid": both,
        "vector_filtered": filtered,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--graph-after", type=int, default=20_000, help=f"the product's own is {EXACT_LIMIT}")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--service-vectors", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    queries = clustered(arguments.queries, 2)
    report = {
        "structures": structures(arguments.vectors, arguments.graph_after, queries),
        "service": service(arguments.service_vectors, queries),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    recall = report["structures"].get("graph", {}).get("recall", 1.0)
    if recall < LEAST_RECALL:
        print(f"recall {recall:.3f} is below {LEAST_RECALL}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

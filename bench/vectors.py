"""Speed, recall and memory of S3 Vectors' search, and the cost of the service's own path in process.

    .venv/bin/python bench/vectors.py [--vectors 1000000] [--queries 200] [--data DATA] [--minutes 4] [--json FILE]

`million`: synthetic vectors of 384 numbers (2,000 clusters in a subspace of 64 dimensions), searched through the graph
with filters that let 100 %, 10 % and 1 % through, again after adds and deletes, and again from the files of a restart
(`restart`: seconds to write and to read them, and what they take on the disk). Recall is against the exact answer.
The graph is built with two threads here (the product uses one, between queries); a build that would take longer than
`--minutes` stops, and the report says at how many vectors. `real`: MiniLM vectors of the documents in DATA, mixed and
perturbed. `service`: put and query through the operations. CPU is the process's own. Fails when a recall is below 0.95.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from inprocess_client import S3Vectors

from preheat.services.s3vectors import saved
from preheat.services.s3vectors.dense import GRAPH_STEP, DenseIndex

CLUSTERS, SUBSPACE, DIMENSION, TOP = 2_000, 64, 384, 10
LEAST_RECALL = 0.95
CHUNK = 10_000
BUILD_THREADS = 2
REAL_DOCUMENTS, REAL_VECTORS, NOISE = 200, 40_000, 0.02


def clustered(count: int, seed: int) -> np.ndarray:
    """float32[count, DIMENSION], embedding-like; the clusters are the same for every seed."""
    fixed = np.random.default_rng(7)
    centres = fixed.normal(size=(CLUSTERS, SUBSPACE)).astype(np.float32)
    basis = (fixed.normal(size=(SUBSPACE, DIMENSION)) / np.sqrt(SUBSPACE)).astype(np.float32)
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, SUBSPACE)).astype(np.float32) * 0.5 + centres[rng.integers(0, CLUSTERS, count)]
    return points @ basis


def real(data: Path, count: int, seed: int) -> np.ndarray:
    """float32[count, DIMENSION]: mixtures of two documents' MiniLM vectors with noise."""
    from preheat.models.minilm import MiniLM

    texts = [
        json.loads(line)["text"]
        for path in sorted(data.glob("*/docs.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()[: REAL_DOCUMENTS // 4]
    ]
    known = MiniLM(max_tokens=64).embed(texts)
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, len(known), (2, count))
    share = rng.uniform(0.5, 1.0, (count, 1)).astype(np.float32)
    noise = rng.normal(size=(count, DIMENSION)).astype(np.float32) * NOISE
    return share * known[first] + (1 - share) * known[second] + noise


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(work, items) -> tuple[list, dict[str, float]]:
    results, times, spent = [], [], time.process_time()
    for item in items:
        began = time.perf_counter()
        results.append(work(item))
        times.append((time.perf_counter() - began) * 1000)
    spent = (time.process_time() - spent) * 1000 / max(1, len(times))
    return results, {
        "p50_ms": float(np.percentile(times, 50)), "p99_ms": float(np.percentile(times, 99)), "cpu_ms": spent,
    }  # fmt: skip


def exact(rows: np.ndarray, alive: np.ndarray, queries: np.ndarray) -> list[set[int]]:
    """The slots of the nearest TOP for every query, by cosine; in single precision, all queries at once."""
    best_scores = np.full((len(queries), TOP), -np.inf, dtype=np.float32)
    best_slots = np.zeros((len(queries), TOP), dtype=np.int64)
    units = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    for at in range(0, len(rows), 50_000):
        some = rows[at : at + 50_000]
        scores = (units @ some.T) / np.linalg.norm(some, axis=1)
        scores[:, ~alive[at : at + len(some)]] = -np.inf
        scores = np.hstack((best_scores, scores))
        slots = np.hstack((best_slots, np.broadcast_to(np.arange(at, at + len(some)), (len(queries), len(some)))))
        top = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
        best_scores, best_slots = np.take_along_axis(scores, top, 1), np.take_along_axis(slots, top, 1)
    return [set(one.tolist()) for one in best_slots]


def searched(dense: DenseIndex, rows: np.ndarray, alive: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    found, times = timed(lambda query: dense.search_graph(query.tobytes(), alive, TOP)[0], queries)
    wanted = exact(rows, alive, queries)
    hits = sum(len(one & set(other.tolist())) for one, other in zip(wanted, found))
    return {**times, "recall": hits / sum(map(len, wanted))}


def graph(rows: np.ndarray, queries: np.ndarray, minutes: float) -> dict:
    """Build, search with filters of three selectivities, change a fiftieth, search again. Memory is what the index
    added to the process; `rows` are not counted."""
    before = resident_mb()
    dense = DenseIndex(DIMENSION, "cosine", exact_limit=0)
    alive = np.ones(len(rows), dtype=bool)
    began, spent, done = time.perf_counter(), time.process_time(), 0
    changed = max(1, len(rows) // 50)
    target = len(rows) - changed
    while done < target and time.perf_counter() - began < 60 * minutes:
        some = rows[done : min(target, done + CHUNK)]
        dense.add_many([row.tobytes() for row in some])
        dense.extend_graph(alive, len(some), BUILD_THREADS)
        done += len(some)
    report = {
        "vectors": done, "asked_for": target, "build_s": time.perf_counter() - began,
        "build_cpu_s": time.process_time() - spent, "memory_mb": resident_mb() - before,
    }  # fmt: skip
    seen, draw = rows[:done], np.random.default_rng(3).random(done)
    for name, share in (("all", 1.0), ("10_percent", 0.1), ("1_percent", 0.01)):
        report[name] = searched(dense, seen, draw < share, queries)
    some = rows[target : target + changed]
    first = dense.add_many([row.tobytes() for row in some])
    while dense.pending_graph():
        dense.extend_graph(alive, GRAPH_STEP)
    left = np.ones(done + len(some), dtype=bool)
    left[: first : max(2, first // changed)] = False
    seen = np.concatenate((seen, some))
    report["after_changes"] = {
        "added": len(some), "deleted": int((~left).sum()), **searched(dense, seen, left, queries),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="preheat-vectors-") as folder:
        report["restart"] = restarted(dense, Path(folder), seen, left, queries)
    return report


def restarted(dense: DenseIndex, folder: Path, rows: np.ndarray, alive: np.ndarray, queries: np.ndarray) -> dict:
    """Write the index as the service does, read it back, search what was read."""
    meta, sections = dense.capture()
    copy = saved.Snapshot(
        {"dimension": DIMENSION, "dense": meta}, sections, dense.rows_after(0), 0, dense.graph_writer(), dense.bytes
    )
    began, spent = time.perf_counter(), time.process_time()
    saved.write(folder, "bench", "", copy, saved.Rows("bench"))
    written, write_spent = time.perf_counter() - began, time.process_time() - spent
    began, spent = time.perf_counter(), time.process_time()
    stored = saved.read(folder, "bench", "")
    again = DenseIndex.restored(DIMENSION, "cosine", 0, stored.meta["dense"], stored, "")
    return {
        "write_s": written, "write_cpu_s": write_spent, "read_s": time.perf_counter() - began,
        "read_cpu_s": time.process_time() - spent,
        "files_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
        **searched(again, rows, alive, queries),
    }  # fmt: skip


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


def recalls(report: dict) -> list[float]:
    if "recall" in report:
        return [report["recall"]]
    return [one for value in report.values() if isinstance(value, dict) for one in recalls(value)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--service-vectors", type=int, default=10_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    queries = clustered(arguments.queries, 2)
    report: dict = {"load": os.getloadavg()}
    if arguments.vectors:
        report["million"] = graph(clustered(arguments.vectors, 1), queries, arguments.minutes)
    if arguments.data:
        mixed = real(arguments.data, REAL_VECTORS + arguments.queries, 4)
        report["real"] = graph(mixed[: -arguments.queries], mixed[-arguments.queries :], arguments.minutes)
    if arguments.service_vectors:
        report["service"] = service(arguments.service_vectors, queries)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    worst = min(recalls(report), default=1.0)
    if worst < LEAST_RECALL:
        print(f"recall {worst:.3f} is below {LEAST_RECALL}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

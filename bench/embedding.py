"""Quality, speed and memory of the MiniLM embedder, and its speed against sentence-transformers.

    python bench/embedding.py DATA [--collections xquad-en cranfield] [--engine onnxruntime] [--threads 1]
        [--peers] [--peer-python PYTHON] [--json FILE]

DATA holds one folder a collection: docs.jsonl and queries.jsonl ({id, text}), qrels.tsv (query, document, grade).
Prints nDCG@10 of exact search, texts a second for passages of 200 tokens, milliseconds for a query of 20 tokens, and
resident memory.

`--peers` compares with sentence-transformers (torch on the CPU) on the same weights, the same texts of DATA in their
real lengths, cut at the same 256 tokens, with as many threads: rounds alternate, and both processes count their own
processor time, so that others on the machine disturb the comparison little. It is installed into a temporary virtual
environment, for at most five minutes, unless `--peer-python` names a Python that has it; where it cannot be had that
is said. The vectors of both are compared as well.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy

from preheat.models.minilm import MAX_TOKENS, MiniLM, weights_folder

DEPTH = 10
PASSAGES, REPEATS = 32, 30
SAMPLE, QUESTIONS, ROUNDS = 24, 10, 3
INSTALL_S, ANSWER_S = 300, 120
PEER = """
import json, sys, time
import torch
torch.set_num_threads(int(sys.argv[2]))
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
model.max_seq_length = int(sys.argv[3])
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    texts, one_by_one = json.loads(line)
    wall, spent = time.perf_counter(), time.process_time()
    if one_by_one:
        found = [model.encode([text], show_progress_bar=False)[0] for text in texts]
    else:
        found = model.encode(texts, batch_size=32, show_progress_bar=False)
    told = [time.perf_counter() - wall, time.process_time() - spent]
    print(json.dumps(told + [[one.tolist() for one in found[:4]]]), flush=True)
"""


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


class Ours:
    """MiniLM as the product runs it, asked as the peer is."""

    def __init__(self, threads: int) -> None:
        self._model = MiniLM(threads=threads)

    def __call__(self, texts: list[str], one_by_one: bool) -> tuple[float, float, list[list[float]]]:
        wall, spent = time.perf_counter(), time.process_time()
        found = [self._model.embed([text])[0] for text in texts] if one_by_one else self._model.embed(texts)
        return time.perf_counter() - wall, time.process_time() - spent, [one.tolist() for one in found[:4]]


class Peer:
    """sentence-transformers in a process of its own: (seconds, processor seconds, the first vectors)."""

    def __init__(self, python: str, threads: int) -> None:
        command = [python, "-c", PEER, str(weights_folder()), str(threads), str(MAX_TOKENS)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self._answer() != "ready":
            raise RuntimeError("sentence-transformers did not start")

    def __call__(self, texts: list[str], one_by_one: bool) -> tuple[float, float, list[list[float]]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([texts, one_by_one]) + "\n")
        self._process.stdin.flush()
        wall, spent, found = self._answer()
        return wall, spent, found

    def _answer(self):
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("sentence-transformers ended")
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def installed(folder: Path) -> tuple[str, str]:
    """(a Python that has sentence-transformers, or empty; why not)."""
    python = str(folder / "bin" / "python")
    end = time.monotonic() + INSTALL_S
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=INSTALL_S)
        for torch in (["torch==2.13.0+cpu"], ["torch"]):
            left = max(1.0, end - time.monotonic())
            done = subprocess.run([python, *pip, *torch, "sentence-transformers"], capture_output=True, timeout=left)
            if done.returncode == 0:
                return python, ""
    except subprocess.TimeoutExpired:
        return "", f"could not be installed within {INSTALL_S} s"
    except (OSError, subprocess.CalledProcessError) as error:
        return "", f"could not be installed: {error}"
    return "", "could not be installed: " + done.stderr.decode(errors="replace").strip().splitlines()[-1][:200]


def compare(data: Path, python: str, threads: int) -> dict:
    """Medians over rounds that alternate; queries are asked one at a time."""
    texts = [text for folder in sorted(data.iterdir()) if folder.is_dir() for text in read(folder / "docs.jsonl")[1]]
    asked = [text for folder in sorted(data.iterdir()) if folder.is_dir() for text in read(folder / "queries.jsonl")[1]]
    chance = random.Random(3)
    some, queries = chance.sample(texts, SAMPLE), chance.sample(asked, QUESTIONS)
    ours, peer = Ours(threads), Peer(python, threads)
    told: dict[str, dict[str, list[float]]] = {"ours": defaultdict(list), "peer": defaultdict(list)}
    try:
        for one in (ours, peer):
            one(some[:4], False)
            one(queries[:2], True)
        for _ in range(ROUNDS):
            vectors = []
            for name, one in (("ours", ours), ("peer", peer)):
                wall, spent, found = one(some, False)
                vectors.append(found)
                told[name]["texts_a_s"].append(SAMPLE / wall)
                told[name]["texts_a_cpu_s"].append(SAMPLE / spent)
                wall, spent, _ = one(queries, True)
                told[name]["query_ms"].append(1_000 * wall / QUESTIONS)
                told[name]["query_cpu_ms"].append(1_000 * spent / QUESTIONS)
            likeness = min(float(numpy.dot(*pair)) for pair in zip(*vectors))
    finally:
        peer.close()
    medians = {name: {what: sorted(all_)[ROUNDS // 2] for what, all_ in its.items()} for name, its in told.items()}
    peers = {"sentence-transformers": medians["peer"] | {"least_cosine_with_ours": likeness}}
    return {"threads": threads, "ours": medians["ours"], "peers": peers}


def compared(data: Path, peer_python: str | None, threads: int) -> dict:
    with contextlib.ExitStack() as stack:
        python, why_not = peer_python or "", ""
        if not python:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="preheat-peer-"))
            python, why_not = installed(Path(folder))
        if python:
            return compare(data, python, threads)
        rate, query_ms = speed(MiniLM(threads=threads))
        alone = {"texts_a_s": rate, "query_ms": query_ms, "texts_a_cpu_s": rate / threads, "query_cpu_ms": query_ms}
        return {"threads": threads, "ours": alone, "peers": {"sentence-transformers": {"why_not": why_not}}}


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--collections", nargs="*", default=["xquad-en", "cranfield"])
    parser.add_argument("--engine", choices=["auto", "onnxruntime", "numpy"], default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peer-python", help="a Python that has sentence-transformers")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.peers:
        threads = arguments.threads or min(4, os.cpu_count() or 1)
        text = json.dumps(compared(arguments.data, arguments.peer_python, threads), indent=2)
        print(text)
        if arguments.json:
            arguments.json.write_text(text + "\n")
        return
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

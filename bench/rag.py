"""Speed of the deployed RAG stack against its goals, in one run.

    .venv/bin/python bench/rag.py [--data DATA] [--chunks 100000] [--questions 200] [--only query ...] [--json FILE]

query      embed and hybrid search, with the filter of access labels that every question carries: ragkit's retriever and
           boto3 in this process against the platform, 100,000 passages (sentences of DATA mixed anew; vectors are
           mixtures of MiniLM's for DATA's documents). Every question is new to every cache.
first      the first token of an answer, questions over HTTP through the function URL: what the client waits, less what
           the function measured for retrieval and for the model's own first token (a call of the model, boto3
           included). Without the reranker, which reads fifty passages anew for every question on a corpus like this
million    search alone over 1,000,000 vectors: bench/vectors.py
embedder   texts a second and milliseconds a question against sentence-transformers: bench/embedding.py
ingest     the share of the embedder's own rate that ingest reaches: bench/ingest.py, a small run

Each row has its goal, and the load average at its end: on a machine that others use wall-clock times say little, the
processor's milliseconds say more. Exit status 1 when a goal is missed.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stacks" / "rag"))

import boto3
import numpy as np
from botocore.config import Config
from ingest import TEMPLATE, Served
from ragkit.asked import Asked
from ragkit.embed import BedrockEmbedder
from ragkit.lean import AGENT, lean
from ragkit.retrieve import Retriever
from ragkit.store import S3VectorStore
from vectors import real

from preheat.cli import deploying
from preheat.cli.clients import Platform
from preheat.kernel.scope import Scope
from preheat.services.s3vectors import repository
from preheat.services.s3vectors.domain import VectorRow
from preheat.store.database import Database

HERE = Path(__file__).resolve().parent
MODEL, DIMENSION = "preheat.minilm-l6-v2", 384
BUCKET = "rag-vectors-000000000000"
SCOPE = Scope("000000000000", "us-east-1")
PUT = 2_000
SENTENCES = 6
PER_DOCUMENT = 8
INGEST_S = 400
WARM = 20
CALM_S, CALM_SHARE, CALM_TIMES, PATIENCE_S = 1.0, 0.05, 4, 240
LABELS = Asked("").filter()


@dataclass(frozen=True)
class Row:
    what: str
    value: float
    unit: str
    goal: float | None = None
    more: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def line(self) -> str:
        sign = ">=" if self.at_least else "<="
        goal = "" if self.goal is None else f"{sign} {self.goal:g}: {'met' if self.met else 'NOT MET'}"
        return f"  {self.what:<52}{self.value:>9.2f} {self.unit:<8}{goal:<20}{self.more}"


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


def sentences(data: Path) -> list[str]:
    found: list[str] = []
    for path in sorted(data.glob("*/docs.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found += re.split(r"(?<=[.!?])\s+", json.loads(line)["text"])
    return [one for one in found if 20 < len(one) < 400]


def questions(data: Path, count: int) -> list[str]:
    """Different ones; words of DATA's questions mixed where there are too few."""
    found: dict[str, None] = {}
    for path in sorted(data.glob("*/queries.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[(row["text"] if "text" in row else row["turns"][-1]["text"])[:400]] = None
    chance = random.Random(5)
    listed = list(found)
    chance.shuffle(listed)
    words = [word for one in listed for word in one.split()]
    while len(listed) < count:
        listed.append(" ".join(chance.sample(words, 9)))
    return listed[:count]


def fill(state: Path, index: str, data: Path, count: int) -> None:
    """Write passages into the state of a stopped server, as PutVectors would."""
    chance, said, vectors = random.Random(1), sentences(data), real(data, count, 6)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    db = Database(state)
    spec = repository.index(db, SCOPE, BUCKET, index)
    if spec is None:
        raise RuntimeError(f"the stack has made no index {index}")
    for at in range(0, count, PUT):
        rows = []
        for number in range(at, min(count, at + PUT)):
            document, place = f"mixed/{number // PER_DOCUMENT}.txt", number % PER_DOCUMENT
            metadata = {
                "document": document, "number": place, "title": f"Mixed {number // PER_DOCUMENT}", "page": 0,
                "digest": f"{number:016x}", "content": f"{number:016x}", "model": MODEL, "labels": ["public"],
                "context": f"Mixed {number // PER_DOCUMENT}", "text": " ".join(chance.sample(said, SENTENCES)),
            }  # fmt: skip
            rows.append(VectorRow(f"{document}#{place}", vectors[number].tobytes(), json.dumps(metadata)))
        db.begin()
        repository.put_vectors(db, spec.id, rows)
        db.commit()
    db.close()


class Stack:
    """The deployed stack with `chunks` passages, its search structures ready."""

    def __init__(self, folder: Path, data: Path, chunks: int) -> None:
        self.server = Served(folder).start()
        try:
            self.platform = Platform(self.server.endpoint)
            many = {"RequestsPerMinute": "1000000", "RerankModelId": "none"}
            deploying.deploy(self.platform, TEMPLATE, "rag", many, lambda event: None)
            self.outputs = self.platform.outputs("rag")
            self.index = f"passages-{self.outputs['IndexRecipe']}"
            self.server.stop()
            fill(folder / "state", self.index, data, chunks)
            self.server.start()
            began = time.perf_counter()
            self.retriever().ranking("what is warm", LABELS)
            self.built_s = time.perf_counter() - began
            self.calm()
            self.graph_s = time.perf_counter() - began
            self._saved(folder / "state" / "s3vectors")
            self.server.kill()
            self.server.start()
            began = time.perf_counter()
            self.retriever().ranking("what is warm", LABELS)
            self.loaded_s = time.perf_counter() - began
            self.calm()
        except BaseException:
            self.server.stop()
            raise

    def _saved(self, folder: Path) -> None:
        """Wait until the server has written its search structures."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not list(folder.glob("*/*.json")):
            time.sleep(CALM_S)

    def calm(self) -> None:
        """Wait until the server has nothing left to build."""
        end, calm = time.monotonic() + PATIENCE_S, 0
        while time.monotonic() < end and calm < CALM_TIMES:
            before = self.server.spent()[0]
            time.sleep(CALM_S)
            calm = calm + 1 if self.server.spent()[0] - before < CALM_SHARE * CALM_S else 0

    def parts(self) -> tuple[S3VectorStore, BedrockEmbedder]:
        store = S3VectorStore(lean(self.client("s3vectors")), BUCKET, self.index, DIMENSION)
        return store, BedrockEmbedder(self.client("bedrock-runtime"), MODEL, DIMENSION)

    def client(self, service: str) -> Any:
        """As the stack's functions make theirs."""
        keys = {"aws_access_key_id": "preheat", "aws_secret_access_key": "preheat", "region_name": SCOPE.region}
        config = Config(retries={"mode": "standard", "total_max_attempts": 3}, user_agent=AGENT)
        return boto3.client(service, endpoint_url=self.server.endpoint, config=config, **keys)

    def retriever(self) -> Retriever:
        return Retriever(*self.parts())

    def spent(self) -> float:
        return sum(self.server.spent()) + time.process_time()

    def first(self, question: str) -> dict[str, float]:
        """Milliseconds: the first token as the client sees it, and the parts that the function measured."""
        parts = urlsplit(self.platform.at_path(self.outputs["AskUrl"]).rstrip("/") + "/ask")
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        began, seen, name, done = time.perf_counter(), 0.0, "", {}
        body, told = json.dumps({"question": question}).encode(), {"content-type": "application/json"}
        connection.request("POST", parts.path, body, told)
        for raw in connection.getresponse():
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
                if name == "token" and not seen:
                    seen = (time.perf_counter() - began) * 1_000
            elif line.startswith("data: ") and name in ("done", "error"):
                done = json.loads(line[6:])
        connection.close()
        if "timing" not in done:
            raise RuntimeError(f"no answer to {question!r}: {done}")
        return {"client": seen, **done["timing"]}


def each(work: Callable[[str], object], asked: list[str], spent: Callable[[], float]) -> tuple[list[float], float]:
    """Milliseconds of each, and processor milliseconds of one on average."""
    times, before = [], spent()
    for one in asked:
        began = time.perf_counter()
        work(one)
        times.append((time.perf_counter() - began) * 1_000)
    return times, (spent() - before) * 1_000 / len(asked)


def query_rows(stack: Stack, asked: list[str], chunks: int) -> Iterator[Row]:
    store, embedder = stack.parts()
    retriever = stack.retriever()
    for one in asked[:WARM]:
        retriever.ranking(one, LABELS)
    rest = asked[WARM:]
    share = len(rest) // 4
    times, spent = each(lambda one: retriever.ranking(one, LABELS), rest[:share], stack.spent)
    yield Row(f"query p50, {chunks:,} passages", percentile(times, 50), "ms", 15, f"processor {spent:.1f} ms")
    yield Row("query p99", percentile(times, 99), "ms", 40)
    vectors: list[list[float]] = []
    bare = stack.platform.client("s3vectors").get_vectors
    names = {"vectorBucketName": BUCKET, "indexName": stack.index}
    times, spent = each(lambda one: bare(**names, keys=["none"]), rest[:share], stack.spent)
    yield Row("a call that does nothing p50, to judge the machine by", percentile(times, 50), "ms", None,
              f"processor {spent:.1f} ms")  # fmt: skip
    for name, work, some in (
        ("embed", lambda one: vectors.append(embedder.query(one)), rest[share : 2 * share]),
        ("words", lambda one: store.lexical(one, 200, LABELS), rest[2 * share : 3 * share]),
        ("vector", lambda one: store.dense(vectors.pop(), 200, MODEL, LABELS), rest[3 * share : 4 * share]),
    ):
        times, spent = each(work, some, stack.spent)
        yield Row(f"  of it: {name} p50", percentile(times, 50), "ms", None, f"processor {spent:.1f} ms")
    yield Row("first query after SIGKILL", stack.loaded_s, "s", None, "reads the saved search structures")
    yield Row("the very first query", stack.built_s, "s", None, "reads every passage from the database")
    yield Row("until the graph was built", stack.graph_s, "s")


def first_rows(stack: Stack, asked: list[str]) -> Iterator[Row]:
    for one in asked[:WARM]:
        stack.first(one)
    rest = asked[WARM:]
    half = len(rest) // 2
    for together, some in ((1, rest[:half]), (8, rest[half:])):
        before = stack.spent()
        with ThreadPoolExecutor(together) as pool:
            if together > 1:
                list(pool.map(stack.first, some[: 2 * together]))
            told = list(pool.map(stack.first, some))
        spent = (stack.spent() - before) * 1_000 / len(some)
        model = [one["model_first_ms"] for one in told]
        over = [one["client"] - one["retrieval_ms"] - one["model_first_ms"] for one in told]
        yield Row(
            f"first token: the platform's share p50, {together} at once", percentile(over, 50), "ms", 15,
            f"p99 {percentile(over, 99):.1f}; processor {spent:.1f} ms a question, all of it",
        )  # fmt: skip
        for name, values in (
            ("all that the client waits", [one["client"] for one in told]),
            ("retrieval", [one["retrieval_ms"] for one in told]), ("model", model),
        ):  # fmt: skip
            yield Row(f"  of it: {name} p50", percentile(values, 50), "ms", None, f"p99 {percentile(values, 99):.1f}")


def report_of(script: str, *arguments: str, limit_s: float) -> dict:
    """What another benchmark writes with --json."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, str(HERE / script), *arguments, "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
        if not path.exists():
            raise RuntimeError(f"{script} ended with {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
        return json.loads(path.read_text())


def million_rows(data: Path, vectors: int) -> Iterator[Row]:
    arguments = ("--vectors", str(vectors), "--service-vectors", "0", "--minutes", "2.5")
    found = report_of("vectors.py", *arguments, limit_s=400)["million"]
    yield Row("vectors in the graph (synthetic clusters)", found["vectors"], "", found["asked_for"], "", True)
    yield Row("memory of the index", found["memory_mb"], "MB")
    yield Row("build", found["build_s"], "s", None, f"processor {found['build_cpu_s']:.0f} s")
    for name in ("all", "10_percent", "1_percent", "after_changes"):
        one = found[name]
        more = f"p99 {one['p99_ms']:.1f}, processor {one['cpu_ms']:.1f} ms"
        yield Row(f"search p50, {name.replace('_', ' ')}", one["p50_ms"], "ms", 10, more)
        yield Row("  recall@10", one["recall"], "", 0.95, "", True)


def embedder_rows(data: Path) -> Iterator[Row]:
    found = report_of("embedding.py", str(data), "--peers", "--collections", limit_s=420)
    ours = found["ours"]
    yield Row("embedder", ours["texts_a_cpu_s"], "texts/s", None, "a second of processor time, real documents")
    for name, peer in found["peers"].items():
        if "why_not" in peer:
            yield Row(f"  against {name}", float("nan"), "", None, peer["why_not"])
            continue
        more = f"texts; a question {peer['query_cpu_ms'] / ours['query_cpu_ms']:.2f} times as fast"
        yield Row(f"  times as fast as {name}", ours["texts_a_cpu_s"] / peer["texts_a_cpu_s"], "x", 1, more, True)


def ingest_text() -> str:
    """bench/ingest.py's own words: a small run with MiniLM."""
    command = [sys.executable, str(HERE / "ingest.py"), "--hashing", "0", "--minilm", "240", "--kill", "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INGEST_S)
    except subprocess.TimeoutExpired:
        return f"not measured: it took longer than {INGEST_S} s"
    return (done.stdout + done.stderr[-600:]).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=200, help="each of the two measurements of the first token")
    parts = ("query", "first", "million", "embedder", "ingest")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[Row] = []

    def show(title: str, some: Iterator[Row]) -> None:
        print(title, flush=True)
        try:
            for row in some:
                rows.append(row)
                print(row.line(), flush=True)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            rows.append(Row(f"{title}: not measured", float("nan"), "", 0.0, str(error)[:300]))
            print(rows[-1].line(), flush=True)
        print(f"  load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)

    if {"query", "first"} & set(given.only):
        with tempfile.TemporaryDirectory(prefix="preheat-rag-") as folder:
            asked = questions(given.data, 2_000)
            stack = Stack(Path(folder), given.data, given.chunks)
            try:
                if "query" in given.only:
                    show("Query: embed and hybrid search", query_rows(stack, asked[: 4 * 150 + WARM], given.chunks))
                if "first" in given.only:
                    some = asked[4 * 150 + WARM :][: 2 * given.questions + WARM]
                    show("First token", first_rows(stack, some))
            finally:
                stack.server.stop()
    if "million" in given.only:
        show("Search alone", million_rows(given.data, given.vectors))
    if "embedder" in given.only:
        show("Embedder", embedder_rows(given.data))
    if "ingest" in given.only:
        print("Ingest", ingest_text(), f"load {os.getloadavg()[0]:.1f}", sep="\n  ", flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) | {"met": row.met} for row in rows], indent=2) + "\n")
    missed = [row.what for row in rows if row.met is False]
    print(f"missed: {', '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())

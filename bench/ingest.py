"""Ingest through the deployed RAG stack: `preheat ingest` of a folder, from files to searchable passages.

    .venv/bin/python bench/ingest.py [--hashing 2000] [--minilm 240] [--kill 10000] [--size 3] [--json FILE]

Prints documents and passages a second over the whole run (the command's start, the functions' cold starts and the last
batches included) and in its steady part, between the moments at which a fifth and four fifths of the passages were in;
the embedder's own rate on the texts that these passages were sent to it as, measured before and after in the same run;
the ratio of both; and processor seconds by who spent them: the server's main thread, its other threads (which embed),
the functions, the command.

`--kill` documents are brought in with the server killed (SIGKILL) on the way, more than once, the command too, and some
of the documents changed or removed meanwhile; then every passage must be there once, of the documents' last version.
"""

import argparse
import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stacks" / "rag"))

from botocore.exceptions import ClientError
from ragkit.chunking import Chunk, chunk
from ragkit.embed import BedrockEmbedder
from ragkit.extract import extract
from servers import family, free_port

from preheat.cli import deploying
from preheat.cli.clients import Platform

ROOT = Path(__file__).resolve().parents[1]
PREHEAT = str(Path(sys.executable).parent / "preheat")
TEMPLATE = ROOT / "stacks" / "rag" / "template.yaml"
BUCKET = "rag-vectors-000000000000"
START_S, LIMIT_S = 30, 1_500
TICKS = 100
OWN_S = 4.0
BATCH = 16
STEADY = 0.2, 0.8
"""Of the passages: where the steady part of a run begins and ends."""
EDITED = 20
"""One document in so many is changed between two kills, and as many are removed."""


@dataclass(frozen=True)
class Model:
    id: str
    dimension: int


HASHING = Model("preheat.hashing-1024", 1024)
MINILM = Model("preheat.minilm-l6-v2", 384)


def write(folder: Path, documents: int, sections: int) -> None:
    """Markdown files of sentences from this project's own documents, drawn by chance: each with a heading and so many
    sections of about 150 words."""
    chance = random.Random(7)
    prose = " ".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    plain = re.sub(r"```.*?```|[|`*#<>\[\]()]", " ", prose, flags=re.DOTALL)
    said = [" ".join(one.split()) for one in plain.split(". ") if 8 <= len(one.split()) <= 40]
    for number in range(documents):
        parts = [f"# Record {number}\n"]
        for section in range(sections):
            text, words = [], 0
            while words < 150:
                text.append(chance.choice(said) + ".")
                words += len(text[-1].split())
            parts.append(f"## Part {section}\n\n{' '.join(text)}\n")
        path = folder / f"{number // 500:03d}" / f"record-{number:05d}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(parts))


def passages(folder: Path) -> dict[str, list[Chunk]]:
    keys = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.md"))}
    return {key: chunk(extract(key, path.read_bytes())) for key, path in keys.items()}


class Served:
    """`preheat serve` on a state of its own; `kill` and `start` again go on with it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Served":
        command = [PREHEAT, "serve", "--port", str(self.port), "--state", str(self._folder / "state")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while not self._ready():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"the server did not start: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        return self

    def _ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/_preheat/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(START_S)

    def spent(self) -> tuple[float, float, float]:
        """Processor seconds of the server's main thread, of its other threads, and of the functions under it (those
        that ended included)."""
        assert self._process is not None
        pid = self._process.pid
        own, ended = _spent(f"{pid}")
        main, _ = _spent(f"{pid}/task/{pid}")
        return main, own - main, ended + sum(sum(_spent(str(one))) for one in family(pid) - {pid})


def _spent(place: str) -> tuple[float, float]:
    """(of a process or thread, of its children that ended), in seconds."""
    try:
        fields = Path(f"/proc/{place}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    return sum(map(int, fields[11:13])) / TICKS, sum(map(int, fields[13:15])) / TICKS


@contextlib.contextmanager
def deployed(model: Model) -> Iterator[tuple[Served, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="preheat-ingest-"))
    server = Served(folder).start()
    try:
        parameters = {"EmbeddingModelId": model.id, "EmbeddingDimension": str(model.dimension)}
        deploying.deploy(Platform(server.endpoint), TEMPLATE, "rag", parameters, lambda event: None)
        yield server, folder
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def command(server: Served, documents: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [PREHEAT, "ingest", str(documents), "--port", str(server.port)], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> float:
    """Processor seconds of the command, once it ended well."""
    before = _ended()
    out, _ = process.communicate(timeout=LIMIT_S)
    if process.returncode or "not indexed" in out:
        raise RuntimeError(f"`preheat ingest` ended with {process.returncode}: {out[-2000:]}")
    return _ended() - before


def _ended() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Sent:
    """Stands for Bedrock where it is asked which texts passages are sent as: counts like the server, embeds nothing."""

    def __init__(self, embedder: Any, dimension: int) -> None:
        self.texts: list[str] = []
        self._embedder, self._vector = embedder, [1.0] + [0.0] * (dimension - 1)

    def invoke_model(self, body: str, **_: Any) -> dict[str, Any]:
        texts = json.loads(body)["texts"]
        counts = [self._embedder.count_tokens(text) for text in texts]
        for at, count in enumerate(counts):
            if self._embedder.max_tokens and count > self._embedder.max_tokens:
                told = f"Input is too long for requested model. texts[{at}] has {count} tokens."
                raise ClientError({"Error": {"Code": "ValidationException", "Message": told}}, "InvokeModel")
        self.texts += texts
        answer = json.dumps({"embeddings": [self._vector] * len(texts)})
        headers = {"x-amzn-bedrock-input-token-count": str(sum(counts))}
        return {"body": _Body(answer), "ResponseMetadata": {"HTTPHeaders": headers}}


class _Body:
    def __init__(self, text: str) -> None:
        self.read = lambda: text


def embedder_of(model: Model) -> Any:
    from preheat.models.hashing import HashingEmbedder
    from preheat.models.minilm import MiniLM

    return MiniLM() if model is MINILM else HashingEmbedder()


def sent_as(model: Model, embedder: Any, groups: list[list[str]]) -> list[str]:
    """The texts that the passages of documents, ten documents a batch, are sent to the model as."""
    sent = Sent(embedder, model.dimension)
    stack = BedrockEmbedder(sent, model.id, model.dimension)
    for at in range(0, len(groups), 10):
        stack.documents([text for group in groups[at : at + 10] for text in group])
    return sent.texts


def own_rate(embedder: Any, texts: list[str]) -> tuple[float, float]:
    """(texts a second, processor seconds a text) of the embedder alone, in batches as the server makes them."""
    embedder.embed(texts[:BATCH])
    count, began, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < OWN_S:
        at = count % max(1, len(texts) - BATCH)
        embedder.embed(texts[at : at + BATCH])
        count += BATCH
    return count / (time.perf_counter() - began), (time.process_time() - used) / count


def noted(server: Served) -> int:
    """How many documents have a row: how far a run is."""
    platform = Platform(server.endpoint)
    name = platform.outputs("rag")["DocumentsTableName"]
    return int(platform.client("dynamodb").describe_table(TableName=name)["Table"]["ItemCount"])


def stored(server: Served) -> dict[str, str]:
    """The digest of every vector in the index that answers, by its key."""
    client = Platform(server.endpoint).client("s3vectors")
    (index,) = client.list_indexes(vectorBucketName=BUCKET)["indexes"]
    found: dict[str, str] = {}
    pages = client.get_paginator("list_vectors").paginate(
        vectorBucketName=BUCKET, indexName=index["indexName"], returnMetadata=True
    )
    for page in pages:
        for one in page["vectors"]:
            if one["key"] in found:
                raise RuntimeError(f"{one['key']} is listed twice")
            found[one["key"]] = one["metadata"]["digest"]
    return found


def rows(server: Served) -> list[dict[str, Any]]:
    """What the documents table says."""
    platform = Platform(server.endpoint)
    name = platform.outputs("rag")["DocumentsTableName"]
    pages = platform.client("dynamodb").get_paginator("scan").paginate(TableName=name, ConsistentRead=True)
    return [
        {key: next(iter(value.values())) for key, value in item.items()} for page in pages for item in page["Items"]
    ]


def steady_rate(found: list[dict[str, Any]]) -> float:
    """Passages a second in the steady part, by the times at which the documents' rows were made."""
    done = sorted((int(row["updated_ms"]) / 1_000, int(row["chunks"])) for row in found)
    total, so_far = sum(count for _, count in done), 0
    edges: list[tuple[float, int]] = []
    for at, (moment, count) in enumerate(done):
        so_far += count
        last_of_its_batch = at + 1 == len(done) or done[at + 1][0] > moment
        if last_of_its_batch and STEADY[0] * total <= so_far <= STEADY[1] * total:
            edges.append((moment, so_far))
    if len(edges) < 2:
        return float("nan")
    (began, first), (ended, last) = edges[0], edges[-1]
    return (last - first) / (ended - began)


def measure(model: Model, documents: int, sections: int) -> dict[str, Any]:
    embedder = embedder_of(model)
    with deployed(model) as (server, folder):
        write(folder / "docs", documents, sections)
        made = passages(folder / "docs")
        groups = [[one.embedded for one in some] for some in made.values()]
        count = sum(map(len, groups))
        texts = sent_as(model, embedder, groups)
        share = count / len(texts)
        before, cpu_before = own_rate(embedder, texts)
        spent = server.spent()
        began = time.perf_counter()
        client = finish(command(server, folder / "docs"))
        took = time.perf_counter() - began
        main, threads, functions = (now - then for now, then in zip(server.spent(), spent))
        steady = steady_rate(rows(server))
        after, cpu_after = own_rate(embedder, texts)
        if stored(server) != {one.id: one.digest for some in made.values() for one in some}:
            raise RuntimeError("the index does not hold what was sent")
    alone = (before + after) / 2 * share
    each = 1_000 / documents
    found = {
        "model": model.id, "documents": documents, "passages": count, "texts": len(texts), "seconds": took,
        "passages_a_s": count / took, "steady_passages_a_s": steady, "own_passages_a_s": alone,
        "own_before": before * share, "own_after": after * share, "share": count / took / alone,
        "steady_share": steady / alone, "main_thread_s": main, "other_threads_s": threads, "functions_s": functions,
        "command_s": client, "own_cpu_s": (cpu_before + cpu_after) / 2 * len(texts),
        "embedding_cpu_share": threads / (main + threads + functions + client),
    }  # fmt: skip
    print(f"{model.id}: {documents} documents, {count} passages, sent as {len(texts)} texts, in {took:.1f} s")
    print(f"  {count / took:.1f} passages/s over the whole run, {steady:.1f} in its steady part; the embedder alone "
          f"{before * share:.1f} before, {after * share:.1f} after: {found['share']:.0%} and {steady / alone:.0%}")
    print(f"  processor: the threads that embed {threads:.1f} s (the embedder alone {found['own_cpu_s']:.1f} s), "
          f"{found['embedding_cpu_share']:.0%} of all; server's main thread {main:.1f} s, functions {functions:.1f} s, "
          f"command {client:.1f} s")  # fmt: skip
    print(f"  a document beside its embedding: server {main * each:.1f} ms, functions {functions * each:.1f} ms, "
          f"command {client * each:.1f} ms", flush=True)  # fmt: skip
    return found


def edit(folder: Path, chance: random.Random) -> None:
    """Some documents get other words and one section less or more, as many are removed."""
    paths = sorted(folder.rglob("*.md"))
    for path in chance.sample(paths, len(paths) // EDITED):
        path.unlink()
    paths = sorted(folder.rglob("*.md"))
    for path in chance.sample(paths, len(paths) // EDITED):
        sections = path.read_text().split("\n## ")
        kept = sections[: max(1, len(sections) - chance.randint(0, 2))]
        path.write_text("\n## ".join(kept) + f"\n\n## Edited\n\nEdited, number {chance.randint(0, 10**9)}.\n")


def survive(documents: int) -> dict[str, Any]:
    """The command, the server, both are killed on the way; then it is brought to its end."""
    with deployed(HASHING) as (server, folder):
        docs = folder / "docs"
        write(docs, documents, 1)
        chance = random.Random(3)
        began, seconds, kills = time.perf_counter(), [], {"server": 0, "command": 0}
        for victim in ("server", "command", "both"):
            goal = noted(server) + documents // 4
            running, since = command(server, docs), time.perf_counter()
            end = time.monotonic() + LIMIT_S / 3
            while noted(server) < goal and running.poll() is None and time.monotonic() < end:
                time.sleep(chance.uniform(0.5, 1.5))
            alive = running.poll() is None
            if victim != "server":
                running.kill()
                kills["command"] += alive
            if victim != "command":
                server.kill()
                kills["server"] += alive
            running.communicate()
            seconds.append(round(time.perf_counter() - since, 1))
            print(f"  {victim} killed after {seconds[-1]} s with {'' if alive else 'no '}work under way", flush=True)
            edit(docs, chance)
            if victim != "command":
                server.start()
            print(f"  {len(stored(server))} passages are there", flush=True)
        since = time.perf_counter()
        spent = server.spent()
        client = finish(command(server, docs))
        seconds.append(round(time.perf_counter() - since, 1))
        used = [round(now - then, 1) for now, then in zip(server.spent(), spent)]
        held = stored(server)
        wanted = {one.id: one.digest for some in passages(docs).values() for one in some}
        files = len(list(docs.rglob("*.md")))
        indexed = sum(row["status"] == "indexed" for row in rows(server))
        since = time.perf_counter()
        again = finish(command(server, docs))
        nothing_s = time.perf_counter() - since
    found = {
        "documents": documents, "left": files, "indexed": indexed, "passages": len(wanted), "killed": kills,
        "missing": len(wanted.keys() - held.keys()), "too_many": len(held.keys() - wanted.keys()),
        "older": sum(held.get(key, digest) != digest for key, digest in wanted.items()),
        "seconds": round(time.perf_counter() - began, 1), "runs_s": seconds,
        "last_run_cpu_s": dict(zip(("main", "threads", "functions"), used)) | {"command": round(client, 1)},
        "nothing_to_do_s": round(nothing_s, 1), "nothing_to_do_cpu_s": round(again, 1),
    }  # fmt: skip
    print(f"{documents} documents, {files} left after edits; SIGKILL {kills['server']} times for the server, "
          f"{kills['command']} for the command: {found['missing']} passages missing, {found['too_many']} too many, "
          f"{found['older']} of an older version, of {len(wanted)}; {found['seconds']} s", flush=True)  # fmt: skip
    print(f"  runs of {seconds} s; one more, with nothing to do, {nothing_s:.1f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashing", type=int, default=2_000, help="documents with the hashing embedder")
    parser.add_argument("--minilm", type=int, default=240, help="documents with MiniLM")
    parser.add_argument("--kill", type=int, default=10_000, help="documents of the run with kills")
    parser.add_argument("--size", type=int, default=3, help="sections of a document of the MiniLM run")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    if given.minilm:
        found["minilm"] = measure(MINILM, given.minilm, given.size)
    if given.hashing:
        found["hashing"] = measure(HASHING, given.hashing, 1)
    if given.kill:
        found["killed"] = survive(given.kill)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    killed = found.get("killed", {})
    if killed.get("missing") or killed.get("too_many") or killed.get("older"):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

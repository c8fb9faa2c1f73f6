"""Ingest through the deployed RAG stack: `preheat ingest` of a folder, from files to searchable passages.

    .venv/bin/python bench/ingest.py [--hashing 10000] [--minilm 400] [--kill 2000] [--size 3]

Prints documents and passages a second; the embedder's own rate on the same passages, measured before and after in the
same run; the ratio of both; and processor seconds by who spent them. `--kill` documents are brought in with the command
and the server killed (SIGKILL) in the middle, more than once; then every passage must be there once.
"""

import argparse
import contextlib
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stacks" / "rag"))

from ragkit.chunking import Chunk, chunk
from ragkit.extract import extract
from servers import family, free_port

from preheat.cli import deploying
from preheat.cli.clients import Platform

ROOT = Path(__file__).resolve().parents[1]
PREHEAT = str(Path(sys.executable).parent / "preheat")
TEMPLATE = ROOT / "stacks" / "rag" / "template.yaml"
START_S, LIMIT_S = 30, 280
TICKS = 100
OWN_S = 4.0
BATCH = 16


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

    def spent(self) -> tuple[float, float]:
        """Processor seconds of the server itself, and of the functions under it (those that ended included)."""
        assert self._process is not None
        own, ended = _spent(self._process.pid)
        return own, ended + sum(sum(_spent(pid)) for pid in family(self._process.pid) - {self._process.pid})


def _spent(pid: int) -> tuple[float, float]:
    """(of a process, of its children that ended), in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
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


def own_rate(model: Model, texts: list[str]) -> tuple[float, float]:
    """(texts a second, processor seconds a text) of the embedder alone, in batches as the server makes them."""
    from preheat.models.hashing import HashingEmbedder
    from preheat.models.minilm import MiniLM

    embedder = MiniLM() if model is MINILM else HashingEmbedder()
    embedder.embed(texts[:BATCH])
    count, began, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < OWN_S:
        at = count % max(1, len(texts) - BATCH)
        embedder.embed(texts[at : at + BATCH])
        count += BATCH
    return count / (time.perf_counter() - began), (time.process_time() - used) / count


def stored(server: Served) -> dict[str, int]:
    """How many vectors each document has in the index that answers."""
    client = Platform(server.endpoint).client("s3vectors")
    (index,) = client.list_indexes(vectorBucketName="rag-vectors-000000000000")["indexes"]
    found: dict[str, int] = {}
    pages = client.get_paginator("list_vectors").paginate(
        vectorBucketName="rag-vectors-000000000000", indexName=index["indexName"]
    )
    for page in pages:
        for one in page["vectors"]:
            document = one["key"].rpartition("#")[0]
            found[document] = found.get(document, 0) + 1
    return found


def measure(model: Model, documents: int, sections: int) -> None:
    with deployed(model) as (server, folder):
        write(folder / "docs", documents, sections)
        made = passages(folder / "docs")
        texts = [one.embedded for some in made.values() for one in some]
        before, cpu_before = own_rate(model, texts)
        own, functions = server.spent()
        began = time.perf_counter()
        client = finish(command(server, folder / "docs"))
        took = time.perf_counter() - began
        own, functions = (now - then for now, then in zip(server.spent(), (own, functions)))
        after, cpu_after = own_rate(model, texts)
        if stored(server) != {key: len(some) for key, some in made.items()}:
            raise RuntimeError("the index does not hold what was sent")
    rate, alone, embedding = len(texts) / took, (before + after) / 2, (cpu_before + cpu_after) / 2 * len(texts)
    total = own + functions + client
    print(f"{model.id}: {documents} documents, {len(texts)} passages in {took:.1f} s: {documents / took:.1f} a second,")
    print(f"  {rate:.1f} passages/s; the embedder alone {before:.1f} before, {after:.1f} after: {rate / alone:.0%}")
    print(f"  processor: embedding {embedding:.1f} s of {total:.1f} s ({embedding / total:.0%}); server beside it")
    rest = max(0.0, own - embedding)
    each = 1_000 / documents
    print(
        f"  {rest:.1f} s, functions {functions:.1f} s, command {client:.1f} s; a document beside its embedding: server "
        f"{rest * each:.1f} ms, functions {functions * each:.1f} ms, command {client * each:.1f} ms", flush=True,
    )  # fmt: skip


def survive(documents: int) -> None:
    """The command, the server, both are killed on the way; then it is brought to its end."""
    with deployed(HASHING) as (server, folder):
        write(folder / "docs", documents, 1)
        made = {key: len(some) for key, some in passages(folder / "docs").items()}
        chance = random.Random(3)
        kills = 0
        for victim in ("command", "server", "both"):
            running = command(server, folder / "docs")
            goal = sum(stored(server).values()) + documents // 5
            end = time.monotonic() + LIMIT_S / 4
            while sum(stored(server).values()) < goal and running.poll() is None and time.monotonic() < end:
                time.sleep(chance.uniform(0.0, 0.2))
            kills += running.poll() is None
            if victim != "server":
                running.kill()
            if victim != "command":
                server.kill()
            running.communicate()
            if victim != "command":
                server.start()
        finish(command(server, folder / "docs"))
        held = stored(server)
        missing = sum(max(0, count - held.get(key, 0)) for key, count in made.items())
        extra = sum(held.values()) - sum(made.values()) + missing
    print(f"{documents} documents, killed {kills} times: {missing} passages missing, {extra} too many")
    if missing or extra:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashing", type=int, default=10_000, help="documents with the hashing embedder")
    parser.add_argument("--minilm", type=int, default=400, help="documents with MiniLM")
    parser.add_argument("--kill", type=int, default=2_000, help="documents of the run with kills")
    parser.add_argument("--size", type=int, default=3, help="sections of a document of the MiniLM run")
    arguments = parser.parse_args()
    if arguments.minilm:
        measure(MINILM, arguments.minilm, arguments.size)
    if arguments.hashing:
        measure(HASHING, arguments.hashing, 1)
    if arguments.kill:
        survive(arguments.kill)


if __name__ == "__main__":
    main()

"""Quality of the answers of stacks/rag with the offline model, in this process: each collection goes into S3 Vectors by
ragkit's store, its questions through ragkit's whole answerer, and what comes out is measured beside the retrieval.

    .venv/bin/python bench/answers.py --data DIR [--questions 200] [--rerank] [--json FILE]

nDCG@10 and recall@10 are of documents. F1 is SQuAD's over tokens, the best over the gold answers, 0 where nothing is
answered. Citation precision is the share of citations to relevant documents; "dropped" are the model's citations that
did not support their sentence. Abstention: the share of answerable questions that are answered, of those that are
refused because the collection's other passages come near without answering, and of questions that belong to another
collection (foreign); AUC is that of the evidence's score. CPU is of this process, per answerable question, with
embedding and reranking; first is until the first token. `preheat rag eval` measures a deployed stack the same way.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stacks" / "rag"))

from ragkit.answering import Answerer
from ragkit.asked import Asked
from ragkit.evidence import Judge, Watched
from ragkit.generate import Usage
from ragkit.retrieve import Retriever
from ragkit.rewrite import formulations
from ragkit.trace import Trace
from retrieval import (
    MODEL,
    RERANKER,
    Cached,
    LocalReranker,
    by_document,
    chunks_of,
    conversation,
    lines,
    ndcg,
    store_for,
)

from preheat.cli.evaluating import f1
from preheat.models.contract import Message
from preheat.models.registry import Registry

COLLECTIONS = ("xquad-en", "clapnq-dev", "mtrag-un")
GENERATOR = "preheat.extractive-v1"
FOREIGN = 60
SEED = 5


@dataclass(frozen=True)
class Question:
    """`kind` is "answerable", "near" or "foreign"."""

    id: str
    asked: Asked
    answers: tuple[str, ...]
    relevant: frozenset[str]
    kind: str


@dataclass
class Tally:
    """Sums over questions, by what they are of."""

    ndcg: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    citations: list[float] = field(default_factory=list)
    dropped: int = 0
    answered: dict[str, list[bool]] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)
    first_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)


class LocalGenerator:
    """The platform's offline model, called in this process."""

    model = GENERATOR

    def __init__(self) -> None:
        self._model = Registry().find(GENERATOR).generator

    def stream(self, system: str, messages: Sequence[dict[str, str]], max_tokens: int) -> "LocalGeneration":
        said = [Message(one["role"], one["text"]) for one in messages]
        return LocalGeneration(self._model.generate(said, system, max_tokens))


class LocalGeneration:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.stop_reason = ""

    @property
    def usage(self) -> Usage:
        return Usage(self._inner.usage.input_tokens, self._inner.usage.output_tokens)

    def __iter__(self) -> Iterator[str]:
        yield from self._inner
        self.stop_reason = self._inner.stop_reason

    def close(self) -> None:
        self._inner.close()


def questions_of(data: Path, name: str, most: int) -> list[Question]:
    """Up to `most` answerable ones, half as many that come near, and foreign ones, drawn with a fixed seed."""
    relevant: dict[str, set[str]] = {}
    for row in (data / name / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        query, document, grade = row.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(document)
    draw = random.Random(SEED)
    own = lines(data / name / "queries.jsonl")
    near = [one for one in own if one.get("unanswerable_from_its_passages")]
    answerable = [one for one in own if not one.get("unanswerable_from_its_passages") and one["id"] in relevant]
    others = [one for other in COLLECTIONS if other != name for one in lines(data / other / "queries.jsonl")]
    found = []
    wanted = (("answerable", answerable, most), ("near", near, most // 2), ("foreign", others, FOREIGN))
    for kind, some, count in wanted:
        for one in draw.sample(some, min(count, len(some))):
            documents = frozenset(relevant.get(one["id"], ())) if kind == "answerable" else frozenset()
            question, earlier = conversation(one)
            asked = Asked(question, earlier=earlier)
            found.append(Question(one["id"], asked, tuple(one.get("answers", ())), documents, kind))
    return found


def measure(data: Path, name: str, most: int, embedder: Cached, reranker: LocalReranker | None) -> Tally:
    documents = {one["id"]: one["text"] for one in lines(data / name / "docs.jsonl")}
    chunks = chunks_of(SimpleNamespace(documents=documents))  # type: ignore[arg-type]
    questions = questions_of(data, name, most)
    embedder.prepare(one.embedded for parts in chunks.values() for one in parts)
    embedder.prepare(text.text for one in questions for text in formulations(one.asked.question, one.asked.earlier))
    _, store, owners = store_for(chunks, embedder)
    watched = Watched(store)
    judge = Judge((MODEL, RERANKER) if reranker else (MODEL,), watched)
    answerer = Answerer(Retriever(watched, embedder, reranker=reranker), LocalGenerator(), judge=judge)
    tally = Tally()
    for one in questions:
        add(tally, one, answerer, owners)
    return tally


def add(tally: Tally, question: Question, answerer: Answerer, owners: dict[str, str]) -> None:
    told: list[dict[str, Any]] = []
    trace = Trace(write=lambda line: told.append(json.loads(line)))
    began, first = time.process_time(), 0.0
    retrieval: dict[str, Any] = {}
    done: dict[str, Any] = {}
    for name, data in answerer.answer(question.asked, trace):
        if name == "retrieval":
            retrieval = data
        elif name == "token":
            first = first or time.process_time() - began
        elif name == "done":
            done = data
    tally.answered.setdefault(question.kind, []).append(done["answered"])
    tally.scores.setdefault(question.kind, []).append(retrieval["evidence"]["score"])
    if question.kind != "answerable":
        return
    tally.first_ms.append(first * 1_000)
    tally.total_ms.append((time.process_time() - began) * 1_000)
    run = by_document([(one["id"], one["score"]) for one in retrieval["ranked"]], owners)
    tally.ndcg.append(ndcg(run, set(question.relevant)))
    top = list(run)[:10]
    tally.recall.append(len(question.relevant.intersection(top)) / len(question.relevant))
    if question.answers:
        tally.f1.append(max(f1(done["answer"], gold) for gold in question.answers) if done["answered"] else 0.0)
    tally.citations += [float(owners[one["id"]] in question.relevant) for one in done["citations"]]
    tally.dropped += sum(line.get("dropped", 0) for line in told)


def auc(high: Sequence[float], low: Sequence[float]) -> float:
    """The share of pairs in which the first is higher; equal ones count half."""
    wins = sum((one > other) + 0.5 * (one == other) for one in high for other in low)
    return wins / (len(high) * len(low))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def figures(tally: Tally) -> dict[str, float]:
    found = {
        "questions": float(len(tally.ndcg)), "ndcg": mean(tally.ndcg), "recall": mean(tally.recall),
        "f1": mean(tally.f1), "citation_precision": mean(tally.citations), "dropped": float(tally.dropped),
        "answered": mean(tally.answered["answerable"]),
    }  # fmt: skip
    for kind in ("near", "foreign"):
        if kind in tally.answered:
            found[f"refused_{kind}"] = 1 - mean(tally.answered[kind])
            found[f"auc_{kind}"] = auc(tally.scores["answerable"], tally.scores[kind])
    first = sorted(tally.first_ms)
    return {**found, "first_cpu_ms_p50": first[len(first) // 2], "total_cpu_ms": mean(tally.total_ms)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder a collection")
    parser.add_argument("--questions", type=int, default=200, help="answerable questions of each collection")
    parser.add_argument("--rerank", action="store_true", help="with the platform's reranker")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    embedder, reranker = Cached(), LocalReranker() if arguments.rerank else None
    found = {
        name: figures(measure(arguments.data, name, arguments.questions, embedder, reranker)) for name in COLLECTIONS
    }
    print(f"{'':20}" + "".join(f"{name:>12}" for name in found))
    for row in dict.fromkeys(row for one in found.values() for row in one):
        digits = 0 if row in ("questions", "dropped") else 1 if row.endswith("ms") or "_ms" in row else 4
        cells = [f"{one[row]:.{digits}f}" if row in one else "-" for one in found.values()]
        print(f"{row:20}" + "".join(f"{cell:>12}" for cell in cells))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

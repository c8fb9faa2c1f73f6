"""A question set through a deployed stack, measured: what was retrieved, what was answered, how fast, at what price.

A question set is JSON lines {id, text, answers?, relevant?, turns?, answerable?}: `answers` are gold answers,
`relevant` the keys of the documents that hold the answer, `turns` the conversation before (texts, or
{speaker: "user", text}; questions alone, the stack gives its own answers), `answerable` whether the documents answer it
(without it: yes where there are answers or relevant documents).

nDCG@10 and recall are over documents, each at the rank of its best passage. Answer F1 is SQuAD's over tokens, the best
over the gold answers, 0 for no answer. Citation precision is the share of an answer's citations that point to relevant
documents.
"""

import http.client
import json
import math
import random
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from preheat.cli.clients import fail

DEPTH = 10
ATTEMPTS = 6
LONGEST_PAUSE_S = 20.0
TIMEOUT_S = 120
SAMPLES, SEED, CONFIDENCE = 2_000, 1, 0.95
METRICS = {
    "ndcg": "nDCG@10", "recall": "recall@{k}", "f1": "answer F1", "citations": "citation precision",
    "abstention": "abstention accuracy",
}  # fmt: skip
COSTS = {
    "first_ms": "first token, ms", "total_ms": "whole answer, ms", "input": "tokens in", "output": "tokens out",
    "cost_usd": "USD an answer",
}  # fmt: skip

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARK = re.compile(r"\s*\[\d+(?:\s*[,;]\s*\d+)*\]")


@dataclass(frozen=True)
class Question:
    id: str
    text: str
    answers: tuple[str, ...] = ()
    relevant: frozenset[str] = frozenset()
    turns: tuple[str, ...] = ()
    answerable: bool | None = None


@dataclass
class Outcome:
    """What came of one question; None where the set does not say what would be right. `error` is empty or why there is
    no answer."""

    id: str
    answer: str = ""
    answered: bool = False
    mode: str = ""
    error: str = ""
    ndcg: float | None = None
    recall: float | None = None
    f1: float | None = None
    citations: float | None = None
    abstention: float | None = None
    first_ms: float | None = None
    total_ms: float | None = None
    input: float | None = None
    output: float | None = None
    cost_usd: float | None = None
    documents: list[str] = field(default_factory=list)
    cited: list[str] = field(default_factory=list)


class Unanswered(Exception):
    """The stack gave no answer; the message says why."""


def read_questions(path: Path) -> list[Question]:
    """Ends the command at the first line that is not a question."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path}: {error}", 2)
    questions: list[Question] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                questions.append(_question(json.loads(line)))
            except ValueError as error:
                fail(f"{path}:{number}: {error}", 2)
    if not questions:
        fail(f"{path} has no questions; a line is {{id, text, answers?, relevant?, turns?, answerable?}}", 2)
    twice = [id for id, count in Counter(one.id for one in questions).items() if count > 1]
    if twice:
        fail(f"{path}: the id {twice[0]!r} is there more than once", 2)
    return questions


def _question(given: Any) -> Question:
    """Raises ValueError."""
    if not isinstance(given, dict) or not all(isinstance(given.get(name), str) for name in ("id", "text")):
        raise ValueError("a question is an object with `id` and `text`, both texts")
    if not given["text"].strip():
        raise ValueError("the question's text is empty")
    lists = {name: given.get(name) or [] for name in ("answers", "relevant", "turns")}
    if not all(isinstance(one, list) for one in lists.values()):
        raise ValueError("`answers`, `relevant` and `turns` are lists")
    if not all(isinstance(one, str) for name in ("answers", "relevant") for one in lists[name]):
        raise ValueError("`answers` and `relevant` are lists of texts")
    said = [one if isinstance(one, str) else _said(one) for one in lists["turns"]]
    turns = [one for one in said if one.strip()]
    if turns and turns[-1].strip() == given["text"].strip():
        turns.pop()
    answerable = given.get("answerable")
    if given.get("unanswerable_from_its_passages"):
        answerable = False
    if answerable is None and (lists["answers"] or lists["relevant"]):
        answerable = True
    if not isinstance(answerable, bool | None):
        raise ValueError("`answerable` is true or false")
    return Question(
        given["id"], given["text"], tuple(lists["answers"]), frozenset(lists["relevant"]), tuple(turns), answerable
    )


def _said(turn: Any) -> str:
    if not isinstance(turn, dict) or not isinstance(turn.get("text"), str):
        raise ValueError("a turn is a text or {speaker, text}")
    return turn["text"] if turn.get("speaker", "user") == "user" else ""


# -- asking -----------------------------------------------------------------------------------------------------------


def run(
    url: str, questions: Sequence[Question], k: int, parallel: int, key: str | None, on_done: Callable[[Outcome], None]
) -> list[Outcome]:
    """One outcome a question, in their order. `url` is the stack's, `key` an access key."""
    found: dict[str, Outcome] = {}
    with ThreadPoolExecutor(parallel) as pool:
        waiting = [pool.submit(_outcome, url, one, number, k, key) for number, one in enumerate(questions)]
        try:
            for one in as_completed(waiting):
                found[one.result().id] = one.result()
                on_done(one.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[one.id] for one in questions]


def _outcome(url: str, question: Question, number: int, k: int, key: str | None) -> Outcome:
    headers = {"content-type": "application/json", "x-visitor": f"evaluation-{number:06d}"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    outcome = Outcome(question.id)
    try:
        session = ""
        for turn in question.turns:
            session = next(data["session"] for name, data in _events(url, headers, turn, session) if name == "done")
        _read(outcome, _events(url, headers, question.text, session))
    except (Unanswered, OSError, http.client.HTTPException, ValueError, KeyError, StopIteration) as error:
        outcome.error = str(error) or type(error).__name__
        return outcome
    _judge(outcome, question, k)
    return outcome


def _read(outcome: Outcome, events: Iterator[tuple[str, dict[str, Any]]]) -> None:
    """The last events of an answer, timed from here."""
    started = time.perf_counter()
    for name, data in events:
        if name == "retrieval":
            ranked = data.get("ranked") or data["passages"]
            outcome.documents = list(dict.fromkeys(one["document"] for one in ranked))
        elif name == "token" and outcome.first_ms is None:
            outcome.first_ms = (time.perf_counter() - started) * 1_000
        elif name == "done":
            outcome.total_ms = (time.perf_counter() - started) * 1_000
            outcome.answer, outcome.mode = data["answer"], data["mode"]
            outcome.answered = data.get("answered", bool(data["citations"]))
            outcome.input, outcome.output = (float(data["usage"].get(side, 0)) for side in ("input", "output"))
            outcome.cost_usd = data.get("cost_usd")
            outcome.cited = sorted({one["document"] for one in data["citations"]})
            return
    raise Unanswered("the answer broke off")


def _judge(outcome: Outcome, question: Question, k: int) -> None:
    cited = question.relevant.intersection(outcome.cited)
    if question.relevant:
        outcome.ndcg = ndcg(outcome.documents, question.relevant)
        outcome.recall = len(question.relevant.intersection(outcome.documents[:k])) / len(question.relevant)
        outcome.citations = len(cited) / len(outcome.cited) if outcome.cited else None
    if question.answerable is not None:
        outcome.abstention = float(outcome.answered == question.answerable)
    if question.answers and question.answerable:
        outcome.f1 = max(f1(outcome.answer, gold) for gold in question.answers) if outcome.answered else 0.0


def _events(url: str, headers: dict[str, str], question: str, session: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of one answer. A refusal for now (429, 503) is asked again after the pause that it names. Raises
    Unanswered."""
    parts = urlsplit(url)
    body = json.dumps({"question": question, **({"session": session} if session else {})}).encode()
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    for attempt in range(1, ATTEMPTS + 1):
        connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", parts.path, body, headers)
            answer = connection.getresponse()
            if answer.status in (429, 503) and attempt < ATTEMPTS:
                pause = answer.getheader("retry-after") or ""
                time.sleep(min(LONGEST_PAUSE_S, float(pause) if pause.isdigit() else 0.2 * 2**attempt))
                continue
            if answer.status != 200:
                told = answer.read()[:300].decode(errors="replace")
                raise Unanswered(f"the service answered {answer.status}: {told}")
            yield from _parsed(answer)
            return
        finally:
            connection.close()


def _parsed(answer: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for raw in answer:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = json.loads(line[6:])
            if name == "error":
                raise Unanswered(data["message"])
            yield name, data


# -- measuring --------------------------------------------------------------------------------------------------------


def ndcg(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    gain = sum(1 / math.log2(rank + 1) for rank, one in enumerate(ranked[:DEPTH], 1) if one in relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(DEPTH, len(relevant)) + 1))


def f1(answer: str, gold: str) -> float:
    said, wanted = tokens(_MARK.sub("", answer)), tokens(gold)
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted))


def tokens(text: str) -> list[str]:
    """As SQuAD's evaluation has them: lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def mean(outcomes: Sequence[Outcome], name: str) -> float | None:
    values = [value for one in outcomes if (value := getattr(one, name)) is not None]
    return sum(values) / len(values) if values else None


def percentile(outcomes: Sequence[Outcome], name: str, share: float) -> float | None:
    """By the nearest rank."""
    values = sorted(value for one in outcomes if (value := getattr(one, name)) is not None)
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


def difference(one: Sequence[Outcome], other: Sequence[Outcome], name: str) -> tuple[float, float, float] | None:
    """The mean of other - one over the questions that both have a value for, and its bootstrap interval."""
    pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(one, other, strict=True)]
    gaps = [b - a for a, b in pairs if a is not None and b is not None]
    if not gaps:
        return None
    draw = random.Random(SEED)
    means = sorted(sum(draw.choices(gaps, k=len(gaps))) / len(gaps) for _ in range(SAMPLES))
    cut = (1 - CONFIDENCE) / 2
    return sum(gaps) / len(gaps), means[int(cut * SAMPLES)], means[int((1 - cut) * SAMPLES) - 1]


def summary(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Means of everything, and p50, p90, p99 of the times."""
    found = {name: mean(outcomes, name) for name in (*METRICS, *COSTS)}
    for name in ("first_ms", "total_ms"):
        for share in (50, 90, 99):
            found[f"{name}_p{share}"] = percentile(outcomes, name, share / 100)
    found["failed"] = float(sum(1 for one in outcomes if one.error))
    found["answered"] = sum(1.0 for one in outcomes if one.answered) / len(outcomes)
    return found


def document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {"summary": summary(outcomes), "outcomes": [asdict(one) for one in outcomes]}

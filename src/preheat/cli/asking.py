"""A question to a deployed stack, as a stream or through its queue, printed as the answer comes."""

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from preheat.cli.clients import Platform, fail

POLL_S = 0.05
PATIENCE_S = 900
FINAL = ("done", "failed")


def streamed(console: Console, platform: Platform, outputs: dict[str, str], question: str, *, timing: bool) -> None:
    """Print the answer token by token, then its sources. Ends the command when the answer fails."""
    started = time.perf_counter()
    first: float | None = None
    said = ""
    passages: dict[int, dict[str, Any]] = {}
    url = platform.at_path(_output(outputs, "AskUrl")).rstrip("/") + "/ask"
    for name, data in platform.events(url, {"question": question}):
        if name == "retrieval":
            passages = {one["n"]: one for one in data["passages"]}
            _say_mode(console, data["mode"], data["note"])
        elif name == "token":
            first = time.perf_counter() - started if first is None else first
            said += data["text"]
            console.print(data["text"], end="", markup=False, highlight=False, soft_wrap=True)
        elif name in ("notice", "guardrail"):
            console.print(f"\n{data['message']}", end="", style="yellow", markup=False, highlight=False, soft_wrap=True)
        elif name == "error":
            console.print()
            fail(f"{data['message']}; `preheat logs` shows why")
        elif name == "done":
            console.print()
            if said and said.strip() != data["answer"].strip():
                told = f"After the citations were checked: {data['answer']}"
                console.print(told, markup=False, highlight=False, soft_wrap=True)
            _sources(console, [passages[citation["n"]] for citation in data["citations"]])
            if timing:
                _say_time(console, data["timing"], first or 0.0, time.perf_counter() - started)
            return
    fail("the answer broke off; `preheat logs` shows why")


def queued(console: Console, platform: Platform, outputs: dict[str, str], question: str, *, timing: bool) -> None:
    """Hand the question in, follow its job, print the answer. Ends the command when the job fails."""
    started = time.perf_counter()
    base = platform.at_path(_output(outputs, "QuestionsUrl")).rstrip("/") + "/questions"
    status, document = _http(base, {"question": question})
    if status != 202:
        fail(f"the service answered {status}: {document.get('message', document)}")
    job = document["id"]
    told = ""
    while document.get("status") not in FINAL:
        if document.get("status") != told:
            told = document["status"]
            reason = f": {document['reason']}" if told == "retrying" else ""
            console.print(f"job {job} is {told}{reason}", style="dim", highlight=False, soft_wrap=True)
        if time.perf_counter() - started > PATIENCE_S:
            fail(f"the job {job} is still {told}; look later at {base}/{job}")
        time.sleep(POLL_S)
        status, document = _http(f"{base}/{job}")
        if status != 200:
            fail(f"the service answered {status}: {document.get('message', document)}")
    if document["status"] == "failed":
        fail(f"the job {job} failed after {document['attempts']} attempts: {document['reason']}")
    _say_mode(console, document["mode"], document["note"])
    console.print(document["answer"], markup=False, highlight=False, soft_wrap=True)
    _sources(console, document["citations"])
    if timing:
        all_ms, worked = 1_000 * (time.perf_counter() - started), document["timing"]
        told = f"all after {all_ms:.0f} ms ({_inside(worked)}; the worker {worked.get('total_ms', 0.0):.0f})"
        console.print(told, style="dim", highlight=False, soft_wrap=True)


def _say_time(console: Console, spent: dict[str, float], first: float, all_: float) -> None:
    """`spent` is in milliseconds as the function measured, `first` and `all_` in seconds as seen from here. The
    platform's share is what neither retrieval nor the model's own first token explains."""
    first_ms = 1_000 * first
    retrieval, model = spent.get("retrieval_ms", 0.0), spent.get("model_first_ms", 0.0)
    parts = f"{_inside(spent)}; platform {max(0.0, first_ms - retrieval - model):.0f}"
    told = f"first token after {first_ms:.0f} ms ({parts}), all after {1_000 * all_:.0f} ms"
    console.print(told, style="dim", highlight=False, soft_wrap=True)


def _inside(spent: dict[str, float]) -> str:
    """What retrieval took, with its steps, and the model until its first token."""
    steps = [f"{name} {spent[f'{name}_ms']:.0f}" for name in ("embed", "search", "rerank") if f"{name}_ms" in spent]
    retrieval = f"retrieval {spent.get('retrieval_ms', 0.0):.0f}" + (f" of which {', '.join(steps)}" if steps else "")
    return f"{retrieval}; model {spent.get('model_first_ms', 0.0):.0f}"


def _output(outputs: dict[str, str], name: str) -> str:
    if name not in outputs:
        fail(f"the stack has no output {name}; `preheat ask` speaks to stacks like stacks/rag")
    return outputs[name]


def _say_mode(console: Console, mode: str, note: str) -> None:
    if mode != "hybrid":
        console.print(f"retrieval is {mode}: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _sources(console: Console, passages: list[dict[str, Any]]) -> None:
    for passage in passages:
        line = f"  [{passage['n']}] {passage['headings'] or passage['title']} ({passage['source']})"
        console.print(line, markup=False, highlight=False, style="dim", soft_wrap=True)


def _http(url: str, document: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=60)
    try:
        body = None if document is None else json.dumps(document).encode()
        connection.request("GET" if body is None else "POST", parts.path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, ValueError) as error:
        fail(f"no answer from {url}: {error}")
    finally:
        connection.close()

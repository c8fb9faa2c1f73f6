"""`preheat up`, `preheat deploy`, `preheat ingest`, `preheat ask`: from nothing to a cited answer."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from preheat.cli import deploying, ingesting
from preheat.cli.clients import Platform, endpoint_of, fail

STACK = "rag"
FIRST_QUESTION = "What survives kill -9?"
START_S = 30
STOP_S = 20
SPENT = ("[dim]{task.fields[detail]}", "[bold]{task.description}")

Port = Annotated[int | None, typer.Option(help="Port of the platform; else AWS_ENDPOINT_URL, else 4566.")]
StackName = Annotated[str, typer.Option(help="Name of the stack.")]


def project_root() -> Path:
    """The directory that holds stacks/ and docs/: the checkout this command was installed from."""
    return Path(__file__).resolve().parents[3]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"), console=console,
    )  # fmt: skip


def up(
    template: Annotated[Path | None, typer.Argument(help="Template or its directory; default: the RAG stack.")] = None,
    docs: Annotated[Path | None, typer.Option(help="Folder of .md, .txt, .html, .pdf; default: the docs.")] = None,
    question: Annotated[str, typer.Option(help="The question to ask when all is ready.")] = FIRST_QUESTION,
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 4566,
    state: Annotated[Path, typer.Option(help="Directory that keeps everything.")] = Path(".preheat"),
    stack: StackName = STACK,
    models: Annotated[Path | None, typer.Option(help="JSON file: model id -> backend.")] = None,
    once: Annotated[bool, typer.Option(help="Stop after the answer instead of serving on.")] = False,
) -> None:
    """Serve, deploy the stack, ingest documents, answer a question, then keep serving until Ctrl-C."""
    console = Console()
    command = [str(Path(sys.executable).parent / "preheat"), "serve", "--port", str(port), "--state", str(state)]
    if models is not None:
        command += ["--models", str(models)]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        _await_health(server, port)
        _pass_on(server)
        platform = Platform(f"http://127.0.0.1:{port}")
        _deploy(console, platform, deploying.find_template(template or project_root() / "stacks" / "rag"), stack, {})
        outputs = platform.outputs(stack)
        if "DocumentsBucketName" in outputs:
            _ingest(console, platform, outputs, docs or project_root() / "docs")
            console.print(f"\n[bold]{question}[/bold]")
            _ask(console, platform, outputs, question, timing=True)
            console.print(f"\nChat page: [link]{platform.at_path(outputs['AskUrl'])}[/link]")
        console.print(f"Endpoint:  AWS_ENDPOINT_URL={platform.endpoint}")
        if not once:
            console.print("Serving until Ctrl-C.")
            server.wait()
            fail(f"the server ended with exit code {server.returncode}", 1)
    except KeyboardInterrupt:
        console.print("\nStopping.")
    finally:
        _stop(server)


def _await_health(server: subprocess.Popen, port: int) -> None:
    import http.client

    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if server.poll() is not None:
            assert server.stderr is not None
            said = server.stderr.read().decode(errors="replace").strip()
            typer.echo(said or f"preheat: the server ended with exit code {server.returncode}", err=True)
            raise typer.Exit(server.returncode or 1)
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/_preheat/health")
            healthy = connection.getresponse().status == 200
            connection.close()
            if healthy:
                return
        time.sleep(0.02)
    fail(f"the server did not become ready on port {port} within {START_S} s")


def _pass_on(server: subprocess.Popen) -> None:
    """What the server says goes on to this terminal."""
    import threading

    def copy() -> None:
        assert server.stderr is not None
        for line in server.stderr:
            sys.stderr.write(line.decode(errors="replace"))

    threading.Thread(target=copy, daemon=True).start()


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
    parameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, may be repeated.")] = None,
    strict: Annotated[bool, typer.Option(help="Refuse a template with properties that would not act.")] = False,
    port: Port = None,
) -> None:
    """Deploy a template to a running platform."""
    parameters = {}
    for text in parameter or []:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"--parameter takes NAME=VALUE, not {text!r}", 2)
        parameters[name] = value
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    console = Console()
    _deploy(console, platform, deploying.find_template(template), stack, parameters, strict=strict)
    for name, value in platform.outputs(stack).items():
        console.print(f"{name} = {value}", soft_wrap=True)


def _deploy(
    console: Console,
    platform: Platform,
    template: Path,
    stack: str,
    parameters: dict[str, str],
    *,
    strict: bool = False,
) -> None:
    with _progress(console) as progress:
        bar = progress.add_task(f"Deploying {stack}", total=None, detail="")
        begun: set[str] = set()
        done: set[str] = set()

        def on_event(event: dict[str, Any]) -> None:
            name, status = event["LogicalResourceId"], event["ResourceStatus"]
            begun.add(name)
            if status.endswith("_COMPLETE"):
                done.add(name)
            detail = f"{name} {status.lower().replace('_', ' ')}"
            progress.update(bar, total=len(begun), completed=len(done), detail=detail)

        changed = deploying.deploy(platform, template, stack, parameters, on_event, strict=strict)
        total = max(1, len(begun))
        progress.update(bar, total=total, completed=total, detail="done" if changed else "nothing changed")
    if changed:
        _fidelity(console, platform, stack)


def _fidelity(console: Console, platform: Platform, stack: str) -> None:
    """Say what of the deployed template does not act as on AWS."""
    for row in platform.fidelity(stack):
        if row["effect"] != "acts":
            what = f"{row['logical_id']} ({row['type']}) {row['property']}".strip()
            console.print(f"[dim]{what}: {row['effect']}: {row['why']}[/dim]", highlight=False, soft_wrap=True)


# -- ingest -----------------------------------------------------------------------------------------------------------


def ingest(
    docs: Annotated[Path, typer.Argument(help="Folder of .md, .txt, .html, .pdf files.")],
    stack: StackName = STACK,
    port: Port = None,
) -> None:
    """Bring a folder's documents into the deployed stack; files that are gone leave the index."""
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    _ingest(Console(), platform, platform.outputs(stack), docs)


def _ingest(console: Console, platform: Platform, outputs: dict[str, str], docs: Path) -> None:
    files = ingesting.documents_in(docs)
    bucket, table = outputs["DocumentsBucketName"], outputs["DocumentsTableName"]
    changes = ingesting.compare(platform, bucket, files)
    total = len(changes.upload) + len(changes.remove)
    if not total:
        console.print(f"All {changes.same} documents of {docs} are in the index.")
        return
    with _progress(console) as progress:
        sent = progress.add_task("Uploading", total=total, detail="")
        indexed = progress.add_task("Indexing ", total=total, detail="")
        expected = ingesting.upload(platform, bucket, changes, lambda key: progress.update(sent, advance=1, detail=key))
        result = ingesting.wait_indexed(
            platform, table, expected, lambda key: progress.update(indexed, advance=1, detail=key)
        )
    for key, reason in result.failed.items():
        console.print(f"[red]{key}: {reason}[/red]", highlight=False)
    for reason in sorted(set(result.lexical.values())):
        console.print(f"[yellow]{reason}[/yellow]", highlight=False)


# -- ask --------------------------------------------------------------------------------------------------------------


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    stack: StackName = STACK,
    timing: Annotated[bool, typer.Option(help="Print where the time went.")] = False,
    port: Port = None,
) -> None:
    """Ask the deployed stack; the cited answer is printed as it is made."""
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    _ask(Console(), platform, platform.outputs(stack), question, timing=timing)


def _ask(console: Console, platform: Platform, outputs: dict[str, str], question: str, *, timing: bool) -> None:
    started = time.perf_counter()
    first: float | None = None
    passages: dict[int, dict[str, Any]] = {}
    url = platform.at_path(outputs["AskUrl"]).rstrip("/") + "/ask"
    for name, data in platform.events(url, {"question": question}):
        if name == "retrieval":
            passages = {one["n"]: one for one in data["passages"]}
            if data["mode"] != "hybrid":
                console.print(f"[yellow]retrieval is {data['mode']}: {data['note']}[/yellow]", highlight=False)
        elif name == "token":
            first = time.perf_counter() - started if first is None else first
            console.print(data["text"], end="", markup=False, highlight=False, soft_wrap=True)
        elif name == "error":
            fail(data["message"])
        elif name == "done":
            console.print()
            for citation in data["citations"]:
                passage = passages[citation["n"]]
                line = f"[{citation['n']}] {passage['headings'] or passage['title']} ({passage['source']})"
                console.print(line, markup=False, highlight=False, style="dim", soft_wrap=True)
            if timing:
                spent = data["timing"]
                console.print(
                    f"first token after {1_000 * (first or 0):.0f} ms (in the function: retrieval "
                    f"{spent['retrieval_ms']} ms, first token {spent['first_token_ms']} ms), all after "
                    f"{1_000 * (time.perf_counter() - started):.0f} ms",
                    style="dim", highlight=False, soft_wrap=True,
                )  # fmt: skip
            return
    fail("the answer broke off")

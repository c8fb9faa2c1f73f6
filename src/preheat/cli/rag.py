"""`preheat rag`: what belongs to the RAG stack alone. `eval` measures it with a question set, `key` gives access."""

import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from preheat.cli import evaluating
from preheat.cli.clients import Platform, endpoint_of, fail
from preheat.cli.up import STACK, Port, StackName

PREFIX = "rag-"
"""Of access keys, as the stack makes and knows them (ragkit/identity.py)."""
POLL_S = 0.2
PATIENCE_S = 900
SETTLED_S = 6.0
"""After a change of the index: until every environment has looked which one is live."""
SHOWN_ERRORS = 3

rag = typer.Typer(help="Measure the RAG stack; give access to it.", no_args_is_help=True)


@rag.command("eval")
def evaluate(
    questions: Annotated[Path, typer.Argument(help="JSON lines {id, text, answers?, relevant?, turns?, answerable?}.")],
    stack: StackName = STACK,
    against: Annotated[str | None, typer.Option(help="Another stack to compare with.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="Compare with the same stack under this template parameter NAME=VALUE; may be repeated."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Documents that recall counts.")] = 10,
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many questions; 0 is all.")] = 0,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Questions asked at once.")] = 4,
    key: Annotated[str | None, typer.Option(help="Access key to ask with.", envvar="RAG_KEY")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write all figures and answers here as well.")] = None,
    port: Port = None,
) -> None:
    """Ask a question set of a deployed stack; print retrieval, answers, citations, abstention, latency, cost."""
    if against and parameter:
        fail("--against and --parameter are two comparisons; give one", 2)
    changes = _changes(parameter)
    asked = evaluating.read_questions(questions)
    asked = asked[:limit] if limit else asked
    platform, console = Platform(endpoint_of(port)), Console()
    found = {stack: _run(console, platform, stack, stack, asked, k, parallel, key)}
    if against:
        found[against] = _run(console, platform, against, against, asked, k, parallel, key)
    elif changes:
        label = ", ".join(f"{name}={value}" for name, value in changes.items())
        with _changed(console, platform, stack, changes):
            found[label] = _run(console, platform, stack, label, asked, k, parallel, key)
    _show(console, found, k)
    if output is not None:
        _write(output, found)
    failed = [one for outcomes in found.values() for one in outcomes if one.error]
    for one in failed[:SHOWN_ERRORS]:
        typer.echo(f"preheat: question {one.id}: {one.error}", err=True)
    if failed:
        fail(f"{len(failed)} questions have no answer; `preheat logs` shows why")


@rag.command("key")
def make_key(
    owner: Annotated[str, typer.Argument(help="Whose key it is: the user id of sessions, limits and budgets.")],
    labels: Annotated[str, typer.Option(help="Labels of documents that it may see besides public ones: a,b")] = "",
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="0 is no limit; default: the stack's.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=0, help="0 is no limit; default: the stack's.")] = None,
    stack: StackName = STACK,
    port: Port = None,
) -> None:
    """Make an access key of the stack and print it. It is shown this once: the stack keeps a digest of it."""
    if not owner.strip():
        fail("the owner's name is empty", 2)
    platform = Platform(endpoint_of(port))
    made = PREFIX + secrets.token_urlsafe(24)
    item: dict[str, Any] = {"id": {"S": hashlib.sha256(made.encode()).hexdigest()}, "owner": {"S": owner.strip()}}
    named = sorted({label.strip() for label in labels.split(",") if label.strip()})
    if named:
        item["labels"] = {"L": [{"S": label} for label in named]}
    for name, value in (("requests_a_minute", requests_per_minute), ("tokens_a_day", tokens_per_day)):
        if value is not None:
            item[name] = {"N": str(value)}
    platform.client("dynamodb").put_item(TableName=_output(platform, stack, "AccessTableName"), Item=item)
    typer.echo(made)


def _output(platform: Platform, stack: str, name: str) -> str:
    outputs = platform.outputs(stack)
    if name not in outputs:
        fail(f"the stack {stack} has no output {name}; `preheat rag` speaks to stacks like stacks/rag")
    return outputs[name]


def _changes(given: Sequence[str] | None) -> dict[str, str]:
    changes = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"--parameter takes NAME=VALUE, not {text!r}", 2)
        changes[name] = value
    return changes


def _run(
    console: Console, platform: Platform, stack: str, label: str, asked: Sequence[evaluating.Question], k: int,
    parallel: int, key: str | None,
) -> list[evaluating.Outcome]:  # fmt: skip
    url = platform.at_path(_output(platform, stack, "AskUrl")).rstrip("/") + "/ask"
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=len(asked))
        return evaluating.run(url, asked, k, parallel, key, lambda outcome: bar.advance(task))


@contextmanager
def _changed(console: Console, platform: Platform, stack: str, changes: dict[str, str]) -> Iterator[None]:
    """The stack with other parameters, and as it was afterwards."""
    client = platform.client("cloudformation")
    known = client.describe_stacks(StackName=stack)["Stacks"][0].get("Parameters", [])
    before = {one["ParameterKey"]: one["ParameterValue"] for one in known}
    unknown = sorted(changes.keys() - before.keys())
    if unknown:
        fail(f"the stack {stack} has no parameter {unknown[0]}; it has {', '.join(sorted(before))}", 2)
    if all(before[name] == value for name, value in changes.items()):
        fail("the stack has these parameters already; there is nothing to compare", 2)
    console.print(f"{stack} is updated for the comparison", style="dim")
    try:
        _update(platform, stack, {**before, **changes})
        yield
    finally:
        _update(platform, stack, before)
        console.print(f"{stack} is as it was", style="dim")


def _update(platform: Platform, stack: str, parameters: dict[str, str]) -> None:
    """Update the stack and wait for it and for its index."""
    from botocore.exceptions import ClientError

    client = platform.client("cloudformation")
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
    capabilities = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
    try:
        client.update_stack(StackName=stack, UsePreviousTemplate=True, Parameters=given, Capabilities=capabilities)
    except ClientError as error:
        if "No updates" in error.response["Error"]["Message"]:
            return
        fail(f"{stack}: {error.response['Error']['Message']}")
    end = time.monotonic() + PATIENCE_S
    while (status := client.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]).endswith("_IN_PROGRESS"):
        _wait(end, f"the stack {stack} is still {status}")
    if status != "UPDATE_COMPLETE":
        fail(f"the stack {stack} ended in {status}")
    table, rebuilt = _output(platform, stack, "SettingsTableName"), False
    while _building(platform, table):
        rebuilt = True
        _wait(end, f"the index of {stack} is still being built")
    if rebuilt:
        time.sleep(SETTLED_S)


def _building(platform: Platform, table: str) -> bool:
    item = platform.client("dynamodb").get_item(TableName=table, Key={"id": {"S": "index"}}, ConsistentRead=True)
    return "M" in item.get("Item", {}).get("building", {})


def _wait(end: float, what: str) -> None:
    if time.monotonic() > end:
        fail(what)
    time.sleep(POLL_S)


# -- showing ----------------------------------------------------------------------------------------------------------


def _show(console: Console, found: dict[str, list[evaluating.Outcome]], k: int) -> None:
    runs = list(found.values())
    table = Table(title=f"{len(runs[0])} questions", title_justify="left")
    table.add_column("")
    for label in found:
        table.add_column(label, justify="right")
    if len(runs) == 2:
        table.add_column("difference [95% interval]", justify="right")
    for name, title in evaluating.METRICS.items():
        _row(table, title.format(k=k), [evaluating.mean(one, name) for one in runs], runs, name, 4)
    sums = [evaluating.summary(one) for one in runs]
    _row(table, "answered", [one["answered"] for one in sums], runs, "", 3)
    for name, title in evaluating.COSTS.items():
        digits = 6 if name == "cost_usd" else 1
        if name.endswith("_ms"):
            for share in (50, 90, 99):
                values = [one[f"{name}_p{share}"] for one in sums]
                _row(table, f"{title}, p{share}", values, runs, "", digits)
            title = f"{title}, mean"
        _row(table, title, [evaluating.mean(one, name) for one in runs], runs, name, digits)
    _row(table, "failed", [one["failed"] for one in sums], runs, "", 0)
    console.print(table)


def _row(
    table: Table, title: str, values: list[float | None], runs: list[list[evaluating.Outcome]], name: str, digits: int
) -> None:
    if all(value is None for value in values):
        return
    cells = ["-" if value is None else f"{value:.{digits}f}" for value in values]
    if len(runs) == 2:
        gap = evaluating.difference(*runs, name) if name else None
        cells.append("" if gap is None else f"{gap[0]:+.{digits}f} [{gap[1]:+.{digits}f}, {gap[2]:+.{digits}f}]")
    table.add_row(title, *cells)


def _write(path: Path, found: dict[str, list[evaluating.Outcome]]) -> None:
    runs = list(found.values())
    written: dict[str, Any] = {"runs": {label: evaluating.document(one) for label, one in found.items()}}
    if len(runs) == 2:
        names = (*evaluating.METRICS, *evaluating.COSTS)
        gaps = {name: evaluating.difference(*runs, name) for name in names}
        written["differences"] = {
            name: dict(zip(("mean", "low", "high"), gap)) for name, gap in gaps.items() if gap is not None
        }
    try:
        path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"{path}: {error.strerror}")

"""`preheat faults`: calls of a service that fail on purpose, to see how a stack takes it."""

import json
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from preheat.cli.clients import Platform, endpoint_of, fail
from preheat.cli.up import Port

PATH = "/_preheat/faults"


def faults(
    action: Annotated[str, typer.Argument(help="list, add, or clear")] = "list",
    service: Annotated[str, typer.Argument(help="add: as dynamodb; clear: a fault's id, or nothing for all")] = "",
    error: Annotated[str, typer.Argument(help="throttle, unavailable, deny, delay, or drop")] = "",
    operation: Annotated[str, typer.Option(help="Only this operation, as InvokeModel.")] = "",
    caller: Annotated[str, typer.Option(help="Only callers with this in their ARN, as a function's name.")] = "",
    rate: Annotated[float, typer.Option(help="The share of the calls that fail.")] = 1.0,
    ms: Annotated[int, typer.Option(help="How long a delay takes.")] = 0,
    count: Annotated[int, typer.Option(help="End after so many calls.")] = 0,
    seconds: Annotated[float, typer.Option("--for", help="End after so many seconds.")] = 0.0,
    port: Port = None,
) -> None:
    """Let calls of a service fail on purpose; show or end that."""
    platform = Platform(endpoint_of(port))
    if action == "add":
        wanted = {"service": service, "error": error, "operation": operation, "caller": caller, "rate": rate, "ms": ms}
        limits = {name: value for name, value in (("count", count), ("seconds", seconds)) if value}
        _say(_call(platform, "POST", PATH, {**wanted, **limits})["fault"])
    elif action == "clear":
        query = f"?{urlencode({'id': service})}" if service else ""
        typer.echo(f"{_call(platform, 'DELETE', PATH + query)['removed']} faults removed")
    elif action == "list":
        found = _call(platform, "GET", PATH)["faults"]
        for fault in found:
            _say(fault)
        if not found:
            typer.echo("no faults")
    else:
        fail(f"faults takes list, add or clear, not {action!r}", 2)


def _call(platform: Platform, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    status, answer = platform.request(method, path, None if body is None else json.dumps(body).encode())
    document = json.loads(answer)
    if status != 200:
        fail(document["message"], 2)
    return document


def _say(fault: dict[str, Any]) -> None:
    what = f"{fault['service']}:{fault['operation'] or '*'} {fault['error']}"
    more = [f"{fault['ms']} ms"] if fault["ms"] else []
    more += [f"{fault['rate']:.0%} of calls"] if fault["rate"] < 1 else []
    more += [f"{fault['count']} calls left"] if fault["count"] is not None else []
    more += [f"of {fault['caller']}"] if fault["caller"] else []
    typer.echo(f"{fault['id']}  {', '.join([what, *more])}  struck {fault['hits']}")

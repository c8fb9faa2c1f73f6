"""`preheat findings`: what the platform noticed about a deployment that should be changed."""

import json
import time
from typing import Annotated, Any

import typer

from preheat.cli.clients import Platform, endpoint_of
from preheat.cli.up import Port


def findings(
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
    port: Port = None,
) -> None:
    """Settings that will hurt, and what they have done already, the gravest first. Exit code 1 when one is grave."""
    platform = Platform(endpoint_of(port))
    found = json.loads(platform.request("GET", "/_preheat/findings")[1])["findings"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif not found:
        typer.echo("no findings")
    else:
        for finding in found:
            for line in _lines(finding):
                typer.echo(line)
    if any(finding["severity"] == "high" for finding in found):
        raise typer.Exit(1)


def _lines(finding: dict[str, Any]) -> list[str]:
    """One finding as it is printed."""
    values = {**finding["settings"], **finding["tally"]}
    said = ", ".join(f"{name} = {'not set' if value is None else value}" for name, value in values.items())
    seen = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(finding["last_seen"]))
    return [
        f"{finding['severity']:6} {finding['title']}",
        f"       {finding['text']}",
        f"       {said}" if said else f"       {finding['kind']}",
        f"       {finding['subject']}, last seen {seen}",
    ]

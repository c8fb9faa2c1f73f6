"""The command line: `preheat COMMAND`. Each command parses, calls, prints, and sets the exit code; nothing more."""

import importlib
import sys
from typing import TYPE_CHECKING

from preheat.cli.serving import plain_options, start
from preheat.cli.table import COMMANDS

if TYPE_CHECKING:
    import typer


def build() -> "typer.Typer":
    """The application with every command of the table."""
    import typer

    app = typer.Typer(
        name="preheat",
        help="Run the serverless RAG architecture of AWS for real on one machine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, (module, function) in COMMANDS.items():
        command = getattr(importlib.import_module(module), function)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> None:
    options = plain_options(sys.argv[1:])
    if options is None:
        build()()
    else:
        start(**options)

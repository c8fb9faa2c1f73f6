"""COMMANDS: the command's name -> (module, function)."""

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("preheat.cli.serve", "serve"),
}

"""COMMANDS: the command's name -> (module, function), or a group of commands."""

COMMANDS: dict[str, tuple[str, str]] = {
    "new": ("preheat.cli.starting", "new"),
    "up": ("preheat.cli.up", "up"),
    "serve": ("preheat.cli.serve", "serve"),
    "deploy": ("preheat.cli.up", "deploy"),
    "ingest": ("preheat.cli.up", "ingest"),
    "baseline": ("preheat.cli.baseline", "baseline"),
    "ask": ("preheat.cli.up", "ask"),
    "rag": ("preheat.cli.rag", "rag"),
    "invoke": ("preheat.cli.look", "invoke"),
    "logs": ("preheat.cli.look", "logs"),
    "dlq": ("preheat.cli.look", "dlq"),
    "findings": ("preheat.cli.findings", "findings"),
    "status": ("preheat.cli.look", "status"),
    "faults": ("preheat.cli.faults", "faults"),
    "certificate": ("preheat.cli.certificate", "certificate"),
    "clock": ("preheat.cli.look", "clock"),
    "services": ("preheat.cli.look", "services"),
}

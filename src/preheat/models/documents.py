"""Documents that are not text, as text for a model."""

from typing import Any


def written_out(value: Any, indent: str = "") -> str:
    """A JSON document as lines `name: value`, which is how a model reads it."""
    if isinstance(value, dict):
        lines = []
        for name, item in value.items():
            nested = isinstance(item, dict | list) and item
            text = written_out(item, indent + "  ")
            lines.append(f"{indent}{name}:\n{text}" if nested else f"{indent}{name}: {text}")
        return "\n".join(lines)
    if isinstance(value, list):
        return "\n".join(
            written_out(item, indent) if isinstance(item, dict | list) else f"{indent}- {item}" for item in value
        )
    return "" if value is None else str(value)

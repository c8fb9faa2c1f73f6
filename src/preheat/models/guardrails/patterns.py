"""Reads a file of patterns: lines `let NAME text`, then lines `category weight pattern`, where `{NAME}` stands for its
text. Weights go from 1 (a hint) to 3 (hardly anything else)."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"\{([A-Z_]+)\}")


def read_patterns(name: str) -> Iterator[tuple[str, int, re.Pattern[str]]]:
    """(category, weight, expression) of a file beside this module; expressions are in `folding.fold`'s spelling."""
    names: dict[str, str] = {}
    for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        category, second, text = line.split(" ", 2)
        text = _NAME.sub(lambda match: names[match.group(1)], text)
        if category == "let":
            names[second] = text
        else:
            yield category, int(second), re.compile(_folded(text))


def _folded(pattern: str) -> str:
    if pattern.isascii():
        return pattern
    plain = unicodedata.normalize("NFKD", pattern)
    return unicodedata.normalize("NFC", "".join(char for char in plain if not unicodedata.combining(char)))

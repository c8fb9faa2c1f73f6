"""Filter criteria of event source mappings: the product's pattern language, and Lambda's own rules about bodies."""

import json
from collections.abc import Callable
from typing import Any

from preheat.services.patterns import PatternError, compile_pattern

Match = Callable[[dict[str, Any]], bool]

__all__ = ["PatternError", "check_filter", "compile_filters"]


def check_filter(text: str) -> None:
    """Raises PatternError for a text that is no pattern."""
    compile_pattern(text)


def compile_filters(patterns: tuple[str, ...], data: str = "body") -> Match:
    """Whether a record matches one of the patterns. `data` names the field of the record that is text: one that is a
    JSON object or list is matched as such, any other as text; a pattern of the one kind never matches text of the
    other, and a pattern without that field looks at the rest of the record alone."""
    tests = [(compile_pattern(text), _kind(json.loads(text), data)) for text in patterns]

    def match(record: dict[str, Any]) -> bool:
        structured = _structured(record.get(data))
        event = record if structured is None else {**record, data: structured}
        kind = "text" if structured is None else "json"
        return any(wanted in (None, kind) and pattern.matches(event) for pattern, wanted in tests)

    return match


def _kind(pattern: dict[str, Any], data: str) -> str | None:
    """What a pattern wants the field to be: "json", "text", or None when it does not name it (or only below $or)."""
    wanted = pattern.get(data)
    if wanted is None:
        return None
    return "json" if isinstance(wanted, dict) else "text"


def _structured(text: Any) -> Any:
    """The decoded object or list, or None."""
    if isinstance(text, dict | list):
        return text
    if not isinstance(text, str) or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None

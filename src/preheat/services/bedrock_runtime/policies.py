"""A guardrail as GetGuardrail shows it, read into the values that `preheat.models.guardrails` works with."""

from collections.abc import Mapping
from typing import Any

from preheat.models.guardrails.contract import Filter, Grounding, Pattern, Pii, Policy, Sides, Topic, Word


def read_policy(shown: Mapping[str, Any]) -> Policy:
    words = shown.get("wordPolicy") or {}
    sensitive = shown.get("sensitiveInformationPolicy") or {}
    managed = words.get("managedWordLists") or []
    return Policy(
        topics=tuple(
            Topic(one["name"], one["definition"], tuple(one.get("examples") or ()), _sides(one))
            for one in (shown.get("topicPolicy") or {}).get("topics") or ()
        ),
        filters=tuple(
            Filter(one["type"], one["inputStrength"], one["outputStrength"], _sides(one, _modal(one)))
            for one in (shown.get("contentPolicy") or {}).get("filters") or ()
        ),
        words=tuple(Word(one["text"], _sides(one)) for one in words.get("words") or ()),
        profanity=_sides(managed[0]) if managed else None,
        pii=tuple(Pii(one["type"], _sides(one)) for one in sensitive.get("piiEntities") or ()),
        patterns=tuple(
            Pattern(one["name"], one["pattern"], _sides(one)) for one in sensitive.get("regexes") or ()
        ),
        grounding=tuple(
            Grounding(one["type"], one["threshold"], one.get("action", "BLOCK") if one.get("enabled", True) else None)
            for one in (shown.get("contextualGroundingPolicy") or {}).get("filters") or ()
        ),
        blocked_input=shown["blockedInputMessaging"],
        blocked_output=shown["blockedOutputsMessaging"],
    )


def _sides(item: Mapping[str, Any], texts: tuple[bool, bool] = (True, True)) -> Sides:
    """`action` is for both sides where a side has none of its own."""
    default = item.get("action", "BLOCK")
    reads, writes = item.get("inputEnabled", True) and texts[0], item.get("outputEnabled", True) and texts[1]
    return Sides(
        item.get("inputAction", default) if reads else None,
        item.get("outputAction", default) if writes else None,
    )


def _modal(item: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a filter is for texts, in the input and in the output."""
    return (
        "TEXT" in (item.get("inputModalities") or ["TEXT"]),
        "TEXT" in (item.get("outputModalities") or ["TEXT"]),
    )

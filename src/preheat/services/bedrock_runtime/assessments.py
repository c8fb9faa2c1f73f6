"""Verdicts as AWS shows them: assessments, usage, coverage, reasons."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from preheat.models.guardrails.contract import Finding, Kind, Verdict

USAGE: Mapping[str, str] = {
    "topic": "topicPolicyUnits",
    "content": "contentPolicyUnits",
    "word": "wordPolicyUnits",
    "pii": "sensitiveInformationPolicyUnits",
    "regex": "sensitiveInformationPolicyFreeUnits",
    "grounding": "contextualGroundingPolicyUnits",
}
POLICY_TYPES: Mapping[Kind, str] = {
    "topic": "TopicPolicy",
    "content": "ContentPolicy",
    "word": "WordPolicy",
    "profanity": "WordPolicy",
    "pii": "SensitiveInformationPolicy",
    "regex": "SensitiveInformationPolicy",
    "grounding": "ContextualGroundingPolicy",
}
BLOCKED, MASKED, NOTHING = "Guardrail blocked.", "Guardrail masked.", "No action."


def usage(verdicts: Iterable[Verdict]) -> dict[str, int]:
    total = dict.fromkeys(USAGE.values(), 0)
    for verdict in verdicts:
        for name, units in verdict.units.items():
            total[USAGE[name]] += units
    return total


def coverage(verdict: Verdict) -> dict[str, Any]:
    return {"textCharacters": {"guarded": verdict.guarded, "total": verdict.total}}


def reason(verdicts: Sequence[Verdict]) -> str:
    if any(verdict.blocked for verdict in verdicts):
        return BLOCKED
    return MASKED if any(verdict.masked for verdict in verdicts) else NOTHING


def assessment(verdict: Verdict, latency_ms: int, full: bool, details: Mapping[str, Any]) -> dict[str, Any]:
    """`full`: also what was looked for and not found (words and patterns have no such entries). Scores of contextual
    grounding are always shown."""
    kept = [one for one in verdict.findings if one.detected or full or one.kind == "grounding"]

    def of(*kinds: Kind) -> list[Finding]:
        return [one for one in kept if one.kind in kinds]

    output: dict[str, Any] = {}
    if of("topic"):
        output["topicPolicy"] = {"topics": [_topic(one) for one in of("topic")]}
    if of("content"):
        output["contentPolicy"] = {"filters": [_filter(one) for one in of("content")]}
    if of("word", "profanity"):
        output["wordPolicy"] = {
            "customWords": [_with(one, match=one.match) for one in of("word")],
            "managedWordLists": [_with(one, match=one.match, type="PROFANITY") for one in of("profanity")],
        }
    if of("pii", "regex"):
        output["sensitiveInformationPolicy"] = {
            "piiEntities": [_with(one, match=one.match, type=one.name) for one in of("pii")],
            "regexes": [_with(one, name=one.name, match=one.match, regex=one.pattern) for one in of("regex")],
        }
    if of("grounding"):
        output["contextualGroundingPolicy"] = {
            "filters": [
                _with(one, type=one.name, threshold=one.threshold, score=one.score) for one in of("grounding")
            ]
        }
    output["invocationMetrics"] = {
        "guardrailProcessingLatency": latency_ms,
        "usage": usage([verdict]),
        "guardrailCoverage": coverage(verdict),
    }
    return {**output, "appliedGuardrailDetails": dict(details)}


def _with(finding: Finding, **members: Any) -> dict[str, Any]:
    return {**members, "action": finding.action, "detected": finding.detected}


def _topic(finding: Finding) -> dict[str, Any]:
    return _with(finding, name=finding.name, type="DENY")


def _filter(finding: Finding) -> dict[str, Any]:
    return _with(finding, type=finding.name, confidence=finding.confidence, filterStrength=finding.strength)

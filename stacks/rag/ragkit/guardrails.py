"""Bedrock's guardrail: what is asked is checked before anything is done with it, what is answered while it is said.

A guardrail that cannot be had lets nothing through: GuardrailUnavailable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError

Action = Literal["none", "masked", "blocked"]
Source = Literal["INPUT", "OUTPUT"]
INTERVENED = "guardrail_intervened"
MASKED = "guardrail_masked"


class GuardrailUnavailable(Exception):
    """The question was not checked; `__cause__` is the client's error."""


@dataclass(frozen=True)
class Checked:
    """`text` is what goes on: as it was, masked, or, blocked, the guardrail's message."""

    action: Action
    text: str


class Guardrail(Protocol):
    def check(self, text: str, source: Source = "INPUT") -> Checked:
        """Of what is asked, or of an answer that no model gave. Raises GuardrailUnavailable."""

    def configuration(self) -> dict[str, Any]:
        """Members of ConverseStream that put the answer behind the guardrail."""


class NoGuardrail:
    def check(self, text: str, source: Source = "INPUT") -> Checked:
        return Checked("none", text)

    def configuration(self) -> dict[str, Any]:
        return {}


class BedrockGuardrail:
    """`client` is boto3's bedrock-runtime; `id` is the guardrail's id, `version` its number or DRAFT."""

    def __init__(self, client: Any, id: str, version: str) -> None:
        self._client = client
        self._names = {"guardrailIdentifier": id, "guardrailVersion": version}

    def check(self, text: str, source: Source = "INPUT") -> Checked:
        try:
            reply = self._client.apply_guardrail(**self._names, source=source, content=[{"text": {"text": text}}])
        except (ClientError, BotoCoreError) as error:
            raise GuardrailUnavailable(f"the guardrail could not be asked: {error}") from error
        if reply["action"] != "GUARDRAIL_INTERVENED":
            return Checked("none", text)
        told = "\n".join(one["text"] for one in reply.get("outputs", ()))
        return Checked("blocked" if blocked(reply.get("assessments")) or not told else "masked", told)

    def configuration(self) -> dict[str, Any]:
        return {"guardrailConfig": {**self._names, "trace": "enabled", "streamProcessingMode": "sync"}}


def blocked(assessments: Any) -> bool:
    """Whether anything in the assessments was blocked, rather than masked."""
    if isinstance(assessments, Mapping):
        return assessments.get("action") == "BLOCKED" or any(map(blocked, assessments.values()))
    return isinstance(assessments, list) and any(map(blocked, assessments))

"""Values that the body formats are read into, and checks that they share."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

from preheat.models.contract import Generation, Kind, Message
from preheat.services.bedrock_runtime.errors import invalid, malformed

DEFAULT_MAX_TOKENS = 4_096


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A conversation to answer, in whichever format it came."""

    messages: tuple[Message, ...]
    system: str = ""
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None

    def length(self) -> int:
        """Characters to read."""
        return len(self.system) + sum(len(message.text) for message in self.messages)


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished text. `stop_reason` is the model's, or "guardrail_intervened". `latency_ms` from the operation's
    start."""

    text: str
    stop_reason: str
    stop_sequence: str | None
    input_tokens: int
    output_tokens: int
    latency_ms: int

    @classmethod
    def of(cls, text: str, generation: Generation, latency_ms: int) -> "Answer":
        usage = generation.usage
        return cls(
            text,
            generation.stop_reason,
            generation.stop_sequence,
            usage.input_tokens,
            usage.output_tokens,
            latency_ms,
        )


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts to embed. `format` is "titan" or "cohere"; `outputs` are the number formats asked for; `most_tokens` is
    what a text may have, 0 when a longer one is cut."""

    format: str
    texts: tuple[str, ...]
    kind: Kind
    dimension: int
    outputs: tuple[str, ...]
    most_tokens: int = 0
    by_type: bool = False


def read_json(body: bytes) -> dict[str, Any]:
    """Raises ValidationException for a body that is not a JSON object."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed("the body is not valid JSON") from error
    if not isinstance(document, dict):
        raise malformed(f"#: expected type: JSONObject, found: {_kind(document)}")
    return document


def write_json(document: Any) -> bytes:
    return msgspec.json.encode(document)


def check_keys(document: Mapping[str, Any], known: frozenset[str], where: str = "#") -> None:
    for key in document:
        if key not in known:
            raise malformed(f"{where}: extraneous key [{key}] is not permitted")


def number(document: Mapping[str, Any], key: str, least: float, most: float) -> float | None:
    value = document.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise malformed(f"#/{key}: expected type: Number, found: {_kind(value)}")
    if value < least:
        raise malformed(f"#/{key}: {value} is not greater or equal to {least:g}")
    if value > most:
        raise malformed(f"#/{key}: {value} is not less or equal to {most:g}")
    return float(value)


def string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise malformed(f"{where}: expected type: String, found: {_kind(value)}")
    return value


def items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise malformed(f"{where}: expected type: JSONArray, found: {_kind(value)}")
    return value


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed(f"{where}: expected type: JSONObject, found: {_kind(value)}")
    return value


def required(document: Mapping[str, Any], key: str, where: str = "#") -> Any:
    if key not in document:
        raise malformed(f"{where}: required key [{key}] not found")
    return document[key]




def conversation(turns: list[Message]) -> tuple[Message, ...]:
    """Checks the order of roles. Raises ValidationException."""
    if not turns or turns[0].role != "user":
        raise invalid(
            "A conversation must start with a user message. Try again with a conversation that starts with a user "
            "message."
        )
    for one, other in pairwise(turns):
        if one.role == other.role:
            raise invalid(
                "A conversation must alternate between user and assistant roles. Make sure the conversation alternates "
                "between user and assistant roles and try again."
            )
    if turns[-1].role != "user":
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    return tuple(turns)


def _kind(value: Any) -> str:
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "Boolean"
    return {str: "String", int: "Integer", float: "BigDecimal", list: "JSONArray", dict: "JSONObject"}[type(value)]

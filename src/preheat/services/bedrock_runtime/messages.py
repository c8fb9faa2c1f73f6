"""Anthropic's Messages format: bodies, answers, and the events of a stream."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from preheat.models.contract import Generation, Message
from preheat.services.bedrock_runtime.domain import (
    Answer,
    TextRequest,
    check_keys,
    conversation,
    items,
    mapping,
    number,
    read_json,
    required,
    string,
    write_json,
)
from preheat.services.bedrock_runtime.errors import invalid, malformed

VERSION = "bedrock-2023-05-31"
KEYS = frozenset(
    {"anthropic_version", "max_tokens", "messages", "system", "temperature", "top_p", "stop_sequences"}
)
MOST_TOKENS = 1_000_000


def read_messages(body: bytes) -> TextRequest:
    return read_document(read_json(body))


def read_document(document: dict[str, Any]) -> TextRequest:
    for key, name in (("tools", "tool use"), ("tool_choice", "tool use"), ("thinking", "reasoning")):
        if key in document:
            raise invalid(f"This model doesn't support {name} (#/{key}).")
    check_keys(document, KEYS)
    version = required(document, "anthropic_version")
    if version != VERSION:
        raise malformed(f"#/anthropic_version: {version} is not a valid enum value")
    limit = required(document, "max_tokens")
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise malformed("#/max_tokens: expected type: Integer")
    if not 1 <= limit <= MOST_TOKENS:
        raise malformed(f"#/max_tokens: {limit} is not within 1 and {MOST_TOKENS}")
    stop = [string(text, "#/stop_sequences") for text in items(document.get("stop_sequences", []), "#/stop_sequences")]
    turns = []
    for at, turn in enumerate(items(required(document, "messages"), "#/messages")):
        turns.append(_read_turn(mapping(turn, f"#/messages/{at}"), f"#/messages/{at}"))
    return TextRequest(
        conversation(turns),
        _text(document.get("system", ""), "#/system"),
        limit,
        tuple(stop),
        number(document, "temperature", 0, 1),
        number(document, "top_p", 0, 1),
    )


def write_message(answer: Answer, model_id: str, id: str, more: Mapping[str, Any]) -> bytes:
    """`more` is what a guardrail adds to the body."""
    return write_json(
        {
            "id": f"msg_bdrk_{id}",
            "type": "message",
            "role": "assistant",
            "model": model_id,
            "content": [{"type": "text", "text": answer.text}] if answer.text else [],
            "stop_reason": _stopped(answer.stop_reason),
            "stop_sequence": answer.stop_sequence,
            "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
            **more,
        }
    )


def message_events(
    generation: Generation,
    first: str | None,
    model_id: str,
    id: str,
    latency_ms: Callable[[], int],
    more: Callable[[], Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Chunks for InvokeModelWithResponseStream; `first` is the piece already drawn, `latency_ms()` the time so far,
    `more()` what a guardrail adds at the end."""
    usage = generation.usage
    message = {
        "id": f"msg_bdrk_{id}",
        "type": "message",
        "role": "assistant",
        "model": model_id,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": usage.input_tokens, "output_tokens": 0},
    }
    first_byte_ms = latency_ms()
    yield _chunk({"type": "message_start", "message": message})
    yield _chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for piece in chain([] if first is None else [first], generation):
        yield _chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
    yield _chunk({"type": "content_block_stop", "index": 0})
    yield _chunk(
        {
            "type": "message_delta",
            "delta": {"stop_reason": _stopped(generation.stop_reason), "stop_sequence": generation.stop_sequence},
            "usage": {"output_tokens": usage.output_tokens},
        }
    )
    metrics = {
        "inputTokenCount": usage.input_tokens,
        "outputTokenCount": usage.output_tokens,
        "invocationLatency": latency_ms(),
        "firstByteLatency": first_byte_ms,
    }
    yield _chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics, **more()})


def _stopped(reason: str) -> str:
    """Anthropic's format has no word for a guardrail: Bedrock's own members tell of it."""
    return "end_turn" if reason == "guardrail_intervened" else reason


def _chunk(event: dict[str, Any]) -> dict[str, Any]:
    return {"chunk": {"bytes": write_json(event)}}


def _read_turn(turn: dict[str, Any], where: str) -> Message:
    check_keys(turn, frozenset({"role", "content"}), where)
    role = required(turn, "role", where)
    if role not in ("user", "assistant"):
        raise malformed(f"{where}/role: {role} is not a valid enum value")
    text = _text(required(turn, "content", where), f"{where}/content")
    if not text.strip():
        raise invalid(f"{where}/content: text content blocks must be non-empty")
    return Message(role, text)


def _text(value: Any, where: str) -> str:
    """A string, or a list of text blocks joined by new lines."""
    if isinstance(value, str):
        return value
    texts = []
    for at, block in enumerate(items(value, where)):
        block = mapping(block, f"{where}/{at}")
        kind = required(block, "type", f"{where}/{at}")
        if kind != "text":
            raise invalid(f"This model doesn't support {kind} content ({where}/{at}).")
        check_keys(block, frozenset({"type", "text"}), f"{where}/{at}")
        texts.append(string(required(block, "text", f"{where}/{at}"), f"{where}/{at}/text"))
    return "\n".join(texts)

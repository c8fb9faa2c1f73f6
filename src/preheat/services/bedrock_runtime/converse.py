"""Converse: parameters, answers, and the events of ConverseStream."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from preheat.models.contract import Generation, Message
from preheat.services.bedrock_runtime.domain import DEFAULT_MAX_TOKENS, Answer, TextRequest, conversation
from preheat.services.bedrock_runtime.errors import invalid, out_of_range
from preheat.services.bedrock_runtime.guarding import read_block

REFUSED = {
    "toolConfig": "tool use",
    "promptVariables": "prompt variables (they belong to a prompt of Prompt management)",
    "outputConfig": "structured output",
}
PLAIN_DOCUMENTS = ("txt", "md")
MOST_STOP_SEQUENCES = 2_500


def read_converse(params: Mapping[str, Any]) -> TextRequest:
    """Raises ValidationException, naming what a text model without tools does not have."""
    for member, name in REFUSED.items():
        if params.get(member):
            raise invalid(f"This model doesn't support {name} ({member}).")
    extra = params.get("additionalModelRequestFields")
    if extra:
        name = next(iter(extra)) if isinstance(extra, Mapping) else "#"
        raise invalid(f"This model doesn't support the additional model request field {name}. Remove it and try again.")
    turns = []
    for at, message in enumerate(params.get("messages") or []):
        where = f"messages.{at}"
        role = message.get("role")
        if role not in ("user", "assistant"):
            raise out_of_range(role, f"{where}.role", "Member must satisfy enum value set: [user, assistant]")
        turns.append(Message(role, _text(message.get("content") or [], where)))
    config = params.get("inferenceConfig") or {}
    return TextRequest(
        conversation(turns),
        _system(params.get("system") or []),
        _limit(config),
        _stop(config),
        _share(config, "temperature"),
        _share(config, "topP"),
    )


def write_converse(answer: Answer, params: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """`trace` is what a guardrail adds."""
    output: dict[str, Any] = {
        "output": {"message": {"role": "assistant", "content": [{"text": answer.text}] if answer.text else []}},
        "stopReason": answer.stop_reason,
        "usage": _usage(answer.input_tokens, answer.output_tokens),
        "metrics": {"latencyMs": answer.latency_ms},
    }
    extra = _additional(params, answer.stop_sequence)
    if extra:
        output["additionalModelResponseFields"] = extra
    return {**output, **trace, **echoes(params)}


def converse_events(
    generation: Generation,
    first: str | None,
    params: Mapping[str, Any],
    latency_ms: Callable[[], int],
    trace: Callable[[], Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Events in Bedrock's order; a text block has no contentBlockStart, as with Bedrock's own text models."""
    yield {"messageStart": {"role": "assistant"}}
    for piece in chain([] if first is None else [first], generation):
        yield {"contentBlockDelta": {"delta": {"text": piece}, "contentBlockIndex": 0}}
    yield {"contentBlockStop": {"contentBlockIndex": 0}}
    stop: dict[str, Any] = {"stopReason": generation.stop_reason}
    extra = _additional(params, generation.stop_sequence)
    if extra:
        stop["additionalModelResponseFields"] = extra
    yield {"messageStop": stop}
    usage = generation.usage
    yield {
        "metadata": {
            "usage": _usage(usage.input_tokens, usage.output_tokens),
            "metrics": {"latencyMs": latency_ms()},
            **trace(),
            **echoes(params),
        }
    }


def echoes(params: Mapping[str, Any]) -> dict[str, Any]:
    """Members of the request that the answer repeats."""
    return {key: params[key] for key in ("performanceConfig", "serviceTier") if params.get(key)}


def _usage(read: int, written: int) -> dict[str, int]:
    return {"inputTokens": read, "outputTokens": written, "totalTokens": read + written}


def _additional(params: Mapping[str, Any], stop_sequence: str | None) -> dict[str, Any]:
    """The one field that local models have; paths that lead nowhere are left out, as on Bedrock."""
    paths = params.get("additionalModelResponseFieldPaths") or []
    for path in paths:
        if not path.startswith("/"):
            raise invalid(f"additionalModelResponseFieldPaths: {path} is not a JSON pointer.")
    return {"stop_sequence": stop_sequence} if "/stop_sequence" in paths else {}


def _text(blocks: list[dict[str, Any]], where: str) -> str:
    """Text blocks as they are; search results and plain documents become numbered passages before them."""
    if not blocks:
        raise invalid(f"The content field in the Message object at {where} is empty. Add content and try again.")
    texts: list[str] = []
    passages: list[str] = []
    for at, block in enumerate(blocks):
        place = f"{where}.content.{at}"
        if "guardContent" in block:
            texts.append(read_block(block["guardContent"], f"{place}.guardContent").text)
        elif "text" in block:
            if not block["text"].strip():
                raise invalid(
                    f"The text field in the ContentBlock object at {place} is blank. Add text to the text field, and "
                    "try again."
                )
            texts.append(block["text"])
        elif "searchResult" in block:
            passages.append(_search_result(block["searchResult"], place))
        elif "document" in block:
            passages.append(_document(block["document"], place))
        else:
            raise invalid(f"This model doesn't support the {next(iter(block), 'empty')} content block at {place}.")
    if passages:
        numbered = "\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
        texts.insert(0, f"<passages>\n{numbered}\n</passages>")
    return "\n".join(texts)


def _search_result(result: Mapping[str, Any], place: str) -> str:
    if (result.get("citations") or {}).get("enabled"):
        raise invalid(f"This model doesn't support citation blocks ({place}.searchResult.citations).")
    text = " ".join(part.get("text", "") for part in result.get("content") or [])
    return f"{result.get('title', '')}\n{text}"


def _document(document: Mapping[str, Any], place: str) -> str:
    source = document.get("source") or {}
    if (document.get("citations") or {}).get("enabled"):
        raise invalid(f"This model doesn't support citation blocks ({place}.document.citations).")
    if "text" in source:
        text = source["text"]
    elif "content" in source:
        text = "\n".join(part.get("text", "") for part in source["content"])
    elif "bytes" in source and document.get("format") in PLAIN_DOCUMENTS:
        text = source["bytes"].decode("utf-8", errors="replace")
    else:
        form = document.get("format", "without a format")
        raise invalid(f"This model doesn't support {form} documents from this source ({place}.document).")
    context = document.get("context")
    return f"{document.get('name', '')}\n{context + chr(10) if context else ''}{text}"


def _system(blocks: list[dict[str, Any]]) -> str:
    texts = []
    for at, block in enumerate(blocks):
        if "guardContent" in block:
            texts.append(read_block(block["guardContent"], f"system.{at}.guardContent").text)
        elif "text" in block:
            texts.append(block["text"])
        else:
            raise invalid(f"This model doesn't support the {next(iter(block), 'empty')} content block at system.{at}.")
    return "\n".join(texts)


def _limit(config: Mapping[str, Any]) -> int:
    limit = config.get("maxTokens", DEFAULT_MAX_TOKENS)
    if limit < 1:
        raise out_of_range(limit, "inferenceConfig.maxTokens", "Member must have value greater than or equal to 1")
    return limit


def _stop(config: Mapping[str, Any]) -> tuple[str, ...]:
    stop = config.get("stopSequences") or []
    member = "inferenceConfig.stopSequences"
    if len(stop) > MOST_STOP_SEQUENCES:
        constraint = f"Member must have length less than or equal to {MOST_STOP_SEQUENCES}"
        raise out_of_range(len(stop), member, constraint)
    if "" in stop:
        raise out_of_range("", member, "Member must have length greater than or equal to 1")
    return tuple(stop)


def _share(config: Mapping[str, Any], key: str) -> float | None:
    value = config.get(key)
    if value is not None and value < 0:
        raise out_of_range(value, f"inferenceConfig.{key}", "Member must have value greater than or equal to 0")
    if value is not None and value > 1:
        raise out_of_range(value, f"inferenceConfig.{key}", "Member must have value less than or equal to 1")
    return value

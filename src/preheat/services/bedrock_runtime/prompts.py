"""What of a request a guardrail reads: the texts of Converse, and the tagged or plain texts of an InvokeModel body.

In Converse everything the messages say is read, or, where there are guardContent blocks, those alone. An InvokeModel
body may mark what is to be read with tags whose suffix its `amazon-bedrock-guardrailConfig` names; without tags all
texts of its messages are read, but not for prompt attacks, as on AWS. Tags do not reach the model.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from preheat.models.guardrails.contract import Content
from preheat.services.bedrock_runtime.converse import read_converse
from preheat.services.bedrock_runtime.domain import TextRequest, check_keys, mapping, read_json, string
from preheat.services.bedrock_runtime.errors import malformed
from preheat.services.bedrock_runtime.guarded import Mode, Prompt
from preheat.services.bedrock_runtime.guarding import read_block
from preheat.services.bedrock_runtime.messages import read_document

CONFIG = "amazon-bedrock-guardrailConfig"
MODES: Mapping[str, Mode] = {"SYNCHRONOUS": "sync", "ASYNCHRONOUS": "async"}
_TAG_KINDS = "guardContent|groundingSource|query"

Slot = tuple[dict[str, Any], str]
"""A dictionary and the key of a text in it."""


def converse_prompt(params: Mapping[str, Any]) -> Prompt:
    """Raises ValidationException for blocks that cannot be read."""
    found = list(_converse_slots(params))
    chosen = [one for one in found if one[2]] or found
    contents = [content for content, _, _ in chosen]

    def rebuild(texts: Sequence[str]) -> TextRequest:
        changed = copy.deepcopy(dict(params))
        places = list(_converse_slots(changed))
        places = [one for one in places if one[2]] or places
        _fill([slot for content, slot, _ in places if content.guard], texts)
        return read_converse(changed)

    return Prompt(tuple(contents), rebuild)


def _converse_slots(params: Mapping[str, Any]) -> Iterator[tuple[Content, Slot, bool]]:
    """(content, where its text is, whether it is a guardContent block) in order; plain system texts are not read."""
    for at, block in enumerate(params.get("system") or []):
        if "guardContent" in block:
            given = block["guardContent"]
            yield read_block(given, f"system.{at}.guardContent"), (given["text"], "text"), True
    for at, message in enumerate(params.get("messages") or []):
        asks = message.get("role") == "user"
        for place, block in enumerate(message.get("content") or []):
            if "guardContent" in block:
                given = block["guardContent"]
                yield read_block(given, f"messages.{at}.content.{place}"), (given["text"], "text"), True
            for slot in _texts(block):
                yield Content(slot[0][slot[1]], attacks=asks), slot, False


def _texts(block: dict[str, Any]) -> Iterator[Slot]:
    """Texts of a content block that a model reads."""
    if "text" in block:
        yield block, "text"
    for part in (block.get("searchResult") or {}).get("content") or []:
        if part.get("text"):
            yield part, "text"
    source = (block.get("document") or {}).get("source") or {}
    if source.get("text"):
        yield source, "text"
    for part in source.get("content") or []:
        if part.get("text"):
            yield part, "text"


def _fill(slots: Sequence[Slot], texts: Sequence[str]) -> None:
    for (place, key), text in zip(slots, texts):
        place[key] = text


def body_prompt(body: bytes) -> tuple[Prompt, Mode]:
    """Of an Anthropic Messages body, and how its stream is to be checked. Raises ValidationException."""
    document = read_json(body)
    suffix, mode = _config(document)
    read = _tagged if suffix else _untagged
    contents, rebuild = read(document, suffix)
    read_document(rebuild([content.text for content in contents if content.guard]))
    return Prompt(tuple(contents), lambda texts: read_document(rebuild(texts))), mode


def _config(document: dict[str, Any]) -> tuple[str, Mode]:
    given = document.pop(CONFIG, None)
    if given is None:
        return "", "sync"
    where = f"#/{CONFIG}"
    check_keys(mapping(given, where), frozenset({"tagSuffix", "streamProcessingMode"}), where)
    suffix = string(given.get("tagSuffix", ""), f"{where}/tagSuffix")
    if "tagSuffix" in given and re.fullmatch(r"[0-9A-Za-z]{1,20}", suffix) is None:
        raise malformed(f"{where}/tagSuffix: string [{suffix}] does not match pattern ^[0-9A-Za-z]{{1,20}}$")
    mode = given.get("streamProcessingMode", "SYNCHRONOUS")
    if mode not in MODES:
        raise malformed(f"{where}/streamProcessingMode: {mode} is not a valid enum value")
    return suffix, MODES[mode]


Rebuild = Callable[[Sequence[str]], dict[str, Any]]


def _untagged(document: dict[str, Any], suffix: str) -> tuple[list[Content], Rebuild]:
    contents = [Content(place[key], attacks=False) for place, key in _body_slots(document)]

    def rebuild(texts: Sequence[str]) -> dict[str, Any]:
        changed = copy.deepcopy(document)
        _fill(list(_body_slots(changed)), texts)
        return changed

    return contents, rebuild


def _tagged(document: dict[str, Any], suffix: str) -> tuple[list[Content], Rebuild]:
    """Contents are the tagged parts; where there are none, all texts."""
    tag = re.compile(
        rf"<amazon-bedrock-guardrails-({_TAG_KINDS})_{suffix}>(.*?)</amazon-bedrock-guardrails-\1_{suffix}>", re.DOTALL
    )
    contents = [
        Content(match.group(2), kind == "guardContent", kind == "groundingSource", kind == "query")
        for place, key in _body_slots(document, system=True)
        for match in tag.finditer(place[key])
        if (kind := match.group(1))
    ]
    if not contents:
        return _untagged(document, suffix)

    def rebuild(texts: Sequence[str]) -> dict[str, Any]:
        left = iter(texts)
        changed = copy.deepcopy(document)

        def plain(match: re.Match[str]) -> str:
            return next(left, match.group(2)) if match.group(1) == "guardContent" else match.group(2)

        for place, key in _body_slots(changed, system=True):
            place[key] = tag.sub(plain, place[key])
        return changed

    return contents, rebuild


def _body_slots(document: dict[str, Any], system: bool = False) -> Iterator[Slot]:
    """Texts of the messages (and the system prompt), where they have the right form."""
    turns = document.get("messages")
    holders = [document] if system else []
    holders += [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    for holder in holders:
        key = "system" if holder is document else "content"
        value = holder.get(key)
        if isinstance(value, str):
            yield holder, key
        elif isinstance(value, list):
            for block in value:
                if isinstance(block, dict) and isinstance(block.get("text"), str):
                    yield block, "text"

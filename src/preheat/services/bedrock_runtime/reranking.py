"""Rerank models: the bodies of Amazon Rerank and Cohere Rerank, and the order of passages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from preheat.models.documents import written_out
from preheat.services.bedrock_runtime.domain import (
    check_keys,
    items,
    mapping,
    read_json,
    required,
    string,
    write_json,
)
from preheat.services.bedrock_runtime.errors import malformed

KEYS = frozenset({"query", "documents", "top_n"})
COHERE_KEYS = KEYS | {"api_version", "max_tokens_per_doc"}
MOST_DOCUMENTS = 1_000
LONGEST = 32_000
"""Characters of a query or a document."""
WORD = 4
"""Characters that a token has, about: how `max_tokens_per_doc` cuts."""


@dataclass(frozen=True, slots=True)
class RerankRequest:
    query: str
    texts: tuple[str, ...]
    top: int


def read_rerank(body: bytes) -> RerankRequest:
    """`api_version` makes it Cohere's format, else it is Amazon's. Raises ValidationException."""
    document = read_json(body)
    cohere = "api_version" in document
    check_keys(document, COHERE_KEYS if cohere else KEYS)
    if cohere and _whole(document, "api_version", 2, 2) != 2:
        raise malformed("#/api_version: this model has version 2")
    query = _text(required(document, "query"), "#/query")
    given = items(required(document, "documents"), "#/documents")
    if not given:
        raise malformed("#/documents: expected minimum item count: 1, found: 0")
    if len(given) > MOST_DOCUMENTS:
        raise malformed(f"#/documents: expected maximum item count: {MOST_DOCUMENTS}, found: {len(given)}")
    most = _whole(document, "max_tokens_per_doc", 1, LONGEST) * WORD if "max_tokens_per_doc" in document else LONGEST
    texts = tuple(_document(one, f"#/documents/{at}")[:most] for at, one in enumerate(given))
    top = _whole(document, "top_n", 1, 1_000_000) if "top_n" in document else len(texts)
    return RerankRequest(query, texts, min(top, len(texts)))


def write_rerank(ranked: Sequence[tuple[int, float]]) -> bytes:
    return write_json({"results": [{"index": index, "relevance_score": score} for index, score in ranked]})


def rank(scores: Sequence[float], top: int) -> list[tuple[int, float]]:
    """(index, score) of the `top` best; equal ones in the order given."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [(index, float(scores[index])) for index in order[:top]]


def _document(value: Any, where: str) -> str:
    if isinstance(value, dict):
        return _text(written_out(mapping(value, where)), where)
    return _text(value, where)


def _text(value: Any, where: str) -> str:
    text = string(value, where)
    if not text.strip():
        raise malformed(f"{where}: expected minLength: 1, actual: 0")
    if len(text) > LONGEST:
        raise malformed(f"{where}: expected maxLength: {LONGEST}, actual: {len(text)}")
    return text


def _whole(document: dict[str, Any], key: str, least: int, most: int) -> int:
    value = document[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise malformed(f"#/{key}: expected type: Integer")
    if not least <= value <= most:
        raise malformed(f"#/{key}: {value} is not within {least} and {most}")
    return value

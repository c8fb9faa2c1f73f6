"""Embedding bodies: Titan Text Embeddings V2 (one text) and Cohere Embed (a batch)."""

from collections.abc import Sequence
from typing import Any

from preheat.models.batching import Embedded
from preheat.models.contract import Embedder
from preheat.services.bedrock_runtime.domain import (
    EmbedRequest,
    check_keys,
    items,
    read_json,
    required,
    string,
    write_json,
)
from preheat.services.bedrock_runtime.errors import invalid, malformed

TITAN_KEYS = frozenset({"inputText", "dimensions", "normalize", "embeddingTypes"})
COHERE_KEYS = frozenset({"texts", "input_type", "truncate", "embedding_types"})
INPUT_TYPES = ("search_document", "search_query", "classification", "clustering")
TITAN_CHARACTERS, TITAN_TOKENS, COHERE_CHARACTERS, COHERE_TEXTS = 50_000, 8_192, 2_048, 96
DECIMALS = 9
SPECIAL_TOKENS, TOKENS_PER_CHARACTER = 2, 3
"""No character is more: a Korean syllable is taken apart into so many."""


def read_embedding(body: bytes, embedder: Embedder) -> EmbedRequest:
    document = read_json(body)
    return _read_cohere(document, embedder) if "texts" in document else _read_titan(document, embedder)


def _read_titan(document: dict[str, Any], embedder: Embedder) -> EmbedRequest:
    check_keys(document, TITAN_KEYS)
    text = _bounded(required(document, "inputText"), "#/inputText", TITAN_CHARACTERS)
    dimension = document.get("dimensions", embedder.dimension)
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension not in embedder.dimensions:
        raise malformed(f"#/dimensions: {dimension} is not a valid enum value (this model gives {_list(embedder)})")
    normalize = document.get("normalize", True)
    if not isinstance(normalize, bool):
        raise malformed("#/normalize: expected type: Boolean")
    if not normalize:
        raise invalid("normalize: false is not supported by this model, whose vectors always have length 1.")
    outputs = tuple(items(document.get("embeddingTypes", ["float"]), "#/embeddingTypes"))
    for output in outputs:
        if output not in ("float", "binary"):
            raise malformed(f"#/embeddingTypes: {output} is not a valid enum value")
    return EmbedRequest("titan", (text,), "document", dimension, outputs or ("float",), TITAN_TOKENS)


def _read_cohere(document: dict[str, Any], embedder: Embedder) -> EmbedRequest:
    check_keys(document, COHERE_KEYS)
    texts = items(document["texts"], "#/texts")
    if not texts:
        raise malformed("#/texts: expected minimum item count: 1, found: 0")
    if len(texts) > COHERE_TEXTS:
        raise malformed(f"#/texts: expected maximum item count: {COHERE_TEXTS}, found: {len(texts)}")
    read = tuple(_bounded(text, f"#/texts/{at}", COHERE_CHARACTERS) for at, text in enumerate(texts))
    input_type = string(required(document, "input_type"), "#/input_type")
    if input_type not in INPUT_TYPES:
        raise malformed(f"#/input_type: {input_type} is not a valid enum value")
    truncate = document.get("truncate", "END")
    if truncate not in ("NONE", "END"):
        raise malformed(f"#/truncate: {truncate} is not a valid enum value (this model has NONE and END)")
    for output in items(document.get("embedding_types", ["float"]), "#/embedding_types"):
        if output != "float":
            raise malformed(f"#/embedding_types: {output} is not a valid enum value (this model has float)")
    return EmbedRequest(
        "cohere",
        read,
        "query" if input_type == "search_query" else "document",
        embedder.dimension,
        ("float",),
        most_tokens=0 if truncate == "END" else embedder.max_tokens,
        by_type="embedding_types" in document,
    )


def needs_counting(request: EmbedRequest) -> bool:
    """Whether a text may be longer than the request allows."""
    longest = max(map(len, request.texts)) * TOKENS_PER_CHARACTER + SPECIAL_TOKENS
    return 0 < request.most_tokens < longest


def check_lengths(request: EmbedRequest, embedder: Embedder) -> None:
    """Raises ValidationException, in AWS's words, for a text of more tokens than the request allows."""
    for at, text in enumerate(request.texts):
        count = embedder.count_tokens(text)
        if count <= request.most_tokens:
            continue
        if request.format == "titan":
            raise invalid(
                f"400 Bad Request: Too many input tokens. Max input tokens: {request.most_tokens}, request input token "
                f"count: {count} "
            )
        raise invalid(
            f"Input is too long for requested model. texts[{at}] has {count} tokens; the most is {request.most_tokens}."
        )


def write_embedding(request: EmbedRequest, rows: Sequence[Embedded], embedder: Embedder, id: str) -> bytes:
    """The answer's body. `id` is the request's."""
    vectors = [_written(embedder.shorten(row.vector, request.dimension)) for row in rows]
    if request.format == "cohere":
        answer: dict[str, Any] = {
            "id": id,
            "response_type": "embeddings_by_type" if request.by_type else "embeddings_floats",
            "embeddings": {"float": vectors} if request.by_type else vectors,
            "texts": list(request.texts),
        }
        return write_json(answer)
    vector = vectors[0]
    by_type: dict[str, list[Any]] = {}
    if "float" in request.outputs:
        by_type["float"] = vector
    if "binary" in request.outputs:
        by_type["binary"] = [int(value > 0) for value in vector]
    answer = {"embedding": vector} if "float" in request.outputs else {}
    return write_json({**answer, "embeddingsByType": by_type, "inputTextTokenCount": rows[0].tokens})


def _written(vector: Any) -> list[float]:
    """As many decimals as a float32 holds: all of a double's take whoever reads them three times as long."""
    return vector.astype("float64").round(DECIMALS).tolist()


def _bounded(value: Any, where: str, most: int) -> str:
    text = string(value, where)
    if not text:
        raise malformed(f"{where}: expected minLength: 1, actual: 0")
    if len(text) > most:
        raise malformed(f"{where}: expected maxLength: {most}, actual: {len(text)}")
    return text


def _list(embedder: Embedder) -> str:
    return ", ".join(str(size) for size in embedder.dimensions)

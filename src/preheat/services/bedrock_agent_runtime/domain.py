"""What a Rerank request may be (botocore's constraints), read into a query and texts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preheat.kernel.errors import ValidationError
from preheat.models.documents import written_out
from preheat.services.constraints import violated

MOST_SOURCES, MOST_RESULTS, LONGEST = 1_000, 1_000, 32_000
_MODEL_ARN = re.compile(
    r"(arn:aws(-[^:]+)?:(bedrock|sagemaker):[a-z0-9-]{1,20}:([0-9]{12})?:([a-z-]+/)?)?([a-z0-9.-]{1,63}){0,2}"
    r"(([:][a-z0-9-]{1,63}){0,2})?(/[a-z0-9]{1,12})?"
)
EXTRA = frozenset({"max_tokens_per_doc", "api_version"})
"""Model request fields that mean something: Cohere's."""
TOKEN_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """`model` is an id or an ARN; the best `top` of `texts` are wanted."""

    model: str
    query: str
    texts: tuple[str, ...]
    top: int


def read_rerank(params: Mapping[str, Any]) -> Asked:
    """Raises ValidationException."""
    queries, sources = params["queries"], params["sources"]
    if len(queries) != 1:
        raise violated("queries", len(queries), "have length less than or equal to 1" if queries else _least(1))
    if not sources:
        raise violated("sources", 0, _least(1))
    if len(sources) > MOST_SOURCES:
        raise violated("sources", len(sources), f"have length less than or equal to {MOST_SOURCES}")
    _choice(queries[0]["type"], "queries.1.member.type", ("TEXT",))
    query = _text(queries[0]["textQuery"].get("text"), "queries.1.member.textQuery.text")
    texts = tuple(_source(source, f"sources.{at + 1}.member") for at, source in enumerate(sources))
    configuration = params["rerankingConfiguration"]
    _choice(configuration["type"], "rerankingConfiguration.type", ("BEDROCK_RERANKING_MODEL",))
    path = "rerankingConfiguration.bedrockRerankingConfiguration"
    settings = configuration["bedrockRerankingConfiguration"]
    top = settings.get("numberOfResults", len(texts))
    if not 1 <= top <= MOST_RESULTS:
        bound = _least(1, "value") if top < 1 else f"have value less than or equal to {MOST_RESULTS}"
        raise violated(f"{path}.numberOfResults", top, bound)
    model = settings["modelConfiguration"]["modelArn"]
    if not model or len(model) > 2_048 or _MODEL_ARN.fullmatch(model) is None:
        constraint = f"satisfy regular expression pattern: {_MODEL_ARN.pattern}"
        raise violated(f"{path}.modelConfiguration.modelArn", model, constraint)
    most = _cut(settings["modelConfiguration"].get("additionalModelRequestFields") or {})
    return Asked(model, query, tuple(text[:most] for text in texts), min(top, len(texts)))


def _cut(fields: Mapping[str, Any]) -> int:
    """Characters of a document that the model reads."""
    for name in fields:
        if name not in EXTRA:
            raise ValidationError(
                f"This model doesn't support the additional model request field {name}. Remove it and try again."
            )
    most = fields.get("max_tokens_per_doc")
    if most is None:
        return LONGEST
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValidationError("max_tokens_per_doc must be a whole number above 0.")
    return most * TOKEN_CHARACTERS


def _source(source: Mapping[str, Any], path: str) -> str:
    _choice(source["type"], f"{path}.type", ("INLINE",))
    document = source["inlineDocumentSource"]
    path = f"{path}.inlineDocumentSource"
    _choice(document["type"], f"{path}.type", ("TEXT", "JSON"))
    if document["type"] == "TEXT":
        if "textDocument" not in document:
            raise ValidationError(f"{path}: a document of type TEXT needs a textDocument.")
        return _text(document["textDocument"].get("text"), f"{path}.textDocument.text")
    if "jsonDocument" not in document:
        raise ValidationError(f"{path}: a document of type JSON needs a jsonDocument.")
    text = written_out(document["jsonDocument"])
    if not text.strip():
        raise ValidationError(f"{path}.jsonDocument: the document is empty.")
    return text


def _text(text: str | None, path: str) -> str:
    if not text:
        raise violated(path, text or "", _least(1))
    if len(text) > LONGEST:
        raise violated(path, len(text), f"have length less than or equal to {LONGEST}")
    return text


def _choice(value: str, path: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise violated(path, value, f"satisfy enum value set: [{', '.join(choices)}]")


def _least(number: int, what: str = "length") -> str:
    return f"have {what} greater than or equal to {number}"

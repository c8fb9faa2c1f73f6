"""Passages scored against a question by a model, behind one interface; Bedrock's Rerank is the model's way in, on AWS
(amazon.rerank-v1:0, cohere.rerank-v3-5:0) and here (preheat.late-interaction-v1)."""

from collections.abc import Sequence
from typing import Any, Protocol

LONGEST_TEXT = 32_000
NO_MODEL = "none"


class RerankUnavailable(Exception):
    """No scores can be had; the message says why."""


class Reranker(Protocol):
    """`model` is "none" where there is no model."""

    model: str

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """One relevance a passage, higher is better. Raises RerankUnavailable."""


class NoRerank:
    model = NO_MODEL

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        raise RerankUnavailable("no reranking model is configured")


class BedrockReranker:
    """`client` is boto3's bedrock-agent-runtime; `model` is a model id or the ARN of one. Of an id the ARN is made with
    the client's region."""

    def __init__(self, client: Any, model: str) -> None:
        self.model = model
        self._client = client
        arn = f"arn:aws:bedrock:{client.meta.region_name}::foundation-model/{model}"
        self._arn = model if model.startswith("arn:") else arn

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        from botocore.exceptions import BotoCoreError, ClientError

        if not passages:
            return []
        scores: dict[int, float] = {}
        asked = self._request(query, passages)
        token: dict[str, str] = {}
        try:
            while True:
                reply = self._client.rerank(**asked, **token)
                scores.update((one["index"], float(one["relevanceScore"])) for one in reply["results"])
                if not reply.get("nextToken"):
                    break
                token = {"nextToken": reply["nextToken"]}
        except (ClientError, BotoCoreError) as error:
            raise RerankUnavailable(f"the model {self.model} failed: {error}") from error
        if sorted(scores) != list(range(len(passages))):
            raise RerankUnavailable(f"the model {self.model} scored {len(scores)} of {len(passages)} passages")
        return [scores[at] for at in range(len(passages))]

    def _request(self, query: str, passages: Sequence[str]) -> dict[str, Any]:
        """Texts must not be empty, and not too long."""
        sources = [
            {
                "type": "INLINE",
                "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": _text(passage)}},
            }
            for passage in passages
        ]
        model = {"modelConfiguration": {"modelArn": self._arn}, "numberOfResults": len(passages)}
        return {
            "queries": [{"type": "TEXT", "textQuery": {"text": _text(query)}}],
            "sources": sources,
            "rerankingConfiguration": {"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration": model},
        }


def _text(text: str) -> str:
    return text[:LONGEST_TEXT] or " "

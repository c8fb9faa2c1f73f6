"""Texts -> vectors by Bedrock's InvokeModel.

Models whose id begins with `cohere.`, and Preheat's own, take many texts a call; all others take Titan's body, one text
a call.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

NO_MODEL = "none"
BATCHED = ("cohere.", "preheat.")
COHERE_BATCH = 96
COHERE_CHARACTERS = 2_048
TITAN_CHARACTERS = 50_000


class EmbeddingUnavailable(Exception):
    """No vectors can be had: no model is configured, or the model failed. The message says which."""


class Embedder(Protocol):
    """`model` is the id that is stored beside every vector."""

    model: str

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text. Raises EmbeddingUnavailable."""

    def query(self, text: str) -> list[float]:
        """Raises EmbeddingUnavailable."""


class BedrockEmbedder:
    """`client` is boto3's bedrock-runtime; `dimension` is asked for where the model has a choice."""

    def __init__(self, client: Any, model: str, dimension: int | None = None, parallel: int = 4) -> None:
        self.model = model or NO_MODEL
        self._client = client
        self._dimension = dimension
        self._parallel = parallel

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        if self.model == NO_MODEL:
            raise EmbeddingUnavailable("no embedding model is configured")
        if not texts:
            return []
        if self.model.startswith(BATCHED):
            calls = [list(texts[at : at + COHERE_BATCH]) for at in range(0, len(texts), COHERE_BATCH)]
            vectors = self._map(lambda batch: self._cohere(batch, "search_document"), calls)
            return [vector for batch in vectors for vector in batch]
        return self._map(self._titan, list(texts))

    def query(self, text: str) -> list[float]:
        if self.model == NO_MODEL:
            raise EmbeddingUnavailable("no embedding model is configured")
        return self._cohere([text], "search_query")[0] if self.model.startswith(BATCHED) else self._titan(text)

    def _map(self, call: Any, items: list) -> list:
        if len(items) == 1:
            return [call(items[0])]
        with ThreadPoolExecutor(min(self._parallel, len(items))) as pool:
            return list(pool.map(call, items))

    def _titan(self, text: str) -> list[float]:
        body: dict[str, Any] = {"inputText": text[:TITAN_CHARACTERS]}
        if self._dimension and "titan-embed-text-v1" not in self.model:
            body["dimensions"] = self._dimension
        vector = self._invoke(body).get("embedding")
        if not isinstance(vector, list):
            raise EmbeddingUnavailable(f"the model {self.model} answered without an embedding")
        return vector

    def _cohere(self, texts: list[str], kind: Literal["search_document", "search_query"]) -> list[list[float]]:
        body = {"texts": [text[:COHERE_CHARACTERS] for text in texts], "input_type": kind, "truncate": "END"}
        vectors = self._invoke(body).get("embeddings")
        if isinstance(vectors, dict):
            vectors = vectors.get("float")
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            raise EmbeddingUnavailable(f"the model {self.model} answered without embeddings")
        return vectors

    def _invoke(self, body: dict[str, Any]) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            reply = self._client.invoke_model(
                modelId=self.model, body=json.dumps(body), contentType="application/json", accept="application/json"
            )
            answer = json.loads(reply["body"].read())
        except (ClientError, BotoCoreError, ValueError) as error:
            raise EmbeddingUnavailable(f"the model {self.model} failed: {error}") from error
        if not isinstance(answer, dict):
            raise EmbeddingUnavailable(f"the model {self.model} answered with something else than an object")
        return answer

"""Texts -> vectors by Bedrock's InvokeModel.

Models whose id begins with `cohere.`, and Preheat's own, take many texts a call; all others take Titan's body, one text
a call. A text that is longer than the model reads at once is embedded in pieces, and its vector is their weighted mean:
nothing is cut off silently. Which text is too long is estimated first and told by the model in the end: Titan counts in
its answer, Cohere's bodies ask for `truncate: NONE` and are refused.
"""

import json
import math
import operator
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ragkit.tokens import SPECIAL, estimate, pieces

NO_MODEL = "none"
BATCHED = ("cohere.", "preheat.")
COHERE_BATCH = 96
COHERE_CHARACTERS = 2_048
TITAN_CHARACTERS = 50_000
WINDOW = 256
SURE = 0.85
"""Of the window: an estimate up to this is taken to fit; the model says so when it does not."""
CORRECTIONS, STEP = 8, 1.3
FORGETTING = 0.2
FIRST_COUNTS = 3
"""How much the first piece of a long text weighs: it says what the text is about. On the collections of
`bench/retrieval.py` this keeps what the first window alone finds, and finds what stands further down as well."""
LONGEST_HEADING = 0.25
"""Of the window: a first paragraph up to this goes with every piece of a text."""
THROTTLES = frozenset(("ThrottlingException", "TooManyRequestsException", "ModelNotReadyException"))
_TOO_LONG = re.compile(
    r"too many (?:input )?tokens|too long|longer than|truncate is none|exceeds? the max|maximum (?:length|tokens)",
    re.IGNORECASE,
)
_WHICH = re.compile(r"texts\[(\d+)\] has (\d+) tokens")
_COUNTED = re.compile(r"request input token count: (\d+)")
_COUNT = "x-amzn-bedrock-input-token-count"


class EmbeddingUnavailable(Exception):
    """No vectors can be had: no model is configured, or the model failed. The message says which."""


class TooLong(Exception):
    """The model does not read so much at once. `ratio` is of its count of the text to the estimate, 0 when unknown."""

    def __init__(self, ratio: float = 0.0) -> None:
        super().__init__("a text is longer than the model's window")
        self.ratio = ratio


class Embedder(Protocol):
    """`model` is the id that is stored beside every vector."""

    model: str

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text. Raises EmbeddingUnavailable."""

    def query(self, text: str) -> list[float]:
        """Raises EmbeddingUnavailable."""


@dataclass(frozen=True)
class Patience:
    """How long throttled calls for documents are made again, with pauses of full jitter up to `longest_s`. `clock` and
    `pause` take and give seconds, `chance` a number of [0, 1)."""

    total_s: float = 20.0
    first_s: float = 0.25
    longest_s: float = 4.0
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def turns(self) -> Iterator[None]:
        """One item a try, with the pauses between; ends when the next pause would go beyond the total."""
        end, bound = self.clock() + self.total_s, self.first_s
        while True:
            yield
            wait = self.chance() * bound
            if self.clock() + wait >= end:
                return
            self.pause(wait)
            bound = min(self.longest_s, 2 * bound)


class BedrockEmbedder:
    """`client` is boto3's bedrock-runtime; `dimension` is asked for where the model has a choice; `window` is how many
    tokens the model reads at once. One call at a time. What the model counts corrects the estimates that follow."""

    def __init__(
        self,
        client: Any,
        model: str,
        dimension: int | None = None,
        window: int = WINDOW,
        patience: Patience = Patience(),
    ) -> None:
        self.model = model or NO_MODEL
        self._client = client
        self._dimension = dimension
        self._window = window
        self._patience = patience
        self._batched = self.model.startswith(BATCHED)
        self._characters = COHERE_CHARACTERS if self._batched else TITAN_CHARACTERS
        self._scale = 1.0

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        if self.model == NO_MODEL:
            raise EmbeddingUnavailable("no embedding model is configured")
        size = COHERE_BATCH if self._batched else 1
        return [vector for at in range(0, len(texts), size) for vector in self._fitted(texts[at : at + size])]

    def _fitted(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text. Where the model says that one is too long, all are taken to be longer than estimated."""
        size = COHERE_BATCH if self._batched else 1
        for _ in range(CORRECTIONS):
            parts = [self._fitting(text) for text in texts]
            flat = [piece for some in parts for piece in some]
            try:
                made = [self._patiently(flat[at : at + size]) for at in range(0, len(flat), size)]
            except TooLong as long:
                self._scale = max(long.ratio / SURE, STEP * self._scale)
                continue
            vectors = iter([vector for some in made for vector in some])
            return [_mean(some, [next(vectors) for _ in some]) for some in parts]
        raise EmbeddingUnavailable(f"the model {self.model} takes no piece of the text, however short")

    def query(self, text: str) -> list[float]:
        """A question that is too long is cut."""
        if self.model == NO_MODEL:
            raise EmbeddingUnavailable("no embedding model is configured")
        text = text[: self._characters]
        if self._batched:
            return self._cohere([text], "search_query")[0]
        for _ in range(CORRECTIONS):
            try:
                return self._titan(text)[0]
            except TooLong as long:
                size = estimate(text)
                text = pieces(text, min(size / STEP, SURE * self._window / long.ratio if long.ratio else size))[0]
        raise EmbeddingUnavailable(f"the model {self.model} takes no piece of the question, however short")

    def _fitting(self, text: str) -> list[str]:
        """The text in pieces that should fit into the window and the call."""
        room = max(1.0, SURE * (self._window - SPECIAL) / self._scale)
        if estimate(text) <= room and len(text) <= self._characters:
            return [text]
        return self._parted(text, room)

    def _parted(self, text: str, room: float) -> list[str]:
        """Pieces of about the same length, each under the text's heading."""
        head, blank, rest = text.partition("\n\n")
        heading = head + blank if blank and "\n" not in head and estimate(head) <= LONGEST_HEADING * room else ""
        rest = rest if heading else text
        room -= estimate(heading)
        size = estimate(rest)
        limit = min(room, size / -(-size // room) + 0.02 * room)
        longest = self._characters - len(heading)
        found = [one[at : at + longest] for one in pieces(rest, limit) for at in range(0, len(one), longest)]
        return [heading + one for one in found] or [text[: self._characters]]

    def _patiently(self, texts: list[str]) -> list[list[float]]:
        """The vectors of one call's texts; made again while the model is throttled. Raises TooLong."""
        for _ in self._patience.turns():
            try:
                return self._call(texts)
            except EmbeddingUnavailable as error:
                if code(error) not in THROTTLES:
                    raise
                throttled = error
        raise throttled

    def _call(self, texts: list[str]) -> list[list[float]]:
        if self._batched:
            return self._cohere(texts, "search_document")
        vector, count = self._titan(texts[0])
        self._learn(texts, count)
        if count > self._window:
            raise TooLong(count / max(1.0, estimate(texts[0])))
        return [vector]

    def _learn(self, texts: Sequence[str], count: int) -> None:
        """From what the model counted: a higher count is believed at once, a lower one little by little."""
        if count:
            found = max(1.0, (count - SPECIAL * len(texts)) / max(1.0, sum(map(estimate, texts))))
            self._scale = max(found, self._scale + FORGETTING * (found - self._scale))

    def _titan(self, text: str) -> tuple[list[float], int]:
        """The vector, and how many tokens the model counted."""
        body: dict[str, Any] = {"inputText": text}
        if self._dimension and "titan-embed-text-v1" not in self.model:
            body["dimensions"] = self._dimension
        answer, _ = self._invoke(body)
        vector = answer.get("embedding")
        if not isinstance(vector, list):
            raise EmbeddingUnavailable(f"the model {self.model} answered without an embedding")
        return vector, int(answer.get("inputTextTokenCount") or 0)

    def _cohere(self, texts: list[str], kind: Literal["search_document", "search_query"]) -> list[list[float]]:
        truncate = "END" if kind == "search_query" else "NONE"
        answer, count = self._invoke({"texts": texts, "input_type": kind, "truncate": truncate})
        vectors = answer.get("embeddings")
        if isinstance(vectors, dict):
            vectors = vectors.get("float")
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            raise EmbeddingUnavailable(f"the model {self.model} answered without embeddings")
        if truncate == "NONE":
            self._learn(texts, count)
            if count > self._window * len(texts):
                raise TooLong(self._scale)
        return vectors

    def _invoke(self, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """The answer, and the tokens that its head tells, 0 when it does not."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            reply = self._client.invoke_model(
                modelId=self.model, body=json.dumps(body), contentType="application/json", accept="application/json"
            )
            answer = json.loads(reply["body"].read())
        except (ClientError, BotoCoreError, ValueError) as error:
            found = _TOO_LONG.search(str(error)) if body.get("truncate") != "END" else None
            if found and isinstance(error, ClientError) and error.response["Error"]["Code"] == "ValidationException":
                raise TooLong(_ratio(str(error), body)) from error
            raise EmbeddingUnavailable(f"the model {self.model} failed: {error}") from error
        if not isinstance(answer, dict):
            raise EmbeddingUnavailable(f"the model {self.model} answered with something else than an object")
        headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return answer, int(headers.get(_COUNT) or 0)


def code(error: BaseException) -> str:
    """AWS's error code behind a package's own error, "" when there is none."""
    cause = error.__cause__
    response = getattr(cause, "response", None)
    return response["Error"]["Code"] if isinstance(response, dict) else ""


def _ratio(message: str, body: dict[str, Any]) -> float:
    """Of the count that the model's refusal tells to the estimate, 0 when it tells none."""
    which, counted = _WHICH.search(message), _COUNTED.search(message)
    if which is not None and int(which[1]) < len(body.get("texts", ())):
        return int(which[2]) / max(1.0, estimate(body["texts"][int(which[1])]))
    if counted is not None and "inputText" in body:
        return int(counted[1]) / max(1.0, estimate(body["inputText"]))
    return 0.0


def _mean(texts: Sequence[str], vectors: Sequence[list[float]]) -> list[float]:
    """The vectors' mean by the texts' lengths, the first weighing more, of length 1; a single vector stays as it is."""
    if len(vectors) == 1:
        return vectors[0]
    lengths = [max(1.0, estimate(text)) for text in texts]
    summed = [FIRST_COUNTS * lengths[0] * value for value in vectors[0]]
    for length, vector in zip(lengths[1:], vectors[1:]):
        summed = [so_far + length * value for so_far, value in zip(summed, vector)]
    norm = math.sqrt(math.fsum(map(operator.mul, summed, summed)))
    return [value / norm for value in summed] if norm else vectors[0]

"""A prompt -> the text of an answer, piece by piece, by Bedrock's ConverseStream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ragkit.guardrails import INTERVENED, MASKED, Guardrail, NoGuardrail, blocked
from ragkit.prompt import parts

LONGEST_QUERY = 1_000
"""Characters of a question that a guardrail's relevance check takes."""

Message = dict[str, str]
"""`role` ("user" or "assistant") and `text`."""


class GenerationUnavailable(Exception):
    """No answer can be had: the model failed. The message says how; `__cause__` is the client's error."""


@dataclass
class Usage:
    """Tokens, as the model counts them; known when the generation has ended."""

    input: int = 0
    output: int = 0


class Generation(Protocol):
    """Iterate it for pieces of text. `usage` and `stop_reason` hold afterwards; the latter is the model's, or
    `guardrail_masked` where a guardrail changed the answer and did not block it. `close()` gives up what is left."""

    usage: Usage
    stop_reason: str

    def __iter__(self) -> Iterator[str]:
        """Raises GenerationUnavailable."""

    def close(self) -> None: ...


class Generator(Protocol):
    model: str

    def stream(self, system: str, messages: Sequence[Message], max_tokens: int) -> Generation:
        """Raises GenerationUnavailable, here or while it is iterated."""


class BedrockGenerator:
    """`client` is boto3's bedrock-runtime. With a guardrail the question and the answer are checked, and the passages
    are what the answer must be grounded in."""

    def __init__(self, client: Any, model: str, guardrail: Guardrail | None = None) -> None:
        self.model = model
        self._client = client
        self._extra = (guardrail or NoGuardrail()).configuration()

    def stream(self, system: str, messages: Sequence[Message], max_tokens: int) -> "BedrockGeneration":
        content = [{"role": one["role"], "content": [{"text": one["text"]}]} for one in messages]
        if self._extra:
            content[-1]["content"] = _guarded(messages[-1]["text"])
        try:
            reply = self._client.converse_stream(
                modelId=self.model,
                system=[{"text": system}],
                messages=content,
                inferenceConfig={"maxTokens": max_tokens, "temperature": 0.0},
                **self._extra,
            )
        except (ClientError, BotoCoreError) as error:
            raise GenerationUnavailable(f"the model {self.model} failed: {error}") from error
        return BedrockGeneration(self.model, reply["stream"])


def _guarded(text: str) -> list[Any]:
    """The message's parts as a guardrail is to read them."""
    passages, question = parts(text)
    qualifiers = ["query", "guard_content"] if len(question) <= LONGEST_QUERY else ["guard_content"]
    asked = {"guardContent": {"text": {"text": question, "qualifiers": qualifiers}}}
    if not passages:
        return [asked]
    return [{"guardContent": {"text": {"text": passages, "qualifiers": ["grounding_source"]}}}, asked]


class BedrockGeneration:
    def __init__(self, model: str, stream: Any) -> None:
        self.usage = Usage()
        self.stop_reason = ""
        self._model = model
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        try:
            for event in self._stream:
                if "contentBlockDelta" in event:
                    yield event["contentBlockDelta"]["delta"].get("text", "")
                elif "messageStop" in event:
                    self.stop_reason = event["messageStop"]["stopReason"]
                elif "metadata" in event:
                    self._end(event["metadata"])
        except (ClientError, BotoCoreError, HTTPError, OSError) as error:
            raise GenerationUnavailable(f"the model {self._model} failed: {error}") from error

    def _end(self, metadata: dict[str, Any]) -> None:
        usage = metadata.get("usage", {})
        self.usage = Usage(usage.get("inputTokens", 0), usage.get("outputTokens", 0))
        if self.stop_reason == INTERVENED and not blocked(metadata.get("trace")):
            self.stop_reason = MASKED

    def close(self) -> None:
        self._stream.close()

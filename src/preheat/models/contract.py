"""What a model backend is. No AWS JSON here: texts and numbers in, texts and numbers out.

ModelError            a backend could not answer
  ModelInputError     the input does not fit the model
  ModelDenied         the backend refuses these credentials
  ModelThrottled      the backend asks to slow down
  ModelTimeout        no answer in time
  ModelUnavailable    the backend cannot be reached, or its weights are missing
  ModelFailed         the backend answered with an error of its own (`original_status`)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy

Kind = Literal["query", "document"]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "guardrail_intervened"]


class ModelError(Exception):
    """See the module's text."""


class ModelInputError(ModelError):
    pass


class ModelDenied(ModelError):
    pass


class ModelThrottled(ModelError):
    pass


class ModelTimeout(ModelError):
    pass


class ModelUnavailable(ModelError):
    pass


class ModelFailed(ModelError):
    def __init__(self, message: str, original_status: int = 500) -> None:
        super().__init__(message)
        self.original_status = original_status


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `role` is "user" or "assistant"."""

    role: str
    text: str


@dataclass(slots=True)
class Usage:
    """Tokens read and tokens written so far, as the backend counts them."""

    input_tokens: int = 0
    output_tokens: int = 0


class Embedder(Protocol):
    """Texts to vectors. Thread-safe. `max_tokens` is where a text is cut (0: never). `dimensions` are the lengths that
    `shorten` can give, `dimension` itself among them."""

    id: str
    dimension: int
    dimensions: tuple[int, ...]
    max_tokens: int

    def embed(self, texts: Sequence[str], kind: Kind = "document") -> "numpy.ndarray":
        """float32, shape (len(texts), dimension), rows of length 1 (a text without a word may give zeros).
        Raises ModelError."""

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole text, before it is cut."""

    def shorten(self, vector: "numpy.ndarray", dimension: int) -> "numpy.ndarray":
        """One vector of `embed` in another of the `dimensions`."""


class Generation(Protocol):
    """One answer in the making: iterate it for pieces of text. `usage` grows meanwhile; `stop_reason` and
    `stop_sequence` hold once the iteration has ended. `close()` gives up what is left."""

    usage: Usage
    stop_reason: StopReason
    stop_sequence: str | None

    def __iter__(self) -> Iterator[str]: ...

    def __next__(self) -> str: ...

    def close(self) -> None: ...


class Generator(Protocol):
    """Conversations to text. Thread-safe."""

    id: str

    def generate(
        self,
        messages: Sequence[Message],
        system: str = "",
        max_tokens: int = 1_024,
        stop: Sequence[str] = (),
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Generation:
        """Raises ModelError, here or while the generation is iterated."""

    def count_tokens(self, text: str) -> int: ...


class Reranker(Protocol):
    """Passages scored against a query. Thread-safe."""

    id: str

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """One relevance a text, 0 to 1, comparable between queries. Raises ModelError."""

    def count_tokens(self, text: str) -> int: ...

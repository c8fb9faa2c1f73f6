"""Which backend answers under which model id.

Configuration is a dict, model id to

    {"backend": "minilm" | "hashing" | "extractive" | "late-interaction" | "openai" | "bedrock", "options": {...},
     "requests_per_minute": number, "tokens_per_minute": number}

Options, by backend: minilm `engine` ("auto", "onnxruntime", "numpy"), `threads`, `max_tokens` (3-512), `dimension`
(384; more is filled with zeros, which changes no distance); hashing `dimension`; extractive `similarity` (true, false);
late-interaction (a reranker) `cache_mb` (0-65536: how much of passages' token vectors is kept in memory), `disk_mb`
(0-1048576, 2048 unless given: how much of them in the state directory);
openai `base_url`, `model`, `kind` ("chat", "embedding"), `dimension`, `api_key_env` (name of an environment variable),
`timeout_s`; bedrock `model_id`, `region`, `profile`, `endpoint_url`, `timeout_s`.
The default ids are always there; configuration may set their limits and options.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preheat.models.bedrock_passthrough import BedrockPassthrough
from preheat.models.contract import Embedder, Generator, Kind, Reranker
from preheat.models.extractive import ExtractiveAnswerer
from preheat.models.hashing import SIZES, HashingEmbedder
from preheat.models.late_interaction import CACHE_BYTES, LateInteraction
from preheat.models.limits import Limits
from preheat.models.minilm import DIMENSION, LONGEST, MAX_TOKENS, MiniLM, Seen
from preheat.models.token_store import TokenStore

if TYPE_CHECKING:
    import numpy

DISK_MB = 2_048
KEPT_QUESTIONS = 32
DEFAULTS: Mapping[str, str] = {
    "preheat.minilm-l6-v2": "minilm",
    "preheat.hashing-1024": "hashing",
    "preheat.extractive-v1": "extractive",
    "preheat.late-interaction-v1": "late-interaction",
}
OPTIONS: Mapping[str, frozenset[str]] = {
    "minilm": frozenset({"engine", "threads", "max_tokens", "dimension"}),
    "hashing": frozenset({"dimension"}),
    "extractive": frozenset({"similarity"}),
    "late-interaction": frozenset({"cache_mb", "disk_mb"}),
    "openai": frozenset({"base_url", "model", "kind", "dimension", "api_key_env", "timeout_s"}),
    "bedrock": frozenset({"model_id", "region", "profile", "endpoint_url", "timeout_s"}),
}
KEYS = frozenset({"backend", "options", "requests_per_minute", "tokens_per_minute"})

Backend = Embedder | Generator | Reranker | BedrockPassthrough


class ModelConfigurationError(ValueError):
    """The configuration of models is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class Model:
    """One id and what answers under it; exactly one of `embedder`, `generator`, `reranker`, `passthrough`
    is set."""

    id: str
    backend: str
    limits: Limits
    embedder: Embedder | None = None
    generator: Generator | None = None
    reranker: Reranker | None = None
    passthrough: BedrockPassthrough | None = None


class Registry:
    """Built from configuration once; raises ModelConfigurationError. Loads no weights and imports nothing heavy."""

    def __init__(self, configuration: Mapping[str, Any] | None = None, folder: Path | None = None) -> None:
        self._folder = folder
        self._late: LateInteraction | None = None
        self._minilm: dict[tuple[Any, ...], MiniLM] = {}
        self._lock = threading.Lock()
        self._models: dict[str, Model] = {}
        entries: dict[str, Any] = {id: {} for id in DEFAULTS}
        entries.update(configuration or {})
        for id, entry in entries.items():
            self._models[id] = self._build(id, entry)

    def find(self, id: str) -> Model | None:
        return self._models.get(id)

    def models(self) -> list[Model]:
        return list(self._models.values())

    def _build(self, id: str, entry: Any) -> Model:
        if not isinstance(entry, Mapping):
            raise ModelConfigurationError(f"models.{id}: expected a table, found {type(entry).__name__}")
        unknown = set(entry) - KEYS
        if unknown:
            raise ModelConfigurationError(f"models.{id}: unknown key {sorted(unknown)[0]!r}; known: {sorted(KEYS)}")
        backend = entry.get("backend", DEFAULTS.get(id))
        if backend not in OPTIONS:
            raise ModelConfigurationError(f"models.{id}: backend must be one of {sorted(OPTIONS)}, not {backend!r}")
        options = dict(entry.get("options") or {})
        unknown = set(options) - OPTIONS[backend]
        if unknown:
            raise ModelConfigurationError(
                f"models.{id}: {backend!r} has no option {sorted(unknown)[0]!r}; it has {sorted(OPTIONS[backend])}"
            )
        limits = Limits(_rate(id, entry, "requests_per_minute"), _rate(id, entry, "tokens_per_minute"))
        made = _BUILDERS[backend](self, id, options)
        if isinstance(made, BedrockPassthrough):
            return Model(id, backend, limits, passthrough=made)
        if hasattr(made, "embed"):
            return Model(id, backend, limits, embedder=made)
        if hasattr(made, "score"):
            return Model(id, backend, limits, reranker=made)
        return Model(id, backend, limits, generator=made)

    def minilm(self, engine: str = "auto", threads: int = 0, max_tokens: int = MAX_TOKENS) -> MiniLM:
        """The one MiniLM with these settings: however many ids use it, its weights are in memory once."""
        key = (engine, threads, max_tokens)
        with self._lock:
            if key not in self._minilm:
                self._minilm[key] = MiniLM(
                    engine=engine, threads=threads, max_tokens=max_tokens, recent=KEPT_QUESTIONS
                )  # fmt: skip
            return self._minilm[key]

    def _build_minilm(self, id: str, options: dict[str, Any]) -> Embedder:
        engine = _choice(id, options, "engine", ("auto", "onnxruntime", "numpy"))
        threads = _integer(id, options, "threads", 0, 0, 256)
        model = self.minilm(engine, threads, _integer(id, options, "max_tokens", MAX_TOKENS, 3, LONGEST))
        seen = self._remember if model is self.minilm() else None
        return Renamed(id, model, _integer(id, options, "dimension", DIMENSION, DIMENSION, 4_096), seen)

    def _build_hashing(self, id: str, options: dict[str, Any]) -> Embedder:
        return HashingEmbedder(id, _integer(id, options, "dimension", 1_024, 8, 4_096))

    def _build_extractive(self, id: str, options: dict[str, Any]) -> Generator:
        similarity = options.get("similarity", True)
        if not isinstance(similarity, bool):
            raise ModelConfigurationError(f"models.{id}: similarity must be true or false")
        model = self.minilm()
        return ExtractiveAnswerer(id, model if similarity and model.available() else None)

    def _build_late_interaction(self, id: str, options: dict[str, Any]) -> Reranker:
        kept_mb = _integer(id, options, "cache_mb", CACHE_BYTES >> 20, 0, 65_536)
        disk_mb = _integer(id, options, "disk_mb", DISK_MB, 0, 1_048_576)
        store = TokenStore(self._folder / id.replace(":", "-"), disk_mb << 20) if self._folder and disk_mb else None
        made = LateInteraction(id, self.minilm(), kept_mb << 20, store)
        self._late = self._late or made
        return made

    def _remember(self, text: str, vectors: "numpy.ndarray") -> None:
        """What a document's embedding computed anyway is kept for the reranker."""
        if self._late is not None:
            self._late.remember(text, vectors)

    def _build_openai(self, id: str, options: dict[str, Any]) -> Backend:
        from preheat.models.openai_compatible import ChatGenerator, Server, ServerEmbedder

        variable = options.get("api_key_env", "")
        if variable and variable not in os.environ:
            raise ModelConfigurationError(f"models.{id}: the environment variable {variable} is not set")
        try:
            server = Server(
                _text(id, options, "base_url"),
                os.environ.get(variable, "") if variable else "",
                float(options.get("timeout_s", 60.0)),
            )
        except ValueError as error:
            raise ModelConfigurationError(f"models.{id}: {error}") from error
        name = _text(id, options, "model")
        if _choice(id, options, "kind", ("chat", "embedding")) == "chat":
            return ChatGenerator(id, server, name)
        if "dimension" not in options:
            raise ModelConfigurationError(f"models.{id}: an embedding model needs its dimension")
        return ServerEmbedder(id, server, name, _integer(id, options, "dimension", 0, 1, 4_096))

    def _build_bedrock(self, id: str, options: dict[str, Any]) -> Backend:
        return BedrockPassthrough(
            id,
            options.get("model_id", id),
            region=options.get("region", "us-east-1"),
            profile=options.get("profile"),
            endpoint_url=options.get("endpoint_url"),
            timeout_s=float(options.get("timeout_s", 60.0)),
        )


class Renamed:
    """MiniLM under another id and, filled with zeros, in a larger dimension (cosine and distances stay the same)."""

    def __init__(self, id: str, model: MiniLM, dimension: int, seen: Seen | None = None) -> None:
        self._seen = seen
        self.id = id
        self.dimension = dimension
        self.dimensions = (*(size for size in SIZES if DIMENSION <= size < dimension), dimension)
        self.max_tokens = model.max_tokens
        self.model = model

    def embed(self, texts: Sequence[str], kind: Kind = "document") -> "numpy.ndarray":
        vectors = self.model.embed(texts, kind, self._seen if kind == "document" else None)
        if self.dimension == DIMENSION:
            return vectors
        import numpy

        return numpy.pad(vectors, ((0, 0), (0, self.dimension - DIMENSION)))

    def shorten(self, vector: "numpy.ndarray", dimension: int) -> "numpy.ndarray":
        """Only zeros are cut off."""
        return vector[:dimension]

    def count_tokens(self, text: str) -> int:
        return self.model.count_tokens(text)


_BUILDERS: Mapping[str, Callable[[Registry, str, dict[str, Any]], Any]] = {
    "minilm": Registry._build_minilm,
    "hashing": Registry._build_hashing,
    "extractive": Registry._build_extractive,
    "late-interaction": Registry._build_late_interaction,
    "openai": Registry._build_openai,
    "bedrock": Registry._build_bedrock,
}


def _rate(id: str, entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
        raise ModelConfigurationError(f"models.{id}: {key} must be a number above 0")
    return value


def _integer(id: str, options: Mapping[str, Any], key: str, default: int, least: int, most: int) -> int:
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ModelConfigurationError(f"models.{id}: {key} must be a whole number from {least} to {most}")
    return value


def _choice(id: str, options: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    value = options.get(key, allowed[0])
    if value not in allowed:
        raise ModelConfigurationError(f"models.{id}: {key} must be one of {list(allowed)}")
    return value


def _text(id: str, options: Mapping[str, Any], key: str) -> str:
    value = options.get(key)
    if not isinstance(value, str) or not value:
        raise ModelConfigurationError(f"models.{id}: {key} is required")
    return value

"""The template's environment variables -> clients, the store, the retriever; made once per environment. Each module of
handlers prepares what it uses while it is imported, so that the first question does not wait for it."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any

import boto3
from botocore.config import Config
from ragkit.answering import Answerer
from ragkit.embed import BedrockEmbedder
from ragkit.generate import BedrockGenerator
from ragkit.guards import GuardedEmbedder, GuardedGenerator, GuardedStore, Kept
from ragkit.identity import Directory
from ragkit.limits import Allowance, Limits
from ragkit.metrics import Metrics
from ragkit.push import ConnectionPush, NoPush, Push
from ragkit.resilience import Breaker
from ragkit.retrieve import Retriever
from ragkit.sessions import Sessions
from ragkit.store import S3VectorStore
from ragkit.versions import Recipe, Registry

TIMEOUTS: dict[str, tuple[float, int]] = {
    "bedrock-runtime": (20, 2), "bedrock-agent-runtime": (10, 2), "s3vectors": (4, 3), "dynamodb": (2, 3),
    "sqs": (4, 3), "s3": (20, 2), "apigatewaymanagementapi": (2, 2),
}  # fmt: skip
"""Seconds without a byte until a call is given up, and how often it is made. Together they are less than the timeout of
every function that waits for the service, and each function's is less than its queue's visibility timeout."""
SLOW_SEARCH_S = float(os.environ.get("HEDGE_SEARCH_AFTER_S", "0"))
KEPT_EMBEDDINGS = 2_000
SEARCHES_AT_ONCE = 16


def config(service: str) -> Config:
    """Retries are of transient errors only, after exponential pauses with full jitter."""
    seconds, attempts = TIMEOUTS[service]
    return Config(
        connect_timeout=1, read_timeout=seconds, tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": attempts},
        signature_version="s3v4" if service == "s3" else "v4",
    )  # fmt: skip


@cache
def client(service: str) -> Any:
    return boto3.client(service, config=config(service))


def prepare(*services: str) -> None:
    """Make the clients now."""
    for service in services:
        client(service)


@cache
def resource(service: str) -> Any:
    return boto3.resource(service, config=config(service))


@cache
def table(variable: str) -> Any:
    """The DynamoDB table that the variable names."""
    return resource("dynamodb").Table(os.environ[variable])


@lru_cache(maxsize=1)
def registry() -> Registry:
    return Registry(table("SETTINGS_TABLE"))


METRICS = Metrics(os.environ.get("STACK_NAME", "rag"))


@cache
def breaker(name: str) -> Breaker:
    return Breaker(name)


@cache
def searches() -> ThreadPoolExecutor:
    """Threads for searches that are made twice when they are slow."""
    return ThreadPoolExecutor(SEARCHES_AT_ONCE)


@lru_cache(maxsize=8)
def embedder(recipe: Recipe) -> GuardedEmbedder:
    inner = BedrockEmbedder(client("bedrock-runtime"), recipe.model, recipe.dimension)
    return GuardedEmbedder(inner, breaker(f"the model {recipe.model}"), None, Kept(KEPT_EMBEDDINGS), METRICS.record)


@lru_cache(maxsize=8)
def store(recipe: Recipe) -> GuardedStore:
    inner = S3VectorStore(client("s3vectors"), os.environ["VECTOR_BUCKET"], recipe.index, recipe.dimension)
    return GuardedStore(inner, breaker("the vector store"), searches() if SLOW_SEARCH_S else None, SLOW_SEARCH_S)


def retriever() -> Retriever:
    """Over the index that is live."""
    return _retriever(registry().current().live)


@lru_cache(maxsize=8)
def _retriever(recipe: Recipe) -> Retriever:
    return Retriever(store(recipe), embedder(recipe))


def answerer() -> Answerer:
    return Answerer(retriever(), generator())


@lru_cache(maxsize=1)
def generator() -> GuardedGenerator:
    model = os.environ["GENERATION_MODEL_ID"]
    return GuardedGenerator(BedrockGenerator(client("bedrock-runtime"), model), breaker(f"the model {model}"))


@lru_cache(maxsize=1)
def sessions() -> Sessions:
    return Sessions(table("SESSIONS_TABLE"))


@lru_cache(maxsize=1)
def limits() -> Limits:
    return Limits(table("LIMITS_TABLE"))


@lru_cache(maxsize=1)
def directory() -> Directory:
    usual = Allowance(int(os.environ["REQUESTS_A_MINUTE"]), int(os.environ["TOKENS_A_DAY"]))
    return Directory(table("ACCESS_TABLE"), usual)


def push(connection: dict[str, str] | None) -> Push:
    """To the WebSocket that a question came by; nowhere when it came otherwise."""
    if connection is None:
        return NoPush()
    service = "apigatewaymanagementapi"
    return ConnectionPush(
        boto3.client(service, endpoint_url=connection["endpoint"], config=config(service)), connection["id"]
    )

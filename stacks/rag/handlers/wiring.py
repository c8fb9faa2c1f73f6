"""The template's environment variables -> clients, the store, the retriever; made once per environment. Each module of
handlers prepares what it uses while it is imported, so that the first question does not wait for it."""

import os
from functools import cache, lru_cache
from typing import Any

import boto3
from botocore.config import Config
from ragkit.answering import Answerer
from ragkit.embed import BedrockEmbedder
from ragkit.generate import BedrockGenerator
from ragkit.retrieve import Retriever
from ragkit.store import S3VectorStore, VectorStore
from ragkit.versions import Recipe, Registry

CLIENTS = Config(
    connect_timeout=2, read_timeout=30, tcp_keepalive=True, retries={"mode": "standard", "max_attempts": 4}
)  # fmt: skip


@cache
def client(service: str) -> Any:
    return boto3.client(service, config=CLIENTS)


def prepare(*services: str) -> None:
    """Make the clients now."""
    for service in services:
        client(service)


@cache
def resource(service: str) -> Any:
    return boto3.resource(service, config=CLIENTS)


@cache
def table(variable: str) -> Any:
    """The DynamoDB table that the variable names."""
    return resource("dynamodb").Table(os.environ[variable])


@lru_cache(maxsize=1)
def registry() -> Registry:
    return Registry(table("SETTINGS_TABLE"))


@lru_cache(maxsize=8)
def embedder(recipe: Recipe) -> BedrockEmbedder:
    return BedrockEmbedder(client("bedrock-runtime"), recipe.model, recipe.dimension)


@lru_cache(maxsize=8)
def store(recipe: Recipe) -> VectorStore:
    return S3VectorStore(client("s3vectors"), os.environ["VECTOR_BUCKET"], recipe.index, recipe.dimension)


def retriever() -> Retriever:
    """Over the index that is live."""
    return _retriever(registry().current().live)


@lru_cache(maxsize=8)
def _retriever(recipe: Recipe) -> Retriever:
    return Retriever(store(recipe), embedder(recipe))


def answerer() -> Answerer:
    return Answerer(retriever(), generator())


@lru_cache(maxsize=1)
def generator() -> BedrockGenerator:
    return BedrockGenerator(client("bedrock-runtime"), os.environ["GENERATION_MODEL_ID"])

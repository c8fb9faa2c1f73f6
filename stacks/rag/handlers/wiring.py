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
from ragkit.store import S3VectorStore

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
def table(variable: str) -> Any:
    """The DynamoDB table that the variable names."""
    return boto3.resource("dynamodb", config=CLIENTS).Table(os.environ[variable])


@lru_cache(maxsize=1)
def embedder() -> BedrockEmbedder:
    dimension = int(os.environ["EMBEDDING_DIMENSION"])
    return BedrockEmbedder(client("bedrock-runtime"), os.environ["EMBEDDING_MODEL_ID"], dimension)


@lru_cache(maxsize=1)
def store() -> S3VectorStore:
    dimension = int(os.environ["EMBEDDING_DIMENSION"])
    return S3VectorStore(client("s3vectors"), os.environ["VECTOR_BUCKET"], os.environ["VECTOR_INDEX"], dimension)


@lru_cache(maxsize=1)
def retriever() -> Retriever:
    return Retriever(store(), embedder())


@lru_cache(maxsize=1)
def answerer() -> Answerer:
    return Answerer(retriever(), BedrockGenerator(client("bedrock-runtime"), os.environ["GENERATION_MODEL_ID"]))

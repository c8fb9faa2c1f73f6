"""The template's environment variables -> clients, the store, the retriever; made once per environment. Each module of
handlers prepares what it uses while it is imported, so that the first question does not wait for it."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any

import boto3
from botocore.config import Config
from ragkit.answering import Answerer
from ragkit.answering import Settings as AnswerSettings
from ragkit.caching import AnswerCache, Answering, CachingAnswerer, Epoch
from ragkit.embed import BedrockEmbedder
from ragkit.evidence import Judge, Watched
from ragkit.generate import BedrockGenerator
from ragkit.guardrails import BedrockGuardrail, Guardrail, NoGuardrail
from ragkit.guards import GuardedEmbedder, GuardedGenerator, GuardedReranker, GuardedStore, Kept
from ragkit.identity import Directory
from ragkit.intent import IntentAnswerer
from ragkit.lean import AGENT
from ragkit.limits import Allowance, Limits
from ragkit.metrics import Metrics
from ragkit.push import ConnectionPush, NoPush, Push
from ragkit.rerank import NO_MODEL, BedrockReranker, NoRerank, Reranker
from ragkit.resilience import Breaker, Bulkhead, Invocation, guard_client, timed
from ragkit.retrieve import Retriever
from ragkit.retrieve import Settings as RetrievalSettings
from ragkit.sessions import Sessions
from ragkit.stores.choice import open_store
from ragkit.trace import libraries_too
from ragkit.versions import Recipe, Registry
from ragkit.wordings import ModelWordings, NoWordings, Wordings

TIMEOUTS: dict[str, tuple[float, int]] = {
    "bedrock-runtime": (float(os.environ.get("MODEL_TIMEOUT_S", "20")), 2), "bedrock-agent-runtime": (10, 2),
    "s3vectors": (4, 3), "dynamodb": (2, 3), "sqs": (4, 3), "s3": (20, 2), "apigatewaymanagementapi": (2, 2),
    "secretsmanager": (2, 3),
}  # fmt: skip
"""Seconds without a byte until a call is given up, and how often it is made. No try is begun that might outlast the
function's timeout (`longest`), and each function's is less than its queue's visibility timeout."""
CONNECT_S = 1
WRITTEN_AT_THE_END = frozenset(("dynamodb", "sqs"))
AT_THE_END_S = 8
"""For a try of the table and one of the queue, once an answer has come to its end one way or the other."""
SLOW_SEARCH_S = float(os.environ.get("HEDGE_SEARCH_AFTER_S", "0"))
KEPT_EMBEDDINGS = 2_000
SEARCHES_AT_ONCE = 16
QUESTIONS_AT_ONCE, DOCUMENTS_AT_ONCE = 16, 4
"""Embedding calls of one process, of either kind."""
GUARDED_ELSEWHERE = frozenset(("bedrock-runtime", "bedrock-agent-runtime", "s3vectors"))
"""Services whose calls are behind a breaker a model or an index, and not one for the whole client."""


def config(service: str) -> Config:
    """Retries are of transient errors only, after exponential pauses with full jitter."""
    seconds, attempts = TIMEOUTS[service]
    return Config(
        connect_timeout=CONNECT_S, read_timeout=seconds, tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": attempts},
        signature_version="s3v4" if service == "s3" else "v4", max_pool_connections=50, user_agent=AGENT,
    )  # fmt: skip


@lru_cache(maxsize=1)
def invocation() -> Invocation:
    return Invocation()


def longest(service: str) -> float:
    """Seconds that one try of a call may take, and that are then left for what must be written at the end."""
    return CONNECT_S + TIMEOUTS[service][0] + (0 if service in WRITTEN_AT_THE_END else AT_THE_END_S)


@cache
def client(service: str) -> Any:
    made = timed(boto3.client(service, config=config(service)), invocation(), longest(service))
    return made if service in GUARDED_ELSEWHERE else guard_client(made, breaker(service))


def prepare(*services: str) -> None:
    """Make the clients now; for DynamoDB what its tables are had from."""
    for service in services:
        resource(service) if service == "dynamodb" else client(service)


def prepare_answers() -> None:
    """Make what answers questions, as far as nobody must be asked for it."""
    prepare("bedrock-runtime", "s3vectors", "dynamodb")
    reranker()
    generator()


@cache
def resource(service: str) -> Any:
    made = boto3.resource(service, config=config(service))
    guard_client(timed(made.meta.client, invocation(), longest(service)), breaker(service))
    return made


@cache
def table(variable: str) -> Any:
    """The DynamoDB table that the variable names."""
    return resource("dynamodb").Table(os.environ[variable])


@lru_cache(maxsize=1)
def registry() -> Registry:
    return Registry(table("SETTINGS_TABLE"))


libraries_too()
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
    inner = BedrockEmbedder(client("bedrock-runtime"), recipe.model, recipe.dimension, window=recipe.sizes.window)
    name = f"the model {recipe.model}"
    questions, documents = Bulkhead(name, QUESTIONS_AT_ONCE), Bulkhead(name, DOCUMENTS_AT_ONCE)
    return GuardedEmbedder(inner, breaker(name), questions, Kept(KEPT_EMBEDDINGS), METRICS.record, documents)


@lru_cache(maxsize=8)
def store(recipe: Recipe) -> GuardedStore:
    inner = open_store(recipe.store, recipe, os.environ, client)
    again = searches() if SLOW_SEARCH_S else None
    return GuardedStore(inner, breaker("the vector store"), again, SLOW_SEARCH_S, epoch().begin)


@lru_cache(maxsize=1)
def epoch() -> Epoch:
    return Epoch(table("SETTINGS_TABLE"))


@lru_cache(maxsize=8)
def _retriever(recipe: Recipe) -> Retriever:
    settings = RetrievalSettings(
        diversity=float(os.environ.get("DIVERSITY", "0")), neighbours=int(os.environ.get("NEIGHBOURS", "0"))
    )
    return Retriever(watched(recipe), embedder(recipe), settings, reranker())


@lru_cache(maxsize=1)
def reranker() -> Reranker:
    model = os.environ.get("RERANK_MODEL_ID", NO_MODEL)
    if model == NO_MODEL:
        return NoRerank()
    inner = BedrockReranker(client("bedrock-agent-runtime"), model)
    return GuardedReranker(inner, breaker(f"the model {model}"))


@lru_cache(maxsize=8)
def watched(recipe: Recipe) -> Watched:
    return Watched(store(recipe))


@lru_cache(maxsize=1)
def guardrail() -> Guardrail:
    id = os.environ.get("GUARDRAIL_ID", "none")
    return NoGuardrail() if id == "none" else BedrockGuardrail(
        client("bedrock-runtime"), id, os.environ["GUARDRAIL_VERSION"]
    )  # fmt: skip


def answerer() -> Answering:
    """With the cache of answers in front where the template asks for it, and small talk taken out before."""
    live = registry().current().live
    settings = AnswerSettings(passages_only=os.environ.get("PASSAGES_ONLY", "true") == "true")
    judge = Judge((live.model, os.environ.get("RERANK_MODEL_ID", "none")), watched(live))
    inner = Answerer(_retriever(live), generator(), settings, guardrail(), judge, embedder(live), wordings())
    if os.environ.get("SEMANTIC_CACHE", "off") != "on":
        return IntentAnswerer(inner, METRICS.record)
    names = (
        "GENERATION_MODEL_ID", "RERANK_MODEL_ID", "GUARDRAIL_ID", "GUARDRAIL_VERSION", "DIVERSITY", "NEIGHBOURS",
        "WORDINGS",
    )  # fmt: skip
    recipe = " ".join([live.id, *(os.environ.get(name, "none") for name in names)])
    cached = CachingAnswerer(inner, answers(), embedder(live), recipe, METRICS.record)
    return IntentAnswerer(cached, METRICS.record)


@lru_cache(maxsize=1)
def answers() -> AnswerCache:
    names = os.environ["ANSWERS_TABLE"], os.environ["SETTINGS_TABLE"]
    return AnswerCache(resource("dynamodb"), *names, int(os.environ["CACHED_S"]))


@lru_cache(maxsize=1)
def generator() -> GuardedGenerator:
    model = os.environ["GENERATION_MODEL_ID"]
    inner = BedrockGenerator(client("bedrock-runtime"), model, guardrail())
    return GuardedGenerator(inner, breaker(f"the model {model}"), lambda: invocation().left() - AT_THE_END_S)


@lru_cache(maxsize=1)
def wordings() -> Wordings:
    count = int(os.environ.get("WORDINGS", "0"))
    return ModelWordings(generator(), count) if count else NoWordings()


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


def push(connection: dict[str, str] | None, job: str) -> Push:
    """To the WebSocket that a job's question came by; nowhere when it came otherwise."""
    if connection is None:
        return NoPush()
    service = "apigatewaymanagementapi"
    return ConnectionPush(
        boto3.client(service, endpoint_url=connection["endpoint"], config=config(service)), connection["id"], job
    )

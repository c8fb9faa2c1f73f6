"""Reranking without sockets: Bedrock's Rerank, and InvokeModel in Amazon's and Cohere's formats."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.models.contract import ModelUnavailable
from preheat.models.limits import Limits
from preheat.models.registry import Model, Registry
from preheat.models.sentences import terms
from preheat.services.bedrock_agent_runtime.service import build as build_agent
from preheat.services.bedrock_runtime.service import build as build_runtime
from tests.support.inprocess import InProcess

MODEL, ARN = "example.rerank-v1", "arn:aws:bedrock:us-east-1::foundation-model/example.rerank-v1"
TEXTS = ("Bananas are yellow.", "Messages stay in the queue for four days.", "The queue is long.")
QUESTION = "How long do messages stay in the queue?"


class ByTerms:
    """A `models.contract.Reranker`: the share of the query's terms that a text has."""

    id = MODEL

    def score(self, query, texts):
        wanted = set(terms(query))
        if query == "unavailable":
            raise ModelUnavailable("not there")
        return [len(wanted & set(terms(text))) / len(wanted) for text in texts]

    def count_tokens(self, text):
        return len(text.split())


class OneMore(Registry):
    """The platform's models and one that reranks."""

    def __init__(self, limits):
        super().__init__()
        self.extra = Model(MODEL, "terms", limits, reranker=ByTerms())

    def find(self, id):
        return self.extra if id == MODEL else super().find(id)


def make(limits=None):
    return InProcess(lambda platform: build_runtime(platform, OneMore(limits or Limits())), build_agent)


@pytest.fixture
def world():
    return make()


def source(document):
    kind, member = ("TEXT", "textDocument") if isinstance(document, str) else ("JSON", "jsonDocument")
    value = {"text": document} if isinstance(document, str) else document
    return {"type": "INLINE", "inlineDocumentSource": {"type": kind, member: value}}


def rerank(world, query=QUESTION, documents=TEXTS, model=ARN, fields=None, **more):
    settings = {"modelConfiguration": {"modelArn": model, "additionalModelRequestFields": fields or {}}, **more}
    return world(
        "bedrock-agent-runtime", "Rerank",
        queries=[{"type": "TEXT", "textQuery": {"text": query}}],
        sources=[source(document) for document in documents],
        rerankingConfiguration={"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration": settings},
    )["results"]  # fmt: skip


def invoke(world, **body):
    answer = world("bedrock-runtime", "InvokeModel", modelId=MODEL, body=json.dumps(body).encode())
    return json.loads(answer["body"])


def fails(call, code, text=""):
    with pytest.raises(AwsError) as caught:
        call()
    assert caught.value.code == code and text in caught.value.message, caught.value


def test_the_best_come_first(world):
    results = rerank(world)
    assert [one["index"] for one in results] == [1, 2, 0]
    assert results[0]["relevanceScore"] > results[1]["relevanceScore"] > results[2]["relevanceScore"] == 0.0
    assert [one["index"] for one in rerank(world, numberOfResults=1, model=MODEL)] == [1]


def test_json_documents_are_read(world):
    documents = [{"title": "Fruit", "body": {"text": "Bananas"}}, {"parts": ["Messages", "stay in the queue"]}]
    assert [one["index"] for one in rerank(world, documents=documents)] == [1, 0]


def test_long_documents_are_cut_on_request(world):
    documents = ["x " * 40 + QUESTION, "The queue"]
    assert rerank(world, documents=documents)[0]["index"] == 0
    assert rerank(world, documents=documents, fields={"max_tokens_per_doc": 5})[0]["index"] == 1


def test_amazons_format(world):
    answer = invoke(world, query=QUESTION, documents=list(TEXTS), top_n=2)
    assert [one["index"] for one in answer["results"]] == [1, 2]
    assert set(answer["results"][0]) == {"index", "relevance_score"}


def test_coheres_format(world):
    answer = invoke(world, query=QUESTION, documents=[*TEXTS, {"text": QUESTION}], api_version=2)
    assert next(one["index"] for one in answer["results"]) == 3 and len(answer["results"]) == 4


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"documents": ["a"]}, "required key [query]"),
        ({"query": "q", "documents": []}, "minimum item count"),
        ({"query": "q", "documents": ["a"] * 1_001}, "maximum item count"),
        ({"query": "", "documents": ["a"]}, "minLength"),
        ({"query": "q", "documents": [1]}, "expected type: String"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "not within"),
        ({"query": "q", "documents": ["a"], "max_tokens_per_doc": 5}, "extraneous key"),
        ({"query": "q", "documents": ["a"], "api_version": 1}, "api_version"),
    ],
)
def test_bodies_that_do_not_fit(world, body, text):
    fails(lambda: invoke(world, **body), "ValidationException", text)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"query": ""}, "greater than or equal to 1"),
        ({"query": "x" * 32_001}, "32000"),
        ({"documents": []}, "'sources'"),
        ({"documents": ["a"] * 1_001}, "'sources'"),
        ({"documents": [""]}, "greater than or equal to 1"),
        ({"documents": [{}]}, "empty"),
        ({"numberOfResults": 0}, "numberOfResults"),
        ({"numberOfResults": 1_001}, "numberOfResults"),
        ({"model": "not an arn"}, "modelArn"),
        ({"model": "no.such-model"}, "model identifier is invalid"),
        ({"model": "preheat.hashing-1024"}, "not supported for reranking"),
        ({"fields": {"warp": 1}}, "warp"),
    ],
)
def test_requests_that_do_not_fit(world, given, text):
    fails(lambda: rerank(world, **given), "ValidationException", text)


def test_a_model_that_fails(world):
    fails(lambda: rerank(world, query="unavailable"), "ServiceUnavailableException", "not there")


def test_rates_and_metrics():
    world = make(Limits(requests_per_minute=2))
    rerank(world)
    invoke(world, query="q", documents=["a"])
    fails(lambda: rerank(world), "ThrottlingException")
    world.advance(60)
    rerank(world)
    counted = {
        (series.namespace, series.name): sample.total for (series, _), sample in world.machine.meter.take().items()
        if series.dimensions == (("ModelId", MODEL),)
    }  # fmt: skip
    totals = {name: value for (_, name), value in counted.items()}
    assert totals["InvocationThrottles"] == 1 and totals["Invocations"] >= 1
    assert totals["InputTokenCount"] > 0 and totals["OutputTokenCount"] == 0


def test_a_reranker_does_not_stream(world):
    fails(
        lambda: world("bedrock-runtime", "InvokeModelWithResponseStream", modelId=MODEL, body=b"{}"),
        "ValidationException", "unsupported for streaming",
    )  # fmt: skip

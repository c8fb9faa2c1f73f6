"""QueryVectors past the client's own serialiser and parser: the same answers, the same refusals, the same retries."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.lean import AGENT, lean

from tests.support.endpoint import Endpoint

NAMES = {"vectorBucketName": "lean-bucket", "indexName": "lean"}
ROWS = [
    {"key": f"k{n}", "data": {"float32": [1.0, n / 7, -n / 3]}, "metadata": {"text": f"word{n % 3} né {n}", "n": n}}
    for n in range(30)
]


@pytest.fixture(scope="module")
def plain(aws):
    client = aws.client("s3vectors")
    client.create_vector_bucket(vectorBucketName=NAMES["vectorBucketName"])
    searched = {"textSearchConfigurations": [{"metadataKey": "text", "language": "en"}]}
    client.create_index(**NAMES, dataType="float32", dimension=3, distanceMetric="cosine",
                        metadataConfiguration={"nonFilterableMetadataKeys": ["text"], **searched})  # fmt: skip
    client.put_vectors(**NAMES, vectors=ROWS)
    return client


@pytest.fixture(scope="module")
def quick(aws, plain):
    client = aws.client("s3vectors")
    return lean(lean(client))


@pytest.mark.parametrize(
    "asked",
    [
        {"queryVector": {"float32": [0.1, 1e-9, -0.7654321]}, "topK": 7, "returnDistance": True},
        {"queryVector": {"float32": [1, 2, 3]}, "topK": 3, "returnMetadata": True, "filter": {"n": {"$gt": 4}}},
        {"queryTexts": [{"text": "word2", "metadataKey": "text"}], "topK": 20, "returnScores": True},
        {"queryVector": {"float32": [1.0, 0.0, 0.5]}, "queryTexts": [{"text": "né", "metadataKey": "text"}], "topK": 20,
         "returnScores": True, "returnDistance": True, "returnMetadata": True},
        {"queryTexts": [{"text": "nothing", "metadataKey": "text"}], "topK": 2},
    ],
)  # fmt: skip
def test_the_answer_is_the_same(plain, quick, asked):
    expected, found = plain.query_vectors(**NAMES, **asked), quick.query_vectors(**NAMES, **asked)
    told, head = expected.pop("ResponseMetadata"), found.pop("ResponseMetadata")
    assert found == expected and (found["vectors"] or asked["topK"] == 2)
    assert head.keys() == told.keys() and head["HTTPHeaders"].keys() == told["HTTPHeaders"].keys()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"queryVector": {"float32": [1.0, 2.0]}, "topK": 1}, ClientError),
        ({"queryVector": {"float32": [0.0, 0.0, 0.0]}, "topK": 1}, ClientError),
        ({"queryVector": {"float32": [1.0, 2.0, 3.0]}, "topK": 0}, ParamValidationError),
        ({"queryVector": {"float32": ["1", 2.0, 3.0]}, "topK": 1}, ParamValidationError),
        ({"queryVector": {"float64": [1.0, 2.0, 3.0]}, "topK": 1}, ParamValidationError),
        ({"queryVector": {"float32": [1.0, 2.0, 3.0]}}, ParamValidationError),
        ({"topK": 1}, ClientError),
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(plain, quick, asked, error):
    said = []
    for client in (plain, quick):
        with pytest.raises(error) as caught:
            client.query_vectors(**NAMES, **asked)
        said.append(str(caught.value))
    assert said[0] == said[1]


@contextmanager
def answering(*answers, **more):
    """(endpoint, client): what is asked of the client goes to the endpoint, which answers one after the other."""
    there = Endpoint(*answers)
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, **more)
    try:
        yield there, lean(boto3.client("s3vectors", endpoint_url=f"http://{there.address}", config=config, **keys))
    finally:
        there.close()


def test_a_call_that_is_made_again_carries_its_vector_again():
    hits = json.dumps({"vectors": [{"key": "k", "distance": 0.5}], "distanceMetric": "cosine"}).encode()
    with answering((503, b"{}"), (200, hits)) as (there, client):
        found = client.query_vectors(**NAMES, topK=1, queryVector={"float32": [0.25, 0.5]})
    assert [one["key"] for one in found["vectors"]] == ["k"] and found["ResponseMetadata"]["RetryAttempts"] == 1
    bodies = [json.loads(body) for _, body in there.posts]
    assert bodies == [{**NAMES, "topK": 1, "queryVector": {"float32": [0.25, 0.5]}}] * 2
    assert all("AWS4-HMAC-SHA256" in headers["Authorization"] for headers, _ in there.posts)


@pytest.mark.parametrize("answer", [b"<html>", b""])
def test_an_answer_that_is_no_object_is_read_by_the_client(answer):
    with answering((200, answer)) as (_, client):
        assert "vectors" not in client.query_vectors(**NAMES, topK=1, queryVector={"float32": [0.25, 0.5]})


def test_the_text_that_is_there_already_is_the_whole_user_agent_of_every_try():
    with answering((503, b"{}"), (200, b"{}"), user_agent=AGENT) as (there, client):
        client.query_vectors(**NAMES, topK=1, queryVector={"float32": [0.25, 0.5]})
    assert [headers["User-Agent"] for headers, _ in there.posts] == [f"{AGENT} Botocore/{botocore.__version__}"] * 2

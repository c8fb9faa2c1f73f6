"""S3 Vectors through boto3 and a live server: store, search three ways, restart."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.chunking import chunk
from ragkit.embed import BedrockEmbedder
from ragkit.extract import extract
from ragkit.retrieve import Retriever
from ragkit.store import S3VectorStore, index_configuration

from tests.support.server import wait_for

GUIDE = b"# Queues\n\nA message may be a megabyte long.\n\n# Functions\n\nA function runs for fifteen minutes.\n"


@pytest.fixture(scope="module")
def vectors(aws):
    client = aws.client("s3vectors")
    client.create_vector_bucket(vectorBucketName="accepted")
    return client


def create(client, index, dimension=3, metric="cosine", **more):
    names = {"vectorBucketName": "accepted", "indexName": index}
    client.create_index(**names, dataType="float32", dimension=dimension, distanceMetric=metric, **more)
    return names


def refused(call, code, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    assert caught.value.response["Error"]["Code"] == code
    return caught.value.response


def test_buckets_indexes_tags_and_policies(vectors):
    names = create(vectors, "described", tags={"team": "search"}, metadataConfiguration=index_configuration())
    index = vectors.get_index(**names)["index"]
    assert index["indexArn"].endswith(":bucket/accepted/index/described")
    assert index["creationTime"].tzinfo is not None
    assert index["metadataConfiguration"]["textSearchConfigurations"][0]["status"] == "ACTIVE"
    assert vectors.list_tags_for_resource(resourceArn=index["indexArn"])["tags"] == {"team": "search"}
    vectors.untag_resource(resourceArn=index["indexArn"], tagKeys=["team"])
    assert vectors.list_tags_for_resource(resourceArn=index["indexArn"])["tags"] == {}
    refused(vectors.get_vector_bucket_policy, "NotFoundException", vectorBucketName="accepted")
    pages = vectors.get_paginator("list_indexes").paginate(vectorBucketName="accepted", prefix="desc")
    assert [one["indexName"] for page in pages for one in page["indexes"]] == ["described"]
    vectors.delete_index(**names)
    assert refused(vectors.get_index, "NotFoundException", **names)["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_store_and_search_three_ways(vectors):
    text = {"textSearchConfigurations": [{"metadataKey": "t", "language": "en"}]}
    names = create(vectors, "searched", metadataConfiguration=text)
    rows = [
        {"key": "a", "data": {"float32": [1.0, 0.0, 0.0]}, "metadata": {"t": "Herons wade", "year": 2001}},
        {"key": "b", "data": {"float32": [0.0, 1.0, 0.0]}, "metadata": {"t": "A wading heron", "year": 2020}},
        {"key": "c", "data": {"float32": [0.0, 0.0, 2.5]}, "metadata": {"t": "Trains", "tags": ["x", "y"]}},
    ]
    vectors.put_vectors(**names, vectors=rows)
    near = vectors.query_vectors(
        **names, topK=2, queryVector={"float32": [0.1, 0.9, 0.0]}, returnDistance=True, returnMetadata=True
    )
    assert [one["key"] for one in near["vectors"]] == ["b", "a"]
    assert near["vectors"][0]["metadata"] == {"t": "A wading heron", "year": 2020}
    assert near["distanceMetric"] == "cosine"
    texts = [{"text": "heron", "metadataKey": "t"}]
    told = vectors.query_vectors(**names, topK=5, queryTexts=texts, returnScores=True)
    assert {one["key"] for one in told["vectors"]} == {"a", "b"}
    assert told["vectors"][0]["scores"]["bm25Scores"][0]["score"] > 0
    both = vectors.query_vectors(
        **names, topK=5, queryTexts=texts, queryVector={"float32": [0.0, 0.0, 1.0]}, returnScores=True,
        filter={"$or": [{"year": {"$gt": 2010}}, {"tags": "y"}]},
    )  # fmt: skip
    assert {one["key"] for one in both["vectors"]} == {"b", "c"}
    assert all(one["scores"]["fused"] > 0 for one in both["vectors"])
    got = vectors.get_vectors(**names, keys=["c"], returnData=True)["vectors"]
    assert got == [{"key": "c", "data": {"float32": [0.0, 0.0, 2.5]}}]
    vectors.delete_vectors(**names, keys=["a"])
    assert [one["key"] for one in vectors.list_vectors(**names)["vectors"]] == ["b", "c"]


def test_refusals_carry_their_fields(vectors):
    names = create(vectors, "refusing", metric="euclidean")
    bad = [{"key": "a", "data": {"float32": [1.0]}}]
    answer = refused(vectors.put_vectors, "ValidationException", **names, vectors=bad)
    assert answer["Error"]["Message"] == "Invalid record for key 'a': vector must have length 3, but has length 1"
    assert answer["fieldList"][0]["path"] == "vectors[0].data"
    query = {**names, "topK": 1, "queryVector": {"float32": [1.0, 1.0, 1.0]}}
    refused(vectors.query_vectors, "ValidationException", **query, filter={"a": {"$near": 1}})
    refused(vectors.query_vectors, "ValidationException", **{**query, "topK": 10_001})
    refused(vectors.create_vector_bucket, "ConflictException", vectorBucketName="accepted")
    refused(vectors.delete_vector_bucket, "ConflictException", vectorBucketName="accepted")


def test_many_clients_write_and_search_at_once(aws, vectors):
    names = create(vectors, "busy")

    def work(number):
        client = aws.client("s3vectors")
        for turn in range(8):
            rows = [
                {"key": f"{number}-{turn}-{n}", "data": {"float32": [number + 1.0, turn + 1.0, n + 1.0]}}
                for n in range(50)
            ]
            client.put_vectors(**names, vectors=rows)
            query = {"float32": rows[7]["data"]["float32"]}
            answer = client.query_vectors(**names, topK=1, queryVector=query, returnDistance=True)["vectors"]
            assert answer[0]["distance"] < 1e-6, answer
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    pages = vectors.get_paginator("list_vectors").paginate(**names, maxResults=300)
    assert len({one["key"] for page in pages for one in page["vectors"]}) == 4 * 8 * 50
    pages = vectors.get_paginator("query_vectors").paginate(**names, topK=1_500, queryVector={"float32": [1, 2, 3]})
    assert len({one["key"] for page in pages for one in page["vectors"]}) == 1_500


def test_ragkit_retrieves_over_the_wire(aws, vectors):
    create(vectors, "kit", dimension=1024, metadataConfiguration=index_configuration())
    store = S3VectorStore(vectors, "accepted", "kit", 1024)
    embedder = BedrockEmbedder(aws.client("bedrock-runtime"), "preheat.hashing-1024")
    chunks = chunk(extract("guide.md", GUIDE))
    assert store.replace("guide.md", chunks, embedder.documents, embedder.model).written == 2
    found = Retriever(store, embedder).search("How many minutes does a function run?", 1)
    assert (found.mode, found.passages[0].text) == ("hybrid", "A function runs for fifteen minutes.")
    missing = BedrockEmbedder(aws.client("bedrock-runtime"), "no.such-model")
    found = Retriever(store, missing).search("How long may a message be?", 1)
    assert (found.mode, found.passages[0].text) == ("lexical", "A message may be a megabyte long.")
    assert "no.such-model" in found.note


def test_vectors_survive_a_kill(fresh_server):
    server = fresh_server()
    client = server.client("s3vectors")
    client.create_vector_bucket(vectorBucketName="accepted")
    text = {"textSearchConfigurations": [{"metadataKey": "t"}]}
    names = create(client, "kept", metadataConfiguration=text)
    row = {"key": "a", "data": {"float32": [1.0, 0.0, 0.0]}, "metadata": {"t": "still here"}}
    client.put_vectors(**names, vectors=[row])
    server.kill()
    server.start()
    texts = [{"text": "still", "metadataKey": "t"}]
    found = server.client("s3vectors").query_vectors(**names, topK=1, queryTexts=texts)["vectors"]
    assert [one["key"] for one in found] == ["a"]


def test_search_structures_survive_a_kill(fresh_server):
    """Saved at a quiet moment, killed after later writes: the answers are those of before, from the saved copy."""
    server = fresh_server()
    client = server.client("s3vectors")
    client.create_vector_bucket(vectorBucketName="accepted")
    text = {"textSearchConfigurations": [{"metadataKey": "t", "language": "en"}]}
    names = create(client, "kept", metadataConfiguration=text)
    for first in range(0, 1_500, 500):
        rows = [
            {"key": f"k{n}", "data": {"float32": [1.0, n + 1.0, n % 7]}, "metadata": {"t": f"number {n % 40}", "n": n}}
            for n in range(first, first + 500)
        ]
        client.put_vectors(**names, vectors=rows)

    def answers():
        asked = {"topK": 50, "returnMetadata": True, "filter": {"n": {"$lt": 1_000}}}
        texts = [{"text": "7 numbers", "metadataKey": "t"}]
        near = server.client("s3vectors").query_vectors(**names, **asked, queryVector={"float32": [2.0, 5.0, 3.0]})
        told = server.client("s3vectors").query_vectors(**names, **asked, queryTexts=texts)
        return [sorted((one["key"], one["metadata"]["t"]) for one in found["vectors"]) for found in (near, told)]

    answers()
    folder = server.state / "s3vectors"
    wait_for(lambda: list(folder.glob("*/*.json")), what="a copy of the search structures")
    client.delete_vectors(**names, keys=["k7", "k9"])
    late = {"key": "late", "data": {"float32": [2.0, 5.0, 3.0]}, "metadata": {"t": "7 7 7", "n": 1}}
    client.put_vectors(**names, vectors=[late])
    before = answers()
    assert all(("late", "7 7 7") in found for found in before)
    server.kill()
    server.start()
    assert answers() == before
    assert "are not used" not in server.log.read_text()
    server.kill()
    for path in folder.glob("*/*.parts"):
        path.write_bytes(path.read_bytes()[:1_000])
    server.start()
    assert answers() == before
    assert "are not used" in server.log.read_text()


def test_a_stop_saves_search_structures(fresh_server):
    server = fresh_server()
    client = server.client("s3vectors")
    client.create_vector_bucket(vectorBucketName="accepted")
    names = create(client, "kept")
    for first in range(0, 1_500, 500):
        rows = [{"key": f"k{n}", "data": {"float32": [1.0, n + 1.0, n % 7]}} for n in range(first, first + 500)]
        client.put_vectors(**names, vectors=rows)
    query = {**names, "topK": 5, "queryVector": {"float32": [2.0, 5.0, 3.0]}}
    before = client.query_vectors(**query)["vectors"]
    assert server.stop() == 0
    (manifest,) = (server.state / "s3vectors").glob("*/*.json")
    server.start()
    assert server.client("s3vectors").query_vectors(**query)["vectors"] == before
    assert "are not used" not in server.log.read_text() and manifest.exists()
    server.client("s3vectors").delete_index(**names)
    wait_for(lambda: not manifest.parent.exists(), what="the end of the files of a deleted index")

"""S3 Vectors through the machine, without sockets."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.scope import Scope
from preheat.services.s3vectors import domain
from preheat.services.s3vectors.service import build
from tests.support.inprocess import InProcess

BUCKET = "documents"
INDEX = "passages"
NAMES = {"vectorBucketName": BUCKET, "indexName": INDEX}


@pytest.fixture
def world():
    return InProcess(build)


def refused(world, operation, code, **params):
    with pytest.raises(AwsError) as caught:
        world("s3vectors", operation, **params)
    assert caught.value.code == code, caught.value
    return caught.value


def make_index(world, dimension=2, metric="cosine", **more):
    world("s3vectors", "CreateVectorBucket", vectorBucketName=BUCKET)
    world(
        "s3vectors", "CreateIndex", **NAMES, dataType="float32", dimension=dimension, distanceMetric=metric, **more
    )  # fmt: skip


def vector(key, values, **metadata):
    return {"key": key, "data": {"float32": list(values)}, "metadata": metadata}


def put(world, *vectors):
    world("s3vectors", "PutVectors", **NAMES, vectors=list(vectors))


def found(world, **params):
    return [one["key"] for one in world("s3vectors", "QueryVectors", **NAMES, **params)["vectors"]]


def searchable(*keys, language="en"):
    fields = [{"metadataKey": key, "language": language} for key in keys]
    return {"metadataConfiguration": {"nonFilterableMetadataKeys": ["body"], "textSearchConfigurations": fields}}


# -- buckets and indexes ----------------------------------------------------------------------------------------------


def test_a_bucket_lives_and_dies(world):
    made = world("s3vectors", "CreateVectorBucket", vectorBucketName=BUCKET, tags={"team": "search"})
    arn = made["vectorBucketArn"]
    assert arn == f"arn:aws:s3vectors:us-east-1:000000000000:bucket/{BUCKET}"
    shown = world("s3vectors", "GetVectorBucket", vectorBucketArn=arn)["vectorBucket"]
    assert shown["encryptionConfiguration"] == {"sseType": "AES256"}
    assert shown["defaultIndexMode"] == "ENHANCED"
    assert world("s3vectors", "ListTagsForResource", resourceArn=arn)["tags"] == {"team": "search"}
    error = refused(world, "CreateVectorBucket", "ConflictException", vectorBucketName=BUCKET)
    assert (error.status, error.message) == (409, "A vector bucket with the specified name already exists")
    world("s3vectors", "DeleteVectorBucket", vectorBucketName=BUCKET)
    error = refused(world, "GetVectorBucket", "NotFoundException", vectorBucketName=BUCKET)
    assert (error.status, error.message) == (404, "The specified vector bucket could not be found")


@pytest.mark.parametrize("name", ["ab", "x" * 64, "Upper", "-dash", "dot.", "under_score"])
def test_bucket_names_are_checked(world, name):
    error = refused(world, "CreateVectorBucket", "ValidationException", vectorBucketName=name)
    assert error.fields["fieldList"][0]["path"] == "/vectorBucketName"


def test_a_bucket_with_indexes_is_not_deleted(world):
    make_index(world)
    error = refused(world, "DeleteVectorBucket", "ConflictException", vectorBucketName=BUCKET)
    assert error.message == "The specified vector bucket is not empty"


def test_buckets_are_listed_in_pages(world):
    for name in ("aaa", "bbb", "bbc", "ccc"):
        world("s3vectors", "CreateVectorBucket", vectorBucketName=name)
    first = world("s3vectors", "ListVectorBuckets", maxResults=3)
    second = world("s3vectors", "ListVectorBuckets", maxResults=3, nextToken=first["nextToken"])
    assert [one["vectorBucketName"] for one in first["vectorBuckets"] + second["vectorBuckets"]] == [
        "aaa", "bbb", "bbc", "ccc",
    ]  # fmt: skip
    assert "nextToken" not in second
    only = world("s3vectors", "ListVectorBuckets", prefix="bb")
    assert [one["vectorBucketName"] for one in only["vectorBuckets"]] == ["bbb", "bbc"]
    refused(world, "ListVectorBuckets", "ValidationException", prefix="bb", nextToken=first["nextToken"])
    refused(world, "ListVectorBuckets", "ValidationException", nextToken="garbage")


def test_a_quota_is_answered_with_402(world, monkeypatch):
    monkeypatch.setattr(domain, "BUCKETS_PER_REGION", 1)
    world("s3vectors", "CreateVectorBucket", vectorBucketName=BUCKET)
    assert refused(world, "CreateVectorBucket", "ServiceQuotaExceededException", vectorBucketName="other").status == 402


def test_buckets_of_another_region_are_not_seen(world):
    world("s3vectors", "CreateVectorBucket", vectorBucketName=BUCKET)
    world.scope = Scope(region="eu-west-1")
    refused(world, "GetVectorBucket", "NotFoundException", vectorBucketName=BUCKET)
    arn = f"arn:aws:s3vectors:us-east-1:000000000000:bucket/{BUCKET}"
    refused(world, "GetVectorBucket", "NotFoundException", vectorBucketArn=arn)


def test_an_index_is_described_as_made(world):
    key = "arn:aws:kms:us-east-1:000000000000:key/abc"
    encryption = {"sseType": "aws:kms", "kmsKeyArn": key}
    make_index(world, 3, "euclidean", encryptionConfiguration=encryption, **searchable("t"))
    index = world("s3vectors", "GetIndex", **NAMES)["index"]
    assert index["metadataConfiguration"] == {
        "nonFilterableMetadataKeys": ["body"],
        "textSearchConfigurations": [{"metadataKey": "t", "language": "en", "status": "ACTIVE"}],
    }
    assert (index["dimension"], index["distanceMetric"], index["indexMode"]) == (3, "euclidean", "ENHANCED")
    assert index["encryptionConfiguration"] == encryption
    assert world("s3vectors", "GetIndex", indexArn=index["indexArn"])["index"] == index
    listed = world("s3vectors", "ListIndexes", vectorBucketName=BUCKET)["indexes"]
    assert [one["indexArn"] for one in listed] == [index["indexArn"]]


@pytest.mark.parametrize(
    "change",
    [
        {"dimension": 0},
        {"dimension": 4097},
        {"distanceMetric": "dot"},
        {"dataType": "int8"},
        {"indexName": "No"},
        {"metadataConfiguration": {"nonFilterableMetadataKeys": [str(n) for n in range(11)]}},
        {"metadataConfiguration": {"textSearchConfigurations": [{"metadataKey": "a", "language": "xx"}]}},
        {"metadataConfiguration": {"textSearchConfigurations": [{"metadataKey": "a"}, {"metadataKey": "a"}]}},
        {"encryptionConfiguration": {"sseType": "aws:kms"}},
    ],
)
def test_bad_indexes_are_refused(world, change):
    world("s3vectors", "CreateVectorBucket", vectorBucketName=BUCKET)
    good = {**NAMES, "dataType": "float32", "dimension": 2, "distanceMetric": "cosine"}
    refused(world, "CreateIndex", "ValidationException", **{**good, **change})
    assert world("s3vectors", "ListIndexes", vectorBucketName=BUCKET)["indexes"] == []


def test_index_modes_follow_the_bucket(world):
    world("s3vectors", "CreateVectorBucket", vectorBucketName=BUCKET)
    world("s3vectors", "PutVectorBucketDefaultIndexMode", vectorBucketName=BUCKET, defaultIndexMode="CLASSIC")
    world("s3vectors", "CreateIndex", **NAMES, dataType="float32", dimension=2, distanceMetric="cosine")
    put(world, vector("a", [1, 0], kind="note"))
    query = {**NAMES, "topK": 1, "queryVector": {"float32": [1, 0]}}
    prefix = {"kind": {"$startsWith": "no"}}
    refused(world, "QueryVectors", "ValidationException", **query, filter=prefix)
    assert found(world, topK=1, queryVector={"float32": [1, 0]}, filter=prefix, queryMode="ENHANCED") == ["a"]
    add = {"textSearchConfigurations": [{"metadataKey": "t"}]}
    refused(world, "UpdateMetadataConfiguration", "ValidationException", **NAMES, add=add)
    world("s3vectors", "UpdateIndexMode", **NAMES, indexMode="ENHANCED")
    world("s3vectors", "UpdateMetadataConfiguration", **NAMES, add=add)
    refused(world, "QueryVectors", "ValidationException", **query, queryMode="CLASSIC")


def test_classic_is_for_buckets_made_before_the_date(world):
    world.clock.move_to(domain.CLASSIC_UNTIL)
    make_index(world)
    refused(world, "UpdateIndexMode", "ValidationException", **NAMES, indexMode="CLASSIC")
    mode = {"vectorBucketName": BUCKET, "defaultIndexMode": "CLASSIC"}
    refused(world, "PutVectorBucketDefaultIndexMode", "ValidationException", **mode)


def test_policies_and_tags(world):
    make_index(world)
    missing = refused(world, "GetVectorBucketPolicy", "NotFoundException", vectorBucketName=BUCKET)
    assert missing.message == "The specified vector bucket policy could not be found"
    refused(world, "PutVectorBucketPolicy", "ValidationException", vectorBucketName=BUCKET, policy="{")
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3vectors:*", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    world("s3vectors", "PutVectorBucketPolicy", vectorBucketName=BUCKET, policy=text)
    assert world("s3vectors", "GetVectorBucketPolicy", vectorBucketName=BUCKET)["policy"] == text
    world("s3vectors", "DeleteVectorBucketPolicy", vectorBucketName=BUCKET)
    refused(world, "GetVectorBucketPolicy", "NotFoundException", vectorBucketName=BUCKET)

    arn = world("s3vectors", "GetIndex", **NAMES)["index"]["indexArn"]
    world("s3vectors", "TagResource", resourceArn=arn, tags={"a": "1", "b": "2"})
    world("s3vectors", "UntagResource", resourceArn=arn, tagKeys=["a"])
    assert world("s3vectors", "ListTagsForResource", resourceArn=arn)["tags"] == {"b": "2"}
    refused(world, "TagResource", "ValidationException", resourceArn=arn, tags={f"k{n}": "" for n in range(50)})
    refused(world, "ListTagsForResource", "NotFoundException", resourceArn=arn + "x")


# -- vectors ----------------------------------------------------------------------------------------------------------


def test_put_get_replace_delete(world):
    make_index(world)
    put(world, vector("a", [1, 0.1], n=1), {"key": "b", "data": {"float32": [0, 1]}})
    got = world("s3vectors", "GetVectors", **NAMES, keys=["b", "missing", "a"], returnData=True, returnMetadata=True)
    assert [one["key"] for one in got["vectors"]] == ["b", "a"]
    assert got["vectors"][0]["metadata"] == {}
    assert got["vectors"][1]["data"]["float32"] == pytest.approx([1, 0.1])
    put(world, vector("a", [0, 2], m=2))
    got = world("s3vectors", "GetVectors", **NAMES, keys=["a"], returnData=True, returnMetadata=True)
    assert got["vectors"] == [{"key": "a", "data": {"float32": [0, 2]}, "metadata": {"m": 2}}]
    world("s3vectors", "DeleteVectors", **NAMES, keys=["a", "never"])
    assert world("s3vectors", "GetVectors", **NAMES, keys=["a", "b"])["vectors"] == [{"key": "b"}]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"key": "x", "data": {"float32": [1.0]}}, "must have length 2, but has length 1"),
        ({"key": "x", "data": {"float32": [1.0, float("nan")]}}, "NaN or Infinity"),
        ({"key": "x", "data": {"float32": [1.0, 1e39]}}, "NaN or Infinity"),
        ({"key": "x", "data": {"float32": [0.0, 0.0]}}, "zero vectors"),
        ({"key": "", "data": {"float32": [1.0, 1.0]}}, "between 1 and 1024"),
        ({"key": "x", "data": {}}, "exactly one of"),
        ({"key": "x", "data": {"float32": [1.0, "2"]}}, "list of numbers"),
        (vector("\ud800", [1, 1]), "valid Unicode"),
        (vector("x", [1, 1], t="\ud800"), "valid text"),
        (vector("x", [1, 1], n=float("inf")), "finite numbers"),
        (vector("x", [1, 1], t="y" * 2048), "Filterable metadata must have at most 2048 bytes"),
        (vector("x", [1, 1], body="y" * 41_000), "at most 40960 bytes"),
        (vector("x", [1, 1], **{f"k{n}": 1 for n in range(51)}), "at most 50 keys"),
        (vector("x", [1, 1], nested={"a": 1}), "must be a string, number, boolean"),
    ],
)
def test_one_bad_vector_refuses_the_whole_request(world, bad, words):
    make_index(world, **searchable())
    error = refused(world, "PutVectors", "ValidationException", **NAMES, vectors=[vector("good", [1, 0]), bad])
    assert words in error.message
    assert error.fields["fieldList"]
    assert world("s3vectors", "ListVectors", **NAMES)["vectors"] == []


def test_batch_limits(world):
    make_index(world)
    many = [vector(f"k{n}", [1, n]) for n in range(501)]
    refused(world, "PutVectors", "ValidationException", **NAMES, vectors=many)
    refused(world, "GetVectors", "ValidationException", **NAMES, keys=[f"k{n}" for n in range(101)])
    refused(world, "DeleteVectors", "ValidationException", **NAMES, keys=[])
    refused(world, "PutVectors", "ValidationException", **NAMES, vectors=[vector("a", [1, 0])] * 2)
    both = {**NAMES, "indexArn": "arn:aws:s3vectors:us-east-1:000000000000:bucket/documents/index/passages"}
    error = refused(world, "GetVectors", "ValidationException", **both, keys=["a"])
    assert error.message == "Must specify either indexArn or both vectorBucketName and indexName"


def test_a_request_beyond_20_mib_is_refused(world):
    make_index(world)
    replies = []
    params = {**NAMES, "vectors": [vector("a", [1, 0])]}
    request = HttpRequest("POST", "/PutVectors", {}, b" " * (20 * 1024 * 1024 + 1))
    world.machine.submit("s3vectors", "PutVectors", params, replies.append, request=request)
    world.settle()
    assert replies[0].code == "ValidationException"


def test_reading_metadata_takes_the_right_to_get_vectors(world):
    make_index(world)
    put(world, vector("a", [1, 0], n=1))
    asked = []
    world.machine.authorizer = lambda ctx, service, operation, params: asked.append(operation)
    near = {**NAMES, "topK": 1, "queryVector": {"float32": [1, 0]}}
    for operation, params in (
        ("QueryVectors", near),
        ("QueryVectors", {**near, "returnMetadata": True}),
        ("QueryVectors", {**near, "filter": {"n": 1}}),
        ("ListVectors", {**NAMES, "returnData": True}),
    ):
        request = HttpRequest("POST", f"/{operation}", {})
        world.machine.submit("s3vectors", operation, params, lambda reply: None, request=request)
        world.settle()
    expected = "QueryVectors QueryVectors GetVectors QueryVectors GetVectors ListVectors GetVectors"
    assert asked == expected.split()


def test_listing_pages_and_segments_cover_everything_once(world):
    make_index(world)
    put(world, *(vector(f"k{n:03}", [1, n]) for n in range(250)))
    keys, token = [], {}
    while True:
        page = world("s3vectors", "ListVectors", **NAMES, maxResults=60, **token)
        keys += [one["key"] for one in page["vectors"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert keys == [f"k{n:03}" for n in range(250)]
    parts = [
        [one["key"] for one in world("s3vectors", "ListVectors", **NAMES, segmentCount=3, segmentIndex=n)["vectors"]]
        for n in range(3)
    ]
    assert sorted(key for part in parts for key in part) == keys
    assert all(parts)
    refused(world, "ListVectors", "ValidationException", **NAMES, segmentCount=3)
    refused(world, "ListVectors", "ValidationException", **NAMES, segmentCount=3, segmentIndex=3)


def test_a_listing_page_ends_at_one_megabyte(world):
    make_index(world, **searchable())
    put(world, *(vector(f"k{n}", [1, n], body="x" * 30_000) for n in range(80)))
    first = world("s3vectors", "ListVectors", **NAMES, returnMetadata=True)
    assert 30 <= len(first["vectors"]) < 40
    second = world("s3vectors", "ListVectors", **NAMES, returnMetadata=True, nextToken=first["nextToken"])
    third = world("s3vectors", "ListVectors", **NAMES, returnMetadata=True, nextToken=second["nextToken"])
    assert sum(len(page["vectors"]) for page in (first, second, third)) == 80
    assert "nextToken" not in third


# -- queries ----------------------------------------------------------------------------------------------------------


def test_cosine_and_euclidean_distances(world):
    make_index(world)
    put(world, vector("east", [2, 0]), vector("north", [0, 1]), vector("west", [-3, 0]))
    answer = world("s3vectors", "QueryVectors", **NAMES, topK=3, queryVector={"float32": [5, 0]}, returnDistance=True)
    assert [(one["key"], round(one["distance"], 5)) for one in answer["vectors"]] == [
        ("east", 0.0), ("north", 1.0), ("west", 2.0),
    ]  # fmt: skip
    assert answer["distanceMetric"] == "cosine"
    world("s3vectors", "CreateIndex", vectorBucketName=BUCKET, indexName="plane", dataType="float32", dimension=2,
          distanceMetric="euclidean")  # fmt: skip
    plane = {"vectorBucketName": BUCKET, "indexName": "plane"}
    world("s3vectors", "PutVectors", **plane, vectors=[vector("o", [0, 0]), vector("p", [3, 4])])
    query = {"topK": 5, "queryVector": {"float32": [0, 0]}, "returnDistance": True}
    answer = world("s3vectors", "QueryVectors", **plane, **query)
    assert [(one["key"], one["distance"]) for one in answer["vectors"]] == [("o", 0.0), ("p", 5.0)]


def test_writes_after_the_first_query_are_seen(world):
    make_index(world, **searchable("t"))
    put(world, vector("a", [1, 0], t="red apples"), vector("b", [0, 1], t="green pears"))
    near = {"topK": 1, "queryVector": {"float32": [1, 0.1]}}
    text = {"topK": 9, "queryTexts": [{"text": "apple", "metadataKey": "t"}]}
    assert (found(world, **near), found(world, **text)) == (["a"], ["a"])
    put(world, vector("c", [1, 0.1], t="an apple"), vector("a", [-1, 0], t="stones"))
    assert (found(world, **near), found(world, **text)) == (["c"], ["c"])
    world("s3vectors", "DeleteVectors", **NAMES, keys=["c"])
    assert (found(world, **near), found(world, **text)) == (["b"], [])


def test_a_rolled_back_write_never_appears(world):
    make_index(world)
    put(world, vector("a", [1, 0]))
    assert found(world, topK=5, queryVector={"float32": [1, 0]}) == ["a"]

    def write_and_fail(ctx):
        ctx.call("s3vectors", "PutVectors", {**NAMES, "vectors": [vector("ghost", [1, 0])]})
        raise AwsError("Stop", "undo it")

    replies = []
    world.machine.perform(write_and_fail, replies.append)
    world.settle()
    assert isinstance(replies[0], AwsError)
    assert found(world, topK=5, queryVector={"float32": [1, 0]}) == ["a"]


def test_filters_narrow_every_kind_of_query(world):
    make_index(world, **searchable("t"))
    put(
        world,
        vector("a", [1, 0], t="blue whale", year=1999, tags=["sea", "big"]),
        vector("b", [1, 0.1], t="blue sky", year=2010),
        vector("c", [1, 0.2], t="blue blood", year=2020, tags=["body"]),
    )
    both = {"queryVector": {"float32": [1, 0]}, "queryTexts": [{"text": "blue", "metadataKey": "t"}]}
    for query in (both, {"queryVector": both["queryVector"]}, {"queryTexts": both["queryTexts"]}):
        assert set(found(world, topK=9, **query, filter={"year": {"$gte": 2000, "$lt": 2020}})) == {"b"}
        assert set(found(world, topK=9, **query, filter={"tags": "sea"})) == {"a"}
        assert set(found(world, topK=9, **query, filter={"tags": {"$exists": False}})) == {"b"}
        assert set(found(world, topK=9, **query, filter={"$or": [{"year": 1999}, {"tags": {"$in": ["body"]}}]})) == {
            "a", "c",
        }  # fmt: skip
        assert found(world, topK=9, **query, filter={"year": 1}) == []
    refused(world, "QueryVectors", "ValidationException", **NAMES, topK=1, **both, filter={"body": "x"})


def test_full_text_scores_by_field(world):
    make_index(world, **searchable("t", "u"))
    first, second = vector("a", [1, 0], t="cats and dogs", u="dogs"), vector("b", [1, 0], t="dogs only")
    put(world, first, second, vector("c", [1, 0]))
    texts = [{"text": "The Dog's", "metadataKey": "t"}, {"text": "dog", "metadataKey": "u"}]
    asked = {"topK": 5, "queryTexts": texts, "returnScores": True, "returnDistance": True}
    answer = world("s3vectors", "QueryVectors", **NAMES, **asked)
    assert [one["key"] for one in answer["vectors"]] == ["a", "b"]
    first, second = (one["scores"] for one in answer["vectors"])
    assert [one["metadataKey"] for one in first["bm25Scores"]] == ["t", "u"]
    assert [one["metadataKey"] for one in second["bm25Scores"]] == ["t"]
    assert "fused" not in first and "vectorDistance" not in first
    assert "distance" not in answer["vectors"][0]


def test_hybrid_fuses_by_reciprocal_rank(world):
    make_index(world, **searchable("t"))
    put(world, vector("a", [1, 0], t="nothing"), vector("b", [0.9, 0.1], t="moon"), vector("c", [0, 1], t="moon moon"))
    query = {"queryVector": {"float32": [1, 0]}, "queryTexts": [{"text": "moon", "metadataKey": "t"}]}
    answer = world("s3vectors", "QueryVectors", **NAMES, topK=3, **query, returnScores=True)["vectors"]
    scores = {one["key"]: one["scores"] for one in answer}
    assert scores["a"]["fused"] == pytest.approx(1 / 61)
    assert scores["b"]["fused"] == pytest.approx(1 / 62 + 1 / 62)
    assert scores["c"]["fused"] == pytest.approx(1 / 63 + 1 / 61)
    assert [one["key"] for one in answer] == sorted(scores, key=lambda key: -scores[key]["fused"])
    assert scores["a"]["bm25Scores"] == []
    assert scores["a"]["vectorDistance"] == pytest.approx(0, abs=1e-6)


def test_query_pages_hold_together(world, monkeypatch):
    monkeypatch.setattr(domain, "QUERY_PAGE", 40)
    make_index(world)
    put(world, *(vector(f"k{n:03}", [1, n / 100]) for n in range(100)))
    query = {"topK": 90, "queryVector": {"float32": [1, 0]}}
    keys, token = [], {}
    while True:
        page = world("s3vectors", "QueryVectors", **NAMES, **query, **token)
        keys += [one["key"] for one in page["vectors"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert keys == [f"k{n:03}" for n in range(90)]
    refused(world, "QueryVectors", "ValidationException", **NAMES, **{**query, "topK": 80}, **token)
    world.clock.advance(301)
    refused(world, "QueryVectors", "ValidationException", **NAMES, **query, **token)


@pytest.mark.parametrize(
    "query",
    [
        {"topK": 1},
        {"topK": 0, "queryVector": {"float32": [1, 0]}},
        {"topK": 10_001, "queryVector": {"float32": [1, 0]}},
        {"topK": 1, "queryVector": {"float32": [1]}},
        {"topK": 1, "queryVector": {"float32": [0, 0]}},
        {"topK": 1, "queryVector": {"float32": [float("inf"), 0]}},
        {"topK": 1, "queryTexts": [{"text": "x", "metadataKey": "unknown"}]},
        {"topK": 1, "queryTexts": [{"text": "", "metadataKey": "t"}]},
        {"topK": 1, "queryTexts": [{"text": "x", "metadataKey": "t"}] * 2},
        {"topK": 1, "queryTexts": [{"text": "x" * 1025, "metadataKey": "t"}]},
    ],
)
def test_bad_queries_are_refused(world, query):
    make_index(world, **searchable("t"))
    put(world, vector("a", [1, 0], t="x"))
    refused(world, "QueryVectors", "ValidationException", **NAMES, **query)


def test_text_search_can_be_added_and_taken_away(world):
    make_index(world)
    put(world, vector("a", [1, 0], t="lighthouses"))
    query = {"topK": 1, "queryTexts": [{"text": "lighthouse", "metadataKey": "t"}]}
    assert found(world, topK=1, queryVector={"float32": [1, 0]}) == ["a"]
    refused(world, "QueryVectors", "ValidationException", **NAMES, **query)
    add = {"textSearchConfigurations": [{"metadataKey": "t", "language": "en"}]}
    world("s3vectors", "UpdateMetadataConfiguration", **NAMES, add=add)
    assert found(world, **query) == ["a"]
    refused(world, "UpdateMetadataConfiguration", "ConflictException", **NAMES, add=add)
    gone = {"textSearchConfigurations": [{"metadataKey": "t"}]}
    refused(world, "UpdateMetadataConfiguration", "ValidationException", **NAMES, add=add, delete=gone)
    world("s3vectors", "UpdateMetadataConfiguration", **NAMES, delete=gone)
    refused(world, "QueryVectors", "ValidationException", **NAMES, **query)
    refused(world, "UpdateMetadataConfiguration", "NotFoundException", **NAMES, delete=gone)


def test_a_deleted_index_leaves_nothing_behind(world):
    make_index(world)
    for start in range(0, 2_500, 500):
        put(world, *(vector(f"k{n}", [1, n]) for n in range(start, start + 500)))
    assert len(found(world, topK=3, queryVector={"float32": [1, 0]})) == 3
    world("s3vectors", "DeleteIndex", **NAMES)
    refused(world, "QueryVectors", "NotFoundException", **NAMES, topK=1, queryVector={"float32": [1, 0]})
    world("s3vectors", "CreateIndex", **NAMES, dataType="float32", dimension=2, distanceMetric="cosine")
    assert found(world, topK=3, queryVector={"float32": [1, 0]}) == []
    world.settle()
    assert world.db.value("SELECT count(*) FROM s3vectors_vectors") == 0


def test_many_upserts_do_not_change_the_answers(world):
    make_index(world, **searchable("t"))
    for turn in range(4):
        for start in range(0, 1_500, 500):
            put(world, *(vector(f"k{n:04}", [1, (n + turn) / 500], t=f"turn{turn}") for n in range(start, start + 500)))
        assert found(world, topK=2, queryVector={"float32": [1, turn / 500]}) == ["k0000", "k0001"]
        assert len(found(world, topK=10, queryTexts=[{"text": f"turn{turn}", "metadataKey": "t"}])) == 10
        assert found(world, topK=10, queryTexts=[{"text": f"turn{turn - 1}", "metadataKey": "t"}]) == []


def test_structures_are_dropped_when_idle_and_come_back(world):
    make_index(world)
    put(world, vector("a", [1, 0]))
    desk = world.machine.services["s3vectors"].desk
    assert desk.loaded == 0
    assert found(world, topK=1, queryVector={"float32": [1, 0]}) == ["a"]
    assert desk.loaded == 1
    world.advance(1_000)
    assert desk.loaded == 0
    assert found(world, topK=1, queryVector={"float32": [1, 0]}) == ["a"]


def test_state_survives_a_restart(tmp_path):
    world = InProcess(build, directory=tmp_path)
    make_index(world, **searchable("t"))
    put(world, vector("a", [1, 0], t="kept"), vector("b", [0, 1], t="lost"))
    world.db.close()
    world = InProcess(build, directory=tmp_path)
    assert found(world, topK=1, queryTexts=[{"text": "kept", "metadataKey": "t"}]) == ["a"]
    world.db.close()

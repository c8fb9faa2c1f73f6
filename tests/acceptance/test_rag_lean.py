"""QueryVectors past the client's own serialiser and parser: the same answers, the same refusals, the same retries."""

import http.server
import json
import sys
import threading
from pathlib import Path

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.lean import AGENT, lean

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


class Answers:
    """An endpoint that answers with what `script` holds, one after the other, and keeps what it was sent."""

    def __init__(self, *script):
        seen, agents, left = [], [], list(script)
        self.seen, self.agents = seen, agents

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append((body, self.headers["Authorization"]))
                agents.append(self.headers["User-Agent"])
                status, answer = left.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def client(self, **more):
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        config = Config(retries={"mode": "standard", "total_max_attempts": 3}, **more)
        return lean(boto3.client("s3vectors", endpoint_url=f"http://127.0.0.1:{self.server.server_port}",
                                 config=config, **keys))  # fmt: skip

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_a_call_that_is_made_again_carries_its_vector_again():
    hits = json.dumps({"vectors": [{"key": "k", "distance": 0.5}], "distanceMetric": "cosine"}).encode()
    with Answers((503, b"{}"), (200, hits)) as there:
        found = there.client().query_vectors(**NAMES, topK=1, queryVector={"float32": [0.25, 0.5]})
    assert [one["key"] for one in found["vectors"]] == ["k"] and found["ResponseMetadata"]["RetryAttempts"] == 1
    bodies = [json.loads(body) for body, _ in there.seen]
    assert bodies == [{**NAMES, "topK": 1, "queryVector": {"float32": [0.25, 0.5]}}] * 2
    assert all("AWS4-HMAC-SHA256" in signed for _, signed in there.seen)


@pytest.mark.parametrize("answer", [b"<html>", b""])
def test_an_answer_that_is_no_object_is_read_by_the_client(answer):
    with Answers((200, answer)) as there:
        assert "vectors" not in there.client().query_vectors(**NAMES, topK=1, queryVector={"float32": [0.25, 0.5]})


def test_the_text_that_is_there_already_is_the_whole_user_agent_of_every_try():
    with Answers((503, b"{}"), (200, b"{}")) as there:
        there.client(user_agent=AGENT).query_vectors(**NAMES, topK=1, queryVector={"float32": [0.25, 0.5]})
    assert there.agents == [f"{AGENT} Botocore/{botocore.__version__}"] * 2

"""ragkit's store and retriever over the real S3 Vectors service, in process."""

import io
import json
import sys
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.chunking import Sizes, chunk
from ragkit.embed import NO_MODEL, BedrockEmbedder, EmbeddingUnavailable
from ragkit.extract import extract
from ragkit.retrieve import Retriever, Settings
from ragkit.store import S3VectorStore, index_configuration

from preheat.services.s3vectors.service import build
from tests.support.inprocess import InProcess

TOPICS = ("bird", "stone", "river", "engine")
DIMENSION = len(TOPICS)
GUIDE = "# Birds\n\nThe wren is a bird that sings.\n\n# Stones\n\nGranite is a stone.\n\n# Water\n\nA river flows.\n"


class Vectors:
    """The service behind boto3's method names, one call at a time."""

    def __init__(self):
        self.world = InProcess(build)
        self.lock = threading.Lock()
        self.puts = 0

    def __getattr__(self, name):
        operation = "".join(part.capitalize() for part in name.split("_"))

        def call(**params):
            with self.lock:
                self.puts += operation == "PutVectors"
                return self.world("s3vectors", operation, **params)

        return call


class Topics:
    """An embedder that counts topic words."""

    def __init__(self, model="topics"):
        self.model = model
        self.seen = []

    def documents(self, texts):
        self.seen += texts
        return [self._vector(text) for text in texts]

    def query(self, text):
        return self._vector(text)

    def _vector(self, text):
        return [text.lower().count(topic) + 0.01 for topic in TOPICS]


class Broken(Topics):
    def query(self, text):
        raise EmbeddingUnavailable("the model is asleep")


@pytest.fixture
def client():
    client = Vectors()
    client.create_vector_bucket(vectorBucketName="stack")
    client.create_index(
        vectorBucketName="stack", indexName="passages", dataType="float32", dimension=DIMENSION,
        distanceMetric="cosine", metadataConfiguration=index_configuration(),
    )  # fmt: skip
    return client


@pytest.fixture
def store(client):
    return S3VectorStore(client, "stack", "passages", DIMENSION)


def chunks(text=GUIDE, key="guide.md"):
    return chunk(extract(key, text.encode()), Sizes(20, 40, 5))


def ingest(store, embedder, text=GUIDE, key="guide.md"):
    return store.replace(key, chunks(text, key), embedder.documents, embedder.model)


def test_only_what_changed_is_embedded_again(store, client):
    embedder = Topics()
    first = ingest(store, embedder)
    assert (first.written, first.unchanged, first.deleted) == (3, 0, 0)
    assert embedder.seen[0] == "Birds\n\nThe wren is a bird that sings."
    again = ingest(store, embedder)
    assert (again.written, again.unchanged, again.deleted, client.puts) == (0, 3, 0, 1)
    changed = ingest(store, embedder, GUIDE.replace("Granite", "Basalt").split("# Water")[0])
    assert (changed.written, changed.unchanged, changed.deleted) == (1, 1, 1)
    assert embedder.seen[3:] == ["Birds > Stones\n\nBasalt is a stone."]
    assert store.delete("guide.md") == 2
    assert store.passages(["guide.md#0", "guide.md#1"]) == []


def test_another_model_embeds_anew_and_never_mixes(store):
    ingest(store, Topics("old"))
    assert store.dense([1, 0, 0, 0], 5, "new", None) == []
    assert ingest(store, Topics("new")).written == 3
    assert [key for key, _ in store.dense([1, 0, 0, 0], 1, "new", None)] == ["guide.md#0"]


def test_a_document_of_many_chunks_is_deleted_whole(store):
    text = "\n\n".join(f"# H{n}\n\nbird {n}" for n in range(230))
    assert ingest(store, Topics(), text).written == 230
    assert store.delete("guide.md") == 230
    assert store.lexical("bird", 10, None) == []


def test_hybrid_retrieval_finds_by_words_and_by_meaning(store):
    embedder = Topics()
    ingest(store, embedder)
    ingest(store, embedder, "# Engines\n\nPistons move.", "engine.md")
    found = Retriever(store, embedder).search("Which bird is it, a wren?", 2)
    assert (found.mode, found.note) == ("hybrid", "")
    assert found.passages[0].text == "The wren is a bird that sings."
    assert found.passages[0].score == 1.0
    only = Retriever(store, embedder).search("wren", 5, where={"document": "engine.md"})
    assert [one.document for one in only.passages] == ["engine.md"]
    earlier = Retriever(store, embedder).search("Does it flow?", 1, earlier=["Tell me of the river"])
    assert earlier.passages[0].text == "A river flows."


def test_headings_are_searched_too(store):
    ingest(store, Topics())
    assert [key for key, _ in store.lexical("water", 5, None)] == ["guide.md#2"]


@pytest.mark.parametrize(("embedder", "note"), [(Broken(), "asleep"), (Topics(NO_MODEL), "no embedding model")])
def test_without_vectors_retrieval_is_lexical_and_says_so(store, embedder, note):
    ingest(store, Topics())
    found = Retriever(store, embedder).search("granite", 2)
    assert found.mode == "lexical"
    assert note in found.note
    assert [one.text for one in found.passages] == ["Granite is a stone."]


def test_documents_stored_without_a_model_are_found_by_words_only(store):
    assert store.replace("guide.md", chunks(), None, "ignored").written == 3
    assert store.dense([1, 0, 0, 0], 5, "ignored", None) == []
    assert [key for key, _ in store.lexical("wren", 5, None)] == ["guide.md#0"]
    assert ingest(store, Topics()).written == 3


def test_more_candidates_than_a_page_are_collected(store, client):
    text = "\n\n".join(f"# H{n}\n\nbird {n}" for n in range(1_200))
    ingest(store, Topics(), text)
    assert len(store.lexical("bird", 1_100, None)) == 1_100
    assert len(Retriever(store, Topics(), Settings(candidates=1_150)).ranking("bird")[0]) >= 1_150


def test_a_vector_of_the_wrong_length_is_refused(store):
    with pytest.raises(ValueError, match="the index holds 4"):
        store.replace("guide.md", chunks(), lambda texts: [[1.0, 2.0]] * len(texts), "short")
    assert store.lexical("bird", 5, None) == []


class Bedrock:
    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def invoke_model(self, modelId, body, contentType, accept):
        self.asked.append((modelId, json.loads(body)))
        answer = self.answer(self.asked[-1][1]) if callable(self.answer) else self.answer
        return {"body": io.BytesIO(json.dumps(answer).encode())}


def test_titan_is_asked_text_by_text_in_order():
    client = Bedrock(lambda body: {"embedding": [float(len(body["inputText"]))]})
    embedder = BedrockEmbedder(client, "amazon.titan-embed-text-v2:0", 256)
    assert embedder.documents(["a", "bbb", "cc"]) == [[1.0], [3.0], [2.0]]
    assert embedder.query("dddd") == [4.0]
    assert client.asked[-1] == ("amazon.titan-embed-text-v2:0", {"inputText": "dddd", "dimensions": 256})
    assert embedder.documents([]) == []


def test_cohere_is_asked_in_batches():
    client = Bedrock(lambda body: {"embeddings": [[float(text)] for text in body["texts"]]})
    embedder = BedrockEmbedder(client, "cohere.embed-english-v3")
    assert embedder.documents([str(n) for n in range(200)]) == [[float(n)] for n in range(200)]
    assert sorted(len(body["texts"]) for _, body in client.asked) == [8, 96, 96]
    assert embedder.query("7") == [7.0]
    assert client.asked[-1][1]["input_type"] == "search_query"


def test_a_failing_model_is_named():
    class Refusing:
        def invoke_model(self, **_):
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "InvokeModel")

    with pytest.raises(EmbeddingUnavailable, match=r"my-model.*slow down"):
        BedrockEmbedder(Refusing(), "my-model").query("x")
    with pytest.raises(EmbeddingUnavailable, match="without an embedding"):
        BedrockEmbedder(Bedrock({}), "my-model").query("x")
    with pytest.raises(EmbeddingUnavailable, match="no embedding model"):
        BedrockEmbedder(Bedrock({}), "").documents(["x"])


def test_the_measure_is_trec_evals():
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
    from retrieval import ndcg, p_value

    assert ndcg({"a": 2.0, "b": 1.0}, {"b"}) == pytest.approx(0.6309, abs=5e-5)
    assert ndcg({"a": 3.0, "b": 2.0, "c": 1.0}, {"a", "c", "x"}) == pytest.approx(1.5 / 2.1309, abs=5e-5)
    assert ndcg({"a": 1.0, "b": 1.0}, {"b"}) == 1.0
    assert ndcg({str(n): float(-n) for n in range(20)}, {"10"}) == 0.0
    assert ndcg({}, {"a"}) == 0.0
    assert p_value([1.0, 0.0] * 50, [1.0, 0.0] * 50) == 1.0
    assert p_value([1.0] * 50, [0.0] * 50) < 0.001

"""ragkit's store and retriever over the real S3 Vectors service, in process."""

import io
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.asked import Turn
from ragkit.chunking import Chunk, Sizes, chunk
from ragkit.embed import NO_MODEL, BedrockEmbedder, EmbeddingUnavailable
from ragkit.extract import extract
from ragkit.kinship import diverse, similarities, supported
from ragkit.parents import joined
from ragkit.rerank import BedrockReranker, NoRerank, RerankUnavailable
from ragkit.retrieve import Retriever, Settings, total, weighted_mean
from ragkit.rewrite import Formulation, Weights, formulations, standalone
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
    assert 0.5 < found.passages[0].score <= 1.0
    assert found.passages[0].score >= found.passages[1].score
    assert found.relevance is None
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


class Longest:
    """A reranker that likes long passages."""

    model = "longest"

    def __init__(self):
        self.asked = []

    def score(self, query, passages):
        self.asked.append((query, list(passages)))
        return [len(text) / 1_000 for text in passages]


class Asleep(Longest):
    def score(self, query, passages):
        raise RerankUnavailable("it sleeps")


def test_a_reranker_changes_the_order_and_tells_the_relevance(store):
    embedder, reranker = Topics(), Longest()
    text = "# A\n\nA bird, the bird.\n\n# B\n\nOne bird among stones, rivers and many other things that are told here."
    ingest(store, embedder, text)
    first = Retriever(store, embedder, Settings(kinship=0)).search("bird", 2)
    second = Retriever(store, embedder, Settings(kinship=0, rerank_weight=1), reranker).search("bird", 2)
    assert [one.id for one in first.passages] == [one.id for one in second.passages][::-1]
    assert second.relevance == max(len(text) for text in reranker.asked[0][1]) / 1_000
    assert reranker.asked[0][1][0] == "A\n\nA bird, the bird."
    assert (second.mode, second.note, first.note) == ("hybrid", "", "")


def test_only_the_best_are_reranked(store):
    embedder, reranker = Topics(), Longest()
    ingest(store, embedder, "\n\n".join(f"# H{n}\n\n{'bird ' * (8 - n)}{'pad ' * n}" for n in range(8)))
    settings = Settings(kinship=0, rerank_weight=0.5, depth=2)
    found = Retriever(store, embedder, settings, reranker).search("bird", 6)
    assert len(reranker.asked[0][1]) == 2
    assert len(found.passages) == 6
    first = Retriever(store, embedder, replace(settings, rerank_weight=0)).search("bird", 2)
    assert [f"{one.context}\n\n{one.text}" for one in first.passages] == reranker.asked[0][1]


def test_a_failing_reranker_is_left_out_and_the_result_says_so(store):
    ingest(store, Topics())
    plain = Retriever(store, Topics()).search("granite stone", 2)
    found = Retriever(store, Topics(), Settings(), Asleep()).search("granite stone", 2)
    assert found.passages == plain.passages
    assert (found.mode, found.note, found.relevance) == ("hybrid", "not reranked: it sleeps", None)
    both = Retriever(store, Broken(), Settings(), Asleep()).search("granite stone", 2)
    assert (both.mode, both.note) == ("lexical", "the model is asleep; not reranked: it sleeps")
    with pytest.raises(RerankUnavailable, match="no reranking model"):
        NoRerank().score("a", ["b"])


def test_where_hides_from_every_step(store):
    embedder, reranker = Topics(), Longest()
    text = "\n\n".join(f"# H{n}\n\nbird {n} sings." for n in range(4))
    store.replace("open.md", chunk(extract("open.md", text.encode()), Sizes(20, 40, 5)), embedder.documents, "topics")
    secret = chunk(extract("secret.md", text.encode()), Sizes(20, 40, 5), ("board",))
    store.replace("secret.md", secret, embedder.documents, "topics")
    settings = Settings(neighbours=2, diversity=0.3)
    where = {"labels": {"$in": ["public"]}}
    found = Retriever(store, embedder, settings, reranker).search("bird", 8, where, ["birds?"], ["winged"])
    assert {one.document for one in found.passages} == {"open.md"}
    assert len(reranker.asked[0][1]) == 4


def test_neighbours_of_the_section_are_joined_once_and_only_where_they_may_be_seen(store):
    embedder = Topics()
    told = [
        ("One", "It tells of sand and of what lies below the sand."), ("One", "Here a bird is seen above the beach."),
        ("One", "At last it speaks of clouds and of the wind."), ("One > Two", "Another section of granite."),
    ]  # fmt: skip
    parts = [
        Chunk(f"long.md#{at}", "long.md", at, "One", context, text, f"digest {at}")
        for at, (context, text) in enumerate(told)
    ]
    store.replace("long.md", parts, embedder.documents, "topics")
    found = Retriever(store, embedder, Settings(neighbours=1)).search("bird", 1)
    assert found.passages[0].text == "\n\n".join(one.text for one in parts[:3])
    assert found.passages[0].id == "long.md#1"
    together = Retriever(store, embedder, Settings(neighbours=1)).search("bird", 4)
    assert [one.id for one in together.passages] == ["long.md#1", "long.md#3"]
    narrow = Retriever(store, embedder, Settings(neighbours=1)).search("bird", 1, {"number": {"$gte": 1}})
    assert narrow.passages[0].text == "\n\n".join(one.text for one in parts[1:3])
    lexical = Retriever(store, Broken(), Settings(neighbours=1)).search("bird", 1)
    assert lexical.passages[0].text == parts[1].text
    assert "without their neighbours" in lexical.note


def test_joined_texts_have_their_overlap_once():
    parts = ["One is here. Two is there now.", "Two is there now. Three."]
    assert joined(parts) == "One is here. Two is there now.\n\nThree."
    assert joined(["It ends with a", "a begins"]) == "It ends with a\n\na begins"
    assert joined([]) == ""


def test_diversity_prefers_another_thing_to_the_same_again():
    texts = ["wren bird song loud", "wren bird song loud again", "granite stone hard", "river water"]
    near = similarities(texts)
    assert near[0][1] > 0.5 > near[0][2] == 0
    assert near[1][0] == near[0][1] and near[0][0] == 0
    assert diverse([1.0, 0.9, 0.5, 0.1], near, 2, 0.0) == [0, 1]
    assert diverse([1.0, 0.9, 0.5, 0.1], near, 2, 0.5) == [0, 2]
    assert diverse([0.5], [[0.0]], 3, 0.5) == [0]


def test_diversity_acts_in_a_search(store):
    embedder = Topics()
    same = "The wren is a small brown bird that sings loudly"
    ingest(store, embedder, f"# A\n\n{same}.\n\n# B\n\n{same} now.\n\n# C\n\nEagles: bird of prey.\n\n# D\n\nGranite.")
    alike = Retriever(store, embedder, Settings(kinship=0)).search("the small wren bird sings", 2)
    other = Retriever(store, embedder, Settings(kinship=0, diversity=0.6)).search("the small wren bird sings", 2)
    assert {one.context for one in alike.passages} == {"A", "A > B"}
    assert "A > C" in {one.context for one in other.passages}


def test_good_company_helps_unless_one_stands_out():
    near = [[0, 0, 0, 0], [0, 0, 0.9, 0.9], [0, 0.9, 0, 0.9], [0, 0.9, 0.9, 0]]
    close = supported([0.9, 0.85, 0.84, 0.83], near, 0.35)
    assert close.index(max(close)) == 1
    clear = supported([1.0, 0.2, 0.2, 0.2], near, 0.35)
    assert clear.index(max(clear)) == 0
    assert supported([0.9, 0.8, 0.7], [[0.0] * 3] * 3, 0.35) == [0.9, 0.8, 0.7]
    assert supported([0.9, 0.8], [[0, 1], [1, 0]], 0.35) == [0.9, 0.8]


def test_near_kin_count_far_more_than_many_distant_ones():
    scores = [0.9, 0.8, 0.8, 0.0, 0.0, 0.0, 0.0]
    near = [[0.0] * 7 for _ in scores]
    near[0][1] = near[1][0] = 0.8
    near[0][2] = near[2][0] = 0.4
    for row in (1, 2):
        for far in range(3, 7):
            near[row][far] = near[far][row] = 0.3
    found = supported(scores, near, 0.46)
    assert found[1] > found[2]
    share = 0.46 * (1 - (0.9 - 1.6 / 5))
    told = 0.9 * 0.8**3 / (0.8**3 + 4 * 0.3**3)
    alone = 0.9 * 0.4**3 / (0.4**3 + 4 * 0.3**3)
    lowest = 2 * 0.8 * 0.3**3 / (2 * 0.3**3)
    best = max(0.8, told)
    assert found[1] - found[2] == pytest.approx(share * (told - alone) / (best - min(alone, lowest)))


def test_a_follow_up_is_searched_with_what_was_said():
    turns = [Turn("first?", "one"), Turn("second?", "two"), Turn("third?", "word " * 60)]
    found = formulations(" now? ", turns, ["at present?"])
    assert found[:4] == [
        Formulation("now?"), Formulation("at present?", 0.5), Formulation("third?", 0.25), Formulation("second?", 0.125)
    ]  # fmt: skip
    assert found[4:] == [Formulation(" ".join(["word"] * 50), 0.1)]
    assert formulations("now?", ["before?"]) == [Formulation("now?"), Formulation("before?", 0.25)]
    assert formulations("now?", turns, weights=Weights(0, 0, 0)) == [Formulation("now?")]
    assert formulations(" ", [Turn("", "")]) == []


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("What about it?", "How high is the tower?\nWhat about it?"),
        ("Why?", "How high is the tower?\nWhy?"),
        ("How wide is the bridge?", "How wide is the bridge?"),
    ],
)
def test_a_reranker_is_asked_one_text(question, asked):
    assert standalone(question, [Turn("How high is the tower?", "Very.")]) == asked
    assert standalone(question, ["How high is the tower?"]) == asked
    assert standalone(question) == question


def test_the_answer_before_counts(store):
    embedder = Topics()
    ingest(store, embedder)
    earlier = [Turn("Tell me something", "Granite is what I like")]
    retriever = Retriever(store, embedder)
    assert retriever.search("More of that", 1, earlier=earlier).passages[0].text == "Granite is a stone."
    assert retriever.search("More of that", 1, also=["wren"]).passages[0].text.startswith("The wren")


def test_nothing_asked_finds_nothing(store):
    ingest(store, Topics())
    assert Retriever(store, Topics(), Settings(), Longest()).search("  ", 3).passages == []


def test_scores_and_directions_add_up():
    assert total([[("a", 2.0), ("b", 1.0)], [("b", 4.0)]], [1.0, 0.5]) == [("b", 3.0), ("a", 2.0)]
    assert weighted_mean([[3.0, 0.0], [0.0, 5.0]], [1.0, 0.5]) == [1.0, 0.5]
    assert weighted_mean([[3.0, 4.0]], [1.0]) == [3.0, 4.0]
    assert weighted_mean([[0.0, 0.0], [0.0, 2.0]], [1.0, 0.5]) == [0.0, 0.5]


class AgentRuntime:
    """Answers Rerank as boto3's client gives it; two results a page."""

    def __init__(self, scores, lost=0):
        self.meta = type("Meta", (), {"region_name": "eu-west-1"})
        self.scores = scores
        self.lost = lost
        self.asked = []

    def rerank(self, **asked):
        self.asked.append(asked)
        ranked = sorted(range(len(self.scores)), key=lambda at: -self.scores[at])
        ranked = ranked[: len(ranked) - self.lost]
        at = int(asked.get("nextToken", 0))
        page = [{"index": one, "relevanceScore": self.scores[one]} for one in ranked[at : at + 2]]
        more = {"nextToken": str(at + 2)} if at + 2 < len(ranked) else {}
        return {"results": page, **more}


def test_bedrock_reranks_in_the_passages_order():
    import botocore.session
    from botocore.validate import ParamValidator

    client = AgentRuntime([0.1, 0.9, 0.5])
    reranker = BedrockReranker(client, "cohere.rerank-v3-5:0")
    assert reranker.score("q" * 40_000, ["a", "", "c" * 40_000]) == [0.1, 0.9, 0.5]
    assert len(client.asked) == 2
    model = client.asked[0]["rerankingConfiguration"]["bedrockRerankingConfiguration"]["modelConfiguration"]
    assert model["modelArn"] == "arn:aws:bedrock:eu-west-1::foundation-model/cohere.rerank-v3-5:0"
    shape = botocore.session.get_session().get_service_model("bedrock-agent-runtime").operation_model("Rerank")
    assert ParamValidator().validate(client.asked[0], shape.input_shape).generate_report() == ""
    assert reranker.score("q", []) == []
    arn, client = "arn:aws:bedrock:us-east-1::foundation-model/x.y", AgentRuntime([1.0])
    assert BedrockReranker(client, arn).score("q", ["a"]) == [1.0]
    model = client.asked[0]["rerankingConfiguration"]["bedrockRerankingConfiguration"]["modelConfiguration"]
    assert model == {"modelArn": arn}


def test_a_reranker_that_fails_or_forgets_is_named():
    class Refusing(AgentRuntime):
        def rerank(self, **_):
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "Rerank")

    with pytest.raises(RerankUnavailable, match=r"the model m failed.*slow down"):
        BedrockReranker(Refusing([]), "m").score("q", ["a"])
    with pytest.raises(RerankUnavailable, match="scored 2 of 3"):
        BedrockReranker(AgentRuntime([1.0, 0.5, 0.2], lost=1), "m").score("q", ["a", "b", "c"])


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

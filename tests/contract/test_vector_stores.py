"""What every vector store of the RAG stack does, whatever is behind it. Each test has an index of its own."""

import importlib.util
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.chunking import Chunk, chunk_id
from ragkit.embed import NO_MODEL
from ragkit.store import S3VectorStore
from ragkit.stores import opensearch, pgvector
from ragkit.stores.snowflake import SnowflakeStore, connector

from tests.support import postgres
from tests.support.opensearch import OpenSearch
from tests.support.server import LiveServer

TOPICS = ("bird", "stone", "river", "engine")
NEEDED = ("duckdb", "sqlglot", "snowflake.connector")
FAR = 1_000


def missing():
    found = []
    for name in NEEDED:
        try:
            there = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            there = None
        if there is None:
            found.append(name)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = LiveServer(tmp_path_factory.mktemp("stores") / "state").start()
    yield server
    assert server.stop() == 0, server.log.read_text()[-4000:]
    assert "defect in" not in server.log.read_text()


@pytest.fixture(scope="module")
def s3vectors(server):
    client = server.client("s3vectors")
    client.create_vector_bucket(vectorBucketName="stack")
    return client


@pytest.fixture(scope="module")
def connect(server):
    """What makes connections to a Snowflake database."""
    if missing():
        pytest.skip(f"not installed: {', '.join(missing())}")
    connect = connector(environment(server))
    first = quiet(connect)
    first.cursor().execute("CREATE DATABASE RAG")
    first.close()
    return connect


def quiet(connect):
    """A connection, without the connector's warnings about its own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return connect()


def environment(server):
    return {
        "SNOWFLAKE_ACCOUNT": "local", "SNOWFLAKE_USER": "rag", "SNOWFLAKE_PASSWORD": "secret",
        "SNOWFLAKE_HOST": "localhost", "SNOWFLAKE_PORT": str(server.port), "SNOWFLAKE_PROTOCOL": "http",
        "SNOWFLAKE_DATABASE": "RAG", "SNOWFLAKE_SCHEMA": "PUBLIC",
    }  # fmt: skip


@pytest.fixture(scope="module")
def database():
    """A PostgreSQL with pgvector."""
    if postgres.missing():
        pytest.skip(postgres.missing())
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="module")
def domain():
    """A double of OpenSearch: this shows that the store keeps to the contract, not that OpenSearch does."""
    double = OpenSearch("rag", "secret")
    yield double
    double.close()


class Made:
    """Stores of one kind: `store()` is the same index again, over a client of its own."""

    def __init__(self, make, index):
        self.make = make
        self.index = index

    def __call__(self):
        return self.make(self.index)


@pytest.fixture(params=["s3vectors", "snowflake", "opensearch", "pgvector"])
def stores(request):
    index = f"passages-{request.node.name.lower()}".replace("[", "-").replace("]", "").replace("_", "-")[:60]
    opened = []
    if request.param == "s3vectors":
        client = request.getfixturevalue("s3vectors")
        yield Made(lambda name: S3VectorStore(client, "stack", name, len(TOPICS)), index)
        return
    if request.param == "opensearch":
        double = request.getfixturevalue("domain")

        def rest():
            return opensearch.Rest(double.endpoint, opensearch.basic("rag", "secret"))

        yield Made(lambda name: opensearch.OpenSearchStore(rest(), name, len(TOPICS)), index)
        return
    if request.param == "pgvector":
        connect = closing(request.getfixturevalue("database"), opened)
        yield Made(lambda name: pgvector.PgVectorStore(connect, name, len(TOPICS)), index)
        for connection in opened:
            connection.close()
        return
    connect = request.getfixturevalue("connect")

    def connected():
        opened.append(quiet(connect))
        return opened[-1]

    yield Made(lambda name: SnowflakeStore(connected, name, len(TOPICS)), index)
    for connection in opened:
        connection.close()


def closing(database, opened):
    """The store's own way to connect; what it opened is written down."""
    connect = pgvector.connector(database.endpoint, database.secret)

    def connected():
        opened.append(connect())
        return opened[-1]

    return connected


@pytest.fixture
def store(stores):
    store = stores()
    store.prepare()
    return store


class Embedder:
    """Counts topic words; remembers what it was asked."""

    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen += texts
        return [[text.lower().count(topic) + 0.01 for topic in TOPICS] for text in texts]


def chunks(document, *texts, labels=("public",), **attributes):
    return [
        Chunk(chunk_id(document, number), document, number, f"Title of {document}", f"About {document}", text,
              f"{hash((text, labels))}", number + 1, labels, tuple(attributes.items()))
        for number, text in enumerate(texts)
    ]  # fmt: skip


def put(store, document, *texts, embed=None, model="topics", **kwargs):
    return store.replace(document, chunks(document, *texts, **kwargs), embed or Embedder(), model)


def found(store, where, vector=(1, 1, 1, 1)):
    """The documents that a filter lets through; both kinds of search must agree."""
    dense = sorted(key.split("#")[0] for key, _ in store.dense(vector, FAR, "topics", where))
    lexical = sorted(key.split("#")[0] for key, _ in store.lexical("thing", FAR, where))
    assert dense == lexical
    return dense


def test_prepare_twice_and_drop_twice(store):
    store.prepare()
    put(store, "a", "a bird")
    store.prepare()
    assert store.dense([1, 0, 0, 0], 5, "topics", None)
    store.drop()
    store.drop()
    store.prepare()
    assert store.dense([1, 0, 0, 0], 5, "topics", None) == []
    assert store.lexical("bird", 5, None) == []


def test_what_is_put_is_found_nearest_first(store):
    assert put(store, "a", "bird bird bird", "stone stone", "bird stone").written == 3
    hits = store.dense([1, 0, 0, 0], 5, "topics", None)
    assert [key for key, _ in hits] == ["a#0", "a#2", "a#1"]
    distances = [distance for _, distance in hits]
    assert distances == sorted(distances) and distances[0] == pytest.approx(0, abs=1e-4) and distances[2] > 0.9
    assert [key for key, _ in store.dense([1, 0, 0, 0], 1, "topics", None)] == ["a#0"]


def test_words_are_found_best_first(store):
    put(store, "a", "the heron stands in water", "heron and heron again", "a wren in a tree")
    hits = store.lexical("herons", 5, None)
    assert [key for key, _ in hits] == ["a#1", "a#0"]
    assert hits[0][1] > hits[1][1] > 0
    assert [key for key, _ in store.lexical("heron", 1, None)] == ["a#1"]
    assert [key for key, _ in store.lexical("wren about", 1, None)] == ["a#2"]
    assert store.lexical("albatross", 5, None) == []


def test_rare_words_count_more(store):
    put(store, "a", "common rare", *["common thing"] * 8)
    assert store.lexical("common rare", 9, None)[0][0] == "a#0"


def test_the_context_is_searched_too(store):
    put(store, "zebra", "stripes")
    assert [key for key, _ in store.lexical("zebra", 5, None)] == ["zebra#0"]


def test_passages_come_in_the_order_asked(store):
    put(store, "a", "one", "two", "three")
    got = store.passages(["a#2", "gone#0", "a#0"])
    assert [one.id for one in got] == ["a#2", "a#0"]
    first = got[0]
    assert (first.document, first.number, first.title, first.context, first.text, first.page) == (
        "a", 2, "Title of a", "About a", "three", 3,
    )  # fmt: skip


def test_passages_say_who_may_see_them(store):
    put(store, "a", "one", labels=("acme", "it's", "日本"))
    put(store, "b", "two", labels=())
    got = store.passages(["a#0", "b#0"])
    assert [one.labels for one in got] == [("acme", "it's", "日本"), ()]
    assert store.lexical("two", 5, {"labels": {"$in": ["acme"]}}) == []
    put(store, "a", "one", labels=("acme",))
    assert store.passages(["a#0"])[0].labels == ("acme",)


def test_an_empty_index_and_empty_questions(store):
    assert store.dense([1, 0, 0, 0], 5, "topics", None) == []
    assert store.lexical("anything", 5, None) == []
    assert store.lexical("  ", 5, None) == []
    assert store.passages([]) == []
    assert store.delete("nothing") == 0
    assert put(store, "a").written == 0


def test_what_did_not_change_is_neither_embedded_nor_written(store):
    embed = Embedder()
    put(store, "a", "bird", "stone", embed=embed)
    again = put(store, "a", "bird", "stone", embed=embed)
    assert (again.written, again.unchanged, again.deleted) == (0, 2, 0)
    assert len(embed.seen) == 2
    changed = put(store, "a", "bird", "river", embed=embed)
    assert (changed.written, changed.unchanged, changed.deleted) == (1, 1, 0)
    assert embed.seen[2:] == ["About a\n\nriver"]
    assert store.lexical("stone", 5, None) == []
    assert [key for key, _ in store.lexical("river", 5, None)] == ["a#1"]
    assert [one.text for one in store.passages(["a#0", "a#1"])] == ["bird", "river"]


def test_fewer_chunks_leave_none_behind(store):
    put(store, "a", *[f"bird {number}" for number in range(150)])
    shorter = put(store, "a", "bird 0")
    assert (shorter.written, shorter.unchanged, shorter.deleted) == (0, 1, 149)
    assert len(store.dense([1, 0, 0, 0], FAR, "topics", None)) == 1
    assert len(store.lexical("bird", FAR, None)) == 1


def test_a_thousand_chunks_come_grow_and_shrink(store):
    texts = [f"bird number{number} " + "stone " * (number % 7) for number in range(1_000)]
    assert put(store, "a", *texts[:900]).written == 900
    grown = put(store, "a", *texts)
    assert (grown.written, grown.unchanged, grown.deleted) == (100, 900, 0)
    keys = [chunk_id("a", number) for number in range(1_000)]
    assert [one.text for one in store.passages(keys)] == texts
    assert [key for key, _ in store.lexical("number987", 5, None)] == ["a#987"]
    hits = store.dense([1, 6, 0, 0], 50, "topics", None)
    assert len(hits) == 50 and {int(key[2:]) % 7 for key, _ in hits} == {6}
    shrunk = put(store, "a", *texts[:3])
    assert (shrunk.written, shrunk.unchanged, shrunk.deleted) == (0, 3, 997)
    assert [one.id for one in store.passages(keys)] == keys[:3]
    assert len(store.lexical("bird", FAR, None)) == 3


def test_a_filter_that_few_pass_finds_them_all(store):
    """The nearest are all somebody else's."""
    put(store, "theirs", *[f"bird {number}" for number in range(600)], labels=("theirs",))
    put(store, "ours", "stone", "stone river", labels=("ours",))
    ours = {"labels": {"$in": ["ours"]}}
    assert [key for key, _ in store.dense([1, 0.01, 0.01, 0.01], 10, "topics", ours)] == ["ours#1", "ours#0"]
    assert [key for key, _ in store.lexical("bird stone", 1, ours)] == ["ours#0"]


CONFUSABLE = ("a", "a#1", "a#1#0", "a%", "a_", "A", "a ", "NULL", "a?", "$1", ":x", "a/../b", "{a,b}", "a\\b")


def test_documents_with_confusable_keys_stay_apart(store):
    for document in CONFUSABLE:
        assert put(store, document, f"a thing of {document}", "another thing").written == 2, document
    for document in CONFUSABLE:
        assert found(store, {"document": document}) == sorted([document.split("#")[0]] * 2), document
        assert [one.document for one in store.passages([chunk_id(document, 1)])] == [document]
    assert store.delete("a") == 2
    assert [one.document for one in store.passages(["a#0", "a#1", "a#1#0", "a#1#1"])] == ["a#1", "a#1"]
    assert store.delete("a#1") == 2
    assert [one.document for one in store.passages(["a#1#0#0", "A#0", "a_#0"])] == ["a#1#0", "A", "a_"]


def test_long_keys(store):
    names = [f"{'folder/' * 120}{'日本' * 20}{name}" for name in ("one", "two")]
    for name in names:
        put(store, name, f"bird of {name[-3:]}")
    assert len(store.dense([1, 0, 0, 0], 5, "topics", None)) == 2
    assert [one.document for one in store.passages([chunk_id(names[1], 0)])] == [names[1]]
    assert store.delete(names[0]) == 1
    assert [key for key, _ in store.lexical("bird", 5, None)] == [chunk_id(names[1], 0)]


def test_delete_removes_one_document_whole(store):
    put(store, "a", *[f"bird {number}" for number in range(120)])
    put(store, "a#b", "bird")
    assert store.delete("a") == 120
    assert store.delete("a") == 0
    assert [key for key, _ in store.dense([1, 0, 0, 0], FAR, "topics", None)] == ["a#b#0"]
    assert [key for key, _ in store.lexical("bird", FAR, None)] == ["a#b#0"]


def test_models_never_mix(store):
    put(store, "a", "bird", model="old")
    assert store.dense([1, 0, 0, 0], 5, "new", None) == []
    embed = Embedder()
    assert put(store, "a", "bird", model="new", embed=embed).written == 1
    assert len(embed.seen) == 1
    assert store.dense([1, 0, 0, 0], 5, "old", None) == []
    assert len(store.dense([1, 0, 0, 0], 5, "new", None)) == 1


def test_without_a_model_words_alone_find_it(store):
    stored = store.replace("a", chunks("a", "bird"), None, "topics")
    assert stored.written == 1
    assert [key for key, _ in store.lexical("bird", 5, None)] == ["a#0"]
    assert store.dense([1, 0, 0, 0], 5, "topics", None) == []
    assert store.replace("a", chunks("a", "bird"), None, NO_MODEL).unchanged == 1
    assert put(store, "a", "bird").written == 1


def test_a_model_of_another_dimension_is_refused_and_nothing_is_lost(store):
    put(store, "a", "bird")
    with pytest.raises(ValueError, match="vectors of 3 numbers, the index holds 4"):
        store.replace("a", chunks("a", "stone"), lambda texts: [[1, 2, 3]] * len(texts), "topics")
    assert [one.text for one in store.passages(["a#0"])] == ["bird"]


def test_a_model_that_fails_leaves_what_was_there(store):
    put(store, "a", "bird")

    def broken(texts):
        raise RuntimeError("asleep")

    with pytest.raises(RuntimeError, match="asleep"):
        store.replace("a", chunks("a", "stone", "river"), broken, "topics")
    assert [one.text for one in store.passages(["a#0", "a#1"])] == ["bird"]
    assert [key for key, _ in store.lexical("bird", 5, None)] == ["a#0"]


TEXTS = [
    "naïve café", "Grüße aus Köln", "東京タワー", "emoji 🐦 bird", "quote ' and \" and \\ and %s ? $1 ;",
    "line\nbreak\ttab", "𝒳 astral", "null \u2028 separator",
]  # fmt: skip


def test_unicode_and_quotes_come_back_as_they_were(store):
    document = "naïve 'docs'/日本 \"q\".md"
    put(store, document, *TEXTS)
    ids = [chunk_id(document, number) for number in range(len(TEXTS))]
    assert [one.text for one in store.passages(ids)] == TEXTS
    assert store.passages(ids[:1])[0].document == document
    assert [key for key, _ in store.lexical("café", 5, None)] == ids[:1]
    assert [key for key, _ in store.lexical("köln", 5, None)] == ids[1:2]
    assert len(store.dense([1, 0, 0, 0], FAR, "topics", {"document": document})) == len(TEXTS)
    assert store.delete(document) == len(TEXTS)


def typed(document, metadata):
    """A chunk whose attributes have other types than text, as a store's metadata may."""
    one = chunks(document, "a thing")[0]
    return replace(one, attributes=tuple(metadata.items()))


METADATA = {
    "text": {"color": "red", "size": 5, "fresh": True, "tags": ["x", "y"]},
    "other": {"color": "blue", "size": 7.5, "fresh": False, "tags": ["y", "z"]},
    "list": {"color": ["red", "green"], "size": 5.0, "tags": ["w"]},
    "bare": {},
    "digit": {"color": "5", "size": -1, "tags": ["it's", "日本"]},
}
FILTERS = [
    ({"color": "red"}, ["list", "text"]),
    ({"color": {"$eq": "blue"}}, ["other"]),
    ({"color": {"$ne": "red"}}, ["bare", "digit", "other"]),
    ({"size": 5}, ["list", "text"]),
    ({"size": {"$eq": "5"}}, []),
    ({"color": {"$eq": 5}}, []),
    ({"fresh": True}, ["text"]),
    ({"fresh": {"$ne": True}}, ["bare", "digit", "list", "other"]),
    ({"tags": "y"}, ["other", "text"]),
    ({"tags": {"$in": ["x", "w"]}}, ["list", "text"]),
    ({"tags": {"$nin": ["x", "w"]}}, ["bare", "digit", "other"]),
    ({"tags": {"$in": ["it's"]}}, ["digit"]),
    ({"tags": {"$in": ["日本"]}}, ["digit"]),
    ({"color": {"$exists": True}}, ["digit", "list", "other", "text"]),
    ({"fresh": {"$exists": False}}, ["bare", "digit", "list"]),
    ({"size": {"$gt": 5}}, ["other"]),
    ({"size": {"$gte": 5}}, ["list", "other", "text"]),
    ({"size": {"$lt": 5}}, ["digit"]),
    ({"size": {"$lte": 5, "$gt": 0}}, ["list", "text"]),
    ({"color": {"$gt": 1}}, []),
    ({"$and": [{"color": "red"}, {"tags": "x"}]}, ["text"]),
    ({"$or": [{"color": "blue"}, {"size": {"$lt": 0}}]}, ["digit", "other"]),
    ({"$and": [{"$or": [{"color": "red"}, {"color": "blue"}]}, {"size": {"$gt": 6}}]}, ["other"]),
    ({"color": "red", "tags": "x"}, ["text"]),
    ({"absent": "x"}, []),
    ({"document": "other"}, ["other"]),
    ({"labels": {"$in": ["public"]}}, ["bare", "digit", "list", "other", "text"]),
    ({"labels": {"$in": ["secret"]}}, []),
]


def test_filters(store):
    for document, metadata in METADATA.items():
        store.replace(document, [typed(document, metadata)], Embedder(), "topics")
    for where, wanted in FILTERS:
        assert found(store, where) == wanted, where


def test_labels_keep_tenants_apart(store):
    put(store, "ours", "a thing of ours", labels=("acme",))
    put(store, "theirs", "a thing of theirs", labels=("other",))
    put(store, "both", "a thing of both", labels=("acme", "other"))
    assert found(store, {"labels": {"$in": ["acme"]}}) == ["both", "ours"]
    assert found(store, {"labels": {"$in": ["nobody"]}}) == []
    assert put(store, "ours", "a thing of ours", labels=("moved",)).written == 1
    assert found(store, {"labels": {"$in": ["acme"]}}) == ["both"]


def test_two_writers_leave_one_of_their_versions(store, stores):
    """They write the same document at once, from clients of their own: one of the two is there at the end, whole."""
    texts = {name: [f"{name} bird {number}" for number in range(30)] for name in ("first", "second")}
    errors, go = [], threading.Barrier(2)

    def write(name):
        try:
            own = stores()
            go.wait(30)
            for _ in range(3):
                put(own, "a", *texts[name])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    settled = put(store, "a", *texts["first"])
    assert settled.written + settled.unchanged == 30 and settled.deleted == 0
    keys = [chunk_id("a", number) for number in range(30)]
    assert [one.text for one in store.passages(keys)] == texts["first"]
    assert len(store.dense([1, 0, 0, 0], FAR, "topics", None)) == 30
    assert sorted(key for key, _ in store.lexical("first", FAR, None)) == sorted(keys)
    assert store.lexical("second", FAR, None) == []


def test_two_writers_of_two_documents_do_not_hinder_each_other(store, stores):
    errors = []

    def write(name):
        try:
            own = stores()
            for round_ in range(3):
                put(own, name, *[f"{name} bird {round_} {number}" for number in range(20)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("north", "south")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(store.dense([1, 0, 0, 0], FAR, "topics", None)) == 40
    assert len(store.lexical("north", FAR, None)) == 20

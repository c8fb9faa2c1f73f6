"""The vector stores beyond the contract: connections that are lost, domains that are busy, how one is chosen."""

import json
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

import boto3
from botocore.credentials import Credentials
from ragkit.chunking import Chunk, chunk_id
from ragkit.resilience import transient
from ragkit.store import S3VectorStore, filterable
from ragkit.stores import StoreUnavailable, opensearch, pgvector
from ragkit.stores.choice import open_store
from ragkit.stores.opensearch import OpenSearchError, OpenSearchStore, Rest, basic, signed
from ragkit.stores.pgvector import PgVectorStore, connector
from ragkit.versions import Recipe

from tests.support import postgres
from tests.support.opensearch import OpenSearch

RECIPE = Recipe("a model", 2)


def chunks(document, *texts):
    return [
        Chunk(chunk_id(document, at), document, at, "Title", "", text, str(hash(text))) for at, text in enumerate(texts)
    ]


def put(store, document, *texts):
    return store.replace(document, chunks(document, *texts), lambda given: [[1.0, 2.0]] * len(given), "m")


def test_what_is_kept_to_filter_by_fits_where_the_key_and_the_title_are_long():
    attributes = (("first", "x" * 300), ("large", "y" * 1_900), ("last", "z"))
    one = Chunk("k#0", "k", 0, "Title", "", "text", "d" * 32, 0, ("public",), attributes)
    kept = filterable(one, "m")
    assert (kept["title"], kept["first"], kept["last"]) == ("Title", "x" * 300, "z") and "large" not in kept
    wide = Chunk("鳥" * 340 + "#0", "鳥" * 340, 0, "題" * 300, "", "text", "d" * 32, 0, ("public",), attributes)
    kept = filterable(wide, "m")
    assert kept["document"] == wide.document and 10 < len(kept["title"]) < 300
    assert len(json.dumps({"content": "c" * 24, **kept}, ensure_ascii=False).encode()) <= 2_048


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database():
    if postgres.missing():
        pytest.skip(postgres.missing())
    with postgres.running() as server:
        yield server


@pytest.fixture
def table(database, request):
    store = PgVectorStore(connector(database.endpoint, database.secret), request.node.name, 2)
    store.prepare()
    yield store
    store.close()


def run(database, sql, **values):
    connection = database.connect()
    try:
        return connection.run(sql, **values)
    finally:
        connection.close()


def end_sessions(database):
    sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'ragkit'"
    return len(run(database, sql))


def test_a_connection_is_kept_and_a_lost_one_replaced(database, table):
    put(table, "a", "bird")
    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'ragkit'"
    first = run(database, sessions)
    assert len(table.lexical("bird", 5, None)) == 1
    assert run(database, sessions) == first and len(first) == 1
    assert end_sessions(database) == 1
    assert len(table.lexical("bird", 5, None)) == 1
    assert end_sessions(database) == 1
    assert put(table, "b", "stone").written == 1
    assert end_sessions(database) == 1
    assert table.delete("a") == 1


def test_one_that_is_down_is_unavailable_for_now_and_nothing_is_lost(database, table):
    put(table, "a", "bird")
    database.kill()
    try:
        with pytest.raises(StoreUnavailable, match="PostgreSQL cannot be used") as caught:
            table.lexical("bird", 5, None)
        assert transient(caught.value)
        with pytest.raises(StoreUnavailable):
            put(table, "b", "stone")
    finally:
        database.start()
    assert [one.text for one in table.passages(["a#0", "b#0"])] == ["bird"]
    assert put(table, "b", "stone").written == 1
    assert len(table.dense([1.0, 2.0], 5, "m", None)) == 2


def test_a_connection_lost_within_a_write_leaves_all_of_it_or_nothing(database):
    """The session ends before every statement in turn; the write comes out whole each time."""
    ends = []
    connect = connector(database.endpoint, database.secret)
    store = PgVectorStore(lambda: Ending(connect(), database, ends), "ending", 2)
    store.prepare()
    put(store, "a", "bird", "stone")
    for before in range(1, 10):
        ends.append(before)
        assert put(store, "a", f"heron {before}", f"stone {before}", f"river {before}").written == 3
        assert ends == [], "the write has fewer statements"
        assert [key for key, _ in store.lexical("heron", 5, None)] == ["a#0"]
        assert put(store, "a", "bird", "stone").deleted == 1
    totals = run(database, "SELECT passages, text_terms, context_terms FROM totals_ending")
    assert totals == [[2, 2, 0]]
    assert run(database, "SELECT COUNT(*) FROM postings_ending") == [[2]]
    store.close()


class Ending:
    """A connection whose session ends before the statement whose number from now is in `ends`, once."""

    def __init__(self, inner, database, ends):
        self.inner, self.database, self.ends = inner, database, ends

    def run(self, *arguments, **values):
        if self.ends:
            self.ends[0] -= 1
            if self.ends[0] == 0:
                self.ends.clear()
                (pid,) = self.inner.run("SELECT pg_backend_pid()")[0]
                run(self.database, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)
        return self.inner.run(*arguments, **values)

    def close(self):
        self.inner.close()


def test_a_password_that_was_rotated_is_read_again(database):
    asked = []

    def secret(again):
        asked.append(again)
        return database.secret() if again else {"username": postgres.USER, "password": "the old one"}

    connection = connector(database.endpoint, secret)()
    assert connection.run("SELECT 1") == [[1]]
    connection.close()
    assert asked == [False, True]
    wrong = connector(database.endpoint, lambda again: {"username": postgres.USER, "password": "never right"})
    with pytest.raises(Exception, match="password authentication failed"):
        PgVectorStore(wrong, "passages", 2).lexical("bird", 5, None)


def test_a_server_without_tls_is_refused_unless_told(database):
    endpoint = database.endpoint.replace("?sslmode=disable", "")
    with pytest.raises(StoreUnavailable, match="refuses SSL"):
        PgVectorStore(connector(endpoint, database.secret), "passages", 2).lexical("bird", 5, None)
    with pytest.raises(ValueError, match="sslmode prefer is not one of"):
        connector(f"{endpoint}?sslmode=prefer", database.secret)
    with pytest.raises(ValueError, match="postgresql://HOST"):
        connector("mysql://somewhere/x", database.secret)


def test_values_of_filters_never_become_sql(database, table):
    put(table, "a", "bird")
    for hostile in ("'; DROP TABLE passages_x; --", "\\' OR TRUE --", '"}\' OR 1=1', "$1", ":a", "?"):
        for where in ({"labels": hostile}, {hostile: "x"}, {"labels": {"$in": [hostile, "x"]}}, {hostile: {"$gt": 1}}):
            assert table.dense([1.0, 2.0], 5, "m", where) == []
            assert table.lexical("bird", 5, where) == []
        assert len(table.dense([1.0, 2.0], 5, "m", {hostile: {"$exists": False}})) == 1
        assert table.lexical(hostile, 5, None) == []
    with pytest.raises(ValueError, match="unknown operator"):
        table.dense([1.0, 2.0], 5, "m", {"labels": {"$regex": "x"}})


def test_the_character_zero_is_left_out(table):
    put(table, "a", "bi\x00rd \\u0000 \\\\u0000 \x00\x00")
    assert table.passages(["a#0"])[0].text == "bird \\u0000 \\\\u0000 "
    assert len(table.lexical("bird", 5, None)) == 1


def test_vectors_are_searched_by_hnsw(database, table):
    put(table, "a", *[f"bird {at}" for at in range(300)])
    name = f"passages_{pgvector.table_name('test_vectors_are_searched_by_hnsw')}"
    sql = f"EXPLAIN SELECT id FROM {name} ORDER BY embedding <=> '[1,2]' LIMIT 5"
    plan = run(database, f"SET enable_seqscan = off; {sql}")
    assert any(f"Index Scan using {name}_near" in row[0] for row in plan), plan


def test_threads_have_connections_of_their_own(database, table):
    put(table, "a", *[f"bird {at}" for at in range(20)])
    errors = []

    def ask():
        try:
            for _ in range(10):
                assert len(table.dense([1.0, 2.0], 20, "m", None)) == 20
                assert len(table.lexical("bird", 20, None)) == 20
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_names_of_tables():
    assert pgvector.table_name("passages-0123456789ab") == "passages_0123456789ab"
    long = [pgvector.table_name("x" * 60 + end) for end in "ab"]
    assert long[0] != long[1] and all(len(f"passages_{one}_metadata") <= 63 for one in long)


# -- OpenSearch, over its double --------------------------------------------------------------------------------------


@pytest.fixture
def double():
    double = OpenSearch("rag", "secret")
    yield double
    double.close()


@pytest.fixture
def index(double):
    pauses = []
    store = OpenSearchStore(Rest(double.endpoint, basic("rag", "secret"), pauses.append, lambda: 0.5), "passages-x", 2)
    store.prepare()
    store.pauses = pauses
    return store


def test_what_a_busy_domain_refused_is_sent_again(double, index):
    double.busy = [429, ("item", 429, 2), ("item", 503, 1)]
    assert index.replace("a", [], None, "m").deleted == 0
    assert put(index, "a", "bird", "stone", "river").written == 3
    assert len(index.lexical("bird stone river", 5, None)) == 3
    assert index.pauses == [0.1]


def test_items_alone_are_sent_again(double, index):
    double.busy = [None, None, ("item", 429, 2), ("item", 429, 1)]
    before = len(double.calls)
    assert put(index, "a", "bird", "stone", "river").written == 3
    assert [path for _, path, _ in double.calls[before:]].count("/passages-x/_bulk") == 3
    assert len(index.lexical("bird stone river", 5, None)) == 3
    assert index.pauses == [0.1, 0.2]


def test_one_that_stays_busy_is_unavailable(double, index):
    double.busy = [503] * 3
    with pytest.raises(StoreUnavailable, match="503") as caught:
        index.lexical("bird", 5, None)
    assert transient(caught.value)
    double.busy = [None, None, *[("item", 429, 9)] * 3]
    with pytest.raises(StoreUnavailable, match="3 of the chunks"):
        put(index, "a", "bird", "stone", "river")


def test_one_that_cannot_be_reached_is_unavailable(double):
    double.close()
    late = OpenSearchStore(Rest(double.endpoint, basic("rag", "secret"), lambda pause: None), "passages-x", 2)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        late.dense([1.0, 2.0], 5, "m", None)


def test_its_errors_are_told(double, index):
    index.drop()
    with pytest.raises(OpenSearchError, match=r"404 index_not_found_exception: no such index \[passages-x\]") as caught:
        index.lexical("bird", 5, None)
    assert caught.value.status == 404 and not transient(caught.value)
    with pytest.raises(OpenSearchError, match="index_not_found"):
        put(index, "a", "bird")
    stranger = OpenSearchStore(Rest(double.endpoint, basic("rag", "wrong")), "passages-x", 2)
    with pytest.raises(OpenSearchError, match="401"):
        stranger.prepare()
    index.prepare()
    with pytest.raises(OpenSearchError, match="invalid dimension"):
        index.dense([1.0, 2.0, 3.0], 5, "m", None)


def test_a_write_waits_for_the_refresh(double, index):
    put(index, "a", *[f"bird {at}" for at in range(250)])
    held = double.indexes["passages-x"]
    assert held.seen.keys() == held.written.keys() and len(held.seen) == 250
    index.delete("a")
    assert held.seen == held.written == {}


def test_signed_calls_say_who_calls(double):
    double._token = ""
    rest = Rest(double.endpoint, signed(Credentials("AKIDEXAMPLE", "secret", "token"), "eu-west-1"))
    OpenSearchStore(rest, "passages-y", 2).prepare()
    headers = double.calls[-1][2]
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/es/aws4_request, SignedHeaders=content-type;host;" in headers["authorization"]
    assert headers["x-amz-security-token"] == "token"


def test_serverless_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="ids of its own"):
        Rest("https://abc.us-east-1.aoss.amazonaws.com", basic("a", "b"))
    with pytest.raises(ValueError, match="https://HOST"):
        Rest("search.example", basic("a", "b"))


def test_names_of_fields_and_ids_stay_apart():
    found = opensearch.numbers({"a.b": 1, "a b": [2, "x"], "flag": True, "none": "x"})
    assert found == {"a-2e-b": [1.0], "a-20-b": [2.0]}
    long = ["日本" * 200 + end for end in "ab"]
    made = {opensearch.row_id(one) for one in long}
    assert len(made) == 2 and all(len(one.encode()) <= 512 for one in made)
    assert opensearch.row_id("a#0") == "a#0"


# -- the choice -------------------------------------------------------------------------------------------------------


class Secrets:
    """Secrets Manager's client, as much as is called."""

    def __init__(self, held):
        self.held, self.asked = held, 0

    def __call__(self, service):
        return self if service == "secretsmanager" else boto3.client(service, region_name="us-east-1")

    def get_secret_value(self, SecretId):
        self.asked += 1
        return {"SecretString": json.dumps(self.held[SecretId])}


def test_the_environment_chooses(double):
    secrets = Secrets({"arn": {"username": "rag", "password": "secret", "engine": "postgres"}})
    assert isinstance(open_store("s3vectors", RECIPE, {"VECTOR_BUCKET": "b"}, secrets), S3VectorStore)
    assert secrets.asked == 0
    chosen = open_store("opensearch", RECIPE, {"STORE_ENDPOINT": double.endpoint, "STORE_SECRET_ARN": "arn"}, secrets)
    chosen.prepare()
    assert list(double.indexes) == [RECIPE.index]
    chosen.prepare()
    assert secrets.asked == 1


def test_the_secret_is_read_once(database):
    secrets = Secrets({"arn": database.secret()})
    environment = {"STORE_ENDPOINT": database.endpoint, "STORE_SECRET_ARN": "arn"}
    store = open_store("pgvector", RECIPE, environment, secrets)
    assert secrets.asked == 0
    store.prepare()
    assert end_sessions(database) >= 1
    store.prepare()
    assert secrets.asked == 1
    store.drop()
    store.close()


@pytest.mark.parametrize(
    ("kind", "environment", "told"),
    [
        ("chroma", {}, "the store chroma is not one of s3vectors, snowflake, opensearch, pgvector"),
        ("pgvector", {}, "postgresql://HOST:PORT/DATABASE"),
        ("opensearch", {"STORE_ENDPOINT": "nowhere", "STORE_SECRET_ARN": "arn"}, "https://HOST"),
        ("opensearch", {"STORE_ENDPOINT": "https://x", "STORE_SECRET_ARN": "half"}, "no password"),
        ("snowflake", {"STORE_ENDPOINT": "https://x"}, "snowflake://ACCOUNT"),
    ],
)
def test_what_is_missing_is_told(kind, environment, told):
    secrets = Secrets({"arn": {"username": "rag", "password": "secret"}, "half": {"username": "rag"}})
    with pytest.raises(ValueError, match=told):
        open_store(kind, RECIPE, environment, secrets)

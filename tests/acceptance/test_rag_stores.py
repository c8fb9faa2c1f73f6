"""The RAG stack over other vector stores: deployed, fed and asked, with a real server behind it."""

import importlib.util
import json
import warnings
from urllib.parse import urlencode

import boto3
import pytest

from tests.support import postgres
from tests.support.opensearch import OpenSearch
from tests.support.rag import RagStack
from tests.support.server import LiveServer, wait_for

HERONS = "# Herons\n\nThe grey heron eats fish and frogs. It stands still in shallow water.\n"
PUMPS = "# Pumps\n\nThe pump on deck seven is serviced every ninety days.\n"


class EnforcedServer(LiveServer):
    """Policies are enforced, so what the functions' roles lack is refused; the clients are the root user's."""

    def client(self, service, **config):
        return boto3.client(service, endpoint_url=self.endpoint, region_name="us-east-1", **self.root())

    def resource(self, service):
        return boto3.resource(service, endpoint_url=self.endpoint, region_name="us-east-1", **self.root())

    def root(self):
        lines = (self.state / "root-credentials").read_text().splitlines()
        key, secret = (line.partition("=")[2] for line in lines)
        return {"aws_access_key_id": key, "aws_secret_access_key": secret}


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = EnforcedServer(tmp_path / "state", "--iam", "enforce").start()
    for name, value in server.root().items():
        monkeypatch.setenv(name.upper(), value)
    yield server
    assert server.stop() == 0, server.log.read_text()[-4000:]
    assert "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]


def secret(server, known):
    """The ARN of a secret as RDS and OpenSearch users keep them."""
    client = server.client("secretsmanager")
    return client.create_secret(Name="store", SecretString=json.dumps(known))["ARN"]


def lived(rag):
    """A stack's life: documents in, questions, labels, a document out."""
    rag.put("birds/heron.md", HERONS)
    rag.put("deck/pumps.md", PUMPS)
    events = dict(rag.ask("What does the grey heron eat?"))
    passages = events["retrieval"]["passages"]
    assert passages[0]["document"] == "birds/heron.md"
    assert events["retrieval"]["mode"] == "hybrid", events["retrieval"]
    assert "fish" in events["done"]["answer"]
    rag.put("birds/heron.md", "# Herons\n\nThe grey heron sleeps in tall trees.\n")
    events = dict(rag.ask("Where does the grey heron sleep?"))
    assert "tall trees" in events["done"]["answer"]
    rag.remove("birds/heron.md")
    found = dict(rag.ask("Where does the grey heron sleep?"))["retrieval"]["passages"]
    assert "birds/heron.md" not in [one["document"] for one in found]


def test_pgvector(server):
    """Real PostgreSQL, real pgvector; the password is in Secrets Manager."""
    if postgres.missing():
        pytest.skip(postgres.missing())
    with postgres.running() as database:
        arn = secret(server, database.secret())
        rag = RagStack(server, VectorStore="pgvector", StoreEndpoint=database.endpoint, StoreSecretArn=arn)
        lived(rag)
        connection = database.connect()
        table = f"passages_passages_{rag.outputs['IndexRecipe']}"
        rows = connection.run(f"SELECT document, metadata -> 'labels', vector_dims(embedding) FROM {table}")
        assert rows == [["deck/pumps.md", ["public"], 384]]
        rag.remove("deck/pumps.md")
        server.client("cloudformation").delete_stack(StackName="rag")
        left = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'passages%'"
        wait_for(lambda: connection.run(left) == [], what="the tables being dropped with the stack")
        connection.close()


def test_a_stack_moves_to_pgvector_while_it_answers(server):
    if postgres.missing():
        pytest.skip(postgres.missing())
    rag = RagStack(server)
    rag.put("birds/heron.md", HERONS)
    rag.put("deck/pumps.md", PUMPS)
    with postgres.running() as database:
        arn = secret(server, database.secret())
        rag.deploy(VectorStore="pgvector", StoreEndpoint=database.endpoint, StoreSecretArn=arn)
        found = dict(rag.ask("What does the grey heron eat?"))["retrieval"]["passages"]
        assert found[0]["document"] == "birds/heron.md"
        rag.wait_live(store="pgvector")
        server.advance(6 * 3600 + 900)
        vectors = server.client("s3vectors")
        names = {"vectorBucketName": "rag-vectors-000000000000"}
        wait_for(lambda: vectors.list_indexes(**names)["indexes"] == [], what="the old index being dropped")
        events = dict(rag.ask("How often is the pump serviced?"))
        assert events["retrieval"]["passages"][0]["document"] == "deck/pumps.md"
        assert "ninety days" in events["done"]["answer"]


def test_opensearch(server):
    """A double of OpenSearch; what it shows is the wiring, the credentials and the calls."""
    double = OpenSearch("rag", "secret")
    try:
        arn = secret(server, {"username": "rag", "password": "secret"})
        rag = RagStack(server, VectorStore="opensearch", StoreEndpoint=double.endpoint, StoreSecretArn=arn)
        lived(rag)
        (held,) = double.indexes.values()
        assert [row["document"] for row in held.seen.values()] == ["deck/pumps.md"]
    finally:
        double.close()


def test_snowflake(server):
    """The connector itself, against this server's own Snowflake endpoint."""
    missing = [name for name in ("duckdb", "sqlglot", "snowflake") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    import snowflake.connector

    at = {"host": "localhost", "port": server.port, "protocol": "http"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        first = snowflake.connector.connect(account="local", user="rag", password="secret", **at)
    first.cursor().execute("CREATE DATABASE RAG")
    arn = secret(server, {"username": "rag", "password": "secret"})
    endpoint = f"snowflake://local/RAG/PUBLIC?{urlencode(at)}"
    lived(RagStack(server, VectorStore="snowflake", StoreEndpoint=endpoint, StoreSecretArn=arn))
    rows = first.cursor().execute("SELECT TABLE_NAME FROM RAG.INFORMATION_SCHEMA.TABLES ORDER BY 1").fetchall()
    assert [row[0].split("_PASSAGES_")[0] for row in rows] == ["PASSAGES", "POSTINGS"]
    first.close()

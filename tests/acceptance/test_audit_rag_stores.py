"""What a user may not see is not found in the deployed RAG stack, whatever vector store is behind it."""

import http.client
import importlib.util
import json
import threading
import warnings
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import pytest

from tests.support import postgres
from tests.support.asking import Client, key_of, put
from tests.support.opensearch import OpenSearch
from tests.support.rag import RagStack
from tests.support.server import LiveServer

NASTY = ("a'b\"c", "x'; DROP TABLE passages; --", "über%_\\", "$in", "tab\there", "nul\u0000here", "1", "true")
NAMES = ("a'b", "x'; DROP TABLE passages; --", "über%_", "a.b[0]", "1", "team ", "*", "{}", "?", ":1", "$1 ")


class Doorkeeper(BaseHTTPRequestHandler):
    """Passes requests on to the platform, and counts them by path."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.lock:
            self.server.asked[self.path.partition("?")[0]] += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request("POST", self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    def log_message(self, *_):
        pass


@contextmanager
def doorkeeper(behind):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Doorkeeper)
    server.behind, server.asked, server.lock = behind, Counter(), threading.Lock()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def store_of(name, server, secret):
    """(parameters, what counts requests or None) of the stack over this store."""
    known = {"username": "rag", "password": "secret"}
    if name == "s3vectors":
        yield {}, None
    elif name == "pgvector":
        if postgres.missing():
            pytest.skip(postgres.missing())
        with postgres.running() as database:
            yield {"StoreEndpoint": database.endpoint, "StoreSecretArn": secret(database.secret())}, None
    elif name == "opensearch":
        double = OpenSearch("rag", "secret")
        try:
            yield {"StoreEndpoint": double.endpoint, "StoreSecretArn": secret(known)}, None
        finally:
            double.close()
    else:
        missing = [one for one in ("duckdb", "sqlglot", "snowflake") if importlib.util.find_spec(one) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        with doorkeeper(server.port) as door:
            at = urlencode({"host": "localhost", "port": door.server_port, "protocol": "http"})
            snowflake_database(door.server_port)
            door.asked.clear()
            yield {"StoreEndpoint": f"snowflake://local/RAG/PUBLIC?{at}", "StoreSecretArn": secret(known)}, door


def snowflake_database(port):
    """The connector looks for a cloud that it may be in, which the environment forbids here."""
    import snowflake.connector

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        made = snowflake.connector.connect(
            account="local", user="rag", password="secret", host="localhost", port=port, protocol="http"
        )
    made.cursor().execute("CREATE DATABASE RAG")
    made.close()


@pytest.mark.parametrize("name", ["s3vectors", "pgvector", "opensearch", "snowflake"])
def test_labels_and_filters_hold_in_every_store(tmp_path, monkeypatch, name):
    """Through the deployed stack: what a user may not see is not found by words, by meaning, as a neighbour or by a
    filter that names labels; values that look like something else are values."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = LiveServer(tmp_path / "state").start()

    def secret(known):
        return server.client("secretsmanager").create_secret(Name="store", SecretString=json.dumps(known))["ARN"]

    try:
        with store_of(name, server, secret) as (parameters, door):
            rag = RagStack(server, VectorStore=name, Neighbours="1", RequestsPerMinute="0", **parameters)
            put(rag, "open.md", "# Plans\n\nThe harbour plan is open to all readers.\n", team="sea", level="$in")
            for at, label in enumerate(("north", "o'neill", "$in")):
                put(rag, f"{at}.md", f"# Plans\n\nThe harbour plan of {at} is secret.\n", labels=label, team="sea")
            question = "What is the harbour plan?"
            for at, label in enumerate(("north", "o'neill", "$in")):
                holder = Client(rag, key=key_of(rag, f"holder-{at}", [label]))
                shown = [one["document"] for one in holder.ask(question)["retrieval"][0]["passages"]]
                assert sorted(shown) == sorted((f"{at}.md", "open.md"))
            visitor = Client(rag, "kai-00000000")
            wide = [{"labels": "north"}, {"$or": [{"labels": {"$in": ["north", "public"]}}, {"team": "sea"}]},
                    {"labels": {"$nin": ["public"]}}, {"labels": {"$exists": False}},
                    {"labels": {"$ne": "x"}}]  # fmt: skip
            for where in (None, *wide):
                shown = visitor.ask(question, where=where)["retrieval"][0]
                assert {one["document"] for one in shown["passages"] + shown["ranked"]} <= {"open.md"}, where
            for value in NASTY:
                for where in ({"team": value}, {"level": {"$in": [value]}}):
                    status, found = visitor.asked(question, where=where)
                    assert status == 200 and "error" not in found, (value, found)
                    shown = [one["document"] for one in found["retrieval"][0]["passages"]]
                    assert shown == (["open.md"] if where == {"level": {"$in": ["$in"]}} else []), value
            for unknown in NAMES:
                status, found = visitor.asked(question, where={unknown: "x"})
                assert status == (400 if unknown[0] == "$" else 200), found
                assert status == 400 or found["retrieval"][0]["passages"] == [], unknown
            assert [one["document"] for one in visitor.ask(question)["retrieval"][0]["passages"]] == ["open.md"]
            if door is not None:
                logins = "/session/v1/login-request"
                made, asked = door.asked[logins], door.asked["/queries/v1/query-request"]
                for _ in range(5):
                    visitor.ask(question)
                assert door.asked[logins] == made >= 1 and door.asked["/queries/v1/query-request"] >= asked + 5
    finally:
        code = server.stop()
    assert code == 0 and "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]

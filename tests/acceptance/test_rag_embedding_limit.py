"""The model that embeds documents, behind Preheat and counting: how many calls it sees at once, and what it refuses."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.rag import deployed
from tests.support.server import wait_for

MODEL, LIMIT, DOCUMENTS, WINDOW = "cohere.embed-english-v3", 3, 90, 256
SECONDS, SIGNS = 0.1, "=();"


class Bedrock(BaseHTTPRequestHandler):
    """InvokeModel of a Cohere model that reads WINDOW tokens: a word is one, a sign three more."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.inside += 1
            server.most = max(server.most, server.inside)
        server.pause.wait(SECONDS)
        with server.lock:
            server.inside -= 1
            server.calls += 1
            throttled = server.calls % 10 == 0
        counts = [len(text.split()) + 3 * sum(map(text.count, SIGNS)) for text in asked["texts"]]
        if throttled:
            self.answer(429, {"message": "Too many requests"}, "ThrottlingException")
        elif asked["truncate"] == "NONE" and max(counts) > WINDOW:
            server.refused += 1
            self.answer(400, {"message": "Input is too long for requested model."}, "ValidationException")
        else:
            server.embedded += asked["texts"]
            vectors = [[1.0, count / 100, *[0.5] * 6] for count in counts]
            self.answer(200, {"embeddings": vectors, "id": "x", "response_type": "embeddings_floats"})

    def answer(self, status, body, error=""):
        data = json.dumps(body).encode()
        self.send_response(status)
        if error:
            self.send_header("x-amzn-errortype", error)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def model():
    server = Server(("127.0.0.1", 0), Bedrock)
    server.lock, server.pause = threading.Lock(), threading.Event()
    server.inside = server.most = server.calls = server.refused = 0
    server.embedded = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.pause.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_model_sees_as_many_calls_at_once_as_the_limit_says_and_all_of_every_text(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with model() as far:
        options = {"endpoint_url": f"http://127.0.0.1:{far.server_port}"}
        models = tmp_path / "models.json"
        models.write_text(json.dumps({MODEL: {"backend": "bedrock", "options": options}}))
        settings = {"EmbeddingModelId": MODEL, "EmbeddingDimension": "8", "EmbeddingLimit": str(LIMIT)}
        with deployed(tmp_path, "--models", str(models), **settings) as rag:
            dense = " ".join(f"k{number}=({number});" for number in range(150))
            rag.s3.put_object(Bucket=rag.bucket, Key="dense.md", Body=f"# Dense\n\n{dense}\n".encode())
            for number in range(DOCUMENTS):
                body = f"# Bird {number}\n\nBird {number} sings.\n"
                rag.s3.put_object(Bucket=rag.bucket, Key=f"{number:02}.md", Body=body.encode())

            def settled():
                rows = rag.documents.scan()["Items"]
                return rows if len(rows) > DOCUMENTS and all(row["status"] == "indexed" for row in rows) else None

            rows = wait_for(settled, what="all of them being indexed")
            assert {row["model"] for row in rows} == {MODEL} and {row["note"] for row in rows} == {""}
            stored = " ".join(one["text"] for one in rag.chunks("dense.md"))
            assert stored == dense
    assert far.most == LIMIT
    assert far.refused >= 1
    sent = "".join(text for text in far.embedded if text.startswith("Dense"))
    assert all(f"k{number}=({number});" in sent for number in range(150))

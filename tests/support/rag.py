"""The RAG stack deployed on a live server, and what its users do with it."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preheat.cli import deploying
from preheat.cli.clients import Platform
from tests.support.server import LiveServer, wait_for

TEMPLATE = Path(__file__).resolve().parents[2] / "stacks" / "rag" / "template.yaml"


@contextmanager
def deployed(folder: Path, *arguments: str, **parameters: str) -> Iterator["RagStack"]:
    """The stack on a server of its own, which must end cleanly and without a defect in its log."""
    server = LiveServer(folder / "state", *arguments).start()
    try:
        yield RagStack(server, **parameters)
    finally:
        code = server.stop()
    assert code == 0, server.log.read_text()[-4000:]
    assert "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]


class RagStack:
    """One stack `rag`; its clients, its documents, its questions."""

    def __init__(self, server: LiveServer, **parameters: str) -> None:
        self.server = server
        self.platform = Platform(server.endpoint)
        self.deploy(**parameters)
        self.s3, self.sqs = server.client("s3"), server.client("sqs")
        self.documents = server.resource("dynamodb").Table(self.outputs["DocumentsTableName"])
        self.bucket = self.outputs["DocumentsBucketName"]

    def deploy(self, **parameters: str) -> None:
        deploying.deploy(self.platform, TEMPLATE, "rag", parameters, lambda event: None)
        self.outputs = self.platform.outputs("rag")

    def wait_live(self, **recipe: Any) -> dict[str, Any]:
        """The versions of the index, once the one that answers was made by a recipe with these members."""
        table = self.server.resource("dynamodb").Table(self.outputs["SettingsTableName"])

        def live() -> dict[str, Any] | None:
            found = table.get_item(Key={"id": "index"}, ConsistentRead=True)["Item"]
            return found if all(found["live"][name] == value for name, value in recipe.items()) else None

        return wait_for(live, what=f"an index of {recipe} being live")

    def put(self, key: str, body: str | bytes, status: str = "indexed") -> dict[str, Any]:
        """Upload, and the document's row once the stack has dealt with this version."""
        before = self.row(key).get("updated_ms")
        tag = self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)["ETag"]
        return self.settled(key, before, lambda row: row.get("etag") == tag and row["status"] == status)

    def remove(self, key: str) -> dict[str, Any]:
        before = self.row(key).get("updated_ms")
        self.s3.delete_object(Bucket=self.bucket, Key=key)
        return self.settled(key, before, lambda row: row["status"] == "deleted")

    def settled(self, key: str, before: Any, wanted: Any) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            row = self.row(key)
            return row if row and row["updated_ms"] != before and wanted(row) else None

        return wait_for(there, what=f"the row of {key}, now {self.row(key)}")

    def row(self, key: str) -> dict[str, Any]:
        return self.documents.get_item(Key={"document": key}, ConsistentRead=True).get("Item", {})

    def notify(self, key: str, event: str = "ObjectCreated:Put") -> None:
        """A notification as S3 sends it, however late."""
        record = {"eventName": event, "s3": {"bucket": {"name": self.bucket}, "object": {"key": key}}}
        self.sqs.send_message(QueueUrl=self.outputs["IngestQueueUrl"], MessageBody=json.dumps({"Records": [record]}))

    def count(self, queue: str) -> int:
        """Messages in the queue that an output names, in flight or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.outputs[queue], AttributeNames=names)["Attributes"]
        return sum(map(int, found.values()))

    def chunks(self, key: str) -> list[dict[str, Any]]:
        """The document's stored passages' metadata, in order."""
        index = f"passages-{self.outputs['IndexRecipe']}"
        names = {"vectorBucketName": "rag-vectors-000000000000", "indexName": index}
        keys = [f"{key}#{number}" for number in range(50)]
        client = self.server.client("s3vectors")
        found = client.get_vectors(**names, keys=keys, returnMetadata=True)["vectors"]
        return sorted((one["metadata"] for one in found), key=lambda one: one["number"])

    def ask(self, question: str) -> list[tuple[str, dict[str, Any]]]:
        """The events of the answer after the first, which names the session and the turn."""
        (name, _), *events = self.events(question)
        assert name == "session"
        return events

    def events(self, question: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of the answer, as they come."""
        url = self.platform.at_path(self.outputs["AskUrl"]) + "ask"
        return self.platform.events(url, {"question": question})

    def http(
        self, output: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of one request to the address that an output names."""
        base = self.platform.at_path(self.outputs[output]).removeprefix(self.server.endpoint).rstrip("/")
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request(method, base + path, data, {"content-type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def events_in(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, data) of the server-sent events in a whole stream."""
    for block in text.strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":"))
        if fields:
            yield fields["event"], json.loads(fields["data"])

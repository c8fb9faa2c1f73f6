"""Who asks a deployed RAG stack: a visitor by a name of its own, somebody without one, the holder of an access key."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.rag import RagStack, events_in
from tests.support.server import wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.identity import digest, new_key


class Client:
    """A visitor by a name of its own, somebody without one, or the holder of an access key."""

    def __init__(self, rag: RagStack, visitor: str = "", key: str = "") -> None:
        self.rag = rag
        self.headers = {"authorization": f"Bearer {key}"} if key else {"x-visitor": visitor} if visitor else {}

    def http(self, method: str, path: str, body: Any = None, output: str = "AskUrl") -> tuple[int, dict[str, str], Any]:
        status, headers, data = self.rag.http(output, method, path, body, self.headers)
        return status, headers, json.loads(data) if data else None

    def asked(self, question: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """(status, events by name)."""
        status, _, data = self.rag.http("AskUrl", "POST", "/ask", {"question": question, **body}, self.headers)
        if status != 200:
            return status, json.loads(data)
        found = {}
        for name, told in events_in(data.decode()):
            found.setdefault(name, []).append(told)
        return status, found

    def ask(self, question: str, **body: Any) -> dict[str, Any]:
        status, found = self.asked(question, **body)
        assert status == 200, found
        return found

    def job(self, question: str, **body: Any) -> str:
        status, _, made = self.http("POST", "/questions", {"question": question, **body}, "QuestionsUrl")
        assert status == 202, made
        return made["id"]

    def finished(self, job: str) -> dict[str, Any]:
        def done() -> dict[str, Any] | None:
            found = self.http("GET", f"/questions/{job}", output="QuestionsUrl")[2]
            return found if found.get("status") == "done" else None

        return wait_for(done, what=f"the job {job}")


def key_of(rag: RagStack, owner: str, labels: Any = (), **allowance: int) -> str:
    """A new access key."""
    key = new_key()
    table = rag.server.resource("dynamodb").Table(rag.outputs["AccessTableName"])
    table.put_item(Item={"id": digest(key), "owner": owner, "labels": list(labels), **allowance})
    return key


def put(rag: RagStack, key: str, text: str, **metadata: str) -> None:
    """A document with metadata, indexed."""
    before = rag.row(key).get("updated_ms")
    tag = rag.s3.put_object(Bucket=rag.bucket, Key=key, Body=text.encode(), Metadata=metadata)["ETag"]
    rag.settled(key, before, lambda row: row.get("etag") == tag and row["status"] == "indexed")

"""Documents through the deployed RAG stack, looked at by somebody who expects it not to hold: what fails beside it,
what would kill it, and what is promised of structure, names and sizes."""

import io
import json
import zipfile

import pytest

from tests.support.rag import deployed
from tests.support.server import wait_for

MODEL = "preheat.hashing-1024"
STACK = "assumed-role/rag-"
VISIBILITY_S = 1_800
DOCUMENTS = 8


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("rag"), EmbeddingModelId=MODEL, EmbeddingDimension="1024") as stack:
        stack.put("warm.md", "# Warm\n\nThe first document.\n")
        yield stack


@pytest.fixture(autouse=True)
def lifted(rag):
    yield
    rag.server.get("/_preheat/faults", "DELETE")


def fault(rag, service, operation):
    body = json.dumps({"service": service, "operation": operation, "caller": STACK, "error": "unavailable"}).encode()
    status, _, answer = rag.server.get("/_preheat/faults", "POST", body)
    assert status == 200, answer


def retried(rag, keys):
    """The documents' rows after their next attempt."""
    stamps = {key: rag.row(key)["updated_ms"] for key in keys}
    rag.server.advance(VISIBILITY_S + 1)
    return [rag.settled(key, stamp, lambda row: row["status"] != "retrying") for key, stamp in stamps.items()]


def test_a_model_that_fails_does_not_close_the_store_to_documents(rag):
    fault(rag, "bedrock-runtime", "InvokeModel")
    keys = [f"model/{number}.md" for number in range(DOCUMENTS)]
    for key in keys:
        row = rag.put(key, f"# {key}\n\nThe bittern booms at dusk.\n")
        assert row["note"].startswith("indexed for lexical search only"), row
        assert [one["model"] for one in rag.chunks(key)] == ["none"]
    rag.server.get("/_preheat/faults", "DELETE")
    for row in retried(rag, keys):
        assert (row["status"], row["note"], row["model"]) == ("indexed", "", MODEL), row
    assert {one["model"] for key in keys for one in rag.chunks(key)} == {MODEL}
    wait_for(lambda: not rag.count("IngestQueueUrl"), what="the messages leaving")
    assert rag.count("IngestDeadLettersUrl") == 0


def test_a_store_that_fails_does_not_close_the_model_to_documents(rag):
    fault(rag, "s3vectors", "PutVectors")
    keys = [f"store/{number}.md" for number in range(DOCUMENTS)]
    reasons = [rag.put(key, f"# {key}\n\nThe bittern booms.\n", status="retrying")["reason"] for key in keys]
    assert all("PutVectors" in reason or "the vector store" in reason for reason in reasons), reasons
    assert "the vector store failed often of late" in reasons[-1]
    assert not [reason for reason in reasons if MODEL in reason]
    rag.server.get("/_preheat/faults", "DELETE")
    rag.server.advance(60)
    for row in retried(rag, keys):
        assert (row["status"], row["note"], row["model"]) == ("indexed", "", MODEL), row


def test_a_document_that_would_take_all_memory_or_time_fails_alone_with_the_reason(rag):
    keys = [f"beside/{number}.md" for number in range(5)]
    for key in keys:
        rag.s3.put_object(Bucket=rag.bucket, Key=key, Body=f"# {key}\n\nThe rail hides in reeds.\n".encode())
    rag.s3.put_object(Bucket=rag.bucket, Key="wide.html", Body=b"<a " + b"x=y " * 2_000_000 + b">")
    large = f"<!--{'x' * 1_100_000}--><h1>Log</h1><p>The rail was heard twice.</p>"
    assert rag.put("large.html", large)["chunks"] == 1
    wait_for(lambda: rag.row("wide.html").get("status") == "failed", what="the poison's row")
    assert "wide.html: reading it takes more than" in rag.row("wide.html")["reason"]
    for key in keys:
        assert wait_for(lambda key=key: rag.row(key).get("status") == "indexed", what=key)
    assert "OutOfMemory" not in rag.server.log.read_text()


NAMES = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(body):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f"<w:document {NAMES}><w:body>{body}</w:body></w:document>")
    return data.getvalue()


def test_a_word_file_keeps_its_table_whole_under_its_heading(rag):
    def row(*cells):
        inner = "".join(f"<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>" for cell in cells)
        return f"<w:tr>{inner}</w:tr>"

    rows = "".join(row(f"Station {number}", f"{number} rails") for number in range(30))
    head = '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Counts</w:t></w:r></w:p>'
    rag.put("counts.docx", docx(f"{head}<w:tbl>{row('Where', 'How many')}{rows}</w:tbl>"))
    (chunk,) = rag.chunks("counts.docx")
    assert chunk["context"] == "Counts" and chunk["text"].count("\n") == 30
    assert chunk["text"].startswith("| Where | How many |") and chunk["text"].endswith("| Station 29 | 29 rails |")


def test_tables_and_code_stay_whole_between_text_that_is_cut(rag):
    text = "The warden of the marsh wrote down every bird that he heard before the sun came up. " * 20
    table = "| Bird | Calls |\n|---|---|\n" + "".join(f"| bird {number} | {number} |\n" for number in range(40))
    code = "```python\n" + "".join(f"heard({number}, 'rail')\n" for number in range(40)) + "```\n"
    rag.put("marsh.md", f"# Marsh\n\n## Notes\n\n{text}\n\n{table}\n{text}\n\n{code}\n{text}")
    chunks = rag.chunks("marsh.md")
    assert len(chunks) > 3 and {one["context"] for one in chunks} == {"Marsh > Notes"}
    for first, last in (("| bird 0 |", "| bird 39 | 39 |"), ("heard(0, 'rail')", "heard(39, 'rail')")):
        (whole,) = [one for one in chunks if first in one["text"]]
        assert last in whole["text"]


@pytest.mark.parametrize("key", ["a b+c/ü % & ?=#1.md", "#.md", "x" * 900 + ".md", "日本語/鳥.md", "a/../b/./c.md"])
def test_names_of_any_kind_come_in_change_and_go(rag, key):
    row = rag.put(key, "# Name\n\n## One\n\nThe first rail.\n\n## Two\n\nThe second rail.\n")
    assert (row["status"], row["chunks"]) == ("indexed", 2)
    assert (rag.put(key, "# Name\n\n## One\n\nThe first rail.\n")["deleted"]) == 1
    assert rag.remove(key)["deleted"] == 1


def test_metadata_as_large_as_an_object_may_have_does_not_keep_a_document_out(rag):
    given = {"team": "marsh", "labels": "wardens,public", "note": "n" * 1_900, "document": "somebody else's"}
    body = b"# Harrier\n\nThe harrier quarters the reeds.\n"
    rag.s3.put_object(Bucket=rag.bucket, Key="harrier.md", Body=body, Metadata=given)
    row = wait_for(lambda: rag.row("harrier.md"), what="the row")
    assert row["status"] == "indexed", row
    (chunk,) = rag.chunks("harrier.md")
    assert (chunk["team"], chunk["labels"], chunk["document"]) == ("marsh", ["public", "wardens"], "harrier.md")
    for team, count in (("marsh", 1), ("desert", 0)):
        asked = {"question": "What does the harrier do?", "where": {"team": team}}
        status, _, data = rag.http("AskUrl", "POST", "/ask", asked)
        (retrieval,) = [block for block in data.decode().split("\n\n") if "event: retrieval\n" in block]
        assert status == 200 and len(json.loads(retrieval.split("data: ", 1)[1])["passages"]) == count


def test_text_of_little_but_white_space_does_not_keep_a_document_out(rag):
    steps = "\n".join(f"{' ' * (20 * number)}step {number}" for number in range(300))
    row = rag.put("steps.md", f"# Steps\n\n```\n{steps}\n```\n")
    assert row["status"] == "indexed" and row["chunks"] > 50
    names = {"vectorBucketName": "rag-vectors-000000000000", "indexName": f"passages-{rag.outputs['IndexRecipe']}"}
    pages = rag.server.client("s3vectors").get_paginator("list_vectors").paginate(**names, returnMetadata=True)
    found = [one for page in pages for one in page["vectors"] if one["key"].startswith("steps.md#")]
    text = "\n".join(one["metadata"]["text"] for one in found)
    assert all(f"step {number}" in text for number in range(300))

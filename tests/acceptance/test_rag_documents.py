"""Documents through the deployed RAG stack: bucket, queue, function, index; and what goes wrong on the way."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.rag import deployed
from tests.support.server import wait_for

HERON = "# Herons\n\n## Food\n\nThe grey heron eats eels and frogs.\n\n## Nests\n\nHerons nest in tall alder trees.\n"
VISIBILITY_S = 1_800


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("rag")) as stack:
        yield stack


def pdf_of(text: str) -> bytes:
    """One page that shows one line of text."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return data + head + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(data))


def texts(rag, key):
    return [one["text"] for one in rag.chunks(key)]


def test_every_format_is_indexed_with_headings_and_pages(rag):
    assert rag.put("birds/heron.md", HERON)["chunks"] == 2
    assert [(one["context"], one["text"]) for one in rag.chunks("birds/heron.md")] == [
        ("Herons > Food", "The grey heron eats eels and frogs."),
        ("Herons > Nests", "Herons nest in tall alder trees."),
    ]
    rag.put("notes on swifts.txt", "Swifts sleep while they fly.")
    assert texts(rag, "notes on swifts.txt") == ["Swifts sleep while they fly."]
    rag.put("owl.html", "<title>Owls</title><nav>Menu</nav><h1>Barn owl</h1><p>It hunts voles by ear.</p>")
    assert [(one["context"], one["text"]) for one in rag.chunks("owl.html")] == [
        ("Owls > Barn owl", "It hunts voles by ear.")
    ]
    rag.put("crane.pdf", pdf_of("Cranes dance in pairs before they breed."))
    assert [(one["page"], one["text"]) for one in rag.chunks("crane.pdf")] == [
        (1, "Cranes dance in pairs before they breed.")
    ]


def test_unchanged_is_not_embedded_again_changed_is_replaced_deleted_is_gone(rag):
    first = rag.put("wren.md", HERON.replace("eron", "ren"))
    assert (first["written"], first["unchanged"]) == (2, 0)
    again = rag.put("wren.md", HERON.replace("eron", "ren"))
    assert (again["written"], again["unchanged"], again["deleted"]) == (0, 2, 0)
    changed = rag.put("wren.md", "# Hrens\n\n## Food\n\nThe grey hren eats spiders.\n")
    assert (changed["written"], changed["deleted"], changed["chunks"]) == (1, 1, 1)
    assert texts(rag, "wren.md") == ["The grey hren eats spiders."]
    assert rag.remove("wren.md")["deleted"] == 1
    assert texts(rag, "wren.md") == []


def test_events_that_come_twice_or_late_change_nothing(rag):
    row = rag.put("jay.md", "# Jay\n\nJays bury acorns.\n")
    rag.notify("jay.md")
    rag.notify("jay.md", "ObjectRemoved:Delete")
    again = rag.settled("jay.md", row["updated_ms"], lambda row: row["unchanged"] == 1)
    wait_for(lambda: not rag.count("IngestQueueUrl"), what="the ingest queue being empty")
    assert (again["status"], again["written"]) == ("indexed", 0)
    assert texts(rag, "jay.md") == ["Jays bury acorns."]
    before = rag.remove("jay.md")["updated_ms"]
    rag.notify("jay.md")
    assert rag.settled("jay.md", before, lambda row: True)["status"] == "deleted"
    assert texts(rag, "jay.md") == []


def test_poison_documents_end_in_the_dead_letter_queue_with_their_reasons_and_can_be_redriven(rag):
    rag.put("turned.md", "# Good\n\nIt was readable once.\n")
    broken = rag.put("broken.pdf", b"%PDF-1.4 and nothing more", status="failed")
    strange = rag.put("song.mp3", b"ID3", status="failed")
    turned = rag.put("turned.md", b"\x00\x01binary", status="failed")
    assert "not a readable PDF" in broken["reason"]
    assert strange["reason"] == "song.mp3: files of this kind are not read"
    assert (turned["reason"], turned["deleted"]) == ("turned.md: the file is binary, not text", 1)
    assert texts(rag, "turned.md") == []
    for _ in range(2):
        assert rag.count("IngestDeadLettersUrl") == 0
        seen = {key: rag.row(key)["updated_ms"] for key in ("broken.pdf", "song.mp3", "turned.md")}
        rag.server.advance(VISIBILITY_S + 1)
        for key, stamp in seen.items():
            rag.settled(key, stamp, lambda row: row["status"] == "failed")
    rag.server.advance(VISIBILITY_S + 1)
    wait_for(lambda: rag.count("IngestDeadLettersUrl") == 3, what="three dead letters")
    assert rag.count("IngestQueueUrl") == 0
    shown = preheat("dlq", "--port", str(rag.server.port)).stdout
    assert f"ObjectCreated:Put {rag.bucket}/broken.pdf" in shown
    assert "UnreadableFile: broken.pdf: not a readable PDF" in shown
    assert "UnsupportedFormat: song.mp3" in shown
    assert shown.endswith("3 dead letters\n")
    assert rag.put("after.txt", "The queue goes on.")["chunks"] == 1
    rag.s3.put_object(Bucket=rag.bucket, Key="broken.pdf", Body=pdf_of("Mended."))
    preheat("dlq", "--redrive", "--port", str(rag.server.port))
    wait_for(lambda: rag.row("broken.pdf")["status"] == "indexed", what="the mended document")
    assert texts(rag, "broken.pdf") == ["Mended."]
    wait_for(lambda: not rag.count("IngestDeadLettersUrl"), what="the redriven letters leaving")


def test_a_document_without_text_says_so(rag):
    assert rag.put("empty.md", "\n\n")["note"] == "there is no text in it"


def test_the_command_brings_a_folder_into_line(rag, tmp_path):
    (tmp_path / "tern.md").write_text("# Tern\n\nTerns fly from pole to pole.\n")
    (tmp_path / "bad.pdf").write_bytes(b"no pdf")
    first = preheat("ingest", str(tmp_path), "--port", str(rag.server.port)).stdout
    assert "2 new or changed" in first and "not indexed: bad.pdf: not a readable PDF" in first
    held = [one["Key"] for one in rag.s3.list_objects_v2(Bucket=rag.bucket)["Contents"]]
    assert sorted(held) == ["bad.pdf", "tern.md"]
    assert texts(rag, "birds/heron.md") == []
    stamp = rag.row("tern.md")["updated_ms"]
    again = preheat("ingest", str(tmp_path), "--port", str(rag.server.port)).stdout
    assert "1 document is in the index already" in again
    assert "not indexed: bad.pdf" in again
    assert rag.row("tern.md")["updated_ms"] == stamp


def test_a_folder_that_is_not_there_or_empty_is_one_line(rag, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        told = preheat("ingest", str(folder), "--port", str(rag.server.port), code=1)
        assert told.stderr.startswith("preheat: ") and told.stderr.count("\n") == 1 and not told.stdout


def preheat(*arguments: str, code: int = 0) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "preheat"), *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}\n{time.monotonic() - started:.1f} s"
    return done

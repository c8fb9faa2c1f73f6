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
DOCUMENTS = 200


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


def test_records_code_and_word_files_go_through_the_stack(rag):
    rag.put("birds.csv", "name,food\nwren,spiders\nheron,eels\n")
    assert texts(rag, "birds.csv") == ["name: wren\nfood: spiders\n\nname: heron\nfood: eels"]
    rag.put("call.py", "def whistle():\n    return 'wren'\n")
    assert [(one["context"], one["text"]) for one in rag.chunks("call.py")] == [
        ("call.py > whistle", "def whistle():\n    return 'wren'")
    ]
    rag.put("birds.jsonl", '{"bird": "wren"}\n{"bird": "tern"}\n')
    assert texts(rag, "birds.jsonl") == ["bird: wren\n\nbird: tern"]


def test_one_broken_document_fails_alone_in_its_batch(rag):
    failing = rag.count("IngestQueueUrl")
    for number in range(8):
        rag.s3.put_object(Bucket=rag.bucket, Key=f"flock/{number}.md", Body=f"# Flock {number}\n\nIt flies.\n".encode())
    rag.s3.put_object(Bucket=rag.bucket, Key="flock/broken.json", Body=b"{")
    wait_for(lambda: rag.row("flock/broken.json").get("status") == "failed", what="the broken one")
    for number in range(8):
        key = f"flock/{number}.md"
        wait_for(lambda key=key: rag.row(key).get("status") == "indexed", what=key)
    assert rag.row("flock/broken.json")["reason"].startswith("flock/broken.json: not readable JSON")
    wait_for(lambda: rag.count("IngestQueueUrl") == failing + 1, what="the good ones' messages leaving")


def test_what_only_moves_or_changes_its_labels_keeps_its_vectors(rag):
    parts = [f"## Part {number}\n\nWhat part {number} says of swallows.\n\n" for number in range(4)]
    rag.put("moving.md", "# Moving\n\n" + "".join(parts))
    before = invocations(rag)
    row = rag.put("moving.md", "# Moving\n\n" + "".join(reversed(parts)))
    assert (row["written"], row["unchanged"]) == (4, 0)
    assert texts(rag, "moving.md")[0] == "What part 3 says of swallows."
    rag.s3.copy_object(
        Bucket=rag.bucket, Key="moving.md", CopySource=f"{rag.bucket}/moving.md", MetadataDirective="REPLACE",
        Metadata={"labels": "staff"},
    )  # fmt: skip
    wait_for(lambda: rag.chunks("moving.md")[0]["labels"] == ["staff"], what="the new labels")
    assert invocations(rag) == before
    rag.put("moving.md", "# Moving\n\n" + "".join(parts) + "## New\n\nOne more.\n")
    wait_for(lambda: invocations(rag) == before + 1, what="the one call for the new part")


def invocations(rag):
    """How often the embedding model was called, as CloudWatch has it."""
    found = rag.server.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/Bedrock", MetricName="Invocations", Period=86_400, Statistics=["Sum"],
        Dimensions=[{"Name": "ModelId", "Value": "preheat.minilm-l6-v2"}],
        StartTime=time.time() - 86_400, EndTime=time.time() + 86_400,
    )["Datapoints"]  # fmt: skip
    return sum(one["Sum"] for one in found)


def test_a_folder_survives_the_death_of_the_command_and_of_the_server(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number:03}.md").write_text(f"# Bird {number}\n\nOne.\n\n## Nest {number}\n\nTwo.\n")
    with deployed(tmp_path, EmbeddingModelId="preheat.hashing-1024", EmbeddingDimension="1024") as rag:
        program = str(Path(sys.executable).parent / "preheat")
        arguments = [program, "ingest", str(folder), "--port", str(rag.server.port)]
        command = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_for(lambda: len(vectors(rag)) > DOCUMENTS // 2, what="a quarter of them being there")
        command.kill()
        command.communicate()
        rag.server.kill()
        rag.server.start()
        assert len(vectors(rag)) < 2 * DOCUMENTS
        done = preheat("ingest", str(folder), "--port", str(rag.server.port)).stdout
        assert "not indexed" not in done
        assert sorted(vectors(rag)) == sorted(f"{number:03}.md#{at}" for number in range(DOCUMENTS) for at in (0, 1))
        assert {row["status"] for row in rag.documents.scan()["Items"]} == {"indexed"}
        again = preheat("ingest", str(folder), "--port", str(rag.server.port)).stdout
        assert f"{DOCUMENTS} documents are in the index already." in again


def vectors(rag):
    client = rag.server.client("s3vectors")
    names = {"vectorBucketName": "rag-vectors-000000000000", "indexName": f"passages-{rag.outputs['IndexRecipe']}"}
    pages = client.get_paginator("list_vectors").paginate(**names)
    return [one["key"] for page in pages for one in page["vectors"]]


def preheat(*arguments: str, code: int = 0) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "preheat"), *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}\n{time.monotonic() - started:.1f} s"
    return done

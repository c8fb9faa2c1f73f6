"""Small parts under the handlers: running text out of set lines, deletion that can break off, events as text."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.chunking import chunk
from ragkit.extract import extract
from ragkit.store import DELETE_BATCH, S3VectorStore, index_configuration

from preheat.services.s3vectors.service import build
from tests.support.inprocess import InProcess

WRAPPED = (
    "A paragraph that was set in lines of about sixty characters\n"
    "reads as running text, and a sentence that goes over\nthe end of a line is one."
)


def blocks(key, text):
    return [one.text for one in extract(key, text.encode()).blocks]


def test_markdown_lines_that_continue_are_joined_and_hard_breaks_kept():
    text = "One line\ngoes on.  \nBroken\\\nagain\n\n- item a\n  goes on\n- item b\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert blocks("a.md", text) == [
        "One line goes on.\nBroken\nagain", "- item a goes on\n- item b", "| a | b |\n|---|---|\n| 1 | 2 |"
    ]  # fmt: skip


def test_code_keeps_its_lines():
    assert blocks("a.md", "```\none\n  two\n```\n") == ["```\none\n  two\n```"]


def test_plain_paragraphs_are_joined_but_verse_and_lists_are_not():
    assert blocks("a.txt", WRAPPED) == [WRAPPED.replace("\n", " ")]
    assert blocks("a.txt", "Roses are red\nviolets are blue") == ["Roses are red\nviolets are blue"]
    listed = "What follows is a list, and this line is long enough to be text:\n- the first item of it\n- the second"
    assert blocks("a.txt", listed) == [listed]
    short = (
        "The last line of a paragraph may be short, and the next one starts\nanew.\n"
        "This line stands alone, after a line that ended early, as it should"
    )
    assert blocks("a.txt", short) == [short.replace("starts\n", "starts ")]


class Breaking:
    """The service behind boto3's method names; deleting breaks off after the first call."""

    def __init__(self):
        self.world = InProcess(build)
        self.deletions = 0
        self.most = 1

    def __getattr__(self, name):
        operation = "".join(part.capitalize() for part in name.split("_"))

        def call(**params):
            if operation == "DeleteVectors":
                self.deletions += 1
                if self.deletions > self.most:
                    raise ConnectionError("broken off")
            return self.world("s3vectors", operation, **params)

        return call


@pytest.fixture
def client():
    found = Breaking()
    found.world("s3vectors", "CreateVectorBucket", vectorBucketName="b-of-tests")
    found.world(
        "s3vectors", "CreateIndex", vectorBucketName="b-of-tests", indexName="passages", dataType="float32",
        dimension=2, distanceMetric="cosine", metadataConfiguration=index_configuration(),
    )  # fmt: skip
    return found


def test_a_deletion_that_breaks_off_leaves_no_chunk_behind_when_it_is_repeated(client):
    store = S3VectorStore(client, "b-of-tests", "passages", 2)
    count = DELETE_BATCH + 20
    text = "".join(f"# Part {number}\n\nText {number}.\n\n" for number in range(count))
    chunks = chunk(extract("long.md", text.encode()))
    assert len(chunks) == count
    store.replace("long.md", chunks, None, "none")
    with pytest.raises(ConnectionError):
        store.delete("long.md")
    client.most = 100
    assert store.delete("long.md") == 20
    left = client.world("s3vectors", "ListVectors", vectorBucketName="b-of-tests", indexName="passages")["vectors"]
    assert left == []

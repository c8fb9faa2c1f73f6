"""Files brought into the RAG stack: what its form lets through, and what the page says when a file is too big."""

import base64
import json
import re
from datetime import UTC, datetime

import pytest

from tests.acceptance.test_rag_page import page
from tests.acceptance.test_rag_questions import chat, rag
from tests.support.asking import Client
from tests.support.chromium import FOUND
from tests.support.forms import posted
from tests.support.server import wait_for

__all__ = ["chat", "page", "rag"]
MB = 1_000_000
browsing = pytest.mark.skipif(FOUND is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def small(rag):
    """The stack, with room for a megabyte."""
    rag.deploy(LargestUpload="1")
    yield rag
    rag.deploy()


@pytest.fixture
def ann(small):
    return Client(small, "ann-00000000")


def place_of(client, name, **more):
    status, _, place = client.http("POST", "/uploads", {"name": name, **more})
    assert status == 200, place
    return place


def code_of(answer):
    return answer[0], re.search("<Code>(.*)</Code>", answer[2])[1]


def kept(rag, part):
    found = rag.s3.list_objects_v2(Bucket=rag.bucket, Prefix="uploads/").get("Contents", [])
    return [one["Key"] for one in found if part in one["Key"]]


def test_a_file_larger_than_it_was_said_to_be_is_refused_by_s3(ann, small):
    place = place_of(ann, "declared.txt", size=10)
    assert place["largest"] == MB
    assert code_of(posted(place["url"], place["fields"], b"x" * 11)) == (400, "EntityTooLarge")
    assert code_of(posted(place["url"], place["fields"], b"")) == (400, "EntityTooSmall")
    assert kept(small, "declared") == []
    assert posted(place["url"], place["fields"], b"0123456789")[0] == 204
    assert kept(small, "declared") == [place["key"]]
    found = small.s3.head_object(Bucket=small.bucket, Key=place["key"])
    assert found["ContentType"] == "text/plain" and list(found["Metadata"]) == ["correlation"]


def test_without_a_size_there_is_the_templates_limit(ann, small):
    place = place_of(ann, "undeclared.txt")
    assert code_of(posted(place["url"], place["fields"], b"x" * (MB + 1))) == (400, "EntityTooLarge")
    assert kept(small, "undeclared") == []
    assert posted(place["url"], place["fields"], b"x" * MB)[0] == 204
    status, _, told = ann.http("POST", "/uploads", {"name": "large.txt", "size": MB + 1})
    assert (status, told["message"]) == (413, "large.txt has 1.1 MB; a file may have 1 MB at most")
    for size in (0, -1, "10", True, 1.5, None):
        assert ann.http("POST", "/uploads", {"name": "a.txt", "size": size})[0] == 400, size


def test_nobody_elses_document_can_be_written_over(ann, small):
    place = place_of(ann, "mine.md")
    assert posted(place["url"], place["fields"], b"# Mine\n\nThe auk belongs to Ann.\n")[0] == 204
    wait_for(lambda: small.row(place["key"]).get("status") == "indexed", what="the upload")
    eves = place_of(Client(small, "eve-00000000"), "mine.md")
    assert eves["key"] != place["key"]
    for changed in ({"key": place["key"]}, {"key": eves["key"] + "x"}, {"key": "uploads/${filename}"},
                    {"Content-Type": "text/html"}, {"x-amz-meta-correlation": "other"}, {"x-amz-meta-labels": "acme"},
                    {"success_action_redirect": "https://evil.example"}):  # fmt: skip
        answer = posted(eves["url"], {**eves["fields"], **changed}, b"# Mine\n\nThe auk belongs to Eve.\n", "mine.md")
        assert code_of(answer) == (403, "AccessDenied") and "Invalid according to Policy" in answer[2], changed
    signed = json.loads(base64.b64decode(eves["fields"]["policy"]))
    signed["conditions"] = [{"bucket": small.bucket}, ["starts-with", "$key", ""]]
    forged = {**eves["fields"], "policy": base64.b64encode(json.dumps(signed).encode()).decode()}
    assert code_of(posted(eves["url"], {**forged, "key": place["key"]}, b"x")) == (403, "SignatureDoesNotMatch")
    assert small.s3.get_object(Bucket=small.bucket, Key=place["key"])["Body"].read().endswith(b"to Ann.\n")


def test_a_form_is_good_for_ten_minutes(ann):
    """That S3 refuses it from then on is tests/acceptance/test_s3_forms.py's."""
    place = place_of(ann, "later.txt")
    policy = json.loads(base64.b64decode(place["fields"]["policy"]))
    left = datetime.fromisoformat(policy["expiration"]) - datetime.now(UTC)
    assert 0 < left.total_seconds() <= 600


DROP = """(() => {
  const files = new DataTransfer();
  const file = new File(['x'.repeat(%d)], '%s');
  if (%d) Object.defineProperty(file, 'size', { value: %d });
  files.items.add(file);
  const event = new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true });
  Object.defineProperty(event, 'dataTransfer', { value: { types: ['Files'], files: [file] } });
  document.body.dispatchEvent(event);
})()"""


@browsing
@pytest.mark.parametrize(
    ("size", "told", "words"),
    [
        (1_200_000, 0, "big.txt has 1.2 MB; a file may have 1 MB at most"),
        (1_200_000, MB, "the file is too big: it may have 1 MB at most"),
        (5_000, 10, "the file has grown since it was chosen; choose it again"),
        (5_000, 0, None),
    ],
)
def test_the_page_says_in_words_that_a_file_is_too_big(small, page, size, told, words):
    """`told` is what the page believes the size to be, so that S3 is the one that refuses. The page is opened by
    another name than the storage's: the bucket's rules are asked for."""
    page.open(url=page.url.replace("127.0.0.1", "localhost"))
    name = f"big{'' if words else '-enough'}.txt"
    page.evaluate(DROP % (size, name, told, told))
    if words is None:
        page.wait("document.querySelector('#uploads .done') !== null")
        assert len(kept(small, name)) == 1 and not page.browser.errors
        return
    page.wait("document.querySelector('#uploads .failed') !== null")
    assert page.text("#uploads small.bad") == words
    assert kept(small, name) == []
    sent = "performance.getEntriesByType('resource').filter((one) => one.name.includes('rag-documents')).length"
    assert (page.evaluate(sent) > 0) == bool(told)

"""Answers that were given before: shared by both ways to ask, ended by a change of documents, kept apart by labels."""

import hashlib
import json

import pytest

from tests.support.rag import deployed
from tests.support.server import wait_for

HERON = "# Herons\n\nThe grey heron eats eels and frogs.\n"


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("rag"), SemanticCache="on") as stack:
        stack.put("heron.md", HERON)
        yield stack


def done(rag, question, **headers):
    status, _, data = rag.http("AskUrl", "POST", "/ask", {"question": question}, headers)
    assert status == 200, data
    return json.loads(data.decode().strip().rpartition("data: ")[2])


def cached(rag, question, wanted):
    """The answer, once it is as wanted: an answer is kept just after it was given."""
    found = {}

    def there():
        found.update(done(rag, question))
        return (found["mode"] == "cached") == wanted

    wait_for(there, what=f"{question} being cached: {wanted}")
    return found


def test_the_same_question_in_other_words_is_answered_once(rag):
    first = done(rag, "What does the grey heron eat?")
    assert first["mode"] == "hybrid"
    again = cached(rag, "Can you tell me what grey herons eat?", True)
    assert again["answer"] == first["answer"] and again["citations"] == first["citations"]
    assert again["session"] != first["session"] and again["usage"] == {"input": 0, "output": 0}
    assert done(rag, "Where does the grey heron eat?")["mode"] == "hybrid"


def test_a_job_is_answered_from_what_a_stream_was(rag):
    answer = cached(rag, "What does the grey heron eat?", True)["answer"]
    body = {"question": "What do grey herons eat?"}
    id = json.loads(rag.http("QuestionsUrl", "POST", "/questions", body)[2])["id"]

    def ended():
        found = json.loads(rag.http("QuestionsUrl", "GET", f"/questions/{id}")[2])
        return found if found["status"] == "done" else None

    job = wait_for(ended, what="the job")
    assert job["mode"] == "cached" and job["answer"] == answer and job["citations"][0]["document"] == "heron.md"


def test_a_change_of_the_documents_ends_what_was_kept(rag):
    assert "eels" in cached(rag, "What does the grey heron eat?", True)["answer"]
    rag.put("heron.md", HERON.replace("eels and frogs", "voles and newts"))
    anew = done(rag, "What does the grey heron eat?")
    assert anew["mode"] == "hybrid" and "voles" in anew["answer"]
    assert "voles" in cached(rag, "What does the grey heron eat?", True)["answer"]
    before = done(rag, "What does the grey heron eat?")
    rag.put("heron.md", HERON.replace("eels and frogs", "voles and newts"))
    assert before["mode"] == "cached" and done(rag, "What does the grey heron eat?")["mode"] == "cached"
    rag.remove("heron.md")
    assert "voles" not in done(rag, "What does the grey heron eat?")["answer"]
    rag.put("heron.md", HERON)


def test_what_others_may_not_see_is_not_given_to_them(rag):
    key = "rag-the-clerks-key"
    table = rag.server.resource("dynamodb").Table(rag.outputs["AccessTableName"])
    table.put_item(Item={"id": hashlib.sha256(key.encode()).hexdigest(), "owner": "clerk", "labels": ["payroll"]})
    text = b"# Pay\n\nThe keeper earned forty pounds.\n"
    rag.s3.put_object(Bucket=rag.bucket, Key="pay.md", Body=text, Metadata={"labels": "payroll"})
    wait_for(lambda: rag.row("pay.md").get("status") == "indexed", what="the document")
    clerk = {"authorization": f"Bearer {key}"}
    question = "What did the keeper earn?"
    assert "forty" in done(rag, question, **clerk)["answer"]
    wait_for(lambda: done(rag, question, **clerk)["mode"] == "cached", what="the clerk's answer being kept")
    told = done(rag, question)
    assert told["mode"] != "cached" and "forty" not in told["answer"]


def test_hits_and_misses_are_metrics(rag):
    from datetime import UTC, datetime, timedelta

    cached(rag, "What does the grey heron eat?", True)
    client, now = rag.server.client("cloudwatch"), datetime.now(UTC)

    def total(name):
        found = client.get_metric_statistics(
            Namespace="Rag", MetricName=name, Dimensions=[{"Name": "Stack", "Value": "rag"}], Statistics=["Sum"],
            StartTime=now - timedelta(hours=1), EndTime=now + timedelta(hours=1), Period=7_200,
        )["Datapoints"]  # fmt: skip
        return sum(one["Sum"] for one in found)

    wait_for(lambda: total("AnswerCacheHits") >= 1 and total("AnswerCacheMisses") >= 1, what="the metrics")

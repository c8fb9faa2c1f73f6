"""Questions to the deployed RAG stack: as a stream, through the queue, without vectors, and what is refused."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.support.chat import chat_model
from tests.support.rag import deployed
from tests.support.server import wait_for

QUESTION = "What does the grey heron eat?"
QUOTE = "The grey heron eats eels and frogs."
DOCUMENTS = {
    "heron.md": f"# Herons\n\n## Food\n\n{QUOTE} It stands still.\n\n## Nests\n\nHerons nest in alder trees.\n",
    "swift.txt": "Swifts sleep while they fly. They land only to breed.",
    "owl.html": "<title>Owls</title><h1>Barn owl</h1><p>The barn owl hunts voles by ear.</p>",
}
INSIDE = r"retrieval (\d+) of which embed (\d+), search (\d+), rerank (\d+); model (\d+)"
VISIBILITY_S = 360
FIRST_HALF, SECOND_HALF = "Eels and", " frogs [1]."


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """Its answers stop in the middle until `seen` is set."""
    with chat_model(tmp_path_factory.mktemp("chat"), "test.held-back") as (chat, models):
        chat.says, chat.stop_at = (FIRST_HALF, SECOND_HALF), 1
        chat.models = models
        yield chat


@pytest.fixture(scope="module")
def rag(tmp_path_factory, chat):
    with deployed(tmp_path_factory.mktemp("rag"), "--models", str(chat.models)) as stack:
        stack.seen = chat.go
        for key, text in DOCUMENTS.items():
            stack.put(key, text)
        yield stack


def job_of(rag, identifier):
    status, _, body = rag.http("QuestionsUrl", "GET", f"/questions/{identifier}")
    assert status == 200
    return json.loads(body)


def wait_job(rag, identifier, *statuses):
    found = {}

    def there():
        found.update(job_of(rag, identifier))
        return found if found["status"] in statuses else None

    return dict(wait_for(there, what=f"a status of {statuses}"))


def submit(rag, question=QUESTION):
    status, headers, body = rag.http("QuestionsUrl", "POST", "/questions", {"question": question})
    assert status == 202
    job = json.loads(body)
    assert job["status"] == "queued" and headers["location"] == f"/questions/{job['id']}"
    return job["id"]


def ask(rag, *arguments, code=0):
    command = [str(Path(sys.executable).parent / "preheat"), "ask", *arguments, "--port", str(rag.server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done
    return done


# -- as a stream ------------------------------------------------------------------------------------------------------


def test_an_answer_quotes_passages_that_exist(rag):
    events = rag.ask(QUESTION)
    names = [name for name, _ in events]
    assert names[0] == "retrieval" and names[-1] == "done" and set(names[1:-1]) == {"token"}
    assert len(names) > 4
    retrieval, done = events[0][1], events[-1][1]
    assert (retrieval["mode"], retrieval["note"]) == ("hybrid", "")
    assert "".join(data["text"] for name, data in events if name == "token") == done["answer"]
    quoted, number = re.fullmatch(r"(.*?)\s*\[(\d)\]\s*", done["answer"].split("] ")[0].rstrip("]") + "]").groups()
    assert quoted == QUOTE
    passage = next(one for one in retrieval["passages"] if one["n"] == int(number))
    assert passage["source"] == passage["document"] == "heron.md" and passage["headings"] == "Herons > Food"
    stored = {one["text"] for one in rag.chunks("heron.md")}
    assert quoted in passage["text"] and passage["text"] in stored
    cited = next(one for one in done["citations"] if one["n"] == int(number))
    assert (cited["document"], cited["id"]) == ("heron.md", passage["id"])
    assert [passage["text"][start:end] for start, end in cited["quotes"]] == [QUOTE]
    assert done["answered"] and done["supported"] and done["cost_usd"] == 0
    assert 0 <= done["timing"]["retrieval_ms"] <= done["timing"]["first_token_ms"] <= done["timing"]["total_ms"]


def test_tokens_arrive_before_the_answer_is_complete(rag):
    """The model holds back the second half of its answer until the asker has seen the first."""
    rag.deploy(GenerationModelId="test.held-back")
    try:
        text = ""
        for name, data in rag.events(QUESTION):
            if name == "token":
                text += data["text"]
                if text == FIRST_HALF:
                    rag.seen.set()
        assert (name, data["answer"]) == ("done", FIRST_HALF + SECOND_HALF)
        assert [one["n"] for one in data["citations"]] == [1]
    finally:
        rag.deploy()


def test_a_question_that_the_documents_do_not_answer_is_refused(rag):
    done = rag.ask("Which year did Portugal join the European Union?")[-1][1]
    assert done["answer"] == "The documents do not answer this question."
    assert done["citations"] == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "the body is not JSON"),
        (b'["no"]', 'send {"question": "..."}'),
        (b'{"question": "  "}', 'send {"question": "..."}'),
        (b'{"question": 7}', 'send {"question": "..."}'),
        (json.dumps({"question": "x" * 2_001}).encode(), "a question has at most 2000 characters"),
    ],
)
@pytest.mark.parametrize(("output", "path"), [("AskUrl", "/ask"), ("QuestionsUrl", "/questions")])
def test_bad_questions_are_told_why(rag, output, path, body, told):
    status, _, answer = rag.http(output, "POST", path, body)
    assert status == 400 and told in json.loads(answer)["message"]


def test_the_page_is_served_and_other_paths_are_not(rag):
    status, headers, body = rag.http("AskUrl", "GET", "/")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8" and b"<form" in body
    assert "default-src 'none'" in headers["content-security-policy"]
    for method, path in (("GET", "/nothing"), ("GET", "/ask"), ("POST", "/"), ("POST", "/a/ask")):
        status, _, body = rag.http("AskUrl", method, path)
        assert status == 404 and f"there is nothing at {method} {path}" in json.loads(body)["message"]
    assert rag.http("QuestionsUrl", "GET", "/questions")[0] == 404


def test_the_terminal_shows_the_answer_its_sources_and_the_time(rag):
    lines = ask(rag, QUESTION, "--timing").stdout.splitlines()
    assert lines[0].startswith(QUOTE)
    assert "  [1] Herons > Food (heron.md)" in lines
    told = re.match(rf"first token after (\d+) ms \({INSIDE}; platform (\d+)\), all after \d+ ms$", lines[-1])
    first, retrieval, *steps, model, platform = map(int, told.groups())
    assert 0 < retrieval <= first and 0 < model <= first and abs(retrieval + model + platform - first) <= 3
    assert 0 < sum(steps) <= retrieval + 2


def test_what_each_step_took_is_in_the_answer_in_the_log_and_in_the_metrics(rag):
    logs, metrics = rag.server.client("logs"), rag.server.client("cloudwatch")
    now, done = datetime.now(UTC), rag.ask("How do swifts sleep, do they land?")[-1][1]
    steps = {name: done["timing"][f"{name}_ms"] for name in ("embed", "search", "rerank")}
    assert all(took > 0 for took in steps.values()) and sum(steps.values()) <= done["timing"]["retrieval_ms"] + 1

    def logged():
        found = {}
        for group in logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]:
            named = {"logGroupName": group["logGroupName"], "filterPattern": f'"{done["correlation"]}"'}
            lines = [json.loads(one["message"]) for one in logs.filter_log_events(**named)["events"]]
            found |= {one["step"]: one["ms"] for one in lines if "step" in one}
        return found if steps.keys() <= found.keys() else None

    found = wait_for(logged, what="the steps' lines")
    assert {name: found[name] for name in steps} == pytest.approx(steps, abs=0.06)

    def measured(name):
        took = done["timing"][times[name]]
        points = metrics.get_metric_statistics(
            Namespace="Rag", MetricName=name, Dimensions=[{"Name": "Stack", "Value": "rag"}], Period=7_200,
            StartTime=now - timedelta(hours=1), EndTime=now + timedelta(hours=1), Statistics=["Minimum", "Maximum"],
        )["Datapoints"]  # fmt: skip
        return any(one["Minimum"] <= took <= one["Maximum"] and one["Unit"] == "Milliseconds" for one in points)

    times = {"EmbedTime": "embed_ms", "SearchTime": "search_ms", "RerankTime": "rerank_ms", "AnswerTime": "total_ms",
             "RetrievalTime": "retrieval_ms", "FirstTokenTime": "first_token_ms",
             "ModelFirstTokenTime": "model_first_ms"}  # fmt: skip
    for name in times:
        wait_for(partial(measured, name), what=name)


# -- through the queue ------------------------------------------------------------------------------------------------


def test_a_queued_question_is_answered_with_citations(rag):
    job = wait_job(rag, submit(rag), "done")
    assert job["answer"].startswith(QUOTE) and job["mode"] == "hybrid" and job["attempts"] == 1
    assert job["question"] == QUESTION and "expires" not in job and "reason" not in job
    assert job["citations"][0]["source"] == "heron.md" and QUOTE in job["citations"][0]["text"]
    *_, source, told = ask(rag, QUESTION, "--queued", "--timing").stdout.splitlines()
    assert source == "  [1] Herons > Food (heron.md)"
    assert re.match(rf"all after \d+ ms \({INSIDE}; the worker \d+\)$", told)


def test_a_job_that_does_not_exist_is_404(rag):
    status, _, body = rag.http("QuestionsUrl", "GET", "/questions/absent")
    assert status == 404 and json.loads(body) == {"message": "there is no job absent"}


def test_a_message_delivered_again_changes_no_finished_job_and_makes_none(rag):
    before = wait_job(rag, submit(rag), "done")
    again = [{"id": before["id"], "question": "What else?"}, {"id": "never-submitted", "question": QUESTION}]
    queue = next(url for url in rag.sqs.list_queues()["QueueUrls"] if "QuestionsQueue" in url)
    for body in again:
        rag.sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(body))
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def empty():
        found = rag.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return not any(map(int, found.values()))

    wait_for(empty, what="the questions queue being empty")
    assert job_of(rag, before["id"]) == before
    assert rag.http("QuestionsUrl", "GET", "/questions/never-submitted")[0] == 404


def test_settings_of_the_template_hold(rag):
    functions = rag.server.client("lambda")
    queues = {url.rpartition("/")[2]: url for url in rag.sqs.list_queues()["QueueUrls"]}
    seen = 0
    for function in functions.list_functions()["Functions"]:
        for mapping in functions.list_event_source_mappings(FunctionName=function["FunctionName"])[
            "EventSourceMappings"
        ]:
            url = queues[mapping["EventSourceArn"].rpartition(":")[2]]
            found = rag.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            assert int(found["VisibilityTimeout"]) >= 6 * function["Timeout"]
            assert int(json.loads(found["RedrivePolicy"])["maxReceiveCount"]) >= 3
            seen += 1
    assert seen == 4
    worker = next(one for one in functions.list_functions()["Functions"] if "WorkerFunction" in one["FunctionName"])
    reserved = functions.get_function_concurrency(FunctionName=worker["FunctionName"])
    assert reserved["ReservedConcurrentExecutions"] == 10
    (mapping,) = functions.list_event_source_mappings(FunctionName=worker["FunctionName"])["EventSourceMappings"]
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == 8


# -- a model that fails, and no model ---------------------------------------------------------------------------------


def test_a_model_that_does_not_exist_fails_the_job_with_a_reason_and_fills_the_dead_letter_queue(rag):
    rag.deploy(GenerationModelId="no.such-model")
    try:
        *_, (notice, told), (name, data) = rag.ask(QUESTION)
        assert (notice, name, data["mode"], data["answered"]) == ("notice", "done", "passages", False)
        assert told["message"].endswith("(ValidationException).") and told["message"] == data["notice"]
        assert f"- {QUOTE} [1]" in data["answer"] and data["citations"][0]["document"] == "heron.md"
        assert QUOTE in ask(rag, QUESTION).stdout
        job = submit(rag)
        for attempt in (1, 2):
            found = wait_for(partial(_attempted, rag, job, attempt), what=f"attempt {attempt}")
            assert found["status"] == "retrying" and "model identifier is invalid" in found["reason"]
            rag.server.advance(VISIBILITY_S + 1)
        found = wait_job(rag, job, "failed")
        assert found["attempts"] == 3 and "model identifier is invalid" in found["reason"] and "answer" not in found
        rag.server.advance(VISIBILITY_S + 1)
        wait_for(lambda: rag.count("QuestionsDeadLettersUrl") == 1, what="the dead letter")
    finally:
        rag.deploy()
    command = [str(Path(sys.executable).parent / "preheat"), "dlq", "--redrive", "--port", str(rag.server.port)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert job in shown and "model identifier is invalid" in shown
    mended = wait_job(rag, job, "done")
    assert mended["answer"].startswith(QUOTE) and "reason" not in mended


def _attempted(rag, job, attempt):
    found = job_of(rag, job)
    return found if found.get("attempts") == attempt and found["status"] == "retrying" else None


def test_without_an_embedding_model_retrieval_is_lexical_and_says_so(rag):
    rag.deploy(EmbeddingModelId="none")
    try:
        rag.wait_live(model="none")
        assert rag.row("swift.txt")["model"] == "none"
        wait_for(partial(_asked_in, rag, "lexical"), what="every environment reading the new index")
        events = rag.ask("When do swifts sleep?")
        assert (events[0][1]["mode"], events[0][1]["note"]) == ("lexical", "no embedding model is configured")
        assert events[-1][1]["mode"] == "lexical" and events[-1][1]["answer"].startswith("Swifts sleep while they fly.")
        lines = ask(rag, "When do swifts sleep?").stdout.splitlines()
        assert lines[0] == "retrieval is lexical: no embedding model is configured"
        wait_for(
            lambda: wait_job(rag, submit(rag, "When do swifts sleep?"), "done")["mode"] == "lexical",
            what="the workers reading the new index",
        )
    finally:
        rag.deploy()
    rag.wait_live(model="preheat.minilm-l6-v2")
    wait_for(partial(_asked_in, rag, "hybrid"), what="every environment reading the new index")
    row = rag.put("swift.txt", DOCUMENTS["swift.txt"])
    assert (row["model"], row["written"], row["unchanged"]) == ("preheat.minilm-l6-v2", 0, 1)


def _asked_in(rag, mode):
    return rag.ask("When do swifts sleep?")[0][1]["mode"] == mode


def test_an_embedding_model_that_fails_leaves_documents_to_be_found_by_words(tmp_path):
    fault = {"service": "bedrock-runtime", "operation": "InvokeModel", "error": "deny"}
    with deployed(tmp_path) as rag:
        assert rag.server.get("/_preheat/faults", "POST", json.dumps(fault).encode())[0] == 200
        row = rag.put("rail.txt", "The water rail squeals like a pig.")
        assert (row["status"], row["model"]) == ("indexed", "none")
        assert row["note"].startswith("indexed for lexical search only: the model preheat.minilm-l6-v2 failed")
        events = rag.ask("What does the water rail squeal like?")
        assert events[0][1]["mode"] == "lexical" and "preheat.minilm-l6-v2 failed" in events[0][1]["note"]
        assert events[-1][1]["answer"].startswith("The water rail squeals like a pig.")

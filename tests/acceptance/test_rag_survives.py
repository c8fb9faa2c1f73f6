"""Each service behind the RAG stack throttled, slow and cut off in turn, while it is asked both ways: nothing is lost,
what is degraded says so, and everything is as before once the fault has ended."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.rag import deployed, events_in
from tests.support.server import wait_for

QUESTION = "What does the grey heron eat?"
TEXT = "# Herons\n\nThe grey heron eats eels and frogs.\n"
MODEL_TIMEOUT_S = 2
ASKED, SUBMITTED = 4, 4
STILL_S = 4
VISIBILITY_S = {"QuestionsQueueUrl": 360, "TurnsQueueUrl": 180, "IngestQueueUrl": 720}
STACK = "assumed-role/rag-"
THROTTLE, DROP, DELAY = {"error": "throttle"}, {"error": "drop"}, {"error": "delay", "ms": 60_000}


def errors(*some):
    """These ways to fail; all three with CHAOS=all in the environment, which takes minutes."""
    ways = (THROTTLE, DROP, DELAY) if os.environ.get("CHAOS") == "all" else some
    return pytest.mark.parametrize("how", ways, ids=lambda how: how["error"])


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    settings = {"ModelTimeout": str(MODEL_TIMEOUT_S), "RequestsPerMinute": "10000"}
    with deployed(tmp_path_factory.mktemp("rag"), **settings) as stack:
        stack.put("heron.md", TEXT)
        yield stack


@pytest.fixture(autouse=True)
def lifted(rag):
    yield
    lift(rag)


def fault(rag, service, **more):
    body = json.dumps({"service": service, "caller": STACK, **more}).encode()
    status, _, answer = rag.server.get("/_preheat/faults", "POST", body)
    assert status == 200, answer


def struck(rag):
    return sum(one["hits"] for one in json.loads(rag.server.get("/_preheat/faults")[2])["faults"])


def lift(rag):
    rag.server.get("/_preheat/faults", "DELETE")


def ask(rag, number=0, **more):
    """(status, events by name) of one question; events of an answer that was refused are empty."""
    headers = {"x-visitor": f"visitor-{number:08d}"}
    status, _, data = rag.http("AskUrl", "POST", "/ask", {"question": QUESTION, **more}, headers)
    return status, dict(events_in(data.decode())) if status == 200 else {}


def submit(rag, turn=""):
    body = {"question": QUESTION, **({"turn": turn} if turn else {})}
    status, _, answer = rag.http("QuestionsUrl", "POST", "/questions", body)
    return status, json.loads(answer).get("id")


def job(rag, id):
    status, _, answer = rag.http("QuestionsUrl", "GET", f"/questions/{id}")
    return json.loads(answer) if status == 200 else {"status": status}


def load(rag):
    """Both ways at once: the answers of the streams, and the jobs that were accepted."""
    with ThreadPoolExecutor(ASKED + SUBMITTED) as pool:
        streams = [pool.submit(ask, rag, number) for number in range(ASKED)]
        jobs = [pool.submit(submit, rag) for _ in range(SUBMITTED)]
        answers = [one.result() for one in streams]
        told = [one.result() for one in jobs]
    assert all(status in (202, 503) for status, _ in told), told
    for status, events in answers:
        assert status in (200, 503), status
        assert status == 503 or "done" in events or events["error"]["message"], events
    return answers, [id for status, id in told if status == 202]


def drained(rag, ids):
    """The jobs once each has ended; what waits for its next attempt gets it. A job whose row could not be written waits
    too, under the status that it had: so whatever stands still for a while is given its next attempt."""
    before, since = None, time.monotonic()

    def ended():
        nonlocal before, since
        statuses = [job(rag, id)["status"] for id in ids]
        if statuses != before:
            before, since = statuses, time.monotonic()
        if all(one in ("done", "failed") for one in statuses):
            return statuses
        waiting = all(one in ("done", "failed", "retrying") for one in statuses)
        if waiting or time.monotonic() - since > STILL_S:
            rag.server.advance(VISIBILITY_S["QuestionsQueueUrl"] + 1)
            since = time.monotonic()
        return None

    wait_for(ended, what=f"the end of {ids}")
    return [job(rag, id) for id in ids]


def in_time(rag, seconds, condition, what):
    """Wait for the condition; the clock moves by `seconds` now and whenever nothing has come of it for a while."""
    moved = float("-inf")

    def come():
        nonlocal moved
        if condition():
            return True
        if time.monotonic() - moved > STILL_S:
            rag.server.advance(seconds)
            moved = time.monotonic()
        return False

    wait_for(come, what=what)


def recovered(rag):
    """Everything as before: a whole answer, found by words and meaning, on both ways."""

    def whole():
        status, events = ask(rag)
        return status == 200 and events.get("done", {}).get("mode") == "hybrid"

    wait_for(whole, what="whole answers again")
    accepted = wait_for(lambda: submit(rag)[1], what="a job being accepted")
    (last,) = drained(rag, [accepted])
    assert last["status"] == "done" and last["answer"].startswith("The grey heron eats eels and frogs.")


@errors(THROTTLE, DELAY)
def test_without_the_embedding_model_answers_are_found_by_words_and_say_so(rag, how):
    fault(rag, "bedrock-runtime", operation="InvokeModel", **how)
    answers, ids = load(rag)
    assert struck(rag) and len(ids) == SUBMITTED
    fresh = ask(rag, question="Which frogs does the heron eat in March?")[1]
    assert fresh["retrieval"]["mode"] == "lexical" and "preheat.minilm-l6-v2" in fresh["retrieval"]["note"]
    assert all(status == 200 and events["done"]["answer"] for status, events in answers)
    assert {one["status"] for one in drained(rag, ids)} == {"done"}
    lift(rag)
    recovered(rag)


@errors(DROP, DELAY)
def test_without_the_generation_model_passages_stand_for_the_answer_and_jobs_wait(rag, how):
    fault(rag, "bedrock-runtime", operation="ConverseStream", **how)
    answers, ids = load(rag)
    assert struck(rag) and len(ids) == SUBMITTED
    for status, events in answers:
        assert status == 200 and events["done"]["mode"] == "passages" and events["done"]["notice"]
        assert "heron.md" in [one["document"] for one in events["retrieval"]["passages"]]
    for id in ids:
        wait_for(lambda id=id: job(rag, id)["status"] == "retrying", what="the first attempt's end")
    lift(rag)
    recovered(rag)
    ended = drained(rag, ids)
    assert {one["status"] for one in ended} == {"done"}
    assert all(one["mode"] == "hybrid" and one["attempts"] >= 2 and "reason" not in one for one in ended)


@errors(THROTTLE)
def test_without_the_vector_store_streams_say_why_and_jobs_wait(rag, how):
    fault(rag, "s3vectors", **how)
    answers, ids = load(rag)
    assert struck(rag) and len(ids) == SUBMITTED
    assert all(status == 200 and "error" in events and "done" not in events for status, events in answers)
    lift(rag)
    recovered(rag)
    assert {one["status"] for one in drained(rag, ids)} == {"done"}


@errors(DROP)
def test_without_the_tables_nothing_is_accepted_that_could_be_lost(rag, how):
    status, before = submit(rag)
    assert status == 202
    fault(rag, "dynamodb", **how)
    answers, ids = load(rag)
    assert struck(rag) and ids == []
    kept = [events["done"] for status, events in answers if "done" in events]
    lift(rag)
    recovered(rag)
    (ended,) = drained(rag, [before])
    assert ended["status"] == "done"
    # Turns that were answered meanwhile went to their queue.
    table = rag.server.resource("dynamodb").Table(rag.outputs["SessionsTableName"])
    in_time(
        rag, VISIBILITY_S["TurnsQueueUrl"] + 1, lambda: all(_turns(table, one["session"]) for one in kept),
        f"{len(kept)} turns",
    )  # fmt: skip
    assert rag.count("QuestionsDeadLettersUrl") == 0


def _turns(table, session):
    from boto3.dynamodb.conditions import Key

    return table.query(KeyConditionExpression=Key("session").eq(session))["Items"]


@errors(DROP)
def test_without_the_queue_nothing_is_accepted_and_the_same_turn_may_come_again(rag, how):
    fault(rag, "sqs", operation="SendMessage", **how)
    answers, ids = load(rag)
    assert struck(rag) and ids == []
    assert all(status == 200 and "done" in events for status, events in answers)
    turn = f"again-{how['error']}"
    assert submit(rag, turn)[0] == 503
    lift(rag)
    wait_for(lambda: submit(rag, turn)[0] == 202, what="the turn being accepted")
    (ended,) = drained(rag, [turn])
    assert ended["status"] == "done"
    recovered(rag)


@errors(THROTTLE)
def test_without_the_bucket_documents_wait_and_are_indexed_later(rag, how):
    key = f"{how['error']}.md"
    fault(rag, "s3", **how)
    rag.s3.put_object(Bucket=rag.bucket, Key=key, Body=f"# {key}\n\nThe bittern booms at dusk.\n".encode())
    wait_for(lambda: struck(rag) >= 2, what="the fault being met")
    assert ask(rag)[1]["done"]["mode"] == "hybrid"
    lift(rag)
    in_time(rag, VISIBILITY_S["IngestQueueUrl"] + 1, lambda: rag.row(key).get("status") == "indexed", "the document")
    assert rag.count("IngestDeadLettersUrl") == 0


def test_a_job_that_fails_to_the_last_is_a_dead_letter_with_its_cause_even_without_the_table(rag):
    fault(rag, "bedrock-runtime", operation="ConverseStream", error="throttle")
    id = submit(rag)[1]
    for attempt in (1, 2):
        wait_for(lambda attempt=attempt: _attempted(rag, id, attempt), what=f"attempt {attempt}")
        if attempt == 2:
            fault(rag, "dynamodb", operation="UpdateItem", error="unavailable")
        rag.server.advance(VISIBILITY_S["QuestionsQueueUrl"] + 1)
    wait_for(lambda: rag.count("TurnsQueueUrl") >= 1, what="the job's end in the queue")
    lift(rag)
    in_time(rag, VISIBILITY_S["TurnsQueueUrl"] + 1, lambda: job(rag, id)["status"] == "failed", "the job's end")
    assert job(rag, id)["attempts"] == 3 and job(rag, id)["reason"]
    rag.server.advance(VISIBILITY_S["QuestionsQueueUrl"] + 1)
    wait_for(lambda: rag.count("QuestionsDeadLettersUrl") == 1, what="the dead letter")
    command = [str(Path(sys.executable).parent / "preheat"), "dlq", "--redrive", "--port", str(rag.server.port)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert id in shown and "UpdateItem" in shown and "1 dead letters" in shown
    (ended,) = drained(rag, [id])
    assert ended["status"] == "done" and "reason" not in ended


def _attempted(rag, id, attempt):
    found = job(rag, id)
    return found.get("attempts") == attempt and found["status"] == "retrying"


def test_the_circuit_opens_and_closes(rag):
    """While it is open the model is not called: the answers stop adding to what the fault struck."""
    fault(rag, "bedrock-runtime", operation="ConverseStream", error="unavailable")
    seen, quiet = [0], 0
    for _ in range(12):
        ask(rag)
        seen.append(struck(rag))
        quiet += seen[-1] == seen[-2]
    assert quiet >= 2, seen
    lift(rag)
    recovered(rag)


def test_a_fault_now_and_then_is_retried_and_nobody_notices(rag):
    for service, operation in (("bedrock-runtime", "ConverseStream"), ("s3vectors", "QueryVectors")):
        fault(rag, service, operation=operation, error="throttle", count=1)
    status, events = ask(rag)
    assert status == 200 and events["done"]["mode"] == "hybrid" and struck(rag) == 2


def test_ingest_and_questions_do_not_share_a_bulkhead():
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))
    from ragkit.embed import EmbeddingUnavailable
    from ragkit.guards import GuardedEmbedder, Kept
    from ragkit.resilience import Breaker, Bulkhead

    class Model:
        model = "m"

        def documents(self, texts):
            inside.set()
            assert leave.wait(10)
            return [[1.0]]

        def query(self, text):
            return [2.0]

    inside, leave = threading.Event(), threading.Event()
    guarded = GuardedEmbedder(
        Model(), Breaker("m"), Bulkhead("questions", 1), Kept(8), ingest=Bulkhead("documents", 1, wait_s=0.01)
    )
    thread = threading.Thread(target=guarded.documents, args=(["a"],))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(EmbeddingUnavailable, match="too many calls of documents"):
        guarded.documents(["b"])
    assert guarded.query("c") == [2.0]
    leave.set()
    thread.join()

"""The chat service as its clients meet it: streams that break off, questions that come twice, conversations that are
long, deleted or somebody else's, downstreams that stall, tiers whose sum is too large."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from typer import Exit

from tests.support.chat import chat_model
from tests.support.rag import deployed
from tests.support.server import wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.identity import digest, new_key
from ragkit.sessions import SUMMARY_TOKENS, Record, Sessions, remembered
from ragkit.tokens import estimate

QUESTION = "What does the grey heron eat?"
FACT = "The grey heron eats eels and frogs."
TEXT = f"# Herons\n\n{FACT} It stands still.\n"
MODEL_TIMEOUT_S = 2
STACK = "assumed-role/rag-"
VISIBILITY_S = 361


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with chat_model(folder) as (chat, models):
        settings = {"GenerationModelId": chat.model, "ModelTimeout": str(MODEL_TIMEOUT_S), "RequestsPerMinute": "0"}
        with deployed(folder, "--models", str(models), **settings) as stack:
            stack.put("heron.md", TEXT)
            stack.chat = chat
            yield stack


@pytest.fixture(autouse=True)
def as_before(rag):
    rag.chat.reset()
    rag.chat.says = f"{FACT} [1]"
    yield
    rag.server.get("/_preheat/faults", "DELETE")
    rag.chat.go.set()
    while OPEN:
        OPEN.pop().close()
    wait_for(lambda: not rag.chat.inside, what="the model being left")


OPEN = []


class Stream:
    """POST /ask, read block by block. `close` is a browser that goes away."""

    def __init__(self, rag, question=QUESTION, visitor="visitor-00000000", headers=None, **body):
        base = rag.platform.at_path(rag.outputs["AskUrl"]).removeprefix(rag.server.endpoint).rstrip("/")
        self.connection = http.client.HTTPConnection("127.0.0.1", rag.server.port, timeout=40)
        told = {"content-type": "application/json", "x-visitor": visitor, **(headers or {})}
        self.connection.request("POST", base + "/ask", json.dumps({"question": question, **body}), told)
        self.socket = self.connection.sock
        self.answer = self.connection.getresponse()
        OPEN.append(self)
        self.status = self.answer.status
        self.comments = []

    def __iter__(self):
        """(name, data, id) of the events; comments are kept aside."""
        found = {}
        for raw in self.answer:
            line = raw.decode().rstrip("\n")
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                name, _, value = line.partition(": ")
                found[name] = value
            elif found:
                yield found["event"], json.loads(found["data"]), found.get("id", "")
                found = {}

    def until(self, name):
        return next(data for one, data, _ in self if one == name)

    def close(self):
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.answer.close()
        self.connection.close()


def ask(rag, question=QUESTION, **body):
    """The events of a whole answer by name; the data of tokens joined."""
    stream = Stream(rag, question, **body)
    assert stream.status == 200, stream.answer.read()
    found = {"text": ""}
    for name, data, _ in stream:
        found[name] = data
        found["text"] += data["text"] if name == "token" else ""
    return found


def fault(rag, service, **more):
    body = json.dumps({"service": service, "caller": STACK, **more}).encode()
    status, _, answer = rag.server.get("/_preheat/faults", "POST", body)
    assert status == 200, answer


def visits(visitor):
    return {"x-visitor": visitor}


def turns_of(rag, session, visitor="visitor-00000000"):
    status, _, body = rag.http("AskUrl", "GET", f"/sessions/{session}", headers=visits(visitor))
    return json.loads(body)["turns"] if status == 200 else None


def submit(rag, visitor="visitor-00000000", **body):
    status, headers, data = rag.http(
        "QuestionsUrl", "POST", "/questions", {"question": QUESTION, **body}, visits(visitor)
    )
    return status, headers, json.loads(data)


def job(rag, id, visitor="visitor-00000000", **headers):
    status, answered, data = rag.http("QuestionsUrl", "GET", f"/questions/{id}", headers={**visits(visitor), **headers})
    return status, answered, json.loads(data) if data else {}


def ended(rag, id, *statuses, **more):
    def there():
        found = job(rag, id, **more)[2]
        return found if found.get("status") in (statuses or ("done", "failed")) else None

    return wait_for(there, what=f"the end of {id}")


def sessions_table(rag):
    return rag.server.resource("dynamodb").Table(rag.outputs["SessionsTableName"])


# -- stream -----------------------------------------------------------------------------------------------------------


def test_a_connection_that_breaks_loses_no_answer(rag):
    """As on AWS the function goes on when its client has gone; whoever comes back gets the rest."""
    rag.chat.says, rag.chat.pause_s = f"{FACT} [1] " + "It stands still. [1] " * 20, 0.02
    stream = Stream(rag, session="s-gone", turn="t-gone")
    had, last = "", ""
    for name, data, id in stream:
        had, last = (had + data["text"], id) if name == "token" else (had, id)
        if len(had) > 10:
            break
    stream.close()
    wait_for(lambda: turns_of(rag, "s-gone"), what="the turn")
    asked = len(rag.chat.seen)
    rest = list(Stream(rag, session="s-gone", turn="t-gone", headers={"last-event-id": last}))
    assert len(rag.chat.seen) == asked and [name for name, _, _ in rest] == ["token", "done"]
    assert had + rest[0][1]["text"] == rest[1][1]["answer"] and rest[1][1]["answer"].count("still") == 20
    (turn,) = turns_of(rag, "s-gone")
    assert turn["status"] == "done" and turn["answer"] == rest[1][1]["answer"]


def test_events_are_numbered_and_a_client_that_reconnects_gets_what_it_has_not_seen(rag):
    stream = Stream(rag, session="s-ids", turn="t-ids")
    first = list(stream)
    assert [int(id.split("-")[0]) for _, _, id in first] == list(range(1, len(first) + 1))
    tokens = [(data["text"], id) for name, data, id in first if name == "token"]
    assert len(tokens) > 2
    asked = len(rag.chat.seen)
    again = list(Stream(rag, session="s-ids", turn="t-ids", headers={"last-event-id": tokens[1][1]}))
    assert [name for name, _, _ in again] == ["token", "done"]
    assert tokens[0][0] + tokens[1][0] + again[0][1]["text"] == again[1][1]["answer"] == first[-1][1]["answer"]
    whole = list(Stream(rag, session="s-ids", turn="t-ids"))
    assert [name for name, _, _ in whole] == ["session", "retrieval", "token", "done"]
    assert len(rag.chat.seen) == asked


def test_a_silent_model_does_not_make_a_silent_stream(rag):
    rag.deploy(GenerationModelId=rag.chat.model, ModelTimeout="20", RequestsPerMinute="0")
    try:
        rag.chat.says, rag.chat.stop_at = ["The grey heron ", "eats eels and frogs. [1]"], 1
        stream = Stream(rag)
        stream.until("token")
        threading.Timer(7, rag.chat.go.set).start()
        assert stream.until("done")["answer"] == f"{FACT} [1]"
        assert stream.comments
    finally:
        rag.deploy(GenerationModelId=rag.chat.model, ModelTimeout=str(MODEL_TIMEOUT_S), RequestsPerMinute="0")


def test_a_model_that_stalls_in_the_middle_is_given_up_in_time(rag):
    rag.chat.says, rag.chat.stop_at = ["The grey heron ", "never."], 1
    began = time.monotonic()
    found = ask(rag)
    took = time.monotonic() - began
    assert found["done"]["mode"] == "passages" and found["done"]["notice"], found
    assert FACT in found["done"]["answer"]
    assert took < 3 * MODEL_TIMEOUT_S + 20, took


def test_a_model_that_drips_for_ever_ends_before_the_function_does(rag):
    functions = rag.server.client("lambda")
    name = next(one["FunctionName"] for one in functions.list_functions()["Functions"] if "Ask" in one["FunctionName"])
    functions.update_function_configuration(FunctionName=name, Timeout=20)
    try:
        rag.chat.says, rag.chat.pause_s = "Eels and frogs and " * 200, 0.3
        found = ask(rag, session="s-drip", turn="t-drip")
        assert found["done"]["mode"] == "passages" and "OutOfTime" in found["done"]["notice"], found
        assert turns_of(rag, "s-drip")
    finally:
        functions.update_function_configuration(FunctionName=name, Timeout=60)


# -- polling ----------------------------------------------------------------------------------------------------------


def test_polling_shows_the_answer_as_it_grows_and_says_when_to_come_again(rag):
    rag.chat.says, rag.chat.stop_at = ["The grey heron ", "eats eels and frogs. [1]"], 1
    rag.chat.patience_s = 20
    rag.deploy(GenerationModelId=rag.chat.model, ModelTimeout="20", RequestsPerMinute="0")
    try:
        status, headers, told = submit(rag)
        id = told["id"]
        assert status == 202 and int(headers["retry-after"]) >= 1
        growing = ended(rag, id, "working")
        wait_for(lambda: job(rag, id)[2].get("partial", "").startswith("The grey heron"), what="a part of the answer")
        growing = job(rag, id)
        assert growing[1]["cache-control"] == "no-store" or "no-cache" in growing[1]["cache-control"]
        assert int(growing[1]["retry-after"]) >= 1 and growing[1]["etag"]
        assert job(rag, id, **{"if-none-match": growing[1]["etag"]})[0] == 304
        rag.chat.go.set()
        ended(rag, id)
        status, headers, last = job(rag, id)
        assert last["status"] == "done" and "retry-after" not in headers and "partial" not in last
        assert job(rag, id, **{"if-none-match": growing[1]["etag"]})[0] == 200
        assert job(rag, id, **{"if-none-match": headers["etag"]})[0] == 304
    finally:
        rag.deploy(GenerationModelId=rag.chat.model, ModelTimeout=str(MODEL_TIMEOUT_S), RequestsPerMinute="0")


def test_a_turn_that_is_somebody_elses_is_not_answered_with_his(rag):
    status, _, told = submit(rag, "visitor-11111111", turn="t-mine")
    assert status == 202
    ended(rag, "t-mine", visitor="visitor-11111111")
    status, _, told = submit(rag, "visitor-22222222", turn="t-mine")
    assert status == 409 and "t-mine" in told["message"]


def test_a_job_that_is_stopped_while_it_waits_costs_nothing(rag):
    rag.chat.stop_at = 0
    table = rag.server.resource("dynamodb").Table(rag.outputs["JobsTableName"])
    rag.http("AskUrl", "POST", "/turns/t-idle/cancel", {"session": "s-idle"}, visits("visitor-00000000"))
    asked = len(rag.chat.seen)
    assert submit(rag, session="s-idle", turn="t-idle")[0] == 202
    last = ended(rag, "t-idle")
    assert last["status"] == "done" and last["cancelled"] and len(rag.chat.seen) == asked
    assert "until" not in table.get_item(Key={"id": "t-idle"})["Item"]


# -- conversations ----------------------------------------------------------------------------------------------------


def test_the_same_turn_twice_at_once_is_one_turn(rag):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ask(rag, session="s-twice", turn="t-twice"), range(4)))
    assert len(turns_of(rag, "s-twice")) == 1


def test_two_writers_of_one_turn_leave_one(rag):
    table = sessions_table(rag)
    with ThreadPoolExecutor(8) as pool:
        now = time.time_ns() // 1_000_000
        records = [Record("s-race", "kim", "t-1", "What?", f"Answer {n}.", now + n) for n in range(8)]
        list(pool.map(Sessions(table).keep, records))
    assert len(Sessions(table).turns("s-race", "kim")) == 1


def test_small_talk_costs_nothing_and_a_question_that_begins_with_it_is_one(rag):
    asked = len(rag.chat.seen)
    for said, mode in (("Hello there!", "greeting"), ("thanks a lot", "thanks"), ("What can you do?", "help")):
        found = ask(rag, said, session="s-talk")
        assert found["done"]["mode"] == mode and found["retrieval"]["passages"] == []
        assert found["text"] == found["done"]["answer"] and found["done"]["usage"] == {"input": 0, "output": 0}
    assert len(rag.chat.seen) == asked
    assert ask(rag, f"Hello, {QUESTION}", session="s-talk")["done"]["answer"] == f"{FACT} [1]"
    assert "thanks" not in json.dumps(rag.chat.seen[-1])
    assert [one["question"] for one in turns_of(rag, "s-talk")][:2] == ["Hello there!", "thanks a lot"]


def test_the_history_keeps_to_its_budget_in_any_script():
    long = "鷺は池の畔で静かに立っている" * 60
    said = [("What eats eels?", "Herons."), (long, long), ("And frogs?", "Herons too.")]
    kept, summary = remembered([Record("s", "o", "t", question, answer, 1) for question, answer in said], budget=200)
    assert [one.question for one in kept] == ["And frogs?"]
    assert "What eats eels? Answered: Herons." in summary and "鷺は池" in summary
    assert estimate(summary) <= SUMMARY_TOKENS


def test_a_long_conversation_is_remembered_by_its_end_and_deleted_whole(rag):
    table = sessions_table(rag)
    owner = "visitor:visitor-00000000"
    sessions = Sessions(table)
    now = time.time_ns() // 1_000_000
    filler = "Herons and other birds stand still in the water for long. " * 120
    records = [Record("s-long", owner, f"t-{n}", f"Question {n}?", filler, now - 1_000_000 + n) for n in range(300)]
    with table.batch_writer() as batch:
        for one in records:
            item = {**one.item(), "expires": now // 1_000 + 1_000}
            batch.put_item(item)
            batch.put_item({"session": "s-long", "item": f"turn-id#{one.turn}", "leads": item["item"],
                            "expires": item["expires"]})  # fmt: skip
    sessions.keep(Record("s-long", owner, "t-last", "Which city has the tallest heronry?", "Zwolle.", now))
    ask(rag, "And what does it eat?", session="s-long")
    sent = json.dumps(rag.chat.seen[-1])
    assert "tallest heronry" in sent, "the last turn is not in the prompt"
    assert turns_of(rag, "s-long")[-1]["question"] == "And what does it eat?"
    assert rag.http("AskUrl", "DELETE", "/sessions/s-long", headers=visits("visitor-00000000"))[0] == 204
    left = table.query(
        KeyConditionExpression="#s = :s", ExpressionAttributeNames={"#s": "session"},
        ExpressionAttributeValues={":s": "s-long"},
    )["Items"]  # fmt: skip
    assert [one["item"] for one in left if one["item"].startswith("turn")] == []


def test_a_deleted_conversation_stays_deleted(rag):
    """A turn that is still being answered, or waits in its queue, does not bring it back."""
    ask(rag, session="s-dead")
    rag.chat.says, rag.chat.stop_at = ["The grey heron ", "eats eels and frogs. [1]"], 1
    stream = Stream(rag, session="s-dead", turn="t-late")
    stream.until("token")
    assert rag.http("AskUrl", "DELETE", "/sessions/s-dead", headers=visits("visitor-00000000"))[0] == 204
    rag.chat.go.set()
    assert [name for name, _, _ in stream][-1] == "done"
    assert turns_of(rag, "s-dead") is None
    listed = json.loads(rag.http("AskUrl", "GET", "/sessions", headers=visits("visitor-00000000"))[2])["sessions"]
    assert "s-dead" not in [one["session"] for one in listed]


def test_what_has_expired_is_gone_before_the_table_has_swept_it(rag):
    table = sessions_table(rag)
    owner = "visitor:visitor-33333333"
    Sessions(table).keep(Record("s-old", owner, "t-1", "What?", "That.", time.time_ns() // 1_000_000))
    later = Sessions(table, now_ms=lambda: time.time_ns() // 1_000_000 + 31 * 86_400_000)
    assert later.of(owner)[0] == [] and later.turns("s-old", owner) == []
    assert [one["session"] for one in Sessions(table).of(owner)[0]] == ["s-old"]


def test_two_users_do_not_meet_in_a_session_that_both_begin(rag):
    rag.chat.says, rag.chat.stop_at = ["The grey heron ", "eats eels and frogs. [1]"], 1
    first = Stream(rag, visitor="visitor-44444444", session="s-both")
    first.until("token")
    second = Stream(rag, visitor="visitor-55555555", session="s-both")
    second.until("token")
    rag.chat.go.set()
    list(first), list(second)
    kept = [turns_of(rag, "s-both", one) for one in ("visitor-44444444", "visitor-55555555")]
    assert sorted(len(one) if one else 0 for one in kept) == [0, 1], kept


def test_a_stranger_stops_nobodys_answer(rag):
    rag.chat.says, rag.chat.pause_s = "The grey heron eats " + "eels " * 60, 0.02
    stream = Stream(rag, visitor="visitor-66666666", session="s-stop", turn="t-stop")
    stream.until("token")
    rag.http("AskUrl", "POST", "/turns/t-stop/cancel", {"session": "s-stop"}, visits("visitor-77777777"))
    assert not stream.until("done")["cancelled"]


def test_a_turn_that_is_stopped_stops_the_model_and_is_paid_for(rag):
    key = new_key()
    access = rag.server.resource("dynamodb").Table(rag.outputs["AccessTableName"])
    access.put_item(Item={"id": digest(key), "owner": "payer", "labels": [], "tokens_a_day": 20})
    rag.chat.says, rag.chat.pause_s = "The grey heron eats " + "eels " * 400, 0.02
    mine = {"authorization": f"Bearer {key}"}
    stream = Stream(rag, headers=mine, session="s-pay", turn="t-pay")
    stream.until("token")
    assert rag.http("AskUrl", "POST", "/turns/t-pay/cancel", {"session": "s-pay"}, mine)[0] == 200
    done = stream.until("done")
    assert done["cancelled"] and done["usage"]["input"] > 50 and done["usage"]["output"] >= 4
    wait_for(lambda: Stream(rag, headers=mine).status == 429, what="the budget being used up")


def test_leaving_is_no_way_around_the_budget(rag):
    key = new_key()
    access = rag.server.resource("dynamodb").Table(rag.outputs["AccessTableName"])
    access.put_item(Item={"id": digest(key), "owner": "leaver", "labels": [], "tokens_a_day": 20})
    mine = {"authorization": f"Bearer {key}"}
    stream = Stream(rag, headers=mine)
    stream.until("token")
    stream.close()
    wait_for(lambda: Stream(rag, headers=mine).status == 429, what="the budget being used up")


# -- survive ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"error": "drop"}, {"error": "throttle"}], ids=["drop", "throttle"])
def test_without_the_tables_every_door_says_so_in_json(rag, how):
    session = ask(rag, session="s-doors")["session"]["session"]
    fault(rag, "dynamodb", **how)
    for method, path, body in (
        ("GET", "/sessions", None), ("GET", f"/sessions/{session}", None), ("GET", "/documents", None),
        ("POST", "/turns/t-1/cancel", {"session": session}),
        ("POST", "/turns/t-1/feedback", {"session": session, "rating": "up"}),
    ):  # fmt: skip
        status, headers, answer = rag.http("AskUrl", method, path, body, visits("visitor-00000000"))
        assert status == 503 and json.loads(answer)["message"] and headers["retry-after"], (path, status, answer)


def test_a_follow_up_without_the_tables_is_answered_and_says_what_is_missing(rag):
    ask(rag, session="s-down")
    fault(rag, "dynamodb", error="drop")
    found = ask(rag, "And does it stand still?", session="s-down", turn="t-down")
    assert found["done"]["answer"] and "conversation" in found["done"]["notice"], found["done"]


def test_tables_that_hang_do_not_hold_up_the_answer(rag):
    ask(rag)
    fault(rag, "dynamodb", error="delay", ms=60_000)
    began = time.monotonic()
    stream = Stream(rag)
    stream.until("done")
    told = time.monotonic() - began
    stream.close()
    assert told < 20, told


def test_a_killed_environment_leaves_no_job_in_work_for_ever(rag):
    rag.chat.says, rag.chat.stop_at = ["The grey heron ", "eats eels and frogs. [1]"], 1
    id = submit(rag)[2]["id"]
    wait_for(lambda: rag.chat.inside, what="the question at the model")
    for pid in environments_of(rag):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "Runtime.ExitError" in lines_of(rag, "WorkerFunction"), what="the environment's end")
    rag.chat.go.set()
    wait_for(lambda: not rag.chat.inside, what="the model being left")
    rag.chat.stop_at = None
    assert job(rag, id)[2]["status"] == "working"
    rag.server.advance(VISIBILITY_S)
    last = ended(rag, id)
    assert last["status"] == "done" and last["attempts"] == 2 and "reason" not in last


def lines_of(rag, function):
    logs = rag.server.client("logs")
    groups = [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
    found = [logs.filter_log_events(logGroupName=one)["events"] for one in groups if function in one]
    return "\n".join(event["message"] for events in found for event in events)


def environments_of(rag):
    """The processes of the functions' environments: the children of those that the server forks them from."""

    def children(pid):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    return [pid for zygote in children(rag.server.process.pid) for pid in children(zygote)]


def test_a_slow_search_is_asked_twice_where_the_template_says_so(rag):
    settings = {"GenerationModelId": rag.chat.model, "ModelTimeout": str(MODEL_TIMEOUT_S), "RequestsPerMinute": "0"}
    rag.deploy(**settings, HedgeSearchAfter="0.3")
    try:
        ask(rag)
        took = []
        while len(took) < 3 and min(took, default=3) > 2.5:
            fault(rag, "s3vectors", operation="QueryVectors", error="delay", ms=3_000, count=1)
            began = time.monotonic()
            assert ask(rag)["done"]["mode"] == "hybrid"
            took.append(time.monotonic() - began)
        assert min(took) < 2.5, "every one of three waited for its first search"
    finally:
        rag.deploy(**settings)


def test_a_poisoned_turn_does_not_hold_back_the_others(rag):
    queue = rag.outputs["TurnsQueueUrl"]
    record = Record("s-beside", "visitor:visitor-00000000", "t-1", "What?", "That.", time.time_ns() // 1_000_000)
    entries = [{"Id": "bad", "MessageBody": "{"}, {"Id": "good", "MessageBody": json.dumps(asdict(record))}]
    rag.sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    wait_for(lambda: turns_of(rag, "s-beside"), what="the good turn")
    rag.sqs.purge_queue(QueueUrl=queue)


def struck(rag):
    return sum(one["hits"] for one in json.loads(rag.server.get("/_preheat/faults")[2])["faults"])


def test_only_what_may_pass_is_tried_again(rag):
    calls = {}
    for error in ("deny", "throttle"):
        fault(rag, "bedrock-runtime", operation="ConverseStream", error=error)
        assert ask(rag)["done"]["mode"] == "passages"
        calls[error] = struck(rag)
        rag.server.get("/_preheat/faults", "DELETE")
    assert calls == {"deny": 1, "throttle": 2}


def test_a_turn_that_cannot_be_written_delays_nobody_and_is_written_later(rag):
    ask(rag)
    fault(rag, "dynamodb", operation="PutItem", error="delay", ms=60_000)
    began = time.monotonic()
    stream = Stream(rag, session="s-late", turn="t-late")
    stream.until("done")
    assert time.monotonic() - began < 30
    wait_for(lambda: rag.count("TurnsQueueUrl"), what="the turn in its queue")
    rag.server.get("/_preheat/faults", "DELETE")

    rag.server.advance(181)
    (turn,) = wait_for(lambda: turns_of(rag, "s-late"), what="the turn")
    assert turn["answer"] == f"{FACT} [1]" and turn["status"] == "done"


@pytest.mark.parametrize(("attempts", "status"), [(1, "retrying"), (3, "failed")])
def test_a_job_whose_worker_was_killed_says_so(rag, attempts, status):
    table = rag.server.resource("dynamodb").Table(rag.outputs["JobsTableName"])
    row = {"id": f"killed-{attempts}", "status": "working", "attempts": attempts, "until": int(time.time()) - 1}
    table.put_item(Item={**row, "question": QUESTION})
    found = job(rag, row["id"])[2]
    assert found["status"] == status and "killed" in found["reason"] and "until" not in found


def test_timeouts_one_after_the_other_still_end_before_the_function_does(rag):
    """Every service hangs: the stream ends with an event, not by the function being killed."""
    functions = rag.server.client("lambda")
    name = next(one["FunctionName"] for one in functions.list_functions()["Functions"] if "Ask" in one["FunctionName"])
    functions.update_function_configuration(FunctionName=name, Timeout=20)
    try:
        ask(rag)
        for service in ("bedrock-runtime", "s3vectors", "bedrock-agent-runtime"):
            fault(rag, service, error="delay", ms=60_000)
        fault(rag, "dynamodb", error="delay", ms=1_500)
        events = [name for name, _, _ in Stream(rag, "Which frogs does it eat in March?", session="s-slow")]
        assert events[-1] in ("error", "done"), events
    finally:
        functions.update_function_configuration(FunctionName=name, Timeout=60)


# -- two tiers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"BaselineWorkers": "6", "BurstConcurrency": "6"}, "are 12 questions at once, and DownstreamLimit is 10"),
        ({"QueueConcurrency": "10"}, "QueueConcurrency (10) must be below DownstreamLimit (10)"),
    ],
)
def test_limits_that_contradict_each_other_are_refused_and_nothing_changes(rag, capsys, settings, told):
    client, name = rag.server.client("lambda"), rag.outputs["WorkerFunctionName"]

    def limits():
        (mapping,) = client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
        reserved = client.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"]
        return mapping["EventSourceArn"], mapping["ScalingConfig"]["MaximumConcurrency"], reserved

    before = limits()
    assert before[1] < before[2] == 10
    usual = {"GenerationModelId": rag.chat.model, "ModelTimeout": str(MODEL_TIMEOUT_S), "RequestsPerMinute": "0"}
    with pytest.raises(Exit):
        rag.deploy(**usual, **settings)
    events = rag.server.client("cloudformation").describe_stack_events(StackName="rag")["StackEvents"]
    assert any(told in one.get("ResourceStatusReason", "") for one in events)
    assert limits() == before
    assert ask(rag)["done"]["answer"]


def test_more_baseline_workers_than_places_do_not_start(rag):
    told = {"WORKERS": "3", "BASELINE_WORKERS": "2", "AWS_DEFAULT_REGION": "us-east-1", "PATH": os.environ["PATH"]}
    folder = Path(__file__).resolve().parents[2] / "stacks" / "rag"
    command = [sys.executable, "-m", "baseline"]
    done = subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "places for 2" in done.stderr, done


def test_a_server_that_is_killed_loses_no_question_that_it_accepted(rag):
    rag.chat.pause_s = 0.2
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda number: submit(rag, turn=f"k-{number}", session=f"k-{number}"), range(10)))
    ids = [answer["id"] for status, _, answer in told if status == 202]
    wait_for(lambda: rag.chat.inside, what="questions at the model")
    rag.server.kill()
    rag.server.start()
    rag.chat.pause_s = 0.0
    rag.server.advance(VISIBILITY_S)
    assert len(ids) == 10 and {ended(rag, id)["status"] for id in ids} == {"done"}
    assert all(len(turns_of(rag, id)) == 1 for id in ids) and not rag.count("QuestionsDeadLettersUrl")

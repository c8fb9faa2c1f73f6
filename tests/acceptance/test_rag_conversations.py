"""Conversations of the deployed RAG stack: sessions, turns that are kept once, feedback, keys, limits, uploads."""

import json
import sys
import threading
from pathlib import Path

import pytest

from tests.support.forms import posted
from tests.support.rag import deployed, events_in
from tests.support.server import wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.identity import digest, new_key
from ragkit.sessions import Record, Sessions, remembered

TERN = "# Terns\n\n## Food\n\nTerns eat sand eels.\n\n## Nests\n\nTerns nest on bare shingle.\n"
QUEUE_VISIBILITY_S = 180


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("rag")) as stack:
        stack.put("tern.md", TERN)
        yield stack


class Browser:
    """A visitor, or the holder of an access key."""

    def __init__(self, rag, name="", key=""):
        self.rag = rag
        self.headers = {"authorization": f"Bearer {key}"} if key else {"x-visitor": f"visitor-{name}"}

    def http(self, method, path, body=None):
        status, headers, data = self.rag.http("AskUrl", method, path, body, self.headers)
        return status, headers, json.loads(data) if data else None

    def ask(self, question, **body):
        """The data of the session, and of the other events by name; tokens joined."""
        status, _, data = self.rag.http("AskUrl", "POST", "/ask", {"question": question, **body}, self.headers)
        assert status == 200, data
        found = {}
        for name, told in events_in(data.decode()):
            found.setdefault(name, []).append(told)
        return found


def key_of(rag, owner, labels=(), **allowance):
    key = new_key()
    table = rag.server.resource("dynamodb").Table(rag.outputs["AccessTableName"])
    table.put_item(Item={"id": digest(key), "owner": owner, "labels": list(labels), **allowance})
    return key


def test_a_session_is_kept_and_read_back(rag):
    ann = Browser(rag, "ann-00000000")
    first = ann.ask("What do terns eat?")
    session = first["session"][0]["session"]
    second = ann.ask("And where do they nest?", session=session)
    assert second["session"][0]["session"] == session and second["done"][0]["session"] == session
    status, _, found = ann.http("GET", f"/sessions/{session}")
    assert status == 200 and found["title"] == "What do terns eat?"
    assert [one["question"] for one in found["turns"]] == ["What do terns eat?", "And where do they nest?"]
    assert found["turns"][0]["answer"] == first["done"][0]["answer"]
    assert found["turns"][0]["passages"][0]["document"] == "tern.md"
    assert "shingle" in found["turns"][1]["answer"]
    assert [one["session"] for one in ann.http("GET", "/sessions")[2]["sessions"]] == [session]


def test_a_session_is_its_owners_alone(rag):
    bob, eve = Browser(rag, "bob-00000000"), Browser(rag, "eve-00000000")
    session = bob.ask("What do terns eat?")["session"][0]["session"]
    assert eve.http("GET", "/sessions")[2]["sessions"] == []
    assert eve.http("GET", f"/sessions/{session}")[0] == 404
    assert eve.http("DELETE", f"/sessions/{session}")[0] == 404
    assert eve.http("POST", "/ask", {"question": "And?", "session": session})[0] == 404
    assert bob.http("DELETE", f"/sessions/{session}")[0] == 204
    assert bob.http("GET", f"/sessions/{session}")[0] == 404


def test_the_same_turn_again_is_answered_from_what_is_kept(rag):
    ann = Browser(rag, "cat-00000000")
    first = ann.ask("What do terns eat?", session="s-1", turn="t-1")
    again = ann.ask("What do terns eat?", session="s-1", turn="t-1")
    assert again["done"][0]["mode"] == "kept" and again["done"][0]["answer"] == first["done"][0]["answer"]
    assert len(ann.http("GET", "/sessions/s-1")[2]["turns"]) == 1


def test_a_turn_that_failed_is_replaced_by_its_next_attempt_and_only_then(rag):
    sessions = Sessions(rag.server.resource("dynamodb").Table(rag.outputs["SessionsTableName"]), lambda: 5_000)
    failed = Record("s-9", "kim", "t-9", "What?", "", 1_000, "failed")
    sessions.keep(failed)
    sessions.keep(Record("s-9", "kim", "t-9", "What?", "That.", 2_000))
    sessions.keep(Record("s-9", "kim", "t-9", "What?", "Something else.", 3_000))
    (turn,) = sessions.turns("s-9", "kim")
    assert (turn.answer, turn.status, turn.created) == ("That.", "done", 1_000)


def test_old_turns_are_summarised_to_the_budget():
    records = [Record("s", "o", str(n), f"Question {n}?", f"Answer {n} [1]. More of it.", n) for n in range(20)]
    kept, summary = remembered(records, budget=40)
    assert [one.question for one in kept] == [f"Question {n}?" for n in range(17, 20)]
    assert kept[0].answer == "Answer 17. More of it."
    assert summary.splitlines()[-1] == "Asked: Question 16? Answered: Answer 16."
    assert remembered([Record("s", "o", "1", "Q?", "A " * 900, 1)], budget=40)[0] == ()


def test_feedback_is_kept_with_its_turn(rag):
    ann = Browser(rag, "dan-00000000")
    ann.ask("What do terns eat?", session="s-2", turn="t-2")
    said = {"session": "s-2", "rating": "down", "comment": "too short"}
    assert ann.http("POST", "/turns/t-2/feedback", said)[0] == 200
    assert ann.http("GET", "/sessions/s-2")[2]["turns"][0]["feedback"] == "down"
    assert ann.http("POST", "/turns/t-2/feedback", {**said, "rating": "meh"})[0] == 400
    assert Browser(rag, "eve-00000000").http("POST", "/turns/t-2/feedback", said)[0] == 404


def test_a_key_says_who_asks_and_what_may_be_seen(rag):
    body = b"# Pay\n\nThe keeper earned forty pounds.\n"
    rag.s3.put_object(Bucket=rag.bucket, Key="pay.md", Body=body, Metadata={"labels": "payroll"})
    wait_for(lambda: rag.row("pay.md").get("status") == "indexed", what="the document")
    clerk, stranger = Browser(rag, key=key_of(rag, "clerk", ["payroll"])), Browser(rag, "fay-00000000")
    assert "forty pounds" in clerk.ask("What did the keeper earn?")["done"][0]["answer"]
    shown = stranger.ask("What did the keeper earn?")["retrieval"][0]["passages"]
    assert "pay.md" not in [one["document"] for one in shown]
    assert clerk.http("GET", "/documents/pay.md")[2]["passages"][0]["text"] == "The keeper earned forty pounds."
    assert stranger.http("GET", "/documents/pay.md")[0] == 404
    assert "pay.md" in [one["document"] for one in clerk.http("GET", "/documents")[2]["documents"]]
    assert "pay.md" not in [one["document"] for one in stranger.http("GET", "/documents")[2]["documents"]]
    assert Browser(rag, key="rag-unknown").http("GET", "/sessions")[0] == 401


def test_limits_hold_over_all_environments_and_say_when_to_come_again(rag):
    slow = Browser(rag, key=key_of(rag, "slow", requests_a_minute=2))
    answers = [
        rag.http("AskUrl", "POST", "/ask", {"question": "What do terns eat?"}, slow.headers) for _ in range(6)
    ]
    refused = [one for one in answers if one[0] == 429]
    assert len(refused) >= 2 and {one[0] for one in answers} == {200, 429}
    assert 0 < int(refused[0][1]["retry-after"]) <= 60 and b"2 questions a minute" in refused[0][2]
    poor = Browser(rag, key=key_of(rag, "poor", tokens_a_day=10))
    assert "done" in poor.ask("What do terns eat?")
    status, _, told = poor.http("POST", "/ask", {"question": "What do terns eat?"})
    assert status == 429 and "10 tokens a day" in told["message"]
    assert poor.rag.http("QuestionsUrl", "POST", "/questions", {"question": "?"}, poor.headers)[0] == 429


def test_turns_that_cannot_be_written_are_recovered(tmp_path):
    with deployed(tmp_path) as rag:
        rag.put("tern.md", TERN)
        ann = Browser(rag, "gil-00000000")
        dynamodb, name = rag.server.client("dynamodb"), rag.outputs["SessionsTableName"]
        described = dynamodb.describe_table(TableName=name)["Table"]
        dynamodb.delete_table(TableName=name)
        done = ann.ask("What do terns eat?")
        session = done["session"][0]["session"]
        assert "sand eels" in done["done"][0]["answer"]
        wait_for(lambda: rag.count("TurnsQueueUrl") == 1, what="the turn in the queue")
        (known,) = described["GlobalSecondaryIndexes"]
        index = {name: known[name] for name in ("IndexName", "KeySchema", "Projection")}
        dynamodb.create_table(
            TableName=name, KeySchema=described["KeySchema"], AttributeDefinitions=described["AttributeDefinitions"],
            BillingMode="PAY_PER_REQUEST", GlobalSecondaryIndexes=[index],
        )  # fmt: skip

        def recovered():
            rag.server.advance(QUEUE_VISIBILITY_S)
            return not rag.count("TurnsQueueUrl")

        wait_for(recovered, what="the turn being written")
        (turn,) = ann.http("GET", f"/sessions/{session}")[2]["turns"]
        assert turn["question"] == "What do terns eat?" and "sand eels" in turn["answer"]


def test_a_file_is_uploaded_by_its_own_address_and_indexed(rag):
    ann = Browser(rag, "hal-00000000")
    status, _, place = ann.http("POST", "/uploads", {"name": "skua.md"})
    assert status == 200
    url = rag.platform.at_path(place["url"]) if "amazonaws" in place["url"] else place["url"]
    assert posted(url, place["fields"], b"# Skuas\n\nSkuas steal fish.\n")[0] == 204
    wait_for(lambda: rag.row(place["key"]).get("status") == "indexed", what="the upload")
    assert "steal fish" in ann.ask("What do skuas steal?")["done"][0]["answer"]
    assert ann.http("POST", "/uploads", {"name": "virus.exe"})[0] == 400


def test_one_correlation_id_goes_through_the_queue_to_the_last_line(rag):
    headers = {"x-correlation-id": "case-4711", "x-visitor": "visitor-ida-00000000"}
    status, answered, data = rag.http("QuestionsUrl", "POST", "/questions", {"question": "What do terns eat?"}, headers)
    assert status == 202 and answered["x-correlation-id"] == "case-4711"
    job = json.loads(data)["id"]
    wait_for(
        lambda: json.loads(rag.http("QuestionsUrl", "GET", f"/questions/{job}")[2])["status"] == "done", what="the job"
    )
    logs = rag.server.client("logs")

    def functions():
        found = set()
        for group in logs.describe_log_groups()["logGroups"]:
            events = logs.filter_log_events(logGroupName=group["logGroupName"], filterPattern='"case-4711"')["events"]
            found |= {json.loads(one["message"])["function"].split("-")[1] for one in events}
        return found

    wait_for(lambda: functions() == {"SubmitFunction", "WorkerFunction"}, what="both functions' lines")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "is not JSON"),
        (b"[]", 'send {"question"'),
        ({"question": "x", "session": "a b"}, "`session` is up to 64"),
        ({"question": "x", "where": {"$where": 1}}, "the operators are"),
        ({"question": "x", "where": []}, "is a filter"),
    ],
)
def test_what_cannot_be_asked_is_refused(rag, body, told):
    status, _, data = rag.http("AskUrl", "POST", "/ask", body)
    assert status == 400 and told in json.loads(data)["message"]


def test_a_filter_by_attribute_narrows_and_cannot_widen(rag):
    for team in ("north", "south"):
        rag.s3.put_object(
            Bucket=rag.bucket, Key=f"{team}.md", Body=f"# Boats\n\nThe {team} boat is red.\n".encode(),
            Metadata={"team": team},
        )  # fmt: skip
        wait_for(lambda team=team: rag.row(f"{team}.md").get("status") == "indexed", what="the document")
    ann = Browser(rag, "jon-00000000")
    found = ann.ask("Which boat is red?", where={"team": "north"})["retrieval"][0]["passages"]
    assert [one["document"] for one in found] == ["north.md"]
    wide = {"$or": [{"labels": {"$in": ["payroll"]}}, {"team": "north"}]}
    shown = ann.ask("What did the keeper earn?", where=wide)["retrieval"][0]["passages"]
    assert "pay.md" not in [one["document"] for one in shown]


def test_many_sessions_at_once_do_not_mix(rag):
    answers = {}

    def converse(number):
        visitor = Browser(rag, f"many-{number:08d}")
        session = visitor.ask("What do terns eat?")["session"][0]["session"]
        visitor.ask("Where do they nest?", session=session)
        answers[number] = visitor.http("GET", f"/sessions/{session}")[2]["turns"]

    threads = [threading.Thread(target=converse, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked = {tuple(one["question"] for one in turns) for turns in answers.values()}
    assert len(answers) == 6 and asked == {("What do terns eat?", "Where do they nest?")}

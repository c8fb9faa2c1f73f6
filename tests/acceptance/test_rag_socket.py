"""Questions over the deployed stack's WebSocket: answers pushed by the queue's worker while the model still writes."""

import json

import pytest

from tests.support import chromium
from tests.support.chat import chat_model
from tests.support.rag import deployed
from tests.support.server import wait_for
from tests.support.websocket import Client

HERON = "# Herons\n\n## Food\n\nThe grey heron eats eels and frogs. It stands still.\n"
QUESTION = "What does the grey heron eat?"
FIRST_HALF, SECOND_HALF = "Eels and", " frogs [1]."
WHOLE = FIRST_HALF + SECOND_HALF
IN_A_PAGE = """
(() => {
  const seen = [], socket = new WebSocket(%s);
  socket.onopen = () => socket.send(JSON.stringify({action: "ask", question: %s}));
  socket.onmessage = (message) => {
    const event = JSON.parse(message.data);
    seen.push(event.event);
    if (event.event === "done") window.heard = JSON.stringify({seen, answer: event.answer});
  };
})()
"""


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    with chat_model(tmp_path_factory.mktemp("chat"), "test.pushed") as (chat, models):
        chat.models = models
        yield chat


@pytest.fixture(scope="module")
def rag(tmp_path_factory, chat):
    folder = tmp_path_factory.mktemp("rag")
    with deployed(folder, "--models", str(chat.models), GenerationModelId="test.pushed") as stack:
        stack.put("heron.md", HERON)
        yield stack


@pytest.fixture(autouse=True)
def answers(chat):
    chat.reset()
    chat.says = (FIRST_HALF, SECOND_HALF)
    chat.go.clear()


def path_of(rag):
    """The stage's path, for a client that does not resolve the API's name."""
    url = rag.outputs["SocketUrl"]
    api = url.removeprefix("ws://").partition(".")[0]
    assert url == f"ws://{api}.execute-api.us-east-1.localhost:{rag.server.port}/live"
    path = f"/_aws/execute-api/{api}/live"
    assert rag.platform.at_path(url) == f"ws://127.0.0.1:{rag.server.port}{path}"
    return path


@pytest.fixture
def client(rag):
    client = Client(rag.server.port, path_of(rag))
    yield client
    client.drop()


def until(client, *names):
    """The events up to the first of these names, that one included."""
    events = [client.json()]
    while events[-1]["event"] not in names:
        events.append(client.json())
    return events


def job_of(rag, job):
    return json.loads(rag.http("QuestionsUrl", "GET", f"/questions/{job}")[2])


def test_tokens_are_pushed_while_the_model_still_writes(rag, chat, client):
    chat.stop_at = 1
    client.send({"action": "ask", "question": QUESTION, "correlation": "socket-1"})
    events = until(client, "token")
    if not any(one["event"] == "queued" for one in events):
        events.append(client.json())
    named = {one["event"]: one for one in events}
    assert named["token"]["text"] == FIRST_HALF and chat.inside == 1
    assert named["retrieval"]["passages"][0]["document"] == "heron.md"
    job = named["queued"]["id"]
    assert {one["id"] for one in events} == {job} and job_of(rag, job)["status"] == "working"
    chat.go.set()
    rest = until(client, "done")
    assert "".join(one["text"] for one in rest if one["event"] == "token") == SECOND_HALF
    assert rest[-1]["answer"] == WHOLE and rest[-1]["citations"][0]["n"] == 1
    done = wait_for(lambda: (found := job_of(rag, job))["status"] == "done" and found)
    assert done["answer"] == WHOLE and done["correlation"] == "socket-1"


def test_two_questions_of_one_connection_are_told_apart(rag, client):
    for turn in ("one", "two"):
        client.send({"action": "ask", "question": QUESTION, "turn": f"t-{turn}"})
    seen = {"t-one": [], "t-two": []}
    while [names[-1:] for names in seen.values()] != [["done"], ["done"]]:
        event = client.json()
        if event["event"] != "queued":
            seen[event["id"]].append(event["event"])
    assert all("retrieval" in names and "token" in names for names in seen.values())


def test_a_turn_is_cancelled_over_the_socket(rag, chat, client):
    chat.says, chat.pause_s = WHOLE + " It stands still [1]." * 200, 0.05
    client.send({"action": "ask", "question": QUESTION, "session": "s-1", "turn": "t-1", "visitor": "browser-1"})
    until(client, "token")
    client.send({"action": "cancel", "session": "s-1", "turn": "t-1", "visitor": "browser-1"})
    assert until(client, "cancelling")[-1]["turn"] == "t-1"
    done = until(client, "done")[-1]
    assert done["cancelled"] is True and len(done["answer"]) < len(chat.says) / 2


def test_a_client_that_has_gone_finds_its_answer_by_its_job(rag, chat):
    chat.stop_at = 1
    client = Client(rag.server.port, path_of(rag))
    client.send({"action": "ask", "question": QUESTION, "turn": "t-gone"})
    until(client, "token")
    client.drop()
    chat.go.set()
    done = wait_for(lambda: (found := job_of(rag, "t-gone"))["status"] == "done" and found)
    assert done["answer"] == WHOLE


def test_what_is_refused_is_said(client):
    for sent, status, words in (
        ("no json", 400, "not JSON"),
        ({"action": "sing"}, 400, '"action": "ask"'),
        ({"action": "ask"}, 400, '"question"'),
        ({"action": "ask", "question": QUESTION, "key": "rag-wrong"}, 401, "access key"),
        ({"action": "cancel", "turn": "t-1"}, 400, '"session"'),
        ({"action": "ask", "question": "x" * 30_000}, 400, "2000"),
    ):
        client.send(sent)
        told = client.json()
        assert (told["event"], told["status"]) == ("refused", status) and words in told["message"], told


@pytest.mark.skipif(chromium.FOUND is None, reason="no Chromium")
def test_a_browser_hears_the_answer(rag, tmp_path):
    url = f"ws://localhost:{rag.server.port}{path_of(rag)}"
    browser = chromium.Browser(tmp_path / "profile")
    try:
        browser.open(f"{rag.server.endpoint}/_preheat/health")
        browser.wait("document.readyState === 'complete'")
        browser.evaluate(IN_A_PAGE % (json.dumps(url), json.dumps(QUESTION)))
        found = json.loads(browser.wait("window.heard"))
    finally:
        browser.close()
    assert found["answer"] == WHOLE and {"queued", "retrieval", "token", "done"} <= set(found["seen"])

"""`preheat rag eval` and `preheat rag key` against the deployed stack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from preheat.cli.evaluating import Outcome, difference, f1, ndcg, percentile
from tests.support.rag import deployed
from tests.support.server import wait_for

DOCUMENTS = {
    "heron.md": "# Herons\n\n## Food\n\nThe grey heron eats eels and frogs. It stands still.\n",
    "swift.txt": "Swifts sleep while they fly. They land only to breed.",
    "owl.txt": "The barn owl hunts voles by ear. It is awake at night.",
    "rail.txt": "The water rail squeals like a pig. It hides in reeds.",
}
QUESTIONS = [
    {"id": "eats", "text": "What does the grey heron eat?", "answers": ["eels and frogs"], "relevant": ["heron.md"]},
    {"id": "sleeps", "text": "When do swifts sleep?", "answers": ["while they fly"], "relevant": ["swift.txt"]},
    {"id": "ear", "text": "What does the barn owl hunt by ear?", "answers": ["voles"], "relevant": ["owl.txt"]},
    {
        "id": "later", "text": "And when is it awake?", "answers": ["at night"], "relevant": ["owl.txt"],
        "turns": [{"speaker": "user", "text": "What does the barn owl hunt?"}, {"speaker": "agent", "text": "Voles."}],
    },
    {"id": "none", "text": "Which year did Portugal join the European Union?", "answerable": False},
]  # fmt: skip


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    with deployed(tmp_path_factory.mktemp("rag")) as stack:
        for key, text in DOCUMENTS.items():
            stack.put(key, text)
        yield stack


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return path


def preheat(rag, *arguments, code=0):
    command = [str(Path(sys.executable).parent / "preheat"), "rag", *map(str, arguments), "--port"]
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    done = subprocess.run(
        [*command, str(rag.server.port)], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def test_measures():
    assert f1("The eels, and frogs! [1]", "eels and frogs") == 1 and f1("", "eels") == 0
    assert f1("it eats eels", "eels") == 0.5
    assert ndcg(["a", "b"], frozenset("a")) == 1 and ndcg(["b", "a"], frozenset("a")) == pytest.approx(0.6309, abs=1e-4)
    assert ndcg([], frozenset("a")) == 0 and ndcg(list("abcdefghijk"), frozenset("k")) == 0
    one = [Outcome(str(n), f1=n / 100, total_ms=float(n)) for n in range(100)]
    other = [Outcome(str(n), f1=n / 100 + (0.2 if n % 2 else 0.1)) for n in range(100)]
    mean, low, high = difference(one, other, "f1")
    assert mean == pytest.approx(0.15) and 0.13 < low < mean < high < 0.17
    assert difference(one, other, "total_ms") is None
    assert [percentile(one, "total_ms", share) for share in (0.5, 0.99)] == [49, 98]


def test_a_question_set_is_measured_end_to_end(rag, questions, tmp_path):
    shown = preheat(rag, "eval", questions, "--json", tmp_path / "out.json").stdout
    for title in ("nDCG@10", "recall@10", "answer F1", "citation precision", "abstention accuracy", "USD an answer"):
        assert title in shown
    document = json.loads((tmp_path / "out.json").read_text())["runs"]["rag"]
    assert [one["id"] for one in document["outcomes"]] == [one["id"] for one in QUESTIONS]
    found = {one["id"]: one for one in document["outcomes"]}
    assert found["eats"]["documents"][0] == "heron.md" and len(found["eats"]["documents"]) == len(DOCUMENTS)
    assert (found["eats"]["ndcg"], found["eats"]["recall"], found["eats"]["citations"]) == (1, 1, 1)
    assert found["eats"]["f1"] == pytest.approx(2 * 3 / (6 + 3))
    assert found["later"]["answer"].startswith("It is awake at night.") and found["later"]["cited"] == ["owl.txt"]
    assert not found["none"]["answered"] and found["none"]["abstention"] == 1 and found["none"]["f1"] is None
    total = document["summary"]
    assert total["abstention"] == total["ndcg"] == 1 and total["cost_usd"] == 0 and total["failed"] == 0
    assert 0 < total["first_ms_p50"] <= total["total_ms_p50"] <= total["total_ms_p99"]
    assert found["none"]["output"] == 0 < found["eats"]["output"]


def test_two_configurations_side_by_side_and_the_stack_as_before(rag, questions, tmp_path):
    before = rag.platform.outputs("rag")["IndexRecipe"]
    arguments = ("--parameter", "EmbeddingModelId=none", "--json", tmp_path / "out.json")
    shown = preheat(rag, "eval", questions, *arguments).stdout
    assert "EmbeddingModelId=none" in shown and "difference" in shown
    document = json.loads((tmp_path / "out.json").read_text())
    modes = [{one["mode"] for one in run["outcomes"]} for run in document["runs"].values()]
    assert modes == [{"hybrid"}, {"lexical"}]
    gap = document["differences"]["total_ms"]
    assert gap["low"] <= gap["mean"] <= gap["high"]
    assert rag.platform.outputs("rag")["IndexRecipe"] == before
    wait_for(lambda: rag.ask("When do swifts sleep?")[0][1]["mode"] == "hybrid", what="the index of before")


@pytest.mark.parametrize(
    ("lines", "arguments", "told"),
    [
        ("", (), "has no questions"),
        ("nonsense\n", (), "questions.jsonl:1:"),
        ('{"id": "a"}\n', (), "`id` and `text`"),
        ('{"id": "a", "text": "b", "answers": [1]}\n', (), "lists of texts"),
        ('{"id": "a", "text": "b"}\n{"id": "a", "text": "c"}\n', (), "more than once"),
        ('{"id": "a", "text": "b"}\n', ("--parameter", "NoSuch=1"), "has no parameter NoSuch"),
        ('{"id": "a", "text": "b"}\n', ("--parameter", "x", "--against", "y"), "give one"),
        ('{"id": "a", "text": "b"}\n', ("--stack", "absent"), "absent"),
    ],
)
def test_what_cannot_be_measured_is_said(rag, tmp_path, lines, arguments, told):
    path = tmp_path / "questions.jsonl"
    path.write_text(lines)
    done = preheat(rag, "eval", path, *arguments, code=1 if "--stack" in arguments else 2)
    assert told in done.stderr


def test_a_question_without_an_answer_is_counted_and_told(rag, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"id": "long", "text": "x" * 3_000}) + "\n" + json.dumps(QUESTIONS[0]) + "\n")
    done = preheat(rag, "eval", path, "--json", tmp_path / "out.json", code=1)
    assert "question long: the service answered 400" in done.stderr and "1 questions have no answer" in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["runs"]["rag"]["summary"]["failed"] == 1


def test_a_key_opens_what_its_labels_name(rag):
    secret = "The night heron roosts at the old mill."
    rag.s3.put_object(Bucket=rag.bucket, Key="secret.txt", Body=secret, Metadata={"labels": "wardens"})
    wait_for(lambda: rag.row("secret.txt").get("status") == "indexed", what="the document of the wardens")
    key = preheat(rag, "key", "anna", "--labels", "wardens", "--tokens-per-day", "100000").stdout.strip()
    assert key.startswith("rag-") and len(key) > 30
    body = {"question": "Where does the night heron roost?"}
    assert secret in asked(rag, body, {"authorization": f"Bearer {key}"})[1]
    assert "old mill" not in asked(rag, body, {})[1]
    assert asked(rag, body, {"authorization": f"Bearer {key}x"})[0] == 401
    table = rag.server.resource("dynamodb").Table(rag.outputs["AccessTableName"])
    rows = table.scan()["Items"]
    assert key not in str(rows) and rows[0]["owner"] == "anna" and rows[0]["tokens_a_day"] == 100_000


def asked(rag, body, headers):
    import http.client

    base = rag.platform.at_path(rag.outputs["AskUrl"]).removeprefix(rag.server.endpoint)
    connection = http.client.HTTPConnection("127.0.0.1", rag.server.port, timeout=30)
    try:
        connection.request("POST", base + "ask", json.dumps(body), {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        return answer.status, text
    done = next(line for line in reversed(text.splitlines()) if line.startswith("data: "))
    return answer.status, json.loads(done.removeprefix("data: "))["answer"]

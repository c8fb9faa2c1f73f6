"""Shipping, looked at from outside: a stack of one's own, AWS's models by parameters, permissions of which none is too
many."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from preheat.cli import deploying
from preheat.cli.clients import Platform
from tests.acceptance.test_iam_enforced import EnforcedServer, document
from tests.acceptance.test_new_stack import preheat
from tests.acceptance.test_up import Up
from tests.support.rag import TEMPLATE, RagStack, deployed
from tests.support.server import wait_for

CLAUDE, TITAN, COHERE = (
    "us.anthropic.claude-haiku-4-5-20251001-v1:0", "amazon.titan-embed-text-v2:0", "cohere.embed-multilingual-v3",
)  # fmt: skip
RERANK = "amazon.rerank-v1:0"
MODELS = {
    CLAUDE: {"backend": "extractive"}, TITAN: {"backend": "minilm", "options": {"dimension": 1024}},
    COHERE: {"backend": "minilm", "options": {"dimension": 1024}}, RERANK: {"backend": "late-interaction"},
}  # fmt: skip
TERNS = "# Terns\n\nTerns eat sand eels. They nest on the shingle."
QUESTION = "What do terns eat?"


def refused(server, stack="other", **parameters):
    """What the deployment says, printed and told."""
    command = [str(Path(sys.executable).parent / "preheat"), "deploy", str(TEMPLATE), "--stack", stack]
    given = [f"--parameter={name}={value}" for name, value in parameters.items()]
    done = subprocess.run(
        [*command, *given, "--port", str(server.port)], capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    return done.stderr


# -- a stack of one's own ---------------------------------------------------------------------------------------------


def test_up_in_the_directory_of_a_stack_runs_that_stack_and_its_edits(tmp_path):
    done = preheat("new", "rag", "my-bot", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    bot = tmp_path / "my-bot"
    page = bot / "web" / "index.html"
    page.write_text(page.read_text().replace("<title>Ask your documents</title>", "<title>My bot</title>"))
    up = Up(tmp_path, None, "--stack", "my-bot", cwd=bot)
    try:
        up.serving()
        platform = Platform(f"http://127.0.0.1:{up.port}")
        url = platform.at_path(platform.outputs("my-bot")["AskUrl"])
        assert "<title>My bot</title>" in fetched(url)
        page.write_text(page.read_text().replace("<title>My bot</title>", "<title>Our bot</title>"))
        wait_for(lambda: "<title>Our bot</title>" in fetched(url), what="the edit")
    finally:
        up.stop()


def fetched(url):
    import urllib.request

    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def test_two_stacks_of_the_template_live_side_by_side(aws):
    """Names that are not the stack's own would be taken by the first."""
    platform = Platform(aws.endpoint)
    for name in ("one-bot", "two-bot"):
        assert deploying.deploy(platform, TEMPLATE, name, {"BaselineWorkers": "1"}, lambda event: None)
    assert platform.outputs("one-bot")["AskUrl"] != platform.outputs("two-bot")["AskUrl"]


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"EmbeddingDimension": "0"}, "must be a number not less than 1"),
        ({"EmbeddingModelId": ""}, "EmbeddingModelId"),
        ({"GenerationModelId": ""}, "GenerationModelId"),
        ({"RequestsPerMinute": "-1"}, "must be a number not less than 0"),
        ({"ChunkTarget": "-5"}, "must be a number not less than 16"),
        ({"ChunkOverlap": "500"}, "overlap < target <= longest"),
        ({"RefreshRate": "sometimes"}, "Invalid Schedule Expression"),
        ({"VectorStore": "mongo"}, "AllowedValues"),
        ({"VectorStore": "pgvector"}, "postgresql://HOST:PORT/DATABASE"),
        ({"ModelPrices": "claude=cheap"}, "MODEL=IN/OUT"),
        ({"EmbeddingModelId": "amazon.titan-embed-text-v9:0"}, "amazon.titan-embed-text-v9:0"),
        ({"EmbeddingDimension": "1024"}, "gives vectors of 384 numbers; EmbeddingDimension is 1024"),
    ],
)
def test_a_parameter_that_cannot_work_is_refused_when_the_stack_is_made(aws, parameters, told):
    said = refused(aws, **parameters)
    assert told in said, said


def test_a_stack_that_fails_while_its_index_is_being_made_leaves_none(aws):
    """The deletion waits for the creation, whose index would keep the vector bucket from being deleted."""
    slow = {"service": "bedrock-runtime", "error": "delay", "ms": 4_000}
    assert aws.get("/_preheat/faults", "POST", json.dumps(slow).encode())[0] == 200
    try:
        refused(aws, "late", RefreshRate="sometimes")
    finally:
        aws.get("/_preheat/faults", "DELETE")
    stacks = aws.client("cloudformation")
    assert stacks.describe_stacks(StackName="late")["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE"
    events = stacks.describe_stack_events(StackName="late")["StackEvents"]
    times = {one["ResourceStatus"]: one["Timestamp"] for one in events if one["LogicalResourceId"] == "PassagesIndex"}
    assert (times["DELETE_COMPLETE"] - times["DELETE_IN_PROGRESS"]).total_seconds() > 0.5


# -- AWS's models by parameters ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "models.json"
    path.write_text(json.dumps(MODELS))
    return path


@pytest.mark.parametrize(("embedding", "window", "price"), [(TITAN, "8192", 0.02), (COHERE, "512", 0.1)])
def test_titan_cohere_and_claude_are_chosen_by_parameters_and_priced(tmp_path, models, embedding, window, price):
    """The ids are mapped to local models; what is sent, and what it would cost, is AWS's."""
    parameters = {
        "EmbeddingModelId": embedding, "EmbeddingDimension": "1024", "EmbeddingWindow": window,
        "GenerationModelId": CLAUDE, "RerankModelId": RERANK,
    }  # fmt: skip
    with deployed(tmp_path, "--models", str(models), **parameters) as rag:
        row = rag.put("tern.md", TERNS)
        assert row["model"] == embedding and rag.chunks("tern.md")
        done = dict(rag.ask(QUESTION))["done"]
        assert "sand eels" in done["answer"] and (done["mode"], done["model"]) == ("hybrid", CLAUDE)
        usage = done["usage"]
        written = (usage["input"] * 1.1 + usage["output"] * 5.5) / 1e6
        embedded = done["cost_usd"] - written - 1.0 / 1_000
        assert 0 < embedded < 20 * price / 1e6
        rag.deploy(**parameters, ModelPrices=f"{CLAUDE}=100/200,{embedding}=0,{RERANK}=0")
        dear = wait_for(lambda: other(rag, done["cost_usd"]), what="the other prices")
        usage = dear["usage"]
        assert dear["cost_usd"] == pytest.approx((usage["input"] * 100 + usage["output"] * 200) / 1e6)


def other(rag, cost):
    done = dict(rag.ask(QUESTION))["done"]
    return done if done["cost_usd"] != cost else None


# -- permissions ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def enforced(tmp_path_factory):
    server = EnforcedServer(tmp_path_factory.mktemp("enforced") / "state").start()
    key, secret = server.root()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        yield RagStack(server)
    assert server.stop() == 0


class Role:
    """The role of a function, of whose permissions one at a time can be taken away."""

    def __init__(self, rag, function):
        self.iam = rag.server.client("iam")
        names = [role["RoleName"] for role in self.iam.list_roles()["Roles"]]
        (self.name,) = [name for name in names if f"-{function}" in name]
        (self.policy,) = self.iam.list_role_policies(RoleName=self.name)["PolicyNames"]
        self.whole = self.iam.get_role_policy(RoleName=self.name, PolicyName=self.policy)["PolicyDocument"]

    def lessened(self):
        """(action, resource, statements) without each permission in turn."""
        for at, statement in enumerate(self.whole["Statement"]):
            listed = [one if isinstance(one, list) else [one] for one in (statement["Action"], statement["Resource"])]
            for action in listed[0]:
                left = [one for one in listed[0] if one != action]
                others = self.whole["Statement"][:at] + self.whole["Statement"][at + 1 :]
                yield action, listed[1], [*others, *([{**statement, "Action": left}] if left else [])]

    def put(self, statements):
        nothing = {"Effect": "Deny", "Action": "sqs:PurgeQueue", "Resource": "*"}
        self.iam.put_role_policy(
            RoleName=self.name, PolicyName=self.policy, PolicyDocument=document(*(statements or [nothing]))
        )

    def unneeded(self, works):
        """The permissions without which `works()` is true all the same."""
        try:
            assert works(), "it does not work with all of them"
            found = []
            for action, resource, statements in self.lessened():
                self.put(statements)
                if works():
                    found.append((action, resource))
        finally:
            self.put(self.whole["Statement"])
        return found


def test_the_door_and_the_status_have_no_permission_too_many(enforced):
    """An access key's holder, within limits, without a baseline."""
    made = preheat("rag", "key", "ann", "--port", str(enforced.server.port))
    assert made.returncode == 0, made.stderr
    headers = {"authorization": f"Bearer {made.stdout.strip()}"}
    jobs = []

    def submits():
        status, _, body = enforced.http("QuestionsUrl", "POST", "/questions", {"question": QUESTION}, headers)
        if status == 202:
            jobs.append(json.loads(body)["id"])
        return status == 202 and not warned(enforced, "SubmitFunction")

    assert Role(enforced, "SubmitFunction").unneeded(submits) == []
    status = Role(enforced, "StatusFunction")
    path = f"/questions/{jobs[0]}"
    unneeded = status.unneeded(lambda: enforced.http("QuestionsUrl", "GET", path, headers=headers)[0] == 200)
    assert [action for action, resource in unneeded if "JobsTable" in str(resource)] == []


def warned(rag, function):
    """Whether the function has said that it may not do something since it was asked last."""
    logs = rag.server.client("logs")
    groups = [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
    (group,) = [one for one in groups if f"-{function}" in one]
    events = logs.filter_log_events(logGroupName=group, filterPattern='"not authorized"')["events"]
    before = getattr(warned, group, 0)
    setattr(warned, group, len(events))
    return len(events) > before


# -- a long rebuild ---------------------------------------------------------------------------------------------------


def test_a_rebuild_of_many_rounds_is_not_stopped_as_a_recursive_loop(tmp_path):
    """Lambda stops a function that comes round for the 16th time by its own messages."""
    with deployed(tmp_path) as rag:
        rag.put("tern.md", TERNS)
        fault = {"service": "bedrock-runtime", "operation": "InvokeModel", "error": "deny", "caller": "rag-Ingest"}
        assert rag.server.get("/_preheat/faults", "POST", json.dumps(fault).encode())[0] == 200
        rag.deploy(ChunkTarget="100", ChunkLongest="200", ChunkOverlap="0")
        logs = rag.server.client("logs")
        groups = [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
        (group,) = [one for one in groups if "-MaintainFunction" in one]

        def rounds():
            rag.server.advance(12)
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, filterPattern='"upkeep"')
            return sum(len(page["events"]) for page in pages) > 24

        wait_for(rounds, deadline_s=120, what="eight rounds")
        rag.server.get("/_preheat/faults", "DELETE")

        def switched():
            rag.server.advance(12)
            table = rag.server.resource("dynamodb").Table(rag.outputs["SettingsTableName"])
            return table.get_item(Key={"id": "index"}, ConsistentRead=True)["Item"]["live"]["target"] == 100

        wait_for(switched, deadline_s=120, what="the index of the new sizes")
        assert rag.count("IngestDeadLettersUrl") == 0

"""`preheat new rag NAME`: a team's own copy deploys here as it is, passes AWS's linters, and its packages are small."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from preheat.template.read import parse
from tests.support.clients import cfn_lint, have, sam_cli
from tests.support.server import wait_for

PREHEAT = str(Path(sys.executable).parent / "preheat")
MOST_BYTES = 10_000_000


def preheat(*arguments, **environment):
    return subprocess.run(
        [PREHEAT, *arguments], env={**os.environ, **environment}, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    done = preheat("new", "rag", "support-bot", "--folder", str(folder))
    assert done.returncode == 0, done.stderr
    return folder / "support-bot"


def test_the_copy_stands_alone(stack):
    assert not [path for path in stack.rglob("*") if path.is_symlink()]
    template = (stack / "template.yaml").read_text()
    assert ".." not in template
    assert (stack / "layers" / "python-streaming" / "python" / "preheat_stream" / "runtime" / "loop.py").is_file()
    assert "stacks/" not in (stack / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rag", "Support_Bot"), "lower-case letters"),
        (("chat", "bot"), "there is: rag"),
        (("rag", "support-bot"), "is there already"),
    ],
)
def test_what_cannot_be_made_is_said(stack, arguments, told):
    done = preheat("new", *arguments, "--folder", str(stack.parent))
    assert done.returncode and told in done.stderr


def test_the_copy_deploys_and_answers(stack, fresh_server, tmp_path):
    server = fresh_server()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tern.md").write_text("# Tern\n\nTerns eat sand eels.\n")
    endpoint = {"AWS_ENDPOINT_URL": server.endpoint}
    for command in (
        ("deploy", str(stack), "--stack", "support-bot"),
        ("ingest", str(tmp_path / "docs"), "--stack", "support-bot"),
    ):
        done = preheat(*command, **endpoint)
        assert done.returncode == 0, done.stdout + done.stderr

    def answered():
        done = preheat("ask", "What do terns eat?", "--stack", "support-bot", **endpoint)
        assert done.returncode == 0, done.stdout + done.stderr
        return "sand eels" in done.stdout

    wait_for(answered, what="the answer")


def test_cfn_lint_has_nothing_to_say(stack):
    done = subprocess.run([have(cfn_lint), "template.yaml"], cwd=stack, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sam_validates_and_builds_small_packages(stack, tmp_path):
    sam = have(sam_cli)
    environment = {
        **os.environ, "HOME": str(tmp_path), "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }  # fmt: skip
    for command in (("validate", "--lint"), ("build", "--build-dir", str(tmp_path / "built"))):
        done = subprocess.run(
            [sam, *command], cwd=stack, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    for folder in (tmp_path / "built").iterdir():
        if folder.is_dir():
            packed = Path(shutil.make_archive(str(tmp_path / folder.name), "zip", folder))
            assert packed.stat().st_size < MOST_BYTES, f"{folder.name}: {packed.stat().st_size} bytes"


def test_every_function_may_do_only_what_is_named(stack):
    """No managed policy, no action with a star, no resource that is a bare star."""
    template = parse((stack / "template.yaml").read_text())
    functions = {
        name: one["Properties"]
        for name, one in template["Resources"].items()
        if one["Type"] == "AWS::Serverless::Function"
    }
    assert functions
    for name, properties in functions.items():
        for policy in properties.get("Policies", []):
            assert isinstance(policy, dict) and "Statement" in policy, f"{name}: {policy} is not a policy of its own"
            for statement in policy["Statement"]:
                statement = statement.get("Fn::If", [None, statement])[1]
                actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
                assert all("*" not in action for action in actions), f"{name}: {actions}"
                if actions == ["bedrock:Rerank"]:
                    continue
                shown = yaml.safe_dump(statement["Resource"]).strip().strip("'\"")
                assert shown not in ("*", "- '*'"), f"{name}: {actions} on everything"

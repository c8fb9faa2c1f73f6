"""The SAM CLI's everyday commands against a live server: build, deploy, change, look, delete."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.clients import have, sam_cli
from tests.support.server import wait_for

RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
TEMPLATE = f"""
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Globals:
  Function: {{Runtime: {RUNTIME}, Timeout: 10}}
Resources:
  Hello:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src/
      Handler: app.handler
      Environment: {{Variables: {{TABLE: !Ref Table}}}}
      Policies: [{{DynamoDBCrudPolicy: {{TableName: !Ref Table}}}}]
      Events:
        Root: {{Type: HttpApi, Properties: {{Path: /hello, Method: get}}}}
  Table:
    Type: AWS::Serverless::SimpleTable
Outputs:
  Name: {{Value: !Ref Hello}}
  Table: {{Value: !Ref Table}}
  Url: {{Value: !Sub "https://${{ServerlessHttpApi}}.execute-api.${{AWS::Region}}.amazonaws.com/hello"}}
"""
HANDLER = """
import json, os, boto3

def handler(event, context):
    boto3.client("dynamodb").put_item(TableName=os.environ["TABLE"], Item={"id": {"S": "seen"}})
    print("greeting")
    return {"statusCode": 200, "body": "hello"}
"""


class Sam:
    """`sam("deploy", ...)` is what it printed; `sam.refusal` what it said when it failed."""

    def __init__(self, program: Path, server, project: Path) -> None:
        self._program = program
        self.project = project
        self._environment = {
            **server.environment(), "HOME": str(project), "SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "1",
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        }  # fmt: skip

    def _start(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self._program, *arguments], cwd=self.project, env=self._environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> str:
        done = self._start(arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def refusal(self, *arguments: str) -> str:
        done = self._start(arguments)
        assert done.returncode, done.stdout
        return done.stderr


@pytest.fixture
def aws(fresh_server):
    """A server whose clock nobody has moved: `sam logs` asks for events up to the client's own time."""
    return fresh_server()


@pytest.fixture
def sam(aws, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "requirements.txt").write_text("")
    (tmp_path / "src" / "app.py").write_text(HANDLER)
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    return Sam(have(sam_cli), aws, tmp_path)


def test_a_project_is_built_deployed_changed_and_deleted(sam, aws):
    stack = ("--stack-name", "sam-hello")
    deploy = ("deploy", "--resolve-s3", *stack, "--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset")
    sam("build")
    assert "Successfully created/updated stack - sam-hello" in sam(*deploy)
    shown = json.loads(sam("list", "stack-outputs", *stack, "--output", "json"))
    outputs = {entry["OutputKey"]: entry["OutputValue"] for entry in shown}

    def page() -> tuple[int, bytes]:
        url = urlsplit(outputs["Url"])
        status, _, body = aws.get(url.path, headers={"Host": url.netloc})
        return status, body

    assert page() == (200, b"hello")
    table = aws.client("dynamodb").scan(TableName=outputs["Table"])
    assert table["Items"] == [{"id": {"S": "seen"}}]
    assert "No changes to deploy" in sam.refusal(*deploy)
    source = sam.project / "src" / "app.py"
    source.write_text(HANDLER.replace('"hello"', '"changed"'))
    sam("build")
    assert "* Modify" in sam(*deploy)
    assert page() == (200, b"changed")
    assert json.loads(sam("remote", "invoke", "Hello", *stack)) == {"statusCode": 200, "body": "changed"}
    wait_for(lambda: "greeting" in sam("logs", *stack, "--name", "Hello"), what="the function's log")
    assert "Deleted successfully" in sam("delete", *stack, "--no-prompts", "--region", "us-east-1")
    functions = aws.client("lambda").list_functions()["Functions"]
    assert outputs["Name"] not in [function["FunctionName"] for function in functions]


def test_a_template_that_cannot_be_made_is_refused(sam):
    template = sam.project / "template.yaml"
    template.write_text(TEMPLATE.replace("AWS::Serverless::SimpleTable", "AWS::Nothing::Table"))
    message = sam.refusal(
        "deploy", "--resolve-s3", "--stack-name", "sam-bad", "--capabilities", "CAPABILITY_IAM",
        "--no-confirm-changeset",
    )  # fmt: skip
    assert "AWS::Nothing::Table" in message

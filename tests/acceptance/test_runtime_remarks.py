"""A runtime that is not on this machine is said where a deployer looks: notice, finding, the stack's fidelity."""

import io
import json
import urllib.request
import zipfile

import pytest

from preheat.execution.workers.interpreters import Interpreters

ROLE = "arn:aws:iam::000000000000:role/r"


@pytest.fixture(scope="module")
def absent() -> str:
    interpreters = Interpreters()
    for runtime in ("python3.14", "nodejs24.x", "python3.8", "nodejs16.x"):
        if interpreters.remark(runtime) is not None:
            return runtime
    pytest.skip("every runtime is installed here")


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("app.py", "def handler(event, context):\n    return 1\n")
    return buffer.getvalue()


def look(aws, path: str):
    with urllib.request.urlopen(f"{aws.endpoint}/_preheat/{path}") as response:
        return json.load(response)


def test_create_and_update_tell(aws, absent):
    client = aws.client("lambda")
    client.create_function(
        FunctionName="elsewhere", Runtime=absent, Role=ROLE, Handler="app.handler", Code={"ZipFile": archive()}
    )

    def about() -> list[str]:
        return [one["text"] for one in look(aws, "findings")["findings"] if one["kind"] == "function-runtime"]

    assert any(f"{absent} is not installed here" in text for text in about())
    assert any(f"{absent} is not installed here" in text for text in look(aws, "notices")["notices"])
    client.update_function_configuration(FunctionName="elsewhere", Runtime="python3.11")
    assert not about()
    client.delete_function(FunctionName="elsewhere")


def test_a_stack_reports_it(aws, absent):
    template = {
        "Parameters": {"Which": {"Type": "String", "Default": absent}},
        "Resources": {
            "F": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": {"Ref": "Which"}, "Role": ROLE, "Handler": "index.handler",
                    "Code": {"ZipFile": "def handler(event, context):\n    return 1\n"},
                },
            }
        },
    }  # fmt: skip
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName="elsewhere", TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_create_complete").wait(StackName="elsewhere", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    row = next(row for row in look(aws, "fidelity?stack=elsewhere")["rows"] if row["property"] == "Runtime")
    assert row["effect"] == "approximates" and f"{absent} is not installed here" in row["why"]
    stacks.delete_stack(StackName="elsewhere")

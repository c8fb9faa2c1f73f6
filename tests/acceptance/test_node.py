"""The AWS SDK for JavaScript against a server, and Node functions on AWS's own runtime client."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.clients import NODE_SDK, have, node_runtime, node_sdk
from tests.support.functions import ROLE, make_zip
from tests.support.server import LiveServer

SCRIPT = NODE_SDK.parent / "clients.mjs"
PROMPT = (
    "<passages>\n[1] Limits\nA function runs for at most 15 minutes.\n</passages>\n"
    "<question>How many minutes does a function run at most?</question>"
)
STREAM = "def handler(event, context):\n    for word in event['words']:\n        yield word.encode()\n"


def run_node(server, modules: Path, folder: Path, *parts: str, **variables: str) -> dict:
    """What the script saw of its parts."""
    script = folder / SCRIPT.name
    shutil.copy(SCRIPT, script)
    (folder / "node_modules").symlink_to(modules / "node_modules")
    environment = {**server.environment(), "AWS_REGION": "us-east-1", "HOME": str(folder), **variables}
    done = subprocess.run(
        [shutil.which("node"), script, *parts], env=environment, cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen(aws, tmp_path_factory):
    modules = have(node_sdk)
    client = aws.client("lambda")
    client.create_function(
        FunctionName="node-client", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=20,
        Code={"ZipFile": make_zip({"app.py": STREAM})},
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName="node-client", WaiterConfig={"Delay": 1})
    folder = tmp_path_factory.mktemp("node")
    parts = ("sqs", "s3", "dynamodb", "lambda", "bedrock")
    return run_node(aws, modules, folder, *parts, FUNCTION="node-client", PROMPT=PROMPT)


def test_sqs(seen, aws):
    assert seen["sqs"] == {
        "url": f"{aws.endpoint}/000000000000/node",
        "sent": 2,
        "bodies": ["a", "ü & <b>"],
        "deleted": 2,
        "missing": ["QueueDoesNotExist", 400, "The specified queue does not exist."],
    }


HOSTS = {
    "address": "127.0.0.1",
    "forced": "localhost",
    "host": "node-host.localhost",
    "service": "node-service.s3.localhost",
}


@pytest.mark.parametrize("style", HOSTS)
def test_s3(seen, style):
    assert "error" not in seen["s3"], seen["s3"]
    part = seen["s3"][style]
    assert part["host"] == HOSTS[style]
    assert part["crc"] == part["crcBack"] == "NhCmhg=="
    assert (part["text"], part["signed"], part["metadata"]) == ("hello", "hello", {"color": "red"})
    assert part["keys"] == [["a b/ü.txt", 5], ["large", 6 << 20], ["streamed", 140_000]]
    assert part["same"] and part["partsTag"] == '-2"' and part["put"] == [200, "through a URL"]
    assert part["deleted"] == ["large"]
    assert part["missing"] == ["NoSuchKey", 404, "The specified key does not exist."]
    assert part["missingHead"] == ["NotFound", 404]
    assert part["wrongDigest"] == ["BadDigest", 400]


def test_dynamodb(seen):
    assert seen["dynamodb"] == {
        "tags": ["x", "y"],
        "raw": [0, 255],
        "deep": [{"n": 1.5}, None],
        "hits": 1,
        "found": [2, 3],
        "refused": ["ConditionalCheckFailedException", 400, "The conditional request failed"],
    }


def test_lambda(seen):
    part = seen["lambda"]
    assert part == {
        "status": 200,
        "payload": "a",
        "log": True,
        "chunks": ["first", "second"],
        "complete": True,
        "failed": ["Unhandled", "KeyError"],
        "missing": [
            "ResourceNotFoundException", 404,
            "Function not found: arn:aws:lambda:us-east-1:000000000000:function:node-nowhere:$LATEST",
        ],
    }  # fmt: skip


def test_bedrock(seen):
    part = seen["bedrock"]
    assert part["answer"] == part["streamed"] == "A function runs for at most 15 minutes. [1]"
    assert part["kinds"] == ["messageStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"]
    assert (part["stop"], part["dimensions"]) == ("end_turn", 1024)
    assert part["refused"] == ["ValidationException", 400]


# -- functions ----------------------------------------------------------------------------------------------------

HANDLERS = """
const util = require("node:util");
exports.answer = async (event, context) => {
  console.log("saw", event.n);
  return { twice: 2 * event.n, arn: context.invokedFunctionArn, stage: process.env.STAGE };
};
exports.callback = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = false;
  callback(null, util.format("%s!", event.n));
};
exports.fail = async (event) => { throw new RangeError(`no ${event.n}`); };
exports.stream = awslambda.streamifyResponse(async (event, output, context) => {
  for (const word of ["first ", "second ", "third"]) output.write(word);
  output.end();
});
exports.page = awslambda.streamifyResponse(async (event, output, context) => {
  const head = { statusCode: 201, headers: { "content-type": "text/html", "x-made-by": "node" } };
  output = awslambda.HttpResponseStream.from(output, head);
  output.write("<p>");
  output.end("hello</p>");
});
exports.quit = async () => { process.exit(3); };
"""
MODULE = """
import { readFileSync } from "node:fs";
export const handler = async (event) => ({ module: true, here: readFileSync("./note.txt", "utf8") });
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A server that finds AWS's runtime client; `node(handler, ...)` makes a function and gives its name."""
    folder = have(node_runtime)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join((str(folder / "node_modules" / ".bin"), os.environ["PATH"])))
        server = LiveServer(tmp_path_factory.mktemp("preheat") / "state").start()
    yield server
    assert server.stop() == 0, server.log.read_text()[-4000:]
    assert "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]


def make(server, handler: str, files: dict[str, str] | None = None) -> str:
    name = handler.replace(".", "-")
    client = server.client("lambda")
    client.create_function(
        FunctionName=name, Runtime="nodejs20.x", Handler=handler, Role=ROLE, Timeout=20, MemorySize=512,
        Environment={"Variables": {"STAGE": "test"}}, Code={"ZipFile": make_zip(files or {"index.js": HANDLERS})},
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    return name


def invoke(server, name: str, event: object = None) -> dict:
    return server.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event or {"n": 4}), LogType="Tail")


def test_a_node_function_answers(node):
    name = make(node, "index.answer")
    answer = invoke(node, name)
    assert json.loads(answer["Payload"].read()) == {
        "twice": 8, "arn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}", "stage": "test",
    }  # fmt: skip
    assert "\tINFO\tsaw 4" in base64.b64decode(answer["LogResult"]).decode()
    assert json.loads(invoke(node, make(node, "index.callback"))["Payload"].read()) == "4!"


def test_an_es_module(node):
    name = make(node, "app.handler", {"app.mjs": MODULE, "note.txt": "beside"})
    assert json.loads(invoke(node, name)["Payload"].read()) == {"module": True, "here": "beside"}


def test_node_errors(node):
    failed = invoke(node, make(node, "index.fail"))
    document = json.loads(failed["Payload"].read())
    assert (failed["FunctionError"], document["errorType"], document["errorMessage"]) == (
        "Unhandled", "RangeError", "no 4",
    )  # fmt: skip
    assert any("index.js" in line for line in document["trace"])
    missing = json.loads(invoke(node, make(node, "index.nothing"))["Payload"].read())
    assert missing["errorType"] == "Runtime.HandlerNotFound"
    unknown = json.loads(invoke(node, make(node, "nowhere.handler"))["Payload"].read())
    assert unknown["errorType"] == "Runtime.ImportModuleError"
    quit_answer = json.loads(invoke(node, make(node, "index.quit"))["Payload"].read())
    assert quit_answer["errorType"] == "Runtime.ExitError"


def test_a_node_function_streams(node):
    client = node.client("lambda")
    stream = client.invoke_with_response_stream(FunctionName=make(node, "index.stream"))["EventStream"]
    events = list(stream)
    words = b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)
    assert words == b"first second third" and "InvokeComplete" in events[-1]
    name = make(node, "index.page")
    url = client.create_function_url_config(FunctionName=name, AuthType="NONE", InvokeMode="RESPONSE_STREAM")
    client.add_permission(
        FunctionName=name, StatementId="open", Action="lambda:InvokeFunctionUrl", Principal="*",
        FunctionUrlAuthType="NONE",
    )  # fmt: skip
    status, headers, body = node.get("/", headers={"Host": urlsplit(url["FunctionUrl"]).netloc})
    assert (status, headers["x-made-by"], body) == (201, "node", b"<p>hello</p>")


def test_without_the_runtime_client_the_error_says_what_to_install(fresh_server, tmp_path, monkeypatch):
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node in PATH")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "node").symlink_to(node)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    server = fresh_server()
    answer = invoke(server, make(server, "index.answer"))
    document = json.loads(answer["Payload"].read())
    assert (answer["FunctionError"], document["errorType"]) == ("Unhandled", "Runtime.InvalidEntrypoint")
    assert "npm install aws-lambda-ric" in document["errorMessage"]

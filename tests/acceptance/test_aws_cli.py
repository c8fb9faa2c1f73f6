"""The AWS CLI as people type it, against a live server. Every call is a process of its own."""

import base64
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.clients import aws_cli, have
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

MIB = 1 << 20
NEEDS_URL = ("sqs",)
"""Version 1 of the CLI sends SQS to AWS's legacy host names unless --endpoint-url is given, whatever the environment
says."""
HANDLER = "def handler(event, context):\n    print('saw', event['n'])\n    return {'twice': 2 * event['n']}\n"


class CommandLine:
    """`cli("sqs", "list-queues")` is the parsed output; `cli.text` the printed one; `cli.refusal` the error's."""

    def __init__(self, program: Path, server, home: Path) -> None:
        self._program = program
        self._server = server
        self.home = home
        self._environment = {
            **server.environment(), "HOME": str(home), "AWS_CONFIG_FILE": str(home / "config"), "AWS_MAX_ATTEMPTS": "1",
        }  # fmt: skip

    def start(self, *arguments: str) -> subprocess.CompletedProcess:
        words = [str(argument) for argument in arguments]
        if words[0] in NEEDS_URL:
            words += ["--endpoint-url", self._server.endpoint]
        return subprocess.run(
            [self._program, *words], cwd=self.home, env=self._environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def text(self, *arguments: str) -> str:
        done = self.start(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def __call__(self, *arguments: str):
        output = self.text(*arguments)
        return json.loads(output) if output.strip() else None

    def refusal(self, *arguments: str) -> str:
        done = self.start(*arguments)
        assert done.returncode, f"{arguments} succeeded: {done.stdout}"
        return done.stderr.strip()


@pytest.fixture(scope="module")
def cli(aws, tmp_path_factory):
    return CommandLine(have(aws_cli), aws, tmp_path_factory.mktemp("cli"))


def test_queues(cli):
    url = cli("sqs", "create-queue", "--queue-name", "cli", "--attributes", "VisibilityTimeout=5")["QueueUrl"]
    assert cli.text("sqs", "get-queue-url", "--queue-name", "cli", "--output", "text").strip() == url
    attribute = "Source={StringValue=cli,DataType=String}"
    send = ("sqs", "send-message", "--queue-url", url, "--message-body")
    sent = cli(*send, "häy & <so>", "--message-attributes", attribute)
    got = cli("sqs", "receive-message", "--queue-url", url, "--message-attribute-names", "All")["Messages"][0]
    assert (got["MessageId"], got["Body"]) == (sent["MessageId"], "häy & <so>")
    assert got["MessageAttributes"]["Source"]["StringValue"] == "cli"
    assert cli("sqs", "receive-message", "--queue-url", url) is None
    cli("sqs", "delete-message", "--queue-url", url, "--receipt-handle", got["ReceiptHandle"])
    cli("sqs", "set-queue-attributes", "--queue-url", url, "--attributes", '{"VisibilityTimeout": "7"}')
    cli(*send, "purged")
    cli("sqs", "purge-queue", "--queue-url", url)
    found = cli("sqs", "get-queue-attributes", "--queue-url", url, "--attribute-names", "All")["Attributes"]
    assert (found["VisibilityTimeout"], found["ApproximateNumberOfMessages"]) == ("7", "0")
    cli("sqs", "delete-queue", "--queue-url", url)
    message = cli.refusal("sqs", "get-queue-url", "--queue-name", "cli")
    assert "(AWS.SimpleQueueService.NonExistentQueue) when calling the GetQueueUrl operation" in message
    assert message.endswith("The specified queue does not exist.")


def test_files_in_a_bucket(cli):
    large, copy, tree = cli.home / "large.bin", cli.home / "copy.bin", cli.home / "tree"
    large.write_bytes(os.urandom(9 * MIB + 17))
    for name in ("a.txt", "sub/b.txt", "sub/ü c+d.txt"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert cli.text("s3", "mb", "s3://cli-files") == "make_bucket: cli-files\n"
    assert "BucketAlreadyOwnedByYou" in cli.refusal("s3", "mb", "s3://cli-files", "--region", "eu-west-1")
    cli.text("s3", "cp", large, "s3://cli-files/large.bin", "--no-progress")
    head = cli("s3api", "head-object", "--bucket", "cli-files", "--key", "large.bin")
    assert (head["ContentLength"], head["ETag"][-3:]) == (large.stat().st_size, '-2"')
    cli.text("s3", "cp", "s3://cli-files/large.bin", copy, "--no-progress")
    assert copy.read_bytes() == large.read_bytes()
    cli.text("s3", "cp", "--recursive", tree, "s3://cli-files/tree", "--no-progress")
    listed = cli.text("s3", "ls", "--recursive", "s3://cli-files/tree/")
    assert [line.split(maxsplit=3)[2:] for line in listed.splitlines()] == [
        ["5", "tree/a.txt"], ["9", "tree/sub/b.txt"], ["14", "tree/sub/ü c+d.txt"],
    ]  # fmt: skip
    assert cli.text("s3", "ls", "s3://cli-files").split()[:2] == ["PRE", "tree/"]
    assert cli.text("s3", "sync", tree, "s3://cli-files/tree") == ""
    (tree / "a.txt").write_text("changed")
    (tree / "sub" / "b.txt").unlink()
    changes = cli.text("s3", "sync", "--delete", "--no-progress", tree, "s3://cli-files/tree").splitlines()
    assert sorted(line.split(":")[0] for line in changes) == ["delete", "upload"]
    cli.text("s3", "cp", "s3://cli-files/large.bin", "s3://cli-files/again.bin", "--no-progress")
    cli.text("s3", "mv", "s3://cli-files/tree/a.txt", cli.home / "back.txt", "--no-progress")
    assert (cli.home / "back.txt").read_text() == "changed"
    assert "404" in cli.refusal("s3", "cp", "s3://cli-files/tree/a.txt", cli.home / "never.txt")
    assert "BucketNotEmpty" in cli.refusal("s3", "rb", "s3://cli-files")
    cli.text("s3", "rb", "--force", "s3://cli-files")
    assert "NoSuchBucket" in cli.refusal("s3", "ls", "s3://cli-files")


class Presigned:
    """Fetches URLs as curl does, without a header of its own."""

    def __init__(self, server) -> None:
        self._server = server

    def __call__(self, url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        status, _, answer = self._server.get(url.removeprefix(self._server.endpoint), method, body)
        return status, answer

    def refusal(self, url: str) -> str:
        status, body = self(url)
        assert status == 403, (status, body)
        return re.findall(r"<Code>(\w+)</Code>", body.decode())[0]


def signer(aws, key: dict[str, str], version: str):
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", endpoint_url=aws.endpoint, region_name="us-east-1", aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"], aws_session_token=key["SessionToken"],
        config=Config(signature_version=version),
    )  # fmt: skip


def test_presigned_urls(cli, aws):
    """The session's key is one that the platform issued, so that its signatures are verified."""
    fetch = Presigned(aws)
    cli.text("s3", "mb", "s3://cli-presigned")
    source = cli.home / "page.html"
    source.write_text("<p>signed</p>")
    cli.text("s3", "cp", source, "s3://cli-presigned/a b.html")
    url = cli.text("s3", "presign", "s3://cli-presigned/a b.html", "--expires-in", "60").strip()
    assert fetch(url) == (200, b"<p>signed</p>")
    assume = ("sts", "assume-role", "--role-arn", ROLE, "--role-session-name", "signer")
    key = cli(*assume)["Credentials"]
    for version in ("s3v4", "s3"):
        s3 = signer(aws, key, version)
        name = {"Bucket": "cli-presigned", "Key": f"put {version}"}
        put = s3.generate_presigned_url("put_object", Params=name, ExpiresIn=60)
        assert fetch(put, "PUT", b"body") == (200, b"")
        get = s3.generate_presigned_url("get_object", Params=name, ExpiresIn=60)
        assert fetch(get) == (200, b"body")
        for tampered in (get.replace(f"put%20{version}", "a%20b.html"), get.replace("Signature=", "Signature=0", 1)):
            assert fetch.refusal(tampered) == "SignatureDoesNotMatch", tampered
        assert fetch(get, "PUT", b"other")[0] == 403
        assert fetch(get) == (200, b"body")
        short = s3.generate_presigned_url("get_object", Params=name, ExpiresIn=1)
        wait_for(lambda url=short: fetch(url)[0] == 403, what="the end of the URL")
        assert fetch.refusal(short) == "AccessDenied"


def test_tables(cli):
    cli(
        "dynamodb", "create-table", "--table-name", "cli", "--billing-mode", "PAY_PER_REQUEST",
        "--attribute-definitions", "AttributeName=pk,AttributeType=S", "AttributeName=sk,AttributeType=N",
        "--key-schema", "AttributeName=pk,KeyType=HASH", "AttributeName=sk,KeyType=RANGE",
    )  # fmt: skip
    cli.text("dynamodb", "wait", "table-exists", "--table-name", "cli")
    for number in range(3):
        item = {"pk": {"S": "a"}, "sk": {"N": str(number)}, "tags": {"SS": ["x", "y"]}, "raw": {"B": "AAE="}}
        cli("dynamodb", "put-item", "--table-name", "cli", "--item", json.dumps(item))
    got = cli("dynamodb", "get-item", "--table-name", "cli", "--key", '{"pk": {"S": "a"}, "sk": {"N": "1"}}')["Item"]
    assert got["raw"] == {"B": base64.b64encode(b"AAE=").decode()}, "version 1 takes blobs as they are"
    assert sorted(got["tags"]["SS"]) == ["x", "y"]
    found = cli(
        "dynamodb", "query", "--table-name", "cli", "--key-condition-expression", "pk = :p AND sk > :s",
        "--expression-attribute-values", '{":p": {"S": "a"}, ":s": {"N": "0"}}', "--projection-expression", "#n",
        "--expression-attribute-names", '{"#n": "sk"}', "--no-scan-index-forward",
    )  # fmt: skip
    assert found["Items"] == [{"sk": {"N": "2"}}, {"sk": {"N": "1"}}] and found["ScannedCount"] == 2
    message = cli.refusal(
        "dynamodb", "put-item", "--table-name", "cli", "--item", '{"pk": {"S": "a"}, "sk": {"N": "1"}}',
        "--condition-expression", "attribute_not_exists(pk)",
    )  # fmt: skip
    assert message.endswith(
        "(ConditionalCheckFailedException) when calling the PutItem operation: The conditional request failed"
    )
    assert "ResourceNotFoundException" in cli.refusal("dynamodb", "describe-table", "--table-name", "nowhere")


def test_a_function_and_its_logs(cli):
    package, answer = cli.home / "f.zip", cli.home / "answer.json"
    package.write_bytes(make_zip({"app.py": HANDLER}))
    cli(
        "lambda", "create-function", "--function-name", "cli", "--runtime", "python3.11", "--role", ROLE,
        "--handler", "app.handler", "--zip-file", f"fileb://{package}", "--timeout", "10",
        "--environment", "Variables={STAGE=test}",
    )  # fmt: skip
    cli.text("lambda", "wait", "function-active-v2", "--function-name", "cli")
    invoke = ("lambda", "invoke", "--function-name", "cli", "--payload")
    status = cli(*invoke, '{"n": 21}', "--log-type", "Tail", answer)
    assert status["StatusCode"] == 200 and status["ExecutedVersion"] == "$LATEST"
    assert b"saw 21" in base64.b64decode(status["LogResult"])
    assert json.loads(answer.read_text()) == {"twice": 42}
    package.write_bytes(make_zip({"app.py": HANDLER.replace("2 *", "3 *")}))
    cli("lambda", "update-function-code", "--function-name", "cli", "--zip-file", f"fileb://{package}")
    cli.text("lambda", "wait", "function-updated", "--function-name", "cli")
    cli(*invoke, '{"n": 21}', answer)
    assert json.loads(answer.read_text()) == {"twice": 63}
    assert cli(*invoke, "{}", answer)["FunctionError"] == "Unhandled"
    assert json.loads(answer.read_text())["errorType"] == "KeyError"
    find = ("logs", "filter-log-events", "--log-group-name", "/aws/lambda/cli", "--filter-pattern", '"saw 21"')
    events = wait_for(lambda: (found := cli(*find)["events"]) and len(found) == 2 and found, what="the log events")
    assert [event["message"].strip() for event in events] == ["saw 21", "saw 21"]
    message = cli.refusal("lambda", "get-function", "--function-name", "nobody")
    assert message.endswith(
        "(ResourceNotFoundException) when calling the GetFunction operation: "
        "Function not found: arn:aws:lambda:us-east-1:000000000000:function:nobody"
    )


TEMPLATE = """
Parameters:
  Suffix: {Type: String, Default: one}
Resources:
  Queue:
    Type: AWS::SQS::Queue
    Properties: {QueueName: !Sub "cli-stack-${Suffix}"}
Outputs:
  Url: {Value: !Ref Queue}
"""


def next_second() -> None:
    """The CLI names its change sets after the second."""
    now = int(time.time())
    wait_for(lambda: int(time.time()) > now)


def test_a_stack_is_deployed_changed_and_deleted(cli, aws):
    """`deploy` looks for its end every 30 seconds, so its change set is executed here and looked after more often."""
    template = cli.home / "template.yaml"
    template.write_text(TEMPLATE)
    stacks = ("cloudformation", "describe-stacks", "--stack-name", "cli")
    deploy = ("cloudformation", "deploy", "--stack-name", "cli", "--template-file", template)

    def change(*arguments: str) -> dict:
        printed = cli.text(*deploy, "--no-execute-changeset", *arguments)
        arn = re.search(r"arn:aws:cloudformation:\S+", printed).group()
        shown = cli("cloudformation", "describe-change-set", "--change-set-name", arn)
        cli("cloudformation", "execute-change-set", "--change-set-name", arn)
        wait_for(lambda: cli(*stacks)["Stacks"][0]["StackStatus"].endswith("E_COMPLETE"), what="the stack")
        return shown["Changes"][0]["ResourceChange"]

    assert change()["Action"] == "Add"
    next_second()
    assert "No changes to deploy" in cli.refusal(*deploy)
    next_second()
    assert change("--parameter-overrides", "Suffix=two")["Replacement"] == "True"
    stack = cli(*stacks)["Stacks"][0]
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert stack["Outputs"][0]["OutputValue"] == f"{aws.endpoint}/000000000000/cli-stack-two"
    event = cli("cloudformation", "describe-stack-events", "--stack-name", "cli")["StackEvents"][0]
    assert (event["ResourceStatus"], event["ResourceType"]) == ("UPDATE_COMPLETE", "AWS::CloudFormation::Stack")
    cli("cloudformation", "delete-stack", "--stack-name", "cli")
    message = wait_for(lambda: (done := cli.start(*stacks)).returncode and done.stderr.strip(), what="the deletion")
    assert message.endswith(
        "(ValidationError) when calling the DescribeStacks operation: Stack with id cli does not exist"
    )
    next_second()
    template.write_text("Resources: {Q: {Type: 'AWS::SQS::Nothing'}}")
    assert "AWS::SQS::Nothing" in cli.refusal(*deploy)


def test_identity_and_settings(cli):
    assert cli("sts", "get-caller-identity")["Account"] == "000000000000"
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
    role = cli("iam", "create-role", "--role-name", "cli", "--assume-role-policy-document", json.dumps(trust))["Role"]
    assert role["AssumeRolePolicyDocument"] == trust
    assert "EntityAlreadyExists" in cli.refusal(
        "iam", "create-role", "--role-name", "cli", "--assume-role-policy-document", json.dumps(trust)
    )
    cli("ssm", "put-parameter", "--name", "/cli/a", "--type", "SecureString", "--value", "1")
    found = cli("ssm", "get-parameters-by-path", "--path", "/cli", "--with-decryption")["Parameters"]
    assert [(entry["Name"], entry["Value"]) for entry in found] == [("/cli/a", "1")]
    assert "ParameterNotFound" in cli.refusal("ssm", "get-parameter", "--name", "/cli/none")
    cli("secretsmanager", "create-secret", "--name", "cli", "--secret-string", "hush")
    secret = cli("secretsmanager", "get-secret-value", "--secret-id", "cli")
    assert secret["SecretString"] == "hush" and secret["VersionStages"] == ["AWSCURRENT"]


def test_vectors_apis_and_models(cli):
    cli("s3vectors", "create-vector-bucket", "--vector-bucket-name", "cli-vectors")
    names = ("--vector-bucket-name", "cli-vectors", "--index-name", "cli")
    shape = ("--data-type", "float32", "--dimension", "2", "--distance-metric", "cosine")
    cli("s3vectors", "create-index", *names, *shape)
    rows = [{"key": key, "data": {"float32": value}, "metadata": {"k": key}} for key, value in
            (("east", [1, 0]), ("north", [0, 1]))]  # fmt: skip
    cli("s3vectors", "put-vectors", *names, "--vectors", json.dumps(rows))
    query = ("--query-vector", '{"float32": [0.9, 0.1]}', "--top-k", "1", "--return-metadata", "--return-distance")
    found = cli("s3vectors", "query-vectors", *names, *query)["vectors"]
    assert (found[0]["key"], found[0]["metadata"]) == ("east", {"k": "east"}) and found[0]["distance"] < 0.01
    api = cli("apigatewayv2", "create-api", "--name", "cli", "--protocol-type", "HTTP")
    cli("apigatewayv2", "create-stage", "--api-id", api["ApiId"], "--stage-name", "$default", "--auto-deploy")
    assert cli("apigatewayv2", "get-api", "--api-id", api["ApiId"])["ApiEndpoint"] == api["ApiEndpoint"]
    assert "NotFoundException" in cli.refusal("apigatewayv2", "get-api", "--api-id", "nothing")
    message = "<passages>\n[1] Limits\nA function runs for at most 15 minutes.\n</passages>\n" \
              "<question>How many minutes may a function run?</question>"  # fmt: skip
    answer = cli(
        "bedrock-runtime", "converse", "--model-id", "preheat.extractive-v1",
        "--messages", json.dumps([{"role": "user", "content": [{"text": message}]}]),
    )  # fmt: skip
    assert "15 minutes" in answer["output"]["message"]["content"][0]["text"]
    target = cli.home / "embedding.json"
    invoke = ("bedrock-runtime", "invoke-model", "--body", '{"inputText": "warm"}', "--model-id")
    cli(*invoke, "preheat.hashing-1024", target)
    assert len(json.loads(target.read_text())["embedding"]) == 1024
    assert "ValidationException" in cli.refusal(*invoke, "preheat.nothing", target)

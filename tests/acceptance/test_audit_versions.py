"""Versions, aliases, qualifiers, layers and destinations, claim by claim, as an audit put them to a live server."""

import http.client
import json
import math
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"
SAY = "def handler(event, context):\n    return [{mark!r}, context.function_version, context.invoked_function_arn]\n"
FUNCTIONS_ONLY = "This operation is permitted on Lambda functions only. Aliases and versions do not support this"
GRANT = {"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
STALE = "00000000-0000-4000-8000-000000000000"
INVOKES, CALLERS, PIPELINED = 10_000, 4, 25


def code(mark):
    return make_zip({"app.py": SAY.format(mark=mark)})


@pytest.fixture
def client(aws):
    return aws.client("lambda", parameter_validation=False)


def create(client, name, mark="one", **settings):
    given = {
        "FunctionName": name, "Runtime": "python3.11", "Handler": "app.handler", "Role": ROLE,
        "Code": {"ZipFile": code(mark)},
    }  # fmt: skip
    return client.create_function(**{**given, **settings})


def call(client, name, payload=b"{}", **params):
    return json.loads(client.invoke(FunctionName=name, Payload=payload, **params)["Payload"].read())


def refusal(operation, **params):
    """(status, code, message) of the error."""
    with pytest.raises(ClientError) as caught:
        operation(**params)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


# -- versions ---------------------------------------------------------------------------------------------------------


def test_states_are_what_the_waiters_wait_for(client):
    made = create(client, "states")
    assert (made["State"], made["StateReasonCode"]) == ("Pending", "Creating") and "LastUpdateStatus" not in made
    for waiter in ("function_exists", "function_active", "function_active_v2"):
        client.get_waiter(waiter).wait(FunctionName="states", WaiterConfig={"Delay": 1})
    changed = client.update_function_configuration(FunctionName="states", Timeout=5)
    assert (changed["State"], changed["LastUpdateStatus"]) == ("Active", "InProgress")
    assert changed["LastUpdateStatusReasonCode"] == "Creating"
    for waiter in ("function_updated", "function_updated_v2"):
        client.get_waiter(waiter).wait(FunctionName="states", WaiterConfig={"Delay": 1})
    published = client.publish_version(FunctionName="states")
    assert (published["State"], published["LastUpdateStatus"]) == ("Active", "Successful")
    assert published["ResponseMetadata"]["HTTPStatusCode"] == 201
    client.get_waiter("published_version_active").wait(
        FunctionName="states", Qualifier="1", WaiterConfig={"Delay": 1}
    )
    found = client.get_function_configuration(FunctionName="states")
    assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful") and "StateReason" not in found


def test_only_code_and_configuration_make_a_version(client):
    create(client, "counted")
    first = client.publish_version(FunctionName="counted", Description="first")
    assert (first["Version"], first["Description"], first["FunctionArn"]) == ("1", "first", f"{ARN}counted:1")
    again = client.publish_version(FunctionName="counted", Description="another description")
    assert (again["Version"], again["Description"]) == ("1", "first")
    client.update_function_configuration(FunctionName="counted", Description="of the function")
    assert client.publish_version(FunctionName="counted")["Version"] == "2"
    client.update_function_configuration(FunctionName="counted", Environment={"Variables": {"AB": "c"}})
    assert client.publish_version(FunctionName="counted", CodeSha256=first["CodeSha256"])["Version"] == "3"
    fourth = client.update_function_code(FunctionName="counted", ZipFile=code("two"), Publish=True)
    assert fourth["Version"] == "4" and fourth["CodeSha256"] != first["CodeSha256"]
    assert client.update_function_code(FunctionName="counted", ZipFile=code("two"), Publish=True)["Version"] == "4"
    old = client.get_function_configuration(FunctionName="counted:1")
    assert old["CodeSha256"] == first["CodeSha256"] and "Environment" not in old and old["Description"] == "first"
    assert [call(client, f"counted:{n}")[:2] for n in ("1", "4", "$LATEST")] == [
        ["one", "1"], ["two", "4"], ["two", "$LATEST"],
    ]  # fmt: skip
    client.delete_function(FunctionName="counted", Qualifier="4")
    client.update_function_configuration(FunctionName="counted", MemorySize=256)
    assert client.publish_version(FunctionName="counted")["Version"] == "5", "a number was used again"
    dry = client.update_function_code(FunctionName="counted", ZipFile=code("dry"), DryRun=True, Publish=True)
    latest = client.get_function_configuration(FunctionName="counted")
    assert dry["Version"] == "$LATEST" and dry["CodeSha256"] != latest["CodeSha256"] == fourth["CodeSha256"]
    new = create(client, "counted-new", Publish=True)
    assert (new["FunctionArn"], new["Version"]) == (f"{ARN}counted-new", "1")


def test_preconditions(client):
    create(client, "guarded")
    revision = client.get_function_configuration(FunctionName="guarded")["RevisionId"]
    for operation, params in (
        (client.publish_version, {}),
        (client.update_function_configuration, {"Timeout": 4}),
        (client.update_function_code, {"ZipFile": code("no")}),
        (client.add_permission, {"StatementId": "s", **GRANT}),
    ):
        status, error, text = refusal(operation, FunctionName="guarded", RevisionId=STALE, **params)
        assert (status, error) == (412, "PreconditionFailedException"), operation
        assert text.startswith("The Revision Id provided does not match the latest Revision Id.")
    status, error, text = refusal(client.publish_version, FunctionName="guarded", CodeSha256="x" * 44)
    assert (status, error) == (400, "InvalidParameterValueException")
    assert text.endswith("Please try again with the CodeSHA256 in $LATEST.")
    assert client.get_function_configuration(FunctionName="guarded")["RevisionId"] == revision
    assert client.publish_version(FunctionName="guarded", RevisionId=revision)["RevisionId"] != revision


def test_every_change_makes_a_revision_and_so_does_its_completion(client):
    made = create(client, "revised")["RevisionId"]
    def now(qualifier="$LATEST"):
        return client.get_function_configuration(FunctionName="revised", Qualifier=qualifier)["RevisionId"]

    seen = [made, now()]
    client.add_permission(FunctionName="revised", StatementId="a", **GRANT)
    seen.append(client.get_policy(FunctionName="revised")["RevisionId"])
    assert now() == seen[-1]
    seen += [client.update_function_configuration(FunctionName="revised", Timeout=9)["RevisionId"], now()]
    client.add_permission(FunctionName="revised", StatementId="b", **GRANT)
    seen.append(now())
    published = client.publish_version(FunctionName="revised")["RevisionId"]
    assert published == now("1")
    seen.append(now())
    assert client.publish_version(FunctionName="revised")["RevisionId"] == published and now() == seen[-1]
    seen += [client.update_function_code(FunctionName="revised", ZipFile=code("two"))["RevisionId"], now()]
    client.tag_resource(Resource=f"{ARN}revised", Tags={"a": "b"})
    seen.append(now())
    assert len({*seen, published}) == len(seen) + 1


def test_a_function_that_is_made_again_goes_on_with_its_numbers_and_keeps_nothing_else(aws, client):
    create(client, "again", Publish=True)
    client.create_alias(FunctionName="again", Name="live", FunctionVersion="1")
    client.add_permission(FunctionName="again", StatementId="s", **GRANT)
    url = client.create_function_url_config(FunctionName="again", AuthType="NONE")["FunctionUrl"]
    client.delete_function(FunctionName="again")
    assert refusal(client.invoke, FunctionName="again:live")[0] == 404
    assert aws.get("/", headers={"Host": url.partition("://")[2].rstrip("/")})[0] == 403
    assert create(client, "again", Publish=True)["Version"] == "2"
    assert client.list_aliases(FunctionName="again")["Aliases"] == []
    assert refusal(client.get_policy, FunctionName="again")[0] == 404
    assert refusal(client.get_function_url_config, FunctionName="again")[0] == 404


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("StatementId", "a b"), ("Action", "s3:Get"), ("FunctionUrlAuthType", "X"), ("SourceAccount", "12"),
        ("SourceArn", "nonsense"), ("EventSourceToken", "a b"), ("PrincipalOrgID", "org"),
    ],
)  # fmt: skip
def test_permissions_that_are_refused(client, two, member, value):
    found = refusal(client.add_permission, **{"FunctionName": "two", "StatementId": "s", **GRANT, member: value})
    assert found[:2] == (400, "ValidationException") and f"'{member[0].lower()}{member[1:]}'" in found[2]
    assert refusal(client.get_policy, FunctionName="two")[0] == 404


def test_a_version_of_code_that_is_run_in_place_is_a_copy(client, tmp_path):
    source = tmp_path / "app.py"
    source.write_text(SAY.format(mark="before"))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "left.pyc").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    create(client, "placed-copy", Code={"S3Bucket": "preheat-local", "S3Key": str(tmp_path)}, Publish=True)
    assert client.publish_version(FunctionName="placed-copy")["Version"] == "1"
    source.write_text(SAY.format(mark="after the edit"))
    wait_for(lambda: call(client, "placed-copy")[0] == "after the edit", what="the edit")
    assert call(client, "placed-copy:1")[:2] == ["before", "1"]
    second = client.publish_version(FunctionName="placed-copy")
    assert second["Version"] == "2" and second["CodeSize"] > 0
    first = client.get_function_configuration(FunctionName="placed-copy:1")
    assert first["CodeSha256"] != second["CodeSha256"]
    source.write_text(SAY.format(mark="once more"))
    assert call(client, "placed-copy:2")[0] == "after the edit" and call(client, "placed-copy:1")[0] == "before"


TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Globals: {Function: {AutoPublishAlias: live}}
Resources:
  Fn:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: auto-published
      Runtime: python3.11
      Handler: app.handler
      CodeUri: src
"""


def test_an_edit_of_local_code_publishes_behind_its_alias_when_it_is_deployed(aws, client, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "template.yaml").write_text(TEMPLATE)

    def deploy(mark):
        (tmp_path / "src" / "app.py").write_text(SAY.format(mark=mark))
        preheat = str(Path(sys.executable).parent / "preheat")
        command = [preheat, "deploy", str(tmp_path), "--stack", "auto-published", "--port", str(aws.port)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stdout + said.stderr
        return call(client, "auto-published:live")[:2]

    assert deploy("first") == ["first", "1"]
    assert deploy("first") == ["first", "1"], "nothing had changed"
    assert deploy("second") == ["second", "2"]
    assert call(client, "auto-published:1")[:2] == ["first", "1"]


# -- aliases ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(aws):
    """A function with versions 1 and 2."""
    client = aws.client("lambda", parameter_validation=False)
    create(client, "two", Publish=True)
    client.update_function_code(FunctionName="two", ZipFile=code("two"), Publish=True)
    client.create_alias(FunctionName="two", Name="head", FunctionVersion="$LATEST")
    client.create_alias(FunctionName="two", Name="live", FunctionVersion="1", Description="kept")
    return client


INVOKE = b"POST /2015-03-31/functions/two/invocations?Qualifier=weighted HTTP/1.1\r\n"
REQUEST = INVOKE + b"Host: x\r\nContent-Length: 2\r\n\r\n{}"


def executed(port, count):
    """How often each version answered `count` plain requests, `PIPELINED` at a time on one connection."""
    found = {}
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        answers = connection.makefile("rb")
        for begun in range(0, count, PIPELINED):
            batch = min(PIPELINED, count - begun)
            connection.sendall(REQUEST * batch)
            for _ in range(batch):
                assert answers.readline().split()[1] == b"200"
                headers = http.client.parse_headers(answers)
                version = headers["x-amz-executed-version"]
                body = json.loads(answers.read(int(headers["content-length"])))
                assert body[1:] == [version, f"{ARN}two:weighted"]
                found[version] = found.get(version, 0) + 1
    return found


def test_ten_thousand_invokes_are_divided_by_weight(aws, two):
    weight = 0.13
    routing = {"AdditionalVersionWeights": {"2": weight}}
    two.create_alias(FunctionName="two", Name="weighted", FunctionVersion="1", RoutingConfig=routing)
    with ThreadPoolExecutor(CALLERS) as callers:
        counts = list(callers.map(lambda _: executed(aws.port, INVOKES // CALLERS), range(CALLERS)))
    second = sum(one.get("2", 0) for one in counts)
    assert sum(sum(one.values()) for one in counts) == INVOKES
    assert abs(second - INVOKES * weight) < 5 * math.sqrt(INVOKES * weight * (1 - weight))
    for weight, version in ((0.0, "1"), (1.0, "2")):
        two.update_alias(
            FunctionName="two", Name="weighted", RoutingConfig={"AdditionalVersionWeights": {"2": weight}}
        )
        assert executed(aws.port, 50) == {version: 50}


@pytest.mark.parametrize(
    ("name", "version", "weights", "error", "text"),
    [
        ("live", "1", {}, "ResourceConflictException", "Alias already exists: "),
        ("123", "1", {}, "ValidationException", "at 'name' failed"),
        ("new", "9", {}, "ResourceNotFoundException", "Function not found: "),
        ("new", "head", {}, "ValidationException", "at 'functionVersion' failed"),
        ("new", "1", {"2": 0.1, "9": 0.1}, "InvalidParameterValueException", "cannot be greater than 1"),
        ("new", "1", {"2": 1.1}, "ValidationException", "value less than or equal to 1.0"),
        ("new", "1", {"2": -0.1}, "ValidationException", "value greater than or equal to 0.0"),
        ("new", "1", {"1": 0.1}, "InvalidParameterValueException", "is already included in routing"),
        ("new", "1", {"9": 0.1}, "ResourceNotFoundException", "Function not found: "),
        ("new", "1", {"$LATEST": 0.1}, "ValidationException", "[0-9]+"),
        ("new", "$LATEST", {"1": 0.1}, "InvalidParameterValueException", "$LATEST is not supported for an alias"),
    ],
)
def test_aliases_that_are_refused(two, name, version, weights, error, text):
    found = refusal(
        two.create_alias, FunctionName="two", Name=name, FunctionVersion=version,
        RoutingConfig={"AdditionalVersionWeights": weights},
    )  # fmt: skip
    assert found[1] == error and text in found[2]
    assert {one["Name"] for one in two.list_aliases(FunctionName="two")["Aliases"]} <= {"head", "live", "weighted"}


def test_an_alias_keeps_what_an_update_does_not_name(two):
    before = two.get_alias(FunctionName="two", Name="live")
    assert refusal(two.update_alias, FunctionName="two", Name="live", RevisionId=STALE)[0] == 412
    after = two.update_alias(
        FunctionName="two", Name="live", FunctionVersion="2", RevisionId=before["RevisionId"]
    )
    assert (after["FunctionVersion"], after["Description"]) == ("2", "kept")
    assert after["RevisionId"] != before["RevisionId"] and call(two, "two:live")[1] == "2"
    two.update_alias(FunctionName="two", Name="live", FunctionVersion="1")
    assert refusal(two.update_alias, FunctionName="two", Name="none")[:2] == (404, "ResourceNotFoundException")
    assert refusal(two.get_alias, FunctionName="two", Name="none")[2] == f"Cannot find alias arn: {ARN}two:none"
    assert refusal(two.delete_function, FunctionName="two", Qualifier="live")[0] == 400


# -- qualifiers -------------------------------------------------------------------------------------------------------


def test_a_qualifier_of_the_name_must_agree_with_the_other_one(two):
    operations = [
        (two.invoke, {}), (two.get_function, {}), (two.get_function_configuration, {}), (two.get_policy, {}),
        (two.add_permission, {"StatementId": "s", **GRANT}), (two.remove_permission, {"StatementId": "s"}),
        (two.put_provisioned_concurrency_config, {"ProvisionedConcurrentExecutions": 1}),
        (two.get_provisioned_concurrency_config, {}), (two.delete_provisioned_concurrency_config, {}),
        (two.put_function_event_invoke_config, {"MaximumRetryAttempts": 1}), (two.get_function_event_invoke_config, {}),
        (two.create_function_url_config, {"AuthType": "NONE"}), (two.get_function_url_config, {}),
        (two.invoke_with_response_stream, {}), (two.delete_function, {}), (two.get_runtime_management_config, {}),
    ]  # fmt: skip
    text = "The derived qualifier from the function name does not match the specified qualifier."
    for name in ("two:live", f"{ARN}two:live", "000000000000:two:live"):
        for operation, params in operations:
            found = refusal(operation, FunctionName=name, Qualifier="head", **params)
            assert found == (400, "InvalidParameterValueException", text), (name, operation)


@pytest.mark.parametrize("name", ["two:live", f"{ARN}two:live", "000000000000:function:two:live"])
def test_a_qualified_name_stands_wherever_a_qualifier_may(two, name):
    assert call(two, name)[1] == "1"
    assert two.get_function(FunctionName=name)["Configuration"]["FunctionArn"] == f"{ARN}two:live"
    assert two.get_function_configuration(FunctionName=name)["Version"] == "1"
    before = two.get_alias(FunctionName="two", Name="live")["RevisionId"]
    two.add_permission(FunctionName=name, RevisionId=before, StatementId="s", **GRANT)
    policy = two.get_policy(FunctionName="two", Qualifier="live")
    assert json.loads(policy["Policy"])["Statement"][0]["Resource"] == f"{ARN}two:live"
    assert policy["RevisionId"] == two.get_alias(FunctionName="two", Name="live")["RevisionId"] != before
    assert refusal(two.remove_permission, FunctionName=name, StatementId="s", RevisionId=before)[0] == 412
    two.remove_permission(FunctionName=name, StatementId="s", RevisionId=policy["RevisionId"])
    two.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1)
    held = two.list_function_event_invoke_configs(FunctionName="two")["FunctionEventInvokeConfigs"]
    assert [one["FunctionArn"] for one in held] == [f"{ARN}two:live"]
    two.delete_function_event_invoke_config(FunctionName="two", Qualifier="live")
    two.create_function_url_config(FunctionName=name, AuthType="NONE")
    assert two.get_function_url_config(FunctionName="two", Qualifier="live")["FunctionArn"] == f"{ARN}two:live"
    two.delete_function_url_config(FunctionName=name)
    two.put_provisioned_concurrency_config(FunctionName=name, ProvisionedConcurrentExecutions=1, Qualifier="live")
    under = refusal(
        two.put_provisioned_concurrency_config, FunctionName="two", Qualifier="1", ProvisionedConcurrentExecutions=1
    )
    assert under[1:] == ("ResourceConflictException", "Version is pointed by a Provisioned Concurrency alias")
    two.delete_provisioned_concurrency_config(FunctionName="two", Qualifier="live")


def test_where_versions_and_aliases_may_not_stand(two):
    for name in ("two:live", "two:1", f"{ARN}two:live"):
        for operation, params in (
            (two.put_function_concurrency, {"ReservedConcurrentExecutions": 1}),
            (two.delete_function_concurrency, {}),
            (two.update_function_configuration, {"Timeout": 5}),
            (two.update_function_code, {"ZipFile": code("no")}),
        ):
            assert refusal(operation, FunctionName=name, **params)[2].startswith(FUNCTIONS_ONLY), (name, operation)
        found = refusal(two.put_function_recursion_config, FunctionName=name, RecursiveLoop="Allow")
        assert found[1] == "ValidationException" and "at 'functionName'" in found[2]
    assert refusal(
        two.put_provisioned_concurrency_config, FunctionName="two", Qualifier="$LATEST",
        ProvisionedConcurrentExecutions=1,
    )[2] == "Provisioned Concurrency Configs cannot be applied to unpublished function versions."  # fmt: skip
    found = refusal(two.add_permission, FunctionName="two", Qualifier="$LATEST", StatementId="s", **GRANT)
    assert found[2] == "We currently do not support adding policies for $LATEST."
    for qualifier in ("1", "$LATEST"):
        by_name = refusal(two.create_function_url_config, FunctionName=f"two:{qualifier}", AuthType="NONE")
        assert by_name[1] == "ValidationException" and "at 'functionName'" in by_name[2]
        by_member = refusal(two.create_function_url_config, FunctionName="two", Qualifier=qualifier, AuthType="NONE")
        assert by_member[1] == "ValidationException" and "at 'qualifier'" in by_member[2]
    assert "Tags on function aliases" in refusal(two.tag_resource, Resource=f"{ARN}two:live", Tags={"a": "b"})[2]
    found = refusal(two.get_function, FunctionName="two", Qualifier="q" * 129)
    assert found[1] == "ValidationException" and "length less than or equal to 128" in found[2]
    assert refusal(two.invoke, FunctionName="two:none") == (
        404, "ResourceNotFoundException", f"Function not found: {ARN}two:none",
    )  # fmt: skip


def test_a_mapping_stands_at_an_alias_or_a_version(aws, two):
    queue = f"{QUEUE}audit-two"
    aws.client("sqs").create_queue(QueueName="audit-two")
    made = [
        two.create_event_source_mapping(FunctionName=name, EventSourceArn=queue, Enabled=False)
        for name in ("two:live", f"{ARN}two:2")
    ]
    assert [one["FunctionArn"] for one in made] == [f"{ARN}two:live", f"{ARN}two:2"]
    found = two.list_event_source_mappings(FunctionName="two:live")["EventSourceMappings"]
    assert [one["UUID"] for one in found] == [made[0]["UUID"]]
    again = refusal(two.create_event_source_mapping, FunctionName="two:live", EventSourceArn=queue)
    assert again[1] == "ResourceConflictException" and made[0]["UUID"] in again[2]
    assert refusal(two.create_event_source_mapping, FunctionName="two:none", EventSourceArn=queue) == (
        400, "InvalidParameterValueException", "Function does not exist",
    )  # fmt: skip
    for one in made:
        two.delete_event_source_mapping(UUID=one["UUID"])


# -- layers and the environment ---------------------------------------------------------------------------------------

EVAL = "import os, sys\ndef handler(event, context):\n    return eval(event['e'])\n"


def evaluate(client, name, text):
    return call(client, name, json.dumps({"e": text}).encode())


def layer(client, name, files):
    return client.publish_layer_version(LayerName=name, Content={"ZipFile": make_zip(files)})["LayerVersionArn"]


def test_layers_are_merged_in_order_and_a_deleted_version_stays_with_its_functions(client):
    first = layer(client, "audit-a", {
        "python/one.py": "V = 'a'\n", "python/lib/python3.11/site-packages/two.py": "V = 'site'\n", "data": "a",
        "bin/tool": "",
    })  # fmt: skip
    second = layer(client, "audit-b", {"python/one.py": "V = 'b'\n", "data": "b", "deep/er": "b"})
    text = "[__import__('one').V, __import__('two').V, open('/opt/data').read(), sorted(os.listdir('/opt'))]"
    for name, layers, expected in (("layered-ab", [first, second], "b"), ("layered-ba", [second, first], "a")):
        create(client, name, Code={"ZipFile": make_zip({"app.py": EVAL})}, Layers=layers)
        folders = ["bin", "data", "deep", "python"]
        assert evaluate(client, name, text) == [expected, "site", expected, folders]
    own = make_zip({"app.py": EVAL, "one.py": "V = 'own'\n"})
    create(client, "layered-own", Code={"ZipFile": own}, Layers=[first])
    assert evaluate(client, "layered-own", "__import__('one').V") == "own"
    client.delete_layer_version(LayerName="audit-a", VersionNumber=1)
    assert refusal(client.get_layer_version, LayerName="audit-a", VersionNumber=1)[0] == 404
    client.update_function_configuration(FunctionName="layered-ab", Environment={"Variables": {"NEW": "1"}})
    assert evaluate(client, "layered-ab", "[__import__('two').V, os.environ['NEW']]") == ["site", "1"]
    client.update_function_configuration(FunctionName="layered-ab", DeadLetterConfig={"TargetArn": ""})
    assert client.publish_version(FunctionName="layered-ab")["Layers"][0]["Arn"] == first
    text = f"Layer version {first} does not exist."
    assert refusal(create, client=client, name="layered-late", Layers=[first])[2] == text
    assert refusal(client.update_function_configuration, FunctionName="layered-own", Layers=[first])[2] == text
    assert layer(client, "audit-a", {"x": "y"}).endswith(":2"), "a number was used again"


def test_layers_that_are_refused(client):
    create(client, "layered-five", Code={"ZipFile": make_zip({"app.py": EVAL})})
    change = client.update_function_configuration
    six = [layer(client, f"audit-{n}", {f"python/m{n}.py": f"V = {n}\n"}) for n in range(6)]
    assert refusal(change, FunctionName="layered-five", Layers=six)[2] == "Cannot reference more than 5 layers."
    other = layer(client, "audit-0", {"x": "y"})
    assert "Two different versions of the same layer are not allowed" in refusal(
        change, FunctionName="layered-five", Layers=[six[0], other]
    )[2]  # fmt: skip
    assert refusal(change, FunctionName="layered-five", Layers=["nonsense"])[1] == "ValidationException"
    change(FunctionName="layered-five", Layers=six[:5])
    assert evaluate(client, "layered-five", "[__import__(f'm{n}').V for n in range(5)]") == [0, 1, 2, 3, 4]


def test_the_environment_has_4_kb_and_keys_of_lambdas_own(client):
    create(client, "variables", Code={"ZipFile": make_zip({"app.py": EVAL})})

    def put(**variables):
        return client.update_function_configuration(FunctionName="variables", Environment={"Variables": variables})

    start = (
        "Lambda was unable to configure your environment variables because the environment variables you have provided "
    )
    assert refusal(put, AWS_REGION="x", LAMBDA_TASK_ROOT="y", MINE="z")[2] == (
        f"{start}contains reserved keys that are currently not supported for modification. Reserved keys used in this "
        "request: AWS_REGION, LAMBDA_TASK_ROOT"
    )
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_FUNCTION_NAME"):
        assert refusal(put, **{key: "x"})[1] == "InvalidParameterValueException"
    for key in ("_HANDLER", "1a", "a-b", "a"):
        assert refusal(put, **{key: "x"})[1] == "ValidationException"
    room = 4_096 - len('{"AB":""}')
    over = refusal(put, AB="x" * (room + 1))[2]
    assert over.startswith(f'{start}exceeded the 4KB limit. String measured: {{"AB":"xxx')
    put(AB="x" * room)
    assert evaluate(client, "variables", "len(os.environ['AB'])") == room
    put(EMPTY="", TEXT='é\n"q"')
    assert evaluate(client, "variables", "[os.environ['EMPTY'], os.environ['TEXT'], 'AB' in os.environ]") == [
        "", 'é\n"q"', False,
    ]  # fmt: skip


# -- dead letters, destinations and findings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (f"{QUEUE}nowhere", "InvalidParameterValueException", "permissions to call SendMessage on SQS"),
        ("arn:aws:sns:us-east-1:000000000000:nowhere", "InvalidParameterValueException", "to call Publish on SNS"),
        ("nonsense", "ValidationException", "at 'deadLetterConfig.targetArn' failed"),
        ("arn:aws:s3:::bucket", "InvalidParameterValueException", "must be an SQS queue or SNS topic"),
    ],
)
def test_a_dead_letter_target_must_be_there(client, target, error, text):
    name = "dead-letters"
    config = {"TargetArn": target}
    found = refusal(create, client=client, name=name, DeadLetterConfig=config)
    assert found[1] == error and text in found[2]
    assert refusal(client.get_function, FunctionName=name)[0] == 404, "half of it was written"
    create(client, name)
    found = refusal(client.update_function_configuration, FunctionName=name, DeadLetterConfig=config, Timeout=9)
    assert found[1] == error and client.get_function_configuration(FunctionName=name)["Timeout"] == 3
    client.delete_function(FunctionName=name)


@pytest.mark.parametrize(
    "target",
    [
        f"{QUEUE}nowhere", "arn:aws:sns:us-east-1:000000000000:nowhere", "arn:aws:s3:::no-such-bucket-anywhere",
        "arn:aws:events:us-east-1:000000000000:event-bus/nowhere", f"{ARN}nowhere", f"{ARN}two:nowhere",
    ],
)  # fmt: skip
def test_a_destination_must_be_there(client, two, target):
    config = {"OnFailure": {"Destination": target}}
    found = refusal(client.put_function_event_invoke_config, FunctionName="two", DestinationConfig=config)
    assert found == (400, "InvalidParameterValueException", f"The destination ARN {target} is invalid.")
    assert refusal(client.get_function_event_invoke_config, FunctionName="two")[0] == 404


def counted(aws, metric, name):
    now = time.time()
    points = aws.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/Lambda", MetricName=metric, Dimensions=[{"Name": "FunctionName", "Value": name}],
        StartTime=now - 3_600, EndTime=now + 36_000, Period=3_600, Statistics=["Sum"],
    )["Datapoints"]  # fmt: skip
    return sum(point["Sum"] for point in points)


def test_a_record_for_a_bus_that_is_gone_is_counted(aws, client):
    events = aws.client("events")
    arn = events.create_event_bus(Name="short-lived")["EventBusArn"]
    create(client, "told-a-bus")
    client.put_function_event_invoke_config(
        FunctionName="told-a-bus", DestinationConfig={"OnSuccess": {"Destination": arn}}
    )
    events.delete_event_bus(Name="short-lived")
    client.invoke(FunctionName="told-a-bus", InvocationType="Event")
    wait_for(lambda: counted(aws, "DestinationDeliveryFailures", "told-a-bus") == 1, what="the failure")


HOLD = "import time\n\ndef handler(event, context):\n    time.sleep(event.get('s', 0))\n"


def test_a_throttled_event_is_given_up_at_its_greatest_age(fresh_server):
    server = fresh_server()
    client, sqs = server.client("lambda"), server.client("sqs")
    url = sqs.create_queue(QueueName="aged")["QueueUrl"]
    create(client, "aged", Code={"ZipFile": make_zip({"app.py": HOLD})}, Timeout=900)
    client.put_function_concurrency(FunctionName="aged", ReservedConcurrentExecutions=1)
    client.put_function_event_invoke_config(
        FunctionName="aged", MaximumEventAgeInSeconds=60,
        DestinationConfig={"OnFailure": {"Destination": f"{QUEUE}aged"}},
    )  # fmt: skip
    with ThreadPoolExecutor(1) as caller:
        held = caller.submit(client.invoke, FunctionName="aged", Payload=b'{"s": 8}')
        wait_for(lambda: counted(server, "ConcurrentExecutions", "aged"), what="the holder")
        client.invoke(FunctionName="aged", InvocationType="Event", Payload=b'{"late": 1}')
        wait_for(lambda: counted(server, "Throttles", "aged") >= 1, what="the throttle")
        server.advance(45)
        assert "Messages" not in sqs.receive_message(QueueUrl=url), "given up too early"
        server.advance(16)
        record = json.loads(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"][0]["Body"])
        assert held.result()["StatusCode"] == 200
    assert record["requestContext"]["condition"] == "EventAgeExceeded" and record["requestPayload"] == {"late": 1}
    assert record["requestContext"]["approximateInvokeCount"] == 0 and "responsePayload" not in record


def test_findings_follow_a_queue_at_once(aws, client):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="followed-queue", Attributes={"VisibilityTimeout": "18"})["QueueUrl"]
    create(client, "followed-queue")
    uuid = client.create_event_source_mapping(FunctionName="followed-queue", EventSourceArn=f"{QUEUE}followed-queue")[
        "UUID"
    ]

    def severity():
        found = json.loads(aws.get("/_preheat/findings")[2])["findings"]
        about = {one["kind"]: one["severity"] for one in found if one["subject"].endswith(uuid)}
        return about.get("esm-visibility-timeout")

    assert severity() is None
    for seconds, expected in ((10, "low"), (2, "high"), (18, None)):
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(seconds)})
        wait_for(lambda expected=expected: severity() == expected, what=f"{expected} after {seconds} s")
    client.delete_event_source_mapping(UUID=uuid)

"""Versions and aliases over a socket: traffic by weight, what hangs on an alias, what cannot be deleted."""

import io
import json
import math
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

SOURCE = "def handler(event, context):\n    return [{mark!r}, context.function_version, context.invoked_function_arn]\n"
REQUESTS = 2_000


def code(mark):
    return make_zip({"app.py": SOURCE.format(mark=mark)})


@pytest.fixture
def versioned(aws):
    """A function with the versions 1 ("one") and 2 ("two") and the alias `live` on 1."""
    client = aws.client("lambda", max_pool_connections=16)
    names = []

    def create(name):
        client.create_function(
            FunctionName=name, Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=20,
            Code={"ZipFile": code("one")},
        )  # fmt: skip
        names.append(name)
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        first = client.publish_version(FunctionName=name)
        client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1", WaiterConfig={"Delay": 1})
        client.update_function_code(FunctionName=name, ZipFile=code("two"))
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        second = client.publish_version(FunctionName=name)
        assert (first["Version"], second["Version"]) == ("1", "2") and first["CodeSha256"] != second["CodeSha256"]
        client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
        return client

    yield create
    for name in names:
        client.delete_function(FunctionName=name)


def call(client, name, **params):
    answer = client.invoke(FunctionName=name, Payload=b"{}", **params)
    return json.loads(answer["Payload"].read()), answer.get("ExecutedVersion")


def failure(call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def test_traffic_is_divided_by_weight(versioned):
    client = versioned("weighted")
    weight = 0.2
    client.update_alias(
        FunctionName="weighted", Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": weight}}
    )
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda number: call(client, "weighted:live"), range(REQUESTS)))
    assert all((result[0], result[1]) == ({"1": "one", "2": "two"}[version], version) for result, version in answers)
    assert {result[2].rpartition(":")[2] for result, _ in answers} == {"live"}
    share = sum(version == "2" for _, version in answers)
    assert abs(share - REQUESTS * weight) < 5 * math.sqrt(REQUESTS * weight * (1 - weight))
    client.update_alias(FunctionName="weighted", Name="live", FunctionVersion="2", RoutingConfig={})
    assert {call(client, "weighted", Qualifier="live")[1] for _ in range(20)} == {"2"}
    assert "RoutingConfig" not in client.get_alias(FunctionName="weighted", Name="live")


def test_every_form_of_a_qualified_name(versioned):
    client = versioned("qualified")
    arn = client.get_function(FunctionName="qualified")["Configuration"]["FunctionArn"]
    for name, params, expected in (
        ("qualified", {}, ("two", "$LATEST", arn)),
        ("qualified", {"Qualifier": "$LATEST"}, ("two", "$LATEST", f"{arn}:$LATEST")),
        ("qualified", {"Qualifier": "live"}, ("one", "1", f"{arn}:live")),
        ("qualified:live", {}, ("one", "1", f"{arn}:live")),
        ("qualified:live", {"Qualifier": "live"}, ("one", "1", f"{arn}:live")),
        (f"{arn}:2", {}, ("two", "2", f"{arn}:2")),
        ("000000000000:function:qualified:1", {}, ("one", "1", f"{arn}:1")),
    ):
        result, version = call(client, name, **params)
        assert tuple(result) == expected and version == expected[1], (name, params)
    assert failure(client.invoke, FunctionName="qualified:live", Qualifier="2") == (
        "InvalidParameterValueException",
        "The derived qualifier from the function name does not match the specified qualifier.",
    )
    assert failure(client.invoke, FunctionName="qualified:9") == (
        "ResourceNotFoundException", f"Function not found: {arn}:9",
    )  # fmt: skip
    assert client.get_function(FunctionName="qualified", Qualifier="live")["Configuration"]["Version"] == "1"


def test_a_version_stays_what_it_was_and_what_an_alias_names_stays(versioned):
    client = versioned("frozen")
    again = client.publish_version(FunctionName="frozen")
    assert again["Version"] == "2", "publishing what has not changed made a version"
    latest = client.get_function_configuration(FunctionName="frozen")
    stale = {"FunctionName": "frozen", "RevisionId": "00000000-0000-4000-8000-000000000000"}
    assert failure(client.publish_version, **stale)[0] == "PreconditionFailedException"
    assert "is different from current CodeSHA256 in $LATEST" in failure(
        client.publish_version, FunctionName="frozen", CodeSha256="x" * 44
    )[1]  # fmt: skip
    client.update_function_configuration(FunctionName="frozen", Timeout=9, RevisionId=latest["RevisionId"])
    assert client.get_function_configuration(FunctionName="frozen", Qualifier="1")["Timeout"] == 20
    assert failure(client.update_function_configuration, FunctionName="frozen:1", Timeout=5)[0] == (
        "InvalidParameterValueException"
    )
    assert failure(client.delete_function, FunctionName="frozen", Qualifier="1") == (
        "ResourceConflictException",
        "Unable to delete version because the following aliases reference it: [live]",
    )
    archive = client.get_function(FunctionName="frozen", Qualifier="1")["Code"]["Location"]
    with open(archive.removeprefix("file://"), "rb") as file:
        assert b"'one'" in zipfile.ZipFile(io.BytesIO(file.read())).read("app.py")
    client.delete_alias(FunctionName="frozen", Name="live")
    client.delete_function(FunctionName="frozen", Qualifier="1")
    assert failure(client.invoke, FunctionName="frozen:1")[0] == "ResourceNotFoundException"
    versions = client.list_versions_by_function(FunctionName="frozen")["Versions"]
    assert [one["Version"] for one in versions] == ["$LATEST", "2"]


def test_a_queue_and_a_url_on_an_alias_follow_it(aws, versioned):
    client, sqs = versioned("followed"), aws.client("sqs")
    done = sqs.create_queue(QueueName="alias-done")["QueueUrl"]
    work = sqs.create_queue(QueueName="alias-work", Attributes={"VisibilityTimeout": "120"})["QueueUrl"]
    client.put_function_event_invoke_config(
        FunctionName="followed", Qualifier="live",
        DestinationConfig={"OnSuccess": {"Destination": "arn:aws:sqs:us-east-1:000000000000:alias-done"}},
    )  # fmt: skip
    mapping = client.create_event_source_mapping(
        EventSourceArn="arn:aws:sqs:us-east-1:000000000000:alias-work", FunctionName="followed:live"
    )
    assert mapping["FunctionArn"].endswith(":followed:live")
    url = client.create_function_url_config(FunctionName="followed", Qualifier="live", AuthType="NONE")
    assert failure(client.create_function_url_config, FunctionName="followed", Qualifier="1", AuthType="NONE")[0] == (
        "ValidationException"
    )
    host = url["FunctionUrl"].partition("://")[2].rstrip("/")

    def by_url():
        return json.loads(aws.get("/", headers={"Host": host})[2])[0]

    def by_event():
        client.invoke(FunctionName="followed:live", InvocationType="Event", Payload=b"{}")
        (message,) = sqs.receive_message(QueueUrl=done, WaitTimeSeconds=15)["Messages"]
        sqs.delete_message(QueueUrl=done, ReceiptHandle=message["ReceiptHandle"])
        return json.loads(message["Body"])["responsePayload"][0]

    assert (by_url(), by_event()) == ("one", "one")
    client.update_alias(FunctionName="followed", Name="live", FunctionVersion="2")
    assert (by_url(), by_event()) == ("two", "two")
    sqs.send_message(QueueUrl=work, MessageBody="x")

    def worked():
        attributes = sqs.get_queue_attributes(
            QueueUrl=work, AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        )["Attributes"]
        return set(attributes.values()) == {"0"}

    wait_for(worked, what="the queue to be empty")
    client.delete_event_source_mapping(UUID=mapping["UUID"])


def test_permissions_lie_with_one_name(versioned):
    client = versioned("permitted")
    settings = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "events.amazonaws.com"}
    for where in ({}, {"Qualifier": "live"}, {"Qualifier": "2"}):
        text = client.add_permission(FunctionName="permitted", **where, **settings)["Statement"]
        qualifier = where.get("Qualifier")
        assert json.loads(text)["Resource"].endswith(f":permitted:{qualifier}" if qualifier else ":permitted")
    assert failure(client.get_policy, FunctionName="permitted", Qualifier="1")[0] == "ResourceNotFoundException"
    assert failure(client.add_permission, FunctionName="permitted", Qualifier="live", **settings) == (
        "ResourceConflictException",
        "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing "
        "statement.",
    )
    revision = client.get_alias(FunctionName="permitted", Name="live")["RevisionId"]
    assert client.get_policy(FunctionName="permitted", Qualifier="live")["RevisionId"] == revision
    client.remove_permission(FunctionName="permitted", Qualifier="live", StatementId="s", RevisionId=revision)
    assert failure(client.remove_permission, FunctionName="permitted", Qualifier="live", StatementId="s")[1] == (
        "No policy is associated with the given resource."
    )
    assert client.get_policy(FunctionName="permitted")["Policy"]

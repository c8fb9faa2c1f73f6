"""Functions with real Python handlers, through boto3."""

import base64
import io
import json
import zipfile

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

HANDLER = """
import json, os, sys

def handler(event, context):
    if event.get("fail"):
        raise ValueError(event["fail"])
    print("seen", json.dumps(event))
    return {
        "event": event,
        "arn": context.invoked_function_arn,
        "version": context.function_version,
        "stage": os.environ.get("STAGE"),
        "memory": context.memory_limit_in_mb,
        "layer": sys.modules.get("helper") is not None or os.path.exists("/opt/python/helper.py"),
    }
"""

STREAM = """
def handler(event, context):
    for word in ("first", "second", "third"):
        yield word.encode()
"""


@pytest.fixture
def functions(aws):
    client = aws.client("lambda")
    names = []

    def create(name, source=HANDLER, **params):
        settings = {"Runtime": "python3.11", "Handler": "app.handler", "Role": ROLE, "Timeout": 15, **params}
        settings.setdefault("Code", {"ZipFile": make_zip({"app.py": source})})
        client.create_function(FunctionName=name, **settings)
        names.append(name)
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        return client

    yield create
    for name in names:
        client.delete_function(FunctionName=name)


def call(client, name, event=None, **params):
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event or {}), **params)
    return json.loads(answer["Payload"].read()), answer


def test_a_handler_answers(functions):
    client = functions("hello", Environment={"Variables": {"STAGE": "dev"}}, MemorySize=256)
    result, answer = call(client, "hello", {"a": "ü"}, LogType="Tail")
    assert result["event"] == {"a": "ü"} and result["stage"] == "dev" and int(result["memory"]) == 256
    assert result["arn"].endswith(":function:hello") and result["version"] == "$LATEST"
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST") and "FunctionError" not in answer
    log = base64.b64decode(answer["LogResult"]).decode()
    assert "START RequestId: " in log and 'seen {"a": ' in log and "REPORT RequestId: " in log


def test_an_exception_is_an_answer(functions):
    client = functions("failing")
    result, answer = call(client, "failing", {"fail": "no luck"})
    assert answer["FunctionError"] == "Unhandled" and answer["StatusCode"] == 200
    assert (result["errorType"], result["errorMessage"]) == ("ValueError", "no luck")


def test_new_code_and_settings_hold_from_the_next_call(functions):
    client = functions("changing", "def handler(event, context):\n    return 1\n")
    assert call(client, "changing")[0] == 1
    client.update_function_code(
        FunctionName="changing",
        ZipFile=make_zip({"app.py": "def handler(e, c):\n    return None\n"}),
    )
    client.get_waiter("function_updated_v2").wait(FunctionName="changing", WaiterConfig={"Delay": 1})
    assert call(client, "changing")[0] is None
    client.update_function_configuration(FunctionName="changing", Environment={"Variables": {"XX": "y", "STAGE": "s"}})
    client.update_function_configuration(FunctionName="changing", Handler="app.handler", Timeout=5)
    assert client.get_function_configuration(FunctionName="changing")["Environment"]["Variables"]["STAGE"] == "s"
    assert call(client, "changing")[0] is None


def test_versions_stay_as_they_were(functions):
    client = functions("versioned", "def handler(event, context):\n    return 'one'\n", Publish=True)
    client.update_function_code(
        FunctionName="versioned", ZipFile=make_zip({"app.py": "def handler(event, context):\n    return 'two'\n"})
    )
    client.create_alias(FunctionName="versioned", Name="live", FunctionVersion="1")
    assert call(client, "versioned")[0] == "two"
    result, answer = call(client, "versioned", Qualifier="live")
    assert (result, answer["ExecutedVersion"]) == ("one", "1")


def test_a_layer_can_be_imported(functions, aws):
    client = aws.client("lambda")
    layer = client.publish_layer_version(
        LayerName="helper", Content={"ZipFile": make_zip({"python/helper.py": "WORD = 'from the layer'\n"})}
    )
    source = "import helper\ndef handler(event, context):\n    return helper.WORD\n"
    functions("layered", source, Layers=[layer["LayerVersionArn"]])
    assert call(client, "layered")[0] == "from the layer"


def test_code_from_a_bucket_and_in_place(functions, aws, tmp_path):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="lambda-code-of-mine")
    s3.put_object(
        Bucket="lambda-code-of-mine",
        Key="code.zip",
        Body=make_zip({"app.py": "def handler(e, c):\n    return 'bucket'\n"}),
    )
    client = functions("bucketed", Code={"S3Bucket": "lambda-code-of-mine", "S3Key": "code.zip"})
    assert call(client, "bucketed")[0] == "bucket"

    handler = tmp_path / "app.py"
    handler.write_text("def handler(e, c):\n    return 'before'\n")
    functions("placed", Code={"S3Bucket": "preheat-local", "S3Key": str(tmp_path)})
    assert call(client, "placed")[0] == "before"
    handler.write_text("def handler(e, c):\n    return 'after the edit'\n")
    wait_for(lambda: call(client, "placed")[0] == "after the edit", what="the edit")


def test_a_stream_comes_in_pieces(functions):
    client = functions("streaming", STREAM)
    answer = client.invoke_with_response_stream(FunctionName="streaming", Payload=b"{}")
    events = list(answer["EventStream"])
    chunks = [event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event]
    assert b"".join(chunks) == b"firstsecondthird"
    assert "InvokeComplete" in events[-1] and not events[-1]["InvokeComplete"].get("ErrorCode")


def test_an_event_reports_to_its_destination(functions, aws):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="lambda-done")["QueueUrl"]
    client = functions("events")
    client.put_function_event_invoke_config(
        FunctionName="events",
        MaximumRetryAttempts=0,
        DestinationConfig={
            "OnSuccess": {"Destination": "arn:aws:sqs:us-east-1:000000000000:lambda-done"},
            "OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:lambda-done"},
        },
    )
    for event in ({"a": 1}, {"fail": "x"}):
        assert (
            client.invoke(FunctionName="events", InvocationType="Event", Payload=json.dumps(event))["StatusCode"] == 202
        )
    records = []

    def both():
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages", []):
            records.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(records) == 2

    wait_for(both, what="two records")
    conditions = {record["requestContext"]["condition"]: record for record in records}
    assert conditions["Success"]["responsePayload"]["event"] == {"a": 1}
    assert conditions["RetriesExhausted"]["responsePayload"]["errorType"] == "ValueError"


def test_errors_have_the_shapes_of_botocore(functions, aws):
    client = aws.client("lambda")
    with pytest.raises(client.exceptions.ResourceNotFoundException) as missing:
        client.invoke(FunctionName="nobody")
    assert missing.value.response["Error"]["Message"].startswith("Function not found: arn:aws:lambda:")
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    functions("throttled")
    client.put_function_concurrency(FunctionName="throttled", ReservedConcurrentExecutions=0)
    with pytest.raises(client.exceptions.TooManyRequestsException) as refused:
        client.invoke(FunctionName="throttled")
    assert refused.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert "retry-after" in refused.value.response["ResponseMetadata"]["HTTPHeaders"]
    with pytest.raises(ClientError) as bad:
        client.invoke(FunctionName="throttled", Payload=b"{")
    assert bad.value.response["Error"]["Code"] == "InvalidRequestContentException"
    with pytest.raises(ClientError) as duplicate:
        functions("throttled")
    assert duplicate.value.response["Error"]["Code"] == "ResourceConflictException"
    with pytest.raises(ClientError) as unsupported:
        client.get_provisioned_concurrency_config(FunctionName="throttled", Qualifier="1")
    assert unsupported.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_the_archive_can_be_fetched_again(functions):
    code = make_zip({"app.py": "def handler(e, c):\n    return 1\n"})
    client = functions("fetched", Code={"ZipFile": code})
    location = client.get_function(FunctionName="fetched")["Code"]["Location"]
    with open(location.removeprefix("file://"), "rb") as file:
        assert zipfile.ZipFile(io.BytesIO(file.read())).namelist() == ["app.py"]


def test_lists_are_paginated(functions):
    for number in range(3):
        client = functions(f"page-{number}")
    pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    names = [function["FunctionName"] for page in pages for function in page["Functions"]]
    assert {f"page-{number}" for number in range(3)} <= set(names) and len(names) == len(set(names))


def test_settings_come_back_with_the_types_of_botocore(functions, aws):
    client = functions("typed", Publish=True, Tags={"team": "a"})
    url = client.create_function_url_config(FunctionName="typed", AuthType="NONE", Cors={"AllowOrigins": ["*"]})
    assert url["FunctionUrl"].endswith("/") and url["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert client.get_function_url_config(FunctionName="typed")["LastModifiedTime"] == url["CreationTime"]
    assert len(client.list_function_url_configs(FunctionName="typed")["FunctionUrlConfigs"]) == 1
    client.delete_function_url_config(FunctionName="typed")
    client.put_function_event_invoke_config(FunctionName="typed", MaximumEventAgeInSeconds=60)
    assert client.get_function_event_invoke_config(FunctionName="typed")["LastModified"].year >= 2024
    assert len(client.list_function_event_invoke_configs(FunctionName="typed")["FunctionEventInvokeConfigs"]) == 1
    client.delete_function_event_invoke_config(FunctionName="typed")
    alias = client.create_alias(FunctionName="typed", Name="live", FunctionVersion="1")
    assert client.update_alias(FunctionName="typed", Name="live", Description="d")["RevisionId"] != alias["RevisionId"]
    assert [one["Name"] for one in client.list_aliases(FunctionName="typed")["Aliases"]] == ["live"]
    client.delete_alias(FunctionName="typed", Name="live")
    statement = client.add_permission(
        FunctionName="typed", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com"
    )["Statement"]
    assert json.loads(client.get_policy(FunctionName="typed")["Policy"])["Statement"] == [json.loads(statement)]
    client.remove_permission(FunctionName="typed", StatementId="s")
    arn = client.get_function(FunctionName="typed")["Configuration"]["FunctionArn"]
    client.tag_resource(Resource=arn, Tags={"x": "y"})
    client.untag_resource(Resource=arn, TagKeys=["team"])
    assert client.list_tags(Resource=arn)["Tags"] == {"x": "y"}
    assert client.put_function_concurrency(FunctionName="typed", ReservedConcurrentExecutions=3)
    assert client.get_function_concurrency(FunctionName="typed")["ReservedConcurrentExecutions"] == 3
    client.delete_function_concurrency(FunctionName="typed")
    layer = client.publish_layer_version(LayerName="typed", Content={"ZipFile": make_zip({"x": "y"})})
    assert client.get_layer_version_by_arn(Arn=layer["LayerVersionArn"])["Version"] == 1
    assert any(one["LayerName"] == "typed" for one in client.list_layers()["Layers"])
    client.delete_layer_version(LayerName="typed", VersionNumber=1)
    assert client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"] >= 100
    assert [one["Version"] for one in client.list_versions_by_function(FunctionName="typed")["Versions"]] == [
        "$LATEST",
        "1",
    ]
    client.delete_function(FunctionName="typed", Qualifier="1")


def test_a_mapping_comes_back_with_the_types_of_botocore(functions, aws):
    sqs = aws.client("sqs")
    sqs.create_queue(QueueName="typed-mapping")
    client = functions("mapped")
    made = client.create_event_source_mapping(
        EventSourceArn="arn:aws:sqs:us-east-1:000000000000:typed-mapping", FunctionName="mapped", Enabled=False,
        FilterCriteria={"Filters": [{"Pattern": '{"body": {"a": ["b"]}}'}]}, ScalingConfig={"MaximumConcurrency": 5},
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )  # fmt: skip
    assert made["State"] == "Creating" and made["ResponseMetadata"]["HTTPStatusCode"] == 202
    found = client.get_event_source_mapping(UUID=made["UUID"])
    assert found["State"] == "Disabled" and found["LastModified"].year >= 2024
    assert found["ScalingConfig"] == {"MaximumConcurrency": 5} and len(found["FilterCriteria"]["Filters"]) == 1
    assert client.update_event_source_mapping(UUID=made["UUID"], BatchSize=3)["BatchSize"] == 3
    listed = client.list_event_source_mappings(FunctionName="mapped")["EventSourceMappings"]
    assert [one["UUID"] for one in listed] == [made["UUID"]]
    assert client.delete_event_source_mapping(UUID=made["UUID"])["State"] == "Deleting"


def test_an_object_in_a_bucket_starts_a_function(functions, aws):
    s3, sqs = aws.client("s3"), aws.client("sqs")
    url = sqs.create_queue(QueueName="object-seen")["QueueUrl"]
    source = (
        "import boto3, os\n"
        "def handler(event, context):\n"
        "    key = event['Records'][0]['s3']['object']['key']\n"
        "    boto3.client('sqs').send_message(QueueUrl=os.environ['TARGET'], MessageBody=key)\n"
    )
    client = functions("on-object", source, Environment={"Variables": {"TARGET": url}})
    arn = client.get_function(FunctionName="on-object")["Configuration"]["FunctionArn"]
    client.add_permission(
        FunctionName="on-object", StatementId="s3", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com"
    )
    s3.create_bucket(Bucket="bucket-that-tells")
    s3.put_bucket_notification_configuration(
        Bucket="bucket-that-tells",
        NotificationConfiguration={
            "LambdaFunctionConfigurations": [{"LambdaFunctionArn": arn, "Events": ["s3:ObjectCreated:*"]}]
        },
    )
    s3.put_object(Bucket="bucket-that-tells", Key="a/document.txt", Body=b"x")
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=15)["Messages"]
    assert message["Body"] == "a/document.txt"

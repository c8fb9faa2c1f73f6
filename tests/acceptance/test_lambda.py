"""Functions with real Python handlers, through boto3."""

import base64
import io
import json
import zipfile

import pytest
from botocore.exceptions import ClientError, WaiterError

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
    assert "retry-after" not in refused.value.response["ResponseMetadata"]["HTTPHeaders"], "at reserved limits"
    with pytest.raises(ClientError) as bad:
        client.invoke(FunctionName="throttled", Payload=b"{")
    assert bad.value.response["Error"]["Code"] == "InvalidRequestContentException"
    with pytest.raises(ClientError) as duplicate:
        functions("throttled")
    assert duplicate.value.response["Error"]["Code"] == "ResourceConflictException"
    with pytest.raises(ClientError) as unsupported:
        client.list_capacity_providers()
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
    assert made["State"] == "Disabled" and made["ResponseMetadata"]["HTTPStatusCode"] == 202
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


def test_code_that_fails_half_way_through_a_stream(functions):
    source = "def handler(event, context):\n    yield b'first'\n    raise ValueError('half-way')\n"
    client = functions("broken-stream", source)
    events = list(client.invoke_with_response_stream(FunctionName="broken-stream", LogType="Tail")["EventStream"])
    assert events[0]["PayloadChunk"]["Payload"] == b"first"
    complete = events[-1]["InvokeComplete"]
    assert complete["ErrorCode"] == "ValueError" and "half-way" in complete["ErrorDetails"]
    assert "REPORT RequestId: " in base64.b64decode(complete["LogResult"]).decode()
    dry = client.invoke_with_response_stream(FunctionName="broken-stream", InvocationType="DryRun")
    assert (dry["StatusCode"], list(dry["EventStream"])) == (204, [])


# -- what is refused --------------------------------------------------------------------------------------------------


def refusal(client, **params):
    """(status, code, message) of a CreateFunction that must fail, and leave nothing."""
    settings = {"Runtime": "python3.11", "Handler": "app.handler", "Role": ROLE, **params}
    settings.setdefault("Code", {"ZipFile": make_zip()})
    with pytest.raises(ClientError) as caught:
        client.create_function(FunctionName="refused", **settings)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="refused")
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


def test_archives_that_are_refused(aws):
    client = aws.client("lambda")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("big", "w") as file:
        for _ in range(251):
            file.write(bytes(1 << 20))
    liar = bytearray(make_zip({"app.py": "x" * 5_000}))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = liar.index(signature) + offset
        liar[at : at + 4] = (10).to_bytes(4, "little")
    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as archive:
        out = zipfile.ZipInfo("out")
        out.create_system, out.external_attr = 3, 0o120777 << 16
        archive.writestr(out, "../../..")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    unreadable = "Could not unzip uploaded file. Please check your file, then try to upload again."
    for data, message in (
        (b"not a zip", unreadable),
        (make_zip({"../evil.py": "x"}), unreadable),
        (make_zip({"/etc/evil.py": "x"}), unreadable),
        (link.getvalue(), unreadable),
        (bytes(liar), unreadable),
        (make_zip()[:-30], unreadable),
        (b"", "Uploaded file must be a non-empty zip"),
        (empty.getvalue(), "Uploaded file must be a non-empty zip"),
        (bomb.getvalue(), "Unzipped size must be smaller than 262144000 bytes"),
    ):
        found = refusal(client, Code={"ZipFile": data})
        assert found == (400, "InvalidParameterValueException", message), data[:20]
    assert refusal(client, Code={"ZipFile": bytes(52_428_801)}) == (
        413, "RequestEntityTooLargeException", "Zipped size must be smaller than 52428800 bytes",
    )  # fmt: skip
    assert refusal(client, Code={"ZipFile": bytes(53_000_000)}) == (
        413, "RequestEntityTooLargeException", "Request must be smaller than 70167211 bytes for the CreateFunction "
        "operation",
    )  # fmt: skip


def test_code_from_buckets_that_is_refused(aws):
    client, s3 = aws.client("lambda"), aws.client("s3")
    s3.create_bucket(Bucket="code-refused")
    s3.put_object(Bucket="code-refused", Key="text", Body=b"no zip")
    start = "Error occurred while GetObject. S3 Error Code: "
    for code, message in (
        ({"S3Bucket": "code-refused", "S3Key": "none"}, f"{start}NoSuchKey. S3 Error Message: The specified key does "
         "not exist."),
        ({"S3Bucket": "no-such-bucket-here", "S3Key": "k"}, f"{start}NoSuchBucket. S3 Error Message: The specified "
         "bucket does not exist"),
        ({"S3Bucket": "code-refused", "S3Key": "text"}, "Could not unzip uploaded file. Please check your file, then "
         "try to upload again."),
        ({"S3Bucket": "code-refused"}, "Please provide a source for function code."),
        ({"S3Bucket": "code-refused", "S3Key": "k", "ZipFile": b"x"}, "Please do not provide other FunctionCode "
         "parameters when providing a ZipFile."),
    ):  # fmt: skip
        assert refusal(client, Code=code) == (400, "InvalidParameterValueException", message), code


def test_settings_that_are_refused(aws):
    client = aws.client("lambda", parameter_validation=False)
    one = "1 validation error detected: Value"
    pattern = r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
    role = f"'role' failed to satisfy constraint: Member must satisfy regular expression pattern: {pattern}"
    for params, code, message in (
        ({"Handler": "a" * 129}, "ValidationException",
         f"{one} '{'a' * 129}' at 'handler' failed to satisfy constraint: Member must have length less than or equal "
         "to 128"),
        ({"MemorySize": 127}, "ValidationException",
         f"{one} '127' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to "
         "128"),
        ({"MemorySize": 10_241}, "ValidationException",
         f"{one} '10241' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to "
         "10240"),
        ({"Timeout": 901}, "ValidationException",
         f"{one} '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900"),
        ({"Role": "arn:aws:iam::1:role/x"}, "ValidationException", f"{one} 'arn:aws:iam::1:role/x' at {role}"),
        ({"Environment": {"Variables": {"_HANDLER": "x", "AWS_REGION": "y"}}}, "ValidationException",
         "Map keys must satisfy constraint: [Member must satisfy regular expression pattern: "
         "[a-zA-Z]([a-zA-Z0-9_])+]"),
        ({"Environment": {"Variables": {"AWS_REGION": "x", "AWS_ACCESS_KEY_ID": "y"}}},
         "InvalidParameterValueException",
         "Lambda was unable to configure your environment variables because the environment variables you have "
         "provided contains reserved keys that are currently not supported for modification. Reserved keys used in "
         "this request: AWS_ACCESS_KEY_ID, AWS_REGION"),
        ({"Environment": {"Variables": {"BIG": "x" * 4_090}}}, "InvalidParameterValueException",
         "exceeded the 4KB limit. String measured: {\"BIG\":\"xxx"),
        ({"Runtime": "python1.0"}, "InvalidParameterValueException",
         "Value python1.0 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: ["),
        ({"Layers": [f"arn:aws:lambda:us-east-1:000000000000:layer:l{number}:1" for number in range(6)]},
         "InvalidParameterValueException", "Cannot reference more than 5 layers."),
    ):  # fmt: skip
        status, found, text = refusal(client, **params)
        assert (status, found) == (400, code) and message in text, (params, found, text)
    with pytest.raises(ClientError) as caught:
        client.create_function(FunctionName="refused", Runtime="python3.11", Handler="a.b", Code={"ZipFile": b"x"})
    assert "Value null at 'role' failed to satisfy constraint: Member must not be null" in str(caught.value)


# -- Lambda's own lines -----------------------------------------------------------------------------------------------

TALKING = "def handler(event, context):\n    print('hello')\n    return event['a']\n"


def platform_lines(log):
    """The records of Lambda's own lines, by type; everything else must be JSON too or be what the function said."""
    found = {}
    for line in filter(None, log.splitlines()):
        if line.startswith("{"):
            document = json.loads(line)
            if "record" in document:
                assert document["time"].endswith("Z")
                found[document["type"]] = document["record"]
        else:
            assert line == "hello", line
    return found


@pytest.mark.parametrize(
    ("level", "good", "bad"),
    [
        ("DEBUG", {"platform.start", "platform.runtimeDone", "platform.report"}, {"platform.start"}),
        ("INFO", {"platform.start", "platform.report"}, {"platform.start"}),
        ("WARN", set(), set()),
    ],
)
def test_lambdas_own_lines_in_the_json_format(functions, level, good, bad):
    name = f"json-{level.lower()}"
    client = functions(name, TALKING, LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": level})
    result, answer = call(client, name, {"a": 1}, LogType="Tail")
    log = base64.b64decode(answer["LogResult"]).decode()
    found = platform_lines(log)
    assert result == 1 and "hello" in log and set(found) == good
    if "platform.report" in found:
        report = found["platform.report"]
        assert report["status"] == "success" and report["metrics"]["memorySizeMB"] == 128
        assert report["requestId"] == found["platform.start"]["requestId"]
    _, answer = call(client, name, {}, LogType="Tail")
    failed = platform_lines(base64.b64decode(answer["LogResult"]).decode().replace("\r", "\n"))
    assert set(failed) == {"platform.runtimeDone", "platform.report"} | bad
    assert failed["platform.report"]["status"] == failed["platform.runtimeDone"]["status"] == "error"


TEMPLATE = """
Resources:
  Signing:
    Type: AWS::Lambda::CodeSigningConfig
    Properties:
      AllowedPublishers: {SigningProfileVersionArns: ["arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/v"]}
      CodeSigningPolicies: {UntrustedArtifactOnDeployment: POLICY}
  Layer:
    Type: AWS::Lambda::LayerVersion
    Properties: {LayerName: from-template, Content: {S3Bucket: lambda-template, S3Key: layer.zip}}
  Shared:
    Type: AWS::Lambda::LayerVersionPermission
    Properties: {LayerVersionArn: !Ref Layer, Action: "lambda:GetLayerVersion", Principal: "111111111111"}
  Function:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: from-template
      Runtime: python3.11
      Handler: index.handler
      Role: arn:aws:iam::000000000000:role/r
      Code: {ZipFile: "def handler(event, context): return 1"}
      CodeSigningConfigArn: !GetAtt Signing.CodeSigningConfigArn
      RuntimeManagementConfig: {UpdateRuntimeOn: FunctionUpdate}
      Layers: [!Ref Layer]
"""


def test_templates_share_layers_and_sign_code(aws):
    client, stacks, s3 = aws.client("lambda"), aws.client("cloudformation"), aws.client("s3")
    s3.create_bucket(Bucket="lambda-template")
    s3.put_object(Bucket="lambda-template", Key="layer.zip", Body=make_zip({"python/x.py": "1"}))
    stacks.create_stack(StackName="signed", TemplateBody=TEMPLATE.replace("POLICY", "Warn"))
    stacks.get_waiter("stack_create_complete").wait(StackName="signed", WaiterConfig={"Delay": 1})
    mode = client.get_runtime_management_config(FunctionName="from-template")["UpdateRuntimeOn"]
    signing = client.get_function_code_signing_config(FunctionName="from-template")["CodeSigningConfigArn"]
    policy = json.loads(client.get_layer_version_policy(LayerName="from-template", VersionNumber=1)["Policy"])
    assert mode == "FunctionUpdate" and signing.startswith("arn:aws:lambda:us-east-1:000000000000:code-signing-config:")
    assert policy["Statement"][0]["Principal"] == {"AWS": "arn:aws:iam::111111111111:root"}
    changed = TEMPLATE.replace("POLICY", "Enforce").replace("return 1", "return 2")
    stacks.update_stack(StackName="signed", TemplateBody=changed)
    with pytest.raises(WaiterError):
        stacks.get_waiter("stack_update_complete").wait(StackName="signed", WaiterConfig={"Delay": 1})
    reasons = [event.get("ResourceStatusReason", "") for event in
               stacks.describe_stack_events(StackName="signed")["StackEvents"]]  # fmt: skip
    assert any("code signing policy is set to ENFORCE" in reason for reason in reasons)
    assert call(client, "from-template")[0] == 1
    stacks.delete_stack(StackName="signed")
    stacks.get_waiter("stack_delete_complete").wait(StackName="signed", WaiterConfig={"Delay": 1})
    assert signing not in [
        one["CodeSigningConfigArn"] for one in client.list_code_signing_configs()["CodeSigningConfigs"]
    ]

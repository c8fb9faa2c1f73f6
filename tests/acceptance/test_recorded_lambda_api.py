"""Lambda's API against what AWS was recorded to answer: errors to the letter, members of answers, revisions."""

import json

import pytest
from botocore.exceptions import ClientError

from preheat.kernel.errors import AwsError
from tests.support.functions import ROLE, LambdaWorld, make_zip

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
LAYER = "arn:aws:lambda:us-east-1:000000000000:layer:"
GRANT = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
INVALID, MISSING, VIOLATION = "InvalidParameterValueException", "ResourceNotFoundException", "ValidationException"
NOWHERE = "The resource you requested does not exist."
NO_FUNCTION = "Function does not exist"
NO_EVENT_FUNCTION = "The function doesn't exist."
REGION = r"(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}"
PREFIX = rf"(arn:(aws[a-zA-Z-]*)?:lambda:)?({REGION}:)?(\d{{12}}:)?(function:)?"
ANY_NAME = PREFIX + r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
FUNCTION_NAME = PREFIX + r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
RUNTIMES = (
    "nodejs20.x, python3.14, provided.al2023, python3.12, python3.13, nodejs24.x, nodejs22.x, java25, python3.10, "
    "python3.11, java21, ruby3.3, ruby3.4, ruby3.2, python3.8, python3.9, java17, nodejs16.x, dotnet10, dotnet8, "
    "java11, dotnet6, nodejs18.x, provided.al2, java8.al2"
)
LAYER_VERSION = (
    rf"(arn:(aws[a-zA-Z-]*)?:lambda:{REGION}:\d{{12}}:layer:[a-zA-Z0-9-_]+:[0-9]+)|"
    "(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+)"
)
NO_TAGS_ON = "Tags on function aliases and versions are not supported. Please specify a function ARN."
TAGGABLE = (
    rf"arn:(aws[a-zA-Z-]*):lambda:{REGION}:\d{{12}}:"
    r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|code-signing-config:csc-[a-z0-9]{17}|"
    r"event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|"
    r"(capacity-provider|network-connector):[a-zA-Z0-9-_]{1,64})"
)


def violated(member, value, rule):
    return f"Value '{value}' at '{member}' failed to satisfy constraint: Member must {rule}"


def one(member, value, rule):
    return VIOLATION, "1 validation error detected: " + violated(member, value, rule)


@pytest.fixture(scope="module")
def world():
    """Function f with versions 1 and 2 and the alias live, a layer l and nothing else."""
    world = LambdaWorld()
    world.create(Publish=True)
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=9)
    world("lambda", "PublishVersion", FunctionName="f")
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    world("lambda", "PublishLayerVersion", LayerName="l", Content={"ZipFile": make_zip()})
    yield world
    assert world.defects == []


def refused(world, operation, **params):
    with pytest.raises(AwsError) as caught:
        world("lambda", operation, **params)
    return caught.value


SAID = [
    # names and qualifiers
    ("GetFunction", {"FunctionName": "my-function!"},
     one("functionName", "my-function!", f"satisfy regular expression pattern: {ANY_NAME}")),
    ("GetFunction", {"FunctionName": "a" * 65}, (MISSING, f"Function not found: {ARN}{'a' * 65}")),
    ("GetFunction", {"FunctionName": "a" * 257},
     one("functionName", "a" * 257, "have length less than or equal to 256")),
    ("GetFunction", {"FunctionName": "my.function"}, (MISSING, f"Function not found: {ARN}my.function")),
    ("GetFunction", {"FunctionName": "f", "Qualifier": "-1"}, (MISSING, f"Function not found: {ARN}f:-1")),
    ("GetFunction", {"FunctionName": "f", "Qualifier": "$latest"}, (MISSING, f"Function not found: {ARN}f:$latest")),
    ("GetFunction", {"FunctionName": "f", "Qualifier": "invalid!"},
     one("qualifier", "invalid!", r"satisfy regular expression pattern: \$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+")),
    ("PublishVersion", {"FunctionName": "my.function"},
     one("functionName", "my.function", f"satisfy regular expression pattern: {FUNCTION_NAME}")),
    ("PutFunctionRecursionConfig", {"FunctionName": "f:1", "RecursiveLoop": "Allow"},
     one("functionName", "f:1", f"satisfy regular expression pattern: {PREFIX}([a-zA-Z0-9-_]+)")),
    ("DeleteFunction", {"FunctionName": "none", "Qualifier": "$LATEST"},
     (INVALID, "$LATEST version cannot be deleted without deleting the function.")),
    ("DeleteFunction", {"FunctionName": "none", "Qualifier": "-1"},
     (INVALID, "Deletion of aliases is not currently supported.")),
    ("DeleteFunction", {"FunctionName": "none", "Qualifier": "7"}, (MISSING, f"Function not found: {ARN}none")),
    ("DeleteFunction", {"FunctionName": "none", "Qualifier": "$latest"}, (MISSING, f"Function not found: {ARN}none")),
    ("ListFunctions", {"FunctionVersion": "invalid"},
     one("functionVersion", "invalid", "satisfy enum value set: [ALL]")),
    # aliases
    ("CreateAlias", {"FunctionName": "none", "Name": "a", "FunctionVersion": "1"},
     (MISSING, f"Function not found: {ARN}none:1")),
    ("CreateAlias", {"FunctionName": "none", "Name": "2024", "FunctionVersion": "1"},
     one("name", "2024", "satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)")),
    # reserved concurrency
    ("PutFunctionConcurrency", {"FunctionName": "none", "ReservedConcurrentExecutions": 1},
     (MISSING, f"Function not found: {ARN}none:$LATEST")),
    ("PutFunctionConcurrency", {"FunctionName": "none", "ReservedConcurrentExecutions": -1},
     (MISSING, f"Function not found: {ARN}none:$LATEST")),
    # function URLs
    *((operation, {"FunctionName": name, "AuthType": "NONE"}, (MISSING, NO_FUNCTION))
      for operation in ("CreateFunctionUrlConfig", "UpdateFunctionUrlConfig") for name in ("none", "f:other")),
    *((operation, {"FunctionName": name}, (MISSING, NOWHERE))
      for operation in ("GetFunctionUrlConfig", "DeleteFunctionUrlConfig") for name in ("none", "f:other", "f")),
    ("UpdateFunctionUrlConfig", {"FunctionName": "f", "AuthType": "NONE"}, (MISSING, NOWHERE)),
    ("ListFunctionUrlConfigs", {"FunctionName": "none"}, (MISSING, NO_FUNCTION)),
    # asynchronous settings
    ("PutFunctionEventInvokeConfig", {"FunctionName": "none", "MaximumRetryAttempts": 1}, (MISSING, NO_EVENT_FUNCTION)),
    ("PutFunctionEventInvokeConfig", {"FunctionName": "f:other", "MaximumRetryAttempts": 1},
     (MISSING, NO_EVENT_FUNCTION)),
    ("UpdateFunctionEventInvokeConfig", {"FunctionName": "none", "MaximumRetryAttempts": 1},
     (MISSING, NO_EVENT_FUNCTION)),
    ("ListFunctionEventInvokeConfigs", {"FunctionName": "none"}, (MISSING, NO_EVENT_FUNCTION)),
    *((operation, params, (MISSING, f"The function {ARN}{shown} doesn't have an EventInvokeConfig"))
      for operation in ("GetFunctionEventInvokeConfig", "DeleteFunctionEventInvokeConfig")
      for params, shown in (({"FunctionName": "none"}, "none:$LATEST"), ({"FunctionName": "f:other"}, "f:other"),
                            ({"FunctionName": "f", "Qualifier": "1221"}, "f:1221"))),
    # resource policies
    ("AddPermission", {"FunctionName": "f", "Qualifier": "other", **GRANT},
     (MISSING, f"Cannot find alias arn: {ARN}f:other")),
    ("AddPermission", {"FunctionName": "f", "Qualifier": "42", **GRANT}, (MISSING, f"Function not found: {ARN}f:42")),
    ("AddPermission", {"FunctionName": "f", "Qualifier": "with-$-in", **GRANT},
     (MISSING, f"Function not found: {ARN}f:with-$-in")),
    ("AddPermission", {"FunctionName": "none", "Qualifier": "$LATEST", **GRANT},
     (INVALID, "We currently do not support adding policies for $LATEST.")),
    ("AddPermission", {"FunctionName": "f", **GRANT, "Principal": "invalid.nonaws.com"},
     (INVALID, "The provided principal was invalid. Please check the principal and try again.")),
    ("RemovePermission", {"FunctionName": "f", "Qualifier": "other", "StatementId": "s"},
     (MISSING, f"Cannot find alias arn: {ARN}f:other")),
    ("GetPolicy", {"FunctionName": "f", "Qualifier": "42"}, (MISSING, NOWHERE)),
    ("GetPolicy", {"FunctionName": "f", "Qualifier": "other"}, (MISSING, NOWHERE)),
    # tags
    ("ListTags", {"Resource": "arn:aws:something"},
     one("resource", "arn:aws:something", f"satisfy regular expression pattern: {TAGGABLE}")),
    ("TagResource", {"Resource": f"{ARN}f:1", "Tags": {"a": "b"}}, (INVALID, NO_TAGS_ON)),
    ("TagResource", {"Resource": f"{ARN}f:$LATEST", "Tags": {"a": "b"}}, (INVALID, NO_TAGS_ON)),
    ("TagResource", {"Resource": f"{ARN}f", "Tags": {}},
     (INVALID, "An error occurred and the request cannot be processed.")),
    ("TagResource", {"Resource": f"{ARN}f", "Tags": {str(n): "" for n in range(51)}},
     (INVALID, "Number of tags exceeds resource tag limit.")),
    ("UntagResource", {"Resource": f"{ARN}f", "TagKeys": []},
     (VIOLATION, "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not "
                 "be null")),
    # layers
    ("GetLayerVersionByArn", {"Arn": f"{LAYER}l"},
     one("arn", f"{LAYER}l", f"satisfy regular expression pattern: {LAYER_VERSION}")),
    ("ListLayers", {"CompatibleArchitecture": "archx"},
     one("compatibleArchitecture", "archx", "satisfy enum value set: [x86_64, arm64]")),
    # code
    ("UpdateFunctionCode", {"FunctionName": "f", "ImageUri": "000000000000.dkr.ecr.us-east-1.amazonaws.com/a:b"},
     (INVALID, "Please don't provide ImageUri when updating a function with packageType Zip.")),
    # settings
    ("UpdateFunctionConfiguration", {"FunctionName": "f", "LoggingConfig": {"ApplicationLogLevel": "DEBUG"}},
     (INVALID, 'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change '
               'the LogFormat to "JSON" and try again.')),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "params", "said"), SAID, ids=[entry[0] for entry in SAID])
def test_refusals_are_aws_s_to_the_letter(world, operation, params, said):
    error = refused(world, operation, **params)
    assert (error.code, error.message) == said
    assert error.status == {MISSING: 404}.get(error.code, 400)


NEW = [
    ("a" * 65, {},
     (INVALID, one("functionName", "a" * 65, "have length less than or equal to 64")[1])),
    (ARN + "a" * 100, {}, one("functionName", ARN + "a" * 100, "have length less than or equal to 140")),
    ("invalid:function:name", {},
     one("functionName", "invalid:function:name", f"satisfy regular expression pattern: {FUNCTION_NAME}")),
    ("g", {"Architectures": ["x86_64", "arm64"]},
     one("architectures", "[x86_64, arm64]", "have length less than or equal to 1")),
    ("g", {"Architectures": ["X86_64"]},
     one("architectures", "[X86_64]",
         "satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]")),
    ("g", {"Layers": [f"{LAYER}l"]},
     one("layers", f"[{LAYER}l]",
         "satisfy constraint: [Member must have length less than or equal to 2048, Member must have length greater "
         f"than or equal to 1, Member must satisfy regular expression pattern: {LAYER_VERSION}, "
         "Member must not be null]")),
    ("g", {"PackageType": "Image", "Timeout": 901},
     one("timeout", 901, "have value less than or equal to 900")),
    ("g", {"Runtime": "PYTHON3.9"},
     (INVALID, "Value PYTHON3.9 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: "
               f"[{RUNTIMES}] or be a valid ARN")),
    ("g", {"Tags": {str(n): "" for n in range(51)}}, (INVALID, "Number of tags exceeds resource tag limit.")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params", "said"), NEW)
def test_functions_that_are_not_made(world, name, params, said):
    with pytest.raises(AwsError) as caught:
        world.create(name, **params)
    assert (caught.value.code, caught.value.message) == said


def test_several_violations_are_told_together(world):
    name, qualifier = "arn:aws:lambda:nowhere:000000000000:function:" + "a" * 250, "q" * 129
    error = refused(world, "GetFunction", FunctionName=name, Qualifier=qualifier)
    assert error.code == VIOLATION and error.message.startswith("3 validation errors detected: ")
    assert sorted(error.message.partition(": ")[2].split("; ")) == [
        violated("functionName", name, "have length less than or equal to 256"),
        violated("functionName", name, f"satisfy regular expression pattern: {ANY_NAME}"),
        violated("qualifier", qualifier, "have length less than or equal to 128"),
    ]


def test_a_function_of_another_account_is_not_made(world):
    with pytest.raises(AwsError) as caught:
        world.create(ARN.replace("000000000000", "111111111111") + "g")
    assert (caught.value.code, caught.value.status) == ("AccessDeniedException", 403)


def test_layers_that_are_not_published(world):
    error = refused(
        world, "PublishLayerVersion", LayerName="x", Content={"ZipFile": make_zip()},
        CompatibleRuntimes=["invalidruntime", "python3.12"], CompatibleArchitectures=["invalidarch", "x86_64"],
    )  # fmt: skip
    assert (error.code, error.message) == (
        VIOLATION,
        "2 validation errors detected: "
        + violated("compatibleRuntimes", "[invalidruntime, python3.12]", f"satisfy enum value set: [{RUNTIMES}]") + "; "
        + violated(
            "compatibleArchitectures", "[invalidarch, x86_64]",
            "satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"Description": ""}),
        (
            {"CompatibleRuntimes": [], "CompatibleArchitectures": []},
            {"Description": "", "CompatibleRuntimes": [], "CompatibleArchitectures": []},
        ),
        ({"CompatibleRuntimes": ["python3.12"], "LicenseInfo": "MIT"},
         {"Description": "", "CompatibleRuntimes": ["python3.12"], "LicenseInfo": "MIT"}),
    ],
)  # fmt: skip
def test_a_layer_shows_a_description_and_the_lists_that_were_given(world, given, shown):
    made = world("lambda", "PublishLayerVersion", LayerName="shown", Content={"ZipFile": make_zip()}, **given)
    always = {"LayerVersionArn", "Version", "CreatedDate"}
    assert {k: v for k, v in made.items() if k not in always | {"LayerArn", "Content"}} == shown
    newest = world("lambda", "ListLayerVersions", LayerName="shown")["LayerVersions"][0]
    assert {k: v for k, v in newest.items() if k not in always} == shown


ALWAYS = {
    "Architectures", "CodeSha256", "CodeSize", "Description", "EphemeralStorage", "FunctionArn", "FunctionName",
    "Handler", "LastModified", "LoggingConfig", "MemorySize", "PackageType", "RevisionId", "Role", "Runtime",
    "SnapStart", "Timeout", "TracingConfig", "Version",
}  # fmt: skip
ACTIVE = ALWAYS | {"State", "LastUpdateStatus", "RuntimeVersionConfig"}
PENDING = ALWAYS | {"State", "StateReason", "StateReasonCode", "RuntimeVersionConfig"}
UPDATING = ACTIVE | {"LastUpdateStatusReason", "LastUpdateStatusReasonCode"}


def test_members_of_the_answers_and_how_they_name_the_function(world):
    made = world.create("shape", Publish=True)
    assert made.keys() == PENDING and (made["FunctionArn"], made["Version"]) == (f"{ARN}shape", "1")
    assert world("lambda", "GetFunctionConfiguration", FunctionName="shape").keys() == ACTIVE
    changed = world("lambda", "UpdateFunctionConfiguration", FunctionName="shape", Timeout=7)
    assert changed.keys() == UPDATING and changed["LastUpdateStatus"] == "InProgress"
    published = world("lambda", "PublishVersion", FunctionName="shape")
    assert published.keys() == ACTIVE and (published["State"], published["Version"]) == ("Active", "2")
    code = world(
        "lambda", "UpdateFunctionCode", FunctionName="shape", ZipFile=make_zip({"app.py": "x = 1\n"}), Publish=True
    )
    assert code.keys() == PENDING and (code["State"], code["FunctionArn"]) == ("Pending", f"{ARN}shape:3")
    versions = world("lambda", "ListVersionsByFunction", FunctionName="shape")["Versions"]
    assert [version.keys() for version in versions] == [ALWAYS] * 4
    assert all(entry.keys() == ALWAYS for entry in world("lambda", "ListFunctions")["Functions"])
    assert all(entry.keys() == ALWAYS for entry in world("lambda", "ListFunctions", FunctionVersion="ALL")["Functions"])


def test_revisions_change_with_what_is_done_and_when_it_is_done(world):
    def now(qualifier="$LATEST"):
        return world("lambda", "GetFunctionConfiguration", FunctionName="rev", Qualifier=qualifier)["RevisionId"]

    seen = [world.create("rev")["RevisionId"], now()]
    first = world("lambda", "PublishVersion", FunctionName="rev")["RevisionId"]
    seen += [first, now()]
    assert first == now("1") == world("lambda", "PublishVersion", FunctionName="rev")["RevisionId"]
    assert now() == seen[-1], "nothing was published, nothing has changed"
    world("lambda", "CreateAlias", FunctionName="rev", Name="a", FunctionVersion="1")
    assert now() == seen[-1]
    for operation, tags in (("TagResource", {"Tags": {"a": "b"}}), ("UntagResource", {"TagKeys": ["a"]})):
        world("lambda", operation, Resource=f"{ARN}rev", **tags)
        seen.append(now())
    seen += [world("lambda", "UpdateFunctionConfiguration", FunctionName="rev", Timeout=7)["RevisionId"], now()]
    seen += [world("lambda", "UpdateFunctionCode", FunctionName="rev", ZipFile=make_zip())["RevisionId"], now()]
    assert len(set(seen)) == len(seen) and now("1") == first


def test_what_was_given_empty_is_shown_empty(world):
    empty = {"SubnetIds": [], "SecurityGroupIds": []}
    made = world.create("empty", Environment={"Variables": {}})
    assert made["Environment"] == {"Variables": {}} and "VpcConfig" not in made
    network = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert world("lambda", "UpdateFunctionConfiguration", FunctionName="empty", VpcConfig=network)["VpcConfig"]["VpcId"]
    world("lambda", "UpdateFunctionConfiguration", FunctionName="empty", VpcConfig=empty)
    shown = world("lambda", "GetFunctionConfiguration", FunctionName="empty")["VpcConfig"]
    assert shown == {**empty, "VpcId": "", "Ipv6AllowedForDualStack": False}


def test_a_part_of_the_logging_settings_leaves_the_rest(world):
    world.create("logs")
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    for given, shown in (
        ({"LogGroup": "cool"}, {"LogFormat": "Text", "LogGroup": "cool"}),
        ({"LogFormat": "JSON"}, {"LogFormat": "JSON", "LogGroup": "cool", **levels}),
        ({"SystemLogLevel": "DEBUG"}, {"LogFormat": "JSON", "LogGroup": "cool", **levels, "SystemLogLevel": "DEBUG"}),
        ({"LogFormat": "Text"}, {"LogFormat": "Text", "LogGroup": "cool"}),
        ({"LogFormat": "JSON"}, {"LogFormat": "JSON", "LogGroup": "cool", **levels}),
    ):
        world("lambda", "UpdateFunctionConfiguration", FunctionName="logs", LoggingConfig=given)
        assert world("lambda", "GetFunctionConfiguration", FunctionName="logs")["LoggingConfig"] == shown


def test_the_size_of_all_code_counts_versions_and_layers():
    world, code = LambdaWorld(), make_zip()

    def total():
        return world("lambda", "GetAccountSettings")["AccountUsage"]["TotalCodeSize"]

    world.create(Code={"ZipFile": code})
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=7)
    assert total() == len(code)
    world("lambda", "PublishVersion", FunctionName="f")
    assert total() == 2 * len(code)
    for _ in range(2):
        world("lambda", "PublishLayerVersion", LayerName="l", Content={"ZipFile": code})
    assert total() == 4 * len(code)
    world("lambda", "DeleteLayerVersion", LayerName="l", VersionNumber=1)
    assert total() == 3 * len(code)


def test_a_url_speaks_of_the_mode_that_was_asked_for(world):
    world.create("url")
    assert "InvokeMode" not in world("lambda", "CreateFunctionUrlConfig", FunctionName="url", AuthType="NONE")
    assert world("lambda", "GetFunctionUrlConfig", FunctionName="url")["InvokeMode"] == "BUFFERED"
    assert "InvokeMode" not in world("lambda", "UpdateFunctionUrlConfig", FunctionName="url", AuthType="AWS_IAM")
    assert [one["InvokeMode"] for one in world("lambda", "ListFunctionUrlConfigs", FunctionName="url")[
        "FunctionUrlConfigs"]] == ["BUFFERED"]  # fmt: skip
    asked = world("lambda", "UpdateFunctionUrlConfig", FunctionName="url", InvokeMode="RESPONSE_STREAM")
    assert asked["InvokeMode"] == "RESPONSE_STREAM"


CONFIG = "arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-00000000000000000"
TYPELESS = [
    ("create_alias", {"FunctionName": "{}", "Name": "a", "FunctionVersion": "$LATEST",
                      "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.5}}}, 400, "message"),
    ("put_function_concurrency", {"FunctionName": "{}", "ReservedConcurrentExecutions": 5_000}, 400, "message"),
    ("put_provisioned_concurrency_config",
     {"FunctionName": "{}", "Qualifier": "1", "ProvisionedConcurrentExecutions": 5_000}, 400, "message"),
    ("put_provisioned_concurrency_config",
     {"FunctionName": "{}", "Qualifier": "1", "ProvisionedConcurrentExecutions": 950}, 400, "message"),
    ("get_code_signing_config", {"CodeSigningConfigArn": CONFIG}, 404, "Message"),
]  # fmt: skip


def test_errors_on_the_wire_have_the_members_that_aws_gives_them(aws):
    client = aws.client("lambda")
    client.create_function(
        FunctionName="typeless", Runtime="python3.12", Handler="app.handler", Role=ROLE, Code={"ZipFile": make_zip()},
        Publish=True,
    )  # fmt: skip
    for operation, params, status, member in TYPELESS:
        named = {key: "typeless" if value == "{}" else value for key, value in params.items()}
        with pytest.raises(ClientError) as caught:
            getattr(client, operation)(**named)
        answer = caught.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == status, operation
        assert "Type" not in answer and answer[member] == answer["Error"]["Message"], answer
    with pytest.raises(ClientError) as caught:
        client.untag_resource(Resource=f"{ARN}typeless", TagKeys=[])
    assert caught.value.response["Error"]["Message"].startswith("1 validation error detected: Value null at 'tagKeys'")


def test_a_template_without_logging_settings_brings_the_defaults_back(aws):
    def template(**settings):
        properties = {"FunctionName": "logged", "Role": ROLE, "Runtime": "python3.12", "Handler": "index.handler",
                      "Code": {"ZipFile": "def handler(event, context):\n    pass\n"}, **settings}  # fmt: skip
        return json.dumps({"Resources": {"F": {"Type": "AWS::Lambda::Function", "Properties": properties}}})

    stacks, functions = aws.client("cloudformation"), aws.client("lambda")
    told = {"LogFormat": "JSON", "LogGroup": "elsewhere", "ApplicationLogLevel": "DEBUG"}
    stacks.create_stack(StackName="logged", TemplateBody=template(LoggingConfig=told))
    stacks.get_waiter("stack_create_complete").wait(StackName="logged", WaiterConfig={"Delay": 1})
    shown = functions.get_function_configuration(FunctionName="logged")["LoggingConfig"]
    assert shown == {**told, "SystemLogLevel": "INFO"}
    stacks.update_stack(StackName="logged", TemplateBody=template())
    stacks.get_waiter("stack_update_complete").wait(StackName="logged", WaiterConfig={"Delay": 1})
    shown = functions.get_function_configuration(FunctionName="logged")["LoggingConfig"]
    assert shown == {"LogFormat": "Text", "LogGroup": "/aws/lambda/logged"}

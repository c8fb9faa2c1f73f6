"""The whole surface of the API: the README's tables against botocore's model and the code, and the smaller operations:
layer permissions, policies as a whole, runtime management, code signing, revisions, alias weights."""

import io
import itertools
import json
import math
import re
import zipfile
from pathlib import Path

import botocore.session
import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.awslambda.configuration import _REFUSED
from preheat.services.awslambda.service import OPERATIONS
from preheat.services.contract import Reply
from tests.support.functions import LambdaWorld, TriggerWorld, make_zip

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
SERVICES = Path(__file__).parents[2] / "src" / "preheat" / "services"
README = (SERVICES / "awslambda" / "README.md").read_text()
EFFECT = re.compile(r"acts(: .+)?|(approximated|refused|ignored): .+")


@pytest.fixture
def world():
    world = LambdaWorld()
    world.create()
    yield world
    assert world.defects == []


def refused(world, operation, **params):
    with pytest.raises(AwsError) as caught:
        world("lambda", operation, **params)
    return caught.value.code, caught.value.message


def as_account(world, account, operation, region="us-east-1", **params):
    """The reply, or the AwsError, of a call by another account."""
    replies = []
    scope = Scope(account, region)
    world.machine.submit("lambda", operation, params, replies.append, scope=scope)
    world.settle()
    (reply,) = replies
    return reply.output if isinstance(reply, Reply) else reply


# -- the tables -------------------------------------------------------------------------------------------------------


def table(heading):
    """The rows of the table below a heading, as lists of cells."""
    part = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return rows[1:]


@pytest.fixture(scope="module")
def model():
    return botocore.session.get_session().get_service_model("lambda")


def members(model, operation):
    shape = model.operation_model(operation).input_shape
    return set(shape.members) if shape else set()


def member_rows(model):
    """(operation, member, effect) for every combination that the table of members speaks of."""
    for operations, names, effect in table("Members"):
        for name in names.split(", "):
            top = name.partition(".")[0]
            chosen = OPERATIONS if operations == "all" else operations.split(", ")
            for operation in chosen:
                if operations != "all" or top in members(model, operation):
                    yield operation, name, effect


def test_the_table_of_operations_is_the_model_and_the_code(model):
    rows = table("Operations")
    assert [name for name, _ in rows] == sorted(model.operation_names)
    for name, effect in rows:
        assert EFFECT.fullmatch(effect), (name, effect)
        assert (name in OPERATIONS) != effect.startswith("refused"), name


def test_the_table_of_members_is_the_model(model):
    told = {}
    for operation, name, effect in member_rows(model):
        assert EFFECT.fullmatch(effect), (operation, name, effect)
        assert operation in OPERATIONS, operation
        assert name.partition(".")[0] in members(model, operation), (operation, name)
        assert (operation, name) not in told or operation == "all", (operation, name)
        told[operation, name] = effect
    missing = {
        (operation, name) for operation in OPERATIONS for name in members(model, operation)
    } - set(told)
    assert not missing


def test_what_the_table_of_members_refuses_is_refused(model, world):
    refusals = {name for operation, name, effect in member_rows(model)
                if operation == "CreateFunction" and effect.startswith("refused") and "." not in name}  # fmt: skip
    assert refusals == set(_REFUSED)
    for name in refusals:
        given = {"FileSystemConfigs": [{"Arn": "a"}], "PublishTo": "LATEST_PUBLISHED"}.get(name, {"X": "y"})
        with pytest.raises(AwsError) as caught:
            world.create("g", **{name: given})
        assert caught.value.code == "InvalidParameterValueException" and name in caught.value.message
    ignored = {name.rpartition(".")[2] for _, name, effect in member_rows(model) if effect.startswith("ignored")}
    assert ignored == set(json.loads((SERVICES / "fidelity.json").read_text())["lambda"])


# -- aliases ----------------------------------------------------------------------------------------------------------


def published(world, count):
    for number in range(count):
        world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=10 + number)
        world("lambda", "PublishVersion", FunctionName="f")


@pytest.mark.parametrize("weight", [0.01, 0.3])
def test_weights_hold_over_ten_thousand_invocations(weight):
    world = LambdaWorld(seed=7)
    world.create()
    published(world, 2)
    routing = {"AdditionalVersionWeights": {"2": weight}}
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1", RoutingConfig=routing)
    replies = []
    for _ in range(10_000):
        world.machine.submit("lambda", "Invoke", {"FunctionName": "f", "Qualifier": "live"}, replies.append)
        if len(world.executor.started) % 250 == 0:
            world.settle()
    world.settle()
    versions = [reply.output["ExecutedVersion"] for reply in replies]
    assert len(versions) == 10_000 and set(versions) == {"1", "2"}
    deviation = math.sqrt(10_000 * weight * (1 - weight))
    assert abs(versions.count("2") - 10_000 * weight) < 4 * deviation
    changes = sum(one != other for one, other in itertools.pairwise(versions))
    expected = 2 * 10_000 * weight * (1 - weight)
    assert abs(changes - expected) < 6 * math.sqrt(expected), "draws depend on the ones before"


def test_weights_of_nothing_and_of_everything(world):
    published(world, 2)
    for weight, expected in ((0.0, "1"), (1.0, "2")):
        world("lambda", "CreateAlias", FunctionName="f", Name=f"at-{expected}", FunctionVersion="1",
              RoutingConfig={"AdditionalVersionWeights": {"2": weight}})  # fmt: skip
        answers = {world("lambda", "Invoke", FunctionName=f"f:at-{expected}")["ExecutedVersion"] for _ in range(50)}
        assert answers == {expected}


MAP_VALUE = (
    "failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to "
    "1.0, Member must have value greater than or equal to 0.0, Member must not be null]"
)


@pytest.mark.parametrize(
    ("version", "weights", "code", "text"),
    [
        ("1", {"2": 0.1, "3": 0.1}, "InvalidParameterValueException",
         "Number of items in AdditionalVersionWeights cannot be greater than 1"),
        ("1", {"2": 1.5}, "ValidationException",
         f"1 validation error detected: Value '{{2=1.5}}' at 'routingConfig.additionalVersionWeights' {MAP_VALUE}"),
        ("1", {"2": -0.1}, "ValidationException", MAP_VALUE),
        ("1", {"1": 0.5}, "InvalidParameterValueException",
         "Invalid function version 1. Function version 1 is already included in routing configuration."),
        ("$LATEST", {"1": 0.5}, "InvalidParameterValueException",
         "$LATEST is not supported for an alias pointing to more than 1 version"),
        ("1", {"$LATEST": 0.5}, "ValidationException", "Member must satisfy regular expression pattern: [0-9]+"),
        ("1", {"9": 0.5}, "ResourceNotFoundException", f"Function not found: {ARN}f:9"),
    ],
)  # fmt: skip
def test_weights_that_are_refused(world, version, weights, code, text):
    published(world, 3)
    request = {"FunctionName": "f", "Name": "a", "FunctionVersion": version}
    found = refused(world, "CreateAlias", **request, RoutingConfig={"AdditionalVersionWeights": weights})
    assert found[0] == code and text in found[1]
    assert world("lambda", "ListAliases", FunctionName="f")["Aliases"] == []
    world("lambda", "CreateAlias", **{**request, "FunctionVersion": "1"})
    if version == "1":
        changed = refused(world, "UpdateAlias", FunctionName="f", Name="a",
                          RoutingConfig={"AdditionalVersionWeights": weights})  # fmt: skip
        assert changed == found


def test_both_versions_of_an_alias_have_one_role_and_one_dead_letter_target(world):
    published(world, 1)
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Role="arn:aws:iam::000000000000:role/other")
    world("lambda", "PublishVersion", FunctionName="f")
    routing = {"AdditionalVersionWeights": {"2": 0.5}}
    _, text = refused(
        world, "CreateAlias", FunctionName="f", Name="a", FunctionVersion="1", RoutingConfig=routing
    )
    assert "same execution role" in text


def test_a_published_version_cannot_be_changed(world):
    published(world, 1)
    for operation, params in (("UpdateFunctionConfiguration", {"Timeout": 99}),
                              ("UpdateFunctionCode", {"ZipFile": make_zip({"a.py": "1"})})):  # fmt: skip
        code, text = refused(world, operation, FunctionName="f:1", **params)
        assert code == "InvalidParameterValueException" and text.startswith("This operation is permitted on Lambda")
    assert world("lambda", "GetFunctionConfiguration", FunctionName="f")["Timeout"] == 10
    assert refused(world, "DeleteFunction", FunctionName="f:$LATEST")[1] == (
        "$LATEST version cannot be deleted without deleting the function."
    )
    bad = refused(world, "GetFunction", FunctionName="f", Qualifier="a b")
    assert bad[0] == "ValidationException" and "at 'qualifier'" in bad[1]


# -- policies ---------------------------------------------------------------------------------------------------------


def permit(world, sid="s", **params):
    settings = {"FunctionName": "f", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", **params}
    return world("lambda", "AddPermission", StatementId=sid, **settings)


def test_the_policys_revision_is_that_of_what_it_lies_with(world):
    published(world, 1)
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    before = world("lambda", "GetFunctionConfiguration", FunctionName="f")["RevisionId"]
    permit(world, RevisionId=before)
    after = world("lambda", "GetFunctionConfiguration", FunctionName="f")["RevisionId"]
    assert after != before and world("lambda", "GetPolicy", FunctionName="f")["RevisionId"] == after
    with pytest.raises(AwsError) as stale:
        permit(world, "t", RevisionId=before)
    assert stale.value.code == "PreconditionFailedException"
    alias = world("lambda", "GetAlias", FunctionName="f", Name="live")["RevisionId"]
    permit(world, Qualifier="live", RevisionId=alias)
    policy = world("lambda", "GetPolicy", FunctionName="f:live")
    assert policy["RevisionId"] == world("lambda", "GetAlias", FunctionName="f", Name="live")["RevisionId"] != alias
    assert json.loads(policy["Policy"])["Statement"][0]["Resource"] == f"{ARN}f:live"
    assert refused(world, "GetPolicy", FunctionName="f:1")[0] == "ResourceNotFoundException"
    world("lambda", "RemovePermission", FunctionName="f", StatementId="s", RevisionId=after)
    assert world("lambda", "GetFunctionConfiguration", FunctionName="f")["RevisionId"] not in (before, after)


def test_a_change_of_the_policy_stops_no_environment(world):
    world("lambda", "Invoke", FunctionName="f")
    permit(world)
    world("lambda", "Invoke", FunctionName="f")
    assert world.executor.retired == []
    assert len({call.spec.revision for call in world.executor.started}) == 1


def test_permissions_that_are_refused(world):
    assert refused(world, "AddPermission", FunctionName="f", Qualifier="$LATEST", StatementId="s", Principal="*",
                   Action="lambda:*")[1] == "We currently do not support adding policies for $LATEST."  # fmt: skip
    assert refused(world, "RemovePermission", FunctionName="g", StatementId="s") == (
        "ResourceNotFoundException", f"No policy found for: {ARN}g",
    )  # fmt: skip
    assert refused(world, "RemovePermission", FunctionName="f", StatementId="s")[1] == (
        "No policy is associated with the given resource."
    )
    permit(world)
    assert refused(world, "RemovePermission", FunctionName="f", StatementId="t")[1] == (
        "Statement t is not found in resource policy."
    )


def test_a_policy_as_a_whole(world):
    permit(world)
    statement = {"Effect": "Allow", "Principal": "*", "Action": "lambda:InvokeFunction", "Resource": f"{ARN}f"}
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    put = world("lambda", "PutResourcePolicy", ResourceArn=f"{ARN}f", Policy=document)
    (found,) = json.loads(put["Policy"])["Statement"]
    assert found == {"Sid": "statement-1", **statement}
    assert world("lambda", "GetResourcePolicy", ResourceArn=f"{ARN}f") == put
    assert world("lambda", "GetPolicy", FunctionName="f") == put
    for bad in ("{", "[]", '{"Statement": []}', json.dumps({"Statement": {**statement, "Resource": "*"}}),
                json.dumps({"Statement": {**statement, "Effect": "Maybe"}}), '{"Statement": [1]}',
                json.dumps({"Statement": {**statement, "Principal": ""}})):  # fmt: skip
        code, _ = refused(world, "PutResourcePolicy", ResourceArn=f"{ARN}f", Policy=bad)
        assert code == "InvalidParameterValueException", bad
    assert world("lambda", "GetPolicy", FunctionName="f") == put
    stale = refused(world, "DeleteResourcePolicy", ResourceArn=f"{ARN}f", RevisionId="old")
    assert stale[0] == "PreconditionFailedException"
    world("lambda", "DeleteResourcePolicy", ResourceArn=f"{ARN}f", RevisionId=put["RevisionId"])
    assert refused(world, "GetPolicy", FunctionName="f")[0] == "ResourceNotFoundException"


# -- layers -----------------------------------------------------------------------------------------------------------

OTHER = "111111111111"
LAYER = "arn:aws:lambda:us-east-1:111111111111:layer:shared"


def shared_layer(world):
    as_account(world, OTHER, "PublishLayerVersion", LayerName="shared",
               Content={"ZipFile": make_zip({"python/shared.py": "x"})})  # fmt: skip
    return f"{LAYER}:1"


def share(world, **params):
    request = {"LayerName": "shared", "VersionNumber": 1, "StatementId": "s", "Action": "lambda:GetLayerVersion"}
    return as_account(world, OTHER, "AddLayerVersionPermission", **{**request, **params})


@pytest.mark.parametrize("principal", ["*", "000000000000", "arn:aws:iam::000000000000:root"])
def test_a_layer_of_another_account_needs_its_permission(world, principal):
    arn = shared_layer(world)
    root = "arn:aws:iam::000000000000:root"
    denial = (
        "AccessDeniedException",
        f"User: {root} is not authorized to perform: lambda:GetLayerVersion on resource: {arn} because no "
        "resource-based policy allows the lambda:GetLayerVersion action",
    )
    change = {"FunctionName": "f", "Layers": [arn]}
    assert refused(world, "UpdateFunctionConfiguration", **change) == denial
    assert refused(world, "GetLayerVersionByArn", Arn=arn) == denial
    answer = share(world, Principal=principal)
    assert json.loads(answer["Statement"])["Resource"] == arn
    world("lambda", "UpdateFunctionConfiguration", **change)
    assert world("lambda", "GetLayerVersionByArn", Arn=arn)["LayerVersionArn"] == arn
    removed = as_account(world, OTHER, "RemoveLayerVersionPermission", LayerName="shared", VersionNumber=1,
                         StatementId="s", RevisionId=answer["RevisionId"])  # fmt: skip
    assert removed == {}
    world("lambda", "Invoke", FunctionName="f")
    assert (world.executor.started[0].spec.layers[0] / "python" / "shared.py").exists()
    assert refused(world, "UpdateFunctionConfiguration", **change) == denial


def test_permissions_of_layers_and_what_is_refused(world):
    arn = shared_layer(world)
    where = {"LayerName": "shared", "VersionNumber": 1}
    none = as_account(world, OTHER, "GetLayerVersionPolicy", **where)
    assert none.message == "No policy is associated with the given resource."
    made = share(world, Principal="222222222222")
    assert share(world, Principal="*").code == "ResourceConflictException"
    assert share(world, Principal="*", StatementId="o", OrganizationId="o-abcdefghij")["Statement"]
    policy = as_account(world, OTHER, "GetLayerVersionPolicy", LayerName=LAYER, VersionNumber=1)
    assert [one["Sid"] for one in json.loads(policy["Policy"])["Statement"]] == ["s", "o"]
    assert refused(world, "GetLayerVersionByArn", Arn=arn)[0] == "AccessDeniedException"
    assert share(world, StatementId="x", Principal="*", RevisionId=made["RevisionId"]).code == (
        "PreconditionFailedException"
    )
    assert share(world, StatementId="x", Principal="me").code == "ValidationException"
    assert share(world, StatementId="x", Principal="*", Action="lambda:*").message.endswith("lambda:GetLayerVersion")
    assert share(world, Principal="*", VersionNumber=2).message == f"Layer version {LAYER}:2 does not exist."
    gone = as_account(world, OTHER, "RemoveLayerVersionPermission", StatementId="no", **where)
    assert gone.message == "Statement no is not found in resource policy."


def test_layers_of_other_regions_and_bad_layers(world):
    elsewhere = "arn:aws:lambda:eu-west-1:000000000000:layer:l:1"
    assert refused(world, "UpdateFunctionConfiguration", FunctionName="f", Layers=[elsewhere])[1] == (
        "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."
    )
    content = {"ZipFile": make_zip()}
    code, text = refused(world, "PublishLayerVersion", LayerName="l", Content=content, CompatibleRuntimes=["cobol"],
                         CompatibleArchitectures=["sparc"])  # fmt: skip
    assert code == "ValidationException" and text.startswith("2 validation errors detected: Value '[cobol]'")
    assert refused(world, "ListLayers", CompatibleRuntime="cobol")[0] == "ValidationException"
    assert refused(world, "GetLayerVersion", LayerName="l", VersionNumber=0)[1] == "Layer Version Cannot be less than 1"
    assert refused(world, "GetLayerVersionByArn", Arn="arn:aws:lambda:x")[0] == "ValidationException"
    assert refused(world, "GetLayerVersion", LayerName="arn:aws", VersionNumber=1)[0] == "ValidationException"
    world("lambda", "PublishLayerVersion", LayerName="l", Content=content, CompatibleRuntimes=["python3.12", "java21"],
          CompatibleArchitectures=["arm64"])  # fmt: skip
    world("lambda", "PublishLayerVersion", LayerName="l", Content=content, CompatibleRuntimes=["python3.13"])
    for params, version in (
        ({"CompatibleRuntime": "python3.12"}, 1), ({"CompatibleArchitecture": "arm64"}, 1), ({}, 2),
    ):  # fmt: skip
        (layer,) = world("lambda", "ListLayers", **params)["Layers"]
        assert layer["LatestMatchingVersion"]["Version"] == version
    assert world("lambda", "ListLayers", CompatibleRuntime="nodejs20.x")["Layers"] == []


def large_zip(megabytes, name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return {"ZipFile": buffer.getvalue()}


def test_code_and_layers_together_have_a_limit(world):
    arn = world("lambda", "PublishLayerVersion", LayerName="big", Content=large_zip(249, "b"))["LayerVersionArn"]
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Layers=[arn])
    words = "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is"
    code, text = refused(world, "UpdateFunctionCode", FunctionName="f", **large_zip(2, "c"))
    assert code == "InvalidParameterValueException" and text == f"{words} {251 << 20} bytes."
    second = world("lambda", "PublishLayerVersion", LayerName="other", Content=large_zip(1, "d"))["LayerVersionArn"]
    assert words in refused(world, "UpdateFunctionConfiguration", FunctionName="f", Layers=[arn, second])[1]
    found = world("lambda", "GetFunctionConfiguration", FunctionName="f")
    assert [layer["Arn"] for layer in found["Layers"]] == [arn]


# -- the smaller operations -------------------------------------------------------------------------------------------


def test_runtime_management(world):
    arn = world("lambda", "GetFunctionConfiguration", FunctionName="f")["RuntimeVersionConfig"]["RuntimeVersionArn"]
    assert world("lambda", "GetRuntimeManagementConfig", FunctionName="f") == {
        "UpdateRuntimeOn": "Auto", "FunctionArn": f"{ARN}f:$LATEST",
    }  # fmt: skip
    put = {"FunctionName": "f", "UpdateRuntimeOn": "Manual"}
    assert world("lambda", "PutRuntimeManagementConfig", **put, RuntimeVersionArn=arn)["RuntimeVersionArn"] == arn
    assert world("lambda", "GetRuntimeManagementConfig", FunctionName="f")["UpdateRuntimeOn"] == "Manual"
    assert "is not available" in refused(
        world, "PutRuntimeManagementConfig", **put, RuntimeVersionArn="arn:aws:lambda:us-east-1::runtime:x"
    )[1]  # fmt: skip
    assert "must be given" in refused(world, "PutRuntimeManagementConfig", **put)[1]
    published(world, 1)
    assert world("lambda", "GetRuntimeManagementConfig", FunctionName="f", Qualifier="1")["UpdateRuntimeOn"] == "Auto"


def signing(world, policy):
    made = world("lambda", "CreateCodeSigningConfig", CodeSigningPolicies={"UntrustedArtifactOnDeployment": policy},
                 AllowedPublishers={"SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/p/x"]},
                 Tags={"a": "b"})  # fmt: skip
    return made["CodeSigningConfig"]["CodeSigningConfigArn"]


def test_code_signing_blocks_or_warns(world):
    enforced, warned = signing(world, "Enforce"), signing(world, "Warn")
    assert re.fullmatch(r"arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-[a-z0-9]{17}", enforced)
    with pytest.raises(AwsError) as blocked:
        world.create("g", CodeSigningConfigArn=enforced)
    assert blocked.value.code == "CodeVerificationFailedException"
    world.create("g", CodeSigningConfigArn=warned)
    taken = world.machine.meter.take()
    counted = [series.dimensions for series, _ in taken if series.name == "SignatureValidationErrors"]
    assert counted == [(("FunctionName", "g"),)]
    assert world("lambda", "GetFunctionCodeSigningConfig", FunctionName="g")["CodeSigningConfigArn"] == warned
    world("lambda", "PutFunctionCodeSigningConfig", FunctionName="g", CodeSigningConfigArn=enforced)
    change = {"FunctionName": "g", "ZipFile": make_zip({"a.py": "1"})}
    assert refused(world, "UpdateFunctionCode", **change)[0] == "CodeVerificationFailedException"
    listed = world("lambda", "ListFunctionsByCodeSigningConfig", CodeSigningConfigArn=enforced)
    assert listed["FunctionArns"] == [f"{ARN}g"]
    assert refused(world, "DeleteCodeSigningConfig", CodeSigningConfigArn=enforced)[0] == "ResourceConflictException"
    world("lambda", "DeleteFunctionCodeSigningConfig", FunctionName="g")
    world("lambda", "UpdateFunctionCode", **change)
    world("lambda", "DeleteCodeSigningConfig", CodeSigningConfigArn=enforced)
    assert len(world("lambda", "ListCodeSigningConfigs")["CodeSigningConfigs"]) == 1
    missing = {"FunctionName": "g", "CodeSigningConfigArn": enforced}
    assert refused(world, "PutFunctionCodeSigningConfig", **missing)[0] == "CodeSigningConfigNotFoundException"
    changed = world("lambda", "UpdateCodeSigningConfig", CodeSigningConfigArn=warned, Description="d")
    assert changed["CodeSigningConfig"]["Description"] == "d"
    assert world("lambda", "ListTags", Resource=warned) == {"Tags": {"a": "b"}}
    world("lambda", "UntagResource", Resource=warned, TagKeys=["a"])
    assert world("lambda", "ListTags", Resource=warned) == {"Tags": {}}
    bad = refused(world, "CreateCodeSigningConfig", AllowedPublishers={"SigningProfileVersionArns": []})
    assert bad[0] == "ValidationException"


def test_the_deprecated_asynchronous_invoke():
    world = TriggerWorld()
    world.create()
    assert world("lambda", "InvokeAsync", FunctionName="f", InvokeArgs=b'{"a": 1}') == {"Status": 202}
    world.settle()
    assert world.executor.events("f") == [{"a": 1}] and world.executor.started[0].asynchronous
    for payload in (b"x" * 262_145, b"{"):
        code, _ = refused(world, "InvokeAsync", FunctionName="f", InvokeArgs=payload)
        assert code == "InvalidRequestContentException"
    assert refused(world, "InvokeAsync", FunctionName="g", InvokeArgs=b"{}")[0] == "ResourceNotFoundException"


def test_what_is_not_implemented_says_so(world):
    for operation in ("CreateCapacityProvider", "GetDurableExecution", "PutFunctionScalingConfig"):
        code, text = refused(world, operation)
        assert code == "UnsupportedOperation" and f"lambda:{operation}" in text


# -- traces -----------------------------------------------------------------------------------------------------------


def sampled(world):
    world("lambda", "Invoke", FunctionName="f")
    header = world.executor.started[-1].trace_id
    return dict(part.split("=", 1) for part in header.split(";"))["Sampled"]


def test_active_tracing_samples_what_brings_no_decision(world):
    assert sampled(world) == "0"
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", TracingConfig={"Mode": "Active"})
    assert sampled(world) == "1"
    spec = world.executor.started[-1].spec
    root = "Root=1-5759e988-bd862e3fe1be46a994272793"
    for incoming, expected in ((f"{root};Sampled=0", "Sampled=0"), (root, "Sampled=1")):
        replies = []
        world.machine.perform(
            lambda ctx, incoming=incoming: {"trace": world.functions.continue_trace(ctx, spec, (incoming,), "r")},
            replies.append,
        )
        world.settle()
        assert root in replies[0].output["trace"] and expected in replies[0].output["trace"]

"""Concurrency, policies, function URLs, asynchronous settings, tags, the account."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from tests.support.functions import LambdaWorld, TriggerWorld

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


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


def test_reserved_concurrency_leaves_a_hundred_to_the_others(world):
    world.create("g")
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=600)
    assert refused(world, "PutFunctionConcurrency", FunctionName="g", ReservedConcurrentExecutions=301) == (
        "InvalidParameterValueException",
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
        "its minimum value of [100].",
    )
    world("lambda", "PutFunctionConcurrency", FunctionName="g", ReservedConcurrentExecutions=300)
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=500)
    assert world.executor.reserved == {f"{ARN}f": 500, f"{ARN}g": 300}
    assert world("lambda", "GetFunctionConcurrency", FunctionName="f") == {"ReservedConcurrentExecutions": 500}
    assert world("lambda", "GetFunction", FunctionName="f")["Concurrency"] == {"ReservedConcurrentExecutions": 500}
    limits = world("lambda", "GetAccountSettings")
    assert limits["AccountLimit"]["UnreservedConcurrentExecutions"] == 200
    assert limits["AccountUsage"]["FunctionCount"] == 2
    world("lambda", "DeleteFunctionConcurrency", FunctionName="f")
    assert world("lambda", "GetFunctionConcurrency", FunctionName="f") == {}
    assert (
        "permitted on Lambda functions only"
        in refused(world, "PutFunctionConcurrency", FunctionName="f:1", ReservedConcurrentExecutions=1)[1]
    )


def test_a_policy_is_made_of_its_statements(world):
    answer = world("lambda", "AddPermission", FunctionName="f", StatementId="s3", Action="lambda:InvokeFunction",
                   Principal="s3.amazonaws.com", SourceArn="arn:aws:s3:::b", SourceAccount="000000000000")  # fmt: skip
    statement = json.loads(answer["Statement"])
    assert statement == {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": f"{ARN}f",
        "Condition": {
            "StringEquals": {"AWS:SourceAccount": "000000000000"},
            "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"},
        },
    }
    found = world("lambda", "GetPolicy", FunctionName="f")
    assert json.loads(found["Policy"])["Statement"] == [statement]
    again = {"FunctionName": "f", "StatementId": "s3", "Action": "lambda:*", "Principal": "*"}
    assert refused(world, "AddPermission", **again)[0] == "ResourceConflictException"
    assert refused(world, "RemovePermission", FunctionName="f", StatementId="no")[0] == "ResourceNotFoundException"
    assert refused(world, "RemovePermission", FunctionName="f", StatementId="s3", RevisionId="old")[0] == (
        "PreconditionFailedException"
    )
    world("lambda", "RemovePermission", FunctionName="f", StatementId="s3", RevisionId=found["RevisionId"])
    assert refused(world, "GetPolicy", FunctionName="f")[0] == "ResourceNotFoundException"


def test_policies_that_are_refused(world):
    base = {"FunctionName": "f", "StatementId": "a", "Action": "lambda:InvokeFunction", "Principal": "*"}
    assert refused(world, "AddPermission", **{**base, "Action": "s3:Get"})[0] == "ValidationException"
    assert refused(world, "AddPermission", **{**base, "StatementId": "a b"})[0] == "ValidationException"
    assert "principal was invalid" in refused(world, "AddPermission", **{**base, "Principal": "me"})[1]
    long = f"arn:aws:s3:::{'x' * 9_900}"
    assert refused(world, "AddPermission", **{**base, "SourceArn": f"{long}{long}"})[0] == "ValidationException"
    for sid in ("b", "c"):
        world("lambda", "AddPermission", **{**base, "StatementId": sid, "SourceArn": long})
    assert refused(world, "AddPermission", **{**base, "SourceArn": long})[0] == "PolicyLengthExceededException"


def test_a_function_url_can_be_found_by_its_id(world):
    cors = {"AllowOrigins": ["*"], "MaxAge": 60}
    created = world("lambda", "CreateFunctionUrlConfig", FunctionName="f", AuthType="NONE", Cors=cors,
                    InvokeMode="RESPONSE_STREAM")  # fmt: skip
    url_id = created["FunctionUrl"].split("//")[1].split(".")[0]
    assert created["FunctionUrl"] == f"http://{url_id}.lambda-url.us-east-1.localhost:4566/" and len(url_id) == 32
    seen = []

    def look(ctx):
        seen.append((world.functions.find_url(ctx, url_id), world.functions.find_url(ctx, "no")))
        return {}

    world.machine.perform(look, lambda reply: None)
    world.settle()
    ((found, missing),) = seen
    assert (found.function_name, found.qualifier, found.auth_type, found.invoke_mode, found.cors, found.scope) == (
        "f", None, "NONE", "RESPONSE_STREAM", cors, Scope(),
    )  # fmt: skip
    assert missing is None
    assert (
        refused(world, "CreateFunctionUrlConfig", FunctionName="f", AuthType="NONE")[0] == "ResourceConflictException"
    )
    world("lambda", "UpdateFunctionUrlConfig", FunctionName="f", AuthType="AWS_IAM")
    changed = world("lambda", "GetFunctionUrlConfig", FunctionName="f")
    assert (changed["AuthType"], changed["InvokeMode"], changed["Cors"]) == ("AWS_IAM", "RESPONSE_STREAM", cors)
    assert changed["FunctionUrl"] == created["FunctionUrl"]
    world("lambda", "DeleteFunctionUrlConfig", FunctionName="f")
    assert refused(world, "GetFunctionUrlConfig", FunctionName="f")[0] == "ResourceNotFoundException"


def test_function_urls_of_aliases_and_what_is_refused(world):
    world("lambda", "PublishVersion", FunctionName="f")
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    world("lambda", "CreateFunctionUrlConfig", FunctionName="f", AuthType="NONE")
    world("lambda", "CreateFunctionUrlConfig", FunctionName="f", Qualifier="live", AuthType="NONE")
    arns = [
        config["FunctionArn"]
        for config in world("lambda", "ListFunctionUrlConfigs", FunctionName="f")["FunctionUrlConfigs"]
    ]
    assert arns == [f"{ARN}f", f"{ARN}f:live"]
    base = {"FunctionName": "f", "AuthType": "NONE"}
    assert refused(world, "CreateFunctionUrlConfig", **{**base, "Qualifier": "1"})[0] == "ValidationException"
    assert refused(world, "UpdateFunctionUrlConfig", **{**base, "AuthType": "OPEN"})[0] == "ValidationException"
    assert refused(world, "UpdateFunctionUrlConfig", **base, Cors={"MaxAge": 90_000})[0] == "ValidationException"
    assert refused(world, "UpdateFunctionUrlConfig", **base, Cors={"AllowMethods": ["BREW"]})[0] == (
        "InvalidParameterValueException"
    )
    world("lambda", "DeleteAlias", FunctionName="f", Name="live")
    assert len(world("lambda", "ListFunctionUrlConfigs", FunctionName="f")["FunctionUrlConfigs"]) == 2


def test_put_overwrites_and_update_merges_the_asynchronous_settings(world):
    put = world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f", MaximumRetryAttempts=1)
    assert put["FunctionArn"] == f"{ARN}f:$LATEST" and put["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}}
    assert "MaximumEventAgeInSeconds" not in put
    merged = world("lambda", "UpdateFunctionEventInvokeConfig", FunctionName="f", MaximumEventAgeInSeconds=90)
    assert (merged["MaximumRetryAttempts"], merged["MaximumEventAgeInSeconds"]) == (1, 90)
    world("lambda", "PutFunctionEventInvokeConfig", FunctionName="f", MaximumEventAgeInSeconds=100)
    assert "MaximumRetryAttempts" not in world("lambda", "GetFunctionEventInvokeConfig", FunctionName="f")
    listed = world("lambda", "ListFunctionEventInvokeConfigs", FunctionName="f")["FunctionEventInvokeConfigs"]
    assert [config["MaximumEventAgeInSeconds"] for config in listed] == [100]
    world("lambda", "DeleteFunctionEventInvokeConfig", FunctionName="f")
    assert "doesn't have an EventInvokeConfig" in refused(world, "GetFunctionEventInvokeConfig", FunctionName="f")[1]


def test_asynchronous_settings_that_are_refused(world):
    def put(**params):
        return refused(world, "PutFunctionEventInvokeConfig", FunctionName="f", **params)

    assert put()[1] == "You must specify at least one of error handling or destination setting."
    assert put(MaximumRetryAttempts=3)[0] == "ValidationException"
    assert put(MaximumEventAgeInSeconds=59)[0] == "ValidationException"
    itself = put(DestinationConfig={"OnFailure": {"Destination": f"{ARN}f"}})
    assert itself[1] == "You can't specify the function as a destination for itself."
    assert put(DestinationConfig={"OnSuccess": {"Destination": "arn:aws:s3:::b"}})[1] == (
        "The provided destination config DestinationConfig(onSuccess=OnSuccess(destination=arn:aws:s3:::b), "
        "onFailure=null) is invalid."
    )


def test_tags_of_functions_and_mappings():
    world = TriggerWorld()
    world.create(Tags={"team": "a"})
    world("lambda", "TagResource", Resource=f"{ARN}f", Tags={"stage": "dev"})
    assert world("lambda", "ListTags", Resource=f"{ARN}f") == {"Tags": {"team": "a", "stage": "dev"}}
    world("lambda", "UntagResource", Resource=f"{ARN}f", TagKeys=["team", "none"])
    assert world("lambda", "GetFunction", FunctionName="f")["Tags"] == {"stage": "dev"}
    _, arn = world.queue("q")
    uuid = world.map(arn, Tags={"x": "y"})
    mapping_arn = f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{uuid}"
    world("lambda", "TagResource", Resource=mapping_arn, Tags={"z": "1"})
    assert world("lambda", "ListTags", Resource=mapping_arn)["Tags"] == {"x": "y", "z": "1"}
    assert refused(world, "ListTags", Resource=f"{ARN}g")[0] == "ResourceNotFoundException"
    assert refused(world, "TagResource", Resource=f"{ARN}f", Tags={"aws:a": "b"})[0] == "InvalidParameterValueException"
    assert refused(world, "TagResource", Resource=f"{ARN}f:1", Tags={"a": "b"})[0] == "InvalidParameterValueException"


def test_with_policies_enforced_the_role_must_trust_lambda():
    from preheat.services.iam.service import build as build_iam

    world = LambdaWorld(build_iam)
    statement = {"Effect": "Allow", "Principal": {"Service": "SERVICE.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [statement]}
    for service in ("lambda", "ec2"):
        document = json.dumps(trust).replace("SERVICE", service)
        world("iam", "CreateRole", RoleName=f"for-{service}", AssumeRolePolicyDocument=document)
    role = "arn:aws:iam::000000000000:role/for-"
    world.create("before", Role=f"{role}nobody")
    world.machine.authorizer = lambda ctx, service, operation, params: None
    world.create("good", Role=f"{role}lambda")
    words = ("InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda.")
    for name in ("ec2", "nobody"):
        with pytest.raises(AwsError) as caught:
            world.create("bad", Role=f"{role}{name}")
        assert (caught.value.code, caught.value.message) == words
        assert refused(world, "UpdateFunctionConfiguration", FunctionName="good", Role=f"{role}{name}") == words

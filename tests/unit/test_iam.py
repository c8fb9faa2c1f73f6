"""IAM and STS without a socket."""

import json
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest

from preheat.identity import policy, sessions
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.services.contract import Principal
from preheat.services.iam.service import build as build_iam
from preheat.services.sts.service import build as build_sts
from preheat.services.sts.service import session_credentials
from tests.support.inprocess import InProcess

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    }
)
DOCUMENT = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
)
BASIC = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
ACCOUNT = "000000000000"


@pytest.fixture
def world():
    return InProcess(build_iam, build_sts)


def iam(world, operation, **params):
    return world("iam", operation, **params)


def refused(world, operation, service="iam", **params) -> AwsError:
    with pytest.raises(AwsError) as caught:
        world(service, operation, **params)
    return caught.value


def inside(world, work, principal=None, request=None):
    """`work(ctx)` in a transaction of its own."""
    results: list = []

    def run(ctx):
        ctx.request = request
        if principal is not None:
            ctx.principal = principal
        results.append(work(ctx))
        return {}

    replies: list = []
    world.machine.perform(run, replies.append)
    world.settle()
    assert not isinstance(replies[0], AwsError), replies[0]
    assert not world.defects, world.defects
    return results[0]


def test_users_and_their_keys(world):
    service = world.machine.services["iam"]
    assert not inside(world, service.has_users)
    user = iam(world, "CreateUser", UserName="Alice", Path="/team/", Tags=[{"Key": "a", "Value": "1"}])["User"]
    assert (user["Arn"], user["UserId"][:4]) == (f"arn:aws:iam::{ACCOUNT}:user/team/Alice", "AIDA")
    assert not inside(world, service.has_users)
    assert refused(world, "CreateUser", UserName="alice").code == "EntityAlreadyExists"
    key = iam(world, "CreateAccessKey", UserName="Alice")["AccessKey"]
    assert inside(world, service.has_users)
    assert (key["AccessKeyId"][:4], len(key["AccessKeyId"]), len(key["SecretAccessKey"])) == ("AKIA", 20, 40)
    known = inside(world, lambda ctx: service.lookup(ctx, key["AccessKeyId"]))
    assert (known.secret, known.identity.arn, known.active) == (key["SecretAccessKey"], user["Arn"], True)
    iam(world, "CreateAccessKey", UserName="Alice")
    assert refused(world, "CreateAccessKey", UserName="Alice").message == "Cannot exceed quota for AccessKeysPerUser: 2"
    iam(world, "UpdateAccessKey", UserName="Alice", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert not inside(world, lambda ctx: service.lookup(ctx, key["AccessKeyId"])).active
    assert refused(world, "DeleteUser", UserName="Alice").code == "DeleteConflict"
    for held in iam(world, "ListAccessKeys", UserName="Alice")["AccessKeyMetadata"]:
        iam(world, "DeleteAccessKey", AccessKeyId=held["AccessKeyId"])
    iam(world, "UpdateUser", UserName="Alice", NewUserName="Bob")
    assert refused(world, "GetUser", UserName="Alice").message == "The user with name Alice cannot be found."
    iam(world, "DeleteUser", UserName="bob")
    assert iam(world, "ListUsers") == {"Users": [], "IsTruncated": False}
    assert inside(world, lambda ctx: service.lookup(ctx, key["AccessKeyId"])) is None


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("CreateUser", {"UserName": "a b"}, "ValidationError"),
        ("CreateUser", {"UserName": "a" * 65}, "ValidationError"),
        ("CreateUser", {"UserName": "a", "Path": "team"}, "ValidationError"),
        ("CreateUser", {"UserName": "a", "PermissionsBoundary": "arn:aws:iam::aws:policy/None"}, "NoSuchEntity"),
        ("CreateRole", {"RoleName": "r", "AssumeRolePolicyDocument": DOCUMENT}, "MalformedPolicyDocument"),
        (
            "CreateRole",
            {"RoleName": "r", "AssumeRolePolicyDocument": TRUST, "MaxSessionDuration": 60},
            "ValidationError",
        ),
        ("CreatePolicy", {"PolicyName": "p", "PolicyDocument": TRUST}, "MalformedPolicyDocument"),
        ("CreatePolicy", {"PolicyName": "p", "PolicyDocument": "{"}, "MalformedPolicyDocument"),
        ("GetRole", {"RoleName": "r"}, "NoSuchEntity"),
        ("GetPolicy", {"PolicyArn": "arn:aws:iam::000000000000:policy/p"}, "NoSuchEntity"),
        ("CreateAccessKey", {"UserName": "nobody"}, "NoSuchEntity"),
        ("DeleteAccessKey", {"AccessKeyId": "AKIANOBODY"}, "NoSuchEntity"),
        ("ListUsers", {"MaxItems": 0}, "ValidationError"),
        ("ListUsers", {"Marker": "nobody"}, "ValidationError"),
    ],
)
def test_refusals(world, operation, params, code):
    assert refused(world, operation, **params).code == code


def test_roles(world):
    role = iam(world, "CreateRole", RoleName="r", AssumeRolePolicyDocument=TRUST, Description="d")["Role"]
    assert (role["Arn"], role["MaxSessionDuration"]) == (f"arn:aws:iam::{ACCOUNT}:role/r", 3_600)
    assert json.loads(unquote(role["AssumeRolePolicyDocument"])) == json.loads(TRUST)
    iam(world, "UpdateRole", RoleName="r", MaxSessionDuration=7_200)
    other = TRUST.replace("lambda", "ecs")
    iam(world, "UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=other)
    shown = iam(world, "GetRole", RoleName="r")["Role"]
    assert (shown["MaxSessionDuration"], unquote(shown["AssumeRolePolicyDocument"])) == (7_200, other)
    iam(world, "PutRolePolicy", RoleName="r", PolicyName="inline", PolicyDocument=DOCUMENT)
    inline = iam(world, "GetRolePolicy", RoleName="r", PolicyName="inline")
    assert unquote(inline["PolicyDocument"]) == DOCUMENT
    iam(world, "AttachRolePolicy", RoleName="r", PolicyArn=BASIC)
    attached = iam(world, "ListAttachedRolePolicies", RoleName="r")["AttachedPolicies"]
    assert attached == [{"PolicyName": "AWSLambdaBasicExecutionRole", "PolicyArn": BASIC}]
    assert refused(world, "AttachRolePolicy", RoleName="r", PolicyArn=BASIC + "X").code == "NoSuchEntity"
    assert refused(world, "DeleteRole", RoleName="r").message == "Cannot delete entity, must detach all policies first."
    iam(world, "DetachRolePolicy", RoleName="r", PolicyArn=BASIC)
    assert refused(world, "DetachRolePolicy", RoleName="r", PolicyArn=BASIC).code == "NoSuchEntity"
    assert refused(world, "DeleteRole", RoleName="r").message == "Cannot delete entity, must delete policies first."
    iam(world, "DeleteRolePolicy", RoleName="r", PolicyName="inline")
    iam(world, "DeleteRole", RoleName="r")
    assert refused(world, "GetRolePolicy", RoleName="r", PolicyName="inline").code == "NoSuchEntity"


def test_inline_policies_have_a_limit(world):
    iam(world, "CreateUser", UserName="a")
    wide = json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": ["arn:aws:s3:::" + "x" * 1_900]}
    ]})  # fmt: skip
    iam(world, "PutUserPolicy", UserName="a", PolicyName="one", PolicyDocument=wide)
    error = refused(world, "PutUserPolicy", UserName="a", PolicyName="two", PolicyDocument=DOCUMENT)
    assert (error.code, error.message) == ("LimitExceeded", "Maximum policy size of 2048 bytes exceeded for user a")
    iam(world, "PutUserPolicy", UserName="a", PolicyName="one", PolicyDocument=DOCUMENT)


def test_managed_policies_and_versions(world):
    arn = iam(world, "CreatePolicy", PolicyName="p", PolicyDocument=DOCUMENT)["Policy"]["Arn"]
    assert refused(world, "CreatePolicy", PolicyName="P", PolicyDocument=DOCUMENT).code == "EntityAlreadyExists"
    second = DOCUMENT.replace("GetObject", "PutObject")
    made = iam(world, "CreatePolicyVersion", PolicyArn=arn, PolicyDocument=second, SetAsDefault=True)
    assert made["PolicyVersion"]["VersionId"] == "v2"
    assert iam(world, "GetPolicy", PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v2"
    assert unquote(iam(world, "GetPolicyVersion", PolicyArn=arn, VersionId="v2")["PolicyVersion"]["Document"]) == second
    assert refused(world, "DeletePolicyVersion", PolicyArn=arn, VersionId="v2").code == "DeleteConflict"
    assert refused(world, "GetPolicyVersion", PolicyArn=arn, VersionId="v9").code == "NoSuchEntity"
    assert refused(world, "DeletePolicy", PolicyArn=arn).code == "DeleteConflict"
    for _ in range(3):
        iam(world, "CreatePolicyVersion", PolicyArn=arn, PolicyDocument=DOCUMENT)
    error = refused(world, "CreatePolicyVersion", PolicyArn=arn, PolicyDocument=DOCUMENT)
    assert (error.code, error.status) == ("LimitExceeded", 409)
    iam(world, "SetDefaultPolicyVersion", PolicyArn=arn, VersionId="v5")
    for version in ("v1", "v2", "v3", "v4"):
        iam(world, "DeletePolicyVersion", PolicyArn=arn, VersionId=version)
    iam(world, "CreateGroup", GroupName="g")
    iam(world, "AttachGroupPolicy", GroupName="g", PolicyArn=arn)
    assert iam(world, "ListEntitiesForPolicy", PolicyArn=arn)["PolicyGroups"][0]["GroupName"] == "g"
    assert refused(world, "DeletePolicy", PolicyArn=arn).message == "Cannot delete a policy attached to entities."
    iam(world, "DetachGroupPolicy", GroupName="g", PolicyArn=arn)
    iam(world, "DeletePolicy", PolicyArn=arn)
    assert refused(world, "DeletePolicy", PolicyArn=BASIC).code == "AccessDenied"
    names = [entry["PolicyName"] for entry in iam(world, "ListPolicies", Scope="AWS", MaxItems=1_000)["Policies"]]
    assert "AdministratorAccess" in names and len(names) > 20


def test_every_aws_managed_policy_is_a_policy():
    from preheat.services.iam.managed import MANAGED

    for text in MANAGED.values():
        policy.check_identity_policy(text)


def test_pages(world):
    for number in range(5):
        iam(world, "CreateUser", UserName=f"user{number}")
    first = iam(world, "ListUsers", MaxItems=2)
    assert [user["UserName"] for user in first["Users"]] == ["user0", "user1"] and first["IsTruncated"]
    rest = iam(world, "ListUsers", Marker=first["Marker"])
    assert [user["UserName"] for user in rest["Users"]] == ["user2", "user3", "user4"] and not rest["IsTruncated"]


def test_tags(world):
    iam(world, "CreateUser", UserName="a", Tags=[{"Key": "Team", "Value": "x"}])
    iam(world, "TagUser", UserName="a", Tags=[{"Key": "team", "Value": "y"}, {"Key": "b", "Value": ""}])
    assert iam(world, "ListUserTags", UserName="a")["Tags"] == [
        {"Key": "team", "Value": "y"},
        {"Key": "b", "Value": ""},
    ]
    iam(world, "UntagUser", UserName="a", TagKeys=["TEAM"])
    assert iam(world, "ListUserTags", UserName="a")["Tags"] == [{"Key": "b", "Value": ""}]
    twice = [{"Key": "c", "Value": "1"}, {"Key": "C", "Value": "2"}]
    assert refused(world, "TagUser", UserName="a", Tags=twice).code == "InvalidInput"


def test_the_policies_of_a_user(world):
    service = world.machine.services["iam"]
    user = iam(world, "CreateUser", UserName="a", Tags=[{"Key": "Team", "Value": "x"}])["User"]
    iam(world, "CreateGroup", GroupName="g")
    iam(world, "AddUserToGroup", GroupName="g", UserName="a")
    iam(world, "PutGroupPolicy", GroupName="g", PolicyName="p", PolicyDocument=DOCUMENT)
    iam(world, "AttachUserPolicy", UserName="a", PolicyArn=BASIC)
    iam(
        world,
        "PutUserPermissionsBoundary",
        UserName="a",
        PermissionsBoundary="arn:aws:iam::aws:policy/AmazonS3FullAccess",
    )
    caller = Principal(user["Arn"], ACCOUNT, "user", user["UserId"])
    found = inside(world, lambda ctx: service.policies_for(ctx, caller))
    assert (len(found.identity), len(found.boundary), found.session) == (2, 1, None)
    assert found.context["aws:username"] == ["a"] and found.context["aws:principaltag/team"] == ["x"]
    asked = policy.Request("s3:GetObject", "arn:aws:s3:::b/k", caller.arn, ACCOUNT, found.principals, found.context)
    assert policy.evaluate(asked, identity=found.identity, boundary=found.boundary).allowed
    logs = policy.Request("logs:PutLogEvents", "*", caller.arn, ACCOUNT, found.principals, found.context)
    decision = policy.evaluate(logs, identity=found.identity, boundary=found.boundary)
    assert (decision.allowed, decision.source) == (False, "permissions boundary")


def signed(key, secret, token=None):
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    asked = AWSRequest(
        method="POST",
        url="http://h/",
        data=b"{}",
        headers={"X-Amz-Target": "DynamoDB_20120810.ListTables", "Host": "h"},
    )
    botocore.auth.SigV4Auth(Credentials(key, secret, token), "dynamodb", "us-east-1").add_auth(asked)
    headers = {name.lower(): value for name, value in asked.headers.items()}
    moment = datetime.strptime(asked.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return HttpRequest("POST", "/", headers, b"{}"), moment.timestamp()


def test_any_key_is_root_until_a_user_has_a_key(world):
    service = world.machine.services["iam"]
    request, now = signed("whatever", "any")
    assert service.identify(world.db, request, enforce=False, now=now + 9_999).kind == "root"
    with pytest.raises(AwsError) as caught:
        service.identify(world.db, request, enforce=True, now=now)
    assert caught.value.code == "UnrecognizedClientException"
    iam(world, "CreateUser", UserName="a")
    assert service.identify(world.db, request, enforce=False, now=now).kind == "root"
    iam(world, "CreateAccessKey", UserName="a")
    with pytest.raises(AwsError):
        service.identify(world.db, request, enforce=False, now=now)
    key = iam(world, "CreateAccessKey", UserName="a")["AccessKey"]
    request, now = signed(key["AccessKeyId"], key["SecretAccessKey"])
    assert service.identify(world.db, request, enforce=False, now=now).arn.endswith(":user/a")
    request, now = signed(key["AccessKeyId"], "wrong")
    with pytest.raises(AwsError) as caught:
        service.identify(world.db, request, enforce=False, now=now)
    assert caught.value.code == "InvalidSignatureException"


def test_a_session_is_recognised_without_enforcement(world):
    service = world.machine.services["iam"]
    role = f"arn:aws:iam::{ACCOUNT}:role/fn-role"
    given = inside(world, lambda ctx: session_credentials(ctx, role, "fn"))
    request, now = signed(*given.values())
    caller = service.identify(world.db, request, enforce=False, now=now)
    assert (caller.kind, caller.arn) == ("role", f"arn:aws:sts::{ACCOUNT}:assumed-role/fn-role/fn")
    request, now = signed("ASIAX", "any", "some other platform's token")
    assert service.identify(world.db, request, enforce=False, now=now).kind == "root"


# -- STS --------------------------------------------------------------------------------------------------------------


def sts(world, operation, **params):
    return world("sts", operation, **params)


def test_who_am_i(world):
    assert sts(world, "GetCallerIdentity") == {
        "UserId": ACCOUNT, "Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:root",
    }  # fmt: skip


def test_a_role_is_assumed(world):
    service = world.machine.services["iam"]
    role = iam(world, "CreateRole", RoleName="r", AssumeRolePolicyDocument=TRUST)["Role"]
    iam(world, "AttachRolePolicy", RoleName="r", PolicyArn=BASIC)
    answer = sts(
        world, "AssumeRole", RoleArn=role["Arn"], RoleSessionName="session", Policy=DOCUMENT, DurationSeconds=900,
        Tags=[{"Key": "Job", "Value": "x"}],
    )  # fmt: skip
    given = answer["Credentials"]
    assert given["Expiration"].timestamp() == int(world.clock.now()) + 900
    assert answer["AssumedRoleUser"] == {
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/r/session", "AssumedRoleId": role["RoleId"] + ":session",
    }  # fmt: skip
    known = inside(world, lambda ctx: service.lookup(ctx, given["AccessKeyId"], given["SessionToken"]))
    assert (known.secret, known.token) == (given["SecretAccessKey"], given["SessionToken"])
    assert (known.identity.kind, known.identity.arn) == ("role", answer["AssumedRoleUser"]["Arn"])
    caller = Principal(known.identity.arn, ACCOUNT, "role", known.identity.user_id, given["AccessKeyId"])
    request = HttpRequest("GET", "/", {"x-amz-security-token": given["SessionToken"]})
    found = inside(world, lambda ctx: service.policies_for(ctx, caller), request=request)
    assert (len(found.identity), found.session, found.principals) == (1, (DOCUMENT,), (role["Arn"],))
    assert found.context["aws:principaltag/job"] == ["x"]
    forged = given["SessionToken"][:-4] + "AAAA"
    assert inside(world, lambda ctx: service.lookup(ctx, given["AccessKeyId"], forged)) is None
    assert inside(world, lambda ctx: service.lookup(ctx, "ASIAOTHER", given["SessionToken"])) is None


def test_credentials_of_a_function(world):
    service = world.machine.services["iam"]
    role = f"arn:aws:iam::{ACCOUNT}:role/service/fn-role"
    given = inside(world, lambda ctx: session_credentials(ctx, role, "fn"))
    assert set(given) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    known = inside(world, lambda ctx: service.lookup(ctx, given["AWS_ACCESS_KEY_ID"], given["AWS_SESSION_TOKEN"]))
    assert (known.secret, known.expires) == (given["AWS_SECRET_ACCESS_KEY"], None)
    assert known.identity.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/fn-role/fn"


def test_sessions_survive_a_restart(tmp_path):
    world = InProcess(build_iam, build_sts, directory=tmp_path)
    given = sts(world, "GetSessionToken")["Credentials"]
    world.db.close()
    again = InProcess(build_iam, build_sts, directory=tmp_path)
    service = again.machine.services["iam"]
    known = inside(again, lambda ctx: service.lookup(ctx, given["AccessKeyId"], given["SessionToken"]))
    assert known.secret == given["SecretAccessKey"]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"RoleArn": "arn:aws:iam::000000000000:user/x"}, "ValidationError"),
        ({"RoleArn": "nonsense"}, "ValidationError"),
        ({"RoleSessionName": "a b"}, "ValidationError"),
        ({"RoleSessionName": "a"}, "ValidationError"),
        ({"DurationSeconds": 899}, "ValidationError"),
        ({"DurationSeconds": 7_200}, "ValidationError"),
        ({"Policy": "{"}, "MalformedPolicyDocument"),
        ({"Policy": "x" * 2_049}, "PackedPolicyTooLarge"),
        ({"TokenCode": "123456", "SerialNumber": "x"}, "AccessDenied"),
        ({"Tags": [{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "2"}]}, "InvalidParameterValue"),
    ],
)
def test_assume_role_refusals(world, params, code):
    role = iam(world, "CreateRole", RoleName="r", AssumeRolePolicyDocument=TRUST)["Role"]
    assert (
        refused(world, "AssumeRole", "sts", **{"RoleArn": role["Arn"], "RoleSessionName": "session", **params}).code
        == code
    )


def test_the_trust_policy_is_enforced(tmp_path):
    from types import SimpleNamespace

    world = InProcess(build_iam, build_sts, settings=SimpleNamespace(state=None, iam="enforce"))
    role = iam(world, "CreateRole", RoleName="r", AssumeRolePolicyDocument=TRUST)["Role"]
    error = refused(world, "AssumeRole", "sts", RoleArn=role["Arn"], RoleSessionName="session")
    assert (error.code, error.message) == (
        "AccessDenied",
        f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: sts:AssumeRole on resource: {role['Arn']}",
    )
    mine = TRUST.replace('"Service": "lambda.amazonaws.com"', f'"AWS": "arn:aws:iam::{ACCOUNT}:root"')
    iam(world, "UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=mine)
    sts(world, "AssumeRole", RoleArn=role["Arn"], RoleSessionName="session")
    assert (
        refused(world, "AssumeRole", "sts", RoleArn=role["Arn"] + "x", RoleSessionName="session").code == "AccessDenied"
    )


def test_the_account_in_an_access_key(world):
    iam(world, "CreateUser", UserName="a")
    key = iam(world, "CreateAccessKey", UserName="a")["AccessKey"]["AccessKeyId"]
    assert sts(world, "GetAccessKeyInfo", AccessKeyId=key) == {"Account": ACCOUNT}
    other = sessions.new_access_key("AKIA", "123456789012", world.entropy)
    assert sts(world, "GetAccessKeyInfo", AccessKeyId=other) == {"Account": "123456789012"}
    assert refused(world, "GetAccessKeyInfo", "sts", AccessKeyId="short").code == "ValidationError"


def test_what_sts_does_not_do(world):
    error = refused(world, "AssumeRoleWithWebIdentity", "sts", RoleArn="x", RoleSessionName="y", WebIdentityToken="z")
    assert (error.code, error.status) == ("NotImplemented", 501)

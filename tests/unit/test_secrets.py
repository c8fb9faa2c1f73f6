"""Secrets Manager without a socket."""

import string

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.secretsmanager.service import build
from tests.support.inprocess import InProcess

TOKEN = "11111111-2222-3333-4444-55555555555{}"


@pytest.fixture
def world():
    return InProcess(build)


def sm(world, operation, **params):
    return world("secretsmanager", operation, **params)


def refused(world, operation, **params) -> AwsError:
    with pytest.raises(AwsError) as caught:
        sm(world, operation, **params)
    return caught.value


def value(world, **params):
    return sm(world, "GetSecretValue", SecretId="db", **params)["SecretString"]


def stages(world):
    return sm(world, "DescribeSecret", SecretId="db").get("VersionIdsToStages", {})


def test_creating_and_reading(world):
    made = sm(world, "CreateSecret", Name="db", SecretString="one", Description="d", Tags=[{"Key": "a", "Value": "1"}])
    assert made["ARN"].startswith("arn:aws:secretsmanager:us-east-1:000000000000:secret:db-")
    assert len(made["ARN"].rsplit("-", 1)[-1]) == 6
    for identifier in ("db", made["ARN"], made["ARN"][:-7]):
        got = sm(world, "GetSecretValue", SecretId=identifier)
        assert (got["SecretString"], got["VersionStages"], got["VersionId"]) == (
            "one",
            ["AWSCURRENT"],
            made["VersionId"],
        )
    shown = sm(world, "DescribeSecret", SecretId="db")
    assert (shown["Description"], shown["Tags"]) == ("d", [{"Key": "a", "Value": "1"}])
    assert shown["LastAccessedDate"].timestamp() % 86_400 == 0
    assert refused(world, "CreateSecret", Name="db", SecretString="two").message == (
        "The operation failed because the secret db already exists."
    )
    assert refused(world, "GetSecretValue", SecretId="absent").message == (
        "Secrets Manager can't find the specified secret."
    )


def test_stages_move(world):
    sm(world, "CreateSecret", Name="db", SecretString="one", ClientRequestToken=TOKEN.format(1))
    sm(world, "PutSecretValue", SecretId="db", SecretString="two", ClientRequestToken=TOKEN.format(2))
    assert stages(world) == {TOKEN.format(1): ["AWSPREVIOUS"], TOKEN.format(2): ["AWSCURRENT"]}
    assert (value(world), value(world, VersionStage="AWSPREVIOUS")) == ("two", "one")
    sm(world, "UpdateSecret", SecretId="db", SecretString="three", ClientRequestToken=TOKEN.format(3))
    assert stages(world) == {TOKEN.format(2): ["AWSPREVIOUS"], TOKEN.format(3): ["AWSCURRENT"]}
    sm(
        world, "PutSecretValue", SecretId="db", SecretString="four", ClientRequestToken=TOKEN.format(4),
        VersionStages=["AWSPENDING"],
    )  # fmt: skip
    assert (value(world), value(world, VersionStage="AWSPENDING")) == ("three", "four")
    assert value(world, VersionId=TOKEN.format(1)) == "one"
    versions = sm(world, "ListSecretVersionIds", SecretId="db", IncludeDeprecated=True)["Versions"]
    assert [version["VersionStages"] for version in versions] == [[], ["AWSPREVIOUS"], ["AWSCURRENT"], ["AWSPENDING"]]
    sm(
        world, "UpdateSecretVersionStage", SecretId="db", VersionStage="AWSCURRENT",
        MoveToVersionId=TOKEN.format(2), RemoveFromVersionId=TOKEN.format(3),
    )  # fmt: skip
    assert stages(world)[TOKEN.format(2)] == ["AWSCURRENT"] and stages(world)[TOKEN.format(3)] == ["AWSPREVIOUS"]


def test_a_token_makes_one_version(world):
    sm(world, "CreateSecret", Name="db", SecretString="one", ClientRequestToken=TOKEN.format(1))
    again = sm(world, "CreateSecret", Name="db", SecretString="one", ClientRequestToken=TOKEN.format(1))
    assert again["VersionId"] == TOKEN.format(1)
    sm(world, "PutSecretValue", SecretId="db", SecretString="two", ClientRequestToken=TOKEN.format(2))
    sm(world, "PutSecretValue", SecretId="db", SecretString="two", ClientRequestToken=TOKEN.format(2))
    assert len(stages(world)) == 2
    error = refused(world, "PutSecretValue", SecretId="db", SecretString="other", ClientRequestToken=TOKEN.format(2))
    assert error.code == "ResourceExistsException"


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("CreateSecret", {"Name": "a b"}, "ValidationException"),
        ("CreateSecret", {"Name": "x", "SecretString": "a", "SecretBinary": b"a"}, "InvalidParameterException"),
        ("CreateSecret", {"Name": "x", "SecretString": "a" * 65_537}, "InvalidParameterException"),
        (
            "CreateSecret",
            {"Name": "x", "SecretString": "a", "ClientRequestToken": "short"},
            "InvalidParameterException",
        ),
        ("CreateSecret", {"Name": "x", "AddReplicaRegions": [{"Region": "eu-west-1"}]}, "InvalidParameterException"),
        ("PutSecretValue", {"SecretId": "db"}, "InvalidRequestException"),
        ("GetSecretValue", {"SecretId": "db", "VersionStage": "AWSPREVIOUS"}, "ResourceNotFoundException"),
        ("GetSecretValue", {"SecretId": "db", "VersionId": TOKEN.format(9)}, "ResourceNotFoundException"),
        ("UpdateSecretVersionStage", {"SecretId": "db", "VersionStage": "x"}, "InvalidParameterException"),
        (
            "UpdateSecretVersionStage",
            {"SecretId": "db", "VersionStage": "AWSCURRENT", "RemoveFromVersionId": TOKEN.format(0)},
            "InvalidParameterException",
        ),
        ("DeleteSecret", {"SecretId": "db", "RecoveryWindowInDays": 3}, "InvalidParameterException"),
        (
            "DeleteSecret",
            {"SecretId": "db", "RecoveryWindowInDays": 7, "ForceDeleteWithoutRecovery": True},
            "InvalidParameterException",
        ),
        ("RotateSecret", {"SecretId": "db"}, "InvalidRequestException"),
        ("PutResourcePolicy", {"SecretId": "db", "ResourcePolicy": "{"}, "MalformedPolicyDocumentException"),
        ("ListSecrets", {"Filters": [{"Key": "colour", "Values": ["x"]}]}, "ValidationException"),
        ("BatchGetSecretValue", {}, "InvalidParameterException"),
    ],
)
def test_refusals(world, operation, params, code):
    sm(world, "CreateSecret", Name="db", SecretString="one", ClientRequestToken=TOKEN.format(0))
    before = sm(world, "DescribeSecret", SecretId="db")
    assert refused(world, operation, **params).code == code
    assert sm(world, "DescribeSecret", SecretId="db") == before


def test_the_recovery_window(world):
    sm(world, "CreateSecret", Name="db", SecretString="one")
    gone = sm(world, "DeleteSecret", SecretId="db", RecoveryWindowInDays=7)
    assert gone["DeletionDate"].timestamp() == world.clock.now() + 7 * 86_400
    assert refused(world, "GetSecretValue", SecretId="db").message == (
        "You can't perform this operation on the secret because it was marked for deletion."
    )
    assert "scheduled for deletion" in refused(world, "CreateSecret", Name="db").message
    assert sm(world, "ListSecrets")["SecretList"] == []
    assert "DeletedDate" in sm(world, "ListSecrets", IncludePlannedDeletion=True)["SecretList"][0]
    world.advance(6 * 86_400)
    sm(world, "RestoreSecret", SecretId="db")
    assert value(world) == "one"
    sm(world, "DeleteSecret", SecretId="db", RecoveryWindowInDays=7)
    world.advance(7 * 86_400)
    assert refused(world, "RestoreSecret", SecretId="db").code == "ResourceNotFoundException"
    sm(world, "CreateSecret", Name="db", SecretString="anew")
    assert value(world) == "anew"


def test_deleting_at_once(world):
    sm(world, "CreateSecret", Name="db", SecretBinary=b"\x00\xff")
    assert sm(world, "GetSecretValue", SecretId="db")["SecretBinary"] == b"\x00\xff"
    sm(world, "DeleteSecret", SecretId="db", ForceDeleteWithoutRecovery=True)
    assert refused(world, "DescribeSecret", SecretId="db").code == "ResourceNotFoundException"
    assert sm(world, "DeleteSecret", SecretId="db", ForceDeleteWithoutRecovery=True)["Name"] == "db"


def test_values_are_sealed(tmp_path):
    world = InProcess(build, directory=tmp_path)
    sm(world, "CreateSecret", Name="db", SecretString="hush-hush")
    world.db.close()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"hush-hush" not in file.read_bytes()
    assert value(InProcess(build, directory=tmp_path)) == "hush-hush"


def test_listing_and_filters(world):
    for number, name in enumerate(("app/a", "app/b", "other")):
        world.advance(1)
        sm(world, "CreateSecret", Name=name, SecretString="x", Tags=[{"Key": "n", "Value": str(number)}])
    found = sm(world, "ListSecrets", Filters=[{"Key": "name", "Values": ["app/"]}], SortOrder="asc")["SecretList"]
    assert [entry["Name"] for entry in found] == ["app/a", "app/b"]
    found = sm(world, "ListSecrets", Filters=[{"Key": "name", "Values": ["!app/"]}])["SecretList"]
    assert [entry["Name"] for entry in found] == ["other"]
    first = sm(world, "ListSecrets", MaxResults=2)
    rest = sm(world, "ListSecrets", NextToken=first["NextToken"])
    names = [entry["Name"] for entry in first["SecretList"] + rest["SecretList"]]
    assert names == ["other", "app/b", "app/a"]
    batch = sm(world, "BatchGetSecretValue", SecretIdList=["other", "absent"])
    assert [entry["Name"] for entry in batch["SecretValues"]] == ["other"]
    assert batch["Errors"][0]["ErrorCode"] == "ResourceNotFoundException"


def test_random_passwords(world):
    word = sm(world, "GetRandomPassword", PasswordLength=40)["RandomPassword"]
    assert len(word) == 40 and " " not in word
    for alphabet in (string.ascii_uppercase, string.ascii_lowercase, string.digits, string.punctuation):
        assert set(word) & set(alphabet)
    plain = sm(world, "GetRandomPassword", ExcludePunctuation=True, ExcludeNumbers=True, ExcludeCharacters="abc")
    assert set(plain["RandomPassword"]) <= set(string.ascii_letters) - set("abc")
    assert refused(world, "GetRandomPassword", PasswordLength=3).code == "InvalidParameterException"
    assert refused(world, "GetRandomPassword", PasswordLength=4_097).code == "InvalidParameterException"


def test_resource_policies(world):
    sm(world, "CreateSecret", Name="db", SecretString="x")
    public = '{"Statement": {"Effect": "Allow", "Principal": "*", "Action": "secretsmanager:*", "Resource": "*"}}'
    assert refused(world, "PutResourcePolicy", SecretId="db", ResourcePolicy=public, BlockPublicPolicy=True).code == (
        "PublicPolicyException"
    )
    sm(world, "PutResourcePolicy", SecretId="db", ResourcePolicy=public)
    assert sm(world, "GetResourcePolicy", SecretId="db")["ResourcePolicy"] == public
    sm(world, "DeleteResourcePolicy", SecretId="db")
    assert "ResourcePolicy" not in sm(world, "GetResourcePolicy", SecretId="db")


def test_a_tag_without_a_key_is_refused(world):
    world("secretsmanager", "CreateSecret", Name="tagged", SecretString="x")
    with pytest.raises(AwsError) as refused:
        world("secretsmanager", "TagResource", SecretId="tagged", Tags=[{"Value": "v"}])
    assert refused.value.code == "InvalidParameterException"

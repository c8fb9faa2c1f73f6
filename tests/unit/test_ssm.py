"""Parameter Store without a socket."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.secretsmanager.service import build as build_secrets
from preheat.services.ssm.service import build
from tests.support.inprocess import InProcess


@pytest.fixture
def world():
    return InProcess(build, build_secrets)


def ssm(world, operation, **params):
    return world("ssm", operation, **params)


def put(world, name, value="v", kind="String", **more):
    return ssm(world, "PutParameter", Name=name, Value=value, Type=kind, **more)


def refused(world, operation, **params) -> AwsError:
    with pytest.raises(AwsError) as caught:
        ssm(world, operation, **params)
    return caught.value


def test_versions_and_selectors(world):
    assert put(world, "/app/x", "one") == {"Version": 1, "Tier": "Standard"}
    error = refused(world, "PutParameter", Name="/app/x", Value="two", Type="String")
    assert error.code == "ParameterAlreadyExists" and error.message.endswith("overwrite option in the request to true.")
    assert ssm(world, "PutParameter", Name="/app/x", Value="two", Overwrite=True)["Version"] == 2
    newest = ssm(world, "GetParameter", Name="/app/x")["Parameter"]
    assert (newest["Value"], newest["Version"], "Selector" in newest) == ("two", 2, False)
    assert newest["ARN"] == "arn:aws:ssm:us-east-1:000000000000:parameter/app/x"
    assert ssm(world, "GetParameter", Name=newest["ARN"] + ":1")["Parameter"]["Value"] == "one"
    ssm(world, "LabelParameterVersion", Name="/app/x", ParameterVersion=1, Labels=["live", "1bad"])
    assert ssm(world, "GetParameter", Name="/app/x:live")["Parameter"]["Selector"] == ":live"
    ssm(world, "LabelParameterVersion", Name="/app/x", Labels=["live"])
    assert ssm(world, "GetParameter", Name="/app/x:live")["Parameter"]["Version"] == 2
    history = ssm(world, "GetParameterHistory", Name="/app/x")["Parameters"]
    assert [(entry["Version"], entry["Value"], entry["Labels"]) for entry in history] == [
        (1, "one", []),
        (2, "two", ["live"]),
    ]
    assert refused(world, "GetParameter", Name="/app/x:9").code == "ParameterVersionNotFound"
    assert refused(world, "GetParameter", Name="/app/y").code == "ParameterNotFound"


def test_secure_strings_are_sealed(tmp_path):
    world = InProcess(build, directory=tmp_path)
    put(world, "secret", "hush-hush", "SecureString")
    assert ssm(world, "GetParameter", Name="secret", WithDecryption=True)["Parameter"]["Value"] == "hush-hush"
    assert "hush" not in ssm(world, "GetParameter", Name="secret")["Parameter"]["Value"]
    assert (tmp_path / "vault.key").stat().st_mode & 0o777 == 0o600
    world.db.close()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"hush-hush" not in file.read_bytes()
    again = InProcess(build, directory=tmp_path)
    assert ssm(again, "GetParameter", Name="secret", WithDecryption=True)["Parameter"]["Value"] == "hush-hush"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"Name": "ssm-x"}, "ValidationException"),
        ({"Name": "/aws/x"}, "AccessDeniedException"),
        ({"Name": "a/b"}, "ValidationException"),
        ({"Name": "a b"}, "ValidationException"),
        ({"Name": "/" + "/".join("a" * 16)}, "HierarchyLevelLimitExceededException"),
        ({"Name": "x", "Value": "v" * 4_097}, "ValidationException"),
        ({"Name": "x", "Value": "v" * 8_193, "Tier": "Intelligent-Tiering"}, "ValidationException"),
        ({"Name": "x", "Value": ""}, "ValidationException"),
        ({"Name": "x", "Type": "Number"}, "UnsupportedParameterType"),
        ({"Name": "x", "AllowedPattern": "^[0-9]+$"}, "ParameterPatternMismatchException"),
        ({"Name": "x", "AllowedPattern": "["}, "InvalidAllowedPatternException"),
        ({"Name": "x", "DataType": "aws:ec2:image"}, "ValidationException"),
        ({"Name": "x", "Policies": "[{}]"}, "InvalidPolicyTypeException"),
        ({"Name": "x", "Overwrite": True, "Tags": [{"Key": "a", "Value": "b"}]}, "ValidationException"),
    ],
)
def test_refusals(world, params, code):
    assert refused(world, "PutParameter", **{"Value": "v", "Type": "String", **params}).code == code
    assert ssm(world, "DescribeParameters")["Parameters"] == []


def test_a_type_and_a_tier_stay(world):
    with pytest.raises(AwsError, match="type is required"):
        ssm(world, "PutParameter", Name="x", Value="v")
    assert put(world, "x", "v" * 5_000, Tier="Intelligent-Tiering")["Tier"] == "Advanced"
    error = refused(world, "PutParameter", Name="x", Value="v", Type="StringList", Overwrite=True)
    assert error.code == "HierarchyTypeMismatchException"
    assert "downgrade" in refused(world, "PutParameter", Name="x", Value="v", Tier="Standard", Overwrite=True).message
    assert ssm(world, "PutParameter", Name="x", Value="v", Overwrite=True)["Tier"] == "Advanced"


def test_the_hundredth_version(world):
    put(world, "x")
    for _ in range(100):
        ssm(world, "PutParameter", Name="x", Value="v", Overwrite=True)
    versions = [entry["Version"] for entry in ssm(world, "GetParameterHistory", Name="x", MaxResults=50)["Parameters"]]
    assert versions[0] == 2
    ssm(world, "LabelParameterVersion", Name="x", ParameterVersion=2, Labels=["keep"])
    assert (
        refused(world, "PutParameter", Name="x", Value="v", Overwrite=True).code == "ParameterMaxVersionLimitExceeded"
    )


def test_paths(world):
    for name in ("/a/b", "/a/c/d", "/a/c/e", "/ab/x", "plain"):
        put(world, name)
    found = ssm(world, "GetParametersByPath", Path="/a")["Parameters"]
    assert [entry["Name"] for entry in found] == ["/a/b"]
    first = ssm(world, "GetParametersByPath", Path="/a/", Recursive=True, MaxResults=2)
    rest = ssm(world, "GetParametersByPath", Path="/a/", Recursive=True, NextToken=first["NextToken"])
    names = [entry["Name"] for entry in first["Parameters"] + rest["Parameters"]]
    assert (names, "NextToken" in rest) == (["/a/b", "/a/c/d", "/a/c/e"], False)
    assert refused(world, "GetParametersByPath", Path="a").code == "ValidationException"
    assert refused(world, "GetParametersByPath", Path="/a", MaxResults=11).code == "ValidationException"
    assert refused(world, "GetParametersByPath", Path="/a", NextToken="x").code == "InvalidNextToken"


def test_several_at_once(world):
    put(world, "a", "1")
    put(world, "b", "2")
    answer = ssm(world, "GetParameters", Names=["a", "absent", "b:1"])
    assert [entry["Value"] for entry in answer["Parameters"]] == ["1", "2"]
    assert answer["InvalidParameters"] == ["absent"]
    assert ssm(world, "DeleteParameters", Names=["a", "absent"]) == {
        "DeletedParameters": ["a"], "InvalidParameters": ["absent"],
    }  # fmt: skip
    ssm(world, "DeleteParameter", Name="b")
    assert refused(world, "DeleteParameter", Name="b").code == "ParameterNotFound"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"Key": "Name", "Option": "Contains", "Values": ["two"]}, ["/x/two"]),
        ({"Key": "Name", "Option": "BeginsWith", "Values": ["/x"]}, ["/x/one", "/x/two"]),
        ({"Key": "Name", "Values": ["x/one"]}, ["/x/one"]),
        ({"Key": "Type", "Values": ["SecureString"]}, ["/x/two"]),
        ({"Key": "tag:team", "Values": ["a"]}, ["/x/one"]),
        ({"Key": "tag:team"}, ["/x/one"]),
        ({"Key": "Path", "Option": "Recursive", "Values": ["/"]}, ["/x/one", "/x/two"]),
        ({"Key": "Path", "Option": "OneLevel", "Values": ["/"]}, []),
    ],
)
def test_filters(world, given, names):
    put(world, "/x/one", Tags=[{"Key": "team", "Value": "a"}])
    put(world, "/x/two", kind="SecureString")
    found = ssm(world, "DescribeParameters", ParameterFilters=[given])["Parameters"]
    assert [entry["Name"] for entry in found] == names


def test_filters_that_cannot_be(world):
    assert (
        refused(world, "DescribeParameters", ParameterFilters=[{"Key": "Colour", "Values": ["x"]}]).code
        == "InvalidFilterKey"
    )
    odd = {"Key": "Type", "Option": "Near", "Values": ["x"]}
    assert refused(world, "DescribeParameters", ParameterFilters=[odd]).code == "InvalidFilterOption"


def test_tags(world):
    put(world, "x")
    ssm(world, "AddTagsToResource", ResourceType="Parameter", ResourceId="x", Tags=[{"Key": "a", "Value": "1"}])
    assert ssm(world, "ListTagsForResource", ResourceType="Parameter", ResourceId="x")["TagList"] == [
        {"Key": "a", "Value": "1"}
    ]
    ssm(world, "RemoveTagsFromResource", ResourceType="Parameter", ResourceId="x", TagKeys=["a"])
    assert ssm(world, "ListTagsForResource", ResourceType="Parameter", ResourceId="x")["TagList"] == []
    assert refused(world, "ListTagsForResource", ResourceType="Parameter", ResourceId="y").code == "InvalidResourceId"


def test_a_secret_under_its_reference_name(world):
    world("secretsmanager", "CreateSecret", Name="db", SecretString="hush")
    name = "/aws/reference/secretsmanager/db"
    assert ssm(world, "GetParameter", Name=name, WithDecryption=True)["Parameter"]["Value"] == "hush"
    assert refused(world, "GetParameter", Name=name).code == "ValidationException"
    assert refused(world, "GetParameter", Name=name + "x", WithDecryption=True).code == "ParameterNotFound"

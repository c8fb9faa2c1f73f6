"""Functions, their code, versions, aliases, layers."""

import base64
import hashlib
import io
import stat
import zipfile
from pathlib import Path

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.contract import Reply
from tests.support.functions import ROLE, LambdaWorld, TriggerWorld, make_zip
from tests.support.scripted_executor import Script

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture
def world():
    world = LambdaWorld()
    yield world
    assert world.defects == []


def refused(world, operation, **params):
    with pytest.raises(AwsError) as caught:
        world("lambda", operation, **params)
    return caught.value.code, caught.value.message


def refused_create(world, **params):
    with pytest.raises(AwsError) as caught:
        world.create(**params)
    return caught.value.code, caught.value.message


def invoke(world, name="f", **params):
    return world("lambda", "Invoke", FunctionName=name, **params)


# -- create, read, update, delete -------------------------------------------------------------------------------------


def test_create_answers_pending_and_the_function_is_then_active(world):
    code = make_zip()
    created = world.create(Code={"ZipFile": code})
    assert (created["State"], created["StateReasonCode"]) == ("Pending", "Creating")
    assert "LastUpdateStatus" not in created
    assert created["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert created["CodeSize"] == len(code)
    found = world("lambda", "GetFunctionConfiguration", FunctionName="f")
    assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful")
    assert (found["Timeout"], found["MemorySize"], found["EphemeralStorage"]) == (3, 128, {"Size": 512})
    assert found["RevisionId"] != created["RevisionId"] and found["Version"] == "$LATEST"


def test_the_code_and_the_configuration_reach_the_executor(world):
    world.create(
        Environment={"Variables": {"STAGE": "dev"}}, MemorySize=512, Timeout=30, EphemeralStorage={"Size": 1024},
        LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "LogGroup": "/mine"},
    )  # fmt: skip
    invoke(world)
    spec = world.executor.started[0].spec
    assert (spec.code / "app.py").read_text().startswith("def handler")
    assert (spec.memory_mb, spec.timeout_s, spec.ephemeral_mb, spec.log_group) == (512, 30.0, 1024, "/mine")
    assert dict(spec.environment) == {
        "STAGE": "dev", "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "DEBUG",
    }  # fmt: skip
    assert (spec.runtime, spec.handler, spec.role, spec.version) == ("python3.12", "app.handler", ROLE, "$LATEST")


def test_a_second_function_of_the_name_is_a_conflict(world):
    world.create()
    assert refused_create(world) == ("ResourceConflictException", "Function already exist: f")


def test_names_in_every_form(world):
    world.create()
    for name in ("f", f"{ARN}f", "000000000000:function:f", "function:f", "f:$LATEST"):
        assert world("lambda", "GetFunction", FunctionName=name)["Configuration"]["FunctionName"] == "f"
    assert refused(world, "GetFunction", FunctionName="g") == (
        "ResourceNotFoundException", f"Function not found: {ARN}g",
    )  # fmt: skip
    assert refused(world, "GetFunction", FunctionName="f", Qualifier="7")[1] == f"Function not found: {ARN}f:7"
    code, text = refused(world, "GetFunction", FunctionName="arn:aws:lambda:eu-west-1:000000000000:function:f")
    assert (code, text) == (
        "ResourceNotFoundException", "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
    )  # fmt: skip
    assert "derived qualifier" in refused(world, "GetFunction", FunctionName="f:1", Qualifier="2")[1]
    assert refused(world, "GetFunction", FunctionName="no good")[0] == "ValidationException"


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({"Timeout": 901}, "ValidationException", "Value '901' at 'timeout'"),
        ({"MemorySize": 64}, "ValidationException", "greater than or equal to 128"),
        ({"EphemeralStorage": {"Size": 100}}, "ValidationException", "ephemeralStorage.size"),
        ({"Role": "me"}, "ValidationException", "at 'role'"),
        ({"Runtime": "cobol"}, "InvalidParameterValueException", "Value cobol at 'runtime'"),
        ({"Runtime": "python2.7"}, "InvalidParameterValueException", "no longer supported"),
        ({"Runtime": "java21"}, "InvalidParameterValueException", "java21 is not supported"),
        ({"Handler": "a b"}, "ValidationException", "handler"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "InvalidParameterValueException",
         "Reserved keys used in this request: AWS_REGION"),
        ({"Environment": {"Variables": {"BIG": "x" * 4096}}}, "InvalidParameterValueException",
         "exceeded the 4KB limit"),
        ({"Environment": {"Variables": {"1": "x"}}}, "ValidationException", "Map keys must satisfy"),
        ({"Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:l:1"]}, "InvalidParameterValueException",
         "does not exist"),
        ({"Layers": [f"arn:aws:lambda:us-east-1:000000000000:layer:l{n}:1" for n in range(6)]},
         "InvalidParameterValueException", "Cannot reference more than 5 layers."),
        ({"Architectures": ["sparc"]}, "ValidationException", "architectures"),
        ({"SnapStart": {"ApplyOn": "PublishedVersions"}, "Runtime": "python3.11"}, "InvalidParameterValueException",
         "SnapStart"),
        ({"VpcConfig": {"SubnetIds": ["s"]}}, "InvalidParameterValueException", "must coexist"),
        ({"PackageType": "Image"}, "InvalidParameterValueException", "container images"),
        ({"FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/x"}]}, "InvalidParameterValueException",
         "FileSystemConfigs"),
        ({"LoggingConfig": {"SystemLogLevel": "DEBUG"}}, "InvalidParameterValueException", "LogFormat to \"JSON\""),
        ({"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::b"}}, "InvalidParameterValueException", "dead letter"),
        ({"Tags": {"aws:x": "y"}}, "InvalidParameterValueException", "System tags"),
        ({"Code": {"ZipFile": b"not a zip"}}, "InvalidParameterValueException", "Could not unzip uploaded file"),
        ({"Code": {"S3Bucket": "preheat-local", "S3Key": "relative"}}, "InvalidParameterValueException", "absolute"),
        ({"Code": {"ImageUri": "x"}}, "InvalidParameterValueException", "container images"),
        ({"Code": {"S3Bucket": "only"}}, "InvalidParameterValueException",
         "Please provide a source for function code."),
    ],
)  # fmt: skip
def test_what_cannot_be_created_leaves_nothing(world, params, code, text):
    found = refused_create(world, **params)
    assert found[0] == code and text in found[1]
    assert world("lambda", "ListFunctions")["Functions"] == []


def test_an_update_of_the_configuration_keeps_the_rest(world):
    world.create(Environment={"Variables": {"STAGE": "1"}}, Timeout=10)
    before = world("lambda", "GetFunctionConfiguration", FunctionName="f")
    answer = world("lambda", "UpdateFunctionConfiguration", FunctionName="f", MemorySize=256, Runtime="python3.11")
    assert (answer["LastUpdateStatus"], answer["MemorySize"], answer["Timeout"]) == ("InProgress", 256, 10)
    after = world("lambda", "GetFunctionConfiguration", FunctionName="f")
    assert after["Environment"] == before["Environment"] and after["RevisionId"] != before["RevisionId"]
    assert after["CodeSha256"] == before["CodeSha256"] and after["LastUpdateStatus"] == "Successful"
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Environment={"Variables": {}})
    assert world("lambda", "GetFunctionConfiguration", FunctionName="f")["Environment"] == {"Variables": {}}
    assert world.executor.retired == [f"{ARN}f"] * 2


def test_new_code_runs_next_and_the_old_environments_go(world):
    world.create()
    invoke(world)
    answer = world("lambda", "UpdateFunctionCode", FunctionName="f", ZipFile=make_zip({"app.py": "new = 1\n"}))
    assert answer["LastUpdateStatus"] == "InProgress"
    invoke(world)
    first, second = (call.spec for call in world.executor.started)
    assert first.revision != second.revision and (second.code / "app.py").read_text() == "new = 1\n"
    assert world.executor.retired == [f"{ARN}f"]


def test_a_dry_run_changes_nothing(world):
    before = world.create()
    answer = world("lambda", "UpdateFunctionCode", FunctionName="f", ZipFile=make_zip({"a.py": "x"}), DryRun=True)
    assert answer["CodeSha256"] != before["CodeSha256"]
    assert world("lambda", "GetFunctionConfiguration", FunctionName="f")["CodeSha256"] == before["CodeSha256"]


def test_a_stale_revision_is_refused(world):
    world.create()
    code, _ = refused(world, "UpdateFunctionConfiguration", FunctionName="f", RevisionId="old", Timeout=5)
    assert code == "PreconditionFailedException"
    assert refused(world, "PublishVersion", FunctionName="f", RevisionId="old")[0] == "PreconditionFailedException"


def test_a_deleted_function_takes_everything_of_it_along(world):
    world.create()
    world("lambda", "PublishVersion", FunctionName="f")
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1")
    world("lambda", "CreateFunctionUrlConfig", FunctionName="f", AuthType="NONE")
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=5)
    world("lambda", "DeleteFunction", FunctionName="f")
    assert refused(world, "DeleteFunction", FunctionName="f")[0] == "ResourceNotFoundException"
    assert world.executor.reserved == {} and world.executor.retired == [f"{ARN}f"]
    for table in ("functions", "versions", "aliases", "urls"):
        assert world.db.value(f"SELECT count(*) FROM lambda_{table}") == 0


def test_functions_are_listed_in_pages(world):
    for name in "edcba":
        world.create(name)
    world("lambda", "PublishVersion", FunctionName="c")
    names, marker = [], {}
    for _ in range(3):
        page = world("lambda", "ListFunctions", MaxItems=2, **marker)
        names += [function["FunctionName"] for function in page["Functions"]]
        marker = {"Marker": page.get("NextMarker")}
    assert names == list("abcde") and marker == {"Marker": None}
    everything = world("lambda", "ListFunctions", FunctionVersion="ALL")["Functions"]
    assert [(one["FunctionName"], one["Version"]) for one in everything][2:4] == [("c", "$LATEST"), ("c", "1")]
    assert refused(world, "ListFunctions", Marker="\x00")[0] == "InvalidParameterValueException"


# -- packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "..\\evil.py"])
def test_an_archive_cannot_leave_its_directory(world, name):
    assert "Could not unzip" in refused_create(world, Code={"ZipFile": make_zip({name: "x"})})[1]
    assert not list(world.functions.core.code.directory.rglob("evil.py"))


def linking_zip(target):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("out")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
        archive.writestr("out/evil.py", "x")
    return buffer.getvalue()


@pytest.mark.parametrize("target", ["/tmp", "../.."])
def test_a_link_in_an_archive_cannot_lead_out(world, target):
    assert "Could not unzip" in refused_create(world, Code={"ZipFile": linking_zip(target)})[1]


def test_links_that_lead_out_by_way_of_later_links(world):
    """`d` stays inside until `e` exists; a file over a link must not be written through it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, target in (("d", "e/../evil.py"), ("e", ".")):
            link = zipfile.ZipInfo(name)
            link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, target)
    assert "Could not unzip" in refused_create(world, Code={"ZipFile": buffer.getvalue()})[1]
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("d", "written through the link")
    world.create(Code={"ZipFile": buffer.getvalue()})
    assert not list(world.functions.core.code.directory.rglob("evil.py"))


def test_a_symbolic_link_cannot_be_large(world):
    assert "Could not unzip" in refused_create(world, Code={"ZipFile": linking_zip("a" * 5_000)})[1]


def test_a_name_that_no_disk_takes_is_a_bad_archive(world):
    assert "Could not unzip" in refused_create(world, Code={"ZipFile": make_zip({"a" * 300: "x"})})[1]


def test_an_archive_that_grows_too_large_is_refused(world):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("big", "w") as file:
        for _ in range(251):
            file.write(bytes(1 << 20))
    message = refused_create(world, Code={"ZipFile": buffer.getvalue()})[1]
    assert message == "Unzipped size must be smaller than 262144000 bytes"


def test_an_archive_may_be_executable(world):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        script = zipfile.ZipInfo("bootstrap")
        script.create_system, script.external_attr = 3, (stat.S_IFREG | 0o755) << 16
        archive.writestr(script, "#!/bin/sh\n")
    world.create(Runtime="provided.al2023", Handler="x", Code={"ZipFile": buffer.getvalue()})
    assert world.functions.core.code.store(buffer.getvalue()).path
    invoke(world)
    assert (world.executor.started[0].spec.code / "bootstrap").stat().st_mode & 0o111


def test_a_directory_is_run_in_place_and_watched(world, tmp_path):
    (tmp_path / "app.py").write_text("x = 1\n")
    world.create(Code={"S3Bucket": "preheat-local", "S3Key": str(tmp_path)})
    invoke(world)
    spec = world.executor.started[0].spec
    assert spec.code == tmp_path and spec.watch
    missing = {"S3Bucket": "preheat-local", "S3Key": str(tmp_path / "no")}
    assert "must be a directory that exists" in refused_create(world, name="g", Code=missing)[1]


class _Bucket:
    name, schema = "s3", ""

    def __init__(self, objects):
        self.operations = {"GetObject": lambda ctx, params: self.get(objects, params)}

    def get(self, objects, params):
        if params["Key"] not in objects:
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404)
        return Reply({"Body": objects[params["Key"]]})


def test_code_from_a_bucket():
    world = LambdaWorld(lambda platform: _Bucket({"code.zip": make_zip({"app.py": "from_s3 = 1\n"})}))
    world.create(Code={"S3Bucket": "b", "S3Key": "code.zip"})
    invoke(world)
    assert (world.executor.started[0].spec.code / "app.py").read_text() == "from_s3 = 1\n"
    assert refused_create(world, name="g", Code={"S3Bucket": "b", "S3Key": "no.zip"}) == (
        "InvalidParameterValueException",
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist.",
    )


def test_everything_survives_a_restart_and_code_without_use_goes(tmp_path):
    world = LambdaWorld(directory=tmp_path)
    world.create()
    world("lambda", "PutFunctionConcurrency", FunctionName="f", ReservedConcurrentExecutions=7)
    old = Path(world.functions.core.code.directory)
    world("lambda", "UpdateFunctionCode", FunctionName="f", ZipFile=make_zip({"app.py": "second = 1\n"}))
    assert len([entry for entry in old.iterdir() if entry.is_dir()]) == 2
    world.db.close()
    again = LambdaWorld(directory=tmp_path, seed=2)
    assert again.executor.reserved == {f"{ARN}f": 7}
    assert len([entry for entry in old.iterdir() if entry.is_dir()]) == 1
    invoke(again)
    assert (again.executor.started[0].spec.code / "app.py").read_text() == "second = 1\n"
    again.db.close()


# -- versions and aliases ---------------------------------------------------------------------------------------------


def test_versions_are_frozen_and_publishing_the_same_again_gives_the_same(world):
    world.create()
    first = world("lambda", "PublishVersion", FunctionName="f", Description="one")
    assert (first["Version"], first["FunctionArn"]) == ("1", f"{ARN}f:1")
    assert world("lambda", "PublishVersion", FunctionName="f", Description="one")["Version"] == "1"
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=9)
    assert world("lambda", "PublishVersion", FunctionName="f")["Version"] == "2"
    assert world("lambda", "GetFunctionConfiguration", FunctionName="f", Qualifier="1")["Timeout"] == 3
    versions = world("lambda", "ListVersionsByFunction", FunctionName="f")["Versions"]
    assert [version["Version"] for version in versions] == ["$LATEST", "1", "2"]
    world("lambda", "DeleteFunction", FunctionName="f", Qualifier="2")
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=8)
    assert world("lambda", "PublishVersion", FunctionName="f")["Version"] == "3"
    assert (
        "is different from current CodeSHA256"
        in refused(world, "PublishVersion", FunctionName="f", CodeSha256="other")[1]
    )


def test_snap_start_holds_for_published_versions_only(world):
    world.create(SnapStart={"ApplyOn": "PublishedVersions"}, Publish=True)
    invoke(world)
    invoke(world, Qualifier="1")
    assert [call.spec.snap_start for call in world.executor.started] == [False, True]


def test_an_alias_sends_a_share_to_its_second_version(world):
    world.create(Publish=True)
    world("lambda", "UpdateFunctionConfiguration", FunctionName="f", Timeout=9)
    world("lambda", "PublishVersion", FunctionName="f")
    world("lambda", "CreateAlias", FunctionName="f", Name="live", FunctionVersion="1",
          RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}})  # fmt: skip
    versions = [invoke(world, "f:live")["ExecutedVersion"] for _ in range(400)]
    assert 60 <= versions.count("2") <= 140
    assert {call.invoked_arn for call in world.executor.started} == {f"{ARN}f:live"}
    world("lambda", "UpdateAlias", FunctionName="f", Name="live", FunctionVersion="2", RoutingConfig={})
    assert {invoke(world, "f:live")["ExecutedVersion"] for _ in range(20)} == {"2"}
    assert refused(world, "DeleteFunction", FunctionName="f", Qualifier="2") == (
        "ResourceConflictException",
        "Unable to delete version because the following aliases reference it: [live]",
    )


def test_aliases_that_are_refused(world):
    world.create(Publish=True)
    base = {"FunctionName": "f", "Name": "a", "FunctionVersion": "1"}

    def weights(**choice):
        return {"RoutingConfig": {"AdditionalVersionWeights": choice}}

    assert refused(world, "CreateAlias", **{**base, "FunctionVersion": "9"})[1] == f"Function not found: {ARN}f:9"
    assert refused(world, "CreateAlias", **{**base, "Name": "12"})[0] == "ValidationException"
    assert "already included" in refused(world, "CreateAlias", **base, **weights(**{"1": 0.5}))[1]
    latest = refused(world, "CreateAlias", **{**base, "FunctionVersion": "$LATEST"}, **weights(**{"1": 0.5}))[1]
    assert latest == "$LATEST is not supported for an alias pointing to more than 1 version"
    world("lambda", "CreateAlias", **base)
    assert refused(world, "CreateAlias", **base) == ("ResourceConflictException", f"Alias already exists: {ARN}f:a")
    assert (
        refused(world, "UpdateAlias", FunctionName="f", Name="a", RevisionId="old")[0] == "PreconditionFailedException"
    )
    assert refused(world, "GetAlias", FunctionName="f", Name="b")[1] == f"Cannot find alias arn: {ARN}f:b"
    world("lambda", "DeleteAlias", FunctionName="f", Name="a")
    assert world("lambda", "ListAliases", FunctionName="f")["Aliases"] == []
    assert refused(world, "Invoke", FunctionName="f:a")[1] == f"Function not found: {ARN}f:a"


# -- layers -----------------------------------------------------------------------------------------------------------


def test_layers_are_mounted_in_order_and_outlive_their_deletion(world):
    arns = []
    for name in ("base", "extra"):
        layer = world("lambda", "PublishLayerVersion", LayerName=name, CompatibleRuntimes=["python3.12"],
                      Content={"ZipFile": make_zip({f"python/{name}.py": "x"})})  # fmt: skip
        arns.append(layer["LayerVersionArn"])
    world.create(Layers=arns)
    world("lambda", "DeleteLayerVersion", LayerName="base", VersionNumber=1)
    invoke(world)
    paths = world.executor.started[0].spec.layers
    assert [next(path.rglob("*.py")).name for path in paths] == ["base.py", "extra.py"]
    found = world("lambda", "GetFunctionConfiguration", FunctionName="f")
    assert [layer["Arn"] for layer in found["Layers"]] == arns and found["Layers"][0]["CodeSize"] > 0
    assert refused(world, "GetLayerVersion", LayerName="base", VersionNumber=1)[0] == "ResourceNotFoundException"
    assert refused_create(world, name="g", Layers=arns)[0] == "InvalidParameterValueException"


def test_layer_versions_are_listed_newest_first(world):
    for text in "ab":
        world("lambda", "PublishLayerVersion", LayerName="l", Content={"ZipFile": make_zip({"f": text})})
    versions = world("lambda", "ListLayerVersions", LayerName="l")["LayerVersions"]
    assert [version["Version"] for version in versions] == [2, 1]
    (layer,) = world("lambda", "ListLayers")["Layers"]
    assert layer["LayerName"] == "l" and layer["LatestMatchingVersion"]["Version"] == 2
    assert world("lambda", "ListLayers", CompatibleRuntime="python3.12")["Layers"] == []
    arn = versions[0]["LayerVersionArn"]
    assert world("lambda", "GetLayerVersionByArn", Arn=arn)["Version"] == 2
    assert "Two different versions" in refused_create(world, Layers=[arn, arn[:-1] + "1"])[1]


def test_triggers_do_not_change_what_create_does():
    world = TriggerWorld()
    world.executor.scripts["f"] = Script(result=1)
    world.create()
    assert invoke(world)["Payload"] == b"1"

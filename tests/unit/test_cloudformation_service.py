"""The CloudFormation API: change sets, refusals in AWS's words, transforms, the fidelity report."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.template.fidelity import refusals
from preheat.template.resources.table import ResourceTypes
from tests.unit.test_cloudformation_engine import Cloud, function, group

QUEUE = {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": {"Ref": "Seconds"}}}
BODY = json.dumps({
    "Description": "one queue",
    "Parameters": {"Seconds": {"Type": "Number", "Default": 30}},
    "Resources": {"Q": QUEUE, "G": group()},
    "Outputs": {"Url": {"Value": {"Ref": "Q"}}},
})  # fmt: skip


@pytest.fixture
def cloud():
    return Cloud()


def seconds(value):
    return [{"ParameterKey": "Seconds", "ParameterValue": str(value)}]


def test_a_change_set_makes_a_stack_and_another_changes_it(cloud):
    made = cloud("CreateChangeSet", StackName="s", ChangeSetName="first", ChangeSetType="CREATE", TemplateBody=BODY)
    assert cloud.status("s") == "REVIEW_IN_PROGRESS"
    seen = cloud("DescribeChangeSet", ChangeSetName=made["Id"])
    assert (seen["Status"], seen["ExecutionStatus"]) == ("CREATE_COMPLETE", "AVAILABLE")
    assert {change["ResourceChange"]["Action"] for change in seen["Changes"]} == {"Add"}
    cloud("ExecuteChangeSet", ChangeSetName="first", StackName="s")
    cloud.run()
    assert cloud.status("s") == "CREATE_COMPLETE"
    assert cloud.stack("s")["ChangeSetId"] == made["Id"]

    cloud("CreateChangeSet", StackName="s", ChangeSetName="second", UsePreviousTemplate=True, Parameters=seconds(45))
    changes = cloud("DescribeChangeSet", ChangeSetName="second", StackName="s")["Changes"]
    assert [change["ResourceChange"]["LogicalResourceId"] for change in changes] == ["Q"]
    change = changes[0]["ResourceChange"]
    assert (change["Action"], change["Replacement"], change["Scope"]) == ("Modify", "False", ["Properties"])
    assert change["Details"][0]["Target"]["Name"] == "VisibilityTimeout"
    assert cloud.world("sqs", "GetQueueAttributes", QueueUrl=cloud.physical("s", "Q"),
                       AttributeNames=["VisibilityTimeout"])["Attributes"] == {"VisibilityTimeout": "30"}  # fmt: skip
    cloud("ExecuteChangeSet", ChangeSetName="second", StackName="s")
    cloud.run()
    assert cloud.status("s") == "UPDATE_COMPLETE"
    assert [item["ChangeSetName"] for item in cloud("ListChangeSets", StackName="s")["Summaries"]] == ["second"]


def test_nothing_to_change(cloud):
    cloud("CreateStack", StackName="s", TemplateBody=BODY)
    cloud.run()
    error = cloud.refused("UpdateStack", StackName="s", UsePreviousTemplate=True)
    assert (error.code, error.message) == ("ValidationError", "No updates are to be performed.")
    cloud("CreateChangeSet", StackName="s", ChangeSetName="c", TemplateBody=BODY)
    seen = cloud("DescribeChangeSet", ChangeSetName="c", StackName="s")
    assert (seen["Status"], seen["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert seen["StatusReason"].startswith("The submitted information didn't contain changes.")
    assert cloud.refused("ExecuteChangeSet", ChangeSetName="c", StackName="s").code == "InvalidChangeSetStatus"
    cloud("DeleteChangeSet", ChangeSetName="c", StackName="s")
    assert cloud.refused("DescribeChangeSet", ChangeSetName="c", StackName="s").code == "ChangeSetNotFound"


def test_replacement_is_announced_with_what_depends_on_it(cloud):
    stream = {"Type": "AWS::Logs::LogStream", "Properties": {"LogGroupName": {"Ref": "G"}}}
    cloud.create("s", {"G": group("one"), "S": stream})
    cloud.run()
    body = json.dumps({"Resources": {"G": group("two"), "S": stream}})
    cloud("CreateChangeSet", StackName="s", ChangeSetName="c", TemplateBody=body)
    changes = cloud("DescribeChangeSet", ChangeSetName="c", StackName="s")["Changes"]
    found = {item["ResourceChange"]["LogicalResourceId"]: item["ResourceChange"]["Replacement"] for item in changes}
    assert found == {"G": "True", "S": "True"}


def test_names_and_states_are_refused_in_aws_words(cloud):
    cloud("CreateStack", StackName="s", TemplateBody=BODY)
    error = cloud.refused("CreateStack", StackName="s", TemplateBody=BODY)
    assert (error.code, error.message) == ("AlreadyExistsException", "Stack [s] already exists")
    assert cloud.refused("DescribeStacks", StackName="no").message == "Stack with id no does not exist"
    assert cloud.refused("UpdateStack", StackName="no", TemplateBody=BODY).message == "Stack [no] does not exist"
    assert cloud.refused("DescribeStackEvents", StackName="no").message == "Stack [no] does not exist"
    resource = cloud.refused("DescribeStackResource", StackName="s", LogicalResourceId="Z")
    assert resource.message == "Resource Z does not exist for stack s"
    cloud("DeleteStack", StackName="no")
    assert "regular expression" in cloud.refused("CreateStack", StackName="1s", TemplateBody=BODY).message
    update = cloud.refused("CreateChangeSet", StackName="no", ChangeSetName="c", TemplateBody=BODY)
    assert update.message == "Stack [no] does not exist"


def test_termination_protection(cloud):
    cloud("CreateStack", StackName="s", TemplateBody=BODY, EnableTerminationProtection=True)
    cloud.run()
    error = cloud.refused("DeleteStack", StackName="s")
    assert error.message == "Stack [s] cannot be deleted while TerminationProtection is enabled"
    cloud("UpdateTerminationProtection", StackName="s", EnableTerminationProtection=False)
    cloud("DeleteStack", StackName="s")
    cloud.run()
    assert cloud("DescribeStacks")["Stacks"] == []


def test_capabilities(cloud):
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {}}}
    plain = json.dumps({"Resources": {"R": role}})
    error = cloud.refused("CreateStack", StackName="s", TemplateBody=plain)
    assert (error.code, error.message) == (
        "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_IAM]",
    )  # fmt: skip
    role["Properties"]["RoleName"] = "mine"
    named = json.dumps({"Resources": {"R": role}})
    error = cloud.refused("CreateStack", StackName="s", TemplateBody=named, Capabilities=["CAPABILITY_IAM"])
    assert error.message == "Requires capabilities : [CAPABILITY_NAMED_IAM]"
    summary = cloud("GetTemplateSummary", TemplateBody=named)
    assert summary["Capabilities"] == ["CAPABILITY_NAMED_IAM"]
    assert summary["CapabilitiesReason"] == "The following resource(s) require capabilities: [AWS::IAM::Role]"


def test_unknown_types_are_named_unless_their_condition_fails(cloud):
    body = {
        "Conditions": {"Never": {"Fn::Equals": ["a", "b"]}},
        "Resources": {"G": group(), "D": {"Type": "AWS::Moon::Base", "Condition": "Never"}},
    }
    cloud("CreateStack", StackName="s", TemplateBody=json.dumps(body))
    cloud.run()
    assert cloud.status("s") == "CREATE_COMPLETE"
    del body["Resources"]["D"]["Condition"]
    error = cloud.refused("CreateStack", StackName="t", TemplateBody=json.dumps(body))
    assert error.message == "Template format error: Unrecognized resource types: [AWS::Moon::Base]"
    assert cloud.refused("DescribeStacks", StackName="t").code == "ValidationError"


@pytest.mark.parametrize(
    "params",
    [
        {"NotificationARNs": ["arn:aws:sns:us-east-1:1:t"]},
        {"StackPolicyBody": "{}"},
        {"RollbackConfiguration": {"MonitoringTimeInMinutes": 3}},
        {"OnFailure": "DELETE", "DisableRollback": True},
        {"Tags": [{"Key": "aws:x", "Value": "y"}]},
        {"TemplateURL": "http://127.0.0.1:4566/b/k"},
    ],
)
def test_what_would_have_no_effect_is_refused(cloud, params):
    error = cloud.refused("CreateStack", StackName="s", TemplateBody=BODY, **params)
    assert error.code == "ValidationError"
    assert cloud("ListStacks")["StackSummaries"] == []


def test_templates_can_be_looked_at(cloud):
    cloud("CreateStack", StackName="s", TemplateBody=BODY)
    assert cloud("GetTemplate", StackName="s")["TemplateBody"] == BODY
    seen = cloud("ValidateTemplate", TemplateBody=BODY)
    assert seen["Parameters"] == [{"ParameterKey": "Seconds", "DefaultValue": "30", "NoEcho": False}]
    assert seen["Description"] == "one queue"
    with pytest.raises(AwsError, match="JSON not well-formed"):
        cloud("ValidateTemplate", TemplateBody="{,")


def test_stack_tags_reach_the_resources(cloud):
    tags = [{"Key": "team", "Value": "search"}]
    cloud("CreateStack", StackName="s", TemplateBody=BODY, Tags=tags)
    cloud.run()
    url = cloud.physical("s", "Q")
    assert cloud.world("sqs", "ListQueueTags", QueueUrl=url)["Tags"] == {"team": "search"}
    cloud("UpdateStack", StackName="s", UsePreviousTemplate=True, Tags=[{"Key": "team", "Value": "web"}])
    cloud.run()
    assert cloud.world("sqs", "ListQueueTags", QueueUrl=url)["Tags"] == {"team": "web"}


SAM = """
Transform: [AWS::LanguageExtensions, AWS::Serverless-2016-10-31]
Globals: {Function: {Runtime: python3.11, Timeout: 30}}
Resources:
  Fn::ForEach::Each:
    - Kind
    - [Ask, Tell]
    - ${Kind}Function:
        Type: AWS::Serverless::Function
        Properties:
          Handler: app.h
          CodeUri: {Bucket: preheat-local, Key: /work}
          VpcConfig: {SubnetIds: [], SecurityGroupIds: []}
          FileSystemConfigs:
            - {Arn: "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/a", LocalMountPath: /mnt/x}
          Role: arn:aws:iam::000000000000:role/r
"""


def test_serverless_templates_are_translated_and_reported_on(cloud):
    error = cloud.refused("CreateStack", StackName="s", TemplateBody=SAM)
    assert error.message == "Requires capabilities : [CAPABILITY_AUTO_EXPAND]"
    cloud("CreateStack", StackName="s", TemplateBody=SAM, Capabilities=["CAPABILITY_AUTO_EXPAND"])
    cloud.run()
    assert cloud.status("s") == "CREATE_COMPLETE"
    created = [params for name, params in cloud.functions.calls if name == "CreateFunction"]
    assert len(created) == 2
    assert created[0]["Code"] == {"S3Bucket": "preheat-local", "S3Key": "/work"}
    assert created[0]["Timeout"] == 30
    processed = json.loads(cloud("GetTemplate", StackName="s", TemplateStage="Processed")["TemplateBody"])
    assert {item["Type"] for item in processed["Resources"].values()} == {"AWS::Lambda::Function"}
    replies = []
    cloud.world.machine.perform(
        lambda ctx: {"rows": cloud.service.fidelity(ctx, "s")}, replies.append, cloud.world.scope
    )
    cloud.run(1)
    rows = {(row.logical_id, row.property): row.fidelity for row in replies[0].output["rows"]}
    assert rows["AskFunction", "Timeout"] == "acts"
    assert rows["TellFunction", "VpcConfig"] == "approximates"
    assert [line.split(":")[0] for line in refusals(replies[0].output["rows"])] == [
        "AskFunction (AWS", "TellFunction (AWS",
    ]  # fmt: skip


def test_serverless_mistakes_are_explained(cloud):
    body = SAM.replace("CodeUri: {Bucket: preheat-local, Key: /work}", "CodeUri: ./src")
    error = cloud.refused("CreateStack", StackName="s", TemplateBody=body, Capabilities=["CAPABILITY_AUTO_EXPAND"])
    assert error.message.startswith("Transform AWS::Serverless-2016-10-31 failed with: Invalid Serverless Application")
    assert "CodeUri" in error.message


def test_inline_code_comes_with_cfnresponse():
    import io
    import zipfile

    from preheat.template.resources.functions import inline_package

    archive = zipfile.ZipFile(io.BytesIO(inline_package("python3.12", "def h(e, c): pass")))
    assert sorted(archive.namelist()) == ["cfnresponse.py", "index.py"]
    compile(archive.read("cfnresponse.py"), "cfnresponse.py", "exec")
    assert zipfile.ZipFile(io.BytesIO(inline_package("nodejs22.x", "x"))).namelist() == ["index.js"]


def test_every_type_says_what_its_properties_do():
    for name, definition in ResourceTypes().items():
        assert definition.type == name
        for key, rule in definition.properties.items():
            assert rule.fidelity == "acts" or rule.why, f"{name}.{key} gives no reason"


def test_a_changed_type_is_refused(cloud):
    cloud.create("s", {"X": group()})
    cloud.run()
    error = cloud.refused("UpdateStack", StackName="s", TemplateBody=json.dumps({"Resources": {"X": function()}}))
    assert "Update of resource type is not permitted" in error.message

"""What CloudFormation was recorded to answer: refusals, descriptions, change sets, events, to the letter."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.iam.service import build as build_iam
from preheat.services.logs.service import build as build_logs
from preheat.services.sns.service import build as build_sns
from preheat.services.sqs.service import build as build_sqs
from preheat.services.ssm.service import build as build_ssm
from preheat.template.service import build
from tests.support.inprocess import InProcess

TOPIC = {"Foo": {"Type": "AWS::SNS::Topic"}}
NOT_NULL = "'null' values are not allowed in templates"
FORMAT = "Template format error: "


class Cloud:
    def __init__(self):
        self.world = InProcess(build_sqs, build_logs, build_sns, build_ssm, build_iam, build)

    def __call__(self, operation, **params):
        body = params.get("TemplateBody")
        if isinstance(body, dict):
            params["TemplateBody"] = json.dumps(body)
        return self.world("cloudformation", operation, **params)

    def refused(self, operation, **params):
        with pytest.raises(AwsError) as caught:
            self(operation, **params)
        assert caught.value.status == (404 if caught.value.code == "ChangeSetNotFound" else 400)
        return caught.value.code, caught.value.message

    def settle(self):
        self.world.advance(60.0)
        assert not self.world.defects, self.world.defects

    def create(self, name, body, **params):
        stack_id = self("CreateStack", StackName=name, TemplateBody=body, **params)["StackId"]
        self.settle()
        return stack_id

    def look(self, name, change_set, body, kind="UPDATE", **params):
        """A change set as it is described without and with the values of properties."""
        params = {"StackName": name, "ChangeSetName": change_set, "ChangeSetType": kind, "TemplateBody": body, **params}
        number = self("CreateChangeSet", **params)["Id"]
        return (
            self("DescribeChangeSet", ChangeSetName=number),
            self("DescribeChangeSet", ChangeSetName=number, IncludePropertyValues=True),
        )

    def execute(self, described):
        self("ExecuteChangeSet", ChangeSetName=described["ChangeSetId"])
        self.settle()

    def stack(self, name):
        return self("DescribeStacks", StackName=name)["Stacks"][0]

    def events(self, name):
        return list(reversed(self("DescribeStackEvents", StackName=name)["StackEvents"]))


@pytest.fixture
def cloud():
    return Cloud()


@pytest.fixture(scope="module")
def still():
    """A world that the refusals leave as it is."""
    return Cloud()


def parameter(value, **more):
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value}, **more}


def given(**values):
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]


def mapped(mapping):
    name = {"Fn::FindInMap": ["Suffixes", "A", "Suffix"]}
    return {
        "Mappings": {"Suffixes": mapping},
        "Resources": {"T": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name}}},
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Resources": TOPIC, "Outputs": {"O": {"Value": None}}}, f"[/Outputs/O/Value] {NOT_NULL}"),
        ({"Resources": TOPIC, "Outputs": {"O": {"Value": None, "Two": None}}}, f"[/Outputs/O/Value] {NOT_NULL}"),
        ({"Resources": "", "Outputs": ""}, FORMAT + "Any Resources member must be an object."),
        (mapped({"A": {"Suffix": {"X": "y"}}}), FORMAT + "Every Mappings attribute must be a String or a List."),
        (mapped({"A": {"Suffix": {"Ref": "R"}}}), FORMAT + "Every Mappings attribute must be a String or a List."),
        (mapped({"A": "a"}), FORMAT + "Every Mappings member A must be a map"),
        ({"Resources": {"P": {**TOPIC["Foo"], "Properties": {"TopicName": None}}}},
         f"[/Resources/P/Properties/TopicName] {NOT_NULL}"),
        ({"Transform": {"Name": {"Ref": "X"}}, "Resources": TOPIC},
         "Key Name of transform definition must be a string."),
        ({"Conditions": {"C": {"Fn::Equals": ["a"]}}, "Resources": TOPIC},
         "Template error: every Fn::Equals object requires a list of 2 string parameters."),
        ({"Conditions": {"No": {"Fn::Equals": ["a", "b"]}}, "Outputs": {"O": {"Value": {"Ref": "Two"}}},
          "Resources": {**TOPIC, "Two": {**TOPIC["Foo"], "Condition": "No"}}},
         "Unresolved resource dependencies [Two] in the Outputs block of the template"),
        ('{"this is invalid JSON"="bobbins"}', FORMAT + "JSON not well-formed. (line 1, column 25)"),
        ("\nResources:\nbad-indent\n", FORMAT + "YAML not well-formed. (line 4, column 1)"),
    ],
)  # fmt: skip
def test_refused_templates(still, body, message):
    assert still.refused("CreateStack", StackName="s", TemplateBody=body) == ("ValidationError", message)


def trigger(arn, kind):
    return {"RollbackTriggers": [{"Arn": f"arn:aws:{arn}", "Type": kind}]}


NAME_PATTERN = "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*|arn:[-a-zA-Z0-9:/._+]*"
WRONG_NAME = "1 validation error detected: Value '{}' at 'stackName' failed to satisfy constraint: "
LONG = "x" * 51_201


@pytest.mark.parametrize(
    ("operation", "params", "message"),
    [
        ("CreateStack", {"StackName": "*@d_$", "TemplateBody": {}}, WRONG_NAME.format("*@d_$") + NAME_PATTERN),
        ("CreateStack", {"StackName": "s", "TemplateBody": LONG},
         f"1 validation error detected: Value '{LONG}' at 'templateBody' failed to satisfy constraint: "
         "Member must have length less than or equal to 51200"),
        ("CreateStack", {"StackName": "s", "TemplateURL": "s3://docs/t.yml"},
         "S3 error: Domain name specified in docs is not a valid S3 domain"),
        ("CreateStack", {"StackName": "s", "TemplateBody": {"Resources": TOPIC}, "ResourceTypes": ["AWS::EC2::*"]},
         "Resource type AWS::SNS::Topic is not allowed by parameter ResourceTypes [AWS::EC2::*]"),
        ("CreateStack", {"StackName": "s", "TemplateBody": {"Resources": TOPIC},
                         "RollbackConfiguration": trigger("sns:us-east-1:1:t", "AWS::SNS::Topic")},
         "Rollback Trigger Type not supported"),
        ("CreateStack", {"StackName": "s", "TemplateBody": {"Resources": TOPIC},
                         "RollbackConfiguration": trigger("cloudwatch:us-east-1:1:t", "AWS::CloudWatch::Alarm")},
         "RelativeId of a Rollback Trigger's ARN is incorrect"),
        ("GetTemplate", {"ChangeSetName": "nowhere"}, "StackName is a required parameter."),
        ("DescribeStackEvents", {},
         "1 validation error detected: Value null at 'stackName' failed to satisfy constraint: "
         "Member must not be null"),
    ],
)  # fmt: skip
def test_refused_requests(still, operation, params, message):
    assert still.refused(operation, **params) == ("ValidationError", message)


def test_values_and_templates_of_the_last_deployment(cloud):
    body = {"Parameters": {"P": {"Type": "String"}}, "Resources": {"R": parameter({"Ref": "P"})}}
    cloud.create("s", body, Parameters=given(P="one"))
    params = {"StackName": "s", "UsePreviousTemplate": True}
    again = [{"ParameterKey": "P", "UsePreviousValue": True, "ParameterValue": "two"}]
    assert cloud.refused("UpdateStack", Parameters=again, **params) == (
        "ValidationError",
        "Invalid input for parameter key P. Cannot specify usePreviousValue as true and non empty value for a "
        "parameter",
    )
    again[0]["ParameterValue"] = ""
    assert cloud.refused("UpdateStack", Parameters=again, **params)[1] == "No updates are to be performed."
    assert cloud.refused("UpdateStack", TemplateBody=body, Parameters=again, **params)[1] == (
        "You cannot specify both usePreviousTemplate and Template Body/Template URL."
    )


def test_what_a_template_is_said_to_be(still):
    assert "Description" not in still("ValidateTemplate", TemplateBody={"Resources": TOPIC})
    summary = still("GetTemplateSummary", TemplateBody={"Resources": {**TOPIC, "P": parameter("v"), **TOPIC}})
    assert summary["ResourceIdentifierSummaries"] == [
        {"ResourceType": "AWS::SNS::Topic", "LogicalResourceIds": ["Foo"]},
        {"ResourceType": "AWS::SSM::Parameter", "LogicalResourceIds": ["P"]},
    ]


def test_a_stack_from_review_to_its_end(cloud):
    body = {"Resources": {"P": parameter("v")}}
    change_set, _ = cloud.look("s", "first", body, "CREATE")
    assert not {"Parameters", "Tags"} & change_set.keys() and change_set["Capabilities"] == []
    review = cloud.stack("s")
    assert review["StackStatus"] == "REVIEW_IN_PROGRESS" and "Capabilities" not in review
    assert cloud.refused("GetTemplateSummary", StackName="s") == (
        "ValidationError", "GetTemplateSummary cannot be called on REVIEW_IN_PROGRESS stacks.",
    )  # fmt: skip
    assert cloud.create("s", body) == review["StackId"], "CreateStack takes the stack in review"
    stack = cloud.stack("s")
    assert stack["StackStatus"] == "CREATE_COMPLETE" and not {"LastUpdatedTime", "ChangeSetId"} & stack.keys()
    first = {"ChangeSetName": change_set["ChangeSetId"]}
    assert cloud("DescribeChangeSet", **first)["ExecutionStatus"] == "OBSOLETE"
    assert cloud.refused("ExecuteChangeSet", **first)[0] == "InvalidChangeSetStatus"
    again, _ = cloud.look("s", "second", {"Resources": {"P": parameter("w")}})
    cloud.execute(again)
    assert cloud.stack("s")["ChangeSetId"] == again["ChangeSetId"]
    stale, _ = cloud.look("s", "third", body)
    cloud("UpdateStack", StackName="s", TemplateBody={"Resources": {"P": parameter("x")}})
    cloud.settle()
    assert "ChangeSetId" not in cloud.stack("s"), "the last operation was no change set"
    assert cloud("DescribeChangeSet", ChangeSetName=stale["ChangeSetId"])["ExecutionStatus"] == "OBSOLETE"
    cloud("DeleteStack", StackName="s")
    cloud.settle()
    gone = cloud.stack(review["StackId"])
    assert gone["StackStatus"] == "DELETE_COMPLETE" and not {"EnableTerminationProtection", "ChangeSetId"} & gone.keys()
    executed = cloud("DescribeChangeSet", ChangeSetName=again["ChangeSetId"])
    assert executed["ExecutionStatus"] == "EXECUTE_COMPLETE", "it can still be looked at"
    params = {"StackName": review["StackId"], "ChangeSetName": "revived", "ChangeSetType": "CREATE"}
    assert cloud.refused("CreateChangeSet", TemplateBody=body, **params)[1] == (
        f"Stack [{review['StackId']}] already exists and cannot be created again with the changeSet [revived]."
    )


def changed(described):
    return [change["ResourceChange"] for change in described["Changes"]]


def detail(name, source, evaluation="Static", entity=None, recreation="Never"):
    target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": recreation}
    if name == "Metadata":
        target = {"Attribute": "Metadata", "RequiresRecreation": recreation}
    caused = {"CausingEntity": entity} if entity else {}
    return {"Target": target, "ChangeSource": source, "Evaluation": evaluation, **caused}


def test_what_a_change_is_caused_by_and_its_values(cloud):
    body = {
        "Parameters": {"Name": {"Type": "String"}},
        "Resources": {
            "Foo": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": {"Ref": "Name"}}},
            "Bar": parameter({"Fn::GetAtt": ["Foo", "TopicName"]}),
        },
    }
    _, whole = cloud.look("s", "first", body, "CREATE", Parameters=given(Name="topic-1"))
    assert [(change["LogicalResourceId"], json.loads(change["AfterContext"])) for change in changed(whole)] == [
        ("Bar", {"Properties": {"Type": "String", "Value": "{{changeSet:KNOWN_AFTER_APPLY}}"}}),
        ("Foo", {"Properties": {"TopicName": "topic-1"}}),
    ]
    cloud.execute(whole)
    short, whole = cloud.look("s", "second", body, Parameters=given(Name="topic-2"))
    bar, foo = changed(short)
    assert bar["Details"] == [detail("Value", "ResourceAttribute", entity="Foo.TopicName")]
    assert foo["Details"] == [
        detail("TopicName", "ParameterReference", entity="Name", recreation="Always"),
        detail("TopicName", "DirectModification", "Dynamic", recreation="Always"),
    ]
    assert foo["PolicyAction"] == "ReplaceAndDelete" and "AfterContext" not in foo
    bar, foo = changed(whole)
    assert json.loads(foo["BeforeContext"])["Properties"] == {"TopicName": "topic-1"}
    assert [item["Evaluation"] for item in bar["Details"]] == ["Static", "Dynamic"]
    assert foo["Details"][0]["Target"] == {
        "Attribute": "Properties", "Name": "TopicName", "RequiresRecreation": "Always", "Path": "/Properties/TopicName",
        "AttributeChangeType": "Modify", "BeforeValue": "topic-1", "AfterValue": "topic-2",
    }  # fmt: skip
    cloud.execute(whole)
    direct, gone = json.loads(json.dumps(body)), json.loads(json.dumps(body))
    direct["Resources"]["Foo"]["Properties"]["DisplayName"] = "shown"
    _, change = changed(cloud.look("s", "third", direct, Parameters=given(Name="topic-2"))[0])
    assert change["Details"] == [detail("DisplayName", "DirectModification")]
    del gone["Resources"]["Bar"]
    (change,) = changed(cloud.look("s", "fourth", gone, Parameters=given(Name="topic-2"))[1])
    assert change["Action"] == "Remove" and json.loads(change["BeforeContext"])["Properties"]["Value"] == "topic-2"


def test_what_uses_an_attribute_of_a_changed_resource_may_change(cloud):
    def chain(shown):
        def topic(name):
            return {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": name}}

        two, three = ({"Fn::GetAtt": [f"Topic{number}", "DisplayName"]} for number in (1, 2))
        return {"Resources": {"Topic1": topic(shown), "Topic2": topic(two), "Topic3": topic(three)}}

    cloud.create("s", chain("one"))
    short, whole = cloud.look("s", "c", chain("two"))
    assert [change["Details"] for change in changed(short)] == [
        [detail("DisplayName", "DirectModification")],
        [detail("DisplayName", "ResourceAttribute", "Dynamic", "Topic1.DisplayName")],
        [detail("DisplayName", "ResourceAttribute", "Dynamic", "Topic2.DisplayName")],
    ]
    assert [change["LogicalResourceId"] for change in changed(whole)] == ["Topic1"], "the others are not sure"
    cloud.execute(short)
    done = [event for event in cloud.events("s") if event["ResourceStatus"] == "UPDATE_COMPLETE"]
    assert [event["LogicalResourceId"] for event in done] == ["Topic1", "Topic2", "Topic3", "s"]


def test_a_hidden_parameter_in_metadata_and_tags(cloud):
    queue = {
        "Type": "AWS::SQS::Queue",
        "Metadata": {"Data": {"Ref": "Secret"}},
        "Properties": {"Tags": [{"Key": "K", "Value": {"Ref": "Secret"}}]},
    }
    body = {"Parameters": {"Secret": {"Type": "String", "NoEcho": True}}, "Resources": {"Q": queue}}
    cloud.create("s", body, Parameters=given(Secret="older"))
    shown = cloud("DescribeStackResource", StackName="s", LogicalResourceId="Q")["StackResourceDetail"]
    assert json.loads(shown["Metadata"]) == {"Data": "older"}
    short, whole = cloud.look("s", "c", body, Parameters=given(Secret="newer"))
    (change,) = changed(short)
    assert change["Scope"] == ["Metadata", "Properties"]
    for name in ("Metadata", "Tags"):
        assert detail(name, "ParameterReference", entity="Secret") in change["Details"]
        assert detail(name, "DirectModification", "Dynamic") in change["Details"]
    assert "newer" not in json.dumps(whole, default=str) and "older" not in json.dumps(whole, default=str)


def test_an_attribute_may_be_any_property(cloud):
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "display"}}
    body = {"Resources": {"T": topic}, "Outputs": {"O": {"Value": {"Fn::GetAtt": ["T", "DisplayName"]}}}}
    cloud.create("s", body)
    assert cloud.stack("s")["Outputs"] == [{"OutputKey": "O", "OutputValue": "display"}]


def told(events):
    return [
        (event["ResourceStatus"], event["PhysicalResourceId"].rpartition("/")[2], event.get("ResourceStatusReason"))
        for event in events
        if event["ResourceType"] != "AWS::CloudFormation::Stack"
    ]


def test_the_events_of_a_replacement(cloud):
    def named(name):
        return {"Resources": {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name}}}}

    cloud.create("s", named("q1"))
    before = len(cloud.events("s"))
    cloud("UpdateStack", StackName="s", TemplateBody=named("q2"))
    cloud.settle()
    assert told(cloud.events("s")[before:]) == [
        ("UPDATE_IN_PROGRESS", "q1",
         "Requested update requires the creation of a new physical resource; hence creating one."),
        ("UPDATE_IN_PROGRESS", "q2", "Resource creation Initiated"),
        ("UPDATE_COMPLETE", "q2", None),
        ("DELETE_IN_PROGRESS", "q1", None),
        ("DELETE_COMPLETE", "q1", None),
    ]  # fmt: skip
    assert all("ResourceProperties" not in event for event in cloud.events("s") if "DELETE" in event["ResourceStatus"])


def test_a_stack_that_cannot_be_taken_back(cloud):
    policy = {"PolicyName": "p", "PolicyDocument": {"Statement": [{"Action": "*", "Resource": "*", "Effect": "Allow"}]}}
    body = {"Resources": {"Broken": {"Type": "AWS::IAM::Policy", "Properties": policy}}}
    number = cloud.create("s", body, Capabilities=["CAPABILITY_NAMED_IAM"])
    stack = cloud.stack("s")
    assert stack["StackStatus"] == "ROLLBACK_FAILED" and "DeletionTime" in stack
    cloud("DeleteStack", StackName="s")
    cloud.settle()
    stack = cloud.stack("s")
    assert stack["StackStatusReason"] == "The following resource(s) failed to delete: [Broken]. "
    assert stack["StackStatus"] == "DELETE_FAILED" and stack["EnableTerminationProtection"] is False
    cloud("DeleteStack", StackName="s", RetainResources=["Broken"])
    cloud.settle()
    events = cloud.events(number)
    assert [event["ResourceStatus"] for event in events] == [
        "CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_FAILED", "ROLLBACK_IN_PROGRESS",
        "DELETE_IN_PROGRESS", "DELETE_FAILED", "ROLLBACK_FAILED", "DELETE_IN_PROGRESS", "DELETE_IN_PROGRESS",
        "DELETE_FAILED", "DELETE_FAILED", "DELETE_IN_PROGRESS", "DELETE_SKIPPED", "DELETE_COMPLETE",
    ]  # fmt: skip
    broken = [event for event in events if event["LogicalResourceId"] == "Broken"]
    assert all(json.loads(event["ResourceProperties"])["PolicyName"] == "p" for event in broken)


def test_the_name_of_a_parameter(cloud):
    cloud.create("s", {"Resources": {"P": parameter("v")}})
    (resource,) = cloud("DescribeStackResources", StackName="s")["StackResources"]
    assert resource["PhysicalResourceId"].startswith("CFN-P-") and len(resource["PhysicalResourceId"]) == 18

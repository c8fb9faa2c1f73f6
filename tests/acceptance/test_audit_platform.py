"""What a tester who knows AWS tried first and found wanting: templates, filter patterns."""

import json

import pytest
from botocore.exceptions import ClientError

QUEUE = {"Type": "AWS::SQS::Queue"}
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
QUICK = {"Delay": 1, "MaxAttempts": 20}


@pytest.fixture(scope="module")
def cloudformation(aws):
    return aws.client("cloudformation")


def refusal(call, **params) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def deploy(cloudformation, name, template, **params):
    cloudformation.create_stack(
        StackName=name, TemplateBody=json.dumps(template), Capabilities=CAPABILITIES, **params
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig=QUICK)
    stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"Fn::Select": [5, ["a", "b"]]}, "Template error: Fn::Select  cannot select nonexistent value at index 5"),
        ({"Fn::FindInMap": ["M", "a", "b"]}, "Template error: Unable to get mapping for M::a::b"),
        ({"Fn::Cidr": ["nowhere", 1, 8]}, "Template error: Fn::Cidr object is malformed"),
        ({"Fn::If": ["Gone", "a", "b"]}, "Unresolved condition dependency Gone"),
        ({"Fn::Nope": "a"}, "Template error: Encountered unsupported function: Fn::Nope"),
        ({"Fn::Length": ["a"]}, "needs the transform AWS::LanguageExtensions"),
        ({"Fn::Split": [",", "a,b"]}, "The Value field of every Outputs member must evaluate to a String."),
        ({"a": "b"}, "The Value field of every Outputs member must evaluate to a String."),
    ],
)
def test_a_function_that_cannot_work_is_refused_before_anything_is_made(cloudformation, value, message):
    template = {"Resources": {"Q": QUEUE}, "Outputs": {"O": {"Value": value}}}
    code, said = refusal(cloudformation.create_stack, StackName="audit-never", TemplateBody=json.dumps(template))
    assert code == "ValidationError" and message in said
    assert refusal(cloudformation.describe_stacks, StackName="audit-never")[0] == "ValidationError"


def test_functions_of_what_is_not_known_yet_wait(cloudformation):
    waits = {"Fn::Select": [5, {"Fn::Split": [":", {"Fn::GetAtt": ["Q", "Arn"]}]}]}
    imported = {"Fn::Select": [3, {"Fn::Split": ["-", {"Fn::ImportValue": "audit-nowhere"}]}]}
    outputs = deploy(
        cloudformation, "audit-waits", {"Resources": {"Q": QUEUE}, "Outputs": {"Name": {"Value": waits}}}
    )
    assert outputs["Name"].startswith("audit-waits-Q-")
    cloudformation.create_stack(
        StackName="audit-imports",
        TemplateBody=json.dumps({"Resources": {"Q": QUEUE}, "Outputs": {"Name": {"Value": imported}}}),
        OnFailure="DO_NOTHING",
    )
    with pytest.raises(Exception, match="CREATE_FAILED"):
        cloudformation.get_waiter("stack_create_complete").wait(StackName="audit-imports", WaiterConfig=QUICK)
    stack = cloudformation.describe_stacks(StackName="audit-imports")["Stacks"][0]
    assert stack["StackStatusReason"].startswith("No export named audit-nowhere found.")


def test_a_change_set_looks_through_functions_of_new_resources(cloudformation):
    """An update that adds a resource and takes its ARN apart elsewhere."""
    deploy(cloudformation, "audit-pending", {"Resources": {"Q": QUEUE}})
    tag = {"Key": "made-of", "Value": {"Fn::Select": [5, {"Fn::Split": [":", {"Fn::GetAtt": ["N", "Arn"]}]}]}}
    template = {"Resources": {"Q": {**QUEUE, "Properties": {"Tags": [tag]}}, "N": QUEUE}}
    made = cloudformation.create_change_set(
        StackName="audit-pending", ChangeSetName="adds", TemplateBody=json.dumps(template)
    )
    cloudformation.get_waiter("change_set_create_complete").wait(ChangeSetName=made["Id"], WaiterConfig=QUICK)
    changes = cloudformation.describe_change_set(ChangeSetName=made["Id"])["Changes"]
    found = {item["ResourceChange"]["LogicalResourceId"]: item["ResourceChange"]["Action"] for item in changes}
    assert found == {"N": "Add", "Q": "Modify"}
    cloudformation.execute_change_set(ChangeSetName=made["Id"])
    cloudformation.get_waiter("stack_update_complete").wait(StackName="audit-pending", WaiterConfig=QUICK)


def test_language_extensions_take_functions_for_names_and_policies(cloudformation):
    resources = {
        "Fn::ForEach::Queues": [
            "Letter", ["A", "B"], {"Q${Letter}": {**QUEUE, "DeletionPolicy": {"Ref": "Keep"}}},
        ],
        "P": {
            "Type": "AWS::SSM::Parameter",
            "Properties": {"Type": "String", "Value": {"Ref": {"Fn::Sub": "Q${Which}"}}},
        },
    }  # fmt: skip
    outputs = {
        "Fn::ForEach::Arns": [
            "Letter", ["A", "B"], {"Arn${Letter}": {"Value": {"Fn::GetAtt": [{"Fn::Sub": "Q${Letter}"}, "Arn"]}}},
        ],
        "Value": {"Value": {"Fn::GetAtt": ["P", "Value"]}},
    }  # fmt: skip
    made = deploy(cloudformation, "audit-names", {
        "Transform": "AWS::LanguageExtensions",
        "Parameters": {
            "Keep": {"Type": "String", "Default": "Delete"}, "Which": {"Type": "String", "Default": "B"},
        },
        "Resources": resources,
        "Outputs": outputs,
    })  # fmt: skip
    assert ":audit-names-QA-" in made["ArnA"] and ":audit-names-QB-" in made["ArnB"]
    assert "/audit-names-QB-" in made["Value"]


RULES = {
    "CheckBootstrapVersion": {
        "Assertions": [{
            "Assert": {"Fn::Not": [{"Fn::Contains": [["1", "2", "3", "4", "5"], {"Ref": "Version"}]}]},
            "AssertDescription": "Version 6 of the bootstrap stack is needed",
        }],
    },
    "ZonesOnlyAbroad": {
        "RuleCondition": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AWS::Region"}, "us-east-1"]}]},
        "Assertions": [{"Assert": {"Fn::EachMemberEquals": [{"Ref": "Zones"}, "never"]}}],
    },
    "ZonesKnown": {"Assertions": [{"Assert": {"Fn::EachMemberIn": [{"Ref": "Zones"}, ["a", "b"]]}}]},
}  # fmt: skip


def test_rules_as_cdk_writes_them(cloudformation):
    template = {
        "Parameters": {
            "Version": {"Type": "String", "Default": "21"},
            "Zones": {"Type": "CommaDelimitedList", "Default": "a,b"},
        },
        "Rules": RULES,
        "Resources": {"Q": QUEUE, "CDKMetadata": {"Type": "AWS::CDK::Metadata", "Properties": {"Analytics": "v2:x"}}},
    }
    deploy(cloudformation, "audit-rules", template)
    for key, value, said in (
        ("Version", "3", "CheckBootstrapVersion: Version 6 of the bootstrap stack is needed"),
        ("Zones", "a,c", "ZonesKnown"),
    ):
        code, message = refusal(
            cloudformation.create_stack, StackName="audit-rules-no", TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": key, "ParameterValue": value}],
        )  # fmt: skip
        assert code == "ValidationError" and said in message
    for broken in ({"R": {}}, {"R": {"Assertions": [{}]}}, {"R": {"Assertions": [{"Assert": {"Fn::ValueOf": ["a"]}}]}}):
        code, _ = refusal(
            cloudformation.create_stack, StackName="audit-rules-no",
            TemplateBody=json.dumps({"Rules": broken, "Resources": {"Q": QUEUE}}),
        )  # fmt: skip
        assert code == "ValidationError"


def test_an_output_of_a_resource_that_is_not_made_is_refused(cloudformation):
    template = {
        "Conditions": {"Never": {"Fn::Equals": ["a", "b"]}},
        "Resources": {"Q": QUEUE, "Gone": {**QUEUE, "Condition": "Never"}},
        "Outputs": {"O": {"Value": {"Fn::If": ["Never", {"Ref": "Gone"}, "none"]}}},
    }
    assert deploy(cloudformation, "audit-gone", template) == {"O": "none"}
    template["Outputs"]["O"]["Value"] = {"Ref": "Gone"}
    code, said = refusal(cloudformation.create_stack, StackName="audit-gone-no", TemplateBody=json.dumps(template))
    assert (code, said) == (
        "ValidationError",
        "Unresolved resource dependencies [Gone] in the Outputs block of the template",
    )


def test_a_policy_that_is_no_text_is_refused(cloudformation):
    template = {"Parameters": {"Keep": {"Type": "String", "Default": "Retain"}},
                "Resources": {"Q": {**QUEUE, "DeletionPolicy": {"Ref": "Keep"}}}}  # fmt: skip
    code, said = refusal(cloudformation.create_stack, StackName="audit-policy", TemplateBody=json.dumps(template))
    assert (code, said) == ("ValidationError", "Template format error: Every DeletionPolicy member must be a string.")


def test_create_stack_sent_again_with_its_token_is_the_same_stack(cloudformation):
    body = json.dumps({"Resources": {"Q": QUEUE}})
    first, again = (
        cloudformation.create_stack(StackName="audit-token", TemplateBody=body, ClientRequestToken="once")["StackId"]
        for _ in range(2)
    )
    assert first == again
    code, _ = refusal(
        cloudformation.create_stack, StackName="audit-token", TemplateBody=body, ClientRequestToken="other"
    )
    assert code == "AlreadyExistsException"


def test_a_dynamic_reference_to_nothing_says_which(cloudformation):
    value = {"Type": "String", "Value": "{{resolve:ssm:/audit/nowhere}}"}
    cloudformation.create_stack(
        StackName="audit-dynamic",
        TemplateBody=json.dumps({"Resources": {"P": {"Type": "AWS::SSM::Parameter", "Properties": value}}}),
    )
    with pytest.raises(Exception, match="ROLLBACK_COMPLETE"):
        cloudformation.get_waiter("stack_create_complete").wait(StackName="audit-dynamic", WaiterConfig=QUICK)
    events = cloudformation.describe_stack_events(StackName="audit-dynamic")["StackEvents"]
    reasons = [event.get("ResourceStatusReason") for event in events if event["LogicalResourceId"] == "P"]
    assert "Parameters: [ssm:/audit/nowhere] cannot be found." in reasons


def test_space_delimited_patterns_filter_report_lines(aws):
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="/audit/words")
    logs.create_log_stream(logGroupName="/audit/words", logStreamName="s")
    now = int(logs.describe_log_groups(logGroupNamePrefix="/audit/words")["logGroups"][0]["creationTime"])
    lines = ["10.0.0.1 GET 200 15", "10.0.0.2 GET 503 900", "10.0.0.3 PUT 404 7"]
    logs.put_log_events(
        logGroupName="/audit/words", logStreamName="s",
        logEvents=[{"timestamp": now, "message": line} for line in lines],
    )  # fmt: skip

    def found(pattern):
        events = logs.filter_log_events(logGroupName="/audit/words", filterPattern=pattern)["events"]
        return [event["message"] for event in events]

    assert found("[ip, verb, status = 5* || status = 404, took]") == lines[1:]
    assert found("[..., took > 10]") == lines[:2]
    assert found("[a, b]") == []
    code, _ = refusal(logs.filter_log_events, logGroupName="/audit/words", filterPattern="[a, b")
    assert code == "InvalidParameterException"


def test_a_required_member_of_logs_that_is_absent(aws):
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Logs_20140328.CreateLogGroup"}
    status, _, body = aws.get("/", "POST", b"{}", headers)
    assert status == 400
    assert json.loads(body) == {
        "__type": "InvalidParameterException",
        "message": "1 validation error detected: Value null at 'logGroupName' failed to satisfy constraint: "
        "Member must not be null",
    }


def test_requests_for_services_that_are_not_known_are_not_taken_for_s3(aws):
    with pytest.raises(ClientError) as caught:
        aws.client("autoscaling").describe_auto_scaling_groups()
    assert caught.value.response["Error"]["Code"] == "InvalidAction"
    assert "DescribeAutoScalingGroups" in caught.value.response["Error"]["Message"]
    with pytest.raises(ClientError) as caught:
        aws.client("backup").list_backup_vaults()
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"
    assert "GET /backup-vaults/" in caught.value.response["Error"]["Message"]
    with pytest.raises(ClientError) as caught:
        aws.client("kms").list_keys()
    assert "ListKeys" in caught.value.response["Error"]["Message"]

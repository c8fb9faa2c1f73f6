"""The stack engine: order, failure, rollback, replacement, and going on after a crash at any commit."""

import itertools
import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.logs.service import build as build_logs
from preheat.services.sqs.service import build as build_sqs
from preheat.store.errors import StoreFull
from preheat.template.service import build
from tests.support.inprocess import InProcess
from tests.support.recording_services import RecordingLambda


class Cloud:
    """A world with CloudFormation, SQS, Logs and the recording Lambda."""

    def __init__(self, directory=None, seed=1):
        self.functions = RecordingLambda()
        self.world = InProcess(build_sqs, build_logs, lambda platform: self.functions, self._build, directory=directory,
                               seed=seed)  # fmt: skip

    def _build(self, platform):
        self.service = build(platform)
        return self.service

    def __call__(self, operation, **params):
        return self.world("cloudformation", operation, **params)

    def refused(self, operation, **params) -> AwsError:
        with pytest.raises(AwsError) as caught:
            self(operation, **params)
        return caught.value

    def create(self, name, resources, **more):
        params = dict(more)
        body = json.dumps({"Resources": resources, **({"Outputs": params.pop("Out")} if "Out" in params else {})})
        return self("CreateStack", StackName=name, TemplateBody=body, **params)["StackId"]

    def update(self, name, resources, out=None, **params):
        body = json.dumps({"Resources": resources, **({"Outputs": out} if out else {})})
        return self("UpdateStack", StackName=name, TemplateBody=body, **params)

    def run(self, seconds=60.0):
        self.world.advance(seconds)
        assert not self.world.defects, self.world.defects

    def stack(self, name):
        return self("DescribeStacks", StackName=name)["Stacks"][0]

    def status(self, name):
        return self.stack(name)["StackStatus"]

    def events(self, name):
        found = self("DescribeStackEvents", StackName=name)["StackEvents"]
        return [
            (event["LogicalResourceId"], event["ResourceStatus"], event.get("ResourceStatusReason", ""))
            for event in reversed(found)
        ]

    def physical(self, name, logical_id):
        params = {"StackName": name, "LogicalResourceId": logical_id}
        return self("DescribeStackResource", **params)["StackResourceDetail"].get("PhysicalResourceId")

    def groups(self):
        found = self.world("logs", "DescribeLogGroups").get("logGroups", [])
        return {group["logGroupName"] for group in found}


@pytest.fixture
def cloud():
    return Cloud()


def group(name=None, days=None, **more):
    properties = {}
    if name:
        properties["LogGroupName"] = name
    if days:
        properties["RetentionInDays"] = days
    return {"Type": "AWS::Logs::LogGroup", "Properties": properties, **more}


def function(handler="app.h", timeout=3, **more):
    properties = {"Handler": handler, "Timeout": timeout, "Runtime": "python3.11", "Role": "arn:aws:iam::1:role/r"}
    properties["Code"] = {"S3Bucket": "b", "S3Key": "k"}
    return {"Type": "AWS::Lambda::Function", "Properties": properties, **more}


def test_create_waits_for_what_a_resource_needs(cloud):
    redrive = {"deadLetterTargetArn": {"Fn::GetAtt": ["Dead", "Arn"]}, "maxReceiveCount": "3"}
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"RedrivePolicy": redrive}}
    out = {"Url": {"Value": {"Ref": "Q"}, "Description": "where", "Export": {"Name": "url"}}}
    cloud.create("s", {"Q": queue, "Dead": {"Type": "AWS::SQS::Queue"}}, Out=out)
    cloud.run()
    stack = cloud.stack("s")
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    url = cloud.physical("s", "Q")
    assert stack["Outputs"] == [{"OutputKey": "Url", "OutputValue": url, "Description": "where", "ExportName": "url"}]
    statuses = [(name, status) for name, status, _ in cloud.events("s")]
    assert statuses.index(("Dead", "CREATE_COMPLETE")) < statuses.index(("Q", "CREATE_IN_PROGRESS"))
    assert statuses[0] == ("s", "CREATE_IN_PROGRESS") and statuses[-1] == ("s", "CREATE_COMPLETE")
    read = cloud.world("sqs", "GetQueueAttributes", QueueUrl=url, AttributeNames=["RedrivePolicy"])
    assert json.loads(read["Attributes"]["RedrivePolicy"])["maxReceiveCount"] in (3, "3")


def test_a_failed_create_takes_everything_back(cloud):
    resources = {"G": group(days=7), "F": {**function("broken"), "DependsOn": "G"}, "After": group(DependsOn="F")}
    cloud.create("s", resources)
    cloud.run()
    assert cloud.status("s") == "ROLLBACK_COMPLETE"
    events = cloud.events("s")
    reason = next(reason for name, status, reason in events if (name, status) == ("F", "CREATE_FAILED"))
    assert reason.startswith(
        'Resource handler returned message: "That handler is broken (Service: Lambda, Status Code: 400, Request ID: '
    )
    assert reason.endswith("HandlerErrorCode: InvalidRequest)")
    expected = "The following resource(s) failed to create: [F]. Rollback requested by user."
    assert ("s", "ROLLBACK_IN_PROGRESS", expected) in events
    assert not [event for event in events if event[0] == "After"]
    assert cloud.groups() == set()
    error = cloud.refused("UpdateStack", StackName="s", TemplateBody=json.dumps({"Resources": {"G": group()}}))
    assert "is in ROLLBACK_COMPLETE state and can not be updated." in error.message


def test_on_failure_do_nothing_and_delete(cloud):
    cloud.create("stay", {"G": group(), "F": {**function("broken"), "DependsOn": "G"}}, OnFailure="DO_NOTHING")
    stack_id = cloud.create("go", {"G": group(), "F": {**function("broken"), "DependsOn": "G"}}, OnFailure="DELETE")
    cloud.run()
    assert cloud.status("stay") == "CREATE_FAILED"
    assert cloud.status(stack_id) == "DELETE_COMPLETE"
    assert cloud.refused("DescribeStacks", StackName="go").message == "Stack with id go does not exist"
    assert cloud.groups() == {cloud.physical("stay", "G")}


def test_what_belongs_to_somebody_else_is_not_deleted(cloud):
    cloud.world("logs", "CreateLogGroup", logGroupName="theirs")
    cloud.create("s", {"G": group("theirs")})
    cloud.run()
    assert cloud.status("s") == "ROLLBACK_COMPLETE"
    assert cloud.groups() == {"theirs"}


def test_throttles_are_tried_again(cloud):
    cloud.functions.failures["CreateFunction"] = 3
    cloud.create("s", {"F": function()})
    cloud.run()
    assert cloud.status("s") == "CREATE_COMPLETE"
    assert len(cloud.functions.names("CreateFunction")) == 4


def test_a_function_that_fails_to_settle_fails_its_stack(cloud):
    cloud.functions.state = "Failed"
    cloud.create("s", {"F": function()})
    cloud.run()
    assert ("F", "CREATE_FAILED", "as told") in cloud.events("s")
    assert cloud.functions.names("DeleteFunction") == cloud.functions.names("CreateFunction")


def test_time_out(cloud):
    cloud.functions.state = "Pending"
    cloud.create("s", {"F": function()}, TimeoutInMinutes=2)
    cloud.run(60)
    assert cloud.status("s") == "CREATE_IN_PROGRESS"
    cloud.run(120)
    assert cloud.status("s") == "ROLLBACK_COMPLETE"
    assert ("F", "CREATE_FAILED", "Resource creation cancelled") in cloud.events("s")


def test_delete_during_create(cloud):
    cloud.functions.state = "Pending"
    stack_id = cloud.create("s", {"F": function()})
    cloud.run(5)
    cloud("DeleteStack", StackName="s")
    cloud.run()
    assert cloud.status(stack_id) == "DELETE_COMPLETE"
    assert cloud.functions.names("DeleteFunction") == cloud.functions.names("CreateFunction")


def test_update_changes_replaces_adds_and_removes(cloud):
    cloud.create("s", {"F": function(), "Old": group(), "Named": group("one")})
    cloud.run()
    before = cloud.physical("s", "F")
    cloud.update("s", {"F": function(timeout=9), "New": group(), "Named": group("two")})
    cloud.run()
    assert cloud.status("s") == "UPDATE_COMPLETE"
    assert cloud.physical("s", "F") == before
    assert cloud.world.db.value("SELECT timeout FROM fake_functions") == "9"
    assert cloud.groups() == {"two", cloud.physical("s", "New")}
    events = cloud.events("s")
    asked = "Requested update requires the creation of a new physical resource; hence creating one."
    assert ("Named", "UPDATE_IN_PROGRESS", asked) in events
    cleanup = events.index(("s", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", ""))
    assert all(events.index((name, "DELETE_COMPLETE", "")) > cleanup for name in ("Old", "Named"))


def test_a_failed_update_goes_back_to_what_stood(cloud):
    cloud.create("s", {"A": function(timeout=5), "B": {**function(), "DependsOn": "A"}, "N": group("one")})
    cloud.run()
    cloud.update("s", {
        "A": function(timeout=7), "B": {**function(timeout=900), "DependsOn": ["A", "N", "New"]}, "N": group("two"),
        "New": group("new"),
    })  # fmt: skip
    cloud.run()
    assert cloud.status("s") == "UPDATE_ROLLBACK_COMPLETE"
    timeouts = {row["timeout"] for row in cloud.world.db.all("SELECT timeout FROM fake_functions")}
    assert timeouts == {"5", "3"}
    assert cloud.groups() == {"one"}
    assert cloud.physical("s", "N") == "one"
    reason = "The following resource(s) failed to update: [B]. "
    assert ("s", "UPDATE_ROLLBACK_IN_PROGRESS", reason) in cloud.events("s")
    cloud.update("s", {"A": function(timeout=7), "B": function(), "N": group("one")})
    cloud.run()
    assert cloud.status("s") == "UPDATE_COMPLETE"


def test_a_failed_update_stays_when_rollback_is_disabled(cloud):
    cloud.create("s", {"A": function()})
    cloud.run()
    cloud.update("s", {"A": function(timeout=900)}, DisableRollback=True)
    cloud.run()
    assert cloud.status("s") == "UPDATE_FAILED"
    cloud("RollbackStack", StackName="s")
    cloud.run()
    assert cloud.status("s") == "UPDATE_ROLLBACK_COMPLETE"


def test_cancel_update(cloud):
    cloud.create("s", {"A": function()})
    cloud.run()
    cloud.functions.state = "Pending"
    cloud.update("s", {"A": function(), "B": function()})
    cloud.run(3)
    cloud("CancelUpdateStack", StackName="s")
    cloud.run()
    assert cloud.status("s") == "UPDATE_ROLLBACK_COMPLETE"
    assert ("s", "UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated") in cloud.events("s")
    assert cloud.world.db.value("SELECT count(*) FROM fake_functions") == 1


def test_a_custom_named_resource_cannot_be_replaced_under_its_name(cloud):
    named = function()
    named["Properties"]["FunctionName"] = "mine"
    cloud.create("s", {"F": named})
    cloud.run()
    image = json.loads(json.dumps(named))
    image["Properties"]["PackageType"] = "Image"
    cloud.update("s", {"F": image})
    cloud.run()
    assert cloud.status("s") == "UPDATE_ROLLBACK_COMPLETE"
    reason = next(reason for name, status, reason in cloud.events("s") if (name, status) == ("F", "UPDATE_FAILED"))
    assert reason.endswith("Rename mine and update the stack again.")
    assert cloud.functions.names("DeleteFunction") == []


def test_policies_keep_resources(cloud):
    stack_id = cloud.create("s", {
        "Kept": group("kept", DeletionPolicy="Retain"),
        "Swapped": group("first", UpdateReplacePolicy="Retain"),
    })  # fmt: skip
    cloud.run()
    cloud.update("s", {
        "Kept": group("kept", DeletionPolicy="Retain"), "Swapped": group("second", UpdateReplacePolicy="Retain"),
    })  # fmt: skip
    cloud.run()
    assert cloud.groups() == {"kept", "first", "second"}
    cloud("DeleteStack", StackName="s")
    cloud.run()
    assert cloud.status(stack_id) == "DELETE_COMPLETE"
    assert cloud.groups() == {"kept", "first"}
    assert ("Kept", "DELETE_SKIPPED", "") in cloud.events(stack_id)


def test_delete_that_fails_can_be_repeated_without_the_resource(cloud):
    cloud.create("s", {"F": function(), "G": group()})
    cloud.run()
    good = cloud.functions.operations["DeleteFunction"]

    def refuse(ctx, params):
        raise AwsError("ResourceInUseException", "in use", 400)

    cloud.functions.operations["DeleteFunction"] = refuse
    cloud("DeleteStack", StackName="s")
    cloud.run()
    stack = cloud.stack("s")
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert stack["StackStatusReason"] == "The following resource(s) failed to delete: [F]. "
    assert cloud.groups() == set()
    cloud("DeleteStack", StackName="s", RetainResources=["F"])
    cloud.run()
    assert cloud.refused("DescribeStacks", StackName="s").code == "ValidationError"
    cloud.functions.operations["DeleteFunction"] = good
    assert cloud.world.db.value("SELECT count(*) FROM fake_functions") == 1


def test_unsupported_and_missing_properties_fail_the_resource(cloud):
    odd = {"Type": "AWS::SQS::Queue", "Properties": {"Colour": "red"}}
    bare = {"Type": "AWS::DynamoDB::Table", "Properties": {"TableName": "t"}}
    cloud.create("odd", {"Q": odd})
    cloud.create("bare", {"T": bare})
    cloud.run()
    assert ("Q", "CREATE_FAILED", "Encountered unsupported property Colour") in cloud.events("odd")
    reason = next(reason for name, status, reason in cloud.events("bare") if (name, status) == ("T", "CREATE_FAILED"))
    assert "required key [KeySchema] not found" in reason


def test_exports_and_imports(cloud):
    out = {"G": {"Value": {"Ref": "G"}, "Export": {"Name": "group"}}}
    cloud.create("giver", {"G": group("shared")}, Out=out)
    cloud.run()
    taker = {"S": {"Type": "AWS::Logs::LogStream", "Properties": {"LogGroupName": {"Fn::ImportValue": "group"}}}}
    cloud.create("taker", taker)
    cloud.create("rival", {"G": group("other")}, Out=out)
    lost = {"LogGroupName": {"Fn::ImportValue": "no"}}
    cloud.create("lost", {"S": {"Type": "AWS::Logs::LogStream", "Properties": lost}})
    cloud.run()
    assert cloud.status("taker") == "CREATE_COMPLETE"
    assert cloud("ListImports", ExportName="group")["Imports"] == ["taker"]
    assert [item["Value"] for item in cloud("ListExports")["Exports"]] == ["shared"]
    assert cloud.status("rival") == "ROLLBACK_COMPLETE"
    assert "Export with name group is already exported by stack giver." in str(cloud.events("rival"))
    assert ("S", "CREATE_FAILED", "No export named no found.") in cloud.events("lost")
    error = cloud.refused("DeleteStack", StackName="giver")
    assert error.message == "Delete canceled. Cannot delete export group as it is in use by taker."


def test_events_hide_no_echo_values(cloud):
    body = {
        "Parameters": {"P": {"Type": "String", "NoEcho": True}},
        "Resources": {"G": group({"Ref": "P"})},
    }
    given = [{"ParameterKey": "P", "ParameterValue": "hush-hush"}]
    cloud("CreateStack", StackName="s", TemplateBody=json.dumps(body), Parameters=given)
    cloud.run()
    events = cloud("DescribeStackEvents", StackName="s")["StackEvents"]
    shown = [event["ResourceProperties"] for event in events if event.get("ResourceProperties")]
    assert shown and all("hush-hush" not in text and "****" in text for text in shown)
    assert cloud.stack("s")["Parameters"] == [{"ParameterKey": "P", "ParameterValue": "****"}]


# -- custom resources -----------------------------------------------------------------------------------------------


def custom(**properties):
    token = "arn:aws:lambda:us-east-1:000000000000:function:provider"
    return {"Type": "Custom::Thing", "Properties": {"ServiceToken": token, **properties}}


def answer(cloud, index=-1, **document):
    """Respond to the provider's last invocation; returns the event it had been sent."""
    event = json.loads([params["Payload"] for name, params in cloud.functions.calls if name == "Invoke"][index])
    token = event["ResponseURL"].rsplit("/", 1)[1]
    body = json.dumps({"StackId": event["StackId"], "RequestId": event["RequestId"], **document}).encode()
    replies = []
    cloud.world.machine.perform(
        lambda ctx: cloud.service.complete_custom_resource(ctx, token, body), replies.append, cloud.world.scope
    )
    cloud.run(2)
    if isinstance(replies[0], AwsError):
        raise replies[0]
    return event


def test_custom_resource_is_made_changed_and_deleted(cloud):
    stack_id = cloud.create("s", {"C": custom(Count=3, On=True)}, Out={"O": {"Value": {"Fn::GetAtt": ["C", "Answer"]}}})
    cloud.run(2)
    event = answer(cloud, Status="SUCCESS", PhysicalResourceId="thing-1", Data={"Answer": "42"})
    assert event["RequestType"] == "Create"
    assert event["ResourceProperties"]["Count"] == "3" and event["ResourceProperties"]["On"] == "true"
    assert event["ResponseURL"].startswith("http://127.0.0.1:4566/_preheat/cfn-response/")
    assert cloud.stack("s")["Outputs"][0]["OutputValue"] == "42"
    cloud.update("s", {"C": custom(Count=4)})
    cloud.run(2)
    event = answer(cloud, Status="SUCCESS", PhysicalResourceId="thing-2")
    assert (event["RequestType"], event["PhysicalResourceId"]) == ("Update", "thing-1")
    assert event["OldResourceProperties"]["Count"] == "3"
    event = answer(cloud, Status="SUCCESS", PhysicalResourceId="thing-1")
    assert (event["RequestType"], event["PhysicalResourceId"]) == ("Delete", "thing-1")
    assert cloud.status("s") == "UPDATE_COMPLETE"
    cloud("DeleteStack", StackName="s")
    cloud.run(2)
    assert answer(cloud, Status="SUCCESS")["PhysicalResourceId"] == "thing-2"
    assert cloud.status(stack_id) == "DELETE_COMPLETE"


def test_custom_resource_that_fails_or_never_answers(cloud):
    cloud.create("bad", {"C": custom()})
    cloud.run(2)
    answer(cloud, Status="FAILED", Reason="no luck")
    assert answer(cloud, Status="SUCCESS")["RequestType"] == "Delete"
    assert "Message returned: no luck" in str(cloud.events("bad"))
    assert cloud.status("bad") == "ROLLBACK_COMPLETE"
    cloud.create("mute", {"C": custom(ServiceTimeout=30)})
    cloud.run(60)
    assert "did not receive a response from your Custom Resource" in str(cloud.events("mute"))
    with pytest.raises(AwsError, match="Request has expired"):
        answer(cloud, 0, Status="SUCCESS", PhysicalResourceId="x")


# -- crashes --------------------------------------------------------------------------------------------------------

CRASHED = {
    "Dead": {"Type": "AWS::SQS::Queue"},
    "Q": {
        "Type": "AWS::SQS::Queue",
        "Properties": {"RedrivePolicy": {"deadLetterTargetArn": {"Fn::GetAtt": ["Dead", "Arn"]}, "maxReceiveCount": 3}},
    },
    "F": function(),
    "G": group(days=3),
}


def crash_after(directory, ticks: int) -> bool:
    """Create the stack, stop after that many commits, start again. True when the first life had ended its work."""
    first = Cloud(directory, seed=1)
    replies = []
    params = {"StackName": "s", "TemplateBody": json.dumps({"Resources": CRASHED})}
    first.world.machine.submit("cloudformation", "CreateStack", params, replies.append)
    for _ in range(ticks):
        if not first.world.machine.has_work():
            break
        first.world.machine.tick()
    finished = not first.world.machine.has_work()
    first.world.db.close()
    second = Cloud(directory, seed=2)
    second.world.machine.wake_all()
    if not replies:
        second.create("s", CRASHED)
    second.run()
    assert second.status("s") == "CREATE_COMPLETE"
    queues = second.world("sqs", "ListQueues")["QueueUrls"]
    assert sorted(queues) == sorted(second.physical("s", name) for name in ("Dead", "Q"))
    assert second.groups() == {second.physical("s", "G")}
    functions = [row["name"] for row in second.world.db.all("SELECT name FROM fake_functions")]
    assert functions == [second.physical("s", "F")]
    events = [(name, status) for name, status, _ in second.events("s") if status == "CREATE_COMPLETE"]
    assert len(events) == len(set(events)) == 5
    second.world.db.close()
    return finished


def test_a_crash_at_any_commit_loses_and_repeats_nothing(tmp_path):
    for ticks in range(60):
        if crash_after(tmp_path / str(ticks), ticks):
            break
    else:
        raise AssertionError("the work never ended")
    assert ticks > 8


def test_a_create_that_was_on_its_way_counts_when_it_is_there(tmp_path):
    first = Cloud(tmp_path / "state")
    first.functions.slow = True
    first.create("s", {"F": function()})
    first.run(2)
    assert first.status("s") == "CREATE_IN_PROGRESS"
    first.world.db.close()
    second = Cloud(tmp_path / "state", seed=2)
    second.run()
    assert second.status("s") == "CREATE_COMPLETE"
    assert second.functions.names("CreateFunction") == [second.physical("s", "F")]


def test_a_full_disk_at_any_commit_only_delays():
    for victim in itertools.count(1):
        cloud = Cloud()
        replies, count = [], 0
        commit = cloud.world.db.commit

        def failing(commit=commit, cloud=cloud, victim=victim):
            nonlocal count
            count += 1
            if count == victim:
                cloud.world.db.rollback()
                raise StoreFull("disk full")
            commit()

        cloud.world.db.commit = failing
        params = {"StackName": "s", "TemplateBody": json.dumps({"Resources": CRASHED})}
        cloud.world.machine.submit("cloudformation", "CreateStack", params, replies.append)
        cloud.run()
        if isinstance(replies[0], AwsError):
            assert replies[0].status == 503
            cloud.create("s", CRASHED)
            cloud.run()
        cloud.world.db.commit = commit
        assert cloud.status("s") == "CREATE_COMPLETE", victim
        assert len(cloud.world("sqs", "ListQueues")["QueueUrls"]) == 2
        if count < victim:
            break
    assert victim > 8

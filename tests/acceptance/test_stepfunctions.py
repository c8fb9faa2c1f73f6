"""Step Functions over a socket: an order through retries, branches, tokens and crashes; what starts executions."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_iam_enforced import EnforcedServer, allow
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

HANDLER = """
import time

class PriceServiceDown(Exception):
    pass

def price(event, context):
    if event["attempt"] < event["fail"]:
        raise PriceServiceDown("no price")
    return {"sku": event["sku"], "price": 3 * event["count"], "attempt": event["attempt"]}

def slow(event, context):
    import boto3
    sqs = boto3.client("sqs")
    sqs.send_message(QueueUrl=event["marks"], MessageBody='"begun"')
    while not sqs.receive_message(QueueUrl=event["go"], WaitTimeSeconds=1).get("Messages"):
        time.sleep(0.01)
    return {"from": "task"}
"""
ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


class Flow:
    """Step Functions on a server, with functions."""

    def __init__(self, server):
        self.server = server
        self.states, self.sqs, self.functions = (server.client(name) for name in ("stepfunctions", "sqs", "lambda"))

    def function(self, name, handler):
        made = self.functions.create_function(
            FunctionName=name, Role=ROLE, Runtime="python3.11", Handler=f"app.{handler}", Timeout=60,
            Code={"ZipFile": make_zip({"app.py": HANDLER})},
        )  # fmt: skip
        self.functions.get_waiter("function_active_v2").wait(FunctionName=name)
        return made["FunctionArn"]

    def machine(self, name, states, kind="STANDARD", **top):
        definition = {"StartAt": next(iter(states)), "States": states, **top}
        made = self.states.create_state_machine(
            name=name, definition=json.dumps(definition), roleArn=ROLE, type=kind
        )  # fmt: skip
        return made["stateMachineArn"]

    def start(self, machine, given=None, **more):
        text = json.dumps({} if given is None else given)
        return self.states.start_execution(stateMachineArn=machine, input=text, **more)["executionArn"]

    def end(self, execution):
        def ended():
            found = self.states.describe_execution(executionArn=execution)
            return found if found["status"] in ENDED else None

        return wait_for(ended, what=f"the end of {execution}")

    def result(self, execution):
        found = self.end(execution)
        assert found["status"] == "SUCCEEDED", found
        return json.loads(found["output"])

    def types(self, execution):
        pages = self.states.get_paginator("get_execution_history").paginate(executionArn=execution, maxResults=7)
        return [event["type"] for page in pages for event in page["events"]]

    def reached(self, execution, kind):
        wait_for(lambda: kind in self.types(execution), what=f"{kind} of {execution}")

    def message(self, url):
        def take():
            return self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2).get("Messages")

        found = wait_for(take, what="a message")[0]
        self.sqs.delete_message(QueueUrl=url, ReceiptHandle=found["ReceiptHandle"])
        return json.loads(found["Body"])


def order_states(price, queue):
    retry = {"ErrorEquals": ["PriceServiceDown"], "IntervalSeconds": 1, "MaxAttempts": 2, "BackoffRate": 1.5}
    return {
        "Price": {
            "Type": "Map", "ItemsPath": "$.items", "MaxConcurrency": 2,
            "ItemSelector": {"item.$": "$$.Map.Item.Value", "fail.$": "$.fail"},
            "ItemProcessor": {"StartAt": "One", "States": {"One": {
                "Type": "Task", "Resource": price, "Retry": [retry], "End": True,
                "Parameters": {"sku.$": "$.item.sku", "count.$": "$.item.count", "fail.$": "$.fail",
                               "attempt.$": "$$.State.RetryCount"}}}},
            "ResultPath": "$.priced", "Next": "Large?",
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Refused"}],
        },
        "Large?": {
            "Type": "Choice", "Default": "Both",
            "Choices": [{"Variable": "$.priced[0].price", "NumericGreaterThan": 100, "Next": "Approve"}],
        },
        "Approve": {
            "Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
            "Parameters": {"QueueUrl": queue, "MessageBody": {"token.$": "$$.Task.Token", "order.$": "$.priced"}},
            "ResultPath": "$.approval", "Next": "Both", "TimeoutSeconds": 60,
            "Catch": [{"ErrorEquals": ["Refusal"], "ResultPath": "$.error", "Next": "Refused"}],
        },
        "Both": {
            "Type": "Parallel", "ResultPath": "$.both", "Next": "Done",
            "Branches": [
                {"StartAt": "Pause", "States": {"Pause": {"Type": "Wait", "Seconds": 1, "Next": "Paused"},
                                                "Paused": {"Type": "Pass", "Result": "paused", "End": True}}},
                {"StartAt": "Keep", "States": {"Keep": {
                    "Type": "Task", "Resource": "arn:aws:states:::dynamodb:putItem", "End": True,
                    "Parameters": {"TableName": "orders", "Item": {
                        "id": {"S.$": "$$.Execution.Name"},
                        "total": {"N.$": "States.Format('{}', $.priced[0].price)"}}},
                    "ResultSelector": {"status.$": "$.SdkHttpMetadata.HttpStatusCode"}}}},
            ],
        },
        "Done": {"Type": "Succeed", "OutputPath": "$.both"},
        "Refused": {"Type": "Fail", "ErrorPath": "$.error.Error", "Cause": "refused"},
    }


@pytest.fixture(scope="module")
def shop(aws, tmp_path_factory):
    flow = Flow(aws)
    price = flow.function("sf-price", "price")
    flow.queue = flow.sqs.create_queue(QueueName="sf-approvals")["QueueUrl"]
    aws.client("dynamodb").create_table(
        TableName="orders", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
    )  # fmt: skip
    flow.orders = flow.machine("orders", order_states(price, flow.queue))
    return flow


def order(fail=0, count=1):
    return {"items": [{"sku": "a", "count": count}, {"sku": "b", "count": 2}], "fail": fail}


def test_an_order_whose_price_service_fails_once(shop):
    execution = shop.start(shop.orders, order(fail=1), name="once")
    assert shop.result(execution) == ["paused", {"status": 200}]
    item = shop.server.client("dynamodb").get_item(TableName="orders", Key={"id": {"S": "once"}})["Item"]
    assert item["total"] == {"N": "3"}
    types = shop.types(execution)
    assert types.count("LambdaFunctionFailed") == 2 and types.count("LambdaFunctionSucceeded") == 2
    assert types[-1] == "ExecutionSucceeded" and types.count("MapIterationSucceeded") == 2


def test_an_order_whose_price_service_stays_down(shop):
    execution = shop.start(shop.orders, order(fail=99))
    found = shop.end(execution)
    assert (found["status"], found["error"], found["cause"]) == ("FAILED", "PriceServiceDown", "refused")
    history = shop.states.get_execution_history(executionArn=execution, reverseOrder=True, maxResults=1)["events"]
    assert history[0]["type"] == "ExecutionFailed"
    assert history[0]["executionFailedEventDetails"] == {"error": "PriceServiceDown", "cause": "refused"}


def test_a_large_order_waits_for_its_token(shop):
    execution = shop.start(shop.orders, order(count=50))
    asked = shop.message(shop.queue)
    assert asked["order"][0] == {"sku": "a", "price": 150, "attempt": 0}
    assert shop.states.describe_execution(executionArn=execution)["status"] == "RUNNING"
    shop.states.send_task_heartbeat(taskToken=asked["token"])
    shop.states.send_task_success(taskToken=asked["token"], output='{"by": "ann"}')
    assert shop.result(execution) == ["paused", {"status": 200}]
    with pytest.raises(shop.states.exceptions.TaskTimedOut):
        shop.states.send_task_success(taskToken=asked["token"], output="1")

    refused = shop.start(shop.orders, order(count=50))
    shop.states.send_task_failure(taskToken=shop.message(shop.queue)["token"], error="Refusal", cause="too dear")
    assert shop.end(refused)["error"] == "Refusal"


def test_executions_survive_a_kill_in_a_wait_and_in_a_task(fresh_server):
    server = fresh_server()
    flow = Flow(server)
    slow = flow.function("slow", "slow")
    url, marks, go = (flow.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("after", "marks", "go"))
    send = {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "End": True,
            "Parameters": {"QueueUrl": url, "MessageBody.$": "$"}}  # fmt: skip
    waits = flow.machine("waits", {"W": {"Type": "Wait", "Seconds": 4, "Next": "S"}, "S": send})
    works = flow.machine("works", {"T": {"Type": "Task", "Resource": slow, "Next": "S"}, "S": send})
    token = flow.machine("token", {"T": {
        "Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": True,
        "Parameters": {"QueueUrl": url, "MessageBody": {"token.$": "$$.Task.Token"}}}})  # fmt: skip
    asking = flow.start(token)
    asked = flow.message(url)["token"]
    waiting = flow.start(waits, {"from": "wait"})
    working = flow.start(works, {"marks": marks, "go": go})
    assert flow.message(marks) == "begun"
    flow.reached(waiting, "WaitStateEntered")
    server.kill()
    server.start()
    flow = Flow(server)
    assert flow.states.describe_execution(executionArn=working)["status"] == "RUNNING"
    flow.sqs.send_message(QueueUrl=go, MessageBody="now")
    flow.states.send_task_success(taskToken=asked, output='"yes"')
    assert flow.result(asking) == "yes"
    assert "MessageId" in flow.result(working) and "MessageId" in flow.result(waiting)
    got = [flow.message(url), flow.message(url)]
    assert sorted(got, key=str) == [{"from": "task"}, {"from": "wait"}]
    assert flow.message(marks) == "begun"
    assert flow.types(working).count("LambdaFunctionStarted") == 1
    assert flow.sqs.receive_message(QueueUrl=url).get("Messages") is None


def test_a_rule_and_a_schedule_start_executions(aws):
    flow = Flow(aws)
    machine = flow.machine("started", {"P": {"Type": "Pass", "End": True}})
    events, scheduler = aws.client("events"), aws.client("scheduler")
    events.put_rule(Name="sf-orders", EventPattern=json.dumps({"source": ["sf-shop"]}))
    with pytest.raises(ClientError):
        events.put_targets(Rule="sf-orders", Targets=[{"Id": "1", "Arn": machine}])
    target = {"Id": "1", "Arn": machine, "RoleArn": ROLE, "InputPath": "$.detail"}
    assert events.put_targets(Rule="sf-orders", Targets=[target])["FailedEntryCount"] == 0
    events.put_events(Entries=[{"Source": "sf-shop", "DetailType": "o", "Detail": '{"id": 7}'}])
    now = json.loads(aws.get("/_preheat/clock")[2])["now"]
    due = datetime.fromtimestamp(int(now), UTC) + timedelta(seconds=2)
    for name, target in (
        ("templated", {"Arn": machine, "Input": '{"by": "schedule"}'}),
        ("universal", {"Arn": "arn:aws:scheduler:::aws-sdk:sfn:startExecution",
                       "Input": json.dumps({"StateMachineArn": machine, "Input": '{"by": "sdk"}'})}),
    ):  # fmt: skip
        scheduler.create_schedule(
            Name=f"sf-{name}", ScheduleExpression=f"at({due:%Y-%m-%dT%H:%M:%S})", FlexibleTimeWindow={"Mode": "OFF"},
            Target={**target, "RoleArn": ROLE},
        )  # fmt: skip

    def three():
        found = flow.states.list_executions(stateMachineArn=machine, statusFilter="SUCCEEDED")["executions"]
        return found if len(found) == 3 else None

    started = wait_for(three, what="three executions")
    outputs = [flow.result(one["executionArn"]) for one in started]
    assert sorted(outputs, key=str) == [{"by": "schedule"}, {"by": "sdk"}, {"id": 7}]


def test_express_machines_answer_at_once(aws):
    flow = Flow(aws)
    sync = aws.client("stepfunctions", inject_host_prefix=False)
    machine = flow.machine(
        "express", {"A": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)"}, "End": True}}, "EXPRESS"
    )
    answer = sync.start_sync_execution(stateMachineArn=machine, input='{"n": 1}', name="twice")
    assert answer["status"] == "SUCCEEDED" and json.loads(answer["output"]) == {"n": 2}
    assert answer["executionArn"].split(":")[5:8] == ["express", "express", "twice"]
    again = sync.start_sync_execution(stateMachineArn=machine, input='{"n": 1}', name="twice")
    assert again["executionArn"] != answer["executionArn"]
    failed = sync.start_sync_execution(stateMachineArn=machine, input="{}")
    assert failed["status"] == "FAILED" and failed["error"] == "States.ParameterPathFailure"
    with pytest.raises(sync.exceptions.StateMachineTypeNotSupported):
        flow.states.list_executions(stateMachineArn=machine)
    standard = flow.machine("standard", {"A": {"Type": "Succeed"}})
    with pytest.raises(sync.exceptions.StateMachineTypeNotSupported):
        sync.start_sync_execution(stateMachineArn=standard)


def test_an_activity(aws):
    flow = Flow(aws)
    activity = flow.states.create_activity(name="sf-pack")["activityArn"]
    machine = flow.machine(
        "packing", {"P": {"Type": "Task", "Resource": activity, "HeartbeatSeconds": 30, "End": True}}
    )
    execution = flow.start(machine, {"box": 1})
    task = flow.states.get_activity_task(activityArn=activity, workerName="ann")
    assert json.loads(task["input"]) == {"box": 1}
    flow.states.send_task_success(taskToken=task["taskToken"], output='"packed"')
    assert flow.result(execution) == "packed"
    history = flow.states.get_execution_history(executionArn=execution)["events"]
    started = next(event for event in history if event["type"] == "ActivityStarted")
    assert started["activityStartedEventDetails"] == {"workerName": "ann"}


TEMPLATE = """
AWSTemplateFormatVersion: 2010-09-09
Transform: AWS::Serverless-2016-10-31
Resources:
  Flow:
    Type: AWS::Serverless::StateMachine
    Properties:
      Definition:
        StartAt: Work
        States:
          Work: {Type: Task, Resource: !GetAtt Worker.Arn, Next: Greet}
          Greet:
            Type: Pass
            Parameters: {"text.$": "States.Format('${Word} {}', $.name)"}
            End: true
      DefinitionSubstitutions: {Word: Hello}
      Policies:
        - LambdaInvokePolicy: {FunctionName: !Ref Worker}
      Events:
        Bus: {Type: EventBridgeRule, Properties: {Pattern: {source: [sf-template]}}}
  Worker:
    Type: AWS::Serverless::Function
    Properties: {Runtime: python3.11, Handler: index.handler, InlineCode: "def handler(e, c):\\n return e['detail']\\n"}
Outputs:
  Flow: {Value: !Ref Flow}
  Name: {Value: !GetAtt Flow.Name}
"""


@pytest.fixture
def enforced(tmp_path):
    made = EnforcedServer(tmp_path / "state").start()
    yield made
    assert made.stop() == 0
    assert "defect in" not in made.log.read_text(), made.log.read_text()[-4000:]


def test_a_template_with_policies_enforced(enforced):
    server = enforced
    flow, stacks = Flow(server), server.client("cloudformation")
    capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    stacks.create_stack(StackName="flow", TemplateBody=TEMPLATE, Capabilities=capabilities)
    stacks.get_waiter("stack_create_complete").wait(StackName="flow", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    outputs = {
        one["OutputKey"]: one["OutputValue"] for one in stacks.describe_stacks(StackName="flow")["Stacks"][0]["Outputs"]
    }
    detail = json.dumps({"name": "Ann"})
    server.client("events").put_events(Entries=[{"Source": "sf-template", "DetailType": "d", "Detail": detail}])

    def begun():
        return flow.states.list_executions(stateMachineArn=outputs["Flow"])["executions"]

    assert flow.result(wait_for(begun, what="an execution")[0]["executionArn"]) == {"text": "Hello Ann"}
    assert outputs["Flow"].endswith(outputs["Name"])
    changed = TEMPLATE.replace("Word: Hello", "Word: Bye")
    stacks.update_stack(StackName="flow", TemplateBody=changed, Capabilities=capabilities)
    stacks.get_waiter("stack_update_complete").wait(StackName="flow", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert flow.result(flow.start(outputs["Flow"], {"detail": {"name": "Bob"}})) == {"text": "Bye Bob"}
    stacks.delete_stack(StackName="flow")
    stacks.get_waiter("stack_delete_complete").wait(StackName="flow", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    with pytest.raises(flow.states.exceptions.StateMachineDoesNotExist):
        flow.states.describe_state_machine(stateMachineArn=outputs["Flow"])


def test_policies_of_roles_and_callers(enforced):
    server = enforced
    flow = Flow(server)
    url = flow.sqs.create_queue(QueueName="q")["QueueUrl"]
    own = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [own]}
    weak, strong = server.role("weak", trust=trust), server.role("strong", allow("sqs:SendMessage"), trust=trust)
    states = {"A": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "End": True,
                    "Parameters": {"QueueUrl": url, "MessageBody": "hi"}}}  # fmt: skip
    definition = json.dumps({"StartAt": "A", "States": states})
    with pytest.raises(ClientError, match="nor the regional one is authorized to assume"):
        flow.states.create_state_machine(name="m", definition=definition, roleArn=server.role("lambdas"))
    machines = [
        flow.states.create_state_machine(name=role[-4:], definition=definition, roleArn=role)["stateMachineArn"]
        for role in (weak, strong)
    ]
    failed = flow.end(flow.start(machines[0]))
    assert (failed["status"], failed["error"]) == ("FAILED", "States.Permissions")
    assert "sqs:sendmessage" in failed["cause"].lower()
    assert "MessageId" in flow.result(flow.start(machines[1]))
    caller = server.client("stepfunctions", server.user("ann", allow("states:StartExecution", machines[1])))
    caller.start_execution(stateMachineArn=machines[1])
    with pytest.raises(ClientError, match="AccessDenied"):
        caller.start_execution(stateMachineArn=machines[0])
    with pytest.raises(ClientError, match="AccessDenied"):
        caller.list_state_machines()

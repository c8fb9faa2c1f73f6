"""Executions under a clock that the test moves: failures, retries, limits, histories, what stops them."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.deliveries import KIND as DELIVERY
from preheat.services.dynamodb.service import build as build_dynamodb
from preheat.services.events.service import build as build_events
from preheat.services.logs.service import build as build_logs
from preheat.services.scheduler.service import build as build_scheduler
from preheat.services.stepfunctions.service import build as build_stepfunctions
from tests.support.functions import ROLE, TriggerWorld
from tests.support.scripted_executor import Script

SQS = "arn:aws:states:::sqs:sendMessage"
F = "arn:aws:lambda:us-east-1:000000000000:function:f"


class World(TriggerWorld):
    def __init__(self, *builders, **more):
        super().__init__(
            build_stepfunctions, build_dynamodb, build_logs, build_events, build_scheduler, *builders, **more
        )

    def states(self, operation, **params):
        return self("stepfunctions", operation, **params)

    def define(self, states, name="m", kind="STANDARD", more=None, **top):
        definition = {"StartAt": next(iter(states)), "States": states, **top}
        made = self.states(
            "CreateStateMachine", name=name, definition=json.dumps(definition), roleArn=ROLE, type=kind, **(more or {})
        )
        return made["stateMachineArn"]

    def begin(self, machine, given=None, **more):
        text = json.dumps({} if given is None else given)
        return self.states("StartExecution", stateMachineArn=machine, input=text, **more)["executionArn"]

    def look(self, execution):
        found = self.states("DescribeExecution", executionArn=execution)
        return found["status"], json.loads(found["output"]) if "output" in found else found.get("error")

    def run(self, states, given=None, seconds=0.0, **top):
        execution = self.begin(self.define(states, **top), given)
        self.advance(seconds)
        return self.look(execution)

    def events(self, execution, **more):
        return self.states("GetExecutionHistory", executionArn=execution, **more)["events"]

    def types(self, execution):
        return [event["type"] for event in self.events(execution)]


@pytest.fixture
def world():
    made = World()
    made.create("f")
    yield made
    assert not made.defects, made.defects


def refused(code):
    return pytest.raises(AwsError, match=code)


def task(resource=F, **more):
    return {"Type": "Task", "Resource": resource, **({} if "Next" in more else {"End": True}), **more}


# -- failures ----------------------------------------------------------------------------------------------------------


def test_retries_wait_longer_each_time_and_give_up(world):
    world.executor.scripts["f"] = Script({"errorMessage": "no", "errorType": "Boom"}, error="Boom")
    retry = [{"ErrorEquals": ["Other"]},
             {"ErrorEquals": ["Boom"], "IntervalSeconds": 2, "BackoffRate": 3, "MaxAttempts": 3, "MaxDelaySeconds": 10}]
    execution = world.begin(world.define({"A": task(Retry=retry)}))
    began = world.clock.now()
    counts = []
    for moment in (0.5, 2.5, 8.5, 17.5, 18.5):
        world.advance(began + moment - world.clock.now())
        counts.append(len(world.executor.started))
    assert counts == [1, 2, 3, 3, 4]
    assert world.look(execution) == ("FAILED", "Boom")
    cause = world.states("DescribeExecution", executionArn=execution)["cause"]
    assert json.loads(cause) == {"errorMessage": "no", "errorType": "Boom"}


def test_a_catcher_keeps_the_input(world):
    world.executor.scripts["f"] = Script({"errorType": "Boom"}, error="Boom")
    states = {
        "A": task(Catch=[{"ErrorEquals": ["States.TaskFailed"], "ResultPath": "$.e", "Next": "B"}]),
        "B": {"Type": "Pass", "OutputPath": "$", "Parameters": {"name.$": "$.e.Error", "x.$": "$.x"}, "End": True},
    }
    assert world.run(states, {"x": 1}) == ("SUCCEEDED", {"name": "Boom", "x": 1})


def test_a_function_that_is_not_there_or_is_throttled(world):
    gone = F.replace(":function:f", ":function:gone")
    assert world.run({"A": task(gone)}) == ("FAILED", "Lambda.ResourceNotFoundException")
    world.executor.limit = 0
    assert world.run({"A": task()}, name="m2") == ("FAILED", "Lambda.TooManyRequestsException")


def test_a_timeout_and_an_answer_that_comes_too_late(world):
    world.executor.scripts["f"] = Script("late", seconds=20)
    states = {"A": task(TimeoutSeconds=5, Catch=[{"ErrorEquals": ["States.Timeout"], "Next": "B"}]),
              "B": {"Type": "Wait", "Seconds": 60, "Next": "C"}, "C": {"Type": "Succeed"}}
    execution = world.begin(world.define(states))
    world.advance(4.9)
    assert "LambdaFunctionTimedOut" not in world.types(execution)
    world.advance(30)
    assert world.types(execution)[-1] == "WaitStateEntered"
    world.advance(60)
    status, output = world.look(execution)
    assert status == "SUCCEEDED" and output["Error"] == "States.Timeout"
    assert "LambdaFunctionSucceeded" not in world.types(execution)


def test_heartbeats_keep_a_task_alive(world):
    url, _ = world.queue("q")
    given = {"QueueUrl": url, "MessageBody.$": "$$.Task.Token"}
    machine = world.define({"A": task(f"{SQS}.waitForTaskToken", Parameters=given, HeartbeatSeconds=10)})
    execution = world.begin(machine)
    token = world("sqs", "ReceiveMessage", QueueUrl=url)["Messages"][0]["Body"]
    for _ in range(3):
        world.advance(8)
        world.states("SendTaskHeartbeat", taskToken=token)
    assert world.look(execution)[0] == "RUNNING"
    world.advance(11)
    assert world.look(execution) == ("FAILED", "States.HeartbeatTimeout")
    with refused("TaskTimedOut"):
        world.states("SendTaskSuccess", taskToken=token, output="1")
    with refused("InvalidToken"):
        world.states("SendTaskSuccess", taskToken="nonsense", output="1")
    with refused("InvalidOutput"):
        world.states("SendTaskSuccess", taskToken=token, output="{")


def test_the_whole_execution_has_a_time(world):
    execution = world.begin(world.define({"A": {"Type": "Wait", "Seconds": 100, "End": True}}, TimeoutSeconds=10))
    world.advance(11)
    assert world.look(execution) == ("TIMED_OUT", "States.Timeout")
    assert world.types(execution)[-2:] == ["WaitStateAborted", "ExecutionTimedOut"]
    world.advance(200)
    assert world.types(execution)[-1] == "ExecutionTimedOut"


def test_errors_of_the_data_flow(world):
    def error(name, state, given=None):
        return world.run({"A": {"Type": "Pass", "End": True, **state}}, given or {"a": 1}, name=name)

    assert error("m1", {"InputPath": "$.none"}) == ("FAILED", "States.Runtime")
    assert error("m2", {"Parameters": {"x.$": "$.none"}}) == ("FAILED", "States.ParameterPathFailure")
    assert error("m3", {"Parameters": {"x.$": "States.MathAdd('a', 1)"}}) == ("FAILED", "States.IntrinsicFailure")
    assert error("m4", {"ResultPath": "$.x"}, [1]) == ("FAILED", "States.ResultPathMatchFailure")
    twice = "States.Format('{}{}', $.t, $.t)"
    big = error("m5", {"Parameters": {"t.$": twice}}, {"t": "x" * 140_000})
    assert big == ("FAILED", "States.DataLimitExceeded")
    choice = {"A": {"Type": "Choice", "Choices": [{"Variable": "$.a", "NumericEquals": 2, "Next": "B"}]},
              "B": {"Type": "Succeed"}}
    assert world.run(choice, {"a": 1}, name="m6") == ("FAILED", "States.NoChoiceMatched")
    fail = {"A": {"Type": "Fail", "ErrorPath": "$.e", "CausePath": "States.Format('of {}', $.e)"}}
    execution = world.begin(world.define(fail, name="m7"), {"e": "Mine"})
    assert world.states("DescribeExecution", executionArn=execution)["cause"] == "of Mine"


def test_a_failing_branch_ends_the_others(world):
    wait = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 50, "End": True}}}
    fail = {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "Mine", "Cause": "c"}}}
    states = {"P": {"Type": "Parallel", "Branches": [wait, fail], "Next": "Z",
                    "Catch": [{"ErrorEquals": ["Mine"], "Next": "Z"}]}, "Z": {"Type": "Succeed"}}
    execution = world.begin(world.define(states))
    assert world.look(execution) == ("SUCCEEDED", {"Error": "Mine", "Cause": "c"})
    assert "WaitStateAborted" in world.types(execution) and "ParallelStateFailed" in world.types(execution)
    assert world.db.value("SELECT count(*) FROM states_frames") == 0
    assert world.db.value("SELECT count(*) FROM states_results") == 0


def test_a_retried_parallel_begins_anew(world):
    world.executor.scripts["f"] = Script({"errorType": "Boom"}, error="Boom")
    one = {"StartAt": "T", "States": {"T": task()}}
    two = {"StartAt": "S", "States": {"S": {"Type": "Succeed"}}}
    states = {"P": {"Type": "Parallel", "Branches": [one, two], "End": True,
                    "Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1}]}}
    execution = world.begin(world.define(states))
    world.executor.scripts["f"] = Script("good")
    world.advance(2)
    assert world.look(execution) == ("SUCCEEDED", ["good", {}])


# -- maps --------------------------------------------------------------------------------------------------------------


def each(state, **more):
    return {"M": {"Type": "Map", "ItemProcessor": {"StartAt": "I", "States": {"I": state}}, "End": True, **more}}


def test_a_map_keeps_to_its_concurrency(world):
    world.executor.scripts["f"] = lambda event: Script(event * 2, seconds=10 - event)
    execution = world.begin(world.define(each(task(), MaxConcurrency=2)), [1, 2, 3, 4, 5])
    world.advance(60)
    assert world.look(execution) == ("SUCCEEDED", [2, 4, 6, 8, 10])
    assert world.executor.peak["f"] == 2
    assert world.run(each(task()), [], name="empty") == ("SUCCEEDED", [])
    assert world.run(each(task()), {"no": "array"}, name="none") == ("FAILED", "States.Runtime")


def test_what_a_map_tolerates(world):
    state = {"Type": "Choice", "Choices": [{"Variable": "$", "NumericGreaterThan": 2, "Next": "F"}], "Default": "S"}
    processor = {"StartAt": "I", "States": {
        "I": state, "F": {"Type": "Fail", "Error": "Big"}, "S": {"Type": "Succeed"}}}
    states = {"M": {"Type": "Map", "ItemProcessor": processor, "End": True}}
    assert world.run(states, [1, 3, 2], name="m1") == ("FAILED", "Big")
    states["M"]["ToleratedFailureCount"] = 1
    assert world.run(states, [1, 3, 2], name="m2") == ("SUCCEEDED", [1, 2])
    assert world.run(states, [3, 3, 2], name="m3") == ("FAILED", "States.ExceedToleratedFailureThreshold")
    del states["M"]["ToleratedFailureCount"]
    states["M"]["ToleratedFailurePercentage"] = 50
    assert world.run(states, [3, 3, 2, 1], name="m4") == ("SUCCEEDED", [2, 1])


def test_variables(world):
    states = {
        "A": {"Type": "Pass", "Assign": {"n.$": "$.n", "k": 2}, "Next": "B"},
        "B": {"Type": "Parallel", "Branches": [{"StartAt": "C", "States": {
            "C": {"Type": "Pass", "Assign": {"k": 9}, "Next": "D"},
            "D": {"Type": "Pass", "Parameters": {"k.$": "$k", "n.$": "$n"}, "End": True}}}], "Next": "E"},
        "E": {"Type": "Choice", "Choices": [{"Variable": "$k", "NumericEquals": 2, "Next": "F"}]},
        "F": {"Type": "Succeed"},
    }
    assert world.run(states, {"n": 5}) == ("SUCCEEDED", [{"k": 9, "n": 5}])


# -- integrations ------------------------------------------------------------------------------------------------------


def test_lambda_invoke(world):
    world.executor.scripts["f"] = lambda event: Script({"got": event})
    state = task("arn:aws:states:::lambda:invoke", Parameters={"FunctionName": F, "Payload": {"a.$": "$.x"}})
    status, output = world.run({"A": state}, {"x": 4})
    assert status == "SUCCEEDED"
    assert (output["Payload"], output["StatusCode"]) == ({"got": {"a": 4}}, 200)
    world.executor.scripts["f"] = Script({"errorType": "Boom"}, error="Boom")
    assert world.run({"A": state}, {"x": 4}, name="m2") == ("FAILED", "Boom")


def test_sdk_integrations(world):
    key = {"AttributeName": "id", "KeyType": "HASH"}
    world("dynamodb", "CreateTable", TableName="things", KeySchema=[key], BillingMode="PAY_PER_REQUEST",
          AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}])  # fmt: skip
    put = {"TableName": "things", "Item": {"id": {"S.$": "$.id"}}, "ConditionExpression": "attribute_not_exists(id)"}
    states = {
        "Put": task("arn:aws:states:::aws-sdk:dynamodb:putItem", Parameters=put, ResultPath=None, Next="Get"),
        "Get": task("arn:aws:states:::aws-sdk:dynamodb:getItem",
                    Parameters={"TableName": "things", "Key": {"id": {"S.$": "$.id"}}}, OutputPath="$.Item"),
    }  # fmt: skip
    machine = world.define(states)
    assert world.look(world.begin(machine, {"id": "a"})) == ("SUCCEEDED", {"id": {"S": "a"}})
    assert world.look(world.begin(machine, {"id": "a"})) == ("FAILED", "DynamoDb.ConditionalCheckFailedException")
    events = {"Entries": [{"Source": "shop", "DetailType": "d", "Detail": {"n.$": "$.n"}}]}
    status, output = world.run({"E": task("arn:aws:states:::events:putEvents", Parameters=events)}, {"n": 1}, name="e")
    assert status == "SUCCEEDED" and output["FailedEntryCount"] == 0
    for bad in ("arn:aws:states:::aws-sdk:glue:startJobRun", "arn:aws:states:::aws-sdk:sqs:noSuchThing"):
        with refused("is not recognized"):
            world.define({"A": task(bad)}, name="bad")


def test_executions_of_executions(world):
    inner = world.define({"W": {"Type": "Wait", "Seconds": 5, "Next": "P"},
                           "P": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)"}, "End": True}})
    start = "arn:aws:states:::states:startExecution"
    given = {"StateMachineArn": inner, "Input": {"n.$": "$.n"}}
    outer = world.define({"A": task(f"{start}.sync:2", Parameters=given, OutputPath="$.Output")}, name="outer")
    text = world.define({"A": task(f"{start}.sync", Parameters=given, OutputPath="$.Output")}, name="text")
    once = world.define({"A": task(start, Parameters=given, OutputPath="$.ExecutionArn")}, name="once")
    ones = [world.begin(one, {"n": 1}) for one in (outer, text, once)]
    assert [world.look(one)[0] for one in ones] == ["RUNNING", "RUNNING", "SUCCEEDED"]
    world.advance(6)
    assert world.look(ones[0]) == ("SUCCEEDED", {"n": 2})
    assert world.look(ones[1]) == ("SUCCEEDED", '{"n":2}')
    assert world.look(world.look(ones[2])[1]) == ("SUCCEEDED", {"n": 2})
    stopped = world.begin(outer, {"n": 1})
    world.states("StopExecution", executionArn=stopped)
    found = world.states("ListExecutions", stateMachineArn=inner, statusFilter="ABORTED")["executions"]
    assert len(found) == 1
    failing = world.begin(outer, {"n": "text"})
    world.advance(6)
    assert world.look(failing) == ("FAILED", "States.TaskFailed")


def test_activities(world):
    arn = world.states("CreateActivity", name="a")["activityArn"]
    execution = world.begin(world.define({"A": task(arn, TimeoutSeconds=300)}), {"n": 1})
    found = world.states("GetActivityTask", activityArn=arn, workerName="w")
    assert json.loads(found["input"]) == {"n": 1}
    began = world.clock.now()
    assert world.states("GetActivityTask", activityArn=arn) == {}
    assert 60 <= world.clock.now() - began < 61
    world.states("SendTaskFailure", taskToken=found["taskToken"], error="Mine", cause="c")
    assert world.look(execution) == ("FAILED", "Mine")
    waiting = world.start("stepfunctions", "GetActivityTask", activityArn=arn)
    assert not waiting
    world.begin(world.define({"A": task(arn)}, name="m2"), {"n": 2})
    assert json.loads(waiting[0].output["input"]) == {"n": 2}
    with refused("ActivityDoesNotExist"):
        world.states("GetActivityTask", activityArn=f"{arn}x")


# -- operations --------------------------------------------------------------------------------------------------------


def test_starting_twice(world):
    machine = world.define({"A": {"Type": "Wait", "Seconds": 10, "End": True}})
    first = world.states("StartExecution", stateMachineArn=machine, name="n", input='{"a":1}')
    assert world.states("StartExecution", stateMachineArn=machine, name="n", input='{"a":1}') == first
    with refused("ExecutionAlreadyExists"):
        world.states("StartExecution", stateMachineArn=machine, name="n", input='{"a":2}')
    world.advance(11)
    with refused("ExecutionAlreadyExists"):
        world.states("StartExecution", stateMachineArn=machine, name="n", input='{"a":1}')
    with refused("InvalidName"):
        world.states("StartExecution", stateMachineArn=machine, name="a b")
    with refused("InvalidExecutionInput"):
        world.states("StartExecution", stateMachineArn=machine, input="{")
    with refused("StateMachineDoesNotExist"):
        world.states("StartExecution", stateMachineArn=f"{machine}x")
    with refused("InvalidArn"):
        world.states("StartExecution", stateMachineArn="m")


def test_machines(world):
    states = {"A": {"Type": "Succeed"}}
    machine = world.define(states)
    assert world.define(states) == machine
    with refused("StateMachineAlreadyExists"):
        world.define({"B": {"Type": "Succeed"}})
    with refused("InvalidDefinition: Invalid State Machine Definition: 'MISSING_TRANSITION_TARGET"):
        world.define({"A": {"Type": "Pass", "Next": "no"}}, name="bad")
    with refused("InvalidName"):
        world.define(states, name="a b")
    with refused("versions and aliases"):
        world.define(states, name="v", more={"publish": True})
    with refused("MissingRequiredParameter"):
        world.states("UpdateStateMachine", stateMachineArn=machine)
    before = world.states("DescribeStateMachine", stateMachineArn=machine)
    running = world.begin(machine, name="old")
    new = json.dumps({"StartAt": "B", "States": {"B": {"Type": "Pass", "Result": 2, "End": True}}})
    changed = world.states("UpdateStateMachine", stateMachineArn=machine, definition=new)
    after = world.states("DescribeStateMachine", stateMachineArn=machine)
    assert after["definition"] == new and after["revisionId"] == changed["revisionId"] != before["revisionId"]
    of = world.states("DescribeStateMachineForExecution", executionArn=running)
    assert of["definition"] == before["definition"] and of["revisionId"] == before["revisionId"]
    assert world.look(world.begin(machine)) == ("SUCCEEDED", 2)
    world.states("TagResource", resourceArn=machine, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    world.states("UntagResource", resourceArn=machine, tagKeys=["a"])
    assert world.states("ListTagsForResource", resourceArn=machine)["tags"] == [{"key": "b", "value": "2"}]
    assert [one["name"] for one in world.states("ListStateMachines")["stateMachines"]] == ["m"]
    world.states("DeleteStateMachine", stateMachineArn=machine)
    world.states("DeleteStateMachine", stateMachineArn=machine)
    with refused("StateMachineDoesNotExist"):
        world.states("DescribeStateMachine", stateMachineArn=machine)


def test_validation_answers_with_diagnostics(world):
    bad = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass"}, "B": {"Type": "Pass"}}})
    found = world.states("ValidateStateMachineDefinition", definition=bad, maxResults=1)
    assert found["result"] == "FAIL" and found["truncated"] and len(found["diagnostics"]) == 1
    assert found["diagnostics"][0]["location"] == "/States/A"
    good = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})
    assert world.states("ValidateStateMachineDefinition", definition=good)["result"] == "OK"


def test_pages_of_executions_and_events(world):
    machine = world.define({"A": {"Type": "Pass", "End": True}})
    names = [f"e{number}" for number in range(5)]
    for name in names:
        last = world.begin(machine, name=name)
        world.advance(1)
    first = world.states("ListExecutions", stateMachineArn=machine, maxResults=3)
    rest = world.states("ListExecutions", stateMachineArn=machine, maxResults=3, nextToken=first["nextToken"])
    found = [one["name"] for one in first["executions"] + rest["executions"]]
    assert found == names[::-1] and "nextToken" not in rest
    with refused("InvalidToken"):
        world.states("ListExecutions", stateMachineArn=machine, nextToken="??")
    forth, back = world.events(last), world.events(last, reverseOrder=True)
    assert forth == back[::-1] and [event["id"] for event in forth] == [1, 2, 3, 4]
    assert [event["previousEventId"] for event in forth] == [0, 1, 2, 3]
    assert forth[1]["stateEnteredEventDetails"]["input"] == "{}"
    assert "input" not in world.events(last, includeExecutionData=False)[1]["stateEnteredEventDetails"]


def test_stopping(world):
    execution = world.begin(world.define(each({"Type": "Wait", "Seconds": 10, "End": True})), [1, 2])
    world.states("StopExecution", executionArn=execution, error="Enough", cause="c")
    assert world.look(execution) == ("ABORTED", "Enough")
    assert world.types(execution)[-1] == "ExecutionAborted"
    assert world.db.value("SELECT count(*) FROM states_frames") == 0
    world.advance(20)
    assert world.types(execution)[-1] == "ExecutionAborted"


def test_a_history_has_an_end(world):
    states = {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}
    execution = world.begin(world.define(states))
    found = world.states("DescribeExecution", executionArn=execution)
    assert (found["status"], found["error"]) == ("FAILED", "States.Runtime")
    assert "maximum number of history events (25000)" in found["cause"]
    last = world.events(execution, reverseOrder=True, maxResults=1)[0]
    assert last["type"] == "ExecutionFailed" and last["id"] <= 25_000


def test_the_log_of_a_machine(world):
    world("logs", "CreateLogGroup", logGroupName="g")
    group = "arn:aws:logs:us-east-1:000000000000:log-group:g:*"
    logging = {"level": "ALL", "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": group}}]}
    machine = world.define({"A": {"Type": "Succeed"}}, kind="EXPRESS", more={"loggingConfiguration": logging})
    world.begin(machine, {"secret": 1})
    found = world("logs", "FilterLogEvents", logGroupName="g")["events"]
    lines = [json.loads(event["message"]) for event in found]
    assert sorted(line["type"] for line in lines) == [
        "ExecutionStarted", "ExecutionSucceeded", "SucceedStateEntered", "SucceedStateExited",
    ]  # fmt: skip
    assert "secret" not in json.dumps(lines)
    with refused("InvalidLoggingConfiguration"):
        world.define({"A": {"Type": "Succeed"}}, name="x", more={"loggingConfiguration": {"level": "ALL"}})


def test_eventbridge_is_told(world):
    url, arn = world.queue("told")
    pattern = {"source": ["aws.states"], "detail": {"status": ["RUNNING", "FAILED"]}}
    world("events", "PutRule", Name="r", EventPattern=json.dumps(pattern))
    world("events", "PutTargets", Rule="r", Targets=[{"Id": "1", "Arn": arn}])
    execution = world.begin(world.define({"A": {"Type": "Fail", "Error": "Mine"}}), {"n": 1})
    found = world("sqs", "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    told = {event["detail"]["status"]: event for event in (json.loads(one["Body"]) for one in found)}
    assert set(told) == {"RUNNING", "FAILED"}
    assert told["FAILED"]["detail-type"] == "Step Functions Execution Status Change"
    assert told["FAILED"]["resources"] == [execution] and told["FAILED"]["detail"]["error"] == "Mine"
    assert told["RUNNING"]["detail"]["input"] == '{"n": 1}' and told["RUNNING"]["detail"]["stopDate"] is None


def test_metrics(world):
    world.run({"A": task()})
    counted = {}
    for (series, _), sample in world.machine.meter.take().items():
        if series.namespace == "AWS/States":
            counted[series.name] = (sample.count, series.dimensions[0][0])
    assert counted == {
        "ExecutionsStarted": (1, "StateMachineArn"), "ExecutionsSucceeded": (1, "StateMachineArn"),
        "ExecutionTime": (1, "StateMachineArn"), "LambdaFunctionsScheduled": (1, "LambdaFunctionArn"),
        "LambdaFunctionsStarted": (1, "LambdaFunctionArn"), "LambdaFunctionsSucceeded": (1, "LambdaFunctionArn"),
    }  # fmt: skip


def test_ended_executions_go_after_ninety_days(world):
    machine = world.define({"A": {"Type": "Succeed"}})
    old = world.begin(machine, name="n")
    world.clock.move_to(world.clock.now() + 91 * 86_400)
    world.begin(machine)
    with refused("ExecutionDoesNotExist"):
        world.states("DescribeExecution", executionArn=old)


def test_data_that_cannot_be_written_again(world):
    machine = world.define({"A": task()})
    for text in ('"\\ud800"', "NaN", "1e999", "[" * 5_000 + "]" * 5_000):
        with refused("InvalidExecutionInput"):
            world.states("StartExecution", stateMachineArn=machine, input=text)
    world.executor.scripts["f"] = Script(b'{"half": "\\udc00"}')
    assert world.look(world.begin(machine)) == ("FAILED", "States.Runtime")
    definition = '{"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": "\\ud800", "End": true}}}'
    with refused("INVALID_JSON_DESCRIPTION"):
        world.states("CreateStateMachine", name="half", definition=definition, roleArn=ROLE)
    deep = {"A": {"Type": "Pass", "Parameters": {"d.$": "$"}, "Next": "B"},
            "B": {"Type": "Pass", "Parameters": {"d.$": "$"}, "Next": "A"}}
    execution = world.begin(world.define(deep, name="deep"))
    status, error = world.look(execution)
    assert (status, error) == ("FAILED", "States.Runtime")
    assert world.look(world.begin(world.define({"S": {"Type": "Succeed"}}, name="next")))[0] == "SUCCEEDED"


# -- synchronous executions --------------------------------------------------------------------------------------------


def test_a_schedule_waits_for_a_synchronous_execution(world):
    """Its delivery is open until the execution has ended, and the execution is started once."""
    for loop in world.machine.services["scheduler"].loops:
        world.machine.add_loop(loop)
    url, _ = world.queue("synced")
    send = task(SQS, Parameters={"QueueUrl": url, "MessageBody.$": "$.by"})
    machine = world.define({"W": {"Type": "Wait", "Seconds": 30, "Next": "S"}, "S": send}, kind="EXPRESS")
    given = json.dumps({"StateMachineArn": machine, "Input": '{"by": "schedule"}'})
    target = {"Arn": "arn:aws:scheduler:::aws-sdk:sfn:startSyncExecution", "RoleArn": ROLE, "Input": given}
    world("scheduler", "CreateSchedule", Name="s", ScheduleExpression="rate(60 minutes)", Target=target,
          FlexibleTimeWindow={"Mode": "OFF"})  # fmt: skip

    def standing():
        return world.db.value("SELECT count(*) FROM due WHERE kind = ?", DELIVERY), world.counts(url)[0]

    world.advance(3_600 + 20)
    assert standing() == (1, 0)
    world.advance(20)
    assert standing() == (0, 1)
    world.advance(1_000)
    assert standing() == (0, 1) and world.receive(url)[0]["Body"] == "schedule"

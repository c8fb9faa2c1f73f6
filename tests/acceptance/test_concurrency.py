"""Concurrency as a client meets it: processes that are there before anybody calls, throttles with their reasons."""

import contextlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

WHO = """
import os, time
BORN = time.time()
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    if event.get("die"):
        os._exit(3)
    return {"pid": os.getpid(), "type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "born": BORN,
            "version": context.function_version, "stream": context.log_stream_name}
"""


def create(client, name, source=WHO, **settings):
    values = {"Runtime": "python3.11", "Handler": "app.handler", "Role": ROLE, "Timeout": 10, **settings}
    client.create_function(FunctionName=name, Code={"ZipFile": make_zip({"app.py": source})}, **values)


def publish(client, name):
    return client.publish_version(FunctionName=name)["Version"]


def invoke(client, name, qualifier=None, **event):
    target = {} if qualifier is None else {"Qualifier": qualifier}
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event), LogType="Tail", **target)
    return json.loads(answer["Payload"].read())


def provision(client, name, qualifier, count):
    asked = {"FunctionName": name, "Qualifier": qualifier}
    answer = client.put_provisioned_concurrency_config(**asked, ProvisionedConcurrentExecutions=count)
    assert answer["Status"] == "IN_PROGRESS" and answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    return answer


def status(client, name, qualifier):
    return client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)


def ready(client, name, qualifier):
    def look():
        found = status(client, name, qualifier)
        assert found["Status"] != "FAILED", found
        return found if found["Status"] == "READY" else None

    return wait_for(look, what=f"{name}:{qualifier} READY")


def together(client, name, count, qualifier=None, **event):
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: invoke(client, name, qualifier, **event), range(count)))


def throttle(call):
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429 and answer["Error"]["Code"] == "TooManyRequestsException"
    assert answer["Error"]["Message"] == "Rate Exceeded."
    reserved = answer["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert ("retry-after" in answer["ResponseMetadata"]["HTTPHeaders"]) is not reserved
    return answer["Reason"]


def alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def metric(server, name):
    """The console's view of the machine."""
    return json.loads(server.get("/_preheat/console/overview")[2])["machine"][name]


@pytest.fixture
def client(fresh_server):
    server = fresh_server("--concurrency", "110")
    client = server.client("lambda", max_pool_connections=40)
    client.server = server
    return client


def test_reserved_concurrency_caps_with_its_reason_and_zero_stops(client):
    create(client, "f")
    client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=2)
    with ThreadPoolExecutor(2) as threads:
        busy = [threads.submit(invoke, client, "f", sleep=1.5) for _ in range(2)]
        wait_for(lambda: metric(client.server, "environments") == 2)
        reason = throttle(lambda: invoke(client, "f"))
        assert reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert len({one.result()["pid"] for one in busy}) == 2
    assert invoke(client, "f")["type"] == "on-demand"
    client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=0)
    assert throttle(lambda: invoke(client, "f")) == "ReservedFunctionConcurrentInvocationLimitExceeded"
    client.delete_function_concurrency(FunctionName="f")
    assert invoke(client, "f")["type"] == "on-demand"


def test_one_hundred_stay_unreserved(client):
    create(client, "f"), create(client, "g")
    settings = client.get_account_settings()["AccountLimit"]
    assert (settings["ConcurrentExecutions"], settings["UnreservedConcurrentExecutions"]) == (110, 110)
    client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=6)
    with pytest.raises(ClientError) as caught:
        client.put_function_concurrency(FunctionName="g", ReservedConcurrentExecutions=5)
    assert caught.value.response["Error"]["Message"] == (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
        "its minimum value of [100]."
    )
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 104


def test_provisioned_environments_are_there_before_anybody_calls(client):
    create(client, "f")
    version = publish(client, "f")
    answer = provision(client, "f", version, 3)
    assert answer["RequestedProvisionedConcurrentExecutions"] == 3
    assert answer["AvailableProvisionedConcurrentExecutions"] == answer["AllocatedProvisionedConcurrentExecutions"] == 0
    found = ready(client, "f", version)
    assert found["AvailableProvisionedConcurrentExecutions"] == found["AllocatedProvisionedConcurrentExecutions"] == 3
    assert metric(client.server, "provisioned") == 3
    called = time.time()
    answers = together(client, "f", 4, version, sleep=0.8)
    ahead = [one for one in answers if one["type"] == "provisioned-concurrency"]
    assert len({one["pid"] for one in ahead}) == 3 and all(one["born"] < called for one in ahead)
    (spilled,) = [one for one in answers if one["type"] == "on-demand"]
    assert spilled["born"] >= called
    assert invoke(client, "f")["type"] == "on-demand"
    logs = client.server.client("logs")
    messages = wait_for(
        lambda: [
            event["message"].strip()
            for event in logs.get_log_events(logGroupName="/aws/lambda/f", logStreamName=ahead[0]["stream"])["events"]
        ]
        or None
    )
    assert messages[0].startswith("INIT_START ") and messages[1].startswith("INIT_REPORT Init Duration: ")
    report = wait_for(lambda: [line for line in _messages(logs, ahead[0]["stream"]) if line.startswith("REPORT ")])
    assert report and not any("Init Duration" in line for line in report)


def _messages(logs, stream):
    return [
        event["message"].strip()
        for event in logs.get_log_events(logGroupName="/aws/lambda/f", logStreamName=stream)["events"]
    ]


def test_a_crashed_one_is_replaced_more_and_fewer_and_none(client):
    create(client, "f")
    version = publish(client, "f")
    provision(client, "f", version, 2)
    ready(client, "f", version)
    first = {one["pid"] for one in together(client, "f", 2, version, sleep=0.4)}
    assert invoke(client, "f", version, die=True)["errorType"] == "Runtime.ExitError"
    wait_for(lambda: status(client, "f", version)["AvailableProvisionedConcurrentExecutions"] == 2)
    second = together(client, "f", 2, version, sleep=0.4)
    assert {one["type"] for one in second} == {"provisioned-concurrency"}
    assert len({one["pid"] for one in second} & first) == 1
    provision(client, "f", version, 4)
    ready(client, "f", version)
    assert {one["type"] for one in together(client, "f", 4, version, sleep=0.5)} == {"provisioned-concurrency"}
    provision(client, "f", version, 1)
    wait_for(lambda: metric(client.server, "provisioned") == 1)
    pid = invoke(client, "f", version)["pid"]
    client.delete_provisioned_concurrency_config(FunctionName="f", Qualifier=version)
    wait_for(lambda: not alive(pid))
    with pytest.raises(client.exceptions.ProvisionedConcurrencyConfigNotFoundException):
        status(client, "f", version)


def test_what_cannot_initialise_fails_with_its_reason_and_leaves_nothing(client):
    create(client, "f", "raise RuntimeError('no')")
    version = publish(client, "f")
    provision(client, "f", version, 2)
    failed = wait_for(lambda: _when(status(client, "f", version), "FAILED"))
    assert failed["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    assert failed["AvailableProvisionedConcurrentExecutions"] == 0
    wait_for(lambda: metric(client.server, "environments") == 0)


def _when(answer, wanted):
    return answer if answer["Status"] == wanted else None


def test_an_alias_moves_when_its_new_version_is_ready(client):
    slow = "import os, time\nif os.environ.get('SLOW'): time.sleep(1.0)\n" + WHO
    create(client, "f", slow)
    publish(client, "f")
    client.update_function_configuration(FunctionName="f", Environment={"Variables": {"SLOW": "1"}})
    publish(client, "f")
    client.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    provision(client, "f", "live", 1)
    ready(client, "f", "live")
    old = invoke(client, "f", "live")
    assert (old["version"], old["type"]) == ("1", "provisioned-concurrency")
    client.update_alias(FunctionName="f", Name="live", FunctionVersion="2")
    moving = client.get_alias(FunctionName="f", Name="live")
    assert moving["RoutingConfig"] == {"AdditionalVersionWeights": {"1": 1.0}}
    assert status(client, "f", "live")["Status"] == "IN_PROGRESS"
    assert invoke(client, "f", "live")["pid"] == old["pid"]
    ready(client, "f", "live")
    assert "RoutingConfig" not in client.get_alias(FunctionName="f", Name="live")
    new = invoke(client, "f", "live")
    assert (new["version"], new["type"]) == ("2", "provisioned-concurrency")
    wait_for(lambda: not alive(old["pid"]))
    client.delete_alias(FunctionName="f", Name="live")
    wait_for(lambda: not alive(new["pid"]))


def test_provisioned_equal_to_reserved_stops_latest_and_survives_a_kill(client):
    create(client, "f")
    version = publish(client, "f")
    client.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=2)
    provision(client, "f", version, 2)
    ready(client, "f", version)
    assert throttle(lambda: invoke(client, "f")) == "ReservedFunctionConcurrentInvocationLimitExceeded"
    before = invoke(client, "f", version)
    server = client.server
    server.kill()
    server.start()
    client = server.client("lambda")
    ready(client, "f", version)
    after = invoke(client, "f", version)
    assert after["type"] == "provisioned-concurrency" and after["pid"] != before["pid"]
    assert throttle(lambda: invoke(client, "f")) == "ReservedFunctionConcurrentInvocationLimitExceeded"


TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Body: {Type: String}
  Sha: {Type: String}
  Count: {Type: Number, Default: 2}
Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: f
      Runtime: python3.11
      Handler: index.handler
      Role: arn:aws:iam::000000000000:role/worker
      InlineCode: !Ref Body
      AutoPublishAlias: live
      AutoPublishCodeSha256: !Ref Sha
      ProvisionedConcurrencyConfig: {ProvisionedConcurrentExecutions: !Ref Count}
"""
BODY = "import os\ndef handler(event, context): return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\n"


def test_a_sam_stack_waits_until_ready_and_rolls_back_with_the_reason(client):
    stacks = client.server.client("cloudformation")
    both = {"Capabilities": ["CAPABILITY_AUTO_EXPAND"], "TemplateBody": TEMPLATE}
    stacks.create_stack(StackName="s", Parameters=_parameters(Body=BODY, Sha="a" * 64), **both)
    assert wait_for(lambda: _ended(stacks)) == "CREATE_COMPLETE"
    assert status(client, "f", "live")["Status"] == "READY"
    assert json.loads(client.invoke(FunctionName="f", Qualifier="live")["Payload"].read()) == "provisioned-concurrency"
    broken = "raise RuntimeError('no')\n"
    stacks.update_stack(StackName="s", Parameters=_parameters(Body=broken, Sha="b" * 64), **both)
    assert wait_for(lambda: _ended(stacks)) == "UPDATE_ROLLBACK_COMPLETE"
    reasons = [
        event.get("ResourceStatusReason", "") for event in stacks.describe_stack_events(StackName="s")["StackEvents"]
    ]
    assert any("FUNCTION_ERROR_INIT_FAILURE" in reason for reason in reasons)
    assert client.get_alias(FunctionName="f", Name="live")["FunctionVersion"] == "1"
    assert json.loads(client.invoke(FunctionName="f", Qualifier="live")["Payload"].read()) == "provisioned-concurrency"


def _parameters(**values):
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]


def _ended(stacks):
    found = stacks.describe_stacks(StackName="s")["Stacks"][0]["StackStatus"]
    return None if found.endswith("_IN_PROGRESS") else found


def test_the_machines_ceiling_is_said(fresh_server):
    server = fresh_server("--environments", "3")
    client = server.client("lambda", max_pool_connections=10)
    create(client, "f")
    assert len({one["pid"] for one in together(client, "f", 5, sleep=0.3)}) == 3
    assert metric(server, "ceiling_reached") >= 1 and metric(server, "max_environments") == 3
    (said,) = [text for text in json.loads(server.get("/_preheat/notices")[2])["notices"] if "its ceiling" in text]
    assert said.startswith("3 environments run on this machine")
    version = publish(client, "f")
    provision(client, "f", version, 3)
    failed = wait_for(lambda: _when(status(client, "f", version), "FAILED"))
    assert "this machine's ceiling" in failed["StatusReason"]
    provision(client, "f", version, 2)
    ready(client, "f", version)
    assert os.path.exists(f"/proc/{invoke(client, 'f', version)['pid']}")


VERSIONED = """
Resources:
  F:
    Type: AWS::Lambda::Function
    Properties:
      FunctionName: g
      Runtime: python3.11
      Handler: index.handler
      Role: arn:aws:iam::000000000000:role/worker
      Code: {ZipFile: "def handler(event, context): return 1"}
  V:
    Type: AWS::Lambda::Version
    Properties: {FunctionName: !Ref F, ProvisionedConcurrencyConfig: {ProvisionedConcurrentExecutions: COUNT}}
"""


def test_a_version_in_a_template_is_provisioned_changed_and_taken_away(client):
    stacks = client.server.client("cloudformation")
    stacks.create_stack(StackName="s", TemplateBody=VERSIONED.replace("COUNT", "1"))
    assert wait_for(lambda: _ended(stacks)) == "CREATE_COMPLETE"
    assert status(client, "g", "1")["AvailableProvisionedConcurrentExecutions"] == 1
    stacks.update_stack(StackName="s", TemplateBody=VERSIONED.replace("COUNT", "2"))
    assert wait_for(lambda: _ended(stacks)) == "UPDATE_COMPLETE"
    assert status(client, "g", "1")["AvailableProvisionedConcurrentExecutions"] == 2
    assert metric(client.server, "provisioned") == 2
    stacks.update_stack(StackName="s", TemplateBody=VERSIONED.replace("COUNT", "50"))
    assert wait_for(lambda: _ended(stacks)) == "UPDATE_ROLLBACK_COMPLETE"
    assert status(client, "g", "1")["RequestedProvisionedConcurrentExecutions"] == 2
    stacks.delete_stack(StackName="s")
    wait_for(lambda: metric(client.server, "environments") == 0)

"""Examples of the documents about concurrency: environments side by side, reserved numbers, provisioned environments on
an alias, by a template and by the clock, the refresh every six hours. docs/EXAMPLES.md is the list."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_cloudformation import failures, outputs, settled
from tests.support.functions import ROLE
from tests.support.lab import ACCOUNT, Lab
from tests.support.server import wait_for

WHO = """
import os
import time
BORN = time.time()

def handler(event, context):
    time.sleep(event.get("sleep", 0))
    return {"pid": os.getpid(), "born": BORN, "type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]}
"""


@pytest.fixture
def lab(aws, request):
    return Lab.of(aws, request)


def provisioned(lab):
    """How many provisioned environments there really are."""
    return json.loads(lab.server.get("/_preheat/console/overview")[2])["machine"]["provisioned"]


def ready(lab, name, qualifier="prod"):
    def look():
        found = lab.functions.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        return found["Status"] == "READY"

    wait_for(look, what=f"{name}:{qualifier} READY")


def now_of(server):
    return datetime.fromtimestamp(json.loads(server.get("/_preheat/clock")[2])["now"], UTC)


def go_to(server, moment):
    """Put the server's clock forward to a second after that moment."""
    server.advance((moment - now_of(server)).total_seconds() + 1)


def next_monday(server):
    """The midnight (UTC) that begins the next Monday."""
    now = now_of(server)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=7 - now.weekday())


def test_simultaneous_requests_get_environments_of_their_own(lab):
    name = lab.function(WHO)
    first = lab.ask(name)
    assert lab.ask(name)["pid"] == first["pid"]
    answers = lab.together(name, [{"sleep": 1.5}] * 10)
    assert len({one["pid"] for one in answers}) == 10
    assert lab.ask(name)["pid"] in {one["pid"] for one in answers}


def test_reserved_numbers_and_what_is_left(lab):
    names = [lab.function(WHO, f"-{letter}") for letter in "abc"]
    limits = lab.functions.get_account_settings()["AccountLimit"]
    assert limits["ConcurrentExecutions"] == 1000
    left = limits["UnreservedConcurrentExecutions"]
    for name, count in zip(names, (200, 300), strict=False):
        answer = lab.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=count)
        assert answer["ReservedConcurrentExecutions"] == count
    limits = lab.functions.get_account_settings()["AccountLimit"]
    assert limits["UnreservedConcurrentExecutions"] == left - 500
    with pytest.raises(ClientError) as caught:
        lab.functions.put_function_concurrency(FunctionName=names[2], ReservedConcurrentExecutions=left - 500 - 99)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"
    for name in names[:2]:
        lab.functions.delete_function_concurrency(FunctionName=name)
    assert lab.functions.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == left


def test_a_reservation_is_a_cap_clients_retry_and_zero_disables(lab):
    name = lab.function(WHO)
    lab.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=3)

    def attempt(_):
        try:
            return lab.ask(name, {"sleep": 1.5})["pid"]
        except lab.functions.exceptions.TooManyRequestsException as error:
            return error.response["Reason"]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(attempt, range(8)))
    pids = {answer for answer in answers if isinstance(answer, int)}
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(pids) == 3 and refused == ["ReservedFunctionConcurrentInvocationLimitExceeded"] * 5
    patient = Lab(lab.server, lab.name)
    patient.functions = lab.server.client("lambda", retries={"max_attempts": 12, "mode": "standard"})
    assert len({one["pid"] for one in patient.together(name, [{"sleep": 0.05}] * 8)} - pids) == 0
    lab.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert attempt(0) == "ReservedFunctionConcurrentInvocationLimitExceeded"


WARM = """
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Version: "2012-10-17", Statement: [
        {Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: "sts:AssumeRole"}]}
  Worker:
    Type: AWS::Lambda::Function
    Properties: {Runtime: python3.11, Handler: index.handler, Role: !GetAtt Role.Arn, Code: {ZipFile: CODE}}
  Version: {Type: AWS::Lambda::Version, Properties: {FunctionName: !Ref Worker}}
  Prod:
    Type: AWS::Lambda::Alias
    Properties:
      Name: prod
      FunctionName: !Ref Worker
      FunctionVersion: !GetAtt Version.Version
      ProvisionedConcurrencyConfig: {ProvisionedConcurrentExecutions: 10}
Outputs:
  Name: {Value: !Ref Worker}
"""


def test_a_template_keeps_ten_warm_and_the_eleventh_starts_cold(lab):
    stacks, others = lab.server.client("cloudformation"), provisioned(lab)
    body = WARM.replace("CODE", json.dumps(WHO))
    stacks.create_stack(StackName=lab.name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    stack = settled(stacks, lab.name)
    assert stack["StackStatus"] == "CREATE_COMPLETE", failures(stacks, lab.name)
    name = outputs(stack)["Name"]
    called = time.time()
    answers = lab.together(name, [{"sleep": 1.5}] * 11, Qualifier="prod")
    warm = [one for one in answers if one["type"] == "provisioned-concurrency"]
    (cold,) = [one for one in answers if one["type"] == "on-demand"]
    assert len({one["pid"] for one in warm}) == 10 and all(one["born"] < called for one in warm)
    assert cold["born"] >= called
    stacks.delete_stack(StackName=lab.name)
    wait_for(lambda: provisioned(lab) == others, what="the end of the warm ones")


def test_provisioned_concurrency_wants_an_alias_or_a_version(lab):
    name, others = lab.function(WHO), provisioned(lab)
    version = lab.functions.publish_version(FunctionName=name)["Version"]
    lab.functions.create_alias(FunctionName=name, Name="prod", FunctionVersion=version)
    asked = {"FunctionName": name, "Qualifier": "prod"}
    lab.functions.put_provisioned_concurrency_config(**asked, ProvisionedConcurrentExecutions=5)
    ready(lab, name)
    assert provisioned(lab) == others + 5
    assert lab.ask(name, Qualifier="prod")["type"] == "provisioned-concurrency"
    assert lab.ask(name)["type"] == "on-demand"
    with pytest.raises(ClientError):
        lab.functions.put_provisioned_concurrency_config(
            FunctionName=name, Qualifier="$LATEST", ProvisionedConcurrentExecutions=5
        )
    lab.functions.delete_provisioned_concurrency_config(**asked)
    wait_for(lambda: provisioned(lab) == others, what="the end of the warm ones")


CLOCKWORK = """
Resources:
  WarmUp:
    Type: AWS::Events::Rule
    Properties:
      ScheduleExpression: "cron(0 22 ? * MON-FRI *)"
      Targets: [{Id: warm, Arn: !GetAtt Thermostat.Arn, Input: '{"count": 50}'}]
  CoolDown:
    Type: AWS::Events::Rule
    Properties:
      ScheduleExpression: "cron(0 4 ? * TUE-SAT *)"
      Targets: [{Id: cool, Arn: !GetAtt Thermostat.Arn, Input: '{"count": 0}'}]
  MayWarm:
    Type: AWS::Lambda::Permission
    Properties: {FunctionName: !Ref Thermostat, Action: "lambda:InvokeFunction", Principal: events.amazonaws.com}
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Version: "2012-10-17", Statement: [
        {Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: "sts:AssumeRole"}]}
  Thermostat:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Timeout: 20
      Environment: {Variables: {WORKER: !Ref Worker}}
      Code:
        ZipFile: |
          import os, boto3
          functions = boto3.client("lambda")
          def handler(event, context):
              which = {"FunctionName": os.environ["WORKER"], "Qualifier": "prod"}
              if event["count"]:
                  functions.put_provisioned_concurrency_config(
                      **which, ProvisionedConcurrentExecutions=event["count"])
              else:
                  functions.delete_provisioned_concurrency_config(**which)
  Worker:
    Type: AWS::Lambda::Function
    Properties: {Runtime: python3.11, Handler: index.handler, Role: !GetAtt Role.Arn, Code: {ZipFile: CODE}}
  Version: {Type: AWS::Lambda::Version, Properties: {FunctionName: !Ref Worker}}
  Prod:
    Type: AWS::Lambda::Alias
    Properties: {Name: prod, FunctionName: !Ref Worker, FunctionVersion: !GetAtt Version.Version}
Outputs:
  Name: {Value: !Ref Worker}
"""


def test_warm_from_22_to_4_on_working_days(fresh_server):
    lab = Lab(fresh_server(), "clockwork")
    stacks = lab.server.client("cloudformation")
    monday = next_monday(lab.server)
    go_to(lab.server, monday)
    body = CLOCKWORK.replace("CODE", json.dumps(WHO))
    stacks.create_stack(StackName="clockwork", TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
    stack = settled(stacks, "clockwork")
    assert stack["StackStatus"] == "CREATE_COMPLETE", failures(stacks, "clockwork")
    name = outputs(stack)["Name"]
    go_to(lab.server, monday + timedelta(hours=21, minutes=59))
    assert provisioned(lab) == 0
    go_to(lab.server, monday + timedelta(hours=22))
    wait_for(lambda: provisioned(lab) == 50, what="fifty warm environments")
    ready(lab, name)
    assert lab.ask(name, Qualifier="prod")["type"] == "provisioned-concurrency"
    go_to(lab.server, monday + timedelta(days=1, hours=4))
    wait_for(lambda: provisioned(lab) == 0, what="the cool-down")
    assert lab.ask(name, Qualifier="prod")["type"] == "on-demand"
    for day in (1, 2, 3, 4):
        for number, hours in enumerate((22, 28), 1):
            go_to(lab.server, monday + timedelta(days=day, hours=hours))
            wait_for(lambda: _runs(lab) == 2 * day + number, what=f"the thermostat on day {day}")  # noqa: B023
    wait_for(lambda: provisioned(lab) == 0, what="Saturday's cool-down")
    go_to(lab.server, monday + timedelta(days=6, hours=23))
    assert provisioned(lab) == 0 and _runs(lab) == 10


def _runs(lab):
    """How often the thermostat has run."""
    groups = [group["logGroupName"] for group in lab.logs.describe_log_groups()["logGroups"]]
    (name,) = [group.removeprefix("/aws/lambda/") for group in groups if "Thermostat" in group]
    return len(lab.lines(name, "REPORT "))


def test_the_scheduler_calls_the_api_itself(fresh_server):
    lab = Lab(fresh_server(), "direct")
    name, scheduler = lab.function(WHO), lab.server.client("scheduler")
    version = lab.functions.publish_version(FunctionName=name)["Version"]
    lab.functions.create_alias(FunctionName=name, Name="prod", FunctionVersion=version)
    monday = next_monday(lab.server)
    which = {"FunctionName": name, "Qualifier": "prod"}
    plans = [
        ("up", "cron(0 17 ? * MON-FRI *)", "putProvisionedConcurrencyConfig",
         {**which, "ProvisionedConcurrentExecutions": 8}),
        ("down", "cron(0 23 ? * MON-FRI *)", "deleteProvisionedConcurrencyConfig", which),
    ]  # fmt: skip
    for word, expression, operation, arguments in plans:
        target = {
            "Arn": f"arn:aws:scheduler:::aws-sdk:lambda:{operation}", "RoleArn": ROLE, "Input": json.dumps(arguments)
        }  # fmt: skip
        scheduler.create_schedule(
            Name=word, ScheduleExpression=expression, ScheduleExpressionTimezone="America/New_York", Target=target,
            FlexibleTimeWindow={"Mode": "OFF"},
        )  # fmt: skip
    evening = monday + timedelta(hours=17 + _hours_behind(monday))
    go_to(lab.server, evening - timedelta(minutes=1))
    assert provisioned(lab) == 0
    go_to(lab.server, evening)
    wait_for(lambda: provisioned(lab) == 8, what="eight warm environments")
    go_to(lab.server, evening + timedelta(hours=6))
    wait_for(lambda: provisioned(lab) == 0, what="the cool-down")


def _hours_behind(moment):
    """How far New York is behind UTC at that date's evening."""
    from zoneinfo import ZoneInfo

    offset = (moment + timedelta(hours=20)).astimezone(ZoneInfo("America/New_York")).utcoffset()
    return -int(offset.total_seconds() // 3600)


REFRESH = """
import json
import os
import boto3
s3, bedrock, vectors = boto3.client("s3"), boto3.client("bedrock-runtime"), boto3.client("s3vectors")
INDEX = {"vectorBucketName": os.environ["NAME"], "indexName": "products"}

def chunks(text):
    return [part.strip() for part in text.split(".") if part.strip()]

def embed(text):
    answer = bedrock.invoke_model(modelId="preheat.hashing-1024", body=json.dumps({"inputText": text}))
    return json.loads(answer["body"].read())["embedding"]

def rag_refresh_handler(event, context):
    print("source " + event["source"])
    listed = s3.list_objects_v2(Bucket=os.environ["NAME"], Prefix="catalog/")
    for item in listed["Contents"]:
        text = s3.get_object(Bucket=os.environ["NAME"], Key=item["Key"])["Body"].read().decode()
        rows = [{"key": f"{item['Key']}#{n}", "data": {"float32": embed(part)}, "metadata": {"text": part}}
                for n, part in enumerate(chunks(text))]
        vectors.put_vectors(**INDEX, vectors=rows)
"""


def test_the_index_is_refreshed_every_six_hours(fresh_server):
    lab = Lab(fresh_server(), "refreshed")
    vectors, events = lab.server.client("s3vectors"), lab.server.client("events")
    bucket = lab.bucket()
    vectors.create_vector_bucket(vectorBucketName=bucket)
    index = {"vectorBucketName": bucket, "indexName": "products"}
    vectors.create_index(**index, dataType="float32", dimension=1024, distanceMetric="cosine")
    lab.s3.put_object(Bucket=bucket, Key="catalog/one.txt", Body=b"A blue umbrella. It folds.")
    name = lab.function(REFRESH, Handler="index.rag_refresh_handler", variables={"NAME": bucket}, memory=512)
    rule = events.put_rule(Name="refresh", ScheduleExpression="rate(6 hours)")["RuleArn"]
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
    lab.functions.add_permission(
        FunctionName=name, StatementId="rule", Action="lambda:InvokeFunction", Principal="events.amazonaws.com",
        SourceArn=rule,
    )  # fmt: skip
    events.put_targets(Rule="refresh", Targets=[{"Id": "1", "Arn": arn}])

    def texts():
        rows = vectors.list_vectors(**index, returnMetadata=True)["vectors"]
        return sorted(row["metadata"]["text"] for row in rows)

    lab.server.advance(5 * 3600)
    assert texts() == [] and lab.lines(name) == []
    lab.server.advance(3600 + 5)
    wait_for(lambda: texts() == ["A blue umbrella", "It folds"], what="the first refresh")
    lab.s3.put_object(Bucket=bucket, Key="catalog/two.txt", Body=b"Green boots.")
    lab.server.advance(18 * 3600)
    wait_for(lambda: len(texts()) == 3, what="the second product")
    wait_for(lambda: len(lab.lines(name, "REPORT ")) == 4, what="four runs in a day")
    assert set(lab.lines(name, "source ")) == {"source aws.events"}


AUTOSCALED = """
Resources:
  Target:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties:
      ServiceNamespace: lambda
      ScalableDimension: lambda:function:ProvisionedConcurrency
      ResourceId: function:worker:prod
      MinCapacity: 0
      MaxCapacity: 50
      ScheduledActions:
        - ScheduledActionName: up
          Schedule: "cron(0 22 ? * MON-FRI *)"
          ScalableTargetAction: {MinCapacity: 50}
"""


def test_a_template_with_application_auto_scaling_is_refused_by_name(lab):
    stacks = lab.server.client("cloudformation")
    with pytest.raises(ClientError, match="AWS::ApplicationAutoScaling::ScalableTarget"):
        stacks.create_stack(StackName=lab.name, TemplateBody=AUTOSCALED)

"""EventBridge Scheduler over a socket: a schedule on time, a template with ScheduleV2."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.test_events import ACCOUNT, Desk
from tests.support.functions import ROLE
from tests.support.server import wait_for

TEMPLATE = """
AWSTemplateFormatVersion: 2010-09-09
Transform: AWS::Serverless-2016-10-31
Resources:
  Inbox: {Type: AWS::SQS::Queue}
  Group: {Type: AWS::Scheduler::ScheduleGroup, Properties: {Name: nightly, Tags: [{Key: a, Value: b}]}}
  Plain:
    Type: AWS::Scheduler::Schedule
    Properties:
      GroupName: !Ref Group
      ScheduleExpression: rate(2 days)
      FlexibleTimeWindow: {Mode: "OFF"}
      Target: {Arn: !GetAtt Inbox.Arn, RoleArn: "arn:aws:iam::000000000000:role/worker", Input: '"plain"'}
  Worker:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      InlineCode: |
        import json, os, boto3
        def handler(event, context):
            boto3.client("sqs").send_message(QueueUrl=os.environ["QUEUE"], MessageBody=json.dumps(event))
      Environment: {Variables: {QUEUE: !Ref Inbox}}
      Events:
        Nightly:
          Type: ScheduleV2
          Properties:
            ScheduleExpression: cron(0 4 * * ? *)
            ScheduleExpressionTimezone: Europe/Berlin
            Input: '{"night": 1}'
Outputs:
  Inbox: {Value: !Ref Inbox}
"""


def test_at_a_second(aws):
    desk, scheduler = Desk(aws, "at-a-second"), aws.client("scheduler")
    url, arn = desk.queue()
    now = json.loads(aws.get("/_preheat/clock")[2])["now"]
    due = datetime.fromtimestamp(int(now), UTC) + timedelta(seconds=2)
    scheduler.create_schedule(
        Name="second", ScheduleExpression=f"at({due:%Y-%m-%dT%H:%M:%S})", FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": arn, "RoleArn": ROLE, "Input": '"now"'}, ActionAfterCompletion="DELETE",
    )  # fmt: skip
    assert desk.take(url) == ["now"]

    def gone():
        try:
            scheduler.get_schedule(Name="second")
        except scheduler.exceptions.ResourceNotFoundException:
            return True
        return False

    wait_for(gone, what="the schedule's end")
    with pytest.raises(ClientError) as caught:
        scheduler.create_schedule(
            Name="bad", ScheduleExpression="cron(a)", FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": arn, "RoleArn": ROLE},
        )  # fmt: skip
    assert caught.value.response["Error"]["Message"] == "Invalid Schedule Expression cron(a)."
    assert f":{ACCOUNT}:" in scheduler.get_schedule_group(Name="default")["Arn"]


def test_a_template(fresh_server):
    server = fresh_server()
    desk, stacks, scheduler = Desk(server, "stack"), server.client("cloudformation"), server.client("scheduler")
    capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    stacks.create_stack(StackName="clock", TemplateBody=TEMPLATE, Capabilities=capabilities)
    stacks.get_waiter("stack_create_complete").wait(StackName="clock", WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    outputs = stacks.describe_stacks(StackName="clock")["Stacks"][0]["Outputs"]
    url = outputs[0]["OutputValue"]
    found = scheduler.list_schedules()["Schedules"]
    assert sorted(one["GroupName"] for one in found) == ["default", "nightly"]
    server.advance(86_400)
    assert desk.take(url) == [{"night": 1}]
    server.advance(86_400)
    assert sorted(map(str, desk.take(url, 2))) == ["plain", "{'night': 1}"]
    stacks.delete_stack(StackName="clock")
    stacks.get_waiter("stack_delete_complete").wait(StackName="clock", WaiterConfig={"Delay": 1, "MaxAttempts": 40})
    assert scheduler.list_schedules()["Schedules"] == []

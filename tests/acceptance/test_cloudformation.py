"""Deploying stacks as the AWS CLI and SAM do: change sets, waiters, updates, failures; and a server that is killed."""

import json
import textwrap

import pytest
from botocore.exceptions import ClientError

from tests.support.server import wait_for

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
SAM = """
AWSTemplateFormatVersion: 2010-09-09
Transform: AWS::Serverless-2016-10-31
Parameters: {Who: {Type: String, Default: world}}
Resources:
  Jobs: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 60}}
  Documents: {Type: AWS::S3::Bucket}
  Index: {Type: AWS::Serverless::SimpleTable}
  Ask:
    Type: AWS::Serverless::Function
    Properties:
      Handler: app.handler
      Runtime: python3.11
      CodeUri: {Bucket: preheat-local, Key: CODE}
      AutoPublishAlias: live
      Environment: {Variables: {WHO: !Ref Who}}
      FunctionUrlConfig: {AuthType: NONE}
      EventInvokeConfig: {MaximumRetryAttempts: 1}
      Policies: [AWSLambdaBasicExecutionRole, {SQSPollerPolicy: {QueueName: !GetAtt Jobs.QueueName}}]
      Events:
        FromQueue: {Type: SQS, Properties: {Queue: !GetAtt Jobs.Arn, BatchSize: 5}}
        FromWeb: {Type: HttpApi, Properties: {Path: /ask, Method: post}}
        FromBucket: {Type: S3, Properties: {Bucket: !Ref Documents, Events: "s3:ObjectCreated:*"}}
Outputs:
  Name: {Value: !Ref Ask}
  Url: {Value: !GetAtt AskUrl.FunctionUrl}
  Api: {Value: !GetAtt ServerlessHttpApi.ApiEndpoint}
"""
HANDLER = """
import os


def handler(event, context):
    return {"statusCode": 200, "body": "hello " + os.environ["WHO"]}
"""


def settled(client, name):
    """The stack once nothing is going on in it."""

    def look():
        stack = client.describe_stacks(StackName=name)["Stacks"][0]
        return None if stack["StackStatus"].endswith("IN_PROGRESS") else stack

    return wait_for(look, what=f"the end of the operation on {name}")


def failures(client, name):
    events = client.describe_stack_events(StackName=name)["StackEvents"]
    return [
        (event["LogicalResourceId"], event.get("ResourceStatusReason"))
        for event in events
        if event["ResourceStatus"].endswith("FAILED")
    ]


def deploy(client, name, body, kind, change_set, parameters=()):
    """What `aws cloudformation deploy` does. The finished stack."""
    client.create_change_set(
        StackName=name, ChangeSetName=change_set, ChangeSetType=kind, TemplateBody=body, Capabilities=CAPABILITIES,
        Parameters=list(parameters),
    )  # fmt: skip
    waiter = client.get_waiter("change_set_create_complete")
    waiter.wait(StackName=name, ChangeSetName=change_set, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    client.execute_change_set(StackName=name, ChangeSetName=change_set)
    stack = settled(client, name)
    assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), failures(client, name)
    return stack


def outputs(stack):
    return {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}


def test_a_serverless_application_is_deployed_changed_and_deleted(aws, tmp_path):
    (tmp_path / "app.py").write_text(textwrap.dedent(HANDLER))
    client, body, name = aws.client("cloudformation"), SAM.replace("CODE", str(tmp_path)), "cfn-sam"
    out = outputs(deploy(client, name, body, "CREATE", "first"))

    def ask(url, path, method="GET"):
        host = url.split("/")[2]
        return aws.get(path, method, headers={"Host": host})[2].decode()

    assert ask(out["Url"], "/") == "hello world"
    assert ask(out["Api"], "/ask", "POST") == "hello world"
    functions = aws.client("lambda")
    mappings = functions.list_event_source_mappings(FunctionName=f"{out['Name']}:live")["EventSourceMappings"]
    assert [mapping["BatchSize"] for mapping in mappings] == [5]

    who = [{"ParameterKey": "Who", "ParameterValue": "there"}]
    deploy(client, name, body, "UPDATE", "second", who)
    answer = json.loads(functions.invoke(FunctionName=out["Name"])["Payload"].read())
    assert answer["body"] == "hello there"

    client.create_change_set(
        StackName=name, ChangeSetName="third", TemplateBody=body, Capabilities=CAPABILITIES, Parameters=who
    )
    seen = client.describe_change_set(StackName=name, ChangeSetName="third")
    assert (seen["Status"], seen["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "didn't contain changes" in seen["StatusReason"]

    stack_id = client.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
    client.delete_stack(StackName=name)
    assert settled(client, stack_id)["StackStatus"] == "DELETE_COMPLETE", failures(client, stack_id)
    with pytest.raises(ClientError) as caught:
        functions.get_function(FunctionName=out["Name"])
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_errors_reach_the_client_in_aws_words(aws):
    client = aws.client("cloudformation")
    with pytest.raises(ClientError) as caught:
        client.describe_stacks(StackName="cfn-none")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert caught.value.response["Error"]["Message"] == "Stack with id cfn-none does not exist"
    body = json.dumps({"Resources": {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Ref": "X"}}}}})
    with pytest.raises(ClientError) as caught:
        client.create_stack(StackName="cfn-bad", TemplateBody=body)
    assert caught.value.response["Error"]["Message"] == (
        "Template format error: Unresolved resource dependencies [X] in the Resources block of the template"
    )
    with pytest.raises(client.exceptions.ChangeSetNotFoundException):
        client.describe_change_set(ChangeSetName="arn:aws:cloudformation:us-east-1:000000000000:changeSet/c/1")


def test_a_failing_stack_is_rolled_back(aws):
    client = aws.client("cloudformation")
    resources = {
        "Good": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "cfn-good"}},
        "Bad": {"Type": "AWS::SQS::Queue", "DependsOn": "Good", "Properties": {"VisibilityTimeout": 99_999_999}},
    }
    client.create_stack(StackName="cfn-fails", TemplateBody=json.dumps({"Resources": resources}))
    assert settled(client, "cfn-fails")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert [name for name, _ in failures(client, "cfn-fails")] == ["Bad"]
    queues = aws.client("sqs")
    with pytest.raises(queues.exceptions.QueueDoesNotExist):
        queues.get_queue_url(QueueName="cfn-good")


def test_a_template_from_a_bucket_and_values_from_stores(aws):
    client, store, parameters = aws.client("cloudformation"), aws.client("s3"), aws.client("ssm")
    parameters.put_parameter(Name="/cfn/delay", Value="7", Type="String", Overwrite=True)
    body = {
        "Parameters": {"Delay": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/cfn/delay"}},
        "Resources": {
            "Q": {"Type": "AWS::SQS::Queue", "Properties": {
                "DelaySeconds": {"Ref": "Delay"}, "VisibilityTimeout": "{{resolve:ssm:/cfn/delay}}",
            }},
            "Key": {"Type": "AWS::SecretsManager::Secret", "Properties": {
                "GenerateSecretString": {
                    "SecretStringTemplate": '{"user": "me"}', "GenerateStringKey": "password", "PasswordLength": 24,
                },
            }},
        },
        "Outputs": {"Url": {"Value": {"Ref": "Q"}}, "Key": {"Value": {"Ref": "Key"}}},
    }  # fmt: skip
    store.create_bucket(Bucket="cfn-templates")
    store.put_object(Bucket="cfn-templates", Key="a/t.json", Body=json.dumps(body).encode())
    client.create_stack(StackName="cfn-url", TemplateURL=f"{aws.endpoint}/cfn-templates/a/t.json")
    stack = settled(client, "cfn-url")
    assert stack["StackStatus"] == "CREATE_COMPLETE", failures(client, "cfn-url")
    assert stack["Parameters"] == [
        {"ParameterKey": "Delay", "ParameterValue": "/cfn/delay", "ResolvedValue": "7"}
    ]
    url = outputs(stack)["Url"]
    names = ["DelaySeconds", "VisibilityTimeout"]
    read = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert read == {"DelaySeconds": "7", "VisibilityTimeout": "7"}
    secret = aws.client("secretsmanager").get_secret_value(SecretId=outputs(stack)["Key"])["SecretString"]
    assert json.loads(secret)["user"] == "me" and len(json.loads(secret)["password"]) == 24


def test_a_killed_server_finishes_the_stack_when_it_is_back(fresh_server):
    server = fresh_server()
    client = server.client("cloudformation")
    resources: dict = {"R0": {"Type": "AWS::SQS::Queue"}}
    for number in range(1, 60):
        resources[f"R{number}"] = {"Type": "AWS::SQS::Queue", "DependsOn": f"R{number - 1}"}
    client.create_stack(StackName="long", TemplateBody=json.dumps({"Resources": resources}))
    server.kill()
    server.start()
    assert settled(client, "long")["StackStatus"] == "CREATE_COMPLETE"
    listed = client.list_stack_resources(StackName="long")["StackResourceSummaries"]
    urls = server.client("sqs").list_queues()["QueueUrls"]
    assert sorted(urls) == sorted(item["PhysicalResourceId"] for item in listed)
    assert len(urls) == 60

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


WORDS = {False: ("before", 1), True: ("after", 2)}


def get(name, attribute="Arn"):
    return {"Fn::GetAtt": [name, attribute]}


def ref(name):
    return {"Ref": name}


def resource_policy(word, action, resource):
    statement = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": action}
    return {"Version": "2012-10-17", "Statement": [{**statement, "Sid": word, "Resource": resource}]}


def stores(word, one, tags):
    table = {
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "other")],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "TimeToLiveSpecification": {"AttributeName": "ends", "Enabled": one == 1},
        "GlobalSecondaryIndexes": [{
            "IndexName": f"by-{word}", "KeySchema": [{"AttributeName": "other", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
        }],
        "Tags": tags,
    }  # fmt: skip
    return {
        "Queue": ("SQS::Queue", {"DelaySeconds": one, "Tags": tags}),
        "QueuePolicy": (
            "SQS::QueuePolicy",
            {"Queues": [ref("Queue")], "PolicyDocument": resource_policy(word, "sqs:SendMessage", get("Queue"))},
        ),
        "Table": ("DynamoDB::Table", table),
        "Bucket": ("S3::Bucket", {
            "Tags": tags, "VersioningConfiguration": {"Status": "Enabled"},
            "CorsConfiguration": {"CorsRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": [f"https://{word}"]}]},
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [
                {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]},
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        }),
        "BucketPolicy": ("S3::BucketPolicy", {
            "Bucket": ref("Bucket"),
            "PolicyDocument": resource_policy(word, "s3:GetObject", {"Fn::Sub": "${Bucket.Arn}/*"}),
        }),
        "Vectors": ("S3Vectors::VectorBucket", {"Tags": tags}),
        "Index": ("S3Vectors::Index", {
            "VectorBucketArn": ref("Vectors"), "DataType": "float32", "Dimension": 8 * one, "DistanceMetric": "cosine",
        }),
        "VectorPolicy": ("S3Vectors::VectorBucketPolicy", {
            "VectorBucketArn": ref("Vectors"), "Policy": resource_policy(word, "s3vectors:GetIndex", ref("Vectors")),
        }),
    }  # fmt: skip


def identities(word, one, tags):
    trusted = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    assume = {"Version": "2012-10-17", "Statement": [trusted]}
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": f"sqs:{word}", "Resource": "*"}]}
    return {
        "Role": ("IAM::Role", {
            "AssumeRolePolicyDocument": assume, "Description": word, "Tags": tags,
            "Policies": [{"PolicyName": f"p-{word}", "PolicyDocument": allow}],
        }),
        "Shared": ("IAM::ManagedPolicy", {"PolicyDocument": allow, "Roles": [ref("Role")]}),
        "Inline": ("IAM::Policy", {"PolicyName": "inline", "PolicyDocument": allow, "Roles": [ref("Role")]}),
        "User": ("IAM::User", {"Tags": tags, "Policies": [{"PolicyName": "p", "PolicyDocument": allow}]}),
        "Group": ("Logs::LogGroup", {"RetentionInDays": 7 * one, "Tags": tags}),
        "Stream": ("Logs::LogStream", {"LogGroupName": ref("Group")}),
        "Setting": ("SSM::Parameter", {"Type": "String", "Value": word, "Tags": {"state": word}}),
        "Secret": ("SecretsManager::Secret", {"SecretString": word, "Tags": tags}),
    }  # fmt: skip


def functions(word, one, tags):
    code = {"ZipFile": f"def handler(event, context):\n    return '{word}'\n"}
    return {
        "Function": ("Lambda::Function", {
            "Code": code, "Handler": "index.handler", "Runtime": "python3.11", "Role": get("Role"), "Timeout": one,
            "Environment": {"Variables": {"STATE": word}}, "ReservedConcurrentExecutions": one, "Tags": tags,
        }),
        "Version": ("Lambda::Version", {"FunctionName": ref("Function")}),
        "Alias": ("Lambda::Alias", {
            "FunctionName": ref("Function"), "FunctionVersion": get("Version", "Version"), "Name": "live",
            "Description": word,
        }),
        "Permission": ("Lambda::Permission", {
            "FunctionName": ref("Alias"), "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com",
            "SourceArn": f"arn:aws:s3:::{word}",
        }),
        "Url": ("Lambda::Url", {
            "TargetFunctionArn": ref("Alias"), "AuthType": "NONE", "Cors": {"AllowOrigins": [f"https://{word}"]},
        }),
        "Later": ("Lambda::EventInvokeConfig", {
            "FunctionName": ref("Function"), "Qualifier": "live", "MaximumRetryAttempts": one,
        }),
        "Source": ("Lambda::EventSourceMapping", {
            "EventSourceArn": get("Queue"), "FunctionName": ref("Alias"), "BatchSize": one, "Enabled": one == 1,
        }),
        "Api": ("ApiGatewayV2::Api", {"Name": word, "ProtocolType": "HTTP"}),
        "Target": ("ApiGatewayV2::Integration", {
            "ApiId": ref("Api"), "IntegrationType": "AWS_PROXY", "IntegrationUri": get("Function"),
            "PayloadFormatVersion": "2.0",
        }),
        "Route": ("ApiGatewayV2::Route", {
            "ApiId": ref("Api"), "RouteKey": f"GET /{word}", "Target": {"Fn::Sub": "integrations/${Target}"},
        }),
        "Stage": ("ApiGatewayV2::Stage", {
            "ApiId": ref("Api"), "StageName": "$default", "AutoDeploy": True, "Description": word,
        }),
    }  # fmt: skip


def every_type(second: bool) -> str:
    """A stack with most types, in two states that differ wherever an update has something to do."""
    word, one = WORDS[second]
    resources = {}
    for make in (stores, identities, functions):
        for name, (kind, properties) in make(word, one, [{"Key": "state", "Value": word}]).items():
            resources[name] = {"Type": f"AWS::{kind}", "Properties": properties}
    resources["Later"]["DependsOn"] = "Alias"
    return json.dumps({"Resources": resources})


def test_most_types_are_made_changed_and_deleted(aws):
    client, name = aws.client("cloudformation"), "cfn-types"
    deploy(client, name, every_type(False), "CREATE", "first")
    deploy(client, name, every_type(True), "UPDATE", "second")
    rows = client.list_stack_resources(StackName=name)["StackResourceSummaries"]
    physical = {row["LogicalResourceId"]: row["PhysicalResourceId"] for row in rows}
    answer = aws.client("lambda").invoke(FunctionName=physical["Function"])["Payload"].read()
    assert json.loads(answer) == "after"
    assert aws.client("ssm").get_parameter(Name=physical["Setting"])["Parameter"]["Value"] == "after"
    described = aws.client("iam").list_role_policies(RoleName=physical["Role"])["PolicyNames"]
    assert sorted(described) == ["inline", "p-after"]
    table = aws.client("dynamodb").describe_table(TableName=physical["Table"])["Table"]
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == ["by-after"]
    routes = aws.client("apigatewayv2").get_routes(ApiId=physical["Api"])["Items"]
    assert [route["RouteKey"] for route in routes] == ["GET /after"]
    client.create_change_set(
        StackName=name, ChangeSetName="third", TemplateBody=every_type(True), Capabilities=CAPABILITIES
    )
    assert client.describe_change_set(StackName=name, ChangeSetName="third")["Status"] == "FAILED"
    stack_id = client.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
    client.delete_stack(StackName=name)
    assert settled(client, stack_id)["StackStatus"] == "DELETE_COMPLETE", failures(client, stack_id)
    assert not failures(client, stack_id)

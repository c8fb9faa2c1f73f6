"""The AWS managed policies that serverless templates name, with the permissions that matter here."""

import json
from typing import Any

CREATED = 1_425_000_000


def _policy(*actions: str, resource: str = "*") -> str:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


_LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
_NETWORK = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)
_PREFIX = "arn:aws:iam::aws:policy"

MANAGED: dict[str, str] = {
    f"{_PREFIX}/service-role/AWSLambdaBasicExecutionRole": _policy(*_LOGS),
    f"{_PREFIX}/service-role/AWSLambdaVPCAccessExecutionRole": _policy(*_LOGS, *_NETWORK),
    f"{_PREFIX}/service-role/AWSLambdaSQSQueueExecutionRole": _policy(
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", *_LOGS
    ),
    f"{_PREFIX}/service-role/AWSLambdaDynamoDBExecutionRole": _policy(
        "dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams", *_LOGS
    ),
    f"{_PREFIX}/service-role/AWSLambdaKinesisExecutionRole": _policy(
        "kinesis:DescribeStream",
        "kinesis:DescribeStreamSummary",
        "kinesis:GetRecords",
        "kinesis:GetShardIterator",
        "kinesis:ListShards",
        "kinesis:ListStreams",
        "kinesis:SubscribeToShard",
        *_LOGS,
    ),
    f"{_PREFIX}/service-role/AWSLambdaRole": _policy("lambda:InvokeFunction"),
    f"{_PREFIX}/service-role/AmazonAPIGatewayPushToCloudWatchLogs": _policy(
        *_LOGS, "logs:DescribeLogGroups", "logs:DescribeLogStreams", "logs:GetLogEvents", "logs:FilterLogEvents"
    ),
    f"{_PREFIX}/AdministratorAccess": _policy("*"),
    f"{_PREFIX}/AWSLambda_FullAccess": _policy(
        "lambda:*", "iam:GetRole", "iam:ListRoles", "iam:PassRole", "logs:*", "cloudwatch:*", "xray:GetTraceSummaries"
    ),
    f"{_PREFIX}/AWSLambdaExecute": _policy("logs:*", "s3:GetObject", "s3:PutObject"),
    f"{_PREFIX}/AWSXRayDaemonWriteAccess": _policy(
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:GetSamplingStatisticSummaries",
    ),
    f"{_PREFIX}/AmazonS3FullAccess": _policy("s3:*", "s3-object-lambda:*"),
    f"{_PREFIX}/AmazonS3ReadOnlyAccess": _policy(
        "s3:Get*", "s3:List*", "s3:Describe*", "s3-object-lambda:Get*", "s3-object-lambda:List*"
    ),
    f"{_PREFIX}/AmazonSQSFullAccess": _policy("sqs:*"),
    f"{_PREFIX}/AmazonSQSReadOnlyAccess": _policy(
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ListDeadLetterSourceQueues",
        "sqs:ListQueues",
        "sqs:ListMessageMoveTasks",
        "sqs:ListQueueTags",
    ),
    f"{_PREFIX}/AmazonSNSFullAccess": _policy("sns:*"),
    f"{_PREFIX}/AmazonDynamoDBFullAccess": _policy("dynamodb:*", "application-autoscaling:*", "cloudwatch:*"),
    f"{_PREFIX}/AmazonDynamoDBReadOnlyAccess": _policy(
        "dynamodb:BatchGetItem",
        "dynamodb:Describe*",
        "dynamodb:List*",
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:PartiQLSelect",
        "dynamodb:GetAbacStatus",
        "dynamodb:GetResourcePolicy",
    ),
    f"{_PREFIX}/AmazonBedrockFullAccess": _policy("bedrock:*"),
    f"{_PREFIX}/CloudWatchLogsFullAccess": _policy("logs:*", "cloudwatch:GenerateQuery"),
    f"{_PREFIX}/CloudWatchLambdaInsightsExecutionRolePolicy": _policy(*_LOGS),
    f"{_PREFIX}/SecretsManagerReadWrite": _policy("secretsmanager:*", "kms:DescribeKey", "kms:ListAliases"),
    f"{_PREFIX}/AmazonSSMReadOnlyAccess": _policy("ssm:Describe*", "ssm:Get*", "ssm:List*"),
    f"{_PREFIX}/AmazonSSMFullAccess": _policy("ssm:*", "cloudwatch:PutMetricData"),
}

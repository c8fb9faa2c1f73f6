"""SERVICES: every AWS API that the platform answers, one line each: botocore's name -> the module with `build`.

Modules named here have `build(platform)`; what needs more than the platform (Lambda needs the executor, CloudFormation
lives in `template`) is built by `app.py` and stands below in `BUILT_BY_APP`.
"""

SERVICES: dict[str, str] = {
    "sqs": "preheat.services.sqs.service",
    "sns": "preheat.services.sns.service",
    "s3": "preheat.services.s3.service",
    "dynamodb": "preheat.services.dynamodb.service",
    "s3vectors": "preheat.services.s3vectors.service",
    "bedrock-runtime": "preheat.services.bedrock_runtime.service",
    "bedrock": "preheat.services.bedrock.service",
    "bedrock-agent-runtime": "preheat.services.bedrock_agent_runtime.service",
    "logs": "preheat.services.logs.service",
    "cloudwatch": "preheat.services.cloudwatch.service",
    "iam": "preheat.services.iam.service",
    "sts": "preheat.services.sts.service",
    "ssm": "preheat.services.ssm.service",
    "secretsmanager": "preheat.services.secretsmanager.service",
    "apigatewayv2": "preheat.services.apigatewayv2.service",
    "events": "preheat.services.events.service",
    "scheduler": "preheat.services.scheduler.service",
    "kinesis": "preheat.services.kinesis.service",
    "stepfunctions": "preheat.services.stepfunctions.service",
}

BUILT_BY_APP: tuple[str, ...] = ("lambda", "cloudformation")

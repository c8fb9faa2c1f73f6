"""What the Resource of a Task state stands for."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

OPTIMISED = {
    "lambda:invoke": "token",
    "sqs:sendMessage": "token",
    "sns:publish": "token",
    "events:putEvents": "token",
    "dynamodb:getItem": "",
    "dynamodb:putItem": "",
    "dynamodb:updateItem": "",
    "dynamodb:deleteItem": "",
    "states:startExecution": "token sync sync:2",
}
"""Optimised integrations, with the patterns that they take besides request and response."""
SDK_NAMES = {"stepfunctions": "sfn", "logs": "cloudwatchlogs", "events": "eventbridge"}
"""How the SDKs call a service, where that is not botocore's name without its hyphens."""
SERVICES = {"states": "stepfunctions"}
ERROR_NAMES = {
    "dynamodb": "DynamoDb", "bedrockruntime": "BedrockRuntime", "bedrockagentruntime": "BedrockAgentRuntime",
    "cloudwatch": "CloudWatch", "cloudwatchlogs": "CloudWatchLogs", "cloudformation": "CloudFormation",
    "eventbridge": "EventBridge", "secretsmanager": "SecretsManager", "apigatewayv2": "ApiGatewayV2",
    "s3vectors": "S3Vectors",
}  # fmt: skip
"""The first half of an SDK integration's error names, where it is not the service with a capital."""
OPTIMISED_ERRORS = {
    "lambda": "Lambda", "sqs": "SQS", "sns": "SNS", "events": "EventBridge", "dynamodb": "DynamoDB",
    "states": "StepFunctions",
}  # fmt: skip
_FUNCTION = re.compile(r"arn:aws[\w-]*:lambda:[\w-]*:\d*:function:[\w-]+(:[\w$-]+)?")
_ACTIVITY = re.compile(r"arn:aws[\w-]*:states:[\w-]+:\d{12}:activity:.{1,80}")
_INTEGRATION = re.compile(
    r"arn:aws[\w-]*:states:[\w-]*:\d*:(aws-sdk:)?([\w-]+):(\w+)(\.sync:2|\.sync|\.waitForTaskToken)?"
)
_PATTERNS = {None: "", ".sync": "sync", ".sync:2": "sync:2", ".waitForTaskToken": "token"}


class Resource(NamedTuple):
    """`kind` is "function" (a function's ARN), "activity" or "call" (one operation of a service: `sdk` for an SDK
    integration). `pattern` is "", "sync", "sync:2" or "token"."""

    arn: str
    kind: str
    service: str = ""
    action: str = ""
    pattern: str = ""
    sdk: bool = False

    @property
    def resource_type(self) -> str:
        """As history events show it."""
        return f"aws-sdk:{self.service}" if self.sdk else self.service

    @property
    def shown_action(self) -> str:
        return self.action + {"": "", "token": ".waitForTaskToken"}.get(self.pattern, f".{self.pattern}")

    @property
    def error_prefix(self) -> str:
        if not self.sdk:
            return OPTIMISED_ERRORS.get(self.service, self.service.capitalize())
        return ERROR_NAMES.get(self.service, self.service.capitalize())


def parse(arn: str) -> Resource | None:
    """None for what no Task state can have as its Resource."""
    if _FUNCTION.fullmatch(arn):
        return Resource(arn, "function")
    if _ACTIVITY.fullmatch(arn):
        return Resource(arn, "activity")
    found = _INTEGRATION.fullmatch(arn)
    if found is None:
        return None
    sdk, service, action, pattern = bool(found[1]), found[2], found[3], _PATTERNS[found[4]]
    allowed = "token" if sdk else OPTIMISED.get(f"{service}:{action}")
    if allowed is None or (pattern and pattern not in allowed.split()):
        return None
    return Resource(arn, "call", service, action, pattern, sdk)


def operation(services: Mapping[str, Any], resource: Resource) -> tuple[str, str] | None:
    """(service, operation) of a call, None for what this platform does not implement."""
    if resource.sdk:
        named = {SDK_NAMES.get(name, name.replace("-", "")): name for name in services}
        service = named.get(resource.service)
    else:
        service = SERVICES.get(resource.service, resource.service)
    found = services.get(service or "")
    if found is None or not resource.action[:1].islower():
        return None
    name = next((one for one in found.operations if one.lower() == resource.action.lower()), None)
    return None if name is None or service is None else (service, name)

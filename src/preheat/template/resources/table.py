"""The table of resource types."""

from collections.abc import Iterator, Mapping

from preheat.template.definition import ResourceType
from preheat.template.resources import (
    apigatewayv2,
    bedrock,
    dynamodb,
    events,
    functions,
    iam,
    invocation,
    kinesis,
    s3,
    s3vectors,
    scheduler,
    small,
    sns,
    sqs,
    stepfunctions,
)
from preheat.template.resources.custom import custom_type

MODULES = (
    sqs, functions, invocation, s3, dynamodb, s3vectors, apigatewayv2, bedrock, iam, small, sns, events, scheduler,
    kinesis, stepfunctions,
)  # fmt: skip
CUSTOM = "AWS::CloudFormation::CustomResource"


class ResourceTypes(Mapping[str, ResourceType]):
    """Definitions by type; every `Custom::` name is known."""

    def __init__(self) -> None:
        self._types = {item.type: item for module in MODULES for item in module.TYPES}
        self._types[CUSTOM] = custom_type(CUSTOM)

    def __getitem__(self, name: str) -> ResourceType:
        if name.startswith("Custom::"):
            return custom_type(name)
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

"""Which IAM actions an operation needs, on which resources: the names and ARNs of AWS's service authorization
reference, for every operation that is implemented. An operation without a rule is denied."""

from preheat.gateway.actions import bedrock, control, events, messaging, states, storage, streaming
from preheat.gateway.actions.need import Need, Rule
from preheat.services.contract import Context, Params

RULES: dict[str, dict[str, Rule]] = {
    "s3": storage.s3_rules(),
    "sqs": storage.sqs_rules(),
    "lambda": control.lambda_rules(),
    "dynamodb": storage.dynamodb_rules(),
    "s3vectors": storage.s3vectors_rules(),
    "bedrock-runtime": bedrock.runtime_rules(),
    "bedrock": bedrock.control_rules(),
    "bedrock-agent-runtime": bedrock.agent_rules(),
    "apigatewayv2": control.api_rules(),
    "logs": control.logs_rules(),
    "cloudwatch": control.cloudwatch_rules(),
    "iam": control.iam_rules(),
    "sts": control.sts_rules(),
    "cloudformation": control.cloudformation_rules(),
    "ssm": control.ssm_rules(),
    "secretsmanager": control.secretsmanager_rules(),
    "events": events.events_rules(),
    "scheduler": events.scheduler_rules(),
    "sns": messaging.sns_rules(),
    "kinesis": streaming.kinesis_rules(),
    "stepfunctions": states.states_rules(),
}
"""By service and operation."""


def needs(ctx: Context, service: str, operation: str, params: Params) -> list[Need] | None:
    """What must be allowed; empty when everybody may (sts:GetCallerIdentity), None for an operation without a rule.
    Raises AwsError for a name that cannot be read."""
    rule = RULES.get(service, {}).get(operation)
    return None if rule is None else rule(ctx, params)

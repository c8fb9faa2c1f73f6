"""The transform AWS::Serverless-2016-10-31, carried out by AWS's own translator without a word to AWS."""

import copy
from types import SimpleNamespace
from typing import Any

from preheat.template.read import invalid

UNREACHABLE = ("AWS::Serverless::Application",)
SERVICE_ROLE_POLICIES = (
    "AWSLambdaBasicExecutionRole", "AWSLambdaSQSQueueExecutionRole", "AWSLambdaDynamoDBExecutionRole",
    "AWSLambdaKinesisExecutionRole", "AWSLambdaVPCAccessExecutionRole", "AWSLambdaMSKExecutionRole",
    "AWSLambdaRole", "AWSLambdaBasicDurableExecutionRolePolicy",
)  # fmt: skip
POLICIES = (
    "AWSLambdaExecute", "AWSLambda_FullAccess", "AWSLambda_ReadOnlyAccess", "AWSXRayDaemonWriteAccess",
    "AWSXrayWriteOnlyAccess", "AmazonBedrockFullAccess", "AmazonBedrockReadOnly", "AmazonDynamoDBFullAccess",
    "AmazonDynamoDBReadOnlyAccess", "AmazonEventBridgeFullAccess", "AmazonKinesisFullAccess",
    "AmazonKinesisReadOnlyAccess", "AmazonS3FullAccess", "AmazonS3ReadOnlyAccess", "AmazonSNSFullAccess",
    "AmazonSNSReadOnlyAccess", "AmazonSQSFullAccess", "AmazonSQSReadOnlyAccess", "AmazonSSMFullAccess",
    "AmazonSSMReadOnlyAccess", "AWSStepFunctionsFullAccess", "CloudWatchFullAccess",
    "CloudWatchLambdaInsightsExecutionRolePolicy",
    "CloudWatchLogsFullAccess", "CloudWatchReadOnlyAccess", "ReadOnlyAccess", "SecretsManagerReadWrite",
)  # fmt: skip


def translate(body: dict[str, Any], values: dict[str, Any], region: str) -> dict[str, Any]:
    """The template in plain CloudFormation. Slow (a second the first time): not for the core's thread.

    `values`: the parameters. Raises ValidationError with the translator's reasons.
    """
    for logical_id, resource in body["Resources"].items():
        if resource.get("Type") in UNREACHABLE:
            raise invalid(
                f"Transform AWS::Serverless-2016-10-31 failed with: Preheat does not implement {resource['Type']} "
                f"(resource {logical_id})"
            )
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator
    from samtranslator.utils.py27hash_fix import to_py27_compatible_template, undo_mark_unicode_str_in_template

    document, given = copy.deepcopy(body), copy.deepcopy(values)
    try:
        to_py27_compatible_template(document, given)
        translator = Translator(managed_policies(), Parser(), boto_session=SimpleNamespace(region_name=region))
        return undo_mark_unicode_str_in_template(translator.translate(document, parameter_values=given))
    except InvalidDocumentException as error:
        causes = "".join(f" {cause.message}" for cause in error.causes)
        raise invalid(f"Transform AWS::Serverless-2016-10-31 failed with: {error.message}{causes}") from None


def managed_policies() -> dict[str, str]:
    """AWS's managed policies by name, as far as functions use them."""
    known = {name: f"arn:aws:iam::aws:policy/{name}" for name in POLICIES}
    known.update({name: f"arn:aws:iam::aws:policy/service-role/{name}" for name in SERVICE_ROLE_POLICIES})
    return known

"""Code signing configurations. There is no AWS Signer here, so no archive carries a signature: with the policy Enforce
every deployment is blocked, with Warn each is counted in SignatureValidationErrors."""

import json
import re
import string
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.awslambda import signing_repository
from preheat.services.awslambda.configuration import check_tags
from preheat.services.awslambda.core import Core, Operation, existing, marker, page
from preheat.services.awslambda.domain import NO_TYPE, FunctionName, conflict, timestamp, violation
from preheat.services.contract import Context, Outcome, Params, Reply

POLICIES = ("Warn", "Enforce")
_PROFILE_PATTERN = r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:([a-z]{2}(-gov)?-[a-z]+-\d{1})?:(\d{12})?:(.*)"
_ALPHABET = string.digits + "abcdef"


def check_deployment(ctx: Context, function: FunctionName, config: str | None = None) -> None:
    """Hold a new archive of `function` to its configuration, or to `config`. Raises AwsError when that enforces."""
    arn = config or signing_repository.config_for(ctx.db, function)
    row = None if arn is None else signing_repository.config_of(ctx.db, arn)
    if row is None:
        return
    if json.loads(row["details"])["policy"] == "Enforce":
        raise AwsError(
            "CodeVerificationFailedException",
            "The code signature failed one or more of the validation checks for signature mismatch or expiry, and the "
            "code signing policy is set to ENFORCE. Lambda blocks the deployment.",
            400,
            fields={"Type": "User"},
        )
    meter, scope, name = ctx.machine.meter, function.scope, function.name
    ctx.db.after_commit(lambda: meter.record(scope, "AWS/Lambda", "SignatureValidationErrors", FunctionName=name))


def check_exists(ctx: Context, arn: str) -> None:
    if signing_repository.config_of(ctx.db, arn) is None:
        raise AwsError(
            "CodeSigningConfigNotFoundException",
            "The code signing configuration cannot be found. Check that the provided configuration is not deleted: "
            f"{arn}.",
            404,
            fields={"Type": "User"},
        )


def _found(ctx: Context, params: Params) -> Any:
    arn = params["CodeSigningConfigArn"]
    row = signing_repository.config_of(ctx.db, arn)
    if row is None:
        text = f"The Lambda code signing configuration {arn} can not be found."
        raise AwsError("ResourceNotFoundException", text, 404, fields=NO_TYPE)
    return row


def _answer(row: Any) -> Params:
    details = json.loads(row["details"])
    output: Params = {
        "CodeSigningConfigId": row["arn"].rpartition(":")[2],
        "CodeSigningConfigArn": row["arn"],
        "AllowedPublishers": {"SigningProfileVersionArns": details["publishers"]},
        "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": details["policy"]},
        "LastModified": timestamp(row["modified"]),
    }
    if details["description"]:
        output["Description"] = details["description"]
    return output


def _details(params: Params, before: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says, on top of `before`. Raises AwsError."""
    details = dict(before)
    if "AllowedPublishers" in params:
        arns = list(params["AllowedPublishers"]["SigningProfileVersionArns"])
        if not 1 <= len(arns) <= 20:
            raise violation(
                f"[{', '.join(arns)}]", "allowedPublishers.signingProfileVersionArns",
                f"Member must have length {'greater than or equal to 1' if not arns else 'less than or equal to 20'}",
            )  # fmt: skip
        for arn in arns:
            if not re.fullmatch(_PROFILE_PATTERN, arn):
                raise violation(
                    f"[{arn}]", "allowedPublishers.signingProfileVersionArns",
                    f"Member must satisfy constraint: [Member must satisfy regular expression pattern: "
                    f"{_PROFILE_PATTERN}]",
                )  # fmt: skip
        details["publishers"] = arns
    if params.get("CodeSigningPolicies"):
        policy = params["CodeSigningPolicies"].get("UntrustedArtifactOnDeployment", "Warn")
        if policy not in POLICIES:
            raise violation(
                policy, "codeSigningPolicies.untrustedArtifactOnDeployment",
                "Member must satisfy enum value set: [Warn, Enforce]",
            )  # fmt: skip
        details["policy"] = policy
    if "Description" in params:
        if len(params["Description"]) > 256:
            raise violation(params["Description"], "description", "Member must have length less than or equal to 256")
        details["description"] = params["Description"]
    return details


def create_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    details = _details(params, {"publishers": [], "policy": "Warn", "description": ""})
    tags = check_tags(params.get("Tags") or {})
    arn = ctx.scope.arn("lambda", f"code-signing-config:csc-{ctx.entropy.token(17, _ALPHABET)}")
    signing_repository.save_config(ctx.db, arn, ctx.scope, details, ctx.now)
    signing_repository.set_config_tags(ctx.db, arn, tags)
    return Reply({"CodeSigningConfig": _answer(signing_repository.config_of(ctx.db, arn))}, 201)


def get_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    return {"CodeSigningConfig": _answer(_found(ctx, params))}


def update_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    row = _found(ctx, params)
    details = _details(params, json.loads(row["details"]))
    signing_repository.save_config(ctx.db, row["arn"], ctx.scope, details, ctx.now)
    return {"CodeSigningConfig": _answer(signing_repository.config_of(ctx.db, row["arn"]))}


def delete_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    row = _found(ctx, params)
    if signing_repository.functions_with(ctx.db, row["arn"], "", 1):
        raise conflict(
            "This code signing configuration is used by one or more Lambda functions and can not be deleted."
        )
    signing_repository.delete_config(ctx.db, row["arn"])
    return Reply({}, 204)


def list_code_signing_configs(core: Core, ctx: Context, params: Params) -> Outcome:
    after, limit = page(params)
    found = signing_repository.configs(ctx.db, ctx.scope, after, limit + 1)
    output: Params = {"CodeSigningConfigs": [_answer(row) for row in found[:limit]]}
    if len(found) > limit:
        output["NextMarker"] = marker(found[limit - 1]["arn"])
    return output


def put_function_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    arn = params["CodeSigningConfigArn"]
    check_exists(ctx, arn)
    function = existing(ctx, params, unqualified=True)
    signing_repository.attach(ctx.db, function, arn)
    return {"CodeSigningConfigArn": arn, "FunctionName": function.name}


def get_function_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params, unqualified=True)
    arn = signing_repository.config_for(ctx.db, function)
    return {} if arn is None else {"CodeSigningConfigArn": arn, "FunctionName": function.name}


def delete_function_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    signing_repository.detach(ctx.db, existing(ctx, params, unqualified=True))
    return Reply({}, 204)


def list_functions_by_code_signing_config(core: Core, ctx: Context, params: Params) -> Outcome:
    row = _found(ctx, params)
    after, limit = page(params)
    names = signing_repository.functions_with(ctx.db, row["arn"], after, limit + 1)
    output: Params = {"FunctionArns": [ctx.scope.arn("lambda", f"function:{name}") for name in names[:limit]]}
    if len(names) > limit:
        output["NextMarker"] = marker(names[limit - 1])
    return output


OPERATIONS: dict[str, Operation] = {
    "CreateCodeSigningConfig": create_code_signing_config,
    "GetCodeSigningConfig": get_code_signing_config,
    "UpdateCodeSigningConfig": update_code_signing_config,
    "DeleteCodeSigningConfig": delete_code_signing_config,
    "ListCodeSigningConfigs": list_code_signing_configs,
    "PutFunctionCodeSigningConfig": put_function_code_signing_config,
    "GetFunctionCodeSigningConfig": get_function_code_signing_config,
    "DeleteFunctionCodeSigningConfig": delete_function_code_signing_config,
    "ListFunctionsByCodeSigningConfig": list_functions_by_code_signing_config,
}

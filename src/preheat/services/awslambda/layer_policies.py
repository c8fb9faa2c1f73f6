"""Who may use a layer version besides its own account."""

import hashlib
import json
import re
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation
from preheat.services.awslambda.domain import conflict, invalid, not_found, violation
from preheat.services.awslambda.permissions import check_length
from preheat.services.contract import Context, Outcome, Params, Reply

ACTION = "lambda:GetLayerVersion"
_SID = re.compile(r"[a-zA-Z0-9-_]{1,100}")
_PRINCIPAL = re.compile(r"\d{12}|\*|arn:(aws[a-zA-Z-]*):iam::\d{12}:root")
_ORGANIZATION = re.compile(r"o-[a-z0-9]{10,32}")


def document(ctx: Context, arn: str) -> dict[str, Any] | None:
    """The policy of a layer version, or None."""
    texts = repository.layer_statements(ctx.db, arn)
    if not texts:
        return None
    return {"Version": "2012-10-17", "Id": "default", "Statement": [json.loads(text) for text in texts]}


def allows(ctx: Context, arn: str, account: str) -> bool:
    """Whether `account` may use the layer version. Nobody here belongs to an organization."""
    if Arn.parse(arn).account == account:
        return True
    policy = document(ctx, arn)
    wanted = ("*", account, f"arn:aws:iam::{account}:root")
    return policy is not None and any(
        "Condition" not in one and (one["Principal"] if one["Principal"] == "*" else one["Principal"]["AWS"]) in wanted
        for one in policy["Statement"]
    )


def check_use(ctx: Context, arn: str, scope: Scope) -> None:
    """Raises AwsError, in AWS's words, when a function of `scope` may not have the layer version."""
    parsed = Arn.parse(arn)
    if parsed.account == scope.account and parsed.region != scope.region:
        raise invalid(
            "Layers are not in the same region as the function. "
            f"Layers are expected to be in region {scope.region}."
        )
    if parsed.region != scope.region or not allows(ctx, arn, scope.account):
        raise denied(ctx, arn)


def denied(ctx: Context, arn: str) -> AwsError:
    return AwsError(
        "AccessDeniedException",
        f"User: {ctx.principal.arn} is not authorized to perform: {ACTION} on resource: {arn} because no "
        f"resource-based policy allows the {ACTION} action",
        403,
    )


def _version(ctx: Context, params: Params) -> str:
    """The ARN of a layer version of the caller's that exists. Raises AwsError."""
    base = params["LayerName"]
    base = base if base.startswith("arn:") else ctx.scope.arn("lambda", f"layer:{base}")
    arn = f"{base}:{params['VersionNumber']}"
    scope, name = _split(base)
    if scope != ctx.scope or repository.layer_of(ctx.db, scope, name, params["VersionNumber"]) is None:
        raise not_found(f"Layer version {arn} does not exist.")
    return arn


def _split(arn: str) -> tuple[Scope, str]:
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        raise violation(arn, "layerName", "Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+") from None
    return parsed.scope, parsed.resource.removeprefix("layer:")


def _revision(ctx: Context, arn: str) -> str:
    digest = hashlib.sha256("\n".join((arn, *repository.layer_statements(ctx.db, arn))).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def _check_revision(ctx: Context, params: Params, arn: str) -> None:
    given = params.get("RevisionId")
    if given and given != _revision(ctx, arn):
        raise AwsError(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve "
            "the latest Revision Id",
            412,
            fields={"Type": "User"},
        )


def _check_words(params: Params) -> None:
    for member, pattern in (("StatementId", _SID), ("Principal", _PRINCIPAL), ("OrganizationId", _ORGANIZATION)):
        value = params.get(member)
        if value is not None and pattern.fullmatch(value) is None:
            name = f"{member[0].lower()}{member[1:]}"
            raise violation(value, name, f"Member must satisfy regular expression pattern: {pattern.pattern}")
    if params["Action"] != ACTION:
        raise violation(params["Action"], "action", f"Member must satisfy regular expression pattern: {ACTION}")
    if params.get("OrganizationId") and params["Principal"] != "*":
        raise invalid("OrganizationId is only supported with the principal *.")


def add_layer_version_permission(core: Core, ctx: Context, params: Params) -> Outcome:
    _check_words(params)
    arn, sid, principal = _version(ctx, params), params["StatementId"], params["Principal"]
    _check_revision(ctx, params, arn)
    if principal != "*" and not principal.startswith("arn:"):
        principal = f"arn:aws:iam::{principal}:root"
    statement: Params = {
        "Sid": sid, "Effect": "Allow", "Principal": "*" if principal == "*" else {"AWS": principal},
        "Action": ACTION, "Resource": arn,
    }  # fmt: skip
    if params.get("OrganizationId"):
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": params["OrganizationId"]}}
    text = json.dumps(statement, separators=(",", ":"))
    check_length(sum(len(entry) for entry in repository.layer_statements(ctx.db, arn)) + len(text))
    if not repository.add_layer_statement(ctx.db, arn, sid, text):
        raise conflict(
            f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the "
            "existing statement."
        )
    return Reply({"Statement": text, "RevisionId": _revision(ctx, arn)}, 201)


def remove_layer_version_permission(core: Core, ctx: Context, params: Params) -> Outcome:
    arn, sid = _version(ctx, params), params["StatementId"]
    _check_revision(ctx, params, arn)
    if not repository.remove_layer_statement(ctx.db, arn, sid):
        raise not_found(f"Statement {sid} is not found in resource policy.")
    return Reply({}, 204)


def get_layer_version_policy(core: Core, ctx: Context, params: Params) -> Outcome:
    arn = _version(ctx, params)
    policy = document(ctx, arn)
    if policy is None:
        raise not_found("No policy is associated with the given resource.")
    return {"Policy": json.dumps(policy, separators=(",", ":")), "RevisionId": _revision(ctx, arn)}


OPERATIONS: dict[str, Operation] = {
    "AddLayerVersionPermission": add_layer_version_permission,
    "RemoveLayerVersionPermission": remove_layer_version_permission,
    "GetLayerVersionPolicy": get_layer_version_policy,
}

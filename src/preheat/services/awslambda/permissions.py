"""Resource policies of functions, versions and aliases."""

import json
import re
from dataclasses import replace
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, resource_missing
from preheat.services.awslambda.domain import (
    LATEST,
    FunctionName,
    check_revision,
    conflict,
    invalid,
    is_alias,
    not_found,
    parse_name,
    violation,
)
from preheat.services.constraints import check_choice, check_text
from preheat.services.contract import Context, Outcome, Params, Reply

MAX_POLICY_BYTES = 20_480
_TEXTS = {
    "Principal": (2_048, r"[^\s]+"),
    "SourceArn": (
        10_000,
        r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1})?:(\d{12})?:"
        r"(.*)",
    ),
    "SourceAccount": (12, r"\d{12}"),
    "EventSourceToken": (256, r"[a-zA-Z0-9._\-]+"),
    "PrincipalOrgID": (34, r"o-[a-z0-9]{10,32}"),
}
"""The most characters of a member, and its pattern."""
_SERVICES = (".amazonaws.com", ".amazonaws.com.cn", ".amazon.com")
"""How the names of services end; Alexa's are of amazon.com."""
_SID = re.compile(r"[a-zA-Z0-9-_]{1,100}")
_ACTION = re.compile(r"lambda:[*]|lambda:[a-zA-Z]+|[*]")


def policy_of(ctx: Context, function: FunctionName) -> dict | None:
    """The policy document of this function and qualifier, or None."""
    texts = repository.statements(ctx.db, function)
    if not texts:
        return None
    return {"Version": "2012-10-17", "Id": "default", "Statement": [json.loads(text) for text in texts]}


def _target(ctx: Context, params: Params) -> FunctionName:
    """What the policy lies with. Raises AwsError for $LATEST and for what does not exist."""
    function = parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier"))
    if function.qualifier == LATEST:
        raise invalid("We currently do not support adding policies for $LATEST.")
    return _found(ctx, function)


def _found(ctx: Context, function: FunctionName) -> FunctionName:
    """The function, and its version or alias, are there. Raises AwsError."""
    if not repository.exists(ctx.db, function):
        raise replace(function, qualifier=None).missing()
    qualifier = function.qualifier
    if qualifier is None or qualifier == LATEST:
        return function
    if is_alias(qualifier):
        if repository.alias_of(ctx.db, function, qualifier) is None:
            raise not_found(f"Cannot find alias arn: {function.qualified_arn}")
    elif repository.revision_of(ctx.db, function, qualifier) is None:
        raise function.missing()
    return function


def _revision(ctx: Context, function: FunctionName) -> str:
    """The RevisionId of the alias or version whose policy it is."""
    qualifier = function.qualifier or LATEST
    alias = repository.alias_of(ctx.db, function, qualifier)
    if alias is not None:
        return alias.revision
    version = repository.version_of(ctx.db, function, qualifier)
    if version is None:
        raise function.missing()
    return version.revision_id


def _changed(ctx: Context, function: FunctionName) -> str:
    """A policy has changed: so has the RevisionId of what it lies with."""
    qualifier, revision = function.qualifier or LATEST, ctx.entropy.uuid()
    alias = repository.alias_of(ctx.db, function, qualifier)
    if alias is not None:
        repository.save_alias(ctx.db, function, replace(alias, revision=revision))
    else:
        repository.save_policy_revision(ctx.db, function, qualifier, revision)
    return revision


def _principal(text: str) -> str | dict[str, str]:
    if text == "*":
        return "*"
    if text.isdigit() and len(text) == 12:
        return {"AWS": f"arn:aws:iam::{text}:root"}
    if text.startswith("arn:"):
        return {"AWS": text}
    if text.endswith(_SERVICES):
        return {"Service": text}
    raise invalid("The provided principal was invalid. Please check the principal and try again.")


def _conditions(params: Params) -> dict[str, dict[str, str]]:
    conditions: dict[str, dict[str, str]] = {}
    equals = {
        "AWS:SourceAccount": params.get("SourceAccount"),
        "lambda:EventSourceToken": params.get("EventSourceToken"),
        "lambda:FunctionUrlAuthType": params.get("FunctionUrlAuthType"),
        "aws:PrincipalOrgID": params.get("PrincipalOrgID"),
    }
    given = {key: value for key, value in equals.items() if value}
    if given:
        conditions["StringEquals"] = given
    if params.get("SourceArn"):
        conditions["ArnLike"] = {"AWS:SourceArn": params["SourceArn"]}
    if params.get("InvokedViaFunctionUrl") is not None:
        conditions["Bool"] = {"lambda:InvokedViaFunctionUrl": str(params["InvokedViaFunctionUrl"]).lower()}
    return conditions


def add_permission(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _target(ctx, params)
    sid, action = params["StatementId"], params["Action"]
    if not _SID.fullmatch(sid):
        raise violation(sid, "statementId", "Member must satisfy regular expression pattern: ([a-zA-Z0-9-_]+)")
    if not _ACTION.fullmatch(action):
        raise violation(
            action, "action", "Member must satisfy regular expression pattern: (lambda:[*]|lambda:[a-zA-Z]+|[*])"
        )
    check_choice(params, "FunctionUrlAuthType", ("NONE", "AWS_IAM"))
    for member, (most, pattern) in _TEXTS.items():
        check_text(params, member, most, pattern)
    if params.get("FunctionUrlAuthType") and action != "lambda:InvokeFunctionUrl":
        raise invalid("FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action")
    if params.get("RevisionId"):
        check_revision(params["RevisionId"], _revision(ctx, function))
    statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": _principal(params["Principal"]),
        "Action": action,
        "Resource": function.qualified_arn,
    }
    conditions = _conditions(params)
    if conditions:
        statement["Condition"] = conditions
    text = json.dumps(statement, separators=(",", ":"))
    check_length(sum(len(entry) for entry in repository.statements(ctx.db, function)) + len(text))
    if not repository.add_statement(ctx.db, function, sid, text):
        raise conflict(
            f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the "
            "existing statement."
        )
    _changed(ctx, function)
    return Reply({"Statement": text}, 201)


def check_length(size: int) -> None:
    """Raises AwsError for a policy of more than 20 KB."""
    if size > MAX_POLICY_BYTES:
        raise AwsError(
            "PolicyLengthExceededException",
            f"The final policy size ({size}) is bigger than the limit ({MAX_POLICY_BYTES}).",
            fields={"Type": "User"},
        )


def remove_permission(core: Core, ctx: Context, params: Params) -> Outcome:
    named = parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier"))
    if not repository.exists(ctx.db, named):
        raise not_found(f"No policy found for: {named.arn}")
    function = _found(ctx, named)
    sid = params["StatementId"]
    texts = repository.statements(ctx.db, function)
    if not texts:
        raise not_found("No policy is associated with the given resource.")
    if sid not in (json.loads(text).get("Sid") for text in texts):
        raise not_found(f"Statement {sid} is not found in resource policy.")
    check_revision(params.get("RevisionId"), _revision(ctx, function))
    repository.remove_statement(ctx.db, function, sid)
    _changed(ctx, function)
    return Reply({}, 204)


def get_policy(core: Core, ctx: Context, params: Params) -> Outcome:
    function = parse_name(params["FunctionName"], ctx.scope, params.get("Qualifier"))
    if not repository.exists(ctx.db, function):
        raise replace(function, qualifier=None).missing()
    policy = policy_of(ctx, function)
    if policy is None:
        raise resource_missing()
    return {"Policy": json.dumps(policy, separators=(",", ":")), "RevisionId": _revision(ctx, function)}


# -- the policy as a whole --------------------------------------------------------------------------------------------


def _resource(ctx: Context, params: Params) -> FunctionName:
    return _target(ctx, {"FunctionName": params["ResourceArn"]})


def _statements(document: str, arn: str) -> list[dict[str, Any]]:
    """The statements of a policy document for the resource `arn`, each with a Sid. Raises AwsError."""
    try:
        policy = json.loads(document)
        given = policy["Statement"]
    except (ValueError, KeyError, TypeError):
        raise invalid("The policy must be a JSON object with a Statement.") from None
    found = []
    for number, statement in enumerate(given if isinstance(given, list) else [given], 1):
        if not isinstance(statement, dict):
            raise invalid("Each statement of the policy must be a JSON object.")
        missing = [name for name in ("Effect", "Principal", "Action", "Resource") if not statement.get(name)]
        if missing:
            raise invalid(f"Statement {number} of the policy has no {missing[0]}.")
        if statement["Effect"] not in ("Allow", "Deny"):
            raise invalid(f"The Effect of statement {number} of the policy must be Allow or Deny.")
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        if any(resource != arn for resource in resources):
            raise invalid(f"The Resource of statement {number} of the policy must be {arn}.")
        found.append({"Sid": f"statement-{number}", **statement})
    if not found or len({statement["Sid"] for statement in found}) < len(found):
        raise invalid("The policy must have statements with different ids.")
    return found


def put_resource_policy(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _resource(ctx, params)
    statements = _statements(params["Policy"], function.qualified_arn)
    check_length(len(params["Policy"]))
    check_revision(params.get("RevisionId"), _revision(ctx, function))
    repository.clear_statements(ctx.db, function)
    for statement in statements:
        text = json.dumps(statement, separators=(",", ":"))
        repository.add_statement(ctx.db, function, statement["Sid"], text)
    _changed(ctx, function)
    return get_policy(core, ctx, {"FunctionName": params["ResourceArn"]})


def get_resource_policy(core: Core, ctx: Context, params: Params) -> Outcome:
    return get_policy(core, ctx, {"FunctionName": params["ResourceArn"]})


def delete_resource_policy(core: Core, ctx: Context, params: Params) -> Outcome:
    function = _resource(ctx, params)
    if not repository.statements(ctx.db, function):
        raise resource_missing()
    check_revision(params.get("RevisionId"), _revision(ctx, function))
    repository.clear_statements(ctx.db, function)
    _changed(ctx, function)
    return Reply({}, 204)


OPERATIONS: dict[str, Operation] = {
    "AddPermission": add_permission,
    "RemovePermission": remove_permission,
    "GetPolicy": get_policy,
    "PutResourcePolicy": put_resource_policy,
    "GetResourcePolicy": get_resource_policy,
    "DeleteResourcePolicy": delete_resource_policy,
}

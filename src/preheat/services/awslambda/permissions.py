"""Resource policies of functions, versions and aliases."""

import hashlib
import json
import re

from preheat.kernel.errors import AwsError
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, existing, resource_missing
from preheat.services.awslambda.domain import FunctionName, check_revision, conflict, invalid, not_found, violation
from preheat.services.contract import Context, Outcome, Params, Reply

MAX_POLICY_BYTES = 20_480
_SID = re.compile(r"[a-zA-Z0-9-_]{1,100}")
_ACTION = re.compile(r"lambda:[*]|lambda:[a-zA-Z]+|[*]")


def policy_of(ctx: Context, function: FunctionName) -> dict | None:
    """The policy document of this function and qualifier, or None."""
    texts = repository.statements(ctx.db, function)
    if not texts:
        return None
    return {"Version": "2012-10-17", "Id": "default", "Statement": [json.loads(text) for text in texts]}


def _revision(ctx: Context, function: FunctionName) -> str:
    digest = hashlib.sha256("\n".join(repository.statements(ctx.db, function)).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def _principal(text: str) -> str | dict[str, str]:
    if text == "*":
        return "*"
    if text.isdigit() and len(text) == 12:
        return {"AWS": f"arn:aws:iam::{text}:root"}
    if text.startswith("arn:"):
        return {"AWS": text}
    if "." in text:
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
    function = existing(ctx, params)
    sid, action = params["StatementId"], params["Action"]
    if not _SID.fullmatch(sid):
        raise violation(sid, "statementId", "Member must satisfy regular expression pattern: ([a-zA-Z0-9-_]+)")
    if not _ACTION.fullmatch(action):
        raise violation(
            action, "action", "Member must satisfy regular expression pattern: (lambda:[*]|lambda:[a-zA-Z]+|[*])"
        )
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
    size = sum(len(entry) for entry in repository.statements(ctx.db, function)) + len(text)
    if size > MAX_POLICY_BYTES:
        raise AwsError(
            "PolicyLengthExceededException",
            f"The final policy size ({size}) is bigger than the limit ({MAX_POLICY_BYTES}).",
            fields={"Type": "User"},
        )
    if not repository.add_statement(ctx.db, function, sid, text):
        raise conflict(
            f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the "
            "existing statement."
        )
    return Reply({"Statement": text}, 201)


def remove_permission(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    sid = params["StatementId"]
    if params.get("RevisionId"):
        check_revision(params["RevisionId"], _revision(ctx, function))
    if not repository.statements(ctx.db, function):
        raise not_found("No policy is associated with the given resource.")
    if not repository.remove_statement(ctx.db, function, sid):
        raise not_found(f"Statement {sid} is not found in resource policy.")
    return Reply({}, 204)


def get_policy(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    policy = policy_of(ctx, function)
    if policy is None:
        raise resource_missing()
    return {"Policy": json.dumps(policy, separators=(",", ":")), "RevisionId": _revision(ctx, function)}


OPERATIONS: dict[str, Operation] = {
    "AddPermission": add_permission,
    "RemovePermission": remove_permission,
    "GetPolicy": get_policy,
}

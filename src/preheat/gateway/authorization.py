"""May they: the policies of `preheat serve --iam enforce`. Called inside the transaction, before the operation.

    Authorizer(machine, identify)(ctx, service, operation, params)      raises the denial of the service's protocol
    authorize_url(ctx, request, url)                                    the same for function URLs

Root users and Preheat acting for an AWS service are always allowed. Users and role sessions need an allow of their own
policies or of the resource's; an anonymous caller needs the resource's.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from preheat.gateway.actions.need import Keys, Need
from preheat.gateway.actions.table import needs
from preheat.gateway.resource_policies import ResourcePolicies
from preheat.identity import policy, sigv4
from preheat.identity.policy import Decision, MalformedPolicy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.scope import Scope
from preheat.kernel.secure import is_secure
from preheat.services.awslambda.urls import FunctionUrl
from preheat.services.contract import Context, Params, Principal
from preheat.services.iam.service import PolicySet
from preheat.services.machine import Machine

UNCHECKED = ("root", "service")
PLAIN_DENIAL = ("s3", "iam", "sts", "cloudformation")
BAD_REQUEST = ("dynamodb", "logs", "ssm", "secretsmanager")
"""Services whose denial is an HTTP 400; the others answer 403."""


class Authorizer:
    def __init__(self, machine: Machine) -> None:
        self._iam: Any = machine.services["iam"]
        self._resources = ResourcePolicies(machine.services)

    def __call__(self, ctx: Context, service: str, operation: str, params: Params) -> None:
        principal = ctx.principal
        if principal.kind in UNCHECKED:
            return
        try:
            wanted = needs(ctx, service, operation, params)
        except KeyError:
            wanted = [Need(f"{service}:{operation}", "*", {})]
        if wanted is None:
            text = f"User: {principal.arn} is not authorized to perform: {service}:{operation}"
            raise denial(service, f"{text}, for which Preheat has no rule")
        if not wanted:
            return
        known = self._iam.policies_for(ctx, principal)
        shared = {**request_keys(ctx), **tag_keys(params), **known.context}
        for need in wanted:
            self._check(ctx, service, principal, known, shared, need)

    def allow(self, ctx: Context, service: str, principal: Principal, wanted: list[Need]) -> None:
        """Check needs that come from no operation. Raises AwsError."""
        known = self._iam.policies_for(ctx, principal)
        shared = {**request_keys(ctx), **known.context}
        for need in wanted:
            self._check(ctx, service, principal, known, shared, need)

    def _check(
        self, ctx: Context, service: str, principal: Principal, known: PolicySet, shared: Keys, need: Need
    ) -> None:
        resource = self._resources.of(ctx, need.action, need.resource)
        owner = resource.owner or principal.account
        context = {**shared, **need.context, "aws:resourceaccount": [owner]}
        request = policy.Request(
            need.action, need.resource, principal.arn, principal.account, known.principals, context
        )
        if resource.blocked and (principal.kind == "anonymous" or principal.account != owner):
            resource = resource.without_public()
        try:
            decision = decide(request, known, resource.documents, owner)
        except MalformedPolicy:
            decision = Decision(False, True, "resource-based")
        if decision.allowed:
            return
        if service == "s3" and (principal.kind == "anonymous" or principal.account != owner):
            raise denial(service, "Access Denied")
        raise denial(service, _words(service, decision, request))


def decide(request: policy.Request, known: PolicySet, documents: tuple[str, ...], owner: str) -> Decision:
    """The decision on one need. A resource policy that names only the caller's own account leaves it to the account's
    identity policies; it allows by itself when it names the caller, its role or everybody."""

    def evaluate(asked: policy.Request, owner: str | None) -> Decision:
        return policy.evaluate(
            asked, identity=known.identity, resource=documents, boundary=known.boundary, session=known.session,
            resource_account=owner,
        )  # fmt: skip

    if request.principal == "anonymous":
        said = policy.effect(documents, request)
        return Decision(said == "allow", said != "implicit", "resource-based")
    decision = evaluate(request, owner)
    if decision.allowed and decision.source == "resource-based" and owner == request.account:
        unnamed = policy.Request(
            request.action, request.resource, request.principal, "", request.principals, request.context
        )
        return evaluate(unnamed, None)
    return decision


# -- condition keys ---------------------------------------------------------------------------------------------------


def request_keys(ctx: Context) -> Keys:
    """The condition keys that every request has."""
    now = datetime.fromtimestamp(ctx.now, UTC)
    keys = {
        "aws:currenttime": [now.strftime("%Y-%m-%dT%H:%M:%SZ")],
        "aws:epochtime": [str(int(ctx.now))],
        "aws:requestedregion": [ctx.scope.region],
        "aws:securetransport": ["true" if is_secure(ctx.request) else "false"],
        "aws:viaawsservice": ["true" if ctx.request is None else "false"],
    }
    if ctx.request is not None:
        keys["aws:sourceip"] = [ctx.request.peer]
        for key, header in (("aws:useragent", "user-agent"), ("aws:referer", "referer")):
            if header in ctx.request.headers:
                keys[key] = [ctx.request.headers[header]]
    return keys


def tag_keys(params: Params) -> Keys:
    """aws:RequestTag/x and aws:TagKeys of a request that gives or takes tags, in whichever form its service has."""
    given = next((params[name] for name in ("Tags", "tags", "Tag") if params.get(name)), None)
    if given is None:
        named = next((params[name] for name in ("TagKeys", "tagKeys") if params.get(name)), None)
        return {"aws:tagkeys": list(named)} if named else {}
    if isinstance(given, dict):
        tags = {str(key): str(value) for key, value in given.items()}
    else:
        tags = {entry.get("Key", entry.get("key", "")): entry.get("Value", entry.get("value", "")) for entry in given}
    return {"aws:tagkeys": list(tags)} | {f"aws:requesttag/{key.lower()}": [value] for key, value in tags.items()}


# -- saying no --------------------------------------------------------------------------------------------------------


def _words(service: str, decision: Decision, request: policy.Request) -> str:
    if request.action == "sts:AssumeRole":
        start = f"User: {request.principal} is not authorized to perform: {request.action}"
        return f"{start} on resource: {request.resource}"
    message = decision.message(request)
    if service == "s3":
        message = message.replace(f"on resource: {request.resource}", f'on resource: "{request.resource}"')
    return message.replace(request.action, request.action.lower()) if service == "sqs" else message


def denial(service: str, message: str) -> AwsError:
    """AWS's error of one service."""
    if service in PLAIN_DENIAL:
        return AwsError("AccessDenied", message, 403)
    if service == "sqs":
        return AwsError("AccessDeniedException", message, 403, query_code="AccessDenied")
    if service == "sns":
        return AwsError("AuthorizationError", message, 403)
    return AwsError("AccessDeniedException", message, 400 if service in BAD_REQUEST else 403)


# -- function URLs ----------------------------------------------------------------------------------------------------

Identify = Callable[[HttpRequest], Principal]
ANONYMOUS = Principal("anonymous", "", "anonymous")


class UrlAuthorizer:
    """`authorize(ctx, request, url)` of the function URL door: the `authorizer` member of the event for AWS_IAM, None
    for NONE. Without an Authorizer (policies are off) everybody may; an AWS_IAM URL still tells who called."""

    def __init__(self, identify: Identify, authorizer: Authorizer | None) -> None:
        self._identify = identify
        self._authorizer = authorizer

    def __call__(self, ctx: Context, request: HttpRequest, url: FunctionUrl) -> dict[str, Any] | None:
        """Raises AwsError 403."""
        principal = self._identify(request) if url.auth_type == "AWS_IAM" else ANONYMOUS
        if self._authorizer is not None and principal.kind not in UNCHECKED:
            arn = url.scope.arn("lambda", f"function:{url.function_name}")
            arn = f"{arn}:{url.qualifier}" if url.qualifier else arn
            wanted = [
                Need("lambda:InvokeFunctionUrl", arn, {"lambda:functionurlauthtype": [url.auth_type]}),
                Need("lambda:InvokeFunction", arn, {"lambda:invokedviafunctionurl": ["true"]}),
            ]
            inner = Context(url.scope, ctx.now, ctx.db, principal, ctx.request_id, ctx.machine, request)
            self._authorizer.allow(inner, "lambda", principal, wanted)
        if url.auth_type != "AWS_IAM":
            return None
        return {
            "iam": {
                "accessKey": principal.access_key,
                "accountId": principal.account,
                "callerId": principal.user_id,
                "cognitoIdentity": None,
                "principalOrgId": None,
                "userArn": principal.arn,
                "userId": principal.user_id,
            }
        }


# -- the connections API of WebSocket APIs -----------------------------------------------------------------------------


class ConnectionsAuthorizer:
    """`authorize(ctx, request, scope, resource)`: whether the signer may manage connections of an API. `resource` is
    api/stage/METHOD/@connections/id."""

    def __init__(self, identify: Identify, authorizer: Authorizer | None) -> None:
        self._identify = identify
        self._authorizer = authorizer

    def __call__(self, ctx: Context, request: HttpRequest, scope: Scope, resource: str) -> None:
        """Raises AwsError 403."""
        if sigv4.parse(request) is None:
            raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        principal = self._identify(request)
        if self._authorizer is not None and principal.kind not in UNCHECKED:
            wanted = [Need("execute-api:ManageConnections", scope.arn("execute-api", resource), {})]
            inner = Context(scope, ctx.now, ctx.db, principal, ctx.request_id, ctx.machine, request)
            self._authorizer.allow(inner, "execute-api", principal, wanted)

"""Deployed APIs: `<api>.execute-api.<region>.localhost` (or amazonaws.com), or the path
`/_aws/execute-api/<api>/...` where names cannot be resolved. What follows is the path, stage first unless $default."""

import re
from dataclasses import replace
from typing import Any

import msgspec

from preheat.execution.contract import Throttled
from preheat.gateway.addressing import Address
from preheat.gateway.connection import Exchange
from preheat.gateway.http_events import (
    TEXT_TYPE,
    Cors,
    Origin,
    event_v1,
    event_v2,
    is_preflight,
)
from preheat.gateway.invoking import answer, invoke_buffered, plain, returned, run_step, within
from preheat.gateway.socket_api import SocketApi
from preheat.gateway.stage_rules import StageRules
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.scope import Scope
from preheat.services.apigatewayv2.domain import bad, function_of, map_parameter, select_route
from preheat.services.apigatewayv2.repository import Deployed
from preheat.services.contract import Context, Outcome
from preheat.services.machine import Machine

ADDRESS = Address("execute-api", ("localhost", "amazonaws.com"), "/_aws/execute-api/")
STEPS = re.compile(r"[^.\[\]]+")
MAX_PAYLOAD = 10 * 1024 * 1024
ERRORS = {404: "Not Found", 413: "Request Entity Too Large", 429: "Too Many Requests", 500: "Internal Server Error",
          503: "Service Unavailable"}  # fmt: skip


class ExecuteApiDoor:
    """`apis` is the API Gateway service, `functions` the Lambda service. WebSocket APIs are `sockets`'s."""

    def __init__(
        self, machine: Machine, apis: Any, functions: Any, entropy: Entropy, rules: StageRules, sockets: SocketApi
    ) -> None:
        self._machine = machine
        self._apis = apis
        self._functions = functions
        self._entropy = entropy
        self._rules = rules
        self._sockets = sockets

    def matches(self, request: HttpRequest) -> bool:
        return ADDRESS.matches(request)

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        api_id, path = ADDRESS.split(request)
        request_id = self._entropy.uuid()
        cors: list[Cors] = []

        def decorate(response: HttpResponse) -> None:
            response.headers.append(("apigw-requestid", request_id))
            if cors:
                cors[0].apply(response, request.headers.get("origin"))

        def step(ctx: Context) -> Outcome:
            found = self._stage(api_id, path)
            if found is None:
                return answer(_error(404))
            deployed, inner = found
            if deployed.api["ProtocolType"] == "WEBSOCKET":
                return self._sockets.enter(ctx, exchange, deployed, inner, request_id)
            rules = Cors.of(deployed.api.get("CorsConfiguration"))
            if rules is not None:
                if is_preflight(request):
                    headers = rules.headers_for(request.headers.get("origin"), preflight=True)
                    return answer(HttpResponse(204, headers))
                cors.append(rules)
            return self._route(ctx, request, deployed, inner, path, request_id)

        run_step(self._machine, exchange, step, lambda error: _error(500), decorate)

    def _stage(self, api_id: str, path: str) -> tuple[Deployed, str] | None:
        first, _, rest = path[1:].partition("/")
        named = self._apis.deployed(api_id, first) if first else None
        if named is not None:
            return named, "/" + rest
        default = self._apis.deployed(api_id, "$default")
        return None if default is None else (default, path)

    def _route(
        self, ctx: Context, request: HttpRequest, deployed: Deployed, inner: str, path: str, request_id: str
    ) -> Outcome:
        selected = select_route(deployed.routes, request.method, inner)
        if selected is None:
            return answer(_error(404))
        route, parameters = selected
        if len(request.body) > MAX_PAYLOAD:
            return answer(_error(413))
        if not self._rules.admit(ctx.now, deployed, route):
            return answer(_error(429))
        integration = deployed.integrations.get(route.target)
        if integration is None:
            return answer(_error(500))
        stage = deployed.stage
        origin = Origin(
            deployed.scope.account, deployed.api["ApiId"], ADDRESS.domain(request), stage["StageName"],
            route.key, path, request_id, ctx.now, parameters or None, stage.get("StageVariables") or None,
            resource=route.key.partition(" ")[2] or "$default",
        )  # fmt: skip
        if integration.get("IntegrationSubtype"):
            return self._send_message(replace(ctx, scope=deployed.scope), request, origin, integration)
        return self._invoke(ctx, request, origin, integration)

    # -- Lambda ---------------------------------------------------------------------------------------------------

    def _invoke(self, ctx: Context, request: HttpRequest, origin: Origin, integration: dict[str, Any]) -> Outcome:
        name = function_of(integration["IntegrationUri"])
        second = integration["PayloadFormatVersion"] == "2.0"
        target = self._functions.target(ctx, name)
        inner = origin.path if origin.stage == "$default" else origin.path.removeprefix(f"/{origin.stage}")
        source = f"{origin.api_id}/{origin.stage}/{request.method}{inner}"
        if not self._rules.may_invoke(ctx, target.invoked_arn, origin.account, source):
            return answer(_error(500))
        event = event_v2(request, origin) if second else event_v1(request, origin)

        def settle(ended: Any) -> HttpResponse:
            if isinstance(ended, Throttled):
                return _error(503)
            return returned(ended, infer=second, default_type=TEXT_TYPE) or _error(500)

        deferred = invoke_buffered(self._functions, target, msgspec.json.encode(event), origin.request_id, settle)
        until = ctx.now + integration["TimeoutInMillis"] / 1_000
        return within(self._machine, deferred, until, lambda: _error(503))

    # -- SQS ------------------------------------------------------------------------------------------------------

    def _send_message(self, ctx: Context, request: HttpRequest, origin: Origin, integration: dict[str, Any]) -> Outcome:
        lookup = _Lookup(request, origin)
        params: dict[str, Any] = {}
        try:
            for name, template in integration["RequestParameters"].items():
                value = map_parameter(str(template), lookup)
                if name == "DelaySeconds":
                    params[name] = _whole(name, value)
                elif name in ("MessageAttributes", "MessageSystemAttributes"):
                    params[name] = _json_object(name, value)
                elif name == "Region":
                    ctx = replace(ctx, scope=Scope(ctx.scope.account, value))
                elif value:
                    params[name] = value
            sent = ctx.call("sqs", "SendMessage", params)
        except AwsError as error:
            return answer(plain(error.status, {"message": error.message, "code": error.query_code or error.code}))
        body = (
            '<?xml version="1.0"?><SendMessageResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/">'
            f"<SendMessageResult><MessageId>{sent['MessageId']}</MessageId>"
            f"<MD5OfMessageBody>{sent['MD5OfMessageBody']}</MD5OfMessageBody></SendMessageResult><ResponseMetadata>"
            f"<RequestId>{origin.request_id}</RequestId></ResponseMetadata></SendMessageResponse>"
        )
        return answer(HttpResponse(200, [("Content-Type", "text/xml")], body.encode()))


class _Lookup:
    """Values of mapping expressions: request.body, request.body.x.y[0], request.header.x, request.querystring.x,
    request.path, request.path.x, context.x, stageVariables.x."""

    def __init__(self, request: HttpRequest, origin: Origin) -> None:
        self._request = request
        self._origin = origin

    def __call__(self, name: str) -> str | None:
        kind, _, rest = name.partition(".")
        if kind == "stageVariables":
            return (self._origin.stage_variables or {}).get(rest)
        if kind == "context":
            return self._context(rest)
        part, _, key = rest.partition(".")
        if part == "header":
            return self._request.headers.get(key.lower())
        if part == "querystring":
            values = [value for argument, value in self._request.arguments() if argument == key]
            return ",".join(values) if values else None
        if part == "path":
            return (self._origin.path_parameters or {}).get(key) if key else self._origin.path
        return self._body(key) if part == "body" else None

    def _context(self, name: str) -> str | None:
        origin = self._origin
        return {
            "requestId": origin.request_id, "apiId": origin.api_id, "stage": origin.stage, "accountId": origin.account,
            "routeKey": origin.route_key, "domainName": origin.domain, "path": origin.path,
            "identity.sourceIp": self._request.peer, "httpMethod": self._request.method,
        }.get(name)  # fmt: skip

    def _body(self, key: str) -> str | None:
        text = self._request.body.decode("utf-8", "replace")
        if not key:
            return text
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return None
        for step in STEPS.findall(key):
            if isinstance(value, list):
                value = dict(enumerate(value)).get(int(step)) if step.isdigit() else None
            else:
                value = value.get(step) if isinstance(value, dict) else None
        if value is None or isinstance(value, str):
            return value
        return msgspec.json.encode(value).decode()


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise bad(f"Invalid value for {name}: {text}")
    return int(text)


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = None
    if not isinstance(value, dict):
        raise bad(f"Invalid value for {name}: {text}")
    return value


def _error(status: int) -> HttpResponse:
    return plain(status, {"message": ERRORS[status]})

"""Deployed WebSocket APIs: the handshake and $connect, messages to their routes, $disconnect, and the connections API
(`<stage>/@connections/<id>`), by which functions write to clients. Connections live in this process and end with it.

Shapes and limits: aws_facts 1.18, 5.1, 5.5.
"""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from preheat.execution.contract import Throttled
from preheat.gateway.connection import REASONS, Exchange
from preheat.gateway.http_events import TEXT_TYPE, clf_time, forwarded
from preheat.gateway.invoking import answer, invoke_buffered, plain, returned, within
from preheat.gateway.stage_rules import StageRules
from preheat.gateway.websocket import (
    ABNORMAL,
    GOING_AWAY,
    MESSAGE_BYTES,
    NORMAL,
    RESTART,
    TOO_MANY,
    BadOffer,
    WebSocket,
    offer_of,
)
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.scope import Scope
from preheat.services.apigatewayv2.domain import Route, function_of
from preheat.services.apigatewayv2.repository import Deployed
from preheat.services.apigatewayv2.sockets import (
    CONNECT,
    DEFAULT,
    DISCONNECT,
    find_route,
    mock_status,
    selected_key,
)
from preheat.services.contract import Context, Outcome, Reply, Wait
from preheat.services.machine import Machine

IDLE_S = 600.0
LONGEST_S = 7_200.0
MESSAGES_AT_ONCE = 1_000
"""Messages of one connection that wait for their answers; a client that sends more is too many."""
CONNECTION_ID = re.compile(r"[A-Za-z0-9_-]{15}=\Z")
COMMANDS = "/@connections/"
INTERNAL = "Internal server error"
PREFIX = "/_aws/execute-api/"
Authorize = Callable[[Context, HttpRequest, Scope, str], None]
Settle = Callable[[HttpResponse | None], Any]


class Live:
    """One client. `request` is its handshake; times are epoch seconds."""

    def __init__(self, api: "SocketApi", deployed: Deployed, request: HttpRequest, identity: str, now: float) -> None:
        self._api = api
        self.id = identity
        self.api_id, self.stage, self.scope = deployed.api["ApiId"], deployed.stage["StageName"], deployed.scope
        self.request = request
        self.connected_at = self.active_at = now
        self.waiting = 0
        self.socket: WebSocket | None = None
        self.timer: Any = None

    def message(self, text: str) -> None:
        self._api.message(self, text)

    def seen(self) -> None:
        self.active_at = self._api.now()

    def ended(self, code: int, reason: str) -> None:
        self._api.ended(self, code, reason)

    def event(self, route: str, kind: str, request_id: str, now: float, variables: Any) -> dict[str, Any]:
        """What every route's function is told. `domainName` is one that the function can reach, to call back: where
        names below localhost are not resolved, only the form with the API in the path is."""
        context = {
            "routeKey": route, "eventType": kind, "extendedRequestId": request_id, "requestTime": clf_time(now),
            "messageDirection": "IN", "stage": self.stage, "connectedAt": int(self.connected_at * 1_000),
            "requestTimeEpoch": int(now * 1_000), "requestId": request_id, "connectionId": self.id,
            "identity": {"sourceIp": self.request.peer, "userAgent": self.request.headers.get("user-agent")},
            "domainName": f"{self._api.authority}{PREFIX}{self.api_id}", "apiId": self.api_id,
        }  # fmt: skip
        event: dict[str, Any] = {"requestContext": context, "isBase64Encoded": False}
        if variables:
            event["stageVariables"] = variables
        return event


class SocketApi:
    """`apis` is the API Gateway service, `functions` the Lambda service, `authorize` the connections API's; functions
    reach the platform at `authority` (host:port)."""

    def __init__(
        self, machine: Machine, apis: Any, functions: Any, entropy: Entropy, rules: StageRules, authorize: Authorize,
        authority: str,
    ) -> None:  # fmt: skip
        self.authority = authority
        self._machine = machine
        self._apis = apis
        self._functions = functions
        self._entropy = entropy
        self._rules = rules
        self._authorize = authorize
        self._live: dict[str, Live] = {}

    def now(self) -> float:
        return self._machine.clock.now()

    def close(self) -> None:
        """The server stops: every client is told so. No function hears of it."""
        live, self._live = list(self._live.values()), {}
        for one in live:
            if one.socket is not None:
                one.socket.close(RESTART, "the server stops")

    def enter(self, ctx: Context, exchange: Exchange, deployed: Deployed, path: str, request_id: str) -> Outcome:
        """A request to a WebSocket API's stage: the connections API, or a client's handshake."""
        inner = unquote(path)
        if inner.startswith(COMMANDS):
            return answer(self._command(ctx, exchange.request, deployed, inner[len(COMMANDS) :]))
        if inner.strip("/"):
            return answer(plain(403, {"message": "Forbidden"}))
        if exchange.offered is None:
            return answer(plain(426, {"message": "Upgrade Required"}, ("Upgrade", "websocket")))
        try:
            offer = offer_of(exchange.request)
        except BadOffer as error:
            return answer(plain(400, {"message": f"Bad Request: {error}"}))
        return self._connect(ctx, exchange, deployed, offer, request_id)

    # -- a client comes -------------------------------------------------------------------------------------------

    def _connect(
        self, ctx: Context, exchange: Exchange, deployed: Deployed, offer: Any, request_id: str
    ) -> Outcome:
        identity = base64.urlsafe_b64encode(self._entropy.bytes(11)).decode()
        live = Live(self, deployed, exchange.request, identity, ctx.now)
        exchange.on_gone = None
        self._count(live, "ConnectCount")
        route = find_route(deployed.routes, CONNECT)
        if route is None:
            return answer(self._accept(live, exchange, offer, None))
        if not self._rules.admit(ctx.now, deployed, route):
            self._count(live, "ClientError")
            return answer(plain(429, {"message": "Too Many Requests"}))
        request = exchange.request
        headers = forwarded(request, dict(request.headers))
        event = live.event(CONNECT, "CONNECT", request_id, ctx.now, deployed.stage.get("StageVariables"))
        event |= {"headers": headers, "multiValueHeaders": {name: [value] for name, value in headers.items()}}
        several: dict[str, list[str]] = {}
        for name, value in request.arguments():
            several.setdefault(name, []).append(value)
        if several:
            event["queryStringParameters"] = {name: values[-1] for name, values in several.items()}
            event["multiValueQueryStringParameters"] = several

        def settle(response: HttpResponse | None) -> HttpResponse | None:
            if response is None:
                return plain(502, _error(live, INTERNAL, request_id))
            if 200 <= response.status < 300:
                chosen = dict(response.headers).get("sec-websocket-protocol")
                return self._accept(live, exchange, offer, chosen)
            text = REASONS.get(response.status, "Forbidden")
            return plain(response.status, _error(live, text, request_id))

        return self._invoke(ctx, live, deployed, route, event, settle)

    def _accept(self, live: Live, exchange: Exchange, offer: Any, subprotocol: str | None) -> None:
        """Answer the handshake. A client that has not waited for it leaves as one that was there."""
        self._live[live.id] = live
        if exchange.gone:
            live.ended(ABNORMAL, "")
            return
        live.socket = WebSocket(offer, exchange, live)
        self._watch(live)
        live.socket.accept(subprotocol)

    def _watch(self, live: Live) -> None:
        """Look again when the connection may have been idle, or there, for too long."""
        until = min(live.active_at + IDLE_S, live.connected_at + LONGEST_S)

        def look(reply: Any) -> None:
            if live.id not in self._live or live.socket is None:
                return
            if self.now() >= min(live.active_at + IDLE_S, live.connected_at + LONGEST_S):
                live.socket.close(GOING_AWAY, "Going away")
            else:
                self._watch(live)

        live.timer = self._machine.perform(lambda ctx: Wait((), until, lambda inner: {}), look)

    # -- a client writes ------------------------------------------------------------------------------------------

    def message(self, live: Live, text: str) -> None:
        """Take a message to its route; what comes of it is sent to the client when there is something to say."""
        if live.waiting >= MESSAGES_AT_ONCE:
            if live.socket is not None:
                live.socket.close(TOO_MANY, "too many requests")
            return
        live.waiting += 1
        request_id = self._entropy.uuid()
        self._count(live, "MessageCount")

        def done(result: Reply | AwsError) -> None:
            live.waiting -= 1
            failed = isinstance(result, AwsError)
            told = _error(live, INTERNAL, request_id) if failed else result.output["response"]
            if told is not None and live.socket is not None:
                live.socket.send(told if isinstance(told, str) else msgspec.json.encode(told).decode())

        self._machine.perform(lambda ctx: self._route(ctx, live, text, request_id), done)

    def _route(self, ctx: Context, live: Live, text: str, request_id: str) -> Outcome:
        deployed = self._apis.deployed(live.api_id, live.stage)
        route = None
        if deployed is not None:
            key = selected_key(deployed.api["RouteSelectionExpression"], text)
            reserved = key in (CONNECT, DISCONNECT)
            route = find_route(deployed.routes, None if reserved else key) or find_route(deployed.routes, DEFAULT)
        if deployed is None or route is None:
            self._count(live, "ClientError")
            return answer(_error(live, "Forbidden", request_id))
        if not self._rules.admit(ctx.now, deployed, route):
            self._count(live, "ClientError")
            return answer(_error(live, "Too Many Requests", request_id))
        event = live.event(route.key, "MESSAGE", request_id, ctx.now, deployed.stage.get("StageVariables"))
        event["requestContext"]["messageId"] = base64.urlsafe_b64encode(self._entropy.bytes(11)).decode()
        event["body"] = text
        tells = deployed.tells(route)

        def settle(response: HttpResponse | None) -> Any:
            if response is None:
                return _error(live, INTERNAL, request_id)
            body = response.body if isinstance(response.body, bytes) else b""
            return body.decode("utf-8", "replace") if tells and body else None

        return self._invoke(ctx, live, deployed, route, event, settle)

    # -- a client leaves ------------------------------------------------------------------------------------------

    def ended(self, live: Live, code: int, reason: str) -> None:
        """Tell the $disconnect route, best effort."""
        if self._live.pop(live.id, None) is None:
            return
        if live.timer is not None:
            self._machine.cancel(live.timer)
        request_id = self._entropy.uuid()

        def step(ctx: Context) -> Outcome:
            deployed = self._apis.deployed(live.api_id, live.stage)
            route = None if deployed is None else find_route(deployed.routes, DISCONNECT)
            if route is None:
                return answer(None)
            event = live.event(DISCONNECT, "DISCONNECT", request_id, ctx.now, deployed.stage.get("StageVariables"))
            event["requestContext"] |= {"disconnectStatusCode": code, "disconnectReason": reason}
            host = live.request.headers.get("host", "")
            event |= {"headers": {"Host": host}, "multiValueHeaders": {"Host": [host]}}
            return self._invoke(ctx, live, deployed, route, event, lambda response: None)

        self._machine.perform(step, lambda result: None)

    # -- routes ---------------------------------------------------------------------------------------------------

    def _invoke(
        self, ctx: Context, live: Live, deployed: Deployed, route: Route, event: dict[str, Any], settle: Settle
    ) -> Outcome:
        """`settle` gets the integration's response, None when it failed or came too late."""
        integration = deployed.integrations.get(route.target)
        if integration is None:
            self._count(live, "ExecutionError")
            return answer(settle(None))
        if integration["IntegrationType"] == "MOCK":
            return answer(settle(HttpResponse(mock_status(integration), [])))
        target = self._functions.target(ctx, function_of(integration["IntegrationUri"]))
        source = f"{live.api_id}/{live.stage}/{route.key}"
        if not self._rules.may_invoke(ctx, target.invoked_arn, deployed.scope.account, source):
            self._count(live, "ExecutionError")
            return answer(settle(None))
        begun = ctx.now

        def ended(outcome: Any) -> Any:
            failed = outcome is None or isinstance(outcome, Throttled)
            response = None if failed else returned(outcome, infer=False, default_type=TEXT_TYPE)
            self._count(live, "IntegrationLatency", (self.now() - begun) * 1_000, "Milliseconds")
            if response is None or response.status >= 400:
                self._count(live, "IntegrationError")
            return settle(response)

        request_id = event["requestContext"]["requestId"]
        deferred = invoke_buffered(self._functions, target, msgspec.json.encode(event), request_id, ended)
        until = ctx.now + integration["TimeoutInMillis"] / 1_000
        return within(self._machine, deferred, until, lambda: ended(None))

    def _count(self, live: Live, name: str, value: float = 1.0, unit: str = "Count") -> None:
        record = self._machine.meter.record
        record(live.scope, "AWS/ApiGateway", name, value, unit, ApiId=live.api_id)
        record(live.scope, "AWS/ApiGateway", name, value, unit, ApiId=live.api_id, Stage=live.stage)

    # -- the connections API --------------------------------------------------------------------------------------

    def _command(self, ctx: Context, request: HttpRequest, deployed: Deployed, identity: str) -> HttpResponse:
        api_id, stage = deployed.api["ApiId"], deployed.stage["StageName"]
        resource = f"{api_id}/{stage}/{request.method}{COMMANDS}{identity}"
        try:
            self._authorize(ctx, request, deployed.scope, resource)
        except AwsError as error:
            return _refusal(error.status, error.code, error.message)
        if not CONNECTION_ID.match(identity):
            return _refusal(400, "BadRequestException", f"Invalid connectionId: {identity}")
        live = self._live.get(identity)
        if live is None or (live.api_id, live.stage) != (api_id, stage) or live.socket is None or not live.socket.alive:
            return _refusal(410, "GoneException", None)
        if request.method == "POST":
            return self._post(live, request.body)
        if request.method == "DELETE":
            live.socket.close(NORMAL, "Connection Closed Normally")
            return HttpResponse(204, [])
        if request.method == "GET":
            identities = {"sourceIp": live.request.peer, "userAgent": live.request.headers.get("user-agent", "")}
            times = {"connectedAt": _iso(live.connected_at), "lastActiveAt": _iso(live.active_at)}
            return plain(200, {**times, "identity": identities})
        return _refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")

    def _post(self, live: Live, data: bytes) -> HttpResponse:
        if len(data) > MESSAGE_BYTES:
            return _refusal(413, "PayloadTooLargeException", "Message too long")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return _refusal(400, "BadRequestException", "The message is not UTF-8 text")
        assert live.socket is not None
        if not live.socket.send(text):
            return _refusal(429, "LimitExceededException", "The client's buffer is full")
        live.active_at = self.now()
        self._count(live, "MessageCount")
        return HttpResponse(200, [])


def _error(live: Live, message: str, request_id: str) -> dict[str, str]:
    return {"message": message, "connectionId": live.id, "requestId": request_id}


def _refusal(status: int, code: str, message: str | None) -> HttpResponse:
    return plain(status, {"message": message}, ("x-amzn-ErrorType", code))


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

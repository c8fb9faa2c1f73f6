"""Rules of WebSocket APIs, pure: which route a message takes, and what their integrations may be."""

import re
from typing import Any

import msgspec

from preheat.services.apigatewayv2.domain import Route, bad, function_of

CONNECT, DISCONNECT, DEFAULT = "$connect", "$disconnect", "$default"
BODY = re.compile(r"\$\{request\.body((?:\.[A-Za-z0-9_-]+)*)\}|\$request\.body((?:\.[A-Za-z0-9_-]+)*)")
LONGEST_KEY = 128
LONGEST_TIMEOUT_MS = 29_000


def check_selection(expression: str | None) -> None:
    """Raises BadRequestException unless a route can be read off a message."""
    if not expression:
        raise bad("RouteSelectionExpression is required for WebSocket APIs, for example $request.body.action")
    if "$" in BODY.sub("", expression):
        raise bad(f"Invalid route selection expression {expression}: only $request.body and its members can be read")


def make_socket_route(document: dict[str, Any]) -> Route:
    target = (document.get("Target") or "").removeprefix("integrations/")
    return Route(document["RouteId"], document["RouteKey"], "", (), target, document)


def check_key(key: str) -> None:
    if not key or len(key) > LONGEST_KEY or (key[0] == "$" and key not in (CONNECT, DISCONNECT, DEFAULT)):
        raise bad(f"Invalid route key {key}: {CONNECT}, {DISCONNECT}, {DEFAULT}, or up to {LONGEST_KEY} characters")


def selected_key(expression: str, text: str) -> str | None:
    """What the expression makes of a message; None when it is no JSON object, or has no such member."""
    try:
        body = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        found: Any = body
        for name in (match[1] or match[2] or "").split(".")[1:]:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, bool | int | float):
            return msgspec.json.encode(found).decode()
        if not isinstance(found, str):
            missing = True
            return ""
        return found

    key = BODY.sub(value, expression)
    return None if missing else key


def find_route(routes: list[Route], key: str | None) -> Route | None:
    return next((route for route in routes if route.key == key), None)


def check_integration(params: dict[str, Any]) -> None:
    """Raises for what is not built here."""
    kind = params.get("IntegrationType")
    if kind == "MOCK":
        mock_status(params)
        return
    if kind != "AWS_PROXY" or params.get("IntegrationSubtype"):
        raise bad(f"Integration type {kind} is not supported by Preheat for WebSocket APIs; AWS_PROXY and MOCK are.")
    if params.get("ConnectionType", "INTERNET") != "INTERNET":
        raise bad("VPC_LINK connections are not supported by Preheat.")
    if not function_of(params.get("IntegrationUri") or ""):
        raise bad(f"Invalid function ARN or invalid URI: {params.get('IntegrationUri')}")
    if params.get("PayloadFormatVersion", "1.0") != "1.0":
        raise bad("PayloadFormatVersion of an integration of a WebSocket API must be 1.0")


def mock_status(integration: dict[str, Any]) -> int:
    """The status that a MOCK integration's template answers; 500 without one, as on AWS. The template is JSON: mapping
    templates with variables or directives are refused."""
    templates = integration.get("RequestTemplates") or {}
    wanted = (integration.get("TemplateSelectionExpression") or DEFAULT).removeprefix("\\")
    template = templates.get(wanted, templates.get(DEFAULT))
    if template is None:
        return 500
    try:
        document = msgspec.json.decode(template)
        return int(document["statusCode"])
    except (msgspec.DecodeError, TypeError, KeyError, ValueError) as error:
        raise bad(
            "The request template of a MOCK integration must be JSON with a statusCode; Preheat has no mapping "
            "templates for WebSocket APIs."
        ) from error

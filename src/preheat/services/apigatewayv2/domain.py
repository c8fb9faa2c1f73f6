"""Rules of HTTP APIs, pure: route keys, route selection, integrations, parameter mapping, OpenAPI import."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from preheat.kernel.errors import AwsError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "ANY")
SEGMENT = re.compile(r"\{([A-Za-z0-9._-]+)(\+?)\}\Z")
ARN_FUNCTION = re.compile(r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_:$-]+")
EXPRESSION = re.compile(
    r"\$\{([^}]+)\}|(\$(?:request|context|stageVariables)\b(?:\.[A-Za-z0-9_-]+|\[\d+\])*)"
)
SQS_SEND = "SQS-SendMessage"
SUBTYPES = {SQS_SEND: ("QueueUrl", "MessageBody")}
SQS_PARAMETERS = frozenset(
    ("QueueUrl", "MessageBody", "DelaySeconds", "MessageAttributes", "MessageDeduplicationId", "MessageGroupId",
     "MessageSystemAttributes", "Region")
)  # fmt: skip


def bad(message: str) -> AwsError:
    return AwsError("BadRequestException", message, 400)


def not_found(what: str, name: str) -> AwsError:
    return AwsError("NotFoundException", f"Invalid {what} identifier specified {name}", 404)


@dataclass(frozen=True, slots=True)
class Route:
    """`segments`: literal text, or ("name", greedy) for a parameter."""

    id: str
    key: str
    method: str
    segments: tuple[Any, ...]
    target: str
    document: dict[str, Any]


def parse_route_key(key: str) -> tuple[str, tuple[Any, ...]]:
    """(method, segments) of "METHOD /path/{name}/{rest+}" or "$default". Raises BadRequestException."""
    if key == "$default":
        return "$default", ()
    method, _, path = key.partition(" ")
    if method not in METHODS or not path.startswith("/"):
        raise bad(f"The provided route key is not formatted properly for HTTP protocol. Format should be \"<HTTP "
                  f"METHOD> /<RESOURCE PATH>\" or \"$default\". Found: {key}")  # fmt: skip
    segments: list[Any] = []
    parts = path.strip("/").split("/") if path != "/" else []
    for index, part in enumerate(parts):
        match = SEGMENT.match(part)
        if match is None:
            if "{" in part or "}" in part:
                raise bad(f"Resource's path part only allow a parameter as a whole segment. Found: {part}")
            segments.append(part)
            continue
        greedy = bool(match[2])
        if greedy and index != len(parts) - 1:
            raise bad("A greedy path variable must be the last segment of the path.")
        segments.append((match[1], greedy))
    return method, tuple(segments)


def make_route(document: dict[str, Any]) -> Route:
    method, segments = parse_route_key(document["RouteKey"])
    target = (document.get("Target") or "").removeprefix("integrations/")
    return Route(document["RouteId"], document["RouteKey"], method, segments, target, document)


def select_route(routes: list[Route], method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The most specific route: literals before parameters before a greedy end, the method before ANY, then $default."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    best: tuple[tuple[Any, ...], Route, dict[str, str]] | None = None
    for route in routes:
        if route.method == "$default" or route.method not in (method, "ANY"):
            continue
        found = _match(route.segments, parts)
        if found is None:
            continue
        shape, parameters = found
        rank = (shape, route.method == "ANY")
        if best is None or rank < best[0]:
            best = (rank, route, parameters)
    if best is not None:
        return best[1], best[2]
    for route in routes:
        if route.method == "$default":
            return route, {}
    return None


def _match(segments: tuple[Any, ...], parts: list[str]) -> tuple[tuple[int, ...], dict[str, str]] | None:
    parameters: dict[str, str] = {}
    shape: list[int] = []
    for index, segment in enumerate(segments):
        if isinstance(segment, str):
            if index >= len(parts) or unquote(parts[index]) != segment:
                return None
            shape.append(0)
            continue
        name, greedy = segment
        if index >= len(parts):
            return None
        if greedy:
            parameters[name] = unquote("/".join(parts[index:]))
            shape.append(2)
            return tuple(shape), parameters
        parameters[name] = unquote(parts[index])
        shape.append(1)
    if len(parts) != len(segments):
        return None
    return tuple(shape), parameters


def function_of(uri: str) -> str | None:
    """The function ARN in an integration URI (plain, or wrapped in API Gateway's invocation path)."""
    match = ARN_FUNCTION.search(uri)
    return match[0] if match else None


def check_integration(params: dict[str, Any]) -> None:
    """Raises for what HTTP APIs cannot integrate, or what is not built here."""
    kind = params.get("IntegrationType")
    subtype = params.get("IntegrationSubtype")
    version = params.get("PayloadFormatVersion")
    if kind != "AWS_PROXY":
        raise bad(f"Integration type {kind} is not supported by Preheat for HTTP APIs; AWS_PROXY is.")
    if params.get("ConnectionType", "INTERNET") != "INTERNET":
        raise bad("VPC_LINK connections are not supported by Preheat.")
    if subtype is None:
        if not function_of(params.get("IntegrationUri") or ""):
            raise bad(f"Invalid function ARN or invalid URI: {params.get('IntegrationUri')}")
        if version not in ("1.0", "2.0"):
            raise bad("PayloadFormatVersion is a required parameter for integration" if version is None
                      else f"Invalid PayloadFormatVersion {version}: use 1.0 or 2.0")  # fmt: skip
        return
    if subtype not in SUBTYPES:
        raise bad(f"Integration subtype {subtype} is not supported by Preheat; {', '.join(SUBTYPES)} is.")
    given = params.get("RequestParameters") or {}
    for name in SUBTYPES[subtype]:
        if name not in given:
            raise bad(f"Missing required parameter {name} for integration subtype {subtype}")
    for name in given:
        if name not in SQS_PARAMETERS:
            raise bad(f"Invalid parameter {name} for integration subtype {subtype}")


def map_parameter(template: str, lookup: Any) -> str:
    """A request parameter mapping: "$request.body", "${request.path.id}-x", static text. `lookup(name)` gives the text
    of an expression such as request.header.x, or None."""
    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2][1:]
        value = lookup(name.strip())
        return "" if value is None else value

    return EXPRESSION.sub(replace, template)


def import_openapi(body: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """(API properties, [(route key, integration)]) of an OpenAPI 3 document with AWS's extensions."""
    if not isinstance(body.get("paths"), dict):
        raise bad("Unable to import API: the OpenAPI document has no paths")
    info = body.get("info") or {}
    api: dict[str, Any] = {"Name": info.get("title") or "api", "Version": str(info.get("version") or "")}
    cors = body.get("x-amazon-apigateway-cors")
    if cors and not isinstance(cors, dict):
        raise bad("Unable to import API: x-amazon-apigateway-cors is not an object")
    if cors:
        api["CorsConfiguration"] = {key[0].upper() + key[1:]: value for key, value in cors.items()}
    routes = []
    for path, methods in body["paths"].items():
        if not isinstance(methods, dict):
            raise bad(f"Unable to import API: the path {path} is not an object")
        for method, operation in methods.items():
            integration = operation.get("x-amazon-apigateway-integration") if isinstance(operation, dict) else None
            if not isinstance(integration, dict):
                continue
            name = "ANY" if method == "x-amazon-apigateway-any-method" else method.upper()
            key = "$default" if path == "/$default" else f"{name} {path}"
            routes.append((key, _imported_integration(integration)))
    return api, routes


def _imported_integration(integration: dict[str, Any]) -> dict[str, Any]:
    names = {"type": "IntegrationType", "uri": "IntegrationUri", "payloadFormatVersion": "PayloadFormatVersion",
             "httpMethod": "IntegrationMethod", "subtype": "IntegrationSubtype",
             "requestParameters": "RequestParameters", "timeoutInMillis": "TimeoutInMillis",
             "credentials": "CredentialsArn"}  # fmt: skip
    out = {names[key]: value for key, value in integration.items() if key in names}
    out["IntegrationType"] = str(out.get("IntegrationType", "")).upper()
    return out

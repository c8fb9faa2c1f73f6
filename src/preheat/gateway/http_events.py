"""HTTP requests as Lambda events (payload formats 2.0 and 1.0), and what handlers return as HTTP responses.

Shapes: aws_facts 1.16-1.18 and 5.3. Pure: no sockets, no database.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.secure import is_secure, scheme_of

SEPARATOR = b"\0" * 8
PRELUDE_TYPE = "application/vnd.awslambda.http-integration-response"
HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"))
TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"


class Origin(NamedTuple):
    """Where a request came in: the ids that events carry. `for_url`: a function URL's event, which has null members
    where an HTTP API's has none, its path decoded and a trace header, that of `trace` if the client sent none."""

    account: str
    api_id: str
    domain: str
    stage: str
    route_key: str
    path: str
    request_id: str
    now: float
    path_parameters: dict[str, str] | None = None
    stage_variables: dict[str, str] | None = None
    authorizer: dict[str, Any] | None = None
    resource: str = ""
    for_url: bool = False
    trace: str = ""


class BadHandlerAnswer(Exception):
    """The handler returned something that is no HTTP response."""


def _body(request: HttpRequest) -> tuple[str | None, bool]:
    """(text, is base64) of a request body; None when there is none."""
    if not request.body:
        return None, False
    kind = request.headers.get("content-type", "")
    if kind.startswith(TEXT_TYPES) or "+json" in kind or "+xml" in kind or not kind:
        try:
            return request.body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(request.body).decode(), True


def clf_time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def forwarded(request: HttpRequest, headers: dict[str, str]) -> dict[str, str]:
    """`headers` with what a front door adds."""
    headers["x-forwarded-for"] = ", ".join(filter(None, (headers.get("x-forwarded-for"), request.peer)))
    headers.setdefault("x-forwarded-proto", scheme_of(request))
    usual = "443" if is_secure(request) else "80"
    headers.setdefault("x-forwarded-port", request.headers.get("host", "").partition(":")[2] or usual)
    return headers


def event_v2(request: HttpRequest, origin: Origin) -> dict[str, Any]:
    """Payload format 2.0."""
    headers = {name: value for name, value in request.headers.items() if name != "cookie"}
    forwarded(request, headers)
    if origin.trace:
        headers.setdefault("x-amzn-trace-id", origin.trace.partition(";")[0])
    cookies = [part.strip() for part in request.headers.get("cookie", "").split(";") if part.strip()]
    query: dict[str, str] = {}
    for name, value in request.arguments():
        query[name] = f"{query[name]},{value}" if name in query else value
    body, encoded = _body(request)
    context: dict[str, Any] = {
        "accountId": origin.account,
        "apiId": origin.api_id,
        "domainName": origin.domain,
        "domainPrefix": origin.api_id,
        "http": {
            "method": request.method,
            "path": unquote(origin.path) if origin.for_url else origin.path,
            "protocol": "HTTP/1.1",
            "sourceIp": request.peer,
            "userAgent": request.headers.get("user-agent", ""),
        },
        "requestId": origin.request_id,
        "routeKey": origin.route_key,
        "stage": origin.stage,
        "time": clf_time(origin.now),
        "timeEpoch": int(origin.now * 1_000),
    }
    if origin.authorizer:
        context["authorizer"] = origin.authorizer
    if origin.for_url:
        context["authentication"] = None
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": origin.route_key,
        "rawPath": unquote(origin.path),
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": context,
        "isBase64Encoded": encoded,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = query
    if body is not None:
        event["body"] = body
    if origin.path_parameters or origin.for_url:
        event["pathParameters"] = origin.path_parameters
    if origin.stage_variables or origin.for_url:
        event["stageVariables"] = origin.stage_variables
    return event


def event_v1(request: HttpRequest, origin: Origin) -> dict[str, Any]:
    """Payload format 1.0 as HTTP APIs send it."""
    query: dict[str, list[str]] = {}
    for name, value in request.arguments():
        query.setdefault(name, []).append(value)
    body, encoded = _body(request)
    return {
        "version": "1.0",
        "resource": origin.resource,
        "path": origin.path,
        "httpMethod": request.method,
        "headers": forwarded(request, dict(request.headers)),
        "multiValueHeaders": {name: [value] for name, value in forwarded(request, dict(request.headers)).items()},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "requestContext": {
            "accountId": origin.account,
            "apiId": origin.api_id,
            "authorizer": origin.authorizer or {"claims": None, "scopes": None},
            "domainName": origin.domain,
            "domainPrefix": origin.api_id,
            "extendedRequestId": origin.request_id,
            "httpMethod": request.method,
            "identity": {
                "accessKey": None, "accountId": None, "caller": None, "cognitoAuthenticationProvider": None,
                "cognitoAuthenticationType": None, "cognitoIdentityId": None, "cognitoIdentityPoolId": None,
                "principalOrgId": None, "sourceIp": request.peer, "user": None,
                "userAgent": request.headers.get("user-agent", ""), "userArn": None,
            },
            "path": origin.path,
            "protocol": "HTTP/1.1",
            "requestId": origin.request_id,
            "requestTime": clf_time(origin.now),
            "requestTimeEpoch": int(origin.now * 1_000),
            "resourceId": None,
            "resourcePath": origin.resource,
            "stage": origin.stage,
        },
        "pathParameters": origin.path_parameters,
        "stageVariables": origin.stage_variables,
        "body": body,
        "isBase64Encoded": encoded,
    }  # fmt: skip


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        raise BadHandlerAnswer("a header's value must be a string, a number or a boolean")
    return str(value)


def _status(value: Any) -> int:
    """A final status as a number or its text; 1xx would leave the client waiting for another."""
    try:
        status = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadHandlerAnswer(f"statusCode is {value!r}") from error
    if not 200 <= status <= 599 or (isinstance(value, float) and value != status):
        raise BadHandlerAnswer(f"statusCode is {value!r}")
    return status


def response_head(document: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """(status, headers) of a structured response or a streaming prelude. Raises BadHandlerAnswer."""
    status = _status(document.get("statusCode", 200))
    headers = document.get("headers") or {}
    several = document.get("multiValueHeaders") or {}
    if not isinstance(headers, dict) or not isinstance(several, dict):
        raise BadHandlerAnswer("headers must be an object")
    out: list[tuple[str, str]] = []
    if not all(isinstance(values, list) for values in several.values()):
        raise BadHandlerAnswer("multiValueHeaders must hold lists")
    cookies = document.get("cookies") or []
    if not isinstance(cookies, list):
        raise BadHandlerAnswer("cookies must be a list")
    for name in (*headers, *several):
        if not HEADER_NAME.match(name):
            raise BadHandlerAnswer(f"{name!r} is no header name")
    multi = {name.lower() for name in several}
    for name, value in headers.items():
        if name.lower() not in HOP_BY_HOP and name.lower() not in multi and value is not None:
            out.append((name.lower(), _scalar(value)))
    for name, values in several.items():
        if name.lower() not in HOP_BY_HOP:
            out.extend((name.lower(), _scalar(value)) for value in values)
    out.extend(("set-cookie", str(cookie)) for cookie in cookies)
    return status, out


def buffered_stream(payload: bytes, content_type: str) -> HttpResponse:
    """What a streaming handler made, whole: its prelude tells the status and the headers. Raises BadHandlerAnswer."""
    if content_type != PRELUDE_TYPE:
        return HttpResponse(200, [("content-type", content_type)], payload)
    found = PreludeReader().feed(payload)
    if found is None:
        raise BadHandlerAnswer("the streaming prelude does not end")
    status, headers = response_head(found[0])
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/octet-stream"))
    return HttpResponse(status, headers, found[1])


def proxy_response(
    payload: bytes, *, infer: bool, default_type: str = TEXT_TYPE, documents: bool = False
) -> HttpResponse:
    """A handler's return value as a response. `infer` (format 2.0): a value without statusCode is a 200 with that
    JSON (a bare string stays as it is); format 1.0 takes only the structured form, which without a content type has
    `default_type` and with `documents` may have an object as its body. Raises BadHandlerAnswer."""
    try:
        value = msgspec.json.decode(payload) if payload else None
    except msgspec.DecodeError as error:
        if infer:
            return HttpResponse(200, [("content-type", JSON_TYPE)], payload)
        raise BadHandlerAnswer("the handler's answer is not JSON") from error
    if isinstance(value, dict) and "statusCode" in value:
        return _structured(value, default_type, documents)
    if not infer:
        raise BadHandlerAnswer("the handler's answer has no statusCode")
    body = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
    return HttpResponse(200, [("content-type", JSON_TYPE)], body)


def _structured(value: dict[str, Any], default_type: str, documents: bool) -> HttpResponse:
    status, headers = response_head(value)
    content = value.get("body")
    if content is None:
        body = b""
    elif documents and isinstance(content, dict):
        body = msgspec.json.encode(content)
    elif not isinstance(content, str):
        raise BadHandlerAnswer("body must be a string")
    elif value.get("isBase64Encoded"):
        try:
            body = base64.b64decode(content, validate=True)
        except ValueError as error:
            raise BadHandlerAnswer("body is not base64") from error
    else:
        body = content.encode()
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", default_type))
    return HttpResponse(status, headers, body)


class PreludeReader:
    """Takes the bytes of a streamed HTTP integration response until its JSON prelude is complete."""

    LONGEST = 16 * 1024

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, chunk: bytes) -> tuple[dict[str, Any], bytes] | None:
        """(prelude, what of the payload came with it), or None when more is needed. Raises BadHandlerAnswer."""
        self._kept += chunk
        at = self._kept.find(SEPARATOR, 0, self.LONGEST)
        if at < 0:
            if len(self._kept) >= self.LONGEST:
                raise BadHandlerAnswer("the streaming prelude does not end within 16 KB")
            return None
        try:
            document = msgspec.json.decode(self._kept[:at]) if at else {}
        except msgspec.DecodeError as error:
            raise BadHandlerAnswer("the streaming prelude is not JSON") from error
        if not isinstance(document, dict):
            raise BadHandlerAnswer("the streaming prelude is not an object")
        return document, self._kept[at + len(SEPARATOR) :]


# -- CORS -------------------------------------------------------------------------------------------------------------


class Cors(NamedTuple):
    """A CORS configuration of an HTTP API or a function URL."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: int | None = None
    credentials: bool = False

    @classmethod
    def of(cls, document: dict[str, Any] | None) -> "Cors | None":
        if not document:
            return None
        return cls(
            tuple(document.get("AllowOrigins") or ()),
            tuple(document.get("AllowMethods") or ()),
            tuple(document.get("AllowHeaders") or ()),
            tuple(document.get("ExposeHeaders") or ()),
            document.get("MaxAge"),
            bool(document.get("AllowCredentials")),
        )

    def allows(self, origin: str) -> bool:
        for pattern in self.origins:
            head, star, tail = pattern.partition("*")
            if origin == pattern:
                return True
            if star and len(origin) >= len(head + tail) and origin.startswith(head) and origin.endswith(tail):
                return True
        return False

    def headers_for(self, origin: str | None, *, preflight: bool) -> list[tuple[str, str]]:
        """The Access-Control headers for a request from `origin`; none when it is not allowed."""
        if not origin or not self.allows(origin):
            return []
        wide = "*" in self.origins and not self.credentials
        out = [("access-control-allow-origin", "*" if wide else origin)]
        if not wide:
            out.append(("vary", "Origin"))
        if self.credentials:
            out.append(("access-control-allow-credentials", "true"))
        if preflight:
            if self.methods:
                out.append(("access-control-allow-methods", ",".join(self.methods)))
            if self.headers:
                out.append(("access-control-allow-headers", ",".join(self.headers)))
            if self.max_age is not None:
                out.append(("access-control-max-age", str(self.max_age)))
        elif self.expose:
            out.append(("access-control-expose-headers", ",".join(self.expose)))
        return out

    def apply(self, response: HttpResponse, origin: str | None) -> None:
        """These headers replace whatever the backend said."""
        added = self.headers_for(origin, preflight=False)
        kept = [pair for pair in response.headers if not pair[0].lower().startswith("access-control-")]
        response.headers = kept + added


def is_preflight(request: HttpRequest) -> bool:
    return (
        request.method == "OPTIONS"
        and "origin" in request.headers
        and "access-control-request-method" in request.headers
    )

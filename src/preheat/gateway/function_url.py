"""Lambda function URLs: `<id>.lambda-url.<region>.localhost`, `<id>.lambda-url.<region>.on.aws`, or the path
`/_aws/lambda-url/<id>/...` where names cannot be resolved."""

import re
from typing import Any

import msgspec

from preheat.execution.contract import Throttled
from preheat.gateway.connection import Exchange
from preheat.gateway.http_events import BadHandlerAnswer, Cors, Origin, event_v2, is_preflight, proxy_response
from preheat.gateway.invoking import answer, invoke_buffered, invoke_streamed, plain, run_step
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.services.contract import Context, Outcome
from preheat.services.machine import Machine

HOST = re.compile(r"([a-z0-9]+)\.lambda-url\.[a-z0-9-]+\.(?:localhost|on\.aws)(?::\d+)?\Z")
PATH = "/_aws/lambda-url/"
FORBIDDEN = ("x-amzn-ErrorType", "AccessDeniedException")
HELP = "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
MAX_REQUEST = 6 * 1024 * 1024
ACCESS_DENIED = f"Forbidden. For troubleshooting Function URL authorization issues, see: {HELP}"


class FunctionUrlDoor:
    """`functions` is the Lambda service: `find_url(ctx, id)`, `target(ctx, name, qualifier)`, `start_invocation(...)`.
    `authorize(ctx, request, url)` decides on AuthType AWS_IAM; it returns the authorizer member or raises AwsError."""

    def __init__(self, machine: Machine, functions: Any, entropy: Entropy, authorize: Any) -> None:
        self._machine = machine
        self._functions = functions
        self._entropy = entropy
        self._authorize = authorize

    def matches(self, request: HttpRequest) -> bool:
        return request.path.startswith(PATH) or HOST.match(request.headers.get("host", "")) is not None

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        match = HOST.match(request.headers.get("host", ""))
        if match is not None:
            url_id, path = match[1], request.path
        else:
            url_id, _, rest = request.path[len(PATH) :].partition("/")
            path = "/" + rest
        cors: list[Cors] = []

        def decorate(response: HttpResponse) -> None:
            if cors:
                cors[0].apply(response, request.headers.get("origin"))

        def step(ctx: Context) -> Outcome:
            url = self._functions.find_url(ctx, url_id)
            if url is None:
                return answer(plain(403, {"Message": None}, FORBIDDEN))
            rules = Cors.of(url.cors)
            if rules is not None:
                cors.append(rules)
                if is_preflight(request):
                    headers = rules.headers_for(request.headers.get("origin"), preflight=True)
                    return answer(HttpResponse(200, headers, b""))
            return self._invoke(ctx, exchange, url, path, decorate)

        run_step(self._machine, exchange, step, _failure, decorate)

    def _invoke(self, ctx: Context, exchange: Exchange, url: Any, path: str, decorate: Any) -> Outcome:
        request = exchange.request
        if len(request.body) > MAX_REQUEST:
            return answer(plain(413, {"Message": "Request body is too large"}))
        authorizer = self._authorize(ctx, request, url) if url.auth_type == "AWS_IAM" else None
        arn = url.scope.arn("lambda", f"function:{url.function_name}")
        target = self._functions.target(ctx, arn, url.qualifier)
        request_id = self._entropy.uuid()
        origin = Origin(
            url.scope.account, url.url_id, request.headers.get("host", ""), "$default", "$default", path,
            request_id, ctx.now, authorizer=authorizer, for_url=authorizer is None,
        )  # fmt: skip
        payload = msgspec.json.encode(event_v2(request, origin))
        if url.invoke_mode == "RESPONSE_STREAM":
            return invoke_streamed(self._functions, target, payload, request_id, _settle, exchange, decorate)
        return invoke_buffered(self._functions, target, payload, request_id, _settle)


def _settle(ended: Any) -> HttpResponse:
    if isinstance(ended, Throttled):
        return plain(429, {"Message": "Rate Exceeded."}, ("x-amzn-ErrorType", "TooManyRequestsException"))
    if ended.error is None:
        try:
            return proxy_response(ended.payload, infer=True)
        except BadHandlerAnswer:
            pass
    return HttpResponse(502, [("content-type", "text/plain")], b"Internal Server Error")


def _failure(error: AwsError) -> HttpResponse:
    if error.status == 403:
        return plain(403, {"Message": ACCESS_DENIED}, FORBIDDEN)
    if error.status == 404:
        return plain(403, {"Message": None}, FORBIDDEN)
    return HttpResponse(502, [("content-type", "text/plain")], b"Internal Server Error")

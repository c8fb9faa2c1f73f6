"""Lambda function URLs: `<id>.lambda-url.<region>.localhost`, `<id>.lambda-url.<region>.on.aws`, or the path
`/_aws/lambda-url/<id>/...` where names cannot be resolved."""

from typing import Any

import msgspec

from preheat.execution.contract import Throttled
from preheat.gateway.addressing import Address
from preheat.gateway.connection import Exchange
from preheat.gateway.http_events import (
    JSON_TYPE,
    Cors,
    Origin,
    event_v2,
    is_preflight,
)
from preheat.gateway.invoking import answer, invoke_buffered, invoke_streamed, plain, returned, run_step
from preheat.identity import sigv4
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.services.awslambda.recursion import fresh
from preheat.services.contract import Context, Outcome
from preheat.services.machine import Machine

ADDRESS = Address("lambda-url", ("localhost", "on.aws"), "/_aws/lambda-url/")
FORBIDDEN = ("x-amzn-ErrorType", "AccessDeniedException")
HELP = "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
MAX_REQUEST = 6 * 1024 * 1024
ACCESS_DENIED = f"Forbidden. For troubleshooting Function URL authorization issues, see: {HELP}"


class FunctionUrlDoor:
    """`functions` is the Lambda service: `find_url(ctx, id)`, `target(ctx, name, qualifier)`, `start_invocation(...)`.
    `authorize(ctx, request, url)` says who may: it returns the event's authorizer member for AuthType AWS_IAM, None
    for NONE, or raises AwsError 403."""

    def __init__(self, machine: Machine, functions: Any, entropy: Entropy, authorize: Any) -> None:
        self._machine = machine
        self._functions = functions
        self._entropy = entropy
        self._authorize = authorize

    def matches(self, request: HttpRequest) -> bool:
        return ADDRESS.matches(request)

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        url_id, path = ADDRESS.split(request)
        cors: list[Cors] = []
        served: list[Any] = []
        begun = self._machine.clock.now()
        request_id = self._entropy.uuid()

        def decorate(response: HttpResponse) -> None:
            if cors:
                cors[0].apply(response, request.headers.get("origin"))
            response.headers.append(("x-amzn-RequestId", request_id))
            if served:
                self._measure(served[0], response.status, (self._machine.clock.now() - begun) * 1_000.0)

        def step(ctx: Context) -> Outcome:
            url = self._functions.find_url(ctx, url_id)
            if url is None:
                return answer(plain(403, {"Message": None}, FORBIDDEN))
            served.append(url)
            rules = Cors.of(url.cors)
            if rules is not None:
                if is_preflight(request):
                    headers = rules.headers_for(request.headers.get("origin"), preflight=True)
                    return answer(HttpResponse(200, headers))
                cors.append(rules)
            return self._invoke(ctx, exchange, url, path, request_id, decorate)

        run_step(self._machine, exchange, step, _failure, decorate)

    def _measure(self, url: Any, status: int, latency_ms: float) -> None:
        """The URL's metrics, when its response begins."""
        values = [("UrlRequestCount", 1.0, "Count"), ("UrlRequestLatency", latency_ms, "Milliseconds")]
        if status >= 400:
            values.append((f"Url{status // 100}xxCount", 1.0, "Count"))
        record, name = self._machine.meter.record, url.function_name
        for metric, value, unit in values:
            record(url.scope, "AWS/Lambda", metric, value, unit, FunctionName=name)
            if url.qualifier:
                resource = f"{name}:{url.qualifier}"
                record(url.scope, "AWS/Lambda", metric, value, unit, FunctionName=name, Resource=resource)

    def _invoke(
        self, ctx: Context, exchange: Exchange, url: Any, path: str, request_id: str, decorate: Any
    ) -> Outcome:
        request = exchange.request
        if len(request.body) > MAX_REQUEST:
            return answer(plain(413, {"Message": "Request body is too large"}))
        authorizer = self._caller(ctx, request, url)
        arn = url.scope.arn("lambda", f"function:{url.function_name}")
        target = self._functions.target(ctx, arn, url.qualifier)
        trace = self._functions.continue_trace(ctx, target.spec, (_trace(request),), request_id)
        trace = trace or fresh(target.spec.arn, request_id, ctx.now, sampled=target.spec.tracing)
        origin = Origin(
            url.scope.account if authorizer else "anonymous", url.url_id, ADDRESS.domain(request), "$default",
            "$default", path, request_id, ctx.now, authorizer=authorizer, for_url=True,
            trace=trace,
        )  # fmt: skip
        payload = msgspec.json.encode(event_v2(request, origin))
        if url.invoke_mode == "RESPONSE_STREAM":
            return invoke_streamed(self._functions, target, payload, request_id, _settle, exchange, decorate, trace)
        return invoke_buffered(self._functions, target, payload, request_id, _settle, trace)

    def _caller(self, ctx: Context, request: HttpRequest, url: Any) -> dict[str, Any] | None:
        """The event's authorizer member. An AWS_IAM URL is closed to unsigned requests, to signatures for another
        service or region, and to callers without a name. Raises AwsError 403."""
        signature = None if url.auth_type == "NONE" else sigv4.parse(request)
        fits = signature is not None and (signature.service, signature.region) == ("lambda", url.scope.region)
        authorizer = self._authorize(ctx, request, url) if fits or url.auth_type == "NONE" else None
        if authorizer is None and url.auth_type != "NONE":
            raise AwsError("AccessDeniedException", ACCESS_DENIED, 403)
        return authorizer


def _trace(request: HttpRequest) -> str | None:
    """The client's trace header. Loops through URLs are not counted, as on AWS."""
    header = request.headers.get("x-amzn-trace-id", "")
    return ";".join(part for part in header.split(";") if not part.strip().startswith("Lineage=")) or None


def _settle(ended: Any) -> HttpResponse:
    if isinstance(ended, Throttled):
        return plain(429, {"Message": "Rate Exceeded."}, ("x-amzn-ErrorType", "TooManyRequestsException"))
    failed = HttpResponse(502, [("content-type", "text/plain")], b"Internal Server Error")
    return returned(ended, infer=True, default_type=JSON_TYPE, documents=True) or failed


def _failure(error: AwsError) -> HttpResponse:
    if error.status < 500:
        return plain(403, {"Message": ACCESS_DENIED}, FORBIDDEN)
    return HttpResponse(502, [("content-type", "text/plain")], b"Internal Server Error")

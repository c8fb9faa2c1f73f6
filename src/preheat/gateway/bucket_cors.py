"""CORS of S3 buckets: preflights, and the headers of the answers that a browser asked for.

Only requests with an Origin header (and OPTIONS) come here; a request for S3 is one that is signed for it, or unsigned
and without the marks of another protocol.
"""

from collections.abc import Callable
from typing import Any

from preheat.gateway.connection import Exchange
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.services.contract import Context, Reply
from preheat.services.machine import Machine
from preheat.services.s3.domain import cors_headers
from preheat.wire import Wire
from preheat.wire.wire import bucket_of, credential_of, host_of

NOT_ENABLED = "CORSResponse: CORS is not enabled for this bucket."
NOT_ALLOWED = (
    "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "
    "Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
)
Rules = list[dict[str, Any]]


class BucketCors:
    def __init__(self, machine: Machine, wire: Wire, entropy: Entropy) -> None:
        self._machine = machine
        self._wire = wire
        self._entropy = entropy

    def claims(self, exchange: Exchange, serve: Callable[[Exchange], None]) -> bool:
        """True when the request is S3's: it is answered here (a preflight) or handed to `serve` once its answer's
        headers are known."""
        request = exchange.request
        bucket = addressed_bucket(request)
        if bucket is None:
            return False

        def read(ctx: Context) -> dict[str, Any]:
            return {"rules": ctx.call("s3", "GetBucketCors", {"Bucket": bucket})["CORSRules"]}

        def reply(result: Reply | AwsError) -> None:
            if exchange.gone:
                return
            rules = result.output["rules"] if isinstance(result, Reply) else None
            if request.method == "OPTIONS":
                exchange.respond(self._preflight(request, rules))
                return
            found = cors_headers(rules or [], request.headers["origin"], request.method)
            if found is not None:
                added = list(found.items())
                exchange.decorate = lambda response: response.headers.extend(added)
            serve(exchange)

        self._machine.perform(read, reply)
        return True

    def _preflight(self, request: HttpRequest, rules: Rules | None) -> HttpResponse:
        headers = request.headers
        origin, method = headers.get("origin"), headers.get("access-control-request-method")
        if not origin:
            return self._error(request, "BadRequest", "Insufficient information. Origin request header needed.", 400)
        if not method:
            return self._error(request, "BadRequest", "Invalid Access-Control-Request-Method: null", 400)
        if rules is None:
            return self._error(request, "AccessForbidden", NOT_ENABLED, 403)
        wanted = headers.get("access-control-request-headers", "").split(",")
        found = cors_headers(rules, origin, method, wanted)
        if found is None:
            return self._error(request, "AccessForbidden", NOT_ALLOWED, 403)
        return HttpResponse(200, list(found.items()))

    def _error(self, request: HttpRequest, code: str, message: str, status: int) -> HttpResponse:
        return self._wire.error(None, request, AwsError(code, message, status), self._entropy.uuid())


def addressed_bucket(request: HttpRequest) -> str | None:
    """The bucket of a request that can only be S3's, or None."""
    headers = request.headers
    service = credential_of(request).service
    if service not in ("", "s3") or "x-amz-target" in headers or "smithy-protocol" in headers:
        return None
    if request.method != "OPTIONS" and not service and "Action=" in request.query:
        return None
    return bucket_of(host_of(request)) or request.path[1:].partition("/")[0] or None

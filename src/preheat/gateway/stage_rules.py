"""What stands before every route of a deployed API: its stage's throttle, and the function's resource policy."""

from typing import Any

import msgspec

from preheat.identity.grants import service_may
from preheat.kernel.scope import Arn
from preheat.services.apigatewayv2.domain import Route
from preheat.services.apigatewayv2.repository import Deployed
from preheat.services.contract import Context

RATE, BURST = 10_000.0, 5_000.0
"""The account's, which stand in for the one of a pair that a stage does not set."""


class Bucket:
    """A token bucket: `rate` a second, at most `burst` at once."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._at = burst, now

    def take(self, now: float) -> bool:
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class StageRules:
    """`functions` is the Lambda service. With `enforce` a function's resource policy must let API Gateway invoke it, as
    on AWS."""

    def __init__(self, functions: Any, enforce: bool) -> None:
        self._functions = functions
        self._enforce = enforce
        self._buckets: dict[tuple[str, str, str], Bucket] = {}

    def admit(self, now: float, deployed: Deployed, route: Route) -> bool:
        """False when the route is asked for too often."""
        stage = deployed.stage
        own = (stage.get("RouteSettings") or {}).get(route.key) or {}
        chosen = {**(stage.get("DefaultRouteSettings") or {}), **own}
        rate, burst = chosen.get("ThrottlingRateLimit"), chosen.get("ThrottlingBurstLimit")
        if rate is None and burst is None:
            return True
        rate = RATE if rate is None else float(rate)
        burst = BURST if burst is None else float(burst)
        key = (deployed.api["ApiId"], stage["StageName"], route.key)
        bucket = self._buckets.get(key)
        if bucket is None or (bucket.rate, bucket.burst) != (rate, burst):
            bucket = self._buckets[key] = Bucket(rate, burst, now)
        return bucket.take(now)

    def may_invoke(self, ctx: Context, function_arn: str, account: str, source: str) -> bool:
        """`source`: api/stage/what, of the ARN that a policy may name."""
        if not self._enforce:
            return True
        policy = self._functions.policy(ctx, function_arn)
        documents = () if policy is None else (msgspec.json.encode(policy).decode(),)
        arn = Arn.parse(function_arn).scope.arn("execute-api", source)
        return service_may(
            documents, "apigateway.amazonaws.com", "lambda:InvokeFunction", function_arn, arn, account
        )

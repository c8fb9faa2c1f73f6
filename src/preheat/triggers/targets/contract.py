"""What carries a delivery to a target, and what all of them use: one operation, done as whoever sends."""

from collections.abc import Callable
from dataclasses import replace

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.scope import Arn, Scope
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Outcome, Params, Principal, Reply
from preheat.services.deliveries import TRACE_HEADER, Delivery, role_principal

Send = Callable[[Context, Delivery, Background], Outcome]
"""Carries one delivery out, in a transaction in the target's account and region. An AwsError takes back all it wrote;
of a throttle, 408, 409 or 5xx it is tried again, any other is final."""


def acting(ctx: Context, delivery: Delivery) -> Context:
    """The context of a delivery: the target's account and region, the sender as principal, the trace as a header."""
    scope = ctx.scope
    if delivery.target.startswith("arn:"):
        arn = Arn.parse(delivery.target)
        scope = Scope(arn.account or _source_account(delivery) or scope.account, arn.region or scope.region)
    request = None
    if delivery.trace is not None:
        headers = {TRACE_HEADER: delivery.trace, "content-length": str(len(delivery.body.encode()))}
        request = HttpRequest("POST", "/", headers)
    return replace(ctx, scope=scope, principal=_principal(delivery, scope), request=request)


def _source_account(delivery: Delivery) -> str:
    parts = delivery.source_arn.split(":")
    return parts[4] if len(parts) > 4 else ""


def _principal(delivery: Delivery, scope: Scope) -> Principal:
    service = delivery.source_service or "preheat"
    if not delivery.role:
        return Principal(service, scope.account, "service", service)
    return role_principal(delivery.role, service.partition(".")[0])


def operate(ctx: Context, service: str, operation: str, params: Params) -> Outcome:
    """Another service's operation with everything that it may answer. A role needs its policies' leave when policies
    are enforced. Raises AwsError 501 for what Preheat does not have."""
    found = ctx.machine.services.get(service)
    function = None if found is None else found.operations.get(operation)
    if function is None:
        raise AwsError("UnsupportedOperation", f"Preheat does not implement {service}:{operation}.", 501)
    if ctx.machine.authorizer is not None:
        ctx.machine.authorizer(ctx, service, operation, params)
    return function(ctx, params)


def answered(outcome: Outcome) -> Params:
    """The output of an operation that answers at once."""
    output = outcome.output if isinstance(outcome, Reply) else outcome
    if not isinstance(output, dict):
        raise RuntimeError("this operation does not answer at once")
    return output

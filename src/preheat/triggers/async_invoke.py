"""Asynchronous invocations (InvocationType Event), stored as events of kind "lambda.async".

A function that fails is run again after one minute and then two (MaximumRetryAttempts). A throttled event waits with
pauses growing from 1 s to 5 minutes, without counting as an attempt. An event that would be run again only when it is
older than MaximumEventAgeInSeconds is given up. Results go to the destinations, events that failed also to the dead
letter queue.

The pauses of throttled events are spread: events that were refused together would otherwise come back together, and
all but a few would be refused again.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from preheat.execution.contract import Outcome as RunOutcome
from preheat.execution.contract import Throttled
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.awslambda.core import Target
from preheat.services.awslambda.domain import LATEST
from preheat.services.awslambda.recursion import extended, fresh
from preheat.services.awslambda.service import LambdaService
from preheat.services.contract import Context, Outcome, Platform
from preheat.services.deliveries import Counts, Delivery, emit
from preheat.services.machine import Machine
from preheat.triggers.contract import Notice, OnNotice
from preheat.triggers.outbox import Event

KIND = "lambda.async"
SERVICE = "lambda.amazonaws.com"
RETRY_PAUSES_S = (60.0, 120.0)
DEFAULT_RETRIES = 2
DEFAULT_MAX_AGE_S = 6 * 3600
MAX_THROTTLE_PAUSE_S = 300.0
MAX_ERROR_MESSAGE = 1_024
ZERO_RESERVED = "ZeroReservedConcurrency"
TOO_OLD = "EventAgeExceeded"
TOO_OFTEN = "RetriesExhausted"
LOOP = "RecursiveInvocation"


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON of an event. `function` is the invoked ARN, `payload` JSON text, `trace` the trace header it came with,
    `invoked` how often it ran, `throttles` how often it was refused since; `answer`, `error` and `version` are the last
    run's."""

    function: str
    payload: str
    request_id: str
    accepted_at: float
    trace: str | None = None
    invoked: int = 0
    throttles: int = 0
    answer: str | None = None
    error: str | None = None
    version: str = LATEST


class AsyncInvoke:
    """The handler of events of kind "lambda.async"."""

    def __init__(self, platform: Platform, functions: LambdaService, on_notice: OnNotice) -> None:
        self._machine: Machine = platform.machine
        self._functions = functions
        self._on_notice = on_notice

    def __call__(self, ctx: Context, event: Event) -> Outcome:
        request = msgspec.json.decode(event.payload, type=Request)
        arn = Arn.parse(request.function)
        ctx = replace(ctx, scope=arn.scope)
        try:
            target = self._functions.target(ctx, request.function)
        except AwsError as error:
            return self._drop(ctx, event, request, error)
        if self._functions.reserved(ctx, request.function) == 0:
            return self._fail(ctx, event, request, target, ZERO_RESERVED)
        if ctx.now - request.accepted_at >= self._max_age(ctx, request):
            return self._fail(ctx, event, request, target, TOO_OLD)
        try:
            trace = self._functions.continue_trace(ctx, target.spec, (request.trace,), request.request_id)
        except AwsError as error:
            return self._fail(ctx, event, request, target, LOOP, (str(error.status), error.message))
        ctx.db.after_commit(partial(self._launch, event, request, target, trace))
        return {}

    def _drop(self, ctx: Context, event: Event, request: Request, error: AwsError) -> Outcome:
        """The function is gone, and its dead letter queue and destinations with it."""
        event.settle(ctx)
        self._count(ctx, request, "AsyncEventsDropped")
        text = f"An asynchronous event was dropped: {error.message}"
        ctx.db.after_commit(lambda: self._on_notice(Notice("event-dropped", request.function, text)))
        return {}

    def _config(self, ctx: Context, request: Request) -> dict[str, Any]:
        return self._functions.event_invoke_config(ctx, request.function)

    def _max_age(self, ctx: Context, request: Request) -> int:
        return self._config(ctx, request).get("MaximumEventAgeInSeconds", DEFAULT_MAX_AGE_S)

    def _count(self, ctx: Context, request: Request, name: str) -> None:
        """One more, once the transaction has committed."""
        arn = Arn.parse(request.function)
        record = partial(ctx.machine.meter.record, arn.scope, "AWS/Lambda", name)
        ctx.db.after_commit(partial(record, FunctionName=_name(request)))

    # -- running --------------------------------------------------------------------------------------------------

    def _launch(self, event: Event, request: Request, target: Target, trace: str | None) -> None:
        scope = Arn.parse(request.function).scope

        def then(run: Any, value: Any) -> None:
            self._machine.perform(
                lambda ctx: run(ctx, event, request, target, value), partial(event.outbox.failed, event), scope
            )

        try:
            refusal = self._functions.start_invocation(
                target.spec, request.payload.encode(), done=lambda outcome: then(self._ran, outcome),
                request_id=request.request_id, invoked_arn=target.invoked_arn, trace_id=trace, asynchronous=True,
            )  # fmt: skip
        except Exception:
            event.outbox.failed(event, AwsError("InternalFailure", "The function could not be started.", 500))
            raise
        if refusal is not None:
            then(self._refused, refusal)
            return
        age_ms = (self._machine.clock.now() - request.accepted_at) * 1_000
        self._machine.meter.record(
            scope, "AWS/Lambda", "AsyncEventAge", age_ms, "Milliseconds", FunctionName=target.spec.name
        )

    def _refused(self, ctx: Context, event: Event, request: Request, target: Target, refusal: Throttled) -> Outcome:
        pause = min(2.0 ** min(request.throttles, 10), MAX_THROTTLE_PAUSE_S)
        again_at = ctx.now + pause * (0.5 + 0.5 * ctx.entropy.uniform())
        changed = msgspec.structs.replace(request, throttles=request.throttles + 1)
        event.retry(ctx, min(again_at, request.accepted_at + self._max_age(ctx, request)), msgspec.json.encode(changed))
        return {}

    def _ran(self, ctx: Context, event: Event, request: Request, target: Target, outcome: RunOutcome) -> Outcome:
        request = msgspec.structs.replace(
            request, invoked=request.invoked + 1, throttles=0, version=target.spec.version, error=outcome.error,
            answer=outcome.payload.decode("utf-8", "replace"),
        )  # fmt: skip
        if outcome.error is None:
            self._report(ctx, request, target, "Success", "OnSuccess")
            event.settle(ctx)
            return {}
        if request.invoked > self._config(ctx, request).get("MaximumRetryAttempts", DEFAULT_RETRIES):
            return self._fail(ctx, event, request, target, TOO_OFTEN)
        again_at = ctx.now + RETRY_PAUSES_S[request.invoked - 1]
        if again_at - request.accepted_at >= self._max_age(ctx, request):
            return self._fail(ctx, event, request, target, TOO_OLD)
        event.retry(ctx, again_at, msgspec.json.encode(request))
        return {}

    # -- the end --------------------------------------------------------------------------------------------------

    def _fail(
        self, ctx: Context, event: Event, request: Request, target: Target, condition: str,
        error: tuple[str, str] | None = None,
    ) -> Outcome:  # fmt: skip
        """The end of an event that did not succeed. `error` is (ErrorCode, ErrorMessage) of the dead letter."""
        self._count(ctx, request, "AsyncEventsDropped")
        self._report(ctx, request, target, condition, "OnFailure")
        queue = self._functions.dead_letter(ctx, request.function)
        if queue:
            code, message = error or _error(request)
            attributes = {
                "RequestID": ("String", request.request_id),
                "ErrorCode": ("Number", code),
                "ErrorMessage": ("String", message.encode()[:MAX_ERROR_MESSAGE].decode("utf-8", "ignore")),
            }
            self._send(ctx, request, target, queue, request.payload, "DeadLetterErrors", attributes=attributes)
        event.settle(ctx)
        return {}

    def _report(self, ctx: Context, request: Request, target: Target, condition: str, side: str) -> None:
        """Send the record of a finished event to its destination, if it has one."""
        config = self._config(ctx, request)
        destination = config.get("DestinationConfig", {}).get(side, {}).get("Destination")
        if not destination:
            return
        options: dict[str, Any] = {}
        kind = destination.split(":", 3)[2]
        if kind == "events":
            result = "Success" if side == "OnSuccess" else "Failure"
            options = {
                "source": "lambda",
                "detail-type": f"Lambda Function Invocation Result - {result}",
                "resources": [destination, _qualified(request)],
            }
        elif kind == "s3":
            at = datetime.fromtimestamp(ctx.now, UTC)
            name = f"{at:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}-{ctx.entropy.uuid()}"
            options = {"key": f"aws/lambda/async/{target.spec.name}/{name}"}
        body = _record(ctx, request, condition)
        self._send(ctx, request, target, destination, body, "DestinationDeliveryFailures", options=options)

    def _send(
        self, ctx: Context, request: Request, target: Target, destination: str, body: str, failed: str, **more: Any
    ) -> None:
        """As the function's execution role; the function's own turn is in the trace."""
        trace = request.trace
        if trace is not None:
            trace = extended([trace], target.spec.arn, request.request_id, ctx.now)[0]
        else:
            trace = fresh(target.spec.arn, request.request_id, ctx.now)
        counts = Counts("AWS/Lambda", {"FunctionName": target.spec.name}, failed=failed)
        emit(
            ctx,
            Delivery(
                destination, body, request.function, SERVICE, role=target.spec.role, counts=counts, trace=trace, **more
            ),
        )


def _name(request: Request) -> str:
    return request.function.split(":")[6]


def _qualified(request: Request) -> str:
    return request.function if request.function.count(":") > 6 else f"{request.function}:{LATEST}"


def _error(request: Request) -> tuple[str, str]:
    """(ErrorCode, ErrorMessage) of a dead letter."""
    if request.answer is None:
        return "429", "Rate Exceeded."
    try:
        document = json.loads(request.answer)
    except ValueError:
        document = None
    message = document.get("errorMessage") if isinstance(document, dict) else None
    return "200", str(message or request.error or "Unknown application error occurred")


def _record(ctx: Context, request: Request, condition: str) -> str:
    at = datetime.fromtimestamp(ctx.now, UTC)
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "requestContext": {
            "requestId": request.request_id,
            "functionArn": _qualified(request),
            "condition": condition,
            "approximateInvokeCount": request.invoked,
        },
        "requestPayload": msgspec.Raw(request.payload.encode()),
    }
    if request.answer is not None:
        context: dict[str, Any] = {"statusCode": 200, "executedVersion": request.version}
        if request.error is not None:
            context["functionError"] = "Unhandled"
        record["responseContext"] = context
        record["responsePayload"] = _embedded(request.answer)
    return msgspec.json.encode(record).decode()


def _embedded(text: str) -> Any:
    """JSON as it is; anything else as a JSON string."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return msgspec.Raw(text.encode())

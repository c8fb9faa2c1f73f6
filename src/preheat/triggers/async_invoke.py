"""Asynchronous invocations (InvocationType Event), stored as events of kind "lambda.async".

A function that fails is run again after one minute and then two (MaximumRetryAttempts). A throttled event waits with
pauses growing from 1 s to 5 minutes, without counting as an attempt. An event older than MaximumEventAgeInSeconds is
given up. Results go to the destinations, events that failed also to the dead letter queue.

The pauses of throttled events are spread: events that were refused together would otherwise come back together, and
all but a few would be refused again.
"""

import json
from dataclasses import dataclass, replace
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
from preheat.services.awslambda.service import LambdaService
from preheat.services.contract import Context, Outcome, Platform
from preheat.services.machine import Machine
from preheat.triggers import delivery
from preheat.triggers.contract import Notice, OnNotice
from preheat.triggers.delivery import Delivery
from preheat.triggers.outbox import Event

KIND = "lambda.async"
RETRY_PAUSES_S = (60.0, 120.0)
DEFAULT_RETRIES = 2
DEFAULT_MAX_AGE_S = 6 * 3600
MAX_THROTTLE_PAUSE_S = 300.0
MAX_ERROR_MESSAGE = 1_024


@dataclass(frozen=True, slots=True)
class Request:
    """The JSON of an event. `function` is the invoked ARN, `payload` JSON text, `invoked` how often it ran, `throttles`
    how often it was refused since; `answer` and `error` are the last run's."""

    function: str
    payload: str
    request_id: str
    accepted_at: float
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
            event.settle(ctx)
            text = f"An asynchronous event was dropped: {error.message}"
            ctx.db.after_commit(lambda: self._on_notice(Notice("event-dropped", request.function, text)))
            return {}
        request = replace(request, version=target.spec.version)
        if self._functions.reserved(ctx, request.function) == 0:
            return self._fail(ctx, event, request, target, "ZeroReservedConcurrency")
        if ctx.now - request.accepted_at >= self._config(ctx, request).get(
            "MaximumEventAgeInSeconds", DEFAULT_MAX_AGE_S
        ):
            return self._fail(ctx, event, request, target, "EventAgeExceeded")
        ctx.db.after_commit(partial(self._launch, event, request, target))
        return {}

    def _config(self, ctx: Context, request: Request) -> dict[str, Any]:
        return self._functions.event_invoke_config(ctx, request.function)

    def _launch(self, event: Event, request: Request, target: Target) -> None:
        scope = Arn.parse(request.function).scope

        def then(run: Any, value: Any) -> None:
            self._machine.perform(
                lambda ctx: run(ctx, event, request, target, value), partial(event.outbox.failed, event), scope
            )

        refusal = self._functions.start_invocation(
            target.spec, request.payload.encode(), done=lambda outcome: then(self._ran, outcome),
            request_id=request.request_id, invoked_arn=target.invoked_arn, asynchronous=True,
        )  # fmt: skip
        if refusal is not None:
            then(self._refused, refusal)

    def _refused(self, ctx: Context, event: Event, request: Request, target: Target, refusal: Throttled) -> Outcome:
        max_age = self._config(ctx, request).get("MaximumEventAgeInSeconds", DEFAULT_MAX_AGE_S)
        pause = min(2.0**request.throttles, MAX_THROTTLE_PAUSE_S)
        again_at = ctx.now + pause * (0.5 + 0.5 * ctx.entropy.uniform())
        changed = replace(request, throttles=request.throttles + 1)
        event.retry(ctx, min(again_at, request.accepted_at + max_age), msgspec.json.encode(changed))
        return {}

    def _ran(self, ctx: Context, event: Event, request: Request, target: Target, outcome: RunOutcome) -> Outcome:
        answer = outcome.payload.decode("utf-8", "replace")
        request = replace(request, invoked=request.invoked + 1, throttles=0, answer=answer, error=outcome.error)
        if outcome.error is None:
            self._report(ctx, request, "Success", "OnSuccess")
            event.settle(ctx)
            return {}
        retries = self._config(ctx, request).get("MaximumRetryAttempts", DEFAULT_RETRIES)
        if request.invoked <= retries:
            event.retry(ctx, ctx.now + RETRY_PAUSES_S[request.invoked - 1], msgspec.json.encode(request))
            return {}
        return self._fail(ctx, event, request, target, "RetriesExhausted")

    def _fail(self, ctx: Context, event: Event, request: Request, target: Target, condition: str) -> Outcome:
        """The end of an event that did not succeed."""
        self._report(ctx, request, condition, "OnFailure")
        queue = self._functions.dead_letter(ctx, request.function)
        if queue:
            code, message = _error(request)
            attributes = {
                "RequestID": ("String", request.request_id),
                "ErrorCode": ("Number", code),
                "ErrorMessage": ("String", message[:MAX_ERROR_MESSAGE]),
            }
            delivery.emit(
                ctx,
                Delivery(queue, request.payload, request.function, "lambda.amazonaws.com", attributes, max_age_s=60.0),
            )
        event.settle(ctx)
        return {}

    def _report(self, ctx: Context, request: Request, condition: str, side: str) -> None:
        """Send the record of a finished event to its destination, if it has one."""
        config = self._config(ctx, request)
        destination = config.get("DestinationConfig", {}).get(side, {}).get("Destination")
        if destination:
            body = _record(ctx, request, condition)
            delivery.emit(ctx, Delivery(destination, body, request.function, "lambda.amazonaws.com"))


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
    arn = request.function if request.function.count(":") > 6 else f"{request.function}:{LATEST}"
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "requestContext": {
            "requestId": request.request_id,
            "functionArn": arn,
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

"""Invoke and InvokeWithResponseStream, and the two functions by which the platform itself invokes."""

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from preheat.execution.contract import (
    FunctionSpec,
    Invocation,
    StreamFailed,
    StreamStart,
    Throttled,
)
from preheat.execution.contract import Outcome as RunOutcome
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.kernel.stream import Channel
from preheat.services.awslambda import recursion, snapshots
from preheat.services.awslambda.core import Core, Operation, Target
from preheat.services.awslambda.domain import MAX_ASYNC_BYTES, MAX_SYNC_BYTES, invalid, violation
from preheat.services.awslambda.unparsable import explain
from preheat.services.contract import Context, Deferred, Outcome, Params, Reply
from preheat.services.deliveries import trace_header
from preheat.services.machine import Prompt

MAX_CLIENT_CONTEXT = 3_583
MAX_DEPRECATED_BYTES = 262_144
ASYNC_KIND = "lambda.async"

Resolve = Callable[[Any], None]


def start_invocation(
    core: Core,
    spec: FunctionSpec,
    payload: bytes,
    *,
    done: Callable[[RunOutcome], None],
    request_id: str,
    invoked_arn: str = "",
    on_stream: Callable[[StreamStart], None] | None = None,
    tail: bool = False,
    client_context: str | None = None,
    trace_id: str | None = None,
    asynchronous: bool = False,
) -> Throttled | None:
    """Run one event outside any transaction. None: admitted, `done` follows once. Throttled: nothing was started."""
    invocation = Invocation(
        request_id=request_id,
        spec=spec,
        payload=payload,
        invoked_arn=invoked_arn or spec.arn,
        client_context=client_context,
        trace_id=trace_id or recursion.fresh(spec.arn, request_id, core.clock.now(), sampled=spec.tracing),
        asynchronous=asynchronous,
        tail=tail,
        on_stream=on_stream,
    )
    return core.executor.invoke(invocation, done)


def throttled(refusal: Throttled, now: float) -> AwsError:
    """What the client is told. AWS says of a reserved limit not when to try again."""
    wait = max(1, round(refusal.until - now)) if refusal.until is not None else 1
    reserved = refusal.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
    return AwsError(
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        fields={"Type": "User", "Reason": refusal.reason},
        headers={} if reserved else {"Retry-After": str(wait)},
    )


def check_payload(payload: bytes, *, asynchronous: bool = False) -> bytes:
    """The event as it goes to the function: `{}` for none. Raises AwsError for what is too large or no JSON."""
    if asynchronous and len(payload) > MAX_ASYNC_BYTES:
        raise AwsError(
            "RequestTooLargeException",
            f"{len(payload)} byte payload is too large for the Event invocation type (limit {MAX_ASYNC_BYTES} bytes)",
            413,
            fields={"Type": "User"},
        )
    if len(payload) > MAX_SYNC_BYTES:
        raise AwsError(
            "RequestTooLargeException",
            f"Request must be smaller than {MAX_SYNC_BYTES} bytes for the InvokeFunction operation",
            413,
            fields={"Type": "User"},
        )
    if not payload:
        return b"{}"
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = explain(payload, str(error))
        raise AwsError(
            "InvalidRequestContentException",
            f"Could not parse request body into json: Could not parse payload into json: {why}",
            400,
            fields={"Type": "User"},
        ) from error
    return payload


def _body(params: Params) -> bytes:
    payload = params.get("Payload") or b""
    return payload if isinstance(payload, bytes) else bytes(payload)


def _client_context(params: Params) -> str | None:
    """The JSON text of X-Amz-Client-Context."""
    given = params.get("ClientContext")
    if not given:
        return None
    if len(given) > MAX_CLIENT_CONTEXT:
        raise invalid(f"Client context must be at most {MAX_CLIENT_CONTEXT} bytes.")
    try:
        text = base64.b64decode(given, validate=True).decode()
        json.loads(text)
    except ValueError as error:
        raise AwsError(
            "InvalidRequestContentException",
            "Client context must be a valid Base64-encoded JSON object.",
            400,
            fields={"Type": "User"},
        ) from error
    return text


def _wants_tail(params: Params) -> bool:
    kind = params.get("LogType") or "None"
    if kind not in ("None", "Tail"):
        raise violation(kind, "logType", "Member must satisfy enum value set: [None, Tail]")
    return kind == "Tail"


def _refuse_unsupported(params: Params) -> None:
    for member in ("TenantId", "DurableExecutionName"):
        if params.get(member):
            raise invalid(f"Preheat does not support {member}.")


def invoke(core: Core, ctx: Context, params: Params) -> Outcome:
    kind = params.get("InvocationType") or "RequestResponse"
    if kind not in ("RequestResponse", "Event", "DryRun"):
        raise violation(kind, "invocationType", "Member must satisfy enum value set: [Event, RequestResponse, DryRun]")
    tail = _wants_tail(params)
    _refuse_unsupported(params)
    target = core.target(ctx, params["FunctionName"], params.get("Qualifier"))
    snapshots.check_ready(core, target.spec)
    payload = check_payload(_body(params), asynchronous=kind == "Event")
    if kind == "DryRun":
        return Reply({"StatusCode": 204, "Payload": b""}, 204)
    if kind == "Event":
        emit_async(ctx, target.invoked_arn, payload, ctx.request_id)
        scope = Scope(target.spec.account, target.spec.region)
        count = partial(ctx.machine.meter.record, scope, "AWS/Lambda", "AsyncEventsReceived")
        ctx.db.after_commit(partial(count, FunctionName=target.spec.name))
        return Reply({"StatusCode": 202, "Payload": b""}, 202)
    return _run(core, ctx, target, payload, tail, _client_context(params))


def shortcut(core: Core, ctx: Context, params: Params) -> Prompt | None:
    """`invoke` for what the database need not be asked: a target that is known, no trace to continue."""
    if (params.get("InvocationType") or "RequestResponse") != "RequestResponse" or trace_header(ctx) is not None:
        return None
    if (ctx.scope, params["FunctionName"], params.get("Qualifier")) not in core.targets:
        return None
    outcome = invoke(core, ctx, params)
    return outcome if isinstance(outcome, Prompt) else None


def invoke_async(core: Core, ctx: Context, params: Params) -> Outcome:
    """The deprecated way: an Event invocation of at most 256 KB."""
    payload = params.get("InvokeArgs") or b""
    payload = payload if isinstance(payload, bytes) else bytes(payload)
    if len(payload) > MAX_DEPRECATED_BYTES:
        raise AwsError(
            "InvalidRequestContentException",
            f"{len(payload)} byte payload is too large for the InvokeAsync operation (limit {MAX_DEPRECATED_BYTES} "
            "bytes)",
            400,
            fields={"Type": "User"},
        )
    invoke(core, ctx, {"FunctionName": params["FunctionName"], "InvocationType": "Event", "Payload": payload})
    return Reply({"Status": 202}, 202)


def emit_async(ctx: Context, invoked_arn: str, payload: bytes, request_id: str) -> None:
    """Store an asynchronous invocation; `triggers/async_invoke` runs it. `payload` is JSON."""
    event = {
        "function": invoked_arn, "payload": payload.decode(), "request_id": request_id, "accepted_at": ctx.now,
    }  # fmt: skip
    trace = trace_header(ctx)
    if trace is not None:
        event["trace"] = trace
    ctx.db.emit(ASYNC_KIND, msgspec.json.encode(event), ctx.now)


def _run(core: Core, ctx: Context, target: Target, payload: bytes, tail: bool, client_context: str | None) -> Prompt:
    clock = ctx.machine.clock
    request_id = ctx.request_id
    trace = trace_header(ctx)
    trace_id = None if trace is None else recursion.check(ctx, target.spec, (trace,), request_id)

    def start(resolve: Resolve) -> None:
        refusal = start_invocation(
            core, target.spec, payload, done=resolve, request_id=request_id, invoked_arn=target.invoked_arn, tail=tail,
            client_context=client_context, trace_id=trace_id,
        )  # fmt: skip
        if refusal is not None:
            resolve(throttled(refusal, clock.now()))

    def answer(ctx: Context, outcome: RunOutcome) -> Reply:
        if outcome.restore_error is not None:
            raise snapshots.restore_failure(outcome.restore_error)
        output: Params = {"StatusCode": 200, "Payload": outcome.payload, "ExecutedVersion": target.spec.version}
        if outcome.error is not None:
            output["FunctionError"] = "Unhandled"
        if tail:
            output["LogResult"] = base64.b64encode(outcome.log_tail).decode()
        return Reply(output, 200)

    return Prompt(start, answer)


def invoke_with_response_stream(core: Core, ctx: Context, params: Params) -> Outcome:
    kind = params.get("InvocationType") or "RequestResponse"
    if kind not in ("RequestResponse", "DryRun"):
        raise violation(kind, "invocationType", "Member must satisfy enum value set: [RequestResponse, DryRun]")
    _refuse_unsupported(params)
    target = core.target(ctx, params["FunctionName"], params.get("Qualifier"))
    snapshots.check_ready(core, target.spec)
    payload = check_payload(_body(params))
    client_context = _client_context(params)
    tail = _wants_tail(params)
    if kind == "DryRun":
        empty = Channel()
        empty.close()
        return Reply({"StatusCode": 204, "EventStream": empty}, 204)
    clock, request_id = ctx.machine.clock, ctx.request_id
    trace_id = recursion.check(ctx, target.spec, (trace_header(ctx),), request_id)
    answer = _StreamedAnswer(tail)

    def start(resolve: Resolve) -> None:
        answer.resolve = resolve
        refusal = start_invocation(
            core, target.spec, payload, done=answer.finished, request_id=request_id, invoked_arn=target.invoked_arn,
            on_stream=answer.begun, tail=tail, client_context=client_context, trace_id=trace_id,
        )  # fmt: skip
        if refusal is not None:
            resolve(throttled(refusal, clock.now()))

    def then(ctx: Context, content_type: str) -> Reply:
        output = {
            "StatusCode": 200,
            "ExecutedVersion": target.spec.version,
            "ResponseStreamContentType": content_type,
            "EventStream": answer.events,
        }
        return Reply(output, 200)

    return Deferred(start, then)


class _StreamedAnswer:
    """Turns a handler's bytes into PayloadChunk events, then one InvokeComplete when the chunks have ended and the
    outcome is known, whichever comes last."""

    def __init__(self, tail: bool) -> None:
        self.events = Channel()
        self.resolve: Resolve = lambda value: None
        self._tail = tail
        self._streaming = False
        self._ended = False
        self._error: BaseException | None = None
        self._outcome: RunOutcome | None = None

    def begun(self, start: StreamStart) -> None:
        self._streaming = True
        chunks, events = start.chunks, self.events
        events.on_cancel = chunks.cancel
        events.on_resume = chunks.resume

        def pass_on(chunk: bytes) -> None:
            events.send({"PayloadChunk": {"Payload": chunk}})
            if events.paused:
                chunks.pause()

        chunks.attach(pass_on, self._end)
        self.resolve(start.content_type)

    def finished(self, outcome: RunOutcome) -> None:
        self._outcome = outcome
        if self._streaming:
            self._complete()
            return
        if outcome.restore_error is not None:
            self.resolve(snapshots.restore_failure(outcome.restore_error))
            return
        if outcome.error is None and outcome.payload:
            self.events.send({"PayloadChunk": {"Payload": outcome.payload}})
        self._ended = True
        self._complete()
        self.resolve(outcome.content_type)

    def _end(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self._complete()

    def _complete(self) -> None:
        if not self._ended or self._outcome is None:
            return
        complete: Params = {}
        if isinstance(self._error, StreamFailed):
            complete = {
                "ErrorCode": self._error.error_type,
                "ErrorDetails": self._error.error_body.decode("utf-8", "replace"),
            }
        elif self._outcome.error is not None:
            complete = {
                "ErrorCode": self._outcome.error, "ErrorDetails": self._outcome.payload.decode("utf-8", "replace"),
            }  # fmt: skip
        elif self._error is not None:
            complete = {"ErrorCode": "Runtime.TruncatedResponse", "ErrorDetails": str(self._error)}
        if self._tail:
            complete["LogResult"] = base64.b64encode(self._outcome.log_tail).decode()
        self.events.send({"InvokeComplete": complete})
        self.events.close()


OPERATIONS: dict[str, Operation] = {
    "Invoke": invoke,
    "InvokeAsync": invoke_async,
    "InvokeWithResponseStream": invoke_with_response_stream,
}

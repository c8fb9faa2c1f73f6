"""What the doors in front of functions share: run a step in the machine, invoke, answer buffered or streamed."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from preheat.execution.contract import FunctionSpec, StreamStart, Throttled
from preheat.execution.contract import Outcome as Ending
from preheat.gateway.connection import Exchange
from preheat.gateway.http_events import (
    JSON_TYPE,
    PRELUDE_TYPE,
    BadHandlerAnswer,
    PreludeReader,
    buffered_stream,
    proxy_response,
    response_head,
)
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpResponse
from preheat.kernel.stream import Channel
from preheat.services.contract import Context, Deferred, Outcome, Reply, Wait
from preheat.services.machine import Machine

Decorate = Callable[[HttpResponse], None]
LATE = object()
"""What a deferred answer is resolved with when its time is up."""


def plain(status: int, document: dict[str, Any], *headers: tuple[str, str]) -> HttpResponse:
    """A JSON answer of the front door's own."""
    return HttpResponse(status, [("Content-Type", "application/json"), *headers], msgspec.json.encode(document))


def run_step(
    machine: Machine,
    exchange: Exchange,
    step: Callable[[Context], Outcome],
    failure: Callable[[AwsError], HttpResponse],
    decorate: Decorate = lambda response: None,
) -> None:
    """Run `step` in a transaction. It answers with `answer(response)`, or defers; an error goes through `failure`."""

    def reply(result: Reply | AwsError) -> None:
        response = failure(result) if isinstance(result, AwsError) else result.output["response"]
        if response is not None:
            decorate(response)
            exchange.respond(response)

    task = machine.perform(step, reply)
    exchange.on_gone = lambda: machine.cancel(task)


def answer(response: HttpResponse | None) -> Reply:
    """The outcome of a step that has the response; None when the response has already begun."""
    return Reply({"response": response})


def returned(
    ended: Ending, *, infer: bool, default_type: str, documents: bool = False
) -> HttpResponse | None:
    """The response that a handler gave whole (`proxy_response`), or None for one that failed or gave no response."""
    if ended.error is not None:
        return None
    try:
        if ended.content_type != JSON_TYPE:
            return buffered_stream(ended.payload, ended.content_type)
        return proxy_response(ended.payload, infer=infer, default_type=default_type, documents=documents)
    except BadHandlerAnswer:
        return None


class Functions(Protocol):
    """What a door needs of the Lambda service."""

    def target(self, ctx: Context, identifier: str, qualifier: str | None = None) -> Any: ...

    def start_invocation(self, spec: FunctionSpec, payload: bytes, **options: Any) -> Throttled | None: ...


def invoke_buffered(
    functions: Functions,
    target: Any,
    payload: bytes,
    request_id: str,
    settle: Callable[[Ending | Throttled], HttpResponse],
    trace_id: str | None = None,
) -> Deferred:
    """Invoke `target` (the Lambda service's) and make the response of how it ended. `trace_id` is the trace header to
    continue, if any."""

    def begin(resolve: Callable[[Any], None]) -> None:
        refused = functions.start_invocation(
            target.spec, payload, done=resolve, request_id=request_id, invoked_arn=target.invoked_arn,
            trace_id=trace_id,
        )  # fmt: skip
        if refused is not None:
            resolve(refused)

    return Deferred(begin, lambda ctx, ended: answer(settle(ended)))


def within(machine: Machine, deferred: Deferred, until: float, late: Callable[[], HttpResponse]) -> Deferred:
    """`deferred`, or the answer `late()` when it has none at `until` (epoch seconds). The invocation goes on."""

    def begin(resolve: Callable[[Any], None]) -> None:
        open_ = True

        def first(value: Any) -> None:
            nonlocal open_
            if open_:
                open_ = False
                machine.cancel(timer)
                resolve(value)

        timer = machine.perform(lambda ctx: Wait((), until, lambda inner: {}), lambda reply: first(LATE))
        deferred.start(first)

    def then(ctx: Context, value: Any) -> Outcome:
        return answer(late()) if value is LATE else deferred.then(ctx, value)

    return Deferred(begin, then)


def invoke_streamed(
    functions: Functions,
    target: Any,
    payload: bytes,
    request_id: str,
    settle: Callable[[Ending | Throttled], HttpResponse],
    exchange: Exchange,
    decorate: Decorate,
    trace_id: str | None = None,
) -> Deferred:
    """Invoke; a handler that streams reaches the client chunk by chunk, any other is answered by `settle`."""

    def begin(resolve: Callable[[Any], None]) -> None:
        def on_stream(started: StreamStart) -> None:
            stream_response(started, exchange, decorate)

        refused = functions.start_invocation(
            target.spec, payload, done=resolve, request_id=request_id, invoked_arn=target.invoked_arn,
            on_stream=on_stream, trace_id=trace_id,
        )  # fmt: skip
        if refused is not None:
            resolve(refused)

    def then(ctx: Context, ended: Ending | Throttled) -> Outcome:
        if not isinstance(ended, Throttled) and ended.streamed:
            return answer(None)
        return answer(settle(ended))

    return Deferred(begin, then)


def stream_response(started: StreamStart, exchange: Exchange, decorate: Decorate) -> None:
    """Send a streamed answer on: with its prelude's status and headers when it has one."""
    body = Channel()
    body.on_cancel = started.chunks.cancel
    body.on_pause = started.chunks.pause
    body.on_resume = started.chunks.resume

    def respond(status: int, headers: list[tuple[str, str]]) -> None:
        response = HttpResponse(status, headers, body)
        decorate(response)
        exchange.on_gone = None
        exchange.respond(response)

    if started.content_type != PRELUDE_TYPE:
        respond(200, [("content-type", started.content_type or "application/octet-stream")])
        started.chunks.attach(body.send, body.close)
        return
    reader: PreludeReader | None = PreludeReader()

    def refuse() -> None:
        body.close()
        response = HttpResponse(502, [("content-type", "text/plain")], b"Internal Server Error")
        decorate(response)
        exchange.respond(response)

    def chunk(data: bytes) -> None:
        nonlocal reader
        if reader is None:
            body.send(data)
            return
        try:
            found = reader.feed(data)
            if found is None:
                return
            status, headers = response_head(found[0])
        except BadHandlerAnswer:
            reader = None
            started.chunks.cancel()
            refuse()
            return
        reader = None
        if not any(name == "content-type" for name, _ in headers):
            headers.append(("content-type", "application/octet-stream"))
        respond(status, headers)
        if found[1]:
            body.send(found[1])

    def end(error: BaseException | None) -> None:
        if reader is not None:
            refuse()
        else:
            body.close(error)

    started.chunks.attach(chunk, end)

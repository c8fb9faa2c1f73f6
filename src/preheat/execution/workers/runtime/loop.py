"""The loop of a Python environment: load the handler, then event after event, from whichever client.

A handler that is a generator, or returns an iterator or an asynchronous generator of bytes or str, streams: each item
leaves before the next is made. A first item that is a dict with "statusCode" becomes the prelude of an HTTP response
(Lambda's http-integration-response format). Errors before the first item are ordinary errors, later ones go into the
trailers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from . import hooks, logs
from .channel import ChannelClient
from .client import Closed, Event
from .context import LambdaContext, fixed
from .handler import Fault, describe, load, log_text

if TYPE_CHECKING:
    from .client import RuntimeClient

    Client = RuntimeClient | ChannelClient

HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"
UNICODE_RUNTIMES = ("python3.12", "python3.13", "python3.14", "python3.15")
PLAIN = frozenset((dict, list, str, int, float, bool, bytes, type(None)))
PRELUDE_KEYS = ("statusCode", "headers", "cookies", "multiValueHeaders")


class Marshaller:
    """Answers as AWS encodes them: Decimal as a number with all its digits, NaN allowed, ASCII before python3.12."""

    def __init__(self, runtime: str) -> None:
        self._mark = f"@@decimal-{os.urandom(8).hex()}:"
        self._decimals = False
        self._encode = json.JSONEncoder(ensure_ascii=runtime not in UNICODE_RUNTIMES, default=self._default).encode

    def _default(self, value: Any) -> Any:
        if isinstance(value, Decimal):
            if value.is_nan():
                return math.nan
            self._decimals = True
            return self._mark + str(value)
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

    def encode(self, value: Any) -> tuple[bytes, str]:
        """Body and content type. Raises Fault (Runtime.MarshalError)."""
        if isinstance(value, bytes):
            return value, "application/unknown"
        try:
            text = self._encode(value)
            if self._decimals:
                self._decimals = False
                text = re.sub(f'"{self._mark}([^"]*)"', r"\1", text)
            return text.encode(), "application/json"
        except Exception as error:
            raise Fault("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


class Runtime(NamedTuple):
    """An initialised function."""

    handler: Callable[[Any, Any], Any]
    request_filter: logs.RequestFilter
    marshaller: Marshaller


def connect(descriptor: int) -> ChannelClient:
    """The client on the socket that Preheat hands down."""
    return ChannelClient(socket.socket(fileno=descriptor))


def initialise(handler_name: str, runtime: str) -> Runtime:
    """Raises Fault or what the function's module raised."""
    request_filter = logs.set_up()
    return Runtime(load(handler_name), request_filter, Marshaller(runtime))


def run(client: Client, handler_name: str, runtime: str) -> int:
    """Initialise, then serve; returns the process's exit status. A function with SnapStart whose process cannot be
    forked (it runs below a wrapper script) passes its snapshot at once, hooks and all."""
    try:
        made = initialise(handler_name, runtime)
    except Exception as error:
        error_type, document = describe(error, "")
        log_error(document)
        client.fail_init(error_type, document)
        return 1
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        status = _pass_snapshot(client)
        if status:
            return status
    return serve(client, made)


def _pass_snapshot(client: Client) -> int:
    try:
        hooks.before_snapshot()
        client.restore_next()
    except Exception as error:
        document = describe(error, "")[1]
        log_error(document)
        client.fail_init(hooks.BEFORE_SNAPSHOT_ERROR, document)
        return hooks.BEFORE_SNAPSHOT_STATUS
    try:
        hooks.after_restore()
    except Exception as error:
        document = describe(error, "")[1]
        log_error(document)
        client.fail_restore(hooks.AFTER_RESTORE_ERROR, document)
        return hooks.AFTER_RESTORE_STATUS
    return 0


def serve(client: Client, runtime: Runtime) -> int:
    """Until the other side closes; returns the process's exit status."""
    handler, request_filter, marshaller = runtime
    shared = fixed()
    try:
        while True:
            event = client.next()
            request_filter.request_id = event.request_id
            _serve(client, handler, event, marshaller, shared)
    except (Closed, ConnectionError):
        return 0


class _Rehearsal:
    """A client with a few events and nobody behind it."""

    def __init__(self, events: int) -> None:
        self._left = events

    def next(self) -> Event:
        if not self._left:
            raise Closed("the rehearsal is over")
        self._left -= 1
        return Event("rehearsal", 0, "arn:aws:lambda:us-east-1:000000000000:function:rehearsal", b"{}")

    def respond(self, request_id: str, body: bytes, content_type: str) -> None:
        return


def rehearse(events: int = 20) -> None:
    """Run the loop over nothing: what Python prepares at the first runs of a function is then prepared before the fork,
    and shared."""
    runtime = Runtime(lambda event, context: event, logs.RequestFilter(), Marshaller("python3.12"))
    serve(_Rehearsal(events), runtime)


def _serve(
    client: Client, handler: Callable[[Any, Any], Any], event: Event, marshaller: Marshaller, shared: dict[str, Any]
) -> None:
    try:
        body, content_type = b"", ""
        result = handler(*_arguments(event, shared))
        items = None if type(result) in PLAIN else _items(result)
        if items is None:
            body, content_type = marshaller.encode(result)
    except Exception as error:
        _fail(client, event.request_id, error)
        return
    finally:
        flush()
    if items is None:
        client.respond(event.request_id, body, content_type)
    else:
        _stream(client, event.request_id, items)


def _arguments(event: Event, shared: dict[str, Any]) -> tuple[Any, LambdaContext]:
    if event.trace_id:
        os.environ["_X_AMZN_TRACE_ID"] = event.trace_id
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    try:
        value = json.loads(event.body.decode("utf-8", "surrogatepass"))
    except Exception as error:
        raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error
    context = LambdaContext(
        event.request_id,
        event.deadline_ms,
        event.invoked_arn,
        _parsed(event.client_context, "Client Context") if event.client_context else None,
        _parsed(event.cognito_identity, "Cognito Identity") if event.cognito_identity else None,
        event.tenant_id or None,
        shared,
    )
    return value, context


def _parsed(text: str, label: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Fault("Runtime.LambdaContextUnmarshalError", f"Unable to parse {label} JSON: {error}") from error


def _items(result: Any) -> Iterator[Any] | None:
    """The iterator of a streamed answer, or None when the answer is a value."""
    if hasattr(result, "__next__"):
        return result
    if hasattr(result, "__anext__"):
        return _drive(result)
    return None


def _drive(generator: Any) -> Iterator[Any]:
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        while True:
            try:
                yield loop.run_until_complete(_advance(generator))
            except StopAsyncIteration:
                return
    finally:
        _end_loop(loop)


def _end_loop(loop: Any) -> None:
    """What the generator left running is cancelled, as `asyncio.run` does."""
    import asyncio

    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _advance(generator: Any) -> Any:
    return await generator.__anext__()


def _stream(client: Client, request_id: str, items: Iterator[Any]) -> None:
    content_type = "application/octet-stream"
    try:
        first = next(items, b"")
        if isinstance(first, dict) and "statusCode" in first:
            content_type = HTTP_INTEGRATION
            prelude = {key: first[key] for key in PRELUDE_KEYS if key in first}
            data = json.dumps(prelude).encode() + bytes(8)
        else:
            data = _bytes(first)
    except Exception as error:
        _fail(client, request_id, error)
        return
    finally:
        flush()
    client.begin_stream(request_id, content_type, data)
    try:
        for item in items:
            client.send_chunk(_bytes(item))
    except (ConnectionError, Closed):
        raise
    except Exception as error:
        error_type, document = describe(error, request_id)
        log_error(document)
        client.end_stream(error_type, document)
    else:
        flush()
        client.end_stream()


def _bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    raise Fault("Runtime.MarshalError", f"Unable to marshal response: a stream yields bytes or str, not {type(item)}")


def _fail(client: Client, request_id: str, error: Exception) -> None:
    error_type, document = describe(error, request_id)
    log_error(document)
    client.fail(request_id, error_type, document)


def log_error(document: dict[str, Any]) -> None:
    """A handler may have closed or replaced the output; the error is answered all the same."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.write(log_text(document))
    flush()


def flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return

"""The loop of a Python environment: load the handler, then event after event.

A handler that is a generator, or returns an iterator or an asynchronous generator of bytes or str, streams: each item
leaves before the next is made. A first item that is a dict with "statusCode" becomes the prelude of an HTTP response
(Lambda's http-integration-response format). Errors before the first item are ordinary errors, later ones go into the
trailers.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from . import logs
from .client import Closed, Event, RuntimeClient
from .context import LambdaContext
from .handler import Fault, describe, load, log_text

HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"
UNICODE_RUNTIMES = ("python3.12", "python3.13", "python3.14", "python3.15")
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


def run(client: RuntimeClient, handler_name: str, runtime: str) -> int:
    """Serve until the other side closes; returns the process's exit status."""
    request_filter = logs.set_up()
    try:
        handler = load(handler_name)
    except Exception as error:
        error_type, document = describe(error, "")
        _log_error(document)
        client.fail_init(error_type, document)
        return 1
    marshaller = Marshaller(runtime)
    try:
        while True:
            event = client.next()
            request_filter.request_id = event.request_id
            _serve(client, handler, event, marshaller)
    except (Closed, ConnectionError):
        return 0


def _serve(client: RuntimeClient, handler: Callable[[Any, Any], Any], event: Event, marshaller: Marshaller) -> None:
    try:
        body, content_type = b"", ""
        result = handler(*_arguments(event))
        items = _items(result)
        if items is None:
            body, content_type = marshaller.encode(result)
    except Exception as error:
        _fail(client, event.request_id, error)
        return
    finally:
        _flush()
    if items is None:
        client.respond(event.request_id, body, content_type)
    else:
        _stream(client, event.request_id, items)


def _arguments(event: Event) -> tuple[Any, LambdaContext]:
    headers = event.headers
    trace = headers.get("lambda-runtime-trace-id")
    if trace:
        os.environ["_X_AMZN_TRACE_ID"] = trace
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    try:
        value = json.loads(event.body)
    except Exception as error:
        raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error
    context = LambdaContext(
        event.request_id,
        int(headers["lambda-runtime-deadline-ms"]),
        headers.get("lambda-runtime-invoked-function-arn", ""),
        _header_json(headers, "lambda-runtime-client-context", "Client Context"),
        _header_json(headers, "lambda-runtime-cognito-identity", "Cognito Identity"),
        headers.get("lambda-runtime-aws-tenant-id"),
    )
    return value, context


def _header_json(headers: dict[str, str], name: str, label: str) -> Any:
    text = headers.get(name)
    if not text:
        return None
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

    with asyncio.Runner() as runner:
        while True:
            try:
                yield runner.run(_advance(generator))
            except StopAsyncIteration:
                return


async def _advance(generator: Any) -> Any:
    return await generator.__anext__()


def _stream(client: RuntimeClient, request_id: str, items: Iterator[Any]) -> None:
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
        _flush()
    client.begin_stream(request_id, content_type, data)
    try:
        for item in items:
            client.send_chunk(_bytes(item))
    except (ConnectionError, Closed):
        raise
    except Exception as error:
        error_type, document = describe(error, request_id)
        _log_error(document)
        client.end_stream(error_type, document)
    else:
        _flush()
        client.end_stream()


def _bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    raise Fault("Runtime.MarshalError", f"Unable to marshal response: a stream yields bytes or str, not {type(item)}")


def _fail(client: RuntimeClient, request_id: str, error: Exception) -> None:
    error_type, document = describe(error, request_id)
    _log_error(document)
    client.fail(request_id, error_type, document)


def _log_error(document: dict[str, Any]) -> None:
    sys.stdout.write(log_text(document))
    _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return

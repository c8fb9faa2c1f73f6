"""Streaming answers from Python functions, on Preheat and on AWS.

A handler that is a generator (or an asynchronous generator) of str or bytes streams: every item leaves before the next
one is made. A first item made by `head` sets status, headers and cookies of the HTTP response.

    from preheat_stream import event, head

    def handler(payload, context):
        yield head(200, {"content-type": "text/event-stream"})
        for token in tokens(payload):
            yield event({"text": token})

`streaming` serves handlers that would rather write than yield. Preheat's runtime streams by itself; on AWS this layer
brings the runtime client, which AWS_LAMBDA_EXEC_WRAPPER=/opt/preheat-stream puts in place of Lambda's own.
"""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import json
import queue
import threading

__all__ = ["Stream", "event", "head", "streaming"]

BUFFERED_ITEMS = 16


def head(status=200, headers=None, cookies=()):
    """The first item of a streamed HTTP response."""
    item = {"statusCode": status, "headers": dict(headers or {})}
    if cookies:
        item["cookies"] = list(cookies)
    return item


def event(data, name=None, id=None, retry_ms=None):
    """One server-sent event as text; `data` is text, or anything json can write."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    fields = (("event", name), ("id", id), ("retry", retry_ms))
    lines = [f"{field}: {value}" for field, value in fields if value is not None]
    lines += [f"data: {line}" for line in text.split("\n")]
    return "\n".join(lines) + "\n\n"


class Stream:
    """What a `streaming` handler writes to. `write` waits while the client is slower than the handler, and raises
    BrokenPipeError once nobody reads any more."""

    def __init__(self):
        self._items = queue.Queue(BUFFERED_ITEMS)
        self._closed = False

    def head(self, status=200, headers=None, cookies=()):
        """Status and headers; before the first `write`."""
        self._put(head(status, headers, cookies))

    def write(self, data):
        """A piece of the body, str or bytes."""
        self._put(data)

    def _put(self, item):
        while not self._closed:
            try:
                self._items.put(item, timeout=0.5)
                return
            except queue.Full:
                continue
        raise BrokenPipeError("the answer is no longer read")

    def _drain(self):
        while True:
            item = self._items.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item


class _End:
    def __init__(self, error):
        self.error = error


def streaming(function):
    """Make a handler of `function(event, context, stream)`, plain or async; what it returns is not looked at."""

    @functools.wraps(function)
    def handler(payload, context):
        stream = Stream()

        def work():
            error = None
            try:
                result = function(payload, context, stream)
                if inspect.isawaitable(result):
                    asyncio.run(_finish(result))
            except BaseException as raised:
                error = raised
            with contextlib.suppress(BrokenPipeError):
                stream._put(_End(error))

        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
        try:
            yield from stream._drain()
        finally:
            stream._closed = True

    return handler


async def _finish(awaitable):
    return await awaitable

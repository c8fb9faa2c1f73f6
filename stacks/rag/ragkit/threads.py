"""Calls made beside one another, in threads that are kept from one to the next.

A thread takes a while to begin, and takes the interpreter from whoever began it. One that waits already makes the call
that it is handed once the caller itself waits for something, so what the caller does next is not held up by it.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


class Threads:
    """At most `most`, begun as they are needed, and anew in a process that was forked since. What is called has the
    caller's context. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None

    def start(self, call: Callable[..., Result], *given: Any) -> "Future[Result]":
        if self._pool is None or self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self._most, "search"), os.getpid()
        return self._pool.submit(copy_context().run, call, *given)

    def map(self, call: Callable[[Given], Result], given: Sequence[Given]) -> list[Result]:
        """The results in order; the first call is made by this thread."""
        others = [self.start(call, one) for one in given[1:]]
        return [call(one) for one in given[:1]] + [one.result() for one in others]

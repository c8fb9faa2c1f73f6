"""Values that arrive over time, without a thread and without asyncio.

A `Channel` carries ordered items from one producer to one consumer on the core's thread. Producers on other threads go
through `Background.stream`, which posts their items to that thread.
"""

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class FileSlice(NamedTuple):
    """A response body that lies in a file: `length` bytes from `offset`."""

    path: Path
    offset: int
    length: int


class Channel:
    """One producer, one consumer, one thread.

    The producer calls `send` and then `close` once (with an exception when it failed half-way). The consumer calls
    `attach` once; items sent before that are kept for it. A consumer that goes away calls `cancel`, which the producer
    sees as `cancelled` and through `on_cancel`. `pause`/`resume` are the consumer's back-pressure: a producer that can
    slow down checks `paused` (or is told by `on_pause`) and continues in `on_resume`.
    """

    __slots__ = ("_closed", "_consumer", "_end", "_error", "_items", "cancelled", "on_cancel", "on_pause", "on_resume",
                 "paused")  # fmt: skip

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._consumer: Callable[[Any], None] | None = None
        self._end: Callable[[BaseException | None], None] | None = None
        self._closed = False
        self._error: BaseException | None = None
        self.cancelled = False
        self.paused = False
        self.on_cancel: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None

    @property
    def closed(self) -> bool:
        return self._closed

    def send(self, item: Any) -> None:
        if self._closed or self.cancelled:
            return
        if self._consumer is not None:
            self._consumer(item)
        else:
            self._items.append(item)

    def close(self, error: BaseException | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        self._error = error
        if self._end is not None and not self.cancelled:
            self._end(error)

    def attach(self, consumer: Callable[[Any], None], end: Callable[[BaseException | None], None]) -> None:
        """Hand every item to `consumer`, then call `end` with None or the producer's error."""
        self._consumer, self._end = consumer, end
        while self._items and not self.cancelled:
            consumer(self._items.popleft())
        if self._closed and not self.cancelled:
            end(self._error)

    def cancel(self) -> None:
        if self.cancelled or self._closed:
            return
        self.cancelled = True
        self._items.clear()
        if self.on_cancel is not None:
            self.on_cancel()

    def pause(self) -> None:
        self.paused = True
        if self.on_pause is not None:
            self.on_pause()

    def resume(self) -> None:
        self.paused = False
        if self.on_resume is not None:
            self.on_resume()

    def map(self, convert: Callable[[Any], Any], on_error: Callable[[BaseException], Any] | None = None) -> "Channel":
        """A channel of converted items. `on_error` turns a producer's error into one last item; without it the
        error is passed on."""
        out = Channel()
        out.on_cancel = self.cancel
        out.on_pause = self.pause
        out.on_resume = self.resume

        def end(error: BaseException | None) -> None:
            if error is not None and on_error is not None:
                out.send(on_error(error))
                error = None
            out.close(error)

        self.attach(lambda item: out.send(convert(item)), end)
        return out


class Background(Protocol):
    """Work that must not hold up the core's thread. Live: a small thread pool. In the simulator: done at once."""

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run `work` elsewhere; call `done` on the core's thread with its value, or with the exception it raised."""

    def stream(self, produce: Callable[[], Iterable[Any]]) -> Channel:
        """Iterate `produce()` elsewhere; its items arrive in the returned channel on the core's thread."""


class InlineBackground:
    """`Background` that does the work at once, on the caller's thread: the simulator and unit tests."""

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        try:
            value = work()
        except Exception as error:
            value = error
        done(value)

    def stream(self, produce: Callable[[], Iterable[Any]]) -> Channel:
        channel = Channel()
        try:
            for item in produce():
                channel.send(item)
        except Exception as error:
            channel.close(error)
        else:
            channel.close()
        return channel

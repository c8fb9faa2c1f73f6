"""How fast a streamed answer may leave: as fast as its client reads and, where that is set, AWS's bandwidth."""

from dataclasses import dataclass

from preheat.execution.workers.contract import Worker
from preheat.kernel.stream import Channel

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The first `free_bytes` of an answer go unhindered, the rest at `per_second` bytes."""

    free_bytes: int
    per_second: int


AWS_BANDWIDTH = Bandwidth(6 * MIB, 2 * MIB)


class Flow:
    """One streamed answer. The worker is not read from while the client or the bandwidth holds it back; the handler
    then waits in its write. Times are monotonic seconds."""

    def __init__(self, channel: Channel, worker: Worker, bandwidth: Bandwidth | None) -> None:
        self._channel = channel
        self._worker = worker
        self._bandwidth = bandwidth
        self._bytes = 0
        self._metered_at: float | None = None
        self._held_until: float | None = None
        channel.on_resume = self._go_on
        channel.on_cancel = self._release

    def send(self, data: bytes, now: float) -> None:
        self._channel.send(data)
        limit = self._bandwidth
        if limit is not None:
            self._bytes += len(data)
            over = self._bytes - limit.free_bytes
            if over > 0:
                if self._metered_at is None:
                    self._metered_at = now
                until = self._metered_at + over / limit.per_second
                self._held_until = until if until > now else None
        if self._held_until is not None or self._channel.paused:
            self._worker.pause()

    def look(self, now: float) -> None:
        """Go on when the bandwidth allows it again."""
        if self._held_until is not None and now >= self._held_until:
            self._held_until = None
            self._go_on()

    def _go_on(self) -> None:
        if self._held_until is None and not self._channel.paused:
            self._worker.resume()

    def _release(self) -> None:
        """The client has gone: the handler runs on to its end."""
        self._bandwidth = self._held_until = None
        self._worker.resume()

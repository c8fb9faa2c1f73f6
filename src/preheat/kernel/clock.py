"""Time as an argument. Nothing outside this module reads the system clock.

A `Clock` has two faces. `now()` is the wall clock in epoch seconds that services keep their books by; it can be moved
forward (`preheat clock advance`) and is virtual in the simulator. `monotonic()` measures work in flight (a handler's
timeout); advancing the wall clock never moves it, so a running invocation is not killed by a jump.
`peer_now()` is the clock of the outside world, for what clients sign with their own clocks.
"""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Wall time, epoch seconds."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start, for durations of real work."""

    def peer_now(self) -> float:
        """Epoch seconds as a client outside would read them."""


class SystemClock:
    """The machine's clock plus an offset that only grows. The live server keeps the offset in the state (table `meta`)
    and starts with it again, so that the rows of a state never see their clock go back."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> float:
        return time.time() + self.offset

    def monotonic(self) -> float:
        return time.monotonic()

    def peer_now(self) -> float:
        return time.time()

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("a clock only moves forward")
        self.offset += seconds


class ManualClock:
    """A clock that moves only when told: tests and the simulator."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._started = start

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now - self._started

    def peer_now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("a clock only moves forward")
        self._now += seconds

    def move_to(self, moment: float) -> None:
        if moment > self._now:
            self._now = moment

"""The heart of the simulator: moments and actions in order of (time, sequence), under a clock that jumps."""

import heapq
from collections.abc import Callable

from preheat.kernel.clock import ManualClock

RESOLUTION_S = 1e-6
"""Epoch seconds are exact to about a quarter of a microsecond; a moment this close has come."""


class Timeline:
    """Actions at moments of `clock.monotonic()`. Equal moments run in the order in which they were asked for."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run `action` when the clock has reached `when` (monotonic seconds)."""
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, action))

    def next(self) -> float | None:
        """The next moment, or None."""
        return self._heap[0][0] if self._heap else None

    def run_due(self) -> bool:
        """Run what is due now; whether there was anything."""
        ran = False
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now + RESOLUTION_S:
            heapq.heappop(self._heap)[2]()
            ran = True
        return ran

    def clear(self) -> None:
        self._heap.clear()

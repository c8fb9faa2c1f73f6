"""Runs the machine on an asyncio loop: a tick when there is work, a timer for the next moment that matters.

How far the clock has been moved is part of the state (table `meta`, key `clock_offset`, seconds): what was written in
the advanced time is in the past for the server that is started next.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

from preheat.gateway.control import ControlError
from preheat.kernel.clock import SystemClock
from preheat.kernel.stream import Channel
from preheat.services.machine import Machine
from preheat.store.database import Database
from preheat.store.errors import StoreError

LONGEST_SLEEP_S = 3600.0
CLOSING_S = 1.0
MAX_STOPS = 2_000
OFFSET_KEY = "clock_offset"
Stepper = Callable[[float], float | None]


class Driver:
    """Moves `clock` to where the state's last server had it. `steppers` are things that enforce times of their own
    outside transactions (the pool of environments): called with now, they return when they want to be called again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, machine: Machine, clock: SystemClock) -> None:
        self._loop = loop
        self._machine = machine
        self._clock = clock
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._stopped = False
        self.steppers: list[Stepper] = []
        self._stepper_due: dict[Stepper, float | None] = {}
        machine.on_work = self.schedule
        clock.advance(max(0.0, _stored_offset(machine.db) - clock.offset))

    def schedule(self) -> None:
        """Run a tick soon; requests that arrive in the same turn of the loop share it."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def step_soon(self, stepper: Stepper) -> None:
        """A stepper's deadline has changed."""
        self._stepper_due[stepper] = 0.0
        self.schedule()

    def advance(self, seconds: float) -> None:
        """Move the wall clock forward, stopping at each moment somebody waits for, until all that became due has
        been started. After MAX_STOPS moments (a year has a million turns of a poller) the rest of the way is taken in
        at most as many steps. The new offset is stored first: a crash half-way leaves no row ahead of its clock.
        Raises ControlError 503, with the clock unmoved, when the disk refuses."""
        clock, machine = self._clock, self._machine
        try:
            _store_offset(machine.db, clock.offset + seconds)
        except StoreError as error:
            raise ControlError(503, f"the clock was not moved: {error}") from error
        end = clock.now() + seconds
        stops, least = 0, 0.0
        while True:
            due = machine.wake_at()
            if due is None or due > end or clock.now() >= end:
                break
            clock.advance(max(0.0, min(max(due, clock.now() + least), end) - clock.now()))
            self._tick()
            stops += 1
            if stops == MAX_STOPS:
                least = max(0.0, end - clock.now()) / MAX_STOPS
        clock.advance(max(0.0, end - clock.now()))
        machine.wake_all()
        while machine.has_work():
            self._tick()
        self.schedule()

    def _run(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        self._tick()
        if self._machine.has_work():
            self.schedule()
        else:
            self._set_timer()

    def _tick(self) -> None:
        self._machine.tick()
        now = self._clock.now()
        for stepper in self.steppers:
            due = self._stepper_due.get(stepper, 0.0)
            if due is not None and due <= now:
                self._stepper_due[stepper] = stepper(now)

    def _set_timer(self) -> None:
        wake_at = self._machine.wake_at()
        times = [due for due in self._stepper_due.values() if due is not None]
        if wake_at is not None:
            times.append(wake_at)
        due = min(times, default=None)
        if due is None:
            return
        delay = min(max(0.0, due - self._clock.now()), LONGEST_SLEEP_S)
        when = self._loop.time() + delay
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        """uvloop counts whole milliseconds and may fire early: the clock cannot tell whether a timer is to come."""
        self._timer = None
        self.schedule()


def _stored_offset(db: Database) -> float:
    return float(db.value("SELECT value FROM meta WHERE key = ?", OFFSET_KEY) or 0.0)


def _store_offset(db: Database, offset: float) -> None:
    """Raises StoreError, with nothing written."""
    with db.transaction():
        db.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", OFFSET_KEY, repr(offset))


class ThreadBackground:
    """`Background` on a few threads; results come back to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int = 4) -> None:
        self._loop = loop
        self._pool = _Threads(threads, "preheat")
        self._streams = _Threads(64, "preheat-stream")

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def job() -> None:
            try:
                value = work()
            except Exception as error:
                value = error
            self._post(done, value)

        self._pool.submit(job)

    def stream(self, produce: Callable[[], Iterable[Any]]) -> Channel:
        channel = Channel()

        def job() -> None:
            error: BaseException | None = None
            try:
                for item in produce():
                    if channel.cancelled:
                        break
                    self._post(channel.send, item)
            except Exception as failure:
                error = failure
            self._post(channel.close, error)

        self._streams.submit(job)
        return channel

    def close(self) -> None:
        """Drop what has not begun, and give what has a second to end; what hangs ends with the process."""
        end = self._loop.time() + CLOSING_S
        for threads in (self._pool, self._streams):
            threads.close()
        for threads in (self._pool, self._streams):
            threads.join(self._loop.time, end)

    def _post(self, function: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, value)


class _Threads:
    """At most `limit` threads, started as they are needed. They are daemons, so a job that hangs (a model server that
    never answers) cannot keep the process from ending."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)

    def join(self, time: Callable[[], float], end: float) -> None:
        for thread in self._threads:
            thread.join(max(0.0, end - time()))

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                self._idle.release()
                job = self._jobs.get()
            if job is None:
                return
            job()

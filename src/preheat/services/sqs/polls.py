"""Receives that wait. One message wakes one of them, the one that has waited longest, however many are parked."""

import heapq
import itertools
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from preheat.services.contract import Context, Outcome, Wait
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.repository import SqsRepository

Again = Callable[[Context], Outcome]


class Polls:
    """A Loop: it wakes the waiting when a hidden message becomes visible, so that each needs no timer but its own end.

    A parked receive is known by what continues it, weakly: when its client goes away the machine drops the Wait and
    with it the entry here.
    """

    name = "sqs polls"
    topics = ()

    def __init__(self, repository: SqsRepository) -> None:
        self._rows = repository
        self._parked: dict[int, WeakValueDictionary[str, Again]] = {}
        self._queues: dict[int, Queue] = {}
        self._alarms: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []
        self._numbers = itertools.count()

    def park(self, ctx: Context, queue: Queue, until: float, again: Again) -> Wait:
        """Wait for a message of `queue`, at most until `until` (epoch seconds)."""
        topic = f"sqs:poll:{next(self._numbers)}"
        resume = partial(self._resume, queue.id, topic, again)
        parked = self._parked.get(queue.id)
        if parked is None:
            parked = self._parked[queue.id] = WeakValueDictionary()
        self._queues[queue.id] = queue
        parked[topic] = resume
        self.alarm(ctx, queue, self._rows.next_visible(queue, ctx.now_ms))
        return Wait((topic,), until, resume)

    def _resume(self, queue_id: int, topic: str, again: Again, ctx: Context) -> Outcome:
        parked = self._parked.get(queue_id)
        if parked is not None:
            parked.pop(topic, None)
            if not parked:
                del self._parked[queue_id]
        return again(ctx)

    def wake(self, ctx: Context, queue_id: int, count: int | None) -> None:
        """Wake `count` of those that wait for the queue, all when it is None."""
        parked = self._parked.get(queue_id) if self._parked else None
        if parked is None:
            return
        for _ in range(len(parked) if count is None else min(count, len(parked))):
            topic = next(parked.keys(), None)
            again = None if topic is None else parked.pop(topic, None)
            if topic is not None and again is not None:
                parked[topic] = again
                ctx.db.notify(topic)

    def alarm(self, ctx: Context, queue: Queue, at_ms: int | None) -> None:
        """A message becomes visible at `at_ms`: whoever waits then wants to know."""
        if at_ms is None or queue.id not in self._parked:
            return
        known = self._alarms.get(queue.id)
        if known is None or at_ms < known:
            self._alarms[queue.id] = at_ms
            heapq.heappush(self._heap, (at_ms, queue.id))
            ctx.machine.wake(self)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for any queue."""
        return not self._parked

    def waiting(self) -> int:
        """How many receives are parked."""
        return sum(map(len, self._parked.values()))

    def step(self, ctx: Context) -> float | None:
        now_ms = ctx.now_ms
        heap = self._heap
        while heap and heap[0][0] <= now_ms:
            at_ms, queue_id = heapq.heappop(heap)
            if self._alarms.get(queue_id) != at_ms:
                continue
            del self._alarms[queue_id]
            parked = self._parked.get(queue_id)
            if not parked:
                self._parked.pop(queue_id, None)
                self._queues.pop(queue_id, None)
                continue
            queue = self._queues[queue_id]
            self.wake(ctx, queue_id, self._rows.ready(queue, now_ms, len(parked)))
            following = self._rows.next_visible(queue, now_ms)
            if following is not None:
                self._alarms[queue_id] = following
                heapq.heappush(heap, (following, queue_id))
        return heap[0][0] / 1_000 if heap else None

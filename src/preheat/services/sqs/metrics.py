"""What AWS/SQS measures: traffic is counted per queue in memory and handed to the meter once a minute, together with
the depths of the queues that were in use during the last six hours."""

from collections.abc import Sequence

from preheat.kernel.meter import MINUTE_S, Sample, Series
from preheat.services.contract import Context
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.repository import SqsRepository
from preheat.services.sqs.tenants import Tenants

NAMESPACE = "AWS/SQS"
ACTIVE_S = 6 * 3_600
MAX_SIZES = 4_096
COUNTS = ("NumberOfMessagesSent", "NumberOfMessagesReceived", "NumberOfMessagesDeleted", "NumberOfEmptyReceives")


class Traffic:
    """One queue since it was last handed on: how often each size was sent, each number of messages received and
    deleted, and how many sends were duplicates."""

    __slots__ = ("deleted", "duplicates", "queue", "received", "sizes")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.clear()

    def clear(self) -> None:
        self.sizes: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self.deleted: dict[int, int] = {}
        self.duplicates = 0

    def busy(self) -> bool:
        return bool(self.sizes or self.received or self.deleted or self.duplicates)


class Metrics:
    """A Loop. Counts of operations that are taken back afterwards stay counted."""

    name = "sqs metrics"
    topics = ()

    def __init__(self, repository: SqsRepository, tenants: Tenants) -> None:
        self._rows = repository
        self._tenants = tenants
        self._traffic: dict[int, Traffic] = {}
        self._active: dict[int, float] | None = None
        self._minute = 0.0

    # -- counting -------------------------------------------------------------------------------------------------

    def _of(self, ctx: Context, queue: Queue) -> Traffic:
        found = self._traffic.get(queue.id)
        if found is None:
            if not self._traffic:
                self._minute = ctx.now // MINUTE_S
            found = self._traffic[queue.id] = Traffic(queue)
            ctx.machine.wake(self)
        return found

    def sent(self, ctx: Context, queue: Queue, size: int) -> None:
        """One message of `size` bytes."""
        sizes = (self._traffic.get(queue.id) or self._of(ctx, queue)).sizes
        sizes[size] = sizes.get(size, 0) + 1
        if len(sizes) > MAX_SIZES:
            self._hand_on(ctx, self._traffic[queue.id], minutes_ago=0)

    def sent_to(self, ctx: Context, queues: Sequence[Queue], sizes: Sequence[int]) -> None:
        """One message to each queue, of so many bytes."""
        traffic = self._traffic
        for queue, size in zip(queues, sizes, strict=True):
            known = traffic.get(queue.id)
            if known is not None and (size in known.sizes or len(known.sizes) < MAX_SIZES):
                known.sizes[size] = known.sizes.get(size, 0) + 1
            else:
                self.sent(ctx, queue, size)

    def duplicate(self, ctx: Context, queue: Queue) -> None:
        self._of(ctx, queue).duplicates += 1

    def received(self, ctx: Context, queue: Queue, number: int) -> None:
        received = (self._traffic.get(queue.id) or self._of(ctx, queue)).received
        received[number] = received.get(number, 0) + 1

    def deleted(self, ctx: Context, queue: Queue, number: int) -> None:
        deleted = (self._traffic.get(queue.id) or self._of(ctx, queue)).deleted
        deleted[number] = deleted.get(number, 0) + 1

    # -- handing on -----------------------------------------------------------------------------------------------

    def step(self, ctx: Context) -> float | None:
        """At the end of every minute while any queue is active."""
        now = ctx.now
        if self._active is None:
            self._active = {queue.id: now for queue in self._rows.all_queues() if self._rows.holds_messages(queue)}
            self._minute = now // MINUTE_S
        if now // MINUTE_S == self._minute:
            return self._next(now)
        self._minute = now // MINUTE_S
        active = self._active
        for queue_id, traffic in self._traffic.items():
            if traffic.busy():
                active[queue_id] = now
        for queue_id in [queue_id for queue_id, at in active.items() if now - at > ACTIVE_S]:
            del active[queue_id]
            self._traffic.pop(queue_id, None)
        if active:
            for queue in self._rows.all_queues():
                if queue.id in active:
                    traffic = self._traffic.setdefault(queue.id, Traffic(queue))
                    traffic.queue = queue
                    self._hand_on(ctx, traffic, zeros=True)
                    self._measure(ctx, queue)
        return self._next(now)

    def _next(self, now: float) -> float | None:
        return (now // MINUTE_S + 1) * MINUTE_S if self._active or self._traffic else None

    def _hand_on(self, ctx: Context, traffic: Traffic, zeros: bool = False, minutes_ago: int = 1) -> None:
        """`zeros`: an active queue reports the counts of what did not happen, too."""
        queue = traffic.queue
        empty = traffic.received.pop(0, 0)
        times = sum(traffic.sizes.values())
        counted = {
            "NumberOfMessagesSent": {1: times} if times else {},
            "NumberOfMessagesReceived": traffic.received,
            "NumberOfMessagesDeleted": traffic.deleted,
            "NumberOfEmptyReceives": {1: empty} if empty else {},
        }
        for name, values in counted.items():
            if values or zeros:
                self._give(ctx, queue, name, values or {0: 1}, minutes_ago=minutes_ago)
        if traffic.sizes:
            self._give(ctx, queue, "SentMessageSize", traffic.sizes, "Bytes", minutes_ago)
        if queue.fifo and (traffic.duplicates or zeros):
            duplicates = {traffic.duplicates: 1}
            self._give(ctx, queue, "NumberOfDeduplicatedSentMessages", duplicates, minutes_ago=minutes_ago)
        traffic.clear()

    def _give(
        self, ctx: Context, queue: Queue, name: str, values: dict[int, int], unit: str = "Count", minutes_ago: int = 0
    ) -> None:
        sample = Sample()
        for value, times in values.items():
            sample.add(value, times)
        series = Series(queue.scope, NAMESPACE, name, (("QueueName", queue.name),), unit)
        ctx.machine.meter.merge(series, (int(ctx.now) // MINUTE_S - minutes_ago) * MINUTE_S, sample)

    def _measure(self, ctx: Context, queue: Queue) -> None:
        visible, in_flight, delayed = self._rows.depth(queue, ctx.now_ms)
        gauges = {
            "ApproximateNumberOfMessagesVisible": visible,
            "ApproximateNumberOfMessagesNotVisible": in_flight,
            "ApproximateNumberOfMessagesDelayed": delayed,
        }
        if queue.fifo:
            gauges["ApproximateNumberOfGroupsWithInflightMessages"] = self._rows.locked_groups(queue, ctx.now_ms)
        elif self._tenants.fair(queue):
            gauges |= self._quiet(ctx, queue, gauges)
        for name, value in gauges.items():
            self._give(ctx, queue, name, {value: 1})
        oldest = self._rows.oldest(queue)
        if oldest is not None:
            age_s = max(0, ctx.now_ms - oldest) // 1_000
            self._give(ctx, queue, "ApproximateAgeOfOldestMessage", {age_s: 1}, "Seconds")

    def _quiet(self, ctx: Context, queue: Queue, whole: dict[str, int]) -> dict[str, int]:
        """The depths without the noisy tenants, and how many of those there are."""
        noisy = self._tenants.in_flight(queue, ctx.now_ms).noisy()
        parts = [self._tenants.counts(queue, group_id, ctx.now_ms) for group_id in noisy]
        names = [f"{name}InQuietGroups" for name in whole]
        values = [value - sum(part[at] for part in parts) for at, value in enumerate(whole.values())]
        return {"ApproximateNumberOfNoisyGroups": len(noisy), **dict(zip(names, values, strict=True))}

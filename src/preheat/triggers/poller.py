"""The one loop that polls for every event source mapping.

A mapping's messages go through a buffer that is cut into batches when it is full (BatchSize records or 6 MB) or its
window has passed. How many batches run at once begins at 5 and grows by 300 a minute while messages wait, up to 1,250
or MaximumConcurrency. Messages are received in the loop's transaction, functions start after its commit, and what they
did is settled in a transaction of its own. State in memory changes only after a commit, so a transaction that is taken
back leaves nothing behind; what a dead process had claimed comes back by its visibility timeout.
"""

import heapq
import itertools
from dataclasses import dataclass, field, replace
from functools import partial

from preheat.execution.contract import Outcome, Throttled
from preheat.kernel.errors import AwsError
from preheat.services.awslambda.domain import MAX_SYNC_BYTES, Mapping
from preheat.services.awslambda.service import LambdaService
from preheat.services.contract import Context, Platform, Reply
from preheat.services.machine import Machine
from preheat.triggers.contract import Batch, Item, Notice, OnNotice, Prepared, Source

INITIAL_CONCURRENCY = 5.0
LEAST_CONCURRENCY = 2.0
GROWTH_PER_S = 300 / 60
MAX_CONCURRENCY = 1_250
IDLE_RESET_S = 60.0
RECEIVES_PER_STEP = 64
BROKEN_RECHECK_S = 5.0
MAX_THROTTLE_BACKOFF_S = 30.0
ENVELOPE_BYTES = len(b'{"Records":[]}')


@dataclass(slots=True, eq=False)
class _Reader:
    """A mapping at work. `limit` is how many batches may run now; `saturated_at` since when messages wait for more."""

    prepared: Prepared
    source: Source
    buffer: list[Item] = field(default_factory=list)
    opened_at: float = 0.0
    in_flight: int = 0
    limit: float = INITIAL_CONCURRENCY
    saturated_at: float | None = None
    active_at: float = 0.0
    stalled: list[tuple[float, int, Batch]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    @property
    def mapping(self) -> Mapping:
        return self.prepared.mapping

    @property
    def ceiling(self) -> int:
        return self.mapping.config.maximum_concurrency or MAX_CONCURRENCY

    def grow(self, now: float) -> None:
        """Bring `limit` up to the present."""
        if self.saturated_at is not None:
            self.limit += (now - self.saturated_at) * GROWTH_PER_S
            self.saturated_at = now
        elif self.in_flight == 0 and not self.buffer and now - self.active_at >= IDLE_RESET_S:
            self.limit = INITIAL_CONCURRENCY
        self.limit = min(self.limit, float(self.ceiling))

    def shrink(self) -> None:
        """Failures and throttles make it poll a little less."""
        self.limit = max(LEAST_CONCURRENCY, self.limit - 1)

    def free(self) -> int:
        return int(self.limit + 1e-6) - self.in_flight


@dataclass(slots=True)
class _Plan:
    """What one step decided for one reader; carried out after the commit."""

    batches: list[Batch]
    buffer: list[Item]
    opened_at: float
    received: int = 0


class Poller:
    name = "poller"
    topics = ("lambda:mappings",)

    def __init__(
        self, platform: Platform, functions: LambdaService, sources: dict[str, Source], on_notice: OnNotice
    ) -> None:
        self._machine: Machine = platform.machine
        self._clock = platform.clock
        self._entropy = platform.entropy
        self._functions = functions
        self._sources = sources
        self._on_notice = on_notice
        self._readers: dict[str, _Reader] = {}
        self._seen_changes = -1
        self._first = 0
        self._numbers = itertools.count()

    def concurrency(self, uuid: str) -> tuple[int, int]:
        """(batches running, batches allowed now) of a mapping, for status and tests."""
        reader = self._readers.get(uuid)
        return (0, 0) if reader is None else (reader.in_flight, int(reader.limit + 1e-6))

    def step(self, ctx: Context) -> float | None:
        self._refresh(ctx)
        readers = list(self._readers.values())
        if not readers:
            return None
        first = self._first = (self._first + 1) % len(readers)
        budget = RECEIVES_PER_STEP
        due: list[float] = []
        for reader in readers[first:] + readers[:first]:
            scoped = replace(ctx, scope=reader.mapping.scope)
            at, used = self._read(scoped, reader, budget)
            budget -= used
            if at is not None:
                due.append(at)
        return min(due, default=None)

    # -- mappings -------------------------------------------------------------------------------------------------

    def _refresh(self, ctx: Context) -> None:
        """Take in mappings that were made, changed or deleted since the last step."""
        changes = self._functions.core.mapping_changes
        if changes == self._seen_changes:
            return
        found = {mapping.uuid: mapping for mapping in self._functions.mappings(ctx)}
        for uuid in [uuid for uuid in self._readers if uuid not in found]:
            del self._readers[uuid]
        for uuid, mapping in found.items():
            source = self._sources[mapping.source_arn.split(":", 3)[2]]
            reader = self._readers.get(uuid)
            if reader is None:
                self._readers[uuid] = _Reader(source.prepare(mapping), source, active_at=ctx.now)
                for topic in source.topics(mapping):
                    self._machine.watch(topic, self)
            elif reader.mapping != mapping:
                reader.prepared = source.prepare(mapping)
                reader.told.clear()
        self._seen_changes = changes

    # -- reading --------------------------------------------------------------------------------------------------

    def _read(self, ctx: Context, reader: _Reader, budget: int) -> tuple[float | None, int]:
        """Claim what may run. Returns (when to come again, receives used)."""
        now = ctx.now
        stalled_at = reader.stalled[0][0] if reader.stalled else None
        if stalled_at is not None and stalled_at <= now:
            ctx.db.after_commit(partial(self._relaunch, reader, now))
            stalled_at = None
        if not reader.mapping.enabled:
            reader.buffer = []
            return stalled_at, 0
        reader.grow(now)
        plan = _Plan([], [item for item in reader.buffer if item.expires_at > now], reader.opened_at)
        try:
            used, drained = self._fill(ctx, reader, plan, budget)
            waiting = reader.free() - len(plan.batches) <= 0 and reader.source.has_backlog(ctx, reader.prepared)
            next_at = reader.source.next_at(ctx, reader.prepared) if drained else None
        except AwsError as error:
            if plan.received:
                raise
            self._tell(reader, "mapping-broken", f"{error.code}: {error.message}")
            reader.prepared.memory.clear()
            return _earliest(now + BROKEN_RECHECK_S, stalled_at), 0
        reader.told.discard("mapping-broken")
        ctx.db.after_commit(partial(self._carry_out, reader, plan, now if waiting else None))
        due = _earliest(stalled_at, next_at)
        if plan.buffer and (drained or plan.opened_at + reader.mapping.config.window_s > now):
            due = _earliest(due, plan.opened_at + reader.mapping.config.window_s)
        if waiting and reader.limit < reader.ceiling:
            due = _earliest(due, now + max(0.001, (1 - reader.limit % 1) / GROWTH_PER_S))
        elif not drained and not waiting and reader.free() - len(plan.batches) > 0:
            due = now
        return (due if due is None or due > now or not drained else now + 0.001), used

    def _fill(self, ctx: Context, reader: _Reader, plan: _Plan, budget: int) -> tuple[int, bool]:
        """Receive and cut until nothing is left, no batch may start, or the budget is spent. Returns (receives used,
        whether the source had nothing more). An error of the source is left to the next step when this one already
        has records."""
        config = reader.mapping.config
        used = 0
        drained = False
        while True:
            while len(plan.batches) < reader.free() and (
                items := _cut(plan, config.batch_size, config.window_s, ctx.now)
            ):
                target = self._functions.target(ctx, reader.mapping.function_arn)
                plan.batches.append(Batch(reader.mapping, items, target.spec, target.invoked_arn))
            if len(plan.batches) >= reader.free() or used >= budget:
                return used, False
            if drained:
                return used, True
            timeout_s = self._functions.resolve(ctx, reader.mapping.function_arn).timeout_s
            try:
                claim = reader.source.claim(ctx, reader.prepared, config.batch_size - len(plan.buffer), timeout_s)
            except AwsError:
                if plan.received:
                    return used, True
                raise
            used += 1
            if not claim.received:
                return used, True
            plan.received += claim.received
            if claim.items and not plan.buffer:
                plan.opened_at = ctx.now
            plan.buffer.extend(claim.items)
            drained = claim.drained

    def _carry_out(self, reader: _Reader, plan: _Plan, saturated_at: float | None) -> None:
        reader.buffer, reader.opened_at = plan.buffer, plan.opened_at
        reader.saturated_at = saturated_at
        if plan.received:
            reader.active_at = self._clock.now()
        reader.in_flight += len(plan.batches)
        for batch in plan.batches:
            self._launch(reader, batch)

    # -- running --------------------------------------------------------------------------------------------------

    def _launch(self, reader: _Reader, batch: Batch) -> None:
        refusal = self._functions.start_invocation(
            batch.spec, batch.payload, done=partial(self._done, reader, batch), request_id=self._entropy.uuid(),
            invoked_arn=batch.invoked_arn,
        )  # fmt: skip
        if refusal is not None:
            self._stall(reader, batch, refusal)

    def _stall(self, reader: _Reader, batch: Batch, refusal: Throttled) -> None:
        """Try a throttled batch again with growing pauses until its messages become visible to others; then let go of
        it: they come back with one receive used up."""
        now = self._clock.now()
        if batch.refusals == 0:
            reader.shrink()
        pause = min(2.0**batch.refusals, MAX_THROTTLE_BACKOFF_S)
        batch.refusals += 1
        batch.retry_at = now + pause
        self._tell(reader, "throttled-trigger", _throttle_text(reader.mapping, batch, refusal))
        if batch.retry_at >= batch.expires_at:
            self._finished(reader, Reply({}))
            return
        heapq.heappush(reader.stalled, (batch.retry_at, next(self._numbers), batch))
        self._machine.wake(self)

    def _relaunch(self, reader: _Reader, now: float) -> None:
        ready = []
        while reader.stalled and reader.stalled[0][0] <= now:
            ready.append(heapq.heappop(reader.stalled)[2])
        for batch in ready:
            self._launch(reader, batch)

    def _done(self, reader: _Reader, batch: Batch, outcome: Outcome) -> None:
        def settle(ctx: Context) -> dict:
            complete = reader.source.settle(ctx, batch, outcome)
            if not complete and not batch.mapping.config.report_item_failures:
                ctx.db.after_commit(reader.shrink)
            return {}

        self._machine.perform(settle, partial(self._finished, reader), batch.mapping.scope)

    def _finished(self, reader: _Reader, reply: Reply | AwsError) -> None:
        reader.in_flight -= 1
        reader.active_at = self._clock.now()
        self._machine.wake(self)

    def _tell(self, reader: _Reader, kind: str, text: str) -> None:
        """Once per mapping and kind, until the mapping is changed."""
        if kind not in reader.told:
            reader.told.add(kind)
            self._on_notice(Notice(kind, reader.mapping.arn, text))


def _cut(plan: _Plan, batch_size: int, window_s: int, now: float) -> list[Item]:
    """Take the next batch off the buffer, or nothing while it may still grow."""
    size, count = ENVELOPE_BYTES, 0
    for item in plan.buffer[:batch_size]:
        size += len(item.record) + 1
        if size > MAX_SYNC_BYTES and count:
            break
        count += 1
    if not count or (count == len(plan.buffer) and count < batch_size and now < plan.opened_at + window_s):
        return []
    items, plan.buffer = plan.buffer[:count], plan.buffer[count:]
    return items


def _earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)


def _throttle_text(mapping: Mapping, batch: Batch, refusal: Throttled) -> str:
    limit = mapping.config.maximum_concurrency
    reserved = refusal.reason.startswith("Reserved")
    cause = "its ReservedConcurrentExecutions" if reserved else "the account's concurrency"
    return (
        f"{batch.spec.name} throttled a batch from {mapping.source_arn}: {cause} is in use. The messages come back "
        "after the visibility timeout with one receive used up, so valid messages can end in the dead letter queue. "
        "Set ScalingConfig.MaximumConcurrency of this mapping to at most the function's ReservedConcurrentExecutions "
        f"(MaximumConcurrency is {limit if limit else 'not set: up to 1,250 batches at once'})."
    )

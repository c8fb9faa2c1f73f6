"""The one loop that polls for every event source mapping.

Each lane of a mapping (a queue has one, a stream one per shard and parallel part) goes through a buffer that is cut
into batches when it is full (BatchSize records or 6 MB) or its window has passed. How many batches of a queue run at
once is the business of `scaling`; of a stream's lane one runs at a time. Records are claimed in the loop's transaction,
functions start after its commit, and what they did is settled in a transaction of its own. State in memory changes only
after a commit, so a transaction that is taken back leaves nothing behind; what a dead process had claimed comes back.
"""

import heapq
import itertools
from dataclasses import replace
from functools import partial

from preheat.execution.contract import FunctionSpec, Outcome, Throttled
from preheat.kernel.errors import AwsError
from preheat.services import findings
from preheat.services.awslambda.domain import Mapping
from preheat.services.awslambda.service import LambdaService
from preheat.services.contract import Context, Platform, Reply
from preheat.services.machine import Machine
from preheat.triggers.contract import Batch, Notice, OnNotice, Settled, Source
from preheat.triggers.reader import Draft, Lane, Reader
from preheat.triggers.scaling import Scaling
from preheat.triggers.throttling import THROTTLES, throttle_finding

RECEIVES_PER_STEP = 64
BROKEN_RECHECK_S = 5.0
ADVISE_EVERY_S = 60.0
MAX_THROTTLE_BACKOFF_S = 30.0
METRICS = "AWS/Lambda"


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
        self._readers: dict[str, Reader] = {}
        self._seen_changes = -1
        self._first = 0
        self._numbers = itertools.count()

    def concurrency(self, uuid: str) -> tuple[int, int]:
        """(batches running, batches allowed now) of a mapping, for status and tests."""
        reader = self._readers.get(uuid)
        return (0, 0) if reader is None else (reader.in_flight, reader.scaling.allowed)

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
            self._functions.core.mapping_results.pop(uuid, None)
        for uuid, mapping in found.items():
            source = self._sources[mapping.source_arn.split(":", 3)[2]]
            reader = self._readers.get(uuid)
            if reader is None:
                scaling = Scaling.begin(mapping.config, ctx.now)
                self._readers[uuid] = Reader(source.prepare(mapping), source, scaling, advised_at=ctx.now)
                for topic in source.topics(mapping):
                    self._machine.watch(topic, self)
            elif reader.mapping != mapping:
                reader.change(source.prepare(mapping), ctx.now)
        self._seen_changes = changes

    # -- reading --------------------------------------------------------------------------------------------------

    def _read(self, ctx: Context, reader: Reader, budget: int) -> tuple[float | None, int]:
        """Claim what may run. Returns (when to come again, receives used)."""
        now = ctx.now
        stalled_at = reader.stalled[0][0] if reader.stalled else None
        if stalled_at is not None and stalled_at <= now:
            ctx.db.after_commit(partial(self._relaunch if self._aim(ctx, reader) else self._let_go, reader, now))
            stalled_at = min((at for at, _, _ in reader.stalled if at > now), default=None)
        if not reader.mapping.enabled:
            for lane in reader.lanes.values():
                lane.rest()
            return stalled_at, 0
        reader.scaling.advance(now, reader.idle)
        drafts: list[Draft] = []
        try:
            spec = self._functions.resolve(ctx, reader.mapping.function_arn)
            held_at = self._take_held(ctx, reader)
            for name in reader.source.lanes(ctx, reader.prepared):
                drafts.append(Draft.of(reader, name, now))
                self._fill(ctx, reader, drafts[-1], budget - sum(draft.polls for draft in drafts), spec)
            waiting = not reader.source.ordered and drafts[0].free(reader) <= 0 and self._backlog(ctx, reader, drafts)
            drained = all(draft.drained for draft in drafts)
            next_at = reader.source.next_at(ctx, reader.prepared) if drained else None
        except AwsError as error:
            if any(draft.received for draft in drafts):
                raise
            self._broken(reader, f"{error.code}: {error.message}")
            reader.prepared.memory.clear()
            return _earliest(now + BROKEN_RECHECK_S, stalled_at), 0
        reader.told.discard("mapping-broken")
        self._report_result(reader, None)
        self._advise(ctx, reader, drafts)
        ctx.db.after_commit(partial(self._carry_out, reader, drafts, now if waiting else None))
        again_at = self._again(reader, drafts, waiting, now)
        return _earliest(stalled_at, held_at, next_at, again_at), sum(draft.polls for draft in drafts)

    def _backlog(self, ctx: Context, reader: Reader, drafts: list[Draft]) -> bool:
        return any(draft.buffer for draft in drafts) or reader.source.has_backlog(ctx, reader.prepared)

    def _take_held(self, ctx: Context, reader: Reader) -> float | None:
        """Batches of streams that failed or were throttled run again, under what the function is now. Returns when the
        next of them may."""
        due: float | None = None
        for lane in reader.lanes.values():
            if not lane.held or lane.in_flight:
                continue
            batch = lane.held[0]
            if batch.retry_at > ctx.now and batch.expires_at > ctx.now:
                due = _earliest(due, batch.retry_at, batch.expires_at)
                continue
            target = self._functions.target(ctx, reader.mapping.function_arn)
            batch.spec, batch.invoked_arn, batch.request_id = target.spec, target.invoked_arn, ctx.entropy.uuid()
            ctx.db.after_commit(partial(self._resume, reader, lane, batch))
        return due

    def _resume(self, reader: Reader, lane: Lane, batch: Batch) -> None:
        if lane.held[:1] != [batch]:
            return
        del lane.held[0]
        self._begin(reader, lane, batch)

    def _fill(self, ctx: Context, reader: Reader, draft: Draft, budget: int, spec: FunctionSpec) -> None:
        """Receive and cut until nothing is left, no batch may start, or the budget is spent. An error of the source is
        left to the next step when this one already has records."""
        config = reader.mapping.config
        while True:
            while draft.free(reader) > 0 and (items := draft.cut(config, ctx.now)):
                self._add(ctx, reader, draft, Batch(reader.mapping, items, spec, "", draft.lane.name))
            room = config.batch_size - len(draft.buffer)
            if draft.free(reader) <= 0 or draft.drained or draft.polls >= budget:
                return
            if not reader.scaling.may_poll(draft.polls, draft.size):
                return
            if room <= 0:
                draft.drained = True
                return
            try:
                claim = reader.source.claim(ctx, reader.prepared, draft.lane.name, draft.cursor, room, spec)
            except AwsError:
                if draft.received:
                    draft.drained = True
                    return
                raise
            draft.polls += 1
            draft.take_in(claim, ctx.now)

    def _add(self, ctx: Context, reader: Reader, draft: Draft, batch: Batch) -> None:
        """Give a batch its function. One that came round in a loop too often is let go: it comes back."""
        target = self._functions.target(ctx, reader.mapping.function_arn)
        batch.spec, batch.invoked_arn, batch.request_id = target.spec, target.invoked_arn, ctx.entropy.uuid()
        traces = (item.trace for item in batch.items)
        try:
            batch.trace_id = self._functions.continue_trace(ctx, target.spec, traces, batch.request_id)
        except AwsError as error:
            text = f"{target.spec.name}: {error.message}"
            ctx.db.after_commit(partial(self._tell, reader, "recursive-loop", text))
            draft.block(batch.groups)
            return
        draft.batches.append(batch)

    def _again(self, reader: Reader, drafts: list[Draft], waiting: bool, now: float) -> float | None:
        """When this reader has something to do without being woken."""
        due = _earliest(*(draft.ripe_at for draft in drafts))
        scaling = reader.scaling
        if waiting:
            if scaling.may_grow:
                due = _earliest(due, now + max(0.001, (1 - scaling.limit % 1) / scaling.growth))
            return due
        if any(not draft.drained and draft.free(reader) > 0 for draft in drafts):
            polls, size = sum(draft.polls for draft in drafts), sum(draft.size for draft in drafts)
            return _earliest(due, now if scaling.may_poll(polls, size) else scaling.poll_at(now, polls, size))
        return due if due is None or due > now else now + 0.001

    def _advise(self, ctx: Context, reader: Reader, drafts: list[Draft]) -> None:
        """The findings about a mapping's settings follow changes of its queue and function while it works."""
        if ctx.now - reader.advised_at >= ADVISE_EVERY_S and any(draft.received for draft in drafts):
            reader.advised_at = ctx.now
            self._functions.advise(ctx, reader.mapping)

    def _carry_out(self, reader: Reader, drafts: list[Draft], saturated_at: float | None) -> None:
        reader.scaling.saturated_at = saturated_at
        empty = all(draft.empty and not draft.buffer for draft in drafts)
        reader.quiet = empty and saturated_at is None and not reader.source.ordered
        for draft in drafts:
            lane = reader.lanes.setdefault(draft.lane.name, draft.lane)
            lane.buffer, lane.opened_at, lane.cursor = draft.buffer, draft.opened_at, draft.cursor
            reader.scaling.spend(draft.polls, draft.size)
            if draft.received:
                reader.scaling.active_at = self._clock.now()
                self._count(reader.mapping, "PolledEventCount", draft.received)
                self._count(reader.mapping, "FilteredOutEventCount", draft.filtered)
                if not reader.source.ordered:
                    self._count(reader.mapping, "DeletedEventCount", draft.filtered)
            for batch in draft.batches:
                self._begin(reader, lane, batch)

    # -- running --------------------------------------------------------------------------------------------------

    def _begin(self, reader: Reader, lane: Lane, batch: Batch) -> None:
        reader.began(lane, batch)
        if reader.source.ordered and batch.expires_at <= self._clock.now():
            self._settle(reader, lane, batch, None)
        else:
            self._launch(reader, batch)

    def _launch(self, reader: Reader, batch: Batch) -> None:
        lane = reader.lanes[batch.lane]
        refusal = self._functions.start_invocation(
            batch.spec, batch.payload, done=partial(self._settle, reader, lane, batch), request_id=batch.request_id,
            invoked_arn=batch.invoked_arn, trace_id=batch.trace_id,
        )  # fmt: skip
        if refusal is not None:
            self._stall(reader, lane, batch, refusal)
        else:
            self._count(batch.mapping, "InvokedEventCount", len(batch.items))

    def _stall(self, reader: Reader, lane: Lane, batch: Batch, refusal: Throttled) -> None:
        """Try a throttled batch again with growing pauses. One from a queue waits until its messages become visible to
        others and is then let go of: they come back with one receive used up. One from a stream keeps its place."""
        now = self._clock.now()
        if batch.refusals == 0:
            reader.scaling.shrink()
        pause = min(2.0**batch.refusals, MAX_THROTTLE_BACKOFF_S)
        batch.refusals += 1
        batch.retry_at = now + pause
        self._meter(batch.mapping, "Preheat", THROTTLES, 1, FunctionName=batch.spec.name)
        if reader.source.ordered:
            self._finished(reader, lane, batch, Settled(again=(batch,)))
            return
        if "throttled-trigger" not in reader.told:
            self._warn(reader, batch, refusal.reason)
        if batch.retry_at >= batch.expires_at:
            self._settle(reader, lane, batch, None)
            return
        heapq.heappush(reader.stalled, (batch.retry_at, next(self._numbers), batch))
        self._machine.wake(self)

    def _aim(self, ctx: Context, reader: Reader) -> bool:
        """Give the throttled batches whose time has come what the function is now; False when it is gone."""
        try:
            for at, _, batch in reader.stalled:
                if at <= ctx.now:
                    target = self._functions.target(ctx, reader.mapping.function_arn)
                    batch.spec, batch.invoked_arn = target.spec, target.invoked_arn
        except AwsError:
            return False
        return True

    def _relaunch(self, reader: Reader, now: float) -> None:
        for batch in reader.due_again(now):
            self._launch(reader, batch)

    def _let_go(self, reader: Reader, now: float) -> None:
        """The function is gone: the messages come back after their visibility timeout."""
        for batch in reader.due_again(now):
            settled = Settled(0, len(batch.items), blocked=frozenset(batch.groups))
            self._finished(reader, reader.lanes[batch.lane], batch, settled)

    def _warn(self, reader: Reader, batch: Batch, reason: str) -> None:
        """The trap, said once per mapping until it is changed: a notice and a finding."""

        def report(ctx: Context) -> dict:
            finding = throttle_finding(batch, self._functions.reserved(ctx, batch.mapping.function_arn), reason, 0, 0)
            findings.report(ctx.db, ctx.now, finding)
            ctx.db.after_commit(partial(self._on_notice, Notice("throttled-trigger", finding.subject, finding.text)))
            return {}

        reader.told.add("throttled-trigger")
        self._machine.perform(report, lambda reply: None, batch.mapping.scope)

    def _settle(self, reader: Reader, lane: Lane, batch: Batch, outcome: Outcome | None) -> None:
        """`outcome` None: the claim expired before the function could be started."""
        results: list[Settled] = []

        def settle(ctx: Context) -> dict:
            settled = reader.source.settle(ctx, batch, outcome)
            if outcome is None and not reader.source.ordered:
                self._count_lost(ctx, batch, settled)
            ctx.db.after_commit(lambda: results.append(settled))
            return {}

        def replied(reply: Reply | AwsError) -> None:
            self._finished(reader, lane, batch, results[0] if results else self._unsettled(reader, batch))

        self._machine.perform(settle, replied, batch.mapping.scope)

    def _unsettled(self, reader: Reader, batch: Batch) -> Settled:
        """The store refused: a queue hands the messages out again, a stream's batch is run again."""
        batch.retry_at = self._clock.now() + 1.0
        again = (batch,) if reader.source.ordered else ()
        return Settled(0, len(batch.items), blocked=frozenset(batch.groups), again=again)

    def _count_lost(self, ctx: Context, batch: Batch, settled: Settled) -> None:
        reserved = self._functions.reserved(ctx, batch.mapping.function_arn)
        finding = throttle_finding(batch, reserved, "", len(batch.items), settled.lost)
        findings.report(ctx.db, ctx.now, finding)
        if settled.lost:
            count = partial(self._meter, batch.mapping, "Preheat", "ThrottledMessagesDeadLettered", settled.lost)
            ctx.db.after_commit(partial(count, FunctionName=batch.spec.name))

    def _finished(self, reader: Reader, lane: Lane, batch: Batch, settled: Settled) -> None:
        reader.ended(lane, batch, settled.blocked)
        lane.held[:0] = settled.again
        now = reader.scaling.active_at = self._clock.now()
        if settled.failed and not batch.mapping.config.report_item_failures:
            reader.scaling.shrink()
        if not reader.source.ordered:
            self._count(batch.mapping, "DeletedEventCount", settled.deleted)
        self._count(batch.mapping, "FailedInvokeEventCount", settled.failed)
        if settled.denied:
            self._broken(reader, settled.denied)
        elif reader.source.ordered and (settled.failed or settled.deleted):
            self._report_result(reader, "PROBLEM: Function call failed" if settled.failed else "OK")
        reader.scaling.active_at = now
        if batch.groups or not reader.quiet:
            self._machine.wake(self)

    # -- telling --------------------------------------------------------------------------------------------------

    def _broken(self, reader: Reader, problem: str) -> None:
        self._tell(reader, "mapping-broken", problem)
        self._functions.core.mapping_results[reader.mapping.uuid] = f"PROBLEM: {problem}"

    def _report_result(self, reader: Reader, result: str | None) -> None:
        """LastProcessingResult: streams have one always, queues while there is a problem."""
        results, uuid = self._functions.core.mapping_results, reader.mapping.uuid
        if result is not None:
            results[uuid] = result
        elif reader.source.ordered:
            results.setdefault(uuid, "No records processed")
        else:
            results.pop(uuid, None)

    def _tell(self, reader: Reader, kind: str, text: str) -> None:
        """Once per mapping and kind, until the mapping is changed."""
        if kind not in reader.told:
            reader.told.add(kind)
            self._on_notice(Notice(kind, reader.mapping.arn, text))

    def _count(self, mapping: Mapping, name: str, value: int) -> None:
        """A metric that MetricsConfig EventCount asks for."""
        if value and "EventCount" in mapping.config.metrics:
            self._meter(mapping, METRICS, name, value)

    def _meter(self, mapping: Mapping, namespace: str, name: str, value: int, **dimensions: str) -> None:
        self._machine.meter.record(
            mapping.scope, namespace, name, float(value), EventSourceMappingUUID=mapping.uuid, **dimensions
        )


def _earliest(*times: float | None) -> float | None:
    return min((time for time in times if time is not None), default=None)

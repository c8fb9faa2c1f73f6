"""Streams as event sources: what every source made of shards has in common.

`ShardSource(stream)` is a `Source`. A lane is "<shard>#<part>/<parts>": a shard's records are split into as many parts
as ParallelizationFactor says by their partition keys, each read in order with a checkpoint of its own in the store.
What a kind of stream has to bring is `Stream`: its shards and how they are read.
"""

import json
import zlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from preheat.execution.contract import FunctionSpec, Outcome
from preheat.services.awslambda import repository
from preheat.services.awslambda.domain import Mapping, StreamConfig
from preheat.services.awslambda.patterns import compile_filters
from preheat.services.contract import Context
from preheat.services.deliveries import Delivery, emit
from preheat.triggers.answers import failed_items
from preheat.triggers.contract import Batch, Claim, Item, Prepared, Settled

READ_LIMIT = 1_000
MAX_BACKOFF_S = 60.0
EXHAUSTED, TOO_OLD = "RetryAttemptsExhausted", "RecordAgeExceeded"


class Record(NamedTuple):
    """One record of a shard; `data` is what the function sees, `filtered` what filters look at where that differs."""

    sequence: str
    partition_key: str
    arrived_at: float
    data: dict[str, Any]
    filtered: dict[str, Any] | None = None


class Read(NamedTuple):
    """Records after a position. `next` is where to go on; `closed`: the shard will never have more than these."""

    records: list[Record]
    next: str
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Shard:
    """`parents` are read to their ends first."""

    id: str
    parents: tuple[str, ...] = ()


class Stream(Protocol):
    """A kind of stream. Positions of one shard (what `start` and `read` give, and sequence numbers) sort by length,
    then text. `filter_field` is the record's field that filters look into ("data", "dynamodb"); `batch_info` names the
    member of an on-failure record ("KinesisBatchInfo")."""

    service: str
    filter_field: str
    batch_info: str

    def topics(self, mapping: Mapping) -> tuple[str, ...]: ...

    def shards(self, ctx: Context, mapping: Mapping) -> list[Shard]:
        """All shards, parents before children. Raises AwsError when the stream is gone."""

    def start(self, ctx: Context, mapping: Mapping, shard: str) -> str:
        """The position that the mapping's StartingPosition means."""

    def read(self, ctx: Context, mapping: Mapping, shard: str, position: str, limit: int) -> Read:
        """The next records after a position (from `start`, `Read.next`, or a sequence number)."""


class ShardSource:
    ordered = True

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.service = stream.service

    def prepare(self, mapping: Mapping) -> Prepared:
        patterns = mapping.config.patterns
        return Prepared(mapping, compile_filters(patterns, self._stream.filter_field) if patterns else None)

    def topics(self, mapping: Mapping) -> tuple[str, ...]:
        return self._stream.topics(mapping)

    def lanes(self, ctx: Context, prepared: Prepared) -> tuple[str, ...]:
        mapping = prepared.mapping
        parts = _config(mapping).parallelization
        open_: list[str] = []
        finished: dict[str, bool] = {}
        for shard in self._stream.shards(ctx, mapping):
            names = [f"{shard.id}#{part}/{parts}" for part in range(parts)]
            if all(finished.get(parent, True) for parent in shard.parents):
                finished[shard.id] = all(self._finished(ctx, mapping, name) for name in names)
                open_ += [] if finished[shard.id] else names
            else:
                finished[shard.id] = False
        return tuple(open_)

    def claim(
        self, ctx: Context, prepared: Prepared, lane: str, cursor: str | None, limit: int, spec: FunctionSpec
    ) -> Claim:
        mapping = prepared.mapping
        shard, part, parts = _split(lane)
        config = _config(mapping)
        position = cursor or self._begin(ctx, mapping, lane, shard)
        read = self._stream.read(ctx, mapping, shard, position, min(limit, READ_LIMIT))
        items: list[Item] = []
        own = [record for record in read.records if _part(record, parts) == part]
        filtered = 0
        for record in own:
            if prepared.match is not None and not prepared.match(record.filtered or record.data):
                filtered += 1
                continue
            expires_at = record.arrived_at + config.max_age_s if config.max_age_s >= 0 else float("inf")
            encoded = msgspec.json.encode(record.data)
            items.append(Item(record.sequence, record.sequence, encoded, expires_at, arrived_at=record.arrived_at))
        size = sum(len(item.record) for item in items)
        drained = len(read.records) < min(limit, READ_LIMIT)
        if not items and limit == mapping.config.batch_size and read.next != position:
            repository.save_checkpoint(ctx.db, mapping.uuid, lane, read.next)
        return Claim(items, len(own), drained, filtered, size, read.next)

    def next_at(self, ctx: Context, prepared: Prepared) -> float | None:
        return None

    def has_backlog(self, ctx: Context, prepared: Prepared) -> bool:
        for lane in self.lanes(ctx, prepared):
            shard, _, _ = _split(lane)
            position = self._begin(ctx, prepared.mapping, lane, shard)
            if self._stream.read(ctx, prepared.mapping, shard, position, 1).records:
                return True
        return False

    def settle(self, ctx: Context, batch: Batch, outcome: Outcome | None) -> Settled:
        if repository.mapping_of(ctx.db, batch.mapping.uuid) is None:
            return Settled()
        if outcome is None:
            return self._too_old(ctx, batch)
        failed = failed_items(batch, outcome)
        if not failed:
            self._checkpoint(ctx, batch, batch.items[-1])
            return Settled(len(batch.items))
        named = failed != {item.id for item in batch.items}
        first = next(index for index, item in enumerate(batch.items) if item.id in failed)
        done = first if named else 0
        if done:
            self._checkpoint(ctx, batch, batch.items[done - 1])
        rest = replace(batch, items=batch.items[done:], refusals=0)
        return self._retry(ctx, rest, outcome, done, named)

    def _retry(self, ctx: Context, batch: Batch, outcome: Outcome, done: int, named: bool) -> Settled:
        """The rest of a batch from its first failure on: in halves, once more, or given up. A batch that is split, in
        halves or at the item that the function named, does not use up its retries by that."""
        config = _config(batch.mapping)
        tried = batch.attempts + 1
        count = len(batch.items)
        if config.bisect and done:
            return Settled(done, count, again=(replace(batch, retry_at=ctx.now + _pause(batch.attempts)),))
        if config.bisect and count > 1 and not named:
            middle = (count + 1) // 2
            at = ctx.now + _pause(batch.attempts)
            halves = (
                replace(batch, items=batch.items[:middle], retry_at=at),
                replace(batch, items=batch.items[middle:], retry_at=at),
            )
            return Settled(done, count, again=halves)
        if 0 <= config.max_retries < tried:
            self._give_up(ctx, batch, EXHAUSTED, tried, outcome)
            self._checkpoint(ctx, batch, batch.items[-1])
            return Settled(done, count)
        again = replace(batch, attempts=tried, retry_at=ctx.now + _pause(batch.attempts))
        return Settled(done, count, again=(again,))

    def _too_old(self, ctx: Context, batch: Batch) -> Settled:
        """The records up to the last that is older than MaximumRecordAgeInSeconds are given up; younger ones run."""
        count = max(index + 1 for index, item in enumerate(batch.items) if item.expires_at <= ctx.now)
        self._give_up(ctx, replace(batch, items=batch.items[:count]), TOO_OLD, batch.attempts, None)
        self._checkpoint(ctx, batch, batch.items[count - 1])
        young = batch.items[count:]
        again = (replace(batch, items=young, retry_at=ctx.now),) if young else ()
        return Settled(0, count, again=again)

    def _give_up(self, ctx: Context, batch: Batch, condition: str, tried: int, outcome: Outcome | None) -> None:
        """Tell the on-failure destination, if there is one, which records were not processed."""
        target = _config(batch.mapping).on_failure
        if target:
            document = failure_record(self._stream, batch, condition, tried, outcome, ctx.now)
            emit(ctx, Delivery(target, json.dumps(document), batch.mapping.arn, "lambda.amazonaws.com"))

    def _begin(self, ctx: Context, mapping: Mapping, lane: str, shard: str) -> str:
        """Where a lane goes on: behind its checkpoint, else where the mapping says that reading starts. That is
        written down at once, so that LATEST means the moment of the first look. After a change of
        ParallelizationFactor all parts begin at the least that was done before."""
        known = repository.checkpoint(ctx.db, mapping.uuid, lane)
        if known is not None:
            return known
        before = repository.take_checkpoints(ctx.db, mapping.uuid, f"{shard}#")
        position = min(before, key=_order) if before else self._stream.start(ctx, mapping, shard)
        parts = _config(mapping).parallelization
        for part in range(parts):
            repository.save_checkpoint(ctx.db, mapping.uuid, f"{shard}#{part}/{parts}", position)
        return position

    def _checkpoint(self, ctx: Context, batch: Batch, item: Item) -> None:
        """A lane of an earlier ParallelizationFactor has none any more."""
        if repository.checkpoint(ctx.db, batch.mapping.uuid, batch.lane) is not None:
            repository.save_checkpoint(ctx.db, batch.mapping.uuid, batch.lane, item.handle)

    def _finished(self, ctx: Context, mapping: Mapping, lane: str) -> bool:
        """Whether a lane's shard is closed and has no record of the lane behind its checkpoint."""
        shard, part, parts = _split(lane)
        position = self._begin(ctx, mapping, lane, shard)
        while True:
            read = self._stream.read(ctx, mapping, shard, position, READ_LIMIT)
            if not read.closed and not read.records:
                return False
            if any(_part(record, parts) == part for record in read.records):
                return False
            if read.closed:
                return True
            position = read.next


def failure_record(
    stream: Stream, batch: Batch, condition: str, tried: int, outcome: Outcome | None, now: float
) -> dict[str, Any]:
    """The document that an on-failure destination gets (lambda/latest/dg/with-kinesis, on-failure destinations)."""
    shard, _, _ = _split(batch.lane)
    first, last = batch.items[0], batch.items[-1]
    document: dict[str, Any] = {
        "requestContext": {
            "requestId": batch.request_id,
            "functionArn": batch.invoked_arn,
            "condition": condition,
            "approximateInvokeCount": tried,
        }
    }
    if outcome is not None:
        document["responseContext"] = {"statusCode": 200, "executedVersion": batch.spec.version}
        if outcome.error is not None:
            document["responseContext"]["functionError"] = "Unhandled"
    document["version"] = "1.0"
    document["timestamp"] = _text(now)
    document[stream.batch_info] = {
        "shardId": shard,
        "startSequenceNumber": first.handle,
        "endSequenceNumber": last.handle,
        "approximateArrivalOfFirstRecord": _text(first.arrived_at),
        "approximateArrivalOfLastRecord": _text(last.arrived_at),
        "batchSize": len(batch.items),
        "streamArn": batch.mapping.source_arn,
    }
    return document


def _config(mapping: Mapping) -> StreamConfig:
    return mapping.config.stream or StreamConfig()


def _split(lane: str) -> tuple[str, int, int]:
    """(shard, part, parts)."""
    shard, _, rest = lane.rpartition("#")
    part, _, parts = rest.partition("/")
    return shard, int(part), int(parts)


def _order(position: str) -> tuple[int, str]:
    return len(position), position


def _part(record: Record, parts: int) -> int:
    """Which of the parallel parts a record belongs to: always the same for one partition key."""
    return 0 if parts == 1 else zlib.crc32(record.partition_key.encode()) % parts


def _pause(attempts: int) -> float:
    return min(2.0**attempts, MAX_BACKOFF_S)


def _text(moment: float) -> str:
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"

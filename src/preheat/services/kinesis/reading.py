"""Iterators over shards, and what they give."""

from collections.abc import Callable
from datetime import UTC, datetime

from preheat.kernel.errors import AwsError
from preheat.services.constraints import check_number
from preheat.services.contract import Context, Params
from preheat.services.kinesis import domain, repository
from preheat.services.kinesis.domain import Position, Shard, Stream, invalid
from preheat.services.kinesis.rates import Rates
from preheat.services.kinesis.shards import shard_of

NAMESPACE = "AWS/Kinesis"
Find = Callable[[Context, Params], Stream]


class Reading:
    def __init__(self, find: Find) -> None:
        self._find = find
        self._rates = Rates()

    def get_shard_iterator(self, ctx: Context, params: Params) -> Params:
        if params.get("DryRun"):
            raise domain.unsupported("DryRun")
        stream = self._find(ctx, params)
        held = shard_of(ctx, stream, params["ShardId"])
        after = _start(ctx, stream, held, params)
        return {"ShardIterator": Position(stream.row, held.number, after, ctx.now).token()}

    def get_records(self, ctx: Context, params: Params) -> Params:
        check_number(params, "Limit", 1, domain.MOST_READ)
        if params.get("DryRun"):
            raise domain.unsupported("DryRun")
        position = domain.position_of(params["ShardIterator"], ctx.now)
        stream = repository.by_row(ctx.db, position.stream)
        if stream is None or (stream.scope != ctx.scope and not params.get("StreamARN")):
            raise AwsError("ResourceNotFoundException", "The stream of this ShardIterator does not exist.")
        if params.get("StreamARN") not in (None, stream.arn) or params.get("StreamId"):
            raise invalid("The ShardIterator is not one of this stream.")
        held = repository.shard(ctx.db, stream.row, position.shard)
        if held is None:
            raise AwsError("ResourceNotFoundException", "The shard of this ShardIterator does not exist.")
        key = (stream.row, held.number)
        if not self._rates.may_read(key, ctx.now_ms):
            ctx.machine.meter.record(
                stream.scope, NAMESPACE, "ReadProvisionedThroughputExceeded", StreamName=stream.name
            )
            raise domain.rate_exceeded(held, stream.name, stream.account)
        found = records_after(ctx, stream, held, position.after, params.get("Limit", domain.MOST_READ))
        self._rates.given(key, sum(len(one.data) for one in found), ctx.now_ms)
        after = found[-1].sequence if found else position.after
        last = repository.newest(ctx.db, stream.row, held.number)
        behind = 0 if last is None or last[0] <= after else max(0, ctx.now_ms - (found[-1].arrived_ms if found else 0))
        output: Params = {
            "Records": [
                {
                    "SequenceNumber": domain.sequence_number(one.sequence, held.number), "Data": one.data,
                    "PartitionKey": one.partition_key, "EncryptionType": "KMS" if stream.key_id else "NONE",
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(one.arrived_ms / 1_000, UTC),
                }
                for one in found
            ],
            "MillisBehindLatest": behind,
        }  # fmt: skip
        self._measure(ctx, stream, found, behind)
        if held.ends is not None and (last is None or last[0] <= after):
            output["ChildShards"] = _children(ctx, stream, held)
        else:
            output["NextShardIterator"] = Position(stream.row, held.number, after, ctx.now).token()
        return output

    @staticmethod
    def _measure(ctx: Context, stream: Stream, found: list[domain.Held], behind: int) -> None:
        meter, name = ctx.machine.meter, stream.name
        meter.record(stream.scope, NAMESPACE, "GetRecords.Records", len(found), StreamName=name)
        size = sum(len(one.data) for one in found)
        meter.record(stream.scope, NAMESPACE, "GetRecords.Bytes", size, "Bytes", StreamName=name)
        meter.record(
            stream.scope, NAMESPACE, "GetRecords.IteratorAgeMilliseconds", behind, "Milliseconds", StreamName=name
        )


def records_after(ctx: Context, stream: Stream, held: Shard, after: int, most: int) -> list[domain.Held]:
    since = ctx.now_ms - stream.retention_h * 3_600_000
    return repository.read(ctx.db, stream.row, held.number, after, since, most, domain.MOST_READ_BYTES)


def _start(ctx: Context, stream: Stream, held: Shard, params: Params) -> int:
    """The counter value behind which an iterator begins."""
    kind = params["ShardIteratorType"]
    if kind == "TRIM_HORIZON":
        return 0
    if kind == "LATEST":
        last = repository.newest(ctx.db, stream.row, held.number)
        return last[0] if last else 0
    if kind == "AT_TIMESTAMP":
        if params.get("Timestamp") is None:
            raise invalid("Must either specify timestamp or starting sequence number.")
        at = params["Timestamp"].timestamp()
        if at > ctx.now + 1:
            raise invalid(
                f"The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                f"timestampInMillis: {round(at * 1_000)}, currentTimestampInMillis: {ctx.now_ms}"
            )
        return repository.last_before(ctx.db, stream.row, held.number, round(at * 1_000))
    if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        if not params.get("StartingSequenceNumber"):
            raise invalid("Must either specify timestamp or starting sequence number.")
        counter = domain.counter_of(params["StartingSequenceNumber"], held.number)
        return counter - 1 if kind == "AT_SEQUENCE_NUMBER" else counter
    raise invalid(f"ShardIteratorType {kind} is not known.")


def _children(ctx: Context, stream: Stream, held: Shard) -> list[Params]:
    """The shards that took over the closed shard's range."""
    return [
        {
            "ShardId": one.id,
            "ParentShards": [domain.shard_id(number) for number in (one.parent, one.adjacent) if number is not None],
            "HashKeyRange": {"StartingHashKey": one.first_hash, "EndingHashKey": one.last_hash},
        }
        for one in repository.shards(ctx.db, stream.row)
        if held.number in (one.parent, one.adjacent)
    ]

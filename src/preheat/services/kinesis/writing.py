"""Records into shards, by the hash of their partition keys."""

from bisect import bisect_right
from collections.abc import Callable

from preheat.kernel.errors import AwsError
from preheat.services.constraints import check_text
from preheat.services.contract import Context, Params
from preheat.services.kinesis import domain, repository
from preheat.services.kinesis.domain import KIB, Shard, Stream, invalid
from preheat.services.kinesis.rates import Rates
from preheat.services.kinesis.shards import open_shards

NAMESPACE = "AWS/Kinesis"
Find = Callable[[Context, Params], Stream]


class Writing:
    def __init__(self, find: Find) -> None:
        self._find = find
        self._rates = Rates()

    def put_record(self, ctx: Context, params: Params) -> Params:
        """SequenceNumberForOrdering asks for an order that counters of one store have anyway."""
        if params.get("DryRun"):
            raise domain.unsupported("DryRun")
        stream = self._find(ctx, params)
        _check(stream, params, "")
        if params.get("SequenceNumberForOrdering", "0").strip("0123456789"):
            raise invalid("SequenceNumberForOrdering is invalid.")
        held = _route(open_shards(ctx, stream), params)
        if not self._take(ctx, stream, held, params):
            raise domain.rate_exceeded(held, stream.name, stream.account)
        counter = repository.next_counters(ctx.db, 1)
        _store(ctx, stream, [(held, counter, params)])
        return {
            "ShardId": held.id, "SequenceNumber": domain.sequence_number(counter, held.number),
            "EncryptionType": "KMS" if stream.key_id else "NONE",
        }  # fmt: skip

    def put_records(self, ctx: Context, params: Params) -> Params:
        if params.get("DryRun"):
            raise domain.unsupported("DryRun")
        stream, given = self._find(ctx, params), params["Records"]
        if not 1 <= len(given) <= domain.MOST_RECORDS:
            raise invalid(f"PutRecords takes 1 to {domain.MOST_RECORDS} records, not {len(given)}.")
        for number, record in enumerate(given, 1):
            _check(stream, record, f"records.{number}.member.")
        if sum(len(one["Data"]) + len(one["PartitionKey"].encode()) for one in given) > domain.MOST_BATCH_BYTES:
            raise invalid("Records size exceeds 10 MB limit")
        current = open_shards(ctx, stream)
        counter = repository.next_counters(ctx.db, len(given))
        kept, answers = [], []
        for record in given:
            held = _route(current, record)
            if self._take(ctx, stream, held, record):
                kept.append((held, counter, record))
                number = domain.sequence_number(counter, held.number)
                answers.append({"SequenceNumber": number, "ShardId": held.id})
            else:
                error = domain.rate_exceeded(held, stream.name, stream.account)
                answers.append({"ErrorCode": error.code, "ErrorMessage": error.message})
            counter += 1
        if kept:
            _store(ctx, stream, kept)
        return {
            "FailedRecordCount": len(given) - len(kept), "Records": answers,
            "EncryptionType": "KMS" if stream.key_id else "NONE",
        }  # fmt: skip

    def _take(self, ctx: Context, stream: Stream, held: Shard, record: Params) -> bool:
        """Whether the shard's rate lets the record in."""
        size = len(record["Data"]) + len(record["PartitionKey"].encode())
        if self._rates.write((stream.row, held.number), size, ctx.now_ms):
            return True
        ctx.machine.meter.record(
            stream.scope, NAMESPACE, "WriteProvisionedThroughputExceeded", StreamName=stream.name
        )
        return False


def _check(stream: Stream, record: Params, path: str) -> None:
    """Raises AwsError for a record that cannot be taken."""
    check_text({f"{path}partitionKey": record["PartitionKey"]}, f"{path}partitionKey", 256, least=1)
    most = stream.most_kib * KIB
    if len(record["Data"]) + len(record["PartitionKey"].encode()) > most:
        raise invalid(
            f"1 validation error detected: Value at '{path}data' failed to satisfy constraint: Member must have length "
            f"less than or equal to {most}"
        ) if path else _too_long(most)
    explicit = record.get("ExplicitHashKey")
    if explicit is not None and (not explicit.isdigit() or int(explicit) > domain.HIGHEST_HASH):
        raise invalid(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was "
            f"{explicit}"
        )


def _too_long(most: int) -> AwsError:
    return invalid(f"Record size exceeds the stream's limit of {most} bytes.")


def _route(current: list[Shard], record: Params) -> Shard:
    """The open shard whose range holds the record's hash key."""
    explicit = record.get("ExplicitHashKey")
    key = int(explicit) if explicit is not None else domain.hash_of(record["PartitionKey"])
    ordered = sorted(current, key=lambda held: int(held.first_hash))
    return ordered[bisect_right(ordered, key, key=lambda held: int(held.first_hash)) - 1]


def _store(ctx: Context, stream: Stream, kept: list[tuple[Shard, int, Params]]) -> None:
    rows = [(held.number, counter, ctx.now_ms, one["PartitionKey"], one["Data"]) for held, counter, one in kept]
    repository.put(ctx.db, stream.row, rows)
    ctx.db.notify(repository.topic(stream.arn))
    meter = ctx.machine.meter
    meter.record(stream.scope, NAMESPACE, "IncomingRecords", len(rows), StreamName=stream.name)
    size = sum(len(row[4]) for row in rows)
    meter.record(stream.scope, NAMESPACE, "IncomingBytes", size, "Bytes", StreamName=stream.name)

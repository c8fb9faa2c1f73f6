"""Kinesis streams as event sources: shards and records for `shards.ShardSource`."""

import base64

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.awslambda.domain import Mapping
from preheat.services.contract import Context
from preheat.services.kinesis import domain, repository
from preheat.services.kinesis.domain import Held, Stream
from preheat.services.kinesis.reading import records_after
from preheat.triggers.shards import Read, Record, Shard


class KinesisStream:
    """Positions are sequence numbers."""

    service = "kinesis"
    filter_field = "data"
    batch_info = "KinesisBatchInfo"

    def topics(self, mapping: Mapping) -> tuple[str, ...]:
        return (repository.topic(mapping.source_arn),)

    def shards(self, ctx: Context, mapping: Mapping) -> list[Shard]:
        found = repository.shards(ctx.db, _stream(ctx, mapping).row)
        there = {one.number for one in found}
        return [
            Shard(one.id, tuple(domain.shard_id(number) for number in (one.parent, one.adjacent) if number in there))
            for one in found
        ]

    def start(self, ctx: Context, mapping: Mapping, shard: str) -> str:
        stream, number, config = _stream(ctx, mapping), domain.shard_number(shard) or 0, mapping.config.stream
        counter = 0
        if config is not None and config.starting_position == "LATEST":
            last = repository.newest(ctx.db, stream.row, number)
            counter = last[0] if last else 0
        elif config is not None and config.starting_position == "AT_TIMESTAMP":
            counter = repository.last_before(ctx.db, stream.row, number, round(config.starting_at * 1_000))
        return domain.sequence_number(counter, number)

    def read(self, ctx: Context, mapping: Mapping, shard: str, position: str, limit: int) -> Read:
        stream = _stream(ctx, mapping)
        held = repository.shard(ctx.db, stream.row, domain.shard_number(shard) or 0)
        if held is None:
            return Read([], position, closed=True)
        found = records_after(ctx, stream, held, domain.counter_of(position, held.number), limit)
        records = [_record(mapping, held.id, held.number, one) for one in found]
        closed = held.ends is not None and len(found) < limit
        return Read(records, records[-1].sequence if records else position, closed)


def _stream(ctx: Context, mapping: Mapping) -> Stream:
    arn = Arn.parse(mapping.source_arn)
    found = repository.find(ctx.db, arn.scope, arn.resource.removeprefix("stream/"))
    if found is None:
        raise AwsError("ResourceNotFoundException", f"Stream {arn.resource} was deleted.")
    return found


def _record(mapping: Mapping, shard: str, number: int, held: Held) -> Record:
    sequence = domain.sequence_number(held.sequence, number)
    arrived = held.arrived_ms / 1_000
    data = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0", "partitionKey": held.partition_key, "sequenceNumber": sequence,
            "data": base64.b64encode(held.data).decode(), "approximateArrivalTimestamp": arrived,
        },
        "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": f"{shard}:{sequence}",
        "eventName": "aws:kinesis:record", "invokeIdentityArn": "", "awsRegion": mapping.scope.region,
        "eventSourceARN": mapping.source_arn,
    }  # fmt: skip
    filtered = {**data, **data["kinesis"], "data": held.data.decode("utf-8", "replace")}
    return Record(sequence, held.partition_key, arrived, data, filtered)

"""A stream in memory, for `ShardSource`: shards of records that the test puts there."""

from dataclasses import dataclass, field

from preheat.kernel.errors import AwsError
from preheat.triggers.shards import Read, Record, Shard


@dataclass
class _Shard:
    parents: tuple[str, ...] = ()
    records: list[Record] = field(default_factory=list)
    closed: bool = False


class ScriptedStream:
    """Positions are sequence numbers of 20 digits; "0" is the beginning. `gone` makes it answer like a deleted one."""

    service = "kinesis"
    filter_field = "data"
    batch_info = "KinesisBatchInfo"

    def __init__(self):
        self.topic = "scripted-stream"
        self.shard_map: dict[str, _Shard] = {"shard-0": _Shard()}
        self.gone = False
        self._last = 0

    def put(self, world, body, key="k", shard="shard-0"):
        """Add a record and wake whoever reads."""
        self._last += 1
        data = {"data": body, "partitionKey": key}
        self.shard_map[shard].records.append(Record(f"{self._last:020d}", key, world.clock.now(), data))

        def tell(ctx):
            ctx.db.notify(self.topic)
            return {}

        world.machine.perform(tell, lambda reply: None)
        world.settle()

    def split(self, shard, *children):
        """Close a shard; records go to its children from now on."""
        self.shard_map[shard].closed = True
        for child in children:
            self.shard_map[child] = _Shard((shard,))

    def topics(self, mapping):
        return (self.topic,)

    def _check(self):
        if self.gone:
            raise AwsError("ResourceNotFoundException", "Stream s not found.", 400)

    def shards(self, ctx, mapping):
        self._check()
        return [Shard(name, shard.parents) for name, shard in self.shard_map.items()]

    def start(self, ctx, mapping, shard):
        config = mapping.config.stream
        records = self.shard_map[shard].records
        if config.starting_position == "LATEST":
            return records[-1].sequence if records else "0"
        if config.starting_position == "AT_TIMESTAMP":
            before = [record.sequence for record in records if record.arrived_at < config.starting_at]
            return before[-1] if before else "0"
        return "0"

    def read(self, ctx, mapping, shard, position, limit):
        self._check()
        held = self.shard_map[shard]
        behind = (len(position), position)
        after = [record for record in held.records if (len(record.sequence), record.sequence) > behind]
        records = after[:limit]
        return Read(records, records[-1].sequence if records else position, held.closed and len(after) <= limit)

"""One event source mapping at work: its lanes, what they have buffered, and how batches are cut from that."""

import heapq
from collections import Counter
from dataclasses import dataclass, field

from preheat.services.awslambda.domain import MAX_SYNC_BYTES, Mapping, MappingConfig
from preheat.triggers.contract import Batch, Claim, Item, Prepared, Source
from preheat.triggers.scaling import Scaling

ENVELOPE_BYTES = len(b'{"Records":[]}')


@dataclass(slots=True, eq=False)
class Lane:
    """`buffer` is claimed and not yet in a batch; `held` are batches that run before it, in order."""

    name: str
    buffer: list[Item] = field(default_factory=list)
    opened_at: float = 0.0
    cursor: str | None = None
    in_flight: int = 0
    held: list[Batch] = field(default_factory=list)

    def rest(self) -> None:
        """Let go of everything that does not run: a disabled mapping."""
        self.buffer, self.cursor, self.held = [], None, []


@dataclass(slots=True, eq=False)
class Reader:
    """`groups` are those of the batches in flight; `stalled` are throttled batches by the time of the next attempt;
    `told` are the kinds of notices that were given since the mapping was changed; `quiet` says that all of a queue is
    taken: it has nothing to read before it is woken or something in it becomes visible."""

    prepared: Prepared
    source: Source
    scaling: Scaling
    lanes: dict[str, Lane] = field(default_factory=dict)
    in_flight: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    stalled: list[tuple[float, int, Batch]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    advised_at: float = 0.0
    quiet: bool = False

    @property
    def mapping(self) -> Mapping:
        return self.prepared.mapping

    @property
    def idle(self) -> bool:
        return self.in_flight == 0 and not any(lane.buffer for lane in self.lanes.values())

    def change(self, prepared: Prepared, now: float) -> None:
        """The mapping has new settings; what is in flight ends under those it began with."""
        self.prepared = prepared
        self.scaling.reconfigure(prepared.mapping.config, now)
        self.told.clear()
        for lane in self.lanes.values():
            for batch in lane.held:
                batch.mapping = prepared.mapping

    def began(self, lane: Lane, batch: Batch) -> None:
        lane.in_flight += 1
        self.in_flight += 1
        self.groups.update(batch.groups)

    def ended(self, lane: Lane, batch: Batch, blocked: frozenset[str]) -> None:
        """`blocked` groups lose what is buffered of them: it comes back behind what failed."""
        lane.in_flight -= 1
        self.in_flight -= 1
        self.groups.subtract(batch.groups)
        self.groups = +self.groups
        if blocked:
            lane.buffer = [item for item in lane.buffer if item.group not in blocked]

    def due_again(self, now: float) -> list[Batch]:
        """Throttled batches whose next attempt has come."""
        ready = []
        while self.stalled and self.stalled[0][0] <= now:
            ready.append(heapq.heappop(self.stalled)[2])
        return ready


@dataclass(slots=True, eq=False)
class Draft:
    """What one step decided for one lane; carried out after the commit. `busy` are the groups that must wait;
    `ripe_at` is when the window of what is buffered has passed; `empty` what the source said last."""

    lane: Lane
    buffer: list[Item]
    opened_at: float
    cursor: str | None
    busy: set[str]
    batches: list[Batch] = field(default_factory=list)
    ripe_at: float | None = None
    drained: bool = False
    empty: bool = False
    polls: int = 0
    received: int = 0
    filtered: int = 0
    size: int = 0

    @classmethod
    def of(cls, reader: Reader, name: str, now: float) -> "Draft":
        lane = reader.lanes.get(name) or Lane(name)
        buffer = lane.buffer if reader.source.ordered else [item for item in lane.buffer if item.expires_at > now]
        return cls(lane, list(buffer), lane.opened_at, lane.cursor, set(reader.groups))

    def free(self, reader: Reader) -> int:
        """How many more batches of this lane may start."""
        if reader.source.ordered:
            return 0 if self.lane.held else 1 - self.lane.in_flight - len(self.batches)
        return reader.scaling.allowed - reader.in_flight - len(self.batches)

    def take_in(self, claim: Claim, now: float) -> None:
        self.received += claim.received
        self.filtered += claim.filtered
        self.size += claim.size
        self.cursor = claim.cursor
        self.drained = self.empty = claim.drained
        if claim.items and not self.buffer:
            self.opened_at = now
        self.buffer.extend(claim.items)

    def block(self, groups: set[str]) -> None:
        """Items of these groups do not run before their claim has expired."""
        self.busy |= groups
        self.buffer = [item for item in self.buffer if item.group not in groups or not item.group]

    def cut(self, config: MappingConfig, now: float) -> list[Item]:
        """The next batch off the buffer: full by number or bytes, or as much as there is when the window has passed.
        Nothing while it may still grow."""
        buffer = self.buffer
        ready = [item for item in buffer if item.group not in self.busy] if self.busy else buffer
        size, count = ENVELOPE_BYTES, 0
        for item in ready[: config.batch_size]:
            size += len(item.record) + 1
            if size > MAX_SYNC_BYTES and count:
                break
            count += 1
        self.ripe_at = None
        if not count:
            return []
        if count == len(ready) and count < config.batch_size and now < self.opened_at + config.window_s:
            self.ripe_at = self.opened_at + config.window_s
            return []
        items = ready[:count]
        if ready is buffer:
            self.buffer = buffer[count:]
        else:
            taken = set(map(id, items))
            self.buffer = [item for item in buffer if id(item) not in taken]
        self.busy |= {item.group for item in items if item.group}
        return items

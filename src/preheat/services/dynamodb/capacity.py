"""Capacity units: what a request consumed, how it is reported, and the throttle of provisioned tables."""

from dataclasses import dataclass, field
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.dynamodb.domain import Table, Throughput
from preheat.services.dynamodb.values import invalid

READ_BLOCK = 4_096
WRITE_BLOCK = 1_024
BURST_S = 300
MODES = ("INDEXES", "TOTAL", "NONE")
EXCEEDED = (
    "The level of configured provisioned throughput for the table was exceeded. "
    "Consider increasing your provisioning level with the UpdateTable API."
)


def read_units(size: int, consistent: bool) -> float:
    """Units of reading `size` bytes; half of that when eventually consistent."""
    blocks = max(1, -(-size // READ_BLOCK))
    return float(blocks) if consistent else blocks / 2


def write_units(size: int) -> float:
    return float(max(1, -(-size // WRITE_BLOCK)))


def entry_units(change: tuple[int, int, bool]) -> float:
    """Units of one index entry's change (size before, size after, moved): a move is a deletion and an insertion."""
    before, after, moved = change
    if not moved:
        return write_units(max(before, after))
    return (write_units(before) if before else 0.0) + (write_units(after) if after else 0.0)


@dataclass(slots=True)
class Usage:
    """Units that one request used of one table and of its indexes."""

    table: Table
    base: float = 0.0
    indexes: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return self.base + sum(self.indexes.values())

    def add_write(self, old_size: int, new_size: int, changes: dict, factor: int = 1) -> None:
        self.base += factor * write_units(max(old_size, new_size))
        for name, change in changes.items():
            self.indexes[name] = self.indexes.get(name, 0.0) + factor * entry_units(change)


def mode_of(params: dict[str, Any]) -> str:
    """The request's ReturnConsumedCapacity. Raises ValidationException."""
    mode = params.get("ReturnConsumedCapacity", "NONE")
    if mode not in MODES:
        raise invalid(
            f"1 validation error detected: Value '{mode}' at 'returnConsumedCapacity' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(MODES)}]"
        )
    return mode


def report(usage: Usage, mode: str, transaction: str | None = None) -> dict[str, Any]:
    """A ConsumedCapacity. `transaction` is "Read" or "Write" for the operations that name the kind of unit."""
    out: dict[str, Any] = {"TableName": usage.table.name, "CapacityUnits": usage.total}
    if transaction is not None:
        out[f"{transaction}CapacityUnits"] = usage.total
    if mode == "INDEXES":
        out["Table"] = _units(usage.base, transaction)
        for index in usage.table.indexes:
            if index.name in usage.indexes:
                member = "GlobalSecondaryIndexes" if index.is_global else "LocalSecondaryIndexes"
                out.setdefault(member, {})[index.name] = _units(usage.indexes[index.name], transaction)
    return out


def _units(units: float, transaction: str | None) -> dict[str, float]:
    out = {"CapacityUnits": units}
    if transaction is not None:
        out[f"{transaction}CapacityUnits"] = units
    return out


@dataclass(slots=True)
class _Bucket:
    rate: int
    tokens: float
    at: float


class Throttle:
    """Token buckets of the tables and global indexes that have a limit: provisioned throughput, or a maximum of
    on-demand units. A bucket keeps up to 300 seconds of unused capacity and starts full; a request is admitted while
    it is not empty. State is in memory: a restarted server starts with full buckets."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, str], _Bucket] = {}

    def admit(self, table: Table, kind: str, now: float, index: str | None = None) -> None:
        """`kind` is "read" or "write"; a write also needs capacity in the global indexes. Raises
        ProvisionedThroughputExceededException or ThrottlingException."""
        for holding, resource, limit in _limits(table, kind, index):
            if self._bucket(holding, kind, limit, now).tokens <= 0:
                raise _refusal(table, kind, resource)

    def charge(self, usage: Usage, kind: str, now: float) -> None:
        """Take what a request used out of the buckets."""
        table = usage.table
        for holding, resource, limit in _limits(table, kind, None):
            used = usage.base if resource == table.name else usage.indexes.get(resource, 0.0)
            if used:
                self._bucket(holding, kind, limit, now).tokens -= used

    def _bucket(self, holding: int, kind: str, limit: int, now: float) -> _Bucket:
        bucket = self._buckets.get((holding, kind))
        if bucket is None or bucket.rate != limit:
            bucket = self._buckets[holding, kind] = _Bucket(limit, float(limit * BURST_S), now)
        elif now > bucket.at:
            bucket.tokens = min(float(limit * BURST_S), bucket.tokens + (now - bucket.at) * limit)
            bucket.at = now
        return bucket


def _limits(table: Table, kind: str, index: str | None) -> list[tuple[int, str, int]]:
    """(holding, name, units per second) of what a request draws on and has a limit."""
    on_demand = table.billing == "PAY_PER_REQUEST"
    if on_demand and table.on_demand is None:
        return []
    out = []
    limit = _rate(table.on_demand if on_demand else table.throughput, kind)
    if limit > 0 and index is None:
        out.append((table.holding, table.name, limit))
    for entry in table.indexes:
        limit = _rate(entry.throughput, kind)
        if entry.is_global and limit > 0 and index in (None, entry.name):
            out.append((entry.holding, entry.name, limit))
    return out


def _rate(throughput: Throughput | None, kind: str) -> int:
    if throughput is None:
        return 0
    return throughput.read if kind == "read" else throughput.write


def _refusal(table: Table, kind: str, resource: str) -> AwsError:
    place = "Table" if resource == table.name else "Index"
    arn = table.arn if place == "Table" else f"{table.arn}/index/{resource}"
    if table.billing == "PAY_PER_REQUEST":
        code = "ThrottlingException"
        reason = f"{place}{kind.capitalize()}MaxOnDemandThroughputExceeded"
        message = "Throughput exceeds the maximum OnDemandThroughput configured on table or index."
    else:
        code, message = "ProvisionedThroughputExceededException", EXCEEDED
        reason = f"{place}{kind.capitalize()}ProvisionedThroughputExceeded"
    return AwsError(code, message, fields={"ThrottlingReasons": [{"reason": reason, "resource": arn}]})

"""What a source of events is to the poller, and what the triggers tell their owner."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from preheat.execution.contract import FunctionSpec, Outcome
from preheat.services.awslambda.domain import Mapping
from preheat.services.contract import Context


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know: `kind` is a short name, `subject` the ARN it is about, `text` what and why."""

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        return self.text


OnNotice = Callable[[Notice], None]


@dataclass(frozen=True, slots=True)
class Item:
    """One claimed record. `record` is its JSON as the function sees it, `handle` what settles it; the claim ends by
    itself at `expires_at` (epoch seconds). Items of one `group` ("" is none) never run at the same time, and none of
    them runs after one that failed. `receives` counts how often it was claimed, this time included."""

    id: str
    handle: str
    record: bytes
    expires_at: float
    group: str = ""
    receives: int = 1
    arrived_at: float = 0.0
    trace: str | None = None
    """The X-Ray trace header with which it was sent."""


@dataclass(slots=True, eq=False)
class Batch:
    """Items on their way through one function. `lane` is where they came from (see Source), `attempts` how often the
    function failed on them, `refusals` how often they were throttled; `retry_at` is the next attempt."""

    mapping: Mapping
    items: list[Item]
    spec: FunctionSpec
    invoked_arn: str
    lane: str = ""
    trace_id: str | None = None
    request_id: str = ""
    attempts: int = 0
    refusals: int = 0
    retry_at: float = 0.0

    @property
    def payload(self) -> bytes:
        return b'{"Records":[' + b",".join(item.record for item in self.items) + b"]}"

    @property
    def expires_at(self) -> float:
        return min(item.expires_at for item in self.items)

    @property
    def groups(self) -> set[str]:
        return {item.group for item in self.items if item.group}


class Claim(NamedTuple):
    """`items` to hand to the function; `received` is how many were taken from the source, `filtered` of them matched
    no filter. `size` is what was received, in bytes. `drained` means that there is nothing more now. `cursor` is where
    the next claim of the lane goes on."""

    items: list[Item]
    received: int
    drained: bool = False
    filtered: int = 0
    size: int = 0
    cursor: str | None = None


class Settled(NamedTuple):
    """What became of a batch: `deleted` items are done for good, `failed` ones are not; `lost` of them will not be
    handed out again because their receives are used up. `again` are batches to run before anything else of the lane,
    in this order, each not before its `retry_at`. Items of `blocked` groups must not run before those that failed.
    `denied` says why done items could not be taken from the source."""

    deleted: int = 0
    failed: int = 0
    lost: int = 0
    blocked: frozenset[str] = frozenset()
    again: tuple[Batch, ...] = ()
    denied: str = ""


@dataclass(slots=True)
class Prepared:
    """A mapping made ready by its source: whatever the source wants to keep for it."""

    mapping: Mapping
    match: Callable[[dict[str, Any]], bool] | None = None
    memory: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A service that event source mappings read from. All methods but `prepare` and `topics` run in a transaction
    whose scope is the mapping's.

    A queue has one lane, "", and any number of batches of it run at once; a claimed record that is not settled comes
    back when its claim expires. A stream (`ordered`) has a lane per shard and parallel part; one batch of a lane runs
    at a time, and what failed is in `Settled.again` until the source gives it up."""

    service: str
    ordered: bool

    def prepare(self, mapping: Mapping) -> Prepared: ...

    def topics(self, mapping: Mapping) -> tuple[str, ...]:
        """The notifications that say there may be something to claim."""

    def lanes(self, ctx: Context, prepared: Prepared) -> tuple[str, ...]:
        """The lanes that may be claimed from now. Raises AwsError when the source is gone."""

    def claim(
        self, ctx: Context, prepared: Prepared, lane: str, cursor: str | None, limit: int, spec: FunctionSpec
    ) -> Claim:
        """Take up to `limit` records of a lane for this function; `limit` is the mapping's BatchSize when nothing of
        the lane is buffered. `cursor` is what the claim before gave, None after a start: from what is settled on.
        Raises AwsError when the source is gone or the function's role may not read."""

    def next_at(self, ctx: Context, prepared: Prepared) -> float | None:
        """When something not claimable now becomes so (epoch seconds), or None."""

    def has_backlog(self, ctx: Context, prepared: Prepared) -> bool:
        """Is there something to claim now?"""

    def settle(self, ctx: Context, batch: Batch, outcome: Outcome | None) -> Settled:
        """Finish what the function did. None: its claim expired before the function could be started."""

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
    itself at `expires_at` (epoch seconds)."""

    id: str
    handle: str
    record: bytes
    expires_at: float


@dataclass(slots=True, eq=False)
class Batch:
    """Items on their way through one function. `refusals` counts throttles; `retry_at` is the next attempt."""

    mapping: Mapping
    items: list[Item]
    spec: FunctionSpec
    invoked_arn: str
    refusals: int = 0
    retry_at: float = 0.0

    @property
    def payload(self) -> bytes:
        return b'{"Records":[' + b",".join(item.record for item in self.items) + b"]}"

    @property
    def expires_at(self) -> float:
        return min(item.expires_at for item in self.items)


class Claim(NamedTuple):
    """`items` to hand to the function; `received` is how many were taken from the source, those that no filter
    matched included. 0 means that there is nothing now, `drained` that there is nothing more."""

    items: list[Item]
    received: int
    drained: bool = False


@dataclass(slots=True)
class Prepared:
    """A mapping made ready by its source: whatever the source wants to keep for it."""

    mapping: Mapping
    match: Callable[[dict[str, Any]], bool] | None = None
    memory: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A service that event source mappings read from. All methods but `prepare` and `topics` run in a transaction
    whose scope is the mapping's."""

    service: str

    def prepare(self, mapping: Mapping) -> Prepared: ...

    def topics(self, mapping: Mapping) -> tuple[str, ...]:
        """The notifications that say there may be something to claim."""

    def claim(self, ctx: Context, prepared: Prepared, limit: int, timeout_s: float) -> Claim:
        """Take up to `limit` records for a function with this timeout. Raises AwsError when the source is gone."""

    def next_at(self, ctx: Context, prepared: Prepared) -> float | None:
        """When something not claimable now becomes so (epoch seconds), or None."""

    def has_backlog(self, ctx: Context, prepared: Prepared) -> bool:
        """Is there something to claim now?"""

    def settle(self, ctx: Context, batch: Batch, outcome: Outcome) -> bool:
        """Finish what the function did. False when the whole batch or a part of it failed."""

"""Deliveries: something on its way from one service to a target, stored as an event of kind "deliver".

Every service that sends on behalf of somebody (S3 notifications, Lambda destinations, SNS subscriptions, EventBridge
targets, schedules) emits a `Delivery` in its own transaction; `triggers/delivery.py` carries it out.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from preheat.services.contract import Context

KIND = "deliver"
Attributes = dict[str, tuple[str, str]]
"""Message attributes: (data type, value) by name; a binary value in base64."""


@dataclass(frozen=True, slots=True)
class Phase:
    """`retries` attempts with pauses from `least_s` to `most_s`, growing by `backoff`."""

    retries: int
    least_s: float = 0.0
    most_s: float = 0.0
    backoff: Literal["linear", "arithmetic", "geometric", "exponential"] = "linear"


@dataclass(frozen=True, slots=True)
class Ladder:
    """When a failed attempt is repeated: phase after phase, within `max_age_s` seconds of the first attempt. `spread`
    is the share of each pause that chance may take away (jitter)."""

    phases: tuple[Phase, ...]
    max_age_s: float
    spread: float = 0.0

    @property
    def max_attempts(self) -> int:
        return 1 + sum(phase.retries for phase in self.phases)


DEFAULT_LADDER = Ladder((Phase(9, 1.0, 256.0, "exponential"), Phase(1_000, 300.0, 300.0)), 6 * 3600.0)


@dataclass(frozen=True, slots=True)
class Counts:
    """The CloudWatch metrics that a delivery's end is counted in; a name left empty is not counted."""

    namespace: str
    dimensions: dict[str, str]
    delivered: str = ""
    failed: str = ""
    retried: str = ""
    dead_lettered: str = ""
    dead_letter_failed: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """`target` is an ARN or an http(s) URL, `body` a text (JSON for Lambda). `source_arn` and `source_service`
    ("sns.amazonaws.com") say who sends, for resource policies; `role` is the role it acts as instead, if any.
    `options` is what this kind of target needs besides (see its function in `triggers/targets`). `dead_letter` is a
    queue's ARN; it gets `dead_letter_body` (None: the body) with `dead_letter_attributes` (None: the attributes).
    `trace` is an X-Ray trace header. `accepted_at` is filled in by the first attempt."""

    target: str
    body: str
    source_arn: str = ""
    source_service: str = ""
    role: str = ""
    attributes: Attributes | None = None
    message_group_id: str | None = None
    message_deduplication_id: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    ladder: Ladder = DEFAULT_LADDER
    dead_letter: str | None = None
    dead_letter_body: str | None = None
    dead_letter_attributes: Attributes | None = None
    counts: Counts | None = None
    trace: str | None = None
    accepted_at: float | None = None


def emit(ctx: Context, delivery: Delivery, due_at: float | None = None) -> None:
    """Store a delivery; it leaves after the commit, or at `due_at` (epoch seconds)."""
    ctx.db.emit(KIND, msgspec.json.encode(delivery), ctx.now if due_at is None else due_at)

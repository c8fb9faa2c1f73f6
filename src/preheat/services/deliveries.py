"""Deliveries: something on its way from one service to a target, stored as an event of kind "deliver".

Every service that sends on behalf of somebody (S3 notifications, Lambda destinations, SNS subscriptions, EventBridge
targets, schedules) emits a `Delivery` in its own transaction; `triggers/delivery.py` carries it out. The values are
msgspec structs: what has its default is not stored. Change one with `msgspec.structs.replace`.
"""

from typing import Any, Literal

import msgspec

from preheat.kernel.scope import Arn
from preheat.services.contract import Context, Principal

KIND = "deliver"
WEB_KIND = "deliver.web"
"""Deliveries to http(s) URLs: endpoints that are slow do not hold up the others."""
INSERT = "INSERT INTO due (due_at, kind, payload) VALUES (?, ?, ?)"
TRACE_HEADER = "x-amzn-trace-id"
MAX_TRACE = 4_096
Attributes = dict[str, tuple[str, str]]
"""Message attributes: (data type, value) by name; a binary value in base64."""


class Phase(msgspec.Struct, frozen=True, omit_defaults=True):
    """`retries` attempts with pauses from `least_s` to `most_s`, growing by `backoff`."""

    retries: int
    least_s: float = 0.0
    most_s: float = 0.0
    backoff: Literal["linear", "arithmetic", "geometric", "exponential"] = "linear"

    def pause(self, index: int) -> float:
        """Seconds before retry number `index` (from 0). Linear grows by equal steps, arithmetic by steps that grow
        equally, geometric by an equal factor, exponential by steps that double (assumed: AWS publishes no formulas)."""
        last = self.retries - 1
        if last <= 0 or self.most_s <= self.least_s:
            return self.least_s
        if self.backoff == "geometric":
            least = self.least_s or 1.0
            return self.least_s if index == 0 else least * (self.most_s / least) ** (index / last)
        share = index / last
        if self.backoff == "arithmetic":
            share = index * (index + 1) / (last * (last + 1))
        elif self.backoff == "exponential":
            share = (2.0**index - 1) / (2.0**last - 1) if last < 1_000 else float(index == last)
        return self.least_s + (self.most_s - self.least_s) * share


class Ladder(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a failed attempt is repeated: phase after phase, within `max_age_s` seconds of the first attempt. `spread`
    is the share of each pause that chance may take away (jitter)."""

    phases: tuple[Phase, ...]
    max_age_s: float
    spread: float = 0.0

    @property
    def max_attempts(self) -> int:
        return 1 + sum(phase.retries for phase in self.phases)

    def pause(self, failures: int, draw: float) -> float | None:
        """Seconds to wait after that many failed attempts, or None when there is no further one. `draw` in [0, 1)."""
        index = failures - 1
        for phase in self.phases:
            if index < phase.retries:
                return phase.pause(index) * (1.0 - self.spread * draw)
            index -= phase.retries
        return None


DEFAULT_LADDER = Ladder((Phase(9, 1.0, 256.0, "exponential"), Phase(1_000, 300.0, 300.0)), 6 * 3600.0)


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The CloudWatch metrics that a delivery's end is counted in; a name left empty is not counted."""

    namespace: str
    dimensions: dict[str, str]
    delivered: str = ""
    failed: str = ""
    retried: str = ""
    dead_lettered: str = ""
    dead_letter_failed: str = ""


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """`target` is an ARN or an http(s) URL, `body` a text (JSON for Lambda). `source_arn` and `source_service`
    ("sns.amazonaws.com") say who sends, for resource policies; `role` is the role it acts as instead, if any.
    `options` is what this kind of target needs besides (see its function in `triggers/targets`). `dead_letter` is a
    queue's ARN; it gets `dead_letter_body` (None: the body) with `dead_letter_attributes` (None: the attributes);
    `dead_letter_style` "events" adds EventBridge's attributes about the failure. `trace` is an X-Ray trace header
    (None: that of the call that emits). `accepted_at` is filled in by the first attempt."""

    target: str
    body: str
    source_arn: str = ""
    source_service: str = ""
    role: str = ""
    attributes: Attributes | None = None
    message_group_id: str | None = None
    message_deduplication_id: str | None = None
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    ladder: Ladder = DEFAULT_LADDER
    dead_letter: str | None = None
    dead_letter_body: str | None = None
    dead_letter_attributes: Attributes | None = None
    dead_letter_style: Literal["plain", "events"] = "plain"
    counts: Counts | None = None
    trace: str | None = None
    accepted_at: float | None = None


def role_principal(role: str, session: str) -> Principal:
    """A session of the role with this ARN."""
    arn = Arn.parse(role)
    name = arn.resource.rpartition("/")[2]
    assumed = f"arn:aws:sts::{arn.account}:assumed-role/{name}/{session}"
    return Principal(assumed, arn.account, "role", f"AROA{name.upper()}:{session}")


def trace_header(ctx: Context) -> str | None:
    """The X-Ray trace header with which a call came, for whatever is sent because of it."""
    if ctx.request is None:
        return None
    header = ctx.request.headers.get(TRACE_HEADER)
    return header if header and len(header) <= MAX_TRACE and header.isascii() and header.isprintable() else None


def emit(ctx: Context, delivery: Delivery, due_at: float | None = None) -> None:
    """Store a delivery; it leaves after the commit, or at `due_at` (epoch seconds)."""
    if delivery.trace is None and (trace := trace_header(ctx)) is not None:
        delivery = msgspec.structs.replace(delivery, trace=trace)
    web = delivery.target.startswith(("http://", "https://")) or ":api-destination/" in delivery.target
    kind = WEB_KIND if web else KIND
    ctx.db.notify("due")
    ctx.db.later(INSERT, (ctx.now if due_at is None else due_at, kind, msgspec.json.encode(delivery)))

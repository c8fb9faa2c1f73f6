"""What a service is, and what an operation may answer.

An operation is a plain function `(ctx, params) -> Outcome` that runs inside one transaction on one thread:

    a dict      the modelled output, answered after the commit
    Reply       the same with an HTTP status or headers of its own
    Wait        nothing to say yet: parked until one of its topics is notified or its time comes, then asked again
    Deferred    the answer comes from elsewhere (a worker process, a thread): started after the commit, then continued
                in a transaction of its own
    AwsError    raised: everything the operation wrote is taken back

`params` has the types of botocore's Python API: str, int, float, bool, bytes for blobs, datetime for timestamps
(aware, UTC), dict, list; members the client left out are absent. Outputs likewise; a streaming blob may be bytes,
`FileSlice` or `Channel` of bytes, an event stream is a `Channel` of one-member dicts.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.http import HttpRequest
from preheat.kernel.scope import Scope
from preheat.kernel.stream import Background
from preheat.store.database import Database

if TYPE_CHECKING:
    from preheat.services.machine import Machine

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `kind` is "root", "user", "role" (an assumed role's session), "service" (Preheat acting for an AWS
    service, `arn` then is e.g. "s3.amazonaws.com") or "anonymous"."""

    arn: str
    account: str
    kind: str = "root"
    user_id: str = ""
    access_key: str = ""


@dataclass(slots=True)
class Reply:
    """An output with an HTTP status or headers of its own. `output` as the operation's model has it."""

    output: Params
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Wait:
    """Ask `again(ctx)` when a topic is notified or at `until` (epoch seconds, the clock's `now()`), whichever comes
    first. `again` sees that time is up by `ctx.now >= until` and must then answer."""

    topics: tuple[str, ...]
    until: float
    again: "Callable[[Context], Outcome]"


@dataclass(slots=True)
class Deferred:
    """`start(resolve)` runs after the commit on the core's thread and returns at once; whoever has the answer calls
    `resolve(value)` there, once. `then(ctx, value)` makes the outcome in a new transaction; a value that is an
    exception is raised instead of being passed. `cancelled` is called when the client went away before."""

    start: Callable[[Callable[[Any], None]], None]
    then: "Callable[[Context, Any], Outcome]"
    cancelled: Callable[[], None] | None = None


Outcome = dict | Reply | Wait | Deferred


@dataclass(slots=True)
class Context:
    """What an operation knows about its call besides the parameters."""

    scope: Scope
    now: float
    db: Database
    principal: Principal
    request_id: str
    machine: "Machine"
    request: HttpRequest | None = None

    @property
    def now_ms(self) -> int:
        """`now` in epoch milliseconds; a moment written in milliseconds and waited for in seconds has come."""
        return int(self.now * 1_000 + 0.01)

    @property
    def entropy(self) -> Entropy:
        return self.machine.entropy

    def call(self, service: str, operation: str, params: Params, principal: Principal | None = None) -> Params:
        """Another service's operation, inside this transaction, as the same principal unless another is given.
        Only for operations that answer at once; what may take its time is emitted as an event instead."""
        return self.machine.call_inside(self, service, operation, params, principal)

    def offload(self, work: Callable[[], Any], then: "Callable[[Context, Any], Outcome]") -> Deferred:
        """Work that would hold up the core (files, arithmetic on many rows): done on another thread, without the
        database; `then(ctx, value)` continues."""
        return Deferred(lambda resolve: self.machine.background.run(work, resolve), then)


Operation = Callable[[Context, Params], Outcome]


@dataclass(frozen=True, slots=True)
class Platform:
    """What `app.py` hands to every service and trigger when it builds them."""

    db: Database
    clock: Clock
    entropy: Entropy
    background: Background
    machine: "Machine"
    settings: Any


class Service(Protocol):
    """One AWS API. `name` is botocore's service name; `operations` maps the model's operation names to functions;
    `schema` is its SQL (`CREATE ... IF NOT EXISTS`)."""

    name: str
    schema: str
    operations: dict[str, Operation]


class Loop(Protocol):
    """Work that goes on by itself: pollers, schedules, expiry. `step` runs inside a transaction of the machine, does a
    bounded amount, and returns the epoch second at which it wants to run again (None: not before it is woken; a time
    that has passed: at once, after others had their turn). `topics` are the notifications that wake it."""

    name: str
    topics: tuple[str, ...]

    def step(self, ctx: Context) -> float | None: ...


Row = sqlite3.Row

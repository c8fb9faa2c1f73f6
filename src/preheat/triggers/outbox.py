"""The loop over stored events: claim the rows of `due` whose time has come, and hand each to the handler of its kind.

A row is claimed in the loop's transaction and handled in one of its own; the handler ends it with `settle` (done) or
`retry` (again later), there or in a later transaction. A process that dies leaves claims, which the next one releases:
events are handled at least once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Platform, Reply, Row
from preheat.services.deliveries import WEB_KIND
from preheat.services.machine import Machine
from preheat.triggers.contract import Notice, OnNotice

CLAIMS_PER_STEP = 128
MAX_UNSETTLED = 1_000
FEWER_UNSETTLED = {WEB_KIND: 48}
"""Kinds that hold a thread each while they are handled."""
MAX_DEFECT_PAUSE_S = 300.0


@dataclass(slots=True, eq=False)
class Event:
    """One claimed row. `attempts` counts how often it was put back."""

    id: int
    kind: str
    key: str | None
    payload: bytes
    attempts: int
    outbox: "Outbox"
    claimed_at: float

    def settle(self, ctx: Context) -> None:
        """It is done."""
        ctx.db.run("DELETE FROM due WHERE id = ?", self.id)
        ctx.db.after_commit(partial(self.outbox.let_go, self))

    def retry(self, ctx: Context, due_at: float, payload: bytes | None = None) -> None:
        """Again at `due_at`, with another payload if one is given."""
        ctx.db.run(
            "UPDATE due SET claimed = 0, due_at = ?, attempts = attempts + 1, payload = coalesce(?, payload) "
            "WHERE id = ?",
            due_at, payload, self.id,
        )  # fmt: skip
        ctx.db.notify("due")
        ctx.db.after_commit(partial(self.outbox.let_go, self))


Handler = Callable[[Context, Event], Outcome]
"""Handles one event in a transaction of its own; an AwsError or a defect puts the event back with growing pauses. One
with a method `failed(ctx, event, error)` decides by itself, in a transaction after the one that was taken back."""


class Outbox:
    name = "outbox"
    topics = ("due",)

    def __init__(self, platform: Platform, handlers: dict[str, Handler], on_notice: OnNotice) -> None:
        self._machine: Machine = platform.machine
        self._handlers = handlers
        self._on_notice = on_notice
        self._unsettled: dict[str, set[int]] = {kind: set() for kind in handlers}
        self._stranded: list[Event] = []

    def step(self, ctx: Context) -> float | None:
        for event in self._stranded:
            event.retry(ctx, ctx.now + _pause(event))
        if self._stranded:
            ctx.db.after_commit(self._stranded.clear)
        due = [at for kind in self._handlers if (at := self._claim(ctx, kind)) is not None]
        return min(due, default=None)

    def _claim(self, ctx: Context, kind: str) -> float | None:
        """Claim what is due of one kind, as far as there is room; kinds do not hold each other up. Returns when to come
        again."""
        room = _most(kind) - len(self._unsettled[kind])
        if room <= 0:
            return None
        rows = ctx.db.all(
            "SELECT id, key, payload, attempts FROM due WHERE claimed = 0 AND kind = ? AND due_at <= ? "
            "ORDER BY due_at, id LIMIT ?",
            kind, ctx.now, min(room, CLAIMS_PER_STEP),
        )  # fmt: skip
        if rows:
            ctx.db.many("UPDATE due SET claimed = 1 WHERE id = ?", [(row["id"],) for row in rows])
            events = [self._event(row, kind, ctx.now) for row in rows]
            ctx.db.after_commit(partial(self._start, events))
        return ctx.db.value("SELECT min(due_at) FROM due WHERE claimed = 0 AND kind = ?", kind)

    def _event(self, row: Row, kind: str, now: float) -> Event:
        return Event(row["id"], kind, row["key"], bytes(row["payload"]), row["attempts"], self, now)

    def let_go(self, event: Event) -> None:
        unsettled = self._unsettled[event.kind]
        full = len(unsettled) >= _most(event.kind)
        unsettled.discard(event.id)
        if full:
            self._machine.wake(self)

    def _start(self, events: list[Event]) -> None:
        for event in events:
            self._unsettled[event.kind].add(event.id)
            handler = self._handlers[event.kind]
            self._machine.perform(partial(_handle, handler, event), partial(self.failed, event))

    def failed(self, event: Event, reply: Reply | AwsError) -> None:
        """To be called with the reply of every transaction that handles `event`: an error puts it back."""
        if not isinstance(reply, AwsError):
            return
        own = getattr(self._handlers[event.kind], "failed", None)
        if own is not None:
            error = reply
            self._machine.perform(lambda ctx: own(ctx, event, error), partial(self._not_put_back, event))
            return
        pause = _pause(event)
        self._on_notice(
            Notice("event-failed", event.kind, f"{reply.code}: {reply.message} It is tried again in {pause:g} s.")
        )

        def put_back(ctx: Context) -> dict:
            event.retry(ctx, ctx.now + pause)
            return {}

        self._machine.perform(put_back, partial(self._not_put_back, event))

    def _not_put_back(self, event: Event, reply: Reply | AwsError) -> None:
        """The disk refused: the loop puts it back when it is run next."""
        if isinstance(reply, AwsError):
            self._stranded.append(event)
            self._machine.wake(self)


def _most(kind: str) -> int:
    return FEWER_UNSETTLED.get(kind, MAX_UNSETTLED)


def _pause(event: Event) -> float:
    return min(2.0 ** min(event.attempts, 10), MAX_DEFECT_PAUSE_S)


def _handle(handler: Handler, event: Event, ctx: Context) -> Outcome:
    return handler(ctx, event)

"""Where queries wait for their index: search structures are built on the first query, kept up from committed writes,
and dropped when idle or when memory is short.

An index is worked on by one job at a time, in the background; what arrives meanwhile waits and is answered together by
the next job. So structures need no lock, and a query sees every write that was committed before it. Cheap jobs are
done at once on the core's thread.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from preheat.kernel.clock import Clock
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Deferred, Outcome
from preheat.services.machine import Machine
from preheat.services.s3vectors import repository
from preheat.services.s3vectors.domain import not_found
from preheat.services.s3vectors.search import Change, Hit, Query, SearchIndex
from preheat.store.database import Database

GARBAGE = "s3vectors-garbage"
LOAD_ROWS = 500
PURGE_ROWS = 2_000
APPLY_AT = 1_000
CHEAP_ROWS = 1_000
CHEAP_CHANGES = 20
IDLE_S = 900.0
MEMORY_BYTES = 1024**3


@dataclass(slots=True, eq=False)
class _Entry:
    id: int
    building: SearchIndex
    last_used: float
    ready: bool = False
    cursor: int = 0
    bytes: int = 0
    changes: list[Change] = field(default_factory=list)
    waiting: deque[tuple[Query, Callable[[Any], None]]] = field(default_factory=deque)
    busy: bool = False
    dropped: bool = False
    improving: bool = False
    stepping: bool = False
    again: bool = False


class Desk:
    """All of it on the core's thread, except the jobs handed to `background`."""

    name = "s3vectors-upkeep"
    topics: tuple[str, ...] = (GARBAGE,)

    def __init__(
        self,
        db: Database,
        clock: Clock,
        background: Background,
        machine: Machine,
        memory_bytes: int = MEMORY_BYTES,
        exact_limit: int | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._background = background
        self._machine = machine
        self._memory_bytes = memory_bytes
        self._exact_limit = exact_limit
        self._entries: dict[int, _Entry] = {}

    @property
    def loaded(self) -> int:
        """How many indexes have search structures in memory."""
        return len(self._entries)

    def search(self, index: int, query: Query, then: Callable[[Context, list[Hit]], Outcome]) -> Deferred:
        return Deferred(lambda resolve: self._ask(index, query, resolve), then)

    def follow(self, index: int, changes: list[Change]) -> None:
        """Committed writes of an index; call it after the commit."""
        entry = self._entries.get(index)
        if entry is not None:
            entry.changes.extend(changes)
            if len(entry.changes) >= APPLY_AT:
                self._pump(entry)

    def forget(self, index: int) -> None:
        """Drop an index's structures, or what is left of a deleted or changed one; waiting queries are asked anew."""
        entry = self._entries.pop(index, None)
        if entry is None:
            return
        entry.dropped = True
        waiting, entry.waiting = entry.waiting, deque()
        for query, resolve in waiting:
            self._ask(index, query, resolve)

    def step(self, ctx: Context) -> float | None:
        """Delete what removed indexes left behind, drop what nobody asked for lately; returns when the next is due."""
        for index, entry in list(self._entries.items()):
            if not entry.busy and not entry.waiting and entry.last_used + IDLE_S <= ctx.now:
                self.forget(index)
        if repository.purge(ctx.db, PURGE_ROWS):
            return ctx.now
        due = min((entry.last_used + IDLE_S for entry in self._entries.values()), default=None)
        return None if due is None else max(due, ctx.now + 1.0)

    # -- one index ------------------------------------------------------------------------------------------------

    def _ask(self, index: int, query: Query, resolve: Callable[[Any], None]) -> None:
        entry = self._entries.get(index)
        if entry is None:
            spec = repository.index_by_id(self._db, index)
            if spec is None:
                resolve(not_found("index"))
                return
            entry = _Entry(index, SearchIndex(spec, self._exact_limit), self._clock.now())
            self._entries[index] = entry
            self._machine.wake(self)
        entry.last_used = self._clock.now()
        entry.waiting.append((query, resolve))
        self._pump(entry)

    def _pump(self, entry: _Entry) -> None:
        """Start jobs until one is under way elsewhere or nothing is left to do."""
        if entry.stepping:
            entry.again = True
            return
        entry.stepping = entry.again = True
        while entry.again:
            entry.again = False
            if not entry.busy and not entry.dropped:
                self._start(entry)
        entry.stepping = False

    def _start(self, entry: _Entry) -> None:
        index = entry.building
        if not entry.ready:
            rows = repository.rows_after(self._db, entry.id, entry.cursor, LOAD_ROWS)
            if len(rows) < LOAD_ROWS:
                entry.ready = True
            changes = [Change(row.key, row) for _, row in rows]
            if rows:
                entry.cursor = rows[-1][0]
                self._run(entry, lambda: index.apply(changes), [], len(rows))
                return
        if entry.waiting or len(entry.changes) >= APPLY_AT:
            changes, entry.changes = entry.changes, []
            asked = [*entry.waiting]
            entry.waiting.clear()

            def work() -> list[list[Hit]]:
                index.apply(changes)
                return [index.run(query) for query, _ in asked]

            self._run(entry, work, [resolve for _, resolve in asked], len(changes))
        elif entry.improving:
            self._run(entry, index.improve, [], APPLY_AT)

    def _run(self, entry: _Entry, work: Callable[[], Any], resolves: list[Callable], changes: int) -> None:
        entry.busy = True

        def done(value: Any) -> None:
            entry.busy = False
            self._settle(entry, value, resolves)

        if changes <= CHEAP_CHANGES and len(entry.building) <= CHEAP_ROWS:
            try:
                value = work()
            except Exception as error:
                value = error
            done(value)
        else:
            self._background.run(work, done)

    def _settle(self, entry: _Entry, value: Any, resolves: list[Callable[[Any], None]]) -> None:
        if isinstance(value, Exception):
            for resolve in resolves:
                resolve(value)
            self._fail(entry, value)
            return
        for resolve, hits in zip(resolves, value if resolves else ()):
            resolve(hits)
        if entry.dropped:
            return
        entry.bytes = entry.building.bytes
        entry.improving = entry.ready and entry.building.dense.pending_graph() > 0
        if entry.ready and entry.building.worn:
            self.forget(entry.id)
            return
        self._make_room(entry)
        self._pump(entry)

    def _fail(self, entry: _Entry, error: Exception) -> None:
        """A job broke: its structures are not to be trusted, and whoever waits is told."""
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]
        entry.dropped = True
        waiting, entry.waiting = entry.waiting, deque()
        for _, resolve in waiting:
            resolve(error)

    def _make_room(self, current: _Entry) -> None:
        total = sum(entry.bytes for entry in self._entries.values())
        for entry in sorted(self._entries.values(), key=lambda one: one.last_used):
            if total <= self._memory_bytes:
                return
            if entry is not current and not entry.busy and not entry.waiting:
                total -= entry.bytes
                self.forget(entry.id)

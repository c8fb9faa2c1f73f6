"""Where queries wait for their index: search structures are read from their copy or built on the first query, kept up
from committed writes, and dropped when idle or when memory is short.

An index is worked on by one job at a time, in the background; what arrives meanwhile waits and is answered together by
the next job. So structures need no lock, and a query sees every write that was committed before it. Cheap jobs are
done at once on the core's thread.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from preheat.kernel.clock import Clock
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Deferred, Outcome
from preheat.services.machine import Machine
from preheat.services.s3vectors import repository
from preheat.services.s3vectors.copies import Copies, State
from preheat.services.s3vectors.dense import GRAPH_STEP
from preheat.services.s3vectors.domain import IndexSpec, not_found
from preheat.services.s3vectors.repository import Copy
from preheat.services.s3vectors.saved import Snapshot
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


class Found(NamedTuple):
    """The hits of a search, and the state of the index that it saw."""

    hits: list[Hit]
    version: int


@dataclass(slots=True, eq=False)
class _Entry:
    id: int
    spec: IndexSpec
    building: SearchIndex
    last_used: float
    touched: float
    version: int
    copy: Copy | None = None
    restored: bool = False
    state: State = field(default_factory=State)
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
        copies: Copies | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._background = background
        self._machine = machine
        self._memory_bytes = memory_bytes
        self._exact_limit = exact_limit
        self._entries: dict[int, _Entry] = {}
        self._versions = 0
        self._copies = copies or Copies(db, background, machine, None)

    @property
    def loaded(self) -> int:
        """How many indexes have search structures in memory."""
        return len(self._entries)

    @property
    def restored(self) -> int:
        """How many of them were read from their copies."""
        return sum(entry.restored for entry in self._entries.values())

    def search(self, index: int, query: Query, then: Callable[[Context, Found], Outcome]) -> Deferred:
        return Deferred(lambda resolve: self._ask(index, query, resolve), then)

    def still(self, index: int, found: Found) -> bool:
        """Has nothing been written to the index since the search that found this?"""
        entry = self._entries.get(index)
        return entry is not None and entry.version == found.version

    def follow(self, index: int, changes: list[Change]) -> None:
        """Committed writes of an index; call it after the commit."""
        entry = self._entries.get(index)
        if entry is not None:
            entry.touched = self._clock.now()
            entry.version = self._next_version()
            entry.changes.extend(changes)
            if len(entry.changes) >= APPLY_AT:
                self._pump(entry)

    def forget(self, index: int) -> None:
        """Drop an index's structures, or what is left of a deleted or changed one; waiting queries are asked anew."""
        entry = self._entries.pop(index, None)
        if entry is None:
            return
        self._drop(entry)
        waiting, entry.waiting = entry.waiting, deque()
        for query, resolve in waiting:
            self._ask(index, query, resolve)

    def discard(self, index: int) -> None:
        """`forget`, and remove the copy, which the database no longer names; call it after the commit."""
        self._copies.discard(index)
        self.forget(index)
        self._machine.wake(self)

    def stop(self) -> None:
        """Write the copies that are wanted and begin nothing more: the machine has stopped. What a job is at work on is
        left."""
        for entry in self._entries.values():
            self._drop(entry)
            if entry.ready and not entry.busy:
                entry.building.apply(entry.changes)
                self._copies.write_at_stop(entry.spec, entry.state, entry.building)

    def step(self, ctx: Context) -> float | None:
        """Delete what removed indexes left behind, drop what nobody asked for lately, begin the copies that are due;
        returns when the next is due."""
        for index, entry in list(self._entries.items()):
            idle = not entry.busy and not entry.waiting and not entry.state.writing
            if idle and entry.last_used + IDLE_S <= ctx.now:
                self.forget(index)
        if repository.purge(ctx.db, PURGE_ROWS) or self._copies.tidy(ctx, PURGE_ROWS):
            return ctx.now
        times = [self._begin_copy(ctx, entry) for entry in self._entries.values()]
        times += [entry.last_used + IDLE_S for entry in self._entries.values()]
        due = min((time for time in times if time is not None), default=None)
        return None if due is None else max(due, ctx.now + 1.0)

    def _begin_copy(self, ctx: Context, entry: _Entry) -> float | None:
        """Begin a copy that is due; returns when to ask again."""
        if entry.state.wanted_since is None or entry.state.writing:
            return None
        due = self._copies.due(entry.state, max(entry.touched, entry.last_used), entry.improving)
        if due > ctx.now:
            return due
        began = self._copies.begin(ctx, entry.id, entry.state, lambda: self._order(entry))
        return None if began else ctx.now + 1.0

    def _next_version(self) -> int:
        self._versions += 1
        return self._versions

    def _order(self, entry: _Entry) -> None:
        if entry.dropped:
            self._copies.given_up(entry.id)
        else:
            self._pump(entry)

    # -- one index ------------------------------------------------------------------------------------------------

    def _ask(self, index: int, query: Query, resolve: Callable[[Any], None]) -> None:
        entry = self._entries.get(index)
        if entry is None:
            spec = repository.index_by_id(self._db, index)
            if spec is None:
                resolve(not_found("index"))
                return
            now = self._clock.now()
            entry = _Entry(index, spec, SearchIndex(spec, self._exact_limit), now, now, self._next_version())
            entry.copy = self._copies.find(index)
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
            if entry.copy is not None and not entry.restored:
                self._restore(entry, entry.copy)
                return
            changes = self._next_changes(entry)
            entry.ready = len(changes) < LOAD_ROWS
            if changes:
                self._run(entry, lambda: index.apply(changes), [], len(changes))
                return
        if entry.state.order is not None:
            self._capture(entry, entry.state.order)
        elif entry.waiting or len(entry.changes) >= APPLY_AT:
            changes, entry.changes = entry.changes, []
            asked = [*entry.waiting]
            entry.waiting.clear()
            entry.state.work += len(changes)
            version = entry.version

            def work() -> list[Found]:
                index.apply(changes)
                return [Found(index.run(query), version) for query, _ in asked]

            self._run(entry, work, [resolve for _, resolve in asked], len(changes))
        elif entry.improving and not entry.state.writing:
            entry.state.work += min(GRAPH_STEP, index.dense.pending_graph())
            self._run(entry, index.improve, [], APPLY_AT)

    def _next_changes(self, entry: _Entry) -> list[Change]:
        """What the structures lack: of their copy, or of all."""
        if entry.copy is None:
            rows = repository.rows_after(self._db, entry.id, entry.cursor, LOAD_ROWS)
            found = [(number, row.key, row) for number, row in rows]
        else:
            found = repository.changes_after(self._db, entry.id, entry.cursor, LOAD_ROWS)
            entry.state.work += len(found)
        if found:
            entry.cursor = found[-1][0]
        return [Change(key, row) for _, key, row in found]

    def _restore(self, entry: _Entry, copy: Copy) -> None:
        entry.busy = True

        def done(value: Any) -> None:
            entry.busy = False
            if entry.dropped:
                return
            if isinstance(value, Exception):
                entry.copy = None
                self._copies.lost(entry.spec, value)
            else:
                entry.building, entry.state.rows = value
                entry.restored, entry.cursor = True, copy.seq
            self._pump(entry)

        self._background.run(self._copies.reader(entry.spec, copy, self._exact_limit), done)

    def _capture(self, entry: _Entry, order: tuple[str, int]) -> None:
        """A copy is to be made: of what is committed now, so of all that its number stands for."""
        index, state = entry.building, entry.state
        changes, entry.changes = entry.changes, []
        entry.busy, state.order = True, None
        state.work += len(changes)

        def work() -> tuple[Snapshot, int]:
            index.apply(changes)
            return index.capture(state.rows.count if state.rows else 0), len(index)

        def done(value: Any) -> None:
            entry.busy = False
            if not isinstance(value, Exception) and not entry.dropped:
                snapshot, vectors = value
                self._copies.write(entry.spec, state, order, snapshot, vectors, lambda: self._saved(entry))
            else:
                self._copies.given_up(entry.id)
            self._settle(entry, value, [])

        self._background.run(work, done)

    def _saved(self, entry: _Entry) -> None:
        """A copy was written, or was not."""
        if not entry.dropped:
            self._want_copy(entry)
            self._pump(entry)

    def _want_copy(self, entry: _Entry) -> None:
        state = entry.state
        if entry.ready and state.wanted_since is None and self._copies.wanted(state, len(entry.building)):
            state.wanted_since = self._clock.now()
            self._machine.wake(self)

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
        for resolve, found in zip(resolves, value if resolves else ()):
            resolve(found)
        if entry.dropped:
            return
        entry.bytes = entry.building.bytes
        improved, entry.improving = entry.improving, entry.ready and entry.building.dense.pending_graph() > 0
        if entry.ready and entry.building.worn:
            self._copies.outdated(entry.id)
            self.forget(entry.id)
            return
        self._want_copy(entry)
        if improved and not entry.improving:
            self._machine.wake(self)
        self._make_room(entry)
        self._pump(entry)

    def _fail(self, entry: _Entry, error: Exception) -> None:
        """A job broke: its structures are not to be trusted, and whoever waits is told."""
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]
        self._drop(entry)
        waiting, entry.waiting = entry.waiting, deque()
        for _, resolve in waiting:
            resolve(error)

    def _drop(self, entry: _Entry) -> None:
        entry.dropped = True
        if entry.state.order is not None:
            self._copies.given_up(entry.id)

    def _make_room(self, current: _Entry) -> None:
        total = sum(entry.bytes for entry in self._entries.values())
        for entry in sorted(self._entries.values(), key=lambda one: one.last_used):
            if total <= self._memory_bytes:
                return
            if entry is not current and not entry.busy and not entry.waiting and not entry.state.writing:
                total -= entry.bytes
                self.forget(entry.id)

"""When an index's copy in files (saved.py) is written, read and removed. On the core's thread, except what is handed to
`background`.

Once a first copy has begun, the index's changed keys are noted in the same transaction as the change; a copy names the
last one it has surely seen. Reading it back is followed by those after that: nothing is missing, and what comes twice
does no harm. So SIGKILL costs no more than a stop, except that a stop writes what is wanted and not yet due.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preheat.kernel.stream import Background
from preheat.services.contract import Context, Outcome, Reply
from preheat.services.machine import Machine
from preheat.services.s3vectors import repository, saved
from preheat.services.s3vectors.domain import IndexSpec
from preheat.services.s3vectors.repository import Copy
from preheat.services.s3vectors.saved import Rows, Snapshot
from preheat.services.s3vectors.search import SearchIndex, code_digest, fingerprint
from preheat.store.database import Database
from preheat.store.errors import StoreError

FOLDER = "s3vectors"
"""Beside the database."""
LEAST_VECTORS = 1_000
"""Smaller indexes are made anew as quickly."""
CHANGED_SHARE = 50
"""A copy is replaced when one in so many of its vectors has changed since."""
QUIET_S = 2.0
PATIENCE_S = 60.0
"""How long a copy waits for a moment in which the index is not used, and for the graph."""
RETRY_S = 300.0
STOP_BYTES = 512 * 1024 * 1024
"""Larger structures are not written while the server stops: that would take seconds."""


@dataclass(slots=True)
class State:
    """What is known of one index's copies. `work` counts the changes, and the slots of the graph, since the last one;
    times are epoch seconds."""

    rows: Rows | None = None
    work: int = 0
    wanted_since: float | None = None
    retry_at: float = 0.0
    writing: bool = False
    order: tuple[str, int] | None = None
    """(token, number of the last change) of a copy that is to be captured."""


def notice(text: str) -> None:
    sys.stderr.write(f"notice: {text}\n")
    sys.stderr.flush()


class Copies:
    """`folder` None: there are none."""

    def __init__(
        self,
        db: Database,
        background: Background,
        machine: Machine,
        folder: Path | None,
        least_vectors: int = LEAST_VECTORS,
        say: Callable[[str], None] = notice,
    ) -> None:
        self._db = db
        self._background = background
        self._machine = machine
        self._folder = folder
        self._least = least_vectors
        self._say = say
        self._code = "" if folder is None else code_digest()
        self._writing: set[int] = set()
        self._stale: set[int] = set()
        self._swept = folder is None
        self._untrimmed = True

    def find(self, index: int) -> Copy | None:
        """The copy to read for this index; none when to follow it is as much work as to begin anew."""
        if self._folder is None or index in self._stale:
            return None
        found = repository.copy(self._db, index)
        return found if found is not None and found.token and found.logged * 2 <= found.vectors else None

    def reader(self, spec: IndexSpec, found: Copy, exact_limit: int | None) -> Callable[[], tuple[SearchIndex, Rows]]:
        """Reads a copy, for the background. What it returns does not have the changes after `found.seq`."""
        folder = self._place(spec.id)

        def read() -> tuple[SearchIndex, Rows]:
            stored = saved.read(folder, found.token, fingerprint(spec, self._code))
            return SearchIndex.restored(spec, exact_limit, stored), stored.kept

        return read

    def lost(self, spec: IndexSpec, error: Exception) -> None:
        """A copy could not be read; the index is built from its rows, and its next copy begins a new file."""
        self._stale.add(spec.id)
        self._say(f"the saved search structures of {spec.arn} are not used: {error or type(error).__name__}")

    def outdated(self, index: int) -> None:
        """The copy is right and not worth reading."""
        self._stale.add(index)

    def wanted(self, state: State, vectors: int) -> bool:
        if self._folder is None or state.writing:
            return False
        if state.rows is None:
            return vectors >= self._least
        return state.work >= max(self._least, vectors // CHANGED_SHARE)

    def due(self, state: State, touched: float, building: bool) -> float:
        """When to begin a copy that is wanted; `building`: the graph is not complete."""
        late = (state.wanted_since or touched) + PATIENCE_S
        return max(state.retry_at, late if building else min(late, touched + QUIET_S))

    def begin(self, ctx: Context, index: int, state: State, capture: Callable[[], None]) -> bool:
        """Note changes from now on, and call `capture` after the commit. False while an older copy is being written."""
        if index in self._writing:
            return False
        token, seq = ctx.entropy.uuid(), repository.begin_copy(ctx.db, index)

        def order() -> None:
            state.order, state.writing = (token, seq), True
            self._writing.add(index)
            capture()

        ctx.db.after_commit(order)
        return True

    def given_up(self, index: int) -> None:
        """What was ordered is not captured: its index's structures are no longer in use."""
        self._writing.discard(index)

    def write(
        self, spec: IndexSpec, state: State, order: tuple[str, int], snapshot: Snapshot, vectors: int,
        done: Callable[[], None],
    ) -> None:  # fmt: skip
        """Write what was captured, then let it count; `done` is called in any case."""
        folder, (token, seq), work = self._place(spec.id), order, state.work
        rows = state.rows or Rows(token)

        def over(problem: object) -> None:
            state.writing, state.wanted_since = False, None
            self._writing.discard(spec.id)
            if problem:
                state.retry_at = self._machine.clock.now() + RETRY_S
                self._say(f"the search structures of {spec.arn} were not saved: {problem}")
            done()

        def written(value: Any) -> None:
            if isinstance(value, Exception):
                over(value or type(value).__name__)
                return

            def end(ctx: Context) -> Outcome:
                return {"counts": repository.end_copy(ctx.db, spec.id, token, seq, vectors)}

            def told(reply: Any) -> None:
                if not isinstance(reply, Reply):
                    over(reply)
                elif reply.output["counts"]:
                    state.rows, state.work = value, state.work - work
                    self._stale.discard(spec.id)
                    self._untrimmed = True
                    self._background.run(lambda: saved.clean(folder, token, value.name), lambda _: over(None))
                else:
                    self.discard(spec.id)
                    over(None)

            self._machine.perform(end, told)

        self._background.run(lambda: saved.write(folder, token, fingerprint(spec, self._code), snapshot, rows), written)

    def write_at_stop(self, spec: IndexSpec, state: State, index: SearchIndex) -> None:
        """Write a copy that is wanted, if it is not too large to wait for; the machine runs no more."""
        if not self.wanted(state, len(index)) or spec.id in self._writing or index.bytes > STOP_BYTES:
            return
        token = self._machine.entropy.uuid()
        rows = state.rows or Rows(token)
        try:
            with self._db.transaction():
                seq = repository.begin_copy(self._db, spec.id)
            snapshot = index.capture(rows.count)
            saved.write(self._place(spec.id), token, fingerprint(spec, self._code), snapshot, rows)
            with self._db.transaction():
                repository.end_copy(self._db, spec.id, token, seq, len(index))
        except (OSError, StoreError) as error:
            self._say(f"the search structures of {spec.arn} were not saved: {error}")

    def discard(self, index: int) -> None:
        """Remove the files of an index that has no copy any more."""
        self._untrimmed = True
        if self._folder is not None:
            folder = self._place(index)
            self._background.run(lambda: saved.remove(folder), _ignore)

    def tidy(self, ctx: Context, limit: int) -> bool:
        """Remove what deleted indexes left among the files, once, and up to `limit` changes that no copy needs; True
        when there may be more."""
        if not self._swept and self._folder is not None:
            self._swept = True
            known = repository.copied(ctx.db)
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                if path.name.isdigit() and int(path.name) not in known:
                    self.discard(int(path.name))
        self._untrimmed = self._untrimmed and repository.trim_changes(ctx.db, limit)
        return self._untrimmed

    def _place(self, index: int) -> Path:
        return (self._folder or Path()) / str(index)


def _ignore(value: Any) -> None:
    """A file that stays is removed with the next copy, or at the next start."""

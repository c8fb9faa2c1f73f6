"""Seeded misfortune: the server dies in the middle of a transaction; functions fail, crash or take too long."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from preheat.execution.workers.contract import Exit, WorkerPlan, WorkRequest
from preheat.execution.workers.scripted import Script
from preheat.kernel.entropy import Entropy
from preheat.store.database import Database


class SimulatedCrash(BaseException):
    """The process has died. Not an Exception: nothing may catch it and go on."""


class CrashingDatabase(Database):
    """A database in memory whose owner dies at the write statement of that number, counted from `arm`."""

    def __init__(self) -> None:
        super().__init__(None)
        self._left: int | None = None

    def arm(self, statements: int) -> None:
        """Die at the `statements`-th write from now on."""
        self._left = statements

    def disarm(self) -> None:
        self._left = None

    def trace(self, watch: Callable[[str], None]) -> None:
        """Have `watch` called with every statement that SQLite runs."""
        self._connection.set_trace_callback(watch)

    def _write(self, sql: str, values: Sequence[Any]) -> Any:
        self._step()
        return super()._write(sql, values)

    def later(self, sql: str, row: Sequence[Any]) -> None:
        self._step()
        super().later(sql, row)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        self._step()
        return super().many(sql, rows)

    def _step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._left = None
                raise SimulatedCrash

    def recover(self) -> None:
        """What a restart finds: the open transaction is gone, claims of the dead process are due again."""
        self.rollback()
        self.on_undo.clear()
        with self.transaction():
            self.run("UPDATE due SET claimed = 0 WHERE claimed = 1")
        self.take_topics()
        self.take_actions()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a simulated function behaves: its mean duration and, of 1, how often it fails, crashes or hangs."""

    mean_s: float = 0.05
    error_rate: float = 0.0
    crash_rate: float = 0.0
    hang_rate: float = 0.0

    def script(self, plan: WorkerPlan, request: WorkRequest, chance: Entropy) -> Script:
        draw = chance.uniform()
        duration = -log(1 - chance.uniform()) * self.mean_s
        if draw < self.error_rate:
            return Script(duration, b'{"errorType":"RuntimeError","errorMessage":"simulated"}', "RuntimeError")
        draw -= self.error_rate
        if draw < self.crash_rate:
            return Script(duration, exit=Exit(status=1))
        draw -= self.crash_rate
        if draw < self.hang_rate:
            return Script(86_400.0)
        return Script(duration)

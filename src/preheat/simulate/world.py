"""The product with simulated seams: the same machine, services, triggers, gate and environments, with a clock that
jumps, seeded chance, scripted workers, and a database in memory whose owner can die."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.app import build_machine
from preheat.execution.contract import LogLine
from preheat.execution.pool import PoolLimits
from preheat.execution.workers.contract import WorkerPlan, WorkRequest
from preheat.execution.workers.scripted import InitScript, Script
from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import Entropy, SeededEntropy
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import DEFAULT_ACCOUNT, Scope
from preheat.kernel.stream import InlineBackground
from preheat.services.contract import Params
from preheat.settings import Settings
from preheat.simulate.faults import Behaviour, CrashingDatabase, SimulatedCrash
from preheat.simulate.loop import Timeline
from preheat.simulate.watched import WatchedFactory, WatchedPool, is_ahead
from preheat.triggers.contract import Notice

HOME = Scope(DEFAULT_ACCOUNT, "us-east-1")
STEADY = Behaviour()
Watcher = Callable[[str, float, dict[str, Any]], None]
Initialise = Callable[[WorkerPlan, Entropy], InitScript]


class World:
    """`watch(kind, at, details)` is called for every event of the trace: "invoke", "notice", "crash", those that
    `watched` names, and what a workload records. `initialise(plan, chance)` is the course of initialisations, by
    default success after `cold_start_s`."""

    def __init__(
        self,
        seed: int,
        scratch: Path,
        behaviour: Behaviour = STEADY,
        cold_start_s: float = 0.2,
        limits: PoolLimits | None = None,
        initialise: Initialise | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.timeline = Timeline(self.clock)
        self.chance = SeededEntropy(seed + 1)
        self.entropy = SeededEntropy(seed)
        self.db = CrashingDatabase()
        self.behaviour = behaviour
        self.cold_start_s = cold_start_s
        self.limits = limits or PoolLimits()
        self.initialise = initialise
        self.settings = Settings(state=scratch, account_concurrency=self.limits.account_concurrency)
        self.watchers: list[Watcher] = []
        self.notices: list[Notice] = []
        self.crashes = 0
        self._digest = hashlib.sha256()
        self._boot()

    def _boot(self) -> None:
        self.factory = WatchedFactory(
            self.clock, self.timeline.call_at, self._behave, self._initialise, record=self.record
        )
        self.pool = WatchedPool(
            self.clock, self.entropy, self.factory, on_log=self._drop, on_notice=lambda text: None,
            credentials=lambda spec: {}, limits=self.limits, record=self.record,
        )  # fmt: skip
        platform = build_machine(
            self.settings, self.db, self.clock, self.entropy, InlineBackground(), self.pool, self._notice
        )
        self.machine = platform.machine
        self.machine.on_defect = self._defect
        self.machine.wake_all()

    # -- the trace ------------------------------------------------------------------------------------------------

    def record(self, kind: str, **details: Any) -> None:
        """One event of the trace."""
        now = self.clock.now()
        self._digest.update(f"{now:.6f} {kind} {sorted(details.items())}\n".encode())
        for watcher in self.watchers:
            watcher(kind, now, details)

    def trace(self) -> str:
        """A digest of everything that happened, in order."""
        return self._digest.hexdigest()

    def _behave(self, plan: WorkerPlan, request: WorkRequest) -> Script:
        script = self.behaviour.script(plan, request, self.chance)
        seconds = round(min(script.duration_s, plan.spec.timeout_s), 6)
        self.pool.ahead = is_ahead(plan)
        self.record("invoke", request=request.request_id, payload=request.payload, seconds=seconds)
        return script

    def _initialise(self, plan: WorkerPlan) -> InitScript:
        return InitScript(self.cold_start_s) if self.initialise is None else self.initialise(plan, self.chance)

    def _drop(self, lines: list[LogLine]) -> None:
        return None

    def _notice(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.record("notice", kind_=notice.kind, subject=notice.subject)

    def _defect(self, text: str) -> None:
        raise AssertionError(text)

    # -- driving --------------------------------------------------------------------------------------------------

    def call(self, service: str, operation: str, **params: Any) -> Params:
        """One operation, to its end (the clock moves when it must). Raises its AwsError."""
        replies = self.submit(service, operation, **params)
        for _ in range(100_000):
            self.settle()
            if replies:
                if isinstance(replies[0], AwsError):
                    raise replies[0]
                return replies[0].output
            moment = self._next()
            if moment is None:
                break
            self.clock.move_to(moment)
        raise AssertionError(f"{service}:{operation} was never answered")

    def submit(self, service: str, operation: str, **params: Any) -> list[Any]:
        """Queue one operation; the list gets its Reply or AwsError."""
        replies: list[Any] = []
        self.machine.submit(service, operation, params, replies.append, scope=HOME)
        return replies

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Run `action` at an epoch second."""
        self.timeline.call_at(self.clock.monotonic() + moment - self.clock.now(), action)

    def run(self, seconds: float) -> None:
        """Let simulated time pass."""
        end = self.clock.now() + seconds
        while True:
            self.settle()
            moment = self._next()
            if moment is None or moment > end:
                break
            self.clock.move_to(moment)
        self.clock.move_to(end)
        self.settle()

    def settle(self) -> None:
        """Everything that is ready at this moment."""
        while True:
            try:
                worked = self.timeline.run_due()
                due = self.machine.wake_at()
                if due is not None and due <= self.clock.now():
                    self.machine.tick()
                    worked = True
                deadline = self.pool.next_deadline
                if deadline is not None and deadline <= self.clock.now():
                    self.pool.step(self.clock.now())
                    worked = True
            except SimulatedCrash:
                self.crash()
                continue
            if not worked:
                return

    def _next(self) -> float | None:
        moments = [self.machine.wake_at(), self.pool.next_deadline]
        following = self.timeline.next()
        if following is not None:
            moments.append(self.clock.now() + following - self.clock.monotonic())
        return min((moment for moment in moments if moment is not None), default=None)

    def crash(self) -> None:
        """SIGKILL and restart: what was committed stays, everything else is gone."""
        self.crashes += 1
        self.record("crash", number=self.crashes)
        self.factory.close()
        self.db.recover()
        self._boot()

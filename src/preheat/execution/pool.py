"""The pool: which environment runs an invocation, when new ones start, when old ones go.

Environments belong to one function version and revision (a `Fleet`). The most recently used idle one is taken first.
At the machine's ceiling an idle environment of another function gives way; when none is idle invocations wait, first
come first served, and `on_notice` says so. Everything happens on one thread; nothing blocks.
"""

import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

from preheat.execution import watch
from preheat.execution.contract import FunctionSpec, Invocation, LogLine, Outcome, Throttled, Usage
from preheat.execution.environment import Environment, Job, State
from preheat.execution.gate import Gate
from preheat.execution.variables import environment_variables, log_group
from preheat.execution.workers.contract import Worker, WorkerFactory, WorkerPlan
from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.meter import Meter

SAMPLE_S = 0.1
WATCH_SHARE = 20.0
WATCH_LONGEST_S = 0.05
NEVER = float("inf")

Credentials = Callable[[FunctionSpec], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`max_environments`: live environments on this machine; `max_waiting`: invocations that may queue for one;
    `idle_s`: an environment unused for so long is stopped."""

    account_concurrency: int = 1_000
    max_environments: int = 512
    max_waiting: int = 10_000
    idle_s: float = 300.0


DEFAULT_LIMITS = PoolLimits()


class Fleet:
    """The environments of one function version and revision. `idle` in order of last use, the latest at the end;
    those that need a new process first. What starts in a `retired` one stops after its work."""

    __slots__ = ("environments", "idle", "looks_again_at", "retired", "spec", "stamp")

    def __init__(self, spec: FunctionSpec) -> None:
        layers = tuple(layer.absolute() for layer in spec.layers)
        self.spec = replace(spec, code=spec.code.absolute(), layers=layers)
        self.environments: dict[Environment, None] = {}
        self.idle: list[Environment] = []
        self.retired = False
        self.stamp: int | None = None
        self.looks_again_at = 0.0

    def drain(self) -> None:
        """Stop what is idle now, the rest after its work."""
        for environment in list(self.environments):
            environment.draining = True
            if environment.job is None:
                environment.stop()
        self.idle.clear()


class Pool:
    """Implements `contract.Executor` (and `environment.Host`).

    `credentials(spec)` gives AWS_ACCESS_KEY_ID and the like; `endpoint` becomes AWS_ENDPOINT_URL; `scratch` is the
    directory of the environments' private /tmp (None: they have none); `on_wake` is called when `next_deadline` has
    become earlier, so that a driver can set its timer.
    """

    def __init__(
        self,
        clock: Clock,
        entropy: Entropy,
        factory: WorkerFactory,
        *,
        on_log: Callable[[list[LogLine]], None],
        on_notice: Callable[[str], None],
        credentials: Credentials,
        endpoint: str | Callable[[], str] = "",
        limits: PoolLimits = DEFAULT_LIMITS,
        scratch: Path | None = None,
    ) -> None:
        self.clock = clock
        self.gate = Gate(limits.account_concurrency)
        self.meter = Meter(clock.now)
        self.limits = limits
        self.on_wake: Callable[[], None] = lambda: None
        self._entropy = entropy
        self._factory = factory
        self._on_log = on_log
        self._on_notice = on_notice
        self._credentials = credentials
        self._endpoint = endpoint
        self._scratch = scratch
        self._fleets: dict[str, Fleet] = {}
        self._environments: dict[Environment, Fleet] = {}
        self._waiting: deque[tuple[Fleet, Job]] = deque()
        self._lines: list[LogLine] = []
        self._due = NEVER
        self._noticed = False
        self._closed = False

    # -- contract.Executor ----------------------------------------------------------------------------------------

    def invoke(self, invocation: Invocation, done: Callable[[Outcome], None]) -> Throttled | None:
        """Admit and run. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        spec = invocation.spec
        now = self.clock.now()
        refused = self.gate.admit(spec.arn, now, not invocation.asynchronous)
        if refused is not None:
            return refused
        fleet = self._fleet(spec)
        job = Job(invocation, done)
        if fleet.idle:
            fleet.idle.pop().assign(job)
            return None
        refused = self.gate.admit_start(spec.arn, now)
        if refused is None and len(self._environments) >= self.limits.max_environments:
            refused = self._wait(fleet, job)
        elif refused is None:
            self._launch(fleet, job)
        if refused is not None:
            self.gate.release(spec.arn)
        return refused

    def set_reserved(self, function_arn: str, limit: int | None) -> None:
        self.gate.set_reserved(function_arn, limit, self.clock.now())

    def retire(self, function_arn: str) -> None:
        for key, fleet in list(self._fleets.items()):
            if fleet.spec.arn == function_arn:
                del self._fleets[key]
                fleet.retired = True
                fleet.drain()

    def warm(self) -> None:
        """Prepare for the first functions, in the background: a server calls it when it has started."""
        self._factory.warm()

    def usage(self) -> Usage:
        usage = Usage(waiting=len(self._waiting), by_function=dict(self.gate.in_flight))
        for environment in self._environments:
            if environment.state is State.IDLE:
                usage.idle += 1
            elif environment.state is State.BUSY:
                usage.running += 1
            elif environment.state in (State.STARTING, State.INITIALISING):
                usage.starting += 1
        return usage

    def step(self, now: float) -> float | None:
        """Enforce timeouts and memory, reap what has idled too long. `now` is clock.now()."""
        monotonic = self.clock.monotonic()
        for environment in list(self._environments):
            if environment.worker is not None and environment.state is not State.IDLE:
                environment.watch(monotonic)
        reap_before = now - self.limits.idle_s
        for fleet in list(self._fleets.values()):
            for environment in [idle for idle in fleet.idle if idle.idle_since <= reap_before]:
                fleet.idle.remove(environment)
                environment.stop()
        self.flush()
        self._due = self._next_due(monotonic, now)
        return self.next_deadline

    @property
    def next_deadline(self) -> float | None:
        """When `step` must be called, in clock.now() seconds."""
        if self._due == NEVER:
            return None
        return self.clock.now() + max(0.0, self._due - self.clock.monotonic())

    def close(self) -> None:
        """Kill everything; returns when the processes are gone. No `done` is called after this."""
        self._closed = True
        self._factory.close()
        self.flush()
        for environment in self._environments:
            self._clear(environment)
        self._environments.clear()
        self._fleets.clear()
        self._waiting.clear()
        self._due = NEVER

    def environments(self) -> list[Environment]:
        """A snapshot, for status displays and tests."""
        return list(self._environments)

    def looks_again_at(self, spec: FunctionSpec) -> float:
        """Monotonic seconds from which on an invocation looks for edits of watched code again."""
        fleet = self._fleets.get(spec.key)
        return 0.0 if fleet is None else fleet.looks_again_at

    # -- environment.Host -----------------------------------------------------------------------------------------

    def start_worker(self, environment: Environment) -> Worker:
        spec = environment.spec
        scratch = environment.scratch
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        endpoint = self._endpoint if isinstance(self._endpoint, str) else self._endpoint()
        variables = environment_variables(
            spec, self._credentials(spec), endpoint, environment.log_stream, str(scratch or "")
        )
        self.due(self.clock.monotonic() + SAMPLE_S)
        return self._factory.start(WorkerPlan(spec, variables, scratch), environment)

    def log(self, environment: Environment, message: str) -> None:
        at = int(self.clock.now() * 1000.0)
        self._lines.append(LogLine(log_group(environment.spec), environment.log_stream, at, message))

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._on_log(lines)

    def due(self, at: float) -> None:
        sample = self.clock.monotonic() + SAMPLE_S
        at = min(at, sample)
        if at < self._due:
            self._due = at
            self.on_wake()

    def available(self, environment: Environment) -> None:
        if self._closed:
            return
        if environment.draining:
            environment.stop()
            return
        fleet = self._environments[environment]
        environment.idle_since = self.clock.now()
        if self._waiting:
            if self._waiting[0][0] is fleet:
                environment.assign(self._waiting.popleft()[1])
            else:
                environment.stop()
            return
        if environment.state is State.IDLE:
            fleet.idle.append(environment)
        else:
            fleet.idle.insert(0, environment)
        self._due = min(self._due, self.clock.monotonic() + self.limits.idle_s)

    def settled(self, environment: Environment, job: Job) -> None:
        self.gate.release(job.invocation.spec.arn)
        if environment.takes_work:
            self.available(environment)

    def gone(self, environment: Environment) -> None:
        fleet = self._environments.pop(environment)
        fleet.environments.pop(environment, None)
        if environment in fleet.idle:
            fleet.idle.remove(environment)
        self._clear(environment)
        while self._waiting and len(self._environments) < self.limits.max_environments:
            self._launch(*self._waiting.popleft())
        if not self._waiting:
            self._noticed = False

    # -- choices --------------------------------------------------------------------------------------------------

    def _fleet(self, spec: FunctionSpec) -> Fleet:
        fleet = self._fleets.get(spec.key)
        if fleet is None or (fleet.spec is not spec and fleet.spec.revision != spec.revision):
            if fleet is not None:
                fleet.retired = True
                fleet.drain()
            fleet = self._fleets[spec.key] = Fleet(spec)
            if spec.snap_start and spec.version != "$LATEST":
                self._on_notice(f"{spec.name}: SnapStart does not act here; version {spec.version} starts in full")
            if spec.watch:
                self._look(fleet, self.clock.monotonic())
        elif spec.watch:
            now = self.clock.monotonic()
            if now >= fleet.looks_again_at and self._look(fleet, now):
                fleet.drain()
        return fleet

    def _look(self, fleet: Fleet, now: float) -> bool:
        """Whether the watched code has changed since the last look. A look may take a twentieth of the time."""
        stamp = watch.scan(fleet.spec.code)
        after = self.clock.monotonic()
        fleet.looks_again_at = after + min(WATCH_LONGEST_S, (after - now) * WATCH_SHARE)
        changed = stamp != fleet.stamp
        fleet.stamp = stamp
        return changed

    def _launch(self, fleet: Fleet, job: Job) -> None:
        name = self._entropy.bytes(16).hex()
        spec = fleet.spec
        environment = Environment(
            self, spec, name, self._log_stream(spec, name), None if self._scratch is None else self._scratch / name
        )
        environment.draining = fleet.retired
        self._environments[environment] = fleet
        fleet.environments[environment] = None
        environment.launch(job)

    def _log_stream(self, spec: FunctionSpec, name: str) -> str:
        day = date(1970, 1, 1) + timedelta(self.clock.now() // 86_400)
        return f"{day:%Y/%m/%d}/[{spec.version}]{name}"

    def _wait(self, fleet: Fleet, job: Job) -> Throttled | None:
        """The ceiling is reached: an environment idle elsewhere gives way, or the job waits for one."""
        if len(self._waiting) >= self.limits.max_waiting:
            return Throttled("ConcurrentInvocationLimitExceeded")
        self._waiting.append((fleet, job))
        idle = [other.idle[0] for other in self._fleets.values() if other.idle]
        if idle:
            oldest = min(idle, key=lambda environment: environment.idle_since)
            self._environments[oldest].idle.remove(oldest)
            oldest.stop()
        elif not self._noticed:
            self._noticed = True
            self._on_notice(
                f"{self.limits.max_environments} environments run on this machine, its ceiling (max_environments); "
                "further invocations wait their turn where AWS would start more"
            )
        return None

    def _next_due(self, monotonic: float, now: float) -> float:
        due = NEVER
        for environment in self._environments:
            if environment.worker is not None and environment.state is not State.IDLE:
                due = min(due, monotonic + SAMPLE_S, environment.deadline or NEVER)
        for fleet in self._fleets.values():
            if fleet.idle:
                oldest = min(idle.idle_since for idle in fleet.idle)
                due = min(due, monotonic + oldest + self.limits.idle_s - now)
        return due

    def _clear(self, environment: Environment) -> None:
        if environment.scratch is not None:
            shutil.rmtree(environment.scratch, ignore_errors=True)

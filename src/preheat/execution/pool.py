"""The pool: which environment runs an invocation, when new ones start, when old ones go.

Environments belong to one function version and revision (a `Fleet`), or to its provisioned concurrency (`provision`),
which is used first. The most recently used idle one is taken first. At the machine's ceiling an idle environment of
another function gives way; when none is idle invocations wait, those of the function with the fewest environments
first (`waiting`). Every time the ceiling binds `on_notice` and a metric say so. Everything happens on one thread;
nothing blocks.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

from preheat.execution import watch
from preheat.execution.contract import (
    FunctionSpec,
    Invocation,
    LogLine,
    Outcome,
    Prepared,
    Provisioned,
    Provisioning,
    Throttled,
    Usage,
)
from preheat.execution.environment import Environment, Job, State
from preheat.execution.extensions.home import Home
from preheat.execution.extensions.house import Extensions
from preheat.execution.flow import Bandwidth
from preheat.execution.gate import Gate
from preheat.execution.measures import INTERVAL_S, Measures, Tally
from preheat.execution.provision import Provision, Provisions
from preheat.execution.snapshots import Snapshot, Snapshots
from preheat.execution.variables import NO_TRUST, Trusting, environment_variables, log_group
from preheat.execution.waiting import Waiting
from preheat.execution.workers.contract import Mould, Worker, WorkerFactory, WorkerPlan
from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.meter import Meter
from preheat.kernel.scope import Scope

SAMPLE_S = 0.1
WATCH_SHARE = 20.0
WATCH_LONGEST_S = 0.05
NEVER = float("inf")

Credentials = Callable[[FunctionSpec], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The machine's ceiling is `max_environments` live environments and `min_free_mb` of memory that a further one must
    leave free; `account_concurrency`: AWS's limit, for each account and region; `max_waiting`: invocations that may
    queue for an environment; `idle_s`: one unused for so long is stopped; `max_snapshots`: SnapStart versions kept
    initialised; `bandwidth`: of a streamed answer."""

    account_concurrency: int = 1_000
    max_environments: int = 512
    min_free_mb: int = 0
    max_waiting: int = 10_000
    idle_s: float = 300.0
    max_snapshots: int = 64
    bandwidth: Bandwidth | None = None


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


def _scope_of(function_arn: str) -> Scope:
    parts = function_arn.split(":")
    return Scope(parts[4], parts[3]) if len(parts) > 4 else Scope()


def _initialization(owner: Environment | Snapshot) -> str:
    """AWS_LAMBDA_INITIALIZATION_TYPE."""
    if isinstance(owner, Environment) and owner.ahead:
        return "provisioned-concurrency"
    return "snap-start" if owner.spec.snap_start else "on-demand"


class Pool:
    """Implements `contract.Executor` (and `environment.Host`).

    `credentials(spec)` gives AWS_ACCESS_KEY_ID and the like; `endpoint` becomes AWS_ENDPOINT_URL; `scratch` is the
    directory of the environments' private /tmp (None: they have none); `free_mb` is the machine's free memory;
    `trust` has the certificates that functions are given (None: none are);
    `on_wake` is called when `next_deadline` has become earlier, so that a driver can set its timer.
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
        free_mb: Callable[[], int] = lambda: 1_000_000_000,
        trust: Trusting | None = None,
    ) -> None:
        self.clock = clock
        self.meter = Meter(clock.now)
        self.limits = limits
        self.bandwidth = limits.bandwidth
        self.on_wake: Callable[[], None] = lambda: None
        self._entropy = entropy
        self._factory = factory
        self._on_log = on_log
        self._on_notice = on_notice
        self._credentials = credentials
        self._endpoint = endpoint
        self._scratch = scratch
        self._trust = trust
        self._fleets: dict[str, Fleet] = {}
        self._environments: dict[Environment, Fleet | None] = {}
        self._waiting: Waiting[Fleet] = Waiting()
        self._lines: list[LogLine] = []
        self._due = NEVER
        self._free_mb = free_mb
        self._bindings = 0
        self._bound = False
        self._closed = False
        self._gates: dict[Scope, Gate] = {}
        self._measures = Measures(clock.now)
        self._provisions = Provisions(self)
        self._snapshots = Snapshots(self, limits.max_snapshots, on_notice)

    # -- contract.Executor ----------------------------------------------------------------------------------------

    def invoke(self, invocation: Invocation, done: Callable[[Outcome], None]) -> Throttled | None:
        """Admit and run. Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        tally = self._measures.tally(invocation)
        refused = self._admit(invocation, done, tally)
        if refused is not None:
            tally.throttled += 1
        if self._measures.due_at == NEVER:
            self._measures.due_at = self.clock.monotonic() + INTERVAL_S
            self.due(self._measures.due_at)
        return refused

    def _admit(self, invocation: Invocation, done: Callable[[Outcome], None], tally: Tally) -> Throttled | None:
        spec, now = invocation.spec, self.clock.now()

        def finish(outcome: Outcome) -> None:
            tally.finish(outcome)
            done(outcome)

        fleet = self._fleet(spec)
        provision = self._provisions.find(spec.key) if self._provisions else None
        if provision is not None:
            taken = provision.take(invocation, now)
            if taken is not None:
                tally.provisioned += 1
                tally.begin()
                taken[0].assign(Job(invocation, finish, taken[1]))
                return None
        gate = self.gate_of(spec)
        lane = gate.admit(spec.arn, now, not invocation.asynchronous)
        if isinstance(lane, Throttled):
            return lane
        refused = None if fleet.idle else gate.admit_start(spec.arn, now)
        full = None if fleet.idle or refused else self._full()
        if full is not None and len(self._waiting) >= self.limits.max_waiting:
            refused = Throttled("ConcurrentInvocationLimitExceeded")
        if refused is not None:
            gate.release(lane)
            return refused
        tally.begin()
        tally.spilled += provision is not None and provision.usable
        job = Job(invocation, finish, lane)
        if fleet.idle:
            fleet.idle.pop().assign(job)
        elif full is not None:
            self._wait(fleet, job, full)
        else:
            self._bound = False
            self._launch(fleet, job)
        return None

    def set_reserved(self, function_arn: str, limit: int | None) -> None:
        self._gate(_scope_of(function_arn)).set_reserved(function_arn, limit, self.clock.now())

    def provision(self, function_arn: str, wanted: Sequence[Provisioning], changed: Callable[[], None]) -> None:
        for one in wanted:
            if one.spec.watch:
                self._fleet(one.spec)
        self._provisions.apply(function_arn, wanted, changed)
        self._measures.uses = self._provisions.uses()

    def provisioned(self, function_arn: str) -> dict[str, Provisioned]:
        return self._provisions.of_function(function_arn)

    def retire(self, function_arn: str) -> None:
        for key, fleet in list(self._fleets.items()):
            if fleet.spec.arn == function_arn:
                del self._fleets[key]
                fleet.retired = True
                fleet.drain()

    def prepare(self, spec: FunctionSpec, then: Callable[[Prepared], None]) -> None:
        self._snapshots.obtain(Fleet(spec).spec, then)

    def forget(self, function_arn: str, version: str | None = None) -> None:
        self._snapshots.drop(function_arn, version)

    def warm(self) -> None:
        """Prepare for the first functions, in the background: a server calls it when it has started."""
        self._factory.warm()

    def remark(self, runtime: str) -> str | None:
        """Asked when a function is about to be made: what it will trust is made meanwhile."""
        if self._trust is not None:
            self._trust.expect()
        return self._factory.remark(runtime)

    def usage(self) -> Usage:
        usage = Usage(
            waiting=len(self._waiting),
            max_environments=self.limits.max_environments,
            min_free_mb=self.limits.min_free_mb,
            free_mb=self._free_mb(),
            bindings=self._bindings,
        )
        for gate in self._gates.values():
            usage.by_function.update(gate.in_flight)
        for environment in self._environments:
            usage.provisioned += environment.ahead
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
        taken_by = self._snapshots.watch(monotonic)
        reap_before = now - self.limits.idle_s
        for fleet in list(self._fleets.values()):
            for environment in [idle for idle in fleet.idle if idle.idle_since <= reap_before]:
                fleet.idle.remove(environment)
                environment.stop()
        retry_at = self._provisions.watch(monotonic)
        if self._waiting:
            self._serve_waiting()
        if monotonic >= self._measures.due_at:
            self._measures.deliver(self.meter, self._gates, monotonic)
        self.flush()
        self._due = min(self._next_due(monotonic, now), retry_at, self._measures.due_at)
        if self._waiting:
            self.due(monotonic + SAMPLE_S)
        if taken_by is not None:
            self.due(taken_by)
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
        for snapshot in self._snapshots.all():
            self.snapshot_gone(snapshot)
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

    def extensions(self, owner: Environment | Snapshot) -> Extensions:
        log = owner.say if isinstance(owner, Environment) else partial(self.snapshot_log, owner)
        home = Home(self, self._measures, self._entropy.uuid, log)
        return Extensions(owner.spec, home, _initialization(owner), owner.log_stream.rpartition("]")[2])

    def start_worker(self, environment: Environment) -> Worker:
        self.due(self.clock.monotonic() + SAMPLE_S)
        mould = self._snapshots.mould(environment.spec) if environment.spec.snap_start else None
        return self._factory.start(self._plan(environment), environment, mould)

    def restores(self, environment: Environment) -> bool:
        return environment.spec.snap_start and self._snapshots.mould(environment.spec) is not None

    def log(self, environment: Environment, message: str, ended: bool = True) -> None:
        at = int(self.clock.now() * 1000.0)
        self._lines.append(LogLine(environment.log_group, environment.log_stream, at, message, ended))

    def flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._on_log(lines)

    def due(self, at: float, now: float | None = None) -> None:
        if now is None:
            now = self.clock.monotonic()
        if now + SAMPLE_S < at:
            at = now + SAMPLE_S
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
        assert fleet is not None
        environment.idle_since = self.clock.now()
        if self._waiting:
            job = self._waiting.take_for(fleet)
            if job is not None:
                environment.assign(job)
            else:
                environment.stop()
            return
        if environment.state is State.IDLE:
            fleet.idle.append(environment)
        else:
            fleet.idle.insert(0, environment)
        self._due = min(self._due, self.clock.monotonic() + self.limits.idle_s)

    def settled(self, environment: Environment, job: Job) -> None:
        self.gate_of(environment.spec).release(job.lane)
        if environment.takes_work:
            self.available(environment)

    def gone(self, environment: Environment) -> None:
        fleet = self._environments[environment]
        assert fleet is not None
        fleet.environments.pop(environment, None)
        if environment in fleet.idle:
            fleet.idle.remove(environment)
        self.buried(environment)

    # -- provision.ProvisionHost ----------------------------------------------------------------------------------

    def gate_of(self, spec: FunctionSpec) -> Gate:
        """The gate of the function's account and region."""
        return self._gates.get((spec.account, spec.region)) or self._gate(Scope(spec.account, spec.region))

    def _gate(self, scope: Scope) -> Gate:
        gate = self._gates.get(scope)
        if gate is None:
            gate = self._gates[scope] = Gate(self.limits.account_concurrency)
        return gate

    def create(self, host: Provision, spec: FunctionSpec) -> Environment:
        name = self._entropy.bytes(16).hex()
        scratch = None if self._scratch is None else self._scratch / name
        environment = Environment(host, spec, name, self._log_stream(spec, name), scratch, ahead=True)
        self._environments[environment] = None
        return environment

    def make_room(self) -> bool:
        full = self._full() or ("environments" if self._waiting else None)
        if full is None:
            return True
        self._stop_an_idle_one()
        self.machine_is_full(full)
        return False

    def buried(self, environment: Environment) -> None:
        del self._environments[environment]
        self._clear(environment)
        self._serve_waiting()
        if not self._closed:
            self._provisions.fill()

    def provision_limit(self) -> int:
        """The rest stays for what runs on demand: a tenth, at least one."""
        ceiling = self.limits.max_environments
        return ceiling - max(1, ceiling // 10)

    def refuse(self, text: str) -> None:
        self.meter.record(Scope(), "Preheat", "MachineCeilingReached", Resource="provisioned")
        self._on_notice(text)

    def machine_is_full(self, what: str) -> None:
        """The ceiling binds: say so once, until it no longer does."""
        self.meter.record(Scope(), "Preheat", "MachineCeilingReached", Resource=what)
        if self._bound:
            return
        self._bound = True
        self._bindings += 1
        limits = self.limits
        held = {
            "environments": f"{limits.max_environments} environments run on this machine, its ceiling "
            "(max_environments, --environments)",
            "memory": f"less than {limits.min_free_mb} MB of this machine's memory are free (--min-free-memory) while "
            f"{len(self._environments)} environments run",
        }[what]
        self._on_notice(
            f"{held}; further ones wait their turn where AWS would start more (the ceiling binds for the "
            f"{self._bindings}. time)"
        )

    # -- snapshots.SnapshotHost -----------------------------------------------------------------------------------

    def place(self, spec: FunctionSpec) -> tuple[str, Path | None]:
        name = self._entropy.bytes(16).hex()
        return self._log_stream(spec, name), None if self._scratch is None else self._scratch / name

    def start_snapshot(self, snapshot: Snapshot) -> Mould:
        return self._factory.snapshot(self._plan(snapshot), snapshot)

    def snapshot_log(self, snapshot: Snapshot, message: str, ended: bool = True) -> None:
        at = int(self.clock.now() * 1000.0)
        self._lines.append(LogLine(log_group(snapshot.spec), snapshot.log_stream, at, message, ended))

    def snapshot_in_use(self, spec: FunctionSpec) -> bool:
        fleet = self._fleets.get(spec.key)
        return fleet is not None and bool(fleet.environments)

    def snapshot_gone(self, snapshot: Snapshot) -> None:
        if snapshot.scratch is not None:
            shutil.rmtree(snapshot.scratch, ignore_errors=True)

    # -- choices --------------------------------------------------------------------------------------------------

    def _fleet(self, spec: FunctionSpec) -> Fleet:
        fleet = self._fleets.get(spec.key)
        if fleet is None or (fleet.spec is not spec and fleet.spec.revision != spec.revision):
            if fleet is not None:
                fleet.retired = True
                fleet.drain()
            fleet = self._fleets[spec.key] = Fleet(spec)
            if spec.watch:
                self._look(fleet, self.clock.monotonic())
        elif spec.watch:
            now = self.clock.monotonic()
            if now >= fleet.looks_again_at and self._look(fleet, now):
                fleet.drain()
                self._snapshots.drop(spec.arn, spec.version)
                provision = self._provisions.find(spec.key)
                if provision is not None:
                    provision.renew()
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
        if spec.snap_start:
            environment.job = job
            self._snapshots.obtain(spec, lambda prepared: self._launch_restored(environment))
        else:
            environment.launch(job)

    def _launch_restored(self, environment: Environment) -> None:
        """The snapshot stands; or it could not be taken, then the environment initialises and says why itself."""
        if environment.state is State.STARTING and environment in self._environments:
            environment.launch(environment.job)

    def _plan(self, owner: Environment | Snapshot) -> WorkerPlan:
        """What a process of this environment or snapshot needs; the factory makes its /tmp."""
        spec, scratch = owner.spec, owner.scratch
        endpoint = self._endpoint if isinstance(self._endpoint, str) else self._endpoint()
        trust = self._trust
        variables = environment_variables(
            spec, self._credentials(spec), endpoint, owner.log_stream, str(scratch or ""), _initialization(owner),
            NO_TRUST if trust is None else trust.variables(),
        )  # fmt: skip
        return WorkerPlan(spec, variables, scratch, owner.extensions, None if trust is None else trust.directory())

    def _log_stream(self, spec: FunctionSpec, name: str) -> str:
        day = date(1970, 1, 1) + timedelta(self.clock.now() // 86_400)
        return f"{day:%Y/%m/%d}/[{spec.version}]{name}"

    def _full(self) -> str | None:
        """Which part of the machine's ceiling forbids one more environment. Memory never forbids the only one."""
        count = len(self._environments)
        if count >= self.limits.max_environments:
            return "environments"
        if self.limits.min_free_mb and count and self._free_mb() < self.limits.min_free_mb:
            return "memory"
        return None

    def _wait(self, fleet: Fleet, job: Job, full: str) -> None:
        """The ceiling is reached: an environment idle elsewhere gives way, or the job waits for one."""
        self._waiting.add(fleet, job)
        self._stop_an_idle_one()
        self.machine_is_full(full)

    def _serve_waiting(self) -> None:
        while self._waiting and self._full() is None:
            self._launch(*self._waiting.take())
        if self._bound and not self._waiting:
            self._bound = self._full() is not None

    def _stop_an_idle_one(self) -> None:
        """The one on demand that has been idle longest."""
        idle = [other for other in self._fleets.values() if other.idle]
        if idle:
            fleet = min(idle, key=lambda fleet: fleet.idle[0].idle_since)
            fleet.idle.pop(0).stop()

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
            self._factory.forget(environment.scratch)
            shutil.rmtree(environment.scratch, ignore_errors=True)

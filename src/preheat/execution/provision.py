"""Provisioned concurrency: environments of a version that are started and initialised ahead, and kept.

None of an allocation is used before all of it is ready. One whose initialisation fails ends the allocation; the others
of it go too, those of an earlier one stay. What crashes, times out or dies later is replaced; after three replacements
in a row that cannot initialise the rest is kept and the state is FAILED. They are not stopped for being idle, nor for
room that others need.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from preheat.execution.contract import FunctionSpec, Invocation, Provisioned, Provisioning
from preheat.execution.environment import Environment, Job, State
from preheat.execution.extensions.house import Extensions
from preheat.execution.flow import Bandwidth
from preheat.execution.gate import Gate, Lane
from preheat.execution.measures import Use
from preheat.execution.workers.contract import Worker
from preheat.kernel.clock import Clock
from preheat.kernel.scope import Scope

INIT_FAILURE = "FUNCTION_ERROR_INIT_FAILURE"
STARTING_AT_ONCE = 16
MAX_FAILURES = 3
ASKS_AGAIN_S = 0.5
DEATH_PAUSE_S = 0.5
"""Before one that died while it was idle is replaced: its replacement may do the same."""
NEVER = float("inf")


class ProvisionHost(Protocol):
    """What provisioned concurrency needs of the pool."""

    clock: Clock
    bandwidth: Bandwidth | None

    def gate_of(self, spec: FunctionSpec) -> Gate: ...
    def create(self, host: "Provision", spec: FunctionSpec) -> Environment:
        """A new environment that reports to `host`, not launched yet."""

    def extensions(self, owner: Environment) -> Extensions: ...
    def start_worker(self, environment: Environment) -> Worker: ...
    def log(self, environment: Environment, message: str, ended: bool = True) -> None: ...
    def flush(self) -> None: ...
    def due(self, at: float, now: float | None = None) -> None: ...
    def make_room(self) -> bool:
        """Whether one more environment may start now. If not, what idles may be giving way: ask again when one is
        gone."""

    def buried(self, environment: Environment) -> None:
        """An environment of `create` is dead: what waits for room has it now, provisioned concurrency too."""

    def provision_limit(self) -> int:
        """How many environments may be provisioned on this machine."""

    def refuse(self, text: str) -> None:
        """This machine cannot do what AWS could: say so."""


class Provision:
    """The provisioned environments of one version. Implements `environment.Host` for them.

    `goal` is how many are kept, which differs from what was asked for only after a failure."""

    def __init__(self, host: ProvisionHost, spec: FunctionSpec, resource: str) -> None:
        self.host = host
        self.clock = host.clock
        self.bandwidth = host.bandwidth
        self.spec = spec
        self.gate = host.gate_of(spec)
        self.use = Use(Scope(spec.account, spec.region), spec.name, resource)
        self.token = ""
        self.requested = 0
        self.goal = 0
        self.status = "IN_PROGRESS"
        self.reason = ""
        self.retry_at = NEVER
        self.asks_at = NEVER
        self.changed: Callable[[], None] = lambda: None
        self._starting: dict[Environment, None] = {}
        self._warm: list[Environment] = []
        self._usable: dict[Environment, None] = {}
        self._idle: list[Environment] = []
        self._failures = 0

    # -- what is asked of it --------------------------------------------------------------------------------------

    def set(self, count: int) -> None:
        """Bring the number to `count`; 0 ends it."""
        self.requested = self.goal = self.use.units = count
        self.status, self.reason = "IN_PROGRESS", ""
        self._failures, self.retry_at, self.asks_at = 0, NEVER, NEVER
        self._claim()
        while len(self._usable) > count:
            self._retire_one()
        for environment in [*self._starting, *self._warm][max(0, count - len(self._usable)) :]:
            self._discard(environment)
        self._complete()
        self.fill()

    def fail(self, reason: str) -> None:
        """The allocation has failed: what was usable before stays."""
        self.status, self.reason, self.retry_at, self.asks_at = "FAILED", reason, NEVER, NEVER
        self.goal = self.use.units = len(self._usable)
        self._claim()
        for environment in [*self._starting, *self._warm]:
            self._discard(environment)
        self.changed()

    def state(self) -> Provisioned:
        usable = len(self._usable)
        return Provisioned(self.requested, usable + len(self._warm), usable, self.status, self.reason)

    @property
    def usable(self) -> bool:
        """Whether there is any, in use or not."""
        return bool(self._usable)

    def take(self, invocation: Invocation, now: float) -> tuple[Environment, Lane] | None:
        """An idle environment and the admission to it, or None: all are in use, or used too fast. `now` is epoch
        seconds."""
        if not self._idle:
            return None
        spec = self.spec
        lane = self.gate.admit_provisioned(spec.arn, spec.version, now, not invocation.asynchronous)
        if lane is None:
            return None
        self.use.level.enter()
        return self._idle.pop(), lane

    def renew(self) -> None:
        """The code has changed under it: what there is goes when it has done its work, and is replaced."""
        for environment in self._usable:
            environment.draining = True
        for environment in [*self._starting, *self._warm, *self._idle]:
            self._discard(environment)
        self.fill()

    def fill(self) -> None:
        """Start what is missing, a few at a time."""
        self.asks_at = NEVER
        if self.retry_at != NEVER:
            return
        while (
            len(self._usable) + len(self._warm) + len(self._starting) < self.goal
            and len(self._starting) < STARTING_AT_ONCE
        ):
            if not self.host.make_room():
                self.asks_at = self.clock.monotonic() + ASKS_AGAIN_S
                self.host.due(self.asks_at)
                return
            environment = self.host.create(self, self.spec)
            self._starting[environment] = None
            environment.launch(None)

    def watch(self, monotonic: float) -> None:
        """Try again what failed or found no room, when it is time."""
        if monotonic >= self.retry_at:
            self.retry_at = NEVER
            self.fill()
        elif monotonic >= self.asks_at:
            self.fill()

    # -- environment.Host -----------------------------------------------------------------------------------------

    def extensions(self, environment: Environment) -> Extensions:
        return self.host.extensions(environment)

    def start_worker(self, environment: Environment) -> Worker:
        return self.host.start_worker(environment)

    def restores(self, environment: Environment) -> bool:
        return False

    def log(self, environment: Environment, message: str, ended: bool = True) -> None:
        self.host.log(environment, message, ended)

    def flush(self) -> None:
        self.host.flush()

    def due(self, at: float, now: float | None = None) -> None:
        self.host.due(at, now)

    def available(self, environment: Environment) -> None:
        """It has initialised."""
        self.host.flush()
        if environment not in self._starting:
            environment.stop()
            return
        del self._starting[environment]
        self._failures = 0
        self._warm.append(environment)
        self._complete()
        self.fill()

    def settled(self, environment: Environment, job: Job) -> None:
        self.gate.release(job.lane)
        self.use.level.leave()
        if environment.state is State.IDLE and not environment.draining and environment in self._usable:
            self._idle.append(environment)
            return
        self._discard(environment)
        self.fill()

    def gone(self, environment: Environment) -> None:
        failed, died = environment in self._starting, environment in self._idle
        self._remove(environment)
        if failed:
            self._failed()
        elif died and self.retry_at == NEVER:
            self._pause(DEATH_PAUSE_S)
        self.host.buried(environment)

    # -- steps ----------------------------------------------------------------------------------------------------

    def _complete(self) -> None:
        """When all are ready, all become usable. Replacements are at once."""
        if self.status == "IN_PROGRESS" and len(self._usable) + len(self._warm) < self.goal:
            return
        for environment in self._warm:
            self._usable[environment] = None
            self._idle.append(environment)
        self._warm.clear()
        if self.status == "IN_PROGRESS":
            self.status = "READY"
            self.changed()

    def _failed(self) -> None:
        self._failures += 1
        if self.status == "IN_PROGRESS" or self._failures >= MAX_FAILURES:
            self.fail(INIT_FAILURE)
        else:
            self._pause(2.0 ** (self._failures - 1))

    def _pause(self, seconds: float) -> None:
        self.retry_at = self.clock.monotonic() + seconds
        self.host.due(self.retry_at)

    def _retire_one(self) -> None:
        """One usable environment fewer: an idle one, else one that has still to finish."""
        if self._idle:
            self._discard(self._idle[0])
        else:
            environment = next(iter(self._usable))
            environment.draining = True
            self._remove(environment)

    def _discard(self, environment: Environment) -> None:
        self._remove(environment)
        environment.stop()

    def _remove(self, environment: Environment) -> None:
        self._starting.pop(environment, None)
        self._usable.pop(environment, None)
        for held in (self._warm, self._idle):
            if environment in held:
                held.remove(environment)

    def _claim(self) -> None:
        self.gate.set_provisioned(self.spec.arn, self.spec.version, self.goal, self.clock.now())


class Provisions:
    """All of them, by version (`FunctionSpec.key`)."""

    def __init__(self, host: ProvisionHost) -> None:
        self._host = host
        self._known: dict[str, Provision] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def find(self, key: str) -> Provision | None:
        return self._known.get(key)

    def uses(self) -> list[Use]:
        return [provision.use for provision in self._known.values()]

    def apply(self, function_arn: str, wanted: Sequence[Provisioning], changed: Callable[[], None]) -> None:
        """What the versions of one function shall have, and nothing else of it."""
        keys = {one.spec.key for one in wanted if one.count}
        for key, provision in list(self._known.items()):
            if provision.spec.arn == function_arn and key not in keys:
                provision.changed = lambda: None
                del self._known[key]
                provision.set(0)
        for one in wanted:
            if one.count:
                self._set(one, changed)

    def _set(self, one: Provisioning, changed: Callable[[], None]) -> None:
        found = self._known.get(one.spec.key)
        if found is not None and found.spec.revision != one.spec.revision:
            del self._known[one.spec.key]
            found.changed = lambda: None
            found.set(0)
            found = None
        if found is None:
            layers = tuple(layer.absolute() for layer in one.spec.layers)
            spec = replace(one.spec, code=one.spec.code.absolute(), layers=layers)
            found = self._known[spec.key] = Provision(self._host, spec, one.resource)
        found.changed, found.use.resource = changed, one.resource
        if found.token == one.token and found.requested == one.count:
            return
        found.token = one.token
        others = sum(other.goal for other in self._known.values() if other is not found)
        room = self._host.provision_limit() - others
        if one.count > room:
            reason = (
                f"this machine's ceiling leaves room for {max(0, room)} more provisioned environments, {one.count} are "
                "asked for (max_environments, --environments)"
            )
            self._host.refuse(f"{one.resource}: {reason}")
            found.requested = one.count
            found.fail(f"Preheat: {reason}")
            return
        found.set(one.count)

    def of_function(self, function_arn: str) -> dict[str, Provisioned]:
        """The state of each version that has any."""
        return {
            provision.spec.version: provision.state()
            for provision in self._known.values()
            if provision.spec.arn == function_arn
        }

    def fill(self) -> None:
        """Somebody has made room."""
        for provision in self._known.values():
            provision.fill()

    def watch(self, monotonic: float) -> float:
        """Do what is due; returns when to be asked again (monotonic)."""
        due = NEVER
        for provision in list(self._known.values()):
            provision.watch(monotonic)
            due = min(due, provision.retry_at, provision.asks_at)
        return due

"""What is measured of invocations: counted in memory as they happen, handed to the meter together once a second.

A `Tally` counts one version invoked under one name. Its values go to AWS's dimensions: none, FunctionName, FunctionName
and Resource (a qualified name), and for an alias ExecutedVersion too. Of concurrency the greatest value since the last
time is kept. Errors and Throttles also count, as zeros, the invocations without, so that their averages are rates.
"""

from collections.abc import Callable

from preheat.execution.contract import Invocation, Outcome
from preheat.execution.gate import Gate
from preheat.kernel.meter import MINUTE_S, Dimensions, Meter, Sample, Series
from preheat.kernel.scope import Scope

INTERVAL_S = 1.0
NAMESPACE = "AWS/Lambda"
NEVER = float("inf")


class Level:
    """How many run now, and the most since the last delivery."""

    __slots__ = ("peak", "running")

    def __init__(self) -> None:
        self.running = 0
        self.peak = 0

    def enter(self) -> None:
        self.running += 1
        if self.running > self.peak:
            self.peak = self.running

    def leave(self) -> None:
        self.running -= 1

    def take(self) -> int:
        peak, self.peak = self.peak, self.running
        return peak


class Tally:
    """`resources`: the sets of dimensions its values go to; `function` is the level shared by a function's names."""

    __slots__ = ("durations", "errors", "function", "level", "provisioned", "resources", "scope", "spilled",
                 "started", "throttled")  # fmt: skip

    def __init__(self, scope: Scope, resources: tuple[Dimensions, ...], function: Level) -> None:
        self.scope = scope
        self.resources = resources
        self.level = Level()
        self.function = function
        self._clear()

    def _clear(self) -> None:
        self.started = self.errors = self.throttled = self.provisioned = self.spilled = 0
        self.durations: list[float] = []

    def begin(self) -> None:
        """Admitted."""
        self.started += 1
        self.level.enter()
        self.function.enter()

    def finish(self, outcome: Outcome) -> None:
        self.level.leave()
        self.function.leave()
        self.durations.append(outcome.duration_ms)
        if outcome.error is not None:
            self.errors += 1

    def samples(self) -> list[tuple[str, str, Sample]]:
        """(metric, unit, values) since the last time."""
        found: list[tuple[str, str, Sample]] = []
        asked = self.started + self.throttled
        if self.started:
            found.append(("Invocations", "Count", _counts(self.started, 0)))
        if self.durations:
            times = Sample()
            for duration in self.durations:
                times.add(duration)
            found.append(("Duration", "Milliseconds", times))
            found.append(("Errors", "Count", _counts(self.errors, len(self.durations) - self.errors)))
        if asked:
            found.append(("Throttles", "Count", _counts(self.throttled, self.started)))
        if self.provisioned:
            found.append(("ProvisionedConcurrencyInvocations", "Count", _counts(self.provisioned, 0)))
        if self.spilled:
            found.append(("ProvisionedConcurrencySpilloverInvocations", "Count", _counts(self.spilled, 0)))
        self._clear()
        return found


class Use:
    """The use of a version's provisioned concurrency. `resource` is the alias or version that it was asked for on
    ("name:live"), `units` how much of it there is."""

    __slots__ = ("level", "name", "resource", "scope", "units")

    def __init__(self, scope: Scope, name: str, resource: str) -> None:
        self.scope = scope
        self.name = name
        self.resource = resource
        self.level = Level()
        self.units = 0


class Measures:
    """`now` is epoch seconds, `due_at` monotonic seconds (NEVER while there is nothing to hand over)."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._functions: dict[str, Level] = {}
        self._active: dict[Tally, None] = {}
        self.uses: list[Use] = []
        self.due_at = NEVER

    def tally(self, invocation: Invocation) -> Tally:
        """Where an invocation is counted."""
        spec = invocation.spec
        key = (spec.arn, invocation.invoked_arn, spec.version)
        found = self._tallies.get(key)
        if found is None:
            if len(self._tallies) > 50_000:
                self._forget()
            function = self._functions.setdefault(spec.arn, Level())
            qualifier = invocation.invoked_arn.removeprefix(spec.arn).lstrip(":")
            resources = _dimensions(spec.name, qualifier, spec.version)
            found = self._tallies[key] = Tally(Scope(spec.account, spec.region), resources, function)
        self._active[found] = None
        return found

    def deliver(self, meter: Meter, gates: dict[Scope, Gate], monotonic: float) -> None:
        """Hand over what has come together, and say in `due_at` when to be asked again: not before the next
        invocation when nothing runs."""
        minute = int(self._now()) // MINUTE_S * MINUTE_S
        functions: dict[tuple[Scope, Dimensions], Level] = {}
        for tally in self._active:
            for name, unit, sample in tally.samples():
                for dimensions in tally.resources:
                    meter.merge(Series(tally.scope, NAMESPACE, name, dimensions, unit), minute, sample)
            peak = tally.level.take()
            for dimensions in tally.resources[2:]:
                _gauge(meter, tally.scope, "ConcurrentExecutions", dimensions, minute, peak)
            functions[tally.scope, tally.resources[1]] = tally.function
        for (scope, dimensions), level in functions.items():
            _gauge(meter, scope, "ConcurrentExecutions", dimensions, minute, level.take())
        for scope in {scope for scope, _ in functions}:
            gate = gates.get(scope)
            if gate is not None:
                total, unreserved = gate.peaks()
                _gauge(meter, scope, "ConcurrentExecutions", (), minute, total)
                _gauge(meter, scope, "UnreservedConcurrentExecutions", (), minute, unreserved)
                _gauge(meter, scope, "ClaimedAccountConcurrency", (), minute, gate.claimed)
        self._deliver_uses(meter, minute)
        self._active = {tally: None for tally in self._active if tally.level.running}
        self.due_at = monotonic + INTERVAL_S if self._active else NEVER

    def _deliver_uses(self, meter: Meter, minute: int) -> None:
        for use in self.uses:
            peak = use.level.take()
            if not peak:
                continue
            for dimensions in _dimensions(use.name, use.resource.removeprefix(use.name).lstrip(":"), "")[1:]:
                _gauge(meter, use.scope, "ProvisionedConcurrentExecutions", dimensions, minute, peak)
                if len(dimensions) > 1 and use.units:
                    share = peak / use.units
                    _gauge(meter, use.scope, "ProvisionedConcurrencyUtilization", dimensions, minute, share, "None")

    def _forget(self) -> None:
        for key in [key for key, tally in self._tallies.items() if not tally.level.running]:
            del self._tallies[key]


def _dimensions(name: str, qualifier: str, version: str) -> tuple[Dimensions, ...]:
    """The sets of dimensions of one name, each sorted by name of dimension; from none to the most."""
    function = ("FunctionName", name)
    found: list[Dimensions] = [(), (function,)]
    if qualifier:
        resource = ("Resource", f"{name}:{qualifier}")
        found.append((function, resource))
        if version and qualifier != version:
            found.append((("ExecutedVersion", version), function, resource))
    return tuple(found)


def _counts(ones: int, zeros: int) -> Sample:
    sample = Sample()
    if ones:
        sample.add(1.0, ones)
    if zeros:
        sample.add(0.0, zeros)
    return sample


def _gauge(
    meter: Meter, scope: Scope, name: str, dimensions: Dimensions, minute: int, value: float, unit: str = "Count"
) -> None:
    sample = Sample()
    sample.add(float(value))
    meter.merge(Series(scope, NAMESPACE, name, dimensions, unit), minute, sample)

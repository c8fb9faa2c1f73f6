"""Measured values on their way to CloudWatch: gathered in memory by series and minute until somebody takes them.

A value is kept to three significant digits in its minute's distribution, which is what percentiles are read from; sum,
minimum and maximum are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from preheat.kernel.scope import Scope

MINUTE_S = 60
Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one account and region. `dimensions` sorted by name; `unit` as CloudWatch spells it."""

    scope: Scope
    namespace: str
    name: str
    dimensions: Dimensions
    unit: str


@dataclass(slots=True)
class Sample:
    """The statistics of one minute; `distribution` is how often each (rounded) value came."""

    count: int = 0
    total: float = 0.0
    minimum: float = float("inf")
    maximum: float = float("-inf")
    distribution: dict[float, int] = field(default_factory=dict)

    def add(self, value: float, times: int = 1) -> None:
        self.count += times
        self.total += value * times
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        distribution = self.distribution
        if value in distribution:
            distribution[value] += times
        else:
            rounded = float(f"{value:.3g}")
            distribution[rounded] = distribution.get(rounded, 0) + times

    def merge(self, other: "Sample") -> None:
        """Take in the statistics of another."""
        self.count += other.count
        self.total += other.total
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        for value, times in other.distribution.items():
            self.distribution[value] = self.distribution.get(value, 0) + times


class Meter:
    """`now` is epoch seconds (`Clock.now`). `on_first` is called when there is something to take again."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.on_first: Callable[[], None] = lambda: None
        self._samples: dict[tuple[Series, int], Sample] = {}
        self._series: dict[tuple, Series] = {}

    def record(
        self, scope: Scope, namespace: str, name: str, value: float = 1.0, unit: str = "Count", **dimensions: str | None
    ) -> None:
        """Count one value in: `meter.record(scope, "AWS/Lambda", "Throttles", FunctionName="f")`. None as a dimension's
        value leaves the dimension out."""
        key = (scope, namespace, name, unit, *dimensions.items())
        series = self._series.get(key)
        if series is None:
            present = tuple(sorted(item for item in dimensions.items() if item[1] is not None))
            series = self._series[key] = Series(scope, namespace, name, present, unit)
        slot = (series, int(self._now()) // MINUTE_S * MINUTE_S)
        sample = self._samples.get(slot)
        if sample is None:
            if not self._samples:
                self.on_first()
            sample = self._samples[slot] = Sample()
        sample.add(value)

    def merge(self, series: Series, minute: int, sample: Sample) -> None:
        """Count many values in at once; `minute` is the epoch second at which theirs began."""
        if not self._samples:
            self.on_first()
        self._samples.setdefault((series, minute), Sample()).merge(sample)

    @property
    def empty(self) -> bool:
        return not self._samples

    def take(self) -> dict[tuple[Series, int], Sample]:
        """Everything since the last call, by (series, epoch second at which its minute began)."""
        taken, self._samples = self._samples, {}
        if len(self._series) > 100_000:
            self._series.clear()
        return taken

"""What rules did, for CloudWatch: gathered while an operation runs, handed on once it has committed."""

from collections.abc import Sequence
from functools import partial

from preheat.kernel.meter import MINUTE_S, Meter, Sample, Series
from preheat.services.contract import Context
from preheat.services.events.domain import NAMESPACE, Rule

Tallies = dict[int, tuple[Rule, dict[str, int]]]
"""By the row of the rule: how often each metric's event happened."""


class Counting:
    def __init__(self) -> None:
        self._context: Context | None = None
        self._tallies: Tallies = {}

    def add(self, ctx: Context, rule: Rule, names: Sequence[str]) -> None:
        """Count one in each of these metrics, when what `ctx` does now has committed."""
        if self._context is not ctx:
            self._context, self._tallies = ctx, {}
            ctx.db.after_commit(partial(self._hand_on, ctx.machine.meter, ctx.now, self._tallies))
        counts = self._tallies.setdefault(rule.row, (rule, {}))[1]
        for name in names:
            counts[name] = counts.get(name, 0) + 1

    def forget(self) -> None:
        """To be called when writes are taken back."""
        self._context = None

    def _hand_on(self, meter: Meter, now: float, tallies: Tallies) -> None:
        self._context = None
        minute = int(now) // MINUTE_S * MINUTE_S
        for rule, counts in tallies.values():
            dimensions = tuple(sorted(rule.dimensions.items()))
            for name, times in counts.items():
                sample = Sample()
                sample.add(1.0, times)
                meter.merge(Series(rule.scope, NAMESPACE, name, dimensions, "Count"), minute, sample)

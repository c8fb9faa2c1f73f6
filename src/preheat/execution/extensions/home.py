"""What the pool lends to extensions: time, identifiers, the log, metrics."""

from collections.abc import Callable
from typing import Protocol

from preheat.execution.contract import Invocation
from preheat.execution.measures import NAMESPACE, Measures
from preheat.kernel.clock import Clock
from preheat.kernel.meter import Meter


class Lender(Protocol):
    clock: Clock
    meter: Meter

    def flush(self) -> None: ...


class Home:
    """Implements `house.Home` for one environment."""

    __slots__ = ("_lender", "_measures", "identifier", "log")

    def __init__(
        self, lender: Lender, measures: Measures, identifier: Callable[[], str], log: Callable[[str], None]
    ) -> None:
        self._lender = lender
        self._measures = measures
        self.identifier = identifier
        self.log = log

    def now(self) -> float:
        return self._lender.clock.now()

    def peer_now(self) -> float:
        return self._lender.clock.peer_now()

    def monotonic(self) -> float:
        return self._lender.clock.monotonic()

    def flush(self) -> None:
        self._lender.flush()

    def measured(self, invocation: Invocation, post_runtime_ms: float) -> None:
        tally = self._measures.tally(invocation)
        for dimensions in tally.resources:
            self._lender.meter.record(
                tally.scope, NAMESPACE, "PostRuntimeExtensionsDuration", post_runtime_ms, "Milliseconds",
                **dict(dimensions),
            )  # fmt: skip

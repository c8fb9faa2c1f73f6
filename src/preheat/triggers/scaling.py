"""How many batches of one mapping may run at once, and how fast it may poll.

A queue begins with 5 batches and may have 300 more a minute while messages wait, up to 1,250 or MaximumConcurrency.
Provisioned pollers carry 10 batches, 10 polls and 1 MB a second each, between MinimumPollers and MaximumPollers, and
grow by 1,000 batches a minute. Sources: lambda/latest/dg/services-sqs-scaling.
"""

from dataclasses import dataclass
from math import ceil

from preheat.services.awslambda.domain import BATCHES_PER_POLLER, MappingConfig

INITIAL = 5.0
LEAST = 2.0
GROWTH_PER_S = 300 / 60
PROVISIONED_GROWTH_PER_S = 1_000 / 60
POLLS_PER_S = 10.0
BYTES_PER_S = 1_000_000.0
IDLE_S = 60.0
LONG_IDLE_S = 900.0
_ROUNDING = 1e-6


@dataclass(slots=True, eq=False)
class Scaling:
    """`limit` is how many batches may run now; `saturated_at` since when messages wait for more; `active_at` is the
    last moment with work. `polls` and `volume` (bytes) are what provisioned pollers have left at `refilled_at`."""

    config: MappingConfig
    active_at: float
    limit: float = INITIAL
    saturated_at: float | None = None
    polls: float = 0.0
    volume: float = 0.0
    refilled_at: float = 0.0

    @classmethod
    def begin(cls, config: MappingConfig, now: float) -> "Scaling":
        scaling = cls(config, now, refilled_at=now)
        scaling.limit = scaling.floor if config.pollers else min(INITIAL, float(config.ceiling))
        scaling.polls, scaling.volume = scaling.pollers * POLLS_PER_S, scaling.pollers * BYTES_PER_S
        return scaling

    @property
    def floor(self) -> float:
        return float(self.config.pollers[0] * BATCHES_PER_POLLER) if self.config.pollers else LEAST

    @property
    def pollers(self) -> int:
        return ceil(self.limit / BATCHES_PER_POLLER - _ROUNDING)

    @property
    def growth(self) -> float:
        """Batches a second."""
        return PROVISIONED_GROWTH_PER_S if self.config.pollers else GROWTH_PER_S

    @property
    def allowed(self) -> int:
        return int(self.limit + _ROUNDING)

    @property
    def may_grow(self) -> bool:
        return self.limit < self.config.ceiling

    def reconfigure(self, config: MappingConfig, now: float) -> None:
        """New settings hold at once; a mapping that leaves or enters provisioned mode begins anew."""
        if (config.pollers is None) != (self.config.pollers is None):
            fresh = Scaling.begin(config, now)
            self.limit, self.polls, self.volume, self.refilled_at = fresh.limit, fresh.polls, fresh.volume, now
        self.config = config
        self.limit = min(max(self.limit, self.floor), float(config.ceiling))

    def advance(self, now: float, idle: bool) -> None:
        """Bring everything up to the present. `idle`: nothing runs and nothing is buffered."""
        if self.saturated_at is not None:
            self.limit += (now - self.saturated_at) * self.growth
            self.saturated_at = now
        elif idle and now - self.active_at >= IDLE_S:
            self.limit = self._rest(now)
        self.limit = min(self.limit, float(self.config.ceiling))
        if self.config.pollers:
            passed = now - self.refilled_at
            self.polls = min(self.polls + passed * self.pollers * POLLS_PER_S, self.pollers * POLLS_PER_S)
            self.volume = min(self.volume + passed * self.pollers * BYTES_PER_S, self.pollers * BYTES_PER_S)
        self.refilled_at = now

    def _rest(self, now: float) -> float:
        """What an idle mapping falls back to: 5, and after long 2 unless MaximumConcurrency is set."""
        if self.config.pollers:
            return self.floor
        long_idle = now - self.active_at >= LONG_IDLE_S and self.config.maximum_concurrency is None
        return LEAST if long_idle else INITIAL

    def shrink(self) -> None:
        """Failures and throttles make it poll a little less."""
        self.limit = min(self.limit, max(self.floor, self.limit - 1))

    def may_poll(self, polls: int = 0, size: int = 0) -> bool:
        """Whether one more receive is allowed now, after so many and so many bytes that are not yet spent."""
        return not self.config.pollers or (self.polls - polls >= 1 - _ROUNDING and self.volume - size > 0)

    def spend(self, polls: int, size: int) -> None:
        if self.config.pollers:
            self.polls -= polls
            self.volume -= size

    def poll_at(self, now: float, polls: int, size: int) -> float:
        """When the next receive is allowed (epoch seconds) after `polls` and `size` are spent."""
        wait = (1 - self.polls + polls) / (self.pollers * POLLS_PER_S)
        return now + max(wait, (size - self.volume) / (self.pollers * BYTES_PER_S), 0.001)

"""Admission: may this invocation run now? Pure arithmetic; the time is an argument.

Three of AWS's limits. Concurrency: a function with reserved concurrency has that much, no more and no less, and what
all reservations leave of the account's limit is shared by the rest. Rate: synchronous requests may come at ten a
second per unit of concurrency. Scaling: a function may get 1,000 new environments per 10 seconds, refilled
continuously, unused room does not accumulate. Provisioned concurrency will be a second count beside `in_flight`.
"""

from dataclasses import dataclass

from preheat.execution.contract import Throttled, ThrottleReason

REQUESTS_PER_UNIT = 10.0
SCALING_BURST = 1_000.0
SCALING_PER_SECOND = 100.0


@dataclass(slots=True)
class TokenBucket:
    """`level` tokens at `at`; refilled by `rate` a second up to `capacity`."""

    capacity: float
    rate: float
    level: float
    at: float

    @classmethod
    def full(cls, capacity: float, rate: float, now: float) -> "TokenBucket":
        return cls(capacity, rate, capacity, now)

    def refill(self, now: float) -> None:
        if now > self.at:
            self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
            self.at = now

    def take(self, now: float) -> float | None:
        """Take one token; None when there was one, else the time of the next."""
        self.refill(now)
        if self.level >= 1.0:
            self.level -= 1.0
            return None
        return now + (1.0 - self.level) / self.rate if self.rate > 0 else float("inf")

    def resize(self, capacity: float, rate: float, now: float) -> None:
        self.refill(now)
        self.capacity, self.rate = capacity, rate
        self.level = min(self.level, capacity)


class Gate:
    """One account and region. Functions are named by their unqualified ARN; `now` is epoch seconds (`Clock.now()`)."""

    def __init__(self, account_limit: int = 1_000) -> None:
        self.account_limit = account_limit
        self.in_flight: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self._unreserved = 0
        self._requests: dict[str, TokenBucket] = {}
        self._scaling: dict[str, TokenBucket] = {}
        rate = account_limit * REQUESTS_PER_UNIT
        self._account_requests = TokenBucket(rate, rate, rate, 0.0)

    @property
    def unreserved_limit(self) -> int:
        return max(0, self.account_limit - sum(self.reserved.values()))

    def set_reserved(self, function: str, limit: int | None, now: float) -> None:
        """Invocations that run already count from now on against the new limit. Raises ValueError below zero."""
        if limit is not None and limit < 0:
            raise ValueError("reserved concurrency is not negative")
        was_reserved = function in self.reserved
        running = self.in_flight.get(function, 0)
        if limit is None:
            self.reserved.pop(function, None)
            self._requests.pop(function, None)
            self._unreserved += running if was_reserved else 0
            return
        self.reserved[function] = limit
        self._unreserved -= 0 if was_reserved else running
        rate = limit * REQUESTS_PER_UNIT
        bucket = self._requests.get(function)
        if bucket is None:
            self._requests[function] = TokenBucket.full(rate, rate, now)
        else:
            bucket.resize(rate, rate, now)

    def admit(self, function: str, now: float, synchronous: bool = True) -> Throttled | None:
        """Count one invocation in, or say why not. Every admission is matched by a `release`."""
        running = self.in_flight.get(function, 0)
        limit = self.reserved.get(function)
        if limit is not None:
            if running >= limit:
                return Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
            bucket, reason = self._requests[function], "ReservedFunctionInvocationRateLimitExceeded"
        else:
            if self._unreserved >= self.unreserved_limit:
                return Throttled("ConcurrentInvocationLimitExceeded")
            bucket, reason = self._account_requests, "FunctionInvocationRateLimitExceeded"
        if synchronous:
            refused = _refusal(bucket, reason, now)
            if refused is not None:
                return refused
        self.in_flight[function] = running + 1
        if limit is None:
            self._unreserved += 1
        return None

    def admit_start(self, function: str, now: float) -> Throttled | None:
        """May the function have one more environment now? AWS names no reason for this; FunctionInvocationRate is
        assumed."""
        bucket = self._scaling.get(function)
        if bucket is None:
            bucket = self._scaling[function] = TokenBucket.full(SCALING_BURST, SCALING_PER_SECOND, now)
        return _refusal(bucket, "FunctionInvocationRateLimitExceeded", now)

    def release(self, function: str) -> None:
        left = self.in_flight[function] - 1
        if left:
            self.in_flight[function] = left
        else:
            del self.in_flight[function]
        if function not in self.reserved:
            self._unreserved -= 1


def _refusal(bucket: TokenBucket, reason: ThrottleReason, now: float) -> Throttled | None:
    until = bucket.take(now)
    if until is None:
        return None
    return Throttled(reason, None if until == float("inf") else until)

"""Admission: may this invocation run now? Pure arithmetic; the time is an argument.

AWS's limits for one account and region. Concurrency: a function with reserved concurrency has that much, no more and
no less; provisioned concurrency is taken out of it, or of the account's limit when there is none; what both leave is
shared by the rest. Rate: synchronous requests may come at ten a second per unit of concurrency, each kind for itself.
Scaling: a function may get 1,000 new environments per 10 seconds, refilled continuously, unused room does not
accumulate.

Every admission is counted in the `Lane` that let it in, and leaves that one, whatever the settings are by then. What
runs altogether never exceeds the account's limit, also while a new reservation finds its room still in use.
"""

from dataclasses import dataclass, field

from preheat.execution.contract import Throttled, ThrottleReason

REQUESTS_PER_UNIT = 10.0
SCALING_BURST = 1_000.0
SCALING_PER_SECOND = 100.0
ALWAYS_UNRESERVED = 100


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


@dataclass(slots=True, eq=False)
class Lane:
    """Where an admission is counted: `kind` is "unreserved", "reserved" or "provisioned" (then of `version`)."""

    account: "Account"
    kind: str
    version: str = ""
    in_flight: int = 0
    limit: int = 0
    requests: TokenBucket | None = None


@dataclass(slots=True, eq=False)
class Account:
    """What the gate keeps of one function. `reserved` None: it has no reserved concurrency."""

    name: str
    reserved: int | None = None
    claim: int = 0
    requests: TokenBucket | None = None
    scaling: TokenBucket | None = None
    provisioned: dict[str, Lane] = field(default_factory=dict)
    unreserved_lane: Lane = field(init=False)
    reserved_lane: Lane = field(init=False)

    def __post_init__(self) -> None:
        self.unreserved_lane = Lane(self, "unreserved")
        self.reserved_lane = Lane(self, "reserved")

    @property
    def in_flight(self) -> int:
        running = self.unreserved_lane.in_flight + self.reserved_lane.in_flight
        for lane in self.provisioned.values():
            running += lane.in_flight
        return running

    @property
    def allocated(self) -> int:
        """Provisioned units: those configured, and those still in use after a decrease."""
        return sum(max(lane.limit, lane.in_flight) for lane in self.provisioned.values())

    def claimed(self) -> int:
        """What is taken out of the account's limit besides its own unreserved use."""
        held = self.reserved_lane.in_flight + (self.allocated if self.provisioned else 0)
        return held if self.reserved is None else max(self.reserved, held)


class Gate:
    """One account and region. Functions are named by their unqualified ARN; `now` is epoch seconds (`Clock.now()`)."""

    def __init__(self, account_limit: int = 1_000) -> None:
        self.account_limit = account_limit
        self.unreserved = 0
        """In flight in the unreserved pool."""
        self.total = 0
        """In flight altogether."""
        self._claims = 0
        self._peaks = 0, 0
        self._accounts: dict[str, Account] = {}
        rate = account_limit * REQUESTS_PER_UNIT
        self._account_requests = TokenBucket(rate, rate, rate, 0.0)

    @property
    def unreserved_limit(self) -> int:
        """What reservations and provisioned concurrency leave to the rest. They claim more than AWS lets them be set to
        while an alias moves (both its versions are provisioned) or what was taken away is still in use; a hundred stay
        unreserved even then."""
        least = ALWAYS_UNRESERVED if self.account_limit > ALWAYS_UNRESERVED else 0
        return max(least, self.account_limit - self._claims)

    @property
    def claimed(self) -> int:
        """AWS's ClaimedAccountConcurrency: unreserved use, all reservations, all provisioned concurrency."""
        return self.unreserved + self._claims

    @property
    def in_flight(self) -> dict[str, int]:
        """Invocations that run, by function; those without are left out."""
        counts = {name: account.in_flight for name, account in self._accounts.items()}
        return {name: count for name, count in counts.items() if count}

    @property
    def reserved(self) -> dict[str, int]:
        return {name: account.reserved for name, account in self._accounts.items() if account.reserved is not None}

    def function(self, name: str) -> Account:
        """What is kept of a function, made on first use."""
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name)
        return account

    def set_reserved(self, function: str, limit: int | None, now: float) -> None:
        """What runs already counts against the cap; only where it was admitted does it fill a pool. Raises ValueError
        below zero."""
        if limit is not None and limit < 0:
            raise ValueError("reserved concurrency is not negative")
        account = self.function(function)
        account.reserved = limit
        if limit is None:
            account.requests = None
        else:
            account.requests = _resized(account.requests, limit, now)
        self._settle(account)

    def set_provisioned(self, function: str, version: str, count: int, now: float) -> None:
        """`count` units of a version's provisioned concurrency, 0 takes them away. Raises ValueError below zero."""
        if count < 0:
            raise ValueError("provisioned concurrency is not negative")
        account = self.function(function)
        lane = account.provisioned.get(version)
        if lane is None:
            lane = account.provisioned[version] = Lane(account, "provisioned", version)
        lane.limit = count
        lane.requests = _resized(lane.requests, count, now)
        self._tidy(lane)
        self._settle(account)

    def admit(self, function: str, now: float, synchronous: bool = True) -> Lane | Throttled:
        """Count one invocation in on demand, or say why not. Every admission is matched by a `release`."""
        account = self.function(function)
        reserved = account.reserved
        if reserved is not None:
            lane = account.reserved_lane
            held = lane.in_flight + account.unreserved_lane.in_flight
            if account.provisioned:
                held += account.allocated
            if held >= reserved:
                return Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
            if self.total >= self.account_limit:
                return Throttled("ConcurrentInvocationLimitExceeded")
            bucket, reason = account.requests, "ReservedFunctionInvocationRateLimitExceeded"
        else:
            lane = account.unreserved_lane
            if self.unreserved >= self.unreserved_limit or self.total >= self.account_limit:
                return Throttled("ConcurrentInvocationLimitExceeded")
            bucket, reason = self._account_requests, "FunctionInvocationRateLimitExceeded"
        if synchronous and bucket is not None:
            refused = _refusal(bucket, reason, now)
            if refused is not None:
                return refused
        self._enter(lane)
        return lane

    def admit_provisioned(self, function: str, version: str, now: float, synchronous: bool = True) -> Lane | None:
        """Count one invocation in on a version's provisioned concurrency; None when all of it is in use, its ten
        requests a second per unit are used up, or what still runs elsewhere fills the function's reservation: it is to
        be tried on demand."""
        account = self.function(function)
        lane = account.provisioned.get(version)
        if lane is None or lane.in_flight >= lane.limit or self.total >= self.account_limit:
            return None
        if account.reserved is not None and account.in_flight >= account.reserved:
            return None
        if synchronous and lane.requests is not None and lane.requests.take(now) is not None:
            return None
        self._enter(lane)
        return lane

    def admit_start(self, function: str, now: float) -> Throttled | None:
        """May the function have one more environment now? AWS names no reason for this; FunctionInvocationRate is
        assumed."""
        account = self.function(function)
        if account.scaling is None:
            account.scaling = TokenBucket.full(SCALING_BURST, SCALING_PER_SECOND, now)
        return _refusal(account.scaling, "FunctionInvocationRateLimitExceeded", now)

    def release(self, lane: Lane) -> None:
        """One invocation that `lane` let in is over."""
        if lane.in_flight <= 0:
            raise ValueError(f"{lane.kind} concurrency of {lane.account.name} was released more often than admitted")
        lane.in_flight -= 1
        self.total -= 1
        if lane.kind == "unreserved":
            self.unreserved -= 1
            return
        if lane.kind == "provisioned":
            self._tidy(lane)
        self._settle(lane.account)

    def peaks(self) -> tuple[int, int]:
        """The most that ran at once since the last call: altogether, and in the unreserved pool."""
        peaks, self._peaks = self._peaks, (self.total, self.unreserved)
        return peaks

    def _enter(self, lane: Lane) -> None:
        lane.in_flight += 1
        self.total += 1
        if lane.kind == "unreserved":
            self.unreserved += 1
        elif lane.kind == "reserved":
            self._settle(lane.account)
        total, unreserved = self._peaks
        if self.total > total or self.unreserved > unreserved:
            self._peaks = max(self.total, total), max(self.unreserved, unreserved)

    def _settle(self, account: Account) -> None:
        """Bring the sum of all claims up to date."""
        claim = account.claimed()
        self._claims += claim - account.claim
        account.claim = claim

    def _tidy(self, lane: Lane) -> None:
        if not lane.limit and not lane.in_flight:
            lane.account.provisioned.pop(lane.version, None)


def _resized(bucket: TokenBucket | None, units: int, now: float) -> TokenBucket:
    rate = units * REQUESTS_PER_UNIT
    if bucket is None:
        return TokenBucket.full(rate, rate, now)
    bucket.resize(rate, rate, now)
    return bucket


def _refusal(bucket: TokenBucket, reason: ThrottleReason, now: float) -> Throttled | None:
    until = bucket.take(now)
    if until is None:
        return None
    return Throttled(reason, None if until == float("inf") else until)

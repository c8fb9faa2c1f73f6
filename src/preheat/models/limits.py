"""Requests and tokens per minute, as token buckets. Time is passed in (epoch seconds)."""

from dataclasses import dataclass
from typing import Literal

Refusal = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class Bucket:
    """Holds up to one minute's allowance and refills steadily. `put` may drive it below zero (work turned out larger
    than was reserved): the debt is paid off by waiting."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.capacity = per_minute
        self._level = per_minute
        self._at = now

    def level(self, now: float) -> float:
        if now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.capacity / 60.0)
            self._at = now
        return self._level

    def has(self, amount: float, now: float) -> bool:
        """An amount above the capacity is let through a full bucket: it would otherwise never pass."""
        return self.level(now) + 1e-9 >= min(amount, self.capacity)

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def put(self, amount: float, now: float) -> None:
        self._level = min(self.capacity, self.level(now) + amount)


class RateLimit:
    """One model's limits in one account and region."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._requests = None if limits.requests_per_minute is None else Bucket(limits.requests_per_minute, now)
        self._tokens = None if limits.tokens_per_minute is None else Bucket(limits.tokens_per_minute, now)

    def admit(self, tokens: int, now: float) -> Refusal | None:
        """Take one request and reserve `tokens`; or say which limit refuses, and take nothing."""
        if self._requests is not None and not self._requests.has(1, now):
            return "requests"
        if self._tokens is not None and not self._tokens.has(tokens, now):
            return "tokens"
        if self._requests is not None:
            self._requests.take(1, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return None

    def settle(self, reserved: int, used: int, now: float) -> None:
        """Give back what was reserved and not used, or take what was used beyond it."""
        if self._tokens is not None:
            self._tokens.put(reserved - used, now)

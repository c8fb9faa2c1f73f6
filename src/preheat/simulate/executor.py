"""Executors without processes."""

from collections.abc import Callable

from preheat.execution.contract import Invocation, Outcome, Throttled, Usage


class NoExecutor:
    """Runs nothing: for looking at a platform without serving it."""

    def invoke(self, invocation: Invocation, done: Callable[[Outcome], None]) -> Throttled | None:
        return Throttled("ConcurrentInvocationLimitExceeded")

    def set_reserved(self, function_arn: str, limit: int | None) -> None:
        return None

    def retire(self, function_arn: str) -> None:
        return None

    def usage(self) -> Usage:
        return Usage()

    def step(self, now: float) -> float | None:
        return None

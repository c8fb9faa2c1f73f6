"""Executors without processes."""

from collections.abc import Callable, Sequence

from preheat.execution.contract import (
    FunctionSpec,
    Invocation,
    Outcome,
    Prepared,
    Provisioned,
    Provisioning,
    Throttled,
    Usage,
)


class NoExecutor:
    """Runs nothing: for looking at a platform without serving it."""

    def invoke(self, invocation: Invocation, done: Callable[[Outcome], None]) -> Throttled | None:
        return Throttled("ConcurrentInvocationLimitExceeded")

    def remark(self, runtime: str) -> str | None:
        return None

    def provision(self, function_arn: str, wanted: Sequence[Provisioning], changed: Callable[[], None]) -> None:
        return None

    def provisioned(self, function_arn: str) -> dict[str, Provisioned]:
        return {}

    def set_reserved(self, function_arn: str, limit: int | None) -> None:
        return None

    def retire(self, function_arn: str) -> None:
        return None

    def prepare(self, spec: FunctionSpec, then: Callable[[Prepared], None]) -> None:
        return None

    def forget(self, function_arn: str, version: str | None = None) -> None:
        return None

    def usage(self) -> Usage:
        return Usage()

    def step(self, now: float) -> float | None:
        return None

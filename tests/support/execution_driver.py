"""Runs a pool of real processes on an event loop, in the test's thread."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.execution.build import build_pool
from preheat.execution.contract import FunctionSpec, Invocation, LogLine, Outcome, Throttled
from preheat.execution.pool import DEFAULT_LIMITS, PoolLimits
from preheat.kernel.clock import SystemClock
from preheat.kernel.entropy import SystemEntropy

PATIENCE_S = 20.0


class ExecutionDriver:
    """`driver.invoke(spec, payload)` gives the Outcome (or the Throttled); `driver.start` does not wait. `lines` and
    `notices` collect what the pool says."""

    def __init__(
        self,
        scratch: Path,
        limits: PoolLimits = DEFAULT_LIMITS,
        loop: asyncio.AbstractEventLoop | None = None,
        endpoint: str = "",
        tools: Path | None = None,
    ) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self.clock = SystemClock()
        self.entropy = SystemEntropy()
        self.lines: list[LogLine] = []
        self.notices: list[str] = []
        self.pool = build_pool(
            self.loop,
            self.clock,
            self.entropy,
            scratch=scratch,
            endpoint=endpoint,
            on_log=self.lines.extend,
            on_notice=self.notices.append,
            limits=limits,
            tools=tools,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[tuple[Callable[[], Any], asyncio.Future]] = []
        self.pool.on_wake = self._arm

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.pool.next_deadline
        if due is not None:
            self._timer = self.loop.call_later(max(0.0, due - self.clock.now()), self._step)

    def _step(self) -> None:
        self._timer = None
        self.pool.step(self.clock.now())
        self._arm()

    def start(self, spec: FunctionSpec, payload: bytes = b"{}", **options: Any) -> list[Outcome] | Throttled:
        """The returned list gets the outcome."""
        outcomes: list[Outcome] = []
        invocation = Invocation(options.pop("request_id", self.entropy.uuid()), spec, payload, **options)
        refused = self.pool.invoke(invocation, outcomes.append)
        return outcomes if refused is None else refused

    def invoke(self, spec: FunctionSpec, payload: bytes = b"{}", **options: Any) -> Outcome:
        outcomes = self.start(spec, payload, **options)
        assert isinstance(outcomes, list), outcomes
        self.until(lambda: outcomes)
        return outcomes[0]

    def until(self, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
        """Run the loop until `condition()` holds; AssertionError when it does not in time."""

        async def wait() -> None:
            end = self.loop.time() + patience_s
            while not condition():
                assert self.loop.time() < end, f"waited {patience_s} s in vain"
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(wait())

    def messages(self) -> list[str]:
        return [line.message for line in self.lines]

    def close(self) -> None:
        self.pool.close()
        if self._timer is not None:
            self._timer.cancel()
        self.loop.close()

"""Runs a pool of real processes on an event loop, in the test's thread."""

import asyncio
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.execution.build import build_pool
from preheat.execution.contract import FunctionSpec, Invocation, LogLine, Outcome, Throttled
from preheat.execution.pool import DEFAULT_LIMITS, PoolLimits
from preheat.execution.workers.housing import Choices
from preheat.kernel.clock import SystemClock
from preheat.kernel.entropy import SystemEntropy

PATIENCE_S = 90.0


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
        choices: Choices | None = None,
        crowded: Callable[[], bool] = lambda: False,
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
            choices=choices,
            crowded=crowded,
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

        run_until(self.loop, condition, patience_s)

    def messages(self) -> list[str]:
        return [line.message for line in self.lines]

    def close(self) -> None:
        self.pool.close()
        if self._timer is not None:
            self._timer.cancel()
        self.loop.close()


def run_until(loop: asyncio.AbstractEventLoop, condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Run `loop` until `condition()` holds; AssertionError when it does not in time."""
    loop.run_until_complete(until(condition, patience_s))


async def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Wait on the running loop until `condition()` holds; AssertionError when it does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience_s
    while not condition():
        assert loop.time() < end, f"waited {patience_s} s in vain"
        await asyncio.sleep(0.001)


class FunctionMaker:
    """`make(source, name, **options)` writes app.py into a directory of its own and gives its FunctionSpec."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, source: str, name: str = "f", **options: Any) -> FunctionSpec:
        code = self._directory / name
        code.mkdir(exist_ok=True)
        (code / "app.py").write_text(textwrap.dedent(source))
        values = {"runtime": "python3.11", "handler": "app.handler", "timeout_s": 10.0, "memory_mb": 256, **options}
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        return FunctionSpec(arn, name, "$LATEST", "1", code=code, **values)


def error_of(outcome: Outcome) -> tuple[str, str]:
    """Type and message of a failed outcome."""
    document = json.loads(outcome.payload)
    assert document["errorType"] == outcome.error
    return document["errorType"], document["errorMessage"]


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""Puts a pool of real processes together. The one place that chooses the parts."""

import contextlib
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from preheat.execution.contract import FunctionSpec, LogLine
from preheat.execution.machine_memory import FreeMemory
from preheat.execution.pool import DEFAULT_LIMITS, Pool, PoolLimits
from preheat.execution.variables import Trusting
from preheat.execution.workers.housing import Choices, Housing
from preheat.execution.workers.process import ProcessWorkerFactory
from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy

LOCAL_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "test"}


def local_credentials(spec: FunctionSpec) -> Mapping[str, str]:
    """Credentials that Preheat accepts while IAM is off."""
    return LOCAL_CREDENTIALS


def build_pool(
    loop: Any,
    clock: Clock,
    entropy: Entropy,
    *,
    scratch: Path,
    endpoint: str | Callable[[], str] = "",
    on_log: Callable[[list[LogLine]], None] = lambda lines: None,
    on_notice: Callable[[str], None] = lambda text: None,
    credentials: Callable[[FunctionSpec], Mapping[str, str]] = local_credentials,
    limits: PoolLimits = DEFAULT_LIMITS,
    tools: Path | None = None,
    choices: Choices | None = None,
    crowded: Callable[[], bool] = lambda: False,
    trust: Trusting | None = None,
) -> Pool:
    """`loop` is an asyncio (or uvloop) event loop; `scratch` a directory for the environments' private /tmp; `tools`
    one whose node_modules may hold aws-lambda-ric; `choices` how functions are kept apart; while `crowded()` what
    functions write is not taken. Let the driver call `pool.step` at `pool.next_deadline`, and again whenever
    `pool.on_wake` is called. Every environment needs up to six descriptors: the process's soft limit is raised to its
    hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    factory = ProcessWorkerFactory(loop, on_notice, tools, Housing(choices), crowded)
    return Pool(
        clock,
        entropy,
        factory,
        on_log=on_log,
        on_notice=on_notice,
        credentials=credentials,
        endpoint=endpoint,
        limits=limits,
        scratch=scratch.absolute(),
        free_mb=FreeMemory(clock.monotonic),
        trust=trust,
    )

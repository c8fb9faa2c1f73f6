"""How much memory this machine has, and how much of it is free: of the whole, or of the control group around us."""

import contextlib
from collections.abc import Callable
from pathlib import Path

MIB = 1024 * 1024
DEFAULT_SHARE = 20
LEAST_FREE_MB = 256
READ_EVERY_S = 0.02
UNKNOWN_MB = 1_000_000_000

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def _meminfo(field: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) // 1024
    return UNKNOWN_MB


def _group(name: str) -> int | None:
    """A number of the control group in MB; None when there is none or no limit."""
    with contextlib.suppress(OSError, ValueError):
        return int((_GROUP / name).read_text()) // MIB
    return None


def _group_free() -> int:
    limit, used = _group("memory.max"), _group("memory.current")
    if limit is None or used is None:
        return UNKNOWN_MB
    reclaimable = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (_GROUP / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                reclaimable = int(line.split()[1]) // MIB
    return max(0, limit - used + reclaimable)


def total_mb() -> int:
    return min(_meminfo("MemTotal"), _group("memory.max") or UNKNOWN_MB)


def default_min_free_mb() -> int:
    """A twentieth of the machine's memory, at least 256 MB; 0 where the machine does not tell."""
    total = total_mb()
    return 0 if total >= UNKNOWN_MB else max(LEAST_FREE_MB, total // DEFAULT_SHARE)


class FreeMemory:
    """Called: free memory in MB, read at most every READ_EVERY_S. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._read_at = float("-inf")
        self._value = UNKNOWN_MB

    def __call__(self) -> int:
        now = self._monotonic()
        if now - self._read_at >= READ_EVERY_S:
            self._read_at = now
            self._value = min(_meminfo("MemAvailable"), _group_free())
        return self._value

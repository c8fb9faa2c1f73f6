"""How long a retrier waits."""

from collections.abc import Callable
from typing import Any

LONGEST_S = 99_999_999


def pause_before(retrier: dict[str, Any], count: int, draw: Callable[[], float]) -> float:
    """Seconds before the next attempt, after `count` earlier ones."""
    rate = min(float(retrier.get("BackoffRate", 2.0)), 1e6)
    longest = retrier.get("MaxDelaySeconds", LONGEST_S)
    try:
        pause = min(retrier.get("IntervalSeconds", 1) * rate**count, longest)
    except OverflowError:
        pause = longest
    return pause * draw() if retrier.get("JitterStrategy") == "FULL" else pause

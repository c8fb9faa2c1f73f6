"""An hour of messages under the virtual clock: queue, event source mapping, function, delete. How many messages the
simulator moves in a second of real time.

    python bench/simulated_hour.py [--rate 100] [--seconds 3600] [--batch 10] [--window 1]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from preheat.simulate.faults import Behaviour
from preheat.simulate.workloads import queue_with_worker, send_steadily, take_stock
from preheat.simulate.world import World


def simulate(rate: float, seconds: float, batch: int, window_s: int, scratch: Path) -> dict[str, float]:
    """Messages sent and left over, invocations, simulated and real seconds."""
    counts = {"sent": 0, "invoke": 0}

    def watch(kind: str, at: float, details: dict) -> None:
        if kind in counts:
            counts[kind] += 1

    world = World(seed=1, scratch=scratch, behaviour=Behaviour())
    stack = queue_with_worker(world, batch=batch, window_s=window_s)
    world.watchers.append(watch)
    started = time.perf_counter()
    send_steadily(world, stack.queue, rate, seconds)
    world.run(seconds + 60)
    real = time.perf_counter() - started
    left = take_stock(world, stack)
    return {
        "messages": counts["sent"], "invocations": counts["invoke"], "left over": sum(left.values()),
        "simulated s": seconds, "real s": round(real, 2), "messages a real second": round(counts["sent"] / real),
        "simulated seconds a real second": round(seconds / real, 1),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=100, help="messages a second")
    parser.add_argument("--seconds", type=float, default=3_600)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--window", type=int, default=1, help="MaximumBatchingWindowInSeconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = simulate(arguments.rate, arguments.seconds, arguments.batch, arguments.window, Path(scratch))
    for name, value in figures.items():
        print(f"{name:32} {value:,}")
    return 0 if figures["left over"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())

"""Measures the execution layer inside one process: warm and cold invocations, bursts, streaming, memory.

Run: python bench/spike_execution.py [--quick]. Prints a table (min / median / max) and a line of JSON.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uvloop

from preheat.execution.build import build_pool
from preheat.execution.contract import FunctionSpec, Invocation, Outcome, StreamStart
from preheat.execution.pool import PoolLimits
from preheat.kernel.clock import SystemClock
from preheat.kernel.entropy import SystemEntropy

LIGHT = "def handler(event, context):\n    return event\n"
HEAVY = "import boto3, numpy\ns3 = boto3.client('s3')\ndef handler(event, context):\n    return 1\n"
STREAM = """import time
def handler(event, context):
    for _ in range(5):
        yield b"x"
        time.sleep(0.02)
"""


class Bench:
    def __init__(self, directory: Path, quick: bool) -> None:
        self.loop = uvloop.new_event_loop()
        self.directory = directory
        self.scale = 0.2 if quick else 1.0
        self.clock = SystemClock()
        self.entropy = SystemEntropy()
        limits = PoolLimits(account_concurrency=100_000)
        self.pool = build_pool(
            self.loop, self.clock, self.entropy, scratch=directory / "scratch", endpoint="http://127.0.0.1:4566",
            limits=limits,
        )  # fmt: skip
        self.pool.on_wake = self.arm
        self.timer: asyncio.TimerHandle | None = None
        self.results: dict[str, list[float]] = {}

    def arm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        due = self.pool.next_deadline
        if due is not None:
            self.timer = self.loop.call_later(max(0.0, due - self.clock.now()), self.step)

    def step(self) -> None:
        self.timer = None
        self.pool.step(self.clock.now())
        self.arm()

    def spec(self, name: str, source: str, revision: str = "1") -> FunctionSpec:
        code = self.directory / name
        code.mkdir(exist_ok=True)
        (code / "app.py").write_text(source)
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        return FunctionSpec(
            arn, name, "$LATEST", revision, "python3.11", "app.handler", code, memory_mb=512, timeout_s=30.0
        )

    def run(self, start: Callable[[Callable[[], None]], None]) -> None:
        """`start(finish)`; the loop runs until `finish()`."""
        future = self.loop.create_future()
        self.loop.call_soon(start, lambda: future.set_result(None))
        self.loop.run_until_complete(asyncio.wait_for(future, 120))

    def sequence(self, specs: list[FunctionSpec], key: str, payload: bytes = b'{"a":1}') -> list[Outcome]:
        """One invocation after the other; wall milliseconds of each under `key`."""
        times: list[float] = []
        outcomes: list[Outcome] = []

        def start(finish: Callable[[], None]) -> None:
            waiting = iter(specs)

            def advance() -> None:
                spec = next(waiting, None)
                if spec is None:
                    finish()
                    return
                began = time.perf_counter()

                def done(outcome: Outcome) -> None:
                    times.append((time.perf_counter() - began) * 1000.0)
                    outcomes.append(outcome)
                    self.loop.call_soon(advance)

                self.pool.invoke(Invocation(self.entropy.uuid(), spec, payload), done)

            advance()

        self.run(start)
        assert all(outcome.error is None for outcome in outcomes), outcomes[0]
        self.results[key] = times
        return outcomes

    def burst(self, spec: FunctionSpec, count: int, key: str) -> None:
        left = count
        began = time.perf_counter()

        def start(finish: Callable[[], None]) -> None:
            def done(outcome: Outcome) -> None:
                nonlocal left
                assert outcome.error is None, outcome
                left -= 1
                if not left:
                    finish()

            for _ in range(count):
                assert self.pool.invoke(Invocation(self.entropy.uuid(), spec, b"{}"), done) is None

        self.run(start)
        self.results[key] = [(time.perf_counter() - began) * 1000.0]

    def stream(self, spec: FunctionSpec, key: str) -> None:
        times: list[float] = []

        def start(finish: Callable[[], None]) -> None:
            began = time.perf_counter()

            def on_stream(stream: StreamStart) -> None:
                stream.chunks.attach(lambda chunk: times.append((time.perf_counter() - began) * 1000.0), lambda e: None)

            invocation = Invocation(self.entropy.uuid(), spec, b"{}", on_stream=on_stream)
            self.pool.invoke(invocation, lambda outcome: finish())

        self.run(start)
        self.results[key] = times

    def memory(self, key: str) -> None:
        """Private megabytes of every live environment."""
        sizes = []
        for environment in self.pool.environments():
            pid = getattr(environment.worker, "pid", 0)
            if pid:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                private = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
                sizes.append(private / 1024.0)
        self.results[key] = sizes


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        bench = Bench(Path(directory), "--quick" in sys.argv)
        light, heavy = bench.spec("light", LIGHT), bench.spec("heavy", HEAVY)
        bench.sequence([light], "first ever, light (ms)")
        bench.run(lambda finish: bench.loop.call_later(3.0, finish))
        bench.sequence([heavy], "first, boto3+numpy+client (ms)")
        count = int(20 * bench.scale)
        bench.sequence([replace(light, revision=f"r{n}") for n in range(count)], "cold, light (ms)")
        bench.sequence([replace(heavy, revision=f"r{n}") for n in range(count)], "cold, boto3+numpy+client (ms)")
        warm = replace(light, revision="warm")
        outcomes = bench.sequence([warm] * int(5000 * bench.scale), "warm (ms)")
        bench.results["warm, as reported (ms)"] = [outcome.duration_ms for outcome in outcomes[1:]]
        stream = bench.spec("stream", STREAM)
        bench.sequence([stream], "stream, cold, whole (ms)")
        bench.stream(stream, "stream, chunk arrival (ms)")
        many = bench.spec("many", LIGHT)
        bench.burst(many, 100, "burst of 100 cold (ms, all)")
        bench.memory("private MB per environment, light")
        bench.pool.close()
        bench.loop.close()
    for key, values in bench.results.items():
        print(f"{key:38} {min(values):9.3f} / {statistics.median(values):9.3f} / {max(values):9.3f}   n={len(values)}")
    summary = {key: [min(values), statistics.median(values), max(values)] for key, values in bench.results.items()}
    print(json.dumps({"cpus": os.cpu_count(), **summary}))


if __name__ == "__main__":
    main()

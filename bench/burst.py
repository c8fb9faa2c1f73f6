"""The two tiers under a spike: a steady baseline, then several hundred questions at once, through the deployed stack.

    python bench/burst.py [--spike 300] [--baseline 4] [--burst 6] [--model-ms 600]

Prints both queues' depth over time, each tier's share and latencies, the most questions that the model saw at once, and
what ended in the dead-letter queue. Fails when the model saw more than its limit or a question was lost. Takes about a
minute.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.booth import booth  # noqa: E402
from tests.support.rag import RagStack, deployed  # noqa: E402
from tests.support.server import wait_for  # noqa: E402

STEADY_S = 8.0
STEADY_RATE = 4.0
LOOK_S = 0.5
LIMIT_S = 60.0
SUBMITTERS = 6


def submit(rag: RagStack, number: int) -> tuple[str, float]:
    """The job, and when it was handed in."""
    question = {"question": f"What does the grey heron eat, asks visitor {number}?"}
    began = time.perf_counter()
    status, _, body = rag.http("QuestionsUrl", "POST", "/questions", question)
    if status != 202:
        raise SystemExit(f"a question was answered {status}: {body[:200]!r}")
    return json.loads(body)["id"], began


class Watch:
    """Looks at both queues and at the jobs until all of them have ended."""

    def __init__(self, rag: RagStack) -> None:
        self.rag = rag
        self.jobs = rag.server.resource("dynamodb").Table(rag.outputs["JobsTableName"])
        self.began = time.perf_counter()
        self.depths: list[tuple[float, int, int]] = []
        self.ended: dict[str, tuple[float, dict[str, Any]]] = {}

    def look(self) -> None:
        now = time.perf_counter()
        baseline, burst = (self.rag.count(name) for name in ("QuestionsQueueUrl", "BurstQueueUrl"))
        self.depths.append((now - self.began, baseline, burst))
        page: dict[str, Any] = {}
        while True:
            page = self.jobs.scan(**({"ExclusiveStartKey": page["LastEvaluatedKey"]} if page else {}))
            for one in page["Items"]:
                if one["status"] in ("done", "failed"):
                    self.ended.setdefault(one["id"], (now, one))
            if "LastEvaluatedKey" not in page:
                return


def steady(rag: RagStack, sent: list[tuple[str, float]]) -> None:
    """One question after the other at the steady rate."""
    began = time.perf_counter()
    for number in range(int(STEADY_S * STEADY_RATE)):
        time.sleep(max(0.0, began + number / STEADY_RATE - time.perf_counter()))
        sent.append(submit(rag, number))


def report(watch: Watch, sent: dict[str, float], spike: set[str], most: int, limit: int, dead: int) -> int:
    """Print what was seen; the exit code."""
    print(f"\n{'seconds':>8} {'baseline queue':>15} {'burst queue':>12}   (waiting and in work)")
    for at, baseline, burst in watch.depths:
        print(f"{at:8.1f} {baseline:15} {burst:12}")
    print(f"\n{'':10} {'tier':>10} {'questions':>10} {'share':>7} {'p50 s':>7} {'p95 s':>7} {'max s':>7}")
    for name, ids in (("steady", sent.keys() - spike), ("spike", spike)):
        for tier in ("baseline", "burst"):
            found = {id: watch.ended[id] for id in ids if id in watch.ended}
            mine = sorted(at - sent[id] for id, (at, one) in found.items() if one.get("tier") == tier)
            if mine:
                p95 = mine[int(0.95 * (len(mine) - 1))]
                print(
                    f"{name:10} {tier:>10} {len(mine):10} {len(mine) / len(ids):7.0%} {statistics.median(mine):7.2f} "
                    f"{p95:7.2f} {mine[-1]:7.2f}"
                )
    failed = sum(one["status"] == "failed" for _, one in watch.ended.values())
    retried = sum(int(one.get("attempts", 1)) > 1 for _, one in watch.ended.values())
    print(f"\nthe model saw {most} questions at once at most; its limit is {limit}")
    ended = len(watch.ended)
    print(f"{len(sent)} questions: {ended} ended, {failed} failed, {retried} tried more than once, {dead} dead")
    good = most <= limit and ended == len(sent) and not failed and not dead
    print("the limit held and nothing was lost" if good else "NOT as it must be")
    return 0 if good else 1


def run(folder: Path, spike: int, workers: int, burst: int, model_s: float) -> int:
    limit = workers + burst
    settings = {
        "EmbeddingModelId": "none", "GenerationModelId": "test.booth", "BaselineWorkers": workers, "BurstDepth": 20,
        "BurstConcurrency": burst, "DownstreamLimit": limit, "RequestsPerMinute": 0,
    }  # fmt: skip
    with booth(folder, model_s) as (model, models), deployed(
        folder, "--models", str(models), **{name: str(value) for name, value in settings.items()}
    ) as rag:
        rag.put("heron.md", "# Herons\n\nThe grey heron eats eels and frogs.\n")
        log = folder / "baseline.log"
        command = [Path(sys.executable).parent / "preheat", "baseline", "--workers", workers, "--port", rag.server.port]
        with log.open("wb") as out:
            process = subprocess.Popen([str(one) for one in command], stdout=out, stderr=out)
        try:
            wait_for(lambda: '"ready"' in log.read_text(), what="the baseline")
            watch, sent = Watch(rag), []
            calm = threading.Thread(target=steady, args=(rag, sent))
            calm.start()
            end = watch.began + STEADY_S / 2
            while time.perf_counter() < end:
                watch.look()
                time.sleep(LOOK_S)
            with ThreadPoolExecutor(SUBMITTERS) as pool:
                waiting = [pool.submit(submit, rag, 1_000 + number) for number in range(spike)]
                while not all(one.done() for one in waiting):
                    watch.look()
                    time.sleep(LOOK_S)
                sudden = [one.result() for one in waiting]
            calm.join()
            known = dict([*sent, *sudden])
            while len(watch.ended) < len(known) and time.perf_counter() - watch.began < LIMIT_S:
                watch.look()
                time.sleep(LOOK_S)
            dead = rag.count("QuestionsDeadLettersUrl")
            return report(watch, known, {id for id, _ in sudden}, model.most, limit, dead)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spike", type=int, default=300, help="questions at once")
    parser.add_argument("--baseline", type=int, default=4, help="long-lived workers")
    parser.add_argument("--burst", type=int, default=6, help="MaximumConcurrency of the burst workers")
    parser.add_argument("--model-ms", type=float, default=600.0, help="how long the model takes for an answer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), given.spike, given.baseline, given.burst, given.model_ms / 1_000)


if __name__ == "__main__":
    sys.exit(main())

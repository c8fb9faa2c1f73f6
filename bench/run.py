"""`make bench`: Preheat and its peers side by side in one run. Servers are interleaved within each repeat, so that what
else this machine does hits all alike; the figures are medians with min and max, and ratios to Preheat's.

    python bench/run.py [--repeats 3] [--seconds 1] [--minutes 25] [--quick] [--servers preheat,ministack,...]
                        [--cases sqs,depth,...] [--peers DIRECTORY] [--write]

A run of everything writes bench/results.json and bench/RESULTS.md; others only with --write.
"""

import argparse
import compileall
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cases
import cold_starts
import depth
import functions
import queues
import report
import topics
from servers import FEATURES, QUICK, QUICK_SERVERS, PeerHome, Server

HERE = Path(__file__).parent
CASES = (
    "start", "sqs", "storage", "lambda", "trigger", "fifo", "fanout", "events", "polls", "cold", "depth", "sleepers",
    "killed",
)  # fmt: skip
ROUND_S = {
    "preheat": 28, "preheat-power": 24, "ministack": 40, "moto": 34, "localstack": 23, "elasticmq": 17,
    "serverless-offline": 9,
}  # fmt: skip
"""Seconds that one round of a server takes at --seconds 1; for the estimate alone."""
SECOND_S = {"preheat": 45, "preheat-power": 14, "ministack": 50, "moto": 35, "elasticmq": 8}
DEPTH_S = {"preheat": 170, "ministack": 30, "elasticmq": 40}
SLEEPERS_S = {"preheat": 16, "ministack": 16}
QUICK_S = {"preheat": 150, "preheat-power": 25, "ministack": 45, "moto": 25, "elasticmq": 10}
"""Seconds of all that --quick does with a server."""
INSTALL_S = 90
MINUTES, QUICK_MINUTES = 25.0, 6.0
ROUND: dict[str, Callable[[Server, float, str], dict[str, float]]] = {
    "sqs": cases.sqs,
    "storage": cases.storage,
    "lambda": functions.invoke,
    "trigger": functions.queue_to_handler,
}
SECOND: dict[str, Callable[[Server, float, str], dict[str, float]]] = {
    "fifo": queues.fifo,
    "fanout": topics.fan_out,
    "events": topics.put_events,
    "polls": queues.parked,
    "cold": cold_starts.cases,
}
"""On a server of their own, new in each round."""
Figures = dict[str, dict[str, list[float]]]


class Bench:
    """One run: collects figures and what did not work."""

    def __init__(self, arguments: argparse.Namespace, names: list[str], home: PeerHome | None) -> None:
        self.arguments = arguments
        self.names = names
        self.home = home
        self.wanted = set(arguments.cases.split(","))
        self.features = QUICK if arguments.quick else FEATURES
        self.figures: Figures = {name: {} for name in names}
        self.notes: list[str] = [] if home is None else [f"{name}: {why}" for name, why in home.missing.items()]

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            print("  " + text, file=sys.stderr, flush=True)

    def add(self, name: str, figures: dict[str, float]) -> None:
        for figure, value in figures.items():
            self.figures[name].setdefault(figure, []).append(value)

    def attempt(self, name: str, step: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self.note(f"{name}, {step}: {type(error).__name__}: {' '.join(str(error).split())[:250]}")

    def server(self, name: str) -> Server:
        return Server(name, self.home, self.arguments.quick)

    def round(self, name: str, repeat: int) -> None:
        """Start and the first steps on a fresh server, then the second ones on another."""
        server = self.server(name)
        try:
            answered, first = server.start()
            if "start" in self.wanted & self.features[name]:
                self.add(
                    name,
                    {"start to first answer s": answered, "start to first CreateQueue s": first,
                     "idle memory MB": server.memory_mb()},
                )  # fmt: skip
            self.steps(server, ROUND, repeat)
            if "sqs" in self.wanted & self.features[name]:
                self.add(name, {"memory after the load MB": server.memory_mb()})
        finally:
            server.stop()

    def steps(
        self, server: Server, steps: dict[str, Callable[[Server, float, str], dict[str, float]]], repeat: int
    ) -> None:
        name = server.name
        for step, measure in steps.items():
            if step in self.wanted & self.features[name]:
                values = (server, self.arguments.seconds, f"r{repeat}")
                self.attempt(name, step, server.settle)
                self.attempt(name, step, lambda measure=measure, values=values: self.add(name, measure(*values)))

    def second(self, name: str, repeat: int) -> None:
        server = self.server(name)
        try:
            server.start()
            self.steps(server, SECOND, repeat)
        finally:
            server.stop()

    def depths(self, name: str) -> None:
        server = self.server(name)
        try:
            server.start()
            found = depth.depth(server, self.arguments.seconds, "d", self.arguments.repeats)
            self.figures[name].update(found)
        finally:
            server.stop()

    def sleepers(self, name: str) -> None:
        server = self.server(name)
        try:
            server.start()
            self.figures[name].update(functions.sleepers(server, self.arguments.repeats if name == "preheat" else 1))
        finally:
            server.stop()

    def kill(self) -> None:
        server = self.server("preheat")
        try:
            server.start()
            self.add("preheat", cases.killed(server, self.arguments.seconds))
        finally:
            server.stop()

    def run(self, began: float) -> None:
        """One round, what is done once, then further rounds as long as there is time for a whole one; `began` is a
        moment of `time.perf_counter`."""
        least, repeats = time.perf_counter(), self.arguments.repeats
        self.rounds(0)
        longest = time.perf_counter() - least
        self.once()
        for repeat in range(1, repeats):
            least = time.perf_counter()
            if least - began + longest > self.arguments.minutes * 60:
                self.note(f"{repeat} of {repeats} rounds: another does not fit into {self.arguments.minutes:g} minutes")
                break
            self.rounds(repeat)
            longest = max(longest, time.perf_counter() - least)

    def rounds(self, repeat: int) -> None:
        for name in self.names:
            wanted = self.wanted & self.features[name]
            if wanted & {"start", *ROUND, *SECOND}:
                print(f"round {repeat + 1} of {self.arguments.repeats}: {name}", file=sys.stderr, flush=True)
            if wanted & {"start", *ROUND}:
                self.attempt(name, "round", lambda name=name: self.round(name, repeat))
            if wanted & set(SECOND):
                self.attempt(name, "second round", lambda name=name: self.second(name, repeat))

    def once(self) -> None:
        for step, measure in (("depth", self.depths), ("sleepers", self.sleepers)):
            for name in self.names:
                if step in self.wanted & self.features[name]:
                    print(f"{step}: {name}", file=sys.stderr, flush=True)
                    self.attempt(name, step, lambda measure=measure, name=name: measure(name))
        if "killed" in self.wanted and "preheat" in self.names:
            self.attempt("preheat", "killed", self.kill)


def estimate(names: list[str], wanted: set[str], repeats: int, seconds: float, quick: bool) -> float:
    """Minutes."""
    if quick:
        share = len(wanted) / len(CASES)
        installed = INSTALL_S * any(not name.startswith("preheat") for name in names)
        return (share * sum(QUICK_S.get(name, 20) for name in names) + installed) / 60
    share = len(wanted & set(ROUND)) / len(ROUND)
    total = repeats * sum(ROUND_S[name] for name in names) * share * (0.3 + 0.7 * seconds)
    share = len(wanted & set(SECOND)) / len(SECOND)
    total += repeats * sum(SECOND_S.get(name, 0) for name in names) * share
    total += sum(DEPTH_S.get(name, 0) for name in names) if "depth" in wanted else 0
    total += sum(SLEEPERS_S.get(name, 0) for name in names) if "sleepers" in wanted else 0
    return (total + INSTALL_S * any(not name.startswith("preheat") for name in names)) / 60


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1, help="of each single load")
    parser.add_argument("--quick", action="store_true", help="every row once, fewer of the peers' (some six minutes)")
    parser.add_argument("--minutes", type=float, help=f"no round begins that would last longer ({MINUTES:g})")
    parser.add_argument("--servers")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--write", action="store_true", help="keep the results of a part, too")
    parser.add_argument("--peers", type=Path, help="keep the peers installed here; otherwise they are temporary")
    arguments = parser.parse_args()
    whole = arguments.servers is None and arguments.cases == ",".join(CASES) and not arguments.quick
    arguments.write = arguments.write or whole
    arguments.servers = arguments.servers or ",".join(QUICK_SERVERS if arguments.quick else FEATURES)
    arguments.minutes = arguments.minutes or (QUICK_MINUTES if arguments.quick else MINUTES)
    if arguments.quick:
        arguments.repeats = 1
    return arguments


def main() -> int:
    arguments = parse()
    names = arguments.servers.split(",")
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        print(f"no such server: {', '.join(unknown)}; there are {', '.join(FEATURES)}", file=sys.stderr)
        return 2
    wanted = set(arguments.cases.split(","))
    if wanted - {*CASES}:
        print(f"no such case: {', '.join(wanted - {*CASES})}; there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    minutes = min(arguments.minutes, estimate(names, wanted, arguments.repeats, arguments.seconds, arguments.quick))
    print(f"about {minutes:.0f} minutes, a few more where packages come slowly", file=sys.stderr, flush=True)
    if cases.WRK is None:
        print("wrk is not installed: the generator is Python and is itself the limit of fast servers", file=sys.stderr)
    started, before = time.perf_counter(), round(os.getloadavg()[1], 1)
    compileall.compile_dir(HERE.parent / "src" / "preheat", quiet=2)
    peers = [name for name in names if not name.startswith("preheat")]
    home = PeerHome(peers, arguments.peers) if peers else None
    for name in list(names) if home is not None else []:
        if name in home.missing:
            print(f"without {name}: {home.missing[name]}", file=sys.stderr, flush=True)
            names.remove(name)
    bench = Bench(arguments, names, home)
    try:
        bench.run(started)
    except KeyboardInterrupt:
        bench.note("interrupted: what follows is what there was until then")
    finally:
        if home is not None:
            home.close()
    about = {
        "repeats": arguments.repeats, "seconds": arguments.seconds, "cores": os.cpu_count(), "load_average": before,
        "generator": "wrk" if cases.WRK else "Python", "took_s": round(time.perf_counter() - started),
    }  # fmt: skip
    text = report.markdown(bench.figures, bench.notes, about)
    if arguments.write:
        document = report.document(bench.figures, bench.notes, about)
        (HERE / "results.json").write_text(json.dumps(document, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(text)
    print(text)
    print("\n".join(report.verdicts(bench.figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

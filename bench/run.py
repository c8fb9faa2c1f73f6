"""`make bench`: Preheat and its peers side by side in one run. Servers are interleaved within each repeat, so that what
else this machine does hits all alike; the figures are medians with min and max, and ratios to Preheat's median.

    python bench/run.py [--repeats 3] [--seconds 2] [--servers preheat,preheat-power,ministack,moto] [--cases sqs,...]

Writes bench/results.json and bench/RESULTS.md.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path

import cases
from servers import PEERS, PeerHome, Server

HERE = Path(__file__).parent
CASES = ("start", "sqs", "backlog", "storage", "lambda", "trigger")
DEPTHS = {"preheat": (100_000, 1_000_000), "ministack": (100_000,)}


def measure(server: Server, wanted: set[str], seconds: float, tag: str) -> dict[str, float]:
    """Everything that is wanted of one started server."""
    out: dict[str, float] = {}
    steps = {
        "sqs": lambda: cases.sqs(server, seconds, tag),
        "storage": lambda: cases.storage(server, seconds, tag),
        "lambda": lambda: cases.functions(server, seconds, tag) if server.name != "moto" else {},
        "trigger": lambda: cases.queue_to_handler(server, tag) if server.name != "moto" else {},
    }
    for depth in DEPTHS.get(server.name, ()):
        steps[f"backlog {depth}"] = lambda depth=depth: cases.backlog(server, seconds, tag, depth)
    for name, step in steps.items():
        if name.split()[0] not in wanted:
            continue
        try:
            out |= step()
        except Exception as error:
            print(f"  {server.name} {name}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--servers", default="preheat,preheat-power,ministack,moto")
    parser.add_argument("--cases", default=",".join(CASES))
    arguments = parser.parse_args()
    names, wanted = arguments.servers.split(","), set(arguments.cases.split(","))
    peers = [name for name in names if name in PEERS]
    home = PeerHome(peers) if peers else None
    if home is not None:
        for name, why in home.missing.items():
            print(f"{name} could not be installed: {why}", file=sys.stderr)
            names.remove(name)
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    try:
        for repeat in range(arguments.repeats):
            for name in names:
                print(f"repeat {repeat + 1} of {arguments.repeats}: {name}", file=sys.stderr)
                for figure, value in one_round(name, home, wanted, arguments.seconds, repeat).items():
                    figures[name].setdefault(figure, []).append(value)
    finally:
        if home is not None:
            home.close()
    report(figures, arguments)
    return 0


def one_round(name: str, home: PeerHome | None, wanted: set[str], seconds: float, repeat: int) -> dict[str, float]:
    server = Server(name, home)
    try:
        answered, first = server.start()
        out = {}
        if "start" in wanted:
            out = {"start to answer s": answered, "start to first CreateQueue s": first, "idle MB": server.memory_mb()}
        return out | measure(server, wanted, seconds, f"r{repeat}")
    except Exception as error:
        print(f"  {name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
        return {}
    finally:
        server.stop()


def report(figures: dict[str, dict[str, list[float]]], arguments: argparse.Namespace) -> None:
    """The JSON, and a table: median (min to max), and the ratio of Preheat's median to each peer's."""
    (HERE / "results.json").write_text(json.dumps(figures, indent=1))
    names = list(figures)
    rows = list(dict.fromkeys(figure for name in names for figure in figures[name]))
    lines = [
        "# Results of `make bench`",
        "",
        f"{arguments.repeats} repeats of {arguments.seconds:g} s, servers interleaved, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores shared with the load generator. "
        "Median (min to max); x: Preheat's median over that peer's.",
        "",
        "| figure | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for figure in rows:
        own = figures.get("preheat", {}).get(figure)
        cells = [cell(figures[name].get(figure), own if name != "preheat" else None) for name in names]
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (HERE / "RESULTS.md").write_text(text)
    print(text)


def cell(values: list[float] | None, own: list[float] | None) -> str:
    if not values:
        return "-"
    middle = statistics.median(values)
    text = f"{number(middle)} ({number(min(values))} to {number(max(values))})"
    if own and middle:
        text += f" x{statistics.median(own) / middle:.2g}"
    return text


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())

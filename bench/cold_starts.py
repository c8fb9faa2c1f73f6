"""Cold starts through the public API: one at a time, restored by SnapStart, in a burst, and what each costs in memory.

    python bench/cold_starts.py [--quick]

`one_by_one`, `burst` and `memory` take a started server and give {figure: [values]}; `cases` gives medians under the
names that `run.py` reports. Every invocation holds its environment for a while, so the next finds none free; that
while, measured by the handler, is taken off. A run takes less than a minute.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import json
import statistics
import sys
import time
import zipfile
from pathlib import Path

from servers import Server

HOLD_S = 1.2
APART_S = 0.1
RUNS = 10
BURST = 200
LIVE = 500
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
HANDLER = (
    "import os, time\n"
    "def handler(event, context):\n"
    "    began = time.time()\n"
    "    time.sleep(event['hold'])\n"
    "    return [began, time.time() - began, os.getpid()]\n"
)
HEAVY = (
    "import boto3\n"
    "try:\n    import numpy\nexcept ImportError:\n    numpy = None\n"
    "client = boto3.client('s3', region_name='us-east-1')\n"
)
KINDS = {
    "light": (RUNTIME, HANDLER, False),
    "boto3 client and numpy": (RUNTIME, HEAVY + HANDLER, False),
    "light restored": ("python3.12", HANDLER, True),
    "boto3 client restored": ("python3.12", HEAVY + HANDLER, True),
}
"""SnapStart is for python3.12 and later, whatever runs it here; numpy is in the picture where that Python has it."""


def deploy(server: Server, name: str, kind: str) -> str:
    """The path that invokes a new function of this kind."""
    runtime, code, restored = KINDS[kind]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("index.py", code)
    document = {
        "FunctionName": name, "Runtime": runtime, "Role": "arn:aws:iam::000000000000:role/bench", "Timeout": 60,
        "Handler": "index.handler", "Code": {"ZipFile": base64.b64encode(archive.getvalue()).decode()},
        "MemorySize": 512, "SnapStart": {"ApplyOn": "PublishedVersions" if restored else "None"}, "Publish": restored,
    }  # fmt: skip
    headers = {"Content-Type": "application/json"}
    server.rest("lambda", "POST", "/2015-03-31/functions", json.dumps(document).encode(), **headers)
    root = f"/2015-03-31/functions/{name}"
    qualifier = "?Qualifier=1" if restored else ""
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        _, answer = server.rest("lambda", "GET", f"{root}/configuration{qualifier}")
        if json.loads(answer).get("State") == "Active":
            return f"{root}/invocations{qualifier}"
        time.sleep(0.02)
    raise RuntimeError(f"{name} did not become active: {answer[:300]!r}")


async def call(server: Server, path: str, hold_s: float) -> tuple[float, list]:
    """Seconds that one invocation took, and what the handler returned. Raises RuntimeError for an error."""
    body = json.dumps({"hold": hold_s}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with contextlib.closing(writer):
        started = time.perf_counter()
        writer.write(head.encode() + body)
        answer = await reader.read()
        taken = time.perf_counter() - started
    status, _, rest = answer.partition(b"\r\n")
    payload = json.loads(rest.partition(b"\r\n\r\n")[2] or b"null")
    if b" 200 " not in status or not isinstance(payload, list):
        raise RuntimeError(f"{status!r} {payload!r}")
    return taken, payload


async def _apart(server: Server, path: str, runs: int) -> list[float]:
    tasks = []
    for _ in range(runs):
        tasks.append(asyncio.create_task(call(server, path, HOLD_S)))
        await asyncio.sleep(APART_S)
    return [(taken - payload[1]) * 1_000 for taken, payload in await asyncio.gather(*tasks)]


def one_by_one(server: Server, tag: str, runs: int = RUNS) -> dict[str, list[float]]:
    """Milliseconds of cold invocations, one after the other; the first of a function is not counted."""
    figures = {}
    for number, kind in enumerate(KINDS):
        path = deploy(server, f"cold-{tag}-{number}", kind)
        asyncio.run(call(server, path, 0.0))
        times = asyncio.run(_apart(server, path, runs + 1))
        figures[f"cold {kind} ms"] = times[1:]
    return figures


async def _at_once(server: Server, path: str, count: int, hold_s: float) -> tuple[list, list[str], float]:
    begun = time.time()
    answers = await asyncio.gather(*(call(server, path, hold_s) for _ in range(count)), return_exceptions=True)
    good = [answer[1] for answer in answers if not isinstance(answer, BaseException)]
    return good, [repr(answer) for answer in answers if isinstance(answer, BaseException)], begun


def burst(server: Server, tag: str, kind: str = "light", count: int = BURST, hold_s: float = 3.0) -> dict:
    """`count` invocations sent at once, each of which needs a new environment: environments a second, from the first
    byte sent to the start of the last handler; and errors."""
    path = deploy(server, f"burst-{tag}-{kind.replace(' ', '-')}", kind)
    asyncio.run(call(server, path, 0.0))
    good, errors, begun = asyncio.run(_at_once(server, path, count, hold_s))
    for error in sorted(set(errors))[:3]:
        print("  " + error[:200], file=sys.stderr)
    span = max((answer[0] for answer in good), default=begun) - begun
    return {
        f"burst of {count} {kind}, environments /s": [len({answer[2] for answer in good}) / max(span, 1e-9)],
        f"burst of {count} {kind}, errors": [float(len(errors))],
        f"burst of {count} {kind}, pids": [answer[2] for answer in good],
    }


def memory(pids: list[int]) -> dict[str, list[float]]:
    """Private and proportional memory of each process, MB (10^6 bytes)."""
    private, proportional = [], []
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = dict.fromkeys(("Private_Clean", "Private_Dirty", "Pss"), 0)
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name = line.partition(":")[0]
                if name in fields:
                    fields[name] = int(line.split()[1])
            private.append((fields["Private_Clean"] + fields["Private_Dirty"]) * 1.024 / 1_000)
            proportional.append(fields["Pss"] * 1.024 / 1_000)
    return {"private": private, "proportional": proportional}


def cases(server: Server, seconds: float, tag: str) -> dict[str, float]:
    """The medians, for a round of run.py."""
    figures = one_by_one(server, tag, 4)
    for kind in ("light", "boto3 client restored"):
        figures |= burst(server, tag, kind)
        pids = figures.pop(f"burst of {BURST} {kind}, pids")
        figures[f"private memory of {BURST} live {kind}, MB"] = memory(pids)["private"]
    named = {f"lambda {name}".replace(" cold ", " new environment, "): values for name, values in figures.items()}
    return {name: statistics.median(values) for name, values in named.items()}


def show(name: str, values: list[float]) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:58} {low:9.2f} {middle:9.2f} {high:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="bursts of 60, 100 live environments")
    quick = parser.parse_args().quick
    count, live = (60, 100) if quick else (BURST, LIVE)
    print(f"{'':58} {'min':>9} {'median':>9} {'max':>9}")
    server = Server("preheat")
    try:
        server.start()
        for name, values in one_by_one(server, "a", 4 if quick else RUNS).items():
            show(name, values)
        for kind in ("light", "boto3 client restored"):
            for name, values in burst(server, "b", kind, count).items():
                if "pids" not in name:
                    show(name, values)
    finally:
        server.stop()
    for kind in ("light", "boto3 client restored"):
        server = Server("preheat")
        try:
            server.start()
            pids = next(
                values for name, values in burst(server, "m", kind, live, live / 100.0).items() if "pids" in name
            )
            for name, values in memory(pids).items():
                show(f"{name} memory of {len(values)} live {kind}, MB", values)
        finally:
            server.stop()


if __name__ == "__main__":
    main()

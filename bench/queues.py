"""FIFO queues by how many message groups they have, and receives that wait by the thousand."""

import json
import os
import select
import socket
import statistics
import time
from pathlib import Path

from cases import BATCH, DRAIN, DRAIN_OTHERS, FILL_LIMIT_S, drain, load, rate
from generator import Reader
from servers import SCOPE, Server, family, path_of

GROUPS = (1, 100, 10_000)
FIFO_CONNECTIONS = 16
POLL_S = 20
PARKED = {"preheat": (200, 1_000, 10_000), "ministack": (1_000, 10_000), "moto": (200,), "elasticmq": (1_000,)}
"""How many receives are parked. moto keeps a thread for each; ElasticMQ's HTTP server takes 1,024 connections. The
figures of a number that a server does not take are left out."""
WATCH_S = 2.0
WAKES = 10
CONNECT_S = 12.0


def fifo(server: Server, seconds: float, tag: str) -> dict[str, float]:
    """Sends to and receives from a FIFO queue at 16 connections, its messages spread evenly over the groups."""
    out: dict[str, float] = {}
    for groups in GROUPS:
        name, more = f"groups={groups:,}", {"groups": str(groups)}
        queue = server.create_queue(f"fifo-{tag}-{groups}.fifo")
        result = load(server, "fifo", FIFO_CONNECTIONS, seconds, queue, **more)
        out[f"sqs fifo send c=16 {name} /s"] = rate(result)
        out[f"sqs fifo send c=16 {name} p99 ms"] = result["p99_ms"]
        wanted = DRAIN.get(server.name, DRAIN_OTHERS) - result["requests"]
        began = time.perf_counter()
        while wanted > 0 and time.perf_counter() - began < FILL_LIMIT_S:
            wanted -= BATCH * load(server, "fifobatch", FIFO_CONNECTIONS, 1, queue, **more)["requests"]
        result = drain(server, FIFO_CONNECTIONS, seconds, queue, wait="1", empty="1000000")
        out[f"sqs fifo receive+delete c=16 {name} msg/s"] = result["rate"]
    return out


def cpu_s(server: Server) -> float:
    """Processor time that the server and everything below it have used, seconds."""
    assert server.process is not None
    ticks = 0
    for pid in family(server.process.pid):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Polls:
    """Connections that each have one long poll of a queue open."""

    def __init__(self, server: Server, queue: str) -> None:
        self._server = server
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._request = _receive(server, queue)

    def park(self, count: int) -> int:
        """How many the server took within CONNECT_S."""
        began = time.perf_counter()
        for _ in range(count):
            line = socket.create_connection(("127.0.0.1", self._server.port), timeout=10)
            self._sockets[line.fileno()] = line
            self._poll.register(line.fileno(), select.EPOLLIN)
            line.sendall(self._request)
            if time.perf_counter() - began > CONNECT_S:
                break
        return len(self._sockets)

    def woken(self, timeout_s: float) -> tuple[float, bytes]:
        """(the moment of the first answer, its body); its connection is closed. Raises RuntimeError for none."""
        found = self._poll.poll(timeout_s, 1)
        at = time.perf_counter()
        if not found:
            raise RuntimeError(f"no parked receive answered within {timeout_s:g} s")
        line = self._sockets.pop(found[0][0])
        self._poll.unregister(line.fileno())
        with line:
            line.settimeout(timeout_s)
            reader, whole = Reader(), None
            while whole is None:
                data = line.recv(65_536)
                if not data:
                    raise RuntimeError("the connection of a parked receive was closed")
                whole = reader.feed(data)
            return at, whole[1]

    def quiet(self) -> bool:
        return not self._poll.poll(0, 1)

    def close(self) -> None:
        for line in self._sockets.values():
            line.close()
        self._poll.close()


def _receive(server: Server, queue: str) -> bytes:
    auth = SCOPE % "sqs" + "0" * 64
    if server.protocol == "json":
        body = json.dumps({"QueueUrl": queue, "MaxNumberOfMessages": 1, "WaitTimeSeconds": POLL_S})
        path, kind = "/", "application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.ReceiveMessage"
    else:
        body = f"Action=ReceiveMessage&Version=2012-11-05&MaxNumberOfMessages=1&WaitTimeSeconds={POLL_S}"
        path, kind = path_of(queue), "application/x-www-form-urlencoded"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: {auth}\r\n"
        f"X-Amz-Date: 20260101T000000Z\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def parked(server: Server, seconds: float, tag: str) -> dict[str, float]:
    """What receives that wait cost (memory, processor), and how soon a message wakes one of them. Raises RuntimeError
    when another answer comes than that of a message."""
    out: dict[str, float] = {}
    for count in PARKED[server.name]:
        queue = server.create_queue(f"parked-{tag}-{count}")
        before = server.memory_mb()
        polls = Polls(server, queue)
        try:
            taken = polls.park(count)
            if count == PARKED["preheat"][-1]:
                out[f"receives parked of {count:,}"] = taken
            if taken < count:
                break
            time.sleep(1.0)
            if not polls.quiet():
                raise RuntimeError(f"with {count:,} receives some answered at once: {polls.woken(1)[1][:120]!r}")
            used, began = cpu_s(server), time.perf_counter()
            time.sleep(WATCH_S)
            share = (cpu_s(server) - used) / (time.perf_counter() - began)
            memory = server.memory_mb() - before
            times = [_wake(server, polls, queue) for _ in range(WAKES)]
        finally:
            polls.close()
        name = f"{count:,} parked receives"
        out |= {
            f"{name}, memory MB": memory,
            f"{name}, processor %": 100 * share,
            f"{name}, send to answer p50 ms": statistics.median(times),
            f"{name}, send to answer max ms": max(times),
        }
    return out


def _wake(server: Server, polls: Polls, queue: str) -> float:
    """Milliseconds from before a send to the answer of a parked receive."""
    began = time.perf_counter()
    server.send(queue, "wake")
    at, answer = polls.woken(10)
    if b"wake" not in answer:
        raise RuntimeError(f"the answer holds no message: {answer[:120]!r}")
    return (at - began) * 1_000

"""Environments made in a hurry: the child forked ahead, many copies of one snapshot, the death of what they are made
from. Real processes."""

import json
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from preheat.execution.workers.zygote import NurseryLink
from tests.support.execution_driver import ExecutionDriver, alive

PIDS = "import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return [os.getppid(), os.getpid()]\n"
GREEDY = """
import time
def handler(event, context):
    held = bytearray(b"x") * (40 * 1024 * 1024)
    time.sleep(1.0)
    return len(held)
"""


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def pids(driver: ExecutionDriver, spec) -> tuple[int, int]:
    """Of what the environment was forked from, and its own."""
    parent, own = json.loads(driver.invoke(spec, b"0").payload)
    return parent, own


def published(driver: ExecutionDriver, make, source: str, **options):
    spec = replace(make(source, snap_start=True, **options), version="1")
    prepared = []
    driver.pool.prepare(spec, prepared.append)
    driver.until(lambda: prepared)
    assert prepared[0].error_type is None, prepared
    return spec


@pytest.mark.parametrize("snap_start", [False, True])
def test_the_child_forked_ahead_becomes_the_next_environment(driver, make, snap_start):
    spec = published(driver, make, PIDS) if snap_start else make(PIDS)
    zygote, first = pids(driver, spec)
    driver.until(lambda: len(children(zygote)) == 2)
    (spare,) = children(zygote) - {first}
    busy = driver.start(spec, b"0.5")
    assert pids(driver, spec) == (zygote, spare)
    driver.until(lambda: busy and len(children(zygote)) == 3)
    (last,) = children(zygote) - {first, spare}
    driver.pool.close()
    assert not alive(zygote) and not alive(last)


def test_an_environment_starts_when_the_child_forked_ahead_has_died(driver, make):
    spec = make(PIDS)
    zygote, first = pids(driver, spec)
    driver.until(lambda: len(children(zygote)) == 2)
    (spare,) = children(zygote) - {first}
    os.kill(spare, signal.SIGKILL)
    driver.until(lambda: children(zygote) == {first})
    busy = driver.start(spec, b"0.5")
    assert pids(driver, spec)[1] not in (first, spare)
    driver.until(lambda: busy)


def test_copies_of_a_snapshot_do_not_share_its_memory_limit(driver, make):
    """Until the kernel has moved them into groups of their own they are in the snapshot's. Moving is held up here."""
    groups = driver.pool._factory.housing.groups
    if groups is None:
        pytest.skip("no control groups here")
    spec = published(driver, make, GREEDY, memory_mb=128)
    reached, go_on = threading.Event(), threading.Event()
    groups.later(lambda: (reached.set(), go_on.wait(30)))
    assert reached.wait(10)
    running = [driver.start(spec) for _ in range(5)]
    try:
        driver.until(lambda: all(running))
    finally:
        go_on.set()
    assert [outcomes[0].payload for outcomes in running] == [b"41943040"] * 5


def test_a_zygote_that_dies_with_commands_unread_is_noticed(driver, make):
    spec = make(PIDS)
    zygote, _ = pids(driver, spec)
    driver.until(lambda: len(children(zygote)) == 2)
    os.kill(zygote, signal.SIGSTOP)
    running = [driver.start(spec, b"0.1") for _ in range(4)]
    driver.until(lambda: running[0])
    os.kill(zygote, signal.SIGKILL)
    driver.until(lambda: all(running))
    assert [outcomes[0].error for outcomes in running] == [None] * 4, running


def test_children_of_a_dead_nursery_are_reported_while_its_socket_is_still_held():
    loop = uvloop.new_event_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        link = NurseryLink(loop, ours)
        told = []
        for name in ("1", "2"):
            link.fork(name, {}, [], told.append)
        link.died()
        assert told == [{"down": name, "status": signal.SIGKILL} for name in ("1", "2")]
        assert not link.alive
    loop.close()

"""SnapStart: a process that has initialised a function and stands still, to be forked into environments.

`take` initialises, runs the before-snapshot hooks and serves forks as a nursery. It reports `{"standing": {"threads":
[names]}}` or `{"failed": error type, "document": ...}` on its control socket before anything else. A fork gets an
environment, a /tmp and a random state of its own, runs the after-restore hooks and goes on as any environment.

What a fork cannot keep apart by itself is replaced in it: the descriptors that event loops wait on. Connections are
closed in the snapshot, as they are dead after a restore on AWS. Threads do not survive a fork; on AWS they do.
"""

import contextlib
import gc
import json
import os
import shutil
import socket
import stat
import sys
import threading
from typing import Any

from . import confine, hooks, loop, sandbox
from .handler import describe
from .nursery import Nursery, enter, freeze, reseed

MAX_REPORT = 60_000
REHEARSED = 2
EVENT_POLL = "anon_inode:[eventpoll]"


def take(control: socket.socket, command: dict, libc: Any) -> int:
    """The rest of this process's life; returns its exit status."""
    control.set_inheritable(False)
    try:
        runtime = loop.initialise(command["handler"], command["runtime"])
    except Exception as error:
        return _failed(control, error, None, 1)
    try:
        hooks.before_snapshot()
    except Exception as error:
        return _failed(control, error, hooks.BEFORE_SNAPSHOT_ERROR, hooks.BEFORE_SNAPSHOT_STATUS)
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    _close_connections(control.fileno())
    mould = Mould(control, libc, command, runtime)
    loop.flush()
    freeze()
    control.send(json.dumps({"standing": {"threads": threads}}).encode())
    mould.serve()
    return 0


def _failed(control: socket.socket, error: Exception, error_type: Any, status: int) -> int:
    named, document = describe(error, "")
    loop.log_error(document)
    report = json.dumps({"failed": error_type or named, "document": document})
    if len(report) > MAX_REPORT:
        brief = {**document, "errorMessage": document["errorMessage"][:4096], "stackTrace": []}
        report = json.dumps({"failed": error_type or named, "document": brief})
    with contextlib.suppress(OSError):
        control.send(report.encode())
    return status


class Mould(Nursery):
    """The standing snapshot."""

    def __init__(self, control: socket.socket, libc: Any, command: dict, runtime: Any) -> None:
        super().__init__(control, libc)
        self._runtime = runtime
        self._command = {name: command[name] for name in ("argv", "file_bytes", "memory_bytes")}
        self._scratch = command["scratch"]
        self._collecting = gc.isenabled()
        self._loops = _loop_pipes()
        self._view = command["view"]
        self._prepared = False
        self._spares = True

    def prepare(self) -> None:
        """Also runs the loop over nothing: the pages that this writes to are then this process's own already."""
        entered = sandbox.entered()
        if entered:
            confine.own_tmp(self._libc, self._view["tmp_bytes"], _bring)
        confine.hold(self._libc, self._command, entered)
        _renew_descriptors(self._loops)
        reseed()
        with contextlib.suppress(Exception):
            loop.rehearse(REHEARSED)
        self._prepared = True

    def suits(self, command: dict) -> bool:
        return command["view"] is None or not command["view"]["pins"]

    def child(self, command: dict, descriptors: list) -> int:
        enclosed = confine.enclose_copy(self._libc, command, _bring, self._prepared)
        if not enclosed and command["scratch"]:
            _copy(self._scratch, command["scratch"])
        enter(command["environment"])
        _forget_places()
        if not self._prepared:
            _renew_descriptors(self._loops)
            reseed()
        if self._collecting:
            gc.enable()
        try:
            hooks.after_restore()
        except Exception as error:
            loop.log_error(describe(error, "")[1])
            return hooks.AFTER_RESTORE_STATUS
        finally:
            loop.flush()
        return loop.serve(loop.connect(descriptors[0]), self._runtime)

    def serve(self) -> None:
        gc.disable()
        super().serve()


def _forget_places() -> None:
    """`tempfile` looks for its directory again: this environment's is another one."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile.tempdir = None


def _bring(source: str) -> None:
    _copy(source, sandbox.TMP)


def _copy(source: str, target: str) -> None:
    """What initialisation left in /tmp, unless the environment has it from before a reset."""
    with os.scandir(source) as entries:
        for entry in entries:
            there = os.path.join(target, entry.name)
            if os.path.lexists(there):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.copytree(entry.path, there, symlinks=True)
            elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                shutil.copy2(entry.path, there, follow_symlinks=False)


def _descriptors() -> list:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _close_connections(kept: int) -> None:
    """Shut every TCP connection that initialisation left open: two environments cannot share one."""
    for descriptor in _descriptors():
        try:
            if descriptor == kept or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def _loop_pipes() -> list:
    """The wake-up pipes of asyncio's event loops, as pairs of descriptors."""
    if "asyncio" not in sys.modules:
        return []
    pairs = []
    for value in gc.get_objects():
        reading, writing = getattr(type(value), "_make_self_pipe", None), None
        if reading is None:
            continue
        reading, writing = getattr(value, "_ssock", None), getattr(value, "_csock", None)
        if isinstance(reading, socket.socket) and isinstance(writing, socket.socket) and reading.fileno() >= 0:
            pairs.append((reading.fileno(), writing.fileno()))
    return pairs


def _renew_descriptors(pipes: list) -> None:
    """Give this environment epolls and wake-up pipes of its own under the same numbers."""
    for pair in pipes:
        for made, number in zip(socket.socketpair(), pair):
            made.setblocking(False)
            os.dup2(made.fileno(), number, inheritable=False)
            made.close()
    for number in _descriptors():
        try:
            if os.readlink(f"/proc/self/fd/{number}") == EVENT_POLL:
                _renew_poll(number)
        except OSError:
            continue


def _renew_poll(number: int) -> None:
    import select

    with open(f"/proc/self/fdinfo/{number}") as file:
        watched = [line.split() for line in file if line.startswith("tfd:")]
    poll = select.epoll()
    for fields in watched:
        with contextlib.suppress(OSError):
            poll.register(int(fields[1]), int(fields[3], 16))
    os.dup2(poll.fileno(), number, inheritable=False)
    poll.close()

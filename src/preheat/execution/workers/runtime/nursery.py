"""A single-threaded process that forks others on command; `zygote` and `snapshot` are its two kinds.

Its control socket (SOCK_SEQPACKET) carries JSON messages. To it: `{"fork": id, ...}` with descriptors (the last one
the output pipe), `{"kill": id}`, `{"leave": true}` (end with the last child). From it: `{"up": id, "pid",
"anonymous"}`, `{"down": id, "status"}` with a wait status, `{"refused": id, "error"}`. End of file means that the
server has gone: everything is killed.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from . import confine

PR_SET_CHILD_SUBREAPER = 36
MAX_MESSAGE = 1024 * 1024


class Nursery:
    """Subclasses say what a child does (`child`) and what is done while nothing is asked (`idle_step`)."""

    def __init__(self, control: socket.socket, libc: Any) -> None:
        self._control = control
        self._libc = libc
        self._children: dict = {}
        self._pids: dict = {}
        self._wakeup = os.pipe()
        self._leaving = False
        self._inherited: dict = {}

    def child(self, command: dict, descriptors: list) -> int:
        """Runs in the new process, which ends with this status."""
        raise NotImplementedError

    def idle_step(self) -> bool:
        """Do a little of what can wait; False when there is nothing more."""
        return False

    def serve(self) -> None:
        if self._libc is not None:
            self._libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for end in self._wakeup:
            os.set_blocking(end, False)
        for number, action in ((signal.SIGCHLD, _ignore), (signal.SIGINT, signal.SIG_IGN)):
            self._inherited[number] = signal.signal(number, action)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._wakeup[0], select.POLLIN)
        busy = True
        while not (self._leaving and not self._children):
            ready = dict(poll.poll(0 if busy else None))
            if self._wakeup[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup[0], 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                break
            if not ready and busy:
                busy = self.idle_step()
        self._kill_all()

    def _obey(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 4, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        if not data:
            return False
        command = json.loads(data)
        if "kill" in command:
            pid = self._pids.get(command["kill"])
            if pid is not None:
                _kill_group(pid)
            return True
        if "leave" in command:
            self._leaving = True
            return True
        try:
            self._fork(command, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, command: dict, descriptors: list) -> None:
        name = command["fork"]
        anonymous = _anonymous_bytes()
        parent = os.getpid()
        gc.freeze()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"refused": name, "error": str(error)})
            return
        if pid == 0:
            status = 1
            try:
                if self._stand_alone(descriptors, parent):
                    status = self.child(command, descriptors)
            except BaseException as error:
                status = _exit_status(error)
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                os._exit(status)
        self._children[pid] = name
        self._pids[name] = pid
        self._tell({"up": name, "pid": pid, "anonymous": anonymous})

    def _stand_alone(self, descriptors: list, parent: int) -> bool:
        """In the child: a process group of its own, no descriptor of the nursery's, output into the pipe. False when
        the nursery has died meanwhile."""
        os.setsid()
        confine.die_with_parent(self._libc)
        if os.getppid() != parent:
            return False
        signal.set_wakeup_fd(-1)
        for number, action in self._inherited.items():
            if action is not None:
                signal.signal(number, action)
        for end in (self._control.detach(), *self._wakeup):
            os.close(end)
        output = descriptors[-1]
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        return True

    def _reap(self) -> None:
        """Report the dead; what they had started in their process group goes with them."""
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None:
                return
            name = self._children.pop(dead.si_pid, None)
            if name is not None:
                _kill_group(dead.si_pid)
            _, status, usage = os.wait4(dead.si_pid, 0)
            if name is not None:
                self._pids.pop(name, None)
                self._tell({"down": name, "status": status, "peak": usage.ru_maxrss * 1024})

    def _tell(self, message: dict) -> None:
        with contextlib.suppress(ConnectionError):
            self._control.send(json.dumps(message).encode())

    def _kill_all(self) -> None:
        for pid in self._children:
            _kill_group(pid)
        while self._children:
            with contextlib.suppress(ChildProcessError):
                pid, _ = os.waitpid(-1, 0)
                self._children.pop(pid, None)
                continue
            return


def enter(environment: dict) -> None:
    """Make `environment` the process's whole environment."""
    os.environ.clear()
    os.environ.update(environment)
    import time

    time.tzset()


def reseed() -> None:
    """What two forks of one process must not share. `random` reseeds itself after a fork, OpenSSL and the kernel's
    generator too."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        uuid._last_timestamp = None


def freeze() -> None:
    """Keep the collector away from what exists now, so that children do not copy its pages."""
    gc.collect()
    gc.freeze()


def text_output(descriptor: int) -> Any:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _ignore(number: int, frame: Any) -> None:
    return


def _exit_status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        os.write(2, f"{error.code}\n".encode())
        return 1
    import traceback

    text = "\r".join("".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()) + "\n"
    os.write(2, text.encode(errors="backslashreplace"))
    return 1


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _anonymous_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * resource.getpagesize()
    except OSError:
        return 0

"""A single-threaded process that forks others on command; `zygote` and `snapshot` are its two kinds.

Its control socket (SOCK_SEQPACKET) carries JSON messages. To it: `{"fork": id, ...}` with descriptors (the last one
the output pipe), `{"kill": id, "gently": whether by SIGTERM}`, `{"leave": true}` (end with the last child). From it:
`{"up": id, "pid", "anonymous"}`, `{"down": id, "status"}` with a wait status, `{"refused": id, "error"}`. End of file
means that the server has gone: everything is killed.

While nothing is asked one child is forked ahead, the spare: it does what every child needs (`prepare`), waits for the
next `fork` command and goes on from there. One that nobody needs for some minutes goes; one that dies was the last.
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
from collections.abc import Callable
from typing import Any, NamedTuple

from . import confine
from .logs import SOFT_BREAK

PR_SET_CHILD_SUBREAPER = 36
MAX_MESSAGE = 1024 * 1024
MAX_HANDED = 64 * 1024
"""A command of more bytes than this is not for the spare."""
SPARE_AFTER_MS = 10
SPARE_IDLE_MS = 300_000


class Spare(NamedTuple):
    """A child that waits for its command on the other end of `line`. `anonymous`: the nursery's bytes at its fork."""

    pid: int
    line: socket.socket
    anonymous: int


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
        self._spare: Any = None
        self._spares = False
        self._hopeful = True

    def child(self, command: dict, descriptors: list) -> int:
        """Runs in the new process, which ends with this status."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Runs in a spare before it knows its command."""

    def suits(self, command: dict) -> bool:
        """Whether a process that has prepared itself can become this child."""
        return True

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
            ready = dict(poll.poll(0 if busy else self._patience_ms()))
            if self._wakeup[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup[0], 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                break
            if not ready and busy:
                busy = self.idle_step()
            elif not ready:
                self._fork_ahead()
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
            if pid is not None and command["gently"]:
                os.kill(pid, signal.SIGTERM)
            elif pid is not None:
                _kill_group(pid)
            return True
        if "leave" in command:
            self._leaving = True
            return True
        try:
            if not self._hand_over(command, data, descriptors):
                self._fork(command, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, command: dict, descriptors: list) -> None:
        name = command["fork"]
        anonymous = _anonymous_bytes()
        try:
            pid = self._begin(lambda: self._become(command, descriptors))
        except OSError as error:
            self._tell({"refused": name, "error": str(error)})
            return
        self._born(name, pid, anonymous)

    def _born(self, name: str, pid: int, anonymous: int) -> None:
        self._children[pid] = name
        self._pids[name] = pid
        self._tell({"up": name, "pid": pid, "anonymous": anonymous})

    def _begin(self, life: Callable[[], int]) -> int:
        """The pid of a new process that does `life` and ends with its status. Raises OSError."""
        parent = os.getpid()
        gc.freeze()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            if self._stand_alone(parent):
                status = life()
        except BaseException as error:
            status = _exit_status(error)
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(status)

    def _stand_alone(self, parent: int) -> bool:
        """In the child: a process group of its own, no descriptor of the nursery's. False when the nursery has died
        meanwhile."""
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
        if self._spare is not None:
            self._spare.line.close()
        return True

    def _become(self, command: dict, descriptors: list) -> int:
        """Output into the pipe, then what the command says."""
        for descriptor in descriptors[:-1]:
            os.set_inheritable(descriptor, False)
        output = descriptors[-1]
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        return self.child(command, descriptors)

    # -- the spare --------------------------------------------------------------------------------------------------

    def _patience_ms(self) -> Any:
        """How long the quiet lasts before `_fork_ahead`; None: for ever."""
        if not self._spares or self._leaving:
            return None
        return SPARE_AFTER_MS if self._spare is None else SPARE_IDLE_MS

    def _fork_ahead(self) -> None:
        """Make the spare, or let go of one that has waited too long."""
        if self._spare is not None:
            self._spares = False
            self._dismiss()
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        anonymous = _anonymous_bytes()

        def wait() -> int:
            ours.close()
            self.prepare()
            data, descriptors, _, _ = socket.recv_fds(theirs, MAX_HANDED, 4, socket.MSG_CMSG_CLOEXEC)
            theirs.close()
            return self._become(json.loads(data), descriptors) if data else 0

        try:
            self._spare = Spare(self._begin(wait), ours, anonymous)
        except OSError:
            self._spares = False
            ours.close()
        theirs.close()

    def _hand_over(self, command: dict, data: bytes, descriptors: list) -> bool:
        """Have the spare become the child, if there is one that can."""
        spare = self._spare
        suits = len(data) <= MAX_HANDED and self.suits(command)
        self._spares = self._spares or (suits and self._hopeful)
        if spare is None or not suits:
            return False
        try:
            socket.send_fds(spare.line, [data], descriptors)
        except OSError:
            return False
        self._spare = None
        spare.line.close()
        self._born(command["fork"], spare.pid, spare.anonymous)
        return True

    def _dismiss(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.line.close()
            _kill_group(spare.pid)

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
            elif self._spare is not None and self._spare.pid == dead.si_pid:
                self._spares = self._hopeful = False
                self._dismiss()
            _, status, usage = os.wait4(dead.si_pid, 0)
            if name is not None:
                self._pids.pop(name, None)
                self._tell({"down": name, "status": status, "peak": usage.ru_maxrss * 1024})

    def _tell(self, message: dict) -> None:
        with contextlib.suppress(ConnectionError):
            self._control.send(json.dumps(message).encode())

    def _kill_all(self) -> None:
        """Every child, and what they had started: orphans become children of this process."""
        if self._spare is not None:
            self._children[self._spare.pid] = ""
            self._dismiss()
        while left := {*self._children, *_offspring()}:
            for pid in left:
                _kill_group(pid)
            for pid in left:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            self._children.clear()


def enter(environment: dict) -> None:
    """Make `environment` the process's whole environment; what is in it already is left alone."""
    present = dict(os.environ)
    for name in present.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if present.get(name) != value:
            os.environ[name] = value
    if present.get("TZ") != environment.get("TZ"):
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

    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()
    os.write(2, f"{SOFT_BREAK.join(lines)}\n".encode(errors="backslashreplace"))
    return 1


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _offspring() -> list:
    """The pids of this single-threaded process's children."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _anonymous_bytes() -> int:
    try:
        with open("/proc/self/statm") as file:
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * resource.getpagesize()
    except OSError:
        return 0

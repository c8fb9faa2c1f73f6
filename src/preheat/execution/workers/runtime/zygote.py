"""The zygote: a warmed, single-threaded interpreter that forks environments on command.

Its control socket (SOCK_SEQPACKET) carries JSON messages. To the zygote: `{"fork": id, ...}`
with descriptors (the runtime's socket for Python, then the output pipe), `{"kill": id}`. From it: `{"up": id, "pid",
"anonymous"}`, `{"down": id, "status"}` with a wait status, `{"refused": id, "error"}`. End of file means that the
server has gone: everything is killed. What is preloaded is imported step by step between commands, so the first
environment does not wait for boto3.

Memory is watched from outside (the server samples /proc); RLIMIT_AS with generous slack only protects the machine from
a single mad allocation.
"""

import contextlib
import gc
import importlib
import importlib.machinery
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from . import confine, loop
from .client import RuntimeClient

PR_SET_CHILD_SUBREAPER = 36
MAX_MESSAGE = 1024 * 1024
WARM_CLIENTS = ("s3", "sqs", "dynamodb", "s3vectors", "bedrock-runtime")
MODULES = ("asyncio", "base64", "datetime", "hashlib", "uuid", "dataclasses", "http.client", "ssl", "boto3",
           "s3transfer.manager", "botocore.httpsession", "botocore.signers", "numpy")  # fmt: skip


class Zygote:
    """`settings`: "root" (a directory whose package `preheat` is nobody's business), "site" (directories appended to
    sys.path), "preload" (whether to import boto3 and numpy)."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self._control = control
        self._children: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        self._libc = confine.libc()
        self._roots = (sys.prefix, sys.base_prefix, os.path.dirname(__file__), *settings["site"])
        self._hidden = Hidden(settings["root"])
        self._wakeup_read, self._wakeup_write = os.pipe()
        self._steps: list[Callable[[], None]] = []
        if settings["preload"]:
            self._steps = [lambda name=name: _import(name) for name in MODULES]
            self._steps += [_share_models, *(lambda name=name: _make_client(name) for name in WARM_CLIENTS), _settle]

    def serve(self) -> None:
        confine.die_with_parent(self._libc)
        if self._libc is not None:
            self._libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for end in (self._wakeup_read, self._wakeup_write):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        gc.disable()
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._wakeup_read, select.POLLIN)
        while True:
            ready = dict(poll.poll(0 if self._steps else None))
            if self._wakeup_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup_read, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                break
            if not ready and self._steps:
                step = self._steps.pop(0)
                with contextlib.suppress(Exception):
                    step()
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
        try:
            self._fork(command, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, command: dict[str, Any], descriptors: list[int]) -> None:
        name = command["fork"]
        anonymous = _anonymous_bytes()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"refused": name, "error": str(error)})
            return
        if pid == 0:
            status = 1
            try:
                status = self._child(command, descriptors, parent)
            except BaseException as error:
                status = _exit_status(error)
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                os._exit(status)
        self._children[pid] = name
        self._pids[name] = pid
        self._tell({"up": name, "pid": pid, "anonymous": anonymous})

    def _child(self, command: dict[str, Any], descriptors: list[int], parent: int) -> int:
        os.setsid()
        confine.die_with_parent(self._libc)
        if os.getppid() != parent:
            return 1
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for end in (self._control.detach(), self._wakeup_read, self._wakeup_write):
            os.close(end)
        output = descriptors[-1]
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        confine.limit(command)
        environment = command["environment"]
        if confine.private_tmp(self._libc, command["scratch"], (command["directory"], *command["path"], *self._roots)):
            environment.pop("TMPDIR", None)
            confine.die_with_parent(self._libc)
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        os.chdir(command["directory"])
        if command["argv"] is not None:
            try:
                os.execve(command["argv"][0], command["argv"], environment)
            except OSError as error:
                os.write(2, f"{command['argv'][0]}: {error.strerror}\n".encode())
                return 126
        return self._python(command, descriptors[0])

    def _python(self, command: dict[str, Any], descriptor: int) -> int:
        sys.stdout = sys.__stdout__ = _text_output(1)
        sys.stderr = sys.__stderr__ = _text_output(2)
        sys.path[:0] = command["path"]
        sys.argv = [command["handler"]]
        sys.dont_write_bytecode = command["fresh"]
        sys.meta_path.insert(0, self._hidden)
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed()
        gc.enable()
        connection = socket.socket(fileno=descriptor)
        return loop.run(RuntimeClient(connection, pipelined=True), command["handler"], command["runtime"])

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
            _, status = os.waitpid(dead.si_pid, 0)
            if name is not None:
                self._pids.pop(name, None)
                self._tell({"down": name, "status": status})

    def _tell(self, message: dict[str, Any]) -> None:
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


class Hidden:
    """A finder that keeps Preheat's own package out of functions; a package `preheat` of their own is found."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "preheat":
            return None
        elsewhere = [entry for entry in sys.path if os.path.realpath(entry) != self._root]
        spec = importlib.machinery.PathFinder.find_spec(name, elsewhere)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec


def _text_output(descriptor: int) -> Any:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _exit_status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        if isinstance(error.code, int):
            return error.code & 0xFF
        os.write(2, f"{error.code}\n".encode())
        return 1
    import traceback

    text = "\r".join("".join(traceback.format_exception(error)).splitlines()) + "\n"
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


def _import(name: str) -> None:
    importlib.import_module(name)


def _share_models() -> None:
    """All botocore sessions of a process read its service models through one loader, whose cache is warm."""
    import botocore.loaders
    import botocore.session

    create = botocore.loaders.create_loader
    shared = create(None)
    botocore.session.create_loader = lambda search_path_string=None: (
        shared if search_path_string is None else create(search_path_string)
    )


def _make_client(name: str) -> None:
    import boto3

    session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1")
    session.client(name, endpoint_url="http://127.0.0.1:9")


def _settle() -> None:
    gc.collect()
    gc.freeze()


def main(descriptor: int, settings: str) -> None:
    """`settings` is JSON; see `Zygote`."""
    values = json.loads(settings)
    sys.path += values["site"]
    Zygote(socket.socket(fileno=descriptor), values).serve()

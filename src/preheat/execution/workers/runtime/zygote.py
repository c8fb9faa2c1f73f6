"""The zygote: a warmed, single-threaded interpreter that forks environments on command.

A `fork` command comes with the runtime's socket (for Python) or, with "snapshot", the control socket of the snapshot
that is to be made, then the output pipe. What is preloaded is imported step by step between commands, so the first
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
import socket
import sys
from typing import Any

from . import confine, hooks, loop, sandbox, snapshot
from .nursery import Nursery, enter, freeze, reseed, text_output

WARM_CLIENTS = ("s3", "sqs", "dynamodb", "s3vectors", "bedrock-runtime")
MODULES = ("asyncio", "base64", "datetime", "hashlib", "uuid", "dataclasses", "http.client", "ssl", "boto3",
           "s3transfer.manager", "botocore.httpsession", "botocore.signers", "numpy")  # fmt: skip


class Zygote(Nursery):
    """`settings`: "root" (a directory whose package `preheat` is nobody's business), "site" (directories appended to
    sys.path), "roots" (further directories that functions may see), "bundle" (top-level names that alone are found in
    "lent", directories of another Python's packages), "preload" (whether to import boto3 and numpy)."""

    def __init__(self, control: socket.socket, settings: dict) -> None:
        super().__init__(control, confine.libc())
        roots = (sys.prefix, sys.base_prefix, os.path.dirname(__file__), *settings["site"], *settings["lent"])
        self._ground = sandbox.Ground((*roots, *settings["roots"]))
        self._hidden = Hidden(settings["root"])
        self._laid = False
        self._steps: list = []
        if settings["preload"]:
            self._steps = [lambda name=name: importlib.import_module(name) for name in MODULES]
            self._steps += [_share_models, *(lambda name=name: _make_client(name) for name in WARM_CLIENTS)]
        self._steps += [loop.rehearse, freeze]

    def serve(self) -> None:
        gc.disable()
        super().serve()

    def idle_step(self) -> bool:
        if self._steps:
            step = self._steps.pop(0)
            with contextlib.suppress(Exception):
                step()
        return bool(self._steps)

    def prepare(self) -> None:
        self._laid = confine.lay(self._libc, self._ground)

    def suits(self, command: dict) -> bool:
        view = command["view"]
        foreign = command["argv"] is not None or command["fresh"]
        return view is not None and not view["pins"] and not view["roots"] and not foreign

    def child(self, command: dict, descriptors: list) -> int:
        confine.enclose(self._libc, command, self._ground, self._laid)
        environment = command["environment"]
        enter(environment)
        os.chdir(command["directory"])
        if command["argv"] is not None:
            try:
                os.execve(command["argv"][0], command["argv"], environment)
            except OSError as error:
                os.write(2, f"{command['argv'][0]}: {error.strerror}\n".encode())
                return 126
        return self._python(command, descriptors[0])

    def _python(self, command: dict, descriptor: int) -> int:
        sys.stdout = sys.__stdout__ = text_output(1)
        sys.stderr = sys.__stderr__ = text_output(2)
        sys.path[:0] = command["path"]
        sys.argv = [command["handler"]]
        sys.dont_write_bytecode = command["fresh"]
        sys.meta_path.insert(0, self._hidden)
        sys.meta_path.append(hooks.Finder())
        reseed()
        gc.enable()
        if command["snapshot"]:
            return snapshot.take(socket.socket(fileno=descriptor), command, self._libc)
        return loop.run(loop.connect(descriptor), command["handler"], command["runtime"])


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


class Bundle:
    """The last finder of a foreign interpreter: `names` and nothing else, in directories of another Python's packages
    (AWS's SDK, which every Python runtime of Lambda brings, is pure Python)."""

    def __init__(self, names: list, directories: list) -> None:
        self._names = frozenset(names)
        self._directories = directories

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self._names:
            return None
        return importlib.machinery.PathFinder.find_spec(name, self._directories)


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


def main(descriptor: int, settings: str) -> None:
    """`settings` is JSON; see `Zygote`."""
    values = json.loads(settings)
    sys.path += values["site"]
    if values["lent"]:
        sys.meta_path.append(Bundle(values["bundle"], values["lent"]))
    Zygote(socket.socket(fileno=descriptor), values).serve()

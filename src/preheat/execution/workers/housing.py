"""Where processes live: the view of the machine that each gets, its control group, and what outlives it.

`Housing` belongs to the factory; a `Stay` is one process's. An environment's mount namespace is held open here between
its processes, so that its /tmp survives a reset; `Housing.forget` lets go of it.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from preheat.execution.watch import IGNORED
from preheat.execution.workers import groups
from preheat.execution.workers.bubblewrap import wrap
from preheat.execution.workers.contract import WorkerPlan
from preheat.execution.workers.interpreters import Interpreters
from preheat.execution.workers.runtimes import Launch, plan_launch

PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1024 * 1024
COUNTING_S = 0.05
LINK_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Choices:
    """`sandbox`: "auto" gives every function a view of its own where the kernel allows it, "bwrap" starts it below
    bubblewrap with process ids of its own too, "off" leaves it with the machine as it is. `interpreters`: directories
    to search first. `cpu_share`: "memory" holds a function to the processor time of its memory size, "whole" does not,
    "auto" does where version 2 of control groups is Preheat's to use."""

    sandbox: Literal["auto", "off", "bwrap"] = "auto"
    interpreters: tuple[Path, ...] = ()
    cpu_share: Literal["auto", "memory", "whole"] = "auto"


class Housing:
    def __init__(self, choices: Choices | None = None) -> None:
        self.choices = choices or Choices()
        self.interpreters = Interpreters(self.choices.interpreters)
        self._groups: groups.Groups | None = None
        self._looked = False
        self._pins: dict[Path, tuple[int, int]] = {}

    @property
    def groups(self) -> groups.Groups | None:
        if not self._looked:
            self._looked = True
            self._groups = groups.find()
        return self._groups

    @property
    def shares_processor(self) -> bool:
        made = self.groups
        if made is None or "cpu" not in made.controllers or self.choices.cpu_share == "whole":
            return False
        return self.choices.cpu_share == "memory" or made.version == 2

    def launch(self, plan: WorkerPlan, tools: Path | None) -> Launch:
        """How to start the function's process. Raises Unstartable."""
        launch = plan_launch(plan.spec, tools, self.interpreters)
        return wrap(plan, launch) if self.choices.sandbox == "bwrap" else launch

    def view(self, plan: WorkerPlan, launch: Launch) -> dict[str, Any] | None:
        """What `runtime/sandbox.enter` is told."""
        if self.choices.sandbox == "off" or plan.scratch is None or launch.enclosed:
            return None
        spec = plan.spec
        pins = self._pins.get(plan.scratch)
        return {
            "code": str(spec.code),
            "layers": [str(layer) for layer in spec.layers],
            "roots": [*launch.roots, *(_links(str(spec.code)) if spec.watch else ())],
            "tmp_bytes": spec.ephemeral_mb * MIB,
            "pins": [os.getpid(), *pins] if pins else None,
        }

    def pin(self, scratch: Path, pid: int) -> None:
        """Keep the namespaces of `pid`, the first process of the environment whose /tmp is `scratch`."""
        if scratch in self._pins:
            return
        mounts = _namespace(pid, "mnt")
        if mounts < 0:
            return
        if os.fstat(mounts).st_ino == os.stat("/proc/self/ns/mnt").st_ino:
            os.close(mounts)
            return
        user = _namespace(pid, "user")
        if user >= 0 and os.fstat(user).st_ino == os.stat("/proc/self/ns/user").st_ino:
            os.close(user)
            user = -1
        self._pins[scratch] = (user, mounts)

    def mounts(self, scratch: Path | None) -> int | None:
        """The number of the environment's mount namespace, when it is held."""
        pins = None if scratch is None else self._pins.get(scratch)
        return None if pins is None else os.fstat(pins[1]).st_ino

    def forget(self, scratch: Path) -> None:
        """The environment is over: its /tmp goes."""
        for pin in self._pins.pop(scratch, ()):
            if pin >= 0:
                os.close(pin)
        if self.choices.sandbox == "bwrap":
            shutil.rmtree(f"{scratch}.opt", ignore_errors=True)

    def close(self) -> None:
        for scratch in list(self._pins):
            self.forget(scratch)
        if self._groups is not None:
            self._groups.close()


class Stay:
    """One process, from its fork to its end. `name` is unique within the factory."""

    def __init__(self, housing: Housing, plan: WorkerPlan, launch: Launch, name: str) -> None:
        self._housing = housing
        self._plan = plan
        self._name = name
        self.view = housing.view(plan, launch)
        self._pid = 0
        self._parent = 0
        self._group: groups.Group | None = None
        self._counted_at = 0.0
        self._others = 0

    def begin(self, pid: int) -> None:
        """The process exists."""
        self._pid = pid
        self._parent = _parent(pid)
        made, spec = self._housing.groups, self._plan.spec
        if made is not None:
            tmp = spec.ephemeral_mb if self.view is not None else 0
            self._group = made.add(self._name, pid, groups.Limits((spec.memory_mb + tmp) * MIB))

    def initialised(self) -> None:
        """It is ready for the first time, or about to be killed: its namespaces are complete."""
        if self._pid and self.view is not None and self._plan.scratch is not None:
            self._housing.pin(self._plan.scratch, self._pid)

    def settle(self) -> None:
        """Initialisation, which has whole processors on AWS too, is over."""
        if self._group is not None and self._housing.shares_processor:
            self._group.share_processor(self._plan.spec.memory_mb)

    def others_bytes(self, anonymous: int, now: float) -> int:
        """Memory of what the process has started, counted at most 20 times a second. `anonymous`: its own since the
        fork; `now` in seconds."""
        if now - self._counted_at >= COUNTING_S and self._pid:
            self._counted_at = now
            held = self._group.anonymous_bytes() if self._group is not None else 0
            below = sum(_anonymous(pid) for pid in descendants(self._pid))
            self._others = max(below, held - anonymous)
        return max(0, self._others)

    def end(self) -> bool:
        """It has died: what it had started goes too. True when it was killed for want of memory."""
        for pid in self._left():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self._group is None:
            return False
        killed = self._group.out_of_memory()
        self._group.remove()
        self._group = None
        return killed

    def _left(self) -> Iterator[int]:
        """Processes of this environment that have outlived the first: in its group, or come to its parent as orphans
        out of its namespace."""
        if self._group is not None:
            yield from self._group.processes()
        own = self._housing.mounts(self._plan.scratch)
        if own is None or not self._parent:
            return
        for orphan in _children(self._parent):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{orphan}/ns/mnt").st_ino == own:
                    yield from descendants(orphan)
                    yield orphan


def descendants(pid: int) -> list[int]:
    """Every process below `pid`."""
    found = []
    for child in _children(pid):
        found.append(child)
        found += descendants(child)
    return found


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _anonymous(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _namespace(pid: int, kind: str) -> int:
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _links(code: str, depth: int = LINK_DEPTH) -> list[str]:
    """Where the links in a directory under edit lead to, when that is outside of it."""
    found: list[str] = []
    with contextlib.suppress(OSError), os.scandir(code) as entries:
        for entry in entries:
            if entry.is_symlink():
                found.append(os.path.realpath(entry.path))
            elif depth > 1 and entry.is_dir() and entry.name not in IGNORED:
                found += _links(entry.path, depth - 1)
    return found

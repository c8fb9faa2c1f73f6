"""Where processes live: the view of the machine that each gets, its control group, and what outlives it.

`Housing` belongs to the factory; a `Stay` is one process's. An environment's mount namespace is held open here between
its processes, so that its /tmp survives a reset; `Housing.forget` lets go of it.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from preheat.execution.watch import IGNORED
from preheat.execution.workers import groups
from preheat.execution.workers.bubblewrap import wrap
from preheat.execution.workers.contract import WorkerPlan
from preheat.execution.workers.interpreters import Interpreters
from preheat.execution.workers.runtime import sandbox
from preheat.execution.workers.runtimes import Launch, plan_launch

PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1024 * 1024
COUNTING_S = 0.05
COUNTING_LONGEST_S = 0.4
STILL_BYTES = 256 * 1024
LINK_DEPTH = 3
PROC_BYTES = 65_536
NO_VIEW = (
    "the kernel gives functions no view of their own here (mount and user namespaces are refused): they see this "
    "machine's files, their code can be written, and their /tmp is a directory that TMPDIR names"
)


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
        self.tell: Callable[[str], None] = lambda text: None
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
            "trust": str(plan.trust or ""),
            "roots": sandbox.outermost([*launch.roots, *(_links(str(spec.code)) if spec.watch else ())]),
            "tmp_bytes": spec.ephemeral_mb * MIB,
            "pins": [os.getpid(), *pins] if pins else None,
        }

    def pin(self, scratch: Path, pid: int, ready: bool) -> None:
        """Keep the namespaces of `pid`, the first process of the environment whose /tmp is `scratch`. `ready`: it has
        had the time to make them."""
        if scratch in self._pins:
            return
        mounts = _namespace(pid, "mnt")
        if mounts < 0:
            return
        if os.fstat(mounts).st_ino == os.stat("/proc/self/ns/mnt").st_ino:
            os.close(mounts)
            if ready:
                self.tell(NO_VIEW)
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
            Path(f"{scratch}.hosts").unlink(missing_ok=True)

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
        self._launch = launch
        self._name = name
        self.view = housing.view(plan, launch)
        self._pid = 0
        self._first = 0
        self._beside: list[int] = []
        self._parent = 0
        self._group: groups.Group | None = None
        self._count_at = 0.0
        self._pause_s = COUNTING_S
        self._held = 0
        self._others = 0

    def begin(self, pid: int, beside: bool = False) -> None:
        """The process exists, or one beside it (an extension's)."""
        if beside:
            self._beside.append(pid)
        else:
            self._pid = pid
        self._first = self._first or pid
        self._parent = _parent(pid)
        made, spec = self._housing.groups, self._plan.spec
        if self._group is not None:
            self._group.take_in(pid)
        elif made is not None:
            tmp = spec.ephemeral_mb if self.view is not None else 0
            self._group = made.add(self._name, pid, groups.Limits((spec.memory_mb + tmp) * MIB))

    def open(self) -> None:
        """The namespaces of the first process are complete: further ones join them."""
        self.initialised()
        self.view = self._housing.view(self._plan, self._launch)

    def initialised(self, ready: bool = False) -> None:
        """It is `ready` for the first time, or about to be killed: its namespaces are complete."""
        if self._first and self.view is not None and self._plan.scratch is not None:
            self._housing.pin(self._plan.scratch, self._first, ready)

    def stand(self) -> None:
        """It is a snapshot that stands. What is forked from it begins in its group, and the first memory of each stays
        charged to it, so its limits would be those of all copies together."""
        if self._group is not None:
            self._group.lift()

    def settle(self) -> None:
        """Initialisation, which has whole processors on AWS too, is over."""
        if self._group is not None and self._housing.shares_processor:
            self._group.share_processor(self._plan.spec.memory_mb)

    def others_bytes(self, anonymous: int, now: float) -> int:
        """Memory of what the process has started, counted at most 20 times a second, and less and less often while
        the group, which the kernel watches, stays as it is. `anonymous`: its own since the fork; `now` in seconds."""
        if now >= self._count_at and self._pid:
            held = self._group.anonymous_bytes() if self._group is not None else 0
            still = held > 0 and abs(held - self._held) < STILL_BYTES
            self._pause_s = min(COUNTING_LONGEST_S, self._pause_s * 2.0) if still else COUNTING_S
            self._count_at, self._held = now + self._pause_s, held
            below = sum(_anonymous(pid) for pid in descendants(self._pid))
            for beside in self._beside:
                below += _anonymous(beside) + sum(_anonymous(pid) for pid in descendants(beside))
            self._others = max(below, held - anonymous)
        return max(0, self._others)

    @property
    def starved(self) -> bool:
        """Whether the kernel has killed in it for want of memory."""
        return self._group is not None and self._group.out_of_memory()

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
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _parent(pid: int) -> int:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _anonymous(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return (int(fields[1]) - int(fields[2])) * PAGE if fields else 0


def _read(path: str) -> bytes:
    """A small file of /proc; nothing when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, PROC_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


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

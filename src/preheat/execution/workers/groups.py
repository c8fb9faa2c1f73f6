"""Control groups: the kernel's own hand on the memory, the processes and the processor share of an environment.

A group holds a process and all that it starts. Both versions of the kernel's interface are spoken: version 2 where
Preheat's own group is delegated to it (`systemd-run --user --scope -p Delegate=yes`, a container that owns its groups),
version 1 where its hierarchies are writable. Where neither is so there are no groups, and what they would do is
approximated or not done; `execution/README.md` says which.

Moving a process into a group waits for the kernel's grace period (up to some 20 ms for the first of several), so a
thread of this module's own does it: a function runs a few milliseconds before its group holds it. After
https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/.
"""

import contextlib
import itertools
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MAX_PROCESSES = 1024
PERIOD_US = 100_000
MB_PER_CPU = 1769
"""Memory at which a function has one whole processor (AWS's figure)."""
LEAST_QUOTA_US = 1_000
PREFIX = "preheat-"
CONTROLLERS = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_bytes`: where the kernel kills; `cpu_mb`: the memory size whose processor share applies, None for no
    limit."""

    memory_bytes: int
    cpu_mb: int | None = None


class Group:
    """One environment process's group. Until the process has been moved in it reads as empty."""

    def __init__(self, owner: "Groups", name: str) -> None:
        self._owner = owner
        self._folders = owner.folders(name)
        self._stat = -1

    def anonymous_bytes(self) -> int:
        """Memory that belongs to the processes alone: no page cache, no files in /tmp. 0 when unknown."""
        folder = self._folders.get("memory")
        if folder is None:
            return 0
        try:
            if self._stat < 0:
                self._stat = os.open(folder / "memory.stat", os.O_RDONLY | os.O_CLOEXEC)
            text = os.pread(self._stat, 8192, 0)
        except OSError:
            return 0
        key = b"anon " if self._owner.version == 2 else b"total_rss "
        start = text.find(key)
        while start > 0 and text[start - 1 : start] != b"\n":
            start = text.find(key, start + 1)
        return 0 if start < 0 else int(text[start + len(key) :].partition(b"\n")[0])

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed in this group for want of memory."""
        folder = self._folders.get("memory")
        name = "memory.events" if self._owner.version == 2 else "memory.oom_control"
        try:
            text = (folder / name).read_text() if folder is not None else ""
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in text.splitlines())

    def processes(self) -> list[int]:
        for folder in self._folders.values():
            with contextlib.suppress(OSError):
                return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        return []

    def take_in(self, pid: int) -> None:
        """A further process of the same environment."""
        self._owner.later(lambda: self._take_in(pid))

    def _take_in(self, pid: int) -> None:
        for folder in dict.fromkeys(self._folders.values()):
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").write_text(str(pid))

    def share_processor(self, memory_mb: int) -> None:
        """From now on, the processor time that goes with this memory size."""
        self._owner.later(lambda: self._share(memory_mb))

    def _share(self, memory_mb: int) -> None:
        folder = self._folders.get("cpu")
        if folder is None:
            return
        quota = max(LEAST_QUOTA_US, PERIOD_US * memory_mb // MB_PER_CPU)
        with contextlib.suppress(OSError):
            if self._owner.version == 2:
                (folder / "cpu.max").write_text(f"{quota} {PERIOD_US}")
            else:
                (folder / "cpu.cfs_quota_us").write_text(str(quota))

    def lift(self) -> None:
        """From now on it limits nothing."""
        self._owner.later(self._lift)

    def _lift(self) -> None:
        second = self._owner.version == 2
        limits = {
            "memory": ("memory.max", "max") if second else ("memory.limit_in_bytes", "-1"),
            "pids": ("pids.max", "max"),
        }
        for controller, (name, value) in limits.items():
            if controller in self._folders:
                with contextlib.suppress(OSError):
                    (self._folders[controller] / name).write_text(value)

    def remove(self) -> None:
        """When its processes have died."""
        if self._stat >= 0:
            os.close(self._stat)
            self._stat = -1
        self._owner.later(self._remove)

    def _remove(self) -> None:
        for folder in set(self._folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()


class Groups:
    """`version` 1 or 2; `bases`: by controller, the directory below which groups are made."""

    def __init__(self, version: int, bases: dict[str, Path]) -> None:
        self.version = version
        self._bases = bases
        self._work: deque = deque()
        self._some = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    @property
    def controllers(self) -> tuple[str, ...]:
        return tuple(self._bases)

    def folders(self, name: str) -> dict[str, Path]:
        return {controller: base / name for controller, base in self._bases.items()}

    def add(self, name: str, pid: int, limits: Limits) -> Group:
        """A group for `pid`, made and joined in the background."""
        group = Group(self, name)
        self.later(lambda: self._make(self.folders(name), pid, limits))
        return group

    def later(self, work: object) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="control-groups", daemon=True)
            self._thread.start()
        self._work.append(work)
        self._some.release()

    def close(self) -> None:
        """Finish what was asked for, then take the directories away."""
        if self._thread is not None:
            self.later(None)
            self._thread.join(5.0)
        for base in set(self._bases.values()):
            with contextlib.suppress(OSError):
                for entry in base.iterdir():
                    if entry.is_dir():
                        with contextlib.suppress(OSError):
                            entry.rmdir()
                base.rmdir()

    def _run(self) -> None:
        while True:
            self._some.acquire()
            work = self._work.popleft()
            if work is None:
                return
            with contextlib.suppress(OSError):
                work()

    def _make(self, folders: dict[str, Path], pid: int, limits: Limits) -> None:
        for controller, folder in folders.items():
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                self._limit(controller, folder, limits)
        for folder in dict.fromkeys(folders.values()):
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").write_text(str(pid))

    def _limit(self, controller: str, folder: Path, limits: Limits) -> None:
        second = self.version == 2
        if controller == "memory":
            (folder / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limits.memory_bytes))
            with contextlib.suppress(OSError):
                (folder / ("memory.swap.max" if second else "memory.swappiness")).write_text("0")
            if second:
                (folder / "memory.oom.group").write_text("1")
        elif controller == "pids":
            (folder / "pids.max").write_text(str(MAX_PROCESSES))


def find(own: str | None = None, mount: Path = MOUNT) -> Groups | None:
    """The groups that this process may make below its own, or None. `own` is the text of /proc/self/cgroup."""
    try:
        text = Path("/proc/self/cgroup").read_text() if own is None else own
    except OSError:
        return None
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    return _first_version(paths, mount) or _second_version(paths.get(""), mount)


def _first_version(paths: dict[str, str], mount: Path) -> Groups | None:
    bases = {}
    for controller in CONTROLLERS:
        folder = mount / controller / paths.get(controller, "").lstrip("/")
        if controller in paths and os.access(folder / "cgroup.procs", os.W_OK):
            with contextlib.suppress(OSError):
                base = _fresh(folder)
                if controller == "memory":
                    with contextlib.suppress(OSError):
                        (base / "memory.use_hierarchy").write_text("1")
                bases[controller] = base
    return Groups(1, bases) if "memory" in bases else None


def _second_version(path: str | None, mount: Path) -> Groups | None:
    if path is None:
        return None
    own = mount / path.lstrip("/")
    try:
        offered = (own / "cgroup.controllers").read_text().split()
        inhabitants = [int(pid) for pid in (own / "cgroup.procs").read_text().split()]
        if "memory" not in offered or not os.access(own / "cgroup.procs", os.W_OK) or set(inhabitants) != {os.getpid()}:
            return None
        ours = own / f"{PREFIX}{os.getpid()}-server"
        ours.mkdir(exist_ok=True)
        (ours / "cgroup.procs").write_text(str(os.getpid()))
        for controller in CONTROLLERS:
            if controller in offered:
                (own / "cgroup.subtree_control").write_text(f"+{controller}")
        base = _fresh(own)
        for controller in CONTROLLERS:
            if controller in offered:
                (base / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError:
        return None
    return Groups(2, {controller: base for controller in CONTROLLERS if controller in offered})


def _fresh(folder: Path) -> Path:
    """A directory of this process's own in `folder`; what killed servers have left there goes."""
    for left in folder.glob(f"{PREFIX}*"):
        if not os.path.exists(f"/proc/{left.name.removeprefix(PREFIX).partition('-')[0]}"):
            for group in (*left.glob("*/"), left):
                with contextlib.suppress(OSError):
                    group.rmdir()
    for number in itertools.count():
        base = folder / f"{PREFIX}{os.getpid()}-{number}"
        with contextlib.suppress(FileExistsError):
            base.mkdir()
            return base
    raise AssertionError

"""The view that a function's process has of the machine: AWS's directories and nothing of anybody else's.

In a mount namespace of its own the process gets a new root: `/var/task` (the code) and `/opt` (the layers, merged),
the system's own directories and the interpreter, all read-only, and `/tmp`, a tmpfs of the configured size. The home
directory, Preheat's state and other functions' code are not in it. The namespace is the environment's: a process that
follows a timeout or a crash joins it and finds the old /tmp.

Without privilege, and for programs of others, the namespace belongs to a user namespace of its own, which also keeps
the functions out of each other's /proc entries. Layout and calls after mount_namespaces(7), user_namespaces(7),
pivot_root(2), mount_setattr(2). Runs on Python 3.9 and later; standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
AT_RECURSIVE = 0x8000
AT_FDCWD = -100
SYS_MOUNT_SETATTR = 442
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
KEPT_CAPABILITIES = (0, 1, 2, 3, 4, 5, 6, 7, 10)
"""CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE."""
CAPABILITY_VERSION = 0x20080522

TASK = "/var/task"
OPT = "/opt"
TMP = "/tmp"
RUNTIME = "/var/runtime"
SYSTEM = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix")
DEVICES = ("null", "zero", "full", "random", "urandom")
OLD = "/.old"
HOSTS = "/etc/hosts"
HOSTS_HERE = "/var/hosts"
NAMES = b"\n127.0.0.1 sandbox.localdomain sandbox\n"
TRUST = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
LISTS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "NODE_PATH", "LAMBDA_TASK_ROOT", "PWD", "TMPDIR", "HOME", *TRUST)


class Refused(Exception):
    """The kernel does not allow it here."""


class Incomplete(Exception):
    """The kernel has refused when the old view was gone already."""


class Ground:
    """What every view of one interpreter has in common, found out once: `links` (path, target), `binds`."""

    def __init__(self, roots: tuple) -> None:
        there = [directory for directory in SYSTEM if os.path.isdir(directory)]
        self.links = [(directory, os.readlink(directory)) for directory in there if os.path.islink(directory)]
        self.binds = [directory for directory in there if not os.path.islink(directory)]
        self.roots = outermost([*roots, *resolver()])

    def shared(self) -> list:
        """The roots that do not lie where a function has directories of its own."""
        return [root for root in self.roots if not root.startswith((TMP + "/", OPT + "/"))]


def lay(libc: Any, ground: Ground, own_user: bool) -> None:
    """A namespace with the part of the view that is the same for all functions; `enter` does the rest. Raises Refused,
    with nothing changed that matters, and Incomplete."""
    _unshare(libc, own_user)
    _mount(libc, "tmpfs", TMP, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    os.mkdir(TMP + OLD)
    if libc.pivot_root(os.fsencode(TMP), os.fsencode(TMP + OLD)) != 0:
        refused = _refused("pivot_root")
        libc.umount2(os.fsencode(TMP), MNT_DETACH)
        raise refused
    try:
        _lay(libc, ground)
    except Refused as error:
        raise Incomplete(str(error)) from error


def enter(libc: Any, view: dict, ground: Ground, own_user: bool, laid: bool = False) -> None:
    """Join the environment's namespace (`view["pins"]`: the server's pid and its descriptors of the user and the mount
    namespace, -1 for none), or build one: `code`, `layers`, `trust` (a directory of certificates, or ""), `roots`
    (what else must be seen, read-only; made by `outermost`), `tmp_bytes`. With `own_user` a user namespace is asked
    for; `laid`: the common part is there. Raises Refused, with nothing changed that matters, and Incomplete."""
    if view["pins"]:
        join(libc, *view["pins"])
    else:
        if not laid:
            lay(libc, ground, own_user)
        try:
            _furnish(libc, view, ground)
        except Refused as error:
            raise Incomplete(str(error)) from error
    os.chdir(TASK)


def join(libc: Any, server: int, user: int, mounts: int) -> None:
    """Go into namespaces that the process `server` holds open under these descriptors. Raises Refused."""
    try:
        opened = [(os.open(f"/proc/{server}/fd/{pin}", os.O_RDONLY), name, kind)
                  for pin, name, kind in ((user, "user", CLONE_NEWUSER), (mounts, "mnt", CLONE_NEWNS))
                  if pin >= 0]  # fmt: skip
    except OSError as error:
        raise Refused(str(error)) from error
    for descriptor, name, kind in opened:
        same = os.fstat(descriptor).st_ino == os.stat(f"/proc/self/ns/{name}").st_ino
        if not same and libc.setns(descriptor, kind) != 0:
            raise _refused("setns")
        os.close(descriptor)


def entered() -> bool:
    """Whether this process lives in a view."""
    return os.path.isdir(OLD)


def own_tmp(libc: Any, size: int) -> None:
    """For a process forked from one that has entered: a namespace and a /tmp of its own. Raises Refused."""
    if libc.unshare(CLONE_NEWNS) != 0:
        raise _refused("unshare")
    _mount(libc, "tmpfs", TMP, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},mode=1777")


def give_up_privileges(libc: Any) -> None:
    """Nothing that could undo the view: capabilities go, and what keeps them from coming back stays."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    kept = sum(1 << capability for capability in KEPT_CAPABILITIES)
    held = _capabilities(libc)
    if held is not None:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
        left = held & kept
        libc.capset(header, (ctypes.c_uint32 * 6)(left, left, 0, 0, 0, 0))


def hide(libc: Any) -> None:
    """Keep other processes of the same user out of this one's /proc entries."""
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def inside(text: str, view: dict, scratch: str) -> str:
    """A path, or several joined by colons, as it reads within the view; what appears twice is said once."""
    found: list = []
    for part in text.split(":"):
        moved = _moved(part, view, scratch)
        if moved not in found:
            found.append(moved)
    return ":".join(found)


def translate(command: dict, view: dict) -> None:
    """Rewrite the places in `command` (its environment, path, arguments, directory) to those within the view."""
    scratch = command["scratch"]
    environment = command["environment"]
    for name in LISTS:
        if name in environment:
            environment[name] = inside(environment[name], view, scratch)
    environment.pop("TMPDIR", None)
    command["directory"] = TASK
    path: list = []
    for entry in command["path"]:
        moved = _moved(entry, view, scratch)
        if moved not in path:
            path.append(moved)
    command["path"] = path
    if command["argv"] is not None:
        command["argv"] = [_moved(word, view, scratch) for word in command["argv"]]


def _moved(path: str, view: dict, scratch: str) -> str:
    layers = [(layer, OPT) for layer in view["layers"]]
    for before, after in ((view["code"], TASK), *layers, (scratch, TMP), (view["trust"], RUNTIME)):
        if before and (path == before or path.startswith(before + "/")):
            return after + path[len(before) :]
    return path


# -- namespaces -------------------------------------------------------------------------------------------------------


def _unshare(libc: Any, own_user: bool) -> None:
    user, group = os.getuid(), os.getgid()
    if own_user and libc.unshare(CLONE_NEWNS | CLONE_NEWUSER) == 0:
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        maps = (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"))
        try:
            for name, text in maps:
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        except OSError as error:
            raise Refused(str(error)) from error
    elif libc.unshare(CLONE_NEWNS) != 0:
        raise _refused("unshare")
    _mount(libc, "none", "/", None, MS_REC | MS_PRIVATE)


# -- the new root -----------------------------------------------------------------------------------------------------


def _lay(libc: Any, ground: Ground) -> None:
    os.chdir("/")
    for directory, target in ground.links:
        os.symlink(target, directory)
    for directory in (*ground.binds, "/proc"):
        os.mkdir(directory)
        _mount(libc, OLD + directory, directory, None, MS_BIND | MS_REC)
    _devices(libc)
    _name_host(libc)
    os.mkdir(TMP)
    for root in ground.shared():
        _bind(libc, OLD + root, root)


def _furnish(libc: Any, view: dict, ground: Ground) -> None:
    roots = _uncovered([*view["roots"], *ground.roots])
    shared = ground.shared()
    _bind(libc, OLD + view["code"], TASK)
    if view["trust"]:
        _bind(libc, OLD + view["trust"], RUNTIME)
    below_tmp = [root for root in roots if root.startswith(TMP + "/")]
    below_opt = [root for root in roots if root.startswith(OPT + "/")]
    _layers(libc, view["layers"], bool(below_opt))
    for root in roots:
        if root not in below_tmp and root not in shared:
            _bind(libc, OLD + root, root)
    _read_only(libc, "/")
    _mount(libc, "tmpfs", TMP, "tmpfs", MS_NOSUID | MS_NODEV, f"size={view['tmp_bytes']},mode=1777")
    for root in below_tmp:
        _bind(libc, OLD + root, root)
        _read_only(libc, root)
    if libc.umount2(os.fsencode(OLD), MNT_DETACH) != 0:
        raise _refused("umount")


def _devices(libc: Any) -> None:
    os.mkdir("/dev")
    for name in DEVICES:
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        _mount(libc, f"{OLD}/dev/{name}", f"/dev/{name}", None, MS_BIND)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"/dev/{name}")


def _name_host(libc: Any) -> None:
    """Give the machine the name that it has within Lambda, where extensions listen for telemetry."""
    if os.path.isfile(HOSTS) and not os.path.islink(HOSTS):
        os.makedirs(os.path.dirname(HOSTS_HERE), exist_ok=True)
        with open(HOSTS, "rb") as before, open(HOSTS_HERE, "wb") as file:
            file.write(before.read().rstrip(b"\n") + NAMES)
        _mount(libc, HOSTS_HERE, HOSTS, None, MS_BIND)


def _layers(libc: Any, layers: list, shared: bool) -> None:
    """/opt: nothing, the one layer, or all of them, later ones over earlier ones. `shared`: something of the system
    must find its place there too."""
    os.mkdir(OPT)
    if not layers:
        return
    if len(layers) == 1 and not shared:
        _bind(libc, OLD + layers[0], OPT)
        return
    lower = ":".join((OLD + layer).replace("\\", "\\\\").replace(":", "\\:") for layer in reversed(layers))
    if len(layers) > 1 and not shared and "," not in lower:
        with contextlib.suppress(Refused):
            _mount(libc, "overlay", OPT, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, f"lowerdir={lower}")
            return
    for index, layer in enumerate(layers):
        place = f"/var/layers/{index}"
        _bind(libc, OLD + layer, place)
        farm(place, OPT, place)


def farm(source: str, target: str, shown: str) -> None:
    """`source`'s folders made anew in `target`, its files linked there as below `shown`; what was linked before gives
    way."""
    with os.scandir(source) as entries:
        for entry in entries:
            place = f"{target}/{entry.name}"
            if os.path.islink(place):
                os.unlink(place)
            if entry.is_dir(follow_symlinks=False):
                os.makedirs(place, exist_ok=True)
                farm(entry.path, place, f"{shown}/{entry.name}")
            elif not os.path.isdir(place):
                os.symlink(f"{shown}/{entry.name}", place)


def _bind(libc: Any, source: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    _mount(libc, source, target, None, MS_BIND | MS_REC)


def _read_only(libc: Any, place: str) -> None:
    """`place` and every mount below it; on kernels before 5.12 code and layers alone."""
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID, 0, 0, 0)
    done = libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(place), AT_RECURSIVE, attributes, 32)
    if done == 0:
        return
    for mounted in (TASK, OPT) if place == "/" else (place,):
        if os.path.ismount(mounted):
            flags = os.statvfs(mounted).f_flag & 0xF
            _mount(libc, "none", mounted, None, MS_BIND | MS_REMOUNT | MS_RDONLY | flags)


def outermost(paths: list) -> list:
    """Existing directories, resolved, without those that the system's own or another of the list contain."""
    resolved = {os.path.realpath(path) for path in paths if path}
    return _uncovered(path for path in resolved if path != "/" and os.path.isdir(path))


def _uncovered(paths: Any) -> list:
    found: list = []
    for path in sorted(set(paths)):
        above = (*SYSTEM, "/proc", *found)
        if not any(path == up or path.startswith(up + "/") for up in above):
            found.append(path)
    return found


def resolver() -> list:
    """The directories of the files behind /etc/resolv.conf and /etc/hosts, when they are links out of /etc."""
    return [os.path.dirname(os.path.realpath(path)) for path in ("/etc/resolv.conf", "/etc/hosts")
            if os.path.islink(path)]  # fmt: skip


def _mount(libc: Any, source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    encoded = None if kind is None else kind.encode()
    options = os.fsencode(data) if data else None
    if libc.mount(os.fsencode(source), os.fsencode(target), encoded, ctypes.c_ulong(flags), options) != 0:
        raise _refused(f"mount {target}")


def _capabilities(libc: Any) -> int | None:
    """The permitted set's lower half; None when it cannot be read."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()
    return int(data[1]) if libc.capget(header, data) == 0 else None


def _refused(what: str) -> Refused:
    return Refused(f"{what}: {os.strerror(ctypes.get_errno())}")

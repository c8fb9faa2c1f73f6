"""What a process of a function may use and see: limits, its own /tmp, and that it dies with its zygote."""

import contextlib
import ctypes
import os
import resource
import signal
from typing import Any

PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
ADDRESS_SPACE_SLACK = 4 * 1024**3
MAX_DESCRIPTORS = 1024
OOM_SCORE = "500"


def limit(command: dict[str, Any]) -> None:
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_NOFILE, MAX_DESCRIPTORS)
    _set_limit(resource.RLIMIT_FSIZE, command["file_bytes"])
    if command["argv"] is None:
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        _set_limit(resource.RLIMIT_AS, mapped + command["memory_bytes"] + ADDRESS_SPACE_SLACK)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(OOM_SCORE)


def _set_limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(which, (value, value))


def libc() -> Any:
    try:
        library = ctypes.CDLL(None, use_errno=True)
        return library if hasattr(library, "prctl") else None
    except OSError:
        return None


def die_with_parent(libc: Any) -> None:
    if libc is not None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def private_tmp(libc: Any, scratch: str, needed: tuple[str, ...]) -> bool:
    """Mount `scratch` over /tmp for this process alone, in a mount namespace of its own (and, without privilege, a user
    namespace). False, with nothing changed that matters, when the kernel does not allow it, or when something the
    function needs lies in /tmp."""
    if libc is None or not scratch or any(os.path.realpath(path).startswith("/tmp/") for path in needed):
        return False
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER) != 0:
        return False
    try:
        if user != 0:
            maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
            for name, text in maps.items():
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
    except OSError:
        return False
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return False
    return libc.mount(os.fsencode(scratch), b"/tmp", None, MS_BIND, None) == 0

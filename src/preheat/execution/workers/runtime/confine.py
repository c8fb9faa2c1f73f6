"""What a process of a function may use and see: limits, its view of the machine, and that it dies with its zygote."""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

from . import sandbox

PR_SET_PDEATHSIG = 1
ADDRESS_SPACE_SLACK = 16 * 1024**3
MAX_DESCRIPTORS = 1024
OOM_SCORE = "500"


def lay(libc: Any, ground: sandbox.Ground) -> bool:
    """What `enclose` begins with for Python functions, before the function is known. False: the kernel does not allow
    it. Raises sandbox.Incomplete."""
    if libc is not None:
        with contextlib.suppress(sandbox.Refused):
            sandbox.lay(libc, ground, os.getuid() != 0)
            return True
    return False


def enclose(libc: Any, command: dict, ground: sandbox.Ground, laid: bool = False) -> bool:
    """Give this process the function's view of the machine (`sandbox`), and `command` the places as they are named in
    it, then the limits. `ground`: the interpreter's and Preheat's runtime's places. A snapshot keeps the privileges
    that `enclose_copy` needs. `laid`: `lay` has begun. False: the kernel does not allow a view, or `command["view"]` is
    None, and the process sees the machine as it is. Raises sandbox.Incomplete."""
    entered = False
    view = command["view"]
    program = command["argv"] is not None
    if libc is not None and view is not None:
        own_user = os.getuid() != 0 or program
        with contextlib.suppress(sandbox.Refused):
            sandbox.enter(libc, view, ground, own_user, laid)
            entered = True
            sandbox.translate(command, view)
            if not own_user:
                sandbox.hide(libc)
    limit(command, entered)
    if entered and not command["snapshot"]:
        sandbox.give_up_privileges(libc)
    die_with_parent(libc)
    return entered


def own_tmp(libc: Any, size: int, tmp: Callable) -> None:
    """A /tmp of its own for a process forked from an enclosed snapshot; `tmp(directory)` brings into it what was in the
    snapshot's. Raises sandbox.Refused."""
    held = os.open(sandbox.TMP, os.O_RDONLY | os.O_DIRECTORY)
    sandbox.own_tmp(libc, size)
    tmp(f"/proc/self/fd/{held}")
    os.close(held)


def enclose_copy(libc: Any, command: dict, tmp: Callable, prepared: bool) -> bool:
    """The same for a process forked from an enclosed snapshot, with its `own_tmp` and `hold` unless it has both
    (`prepared`; it has no privileges any more then, and joins nothing).
    False when the snapshot was not enclosed. Raises sandbox.Refused."""
    entered = sandbox.entered()
    if entered:
        view = command["view"]
        joined = False
        if view["pins"] and not prepared:
            with contextlib.suppress(sandbox.Refused):
                sandbox.join(libc, *view["pins"])
                joined = True
        if not joined and not prepared:
            own_tmp(libc, view["tmp_bytes"], tmp)
        sandbox.translate(command, view)
    if not prepared:
        hold(libc, command, entered)
    return entered


def hold(libc: Any, command: dict, entered: bool) -> None:
    """The last steps of `enclose_copy`, which need no more of `command` than what all copies of a snapshot share."""
    limit(command, entered)
    if entered:
        sandbox.give_up_privileges(libc)
    die_with_parent(libc)


def limit(command: dict, enclosed: bool) -> None:
    """Descriptors, address space, core files; the size of a file where /tmp has no size of its own."""
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_NOFILE, MAX_DESCRIPTORS)
    if not enclosed:
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

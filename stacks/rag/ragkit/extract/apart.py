"""Reading a file in a process of its own, so that one that takes all memory or time takes nothing else with it."""

import os
import pickle
import resource
import signal
from typing import NoReturn

from ragkit.extract import Document, UnreadableFile, UnsupportedFormat, extract

LONGEST_S = 60
"""Processor seconds."""
REFUSED = 3
STATUS = "/proc/self/statm"


def extract_apart(key: str, data: bytes, most_mb: int, longest_s: int = LONGEST_S) -> Document:
    """`extract` with at most `longest_s` seconds of the processor and `most_mb` more memory than this process has.
    Raises UnsupportedFormat or UnreadableFile, also for a file that needs more than that."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _answer(write, key, data, most_mb, longest_s)
    os.close(write)
    try:
        with os.fdopen(read, "rb") as pipe:
            told = pipe.read()
    finally:
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        raise UnreadableFile(f"{key}: reading it takes more than {longest_s} s of the processor")
    if os.WIFSIGNALED(status):
        raise UnreadableFile(f"{key}: reading it ended with signal {os.WTERMSIG(status)}")
    if os.WEXITSTATUS(status) == REFUSED or not told:
        raise UnreadableFile(f"{key}: reading it takes more than {most_mb} MB of memory")
    kind, value = pickle.loads(told)  # the child's own, of the same package
    if kind == "document":
        return value
    raise (UnsupportedFormat if kind == "unsupported" else UnreadableFile)(value)


def _answer(write: int, key: str, data: bytes, most_mb: int, longest_s: int) -> NoReturn:
    """The child's part. It ends here, whatever happens, and runs nothing of what the parent would run at its end."""
    code = REFUSED
    try:
        _confine(most_mb, longest_s)
        told = pickle.dumps(_told(key, data))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(told)
        code = 0
    finally:
        os._exit(code)


def _confine(most_mb: int, longest_s: int) -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (longest_s if hard < 0 else min(longest_s, hard), hard))
    try:
        with open(STATUS) as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = mapped + (most_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def _told(key: str, data: bytes) -> tuple[str, Document | str]:
    try:
        return "document", extract(key, data)
    except UnsupportedFormat as error:
        return "unsupported", str(error)
    except UnreadableFile as error:
        return "unreadable", str(error)
    except RecursionError:
        return "unreadable", f"{key}: nested too deep"
    except MemoryError:
        raise
    except Exception as error:
        return "unreadable", f"{key}: reading it failed: {type(error).__name__}: {error}"

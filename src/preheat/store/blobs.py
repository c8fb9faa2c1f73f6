"""Large bodies: files beside the database, or a dictionary when there is no directory.

A blob is written whole under a name that no row uses yet, before the row that names it, and never changed. It is
removed after the row is gone. What a crash leaves in between is an orphan; `sweep` at start removes those.
Reading and writing are for other threads (`ctx.offload`); `slice` only names the place and is for the core's thread.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from preheat.kernel.stream import FileSlice
from preheat.store.database import Database

Buffer = bytes | bytearray | memoryview
COPY_BYTES = 1 << 20


class Blobs(Protocol):
    def write(self, name: str, chunks: Iterable[Buffer]) -> int:
        """Store the chunks under `name`; returns the size in bytes. Raises OSError and leaves nothing behind."""

    def copy(self, name: str, sources: Sequence[tuple[str, int, int]]) -> int:
        """Store, under `name`, the (blob, offset, length) pieces one after the other; returns the size."""

    def chunks(self, name: str, offset: int, length: int) -> Iterator[Buffer]:
        """The bytes of a piece, at most a mebibyte at a time. Raises FileNotFoundError."""

    def slice(self, name: str, offset: int, length: int) -> bytes | FileSlice:
        """A piece as a response body."""

    def remove(self, name: str) -> None:
        """Forget a blob; one that is not there is no error."""

    def names(self) -> Iterator[str]:
        """Every blob that is stored."""


class FileBlobs:
    """`root/ab/abcd…`; written under a temporary name, then renamed. With `fsync` a power cut loses nothing that
    was acknowledged."""

    def __init__(self, root: Path, fsync: bool = False) -> None:
        self.root = root
        self._fsync = fsync
        root.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self.root / name[:2] / name

    def write(self, name: str, chunks: Iterable[Buffer]) -> int:
        target = self.path(name)
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            if self._fsync:
                _sync_directory(self.root)
        temporary = target.with_name(name + ".part")
        size = 0
        try:
            with open(temporary, "wb", buffering=0) as file:
                for chunk in chunks:
                    size += _write_all(file.fileno(), chunk)
                if self._fsync:
                    os.fsync(file.fileno())
            os.replace(temporary, target)
            if self._fsync:
                _sync_directory(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return size

    def copy(self, name: str, sources: Sequence[tuple[str, int, int]]) -> int:
        return self.write(name, (chunk for source in sources for chunk in self.chunks(*source)))

    def chunks(self, name: str, offset: int, length: int) -> Iterator[Buffer]:
        with open(self.path(name), "rb", buffering=0) as file:
            file.seek(offset)
            while length > 0:
                chunk = file.read(min(COPY_BYTES, length))
                if not chunk:
                    raise OSError(f"blob {name} is shorter than the row that names it says")
                length -= len(chunk)
                yield chunk

    def slice(self, name: str, offset: int, length: int) -> FileSlice:
        return FileSlice(self.path(name), offset, length)

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        for folder in sorted(self.root.iterdir()):
            if folder.is_dir():
                yield from sorted(entry.name for entry in folder.iterdir())


class MemoryBlobs:
    """The same without a disk: unit tests and the simulator."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def write(self, name: str, chunks: Iterable[Buffer]) -> int:
        body = b"".join(chunks)
        self._bodies[name] = body
        return len(body)

    def copy(self, name: str, sources: Sequence[tuple[str, int, int]]) -> int:
        return self.write(name, [chunk for source in sources for chunk in self.chunks(*source)])

    def chunks(self, name: str, offset: int, length: int) -> Iterator[Buffer]:
        body = memoryview(self._body(name))
        if offset + length > len(body):
            raise OSError(f"blob {name} is shorter than the row that names it says")
        for start in range(offset, offset + length, COPY_BYTES):
            yield body[start : min(start + COPY_BYTES, offset + length)]

    def slice(self, name: str, offset: int, length: int) -> bytes:
        body = self._body(name)
        return body if offset == 0 and length == len(body) else body[offset : offset + length]

    def remove(self, name: str) -> None:
        self._bodies.pop(name, None)

    def names(self) -> Iterator[str]:
        yield from sorted(self._bodies)

    def _body(self, name: str) -> bytes:
        body = self._bodies.get(name)
        if body is None:
            raise FileNotFoundError(name)
        return body


def open_blobs(db: Database, owner: str) -> Blobs:
    """The blobs of one owner (a service): `blobs/<owner>/` in the state directory, or in memory with the database."""
    if db.directory is None:
        return MemoryBlobs()
    return FileBlobs(db.directory / "blobs" / owner, fsync=db.durability == "power")


def sweep(blobs: Blobs, named: Callable[[str], bool]) -> int:
    """Remove every blob for which `named` is false; returns how many. Only at start, before anything is written."""
    removed = 0
    for name in list(blobs.names()):
        if not named(name):
            blobs.remove(name)
            removed += 1
    return removed


def _write_all(handle: int, chunk: Buffer) -> int:
    view = memoryview(chunk).cast("B")
    written = 0
    while written < len(view):
        written += os.write(handle, view[written:])
    return written


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

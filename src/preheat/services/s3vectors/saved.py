"""A copy of an index's search structures in files, so that a restart need not make them anew.

A copy is a cache: rows in SQL are the truth. It lies in a folder of its own per index,

    <token>.json    the manifest: a line with the checksum of the rest, then what the other files hold
    <token>.parts   sections of bytes, each at a multiple of 64
    <token>.graph   usearch's file
    <name>.rows     the vectors as float32; it only grows, and several copies in turn share it

and counts only when the database names its token. Whatever is wrong with it (checksum, length, format, another
index's files) makes `read` raise Damaged, and the owner builds from the rows.
"""

import json
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
ALIGNED = 64
CHUNK = 1 << 20
RESERVE_BYTES = 512 * 1024 * 1024
"""A copy is not written when less would be left free on the disk."""
LISTED = 5_000
"""How many members of a list are turned into text, or back, at a time: nothing else runs meanwhile."""

Buffer = Any
Section = Callable[[], Iterable[Buffer]]


class Damaged(Exception):
    """The files are not a copy that can be used."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The vectors' file so far: its name, its rows in use and their checksum."""

    name: str
    count: int = 0
    crc: int = 0


@dataclass(slots=True)
class Snapshot:
    """What is to be written: nothing in it changes while that goes on. `rows` are pieces of float32[n, dimension] from
    row `rows_from` on; `graph(path)` writes the graph, None when there is none."""

    meta: dict[str, Any]
    sections: dict[str, Section]
    rows: "list[np.ndarray]"
    rows_from: int
    graph: Callable[[str], None] | None
    bytes: int


@dataclass(slots=True)
class Stored:
    """What was read: `section(name)` gives bytes that lie in the file."""

    meta: dict[str, Any]
    rows: memoryview
    kept: Rows
    graph: Path | None
    _places: dict[str, list[int]]
    _parts: memoryview

    def section(self, name: str) -> memoryview:
        offset, length = self._places[name]
        return self._parts[offset : offset + length]

    def numbers(self, name: str, kind: str) -> "np.ndarray":
        import numpy as np

        return numbers(self.section(name), np.dtype(kind))


def numbers(data: Buffer, kind: "np.dtype") -> "np.ndarray":
    """A read-only array over bytes; they may be none."""
    import numpy as np

    return np.frombuffer(data, dtype=kind) if len(data) else np.zeros(0, dtype=kind)


def listed(members: list[Any]) -> Iterable[bytes]:
    """A list as lines of JSON."""
    for at in range(0, len(members), LISTED):
        yield json.dumps(members[at : at + LISTED]).encode() + b"\n"


def unlisted(data: memoryview) -> list[Any]:
    members: list[Any] = []
    for line in bytes(data).splitlines():
        members.extend(json.loads(line))
    return members


def write(folder: Path, token: str, fingerprint: str, snapshot: Snapshot, rows: Rows) -> Rows:
    """Write a copy under `token`; `rows` is the vectors' file of the copy before, or a new name. Returns what the file
    holds now. Raises OSError, with nothing of the new copy left behind."""
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < snapshot.bytes + RESERVE_BYTES:
        raise OSError(f"less than {RESERVE_BYTES} bytes of the disk would be left")
    try:
        now = _write_rows(folder / f"{rows.name}.rows", snapshot, rows)
        manifest: dict[str, Any] = {
            "format": FORMAT, "token": token, "fingerprint": fingerprint, "meta": snapshot.meta,
            "rows": [now.name, now.count, now.crc, sum(piece.nbytes for piece in snapshot.rows)],
        }  # fmt: skip
        manifest["parts"], manifest["sections"] = _write_sections(folder / f"{token}.parts", snapshot.sections)
        if snapshot.graph is not None:
            path = folder / f"{token}.graph"
            snapshot.graph(str(path))
            manifest["graph"] = _checked(path)
        text = json.dumps(manifest).encode()
        fresh = folder / f"{token}.new"
        fresh.write_bytes(b"%08x\n" % zlib.crc32(text) + text)
        fresh.rename(folder / f"{token}.json")
    except BaseException:
        _take_back(folder, token, rows, snapshot)
        raise
    return now


def read(folder: Path, token: str, fingerprint: str) -> Stored:
    """The copy that the database names. Raises Damaged, or OSError when it is not there."""
    line, _, text = (folder / f"{token}.json").read_bytes().partition(b"\n")
    if line != b"%08x" % zlib.crc32(text):
        raise Damaged("its manifest is damaged")
    manifest = json.loads(text)
    if [manifest[name] for name in ("format", "token", "fingerprint")] != [FORMAT, token, fingerprint]:
        raise Damaged("it was made for something else")
    name, count, crc, _ = manifest["rows"]
    width = manifest["meta"]["dimension"] * 4
    rows = _mapped(folder / f"{name}.rows", count * width, crc)
    parts = _mapped(folder / f"{token}.parts", *manifest["parts"])
    graph = None
    if "graph" in manifest:
        graph = folder / f"{token}.graph"
        if _checked(graph) != manifest["graph"]:
            raise Damaged("its graph is damaged")
    return Stored(manifest["meta"], rows, Rows(name, count, crc), graph, manifest["sections"], parts)


def clean(folder: Path, token: str, rows: str) -> None:
    """Remove every file that is not of the copy `token`."""
    for path in folder.iterdir():
        if path.name.split(".")[0] != token and path.name != f"{rows}.rows":
            path.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _write_rows(path: Path, snapshot: Snapshot, rows: Rows) -> Rows:
    """Add what the file lacks, over what a write that did not end has left there."""
    count, crc = rows.count, rows.crc
    with path.open("r+b" if rows.count else "w+b") as file:
        if snapshot.rows:
            file.seek(rows.count * snapshot.rows[0].shape[1] * 4)
        for piece in snapshot.rows:
            data = memoryview(piece).cast("B")
            for at in range(0, len(data), CHUNK):
                crc = zlib.crc32(data[at : at + CHUNK], crc)
                file.write(data[at : at + CHUNK])
            count += len(piece)
    return Rows(rows.name, count, crc)


def _write_sections(path: Path, sections: dict[str, Section]) -> tuple[list[int], dict[str, list[int]]]:
    """([length, checksum] of the file, {name: [offset, length]})."""
    places: dict[str, list[int]] = {}
    size = crc = 0
    with path.open("wb") as file:
        for name, make in sections.items():
            begun = size
            for data in make():
                for piece in _pieces(data):
                    file.write(piece)
                    crc = zlib.crc32(piece, crc)
                    size += len(piece)
            places[name] = [begun, size - begun]
            rest = bytes(-size % ALIGNED or ALIGNED)
            file.write(rest)
            crc = zlib.crc32(rest, crc)
            size += len(rest)
    return [size, crc], places


def _pieces(data: Buffer) -> Iterable[memoryview]:
    view = memoryview(data)
    if view.nbytes:
        view = view.cast("B")
        for at in range(0, len(view), CHUNK):
            yield view[at : at + CHUNK]


def _take_back(folder: Path, token: str, rows: Rows, snapshot: Snapshot) -> None:
    """After a failure: give the disk its room back. Rows of the copy before stay, they may be in use."""
    for ending in ("json", "parts", "graph", "new"):
        (folder / f"{token}.{ending}").unlink(missing_ok=True)
    path = folder / f"{rows.name}.rows"
    if not rows.count:
        path.unlink(missing_ok=True)
    elif snapshot.rows:
        os.truncate(path, rows.count * snapshot.rows[0].shape[1] * 4)


def _checked(path: Path) -> list[int]:
    """[length, checksum] of a file."""
    crc = size = 0
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            crc = zlib.crc32(data, crc)
            size += len(data)
    return [size, crc]


def _mapped(path: Path, length: int, crc: int) -> memoryview:
    """The first `length` bytes of a file, as they lie there. Raises Damaged."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < length or not length:
            raise Damaged(f"{path.suffix[1:]} are missing")
        view = memoryview(mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ))
    found = 0
    for at in range(0, length, CHUNK):
        found = zlib.crc32(view[at : at + CHUNK], found)
    if found != crc:
        raise Damaged(f"{path.suffix[1:]} are damaged")
    return view

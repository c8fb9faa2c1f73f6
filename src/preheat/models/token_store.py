"""Token vectors of passages on disk, in 8 bits, by the text's digest: what the embedder computed anyway is kept for
reranking.

Files come in pairs: `<number>.rows` holds records one after the other, `<number>.index` says where each one lies. When
all of them are larger than `most_bytes` together, the oldest pair goes. A record whose rows did not reach the disk
before a power cut reads as other numbers; a reranker's order suffers by it, nothing else.
"""

import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

WIDTH = 384
SEGMENT_BYTES = 64 * 2**20
KEY_BYTES = 16
_ENTRY = struct.Struct(f"<{KEY_BYTES}sQI")


class TokenStore:
    """`folder` is made on first use. Thread-safe; of one process. Scales are float32 (tokens,), rows int8 (tokens,
    384)."""

    def __init__(self, folder: Path, most_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._most = most_bytes
        self._segment_bytes = min(segment_bytes, max(1, most_bytes // 4))
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int, int]] | None = None
        self._files: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._index = -1

    def get(self, digest: bytes) -> "tuple[numpy.ndarray, numpy.ndarray] | None":
        """(rows, scales), or None."""
        import numpy

        with self._lock:
            places = self._opened()
            place = places.get(digest[:KEY_BYTES])
            if place is None:
                return None
            segment, offset, count = place
            data = os.pread(self._files[segment], count * (4 + WIDTH), offset)
        if len(data) < count * (4 + WIDTH):
            return None
        scales = numpy.frombuffer(data, dtype=numpy.float32, count=count)
        rows = numpy.frombuffer(data, dtype=numpy.int8, offset=count * 4).reshape(count, WIDTH)
        return rows, scales

    def put(self, digest: bytes, rows: "numpy.ndarray", scales: "numpy.ndarray") -> None:
        """Keep a text's tokens; a text that is there already stays as it is. A disk that refuses is no error."""
        key = digest[:KEY_BYTES]
        data = scales.tobytes() + rows.tobytes()
        with self._lock:
            places = self._opened()
            if key in places or len(data) > self._most:
                return
            try:
                segment = self._writable()
                offset = self._sizes[segment]
                os.pwrite(self._files[segment], data, offset)
                os.write(self._index, _ENTRY.pack(key, offset, len(rows)))
            except OSError:
                return
            self._sizes[segment] = offset + len(data)
            places[key] = (segment, offset, len(rows))

    def close(self) -> None:
        with self._lock:
            for handle in (*self._files.values(), *([self._index] if self._index >= 0 else [])):
                os.close(handle)
            self._files, self._sizes, self._places, self._index = {}, {}, None, -1

    def _opened(self) -> dict[bytes, tuple[int, int, int]]:
        """What is there, read on first use."""
        if self._places is None:
            self._places = {}
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self._folder.glob("*.index"), key=lambda one: int(one.stem)):
                self._read(path)
        return self._places

    def _read(self, path: Path) -> None:
        segment = int(path.stem)
        rows = path.with_suffix(".rows")
        if not rows.exists():
            path.unlink()
            return
        self._files[segment] = os.open(rows, os.O_RDWR)
        self._sizes[segment] = rows.stat().st_size
        data = path.read_bytes()
        assert self._places is not None
        for key, offset, count in _ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size]):
            if offset + count * (4 + WIDTH) <= self._sizes[segment]:
                self._places[key] = (segment, offset, count)

    def _writable(self) -> int:
        """The segment that takes the next record; makes room first."""
        newest = max(self._files, default=-1)
        if newest < 0 or self._sizes[newest] >= self._segment_bytes:
            while self._files and sum(self._sizes.values()) + self._segment_bytes > self._most:
                self._drop(min(self._files))
            newest += 1
            self._files[newest] = os.open(self._folder / f"{newest}.rows", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            self._sizes[newest] = 0
            self._begin_index(newest)
        elif self._index < 0:
            self._begin_index(newest)
        return newest

    def _begin_index(self, segment: int) -> None:
        if self._index >= 0:
            os.close(self._index)
        path = self._folder / f"{segment}.index"
        self._index = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _drop(self, segment: int) -> None:
        os.close(self._files.pop(segment))
        del self._sizes[segment]
        for suffix in ("index", "rows"):
            (self._folder / f"{segment}.{suffix}").unlink(missing_ok=True)
        assert self._places is not None
        self._places = {key: place for key, place in self._places.items() if place[0] != segment}

"""A statement's rows as a driver reads them: the first in the answer, the rest in files that it fetches (`chunks`)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from preheat.snowflake.errors import SnowflakeError
from preheat.snowflake.types import Column, encoder

BATCH = 1_000
INLINE_BYTES = 1024 * 1024
CHUNK_BYTES = 8 * 1024 * 1024

Row = list[str | None]


@dataclass(frozen=True)
class Chunk:
    path: Path
    rows: int
    size: int


@dataclass
class Outcome:
    """What became of one statement. Of its rows, about `held` bytes are in memory and `size` in files."""

    query: str
    text: str
    columns: tuple[Column, ...] = ()
    rows: list[Row] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    held: int = 0
    total: int = 0
    type_id: int = 0x1000
    stats: dict[str, int] = field(default_factory=dict)
    binds: int = 0
    error: SnowflakeError | None = None
    children: list["Outcome"] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(chunk.size for chunk in self.chunks)

    def all_rows(self) -> Iterator[Row]:
        yield from self.rows
        for chunk in self.chunks:
            yield from msgspec.json.decode(b"[" + chunk.path.read_bytes().rstrip(b",\n") + b"]")

    def forget(self) -> None:
        for chunk in self.chunks:
            chunk.path.unlink(missing_ok=True)


def fetch(result: Any, columns: tuple[Column, ...], outcome: Outcome, folder: Path) -> None:
    """All rows of DuckDB's result into the outcome; what is beyond INLINE_BYTES into files of `folder`."""
    encoders = [encoder(column) for column in columns]
    encode = msgspec.json.Encoder().encode
    lines: list[bytes] = []
    size = rows = 0
    inline = True
    while batch := result.fetchmany(BATCH):
        for values in batch:
            row = [None if value is None else write(value) for write, value in zip(encoders, values)]
            outcome.total += 1
            line = encode(row)
            size += len(line) + 2
            if inline:
                outcome.rows.append(row)
                inline, outcome.held = size < INLINE_BYTES, size
                size = size if inline else 0
                continue
            lines.append(line)
            rows += 1
            if size >= CHUNK_BYTES:
                _write(outcome, folder, lines, rows)
                lines, size, rows = [], 0, 0
    if lines:
        _write(outcome, folder, lines, rows)


def _write(outcome: Outcome, folder: Path, lines: list[bytes], rows: int) -> None:
    """Rows one to a line with a comma behind, as Snowflake's chunks have them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.query}.{len(outcome.chunks)}"
    data = b",\n".join(lines)
    path.write_bytes(data)
    outcome.chunks.append(Chunk(path, rows, len(data)))

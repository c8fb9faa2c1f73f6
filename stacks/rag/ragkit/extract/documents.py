"""What reading a file gives, and what may go wrong."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["heading", "text", "list", "table", "code", "record"]

LONGEST_TITLE = 200
LONGEST_LINE = 20_000
"""Characters; a longer line is parted, so that no pattern meets a line without end."""
LEAST_UNMARKED = 4
"""Characters by which UTF-16 without a mark is recognised."""
MOST_TEXT = 20_000_000
"""Characters that one document may have."""


class UnsupportedFormat(ValueError):
    """Nothing here reads this kind of file."""


class UnreadableFile(ValueError):
    """The file is not what it should be."""


@dataclass(frozen=True)
class Block:
    """A piece of a document that belongs together. `level` is 1 to 6 for a heading; `page` counts from 1, 0 without.
    A "record" is one row or object: several go into a chunk, none is parted where it fits."""

    kind: Kind
    text: str
    level: int = 0
    page: int = 0


@dataclass(frozen=True)
class Document:
    key: str
    title: str
    blocks: tuple[Block, ...]


def made(key: str, title: str, blocks: list[Block]) -> Document:
    """The document; without a title it has its first heading's, else its name's. Raises UnreadableFile when it is too
    long."""
    if sum(len(block.text) for block in blocks) > MOST_TEXT:
        raise UnreadableFile(f"{key}: more than {MOST_TEXT} characters of text; part it into several files")
    title = " ".join(title.split()) or next((block.text for block in blocks if block.kind == "heading"), "")
    return Document(key, (title or name(key))[:LONGEST_TITLE], tuple(blocks))


def suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower()


def name(key: str) -> str:
    return PurePosixPath(key).stem.replace("_", " ").replace("-", " ").strip()[:LONGEST_TITLE] or key[:LONGEST_TITLE]


def file_name(key: str) -> str:
    return PurePosixPath(key).name[:LONGEST_TITLE]


def decode(data: bytes) -> str:
    """Text in UTF-8, in UTF-16 or UTF-32 with a mark or recognised by its zeros, else Latin-1 as Windows has it; line
    ends are `\\n`. Raises UnreadableFile for binary data."""
    return unix(_decode(data))


def _decode(data: bytes) -> str:
    if data[:4] in (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"):
        return data.decode("utf-32", errors="replace")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    head = data[:4096]
    if b"\x00" in head:
        kind = _unmarked(head)
        if kind is None:
            raise UnreadableFile("the file is binary, not text")
        return data.decode(kind, errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        controls = sum(byte < 9 or 13 < byte < 27 for byte in head)
        if controls > len(head) // 50:
            raise UnreadableFile("the file is binary, not text") from None
        return data.decode("cp1252", errors="replace")


def _unmarked(head: bytes) -> str | None:
    """UTF-16 without a mark: mostly Western text has a zero in every other byte."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half < LEAST_UNMARKED:
        return None
    if odd > 0.6 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.6 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(text: str) -> list[str]:
    """Lines, those beyond LONGEST_LINE parted at white space where they have any."""
    found: list[str] = []
    for line in text.split("\n"):
        while len(line) > LONGEST_LINE:
            cut = line.rfind(" ", LONGEST_LINE // 2, LONGEST_LINE) + 1 or LONGEST_LINE
            found.append(line[:cut].rstrip())
            line = line[cut:]
        found.append(line)
    return found


def paragraphs(text: str) -> list[str]:
    """Runs of lines between empty lines."""
    return [part for part in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines_of(text))) if part.strip()]


def table_of(rows: list[list[str]]) -> str:
    """Rows of cells as lines between bars; empty rows are left out."""
    flat = ([" ".join(cell.split()) for cell in row] for row in rows)
    return "\n".join("| " + " | ".join(row) + " |" for row in flat if any(row))

"""A document -> chunks for retrieval: along its structure, with the path of headings, deterministic.

Sizes are words (about 1.3 tokens each in English). Tables and code stay whole up to `longest`; beyond it they are cut
between lines, a table's head repeated. Text that is cut overlaps by whole sentences.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ragkit.asked import PUBLIC
from ragkit.extract import Block, Document

LONGEST_KEY = 900


@dataclass(frozen=True)
class Sizes:
    """In words: what a chunk aims at where text must be cut, what it never exceeds (a section up to that stays whole),
    and what two neighbours share. Chosen on the four collections of `bench/retrieval.py`, one setting for all."""

    target: int = 160
    longest: int = 450
    overlap: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.target <= self.longest:
            raise ValueError("sizes must satisfy 0 <= overlap < target <= longest")


@dataclass(frozen=True)
class Chunk:
    """`id` is `<document key>#<number>`; `context` is the title and headings above it, ` > ` between; `digest` changes
    when what is embedded or searched changes; `page` counts from 1, 0 when the document has no pages;
    `labels` say who may see it; `attributes` are (name, value) of its document, to filter by."""

    id: str
    document: str
    number: int
    title: str
    context: str
    text: str
    digest: str
    page: int = 0
    labels: tuple[str, ...] = (PUBLIC,)
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def embedded(self) -> str:
        """The text that is embedded."""
        return f"{self.context}\n\n{self.text}" if self.context else self.text


def chunk(
    document: Document,
    sizes: Sizes = Sizes(),
    labels: tuple[str, ...] = (PUBLIC,),
    attributes: tuple[tuple[str, str], ...] = (),
) -> list[Chunk]:
    """The document's chunks in order; an empty document has none. `labels` say who may see them; they and the
    `attributes` are part of the digest."""
    known = "\x00".join((*sorted(labels), *(f"{name}={value}" for name, value in sorted(attributes))))
    chunks: list[Chunk] = []
    for path, blocks in _sections(document):
        context = " > ".join(dict.fromkeys((document.title, *path)))
        for page, text in _pack(blocks, sizes):
            digest = hashlib.sha256(f"{context}\x00{text}\x00{known}".encode()).hexdigest()[:32]
            number, key = len(chunks), document.key
            name = chunk_id(key, number)
            chunks.append(Chunk(name, key, number, document.title, context, text, digest, page, labels, attributes))
    return chunks


def chunk_id(document: str, number: int) -> str:
    """A vector's key: the document's key, shortened by a hash where it is too long, and the chunk's number."""
    if len(document) > LONGEST_KEY:
        document = document[:LONGEST_KEY] + "~" + hashlib.sha256(document.encode()).hexdigest()[:32]
    return f"{document}#{number}"


def words(text: str) -> int:
    """Words by white space; a character of Chinese, Japanese or Korean script counts as one."""
    wide = len(re.findall(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]", text))
    return len(text.split()) + wide


def _sections(document: Document) -> Iterator[tuple[tuple[str, ...], list[Block]]]:
    """Runs of blocks under one heading, with the path of headings."""
    path: dict[int, str] = {}
    blocks: list[Block] = []
    for block in document.blocks:
        if block.kind != "heading":
            blocks.append(block)
            continue
        if blocks:
            yield tuple(path[level] for level in sorted(path)), blocks
            blocks = []
        path = {level: text for level, text in path.items() if level < block.level}
        path[block.level] = block.text
    if blocks:
        yield tuple(path[level] for level in sorted(path)), blocks


def _pack(blocks: list[Block], sizes: Sizes) -> Iterator[tuple[int, str]]:
    """(page, text) of chunks. What fits into the longest chunk stays whole. Else pieces are joined up to the target; a
    piece that starts a chunk after text was cut brings the end of the one before."""
    if len({block.page for block in blocks}) == 1 and sum(words(block.text) for block in blocks) <= sizes.longest:
        yield blocks[0].page, "\n\n".join(block.text for block in blocks)
        return
    parts: list[str] = []
    size = page = 0
    tail = ""
    for block in blocks:
        for piece in _pieces(block, sizes):
            length = words(piece)
            if parts and size + length > sizes.target:
                yield page, "\n\n".join(parts)
                carried = tail if block.kind == "text" and words(tail) + length <= sizes.longest else ""
                parts, size, page = ([carried] if carried else []), words(carried), block.page
            if not parts:
                page = block.page
            parts.append(piece)
            size += length
            tail = _tail(piece, sizes.overlap) if block.kind == "text" else ""
    if parts:
        yield page, "\n\n".join(parts)


def _pieces(block: Block, sizes: Sizes) -> list[str]:
    if block.kind in ("table", "code"):
        return [block.text] if words(block.text) <= sizes.longest else _cut_lines(block, sizes.longest)
    if words(block.text) <= sizes.target:
        return [block.text]
    units = block.text.split("\n") if block.kind == "list" else sentences(block.text)
    return _join(units, "\n" if block.kind == "list" else " ", sizes.target)


def _cut_lines(block: Block, longest: int) -> list[str]:
    lines = block.text.split("\n")
    head = lines[: 2 if len(lines) > 2 and set(lines[1]) <= set("|-: \t") else 1] if block.kind == "table" else []
    room = max(1, longest - words("\n".join(head)))
    return ["\n".join((*head, piece)) for piece in _join(lines[len(head) :], "\n", room)]


def _join(units: list[str], between: str, limit: int) -> list[str]:
    """Units joined into pieces of up to `limit` words; a unit that is longer alone is cut between words."""
    pieces: list[str] = []
    open_, size = [], 0
    for unit in units:
        length = words(unit)
        if open_ and size + length > limit:
            pieces.append(between.join(open_))
            open_, size = [], 0
        if length > limit:
            pieces.extend(_cut_words(unit, limit))
            continue
        open_.append(unit)
        size += length
    if open_:
        pieces.append(between.join(open_))
    return [piece for piece in pieces if piece.strip()]


def _cut_words(text: str, limit: int) -> list[str]:
    parts = text.split()
    if len(parts) > 1 and words(text) < 2 * len(parts):
        return [" ".join(parts[at : at + limit]) for at in range(0, len(parts), limit)]
    return [text[at : at + limit] for at in range(0, len(text), limit)]


def sentences(text: str) -> list[str]:
    """Sentences by their full stops and white space, roughly."""
    found = re.split(r"(?<=[.!?。！？])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\sa-z])|(?<=[。！？])|\n{2,}", text)
    return [one.strip() for one in found if one and one.strip()]


def _tail(text: str, limit: int) -> str:
    """The last whole sentences of `text` with up to `limit` words together; nothing when that is all of it."""
    kept: list[str] = []
    size = 0
    for sentence in reversed(sentences(text)):
        size += words(sentence)
        if size > limit:
            return " ".join(reversed(kept))
        kept.append(sentence)
    return ""

"""A document -> chunks for retrieval: along its structure, with the path of headings, deterministic.

Sizes are tokens as `ragkit.tokens` estimates them. Tables, code and records stay whole up to `longest`; beyond it they
are cut between lines, a table's head repeated. Text that is cut overlaps by whole sentences.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ragkit.asked import PUBLIC
from ragkit.extract import Block, Document, UnreadableFile
from ragkit.tokens import estimate, pieces

LONGEST_KEY = 900
LONGEST_CONTEXT = 300
"""Characters of the path of headings; a longer one loses its middle."""
MOST_CHUNKS = 20_000
LEAST_WINDOW = 32
MOST_CHARACTERS = 12
"""A token: text of little but white space counts by its characters, so that no chunk is larger than an index takes."""


@dataclass(frozen=True)
class Sizes:
    """In tokens: what a chunk aims at where text must be cut, what it never exceeds (a section up to that stays whole),
    and what two neighbours share. Chosen on the four collections of `bench/retrieval.py`, one setting for all.
    `window` is what the model reads at once: a longer chunk's vector is made of several."""

    target: int = 220
    longest: int = 600
    overlap: int = 40
    window: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.target <= self.longest:
            raise ValueError("sizes must satisfy 0 <= overlap < target <= longest")
        if self.window < LEAST_WINDOW:
            raise ValueError(f"the model's window must be at least {LEAST_WINDOW} tokens")


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

    @property
    def content(self) -> str:
        """Of the embedded text alone: the same for two chunks that have the same vector."""
        return hashlib.sha256(self.embedded.encode()).hexdigest()[:24]


def chunk(
    document: Document,
    sizes: Sizes = Sizes(),
    labels: tuple[str, ...] = (PUBLIC,),
    attributes: tuple[tuple[str, str], ...] = (),
) -> list[Chunk]:
    """The document's chunks in order; an empty document has none. `labels` say who may see them; they and the
    `attributes` are part of the digest. Raises UnreadableFile for a document of more than MOST_CHUNKS."""
    known = "\x00".join((*sorted(labels), *(f"{name}={value}" for name, value in sorted(attributes))))
    chunks: list[Chunk] = []
    for path, blocks in _sections(document):
        context = _context((document.title, *path))
        for page, text in _pack(blocks, sizes):
            if len(chunks) == MOST_CHUNKS:
                raise UnreadableFile(f"{document.key}: more than {MOST_CHUNKS} passages; part it into several files")
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


def _context(path: tuple[str, ...]) -> str:
    """The title and the headings, none twice, ` > ` between."""
    text = " > ".join(dict.fromkeys(one for one in path if one))
    if len(text) <= LONGEST_CONTEXT:
        return text
    half = LONGEST_CONTEXT // 2
    return f"{text[:half].rstrip()} … {text[-half:].lstrip()}"


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
        path |= {block.level: block.text} if block.text else {}
    if blocks:
        yield tuple(path[level] for level in sorted(path)), blocks


def _length(text: str) -> float:
    """In tokens."""
    return max(estimate(text), len(text) / MOST_CHARACTERS)


def _pack(blocks: list[Block], sizes: Sizes) -> Iterator[tuple[int, str]]:
    """(page, text) of chunks. What fits into the longest chunk stays whole. Else pieces are joined up to the target; a
    piece that starts a chunk after text was cut brings the end of the one before."""
    if len({block.page for block in blocks}) == 1 and sum(_length(block.text) for block in blocks) <= sizes.longest:
        yield blocks[0].page, "\n\n".join(block.text for block in blocks)
        return
    parts: list[str] = []
    size, page = 0.0, 0
    tail = ""
    for block in blocks:
        for piece in _pieces(block, sizes):
            length = _length(piece)
            if parts and size + length > sizes.target:
                yield page, "\n\n".join(parts)
                carried = tail if block.kind == "text" and _length(tail) + length <= sizes.longest else ""
                parts, size, page = ([carried] if carried else []), _length(carried), block.page
            if not parts:
                page = block.page
            parts.append(piece)
            size += length
            tail = _tail(piece, sizes.overlap) if block.kind == "text" else ""
    if parts:
        yield page, "\n\n".join(parts)


def _pieces(block: Block, sizes: Sizes) -> list[str]:
    if block.kind in ("table", "code", "record"):
        return [block.text] if _length(block.text) <= sizes.longest else _cut_lines(block, sizes.longest)
    if _length(block.text) <= sizes.target:
        return [block.text]
    units = block.text.split("\n") if block.kind == "list" else sentences(block.text)
    return _join(units, "\n" if block.kind == "list" else " ", sizes.target)


def _cut_lines(block: Block, longest: int) -> list[str]:
    lines = block.text.split("\n")
    head = lines[: 2 if len(lines) > 2 and set(lines[1]) <= set("|-: \t") else 1] if block.kind == "table" else []
    room = longest - _length("\n".join(head))
    if room < longest / 2:
        return _join(lines, "\n", longest)
    return ["\n".join((*head, piece)) for piece in _join(lines[len(head) :], "\n", room)]


def _join(units: list[str], between: str, limit: float) -> list[str]:
    """Units joined into pieces of up to `limit` tokens; a unit that is longer alone is cut between words."""
    joined: list[str] = []
    open_, size = [], 0.0
    for unit in units:
        length = _length(unit)
        if open_ and size + length > limit:
            joined.append(between.join(open_))
            open_, size = [], 0.0
        if length > limit:
            longest = int(limit * MOST_CHARACTERS)
            joined += [one[at : at + longest] for one in pieces(unit, limit) for at in range(0, len(one), longest)]
            continue
        open_.append(unit)
        size += length
    if open_:
        joined.append(between.join(open_))
    return [piece for piece in joined if piece.strip()]


def sentences(text: str) -> list[str]:
    """Sentences by their full stops and white space, roughly."""
    found = re.split(r"(?<=[.!?。！？])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\sa-z])|(?<=[。！？])|\n{2,}", text)
    return [one.strip() for one in found if one and one.strip()]


def _tail(text: str, limit: int) -> str:
    """The last whole sentences of `text` with up to `limit` tokens together; nothing when that is all of it."""
    kept: list[str] = []
    size = 0.0
    for sentence in reversed(sentences(text)):
        size += _length(sentence)
        if size > limit:
            return " ".join(reversed(kept))
        kept.append(sentence)
    return ""

"""Bytes of a file -> a `Document` of blocks, by the ending of its name and by what the bytes say they are.

Only the standard library, and pypdf for PDF where it is installed. Nothing here follows a link, resolves an entity or
unpacks more than it was told to; what is too large, too deep or broken is refused with the reason.
"""

import re
from collections.abc import Callable

from ragkit.extract.documents import Block, Document, Kind, UnreadableFile, UnsupportedFormat, decode, suffix
from ragkit.extract.marked import markdown
from ragkit.extract.office import docx
from ragkit.extract.paged import pdf
from ragkit.extract.prose import asciidoc, plain, restructured, unwrapped
from ragkit.extract.rows import json_document, json_lines, table
from ragkit.extract.source import code
from ragkit.extract.web import html, xml

__all__ = [
    "SUFFIXES", "Block", "Document", "Kind", "UnreadableFile", "UnsupportedFormat", "decode", "extract", "html",
    "markdown", "pdf", "plain", "suffix", "supported", "unwrapped",
]  # fmt: skip

MARKDOWN = frozenset((".md", ".markdown", ".mdx"))
HTML = frozenset((".html", ".htm", ".xhtml"))
TEXT = frozenset((".txt", ".text", ".log"))
CODE = frozenset(
    (
        ".py", ".pyi", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".java", ".kt", ".scala", ".go", ".rs", ".c", ".h",
        ".cc", ".cpp", ".hpp", ".cs", ".rb", ".php", ".swift", ".lua", ".r", ".sh", ".bash", ".zsh", ".ps1", ".sql",
        ".yaml", ".yml", ".toml", ".ini", ".cfg", ".tf", ".proto", ".graphql", ".css", ".scss",
    )
)  # fmt: skip
_TEXTS: dict[str, Callable[[str, str], Document]] = {
    **dict.fromkeys(MARKDOWN, markdown),
    **dict.fromkeys(HTML, html),
    **dict.fromkeys((*TEXT, ""), plain),
    **dict.fromkeys(CODE, code),
    **dict.fromkeys((".csv", ".tsv", ".tab"), table),
    **dict.fromkeys((".jsonl", ".ndjson"), json_lines),
    **dict.fromkeys((".adoc", ".asciidoc"), asciidoc),
    ".json": json_document,
    ".rst": restructured,
}
_BYTES: dict[str, Callable[[str, bytes], Document]] = {".pdf": pdf, ".docx": docx, ".xml": xml}
SUFFIXES = frozenset((*_TEXTS, *_BYTES)) - {""}
"""Endings of names that are read, lower case; a name without an ending is read as plain text."""
_PAGE = re.compile(r"\s*(?:<!--[^>]{0,500}-->\s*)?<(?:!doctype html|html[\s>])", re.IGNORECASE)
_ZIP, _OLD_OFFICE, _RICH = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"{\\rtf"
_OTHERS = (
    (b"\x89PNG", "a picture"), (b"\xff\xd8\xff", "a picture"), (b"GIF8", "a picture"), (b"\x7fELF", "a program"),
    (b"\x1f\x8b", "a compressed file"), (_RICH, "rich text; save it as .docx"),
    (_OLD_OFFICE, "an Office file of the old format, or one with a password; save it as .docx"),
)  # fmt: skip


def supported(key: str) -> bool:
    """Whether `extract` reads a file of this name."""
    return suffix(key) in SUFFIXES | {""}


def extract(key: str, data: bytes) -> Document:
    """The document in `data`. Raises UnsupportedFormat or UnreadableFile."""
    ending = suffix(key)
    if not supported(key):
        raise UnsupportedFormat(f"{key}: files ending in {ending} are not read")
    for mark, what in _OTHERS:
        if data.startswith(mark):
            raise UnreadableFile(f"{key}: it is {what}")
    if data.startswith(b"%PDF-"):
        return pdf(key, data)
    if data.startswith(_ZIP):
        return docx(key, data)
    if ending in _BYTES and ending != ".xml" and _PAGE.match(data[:2_000].decode("latin-1")):
        return html(key, decode(data))
    if ending in _BYTES:
        return _BYTES[ending](key, data)
    try:
        text = decode(data)
    except UnreadableFile as error:
        raise UnreadableFile(f"{key}: {error}") from error
    if ending in MARKDOWN | TEXT and _PAGE.match(text[:2_000]):
        return html(key, text)
    return _TEXTS[ending](key, text)

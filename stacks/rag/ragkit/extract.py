"""Bytes of a file -> a `Document` of blocks: Markdown, HTML, plain text, and PDF where pypdf is installed.

UnsupportedFormat   nothing here reads this kind of file
UnreadableFile      the file is not what its name says
"""

import io
import itertools
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import Literal

Kind = Literal["heading", "text", "list", "table", "code"]

MARKDOWN = {".md", ".markdown", ".mdx"}
HTML = {".html", ".htm", ".xhtml"}
TEXT = {".txt", ".text", ".log", ".rst", ".csv", ".tsv", ""}
LONGEST_TITLE = 200
WRAPPED_FROM = 50
"""Characters: shorter lines are lines of verse, addresses or names, not running text."""
EARLY = 0.7
_BREAK = "\\"
_BULLET = re.compile(r"\s*(?:[-*+•–]|\(?\w{1,3}[.)])\s")


class UnsupportedFormat(ValueError):
    pass


class UnreadableFile(ValueError):
    pass


@dataclass(frozen=True)
class Block:
    """A piece of a document that belongs together. `level` is 1 to 6 for a heading; `page` counts from 1, 0 without."""

    kind: Kind
    text: str
    level: int = 0
    page: int = 0


@dataclass(frozen=True)
class Document:
    key: str
    title: str
    blocks: tuple[Block, ...]


def supported(key: str) -> bool:
    """Whether `extract` reads a file of this name."""
    return _suffix(key) in MARKDOWN | HTML | TEXT | {".pdf"}


def extract(key: str, data: bytes) -> Document:
    """The document in `data`, by the ending of its name. Raises UnsupportedFormat or UnreadableFile."""
    suffix = _suffix(key)
    if suffix == ".pdf":
        return pdf(key, data)
    if suffix in MARKDOWN:
        return markdown(key, decode(data))
    if suffix in HTML:
        return html(key, decode(data))
    if suffix in TEXT:
        return plain(key, decode(data))
    raise UnsupportedFormat(f"{key}: files ending in {suffix} are not read")


def decode(data: bytes) -> str:
    """Text in UTF-8 or UTF-16 with a mark, else Latin-1. Raises UnreadableFile for binary data."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if b"\x00" in data[:4096]:
        raise UnreadableFile("the file is binary, not text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def plain(key: str, text: str) -> Document:
    """Paragraphs are parted by empty lines; the title is the file's name."""
    paragraphs = (part.strip() for part in re.split(r"\n[ \t]*\n", _unix(text)))
    return Document(key, _name(key), tuple(Block("text", unwrapped(part)) for part in paragraphs if part))


def unwrapped(text: str) -> str:
    """A paragraph that was set in lines of one width, as running text. A line that ends early, or before an item of a
    list, stays a line."""
    lines = text.split("\n")
    longest = max(map(len, lines))
    if longest < WRAPPED_FROM:
        return text
    joined = lines[0]
    for line, following in itertools.pairwise(lines):
        ends = len(line) < EARLY * longest or _BULLET.match(following)
        joined += f"\n{following}" if ends else f" {following.strip()}"
    return joined


def markdown(key: str, text: str) -> Document:
    title, lines = _front_matter(_unix(text).split("\n"))
    blocks = _MarkdownReader(lines).read()
    if not title:
        title = next((block.text for block in blocks if block.kind == "heading"), "")
    return Document(key, (title or _name(key))[:LONGEST_TITLE], tuple(blocks))


def html(key: str, text: str) -> Document:
    reader = _HtmlReader()
    reader.feed(text)
    reader.close()
    reader.flush()
    title = reader.title or next((block.text for block in reader.blocks if block.kind == "heading"), "") or _name(key)
    return Document(key, title[:LONGEST_TITLE], tuple(reader.blocks))


def pdf(key: str, data: bytes) -> Document:
    """Raises UnsupportedFormat without pypdf, UnreadableFile for a broken or encrypted file."""
    try:
        import pypdf
    except ImportError:
        raise UnsupportedFormat(f"{key}: reading PDF needs the package pypdf") from None
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        pages = [page.extract_text() for page in reader.pages]
        title = str((reader.metadata or {}).get("/Title") or "").strip()
    except Exception as error:
        raise UnreadableFile(f"{key}: not a readable PDF: {error}") from error
    blocks = [
        Block("text", unwrapped(re.sub(r"-\n(?=[a-z])", "", part.strip())), page=number)
        for number, text in enumerate(pages, 1)
        for part in re.split(r"\n[ \t]*\n", _unix(text))
        if part.strip()
    ]
    return Document(key, (title or _name(key))[:LONGEST_TITLE], tuple(blocks))


class _MarkdownReader:
    _HEADING = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?[ \t]*#*[ \t]*$")
    _FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
    _ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")
    _UNDERLINE = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
    _RULE = re.compile(r"^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._blocks: list[Block] = []
        self._open: list[str] = []
        self._kind: Kind = "text"

    def read(self) -> list[Block]:
        at = 0
        while at < len(self._lines):
            line = self._lines[at]
            fence = self._FENCE.match(line)
            heading = self._HEADING.match(line)
            if fence:
                at = self._code(at, fence[1])
                continue
            if heading:
                self._end()
                self._heading(len(heading[1]), heading[2] or "")
            elif not line.strip():
                self._end()
            elif self._open and self._kind == "text" and self._UNDERLINE.match(line):
                text, self._open = " ".join(self._open), []
                self._heading(1 if "=" in line else 2, text)
            elif self._RULE.match(line):
                self._end()
            else:
                self._line(line)
            at += 1
        self._end()
        return self._blocks

    def _code(self, at: int, mark: str) -> int:
        self._end()
        last = at + 1
        close = re.compile(rf"^ {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$")
        while last < len(self._lines) and not close.match(self._lines[last]):
            last += 1
        text = "\n".join(self._lines[at : last + 1]).strip("\n")
        self._blocks.append(Block("code", text))
        return last + 1

    def _heading(self, level: int, text: str) -> None:
        text = _inline(text)
        if text:
            self._blocks.append(Block("heading", text, level))

    def _line(self, line: str) -> None:
        if line.lstrip().startswith("|"):
            kind: Kind = "table"
        elif self._ITEM.match(line) or (self._open and self._kind == "list"):
            kind = "list"
        else:
            kind = "text"
        if self._open and kind != self._kind:
            self._end()
        self._kind = kind
        self._open.append(line.rstrip() + (_BREAK if line.endswith("  ") else ""))

    def _joined(self) -> list[str]:
        """The open lines, those that only continue a paragraph or an item joined to it: a line break in the source is a
        space on the page."""
        joined: list[str] = []
        broken = True
        for line in self._open:
            if broken or self._ITEM.match(line):
                joined.append(line.removesuffix(_BREAK))
            else:
                joined[-1] += " " + line.removesuffix(_BREAK).strip()
            broken = line.endswith(_BREAK)
        return joined

    def _end(self) -> None:
        if self._open:
            text = "\n".join(self._open if self._kind == "table" else self._joined()).strip("\n")
            text = text if self._kind == "table" else _inline(text)
            if text:
                self._blocks.append(Block(self._kind, text))
        self._open = []


class _HtmlReader(HTMLParser):
    """Blocks of a page; scripts, styles and navigation are left out."""

    SKIPPED = frozenset({"script", "style", "noscript", "template", "svg", "nav", "iframe", "object"})
    BREAKS = frozenset(
        {"address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "figcaption"}
        | {"figure", "footer", "form", "header", "hr", "html", "main", "p", "section", "summary", "details"}
    )
    HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.title = ""
        self._skipping: list[str] = []
        self._parts: list[str] = []
        self._rows: list[list[str]] | None = None
        self._tables = 0
        self._lists = 0
        self._pre = 0
        self._heading = 0
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipping or tag in self.SKIPPED:
            if tag in self.SKIPPED:
                self._skipping.append(tag)
        elif tag == "title":
            self._in_title = True
        elif tag == "table":
            self._tables += 1
            if self._tables == 1:
                self.flush()
                self._rows = []
        elif self._rows is not None:
            self._cell(tag)
        elif tag in self.HEADINGS:
            self.flush()
            self._heading = int(tag[1])
        elif tag in ("ul", "ol"):
            if not self._lists:
                self.flush()
            self._lists += 1
        elif tag == "li":
            self._parts.append("\n- ")
        elif tag == "pre":
            self.flush()
            self._pre += 1
        elif tag == "br":
            self._parts.append("\n")
        elif tag in self.BREAKS and not self._lists:
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag == self._skipping[-1]:
                self._skipping.pop()
        elif tag == "title":
            self._in_title = False
        elif tag == "table" and self._tables:
            self._tables -= 1
            if not self._tables:
                self._table()
        elif self._rows is not None:
            return
        elif tag in self.HEADINGS:
            self.flush()
            self._heading = 0
        elif tag in ("ul", "ol") and self._lists:
            if self._lists == 1:
                self.flush()
            self._lists -= 1
        elif tag == "pre" and self._pre:
            self.flush()
            self._pre -= 1
        elif tag in self.BREAKS and not self._lists:
            self.flush()

    def handle_data(self, data: str) -> None:
        if self._skipping:
            return
        if self._in_title:
            self.title = " ".join(f"{self.title} {data}".split())
        elif self._rows is not None:
            if self._rows and self._rows[-1]:
                self._rows[-1][-1] += data
        else:
            self._parts.append(data if self._pre else re.sub(r"\s+", " ", data))

    def flush(self) -> None:
        """End the open block."""
        text = "".join(self._parts)
        self._parts = []
        text = text.strip("\n") if self._pre else "\n".join(line.strip() for line in text.split("\n") if line.strip())
        if not text.strip():
            return
        if self._heading:
            self.blocks.append(Block("heading", " ".join(text.split()), self._heading))
        else:
            self.blocks.append(Block("code" if self._pre else "list" if self._lists else "text", text))

    def _cell(self, tag: str) -> None:
        rows = self._rows or []
        if tag == "tr":
            rows.append([])
        elif tag in ("td", "th"):
            if not rows:
                rows.append([])
            rows[-1].append("")
        self._rows = rows

    def _table(self) -> None:
        rows = [[" ".join(cell.split()) for cell in row] for row in self._rows or []]
        self._rows = None
        text = "\n".join("| " + " | ".join(row) + " |" for row in rows if any(row))
        if text:
            self.blocks.append(Block("table", text))


def _front_matter(lines: list[str]) -> tuple[str, list[str]]:
    """The title in a leading `---` block, and the lines after it."""
    if lines and lines[0].strip() == "---":
        for at, line in enumerate(lines[1:200], 1):
            if line.strip() in ("---", "..."):
                found = re.search(r"^title:[ \t]*(.+)$", "\n".join(lines[1:at]), re.MULTILINE)
                return (found[1].strip().strip("\"'") if found else ""), lines[at + 1 :]
    return "", lines


def _inline(text: str) -> str:
    """Markdown's inline marks taken away: links keep their words, images their description."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    return text.strip()


def _suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower()


def _name(key: str) -> str:
    return PurePosixPath(key).stem.replace("_", " ").replace("-", " ").strip()[:LONGEST_TITLE] or key[:LONGEST_TITLE]


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")

"""HTML: what a page says, without what surrounds it; and XML as its text."""

import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from ragkit.extract.documents import Block, Document, UnreadableFile, made, table_of

DEEPEST = 200
MOST_ELEMENTS = 1_000_000


def html(key: str, text: str) -> Document:
    """The main content where the page says which it is, else all of it; navigation, asides and footers are left out.
    The meta description stands first where the text does not say it."""
    reader = _HtmlReader("main" if re.search(r"<main[\s>]", text, re.IGNORECASE) else "")
    reader.read(text)
    if not reader.blocks and reader.main:
        reader = _HtmlReader("")
        reader.read(text)
    said = reader.description and not any(reader.description in block.text for block in reader.blocks)
    first = [Block("text", reader.description)] if said else []
    return made(key, reader.title, first + reader.blocks)


class _HtmlReader(HTMLParser):
    """Blocks of a page. `main` is the element outside of which nothing counts, "" for none."""

    SKIPPED = frozenset(
        {"script", "style", "noscript", "template", "svg", "nav", "iframe", "object", "aside", "footer", "form"}
        | {"button", "select", "canvas", "audio", "video", "math"}
    )
    BREAKS = frozenset(
        {"address", "article", "blockquote", "body", "div", "fieldset", "figcaption", "figure"}
        | {"header", "hr", "html", "main", "p", "section", "summary", "details", "caption"}
    )
    HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
    VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "wbr", "source", "track", "area", "base", "col"})

    def __init__(self, main: str) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.title = self.description = ""
        self.main = main
        self._inside = 0
        self._skipping: list[str] = []
        self._parts: list[str] = []
        self._rows: list[list[list[str]]] | None = None
        self._tables = self._lists = self._terms = self._pre = self._heading = 0
        self._in_title = False

    def read(self, text: str) -> None:
        self.feed(text)
        self.close()
        if self._rows is not None:
            self._table()
        self.flush()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            known = dict(attrs)
            if (known.get("name") or "").lower() == "description":
                self.description = " ".join((known.get("content") or "").split())
        elif self._skipping or tag in self.SKIPPED or _hidden(attrs):
            if tag not in self.VOID and (not self._skipping or tag == self._skipping[0]):
                self._skipping.append(tag)
        elif tag == "title" and not self.blocks and self._rows is None:
            self._in_title = True
        elif tag == self.main:
            self.flush()
            self._inside += 1
        elif tag == "table":
            self._tables += 1
            if self._tables == 1:
                self.flush()
                self._rows = []
        elif self._rows is not None:
            self._cell(tag)
        else:
            self._open(tag)

    def _open(self, tag: str) -> None:
        if tag in self.HEADINGS:
            self.flush()
            self._heading = int(tag[1])
        elif tag in ("ul", "ol", "dl"):
            if not self._lists:
                self.flush()
            self._lists += 1
        elif tag in ("li", "dt"):
            self._parts.append("\n- ")
        elif tag == "dd":
            self._parts.append(": ")
        elif tag == "pre":
            self.flush()
            self._pre += 1
        elif tag == "br":
            self._parts.append("\n")
        elif tag in self.BREAKS and not self._lists:
            self.flush()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag == self._skipping[-1]:
                self._skipping.pop()
        elif tag == "title":
            self._in_title = False
        elif tag == self.main and self._inside:
            self.flush()
            self._inside -= 1
        elif tag == "table" and self._tables:
            self._tables -= 1
            if not self._tables:
                self._table()
        elif self._rows is not None:
            return
        elif tag in self.HEADINGS:
            self.flush()
            self._heading = 0
        elif tag in ("ul", "ol", "dl") and self._lists:
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
            self.title = f"{self.title} {data}"
        elif self.main and not self._inside:
            return
        elif self._rows is not None:
            if self._rows and self._rows[-1]:
                self._rows[-1][-1].append(data)
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
        rows = self._rows if self._rows is not None else []
        if tag == "tr":
            rows.append([])
        elif tag in ("td", "th"):
            if not rows:
                rows.append([])
            rows[-1].append([])
        elif tag == "br" and rows and rows[-1]:
            rows[-1][-1].append(" ")

    def _table(self) -> None:
        text = table_of([["".join(cell) for cell in row] for row in self._rows or []])
        self._rows = None
        if text and (self._inside or not self.main):
            self.blocks.append(Block("table", text))


def _hidden(attrs: list[tuple[str, str | None]]) -> bool:
    known = dict(attrs)
    return "hidden" in known or known.get("aria-hidden") == "true" or known.get("role") in ("navigation", "contentinfo")


def xml(key: str, data: bytes) -> Document:
    """Elements with text as `path: text` lines, a block for every child of the root. Raises UnreadableFile for broken
    XML, for one that declares entities, and for one nested too deep."""
    refuse_entities(key, data)
    blocks: list[Block] = []
    path: list[str] = []
    lines: list[str] = []
    count = 0
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(data), events=("start", "end")):
            if event == "start":
                path.append(local(element.tag))
                count += 1
                if len(path) > DEEPEST or count > MOST_ELEMENTS:
                    raise UnreadableFile(f"{key}: the XML is nested too deep or too large")
                continue
            lines += _values(path, element)
            path.pop()
            if len(path) <= 1 and lines:
                blocks.append(Block("record", "\n".join(lines)))
                lines = []
            del element[:]
    except ElementTree.ParseError as error:
        raise UnreadableFile(f"{key}: not well-formed XML: {error}") from error
    return made(key, "", blocks)


def _values(path: list[str], element: ElementTree.Element) -> list[str]:
    where = ".".join(path[1:]) or path[0]
    named = [f"{where}.{local(name)}: {value.strip()}" for name, value in element.attrib.items() if value.strip()]
    text = " ".join(" ".join((element.text or "", *(one.tail or "" for one in element))).split())
    return [*named, f"{where}: {text}"] if text else named


def local(tag: str) -> str:
    """A name without its namespace."""
    return tag.rpartition("}")[2]


def refuse_entities(key: str, data: bytes) -> None:
    """Raises UnreadableFile where XML declares what it would grow by."""
    for kind in ("ascii", "utf-16-le", "utf-16-be"):
        if "<!ENTITY".encode(kind) in data or ("<!DOCTYPE".encode(kind) in data and "[".encode(kind) in data[:4096]):
            raise UnreadableFile(f"{key}: the XML declares entities")

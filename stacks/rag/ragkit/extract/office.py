"""DOCX: headings by style or outline level, lists, tables, footnotes, links. Only zipfile and ElementTree."""

import io
import re
import zipfile
import zlib
from xml.etree import ElementTree

from ragkit.extract.documents import Block, Document, UnreadableFile, made, table_of
from ragkit.extract.web import refuse_entities

MOST_BYTES = 100_000_000
MOST_RATIO = 200
MOST_FILES = 10_000
RATIO_FROM = 1_000_000
DEEPEST = 100
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = b"http://purl.oclc.org/ooxml/wordprocessingml/main"
_LOOSE = b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_HEADING = re.compile(r"(?:heading|berschrift|titre|título|titolo|rubrik|otsikko|kop)\s*(\d)", re.IGNORECASE)


def docx(key: str, data: bytes) -> Document:
    """Raises UnreadableFile for what is no Word document, a broken or an oversized one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {name: _part(key, archive, name) for name in _names(key, archive)}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise UnreadableFile(f"{key}: not a readable Word document: {error}") from error
    if "word/document.xml" not in parts:
        raise UnreadableFile(f"{key}: not a Word document: it has no word/document.xml")
    trees = {name: _tree(key, body) for name, body in parts.items()}
    reader = _Reader(trees)
    blocks = reader.blocks(trees["word/document.xml"])
    title = ""
    if "docProps/core.xml" in trees:
        title = next((one.text or "" for one in trees["docProps/core.xml"].iter() if one.tag.endswith("}title")), "")
    return made(key, title or reader.title, blocks)


def _names(key: str, archive: zipfile.ZipFile) -> list[str]:
    wanted = ("word/document.xml", "word/styles.xml", "word/footnotes.xml", "word/endnotes.xml", "docProps/core.xml")
    found = archive.infolist()
    if len(found) > MOST_FILES:
        raise UnreadableFile(f"{key}: the archive has {len(found)} files")
    return [one.filename for one in found if one.filename in wanted]


def _part(key: str, archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of the archive, never more of it than allowed, whatever its head says."""
    info = archive.getinfo(name)
    with archive.open(info) as file:
        body = file.read(MOST_BYTES + 1)
    packed = max(1, info.compress_size)
    if len(body) > MOST_BYTES or (len(body) > RATIO_FROM and len(body) / packed > MOST_RATIO):
        raise UnreadableFile(f"{key}: {name} unpacks to far more than a document has")
    return body.replace(_STRICT, _LOOSE)


def _tree(key: str, body: bytes) -> ElementTree.Element:
    refuse_entities(key, body)
    parser = ElementTree.XMLPullParser(events=("start", "end"))
    depth = 0
    root = None
    try:
        for at in range(0, len(body), 65_536):
            parser.feed(body[at : at + 65_536])
            for event, element in parser.read_events():
                root = element if root is None else root
                depth += 1 if event == "start" else -1
                if depth > DEEPEST:
                    raise UnreadableFile(f"{key}: the document is nested too deep")
        parser.close()
    except ElementTree.ParseError as error:
        raise UnreadableFile(f"{key}: not a readable Word document: {error}") from error
    if root is None:
        raise UnreadableFile(f"{key}: not a readable Word document: a part is empty")
    return root


class _Reader:
    def __init__(self, trees: dict[str, ElementTree.Element]) -> None:
        self.title = ""
        self._levels = _levels(trees.get("word/styles.xml"))
        self._notes: dict[tuple[str, str], str] = {}
        for kind in ("footnote", "endnote"):
            tree = trees.get(f"word/{kind}s.xml")
            for note in tree.iter(f"{_W}{kind}") if tree is not None else ():
                text = " ".join(_text(one) for one in note.iter(f"{_W}p")).strip()
                if text and note.get(f"{_W}type") is None:
                    self._notes[kind, note.get(f"{_W}id") or ""] = text

    def blocks(self, root: ElementTree.Element) -> list[Block]:
        body = root.find(f"{_W}body")
        found: list[Block] = []
        items: list[str] = []
        for element in _flat(body if body is not None else root):
            if element.tag == f"{_W}tbl":
                _close(found, items)
                rows = [[_cell(cell) for cell in _inner(row, "tc")] for row in _inner(element, "tr")]
                text = table_of(rows)
                if text:
                    found.append(Block("table", text))
                found += self._noted(element)
            elif element.tag == f"{_W}p":
                self._paragraph(element, found, items)
        _close(found, items)
        return found

    def _paragraph(self, element: ElementTree.Element, found: list[Block], items: list[str]) -> None:
        text = _text(element).strip()
        if text:
            level, style = self._level(element), _style(element)
            if style.lower() == "title" and not self.title:
                self.title = " ".join(text.split())
            numbering = element.find(f"{_W}pPr/{_W}numPr")
            if level:
                _close(found, items)
                found.append(Block("heading", " ".join(text.split()), level))
            elif numbering is not None or "list" in style.lower():
                depth = numbering.find(f"{_W}ilvl") if numbering is not None else None
                inset = min(8, int(depth.get(f"{_W}val") or 0)) if depth is not None else 0
                items.append("  " * inset + "- " + text)
            else:
                _close(found, items)
                found.append(Block("text", text))
        found += self._noted(element)

    def _level(self, element: ElementTree.Element) -> int:
        outline = element.find(f"{_W}pPr/{_W}outlineLvl")
        if outline is not None and (outline.get(f"{_W}val") or "9").isdigit() and int(outline.get(f"{_W}val") or 9) < 6:
            return int(outline.get(f"{_W}val") or 0) + 1
        style = _style(element)
        named = _HEADING.match(style)
        return self._levels.get(style) or (min(6, max(1, int(named[1]))) if named else 0)

    def _noted(self, element: ElementTree.Element) -> list[Block]:
        """The notes that are referred to here, right behind the text."""
        notes = []
        for kind in ("footnote", "endnote"):
            for reference in element.iter(f"{_W}{kind}Reference"):
                text = self._notes.get((kind, reference.get(f"{_W}id") or ""))
                if text:
                    notes.append(Block("text", f"Note: {text}"))
        return notes


def _levels(styles: ElementTree.Element | None) -> dict[str, int]:
    """Style id -> level of heading, by its outline level, its name, or the style that it is based on."""
    found: dict[str, int] = {}
    based: dict[str, str] = {}
    for style in styles.iter(f"{_W}style") if styles is not None else ():
        id = style.get(f"{_W}styleId") or ""
        outline, name, base = (style.find(f"{_W}{path}") for path in (f"pPr/{_W}outlineLvl", "name", "basedOn"))
        named = _HEADING.match((name.get(f"{_W}val") or "") if name is not None else "")
        value = outline.get(f"{_W}val") or "" if outline is not None else ""
        if value.isdigit() and int(value) < 6:
            found[id] = int(value) + 1
        elif named:
            found[id] = min(6, max(1, int(named[1])))
        elif base is not None:
            based[id] = base.get(f"{_W}val") or ""
    for id, parent in based.items():
        for _ in range(10):
            if parent in found:
                found[id] = found[parent]
                break
            parent = based.get(parent, "")
    return found


def _style(element: ElementTree.Element) -> str:
    style = element.find(f"{_W}pPr/{_W}pStyle")
    return (style.get(f"{_W}val") or "") if style is not None else ""


def _flat(element: ElementTree.Element) -> list[ElementTree.Element]:
    """Paragraphs and tables in order, those inside of content controls and the like as well."""
    found: list[ElementTree.Element] = []
    for child in element:
        if child.tag in (f"{_W}p", f"{_W}tbl"):
            found.append(child)
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins", f"{_W}smartTag"):
            found += _flat(child)
    return found


def _inner(element: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    found: list[ElementTree.Element] = []
    for child in element:
        if child.tag == f"{_W}{kind}":
            found.append(child)
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins"):
            found += _inner(child, kind)
    return found


def _cell(cell: ElementTree.Element) -> str:
    return " ".join(_text(one) for one in cell.iter(f"{_W}p"))


def _text(paragraph: ElementTree.Element) -> str:
    """What a paragraph shows: deleted text and field codes are left out, a link keeps its words."""
    parts: list[str] = []
    for element in paragraph.iter():
        if element.tag == f"{_W}t":
            parts.append(element.text or "")
        elif element.tag == f"{_W}tab":
            parts.append("\t" if parts else "")
        elif element.tag in (f"{_W}br", f"{_W}cr"):
            parts.append("\n")
        elif element.tag == f"{_W}noBreakHyphen":
            parts.append("-")
    return "".join(parts)


def _close(found: list[Block], items: list[str]) -> None:
    if items:
        found.append(Block("list", "\n".join(items)))
        items.clear()

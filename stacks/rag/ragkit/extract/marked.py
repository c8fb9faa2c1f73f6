"""Markdown by its structure."""

import re

from ragkit.extract.documents import Block, Document, Kind, lines_of, made, unix

_BREAK = "\\"
_LINK = re.compile(r"!?\[([^\[\]\n]{0,1000})\]\([^)\[\s]{0,2000}(?:[ \t]+\"[^\"\n]{0,500}\")?\)")
_STRONG = re.compile(r"\*\*(?=\S)([^*\n]{1,2000})(?<=\S)\*\*|(?<!\w)__(?=\S)([^\n_]{1,2000})(?<=\S)__(?!\w)")


def markdown(key: str, text: str) -> Document:
    title, lines = _front_matter(lines_of(unix(text)))
    return made(key, title, _MarkdownReader(lines).read())


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


def _front_matter(lines: list[str]) -> tuple[str, list[str]]:
    """The title in a leading `---` block, and the lines after it."""
    if lines and lines[0].strip() == "---":
        for at, line in enumerate(lines[1:200], 1):
            if line.strip() in ("---", "..."):
                found = re.search(r"^title:[ \t]*(.+)$", "\n".join(lines[1:at]), re.MULTILINE)
                return (found[1].strip().strip("\"'") if found else ""), lines[at + 1 :]
    return "", lines


def _inline(text: str) -> str:
    """Inline marks taken away: links keep their words, images their description."""
    text = _LINK.sub(r"\1", _uncommented(text))
    return _STRONG.sub(lambda found: found[1] or found[2], text).strip()


def _uncommented(text: str) -> str:
    kept, at = [], 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start)) >= 0:
        kept.append(text[at:start])
        at = end + 3
    return "".join((*kept, text[at:]))

"""Plain text, reStructuredText and AsciiDoc: paragraphs, headings by their marks, code, lists, tables."""

import itertools
import re

from ragkit.extract.documents import Block, Document, Kind, lines_of, made, name, paragraphs, unix

WRAPPED_FROM = 50
"""Characters: shorter lines are lines of verse, addresses or names, not running text."""
EARLY = 0.7
_BULLET = re.compile(r"\s*(?:[-*+•–]|\(?\w{1,3}[.)])\s")
_ADORNED = re.compile(r"([=\-`:'\"~^_*+#<>.])\1{2,}[ \t]*$")
_DIRECTIVE = re.compile(r"\.\.[ \t]+(?:(?P<name>[\w-]+)::|\[|_|\|)[ \t]*(?P<rest>.*)$")
_ROLE = re.compile(r":[\w:+.-]{1,40}:`([^`<]{1,300}?)(?:[ \t]*<[^`>]{0,300}>)?`")
_LINK = re.compile(r"`([^`<]{1,300}?)[ \t]*<[^`>]{0,300}>`__?")
_ADOC_HEADING = re.compile(r"(={1,6})[ \t]+(\S.*)$")
_ADOC_ATTRIBUTE = re.compile(r":[\w!-]+:(?:[ \t].*)?$")
_ADOC_LINK = re.compile(r"(?:link:|https?://)[^\s\[]{1,300}\[([^\]\n]{1,300})\]")
_ADOC_FENCES = {"----": "code", "....": "code", "|===": "table"}
CODE = frozenset(("code", "code-block", "sourcecode", "literalinclude", "parsed-literal", "highlight"))
SILENT = frozenset(("toctree", "contents", "image", "figure", "index", "raw", "include", "meta", "highlight"))


def plain(key: str, text: str) -> Document:
    """Paragraphs are parted by empty lines; the title is the file's name."""
    blocks = [Block("text", unwrapped(part.strip())) for part in paragraphs(unix(text))]
    return made(key, name(key), blocks)


def unwrapped(text: str) -> str:
    """A paragraph that was set in lines of one width, as running text. A line that ends early, or before an item of a
    list, stays a line."""
    lines = text.split("\n")
    longest = max(map(len, lines))
    if longest < WRAPPED_FROM:
        return text
    joined = [lines[0]]
    for line, following in itertools.pairwise(lines):
        ends = len(line) < EARLY * longest or _BULLET.match(following)
        joined.append(f"\n{following}" if ends else f" {following.strip()}")
    return "".join(joined)


def restructured(key: str, text: str) -> Document:
    """Levels of headings are the order in which their adornments come up."""
    return made(key, "", _RstReader(lines_of(unix(text))).read())


class _RstReader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._blocks: list[Block] = []
        self._open: list[str] = []
        self._styles: list[str] = []
        self._code = False

    def read(self) -> list[Block]:
        at = 0
        while at < len(self._lines):
            line = self._lines[at]
            if not line.strip():
                self._end()
                at += 1
            elif not self._open and self._code and line[:1] in " \t":
                at, body = _indented(self._lines, at)
                self._blocks.append(Block("code", body))
                self._code = False
            elif not self._open and (found := _DIRECTIVE.match(line)):
                at, body = _indented(self._lines, at + 1)
                self._blocks += _directive(found["name"] or "", found["rest"], body)
            else:
                at += self._line(at, line)
        self._end()
        return self._blocks

    def _line(self, at: int, line: str) -> int:
        """How many lines this is: a heading has two or three."""
        self._code = False
        following, third = (self._lines[at + ahead] if at + ahead < len(self._lines) else "" for ahead in (1, 2))
        if self._open:
            self._open.append(line)
        elif _ADORNED.match(line) and following.strip() and _ADORNED.match(third) and third[:3] == line[:3]:
            self._heading(following, line[0] * 2)
            return 3
        elif _ADORNED.match(following) and len(following.rstrip()) >= len(line.rstrip()) - 1:
            self._heading(line, following[0])
            return 2
        elif not _ADORNED.match(line):
            self._open.append(line)
        return 1

    def _heading(self, text: str, style: str) -> None:
        if style not in self._styles:
            self._styles.append(style)
        level = min(6, self._styles.index(style) + 1)
        self._blocks.append(Block("heading", _rst_inline(text.strip()), level))

    def _end(self) -> None:
        body = "\n".join(self._open).rstrip()
        if body.strip() and body.strip() != "::":
            self._blocks.append(_rst_block(body))
        self._code = body.endswith("::") or (self._code and not body)
        self._open = []


def _indented(lines: list[str], at: int) -> tuple[int, str]:
    """(the line after, text) of the lines that are set in."""
    body = []
    while at < len(lines) and (not lines[at].strip() or lines[at][:1] in " \t"):
        body.append(lines[at])
        at += 1
    depth = min((len(line) - len(line.lstrip()) for line in body if line.strip()), default=0)
    return at, "\n".join(line[depth:] for line in body).strip("\n")


def _directive(kind: str, rest: str, body: str) -> list[Block]:
    options = re.compile(r"(?:[ \t]*:[\w-]+:[^\n]*\n?)+")
    body = options.sub("", body, count=1).strip("\n") if body.lstrip().startswith(":") else body
    if kind in CODE:
        return [Block("code", body)] if body.strip() else []
    if kind in SILENT or not kind:
        return []
    text = _rst_inline("\n".join(part for part in (rest, body) if part.strip()))
    return [Block("text", unwrapped(text))] if text.strip() else []


def _rst_block(text: str) -> Block:
    if re.match(r"[ \t]*(?:\+[-=+]{3,}|={2,}[ \t]+=)", text):
        return Block("table", text)
    inline = _rst_inline(re.sub(r"::[ \t]*$", ":", text))
    kind: Kind = "list" if re.match(r"[ \t]*(?:[-*+•]|\d{1,3}[.)]|#\.)[ \t]", text) else "text"
    return Block(kind, unwrapped(inline.strip()))


def _rst_inline(text: str) -> str:
    text = _LINK.sub(r"\1", _ROLE.sub(r"\1", text))
    return re.sub(r"``([^`\n]{1,300})``", r"\1", re.sub(r"\*\*([^*\n]{1,300})\*\*", r"\1", text))


def asciidoc(key: str, text: str) -> Document:
    lines, blocks = lines_of(unix(text)), []
    open_: list[str] = []

    def end() -> None:
        body = "\n".join(open_).strip("\n")
        if body.strip():
            kind: Kind = "list" if re.match(r"[ \t]*(?:[*\-.]{1,5}|\d{1,3}\.)[ \t]", body) else "text"
            blocks.append(Block(kind, unwrapped(_ADOC_LINK.sub(r"\1", body).strip())))
        open_.clear()

    at = 0
    while at < len(lines):
        line = lines[at].rstrip()
        heading = _ADOC_HEADING.match(line)
        if line in _ADOC_FENCES:
            end()
            last = at + 1
            while last < len(lines) and lines[last].rstrip() != line:
                last += 1
            body = "\n".join(lines[at + 1 : last]).strip("\n")
            if body:
                blocks.append(Block("table" if _ADOC_FENCES[line] == "table" else "code", body))
            at = last
        elif heading and not open_:
            blocks.append(Block("heading", heading[2].strip(), len(heading[1])))
        elif not line.strip():
            end()
        elif line.startswith("//") or (not open_ and (_ADOC_ATTRIBUTE.match(line) or re.match(r"\[[^\]]*\]$", line))):
            pass
        else:
            open_.append(line)
        at += 1
    end()
    return made(key, "", blocks)

"""Source code along its definitions: Python by its syntax tree, other languages by empty lines and indentation.

Small definitions that follow one another stay together, a large one is parted inside; the headings are the names.
"""

import ast
import re
import warnings

from ragkit.extract.documents import Block, Document, lines_of, made, unix

SMALL = 700
"""Characters up to which neighbours are put together."""
LARGE = 2_400
"""Characters from which a definition is parted inside."""
DEEPEST = 4
LONGEST_NAMES = 120
_CLOSER = re.compile(r"[ \t]*(?:[}\])]+[;,)]*|end|fi|done|esac|endif|else\b.*|\*/)[ \t;]*(?:(?://|#).*)?$")
_DEFINED = re.compile(
    r"\b(?:class|def|function|func|fn|interface|struct|enum|trait|impl|type|module|namespace|package|record|protocol"
    r"|object|union|macro_rules!|create\s+(?:or\s+replace\s+)?(?:table|view|function|procedure|index|trigger))\s+"
    r"(?:if\s+not\s+exists\s+)?(?:\([^)]{0,80}\)\s*)?([\w.:$<>\"`]{1,80})",
    re.IGNORECASE,
)
_CALLED = re.compile(r"([A-Za-z_$][\w$]{0,79})\s*(?:=\s*(?:async\s*)?(?:function\b|\()|\([^;]*$)")
_ENTRY = re.compile(r"[ \t]*(?:\[+([\w.\"'-]{1,80})\]+[ \t]*$|([\w.\"'/-]{1,80}):(?:[ \t]|$)|([\w.-]{1,80})[ \t]*=)")
_COMMENT = re.compile(r"[ \t]*(?:#|//|/\*|\*|--|<!--|;)")
_WORDS = frozenset(("if", "for", "while", "switch", "return", "catch", "else", "do", "try", "with", "not", "and", "or"))

Unit = tuple[int, int, str]
"""First line, the line after the last, and the name, "" without."""


def code(key: str, text: str) -> Document:
    """The title is the path, so that every passage says where it stands."""
    lines = lines_of(unix(text))
    blocks: list[Block] = []
    units = _python(lines) if key.lower().endswith((".py", ".pyi")) else None
    _emit(lines, units if units is not None else _by_shape(lines, 0, len(lines)), 1, blocks)
    return made(key, key, blocks)


def _emit(lines: list[str], units: list[Unit], level: int, blocks: list[Block]) -> None:
    waiting: list[Unit] = []
    for unit in units:
        size = _size(lines, unit)
        if waiting and size + sum(_size(lines, one) for one in waiting) > SMALL:
            _put(lines, waiting, level, blocks)
            waiting = []
        inner = _inside(lines, unit) if size > LARGE and level < DEEPEST else []
        if len(inner) > 1:
            _put(lines, waiting, level, blocks)
            waiting = []
            if unit[2]:
                blocks.append(Block("heading", unit[2], level))
            _emit(lines, inner, level + 1, blocks)
        else:
            waiting.append(unit)
    _put(lines, waiting, level, blocks)


def _put(lines: list[str], units: list[Unit], level: int, blocks: list[Block]) -> None:
    """One block of neighbouring units, under their names."""
    if not units:
        return
    text = "\n".join(lines[units[0][0] : units[-1][1]]).strip("\n")
    if text.strip():
        names = ", ".join(dict.fromkeys(name for _, _, name in units if name))
        blocks.append(Block("heading", names[:LONGEST_NAMES], level) if names else Block("heading", "", level))
        blocks.append(Block("code", text))


def _size(lines: list[str], unit: Unit) -> int:
    return sum(len(line) + 1 for line in lines[unit[0] : unit[1]])


def _python(lines: list[str]) -> list[Unit] | None:
    """None where it is no Python that this interpreter reads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    starts: list[tuple[int, str]] = []
    for node in tree.body:
        defined = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]) - 1
        starts.append((_with_comments(lines, first), node.name if defined else ""))
    return _between(starts, 0, len(lines))


def _with_comments(lines: list[str], first: int) -> int:
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return first


def _between(starts: list[tuple[int, str]], first: int, last: int) -> list[Unit]:
    """Units from one start to the next; what stands before the first start is one of its own."""
    units: list[Unit] = []
    if not starts or starts[0][0] > first:
        units.append((first, starts[0][0] if starts else last, ""))
    for at, (start, name) in enumerate(starts):
        end = starts[at + 1][0] if at + 1 < len(starts) else last
        if end > start:
            units.append((start, end, name))
    return units


def _by_shape(lines: list[str], first: int, last: int) -> list[Unit]:
    """A definition begins at a line of the least indentation, after an empty line or one that closes."""
    filled = [at for at in range(first, last) if lines[at].strip()]
    if not filled:
        return []
    depth = min(_indent(lines[at]) for at in filled)
    starts: list[int] = []
    fresh = True
    for at in range(first, last):
        line = lines[at]
        if not line.strip():
            fresh = True
        elif _indent(line) > depth:
            fresh = False
        else:
            closes = bool(_CLOSER.match(line))
            entry = bool(re.match(r"[\w\"'-]+:[ \t]*$|\[", line)) and depth == 0
            if (fresh or entry) and not closes:
                starts.append(at)
            fresh = closes
    return _between([(at, _name(lines, at, last)) for at in starts], first, last)


def _inside(lines: list[str], unit: Unit) -> list[Unit]:
    """The definitions within one, its own head first."""
    first, last, _ = unit
    depth = _indent(lines[next((at for at in range(first, last) if lines[at].strip()), first)])
    body = next((at for at in range(first + 1, last) if lines[at].strip() and _indent(lines[at]) > depth), last)
    end = last
    while end > body and _indent(lines[end - 1]) <= depth and _ends(lines[end - 1]):
        end -= 1
    inner = [one for one in _by_shape(lines, body, end) if one[1] > one[0]]
    if not inner:
        return []
    head = (first, inner[0][1], inner[0][2])
    tail = (inner[-1][0], last, inner[-1][2])
    return [head, *inner[1:-1], tail] if len(inner) > 1 else []


def _ends(line: str) -> bool:
    return not line.strip() or bool(_CLOSER.match(line))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _name(lines: list[str], first: int, last: int) -> str:
    """What the definition that begins here is called, "" when nothing says so."""
    for line in lines[first : min(last, first + 20)]:
        if not line.strip() or _COMMENT.match(line) or line.lstrip().startswith(("@", "[", "import ", "from ", "use ")):
            entry = _ENTRY.match(line) if line.startswith("[") else None
            if entry:
                return entry[1] or ""
            continue
        head = line[:400]
        found = _DEFINED.search(head)
        if found:
            return found[1].strip("\"`:")
        called = _CALLED.search(head)
        if called and called[1] not in _WORDS:
            return called[1]
        entry = _ENTRY.match(head)
        return next((one.strip("\"'") for one in entry.groups() if one), "") if entry else ""
    return ""

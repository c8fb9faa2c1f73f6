"""Filter patterns of CloudWatch Logs, compiled to tests over a message.

    term "a phrase" -excluded ?any %regex%      on any text; case matters
    { $.a.b[0] = "x*" && ($.n > 1 || $.c IS TRUE) }   on messages that are JSON objects
    [ip, ..., status = 4* || status = 500, bytes > 10]  on the words of a message; "a b" and [a b] are one word each
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

Test = Callable[[str], bool]
Path = tuple[str | int, ...]
ANY_ELEMENT = -1
MAX_PATTERN = 1_024
MAX_DEPTH = 50

_TERM = re.compile(r'\s*([-?]?)(?:"((?:[^"\\]|\\.)*)"|%([^%]+)%|([^\s"]+))')
_TOKEN = re.compile(
    r"\s*(?:(?P<sign>&&|\|\||!=|<=|>=|[=<>()])|(?P<text>\"(?:[^\"\\]|\\.)*\")|(?P<regex>%[^%]+%)"
    r"|(?P<path>\$(?:\.[A-Za-z0-9_-]+|\[\"[^\"]+\"\]|\['[^']+'\]|\[\d+\]|\[\*\])*)|(?P<word>[^\s()=<>!&|\"]+))"
)
_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[\"([^\"]+)\"\]|\['([^']+)'\]|\[(\d+)\]|\[(\*)\]")
_REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
_COLUMN = re.compile(r"(?:[^,\"%]|\"(?:[^\"\\]|\\.)*\"|%[^%]*%)+")
_WORD = re.compile(r"\[([^\]]*)\]|\"([^\"]*)\"|(\S+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z")


class BadPattern(ValueError):
    """A filter pattern that cannot be read."""


def compile_pattern(pattern: str) -> Test:
    """Raises BadPattern."""
    text = pattern.strip()
    if len(pattern) > MAX_PATTERN:
        raise BadPattern("the pattern is longer than 1024 characters")
    if not text:
        return lambda message: True
    if text.startswith("{"):
        if not text.endswith("}"):
            raise BadPattern("a JSON pattern ends with }")
        return _JsonParser(text[1:-1]).compile()
    if text.startswith("["):
        if not text.endswith("]"):
            raise BadPattern("a space-delimited pattern ends with ]")
        return _words(text[1:-1])
    return _terms(text)


def _regex(text: str) -> Test:
    if _REPEATED_GROUP.search(text):
        raise BadPattern(f"a repeated group is not supported: %{text}%")
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise BadPattern(f"the regular expression %{text}% cannot be read: {error}") from error
    return lambda message: compiled.search(message) is not None


def _contains(term: str) -> Test:
    return lambda message: term in message


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _terms(text: str) -> Test:
    required: list[Test] = []
    excluded: list[Test] = []
    optional: list[Test] = []
    place = 0
    while place < len(text):
        match = _TERM.match(text, place)
        if match is None:
            raise BadPattern(f"unreadable at: {text[place:]}")
        place = match.end()
        mark, phrase, regex, word = match.groups()
        if phrase is not None:
            test = _contains(_unquote(phrase))
        else:
            test = _regex(regex) if regex is not None else _contains(word)
        (excluded if mark == "-" else optional if mark == "?" else required).append(test)
    if optional and not required and not excluded:
        return lambda message: any(test(message) for test in optional)
    return lambda message: all(test(message) for test in required) and not any(test(message) for test in excluded)


class _JsonParser:
    """`a || b`, `a && b`, parentheses, comparisons of a path with a literal."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        place = 0
        end = len(text.rstrip())
        while place < end:
            match = _TOKEN.match(text, place)
            if match is None:
                raise BadPattern(f"unreadable at: {text[place:].strip()}")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match.group(kind)))
            place = match.end()
        self.tokens.append(("end", ""))
        self.at = self.depth = 0

    def parse(self) -> Callable[[Any], bool]:
        test = self._either()
        if self.tokens[self.at][0] != "end":
            raise BadPattern(f"unexpected {self.tokens[self.at][1]!r}")
        return test

    def compile(self) -> Test:
        test = self.parse()
        decode = msgspec.json.Decoder().decode

        def matches(message: str) -> bool:
            start = message.lstrip()[:1]
            if start != "{":
                return False
            try:
                document = decode(message)
            except msgspec.DecodeError:
                return False
            return test(document)

        return matches

    def _take(self, sign: str) -> bool:
        if self.tokens[self.at] == ("sign", sign):
            self.at += 1
            return True
        return False

    def _either(self) -> Callable[[Any], bool]:
        parts = [self._both()]
        while self._take("||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda document: any(part(document) for part in parts)

    def _both(self) -> Callable[[Any], bool]:
        parts = [self._comparison()]
        while self._take("&&"):
            parts.append(self._comparison())
        return parts[0] if len(parts) == 1 else lambda document: all(part(document) for part in parts)

    def _comparison(self) -> Callable[[Any], bool]:
        if self._take("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise BadPattern("too many parentheses")
            inner = self._either()
            self.depth -= 1
            if not self._take(")"):
                raise BadPattern("a parenthesis is not closed")
            return inner
        kind, text = self.tokens[self.at]
        self.at += 1
        path = self._selector(kind, text)
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "word":
            return self._state(path, text.upper())
        if kind != "sign" or text not in ("=", "!=", "<", "<=", ">", ">="):
            raise BadPattern(f"an operator is expected, not {text!r}")
        kind, literal = self.tokens[self.at]
        self.at += 1
        return self._compared(path, text, kind, literal)

    def _selector(self, kind: str, text: str) -> Path:
        if kind != "path":
            raise BadPattern(f"a selector such as $.name is expected, not {text!r}")
        return _path(text)

    def _compared(self, path: Path, sign: str, kind: str, literal: str) -> Callable[[Any], bool]:
        return _compare(path, sign, kind, literal)

    def _state(self, path: Path, word: str) -> Callable[[Any], bool]:
        second = self.tokens[self.at][1].upper()
        self.at += 1
        if word == "NOT" and second == "EXISTS":
            return lambda document: not _read(document, path)
        wanted = {"TRUE": True, "FALSE": False, "NULL": None}
        if word != "IS" or second not in wanted:
            raise BadPattern(f"IS TRUE, IS FALSE, IS NULL or NOT EXISTS is expected, not {word} {second}")
        value = wanted[second]
        return lambda document: any(found is value for found in _read(document, path))


def _path(text: str) -> Path:
    steps: list[str | int] = []
    for name, double, single, index, star in _STEP.findall(text):
        steps.append(int(index) if index else ANY_ELEMENT if star else name or double or single)
    return tuple(steps)


def _read(document: Any, path: Path) -> list[Any]:
    """The values at `path`: none, one, or with [*] many."""
    found = [document]
    for step in path:
        below: list[Any] = []
        for value in found:
            if isinstance(step, str):
                if isinstance(value, dict) and step in value:
                    below.append(value[step])
            elif isinstance(value, list):
                below += value if step == ANY_ELEMENT else value[step : step + 1]
        found = below
    return found


def _compare(path: Path, sign: str, kind: str, literal: str) -> Callable[[Any], bool]:
    if kind == "regex":
        matches = _regex(literal[1:-1])
        if sign not in ("=", "!="):
            raise BadPattern("a regular expression is compared with = or !=")
        return _equality(path, sign, lambda value: isinstance(value, str) and matches(value))
    if kind == "word" and _NUMBER.match(literal):
        return _numeric(path, sign, float(literal))
    if kind not in ("text", "word") or sign not in ("=", "!="):
        raise BadPattern(f"{sign} cannot be used with {literal!r}")
    text = _unquote(literal[1:-1]) if kind == "text" else literal
    if "*" not in text:
        return _equality(path, sign, lambda value: _text(value) == text)
    wild = re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)
    return _equality(path, sign, lambda value: wild.fullmatch(_text(value) or "") is not None)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value)


def _equality(path: Path, sign: str, test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    if sign == "=":
        return lambda document: any(test(value) for value in _read(document, path))

    def differs(document: Any) -> bool:
        found = _read(document, path)
        return bool(found) and not any(test(value) for value in found)

    return differs


def _numeric(path: Path, sign: str, number: float) -> Callable[[Any], bool]:
    def is_number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    if sign in ("=", "!="):
        return _equality(path, sign, lambda value: is_number(value) and value == number)
    tests: dict[str, Callable[[Any], bool]] = {
        "<": lambda value: value < number,
        "<=": lambda value: value <= number,
        ">": lambda value: value > number,
        ">=": lambda value: value >= number,
    }
    test = tests[sign]
    return lambda document: any(is_number(value) and test(value) for value in _read(document, path))


# -- words of a line ------------------------------------------------------------------------------------------------


class _ColumnParser(_JsonParser):
    """The conditions of one column; the document is a dict of the words by column name."""

    def __init__(self, text: str, names: set[str]) -> None:
        super().__init__(text)
        self._names = names

    def _selector(self, kind: str, text: str) -> Path:
        if text not in self._names:
            raise BadPattern(f"the name of a column is expected, not {text!r}")
        return (text,)

    def _compared(self, path: Path, sign: str, kind: str, literal: str) -> Callable[[Any], bool]:
        test = _compare(path, sign, kind, literal)
        if kind != "word" or not _NUMBER.match(literal):
            return test
        name = path[0]

        def on_number(document: Any) -> bool:
            word = document[name]
            return test({name: float(word) if _NUMBER.match(word) else word})

        return on_number

    def _state(self, path: Path, word: str) -> Callable[[Any], bool]:
        raise BadPattern(f"an operator is expected, not {word!r}")


def _words(text: str) -> Test:
    """A test of the words of a message, one column for each; `...` stands for any number of words."""
    columns, names = _columns(text)
    if not columns:
        return lambda message: True
    if names.count("...") > 1:
        raise BadPattern("a space-delimited pattern names the columns, with ... at most once")
    plain = [name for name in names if name != "..."]
    for name in plain:
        if not _NAME.match(name):
            raise BadPattern(f"the name of a column is expected, not {name!r}")
    known = set(plain)
    tests = [
        _ColumnParser(column, known).parse()
        for column, name in zip(columns, names, strict=True) if column != name
    ]  # fmt: skip

    def matches(message: str) -> bool:
        document = _by_column(names, message)
        return document is not None and all(test(document) for test in tests)

    return matches


def _columns(text: str) -> tuple[list[str], list[str]]:
    """The columns of a space-delimited pattern, with and without their conditions."""
    columns = [column.strip() for column in _COLUMN.findall(text)] if text.strip() else []
    return columns, [re.split(r"[\s=!<>]", column.lstrip("( "), maxsplit=1)[0] for column in columns]


def _by_column(names: list[str], message: str) -> dict[str, str] | None:
    """A message's words by column name; None when it has not as many."""
    plain = [name for name in names if name != "..."]
    found = [bracketed or quoted or word for bracketed, quoted, word in _WORD.findall(message)]
    if len(found) < len(plain) or ("..." not in names and len(found) > len(plain)):
        return None
    if "..." in names:
        gap = names.index("...")
        found = found[:gap] + found[len(found) - (len(plain) - gap) :]
    return dict(zip(plain, found, strict=True))


def extracted(pattern: str, message: str) -> dict[str, str]:
    """What a pattern reads off a message that it matches: `$name` of its columns, `$.selector` of its conditions."""
    text = pattern.strip()
    if text.startswith("["):
        document = _by_column(_columns(text[1:-1])[1], message) or {}
        return {f"${name}": word for name, word in document.items()}
    selectors = [match["path"] for match in _TOKEN.finditer(text[1:-1]) if match["path"]] if text[:1] == "{" else []
    values = {selector: selected(pattern, selector, message) for selector in selectors}
    return {selector: found for selector, value in values.items() if (found := _text(value)) is not None}


def selected(pattern: str, selector: str, message: str) -> Any:
    """The value that `$.a.b` (of JSON) or `$name` (a column of the pattern) stands for; None when there is none."""
    if selector.startswith(("$.", "$[")):
        try:
            found = _read(msgspec.json.decode(message), _path(selector))
        except msgspec.DecodeError:
            return None
        return found[0] if found else None
    text = pattern.strip()
    if not text.startswith("["):
        return None
    return (_by_column(_columns(text[1:-1])[1], message) or {}).get(selector[1:])

"""Regular expressions of guardrails, matched in linear time: no pattern can make a text take for ever.

A pattern is read by Python's own parser and run as an automaton whose states are made as they are needed. First the
reversed pattern runs backwards over the text and marks where matches begin; then the pattern runs forward from the
first mark, again after its match, and so on, which finds what `re.finditer` finds. Not supported, as on AWS: look-
around; and back references, conditions, atomic groups and possessive repeats. `TooComplex` is raised for a pattern
that is refused and for one that needs more work on a text than `MOST_WORK`.
"""

import re
import re._constants as constants  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from preheat.models.guardrails.contract import TooComplex

MOST_INSTRUCTIONS = 3_000
MOST_STATES = 4_000
"""Kept at a time; beyond it they are made anew."""
MOST_WORK = 4_000_000
"""Instructions visited for one text while states are made: some seconds."""
_WORD = re.compile(r"\w")
_WORD_ASCII = re.compile(r"\w", re.ASCII)
_ASSERTIONS = {
    constants.AT_BEGINNING: "begin", constants.AT_BEGINNING_STRING: "begin", constants.AT_BEGINNING_LINE: "line begin",
    constants.AT_END: "end", constants.AT_END_STRING: "very end", constants.AT_END_LINE: "line end",
    constants.AT_BOUNDARY: "boundary", constants.AT_NON_BOUNDARY: "inside",
}  # fmt: skip
_REFUSED = {
    constants.ASSERT: "look-around", constants.ASSERT_NOT: "look-around", constants.GROUPREF: "a back reference",
    constants.GROUPREF_EXISTS: "a condition", constants.GROUPREF_IGNORE: "a back reference",
    constants.ATOMIC_GROUP: "an atomic group", constants.POSSESSIVE_REPEAT: "a possessive repeat",
}  # fmt: skip
_CATEGORIES = {
    constants.CATEGORY_DIGIT: r"\d", constants.CATEGORY_NOT_DIGIT: r"\D", constants.CATEGORY_SPACE: r"\s",
    constants.CATEGORY_NOT_SPACE: r"\S", constants.CATEGORY_WORD: r"\w", constants.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip

Test = Callable[[str], bool]


class Step(NamedTuple):
    """`kind` is "char" (`test`), "split" (`targets`, best first), "assert" (`what`) or "match"; else `targets[0]`."""

    kind: str
    targets: tuple[int, ...] = ()
    test: Test | None = None
    what: str = ""


class SafeRegex:
    """Raises TooComplex for a pattern that cannot be read or is refused. `longest`: characters of the longest possible
    match, None when there is no bound."""

    def __init__(self, pattern: str) -> None:
        try:
            tree = parser.parse(pattern)
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise TooComplex(f"{pattern} is not a valid regular expression: {error}") from error
        flags = tree.state.flags
        most = tree.getwidth()[1]
        self.longest: int | None = None if most >= 100_000 else most
        self._forward = _Automaton(_Program(tree, flags, backwards=False).steps, ordered=True)
        self._backward = _Automaton(_Program(tree, flags, backwards=True).steps, ordered=False)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """(begin, end) of the matches that are not empty, leftmost first, without overlap."""
        self._backward.rest()
        self._forward.rest()
        starts = self._backward.marks(text)
        position, budget = 0, 4 * len(text) + 100_000
        for start in starts:
            if start < position:
                continue
            end, used = self._forward.end(text, start, budget)
            budget -= used
            if end is not None and end > start:
                yield start, end
                position = end


class _Program:
    """A pattern's tree as steps; step 0 is where it begins."""

    def __init__(self, tree: Any, flags: int, backwards: bool) -> None:
        self._backwards = backwards
        self.steps: list[Step] = []
        final = self._add(Step("match"))
        first = self._sequence(list(tree), final, flags)
        self.steps.append(Step("jump", (first,)))

    def _add(self, step: Step) -> int:
        if len(self.steps) >= MOST_INSTRUCTIONS:
            raise TooComplex(f"the regular expression is too large: more than {MOST_INSTRUCTIONS} steps")
        self.steps.append(step)
        return len(self.steps) - 1

    def _sequence(self, items: list[Any], following: int, flags: int) -> int:
        """Builds from the end; returns where the sequence begins."""
        for kind, value in items if self._backwards else reversed(items):
            following = self._item(kind, value, following, flags)
        return following

    def _item(self, kind: Any, value: Any, following: int, flags: int) -> int:
        if kind in _REFUSED:
            raise TooComplex(f"the regular expression has {_REFUSED[kind]}, which is not supported")
        if kind is constants.SUBPATTERN:
            _, added, removed, inner = value
            return self._sequence(list(inner), following, (flags | added) & ~removed)
        if kind is constants.BRANCH:
            begins = tuple(self._sequence(list(branch), following, flags) for branch in value[1])
            return self._add(Step("split", begins))
        if kind in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            return self._repeat(value, following, flags, greedy=kind is constants.MAX_REPEAT)
        if kind is constants.AT:
            return self._add(Step("assert", (following,), what=_assertion(value, flags)))
        return self._add(Step("char", (following,), _test(kind, value, flags)))

    def _repeat(self, value: Any, following: int, flags: int, greedy: bool) -> int:
        least, most, inner = value
        items = list(inner)
        if most is constants.MAXREPEAT:
            loop = self._add(Step("split", (following,)))
            body = self._sequence(items, loop, flags)
            self.steps[loop] = Step("split", (body, following) if greedy else (following, body))
            begin = loop
        else:
            begin = following
            for _ in range(most - least):
                body = self._sequence(items, begin, flags)
                begin = self._add(Step("split", (body, following) if greedy else (following, body)))
        for _ in range(least):
            begin = self._sequence(items, begin, flags)
        return begin


def _assertion(what: Any, flags: int) -> str:
    name = _ASSERTIONS[what]
    if flags & re.MULTILINE and what in (constants.AT_BEGINNING, constants.AT_END):
        name = f"line {name}"
    return f"ascii {name}" if flags & re.ASCII else name


def _test(kind: Any, value: Any, flags: int) -> Test:
    """Whether one character fits a leaf of the tree."""
    if kind is constants.ANY:
        return (lambda char: True) if flags & re.DOTALL else (lambda char: char != "\n")
    if kind is constants.LITERAL:
        exact = _one(kind, value, flags)
    elif kind is constants.NOT_LITERAL:
        other = _folded(_one(constants.LITERAL, value, flags), flags)
        return lambda char: not other(char)
    else:
        negated = value[0][0] is constants.NEGATE
        tests = [_one(inner, item, flags) for inner, item in value if inner is not constants.NEGATE]
        within = _folded(lambda char: any(test(char) for test in tests), flags)
        return (lambda char: not within(char)) if negated else within
    return _folded(exact, flags)


def _folded(test: Test, flags: int) -> Test:
    if not flags & re.IGNORECASE:
        return test
    return lambda char: test(char) or test(char.lower()) or test(char.upper())


def _one(kind: Any, value: Any, flags: int) -> Test:
    if kind is constants.LITERAL:
        wanted = chr(value)
        return lambda char: char == wanted
    if kind is constants.RANGE:
        low, high = chr(value[0]), chr(value[1])
        return lambda char: len(char) == 1 and low <= char <= high
    compiled = re.compile(_CATEGORIES[value], re.ASCII if flags & re.ASCII else 0)
    return lambda char: len(char) == 1 and compiled.match(char) is not None


class _Automaton:
    """States are tuples of waiting steps with the character before; `ordered`: the first alternative that matches wins,
    and worse ones are dropped."""

    def __init__(self, steps: list[Step], ordered: bool) -> None:
        self._steps = steps
        self._start = len(steps) - 1
        self._ordered = ordered
        self._looks = any(step.kind == "assert" for step in steps)
        self._moves: dict[tuple[tuple[int, ...], str | None], dict[str | None, tuple[bool, tuple[int, ...]]]] = {}
        self._work = 0

    def rest(self) -> None:
        """A new text: no work done yet."""
        self._work = 0

    def end(self, text: str, start: int, budget: int) -> tuple[int | None, int]:
        """Where the match that begins at `start` ends, and the characters read; with no budget left the shortest."""
        before = text[start - 1] if start else None
        waiting: tuple[int, ...] = (self._start,)
        found = None
        for at in range(start, len(text) + 1):
            char = text[at] if at < len(text) else None
            last = at == len(text) - 1 and char == "\n"
            matched, waiting = self._move(waiting, before, char, last)
            if matched:
                found = at
                if at - start > budget:
                    break
            if not waiting:
                break
            before = char
        return found, at - start + 1

    def marks(self, text: str) -> list[int]:
        """Where matches begin, ascending. Meant for the reversed pattern."""
        found = []
        waiting: tuple[int, ...] = ()
        for at in range(len(text), -1, -1):
            after = text[at] if at < len(text) else None
            before = text[at - 1] if at else None
            last = at == len(text) - 1 and after == "\n"
            matched, waiting = self._move((self._start, *waiting), after, before, last, backwards=True)
            if matched:
                found.append(at)
        found.reverse()
        return found

    def _move(
        self, waiting: tuple[int, ...], passed: str | None, char: str | None, last: bool, backwards: bool = False
    ) -> tuple[bool, tuple[int, ...]]:
        """(whether a match is complete here, what waits after `char`). `passed` is the character passed before."""
        key = (waiting, (f"{passed}\n" if last else passed) if self._looks else None)
        moves = self._moves.get(key)
        if moves is None:
            if len(self._moves) >= MOST_STATES:
                self._moves.clear()
            moves = self._moves[key] = {}
        known = moves.get(char)
        if known is None:
            before, after = (char, passed) if backwards else (passed, char)
            known = moves[char] = self._advance(waiting, before, after, last, char)
        return known

    def _advance(
        self, waiting: tuple[int, ...], before: str | None, after: str | None, last: bool, char: str | None
    ) -> tuple[bool, tuple[int, ...]]:
        seen: set[int] = set()
        following: dict[int, None] = {}
        matched = False
        stack = list(reversed(waiting))
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            step = self._steps[at]
            if step.kind == "match":
                matched = True
                if self._ordered:
                    break
            elif step.kind == "char":
                if char is not None and step.test is not None and step.test(char):
                    following[step.targets[0]] = None
            elif step.kind != "assert" or _holds(step.what, before, after, last):
                stack.extend(reversed(step.targets))
        self._work += len(seen)
        if self._work > MOST_WORK:
            raise TooComplex("a regular expression of the guardrail takes too long on this text")
        return matched, tuple(following) if self._ordered else tuple(sorted(following))


def _holds(what: str, before: str | None, after: str | None, last: bool) -> bool:
    """`last`: the next character is the text's last and a new line, before which `$` matches too."""
    word = _WORD
    if what.startswith("ascii "):
        word, what = _WORD_ASCII, what[6:]
    if what == "begin":
        return before is None
    if what == "line begin":
        return before in (None, "\n")
    if what == "very end":
        return after is None
    if what == "end":
        return after is None or last
    if what == "line end":
        return after in (None, "\n")
    edge = _is(word, before) != _is(word, after)
    return edge if what == "boundary" else not edge


def _is(word: re.Pattern[str], char: str | None) -> bool:
    return char is not None and word.match(char) is not None

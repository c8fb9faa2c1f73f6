"""The expression language, from text to a tree of frozen nodes. Attribute names are resolved here; values are not.

    condition   a = :v   a BETWEEN x AND y   a IN (x, y)   f(a, x)   NOT c   c AND c   c OR c   (c)
    update      SET p = v, ...  REMOVE p, ...  ADD p :v, ...  DELETE p :v, ...
    projection  p, p, ...
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preheat.services.dynamodb.paths import Path
from preheat.services.dynamodb.reserved import RESERVED
from preheat.services.dynamodb.values import invalid

MAX_EXPRESSION_BYTES = 4_096
MAX_OPERATORS = 300
MAX_IN_OPERANDS = 100
MAX_DEPTH = 60
MAX_PATH_STEPS = 32

_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<alias>#[A-Za-z0-9_]+)|(?P<value>:[A-Za-z0-9_]+)"
    r"|(?P<number>[0-9]+)|(?P<sign><>|<=|>=|[=<>(),.\[\]+-]))"
)
_KEYWORDS = frozenset(("AND", "OR", "NOT", "BETWEEN", "IN"))
_SECTIONS = ("SET", "REMOVE", "ADD", "DELETE")
CONDITION_FUNCTIONS = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
UPDATE_FUNCTIONS = {"if_not_exists": 2, "list_append": 2}


@dataclass(frozen=True, slots=True)
class Document:
    path: Path


@dataclass(frozen=True, slots=True)
class Placeholder:
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function of operands; `size` gives an operand, the other condition functions a truth value."""

    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    sign: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Between:
    operand: Any
    low: Any
    high: Any


@dataclass(frozen=True, slots=True)
class Among:
    operand: Any
    options: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Logic:
    """`operator` is AND or OR over two conditions, or NOT over one."""

    operator: str
    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    sign: str
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Action:
    """One clause of an update. `operand` is None for REMOVE."""

    section: str
    path: Path
    operand: Any


class Parser:
    """Reads one expression. `kind` names it in errors ("ConditionExpression"); `names` are the request's aliases.
    After parsing, `used_names` and `used_values` hold the placeholders met."""

    def __init__(self, kind: str, text: str, names: Mapping[str, str]) -> None:
        self.kind = kind
        self.names = names
        self.used_names: set[str] = set()
        self.used_values: set[str] = set()
        self.operators = 0
        self.depth = 0
        if not text.strip():
            raise self.error("The expression can not be empty;")
        if len(text.encode()) > MAX_EXPRESSION_BYTES:
            raise self.error(
                f"Expression size has exceeded the maximum allowed size; expression size: {len(text.encode())}"
            )
        self.tokens = self._tokenise(text)
        self.at = 0

    def error(self, problem: str) -> Exception:
        return invalid(f"Invalid {self.kind}: {problem}")

    def syntax_error(self, at: int | None = None) -> Exception:
        at = self.at if at is None else at
        shown = [text for _, text in self.tokens[max(at - 1, 0) : at + 2] if text != "<EOF>"]
        return self.error(f'Syntax error; token: "{self.tokens[at][1]}", near: "{" ".join(shown)}"')

    def _tokenise(self, text: str) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        place = 0
        end = len(text.rstrip())
        while place < end:
            match = _TOKEN.match(text, place)
            if match is None:
                token = text[place:].split(maxsplit=1)[0][0]
                near = (tokens[-1][1] + " " if tokens else "") + text[place:].strip()[:12]
                raise self.error(f'Syntax error; token: "{token}", near: "{near}"')
            kind = match.lastgroup or ""
            word = match.group(kind)
            if kind == "name" and word.upper() in _KEYWORDS:
                kind, word = "keyword", word
            tokens.append((kind, word))
            place = match.end()
        tokens.append(("end", "<EOF>"))
        return tokens

    # -- tokens ---------------------------------------------------------------------------------------------------

    def sign(self, text: str) -> bool:
        """Take the sign `text` if it is next."""
        if self.tokens[self.at] == ("sign", text):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.sign(text):
            raise self.syntax_error()

    def keyword(self, word: str) -> bool:
        kind, text = self.tokens[self.at]
        if kind == "keyword" and text.upper() == word:
            self.at += 1
            return True
        return False

    def finish(self) -> None:
        if self.tokens[self.at][0] != "end":
            raise self.syntax_error()

    def deeper(self) -> None:
        """One level of parentheses, NOT or calls more. Raises ValidationException when there are too many."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"The expression is nested too deeply; maximum allowed: {MAX_DEPTH}")

    def count_operator(self) -> None:
        self.operators += 1
        if self.operators > MAX_OPERATORS:
            raise self.error(
                "The expression contains too many operators; "
                f"operator count: {self.operators}, maximum allowed: {MAX_OPERATORS}"
            )

    # -- operands -------------------------------------------------------------------------------------------------

    def path(self) -> Path:
        """A document path."""
        steps: list[str | int] = [self._step()]
        while True:
            if self.sign("."):
                steps.append(self._step())
            elif self.sign("["):
                kind, text = self.tokens[self.at]
                if kind != "number":
                    raise self.syntax_error()
                self.at += 1
                self.expect("]")
                steps.append(int(text))
            else:
                break
        if len(steps) > MAX_PATH_STEPS:
            raise self.error(f"The document path has too many nesting levels; nesting levels: {len(steps)}")
        return tuple(steps)

    def _step(self) -> str:
        kind, text = self.tokens[self.at]
        if kind == "alias":
            if text not in self.names:
                raise self.error(
                    "An expression attribute name used in the document path is not defined; "
                    f"attribute name: {text}"
                )
            self.used_names.add(text)
            self.at += 1
            return self.names[text]
        if kind != "name":
            raise self.syntax_error()
        if text.upper() in RESERVED:
            raise self.error(f"Attribute name is a reserved keyword; reserved keyword: {text}")
        self.at += 1
        return text

    def placeholder(self) -> Placeholder | None:
        kind, text = self.tokens[self.at]
        if kind != "value":
            return None
        self.at += 1
        self.used_values.add(text)
        return Placeholder(text)

    def operand(self, functions: Mapping[str, int]) -> Any:
        """A path, a value, or a call of one of `functions` (name to number of arguments)."""
        found = self.placeholder()
        if found is not None:
            return found
        kind, text = self.tokens[self.at]
        if kind == "name" and self.tokens[self.at + 1] == ("sign", "("):
            return self._call(text, functions)
        return Document(self.path())

    def _call(self, function: str, functions: Mapping[str, int]) -> Call:
        if function not in CONDITION_FUNCTIONS and function not in UPDATE_FUNCTIONS:
            raise self.error(f"Invalid function name; function: {function}")
        if function not in functions:
            place = "an update" if functions is UPDATE_FUNCTIONS else "a condition"
            raise self.error(f"The function is not allowed in {place} expression; function: {function}")
        self.count_operator()
        self.deeper()
        self.at += 1
        self.expect("(")
        arguments = [self.operand(functions)]
        while self.sign(","):
            arguments.append(self.operand(functions))
        self.expect(")")
        self.depth -= 1
        if len(arguments) != functions[function]:
            raise self.error(
                "Incorrect number of operands for operator or function; "
                f"operator or function: {function}, number of operands: {len(arguments)}"
            )
        if function in ("attribute_exists", "attribute_not_exists", "if_not_exists") and not isinstance(
            arguments[0], Document
        ):
            raise self.error(f"Operator or function requires a document path; operator or function: {function}")
        if any(isinstance(part, Call) and is_condition(part) for part in arguments):
            inner = next(part.function for part in arguments if isinstance(part, Call))
            raise self.error(f"The function is not allowed to be used this way in an expression; function: {inner}")
        return Call(function, tuple(arguments))

    # -- the three languages --------------------------------------------------------------------------------------

    def condition(self) -> Any:
        """A whole condition, filter or key condition."""
        node = self._either()
        self.finish()
        self._require_condition(node)
        return node

    def _require_condition(self, node: Any) -> None:
        if is_condition(node):
            return
        if isinstance(node, Call):
            raise self.error(
                f"The function is not allowed to be used this way in an expression; function: {node.function}"
            )
        raise self.syntax_error()

    def _either(self) -> Any:
        left = self._both()
        while self.keyword("OR"):
            left = self._logic("OR", left, self._both())
        return left

    def _both(self) -> Any:
        left = self._negated()
        while self.keyword("AND"):
            left = self._logic("AND", left, self._negated())
        return left

    def _logic(self, operator: str, *parts: Any) -> Logic:
        self.count_operator()
        for part in parts:
            self._require_condition(part)
        return Logic(operator, parts)

    def _negated(self) -> Any:
        if self.keyword("NOT"):
            self.deeper()
            inner = self._logic("NOT", self._negated())
            self.depth -= 1
            return inner
        return self._comparison()

    def _comparison(self) -> Any:
        start = self.at
        if self.sign("("):
            doubled = self.tokens[self.at] == ("sign", "(")
            self.deeper()
            left = self._either()
            self.depth -= 1
            inner_end = self.at
            self.expect(")")
            if doubled and self._spans(start + 1, inner_end - 1):
                raise self.error("The expression has redundant parentheses;")
            if is_condition(left):
                return left
        else:
            left = self.operand(CONDITION_FUNCTIONS)
        kind, text = self.tokens[self.at]
        if kind == "sign" and text in ("=", "<>", "<", "<=", ">", ">="):
            self.at += 1
            self.count_operator()
            return self._compared(text, left, self._plain_operand())
        if self.keyword("BETWEEN"):
            self.count_operator()
            low = self._plain_operand()
            if not self.keyword("AND"):
                raise self.syntax_error()
            return Between(self._value_like(left), low, self._plain_operand())
        if self.keyword("IN"):
            self.count_operator()
            return self._among(left)
        return left

    def _spans(self, first: int, last: int) -> bool:
        """Whether the parenthesis opened at token `first` closes exactly at token `last`."""
        depth = 0
        for at in range(first, last + 1):
            text = self.tokens[at][1]
            depth += (text == "(") - (text == ")")
            if depth == 0:
                return at == last
        return False

    def _plain_operand(self) -> Any:
        if self.sign("("):
            self.deeper()
            inner = self._plain_operand()
            self.depth -= 1
            self.expect(")")
            return inner
        return self._value_like(self.operand(CONDITION_FUNCTIONS))

    def _value_like(self, node: Any) -> Any:
        if is_condition(node):
            if isinstance(node, Call):
                raise self.error(
                    f"The function is not allowed to be used this way in an expression; function: {node.function}"
                )
            raise self.syntax_error()
        return node

    def _compared(self, sign: str, left: Any, right: Any) -> Compare:
        left = self._value_like(left)
        if isinstance(left, Document) and left == right:
            raise self.error(
                "The first operand must be distinct from the remaining operands for this operator or function; "
                f"operator: {sign}, first operand: [{'.'.join(map(str, left.path))}]"
            )
        return Compare(sign, left, right)

    def _among(self, left: Any) -> Among:
        self.expect("(")
        options = [self._plain_operand()]
        while self.sign(","):
            options.append(self._plain_operand())
        self.expect(")")
        if len(options) > MAX_IN_OPERANDS:
            raise self.error(
                "Incorrect number of operands for operator or function; "
                f"operator or function: IN, number of operands: {len(options)}"
            )
        return Among(self._value_like(left), tuple(options))

    def projection(self) -> tuple[Path, ...]:
        """A whole projection."""
        paths = [self.path()]
        while self.sign(","):
            paths.append(self.path())
        self.finish()
        return tuple(paths)

    def update(self) -> tuple[Action, ...]:
        """A whole update."""
        actions: list[Action] = []
        seen: set[str] = set()
        while self.tokens[self.at][0] != "end":
            section = self.tokens[self.at][1].upper()
            if self.tokens[self.at][0] != "name" or section not in _SECTIONS:
                raise self.syntax_error()
            if section in seen:
                raise self.error(f'The "{section}" section can only be used once in an update expression;')
            seen.add(section)
            self.at += 1
            actions.append(self._action(section))
            while self.sign(","):
                actions.append(self._action(section))
        return tuple(actions)

    def _action(self, section: str) -> Action:
        path = self.path()
        if section == "REMOVE":
            return Action(section, path, None)
        self.count_operator()
        if section == "SET":
            self.expect("=")
            return Action(section, path, self._sum())
        value = self.placeholder()
        if value is None:
            raise self.syntax_error()
        return Action(section, path, value)

    def _sum(self) -> Any:
        left = self._term()
        for sign in ("+", "-"):
            if self.sign(sign):
                self.count_operator()
                return Arithmetic(sign, left, self._term())
        return left

    def _term(self) -> Any:
        if self.sign("("):
            self.deeper()
            inner = self._sum()
            self.depth -= 1
            self.expect(")")
            return inner
        return self.operand(UPDATE_FUNCTIONS)


def is_condition(node: Any) -> bool:
    """Whether a node has a truth value (not an operand)."""
    if isinstance(node, Call):
        return node.function != "size" and node.function in CONDITION_FUNCTIONS
    return isinstance(node, Compare | Between | Among | Logic)

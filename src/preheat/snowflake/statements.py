"""A request's text -> its statements: parted at semicolons, each with its tokens and its kind."""

import re
from dataclasses import dataclass
from typing import Any

from preheat.snowflake.errors import SnowflakeError, syntax, unsupported

KEYWORD = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|//[^\n]*(?:\n|$)|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
READING = frozenset(("SELECT", "WITH", "SHOW", "DESC", "DESCRIBE", "USE", "EXPLAIN", "VALUES", "BEGIN", "START", "SET"))
ENDING = frozenset(("COMMIT", "ROLLBACK"))
MULTI = 0xA000
KINDS = {
    "SELECT": 0x1000, "WITH": 0x1000, "VALUES": 0x1000, "INSERT": 0x3100, "UPDATE": 0x3200,
    "DELETE": 0x3300, "MERGE": 0x3400, "TRUNCATE": 0x6000, "CREATE": 0x6000, "ALTER": 0x6000, "DROP": 0x6000,
    "SHOW": 0x7100, "DESC": 0x7200, "DESCRIBE": 0x7200, "USE": 0x4600, "BEGIN": 0x5400, "START": 0x5400,
    "COMMIT": 0x5100, "ROLLBACK": 0x5200,
}  # fmt: skip
"""`statementTypeId` as drivers tell statements apart: DML is 0x3000 to 0x3FFF."""


ELSEWHERE = frozenset(
    ("EXPLAIN", "GRANT", "REVOKE", "CALL", "PUT", "GET", "COPY", "LIST", "LS", "REMOVE", "RM", "UNDROP", "COMMENT",
     "SET", "UNSET", "EXECUTE", "DECLARE", "LET")
)  # fmt: skip
"""Snowflake's statements that this endpoint does not have."""


@dataclass(frozen=True)
class Statement:
    """`tokens` are sqlglot's; `keyword` is the first word."""

    text: str
    tokens: tuple[Any, ...]
    keyword: str

    @property
    def type_id(self) -> int:
        return KINDS.get(self.keyword, 0x4000)


def keyword(text: str) -> str:
    found = KEYWORD.match(text)
    return found[1].upper() if found else ""


def writes(text: str) -> bool:
    """Whether the request may change something, by its first words; of several statements, whether any of them may."""
    if ";" not in text.rstrip().rstrip(";"):
        return keyword(text) not in READING | ENDING and not text.upper().lstrip().startswith("ALTER SESSION")
    return any(keyword(part) not in READING | ENDING for part in text.split(";") if part.strip())


def split(text: str) -> list[Statement]:
    """`?` becomes `:1`, `:2` and so on. Raises 001003 when the text cannot be read, 000900 when it is empty."""
    from sqlglot.dialects.snowflake import Snowflake
    from sqlglot.errors import TokenError
    from sqlglot.tokens import Token, TokenType

    try:
        tokens = Snowflake().tokenize(text)
    except TokenError as error:
        raise syntax(1, 0, str(error)[-20:]) from error
    statements: list[Statement] = []
    part: list[Any] = []
    asked = 0
    for token in tokens:
        if token.token_type == TokenType.SEMICOLON:
            _close(part, text, statements)
            part, asked = [], 0
        elif token.token_type in (TokenType.QDCOLON, TokenType.PLACEHOLDER):
            asked, at = asked + 1, token.start
            part.append(Token(TokenType.COLON, ":", token.line, token.col, at, at))
            part.append(Token(TokenType.NUMBER, str(asked), token.line, token.col, at, at))
            if token.token_type == TokenType.QDCOLON:
                part.append(Token(TokenType.DCOLON, "::", token.line, token.col, at + 1, at + 2))
        else:
            part.append(token)
    _close(part, text, statements)
    if not statements:
        raise SnowflakeError(900, "42601", "SQL compilation error:\nEmpty SQL statement.")
    return statements


def _close(tokens: list[Any], text: str, statements: list[Statement]) -> None:
    if tokens:
        piece = text[tokens[0].start : tokens[-1].end + 1]
        statements.append(Statement(piece, tuple(tokens), keyword(piece)))


def parsed(statement: Statement, whole: str) -> Any:
    """sqlglot's tree. Raises 001003 with line and position."""
    from sqlglot.dialects.snowflake import Snowflake
    from sqlglot.errors import ParseError

    if statement.keyword not in KINDS:
        if statement.keyword in ELSEWHERE:
            raise unsupported(statement.keyword)
        raise syntax(1, 0, statement.text.split()[0])
    dialect = Snowflake()
    try:
        trees = dialect.parser().parse(list(statement.tokens), whole)
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        near = first.get("highlight") or ""
        raise syntax(first.get("line") or 1, max(0, (first.get("col") or 1) - len(near)), near) from error
    tree = trees[0]
    if tree is None or tree.key == "command":
        raise unsupported(" ".join(statement.text.upper().split()[:2]))
    return tree


def projections(statement: Statement, whole: str) -> tuple[str, ...]:
    """What stands between the outermost SELECT and its FROM, parted at the commas: the names of unnamed columns."""
    depth, begun, parts, part = 0, False, [], []
    for token in statement.tokens:
        kind = token.token_type.name
        if begun and depth == 0 and kind in ("COMMA", "FROM", "UNION", "ORDER_BY", "LIMIT", "WHERE"):
            parts.append(part)
            part = []
            if kind != "COMMA":
                break
            continue
        depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
        if begun:
            part.append(token)
        elif depth == 0 and kind == "SELECT":
            begun = True
    else:
        parts.append(part)
    skipped = ("DISTINCT", "ALL")
    if parts and parts[0] and parts[0][0].token_type.name in skipped:
        parts[0] = parts[0][1:]
    return tuple(whole[one[0].start : one[-1].end + 1] for one in parts if one)

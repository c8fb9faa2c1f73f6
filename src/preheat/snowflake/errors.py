"""Failures in Snowflake's codes, SQL states and words; DuckDB's failures translated into them.

Codes and texts are those of Snowflake's documentation and of messages that its users report. What DuckDB says and no
rule knows is 000603, with DuckDB's words.
"""

import re
from collections.abc import Callable
from typing import Any

COMPILATION = "SQL compilation error:"
TIMED_OUT = "Statement '{query}' has waited longer than LOCK_TIMEOUT for the lock of another transaction."
NOT_CURRENT = (
    "Cannot perform {what}. This session does not have a current {kind}."
    " Call 'USE {kind_upper}', or use a qualified name."
)


class SnowflakeError(Exception):
    """`code` as Snowflake numbers it, `state` the SQLSTATE."""

    def __init__(self, code: int, state: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.state = state
        self.message = message

    @property
    def text_code(self) -> str:
        return f"{self.code:06d}"


def missing(kind: str, name: str) -> SnowflakeError:
    """`kind` is Object, Schema, Database or so, as Snowflake writes it."""
    state = "42S02" if kind in ("Object", "Table", "View") else "02000"
    return SnowflakeError(2003, state, f"{COMPILATION}\n{kind} '{name}' does not exist or not authorized.")


def present(name: str) -> SnowflakeError:
    return SnowflakeError(2002, "42710", f"{COMPILATION}\nObject '{name}' already exists.")


def syntax(line: int, position: int, near: str) -> SnowflakeError:
    near = near or "<EOF>"
    text = f"{COMPILATION}\nsyntax error line {line} at position {position} unexpected '{near}'."
    return SnowflakeError(1003, "42000", text)


def unsupported(what: str) -> SnowflakeError:
    return SnowflakeError(2, "0A000", f"Unsupported feature '{what}'.")


def without_current(what: str, kind: str) -> SnowflakeError:
    text = NOT_CURRENT.format(what=what, kind=kind, kind_upper=kind.upper())
    return SnowflakeError(90105 if kind == "database" else 90106, "22000", text)


def identifier(name: str, place: tuple[int, int]) -> SnowflakeError:
    text = f"SQL compilation error: error line {place[0]} at position {place[1]}\ninvalid identifier '{name}'"
    return SnowflakeError(904, "42000", text)


def argument_types(function: str, types: str, place: tuple[int, int]) -> SnowflakeError:
    text = f"SQL compilation error: error line {place[0]} at position {place[1]}\n"
    return SnowflakeError(1044, "42P13", f"{text}Invalid argument types for function '{function}': ({types})")


def canceled() -> SnowflakeError:
    return SnowflakeError(604, "57014", "SQL execution canceled")


Locate = Callable[[str], tuple[int, int]]
Written = Callable[[str], str]


def translated(error: Any, locate: Locate, written: Written) -> SnowflakeError:
    """DuckDB's exception as Snowflake's. `locate` gives line and position of an identifier in the statement, `written`
    a table's name as the statement has it."""
    text = str(error).split("\n\nLINE ")[0]
    if type(error).__name__ == "InterruptException":
        return canceled()
    for pattern, make in RULES:
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return make(found, locate, written)
    first = text.split("\n")[0]
    return SnowflakeError(603, "XX000", f"SQL execution internal error: {first}")


def _fixed(code: int, state: str, message: str) -> Callable[..., SnowflakeError]:
    def make(found: re.Match[str], locate: Locate, written: Written) -> SnowflakeError:
        return SnowflakeError(code, state, message.format(*found.groups()))

    return make


def _table(found: re.Match[str], locate: Locate, written: Written) -> SnowflakeError:
    return missing("Object", written(found[1].strip('"')))


def _schema(found: re.Match[str], locate: Locate, written: Written) -> SnowflakeError:
    return missing("Schema", found[1])


def _column(found: re.Match[str], locate: Locate, written: Written) -> SnowflakeError:
    name = found[found.lastindex or 1]
    return identifier(name, locate(name))


def _arguments(found: re.Match[str], locate: Locate, written: Written) -> SnowflakeError:
    name, types = found[1].upper().removeprefix("SF_"), found[2].replace("_LITERAL", "").replace("STRING", "VARCHAR")
    return argument_types(name, types, locate(name))


def _function(found: re.Match[str], locate: Locate, written: Written) -> SnowflakeError:
    return SnowflakeError(2140, "42601", f"{COMPILATION}\nUnknown function {found[1].upper()}")


DIMENSION = _fixed(220000, "22000", "Array-like value being cast to a vector has incorrect dimension")
RULES: tuple[tuple[str, Callable[..., SnowflakeError]], ...] = (
    (r"does not exist because schema \"([^\"]+)\"", _schema),
    (r"(?:Table|View) with name \"?(.+?)\"? does not exist", _table),
    (r"Schema with name \"?(.+?)\"? does not exist", _schema),
    (r"(?:Table|View|Schema|Sequence|Index) with name \"?(.+?)\"? already exists",
     lambda found, locate, written: present(written(found[1]))),
    (r"Function with name \"?(\w+)\"? does not exist", _function),
    (r"Referenced update column \"?(\S+?)\"? not found", _column),
    (r"Referenced column (?:\S+\.)?\"([^\"]+)\" not found", _column),
    (r"Referenced column \"([^\"]+)\" was not found", _column),
    (r"Referenced table \"([^\"]+)\" not found", _column),
    (r"Table \"[^\"]+\" does not have a column (?:named|with name) \"([^\"]+)\"", _column),
    (r"Values list \"[^\"]+\" does not have a column named \"([^\"]+)\"", _column),
    (r"does not have a column with name \"([^\"]+)\"", _column),
    (r"Ambiguous reference to column name \"?([^\"]+?)\"? ", _fixed(2028, "42601",
     "SQL compilation error: ambiguous column name '{0}'")),
    (r"column \"([^\"]+)\" must appear in the GROUP BY", _fixed(979, "42601",
     COMPILATION + "\n[{0}] is not a valid group by expression")),
    (r"has (\d+) columns but (\d+) values were supplied", _fixed(2020, "21S01",
     COMPILATION + "\nInsert value list does not match column list expecting {0} but got {1}")),
    (r"NOT NULL constraint failed", _fixed(100072, "22000", "NULL result in a non-nullable column")),
    (r"CHECK constraint failed", _fixed(100078, "22000", "String is too long and would be truncated")),
    (r"(?:list with length|size of the array must match|array with length)", DIMENSION),
    (r"Array arguments must be of the same size", DIMENSION),
    (r"Division by zero", _fixed(100051, "22012", "Division by zero")),
    (r"Malformed JSON at byte \d+ of input: (.+?)\.", _fixed(100069, "22P02", "Error parsing JSON: {0}")),
    (r"Failed to cast value to numerical: (.+)", _fixed(100071, "22000",
     "Failed to cast variant value {0} to FIXED")),
    (r"Could not (?:convert|cast) (?:string|value) ['\"]?(.+?)['\"]? to BOOL", _fixed(100037, "22018",
     "Boolean value '{0}' is not recognized")),
    (r"Could not convert string ['\"](.*)['\"] to", _fixed(100038, "22018",
     "Numeric value '{0}' is not recognized")),
    (r"Could not cast value (\S+) to DECIMAL", _fixed(100039, "22003", "Numeric value '{0}' is out of range")),
    (r"(?:timestamp field).*?: +\"([^\"]*)\"", _fixed(100035, "22007", "Timestamp '{0}' is not recognized")),
    (r"(?:date field).*?: +\"([^\"]*)\"", _fixed(100040, "22007", "Date '{0}' is not recognized")),
    (r"(?:time field).*?: +\"([^\"]*)\"", _fixed(100108, "22007", "Time '{0}' is not recognized")),
    (r"Overflow in|Out of Range", _fixed(100039, "22003", "Number out of representable range")),
    (r"More than one row returned by a subquery", _fixed(90150, "22000",
     "Single-row subquery returns more than one row.")),
    (r"(?:No function matches|best candidate function).*?['\"](\w+)\(([^)]*)\)", _arguments),
    (r"(?i)conflict", _fixed(625, "57014", "The transaction was aborted: another one changed the same rows first.")),
    (r"UNIQUE|Duplicate key", _fixed(100090, "42P18", "Duplicate row detected during DML action")),
)  # fmt: skip

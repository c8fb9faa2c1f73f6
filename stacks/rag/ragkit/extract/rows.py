"""CSV, TSV and JSON as records: what a value is called stands beside it."""

import csv
import json
from collections.abc import Iterator
from typing import Any

from ragkit.extract.documents import Block, Document, UnreadableFile, lines_of, made, name, unix

DELIMITERS = ",\t;|"
SAMPLE = 100
MOST_RECORDS = 500_000
LONGEST_HEADER = 100
DEEPEST = 100
SHORT_LIST = 50


def table(key: str, text: str) -> Document:
    """Every row a record of `name: value` lines; without a row of names, the values between bars."""
    lines = lines_of(unix(text))
    delimiter = "\t" if key.lower().endswith((".tsv", ".tab")) else _delimiter(lines)
    try:
        rows = [[cell.strip() for cell in row] for row in _parse(lines, delimiter)]
    except csv.Error as error:
        raise UnreadableFile(f"{key}: not a readable table: {error}") from error
    rows = [row for row in rows if any(row)]
    if len(rows) > MOST_RECORDS:
        raise UnreadableFile(f"{key}: more than {MOST_RECORDS} rows; part it into several files")
    names = _names(rows)
    if names:
        records = ["\n".join(_pairs(names, row)) for row in rows[1:]]
    else:
        records = [" | ".join(row) for row in rows]
    return made(key, name(key), [Block("record", record) for record in records if record])


def _parse(lines: list[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader((line + "\n" for line in lines), delimiter=delimiter, skipinitialspace=True)


def _delimiter(lines: list[str]) -> str:
    """What parts most rows of the beginning into the same number of cells, more than one."""
    sample = [line for line in lines[:SAMPLE] if line.strip()]
    best, most = ",", 0.0
    for candidate in DELIMITERS:
        try:
            counts = [len(row) for row in _parse(sample, candidate)]
        except csv.Error:
            continue
        usual = max(set(counts), key=lambda count: (counts.count(count), count), default=0)
        agreement = counts.count(usual) / max(1, len(counts)) * (usual > 1)
        if agreement > most:
            best, most = candidate, agreement
    return best


def _names(rows: list[list[str]]) -> list[str]:
    """The first row, where it is one of names: all different, all short, none a number."""
    if len(rows) < 2 or len(rows[0]) < 2:
        return []
    filled = [cell for cell in rows[0] if cell]
    plain = all(len(cell) <= LONGEST_HEADER and not _number(cell) for cell in filled)
    if not plain or len(set(filled)) < len(filled) or len(filled) < len(rows[0]) - 1:
        return []
    return rows[0]


def _number(text: str) -> bool:
    try:
        float(text.replace(",", ".").strip("%€$£ "))
    except ValueError:
        return False
    return True


def _pairs(names: list[str], row: list[str]) -> Iterator[str]:
    for at, value in enumerate(row):
        called = names[at] if at < len(names) and names[at] else f"column {at + 1}"
        if value:
            yield f"{called}: {value}"


def json_document(key: str, text: str) -> Document:
    """A list gives a record an element; an object one of its plain members and one for each element of its lists of
    objects."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise UnreadableFile(f"{key}: the JSON is nested too deep") from None
    except ValueError as error:
        if text.lstrip()[:1] == "{" and "\n" in text.strip() and "Extra data" in str(error):
            return json_lines(key, text)
        raise UnreadableFile(f"{key}: not readable JSON: {error}") from error
    return _records(key, list(_parts(found)), _title(found))


def json_lines(key: str, text: str) -> Document:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(("", json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UnreadableFile(f"{key}: line {number} is not readable JSON: {str(error)[:200]}") from error
    return _records(key, found, "")


def _title(found: Any) -> str:
    if isinstance(found, dict):
        for member in ("title", "name"):
            if isinstance(found.get(member), str):
                return found[member]
    return ""


def _records(key: str, parts: list[tuple[str, Any]], title: str) -> Document:
    if len(parts) > MOST_RECORDS:
        raise UnreadableFile(f"{key}: more than {MOST_RECORDS} records; part it into several files")
    texts = ("\n".join(_lines(key, path, value)) for path, value in parts)
    return made(key, title or name(key), [Block("record", text) for text in texts if text])


def _parts(found: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(found, list):
        yield from (("", one) for one in found)
    elif isinstance(found, dict):
        lists = {path: value for path, value in found.items() if _of_objects(value)}
        yield "", {path: value for path, value in found.items() if path not in lists}
        for path, value in lists.items():
            yield from ((path, one) for one in value)
    else:
        yield "", found


def _of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _lines(key: str, path: str, value: Any) -> Iterator[str]:
    """`path: value` lines, paths like `a.b[0].c`; a list of plain values is one line."""
    waiting: list[tuple[str, Any, int]] = [(path, value, 0)]
    while waiting:
        where, found, depth = waiting.pop()
        if depth > DEEPEST:
            raise UnreadableFile(f"{key}: the JSON is nested too deep")
        if isinstance(found, dict):
            waiting += reversed([(f"{where}.{one}" if where else str(one), found[one], depth + 1) for one in found])
        elif isinstance(found, list) and found and not any(isinstance(one, dict | list) for one in found):
            for at in range(0, len(found), SHORT_LIST):
                said = ", ".join(_said(one) for one in found[at : at + SHORT_LIST])
                yield f"{where}: {said}" if where else said
        elif isinstance(found, list):
            waiting += reversed([(f"{where}[{at}]", one, depth + 1) for at, one in enumerate(found)])
        elif found is not None and found != "":
            yield f"{where}: {_said(found)}" if where else _said(found)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


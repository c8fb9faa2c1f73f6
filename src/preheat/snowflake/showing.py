"""SHOW, DESCRIBE, USE, ALTER SESSION, users: statements that are read by their words, and what they ask DuckDB."""

import re
from dataclasses import dataclass
from typing import Any

from preheat.snowflake.errors import SnowflakeError, syntax, unsupported
from preheat.snowflake.information import SHOWN
from preheat.snowflake.names import Namespace, literal, quoted

IDENTIFIER = r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
DOTTED = rf"{IDENTIFIER}(?:\.{IDENTIFIER})*"
SHOW = re.compile(
    r"SHOW\s+(?:TERSE\s+)?(?P<what>[A-Z]+)(?:\s+HISTORY)?(?:\s+LIKE\s+'(?P<like>(?:[^']|'')*)')?"
    rf"(?:\s+IN\s+(?:(?P<kind>ACCOUNT|DATABASE|SCHEMA|TABLE|VIEW|SESSION)\b\s*)?(?P<place>{DOTTED})?)?"
    r"(?:\s+STARTS\s+WITH\s+'(?P<starts>(?:[^']|'')*)')?(?:\s+LIMIT\s+(?P<limit>\d+))?\s*$",
    re.IGNORECASE,
)
DESCRIBE = re.compile(rf"DESC(?:RIBE)?\s+(?:(?P<kind>TABLE|VIEW)\s+)?(?P<name>{DOTTED})\s*$", re.IGNORECASE)
USE = re.compile(
    rf"USE\s+(?:(?P<kind>DATABASE|SCHEMA|WAREHOUSE|ROLE|SECONDARY\s+ROLES)\s+)?(?P<name>{DOTTED})\s*$", re.IGNORECASE
)
SESSION = re.compile(r"ALTER\s+SESSION\s+(?P<verb>SET|UNSET)\s+(?P<rest>.+)$", re.IGNORECASE | re.DOTALL)
SETTING = re.compile(r"(?P<name>[A-Za-z_]+)\s*=\s*(?P<value>'(?:[^']|'')*'|[\w.+-]+)\s*,?\s*")
USER = re.compile(
    rf"(?P<verb>CREATE(?:\s+OR\s+REPLACE)?|ALTER|DROP)\s+USER\s+(?P<quiet>IF\s+(?:NOT\s+)?EXISTS\s+)?(?P<name>{IDENTIFIER})"
    r"\s*(?P<rest>.*)$", re.IGNORECASE | re.DOTALL,
)  # fmt: skip
PARAMETERS: dict[str, tuple[type, Any]] = {
    "AUTOCOMMIT": (bool, True),
    "LOCK_TIMEOUT": (int, 43_200),
    "STATEMENT_TIMEOUT_IN_SECONDS": (int, 172_800),
    "MULTI_STATEMENT_COUNT": (int, 1),
    "TIMEZONE": (str, "America/Los_Angeles"),
    "QUERY_TAG": (str, ""),
}
"""Session parameters that act here, with Snowflake's defaults."""


@dataclass(frozen=True)
class Setting:
    """One ALTER SESSION: `value` None sets the default again."""

    name: str
    value: Any


def parts_of(dotted: str) -> list[str]:
    """The names of a dotted name, folded."""
    found = re.findall(IDENTIFIER, dotted)
    return [one[1:-1].replace('""', '"') if one.startswith('"') else one.upper() for one in found]


def folded_name(name: str) -> str:
    """One name as a driver gives it at login: folded unless it is quoted."""
    return parts_of(name)[-1] if re.fullmatch(DOTTED, name) else name.upper()


def show_sql(text: str, namespace: Namespace) -> str:
    """DuckDB's query for a SHOW. Raises 001003 and 000002."""
    found = SHOW.match(text)
    if found is None:
        raise syntax(1, 5, text.split()[1] if len(text.split()) > 1 else "<EOF>")
    what = found["what"].upper()
    if what == "PARAMETERS":
        raise unsupported("SHOW PARAMETERS")
    if what not in SHOWN:
        raise unsupported(f"SHOW {what}")
    sql, name, schema_column = SHOWN[what]
    place = parts_of(found["place"]) if found["place"] else []
    kind = (found["kind"] or "").upper()
    database, schema, table = _place(kind, place, what, namespace)
    if what == "DATABASES":
        database = namespace.database or ""
    conditions = []
    if schema and schema_column:
        conditions.append(f"{schema_column} = {literal(schema)}")
    if table:
        conditions.append(f'"table_name" = {literal(table)}')
    if found["like"] is not None:
        conditions.append(f"{name} ILIKE {literal(found['like'].replace(chr(39) * 2, chr(39)))} ESCAPE '\\'")
    if found["starts"] is not None:
        conditions.append(f"starts_with({name}, {literal(found['starts'])})")
    wanted = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    limit = f" LIMIT {found['limit']}" if found["limit"] else ""
    filled = sql.format(database=literal(database) if database else "'%'", schema=literal(namespace.schema or ""))
    order = '"position"' if what == "COLUMNS" else name
    return f"SELECT * FROM ({filled}){wanted} ORDER BY {order}{limit}"


def _place(kind: str, place: list[str], what: str, namespace: Namespace) -> tuple[str, str, str]:
    """(database, schema, table) that a SHOW is limited to; empty for no limit."""
    if what == "COLUMNS" and place and kind in ("", "TABLE", "VIEW"):
        full = [namespace.database or "", namespace.schema or "", ""][: 3 - len(place)] + place
        return full[0], full[1], full[2]
    if kind == "ACCOUNT":
        return "", "", ""
    if kind == "DATABASE":
        return (place[0] if place else namespace.database or ""), "", ""
    if place:
        if kind == "SCHEMA" or len(place) > 1 or what != "SCHEMAS":
            return (place[-2] if len(place) > 1 else namespace.database or ""), place[-1], ""
        return place[0], "", ""
    return namespace.database or "", "" if what == "SCHEMAS" else namespace.schema or "", ""


def settings_of(text: str) -> list[Setting]:
    """Raises 001003, 001006 for a parameter that is not known, 001008 for a value that is not valid."""
    found = SESSION.match(text)
    if found is None:
        raise syntax(1, 0, text.split()[0])
    if found["verb"].upper() == "UNSET":
        return [Setting(_known(name.strip().upper()), None) for name in found["rest"].split(",")]
    made, at, rest = [], 0, found["rest"].strip()
    while at < len(rest):
        one = SETTING.match(rest, at)
        if one is None:
            raise syntax(1, at, rest[at : at + 20])
        value = one["value"]
        value = value[1:-1].replace("''", "'") if value.startswith("'") else value
        made.append(setting(one["name"].upper(), value))
        at = one.end()
    return made


def setting(name: str, value: Any) -> Setting:
    kind = PARAMETERS[_known(name)][0]
    text = str(value)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise _invalid(name, text)
        return Setting(name, text.lower() == "true")
    if kind is int:
        if not text.isdigit():
            raise _invalid(name, text)
        return Setting(name, int(text))
    return Setting(name, text)


def _known(name: str) -> str:
    if name not in PARAMETERS:
        raise SnowflakeError(1006, "22023", f"SQL compilation error:\ninvalid parameter '{name}'")
    return name


def _invalid(name: str, value: str) -> SnowflakeError:
    return SnowflakeError(1008, "22023", f"SQL compilation error:\ninvalid value ['{value}'] for parameter '{name}'")


def described_sql(name: Any) -> str:
    """The columns of a table or view, as DESCRIBE needs them."""
    return (
        "SELECT column_name, data_type, is_nullable, column_default, comment FROM duckdb_columns()"
        f" WHERE schema_name = {literal(name.space)} AND table_name = {literal(name.table)} ORDER BY column_index"
    )


def user_sql(text: str, known: set[str], sealed: Any) -> tuple[list[str], str]:
    """CREATE, ALTER, DROP USER -> (DuckDB's statements, status). `sealed` makes of a password what is kept."""
    found = USER.match(text)
    if found is None:
        raise syntax(1, 0, text.split()[0])
    verb, (name,) = found["verb"].split()[0].upper(), parts_of(found["name"])
    there, replace = name in known, "REPLACE" in found["verb"].upper()
    if verb == "CREATE" and there and not replace:
        if found["quiet"]:
            return [], f"{name} already exists, statement succeeded."
        raise SnowflakeError(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.")
    if verb != "CREATE" and not there:
        if found["quiet"]:
            return [], "Statement executed successfully."
        raise SnowflakeError(2003, "02000", f"SQL compilation error:\nUser '{name}' does not exist or not authorized.")
    if verb == "DROP":
        return [f"DELETE FROM preheat.users WHERE name = {literal(name)}"], f"{name} successfully dropped."
    given = {one["name"].upper(): one["value"].strip("'") for one in SETTING.finditer(found["rest"])}
    refused = set(given) - {"PASSWORD", "RSA_PUBLIC_KEY"}
    if refused or not given:
        raise unsupported(f"{verb} USER with {', '.join(sorted(refused)) or 'no PASSWORD and no RSA_PUBLIC_KEY'}")
    sets = {"password": given.get("PASSWORD"), "public_key": given.get("RSA_PUBLIC_KEY")}
    values = {key: literal(sealed(value) if key == "password" else value) for key, value in sets.items() if value}
    if verb == "ALTER":
        changes = ", ".join(f"{key} = {value}" for key, value in values.items())
        return [f"UPDATE preheat.users SET {changes} WHERE name = {literal(name)}"], "Statement executed successfully."
    sql = [f"DELETE FROM preheat.users WHERE name = {literal(name)}"] if there else []
    columns, row = ", ".join(map(quoted, values)), ", ".join(values.values())
    sql.append(f"INSERT INTO preheat.users (name, {columns}) VALUES ({literal(name)}, {row})")
    return sql, f"User {name} successfully created."

"""Scalars between text and Python: timestamps in AWS's three formats, numbers, booleans, blobs.

BadValue        a text that is not of its member's type
MissingMember   a required member is absent (raised without detail; `validate.missing_members` finds all of them)
"""

import binascii
import math
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class BadValue(Exception):
    """`value` cannot be read as `type_name`."""

    def __init__(self, value: Any, type_name: str) -> None:
        super().__init__(f"{value!r} is not a {type_name}")
        self.value = value
        self.type_name = type_name
        self.name = ""


class MissingMember(Exception):
    """A required member is absent somewhere in the request."""


# -- timestamps ---------------------------------------------------------------------------------------------------


def from_epoch(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise BadValue(seconds, "timestamp") from None


def parse_timestamp(text: str) -> datetime:
    """ISO 8601, RFC 822 or epoch seconds, whichever it is."""
    text = text.strip()
    try:
        if text[:1].isalpha():
            from email.utils import parsedate_to_datetime

            moment = parsedate_to_datetime(text)
        elif text.lstrip("-").replace(".", "", 1).isdigit() and "-" not in text[1:]:
            return from_epoch(float(text))
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, TypeError, IndexError):
        raise BadValue(text, "timestamp") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def read_timestamp(value: Any) -> datetime:
    """A timestamp out of JSON or CBOR: number, text, or already a datetime."""
    if type(value) is int or type(value) is float:
        return from_epoch(value)
    if type(value) is str and value:
        return parse_timestamp(value)
    if isinstance(value, datetime):
        return value
    raise BadValue(value, "timestamp")


def moment_of(value: Any) -> datetime:
    """What a service gave as a timestamp: a datetime, or epoch seconds."""
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return parse_timestamp(value) if isinstance(value, str) else from_epoch(value)


def unix_number(value: Any) -> int | float:
    """Epoch seconds, whole where they are whole, to the millisecond."""
    seconds = round(moment_of(value).timestamp(), 3)
    return int(seconds) if seconds == int(seconds) else seconds


def unix_text(value: Any) -> str:
    return str(unix_number(value))


def iso8601(value: Any) -> str:
    return moment_of(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def rfc822(value: Any) -> str:
    m = moment_of(value).astimezone(UTC)
    date = f"{DAYS[m.weekday()]}, {m.day:02d} {MONTHS[m.month - 1]} {m.year:04d}"
    return f"{date} {m.hour:02d}:{m.minute:02d}:{m.second:02d} GMT"


TIMESTAMP_TEXT: dict[str, Callable[[Any], str]] = {
    "iso8601": iso8601,
    "rfc822": rfc822,
    "unixTimestamp": unix_text,
}


# -- text to Python (XML, query strings, headers) ------------------------------------------------------------------


def read_integer(text: str) -> int:
    try:
        return int(text.strip())
    except ValueError:
        raise BadValue(text, "integer") from None


def read_float(text: str) -> float:
    try:
        return SPECIAL_FLOATS.get(text) or float(text.strip())
    except ValueError:
        raise BadValue(text, "float") from None


def read_boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("true", "1"):
        return True
    if lowered in ("false", "0"):
        return False
    raise BadValue(text, "boolean")


def read_blob(text: str) -> bytes:
    try:
        return b64decode(text, validate=False)
    except (binascii.Error, ValueError):
        raise BadValue(text, "blob") from None


def read_string(text: str) -> str:
    return text


TEXT_READERS: dict[str, Callable[[str], Any]] = {
    "string": read_string,
    "character": read_string,
    "integer": read_integer,
    "long": read_integer,
    "bigInteger": read_integer,
    "float": read_float,
    "double": read_float,
    "boolean": read_boolean,
    "blob": read_blob,
    "timestamp": parse_timestamp,
}


# -- Python to text -------------------------------------------------------------------------------------------------


def float_text(value: Any) -> str:
    number = float(value)
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def boolean_text(value: Any) -> str:
    return "true" if value else "false"


def blob_text(value: Any) -> str:
    return b64encode(value.encode() if isinstance(value, str) else bytes(value)).decode("ascii")


def integer_text(value: Any) -> str:
    return str(int(value))


TEXT_WRITERS: dict[str, Callable[[Any], str]] = {
    "string": str,
    "character": str,
    "integer": integer_text,
    "long": integer_text,
    "bigInteger": integer_text,
    "float": float_text,
    "double": float_text,
    "boolean": boolean_text,
    "blob": blob_text,
}

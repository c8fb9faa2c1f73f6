"""What a driver binds, {"1": {"type": "TEXT", "value": "x"}}, as DuckDB takes it. A value is a string or null; an array
of them is bound for many rows at once."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from preheat.snowflake.errors import SnowflakeError

EPOCH = datetime(1970, 1, 1)


def bound(bindings: dict[str, Any] | None) -> tuple[list[Any], int | None]:
    """(values in order, rows): rows is None when single values are bound, else every value is a list of that length.
    Raises 100098 for values that their type does not allow."""
    if not bindings:
        return [], None
    ordered = [bindings[key] for key in sorted(bindings, key=int)]
    many = [one["value"] for one in ordered if isinstance(one.get("value"), list)]
    if not many:
        return [value(one.get("type", "TEXT"), one.get("value")) for one in ordered], None
    rows = len(many[0])
    if len(many) != len(ordered) or any(len(one) != rows for one in many):
        raise SnowflakeError(2094, "42601", "Array bind values must all be arrays of the same length.")
    return [[value(one.get("type", "TEXT"), item) for item in one["value"]] for one in ordered], rows


def value(kind: str, text: str | None) -> Any:
    if text is None:
        return None
    kind = kind.upper()
    try:
        make = MAKERS.get(kind)
        return text if make is None else make(text)
    except (ValueError, InvalidOperation, OverflowError) as error:
        raise SnowflakeError(100098, "22023", f"Invalid {kind} bind value '{text[:100]}'") from error


def _fixed(text: str) -> Any:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() and "." not in text else number


def _from_ns(text: str) -> datetime:
    return EPOCH + timedelta(microseconds=int(text) // 1_000)


def _zoned(text: str) -> datetime:
    moment, _, offset = text.partition(" ")
    return _from_ns(moment).replace(tzinfo=UTC) if offset or moment else EPOCH


def _date(text: str) -> date:
    return (EPOCH + timedelta(milliseconds=int(text))).date()


def _time(text: str) -> time:
    return _from_ns(text).time()


def _boolean(text: str) -> bool:
    return text.lower() in ("true", "1")


MAKERS: dict[str, Any] = {
    "FIXED": _fixed, "REAL": float, "BOOLEAN": _boolean, "BINARY": bytes.fromhex, "DATE": _date, "TIME": _time,
    "TIMESTAMP_NTZ": _from_ns, "TIMESTAMP": _from_ns, "TIMESTAMP_LTZ": _zoned, "TIMESTAMP_TZ": _zoned,
}  # fmt: skip

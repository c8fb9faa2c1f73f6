"""JSON and CBOR bodies: readers and writers between parsed trees and botocore's Python types.

Compiled once per operation into closures over dictionaries of members; a request costs one dictionary walk. Both
formats share the code and differ in their leaves (`Dialect`). A member that has the right Python type already is taken
as it is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.wire.model import Model, Ref, Shape
from preheat.wire.values import (
    TIMESTAMP_TEXT,
    BadValue,
    MissingMember,
    blob_text,
    moment_of,
    read_blob,
    read_timestamp,
    unix_number,
)

Convert = Callable[[Any], Any]
Reader = tuple[type | None, Convert]

KIND_NAMES = {str: "STRING_VALUE", int: "NUMBER_VALUE", float: "DECIMAL_VALUE"}
TARGET_NAMES = {
    "string": "String", "character": "String", "integer": "Integer", "long": "Long", "float": "Float",
    "double": "Double", "boolean": "Boolean", "blob": "ByteBuffer", "timestamp": "Timestamp",
}  # fmt: skip


def mismatch(value: Any, type_name: str) -> AwsError:
    """A JSON value of the wrong type, in the words of AWS's own deserialiser."""
    if isinstance(value, dict):
        text = "Start of structure or map found where not expected."
    elif isinstance(value, list):
        text = "Start of list found where not expected"
    elif type_name in ("structure", "list", "map"):
        text = "Unexpected field type" if type_name == "structure" else f"Expected {type_name} or null"
    else:
        kind = f"{value}_VALUE".upper() if isinstance(value, bool) else KIND_NAMES.get(type(value), "BINARY_VALUE")
        text = f"{kind} cannot be converted to {TARGET_NAMES.get(type_name, type_name)}"
    return AwsError("SerializationException", text)


def _refuse(type_name: str) -> Convert:
    def refuse(value: Any) -> Any:
        raise mismatch(value, type_name)

    return refuse


def _integer(type_name: str) -> Convert:
    def read(value: Any) -> int:
        if type(value) is float and value.is_integer():
            return int(value)
        raise mismatch(value, type_name)

    return read


def _float(type_name: str) -> Convert:
    special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

    def read(value: Any) -> float:
        if type(value) is int:
            return float(value)
        if type(value) is str and value in special:
            return special[value]
        raise mismatch(value, type_name)

    return read


def _checked(read: Convert, type_name: str) -> Convert:
    def checked(value: Any) -> Any:
        try:
            return read(value)
        except BadValue:
            raise mismatch(value, type_name) from None

    return checked


def _json_blob(value: Any) -> bytes:
    if type(value) is not str:
        raise BadValue(value, "blob")
    return read_blob(value)


def _leaf_readers(blob: Reader) -> dict[str, Reader]:
    return {
        "string": (str, _refuse("string")),
        "character": (str, _refuse("string")),
        "boolean": (bool, _refuse("boolean")),
        "integer": (int, _integer("integer")),
        "long": (int, _integer("long")),
        "bigInteger": (int, _integer("long")),
        "float": (float, _float("float")),
        "double": (float, _float("double")),
        "timestamp": (None, _checked(read_timestamp, "timestamp")),
        "blob": blob,
    }


def _write_float(value: Any) -> Any:
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def _write_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


class Dialect(NamedTuple):
    """The leaves of a tree format. `timestamp(format)` gives a writer."""

    readers: dict[str, Reader]
    writers: dict[str, Convert | None]
    timestamp: Callable[[str], Convert]


def _json_timestamp(form: str) -> Convert:
    return unix_number if form == "unixTimestamp" else TIMESTAMP_TEXT[form]


JSON = Dialect(
    _leaf_readers((None, _checked(_json_blob, "blob"))),
    {"float": _write_float, "double": _write_float, "blob": blob_text},
    _json_timestamp,
)
CBOR = Dialect(
    _leaf_readers((bytes, _refuse("blob"))),
    {"float": float, "double": float, "blob": _write_bytes},
    lambda form: moment_of,
)


def same(value: Any) -> Any:
    return value


class TreeReaders:
    """Readers for the shapes of one model. `strict` raises MissingMember where a required member is absent."""

    def __init__(self, model: Model, dialect: Dialect, strict: bool = True) -> None:
        self._model = model
        self._leaves = dialect.readers
        self._strict = strict
        self._structures: dict[str, Convert] = {}

    def reader(self, ref: Ref) -> Reader:
        """(the Python type to take as it is or None, the converter for anything else)."""
        shape = self._model.shapes[ref.shape]
        if shape.document or ref.document:
            return None, same
        if shape.type == "structure":
            return None, self.structure(ref.shape)
        if shape.type == "list":
            return None, self._list(shape)
        if shape.type == "map":
            return None, self._map(shape)
        return self._leaves[shape.type]

    def structure(self, name: str, only: tuple[str, ...] | None = None) -> Convert:
        """`only`: the members that are in the body (a top-level REST input), not checked for required ones."""
        if only is None and name in self._structures:
            return self._structures[name]
        shape = self._model.shapes[name]
        members: dict[str, tuple[type | None, Convert, str]] = {}
        required = shape.required if self._strict and only is None else ()

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise mismatch(value, "structure")
            out = {}
            for key, item in value.items():
                member = members.get(key)
                if member is None or item is None:
                    continue
                kind, convert, own = member
                out[own] = item if type(item) is kind else convert(item)
            for needed in required:
                if needed not in out:
                    raise MissingMember
            return out

        if only is None:
            self._structures[name] = read
        for own, ref in shape.members.items():
            if only is None or own in only:
                kind, convert = self.reader(ref)
                members[ref.location_name or own] = (kind, convert, own)
        return read

    def _list(self, shape: Shape) -> Convert:
        assert shape.member is not None
        kind, convert = self.reader(shape.member)

        def read(value: Any) -> list[Any]:
            if type(value) is not list:
                raise mismatch(value, "list")
            return [item if type(item) is kind else (None if item is None else convert(item)) for item in value]

        return read

    def _map(self, shape: Shape) -> Convert:
        assert shape.value is not None
        kind, convert = self.reader(shape.value)

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise mismatch(value, "map")
            return {
                key: item if type(item) is kind else convert(item) for key, item in value.items() if item is not None
            }

        return read


class TreeWriters:
    """Writers for the shapes of one model: None where a value can be encoded as it is."""

    def __init__(self, model: Model, dialect: Dialect, default_timestamp: str = "unixTimestamp") -> None:
        self._model = model
        self._dialect = dialect
        self._default = default_timestamp
        self._structures: dict[str, Convert] = {}

    def writer(self, ref: Ref) -> Convert | None:
        shape = self._model.shapes[ref.shape]
        if shape.document or ref.document:
            return None
        if shape.type == "structure":
            return self.structure(ref.shape)
        if shape.type == "list":
            return self._list(shape)
        if shape.type == "map":
            return self._map(shape)
        if shape.type == "timestamp":
            return self._dialect.timestamp(self._model.timestamp_format(ref, self._default))
        return self._dialect.writers.get(shape.type)

    def structure(self, name: str, only: tuple[str, ...] | None = None) -> Convert:
        """Members with value None, and members that the model does not know, are left out; a value in which all is as
        it has to be is given back itself."""
        if only is None and name in self._structures:
            return self._structures[name]
        members: dict[str, tuple[str, Convert | None]] = {}
        ready: set[str] = set()

        def write(value: Any) -> dict[str, Any]:
            if ready.issuperset(value) and None not in value.values():
                return value
            out = {}
            for own, item in value.items():
                member = members.get(own)
                if member is None or item is None:
                    continue
                key, convert = member
                out[key] = item if convert is None else convert(item)
            return out

        if only is None:
            self._structures[name] = write
        for own, ref in self._model.shapes[name].members.items():
            if only is None or own in only:
                key, convert = members[own] = (ref.location_name or own, self.writer(ref))
                if convert is None and key == own:
                    ready.add(own)
        return write

    def _list(self, shape: Shape) -> Convert | None:
        assert shape.member is not None
        convert = self.writer(shape.member)
        if convert is None:
            return list
        if self._model.shapes[shape.member.shape].type in ("float", "double"):
            return lambda value: (
                value if type(value) is list and all(map(math.isfinite, value)) else [convert(x) for x in value]
            )
        return lambda value: [None if item is None else convert(item) for item in value]

    def _map(self, shape: Shape) -> Convert | None:
        assert shape.value is not None
        convert = self.writer(shape.value)
        if convert is None:
            return lambda value: {key: item for key, item in value.items() if item is not None}
        return lambda value: {key: convert(item) for key, item in value.items() if item is not None}

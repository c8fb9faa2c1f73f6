"""REST bindings: which members travel in the URI, the query string, headers and the status, and which in the body."""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from preheat.wire.model import Model, Ref, Shape
from preheat.wire.values import TEXT_READERS, TEXT_WRITERS, TIMESTAMP_TEXT, BadValue

LIST_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,]*))\s*(?:,|$)')


def body_members(shape: Shape) -> tuple[str, ...]:
    """Members without a location, which make up the body where there is no payload member."""
    return tuple(name for name, ref in shape.members.items() if ref.location is None)


def _json_header(text: str) -> Any:
    try:
        return msgspec.json.decode(b64decode(text))
    except ValueError:
        raise BadValue(text, "jsonvalue") from None


def split_header(text: str) -> list[str]:
    """A comma-separated header; items with commas or quotes are quoted."""
    items = []
    position = 0
    while position < len(text):
        found = LIST_ITEM.match(text, position)
        if found is None or found.end() == position:
            break
        quoted, plain = found.groups()
        items.append(quoted.replace('\\"', '"') if quoted is not None else plain.strip())
        position = found.end()
    return items


class InputBinding:
    """Fills params from labels, query and headers. Blank numbers and booleans count as absent. `literals` are the
    query parameters of the operation's URI, which are nobody's value."""

    def __init__(self, model: Model, shape: Shape, literals: set[str]) -> None:
        self._model = model
        self._literals = literals
        self._uri: list[tuple[str, str, Callable[[str], Any]]] = []
        self._query: list[tuple[str, str, Callable[[str], Any], bool, bool]] = []
        self._headers: dict[str, tuple[str, Callable[[str], Any], bool]] = {}
        self._prefixes: list[tuple[str, str]] = []
        self._query_maps: list[tuple[str, bool]] = []
        for own, ref in shape.members.items():
            if ref.location is not None:
                self._add(own, ref)

    def _add(self, own: str, ref: Ref) -> None:
        shape = self._model.shapes[ref.shape]
        name = ref.location_name or own
        item = self._model.shapes[shape.member.shape] if shape.member is not None else shape
        if ref.location == "uri":
            self._uri.append((own, name, TEXT_READERS[shape.type]))
        elif ref.location == "querystring" and shape.type == "map":
            assert shape.value is not None
            self._query_maps.append((own, self._model.shapes[shape.value.shape].type == "list"))
        elif ref.location == "querystring":
            blank = item.type == "string"
            self._query.append((own, name, TEXT_READERS[item.type], shape.type == "list", blank))
        elif ref.location == "headers":
            self._prefixes.append((own, name.lower()))
        elif ref.location == "header" and shape.type == "list":
            convert = TEXT_READERS[item.type]
            self._headers[name.lower()] = (own, lambda text: [convert(x) for x in split_header(text)], True)
        elif ref.location == "header":
            read = _json_header if ref.jsonvalue else TEXT_READERS[shape.type]
            self._headers[name.lower()] = (own, read, shape.type == "string")

    def fill(
        self, params: dict[str, Any], labels: dict[str, str], query: dict[str, list[str]], headers: dict[str, str]
    ) -> None:
        """Raises BadValue with the parameter's wire name."""
        name = ""
        try:
            for own, name, read in self._uri:
                if labels.get(name):
                    params[own] = read(labels[name])
            if query:
                for own, name, read, many, blank in self._query:
                    values = query.get(name)
                    if values is None:
                        continue
                    if many:
                        params[own] = [read(value) for value in values]
                    elif blank or values[0]:
                        params[own] = read(values[0])
                for own, many in self._query_maps:
                    rest = self._unbound(query, many)
                    if rest:
                        params[own] = rest
            bound = self._headers
            if not bound.keys().isdisjoint(headers.keys()):
                for name, text in headers.items():
                    if name in bound:
                        own, read, blank = bound[name]
                        if blank or text:
                            params[own] = read(text)
        except BadValue as error:
            error.name = name
            raise
        for own, prefix in self._prefixes:
            params[own] = {key[len(prefix) :]: text for key, text in headers.items() if key.startswith(prefix)}
            if not params[own]:
                del params[own]

    def _unbound(self, query: dict[str, list[str]], many: bool) -> dict[str, Any]:
        bound = self._literals.union(entry[1] for entry in self._query)
        return {name: values if many else values[0] for name, values in query.items() if name not in bound}


class OutputBinding:
    """Headers and status of an output or of an error."""

    def __init__(self, model: Model, shape: Shape) -> None:
        self._headers: dict[str, tuple[str, Callable[[Any], str]]] = {}
        self._prefixes: list[tuple[str, str]] = []
        self.status_member: str | None = None
        for own, ref in shape.members.items():
            target = model.shapes[ref.shape]
            if ref.location == "header":
                self._headers[own] = (ref.location_name or own, _header_writer(model, ref, target))
            elif ref.location == "headers":
                self._prefixes.append((own, ref.location_name or ""))
            elif ref.location == "statusCode":
                self.status_member = own

    def write(self, output: dict[str, Any], headers: list[tuple[str, str]]) -> None:
        bound = self._headers
        for own, value in output.items():
            if value is not None and own in bound:
                name, write = bound[own]
                headers.append((name, write(value)))
        for own, prefix in self._prefixes:
            for key, value in (output.get(own) or {}).items():
                headers.append((prefix + key, str(value)))


def _quote(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"' if '"' in text or "," in text else text


def _header_writer(model: Model, ref: Ref, shape: Shape) -> Callable[[Any], str]:
    if ref.jsonvalue:
        return lambda value: b64encode(msgspec.json.encode(value)).decode("ascii")
    if shape.type == "timestamp":
        return TIMESTAMP_TEXT[model.timestamp_format(ref, "rfc822")]
    if shape.type == "list":
        assert shape.member is not None
        item = _header_writer(model, shape.member, model.shapes[shape.member.shape])
        return lambda value: ",".join(_quote(item(one)) for one in value)
    return TEXT_WRITERS[shape.type]

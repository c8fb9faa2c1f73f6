"""XML bodies: readers from element trees and writers to text, compiled from the model (rest-xml, query answers)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from preheat.wire.model import Model, Ref, Shape
from preheat.wire.values import TEXT_READERS, TEXT_WRITERS, TIMESTAMP_TEXT, BadValue, MissingMember

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
CONTROL = {code: f"&#x{code:X};" for code in range(32) if code not in (9, 10)}
ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", **CONTROL}

Write = Callable[[Any, list[str]], None]
Read = Callable[[Any], Any]


class MalformedXml(Exception):
    """Not well-formed, or a document type declaration (entities are not expanded)."""


def escape(text: str) -> str:
    return text.translate(ESCAPES)


def parse_xml(body: bytes) -> "Element":
    from xml.etree import ElementTree

    if b"<!DOCTYPE" in body:
        raise MalformedXml
    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise MalformedXml from None


def local_name(tag: str) -> str:
    return tag.rpartition("}")[2]


class XmlReaders:
    """Readers from elements; flattened lists and maps take the list of their elements."""

    def __init__(self, model: Model, strict: bool = True) -> None:
        self._model = model
        self._strict = strict
        self._structures: dict[str, Read] = {}

    def reader(self, ref: Ref) -> Read:
        shape = self._model.shapes[ref.shape]
        if shape.type == "structure":
            return self.structure(ref.shape)
        if shape.type == "list":
            return self._list(shape, self._model.is_flat(ref))
        if shape.type == "map":
            return self._map(shape, self._model.is_flat(ref))
        convert = TEXT_READERS[shape.type]
        return lambda element: convert(element.text or "")

    def structure(self, name: str, only: tuple[str, ...] | None = None) -> Read:
        if only is None and name in self._structures:
            return self._structures[name]
        model = self._model
        shape = model.shapes[name]
        members: dict[str, tuple[str, Read, bool]] = {}
        attributes: dict[str, str] = {}
        required = shape.required if self._strict and only is None else ()

        def read(element: "Element") -> dict[str, Any]:
            out: dict[str, Any] = {}
            flat: dict[str, list[Any]] = {}
            for child in element:
                member = members.get(local_name(child.tag))
                if member is None:
                    continue
                own, convert, flattened = member
                if flattened:
                    flat.setdefault(own, []).append((convert, child))
                else:
                    out[own] = convert(child)
            for own, found in flat.items():
                out[own] = found[0][0]([child for _, child in found])
            for key, text in element.attrib.items():
                if local_name(key) in attributes:
                    out[attributes[local_name(key)]] = text
            for needed in required:
                if needed not in out:
                    raise MissingMember
            return out

        if only is None:
            self._structures[name] = read
        for own, ref in shape.members.items():
            if only is not None and own not in only:
                continue
            if ref.xml_attribute:
                attributes[(ref.location_name or own).rpartition(":")[2]] = own
                continue
            target = model.shapes[ref.shape]
            flattened = target.type in ("list", "map") and model.is_flat(ref)
            entry = (own, self.reader(ref), flattened)
            members[ref.location_name or own] = entry
            if flattened and target.member is not None and target.member.location_name:
                members[target.member.location_name] = entry
        return read

    def _list(self, shape: Shape, flat: bool) -> Read:
        assert shape.member is not None
        convert = self.reader(shape.member)
        return lambda elements: [convert(element) for element in elements]

    def _map(self, shape: Shape, flat: bool) -> Read:
        assert shape.key is not None and shape.value is not None
        key_name, value_name = shape.key.location_name or "key", shape.value.location_name or "value"
        read_key, read_value = self.reader(shape.key), self.reader(shape.value)

        def read(entries: Any) -> dict[str, Any]:
            out = {}
            for entry in entries:
                parts = {local_name(part.tag): part for part in entry}
                if key_name not in parts or value_name not in parts:
                    raise BadValue("", "map")
                out[read_key(parts[key_name])] = read_value(parts[value_name])
            return out

        return read


class XmlWriters:
    """Writers that append text to a list. `timestamp` is the default timestamp format."""

    def __init__(self, model: Model, timestamp: str = "iso8601") -> None:
        self._model = model
        self._timestamp = timestamp
        self._structures: dict[str, list[tuple[str, Write, str | None]]] = {}

    def element(self, ref: Ref, name: str, namespace: str | None = None) -> Write:
        """Writes `<name>...</name>`; a flattened list writes one element per item."""
        shape = self._model.shapes[ref.shape]
        xmlns = _xmlns(ref.xml_namespace or shape.xml_namespace, namespace)
        if shape.type == "structure":
            return self._structure(ref.shape, name, xmlns)
        if shape.type == "list":
            return self._list(ref, shape, name, xmlns)
        if shape.type == "map":
            return self._map(ref, shape, name, xmlns)
        convert = self.text(ref)
        start, end = f"<{name}{xmlns}>", f"</{name}>"
        return lambda value, parts: parts.append(start + escape(convert(value)) + end)

    def text(self, ref: Ref) -> Callable[[Any], str]:
        shape = self._model.shapes[ref.shape]
        if shape.type == "timestamp":
            return TIMESTAMP_TEXT[self._model.timestamp_format(ref, self._timestamp)]
        return TEXT_WRITERS[shape.type]

    def members(self, name: str, only: tuple[str, ...] | None = None) -> list[tuple[str, Write, str | None]]:
        """(member, its writer, its attribute name) in the model's order."""
        if only is None and name in self._structures:
            return self._structures[name]
        found: list[tuple[str, Write, str | None]] = []
        if only is None:
            self._structures[name] = found
        for own, ref in self._model.shapes[name].members.items():
            if only is None or own in only:
                if ref.xml_attribute:
                    found.append((own, _nothing, ref.location_name or own))
                else:
                    found.append((own, self.element(ref, self._name(own, ref)), None))
        return found

    def _name(self, own: str, ref: Ref) -> str:
        shape = self._model.shapes[ref.shape]
        if shape.type == "list" and self._model.is_flat(ref) and shape.member is not None:
            return shape.member.location_name or ref.location_name or own
        return ref.location_name or own

    def _structure(self, shape_name: str, name: str, xmlns: str) -> Write:
        members = self.members(shape_name)
        end = f"</{name}>"

        def write(value: Any, parts: list[str]) -> None:
            start = f"<{name}{xmlns}"
            for own, _, attribute in members:
                if attribute is not None and value.get(own) is not None:
                    start += f' {attribute}="{escape(str(value[own]))}"'
            parts.append(start + ">")
            write_members(members, value, parts)
            parts.append(end)

        return write

    def _list(self, ref: Ref, shape: Shape, name: str, xmlns: str) -> Write:
        assert shape.member is not None
        if self._model.is_flat(ref):
            write_item = self.element(shape.member, name)

            def write_flat(value: Any, parts: list[str]) -> None:
                for item in value:
                    write_item(item, parts)

            return write_flat
        write_one = self.element(shape.member, shape.member.location_name or "member")

        def write(value: Any, parts: list[str]) -> None:
            parts.append(f"<{name}{xmlns}>")
            for item in value:
                write_one(item, parts)
            parts.append(f"</{name}>")

        return write

    def _map(self, ref: Ref, shape: Shape, name: str, xmlns: str) -> Write:
        assert shape.key is not None and shape.value is not None
        flat = self._model.is_flat(ref)
        entry = name if flat else "entry"
        write_key = self.element(shape.key, shape.key.location_name or "key")
        write_value = self.element(shape.value, shape.value.location_name or "value")

        def write(value: Any, parts: list[str]) -> None:
            if not flat:
                parts.append(f"<{name}{xmlns}>")
            for key, item in value.items():
                if item is None:
                    continue
                parts.append(f"<{entry}>")
                write_key(key, parts)
                write_value(item, parts)
                parts.append(f"</{entry}>")
            if not flat:
                parts.append(f"</{name}>")

        return write


def write_members(members: list[tuple[str, Write, str | None]], value: Any, parts: list[str]) -> None:
    for own, write, attribute in members:
        item = value.get(own)
        if item is not None and attribute is None:
            write(item, parts)


def _nothing(value: Any, parts: list[str]) -> None:
    """Attributes are written with their element's start tag."""


def _xmlns(namespace: dict[str, str] | str | None, fallback: str | None) -> str:
    if isinstance(namespace, dict):
        prefix = f":{namespace['prefix']}" if namespace.get("prefix") else ""
        return f' xmlns{prefix}="{namespace["uri"]}"'
    uri = namespace or fallback
    return f' xmlns="{uri}"' if uri else ""

"""The query protocol's input: `Attribute.1.Name=x&Attribute.1.Value=y` to botocore's Python types."""

from collections.abc import Callable
from typing import Any

from preheat.wire.model import Model, Ref, Shape
from preheat.wire.values import TEXT_READERS, BadValue, MissingMember

Read = Callable[[Any], Any]


def grow(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Nested dictionaries of the dotted keys: {"Attribute": {"1": {"Name": "x", "Value": "y"}}}."""
    root: dict[str, Any] = {}
    for key, value in pairs:
        *branches, last = key.split(".")
        node = root
        for branch in branches:
            child = node.get(branch)
            if not isinstance(child, dict):
                child = node[branch] = {}
            node = child
        if not isinstance(node.get(last), dict):
            node[last] = value
    return root


def _numbered(node: Any) -> list[Any]:
    if not isinstance(node, dict):
        return []
    return [node[key] for key in sorted((key for key in node if key.isdecimal()), key=int)]


class QueryReaders:
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
        convert, type_name = TEXT_READERS[shape.type], shape.type

        def read(node: Any) -> Any:
            if isinstance(node, dict):
                raise BadValue("", type_name)
            return convert(node)

        return read

    def structure(self, name: str) -> Read:
        if name in self._structures:
            return self._structures[name]
        shape = self._model.shapes[name]
        members: list[tuple[str, tuple[str, ...], Read]] = []
        required = shape.required if self._strict else ()

        def read(node: Any) -> dict[str, Any]:
            out = {}
            if isinstance(node, dict):
                for own, names, convert in members:
                    for wire_name in names:
                        if wire_name in node:
                            try:
                                out[own] = convert(node[wire_name])
                            except BadValue as error:
                                error.name = error.name or own
                                raise
                            break
            for needed in required:
                if needed not in out:
                    raise MissingMember
            return out

        self._structures[name] = read
        for own, ref in shape.members.items():
            target = self._model.shapes[ref.shape]
            names = [ref.location_name or own]
            if target.type == "list" and self._model.is_flat(ref) and target.member and target.member.location_name:
                names.insert(0, target.member.location_name)
            members.append((own, tuple(names), self.reader(ref)))
        return read

    def _list(self, shape: Shape, flat: bool) -> Read:
        assert shape.member is not None
        convert = self.reader(shape.member)
        item_name = shape.member.location_name or "member"

        def read(node: Any) -> list[Any]:
            if not flat and isinstance(node, dict):
                node = node.get(item_name, node.get("member", node))
            return [convert(item) for item in _numbered(node)]

        return read

    def _map(self, shape: Shape, flat: bool) -> Read:
        assert shape.key is not None and shape.value is not None
        key_name, value_name = shape.key.location_name or "key", shape.value.location_name or "value"
        read_key, read_value = self.reader(shape.key), self.reader(shape.value)

        def read(node: Any) -> dict[str, Any]:
            if not flat and isinstance(node, dict):
                node = node.get("entry", node)
            out = {}
            for entry in _numbered(node):
                if not isinstance(entry, dict) or key_name not in entry or value_name not in entry:
                    raise BadValue("", "map")
                out[read_key(entry[key_name])] = read_value(entry[value_name])
            return out

        return read

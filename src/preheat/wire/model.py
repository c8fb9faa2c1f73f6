"""Service models: botocore's JSON files, read lazily and without their documentation, and our own quirk files.

`load_model("sqs")` takes a few milliseconds; nothing of botocore is imported, only its data folder is read.
"""

import gzip
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

QUIRKS = Path(__file__).parent / "quirks"


class Ref(msgspec.Struct, rename="camel"):
    """A mention of a shape: by a member, a list, a map or an operation."""

    shape: str = ""
    location: str | None = None
    location_name: str | None = None
    timestamp_format: str | None = None
    flattened: bool = False
    xml_namespace: dict[str, str] | str | None = None
    xml_attribute: bool = False
    streaming: bool = False
    eventpayload: bool = False
    eventheader: bool = False
    jsonvalue: bool = False
    document: bool = False
    result_wrapper: str | None = None


class ErrorTrait(msgspec.Struct, rename="camel"):
    code: str | None = None
    http_status_code: int | None = None


class Shape(msgspec.Struct, rename="camel"):
    type: str
    members: dict[str, Ref] = {}
    required: tuple[str, ...] = ()
    member: Ref | None = None
    key: Ref | None = None
    value: Ref | None = None
    payload: str | None = None
    flattened: bool = False
    timestamp_format: str | None = None
    location_name: str | None = None
    xml_namespace: dict[str, str] | str | None = None
    document: bool = False
    event: bool = False
    eventstream: bool = False
    streaming: bool = False
    exception: bool = False
    error: ErrorTrait | None = None


class Http(msgspec.Struct, rename="camel"):
    method: str = "POST"
    request_uri: str = "/"
    response_code: int | None = None


class OperationModel(msgspec.Struct, rename="camel"):
    name: str
    http: Http = msgspec.field(default_factory=Http)
    input: Ref | None = None
    output: Ref | None = None
    deprecated: bool = False


class Metadata(msgspec.Struct, rename="camel"):
    api_version: str = ""
    protocol: str = "json"
    protocols: tuple[str, ...] = ()
    json_version: str = "1.0"
    target_prefix: str | None = None
    xml_namespace: str | None = None
    endpoint_prefix: str = ""
    signing_name: str | None = None
    aws_query_compatible: dict[str, Any] | None = None


class Model(msgspec.Struct):
    """One service. `shapes` by name, `operations` by name."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    operations: dict[str, OperationModel] = {}
    shapes: dict[str, Shape] = {}

    def timestamp_format(self, ref: Ref, default: str) -> str:
        return ref.timestamp_format or self.shapes[ref.shape].timestamp_format or default

    def is_flat(self, ref: Ref) -> bool:
        return ref.flattened or self.shapes[ref.shape].flattened


@cache
def _data_folder() -> Path:
    spec = importlib.util.find_spec("botocore")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("botocore is not installed; its service models are what the AWS protocols are read from")
    return Path(spec.submodule_search_locations[0]) / "data"


def load_model(service: str, names: dict[str, Any] | None = None) -> Model:
    """The newest model of `service`. `names` are XML and query names that the model no longer carries (sqs)."""
    folder = max((_data_folder() / service).iterdir())
    packed = folder / "service-2.json.gz"
    raw = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / "service-2.json").read_bytes()
    model = msgspec.json.decode(raw, type=Model)
    extras = folder / "service-2.sdk-extras.json"
    if extras.exists():
        merged = msgspec.json.decode(extras.read_bytes()).get("merge", {}).get("shapes", {})
        for name, patch in merged.items():
            model.shapes[name].type = patch.get("type", model.shapes[name].type)
    if names:
        _rename(model, names)
    return model


def _rename(model: Model, names: dict[str, Any]) -> None:
    for shape_name, item in names["lists"].items():
        member = model.shapes[shape_name].member
        assert member is not None
        member.location_name = item
    maps = names["maps"]
    for shape_name, (_, key, value) in maps.items():
        shape = model.shapes[shape_name]
        assert shape.key is not None and shape.value is not None
        shape.key.location_name, shape.value.location_name = key, value
    for shape in model.shapes.values():
        for ref in shape.members.values():
            if ref.shape in maps:
                ref.location_name = maps[ref.shape][0]


def load_quirks(name: str) -> dict[str, Any]:
    """What a service does differently from its protocol; empty for most."""
    path = QUIRKS / f"{name}.json"
    return msgspec.json.decode(path.read_bytes()) if path.exists() else {}

"""Requests and replies made of botocore's models: deterministic values for every member, and botocore as the oracle."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.stream import Channel

MOMENT = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
EXACT = MOMENT.replace(microsecond=789_000)
MAX_DEPTH = 4


@cache
def service_model(name: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


def operations(*services: str) -> list[tuple[str, str]]:
    return [(service, name) for service in services for name in service_model(service).operation_names]


def sample(shape: Any, stack: tuple[str, ...] = (), plain: bool = False) -> Any:
    """A value of `shape`. `plain`: one that survives a header or a URI as it is. `stack`: the structures around it;
    deep down, and where one repeats itself, only required members are filled."""
    location = shape.serialization.get("location")
    plain = plain or location is not None
    kind = shape.type_name
    names = ("a-key", "b-key") if len(stack) < MAX_DEPTH else ("a-key",)
    if kind == "structure":
        return _structure(shape, stack, plain)
    if kind == "list":
        return [sample(shape.member, stack, plain) for _ in names]
    if kind == "map":
        return {name: sample(shape.value, stack, plain) for name in names}
    if kind == "timestamp":
        seconds_only = location == "header" or shape.serialization.get("timestampFormat") == "rfc822"
        return MOMENT if seconds_only else EXACT
    if kind in ("integer", "long"):
        return 7 if location == "statusCode" else 123_456
    if kind in ("float", "double"):
        return 2.5
    if kind == "boolean":
        return True
    if kind == "blob":
        return b"\x00\xff raw bytes \n"
    if location == "uri":
        return "a b/c:d~é%2F?x"
    return f"plain-{shape.name}" if plain else f'text "é" <&> {shape.name}'


def _structure(shape: Any, stack: tuple[str, ...], plain: bool) -> Any:
    if shape.is_document_type:
        return {"any": [1, 2.5, "text", None, {"deep": True}]}
    names = list(shape.members)
    inner = (*stack, shape.name)
    if shape.is_tagged_union:
        names = sorted(names, key=lambda name: shape.members[name].type_name in ("structure", "list", "map"))
        names = names[:1] if len(stack) > MAX_DEPTH else [list(shape.members)[len(stack) % len(names)]]
    elif len(stack) >= MAX_DEPTH or shape.name in stack:
        names = [name for name in names if name in shape.required_members]
    members = {name: shape.members[name] for name in names}
    return {
        name: sample(member, inner, plain)
        for name, member in members.items()
        if not member.serialization.get("eventstream")
    }


def request_of(service: str, operation: str, params: dict[str, Any], protocol: str | None = None) -> HttpRequest:
    """What a botocore client would send, signed in name only."""
    model = service_model(service)
    protocol = protocol or model.protocol
    serializer = create_serializer(protocol, include_validation=False)
    pieces = serializer.serialize_to_request(params, model.operation_model(operation))
    prepare_request_dict(pieces, "http://127.0.0.1:4566", context={})
    prepared = create_request_object(pieces).prepare()
    headers: dict[str, str] = {}
    for name, value in prepared.headers.items():
        text = value.decode() if isinstance(value, bytes) else str(value)
        headers[name.lower()] = f"{headers[name.lower()]},{text}" if name.lower() in headers else text
    scope = f"20260301/eu-west-1/{model.signing_name}/aws4_request"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential=AKID/{scope}, SignedHeaders=host, Signature=0"
    headers["host"] = "127.0.0.1:4566"
    target = prepared.url.removeprefix("http://127.0.0.1:4566")
    body = prepared.body or b""
    return HttpRequest(prepared.method, target, headers, body.encode() if isinstance(body, str) else body)


class Body:
    """A streaming body as botocore wants it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def stream(self) -> Any:
        yield self.data

    def close(self) -> None:
        """Nothing to close."""


def parse_with_botocore(
    response: HttpResponse, operation: OperationModel, protocol: str, shape: Any = None, stream: bool = False
) -> Any:
    """Botocore's reading of a response."""
    body: Any = response.body
    if isinstance(body, Channel):
        body = b"".join(drain(body))
    headers = HeadersDict(response.headers)
    pieces = {
        "status_code": response.status,
        "headers": headers,
        "body": Body(body) if stream else body,
        "context": {"operation_name": operation.name},
    }
    return create_parser(protocol).parse(pieces, operation.output_shape if shape is None else shape)


def drain(channel: Channel) -> list[Any]:
    items: list[Any] = []
    ended: list[BaseException | None] = []
    channel.attach(items.append, ended.append)
    assert ended == [None], "the channel was not closed, or closed with an error"
    return items

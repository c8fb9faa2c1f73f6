"""Error answers, per protocol."""

from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpResponse
from preheat.wire import cbor
from preheat.wire.binding import OutputBinding, body_members
from preheat.wire.service import Service
from preheat.wire.trees import CBOR, JSON, Dialect, TreeWriters
from preheat.wire.xmlform import DECLARATION, XmlWriters, escape, write_members

BODILESS = (204, 304)


def render(service: Service, method: str, error: AwsError, request_id: str) -> HttpResponse:
    """`error` as `service` answers it over its protocol. HEAD has no body."""
    response = RENDERERS[service.protocol](service, error, request_id)
    response.headers += error.headers.items()
    if method == "HEAD" or error.status in BODILESS:
        response.body = b""
    return response


def host_id(request_id: str) -> str:
    """S3's second request id; derived, so that it can be traced to the first."""
    from base64 import b64encode

    return b64encode(request_id.encode() * 2).decode("ascii")


def query_code(service: Service, error: AwsError) -> str:
    """The code of the query protocol, which some services spell differently from the shape's name."""
    if error.query_code:
        return error.query_code
    found = service.error_shape(error.code)
    trait = found[1].error if found is not None else None
    return trait.code if trait is not None and trait.code else error.code


def _tree(service: Service, error: AwsError, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """(the error's name, its members as the model has them, the message among them)."""
    found = service.error_shape(error.code)
    if found is None:
        return error.code, {"message": error.message, **error.fields}
    name, shape = found
    key = next((own for own in shape.members if own.lower() == "message"), "message")
    members = {own: value for own, value in error.fields.items() if own in shape.members}
    type_member = service.quirk("error_type_member")
    if type_member in shape.members:
        members.setdefault(type_member, "User" if error.sender else "Server")
    body = TreeWriters(service.model, dialect).structure(name, body_members(shape))({**members, key: error.message})
    body.setdefault(key, error.message)
    return name, body


def _type_name(service: Service, name: str) -> str:
    spaces = service.common["error_namespaces"]
    modelled = service.error_shape(name) is not None
    prefix = service.quirks.get("error_namespace") if modelled else spaces.get(name)
    return f"{prefix}#{name}" if prefix else name


def _compatible(service: Service, error: AwsError, headers: list[tuple[str, str]]) -> None:
    if service.query_compatible:
        headers.append(("x-amzn-query-error", f"{query_code(service, error)};{_fault(error)}"))


def _fault(error: AwsError) -> str:
    return "Sender" if error.sender else "Receiver"


def _json(service: Service, error: AwsError, request_id: str) -> HttpResponse:
    name, members = _tree(service, error, JSON)
    content_type = f"application/x-amz-json-{service.model.metadata.json_version}"
    headers = [("x-amzn-RequestId", request_id), ("Content-Type", content_type)]
    _compatible(service, error, headers)
    return HttpResponse(error.status, headers, msgspec.json.encode({"__type": _type_name(service, name), **members}))


def _cbor(service: Service, error: AwsError, request_id: str) -> HttpResponse:
    name, members = _tree(service, error, CBOR)
    headers = [
        ("x-amzn-RequestId", request_id),
        ("Content-Type", "application/cbor"),
        ("smithy-protocol", "rpc-v2-cbor"),
    ]
    _compatible(service, error, headers)
    return HttpResponse(error.status, headers, cbor.encode({"__type": _type_name(service, name), **members}))


def _rest_json(service: Service, error: AwsError, request_id: str) -> HttpResponse:
    name, members = _tree(service, error, JSON)
    headers = [
        ("x-amzn-RequestId", request_id),
        ("x-amzn-ErrorType", name),
        ("Content-Type", "application/json"),
    ]
    found = service.error_shape(error.code)
    if found is not None:
        OutputBinding(service.model, found[1]).write(error.fields, headers)
    return HttpResponse(error.status, headers, msgspec.json.encode(members))


def _members_xml(service: Service, error: AwsError) -> str:
    """Further members of the error; text for those that no model describes."""
    parts: list[str] = []
    found = service.error_shape(error.code)
    known: dict[str, Any] = {}
    if found is not None:
        name, shape = found
        known = {own: value for own, value in error.fields.items() if own in shape.members}
        write_members(XmlWriters(service.model).members(name), known, parts)
    for own, value in error.fields.items():
        if own not in known and value is not None:
            parts.append(f"<{own}>{escape(str(value))}</{own}>")
    return "".join(parts)


def _query(service: Service, error: AwsError, request_id: str) -> HttpResponse:
    namespace = service.quirks.get("xml_namespace") or service.model.metadata.xml_namespace or ""
    xmlns = f' xmlns="{namespace}"' if namespace else ""
    text = (
        f"{DECLARATION}<ErrorResponse{xmlns}><Error><Type>{_fault(error)}</Type>"
        f"<Code>{escape(query_code(service, error))}</Code><Message>{escape(error.message)}</Message>"
        f"{_members_xml(service, error)}{'<Detail/>' if service.quirks.get('error_detail') else ''}</Error>"
        f"<RequestId>{escape(request_id)}</RequestId></ErrorResponse>"
    )
    return HttpResponse(
        error.status, [("x-amzn-RequestId", request_id), ("Content-Type", "text/xml")], text.encode()
    )


def _rest_xml(service: Service, error: AwsError, request_id: str) -> HttpResponse:
    host = host_id(request_id)
    text = (
        f"{DECLARATION}<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"{_members_xml(service, error)}<RequestId>{escape(request_id)}</RequestId><HostId>{host}</HostId></Error>"
    )
    headers = [("x-amz-request-id", request_id), ("x-amz-id-2", host), ("Content-Type", "application/xml")]
    return HttpResponse(error.status, headers, text.encode())


RENDERERS = {
    "json": _json,
    "smithy-rpc-v2-cbor": _cbor,
    "query": _query,
    "rest-json": _rest_json,
    "rest-xml": _rest_xml,
}

"""Operations of the RPC protocols, compiled: awsJson, smithy-rpc-v2-cbor and query."""

from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.wire import cbor, eventstream
from preheat.wire.events import EventBodies, EventWriter
from preheat.wire.failures import render
from preheat.wire.model import OperationModel
from preheat.wire.queryform import QueryReaders, grow
from preheat.wire.service import Service
from preheat.wire.trees import CBOR, JSON, TreeReaders, TreeWriters
from preheat.wire.validate import missing_error, missing_members
from preheat.wire.values import BadValue, MissingMember
from preheat.wire.xmlform import DECLARATION, XmlWriters, write_members

JSON_DECODER = msgspec.json.Decoder()


def _plain(value: Any) -> Any:
    """Scalars of numeric libraries, which know how to become Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"no JSON for {type(value).__name__}")


JSON_ENCODER = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")
DECODE_ERRORS = (msgspec.DecodeError, RecursionError, ValueError)
Headers = list[tuple[str, str]]


def add_headers(headers: Headers, more: dict[str, str] | None) -> Headers:
    """`more` replaces headers of the same name."""
    if not more:
        return headers
    named = {name.lower() for name in more}
    return [*(pair for pair in headers if pair[0].lower() not in named), *more.items()]


def decode_json(body: bytes) -> Any:
    try:
        return JSON_DECODER.decode(body)
    except DECODE_ERRORS as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise AwsError("SerializationException", f"The request body is not valid JSON: {detail}") from None


class Operation:
    """What every protocol shares: the models of input and output, and the error answer."""

    def __init__(self, service: Service, operation: OperationModel) -> None:
        self.service = service
        self.service_name = service.name
        self.name = operation.name
        self.input = service.shape_of(operation.input)
        self.output = service.shape_of(operation.output)
        self.has_output = operation.output is not None

    def error(self, method: str, error: AwsError, request_id: str) -> HttpResponse:
        return render(self.service, method, error, request_id)

    def _missing(self, params: dict[str, Any]) -> AwsError:
        paths = missing_members(self.service.model, self.input, params)
        return missing_error(paths, self.service.quirk("missing"))

    def _events(self, bodies: EventBodies) -> EventWriter | None:
        shapes = self.service.model.shapes
        for name, ref in shapes[self.output.shape].members.items():
            if shapes[ref.shape].eventstream:
                return EventWriter(self.service.model, name, ref.shape, bodies)
        return None


class TreeOperation(Operation):
    """awsJson and CBOR: one body in, one body out."""

    def __init__(self, service: Service, operation: OperationModel) -> None:
        super().__init__(service, operation)
        self._json = service.protocol == "json"
        self._dialect = JSON if self._json else CBOR
        self._read = TreeReaders(service.model, self._dialect).structure(self.input.shape)
        self._write = TreeWriters(service.model, self._dialect).structure(self.output.shape)
        version = service.model.metadata.json_version
        self._content_type = f"application/x-amz-json-{version}" if self._json else "application/cbor"
        self._encode = JSON_ENCODER.encode if self._json else cbor.encode
        self._stream = self._events(EventBodies(self._content_type, self._event_body))

    def _event_body(self, shape: str, value: dict[str, Any]) -> bytes:
        return self._encode(TreeWriters(self.service.model, self._dialect).structure(shape)(value))

    def _decode(self, body: bytes) -> Any:
        if not body:
            return {}
        if self._json:
            return decode_json(body)
        try:
            return cbor.decode(body)
        except cbor.CborError as error:
            raise AwsError("SerializationException", f"The request body is not valid CBOR: {error}") from None

    def parse(self, request: HttpRequest) -> dict[str, Any]:
        value = self._decode(request.body)
        try:
            return self._read(value)
        except MissingMember:
            lenient = TreeReaders(self.service.model, self._dialect, strict=False).structure(self.input.shape)
            raise self._missing(lenient(value)) from None

    def reply(self, output: dict[str, Any], request_id: str, status: int | None, more: dict[str, str] | None) -> Any:
        headers = [("x-amzn-RequestId", request_id), ("Content-Type", self._content_type)]
        if not self._json:
            headers.append(("smithy-protocol", "rpc-v2-cbor"))
        if self._stream is not None and output.get(self._stream.member) is not None:
            headers[1] = ("Content-Type", eventstream.CONTENT_TYPE)
            initial = {name: value for name, value in output.items() if name != self._stream.member}
            body = self._stream.open(output[self._stream.member], initial, self.output.shape)
            return HttpResponse(status or 200, add_headers(headers, more), body)
        if not self.has_output:
            body = b"" if self._json else self._encode({})
        else:
            body = self._encode(self._write(output))
        return HttpResponse(status or 200, add_headers(headers, more), body)


class QueryOperation(Operation):
    def __init__(self, service: Service, operation: OperationModel) -> None:
        super().__init__(service, operation)
        self._read = QueryReaders(service.model).structure(self.input.shape)
        self._members = XmlWriters(service.model).members(self.output.shape)
        namespace = service.quirks.get("xml_namespace") or service.model.metadata.xml_namespace or ""
        self._start = f'{DECLARATION}<{self.name}Response xmlns="{namespace}">'
        self._wrapper = self.output.result_wrapper or f"{self.name}Result"

    def parse(self, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        tree = grow(pairs)
        try:
            return self._read(tree)
        except MissingMember:
            lenient = QueryReaders(self.service.model, strict=False).structure(self.input.shape)
            raise self._missing(lenient(tree)) from None
        except BadValue as error:
            answer = self.service.quirk("bad_value")
            message = answer["message"].format(name=error.name, value=error.value, type=error.type_name)
            raise AwsError(answer["code"], message, query_code=answer.get("query_code")) from None

    def reply(self, output: dict[str, Any], request_id: str, status: int | None, more: dict[str, str] | None) -> Any:
        parts = [self._start]
        if self.has_output:
            parts.append(f"<{self._wrapper}>")
            write_members(self._members, output, parts)
            parts.append(f"</{self._wrapper}>")
        parts.append(
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{self.name}Response>"
        )
        headers = [("x-amzn-RequestId", request_id), ("Content-Type", "text/xml")]
        return HttpResponse(status or 200, add_headers(headers, more), "".join(parts).encode())

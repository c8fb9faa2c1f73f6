"""Operations of the REST protocols, compiled: rest-json and rest-xml."""

from collections.abc import Callable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.stream import Channel, FileSlice
from preheat.wire import chunked, eventstream
from preheat.wire.binding import InputBinding, OutputBinding, body_members
from preheat.wire.events import EventBodies
from preheat.wire.failures import BODILESS, host_id
from preheat.wire.model import OperationModel, Shape
from preheat.wire.rpc import JSON_ENCODER, Headers, Operation, add_headers, decode_json
from preheat.wire.service import Service
from preheat.wire.trees import JSON, TreeReaders, TreeWriters
from preheat.wire.values import BadValue, MissingMember
from preheat.wire.xmlform import (
    DECLARATION,
    MalformedXml,
    XmlReaders,
    XmlWriters,
    escape,
    local_name,
    parse_xml,
    write_members,
)

Labels = dict[str, str]
Query = dict[str, list[str]]


def unchunk(request: HttpRequest) -> tuple[bytes, dict[str, str]]:
    """The decoded body, and the headers as if the client had sent it unframed, trailers among them."""
    body, trailers = chunked.decode(request)
    headers = {**request.headers, **trailers, "content-length": str(len(body))}
    encodings = [part.strip() for part in headers.pop("content-encoding", "").split(",")]
    kept = [part for part in encodings if part and part != "aws-chunked"]
    if kept:
        headers["content-encoding"] = ",".join(kept)
    return body, headers


class RestOperation(Operation):
    """`_read_body(body)` gives members of the body; `_write_body(output, headers)` the bytes. By format, below."""

    def __init__(self, service: Service, operation: OperationModel) -> None:
        super().__init__(service, operation)
        model = service.model
        shape = self._input_shape = model.shapes[self.input.shape]
        output = self._output_shape = model.shapes[self.output.shape]
        uri_query = operation.http.request_uri.partition("?")[2]
        literals = {part.partition("=")[0] for part in uri_query.split("&")}
        self._binding = InputBinding(model, shape, literals)
        self._out_binding = OutputBinding(model, output)
        self._status = operation.http.response_code or 200
        self._payload = shape.payload
        self._payload_shape = None if shape.payload is None else model.shapes[shape.members[shape.payload].shape]
        self._out_payload = output.payload
        self._out_payload_shape = None if output.payload is None else model.shapes[output.members[output.payload].shape]
        self._streaming = shape.payload is not None and (
            shape.members[shape.payload].streaming or bool(self._payload_shape and self._payload_shape.streaming)
        )
        self._read_body = self._compile_input(strict=True)
        self._stream = self._events(EventBodies(self.event_type, self._event_body))

    event_type = ""

    def _compile_input(self, strict: bool) -> Callable[[bytes], dict[str, Any]]:
        raise NotImplementedError

    def _event_body(self, shape: str, value: dict[str, Any]) -> bytes:
        raise NotImplementedError

    def _write_body(self, output: dict[str, Any], headers: Headers) -> bytes:
        raise NotImplementedError

    # -- in -------------------------------------------------------------------------------------------------------

    def parse(self, request: HttpRequest, labels: Labels, query: Query) -> dict[str, Any]:
        headers, body = request.headers, request.body
        if chunked.is_chunked(headers):
            body, headers = unchunk(request)
        params: dict[str, Any] = {}
        try:
            self._binding.fill(params, labels, query, headers)
        except BadValue as error:
            answer = self.service.quirk("bad_value")
            fields = {key: text.format(name=error.name, value=error.value) for key, text in answer["fields"].items()}
            message = answer["message"].format(name=error.name, value=error.value, type=error.type_name)
            raise AwsError(answer["code"], message, fields=fields) from None
        shape = self._payload_shape
        if shape is None or shape.type == "structure":
            if body and not (shape is not None and shape.eventstream):
                self._read_members(params, body)
        elif body or self._streaming:
            params[self._payload] = body if shape.type == "blob" else _text(body)
        for name in self._input_shape.required:
            if name not in params:
                raise self._absent(name, params)
        return params

    def _read_members(self, params: dict[str, Any], body: bytes) -> None:
        try:
            params.update(self._read_body(body))
        except MissingMember:
            params.update(self._compile_input(strict=False)(body))
            answer = self.service.quirk("missing_in_body")
            raise (AwsError(**answer) if answer is not None else self._missing(params)) from None

    def _absent(self, name: str, params: dict[str, Any]) -> AwsError:
        answer = self.service.quirk("missing_body")
        if answer is not None and (name == self._payload or self._input_shape.members[name].location is None):
            return AwsError(answer["code"], answer["message"])
        return self._missing(params)

    # -- out ------------------------------------------------------------------------------------------------------

    def reply(self, output: dict[str, Any], request_id: str, status: int | None, more: dict[str, str] | None) -> Any:
        headers: Headers = self._request_ids(request_id)
        self._out_binding.write(output, headers)
        member = self._out_binding.status_member
        code = status or (output.get(member) if member else None) or self._status
        body: bytes | FileSlice | Channel
        if self._stream is not None:
            if not any(name.lower() == "content-type" for name, _ in headers):
                headers.append(("Content-Type", eventstream.CONTENT_TYPE))
            source = output.get(self._stream.member)
            body = b"" if source is None else self._stream.open(source, None, self.output.shape)
        elif self._out_payload_shape is not None and self._out_payload_shape.type in ("blob", "string"):
            body = output.get(self._out_payload)
            body = b"" if body is None else body.encode() if isinstance(body, str) else body
            if body and not any(name.lower() == "content-type" for name, _ in headers):
                headers.append(("Content-Type", self.service.quirk("payload_content_type")))
        else:
            body = b"" if code in BODILESS else self._write_body(output, headers)
        return HttpResponse(code, add_headers(headers, more), body)

    def _request_ids(self, request_id: str) -> Headers:
        return [("x-amzn-RequestId", request_id)]


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise AwsError("SerializationException", "The request body is not UTF-8 text.") from None


class RestJsonOperation(RestOperation):
    event_type = "application/json"

    def __init__(self, service: Service, operation: OperationModel) -> None:
        super().__init__(service, operation)
        writers = TreeWriters(service.model, JSON)
        self._out_members = body_members(self._output_shape)
        if self._out_payload is not None:
            self._write = writers.writer(self._output_shape.members[self._out_payload])
        else:
            self._write = writers.structure(self.output.shape, self._out_members)

    def _compile_input(self, strict: bool) -> Callable[[bytes], dict[str, Any]]:
        readers = TreeReaders(self.service.model, JSON, strict)
        payload = self._payload
        if payload is not None:
            _, read = readers.reader(self._input_shape.members[payload])
            return lambda body: {payload: read(self._decode(body))}
        read = readers.structure(self.input.shape, body_members(self._input_shape))
        return lambda body: read(self._decode(body))

    def _decode(self, body: bytes) -> Any:
        try:
            return decode_json(body)
        except AwsError as error:
            answer = self.service.quirk("malformed_json")
            if answer is None:
                raise
            raise AwsError(answer["code"], answer["message"].format(detail=error.message)) from None

    def _event_body(self, shape: str, value: dict[str, Any]) -> bytes:
        return JSON_ENCODER.encode(TreeWriters(self.service.model, JSON).structure(shape)(value))

    def _write_body(self, output: dict[str, Any], headers: Headers) -> bytes:
        if not self.has_output:
            return b""
        headers.append(("Content-Type", "application/json"))
        value = output if self._out_payload is None else output.get(self._out_payload)
        if value is None:
            return b"{}"
        return JSON_ENCODER.encode(value if self._write is None else self._write(value))


class RestXmlOperation(RestOperation):
    event_type = "text/xml"

    def __init__(self, service: Service, operation: OperationModel) -> None:
        super().__init__(service, operation)
        writers = XmlWriters(service.model)
        output = self._output_shape
        namespace = service.quirks.get("xml_namespace")
        self._xmlns = f' xmlns="{namespace}"' if namespace else ""
        self._root_text = service.quirks.get("root_text", {}).get(self.name)
        if self._out_payload is not None and self._out_payload_shape is not None:
            ref = output.members[self._out_payload]
            self._root = ref.location_name or ref.shape
            self._members = writers.members(ref.shape) if self._out_payload_shape.type == "structure" else []
        else:
            self._root = service.quirks.get("root_names", {}).get(self.name) or _root_name(self.output.shape)
            self._members = writers.members(self.output.shape, body_members(output))

    def _request_ids(self, request_id: str) -> Headers:
        return [("x-amz-request-id", request_id), ("x-amz-id-2", host_id(request_id))]

    def _compile_input(self, strict: bool) -> Callable[[bytes], dict[str, Any]]:
        readers = XmlReaders(self.service.model, strict)
        shape, payload = self._input_shape, self._payload
        if payload is not None:
            ref = shape.members[payload]
            read = readers.reader(ref) if self._is_structure(ref.shape) else (lambda element: element)
            return lambda body: {payload: self._guard(read, body, ref.location_name or ref.shape)}
        root = self.input.location_name or shape.location_name
        read = readers.structure(self.input.shape, body_members(shape))
        return lambda body: self._guard(read, body, root)

    def _is_structure(self, name: str) -> bool:
        found: Shape = self.service.model.shapes[name]
        return found.type == "structure"

    def _guard(self, read: Callable[[Any], Any], body: bytes, root: str | None) -> Any:
        """Everything that S3 calls malformed: bad syntax, another root, values of the wrong type."""
        try:
            element = parse_xml(body)
            if root is None or local_name(element.tag) == root:
                return read(element)
        except (MalformedXml, BadValue):
            pass
        answer = self.service.quirk("malformed_xml")
        raise AwsError(answer["code"], answer["message"])

    def _event_body(self, shape: str, value: dict[str, Any]) -> bytes:
        parts = [f"{DECLARATION}<{shape}>"]
        write_members(XmlWriters(self.service.model).members(shape), value, parts)
        parts.append(f"</{shape}>")
        return "".join(parts).encode()

    def _write_body(self, output: dict[str, Any], headers: Headers) -> bytes:
        value = output if self._out_payload is None else output.get(self._out_payload)
        if not self._members or value is None:
            return b""
        headers.append(("Content-Type", "application/xml"))
        parts = [f"{DECLARATION}<{self._root}{self._xmlns}>"]
        if self._root_text is not None:
            parts.append(escape(str(value.get(self._root_text) or "")))
        else:
            write_members(self._members, value, parts)
        parts.append(f"</{self._root}>")
        return "".join(parts).encode()


def _root_name(shape: str) -> str:
    for ending in ("Output", "Response"):
        if shape.endswith(ending):
            return shape.removesuffix(ending) + "Result"
    return shape

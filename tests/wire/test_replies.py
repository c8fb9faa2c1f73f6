"""What operations answer is what botocore reads: outputs, errors and event streams of the services that matter."""

from typing import Any

import pytest
from botocore.eventstream import EventStream
from botocore.exceptions import EventStreamError

from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest
from preheat.kernel.stream import Channel, FileSlice
from preheat.wire import Wire
from tests.wire.samples import Body, operations, parse_with_botocore, request_of, sample, service_model
from tests.wire.test_requests import OUT_OF_BAND, SERVICES, SHADOWED, params_for

WIRE = Wire()
NOT_BY_PARSER_ALONE = {("s3", "GetBucketLocation"), ("s3", "SelectObjectContent")}


def understood(service: str, operation: str, protocol: str | None = None) -> Call:
    return WIRE.understand(request_of(service, operation, params_for(service, operation), protocol))


def has_blob_payload(shape: Any) -> bool:
    payload = None if shape is None else shape.serialization.get("payload")
    return payload is not None and shape.members[payload].type_name == "blob"


@pytest.mark.parametrize(("service", "operation"), operations(*SERVICES))
def test_every_output_is_read_as_it_was_written(service: str, operation: str) -> None:
    if (service, operation) in OUT_OF_BAND or (service, operation) in NOT_BY_PARSER_ALONE or operation in SHADOWED:
        pytest.skip("not a plain answer")
    model = service_model(service).operation_model(operation)
    shape = model.output_shape
    if shape is not None and model.has_event_stream_output:
        pytest.skip("an event stream; tested below")
    output = {} if shape is None else sample(shape)
    call = understood(service, operation)
    assert call.operation == operation
    response = WIRE.reply(call, output, "the-request-id")
    parsed = parse_with_botocore(response, model, protocol_of(service), stream=has_blob_payload(shape))
    if parsed.get("ResponseMetadata", {}).get("RequestId") is not None:
        assert parsed["ResponseMetadata"]["RequestId"] == "the-request-id"
    parsed.pop("ResponseMetadata", None)
    for name, value in parsed.items():
        if isinstance(value, Body):
            parsed[name] = value.data
    assert parsed == output


def protocol_of(service: str) -> str:
    return service_model(service).protocol


@pytest.mark.parametrize(("service", "operation"), operations("sqs", "cloudwatch"))
def test_every_output_over_awsjson_and_cbor(service: str, operation: str) -> None:
    model = service_model(service).operation_model(operation)
    output = {} if model.output_shape is None else sample(model.output_shape)
    for protocol in ("json", "smithy-rpc-v2-cbor"):
        response = WIRE.reply(understood(service, operation, protocol), output, "id")
        parsed = parse_with_botocore(response, model, protocol)
        parsed.pop("ResponseMetadata", None)
        assert parsed == output


def errors_of(*services: str) -> list[tuple[str, str, str]]:
    found = []
    for service in services:
        model = service_model(service)
        seen: set[str] = set()
        for operation in model.operation_names:
            for shape in model.operation_model(operation).error_shapes:
                if shape.name not in seen and (service, operation) not in OUT_OF_BAND:
                    seen.add(shape.name)
                    found.append((service, operation, shape.name))
    return found


@pytest.mark.parametrize(("service", "operation", "name"), errors_of(*SERVICES))
def test_every_modelled_error_is_read_as_it_was_raised(service: str, operation: str, name: str) -> None:
    model = service_model(service)
    shape = model.shape_for(name)
    fields = {key: value for key, value in sample(shape).items() if key.lower() != "message"}
    status = shape.metadata.get("error", {}).get("httpStatusCode", 400)
    error = AwsError(name, 'went "wrong" <here>', status, fields=fields)
    request = request_of(service, operation, params_for(service, operation))
    request.method = "POST"
    response = WIRE.error(understood(service, operation), request, error, "id-7")
    protocol = protocol_of(service)
    plain = parse_with_botocore(response, model.operation_model(operation), protocol)
    assert plain["Error"]["Message"] == error.message
    assert plain["Error"]["Code"] == shape.metadata.get("error", {}).get("code", name)
    assert plain["ResponseMetadata"]["RequestId"] == "id-7"
    assert response.status == status
    modelled = parse_with_botocore(response, model.operation_model(operation), protocol, shape)
    for key, value in fields.items():
        if protocol != "rest-xml" or key in shape.members:
            assert modelled[key] == value


EVENT_STREAMS = [
    (service, operation)
    for service, operation in operations("lambda", "bedrock-runtime", "bedrock-agent-runtime", "logs", "kinesis", "s3")
    if service_model(service).operation_model(operation).has_event_stream_output
    and (service, operation) not in OUT_OF_BAND
]


def stream_member(service: str, operation: str) -> tuple[str, Any]:
    shape = service_model(service).operation_model(operation).output_shape
    for name, member in shape.members.items():
        if member.serialization.get("eventstream"):
            return name, member
    raise AssertionError("no event stream")


@pytest.mark.parametrize(("service", "operation"), EVENT_STREAMS)
def test_every_event_stream_is_read_as_it_was_sent(service: str, operation: str) -> None:
    member, union = stream_member(service, operation)
    events = [
        {name: sample(shape)} for name, shape in union.members.items() if not shape.metadata.get("exception", False)
    ]
    channel = Channel()
    response = WIRE.reply(understood(service, operation), {member: channel}, "id")
    for event in events:
        channel.send(event)
    channel.close()
    model = service_model(service).operation_model(operation)
    parsed = parse_with_botocore(response, model, protocol_of(service), stream=True)
    assert list(parsed[member]) == events


@pytest.mark.parametrize(("service", "operation"), EVENT_STREAMS)
def test_an_error_ends_an_event_stream_as_an_exception(service: str, operation: str) -> None:
    member, union = stream_member(service, operation)
    exceptions = [shape for shape in union.members.values() if shape.metadata.get("exception", False)]
    channel = Channel()
    response = WIRE.reply(understood(service, operation), {member: channel}, "id")
    name = exceptions[0].name if exceptions else "InternalFailure"
    channel.close(AwsError(name, "it broke", 500))
    model = service_model(service).operation_model(operation)
    parsed = parse_with_botocore(response, model, protocol_of(service), stream=True)
    with pytest.raises(EventStreamError, match="it broke"):
        list(parsed[member])


def test_get_bucket_location_has_its_text_in_the_root() -> None:
    call = understood("s3", "GetBucketLocation")
    text = WIRE.reply(call, {"LocationConstraint": "eu-west-1"}, "id").body
    assert b'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">eu-west-1</LocationConstraint>' in text
    assert b"/2006-03-01/\"></LocationConstraint>" in WIRE.reply(call, {"LocationConstraint": None}, "id").body


def test_streaming_bodies_pass_through(tmp_path) -> None:
    call = understood("s3", "GetObject")
    piece = FileSlice(tmp_path / "blob", 3, 9)
    channel = Channel()
    for body in (b"bytes", piece, channel):
        assert WIRE.reply(call, {"Body": body}, "id").body is body


def test_status_and_headers_of_a_reply_go_first() -> None:
    call = understood("s3", "GetObject")
    response = WIRE.reply(call, {"Body": b"x"}, "id", 206, {"content-type": "text/plain"})
    assert response.status == 206
    assert [value for name, value in response.headers if name.lower() == "content-type"] == ["text/plain"]


def test_head_errors_have_no_body() -> None:
    request = HttpRequest("HEAD", "/bucket/key", {"host": "127.0.0.1:4566"})
    call = WIRE.understand(request)
    response = WIRE.error(call, request, AwsError("NoSuchKey", "gone", 404), "id")
    assert (call.operation, response.status, response.body) == ("HeadObject", 404, b"")


def test_members_that_are_none_or_unknown_are_left_out() -> None:
    call = understood("sqs", "SendMessage")
    assert WIRE.reply(call, {"MessageId": "m", "MD5OfMessageBody": None, "Other": 1}, "id").body == b'{"MessageId":"m"}'


def test_epoch_seconds_are_timestamps_too() -> None:
    call = understood("dynamodb", "CreateTable")
    body = WIRE.reply(call, {"TableDescription": {"CreationDateTime": 1_700_000_000.25}}, "id").body
    assert body == b'{"TableDescription":{"CreationDateTime":1700000000.25}}'


def test_an_event_stream_class_is_what_botocore_made() -> None:
    channel = Channel()
    channel.send({"chunk": {"bytes": b"one"}})
    channel.close()
    call = understood("bedrock-runtime", "InvokeModelWithResponseStream")
    response = WIRE.reply(call, {"body": channel, "contentType": "application/json"}, "id")
    model = service_model("bedrock-runtime").operation_model(call.operation)
    parsed = parse_with_botocore(response, model, "rest-json", stream=True)
    assert parsed["contentType"] == "application/json"
    assert isinstance(parsed["body"], EventStream)
    assert list(parsed["body"]) == [{"chunk": {"bytes": b"one"}}]

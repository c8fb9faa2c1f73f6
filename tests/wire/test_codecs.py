"""Event streams, aws-chunked bodies, CBOR, timestamps and headers: round trips over anything, and broken input."""

import math
import struct
from datetime import UTC, datetime

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.parsers import RpcV2CBORParser
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.stream import Channel
from preheat.wire import Wire, cbor, chunked, eventstream, values
from preheat.wire.binding import split_header
from tests.wire.samples import drain

moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
header_values = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=50), st.binary(max_size=50))
header_maps = st.dictionaries(st.text(min_size=1, max_size=20), header_values | moments, max_size=5)


# -- event streams ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(header_maps, st.binary(max_size=200)), max_size=4), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_messages_survive_any_cut(messages: list, step: int) -> None:
    data = b"".join(eventstream.encode(headers, payload) for headers, payload in messages)
    decoder = eventstream.Decoder()
    found = []
    for start in range(0, len(data), step):
        found += decoder.feed(data[start : start + step])
    assert [(message.headers, message.payload) for message in found] == messages
    assert decoder.pending == 0


def test_botocore_reads_our_messages() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.encode({":event-type": "chunk", "n": -5, "big": 2**40, "yes": True}, b"payload"))
    [event] = list(buffer)
    assert event.headers == {":event-type": "chunk", "n": -5, "big": 2**40, "yes": True}
    assert event.payload == b"payload"


@given(st.integers(0, 60), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    data = bytearray(eventstream.encode({"name": "value"}, b"some payload of a length"))
    data[position % len(data)] ^= change
    with pytest.raises(eventstream.EventStreamError):
        eventstream.Decoder().feed(bytes(data))


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_headers_of_any_bytes_are_read_or_refused(head: bytes) -> None:
    import zlib

    prelude = struct.pack(">II", 16 + len(head), len(head))
    start = prelude + struct.pack(">I", zlib.crc32(prelude)) + head
    try:
        [message] = eventstream.Decoder().feed(start + struct.pack(">I", zlib.crc32(start)))
    except eventstream.EventStreamError:
        return
    assert message.payload == b""


def test_a_stream_is_cancelled_at_its_source() -> None:
    for initial in (None, b"first"):
        source = Channel()
        out = eventstream.stream(source, lambda item: item, lambda error: b"failed", initial)
        source.send(b"a")
        out.cancel()
        assert source.cancelled
        source.send(b"b")


def test_a_defect_that_ends_a_stream_is_an_error_message() -> None:
    for initial in (None, b""):
        source = Channel()
        out = eventstream.stream(source, lambda item: item, lambda error: b"failed", initial)
        source.close(RuntimeError("secret detail"))
        [message] = eventstream.Decoder().feed(b"".join(drain(out)))
        assert message.headers[":message-type"] == "error"
        assert "secret" not in str(message)


# -- aws-chunked ------------------------------------------------------------------------------------------------------


def frame(data: bytes, size: int, signed: bool, trailers: dict[str, str]) -> bytes:
    out = b""
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        out += b"%x%s\r\n%s\r\n" % (len(piece), b";chunk-signature=" + b"0" * 64 if signed else b"", piece)
    out += b"0" + (b";chunk-signature=" + b"0" * 64 if signed else b"") + b"\r\n"
    return out + b"".join(f"{name}:{value}\r\n".encode() for name, value in trailers.items()) + b"\r\n"


def chunked_put(body: bytes, length: int | None, **headers: str) -> HttpRequest:
    fixed = {"host": "127.0.0.1:4566", "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", **headers}
    if length is not None:
        fixed["x-amz-decoded-content-length"] = str(length)
    return HttpRequest("PUT", "/bucket/key", fixed, body)


@given(st.binary(max_size=300), st.integers(1, 100), st.booleans())
@settings(max_examples=100, deadline=None)
def test_chunks_are_joined(data: bytes, size: int, signed: bool) -> None:
    trailers = {"x-amz-checksum-crc32": "AAAAAA=="}
    request = chunked_put(frame(data, size, signed, trailers), len(data))
    assert chunked.decode(request) == (data, trailers)


def test_an_upload_in_chunks_is_an_upload() -> None:
    body = frame(b"hello world", 4, False, {"x-amz-checksum-crc32": "DUoRhQ=="})
    encodings = {"content-encoding": "gzip,aws-chunked", "content-length": str(len(body))}
    request = chunked_put(body, 11, **encodings)
    call = Wire().understand(request)
    assert call.params == {
        "Bucket": "bucket", "Key": "key", "Body": b"hello world", "ChecksumCRC32": "DUoRhQ==", "ContentLength": 11,
        "ContentEncoding": "gzip",
    }  # fmt: skip
    assert request.body == body and request.headers["content-encoding"] == "gzip,aws-chunked"
    alone = Wire().understand(chunked_put(body, 11, **{"content-encoding": "aws-chunked"}))
    assert "ContentEncoding" not in alone.params


@pytest.mark.parametrize(
    "body",
    [b"", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"zz\r\n", b"-1\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
     b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r\n0\r\nno colon\r\n\r\n", b"ffffffffffffffffff\r\n"],
)  # fmt: skip
def test_broken_chunks_are_incomplete(body: bytes) -> None:
    with pytest.raises(AwsError) as caught:
        Wire().understand(chunked_put(body, None))
    assert caught.value.code == "IncompleteBody"


def test_a_length_that_disagrees_is_incomplete() -> None:
    with pytest.raises(AwsError, match="IncompleteBody"):
        chunked.decode(chunked_put(frame(b"hello", 5, False, {}), 6))


# -- CBOR -------------------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.floats(allow_nan=False), st.text(), st.binary(),
    moments,
)  # fmt: skip
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(trees)
@settings(max_examples=200, deadline=None)
def test_cbor_round_trips(value: object) -> None:
    assert cbor.decode(cbor.encode(value)) == value


@given(st.dictionaries(st.text(), scalars.filter(lambda value: value is not None)))
@settings(max_examples=100, deadline=None)
def test_botocore_reads_our_cbor(value: dict) -> None:
    parser = RpcV2CBORParser()
    assert parser.parse_data_item(parser.get_peekable_stream_from_bytes(cbor.encode(value))) == value


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_cbor_or_refused(data: bytes) -> None:
    try:
        cbor.decode(data)
    except cbor.CborError:
        return


def test_cbor_forms_that_others_send() -> None:
    assert cbor.decode(bytes.fromhex("bf61610161629f0203ffff")) == {"a": 1, "b": [2, 3]}
    assert cbor.decode(bytes.fromhex("7f657374726561646d696e67ff")) == "streaming"
    assert cbor.decode(bytes.fromhex("f93c00")) == 1.0
    assert cbor.decode(bytes.fromhex("fa47c35000")) == 100000.0
    assert math.isinf(cbor.decode(bytes.fromhex("f97c00")))
    assert cbor.decode(bytes.fromhex("c11a514b67b0")) == datetime(2013, 3, 21, 20, 4, tzinfo=UTC)
    for broken in ("c2420100", "1c", "ff", "f8ff", "5f6161ff", "c1fb7ff8000000000000", "a1", "81" * 5000):
        with pytest.raises(cbor.CborError):
            cbor.decode(bytes.fromhex(broken))
    for unwritable in (2**64, object()):
        with pytest.raises(cbor.CborError):
            cbor.encode(unwritable)


# -- scalars ----------------------------------------------------------------------------------------------------------


@given(moments)
@settings(max_examples=200, deadline=None)
def test_timestamps_round_trip_in_every_format(moment: datetime) -> None:
    assert values.parse_timestamp(values.iso8601(moment)) == moment
    assert values.parse_timestamp(values.unix_text(moment)) == moment
    assert values.read_timestamp(values.unix_number(moment)) == moment
    assert values.parse_timestamp(values.rfc822(moment)) == moment.replace(microsecond=0)


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "99999999999999999999", "Mon", "1.2.3", "--5", "nan"])
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(values.BadValue):
        values.parse_timestamp(text)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ", ["a", "b"]),
        ('"a,b",c', ["a,b", "c"]),
        ('"say \\"hi\\"",x', ['say "hi"', "x"]),
        ("one", ["one"]),
        ("", []),
    ],
)
def test_lists_in_headers(text: str, items: list[str]) -> None:
    assert split_header(text) == items

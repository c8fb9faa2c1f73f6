"""The frames of the channel: whole, in pieces, and such as no runtime sends."""

import pytest

from preheat.execution.runtime_api import MAX_RESPONSE_BYTES, RuntimeSession
from preheat.execution.workers.channel import MAX_FRAME_BYTES, ChannelConnection
from preheat.execution.workers.contract import Answer, WorkRequest
from preheat.execution.workers.runtime import channel
from preheat.execution.workers.runtime.channel import ANSWER, ChannelClient
from preheat.execution.workers.runtime.client import Closed
from tests.support.told import Told

EVENT = WorkRequest(
    "r-1", b'{"a":1}', 1_700_000_000_000, "arn:f", "Root=1", '{"custom":{}}', '{"cognitoIdentityId":"i"}'
)


class Side(Told):
    """The server's end: what it wrote, and what its session told."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = 0
        self.session = RuntimeSession(self)
        self.connection = ChannelConnection(self.session, self.writes.append, self._close)

    def _close(self) -> None:
        self.closed += 1

    def run(self) -> None:
        """Bring the session to Running."""
        self.connection.feed(frame(channel.READY))
        self.session.offer(EVENT)
        self.events.clear()


def frame(kind: int, name: str = "", body: bytes = b"") -> bytes:
    return ANSWER.pack(len(name.encode()) + len(body), kind, len(name.encode())) + name.encode() + body


@pytest.fixture
def side():
    return Side()


class Line:
    """A socket in memory: gives `incoming`, at most `piece` bytes at a time, then its end; keeps what is sent."""

    def __init__(self, incoming: bytes = b"", piece: int = 1_000_000) -> None:
        self.incoming, self.piece, self.sent = incoming, piece, b""

    def recv(self, size: int) -> bytes:
        size = min(size, self.piece)
        data, self.incoming = self.incoming[:size], self.incoming[size:]
        return data

    def sendall(self, data: bytes) -> None:
        self.sent += data


def said(act) -> bytes:
    """What the runtime's client sends for one act."""
    line = Line()
    act(ChannelClient(line))
    return line.sent


@pytest.mark.parametrize("piece", [1, 7, 1_000_000])
def test_an_event_crosses_with_everything_it_carries(side, piece):
    side.connection.feed(frame(channel.READY))
    side.session.offer(EVENT)
    line = Line(b"".join(side.writes), piece)
    client = ChannelClient(line)
    assert client.next() == (
        "r-1", 1_700_000_000_000, "arn:f", b'{"a":1}', "Root=1", '{"custom":{}}', '{"cognitoIdentityId":"i"}', "",
    )  # fmt: skip
    assert line.sent == frame(channel.READY)
    with pytest.raises(Closed):
        client.next()
    assert line.sent == frame(channel.READY)


@pytest.mark.parametrize("size", [10, 70_000, 1_000_000])
def test_an_event_has_no_more_than_it_was_given(side, size):
    side.connection.feed(frame(channel.READY))
    side.session.offer(WorkRequest("r-2", bytes(size), 1, ""))
    event = ChannelClient(Line(b"".join(side.writes), 65_536)).next()
    assert (len(event.body), event[:3], event[4:]) == (size, ("r-2", 1, ""), ("", "", "", ""))


def test_an_event_that_breaks_off(side):
    side.connection.feed(frame(channel.READY))
    side.session.offer(EVENT)
    for length in (0, 10, 60):
        with pytest.raises(Closed):
            ChannelClient(Line(side.writes[0][:length])).next()


@pytest.mark.parametrize("piece", [1, 5, 1_000_000])
def test_answers_ask_for_the_next_event(side, piece):
    acts = (
        (lambda client: client.respond("r-1", b"42", "application/json"), [("answered", Answer(b"42"))]),
        (lambda client: client.fail("r-1", "E", {"m": 1}), [("answered", Answer(b'{"m": 1}', "E"))]),
        (
            lambda client: (client.begin_stream("r-1", "t", b"a"), client.send_chunk(b"b"), client.end_stream()),
            [("stream", "t"), ("chunk", b"a"), ("chunk", b"b"), ("answered", Answer(b"", None, "t", streamed=True))],
        ),
        (
            lambda client: (client.begin_stream("r-1", "t", b""), client.end_stream("Late", {"m": 1})),
            [("stream", "t"), ("answered", Answer(b'{"m": 1}', "Late", "t", streamed=True))],
        ),
    )  # fmt: skip
    side.connection.feed(frame(channel.READY))
    for act, events in acts:
        side.session.offer(EVENT)
        side.events.clear()
        data = said(act)
        for start in range(0, len(data), piece):
            side.connection.feed(data[start : start + piece])
        assert side.events == [*events, ("next",)]
    assert side.closed == 0


def test_several_frames_in_one_read_are_taken_in_turn(side):
    side.run()
    side.connection.feed(frame(channel.STREAM, "t", b"a") + frame(channel.CHUNK, "", b"b") + frame(channel.END)[:3])
    assert [event[0] for event in side.events] == ["stream", "chunk", "chunk"]
    side.connection.feed(frame(channel.END)[3:])
    assert [event[0] for event in side.events[3:]] == ["answered", "next"]


def test_a_large_chunk_travels_in_frames_of_bounded_size(side):
    side.run()
    data = said(lambda client: client.begin_stream("r-1", "t", bytes(100_000)))
    side.connection.feed(data)
    sizes = [len(event[1]) for event in side.events if event[0] == "chunk"]
    assert sum(sizes) == 100_000 and max(sizes) <= channel.MAX_CHUNK_BYTES


def test_the_limit_of_an_answer_is_known_to_the_runtime(side):
    assert channel.MAX_BODY_BYTES == MAX_RESPONSE_BYTES
    side.run()
    side.connection.feed(said(lambda client: client.respond("r-1", bytes(MAX_RESPONSE_BYTES + 1), "t")))
    assert side.events[0][1].error == "Function.ResponseSizeTooLarge" and side.events[1] == ("next",)
    side.session.offer(EVENT)
    side.events.clear()
    side.connection.feed(said(lambda client: client.fail("r-1", "E", {"m": "x" * MAX_RESPONSE_BYTES})))
    document = b'{"errorMessage":"Unknown application error occurred","errorType":"E"}'
    assert side.events[0] == ("answered", Answer(document, "E"))


def test_initialisation_that_failed_is_told_once(side):
    data = said(lambda client: client.fail_init("Runtime.X", {"m": 1}))
    side.connection.feed(data)
    assert side.events == [("init_error", "Runtime.X", b'{"m": 1}')] and side.closed == 0
    side.connection.feed(data)
    assert len(side.events) == 1 and side.closed == 1


@pytest.mark.parametrize(
    "data",
    [
        ANSWER.pack(MAX_FRAME_BYTES + 1, channel.RESPONSE, 0),
        ANSWER.pack(3, channel.RESPONSE, 4) + b"abcd",
        ANSWER.pack(0, 99, 0),
        frame(channel.CHUNK, "", b"x"),
        frame(channel.END),
        frame(channel.READY),
    ],
    ids=["too large", "name over the frame", "unknown kind", "chunk of nothing", "end of nothing", "ready twice"],
)
def test_what_breaks_the_protocol_closes_the_channel(side, data):
    side.run()
    side.connection.feed(data + frame(channel.RESPONSE, "t", b"1"))
    assert side.events == [] and side.closed == 1


@pytest.mark.parametrize("kind", [channel.RESPONSE, channel.ERROR, channel.STREAM, channel.TOO_LARGE])
def test_an_answer_to_nothing_closes_the_channel(side, kind):
    side.connection.feed(frame(channel.READY))
    side.connection.feed(frame(kind, "t", b"1"))
    assert side.events == [("next",)] and side.closed == 1
